//! The settings of a run.

mod differences;
mod executor;
mod groups;

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::score::{BestBy, ThresholdRule};
use super::{Freeze, PartRate, Progress, Schedule, TrainError};
use crate::executor::check_loss_weights;
use crate::plan::{Precision, Recompute};
use crate::{AdamW, Descent, LossWeights, Optimizer, Sgd};

/// The names of a [`Precision`] in checkpoints: the plan knows no file formats.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Precision", rename_all = "lowercase")]
enum PrecisionName {
    F32,
    Bf16,
}

/// The fields of [`LossWeights`] in checkpoints, for the same reason.
#[derive(Serialize, Deserialize)]
#[serde(remote = "LossWeights")]
struct LossWeightFields {
    classes: Vec<f32>,
    positive: Vec<f32>,
}

/// The optimiser of a run. Its weight decay is [`Config::weight_decay`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Algorithm {
    /// SGD with [`Config::momentum`].
    #[default]
    Sgd,
    /// AdamW: see [`AdamW`](crate::AdamW).
    AdamW {
        /// How much of the first and of the second moment stays in each step.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        epsilon: f32,
    },
}

impl Algorithm {
    /// AdamW with PyTorch's betas and epsilon.
    pub fn adamw() -> Self {
        let AdamW { betas, epsilon, .. } = AdamW::default();
        Self::AdamW { betas, epsilon }
    }
}

impl Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sgd => f.write_str("SGD"),
            Self::AdamW {
                betas: [first, second],
                epsilon,
            } => write!(
                f,
                "AdamW with betas {first} and {second} and epsilon {epsilon}"
            ),
        }
    }
}

/// The settings of a run. Start from the paper's and change what differs:
///
/// ```
/// use densenet_runtime::train::{Config, Schedule};
///
/// let config = Config {
///     batch: 32,
///     epochs: 20,
///     schedule: Schedule::cosine(0.05, 1.0),
///     ..Config::imagenet()
/// };
/// ```
///
/// # Precise BN
///
/// Training moves the running statistics a tenth of the way towards those of each batch. While the
/// weights change fast, as in a short run with a high learning rate, the statistics lag, and an
/// evaluation with them says little about the weights. With [`precise_bn`](Self::precise_bn), each
/// evaluation of [`Trainer::fit`](super::PlanTrainer::fit) starts with forward passes over some
/// training batches with the current weights, each normalised with its own statistics. The network
/// is evaluated with the mean and variance over all their images, and the next checkpoint has them
/// (Wu and Johnson, 2021, Rethinking "Batch" in BatchNorm, section 3). The running statistics of
/// training are kept apart, so evaluations do not change a single bit of a run's steps.
///
/// # EMA
///
/// With [`ema`](Self::ema), each step moves an average of the parameters and running statistics by
/// 1 - decay of the way to the current ones; it starts from the values before the first step. The
/// average is evaluated, [`Trainer::model`](super::Trainer::model) returns it, and checkpoints have
/// it under the network's names, so the best checkpoint holds the weights that were the best. The
/// weights in training are kept beside it. With precise BN, the statistics are those of the
/// averaged weights. This is `AveragedModel` with `use_buffers=True` in PyTorch, and `ModelEmaV3`
/// in timm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Passes over the training images.
    pub epochs: u32,
    /// The number of images in a step.
    pub batch: usize,
    /// The number of pieces that a step's batch is divided into. They are computed one after the
    /// other and their gradients are added, so one piece must fit in memory. Each piece is
    /// normalised with its own statistics.
    pub accumulation: usize,
    /// The learning rate.
    pub schedule: Schedule,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: Algorithm,
    /// Momentum of SGD. A schedule may have its own ([`Schedule::momentum`]).
    pub momentum: f32,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Weight decay, on every parameter.
    pub weight_decay: f32,
    /// The largest norm of all gradients together; `None` for any ([`Descent::clip`]).
    #[serde(default)]
    pub clip: Option<f32>,
    /// Parts of the network with a share of the learning rate of their own.
    #[serde(default)]
    pub part_rates: Vec<PartRate>,
    /// Leaves BN's gamma and beta and the classifier's bias without weight decay.
    #[serde(default)]
    pub no_decay: bool,
    /// The parts that do not train.
    #[serde(default)]
    pub freeze: Freeze,
    /// The decay of the exponential moving average of parameters and running statistics, such as
    /// 0.999; `None` for no average ([EMA](Self#ema)).
    #[serde(default)]
    pub ema: Option<f64>,
    /// The share of the target that is spread over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// The weights of the classes in the loss; empty if all are 1. Each piece of a step is divided by the
    /// weights of its own labels ([`Executor::set_loss_weights`](crate::Executor::set_loss_weights)).
    #[serde(default, with = "LossWeightFields")]
    pub loss_weights: LossWeights,
    /// The score by which an evaluation is the best of the run ([`Fit::best`](super::Fit::best)), and
    /// which a schedule with plateaus watches.
    #[serde(default)]
    pub best_by: BestBy,
    /// How each evaluation of the run chooses a threshold for the probability of each class; `None`
    /// for none. Checkpoints have those of the last evaluation
    /// ([`Notes::thresholds`](crate::weights::Notes#structfield.thresholds)). A resumed run may have
    /// another rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<ThresholdRule>,
    /// The number of training batches from which the running statistics are recomputed before an
    /// evaluation ([precise BN](Self#precise-bn)); 0 to evaluate with those of training.
    #[serde(default)]
    pub precise_bn: u32,
    /// The seed of dropout. (The initial weights depend on the model's seed, and the order of the
    /// images on the loader's.)
    pub seed: u64,
    /// The type of numbers that products are computed in.
    #[serde(default, with = "PrecisionName")]
    pub precision: Precision,
    /// The number of threads that compute; 0 for as many as [`cpu::threads`](crate::cpu::threads)
    /// says. A run repeats bit for bit with the same number of threads.
    #[serde(skip)]
    pub threads: usize,
    /// What the backward pass recomputes instead of keeping it.
    #[serde(skip)]
    pub recompute: Recompute,
}

