//! WebSockets over real sockets, against a running server: what a client may say, what it is told, and that nobody else is harmed.
//!
//! Where a test has numbers of Autobahn's cases, it is what these ask of a server. The cases as bytes without a socket are beside
//! `wire::websocket`.

#[path = "websocket/autobahn.rs"]
mod autobahn;
#[path = "websocket/autobahn_load.rs"]
mod autobahn_load;
#[path = "websocket/autobahn_utf8.rs"]
mod autobahn_utf8;
#[path = "websocket/firetower.rs"]
mod firetower;
#[path = "websocket/peer.rs"]
mod peer;
mod support;

use heartbus_core::event::{CloseReason, Departure, Event};
use heartbus_core::settings::{HistoryRule, ProtocolDoor, RateLimit, RateLimitBy, ServerConfig};
use heartbus_core::wire::Dialect;
use heartbus_core::wire::topic_frames::Message;
use peer::*;
use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use support::{Fixture, frame};

fn config() -> ServerConfig {
    ServerConfig { websocket: ProtocolDoor::At("127.0.0.1:0".into()), ..ServerConfig::default() }
}

fn start() -> (Fixture, std::net::SocketAddr) {
    start_with(config())
}

fn start_with(config: ServerConfig) -> (Fixture, std::net::SocketAddr) {
    let server = Fixture::start(config);
    let address = server.engine.websocket_addr().unwrap();
    (server, address)
}

fn left(server: &Fixture) -> (String, Departure) {
    match server.event_where(|event| matches!(event, Event::Left { .. })) {
        Event::Left { node, how, .. } => (node.id().to_string(), how),
        _ => unreachable!(),
    }
}

fn closed(server: &Fixture) -> CloseReason {
    match server.event_where(|event| matches!(event, Event::Close { .. })) {
        Event::Close { reason, .. } => reason,
        _ => unreachable!(),
    }
}

