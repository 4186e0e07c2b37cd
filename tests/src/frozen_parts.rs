//! Networks that are frozen in places, against PyTorch: the files that
//! `scripts/reference/frozen_parts.py` made, one for each network, each with several cases.

use densenet_runtime::plan::{Parameter, Plan};
use densenet_runtime::{AdamW, Arena, Batch, Descent, Executor, Group, Pixels, Sgd, Step};

use crate::compare::{Comparison, TOLERANCE};
use crate::executor::{load, logits, read};
use crate::golden::Golden;
use crate::networks::Case;

/// Calls a generic function with each case, in a test of its own: its network, its name in the golden
/// file, and the parts that are frozen.
#[macro_export]
macro_rules! each_frozen_case {
    ($check:ident) => {
        $crate::each_frozen_case!($check:
            a_layer_in_the_middle_of_a_block:
                Bc "layer" ["features.denseblock1.denselayer2"],
            a_block_in_the_middle: Bc "block" ["features.denseblock2"],
            a_transition: Bc "transition" ["features.transition1"],
            all_norms: Bc "norms" ["norms"],
            parts_of_a_bc_network: Bc "mixed" [
                "features.conv0",
                "features.denseblock1.denselayer2",
                "features.denseblock2.denselayer1.norm2",
                "features.transition2",
                "features.denseblock3.denselayer2.conv2",
            ],
            the_norm_of_the_stem: ImageNetBc "stem_norm" ["features.norm0"],
            parts_of_an_imagenet_network: ImageNetBc "mixed" [
                "features.conv0",
                "features.transition1",
                "features.denseblock3",
                "features.norm5",
            ],
            a_plain_layer: Plain "layer" ["features.denseblock2.denselayer1"],
            parts_of_a_plain_network: Plain "mixed" [
                "features.transition1.conv",
                "features.denseblock2",
                "classifier.weight",
            ],
            all_before_the_second_layer: OneBlock "first_layer" [
                "features.conv0",
                "features.denseblock1.denselayer1",
            ],
            a_norm_alone: OneBlock "norm" ["features.denseblock1.denselayer2.norm1"],
            a_norm_of_bottleneck_maps: OneBlock "narrow_norm" [
                "features.denseblock1.denselayer1.norm2",
            ],
            a_narrow_convolution_alone: OneBlock "narrow_conv" [
                "features.denseblock1.denselayer1.conv1",
            ],
            a_convolution_alone: OneBlock "conv" ["features.denseblock1.denselayer1.conv2"],
            the_last_norm: OneBlock "last_norm" ["features.norm5"],
            the_classifier: OneBlock "classifier" ["classifier"],
        );
    };
    ($check:ident: $($test:ident: $network:ident $case:literal [$($part:literal),* $(,)?],)*) => {
        $(
            #[test]
            fn $test() {
                $check::<$crate::networks::$network>($case, &[$($part),*]);
            }
        )*
    };
}

/// Whether a tensor belongs to one of some parts; "norms" are all BNs.
fn is_frozen(tensor: &Parameter, parts: &[&str]) -> bool {
    let name = &tensor.torchvision;
    parts.iter().any(|part| match name.strip_prefix(part) {
        Some(rest) => rest.is_empty() || rest.starts_with('.'),
        None => *part == "norms" && name.contains("norm"),
    })
}

/// Groups that freeze some parts, one for each tensor.
pub fn groups(plan: &Plan, parts: &[&str]) -> Vec<Group> {
    let mut tensors = plan.parameters();
    tensors.retain(|tensor| tensor.role.is_trainable());
    let groups = tensors.iter().map(|tensor| Group {
        range: tensor.range(),
        frozen: is_frozen(tensor, parts),
        ..Group::all(0)
    });
    groups.collect()
}

