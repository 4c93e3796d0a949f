//! Processes that go on with a topic from where they were.

use crate::house::*;
use crate::support::deadline;
use heartbus_core::engine::Engine;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{FeedEvent, Position};
use heartbus_core::inbox::Inbox;
use heartbus_core::settings::{HistoryRule, InboxLimits, ServerConfig};
use heartbus_core::wire::bus::{self as wire, FeedMessage, RemoteError, Role, SubscriberMessage, Version};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ALL: Option<Position> = Some(Position { offset: 0, epoch: 0 });

fn keep(count: usize) -> impl FnOnce(&mut ServerConfig) {
    move |config| config.history = vec![HistoryRule { filter: "kept/#".into(), count, bytes: 16 << 20, ttl: Duration::from_secs(3600) }]
}

impl House {
    /// Publishes numbers, each as its text, and says where the last one stands.
    fn count(&self, topic: &str, numbers: std::ops::RangeInclusive<u64>) -> Position {
        let publish = |_, number: u64| self.engine.publish(topic, number.to_string().as_bytes(), &[]).unwrap().position;
        numbers.fold(None, publish).unwrap()
    }
}

impl Subscriber {
    /// The next messages are these numbers.
    fn counts(&mut self, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            let message = self.message();
            assert_eq!(
                (message.payload.as_ref(), message.position.map(|position| position.offset)),
                (number.to_string().as_bytes(), Some(number))
            );
        }
    }
}

fn missed(filter: &str) -> FeedEvent {
    FeedEvent::Missed { count: None, filter: Some(filter.into()) }
}

#[test]
fn a_process_that_names_a_position_gets_what_is_kept_behind_it_and_then_what_is_live() {
    let house = House::with(keep(100));
    let last = house.count("kept/a", 1..=5);
    let mut some = house.subscriber().behind("kept/a", Some(Position { offset: 2, ..last }));
    let mut all = house.subscriber().behind("kept/a", ALL);
    let mut none = house.subscriber().behind("kept/a", Some(last));
    house.count("kept/a", 6..=7);
    some.counts(3..=7);
    all.counts(1..=7);
    none.counts(6..=7);
    // Once more, and further back than where it is.
    all.feed.subscribe("kept/a", Some(Position { offset: 5, ..last }), PATIENCE).unwrap();
    all.counts(6..=7);
    house.count("kept/a", 8..=8);
    all.counts(8..=8);
    assert_eq!(house.engine.subscribers("kept/a"), Ok(3), "each once");
    drop((some, all, none));
    house.until("all of it to end", |stats| stats.subscriptions_active == 0 && stats.memory.observers == 0);
}

#[test]
fn where_something_is_missing_behind_a_position_that_is_told_in_front_of_what_is_kept() {
    let house = House::with(keep(2));
    let last = house.count("kept/a", 1..=5);
    let positions = [
        ("of what is gone", Position { offset: 1, ..last }),
        ("of the future", Position { offset: 6, ..last }),
        ("of another life", Position { offset: 4, epoch: last.epoch - 1 }),
        ("of nothing, with what is gone", ALL.unwrap()),
    ];
    for (what, since) in positions {
        let mut subscriber = house.subscriber().behind("kept/a", Some(since));
        assert_eq!(subscriber.event(), missed("kept/a"), "a position {what}");
        subscriber.counts(4..=5);
    }
    let mut exact = house.subscriber().behind("kept/a", Some(Position { offset: 3, ..last }));
    exact.counts(4..=5);
    // Nothing is kept of this one.
    house.subscriber().to("bare");
    let mut bare = house.subscriber().to("bare").behind("bare", Some(last));
    assert_eq!(bare.event(), missed("bare"));
    house.count("bare", 1..=1);
    bare.counts(1..=1);
}

#[test]
fn filters_have_no_positions_and_what_is_refused_leaves_what_was_there() {
    let house = House::with(|config| {
        keep(10)(config);
        config.max_subscriptions = 1;
    });
    let last = house.count("kept/a", 1..=3);
    let mut subscriber = house.subscriber();
    let refusal = subscriber.feed.subscribe("kept/+", ALL, PATIENCE);
    assert_eq!(refusal, Err(Error::new(ErrorKind::InvalidArgument, "A filter has no position to go on from")));
    subscriber = subscriber.behind("kept/a", Some(last));
    assert_eq!(kind(subscriber.feed.subscribe("kept/b", ALL, PATIENCE)), ErrorKind::Limit);
    assert_eq!(subscriber.feed.unsubscribe("kept/b"), Ok(false));
    house.count("kept/a", 4..=4);
    subscriber.counts(4..=4);
    let mut other = house.raw();
    other.hello(wire::VERSION, Role::Subscriber);
    other.greeting().unwrap();
    other.from("kept/+", Some((0, 0)));
    other.told(|told| {
        let error = RemoteError { kind: ErrorKind::InvalidArgument as i32, message: "A filter has no position to go on from".into() };
        assert_eq!(told, FeedMessage::Refused { filter: "kept/+", error });
    });
    other.from("kept/+", None);
    other.told(|told| assert_eq!(told, FeedMessage::Subscribed { filter: "kept/+" }));
}

