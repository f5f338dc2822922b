//! The fuzzer of target `mmio`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::vmm::mmio(input));
