//! Pooling.

use dfdx::prelude::*;

use super::maps::{Maps, Matrix, Window};

/// The largest value in each window. The maps are not negative, so the zeros around them never
/// win over a value that matters.
pub fn max_pool<T: Tape<f64, Cpu>>(maps: Maps<T>, window: Window) -> Maps<T> {
    let batch = maps.batch;
    let (patches, height, width) = window.patches(maps);
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
