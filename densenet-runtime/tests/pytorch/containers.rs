//! Containers: files of `torch.save` and others, and malicious ones.

use std::fs;
use std::path::Path;

use densenet_runtime::weights::{TensorFile, WeightsError};
use tempfile::TempDir;

use crate::golden;

pub fn container(name: &str) -> TensorFile {
    TensorFile::read(golden("containers").join(name)).unwrap()
}

fn refusal(path: impl AsRef<Path>) -> String {
    let error = TensorFile::read(path).unwrap_err();
    assert!(matches!(error, WeightsError::Torch { .. }), "{error}");
    error.to_string()
}

/// The tensors that most of the files have, with something added to each number.
pub fn assert_has_the_tensors(file: &TensorFile, added: f32) {
    let at = |values: &[f32]| values.iter().map(|value| value + added).collect::<Vec<_>>();
    let weight: Vec<_> = (0_u8..24).map(|index| f32::from(index) / 8.0).collect();
    let path = file.path().display();
    for (name, shape, values) in [
        ("a.weight", &[2, 3, 4][..], at(&weight)),
        ("a.bias", &[2], at(&[-1.5, 0.25])),
        ("scalar", &[], at(&[2.5])),
        ("empty", &[0, 3], vec![]),
    ] {
        assert_eq!(file.shape(name), Some(shape), "{path}: {name}");
        assert_eq!(file.floats(name).unwrap(), values, "{path}: {name}");
    }
}

#[test]
fn each_container_and_protocol_is_read() {
    for name in [
        "zip.pth",
        "protocol3.pth",
        "protocol4.pth",
        "protocol5.pth",
        "packed.pth",
        "no_checksums.pth",
        "stream.pth",
        "python2.pth",
        "tar.pth",
        "parameters.pth",
    ] {
        let file = container(name);
        assert_has_the_tensors(&file, 0.0);
        let names = ["a.weight", "a.bias", "scalar", "empty"];
        assert_eq!(file.names(), names, "{name}");
        let found = file.found().unwrap();
        assert_eq!(
            found.to_string(),
            "the state dict that the file is",
            "{name}"
        );
    }
}

#[test]
fn each_type_of_numbers_is_read() {
    for kind in ["float64", "float16", "bfloat16"] {
        assert_has_the_tensors(&container(&format!("{kind}.pth")), 0.0);
        assert_has_the_tensors(&container(&format!("{kind}_stream.pth")), 0.0);
    }
    for file in ["integers.pth", "integers_stream.pth"] {
        let file = container(file);
        for (name, values) in [
            ("int64", [-3, -2, -1, 0, 1, 2]),
            ("int32", [-3, -2, -1, 0, 1, 2]),
            ("int16", [-3, -2, -1, 0, 1, 2]),
            ("int8", [-3, -2, -1, 0, 1, 2]),
            ("uint8", [3, 2, 1, 0, 1, 2]),
            ("bool", [0, 0, 0, 0, 1, 1]),
        ] {
            assert_eq!(file.integers(name).unwrap(), values, "{name}");
        }
        let error = file.floats("int32").unwrap_err().to_string();
        assert!(
            error.ends_with("is I32; expected F64, F32, F16 or BF16"),
            "{error}"
        );
        assert!(file.integers("complex").is_err());
        let error = file.floats("absent").unwrap_err().to_string();
        assert!(error.ends_with("has no tensor `absent`"), "{error}");
    }
}

#[test]
fn views_have_the_numbers_that_they_show() {
    for file in ["views.pth", "views_stream.pth", "views_tar.pth"] {
        let file = container(file);
        let turned: Vec<_> = (0_u8..6)
            .flat_map(|x| (0_u8..4).map(move |y| f32::from(6 * y + x)))
            .collect();
        assert_eq!(file.floats("turned").unwrap(), turned);
        let part = [6.0, 8.0, 10.0, 12.0, 14.0, 16.0];
        assert_eq!(file.shape("part"), Some(&[2, 3][..]));
        assert_eq!(file.floats("part").unwrap(), part);
        let expanded = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0].repeat(5);
        assert_eq!(file.floats("expanded").unwrap(), expanded);
    }
}

