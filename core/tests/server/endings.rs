//! How nodes, connections and servers end.

use crate::support::*;
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{CloseReason, Departure, Event, EventMask};
use heartbus_core::settings::{InboxLimits, ServerConfig};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

#[test]
fn the_newest_connection_takes_a_node_over_and_the_older_one_harms_nobody() {
    let server = Fixture::start(ServerConfig::default());
    let mut older = server.register("x");
    let mut newer = server.register("x");
    let error = older.frame();
    assert_eq!((error.frame_type, error.text()), (8, r#"{"message":"Replaced by a newer connection","code":409}"#.to_owned()));
    older.expect_end();
    newer.send(1, 0, "{}");
    assert_eq!(newer.frame().frame_type, 2, "the late close of the older connection leaves the newer one alone");
    assert_eq!(server.engine.stats().nodes_online, 1);
    let left = server.event_where(|event| matches!(event, Event::Left { .. }));
    assert!(matches!(left, Event::Left { how: Departure::Replaced, .. }));
}

#[test]
fn a_node_that_times_out_among_several_is_named_and_the_last_one_closes_the_connection() {
    let config = ServerConfig { heartbeat_timeout: Duration::from_secs(3600), ..ServerConfig::default() };
    let server = Fixture::start(config);
    let mut gateway = server.register("loud");
    // Holds for whoever registers from now on: the loud one is never too late.
    server.engine.set_heartbeat_timeout(Duration::from_millis(300)).unwrap();
    gateway.send(6, 0, r#"{"node_id":"quiet"}"#);
    gateway.frame();
    let loud = i64::from(server.engine.node("loud").unwrap().channel_id());
    let quiet = i64::from(server.engine.node("quiet").unwrap().channel_id());
    let error = loop {
        gateway.send(1, loud, "{}");
        let frame = gateway.frame();
        if frame.frame_type == 8 {
            break frame;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!((error.channel_id, error.text()), (quiet, r#"{"message":"Node timed out: quiet","code":408}"#.to_owned()));
    gateway.raw(&[frame(7, loud, ""), frame(6, 0, r#"{"node_id":"last"}"#)].concat());
    gateway.skip_until_end();
    let counts = server.engine.stats().counts;
    assert_eq!((counts.nodes_timed_out, server.engine.stats().nodes_online), (2, 0));
}

#[test]
fn after_unregister_the_connection_stays_and_the_register_timeout_starts_anew() {
    let config = ServerConfig { register_timeout: Duration::from_millis(400), ..ServerConfig::default() };
    let server = Fixture::start(config);
    let frames = [frame(6, 0, r#"{"node_id":"gone"}"#), frame(7, 0, ""), frame(4, 0, "")].concat();
    let deadline = deadline();
    let (mut peer, before) = loop {
        let before = server.engine.stats().counts.register_timeouts;
        let mut peer = server.connect();
        // Closed before it said anything: this thread was held up, and tries again.
        if peer.stream.write_all(&frames).is_ok() && peer.stream.peek(&mut [0]).is_ok_and(|count| count > 0) {
            break (peer, before);
        }
        assert!(Instant::now() < deadline, "no connection lasts");
    };
    assert_eq!([peer.frame().frame_type, peer.frame().frame_type], [6, 5]);
    assert_eq!(server.engine.stats().counts.nodes_unregistered, 1);
    peer.expect_end();
    assert_eq!(server.engine.stats().counts.register_timeouts, before + 1);
}

#[test]
fn unregister_and_fin_in_one_packet_end_the_connection() {
    let server = Fixture::start(ServerConfig::default());
    for n in 0..50 {
        let mut peer = server.register(&format!("n{n}"));
        peer.raw(&frame(7, 0, ""));
    }
    server.until("all connections to be gone", |stats| stats.connections_active == 0 && stats.nodes_online == 0);
    assert_eq!(server.engine.stats().counts.nodes_unregistered, 50);
}

#[test]
fn a_node_is_not_declared_down_while_we_do_not_read_it() {
    let config = ServerConfig { heartbeat_timeout: Duration::from_millis(300), ..ServerConfig::default() };
    let server = Fixture::start_with(config, InboxLimits { events: 2, bytes: 1 << 20 }, EventMask::DATA);
    let mut node = server.connect();
    // In one piece: between its registration and the pause is no time in which it could be silent.
    let data = (0..4).flat_map(|n| frame(3, 0, &n.to_string()));
    node.raw(&frame(6, 0, r#"{"node_id":"paused"}"#).into_iter().chain(data).collect::<Vec<_>>());
    server.until("the reading to pause", |stats| stats.counts.reads_paused_by_host >= 1);
    let until = Instant::now() + Duration::from_millis(900);
    while Instant::now() < until {
        assert_eq!(server.engine.stats().counts.nodes_timed_out, 0);
        std::thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..4 {
        server.event();
    }
    server.until("its own silence to be noticed after that", |stats| stats.counts.nodes_timed_out == 1);
}

#[test]
fn events_of_a_node_come_in_order_and_it_leaves_exactly_once() {
    let server = Fixture::start(ServerConfig::default());
    let mut node = server.register("n");
    node.send(1, 0, "{}");
    node.send(3, 0, "d");
    node.frame();
    drop(node);
    let mut told = Vec::new();
    while told.last() != Some(&"close") {
        told.push(match server.event() {
            Event::Connect { .. } => "connect",
            Event::Register { .. } => "register",
            Event::Heartbeat { .. } => "heartbeat",
            Event::Data { .. } => "data",
            Event::Left { how: Departure::Disconnected, .. } => "disconnected",
            Event::Left { .. } => "left otherwise",
            Event::Close { .. } => "close",
            Event::Buffer { .. } => "buffer",
            Event::Message { .. } => "message",
            Event::Question { .. } => "question",
            Event::Topic { .. } => "topic",
        });
    }
    assert_eq!(told, ["connect", "register", "heartbeat", "data", "disconnected", "close"]);
}

#[test]
fn stopping_tells_every_client_closes_and_is_harmless_twice() {
    let server = Fixture::start(ServerConfig::default());
    let mut nodes: Vec<_> = (0..20).map(|n| server.register(&format!("n{n}"))).collect();
    let mut unregistered = server.connect();
    server.until("all to be accepted", |stats| stats.connections_active == 21);
    let readers: Vec<_> = nodes
        .drain(..)
        .chain([unregistered.take()])
        .map(|mut peer| {
            std::thread::spawn(move || {
                let text = peer.frame().text();
                peer.expect_end();
                text
            })
        })
        .collect();
    server.engine.stop();
    server.engine.stop();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), r#"{"message":"Server is shutting down","code":503}"#);
    }
    assert_eq!(server.engine.send_to("n1", b"x", 0).unwrap_err().kind, ErrorKind::Closed);
    assert_eq!(server.engine.stats().nodes_online, 0);
}

#[test]
fn a_client_that_never_reads_does_not_hold_up_the_stop() {
    let server = Fixture::start(ServerConfig::default());
    let mut deaf = server.register("deaf");
    deaf.ping_until_paused(&server);
    server.engine.stop();
    assert_eq!(server.engine.stats().connections_active, 0);
}

#[test]
fn who_closed_its_side_still_gets_every_reply_it_asked_for() {
    // More than the sockets on the way can hold, and all of it read before one is taken.
    const COUNT: usize = 300_000;
    let pong = frame(5, 0, "").len();
    let deadline = deadline();
    loop {
        let server = Fixture::start(ServerConfig { outbox_bytes: 1 << 30, ..ServerConfig::default() });
        let mut peer = server.connect();
        peer.raw(&frame(4, 0, "").repeat(COUNT));
        let began = Instant::now();
        peer.stream.shutdown(Shutdown::Write).unwrap();
        server.event_where(|event| matches!(event, Event::Close { reason: CloseReason::PeerClosed, .. }));
        let mut received = 0;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match peer.stream.read(&mut buffer).expect("more, or the end, in time") {
                0 => break,
                count => received += count,
            }
        }
        if received == COUNT * pong {
            return;
        }
        // Whoever takes longer than a second for it is not waited for.
        assert!(began.elapsed() > Duration::from_secs(1), "{received} bytes");
        assert!(Instant::now() < deadline, "this thread is held up all the time");
    }
}

#[test]
fn a_gateway_that_goes_while_others_talk_lets_each_of_its_nodes_leave_once() {
    const NODES: u64 = 3_000;
    let server = Fixture::start_with(ServerConfig { io_threads: 1, ..ServerConfig::default() }, InboxLimits::default(), EventMask::LEFT);
    let mut bystander = server.register("bystander");
    let mut gateway = server.connect();
    let registers: Vec<u8> = (0..NODES).flat_map(|n| frame(6, 0, &format!(r#"{{"node_id":"n{n}"}}"#))).collect();
    let mut reader = gateway.take();
    let answers = std::thread::spawn(move || (0..NODES).for_each(|_| assert_eq!(reader.frame().frame_type, 6)));
    gateway.raw(&registers);
    answers.join().unwrap();
    drop(gateway);
    while server.engine.stats().nodes_online > 1 {
        bystander.send(4, 0, "");
        assert_eq!(bystander.frame().frame_type, 5);
    }
    let mut left: Vec<String> = (0..NODES)
        .map(|_| match server.event() {
            Event::Left { node, how: Departure::Disconnected, .. } => node.id().to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    left.sort_unstable();
    left.dedup();
    assert_eq!(left.len() as u64, NODES);
    server.until("the connection to be closed", |stats| stats.connections_active == 1);
}

#[test]
fn a_server_stops_while_a_peer_sends_more_than_its_turns_allow() {
    let server = Fixture::start_with(ServerConfig::default(), InboxLimits::default(), EventMask::NONE);
    let mut peer = server.register("busy");
    let mut reader = peer.stream.try_clone().unwrap();
    std::thread::spawn(move || while reader.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {});
    std::thread::spawn(move || {
        let beats = frame(1, 0, "").repeat(10_000);
        while peer.stream.write_all(&beats).is_ok() {}
    });
    server.until("the flood", |stats| stats.counts.heartbeats > 20_000);
    let (stopped, is_stopped) = std::sync::mpsc::sync_channel(1);
    let engine = server.engine;
    std::thread::spawn(move || {
        engine.stop();
        let _ = stopped.send(());
    });
    is_stopped.recv_timeout(Duration::from_secs(20)).expect("a stop that ends");
}

#[test]
fn a_stop_does_not_wait_until_all_that_the_host_has_sent_is_written() {
    let server = Fixture::start_with(ServerConfig { io_threads: 1, ..ServerConfig::default() }, InboxLimits::default(), EventMask::NONE);
    let peers: Vec<Peer> = (0..300).map(|n| server.register(&format!("n{n}"))).collect();
    // As much as may wait, which takes far longer to write than to ask for.
    let mut asked_for = 0;
    loop {
        match server.engine.broadcast(b"more").unwrap() {
            0 => break,
            reached => asked_for += reached as u64,
        }
    }
    server.engine.stop();
    let counts = server.engine.stats().counts;
    let done = counts.data_out + counts.data_out_refused;
    assert!((1..asked_for).contains(&done), "{done} of {asked_for}");
    drop(peers);
}
