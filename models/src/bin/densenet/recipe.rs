//! How a network is trained.

use clap::{Args, ValueEnum};
use densenet_runtime::LossWeights;
use densenet_runtime::data::{DataError, Dataset, LabelKind, class_weights, positive_weights};
use densenet_runtime::prelude::*;
use densenet_runtime::train::{
    Algorithm, BestBy, CYCLED_MOMENTUM, Decay, Freeze, PartRate, ThresholdRule,
};

use crate::pictures::kind_of;

/// The options that change the recipe of a run.
#[derive(Args)]
pub struct Recipe {
    /// The learning-rate schedule after the warm-up [default: cosine].
    #[arg(long, value_enum)]
    schedule: Option<Shape>,
    /// Lowers the momentum (AdamW's first beta) from 0.95 to 0.85 while the learning rate of one
    /// cycle rises, and raises it again while that falls.
    #[arg(long)]
    cycle_momentum: bool,
    /// Epochs over which the learning rate rises [default: 1, or three tenths of all with `--schedule one-cycle`].
    #[arg(long, value_name = "EPOCHS", value_parser = at_least_zero)]
    warmup: Option<f64>,
    /// The optimiser [default: sgd, with Nesterov momentum 0.9]; AdamW needs a learning rate of about 0.0003.
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerName>,
    /// Weight decay [default: 1e-4].
    #[arg(long, value_name = "F")]
    weight_decay: Option<f32>,
    /// Leaves BN's gamma and beta and the classifier's bias without weight decay.
    #[arg(long)]
    no_decay: bool,
    /// The largest norm of all gradients together; larger ones are scaled down to it.
    #[arg(long, value_name = "NORM")]
    clip: Option<f32>,
    /// Averages weights and statistics over the steps, with this decay, such as 0.999; the average
    /// is evaluated and saved.
    #[arg(long, value_name = "DECAY")]
    ema: Option<f64>,
    /// Parts that do not train: features (all but the classifier), conv0, denseblock1,
    /// denseblock1.denselayer2, norms (all BNs, which keep their statistics), ...
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    freeze: Vec<String>,
    /// The first part that trains, such as denseblock4; what is before it does not.
    #[arg(long, value_name = "PART", conflicts_with = "freeze")]
    freeze_until: Option<String>,
    /// A part's share of the learning rate, such as denseblock1=0.1.
    #[arg(long, value_name = "PART=SHARE", value_delimiter = ',', value_parser = part_rate)]
    part_rate: Vec<PartRate>,
    /// Label smoothing: the share of the target that is spread over all classes [default: 0.1, or 0
    /// if a picture may have several classes].
    #[arg(long, value_name = "F")]
    label_smoothing: Option<f32>,
    /// The score that selects the best evaluation: top1_error, loss, accuracy, auroc,
    /// average_precision, ... [default: top1_error, or auroc if a picture may have several
    /// classes].
    #[arg(long, value_name = "SCORE")]
    best_by: Option<BestBy>,
    /// Chooses each class's threshold for `predict` at each evaluation, if a picture may have
    /// several classes: youden (the highest sum of sensitivity and specificity), or sensitivity=0.9
    /// (the highest threshold that finds this share of the class's pictures).
    #[arg(long, value_name = "RULE")]
    threshold: Option<ThresholdRule>,
    /// Gives rare classes more weight in the loss, so that all classes have the same total weight.
    #[arg(long)]
    balance: bool,
    /// A class's weight in the loss, such as 'rare=4', once for each class; the others have 1. It
    /// takes precedence over `--balance`.
    #[arg(long, value_name = "CLASS=WEIGHT", value_parser = class_weight)]
    class_weight: Vec<(String, f32)>,
    /// The weight of a class where it applies, if a picture may have several classes, such as
    /// 'rare=4', once for each class; the others have 1. It takes precedence over `--balance`.
    #[arg(long, value_name = "CLASS=WEIGHT", value_parser = class_weight)]
    positive_weight: Vec<(String, f32)>,
    /// Ends the run after this many evaluations in a row that did not improve on the best one.
    #[arg(long, value_name = "N")]
    pub patience: Option<u32>,
}

/// An optimiser.
#[derive(Clone, Copy, ValueEnum)]
enum OptimizerName {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// AdamW, with PyTorch's betas and epsilon.
    Adamw,
}

/// How a learning rate goes on.
#[derive(Clone, Copy, ValueEnum)]
enum Shape {
    /// It does not change.
    Constant,
    /// It falls to a tenth after half of the run, and again after three quarters.
    Steps,
    /// It falls to 0 as half a cosine.
    Cosine,
    /// It rises from a 25th as half a cosine, and falls as another to a ten-thousandth of the first value.
    OneCycle,
    /// It falls to a tenth when evaluations stop improving.
    Plateau,
}

impl Shape {
    /// With the defaults of PyTorch's schedulers; a plateau is three evaluations.
    fn decay(self) -> Decay {
        match self {
            Self::Constant => Schedule::constant(1.0),
            Self::Steps => Schedule::halves(1.0),
            Self::Cosine => Schedule::cosine(1.0, 0.0),
            Self::OneCycle => Schedule::one_cycle(1.0, 0.0),
            Self::Plateau => Schedule::plateau(1.0, 3),
        }
        .decay
    }
}

