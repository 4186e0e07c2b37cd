#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| densenet_fuzz::feed("table", bytes));