impl Config {
    /// The paper's settings for ImageNet: 90 epochs, batch 256.
    pub fn imagenet() -> Self {
        Self::paper(90, 256, Schedule::thirties(0.1))
    }

    /// The paper's settings for CIFAR: 300 epochs, batch 64.
    pub fn cifar() -> Self {
        Self::paper(300, 64, Schedule::halves(0.1))
    }

    /// The paper's settings for SVHN: 40 epochs, batch 64.
    pub fn svhn() -> Self {
        Self::paper(40, 64, Schedule::halves(0.1))
    }

    fn paper(epochs: u32, batch: usize, schedule: Schedule) -> Self {
        Self {
            epochs,
            batch,
            accumulation: 1,
            schedule,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 1e-4,
            optimizer: Algorithm::Sgd,
            clip: None,
            part_rates: Vec::new(),
            no_decay: false,
            freeze: Freeze::Nothing,
            ema: None,
            label_smoothing: 0.0,
            loss_weights: LossWeights::default(),
            best_by: BestBy::Default,
            threshold: None,
            precise_bn: 0,
            seed: 0,
            precision: Precision::F32,
            threads: 0,
            recompute: Recompute::Nothing,
        }
    }

    /// The number of images that are computed at a time: those of the largest piece of a batch.
    pub fn piece(&self) -> usize {
        self.batch.div_ceil(self.accumulation.max(1))
    }

    /// Whether the optimiser needs second moments.
    pub(super) fn adapts(&self) -> bool {
        matches!(self.optimizer, Algorithm::AdamW { .. })
    }

    /// The settings of the descent in the run's step with this number, counted from 1; `progress`
    /// is the state before it.
    pub(super) fn descent(&self, progress: Progress, step: u64) -> Descent {
        let learning_rate = self.schedule.learning_rate(progress);
        let cycled = self.schedule.momentum(progress);
        let optimizer = match self.optimizer {
            Algorithm::Sgd => Optimizer::Sgd(Sgd {
                learning_rate,
                momentum: cycled.map_or(self.momentum, |cycled| cycled as f32),
                weight_decay: self.weight_decay,
                nesterov: self.nesterov,
            }),
            Algorithm::AdamW {
                betas: [first, second],
                epsilon,
            } => Optimizer::AdamW(AdamW {
                learning_rate,
                betas: [cycled.unwrap_or(first), second],
                epsilon,
                weight_decay: self.weight_decay,
                step,
            }),
        };
        Descent {
            optimizer,
            clip: self.clip,
            ema: self.ema,
        }
    }

