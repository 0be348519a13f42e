//! Searches for inputs that break the properties of `frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::frame::run(bytes));
