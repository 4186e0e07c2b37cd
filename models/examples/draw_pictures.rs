//! Draws pictures of ten classes, for experiments.
//!
//! ```text
//! cargo run --example draw_pictures -- out/pictures --train 30 --val 100 --seed 1
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use densenet_runtime::{console, say};
use drawn_pictures::PictureSet;

/// Draws DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg; the same numbers give the same pictures.
#[derive(Parser)]
struct Arguments {
    /// The folder; it must not hold anything else.
    dir: PathBuf,
    /// The number of pictures of each class to train on.
    #[arg(long, value_name = "N", default_value_t = 64)]
    train: usize,
    /// The number of pictures of each class to validate on.
    #[arg(long, value_name = "N", default_value_t = 16)]
    val: usize,
    /// The approximate number of pixels of the short side.
    #[arg(long, value_name = "PIXELS", default_value_t = 256)]
    size: u32,
    /// Other pictures for another number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    let Arguments {
        dir,
        train,
        val,
        size,
        seed,
    } = Arguments::parse();
    let pictures = PictureSet {
        seed,
        size,
        train,
        val,
    };
    let made = drawn_pictures::make(&dir, &pictures);
    console::exit_code(made.map_err(Into::into).map(|made| {
        let how = if made { "drawn" } else { "there already" };
        say!("the pictures of {} are {how}", dir.display());
        ExitCode::SUCCESS
    }))
}
