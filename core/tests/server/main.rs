//! The server over real sockets: what old clients see, byte for byte where it matters.

mod answers;
mod endings;
mod host;
mod refusals;
#[path = "../support/mod.rs"]
mod support;
