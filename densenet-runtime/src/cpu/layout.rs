//! How values lie in memory: the rows of feature maps, and the way from dfdx's and PyTorch's order
//! of an image's values and back.

use super::engine::padded;
use crate::plan::Block;

/// Elements from a pixel's feature maps to the next pixel's: whole vectors, so that no load lies
/// across two cache lines, where that costs at most a sixteenth more memory.
pub(crate) fn stride_of(block: &Block) -> usize {
    let channels = block.output();
    let whole = padded(channels);
    if whole - channels <= channels / 16 {
        whole
    } else {
        channels
    }
}

/// From channels x area, image by image, into the first channels of rows of a stride.
pub(crate) fn to_nhwc(
    from: &[f32],
    channels: usize,
    area: usize,
    (into, stride): (&mut [f32], usize),
) {
    let images = from
        .chunks_exact(channels * area)
        .zip(into.chunks_exact_mut(stride * area));
    for (from, into) in images {
        for (c, plane) in from.chunks_exact(area).enumerate() {
            for (into, value) in into[c..].iter_mut().step_by(stride).zip(plane) {
                *into = *value;
            }
        }
    }
}

/// From area x channels to channels x area, image by image.
pub(crate) fn to_nchw(from: &[f32], channels: usize, area: usize) -> Vec<f32> {
    let mut into = Vec::with_capacity(from.len());
    for image in from.chunks_exact(channels * area) {
        for c in 0..channels {
            into.extend(image[c..].iter().step_by(channels));
        }
    }
    into
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stride_is_whole_vectors_where_that_is_cheap() {
        let of = |input| {
            stride_of(&Block {
                input,
                layers: 16,
                growth: 12,
                bottleneck: None,
                height: 1,
                width: 1,
            })
        };
        assert_eq!([24, 32, 150].map(of), [224, 224, 352]);
        assert_eq!(of(2), 194);
    }

    #[test]
    fn the_two_orders_are_inverse() {
        let values: Vec<f32> = (0..2 * 3 * 4).map(|i| i as f32).collect();
        let mut nhwc = vec![0.0; values.len()];
        to_nhwc(&values, 3, 4, (&mut nhwc, 3));
        assert_eq!(nhwc[..3], [0.0, 4.0, 8.0]);
        assert_eq!(to_nchw(&nhwc, 3, 4), values);
    }
}
