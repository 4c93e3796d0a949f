//! The bus socket over real sockets: every request and its refusal, workers that come, go, hang and die, and callers that
//! do everything wrong.

mod support;

use heartbus_core::bus::{self, Attachment, Bus, Delivered, LogLevel, LogLine, NodeInfo, Phase, Reply, Request};
use heartbus_core::config::{BusConfig, InboxLimits, ServerConfig};
use heartbus_core::engine::Engine;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{Departure, Event, EventMask};
use heartbus_core::hub::dispatch::DispatchLimits;
use heartbus_core::inbox::Inbox;
use heartbus_core::wire::bus::{self as wire, Answer, Ask, Fault, Role, Word};
use rustix::process::{Pid, Signal, kill_process};
use socket2::SockRef;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::{Peer, deadline};

/// Long enough that only what is broken takes it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of the test, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("heartbus-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("server.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(path: &Path) -> ServerConfig {
    let bus = BusConfig { path: path.to_owned(), group: None, name: "test".into() };
    ServerConfig { host: "127.0.0.1".into(), port: 0, bus: Some(bus), ..ServerConfig::default() }
}

struct House {
    engine: Engine,
    path: PathBuf,
    _folder: Folder,
}

impl House {
    /// An engine whose callbacks run in its own process.
    fn in_process() -> House {
        House::start(|config| Engine::start(config, Inbox::new(InboxLimits::default()).unwrap()))
    }

    fn for_workers() -> House {
        House::with_limits(DispatchLimits::default(), EventMask::ALL)
    }

    fn with_limits(limits: DispatchLimits, until_first_join: EventMask) -> House {
        House::start(|config| Engine::start_for_workers(config, limits, until_first_join))
    }

    fn start(start: impl FnOnce(&ServerConfig) -> Result<Engine, Error>) -> House {
        let folder = Folder::new();
        let path = folder.socket();
        House { engine: start(&config(&path)).unwrap(), path, _folder: folder }
    }

    fn bus(&self) -> Bus {
        Bus::connect(&self.path, PATIENCE).unwrap()
    }

    fn attach(&self) -> Worker {
        Worker { attachment: Attachment::attach(&self.path, PATIENCE).unwrap(), queue: VecDeque::new(), heard_of_the_stop: false }
    }

    fn worker(&self) -> Worker {
        let before = self.engine.stats().dispatch.workers;
        let mut worker = self.attach();
        worker.attachment.ready(EventMask::ALL).unwrap();
        self.until("the worker to join", |stats| stats.dispatch.workers == before + 1);
        worker
    }

    fn connect(&self) -> Peer {
        Peer::over(TcpStream::connect(self.engine.local_addr()).unwrap())
    }

