//! Searches for inputs that break the properties of `staging`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::staging::run(bytes));
