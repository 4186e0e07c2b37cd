//! A file that `torch.load(.., weights_only=True)` takes.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::weights::NamedTensor;

/// The folder in the zip that everything lies in, as `torch.save` names it.
const FOLDER: &str = "archive";
/// The file in it with our notes: an object of texts in JSON.
pub(super) const NOTES: &str = "densenet.json";
/// Where storages start, so that they can be mapped into memory.
const ALIGNMENT: u16 = 64;

/// The bytes of a state dict of f32 tensors, in the container of PyTorch 1.6 and later, with notes
/// that PyTorch ignores. The same tensors and notes give the same bytes.
///
/// # Errors
/// When a shape does not match its elements, or the zip cannot be made.
pub(in crate::weights) fn state_dict(
    tensors: &[NamedTensor<'_>],
    notes: &BTreeMap<String, String>,
) -> io::Result<Vec<u8>> {
    for tensor in tensors {
        let len = tensor
            .shape
            .iter()
            .try_fold(1usize, |len, &n| len.checked_mul(n));
        if len != Some(tensor.values.len()) {
            let (name, shape) = (&tensor.name, &tensor.shape);
            return Err(io::Error::other(format!(
                "tensor `{name}` of shape {shape:?} has {} elements",
                tensor.values.len()
            )));
        }
    }
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(ALIGNMENT);
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("{FOLDER}/{name}"), options)?;
        zip.write_all(bytes)
    };
    add("data.pkl", &pickle(tensors))?;
    add("byteorder", b"little")?;
    for (index, tensor) in tensors.iter().enumerate() {
        add(&format!("data/{index}"), &tensor.bytes())?;
    }
    if !notes.is_empty() {
        add(NOTES, &serde_json::to_vec(notes)?)?;
    }
    add("version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

/// An `OrderedDict` of calls of `_rebuild_tensor_v2`, in protocol 2.
fn pickle(tensors: &[NamedTensor<'_>]) -> Vec<u8> {
    const DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = b"\x80\x02".to_vec();
    out.extend(DICT);
    out.push(b'(');
    for (index, tensor) in tensors.iter().enumerate() {
        text(&mut out, &tensor.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        let storage: &[u8] = match tensor.is_f16() {
            true => b"ctorch\nHalfStorage\n",
            false => b"ctorch\nFloatStorage\n",
        };
        out.extend(storage);
        text(&mut out, &index.to_string());
        text(&mut out, "cpu");
        number(&mut out, tensor.values.len());
        out.extend(b"tQ");
        number(&mut out, 0);
        tuple(&mut out, &tensor.shape);
        tuple(&mut out, &strides(&tensor.shape));
        // No gradient is wanted, and there are no hooks.
        out.push(0x89);
        out.extend(DICT);
        out.extend(b"tR");
    }
    out.extend(b"u.");
    out
}

/// Elements from one index of each dimension to the next.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn number(out: &mut Vec<u8>, number: usize) {
    // A long of nine bytes: the last one keeps it positive.
    out.extend([0x8a, 9]);
    out.extend((number as u64).to_le_bytes());
    out.push(0);
}

fn tuple(out: &mut Vec<u8>, numbers: &[usize]) {
    out.push(b'(');
    numbers.iter().for_each(|&n| number(out, n));
    out.push(b't');
}
