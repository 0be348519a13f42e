//! Searches for inputs that break the properties of `handshake`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::handshake::run(bytes));
