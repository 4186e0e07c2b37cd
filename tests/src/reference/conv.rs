//! Convolution as a matrix product.

use dfdx::prelude::*;

use super::maps::{Maps, Vector, Window};

/// Convolves with a weight of `out` x channels x side x side, without bias.
pub fn conv<T: Tape<f64, Cpu>>(
    maps: Maps<T>,
    weight: &Vector,
    out: usize,
    window: Window,
) -> Maps<T> {
    let (batch, channels) = (maps.batch, maps.channels());
    let area = window.side * window.side;
    let (patches, height, width) = window.patches(maps);
    let positions = batch * height * width;
    let patches = patches.reshape_like(&(positions, area * channels));
    // The patches have the pixel outside and the channel inside; PyTorch's weights the other way.
    let weight = weight
        .retaped::<T>()
        .reshape_like(&(out, channels, area))
        .permute::<(usize, usize, usize), Axes3<2, 1, 0>>()
        .reshape_like(&(area * channels, out));
    Maps {
        batch,
        height,
        width,
        values: patches.matmul(weight),
    }
}
