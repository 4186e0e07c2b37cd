//! One allocation for all buffers, at addresses that follow from the plan.

use super::super::driver::{Address, CudaDevice, Memory};
use super::super::error::CudaError;
use crate::plan::Precision;

/// Buffers start at multiples of this many bytes: two cache lines, and what vector loads need.
const ALIGNMENT: usize = 256;

/// How buffers are allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// One allocation.
    #[default]
    Together,
    /// One allocation for each buffer, so that tools that watch allocations (compute-sanitizer, the
    /// emulator of the tests) see accesses beyond a buffer.
    Apart,
}

/// The buffers, before there is memory for them.
#[derive(Default)]
pub struct Layout {
    sizes: Vec<usize>,
}

/// Which buffer of a [`Layout`].
#[derive(Clone, Copy, Debug)]
pub struct Slot(usize);

impl Layout {
    /// Adds a buffer of bytes.
    pub fn bytes(&mut self, count: usize) -> Slot {
        self.sizes.push(count.max(4));
        Slot(self.sizes.len() - 1)
    }

    /// Adds a buffer of f32.
    pub fn floats(&mut self, count: usize) -> Slot {
        self.bytes(4 * count)
    }

    /// Adds a buffer of maps, or of their gradients.
    pub fn maps(&mut self, count: usize, precision: Precision) -> Slot {
        self.bytes(precision.bytes() * count)
    }

    /// Bytes of all buffers together, with their alignment.
    pub fn total(&self) -> usize {
        self.sizes
            .iter()
            .map(|size| size.next_multiple_of(ALIGNMENT))
            .sum()
    }

    /// Addresses without memory: to be counted, not used. Buffers are so far apart that an address
    /// tells which buffer it lies in, or beyond.
    #[cfg(feature = "roofline")]
    pub fn on_paper(&self) -> Buffers {
        let mut next = Address::on_paper();
        let addresses = self.sizes.iter().map(|size| {
            let address = next;
            next = next.bytes(size.next_multiple_of(ALIGNMENT) + ALIGNMENT);
            address
        });
        Buffers {
            addresses: addresses.collect(),
            _memory: Vec::new(),
            bytes: self.total(),
        }
    }

    /// The buffers' sizes in bytes.
    #[cfg(feature = "roofline")]
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// The buffers' addresses in one allocation that starts at `start`.
    fn addresses(&self, start: Address) -> Vec<Address> {
        let mut next = start;
        let addresses = self.sizes.iter().map(|size| {
            let address = next;
            next = next.bytes(size.next_multiple_of(ALIGNMENT));
            address
        });
        addresses.collect()
    }

    /// Allocates.
    pub fn allocate(
        &self,
        device: &CudaDevice,
        placement: Placement,
    ) -> Result<Buffers, CudaError> {
        let (addresses, memory) = match placement {
            Placement::Together => {
                let all = device.allocate(self.total())?;
                (self.addresses(all.address()), vec![all])
            }
            Placement::Apart => {
                let memory = self.sizes.iter().map(|&size| device.allocate(size));
                let memory = memory.collect::<Result<Vec<_>, _>>()?;
                (memory.iter().map(Memory::address).collect(), memory)
            }
        };
        Ok(Buffers {
            addresses,
            _memory: memory,
            bytes: self.total(),
        })
    }
}

/// All buffers of an executor.
pub struct Buffers {
    addresses: Vec<Address>,
    /// Freed with them.
    _memory: Vec<Memory>,
    bytes: usize,
}

impl Buffers {
    /// Where a buffer is.
    pub fn at(&self, slot: Slot) -> Address {
        self.addresses[slot.0]
    }

    /// From now on a buffer is elsewhere, in memory that outlives its use.
    pub fn place(&mut self, slot: Slot, at: Address) {
        self.addresses[slot.0] = at;
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the buffer that an address lies in, and how far from its start.
    #[cfg(feature = "roofline")]
    pub fn place_of(&self, of: Address) -> Option<(usize, u64)> {
        let mut starts = self.addresses.iter().enumerate().rev();
        starts.find_map(|(number, &start)| Some((number, of.behind(start)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_counted() {
        let mut layout = Layout::default();
        layout.floats(1);
        layout.bytes(257);
        assert_eq!(layout.total(), 256 + 512);
    }
}