    fn register(&self, id: &str) -> Peer {
        let mut peer = self.connect();
        peer.send(6, 0, &format!(r#"{{"node_id":"{id}"}}"#));
        assert_eq!(peer.frame().frame_type, 6);
        peer
    }

    fn until(&self, what: &str, condition: impl Fn(&heartbus_core::engine::Stats) -> bool) {
        let deadline = deadline();
        loop {
            let stats = self.engine.stats();
            if condition(&stats) {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}: {stats:#?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A caller that writes its own bytes.
    fn raw(&self) -> Raw {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Raw { stream }
    }

    /// Nothing that others did has done any harm.
    fn assert_well(&self) {
        let mut bus = self.bus();
        assert_eq!(bus.node("nobody").unwrap(), None);
    }
}

struct Worker {
    attachment: Attachment,
    queue: VecDeque<Delivered>,
    heard_of_the_stop: bool,
}

impl Worker {
    /// The next event; acknowledges nothing.
    fn event(&mut self) -> Delivered {
        let deadline = deadline();
        while self.queue.is_empty() {
            self.attachment.drain(&mut self.queue, 64).unwrap();
            assert!(Instant::now() < deadline, "waited in vain for an event");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.queue.pop_front().unwrap()
    }

    /// The next event; acknowledges its batch if it is the last one.
    fn tell(&mut self) -> Delivered {
        let delivered = self.event();
        if delivered.is_last {
            self.attachment.acknowledge(delivered.batch).unwrap();
        }
        delivered
    }

    fn tell_until(&mut self, wanted: impl Fn(&Event<std::sync::Arc<NodeInfo>>) -> bool) -> Delivered {
        loop {
            let delivered = self.tell();
            if wanted(&delivered.told.event) {
                return delivered;
            }
        }
    }

    /// Tells what comes until the connection stands there.
    fn tell_until_phase(&mut self, phase: Phase) -> Vec<Delivered> {
        let deadline = deadline();
        let mut told = Vec::new();
        loop {
            if let Some(delivered) = self.queue.pop_front() {
                if delivered.is_last {
                    self.attachment.acknowledge(delivered.batch).unwrap();
                }
                told.push(delivered);
                continue;
            }
            let drained = self.attachment.drain(&mut self.queue, 64);
            self.heard_of_the_stop |= self.attachment.phase() == Phase::Stopping;
            if self.queue.is_empty() && self.attachment.phase() == phase {
                return told;
            }
            drained.unwrap();
            assert!(Instant::now() < deadline, "waited in vain for {phase:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Raw {
    stream: UnixStream,
}

impl Raw {
    fn hello(&mut self, version: u16, role: Role) {
        let mut hello = Vec::new();
        wire::write_hello(&mut hello, version, role, 1, "0.0.0");
        self.write(&hello);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn say(&mut self, word: Word) {
        let mut frame = Vec::new();
        wire::write_message(&mut frame, &word);
        self.write(&frame);
    }

    fn greeting(&mut self) -> Result<wire::Welcome, Fault> {
        let mut received = Vec::new();
        loop {
            if let Some((greeting, _)) = wire::parse_greeting(&received).unwrap() {
                return greeting;
            }
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a greeting in time");
            received.push(byte[0]);
        }
    }

    fn answer(&mut self) -> Answer {
        let mut length = [0; wire::LENGTH_LEN];
        self.stream.read_exact(&mut length).expect("an answer in time");
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body).expect("all of the answer");
        wire::decode(&body).unwrap()
    }

    /// The engine hangs up, whatever it still says before.
    fn expect_end(&mut self) {
        let mut buffer = [0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("the engine did not hang up: {error}"),
            }
        }
    }
}

fn frame(ask: &Ask<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    wire::write_message(&mut frame, ask);
    frame
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind
}

fn data_of(delivered: &Delivered) -> Option<(String, String)> {
    match &delivered.told.event {
        Event::Data { node, payload, .. } => Some((node.id.to_string(), String::from_utf8_lossy(payload).into_owned())),
        _ => None,
    }
}

// Requests

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
    let mut newer = frame(&Ask { id: 9, request: Request::Stats });
    *newer.last_mut().unwrap() = wire::REQUESTS as u8;
    raw.write(&newer);
    raw.write(&frame(&Ask { id: 10, request: Request::Node { id: "nobody" } }));
    let mut answers = Vec::new();
    while answers.len() < 2 {
        answers.push(raw.answer());
    }
    assert_eq!(answers[0].id, 9);
    assert!(answers[0].result.as_ref().is_err_and(|fault| fault.kind == ErrorKind::Protocol as i32 && fault.message.contains("older")));
    assert_eq!(answers[1], Answer { id: 10, result: Ok(Reply::Node(None)) });
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
        wire::write_message(&mut answers, &Answer { id, result: Ok(Reply::Micros(micros)) });
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

fn welcome() -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::write_welcome(&mut bytes, &House::in_process().bus().welcome().unwrap().clone());
    bytes
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

// Finding the server

/// The socket of a server that died.
fn leave_behind(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    // Not only dropped: a child that another test is starting may hold a copy of it.
    SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
}

#[test]
fn nobody_at_the_path_is_told_with_the_path() {
    let folder = Folder::new();
    let path = folder.socket();
    let error = Bus::connect(&path, PATIENCE).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Io);
    assert_eq!(error.message, format!("No Heartbus server at {}: No such file or directory", path.display()));
    assert_eq!(kind(Attachment::attach(&path, PATIENCE).map(drop)), ErrorKind::Io);
    leave_behind(&path);
    assert_eq!(
        Bus::connect(&path, PATIENCE).err().unwrap().message,
        format!("No Heartbus server at {}: Connection refused", path.display())
    );
}

#[test]
fn a_queue_that_stays_full_costs_the_timeout() {
    let folder = Folder::new();
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(folder.socket()).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let _first = UnixStream::connect(folder.socket()).unwrap();
    assert_eq!(kind(Bus::connect(&folder.socket(), Duration::from_millis(30)).map(drop)), ErrorKind::Timeout);
    assert!(bus::is_taken(&folder.socket()));
}

#[test]
fn a_name_becomes_paths_in_the_usual_folders_and_only_good_names_do() {
    let paths = bus::default_paths("a.b-c_1");
    assert!(paths.contains(&PathBuf::from("/run/heartbus/a.b-c_1.sock")), "{paths:?}");
    assert!(paths.contains(&format!("/tmp/heartbus-{}/a.b-c_1.sock", rustix::process::geteuid().as_raw()).into()), "{paths:?}");
    let long = "x".repeat(65);
    for name in ["", "a/b", "a b", "é", &long] {
        assert_eq!(kind(bus::path_to_bind(name)), ErrorKind::Config, "{name}");
        assert_eq!(kind(Bus::find(name, PATIENCE).map(drop)), ErrorKind::Config, "{name}");
    }
    let error = Bus::find("nobody-has-this-name", PATIENCE).err().unwrap();
    assert!(error.kind == ErrorKind::Io && error.message.contains("nobody-has-this-name.sock or /"), "{}", error.message);
}

#[test]
fn a_server_is_found_by_its_name_and_by_a_similar_one_it_is_told_of() {
    let name = format!("test-{}", std::process::id());
    let path = bus::path_to_bind(&name).unwrap();
    assert!(bus::default_paths(&name).contains(&path));
    let engine = Engine::start(&config(&path), Inbox::new(InboxLimits::default()).unwrap()).unwrap();
    assert_eq!(Bus::find(&name, PATIENCE).unwrap().path(), path);
    let error = Bus::find(&format!("{name}-other"), PATIENCE).err().unwrap();
    // Others run their tests at the same time, and eight are told of.
    assert!(error.message.contains(&path.display().to_string()) || error.message.matches(".sock").count() > 8, "{}", error.message);
    drop(engine);
    assert!(!path.exists());
}

// The socket file

fn start_error(config: &ServerConfig) -> Error {
    Engine::start(config, Inbox::new(InboxLimits::default()).unwrap()).map(drop).unwrap_err()
}

#[test]
fn the_socket_is_the_owners_alone_and_goes_with_the_server() {
    let house = House::in_process();
    let found = fs::metadata(&house.path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert!(bus::is_taken(&house.path));
    house.engine.stop();
    assert!(!house.path.exists() && !bus::is_taken(&house.path));
}

#[test]
fn a_second_server_is_refused_and_does_not_touch_the_first() {
    let house = House::in_process();
    let error = start_error(&config(&house.path));
    assert_eq!((error.kind, error.message), (ErrorKind::Io, format!("{} is in use by another server", house.path.display())));
    assert_eq!(Engine::check(&config(&house.path)).unwrap_err().kind, ErrorKind::Io);
    house.assert_well();
}

#[test]
fn of_servers_that_start_at_once_exactly_one_gets_the_socket() {
    let deadline = deadline();
    loop {
        let folder = Folder::new();
        let config = config(&folder.socket());
        // So that all of them want to clear it away.
        leave_behind(&folder.socket());
        let began = Instant::now();
        let engines: Vec<_> = std::thread::scope(|scope| {
            let start = || Engine::start(&config, Inbox::new(InboxLimits::default()).unwrap()).ok();
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        // They wait half a second for each other and no longer.
        if engines.len() > 1 && began.elapsed() > Duration::from_millis(500) {
            assert!(Instant::now() < deadline, "they are held up all the time");
            continue;
        }
        assert_eq!(engines.len(), 1);
        assert_eq!(Bus::connect(&folder.socket(), PATIENCE).unwrap().welcome().unwrap().listen, engines[0].local_addr());
        return;
    }
}

#[test]
fn whoever_sees_the_socket_can_connect() {
    let folder = Folder::new();
    let path = folder.socket();
    for _ in 0..20 {
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| {
                while !path.exists() {
                    std::hint::spin_loop();
                }
                Bus::connect(&path, PATIENCE).map(drop)
            });
            let engine = Engine::start(&config(&path), Inbox::new(InboxLimits::default()).unwrap()).unwrap();
            caller.join().unwrap().unwrap();
            drop(engine);
        });
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0, "something is left");
    }
}

#[test]
fn what_a_dead_server_left_behind_is_replaced_but_nothing_else() {
    let folder = Folder::new();
    leave_behind(&folder.socket());
    Engine::check(&config(&folder.socket())).unwrap();
    drop(Engine::start(&config(&folder.socket()), Inbox::new(InboxLimits::default()).unwrap()).unwrap());
    fs::write(folder.socket(), "precious").unwrap();
    assert!(start_error(&config(&folder.socket())).message.contains("is no socket"));
    assert!(Engine::check(&config(&folder.socket())).is_err());
    assert_eq!(fs::read_to_string(folder.socket()).unwrap(), "precious");
    let missing = folder.0.join("missing/server.sock");
    assert_eq!(
        start_error(&config(&missing)).message,
        format!("Cannot open the bus socket {}: No such file or directory", missing.display())
    );
}

/// Run by the test below as nobody: what a start and a check say of a folder that others own.
#[test]
fn as_a_server_of_another_user() {
    let Some(path) = std::env::var_os("HEARTBUS_TEST_FOLDER") else { return };
    let mut config = config(&Path::new(&path).join("server.sock"));
    println!("folder> {}|{}", Engine::check(&config).unwrap_err().message, start_error(&config).message);
    config.bus.as_mut().unwrap().path = Path::new(&path).join("own/server.sock");
    config.bus.as_mut().unwrap().group = Some("0".into());
    println!("group> {}|{}", Engine::check(&config).unwrap_err().message, start_error(&config).message);
    println!("left> {}", fs::read_dir(Path::new(&path).join("own")).unwrap().count());
}

#[test]
fn a_check_says_what_the_start_would_say_and_leaves_nothing_behind() {
    let house = House::in_process();
    let folder = Folder::new();
    fs::write(folder.0.join("file"), "").unwrap();
    let taken = house.path.clone();
    let long = folder.0.join("x".repeat(100));
    let paths = [taken, folder.0.join("file"), folder.0.join("file/server.sock"), folder.0.join("missing/server.sock"), long];
    for path in paths {
        let config = config(&path);
        let error = Engine::check(&config).unwrap_err();
        assert!(error.message.contains(&path.display().to_string()), "{error}");
        assert_eq!(error, start_error(&config));
    }
    let mut unknown = config(&folder.socket());
    unknown.bus.as_mut().unwrap().group = Some("nobody-has-this-group".into());
    assert_eq!(Engine::check(&unknown).unwrap_err().message, "bus_group: there is no group nobody-has-this-group");
    assert_eq!(Engine::check(&unknown).unwrap_err(), start_error(&unknown));
    Engine::check(&config(&folder.socket())).unwrap();
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "nothing but the file");

    fs::create_dir(folder.0.join("own")).unwrap();
    chown(folder.0.join("own"), Some(NOBODY), Some(NOBODY)).ok();
    let Some(answers) = as_nobody("as_a_server_of_another_user", "HEARTBUS_TEST_FOLDER", &folder.0) else { return };
    let both = |what: &str| answers[what].split_once('|').map(|(check, start)| (check.to_owned(), start.to_owned())).unwrap();
    let refusal = format!("Cannot open the bus socket {}: Permission denied", folder.socket().display());
    assert_eq!(both("folder"), (refusal.clone(), refusal));
    let refusal = format!("bus_group: only root and members of group 0 can give {} to it", folder.0.join("own/server.sock").display());
    assert_eq!(both("group"), (refusal.clone(), refusal));
    assert_eq!(answers["left"], "0");
}

/// Names of Unix sockets, as the kernel knows them: those who clean folders ask it.
fn names_in_use() -> HashSet<PathBuf> {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    table.lines().filter_map(|line| line.split(' ').next_back()).filter(|name| name.starts_with('/')).map(PathBuf::from).collect()
}

#[test]
fn the_kernel_knows_the_socket_by_the_name_of_its_file() {
    let folder = Folder::new();
    let real = folder.0.canonicalize().unwrap();
    std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
    let here = std::env::current_dir().unwrap();
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let ways = [real.join("server.sock"), real.join("link/server.sock"), up.join(real.strip_prefix("/").unwrap()).join("server.sock")];
    for path in ways {
        let engine = Engine::start(&config(&path), Inbox::new(InboxLimits::default()).unwrap()).unwrap();
        assert!(names_in_use().contains(&real.join("server.sock")), "{}", path.display());
        Bus::connect(&path, PATIENCE).unwrap().stats().unwrap();
        drop(engine);
        assert!(!real.join("server.sock").exists());
    }
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = deadline();
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_socket_that_somebody_removed_is_made_again_and_nobody_is_cut_off() {
    let house = House::for_workers();
    let mut old = house.bus();
    let mut worker = house.worker();
    let folder = house.path.parent().unwrap().to_owned();
    let moved = folder.with_extension("moved");
    for whole_folder in [false, true] {
        if whole_folder {
            fs::rename(&folder, &moved).unwrap();
            // A folder that is none of the usual ones is for whoever made it to make again.
            assert!(Bus::connect(&house.path, PATIENCE).is_err());
            fs::create_dir(&folder).unwrap();
        } else {
            fs::remove_file(&house.path).unwrap();
        }
        wait_for("the socket to be there again", || Bus::connect(&house.path, PATIENCE).is_ok());
        assert_eq!(fs::metadata(&house.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(names_in_use().contains(&house.path.canonicalize().unwrap()));
        house.assert_well();
        old.stats().expect("who was there stays");
        drop(house.worker());
        let peer = house.register("n");
        worker.tell_until(|event| matches!(event, Event::Register { .. }));
        drop(peer);
        worker.tell_until(|event| matches!(event, Event::Left { .. }));
    }
    fs::remove_dir_all(&moved).unwrap();
    house.engine.stop();
    assert!(!house.path.exists(), "the new one is the server's own as well");
}

#[test]
fn a_socket_that_another_server_has_taken_is_left_to_it_until_it_ends() {
    let house = House::in_process();
    fs::remove_file(&house.path).unwrap();
    let other = UnixListener::bind(&house.path).unwrap();
    let found = fs::metadata(&house.path).unwrap().created().unwrap();
    // It tries to have its place back: whoever connects and says nothing is it.
    drop(other.accept().unwrap());
    drop(other.accept().unwrap());
    assert_eq!(fs::metadata(&house.path).unwrap().created().unwrap(), found);
    SockRef::from(&other).shutdown(Shutdown::Both).unwrap();
    wait_for("the server to have its socket back", || Bus::connect(&house.path, PATIENCE).is_ok_and(|mut bus| bus.stats().is_ok()));
}

#[test]
fn a_socket_file_that_is_another_servers_by_now_stays() {
    let house = House::in_process();
    fs::remove_file(&house.path).unwrap();
    let other = UnixListener::bind(&house.path).unwrap();
    house.engine.stop();
    assert!(house.path.exists());
    drop(other);
}

#[test]
fn a_server_that_cannot_listen_leaves_no_socket_behind() {
    let house = House::in_process();
    let folder = Folder::new();
    let config = ServerConfig { port: house.engine.local_addr().port(), ..config(&folder.socket()) };
    assert!(start_error(&config).message.starts_with("Cannot listen on"));
    assert!(!folder.socket().exists());
}

#[test]
fn settings_that_cannot_be_right_are_refused() {
    let folder = Folder::new();
    let with = |change: &dyn Fn(&mut BusConfig)| {
        let mut config = config(&folder.socket());
        change(config.bus.as_mut().unwrap());
        start_error(&config)
    };
    assert_eq!(with(&|bus| bus.name = "a/b".into()).kind, ErrorKind::Config);
    assert_eq!(with(&|bus| bus.group = Some("no-such-group".into())).message, "bus_group: there is no group no-such-group");
    let long = ServerConfig { max_frame_bytes: u32::MAX, ..config(&folder.socket()) };
    assert_eq!(start_error(&long).kind, ErrorKind::Config);
    let none = ServerConfig { bus: None, ..config(&folder.socket()) };
    assert_eq!(kind(Engine::start_for_workers(&none, DispatchLimits::default(), EventMask::ALL).map(drop)), ErrorKind::Config);
    let limits = DispatchLimits { batch_events: 0, ..DispatchLimits::default() };
    assert_eq!(kind(Engine::start_for_workers(&config(&folder.socket()), limits, EventMask::ALL).map(drop)), ErrorKind::Config);
    assert!(!folder.socket().exists());
}

// Who may

/// What another user sees, run by the tests below in a process of its own.
#[test]
fn as_another_user() {
    let Some(path) = std::env::var_os("HEARTBUS_TEST_SOCKET") else { return };
    let path = Path::new(&path);
    let shown =
        |result: Result<(), Error>| result.map_or_else(|error| format!("{:?}: {}", error.kind, error.message), |()| "welcome".into());
    println!("client> {}", shown(Bus::connect(path, PATIENCE).and_then(|mut bus| bus.send_to("n", b"hello", 0))));
    println!("door> {}", shown(Bus::connect(path, PATIENCE).and_then(|mut bus| bus.close_door())));
    println!("worker> {}", shown(Attachment::attach(path, PATIENCE).map(drop)));
}

const NOBODY: u32 = 65_534;

/// Runs the test above as nobody; `None` where we are not root and cannot.
fn ask_as_nobody(path: &Path) -> Option<HashMap<String, String>> {
    as_nobody("as_another_user", "HEARTBUS_TEST_SOCKET", path)
}

/// Runs a test that says what it sees, as nobody; `None` where we are not root and cannot.
fn as_nobody(test: &str, variable: &str, path: &Path) -> Option<HashMap<String, String>> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return None;
    }
    // Not by its path: nobody may not have the right to go there.
    let output = Command::new("/proc/self/exe")
        .args(["--exact", test, "--nocapture"])
        .env(variable, path)
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once("> "));
    Some(lines.map(|(what, answer)| (what.rsplit(' ').next().unwrap().to_owned(), answer.to_owned())).collect())
}

#[test]
fn another_user_is_kept_out_by_the_file_and_by_the_engine() {
    let house = House::in_process();
    let Some(answers) = ask_as_nobody(&house.path) else { return };
    assert!(answers["client"].starts_with("Io: No right to use"), "{answers:?}");
    // The file's rights are one wall, the credentials another.
    fs::set_permissions(&house.path, fs::Permissions::from_mode(0o666)).unwrap();
    let answers = ask_as_nobody(&house.path).unwrap();
    for what in ["client", "door", "worker"] {
        assert_eq!(answers[what], "Io: The bus socket is open to the server's own user only (see bus_group)", "{what}");
    }
}

#[test]
fn a_group_may_ask_but_neither_work_nor_close_the_door() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let mut config = config(&folder.socket());
    config.bus.as_mut().unwrap().group = Some(NOBODY.to_string());
    let engine = Engine::start_for_workers(&config, DispatchLimits::default(), EventMask::ALL).unwrap();
    let found = fs::metadata(folder.socket()).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.gid()), (0o660, NOBODY));
    let mut peer = Peer::over(TcpStream::connect(engine.local_addr()).unwrap());
    peer.send(6, 0, r#"{"node_id":"n"}"#);
    peer.frame();
    let answers = ask_as_nobody(&folder.socket()).unwrap();
    assert_eq!(answers["client"], "welcome");
    assert_eq!(answers["door"], "Io: Only the server's own user may change how it runs");
    assert_eq!(answers["worker"], "Io: Workers must be of the same user as the server");
    assert_eq!(peer.frame().text(), "hello");
    chown(folder.socket(), None, Some(0)).unwrap();
    assert!(ask_as_nobody(&folder.socket()).unwrap()["client"].starts_with("Io: No right to use"));
}

// Versions

#[test]
fn another_version_is_refused_in_words() {
    let house = House::in_process();
    let mut raw = house.raw();
    raw.hello(wire::VERSION + 1, Role::Client);
    let refusal = raw.greeting().unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Protocol as i32);
    assert!(refusal.message.contains("both must run the same release"), "{}", refusal.message);
    raw.expect_end();
    house.assert_well();
}

#[test]
fn an_engine_of_another_version_is_told_as_what_it_is() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let engine = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut refusal = Vec::new();
            let text = "The engine speaks version 9";
            wire::write_refusal(&mut refusal, &Fault { kind: ErrorKind::Protocol as i32, message: text.into() });
            refusal[4..6].copy_from_slice(&9u16.to_be_bytes());
            stream.write_all(&refusal).unwrap();
        }
    });
    let expected = Error::new(ErrorKind::Protocol, "The engine speaks version 9");
    let welcome = Bus::connect(&folder.socket(), PATIENCE).and_then(|mut bus| bus.welcome().cloned());
    assert_eq!(welcome.unwrap_err(), expected);
    assert_eq!(Attachment::attach(&folder.socket(), PATIENCE).map(drop).unwrap_err(), expected);
    engine.join().unwrap();
}

