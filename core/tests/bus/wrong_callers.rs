//! Callers that do everything wrong, and harm nobody else.

use crate::house::*;
use crate::support::deadline;
use heartbus_core::bus::{Bus, Reply, Request};
use heartbus_core::descriptor::{Shares, raise_limit};
use heartbus_core::engine::Engine;
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{Event, EventMask};
use heartbus_core::hub::dispatch::DispatchLimits;
use heartbus_core::wire::bus::{self as wire, RequestFrame, Response, Role};
use std::io::{Read, Write};
use std::time::Instant;

#[test]
fn a_request_may_come_right_behind_the_hello() {
    let house = House::in_process();
    let mut raw = house.raw();
    let mut bytes = Vec::new();
    wire::write_hello(&mut bytes, wire::VERSION, Role::Client, 7, "0.1.0");
    bytes.extend(frame(&RequestFrame { id: 5, request: Request::HeartbeatTimeout }));
    // In the smallest pieces there are.
    for byte in bytes {
        raw.write(&[byte]);
    }
    raw.greeting().unwrap();
    let mut head = [0; 4];
    raw.stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    raw.stream.read_exact(&mut body).unwrap();
    let answer: Response = wire::decode(&body).unwrap();
    assert_eq!((answer.id, answer.result), (5, Ok(Reply::Micros(30_000_000))));
}

#[test]
fn garbage_ends_only_whoever_sent_it() {
    let house = House::for_workers();
    let mut other = house.bus();
    let mut worker = house.worker();
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xab\x12\x01\x00\x00\x00\x00",
        b"H",
        b"HBUS\x00\x01\x00\x00\x00\x00\x01\x00\xff\xff\xff\xff",
        b"HBUS\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x02\x01\xee",
        b"HBUS\x00\x01\x01\x00\x00\x00\x01\x00\x00\x00\x00\x01\xee",
    ];
    for bytes in garbage {
        let mut raw = house.raw();
        raw.write(bytes);
        if bytes == b"H" {
            raw.write(b"X");
        }
        raw.expect_end();
    }
    let mut raw = house.raw();
    raw.write(b"HBUS\x00\x02\x09\x00\x00\x00\x01\x00");
    assert_eq!(raw.greeting().unwrap_err().message, "The engine does not know this role");
    other.heartbeat_timeout().unwrap();
    let _peer = house.register("n");
    worker.tell_until(|event| matches!(event, Event::Register { .. }));
}

#[test]
fn a_length_beyond_the_bound_ends_the_connection_before_anything_is_kept() {
    let house = House::in_process();
    let cap = house.bus().welcome().unwrap().frame_cap;
    let mut raw = house.raw();
    raw.hello(wire::VERSION, Role::Client);
    raw.greeting().unwrap();
    raw.write(&(cap + 1).to_be_bytes());
    raw.expect_end();
    house.assert_well();
    let mut bus = house.bus();
    bus.welcome().unwrap();
    assert_eq!(kind(bus.begin(&Request::Broadcast { data: &vec![0; cap as usize] })), ErrorKind::Limit);
    bus.heartbeat_timeout().unwrap();
}

#[test]
fn who_says_nothing_or_half_of_something_is_hung_up_on_in_time() {
    let house = House::in_process();
    let mut silent = house.raw();
    let mut half_hello = house.raw();
    half_hello.write(b"HBUS\x00");
    let mut half_frame = house.raw();
    half_frame.hello(wire::VERSION, Role::Client);
    half_frame.greeting().unwrap();
    half_frame.write(&[0, 0, 1, 0, 1, 2, 3]);
    let mut idle = house.bus();
    idle.heartbeat_timeout().unwrap();
    silent.expect_end();
    half_hello.expect_end();
    half_frame.expect_end();
    // Whoever is between two requests may take all the time in the world.
    assert!(idle.as_fd().is_some());
    idle.heartbeat_timeout().unwrap();
    house.until("the others to be gone", |stats| stats.bus_clients == 1);
}

#[test]
fn who_asks_and_never_reads_is_not_read_either_and_holds_up_nobody() {
    let house = House::in_process();
    let _peer = house.register("n");
    let mut greedy = house.raw();
    greedy.hello(wire::VERSION, Role::Client);
    greedy.stream.set_nonblocking(true).unwrap();
    let ask = frame(&RequestFrame { id: 1, request: Request::Stats });
    let mut bus = house.bus();
    let (mut sent, mut served) = (0, 0);
    // It is only read as far as its answers fit into the socket, so that soon nothing more can be written: not even when the
    // bus thread has answered another caller more often than requests of this one fit into a socket.
    let deadline = deadline();
    while served < 500 {
        match greedy.stream.write(&ask) {
            Ok(count) => {
                (sent, served) = (sent + count, 0);
                assert!(Instant::now() < deadline, "it took {sent} bytes");
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                bus.send_to("n", b"x", 0).unwrap();
                served += 1;
            }
        }
    }
}

/// How many callers there may be under the descriptor limit of this machine, of which an eighth are for the owner, 256 at most.
fn places() -> usize {
    let places = Shares::of(raise_limit().unwrap_or(usize::MAX), 4352).callers;
    assert!(places >= 8 * 256, "{places}: this test needs more descriptors");
    places
}

#[test]
fn a_caller_too_many_is_refused_and_finds_room_later() {
    let house = House::in_process();
    let mut callers: Vec<Raw> = (0..places())
        .map(|_| {
            let mut raw = house.raw();
            raw.hello(wire::VERSION, Role::Client);
            raw
        })
        .collect();
    for caller in &mut callers {
        caller.greeting().unwrap();
    }
    let error = Bus::connect(&house.path, PATIENCE).and_then(|mut bus| bus.welcome().cloned()).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Limit, "The bus has all the callers it may have"));
    callers.truncate(1000);
    house.until("the others to be gone", |stats| stats.bus_clients == 1000);
    house.assert_well();
}

#[test]
fn others_cannot_take_all_places_of_the_owner() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let mut config = config(&folder.socket());
    config.bus.as_mut().unwrap().group = Some(NOBODY.to_string());
    let engine = Engine::start_for_workers(&config, DispatchLimits::default(), EventMask::ALL).unwrap();
    let house = House { engine, path: folder.socket(), _folder: folder };
    let _callers: Vec<Raw> = (0..places() - 256)
        .map(|_| {
            let mut raw = house.raw();
            raw.hello(wire::VERSION, Role::Client);
            raw.greeting().unwrap();
            raw
        })
        .collect();
    let answers = ask_as_nobody(&house.path).unwrap();
    assert_eq!(answers["client"], "Limit: The bus has all the callers it may have");
    house.assert_well();
    house.worker();
}

#[test]
fn too_many_nodes_in_one_request_are_refused_before_they_are_read() {
    let house = House::in_process();
    let nodes = vec![""; (1 << 20) + 1];
    let request = Request::SendMany { nodes: nodes.clone(), data: b"x" };
    let mut raw = house.raw();
    raw.hello(wire::VERSION, Role::Client);
    raw.greeting().unwrap();
    raw.write(&frame(&RequestFrame { id: 1, request }));
    raw.expect_end();
    let mut bus = house.bus();
    let error = bus.send_many(&nodes, b"x").unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Limit, "A message can go to 1048576 nodes at once"));
    assert_eq!(bus.send_many(&nodes[1..], b"x").unwrap(), 0);
}
