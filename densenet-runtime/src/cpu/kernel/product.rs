//! Matrix products on register tiles.
//!
//! Two products are all that a DenseNet needs:
//!
//! - [`multiply`]: `out[r] = sum over k of a[r][k] * b[k]`: a 1x1 convolution over pixels, or a
//!   place of transformed patches;
//! - [`accumulate`]: `out[i] += sum over r of d[r][i] * a[r]`, the gradient of a weight.
//!
//! `b` comes in panels of one or two vectors ([`Panels`]), so that the inner loop streams it.
//! A register tile is up to `Simd::ROWS` rows by two vectors: with AVX-512 28 of 32 registers
//! accumulate, and each broadcast feeds two multiply-adds.

use std::ops::Range;

use super::pairs;
use super::simd::{Kernel, Level, Simd};
use crate::cpu::precision::Precision;

/// Splits `n` into as few blocks of at most `most` as possible, of nearly equal size; yields
/// start and length.
pub(crate) fn blocks(n: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = n.div_ceil(most);
    (0..count).map(move |index| {
        let start = index * n / count;
        (start, (index + 1) * n / count - start)
    })
}

/// What the operands of a product are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Values.
    Plain,
    /// Values rounded to bfloat16, where the processor has no products of bfloat16.
    Rounded,
    /// Pairs of bfloat16 (see [`super::pairs`]): two neighbours in the direction that is summed
    /// over are one element.
    Pairs,
}

impl Form {
    /// The form for a precision at a level.
    pub fn of(precision: Precision, level: Level) -> Self {
        match precision {
            Precision::F32 => Self::Plain,
            Precision::Bf16 if level.at_most() == Level::Avx512Bf16 => Self::Pairs,
            Precision::Bf16 => Self::Rounded,
        }
    }

    /// Pairs, if elements are pairs.
    pub fn pairs<T>(self, of: T) -> Option<T> {
        (self == Self::Pairs).then_some(of)
    }

    /// Values in an element.
    pub const fn unit(self) -> usize {
        match self {
            Self::Plain | Self::Rounded => 1,
            Self::Pairs => 2,
        }
    }

    /// Rounds up to whole elements.
    pub const fn whole(self, values: usize) -> usize {
        values.next_multiple_of(self.unit())
    }
}

/// How the right operand of [`multiply`] lies in memory: `depth` rows of `columns` columns, cut
/// into panels of two vectors (the last one maybe one vector) that lie one behind the other, row
/// by row, padded with zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels {
    /// Rows: channels; even for pairs.
    pub depth: usize,
    /// Columns, without padding.
    pub columns: usize,
    /// What the elements are.
    pub form: Form,
}

impl Panels {
    /// Vectors in a row.
    pub fn vectors(self, lanes: usize) -> usize {
        self.columns.div_ceil(lanes)
    }

    /// Elements of all panels.
    pub fn len(self, lanes: usize) -> usize {
        self.rows() * self.vectors(lanes) * lanes
    }

    /// Rows in memory.
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

    /// Lines of all panels.
    pub fn lines(self, lanes: usize) -> usize {
        self.vectors(lanes).div_ceil(2) * self.rows()
    }

    /// What line `line` of all panels is.
    pub fn place(self, lanes: usize, line: usize) -> Place {
        let (panel, row) = (line / self.rows(), line % self.rows());
        Place {
            row,
            rows_left: self.rows() - row,
            column: 2 * panel * lanes,
            width: (self.vectors(lanes) - 2 * panel).min(2) * lanes,
        }
    }

    /// Where line `line` of all panels starts, or where the last one ends.
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

