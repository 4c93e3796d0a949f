//! Errors as they travel over the bus socket, both ways.

use crate::error::{Error, ErrorKind};
use crate::text::printable;
use crate::wire::bus::{DecodeError, RemoteError};

pub(super) fn remote_error(error: Error) -> RemoteError {
    RemoteError { kind: error.kind as i32, message: error.message }
}

pub(crate) fn error_of(remote: RemoteError) -> Error {
    let kind = ErrorKind::from_code(remote.kind).unwrap_or(ErrorKind::Internal);
    // Programs print it, and whoever listens on a socket may have written it.
    Error { kind, message: printable(&remote.message).into_owned() }
}

pub(crate) fn broken(error: DecodeError) -> Error {
    Error::new(ErrorKind::Protocol, format!("The bus socket makes no sense: {error}"))
}

/// The connection ended.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "The engine closed the connection")
}
