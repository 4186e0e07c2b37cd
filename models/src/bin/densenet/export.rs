//! `densenet export`: a trained network for other programs.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use densenet_runtime::data::LabelKind;
use densenet_runtime::weights::onnx::{self, Output};
use densenet_runtime::weights::{LoadOptions, Notes, State};
use densenet_runtime::{Normalization, say};

use crate::network::Choice;
use crate::remembered::Remembered as _;
use crate::saved::Saved;
use crate::view::View;

#[derive(Args)]
pub struct Arguments {
    /// A checkpoint, or a file of weights in any format that `convert` reads.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// The file to write, called .onnx.
    #[arg(long, value_name = "OUT.onnx")]
    onnx: PathBuf,
    #[command(flatten)]
    choice: Choice,
    /// Folds each BN that follows a convolution into it.
    #[arg(long)]
    fold: bool,
    /// Stores tensors and computes in f16; images and logits stay f32.
    #[arg(long)]
    f16: bool,
    /// Outputs probabilities that sum to 1 instead of logits, if a picture has one class.
    #[arg(long, conflicts_with = "sigmoid")]
    softmax: bool,
    /// Outputs the probability of each class on its own instead of logits.
    #[arg(long)]
    sigmoid: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let saved = Saved::read(&arguments.weights, &arguments.choice)?;
    let (state, report) = State::load(&saved.plan, &saved.file, &LoadOptions::default())?;
    let (view, _) = View::default().after(&saved.file)?;
    let mut metadata = saved.words();
    metadata.insert(View::NOTE.to_string(), view.in_full().words());
    let options = onnx::ExportOptions {
        fold: arguments.fold,
        f16: arguments.f16,
        output: arguments.output(&saved)?,
        notes: notes(&saved),
        metadata,
    };
    onnx::write(&saved.plan, &state, &arguments.onnx, &options)?;
    let stem = saved.plan.stem();
    say!("{report}");
    say!(
        "written to {}: images, batch x {} x {} x {}, give {}, batch x {}",
        arguments.onnx.display(),
        stem.channels,
        stem.height,
        stem.width,
        options.output_name(),
        saved.plan.classes(),
    );
    Ok(())
}

impl Arguments {
    /// The requested output, if the network's classes are of that kind.
    fn output(&self, saved: &Saved) -> Result<Output, String> {
        let (output, kind) = match (self.softmax, self.sigmoid) {
            (true, _) => (Output::Softmax, LabelKind::Exclusive),
            (_, true) => (Output::Sigmoid, LabelKind::Independent),
            _ => return Ok(Output::Logits),
        };
        // Files of other programs do not say.
        if saved.says_kind() && saved.kind != kind {
            let path = saved.file.path().display();
            return Err(match saved.kind {
                LabelKind::Independent => {
                    format!("a picture may have several of the classes of {path}; use --sigmoid")
                }
                LabelKind::Exclusive => {
                    format!("a picture has one of the classes of {path}; use --softmax")
                }
            });
        }
        Ok(output)
    }
}

/// The notes of the weights. Pictures are normalised as in `predict`, even if the file does not say how.
fn notes(saved: &Saved) -> Notes {
    let channels = saved.plan.stem().channels;
    let own = saved.notes.normalization.clone();
    let own = own.filter(|own| own.mean.len() == channels);
    Notes {
        normalization: Some(own.unwrap_or_else(|| Normalization::usual(channels))),
        ..saved.notes.clone()
    }
}
