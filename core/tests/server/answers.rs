//! What peers are answered.

use crate::support::*;
use heartbus_core::event::Event;
use heartbus_core::settings::ServerConfig;

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
