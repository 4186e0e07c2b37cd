//! Whether a batch fits a network's input.

use crate::executor::{ExecutorError, Pixels};
use crate::plan::Stem;

/// Checks that `pixels` are those of `images` images, 1 to `capacity`.
pub(crate) fn check(
    stem: &Stem,
    pixels: Pixels<'_>,
    images: usize,
    capacity: usize,
) -> Result<(), ExecutorError> {
    if images == 0 || images > capacity {
        return Err(ExecutorError::BatchSize {
            found: images,
            capacity,
        });
    }
    let channels = stem.channels;
    // No slice has `usize::MAX` elements.
    let expected = [stem.height, stem.width, channels]
        .into_iter()
        .fold(images, usize::saturating_mul);
    let found = match pixels {
        Pixels::Nchw(values) => values.len(),
        Pixels::Nhwc {
            bytes,
            mean,
            deviation,
        } => {
            for (what, values) in [("the mean", mean), ("the deviation", deviation)] {
                if values.len() != channels {
                    let found = values.len();
                    return Err(ExecutorError::Channels {
                        channels,
                        found,
                        what,
                    });
                }
            }
            bytes.len()
        }
    };
    if found != expected {
        return Err(ExecutorError::Pixels {
            labels: images,
            shape: [channels, stem.height, stem.width],
            expected,
            found,
        });
    }
    Ok(())
}
