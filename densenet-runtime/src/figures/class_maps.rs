//! Where a network saw its classes: class maps drawn over their picture.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::colors::colormaps::ViridisRGB;

use super::DrawError;
use super::style::{Area, Drawn, FONT, TEXT, register, write_png};

/// The smallest long side of a picture in a figure.
const SIDE: usize = 256;
/// Panels in a row.
const COLUMNS: usize = 4;
const MARGIN: u32 = 16;
/// The height of a panel's caption, and of the lines above and below all panels.
const LINE: u32 = 34;
/// The width of the strip on the right that holds the colour bar and its numbers.
const BAR: u32 = 120;
/// The opacity of a map's colour over the picture's grey.
const COVER: f32 = 0.6;

/// A picture with class maps of it.
///
/// A map's values are the contributions of each position to the logit of a class: their mean plus
/// the class's bias is the logit ([`Inference::class_maps`](crate::Inference)).
#[derive(Clone, Debug)]
pub struct ClassMaps<'a> {
    /// The picture as the network sees it: height x width x (red, green, blue).
    pub picture: &'a [u8],
    /// Its height and width.
    pub size: [usize; 2],
    /// Height and width of the maps.
    pub map_size: [usize; 2],
    /// The maps, each with the words over it.
    pub maps: Vec<(String, &'a [f32])>,
}

impl ClassMaps<'_> {
    /// The lowest and the highest value of all maps; `None` if no value is finite.
    pub fn range(&self) -> Option<[f32; 2]> {
        let values = self.maps.iter().flat_map(|(_, map)| map.iter().copied());
        let mut finite = values.filter(|value| value.is_finite());
        let first = finite.next()?;
        Some(finite.fold([first; 2], |[low, high], value| {
            [low.min(value), high.max(value)]
        }))
    }

    /// A map over the picture's grey: height x width x (red, green, blue). The colours are
    /// viridis's, from the lower to the higher end of `range`; the map is interpolated linearly, its
    /// values being those of the centres of its cells. `None` if there is no such map, or lengths do
    /// not fit.
    pub fn over(&self, map: usize, range: [f32; 2]) -> Option<Vec<u8>> {
        let (_, map) = self.maps.get(map)?;
        let fits = self.picture.len() == self.size[0].checked_mul(self.size[1])?.checked_mul(3)?
            && map.len() == self.map_size[0].checked_mul(self.map_size[1])?
            && !map.is_empty();
        fits.then(|| over(self.picture, self.size, map, self.map_size, range))
    }

    /// Draws the picture and, beside it, each map over it, with a scale that all maps share, as a
    /// PNG. Small pictures are enlarged.
    ///
    /// # Errors
    /// If lengths do not fit, no value of the maps is finite, or the file cannot be written.
    pub fn draw(&self, path: impl AsRef<Path>, title: &str) -> Result<(), DrawError> {
        let path = path.as_ref();
        let failed = |reason: String| DrawError {
            path: path.to_owned(),
            reason,
        };
        let range = self.range();
        let range = range.ok_or_else(|| failed("no value of its class maps is finite".into()))?;
        let panels = self.panels(range);
        let panels = panels.ok_or_else(|| {
            let [[height, width], [rows, columns]] = [self.size, self.map_size];
            failed(format!(
                "the data has the wrong length for a picture of {height}x{width} in RGB and maps \
                    of {rows}x{columns}"
            ))
        })?;
        let times = SIDE.div_ceil(self.size[0].max(self.size[1])).max(1);
        let [height, width] = self.size.map(|side| (side * times) as u32);
        let columns = panels.len().min(COLUMNS) as u32;
        let rows = panels.len().div_ceil(COLUMNS) as u32;
        let size = (
            MARGIN + columns * (width + MARGIN) + BAR,
            MARGIN + LINE + rows * (LINE + height + MARGIN) + LINE,
        );
        let mut pixels = vec![255; (size.0 * size.1 * 3) as usize];
        let layout = Layout {
            times,
            height,
            width,
            size,
        };
        layout
            .picture(title, &panels, range, &mut pixels)
            .map_err(|error| failed(error.to_string()))?;
        write_png(path, &pixels, size).map_err(|error| failed(error.to_string()))
    }

    /// The picture, and each map over it, with their words.
    fn panels(&self, range: [f32; 2]) -> Option<Vec<(&str, Vec<u8>)>> {
        let maps = self.maps.iter().enumerate();
        let maps = maps.map(|(index, (words, _))| Some((words.as_str(), self.over(index, range)?)));
        let picture = Some(("picture", self.picture.to_vec()));
        std::iter::once(picture).chain(maps).collect()
    }
}

