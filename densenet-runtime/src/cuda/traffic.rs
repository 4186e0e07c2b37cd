//! The elements that a launch of a kernel reads and writes. Each room lists them for its own
//! kernels, with a line for each parameter, next to the kernels' declarations.

use super::driver::{Launch, Value};

/// Counts what a launch moves.
pub(super) struct Counter<'a> {
    launch: &'a Launch<'a>,
}

/// What a launch moves, in bytes, and its product's operations.
#[derive(Default)]
pub(super) struct Traffic {
    pub reads: u64,
    pub writes: u64,
    pub operations: u64,
}

impl<'a> Counter<'a> {
    pub fn new(launch: &'a Launch<'a>) -> Self {
        Self { launch }
    }

    /// The kernel's name.
    pub fn kernel(&self) -> &'static str {
        self.launch.kernel().name
    }

    /// Blocks, along each axis.
    pub fn grid(&self) -> [u64; 3] {
        self.launch.grid().map(|size| size as u64)
    }

    /// Whether products are in bf16.
    pub fn bf16(&self) -> bool {
        self.constant("BF16") == 1
    }

    /// A constant of the kernel's program; 0 if it has none of this name.
    pub fn constant(&self, name: &str) -> u64 {
        let constants = self.launch.kernel().declared.constants.iter();
        let mut own = constants.filter(|(constant, _)| *constant == name);
        own.next().map_or(0, |&(_, value)| value as u64)
    }

    /// The value of a parameter that is an `int`.
    fn int(&self, name: &str) -> i64 {
        let parameters = self.launch.kernel().declared.parameters.iter();
        let mut named = parameters.zip(self.launch.values());
        let value = named.find_map(|(parameter, value)| match value {
            Value::Int(value) if parameter.name == name => Some(*value),
            _ => None,
        });
        value.map_or(0, i64::from)
    }

    /// The same, where it counts something.
    pub fn count(&self, name: &str) -> u64 {
        u64::try_from(self.int(name)).unwrap_or(0)
    }

    /// Whether the launch is of a training step.
    pub fn training(&self) -> bool {
        self.int("training") != 0
    }

    /// Bytes of the scalars that dropout reads: the seed.
    pub fn seed(&self) -> u64 {
        if self.constant("DROPOUT") == 1 && self.int("site") >= 0 {
            8
        } else {
            0
        }
    }

    /// Bytes of an element that a parameter points to, as it is declared. A type with a name of its
    /// own is what the precision stores.
    fn element(&self, name: &str) -> u64 {
        let mut parameters = self.launch.kernel().declared.parameters.iter();
        let own = parameters.find(|parameter| parameter.name == name);
        match own.map(|parameter| parameter.of.as_str()) {
            None => 0,
            Some("Scalars" | "unsigned char") => 1,
            // A group is read word by word.
            Some("float" | "unsigned" | "int" | "Group") => 4,
            Some("double") => 8,
            Some(_) if self.bf16() => 2,
            Some(_) => 4,
        }
    }

    /// Two sums for each of this many channels and each tile of rows of the grid.
    pub fn partial(&self, channels: u64) -> u64 {
        2 * channels * self.grid()[0]
    }

    /// The moments of this many channels that a training step leaves.
    pub fn moments(&self, channels: u64) -> u64 {
        u64::from(self.training()) * self.partial(channels)
    }

    /// `reads` and `writes` are elements of the parameters named; of scalars, bytes.
    pub fn moves(&self, reads: &[(&str, u64)], writes: &[(&str, u64)]) -> Traffic {
        let bytes = |elements: &[(&str, u64)]| {
            let each = elements
                .iter()
                .map(|(name, count)| count * self.element(name));
            each.sum()
        };
        Traffic {
            reads: bytes(reads),
            writes: bytes(writes),
            operations: 0,
        }
    }
}

impl Traffic {
    /// With what else the launch moves.
    pub fn and(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            writes: self.writes + other.writes,
            operations: self.operations + other.operations,
        }
    }

    /// With a product of `rows` x `columns` x `depth`.
    pub fn product(self, rows: u64, columns: u64, depth: u64) -> Self {
        Self {
            operations: 2 * rows * columns * depth,
            ..self
        }
    }
}
