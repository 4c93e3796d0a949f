//! One worker: what waits for it, and what it has in hand.

use super::queue::{Size, WaitingEvent, WorkerQueue};
use super::records::{Batch, DispatchLimits, WorkerId};
use crate::model::EventMask;
use crate::wire::topic::{self, Filter};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Worker {
    pub(super) mask: EventMask,
    pub(super) is_leaving: bool,
    /// It was named as ready, and has not been found empty since.
    pub(super) is_awake: bool,
    pub(super) queue: WorkerQueue,
    /// What waits for a former owner of its lane.
    pub(super) held: WorkerQueue,
    pub(super) flights: VecDeque<Flight>,
    pub(super) batches: u64,
    pub(super) watches: usize,
    pub(super) topics: Heard,
}

/// Filters of topics.
#[derive(Default)]
pub(super) struct Heard {
    exact: BTreeSet<Box<str>>,
    wild: BTreeSet<Box<str>>,
}

impl Heard {
    fn among(&mut self, filter: &str) -> &mut BTreeSet<Box<str>> {
        if matches!(Filter::known(filter), Filter::Exact(_)) { &mut self.exact } else { &mut self.wild }
    }

    /// False when it is there already.
    pub(super) fn insert(&mut self, filter: &str) -> bool {
        self.among(filter).insert(filter.into())
    }

    pub(super) fn remove(&mut self, filter: &str) -> bool {
        self.among(filter).remove(filter)
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        self.exact.contains(topic) || self.wild.iter().any(|filter| topic::matches(filter, topic))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wild.is_empty()
    }

    pub(super) fn take(&mut self) -> Vec<Box<str>> {
        let Self { exact, wild } = std::mem::take(self);
        exact.into_iter().chain(wild).collect()
    }
}

pub(super) struct Flight {
    pub(super) batch: Arc<Batch>,
    /// Of its payloads.
    pub(super) bytes: usize,
    /// Workers that its one event was too much for.
    pub(super) deaths: u8,
    /// Of its events, those that the worker may have seen: the first ones. All, unless it said otherwise.
    pub(super) begun: usize,
    /// Of its events that are not copies.
    pub(super) lanes: Vec<u16>,
}

impl Worker {
    pub(super) fn size_of_data(&self) -> Size {
        Size { events: self.queue.data.len() + self.held.data.len(), bytes: self.queue.bytes + self.held.bytes }
    }

    pub(super) fn size_of_state(&self) -> usize {
        self.queue.state.len() + self.held.state.len()
    }

    pub(super) fn pop_oldest_data(&mut self) -> Option<WaitingEvent> {
        let number = |queue: &WorkerQueue| queue.data.front().map_or(u64::MAX, |waiting| waiting.told.sequence);
        let queue = if number(&self.held) < number(&self.queue) { &mut self.held } else { &mut self.queue };
        let oldest = queue.data.pop_front()?;
        queue.bytes -= oldest.told.event.payload_len();
        Some(oldest)
    }
}

pub(super) fn wake(id: WorkerId, worker: &mut Worker, limits: &DispatchLimits, ready: &mut Vec<WorkerId>) {
    let may_send = !worker.is_leaving && worker.flights.len() < limits.batches_in_flight && worker.queue.len() > 0;
    if may_send && !worker.is_awake {
        worker.is_awake = true;
        ready.push(id);
    }
}
