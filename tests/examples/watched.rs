//! `watched FOLDER EPOCHS STEPS`: a small run up to a step, with TensorBoard's event files, which
//! `scripts/read_events.py` reads.

use std::process::ExitCode;

use densenet_runtime::console;
use densenet_runtime::train::RunFolder;
use densenet_tests::small_run;

fn main() -> ExitCode {
    console::exit_code(run().map(|()| ExitCode::SUCCESS))
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, epochs, steps] = arguments.as_slice() else {
        return Err("give a folder, a number of epochs and a number of steps".into());
    };
    let folder = RunFolder::create(folder)?;
    small_run::fit_watched(&folder, epochs.parse()?, steps.parse()?)?;
    Ok(())
}
