//! Dispatch, sentence by sentence, and against a naive model through random histories.

mod model;

use super::*;
use crate::hub::link::{Command, CommandSink, Link};
use crate::hub::{Node, Now};
use crate::model::{CloseReason, ConnectedBy, ConnectedPeer, Departure, HostMessage};
use bytes::Bytes;
use std::ops::Range;

struct Silent;

impl CommandSink for Silent {
    fn post(&self, _command: Command) {}
}

fn node(number: u32) -> Arc<Node> {
    let peer = "127.0.0.1:1".parse().expect("an address");
    let link = Arc::new(Link::new(1, peer, 0, Arc::new(Silent)));
    Arc::new(Node::new(format!("node-{number}").into(), link, number, None, Now { mono: 1, unix: 1 }))
}

fn nodes(numbers: Range<u32>) -> Vec<Arc<Node>> {
    numbers.map(node).collect()
}

fn data_of(node: &Arc<Node>, len: usize) -> Event {
    Event::Data { node: node.into(), channel_id: node.channel_id(), payload: Bytes::from(vec![0; len]) }
}

fn data(node: &Arc<Node>) -> Event {
    data_of(node, 1)
}

fn heartbeat(node: &Arc<Node>) -> Event {
    Event::Heartbeat { node: node.into(), count: 1 }
}

fn left(node: &Arc<Node>) -> Event {
    Event::Left { node: node.into(), how: Departure::Unregistered, count: 1 }
}

fn closed(connection_id: u64, reason: CloseReason) -> Event {
    Event::Close { connection_id, reason, who: Arc::new(ConnectedPeer { address: ([127, 0, 0, 1], 1).into(), user: None }) }
}

fn dispatch_with(limits: DispatchLimits) -> Dispatch {
    Dispatch::new(limits, EventMask::ALL)
}

fn dispatch() -> Dispatch {
    dispatch_with(DispatchLimits { batch_events: 4, batches_in_flight: 2, ..DispatchLimits::default() })
}

/// The number and whether it is a redelivery, of each event of the next batch.
fn batch(dispatch: &mut Dispatch, worker: WorkerId) -> Vec<(u64, bool)> {
    let batch = dispatch.next_batch(worker);
    batch.map_or(Vec::new(), |batch| batch.events.iter().map(|told| (told.sequence, told.redelivered)).collect())
}

/// The numbers of everything that a worker is given while it acknowledges each batch.
fn all(dispatch: &mut Dispatch, worker: WorkerId) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(batch) = dispatch.next_batch(worker) {
        numbers.extend(batch.events.iter().map(|told| told.sequence));
        assert!(dispatch.acknowledge(worker, batch.number).is_some());
    }
    numbers
}

fn shares(dispatch: &Dispatch) -> Vec<usize> {
    let share = |id| dispatch.lanes.iter().filter(|lane| lane.owner == Some(id)).count();
    dispatch.workers.iter().filter(|(_, worker)| !worker.is_leaving).map(|(&id, _)| share(id)).collect()
}

fn owner(dispatch: &Dispatch, node: &Arc<Node>) -> WorkerId {
    dispatch.lanes[usize::from(lane_of(&data(node)))].owner.expect("an owner")
}

#[test]
fn one_worker_gets_everything_in_the_order_of_happening() {
    let mut dispatch = dispatch();
    let nodes = nodes(1..4);
    dispatch.push_state(Event::Connect { connection_id: 1, peer: nodes[0].peer(), door: ConnectedBy::Tcp });
    assert!(dispatch.push_data(data(&nodes[0])));
    dispatch.join(7, EventMask::ALL);
    dispatch.push_state(left(&nodes[1]));
    assert!(dispatch.push_data(data(&nodes[2])));
    dispatch.push_state(closed(1, CloseReason::PeerClosed));
    assert_eq!(all(&mut dispatch, 7), [1, 2, 3, 4, 5]);
    assert_eq!(dispatch.stats().queued_events, 0);
    assert_eq!(dispatch.stats().in_flight_events, 0);
}

