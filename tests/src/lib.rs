//! Shared by the whole-product tests: the golden files, the networks in them, a reference network
//! of dfdx's operations, and comparisons of numbers.

use std::error::Error;
use std::iter;

pub mod batches;
pub mod compare;
pub mod dfdx_way;
pub mod emulated;
pub mod executor;
pub mod frozen_parts;
pub mod golden;
pub mod memory;
pub mod mutations;
pub mod networks;
pub mod parsers;
pub mod plain;
pub mod random;
pub mod ranks;
pub mod reference;
pub mod small_run;

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// So does that of the compiler.
#[cfg(doctest)]
#[doc = include_str!("../../densenet-macros/spec/README.md")]
struct ReadmeOfTheCompiler;

/// The first of the causes of an error that is of a type.
pub fn cause<T: Error + 'static>(error: &dyn Error) -> Option<&T> {
    let mut causes = iter::successors(error.source(), |&cause| cause.source());
    causes.find_map(|cause| cause.downcast_ref())
}

/// Whether the machine has a library of CUDA's own in the system's folders, as the loader's cache
/// lists them, so that its absence cannot be shown.
pub fn is_installed(library: &str) -> bool {
    let listed = std::process::Command::new("/sbin/ldconfig")
        .arg("-p")
        .output();
    listed.is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).contains(library))
}
