//! Memory for arenas: allocated at once or not at all, zero without being touched, on large pages
//! where the system has them.

use std::alloc::{Layout, alloc_zeroed};

use crate::executor::ExecutorError;

/// A number whose zero is all zero bits.
///
/// # Safety
/// All zero bits are a value of the type.
pub(crate) unsafe trait Number: Copy {}

// SAFETY: all zero bits are 0.0.
unsafe impl Number for f32 {}
// SAFETY: all zero bits are 0.
unsafe impl Number for u8 {}

/// `len` zeros, or an error that says what there was no memory for.
pub(crate) fn zeros<T: Number>(what: &'static str, len: usize) -> Result<Vec<T>, ExecutorError> {
    let error = || ExecutorError::OutOfMemory {
        what,
        bytes: (len as u64).saturating_mul(size_of::<T>() as u64),
    };
    let layout = Layout::array::<T>(len).map_err(|_| error())?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout's size is not zero.
    let start = unsafe { alloc_zeroed(layout) }.cast::<T>();
    if start.is_null() {
        return Err(error());
    }
    // SAFETY: the global allocator gave it for an array of `len` elements, and by `Number` its
    // zero bits are values.
    let values = unsafe { Vec::from_raw_parts(start, len, len) };
    ask_for_large_pages(&values);
    Ok(values)
}

/// A tile's rows are kilobytes apart, so that on small pages each is an address of its own to
/// translate.
#[cfg(target_os = "linux")]
fn ask_for_large_pages<T>(values: &[T]) {
    const PAGE: usize = 4096;
    let bytes = values.as_ptr_range();
    let (start, end) = (bytes.start as usize, bytes.end as usize);
    let start = start.next_multiple_of(PAGE);
    if let Some(len @ 1..) = end.checked_sub(start) {
        // SAFETY: the range lies within an allocation of ours, and this advice changes no
        // contents. Where the system does not follow it, nothing is lost.
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
        assert_eq!(zeros::<f32>("numbers", 3).unwrap(), [0.0; 3]);
        assert!(zeros::<u8>("bytes", 0).unwrap().is_empty());
        let large = zeros::<f32>("numbers", 1 << 20).unwrap();
        assert!(large.iter().all(|&value| value == 0.0));
    }

    #[test]
    fn too_much_is_an_error_that_says_what_for() {
        for len in [1 << 45, usize::MAX] {
            let error = zeros::<f32>("feature maps", len).unwrap_err();
            assert!(error.to_string().contains("feature maps"), "{error}");
        }
    }
}
