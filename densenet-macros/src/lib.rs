//! The `densenet!` macro.
