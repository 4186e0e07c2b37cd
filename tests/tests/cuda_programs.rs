//! The number of programs that are compiled for a plan: one for each shape, not for each layer. Needs no CUDA.

use std::collections::BTreeMap;

use densenet_models::DenseNet201;
use densenet_runtime::cuda::programs;
use densenet_runtime::plan::Plan;
use densenet_runtime::plan::Precision;
use densenet_runtime::{Network, densenet};

densenet! {
    /// Both blocks take 16 maps and give 32.
    Twins {
        blocks: [2, 2],
        k: 8,
        theta: 0.5,
        bottleneck,
        stem: cifar,
        init: 16,
        input: [3, 8, 8],
        classes: 4,
    }
}

/// Programs of each family, after a look at whether any two are the same.
fn counts(plan: &Plan, precision: Precision) -> BTreeMap<&'static str, usize> {
    let programs = programs(plan, precision).unwrap();
    let mut counts = BTreeMap::new();
    for (number, program) in programs.iter().enumerate() {
        let same = |other: &&densenet_runtime::cuda::Program| {
            (&other.source, &other.constants) == (&program.source, &program.constants)
        };
        if let Some(other) = programs[..number].iter().find(same) {
            panic!(
                "{} and {} are one program: {:?}",
                other.family, program.family, program.constants
            );
        }
        *counts.entry(program.family).or_insert(0) += 1;
    }
    counts
}

/// The programs of every plan: stem, head, norm, the start and end of a step, weights as operands.
const ALWAYS: [(&str, usize); 5] = [
    ("head", 1),
    ("norm", 1),
    ("stem", 1),
    ("step", 1),
    ("weights", 1),
];

#[test]
fn the_98_layers_of_densenet_201_need_16_programs() {
    let plan = DenseNet201::PLAN;
    let layers: usize = plan.blocks().iter().map(|block| block.layers).sum();
    assert_eq!(layers, 98);
    for precision in [Precision::F32, Precision::Bf16] {
        let found = counts(&plan, precision);
        let own = [("pointwise", 4), ("spatial", 4), ("transition", 3)];
        let expected: BTreeMap<_, _> = ALWAYS.into_iter().chain(own).collect();
        assert_eq!(found, expected, "{precision:?}");
        assert_eq!(found.values().sum::<usize>(), 16);
    }
}

#[test]
fn blocks_of_one_shape_share_a_program() {
    // Their 1x1 convolutions do not know the size of an image; the 3x3 do.
    for precision in [Precision::F32, Precision::Bf16] {
        let own = [("pointwise", 1), ("spatial", 2), ("transition", 1)];
        let expected: BTreeMap<_, _> = ALWAYS.into_iter().chain(own).collect();
        assert_eq!(counts(&Twins::PLAN, precision), expected, "{precision:?}");
    }
}
