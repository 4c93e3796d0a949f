//! Pins every message of the bus socket to the bytes in `tests/vectors/bus.txt`: a layout that changes without a new
//! major version would let two releases misunderstand each other. The frames of batches are compared in `hub::batch`.

use heartbus_core::wire::bus::{
    APPENDED, ConnectionInfo, DecisionRecord, DurationsRecord, FeedMessage, Hello, LENGTH_LEN, LineLevel, LogLine, NodeInfo,
    PublicationRecord, RemoteError, Reply, Request, RequestFrame, Response, Role, ServerMessage, StatsRecord, SubscriberMessage,
    TopicRecord, VERSION, Welcome, WorkerMessage, decode, parse_greeting, parse_hello, unknown_request, write_hello, write_log,
    write_message, write_refusal, write_server_message, write_welcome,
};

const VECTORS: &str = include_str!("../../tests/vectors/bus.txt");

fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let rows = VECTORS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|row| {
        let mut columns = row.splitn(3, " | ");
        let mut column = || columns.next().unwrap_or_else(|| panic!("a column is missing: {row}"));
        (column(), column(), column())
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Compares what we write with the rows of that kind, one by one and in order.
fn compare(kind: &str, written: Vec<(String, Vec<u8>)>) {
    let expected: Vec<(String, String)> =
        rows().filter(|(.., of)| *of == kind).map(|(hex, meaning, _)| (meaning.to_owned(), hex.to_owned())).collect();
    let lines: String = written.iter().map(|(meaning, bytes)| format!("{} | {meaning} | {kind}\n", hex(bytes))).collect();
    let written: Vec<(String, String)> = written.into_iter().map(|(meaning, bytes)| (meaning, hex(&bytes))).collect();
    assert!(written == expected, "tests/vectors/bus.txt does not have these rows. Is it a new version?\n{lines}");
}

fn message(message: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, message);
    bytes
}

fn node() -> NodeInfo {
    NodeInfo {
        id: "n1".into(),
        peer: "10.0.0.1:5000".parse().unwrap(),
        connection_id: 300,
        channel_id: 7,
        online: true,
        last_heartbeat: 1_700_000_000.5,
        heartbeat_count: 2,
        total_messages: 1,
        last_message: 0.0,
        created_at: 1_700_000_000.25,
        bytes_waiting: 5,
        metadata: "[]".into(),
    }
}

fn welcome() -> Welcome {
    Welcome {
        name: "HeartbeatServer".into(),
        package: "0.1.0".into(),
        pid: 4711,
        started_at: 1_700_000_000_500_000,
        listen: "0.0.0.0:9501".parse().unwrap(),
        takes_workers: true,
        worker: 3,
        frame_cap: 16_777_216,
        max_frame_bytes: 10_485_760,
        max_connections: 1000,
        io_threads: 2,
        heartbeat_timeout: 30_000_000,
    }
}

#[test]
fn the_hellos_are_those_of_the_vectors() {
    let hello = |role| {
        let mut bytes = Vec::new();
        write_hello(&mut bytes, VERSION, role, 4711, "0.1.0");
        bytes
    };
    compare(
        "hello",
        vec![
            ("a client, pid 4711, package 0.1.0".into(), hello(Role::Client)),
            ("a worker, the same".into(), hello(Role::Worker)),
            ("a subscriber, the same".into(), hello(Role::Subscriber)),
        ],
    );
    for (hex, ..) in rows().filter(|(.., kind)| *kind == "hello") {
        let bytes = bytes_of(hex);
        let (Hello { version, pid, package, .. }, len) = parse_hello(&bytes).unwrap().unwrap();
        assert_eq!((version, pid, package.as_str(), len), (VERSION, 4711, "0.1.0", bytes.len()));
    }
}

#[test]
fn the_greetings_are_those_of_the_vectors() {
    let refusal = RemoteError { kind: 3, message: "both must run the same release".into() };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    write_welcome(&mut first, VERSION, &welcome());
    write_refusal(&mut second, &refusal);
    assert_eq!(parse_greeting(&first).unwrap().unwrap(), (Ok(welcome()), first.len()));
    assert_eq!(parse_greeting(&second).unwrap().unwrap(), (Err(refusal), second.len()));
    let text = "welcome: HeartbeatServer, package 0.1.0, pid 4711, since 1700000000.5, at 0.0.0.0:9501, takes workers, \
                worker 3, frames up to 16777216, messages up to 10485760, 1000 connections, 2 threads, timeout 30000000 us";
    compare("greeting", vec![(text.into(), first), ("refused, kind 3: both must run the same release".into(), second)]);
}

