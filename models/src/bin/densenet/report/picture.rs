//! Pictures that are part of the page: small JPEG files in data URIs.

use std::error::Error;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jpeg_encoder::{ColorType, Encoder};

use super::html::escape;

/// The long side of an embedded picture: it is enlarged or reduced by whole factors to about this.
const SMALLEST: usize = 112;
const LARGEST: usize = 224;
const QUALITY: u8 = 80;

/// A picture in red, green and blue, with its height and width.
pub struct RgbPicture {
    pub bytes: Vec<u8>,
    pub size: [usize; 2],
}

impl RgbPicture {
    /// In a size that is good to look at on a page.
    pub fn for_page(self) -> Self {
        let [height, width] = self.size;
        let side = height.max(width).max(1);
        if side < SMALLEST {
            self.enlarged(SMALLEST.div_ceil(side))
        } else {
            // The short side keeps a pixel.
            let most = height.min(width).max(1);
            self.reduced(side.div_ceil(LARGEST).min(most))
        }
    }

    /// Each pixel several times, either way.
    fn enlarged(self, times: usize) -> Self {
        let [height, width] = self.size;
        let mut bytes = Vec::with_capacity(self.bytes.len() * times * times);
        for row in self.bytes.chunks_exact(3 * width) {
            let pixels = row.as_chunks::<3>().0.iter();
            let line: Vec<u8> = pixels.flat_map(|pixel| pixel.repeat(times)).collect();
            (0..times).for_each(|_| bytes.extend_from_slice(&line));
        }
        Self {
            bytes,
            size: [height * times, width * times],
        }
    }

    /// The mean of squares of pixels. What is left over at the right and below is cut off.
    fn reduced(self, by: usize) -> Self {
        if by == 1 {
            return self;
        }
        let width = self.size[1];
        let size = self.size.map(|side| side / by);
        let mut bytes = Vec::with_capacity(3 * size[0] * size[1]);
        for (y, x) in (0..size[0]).flat_map(|y| (0..size[1]).map(move |x| (y, x))) {
            for part in 0..3 {
                let square = (0..by * by).map(|place| {
                    let pixel = (y * by + place / by) * width + x * by + place % by;
                    usize::from(self.bytes[3 * pixel + part])
                });
                bytes.push((square.sum::<usize>() / (by * by)) as u8);
            }
        }
        Self { bytes, size }
    }

    /// An `<img>` of it.
    pub fn image(&self, words: &str) -> Result<String, Box<dyn Error>> {
        let [height, width] = self.size;
        let mut jpeg = Vec::new();
        let sides = [width, height].map(u16::try_from);
        let [Ok(width), Ok(height)] = sides else {
            return Err(format!("a picture of {width}x{height} is too large for JPEG").into());
        };
        Encoder::new(&mut jpeg, QUALITY).encode(&self.bytes, width, height, ColorType::Rgb)?;
        Ok(format!(
            "<img alt=\"{}\" width=\"{width}\" height=\"{height}\" src=\"data:image/jpeg;base64,{}\"/>",
            escape(words),
            STANDARD.encode(jpeg)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_get_a_size_for_the_page() {
        let size = |height: usize, width: usize| {
            let bytes = vec![100; 3 * height * width];
            let page = RgbPicture {
                bytes,
                size: [height, width],
            }
            .for_page();
            assert_eq!(page.bytes, vec![100; 3 * page.size[0] * page.size[1]]);
            page.size
        };
        assert_eq!(size(28, 28), [112, 112]);
        assert_eq!(size(1, 50), [3, 150]);
        assert_eq!(size(224, 200), [224, 200]);
        assert_eq!(size(450, 301), [150, 100]);
    }

    #[test]
    fn pixels_are_repeated_and_averaged() {
        let bytes = vec![0, 0, 0, 10, 20, 30, 2, 4, 6, 4, 8, 12];
        let two = RgbPicture {
            bytes,
            size: [2, 2],
        };
        assert_eq!(
            RgbPicture {
                bytes: two.bytes.clone(),
                ..two
            }
            .reduced(2)
            .bytes,
            [4, 8, 12]
        );
        let enlarged = two.enlarged(2);
        assert_eq!(enlarged.size, [4, 4]);
        assert_eq!(
            enlarged.bytes[..12],
            [0, 0, 0, 0, 0, 0, 10, 20, 30, 10, 20, 30]
        );
        assert_eq!(enlarged.bytes[..12], enlarged.bytes[12..24]);
    }
}
