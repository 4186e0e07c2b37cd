//! A training step in plain loops, with the rounding of a storage format.
//!
//! The same mathematics as the executors', read from the plan and nothing else, in which every map
//! and every gradient of a map is rounded where an executor stores it, and every operand of a
//! product where it loads it. Without rounding it is the CPU executor's step; with the rounding of
//! bfloat16 it is the step of the CUDA executor's bf16 mode, except for the order of sums.
//!
//! Why not compare with f32: rounding in the middle moves small gradients by a tenth and more,
//! whoever does it, so such a comparison would let mistakes of that size through.

mod block;
mod maps;
mod norm;
mod stem;

use densenet_runtime::plan::{LayerTensors, Plan};
use densenet_runtime::weights::State;
use densenet_runtime::{Outcome, Sgd, Step};

use block::{Block, Layer};
use maps::{Maps, Product};
use norm::Norm;
use stem::Stem;

/// A network in training.
pub struct Plain {
    plan: Plan,
    /// How values are stored.
    round: fn(f32) -> f32,
    stem: Stem,
    blocks: Vec<Block>,
    /// BN and weight of each transition.
    transitions: Vec<(Norm, usize)>,
    norm: Norm,
    classifier: usize,
    bias: usize,
    /// Parameters and running statistics.
    pub state: State,
    /// Gradients of the parameters.
    pub gradients: Vec<f32>,
    /// Their momentum.
    pub momentum: Vec<f32>,
    /// The latest logits.
    pub logits: Vec<f32>,
}

/// The values that a forward pass keeps for the backward pass.
struct Trace {
    /// All maps of each block.
    blocks: Vec<Maps>,
    features: Vec<f32>,
    logit_gradient: Vec<f64>,
}

impl Plain {
    /// A network in a state.
    pub fn new(plan: &Plan, state: &State, round: fn(f32) -> f32) -> Self {
        let tensors = plan.tensors();
        let stem = Stem::new(
            *plan.stem(),
            tensors.stem.conv.weight.start,
            tensors.stem.norm.map(Norm::new),
        );
        let layer = |at: &LayerTensors| Layer {
            norm1: Norm::new(at.norm1),
            narrow: at
                .narrow
                .map(|(conv, norm)| (conv.weight.start, Norm::new(norm))),
            conv: at.conv.weight.start,
        };
        let blocks = plan.blocks().iter().zip(&tensors.blocks);
        let blocks = blocks
            .map(|(block, layers)| Block::new(*block, layers.iter().map(layer).collect(), round));
        let transitions = tensors.transitions.iter();
        let transitions = transitions.map(|at| (Norm::new(at.norm), at.conv.weight.start));
        let head = &tensors.head;
        Self {
            plan: plan.clone(),
            round,
            stem,
            blocks: blocks.collect(),
            transitions: transitions.collect(),
            norm: Norm::new(head.norm),
            classifier: head.weight.start,
            bias: head.bias.start,
            state: state.clone(),
            gradients: vec![0.0; plan.parameter_count()],
            momentum: vec![0.0; plan.parameter_count()],
            logits: Vec::new(),
        }
    }

    /// Stores the buffer to which all consumers of a block's maps add their gradients in another
    /// format than the rest.
    pub fn accumulate_in(&mut self, round: fn(f32) -> f32) {
        for block in &mut self.blocks {
            block.accumulate = round;
        }
    }

    fn forward(&mut self, images: &[f32], batch: usize, training: bool) -> Trace {
        let mut input = self
            .stem
            .forward(images, batch, &mut self.state, self.round, training);
        let mut kept = Vec::new();
        for index in 0..self.blocks.len() {
            let block = &mut self.blocks[index];
            let maps = block.forward(input, &mut self.state, self.round, training);
            input = Maps::default();
            if let Some((norm, weight)) = self.transitions.get_mut(index) {
                norm.prepare(&maps, &mut self.state, training);
                let pooled = maps.pooled(norm).rounded(self.round);
                let output = self.plan.transitions()[index].output;
                let weight = rounded(
                    &self.state.parameters[*weight..][..output * maps.channels],
                    self.round,
                );
                input = Product::pointwise(output)
                    .forward(&pooled, &weight)
                    .rounded(self.round);
            }
            kept.push(maps);
        }
        let last = kept.last().unwrap();
        self.norm.prepare(last, &mut self.state, training);
        let features = last.averaged(&self.norm);
        let (channels, classes) = (last.channels, self.plan.classes());
        self.logits.clear();
        for features in features.chunks_exact(channels) {
            for k in 0..classes {
                let weight = &self.state.parameters[self.classifier + k * channels..][..channels];
                let products = features
                    .iter()
                    .zip(weight)
                    .map(|(&x, &w)| self.product(x, w));
                let bias = f64::from(self.state.parameters[self.bias + k]);
                self.logits.push((products.sum::<f64>() + bias) as f32);
            }
        }
        Trace {
            blocks: kept,
            features,
            logit_gradient: Vec::new(),
        }
    }

