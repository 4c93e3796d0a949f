//! The inbox at and below its bounds.

mod support;

use bytes::Bytes;
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{ClientEvent, CloseReason, ConnectedPeer, Event, EventMask, FleetEvent, Resume};
use heartbus_core::hub::Host;
use heartbus_core::hub::coalesce::Queued;
use heartbus_core::inbox::Inbox;
use heartbus_core::settings::{InboxLimits, ServerConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::*;

fn inbox(events: usize, bytes: usize) -> Arc<Inbox> {
    let inbox = Inbox::new(InboxLimits { events, bytes }).unwrap();
    inbox.subscribe(EventMask::ALL);
    inbox
}

/// The same for clients, whose data need no node.
fn clients_inbox(events: usize, bytes: usize) -> Arc<Inbox<FleetEvent>> {
    Inbox::new(InboxLimits { events, bytes }).unwrap()
}

fn is_readable(inbox: &Inbox) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(inbox.as_fd(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

fn drain<E: Queued>(inbox: &Inbox<E>, max: usize) -> Vec<E> {
    let mut events = VecDeque::new();
    let count = inbox.drain(&mut events, max);
    assert_eq!(count, events.len());
    events.into()
}

fn data(client_id: u64, len: usize) -> FleetEvent {
    FleetEvent { client_id, event: ClientEvent::Data { payload: Bytes::from(vec![0; len]), channel_id: 1, node_id: None } }
}

fn closed() -> ClientEvent {
    ClientEvent::Close { reason: CloseReason::PeerClosed, detail: String::new() }
}

fn client(client_id: u64, event: ClientEvent) -> FleetEvent {
    FleetEvent { client_id, event }
}

fn close(connection_id: u64) -> Event {
    let who = ConnectedPeer { address: ([127, 0, 0, 1], 1).into(), user: None };
    Event::Close { connection_id, reason: CloseReason::PeerClosed, who: Arc::new(who) }
}

#[derive(Default)]
struct Producer(AtomicUsize);

impl Resume for Producer {
    fn resume(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn push_data(inbox: &Inbox<FleetEvent>, len: usize, producer: &Arc<Producer>) -> bool {
    inbox.push_data(data(1, len), len, producer.clone()).is_ok()
}

#[test]
fn a_wake_makes_the_descriptor_readable_until_the_next_drain_and_hides_no_event() {
    let inbox = inbox(10, 1_000);
    inbox.wake();
    inbox.wake();
    assert!(is_readable(&inbox));
    assert_eq!(drain(&inbox, 10).len(), 0);
    assert!(!is_readable(&inbox));
    inbox.push_state(close(1));
    inbox.wake();
    assert_eq!(drain(&inbox, 10).len(), 1);
    assert!(!is_readable(&inbox));
    inbox.wake();
    inbox.push_state(close(2));
    inbox.push_state(close(3));
    assert_eq!(drain(&inbox, 1).len(), 1);
    assert!(is_readable(&inbox), "one is left");
}

#[test]
fn publications_wait_for_what_happened_beyond_the_bound() {
    let inbox = inbox(2, 1_000);
    let host: &dyn Host = &*inbox;
    host.push_state(close(1));
    host.push_state(close(2));
    assert!(host.has_room_for_message(1, None), "up to twice the bound");
    host.push_state(close(3));
    assert!(!host.has_room_for_message(1, None), "nothing is put in front of what stands beyond it");
    assert_eq!(drain(&inbox, 10).len(), 3);
    assert!(host.has_room_for_message(1, None));
}

#[test]
fn the_descriptor_is_readable_exactly_while_events_wait() {
    let inbox = inbox(10, 100);
    assert!(!is_readable(&inbox));
    inbox.push_state(close(1));
    inbox.push_state(close(2));
    assert!(is_readable(&inbox));
    assert_eq!(drain(&inbox, 1).len(), 1);
    assert!(is_readable(&inbox), "one is left");
    assert_eq!(drain(&inbox, 5).len(), 1);
    assert!(!is_readable(&inbox));
    assert_eq!(drain(&inbox, 5).len(), 0, "draining an empty inbox does not wait");
    inbox.push_state(close(3));
    assert!(is_readable(&inbox));
}

#[test]
fn only_subscribed_kinds_are_wanted() {
    let inbox: Arc<Inbox> = Inbox::new(InboxLimits::default()).unwrap();
    assert!(!inbox.wants(EventMask::ALL));
    inbox.subscribe(EventMask::DATA | EventMask::CLOSE);
    assert!(inbox.wants(EventMask::DATA) && inbox.wants(EventMask::CLOSE) && !inbox.wants(EventMask::REGISTER));
}

#[test]
fn limits_of_zero_are_refused() {
    for limits in [InboxLimits { events: 0, bytes: 1 }, InboxLimits { events: 1, bytes: 0 }] {
        assert_eq!(Inbox::<Event>::new(limits).err().unwrap().kind, ErrorKind::Config);
    }
}

#[test]
fn data_without_room_is_handed_back_and_its_producer_resumed_at_half() {
    let (inbox, producer) = (clients_inbox(4, 1000), Arc::new(Producer::default()));
    for _ in 0..4 {
        assert!(push_data(&inbox, 1, &producer));
    }
    assert!(!push_data(&inbox, 1, &producer));
    assert_eq!(drain(&inbox, 1).len(), 1);
    assert_eq!(producer.0.load(Ordering::Relaxed), 0, "three quarters full is not room enough");
    assert_eq!(drain(&inbox, 1).len(), 1);
    assert_eq!(producer.0.load(Ordering::Relaxed), 1);
    assert!(push_data(&inbox, 1, &producer));
    assert_eq!(inbox.stats().pauses, 1);
}

#[test]
fn bytes_are_bounded_too_and_one_large_event_passes_alone() {
    let (inbox, producer) = (clients_inbox(100, 10), Arc::new(Producer::default()));
    assert!(push_data(&inbox, 50, &producer));
    assert!(!push_data(&inbox, 1, &producer));
    assert_eq!(inbox.stats().queued_bytes, 50);
    drain(&inbox, 1);
    assert_eq!((inbox.stats().queued_bytes, producer.0.load(Ordering::Relaxed)), (0, 1));
    assert!(push_data(&inbox, 10, &producer));
    assert!(!push_data(&inbox, 1, &producer));
}

#[test]
fn state_events_are_never_refused_and_above_the_bound_a_client_keeps_its_present_state() {
    let inbox = clients_inbox(2, 100);
    inbox.push_state(client(1, ClientEvent::Pong));
    inbox.push_state(client(2, ClientEvent::Pong));
    for _ in 0..3 {
        inbox.push_state(client(7, ClientEvent::Connect));
        inbox.push_state(client(7, ClientEvent::Heartbeat { count: 1 }));
        inbox.push_state(client(7, closed()));
    }
    inbox.push_state(client(7, ClientEvent::Connect));
    let told: Vec<ClientEvent> = drain(&inbox, 100).into_iter().skip(2).map(|told| told.event).collect();
    assert_eq!(told, [ClientEvent::Heartbeat { count: 3 }, closed(), ClientEvent::Connect]);
    assert_eq!(inbox.stats().coalesced, 7);
}

#[test]
fn above_the_bound_each_node_of_a_client_keeps_its_own_present_state() {
    let inbox = clients_inbox(1, 100);
    inbox.push_state(client(1, ClientEvent::Pong));
    let register = |id: &str, channel_id| ClientEvent::Register { node_id: id.into(), channel_id };
    let lost = |id: &str| ClientEvent::NodeLost { node_id: id.into(), channel_id: 1, code: 408, message: String::new() };
    for event in [register("a", 1), register("b", 2), register("c", 3), lost("a"), lost("b"), register("b", 4)] {
        inbox.push_state(client(7, event));
    }
    let told: Vec<ClientEvent> = drain(&inbox, 100).into_iter().skip(1).map(|told| told.event).collect();
    assert_eq!(told, [register("c", 3), lost("a"), register("b", 4)]);
}

#[test]
fn while_there_is_an_overflow_data_waits_behind_it() {
    let (inbox, producer) = (clients_inbox(1, 100), Arc::new(Producer::default()));
    inbox.push_state(client(1, ClientEvent::Pong));
    inbox.push_state(client(2, ClientEvent::Pong));
    drain(&inbox, 1);
    assert!(!push_data(&inbox, 1, &producer), "the overflow is older");
    assert_eq!(drain(&inbox, 10).len(), 1);
    assert!(push_data(&inbox, 1, &producer));
}

#[test]
fn above_the_bound_the_events_of_a_node_are_merge_and_say_how_many_they_stand_for() {
    let server = Fixture::start_with(ServerConfig::default(), InboxLimits { events: 2, bytes: 100 }, EventMask::REGISTER | EventMask::LEFT);
    let _first = server.register("first");
    let flapping = server.register("flapping");
    let again = server.register("flapping");
    drop(again);
    drop(flapping);
    server.until("both to be gone", |stats| stats.counts.nodes_replaced == 1 && stats.counts.nodes_disconnected == 1);
    for id in ["first", "flapping"] {
        let Event::Register { node, count: 1 } = server.event() else { panic!("below the bound each is told as it was") };
        assert_eq!(&**node.id(), id);
    }
    let Event::Left { node, count, .. } = server.event() else { panic!("the last state of the other") };
    assert_eq!((&**node.id(), count), ("flapping", 3), "replaced, register, disconnected");
}

#[test]
fn when_new_nodes_have_no_room_either_their_register_waits() {
    let server = Fixture::start_with(ServerConfig::default(), InboxLimits { events: 1, bytes: 100 }, EventMask::REGISTER);
    let _told = server.register("1");
    let _overflow = server.register("2");
    let mut waiting = server.connect();
    waiting.send(6, 0, r#"{"node_id":"3"}"#);
    server.until("the register to wait", |stats| stats.counts.reads_paused_by_host == 1);
    assert_eq!(server.engine.stats().nodes_online, 2);
    let ids: Vec<String> = (0..3)
        .map(|_| match server.event() {
            Event::Register { node, .. } => node.id().to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, ["1", "2", "3"]);
    assert_eq!(waiting.frame().frame_type, 6);
}

#[test]
fn a_host_that_is_told_of_connections_and_does_not_listen_bounds_who_may_come_in() {
    let limits = InboxLimits { events: 16, bytes: 1 << 20 };
    let server = Fixture::start_with(ServerConfig::default(), limits, EventMask::CONNECT | EventMask::CLOSE);
    let peers: Vec<_> = (0..200).map(|_| server.connect()).collect();
    server.until("accepting to pause", |_| server.inbox.stats().pauses > 0);
    let queued = server.inbox.stats().queued_events;
    // Each thread looks for room first, and lets one in then.
    let most = 32 + server.engine.stats().io_threads;
    assert!((32..most).contains(&queued), "{queued}: the queue, as much overflow again, and one per other thread");
    for _ in 0..200 {
        assert!(matches!(server.event(), Event::Connect { .. }));
    }
    drop(peers);
}

#[test]
fn a_host_that_only_hears_of_departures_bounds_who_may_register_as_well() {
    let limits = InboxLimits { events: 4, bytes: 1 << 20 };
    let server = Fixture::start_with(ServerConfig::default(), limits, EventMask::LEFT);
    let mut peer = server.connect();
    for n in 0..100 {
        peer.send(6, 0, &format!(r#"{{"node_id":"n{n}"}}"#));
        peer.send(7, 0, "");
    }
    server.until("the registrations to wait", |stats| stats.counts.reads_paused_by_host > 0);
    assert!(server.inbox.stats().queued_events <= 9, "{}", server.inbox.stats().queued_events);
    for _ in 0..100 {
        assert!(matches!(server.event(), Event::Left { .. }));
    }
}

#[test]
fn producers_that_are_gone_before_there_is_room_do_not_pile_up() {
    let inbox = inbox(1, 1 << 20);
    inbox.push_state(close(1));
    inbox.push_state(close(2));
    let (mut gone, mut alive) = (Vec::new(), Vec::new());
    for number in 0..1000 {
        let producer = Arc::new(Producer::default());
        assert!(inbox.is_crowded(Some(producer.clone())));
        gone.push(Arc::downgrade(&producer));
        if number % 100 == 0 {
            alive.push(producer);
        }
    }
    let kept = gone.iter().filter(|producer| producer.strong_count() > 0).count();
    assert!(kept < 50, "{kept} of a thousand are kept, ten are alive");
    drain(&inbox, 10);
    assert!(alive.iter().all(|producer| producer.0.load(Ordering::Relaxed) == 1));
}
