//! Processes that have subscribed to topics.

use crate::house::*;
use crate::support::deadline;
use heartbus_core::bus::Request;
use heartbus_core::engine::Engine;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::FeedEvent;
use heartbus_core::inbox::Inbox;
use heartbus_core::net::feed::Feed;
use heartbus_core::settings::InboxLimits;
use heartbus_core::wire::bus::{self as wire, FeedMessage, RemoteError, Role, SubscriberMessage};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

impl Raw {
    /// Says hello and subscribes; what comes is read by whoever wants to.
    pub(crate) fn subscribe(&mut self, filter: &str) {
        self.hello(wire::VERSION, Role::Subscriber);
        self.greeting().unwrap();
        let mut frame = Vec::new();
        wire::write_message(&mut frame, &SubscriberMessage::Subscribe { filter: filter.into() });
        self.write(&frame);
    }

    pub(crate) fn told<T>(&mut self, read: impl FnOnce(FeedMessage<'_>) -> T) -> T {
        let mut length = [0; wire::LENGTH_LEN];
        self.stream.read_exact(&mut length).expect("a frame in time");
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body).expect("all of it");
        read(wire::decode(&body).unwrap())
    }
}

fn owned((topic, data): (&str, &str)) -> (String, String) {
    (topic.into(), data.into())
}