impl Raw {
    fn from(&mut self, topic: &str, since: Option<(u64, u64)>) {
        let mut frame = Vec::new();
        wire::write_message(&mut frame, &SubscriberMessage::SubscribeFrom { topic: topic.into(), since });
        self.write(&frame);
    }
}

#[test]
fn what_waits_for_a_process_goes_out_before_a_topic_begins_and_what_is_kept_before_what_is_live() {
    const COUNT: u64 = 200;
    let house = House::with(keep(1000));
    let mut slow = house.raw();
    slow.subscribe("#");
    slow.told(|told| assert_eq!(told, FeedMessage::Subscribed { filter: "#" }));
    // More than the socket takes, so that some of it waits.
    let payload = vec![b'x'; 8000];
    let publish = || house.engine.publish("kept/a", &payload, &[]).unwrap().position.unwrap();
    let first = publish();
    (1..COUNT).for_each(|_| assert!(publish().offset > 1));
    slow.from("kept/a", Some((first.offset, first.epoch)));
    let mut offset = 0;
    let mut next = |slow: &mut Raw| {
        let mut begun = None;
        slow.told(|told| match told {
            FeedMessage::Message { position, .. } => offset = position.unwrap().0,
            FeedMessage::Begun { newest, recovered, .. } => begun = Some((newest.0, recovered)),
            other => panic!("{other:?}"),
        });
        (offset, begun)
    };
    for number in 1..=COUNT {
        assert_eq!(next(&mut slow), (number, None), "through the filter");
    }
    assert_eq!(next(&mut slow), (COUNT, Some((COUNT, true))));
    // While it is given what is kept, more comes.
    (0..5).for_each(|_| assert!(publish().offset > COUNT));
    for number in 2..=COUNT + 5 {
        assert_eq!(next(&mut slow), (number, None), "once, and in order");
    }
    house.assert_well();
}

#[test]
fn whoever_begins_in_the_middle_of_publications_gets_each_once_and_in_order() {
    const COUNT: u64 = 4000;
    let house = House::with(keep(COUNT as usize));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            house.count("kept/a", 1..=COUNT);
            is_done.store(true, Ordering::Release);
        });
        let mut begun = 0;
        while !is_done.load(Ordering::Acquire) || begun < 3 {
            let mut subscriber = house.subscriber().behind("kept/a", ALL).to("kept/#");
            subscriber.counts(1..=COUNT);
            begun += 1;
        }
    });
}

/// Stands between a process and its engine, and cuts their connection when so many bytes have come from the engine, each time.
struct Cutter {
    path: PathBuf,
    cuts: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Cutter {
    fn between(engine: &Path, path: PathBuf, mut bytes: impl FnMut() -> usize + Send + 'static) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let (cuts, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (engine, counted, over) = (engine.to_owned(), cuts.clone(), is_over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                cut(&stream.unwrap(), &engine, bytes());
                counted.fetch_add(1, Ordering::Release);
            }
        });
        Self { path, cuts, is_over }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        drop(UnixStream::connect(&self.path));
    }
}

fn cut(process: &UnixStream, engine: &Path, mut bytes: usize) {
    let Ok(mut server) = UnixStream::connect(engine) else { return };
    let (mut from, mut to) = (process.try_clone().unwrap(), server.try_clone().unwrap());
    let there = std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
    let mut buffer = [0; 4096];
    let mut process = process;
    while bytes > 0 {
        let room = bytes.min(buffer.len());
        let Ok(count @ 1..) = server.read(&mut buffer[..room]) else { break };
        if process.write_all(&buffer[..count]).is_err() {
            break;
        }
        bytes -= count;
    }
    let _ = (process.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    there.join().unwrap();
}

#[test]
fn a_connection_that_is_cut_at_any_moment_costs_a_topic_that_is_kept_nothing_and_brings_nothing_twice() {
    const COUNT: u64 = 2000;
    let house = House::with(keep(COUNT as usize));
    let mut random = fastrand::Rng::with_seed(1_764_000_000);
    let bytes = move || random.usize(1..4000);
    let cutter = Cutter::between(&house.path, house._folder.0.join("cut.sock"), bytes);
    let mut subscriber = Subscriber::of(&cutter.path);
    // The first connections may be cut before anything is subscribed to.
    let until = deadline();
    for topic in ["kept/a", "kept/+"] {
        while let Err(error) = subscriber.feed.subscribe(topic, None, PATIENCE) {
            assert!(Instant::now() < until, "{error}");
        }
    }
    // A filter has no place at which something would be missed: only of the topic nothing is.
    let mut offset = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=COUNT {
                house.count("kept/a", number..=number);
                if number % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        while offset < COUNT {
            match subscriber.event() {
                FeedEvent::Message(message) => {
                    offset += 1;
                    assert_eq!((message.position.unwrap().offset, &*message.payload), (offset, offset.to_string().as_bytes()));
                }
                FeedEvent::Missed { count: None, filter: Some(filter) } => assert_eq!(&*filter, "kept/+"),
                missed @ FeedEvent::Missed { .. } => panic!("{missed:?}"),
            }
        }
    });
    assert!(cutter.cuts.load(Ordering::Acquire) > 10, "it was cut, and more than once");
}

