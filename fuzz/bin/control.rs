//! Searches for inputs that break the properties of `control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::control::run(bytes));
