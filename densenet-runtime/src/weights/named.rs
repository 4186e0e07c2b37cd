//! Tensors on their way to a file.

use std::borrow::Cow;

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use safetensors::{Dtype, View};

/// A tensor on its way to a file.
#[derive(Clone, Debug)]
pub struct NamedTensor<'a> {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: &'a [f32],
    is_f16: bool,
}

impl<'a> NamedTensor<'a> {
    /// A tensor with its elements, last dimension innermost.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: &'a [f32]) -> Self {
        Self {
            name: name.into(),
            shape: shape.into(),
            values,
            is_f16: false,
        }
    }

    /// The same tensor, whose elements are written as f16, each rounded to the nearest. One beyond
    /// 65504 becomes infinite.
    #[must_use]
    pub fn in_f16(self) -> Self {
        Self {
            is_f16: true,
            ..self
        }
    }

    /// Whether its elements are written as f16.
    #[cfg(feature = "pytorch")]
    pub(super) fn is_f16(&self) -> bool {
        self.is_f16
    }

    /// The first element that f16 does not have, if they are written so.
    pub(super) fn beyond_f16(&self) -> Option<f32> {
        let is_beyond = |&&value: &&f32| f16::from_f32(value).is_infinite();
        self.values
            .iter()
            .find(is_beyond)
            .filter(|_| self.is_f16)
            .copied()
    }

    /// The elements as they are written, little-endian.
    pub(super) fn bytes(&self) -> Vec<u8> {
        if !self.is_f16 {
            return self.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        }
        let mut halves = vec![f16::ZERO; self.values.len()];
        halves.convert_from_f32_slice(self.values);
        halves.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
}

impl View for NamedTensor<'_> {
    fn dtype(&self) -> Dtype {
        if self.is_f16 { Dtype::F16 } else { Dtype::F32 }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.bytes())
    }

    fn data_len(&self) -> usize {
        self.values.len() * if self.is_f16 { 2 } else { 4 }
    }
}
