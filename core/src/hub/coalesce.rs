//! How state events are merged when a queue is full: which ones belong together, and what then stands for both.
//!
//! Does not know queues, nor when they are full.

use super::event::Event;
use crate::model::{ClientEvent, ClientEventKind, ClientEventMask, EventMask, FeedEvent, FleetEvent};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

/// An event that waits in a bounded queue.
pub trait Queued: Sized {
    /// A set of kinds of its family.
    type Mask: Copy;

    /// Events with the same key are merged.
    type Key: Debug + Eq + Hash;

    /// Where the newer of two goes: to the end, or to the place of the earlier one, which costs less with many waiting.
    const NEWER_GOES_LAST: bool;

    fn bits(mask: Self::Mask) -> u32;

    fn key(&self) -> Self::Key;

    /// `newer`, standing for both.
    #[must_use]
    fn merge(waiting: &Self, newer: Self) -> Self;

    /// What it counts for against a bound in bytes.
    fn payload_len(&self) -> usize;

    /// What the texts of its node take in memory.
    fn node_bytes(&self) -> usize;

    /// It says nothing any more.
    fn is_outdated(&self) -> bool;
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub enum ServerKey {
    Node(Arc<str>),
    /// Apart from its node's others, none of which it stands for.
    Buffer(Arc<str>),
    Connection(u64),
    /// Messages and questions are not merged: this is what no other event has.
    Topic(Arc<str>),
    Question(u32),
    /// A subscriber, by its connection and its node if it is one, and a topic.
    Subscription(u64, Option<Arc<str>>, Arc<str>),
}

impl Queued for Event {
    type Mask = EventMask;
    type Key = ServerKey;

    // Put together on threads that have sockets to read, with as many waiting as there are nodes.
    const NEWER_GOES_LAST: bool = false;

    fn bits(mask: EventMask) -> u32 {
        mask.0
    }

    fn key(&self) -> ServerKey {
        match self {
            Self::Connect { connection_id, .. } | Self::Close { connection_id, .. } => ServerKey::Connection(*connection_id),
            Self::Register { node, .. } | Self::Heartbeat { node, .. } | Self::Left { node, .. } | Self::Data { node, .. } => {
                ServerKey::Node(node.id().clone())
            }
            Self::Buffer { node, .. } => ServerKey::Buffer(node.id().clone()),
            Self::Message { message } => ServerKey::Topic(message.topic.clone()),
            Self::Question { question, .. } => ServerKey::Question(question.number),
            Self::Topic { change, node, .. } => {
                let node = node.as_ref().map(|node| node.id().clone());
                ServerKey::Subscription(change.connection_id, node, change.topic.clone())
            }
        }
    }

    fn merge(waiting: &Self, mut newer: Self) -> Self {
        let before = match waiting {
            Self::Register { count, .. }
            | Self::Heartbeat { count, .. }
            | Self::Left { count, .. }
            | Self::Buffer { count, .. }
            | Self::Topic { count, .. } => *count,
            Self::Connect { .. } | Self::Close { .. } | Self::Data { .. } | Self::Message { .. } | Self::Question { .. } => 1,
        };
        match &mut newer {
            Self::Heartbeat { node, count } => {
                // A heartbeat says nothing that its node's registration does not say: the registration stays.
                if let Self::Register { node: registered, count: old } = waiting
                    && Arc::ptr_eq(registered, node)
                {
                    return Self::Register { node: registered.clone(), count: old.saturating_add(*count) };
                }
                *count = count.saturating_add(before);
            }
            Self::Register { count, .. } | Self::Left { count, .. } | Self::Buffer { count, .. } | Self::Topic { count, .. } => {
                *count = count.saturating_add(before);
            }
            Self::Connect { .. } | Self::Close { .. } | Self::Data { .. } | Self::Message { .. } | Self::Question { .. } => {}
        }
        newer
    }

    #[inline]
    fn payload_len(&self) -> usize {
        Self::payload_len(self)
    }

    fn node_bytes(&self) -> usize {
        self.node().map_or(0, |node| node.bytes())
    }

    /// Its node has left since, which is told by another.
    fn is_outdated(&self) -> bool {
        matches!(self, Self::Buffer { node, .. } | Self::Topic { node: Some(node), .. } if !node.is_online())
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub enum ClientKey {
    Kind(u64, ClientEventKind),
    Node(u64, Arc<str>),
}

impl Queued for FleetEvent {
    type Mask = ClientEventMask;
    type Key = ClientKey;

    // The events of one client end in its present state. The cost is paid by the clients' thread.
    const NEWER_GOES_LAST: bool = true;

    fn bits(mask: ClientEventMask) -> u32 {
        mask.0
    }

    fn key(&self) -> ClientKey {
        match &self.event {
            ClientEvent::Register { node_id, .. } | ClientEvent::NodeLost { node_id, .. } => {
                ClientKey::Node(self.client_id, node_id.clone())
            }
            event => ClientKey::Kind(self.client_id, event.kind()),
        }
    }

    fn merge(waiting: &Self, mut newer: Self) -> Self {
        if let (ClientEvent::Heartbeat { count: before }, ClientEvent::Heartbeat { count }) = (&waiting.event, &mut newer.event) {
            *count = count.saturating_add(*before);
        }
        newer
    }

    fn payload_len(&self) -> usize {
        self.event.payload_len()
    }

    fn node_bytes(&self) -> usize {
        0
    }

    fn is_outdated(&self) -> bool {
        false
    }
}

/// They wait for room, each: none stands for another.
impl Queued for FeedEvent {
    type Mask = ();
    type Key = ();

    const NEWER_GOES_LAST: bool = true;

    fn bits((): ()) -> u32 {
        1
    }

    fn key(&self) {}

    fn merge(_waiting: &Self, newer: Self) -> Self {
        newer
    }

    fn payload_len(&self) -> usize {
        match self {
            Self::Message(message) => message.topic.len() + message.payload.len(),
            Self::Missed { .. } => 0,
        }
    }

    fn node_bytes(&self) -> usize {
        0
    }

    fn is_outdated(&self) -> bool {
        false
    }
}
