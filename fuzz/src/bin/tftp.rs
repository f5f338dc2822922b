//! The fuzzer of target `tftp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::tftp::check(input));
