//! Files of PyTorch are read as what they hold, and networks of all libraries under their names.
//! `scripts/golden_weights.py` made them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use densenet_runtime::cpu::{Frozen, FrozenOptions};
use densenet_runtime::plan::{BlockSpec, Plan, Ratio, Spec, StemKind};
use densenet_runtime::weights::{
    LoadOptions, NamedTensor, Notes, Report, State, TensorFile, Unexpected, WeightsError, convert,
    plan_of,
};
use densenet_runtime::{Normalization, Pixels};
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch");
    root.join(name)
}

fn container(name: &str) -> TensorFile {
    TensorFile::read(golden("containers").join(name)).unwrap()
}

fn refusal(path: impl AsRef<Path>) -> String {
    let error = TensorFile::read(path).unwrap_err();
    assert!(matches!(error, WeightsError::Torch { .. }), "{error}");
    error.to_string()
}

/// The tensors that most of the files have, with something added to each number.
fn assert_has_the_tensors(file: &TensorFile, added: f32) {
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

/// The plan of the golden networks, with other channels and classes.
fn plan(channels: usize, classes: usize) -> Plan {
    let block = |layers| BlockSpec { layers, growth: 4 };
    let spec = Spec {
        blocks: vec![block(2), block(1)],
        theta: Ratio::new(1, 2),
        bottleneck: Some(2),
        stem: StemKind::ImageNet,
        init: 8,
        input: [channels, 32, 32],
        classes,
        dropout: 0.0,
    };
    spec.plan().unwrap()
}

fn network(name: &str) -> TensorFile {
    TensorFile::read(golden("networks").join(format!("{name}.pth"))).unwrap()
}

fn load(plan: &Plan, file: &TensorFile) -> (State, Report) {
    State::load(plan, file, &LoadOptions::default()).unwrap()
}

/// What a network makes of one image.
fn logits(plan: &Plan, state: &State) -> Vec<f32> {
    let channels = plan.stem().channels;
    let pixel = |index: usize| (index * 37 % 101) as f32 / 50.0 - 1.0;
    let image: Vec<_> = (0..channels * 32 * 32).map(pixel).collect();
    let options = FrozenOptions::for_batch(1);
    let mut frozen = Frozen::new(plan, &state.parameters, &state.running, options).unwrap();
    frozen.infer(Pixels::Nchw(&image), 1).unwrap().to_vec()
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-4,
            "{what}: {found} {expected}"
        );
    }
}

#[test]
fn each_librarys_network_is_told_by_its_shapes_and_has_the_librarys_outputs() {
    let text = fs::read_to_string(golden("logits.json")).unwrap();
    let expected: BTreeMap<String, Vec<f32>> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 6);
    for (name, expected) in &expected {
        let file = network(name);
        let told = plan_of(&file, Some([32, 32])).unwrap();
        let channels = if name == "torchxrayvision" { 1 } else { 3 };
        assert_eq!(told, plan(channels, 3), "{name}");
        let (state, report) = load(&told, &file);
        assert_eq!(report.used.len(), told.parameters().len(), "{name}");
        assert!(report.missing.is_empty(), "{report}");
        assert_close(&logits(&told, &state), expected, name);
        // Refusing what is left over, it is the same.
        let strict = State::from_file(&told, &file, Unexpected::Refuse).unwrap();
        assert!(strict == state, "{name}");
    }
}

#[test]
fn a_report_says_what_was_used_and_what_was_left() {
    let said = |name: &str| {
        let file = network(name);
        let channels = if name.starts_with("torchx") { 1 } else { 3 };
        let report = load(&plan(channels, 3), &file).1.to_string();
        let (_, said) = report.split_once(".pth: ").unwrap();
        said.to_string()
    };
    assert_eq!(
        said("torchvision"),
        "the state dict that the file is; 46 tensors used"
    );
    assert_eq!(
        said("chexnet"),
        "the state dict under `state_dict`; 46 tensors used (their names start with \
         `module.densenet121.`)"
    );
    assert_eq!(
        said("torchxrayvision"),
        "the state dict that the file is; 46 tensors used; left over (1): op_threshs"
    );
    assert_eq!(
        said("torchxrayvision_module"),
        "the module that the file is; 46 tensors used; left over (1): op_threshs"
    );
}

