//! Matrix products on register tiles.
//!
//! A DenseNet needs only two products:
//!
//! - [`multiply`]: `out[r] = sum over k of a[r][k] * b[k]`: a 1x1 convolution over pixels, or a
//!   place of transformed patches;
//! - [`accumulate`]: `out[i] += sum over r of d[r][i] * a[r]`, the gradient of a weight.
//!
//! `b` is stored in panels of one or two vectors ([`Panels`]), so that the inner loop reads it in
//! order.
//! A register tile is up to `Simd::ROWS` rows by two vectors: with AVX-512 28 of 32 registers
//! accumulate, and each broadcast feeds two multiply-adds.

pub mod pairs;

use std::ops::Range;

use super::bounds::span;
use super::element::{Element, Single};
use super::simd::{Bf16, Kernel, Level, Simd};
use densenet_plan::Precision;

/// Splits `n` into the fewest blocks of at most `most`, of nearly equal size. Yields the start and
/// the length of each.
///
/// # Panics
/// If `n` does not fit 32 bits, since the arithmetic below could wrap.
pub fn blocks(n: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    assert!(n <= u32::MAX as usize);
    let count = n.div_ceil(most);
    (0..count).map(move |index| {
        let start = index * n / count;
        (start, (index + 1) * n / count - start)
    })
}

/// The form of a product's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Values.
    Plain,
    /// Values rounded to bfloat16, for processors without products of bfloat16.
    Rounded,
    /// Pairs of bfloat16 (see [`super::pairs`]): two neighbours in the direction of the sum are one
    /// element. The processor can multiply them.
    Pairs(Bf16),
}

impl Form {
    /// The form for a precision at a level.
    pub fn of(precision: Precision, level: Level) -> Self {
        match (precision, Bf16::detect()) {
            (Precision::F32, _) => Self::Plain,
            (Precision::Bf16, Some(proof)) if level == Level::Avx512Bf16 => Self::Pairs(proof),
            (Precision::Bf16, _) => Self::Rounded,
        }
    }

    /// `pairs` of the proof that the processor can multiply pairs, if elements are pairs.
    pub fn pairs<T>(self, of: impl FnOnce(Bf16) -> T) -> Option<T> {
        match self {
            Self::Pairs(proof) => Some(of(proof)),
            Self::Plain | Self::Rounded => None,
        }
    }

    /// How many values an element holds.
    pub const fn unit(self) -> usize {
        match self {
            Self::Plain | Self::Rounded => 1,
            Self::Pairs(_) => 2,
        }
    }

    /// Rounds up to whole elements.
    pub const fn whole(self, values: usize) -> usize {
        values.next_multiple_of(self.unit())
    }
}

/// The memory layout of the right operand of [`multiply`]: `depth` rows of `columns` columns, cut
/// into panels of two vectors (the last panel may have one). The panels are stored one after
/// another, row by row, padded with zeros.
#[derive(Clone, Copy, Debug)]
pub struct Panels {
    /// Rows: channels; even for pairs.
    pub depth: usize,
    /// The number of columns, without padding.
    pub columns: usize,
    /// The form of the elements.
    pub form: Form,
}

impl Panels {
    /// The number of vectors in a row.
    pub fn vectors(self, lanes: usize) -> usize {
        self.columns.div_ceil(lanes)
    }

    /// The number of elements of all panels; `usize::MAX` if they cannot be counted.
    pub fn len(self, lanes: usize) -> usize {
        let row = self.vectors(lanes).saturating_mul(lanes);
        self.rows().saturating_mul(row)
    }

    /// The number of rows in memory.
    fn rows(self) -> usize {
        self.depth / self.form.unit()
    }

    /// Start of each panel, its first column, and its vectors.
    fn iter(self, lanes: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let vectors = self.vectors(lanes);
        (0..vectors.div_ceil(2)).map(move |panel| {
            let first = 2 * panel;
            let width = (vectors - first).min(2);
            (first * lanes * self.rows(), first * lanes, width)
        })
    }

