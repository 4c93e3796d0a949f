//! Every request and its refusal, and what becomes of answers.

use crate::house::*;
use crate::support::deadline;
use heartbus_core::bus::{Bus, Reply, Request};
use heartbus_core::engine::Engine;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::Event;
use heartbus_core::inbox::Inbox;
use heartbus_core::settings::InboxLimits;
use heartbus_core::wire::bus::{self as wire, RequestFrame, Response, Role};
use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

#[test]
fn a_message_reaches_a_node_on_its_main_channel_or_on_one_of_its_own() {
    let house = House::in_process();
    let mut peer = house.register("n");
    let mut bus = house.bus();
    let channel = bus.node("n").unwrap().unwrap().channel_id;
    bus.send_to("n", b"one", 0).unwrap();
    bus.send_to("n", b"two", channel).unwrap();
    assert_eq!([peer.frame().text(), peer.frame().text()], ["one", "two"]);
    assert_eq!(kind(bus.send_to("nobody", b"x", 0)), ErrorKind::NotFound);
    assert_eq!(kind(bus.send_to("n", b"x", channel + 1)), ErrorKind::NotFound);
    assert_eq!(kind(bus.send_to("n", b"\xff", 0)), ErrorKind::InvalidArgument);
    let long = vec![b'x'; 11 << 20];
    assert_eq!(kind(bus.send_to("n", &long, 0)), ErrorKind::Limit);
    bus.send_to("n", b"three", 0).unwrap();
    assert_eq!(peer.frame().text(), "three");
}

#[test]
fn a_message_to_many_says_how_many_it_reached() {
    let house = House::in_process();
    let mut peers = [house.register("a"), house.register("b"), house.register("c")];
    let mut bus = house.bus();
    assert_eq!(bus.send_many(&["a", "nobody", "c"], b"some").unwrap(), 2);
    assert_eq!(bus.send_many(&["nobody"; 100], b"x").unwrap(), 0);
    assert_eq!(bus.send_many(&[], b"x").unwrap(), 0);
    assert_eq!(bus.broadcast(b"all").unwrap(), 3);
    assert_eq!(kind(bus.send_many(&["a", "b"], b"\xff")), ErrorKind::InvalidArgument);
    assert_eq!(kind(bus.broadcast(b"\xff")), ErrorKind::InvalidArgument);
    assert_eq!([peers[0].frame().text(), peers[0].frame().text()], ["some", "all"]);
    assert_eq!(peers[1].frame().text(), "all");
    assert_eq!([peers[2].frame().text(), peers[2].frame().text()], ["some", "all"]);
}

#[test]
fn a_node_is_found_by_id_channel_and_connection() {
    let house = House::in_process();
    let _peer = house.register("n");
    let live = house.engine.node("n").unwrap().info(house.engine.now());
    let mut bus = house.bus();
    let found = bus.node("n").unwrap().unwrap();
    assert_eq!((&found.id, found.peer, &found.metadata, found.online), (&live.id, live.peer, &live.metadata, true));
    assert_eq!(bus.node_of_channel(live.channel_id).unwrap().unwrap().id, live.id);
    assert_eq!(bus.node_of_connection(live.connection_id).unwrap().unwrap().id, live.id);
    assert_eq!(bus.node("nobody").unwrap(), None);
    assert_eq!(bus.node_of_channel(live.channel_id + 1).unwrap(), None);
    assert_eq!(bus.node_of_connection(live.connection_id + 1).unwrap(), None);
}

#[test]
fn a_node_can_be_kept_alive_and_disconnected() {
    let house = House::in_process();
    let mut peer = house.register("n");
    let mut bus = house.bus();
    bus.keep_alive("n").unwrap();
    bus.disconnect("n").unwrap();
    peer.skip_until_end();
    assert_eq!(kind(bus.keep_alive("n")), ErrorKind::NotFound);
    assert_eq!(kind(bus.disconnect("n")), ErrorKind::NotFound);
}

