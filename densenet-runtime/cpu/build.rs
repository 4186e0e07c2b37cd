//! Tells the crate its optimisation level, which a crate cannot see by itself.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let level = std::env::var("OPT_LEVEL").unwrap_or_default();
    println!("cargo::rustc-env=DENSENET_CPU_OPT_LEVEL={level}");
}
