//! The stem.

use densenet_runtime::plan;
use densenet_runtime::weights::State;

use super::maps::{Maps, Product};
use super::norm::{Norm, undo};
use super::rounded;

/// The stem, and the state of its latest pass.
pub struct Stem {
    plan: plan::Stem,
    weight: usize,
    /// BN of the ImageNet stem, which ReLU and the max pool follow.
    norm: Option<Norm>,
    images: Maps,
    convolved: Maps,
    /// The value that each pooled one was taken from, if ReLU let it through.
    taken: Vec<Option<usize>>,
}

impl Stem {
    pub fn new(plan: plan::Stem, weight: usize, norm: Option<Norm>) -> Self {
        Self {
            plan,
            weight,
            norm,
            images: Maps::default(),
            convolved: Maps::default(),
            taken: Vec::new(),
        }
    }

    fn product(&self) -> Product {
        Product {
            kernel: self.plan.kernel(),
            stride: self.plan.stride(),
            maps: self.plan.maps,
        }
    }

    /// From images in NCHW to the first block's input.
    pub fn forward(
        &mut self,
        images: &[f32],
        batch: usize,
        state: &mut State,
        round: fn(f32) -> f32,
        training: bool,
    ) -> Maps {
        let (channels, area) = (self.plan.channels, self.plan.height * self.plan.width);
        self.images = Maps::zeros([batch, self.plan.height, self.plan.width], channels);
        for (i, value) in self.images.values.iter_mut().enumerate() {
            let (p, c) = (i / channels, i % channels);
            *value = round(images[(p / area * channels + c) * area + p % area]);
        }
        let weight = rounded(
            &state.parameters[self.weight..][..self.plan.weight_len()],
            round,
        );
        let convolved = self.product().forward(&self.images, &weight).rounded(round);
        let Some(norm) = &mut self.norm else {
            return convolved;
        };
        norm.prepare(&convolved, state, training);
        let (height, width) = self.plan.output_size();
        let mut pooled = Maps::zeros([batch, height, width], self.plan.maps);
        self.taken.clear();
        for (i, value) in pooled.values.iter_mut().enumerate() {
            let (q, m) = (i / self.plan.maps, i % self.plan.maps);
            let mut best = (0.0, None);
            for place in 0..9 {
                let Some(p) = under(&convolved, [height, width], q, place) else {
                    continue;
                };
                let at = p * self.plan.maps + m;
                let z = norm.before(m, convolved.values[at]);
                if z > best.0 {
                    best = (z, Some(at));
                }
            }
            *value = round(best.0);
            self.taken.push(best.1);
        }
        self.convolved = convolved;
        pooled
    }

    pub fn backward(
        &self,
        dout: &Maps,
        state: &State,
        gradients: &mut [f32],
        round: fn(f32) -> f32,
    ) {
        let range = self.weight..self.weight + self.plan.weight_len();
        let Some(norm) = &self.norm else {
            self.product()
                .add_weight(dout, &self.images, &mut gradients[range]);
            return;
        };
        let mut d = vec![0.0; self.convolved.values.len()];
        for (&taken, &dout) in self.taken.iter().zip(&dout.values) {
            if let Some(at) = taken {
                d[at] += dout;
            }
        }
        let (_, sums) = norm.mask(&self.convolved, &d, gradients);
        let mut undone = self.convolved.clone();
        for (i, value) in undone.values.iter_mut().enumerate() {
            let c = i % norm.channels;
            let gamma = state.parameters[norm.gamma + c];
            let sums = sums[c].map(|sum| sum * f64::from(gamma));
            let pixels = self.convolved.pixels();
            *value = round(undo(&norm.statistics, c, gamma, d[i], *value, sums, pixels));
        }
        self.product()
            .add_weight(&undone, &self.images, &mut gradients[range]);
    }
}

/// The pixel at one of the nine places under a pooled one, unless it is outside.
fn under(full: &Maps, [height, width]: [usize; 2], q: usize, place: usize) -> Option<usize> {
    let (image, y, x) = (q / (height * width), q / width % height, q % width);
    let at = |middle: usize, by: usize, side: usize| {
        (2 * middle + by).checked_sub(1).filter(|&at| at < side)
    };
    let (y, x) = (
        at(y, place / 3, full.height)?,
        at(x, place % 3, full.width)?,
    );
    Some((image * full.height + y) * full.width + x)
}
