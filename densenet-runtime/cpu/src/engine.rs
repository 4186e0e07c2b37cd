//! The engine of the stages: threads, instructions, and scratch memory that is reused.

use std::ops::Range;

use arrayvec::ArrayVec;

use super::kernel::normal::{Moments, Sums};
use super::memory::Memory;
use super::team::Team;
use super::threads::THREADS;
use crate::kernel::matrix::{Matrix, Pack};
use crate::kernel::product::{Form, Panels};
use crate::kernel::simd::Level;
use densenet_plan::Precision;

/// A value for each thread, without an allocation.
pub type Parts<T> = ArrayVec<T, THREADS>;

/// Threads, instruction set and scratch. Scratch grows to the size that the largest stage needs,
/// and never shrinks.
pub struct Engine {
    pub team: Team,
    pub level: Level,
    /// The form of the operands in dense layers, which do nearly all of the work. Stem, transitions
    /// and classifier compute in f32.
    pub form: Form,
    /// Scratch memory, one for each thread.
    pub scratch: Vec<Scratch>,
    /// A weight, packed for the product at hand.
    pub packed: Memory<f32>,
}

/// One thread's memory.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A tile of the left operand.
    pub operand: Memory<f32>,
    /// A tile of another operand.
    pub other: Memory<f32>,
    /// A tile of an operand, as pairs.
    pub pairs: Memory<f32>,
    /// A tile of a gradient, in the two forms that two products need.
    pub gradient: Memory<f32>,
    /// A tile of a product.
    pub tile: Memory<f32>,
    /// A tile of products of transformed patches.
    pub places: Memory<f32>,
    /// This thread's share of a weight's gradient.
    pub weight: Memory<f32>,
    pub moments: Moments,
    pub sums: Sums,
}

/// One thread's share of a job over rows.
pub struct Share<'a> {
    /// The rows of the share.
    pub rows: Range<usize>,
    /// The values of these rows.
    pub values: &'a mut [f32],
    /// The right operand that the engine has packed.
    pub packed: &'a [f32],
    pub scratch: &'a mut Scratch,
}

impl Engine {
    pub fn new(threads: usize, level: Level, precision: Precision) -> Self {
        let team = Team::new(threads.min(THREADS));
        let scratch = (0..team.threads()).map(|_| Scratch::default()).collect();
        Self {
            team,
            level: level.at_most(),
            form: Form::of(precision, level),
            scratch,
            packed: Memory::default(),
        }
    }

    /// Divides `count` items among the threads, as evenly as possible.
    pub fn shares(&self, count: usize) -> Parts<Range<usize>> {
        shares(count, self.team.threads())
    }

