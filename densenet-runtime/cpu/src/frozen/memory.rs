//! Places in memory, and memory that the threads of a phase share.

use std::marker::PhantomData;
use std::ops::Range;

/// f32 in a cache line.
const LINE: usize = 16;

/// Gives out places in memory, each from the start of a cache line on.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// What has been given out.
    pub len: usize,
}

impl Places {
    /// The start of the next `len` numbers. What is given out is `usize::MAX` if it cannot be
    /// counted, and then there is no memory for it.
    pub fn place(&mut self, len: usize) -> usize {
        let at = self.len;
        let whole = len.div_ceil(LINE).saturating_mul(LINE);
        self.len = at.saturating_add(whole);
        at
    }
}

/// Numbers that the threads of a phase write, each its own.
///
/// Whoever follows its pointers or takes its slices promises that in one phase no thread writes
/// what another reads or writes.
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

    /// A part of it.
    ///
    /// # Panics
    /// If the part is not inside.
    pub fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len);
        Self {
            // SAFETY: inside, as asserted.
            start: unsafe { self.start.add(range.start) },
            len: range.len(),
            values: PhantomData,
        }
    }

    /// A pointer that is good for `len` numbers from `at` on.
    ///
    /// # Panics
    /// If they are not inside.
    #[inline(always)]
    pub fn pointer(self, at: usize, len: usize) -> *mut f32 {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: inside, as asserted.
        unsafe { self.start.add(at) }
    }

    /// All of it, to read.
    ///
    /// # Safety
    /// No thread writes it while the slice lives.
    pub unsafe fn read(self) -> &'a [f32] {
        // SAFETY: the slice that it was made of is borrowed for 'a; the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// All of it, to write.
    ///
    /// # Safety
    /// No other thread reads or writes it while the slice lives, nor the same thread through
    /// another slice.
    pub unsafe fn write(&self) -> &'a mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}
