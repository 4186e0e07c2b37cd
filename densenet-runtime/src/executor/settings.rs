//! How gradients are computed, and how parameters move along them.

/// How gradients are computed.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The share of the target that is spread over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// Multiplies the gradient: 1 / n where n batches are accumulated.
    pub scale: f32,
    /// Adds to the gradients instead of replacing them. The first batch of a step does not: it keeps the
    /// running statistics, which a loss that is not finite restores.
    pub accumulate: bool,
    /// Seeds dropout; a new one for each step.
    pub seed: u64,
}

impl Default for Step {
    /// One batch of its own, without label smoothing.
    fn default() -> Self {
        Self {
            label_smoothing: 0.0,
            scale: 1.0,
            accumulate: false,
            seed: 0,
        }
    }
}

/// Stochastic gradient descent with Nesterov momentum, without dampening (paper, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub learning_rate: f32,
    /// Momentum; 0.9 in the paper.
    pub momentum: f32,
    /// Weight decay of every parameter; 1e-4 in the paper.
    pub weight_decay: f32,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
}

impl Default for Sgd {
    /// The paper's, with its first learning rate.
    fn default() -> Self {
        Self {
            learning_rate: 0.1,
            momentum: 0.9,
            weight_decay: 1e-4,
            nesterov: true,
        }
    }
}

/// AdamW (Loshchilov and Hutter, 2019): Adam with weight decay that does not go through the
/// moments, as PyTorch's `torch.optim.AdamW`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub learning_rate: f32,
    /// How much of the first and of the second moment stays in each step.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// The share of each parameter that a step subtracts, times the learning rate.
    pub weight_decay: f32,
    /// The number of this step, counted from 1: the first moments are zeros, which the step
    /// corrects for.
    pub step: u64,
}

impl Default for AdamW {
    /// PyTorch's, for the first step.
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            weight_decay: 1e-2,
            step: 1,
        }
    }
}

impl AdamW {
    /// How far each moment moves towards that of the current gradient.
    pub(crate) fn fresh(&self) -> [f32; 2] {
        self.betas.map(|beta| (1.0 - beta) as f32)
    }

    /// Factors that correct for moments that started as zeros: one for the first moment, and one
    /// for the root of the second.
    pub(crate) fn corrections(&self) -> [f32; 2] {
        // After this many steps the correction is 1 for all betas that f64 distinguishes from 1.
        let steps = self.step.min(i32::MAX as u64) as i32;
        let [first, second] = self.betas.map(|beta| 1.0 / (1.0 - beta.powi(steps)));
        [first as f32, second.sqrt() as f32]
    }
}

/// An optimiser, and its settings for one step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Optimizer {
    /// SGD with momentum.
    Sgd(Sgd),
    /// AdamW. The executor must be made with second moments.
    AdamW(AdamW),
}

/// The settings of a step along the gradients (`descend`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Descent {
    /// The optimiser.
    pub optimizer: Optimizer,
    /// The largest norm of all gradients together (the root of the sum of their squares). Larger
    /// gradients are scaled down to it, as by `torch.nn.utils.clip_grad_norm_`.
    pub clip: Option<f32>,
    /// The decay of the exponential moving average (EMA) of parameters and running statistics: each
    /// step moves it by 1 - decay of the way to them. The executor must be made with an average.
    pub ema: Option<f64>,
}

impl Descent {
    /// How far the average moves towards the current values, if there is one.
    pub(crate) fn fresh(&self) -> Option<f32> {
        self.ema.map(|decay| (1.0 - decay) as f32)
    }
}

/// Added to a norm before something is divided by it, as in `clip_grad_norm_`.
pub(crate) const NORM_EPSILON: f32 = 1e-6;

impl From<Optimizer> for Descent {
    /// Without clipping and average.
    fn from(optimizer: Optimizer) -> Self {
        Self {
            optimizer,
            clip: None,
            ema: None,
        }
    }
}

impl From<Sgd> for Descent {
    /// Without clipping and average.
    fn from(sgd: Sgd) -> Self {
        Optimizer::Sgd(sgd).into()
    }
}

impl From<AdamW> for Descent {
    /// Without clipping and average.
    fn from(adamw: AdamW) -> Self {
        Optimizer::AdamW(adamw).into()
    }
}
