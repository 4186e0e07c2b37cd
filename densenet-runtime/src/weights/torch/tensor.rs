//! Tensors as views of storages.

use half::{bf16, f16};

/// The most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 16;
/// The most elements of a tensor that has more of them than its storage.
const MOST_REPEATED: usize = 1 << 20;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementType {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
    C64,
    C128,
    Unknown,
}

impl ElementType {
    /// By the name of PyTorch's class of storages, such as `torch.FloatStorage`, or of its type,
    /// such as `torch.float32`.
    pub fn of(name: &str) -> Self {
        match name.rsplit('.').next().unwrap_or_default() {
            "DoubleStorage" | "float64" | "double" => Self::F64,
            "FloatStorage" | "float32" | "float" => Self::F32,
            "HalfStorage" | "float16" | "half" => Self::F16,
            "BFloat16Storage" | "bfloat16" => Self::Bf16,
            "LongStorage" | "int64" | "long" => Self::I64,
            "IntStorage" | "int32" | "int" | "QInt32Storage" => Self::I32,
            "ShortStorage" | "int16" | "short" => Self::I16,
            "CharStorage" | "int8" | "QInt8Storage" => Self::I8,
            "ByteStorage" | "uint8" | "UntypedStorage" | "QUInt8Storage" => Self::U8,
            "BoolStorage" | "bool" => Self::Bool,
            "ComplexFloatStorage" | "complex64" | "cfloat" => Self::C64,
            "ComplexDoubleStorage" | "complex128" | "cdouble" => Self::C128,
            _ => Self::Unknown,
        }
    }

    /// Its name in safetensors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::C64 => "C64",
            Self::C128 => "C128",
            Self::Unknown => "of an unknown type",
        }
    }

    /// Bytes of an element; 1 if they are unknown.
    pub const fn bytes(self) -> usize {
        match self {
            Self::C128 => 16,
            Self::F64 | Self::I64 | Self::C64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool | Self::Unknown => 1,
        }
    }
}

/// The elements that one or several tensors share.
#[derive(Debug)]
pub(super) struct Storage {
    pub bytes: Vec<u8>,
    pub is_big_endian: bool,
}

/// A tensor's place in its storage, all in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub element: ElementType,
    pub storage: usize,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

