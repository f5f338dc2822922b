//! The fuzzer of target `pool`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::pool::check(input));
