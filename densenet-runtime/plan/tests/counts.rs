//! The plan's numbers agree with the paper's and with a naive count.

use densenet_plan::{
    Block, BlockSpec, Frozen, FrozenTensors, Plan, Ratio, Recompute, Role, Spec, Stem, StemKind,
    Transition,
};
use proptest::prelude::*;

fn spec(blocks: &[usize], k: usize, compress: bool, bottleneck: bool) -> Spec {
    let stem = StemKind::for_blocks(blocks.len());
    let side = stem.default_side();
    Spec {
        blocks: blocks
            .iter()
            .map(|&layers| BlockSpec { layers, growth: k })
            .collect(),
        theta: if compress {
            Ratio::new(1, 2)
        } else {
            Ratio::ONE
        },
        bottleneck: bottleneck.then_some(4),
        stem,
        init: stem.default_maps(k, compress && bottleneck),
        input: [3, side, side],
        classes: stem.default_classes(),
        dropout: 0.0,
    }
}

#[test]
fn a_batch_is_countable_while_its_largest_maps_have_fewer_than_2_to_the_31_pixels() {
    // The image itself counts, too.
    for (blocks, pixels) in [(vec![6, 12, 48, 32], 224 * 224), (vec![16; 3], 32 * 32)] {
        let most = spec(&blocks, 12, true, true)
            .plan()
            .unwrap()
            .countable_batch();
        assert!(most * pixels < 1 << 31 && (most + 1) * pixels >= 1 << 31);
    }
}

#[test]
fn the_papers_networks_have_the_papers_numbers_of_parameters() {
    for (blocks, k, bc, parameters) in [
        (vec![12; 3], 12, false, 1_019_722),
        (vec![32; 3], 12, false, 6_979_642),
        (vec![32; 3], 24, false, 27_249_082),
        (vec![16; 3], 12, true, 769_162),
        (vec![41; 3], 24, true, 15_324_406),
        (vec![31; 3], 40, true, 25_624_430),
        (vec![6, 12, 24, 16], 32, true, 7_978_856),
        (vec![6, 12, 32, 32], 32, true, 14_149_480),
        (vec![6, 12, 48, 32], 32, true, 20_013_928),
        (vec![6, 12, 64, 48], 32, true, 33_337_704),
        (vec![6, 12, 36, 24], 48, true, 28_681_000),
    ] {
        let plan = spec(&blocks, k, bc, bc).plan().unwrap();
        assert_eq!(plan.parameter_count(), parameters, "{blocks:?} k = {k}");
    }
}

/// The naive count below shows that the map covers both arenas without a gap.
#[test]
fn a_stages_own_map_is_the_plans_counted_from_its_first_tensors() {
    for (blocks, bc) in [
        (vec![2, 3, 2], true),
        (vec![2, 3], false),
        (vec![2; 4], true),
    ] {
        let plan = spec(&blocks, 6, bc, bc).plan().unwrap();
        let tensors = plan.tensors();
        let first = tensors.blocks[1][0].norm1;
        for (own, all) in plan.blocks()[1].tensors().iter().zip(&tensors.blocks[1]) {
            assert_eq!(own.conv.weight.len, all.conv.weight.len);
            let moved = own.conv.weight.start + first.scale.start;
            assert_eq!(moved, all.conv.weight.start);
            assert_eq!(
                own.norm1.mean.start + first.mean.start,
                all.norm1.mean.start
            );
        }
    }
}

#[test]
fn the_depths_are_those_in_the_names() {
    for (blocks, bc, depth) in [
        (vec![12; 3], false, 40),
        (vec![16; 3], true, 100),
        (vec![6, 12, 24, 16], true, 121),
        (vec![6, 12, 48, 32], true, 201),
    ] {
        assert_eq!(spec(&blocks, 12, bc, bc).plan().unwrap().depth(), depth);
    }
}