/// A map over a picture's grey. The lengths fit.
fn over(
    picture: &[u8],
    [height, width]: [usize; 2],
    map: &[f32],
    [rows, columns]: [usize; 2],
    [low, high]: [f32; 2],
) -> Vec<u8> {
    let spread = if high > low { high - low } else { 1.0 };
    let mut all = Vec::with_capacity(picture.len());
    for (index, pixel) in picture.as_chunks::<3>().0.iter().enumerate() {
        let (y, x) = (index / width, index % width);
        let value = {
            let (down, across) = (
                Between::new(y, height, rows),
                Between::new(x, width, columns),
            );
            let at = |row: usize, column: usize| map[row * columns + column];
            let line = |row| mix(at(row, across.first), at(row, across.second), across.share);
            mix(line(down.first), line(down.second), down.share)
        };
        let [red, green, blue] = pixel.map(f32::from);
        // Rec. 601.
        let grey = 0.299 * red + 0.587 * green + 0.114 * blue;
        let share = (value - low) / spread;
        // What is not a number has no colour.
        let colour = match share.is_nan() {
            true => [grey; 3],
            false => {
                let colour = ViridisRGB.get_color(share.clamp(0.0, 1.0));
                [colour.0, colour.1, colour.2].map(f32::from)
            }
        };
        all.extend(colour.map(|part| mix(grey, part, COVER).round() as u8));
    }
    all
}

/// Linear interpolation along one side: the two cells between whose centres the centre of a pixel
/// lies, and how far it is from the first to the second.
struct Between {
    first: usize,
    second: usize,
    share: f32,
}

impl Between {
    fn new(pixel: usize, pixels: usize, cells: usize) -> Self {
        let at = (pixel as f32 + 0.5) * cells as f32 / pixels as f32 - 0.5;
        let at = at.max(0.0);
        let first = (at as usize).min(cells - 1);
        Self {
            first,
            second: (first + 1).min(cells - 1),
            share: at - first as f32,
        }
    }
}

fn mix(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

/// Where things are in a figure.
struct Layout {
    /// How often each pixel of the picture is repeated.
    times: usize,
    /// Height and width of a panel.
    height: u32,
    width: u32,
    size: (u32, u32),
}

impl Layout {
    fn picture(
        &self,
        title: &str,
        panels: &[(&str, Vec<u8>)],
        range: [f32; 2],
        pixels: &mut [u8],
    ) -> Drawn {
        let mut corners = Vec::new();
        for (index, (_, rgb)) in panels.iter().enumerate() {
            let (row, column) = ((index / COLUMNS) as u32, (index % COLUMNS) as u32);
            let corner = (
                MARGIN + column * (self.width + MARGIN),
                MARGIN + LINE + row * (LINE + self.height + MARGIN) + LINE,
            );
            self.paint(rgb, corner, pixels);
            corners.push(corner);
        }
        register()?;
        let root = BitMapBackend::with_buffer(pixels, self.size).into_drawing_area();
        let right = (self.size.0 - BAR) as i32;
        let width = self.size.0 - 2 * MARGIN;
        text(&root, title, 22, width, (MARGIN as i32, MARGIN as i32))?;
        for ((words, _), (x, y)) in panels.iter().zip(&corners) {
            let at = (*x as i32, (*y - LINE) as i32 + 10);
            text(&root, words, 18, self.width, at)?;
        }
        let words = "colour: what a position adds to the logit (mean + bias = logit)";
        let at = (MARGIN as i32, (self.size.1 - LINE) as i32 + 4);
        text(&root, words, 15, width, at)?;
        let top = (MARGIN + 2 * LINE) as i32;
        scale(&root, range, (right, top), self.height as i32)?;
        root.present()?;
        Ok(())
    }

    /// Copies an enlarged picture into the figure.
    fn paint(&self, rgb: &[u8], (left, top): (u32, u32), pixels: &mut [u8]) {
        let own = self.width as usize / self.times * 3;
        for y in 0..self.height as usize {
            let row = &rgb[y / self.times * own..][..own];
            let start = ((top as usize + y) * self.size.0 as usize + left as usize) * 3;
            let line = &mut pixels[start..start + self.width as usize * 3];
            let repeated = line.chunks_exact_mut(3 * self.times);
            for (pixel, into) in row.as_chunks::<3>().0.iter().zip(repeated) {
                into.as_chunks_mut::<3>().0.fill(*pixel);
            }
        }
    }
}

/// Writes words on one line, truncated if they are too wide.
fn text(area: &Area<'_>, words: &str, size: u32, width: u32, at: (i32, i32)) -> Drawn {
    let style = (FONT, size).into_font().color(&TEXT);
    let mut shown = words.to_string();
    let mut left = words.chars().count();
    while left > 0 && area.estimate_text_size(&shown, &style)?.0 > width {
        left -= 1;
        shown = words.chars().take(left).chain(['\u{2026}']).collect();
    }
    area.draw_text(&shown, &style, at)?;
    Ok(())
}

/// The colour bar, with a number at each quarter.
fn scale(area: &Area<'_>, [low, high]: [f32; 2], (left, top): (i32, i32), height: i32) -> Drawn {
    for line in 0..height {
        let colour = ViridisRGB.get_color(1.0 - line as f32 / (height - 1).max(1) as f32);
        let corners = [(left, top + line), (left + 20, top + line + 1)];
        area.draw(&Rectangle::new(corners, colour.filled()))?;
    }
    let style = (FONT, 16).into_font().color(&TEXT);
    let digits = match high - low {
        spread if spread >= 4.0 => 1,
        spread if spread >= 0.4 => 2,
        _ => 4,
    };
    for quarter in 0..=4 {
        let value = high - (high - low) * quarter as f32 / 4.0;
        let at = (left + 28, top + quarter * (height - 1) / 4 - 8);
        area.draw_text(&format!("{value:+.digits$}"), &style, at)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