#[test]
fn a_batch_ends_at_its_number_of_events_or_bytes_and_a_longer_event_travels_alone() {
    let mut dispatch = dispatch_with(DispatchLimits { batch_events: 3, batch_bytes: 100, ..DispatchLimits::default() });
    let node = node(1);
    dispatch.join(1, EventMask::ALL);
    for len in [1, 1, 1, 60, 40, 1, 500, 1] {
        dispatch.push_data(data_of(&node, len));
    }
    let lens: Vec<_> = std::iter::from_fn(|| dispatch.next_batch(1)).map(|batch| batch.events.len()).collect();
    assert_eq!(lens, [3, 2, 1, 1]);
    assert!(dispatch.next_batch(1).is_none(), "as many in hand as may be");
    assert_eq!(dispatch.stats().in_flight_events, 7);
    assert!(dispatch.acknowledge(1, 1).is_some());
    assert_eq!(batch(&mut dispatch, 1), [(8, false)]);
}

#[test]
fn only_the_oldest_batch_in_hand_can_be_acknowledged() {
    let mut dispatch = dispatch();
    let node = node(1);
    dispatch.join(1, EventMask::ALL);
    for _ in 0..8 {
        dispatch.push_data(data(&node));
    }
    assert_eq!(dispatch.next_batch(1).map(|batch| batch.number), Some(1));
    assert_eq!(dispatch.next_batch(1).map(|batch| batch.number), Some(2));
    assert!(dispatch.acknowledge(1, 2).is_none());
    assert!(dispatch.acknowledge(2, 1).is_none(), "nobody's");
    assert_eq!(dispatch.acknowledge(1, 1).map(|batch| batch.events.len()), Some(4));
    assert!(dispatch.acknowledge(1, 1).is_none(), "twice");
}

#[test]
fn a_worker_is_named_ready_once_until_nothing_is_left_for_it() {
    let mut dispatch = dispatch();
    let node = node(1);
    dispatch.push_data(data(&node));
    assert!(dispatch.take_ready().is_empty(), "nobody is there");
    dispatch.join(1, EventMask::ALL);
    assert_eq!(dispatch.take_ready(), [1]);
    dispatch.push_data(data(&node));
    assert!(dispatch.take_ready().is_empty(), "it knows");
    assert_eq!(batch(&mut dispatch, 1).len(), 2);
    assert!(dispatch.next_batch(1).is_none());
    dispatch.push_data(data(&node));
    assert_eq!(dispatch.take_ready(), [1]);
    assert_eq!(batch(&mut dispatch, 1).len(), 1);
    dispatch.push_data(data(&node));
    assert!(dispatch.next_batch(1).is_none(), "two in hand");
    dispatch.push_data(data(&node));
    assert!(dispatch.take_ready().is_empty(), "it may not be sent more");
    assert!(dispatch.acknowledge(1, 1).is_some());
    assert_eq!(dispatch.take_ready(), [1]);
    dispatch.remove(1);
    dispatch.join(2, EventMask::ALL);
    dispatch.remove(2);
    assert!(dispatch.take_ready().is_empty(), "it is gone");
}

#[test]
fn lanes_are_shared_evenly_whoever_comes_and_goes() {
    let mut dispatch = dispatch();
    let is_even = |dispatch: &Dispatch, workers: usize| {
        let shares = shares(dispatch);
        assert_eq!(shares.len(), workers);
        assert_eq!(shares.iter().sum::<usize>(), LANES);
        assert!(shares.iter().max().expect("one") - shares.iter().min().expect("one") <= 1, "{shares:?}");
    };
    for worker in 1..=7 {
        dispatch.join(worker, EventMask::ALL);
        is_even(&dispatch, worker as usize);
    }
    let moved = dispatch.stats().moved_lanes;
    assert_eq!(moved, (2..=7).map(|workers| LANES as u64 / workers).sum::<u64>(), "no more than had to");
    dispatch.leave(3);
    is_even(&dispatch, 6);
    dispatch.remove(5);
    is_even(&dispatch, 5);
    dispatch.join(5, EventMask::ALL);
    is_even(&dispatch, 6);
}

