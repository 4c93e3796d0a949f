//! Observers: what they see beside the host, and that nothing ever waits for them.

#[path = "support/bus.rs"]
mod machine;
mod support;

use heartbus_core::engine::{Observed, Observer, ObserverLimits};
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{CloseReason, Event, EventKind, EventMask, Fill};
use heartbus_core::hub::Node;
use heartbus_core::hub::memory::Part;
use heartbus_core::hub::observers::{MAX_OBSERVERS, ObserveRefusal};
use heartbus_core::settings::{InboxLimits, ServerConfig};
use machine::{Bus, word};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use support::{Fixture, deadline};

const NODES: EventMask = EventMask(EventMask::REGISTER.0 | EventMask::LEFT.0);

fn limits(events: usize) -> ObserverLimits {
    ObserverLimits { events, ..ObserverLimits::default() }
}

fn all(observer: &mut Observer) -> Vec<Observed> {
    let mut seen = Vec::new();
    observer.take(&mut seen, usize::MAX);
    seen
}

/// In words: `a register`, `a left`, `gap 3`.
fn words(seen: &[Observed]) -> Vec<String> {
    let told = |observed: &Observed| match observed {
        Observed::Gap { dropped } => format!("gap {dropped}"),
        Observed::Event(event) => match event {
            Event::Register { node, .. } => format!("{} register", node.id()),
            Event::Heartbeat { node, .. } => format!("{} heartbeat", node.id()),
            Event::Data { node, payload, .. } => format!("{} data {}", node.id(), String::from_utf8_lossy(payload)),
            Event::Left { node, how, .. } => format!("{} {}", node.id(), word(*how)),
            Event::Buffer { node, fill, .. } => format!("{} {}", node.id(), if *fill == Fill::Full { "full" } else { "drained" }),
            Event::Connect { connection_id, .. } => format!("connect {connection_id}"),
            Event::Close { connection_id, reason, .. } => format!("close {connection_id}: {reason}"),
            Event::Message { .. } => unreachable!("what nodes publish is the host's and its subscribers'"),
            Event::Question { .. } => unreachable!("the host decides alone"),
            Event::Topic { change, .. } => format!("{} {}", if change.has_subscribed { "subscribe" } else { "unsubscribe" }, change.topic),
        },
    };
    seen.iter().map(told).collect()
}

/// Counts how often somebody is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_observer_sees_what_it_asked_for_in_the_order_in_which_it_happened() {
    let mut bus = Bus::new(true);
    let mut everything = bus.hub.observe(EventMask::ALL, ObserverLimits::default()).unwrap();
    let mut nodes = bus.hub.observe(NODES, ObserverLimits::default()).unwrap();
    let (first, second) = (bus.open(), bus.open());
    bus.register(first, "a");
    bus.send(first, 1, 0, "");
    bus.send(first, 3, 0, "x");
    bus.register(second, "a");
    bus.send(second, 7, bus.channel("a"), "");
    bus.close(second, CloseReason::PeerClosed);
    let expected = [
        "connect 1",
        "connect 2",
        "a register",
        "a heartbeat",
        "a data x",
        "a replaced",
        "a register",
        "close 1: replaced by a newer connection",
        "a unregister",
        "close 2: peer closed",
    ];
    assert_eq!(words(&all(&mut everything)), expected);
    assert_eq!(words(&all(&mut nodes)), ["a register", "a replaced", "a register", "a unregister"]);
    assert!(bus.host.events.lock().unwrap().is_empty(), "a host that asked for nothing is told of nothing");
}

#[test]
fn who_begins_to_observe_later_sees_what_happens_from_then_on() {
    let mut bus = Bus::new(true);
    let slot = bus.open();
    bus.register(slot, "a");
    let mut observer = bus.hub.observe(NODES, ObserverLimits::default()).unwrap();
    bus.register(slot, "b");
    assert_eq!(words(&all(&mut observer)), ["b register"]);
}

