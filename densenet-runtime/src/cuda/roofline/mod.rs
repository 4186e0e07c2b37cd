//! The traffic and the operations of a training step, counted from the launches themselves.
//!
//! The code that launches a step on a device launches it here on paper: each launch is a kernel
//! with its constants and the values of its parameters, and the kernel's module says which elements
//! such a launch reads and writes. The kernel's declaration gives the size of an element. So the
//! list of launches cannot drift from what runs. A test checks the traffic by watching every access
//! of the kernels on an emulated device.
//!
//! Bytes are those that a launch must move if each is read once and written once: repeated reads
//! are assumed to come from the caches. Operations are those of the products; loading and writing
//! take only a few operations for each value.

mod cards;
mod eager;
mod listing;
mod paper;

pub use cards::{Card, cards};
pub use eager::{Eager, eager};
pub use listing::{Argument, Listed, Listing, Value};
pub use paper::{everything, launches, launches_towards, launches_with_groups, listing};

/// A kernel's launch, and its least cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel's name; `memset` if the driver clears memory.
    pub kernel: &'static str,
    /// The stage that it belongs to: `stem`, `pointwise`, `spatial`, `transition`, `head`, `norm`,
    /// `weights` or `step`.
    pub family: &'static str,
    /// Blocks of threads.
    pub blocks: u64,
    /// Bytes that it reads.
    pub reads: u64,
    /// Bytes that it writes.
    pub writes: u64,
    /// Operations of its product: a multiply-add is two.
    pub operations: u64,
    /// Whether the tensor cores do them, in bf16.
    pub tensor_cores: bool,
}

impl Launch {
    /// Bytes that it moves.
    pub fn bytes(&self) -> u64 {
        self.reads + self.writes
    }

    /// Lower bounds for the time on a card of this kind.
    pub fn roof(&self, card: &Card) -> Roof {
        let rate = if self.tensor_cores {
            card.bf16
        } else {
            card.f32
        };
        Roof {
            memory: self.bytes() as f64 / card.bandwidth,
            compute: self.operations as f64 / rate,
        }
    }
}

/// The least seconds on a card.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Roof {
    /// To move the bytes.
    pub memory: f64,
    /// To do the operations.
    pub compute: f64,
}

impl Roof {
    /// Both at once: the longer of the two.
    pub fn seconds(&self) -> f64 {
        self.memory.max(self.compute)
    }
}
