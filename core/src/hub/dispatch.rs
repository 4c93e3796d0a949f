//! Which worker gets which event, when the callbacks run in processes of their own.
//!
//! Owns what waits for the workers, what they have in hand, and who is served by whom. Does not know sockets, processes
//! or threads: it is called under somebody else's lock.
//!
//! Node ids (and connections that are no node yet) are spread over [`LANES`] lanes, and each lane belongs to one worker.
//! What belongs to one node takes one lane, so it reaches one worker in the order of happening. A lane that changes hands
//! takes what waits along, and stands still until its former owner has acknowledged what it has in hand. Everything that
//! waits is told in the order of its numbers, wherever it has been meanwhile.
//!
//! At the bound data is refused (or the oldest goes), state events of one node are merged, as in
//! [`crate::hub::coalesce`]. What was taken once is not lost any more: events of a worker that is gone go to the next one
//! even where they find no room, so that all together may hold twice the bound of each. Only an event that three workers
//! were gone over is given up, and counted.
//!
//! Events of nodes that have left keep these in memory. Where that is too much, says whoever calls; state events are merged
//! then as at the bound.

mod lanes;
mod listeners;
mod queue;
mod records;
mod worker;

pub use self::lanes::LANES;
pub use self::records::{Batch, Delivery, DispatchLimits, DispatchStats, WorkerId};

use self::lanes::{Lane, channel_of, lane_of};
use self::queue::{Described, Size, WaitingEvent, WorkerQueue, is_data};
use self::worker::{Flight, Worker, wake};
use super::coalesce::Queued;
use super::event::Event;
use crate::model::EventMask;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An event that this many workers were gone over is not delivered again: it is what they die of.
const MAX_DEATHS: u8 = 3;

pub struct Dispatch {
    limits: DispatchLimits,
    lanes: Vec<Lane>,
    /// Those that joined and were not removed yet.
    workers: BTreeMap<WorkerId, Worker>,
    /// Holds what waits while no lane has an owner.
    nobody: Worker,
    watches: BTreeSet<(u32, WorkerId)>,
    /// What is asked for by those who are there, or were last.
    subscribed: EventMask,
    sequence: u64,
    /// Workers that have something to send and were not named yet.
    ready: Vec<WorkerId>,
    /// Data that waits, for all workers together.
    waiting: Size,
    /// Payloads that workers have in hand.
    in_flight: usize,
    /// Payload bytes that may wait for all workers together.
    all_bytes: usize,
    /// What events keep in memory beside their payloads is much.
    is_heavy: bool,
    refused: u64,
    dropped: u64,
    coalesced: u64,
    redelivered: u64,
    abandoned: u64,
    moved_lanes: u64,
}

impl Dispatch {
    /// `until_first_join` is what [`Dispatch::wants`] says before a worker has said what it wants. Limits below 1 count
    /// as 1.
    pub fn new(limits: DispatchLimits, until_first_join: EventMask) -> Self {
        let limits = DispatchLimits {
            events: limits.events.max(1),
            bytes: limits.bytes.max(1),
            drop_oldest: limits.drop_oldest,
            batch_events: limits.batch_events.max(1),
            batch_bytes: limits.batch_bytes.max(1),
            batches_in_flight: limits.batches_in_flight.max(1),
        };
        Self {
            limits,
            lanes: vec![Lane::default(); LANES],
            workers: BTreeMap::new(),
            nobody: Worker::default(),
            watches: BTreeSet::new(),
            subscribed: until_first_join,
            sequence: 0,
            ready: Vec::new(),
            waiting: Size::default(),
            in_flight: 0,
            all_bytes: usize::MAX,
            is_heavy: false,
            refused: 0,
            dropped: 0,
            coalesced: 0,
            redelivered: 0,
            abandoned: 0,
            moved_lanes: 0,
        }
    }