#[test]
fn at_the_bound_events_are_dropped_counted_and_told_as_one_gap_where_they_were_missing() {
    let mut bus = Bus::new(true);
    let mut observer = bus.hub.observe(NODES, limits(8)).unwrap();
    let mut other = bus.hub.observe(NODES, ObserverLimits::default()).unwrap();
    let slot = bus.open();
    for id in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        bus.register(slot, id);
    }
    let dropped = |bus: &Bus| {
        let mut counts = Default::default();
        bus.hub.add_counts_to(&mut counts);
        counts.observer_events_dropped
    };
    assert_eq!(dropped(&bus), 2);
    // There would be room, but gaps are to be few.
    let mut seen = Vec::new();
    assert_eq!(observer.take(&mut seen, 3), 3);
    bus.register(slot, "k");
    assert_eq!(dropped(&bus), 3);
    // Half is read: what happens now comes behind the gap.
    assert_eq!(observer.take(&mut seen, 2), 2);
    bus.register(slot, "l");
    seen.extend(all(&mut observer));
    let expected = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|id| format!("{id} register"));
    assert_eq!(words(&seen), [&expected[..], &["gap 3".to_owned(), "l register".to_owned()]].concat());
    assert_eq!(words(&all(&mut other)).len(), 12, "another observer's bound is its own");
    bus.register(slot, "m");
    assert_eq!((words(&all(&mut observer)), dropped(&bus)), (vec!["m register".to_owned()], 3));
}