    /// Fills some lines; `into` starts at the first of them, `at(row, column)` gives the values.
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
                    Form::Pairs => {
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
pub(crate) struct Place {
    /// Row in memory.
    pub row: usize,
    /// Rows of the panel from this one on.
    pub rows_left: usize,
    /// First column.
    pub column: usize,
    /// Elements, with padding.
    pub width: usize,
}

/// The left operand of [`multiply`], and both of [`accumulate`].
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Values; row r starts at `r * stride`.
    pub values: &'a [f32],
    /// Elements from one row to the next.
    pub stride: usize,
    /// Number of rows.
    pub count: usize,
}

/// The part of the depth that a call of [`multiply`] sums over.
#[derive(Clone, Copy)]
pub(crate) struct Depth {
    /// Channels of the left operand.
    pub channels: usize,
    /// The row of the right operand that the first channel meets.
    pub first: usize,
}

/// `out[r][..columns] = (add ? out : 0) + sum over the depth`.
///
/// Strides and channels count values, two to an element where `panels` has pairs. `out`
/// has rows of `out_stride`, at least the vectors of `panels`; padding columns come out
/// as zeros.
///
/// # Panics
/// If a slice is shorter than the shapes ask for.
#[inline(always)]
pub(crate) fn multiply<S: Simd>(
    simd: S,
    a: Rows<'_>,
    depth: Depth,
    panels: Panels,
    b: &[f32],
    out: &mut [f32],
    out_stride: usize,
    add: bool,
) {
    multiply_while(simd, a, depth, panels, b, out, out_stride, add, |_, _| {});
}

/// As [`multiply`]; before each register tile, `meanwhile` gets its rows and its columns (in
/// whole vectors), and can ask for memory that will be needed soon.
#[inline(always)]
pub(crate) fn multiply_while<S: Simd>(
    simd: S,
    a: Rows<'_>,
    depth: Depth,
    panels: Panels,
    b: &[f32],
    out: &mut [f32],
    out_stride: usize,
    add: bool,
    mut meanwhile: impl FnMut(Range<usize>, Range<usize>),
) {
    if a.count == 0 || panels.columns == 0 {
        return;
    }
    let lanes = S::LANES;
    let unit = panels.form.unit();
    let values = a.stride | depth.channels | depth.first | panels.depth;
    assert!(values.is_multiple_of(unit));
    assert!((a.count - 1) * a.stride + depth.channels <= a.values.len() * unit);
    assert!(depth.first + depth.channels <= panels.depth);
    assert!(b.len() >= panels.len(lanes));
    assert!((a.count - 1) * out_stride + panels.vectors(lanes) * lanes <= out.len());
    for (start, column, width) in panels.iter(lanes) {
        for (row, rows) in blocks(a.count, S::ROWS) {
            meanwhile(row..row + rows, column..column + width * lanes);
            let tile = Tile {
                a: a.values[row * a.stride / unit..].as_ptr(),
                a_stride: a.stride / unit,
                unit,
                channels: depth.channels / unit,
                b: b[start + depth.first / unit * width * lanes..].as_ptr(),
                out: out[row * out_stride + column..].as_mut_ptr(),
                out_stride,
                add,
                rows,
                width,
            };
            // The assertions above bound every row and channel of `a`, every row of the
            // panel in `b`, and every row and vector of `out`; `rows` is at most `S::ROWS`.
            tile.start(simd);
        }
    }
}

/// A register tile whose operands are pairs.
struct OfPairs<T>(T);

/// One register tile of [`multiply`].
struct Tile {
    a: *const f32,
    a_stride: usize,
    /// Values in an element.
    unit: usize,
    channels: usize,
    b: *const f32,
    out: *mut f32,
    out_stride: usize,
    add: bool,
    rows: usize,
    width: usize,
}

/// Calls `$body::<S, rows, width>` with the run-time `rows` (1 to 14) and `width` (1 or 2) as
/// constants.
macro_rules! for_tile {
    ($self:expr, $simd:ident, $pairs:literal, [$($n:literal)*]) => {
        match ($self.rows, $self.width) {
            $(
                // SAFETY: only `multiply` and `accumulate` make tiles, within checked bounds.
                ($n, 1) => unsafe { $self.body::<S, $n, 1, $pairs>($simd) },
                // SAFETY: as above.
                ($n, 2) => unsafe { $self.body::<S, $n, 2, $pairs>($simd) },
            )*
            (rows, width) => unreachable!("a register tile of {rows} x {width} vectors"),
        }
    };
}

impl Kernel for Tile {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for_tile!(self, simd, false, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
    }
}

impl Kernel for OfPairs<Tile> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for_tile!(self.0, simd, true, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
    }
}

impl Tile {
    #[inline(always)]
    fn start<S: Simd>(self, simd: S) {
        if self.unit == 1 {
            simd.outline(self);
        } else {
            // SAFETY: `Form::of` makes pairs only at the level that has products of them.
            unsafe { simd.outline_pairs(OfPairs(self)) };
        }
    }

