//! `densenet train`: trains any network on pictures.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use densenet_models::shell::{CommandLine, TrainingOptions, describe};
use densenet_runtime::data::check_fit;
use densenet_runtime::prelude::*;
use densenet_runtime::train::{Evaluation, PlanTrainer, Summary, TensorBoard};
use densenet_runtime::weights::{LoadOptions, State, TensorFile, WeightsError};
use densenet_runtime::{say, tell};
use densenet_spec::ParsedSpec;

use crate::network::{self, Change, Choice};
use crate::pictures::{self, Source, Validation, kind_of};
use crate::recipe::Recipe;
use crate::remembered::Remembered;
use crate::saved::{self, Saved};
use crate::view::{Variation, View};

/// The default folder of a run's files.
const OUT: &str = "out/densenet";

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    validation: Validation,
    #[command(flatten)]
    choice: Choice,
    /// Weights of the same layers to start from: safetensors, a file of PyTorch (.pth, .pt, .bin), or a checkpoint.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pretrained: Option<PathBuf>,
    /// Loads all of them except the classifier, which gets initial values: for other classes.
    #[arg(long, requires = "pretrained")]
    features_only: bool,
    #[command(flatten)]
    view: View,
    #[command(flatten)]
    variation: Variation,
    #[command(flatten)]
    recipe: Recipe,
    /// Also writes TensorBoard's event files [default: in the run's folder, to tensorboard].
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<Option<PathBuf>>,
    #[command(flatten)]
    training: TrainingOptions,
}

pub fn run(arguments: &Arguments) -> Result<Ending, Box<dyn Error>> {
    let options = &arguments.training;
    let ranks = Ranks::from_env()?;
    // The device comes first: if it is missing, this is reported before any work is done.
    let device = options.device(&ranks)?;
    let checkpoint = options.checkpoint();
    let (mut spec, weights) = match checkpoint {
        Some(file) => {
            let saved = Saved::read(file, &Choice::default())?;
            arguments.choice.check_is(&saved.spec(), file)?;
            (saved.spec(), Some(saved.file))
        }
        None => {
            let pretrained = arguments.pretrained.as_ref().map(TensorFile::read);
            (arguments.network()?, pretrained.transpose()?)
        }
    };
    let resumed = weights.as_ref().filter(|_| checkpoint.is_some());
    let view = match &weights {
        Some(file) if checkpoint.is_none() => arguments.view.after_pretrained(file)?,
        _ => as_before(&arguments.view, resumed)?,
    };
    let variation = as_before(&arguments.variation, resumed)?;
    let shown = view.pictures(&spec.plan, weights.as_ref())?;
    let shown = shown.augmented(variation.augmentation(&view))?;
    // A resumed run has its checkpoint's seed.
    let seed = match checkpoint {
        Some(file) => Config::of_checkpoint(file)?.seed,
        None => options.seed().unwrap_or_default(),
    };
    let sets = (arguments.source).sets(&arguments.validation, &shown, seed, checkpoint)?;
    let kind = kind_of(&*sets.train);
    let settings = Recipe::settings(arguments.pretrained.is_some(), kind);
    let mut config = options.config(settings, &ranks)?;
    if checkpoint.is_none() {
        config.schedule.warmup = arguments.recipe.usual_warmup(&config);
    }
    let config = (arguments.recipe).change(config, &*sets.train)?;
    config.check()?;
    if checkpoint.is_none() {
        spec = for_classes(spec, sets.train.classes())?;
    } else if arguments.choice.is_given() {
        for_classes(arguments.choice.network()?, sets.train.classes())?;
    }
    let stem = spec.plan.stem();
    let input = [stem.channels, stem.height, stem.width];
    check_fit(&*sets.train, input, spec.plan.classes())?;
    TrainingOptions::check_batch(&config, sets.train.len())?;
    let state = arguments.start(weights, &spec, config.seed)?;
    let network = (spec.name.as_str(), &spec.plan);
    describe(network, &config, &device, [&*sets.train, &*sets.val]);

    let title = format!("{}, {} pictures", spec.name, sets.train.len());
    let variation_of = (&variation, spec.plan.classes());
    let (train, val) = pictures::loaders(&sets, variation_of, &config, &ranks)?;
    let plan = spec.plan.clone();
    let mut trainer = PlanTrainer::among(&spec.name, plan, &state, config, &device, &ranks)?;
    options.resume(&mut trainer)?;
    // No file is made before everything is known to fit.
    let folder = options.folder(OUT)?;
    saved::note(&mut trainer, &spec, kind);
    trainer.note(View::NOTE, &view.words());
    trainer.note(Variation::NOTE, &variation.words());
    let fit = Fit {
        best: Some(folder.best()),
        checkpoint_every: Some(500),
        patience: arguments.recipe.patience,
        ..options.fit(&folder)?
    };
    let mut observers = folder.observers(&trainer, &title)?;
    if trainer.writes() {
        if let (Some(file), Some(_)) = (options.checkpoint(), trainer.best()) {
            folder.bring_best(file)?;
        }
        observers.extend(sets.note_split(&folder));
        if let Some(dir) = &arguments.tensorboard {
            let dir = dir.clone().unwrap_or_else(|| folder.tensorboard());
            observers.push(Box::new(TensorBoard::new(dir)));
        }
    }
    let summary = trainer.fit(&train, &val, &fit, &mut observers)?;
    match summary.evaluation {
        _ if summary.ending == Ending::Interrupted => {
            options.say_how_to_go_on(arguments.line(), &summary, &folder, &ranks);
        }
        Some(evaluation) => conclude(&summary, &evaluation, &folder),
        None => {
            say!("all steps of this run are already done; evaluating");
            conclude(&summary, &trainer.evaluate(&val)?, &folder);
        }
    }
    Ok(summary.ending)
}

