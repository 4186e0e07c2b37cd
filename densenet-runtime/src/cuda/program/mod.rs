//! Programs: the text and the constants that they share, how they are compiled, and where they are
//! cached.
//!
//! Values that all layers of a block share are constants of its program: size, strides, maps.
//! Values that grow from layer to layer are launch arguments, so a block of any depth needs one
//! program for each of its two convolutions.
//!
//! Sizes of tiles are constants of the kernels too. Each is defined once, here ([`tile`]) or in the
//! module of the kernels that use such tiles.

use super::driver::Source;
use crate::plan::norm::{EPSILON, MOMENTUM};
use crate::plan::{Dropout, Plan, Precision};

mod cache;
mod library;
pub(super) mod slices;
pub(super) mod tile;

pub use cache::Cache;
pub(super) use library::Library;

/// The words of the kernels' `Scalars` (`common.cuh`): those of a step, those of the descent,
/// whether a loss was not finite, the factor of clipped gradients, and a word of padding.
pub(super) const STEP_WORDS: usize = 5;
pub(super) const DESCENT_WORDS: usize = 12;
pub(super) const BROKEN: usize = STEP_WORDS + DESCENT_WORDS;
pub(super) const SCALAR_WORDS: usize = BROKEN + 3;

/// Words of the table of groups of parameters for each group.
pub(super) const GROUP_WORDS: usize = 3;
/// The number of blocks that sum up squares of gradients.
pub(super) const NORM_BLOCKS: usize = 256;

/// A file of kernels: its name and its text.
pub(super) type File = (&'static str, &'static str);

const COMMON: File = ("common.cuh", include_str!("common.cuh"));
const PRODUCT: File = ("product.cuh", include_str!("product.cuh"));
const PULL: File = ("pull.cuh", include_str!("pull.cuh"));
/// What puts together what tiles and slices leave.
pub(super) const GATHER: File = ("gather.cuh", include_str!("gather.cuh"));

/// The constants of all programs. A program's own constants of the same names take precedence.
const SHARED: [(&str, usize); 7] = [
    ("ROWS", tile::ROWS),
    ("COLUMNS", tile::COLUMNS),
    ("THREADS", tile::THREADS),
    ("REDUCTION_THREADS", tile::REDUCTION_THREADS),
    ("DEPTH_BYTES", tile::DEPTH_BYTES),
    ("PAD_BYTES", tile::PAD_BYTES),
    ("SCALAR_WORDS", SCALAR_WORDS),
];

/// The sources of a plan's programs.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub plan: &'a Plan,
    pub precision: Precision,
}

impl Sources<'_> {
    /// A program whose kernels make products of tiles.
    pub fn tiled(
        &self,
        family: &'static str,
        files: &[File],
        constants: &[(&'static str, usize)],
    ) -> Source {
        self.of(
            family,
            &[&[COMMON, PRODUCT, PULL], files].concat(),
            constants,
        )
    }

    /// A program whose kernels make no products.
    pub fn plain(
        &self,
        family: &'static str,
        files: &[File],
        constants: &[(&'static str, usize)],
    ) -> Source {
        self.of(family, &[&[COMMON], files].concat(), constants)
    }

    fn of(
        &self,
        family: &'static str,
        files: &[File],
        constants: &[(&'static str, usize)],
    ) -> Source {
        // Fractions are written into the text itself.
        let mut text = format!("#define EPSILON {EPSILON:e}\n#define MOMENTUM {MOMENTUM:e}\n");
        for (name, file) in files {
            text += &format!("#line 1 \"{name}\"\n{file}\n");
        }
        let mut constants = constants.to_vec();
        for shared in SHARED {
            if constants.iter().all(|(own, _)| *own != shared.0) {
                constants.push(shared);
            }
        }
        constants.push(("BF16", usize::from(self.precision == Precision::Bf16)));
        if let Some(dropout) = Dropout::new(self.plan.dropout()) {
            constants.push(("DROPOUT", 1));
            constants.push(("DROPOUT_THRESHOLD", dropout.threshold as usize));
            constants.push(("DROPOUT_SCALE", dropout.scale.to_bits() as usize));
        }
        Source {
            family,
            text,
            constants,
        }
    }
}
