//! Searches for inputs that break the properties of `superblock`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hadrian_fuzz::superblock::run(bytes));
