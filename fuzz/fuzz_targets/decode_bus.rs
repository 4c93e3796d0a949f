//! Feeds arbitrary bytes to every decoder of the bus socket.
#![no_main]

#[path = "../properties/decode_bus.rs"]
mod decode_bus;
#[path = "../properties/work.rs"]
mod work;

libfuzzer_sys::fuzz_target!(|input: &[u8]| decode_bus::check(input));
