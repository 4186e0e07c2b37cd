//! Normalisation belongs to weights.

use densenet_runtime::weights::{Notes, TensorFile, WeightsError};
use densenet_runtime::{Normalization, tell};

/// The normalisation of images for the weights of a file: that of their training, or `usual` if the
/// file does not say. A difference between the two is reported on standard error.
///
/// # Errors
/// When the file's notes are malformed.
pub fn normalization_for(
    weights: &TensorFile,
    usual: &Normalization,
) -> Result<Normalization, WeightsError> {
    let Some(own) = Notes::of(weights)?.normalization else {
        return Ok(usual.clone());
    };
    let path = weights.path().display();
    let (of_weights, of_images) = (own.mean.len(), usual.mean.len());
    if of_weights != of_images {
        tell!(
            "{path} normalises images of {of_weights} channels; those of {of_images} get {usual}"
        );
        return Ok(usual.clone());
    }
    let words = (&*path.to_string(), "the data");
    if let Some(difference) = own.difference(words, usual) {
        tell!("images are normalised as the weights were trained: {difference}");
    }
    Ok(own)
}
