//! Why the hub did not do what it was asked for.

use crate::wire::NotUtf8;

/// Why the hub refused what the host asked for. Nothing has happened then.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoSuchNode,
    /// The channel is not one of the node's.
    NoSuchChannel,
    OutboxFull,
    /// As much is kept for all connections together as may be.
    ServerFull,
    TooLong,
    NotUtf8,
    /// What is to be set is no JSON object with members.
    NotMetadata,
    MetadataTooLong,
    /// It was answered already, or nobody waits for the answer any more.
    NoSuchQuestion,
    /// It is no answer to this question.
    OtherQuestion,
    /// What is to be subscribed to is no topic, and no filter.
    NotFilters,
    /// Nothing can be published under this name.
    NotTopic,
}

/// Why the server takes no further node.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum TooMuch {
    Nodes,
    /// For their ids and metadata.
    Bytes,
    /// Of this one, with what its host says of it.
    Metadata,
}

impl From<NotUtf8> for Refusal {
    fn from(_: NotUtf8) -> Self {
        Self::NotUtf8
    }
}
