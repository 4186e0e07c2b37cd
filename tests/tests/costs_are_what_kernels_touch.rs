//! The roofline's counts for a training step match the kernels: the same launches in the same
//! order, each with as many bytes read and written as an emulated device sees it touch.

use cuda_emulator::Touched;
use densenet_models::DenseNet201;
use densenet_runtime::cuda::{self, Launch};
use densenet_runtime::plan::{Plan, Precision, Recompute};
use densenet_runtime::{Batch, Executor, Group, Network, Pixels, Sgd, Step};
use densenet_tests::emulated::{alone, device, on_cuda, options};
use densenet_tests::executor::{load, logits};
use densenet_tests::frozen_parts;
use densenet_tests::networks::{Bc, Compressed, ImageNetBc, many_channels, many_maps};
use densenet_tests::random;

/// A training step on bytes of images, with kernels that report each access.
fn step(
    groups: &[Group],
    plan: &Plan,
    batch: usize,
    precision: Precision,
    recompute: Recompute,
) -> Vec<Touched> {
    let (emulator, device) = device();
    let options = cuda::CudaOptions {
        precision,
        recompute,
        ..options(batch)
    };
    let mut executor = emulator.watched(|| on_cuda(&device, plan, options));
    load(&mut executor, &random::state(plan, 1));
    executor.set_groups(groups).unwrap();
    let stem = plan.stem();
    let count = batch * stem.channels * stem.height * stem.width;
    let bytes: Vec<u8> = (0..count).map(|i| (i * 89 % 251) as u8).collect();
    let labels: Vec<u32> = (0..batch).map(|i| (i % plan.classes()) as u32).collect();
    let (mean, std) = (vec![0.5; stem.channels], vec![0.25; stem.channels]);
    let batch = Batch::of_classes(
        Pixels::Nhwc {
            bytes: &bytes,
            mean: &mean,
            std: &std,
        },
        &labels,
    );
    emulator.touched(|| {
        executor.differentiate(batch, Step::default()).unwrap();
        executor.descend(Sgd::default().into()).unwrap();
        logits(&executor, labels.len());
    })
}

/// Kernels that read a gradient only where a ReLU let its value through: they may read less than
/// is counted.
const BY_CHANCE: [&str; 3] = ["head_pull", "stem_sums", "stem_weight"];

fn agree(plan: &Plan, batch: usize, precision: Precision, recompute: Recompute) {
    let groups = [Group::all(plan.parameter_count())];
    let counted = cuda::launches(plan, batch, precision, recompute).unwrap();
    agree_with(&counted, &groups, plan, batch, precision, recompute);
}

/// The same where parts are frozen.
fn agree_frozen(parts: &[&str], plan: &Plan, batch: usize, recompute: Recompute) {
    let (groups, precision) = (frozen_parts::groups(plan, parts), Precision::F32);
    let counted = cuda::launches_with_groups(&groups, plan, batch, precision, recompute).unwrap();
    agree_with(&counted, &groups, plan, batch, precision, recompute);
}

