//! Converts between the order of an image's values in dfdx and PyTorch, and the executor's order.

/// From channels x area, image by image, into the first channels of rows of `stride`.
pub fn to_nhwc(from: &[f32], channels: usize, area: usize, (into, stride): (&mut [f32], usize)) {
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
pub fn to_nchw(from: &[f32], channels: usize, area: usize) -> Vec<f32> {
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
    fn the_two_orders_are_inverse() {
        let values: Vec<f32> = (0..2 * 3 * 4).map(|i| i as f32).collect();
        let mut nhwc = vec![0.0; values.len()];
        to_nhwc(&values, 3, 4, (&mut nhwc, 3));
        assert_eq!(nhwc[..3], [0.0, 4.0, 8.0]);
        assert_eq!(to_nchw(&nhwc, 3, 4), values);
    }
}
