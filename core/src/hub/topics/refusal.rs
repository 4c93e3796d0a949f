//! Why a subscription or a publication is refused, and what the peer is told of it.

use crate::wire::code;
use crate::wire::topic::BadTopic;
use std::fmt;

/// Why nothing happened.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TopicRefusal {
    Bad(BadTopic),
    /// The server has as many topics and filters as it may.
    TooManyTopics,
    /// So much waits to go out to subscribers that no more is taken.
    ServerFull,
    /// A filter has no position to go on from.
    FilterHasNoPosition,
    /// A filter has more levels than it may.
    TooManyLevels,
    /// The connection has as many subscriptions as it may.
    TooManySubscriptions,
    /// Topics that begin with `$` are the server's own.
    OfServer,
    /// There is no such node.
    NoSuchNode,
    /// It is longer than a frame may be.
    TooLong,
    /// The host does not want it, or has not said so in time.
    Refused,
    /// Too many decisions are open.
    TooManyDecisions,
}

impl TopicRefusal {
    /// The code of the ERROR frame that answers this.
    pub fn code(self) -> u16 {
        match self {
            Self::Bad(_) | Self::FilterHasNoPosition => code::INVALID_REQUEST,
            Self::TooManyTopics
            | Self::TooManyLevels
            | Self::TooManySubscriptions
            | Self::OfServer
            | Self::Refused
            | Self::TooManyDecisions => code::NOT_ALLOWED,
            Self::NoSuchNode => code::NOT_FOUND,
            // Not the 413 behind which a connection is closed: this frame was read whole.
            Self::TooLong => code::INVALID_REQUEST,
            Self::ServerFull => code::RATE_LIMITED,
        }
    }
}

impl fmt::Display for TopicRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bad(bad) => return bad.fmt(f),
            Self::TooManyTopics => "Too many topics on this server",
            Self::ServerFull => "Too many messages wait for subscribers",
            Self::FilterHasNoPosition => "A filter has no position to go on from",
            Self::TooManyLevels => "Too many levels in this filter",
            Self::TooManySubscriptions => "Too many subscriptions on this connection",
            Self::OfServer => "Topics that begin with $ belong to the server",
            Self::NoSuchNode => "No such node on this connection",
            Self::TooLong => code::TOO_LONG_TEXT,
            Self::Refused => "Refused by the server",
            Self::TooManyDecisions => code::TOO_MANY_DECISIONS,
        })
    }
}

impl std::error::Error for TopicRefusal {}

impl From<BadTopic> for TopicRefusal {
    fn from(bad: BadTopic) -> Self {
        Self::Bad(bad)
    }
}
