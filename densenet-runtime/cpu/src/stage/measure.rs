//! Statistics of a tensor that was not measured when it was computed.

use crate::engine::{Engine, Parts};
use crate::kernel::emit::{Runs, emit};
use crate::kernel::normal::{Moments, Statistics};
use crate::kernel::simd::{Kernel, Simd};

/// The number of pixels that are measured at a time.
const TILE: usize = 112;

/// The statistics of the first `channels` of a buffer.
pub fn measure(engine: &mut Engine, x: &[f32], stride: usize, channels: usize) -> Statistics {
    measure_moments(engine, x, stride, channels);
    let mut statistics = Statistics::new(channels);
    statistics.merge(0, engine.moments());
    statistics
}

/// Measures the first `channels` of a buffer, as the engine's [moments](Engine::moments).
pub fn measure_moments(engine: &mut Engine, x: &[f32], stride: usize, channels: usize) {
    let shares = engine.shares(x.len() / stride);
    let mut parts: Parts<_> = shares.into_iter().zip(&mut engine.scratch).collect();
    let level = engine.level;
    engine.team.each(&mut parts, |_, (pixels, scratch)| {
        scratch.moments.reset(channels);
        let x = &x[pixels.start * stride..pixels.end * stride];
        level.run(Measure {
            x,
            stride,
            moments: &mut scratch.moments,
            channels,
        });
    });
}

/// One thread's share of [`measure_moments`].
struct Measure<'a> {
    x: &'a [f32],
    stride: usize,
    moments: &'a mut Moments,
    channels: usize,
}

impl Kernel for Measure<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            x,
            stride,
            moments,
            channels,
        } = self;
        for tile in x.chunks(TILE * stride) {
            let rows = Runs::rows(tile, stride, tile.len() / stride);
            emit(simd, rows, channels, Some(&mut *moments), None);
        }
    }
}
