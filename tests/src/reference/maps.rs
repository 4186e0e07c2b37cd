//! Feature maps as matrices, and the neighbourhoods of their pixels.

use dfdx::prelude::*;

/// A matrix of f64.
pub type Matrix<T = NoneTape> = Tensor<(usize, usize), f64, Cpu, T>;
/// A vector of f64.
pub type Vector = Tensor<(usize,), f64, Cpu>;

/// A matrix of this shape with the vector in each row.
pub fn each_row<T: Tape<f64, Cpu>>(
    vector: Tensor<(usize,), f64, Cpu, T>,
    shape: (usize, usize),
) -> Matrix<T> {
    vector.broadcast_like::<_, Axis<0>>(&shape)
}

/// The feature maps of a batch: one row for each pixel of each image, one column for each
/// channel.
pub struct Maps<T: Tape<f64, Cpu>> {
    /// Images.
    pub batch: usize,
    /// Height of a map.
    pub height: usize,
    /// Width of a map.
    pub width: usize,
    /// Pixels x channels.
    pub values: Matrix<T>,
}

impl<T: Tape<f64, Cpu>> Maps<T> {
    /// Feature maps from NCHW numbers.
    pub fn from_nchw(values: &[f32], [channels, height, width]: [usize; 3]) -> Self {
        let pixels = height * width;
        let batch = values.len() / (channels * pixels);
        let mut rows = vec![0.0; values.len()];
        for (index, &value) in values.iter().enumerate() {
            let (image, rest) = (index / (channels * pixels), index % (channels * pixels));
            let (channel, pixel) = (rest / pixels, rest % pixels);
            rows[(image * pixels + pixel) * channels + channel] = f64::from(value);
        }
        let values = Cpu::default().tensor_from_vec(rows, (batch * pixels, channels));
        Self {
            batch,
            height,
            width,
            values: values.retaped(),
        }
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.values.shape().1
    }

    /// The same values, with a tape of their own.
    pub fn fork(&self) -> Self {
        Self {
            values: self.values.retaped(),
            ..*self
        }
    }

    /// The same pixels with other channels.
    pub fn map(self, change: impl FnOnce(Matrix<T>) -> Matrix<T>) -> Self {
        Self {
            values: change(self.values),
            ..self
        }
    }

    /// These maps with others after them.
    pub fn concat(self, other: Self) -> Self {
        self.map(|values| (values, other.values).concat_along(Axis::<1>))
    }
}

/// A square window that moves over feature maps.
#[derive(Clone, Copy)]
pub struct Window {
    /// Its side.
    pub side: usize,
    /// Pixels from one position to the next.
    pub stride: usize,
    /// Zeros around the maps.
    pub padding: usize,
}

impl Window {
    /// Positions along a side of this length.
    fn positions(self, length: usize) -> usize {
        (length + 2 * self.padding - self.side) / self.stride + 1
    }

    /// The contents of the window at each of its positions: positions x its pixels x channels.
    /// Pixels outside the maps are 0. Also returns the numbers of positions down and across.
    #[allow(clippy::type_complexity)]
    pub fn patches<T: Tape<f64, Cpu>>(
        self,
        maps: Maps<T>,
    ) -> (Tensor<(usize, usize, usize), f64, Cpu, T>, usize, usize) {
        let (down, across) = (self.positions(maps.height), self.positions(maps.width));
        // The row after the last pixel stands for all pixels outside.
        let outside = maps.batch * maps.height * maps.width;
        let mut rows = Vec::new();
        for image in 0..maps.batch {
            for y in 0..down {
                for x in 0..across {
                    for dy in 0..self.side {
                        for dx in 0..self.side {
                            let row = (y * self.stride + dy).checked_sub(self.padding);
                            let column = (x * self.stride + dx).checked_sub(self.padding);
                            rows.push(match (row, column) {
                                (Some(row), Some(column))
                                    if row < maps.height && column < maps.width =>
                                {
                                    (image * maps.height + row) * maps.width + column
                                }
                                _ => outside,
                            });
                        }
                    }
                }
            }
        }
        let device = Cpu::default();
        let positions = maps.batch * down * across;
        let rows = device.tensor_from_vec(rows, (positions, self.side * self.side));
        let zeros: Matrix = device.zeros_like(&(1, maps.channels()));
        let padded = (maps.values, zeros).concat_along(Axis::<0>);
        (padded.gather(rows), down, across)
    }
}
