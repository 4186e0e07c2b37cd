//! PyTorch's own files of tensors, read as data.
//!
//! `torch.save` has written three containers: a zip (since 1.6), a stream of pickles followed by
//! the storages (0.1.9 to 1.5), and a tar (before). All hold a [pickle] of Python objects, whose
//! tensors name the storages that their elements lie in. Nothing in a file is executed; see
//! `torch/serialization.py` for what PyTorch does with the same bytes.

mod container;
mod error;
mod find;
mod pickle;
mod tensor;
mod write;

use std::collections::{BTreeMap, HashMap};

pub(super) use container::is_torch;
pub use error::TorchError;
pub use find::Found;
use tensor::{Storage, View};
pub(super) use write::state_dict;

/// The tensors of a file that `torch.save` wrote.
#[derive(Debug)]
pub(super) struct TorchFile {
    storages: Vec<Storage>,
    tensors: Vec<(String, View)>,
    /// The place of each name in `tensors`.
    places: HashMap<String, usize>,
    found: Found,
    notes: BTreeMap<String, String>,
}

impl TorchFile {
    /// Reads the tensors from a file's bytes.
    ///
    /// # Errors
    /// When the bytes are damaged, take more memory than such a file needs, or hold no tensors with
    /// names.
    pub fn read(bytes: &[u8]) -> Result<Self, TorchError> {
        let contents = container::read(bytes)?;
        let mut storages = contents.storages;
        let (tensors, found) = find::tensors(&contents.graph, &mut storages, &contents.tensors)?;
        let names = tensors.iter().map(|(name, _)| name.clone());
        Ok(Self {
            places: names.zip(0..).collect(),
            storages: storages.into_storages(),
            tensors,
            found,
            notes: contents.notes,
        })
    }

    /// What the tensors were found in.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The notes that our writer added to the tensors.
    pub fn notes(&self) -> &BTreeMap<String, String> {
        &self.notes
    }

    /// The names of the tensors, in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(name, _)| name.as_str())
    }

    fn view(&self, name: &str) -> Option<&View> {
        let place = *self.places.get(name)?;
        self.tensors.get(place).map(|(_, view)| view)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.view(name).map(|view| view.shape.as_slice())
    }

    /// The type of a tensor's elements, as safetensors names it.
    pub fn element_type(&self, name: &str) -> Option<&'static str> {
        self.view(name).map(|view| view.element.name())
    }

    /// The elements of a tensor of floating-point numbers, last dimension innermost.
    pub fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let view = self.view(name)?;
        view.floats(self.storages.get(view.storage)?)
    }

    /// The elements of a tensor of integers, last dimension innermost.
    pub fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let view = self.view(name)?;
        view.integers(self.storages.get(view.storage)?)
    }
}
