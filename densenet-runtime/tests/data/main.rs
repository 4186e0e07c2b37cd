//! Data: pictures and files become the right images, batches are the same however they are loaded,
//! and bad data is reported.

use std::path::{Path, PathBuf};

mod balance;
mod cifar;
mod decode;
#[cfg(feature = "dicom")]
mod dicom;
mod folder;
mod formats;
mod idx;
mod in_memory;
mod loader;
mod records;
mod several;
mod split;
mod svhn;
mod table;
mod tiff;

/// A file that a script in `scripts` made.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/golden")
        .join(name)
}
