//! Transforms of an image's colours and geometry, as `torchvision.transforms.v2.functional`
//! computes them for tensors of bytes or floats.

use super::super::raster::Sample;

/// An image of height x width x channels.
#[derive(Clone, Debug)]
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    /// From 0 to `most`.
    pub values: Vec<f32>,
    /// White: 255 of bytes, 1 of floats.
    pub most: f32,
}

/// How an image is sampled between its pixels when it is rotated or translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampling {
    /// The nearest pixel.
    Nearest,
    /// Between four pixels.
    #[default]
    Bilinear,
}

/// An affine transform of an image. The default changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Degrees, clockwise.
    pub angle: f64,
    /// Pixels to the right and down.
    pub translation: [f64; 2],
    /// Above 1 the image grows.
    pub scale: f64,
    /// Degrees, along x and y.
    pub shear: [f64; 2],
}

impl Default for Affine {
    fn default() -> Self {
        Self {
            angle: 0.0,
            translation: [0.0; 2],
            scale: 1.0,
            shear: [0.0; 2],
        }
    }
}

impl Affine {
    /// The source of a point of the result, both measured from the image's centre. The image is
    /// rotated and sheared about `about`.
    fn inverse(self, about: [f64; 2]) -> [[f64; 3]; 2] {
        let rotation = self.angle.to_radians();
        let [shear_x, shear_y] = self.shear.map(f64::to_radians);
        let a = (rotation - shear_y).cos() / shear_y.cos();
        let b = -(a * shear_x.tan() + rotation.sin());
        let c = (rotation - shear_y).sin() / shear_y.cos();
        let d = rotation.cos() - c * shear_x.tan();
        let rows = [[d, -b], [-c, a]].map(|row| row.map(|value| value / self.scale));
        let moved = [
            about[0] + self.translation[0],
            about[1] + self.translation[1],
        ];
        let row = |at: usize| {
            let [x, y] = rows[at];
            [x, y, about[at] - x * moved[0] - y * moved[1]]
        };
        [row(0), row(1)]
    }
}

impl Canvas {
    pub fn of<T: Sample>([width, height, channels]: [usize; 3], samples: &[T]) -> Self {
        Self {
            width,
            height,
            channels,
            values: samples.iter().map(|sample| sample.value()).collect(),
            most: T::MOST,
        }
    }

    pub fn write<T: Sample>(&self, into: &mut [T]) {
        for (into, &value) in into.iter_mut().zip(&self.values) {
            *into = T::of(value);
        }
    }

    /// Bytes are whole.
    fn is_whole(&self) -> bool {
        self.most > 1.0
    }

    /// A value as it is stored: within the bounds, and truncated to a byte.
    fn kept(&self, value: f32) -> f32 {
        let value = value.clamp(0.0, self.most);
        if self.is_whole() {
            value.trunc()
        } else {
            value
        }
    }

    fn each(&mut self, change: impl Fn(f32) -> f32) {
        for at in 0..self.values.len() {
            self.values[at] = self.kept(change(self.values[at]));
        }
    }

    /// The grey of each pixel; whole if the image is of bytes.
    fn greys(&self) -> Vec<f32> {
        let grey = |pixel: &[f32]| match *pixel {
            [r, g, b] => {
                let grey = 0.2989 * r + 0.587 * g + 0.114 * b;
                if self.is_whole() { grey.floor() } else { grey }
            }
            _ => pixel.iter().sum(),
        };
        self.values.chunks_exact(self.channels).map(grey).collect()
    }

    pub fn brightness(&mut self, factor: f32) {
        self.each(|value| value * factor);
    }

    pub fn contrast(&mut self, factor: f32) {
        let greys = self.greys();
        let sum: f64 = greys.iter().map(|&grey| f64::from(grey)).sum();
        let mean = (sum / greys.len().max(1) as f64) as f32;
        self.each(|value| value * factor + mean * (1.0 - factor));
    }

    /// Grey images have none.
    pub fn saturation(&mut self, factor: f32) {
        if self.channels != 3 {
            return;
        }
        let greys = self.greys();
        for at in 0..self.values.len() {
            let value = self.values[at] * factor + greys[at / 3] * (1.0 - factor);
            self.values[at] = self.kept(value);
        }
    }

