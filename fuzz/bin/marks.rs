//! Searches for inputs that break the properties of `marks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::marks::run(bytes));
