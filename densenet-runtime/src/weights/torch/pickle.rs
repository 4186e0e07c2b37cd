//! Pickles, read as data: nothing in them is executed.
//!
//! A pickle is a program for a small stack machine that makes objects and calls functions. Here it
//! makes a [`Graph`]: each call becomes an inert [`Node::Object`] that names the function and holds
//! its arguments. Protocols 0 to 5 of Python's `pickle.py` are understood.
//!
//! Memory is bounded by the length of the pickle and by [`MOST_NODES`], whatever its instructions
//! repeat. There is no recursion: objects that contain each other are numbers in a list.

mod machine;

use super::TorchError;
use machine::Machine;

/// The most nodes of a graph, values on the stack, marks, and entries of the memo. A checkpoint of a
/// large network has some hundred thousand nodes.
const MOST_NODES: usize = 1 << 21;

/// A node of a [`Graph`], by its place. Nodes are shared, and may refer to each other in circles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(u32);

/// What a pickle makes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// `None`, and values that no tensor needs: extensions, numbers of more than 128 bits.
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// A tuple, a list or a set.
    Sequence(Vec<Id>),
    /// A dictionary, in the order in which it was filled.
    Dict(Vec<(Id, Id)>),
    /// A class or function, such as `torch._utils._rebuild_tensor_v2`.
    Global(String),
    /// What a call would make.
    Object(Box<Object>),
    /// An object outside the pickle, in the file around it, by this name.
    Persistent(Id),
}

/// What a call would make.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object {
    /// The class or function.
    pub callable: Id,
    /// Its arguments, a [`Node::Sequence`] in a sound pickle.
    pub arguments: Id,
    /// What `__setstate__` would be given.
    pub state: Option<Id>,
    /// Its entries, if it is a dictionary.
    pub items: Vec<(Id, Id)>,
    /// What was appended, if it is a list.
    pub elements: Vec<Id>,
}

/// All that a pickle makes.
#[derive(Debug)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    root: Id,
    /// Bytes of the pickle.
    pub len: usize,
}

/// Why bytes cannot be read as a pickle.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PickleError {
    #[error("its pickle ends in the middle of an instruction (byte {0})")]
    Truncated(usize),
    #[error("byte {at} of its pickle, 0x{opcode:02x}, is not an instruction")]
    Opcode { at: usize, opcode: u8 },
    #[error("the instruction at byte {0} of its pickle has nothing to work on")]
    Stack(usize),
    #[error("the argument of the instruction at byte {0} of its pickle is malformed")]
    Argument(usize),
    #[error("its pickle makes more than {MOST_NODES} objects")]
    TooLarge,
}

impl From<PickleError> for TorchError {
    fn from(error: PickleError) -> Self {
        let words = error.to_string().into();
        match error {
            PickleError::TooLarge => Self::TooLarge(words),
            _ => Self::Damaged(words),
        }
    }
}

impl Graph {
    /// Reads the pickle that `bytes` start with.
    pub fn read(bytes: &[u8]) -> Result<Self, PickleError> {
        Machine::new(bytes).run()
    }

    pub fn root(&self) -> Id {
        self.root
    }

    pub fn node(&self, id: Id) -> &Node {
        // Only the machine makes `Id`s, each with its node.
        &self.nodes[id.0 as usize]
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn integer(&self, id: Id) -> Option<i128> {
        match self.node(id) {
            Node::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The names of all objects that the pickle expects outside of it.
    pub fn persistent(&self) -> impl Iterator<Item = Id> + '_ {
        self.nodes.iter().filter_map(|node| match node {
            Node::Persistent(name) => Some(*name),
            _ => None,
        })
    }

    pub fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Sequence(elements) => Some(elements),
            _ => None,
        }
    }

    pub fn global(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Global(name) => Some(name),
            _ => None,
        }
    }

    /// The entries of a dictionary, or of an object that is one, such as an `OrderedDict`.
    pub fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict(entries) => Some(entries),
            Node::Object(object) if !object.items.is_empty() => Some(&object.items),
            _ => None,
        }
    }

    /// The value of a dictionary's entry.
    pub fn entry(&self, id: Id, key: &str) -> Option<Id> {
        let entries = self.entries(id)?;
        // A key that is set twice has its last value.
        let found = entries
            .iter()
            .rev()
            .find(|(k, _)| self.text(*k) == Some(key))?;
        Some(found.1)
    }
}
