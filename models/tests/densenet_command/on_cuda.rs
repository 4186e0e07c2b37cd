//! `densenet predict` and `evaluate` on a CUDA device, which is emulated: all that they say, draw and
//! write is what it is on the CPU.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use densenet_runtime::data::{self, Rgb};
use densenet_runtime::weights::{State, TensorFile};
use roxmltree::{Document, ParsingOptions};
use serde_json::Value;
use tempfile::TempDir;

use crate::{EMULATED, densenet, numbers, support, with_pictures};

const DEVICES: [&str; 2] = ["cpu", "cuda"];

/// Pictures, weights, and a CUDA device for programs.
struct Place {
    folder: TempDir,
    emulator: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = with_pictures();
        let plan = densenet_spec::ParsedSpec::parse(EMULATED).unwrap().plan;
        let weights = folder.path().join("weights.safetensors");
        State::initial(&plan, 3).write(&plan, weights).unwrap();
        let emulator = cuda_emulator::build(&cuda_emulator::folder());
        let emulator = emulator.unwrap_or_else(|error| panic!("{error}"));
        // The kernels that other tests of this network have compiled.
        let kernels = cuda_emulator::folder().join("kernels");
        fs::create_dir_all(&kernels).unwrap();
        std::os::unix::fs::symlink(kernels, folder.path().join("densenet")).unwrap();
        Self { folder, emulator }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What a command says on a device.
    fn said(&self, command: &str, device: &str, more: &[&str]) -> String {
        let model = ["--weights", "weights.safetensors", "--spec", EMULATED];
        let how = ["--batch-size", "8", "--device", device];
        let mut command = densenet(self.path(), &[&[command][..], &model, &how, more].concat());
        command.env("LD_LIBRARY_PATH", &self.emulator);
        command.env("XDG_CACHE_HOME", self.path());
        let [said, _] = support::said(command.output().unwrap());
        said
    }
}

/// Fails where two numbers differ by more than 1e-4 of the largest.
fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(!found.is_empty(), "{what}");
    let largest = expected
        .iter()
        .fold(0.0, |most: f64, one| most.max(one.abs()));
    for (one, other) in found.iter().zip(expected) {
        assert!(
            (one - other).abs() <= 1e-4 * largest,
            "{what}: {one}, not {other}"
        );
    }
}

/// Fails unless pictures are alike except for the rounding of bytes.
fn assert_alike(found: &Rgb, expected: &Rgb, what: &str) {
    let size = |picture: &Rgb| (picture.height, picture.width);
    assert_eq!(size(found), size(expected), "{what}");
    let pairs = found.pixels.iter().zip(&expected.pixels);
    let off = pairs.map(|(&one, &other)| usize::from(one.abs_diff(other)));
    let mean = off.clone().sum::<usize>() as f64 / found.pixels.len() as f64;
    assert!(mean < 0.05, "{what}: bytes differ by {mean} in the mean");
    assert!(off.max() < Some(24), "{what}");
}

#[test]
fn predictions_maps_and_features_are_those_of_the_cpu() {
    let place = Place::new();
    let [cpu, cuda] = DEVICES.map(|device| {
        let [maps, features] = [format!("{device}_maps"), format!("{device}.safetensors")];
        // Of all pictures the same classes, however near to each other the likeliest are.
        let files = ["--maps", &maps, "--maps-of", "class 1,class 7"];
        let files = [&files[..], &["--features", &features]].concat();
        let asked = ["--format", "csv", "data/val"];
        let said = place.said("predict", device, &[&files[..], &asked].concat());
        let features = TensorFile::read(place.path().join(features)).unwrap();
        let features = features.floats("features").unwrap();
        (numbers(&said, 10).concat(), features, maps)
    });
    assert_eq!(cuda.0.len(), 20 * 10);
    assert_close(&cuda.0, &cpu.0, "probabilities");
    let wide = |own: Vec<f32>| own.into_iter().map(f64::from).collect::<Vec<_>>();
    assert_close(&wide(cuda.1), &wide(cpu.1), "features");
    let mut drawn = 0;
    for entry in fs::read_dir(place.path().join(&cpu.2)).unwrap() {
        let expected = entry.unwrap().path();
        let name = expected.file_name().unwrap();
        let found = place.path().join(&cuda.2).join(name);
        let [found, expected] = [found, expected.clone()].map(|file| data::read(file).unwrap());
        assert_alike(&found, &expected, &name.to_string_lossy());
        drawn += 1;
    }
    assert_eq!(drawn, 20);
}

/// Fails where values of JSON differ by more than 1e-4.
fn assert_same(found: &Value, expected: &Value, path: &str) {
    match (found, expected) {
        (Value::Number(one), Value::Number(other)) => {
            let [one, other] = [one, other].map(|number| number.as_f64().unwrap());
            assert!((one - other).abs() < 1e-4, "{path}: {one}, not {other}");
        }
        (Value::Array(one), Value::Array(other)) => {
            assert_eq!(one.len(), other.len(), "{path}");
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                assert_same(one, other, &format!("{path}/{index}"));
            }
        }
        (Value::Object(one), Value::Object(other)) => {
            assert!(one.keys().eq(other.keys()), "{path}");
            for (key, value) in one {
                assert_same(value, &other[key], &format!("{path}/{key}"));
            }
        }
        (one, other) => assert_eq!(one, other, "{path}"),
    }
}

/// The paths of a page's gallery, and its pictures.
fn gallery(page: &str) -> (Vec<String>, Vec<Rgb>) {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    let page = Document::parse_with_options(page, options).unwrap();
    let all = |tag: &str| -> Vec<_> {
        let of_tag = page.descendants().filter(|node| node.has_tag_name(tag));
        of_tag.collect()
    };
    let captions = all("figcaption").into_iter().filter_map(|caption| {
        let code = caption.children().find(|node| node.has_tag_name("code"))?;
        code.text().map(str::to_string)
    });
    let pictures = all("img").into_iter().map(|image| {
        let source = image.attribute("src").unwrap();
        let bytes = source.strip_prefix("data:image/jpeg;base64,").unwrap();
        data::decode(&STANDARD.decode(bytes).unwrap()).unwrap()
    });
    (captions.collect(), pictures.collect())
}

#[test]
fn an_evaluation_and_its_report_are_those_of_the_cpu() {
    let place = Place::new();
    let [cpu, cuda] = DEVICES.map(|device| {
        let [json, report] = [format!("{device}.json"), format!("{device}_report")];
        let asked = ["--data", "data", "--json", &json, "--report", &report];
        place.said("evaluate", device, &asked);
        let scores = fs::read(place.path().join(json)).unwrap();
        let page = fs::read_to_string(place.path().join(report).join("index.html")).unwrap();
        let scores: Value = serde_json::from_slice(&scores).unwrap();
        (scores, gallery(&page))
    });
    assert_same(&cuda.0, &cpu.0, "");
    let ((found, images), (paths, expected)) = (cuda.1, cpu.1);
    // Twelve mistakes and twelve uncertain answers, with a map of each of two classes.
    assert_eq!((paths.len(), expected.len()), (24, 3 * 24));
    assert_eq!(found, paths);
    for (number, (found, expected)) in images.iter().zip(&expected).enumerate() {
        assert_alike(found, expected, &format!("{} {number}", paths[number / 3]));
    }
}
