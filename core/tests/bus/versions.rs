//! Sides of different releases.

use crate::house::*;
use heartbus_core::bus::{Attachment, AttachmentPhase, Bus, Reply, Request};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::wire::bus::{self as wire, RemoteError, RequestFrame, Response, Role, Version, WorkerMessage};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

const NEXT_MAJOR: Version = Version { major: wire::MAJOR + 1, minor: 0 };

#[test]
fn another_version_is_refused_in_words() {
    let house = House::in_process();
    let mut raw = house.raw();
    raw.hello(NEXT_MAJOR, Role::Client);
    let refusal = raw.greeting().unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Protocol as i32);
    assert!(refusal.message.contains("the first numbers must be the same"), "{}", refusal.message);
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
            wire::write_refusal(&mut refusal, &RemoteError { kind: ErrorKind::Protocol as i32, message: text.into() });
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
        raw.hello(NEXT_MAJOR, Role::Client);
        // More than it will ever read.
        let _ = raw.stream.write_all(&frame(&RequestFrame { id: 1, request: Request::Broadcast { data: &[b'x'; 100_000] } }));
        assert!(raw.greeting().is_err(), "round {round}");
    }
}

fn vectors(kind: &'static str) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let rows = include_str!("../../../tests/vectors/bus-2.0.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
    rows.filter(move |row| row[2] == kind).map(|row| {
        let hex = row[0];
        (row[1], (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect())
    })
}

fn vector(kind: &'static str, meaning: &str) -> Vec<u8> {
    vectors(kind).find(|(of, _)| *of == meaning).unwrap_or_else(|| panic!("no {kind} {meaning}")).1
}

/// What a caller of version 2.0 reads. These records are copies: they stay as they were when the release was made.
mod v2_0 {
    use serde::{Deserialize, Serialize};
    use std::net::SocketAddr;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Welcome {
        pub name: String,
        pub package: String,
        pub pid: u32,
        pub started_at: u64,
        pub listen: SocketAddr,
        pub takes_workers: bool,
        pub worker: u64,
        pub frame_cap: u32,
        pub max_frame_bytes: u32,
        pub max_connections: u64,
        pub io_threads: u32,
        pub heartbeat_timeout: u64,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Answer {
        pub id: u32,
        pub result: Result<Reply, Fault>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Fault {
        pub kind: i32,
        pub message: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) enum Reply {
        Done,
        Count(u64),
        Node(Option<Node>),
        Page { nodes: Vec<Node>, next: Option<u64> },
        Stats { numbers: Vec<(String, u64)>, messages: Durations, heartbeats: Durations },
        Micros(u64),
        Connections(Vec<Connection>),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Node {
        pub id: String,
        pub peer: SocketAddr,
        pub connection_id: u64,
        pub channel_id: u32,
        pub online: bool,
        pub last_heartbeat: f64,
        pub heartbeat_count: u64,
        pub total_messages: u64,
        pub last_message: f64,
        pub created_at: f64,
        pub bytes_waiting: u64,
        pub metadata: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Durations {
        pub buckets: Vec<u64>,
        pub micros: u64,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Connection {
        pub id: u64,
        pub peer: SocketAddr,
        pub nodes: usize,
        pub first_node: Option<String>,
        pub bytes_in: u64,
        pub bytes_out: u64,
        pub bytes_waiting_in: usize,
        pub bytes_waiting_out: usize,
    }

    /// That release takes exactly so many bytes, and no more.
    pub(super) fn read<T: Serialize + for<'a> Deserialize<'a>>(bytes: &[u8]) -> T {
        let message: T = heartbus_core::wire::bus::decode(bytes).expect("a message of version 2.0");
        let mut again = Vec::new();
        heartbus_core::wire::bus::write_message(&mut again, &message);
        assert_eq!(again[heartbus_core::wire::bus::LENGTH_LEN..], *bytes, "something stands behind the message");
        message
    }
}

impl Raw {
    fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("bytes in time");
        bytes
    }

    fn body(&mut self) -> Vec<u8> {
        let length = self.exactly(wire::LENGTH_LEN);
        self.exactly(u32::from_be_bytes(length.try_into().unwrap()) as usize)
    }

    /// As a caller of version 2.0 reads it, which wants to see its own version and nothing else.
    fn welcome_of_2_0(&mut self) -> v2_0::Welcome {
        let head = self.exactly(11);
        assert_eq!(head[..7], *b"HBUS\x00\x02\x00");
        let body = self.exactly(u32::from_be_bytes(head[7..].try_into().unwrap()) as usize);
        v2_0::read(&body)
    }
}

#[test]
fn a_client_of_the_first_release_is_understood_and_understands() {
    let house = House::in_process();
    let _node = house.register("n1");
    let mut raw = house.raw();
    raw.write(&vector("hello", "a client, pid 4711, package 0.1.0"));
    let welcome = raw.welcome_of_2_0();
    assert_eq!((welcome.name.as_str(), welcome.pid, welcome.worker), ("test", std::process::id(), 0));
    let requests: Vec<_> = vectors("request").collect();
    assert_eq!(requests.len(), 18);
    // Where a request is about the node, what is said of it must be right; the last one ends the node.
    let (first, last): (Vec<_>, Vec<_>) = requests.into_iter().partition(|(what, _)| !what.contains("Disconnect"));
    for (what, request) in first.into_iter().chain(last) {
        raw.write(&request);
        let answer: v2_0::Answer = v2_0::read(&raw.body());
        assert_eq!(answer.id, 200, "{what}");
        use v2_0::Reply;
        let kind = what.strip_prefix("200: ").unwrap().split([' ', ':']).next().unwrap();
        match (kind, answer.result) {
            // Channel 7 is none of its own.
            ("SendTo" | "SetMetadata", Err(fault)) => assert_eq!(fault.kind, ErrorKind::NotFound as i32, "{what}"),
            // v1 does not carry these bytes, so nobody got them.
            ("SendMany", Ok(Reply::Count(count))) => assert_eq!(count, 1),
            ("Broadcast", Err(fault)) => assert_eq!(fault.kind, ErrorKind::InvalidArgument as i32),
            ("Broadcast", Ok(Reply::Count(0))) => {}
            ("Disconnect" | "KeepAlive" | "SetHeartbeatTimeout" | "CloseDoor", Ok(Reply::Done)) => {}
            ("Node", Ok(Reply::Node(Some(node)))) => {
                assert_eq!((node.id.as_str(), node.online, node.metadata.as_str()), ("n1", true, "[]"));
            }
            ("NodeOfChannel" | "NodeOfConnection", Ok(Reply::Node(_))) => {}
            ("Page", Ok(Reply::Page { nodes, next: None })) => assert_eq!(nodes.len(), usize::from(what.contains("the first 100"))),
            ("Find", Ok(Reply::Page { nodes, next: None })) => assert_eq!(nodes, []),
            ("Stats", Ok(Reply::Stats { numbers, .. })) => assert!(numbers.contains(&("nodes_online".into(), 1)), "{numbers:?}"),
            ("HeartbeatTimeout", Ok(Reply::Micros(micros))) => assert_eq!(micros, 30_000_000),
            ("Connections", Ok(Reply::Connections(found))) => assert_eq!(found[0].first_node.as_deref(), Some("n1")),
            (_, result) => panic!("{what}: {result:?}"),
        }
    }
    house.until("the node to go", |stats| stats.nodes_online == 0);
}

#[test]
fn a_worker_of_the_first_release_gets_its_events() {
    let house = House::for_workers();
    let mut raw = house.raw();
    raw.write(&vector("hello", "a worker, the same"));
    assert!(raw.welcome_of_2_0().takes_workers);
    raw.write(&vector("word", "Ready, data and left"));
    house.until("the worker to join", |stats| stats.dispatch.workers == 1);
    for said in ["Watch channel 7", "Unwatch channel 7", "TakeLog"] {
        raw.write(&vector("word", said));
    }
    let mut peer = house.register("n1");
    peer.send(3, 0, "hello");
    let batch = raw.body();
    // The last frame of a batch, its number, one event: PROTOCOL has the layout, hub::batch the golden rows.
    assert_eq!((batch[0], &batch[1..9], &batch[9..13]), (1, &[0, 0, 0, 0, 0, 0, 0, 1][..], &[0, 0, 0, 1][..]), "{batch:?}");
    // Its kind, its sequence, the place of its node, and the node as it is in an answer.
    let (node, rest): (v2_0::Node, _) = heartbus_core::wire::bus::take(&batch[13 + 1 + 8 + 4..]).unwrap();
    assert_eq!((node.id.as_str(), node.online, node.metadata.as_str()), ("n1", true, "[]"));
    assert!(rest.len() == 4 + 4 + 5 && rest.ends_with(b"hello"), "{rest:?}");
    let mut acknowledge = vec![0, 0, 0, 2, 2, 1];
    assert_eq!(acknowledge[4], vector("word", "Acknowledge batch 300")[4]);
    acknowledge.extend(vector("word", "Leave"));
    raw.write(&acknowledge);
    let finished = vector("news", "Finished");
    assert_eq!(raw.body(), finished[wire::LENGTH_LEN..]);
    raw.expect_end();
}

#[test]
fn sides_with_different_minor_versions_speak_the_lower_one() {
    let house = House::for_workers();
    for role in [Role::Client, Role::Worker] {
        let mut raw = house.raw();
        raw.hello(Version { major: wire::MAJOR, minor: wire::MINOR + 5 }, role);
        let head = raw.exactly(11);
        assert_eq!(head[..7], [b'H', b'B', b'U', b'S', wire::MINOR, wire::MAJOR, 0]);
    }
    house.assert_well();
}

#[test]
fn what_a_newer_side_has_appended_is_left_alone() {
    let longer = |mut frame: Vec<u8>| {
        frame.extend(b"more");
        let length = (frame.len() - wire::LENGTH_LEN) as u32;
        frame[..wire::LENGTH_LEN].copy_from_slice(&length.to_be_bytes());
        frame
    };
    // By the engine: behind a request, and behind what a worker says, which may even be something new.
    let house = House::for_workers();
    let mut raw = house.raw();
    raw.hello(wire::VERSION, Role::Client);
    raw.greeting().unwrap();
    raw.write(&longer(frame(&RequestFrame { id: 3, request: Request::SendTo { node: "nobody", channel: 0, data: b"x" } })));
    assert_eq!(raw.answer().result.unwrap_err().kind, ErrorKind::NotFound as i32);
    let mut worker = house.raw();
    worker.hello(wire::VERSION, Role::Worker);
    worker.greeting().unwrap();
    let mut ready = Vec::new();
    wire::write_message(&mut ready, &WorkerMessage::Ready { mask: 0 });
    worker.write(&longer(ready));
    worker.write(&[0, 0, 0, 3, 99, 1, 2]);
    worker.say(WorkerMessage::Leave);
    assert_eq!(worker.body(), [3], "Finished");

    // By a caller: behind the welcome and an answer, and in between a message that it does not know.
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let welcome = house.bus().welcome().unwrap().clone();
    let newer = std::thread::spawn(move || {
        let mut greeting = Vec::new();
        wire::write_welcome(&mut greeting, Version { major: wire::MAJOR, minor: wire::MINOR + 7 }, &welcome);
        greeting.extend(b"more");
        let length = (greeting.len() - 11) as u32;
        greeting[7..11].copy_from_slice(&length.to_be_bytes());
        let (mut client, _) = listener.accept().unwrap();
        let mut answer = Vec::new();
        wire::write_message(&mut answer, &Response { id: 1, result: Ok(Reply::Micros(5)) });
        client.write_all(&[greeting.clone(), longer(answer)].concat()).unwrap();
        let (mut worker, _) = listener.accept().unwrap();
        worker.write_all(&[greeting, vec![0, 0, 0, 2, 99, 1], vec![0, 0, 0, 1, 3]].concat()).unwrap();
        // Until they have read it all.
        let _ = (client.read(&mut [0; 64]), worker.read(&mut [0; 64]));
    });
    let mut bus = Bus::connect(&folder.socket(), PATIENCE).unwrap();
    assert_eq!(bus.heartbeat_timeout(), Ok(Duration::from_micros(5)));
    let attachment = Attachment::attach(&folder.socket(), PATIENCE).unwrap();
    let mut worker = Worker { attachment, queue: VecDeque::new(), heard_of_the_stop: false };
    assert!(worker.tell_until_phase(AttachmentPhase::Finished).is_empty());
    drop((bus, worker));
    newer.join().unwrap();
}
