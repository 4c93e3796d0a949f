//! A publication, and where it stands among those of its topic.

pub use crate::model::Position;
use bytes::Bytes;
use std::sync::Arc;

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