    /// No more payload bytes wait than this, however many workers there are.
    pub fn limit_bytes(&mut self, bytes: usize) {
        self.all_bytes = bytes;
        self.limits.bytes = self.limits.bytes.min(bytes).max(1);
    }

    /// Whether what events keep in memory beside their payloads is so much that they are to be merged.
    pub fn set_heavy(&mut self, is_heavy: bool) {
        self.is_heavy = is_heavy;
    }

    /// Payloads that wait, or are in workers' hands.
    pub fn bytes(&self) -> usize {
        self.waiting.bytes + self.in_flight
    }

    /// Nothing waits, and no worker has anything in hand.
    pub fn is_idle(&self) -> bool {
        self.everybody().all(|worker| worker.queue.len() + worker.held.len() + worker.flights.len() == 0)
    }

    /// A data event for which there is no room, whoever its worker would be.
    pub fn refuse_data(&mut self) {
        self.sequence += 1;
        self.refused += 1;
    }

    /// The events that are worth pushing. While no worker is there, those that were wanted last.
    pub fn wants(&self) -> EventMask {
        let mut wanted = self.subscribed;
        if !self.watches.is_empty() {
            wanted |= EventMask::DATA | EventMask::LEFT;
        }
        if self.workers.values().any(|worker| !worker.topics.is_empty()) {
            wanted |= EventMask::MESSAGE;
        }
        wanted
    }

