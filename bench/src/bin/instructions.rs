//! One operation of the pure machine, many times, for callgrind: `instructions OPERATION TIMES`.
//!
//! Inputs are fixed. Only what happens in [`counted`] counts: what prepares an operation takes more or less from run to run, as the
//! allocator sees fit. The caller runs it with two numbers and takes the difference, so that what is done once does not count either. Without arguments it prints the operations.

use heartbus_bench::machine::{Machine, TIMEOUT};
use heartbus_bench::protocol::{Dialect, masked};
use heartbus_core::event::{ConnectedBy, Event, EventMask};
use heartbus_core::hub::wheel::{TICK, Wheel};
use heartbus_core::inbox::Inbox;
use heartbus_core::settings::InboxLimits;
use heartbus_core::wire::{self, Decoded, FrameType};
use std::collections::VecDeque;
use std::hint::black_box;

/// A name, what it is, and the operation done so many times.
type Operation = (&'static str, &'static str, fn(u64));

const OPERATIONS: &[Operation] = &[
    ("decode-heartbeat", "decoding a v1 HEARTBEAT_REQ", |times| decode(times, &Dialect::V1.heartbeat(0))),
    ("decode-data", "decoding a v1 DATA of 64 bytes", |times| decode(times, &Dialect::V1.data(&[b'x'; 64]))),
    ("decode-register", "decoding a v1 REGISTER", |times| decode(times, &Dialect::V1.register("node-00000001"))),
    ("decode-v2-heartbeat", "decoding a v2 HEARTBEAT_REQ", |times| decode(times, &Dialect::V2.heartbeat(0))),
    ("decode-v2-data", "decoding a v2 DATA of 64 bytes", |times| decode(times, &Dialect::V2.data(&[b'x'; 64]))),
    ("encode-data", "encoding a v1 DATA of 64 bytes", |times| encode_data(times, wire::Dialect::V1)),
    ("encode-v2-data", "encoding a v2 DATA of 64 bytes", |times| encode_data(times, wire::Dialect::V2)),
    ("heartbeat", "a v1 heartbeat: decoded, noted, answered", |times| heartbeats(times, Dialect::V1, false)),
    ("heartbeat-v2", "a v2 heartbeat: decoded, noted, answered", |times| heartbeats(times, Dialect::V2, false)),
    ("heartbeat-of-one", "a v1 heartbeat of one of 1,000 nodes", |times| heartbeats(times, Dialect::V1, true)),
    ("heartbeat-v2-of-one", "a v2 heartbeat of one of 1,000 nodes", |times| heartbeats(times, Dialect::V2, true)),
    ("register", "a node registers", register),
    ("timeout", "a node of many is found silent, and leaves", timeout),
    ("rearm", "the wheel looks at a node that is alive", rearm),
    ("wheel-insert-pop", "an entry is put into the wheel, and fires", wheel_insert_pop),
    ("wheel-insert-remove", "an entry is put into the wheel, and taken out", wheel_insert_remove),
    ("subscribe", "a node subscribes to a topic that others have, in v2, and takes it back", subscribe),
    ("publish", "a node publishes to a topic with one subscriber, in v2: decoded, ordered, handed over", publish),
    ("deliver", "a frame of v1 for one of 1,000 subscribers", |times| deliver(times, Dialect::V1, false)),
    ("deliver-v2", "a frame of v2 for one of 1,000 subscribers", |times| deliver(times, Dialect::V2, false)),
    ("deliver-websocket", "a WebSocket's frame for one of 1,000 subscribers", |times| deliver(times, Dialect::V2, true)),
    ("websocket-heartbeat", "a v2 heartbeat in a masked frame of a WebSocket: decoded, noted, answered", websocket_heartbeat),
    ("event", "an event is put into the inbox, and drained", event),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => OPERATIONS.iter().for_each(|(name, what, _)| println!("{name}\t{what}")),
        [name, times] => {
            let operation = OPERATIONS.iter().find(|(known, _, _)| known == name);
            let (Some((_, _, run)), Ok(times)) = (operation, times.parse()) else {
                eprintln!("no such operation, or no such number: {name} {times}");
                std::process::exit(2);
            };
            run(times);
        }
        _ => {
            eprintln!("usage: instructions [OPERATION TIMES]");
            std::process::exit(2);
        }
    }
}

/// callgrind collects from here on, until it returns (`scripts/instructions` names it), so it must stay a function.
#[inline(never)]
fn counted(operations: impl FnOnce()) {
    operations();
}

fn decode(times: u64, frame: &[u8]) {
    counted(|| {
        for _ in 0..times {
            let (_, decoded) = wire::decode(black_box(frame), 1 << 20);
            assert!(matches!(black_box(decoded), Decoded::Frame { .. }));
        }
    });
}

fn encode_data(times: u64, dialect: wire::Dialect) {
    let mut out = Vec::with_capacity(256);
    counted(|| {
        for _ in 0..times {
            out.clear();
            wire::encode(dialect, FrameType::DATA, 7, black_box(&[b'x'; 64]), &mut out).expect("it is ASCII");
            black_box(&out);
        }
    });
}

/// The clock moves on every hundredth time, so that the ready-made reply is made anew as often as in life.
fn heartbeats(times: u64, dialect: Dialect, of_one: bool) {
    let mut machine = Machine::default();
    let slot = machine.open();
    for node in 0..if of_one { 1000 } else { 1 } {
        machine.receive(slot, &dialect.register(&format!("node-{node:08}")), |_| {});
    }
    let frames: Vec<Vec<u8>> = (1..=1000).map(|channel| dialect.heartbeat(if of_one { channel } else { 0 })).collect();
    let (machine, frames) = (&mut machine, &frames[..]);
    counted(move || {
        for round in 0..times {
            if round % 100 == 0 {
                machine.now += 1000;
            }
            machine.receive(slot, &frames[round as usize % 1000], |replies| assert!(!replies.is_empty()));
        }
    });
}