    /// Divides the first `count` rows of `values`, each of `stride`, among the threads.
    pub fn over_rows(
        &mut self,
        values: &mut [f32],
        stride: usize,
        count: usize,
        job: impl Fn(Share<'_>) + Sync,
    ) {
        self.over(values, count, |row| row * stride, job);
    }

    /// Divides the first `count` rows of `values` among the threads; row r starts at `at(r)`.
    pub fn over(
        &mut self,
        values: &mut [f32],
        count: usize,
        at: impl Fn(usize) -> usize,
        job: impl Fn(Share<'_>) + Sync,
    ) {
        let shares = self.shares(count);
        let rows = split_at_rows(&mut values[..at(count)], &shares, at);
        let packed = &self.packed[..];
        let mut parts: Parts<_> = shares
            .into_iter()
            .zip(rows)
            .zip(&mut self.scratch)
            .collect();
        self.team.each(&mut parts, |_, ((rows, values), scratch)| {
            job(Share {
                rows: rows.clone(),
                values,
                packed,
                scratch,
            });
        });
    }

    /// What the engine's threads have measured.
    pub fn moments(&self) -> impl Iterator<Item = &Moments> + Clone {
        self.scratch.iter().map(|scratch| &scratch.moments)
    }

    /// The engine's threads' sums for gamma and beta.
    pub fn sums(&self) -> impl Iterator<Item = &Sums> + Clone {
        self.scratch.iter().map(|scratch| &scratch.sums)
    }

    /// Packs a right operand into [`Engine::packed`], divided among all threads. `at(row, column)`
    /// gives the values.
    pub fn pack(&mut self, panels: Panels, at: impl Fn(usize, usize) -> f32 + Sync) {
        let lanes = self.level.lanes();
        self.pack_lines(panels, |lines, own| panels.pack(lanes, lines, own, &at));
    }

    /// Packs a right operand, as [`Engine::pack`] does, from a matrix.
    pub fn pack_matrix(&mut self, panels: Panels, matrix: Matrix<'_>) {
        let level = self.level;
        self.pack_lines(panels, |lines, into| {
            level.run(Pack {
                panels,
                matrix,
                lines,
                into,
            });
        });
    }

    /// Divides the lines of panels among the threads.
    fn pack_lines(&mut self, panels: Panels, pack: impl Fn(Range<usize>, &mut [f32]) + Sync) {
        let lanes = self.level.lanes();
        let at = |line| panels.line(lanes, line);
        self.pack_rows(panels.lines(lanes), at, pack);
    }

    /// Packs `count` rows into [`Engine::packed`], divided among the threads; row r starts at
    /// `at(r)`.
    pub fn pack_rows(
        &mut self,
        count: usize,
        at: impl Fn(usize) -> usize,
        pack: impl Fn(Range<usize>, &mut [f32]) + Sync,
    ) {
        let shares = self.shares(count);
        let own = split_at_rows(need(&mut self.packed, at(count)), &shares, at);
        let mut parts: Parts<_> = shares.into_iter().zip(own).collect();
        self.team
            .each(&mut parts, |_, (rows, own)| pack(rows.clone(), own));
    }

    /// Adds the threads' shares of a weight's gradient to `gradient`. Its row r of `columns`
    /// elements starts at `r * stride` in each share.
    pub fn add_weight(&mut self, gradient: &mut [f32], columns: usize, stride: usize) {
        let rows = gradient.len() / columns;
        let shares = shares(rows, self.team.threads());
        let scratch = &self.scratch;
        let mut parts: Parts<_> = shares
            .iter()
            .cloned()
            .zip(split_rows(gradient, columns, &shares))
            .collect();
        self.team.each(&mut parts, |_, (rows, gradient)| {
            for (row, into) in rows.clone().zip(gradient.chunks_exact_mut(columns)) {
                for share in scratch {
                    let from = &share.weight[row * stride..][..columns];
                    into.iter_mut()
                        .zip(from)
                        .for_each(|(into, from)| *into += from);
                }
            }
        });
    }
}

/// Divides `count` items into `parts` ranges of nearly equal length.
pub fn shares(count: usize, parts: usize) -> Parts<Range<usize>> {
    (0..parts)
        .map(|t| t * count / parts..(t + 1) * count / parts)
        .collect()
}

/// Splits `values`, rows of `stride`, into the rows of each range. The ranges are contiguous and
/// start at 0.
pub fn split_rows<'a, T>(
    values: &'a mut [T],
    stride: usize,
    ranges: &[Range<usize>],
) -> Parts<&'a mut [T]> {
    split_at_rows(values, ranges, |row| row * stride)
}

/// Splits rows as [`split_rows`] does, if row r starts at `at(r)`.
fn split_at_rows<'a, T>(
    values: &'a mut [T],
    ranges: &[Range<usize>],
    at: impl Fn(usize) -> usize,
) -> Parts<&'a mut [T]> {
    let mut rest = values;
    ranges
        .iter()
        .map(|range| {
            let len = at(range.end) - at(range.start);
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            head
        })
        .collect()
}

/// The first `len` elements of a buffer, which grows if it is shorter.
pub fn need(buffer: &mut Memory<f32>, len: usize) -> &mut [f32] {
    buffer.need(len)
}

/// The first `len` elements of a buffer, set to zero. The buffer grows if it is shorter.
pub fn need_zeros(buffer: &mut Memory<f32>, len: usize) -> &mut [f32] {
    let values = buffer.need(len);
    values.fill(0.0);
    values
}

/// Rounds up to whole vectors of every level.
pub const fn padded(n: usize) -> usize {
    n.next_multiple_of(16)
}
