//! The fuzzer of target `agent`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::agent::check(input));