#[test]
fn the_bound_in_bytes_holds_for_payloads_and_texts_and_one_alone_always_passes() {
    let mut bus = Bus::new(true);
    let small = ObserverLimits { events: 100, bytes: 2000 };
    let mut data = bus.hub.observe(EventMask::DATA, small).unwrap();
    let mut nodes = bus.hub.observe(NODES, small).unwrap();
    let slot = bus.open();
    bus.register(slot, "a");
    let long = "x".repeat(3000);
    for payload in [&*long, "y"] {
        bus.send(slot, 3, 0, payload);
    }
    assert_eq!(words(&all(&mut data)), [format!("a data {long}"), "gap 1".to_owned()]);
    bus.send(slot, 6, 0, &format!(r#"{{"node_id":"b","metadata":{{"k":"{long}"}}}}"#));
    assert_eq!(words(&all(&mut nodes)), ["a register", "gap 1"]);
    bus.send(slot, 7, bus.channel("b"), "");
    assert_eq!(words(&all(&mut nodes)), ["b unregister"]);
}

#[test]
fn all_observers_together_keep_no_more_than_their_part_of_the_memory() {
    let mut bus = Bus::with_limits(true, |limits| limits.total_buffer_bytes = 1 << 20);
    let observer = |bus: &Bus| bus.hub.observe(EventMask::DATA, ObserverLimits { events: 1000, bytes: 1 << 20 }).unwrap();
    let (mut one, mut other) = (observer(&bus), observer(&bus));
    let slot = bus.open();
    bus.register(slot, "a");
    for _ in 0..20 {
        bus.send(slot, 3, 0, &"x".repeat(2000));
    }
    let memory = bus.hub.memory().clone();
    let (held, share) = (memory.of(Part::Observers), memory.share(Part::Observers));
    assert!(held > share / 2 && held <= share + 1000, "{held} of {share}");
    let gaps = |observer: &mut Observer| words(&all(observer)).iter().filter(|word| word.starts_with("gap")).count();
    assert_eq!((gaps(&mut one), gaps(&mut other)), (1, 1));
    assert_eq!(memory.of(Part::Observers), 0);
}

#[test]
fn one_that_never_reads_holds_up_neither_host_nor_nodes_nor_other_observers() {
    let config = ServerConfig { total_buffer_bytes: 1 << 20, ..ServerConfig::default() };
    let server = Fixture::start_with(config, InboxLimits { events: 64, bytes: 1 << 20 }, EventMask::ALL);
    // Far more than may wait for the host; what has left stays in the observer's hands.
    let _deaf = server.engine.observe(EventMask::ALL, ObserverLimits::default()).unwrap();
    let metadata = "m".repeat(2000);
    let mut peer = server.register("stays");
    server.event_where(|event| event.kind() == EventKind::Register);
    for round in 0..200 {
        peer.send(6, 0, &format!(r#"{{"node_id":"n{round}","metadata":{{"k":"{metadata}"}}}}"#));
        let channel = peer.frame().channel_id;
        peer.send(3, channel, "x");
        peer.send(7, channel, "");
        server.event_where(|event| event.kind() == EventKind::Left);
    }
    let stats = server.engine.stats();
    assert!(stats.memory.observers > 0 && stats.counts.observer_events_dropped > 0, "{stats:#?}");
    assert_eq!((stats.inbox.pauses, stats.counts.reads_paused_by_host), (0, 0));
}

#[test]
fn what_an_observer_keeps_of_nodes_that_left_does_not_count_against_the_host() {
    let mut bus = Bus::new(true);
    let observer = bus.hub.observe(NODES, ObserverLimits::default()).unwrap();
    let slot = bus.open();
    bus.register(slot, "a");
    bus.close(slot, CloseReason::PeerClosed);
    let memory = bus.hub.memory();
    assert_eq!(memory.of(Part::Departed), 0);
    assert!(memory.of(Part::Observers) > 0);
    drop(observer);
    assert_eq!(memory.total(), 0);
}

#[test]
fn a_dropped_observer_leaves_nothing_behind() {
    let mut bus = Bus::new(true);
    let first = bus.hub.observe(EventMask::ALL, ObserverLimits::default()).unwrap();
    let second = bus.hub.observe(EventMask::LEFT, ObserverLimits::default()).unwrap();
    let slot = bus.open();
    bus.register(slot, "a");
    let node: Weak<Node> = Arc::downgrade(&bus.hub.node("a").unwrap());
    bus.close(slot, CloseReason::PeerClosed);
    assert!(node.upgrade().is_some(), "events have it");
    drop(first);
    assert!(bus.hub.wants(EventMask::LEFT) && !bus.hub.wants(EventMask::REGISTER | EventMask::DATA));
    drop(second);
    assert!(!bus.hub.wants(EventMask::ALL));
    assert!(node.upgrade().is_none());
    assert_eq!(bus.hub.memory().total(), 0);
}

#[test]
fn an_observer_sees_data_once_whether_the_host_has_room_for_it_at_first_or_not() {
    let mut bus = Bus::new(true);
    bus.host.room.set(AtomicBool::new(false)).unwrap();
    let mut observer = bus.hub.observe(EventMask::DATA, ObserverLimits::default()).unwrap();
    let slot = bus.open();
    bus.register(slot, "a");
    bus.send(slot, 3, 0, "x");
    assert_eq!(words(&all(&mut observer)), [""; 0], "the host has not taken it");
    bus.with(slot, |session, cx| session.receive(cx, &[]));
    assert_eq!(words(&all(&mut observer)), [""; 0]);
    bus.host.room.get().unwrap().store(true, Ordering::Relaxed);
    bus.with(slot, |session, cx| session.receive(cx, &[]));
    assert_eq!(words(&all(&mut observer)), ["a data x"]);
    assert_eq!(*bus.host.data.lock().unwrap(), [b"x"]);
}

#[test]
fn a_slow_host_does_not_keep_state_from_an_observer() {
    let server = Fixture::start_with(ServerConfig::default(), InboxLimits { events: 1, bytes: 1 }, EventMask::LEFT | EventMask::HEARTBEAT);
    let mut observer = server.engine.observe(EventMask::HEARTBEAT, ObserverLimits::default()).unwrap();
    let mut peer = server.register("a");
    for _ in 0..50 {
        peer.send(1, 0, "");
        peer.frame();
    }
    assert_eq!(words(&all(&mut observer)), ["a heartbeat"; 50]);
}

#[test]
fn whoever_waits_is_woken_once_for_what_comes_and_told_when_nothing_will() {
    let mut bus = Bus::new(true);
    let mut observer = bus.hub.observe(NODES, ObserverLimits::default()).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut seen = Vec::new();
    let poll = |observer: &mut Observer, seen: &mut Vec<Observed>| observer.poll_next(&mut Context::from_waker(&waker), seen, 10);
    assert_eq!(poll(&mut observer, &mut seen), Poll::Pending);
    let slot = bus.open();
    bus.register(slot, "a");
    bus.register(slot, "b");
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(poll(&mut observer, &mut seen), Poll::Ready(true));
    assert_eq!((words(&seen), poll(&mut observer, &mut seen)), (vec!["a register".to_owned(), "b register".to_owned()], Poll::Pending));
    bus.register(slot, "c");
    bus.hub.end_observers();
    assert_eq!((poll(&mut observer, &mut seen), seen.len()), (Poll::Ready(true), 3), "what waits comes first");
    assert_eq!(poll(&mut observer, &mut seen), Poll::Ready(false));
    bus.register(slot, "d");
    assert_eq!((poll(&mut observer, &mut seen), bus.hub.memory().of(Part::Observers)), (Poll::Ready(false), 0));
    assert_eq!(bus.hub.observe(NODES, ObserverLimits::default()).err(), Some(ObserveRefusal::Ended));
}

#[test]
fn who_is_woken_may_drop_his_observer_at_once() {
    struct Dropping(std::sync::Mutex<Option<Observer>>);

    impl Wake for Dropping {
        fn wake(self: Arc<Self>) {
            self.0.lock().unwrap().take();
        }
    }

    let mut bus = Bus::new(true);
    let mut observer = bus.hub.observe(NODES, ObserverLimits::default()).unwrap();
    let dropping = Arc::new(Dropping(std::sync::Mutex::default()));
    let waker = Waker::from(dropping.clone());
    assert_eq!(observer.poll_next(&mut Context::from_waker(&waker), &mut Vec::new(), 1), Poll::Pending);
    *dropping.0.lock().unwrap() = Some(observer);
    let slot = bus.open();
    bus.register(slot, "a");
    assert!(dropping.0.lock().unwrap().is_none() && !bus.hub.wants(NODES));
    assert_eq!(bus.hub.memory().of(Part::Observers), 0);
}

#[test]
fn more_observers_than_may_are_refused_until_one_has_gone() {
    let server = Fixture::start(ServerConfig::default());
    let observe = || server.engine.observe(NODES, ObserverLimits::default());
    let mut observers: Vec<Observer> = (0..MAX_OBSERVERS).map(|_| observe().unwrap()).collect();
    assert_eq!(observe().err().map(|error| error.kind), Some(ErrorKind::Limit));
    observers.pop();
    assert!(observe().is_ok());
}

#[test]
fn an_engine_that_stops_tells_of_those_who_leave_by_that_and_then_that_it_was_all() {
    let server = Fixture::start(ServerConfig::default());
    let mut observer = server.engine.observe(NODES, ObserverLimits::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut seen = Vec::new();
    let _peer = server.register("a");
    assert!(runtime.block_on(observer.next(&mut seen, 10)));
    server.engine.stop();
    let until = deadline();
    while runtime.block_on(observer.next(&mut seen, 10)) {
        assert!(std::time::Instant::now() < until);
    }
    assert_eq!(words(&seen), ["a register", "a disconnected"]);
    let refused = server.engine.observe(NODES, ObserverLimits::default()).err();
    assert_eq!(refused.map(|error| error.kind), Some(ErrorKind::Closed));
}

#[test]
fn who_observes_and_then_looks_knows_of_every_node_however_fast_they_come_and_go() {
    let server = Fixture::start(ServerConfig::default());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (server, stop) = (&server, &stop);
            let address = server.engine.local_addr();
            scope.spawn(move || {
                let mut peer = support::Peer::over(std::net::TcpStream::connect(address).unwrap());
                peer.send(6, 0, &format!(r#"{{"node_id":"keeps{thread}"}}"#));
                peer.frame();
                while !stop.load(Ordering::Relaxed) {
                    peer.send(6, 0, &format!(r#"{{"node_id":"n{thread}"}}"#));
                    let channel = peer.frame().channel_id;
                    peer.send(7, channel, "");
                }
            });
        }
        let until = deadline();
        for _ in 0..300 {
            let mut observer = server.engine.observe(NODES, ObserverLimits::default()).unwrap();
            let look = || server.engine.nodes(100).into_iter().filter(|node| node.info(server.engine.now()).online);
            let mut known: HashMap<u32, Arc<Node>> = look().map(|node| (node.channel_id(), node)).collect();
            let later: Vec<Arc<Node>> = look().collect();
            // Whoever has left is told of, and whoever came is known, as soon as the threads have told of it.
            loop {
                for observed in all(&mut observer) {
                    let Observed::Event(event) = observed else { panic!("a gap") };
                    let node = event.node().unwrap();
                    match event.kind() {
                        EventKind::Left => known.remove(&node.channel_id()),
                        _ => known.insert(node.channel_id(), node.clone()),
                    };
                }
                let has_left = |node: &Arc<Node>| !node.is_online();
                if later.iter().all(|node| has_left(node) || known.contains_key(&node.channel_id())) && !known.values().any(has_left) {
                    break;
                }
                assert!(std::time::Instant::now() < until, "{known:?} {later:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_host_that_wants_nothing_of_it_is_not_told_of_the_outbox_that_an_observer_asks_about() {
    let mut bus = Bus::new(true);
    let mut observer = bus.hub.observe(EventMask::BUFFER, ObserverLimits::default()).unwrap();
    let slot = bus.open();
    bus.register(slot, "a");
    bus.with(slot, |session, cx| {
        session.tell_fill(cx, Fill::Full);
        session.tell_fill(cx, Fill::Full);
        session.tell_fill(cx, Fill::Drained);
    });
    assert_eq!(words(&all(&mut observer)), ["a full", "a drained"]);
}