#[test]
fn a_stem_for_colour_becomes_one_for_grey_and_back_and_it_is_said() {
    let file = network("torchvision");
    let (rgb, _) = load(&plan(3, 3), &file);
    let (grey, report) = load(&plan(1, 3), &file);
    assert_eq!(report.stem, Some([3, 1]));
    let said = report.to_string();
    assert!(
        said.ends_with("; the stem's 3 channels were summed into one"),
        "{said}"
    );
    // On a grey picture it is the network for colour with three equal channels.
    let image: Vec<f32> = (0..32 * 32)
        .map(|index| (index * 37 % 101) as f32 / 50.0 - 1.0)
        .collect();
    let infer = |plan: &Plan, state: &State, image: &[f32]| {
        let options = FrozenOptions::for_batch(1);
        let mut frozen = Frozen::new(plan, &state.parameters, &state.running, options).unwrap();
        frozen.infer(Pixels::Nchw(image), 1).unwrap().to_vec()
    };
    let expected = infer(&plan(3, 3), &rgb, &image.repeat(3));
    assert_close(&infer(&plan(1, 3), &grey, &image), &expected, "grey");

    let file = network("torchxrayvision");
    let (grey, _) = load(&plan(1, 3), &file);
    let (rgb, report) = load(&plan(3, 3), &file);
    let said = report.to_string();
    assert!(
        said.contains("; the stem's channel was divided among 3"),
        "{said}"
    );
    let expected = infer(&plan(1, 3), &grey, &image);
    assert_close(
        &infer(&plan(3, 3), &rgb, &image.repeat(3)),
        &expected,
        "colour",
    );

    // Not where nobody is told, nor for other channels.
    let error = State::from_file(&plan(1, 3), &network("torchvision"), Unexpected::Ignore);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("found [8, 3, 7, 7], expected [8, 1, 7, 7]")
    );
    let error = State::load(
        &plan(4, 3),
        &network("torchvision"),
        &LoadOptions::default(),
    );
    assert!(matches!(error, Err(WeightsError::Misfit { .. })));
}

#[test]
fn other_classes_are_refused_with_advice_and_the_features_alone_are_taken() {
    let file = network("chexnet");
    let plan = plan(3, 5);
    let error = State::load(&plan, &file, &LoadOptions::default()).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("module.densenet121.classifier.0.weight (found [3, 12], expected [5, 12])"),
        "{said}"
    );
    assert!(
        said.contains("load the features only (`features_only`, `--features-only`)"),
        "{said}"
    );

    let options = LoadOptions {
        features_only: true,
        seed: 3,
        ..LoadOptions::default()
    };
    let (state, report) = State::load(&plan, &file, &options).unwrap();
    assert_eq!(report.used.len(), 44);
    let said = report.to_string();
    assert!(
        said.ends_with(
            "; missing, so that they start anew (2): classifier.weight, classifier.bias; \
             left over (2): module.densenet121.classifier.0.bias, \
             module.densenet121.classifier.0.weight"
        ),
        "{said}"
    );
    let head = plan.tensors().head.weight.start;
    let initial = State::initial(&plan, 3);
    assert_eq!(state.parameters[head..], initial.parameters[head..]);
    let (whole, _) = load(&self::plan(3, 3), &file);
    assert_eq!(state.parameters[..head], whole.parameters[..head]);
    assert_eq!(state.running, whole.running);
}

#[test]
fn a_missing_tensor_is_an_error_even_where_only_features_are_wanted() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("part.pth");
    let file = network("torchvision");
    let tensors: Vec<_> = file
        .names()
        .into_iter()
        .filter(|name| !name.starts_with("classifier") && !name.ends_with("transition1.norm.bias"))
        .filter_map(|name| Some((file.shape(&name)?.to_vec(), file.floats(&name).ok()?, name)))
        .collect();
    let named = tensors
        .iter()
        .map(|(shape, values, name)| NamedTensor::new(name, shape.as_slice(), values));
    TensorFile::write_torch(&path, named, BTreeMap::new()).unwrap();
    let options = LoadOptions {
        features_only: true,
        ..LoadOptions::default()
    };
    let file = TensorFile::read(&path).unwrap();
    let error = State::load(&plan(3, 3), &file, &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("missing (1): features.transition1.norm.bias"),
        "{error}"
    );
    let error = State::load(&plan(3, 3), &file, &LoadOptions::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("missing (3): "), "{error}");
    assert!(!error.contains("only the classifier differs"), "{error}");
}

#[test]
fn what_is_not_a_densenet_is_not_told_by_its_shapes() {
    let error = plan_of(&container("zip.pth"), None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`features.conv0.weight` is missing"),
        "{error}"
    );
    let error = plan_of(&network("torchvision"), Some([4, 4])).unwrap_err();
    assert!(matches!(error, WeightsError::NoNetwork { .. }), "{error}");
    // Of the usual size where none is given.
    let told = plan_of(&network("torchvision"), None).unwrap();
    assert_eq!((told.stem().height, told.stem().width), (224, 224));
}

