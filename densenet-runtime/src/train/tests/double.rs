//! A small executor to test the loop with: softmax regression on the pixels.

use crate::plan::{BlockSpec, Plan, Ratio, Spec, StemKind};
use crate::{
    Arena, Batch, Descent, Executor, ExecutorError, LossWeights, Optimizer, Outcome, Pixels, Step,
    Targets,
};

pub const CLASSES: usize = 6;
pub const PIXELS: usize = 16;

/// A plan of the images and classes at hand; its parameters are more than the regression needs.
pub fn plan(dropout: f64) -> Plan {
    Spec {
        blocks: vec![BlockSpec {
            layers: 1,
            growth: 2,
        }],
        theta: Ratio::ONE,
        bottleneck: None,
        stem: StemKind::Cifar,
        init: 4,
        input: [1, 4, 4],
        classes: CLASSES,
        dropout,
    }
    .plan()
    .unwrap()
}

/// Softmax regression, with input dropout, a running mean of the loss, and the optimiser that
/// the executors share.
pub struct Regression {
    plan: Plan,
    capacity: usize,
    parameters: Vec<f32>,
    gradients: Vec<f32>,
    momentum: Vec<f32>,
    running: Vec<f32>,
    running_before: Vec<f32>,
    logits: Vec<f32>,
}

impl Regression {
    pub fn new(dropout: f64, capacity: usize) -> Self {
        let plan = plan(dropout);
        let parameters = plan.parameter_count();
        assert!(parameters >= CLASSES * (PIXELS + 1));
        Self {
            parameters: vec![0.0; parameters],
            gradients: vec![0.0; parameters],
            momentum: vec![0.0; parameters],
            running: vec![0.0; plan.running_count()],
            running_before: vec![0.0; plan.running_count()],
            logits: Vec::new(),
            capacity,
            plan,
        }
    }

    fn arena(&self, arena: Arena) -> &[f32] {
        match arena {
            Arena::Parameters => &self.parameters,
            Arena::Gradients => &self.gradients,
            Arena::Momentum => &self.momentum,
            Arena::Running => &self.running,
            other => panic!("the double has no {other:?}"),
        }
    }

    /// Outcome, and the gradient of the mean loss.
    fn compute(&mut self, batch: Batch<'_>, smoothing: f32, seed: u64) -> (Outcome, Vec<f32>) {
        let Pixels::Nchw(pixels) = batch.pixels else {
            panic!("the tests hand in floats");
        };
        let Targets::Classes(labels) = batch.targets else {
            panic!("the tests hand in classes");
        };
        let images = labels.len();
        let mut outcome = Outcome {
            weight: images as f64,
            ..Outcome::default()
        };
        let mut gradient = vec![0.0; self.parameters.len()];
        self.logits.clear();
        for (index, &label) in labels.iter().enumerate() {
            let image = &pixels[index * PIXELS..][..PIXELS];
            let kept: Vec<f32> = image
                .iter()
                .enumerate()
                .map(|(pixel, &value)| {
                    let die = (index * PIXELS + pixel) as u64;
                    let die = (seed ^ die).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                    let dropped = (die as f64 / 16_777_216.0) < self.plan.dropout() && seed != 0;
                    if dropped { 0.0 } else { value }
                })
                .collect();
            let logits: Vec<f64> = (0..CLASSES)
                .map(|class| {
                    let row = &self.parameters[class * (PIXELS + 1)..][..PIXELS + 1];
                    let dot: f32 = row.iter().zip(&kept).map(|(w, x)| w * x).sum();
                    f64::from(dot + row[PIXELS])
                })
                .collect();
            let sum: f64 = logits.iter().map(|z| z.exp()).sum();
            let label = label as usize;
            outcome.count(&logits, label);
            for class in 0..CLASSES {
                let spread = f64::from(smoothing) / CLASSES as f64;
                let own = if class == label {
                    1.0 - f64::from(smoothing)
                } else {
                    0.0
                };
                let target = own + spread;
                outcome.loss -= target * (logits[class] - sum.ln()) / images as f64;
                let error = ((logits[class].exp() / sum - target) / images as f64) as f32;
                let row = &mut gradient[class * (PIXELS + 1)..][..PIXELS + 1];
                for (into, x) in row.iter_mut().zip(kept.iter().chain(&[1.0])) {
                    *into += error * x;
                }
            }
            self.logits.extend(logits.iter().map(|&z| z as f32));
        }
        (outcome, gradient)
    }
}

impl Executor for Regression {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<(), ExecutorError> {
        into.copy_from_slice(self.arena(arena));
        Ok(())
    }

    fn write(&mut self, arena: Arena, from: &[f32]) -> Result<(), ExecutorError> {
        match arena {
            Arena::Parameters => self.parameters.copy_from_slice(from),
            Arena::Gradients => self.gradients.copy_from_slice(from),
            Arena::Momentum => self.momentum.copy_from_slice(from),
            Arena::Running => self.running.copy_from_slice(from),
            other => panic!("the double has no {other:?}"),
        }
        Ok(())
    }

    fn set_loss_weights(&mut self, weights: &LossWeights) -> Result<(), ExecutorError> {
        assert_eq!(weights, &LossWeights::default(), "it has no weights");
        Ok(())
    }

    fn differentiate(&mut self, batch: Batch<'_>, step: Step) -> Result<Outcome, ExecutorError> {
        let found = batch.images(&self.plan);
        if found == 0 || found > self.capacity {
            let capacity = self.capacity;
            return Err(ExecutorError::BatchSize { found, capacity });
        }
        let (outcome, gradient) = self.compute(batch, step.label_smoothing, step.seed);
        for (into, from) in self.gradients.iter_mut().zip(gradient) {
            let before = if step.accumulate { *into } else { 0.0 };
            *into = before + step.scale * from;
        }
        if !step.accumulate {
            self.running_before.clone_from(&self.running);
        }
        self.running[0] = 0.9 * self.running[0] + 0.1 * outcome.loss as f32;
        if !outcome.loss.is_finite() {
            self.running.clone_from(&self.running_before);
        }
        Ok(outcome)
    }

    fn descend(&mut self, descent: Descent) -> Result<(), ExecutorError> {
        let Optimizer::Sgd(sgd) = descent.optimizer else {
            panic!("the double knows SGD alone");
        };
        let numbers = self.parameters.iter_mut().zip(&mut self.momentum);
        for ((w, v), g) in numbers.zip(&self.gradients) {
            let g = g + sgd.weight_decay * *w;
            *v = sgd.momentum * *v + g;
            *w -= sgd.learning_rate
                * if sgd.nesterov {
                    g + sgd.momentum * *v
                } else {
                    *v
                };
        }
        Ok(())
    }

    fn update_statistics(&mut self, batch: Batch<'_>) -> Result<(), ExecutorError> {
        let outcome = self.compute(batch, 0.0, 0).0;
        self.running[0] = 0.9 * self.running[0] + 0.1 * outcome.loss as f32;
        Ok(())
    }

    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Outcome, ExecutorError> {
        let found = batch.images(&self.plan);
        if found == 0 || found > self.capacity {
            let capacity = self.capacity;
            return Err(ExecutorError::BatchSize { found, capacity });
        }
        Ok(self.compute(batch, 0.0, 0).0)
    }

    fn logits(&self, into: &mut [f32]) -> Result<(), ExecutorError> {
        into.copy_from_slice(&self.logits);
        Ok(())
    }
}
