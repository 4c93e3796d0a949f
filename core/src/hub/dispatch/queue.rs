//! What waits for a worker, in the order of its numbers, and how much that is.

use super::records::{Delivery, DispatchLimits};
use crate::hub::coalesce::{Queued, ServerKey};
use crate::hub::event::Event;
use crate::hub::node::Node;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

pub(super) struct WaitingEvent {
    pub(super) told: Delivery,
    pub(super) lane: u16,
    /// It came when there was no room: others are merged with it.
    pub(super) is_crowd: bool,
    /// Workers that were gone before they had acknowledged it.
    pub(super) deaths: u8,
}

/// Both ordered by number. Two, so that the oldest data is found behind any amount of state.
#[derive(Default)]
pub(super) struct WorkerQueue {
    pub(super) data: VecDeque<WaitingEvent>,
    pub(super) state: VecDeque<WaitingEvent>,
    pub(super) bytes: usize,
    /// Where in `state` those stand that came when there was no room, by their number.
    pub(super) crowd: HashMap<ServerKey, u64>,
}

#[derive(Copy, Clone, Default)]
pub(super) struct Size {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

/// What may be refused, and is never merged.
pub(super) fn is_data(event: &Event) -> bool {
    matches!(event, Event::Data { .. } | Event::Message { .. } | Event::Question { .. })
}

impl WaitingEvent {
    /// For a worker that watches.
    pub(super) fn copy(told: &Delivery) -> Self {
        Self { told: Delivery { watched: true, ..told.clone() }, lane: 0, is_crowd: false, deaths: 0 }
    }
}

impl WorkerQueue {
    pub(super) fn len(&self) -> usize {
        self.data.len() + self.state.len()
    }

    pub(super) fn front(&self) -> Option<&WaitingEvent> {
        match (self.data.front(), self.state.front()) {
            (Some(data), Some(state)) => Some(if data.told.sequence < state.told.sequence { data } else { state }),
            (data, state) => data.or(state),
        }
    }

    pub(super) fn pop(&mut self) -> Option<WaitingEvent> {
        if is_data(&self.front()?.told.event) {
            let waiting = self.data.pop_front()?;
            self.bytes -= waiting.told.event.payload_len();
            return Some(waiting);
        }
        let waiting = self.state.pop_front()?;
        if waiting.is_crowd {
            self.crowd.remove(&waiting.told.event.key());
        }
        Some(waiting)
    }

    /// To the back; [`WorkerQueue::sort`] is called where that is not its place.
    pub(super) fn push(&mut self, waiting: WaitingEvent) {
        if waiting.is_crowd {
            self.crowd.insert(waiting.told.event.key(), waiting.told.sequence);
        }
        if is_data(&waiting.told.event) {
            self.bytes += waiting.told.event.payload_len();
            self.data.push_back(waiting);
        } else {
            self.state.push_back(waiting);
        }
    }

    /// The event with which this one would be merged.
    pub(super) fn in_crowd(&mut self, event: &Event) -> Option<&mut WaitingEvent> {
        if self.crowd.is_empty() {
            return None;
        }
        let number = *self.crowd.get(&event.key())?;
        let index = self.state.partition_point(|waiting| waiting.told.sequence < number);
        self.state.get_mut(index)
    }

    /// Moves out what waits on lanes of which `leaves` is true. Copies stay.
    pub(super) fn take(&mut self, leaves: impl Fn(usize) -> bool, into: &mut Vec<WaitingEvent>) {
        let leaves = |waiting: &WaitingEvent| !waiting.told.watched && leaves(usize::from(waiting.lane));
        for deque in [&mut self.data, &mut self.state] {
            if deque.iter().any(leaves) {
                for waiting in std::mem::take(deque) {
                    if !leaves(&waiting) {
                        deque.push_back(waiting);
                        continue;
                    }
                    self.bytes -= waiting.told.event.payload_len();
                    if waiting.is_crowd {
                        self.crowd.remove(&waiting.told.event.key());
                    }
                    into.push(waiting);
                }
            }
        }
    }

    pub(super) fn drop_copies(&mut self) {
        for deque in [&mut self.data, &mut self.state] {
            deque.retain(|waiting| !waiting.told.watched);
        }
        self.bytes = self.data.iter().map(|waiting| waiting.told.event.payload_len()).sum();
    }

    /// An event stands before its copy, so that it is the one that is found by its number.
    pub(super) fn sort(&mut self) {
        for deque in [&mut self.data, &mut self.state] {
            deque.make_contiguous().sort_by_key(|waiting| (waiting.told.sequence, waiting.told.watched));
        }
    }
}

impl Size {
    /// One event larger than the whole bound still passes when nothing else waits; it could never pass otherwise.
    pub(super) fn has_room(self, len: usize, limits: &DispatchLimits) -> bool {
        self.events < limits.events && (self.bytes == 0 || self.bytes + len <= limits.bytes)
    }

    pub(super) fn is_below(self, limits: &DispatchLimits, times: usize) -> bool {
        self.events < limits.events.saturating_mul(times) && self.bytes < limits.bytes.saturating_mul(times)
    }
}

/// The heavy nodes that a batch describes, each of them once.
#[derive(Default)]
pub(super) struct Described(HashSet<*const Node>);

/// Below this a description is as good as nothing.
const HEAVY: usize = 1024;

impl Described {
    /// What this event would add to the batch beside its payload.
    pub(super) fn bytes(&self, event: &Event) -> usize {
        match event.node() {
            Some(node) if node.bytes() > HEAVY && !self.0.contains(&Arc::as_ptr(node)) => node.bytes(),
            _ => 0,
        }
    }

    pub(super) fn add(&mut self, event: &Event) {
        if let Some(node) = event.node().filter(|node| node.bytes() > HEAVY) {
            self.0.insert(Arc::as_ptr(node));
        }
    }
}