#[test]
fn a_state_dict_is_found_in_a_checkpoint_and_its_key_is_named() {
    for (name, said) in [
        ("checkpoint.pth", "the state dict under `state_dict`"),
        // The weights are preferred to their average, which has a tensor more.
        (
            "averaged.pth",
            "the state dict under `model` (and not `model_ema`)",
        ),
        ("listed.pth", "the state dict under `0/net/generator`"),
    ] {
        let file = container(name);
        assert_has_the_tensors(&file, 0.0);
        assert_eq!(file.found().unwrap().to_string(), said);
    }
}

#[test]
fn a_modules_tensors_have_their_paths() {
    let weight: Vec<_> = (0_u8..18).map(f32::from).collect();
    for (name, prefix, said) in [
        ("module.pth", "", "the module that the file is"),
        ("module_stream.pth", "", "the module that the file is"),
        ("parallel.pth", "module.", "the module under `model`"),
    ] {
        let file = container(name);
        assert_eq!(file.found().unwrap().to_string(), said);
        let names = [
            "conv.weight",
            "norm.weight",
            "norm.bias",
            "norm.running_mean",
            "norm.running_var",
            "norm.num_batches_tracked",
        ];
        assert_eq!(file.names(), names.map(|name| format!("{prefix}{name}")));
        let name = format!("{prefix}conv.weight");
        assert_eq!(file.shape(&name), Some(&[2, 1, 3, 3][..]));
        assert_eq!(file.floats(&name).unwrap(), weight);
        let name = format!("{prefix}norm.running_var");
        assert_eq!(file.floats(&name).unwrap(), [1.0, 1.0]);
    }
}