    /// # Safety
    /// All pointers are valid for `R` rows, `W` vectors, and the depth given.
    #[inline(always)]
    unsafe fn body<S: Simd, const R: usize, const W: usize, const PAIRS: bool>(&self, simd: S) {
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
                        *sum = if PAIRS {
                            // The level has it: see `start`.
                            simd.dot(left, right, *sum)
                        } else {
                            simd.fma(left, right, *sum)
                        };
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

/// `out[i][j] = (add ? out : 0) + sum over r of d[r][i] * a[r][j]` for `columns` values of `i`
/// and whole vectors of `j` up to `width`. Without rows, nothing happens.
///
/// With pairs, a row of `d` and `a` is the pair of two pixels' rows, and `count` counts pairs.
/// `a`'s rows and `out`'s rows hold `width` rounded up to vectors.
///
/// # Panics
/// If a slice is shorter than the shapes ask for.
#[inline(always)]
pub(crate) fn accumulate<S: Simd>(
    simd: S,
    form: Form,
    d: Rows<'_>,
    columns: usize,
    a: Rows<'_>,
    width: usize,
    out: &mut [f32],
    out_stride: usize,
    add: bool,
) {
    let rows = d.count;
    if rows == 0 || columns == 0 || width == 0 {
        return;
    }
    let lanes = S::LANES;
    let vectors = width.div_ceil(lanes);
    assert!(rows == a.count);
    assert!((rows - 1) * d.stride + columns <= d.values.len());
    assert!((rows - 1) * a.stride + vectors * lanes <= a.values.len());
    assert!((columns - 1) * out_stride + vectors * lanes <= out.len());
    for first in (0..vectors).step_by(2) {
        let width = (vectors - first).min(2);
        for (column, count) in blocks(columns, S::ROWS) {
            let tile = Outer {
                d: d.values[column..].as_ptr(),
                d_stride: d.stride,
                a: a.values[first * lanes..].as_ptr(),
                a_stride: a.stride,
                depth: rows,
                unit: form.unit(),
                add,
                out: out[column * out_stride + first * lanes..].as_mut_ptr(),
                out_stride,
                rows: count,
                width,
            };
            // The assertions above bound every row and column of `d`, every row and vector of
            // `a`, and every row and vector of `out`.
            tile.start(simd);
        }
    }
}

/// One register tile of [`accumulate`].
struct Outer {
    d: *const f32,
    d_stride: usize,
    a: *const f32,
    a_stride: usize,
    depth: usize,
    /// Values in an element.
    unit: usize,
    add: bool,
    out: *mut f32,
    out_stride: usize,
    rows: usize,
    width: usize,
}

impl Kernel for Outer {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for_tile!(self, simd, false, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
    }
}

impl Kernel for OfPairs<Outer> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for_tile!(self.0, simd, true, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
    }
}

impl Outer {
    #[inline(always)]
    fn start<S: Simd>(self, simd: S) {
        if self.unit == 1 {
            simd.outline(self);
        } else {
            // SAFETY: `Form::of` makes pairs only at the level that has products of them.
            unsafe { simd.outline_pairs(OfPairs(self)) };
        }
    }

    /// # Safety
    /// All pointers are valid for `self.depth` rows, `R` columns of `d` and `W` vectors.
    #[inline(always)]
    unsafe fn body<S: Simd, const R: usize, const W: usize, const PAIRS: bool>(&self, simd: S) {
        if R > S::ROWS {
            return;
        }
        let lanes = S::LANES;
        let mut sums = [[simd.zero(); W]; R];
        let (mut d, mut a) = (self.d, self.a);
        for _ in 0..self.depth {
            // SAFETY: the caller's promise covers every row; the pointers are advanced with
            // `wrapping_add`, so that they may point behind the last row without being read.
            unsafe {
                let right: [S::Vector; W] = std::array::from_fn(|j| simd.load(a.add(j * lanes)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let left = simd.splat(d.add(i));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = if PAIRS {
                            // The level has it: see `start`.
                            simd.dot(left, right, *sum)
                        } else {
                            simd.fma(left, right, *sum)
                        };
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