#[test]
fn node_ids_and_connection_ids_spread_over_the_lanes() {
    let mut hits = vec![[0; 2]; 16];
    for (number, node) in nodes(0..4096).iter().enumerate() {
        hits[usize::from(lane_of(&data(node))) / (LANES / 16)][0] += 1;
        let close = closed(number as u64, CloseReason::Kicked);
        hits[usize::from(lane_of(&close)) / (LANES / 16)][1] += 1;
    }
    assert!(hits.iter().flatten().all(|&hits| (150..400).contains(&hits)), "{hits:?}");
}

#[test]
fn a_lane_that_moves_takes_what_waits_along_and_stands_still_until_its_former_owner_is_done() {
    let mut dispatch = dispatch();
    let nodes = nodes(1..50);
    dispatch.join(1, EventMask::ALL);
    for node in nodes[..4].iter().chain(&nodes) {
        dispatch.push_data(data(node));
    }
    assert_eq!(batch(&mut dispatch, 1), [(1, false), (2, false), (3, false), (4, false)]);
    dispatch.leave(1);
    dispatch.join(2, EventMask::ALL);
    assert!(dispatch.next_batch(1).is_none(), "it left");
    let now: Vec<_> = all(&mut dispatch, 2);
    assert_eq!(now, (9..=53).collect::<Vec<_>>(), "all but those whose nodes the other has in hand");
    dispatch.push_data(data(&nodes[0]));
    assert!(all(&mut dispatch, 2).is_empty());
    assert!(!dispatch.has_drained(1));
    assert!(dispatch.acknowledge(1, 1).is_some());
    assert!(dispatch.has_drained(1));
    assert_eq!(all(&mut dispatch, 2), [5, 6, 7, 8, 54]);
    dispatch.remove(1);
    assert_eq!(dispatch.stats().redelivered, 0);
}

#[test]
fn what_a_dead_worker_had_in_hand_is_told_again_and_only_the_first_batch_is_marked() {
    let mut dispatch = dispatch();
    let node = node(1);
    dispatch.join(1, EventMask::ALL);
    for _ in 0..12 {
        dispatch.push_data(data(&node));
    }
    dispatch.next_batch(1);
    dispatch.next_batch(1);
    dispatch.remove(1);
    assert_eq!(dispatch.stats().queued_events, 12);
    dispatch.join(2, EventMask::ALL);
    for number in 1..5 {
        assert_eq!(batch(&mut dispatch, 2), [(number, true)], "alone: it may be what the worker died of");
        assert!(dispatch.acknowledge(2, number).is_some());
    }
    assert_eq!(batch(&mut dispatch, 2), [(5, false), (6, false), (7, false), (8, false)]);
    assert_eq!(dispatch.stats().redelivered, 4);
}

#[test]
fn an_event_that_three_workers_died_of_is_given_up_and_its_neighbours_are_not() {
    let mut dispatch = dispatch();
    let node = node(1);
    dispatch.join(1, EventMask::ALL);
    for _ in 0..4 {
        dispatch.push_data(data(&node));
    }
    assert_eq!(batch(&mut dispatch, 1).len(), 4);
    dispatch.remove(1);
    for worker in 2..4 {
        dispatch.join(worker, EventMask::ALL);
        assert_eq!(batch(&mut dispatch, worker), [(1, true)]);
        dispatch.remove(worker);
        assert_eq!(dispatch.stats().abandoned, u64::from(worker == 3));
    }
    dispatch.join(4, EventMask::ALL);
    assert_eq!(all(&mut dispatch, 4), [2, 3, 4]);
}