#[test]
fn a_refusal_is_told_by_the_first_request_however_fast_the_engine_hung_up() {
    let house = House::in_process();
    for round in 0..50 {
        let mut raw = house.raw();
        raw.hello(wire::VERSION + 1, Role::Client);
        // More than it will ever read.
        let _ = raw.stream.write_all(&frame(&Ask { id: 1, request: Request::Broadcast { data: &[b'x'; 100_000] } }));
        assert!(raw.greeting().is_err(), "round {round}");
    }
}

// Callers that do everything wrong

#[test]
fn a_request_may_come_right_behind_the_hello() {
    let house = House::in_process();
    let mut raw = house.raw();
    let mut bytes = Vec::new();
    wire::write_hello(&mut bytes, wire::VERSION, Role::Client, 7, "0.1.0");
    bytes.extend(frame(&Ask { id: 5, request: Request::HeartbeatTimeout }));
    // In the smallest pieces there are.
    for byte in bytes {
        raw.write(&[byte]);
    }
    raw.greeting().unwrap();
    let mut head = [0; 4];
    raw.stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    raw.stream.read_exact(&mut body).unwrap();
    let answer: Answer = wire::decode(&body).unwrap();
    assert_eq!((answer.id, answer.result), (5, Ok(Reply::Micros(30_000_000))));
}