#[test]
fn the_smallest_input_is_found_and_one_less_is_refused() {
    let mut spec = spec(&[6, 12, 48, 32], 32, true, true);
    assert_eq!(spec.smallest_side(), 29);
    spec.input = [3, 29, 29];
    assert!(spec.plan().is_ok());
    spec.input = [3, 24, 24];
    let message = spec.plan().unwrap_err()[0].to_string();
    assert_eq!(
        message,
        "a 24x24 input is too small: 24 -> 12 (stem conv) -> 6 (stem pool) -> 3 (transition 1) \
         -> 1 (transition 2) -> 0 (transition 3); use at least 29x29, or fewer blocks"
    );
}

#[test]
fn absurd_numbers_are_refused_without_overflow() {
    let mut huge = spec(&[1, 1, 1], 1, false, true);
    huge.init = usize::MAX / 2;
    assert!(huge.plan().is_err());
    let mut deep = spec(&[usize::MAX, 1, 1], 1, false, true);
    assert!(deep.plan().is_err());
    deep.blocks[0].layers = 1_000_000_000;
    assert!(deep.plan().is_err());
}

fn specs() -> impl Strategy<Value = Spec> {
    (
        prop::collection::vec((1usize..5, 1usize..9), 1..5),
        (1u64..=20).prop_map(|n| Ratio::new(n, 20)),
        prop::option::of(1usize..5),
        prop::bool::ANY,
        20usize..40,
        (1usize..4, 32usize..50, 32usize..50),
    )
        .prop_map(
            |(blocks, theta, bottleneck, imagenet, init, (c, h, w))| Spec {
                blocks: blocks
                    .into_iter()
                    .map(|(layers, growth)| BlockSpec { layers, growth })
                    .collect(),
                theta,
                bottleneck,
                stem: if imagenet {
                    StemKind::ImageNet
                } else {
                    StemKind::Cifar
                },
                init,
                input: [c, h, w],
                classes: 7,
                dropout: 0.0,
            },
        )
}

proptest! {
    /// The closed forms agree with walking the listed tensors one by one.
    #[test]
    fn counts_agree_with_a_naive_count(spec in specs()) {
        let plan = spec.plan();
        prop_assume!(plan.is_ok());
        let plan = plan.unwrap();
        let parameters = plan.parameters();
        let mut trainable = 0;
        let mut running = 0;
        for parameter in &parameters {
            let end = if parameter.role.is_trainable() { &mut trainable } else { &mut running };
            prop_assert_eq!(parameter.offset, *end, "{}", &parameter.field);
            *end += parameter.shape.iter().product::<usize>();
            prop_assert_eq!(parameter.range().end, *end, "{}", &parameter.field);
        }
        prop_assert_eq!(trainable, plan.parameter_count());
        prop_assert_eq!(running, plan.running_count());

        // Multiply-adds: each weight of a convolution once at each pixel of its output.
        let (mut height, mut width) = plan.stem().convolved_size();
        let mut naive = 0usize;
        for parameter in &parameters {
            match parameter.role {
                Role::ConvWeight => {
                    let stage = parameter.field.split('.').next().unwrap();
                    if stage == "stem" {
                        naive += parameter.len() * height * width;
                        (height, width) = plan.stem().output_size();
                    } else {
                        naive += parameter.len() * height * width;
                        if stage.starts_with("transition") {
                            (height, width) = (height / 2, width / 2);
                        }
                    }
                }
                Role::LinearWeight => naive += parameter.len(),
                _ => {}
            }
        }
        prop_assert_eq!(naive as u64, plan.multiply_adds());
    }

    /// Recomputing never needs more memory, and memory grows with the batch.
    #[test]
    fn footprints_are_ordered(spec in specs()) {
        let plan = spec.plan();
        prop_assume!(plan.is_ok());
        let plan = plan.unwrap();
        let kept = plan.training_footprint(Recompute::Nothing);
        let recomputed = plan.training_footprint(Recompute::Bottlenecks);
        prop_assert!(recomputed.per_image <= kept.per_image);
        let budget = kept.bytes(17);
        prop_assert_eq!(kept.largest_batch(budget), 17);
        prop_assert_eq!(kept.largest_batch(budget - 1), 16);
    }
}

/// The plan of a valid spec after a change, or its errors.
fn changed(change: impl FnOnce(&mut Spec)) -> Result<Plan, String> {
    let mut spec = spec(&[2, 2], 4, true, true);
    change(&mut spec);
    spec.plan()
        .map_err(|errors| errors.iter().map(|error| format!("{error}\n")).collect())
}