#[test]
fn a_worker_that_says_how_far_it_came_leaves_marks_on_what_it_had_begun_only() {
    let mut dispatch = dispatch();
    let nodes = nodes(1..5);
    dispatch.join(1, EventMask::ALL);
    for node in &nodes {
        dispatch.push_data(data(node));
    }
    assert_eq!(batch(&mut dispatch, 1).len(), 4);
    assert!(!dispatch.acknowledge_part(1, 2, 1, 1), "no such batch");
    assert!(!dispatch.acknowledge_part(1, 1, 4, 1), "more than it had");
    assert!(!dispatch.acknowledge_part(1, 1, 1, usize::MAX));
    assert!(dispatch.acknowledge_part(1, 1, 2, 1));
    dispatch.remove(1);
    dispatch.join(2, EventMask::ALL);
    assert_eq!(batch(&mut dispatch, 2), [(3, true)]);
    assert_eq!(batch(&mut dispatch, 2), [(4, false)]);
    assert_eq!(dispatch.stats().redelivered, 1);
}

#[test]
fn a_mark_stays_even_if_the_next_worker_dies_before_it_comes_to_it() {
    let mut dispatch = dispatch_with(DispatchLimits { batch_events: 1, ..DispatchLimits::default() });
    let nodes = nodes(1..3);
    dispatch.join(1, EventMask::ALL);
    dispatch.push_data(data(&nodes[0]));
    dispatch.push_data(data(&nodes[1]));
    assert!(dispatch.next_batch(1).is_some());
    dispatch.remove(1);
    dispatch.join(2, EventMask::ALL);
    dispatch.next_batch(2);
    dispatch.acknowledge(2, 1);
    dispatch.next_batch(2);
    dispatch.remove(2);
    dispatch.join(3, EventMask::ALL);
    assert_eq!(batch(&mut dispatch, 3), [(2, true)]);
}

#[test]
fn at_the_bound_data_is_refused_for_that_worker_alone() {
    let mut dispatch = dispatch_with(DispatchLimits { events: 3, bytes: 10, ..DispatchLimits::default() });
    let nodes = nodes(1..50);
    dispatch.join(1, EventMask::ALL);
    dispatch.join(2, EventMask::ALL);
    let of = |worker| nodes.iter().find(|node| owner(&dispatch, node) == worker).expect("a node of each").clone();
    let (slow, quick) = (of(1), of(2));
    for _ in 0..3 {
        assert!(dispatch.push_data(data(&slow)));
    }
    assert!(!dispatch.push_data(data(&slow)), "too many");
    assert!(dispatch.push_data(data_of(&quick, 100)), "longer than the bound, but alone");
    assert!(!dispatch.push_data(data(&quick)), "too many bytes");
    assert_eq!(dispatch.stats().refused, 2);
    assert_eq!(dispatch.stats().queued_bytes, 103);
    assert_eq!(all(&mut dispatch, 2), [5]);
    assert!(dispatch.push_data(data(&quick)));
}

#[test]
fn with_drop_oldest_the_oldest_data_makes_room() {
    let limits = DispatchLimits { events: 3, bytes: 10, drop_oldest: true, ..DispatchLimits::default() };
    let mut dispatch = dispatch_with(limits);
    let node = node(1);
    dispatch.push_state(heartbeat(&node));
    for len in [1, 1, 1, 1, 9] {
        assert!(dispatch.push_data(data_of(&node, len)));
    }
    assert_eq!(dispatch.stats().dropped, 3);
    dispatch.join(1, EventMask::ALL);
    assert_eq!(all(&mut dispatch, 1), [1, 5, 6], "state is never dropped");
}

#[test]
fn what_waits_for_a_former_owner_counts_and_makes_room_like_the_rest() {
    let limits = DispatchLimits { events: 2, drop_oldest: true, ..DispatchLimits::default() };
    let mut dispatch = dispatch_with(limits);
    let nodes = nodes(1..3);
    dispatch.join(1, EventMask::ALL);
    dispatch.push_data(data(&nodes[0]));
    assert_eq!(batch(&mut dispatch, 1), [(1, false)]);
    dispatch.leave(1);
    dispatch.join(2, EventMask::ALL);
    dispatch.push_data(data(&nodes[0]));
    dispatch.push_data(data(&nodes[1]));
    dispatch.push_data(data(&nodes[1]));
    assert!(dispatch.acknowledge(1, 1).is_some());
    assert_eq!(all(&mut dispatch, 2), [3, 4], "2 was the oldest, though it stood aside");
}