    /// Rotates the hue, by a share of the circle. Grey images have none.
    pub fn hue(&mut self, by: f32) {
        if self.channels != 3 {
            return;
        }
        let (most, is_whole) = (self.most, self.is_whole());
        let (pixels, _) = self.values.as_chunks_mut::<3>();
        for pixel in pixels {
            let [h, s, v] = hsv(pixel.map(|value| value / most));
            let turned = rgb([(h + by).rem_euclid(1.0), s, v]);
            *pixel = turned.map(|value| match is_whole {
                // As torchvision makes bytes of floats.
                true => (value * (256.0 - 1e-3)).trunc().clamp(0.0, 255.0),
                false => value,
            });
        }
    }

    /// Keeps the upper bits of each sample.
    pub fn posterize(&mut self, bits: u32) {
        let bits = bits.min(8);
        if self.is_whole() {
            let mask = ((1_u32 << bits) - 1) << (8 - bits);
            self.each(|value| (value as u32 & mask) as f32);
        } else {
            let levels = (1_u32 << bits) as f32;
            self.each(|value| (value * levels).floor().clamp(0.0, levels - 1.0) / levels);
        }
    }

    /// Inverts samples that are at least as bright as the threshold, a share of white.
    pub fn solarize(&mut self, threshold: f32) {
        let most = self.most;
        self.each(|value| match value >= threshold * most {
            true => most - value,
            false => value,
        });
    }

    /// Stretches each channel so that its darkest sample is black and its brightest white.
    pub fn autocontrast(&mut self) {
        for channel in 0..self.channels {
            let own = self.values[channel..].iter().step_by(self.channels);
            let ends = own.fold((f32::MAX, f32::MIN), |(least, most), &value| {
                (least.min(value), most.max(value))
            });
            let (least, scale) = match ends {
                (least, most) if least < most => (least, (most - least) / self.most),
                _ => (0.0, 1.0),
            };
            for at in (channel..self.values.len()).step_by(self.channels) {
                self.values[at] = self.kept((self.values[at] - least) / scale);
            }
        }
    }

    /// Equalises the histogram of each channel, in 256 steps.
    pub fn equalize(&mut self) {
        let byte = |value: f32, most: f32| match most > 1.0 {
            true => value as u8,
            false => (value * (256.0 - 1e-3)) as u8,
        };
        for channel in 0..self.channels {
            let mut counts = [0_u64; 256];
            for value in self.values[channel..].iter().step_by(self.channels) {
                counts[usize::from(byte(*value, self.most))] += 1;
            }
            let total: u64 = counts.iter().sum();
            let last = counts.iter().rfind(|&&count| count > 0);
            let step = (total - last.copied().unwrap_or(0)) / 255;
            // Floats become bytes even then, as in torchvision.
            let mut table: [u64; 256] = std::array::from_fn(|at| at as u64);
            if step > 0 {
                let mut sum = step / 2;
                for (entry, count) in table.iter_mut().zip(counts) {
                    *entry = (sum / step).min(255);
                    sum += count;
                }
            }
            for at in (channel..self.values.len()).step_by(self.channels) {
                let entry = table[usize::from(byte(self.values[at], self.most))];
                self.values[at] = entry as f32 / 255.0 * self.most;
            }
        }
    }

    /// Blends with a blurred image: 0 is blurred, 1 unchanged, 2 sharpened.
    pub fn sharpness(&mut self, factor: f32) {
        let (w, h, channels) = (self.width, self.height, self.channels);
        if w <= 2 || h <= 2 {
            return;
        }
        let old = self.values.clone();
        for y in 1..h - 1 {
            for x in 1..w - 1 {
                for channel in 0..channels {
                    let value = |y: usize, x: usize| old[(y * w + x) * channels + channel];
                    let rows =
                        (y - 1..=y + 1).map(|y| (x - 1..=x + 1).map(|x| value(y, x)).sum::<f32>());
                    let here = value(y, x);
                    let blurred = (rows.sum::<f32>() + 4.0 * here) / 13.0;
                    let blurred = match self.is_whole() {
                        true => blurred.round_ties_even(),
                        false => blurred,
                    };
                    let value = here + (blurred - here) * (1.0 - factor);
                    self.values[(y * w + x) * channels + channel] = self.kept(value);
                }
            }
        }
    }

