//! The bus socket over real sockets: every request and its refusal, workers that come, go, hang and die, and callers that
//! do everything wrong.

mod decisions;
mod finding;
mod house;
mod positions;
mod presence;
mod requests;
mod socket_file;
mod subscribers;
#[path = "../support/mod.rs"]
mod support;
mod versions;
mod who_may;
mod workers;
mod wrong_callers;