#[test]
fn what_is_published_reaches_each_process_that_has_subscribed_once_and_in_order() {
    let house = House::in_process();
    let mut peer = house.register("n1");
    let (mut one, mut other) = (house.subscriber().to("chat/+").to("chat/hall"), house.subscriber().to("#"));
    assert_eq!(house.engine.subscribers("chat/hall"), Ok(3), "by name, and by two filters");
    let published = house.engine.publish("chat/hall", b"one", &[]).unwrap();
    assert_eq!(published.reach, 3);
    peer.send(11, 0, r#"{"topic":"chat/hall","data":"two"}"#);
    let until = deadline();
    while house.engine.stats().counts.published < 2 {
        assert!(Instant::now() < until, "the node's publication is on its way");
        std::thread::yield_now();
    }
    house.bus().ask(&Request::Publish { topic: "news", data: b"three", except: vec![] }).unwrap();
    house.engine.publish("chat/attic", b"\xff", &[]).unwrap();
    let (first, second) = (one.message(), one.message());
    assert_eq!((&*first.topic, &*first.payload, first.position, &first.from), ("chat/hall", &b"one"[..], published.position, &None));
    assert_eq!((&*second.payload, second.from.as_deref()), (&b"two"[..], Some("n1")));
    assert_eq!(second.position.map(|position| position.offset), Some(2));
    let third = one.message();
    assert_eq!((&*third.topic, &*third.payload, third.position), ("chat/attic", &b"\xff"[..], None));
    let all = [("chat/hall", "one"), ("chat/hall", "two"), ("news", "three"), ("chat/attic", "\u{fffd}")].map(owned);
    assert_eq!([other.text(), other.text(), other.text(), other.text()], all);
    assert_eq!(house.engine.stats().counts.bus_messages_out, 7);
}

#[test]
fn a_subscription_ends_when_it_is_ended_and_with_its_process() {
    let house = House::in_process();
    let mut subscriber = house.subscriber().to("a").to("b").to("a/#");
    assert_eq!(subscriber.feed.subscribe("a", None, PATIENCE), Ok(()), "it is there already");
    assert_eq!((subscriber.feed.unsubscribe("a"), subscriber.feed.unsubscribe("a")), (Ok(true), Ok(false)));
    house.until("the engine to hear it", |stats| stats.subscriptions_active == 2);
    house.engine.publish("b", b"still there", &[]).unwrap();
    assert_eq!(subscriber.text(), owned(("b", "still there")));
    drop(subscriber);
    house.until("its subscriptions to end", |stats| stats.subscriptions_active == 0 && stats.topics_active == 0);
    house.until("nothing to be kept for it", |stats| stats.memory.observers == 0 && stats.bus_clients == 0);
}

#[test]
fn what_cannot_be_subscribed_to_is_refused_in_words_and_the_others_go_on() {
    let house = House::with(|config| (config.max_topics, config.max_subscriptions) = (3, 2));
    let mut subscriber = house.subscriber();
    for filter in ["", "a/#/b", "x\n"] {
        assert_eq!(kind(subscriber.feed.subscribe(filter, None, PATIENCE)), ErrorKind::InvalidArgument, "{filter:?}");
    }
    subscriber = subscriber.to("a").to("b");
    let refusal = subscriber.feed.subscribe("c", None, PATIENCE).unwrap_err();
    assert_eq!((refusal.kind, refusal.message.as_str()), (ErrorKind::Limit, "Too many subscriptions on this connection"));
    let other = house.subscriber().to("c");
    let refusal = other.feed.subscribe("d", None, PATIENCE).unwrap_err();
    assert_eq!((refusal.kind, refusal.message.as_str()), (ErrorKind::Limit, "Too many topics on this server"));
    assert_eq!(other.feed.unsubscribe("d"), Ok(false), "what was refused is not there");
    house.engine.publish("a", b"x", &[]).unwrap();
    assert_eq!(subscriber.text(), owned(("a", "x")));
}

#[test]
fn a_process_that_does_not_read_misses_what_finds_no_room_is_told_how_much_and_nobody_waits_for_it() {
    let house = House::with(|config| config.bus_queue_events = 5);
    let (mut slow, mut quick) = (house.raw(), house.subscriber().to("t"));
    slow.subscribe("t");
    slow.told(|told| assert_eq!(told, FeedMessage::Subscribed { filter: "t" }));
    let payload = vec![b'x'; 60_000];
    let mut published = 0;
    // What the socket takes, what is about to be written, what waits, and then some more.
    while house.engine.stats().counts.bus_messages_dropped < 3 {
        assert_eq!(house.engine.publish("t", &payload, &[]).unwrap().reach, 2);
        published += 1;
        let message = quick.message();
        assert_eq!(message.position.map(|position| position.offset), Some(published));
        assert!(published < 1000);
    }
    house.engine.publish("t", b"last", &[]).unwrap();
    let (mut offset, mut missed) = (0, 0);
    while offset + missed < published {
        slow.told(|told| match told {
            FeedMessage::Message { position, payload, .. } => {
                offset += 1;
                assert_eq!((position.unwrap().0, payload.len()), (offset, 60_000), "in order, none left out before the gap");
            }
            FeedMessage::Gap { dropped } => missed += dropped,
            other => panic!("{other:?}"),
        });
    }
    assert!(missed >= 3);
    // The last one found no room either, or it is behind the gap.
    house.engine.publish("t", b"after", &[]).unwrap();
    let mut last = Vec::new();
    while last != b"after" {
        slow.told(|told| match told {
            FeedMessage::Message { payload, .. } => last = payload.to_vec(),
            FeedMessage::Gap { .. } => {}
            other => panic!("{other:?}"),
        });
    }
}

#[test]
fn subscriptions_come_back_when_the_server_is_started_anew_and_the_gap_is_told() {
    let folder = Folder::new();
    let start = || Engine::start(&config(&folder.socket()), Inbox::new(InboxLimits::default()).unwrap()).unwrap();
    let first = start();
    let mut subscriber = Subscriber::of(&folder.socket()).to("t").to("x/#");
    first.publish("t", b"before", &[]).unwrap();
    assert_eq!(subscriber.text(), owned(("t", "before")));
    drop(first);
    let refusal = subscriber.feed.subscribe("late", None, PATIENCE).unwrap_err();
    // Perhaps it sees only now that the engine is gone.
    assert!(matches!(refusal.kind, ErrorKind::Io | ErrorKind::Closed), "{refusal}");
    let second = start();
    let missed = |filter: &str| FeedEvent::Missed { count: None, filter: Some(filter.into()) };
    assert_eq!([subscriber.event(), subscriber.event()], [missed("t"), missed("x/#")]);
    assert_eq!([second.subscribers("t"), second.subscribers("x/y"), second.subscribers("late")], [Ok(1), Ok(1), Ok(0)]);
    second.publish("x/y", b"after", &[]).unwrap();
    assert_eq!(subscriber.text(), owned(("x/y", "after")));
}

#[test]
fn an_engine_that_knows_no_subscribers_is_told_as_what_it_is() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let engine = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut refusal = Vec::new();
        let text = "The engine does not know this role";
        wire::write_refusal(&mut refusal, &RemoteError { kind: ErrorKind::Protocol as i32, message: text.into() });
        stream.write_all(&refusal).unwrap();
        // Until it hangs up.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let feed = Feed::start(&folder.socket(), Inbox::new(Feed::INBOX).unwrap()).unwrap();
    let refusal = feed.subscribe("t", None, PATIENCE);
    assert_eq!(refusal, Err(Error::new(ErrorKind::Protocol, "The engine does not know this role")));
    engine.join().unwrap();
}