#[test]
fn garbage_ends_only_whoever_sent_it() {
    let house = House::for_workers();
    let mut other = house.bus();
    let mut worker = house.worker();
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xab\x12\x01\x00\x00\x00\x00",
        b"H",
        b"HBUS\x00\x01\x00\x00\x00\x00\x01\x00\xff\xff\xff\xff",
        b"HBUS\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x02\x01\xee",
        b"HBUS\x00\x01\x01\x00\x00\x00\x01\x00\x00\x00\x00\x01\xee",
    ];
    for bytes in garbage {
        let mut raw = house.raw();
        raw.write(bytes);
        if bytes == b"H" {
            raw.write(b"X");
        }
        raw.expect_end();
    }
    let mut raw = house.raw();
    raw.write(b"HBUS\x00\x02\x09\x00\x00\x00\x01\x00");
    assert_eq!(raw.greeting().unwrap_err().message, "The engine does not know this role");
    other.heartbeat_timeout().unwrap();
    let _peer = house.register("n");
    worker.tell_until(|event| matches!(event, Event::Register { .. }));
}

#[test]
fn a_length_beyond_the_bound_ends_the_connection_before_anything_is_kept() {
    let house = House::in_process();
    let cap = house.bus().welcome().unwrap().frame_cap;
    let mut raw = house.raw();
    raw.hello(wire::VERSION, Role::Client);
    raw.greeting().unwrap();
    raw.write(&(cap + 1).to_be_bytes());
    raw.expect_end();
    house.assert_well();
    let mut bus = house.bus();
    bus.welcome().unwrap();
    assert_eq!(kind(bus.begin(&Request::Broadcast { data: &vec![0; cap as usize] })), ErrorKind::Limit);
    bus.heartbeat_timeout().unwrap();
}

