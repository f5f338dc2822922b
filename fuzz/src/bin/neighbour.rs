//! The fuzzer of target `neighbour`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::neighbour::check(input));