    /// Checks that the settings make sense. A [`Trainer`](super::Trainer) does so, too; call this
    /// to find out earlier.
    ///
    /// # Errors
    /// The first setting that does not.
    pub fn check(&self) -> Result<(), TrainError> {
        let share = |value: f32| (0.0..1.0).contains(&value);
        let is_decay = |value: &f64| (0.0..1.0).contains(value);
        let problem = if self.epochs == 0 {
            Some("a run needs at least 1 epoch".to_string())
        } else if self.batch == 0 {
            Some("a batch needs at least 1 image".to_string())
        } else if self.accumulation == 0 || self.accumulation > self.batch {
            Some(format!(
                "a batch of {} images can be divided into 1 to {0} pieces, not {}",
                self.batch, self.accumulation
            ))
        } else if !share(self.momentum) {
            Some(format!(
                "momentum must be in [0, 1), found {}",
                self.momentum
            ))
        } else if let Algorithm::AdamW { betas, .. } = self.optimizer
            && !betas.iter().all(is_decay)
        {
            Some(format!("AdamW's betas must be in [0, 1), found {betas:?}"))
        } else if let Algorithm::AdamW { epsilon, .. } = self.optimizer
            && !(epsilon.is_finite() && epsilon > 0.0)
        {
            Some(format!(
                "AdamW's epsilon must be more than 0 and finite, found {epsilon}"
            ))
        } else if let Some(clip) = self.clip
            && !(clip.is_finite() && clip > 0.0)
        {
            Some(format!(
                "the largest norm of the gradients must be more than 0 and finite, found {clip}"
            ))
        } else if let Some(part) = self
            .part_rates
            .iter()
            .find(|part| !part.rate.is_finite() || part.rate < 0.0)
        {
            Some(format!(
                "a part's share of the learning rate must be 0 or more and finite, found {part}"
            ))
        } else if let Some(ema) = self.ema
            && !is_decay(&ema)
        {
            Some(format!(
                "the average's decay must be in [0, 1), found {ema}"
            ))
        } else if !share(self.label_smoothing) {
            Some(format!(
                "label smoothing must be in [0, 1), found {}",
                self.label_smoothing
            ))
        } else if !self.weight_decay.is_finite() || self.weight_decay < 0.0 {
            Some(format!(
                "weight decay must be 0 or more and finite, found {}",
                self.weight_decay
            ))
        } else if let Some(rule) = self.threshold
            && !rule.is_valid()
        {
            Some(format!(
                "the sensitivity of thresholds must be above 0 and at most 1, found {rule}"
            ))
        } else {
            self.schedule.problem()
        };
        // Only the network knows how many there must be.
        check_loss_weights(&self.loss_weights, None)?;
        match problem {
            Some(problem) => Err(TrainError::Config(problem)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_settings_are_valid() {
        for config in [Config::imagenet(), Config::cifar(), Config::svhn()] {
            config.check().unwrap();
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_with_a_reason() {
        let base = Config::cifar;
        let cases = [
            (
                Config {
                    epochs: 0,
                    ..base()
                },
                "epoch",
            ),
            (Config { batch: 0, ..base() }, "batch"),
            (
                Config {
                    accumulation: 65,
                    ..base()
                },
                "65",
            ),
            (
                Config {
                    momentum: 1.0,
                    ..base()
                },
                "momentum",
            ),
            (
                Config {
                    label_smoothing: 1.0,
                    ..base()
                },
                "smoothing",
            ),
            (
                Config {
                    optimizer: Algorithm::AdamW {
                        betas: [0.9, 1.0],
                        epsilon: 1e-8,
                    },
                    ..base()
                },
                "betas",
            ),
            (
                Config {
                    optimizer: Algorithm::AdamW {
                        betas: [0.9, 0.999],
                        epsilon: 0.0,
                    },
                    ..base()
                },
                "epsilon",
            ),
            (
                Config {
                    clip: Some(0.0),
                    ..base()
                },
                "norm",
            ),
            (
                Config {
                    ema: Some(1.0),
                    ..base()
                },
                "average",
            ),
            (
                Config {
                    weight_decay: -1.0,
                    ..base()
                },
                "weight decay",
            ),
            (
                Config {
                    schedule: Schedule::constant(f32::NAN),
                    ..base()
                },
                "learning rate",
            ),
        ];
        for (config, word) in cases {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn differences_name_what_changes_the_numbers_and_nothing_else() {
        let before = Config::cifar();
        let now = Config {
            batch: 32,
            threads: 3,
            recompute: Recompute::Bottlenecks,
            ..Config::cifar()
        };
        assert_eq!(now.differences(&before), ["batch was 64 and is 32"]);
        assert!(before.differences(&before).is_empty());
    }

    #[test]
    fn differences_are_in_words() {
        let before = Config {
            nesterov: false,
            schedule: Schedule::thirties(0.1),
            ..Config::cifar()
        };
        let now = Config {
            precision: Precision::Bf16,
            schedule: Schedule::cosine(0.01, 0.5),
            ..Config::cifar()
        };
        assert_eq!(
            now.differences(&before),
            [
                "learning rate was 0.1 and is 0.01",
                "warm-up was 0 epochs and is 0.5 epochs",
                "decay of the learning rate was by 10 after 30 epochs and 60 epochs and is half a cosine down to 0",
                "form of momentum was plain and is Nesterov's",
                "precision was f32 and is bf16",
            ]
        );
    }

    #[test]
    fn differences_of_the_optimiser_are_in_words() {
        let before = Config::cifar();
        let now = Config {
            optimizer: Algorithm::adamw(),
            clip: Some(1.0),
            ema: Some(0.999),
            ..Config::cifar()
        };
        assert_eq!(
            now.differences(&before),
            [
                "optimiser was SGD and is AdamW with betas 0.9 and 0.999 and epsilon 0.00000001",
                "largest norm of gradients was any and is 1",
                "decay of the average was none and is 0.999",
            ]
        );
    }

    #[test]
    fn a_run_may_be_made_longer_where_its_rates_stay_the_same() {
        let longer = |config: Config| Config {
            epochs: config.epochs + 10,
            ..config
        };
        let imagenet = Config::imagenet();
        assert!(longer(imagenet.clone()).differences(&imagenet).is_empty());
        let cifar = Config::cifar();
        assert_eq!(
            longer(cifar.clone()).differences(&cifar),
            ["epochs was 300 and is 310"]
        );
    }
}
