//! The fuzzer of target `dhcpv4`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::dhcpv4::check(input));