/// Compares the tensors of an arena that are not frozen with those of a case; those that are frozen
/// must have the bits of `before`.
fn compare_arena(
    compare: &mut Comparison,
    golden: &Golden,
    plan: &Plan,
    (kind, parts): (&str, &[&str]),
    is_trainable: bool,
    [found, before]: [&[f32]; 2],
) {
    for tensor in plan.parameters() {
        if tensor.role.is_trainable() != is_trainable {
            continue;
        }
        let name = format!("{kind}.{}", tensor.torchvision);
        let [found, before] = [found, before].map(|values| &values[tensor.range()]);
        if is_frozen(&tensor, parts) {
            assert_eq!(found, before, "{name} is frozen");
        } else {
            compare.add(&name, found, &golden.tensor(&name));
        }
    }
}

/// Steps of a network with frozen parts are PyTorch's: logits, gradients, running statistics, and three
/// steps of SGD and AdamW where the golden file has them. What is frozen stays bit for bit. `make`
/// makes an executor for a batch, with second moments.
///
/// # Panics
/// If a result differs.
pub fn agree<N: Case>(
    case: &str,
    parts: &[&str],
    make: &dyn Fn(&Plan, usize) -> Box<dyn Executor>,
) {
    let plan = &N::PLAN;
    let start = Golden::open(N::GOLDEN, plan).start();
    let golden = Golden::open(&format!("frozen_parts_{}", N::GOLDEN), plan);
    let (images, labels) = (golden.images(), golden.labels());
    let batch = Batch::of_classes(Pixels::Nchw(&images), &labels);
    let mut executor = make(plan, labels.len());
    let executor = &mut *executor;
    executor.set_groups(&groups(plan, parts)).unwrap();

    let mut compare = Comparison::within(TOLERANCE);
    let expected = golden.tensor(&format!("{case}.logits"));
    let running = format!("{case}.running");
    for measures in [true, false] {
        load(executor, &start);
        if measures {
            executor.update_statistics(batch).unwrap();
        } else {
            executor.differentiate(batch, Step::default()).unwrap();
        }
        compare.add("logits", &logits(executor, labels.len()), &expected);
        let moved = read(executor, Arena::Running);
        let arenas = [&moved[..], &start.running];
        compare_arena(
            &mut compare,
            &golden,
            plan,
            (&running, parts),
            false,
            arenas,
        );
    }
    let gradients = read(executor, Arena::Gradients);
    let zeros = vec![0.0; gradients.len()];
    let kind = (&format!("{case}.grad")[..], parts);
    compare_arena(
        &mut compare,
        &golden,
        plan,
        kind,
        true,
        [&gradients, &zeros],
    );

    for optimizer in ["sgd", "adamw"] {
        let kind = format!("{case}.{optimizer}");
        if !golden.has(&format!("{kind}.classifier.bias")) {
            continue;
        }
        load(executor, &start);
        for arena in [Arena::Momentum, Arena::SecondMoments] {
            executor.write(arena, &zeros).unwrap();
        }
        for step in 1..=3 {
            executor.differentiate(batch, Step::default()).unwrap();
            let descent: Descent = match optimizer {
                "sgd" => Sgd {
                    learning_rate: golden.learning_rate(),
                    ..Sgd::default()
                }
                .into(),
                _ => AdamW {
                    learning_rate: golden.learning_rate() / 50.0,
                    step,
                    ..AdamW::default()
                }
                .into(),
            };
            executor.descend(descent).unwrap();
        }
        let kind = (&kind[..], parts);
        let found = read(executor, Arena::Parameters);
        let arenas = [&found[..], &start.parameters];
        compare_arena(&mut compare, &golden, plan, kind, true, arenas);
        let found = read(executor, Arena::Running);
        let arenas = [&found[..], &start.running];
        compare_arena(&mut compare, &golden, plan, kind, false, arenas);
        let momentum = read(executor, Arena::Momentum);
        for group in groups(plan, parts) {
            let still = momentum[group.range].iter().all(|&value| value == 0.0);
            assert!(still || !group.frozen, "momentum of what is frozen");
        }
    }
    compare.assert(&format!("{}, {case}", N::GOLDEN));
}
