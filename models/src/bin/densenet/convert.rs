//! `densenet convert`: weights from and for other programs.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use densenet_runtime::{say, weights};

#[derive(Args)]
pub struct Arguments {
    /// Weights of a DenseNet in any format and under any library's names: safetensors, a
    /// checkpoint, or a file of `torch.save`. Nothing in the file is executed.
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// The file to write, under torchvision's names: .safetensors, or .pth, .pt or .bin for
    /// `torch.load`.
    #[arg(value_name = "OUT")]
    to: PathBuf,
    /// Write the weights of convolutions and of the classifier as f16: half the bytes. The rest stays f32.
    #[arg(long)]
    f16: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let report = match arguments.f16 {
        true => weights::convert_to_f16(&arguments.from, &arguments.to)?,
        false => weights::convert(&arguments.from, &arguments.to)?,
    };
    say!("{report}");
    say!("written to {}", arguments.to.display());
    Ok(())
}
