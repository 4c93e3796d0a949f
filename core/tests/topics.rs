//! Topics over real connections: who hears what, in which order, what is kept for those who come back, and what becomes of others
//! meanwhile.

mod support;

use heartbus_core::engine::Position;
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{Event, EventMask, Fill};
use heartbus_core::settings::{HistoryRule, InboxLimits, ServerConfig};
use heartbus_core::wire::topic_frames::{Message, Publish, PublishReply, Subscribe, SubscribeReply, Unsubscribe, parse_error_subject};
use heartbus_core::wire::{Dialect, control, topic};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Fixture, Peer, Received, deadline};

const SUBSCRIBE: u8 = 9;
const UNSUBSCRIBE: u8 = 10;
const PUBLISH: u8 = 11;
const MESSAGE: u8 = 12;
const PING: u8 = 4;
const PONG: u8 = 5;
const ERROR: u8 = 8;

fn quiet(config: ServerConfig) -> Fixture {
    Fixture::start_with(config, InboxLimits::default(), EventMask::NONE)
}

fn keeping(filter: &str, count: usize) -> ServerConfig {
    let rule = HistoryRule { filter: filter.into(), count, bytes: 64 << 20, ttl: Duration::from_secs(3600) };
    ServerConfig { history: vec![rule], total_buffer_bytes: 4 << 30, ..ServerConfig::default() }
}

/// A node in a dialect.
struct Node {
    peer: Peer,
    dialect: Dialect,
}

impl Node {
    fn register(server: &Fixture, id: &str, dialect: Dialect) -> Self {
        Self::at(server.engine.local_addr(), id, dialect)
    }

