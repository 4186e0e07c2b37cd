//! What tiles and slices leave for a pass backward, and what is to be made of it.

use crate::{Buffer, Gpu, Numbers, check};

/// The sums that tiles have left of a pass backward through a BN.
pub struct Passed {
    tiles: usize,
    channels: usize,
    add: bool,
    partial: Vec<f32>,
    /// Of each channel.
    pub gamma: Vec<f32>,
    /// The inverse deviation of each channel.
    pub inverse: Vec<f32>,
    /// What the gradients of gamma and beta, and the sums of g and of g times the normalised value
    /// were before.
    pub before: [Vec<f32>; 4],
}

/// The same on the device.
pub struct PassedAt {
    /// The tiles' sums.
    pub partial: Buffer,
    /// Gamma.
    pub gamma: Buffer,
    /// The inverse deviation.
    pub inverse: Buffer,
    /// The gradients of gamma and beta, and the two sums.
    pub into: [Buffer; 4],
}

impl Passed {
    /// Random numbers for these tiles and channels; `add` says whether the two sums are added to what
    /// they were before.
    pub fn random(tiles: usize, channels: usize, add: bool) -> Self {
        let mut numbers = Numbers::new(tiles as u64 + 1);
        Self {
            tiles,
            channels,
            add,
            partial: numbers.take(tiles.max(1) * channels * 2),
            gamma: numbers.around(channels, 1.5, 1.0),
            inverse: numbers.around(channels, 1.5, 1.0),
            before: [(); 4].map(|()| numbers.take(channels)),
        }
    }

    /// Puts them on the device.
    pub fn on(&self, gpu: &Gpu) -> PassedAt {
        PassedAt {
            partial: gpu.floats(&self.partial),
            gamma: gpu.floats(&self.gamma),
            inverse: gpu.floats(&self.inverse),
            into: [0, 1, 2, 3].map(|i| gpu.floats(&self.before[i])),
        }
    }

    /// What a channel's four numbers become, and what is added to each.
    pub fn expected(&self, c: usize) -> [[f64; 2]; 4] {
        let sum = |which: usize| -> f64 {
            let own = |tile| f64::from(self.partial[(tile * self.channels + c) * 2 + which]);
            (0..self.tiles).map(own).sum()
        };
        let (slope, bias) = (sum(0) * f64::from(self.inverse[c]), sum(1));
        let gamma = f64::from(self.gamma[c]);
        let more = [slope, bias, gamma * bias, gamma * slope];
        [0, 1, 2, 3].map(|i| {
            let keep = if i < 2 || self.add { 1.0 } else { 0.0 };
            [keep * f64::from(self.before[i][c]) + more[i], more[i]]
        })
    }

    /// Checks what was made of them. The two sums of channels from `done` on stay as they were.
    pub fn check(&self, what: &str, at: &PassedAt, done: usize) {
        for (i, into) in at.into.iter().enumerate() {
            for (c, found) in into.read_floats().into_iter().enumerate() {
                let [mut expected, more] = self.expected(c)[i];
                if i >= 2 && c >= done {
                    expected = f64::from(self.before[i][c]);
                }
                let off = (f64::from(found) - expected).abs();
                assert!(
                    off < 1e-5 * (1.0 + more.abs()),
                    "{what}, number {i} of channel {c}: {found}, not {expected}"
                );
            }
        }
    }
}

/// Slices' shares of a weight's gradient.
pub struct Slices {
    /// The number of slices.
    pub slices: usize,
    /// The weight's values.
    pub count: usize,
    /// The order of a share: maps x taps x channels; 1 and 1 if it is the weight's.
    pub order: [usize; 2],
    share: Vec<f32>,
    before: Vec<f32>,
}

impl Slices {
    /// Numbers for a weight of four maps, nine taps and seven channels.
    pub fn random(slices: usize, turned: bool) -> Self {
        let (count, mut numbers) = (4 * 9 * 7, Numbers::new(slices as u64));
        Self {
            slices,
            count,
            order: if turned { [9, 7] } else { [1, 1] },
            share: numbers.take(slices * count),
            before: numbers.take(count),
        }
    }

    /// The shares and the gradient on the device.
    pub fn on(&self, gpu: &Gpu) -> [Buffer; 2] {
        [gpu.floats(&self.share), gpu.floats(&self.before)]
    }

    /// Checks the gradient that they were added to.
    pub fn check(&self, what: &str, gradient: &Buffer) {
        let [taps, across] = self.order;
        let sum = |i: usize| -> f64 {
            // Where value i of the weight, maps x channels x taps, is in a share.
            let (map, channel, tap) = (i / taps / across, i / taps % across, i % taps);
            let at = (map * taps + tap) * across + channel;
            let share = |slice| f64::from(self.share[slice * self.count + at]);
            f64::from(self.before[i]) + (0..self.slices).map(share).sum::<f64>()
        };
        let expected: Vec<_> = (0..self.count).map(sum).collect();
        check(what, &gradient.read_floats(), &expected, 1e-5);
    }
}
