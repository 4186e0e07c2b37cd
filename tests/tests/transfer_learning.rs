//! Parameters and running statistics move between networks whose layers are the same.

use densenet_runtime::dfdx::prelude::*;
use densenet_runtime::nn::Transplant;
use densenet_runtime::plan::Parameter;
use densenet_runtime::weights::State;
use densenet_runtime::{Network, densenet};
use densenet_tests::random;

densenet! {
    /// The pretrained network, with many classes.
    Pretrained {
        blocks: [2, 1, 1, 2], k: 4, theta: 0.5, bottleneck, input: [3, 32, 32], classes: 30
    }
}

densenet! {
    /// The network that continues from it: other classes, other images.
    Flowers {
        blocks: [2, 1, 1, 2], k: 4, theta: 0.5, bottleneck, input: [3, 48, 40], classes: 5,
        dropout: 0.2
    }
}

densenet! {
    /// The first block is the same, and what follows it is not.
    Longer {
        blocks: [2, 3, 1, 2], k: 4, theta: 0.5, bottleneck, input: [3, 32, 32], classes: 5
    }
}

/// A network with no number that a fresh one has.
fn pretrained() -> Pretrained {
    let mut network = Cpu::seed_from_u64(1).build_module::<Pretrained, f32>();
    let state = random::state(&Pretrained::PLAN, 2);
    state.store_into(&mut network).unwrap();
    network
}

/// The names of the tensors that are the same, bit for bit.
fn shared<A: Network, B: Network>(a: &A, b: &B) -> Vec<String> {
    let [ours, theirs] = [State::of(a), State::of(b)];
    let of_b = B::PLAN.parameters();
    let same = |parameter: &Parameter| {
        let other = of_b.iter().find(|p| p.torchvision == parameter.torchvision);
        other.is_some_and(|other| ours.of_parameter(parameter) == theirs.of_parameter(other))
    };
    let names = A::PLAN.parameters().into_iter().filter(same);
    names.map(|parameter| parameter.torchvision).collect()
}

#[test]
fn all_but_the_classifier_moves_to_a_network_of_other_classes() {
    let pretrained = pretrained();
    let mut flowers = Cpu::seed_from_u64(3).build_module::<Flowers, f32>();
    assert!(shared(&flowers, &pretrained).is_empty());
    let before = flowers.classifier.weight.array();

    flowers.transplant_features(&pretrained).unwrap();

    let mut all: Vec<_> = Flowers::PLAN.parameters();
    all.retain(|parameter| !parameter.torchvision.starts_with("classifier."));
    let all: Vec<_> = all.into_iter().map(|p| p.torchvision).collect();
    assert!(all.contains(&"features.norm5.running_var".to_string()));
    assert_eq!(shared(&flowers, &pretrained), all);
    assert_eq!(flowers.classifier.weight.array(), before);
}

#[test]
fn a_stage_and_a_layer_move_alone() {
    let pretrained = pretrained();
    let mut longer = Cpu::seed_from_u64(3).build_module::<Longer, f32>();
    longer.block1.transplant(&pretrained.block1).unwrap();
    let layer = &pretrained.block2.layer1;
    longer.block2.layer1.transplant(layer).unwrap();
    for name in shared(&longer, &pretrained) {
        assert!(
            name.starts_with("features.denseblock1.")
                || name.starts_with("features.denseblock2.denselayer1."),
            "{name}"
        );
    }
    // Of a bottleneck layer: two norms of four tensors, and two convolutions.
    assert_eq!(shared(&longer, &pretrained).len(), 3 * 10);
}

#[test]
fn a_transplanted_network_computes_what_the_donor_computes() {
    let pretrained = pretrained();
    let dev = Cpu::seed_from_u64(3);
    let mut longer = dev.build_module::<Longer, f32>();
    longer.stem.transplant(&pretrained.stem).unwrap();
    longer.block1.transplant(&pretrained.block1).unwrap();
    let images: Tensor<Rank4<2, 3, 32, 32>, f32, Cpu> = dev.sample_normal();
    let [ours, theirs] = [
        longer.block1.forward(longer.stem.forward(images.clone())),
        pretrained.block1.forward(pretrained.stem.forward(images)),
    ];
    assert_eq!(ours.array(), theirs.array());
}

#[test]
fn gradients_and_optimisers_go_on_knowing_the_tensors() {
    let mut flowers = Cpu::seed_from_u64(3).build_module::<Flowers, f32>();
    let gradients = flowers.alloc_grads();
    flowers.transplant_features(&pretrained()).unwrap();
    // It panics for a tensor that was not there when they were allocated.
    let gradient = gradients.get(&flowers.stem.conv.weight);
    assert_eq!(gradient.array(), [[[[0.0; 7]; 7]; 3]; 8]);
}
