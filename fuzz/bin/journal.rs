//! Searches for inputs that break the properties of `journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::journal::run(bytes));
