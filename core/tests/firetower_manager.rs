//! A server of ours as a gateway of an old manager of Firetower's, and of another server of ours.

#[path = "firetower/peer.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod gateway;
#[path = "firetower/old_manager.rs"]
mod old_manager;
#[path = "websocket/peer.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod peer;
mod support;

use gateway::{GatewayPeer, frame};
use heartbus_core::engine::Stats;
use heartbus_core::settings::{ManagerDoor, ProtocolDoor, RateLimit, RateLimitBy, ServerConfig};
use old_manager::OldManager;
use peer::{WebSocketPeer, request};
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{Fixture, Peer, deadline, hold_port, start_error};

fn door() -> ProtocolDoor {
    ProtocolDoor::At("127.0.0.1:0".into())
}

fn gateway_of(manager: &OldManager) -> ServerConfig {
    ServerConfig {
        firetower: door(),
        websocket: door(),
        firetower_conventions: true,
        firetower_manager: Some(manager.frames.to_string()),
        firetower_manager_grpc: ManagerDoor::At(manager.grpc.to_string()),
        ..ServerConfig::default()
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = deadline();
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn browser(server: &Fixture, topic: &str) -> WebSocketPeer {
    let mut peer = WebSocketPeer::ask(server.engine.websocket_addr().unwrap(), &request("/ws?user_id=42", ""));
    peer.say(&format!(r#"{{"type":"subscribe","topic":"{topic}","data":""}}"#));
    peer
}

/// The next text but for counts.
fn text(peer: &mut WebSocketPeer) -> String {
    loop {
        let (_, text) = peer.frame().expect("a text");
        let text = String::from_utf8(text).unwrap();
        if !text.contains("ubscribe\"") {
            return text;
        }
    }
}

#[test]
fn subscriptions_are_announced_as_often_as_there_are_and_publications_go_and_come_once() {
    let manager = OldManager::start();
    let server = Fixture::start(gateway_of(&manager));
    let [mut ann, mut bob] = [(); 2].map(|()| browser(&server, "room"));
    until("two are announced", || manager.count("room") == 2);
    // Another gateway, that of old.
    let mut other = GatewayPeer::connect(manager.frames);
    let key = ("room".to_owned(), other.stream.local_addr().unwrap().to_string());
    until("it is there", || manager.state.lock().unwrap().gateways.contains_key(&key.1));
    manager.state.lock().unwrap().counts.insert(key, 1);

    ann.say(r#"{"type":"publish","topic":"room","data":"from ann"}"#);
    loop {
        let (topic, content) = other.message();
        assert_eq!(topic, "room");
        if content == b"\"from ann\"" {
            break;
        }
    }
    other.publish("room", b"\"from the other\"");
    for peer in [&mut ann, &mut bob] {
        assert_eq!([text(peer), text(peer)], ["\"from ann\"", "\"from the other\""]);
    }
    assert_eq!(other.message().1, b"\"from the other\"");
    server.engine.publish("nobody", b"is told as well", &[]).unwrap();
    server.engine.publish("room", b"\"last\"", &[]).unwrap();
    assert_eq!([text(&mut ann), text(&mut bob)], ["\"last\"", "\"last\""], "nothing came twice");
    let (_, id, source, _, content) = other.frame().unwrap();
    assert_eq!((id.len(), &*source, &content[..]), (24, "platform", &b"\"last\""[..]));
    drop(bob);
    until("one has gone", || manager.count("room") == 2);
    ann.say(r#"{"type":"unSubscribe","topic":"room"}"#);
    until("nobody is left", || manager.count("room") == 1);
    server.until("its own came back to it", |stats| stats.counts.firetower_loops >= 2 && stats.counts.manager_dropped == 0);
    let frames = manager.state.lock().unwrap().frames.concat();
    assert!(String::from_utf8_lossy(&frames).contains("platform nobody\nis told as well"));
}

#[test]
fn a_manager_that_comes_back_is_told_everything_again() {
    let manager = OldManager::start();
    let server = Fixture::start(gateway_of(&manager));
    let mut node = server.register("a node");
    for topic in ["one", "two", "+/wild"] {
        node.send(9, 0, &format!(r#"{{"filter":"{topic}"}}"#));
        assert_eq!(node.frame().frame_type, 9);
    }
    let mut gateway = GatewayPeer::connect(server.engine.firetower_addr().unwrap());
    assert_eq!([(); 3].map(|()| gateway.subscribe("one")), [2, 3, 4]);
    until("all are announced", || manager.count("one") == 4 && manager.count("two") == 1);
    manager.hang_up();
    until("they are again", || manager.count("one") == 4 && manager.count("two") == 1);
    gateway.unsubscribe("one");
    until("from where it was", || manager.count("one") == 3);
    manager.relay(&frame("publish", "1", "platform", "two", b"behind all that"));
    loop {
        let got = node.frame();
        if got.frame_type == 12 && got.text().contains("behind all that") {
            break;
        }
    }
    let counts = server.engine.stats().counts;
    assert!(counts.manager_connects >= 2, "{}", counts.manager_connects);
    assert_eq!(manager.state.lock().unwrap().counts.len(), 2, "a filter cannot be announced");
    // A gateway that stops takes all with it.
    server.engine.stop();
    until("nothing is left", || manager.state.lock().unwrap().counts.is_empty());
}

#[test]
fn very_many_topics_are_announced_in_parts_and_those_that_are_gone_are_not_announced_again() {
    let manager = OldManager::start();
    let server = Fixture::start(gateway_of(&manager));
    let mut gateway = GatewayPeer::connect(server.engine.firetower_addr().unwrap());
    let names: Vec<String> = (0..10_000).map(|n| format!("t{n}")).collect();
    gateway.raw(&frame("subscribe", "", "", &names.join(","), b""));
    (0..names.len()).for_each(|_| drop(gateway.frame()));
    let announced = || manager.state.lock().unwrap().counts.len();
    until("all of them", || announced() == 10_000);
    gateway.unsubscribe("t7");
    until("all but one", || announced() == 9_999);
    manager.hang_up();
    gateway.unsubscribe("t8");
    until("all but two", || announced() == 9_998 && manager.count("t7") == 0 && manager.count("t8") == 0 && manager.count("t9") == 1);
    drop(gateway);
    until("none", || announced() == 0);
    server.until("nothing is kept of them", |stats| stats.memory.topics == 0);
}

#[test]
fn offline_commands_reach_browsers_here_whoever_gives_them_and_gateways_there() {
    let manager = OldManager::start();
    let server = Fixture::start(gateway_of(&manager));
    let [mut one, mut other] = [(); 2].map(|()| browser(&server, "room"));
    until("two are announced", || manager.count("room") == 2);
    manager.relay(&frame("offline_topic_by_userid", "1", "platform", "room", b"42"));
    assert_eq!([text(&mut one), text(&mut other)], ["{}", "{}"]);
    until("nobody is left", || manager.count("room") == 0);
    let mut here = GatewayPeer::connect(server.engine.firetower_addr().unwrap());
    let mut back = browser(&server, "hall");
    until("one is announced", || manager.count("hall") == 1);
    here.raw(&frame("offline_user", "2", "platform", "hall", b"42"));
    while back.frame().is_some() {}
    until("the manager was told", || {
        let frames = manager.state.lock().unwrap().frames.concat();
        String::from_utf8_lossy(&frames).contains("platform hall\n42")
    });
}

fn in_frames(own: ProtocolDoor, manager: SocketAddr) -> ServerConfig {
    ServerConfig {
        firetower: own,
        firetower_manager: Some(manager.to_string()),
        firetower_manager_grpc: ManagerDoor::Frames,
        ..ServerConfig::default()
    }
}

/// A node that has subscribed.
fn listener(server: &Fixture, topic: &str) -> Peer {
    let mut node = server.register("a node");
    node.send(9, 0, &format!(r#"{{"filter":"{topic}"}}"#));
    assert_eq!(node.frame().frame_type, 9);
    node
}

/// What a node hears up to some word, each as its text.
fn heard(node: &mut Peer, last: &str) -> usize {
    let mut count = 1;
    while !node.frame().text().contains(last) {
        count += 1;
    }
    count
}

#[test]
fn another_server_of_ours_is_told_in_frames_and_takes_a_new_connection_for_the_old_one() {
    let manager = Fixture::start(ServerConfig { firetower: door(), ..ServerConfig::default() });
    let server = Fixture::start(in_frames(ProtocolDoor::None, manager.engine.firetower_addr().unwrap()));
    let (mut here, mut there) = (listener(&server, "room"), listener(&manager, "room"));
    until("the other knows of it", || manager.engine.subscribers("room").unwrap() == 2);
    for n in 0..20 {
        server.engine.publish("room", format!("here {n}").as_bytes(), &[]).unwrap();
        manager.engine.publish("room", format!("there {n}").as_bytes(), &[]).unwrap();
    }
    let is_own = |stats: &Stats| stats.counts.firetower_loops == 20;
    server.until("its own came back and was passed over", is_own);
    server.engine.publish("room", b"last", &[]).unwrap();
    assert_eq!([heard(&mut here, "last"), heard(&mut there, "last")], [41, 41], "each once");
    server.engine.stop();
    until("nothing is left of it", || manager.engine.subscribers("room").unwrap() == 1);
}

#[test]
fn what_another_server_refuses_is_announced_again_and_taken_once_there_is_room() {
    let manager = Fixture::start(ServerConfig { firetower: door(), firetower_max_subscriptions: 2, ..ServerConfig::default() });
    let server = Fixture::start(in_frames(ProtocolDoor::None, manager.engine.firetower_addr().unwrap()));
    let mut node = listener(&server, "a");
    let is_there = |topic: &str| manager.engine.subscribers(topic).unwrap() == 1;
    until("it is announced", || is_there("a"));
    for topic in ["b", "c"] {
        node.send(9, 0, &format!(r#"{{"filter":"{topic}"}}"#));
        assert_eq!(node.frame().frame_type, 9);
    }
    manager.until("one is refused", |stats| stats.counts.firetower_refused >= 1 && stats.subscriptions_active == 2);
    node.send(10, 0, r#"{"filter":"a"}"#);
    assert_eq!(node.frame().frame_type, 10);
    until("it has the place of the one that has gone", || is_there("b") && is_there("c") && !is_there("a"));
    assert_eq!(server.engine.stats().counts.manager_connects, 1);
}

#[test]
fn what_is_announced_beyond_a_rate_limit_is_there_with_the_next_connection() {
    let rate_limit = Some(RateLimit { capacity: 1, refill_per_second: 0.0, by: RateLimitBy::Connection });
    let manager = Fixture::start(ServerConfig { firetower: door(), rate_limit, ..ServerConfig::default() });
    let server = Fixture::start(in_frames(ProtocolDoor::None, manager.engine.firetower_addr().unwrap()));
    let mut node = listener(&server, "a");
    let is_there = |topic: &str| manager.engine.subscribers(topic).unwrap() == 1;
    until("it is announced", || is_there("a"));
    node.send(9, 0, r#"{"filter":"b"}"#);
    assert_eq!(node.frame().frame_type, 9);
    until("both are", || is_there("a") && is_there("b"));
}

#[test]
fn a_topic_that_cannot_be_told_is_counted_and_keeps_no_other_from_being_told() {
    let manager = Fixture::start(ServerConfig { firetower: door(), ..ServerConfig::default() });
    let server = Fixture::start(in_frames(ProtocolDoor::None, manager.engine.firetower_addr().unwrap()));
    let mut node = listener(&server, "x,y");
    server.until("it counts", |stats| stats.counts.manager_dropped == 1);
    node.send(9, 0, r#"{"filter":"b"}"#);
    assert_eq!(node.frame().frame_type, 9);
    until("the other is there", || manager.engine.subscribers("b").unwrap() == 1);
    assert_eq!(manager.engine.stats().subscriptions_active, 1);
}

#[test]
fn in_a_circle_of_servers_nothing_goes_around_and_nothing_comes_twice() {
    let [port_a, port_b] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let [_held_a, _held_b] = [port_a, port_b].map(hold_port);
    let at = |own: SocketAddr| ProtocolDoor::At(own.to_string());
    let (a, b) = (Fixture::start(in_frames(at(port_a), port_b)), Fixture::start(in_frames(at(port_b), port_a)));
    let mut node = listener(&a, "room");
    b.until("the announcement is refused", |stats| stats.counts.firetower_refused >= 1);
    assert_eq!(b.engine.subscribers("room").unwrap(), 0);
    for n in 0..20 {
        b.engine.publish("room", format!("{n}").as_bytes(), &[]).unwrap();
        a.engine.publish("room", b"own", &[]).unwrap();
    }
    b.engine.publish("room", b"last", &[]).unwrap();
    assert_eq!(heard(&mut node, "last"), 41);
    // Each has published its own and the other's.
    let published = || a.engine.stats().counts.published + b.engine.stats().counts.published;
    until("all have come", || published() == 82);
}

#[test]
fn a_manager_that_is_not_there_costs_nothing_but_attempts_and_a_bounded_queue() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _held = hold_port(nobody);
    let config = ServerConfig {
        firetower_manager: Some(nobody.to_string()),
        outbox_bytes: 10_000,
        firetower_manager_grpc: ManagerDoor::Frames,
        ..ServerConfig::default()
    };
    let server = Fixture::start(config);
    let mut node = server.register("a node");
    node.send(9, 0, r#"{"filter":"room"}"#);
    assert_eq!(node.frame().frame_type, 9);
    for _ in 0..100 {
        server.engine.publish("room", &[b'x'; 500], &[]).unwrap();
        assert_eq!(node.frame().frame_type, 12);
    }
    let counts = server.engine.stats().counts;
    assert!((70..100).contains(&counts.manager_dropped) && counts.manager_connects == 0, "{}", counts.manager_dropped);
    // What waited is sent to the first who listens there, in order, and the rest is lost.
    let manager = TcpListener::bind(nobody).unwrap();
    let (mut stream, _) = manager.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut received, mut buffer): (Vec<u8>, _) = (Vec::new(), [0; 4096]);
    while received.windows(9).filter(|bytes| bytes == b"\nxxxxxxxx").count() < 100 - counts.manager_dropped as usize {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0);
        received.extend(&buffer[..count]);
    }
    let stopping = Instant::now();
    server.engine.stop();
    assert!(stopping.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_manager_that_sends_what_cannot_be_or_refuses_subscriptions_is_left_and_asked_again() {
    let manager = OldManager::start();
    manager.state.lock().unwrap().refuses = true;
    let server = Fixture::start(gateway_of(&manager));
    let _browser = browser(&server, "room");
    server.until("it tries again", |stats| stats.counts.manager_connects >= 2);
    manager.state.lock().unwrap().refuses = false;
    manager.hang_up();
    until("it is announced", || manager.count("room") == 1);
    let connects = server.engine.stats().counts.manager_connects;
    for (_, mut gateway) in std::mem::take(&mut manager.state.lock().unwrap().gateways) {
        std::io::Write::write_all(&mut gateway, b"FireHeader\xff\xff\xff\xffgarbage").unwrap();
    }
    server.until("that is counted, and it connects again", |stats| {
        stats.counts.firetower_violations == 1 && stats.counts.manager_connects > connects
    });
    until("everything is announced again", || manager.count("room") >= 1);
}

/// The original, where `HEARTBUS_FIRETOWER_MANAGER` names a program that starts one with the addresses of its two ports.
#[test]
fn the_original_manager_relays_between_two_of_our_servers_and_after_it_was_killed_as_well() {
    let Some(program) = std::env::var_os("HEARTBUS_FIRETOWER_MANAGER") else {
        eprintln!("skipped: HEARTBUS_FIRETOWER_MANAGER is not set");
        return;
    };
    let [frames, grpc] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let start = || {
        let mut command = std::process::Command::new(&program);
        command.args([frames.to_string(), grpc.to_string()]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let config = || ServerConfig {
        firetower_manager: Some(frames.to_string()),
        firetower_manager_grpc: ManagerDoor::At(grpc.to_string()),
        ..ServerConfig::default()
    };
    let (a, b) = (Fixture::start(config()), Fixture::start(config()));
    let mut nodes = [listener(&a, "room"), listener(&b, "room")];
    let mut connects = 0;
    for round in 0..2 {
        let mut manager = start();
        for server in [&a, &b] {
            server.until("it is connected", |stats| stats.counts.manager_connects > connects);
        }
        connects = a.engine.stats().counts.manager_connects.min(b.engine.stats().counts.manager_connects);
        // That it was told of subscriptions is seen by what it relays.
        let marker = format!("begin {round}");
        let until = deadline();
        let begun = |node: &mut Peer, from: &Fixture| {
            node.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            while node.stream.peek(&mut [0]).is_err() {
                assert!(Instant::now() < until, "nothing is relayed");
                from.engine.publish("room", marker.as_bytes(), &[]).unwrap();
            }
            node.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        };
        begun(&mut nodes[1], &a);
        begun(&mut nodes[0], &b);
        for n in 0..50 {
            a.engine.publish("room", format!("{round}: a {n}").as_bytes(), &[]).unwrap();
            b.engine.publish("room", format!("{round}: b {n}").as_bytes(), &[]).unwrap();
        }
        for node in &mut nodes {
            let mut got = Vec::new();
            while got.len() < 100 {
                let text = node.frame().text();
                if text.contains(&format!("{round}: ")) {
                    assert!(!got.contains(&text), "twice: {text}");
                    got.push(text);
                }
            }
        }
        manager.kill().unwrap();
        manager.wait().unwrap();
    }
}

#[test]
fn a_place_that_is_none_is_refused_by_its_key() {
    let refused = |address: &str, grpc| {
        let config = ServerConfig { firetower_manager: Some(address.into()), firetower_manager_grpc: grpc, ..ServerConfig::default() };
        start_error(config).to_string()
    };
    assert_eq!(refused("localhost", ManagerDoor::NextPort), "firetower_manager must be host:port");
    assert_eq!(refused("localhost:65535", ManagerDoor::NextPort), "firetower_manager must be host:port");
    assert!(refused("localhost:6666", ManagerDoor::At("6667".into())).starts_with("firetower_manager_grpc must be host:port"));
}
