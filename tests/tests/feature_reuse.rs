//! The figure of feature reuse (paper, Fig. 5) shows the weights that it should.

use densenet_runtime::figures::FeatureReuse;
use densenet_runtime::plan::{Parameter, Plan, Role};
use densenet_runtime::weights::State;
use densenet_runtime::{Network, densenet};

densenet! {
    /// Its layers read by 1x1 convolutions.
    Bottlenecks { blocks: [3, 1, 2], k: 2, theta: 0.5, bottleneck, input: [3, 16, 16], classes: 5 }
}

densenet! {
    /// Its layers read by 3x3 convolutions.
    Plain { blocks: [2, 3], k: 3, stem: imagenet, init: 5, input: [1, 32, 32], classes: 4 }
}

/// The block whose maps a tensor reads, counted from 0, and which reader of it this is, from 1.
fn reader(plan: &Plan, field: &str) -> Option<(usize, usize)> {
    let number = |text: &str| text.parse::<usize>().unwrap();
    if field == "classifier.weight" {
        let last = plan.blocks().len() - 1;
        return Some((last, plan.blocks()[last].layers + 1));
    }
    let (stage, rest) = field.split_once('.').unwrap();
    if let Some(index) = stage.strip_prefix("transition") {
        let block = number(index) - 1;
        return Some((block, plan.blocks()[block].layers + 1));
    }
    let block = number(stage.strip_prefix("block")?) - 1;
    let (layer, rest) = rest.split_once('.').unwrap();
    let reads = rest == "conv.weight" || rest == "conv1.weight";
    reads.then(|| (block, number(layer.strip_prefix("layer").unwrap())))
}

/// The absolute weights of a reader of a source.
fn value(block: usize, source: usize, target: usize) -> f32 {
    (1 + 100 * block + 10 * target + source) as f32
}

/// A state whose weights say what they read.
fn state(plan: &Plan) -> State {
    let mut state = State {
        parameters: vec![1e6; plan.parameter_count()],
        running: vec![1e6; plan.running_count()],
    };
    let is_weight = |p: &Parameter| matches!(p.role, Role::ConvWeight | Role::LinearWeight);
    for parameter in plan.parameters().into_iter().filter(is_weight) {
        let Some((block, target)) = reader(plan, &parameter.field) else {
            continue;
        };
        let stage = &plan.blocks()[block];
        let kernel: usize = parameter.shape[2..].iter().product();
        let values = &mut state.parameters[parameter.range()];
        for (at, weight) in values.iter_mut().enumerate() {
            let map = at / kernel % parameter.shape[1];
            let source = match map.checked_sub(stage.input) {
                None => 0,
                Some(own) => 1 + own / stage.growth,
            };
            let sign = if at % 3 == 0 { -1.0 } else { 1.0 };
            *weight = sign * value(block, source, target);
        }
    }
    state
}

fn check<N: Network>() {
    let reuse = FeatureReuse::of(&N::PLAN, &state(&N::PLAN)).unwrap();
    assert_eq!(reuse.blocks().len(), N::PLAN.blocks().len());
    for (index, (block, plan)) in reuse
        .blocks()
        .iter()
        .zip(N::PLAN.blocks().iter())
        .enumerate()
    {
        assert_eq!(block.layers(), plan.layers);
        let last = plan.layers + 1;
        for target in 0..last + 2 {
            for source in 0..last + 2 {
                let reads = source < target && target <= last;
                let expected = reads.then(|| f64::from(value(index, source, target)));
                assert_eq!(block.mean(source, target), expected, "{source} -> {target}");
            }
        }
        assert_eq!(block.largest(), f64::from(value(index, last - 1, last)));
    }
}

#[test]
fn means_are_those_of_the_layer_read_and_the_layer_that_reads() {
    check::<Bottlenecks>();
    check::<Plain>();
}

#[test]
fn the_picture_has_a_colour_for_each_mean() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reuse.png");
    let reuse = FeatureReuse::of(&Bottlenecks::PLAN, &state(&Bottlenecks::PLAN)).unwrap();
    reuse.draw(&path, "Bottlenecks").unwrap();
    let picture = densenet_runtime::data::read(&path).unwrap();
    let colours: std::collections::BTreeSet<_> = picture.pixels.chunks_exact(3).collect();
    // Of its cells alone there are 10 + 3 + 6, each with another mean.
    assert!(
        colours.len() > 19 && picture.width > 1000,
        "{}",
        colours.len()
    );

    let error = reuse
        .draw(folder.path().join("no/reuse.png"), "")
        .unwrap_err();
    let message = error.to_string();
    assert!(
        message.starts_with("cannot draw ") && message.contains("no/reuse.png"),
        "{message}"
    );
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for value in [f32::NAN, f32::INFINITY] {
        let mut state = state(&Plain::PLAN);
        let first = &Plain::PLAN.tensors().blocks[0][0];
        state.parameters[first.conv.weight.start] = value;
        let reuse = FeatureReuse::of(&Plain::PLAN, &state).unwrap();
        let error = reuse.draw(folder.path().join("reuse.png"), "").unwrap_err();
        assert!(error.to_string().contains("not a finite number"), "{error}");
    }
}

#[test]
fn a_state_of_another_network_is_refused() {
    let error = FeatureReuse::of(&Plain::PLAN, &state(&Bottlenecks::PLAN)).unwrap_err();
    assert!(
        error.to_string().contains("it belongs to another network"),
        "{error}"
    );
}