    /// The number of lines of all panels.
    pub fn lines(self, lanes: usize) -> usize {
        self.vectors(lanes).div_ceil(2) * self.rows()
    }

    /// The line with number `line`, counted over all panels.
    pub fn place(self, lanes: usize, line: usize) -> Place {
        let (panel, row) = (line / self.rows(), line % self.rows());
        Place {
            row,
            rows_left: self.rows() - row,
            column: 2 * panel * lanes,
            width: (self.vectors(lanes) - 2 * panel).min(2) * lanes,
        }
    }

    /// Where line `line` of all panels starts. After the last line, this is where it ends.
    pub fn line(self, lanes: usize, line: usize) -> usize {
        if line == self.lines(lanes) {
            return self.len(lanes);
        }
        let place = self.place(lanes, line);
        place.column * self.rows() + place.row * place.width
    }

    /// Where a vector of a row starts.
    pub fn at(self, lanes: usize, row: usize, vector: usize) -> usize {
        let panel = vector / 2;
        let width = (self.vectors(lanes) - 2 * panel).min(2);
        (2 * panel * self.rows() + row * width + vector % 2) * lanes
    }

    /// Fills some lines. `into` starts at the first of them; `at(row, column)` gives the values.
    pub fn pack(
        self,
        lanes: usize,
        lines: Range<usize>,
        mut into: &mut [f32],
        at: impl Fn(usize, usize) -> f32,
    ) {
        for line in lines {
            let Place {
                row, column, width, ..
            } = self.place(lanes, line);
            let filled = (self.columns - column).min(width);
            let (values, rest) = std::mem::take(&mut into).split_at_mut(width);
            into = rest;
            for (j, value) in values[..filled].iter_mut().enumerate() {
                *value = match self.form {
                    Form::Plain => at(row, column + j),
                    Form::Rounded => pairs::rounded(at(row, column + j)),
                    Form::Pairs(_) => {
                        pairs::pair(at(2 * row, column + j), at(2 * row + 1, column + j))
                    }
                };
            }
            values[filled..].fill(0.0);
        }
    }
}

/// A line of panels: a row of one of them.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The row in memory.
    pub row: usize,
    /// How many rows the panel has from this one on.
    pub rows_left: usize,
    /// First column.
    pub column: usize,
    /// Elements, with padding.
    pub width: usize,
}

/// The left operand of [`multiply`], and both of [`accumulate`].
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Values; row r starts at `r * stride`.
    pub values: &'a [f32],
    /// Elements from one row to the next.
    pub stride: usize,
    /// Number of rows.
    pub count: usize,
}

/// The part of the depth that a call of [`multiply`] sums over.
#[derive(Clone, Copy)]
pub struct Contraction {
    /// Channels of the left operand.
    pub channels: usize,
    /// The row of the right operand that the first channel is multiplied with.
    pub first: usize,
}

/// Where [`multiply`] and [`accumulate`] write their sums.
pub struct Out<'a> {
    /// Row r starts at `r * stride`, and has whole vectors.
    pub values: &'a mut [f32],
    pub stride: usize,
    /// Whether the sums are added to the existing values.
    pub add: bool,
}

/// `out[r][..columns] = (add ? out : 0) + sum over the depth`.
///
/// Strides and channels count values: two in each element, if `panels` has pairs. The rows of `out`
/// have at least as many vectors as `panels`; padding columns become zeros.
///
/// # Panics
/// If a slice is shorter than the shapes require.
#[inline(always)]
pub fn multiply<S: Simd>(
    simd: S,
    a: Rows<'_>,
    depth: Contraction,
    panels: Panels,
    b: &[f32],
    out: Out<'_>,
) {
    multiply_while(simd, a, depth, panels, b, out, |_, _| {});
}

