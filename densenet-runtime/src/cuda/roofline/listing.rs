//! Launches with everything that the driver is given, and the buffers that they use: enough to run
//! them elsewhere.

use super::Launch;

/// Launches in their order.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The sizes of the buffers, in bytes.
    pub buffers: Vec<usize>,
    /// The table that the host writes for `pack_weights`: for each weight, its offsets in the
    /// parameters and in the packed weights, its channels, taps and maps, and the first block that
    /// packs it.
    pub weight_table: Vec<i32>,
    /// The launches.
    pub launches: Vec<Listed>,
}

/// A launch.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The kernel, and what it costs at least.
    pub cost: Launch,
    /// The constants of its program, as options: `-DNAME=VALUE`. With the family, they tell which
    /// of a plan's programs it is.
    pub constants: Vec<String>,
    /// Blocks, along each axis.
    pub grid: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of shared memory beyond those that the kernel declares.
    pub shared: usize,
    /// The values of its parameters, in their order.
    pub arguments: Vec<Argument>,
}

/// The value of a parameter.
#[derive(Clone, Debug)]
pub struct Argument {
    /// The parameter's name.
    pub name: String,
    /// Its type, or what it points to.
    pub of: String,
    /// The value.
    pub value: Value,
}

/// What a kernel is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A pointer into a buffer of the listing.
    At {
        /// The buffer.
        buffer: usize,
        /// How many bytes from its start.
        offset: u64,
    },
    /// An `int`.
    Int(i32),
}