#[test]
fn pages_hold_every_node_once_and_only_those_that_fit_the_filter() {
    let house = House::in_process();
    let mut gateway = house.connect();
    for number in 0..700 {
        gateway.send(6, 0, &format!(r#"{{"node_id":"{}-{number}"}}"#, if number % 7 == 0 { "lamp" } else { "door" }));
    }
    house.until("the nodes", |stats| stats.nodes_online == 700);
    let mut bus = house.bus();
    let mut all = |limit: u32, pattern: Option<&str>, ip: Option<&str>| {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let (nodes, next) = bus.page(after, limit, pattern, ip.map(|ip| ip.parse().unwrap())).unwrap();
            assert!(nodes.len() <= limit as usize);
            ids.extend(nodes.into_iter().map(|node| node.id.to_string()));
            after = next;
            if after.is_none() {
                ids.sort();
                let before = ids.len();
                ids.dedup();
                assert_eq!(ids.len(), before, "a node came twice");
                return before;
            }
        }
    };
    assert_eq!(all(33, None, None), 700);
    assert_eq!(all(10_000, None, None), 700);
    assert_eq!(all(7, Some("lamp-*"), None), 100);
    assert_eq!(all(100, Some("lamp-?"), None), 2);
    assert_eq!(all(100, Some("nothing"), None), 0);
    assert_eq!(all(300, None, Some("127.0.0.1")), 700);
    assert_eq!(all(300, None, Some("::ffff:127.0.0.1")), 700);
    assert_eq!(all(300, None, Some("127.0.0.2")), 0);
    assert_eq!(all(300, Some("door-1?"), Some("127.0.0.1")), 9);
}

#[test]
fn long_metadata_makes_shorter_pages() {
    let house = House::in_process();
    let mut gateway = house.connect();
    let text = "x".repeat(60_000);
    for number in 0..40 {
        gateway.send(6, 0, &format!(r#"{{"node_id":"{number}","metadata":{{"text":"{text}"}}}}"#));
    }
    house.until("the nodes", |stats| stats.nodes_online == 40);
    let mut bus = house.bus();
    let (first, next) = bus.page(None, 100, None, None).unwrap();
    assert!(next.is_some() && (1..40).contains(&first.len()), "{} nodes", first.len());
    let (mut count, mut after) = (first.len(), next);
    while let Some(place) = after {
        let (nodes, next) = bus.page(Some(place), 100, None, None).unwrap();
        count += nodes.len();
        after = next;
    }
    assert_eq!(count, 40);
}

#[test]
fn metadata_that_is_set_is_seen_by_everybody_but_the_node() {
    let house = House::for_workers();
    let mut worker = house.worker();
    let mut peer = house.connect();
    peer.send(6, 0, r#"{"node_id":"n","metadata":{"v":1,"from":"node"}}"#);
    let channel = peer.frame().channel_id;
    let mut bus = house.bus();
    bus.set_metadata("n", 0, r#"{"room":"blue","v":2}"#).unwrap();
    house.engine.set_metadata("n", channel_of(&mut bus, "n"), r#"{"seat":7}"#).unwrap();
    let text = r#"{"v":2,"from":"node","room":"blue","seat":7}"#;
    assert_eq!(&*bus.node("n").unwrap().unwrap().metadata, text);
    assert_eq!(&*house.engine.node("n").unwrap().metadata(), text);
    peer.send(3, 0, "hello");
    let told = worker.tell_until(|event| matches!(event, Event::Data { .. }));
    assert!(matches!(&told.told.event, Event::Data { node, .. } if *node.metadata == *text));
    // The node says something of its own again: that wins, and what it does not mention stays the host's.
    peer.send(6, 0, r#"{"node_id":"n","metadata":{"v":3}}"#);
    let answer = peer.frame();
    assert_eq!((answer.frame_type, answer.channel_id), (6, channel));
    assert_eq!(&*bus.node("n").unwrap().unwrap().metadata, r#"{"v":3,"room":"blue","seat":7}"#);
    // Nothing but the two answers was sent to it.
    peer.send(4, 0, "");
    assert_eq!(peer.frame().frame_type, 5);
    // Another registration begins anew.
    let mut other = house.connect();
    other.send(6, 0, r#"{"node_id":"n"}"#);
    other.frame();
    assert_eq!(&*bus.node("n").unwrap().unwrap().metadata, "[]");
}

fn channel_of(bus: &mut Bus, id: &str) -> u32 {
    bus.node(id).unwrap().unwrap().channel_id
}

#[test]
fn metadata_has_bounds_and_what_is_refused_changes_nothing() {
    let house = House::in_process();
    let mut peer = house.connect();
    peer.send(6, 0, r#"{"node_id":"n","metadata":{"a":1}}"#);
    peer.frame();
    let mut bus = house.bus();
    let channel = channel_of(&mut bus, "n");
    for wrong in ["", "[]", "{}", "1", r#"{"a":"#] {
        assert_eq!(kind(bus.set_metadata("n", 0, wrong)), ErrorKind::InvalidArgument, "{wrong}");
    }
    assert_eq!(kind(bus.set_metadata("nobody", 0, r#"{"a":2}"#)), ErrorKind::NotFound);
    assert_eq!(kind(bus.set_metadata("n", channel + 1, r#"{"a":2}"#)), ErrorKind::NotFound);
    let long = format!(r#"{{"b":"{}"}}"#, "x".repeat(64 << 10));
    assert_eq!(kind(bus.set_metadata("n", 0, &long)), ErrorKind::Limit);
    assert_eq!(&*bus.node("n").unwrap().unwrap().metadata, r#"{"a":1}"#);
    // Together they are held to the same bound: the node is told, as for metadata that is too long by itself.
    let half = "x".repeat(40 << 10);
    bus.set_metadata("n", 0, &format!(r#"{{"b":"{half}"}}"#)).unwrap();
    let before = bus.node("n").unwrap().unwrap().metadata;
    peer.send(6, 0, &format!(r#"{{"node_id":"n","metadata":{{"c":"{half}"}}}}"#));
    let answer = peer.frame();
    assert!(answer.frame_type == 8 && answer.text().contains("Metadata too long"), "{answer:?}");
    assert_eq!(bus.node("n").unwrap().unwrap().metadata, before);
    bus.disconnect("n").unwrap();
    assert_eq!(kind(bus.set_metadata("n", channel, r#"{"a":2}"#)), ErrorKind::NotFound);
}

#[test]
fn nodes_are_found_by_their_metadata_page_by_page() {
    let house = House::in_process();
    let mut gateway = house.connect();
    for number in 0..1200 {
        let room = if number % 3 == 0 { "blue" } else { "red" };
        gateway.send(6, 0, &format!(r#"{{"node_id":"n{number}","metadata":{{"room":"{room}","number":{number}}}}}"#));
        gateway.frame();
    }
    let mut bus = house.bus();
    bus.set_metadata("n1", 0, r#"{"room":"blue"}"#).unwrap();
    let mut find = |pattern: Option<&str>, metadata: &str, limit: u32| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let (nodes, next) = bus.find_nodes(after, limit, pattern, None, metadata)?;
            assert!(nodes.len() <= limit as usize);
            found.extend(nodes.into_iter().map(|node| node.id.to_string()));
            if next.is_none() {
                return Ok(found);
            }
            after = next;
        }
    };
    let blue = find(None, r#"{"room":"blue"}"#, 100).unwrap();
    assert_eq!((blue.len(), blue.iter().collect::<HashSet<_>>().len()), (401, 401));
    assert!(blue.contains(&"n1".into()) && !blue.contains(&"n2".into()));
    assert_eq!(find(None, r#"{"room":"blue","number":3}"#, 100).unwrap(), ["n3"]);
    assert_eq!(find(Some("n1"), r#"{"room":"blue"}"#, 100).unwrap(), ["n1"]);
    assert_eq!(find(None, r#"{"none":null,"number":5.0}"#, 1).unwrap(), ["n5"]);
    assert!(find(None, r#"{"room":"green"}"#, 100).unwrap().is_empty());
    for wrong in ["", "{}", "[]", r#"{"room":["blue"]}"#] {
        let refused: Result<Vec<String>, Error> = find(None, wrong, 100);
        assert_eq!(kind(refused), ErrorKind::InvalidArgument, "{wrong}");
    }
}

#[test]
fn a_search_through_much_metadata_comes_in_pages_that_read_so_much_and_no_more() {
    let house = House::in_process();
    let mut gateways = [house.connect(), house.connect()];
    let text = "x".repeat(60_000);
    for number in 0..300 {
        let gateway = &mut gateways[number % 2];
        gateway.send(6, 0, &format!(r#"{{"node_id":"{number}","metadata":{{"text":"{text}"}}}}"#));
        gateway.frame();
    }
    let mut bus = house.bus();
    // 300 times 60 kB are more than 16 MiB.
    let (nodes, next) = bus.find_nodes(None, 100, None, None, r#"{"room":"blue"}"#).unwrap();
    assert!(nodes.is_empty() && next.is_some());
    assert_eq!(bus.find_nodes(next, 100, None, None, r#"{"room":"blue"}"#).unwrap(), (Vec::new(), None));
}

#[test]
fn a_request_that_the_engine_does_not_know_is_answered_and_the_connection_goes_on() {
    let house = House::in_process();
    let mut raw = house.raw();
    raw.hello(wire::VERSION, Role::Client);
    raw.greeting().unwrap();
    let mut newer = frame(&RequestFrame { id: 9, request: Request::Stats });
    *newer.last_mut().unwrap() = 100;
    raw.write(&newer);
    raw.write(&frame(&RequestFrame { id: 10, request: Request::Node { id: "nobody" } }));
    let mut answers = Vec::new();
    while answers.len() < 2 {
        answers.push(raw.answer());
    }
    assert_eq!(answers[0].id, 9);
    assert!(answers[0].result.as_ref().is_err_and(|error| error.kind == ErrorKind::Protocol as i32
        && error.message.contains("(number 100)")
        && error.message.contains("older")));
    assert_eq!(answers[1], Response { id: 10, result: Ok(Reply::Node(None)) });
}

#[test]
fn the_numbers_of_the_engine_arrive_all() {
    let house = House::in_process();
    let mut peer = house.register("n");
    peer.send(1, 0, "{}");
    peer.frame();
    // What a pass took is counted when it has answered.
    house.until("the pass to end", |_| house.engine.timings().heartbeats.buckets.iter().sum::<u64>() == 1);
    let mut bus = house.bus();
    let mut stats = bus.stats().unwrap();
    let own = house.engine.stats();
    assert!(stats.stats.uptime_seconds <= own.uptime_seconds);
    stats.stats.uptime_seconds = own.uptime_seconds;
    // The question itself takes memory, for a moment.
    assert!(stats.stats.memory.nodes > 0 && stats.stats.memory.total >= stats.stats.memory.nodes);
    (stats.stats.memory.total, stats.stats.memory.bus) = (own.memory.total, own.memory.bus);
    assert_eq!(stats.stats, own);
    assert_eq!((stats.stats.nodes_online, stats.stats.counts.heartbeats, stats.stats.bus_clients), (1, 1, 1));
    assert_eq!(stats.timings, house.engine.timings());
}

#[test]
fn the_heartbeat_timeout_can_be_read_and_set() {
    let house = House::in_process();
    let mut bus = house.bus();
    assert_eq!(bus.heartbeat_timeout().unwrap(), Duration::from_secs(30));
    bus.set_heartbeat_timeout(Duration::from_millis(1500)).unwrap();
    assert_eq!(bus.heartbeat_timeout().unwrap(), Duration::from_millis(1500));
    assert_eq!(house.engine.heartbeat_timeout(), Duration::from_millis(1500));
    assert_eq!(kind(bus.set_heartbeat_timeout(Duration::ZERO)), ErrorKind::Config);
    assert_eq!(kind(bus.set_heartbeat_timeout(Duration::MAX)), ErrorKind::Config);
}

#[test]
fn the_connections_are_listed_and_the_door_can_be_closed() {
    let house = House::in_process();
    let _peers = [house.register("a"), house.register("b")];
    let mut bus = house.bus();
    // A thread that is late is left out of the list.
    let listed = |bus: &mut Bus, max, count| {
        let deadline = deadline();
        loop {
            let found = bus.connections(max).unwrap();
            if found.len() == count {
                return;
            }
            assert!(found.len() < count && Instant::now() < deadline, "{found:?}");
        }
    };
    listed(&mut bus, 100, 2);
    listed(&mut bus, 1, 1);
    assert_eq!(bus.connections(0).unwrap(), []);
    bus.close_door().unwrap();
    let deadline = deadline();
    while TcpStream::connect(house.engine.local_addr()).is_ok() {
        assert!(Instant::now() < deadline, "the door stays open");
        std::thread::sleep(Duration::from_millis(2));
    }
    listed(&mut bus, 100, 2);
}

#[test]
fn the_welcome_says_who_the_engine_is() {
    let house = House::in_process();
    let mut bus = house.bus();
    let welcome = bus.welcome().unwrap().clone();
    assert_eq!((welcome.name.as_str(), welcome.pid, welcome.worker), ("test", std::process::id(), 0));
    assert_eq!((welcome.listen, welcome.takes_workers), (house.engine.local_addr(), false));
    assert_eq!(welcome.package, env!("CARGO_PKG_VERSION"));
    assert!(welcome.frame_cap >= welcome.max_frame_bytes);
    assert!(House::for_workers().bus().welcome().unwrap().takes_workers);
}

#[test]
fn answers_come_to_whoever_asked_in_any_order_of_taking() {
    let house = House::in_process();
    let _peer = house.register("n");
    let mut bus = house.bus();
    let numbers: Vec<u32> = (0..100)
        .map(|index| bus.begin(if index % 2 == 0 { &Request::Node { id: "n" } } else { &Request::HeartbeatTimeout }).unwrap())
        .collect();
    for (index, number) in numbers.iter().enumerate().rev() {
        let reply = bus.wait(*number, PATIENCE).unwrap();
        assert_eq!(index % 2 == 0, matches!(reply, Reply::Node(Some(_))), "{index}: {reply:?}");
        assert_eq!(kind(bus.take(*number).unwrap()), ErrorKind::InvalidArgument);
    }
}

#[test]
fn a_caller_that_begins_without_end_is_stopped_by_its_own_side() {
    let house = House::in_process();
    let mut bus = house.bus();
    let mut begun = 0;
    let error = loop {
        match bus.begin(&Request::HeartbeatTimeout) {
            Ok(_) => begun += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((begun, error.kind), (4096, ErrorKind::Limit));
    // Taken in while it was being written to, or after.
    assert!(bus.wait(1, PATIENCE).is_ok());
    bus.forget(2);
    assert!(bus.begin(&Request::HeartbeatTimeout).is_ok());
}

#[test]
fn many_callers_are_served_at_once() {
    let house = House::in_process();
    let mut peer = house.register("n");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    house.bus().send_to("n", b"x", 0).unwrap();
                }
            });
        }
    });
    for _ in 0..400 {
        assert_eq!(peer.frame().text(), "x");
    }
    house.until("the callers to be gone", |stats| stats.bus_clients == 0);
}

#[test]
fn the_next_request_finds_an_engine_that_was_restarted() {
    let folder = Folder::new();
    let start = || Engine::start(&config(&folder.socket()), Inbox::new(InboxLimits::default()).unwrap()).unwrap();
    let first = start();
    let mut bus = Bus::connect(&folder.socket(), PATIENCE).unwrap();
    bus.heartbeat_timeout().unwrap();
    let began = bus.welcome().unwrap().started_at;
    first.stop();
    assert_eq!(kind(bus.heartbeat_timeout()), ErrorKind::Io);
    assert!(bus.as_fd().is_none());
    let second = start();
    bus.heartbeat_timeout().unwrap();
    assert_ne!(bus.welcome().unwrap().started_at, began);
    drop(second);
    let _third = start();
    // Found dead while writing, made again, and sent once.
    bus.heartbeat_timeout().unwrap();
}

#[test]
fn a_request_in_flight_fails_when_the_engine_goes() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let mut bus = Bus::connect(&folder.socket(), PATIENCE).unwrap();
    let number = bus.begin(&Request::Broadcast { data: b"x" }).unwrap();
    drop(listener.accept().unwrap());
    assert_eq!(kind(bus.wait(number, PATIENCE)), ErrorKind::Closed);
    // It may have been carried out, so it is not sent again: nobody connected a second time.
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

#[test]
fn an_engine_that_is_silent_costs_its_timeout_and_no_more() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let mut bus = Bus::connect(&folder.socket(), Duration::from_millis(50)).unwrap();
    let error = bus.heartbeat_timeout().unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Timeout, "The engine did not answer within 50 ms"));
    // It answers after all, first what nobody waits for any more.
    let (mut engine, _) = listener.accept().unwrap();
    let mut answers = welcome();
    for (id, micros) in [(1, 111), (2, 222)] {
        wire::write_message(&mut answers, &Response { id, result: Ok(Reply::Micros(micros)) });
    }
    bus.set_timeout(PATIENCE);
    let number = bus.begin(&Request::HeartbeatTimeout).unwrap();
    engine.write_all(&answers).unwrap();
    assert_eq!(bus.wait(number, PATIENCE).unwrap().duration().unwrap(), Duration::from_micros(222));
}

#[test]
fn an_engine_that_reads_nothing_costs_its_timeout_and_the_connection() {
    let folder = Folder::new();
    let _listener = UnixListener::bind(folder.socket()).unwrap();
    let mut bus = Bus::connect(&folder.socket(), Duration::from_millis(50)).unwrap();
    let long = vec![b'x'; 4 << 20];
    assert_eq!(kind(bus.send_to("n", &long, 0)), ErrorKind::Timeout);
    // Half of a frame is on its way, so nothing can follow it.
    assert!(bus.as_fd().is_none());
}

#[test]
fn answers_that_make_no_sense_end_the_connection() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let welcome = welcome();
    let nonsense: [&[u8]; 5] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[welcome.as_slice(), &[0xff; 4]].concat(),
        &{
            let mut answer = welcome.clone();
            answer.extend([0, 0, 0, 2, 1, 99]);
            answer
        },
        b"HBUS\x00\x01\x00\xff\xff\xff\xff",
        b"HBUS\x00\x07\x00\x00\x00\x00\x00",
    ];
    for bytes in nonsense {
        let mut bus = Bus::connect(&folder.socket(), PATIENCE).unwrap();
        let number = bus.begin(&Request::HeartbeatTimeout).unwrap();
        let (mut engine, _) = listener.accept().unwrap();
        engine.write_all(bytes).unwrap();
        assert_eq!(kind(bus.wait(number, PATIENCE)), ErrorKind::Protocol, "{bytes:?}");
        assert!(bus.as_fd().is_none());
    }
}

#[test]
fn topics_are_published_to_listed_and_filled_from_next_door() {
    let house = House::in_process();
    let (mut bus, mut one) = (house.bus(), house.register("one"));
    let mut two = house.register("two");
    let mut ask = |request: Request<'_>| bus.ask(&request);
    for node in ["one", "two"] {
        ask(Request::Join { node, topic: "room/1" }).unwrap().done().unwrap();
    }
    ask(Request::Join { node: "one", topic: "room/2" }).unwrap().done().unwrap();
    let publish = Request::Publish { topic: "room/1", data: b"hello", except: vec!["two"] };
    let published = ask(publish).unwrap().publication().unwrap();
    assert_eq!((published.reach, published.position.map(|(offset, _)| offset)), (2, Some(1)));
    let frame = one.frame();
    assert!(frame.frame_type == 12 && frame.text().contains(r#""data":"hello""#), "{frame:?}");
    assert_eq!(ask(Request::BroadcastExcept { data: b"all", except: vec!["one"] }).unwrap().count().unwrap(), 1);
    assert_eq!(two.frame().text(), "all");
    assert_eq!(ask(Request::Subscribers { topic: "room/1" }).unwrap().count().unwrap(), 2);
    let (mut topics, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = ask(Request::Topics { after, limit: 1 }).unwrap().topics().unwrap();
        topics.extend(page.into_iter().map(|topic| (topic.name, topic.subscribers)));
        after = next;
        if after.is_none() {
            break;
        }
    }
    topics.sort();
    assert_eq!(topics, [("room/1".into(), 2), ("room/2".into(), 1)]);
    let (mut members, next) = ask(Request::Members { topic: "room/1", after: None, limit: 10 }).unwrap().names().unwrap();
    members.sort();
    assert_eq!((members, next), (vec!["one".to_owned(), "two".to_owned()], None));
    ask(Request::Leave { node: "one", filter: "room/1" }).unwrap().done().unwrap();
    assert_eq!(ask(Request::TopicsOf { node: "one" }).unwrap().names().unwrap(), (vec!["room/2".to_owned()], None));
    for (request, kind) in [
        (Request::Publish { topic: "a/+", data: b"", except: Vec::new() }, ErrorKind::InvalidArgument),
        (Request::Join { node: "nobody", topic: "a" }, ErrorKind::NotFound),
        (Request::Leave { node: "nobody", filter: "a" }, ErrorKind::NotFound),
        (Request::Members { topic: "", after: None, limit: 1 }, ErrorKind::InvalidArgument),
        (Request::TopicsOf { node: "nobody" }, ErrorKind::NotFound),
    ] {
        assert_eq!(ask(request).unwrap_err().kind, kind);
    }
}