#[test]
fn who_says_nothing_or_half_of_something_is_hung_up_on_in_time() {
    let house = House::in_process();
    let mut silent = house.raw();
    let mut half_hello = house.raw();
    half_hello.write(b"HBUS\x00");
    let mut half_frame = house.raw();
    half_frame.hello(wire::VERSION, Role::Client);
    half_frame.greeting().unwrap();
    half_frame.write(&[0, 0, 1, 0, 1, 2, 3]);
    let mut idle = house.bus();
    idle.heartbeat_timeout().unwrap();
    silent.expect_end();
    half_hello.expect_end();
    half_frame.expect_end();
    // Whoever is between two requests may take all the time in the world.
    assert!(idle.as_fd().is_some());
    idle.heartbeat_timeout().unwrap();
    house.until("the others to be gone", |stats| stats.bus_clients == 1);
}

#[test]
fn who_asks_and_never_reads_is_not_read_either_and_holds_up_nobody() {
    let house = House::in_process();
    let _peer = house.register("n");
    let mut greedy = house.raw();
    greedy.hello(wire::VERSION, Role::Client);
    greedy.stream.set_nonblocking(true).unwrap();
    let ask = frame(&Ask { id: 1, request: Request::Stats });
    let mut bus = house.bus();
    let (mut sent, mut served) = (0, 0);
    // It is only read as far as its answers fit into the socket, so that soon nothing more can be written: not even when the
    // bus thread has answered another caller more often than requests of this one fit into a socket.
    let deadline = deadline();
    while served < 500 {
        match greedy.stream.write(&ask) {
            Ok(count) => {
                (sent, served) = (sent + count, 0);
                assert!(Instant::now() < deadline, "it took {sent} bytes");
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                bus.send_to("n", b"x", 0).unwrap();
                served += 1;
            }
        }
    }
}

#[test]
fn a_caller_too_many_is_refused_and_finds_room_later() {
    let house = House::in_process();
    let mut callers: Vec<Raw> = (0..4352)
        .map(|_| {
            let mut raw = house.raw();
            raw.hello(wire::VERSION, Role::Client);
            raw
        })
        .collect();
    for caller in &mut callers {
        caller.greeting().unwrap();
    }
    let error = Bus::connect(&house.path, PATIENCE).and_then(|mut bus| bus.welcome().cloned()).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Limit, "The bus has all the callers it may have"));
    callers.truncate(4000);
    house.until("the others to be gone", |stats| stats.bus_clients == 4000);
    house.assert_well();
}

#[test]
fn others_cannot_take_all_places_of_the_owner() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let mut config = config(&folder.socket());
    config.bus.as_mut().unwrap().group = Some(NOBODY.to_string());
    let engine = Engine::start_for_workers(&config, DispatchLimits::default(), EventMask::ALL).unwrap();
    let house = House { engine, path: folder.socket(), _folder: folder };
    let _callers: Vec<Raw> = (0..4096)
        .map(|_| {
            let mut raw = house.raw();
            raw.hello(wire::VERSION, Role::Client);
            raw.greeting().unwrap();
            raw
        })
        .collect();
    let answers = ask_as_nobody(&house.path).unwrap();
    assert_eq!(answers["client"], "Limit: The bus has all the callers it may have");
    house.assert_well();
    house.worker();
}

#[test]
fn too_many_nodes_in_one_request_are_refused_before_they_are_read() {
    let house = House::in_process();
    let nodes = vec![""; (1 << 20) + 1];
    let request = Request::SendMany { nodes: nodes.clone(), data: b"x" };
    let mut raw = house.raw();
    raw.hello(wire::VERSION, Role::Client);
    raw.greeting().unwrap();
    raw.write(&frame(&Ask { id: 1, request }));
    raw.expect_end();
    let mut bus = house.bus();
    let error = bus.send_many(&nodes, b"x").unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Limit, "A message can go to 1048576 nodes at once"));
    assert_eq!(bus.send_many(&nodes[1..], b"x").unwrap(), 0);
}

// Workers

