//! Describes a run: network, data and settings.

use densenet_runtime::cpu::{self, Level};
use densenet_runtime::data::{Dataset, EXTENSIONS, ImageFolder};
use densenet_runtime::plan::{Frozen, FrozenTensors, Plan};
use densenet_runtime::prelude::*;
use densenet_runtime::train::Freeze;

/// Prints the network, of this name and plan, the data and the settings.
pub fn describe(
    (name, plan): (&str, &Plan),
    config: &Config,
    device: &Device,
    [train, val]: [&dyn Dataset; 2],
) {
    let piece = config.piece();
    // The trainer refuses settings that do not fit the network.
    let bytes = config.bytes(plan, device).unwrap_or_default();
    say!(
        "network   {}: {} parameters, {} layers, {:.3} GMACs an image",
        name,
        thousands(plan.parameter_count()),
        plan.depth(),
        plan.multiply_adds() as f64 / 1e9,
    );
    say!(
        "memory    {} for a training step of {piece} images",
        densenet_spec::in_words(bytes),
    );
    if config.freeze != Freeze::Nothing {
        let own = config.step_multiply_adds(plan).unwrap_or_default() as f64;
        let all = plan.step_multiply_adds(Frozen::default(), FrozenTensors::default()) as f64;
        say!(
            "frozen    {}: a step has {:.0}% of the multiply-adds of one that trains all",
            config.freeze,
            100.0 * own / all,
        );
    }
    say!("device    {}", in_words(device, config));
    let classes = train.classes().len();
    say!(
        "data      {} pictures to train on, {} to validate on, {classes} classes, resized to {}x{}",
        thousands(train.len()),
        thousands(val.len()),
        plan.stem().height,
        plan.stem().width,
    );
    if classes < plan.classes() {
        say!(
            "          the network tells {} classes apart; labels 0 to {} are used",
            plan.classes(),
            classes.saturating_sub(1),
        );
    }
    say!(
        "training  {} epochs, {} images a step, learning rate {}, seed {}",
        config.epochs,
        config.batch,
        config.schedule.learning_rate,
        config.seed,
    );
}

/// The number of files in the folder of a set that were left out: `3 .svg, 1 without extension
/// (...)`.
pub fn describe_left_out(set: &str, folder: &ImageFolder) {
    let kinds = folder.left_out().iter().map(|(extension, count)| {
        let count = thousands(*count);
        match extension.as_str() {
            "" => format!("{count} without extension"),
            extension => format!("{count} .{extension}"),
        }
    });
    let kinds: Vec<_> = kinds.collect();
    if !kinds.is_empty() {
        let kinds = kinds.join(", ");
        let read = EXTENSIONS.join(", .");
        say!("          left out of {set}: {kinds} (pictures end in .{read})");
    }
}

/// The device in words.
fn in_words(device: &Device, config: &Config) -> String {
    let precision = config.precision;
    match device {
        Device::Cpu => {
            let threads = cpu::threads(config.threads);
            let level = Level::detect();
            format!("CPU, {threads} threads, {level:?}, products in {precision:?}")
        }
        device => format!("{device}, products in {precision:?}"),
    }
}

/// `20,013,928`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
