//! The benchmarks of Heartbus: a load generator, servers to compare with, and the tables that come of it.
//!
//! Owns nothing of the engine. What is measured is the server as PHP hosts it, in a process of its own; only the plots
//! and the instruction counts look at the pure hub by itself.
#![forbid(unsafe_code)]

pub mod attack;
pub mod cells;
pub mod flame;
pub mod fleet;
pub mod floor;
pub mod json;
pub mod machine;
pub mod million;
pub mod plot;
pub mod poll;
pub mod proc;
pub mod protocol;
pub mod report;
pub mod server;
pub mod topics;

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// A benchmark that could not be measured, with a text for the person who runs it.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(error: rustix::io::Errno) -> Self {
        Self(error.to_string())
    }
}

impl From<pico_args::Error> for Error {
    fn from(error: pico_args::Error) -> Self {
        Self(error.to_string())
    }
}
