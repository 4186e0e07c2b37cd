//! Refuses a compiler with which dfdx does not build.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if is_nightly() {
        println!(
            "cargo::error=densenet-runtime needs a stable Rust compiler, 1.95 or newer: wherever `rustc -vV` says \"nightly\", dfdx 0.13 turns on an unstable feature that no longer compiles; build with `cargo +stable`, or write `channel = \"stable\"` under `[toolchain]` into a rust-toolchain.toml"
        );
    }
}

/// Whether dfdx's build script will take the compiler for a nightly one: it looks for the word.
fn is_nightly() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    Command::new(rustc)
        .arg("-vV")
        .output()
        .is_ok_and(|version| String::from_utf8_lossy(&version.stdout).contains("nightly"))
}
