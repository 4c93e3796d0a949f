//! The server over real sockets: what old clients see, byte for byte where it matters.

mod support;

use heartbus_core::engine::{Engine, Stats};
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{CloseReason, Departure, Event, EventMask};
use heartbus_core::settings::{InboxLimits, RateLimit, RateLimitBy, ServerConfig};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::*;

#[test]
fn a_node_registers_heartbeats_and_is_answered_as_the_reference_answers() {
    let server = Fixture::start(ServerConfig::default());
    let mut node = server.connect();
    node.send(6, 0, r#"{"node_id":"n1","metadata":{"v":"1.0"},"timestamp":1}"#);
    let reply = node.frame();
    assert_eq!((reply.frame_type, reply.channel_id), (6, 0));
    let channel = server.engine.node("n1").expect("registered").channel_id();
    let text = reply.text();
    assert!(text.starts_with(&format!(r#"{{"node_id":"n1","metadata":{{"channel_id":{channel},"status":"ok","server_time":"#)), "{text}");
    assert!(text.ends_with(&format!(r#","channel_id":{channel}}}"#)), "{text}");
    node.send(1, 0, r#"{"timestamp":1700000000.25}"#);
    let beat = node.frame();
    assert_eq!((beat.frame_type, beat.channel_id), (2, 0));
    assert!(beat.text().starts_with(r#"{"timestamp":"#));
    let info = server.engine.node("n1").unwrap().info(server.engine.now());
    assert_eq!((info.heartbeat_count, &*info.metadata, info.online), (1, r#"{"v":"1.0"}"#, true));
}

#[test]
fn a_ping_is_answered_before_registration_and_a_heartbeat_is_not() {
    let server = Fixture::start(ServerConfig::default());
    let mut peer = server.connect();
    peer.send(1, 0, r#"{"timestamp":1}"#);
    peer.send(4, 0, "");
    assert_eq!(peer.frame().frame_type, 5, "the heartbeat of nobody is silent, so the first answer is the PONG");
    assert_eq!(server.engine.stats().counts.heartbeats_ignored, 1);
}

#[test]
fn frames_split_at_every_byte_and_glued_together_are_understood() {
    let server = Fixture::start(ServerConfig::default());
    let mut bytes = frame(6, 0, r#"{"node_id":"split"}"#);
    bytes.extend(frame(4, 0, ""));
    for cut in (1..bytes.len()).step_by(7) {
        let mut peer = server.connect();
        peer.raw(&bytes[..cut]);
        server.until("the first part to arrive", |stats| stats.buffered_bytes > 0 || cut >= frame(6, 0, r#"{"node_id":"split"}"#).len());
        peer.raw(&bytes[cut..]);
        assert_eq!([peer.frame().frame_type, peer.frame().frame_type], [6, 5], "cut at {cut}");
    }
}

#[test]
fn data_reaches_the_host_and_the_host_reaches_the_node() {
    let server = Fixture::start(ServerConfig::default());
    let mut node = server.register("talker");
    node.send(3, 0, "up");
    let Event::Data { node: from, channel_id, payload } = server.event_where(|event| matches!(event, Event::Data { .. })) else {
        unreachable!()
    };
    assert_eq!((&**from.id(), channel_id, &payload[..]), ("talker", from.channel_id(), &b"up"[..]));
    server.engine.send_to("talker", "down é".as_bytes(), 0).unwrap();
    let down = node.frame();
    assert_eq!((down.frame_type, down.channel_id, down.text()), (3, i64::from(from.channel_id()), "down é".to_owned()));
    let kinds = [
        server.engine.send_to("nobody", b"x", 0).unwrap_err().kind,
        server.engine.send_to("talker", b"x", 4_000_000).unwrap_err().kind,
        server.engine.send_to("talker", b"\xff", 0).unwrap_err().kind,
        server.engine.send_to("talker", &vec![b'x'; 10_485_761], 0).unwrap_err().kind,
    ];
    assert_eq!(kinds, [ErrorKind::NotFound, ErrorKind::NotFound, ErrorKind::InvalidArgument, ErrorKind::Limit]);
}

#[test]
fn a_broadcast_reaches_every_node_on_its_own_channel() {
    let server = Fixture::start(ServerConfig::default());
    let mut nodes: Vec<_> = (0..5).map(|n| server.register(&format!("n{n}"))).collect();
    assert_eq!(server.engine.broadcast(b"to all").unwrap(), 5);
    for (n, node) in nodes.iter_mut().enumerate() {
        let got = node.frame();
        let channel = server.engine.node(&format!("n{n}")).unwrap().channel_id();
        assert_eq!((got.channel_id, got.text()), (i64::from(channel), "to all".to_owned()));
    }
}

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
fn one_connection_carries_many_nodes_each_with_a_channel_of_its_own() {
    let server = Fixture::start(ServerConfig::default());
    let mut gateway = server.register("a");
    gateway.send(6, 0, r#"{"node_id":"b"}"#);
    gateway.frame();
    let channel = |id: &str| i64::from(server.engine.node(id).unwrap().channel_id());
    let (a, b) = (channel("a"), channel("b"));
    assert_ne!(a, b);

    gateway.send(6, 0, r#"{"node_id":"a","metadata":{"again":true}}"#);
    assert!(gateway.frame().text().contains(&format!(r#""channel_id":{a}"#)), "the same id keeps its channel");
    assert_eq!(&*server.engine.node("a").unwrap().metadata(), r#"{"again":true}"#);

    gateway.send(1, b, "{}");
    assert_eq!(gateway.frame().channel_id, b);
    let beats = |id: &str| server.engine.node(id).unwrap().info(server.engine.now()).heartbeat_count;
    assert_eq!((beats("a"), beats("b")), (0, 1));
    gateway.send(1, 0, "{}");
    assert_eq!(gateway.frame().channel_id, 0);
    assert_eq!((beats("a"), beats("b")), (1, 2));

    gateway.send(3, b, "for b");
    gateway.send(3, 0, "for the first");
    let mut to = Vec::new();
    for _ in 0..2 {
        if let Event::Data { node, .. } = server.event_where(|event| matches!(event, Event::Data { .. })) {
            to.push(node.id().to_string());
        }
    }
    assert_eq!(to, ["b", "a"]);

    let stranger = server.register("stranger");
    gateway.send(3, channel("stranger"), "not yours");
    gateway.send(1, channel("stranger"), "{}");
    gateway.send(7, b, "");
    gateway.send(4, 0, "");
    assert_eq!(gateway.frame().frame_type, 5, "all three were silent");
    let counts = server.engine.stats().counts;
    assert_eq!((counts.data_ignored, counts.heartbeats_ignored), (1, 1));
    assert!(server.engine.node("b").is_none() && server.engine.node("a").is_some());
    drop(stranger);
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
fn a_connection_on_which_nobody_registers_is_closed_without_a_word() {
    let config = ServerConfig { register_timeout: Duration::from_millis(200), ..ServerConfig::default() };
    let server = Fixture::start(config);
    let mut peer = server.connect();
    peer.expect_end();
    assert_eq!(server.engine.stats().counts.register_timeouts, 1);
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
fn bad_frames_are_answered_and_end_at_most_their_own_connection() {
    let server = Fixture::start(ServerConfig::default());
    let mut bystander = server.register("bystander");
    let failed = |reason: &str| format!(r#"{{"message":"Failed to process message: {reason}","code":500}}"#);

    let mut peer = server.connect();
    for body in [r#"{"payload":[]}"#, r#"{"channel_id":"abc"}"#, "not json", ""] {
        let mut bytes = vec![0xab, 0x12, 3];
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body.as_bytes());
        peer.raw(&bytes);
        assert_eq!(peer.frame().text(), failed("Invalid message payload"), "{body}");
    }
    peer.send(99, 0, "");
    peer.send(4, 0, "");
    assert_eq!(peer.frame().frame_type, 5, "an unknown type is silent, and the stream is still in step");

    let mut http = server.connect();
    http.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(http.frame().text(), failed("Invalid message magic: 0x4745"));
    http.expect_end();

    for length in [u32::MAX, 10_485_761] {
        let mut huge = server.connect();
        huge.raw(&[0xab, 0x12, 3]);
        huge.raw(&length.to_be_bytes());
        assert!(huge.frame().text().contains(r#""code":413"#));
        huge.expect_end();
    }

    for payload in [r#"{"node_id":[]}"#, r#"{"node_id":""}"#, &format!(r#"{{"node_id":"{}"}}"#, "x".repeat(65_536))] {
        peer.send(6, 0, payload);
        assert_eq!(peer.frame().text(), r#"{"message":"Invalid node id","code":400}"#);
    }

    let mut cut = server.connect();
    cut.raw(&frame(3, 0, "cut off")[..20]);
    drop(cut);
    server.until("the cut connection to be gone", |stats| stats.counts.truncated_bytes == 20);

    bystander.send(1, 0, "{}");
    assert_eq!(bystander.frame().frame_type, 2);
    let counts = server.engine.stats().counts;
    assert_eq!((counts.invalid_payloads, counts.invalid_magic, counts.frames_too_long), (4, 1, 2));
    assert_eq!((counts.unknown_types, counts.registers_refused), (1, 3));
    server.until("nothing to be kept", |stats| stats.buffered_bytes == 0);
}

#[test]
fn of_many_that_are_read_together_each_gets_its_own_answer_also_beside_broken_and_closing_ones() {
    let server = Fixture::start(ServerConfig { io_threads: 1, ..ServerConfig::default() });
    let mut busy = server.connect();
    let mut peers: Vec<_> = (0..200).map(|_| server.connect()).collect();
    server.until("all to be connected", |stats| stats.connections_active == 201);
    // While the thread answers these, the others drained up in front of it.
    busy.raw(&frame(4, 0, "").repeat(20_000));
    for (n, peer) in peers.iter_mut().enumerate() {
        peer.raw(&frame(6, 0, &format!(r#"{{"node_id":"together-{n}"}}"#)));
        match n % 5 {
            0 => peer.raw(b"GET / HTTP/1.1\r\n\r\n"),
            1 => peer.stream.shutdown(Shutdown::Write).unwrap(),
            2 => peer.raw(&frame(4, 0, "")[..5]),
            3 => peer.send(7, 0, ""),
            _ => peer.send(4, 0, ""),
        }
    }
    for (n, peer) in peers.iter_mut().enumerate() {
        let answer = peer.frame();
        assert_eq!(answer.frame_type, 6);
        assert!(answer.text().starts_with(&format!(r#"{{"node_id":"together-{n}","#)), "{n} got {}", answer.text());
        match n % 5 {
            0 => {
                assert!(peer.frame().text().contains("Invalid message magic: 0x4745"));
                peer.expect_end();
            }
            1 => peer.expect_end(),
            2 => {
                peer.raw(&frame(4, 0, "")[5..]);
                assert_eq!(peer.frame().frame_type, 5);
            }
            3 => {}
            _ => assert_eq!(peer.frame().frame_type, 5),
        }
    }
    for _ in 0..20_000 {
        assert_eq!(busy.frame().frame_type, 5);
    }
    server.until("two fifths to be online and nothing to be kept", |stats| stats.nodes_online == 80 && stats.buffered_bytes == 0);
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
fn above_max_connections_a_client_is_told_and_closed() {
    let config = ServerConfig { max_connections: 2, ..ServerConfig::default() };
    let server = Fixture::start(config);
    let first = server.register("one");
    let _second = server.register("two");
    let mut third = server.connect();
    assert_eq!(third.frame().text(), r#"{"message":"Server is full or connection limit reached","code":503}"#);
    third.expect_end();
    drop(first);
    server.until("room", |stats| stats.connections_active == 1);
    server.register("three");
    assert_eq!(server.engine.stats().counts.connections_rejected, 1);
}

#[test]
fn addresses_that_are_denied_are_closed_without_a_word() {
    let config = ServerConfig { deny: vec!["127.0.0.0/8".parse().unwrap()], ..ServerConfig::default() };
    let server = Fixture::start(config);
    server.connect().expect_end();
    assert_eq!(server.engine.stats().counts.connections_denied, 1);
}

#[test]
fn a_rate_limited_frame_is_refused_and_the_stream_goes_on() {
    let rate_limit = Some(RateLimit { capacity: 2, refill_per_second: 0.0, by: RateLimitBy::Connection });
    let server = Fixture::start(ServerConfig { rate_limit, ..ServerConfig::default() });
    let mut peer = server.connect();
    peer.raw(&[frame(4, 0, ""), frame(4, 0, ""), frame(4, 0, ""), frame(4, 0, "")].concat());
    let types: Vec<u8> = (0..4).map(|_| peer.frame().frame_type).collect();
    assert_eq!(types, [5, 5, 8, 8]);
    let mut other = server.connect();
    other.send(4, 0, "");
    assert_eq!(other.frame().frame_type, 5, "another connection of the same address has a bucket of its own");
}

#[test]
fn a_rate_limit_by_address_is_shared_by_its_connections() {
    let rate_limit = Some(RateLimit { capacity: 1, refill_per_second: 0.0, by: RateLimitBy::Ip });
    let server = Fixture::start(ServerConfig { rate_limit, ..ServerConfig::default() });
    let (mut one, mut two) = (server.connect(), server.connect());
    one.send(4, 0, "");
    assert_eq!(one.frame().frame_type, 5);
    two.send(4, 0, "");
    assert_eq!(two.frame().text(), r#"{"message":"Rate limit exceeded","code":429}"#);
}

#[test]
fn a_full_inbox_stops_the_reading_of_data_and_loses_nothing() {
    let inbox = InboxLimits { events: 8, bytes: 1 << 20 };
    let server = Fixture::start_with(ServerConfig::default(), inbox, EventMask::DATA);
    let mut node = server.register("chatty");
    for n in 0..200 {
        node.send(3, 0, &n.to_string());
    }
    server.until("the reading to pause", |stats| stats.counts.reads_paused_by_host >= 1);
    for n in 0..200 {
        let Event::Data { payload, .. } = server.event() else { panic!("only data is subscribed") };
        assert_eq!(payload, n.to_string().as_bytes());
    }
    node.send(1, 0, "{}");
    assert_eq!(node.frame().frame_type, 2);
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
fn open_connections_can_be_listed_registered_or_not() {
    let server = Fixture::start(ServerConfig::default());
    let _quiet = server.connect();
    let mut node = server.register("listed");
    node.send(4, 0, "");
    node.frame();
    server.until("both to be accepted", |stats| stats.connections_active == 2);
    // A thread that is late is left out of the list.
    let list = |max, count| {
        let deadline = deadline();
        loop {
            let found = server.engine.connections(max);
            if found.len() == count {
                return found;
            }
            assert!(found.len() < count && Instant::now() < deadline, "{found:?}");
        }
    };
    let mut found = list(10, 2);
    found.sort_by_key(|connection| connection.nodes);
    let brief: Vec<_> =
        found.iter().map(|found| (found.nodes, found.first_node.as_deref(), found.bytes_in > 36, found.bytes_out > 36)).collect();
    assert_eq!(brief, [(0, None, false, false), (1, Some("listed"), true, true)]);
    list(1, 1);
    server.engine.stop();
    assert!(server.engine.connections(10).is_empty());
}

#[test]
fn behind_a_closed_door_nobody_new_comes_in_and_the_others_go_on() {
    let server = Fixture::start(ServerConfig::default());
    let address = server.engine.local_addr();
    let config = ServerConfig { host: address.ip().to_string(), port: address.port(), ..ServerConfig::default() };
    let _held = hold_port(address);
    let mut node = server.register("inside");
    assert_eq!(Engine::check(&config).unwrap_err().kind, ErrorKind::Io, "the port is taken");
    server.engine.close_door();
    let deadline = deadline();
    while Engine::check(&config).is_err() {
        assert!(Instant::now() < deadline, "the port is not free");
        std::thread::sleep(Duration::from_millis(5));
    }
    node.send(1, 0, "{}");
    assert_eq!(node.frame().frame_type, 2);
    server.engine.send_to("inside", b"still here", 0).unwrap();
    assert_eq!(node.frame().text(), "still here");
    drop(node);
    server.until("the last connection to end", |stats| stats.connections_active == 0);
    server.engine.stop();
}

#[test]
fn disconnect_takes_a_node_off_and_closes_its_connection_unless_others_are_on_it() {
    let server = Fixture::start(ServerConfig::default());
    let mut gateway = server.register("a");
    gateway.send(6, 0, r#"{"node_id":"b"}"#);
    gateway.frame();
    server.engine.disconnect("a").unwrap();
    assert_eq!(gateway.frame().text(), r#"{"message":"Disconnected by the server","code":403}"#);
    assert_eq!(server.engine.disconnect("a").unwrap_err().kind, ErrorKind::NotFound);
    server.engine.disconnect("b").unwrap();
    gateway.expect_end();
    assert_eq!(server.engine.stats().counts.nodes_disconnected, 2);
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
fn a_port_in_use_is_refused_clearly_also_by_another_heartbus() {
    let server = Fixture::start(ServerConfig::default());
    let taken = ServerConfig { host: "127.0.0.1".into(), port: server.engine.local_addr().port(), ..ServerConfig::default() };
    let error = start_error(taken.clone());
    assert_eq!(error.kind, ErrorKind::Io);
    assert_eq!(error.message, format!("Cannot listen on 127.0.0.1:{}: Address already in use", taken.port));
}

#[test]
fn a_host_may_be_a_name_or_an_ipv6_address_with_or_without_brackets() {
    for host in ["localhost", "::1", "[::1]"] {
        let server = Fixture::start(ServerConfig { host: host.into(), ..ServerConfig::default() });
        server.register("n");
    }
    let error = start_error(ServerConfig { host: "no-such-host.invalid".into(), port: 0, ..ServerConfig::default() });
    assert!(error.message.starts_with("Cannot listen on no-such-host.invalid:0: "), "{error}");
}

#[test]
fn the_node_of_a_connection_is_found_and_of_several_the_one_that_registered_last() {
    let server = Fixture::start(ServerConfig::default());
    let mut peer = server.register("first");
    let connection_id = server.engine.node("first").unwrap().connection_id();
    assert_eq!(&**server.engine.node_of_connection(connection_id).unwrap().id(), "first");
    peer.send(6, 0, r#"{"node_id":"second"}"#);
    peer.frame();
    assert_eq!(&**server.engine.node_of_connection(connection_id).unwrap().id(), "second");
    let channel_id = server.engine.node("second").unwrap().channel_id();
    assert_eq!(&**server.engine.node_of_channel(channel_id).unwrap().id(), "second");
    assert!(server.engine.node_of_channel(0).is_none() && server.engine.node_of_channel(channel_id + 1).is_none());
    for nobody in [0, connection_id + 1, u64::MAX] {
        assert!(server.engine.node_of_connection(nobody).is_none());
    }
    drop(peer);
    server.until("both nodes to leave", |_| server.engine.node_of_connection(connection_id).is_none());
}

#[test]
fn the_heartbeat_timeout_can_be_changed_while_the_server_runs_and_wrong_ones_are_refused() {
    let server = Fixture::start(ServerConfig { heartbeat_timeout: Duration::from_secs(300), ..ServerConfig::default() });
    assert_eq!(server.engine.set_heartbeat_timeout(Duration::ZERO).unwrap_err().kind, ErrorKind::Config);
    assert_eq!(server.engine.heartbeat_timeout(), Duration::from_secs(300));
    server.engine.set_heartbeat_timeout(Duration::from_millis(300)).unwrap();
    let _peer = server.register("a");
    server.until("the node to time out", |stats| stats.counts.nodes_timed_out == 1);
    server.engine.stop();
    assert_eq!(server.engine.set_heartbeat_timeout(Duration::from_secs(1)).unwrap_err().kind, ErrorKind::Closed);
}

#[test]
fn the_host_may_keep_a_node_alive() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let server = Fixture::start(ServerConfig { heartbeat_timeout: TIMEOUT, ..ServerConfig::default() });
    assert_eq!(server.engine.keep_alive("nobody").unwrap_err().kind, ErrorKind::NotFound);
    let deadline = deadline();
    'attempts: for attempt in 0.. {
        let [silent, kept] = ["silent", "kept"].map(|name| format!("{name}{attempt}"));
        let began = Instant::now();
        let _peers = [&silent, &kept].map(|id| server.register(id));
        let mut last = began;
        while began.elapsed() < 4 * TIMEOUT || server.engine.node(&silent).is_some() {
            let now = Instant::now();
            assert!(now < deadline, "the silent node stays");
            if server.engine.keep_alive(&kept).is_err() {
                // This thread was held up for so long, and tries again.
                assert!(last.elapsed() >= TIMEOUT, "it was kept alive");
                continue 'attempts;
            }
            last = now;
            std::thread::sleep(Duration::from_millis(2));
        }
        let followed = |event: &Event| matches!(event, Event::Left { node, how: Departure::TimedOut, .. } if **node.id() == *kept);
        let Event::Left { node, .. } = server.event_where(followed) else { unreachable!() };
        assert_eq!(node.info(server.engine.now()).heartbeat_count, 0);
        return;
    }
}

#[test]
fn the_time_that_messages_and_heartbeats_took_is_counted_in_buckets() {
    let server = Fixture::start(ServerConfig::default());
    let mut peer = server.register("a");
    for _ in 0..5 {
        peer.send(1, 0, "");
        peer.frame();
    }
    // What a pass took is counted when it has answered.
    server.until("the passes to end", |_| {
        let timings = server.engine.timings();
        [timings.messages, timings.heartbeats].map(|kind| kind.buckets.iter().sum::<u64>()) == [6, 5]
    });
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
fn on_a_full_server_a_node_may_still_move_to_its_new_connection() {
    let server = Fixture::start(ServerConfig { max_nodes: 1, ..ServerConfig::default() });
    let mut older = server.register("x");
    let mut newer = server.register("x");
    assert!(older.frame().text().contains("409"));
    newer.send(6, 0, r#"{"node_id":"y"}"#);
    assert_eq!(newer.frame().text(), r#"{"message":"Too many nodes on this server","code":403}"#);
    assert_eq!(server.engine.stats().channels_active, 1);
}

#[test]
fn whoever_wants_little_is_served_before_the_long_frames_of_others() {
    const PEERS: u64 = 20;
    let server = Fixture::start_with(ServerConfig { io_threads: 1, ..ServerConfig::default() }, InboxLimits::default(), EventMask::NONE);
    let mut bystander = server.register("bystander");
    let mut peers: Vec<Peer> = (0..PEERS).map(|n| server.register(&format!("n{n}"))).collect();
    let long = frame(3, 0, &"[[],[]],".repeat(100_000));
    let (most, last) = long.split_at(long.len() - 1);
    let seen = |stats: &Stats| stats.counts.data_in;
    // A busy machine may let all of them be read before the bystander gets to say anything, though not every time.
    let is_served_between = (1..=10).any(|round| {
        peers.iter_mut().for_each(|peer| peer.raw(most));
        server.until("all but the last bytes", |stats| stats.buffered_bytes >= most.len() * peers.len());
        peers.iter_mut().for_each(|peer| peer.raw(last));
        bystander.send(4, 0, "");
        assert_eq!(bystander.frame().frame_type, 5);
        let before = seen(&server.engine.stats());
        server.until("the long frames", |stats| seen(stats) == round * PEERS);
        before < round * PEERS
    });
    assert!(is_served_between);
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
fn a_stop_does_not_wait_until_the_host_has_nothing_more_to_send() {
    let server = Fixture::start_with(ServerConfig { io_threads: 1, ..ServerConfig::default() }, InboxLimits::default(), EventMask::NONE);
    // Each of them has to be written to, which takes far longer than to ask for it.
    let peers: Vec<Peer> = (0..300).map(|n| server.register(&format!("n{n}"))).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // More than a pass opens is in the mailbox at any time.
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) && server.engine.broadcast(b"more").is_ok() {
                    std::hint::spin_loop();
                }
            });
        }
        server.until("the flood", |stats| stats.counts.data_out > 30_000);
        let (stopped, is_stopped) = std::sync::mpsc::sync_channel(1);
        let engine = &server.engine;
        scope.spawn(move || {
            engine.stop();
            let _ = stopped.send(());
        });
        let result = is_stopped.recv_timeout(Duration::from_secs(20));
        is_over.store(true, Ordering::Relaxed);
        result.expect("a stop that ends");
    });
    drop(peers);
}
