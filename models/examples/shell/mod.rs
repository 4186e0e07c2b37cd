//! Shared by the examples: the command line of those that train, and their messages.

#![allow(dead_code, unused_imports, reason = "an example uses what it needs")]

mod command;
mod describe;
mod fashion;
mod preset;
mod training;

pub use command::CommandLine;
pub use describe::{describe, describe_left_out};
pub use fashion::Fashion;
pub use preset::{check_batch, recompute};
pub use training::{Training, exit_code};