impl Recipe {
    /// The settings of a new run, before options change them.
    pub fn settings(is_pretrained: bool, kind: LabelKind) -> Config {
        Config {
            epochs: 20,
            batch: 32,
            schedule: Schedule::cosine(if is_pretrained { 0.01 } else { 0.1 }, 1.0),
            label_smoothing: match kind {
                LabelKind::Exclusive => 0.1,
                LabelKind::Independent => 0.0,
            },
            ..Config::imagenet()
        }
    }

    /// The warm-up of a new run, in epochs: of one cycle, PyTorch's share of the run.
    pub fn usual_warmup(&self, config: &Config) -> f64 {
        match self.schedule {
            Some(Shape::OneCycle) => 0.3 * f64::from(config.epochs),
            _ => config.schedule.warmup,
        }
    }

    /// Changes settings by the options, for these pictures.
    pub fn change(&self, mut config: Config, set: &dyn Dataset) -> Result<Config, DataError> {
        if let Some(shape) = self.schedule {
            config.schedule.decay = shape.decay();
        }
        if self.cycle_momentum {
            let Decay::OneCycle { momentum, .. } = &mut config.schedule.decay else {
                return Err(DataError::Options(
                    "--cycle-momentum is for --schedule one-cycle; other schedules have no cycle"
                        .into(),
                ));
            };
            *momentum = Some(CYCLED_MOMENTUM);
        }
        config.schedule.warmup = self.warmup.unwrap_or(config.schedule.warmup);
        config.weight_decay = self.weight_decay.unwrap_or(config.weight_decay);
        config.label_smoothing = self.label_smoothing.unwrap_or(config.label_smoothing);
        if config.label_smoothing != 0.0 && kind_of(set) == LabelKind::Independent {
            return Err(DataError::Options(
                "--label-smoothing is for pictures that have one class each; these may have several, whose labels are not smoothed: leave it out".into(),
            ));
        }
        if let Some(optimizer) = self.optimizer {
            config.optimizer = match optimizer {
                OptimizerName::Sgd => Algorithm::Sgd,
                OptimizerName::Adamw => Algorithm::adamw(),
            };
        }
        config.best_by = self.best_by.unwrap_or(config.best_by);
        if matches!(config.best_by, BestBy::Top1Error | BestBy::Top5Error)
            && kind_of(set) == LabelKind::Independent
        {
            return Err(DataError::Options(
                "--best-by top1_error and top5_error are for pictures that have one class each; these \
                    may have several, so use auroc, average_precision, accuracy, calibration_error or loss"
                    .into(),
            ));
        }
        config.threshold = self.threshold.or(config.threshold);
        if config.threshold.is_some() && kind_of(set) == LabelKind::Exclusive {
            return Err(DataError::Options(
                "--threshold is for pictures that may have several classes; these have one each, \
                    and the likeliest class is predicted"
                    .into(),
            ));
        }
        config.no_decay |= self.no_decay;
        config.clip = self.clip.or(config.clip);
        config.ema = self.ema.or(config.ema);
        if let Some(stage) = &self.freeze_until {
            config.freeze = Freeze::until(stage);
        } else if !self.freeze.is_empty() {
            config.freeze = Freeze::parts(self.freeze.clone());
        }
        if !self.part_rate.is_empty() {
            config.part_rates.clone_from(&self.part_rate);
        }
        if self.balance {
            match kind_of(set) {
                LabelKind::Exclusive => config.loss_weights.classes = class_weights(set)?,
                LabelKind::Independent => config.loss_weights.positive = positive_weights(set)?,
            }
        }
        if !self.positive_weight.is_empty() && kind_of(set) == LabelKind::Exclusive {
            return Err(DataError::Options(
                "--positive-weight is for pictures that may have several classes; these have one \
                    each, and --class-weight weighs it"
                    .into(),
            ));
        }
        let LossWeights { classes, positive } = &mut config.loss_weights;
        for (option, own, weights) in [
            ("--class-weight", &self.class_weight, classes),
            ("--positive-weight", &self.positive_weight, positive),
        ] {
            weigh(option, own, set.classes(), weights)?;
        }
        Ok(config)
    }
}

/// Sets the weights of classes that an option names; those of other classes stay, or are 1.
fn weigh(
    option: &str,
    named: &[(String, f32)],
    classes: &[String],
    weights: &mut Vec<f32>,
) -> Result<(), DataError> {
    for (index, (name, weight)) in named.iter().enumerate() {
        let Some(class) = classes.iter().position(|class| class == name) else {
            let classes = classes.join(", ");
            return Err(DataError::Options(format!(
                "{option} names `{name}`, but the pictures have the classes {classes}"
            )));
        };
        if named[..index].iter().any(|(before, _)| before == name) {
            return Err(DataError::Options(format!(
                "{option} names `{name}` twice; leave one out"
            )));
        }
        weights.resize(classes.len(), 1.0);
        weights[class] = *weight;
    }
    Ok(())
}

/// A name and its number, written as this example. The run's settings check the number.
fn named(text: &str, example: &str) -> Result<(String, f32), String> {
    let read = text.rsplit_once('=');
    let read = read.and_then(|(name, number)| Some((name.to_string(), number.parse().ok()?)));
    read.ok_or_else(|| format!("write it as {example}"))
}

fn class_weight(text: &str) -> Result<(String, f32), String> {
    named(text, "CLASS=4")
}

fn part_rate(text: &str) -> Result<PartRate, String> {
    named(text, "denseblock1=0.1").map(|(part, rate)| PartRate { part, rate })
}

fn at_least_zero(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..f64::INFINITY).contains(&number) => Ok(number),
        _ => Err("it must be a number of 0 or more".to_string()),
    }
}
