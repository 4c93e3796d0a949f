//! The lanes on which events reach the workers: who serves one, and which one an event takes.
//!
//! Owns the spreading alone. When a lane changes hands is the dispatch's business.

use super::records::WorkerId;
use crate::hub::event::Event;
use crate::model::Asked;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

pub const LANES: usize = 1024;

/// While there is a worker that does not leave, every lane has an owner.
#[derive(Copy, Clone, Default)]
pub(super) struct Lane {
    pub(super) owner: Option<WorkerId>,
    /// Who has `in_flight` of its events in hand. Always one worker.
    pub(super) holder: WorkerId,
    pub(super) in_flight: u32,
}

impl Lane {
    /// Its owner must wait for a former one.
    pub(super) fn is_blocked(&self) -> bool {
        self.in_flight > 0 && self.owner.is_some_and(|owner| owner != self.holder)
    }
}

/// The channel whose watchers get a copy.
pub(super) fn channel_of(event: &Event) -> Option<u32> {
    match event {
        Event::Data { channel_id, .. } => Some(*channel_id),
        Event::Left { node, .. } => Some(node.channel_id()),
        _ => None,
    }
}

pub(super) fn lane_of(event: &Event) -> u16 {
    let hash = match event {
        Event::Connect { connection_id: id, .. } | Event::Close { connection_id: id, .. } => spread(*id),
        Event::Question { question, node } => match (&question.asked, node) {
            (Asked::Registration { node_id, .. }, _) => hash(node_id),
            (_, Some(node)) => hash(node.id()),
            (_, None) => spread(question.connection_id),
        },
        Event::Topic { change, node: None, .. } => spread(change.connection_id),
        of_node => hash(of_node.node().map_or("", |node| node.id())),
    };
    (hash >> (u64::BITS - LANES.ilog2())) as u16
}

/// Connections count up: multiplied, neighbours end far apart.
fn spread(connection_id: u64) -> u64 {
    connection_id.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn hash(node_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(node_id.as_bytes());
    hasher.finish()
}
