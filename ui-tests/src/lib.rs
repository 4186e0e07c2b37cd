//! What `densenet!` compiles, and what it refuses: see `compiles`, `refused` and `tests/ui.rs`.