#[test]
fn a_worker_gets_everything_in_order_and_what_it_is_told_is_whole() {
    let house = House::for_workers();
    let mut worker = house.worker();
    let mut peer = house.connect();
    peer.send(6, 0, r#"{"node_id":"n","metadata":{"a":1}}"#);
    peer.frame();
    for number in 0..2000 {
        peer.send(3, 0, &number.to_string());
    }
    peer.send(1, 0, "{}");
    peer.send(7, 0, "");
    drop(peer);
    let connect = worker.tell();
    let Event::Connect { connection_id, peer: address } = connect.told.event else { panic!("{connect:?}") };
    let register = worker.tell();
    let Event::Register { node, count: 1 } = &register.told.event else { panic!("{register:?}") };
    assert_eq!((&*node.id, node.peer, node.connection_id, &*node.metadata), ("n", address, connection_id, r#"{"a":1}"#));
    let mut last = register.told.sequence;
    for number in 0..2000 {
        let delivered = worker.tell();
        assert_eq!(data_of(&delivered), Some(("n".into(), number.to_string())));
        let told = &delivered.told;
        assert!(told.sequence > last && !told.redelivered && !told.watched);
        last = told.sequence;
        let Event::Data { channel_id, node, .. } = &told.event else { unreachable!() };
        assert_eq!(*channel_id, node.channel_id);
    }
    assert!(matches!(worker.tell().told.event, Event::Heartbeat { count: 1, .. }));
    let left = worker.tell();
    let Event::Left { node, how: Departure::Unregistered, count: 1 } = &left.told.event else { panic!("{left:?}") };
    assert!(!node.online);
    assert!(matches!(worker.tell().told.event, Event::Close { connection_id: closed, .. } if closed == connection_id));
    house.until("everything to be acknowledged", |stats| (stats.dispatch.queued_events, stats.dispatch.in_flight_events) == (0, 0));
}

#[test]
fn a_nodes_time_and_counters_are_those_of_the_engine() {
    let house = House::for_workers();
    let mut worker = house.worker();
    let mut peer = house.register("n");
    peer.send(3, 0, "x");
    let delivered = worker.tell_until(|event| matches!(event, Event::Data { .. }));
    let Event::Data { node, .. } = &delivered.told.event else { unreachable!() };
    let mut bus = house.bus();
    let deadline = deadline();
    // The message is counted when it has been told.
    let mut own = loop {
        let own = bus.node("n").unwrap().unwrap();
        if own.total_messages == 1 {
            break own;
        }
        assert!(own.total_messages == 0 && Instant::now() < deadline, "{own:?}");
    };
    // Off by as long as the system keeps a thread waiting between its two clocks, which it does not do each time.
    let mut created = node.created_at;
    while (created - own.created_at).abs() > 0.001 {
        assert!(Instant::now() < deadline, "{created} {}", own.created_at);
        peer.send(3, 0, "x");
        let Event::Data { node, .. } = worker.tell_until(|event| matches!(event, Event::Data { .. })).told.event else { unreachable!() };
        (created, own) = (node.created_at, bus.node("n").unwrap().unwrap());
    }
    assert!(created > 1e9, "{created}");
    assert_eq!((node.channel_id, own.online), (own.channel_id, true));
}

#[test]
fn a_worker_gets_what_it_subscribed_to_and_may_change_its_mind() {
    let house = House::with_limits(DispatchLimits::default(), EventMask::NONE);
    let mut worker = house.attach();
    worker.attachment.ready(EventMask::LEFT).unwrap();
    house.until("the worker", |stats| stats.dispatch.workers == 1);
    let peer = house.register("a");
    drop(peer);
    assert!(matches!(worker.tell().told.event, Event::Left { .. }));
    worker.attachment.subscribe(EventMask::REGISTER).unwrap();
    // Nothing answers a subscription: the first registration that is told shows that it holds.
    let deadline = deadline();
    loop {
        drop(house.register("b"));
        worker.attachment.drain(&mut worker.queue, 64).unwrap();
        if !worker.queue.is_empty() && matches!(worker.tell().told.event, Event::Register { .. }) {
            break;
        }
        assert!(Instant::now() < deadline, "waited in vain for the subscription");
    }
    // Everybody who left left before "last" came, and is not told any more.
    house.until("b to have left", |stats| stats.nodes_online == 0);
    let _last = house.register("last");
    loop {
        let Event::Register { node, .. } = worker.tell().told.event else { panic!("not a registration") };
        if &*node.id == "last" {
            break;
        }
        assert_eq!(&*node.id, "b");
    }
}

#[test]
fn events_from_before_the_first_worker_wait_for_it() {
    let house = House::with_limits(DispatchLimits::default(), EventMask::REGISTER);
    let _peer = house.register("early");
    let mut worker = house.worker();
    let Event::Register { node, .. } = worker.tell().told.event else { panic!("not a registration") };
    assert_eq!(&*node.id, "early");
}

#[test]
fn an_attached_process_gets_nothing_before_it_is_ready() {
    let house = House::for_workers();
    let mut worker = house.attach();
    let _peer = house.register("n");
    // An answer to another caller is proof that the bus thread has had its turn.
    house.bus().heartbeat_timeout().unwrap();
    assert_eq!(worker.attachment.drain(&mut worker.queue, 64).unwrap(), 0);
    worker.attachment.ready(EventMask::REGISTER).unwrap();
    assert!(matches!(worker.tell().told.event, Event::Register { .. }));
    assert_eq!(worker.attachment.phase(), Phase::Running);
}

#[test]
fn an_engine_that_runs_its_callbacks_itself_refuses_workers() {
    let house = House::in_process();
    let error = Attachment::attach(&house.path, PATIENCE).map(drop).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Closed, "This server runs its callbacks itself"));
}

#[test]
fn two_workers_share_the_nodes_and_each_node_keeps_its_worker() {
    let house = House::for_workers();
    let mut workers = [house.worker(), house.worker()];
    assert_ne!(workers[0].attachment.worker(), workers[1].attachment.worker());
    let mut peers: Vec<Peer> = (0..40).map(|number| house.register(&format!("node{number}"))).collect();
    for round in 0..5 {
        for peer in &mut peers {
            peer.send(3, 0, &round.to_string());
        }
    }
    let mut owner: HashMap<String, (usize, Vec<String>)> = HashMap::new();
    let deadline = deadline();
    while owner.values().map(|(_, data)| data.len()).sum::<usize>() < 200 {
        for (index, worker) in workers.iter_mut().enumerate() {
            worker.attachment.drain(&mut worker.queue, 64).unwrap();
            while let Some(delivered) = worker.queue.pop_front() {
                if let Some((node, data)) = data_of(&delivered) {
                    let (known, all) = owner.entry(node).or_insert((index, Vec::new()));
                    assert_eq!(*known, index);
                    all.push(data);
                }
                if delivered.is_last {
                    worker.attachment.acknowledge(delivered.batch).unwrap();
                }
            }
        }
        assert!(Instant::now() < deadline, "waited in vain: {owner:?}");
    }
    assert!(owner.values().all(|(_, data)| data == &["0", "1", "2", "3", "4"]));
    let first = owner.values().filter(|(index, _)| *index == 0).count();
    assert!((1..40).contains(&first), "one worker got {first} of 40 nodes");
}

#[test]
fn what_a_dead_worker_had_not_acknowledged_goes_to_the_next_with_a_mark_on_the_first_batch() {
    let limits = DispatchLimits { batch_events: 10, ..DispatchLimits::default() };
    let house = House::with_limits(limits, EventMask::ALL);
    let mut first = house.attach();
    first.attachment.ready(EventMask::DATA).unwrap();
    house.until("the worker", |stats| stats.dispatch.workers == 1);
    let mut peer = house.register("n");
    for number in 0..100 {
        peer.send(3, 0, &number.to_string());
    }
    house.until("the data", |stats| stats.counts.data_in == 100);
    // It acknowledges one batch, begins the next, and dies.
    let mut seen = Vec::new();
    loop {
        let delivered = first.tell();
        seen.push(data_of(&delivered).unwrap().1);
        if delivered.is_last {
            break;
        }
    }
    let acknowledged = seen.len();
    // Until it is heard, so that the test knows what is left.
    house.until("the acknowledgement", |stats| stats.dispatch.queued_events + stats.dispatch.in_flight_events == 100 - acknowledged);
    first.event();
    drop(first);
    house.until("its end", |stats| stats.dispatch.workers == 0);
    let mut second = house.attach();
    second.attachment.ready(EventMask::DATA).unwrap();
    let mut marked = 0;
    let rest: Vec<String> = (acknowledged..100)
        .map(|_| {
            let delivered = second.tell();
            marked += usize::from(delivered.told.redelivered);
            data_of(&delivered).unwrap().1
        })
        .collect();
    seen.extend(rest);
    assert_eq!(seen, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!((1..=10).contains(&marked), "{marked} events are marked");
    assert_eq!(house.engine.stats().dispatch.redelivered, marked as u64);
}

/// A worker with a child that keeps a copy of its connection, run by the test below in a process of its own.
#[test]
fn as_a_worker_with_a_child() {
    let Some(path) = std::env::var_os("HEARTBUS_TEST_WORKER") else { return };
    let mut attachment = Attachment::attach(Path::new(&path), PATIENCE).unwrap();
    attachment.ready(EventMask::ALL).unwrap();
    let copy = attachment.as_fd().try_clone_to_owned().unwrap();
    let mut child = Command::new("sleep").arg("60").stdin(copy).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    println!("child> {}", child.id());
    child.wait().unwrap();
}

#[test]
fn a_worker_is_dead_when_its_process_is_although_a_child_of_it_keeps_the_connection() {
    let house = House::for_workers();
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_a_worker_with_a_child", "--nocapture"])
        .env("HEARTBUS_TEST_WORKER", &house.path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let child: i32 = lines.map(Result::unwrap).find_map(|line| line.split_once("> ")?.1.parse().ok()).unwrap();
    house.until("the worker to join", |stats| stats.dispatch.workers == 1);
    let _peer = house.register("n");
    house.until("events in its hands", |stats| stats.dispatch.in_flight_events > 0);
    worker.kill().unwrap();
    worker.wait().unwrap();
    house.until("its end", |stats| stats.dispatch.workers == 0);
    kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
    assert!(house.worker().tell().told.redelivered);
}

#[test]
fn what_a_worker_acknowledged_before_it_died_counts_even_if_the_engine_was_writing_to_it() {
    let house = House::with_limits(DispatchLimits { batch_events: 1, ..DispatchLimits::default() }, EventMask::ALL);
    let mut peer = house.register("n");
    peer.send(3, 0, "short");
    peer.send(3, 0, &"x".repeat(4 << 20));
    house.until("the events", |stats| stats.dispatch.queued_events == 4);
    let mut worker = house.raw();
    worker.hello(wire::VERSION, Role::Worker);
    worker.greeting().unwrap();
    worker.say(Word::Ready { mask: EventMask::ALL.0 });
    // It reads three batches. The fourth is too long for the socket, so that the engine is in the middle of it.
    for _ in 0..3 {
        let mut length = [0; 4];
        worker.stream.read_exact(&mut length).unwrap();
        worker.stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize]).unwrap();
    }
    // So much that the engine must read several times, and finds in between that nobody reads what it writes.
    let mut words = Vec::new();
    for _ in 0..5000 {
        wire::write_message(&mut words, &Word::Subscribe { mask: EventMask::ALL.0 });
    }
    for batch in 1..=3 {
        wire::write_message(&mut words, &Word::Acknowledge { batch });
    }
    worker.write(&words);
    drop(worker);
    house.until("its end", |stats| stats.dispatch.workers == 0);
    let mut next = house.worker();
    let told = next.tell().told;
    assert_eq!((told.sequence, told.redelivered), (4, true));
    assert_eq!(house.engine.stats().dispatch.redelivered, 1);
}

#[test]
fn a_worker_that_leaves_tells_what_it_has_and_is_let_go() {
    let house = House::for_workers();
    let mut first = house.worker();
    let mut peer = house.register("n");
    first.tell_until(|event| matches!(event, Event::Register { .. }));
    peer.send(3, 0, "before");
    let delivered = first.event();
    assert_eq!(data_of(&delivered).unwrap().1, "before");
    first.attachment.leave().unwrap();
    let mut second = house.worker();
    peer.send(3, 0, "after");
    house.until("the data", |stats| stats.counts.data_in == 2);
    // The node has moved, but its former worker has not said that it is done.
    house.bus().heartbeat_timeout().unwrap();
    second.attachment.drain(&mut second.queue, 64).unwrap();
    assert!(second.queue.is_empty());
    assert_eq!(first.attachment.phase(), Phase::Running);
    first.attachment.acknowledge(delivered.batch).unwrap();
    first.tell_until_phase(Phase::Finished);
    assert_eq!(data_of(&second.tell()).unwrap().1, "after");
    assert_eq!(house.engine.stats().dispatch.redelivered, 0);
    // Gone for good, and that is no loss.
    let drained = first.attachment.drain(&mut first.queue, 64);
    assert!(matches!(drained, Ok(0) | Err(Error { kind: ErrorKind::Closed, .. })), "{drained:?}");
    assert_eq!(first.attachment.phase(), Phase::Finished);
}

#[test]
fn a_process_may_leave_without_ever_having_been_ready() {
    let house = House::for_workers();
    let mut worker = house.attach();
    worker.attachment.leave().unwrap();
    worker.tell_until_phase(Phase::Finished);
    // Twice says no more than once.
    let mut raw = house.raw();
    raw.hello(wire::VERSION, Role::Worker);
    raw.greeting().unwrap();
    let mut words = Vec::new();
    wire::write_message(&mut words, &Word::Leave);
    wire::write_message(&mut words, &Word::Leave);
    raw.write(&words);
    raw.expect_end();
}

#[test]
fn a_stop_is_announced_and_everything_is_told_before_it_ends() {
    let house = House::for_workers();
    let mut workers = [house.worker(), house.worker()];
    let _peers: Vec<Peer> = (0..50).map(|number| house.register(&format!("node{number}"))).collect();
    let told: Vec<Delivered> = std::thread::scope(|scope| {
        let telling: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(move || worker.tell_until_phase(Phase::Finished))).collect();
        house.engine.stop();
        telling.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(workers.iter().all(|worker| worker.heard_of_the_stop));
    let count = |wanted: fn(&Event<std::sync::Arc<NodeInfo>>) -> bool| told.iter().filter(|told| wanted(&told.told.event)).count();
    assert_eq!(count(|event| matches!(event, Event::Register { .. })), 50);
    assert_eq!(count(|event| matches!(event, Event::Left { .. })), 50);
    assert_eq!(count(|event| matches!(event, Event::Close { .. })), 50);
    assert_eq!(house.engine.stats().dispatch.in_flight_events, 0);
    assert_eq!(kind(Attachment::attach(&house.path, PATIENCE).map(drop)), ErrorKind::Io);
}

#[test]
fn a_worker_that_does_not_answer_holds_up_a_stop_for_two_seconds_only() {
    let house = House::for_workers();
    let mut worker = house.worker();
    let _peer = house.register("n");
    worker.event();
    let began = Instant::now();
    house.engine.stop();
    // Generous, for a slow machine; without the bound it would never return.
    assert!(began.elapsed() < Duration::from_secs(15));
    assert!(!house.path.exists());
}

#[test]
fn a_stop_without_workers_waits_for_none() {
    let house = House::for_workers();
    let _peer = house.register("n");
    assert_ne!(house.engine.stats().dispatch.queued_events, 0);
    house.engine.stop();
    assert!(!house.path.exists());
}

#[test]
fn a_worker_notices_that_the_engine_is_gone() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let welcome = welcome();
    let engine = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The hello, in one piece as it was sent.
        assert_ne!(stream.read(&mut [0; 64]).unwrap(), 0);
        stream.write_all(&welcome).unwrap();
    });
    let mut attachment = Attachment::attach(&folder.socket(), PATIENCE).unwrap();
    engine.join().unwrap();
    let deadline = deadline();
    let error = loop {
        match attachment.drain(&mut VecDeque::new(), 64) {
            Ok(_) => assert!(Instant::now() < deadline),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind, attachment.phase()), (ErrorKind::Closed, Phase::Lost));
    assert_eq!(kind(attachment.ready(EventMask::ALL)), ErrorKind::Closed);
}

