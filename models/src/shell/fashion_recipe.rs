//! The recipe of training on Fashion-MNIST.

use std::error::Error;

use clap::Args;
use densenet_runtime::data::{Dataset, InMemory, ShiftAndFlip};
use densenet_runtime::prelude::*;

use super::{Fashion, TrainingOptions};

/// The recipe of [`ClothesBc`](crate::ClothesBc)'s weights, except for their 93 epochs and the
/// rectangle erased from a quarter of their images, with options: SGD with Nesterov momentum 0.9,
/// one cycle of the learning rate, label smoothing, and images shifted by up to four pixels and
/// mirrored.
#[derive(Args, Clone, Debug)]
pub struct FashionRecipe {
    /// Trains without the first N training images and tests on them, to choose a recipe with.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub held_out: usize,
    /// Epochs over which the learning rate rises from a 25th [default: a tenth of all].
    #[arg(long, value_name = "EPOCHS")]
    warmup: Option<f64>,
    /// Weight decay [default: 0.0005].
    #[arg(long, value_name = "F")]
    weight_decay: Option<f32>,
    /// The share of the target that is spread over all classes [default: 0.1].
    #[arg(long, value_name = "F")]
    label_smoothing: Option<f32>,
    /// The share of images from which a rectangle is erased.
    #[arg(long, value_name = "F", default_value_t = 0.0)]
    pub erase: f64,
    /// Averages weights and statistics over the steps, with this decay, such as 0.999; the average
    /// is evaluated and saved.
    #[arg(long, value_name = "DECAY")]
    ema: Option<f64>,
}

impl FashionRecipe {
    /// The settings of a run over these epochs, with batches of this many images.
    pub fn settings(&self, epochs: u32, batch: usize) -> Config {
        let base = Config::cifar();
        let learning_rate = 0.1 * batch as f32 / base.batch as f32;
        Config {
            epochs,
            batch,
            schedule: Schedule::one_cycle(learning_rate, self.warmup(epochs)),
            weight_decay: self.weight_decay.unwrap_or(5e-4),
            label_smoothing: self.label_smoothing.unwrap_or(0.1),
            ema: self.ema,
            ..base
        }
    }

    /// The settings of a command line: those of its checkpoint, or else 50 epochs of this recipe,
    /// with its options.
    ///
    /// # Errors
    /// When the checkpoint cannot be read, or the settings make no sense.
    pub fn config(
        &self,
        options: &TrainingOptions,
        ranks: &Ranks,
    ) -> Result<Config, Box<dyn Error>> {
        let mut config = options.config(self.settings(50, 64), ranks)?;
        if options.checkpoint().is_none() {
            config.schedule.warmup = self.warmup(config.epochs);
        } else {
            // The trainer refuses what differs from the checkpoint.
            config.schedule.warmup = self.warmup.unwrap_or(config.schedule.warmup);
            config.weight_decay = self.weight_decay.unwrap_or(config.weight_decay);
            config.label_smoothing = self.label_smoothing.unwrap_or(config.label_smoothing);
            config.ema = self.ema.or(config.ema);
        }
        config.check()?;
        Ok(config)
    }

    fn warmup(&self, epochs: u32) -> f64 {
        self.warmup.unwrap_or(f64::from(epochs) / 10.0)
    }

    /// Images to train on, and to test on: the held-out ones, if there are any.
    ///
    /// # Errors
    /// When the files are missing or damaged, no image is left to train on, or the share of images
    /// with an erased part is not in [0, 1].
    pub fn sets(&self, fashion: &Fashion) -> Result<(InMemory, InMemory), Box<dyn Error>> {
        let (mut train, mut test) = fashion.read()?;
        if self.held_out > 0 {
            let images = train.len();
            if self.held_out >= images {
                let held_out = self.held_out;
                return Err(format!(
                    "--held-out {held_out}: there are {images} images to train on, and one must be left"
                )
                .into());
            }
            (test, train) = train.split(self.held_out);
        }
        let augmentation = ShiftAndFlip {
            erase: self.erase,
            ..ShiftAndFlip::paper(train.mean_colour())
        };
        Ok((train.augmented(augmentation)?, test))
    }
}
