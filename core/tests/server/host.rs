//! What a host asks of its server, and is told.

use crate::support::*;
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{Departure, Event};
use heartbus_core::settings::ServerConfig;
use std::time::{Duration, Instant};

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
