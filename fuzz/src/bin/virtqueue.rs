//! The fuzzer of target `virtqueue`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::vmm::virtqueue(input));
