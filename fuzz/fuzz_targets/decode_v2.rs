//! Feeds arbitrary bytes to the decoder of both dialects.
#![no_main]

#[path = "../properties/decode_v2.rs"]
mod decode_v2;
#[path = "../properties/work.rs"]
mod work;

libfuzzer_sys::fuzz_target!(|input: &[u8]| decode_v2::check(input));
