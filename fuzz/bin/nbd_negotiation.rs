//! Searches for inputs that break the properties of `nbd_negotiation`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::nbd_negotiation::run(bytes));
