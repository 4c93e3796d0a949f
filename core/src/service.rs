//! The one face: whatever may be asked of a running engine is a [`Request`], and comes back as a [`Reply`].
//!
//! Owns the trait alone. The engine answers in its own process (`engine/answers.rs`), a connection to the bus socket asks the one
//! next door ([`crate::bus`]); whoever holds a service need not know which it is.

use crate::error::{Error, ErrorKind};
use crate::wire::bus::{ConnectionInfo, NodeInfo, StatsRecord};
use std::time::Duration;

pub use crate::wire::bus::{DecisionRecord, PublicationRecord, Reply, Request, TopicRecord};

pub trait Service: Send + Sync {
    /// Answers, in the time that the request takes.
    ///
    /// # Errors
    /// What the request's own text says; `Closed` or `Io`: there is no engine any more. `WrongProcess`.
    fn ask(&self, request: &Request<'_>) -> Result<Reply, Error>;
}

/// Takes the content out of a reply of that kind, as `name() -> type: pattern => value`.
macro_rules! contents {
    ($($name:ident() -> $content:ty: $pattern:pat => $value:expr;)*) => {
        impl Reply {$(
            /// # Errors
            /// `Protocol`: it is the answer to something else.
            pub fn $name(self) -> Result<$content, Error> {
                match self {
                    $pattern => Ok($value),
                    _ => Err(Error::new(ErrorKind::Protocol, "The engine answered something else")),
                }
            }
        )*}
    };
}

contents! {
    done() -> (): Reply::Done => ();
    count() -> usize: Reply::Count(count) => count as usize;
    node() -> Option<NodeInfo>: Reply::Node(node) => node;
    page() -> (Vec<NodeInfo>, Option<u64>): Reply::Page { nodes, next } => (nodes, next);
    record() -> StatsRecord: Reply::Stats(record) => record;
    duration() -> Duration: Reply::Micros(micros) => Duration::from_micros(micros);
    connections() -> Vec<ConnectionInfo>: Reply::Connections(connections) => connections;
    publication() -> PublicationRecord: Reply::Publication(record) => record;
    topics() -> (Vec<TopicRecord>, Option<u64>): Reply::Topics { topics, next } => (topics, next);
    names() -> (Vec<String>, Option<u64>): Reply::Names { names, next } => (names, next);
}
