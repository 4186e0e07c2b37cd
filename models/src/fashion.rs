//! A network for Fashion-MNIST, with its trained weights.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use densenet_runtime::Normalization;
use densenet_runtime::cpu::Frozen;
use densenet_runtime::data::{Dataset, Loader};
use densenet_runtime::prelude::*;
use densenet_runtime::weights::{State, TensorFile, Unexpected};

use crate::shell::normalization_for;

densenet! {
    /// DenseNet-BC with L = 100, k = 12 for the ten classes of Fashion-MNIST's 28x28 grey images:
    /// 4.48% error on its test images with the weights of [`CLOTHES_BC`].
    pub ClothesBc { blocks: [16, 16, 16], k: 12, theta: 0.5, bottleneck, input: [1, 28, 28] }
}

/// The file of [`ClothesBc`]'s trained weights.
pub const CLOTHES_BC: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/weights/clothes_bc.safetensors"
);

/// The weights of a [`ClothesBc`] in a file, such as [`CLOTHES_BC`], and how images are normalised for
/// them: as usual, if the file does not say.
///
/// # Errors
/// If the file cannot be read, or is of another network.
pub fn clothes_weights(
    file: impl AsRef<Path>,
    usual: &Normalization,
) -> Result<(State, Normalization), Box<dyn Error>> {
    let file = TensorFile::read(file)?;
    let state = State::from_file(&ClothesBc::PLAN, &file, Unexpected::Refuse)?;
    Ok((state, normalization_for(&file, usual)?))
}

/// The logits of some images, images x classes, of [`ClothesBc`] with the weights of a file, in the
/// frozen form.
///
/// # Errors
/// If the weights cannot be read, or the images do not fit.
pub fn clothes_logits(
    file: impl AsRef<Path>,
    images: Arc<dyn Dataset>,
    options: FrozenOptions,
) -> Result<Vec<f32>, Box<dyn Error>> {
    let (state, normalization) = clothes_weights(file, images.normalization())?;
    let images = Loader::evaluation(images, options.batch)?;
    let plan = &ClothesBc::PLAN;
    let mut network = Frozen::new(plan, &state.parameters, &state.running, options)?;
    let mut logits = Vec::new();
    for batch in images.epoch(0) {
        let batch = batch?;
        let pixels = batch.as_batch(&normalization).pixels;
        logits.extend_from_slice(network.infer(pixels, batch.size())?);
    }
    Ok(logits)
}

/// How many of some images have the highest of their logits (images x classes) for another class.
pub fn mistakes(logits: &[f32], images: &dyn Dataset) -> usize {
    let classes = logits.len() / images.len().max(1);
    let is_wrong = |(image, logits): (usize, &[f32])| {
        let classes = logits.iter().enumerate();
        let likeliest = classes.max_by(|a, b| a.1.total_cmp(b.1));
        let class = images.target(image).class();
        likeliest.map(|(class, _)| class as u32) != class
    };
    let logits = logits.chunks_exact(classes.max(1)).enumerate();
    logits.filter(|&one| is_wrong(one)).count()
}
