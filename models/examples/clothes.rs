//! Trains the network of `models/weights`, DenseNet-BC with L = 100 and k = 12, or any other, on
//! Fashion-MNIST. This command trained these weights:
//!
//! ```text
//! apt-get install dataset-fashion-mnist
//! cargo run --release --example clothes -- --device cuda --precision bf16 --epochs 93 --erase 0.25
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use densenet_models::shell::{
    CommandLine, Fashion, FashionRecipe, TrainingOptions, describe, exit_code,
};
use densenet_runtime::data::{Dataset, check_fit};
use densenet_runtime::prelude::*;
use densenet_runtime::train::PlanTrainer;
use densenet_runtime::weights::State;
use densenet_spec::ParsedSpec;

/// The network of the weights in this repository.
const OURS: &str =
    "ClothesBc { blocks: [16, 16, 16], k: 12, theta: 0.5, bottleneck, input: [1, 28, 28] }";

/// Trains a DenseNet on Fashion-MNIST with the recipe of the weights in models/weights.
#[derive(Parser)]
struct Arguments {
    /// The network, in the words of `densenet!`.
    #[arg(long, value_name = "WORDS", default_value = OURS)]
    spec: String,
    #[command(flatten)]
    fashion: Fashion,
    #[command(flatten)]
    recipe: FashionRecipe,
    #[command(flatten)]
    training: TrainingOptions,
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<Ending, Box<dyn Error>> {
    let (options, recipe) = (&arguments.training, &arguments.recipe);
    let ranks = Ranks::from_env()?;
    let ParsedSpec { name, plan, .. } = ParsedSpec::parse(&arguments.spec)?;
    let config = recipe.config(options, &ranks)?;
    let device = options.device(&ranks)?;
    let (train, test) = recipe.sets(&arguments.fashion)?;
    let stem = plan.stem();
    let input = [stem.channels, stem.height, stem.width];
    check_fit(&train, input, plan.classes())?;
    TrainingOptions::check_batch(&config, train.len())?;
    describe((&name, &plan), &config, &device, [&train, &test]);

    let train = Loader::training(Arc::new(train), config.batch)?.among(&ranks)?;
    let train = train.seeded(config.seed);
    let test = Loader::evaluation(Arc::new(test), config.batch)?.among(&ranks)?;
    let start = State::initial(&plan, config.seed);
    let mut trainer = PlanTrainer::among(&name, plan, &start, config, &device, &ranks)?;
    options.resume(&mut trainer)?;
    let folder = options.folder("out/clothes")?;
    let fit = options.fit(&folder)?;
    let mut observers = folder.observers(&trainer, &format!("{name} on Fashion-MNIST"))?;
    let summary = trainer.fit(&train, &test, &fit, &mut observers)?;

    if summary.ending == Ending::Interrupted {
        options.say_how_to_go_on(arguments.line(), &summary, &folder, &ranks);
    } else if let Some(last) = summary.evaluation {
        // Choosing the best epoch would use the test set.
        let set = match recipe.held_out {
            0 => "test error",
            _ => "error on the images held out",
        };
        say!(
            "{set} after the last step: {:.2}% ({} of {} images)",
            100.0 * last.top1_error(),
            last.images - last.top1,
            last.images,
        );
    }
    say!("see {}", folder.path().display());
    Ok(summary.ending)
}

impl Arguments {
    /// The command with the options that a checkpoint does not have.
    fn line(&self) -> CommandLine {
        let spec = (self.spec != OURS).then_some(&self.spec);
        let held_out = (self.recipe.held_out > 0).then_some(self.recipe.held_out);
        let erase = (self.recipe.erase > 0.0).then_some(self.recipe.erase);
        CommandLine::of_this_program()
            .option("--spec", spec)
            .path("--data", Some(&self.fashion.data))
            .option("--held-out", held_out)
            .option("--erase", erase)
    }
}
