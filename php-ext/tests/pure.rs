//! Runs the tests of the extension's pure files: they know nothing of PHP, so a program that PHP does not load can link them.

#![allow(dead_code, reason = "the extension uses them")]

#[path = "../src/alarms.rs"]
mod alarms;
#[path = "../src/heartbeat_server/delivery.rs"]
mod delivery;
