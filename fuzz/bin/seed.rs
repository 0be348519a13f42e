//! Searches for inputs that break the properties of `seed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::seed::run(bytes));
