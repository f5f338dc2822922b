//! The fuzzer of target `monitor`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::monitor::check(input));