fn agree_with(
    counted: &[Launch],
    groups: &[Group],
    plan: &Plan,
    batch: usize,
    precision: Precision,
    recompute: Recompute,
) {
    let _alone = alone();
    let seen = step(groups, plan, batch, precision, recompute);
    let names = |launch: &Launch| launch.kernel.to_string();
    let expected: Vec<_> = counted.iter().map(names).collect();
    let found: Vec<_> = seen.iter().map(|launch| launch.kernel.clone()).collect();
    assert_eq!(found, expected, "the same launches in the same order");
    let mut mistakes = Vec::new();
    for (number, (counted, seen)) in counted.iter().zip(&seen).enumerate() {
        let may_read_less = BY_CHANCE.contains(&counted.kernel) && seen.read > counted.reads / 2;
        let reads = seen.read == counted.reads || (may_read_less && seen.read < counted.reads);
        if !reads || seen.written != counted.writes {
            mistakes.push(format!("launch {number}: {counted:?}, but {seen:?}"));
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn of_a_bottleneck_network_with_dropout_and_recomputed_maps() {
    let plan = Bc::PLAN.with_dropout(0.25).unwrap();
    agree(&plan, 3, Precision::F32, Recompute::Bottlenecks);
}

#[test]
fn of_a_plain_network_with_the_cifar_stem() {
    agree(&Compressed::PLAN, 3, Precision::F32, Recompute::Nothing);
}

#[test]
fn of_a_network_that_pools_before_a_transitions_product() {
    agree(&many_maps(), 3, Precision::Bf16, Recompute::Nothing);
}

#[test]
fn of_a_network_whose_1x1_products_are_shared_by_blocks() {
    agree(&many_channels(), 1, Precision::F32, Recompute::Nothing);
}

#[test]
fn of_networks_that_are_frozen_in_places() {
    let plan = Bc::PLAN.with_dropout(0.25).unwrap();
    let parts = [
        "features.denseblock1.denselayer2",
        "features.transition1",
        "features.norm5",
        "classifier.bias",
    ];
    agree_frozen(&parts, &plan, 3, Recompute::Bottlenecks);
    agree_frozen(
        &["norms", "features.denseblock1"],
        &Compressed::PLAN,
        3,
        Recompute::Nothing,
    );
    agree_frozen(
        &["features.norm0"],
        &ImageNetBc::PLAN,
        2,
        Recompute::Nothing,
    );
}

/// How many launches of a kernel a step has where parts are frozen.
fn count(plan: &Plan, parts: &[&str], kernel: &str) -> usize {
    let (groups, precision) = (frozen_parts::groups(plan, parts), Precision::F32);
    let launches = cuda::launches_with_groups(&groups, plan, 3, precision, Recompute::Nothing);
    let launches = launches.unwrap();
    launches.iter().filter(|own| own.kernel == kernel).count()
}

#[test]
fn what_is_frozen_alone_is_not_computed() {
    let plan = &Bc::PLAN;
    // Seven layers.
    assert_eq!(count(plan, &[], "spatial_weight"), 7);
    assert_eq!(count(plan, &["features.denseblock2"], "spatial_weight"), 5);
    let transition = ["features.transition1"];
    assert_eq!(count(plan, &transition, "transition_weight"), 1);
    assert_eq!(count(plan, &["features.conv0"], "stem_weight"), 0);
    assert_eq!(count(plan, &["classifier"], "classify_weight"), 0);
    // The backward pass ends with the first layer that trains.
    let first = ["features.conv0", "features.denseblock1.denselayer1"];
    assert_eq!(count(plan, &first, "spatial_pull"), 6);
    assert_eq!(count(plan, &["features"], "head_pull"), 0);
    let all_but_norm = [
        "features.conv0",
        "features.denseblock1",
        "features.transition1",
        "features.denseblock2",
        "features.transition2",
        "features.denseblock3",
    ];
    assert_eq!(count(plan, &all_but_norm, "head_pull"), 1);
    assert_eq!(count(plan, &all_but_norm, "spatial_pull"), 0);
}

#[test]
fn no_dropout_follows_a_frozen_transition() {
    let plan = &many_maps().with_dropout(0.25).unwrap();
    let forward = |parts: &[&str]| {
        [
            "transition_pool",
            "transition_forward",
            "transition_forward_dropped",
        ]
        .map(|kernel| count(plan, parts, kernel))
    };
    assert_eq!(forward(&[]), [0, 0, 1]);
    assert_eq!(forward(&["features.transition1.conv"]), [1, 1, 0]);
}

#[test]
fn of_an_imagenet_network_in_f32_and_bf16() {
    agree(&ImageNetBc::PLAN, 2, Precision::F32, Recompute::Nothing);
    agree(&ImageNetBc::PLAN, 2, Precision::Bf16, Recompute::Nothing);
}

/// The launches of a step of DenseNet-201 with each of these kernels, and all.
fn launched<const COUNT: usize>(batch: usize, kernels: [&str; COUNT]) -> ([usize; COUNT], usize) {
    let plan = &DenseNet201::PLAN;
    let launches = cuda::launches(plan, batch, Precision::Bf16, Recompute::Nothing).unwrap();
    let own = |kernel| launches.iter().filter(|one| one.kernel == kernel).count();
    (kernels.map(own), launches.len())
}

/// docs/kernels.md has these counts.
#[test]
fn a_step_of_densenet201_has_927_launches_of_which_211_are_only_for_sums() {
    let (counts, all) = launched(128, ["prepare", "gather", "pointwise_part"]);
    assert_eq!((counts, all), ([201, 10, 0], 927));
}

#[test]
fn blocks_share_the_1x1_products_of_small_batches_alone() {
    let kernels = ["pointwise_forward", "pointwise_part", "pointwise_joined"];
    let of = |batch| launched(batch, kernels).0;
    let shared = |count| [98 - count, count, count];
    assert_eq!([1, 32, 64, 128].map(of), [69, 32, 29, 0].map(shared));
}

#[test]
fn a_step_of_densenet201_in_bf16_moves_at_most_300_mb_an_image() {
    let (plan, batch) = (&DenseNet201::PLAN, 256);
    let launches = cuda::launches(plan, batch, Precision::Bf16, Recompute::Nothing).unwrap();
    let bytes: u64 = launches.iter().map(Launch::bytes).sum();
    let eager = cuda::eager(plan, batch, Precision::Bf16).bytes();
    assert!(bytes <= batch as u64 * 300_000_000, "{bytes} bytes a step");
    // Several times less than the layers one by one.
    assert!(eager > 3 * bytes, "{eager} bytes");
}
