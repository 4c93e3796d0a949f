//! What processes that have subscribed to topics say over the bus socket, and what they are told.
//!
//! Owns these messages. Knows no topic.

use super::codec::as_bytes;
use super::greeting::RemoteError;
use serde::{Deserialize, Serialize};

/// A frame of a subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubscriberMessage {
    /// Answered with [`FeedMessage::Subscribed`] or [`FeedMessage::Refused`].
    Subscribe { filter: String },
    /// Not answered: what was on its way still comes.
    Unsubscribe { filter: String },
    /// The same as the first for one topic, behind an offset and epoch if there are any; 0 and 0: all that is kept. Answered with
    /// [`FeedMessage::Begun`] or [`FeedMessage::Refused`]. One that is there already begins anew.
    SubscribeFrom { topic: String, since: Option<(u64, u64)> },
}

/// A frame for a subscriber. Texts and data are borrowed, from the engine or from the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedMessage<'a> {
    /// What is published from now on to what the filter matches comes here.
    Subscribed {
        filter: &'a str,
    },
    Refused {
        filter: &'a str,
        error: RemoteError,
    },
    Message {
        topic: &'a str,
        #[serde(serialize_with = "as_bytes")]
        payload: &'a [u8],
        /// Offset and epoch; none where the topic has no positions.
        position: Option<(u64, u64)>,
        /// The id of the node that has published it; none: it was no node.
        from: Option<&'a str>,
    },
    /// So many publications were dropped here: the subscriber was too slow.
    Gap {
        dropped: u64,
    },
    /// What is kept of the topic behind the position that was asked for comes here, then what is published from now on.
    Begun {
        topic: &'a str,
        /// Of the last publication before this.
        newest: (u64, u64),
        /// Everything behind that position comes.
        recovered: bool,
    },
    /// What was kept of a topic in front of its next message went in the meantime.
    Lost {
        topic: &'a str,
    },
}