    fn at(address: SocketAddr, id: &str, dialect: Dialect) -> Self {
        let mut peer = Peer::over(std::net::TcpStream::connect(address).unwrap());
        let protocol = if dialect == Dialect::V2 { 2 } else { 1 };
        peer.send(6, 0, &format!(r#"{{"node_id":"{id}","protocol":{protocol}}}"#));
        assert_eq!(peer.frame().frame_type, 6);
        if dialect == Dialect::V2 {
            peer.send_v2(17, 0, b"");
        }
        let mut node = Self { peer, dialect };
        node.sync();
        node
    }

    fn send(&mut self, frame_type: u8, channel_id: u32, payload: &[u8]) {
        match self.dialect {
            Dialect::V1 => self.peer.send(frame_type, channel_id.into(), std::str::from_utf8(payload).unwrap()),
            Dialect::V2 => self.peer.send_v2(frame_type, channel_id, payload),
        }
    }

    fn ask(&mut self, filter: &str, since: Option<Position>, channel_id: u32) {
        let mut payload = Vec::new();
        Subscribe { filter: filter.into(), since }.encode(self.dialect, &mut payload);
        self.send(SUBSCRIBE, channel_id, &payload);
    }

    fn subscribe(&mut self, filter: &str, since: Option<Position>) -> (Option<Position>, bool) {
        self.ask(filter, since, 0);
        let answer = self.peer.frame();
        assert_eq!((answer.frame_type, answer.dialect), (SUBSCRIBE, self.dialect), "{}", answer.text());
        let reply = SubscribeReply::decode(self.dialect, &answer.payload).unwrap();
        assert_eq!(reply.filter, filter);
        (reply.position, reply.recovered)
    }

    fn unsubscribe(&mut self, filter: &str) {
        let mut payload = Vec::new();
        Unsubscribe { filter: filter.into() }.encode(self.dialect, &mut payload);
        self.send(UNSUBSCRIBE, 0, &payload);
        let answer = self.peer.frame();
        assert_eq!(answer.frame_type, UNSUBSCRIBE);
        assert_eq!(Unsubscribe::decode(self.dialect, &answer.payload).unwrap().filter, filter);
    }

    fn publish(&mut self, topic: &str, data: &[u8], id: Option<u32>) {
        let mut payload = Vec::new();
        Publish { topic: topic.into(), id, data: data.into() }.encode(self.dialect, &mut payload).unwrap();
        self.send(PUBLISH, 0, &payload);
    }

    fn published(&mut self) -> PublishReply {
        let answer = self.peer.frame();
        assert_eq!(answer.frame_type, PUBLISH, "{}", answer.text());
        PublishReply::decode(self.dialect, &answer.payload).unwrap()
    }

    fn message(&mut self) -> (String, Option<Position>, Vec<u8>) {
        let frame = self.peer.frame();
        assert_eq!((frame.frame_type, frame.dialect), (MESSAGE, self.dialect), "{:?}", String::from_utf8_lossy(&frame.payload));
        of(&frame)
    }

    /// Topic and text of what comes next.
    fn heard(&mut self) -> (String, String) {
        let (topic, _, data) = self.message();
        (topic, String::from_utf8(data).unwrap())
    }

    /// Everything that was sent before this call came; nothing else did.
    fn sync(&mut self) {
        self.send(PING, 0, b"");
        let frame = self.peer.frame();
        assert_eq!(frame.frame_type, PONG, "{:?}", String::from_utf8_lossy(&frame.payload));
    }

    fn refusal(&mut self) -> (i64, String, Option<u32>) {
        let frame = self.peer.frame();
        assert_eq!((frame.frame_type, frame.dialect), (ERROR, self.dialect), "{:?}", String::from_utf8_lossy(&frame.payload));
        let (subject, id) = parse_error_subject(&frame.payload);
        (control::parse_error(&frame.payload).unwrap().code, subject.unwrap(), id)
    }
}

fn of(frame: &Received) -> (String, Option<Position>, Vec<u8>) {
    let Message { topic, position, data } = Message::decode(frame.dialect, &frame.payload).unwrap();
    (topic.into_owned(), position, data.into_owned())
}

const BOTH: [Dialect; 2] = [Dialect::V1, Dialect::V2];

#[test]
fn nodes_of_both_dialects_hear_what_they_subscribed_to_and_who_publishes_learns_position_and_reach() {
    let server = quiet(ServerConfig { io_threads: 2, ..ServerConfig::default() });
    let [mut old, mut new] = BOTH.map(|dialect| Node::register(&server, &format!("{dialect:?}"), dialect));
    let mut other = Node::register(&server, "other", Dialect::V2);
    assert!(other.subscribe("elsewhere", None).1);
    for node in [&mut old, &mut new] {
        let (position, recovered) = node.subscribe("a/b", None);
        assert!(recovered && position.is_some_and(|position| position.offset == 0));
        assert_eq!(node.subscribe("a/+", None), (None, true));
    }
    for (number, publisher) in [(1, Dialect::V1), (2, Dialect::V2)] {
        let publisher = if publisher == Dialect::V1 { &mut old } else { &mut new };
        publisher.publish("a/b", format!("text \"{number}\" é").as_bytes(), Some(number));
        let reply = publisher.published();
        assert_eq!((reply.id, reply.reach, reply.position.unwrap().offset), (number, 4, number.into()));
        for node in [&mut old, &mut new] {
            let (topic, position, data) = node.message();
            assert_eq!((&*topic, position.unwrap().offset, data), ("a/b", number.into(), format!("text \"{number}\" é").into_bytes()));
            node.sync();
        }
    }
    // Bytes that v1 cannot carry are for those who speak v2.
    new.publish("a/c", b"\xff\0", None);
    assert_eq!(new.message(), ("a/c".into(), None, b"\xff\0".to_vec()));
    assert_eq!(server.engine.publish("a/b", b"from the host", &[]).unwrap().reach, 4);
    for node in [&mut old, &mut new] {
        assert_eq!(node.heard(), ("a/b".into(), "from the host".into()));
        node.sync();
    }
    other.sync();
    let stats = server.engine.stats();
    assert_eq!((stats.topics_active, stats.subscriptions_active, stats.counts.published), (3, 5, 4));
    assert_eq!((stats.counts.subscribes, stats.counts.publishes, stats.counts.topic_messages_out), (5, 3, 7));
}

#[test]
fn a_subscription_is_a_nodes_comes_on_its_channel_and_ends_with_its_registration_or_its_word() {
    let server = quiet(ServerConfig::default());
    let mut gateway = Node::register(&server, "first", Dialect::V1);
    gateway.peer.send(6, 0, r#"{"node_id":"second"}"#);
    assert_eq!(gateway.peer.frame().frame_type, 6);
    let channels = ["first", "second"].map(|id| server.engine.node(id).unwrap().channel_id());
    for channel in channels {
        gateway.ask("t", None, channel);
        assert_eq!(gateway.peer.frame().channel_id, i64::from(channel));
    }
    assert_eq!(server.engine.publish("t", b"1", &["first"]).unwrap().reach, 2);
    let frame = gateway.peer.frame();
    assert_eq!((frame.channel_id, of(&frame).2), (channels[1].into(), b"1".to_vec()), "the first one was left out");
    gateway.peer.send(7, channels[1].into(), "");
    gateway.sync();
    assert_eq!(server.engine.publish("t", b"2", &[]).unwrap().reach, 1);
    assert_eq!(gateway.peer.frame().channel_id, i64::from(channels[0]));
    gateway.unsubscribe("t");
    gateway.unsubscribe("t");
    assert_eq!(server.engine.publish("t", b"3", &[]).unwrap().reach, 0);
    gateway.sync();
    // A connection that ends, and a node that moves to another one.
    let mut mover = Node::register(&server, "mover", Dialect::V2);
    gateway.subscribe("#", None);
    mover.subscribe("t", None);
    let mut moved = Node::register(&server, "mover", Dialect::V2);
    server.until("the old one to end", |stats| stats.subscriptions_active == 1);
    assert_eq!(server.engine.publish("t", b"4", &[]).unwrap().reach, 1);
    moved.sync();
    drop(gateway);
    server.until("all to end", |stats| stats.subscriptions_active == 0 && stats.topics_active == 0);
    assert_eq!(server.engine.stats().memory.topics, 0);
}

#[test]
fn what_cannot_be_is_refused_with_its_topic_and_number_and_nothing_else_happens() {
    let server = quiet(ServerConfig { max_subscriptions: 2, max_topics: 3, max_frame_bytes: 2000, ..ServerConfig::default() });
    for dialect in BOTH {
        let mut node = Node::register(&server, "n", dialect);
        let mut stranger = server.connect();
        for (filter, since, code) in [
            ("", None, 400),
            ("a/#/b", None, 400),
            ("a\n", None, 400),
            ("$nodes", None, 403),
            ("a/+", Some(Position { offset: 1, epoch: 1 }), 400),
        ] {
            node.ask(filter, since, 0);
            assert_eq!(node.refusal(), (code, filter.to_owned(), None), "{filter}");
        }
        node.ask("a", None, 4_000_000);
        assert_eq!(node.refusal().0, 404, "a stranger's channel");
        node.subscribe("a", None);
        node.subscribe("b", None);
        node.subscribe("a", None);
        node.ask("c", None, 0);
        assert_eq!(node.refusal(), (403, "c".into(), None));
        for (topic, code) in [("", 400), ("a/+", 400), ("$nodes", 403)] {
            node.publish(topic, b"x", Some(7));
            assert_eq!(node.refusal(), (code, topic.to_owned(), Some(7)));
        }
        node.publish("a", &[b'x'; 1800], Some(8));
        assert_eq!(node.refusal(), (400, "a".into(), Some(8)), "with its head it is longer than a frame may be");
        node.send(SUBSCRIBE, 0, b"");
        assert_eq!(node.refusal(), (400, String::new(), None));
        node.sync();
        // Nobody is registered there.
        let mut payload = Vec::new();
        Subscribe { filter: "a".into(), since: None }.encode(Dialect::V1, &mut payload);
        stranger.send(SUBSCRIBE, 0, std::str::from_utf8(&payload).unwrap());
        assert_eq!(control::parse_error(&stranger.frame().payload).unwrap().code, 404);
        let mut second = Node::register(&server, "m", dialect);
        second.subscribe("c", None);
        second.ask("d", None, 0);
        assert_eq!(second.refusal(), (403, "d".into(), None), "the server has all topics it may have");
        second.subscribe("a", None);
        drop((node, second, stranger));
        server.until("all to end", |stats| stats.subscriptions_active == 0 && stats.connections_active == 0);
    }
    let refused = |topic: &str| server.engine.publish(topic, b"x", &[]).unwrap_err().kind;
    assert_eq!(["", "a/#", "$x"].map(refused), [ErrorKind::InvalidArgument; 3]);
    assert_eq!(server.engine.publish("a", &[0; 1990], &[]).unwrap_err().kind, ErrorKind::Limit);
    let stats = server.engine.stats();
    assert_eq!((stats.counts.subscribes_refused, stats.memory.topics), (20, 0));
}

#[test]
fn who_comes_back_gets_what_it_missed_once_and_in_order_or_is_told_that_something_is_missing() {
    let server = quiet(keeping("chat/#", 5));
    for dialect in BOTH {
        let topic = format!("chat/{dialect:?}");
        let positions: Vec<Position> =
            (1..=8).map(|n| server.engine.publish(&topic, n.to_string().as_bytes(), &[]).unwrap().position.unwrap()).collect();
        let mut node = Node::register(&server, "n", dialect);
        let mut back = |since: Position, expected: &[u64], is_recovered: bool| {
            assert_eq!(node.subscribe(&topic, Some(since)), (Some(positions[7]), is_recovered), "{since:?}");
            for offset in expected {
                let (_, position, data) = node.message();
                assert_eq!((position.unwrap().offset, data), (*offset, offset.to_string().into_bytes()));
            }
            node.sync();
        };
        back(positions[7], &[], true);
        back(positions[4], &[6, 7, 8], true);
        back(positions[2], &[4, 5, 6, 7, 8], true);
        back(positions[1], &[4, 5, 6, 7, 8], false);
        back(Position { offset: 9, ..positions[0] }, &[4, 5, 6, 7, 8], false);
        back(Position { offset: 3, epoch: positions[0].epoch - 1 }, &[4, 5, 6, 7, 8], false);
        assert_eq!(server.engine.publish(&topic, b"live", &[]).unwrap().reach, 1, "it has one subscription all the time");
        assert_eq!(node.heard(), (topic, "live".into()));
    }
}

/// What is kept is longer than the outbox, and the reader slow: what is published meanwhile waits behind it, and nothing is refused.
fn a_long_replay_to_who_has_subscribed_to(filter: Option<&str>) {
    const KEPT: u64 = 4_000;
    const LIVE: u64 = 1_000;
    let server = quiet(ServerConfig { outbox_bytes: 256 * 1024, io_threads: 1, ..keeping("#", 1 << 20) });
    let text = |n: u64| format!("{n} {}", "x".repeat(1_000));
    for n in 1..=KEPT {
        server.engine.publish("long", text(n).as_bytes(), &[]).unwrap();
    }
    let mut bystander = Node::register(&server, "bystander", Dialect::V2);
    bystander.subscribe("long", None);
    let mut node = Node::register(&server, "n", Dialect::V2);
    if let Some(filter) = filter {
        node.subscribe(filter, None);
    }
    node.ask("long", Some(Position::default()), 0);
    // Before that, what is new comes through the filter.
    assert_eq!(node.peer.frame().frame_type, SUBSCRIBE);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in KEPT + 1..=KEPT + LIVE {
                server.engine.publish("long", text(n).as_bytes(), &[]).unwrap();
                assert_eq!(bystander.message().1.unwrap().offset, n);
            }
        });
        for n in 1..=KEPT + LIVE {
            let (_, position, data) = node.message();
            assert_eq!((position.unwrap().offset, data), (n, text(n).into_bytes()));
            if n % 100 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    node.sync();
    assert_eq!(server.engine.stats().counts.topic_messages_refused, 0);
}

#[test]
fn a_long_replay_goes_over_into_what_is_live_without_a_gap_and_holds_nobody_up() {
    a_long_replay_to_who_has_subscribed_to(None);
}

#[test]
fn nothing_overtakes_a_replay_through_a_filter_and_nothing_comes_twice() {
    a_long_replay_to_who_has_subscribed_to(Some("#"));
}

#[test]
fn a_subscriber_that_reads_nothing_loses_by_its_own_outbox_and_the_host_is_told_while_others_get_all() {
    let server = Fixture::start(ServerConfig { outbox_bytes: 64 * 1024, ..ServerConfig::default() });
    let mut slow = Node::register(&server, "slow", Dialect::V1);
    slow.subscribe("hot", None);
    let mut reader = Node::register(&server, "reader", Dialect::V2);
    reader.subscribe("hot", None);
    let payload = "x".repeat(30_000);
    let deadline = deadline();
    while server.engine.stats().counts.topic_messages_refused == 0 {
        match server.engine.publish("hot", payload.as_bytes(), &[]) {
            Ok(published) => {
                assert_eq!(published.reach, 2);
                assert_eq!(reader.heard().1.len(), payload.len());
            }
            // The other one's thread has not come to it yet.
            Err(error) => assert_eq!(error.kind, ErrorKind::Limit),
        }
        assert!(std::time::Instant::now() < deadline, "its outbox never filled");
    }
    server.event_where(|event| matches!(event, Event::Buffer { node, fill: Fill::Full, .. } if &**node.id() == "slow"));
    reader.sync();
}

#[test]
fn the_host_puts_nodes_into_topics_and_lists_them_until_they_leave() {
    const NODES: usize = 25;
    let server = quiet(ServerConfig { io_threads: 2, ..ServerConfig::default() });
    let mut nodes: Vec<Node> = (0..NODES).map(|n| Node::register(&server, &format!("n{n}"), BOTH[n % 2])).collect();
    for n in 0..NODES {
        server.engine.join(&format!("n{n}"), "room/1").unwrap();
        server.engine.join(&format!("n{n}"), "room/1").unwrap();
    }
    nodes[0].subscribe("own/#", None);
    server.engine.join("n0", "room/2").unwrap();
    server.engine.publish("room/1", b"hello", &["n1", "nobody"]).unwrap();
    for (n, node) in nodes.iter_mut().enumerate().filter(|(n, _)| *n != 1) {
        assert_eq!(node.heard(), ("room/1".into(), "hello".into()), "{n}");
        node.sync();
    }
    nodes[1].sync();
    let all = |topic: &str| {
        let (mut found, mut after) = (BTreeSet::new(), None);
        loop {
            let (page, next) = server.engine.members(topic, after, 4).unwrap();
            assert!(page.len() <= 4);
            page.iter().for_each(|id| assert!(found.insert(id.to_string()), "{id} twice"));
            match next {
                Some(_) => after = next,
                None => return found,
            }
        }
    };
    assert_eq!(all("room/1"), (0..NODES).map(|n| format!("n{n}")).collect());
    assert_eq!(all("nowhere"), BTreeSet::new());
    let topics = |node: &str| server.engine.topics_of(node).unwrap().into_iter().collect::<BTreeSet<String>>();
    assert_eq!(topics("n0"), ["own/#", "room/1", "room/2"].map(str::to_owned).into());
    assert_eq!((server.engine.subscribers("room/1").unwrap(), server.engine.subscribers("own/x").unwrap()), (NODES, 1));
    let mut listed = BTreeMap::new();
    let mut after = None;
    loop {
        let (page, next) = server.engine.topics(after, 1).unwrap();
        listed.extend(page.into_iter().map(|(name, count)| (name.to_string(), count)));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, [("room/1".to_owned(), NODES), ("room/2".to_owned(), 1)].into());
    server.engine.leave("n0", "room/1").unwrap();
    server.engine.leave("n0", "own/#").unwrap();
    server.engine.leave("n0", "never").unwrap();
    assert_eq!((topics("n0"), all("room/1").len()), (["room/2".to_owned()].into(), NODES - 1));
    server.engine.publish("room/1", b"bye", &[]).unwrap();
    nodes[0].sync();
    assert_eq!(nodes[1].heard().1, "bye");
    for (refused, kind) in [
        (server.engine.join("nobody", "room/1"), ErrorKind::NotFound),
        (server.engine.join("n0", "room/+"), ErrorKind::InvalidArgument),
        (server.engine.leave("nobody", "room/1"), ErrorKind::NotFound),
        (server.engine.leave("n0", "a/#/b"), ErrorKind::InvalidArgument),
        (server.engine.members("#", None, 1).map(drop), ErrorKind::InvalidArgument),
        (server.engine.topics_of("nobody").map(drop), ErrorKind::NotFound),
        (server.engine.subscribers("").map(drop), ErrorKind::InvalidArgument),
    ] {
        assert_eq!(refused.unwrap_err().kind, kind);
    }
    assert_eq!(server.engine.broadcast_except(b"to most", &["n0", "n0", "n3", "nobody"]).unwrap(), NODES - 2);
    assert_eq!(nodes[5].heard().1, "bye");
    assert_eq!(nodes[5].peer.frame().text(), "to most");
    nodes[0].sync();
    // A node may be gone before its thread hears that it was put somewhere.
    for _ in 0..200 {
        let mut fleeting = Node::register(&server, "fleeting", Dialect::V1);
        let joined = server.engine.join("fleeting", "room/3");
        fleeting.peer.send(7, 0, "");
        assert!(joined.is_ok() || joined.unwrap_err().kind == ErrorKind::NotFound);
        let _ = server.engine.join("fleeting", "room/3");
    }
    server.until("nobody to be left there", |_| server.engine.subscribers("room/3").unwrap() == 0);
    nodes.clear();
    server.until("all to end", |stats| stats.subscriptions_active == 0 && stats.memory.topics == 0);
}

#[test]
fn one_publication_reaches_more_subscribers_than_a_pass_serves_and_a_bystander_is_answered_meanwhile() {
    const NODES: usize = 20_000;
    const ROUNDS: usize = 5;
    let config = ServerConfig { io_threads: 1, max_nodes_per_connection: NODES, outbox_bytes: 64 << 20, ..ServerConfig::default() };
    let server = quiet(ServerConfig { max_subscriptions: NODES, ..config });
    let mut gateway = Node::register(&server, "g", Dialect::V2);
    for n in 1..NODES {
        gateway.peer.send_v2(6, 0, format!(r#"{{"node_id":"g{n}","protocol":2}}"#).as_bytes());
        if n % 1000 == 0 || n + 1 == NODES {
            server.until("them to register", |stats| stats.nodes_online == n + 1);
        }
    }
    (1..NODES).for_each(|_| assert_eq!(gateway.peer.frame().frame_type, 6));
    let first = server.engine.node("g").unwrap().channel_id();
    for n in 0..NODES as u32 {
        gateway.peer.send_v2(SUBSCRIBE, first + n, b"\0t");
    }
    (0..NODES).for_each(|_| assert_eq!(gateway.peer.frame().frame_type, SUBSCRIBE));
    let mut bystander = Node::register(&server, "bystander", Dialect::V1);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = SetAtEnd(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                bystander.sync();
            }
        });
        for round in 0..ROUNDS {
            assert_eq!(server.engine.publish("t", round.to_string().as_bytes(), &[]).unwrap().reach, NODES);
        }
        let mut got = vec![0; NODES];
        for _ in 0..NODES * ROUNDS {
            let frame = gateway.peer.frame();
            let at = (frame.channel_id - i64::from(first)) as usize;
            assert_eq!(of(&frame).2, got[at].to_string().into_bytes());
            got[at] += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(got.iter().all(|count| *count == ROUNDS));
    });
    drop(gateway);
    server.until("it to end", |stats| stats.subscriptions_active == 0 && stats.memory.topics == 0);
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Topic, position and text.
type Heard = (String, Option<Position>, String);

const NAMES: [&str; 4] = ["a", "a/x", "a/y", "b"];
const FILTERS: [&str; 6] = ["a", "a/x", "a/+", "#", "b", "a/#"];

/// Several publishers, some of them nodes, and subscribers of both dialects on several threads that come and go: against a naive model.
#[test]
fn every_subscriber_hears_exactly_its_topics_each_in_one_order_whatever_others_do() {
    const PUBLISHERS: usize = 3;
    const MESSAGES: usize = 400;
    for seed in 1..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let server = quiet(ServerConfig { io_threads: 2, outbox_bytes: 16 << 20, ..ServerConfig::default() });
        let stay: Vec<(Node, Vec<&str>)> = (0..12)
            .map(|n| {
                let mut node = Node::register(&server, &format!("s{n}"), BOTH[n % 2]);
                let filters: BTreeSet<&str> = (0..random.usize(1..4)).map(|_| FILTERS[random.usize(0..FILTERS.len())]).collect();
                filters.iter().for_each(|filter| assert!(node.subscribe(filter, None).1));
                node.subscribe("end", None);
                (node, filters.into_iter().collect())
            })
            .collect();
        let is_over = AtomicBool::new(false);
        let heard: Vec<(Vec<&str>, Vec<Heard>)> = std::thread::scope(|scope| {
            // Also where something here fails: nobody waits for those who never stop.
            let _over = SetAtEnd(&is_over);
            let (engine, is_over) = (&server.engine, &is_over);
            let address = engine.local_addr();
            let churn: Vec<_> = (0..2_u64)
                .map(|churn| {
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(100 * seed + churn);
                        while !is_over.load(Ordering::Relaxed) {
                            let mut peer = Peer::over(std::net::TcpStream::connect(address).unwrap());
                            std::thread::sleep(Duration::from_millis(1));
                            // Both have these ids: they move. Some go in the middle of a fan-out.
                            peer.send(6, 0, &format!(r#"{{"node_id":"moves-{}"}}"#, random.usize(0..3)));
                            for _ in 0..random.usize(0..6) {
                                let filter = FILTERS[random.usize(0..FILTERS.len())];
                                let mut payload = Vec::new();
                                Subscribe { filter: filter.into(), since: None }.encode(Dialect::V1, &mut payload);
                                peer.send(
                                    if random.u8(0..3) == 0 { UNSUBSCRIBE } else { SUBSCRIBE },
                                    0,
                                    std::str::from_utf8(&payload).unwrap(),
                                );
                            }
                        }
                    })
                })
                .collect();
            let publishers: Vec<_> = (0..PUBLISHERS)
                .map(|publisher| {
                    let mut random = fastrand::Rng::with_seed(200 * seed + publisher as u64);
                    scope.spawn(move || {
                        // One of them is the host.
                        let mut node = (publisher > 0).then(|| Node::at(address, &format!("p{publisher}"), BOTH[publisher % 2]));
                        for number in 0..MESSAGES {
                            let (name, text) = (NAMES[random.usize(0..NAMES.len())], format!("{publisher} {number}"));
                            match &mut node {
                                Some(node) => {
                                    let id = (number % 50 == 49).then_some(number as u32);
                                    node.publish(name, text.as_bytes(), id);
                                    assert!(id.is_none() || node.published().id == number as u32);
                                }
                                None => {
                                    engine.publish(name, text.as_bytes(), &[]).unwrap();
                                }
                            }
                        }
                    })
                })
                .collect();
            publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
            engine.publish("end", b"", &[]).unwrap();
            let heard = stay.into_iter().map(|(mut node, filters)| {
                let mut got = Vec::new();
                loop {
                    let (topic, position, data) = node.message();
                    if topic == "end" {
                        return (filters, got);
                    }
                    got.push((topic, position, String::from_utf8(data).unwrap()));
                }
            });
            let heard = heard.collect();
            is_over.store(true, Ordering::Relaxed);
            churn.into_iter().for_each(|churn| churn.join().unwrap());
            heard
        });
        for name in NAMES {
            let mut order: Option<Vec<&str>> = None;
            for (filters, got) in &heard {
                let of_topic: Vec<&str> = got.iter().filter(|(topic, ..)| topic == name).map(|(.., text)| &**text).collect();
                if !filters.iter().any(|filter| topic::matches(filter, name)) {
                    assert!(of_topic.is_empty(), "seed {seed}: {name} for {filters:?}");
                    continue;
                }
                assert_eq!(of_topic.iter().collect::<BTreeSet<_>>().len(), of_topic.len(), "each once");
                match &order {
                    Some(order) => assert_eq!(*order, of_topic, "seed {seed}: {name}"),
                    None => order = Some(of_topic),
                }
            }
            let order = order.unwrap_or_default();
            for publisher in 0..PUBLISHERS {
                let own = order.iter().filter_map(|text| text.strip_prefix(&format!("{publisher} ")));
                assert!(own.map(|number| number.parse::<usize>().unwrap()).is_sorted(), "as it was sent");
            }
        }
        let total: usize = NAMES
            .iter()
            .map(|name| {
                heard
                    .iter()
                    .find(|(filters, _)| filters.contains(&"#"))
                    .map_or(0, |(_, got)| got.iter().filter(|(topic, ..)| topic == name).count())
            })
            .sum();
        assert!(total == PUBLISHERS * MESSAGES || heard.iter().all(|(filters, _)| !filters.contains(&"#")), "seed {seed}: {total}");
    }
}

#[test]
fn whoever_is_disconnected_behind_a_publication_has_got_it() {
    let server = quiet(ServerConfig { io_threads: 2, ..ServerConfig::default() });
    let dialect = |n| if n % 2 == 0 { Dialect::V1 } else { Dialect::V2 };
    let mut nodes: Vec<Node> = (0..300).map(|n| Node::register(&server, &format!("n{n}"), dialect(n))).collect();
    for node in &mut nodes {
        node.subscribe("news/#", None);
    }
    server.engine.publish("news/last", b"last words", &[]).unwrap();
    // From the end on, so that most are disconnected before it is their turn.
    (0..nodes.len()).rev().for_each(|n| server.engine.disconnect(&format!("n{n}")).unwrap());
    for node in &mut nodes {
        assert_eq!(node.heard(), ("news/last".to_owned(), "last words".to_owned()));
    }
}

#[test]
fn who_names_a_position_of_what_it_has_subscribed_to_already_stays_in_the_topics_life() {
    let server = quiet(ServerConfig { max_subscriptions: 1, ..ServerConfig::default() });
    for dialect in BOTH {
        let mut node = Node::register(&server, "a", dialect);
        let (begun, _) = node.subscribe("t", None);
        // Nothing is kept of it, and nobody else wants it.
        assert_eq!(node.subscribe("t", begun), (begun, true));
        node.publish("t", b"x", None);
        assert_eq!(node.message().1, begun.map(|begun| Position { offset: 1, ..begun }));
        assert_eq!(node.subscribe("t", begun), (begun.map(|begun| Position { offset: 1, ..begun }), false));
        assert_eq!((server.engine.subscribers("t").unwrap(), server.engine.stats().subscriptions_active), (1, 1));
        node.unsubscribe("t");
        assert_eq!(server.engine.stats().memory.topics, 0);
    }
}

#[test]
fn whose_first_word_in_v2_is_a_subscription_gets_what_v1_could_not_have_carried() {
    let server = quiet(keeping("#", 10));
    server.engine.publish("t", b"\xff", &[]).unwrap();
    let mut peer = Peer::over(std::net::TcpStream::connect(server.engine.local_addr()).unwrap());
    peer.send(6, 0, r#"{"node_id":"a","protocol":2}"#);
    assert_eq!(peer.frame().frame_type, 6);
    let mut node = Node { peer, dialect: Dialect::V2 };
    assert!(node.subscribe("t", Some(Position::default())).1);
    assert_eq!(node.message().2, b"\xff");
    server.engine.publish("t", b"\xfe", &[]).unwrap();
    assert_eq!(node.message().2, b"\xfe");
}

#[test]
fn who_wants_most_of_the_memory_for_topics_is_refused_before_others_find_none_left() {
    let server = quiet(ServerConfig { total_buffer_bytes: 16 << 20, ..ServerConfig::default() });
    let name = |who: usize, n: usize| format!("{who}/{n}/{}", "x".repeat(200));
    let mut greedy: Vec<Node> = (0..10).map(|n| Node::register(&server, &format!("greedy {n}"), Dialect::V2)).collect();
    for (who, node) in greedy.iter_mut().enumerate() {
        let granted = (0..1000).filter(|n| {
            node.ask(&name(who, *n), None, 0);
            let answer = node.peer.frame();
            assert!(answer.frame_type == SUBSCRIBE || answer.text().contains("Too many subscriptions on this connection"));
            answer.frame_type == SUBSCRIBE
        });
        let granted = granted.count();
        assert!((20..200).contains(&granted), "{granted} of number {who}");
    }
    let mut modest = Node::register(&server, "modest", Dialect::V2);
    (0..20).for_each(|n| assert!(modest.subscribe(&name(10, n), None).1));
    // What they go on with is theirs, and what has gone is there for others.
    assert!(greedy[0].subscribe(&name(0, 0), None).1);
    drop(greedy);
    server.until("it is free", |stats| stats.subscriptions_active == 20);
    (20..60).for_each(|n| assert!(modest.subscribe(&name(10, n), None).1));
}

/// Of the next message: topic, text, who has published it and its offset.
fn told(server: &Fixture) -> (String, String, Option<String>, Option<u64>) {
    let Event::Message { message } = server.event() else { panic!("something else was told") };
    let text = String::from_utf8(message.payload.to_vec()).unwrap();
    (message.topic.to_string(), text, message.from.as_deref().map(str::to_owned), message.position.map(|position| position.offset))
}

#[test]
fn the_host_hears_each_publication_to_its_topics_once_in_their_order_with_its_publisher() {
    let server = Fixture::start_with(ServerConfig::default(), InboxLimits::default(), EventMask::MESSAGE);
    let [mut old, mut new] = BOTH.map(|dialect| Node::register(&server, &format!("{dialect:?}"), dialect));
    for filter in ["chat/#", "chat/+", "chat/one", "chat/one"] {
        server.engine.subscribe(filter).unwrap();
    }
    assert_eq!(server.engine.subscribers("chat/one").unwrap(), 3);
    new.subscribe("chat/one", None);
    for round in 1..=3 {
        old.publish("chat/one", format!("old {round}").as_bytes(), Some(round));
        assert_eq!(old.published().reach, 4, "three of the host's, and a node's");
        assert_eq!(new.heard().1, format!("old {round}"));
    }
    new.publish("chat/a/b", b"deep", None);
    new.publish("news", b"for nobody", None);
    new.sync();
    assert_eq!(server.engine.publish("chat/one", b"own", &[]).unwrap().reach, 4);
    for round in 1..=3 {
        assert_eq!(told(&server), ("chat/one".into(), format!("old {round}"), Some("V1".into()), Some(round)));
    }
    assert_eq!(told(&server), ("chat/a/b".into(), "deep".into(), Some("V2".into()), None));
    assert_eq!(told(&server), ("chat/one".into(), "own".into(), None, Some(4)));

    // What is ended is heard no more, and counted no more.
    for filter in ["chat/#", "chat/+", "chat/one"] {
        assert!(server.engine.unsubscribe(filter).unwrap());
        assert!(!server.engine.unsubscribe(filter).unwrap(), "it is gone");
    }
    assert_eq!(server.engine.publish("chat/one", b"alone", &[]).unwrap().reach, 1);
    server.engine.subscribe("news").unwrap();
    old.publish("news", b"last", None);
    assert_eq!(told(&server).1, "last");
    for (filter, kind) in [("a/#/b", ErrorKind::InvalidArgument), ("", ErrorKind::InvalidArgument), ("a\n", ErrorKind::InvalidArgument)] {
        assert_eq!(server.engine.subscribe(filter).unwrap_err().kind, kind, "{filter:?}");
        assert!(!server.engine.unsubscribe(filter).unwrap());
    }
}

#[test]
fn a_host_that_asks_for_no_messages_is_told_none() {
    let server = Fixture::start_with(ServerConfig::default(), InboxLimits::default(), EventMask::REGISTER);
    server.engine.subscribe("#").unwrap();
    assert_eq!(server.engine.publish("t", b"x", &[]).unwrap().reach, 1);
    Node::register(&server, "a", Dialect::V2);
    assert!(matches!(server.event(), Event::Register { .. }));
}

#[test]
fn a_host_without_room_stops_the_reading_of_those_who_publish_to_it_and_nobody_elses_and_loses_nothing() {
    let limits = InboxLimits { events: 4, ..InboxLimits::default() };
    let server = Fixture::start_with(ServerConfig::default(), limits, EventMask::MESSAGE);
    server.engine.subscribe("in/#").unwrap();
    let [mut talker, mut other] = ["talker", "other"].map(|id| Node::register(&server, id, Dialect::V2));
    other.subscribe("in/talker", None);
    for number in 0..20 {
        talker.publish("in/talker", format!("{number}").as_bytes(), None);
    }
    server.until("the pause", |stats| stats.counts.reads_paused_by_host > 0);
    // Others go on: with what the host does not hear, and with what they hear themselves.
    other.publish("out", b"x", Some(1));
    let mut heard = Vec::new();
    while heard.len() < 4 {
        let frame = other.peer.frame();
        match frame.frame_type {
            MESSAGE => heard.push(String::from_utf8(of(&frame).2).unwrap()),
            kind => assert_eq!(kind, PUBLISH),
        }
    }
    assert_eq!(heard, ["0", "1", "2", "3"]);
    assert_eq!(server.inbox.stats().queued_events, 4);
    // What the program publishes itself, or who does not wait, is refused at twice the bound, and nobody gets it.
    for _ in 0..4 {
        server.engine.publish("in/program", b"x", &[]).unwrap();
    }
    assert_eq!(server.engine.publish("in/program", b"x", &[]).unwrap_err().kind, ErrorKind::Limit);
    assert_eq!(server.engine.publish("out", b"x", &[]).unwrap().reach, 0, "which it does not hear");
    let mut of_talker = Vec::new();
    while of_talker.len() < 20 {
        let (topic, text, ..) = told(&server);
        if topic == "in/talker" {
            of_talker.push(text);
        }
    }
    assert_eq!(of_talker, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(server.engine.stats().counts.publish_refused, 1);
}
