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
}

/// Why the server takes no further node.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum TooMuch {
    Nodes,
    /// For their ids and metadata.
    Bytes,
}

impl From<NotUtf8> for Refusal {
    fn from(_: NotUtf8) -> Self {
        Self::NotUtf8
    }
}