/// Multiplies as [`multiply`] does. Before each register tile, `meanwhile` is called with the
/// tile's rows and columns (in whole vectors), so that it can prefetch.
#[inline(always)]
pub fn multiply_while<S: Simd>(
    simd: S,
    a: Rows<'_>,
    depth: Contraction,
    panels: Panels,
    b: &[f32],
    out: Out<'_>,
    mut meanwhile: impl FnMut(Range<usize>, Range<usize>),
) {
    let Out {
        values: out,
        stride: out_stride,
        add,
    } = out;
    if a.count == 0 || panels.columns == 0 {
        return;
    }
    let lanes = S::LANES;
    let unit = panels.form.unit();
    let values = a.stride | depth.channels | depth.first | panels.depth;
    assert!(values.is_multiple_of(unit));
    let width = panels.vectors(lanes).saturating_mul(lanes);
    assert!(span(a.count, a.stride, depth.channels) <= a.values.len() * unit);
    assert!(depth.first.saturating_add(depth.channels) <= panels.depth);
    assert!(b.len() >= panels.len(lanes));
    assert!(span(a.count, out_stride, width) <= out.len());
    for (start, column, width) in panels.iter(lanes) {
        for (row, rows) in blocks(a.count, S::ROWS) {
            meanwhile(row..row + rows, column..column + width * lanes);
            let tile = Tile {
                a: a.values[row * a.stride / unit..].as_ptr(),
                a_stride: a.stride / unit,
                channels: depth.channels / unit,
                b: b[start + depth.first / unit * width * lanes..].as_ptr(),
                out: out[row * out_stride + column..].as_mut_ptr(),
                out_stride,
                add,
                rows,
                width,
            };
            // The assertions above bound every row and channel of `a`, every row of the panel in
            // `b`, and every row and vector of `out`; `rows` is at most `S::ROWS`.
            run_tile(simd, panels.form, tile);
        }
    }
}

/// A register tile with elements of one kind.
pub struct Of<E, T>(pub E, pub T);

/// Runs a register tile with the elements of a form.
#[inline(always)]
pub fn run_tile<S: Simd, T>(simd: S, form: Form, tile: T)
where
    Of<Single, T>: Kernel,
    Of<Bf16, T>: Kernel,
{
    match form {
        Form::Plain | Form::Rounded => simd.outline(Of(Single, tile)),
        Form::Pairs(proof) => simd.outline_pairs(proof, Of(proof, tile)),
    }
}

/// One register tile of [`multiply`].
struct Tile {
    a: *const f32,
    a_stride: usize,
    channels: usize,
    b: *const f32,
    out: *mut f32,
    out_stride: usize,
    add: bool,
    rows: usize,
    width: usize,
}

/// Makes a register tile a kernel: its `body` with the run-time `rows` (1 to 14) and `width` (1 or
/// 2) as constants. The code that makes a tile has checked its bounds.
macro_rules! tile_kernel {
    ($tile:ty) => {
        tile_kernel!($tile, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
    };
    ($tile:ty, [$($n:literal)*]) => {
        impl<E: Element> Kernel for Of<E, $tile> {
            #[inline(always)]
            fn run<S: Simd>(self, simd: S) {
                match (self.1.rows, self.1.width) {
                    $(
                        // SAFETY: tiles are made only within checked bounds.
                        ($n, 1) => unsafe { self.1.body::<S, E, $n, 1>(simd, self.0) },
                        // SAFETY: as above.
                        ($n, 2) => unsafe { self.1.body::<S, E, $n, 2>(simd, self.0) },
                    )*
                    (rows, width) => unreachable!("a register tile of {rows} x {width} vectors"),
                }
            }
        }
    };
}
pub(crate) use tile_kernel;

tile_kernel!(Tile);

impl Tile {
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
        let mut b = self.b;
        for k in 0..self.channels {
            // SAFETY: the caller's promise covers every channel and row.
            unsafe {
                let right: [S::Vector; W] = std::array::from_fn(|j| simd.load(b.add(j * lanes)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = simd.splat(self.a.add(r * self.a_stride + k));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = element.multiply_add(simd, left, right, *sum);
                    }
                }
                b = b.add(W * lanes);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                // SAFETY: the caller's promise covers every row and vector of `out`.
                unsafe {
                    let at = self.out.add(r * self.out_stride + j * lanes);
                    let sum = if self.add {
                        simd.add(simd.load(at), sum)
                    } else {
                        sum
                    };
                    simd.store(at, sum);
                }
            }
        }
    }
}