/// The options of a run. A resumed run has those of its checkpoint, and no others can be given.
fn as_before<T: Remembered + Clone>(
    given: &T,
    checkpoint: Option<&TensorFile>,
) -> Result<T, Box<dyn Error>> {
    let Some(file) = checkpoint else {
        return Ok(given.clone());
    };
    let (options, differences) = given.after(file)?;
    if differences.is_empty() {
        return Ok(options);
    }
    Err(format!(
        "the run of {} has other options: {}; leave these options out to continue it, or start a \
            new run",
        file.path().display(),
        differences.join(", ")
    )
    .into())
}

/// The network with the classes of the data.
fn for_classes(spec: ParsedSpec, classes: &[String]) -> Result<ParsedSpec, Box<dyn Error>> {
    if !spec.classes.is_empty() && spec.classes != classes {
        return Err(format!(
            "the spec names the classes {:?}, but those of the pictures are {classes:?}; leave \
                `classes` out to use them",
            spec.classes
        )
        .into());
    }
    if spec.plan.classes() == classes.len() {
        return Ok(spec);
    }
    network::with(&spec, &[Change::Classes(classes)])
}

impl Arguments {
    /// The network of a new run: the chosen one, or that of the weights to start from, or the default.
    fn network(&self) -> Result<ParsedSpec, Box<dyn Error>> {
        match &self.pretrained {
            Some(file) if !self.choice.is_given() => match Saved::read(file, &self.choice) {
                Ok(saved) => {
                    let stem = saved.plan.stem();
                    if self.choice.size().is_none() {
                        tell!(
                            "the network is that of {}, for pictures of {}x{}x{}; --input gives another size",
                            file.display(),
                            stem.channels,
                            stem.height,
                            stem.width
                        );
                    }
                    Ok(saved.spec())
                }
                // Weights without a classifier do not tell, and may fit the default.
                Err(error) if is_nameless(&*error) => self.choice.network(),
                Err(error) => Err(error),
            },
            _ => self.choice.network(),
        }
    }

    /// The initial weights of a run: those of a file, if one is given.
    fn start(
        &self,
        weights: Option<TensorFile>,
        spec: &ParsedSpec,
        seed: u64,
    ) -> Result<State, Box<dyn Error>> {
        let Some(file) = weights.filter(|_| self.pretrained.is_some()) else {
            return Ok(State::initial(&spec.plan, seed));
        };
        let options = LoadOptions {
            features_only: self.features_only,
            seed,
            ..LoadOptions::default()
        };
        saved::pretrained(&file, spec, &options)
    }

    /// The command with its own options, those that a checkpoint does not have.
    fn line(&self) -> CommandLine {
        let line = CommandLine::of_this_program().word("train");
        let line = self.validation.line(self.source.line(line));
        let line = match &self.tensorboard {
            Some(dir) => line
                .flag("--tensorboard", dir.is_none())
                .path("--tensorboard", dir.as_deref()),
            None => line,
        };
        line.option("--patience", self.recipe.patience)
    }
}

/// Whether weights do not tell their network.
fn is_nameless(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(WeightsError::NoNetwork { .. }))
}

fn conclude(summary: &Summary, evaluation: &Evaluation, folder: &RunFolder) {
    let (what, error) = match evaluation.decision_error() {
        Some(error) => ("decisions wrong", error),
        None => ("top-1 error", evaluation.top1_error()),
    };
    say!(
        "\nvalidation after step {}: {what} {:.2}%, loss {:.4} ({} pictures)",
        evaluation.step,
        100.0 * error,
        evaluation.loss,
        evaluation.images,
    );
    if let Some(best) = summary.best {
        say!(
            "best: {} {:.4} after step {}",
            best.by,
            best.score,
            best.step
        );
    }
    // If no step was left, a new folder has no checkpoint.
    let files = [
        folder.best(),
        folder.checkpoint(),
        folder.metrics(),
        folder.curves(),
    ];
    for file in files.iter().filter(|file| file.exists()) {
        say!("  {}", file.display());
    }
}
