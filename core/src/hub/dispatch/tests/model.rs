//! A naive model of dispatch, and random histories that both go through.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

#[derive(Clone, Debug)]
enum Step {
    Data(usize, usize),
    Heartbeat(usize),
    Left(usize),
    Join,
    Leave(usize),
    Die(usize),
    Batch(usize),
    Acknowledge(usize),
    Watch(usize, usize),
}

/// Nodes below this are watched, the others leave: a watch ends with its node.
const WATCHED: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..8usize, 0..30usize).prop_map(|(node, len)| Step::Data(node, len)),
        4 => (0..8usize).prop_map(Step::Heartbeat),
        2 => (WATCHED..8).prop_map(Step::Left),
        1 => Just(Step::Join),
        1 => (0..4usize).prop_map(Step::Leave),
        1 => (0..4usize).prop_map(Step::Die),
        8 => (0..4usize).prop_map(Step::Batch),
        7 => (0..4usize).prop_map(Step::Acknowledge),
        1 => (0..4usize, 0..WATCHED).prop_map(|(worker, node)| Step::Watch(worker, node)),
    ];
    proptest::collection::vec(step, 1..250)
}

/// An event as the naive model knows it.
struct Known {
    sequence: u64,
    node: usize,
    /// Workers that died while they may have seen it.
    deaths: u8,
    in_hand: Option<(WorkerId, u64)>,
}

struct Model {
    dispatch: Dispatch,
    nodes: Vec<Arc<Node>>,
    sequence: u64,
    next_worker: WorkerId,
    /// In order; those who left with a mark.
    workers: Vec<(WorkerId, bool)>,
    /// What was taken and is not done, in the order of its numbers.
    known: Vec<Known>,
    /// Batches in hand, oldest first.
    flights: BTreeMap<WorkerId, VecDeque<u64>>,
    /// (worker, node): what was pushed while it was watched, and reached nobody's eyes there yet.
    watched: BTreeMap<(WorkerId, usize), BTreeSet<u64>>,
}

impl Model {
    fn new(limits: DispatchLimits) -> Self {
        Self {
            dispatch: dispatch_with(limits),
            nodes: nodes(0..8),
            sequence: 0,
            next_worker: 1,
            workers: Vec::new(),
            known: Vec::new(),
            flights: BTreeMap::new(),
            watched: BTreeMap::new(),
        }
    }

