//! Random states and batches, from a seed.

use densenet_runtime::plan::{Plan, Role};
use densenet_runtime::weights::State;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

/// A state without trivial zeros and ones, as `scripts/reference/make.py` makes them.
pub fn state(plan: &Plan, seed: u64) -> State {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut state = State::default();
    for parameter in plan.parameters() {
        let fan_in: usize = parameter.shape[1..].iter().product();
        let he = (2.0 / fan_in as f32).sqrt();
        let arena = if parameter.role.is_trainable() {
            &mut state.parameters
        } else {
            &mut state.running
        };
        for _ in 0..parameter.len() {
            let normal: f32 = rng.sample(StandardNormal);
            arena.push(match parameter.role {
                Role::NormScale => rng.gen_range(0.5..1.5),
                Role::RunningVar => rng.gen_range(0.5..2.0),
                Role::NormBias | Role::RunningMean | Role::LinearBias => 0.3 * normal,
                Role::ConvWeight | Role::LinearWeight => he * normal,
            });
        }
    }
    state
}

/// Bytes of images that are noise, brighter by `step` from class to class, and their labels.
pub fn bright_images(
    count: u32,
    size: usize,
    classes: u32,
    step: u8,
    seed: u32,
) -> (Vec<u8>, Vec<u32>) {
    let mut state = seed;
    let mut images = Vec::new();
    let labels: Vec<u32> = (0..count).map(|image| image % classes).collect();
    for &label in &labels {
        for _ in 0..size {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            images.push((state >> 25) as u8 + step * label as u8);
        }
    }
    (images, labels)
}

/// Images, NCHW, and their labels.
pub fn batch(plan: &Plan, images: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let stem = plan.stem();
    let values = images * stem.channels * stem.height * stem.width;
    let pixels = (0..values).map(|_| rng.sample(StandardNormal)).collect();
    let classes = plan.classes() as u32;
    let labels = (0..images).map(|_| rng.gen_range(0..classes)).collect();
    (pixels, labels)
}
