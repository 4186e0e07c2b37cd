//! Pooling.

use dfdx::prelude::*;

use super::maps::{Maps, Matrix, Window};

/// The largest value in each window. The maps are not negative, so the zeros around them never
/// win over a value that matters. `margin` is lowered to the least distance between the two
/// largest values of a window, where the gradient jumps from one to the other.
pub fn max_pool<T: Tape<f64, Cpu>>(maps: Maps<T>, window: Window, margin: &mut f64) -> Maps<T> {
    let (batch, channels) = (maps.batch, maps.channels());
    let (patches, height, width) = window.patches(maps);
    let area = window.side * window.side;
    for patch in patches.as_vec().chunks_exact(area * channels) {
        for channel in 0..channels {
            let mut values: Vec<f64> = patch[channel..].iter().step_by(channels).copied().collect();
            values.sort_by(|a, b| b.total_cmp(a));
            // Where the largest is 0, the ReLU below passes nothing on.
            if values[0] > 0.0 {
                *margin = margin.min(values[0] - values[1]);
            }
        }
    }
    Maps {
        batch,
        height,
        width,
        values: patches.max::<(usize, usize), Axis<1>>(),
    }
}

/// The mean of each window.
pub fn average_pool<T: Tape<f64, Cpu>>(maps: Maps<T>, window: Window) -> Maps<T> {
    let batch = maps.batch;
    let (patches, height, width) = window.patches(maps);
    Maps {
        batch,
        height,
        width,
        values: patches.mean::<(usize, usize), Axis<1>>(),
    }
}

/// The mean of each map: batch x channels.
pub fn global_average_pool<T: Tape<f64, Cpu>>(maps: Maps<T>) -> Matrix<T> {
    let shape = (maps.batch, maps.height * maps.width, maps.channels());
    maps.values
        .reshape_like(&shape)
        .mean::<(usize, usize), Axis<1>>()
}
