//! Clients of Firetower's: the calls of its browser client as they go over the wire, and what they are sent.

use super::peer::*;
use super::{closed, config, start, start_with};
use heartbus_core::event::CloseReason;
use heartbus_core::settings::{RateLimit, RateLimitBy, ServerConfig};
use std::net::SocketAddr;
use std::time::Duration;

/// As the browser client opens one: without a subprotocol.
fn open(address: SocketAddr) -> WebSocketPeer {
    let peer = WebSocketPeer::ask(address, &request("/ws", ""));
    assert!(peer.status() == 101 && !peer.head.contains("Sec-WebSocket-Protocol"), "{}", peer.head);
    peer
}

fn subscribe(peer: &mut WebSocketPeer, topics: &str) {
    peer.say(&format!(r#"{{"type":"subscribe","topic":"{topics}","data":""}}"#));
}

/// The next text, byte for byte.
fn text(peer: &mut WebSocketPeer) -> String {
    let (first, text) = peer.frame().expect("a text");
    assert_eq!(first, TEXT);
    String::from_utf8(text).unwrap()
}

#[test]
fn people_in_a_chat_get_what_is_published_byte_for_byte_and_their_own_as_well() {
    let (_server, address) = start();
    let [mut ann, mut bob] = [open(address), open(address)];
    subscribe(&mut ann, "/chat/world");
    assert_eq!(text(&mut ann), r#"{"type":"onSubscribe","data":1}"#);
    subscribe(&mut bob, "/chat/world");
    for peer in [&mut ann, &mut bob] {
        assert_eq!(text(peer), r#"{"type":"onSubscribe","data":2}"#);
    }
    for data in [r#"{"from": "ann",  "data":"hi","type":"publish"}"#, r#""a string with its quotes""#, "12.50", r#"["é", "\u00e9"]"#] {
        ann.say(&format!(r#"{{"type":"publish","topic":"/chat/world","data":{data}}}"#));
        assert_eq!([text(&mut ann), text(&mut bob)], [data, data]);
    }
    // In whatever case the keys are, as binary as well, and in fragments.
    bob.send(BINARY, br#"{"TYPE":"anything","Topic":"/chat/world","dAtA":1}"#);
    assert_eq!([text(&mut ann), text(&mut bob)], ["1", "1"]);
    bob.send(0x01, br#"{"type":"publish","topic":"/chat"#);
    bob.send(0x80, br#"/world","data":2}"#);
    assert_eq!([text(&mut ann), text(&mut bob)], ["2", "2"]);
    bob.say(r#"{"type":"unSubscribe","topic":"/chat/world","data":""}"#);
    assert_eq!(text(&mut ann), r#"{"type":"onUnsubscribe","data":1}"#);
    subscribe(&mut bob, "/chat/world");
    assert_eq!([text(&mut ann), text(&mut bob)], [r#"{"type":"onSubscribe","data":2}"#; 2]);
    drop(bob);
    assert_eq!(text(&mut ann), r#"{"type":"onUnsubscribe","data":1}"#, "an end is told as well");
}

#[test]
fn lists_are_split_at_commas_and_topics_match_as_they_are_written() {
    let (server, address) = start_with(ServerConfig { firetower_conventions: false, ..config() });
    let mut peer = open(address);
    subscribe(&mut peer, "a, b,,a,x/+,#,c");
    peer.send(PING, b"done");
    assert_eq!(peer.frame(), Some((PONG, b"done".to_vec())), "nothing is answered");
    server.until("all counted", |stats| stats.counts.subscribes == 7 && stats.counts.subscribes_refused == 3);
    for (topic, hears) in [("a", true), (" b", true), ("b", false), ("x/y", false), ("c", true)] {
        let reach = server.engine.publish(topic, topic.as_bytes(), &[]).unwrap().reach;
        assert_eq!(reach > 0, hears, "{topic}");
        if hears {
            assert_eq!(text(&mut peer), topic);
        }
    }
    peer.say(r#"{"type":"unSubscribe","topic":"a,nothing,c"}"#);
    peer.say(r#"{"type":"unsubscribe","topic":" b","data":1}"#);
    peer.send(PING, b"done");
    assert_eq!(peer.frame(), Some((PONG, b"done".to_vec())));
    assert_eq!(
        [server.engine.publish("a", b"x", &[]).unwrap().reach, server.engine.publish(" b", b"x", &[]).unwrap().reach],
        [0, 1],
        "the S is large"
    );
    assert_eq!(text(&mut peer), "x", "and without the conventions nothing is published for it");
    assert!(server.engine.publish(" b", b"\xff", &[]).is_ok());
    server.engine.publish(" b", b"behind it", &[]).unwrap();
    assert_eq!(text(&mut peer), "behind it", "what is no text is left out");
}

#[test]
fn nodes_and_firetowers_clients_share_topics() {
    let (server, address) = start();
    let mut old = open(address);
    subscribe(&mut old, "news");
    assert_eq!(text(&mut old), r#"{"type":"onSubscribe","data":1}"#);
    let mut tab = WebSocketPeer::json_node(address, "tab");
    tab.say(r#"{"type":"subscribe","filter":"news"}"#);
    assert_eq!(tab.json()["type"], "subscribe");
    old.say(r#"{"type":"publish","topic":"news","data":{"n":1}}"#);
    let message = tab.json();
    assert_eq!((&message["type"], &message["topic"]), (&"message".into(), &"news".into()));
    assert_eq!(text(&mut old), r#"{"n":1}"#);
    server.engine.publish("news", br#"{"n": 2}"#, &[]).unwrap();
    assert_eq!(text(&mut old), r#"{"n": 2}"#);
    assert_eq!(tab.json()["type"], "message");
    server.until("its publication counts", |stats| stats.counts.publishes >= 1 && stats.nodes_online == 1);
}

#[test]
fn what_is_no_message_is_ignored_but_for_null_which_ends_it_without_a_close_frame() {
    let (server, address) = start();
    let mut peer = open(address);
    for ignored in [
        "heartbeat",
        "",
        "[]",
        "{}",
        r#"{"type":1,"topic":"t"}"#,
        r#"{"type":"subscribe","topic":""}"#,
        r#"{"type":"publish","topic":"t"}"#,
    ] {
        peer.say(ignored);
    }
    peer.send(PING, b"still here");
    assert_eq!(peer.frame(), Some((PONG, b"still here".to_vec())));
    server.until("six of them counted", |stats| stats.counts.invalid_payloads == 6);
    peer.say(" null ");
    assert_eq!(peer.frame(), None);
    assert_eq!(closed(&server), CloseReason::BrokenStream);
    // A client that closes in order is answered in order.
    let mut polite = open(address);
    polite.send(CLOSE, b"\x03\xe8");
    assert_eq!(polite.close_code(), 1000);
    // When the server stops, nothing is said.
    let mut last = open(address);
    let stopping = std::thread::spawn(move || server.engine.stop());
    assert_eq!(last.frame(), None);
    stopping.join().unwrap();
}

#[test]
fn a_client_stays_without_registering_and_hears_the_heartbeat_as_long_as_it_answers_pings() {
    let config = ServerConfig { register_timeout: Duration::from_millis(200), heartbeat_timeout: Duration::from_millis(400), ..config() };
    let (server, address) = start_with(config);
    let mut peer = open(address);
    let mut heartbeats = 0;
    while heartbeats < 4 {
        match peer.frame().expect("it is open") {
            (TEXT, text) => {
                assert_eq!(text, b"heartbeat");
                heartbeats += 1;
            }
            (PING, _) => peer.send(PONG, b""),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.engine.stats().counts.register_timeouts, 0);
    let mut dead = open(address);
    while dead.frame().is_some() {}
    server.until("the ping counts", |stats| stats.counts.websocket_ping_timeouts >= 1);
}

#[test]
fn very_many_topics_in_one_message_are_subscribed_to_in_turns_up_to_the_limit_and_end_with_the_connection() {
    let (server, address) = start();
    let mut node = server.register("bystander");
    let mut peer = open(address);
    let names: Vec<String> = (0..50_000).map(|n| format!("t{n}")).collect();
    subscribe(&mut peer, &names.join(","));
    let limit = ServerConfig::default().max_subscriptions as u64;
    server.until("as many as may be", |stats| stats.counts.subscribes == limit && stats.counts.subscribes_refused == 50_000 - limit);
    node.send(1, 0, "");
    assert_eq!(node.frame().frame_type, 2);
    drop(peer);
    server.until("none is left", |stats| stats.counts.unsubscribes == limit && stats.connections_active == 1 && stats.memory.input == 0);
    assert_eq!(server.engine.publish("t1", b"x", &[]).unwrap().reach, 0);
}

#[test]
fn each_topic_of_a_list_takes_of_the_rate_limit_as_a_message_does() {
    let rate_limit = Some(RateLimit { capacity: 10, refill_per_second: 0.0, by: RateLimitBy::Connection });
    let (server, address) = start_with(ServerConfig { rate_limit, ..config() });
    let mut peer = open(address);
    let names: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
    subscribe(&mut peer, &names.join(","));
    for _ in 0..10 {
        assert_eq!(text(&mut peer), r#"{"type":"onSubscribe","data":1}"#);
    }
    server.until("the others", |stats| stats.counts.subscribes_refused == 90 && stats.counts.rate_limited == 1);
    subscribe(&mut peer, "one-more");
    server.until("nothing is left", |stats| stats.counts.rate_limited == 2);
    assert_eq!((server.engine.stats().counts.subscribes, server.engine.stats().subscriptions_active), (10, 10));
    // Of one topic there is one to pay.
    let mut other = open(address);
    (0..10).for_each(|_| subscribe(&mut other, "t0"));
    server.until("all of them", |stats| stats.counts.subscribes == 20 && stats.counts.rate_limited == 2);
}
