//! Shared by the tests of the kernels: programs, buffers and launches on the emulated driver, and
//! the plain references' arithmetic.
//!
//! A reference takes the numbers that the kernel reads, as they are stored, rounds operands as the
//! kernel does, and sums in f64 in an order of its own. So only the order of f32 sums differs, and
//! in bf16 the last bit of stored values.

mod device;
mod left;
mod reference;

pub use device::{Argument, Buffer, Gpu, Program, family, vector};
pub use left::{Passed, PassedAt, Slices};
pub use reference::{Dropout, Norm, Numbers, check, check_stored, random};

/// The number format of maps and of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    F32,
    /// bfloat16, with f32 sums.
    Bf16,
}

impl Precision {
    /// Both.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// A value as it is stored, and as an operand of a product.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 => half::bf16::from_f32(value).to_f32(),
        }
    }

    /// Values as they are stored.
    pub fn round_all(self, values: &[f32]) -> Vec<f32> {
        values.iter().map(|&value| self.round(value)).collect()
    }
}

/// Pixels of a tile. Kernels are given these sizes as constants, here as by the executor.
pub const ROWS: usize = 64;
/// Channels of a tile.
pub const COLUMNS: usize = 64;
/// Threads of a tile.
pub const THREADS: usize = 256;
/// Threads of a reduction.
pub const REDUCTION_THREADS: usize = 128;
/// Threads of a block that combines the results of tiles and slices.
pub const GATHER_THREADS: usize = 512;
/// Channels of a tile where a weight's gradient is summed.
pub const TILE_CHANNELS: usize = 64;
/// Constants of programs that do not define them otherwise.
pub const CONSTANTS: [(&str, usize); 8] = [
    ("ROWS", ROWS),
    ("COLUMNS", COLUMNS),
    ("THREADS", THREADS),
    ("REDUCTION_THREADS", REDUCTION_THREADS),
    ("TILE_CHANNELS", TILE_CHANNELS),
    ("DEPTH_BYTES", 64),
    ("PAD_BYTES", 16),
    ("SCALAR_WORDS", 20),
];
/// Bytes of shared memory that every card has.
pub const SHARED: usize = 99 << 10;