#[test]
fn a_topic_goes_on_after_a_break_from_where_it_was_also_when_nothing_had_come_yet() {
    let folder = Folder::new();
    let house = House::with(keep(10));
    let mut connections = 0;
    let cutter = Cutter::between(&house.path, folder.0.join("cut.sock"), move || {
        connections += 1;
        // The welcome and the answer fit into the first one, and nothing more.
        if connections == 1 { 400 } else { usize::MAX }
    });
    let last = house.count("kept/a", 1..=2);
    let mut subscriber = Subscriber::of(&cutter.path).behind("kept/a", None);
    house.engine.publish("kept/a", &[b'3'; 1000], &[]).unwrap();
    let message = subscriber.message();
    assert_eq!((message.position, message.payload.len()), (Some(Position { offset: last.offset + 1, ..last }), 1000));
    assert_eq!(cutter.cuts.load(Ordering::Acquire), 1);
}

#[test]
fn after_an_engine_that_was_started_anew_what_it_keeps_comes_behind_the_gap() {
    let folder = Folder::new();
    let start = || {
        let mut config = config(&folder.socket());
        keep(10)(&mut config);
        Engine::start(&config, Inbox::new(InboxLimits::default()).unwrap()).unwrap()
    };
    let first = start();
    let mut subscriber = Subscriber::of(&folder.socket()).behind("kept/a", None);
    first.publish("kept/a", b"1", &[]).unwrap();
    subscriber.counts(1..=1);
    drop(first);
    let second = start();
    second.publish("kept/a", b"1", &[]).unwrap();
    assert_eq!(subscriber.event(), missed("kept/a"));
    subscriber.counts(1..=1);
}

#[test]
fn an_engine_that_knows_no_positions_is_told_as_what_it_is_and_tells_what_is_live() {
    let folder = Folder::new();
    let path = folder.socket();
    let listener = UnixListener::bind(&path).unwrap();
    let engine = std::thread::spawn({
        let mut welcome = welcome();
        // As it says it.
        welcome[4..6].copy_from_slice(&[2, wire::MAJOR]);
        move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&welcome).unwrap();
            let (mut asked, mut answer, mut heard) = (Vec::new(), Vec::new(), Vec::new());
            wire::write_message(&mut asked, &SubscriberMessage::Subscribe { filter: "u".into() });
            wire::write_message(&mut answer, &FeedMessage::Subscribed { filter: "u" });
            for offset in [3, 5] {
                let position = Some((offset, 1));
                wire::write_message(&mut answer, &FeedMessage::Message { topic: "u", payload: b"x", position, from: None });
            }
            while !heard.ends_with(&asked) {
                let mut piece = [0; 1024];
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0, "it hung up");
                heard.extend_from_slice(&piece[..count]);
            }
            stream.write_all(&answer).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
            heard
        }
    });
    let mut subscriber = Subscriber::of(&path);
    let refusal = subscriber.feed.subscribe("t", ALL, PATIENCE).unwrap_err();
    let text = "The engine is older than positions over the bus socket: it only tells what is published from now on";
    assert_eq!(refusal, Error::new(ErrorKind::Protocol, text));
    subscriber = subscriber.behind("u", None);
    assert_eq!(subscriber.message().position.unwrap().offset, 3);
    assert_eq!(subscriber.event(), missed("u"), "its offsets show what was lost");
    assert_eq!(subscriber.message().position.unwrap().offset, 5);
    drop(subscriber);
    let heard = engine.join().unwrap();
    let mut hello = Vec::new();
    wire::write_hello(&mut hello, wire::VERSION, Role::Subscriber, std::process::id(), env!("CARGO_PKG_VERSION"));
    let mut asked = Vec::new();
    wire::write_message(&mut asked, &SubscriberMessage::Subscribe { filter: "u".into() });
    assert_eq!(heard, [hello, asked].concat(), "nothing that it does not know");
    assert!(Version { major: 2, minor: 2 }.common(wire::VERSION).is_some());
}
