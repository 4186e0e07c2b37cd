//! Positions in an arena, and memory that the threads of a phase share.

use std::marker::PhantomData;
use std::ops::Range;

/// f32 in a cache line.
const LINE: usize = 16;

/// Gives out positions in an arena. Each is the start of a cache line.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// How many numbers have been given out.
    pub len: usize,
}

impl Places {
    /// The start of the next `len` numbers. If the total cannot be counted, `len` is `usize::MAX`,
    /// and allocating it fails.
    pub fn place(&mut self, len: usize) -> usize {
        let at = self.len;
        let whole = len.div_ceil(LINE).saturating_mul(LINE);
        self.len = at.saturating_add(whole);
        at
    }
}

/// Numbers that the threads of a phase write. Each thread writes its own.
///
/// A caller that follows the pointers or takes the slices promises that no thread writes what
/// another thread reads or writes in the same phase.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    values: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer is followed only in unsafe code, which promises not to race.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub fn new(values: &'a mut [f32]) -> Self {
        Self {
            start: values.as_mut_ptr(),
            len: values.len(),
            values: PhantomData,
        }
    }

    /// A part of these numbers.
    ///
    /// # Panics
    /// If the range is out of bounds.
    pub fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len);
        Self {
            // SAFETY: the range is in bounds, as asserted.
            start: unsafe { self.start.add(range.start) },
            len: range.len(),
            values: PhantomData,
        }
    }

    /// A pointer that is valid for `len` numbers from `at` on.
    ///
    /// # Panics
    /// If they are out of bounds.
    #[inline(always)]
    pub fn pointer(self, at: usize, len: usize) -> *mut f32 {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: the position is in bounds, as asserted.
        unsafe { self.start.add(at) }
    }

    /// All the numbers, to read.
    ///
    /// # Safety
    /// Nothing writes to them while the slice lives.
    pub unsafe fn read(self) -> &'a [f32] {
        // SAFETY: the slice that these numbers come from is borrowed for 'a; the rest is the
        // caller's promise.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// All the numbers, to write.
    ///
    /// # Safety
    /// No other thread reads or writes them while the slice lives, and the same thread does not
    /// through another slice.
    pub unsafe fn write(&self) -> &'a mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}
