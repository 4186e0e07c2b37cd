//! From planes to RGB: components are upsampled to the size of the picture and their colours
//! converted, both as in libjpeg.

use super::{
    Broken,
    header::{Colour, Component},
    picture::{Decoding, Plane},
    room,
};
use densenet_cpu::kernel::simd::{Kernel, Simd};

impl Decoding {
    /// The picture in RGB, row by row.
    pub(super) fn rgb(&self, colour: Colour) -> Result<Vec<u8>, Broken> {
        let (width, height) = (self.frame.width, self.frame.height);
        let mut pixels = room(3 * width * height, 0)?;
        self.level.run(Convert {
            picture: self,
            colour,
            pixels: &mut pixels,
        });
        Ok(pixels)
    }
}

struct Convert<'a> {
    picture: &'a Decoding,
    colour: Colour,
    pixels: &'a mut [u8],
}

impl Kernel for Convert<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Decoding { frame, planes, .. } = self.picture;
        let width = frame.width;
        // Doubled rows may be one pixel wider than the picture.
        let mut rows = vec![vec![0; width + 4]; planes.len()];
        let mut sums = Vec::new();
        for (y, into) in self.pixels.chunks_exact_mut(3 * width).enumerate() {
            for ((part, plane), row) in frame.components.iter().zip(planes).zip(&mut rows) {
                enlarge(plane, scale(part, frame.most), y, &mut sums, row);
            }
            convert(self.colour, &mut rows, into);
        }
    }
}

/// How many pixels a sample covers, across and down.
fn scale(part: &Component, most: (usize, usize)) -> (usize, usize) {
    (most.0 / part.h, most.1 / part.v)
}

/// Writes row `y` of the picture. Samples that cover two pixels are interpolated ("fancy
/// upsampling"), except in pictures too narrow for libjpeg to do so; other samples are repeated.
#[inline(always)]
fn enlarge(
    plane: &Plane,
    (across, down): (usize, usize),
    y: usize,
    sums: &mut Vec<u16>,
    into: &mut [u8],
) {
    let line = |y: usize| &plane.samples[y * plane.stride..][..plane.width];
    let is_narrow = plane.width <= 2;
    match (across, down) {
        (1, 2) => {
            let bias = if y.is_multiple_of(2) { 1 } else { 2 };
            let pairs = line(y / 2).iter().zip(line(far(y, plane.height)));
            for (into, (&near, &far)) in into.iter_mut().zip(pairs) {
                *into = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
            }
        }
        (2, 1) if !is_narrow => {
            sums.clear();
            sums.extend(line(y).iter().map(|&sample| u16::from(sample)));
            double(sums, [1, 2], 2, into);
        }
        (2, 2) if !is_narrow => {
            let pairs = line(y / 2).iter().zip(line(far(y, plane.height)));
            sums.clear();
            sums.extend(pairs.map(|(&near, &far)| 3 * u16::from(near) + u16::from(far)));
            double(sums, [8, 7], 4, into);
        }
        (1, _) => into[..plane.width].copy_from_slice(line(y / down)),
        _ => {
            for (into, sample) in into.chunks_mut(across).zip(line(y / down)) {
                into.fill(*sample);
            }
        }
    }
}

/// The second-nearest row of samples to row `y` of the picture: the one before or after the row
/// that contains it.
#[inline(always)]
fn far(y: usize, height: usize) -> usize {
    match y % 2 {
        0 => (y / 2).saturating_sub(1),
        _ => (y / 2 + 1).min(height - 1),
    }
}

/// Writes two pixels for each of at least two sums: three quarters of the sum and one quarter of
/// its neighbour on that side. The result is shifted down by `bits`.
#[inline(always)]
fn double(sums: &[u16], [left, right]: [u16; 2], bits: u32, into: &mut [u8]) {
    let last = sums.len() - 1;
    let one_side =
        |sum: u16, bias: u16| ((4 * sum + if bits == 4 { bias } else { 0 }) >> bits) as u8;
    let mixed = |near: u16, far: u16, bias: u16| ((3 * near + far + bias) >> bits) as u8;
    let (inner, _) = into[2..2 * last].as_chunks_mut::<2>();
    let neighbours = sums[..last - 1].iter().zip(&sums[1..last]).zip(&sums[2..]);
    for (((&before, &near), &after), into) in neighbours.zip(inner) {
        *into = [mixed(near, before, left), mixed(near, after, right)];
    }
    into[0] = one_side(sums[0], left);
    into[1] = mixed(sums[0], sums[1], right);
    into[2 * last] = mixed(sums[last], sums[last - 1], left);
    into[2 * last + 1] = one_side(sums[last], right);
}

/// Converts a row of samples.
#[inline(always)]
fn convert(colour: Colour, rows: &mut [Vec<u8>], into: &mut [u8]) {
    let (pixels, _) = into.as_chunks_mut::<3>();
    match (colour, rows) {
        (Colour::Grey, [grey]) => {
            for (pixel, &mut grey) in pixels.iter_mut().zip(grey) {
                *pixel = [grey; 3];
            }
        }
        (Colour::Rgb, [r, g, b]) => {
            for (((pixel, &r), &g), &b) in pixels.iter_mut().zip(&*r).zip(&*g).zip(&*b) {
                *pixel = [r, g, b];
            }
        }
        (Colour::YCbCr, [y, cb, cr]) => {
            // First in place, plane by plane, and interleaved only then: this vectorises well.
            for ((y, cb), cr) in y.iter_mut().zip(&mut *cb).zip(&mut *cr) {
                [*y, *cb, *cr] = rgb_of(*y, *cb, *cr);
            }
            for (((pixel, &r), &g), &b) in pixels.iter_mut().zip(&*y).zip(&*cb).zip(&*cr) {
                *pixel = [r, g, b];
            }
        }
        (Colour::Cmyk | Colour::Ycck, [a, b, c, black]) => {
            let inks = a.iter().zip(&*b).zip(&*c).zip(&*black);
            for (pixel, (((&a, &b), &c), &black)) in pixels.iter_mut().zip(inks) {
                // YCbCr encodes the inverse of what is stored, so it is inverted once more.
                let left = match colour {
                    Colour::Ycck => rgb_of(a, b, c).map(|ink| 255 - ink),
                    _ => [a, b, c],
                };
                *pixel = left.map(|left| {
                    let ink = u32::from(255 - left) * u32::from(black) + 128;
                    (i32::from(black) - ((ink + (ink >> 8)) >> 8) as i32).clamp(0, 255) as u8
                });
            }
        }
        _ => {}
    }
}

/// JFIF's conversion, with 16 fractional bits.
#[inline(always)]
fn rgb_of(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    [
        y + ((91_881 * cr + HALF) >> 16),
        y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16),
        y + ((116_130 * cb + HALF) >> 16),
    ]
    .map(|colour| colour.clamp(0, 255) as u8)
}
