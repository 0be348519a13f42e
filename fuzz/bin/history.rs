//! Searches for inputs that break the properties of `history`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::history::run(bytes));
