//! Where Fashion-MNIST is.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use densenet_runtime::data::{InMemory, idx};

/// Where Debian's package dataset-fashion-mnist puts the files.
const PACKAGE: &str = "/usr/share/datasets/fashion-mnist";

/// The data set of the small examples.
#[derive(Args)]
pub struct Fashion {
    /// The four IDX files, plain or compressed; the default is where Debian's package
    /// dataset-fashion-mnist puts them.
    #[arg(
        long,
        value_name = "DIR",
        default_value = PACKAGE
    )]
    pub data: PathBuf,
}

impl Fashion {
    /// Images to train on, and to test on.
    ///
    /// # Errors
    /// When the files are missing or damaged.
    pub fn read(&self) -> Result<(InMemory, InMemory), Box<dyn Error>> {
        if !self.data.is_dir() {
            let data = self.data.display();
            return Err(format!(
                "{data} is missing; run `apt-get install dataset-fashion-mnist`, or give the folder of the IDX files with --data"
            )
            .into());
        }
        Ok(idx::train_and_test(&self.data, &idx::FASHION)?)
    }

    /// All images to test on; if the package is not installed, those of this repository.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn test_images(&self) -> Result<InMemory, Box<dyn Error>> {
        if self.data == Path::new(PACKAGE) && !self.data.is_dir() {
            let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/fashion-mnist");
            return Ok(idx::train_and_test(kept, &idx::FASHION)?.1);
        }
        Ok(self.read()?.1)
    }
}
