//! How state events are put together when a queue is full: which ones belong together, and what then stands for both.
//!
//! Does not know queues, nor when they are full.

use super::event::{ClientEvent, Event};
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

/// Events with the same key are put together.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Node(Arc<str>),
    /// Apart from its node's others, none of which it stands for.
    Buffer(Arc<str>),
    Connection(u64),
    Client(u64, Discriminant<ClientEvent>),
    ClientNode(u64, Arc<str>),
}

impl Key {
    pub(crate) fn of(event: &Event) -> Key {
        match event {
            Event::Connect { connection_id, .. } | Event::Close { connection_id, .. } => Key::Connection(*connection_id),
            Event::Register { node, .. } | Event::Heartbeat { node, .. } | Event::Left { node, .. } | Event::Data { node, .. } => {
                Key::Node(node.id().clone())
            }
            Event::Buffer { node, .. } => Key::Buffer(node.id().clone()),
            Event::Client { client_id, event: ClientEvent::Register { node_id, .. } | ClientEvent::NodeLost { node_id, .. } } => {
                Key::ClientNode(*client_id, node_id.clone())
            }
            Event::Client { client_id, event } => Key::Client(*client_id, discriminant(event)),
        }
    }
}

/// The newer of two events of one key, standing for both.
pub(crate) fn put_together(waiting: &Event, mut newer: Event) -> Event {
    let before = count(waiting);
    match &mut newer {
        Event::Heartbeat { node, count } => {
            // A heartbeat says nothing that its node's registration does not say: the registration stays.
            if let Event::Register { node: registered, count: old } = waiting {
                if Arc::ptr_eq(registered, node) {
                    return Event::Register { node: registered.clone(), count: old.saturating_add(*count) };
                }
            }
            *count = count.saturating_add(before);
        }
        Event::Register { count, .. }
        | Event::Left { count, .. }
        | Event::Buffer { count, .. }
        | Event::Client { event: ClientEvent::Heartbeat { count }, .. } => {
            *count = count.saturating_add(before);
        }
        _ => {}
    }
    newer
}

fn count(event: &Event) -> u32 {
    match event {
        Event::Register { count, .. }
        | Event::Heartbeat { count, .. }
        | Event::Left { count, .. }
        | Event::Buffer { count, .. }
        | Event::Client { event: ClientEvent::Heartbeat { count }, .. } => *count,
        _ => 1,
    }
}
