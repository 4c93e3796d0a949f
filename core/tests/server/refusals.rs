//! What a server does not take, and whom that harms.

use crate::support::*;
use heartbus_core::engine::{Engine, Stats};
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{Event, EventMask};
use heartbus_core::settings::{InboxLimits, RateLimit, RateLimitBy, ServerConfig};
use std::net::Shutdown;
use std::time::{Duration, Instant};

#[test]
fn a_connection_on_which_nobody_registers_is_closed_without_a_word() {
    let config = ServerConfig { register_timeout: Duration::from_millis(200), ..ServerConfig::default() };
    let server = Fixture::start(config);
    let mut peer = server.connect();
    peer.expect_end();
    assert_eq!(server.engine.stats().counts.register_timeouts, 1);
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
fn a_port_in_use_is_refused_clearly_also_by_another_heartbus() {
    let server = Fixture::start(ServerConfig::default());
    let taken = ServerConfig { host: "127.0.0.1".into(), port: server.engine.local_addr().port(), ..ServerConfig::default() };
    let error = start_error(taken.clone());
    assert_eq!(error.kind, ErrorKind::Io);
    assert_eq!(error.message, format!("Cannot listen on 127.0.0.1:{}: Address already in use", taken.port));
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
