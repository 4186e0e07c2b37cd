//! The backward pass through ReLU and the affine part of BN, for a tile of pixels.
//!
//! Each value takes 3 reads (the gradient after the ReLU, the value before BN, the gradient that is
//! added to), 1 or 2 writes and 7 operations. Channels are the outer loop, some vectors at a time,
//! so that the constants of a channel stay in registers through all pixels.

use super::bounds::span;
use super::normal::NormSlice;
use super::simd::{Kernel, Simd};

/// How many rows ahead values are prefetched.
const AHEAD: usize = 8;

/// Rows of a tile: row r starts at `r * stride`.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

/// Rows of a tile that is written.
pub struct TileMut<'a> {
    pub values: &'a mut [f32],
    pub stride: usize,
}

/// A tile of the backward pass.
pub struct PullBack<'a> {
    /// The number of pixels.
    pub rows: usize,
    /// BN of the tile's channels.
    pub norm: NormSlice<'a>,
    /// A factor for the masked gradient of each channel.
    pub factor: &'a [f32],
    /// The gradient after the ReLU.
    pub d: Tile<'a>,
    /// The values before BN.
    pub x: Tile<'a>,
    /// Where the masked gradient is written.
    pub into: TileMut<'a>,
    /// Whether it is added to the existing values.
    pub add: bool,
    /// Where BN and ReLU of the values are written, if they are needed.
    pub operand: Option<TileMut<'a>>,
    /// Sums of the masked gradient times the deviation from the mean. The tile's sums are added to
    /// them.
    pub sum_scale: &'a mut [f32],
    /// Sums of the masked gradient. The tile's sums are added to them.
    pub sum_bias: &'a mut [f32],
}

impl PullBack<'_> {
    /// Runs the tile, as a function of its own.
    ///
    /// # Panics
    /// If a slice is shorter than the rows and channels require.
    #[inline(always)]
    pub fn run<S: Simd>(mut self, simd: S) {
        let channels = self.factor.len();
        if self.rows == 0 || channels == 0 {
            return;
        }
        let rows_of = |stride| span(self.rows, stride, channels);
        let NormSlice {
            scale, shift, mean, ..
        } = self.norm;
        for values in [scale, shift, mean, self.sum_scale, self.sum_bias] {
            assert!(values.len() >= channels);
        }
        for tile in [self.d, self.x] {
            assert!(tile.values.len() >= rows_of(tile.stride));
        }
        assert!(self.into.values.len() >= rows_of(self.into.stride));
        let operand = match &mut self.operand {
            Some(tile) => {
                assert!(tile.values.len() >= rows_of(tile.stride));
                (tile.values.as_mut_ptr(), tile.stride)
            }
            None => (std::ptr::null_mut(), 0),
        };
        simd.outline(Checked {
            rows: self.rows,
            channels,
            norm: [
                scale.as_ptr(),
                shift.as_ptr(),
                mean.as_ptr(),
                self.factor.as_ptr(),
            ],
            d: (self.d.values.as_ptr(), self.d.stride),
            x: (self.x.values.as_ptr(), self.x.stride),
            into: (self.into.values.as_mut_ptr(), self.into.stride),
            add: self.add,
            operand,
            sums: [self.sum_scale.as_mut_ptr(), self.sum_bias.as_mut_ptr()],
        });
    }
}

/// A [`PullBack`] whose bounds were checked.
struct Checked {
    rows: usize,
    channels: usize,
    /// Scale, shift, mean, factor.
    norm: [*const f32; 4],
    d: (*const f32, usize),
    x: (*const f32, usize),
    into: (*mut f32, usize),
    add: bool,
    /// Null if not needed.
    operand: (*mut f32, usize),
    sums: [*mut f32; 2],
}

impl Kernel for Checked {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // SAFETY: only `PullBack::run` makes this, with pointers that are valid for all rows and
        // channels; `operand` is null or valid.
        unsafe {
            match (self.add, self.operand.0.is_null()) {
                (false, true) => self.body::<S, false, false>(simd),
                (false, false) => self.body::<S, false, true>(simd),
                (true, true) => self.body::<S, true, false>(simd),
                (true, false) => self.body::<S, true, true>(simd),
            }
        }
    }
}

