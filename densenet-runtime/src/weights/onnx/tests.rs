//! The size of files, and networks that no file can hold.

use std::path::Path;

use densenet_plan::{BlockSpec, Plan, Ratio, Spec, StemKind};

use super::{ExportOptions, encode};
use crate::weights::{State, WeightsError};

fn plan(blocks: &[usize], init: usize, classes: usize) -> Plan {
    let blocks = blocks.iter();
    let spec = Spec {
        blocks: blocks
            .map(|&layers| BlockSpec { layers, growth: 32 })
            .collect(),
        theta: Ratio::new(1, 2),
        bottleneck: Some(4),
        stem: StemKind::ImageNet,
        init,
        input: [3, 224, 224],
        classes,
        dropout: 0.0,
    };
    spec.plan().unwrap()
}

fn bytes(plan: &Plan, state: &State, options: &ExportOptions) -> Result<Vec<u8>, WeightsError> {
    encode(plan, state, Path::new("a.onnx"), options)
}

#[test]
fn the_file_of_densenet201_is_at_most_a_hundredth_larger_than_its_weights() {
    let densenet201 = plan(&[6, 12, 48, 32], 64, 1000);
    assert_eq!(densenet201.parameter_count(), 20_013_928);
    let numbers = densenet201.parameter_count() + densenet201.running_count();
    let state = State::zeros(&densenet201);
    for (fold, f16) in [(false, false), (true, false), (false, true)] {
        let options = ExportOptions {
            fold,
            f16,
            ..ExportOptions::default()
        };
        let found = bytes(&densenet201, &state, &options).unwrap().len();
        let weights = numbers * if f16 { 2 } else { 4 };
        assert!(found <= weights + weights / 100, "{options:?}: {found}");
        // Folded, less than the BN of each layer goes away.
        assert!(found > weights - weights / 100, "{options:?}: {found}");
    }
}

#[test]
fn what_is_too_large_for_the_format_is_refused_before_it_is_made() {
    // 2.4 GB in f32, 1.2 GB in f16.
    let large = plan(&[1], 60_000, 10_000);
    let error = bytes(&large, &State::default(), &ExportOptions::default()).unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with("cannot write a.onnx: it would have 24") && said.contains("2 GiB"),
        "{said}"
    );
    let halves = ExportOptions {
        f16: true,
        ..ExportOptions::default()
    };
    let error = bytes(&large, &State::default(), &halves).unwrap_err();
    assert!(matches!(error, WeightsError::Length { .. }), "{error}");
}

#[test]
fn a_number_that_f16_does_not_have_is_refused_by_its_name() {
    let small = plan(&[1, 1], 4, 2);
    let mut state = State::zeros(&small);
    let variance = small.tensors().blocks[1][0].norm1.variance.start;
    state.running[variance] = 70_000.0;
    let write = |f16| {
        let options = ExportOptions {
            f16,
            ..ExportOptions::default()
        };
        bytes(&small, &state, &options)
    };
    write(false).unwrap();
    assert_eq!(
        write(true).unwrap_err().to_string(),
        "cannot write a.onnx: `features.denseblock2.denselayer1.norm1.running_var` holds 70000, \
            and the largest f16 is 65504; write it in f32"
    );
}
