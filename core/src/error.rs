//! What can go wrong at the face of the engine: one error type, one append-only table of kinds.
//!
//! The numbers are shared by the C status codes and the PHP exceptions. A number is assigned once; a retired one is
//! never used again, because compiled programs out there still mean the old thing by it. The codes of ERROR frames,
//! which travel on the wire, are in [`crate::wire::code`].

use std::fmt;
use std::io;

/// The kind of an error: C's status code, and in PHP the class of the exception and its code. 0 is success in C.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum ErrorKind {
    /// A configuration value is wrong.
    Config = 1,
    /// The operating system refused something: an address in use, no descriptor left.
    Io = 2,
    /// The other side broke the protocol.
    Protocol = 3,
    /// The engine, client or connection is closed or not connected.
    Closed = 4,
    /// Something did not happen in time.
    Timeout = 5,
    /// A limit of the configuration was reached: queue full, frame too long.
    Limit = 6,
    /// No such node, channel or handle.
    NotFound = 7,
    /// A fault of ours.
    Internal = 8,
    /// An argument that can never be right.
    InvalidArgument = 9,
    /// The handle belongs to another process: it was made before a fork.
    WrongProcess = 10,
}

impl ErrorKind {
    pub fn from_code(code: i32) -> Option<Self> {
        use ErrorKind::*;
        let all = [Config, Io, Protocol, Closed, Timeout, Limit, NotFound, Internal, InvalidArgument, WrongProcess];
        all.into_iter().find(|kind| *kind as i32 == code)
    }
}

/// An error of the engine. Unless a method says otherwise, nothing has changed when it returns one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The handle was made before a fork, and this is the child.
    pub fn wrong_process() -> Self {
        Self::new(ErrorKind::WrongProcess, "This handle belongs to the parent process; create a new one after the fork")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The system's text without Rust's "(os error N)".
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
