//! Searches for inputs that break the properties of `quarantine`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::quarantine::run(bytes));