/// One of each; a new variant does not compile before it is here.
fn requests() -> Vec<(&'static str, Request<'static>)> {
    let all = vec![
        ("SendTo n1, channel 7: hi", Request::SendTo { node: "n1", channel: 7, data: b"hi" }),
        ("SendMany n1, n2: hi", Request::SendMany { nodes: vec!["n1", "n2"], data: b"hi" }),
        ("Broadcast: the bytes ff 00", Request::Broadcast { data: b"\xff\0" }),
        ("Disconnect n1", Request::Disconnect { node: "n1" }),
        ("KeepAlive n1", Request::KeepAlive { node: "n1" }),
        ("Node n1", Request::Node { id: "n1" }),
        ("NodeOfChannel 7", Request::NodeOfChannel { channel: 7 }),
        ("NodeOfConnection 300", Request::NodeOfConnection { connection: 300 }),
        ("Page: the first 100", Request::Page { after: None, limit: 100, id_pattern: None, ip: None }),
        (
            "Page: 10 behind 5, ids a*, from 10.0.0.1",
            Request::Page { after: Some(5), limit: 10, id_pattern: Some("a*"), ip: Some("10.0.0.1".parse().unwrap()) },
        ),
        ("Page: 10 from ::1", Request::Page { after: None, limit: 10, id_pattern: None, ip: Some("::1".parse().unwrap()) }),
        ("Stats", Request::Stats),
        ("HeartbeatTimeout", Request::HeartbeatTimeout),
        ("SetHeartbeatTimeout 30000000 us", Request::SetHeartbeatTimeout { micros: 30_000_000 }),
        ("Connections: up to 10", Request::Connections { max: 10 }),
        ("CloseDoor", Request::CloseDoor),
        ("SetMetadata of n1, channel 7: {\"room\":1}", Request::SetMetadata { node: "n1", channel: 7, members: r#"{"room":1}"# }),
        (
            "Find: 10 behind 5, ids a*, from 10.0.0.1, with {\"room\":1}",
            Request::Find {
                after: Some(5),
                limit: 10,
                id_pattern: Some("a*"),
                ip: Some("10.0.0.1".parse().unwrap()),
                metadata: r#"{"room":1}"#,
            },
        ),
        ("Publish to a/b, not to n1: hi", Request::Publish { topic: "a/b", data: b"hi", except: vec!["n1"] }),
        ("BroadcastExcept n1: hi", Request::BroadcastExcept { data: b"hi", except: vec!["n1"] }),
        ("Subscribers of a/b", Request::Subscribers { topic: "a/b" }),
        ("Topics: 10 behind 5", Request::Topics { after: Some(5), limit: 10 }),
        ("Join n1 to a/b", Request::Join { node: "n1", topic: "a/b" }),
        ("Leave a/+ of n1", Request::Leave { node: "n1", filter: "a/+" }),
        ("Members of a/b: the first 100", Request::Members { topic: "a/b", after: None, limit: 100 }),
        ("TopicsOf n1", Request::TopicsOf { node: "n1" }),
        ("Decide 5: refuse", Request::Decide { question: 5, decision: DecisionRecord::Refuse }),
        ("Decide 5: allow", Request::Decide { question: 5, decision: DecisionRecord::Allow }),
        (
            "Decide 5: allow with {\"room\":1}",
            Request::Decide { question: 5, decision: DecisionRecord::AllowWithMetadata(r#"{"room":1}"#) },
        ),
        ("Decide 5: topics a/1, a/2", Request::Decide { question: 5, decision: DecisionRecord::AllowTopics(vec!["a/1", "a/2"]) }),
        (
            "Decide 5: hi to a/b instead",
            Request::Decide { question: 5, decision: DecisionRecord::AllowPublication { topic: "a/b", data: b"hi" } },
        ),
    ];
    for (_, request) in &all {
        match request {
            Request::SendTo { .. } | Request::SendMany { .. } | Request::Broadcast { .. } | Request::Disconnect { .. } => {}
            Request::KeepAlive { .. } | Request::Node { .. } | Request::NodeOfChannel { .. } | Request::NodeOfConnection { .. } => {}
            Request::Page { .. } | Request::Stats | Request::HeartbeatTimeout | Request::SetHeartbeatTimeout { .. } => {}
            Request::Connections { .. } | Request::CloseDoor | Request::SetMetadata { .. } | Request::Find { .. } => {}
            Request::Publish { .. } | Request::BroadcastExcept { .. } | Request::Subscribers { .. } | Request::Topics { .. } => {}
            Request::Join { .. } | Request::Leave { .. } | Request::Members { .. } | Request::TopicsOf { .. } => {}
            Request::Decide { decision: DecisionRecord::Refuse | DecisionRecord::Allow, .. } => {}
            Request::Decide { decision: DecisionRecord::AllowWithMetadata(_) | DecisionRecord::AllowTopics(_), .. } => {}
            Request::Decide { decision: DecisionRecord::AllowPublication { .. }, .. } => {}
        }
    }
    all
}

#[test]
fn the_requests_are_those_of_the_vectors() {
    let asks = requests().into_iter().map(|(meaning, request)| (meaning, RequestFrame { id: 200, request }));
    let written = asks.map(|(meaning, ask)| {
        let bytes = message(&ask);
        assert_eq!(decode::<RequestFrame<'_>>(&bytes[LENGTH_LEN..]), Ok(ask));
        (format!("200: {meaning}"), bytes)
    });
    compare("request", written.collect());
}

#[test]
fn a_request_that_came_later_is_known_as_such() {
    let kinds: std::collections::BTreeSet<u32> = requests()
        .into_iter()
        .map(|(_, request)| {
            let bytes = message(&RequestFrame { id: 200, request });
            assert_eq!(unknown_request(&bytes[LENGTH_LEN..]), None);
            u32::from(bytes[LENGTH_LEN + 2])
        })
        .collect();
    let count = kinds.len() as u32;
    assert_eq!(kinds, (0..count).collect(), "numbers without a gap");
    let mut newer = message(&RequestFrame { id: 200, request: Request::Stats });
    newer[LENGTH_LEN + 2] = count as u8;
    assert_eq!(unknown_request(&newer[LENGTH_LEN..]), Some((200, count)));
    assert_eq!(unknown_request(b""), None);
}

/// Reads nothing: it notes which variants an enum has, and under which name.
struct Variants(Vec<String>);

impl<'de> serde::Deserializer<'de> for &mut Variants {
    type Error = serde::de::value::Error;

    fn deserialize_enum<V: serde::de::Visitor<'de>>(self, name: &str, variants: &[&str], _: V) -> Result<V::Value, Self::Error> {
        self.0.extend(variants.iter().map(|variant| format!("{name}::{variant}")));
        Err(serde::de::Error::custom("there is nothing to read"))
    }

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("no enum"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// All that the two sides may say to each other, each enum in the order of its numbers.
fn all_messages() -> Vec<String> {
    let mut found = Variants(Vec::new());
    let _ = <Request<'_> as serde::Deserialize>::deserialize(&mut found);
    let _ = <DecisionRecord<'_> as serde::Deserialize>::deserialize(&mut found);
    let _ = <Reply as serde::Deserialize>::deserialize(&mut found);
    let _ = <WorkerMessage as serde::Deserialize>::deserialize(&mut found);
    let _ = <SubscriberMessage as serde::Deserialize>::deserialize(&mut found);
    let _ = <FeedMessage<'_> as serde::Deserialize>::deserialize(&mut found);
    let mut all = found.0;
    all.extend((0..=u8::MAX).map_while(ServerMessage::from_code).map(|message| format!("ServerMessage::{message:?}")));
    let role = |code: u8| {
        let mut bytes = Vec::new();
        write_hello(&mut bytes, VERSION, Role::Client, 1, "");
        bytes[6] = code;
        parse_hello(&bytes).expect("a hello").expect("a whole one").0.role
    };
    all.extend((0..=u8::MAX).map_while(role).map(|role| format!("Role::{role:?}")));
    all
}

#[test]
fn whatever_was_appended_has_raised_the_minor_version() {
    let appended = APPENDED.concat();
    let all = all_messages();
    let missing: Vec<&String> = all.iter().filter(|message| !appended.contains(&message.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?} want a row of their own in core/src/wire/bus/versions.rs, which raises MINOR");
    // Each once, none that is gone, and the older ones in front: a number that was given stays.
    assert_eq!(appended.len(), all.len(), "{appended:?}");
    for kind in ["Request", "DecisionRecord", "Reply", "WorkerMessage", "SubscriberMessage", "FeedMessage", "ServerMessage", "Role"] {
        let of_kind = |name: &&str| name.split_once("::").is_some_and(|(of, _)| of == kind);
        let in_versions: Vec<&str> = appended.iter().copied().filter(of_kind).collect();
        let in_numbers: Vec<&str> = all.iter().map(String::as_str).filter(of_kind).collect();
        assert_eq!(in_versions, in_numbers);
    }
    assert!(APPENDED.iter().all(|row| !row.is_empty()));
    assert_eq!(usize::from(VERSION.minor), APPENDED.len() - 1);
}

#[test]
fn the_answers_are_those_of_the_vectors() {
    let connection = ConnectionInfo {
        id: 300,
        peer: "[::1]:5000".parse().unwrap(),
        nodes: 1,
        first_node: Some("n1".into()),
        bytes_in: 1000,
        bytes_out: 2000,
        bytes_waiting_in: 0,
        bytes_waiting_out: 3,
    };
    let stats = StatsRecord {
        numbers: vec![("nodes_online".into(), 1), ("bytes_in".into(), 1000)],
        messages: DurationsRecord { buckets: vec![1, 0, 300], micros: 5 },
        heartbeats: DurationsRecord::default(),
    };
    let described = "n1 at 10.0.0.1:5000, connection 300, channel 7, online, heartbeat 1700000000.5, 2 heartbeats, 1 message, \
                     last message 0.0, since 1700000000.25, metadata []";
    let replies = vec![
        ("Done".to_owned(), Ok(Reply::Done)),
        ("Count 300".to_owned(), Ok(Reply::Count(300))),
        ("no Node".to_owned(), Ok(Reply::Node(None))),
        (format!("Node {described}"), Ok(Reply::Node(Some(node())))),
        ("Page of that node, next 5".to_owned(), Ok(Reply::Page { nodes: vec![node()], next: Some(5) })),
        ("Stats nodes_online 1, bytes_in 1000, messages [1, 0, 300] in 5 us, no heartbeats".to_owned(), Ok(Reply::Stats(stats))),
        ("Micros 30000000".to_owned(), Ok(Reply::Micros(30_000_000))),
        (
            "Connections 300 at [::1]:5000, 1 node, first n1, in 1000, out 2000, waiting in 0, out 3".to_owned(),
            Ok(Reply::Connections(vec![connection])),
        ),
        (
            "Publication at 5 of epoch 300, for 2".to_owned(),
            Ok(Reply::Publication(PublicationRecord { position: Some((5, 300)), reach: 2 })),
        ),
        ("Publication without position, for 0".to_owned(), Ok(Reply::Publication(PublicationRecord { position: None, reach: 0 }))),
        (
            "Topics a/b with 2, next 5".to_owned(),
            Ok(Reply::Topics { topics: vec![TopicRecord { name: "a/b".into(), subscribers: 2 }], next: Some(5) }),
        ),
        ("Names n1, the last".to_owned(), Ok(Reply::Names { names: vec!["n1".into()], next: None })),
        ("error 7: No such node is online".to_owned(), Err(RemoteError { kind: 7, message: "No such node is online".into() })),
    ];
    for (_, reply) in &replies {
        match reply {
            Ok(Reply::Done | Reply::Count(_) | Reply::Node(_) | Reply::Page { .. } | Reply::Stats(_)) => {}
            Ok(Reply::Micros(_) | Reply::Connections(_) | Reply::Publication(_) | Reply::Topics { .. } | Reply::Names { .. }) | Err(_) => {}
        }
    }
    let written = replies.into_iter().map(|(meaning, result)| {
        let answer = Response { id: 200, result };
        let bytes = message(&answer);
        assert_eq!(decode::<Response>(&bytes[LENGTH_LEN..]), Ok(answer));
        (format!("200: {meaning}"), bytes)
    });
    compare("answer", written.collect());
}

#[test]
fn the_words_of_workers_are_those_of_the_vectors() {
    let words = vec![
        ("Ready, data and left", WorkerMessage::Ready { mask: 24 }),
        ("Subscribe to nothing", WorkerMessage::Subscribe { mask: 0 }),
        ("Acknowledge batch 300", WorkerMessage::Acknowledge { batch: 300 }),
        ("Leave", WorkerMessage::Leave),
        ("Watch channel 7", WorkerMessage::Watch { channel: 7 }),
        ("Unwatch channel 7", WorkerMessage::Unwatch { channel: 7 }),
        ("AcknowledgePart of batch 300: 2 done, 1 begun", WorkerMessage::AcknowledgePart { batch: 300, done: 2, begun: 1 }),
        ("TakeLog", WorkerMessage::TakeLog),
        ("SubscribeTopics a/+", WorkerMessage::SubscribeTopics { filter: "a/+".into() }),
        ("UnsubscribeTopics a/+", WorkerMessage::UnsubscribeTopics { filter: "a/+".into() }),
    ];
    for (_, word) in &words {
        match word {
            WorkerMessage::Ready { .. } | WorkerMessage::Subscribe { .. } | WorkerMessage::Acknowledge { .. } => {}
            WorkerMessage::Leave
            | WorkerMessage::Watch { .. }
            | WorkerMessage::Unwatch { .. }
            | WorkerMessage::AcknowledgePart { .. }
            | WorkerMessage::TakeLog
            | WorkerMessage::SubscribeTopics { .. }
            | WorkerMessage::UnsubscribeTopics { .. } => {}
        }
    }
    let written = words.into_iter().map(|(meaning, word)| {
        let bytes = message(&word);
        assert_eq!(decode::<WorkerMessage>(&bytes[LENGTH_LEN..]), Ok(word));
        (meaning.to_owned(), bytes)
    });
    compare("word", written.collect());
}

#[test]
fn the_news_without_events_are_those_of_the_vectors() {
    let news = |news| {
        let mut bytes = Vec::new();
        write_server_message(&mut bytes, news);
        bytes
    };
    let line = LogLine { level: LineLevel::Warning, message: "too slow".into(), context: r#""id":7"#.into() };
    let mut log = Vec::new();
    write_log(&mut log, &line);
    assert_eq!(decode::<LogLine>(&log[LENGTH_LEN + 1..]), Ok(line));
    compare(
        "news",
        vec![
            ("Stopping".into(), news(ServerMessage::Stopping)),
            ("Finished".into(), news(ServerMessage::Finished)),
            ("Log, warning: too slow, \"id\":7".into(), log),
        ],
    );
}

#[test]
fn what_subscribers_say_and_are_told_is_that_of_the_vectors() {
    let said = vec![
        ("Subscribe a/+", SubscriberMessage::Subscribe { filter: "a/+".into() }),
        ("Unsubscribe a/+", SubscriberMessage::Unsubscribe { filter: "a/+".into() }),
        ("SubscribeFrom a/b, behind nothing", SubscriberMessage::SubscribeFrom { topic: "a/b".into(), since: None }),
        ("SubscribeFrom a/b, behind 300 of epoch 7", SubscriberMessage::SubscribeFrom { topic: "a/b".into(), since: Some((300, 7)) }),
    ];
    for (_, said) in &said {
        match said {
            SubscriberMessage::Subscribe { .. } | SubscriberMessage::Unsubscribe { .. } | SubscriberMessage::SubscribeFrom { .. } => {}
        }
    }
    let written = said.into_iter().map(|(meaning, said)| {
        let bytes = message(&said);
        assert_eq!(decode::<SubscriberMessage>(&bytes[LENGTH_LEN..]), Ok(said));
        (meaning.to_owned(), bytes)
    });
    compare("filter", written.collect());
    let error = RemoteError { kind: 6, message: "Too many topics on this server".into() };
    let told = vec![
        ("Subscribed a/+", FeedMessage::Subscribed { filter: "a/+" }),
        ("Refused a/+, error 6: Too many topics on this server", FeedMessage::Refused { filter: "a/+", error }),
        (
            "Message of a/b by n1 at 7 in epoch 1764000000000000: ff 00",
            FeedMessage::Message { topic: "a/b", payload: b"\xff\0", position: Some((7, 1_764_000_000_000_000)), from: Some("n1") },
        ),
        ("Message of c, no more", FeedMessage::Message { topic: "c", payload: b"", position: None, from: None }),
        ("Gap of 300", FeedMessage::Gap { dropped: 300 }),
        ("Begun a/b at 300 of epoch 7, recovered", FeedMessage::Begun { topic: "a/b", newest: (300, 7), recovered: true }),
        ("Lost of a/b", FeedMessage::Lost { topic: "a/b" }),
    ];
    for (_, told) in &told {
        match told {
            FeedMessage::Subscribed { .. } | FeedMessage::Refused { .. } | FeedMessage::Message { .. } | FeedMessage::Gap { .. } => {}
            FeedMessage::Begun { .. } | FeedMessage::Lost { .. } => {}
        }
    }
    let written = told.into_iter().map(|(meaning, told)| {
        let bytes = message(&told);
        assert_eq!(decode::<FeedMessage<'_>>(&bytes[LENGTH_LEN..]), Ok(told));
        (meaning.to_owned(), bytes)
    });
    compare("feed", written.collect());
}

#[test]
fn the_kinds_of_rows_are_known() {
    for (hex, _, kind) in rows() {
        let of_workers = ["word", "news", "batch", "messages", "question", "subscribing", "publishing", "coming and going"];
        let others = ["hello", "greeting", "request", "answer", "filter", "feed"];
        assert!(others.contains(&kind) || of_workers.contains(&kind), "{kind}");
        assert!(hex.len() % 2 == 0);
    }
}
