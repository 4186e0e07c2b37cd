//! Tensors on their way to a file.

use std::borrow::Cow;

use safetensors::{Dtype, View};

/// A tensor on its way to a file.
#[derive(Clone, Debug)]
pub struct NamedTensor<'a> {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: &'a [f32],
}

impl<'a> NamedTensor<'a> {
    /// A tensor with its elements, last dimension innermost.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: &'a [f32]) -> Self {
        Self {
            name: name.into(),
            shape: shape.into(),
            values,
        }
    }
}

impl View for NamedTensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}
