//! The fuzzer of target `cni`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::cni::check(input));
