//! A matrix product on register tiles, which adds a bias before the sum and may apply a ReLU after
//! it.
//!
//! It is like `kernel::product`, but writes straight into memory that threads share. The bias and
//! the ReLU need no pass of their own.

use std::ops::Range;

use super::memory::Shared;
use crate::engine::padded;
use crate::kernel::bounds::span;
use crate::kernel::element::Element;
use crate::kernel::product::{Of, Panels, Rows, blocks, run_tile, tile_kernel};
use crate::kernel::simd::{Kernel, Simd};

/// A right operand: a packed weight.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub panels: Panels,
    pub values: &'a [f32],
}

/// The part of the depth that a product sums over. With one tap at 0, the product is a matrix
/// product; with a tap for each row of a kernel, it is a convolution over a padded image.
#[derive(Clone, Copy)]
pub(super) struct Contraction<'a> {
    /// The offset of each tap in the left operand. Tap t is multiplied with the rows of the right
    /// operand from `t * channels` on.
    pub taps: &'a [usize],
    /// Channels of a tap.
    pub channels: usize,
    /// The row of the right operand that the first channel of the first tap is multiplied with.
    pub first: usize,
}

/// Where a product is written: the first column of row r at `at + r * stride`. Whole vectors are
/// written.
#[derive(Clone, Copy)]
pub(super) struct Out<'a> {
    pub values: Shared<'a>,
    pub at: usize,
    pub stride: usize,
    /// Whether a ReLU follows the sum.
    pub relu: bool,
}

/// What the sum is added to.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    Zero,
    /// A number for each column, padded to whole vectors.
    Bias(&'a [f32]),
    /// The values that the output already has.
    There,
}

/// Cuts channels into chunks of at most `most`, in whole vectors of every level.
pub(super) fn chunks(channels: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = padded(channels.div_ceil(channels.div_ceil(most).max(1)));
    (0..channels)
        .step_by(size.max(1))
        .map(move |from| (from, size.min(channels - from)))
}

/// Number of panels of a packed weight.
pub(super) fn count(panels: Panels, lanes: usize) -> usize {
    panels.vectors(lanes).div_ceil(2)
}

/// `out[r] = start + sum over the depth of a[r] * b`, for the columns of some panels, followed by a
/// ReLU if `out` asks for it.
///
/// # Panics
/// If a slice is shorter than the shapes require.
///
/// # Safety
/// No other thread reads or writes the rows and columns of `out` in this phase.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd>(
    simd: S,
    a: Rows<'_>,
    depth: Contraction<'_>,
    b: Right<'_>,
    panels: Range<usize>,
    out: Out<'_>,
    start: Start<'_>,
) {
    if a.count == 0 {
        return;
    }
    let lanes = S::LANES;
    let unit = b.panels.form.unit();
    let vectors = b.panels.vectors(lanes);
    let last_tap = depth.taps.iter().copied().max().unwrap_or(0);
    let values = depth.taps.iter().copied();
    let values = values.chain([a.stride, depth.channels, depth.first]);
    assert!(unit == 1 || values.fold(b.panels.depth, |all, value| all | value) % unit == 0);
    let reach = last_tap.saturating_add(depth.channels);
    let rows_of_b = depth.taps.len().saturating_mul(depth.channels);
    assert!(span(a.count, a.stride, reach) <= a.values.len() * unit);
    assert!(depth.first.saturating_add(rows_of_b) <= b.panels.depth);
    assert!(b.values.len() >= b.panels.len(lanes) && panels.end <= vectors.div_ceil(2));
    let width = vectors.saturating_mul(lanes);
    if let Start::Bias(bias) = start {
        assert!(bias.len() >= width);
    }
    let target = out.values.pointer(out.at, span(a.count, out.stride, width));
    for panel in panels {
        let column = 2 * panel * lanes;
        let width = (vectors - 2 * panel).min(2);
        let start_of_panel = column * b.panels.depth + depth.first * width * lanes;
        let values = &b.values[start_of_panel / unit..];
        for (row, rows) in blocks(a.count, S::ROWS) {
            // The assertions above bound every row, tap and channel of `a`, every row of the
            // panel in `b`, the bias, and every row and vector of `out`.
            let tile = Tile {
                a: a.values[row * a.stride / unit..].as_ptr(),
                a_stride: a.stride / unit,
                taps: depth.taps,
                channels: depth.channels / unit,
                b: values.as_ptr(),
                out: target.wrapping_add(row * out.stride + column),
                out_stride: out.stride,
                start: match start {
                    Start::Bias(bias) => Start::Bias(&bias[column..]),
                    other => other,
                },
                relu: out.relu,
                rows,
                width,
            };
            run_tile(simd, b.panels.form, tile);
        }
    }
}

/// One register tile. It is separate from the tile of `kernel::product`, because taps, bias and
/// ReLU would cost registers there.
struct Tile<'a> {
    a: *const f32,
    a_stride: usize,
    /// Counted in values.
    taps: &'a [usize],
    channels: usize,
    b: *const f32,
    out: *mut f32,
    out_stride: usize,
    start: Start<'a>,
    relu: bool,
    rows: usize,
    width: usize,
}

tile_kernel!(Tile<'_>);

impl Tile<'_> {
    /// # Safety
    /// All pointers are valid for `R` rows, `W` vectors, and the depth given.
    #[inline(always)]
    unsafe fn body<S: Simd, E: Element, const R: usize, const W: usize>(
        &self,
        simd: S,
        element: E,
    ) {
        if R > S::ROWS {
            return;
        }
        let lanes = S::LANES;
        let mut sums = [[simd.zero(); W]; R];
        // Short loops, each of one kind, keep the sums in registers.
        match self.start {
            Start::Zero => {}
            Start::Bias(bias) => {
                for sums in &mut sums {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: the caller's promise covers every vector of `bias`.
                        *sum = unsafe { simd.load(bias.as_ptr().add(j * lanes)) };
                    }
                }
            }
            Start::There => {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: the caller's promise covers every row and vector of `out`.
                        *sum = unsafe { simd.load(self.out.add(r * self.out_stride + j * lanes)) };
                    }
                }
            }
        }
        let mut b = self.b;
        for &tap in self.taps {
            // SAFETY: the caller's promise covers every tap, channel and row.
            unsafe {
                let a = self.a.add(tap / E::VALUES);
                for k in 0..self.channels {
                    let right: [S::Vector; W] =
                        std::array::from_fn(|j| simd.load(b.add(j * lanes)));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let left = simd.splat(a.add(r * self.a_stride + k));
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = element.multiply_add(simd, left, right, *sum);
                        }
                    }
                    b = b.add(W * lanes);
                }
            }
        }
        if self.relu {
            for sums in &mut sums {
                for sum in sums {
                    *sum = simd.relu(*sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                // SAFETY: the caller's promise covers every row and vector of `out`.
                unsafe { simd.store(self.out.add(r * self.out_stride + j * lanes), sum) };
            }
        }
    }
}
