//! How gradients are computed, and how parameters move along them.

/// How gradients are computed.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The share of the target that is spread over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// Multiplies the gradient: 1 / n where n batches are accumulated.
    pub scale: f32,
    /// Adds to the gradients instead of replacing them.
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
    /// Weight decay, on every parameter; 1e-4 in the paper.
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