    /// A worker is ready for events: it takes its share of the lanes from those who have most.
    pub fn join(&mut self, worker: WorkerId, mask: EventMask) {
        if self.workers.contains_key(&worker) {
            return self.subscribe(worker, mask);
        }
        self.workers.insert(worker, Worker { mask, ..Worker::default() });
        self.note_subscriptions();
        let mut owned: BTreeMap<Option<WorkerId>, Vec<usize>> = BTreeMap::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            owned.entry(lane.owner).or_default().push(index);
        }
        for share in 0.. {
            let richest = owned.iter_mut().max_by_key(|(_, lanes)| lanes.len());
            let Some((owner, lanes)) = richest.filter(|(owner, lanes)| owner.is_none() && !lanes.is_empty() || lanes.len() > share + 1)
            else {
                break;
            };
            let Some(lane) = lanes.pop() else { break };
            self.lanes[lane].owner = Some(worker);
            self.moved_lanes += u64::from(owner.is_some());
        }
        self.settle(Vec::new());
    }

    /// Replaces what a worker wants. What waits already is measured by it as well.
    pub fn subscribe(&mut self, worker: WorkerId, mask: EventMask) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.mask = mask;
            self.note_subscriptions();
        }
    }

    /// A worker wants no more events. What waits for it goes to the others at once; what it has in hand it acknowledges.
    pub fn leave(&mut self, worker: WorkerId) {
        self.forget_watches(worker);
        let Some(leaving) = self.workers.get_mut(&worker).filter(|worker| !worker.is_leaving) else { return };
        leaving.is_leaving = true;
        leaving.queue.drop_copies();
        self.note_subscriptions();
        self.give_away_lanes(worker);
        self.settle(Vec::new());
    }

    /// It left, and has acknowledged everything.
    pub fn has_drained(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|worker| worker.is_leaving && worker.flights.is_empty())
    }

    /// A worker is gone. What it had in hand goes to the next one; it may have seen no more than the first batch of that,
    /// because it acknowledges a batch before it begins the next.
    pub fn remove(&mut self, worker: WorkerId) {
        self.forget_watches(worker);
        let Some(mut gone) = self.workers.remove(&worker) else { return };
        self.ready.retain(|ready| *ready != worker);
        self.note_subscriptions();
        self.give_away_lanes(worker);
        let mut moved = Vec::new();
        for (index, flight) in gone.flights.into_iter().enumerate() {
            self.in_flight -= flight.bytes;
            let batch = Arc::unwrap_or_clone(flight.batch);
            let own = batch.events.into_iter().filter(|told| !told.watched);
            for (place, (mut told, lane)) in own.zip(flight.lanes).enumerate() {
                let is_begun = index == 0 && place < flight.begun;
                let deaths = flight.deaths + u8::from(is_begun);
                self.lanes[usize::from(lane)].in_flight -= 1;
                if deaths == MAX_DEATHS {
                    self.abandoned += 1;
                    continue;
                }
                if is_begun {
                    told.redelivered = true;
                    self.redelivered += 1;
                }
                moved.push(WaitingEvent { told, lane, is_crowd: false, deaths });
            }
        }
        gone.queue.take(|_| true, &mut moved);
        gone.held.take(|_| true, &mut moved);
        self.settle(moved);
    }

    /// Copies a channel's data, and the [`Event::Left`] of its node, to a worker that does not own its lane, or did not
    /// subscribe to them. Ends when that was handed out. Copies die with their worker.
    ///
    /// False when too many departures could come to wait for the worker.
    pub fn watch(&mut self, worker: WorkerId, channel_id: u32) -> bool {
        let Some(watcher) = self.workers.get_mut(&worker).filter(|worker| !worker.is_leaving) else { return false };
        if self.watches.contains(&(channel_id, worker)) {
            return true;
        }
        // The departures that wait count as well: each was a watch, and none is refused later.
        if watcher.watches + watcher.size_of_state() >= 2 * self.limits.events {
            return false;
        }
        watcher.watches += 1;
        self.watches.insert((channel_id, worker))
    }

    pub fn unwatch(&mut self, worker: WorkerId, channel_id: u32) {
        if self.watches.remove(&(channel_id, worker)) {
            if let Some(watcher) = self.workers.get_mut(&worker) {
                watcher.watches -= 1;
            }
        }
    }

    /// Takes a data event. False when its worker has no room for it.
    pub fn push_data(&mut self, event: Event) -> bool {
        self.sequence += 1;
        let told = Delivery { sequence: self.sequence, redelivered: false, watched: false, event };
        let lane = self.lane_for(&told.event);
        let owner = self.lanes[usize::from(lane)].owner;
        for watcher in self.watchers(&told.event, owner) {
            self.queue_data(Some(watcher), WaitingEvent::copy(&told));
        }
        self.queue_data(owner, WaitingEvent { told, lane, is_crowd: false, deaths: 0 })
    }

    /// Takes a state event. Never refuses: at the bound, events of one node are merged.
    pub fn push_state(&mut self, event: Event) {
        self.sequence += 1;
        let told = Delivery { sequence: self.sequence, redelivered: false, watched: false, event };
        let lane = lane_of(&told.event);
        let Lane { owner, .. } = self.lanes[usize::from(lane)];
        for id in self.watchers(&told.event, owner) {
            if let Some(watcher) = self.workers.get_mut(&id) {
                watcher.queue.push(WaitingEvent::copy(&told));
                wake(id, watcher, &self.limits, &mut self.ready);
            }
        }
        let is_blocked = self.lanes[usize::from(lane)].is_blocked();
        let worker = owner.and_then(|id| self.workers.get_mut(&id)).unwrap_or(&mut self.nobody);
        let is_crowd = self.is_heavy || worker.size_of_state() >= self.limits.events;
        let queue = if is_blocked { &mut worker.held } else { &mut worker.queue };
        match queue.in_crowd(&told.event) {
            // In its place: no data of the same node was taken since.
            Some(waiting) => {
                waiting.told.event = Event::merge(&waiting.told.event, told.event);
                self.coalesced += 1;
            }
            None => queue.push(WaitingEvent { told, lane, is_crowd, deaths: 0 }),
        }
        if let Some(id) = owner {
            wake(id, worker, &self.limits, &mut self.ready);
        }
    }

    /// What to send next, or `None` when nothing waits, or the worker has as many batches in hand as it may. The batch stays
    /// here until it is acknowledged.
    pub fn next_batch(&mut self, worker: WorkerId) -> Option<Arc<Batch>> {
        let receiver = self.workers.get_mut(&worker)?;
        let limits = &self.limits;
        let mut events = Vec::new();
        let mut lanes = Vec::new();
        let mut bytes = 0;
        let mut in_flight = 0;
        let mut described = Described::default();
        let mut deaths = 0;
        if !receiver.is_leaving && receiver.flights.len() < limits.batches_in_flight {
            let expected = receiver.queue.len().min(limits.batch_events);
            events.reserve_exact(expected);
            lanes.reserve_exact(expected);
            while events.len() < limits.batch_events {
                let Some(next) = receiver.queue.front() else { break };
                let len = next.told.event.payload_len();
                let len_of_batch = len + described.bytes(&next.told.event);
                // One that a worker may have died of goes alone: if it was that one, no other suffers from it again.
                if !events.is_empty() && (bytes + len_of_batch > limits.batch_bytes || next.deaths > 0 || deaths > 0) {
                    break;
                }
                let Some(WaitingEvent { mut told, lane, deaths: before, .. }) = receiver.queue.pop() else { break };
                let kind = told.event.kind();
                let is_data = is_data(&told.event);
                // A departure may have taken the place of an earlier event of its node.
                if told.event.is_outdated() {
                    continue;
                }
                if is_data {
                    self.waiting.events -= 1;
                    self.waiting.bytes -= len;
                }
                let watch = if receiver.watches > 0 { channel_of(&told.event) } else { None }.map(|channel_id| (channel_id, worker));
                let is_watched = watch.is_some_and(|watch| self.watches.contains(&watch));
                if let (true, Event::Left { .. }, Some(watch)) = (is_watched, &told.event, watch) {
                    self.watches.remove(&watch);
                    receiver.watches -= 1;
                }
                if !told.watched && !receiver.mask.contains(EventMask::of(kind)) {
                    if !is_watched {
                        continue;
                    }
                    // No copy was made for the owner.
                    told.watched = true;
                }
                if !told.watched {
                    let entry = &mut self.lanes[usize::from(lane)];
                    entry.holder = worker;
                    entry.in_flight += 1;
                    lanes.push(lane);
                }
                bytes += len_of_batch;
                in_flight += len;
                deaths = before;
                described.add(&told.event);
                events.push(told);
            }
        }
        if events.is_empty() {
            receiver.is_awake = false;
            return None;
        }
        receiver.batches += 1;
        let batch = Arc::new(Batch { number: receiver.batches, events });
        self.in_flight += in_flight;
        receiver.flights.push_back(Flight { batch: batch.clone(), bytes: in_flight, lanes, deaths, begun: usize::MAX });
        Some(batch)
    }

    /// The worker is done with its oldest batch. That is handed back, to be dropped where nobody waits for a lock.
    ///
    /// `None` for any other number: the worker is broken, and to be removed.
    pub fn acknowledge(&mut self, worker: WorkerId, number: u64) -> Option<Arc<Batch>> {
        let sender = self.workers.get_mut(&worker)?;
        if sender.flights.front()?.batch.number != number {
            return None;
        }
        let flight = sender.flights.pop_front()?;
        self.in_flight -= flight.bytes;
        let mut is_free = false;
        for lane in flight.lanes {
            let lane = &mut self.lanes[usize::from(lane)];
            lane.in_flight -= 1;
            is_free |= lane.in_flight == 0 && lane.owner != Some(worker);
        }
        wake(worker, sender, &self.limits, &mut self.ready);
        if is_free {
            self.settle(Vec::new());
        }
        Some(flight.batch)
    }

    /// The worker is about to go. It is done with the first `done` events of its oldest batch, has begun with the `begun` that
    /// follow, and has not seen the rest.
    ///
    /// False for any other number, or more events than the batch has: the worker is broken, and to be removed.
    pub fn acknowledge_part(&mut self, worker: WorkerId, number: u64, done: usize, begun: usize) -> bool {
        let flight = self.workers.get_mut(&worker).and_then(|worker| worker.flights.front_mut());
        let Some(flight) = flight.filter(|flight| flight.batch.number == number) else { return false };
        let events = &flight.batch.events;
        if done.checked_add(begun).is_none_or(|seen| seen > events.len()) {
            return false;
        }
        let own = |events: &[Delivery]| events.iter().filter(|told| !told.watched).count();
        let own_done = own(&events[..done]);
        flight.begun = own(&events[done..done + begun]);
        flight.batch = Arc::new(Batch { number, events: events[done..].to_vec() });
        let mut is_free = false;
        for lane in flight.lanes.drain(..own_done) {
            let lane = &mut self.lanes[usize::from(lane)];
            lane.in_flight -= 1;
            is_free |= lane.in_flight == 0 && lane.owner != Some(worker);
        }
        if is_free {
            self.settle(Vec::new());
        }
        true
    }

    /// The workers that have something to send since they were named last, or since [`Dispatch::next_batch`] had nothing for
    /// them, whichever was later.
    pub fn take_ready(&mut self) -> Vec<WorkerId> {
        std::mem::take(&mut self.ready)
    }

    /// State events of new nodes have no room either: whoever would bring a new node or connection should wait.
    pub fn is_crowded(&self) -> bool {
        let crowd: usize = self.everybody().map(|worker| worker.queue.crowd.len() + worker.held.crowd.len()).sum();
        crowd >= self.limits.events.saturating_mul(self.workers.len().max(1))
    }

    pub fn stats(&self) -> DispatchStats {
        let queues = || self.everybody().flat_map(|worker| [&worker.queue, &worker.held]);
        DispatchStats {
            workers: self.workers.len(),
            queued_events: queues().map(WorkerQueue::len).sum(),
            queued_bytes: queues().map(|queue| queue.bytes).sum(),
            in_flight_events: self.everybody().flat_map(|worker| &worker.flights).map(|flight| flight.batch.events.len()).sum(),
            refused: self.refused,
            dropped: self.dropped,
            coalesced: self.coalesced,
            redelivered: self.redelivered,
            abandoned: self.abandoned,
            moved_lanes: self.moved_lanes,
        }
    }

    fn everybody(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values().chain([&self.nobody])
    }

    /// Who gets a copy of an event. Nearly always nobody.
    fn watchers(&self, event: &Event, owner: Option<WorkerId>) -> Vec<WorkerId> {
        if self.watches.is_empty() {
            return Vec::new();
        }
        let Some(channel_id) = channel_of(event) else { return Vec::new() };
        let watches = self.watches.range((channel_id, 0)..=(channel_id, WorkerId::MAX));
        watches.map(|(_, worker)| *worker).filter(|worker| Some(*worker) != owner).collect()
    }

    fn queue_data(&mut self, to: Option<WorkerId>, waiting: WaitingEvent) -> bool {
        let most = 2 * self.workers.len().max(1);
        let worker = to.and_then(|id| self.workers.get_mut(&id)).unwrap_or(&mut self.nobody);
        let is_held = !waiting.told.watched && self.lanes[usize::from(waiting.lane)].is_blocked();
        let queue = if is_held { &mut worker.held } else { &mut worker.queue };
        // Behind state events that are merged in their place, data of the same node would be told too late.
        if queue.in_crowd(&waiting.told.event).is_some() {
            self.refused += 1;
            return false;
        }
        let len = waiting.told.event.payload_len();
        while !(worker.size_of_data().has_room(len, &self.limits)
            && self.waiting.is_below(&self.limits, most)
            && (self.waiting.bytes == 0 || self.waiting.bytes + len <= self.all_bytes))
        {
            let oldest = if self.limits.drop_oldest { worker.pop_oldest_data() } else { None };
            let Some(oldest) = oldest else {
                self.refused += 1;
                return false;
            };
            self.waiting.events -= 1;
            self.waiting.bytes -= oldest.told.event.payload_len();
            self.dropped += 1;
        }
        self.waiting.events += 1;
        self.waiting.bytes += len;
        let queue = if is_held { &mut worker.held } else { &mut worker.queue };
        queue.push(waiting);
        if let Some(id) = to {
            wake(id, worker, &self.limits, &mut self.ready);
        }
        true
    }

    /// A question goes to a worker that answers such ones, where not each of them does.
    fn lane_for(&self, event: &Event) -> u16 {
        let lane = lane_of(event);
        if !matches!(event, Event::Question { .. }) {
            return lane;
        }
        let kind = EventMask::of(event.kind());
        let is_answered = |lane: &u16| {
            let owner = self.lanes[usize::from(*lane)].owner;
            owner.is_none_or(|owner| self.workers.get(&owner).is_some_and(|worker| worker.mask.contains(kind)))
        };
        let lanes = LANES as u16;
        (0..lanes).map(|step| (lane + step) % lanes).find(is_answered).unwrap_or(lane)
    }

    fn note_subscriptions(&mut self) {
        let mut masks = self.workers.values().filter(|worker| !worker.is_leaving).map(|worker| worker.mask);
        if let Some(first) = masks.next() {
            self.subscribed = masks.fold(first, |all, mask| all | mask);
        }
    }

    fn forget_watches(&mut self, worker: WorkerId) {
        self.watches.retain(|(_, watcher)| *watcher != worker);
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.watches = 0;
        }
    }

    /// Gives each lane of a worker that leaves to the one with the fewest.
    fn give_away_lanes(&mut self, from: WorkerId) {
        let heirs = self.workers.iter().filter(|(_, worker)| !worker.is_leaving);
        let mut shares: Vec<(usize, WorkerId)> = heirs.map(|(&id, _)| (0, id)).collect();
        for (share, id) in &mut shares {
            *share = self.lanes.iter().filter(|lane| lane.owner == Some(*id)).count();
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.owner == Some(from)) {
            lane.owner = shares.iter_mut().min().map(|(share, id)| {
                *share += 1;
                *id
            });
            self.moved_lanes += 1;
        }
    }

    /// Brings `moved`, and everything that waits in a wrong place since lanes changed hands, to where it belongs now.
    fn settle(&mut self, mut moved: Vec<WaitingEvent>) {
        let lanes = &self.lanes;
        self.nobody.queue.take(|lane| lanes[lane].owner.is_some(), &mut moved);
        for (&id, worker) in &mut self.workers {
            let before = moved.len();
            worker.queue.take(|lane| lanes[lane].owner != Some(id), &mut moved);
            worker.held.take(|lane| lanes[lane].owner != Some(id) || !lanes[lane].is_blocked(), &mut moved);
            if worker.watches > 0 {
                // It has been the owner, so no copies were made for it.
                for waiting in moved[before..].iter().filter(|waiting| lanes[usize::from(waiting.lane)].owner != Some(id)) {
                    if channel_of(&waiting.told.event).is_some_and(|channel_id| self.watches.contains(&(channel_id, id))) {
                        worker.queue.push(WaitingEvent::copy(&waiting.told));
                    }
                }
            }
        }
        for waiting in moved {
            let lane = &lanes[usize::from(waiting.lane)];
            let worker = lane.owner.and_then(|id| self.workers.get_mut(&id)).unwrap_or(&mut self.nobody);
            let queue = if lane.is_blocked() { &mut worker.held } else { &mut worker.queue };
            queue.push(waiting);
        }
        self.nobody.queue.sort();
        self.waiting = self.nobody.size_of_data();
        for (&id, worker) in &mut self.workers {
            worker.queue.sort();
            worker.held.sort();
            let Size { events, bytes } = worker.size_of_data();
            self.waiting.events += events;
            self.waiting.bytes += bytes;
            wake(id, worker, &self.limits, &mut self.ready);
        }
    }
}

#[cfg(test)]
mod tests;