#[test]
fn numbers_that_cannot_be_counted_are_refused_in_words() {
    let huge = [1 << 31, (1 << 63) + 1, usize::MAX];
    type Set = fn(&mut Spec, usize);
    let fields: [(&str, Set); 8] = [
        ("layers", |spec, n| spec.blocks[0].layers = n),
        ("growth", |spec, n| spec.blocks[1].growth = n),
        ("bottleneck", |spec, n| spec.bottleneck = Some(n)),
        ("init", |spec, n| spec.init = n),
        ("channels", |spec, n| spec.input[0] = n),
        ("height", |spec, n| spec.input[1] = n),
        ("width", |spec, n| spec.input[2] = n),
        ("classes", |spec, n| spec.classes = n),
    ];
    for (name, set) in fields {
        for number in huge {
            let words = changed(|spec| set(spec, number)).unwrap_err();
            assert!(
                words.contains("too many to count") || words.contains("at most 4096"),
                "{name}: {words}"
            );
        }
        let words = changed(|spec| set(spec, 0)).unwrap_err();
        assert!(
            words.contains("must be at least 1, found 0"),
            "{name}: {words}"
        );
    }
}

#[test]
fn dimensions_that_fit_alone_are_refused_where_their_product_does_not() {
    for (what, plan) in [
        ("pixels", changed(|spec| spec.input = [1, 1 << 16, 1 << 16])),
        (
            "activations",
            changed(|spec| spec.input = [1 << 30, 1 << 15, 1 << 15]),
        ),
        ("parameters", changed(|spec| spec.init = 1 << 30)),
        (
            "parameters",
            changed(|spec| spec.blocks[0].growth = 1 << 25),
        ),
    ] {
        let words = plan.expect_err(what);
        assert!(words.contains("too many to count"), "{what}: {words}");
    }
}

#[test]
fn the_most_classes_are_counted_without_a_wrap() {
    const CLASSES: usize = i32::MAX as usize;
    let [few, most] = [10, CLASSES].map(|classes| changed(|spec| spec.classes = classes).unwrap());
    let rows = most.parameter_count() - few.parameter_count();
    assert_eq!(rows, (CLASSES - 10) * (few.features() + 1));
    let bytes = most.training_footprint(Recompute::Nothing);
    assert!(bytes.fixed > 4 * rows as u64 && bytes.fixed < 1 << 50);
}

#[test]
fn dropout_and_compression_are_refused_outside_of_their_ranges() {
    for dropout in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
        let words = changed(|spec| spec.dropout = dropout).unwrap_err();
        assert!(
            words.contains("dropout must be in [0, 1), found"),
            "{words}"
        );
        let plan = changed(|_| ()).unwrap();
        assert!(plan.with_dropout(dropout).is_err());
    }
    let words = changed(|spec| spec.theta = Ratio::new(3, 2)).unwrap_err();
    assert!(
        words.contains("`theta` must be in (0, 1], found 1.5"),
        "{words}"
    );
}

/// Whether a plan's stages, after a change, are accepted by the function that generated code calls.
fn rewritten(change: impl FnOnce(&mut Stem, &mut Vec<Block>, &mut Vec<Transition>)) -> bool {
    let plan = changed(|_| ()).unwrap();
    let (mut stem, mut blocks) = (*plan.stem(), plan.blocks().to_vec());
    let mut transitions = plan.transitions().to_vec();
    change(&mut stem, &mut blocks, &mut transitions);
    let (blocks, transitions) = (blocks.leak(), transitions.leak());
    std::panic::catch_unwind(|| Plan::of_stages(stem, blocks, transitions, 10, 0.0)).is_ok()
}