    /// Transforms the image about its centre, or its upper left corner. Pixels from outside are `fill`.
    pub fn warp(&mut self, affine: Affine, about_corner: bool, how: Sampling, fill: &[f32]) {
        let (w, h, channels) = (self.width, self.height, self.channels);
        let half = [w as f64 / 2.0, h as f64 / 2.0];
        let about = if about_corner {
            half.map(|half| -half)
        } else {
            [0.0; 2]
        };
        let [across, down] = affine.inverse(about);
        let old = self.values.clone();
        let fill = |channel: usize| fill.get(channel).copied().unwrap_or(0.0);
        let pixel = |x: f64, y: f64| -> Option<usize> {
            let is_inside = (0.0..w as f64).contains(&x) && (0.0..h as f64).contains(&y);
            is_inside.then_some((y as usize * w + x as usize) * channels)
        };
        for row in 0..h {
            for column in 0..w {
                let x = column as f64 - half[0] + 0.5;
                let y = row as f64 - half[1] + 0.5;
                let from = |[to_x, to_y, plus]: [f64; 3], half: f64| {
                    to_x * x + to_y * y + plus + half - 0.5
                };
                let (x, y) = (from(across, half[0]), from(down, half[1]));
                let into = &mut self.values[(row * w + column) * channels..][..channels];
                match how {
                    Sampling::Nearest => {
                        let at = pixel(x.round_ties_even(), y.round_ties_even());
                        for (channel, into) in into.iter_mut().enumerate() {
                            *into = at.map_or_else(|| fill(channel), |at| old[at + channel]);
                        }
                    }
                    Sampling::Bilinear => {
                        let (left, top) = (x.floor(), y.floor());
                        let (right, below) = ((x - left) as f32, (y - top) as f32);
                        let corners = [
                            (pixel(left, top), (1.0 - right) * (1.0 - below)),
                            (pixel(left + 1.0, top), right * (1.0 - below)),
                            (pixel(left, top + 1.0), (1.0 - right) * below),
                            (pixel(left + 1.0, top + 1.0), right * below),
                        ];
                        // The share that is inside counts twice, as in torchvision.
                        let inside = corners.iter().filter(|(at, _)| at.is_some());
                        let inside: f32 = inside.map(|(_, weight)| weight).sum();
                        for (channel, into) in into.iter_mut().enumerate() {
                            let value = |at: Option<usize>| at.map_or(0.0, |at| old[at + channel]);
                            let sum: f32 =
                                corners.iter().map(|&(at, weight)| weight * value(at)).sum();
                            let fill = fill(channel);
                            let sum = (sum - fill) * inside + fill;
                            *into = match self.most > 1.0 {
                                true => sum.round_ties_even().clamp(0.0, self.most),
                                false => sum.clamp(0.0, self.most),
                            };
                        }
                    }
                }
            }
        }
    }

    /// Fills a rectangle.
    pub fn erase(&mut self, [left, top]: [usize; 2], [width, height]: [usize; 2], fill: &[f32]) {
        let row = self.width * self.channels;
        for line in self.values.chunks_exact_mut(row).skip(top).take(height) {
            let part = &mut line[left * self.channels..][..width * self.channels];
            for pixel in part.chunks_exact_mut(self.channels) {
                for (into, &value) in pixel.iter_mut().zip(fill) {
                    *into = value;
                }
            }
        }
    }
}

/// Hue, saturation and value of a colour, all in [0, 1].
fn hsv([r, g, b]: [f32; 3]) -> [f32; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let range = most - least;
    if range == 0.0 {
        return [0.0, 0.0, most];
    }
    let [red, green, blue] = [r, g, b].map(|value| (most - value) / range);
    let h = if most == r {
        blue - green
    } else if most == g {
        2.0 + red - blue
    } else {
        4.0 + green - red
    };
    [(h / 6.0).rem_euclid(1.0), range / most, most]
}

fn rgb([h, s, v]: [f32; 3]) -> [f32; 3] {
    let sixth = (h * 6.0).floor();
    let part = h * 6.0 - sixth;
    let p = (v * (1.0 - s)).clamp(0.0, 1.0);
    let q = (v * (1.0 - s * part)).clamp(0.0, 1.0);
    let t = (v * (1.0 - s * (1.0 - part))).clamp(0.0, 1.0);
    match sixth as u32 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}