    fn product(&self, x: f32, w: f32) -> f64 {
        f64::from((self.round)(x)) * f64::from((self.round)(w))
    }

    /// The loss, and the gradient of the logits.
    fn loss(&self, labels: &[u32], smoothing: f64, scale: f64) -> (Outcome, Vec<f64>) {
        let (classes, batch) = (self.plan.classes(), labels.len() as f64);
        let (mut outcome, mut gradient) = (Outcome::default(), Vec::new());
        for (z, &label) in self.logits.chunks_exact(classes).zip(labels) {
            let total: f64 = z.iter().map(|&z| f64::from(z).exp()).sum();
            for (k, &z) in z.iter().enumerate() {
                let own = if k == label as usize {
                    1.0 - smoothing
                } else {
                    0.0
                };
                let target = own + smoothing / classes as f64;
                outcome.loss += target * (total.ln() - f64::from(z)) / batch;
                gradient.push(scale / batch * (f64::from(z).exp() / total - target));
            }
        }
        (outcome, gradient)
    }

    /// Forward and backward pass on images in NCHW; the loss.
    pub fn differentiate(&mut self, images: &[f32], labels: &[u32], step: Step) -> f64 {
        if !step.accumulate {
            self.gradients.fill(0.0);
        }
        let mut trace = self.forward(images, labels.len(), true);
        let (outcome, gradient) = self.loss(labels, step.label_smoothing.into(), step.scale.into());
        trace.logit_gradient = gradient;
        self.backward(&trace);
        outcome.loss
    }

    /// The loss with the running statistics.
    pub fn evaluate(&mut self, images: &[f32], labels: &[u32]) -> f64 {
        self.forward(images, labels.len(), false);
        self.loss(labels, 0.0, 1.0).0.loss
    }

    fn backward(&mut self, trace: &Trace) {
        let last = trace.blocks.len() - 1;
        let d = self.head_backward(trace);
        let Self {
            blocks, gradients, ..
        } = self;
        blocks[last].start(&trace.blocks[last]);
        blocks[last].consume(&self.norm, &trace.blocks[last], &d, &self.state, gradients);
        for index in (0..=last).rev() {
            let maps = &trace.blocks[index];
            let dinput =
                self.blocks[index].backward(maps, &self.state, &mut self.gradients, self.round);
            let Some(before) = index.checked_sub(1) else {
                self.stem
                    .backward(&dinput, &self.state, &mut self.gradients, self.round);
                return;
            };
            let (norm, weight) = &self.transitions[before];
            let maps = &trace.blocks[before];
            let range = *weight..*weight + dinput.channels * maps.channels;
            let product = Product::pointwise(dinput.channels);
            let pooled = maps.pooled(norm).rounded(self.round);
            product.add_weight(&dinput, &pooled, &mut self.gradients[range.clone()]);
            let values = rounded(&self.state.parameters[range], self.round);
            let d = maps.spread(&product.backward(&dinput, &values, &pooled));
            self.blocks[before].start(maps);
            self.blocks[before].consume(norm, maps, &d, &self.state, &mut self.gradients);
        }
    }

    /// The gradient of the output of the last BN and ReLU.
    fn head_backward(&mut self, trace: &Trace) -> Vec<f32> {
        let last = trace.blocks.last().unwrap();
        let (channels, classes, area) =
            (last.channels, self.plan.classes(), last.height * last.width);
        let batch = last.batch;
        let mut dfeatures = vec![0.0f64; batch * channels];
        for (i, &d) in trace.logit_gradient.iter().enumerate() {
            let (b, k) = (i / classes, i % classes);
            self.gradients[self.bias + k] += d as f32;
            for c in 0..channels {
                let at = self.classifier + k * channels + c;
                dfeatures[b * channels + c] += self.product(d as f32, self.state.parameters[at]);
                self.gradients[at] +=
                    self.product(d as f32, trace.features[b * channels + c]) as f32;
            }
        }
        let value =
            |i: usize| dfeatures[i / channels / area * channels + i % channels] / area as f64;
        (0..last.values.len()).map(|i| value(i) as f32).collect()
    }

    /// Gradient descent.
    pub fn descend(&mut self, sgd: Sgd) {
        let values = self.state.parameters.iter_mut().zip(&mut self.momentum);
        for ((parameter, momentum), gradient) in values.zip(&self.gradients) {
            let slope = gradient + sgd.weight_decay * *parameter;
            *momentum = sgd.momentum * *momentum + slope;
            let by = if sgd.nesterov {
                slope + sgd.momentum * *momentum
            } else {
                *momentum
            };
            *parameter -= sgd.learning_rate * by;
        }
    }
}

/// Values as operands.
fn rounded(values: &[f32], round: fn(f32) -> f32) -> Vec<f32> {
    values.iter().map(|&value| round(value)).collect()
}