#[test]
fn stages_that_do_not_fit_together_are_refused() {
    assert!(rewritten(|_, _, _| ()));
    assert!(!rewritten(|stem, _, _| stem.maps += 1));
    assert!(!rewritten(|stem, _, _| stem.width = (1 << 63) + 1));
    assert!(!rewritten(|stem, _, _| stem.height += 1));
    assert!(!rewritten(|_, blocks, _| blocks.clear()));
    assert!(!rewritten(|_, blocks, _| blocks[0].layers = 0));
    assert!(!rewritten(|_, blocks, _| blocks[0].bottleneck = Some(0)));
    assert!(!rewritten(|_, blocks, _| blocks[1].growth = usize::MAX));
    assert!(!rewritten(|_, blocks, _| blocks[1].growth = 1 << 40));
    assert!(!rewritten(|_, blocks, _| blocks[1].input += 1));
    assert!(!rewritten(|_, blocks, _| blocks[1].height = 1));
    assert!(!rewritten(|_, _, transitions| transitions.clear()));
    assert!(!rewritten(|_, _, transitions| transitions[0].input -= 1));
    assert!(!rewritten(|_, _, transitions| transitions[0].output = 0));
    assert!(!rewritten(|_, _, transitions| transitions[0].width *= 2));
}

#[test]
fn a_plan_has_a_name_for_each_class_or_none() {
    let named = |names| {
        let plan = changed(|spec| spec.classes = 2).unwrap();
        std::panic::catch_unwind(|| plan.with_class_names(names).class_names())
    };
    assert_eq!(named(&["cat", "dog"]).unwrap(), ["cat", "dog"]);
    assert!(named(&["cat"]).is_err());
    assert!(named(&["cat", "dog", "owl"]).is_err());
    assert!(changed(|_| ()).unwrap().class_names().is_empty());
}

#[test]
fn the_first_stage_of_one_pixel_is_named() {
    let stage = |blocks: &[usize], side| {
        let mut spec = spec(blocks, 12, true, true);
        spec.input = [3, side, side];
        spec.plan().unwrap().stage_of_one_pixel()
    };
    assert_eq!(stage(&[2, 2, 2], 32), None);
    assert_eq!(stage(&[2, 2, 2], 4).as_deref(), Some("block 3"));
    assert_eq!(stage(&[6, 12, 48, 32], 32).as_deref(), Some("block 4"));
    assert_eq!(stage(&[6, 12, 48, 32], 224), None);
}

#[test]
fn a_step_has_three_times_the_multiply_adds_of_a_pass_and_fewer_where_stages_are_frozen() {
    let plan = spec(&[6, 12, 24, 16], 32, true, true).plan().unwrap();
    let stages = plan.stages().len();
    let with =
        |stages, ranges: &[_]| plan.step_multiply_adds(stages, FrozenTensors::in_ranges(ranges));
    let of = |stages| with(stages, &[]);
    let all = of(Frozen::default());
    assert_eq!(all, 3 * plan.multiply_adds());
    let classifier = (plan.features() * plan.classes()) as u64;
    let head = of(Frozen::first(stages - 1));
    assert_eq!(head, plan.multiply_adds() + 2 * classifier);
    let fewer = (0..stages).map(|count| of(Frozen::first(count)));
    assert!(fewer.collect::<Vec<_>>().is_sorted_by(|a, b| a >= b));
    // A frozen weight leaves out its own gradient; the first ones, those of the maps too.
    let tensors = plan.tensors();
    let middle = tensors.transitions[1].conv.weight;
    let own = (middle.len * plan.transitions()[1].pixels()) as u64;
    let middle = middle.range();
    let found = with(Frozen::default(), std::slice::from_ref(&middle));
    assert_eq!(found, all - own);
    let layer = tensors.blocks[0][0].conv.weight.range();
    let after = Frozen::first(1);
    let stem = plan.trainable(after)[0].start;
    let (narrow, _) = tensors.blocks[0][0].narrow.unwrap();
    let layer_of = (narrow.weight.len + layer.len()) * plan.blocks()[0].pixels();
    let layer_of = layer_of as u64;
    let first_layer = stem..layer.end;
    let found = with(after, std::slice::from_ref(&first_layer));
    assert_eq!(found, of(after) - 2 * layer_of);
    // BNs have none.
    let norms: Vec<_> = plan
        .norms()
        .iter()
        .map(|(norm, _)| norm.trainable())
        .collect();
    assert_eq!(with(Frozen::default(), &norms), all);
}