#[test]
fn a_subscription_that_was_under_way_when_the_engine_went_is_refused_when_there_is_no_other() {
    let folder = Folder::new();
    let path = folder.socket();
    let listener = UnixListener::bind(&path).unwrap();
    let engine = std::thread::spawn({
        let (welcome, path) = (welcome(), path.clone());
        move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&welcome).unwrap();
            let (mut asked, mut heard) = (Vec::new(), Vec::new());
            wire::write_message(&mut asked, &SubscriberMessage::SubscribeFrom { topic: "t".into(), since: None });
            while !heard.ends_with(&asked) {
                let mut piece = [0; 1024];
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0, "it hung up");
                heard.extend_from_slice(&piece[..count]);
            }
            // Then it is gone, and so is its socket.
            std::fs::remove_file(path).unwrap();
        }
    });
    let feed = Feed::start(&path, Inbox::new(Feed::INBOX).unwrap()).unwrap();
    let refusal = feed.subscribe("t", None, PATIENCE).unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Io, "{refusal}");
    engine.join().unwrap();
}

#[test]
fn what_is_said_to_an_engine_that_reads_nothing_is_bounded() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let welcome = welcome();
    let (ended, has_ended) = sync_channel::<()>(1);
    let (accepted, is_accepted) = sync_channel(1);
    let engine = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&welcome).unwrap();
        accepted.send(()).unwrap();
        // It reads nothing.
        let _ = has_ended.recv();
    });
    let feed = Feed::start(&folder.socket(), Inbox::new(Feed::INBOX).unwrap()).unwrap();
    let filter = "t".repeat(255);
    while is_accepted.try_recv().is_err() {
        feed.subscribe(&filter, None, Duration::from_millis(10)).unwrap_err();
    }
    let mut refusals = (0..200_000).map(|_| feed.subscribe(&filter, None, Duration::ZERO).unwrap_err().kind);
    assert_eq!(refusals.find(|kind| *kind != ErrorKind::Timeout), Some(ErrorKind::Limit));
    feed.stop();
    drop(ended);
    engine.join().unwrap();
}

#[test]
fn where_nobody_answers_a_subscription_is_an_error_and_not_made_later() {
    let folder = Folder::new();
    let mut subscriber = Subscriber::of(&folder.socket());
    let refusal = subscriber.feed.subscribe("t", None, PATIENCE).unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Io);
    assert!(refusal.message.starts_with("No Heartbus server at "), "{refusal}");
    let engine = Engine::start(&config(&folder.socket()), Inbox::new(InboxLimits::default()).unwrap()).unwrap();
    subscriber = subscriber.to("u");
    assert_eq!((engine.publish("t", b"x", &[]).unwrap().reach, engine.publish("u", b"y", &[]).unwrap().reach), (0, 1));
    assert_eq!(subscriber.text(), owned(("u", "y")));
}

#[test]
fn a_host_that_takes_nothing_stops_the_reading_and_loses_nothing_that_has_room() {
    let house = House::in_process();
    let inbox = Inbox::new(InboxLimits { events: 4, bytes: 1 << 20 }).unwrap();
    let feed = Feed::start(&house.path, inbox.clone()).unwrap();
    feed.subscribe("t", None, PATIENCE).unwrap();
    for number in 0..1000 {
        house.engine.publish("t", number.to_string().as_bytes(), &[]).unwrap();
    }
    let until = deadline();
    let (mut taken, mut events) = (0, VecDeque::new());
    while taken < 1000 {
        inbox.drain(&mut events, 3);
        assert!(inbox.stats().queued_events <= 4);
        for event in events.drain(..) {
            let FeedEvent::Message(message) = event else { panic!("{event:?}") };
            assert_eq!(message.payload, taken.to_string());
            taken += 1;
        }
        assert!(Instant::now() < until, "only {taken} came");
    }
}

#[test]
fn a_subscriber_that_breaks_the_rules_ends_itself_alone_and_one_that_is_newer_goes_on() {
    let house = House::in_process();
    let mut wrong = house.raw();
    wrong.subscribe("t");
    wrong.told(|told| assert!(matches!(told, FeedMessage::Subscribed { .. })));
    // A text that is longer than its frame.
    wrong.write(&[0, 0, 0, 2, 0, 200]);
    wrong.expect_end();
    let mut newer = house.raw();
    newer.hello(wire::VERSION, Role::Subscriber);
    newer.greeting().unwrap();
    newer.write(&[0, 0, 0, 3, 99, 1, 2]);
    let mut frame = Vec::new();
    wire::write_message(&mut frame, &SubscriberMessage::Subscribe { filter: "a/#/b".into() });
    wire::write_message(&mut frame, &SubscriberMessage::Unsubscribe { filter: "never".into() });
    wire::write_message(&mut frame, &SubscriberMessage::Subscribe { filter: "t".into() });
    newer.write(&frame);
    newer.told(|told| assert!(matches!(told, FeedMessage::Refused { filter: "a/#/b", .. }), "{told:?}"));
    newer.told(|told| assert_eq!(told, FeedMessage::Subscribed { filter: "t" }));
    house.assert_well();
}
