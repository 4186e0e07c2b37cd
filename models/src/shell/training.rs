//! The command line of a program that trains.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use densenet_runtime::cpu::Precision;
use densenet_runtime::plan::Recompute;
use densenet_runtime::prelude::*;
use densenet_runtime::train::{PlanTrainer, Summary};
use densenet_runtime::weights::TensorFile;
use densenet_runtime::{Network, Normalization, console};

use super::{CommandLine, normalization_for};

/// The options of all programs that train.
#[derive(Args)]
pub struct TrainingOptions {
    /// Passes over the training images.
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Stop after this many steps in all; the learning rate does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// The number of images in a step, on each rank.
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// The highest learning rate; without it, it is proportional to the images in a step.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    lr: Option<f32>,
    /// The device that computes: cpu, cuda (the first CUDA device), cuda:N, or best.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// The number of CPU threads of each rank [default: OMP_NUM_THREADS, or else the cores divided
    /// by the ranks on this machine].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// The number format of products; sums and parameters are f32 [default: f32].
    #[arg(long, value_name = "f32|bf16")]
    precision: Option<Precision>,
    /// Recomputes the bottleneck maps in the backward pass instead of keeping them: less memory,
    /// more time, the same numbers.
    #[arg(long)]
    recompute: bool,
    /// The number of training batches from which the running statistics are recomputed before an
    /// evaluation; 0 to evaluate with those of training.
    #[arg(long, value_name = "N")]
    precise_bn: Option<u32>,
    /// The seed of the weights and of the order and augmentation of the images [default: 0].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A checkpoint to resume, with its settings; `--lr` and `--epochs` change its schedule from that step on.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// The folder for checkpoint, metrics and curves [default: the checkpoint's folder, or a folder
    /// of the example's name in `out`].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The initial weights of an example.
#[derive(Args)]
pub struct Start {
    /// Weights of the same network to start from: safetensors under torchvision's names, or a
    /// checkpoint.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    weights: Option<PathBuf>,
}

impl Start {
    /// The initial network: seeded, or with the weights of a file.
    ///
    /// # Errors
    /// When the file cannot be read or does not fit.
    pub fn model<N: Network>(&self, config: &Config) -> Result<N, Box<dyn Error>> {
        let mut model = N::build(&Cpu::seed_from_u64(config.seed));
        if let Some(file) = &self.weights {
            model.load_weights(file)?;
        }
        Ok(model)
    }

    /// The normalisation of images: that with which the weights, or the checkpoint to resume, were
    /// trained, or `usual`. A difference is reported on standard error.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn normalization(
        &self,
        training: &TrainingOptions,
        usual: &Normalization,
    ) -> Result<Normalization, Box<dyn Error>> {
        match self.weights.as_deref().or(training.checkpoint()) {
            Some(file) => Ok(normalization_for(&TensorFile::read(file)?, usual)?),
            None => Ok(usual.clone()),
        }
    }
}

impl TrainingOptions {
    /// The settings: those of the checkpoint, or else `new` with its learning rate scaled to the
    /// batch; then the arguments change them.
    ///
    /// # Errors
    /// When the checkpoint cannot be read, or the settings make no sense.
    pub fn config(&self, new: Config, ranks: &Ranks) -> Result<Config, Box<dyn Error>> {
        let mut config = match &self.resume {
            Some(file) => Config::of_checkpoint(file)?,
            None => {
                let batch = self.batch_size.unwrap_or(new.batch);
                let mut config = new;
                config.schedule.learning_rate *=
                    (ranks.world_size * batch) as f32 / config.batch as f32;
                config
            }
        };
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.batch = self.batch_size.unwrap_or(config.batch);
        config.schedule.learning_rate = self.lr.unwrap_or(config.schedule.learning_rate);
        config.precision = self.precision.unwrap_or(config.precision);
        config.precise_bn = self.precise_bn.unwrap_or(config.precise_bn);
        config.seed = self.seed.unwrap_or(config.seed);
        config.threads = self.threads.map_or(0, usize::from);
        if self.recompute {
            config.recompute = Recompute::Bottlenecks;
        }
        config.check()?;
        Ok(config)
    }