#[test]
fn a_worker_that_breaks_the_rules_ends_itself_and_its_events_go_on() {
    let wrong: [&[Word]; 7] = [
        &[Word::Acknowledge { batch: 1 }],
        &[Word::Subscribe { mask: 1 }],
        &[Word::Watch { channel: 1 }],
        &[Word::Ready { mask: 0 }, Word::Ready { mask: 0 }],
        &[Word::Ready { mask: 0 }, Word::Acknowledge { batch: 1 }],
        &[Word::Ready { mask: 0 }, Word::Leave, Word::Ready { mask: 0 }],
        &[Word::Leave, Word::Subscribe { mask: 0 }],
    ];
    let house = House::for_workers();
    let _peer = house.register("n");
    for words in wrong {
        let mut raw = house.raw();
        raw.hello(wire::VERSION, Role::Worker);
        raw.greeting().unwrap();
        let mut frames = Vec::new();
        words.iter().for_each(|word| wire::write_message(&mut frames, word));
        raw.write(&frames);
        raw.expect_end();
    }
    // One that has something in hand and acknowledges something else.
    let mut raw = house.raw();
    raw.hello(wire::VERSION, Role::Worker);
    raw.greeting().unwrap();
    raw.say(Word::Ready { mask: EventMask::ALL.0 });
    house.until("a batch", |stats| stats.dispatch.in_flight_events > 0);
    raw.say(Word::Acknowledge { batch: 2 });
    raw.expect_end();
    let mut worker = house.worker();
    let delivered = worker.tell_until(|event| matches!(event, Event::Register { .. }));
    assert!(delivered.told.redelivered);
}

