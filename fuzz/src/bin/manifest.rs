//! The fuzzer of target `manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::manifest::check(input));
