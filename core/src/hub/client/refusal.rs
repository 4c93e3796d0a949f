//! Why a client did not do what its host asked for.

use crate::wire::topic::BadTopic;
use std::fmt;

/// Why something was not sent. Nothing has happened then.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ClientRefusal {
    NotConnected,
    OutboxFull,
    TooLong,
    NotUtf8,
    /// The dialect has no such channel ids; or none of a client's many nodes has it.
    NoSuchChannel,
    NoSuchNode,
    NodeExists,
    TooManyNodes,
    /// The first node stays as long as its client.
    FirstNode,
    /// It is no name of a topic, or no filter.
    BadTopic(BadTopic),
    FilterHasNoPosition,
    TooManySubscriptions,
    NoSuchSubscription,
}

impl fmt::Display for ClientRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotConnected => "Not connected to server",
            Self::OutboxFull => "The outbox is full",
            Self::TooLong => "The message is longer than a frame may be",
            Self::NotUtf8 => "The v1 dialect cannot carry bytes that are not UTF-8",
            Self::NoSuchChannel => "There is no such channel id",
            Self::NoSuchNode => "The client has no such node",
            Self::NodeExists => "The client has a node of this id already",
            Self::TooManyNodes => "The client has as many nodes as it may",
            Self::FirstNode => "The first node stays as long as its client",
            Self::BadTopic(bad) => return bad.fmt(f),
            Self::FilterHasNoPosition => "A filter has no position to go on from",
            Self::TooManySubscriptions => "The client has as many subscriptions as it may",
            Self::NoSuchSubscription => "The client has no such subscription",
        })
    }
}
