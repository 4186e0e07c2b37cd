//! DenseNets on the command line: any network, trained on your own pictures.
//!
//! ```text
//! cargo run --release -p densenet-models --bin densenet -- train --data DIR --pretrained FILE --features-only
//! ```
//!
//! See `docs/command.md`.

mod convert;
mod evaluate;
mod export;
mod features;
mod infer;
mod info;
mod maps;
mod network;
mod new;
mod pictures;
mod predict;
mod recipe;
mod remembered;
mod report;
mod saved;
mod seen;
mod table;
mod thresholds;
mod train;
mod view;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use densenet_models::shell::exit_code;
use densenet_runtime::train::Ending;

/// Trains DenseNets on your own pictures, evaluates them, and classifies pictures with them.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows a network: its stages, parameters, multiply-adds, and the memory that it needs.
    Info(info::Arguments),
    /// Trains a network on pictures.
    ///
    /// The default recipe suits a few thousand pictures: 20 epochs of SGD with Nesterov momentum
    /// and batches of 32; a learning rate that rises to 0.01 in the first epoch (to 0.1 without
    /// --pretrained) and falls to 0 as a cosine; label smoothing 0.1; random crops of the pictures,
    /// mirrored half of the time. The last checkpoint and the best one are kept.
    Train(Box<train::Arguments>),
    /// Evaluates a trained network on labelled pictures.
    Evaluate(evaluate::Arguments),
    /// Classifies pictures with a trained network.
    Predict(predict::Arguments),
    /// Writes other programs' weights under torchvision's names, as safetensors or `.pth`.
    Convert(convert::Arguments),
    /// Writes a trained network as ONNX, for ONNX Runtime, OpenVINO and others.
    Export(export::Arguments),
    /// Writes a crate of your own that trains a network on pictures.
    New(new::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    exit_code(match &arguments.command {
        Command::Info(info) => info::run(info).map(|()| Ending::Finished),
        Command::Train(train) => train::run(train),
        Command::Evaluate(evaluate) => evaluate::run(evaluate).map(|()| Ending::Finished),
        Command::Predict(predict) => predict::run(predict).map(|()| Ending::Finished),
        Command::Convert(convert) => convert::run(convert).map(|()| Ending::Finished),
        Command::Export(export) => export::run(export).map(|()| Ending::Finished),
        Command::New(new) => new::run(new).map(|()| Ending::Finished),
    })
}