impl View {
    /// Checks that every element lies within a storage of this many bytes, and that the elements
    /// can be counted and are not far more than the storage has.
    pub fn check(&self, bytes: usize) -> Result<(), &'static str> {
        if self.shape.len() != self.strides.len() || self.shape.len() > MOST_DIMENSIONS {
            return Err("its shape and its strides do not match; the file is damaged");
        }
        let len = self
            .shape
            .iter()
            .try_fold(1usize, |len, &n| len.checked_mul(n));
        let len = len.ok_or("it has more elements than can be counted; the file is damaged")?;
        if len == 0 {
            return Ok(());
        }
        let mut steps = self.shape.iter().zip(&self.strides);
        let last = steps.try_fold(self.offset, |last, (&n, &stride)| {
            last.checked_add((n - 1).checked_mul(stride)?)
        });
        let has = bytes / self.element.bytes();
        if last.is_none_or(|last| last >= has) {
            return Err("it reaches beyond the end of its storage; the file is damaged");
        }
        if len > has.max(MOST_REPEATED) {
            return Err("it is an expanded view of few numbers; save a contiguous() copy of it");
        }
        Ok(())
    }

    /// The elements, if they are floating-point numbers.
    pub fn floats(&self, storage: &Storage) -> Option<Vec<f32>> {
        match self.element {
            ElementType::F64 => self.each(storage, |b| f64::from_le_bytes(b) as f32),
            ElementType::F32 => self.each(storage, f32::from_le_bytes),
            ElementType::F16 => self.each(storage, |b| f16::from_le_bytes(b).to_f32()),
            ElementType::Bf16 => self.each(storage, |b| bf16::from_le_bytes(b).to_f32()),
            _ => None,
        }
    }

    /// The elements, if they are integers.
    pub fn integers(&self, storage: &Storage) -> Option<Vec<i64>> {
        match self.element {
            ElementType::I64 => self.each(storage, i64::from_le_bytes),
            ElementType::I32 => self.each(storage, |b| i32::from_le_bytes(b).into()),
            ElementType::I16 => self.each(storage, |b| i16::from_le_bytes(b).into()),
            ElementType::I8 => self.each(storage, |b| i8::from_le_bytes(b).into()),
            ElementType::U8 | ElementType::Bool => self.each(storage, |[b]| b.into()),
            _ => None,
        }
    }

    /// Each element, last dimension innermost. It exists, since the view was [checked](Self::check).
    fn each<const N: usize, T>(
        &self,
        storage: &Storage,
        read: impl Fn([u8; N]) -> T,
    ) -> Option<Vec<T>> {
        let (elements, _) = storage.bytes.as_chunks::<N>();
        let len = self.shape.iter().product();
        let mut values = Vec::with_capacity(len);
        if len == 0 {
            return Some(values);
        }
        // An odometer over all dimensions; the last one turns fastest.
        let mut index = vec![0; self.shape.len()];
        let mut at = self.offset;
        loop {
            let mut bytes = *elements.get(at)?;
            if storage.is_big_endian {
                bytes.reverse();
            }
            values.push(read(bytes));
            let dimensions = index.iter_mut().zip(self.shape.iter().zip(&self.strides));
            let mut turned = false;
            for (index, (&n, &stride)) in dimensions.rev() {
                if *index + 1 < n {
                    *index += 1;
                    at += stride;
                    turned = true;
                    break;
                }
                at -= *index * stride;
                *index = 0;
            }
            if !turned {
                return Some(values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(shape: &[usize], strides: &[usize], offset: usize) -> View {
        View {
            element: ElementType::U8,
            storage: 0,
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        }
    }

    fn storage() -> Storage {
        Storage {
            bytes: (0..24).collect(),
            is_big_endian: false,
        }
    }

    #[test]
    fn a_view_has_its_elements_in_the_order_of_its_shape() {
        for (view, expected) in [
            (view(&[2, 3], &[3, 1], 0), vec![0, 1, 2, 3, 4, 5]),
            (view(&[3, 2], &[1, 3], 6), vec![6, 9, 7, 10, 8, 11]),
            (view(&[2, 2], &[12, 2], 1), vec![1, 3, 13, 15]),
            (view(&[2, 2], &[0, 1], 22), vec![22, 23, 22, 23]),
            (view(&[], &[], 5), vec![5]),
            (view(&[0, 4], &[4, 1], 99), vec![]),
            // A stride that is never gone.
            (view(&[1, 2], &[usize::MAX, 1], 3), vec![3, 4]),
        ] {
            assert_eq!(view.check(24), Ok(()), "{view:?}");
            assert_eq!(view.integers(&storage()), Some(expected), "{view:?}");
        }
    }

    #[test]
    fn a_view_that_leaves_its_storage_or_cannot_be_counted_is_refused() {
        for (view, said) in [
            (view(&[25], &[1], 0), "beyond the end"),
            (view(&[2, 3], &[3, 1], 19), "beyond the end"),
            (view(&[2], &[usize::MAX], 1), "beyond the end"),
            (view(&[3], &[usize::MAX / 2], 2), "beyond the end"),
            (view(&[1 << 33, 1 << 33], &[0, 0], 0), "than can be counted"),
            (view(&[1 << 40], &[0], 0), "expanded view"),
            (view(&[2], &[1, 1], 0), "do not match"),
            (view(&[1; 17], &[1; 17], 0), "do not match"),
        ] {
            let why = view.check(24).unwrap_err();
            assert!(why.contains(said), "{view:?}: {why}");
        }
    }
}
