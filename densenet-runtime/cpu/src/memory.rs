//! Memory for arenas: allocated as a whole or not at all, zeroed without being touched, on large
//! pages if the system has them.

use std::alloc::{Layout, alloc_zeroed};
use std::fmt::{self, Debug, Formatter};
use std::ops::{Deref, DerefMut};

/// A number type whose zero has all bits zero.
///
/// # Safety
/// A value with all bits zero is valid for the type.
pub unsafe trait Number: Copy {}

// SAFETY: all bits zero is 0.0.
unsafe impl Number for f32 {}
// SAFETY: all bits zero is 0.
unsafe impl Number for u8 {}

/// Numbers that start at a cache line, so that in rows of whole vectors no vector crosses a line.
#[derive(Default)]
pub struct Memory<T> {
    /// The numbers, with spare elements so that the first can be moved to the start of a line.
    values: Vec<T>,
    start: usize,
    len: usize,
}

/// Bytes of a cache line.
const LINE: usize = 64;

impl<T: Number> Memory<T> {
    /// `len` zeros, if there is memory for them. They are not touched, as they would be if the
    /// allocator were asked for a larger alignment.
    fn zeros(len: usize) -> Option<Self> {
        if len == 0 {
            return Some(Self {
                values: Vec::new(),
                start: 0,
                len,
            });
        }
        let room = len.checked_add(LINE / size_of::<T>())?;
        let layout = Layout::array::<T>(room).ok()?;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) }.cast::<T>();
        if start.is_null() {
            return None;
        }
        // SAFETY: the global allocator returned it for an array of `room` elements, and by `Number`
        // its zero bits are valid values.
        let values = unsafe { Vec::from_raw_parts(start, room, room) };
        let start = values.as_ptr().align_offset(LINE);
        Some(Self { values, start, len })
    }

    /// The first `len` numbers. If the memory is shorter, it grows, and they are zeros.
    pub fn need(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            // The old numbers are freed first, so that both never exist at once.
            self.values = Vec::new();
            *self = Self::zeros(len).unwrap_or_else(|| panic!("no memory for {len} numbers"));
        }
        &mut self[..len]
    }
}

impl<T> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.start..][..self.len]
    }
}

impl<T> DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..][..self.len]
    }
}

impl<T> Debug for Memory<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} numbers", self.len)
    }
}

/// There is not enough memory.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no memory for {bytes} bytes of {what}")]
pub struct OutOfMemory {
    /// What the memory was for.
    pub what: &'static str,
    /// The size.
    pub bytes: u64,
}

/// `len` zeros, or an error that names what the memory was for.
pub fn zeros<T: Number>(what: &'static str, len: usize) -> Result<Memory<T>, OutOfMemory> {
    let values = Memory::zeros(len).ok_or(OutOfMemory {
        what,
        bytes: (len as u64).saturating_mul(size_of::<T>() as u64),
    })?;
    ask_for_large_pages(&values);
    Ok(values)
}

/// The rows of a tile are kilobytes apart, so that with small pages each row needs an address
/// translation of its own.
#[cfg(target_os = "linux")]
fn ask_for_large_pages<T>(values: &[T]) {
    const PAGE: usize = 4096;
    let bytes = values.as_ptr_range();
    let (start, end) = (bytes.start as usize, bytes.end as usize);
    let start = start.next_multiple_of(PAGE);
    if let Some(len @ 1..) = end.checked_sub(start) {
        // SAFETY: the range is within an allocation of ours, and this advice changes no contents.
        // If the system does not follow it, nothing is lost.
        unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages<T>(_: &[T]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_zero() {
        assert_eq!(*zeros::<f32>("numbers", 3).unwrap(), [0.0; 3]);
        assert!(zeros::<u8>("bytes", 0).unwrap().is_empty());
        let large = zeros::<f32>("numbers", 1 << 20).unwrap();
        assert!(large.iter().all(|&value| value == 0.0));
        assert!(large.as_ptr().addr().is_multiple_of(LINE));
    }

    #[test]
    fn scratch_grows_and_stays() {
        let mut scratch = Memory::<f32>::default();
        scratch.need(5).fill(1.0);
        assert_eq!(*scratch.need(3), [1.0; 3]);
        assert_eq!(*scratch.need(7), [0.0; 7]);
    }

    #[test]
    fn too_much_is_an_error_that_says_what_for() {
        for len in [1 << 45, usize::MAX] {
            let error = zeros::<f32>("feature maps", len).unwrap_err();
            assert!(error.to_string().contains("feature maps"), "{error}");
        }
    }
}
