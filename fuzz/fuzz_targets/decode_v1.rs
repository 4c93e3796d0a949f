//! Feeds arbitrary bytes to the v1 decoder.
#![no_main]

#[path = "../properties/decode_v1.rs"]
mod decode_v1;
#[path = "../properties/work.rs"]
mod work;

libfuzzer_sys::fuzz_target!(|input: &[u8]| decode_v1::check(input));
