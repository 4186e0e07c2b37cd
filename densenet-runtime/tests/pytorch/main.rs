//! PyTorch files are read correctly, and so are networks of all libraries under their names.
//! `scripts/golden_weights.py` made the files.

mod containers;
mod networks;
mod written;

use std::fs;
use std::path::{Path, PathBuf};

use densenet_runtime::Pixels;
use densenet_runtime::cpu::{Frozen, FrozenOptions};
use densenet_runtime::plan::{BlockSpec, Plan, Ratio, Spec, StemKind};
use densenet_runtime::weights::{LoadOptions, LoadReport, State, TensorFile, plan_of};

fn golden(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch");
    root.join(name)
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

fn load(plan: &Plan, file: &TensorFile) -> (State, LoadReport) {
    State::load(plan, file, &LoadOptions::default()).unwrap()
}

/// A network's output for one image.
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
