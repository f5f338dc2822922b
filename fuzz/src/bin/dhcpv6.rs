//! The fuzzer of target `dhcpv6`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::dhcpv6::check(input));