impl Checked {
    /// # Safety
    /// The pointers are valid for all rows and channels.
    #[inline(always)]
    unsafe fn body<S: Simd, const ADD: bool, const OPERAND: bool>(&self, simd: S) {
        let lanes = S::LANES;
        let mut c = 0;
        // SAFETY: the channels of each call are below `self.channels`.
        unsafe {
            while S::WIDE && c + 4 * lanes <= self.channels {
                self.columns::<S, 4, ADD, OPERAND>(simd, c, lanes);
                c += 4 * lanes;
            }
            while c + 2 * lanes <= self.channels {
                self.columns::<S, 2, ADD, OPERAND>(simd, c, lanes);
                c += 2 * lanes;
            }
            while c < self.channels {
                let count = lanes.min(self.channels - c);
                self.columns::<S, 1, ADD, OPERAND>(simd, c, count);
                c += lanes;
            }
        }
    }

    /// The channels from `c` on: `W` whole vectors, or `count` lanes of one.
    ///
    /// # Safety
    /// As for [`Checked::body`]; the channels are below `self.channels`.
    #[inline(always)]
    unsafe fn columns<S: Simd, const W: usize, const ADD: bool, const OPERAND: bool>(
        &self,
        simd: S,
        c: usize,
        count: usize,
    ) {
        let at = |j: usize| c + j * S::LANES;
        // SAFETY: `count` lanes from `at(j)` on are channels, for which all pointers are valid
        // in every row.
        unsafe {
            let mut constants = [[simd.zero(); W]; 4];
            let mut sums = [[simd.zero(); W]; 2];
            for j in 0..W {
                for (constant, values) in constants.iter_mut().zip(self.norm) {
                    constant[j] = simd.load_part(values.add(at(j)), count);
                }
                for (sum, values) in sums.iter_mut().zip(self.sums) {
                    sum[j] = simd.load_part(values.add(at(j)), count);
                }
            }
            let [scale, shift, mean, factor] = constants;
            let [mut sum_scale, mut sum_bias] = sums;
            for row in 0..self.rows {
                // After the last row come the first ones of the next channels.
                let (next, over) = if row + AHEAD < self.rows {
                    (row + AHEAD, 0)
                } else {
                    (row + AHEAD - self.rows, W * S::LANES)
                };
                let next_at = |j: usize| at(j) + over;
                for j in 0..W {
                    // Rows are far apart, and the processor does not predict the next one.
                    simd.prefetch(self.x.0.wrapping_add(next * self.x.1 + next_at(j)));
                    simd.prefetch(self.into.0.wrapping_add(next * self.into.1 + next_at(j)));
                    let d = simd.load_part(self.d.0.add(row * self.d.1 + at(j)), count);
                    let x = simd.load_part(self.x.0.add(row * self.x.1 + at(j)), count);
                    let z = simd.fma(x, scale[j], shift[j]);
                    let masked = simd.where_positive(z, d);
                    sum_scale[j] = simd.fma(masked, simd.sub(x, mean[j]), sum_scale[j]);
                    sum_bias[j] = simd.add(sum_bias[j], masked);
                    let into = self.into.0.add(row * self.into.1 + at(j));
                    let before = if ADD {
                        simd.load_part(into, count)
                    } else {
                        simd.zero()
                    };
                    simd.store_part(into, simd.fma(factor[j], masked, before), count);
                    if OPERAND {
                        let operand = self.operand.0.add(row * self.operand.1 + at(j));
                        simd.store_part(operand, simd.relu(z), count);
                    }
                }
            }
            for j in 0..W {
                simd.store_part(self.sums[0].add(at(j)), sum_scale[j], count);
                simd.store_part(self.sums[1].add(at(j)), sum_bias[j], count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Level;
    use super::*;

    struct Case {
        rows: usize,
        channels: usize,
        add: bool,
        with_operand: bool,
    }

    impl Kernel for Case {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let Self {
                rows,
                channels,
                add,
                with_operand,
            } = self;
            let numbers = |len: usize, seed: usize| -> Vec<f32> {
                (0..len)
                    .map(|i| ((i * 37 + seed * 11) % 17) as f32 - 8.0)
                    .collect()
            };
            let (dstride, xstride, stride) = (channels + 1, channels + 2, channels + 3);
            let [d, x, before] = [dstride, xstride, stride].map(|s| numbers(rows * s, s));
            let [scale, shift, mean, factor] = [1, 2, 3, 4].map(|seed| numbers(channels, seed));
            let (mut into, mut operand) = (before.clone(), vec![-1.0; rows * stride]);
            let (mut sum_scale, mut sum_bias) = (vec![1.0; channels], vec![2.0; channels]);
            PullBack {
                rows,
                norm: NormSlice {
                    scale: &scale,
                    shift: &shift,
                    mean: &mean,
                    gamma: &factor,
                },
                factor: &factor,
                d: Tile {
                    values: &d,
                    stride: dstride,
                },
                x: Tile {
                    values: &x,
                    stride: xstride,
                },
                into: TileMut {
                    values: &mut into,
                    stride,
                },
                add,
                operand: with_operand.then_some(TileMut {
                    values: &mut operand,
                    stride,
                }),
                sum_scale: &mut sum_scale,
                sum_bias: &mut sum_bias,
            }
            .run(simd);
            for c in 0..channels {
                let (mut expected_scale, mut expected_bias) = (1.0, 2.0);
                for row in 0..rows {
                    let x = x[row * xstride + c];
                    let z = x * scale[c] + shift[c];
                    let masked = if z > 0.0 { d[row * dstride + c] } else { 0.0 };
                    expected_scale += masked * (x - mean[c]);
                    expected_bias += masked;
                    let at = row * stride + c;
                    let old = if add { before[at] } else { 0.0 };
                    assert_eq!(into[at], old + factor[c] * masked);
                    assert_eq!(operand[at], if with_operand { z.max(0.0) } else { -1.0 });
                }
                assert_eq!((sum_scale[c], sum_bias[c]), (expected_scale, expected_bias));
            }
            // Values after the channels do not change.
            for row in 0..rows {
                let rest = row * stride + channels..(row + 1) * stride;
                assert_eq!(into[rest.clone()], before[rest]);
            }
        }
    }

    #[test]
    fn a_tile_is_the_naive_loop_at_every_level() {
        for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
            for channels in [1, 5, 12, 16, 24, 33, 48] {
                for (add, with_operand) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    level.run(Case {
                        rows: 3,
                        channels,
                        add,
                        with_operand,
                    });
                }
            }
        }
    }

    /// Tiles whose shapes match their short slices only if the arithmetic wraps.
    struct Wrapping {
        rows: usize,
        strides: [usize; 3],
    }

    impl Kernel for Wrapping {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let (values, norm) = ([1.0; 64], [1.0; 1]);
            let [d, x, into] = self.strides;
            let tile = |stride| Tile {
                values: &values,
                stride,
            };
            PullBack {
                rows: self.rows,
                norm: NormSlice {
                    scale: &norm,
                    shift: &norm,
                    mean: &norm,
                    gamma: &norm,
                },
                factor: &norm,
                d: tile(d),
                x: tile(x),
                into: TileMut {
                    values: &mut [0.0; 64],
                    stride: into,
                },
                add: false,
                operand: None,
                sum_scale: &mut [0.0],
                sum_bias: &mut [0.0],
            }
            .run(simd);
        }
    }

    #[test]
    fn shapes_that_wrap_are_refused() {
        for (rows, strides) in [
            ((1 << 63) + 1, [2, 0, 0]),
            (3, [1, 1 << 63, 1]),
            (3, [1, 1, 1 << 63]),
        ] {
            let run = || Level::detect().run(Wrapping { rows, strides });
            assert!(std::panic::catch_unwind(run).is_err(), "{rows} {strides:?}");
        }
    }
}
