//! Shared by the command line `densenet` and the examples: options of programs that train, and their messages.

mod command;
mod describe;
mod fashion;
mod fashion_recipe;
mod normalization;
mod preset;
mod training;
mod variant;

pub use command::CommandLine;
pub use describe::{describe, describe_left_out, thousands};
pub use fashion::Fashion;
pub use fashion_recipe::FashionRecipe;
pub use normalization::normalization_for;
pub use preset::{check_batch, recompute};
pub use training::{Start, TrainingOptions, exit_code};
pub use variant::Variant;