    fn pushed(&mut self, node: usize, is_taken: bool, is_data: bool) {
        self.sequence += 1;
        if is_taken {
            self.known.push(Known { sequence: self.sequence, node, deaths: 0, in_hand: None });
        }
        if is_data {
            for ((_, _), missing) in self.watched.iter_mut().filter(|((_, watched), _)| *watched == node) {
                missing.insert(self.sequence);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Data(node, len) => {
                let is_taken = self.dispatch.push_data(data_of(&self.nodes[node], len));
                self.pushed(node, is_taken, true);
            }
            Step::Heartbeat(node) => {
                let before = self.dispatch.stats().coalesced;
                self.dispatch.push_state(heartbeat(&self.nodes[node]));
                self.pushed(node, self.dispatch.stats().coalesced == before, false);
            }
            Step::Left(node) => {
                let before = self.dispatch.stats().coalesced;
                self.dispatch.push_state(left(&self.nodes[node]));
                self.pushed(node, self.dispatch.stats().coalesced == before, false);
            }
            Step::Join => {
                if self.workers.len() < 4 {
                    self.dispatch.join(self.next_worker, EventMask::ALL);
                    self.workers.push((self.next_worker, false));
                    self.next_worker += 1;
                }
            }
            Step::Leave(index) => {
                if let Some((worker, has_left)) = self.workers.get_mut(index) {
                    *has_left = true;
                    self.dispatch.leave(*worker);
                    self.watched.retain(|(watcher, _), _| watcher != worker);
                }
            }
            Step::Die(index) => {
                if index < self.workers.len() {
                    self.die(index);
                }
            }
            Step::Batch(index) => {
                if let Some(&(worker, has_left)) = self.workers.get(index) {
                    assert!(!self.batch(worker) || !has_left, "nothing for one that left");
                }
            }
            Step::Acknowledge(index) => {
                if let Some((worker, _)) = self.workers.get(index) {
                    self.acknowledge(*worker);
                }
            }
            Step::Watch(index, node) => {
                if let Some((worker, _)) = self.workers.get(index) {
                    if self.dispatch.watch(*worker, self.nodes[node].channel_id()) {
                        self.watched.entry((*worker, node)).or_default();
                    }
                }
            }
        }
        self.check();
    }

    fn die(&mut self, index: usize) {
        let (worker, _) = self.workers.remove(index);
        self.dispatch.remove(worker);
        let first = self.flights.remove(&worker).and_then(|flights| flights.front().copied());
        for known in &mut self.known {
            if let Some((holder, batch)) = known.in_hand {
                if holder == worker {
                    known.in_hand = None;
                    known.deaths += u8::from(Some(batch) == first);
                }
            }
        }
        self.known.retain(|known| known.deaths < MAX_DEATHS);
        self.watched.retain(|(watcher, _), _| *watcher != worker);
    }

    fn batch(&mut self, worker: WorkerId) -> bool {
        let Some(batch) = self.dispatch.next_batch(worker) else { return false };
        let limits = self.dispatch.limits;
        let flights = self.flights.entry(worker).or_default();
        flights.push_back(batch.number);
        assert!(flights.len() <= limits.batches_in_flight);
        assert!((1..=limits.batch_events).contains(&batch.events.len()));
        let bytes: usize = batch.events.iter().map(|told| told.event.payload_len()).sum();
        assert!(bytes <= limits.batch_bytes || batch.events.len() == 1);
        for told in &batch.events {
            let id = match &told.event {
                Event::Data { node, .. } | Event::Heartbeat { node, .. } | Event::Left { node, .. } => node.id(),
                event => panic!("nobody pushed {event:?}"),
            };
            let node = self.nodes.iter().position(|node| node.id() == id).expect("one of ours");
            if let Some(missing) = self.watched.get_mut(&(worker, node)) {
                missing.remove(&told.sequence);
            }
            if told.watched {
                continue;
            }
            let index = self.known.iter().position(|known| known.sequence == told.sequence).expect("taken, and not done");
            assert!(self.known[index].in_hand.is_none(), "it is told twice at a time");
            assert_eq!(told.redelivered, self.known[index].deaths > 0);
            assert!(!told.redelivered || batch.events.len() == 1);
            for other in self.known.iter().filter(|known| known.node == node) {
                if let Some((holder, _)) = other.in_hand {
                    assert_eq!(holder, worker, "two workers have one node in hand");
                    assert!(other.sequence < told.sequence, "a node's order is broken");
                }
            }
            // What was before it is in hand, or was dropped for room.
            let is_late = |known: &Known| known.node == node && known.sequence < told.sequence && known.in_hand.is_none();
            assert!(limits.drop_oldest || !self.known.iter().any(is_late), "one was passed over");
            self.known[index].in_hand = Some((worker, batch.number));
            self.known.retain(|known| !is_late(known));
        }
        true
    }

    fn acknowledge(&mut self, worker: WorkerId) -> bool {
        let Some(batch) = self.flights.get_mut(&worker).and_then(VecDeque::pop_front) else { return false };
        assert!(self.dispatch.acknowledge(worker, batch).is_some());
        self.known.retain(|known| known.in_hand != Some((worker, batch)));
        true
    }

    fn check(&self) {
        let Dispatch { limits, .. } = self.dispatch;
        let data: usize = self.dispatch.everybody().map(|worker| worker.size_of_data().events).sum();
        let bytes: usize = self.dispatch.everybody().map(|worker| worker.size_of_data().bytes).sum();
        assert_eq!((data, bytes), (self.dispatch.waiting.events, self.dispatch.waiting.bytes));
        for worker in self.dispatch.everybody() {
            for queue in [&worker.queue, &worker.held] {
                assert!(queue.data.iter().map(|waiting| waiting.told.sequence).is_sorted());
                assert!(queue.state.iter().map(|waiting| waiting.told.sequence).is_sorted());
                assert_eq!(queue.bytes, queue.data.iter().map(|waiting| waiting.told.event.payload_len()).sum::<usize>());
                assert_eq!(queue.crowd.len(), queue.state.iter().filter(|waiting| waiting.is_crowd).count());
            }
        }
        // What was in hand comes back beyond every bound, once per worker that died.
        let in_hand = limits.batch_events * limits.batches_in_flight * self.next_worker as usize;
        let most = limits.events.saturating_mul(2 * 4) + in_hand;
        assert!(data <= most, "{data} wait, {most} may");
        let shares = shares(&self.dispatch);
        let owned: usize = shares.iter().sum();
        assert_eq!(owned, if shares.is_empty() { 0 } else { LANES });
        assert!(shares.iter().max() <= shares.iter().min().map(|least| least + 1).as_ref(), "{shares:?}");
    }

    fn finish(mut self) {
        for index in (0..self.workers.len()).rev().filter(|&index| index % 2 == 0) {
            self.die(index);
        }
        self.dispatch.join(self.next_worker, EventMask::ALL);
        self.workers.push((self.next_worker, false));
        let workers: Vec<_> = self.workers.iter().map(|(worker, _)| *worker).collect();
        while workers.iter().any(|worker| self.batch(*worker) | self.acknowledge(*worker)) {}
        let stats = self.dispatch.stats();
        assert_eq!((stats.queued_events, stats.queued_bytes, stats.in_flight_events), (0, 0, 0));
        if !self.dispatch.limits.drop_oldest {
            assert!(self.known.is_empty(), "some were lost");
        }
        if stats.refused + stats.dropped == 0 {
            assert!(self.watched.values().all(BTreeSet::is_empty), "a watcher missed some");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_lost_doubled_or_told_out_of_order(
        steps in steps(), batch_events in 1..5usize, batches_in_flight in 1..4usize, batch_bytes in 1..100usize,
    ) {
        let limits = DispatchLimits { batch_events, batches_in_flight, batch_bytes, ..DispatchLimits::default() };
        let mut model = Model::new(limits);
        for step in &steps {
            model.step(step);
        }
        let stats = model.dispatch.stats();
        assert_eq!((stats.refused, stats.dropped, stats.coalesced), (0, 0, 0));
        model.finish();
    }

    #[test]
    fn the_same_holds_at_the_bounds_for_everything_that_was_taken(
        steps in steps(), events in 1..6usize, bytes in 1..100usize, drop_oldest in any::<bool>(), batch_events in 1..5usize,
    ) {
        let limits = DispatchLimits { events, bytes, drop_oldest, batch_events, batches_in_flight: 2, batch_bytes: 50 };
        let mut model = Model::new(limits);
        for step in &steps {
            model.step(step);
        }
        model.finish();
    }
}