#[test]
fn a_worker_that_reads_nothing_costs_its_data_and_stops_nobody() {
    let limits = DispatchLimits { events: 1000, bytes: 1 << 20, ..DispatchLimits::default() };
    let house = House::with_limits(limits, EventMask::ALL);
    let mut worker = house.worker();
    let mut peer = house.register("n");
    let mut reader = peer.take();
    let data = "x".repeat(1000);
    for _ in 0..6000 {
        peer.send(3, 0, &data);
    }
    peer.send(1, 0, "{}");
    // Its heartbeat is answered: it was read to the end.
    assert_eq!(reader.frame().frame_type, 2);
    let stats = house.engine.stats();
    assert_eq!(stats.counts.data_in, 6000);
    assert!(stats.dispatch.refused > 0 && stats.dispatch.queued_bytes <= 1 << 20, "{:?}", stats.dispatch);
    assert_eq!(stats.counts.reads_paused_by_host, 0);
    // It comes round: what was taken is all there, in order.
    let mut got = 0;
    while got < 6000 - stats.dispatch.refused {
        got += u64::from(data_of(&worker.tell()).is_some());
    }
    worker.tell_until(|event| matches!(event, Event::Heartbeat { .. }));
    house.until("everything to be acknowledged", |stats| (stats.dispatch.queued_events, stats.dispatch.in_flight_events) == (0, 0));
}

#[test]
fn a_batch_longer_than_a_frame_goes_in_several_and_is_acknowledged_once() {
    let limits = DispatchLimits { batch_bytes: 8 << 20, ..DispatchLimits::default() };
    let house = House::with_limits(limits, EventMask::ALL);
    let mut peer = house.register("n");
    let data = "y".repeat(300_000);
    for _ in 0..10 {
        peer.send(3, 0, &data);
    }
    let longest = "z".repeat(10_000_000);
    peer.send(3, 0, &longest);
    house.until("the data", |stats| stats.counts.data_in == 11);
    let mut worker = house.attach();
    worker.attachment.ready(EventMask::DATA).unwrap();
    let mut lasts = Vec::new();
    for index in 0..11 {
        let delivered = worker.tell();
        let expected = if index < 10 { &data } else { &longest };
        assert_eq!(data_of(&delivered), Some(("n".into(), expected.clone())));
        if delivered.is_last {
            lasts.push(index);
        }
    }
    assert_eq!(lasts, [9, 10]);
}

#[test]
fn a_watched_channels_data_is_copied_to_whoever_watches_it() {
    let house = House::for_workers();
    let mut workers = [house.worker(), house.worker()];
    let mut peer = house.register("n");
    let channel = house.bus().node("n").unwrap().unwrap().channel_id;
    // Both watch it; one of them is its owner and gets it anyway.
    for worker in &mut workers {
        worker.attachment.watch(channel).unwrap();
        worker.attachment.subscribe(EventMask::DATA).unwrap();
    }
    // Words are heard within the turn of the bus thread that another caller's answer is proof of.
    house.bus().heartbeat_timeout().unwrap();
    house.bus().heartbeat_timeout().unwrap();
    peer.send(3, 0, "once");
    let mut watched: Vec<bool> = workers
        .iter_mut()
        .map(|worker| {
            let delivered = worker.tell_until(|event| matches!(event, Event::Data { .. }));
            assert_eq!(data_of(&delivered).unwrap().1, "once");
            delivered.told.watched
        })
        .collect();
    watched.sort();
    assert_eq!(watched, [false, true]);
    for worker in &mut workers {
        worker.attachment.unwatch(channel).unwrap();
    }
    house.bus().heartbeat_timeout().unwrap();
    house.bus().heartbeat_timeout().unwrap();
    peer.send(3, 0, "twice");
    house.until("the data", |stats| stats.counts.data_in == 2 && stats.dispatch.queued_events == 0);
    let told: usize = workers
        .iter_mut()
        .map(|worker| {
            house.bus().heartbeat_timeout().unwrap();
            worker.attachment.drain(&mut worker.queue, 64).unwrap();
            worker.queue.iter().filter(|delivered| data_of(delivered).is_some()).count()
        })
        .sum();
    assert_eq!(told, 1);
}

#[test]
fn the_engine_s_log_goes_to_one_of_the_workers_that_take_it() {
    let house = House::for_workers();
    let line = |text: &str| LogLine { level: LogLevel::Info, message: text.into(), context: r#""n":1"#.into() };
    assert_eq!(house.engine.send_log(line("nobody")), Err(line("nobody")));
    let mut plain = house.worker();
    assert_eq!(house.engine.send_log(line("not asked for")), Err(line("not asked for")));
    let (mut first, mut second) = (house.worker(), house.worker());
    let next = |worker: &mut Worker| {
        let deadline = deadline();
        loop {
            worker.attachment.drain(&mut worker.queue, 64).unwrap();
            if let Some(line) = worker.attachment.log_line() {
                return line.message;
            }
            assert!(Instant::now() < deadline, "waited in vain for a message");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let send = |text: &str| {
        let deadline = deadline();
        while house.engine.send_log(line(text)).is_err() {
            assert!(Instant::now() < deadline, "nobody takes messages");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    first.attachment.take_log().unwrap();
    send("one");
    assert_eq!(next(&mut first), "one");
    second.attachment.take_log().unwrap();
    send("two");
    assert_eq!(next(&mut first), "two");
    // It leaves, and the other one gets what comes from then on.
    first.attachment.leave().unwrap();
    first.tell_until_phase(Phase::Finished);
    send("three");
    assert_eq!(next(&mut second), "three");
    drop(second);
    house.until("the second to be gone", |stats| stats.dispatch.workers == 1);
    assert_eq!(house.engine.send_log(line("nobody any more")), Err(line("nobody any more")));
    assert_eq!(house.engine.take_back_log(), []);
    plain.attachment.drain(&mut plain.queue, 64).unwrap();
    assert_eq!(plain.attachment.log_line(), None);
}

#[test]
fn a_drain_stops_where_it_is_told_to_and_goes_on_there() {
    let house = House::for_workers();
    let mut worker = house.worker();
    let _peer = house.register("n");
    let deadline = deadline();
    let mut queue = VecDeque::new();
    let mut told = Vec::new();
    while told.len() < 2 {
        let count = worker.attachment.drain(&mut queue, 1).unwrap();
        assert!(count <= 1);
        if let Some(delivered) = queue.pop_front() {
            if delivered.is_last {
                worker.attachment.acknowledge(delivered.batch).unwrap();
            }
            told.push(delivered.told.event);
        }
        assert!(Instant::now() < deadline);
    }
    assert!(matches!(told[..], [Event::Connect { .. }, Event::Register { .. }]));
}