#[test]
fn all_together_hold_no_more_than_twice_what_each_may_hold() {
    let mut dispatch = dispatch_with(DispatchLimits { events: 10, ..DispatchLimits::default() });
    let nodes = nodes(1..200);
    dispatch.join(1, EventMask::ALL);
    for worker in 2..20 {
        dispatch.join(worker, EventMask::ALL);
        for node in &nodes {
            dispatch.push_data(data(node));
        }
        dispatch.remove(worker);
    }
    assert!((20..=40).contains(&dispatch.stats().queued_events), "{:?}", dispatch.stats());
    assert!(all(&mut dispatch, 1).is_sorted());
    assert!(dispatch.push_data(data(&nodes[0])));
}

#[test]
fn at_the_bound_state_is_merge_per_node_and_its_data_waits_outside() {
    let mut dispatch = dispatch_with(DispatchLimits { events: 2, ..DispatchLimits::default() });
    let nodes = nodes(1..4);
    dispatch.push_state(heartbeat(&nodes[0]));
    dispatch.push_state(heartbeat(&nodes[0]));
    assert!(!dispatch.is_crowded());
    dispatch.push_state(Event::Register { node: (&nodes[1]).into(), count: 1 });
    dispatch.push_state(heartbeat(&nodes[1]));
    dispatch.push_state(heartbeat(&nodes[0]));
    assert!(dispatch.is_crowded());
    assert!(!dispatch.push_data(data(&nodes[1])), "it would be told before what is merged later");
    assert!(dispatch.push_data(data(&nodes[2])));
    dispatch.push_state(left(&nodes[0]));
    assert_eq!(dispatch.stats().coalesced, 2);
    dispatch.join(1, EventMask::ALL);
    let batch = dispatch.next_batch(1).expect("events");
    let told: Vec<_> = batch.events.iter().map(|told| (told.sequence, &told.event)).collect();
    assert!(
        matches!(
            told[..],
            [
                (1, Event::Heartbeat { count: 1, .. }),
                (2, Event::Heartbeat { count: 1, .. }),
                (3, Event::Register { count: 2, .. }),
                (5, Event::Left { count: 2, .. }),
                (7, Event::Data { .. }),
            ]
        ),
        "{told:?}"
    );
    assert!(!dispatch.is_crowded());
    assert!(dispatch.push_data(data(&nodes[1])));
}

#[test]
fn crowds_stay_together_when_their_lane_moves() {
    let mut dispatch = dispatch_with(DispatchLimits { events: 1, ..DispatchLimits::default() });
    let nodes = nodes(1..3);
    for _ in 0..3 {
        dispatch.push_state(heartbeat(&nodes[0]));
    }
    for worker in 1..5 {
        dispatch.join(worker, EventMask::ALL);
        dispatch.push_state(heartbeat(&nodes[0]));
        dispatch.remove(worker - 1);
    }
    assert_eq!(dispatch.stats().queued_events, 2);
    assert_eq!(dispatch.stats().coalesced, 5);
    assert_eq!(all(&mut dispatch, 4), [1, 2]);
}

