//! Feeds arbitrary bytes to the readers of WebSocket's handshake and frames.
#![no_main]

#[path = "../properties/websocket.rs"]
mod websocket;
#[path = "../properties/work.rs"]
mod work;

libfuzzer_sys::fuzz_target!(|input: &[u8]| websocket::check(input));
