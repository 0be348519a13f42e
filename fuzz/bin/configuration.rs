//! Searches for inputs that break the properties of `configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::configuration::run(bytes));