    /// The device that computes.
    ///
    /// # Errors
    /// When the device is missing or fails.
    pub fn device(&self, ranks: &Ranks) -> Result<Device, Box<dyn Error>> {
        Ok(self.device.open_for(ranks)?)
    }

    /// Refuses a batch larger than the data.
    ///
    /// # Errors
    /// When there are fewer images than a batch has.
    pub fn check_batch(config: &Config, images: usize) -> Result<(), String> {
        let batch = config.batch;
        if batch <= images {
            return Ok(());
        }
        Err(format!(
            "a batch of {batch} images is more than the {images} to train on; use --batch-size \
                {images} or less"
        ))
    }

    /// Resumes the checkpoint, if there is one.
    ///
    /// # Errors
    /// When the checkpoint cannot be read, or is of another run.
    pub fn resume(&self, trainer: &mut PlanTrainer) -> Result<(), Box<dyn Error>> {
        let Some(file) = &self.resume else {
            return Ok(());
        };
        if self.lr.is_some() || self.epochs.is_some() {
            trainer.resume_with_schedule(file)?;
        } else {
            trainer.resume(file)?;
        }
        say!("resuming  {} at step {}", file.display(), trainer.steps());
        Ok(())
    }

    /// The requested seed.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// The checkpoint to resume.
    pub fn checkpoint(&self) -> Option<&Path> {
        self.resume.as_deref()
    }

    /// The run's folder.
    ///
    /// # Errors
    /// When it cannot be made, or has the files of another run than the one to resume.
    pub fn folder(&self, default: &str) -> Result<RunFolder, Box<dyn Error>> {
        let out = match (&self.out, &self.resume) {
            (Some(out), _) => out.as_path(),
            (None, Some(file)) => file.parent().unwrap_or(Path::new("")),
            (None, None) => Path::new(default),
        };
        let folder = RunFolder::create(out)?;
        // Folders are compared, as the checkpoint may be a link, and "" is the current one.
        let place = |folder: &Path| folder.join(".").canonicalize();
        if let Some(file) = &self.resume
            && folder.checkpoint().exists()
            && place(file.parent().unwrap_or(Path::new("")))? != place(folder.path())?
        {
            return Err(format!(
                "{} has the files of another run, which this one would overwrite; give another --out, or leave it \
                    out to continue in the checkpoint's folder",
                out.display()
            )
            .into());
        }
        Ok(folder)
    }

    /// Settings of a run that writes its checkpoints to the folder, also when Ctrl-C ends it.
    ///
    /// # Errors
    /// When no handler for Ctrl-C can be installed.
    pub fn fit(&self, folder: &RunFolder) -> Result<Fit, Box<dyn Error>> {
        Ok(Fit {
            steps: self.steps,
            interrupt: Interrupt::on_ctrl_c()?,
            ..folder.fit()
        })
    }

    /// Prints the command that resumes an interrupted run: with the example's own options, which
    /// `line` has, and these.
    pub fn say_how_to_go_on(
        &self,
        line: CommandLine,
        summary: &Summary,
        folder: &RunFolder,
        ranks: &Ranks,
    ) {
        let start = match ranks.is_alone() {
            true => "to continue",
            false => "to continue, start all ranks as before, each with",
        };
        say!("\ninterrupted at step {}; {start}:", summary.step);
        let device = (self.device != DeviceChoice::Cpu).then_some(self.device);
        let line = line
            .option("--device", device)
            .option("--threads", self.threads)
            .flag("--recompute", self.recompute)
            .option("--steps", self.steps)
            .path("--resume", Some(&folder.checkpoint()))
            .indented();
        console::say_bytes(&line);
    }
}

/// The exit code of a program that trains: 130 if it was interrupted, as in a shell.
pub fn exit_code(result: Result<Ending, Box<dyn Error>>) -> ExitCode {
    console::exit_code(result.map(|ending| match ending {
        Ending::Interrupted => ExitCode::from(130),
        _ => ExitCode::SUCCESS,
    }))
}
