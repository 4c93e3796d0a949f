//! Who can be asked about a server: its own object, wherever its engine is, and `Heartbus\Bus`.
//!
//! Owns what an answer that is an error means to PHP. What is asked is the business of `calls` and `topics`.

use crate::backend::is_gone;
use crate::exception;
use crate::php::{Native, Outcome};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::service::{Reply, Request};

pub(crate) trait Asking: Native {
    /// The class in words.
    const NAME: &'static str;

    /// An engine that is not there has nothing, and that is no error: before the start and after the stop, and of a worker whose engine
    /// is about to come back.
    const MAY_BE_AWAY: bool;

    /// `None`: it was refused, and the caller gets false.
    fn try_to(&self, request: &Request<'_>) -> Outcome<Option<Reply>>;

    fn count(&self, request: &Request<'_>) -> Outcome<usize>;

    /// What the engine says, or why there is no answer.
    fn answer(&self, request: &Request<'_>) -> Outcome<Result<Reply, Error>>;

    /// `None`: what was asked about is not there. Anything else that went wrong is thrown.
    fn look<T>(&self, request: &Request<'_>, read: impl FnOnce(Reply) -> Result<T, Error>) -> Outcome<Option<T>> {
        match self.answer(request)?.and_then(read) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == ErrorKind::NotFound || Self::MAY_BE_AWAY && is_gone(&error) => Ok(None),
            Err(error) => Err(exception::raise(&error)),
        }
    }
}
