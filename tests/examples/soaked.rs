//! `soaked FOLDER SEED EPOCHS`: a small run, or the rest of one. `scripts/soak` starts it, kills it
//! and damages its files.

use std::process::ExitCode;

use densenet_runtime::tell;
use densenet_runtime::train::{Ending, RunFolder};
use densenet_tests::small_run;

fn main() -> ExitCode {
    match run() {
        Ok(Ending::Finished) => ExitCode::SUCCESS,
        // Told to stop.
        Ok(_) => ExitCode::from(3),
        Err(error) => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Ending, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, seed, epochs] = arguments.as_slice() else {
        return Err("give a folder, a seed and a number of epochs".into());
    };
    let folder = RunFolder::create(folder)?;
    Ok(small_run::fit(&folder, seed.parse()?, epochs.parse()?)?.ending)
}
