//! The fuzzer of target `pci`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::vmm::pci(input));