/// `out[i][j] = (add ? out : 0) + sum over r of d[r][i] * a[r][j]` for `columns` values of `i` and
/// whole vectors of `j` up to `width`. If there are no rows, nothing happens.
///
/// With pairs, a row of `d` and `a` holds the pairs of two pixels' rows, and `count` counts pairs.
/// The rows of `a` and `out` hold `width` rounded up to whole vectors.
///
/// # Panics
/// If a slice is shorter than the shapes require.
#[inline(always)]
pub fn accumulate<S: Simd>(
    simd: S,
    form: Form,
    d: Rows<'_>,
    columns: usize,
    a: Rows<'_>,
    width: usize,
    out: Out<'_>,
) {
    let Out {
        values: out,
        stride: out_stride,
        add,
    } = out;
    let rows = d.count;
    if rows == 0 || columns == 0 || width == 0 {
        return;
    }
    let lanes = S::LANES;
    let vectors = width.div_ceil(lanes);
    let whole = vectors.saturating_mul(lanes);
    assert!(rows == a.count);
    assert!(span(rows, d.stride, columns) <= d.values.len());
    assert!(span(rows, a.stride, whole) <= a.values.len());
    assert!(span(columns, out_stride, whole) <= out.len());
    for first in (0..vectors).step_by(2) {
        let width = (vectors - first).min(2);
        for (column, count) in blocks(columns, S::ROWS) {
            let tile = Outer {
                d: d.values[column..].as_ptr(),
                d_stride: d.stride,
                a: a.values[first * lanes..].as_ptr(),
                a_stride: a.stride,
                depth: rows,
                add,
                out: out[column * out_stride + first * lanes..].as_mut_ptr(),
                out_stride,
                rows: count,
                width,
            };
            // The assertions above bound every row and column of `d`, every row and vector of
            // `a`, and every row and vector of `out`.
            run_tile(simd, form, tile);
        }
    }
}

/// One register tile of [`accumulate`]. Its loop is that of [`Tile`] with the strides swapped; they
/// are constants in the inner loops of both.
struct Outer {
    d: *const f32,
    d_stride: usize,
    a: *const f32,
    a_stride: usize,
    depth: usize,
    add: bool,
    out: *mut f32,
    out_stride: usize,
    rows: usize,
    width: usize,
}

tile_kernel!(Outer);

impl Outer {
    /// # Safety
    /// All pointers are valid for `self.depth` rows, `R` columns of `d` and `W` vectors.
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
        let (mut d, mut a) = (self.d, self.a);
        for _ in 0..self.depth {
            // SAFETY: the caller's promise covers every row; the pointers are advanced with
            // `wrapping_add`, so that they may point beyond the last row without being read.
            unsafe {
                let right: [S::Vector; W] = std::array::from_fn(|j| simd.load(a.add(j * lanes)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let left = simd.splat(d.add(i));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = element.multiply_add(simd, left, right, *sum);
                    }
                }
            }
            d = d.wrapping_add(self.d_stride);
            a = a.wrapping_add(self.a_stride);
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                // SAFETY: the caller's promise covers every row and vector of `out`.
                unsafe {
                    let at = self.out.add(i * self.out_stride + j * lanes);
                    let sum = if self.add {
                        simd.add(simd.load(at), sum)
                    } else {
                        sum
                    };
                    simd.store(at, sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
