//! A publication, and where it stands among those of its topic.

use bytes::Bytes;
use std::sync::Arc;

/// Where a publication stands among those of its topic. Offsets count from 1 within one epoch; another epoch is another life of the
/// topic, in which offsets mean something else.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub offset: u64,
    pub epoch: u64,
}

/// A publication on its way to a thread's subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    pub topic: Arc<str>,
    /// `None` where the topic has no life of its own: it reaches those whose filter matches, and nothing is kept.
    pub position: Option<Position>,
    /// Counts the publications of all topics: whoever has subscribed at a higher number, or this one, does not get it.
    pub sequence: u64,
    pub payload: Bytes,
}