fn add_nodes(machine: &mut Machine, from: u64, to: u64) {
    let mut slot = 0;
    for node in from..to {
        if node % 1000 == 0 {
            slot = machine.open();
        }
        machine.receive(slot, &Dialect::V1.register(&format!("node-{node:08}")), |_| {});
    }
}

fn register(times: u64) {
    counted(|| {
        let mut machine = Machine::default();
        add_nodes(&mut machine, 0, times);
        black_box(machine);
    });
}

fn timeout(times: u64) {
    counted(|| {
        let mut machine = Machine::default();
        add_nodes(&mut machine, 0, times);
        // Always as many nodes, so that the difference between two runs is what the timeouts take. These are due later.
        machine.now += TIMEOUT / 2;
        add_nodes(&mut machine, times, 10_000);
        machine.now += TIMEOUT / 2 + 2 * TICK;
        assert_eq!(machine.tick() as u64, times);
    });
}

fn rearm(times: u64) {
    let mut machine = Machine::default();
    add_nodes(&mut machine, 0, 1000);
    counted(|| {
        for _ in 0..times / 1000 {
            machine.now += TIMEOUT - TICK;
            machine.receive(0, &Dialect::V1.heartbeat(0), |_| {});
            machine.now += 2 * TICK;
            assert_eq!(machine.tick(), 0);
        }
    });
}

/// Of this many bytes.
const PAYLOAD: [u8; 64] = [b'x'; 64];

fn subscribe(times: u64) {
    let mut machine = Machine::default();
    for slot in 0..2 {
        machine.open();
        machine.receive(slot, &Dialect::V2.register(&format!("node-{slot}")), |_| {});
    }
    let topics = (0..100).map(|topic| format!("room/{topic}"));
    let mut both: Vec<Vec<u8>> = Vec::new();
    for topic in topics {
        machine.receive(0, &Dialect::V2.subscribe(&topic), |replies| assert!(!replies.is_empty()));
        both.push([Dialect::V2.subscribe(&topic), Dialect::V2.unsubscribe(&topic)].concat());
    }
    counted(|| {
        for round in 0..times {
            machine.receive(1, &both[round as usize % 100], |replies| assert!(!replies.is_empty()));
        }
    });
}

fn publish(times: u64) {
    let mut machine = Machine::default();
    let slot = machine.open();
    machine.receive(slot, &Dialect::V2.register("node"), |_| {});
    machine.receive(slot, &Dialect::V2.subscribe("room"), |_| {});
    let frame = Dialect::V2.publish("room", &PAYLOAD);
    counted(|| {
        for _ in 0..times {
            machine.receive(slot, &frame, |_| {});
            assert!(machine.take_posted().is_some());
        }
    });
}

fn deliver(times: u64, dialect: Dialect, is_websocket: bool) {
    let mut machine = Machine::default();
    let publisher = machine.open();
    machine.receive(publisher, &Dialect::V2.register("publisher"), |_| {});
    for number in 0..1000 {
        let slot = if is_websocket { machine.open_websocket() } else { machine.open() };
        for mut frame in [dialect.register(&format!("node-{number}")), dialect.subscribe("room")] {
            if is_websocket {
                frame = masked(&frame);
            }
            machine.receive(slot, &frame, |replies| assert!(!replies.is_empty()));
        }
    }
    let frame = Dialect::V2.publish("room", &PAYLOAD);
    counted(|| {
        for _ in 0..times / 1000 {
            machine.receive(publisher, &frame, |_| {});
            assert_eq!(machine.deliver(), 1000);
        }
    });
}

/// As [`heartbeats`].
fn websocket_heartbeat(times: u64) {
    let mut machine = Machine::default();
    let slot = machine.open_websocket();
    machine.receive(slot, &masked(&Dialect::V2.register("node")), |_| {});
    let mut frame = masked(&Dialect::V2.heartbeat(0));
    counted(|| {
        for round in 0..times {
            if round % 100 == 0 {
                machine.now += 1000;
            }
            machine.receive_in_place(slot, &mut frame, |replies| assert!(!replies.is_empty()));
        }
    });
}

fn wheel_insert_pop(times: u64) {
    counted(|| {
        let mut wheel = Wheel::new(0);
        for round in 0..times / 100 {
            for entry in 0..100 {
                wheel.insert(round * TICK, entry);
            }
            for _ in 0..100 {
                let (key, _) = wheel.pop((round + 1) * TICK).expect("a hundred are due");
                wheel.remove(key);
            }
            assert_eq!(wheel.pop((round + 1) * TICK), None);
        }
    });
}

fn wheel_insert_remove(times: u64) {
    counted(|| {
        let mut wheel = Wheel::new(0);
        for round in 0..times / 100 {
            let keys: Vec<_> = (0..100u64).map(|entry| wheel.insert(round * 7919, entry)).collect();
            for key in keys {
                black_box(wheel.remove(key));
            }
        }
    });
}

fn event(times: u64) {
    let inbox = Inbox::new(InboxLimits::default()).expect("a descriptor is left");
    inbox.subscribe(EventMask::CONNECT);
    let mut drained = VecDeque::new();
    counted(|| {
        for round in 0..times / 100 {
            for number in 0..100 {
                inbox.push_state(Event::Connect {
                    connection_id: round * 100 + number,
                    peer: ([127, 0, 0, 1], 1).into(),
                    door: ConnectedBy::Tcp,
                });
            }
            assert_eq!(inbox.drain(&mut drained, 1000), 100);
            drained.clear();
        }
    });
}
