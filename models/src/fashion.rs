//! A network for Fashion-MNIST, with its trained weights.

use std::error::Error;
use std::sync::Arc;

use densenet_runtime::cpu::Frozen;
use densenet_runtime::data::{InMemory, Loader};
use densenet_runtime::prelude::*;
use densenet_runtime::weights::{State, TensorFile, Unexpected};

use crate::shell::normalization_for;

densenet! {
    /// DenseNet-BC with L = 100, k = 12 for the ten classes of Fashion-MNIST's 28x28 grey images:
    /// 4.49% error on its test images with the weights of [`CLOTHES_BC`].
    pub ClothesBc { blocks: [16, 16, 16], k: 12, theta: 0.5, bottleneck, input: [1, 28, 28] }
}

/// The file of [`ClothesBc`]'s trained weights.
pub const CLOTHES_BC: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/weights/clothes_bc.safetensors"
);

/// The number of images that [`ClothesBc`] misclassifies, with its trained weights, in the frozen form.
///
/// # Errors
/// If the weights cannot be read, or the images do not fit.
pub fn clothes_mistakes(images: InMemory, options: FrozenOptions) -> Result<usize, Box<dyn Error>> {
    let plan = &ClothesBc::PLAN;
    let file = TensorFile::read(CLOTHES_BC)?;
    let state = State::from_file(plan, &file, Unexpected::Refuse)?;
    let images = Loader::evaluation(Arc::new(images), options.batch)?;
    let normalization = normalization_for(&file, images.dataset().normalization())?;
    let mut network = Frozen::new(plan, &state.parameters, &state.running, options)?;
    let mut wrong = 0;
    for batch in images.epoch(0) {
        let batch = batch?;
        let logits = network.infer(batch.as_batch(&normalization).pixels, batch.size())?;
        for (logits, &label) in logits.chunks_exact(plan.classes()).zip(batch.labels()) {
            let classes = logits.iter().enumerate();
            let likeliest = classes.max_by(|a, b| a.1.total_cmp(b.1));
            wrong += usize::from(likeliest.is_none_or(|(class, _)| class != label as usize));
        }
    }
    Ok(wrong)
}
