//! The fuzzer of target `image`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::image::check(input));