#[test]
fn nothing_reaches_a_worker_that_did_not_subscribe_to_it() {
    let mut dispatch = Dispatch::new(DispatchLimits::default(), EventMask::REGISTER);
    let node = node(1);
    assert_eq!(dispatch.wants(), EventMask::REGISTER);
    dispatch.join(1, EventMask::DATA);
    dispatch.join(2, EventMask::LEFT);
    assert_eq!(dispatch.wants(), EventMask::DATA | EventMask::LEFT);
    dispatch.remove(2);
    assert_eq!(dispatch.wants(), EventMask::DATA);
    dispatch.push_data(data(&node));
    dispatch.push_state(left(&node));
    assert_eq!(batch(&mut dispatch, 1), [(1, false)]);
    dispatch.push_state(left(&node));
    dispatch.subscribe(1, EventMask::LEFT);
    assert_eq!(batch(&mut dispatch, 1), [(3, false)], "measured when it is sent");
    dispatch.push_data(data(&node));
    assert!(dispatch.next_batch(1).is_none());
    assert_eq!(dispatch.stats().queued_events, 0);
    dispatch.leave(1);
    assert_eq!(dispatch.wants(), EventMask::LEFT, "the next worker will want the same");
}

#[test]
fn a_watched_channel_is_copied_to_the_watcher_until_its_node_left() {
    let mut dispatch = Dispatch::new(DispatchLimits::default(), EventMask::NONE);
    let nodes = nodes(1..50);
    dispatch.join(1, EventMask::NONE);
    dispatch.join(2, EventMask::REGISTER);
    let watched = nodes.iter().find(|node| owner(&dispatch, node) == 1).expect("a node of the first");
    assert!(!dispatch.watch(3, 1), "nobody");
    assert!(dispatch.watch(2, watched.channel_id()));
    assert!(dispatch.watch(2, watched.channel_id()), "again");
    assert_eq!(dispatch.wants(), EventMask::REGISTER | EventMask::DATA | EventMask::LEFT);
    dispatch.push_data(data(watched));
    dispatch.push_state(heartbeat(watched));
    dispatch.push_data(data(nodes.iter().find(|node| !Arc::ptr_eq(node, watched)).expect("another")));
    dispatch.push_state(left(watched));
    let batch = dispatch.next_batch(2).expect("copies");
    assert!(batch.events.iter().all(|told| told.watched));
    assert_eq!(batch.events.iter().map(|told| told.sequence).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(dispatch.wants(), EventMask::REGISTER, "nothing is watched any more");
    dispatch.remove(2);
    assert_eq!(dispatch.stats().redelivered, 0, "copies die with their worker");
    assert!(dispatch.next_batch(1).is_none());
}

#[test]
fn an_owner_that_watches_gets_what_it_did_not_subscribe_to() {
    let mut dispatch = dispatch();
    let node = node(1);
    dispatch.join(1, EventMask::REGISTER);
    assert!(dispatch.watch(1, node.channel_id()));
    dispatch.push_state(heartbeat(&node));
    dispatch.push_data(data(&node));
    dispatch.push_state(left(&node));
    let batch = dispatch.next_batch(1).expect("copies");
    assert_eq!(batch.events.iter().map(|told| (told.sequence, told.watched)).collect::<Vec<_>>(), [(2, true), (3, true)]);
    assert!(dispatch.watches.is_empty());
    dispatch.remove(1);
    assert_eq!(dispatch.stats().queued_events, 0, "copies die with their worker");
}

#[test]
fn a_watcher_that_becomes_the_owner_knows_by_the_number_what_it_has_seen() {
    let mut dispatch = dispatch();
    let nodes = nodes(1..50);
    dispatch.join(1, EventMask::ALL);
    dispatch.join(2, EventMask::ALL);
    let watched = nodes.iter().find(|node| owner(&dispatch, node) == 1).expect("a node of the first");
    assert!(dispatch.watch(2, watched.channel_id()));
    dispatch.push_data(data(watched));
    let batch = dispatch.next_batch(2).expect("a copy");
    assert_eq!((batch.events[0].sequence, batch.events[0].watched), (1, true));
    dispatch.leave(1);
    let batch = dispatch.next_batch(2).expect("the original");
    assert_eq!((batch.events[0].sequence, batch.events[0].watched), (1, false));
}

#[test]
fn watches_are_bounded_and_end() {
    let mut dispatch = dispatch_with(DispatchLimits { events: 2, ..DispatchLimits::default() });
    dispatch.join(1, EventMask::ALL);
    for channel in 1..5 {
        assert!(dispatch.watch(1, channel));
    }
    assert!(!dispatch.watch(1, 5));
    dispatch.unwatch(1, 2);
    dispatch.unwatch(1, 2);
    assert!(dispatch.watch(1, 5));
    assert!(!dispatch.watch(1, 6));
    dispatch.leave(1);
    assert!(dispatch.watches.is_empty());
    assert!(!dispatch.watch(1, 1));
}

// ---- topics ----

fn published(topic: &str, len: usize) -> Event {
    let message = HostMessage { topic: topic.into(), payload: vec![b'x'; len].into(), position: None, from: None };
    Event::Message { message: Arc::new(message) }
}

/// Topics of what a worker is sent next.
fn topics_of(dispatch: &mut Dispatch, worker: WorkerId) -> Vec<String> {
    let Some(batch) = dispatch.next_batch(worker) else { return Vec::new() };
    let topics = batch
        .events
        .iter()
        .filter_map(|told| if let Event::Message { message } = &told.event { Some(message.topic.to_string()) } else { None });
    let topics = topics.collect();
    dispatch.acknowledge(worker, batch.number);
    topics
}

#[test]
fn a_publication_goes_to_each_worker_that_listens_once_however_many_filters_match() {
    let mut dispatch = dispatch();
    for worker in 1..=3 {
        dispatch.join(worker, EventMask::NONE);
    }
    assert_eq!(dispatch.wants(), EventMask::NONE);
    assert!(dispatch.listen(1, "a/+") && dispatch.listen(1, "a/#") && dispatch.listen(1, "a/b") && dispatch.listen(2, "a/b"));
    assert!(!dispatch.listen(1, "a/b") && !dispatch.listen(9, "a/b"), "it has it; nobody");
    assert_eq!(dispatch.wants(), EventMask::MESSAGE);
    for topic in ["a/b", "a/c", "c", "a/b"] {
        dispatch.push_message(published(topic, 1));
    }
    assert_eq!(topics_of(&mut dispatch, 1), ["a/b", "a/c", "a/b"]);
    assert_eq!(topics_of(&mut dispatch, 2), ["a/b", "a/b"]);
    assert_eq!(topics_of(&mut dispatch, 3), [""; 0]);
    assert!(dispatch.end_listening(2, "a/b") && !dispatch.end_listening(2, "a/b"));
    dispatch.push_message(published("a/b", 1));
    assert_eq!(topics_of(&mut dispatch, 2), [""; 0]);
    assert_eq!(topics_of(&mut dispatch, 1), ["a/b"]);
    assert_eq!(dispatch.take_filters(1).len(), 3);
    assert_eq!((dispatch.wants(), dispatch.bytes()), (EventMask::NONE, 0));
}

#[test]
fn publications_for_a_worker_without_room_are_lost_to_it_alone_and_die_with_it() {
    let mut dispatch = Dispatch::new(DispatchLimits { events: 2, ..DispatchLimits::default() }, EventMask::NONE);
    for worker in 1..=2 {
        dispatch.join(worker, EventMask::NONE);
        dispatch.listen(worker, "t");
    }
    for number in 0..3 {
        dispatch.push_message(published("t", 1));
        if number < 2 {
            assert_eq!(topics_of(&mut dispatch, 2), ["t"]);
        }
    }
    assert_eq!(dispatch.stats().refused, 1, "the third one of the first worker");
    assert_eq!(topics_of(&mut dispatch, 1), ["t", "t"]);
    dispatch.push_message(published("t", 5));
    dispatch.remove(1);
    assert_eq!(topics_of(&mut dispatch, 2), ["t", "t"], "its own, and none of the other's");
    assert_eq!((dispatch.bytes(), dispatch.is_idle()), (0, true));
    // Who leaves gets nothing more.
    dispatch.push_message(published("t", 5));
    dispatch.leave(2);
    dispatch.push_message(published("t", 5));
    assert!(dispatch.has_drained(2) && dispatch.bytes() == 0);
}