#[test]
fn a_browser_is_a_node_like_any_other() {
    let (server, address) = start();
    let mut browser = WebSocketPeer::open(address, "heartbus.v2");
    browser.send_v2(6, 0, br#"{"node_id":"browser","metadata":{"a":1}}"#);
    let (frame_type, _, reply) = browser.v2_frame();
    let reply: serde_json::Value = serde_json::from_slice(&reply).unwrap();
    assert_eq!((frame_type, &reply["node_id"]), (6, &"browser".into()));
    let channel = reply["channel_id"].as_u64().unwrap() as u32;
    browser.send_v2(1, channel, b"");
    assert_eq!(browser.v2_frame().0, 2);
    browser.send_v2(3, 0, b"any bytes \xff");
    let Event::Data { node, payload, .. } = server.event_where(|event| matches!(event, Event::Data { .. })) else { panic!() };
    assert_eq!((&**node.id(), &payload[..]), ("browser", &b"any bytes \xff"[..]));
    server.engine.send_to("browser", b"to you \xff", 0).unwrap();
    assert_eq!(browser.v2_frame(), (3, i64::from(channel), b"to you \xff".to_vec()));
    drop(browser);
    assert_eq!(left(&server), ("browser".into(), Departure::Disconnected));
    server.until("an end", |stats| stats.connections_active == 0 && stats.counts.websockets == 1);
}

#[test]
fn several_frames_may_come_in_one_message_and_each_answer_is_a_message_of_its_own() {
    let (_server, address) = start();
    let mut browser = WebSocketPeer::node(address, "n");
    let frames = [support::v2_frame(4, 0, b""), support::v2_frame(1, 0, b""), support::v2_frame(4, 0, b"")].concat();
    browser.send(BINARY, &frames);
    let types: Vec<_> = (0..3).map(|_| browser.v2_frame().0).collect();
    assert_eq!(types, [5, 2, 5]);
    // In fragments that cut frames, with a ping in between.
    browser.send(0x02, &frames[..7]);
    browser.send(PING, b"in between");
    browser.send(0x80, &frames[7..]);
    assert_eq!(browser.frame(), Some((PONG, b"in between".to_vec())));
    assert_eq!((0..3).map(|_| browser.v2_frame().0).collect::<Vec<_>>(), types);
}

#[test]
fn browsers_of_both_kinds_hear_topics_as_other_nodes_do_and_get_what_they_missed() {
    let rule = HistoryRule { filter: "room/#".into(), count: 1000, bytes: 1 << 20, ttl: Duration::from_secs(600) };
    let (server, address) = start_with(ServerConfig { history: vec![rule], ..config() });
    let kept = "x".repeat(200);
    (0..600).for_each(|_| assert!(server.engine.publish("room/1", kept.as_bytes(), &[]).is_ok()));
    let mut tab = WebSocketPeer::json_node(address, "tab");
    tab.say(r#"{"type":"subscribe","filter":"room/1","offset":0,"epoch":0}"#);
    let answer = tab.json();
    assert_eq!((&answer["type"], &answer["recovered"], &answer["offset"]), (&"subscribe".into(), &true.into(), &600.into()));
    let epoch = answer["epoch"].as_u64().unwrap();
    let mut frames = WebSocketPeer::node(address, "frames");
    let since = [&[1][..], &590_u64.to_be_bytes(), &epoch.to_be_bytes(), b"room/1"].concat();
    frames.send_v2(9, 0, &since);
    assert_eq!(frames.v2_frame().0, 9);
    for offset in 1..=600_u64 {
        let message = tab.json();
        assert_eq!((&message["type"], &message["offset"], &message["data"]), (&"message".into(), &offset.into(), &kept.as_str().into()));
    }
    let of = |(frame_type, _, payload): (u8, i64, Vec<u8>)| {
        assert_eq!(frame_type, 12);
        let Message { topic, position, data } = Message::decode(Dialect::V2, &payload).unwrap();
        (topic.into_owned(), position.unwrap().offset, data.into_owned())
    };
    (591..=600).for_each(|offset| assert_eq!(of(frames.v2_frame()), ("room/1".into(), offset, kept.clone().into_bytes())));
    tab.say(r#"{"type":"publish","topic":"room/1","id":5,"data":{"a": "é"}}"#);
    let answer = tab.json();
    assert_eq!((&answer["type"], &answer["id"], &answer["reach"]), (&"publish".into(), &5.into(), &2.into()));
    let channel = server.engine.node("tab").unwrap().channel_id();
    let data = r#"{"a": "é"}"#;
    let message =
        serde_json::json!({"type": "message", "channel_id": channel, "topic": "room/1", "offset": 601, "epoch": epoch, "data": data});
    assert_eq!(tab.json(), message);
    assert_eq!(of(frames.v2_frame()), ("room/1".into(), 601, data.as_bytes().to_vec()));
    tab.say(r#"{"type":"subscribe","filter":"a/#/b"}"#);
    let error = tab.json();
    assert_eq!((&error["type"], &error["code"], &error["topic"]), (&"error".into(), &400.into(), &"a/#/b".into()));
    tab.say(r#"{"type":"unsubscribe","filter":"room/1"}"#);
    assert_eq!(tab.json()["type"], "unsubscribe");
    assert_eq!(server.engine.publish("room/1", b"\xff", &[]).unwrap().reach, 1);
    assert_eq!(of(frames.v2_frame()).2, b"\xff");
    drop((tab, frames));
    server.until("all to end", |stats| stats.subscriptions_active == 0);
}

#[test]
fn json_says_what_frames_say() {
    let (server, address) = start();
    let mut browser = WebSocketPeer::open(address, "heartbus.json");
    browser.say(r#"{"type":"register","node_id":"tab","metadata":{"user":"ada"},"protocol":2}"#);
    let reply = browser.json();
    assert_eq!((&reply["type"], &reply["node_id"], reply.get("protocol")), (&"register".into(), &"tab".into(), None));
    let channel = reply["channel_id"].as_u64().unwrap();
    assert_eq!(&*server.engine.node("tab").unwrap().metadata(), r#"{"user":"ada"}"#);
    browser.say(r#"{"type":"heartbeat"}"#);
    assert_eq!(browser.json()["type"], "heartbeat");
    browser.say(r#"{"type":"ping"}"#);
    assert_eq!(browser.json(), serde_json::json!({"type": "pong"}));
    for (said, payload) in
        [(r#""data":"text é""#, "text é".as_bytes()), (r#""data":{"a": 1}"#, br#"{"a": 1}"#), (r#""base64":"/w==""#, b"\xff")]
    {
        browser.say(&format!(r#"{{"type":"data",{said}}}"#));
        let Event::Data { payload: told, .. } = server.event_where(|event| matches!(event, Event::Data { .. })) else { panic!() };
        assert_eq!(told, payload, "{said}");
    }
    server.engine.send_to("tab", "a \"text\" é".as_bytes(), 0).unwrap();
    assert_eq!(browser.json(), serde_json::json!({"type": "data", "channel_id": channel, "data": "a \"text\" é"}));
    assert!(server.engine.send_to("tab", b"\xff", 0).is_err(), "JSON carries text only");
    browser.say("no JSON");
    let error = browser.json();
    assert_eq!((&error["type"], &error["code"]), (&"error".into(), &400.into()));
    browser.say(r#"{"type":"unregister","channel_id":0}"#);
    assert_eq!(left(&server), ("tab".into(), Departure::Unregistered));
    server.until("the refusal counted", |stats| stats.counts.invalid_payloads == 1 && stats.counts.messages_in >= 7);
}

#[test]
fn a_broadcast_reaches_nodes_of_every_dialect_and_framing() {
    let (server, address) = start();
    let mut v1 = server.register("v1");
    let mut v2 = server.connect();
    v2.send(6, 0, r#"{"node_id":"v2","protocol":2}"#);
    v2.frame();
    v2.send_v2(4, 0, b"");
    v2.frame();
    let mut browsers: Vec<_> = (0..3).map(|n| WebSocketPeer::node(address, &format!("b{n}"))).collect();
    let mut tabs: Vec<_> = (0..3).map(|n| WebSocketPeer::json_node(address, &format!("t{n}"))).collect();
    for text in ["short".to_owned(), "x".repeat(100_000)] {
        assert_eq!(server.engine.broadcast(text.as_bytes()), Ok(8));
        assert_eq!([v1.frame().text(), v2.frame().text()], [text.clone(), text.clone()]);
        for browser in &mut browsers {
            let (frame_type, _, payload) = browser.v2_frame();
            assert_eq!((frame_type, payload), (3, text.clone().into_bytes()));
        }
        for tab in &mut tabs {
            assert_eq!(tab.json()["data"], text);
        }
    }
    assert_eq!(server.engine.broadcast(b"\xff"), Ok(4), "JSON and v1 carry text only");
    v2.frame();
    assert!(browsers.iter_mut().all(|browser| browser.v2_frame().2 == b"\xff"));
}

#[test]
fn the_main_port_tells_both_protocols_apart_where_it_is_to() {
    let (server, address) = start_with(ServerConfig { websocket: ProtocolDoor::MainPort, ..ServerConfig::default() });
    assert_eq!(address, server.engine.local_addr());
    let mut node = server.register("plain");
    let mut browser = WebSocketPeer::node(address, "browser");
    // The request may come byte by byte.
    let mut slow = TcpStream::connect(address).unwrap();
    let text = request("/", &subprotocol("heartbus.json"));
    for byte in text.as_bytes() {
        slow.write_all(&[*byte]).unwrap();
    }
    server.until("a third handshake", |stats| stats.counts.websockets == 2);
    assert_eq!(server.engine.broadcast(b"both"), Ok(2));
    assert_eq!((node.frame().text(), browser.v2_frame().2), ("both".to_owned(), b"both".to_vec()));
    let mut http = WebSocketPeer::ask(address, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((http.status(), http.body()), (426, "A WebSocket is spoken here\n".to_owned()));
    // Behind frames of the bus it is no request.
    let mut late = server.connect();
    late.send(6, 0, r#"{"node_id":"late"}"#);
    late.frame();
    late.raw(request("/", "").as_bytes());
    assert_eq!(late.frame().frame_type, 8);
    late.expect_end();
}

#[test]
fn where_nobody_asked_for_websockets_a_request_is_a_broken_stream() {
    let server = Fixture::start(ServerConfig::default());
    assert_eq!(server.engine.websocket_addr(), None);
    let mut peer = server.connect();
    peer.raw(request("/", &subprotocol("heartbus.v2")).as_bytes());
    assert_eq!(peer.frame().frame_type, 8);
    peer.expect_end();
    server.until("the magic counted", |stats| stats.counts.invalid_magic == 1);
}

#[test]
fn a_handshake_that_is_none_is_told_why_and_counted() {
    let (server, address) = start_with(ServerConfig {
        websocket_path: Some("/ws".into()),
        websocket_origins: vec!["https://example.com".into(), "http://localhost:8080".into()],
        ..config()
    });
    let spoken = subprotocol("other, heartbus.v2");
    let good = request("/ws?token=1", &spoken);
    let origin = |origin: &str| request("/ws", &format!("{spoken}Origin: {origin}\r\n"));
    let refused = [
        (request("/", &spoken), 404),
        (request("/ws/", &spoken), 404),
        (origin("https://evil.example"), 403),
        (origin("https://example.com.evil.example"), 403),
        (origin("null"), 403),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        (good.replace("GET", "POST"), 405),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 505),
        (good.replace("Version: 13", "Version: 12"), 426),
        ("GET /ws HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 426),
        ("\u{1}\u{2}\r\n\r\n".to_owned(), 400),
        (request("/ws", &format!("{spoken}X: {}\r\n", "x".repeat(9000))), 431),
        (request("/ws", &format!("{spoken}{}", "X: y\r\n".repeat(100))), 431),
    ];
    for (text, status) in &refused {
        let mut peer = WebSocketPeer::ask(address, text);
        assert_eq!(peer.status(), *status, "{text:?}");
        let body = peer.body();
        assert!(peer.head.contains(&format!("Content-Length: {}", body.len())) && peer.head.contains("Connection: close"), "{}", peer.head);
    }
    server.until("all counted", |stats| stats.counts.websockets_refused == refused.len() as u64 && stats.connections_active == 0);
    // Who never could speak has not come, and does not go either.
    let mut told = VecDeque::new();
    assert_eq!(server.inbox.drain(&mut told, 100), 0, "{told:?}");
    for text in [good, origin("https://example.com"), origin("HTTP://LOCALHOST:8080")] {
        assert_eq!(WebSocketPeer::ask(address, &text).status(), 101, "{text:?}");
    }
}

#[test]
fn whoever_does_not_send_a_request_in_time_is_told_so_and_whoever_registers_nobody_as_well() {
    let (server, address) = start_with(ServerConfig { register_timeout: Duration::from_millis(300), ..config() });
    let mut slow = WebSocketPeer::ask(address, "GET / HTTP/1.1\r\nHost: h\r\n");
    assert_eq!(slow.status(), 408);
    slow.body();
    let mut idle = WebSocketPeer::open(address, "heartbus.v2");
    assert_eq!(idle.close_code(), 4408);
    server.until("both counted", |stats| stats.counts.register_timeouts == 2 && stats.connections_active == 0);
}

#[test]
fn a_full_server_says_so_as_http_does() {
    let (_server, address) = start_with(ServerConfig { max_connections: 1, ..config() });
    let _first = WebSocketPeer::node(address, "n");
    let mut second = WebSocketPeer::ask(address, &request("/", &subprotocol("heartbus.v2")));
    assert_eq!((second.status(), second.body()), (503, "The server is full\n".to_owned()));
}

#[test]
fn an_end_has_a_code_by_which_a_browser_knows_what_to_do() {
    let (server, address) = start_with(ServerConfig { heartbeat_timeout: Duration::from_secs(1), ..config() });
    let mut first = WebSocketPeer::json_node(address, "n");
    let mut second = WebSocketPeer::json_node(address, "n");
    let told = first.json();
    assert_eq!((&told["code"], first.close_code()), (&409.into(), 4409));
    assert_eq!(closed(&server), CloseReason::Replaced);
    server.engine.disconnect("n").unwrap();
    assert_eq!(second.close_code(), 4403);
    let mut silent = WebSocketPeer::json_node(address, "silent");
    assert_eq!(silent.close_code(), 4408);
    let mut last = WebSocketPeer::node(address, "last");
    let stopping = std::thread::spawn(move || server.engine.stop());
    assert_eq!(last.v2_frame().0, 18, "GOAWAY");
    assert_eq!(last.close_code(), 1001);
    stopping.join().unwrap();
}

#[test]
fn a_node_that_closes_in_order_is_answered_and_has_left() {
    let (server, address) = start();
    for (sent, answered) in [(&b"\x03\xe8bye"[..], 1000), (b"\x0f\xa0", 4000), (b"", 0)] {
        let mut browser = WebSocketPeer::node(address, "n");
        browser.send(CLOSE, sent);
        assert_eq!(browser.close_code(), answered);
        assert_eq!((left(&server).1, closed(&server)), (Departure::Disconnected, CloseReason::PeerClosed));
    }
    // Whoever does not close its side then is not waited for long.
    let mut browser = WebSocketPeer::node(address, "n");
    browser.send(CLOSE, b"");
    server.until("it is gone", |stats| stats.connections_active == 0);
}

#[test]
fn what_a_client_must_not_send_ends_it_with_a_code_and_harms_nobody_else() {
    let (server, address) = start_with(ServerConfig { max_frame_bytes: 10_000, ..config() });
    let mut bystander = WebSocketPeer::node(address, "bystander");
    let mut unmasked = support::v2_frame(4, 0, b"");
    unmasked.splice(..0, [BINARY, unmasked.len() as u8]);
    let cut = support::v2_frame(4, 0, b"")[..5].to_vec();
    let cases: &[(&[u8], u16)] = &[
        (&unmasked, 1002),
        (&masked(0xc2, b"x"), 1002),
        (&masked(0x92, b"x"), 1002),
        (&masked(0x83, b"x"), 1002),
        (&masked(0x8b, b""), 1002),
        (&masked(0x09, b"a ping in fragments"), 1002),
        (&masked(0x89, &[0; 126]), 1002),
        (&masked(0x80, b"of nothing"), 1002),
        (&[masked(0x02, b"a"), masked(0x02, b"b")].concat(), 1002),
        (&masked(CLOSE, b"\x03"), 1002),
        (&masked(CLOSE, b"\x03\xed"), 1002),
        (&masked(CLOSE, b"\x03\xe8\xff"), 1007),
        (&masked(TEXT, b"text"), 1003),
        (&masked(TEXT, b"\xff"), 1007),
        (&[masked(0x01, "é".as_bytes().split_at(1).0), masked(0x80, b"x")].concat(), 1007),
        (&masked(BINARY, &cut), 1002),
        (&[BINARY, 0xff, 0, 0, 0, 0, 0x10, 0, 0, 0], 1009),
        (&[BINARY, 0xfe, 0x7f, 0xff], 1009),
        (&[masked(0x02, &[0; 9000]), masked(0x00, &[0; 9000])].concat(), 1009),
        (&masked(0x02, b"").repeat(1030), 1002),
    ];
    for (bytes, code) in cases {
        let mut peer = WebSocketPeer::node(address, "bad");
        peer.raw(bytes);
        assert_eq!(peer.close_code(), *code, "{:?}", &bytes[..bytes.len().min(40)]);
        assert_eq!(left(&server), ("bad".into(), Departure::Disconnected));
    }
    let mut endless = WebSocketPeer::node(address, "endless");
    endless.send(0x02, b"");
    for _ in 0..1024 {
        endless.send(0x00, b"");
    }
    assert_eq!(endless.close_code(), 1008);
    server.until("all counted", |stats| stats.counts.websocket_violations == cases.len() as u64 + 1 && stats.connections_active == 1);
    bystander.send_v2(1, 0, b"");
    assert_eq!(bystander.v2_frame().0, 2);
    assert_eq!(server.engine.stats().memory.input, 0);
}

#[test]
fn a_frame_of_the_bus_that_is_none_is_answered_as_elsewhere() {
    let (_server, address) = start();
    let mut peer = WebSocketPeer::node(address, "n");
    peer.send(BINARY, b"no frame at all");
    let (frame_type, _, payload) = peer.v2_frame();
    assert!(frame_type == 8 && String::from_utf8_lossy(&payload).contains("500"));
    assert_eq!(peer.close_code(), 1002);
    let mut json = WebSocketPeer::json_node(address, "j");
    json.send(BINARY, b"{}");
    assert_eq!(json.close_code(), 1003);
}

#[test]
fn what_came_of_a_message_counts_and_is_given_back() {
    let (server, address) = start();
    let mut peer = WebSocketPeer::node(address, "n");
    peer.send(0x02, &vec![0xab; 100_000]);
    peer.send(0x00, &vec![0xab; 100_000]);
    let begun = std::time::Instant::now();
    while server.engine.stats().memory.input < 200_000 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", server.engine.stats().memory);
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(peer);
    server.until("it is gone", |stats| stats.connections_active == 0);
    assert_eq!(server.engine.stats().memory.input, 0);
}

#[test]
fn long_messages_go_both_ways_whole() {
    let (server, address) = start();
    let mut peer = WebSocketPeer::node(address, "n");
    for len in [125, 126, 65_535, 65_536, 3_000_000] {
        let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
        peer.send_v2(3, 0, &payload);
        let Event::Data { payload: told, .. } = server.event_where(|event| matches!(event, Event::Data { .. })) else { panic!() };
        assert!(told == payload, "{len}");
        server.engine.send_to("n", &payload, 0).unwrap();
        assert!(peer.v2_frame().2 == payload, "{len}");
    }
}

#[test]
fn a_message_whose_turn_is_over_goes_on_where_it_was() {
    let (server, address) = start();
    let mut peer = WebSocketPeer::node(address, "n");
    let ping = support::v2_frame(4, 0, b"");
    let data = support::v2_frame(3, 0, &vec![b'd'; 60_000]);
    let message = [ping.repeat(3000), data, ping.repeat(3000)].concat();
    for fragments in [1, 7] {
        let parts: Vec<_> = message.chunks(message.len().div_ceil(fragments)).collect();
        for (number, part) in parts.iter().enumerate() {
            let (first, last) = (number == 0, number + 1 == parts.len());
            peer.send(if first { 2 } else { 0 } | if last { 0x80 } else { 0 }, part);
        }
        assert!((0..6000).all(|_| peer.v2_frame().0 == 5));
        let Event::Data { payload, .. } = server.event_where(|event| matches!(event, Event::Data { .. })) else { panic!() };
        assert_eq!(payload.len(), 60_000);
    }
    assert_eq!(server.engine.stats().memory.input, 0);
}

#[test]
fn a_host_without_room_has_a_message_wait_and_gets_it_once() {
    let limits = heartbus_core::settings::InboxLimits { events: 4, ..Default::default() };
    let server = Fixture::start_with(config(), limits, heartbus_core::event::EventMask::DATA);
    let mut peer = WebSocketPeer::node(server.engine.websocket_addr().unwrap(), "n");
    let frames: Vec<u8> = (0..50_u8).flat_map(|n| support::v2_frame(3, 0, &[n])).collect();
    peer.send(BINARY, &frames);
    server.until("reading stops", |stats| stats.counts.reads_paused_by_host > 0);
    for n in 0..50 {
        let Event::Data { payload, .. } = server.event() else { panic!() };
        assert_eq!(payload, [n][..]);
    }
    peer.send_v2(4, 0, b"");
    assert_eq!(peer.v2_frame().0, 5);
}

#[test]
fn who_reads_nothing_is_cut_off_within_its_bound_and_nobody_else_notices() {
    let (server, address) =
        start_with(ServerConfig { outbox_bytes: 100_000, slow_consumer_timeout: Duration::from_millis(500), ..config() });
    let mut slow = WebSocketPeer::node(address, "slow");
    let mut other = WebSocketPeer::node(address, "other");
    let payload = vec![7; 50_000];
    let begun = std::time::Instant::now();
    while server.engine.node("slow").is_some() {
        let _ = server.engine.send_to("slow", &payload, 0);
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
    server.engine.send_to("other", b"still here", 0).unwrap();
    assert_eq!(other.v2_frame().2, b"still here");
    // What it reads at last are whole messages, and why it was closed behind them.
    let mut last = None;
    while let Some((first, message)) = slow.frame() {
        last = Some((first, message));
    }
    let (first, message) = last.unwrap();
    assert_eq!((first, &message[..2]), (CLOSE, &1008_u16.to_be_bytes()[..]));
    server.until("it counts", |stats| stats.counts.slow_consumers == 1);
}

#[test]
fn who_does_not_answer_a_ping_is_gone_and_who_does_stays() {
    // Nodes are kept alive by heartbeats of their own, which the dead one sends as well: of its silence alone the server must not say.
    let (server, address) = start_with(ServerConfig { heartbeat_timeout: Duration::from_millis(700), ..config() });
    let mut alive = WebSocketPeer::open(address, "heartbus.v2");
    let mut dead = WebSocketPeer::open(address, "heartbus.v2");
    assert_eq!(alive.frame(), Some((PING, Vec::new())));
    alive.send(PONG, b"");
    assert_eq!(dead.frame(), Some((PING, Vec::new())));
    assert_eq!(dead.close_code(), 4408);
    assert_eq!(closed(&server), CloseReason::HeartbeatTimeout);
    server.until("it counts", |stats| stats.counts.websocket_ping_timeouts == 1);
    alive.send_v2(4, 0, b"");
    loop {
        match alive.frame().expect("it is open") {
            (PING, _) => alive.send(PONG, b""),
            (first, _) => break assert_eq!(first, BINARY),
        }
    }
}

#[test]
fn compressed_messages_are_taken_where_both_want_it_and_a_bomb_ends_at_the_limit() {
    use heartbus_core::wire::websocket::deflate::Deflater;
    let offer = format!("{}Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n", subprotocol("heartbus.v2"));
    let (server, address) = start_with(ServerConfig { websocket_compression: true, max_frame_bytes: 100_000, ..config() });
    let mut peer = WebSocketPeer::ask(address, &request("/", &offer));
    assert!(peer.head.contains("permessage-deflate; server_no_context_takeover; client_no_context_takeover"), "{}", peer.head);
    let mut deflater = Deflater::default();
    let register = support::v2_frame(6, 0, format!(r#"{{"node_id":"n","metadata":{{"a":"{}"}}}}"#, "x".repeat(500)).as_bytes());
    peer.send(0xc2, deflater.deflate(&register).unwrap());
    assert_eq!(peer.v2_frame().0, 6);
    let payload = vec![b'y'; 50_000];
    let data = deflater.deflate(&support::v2_frame(3, 0, &payload)).unwrap().to_vec();
    peer.send(0x42, &data[..10]);
    peer.send(0x80, &data[10..]);
    let Event::Data { payload: told, .. } = server.event_where(|event| matches!(event, Event::Data { .. })) else { panic!() };
    assert!(told == payload);
    peer.send(0xc2, deflater.deflate(&vec![0; 50 << 20]).unwrap().get(..90_000).unwrap());
    assert_eq!(peer.close_code(), 1009);
    assert_eq!(server.engine.stats().memory.input, 0);
    let (_off, address) = start();
    let mut peer = WebSocketPeer::ask(address, &request("/", &offer));
    assert!(peer.status() == 101 && !peer.head.contains("Extensions"), "{}", peer.head);
    peer.send(0xc2, &data);
    assert_eq!(peer.close_code(), 1002);
}

#[test]
fn pings_and_fragments_take_of_the_rate_limit_as_messages_do() {
    let rate_limit = Some(RateLimit { capacity: 5, refill_per_second: 0.0, by: RateLimitBy::Connection });
    let (server, address) = start_with(ServerConfig { rate_limit, ..config() });
    let mut peer = WebSocketPeer::open(address, "heartbus.json");
    (0..7).for_each(|n| peer.send(PING, &[n]));
    for n in 0..5 {
        assert_eq!(peer.frame(), Some((PONG, vec![n])));
    }
    server.until("two are passed over", |stats| stats.counts.rate_limited == 2);
    // A message in short fragments that were too many is answered as one is, and nothing is kept of it meanwhile.
    peer.send(0x01, &[b' '; 10_000]);
    server.until("it is passed over", |stats| stats.counts.rate_limited == 3);
    assert!(server.engine.stats().memory.input < 1_000);
    peer.send(0x00, &[b' '; 10_000]);
    peer.send(0x80, br#"{"type":"ping"}"#);
    let error = peer.json();
    assert_eq!((&error["type"], &error["code"]), (&"error".into(), &429.into()));
    // Whoever closes is answered all the same.
    peer.send(CLOSE, b"\x03\xe8");
    assert_eq!(peer.close_code(), 1000);
    let mut other = WebSocketPeer::open(address, "heartbus.json");
    other.send(0x01, br#"{"type":"#);
    other.send(0x80, br#""ping"}"#);
    assert_eq!(other.json()["type"], "pong");
}

#[test]
fn a_tcp_node_that_is_there_beside_browsers_notices_nothing_of_them() {
    let (server, address) = start();
    let mut node = server.register("n");
    let _browsers: Vec<_> = (0..50).map(|n| WebSocketPeer::node(address, &format!("b{n}"))).collect();
    node.raw(&frame(1, 0, r#"{"timestamp":1}"#));
    assert_eq!(node.frame().frame_type, 2);
    server.until("all are there", |stats| stats.nodes_online == 51);
}
