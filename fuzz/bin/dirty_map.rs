//! Searches for inputs that break the properties of `dirty_map`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::dirty_map::run(bytes));
