//! Feeds arbitrary bytes to the readers of Firetower's frames and of its clients' JSON, and to a connection of its back side.
#![no_main]

#[path = "../properties/firetower.rs"]
mod firetower;
#[path = "../properties/firetower_session.rs"]
mod firetower_session;
#[path = "../properties/work.rs"]
mod work;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    firetower::check(input);
    firetower_session::check(input);
});
