//! Maps, pixels x channels, and products over them.

use super::norm::Norm;

/// Maps of some images: pixels, counted over all images, x channels.
#[derive(Clone, Debug, Default)]
pub struct Maps {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub values: Vec<f32>,
}

impl Maps {
    pub fn zeros([batch, height, width]: [usize; 3], channels: usize) -> Self {
        Self {
            batch,
            height,
            width,
            channels,
            values: vec![0.0; batch * height * width * channels],
        }
    }

    pub fn size(&self) -> [usize; 3] {
        [self.batch, self.height, self.width]
    }

    pub fn pixels(&self) -> usize {
        self.batch * self.height * self.width
    }

    pub fn rounded(mut self, round: fn(f32) -> f32) -> Self {
        self.values
            .iter_mut()
            .for_each(|value| *value = round(*value));
        self
    }

    /// Some channels alone.
    pub fn columns(&self, first: usize, count: usize) -> Self {
        let rows = self.values.chunks_exact(self.channels);
        Self {
            channels: count,
            values: rows
                .flat_map(|row| &row[first..first + count])
                .copied()
                .collect(),
            ..*self
        }
    }

    /// Puts channels in.
    pub fn set(&mut self, first: usize, maps: &Self) {
        let rows = self.values.chunks_exact_mut(self.channels);
        for (row, maps) in rows.zip(maps.values.chunks_exact(maps.channels)) {
            row[first..first + maps.len()].copy_from_slice(maps);
        }
    }

    /// What BN and ReLU return.
    pub fn normalised(&self, norm: &Norm) -> Self {
        let value = |(i, &x): (usize, &f32)| norm.before(i % self.channels, x).max(0.0);
        Self {
            values: self.values.iter().enumerate().map(value).collect(),
            ..*self
        }
    }

    /// The same of the averages of four pixels: the transition's operand.
    pub fn pooled(&self, norm: &Norm) -> Self {
        let after = self.normalised(norm);
        let mut pooled = Self::zeros([self.batch, self.height / 2, self.width / 2], self.channels);
        for q in 0..pooled.pixels() {
            for c in 0..self.channels {
                let [a, b, d, e] = pooled
                    .under(q, self)
                    .map(|p| after.values[p * self.channels + c]);
                pooled.values[q * self.channels + c] = 0.25 * ((a + b) + (d + e));
            }
        }
        pooled
    }

    /// The pixels of `full` under a pooled one.
    fn under(&self, q: usize, full: &Self) -> [usize; 4] {
        let (image, y, x) = (
            q / (self.height * self.width),
            q / self.width % self.height,
            q % self.width,
        );
        [(0, 0), (0, 1), (1, 0), (1, 1)]
            .map(|(dy, dx)| (image * full.height + 2 * y + dy) * full.width + 2 * x + dx)
    }

    /// The gradient of `pooled`, back to the pixels.
    pub fn spread(&self, pooled: &Self) -> Vec<f32> {
        let mut d = vec![0.0; self.values.len()];
        for q in 0..pooled.pixels() {
            for p in pooled.under(q, self) {
                for c in 0..self.channels {
                    d[p * self.channels + c] = 0.25 * pooled.values[q * self.channels + c];
                }
            }
        }
        d
    }

    /// Averages over each image of the output of BN and ReLU.
    pub fn averaged(&self, norm: &Norm) -> Vec<f32> {
        let area = self.height * self.width;
        let after = self.normalised(norm);
        let mut sums = vec![0.0f64; self.batch * self.channels];
        for (i, &value) in after.values.iter().enumerate() {
            sums[i / self.channels / area * self.channels + i % self.channels] += f64::from(value);
        }
        sums.iter().map(|sum| (sum / area as f64) as f32).collect()
    }
}

/// A convolution with zeros around.
#[derive(Clone, Copy)]
pub struct Product {
    pub kernel: usize,
    pub stride: usize,
    pub maps: usize,
}

impl Product {
    pub fn pointwise(maps: usize) -> Self {
        Self {
            kernel: 1,
            stride: 1,
            maps,
        }
    }

    pub fn spatial(maps: usize) -> Self {
        Self {
            kernel: 3,
            ..Self::pointwise(maps)
        }
    }

    fn taps(self) -> usize {
        self.kernel * self.kernel
    }

    /// For each output pixel and tap the input's pixel, unless it is in the padding.
    fn each(self, x: &Maps, mut visit: impl FnMut(usize, usize, usize)) {
        let (tall, wide) = (
            x.height.div_ceil(self.stride),
            x.width.div_ceil(self.stride),
        );
        for p in 0..x.batch * tall * wide {
            let (image, row, column) = (p / (tall * wide), p / wide % tall, p % wide);
            for tap in 0..self.taps() {
                let at = |middle: usize, by: usize, side: usize| {
                    (middle * self.stride + by)
                        .checked_sub(self.kernel / 2)
                        .filter(|&at| at < side)
                };
                let place = (
                    at(row, tap / self.kernel, x.height),
                    at(column, tap % self.kernel, x.width),
                );
                if let (Some(y), Some(column)) = place {
                    visit(p, tap, (image * x.height + y) * x.width + column);
                }
            }
        }
    }

    fn output(self, x: &Maps) -> Maps {
        let size = [
            x.batch,
            x.height.div_ceil(self.stride),
            x.width.div_ceil(self.stride),
        ];
        Maps::zeros(size, self.maps)
    }

    /// The weight is maps x channels x taps.
    pub fn forward(self, x: &Maps, weight: &[f32]) -> Maps {
        let mut out = self.output(x);
        let mut sums = vec![0.0f64; out.values.len()];
        self.each(x, |p, tap, under| {
            let row = &x.values[under * x.channels..][..x.channels];
            for (n, sum) in sums[p * self.maps..][..self.maps].iter_mut().enumerate() {
                for (c, &value) in row.iter().enumerate() {
                    *sum += f64::from(value)
                        * f64::from(weight[(n * x.channels + c) * self.taps() + tap]);
                }
            }
        });
        out.values = sums.iter().map(|&sum| sum as f32).collect();
        out
    }

    /// The gradient of the input, which `x` has the shape of.
    pub fn backward(self, dout: &Maps, weight: &[f32], x: &Maps) -> Maps {
        let mut sums = vec![0.0f64; x.values.len()];
        self.each(x, |p, tap, under| {
            let row = &mut sums[under * x.channels..][..x.channels];
            for (n, &d) in dout.values[p * self.maps..][..self.maps].iter().enumerate() {
                for (c, sum) in row.iter_mut().enumerate() {
                    *sum +=
                        f64::from(d) * f64::from(weight[(n * x.channels + c) * self.taps() + tap]);
                }
            }
        });
        Maps {
            values: sums.iter().map(|&sum| sum as f32).collect(),
            ..*x
        }
    }

    /// Adds the gradient of the weight.
    pub fn add_weight(self, dout: &Maps, x: &Maps, gradient: &mut [f32]) {
        let mut sums = vec![0.0f64; gradient.len()];
        self.each(x, |p, tap, under| {
            let row = &x.values[under * x.channels..][..x.channels];
            for (n, &d) in dout.values[p * self.maps..][..self.maps].iter().enumerate() {
                for (c, &value) in row.iter().enumerate() {
                    sums[(n * x.channels + c) * self.taps() + tap] +=
                        f64::from(d) * f64::from(value);
                }
            }
        });
        for (gradient, sum) in gradient.iter_mut().zip(sums) {
            *gradient += sum as f32;
        }
    }
}