#[test]
fn what_holds_no_weights_is_refused_with_the_reason() {
    for (name, said) in [
        (
            "three.pth",
            "holds no tensors by name (it is not a dictionary or a module)",
        ),
        (
            "sparse.pth",
            "its tensor `sparse` cannot be read: it is sparse or quantised",
        ),
        ("program.pt", "it is a TorchScript program"),
    ] {
        let error = refusal(golden("containers").join(name));
        assert!(error.contains(name) && error.contains(said), "{error}");
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("other");
    for (bytes, said) in [
        (
            &b"\x80\x02K\x05."[..],
            "it is a pickle, but not one of torch.save",
        ),
        (b"PK\x03\x04 and so on", "its zip cannot be read"),
        (b"\x80\x02\xff.", "0xff, is not an instruction"),
        (
            b"\x80\x02\x85.",
            "the instruction at byte 2 of its pickle has nothing to work on",
        ),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = refusal(&path);
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_file_that_was_cut_or_changed_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("cut.pth");
    for name in ["zip.pth", "stream.pth", "python2.pth"] {
        let whole = fs::read(golden("containers").join(name)).unwrap();
        for length in (8..whole.len()).step_by(7).chain([whole.len() - 1]) {
            fs::write(&path, &whole[..length]).unwrap();
            let error = refusal(&path);
            assert!(error.contains("copy or download it again"), "{error}");
        }
    }
    // Only the zip has checksums.
    let mut bytes = fs::read(golden("containers/zip.pth")).unwrap();
    let weight: Vec<_> = (0_u8..24)
        .flat_map(|index| (f32::from(index) / 8.0).to_le_bytes())
        .collect();
    let at = bytes.windows(weight.len()).position(|part| part == weight);
    bytes[at.unwrap() + 5] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = refusal(&path);
    assert!(
        error.contains("its zip cannot be read") || error.contains("checksum"),
        "{error}"
    );
}

/// A stream whose objects are this pickle.
fn stream(objects: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec();
    bytes.extend(b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x02");
    bytes.extend(objects);
    bytes.extend(b"\x80\x02].");
    bytes
}

#[test]
fn a_pickle_that_repeats_itself_takes_little_memory_and_no_time() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bomb.pth");
    // Dictionaries in dictionaries, each of which has the one before twice: 2^60 paths.
    let mut nested = b"}q\x00".to_vec();
    for depth in 0..60_u8 {
        let [before, own] = [depth, depth + 1];
        nested.extend([b'}', b'q', own, b'(']);
        nested.extend([
            b'U', 1, b'a', b'h', before, b'U', 1, b'b', b'h', before, b'u',
        ]);
    }
    nested.push(b'.');
    // Modules in modules, the same.
    let mut modules = b"ctorch\nM\nq\x80)R}U\x08_modules}sbq\x00".to_vec();
    for depth in 0..60_u8 {
        let [before, own] = [depth, depth + 1];
        modules.extend(b"h\x80)R}U\x08_modules}(");
        modules.extend([b'U', 1, b'a', b'h', before, b'U', 1, b'b', b'h', before]);
        modules.extend([b'u', b's', b'b', b'q', own]);
    }
    modules.push(b'.');
    // One that contains itself.
    let own = b"}q\x00U\x01ah\x00s.".to_vec();
    // A long name of a class, again and again.
    let mut name = b"X\x00\x00\x10\x00".to_vec();
    name.extend(vec![b'a'; 1 << 20]);
    name.extend(b"q\x00");
    name.extend(b"h\x00h\x00\x930".repeat(100_000));
    name.push(b'.');
    // A long list, made into a dictionary again and again.
    let mut list = b"]q\x00(".to_vec();
    list.extend(b"NN\x86".repeat(100_000));
    list.extend(b"eccollections\nOrderedDict\nq\x01");
    list.extend(b"h\x01h\x00\x85R0".repeat(100_000));
    list.push(b'.');
    // Deep nesting.
    let mut deep = vec![b'('; 3 << 20];
    deep.extend(vec![b't'; 3 << 20]);
    deep.push(b'.');
    let mut lists = vec![b']'; 1 << 20];
    lists.extend(vec![b'a'; (1 << 20) - 1]);
    lists.push(b'.');
    for (objects, said) in [
        (nested, "holds no tensors"),
        (modules, "too many names"),
        (own, "holds no tensors"),
        (name, "is malformed"),
        (list, "makes more than"),
        (deep, "makes more than"),
        (lists, "holds no tensors"),
    ] {
        fs::write(&path, stream(&objects)).unwrap();
        let error = refusal(&path);
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn counts_and_sizes_that_no_file_has_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large.pth");
    for (objects, said) in [
        // A text of 4 GB, and one of 2^63 bytes.
        (&b"X\xff\xff\xff\xff."[..], "ends in the middle"),
        (
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
            "ends in the middle",
        ),
        // A memo that was never filled.
        (b"j\xff\xff\xff\xff.", "is malformed"),
    ] {
        fs::write(&path, stream(objects)).unwrap();
        let error = refusal(&path);
        assert!(error.contains(said), "{error}");
    }
    // A storage with more elements than the file has, and with fewer than none.
    let whole = fs::read(golden("containers/stream.pth")).unwrap();
    let count = 24_u64.to_le_bytes();
    let at = whole.windows(8).position(|part| part == count).unwrap();
    for count in [25, 1 << 40, u64::MAX / 4 + 6, u64::MAX] {
        let mut bytes = whole.clone();
        bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let error = refusal(&path);
        assert!(error.contains("copy or download it again"), "{error}");
    }
}

#[test]
fn a_zip_that_unpacks_to_far_more_than_it_has_is_refused() {
    use std::io::Write;
    use zip::write::{SimpleFileOptions, ZipWriter};

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bomb.pth");
    let mut zip = ZipWriter::new(fs::File::create(&path).unwrap());
    zip.start_file("a/data.pkl", SimpleFileOptions::default())
        .unwrap();
    let zeros = vec![b'N'; 1 << 20];
    for _ in 0..80 {
        zip.write_all(&zeros).unwrap();
    }
    zip.finish().unwrap();
    let error = refusal(&path);
    assert!(error.contains("unpacks to far more bytes"), "{error}");
}