/// `scripts/golden_weights.py check` shows that PyTorch takes the golden file.
#[test]
fn a_written_file_is_the_one_that_pytorch_took() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("written.pth");
    let weight: Vec<_> = (0_u8..24).map(|index| f32::from(index) / 8.0).collect();
    let tensors = [
        NamedTensor::new("a.weight", [2, 3, 4], &weight),
        NamedTensor::new("a.bias", [2], &[-1.5, 0.25]),
        NamedTensor::new("scalar", [], &[2.5]),
        NamedTensor::new("empty", [0, 3], &[]),
    ];
    let notes = BTreeMap::from([("densenet.classes".into(), r#"["cat","dög"]"#.into())]);
    TensorFile::write_torch(&path, tensors, notes).unwrap();
    let file = TensorFile::read(&path).unwrap();
    assert_has_the_tensors(&file, 0.0);
    assert_eq!(file.classes().unwrap(), ["cat", "dög"]);
    let bytes = fs::read(&path).unwrap();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("written.pth");
    if fs::read(golden("written.pth")).ok() != Some(bytes.clone()) {
        fs::write(&kept, bytes).unwrap();
        panic!(
            "the file differs from tests/pytorch/written.pth; copy {} there, and run `python \
             scripts/golden_weights.py check`",
            kept.display()
        );
    }
}

fn notes() -> Notes {
    Notes {
        classes: ["cat", "dog", "hen"].map(String::from).to_vec(),
        normalization: Some(Normalization {
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }),
        thresholds: vec![Some(0.5), None, Some(0.875)],
    }
}

#[test]
fn a_converted_file_is_the_same_network_with_the_same_notes() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("own.safetensors");
    let file = network("monai");
    let plan = plan(3, 3);
    let (state, _) = load(&plan, &file);
    state.write_with(&plan, &own, &notes()).unwrap();
    let mut from = own;
    for name in ["1.pth", "2.safetensors", "3.bin", "4.pt"] {
        let to = folder.path().join(name);
        let report = convert(&from, &to).unwrap();
        assert!(report.left_over.is_empty(), "{report}");
        let file = TensorFile::read(&to).unwrap();
        assert_eq!(file.found().is_some(), name != "2.safetensors");
        assert_eq!(Notes::of(&file).unwrap(), notes(), "{name}");
        assert!(State::read(&plan, &to).unwrap() == state, "{name}");
        let names: Vec<_> = plan
            .parameters()
            .into_iter()
            .map(|own| own.torchvision)
            .collect();
        let found = file.names();
        assert!(names.iter().all(|name| found.contains(name)));
        from = to;
    }
    let error = convert(&from, folder.path().join("5.onnx"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("5.onnx") && error.contains(".safetensors"),
        "{error}"
    );
}

#[test]
fn networks_of_all_libraries_are_written_under_torchvisions_names() {
    // Kept, so that `scripts/golden_weights.py check` can hand them to torchvision.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("converted");
    fs::create_dir_all(&folder).unwrap();
    for name in [
        "torchvision",
        "torchvision_2017",
        "timm",
        "monai",
        "chexnet",
        "torchxrayvision",
    ] {
        let to = folder.join(format!("{name}.pth"));
        convert(golden("networks").join(format!("{name}.pth")), &to).unwrap();
        let plan = plan(if name == "torchxrayvision" { 1 } else { 3 }, 3);
        let written = TensorFile::read(&to).unwrap();
        let names: Vec<_> = plan
            .parameters()
            .into_iter()
            .map(|own| own.torchvision)
            .collect();
        assert_eq!(written.names(), names, "{name}");
        let (state, _) = load(&plan, &network(name));
        assert!(State::read(&plan, &to).unwrap() == state, "{name}");
    }
}

#[test]
fn notes_that_make_no_sense_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("noted.safetensors");
    for (note, value, said) in [
        (
            "densenet.normalization",
            r#"{"mean":[0.5],"std":[]}"#,
            "1 means and 0 standard",
        ),
        (
            "densenet.normalization",
            r#"{"mean":[0.5],"std":[0.0]}"#,
            "0 is not a standard",
        ),
        (
            "densenet.normalization",
            r#"{"mean":[0.5]}"#,
            "missing field `std`",
        ),
        (
            "densenet.thresholds",
            "[0.5, 1.5]",
            "1.5 is not a probability",
        ),
        ("densenet.thresholds", r#"[0.5, "b"]"#, "invalid type"),
        ("densenet.thresholds", "[0.5]", "1 numbers for 2 classes"),
        ("densenet.classes", "{}", "invalid type"),
    ] {
        let mut lines = BTreeMap::from([("densenet.classes".into(), r#"["a","b"]"#.into())]);
        lines.insert(note.to_string(), value.to_string());
        TensorFile::write(&path, [NamedTensor::new("a", [1], &[0.0])], lines).unwrap();
        let error = Notes::of(&TensorFile::read(&path).unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains(note) && error.contains(said), "{error}");
    }
}

/// Files that a tester has: `WEIGHTS` names their folder.
#[test]
fn real_files_are_read_where_there_are_any() {
    let Some(folder) = std::env::var_os("WEIGHTS") else {
        println!("skipped: WEIGHTS names no folder");
        return;
    };
    let mut read = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        if !["pth", "pt", "bin", "tar", "safetensors"].contains(&&*extension) {
            continue;
        }
        let file = TensorFile::read(&path).unwrap();
        let told = plan_of(&file, None).unwrap();
        let (state, report) = load(&told, &file);
        println!("{report}");
        assert!(state.parameters.iter().any(|&value| value != 0.0));
        read += 1;
    }
    assert!(read > 0, "WEIGHTS names a folder without files of weights");
}
