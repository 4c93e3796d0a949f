//! What the host is asked before it happens, and what it answers.
//!
//! Owns these values. Who asks, and what becomes of an answer, is the hub's.

use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the host is to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// By which it is answered; never 0.
    pub number: u32,
    pub connection_id: u64,
    pub peer: SocketAddr,
    pub asked: Asked,
}

/// Whether something may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A node registers. `metadata` is the JSON text of what it says of itself, `[]` when it says nothing.
    Registration { node_id: Arc<str>, metadata: Arc<str> },
    /// A node, or a client of Firetower's, subscribes to topics or filters. `user` is whose connection a client of Firetower's has said it is.
    Subscription { filters: Vec<Arc<str>>, user: Option<Arc<str>> },
    /// The same publishes to a topic.
    Publication { topic: Arc<str>, payload: Bytes, user: Option<Arc<str>> },
}

/// The host's answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Refuse,
    Allow,
    /// Allows a registration, and sets members of the node's metadata, by the JSON text of an object.
    AllowWithMetadata(String),
    /// Allows a subscription, to these topics and filters instead of those that were asked for.
    AllowTopics(Vec<String>),
    /// Publishes this instead of what was to be published.
    AllowPublication {
        topic: String,
        payload: Bytes,
    },
}

impl Question {
    /// What its texts count for against a bound in bytes.
    pub fn payload_len(&self) -> usize {
        match &self.asked {
            Asked::Registration { node_id, metadata } => node_id.len() + metadata.len(),
            Asked::Subscription { filters, user } => {
                filters.iter().map(|filter| filter.len() + size_of::<Arc<str>>()).sum::<usize>()
                    + user.as_ref().map_or(0, |user| user.len())
            }
            Asked::Publication { topic, payload, .. } => topic.len() + payload.len(),
        }
    }
}
