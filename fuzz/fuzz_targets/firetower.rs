//! Feeds arbitrary bytes to the readers of Firetower's frames and of its clients' JSON.
#![no_main]

#[path = "../properties/firetower.rs"]
mod firetower;
#[path = "../properties/work.rs"]
mod work;

libfuzzer_sys::fuzz_target!(|input: &[u8]| firetower::check(input));
