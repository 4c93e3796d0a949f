//! Firetower's back side over real sockets: old gateways and publishers with a server of ours as their manager.

#[path = "firetower/any_order.rs"]
mod any_order;
#[path = "support/bus.rs"]
mod bus;
#[path = "firetower/peer.rs"]
mod gateway;
#[path = "websocket/peer.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod peer;
mod support;

use gateway::{GatewayPeer, frame, raw};
use heartbus_core::event::{CloseReason, Event, EventMask};
use heartbus_core::settings::{InboxLimits, ProtocolDoor, ServerConfig};
use peer::{WebSocketPeer, request};
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::{Fixture, start_error};

fn config() -> ServerConfig {
    let door = || ProtocolDoor::At("127.0.0.1:0".into());
    ServerConfig { firetower: door(), websocket: door(), ..ServerConfig::default() }
}

fn start() -> (Fixture, SocketAddr) {
    start_with(config())
}

fn start_with(config: ServerConfig) -> (Fixture, SocketAddr) {
    let server = Fixture::start(config);
    let address = server.engine.firetower_addr().unwrap();
    (server, address)
}

/// A client of Firetower's in a browser, as somebody's or as nobody's, who has subscribed.
fn client(server: &Fixture, user: &str, topic: &str) -> WebSocketPeer {
    let path = if user.is_empty() { "/ws".into() } else { format!("/ws?x=1&user_id={user}") };
    let mut peer = WebSocketPeer::ask(server.engine.websocket_addr().unwrap(), &request(&path, ""));
    assert_eq!(peer.status(), 101, "{}", peer.head);
    peer.say(&format!(r#"{{"type":"subscribe","topic":"{topic}","data":""}}"#));
    loop {
        let subscribed = text(&mut peer);
        if subscribed.starts_with(r#"{"type":"onSubscribe""#) {
            return peer;
        }
    }
}

fn text(peer: &mut WebSocketPeer) -> String {
    let (first, text) = peer.frame().expect("a text");
    assert_eq!(first, peer::TEXT);
    String::from_utf8(text).unwrap()
}

fn close_reason(server: &Fixture) -> CloseReason {
    match server.event_where(|event| matches!(event, Event::Close { .. })) {
        Event::Close { reason, .. } => reason,
        _ => unreachable!(),
    }
}

#[test]
fn gateways_get_what_others_publish_and_their_own_with_id_and_source_as_they_were() {
    let (_server, address) = start();
    let [mut one, mut other, mut publisher] = [(); 3].map(|()| GatewayPeer::connect(address));
    assert_eq!((one.subscribe("/chat/world"), other.subscribe("/chat/world"), other.subscribe("more")), (1, 2, 1));
    publisher.raw(&frame("publish", "1234567890", "user", "/chat/world", br#"{"from":"u1","data":"hi","type":"publish"}"#));
    one.raw(&frame("publish", "", "", "/chat/world", b""));
    let expected = |id: &str, source: &str, content: &[u8]| {
        Some(("publish".into(), id.to_owned(), source.to_owned(), "/chat/world".into(), content.to_vec()))
    };
    // Of two publishers nobody says who is first.
    for peer in [&mut one, &mut other] {
        let mut got = [peer.frame(), peer.frame()];
        got.sort();
        assert_eq!(got, [expected("", "", b""), expected("1234567890", "user", br#"{"from":"u1","data":"hi","type":"publish"}"#)]);
    }
    other.publish("more", b"\x00\xff any bytes \n and lines\n");
    assert_eq!(other.message(), ("more".into(), b"\x00\xff any bytes \n and lines\n".to_vec()));
    // Nobody wants it, and nobody hears of that.
    publisher.publish("nobodys", b"x");
    publisher.publish("more", b"last");
    assert_eq!(other.message(), ("more".into(), b"last".to_vec()));
}

#[test]
fn nodes_browsers_the_host_and_gateways_share_topics() {
    let (server, address) = start();
    let mut gateway = GatewayPeer::connect(address);
    assert_eq!(gateway.subscribe("room"), 1);
    let mut browser = client(&server, "", "room");
    assert_eq!(gateway.message().1, br#"{"type":"onSubscribe","data":2}"#);
    browser.say(r#"{"type":"publish","topic":"room","data":{"n":  1}}"#);
    let (kind, id, source, topic, content) = gateway.frame().unwrap();
    assert_eq!((&*kind, &*source, &*topic, &content[..]), ("publish", "user", "room", &br#"{"n":  1}"#[..]));
    assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    assert_eq!(text(&mut browser), r#"{"n":  1}"#);
    gateway.publish("room", br#""from a gateway""#);
    assert_eq!(text(&mut browser), r#""from a gateway""#);
    assert_eq!(gateway.message().1, br#""from a gateway""#);
    assert_eq!(server.engine.publish("room", b"1", &[]).unwrap().reach, 2);
    let (_, _, source, _, content) = gateway.frame().unwrap();
    assert_eq!((&*source, &content[..]), ("platform", &b"1"[..]));
}

#[test]
fn a_topic_is_left_when_the_last_client_of_a_gateway_has_left_it_and_all_are_when_the_gateway_goes() {
    let (server, address) = start();
    let mut gateway = GatewayPeer::connect(address);
    assert_eq!((gateway.subscribe("t"), gateway.subscribe("t"), gateway.subscribe("t")), (1, 2, 3));
    assert_eq!(server.engine.subscribers("t").unwrap(), 3, "as many as its clients are");
    assert_eq!((gateway.unsubscribe("t"), gateway.unsubscribe("other")), (2, 0), "what nobody had subscribed to is passed over");
    server.engine.publish("t", b"x", &[]).unwrap();
    assert_eq!(gateway.message().1, b"x", "once, however many clients there are");
    assert_eq!((gateway.unsubscribe("t"), gateway.unsubscribe("t"), gateway.unsubscribe("t")), (1, 0, 0));
    server.until("the topic is gone", |stats| stats.topics_active == 0 && stats.subscriptions_active == 0);
    gateway.raw(&frame("subscribe", "1", "", "a,b,a", b"ignored"));
    let counts: Vec<_> = (0..3).map(|_| gateway.frame().map(|(kind, _, _, topic, count)| (kind, topic, count)).unwrap()).collect();
    let expected = [("a", b"1"), ("b", b"1"), ("a", b"2")];
    assert!(counts.iter().zip(expected).all(|(got, (topic, count))| got.0 == "onSubscribe" && got.1 == topic && got.2 == count));
    drop(gateway);
    server.until("nothing is left", |stats| {
        stats.topics_active == 0 && stats.subscriptions_active == 0 && stats.connections_active == 0 && stats.memory.topics == 0
    });
}

#[test]
fn a_gateway_that_comes_back_replaces_what_is_left_of_it() {
    let (server, address) = start();
    let [mut before, mut bystander] = [(); 2].map(|()| GatewayPeer::connect(address));
    assert_eq!((before.announce("subscribe", "gw-1", "t"), before.announce("subscribe", "gw-1", "old")), (1, 1));
    assert_eq!(bystander.announce("subscribe", "gw-2", "t"), 2);
    let mut after = GatewayPeer::connect(address);
    after.announce("subscribe", "gw-1", "t");
    assert_eq!(before.frame(), None);
    assert_eq!(close_reason(&server), CloseReason::Replaced);
    server.until("its old subscriptions are gone", |stats| stats.subscriptions_active == 2);
    assert_eq!(server.engine.subscribers("old").unwrap(), 0);
    assert_eq!(server.engine.publish("t", b"x", &[]).unwrap().reach, 2);
    assert_eq!((after.message().1, bystander.message().1), (b"x".to_vec(), b"x".to_vec()));
    // One connection is that of one gateway, and those that are not named stand in nobody's way.
    after.raw(&frame("subscribe", "1", "gw-2", "t", b""));
    assert_eq!(after.error(), ("t".into(), "a connection is that of one gateway".into()));
    let mut nameless = GatewayPeer::connect(address);
    for source in ["user", "platform", "system", ""] {
        nameless.announce("subscribe", source, "t");
        after.announce("subscribe", "gw-1", "t");
    }
    // When it is gone, its name is free.
    drop(after);
    server.until("it is gone", |stats| stats.connections_active == 2);
    assert_eq!(GatewayPeer::connect(address).announce("subscribe", "gw-1", "fresh"), 1);
}

#[test]
fn content_of_any_length_up_to_the_limit_comes_whole() {
    let (server, address) = start();
    let mut gateway = GatewayPeer::connect(address);
    gateway.subscribe("t");
    let content = |len: usize| (0..len).map(|n| (n * 7) as u8).collect::<Vec<_>>();
    for len in [0, 1, 4095, 4096, 4097, 70_000, 3 << 20] {
        gateway.publish("t", &content(len));
        assert!(gateway.message().1 == content(len), "{len}");
    }
    assert_eq!(server.engine.stats().counts.firetower_refused, 0);
}

#[test]
fn frames_come_in_pieces_and_several_at_once() {
    let (_server, address) = start();
    let mut gateway = GatewayPeer::connect(address);
    gateway.subscribe("t");
    for byte in frame("publish", "9", "user", "t", b"piece by piece") {
        gateway.raw(&[byte]);
    }
    assert_eq!(gateway.message().1, b"piece by piece");
    let many: Vec<u8> = (0..500).flat_map(|n| frame("publish", "", "", "t", format!("{n}").as_bytes())).collect();
    gateway.raw(&many);
    assert!((0..500).all(|n| gateway.message().1 == format!("{n}").into_bytes()));
}

#[test]
fn what_cannot_be_is_answered_counted_and_harms_nobody_else() {
    let (server, address) = start();
    let [mut peer, mut bystander] = [(); 2].map(|()| GatewayPeer::connect(address));
    bystander.subscribe("victim");
    let fields = "a field has a space or a line end in it";
    for (body, why) in [
        (&b"publish 1 user victim DATA\nx"[..], fields),
        (b"publish 1 user victim\r\nx", fields),
        (b"publish 1 user \nx", "topic is empty"),
        (b" 1 user victim\nx", "type is empty"),
        (b"publish 1 user victim", "the line of fields does not end"),
        (b"", "the line of fields does not end"),
        (b"publish 1 user \xff\nx", "a field is not UTF-8"),
    ] {
        peer.raw(&raw(body));
        assert_eq!(peer.error(), ("*".into(), why.into()));
    }
    let refused = |peer: &mut GatewayPeer, kind: &str, topic: &str| {
        peer.raw(&frame(kind, "5", "", topic, b"x"));
        peer.error()
    };
    let long = "t".repeat(256);
    for (kind, topic, about, why) in [
        ("publish", "a/#", "a/#", "A topic to publish to has no level that is + or #"),
        ("publish", "$nodes", "$nodes", "Topics that begin with $ belong to the server"),
        ("publish", &*long, "*", "A topic has at most 255 bytes"),
        ("subscribe", "+", "+", "A topic to publish to has no level that is + or #"),
        ("subscribe", "$user/1", "$user/1", "Topics that begin with $ belong to the server"),
        ("subscribe", &*long, "*", "A topic has at most 255 bytes"),
        ("unSubscribe", "\x01", "\x01", "A topic has no control characters"),
    ] {
        assert_eq!(refused(&mut peer, kind, topic), (about.into(), why.into()));
    }
    peer.raw(&frame("subscribe", "5", &"g".repeat(256), "t", b""));
    assert_eq!(peer.error(), ("t".into(), "a gateway's name has at most 255 bytes".into()));
    peer.raw(&frame("subscribe", "5", "", ",", b""));
    assert_eq!([peer.error().1, peer.error().1], ["A topic has at least one byte"; 2]);
    for (kind, message_id, source) in [(&*long, "1", ""), ("publish", &*long, ""), ("publish", "1", &*long)] {
        peer.raw(&frame(kind, message_id, source, "victim", b"x"));
        assert_eq!(peer.error(), ("*".into(), "a type, a message id and a source have at most 255 bytes each".into()));
    }
    peer.publish("victim", b"untouched");
    assert_eq!(bystander.message(), ("victim".into(), b"untouched".to_vec()), "and nothing of all that came to others");
    let counts = server.engine.stats().counts;
    assert_eq!((counts.firetower_refused, counts.invalid_payloads, counts.firetower_violations), (20, 7, 0));

    // What cannot be followed by anything ends the connection, once it is told why.
    let with_len = |len: i32| [b"FireHeader", &len.to_be_bytes()[..]].concat();
    for (bytes, why) in [
        (with_len(-1), "a FireHeader frame of negative length"),
        (with_len(i32::MIN), "a FireHeader frame of negative length"),
        (with_len(i32::MAX), "a FireHeader frame that is too long"),
        (with_len(10_485_761), "a FireHeader frame that is too long"),
        (b"FireHeadex".to_vec(), "not a FireHeader frame"),
        (b"garbage".to_vec(), "not a FireHeader frame"),
        ([frame("heartbeat", "0", "system", "*", b"heartbeat"), b"GET / HTTP/1.1\r\n".to_vec()].concat(), "not a FireHeader frame"),
    ] {
        let mut wrong = GatewayPeer::connect(address);
        wrong.raw(&bytes);
        assert_eq!(wrong.error(), ("*".into(), why.into()));
        assert_eq!(wrong.frame(), None);
        assert_eq!(close_reason(&server), CloseReason::BrokenStream);
    }
    server.until("all counted, nothing kept", |stats| stats.counts.firetower_violations == 7 && stats.memory.input == 0);
    peer.publish("victim", b"still here");
    assert_eq!(bystander.message().1, b"still here");
}

#[test]
fn everybody_leaves_a_topic_when_it_is_taken_offline() {
    let (server, address) = start();
    let [mut gateway, mut platform] = [(); 2].map(|()| GatewayPeer::connect(address));
    gateway.subscribe("room");
    let mut clients = ["1", "2", "1", ""].map(|user| client(&server, user, "room"));
    let mut node = server.register("a node");
    node.send(9, 0, r#"{"filter":"room"}"#);
    assert_eq!(node.frame().frame_type, 9);
    platform.raw(&frame("offline_topic", "8", "platform", "room", b"anything"));
    while let Some((kind, id, source, ..)) = gateway.frame() {
        if kind != "publish" {
            assert_eq!((&*kind, &*id, &*source), ("offline_topic", "8", "platform"), "gateways are told as well");
            break;
        }
    }
    server.until("all four have left", |stats| stats.counts.firetower_orders == 4);
    // The gateway, and the node: it speaks another language and has not been told.
    assert_eq!(server.engine.publish("room", b"\"later\"", &[]).unwrap().reach, 2);
    for peer in &mut clients {
        peer.say(r#"{"type":"subscribe","topic":"after"}"#);
        server.until("it is there", |_| server.engine.subscribers("after").unwrap() == 1);
        server.engine.publish("after", b"\"end\"", &[]).unwrap();
        loop {
            let heard = text(peer);
            assert!(!heard.contains("later"), "it has left");
            if heard == "\"end\"" {
                break;
            }
        }
        peer.say(r#"{"type":"unSubscribe","topic":"after"}"#);
        server.until("nobody is left there", |_| server.engine.subscribers("after").unwrap() == 0);
    }
}

#[test]
fn a_user_leaves_a_topic_with_all_connections_and_nobody_else_does() {
    let (server, address) = start_with(ServerConfig { io_threads: 2, ..config() });
    let mut platform = GatewayPeer::connect(address);
    let mut gateway = GatewayPeer::connect(address);
    gateway.subscribe("room");
    // Whoever says who it is, says it as it is written in an address.
    let mut users: Vec<_> = (0..6).map(|n| client(&server, if n % 2 == 0 { "%C3%A9%2042" } else { "7" }, "room,other")).collect();
    platform.raw(&frame("offline_topic_by_userid", "1", "system", "room", "é 42".as_bytes()));
    for peer in users.iter_mut().step_by(2) {
        while text(peer) != "{}" {}
    }
    server.until("three have left", |stats| stats.counts.firetower_orders == 3);
    assert_eq!(server.engine.publish("room", b"\"room\"", &[]).unwrap().reach, 4, "three of the other user, and the gateway");
    assert_eq!(server.engine.publish("other", b"\"other\"", &[]).unwrap().reach, 6);
    for (n, peer) in users.iter_mut().enumerate() {
        let expected: &[&str] = if n % 2 == 0 { &["\"other\""] } else { &["\"room\"", "\"other\""] };
        for expected in expected {
            loop {
                let got = text(peer);
                assert!(got == *expected || !got.contains("room") && !got.contains("other"), "{n}: {got} instead of {expected}");
                if got == *expected {
                    break;
                }
            }
        }
    }
    loop {
        let (kind, .., content) = gateway.frame().unwrap();
        if kind == "offline_topic_by_userid" {
            assert_eq!(content, "é 42".as_bytes());
            break;
        }
    }
}

#[test]
fn all_connections_of_a_user_that_are_in_a_topic_are_closed_or_wherever_they_are() {
    let (server, address) = start_with(ServerConfig { io_threads: 2, ..config() });
    let mut platform = GatewayPeer::connect(address);
    let mut in_room: Vec<_> = (0..4).map(|_| client(&server, "42", "room")).collect();
    let mut elsewhere = client(&server, "42", "elsewhere");
    let mut other = client(&server, "43", "room");
    platform.raw(&frame("offline_user", "1", "system", "room", b"42"));
    for peer in &mut in_room {
        while peer.frame().is_some() {}
    }
    server.until("four have gone", |stats| stats.counts.firetower_orders == 4 && stats.connections_active == 3);
    platform.raw(&frame("offline_user", "2", "system", "*", b"42"));
    while elsewhere.frame().is_some() {}
    server.until("that one too", |stats| stats.counts.firetower_orders == 5 && stats.connections_active == 2);
    while text(&mut other) != r#"{"type":"onUnsubscribe","data":1}"# {}
    // Nothing is stuck: the next of them is served as the first was.
    let mut back = client(&server, "42", "room");
    platform.raw(&frame("offline_user", "3", "system", "room", b"42"));
    while back.frame().is_some() {}
}

#[test]
fn what_gateways_alone_know_is_handed_on_to_those_in_the_topic() {
    let (server, address) = start();
    let [mut gateway, mut platform] = [(); 2].map(|()| GatewayPeer::connect(address));
    gateway.subscribe("t");
    let mut node = server.register("a node");
    node.send(9, 0, r#"{"filter":"t"}"#);
    assert_eq!(node.frame().frame_type, 9);
    platform.raw(&frame("own_command", "3", "platform", "t", b"content"));
    let expected = ("own_command".into(), "3".into(), "platform".into(), "t".into(), b"content".to_vec());
    assert_eq!(gateway.frame(), Some(expected));
    platform.publish("t", b"behind it");
    assert_eq!(node.frame().frame_type, 12, "the publication is the first that the node hears");
    // What only a manager says is not for others.
    for kind in ["error", "onSubscribe", "heartbeat"] {
        platform.raw(&frame(kind, "3", "", "t", b"x"));
    }
    platform.publish("t", b"last");
    assert_eq!([gateway.message().1, gateway.message().1], [b"behind it".to_vec(), b"last".to_vec()]);
}

#[test]
fn more_subscriptions_than_a_gateway_may_have_are_refused_and_very_many_are_done_in_turns() {
    let (server, address) = start_with(ServerConfig { firetower_max_subscriptions: 20_000, ..config() });
    let mut node = server.register("bystander");
    let mut gateway = GatewayPeer::connect(address);
    let names: Vec<String> = (0..25_000).map(|n| format!("t{n}")).collect();
    gateway.raw(&frame("subscribe", "", "", &names.join(","), b""));
    for n in 0..25_000 {
        let (kind, _, _, topic, content) = gateway.frame().unwrap();
        assert_eq!((&*kind, topic), (if n < 20_000 { "onSubscribe" } else { "error" }, format!("t{n}")));
        assert!(n < 20_000 || content == b"Too many subscriptions on this connection");
    }
    let stats = server.engine.stats();
    assert_eq!((stats.subscriptions_active, stats.counts.subscribes_refused), (20_000, 5_000));
    node.send(1, 0, "");
    assert_eq!(node.frame().frame_type, 2);
    gateway.unsubscribe("t0");
    assert_eq!(gateway.subscribe("one-more"), 1);
    drop(gateway);
    server.until("none is left", |stats| stats.subscriptions_active == 0 && stats.memory.input == 0 && stats.memory.topics == 0);
}

#[test]
fn a_gateway_that_takes_nothing_has_to_go_and_others_get_theirs() {
    let timeout = Duration::from_millis(300);
    let (server, address) = start_with(ServerConfig { outbox_bytes: 64 << 10, slow_consumer_timeout: timeout, ..config() });
    let [mut slow, mut quick] = [(); 2].map(|()| GatewayPeer::connect(address));
    slow.subscribe("t");
    quick.subscribe("t");
    // Two of them fit: what the quick one has read already may be counted as waiting for a moment longer.
    let content = vec![b'x'; 30_000];
    let deadline = support::deadline();
    while server.engine.stats().counts.slow_consumers == 0 {
        assert!(Instant::now() < deadline, "it stays for ever");
        // Refused while too much of what was published before is still on its way.
        if server.engine.publish("t", &content, &[]).is_ok() {
            assert!(quick.message().1 == content);
        }
    }
    server.until("it is gone", |stats| stats.subscriptions_active == 1);
    drop(slow);
}

#[test]
fn a_gateway_may_be_silent_and_hears_heartbeats() {
    let (server, address) = start_with(ServerConfig {
        register_timeout: Duration::from_millis(200),
        heartbeat_timeout: Duration::from_millis(400),
        ..config()
    });
    let mut gateway = GatewayPeer::connect(address);
    // Ten seconds, as Firetower's manager has it.
    let heartbeat = ("heartbeat".into(), "0".into(), "system".into(), "*".into(), b"heartbeat".to_vec());
    assert_eq!(gateway.any_frame(), Some(heartbeat));
    gateway.subscribe("t");
    let counts = server.engine.stats().counts;
    assert_eq!((counts.register_timeouts, counts.connections_closed), (0, 0));
}

#[test]
fn one_port_is_for_all_where_it_is_told_so_and_the_first_bytes_tell_who_is_who() {
    let main = ServerConfig { firetower: ProtocolDoor::MainPort, websocket: ProtocolDoor::MainPort, ..ServerConfig::default() };
    let (server, address) = start_with(main);
    assert_eq!((address, server.engine.websocket_addr()), (server.engine.local_addr(), Some(address)));
    let mut gateway = GatewayPeer::connect(address);
    for byte in frame("subscribe", "77", "", "t", b"") {
        gateway.raw(&[byte]);
    }
    assert_eq!(gateway.frame().unwrap().0, "onSubscribe");
    let _node = server.register("a node");
    let mut browser = client(&server, "", "t");
    browser.say(r#"{"type":"publish","topic":"t","data":1}"#);
    assert_eq!([gateway.message().1, gateway.message().1], [br#"{"type":"onSubscribe","data":2}"#.to_vec(), b"1".to_vec()]);
    // What merely begins like it is none, but HTTP's business here.
    let mut wrong = WebSocketPeer::ask(address, "FireHeat / HTTP/1.1\r\n\r\n");
    assert!(wrong.status() == 405 && wrong.body().contains("GET"), "{}", wrong.head);
    // Where it is not let in it is no more than a wrong frame.
    let closed = Fixture::start(ServerConfig::default());
    assert_eq!(closed.engine.firetower_addr(), None);
    let mut peer = closed.connect();
    peer.raw(&frame("publish", "1", "user", "t", b"x"));
    let answer = peer.frame();
    assert!(answer.frame_type == 8 && answer.text().contains("Invalid message magic: 0x4669"), "{}", answer.text());
}

#[test]
fn a_full_or_stopping_server_says_so_in_words_of_the_door() {
    let (server, address) = start_with(ServerConfig { max_connections: 1, ..config() });
    let _first = GatewayPeer::connect(address);
    // Threads accept side by side, and the second might overtake it.
    server.until("the first is in", |stats| stats.connections_active == 1);
    let mut second = GatewayPeer::connect(address);
    assert_eq!(second.error().1, "Server is full or connection limit reached");
    assert_eq!(second.frame(), None);
    let wrong = |address: &str| start_error(ServerConfig { firetower: ProtocolDoor::At(address.into()), ..ServerConfig::default() });
    assert!(wrong("nonsense").to_string().contains("firetower"), "{}", wrong("nonsense"));
    assert!(wrong(&address.to_string()).to_string().contains("Cannot listen on"));
}

#[test]
fn a_stranger_that_knows_a_gateways_name_does_not_take_its_place_while_it_is_here() {
    let (server, address) = start();
    let from = |host: [u8; 4]| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((host, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        GatewayPeer::over(socket.into())
    };
    let mut here = from([127, 0, 0, 1]);
    assert_eq!(here.announce("subscribe", "gw-1", "t"), 1);
    let mut stranger = from([127, 0, 0, 2]);
    stranger.raw(&frame("subscribe", "9", "gw-1", "t", b""));
    assert_eq!(stranger.error().1, "a gateway of that name is here, from another address");
    assert_eq!(stranger.frame(), None);
    assert_eq!(close_reason(&server), CloseReason::NotAllowed);
    server.engine.publish("t", b"still here", &[]).unwrap();
    assert_eq!(here.message().1, b"still here");
    // Once it has gone the name is free.
    drop(here);
    server.until("it has gone", |stats| stats.connections_active == 0);
    assert_eq!(from([127, 0, 0, 2]).announce("subscribe", "gw-1", "t"), 1);
}

#[test]
fn who_only_begins_like_a_gateway_at_the_main_port_has_no_more_time_than_others() {
    let register_timeout = Duration::from_secs(2);
    let (server, address) = start_with(ServerConfig { firetower: ProtocolDoor::MainPort, register_timeout, ..ServerConfig::default() });
    let mut gateway = GatewayPeer::connect(address);
    assert_eq!(gateway.subscribe("t"), 1);
    let mut begins = GatewayPeer::connect(address);
    begins.raw(b"FireHead");
    assert_eq!(begins.error().1, "no frame came in time");
    assert_eq!(begins.frame(), None);
    assert_eq!(close_reason(&server), CloseReason::RegisterTimeout);
    assert_eq!(gateway.subscribe("t"), 2, "whoever has said something stays");
    assert_eq!(server.engine.stats().counts.register_timeouts, 1);
}

#[test]
fn what_browsers_and_gateways_publish_waits_for_a_host_without_room_and_is_heard_once() {
    let limits = InboxLimits { events: 4, ..InboxLimits::default() };
    let server = Fixture::start_with(config(), limits, EventMask::MESSAGE);
    server.engine.subscribe("in").unwrap();
    let mut browser = client(&server, "", "other");
    let mut gateway = GatewayPeer::connect(server.engine.firetower_addr().unwrap());
    let mut paused = 0;
    for is_browser in [true, false] {
        for n in 0..50 {
            match is_browser {
                true => browser.say(&format!(r#"{{"type":"publish","topic":"in","data":{n}}}"#)),
                false => gateway.publish("in", n.to_string().as_bytes()),
            }
        }
        server.until("reading stops", |stats| stats.counts.reads_paused_by_host > paused);
        assert_eq!(server.inbox.stats().queued_events, 4);
        for n in 0..50 {
            let Event::Message { message } = server.event() else { panic!() };
            assert_eq!(message.payload, n.to_string().as_bytes());
        }
        paused = server.engine.stats().counts.reads_paused_by_host;
    }
    assert_eq!(gateway.subscribe("behind-all-that"), 1);
    assert_eq!((server.engine.stats().counts.publish_refused, server.engine.stats().memory.input), (0, 0));
}
