//! Memory for arenas: allocated at once or not at all, on large pages where the system has them.

use crate::executor::ExecutorError;

/// `len` zeros, or an error that says what there was no memory for.
pub(crate) fn zeros<T: Clone + Default>(
    what: &'static str,
    len: usize,
) -> Result<Vec<T>, ExecutorError> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(len)
        .map_err(|_| ExecutorError::OutOfMemory {
            what,
            bytes: (len * size_of::<T>()) as u64,
        })?;
    ask_for_large_pages(&values);
    values.resize(len, T::default());
    Ok(values)
}

/// A tile's rows are kilobytes apart, so that on small pages each is an address of its own to
/// translate.
#[cfg(target_os = "linux")]
fn ask_for_large_pages<T>(values: &Vec<T>) {
    const PAGE: usize = 4096;
    let start = (values.as_ptr() as usize).next_multiple_of(PAGE);
    let end = values.as_ptr() as usize + values.capacity() * size_of::<T>();
    if let Some(len @ 1..) = end.checked_sub(start) {
        // SAFETY: the range lies within an allocation of ours, and this advice changes no
        // contents. Where the system does not follow it, nothing is lost.
        unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages<T>(_: &Vec<T>) {}
