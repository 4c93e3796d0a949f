//! The topic `$nodes`, as processes, the host and nodes hear it.

use crate::house::*;
use crate::support::{Peer, deadline};
use heartbus_core::bus::Request;
use heartbus_core::engine::{Engine, ObserverLimits};
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{Event, EventMask, FeedEvent};
use heartbus_core::hub::observers::MAX_OBSERVERS;
use heartbus_core::inbox::Inbox;
use heartbus_core::settings::{HistoryRule, InboxLimits, ServerConfig};
use heartbus_core::wire::v1;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

fn at_once(config: &mut ServerConfig) {
    config.presence_debounce = None;
}

impl Subscriber {
    /// What the topic tells next: the sequence, the event, the node and the reason.
    fn change(&mut self) -> (u64, String, String, String) {
        let (topic, json) = self.text();
        assert_eq!(topic, "$nodes");
        read(&json)
    }
}

fn read(json: &str) -> (u64, String, String, String) {
    let json: Value = serde_json::from_str(json).unwrap();
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    assert!(json["time"].as_f64().is_some_and(|time| time > 1.7e9), "{json}");
    (json["sequence"].as_u64().unwrap(), text("event"), text("node"), text("reason"))
}

fn told(sequence: u64, event: &str, node: &str, reason: &str) -> (u64, String, String, String) {
    (sequence, event.into(), node.into(), reason.into())
}

#[test]
fn a_process_is_told_who_comes_and_goes_and_why() {
    let house = House::with(at_once);
    let mut subscriber = house.subscriber().to("$nodes");
    let mut a = house.register("a");
    assert_eq!(subscriber.change(), told(1, "joined", "a", "registered"));
    a.send(7, 0, "");
    assert_eq!(subscriber.change(), told(2, "left", "a", "unregistered"));
    let first = house.register("b");
    let second = house.register("b");
    assert_eq!([subscriber.change(), subscriber.change()], [told(3, "joined", "b", "registered"), told(4, "replaced", "b", "replaced")]);
    drop((first, second));
    assert_eq!(subscriber.change(), told(5, "left", "b", "disconnected"));
    house.engine.set_heartbeat_timeout(Duration::from_secs(1)).unwrap();
    let _silent = house.register("silent");
    assert_eq!(
        [subscriber.change(), subscriber.change()],
        [told(6, "joined", "silent", "registered"), told(7, "timed_out", "silent", "timeout")]
    );
    assert_eq!(house.engine.stats().counts.node_changes, 7);
}

#[test]
fn a_node_that_flaps_within_the_window_is_told_once() {
    const WINDOW: Duration = Duration::from_secs(2);
    // On a machine that is so slow that a window was over in the middle, once more.
    let is_seen = (0..5).any(|_| {
        let house = House::with(|config| config.presence_debounce = Some(WINDOW));
        let mut subscriber = house.subscriber().to("$nodes");
        let stays = house.register("stays");
        assert_eq!(subscriber.change(), told(1, "joined", "stays", "registered"));
        let began = Instant::now();
        let leave = |peer: Peer, online: usize| {
            drop(peer);
            house.until("it to leave", |stats| stats.nodes_online == online);
        };
        leave(stays, 0);
        let _stays = house.register("stays");
        for node in ["comes", "comes"] {
            leave(house.register(node), 1);
        }
        let _comes = house.register("comes");
        // Its window begins behind theirs: whatever is told of them is told before.
        let _last = house.register("last");
        if began.elapsed() > WINDOW {
            return false;
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (_, json) = subscriber.text();
            seen.push((read(&json), serde_json::from_str::<Value>(&json).unwrap()["changes"].as_u64().unwrap()));
        }
        let expected = [
            (told(2, "joined", "stays", "registered"), 2),
            (told(3, "joined", "comes", "registered"), 5),
            (told(4, "joined", "last", "registered"), 1),
        ];
        assert_eq!(seen, expected);
        true
    });
    assert!(is_seen, "the machine is too slow to say");
}

#[test]
fn nobody_observes_where_nobody_wants_to_hear_it() {
    let house = House::with(at_once);
    let free = |house: &House| {
        let observers: Vec<_> =
            (0..=MAX_OBSERVERS).map_while(|_| house.engine.observe(EventMask::LEFT, ObserverLimits::default()).ok()).collect();
        observers.len()
    };
    let _others = house.subscriber().to("#").to("+/x").to("$other/#");
    assert_eq!(free(&house), MAX_OBSERVERS);
    let subscriber = house.subscriber().to("$nodes/#");
    assert_eq!(free(&house), MAX_OBSERVERS - 1, "a filter asks for it as well");
    drop(subscriber);
    let until = deadline();
    while free(&house) < MAX_OBSERVERS {
        assert!(Instant::now() < until, "it goes on for nobody");
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut again = house.subscriber().to("$nodes");
    let _a = house.register("a");
    assert_eq!(again.change(), told(1, "joined", "a", "registered"), "it begins anew with whoever wants it");
}

#[test]
fn a_filter_that_begins_with_a_wildcard_does_not_match_it_and_one_below_it_does() {
    let house = House::with(at_once);
    let (mut all, mut below) = (house.subscriber().to("#").to("+"), house.subscriber().to("$nodes/#"));
    let _a = house.register("a");
    assert_eq!(below.change(), told(1, "joined", "a", "registered"));
    house.engine.publish("t", b"first", &[]).unwrap();
    assert_eq!(all.text(), ("t".into(), "first".into()));
}

#[test]
fn nobody_publishes_there_from_outside() {
    let house = House::with(|config| config.presence_topics = true);
    for topic in ["$nodes", "$nodes/x", "$anything"] {
        let refusal = house.bus().ask(&Request::Publish { topic, data: b"{}", except: vec![] }).unwrap_err();
        assert_eq!((refusal.kind, refusal.message.as_str()), (ErrorKind::InvalidArgument, "Topics that begin with $ belong to the server"));
        let mut peer = house.register("a");
        peer.send(11, 0, &format!(r#"{{"topic":"{topic}","data":"x","id":1}}"#));
        let error = peer.frame();
        assert_eq!(error.frame_type, 8);
        assert!(error.text().contains("belong to the server") && error.text().contains("403"), "{}", error.text());
    }
}

#[test]
fn nodes_hear_it_only_where_a_key_says_so_or_the_host_puts_them_there() {
    let closed = House::with(at_once);
    let mut peer = closed.register("curious");
    for filter in ["$nodes", "$nodes/#"] {
        peer.send(9, 0, &format!(r#"{{"filter":"{filter}"}}"#));
        let error = peer.frame();
        assert!(error.frame_type == 8 && error.text().contains("belong to the server") && error.text().contains("403"), "{}", error.text());
    }
    // That is the host's business.
    closed.engine.join("curious", "$nodes").unwrap();
    assert_eq!(kind(closed.engine.join("curious", "$user/somebody")), ErrorKind::InvalidArgument);
    let _other = closed.register("other");
    let message = peer.frame();
    assert!(message.frame_type == 12 && message.text().contains("joined") && message.text().contains("other"), "{}", message.text());

    let open = House::with(|config| {
        at_once(config);
        config.presence_topics = true;
    });
    let mut peer = open.register("curious");
    peer.send(9, 0, r#"{"filter":"$nodes"}"#);
    assert_eq!(peer.frame().frame_type, 9);
    peer.send(9, 0, r#"{"filter":"$user/#"}"#);
    assert_eq!(peer.frame().frame_type, 8, "what else begins so stays the server's");
    let _other = open.register("other");
    let message = peer.frame();
    assert!(message.frame_type == 12 && message.text().contains("other"), "{}", message.text());
}

#[test]
fn the_host_hears_it_as_any_other_topic() {
    let house = House::start(|config| {
        let (mut config, inbox) = (config.clone(), Inbox::new(InboxLimits::default()).unwrap());
        at_once(&mut config);
        inbox.subscribe(EventMask::MESSAGE);
        Engine::start(&config, inbox)
    });
    house.engine.subscribe("$nodes").unwrap();
    let _a = house.register("a");
    let (until, mut events) = (deadline(), VecDeque::new());
    while house.engine.inbox().unwrap().drain(&mut events, 8) == 0 {
        assert!(Instant::now() < until, "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
    let Some(Event::Message { message }) = events.pop_front() else { panic!("{events:?}") };
    assert_eq!((&*message.topic, &message.from), ("$nodes", &None));
    assert_eq!(read(std::str::from_utf8(&message.payload).unwrap()), told(1, "joined", "a", "registered"));
}

impl Subscriber {
    /// What is told of a topic's members next: the topic below `$presence`, the event, the node, and how many have subscribed.
    fn member(&mut self) -> (String, String, String, u64) {
        let (topic, json) = self.text();
        let json: Value = serde_json::from_str(&json).unwrap();
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(topic, format!("$presence/{}", text("topic")));
        (text("topic"), text("event"), text("node"), json["subscribers"].as_u64().unwrap())
    }
}

#[test]
fn who_subscribes_to_a_topic_and_no_longer_is_told_to_who_asks_for_it() {
    let house = House::with(at_once);
    let (mut hall, mut all) = (house.subscriber().to("$presence/chat/hall"), house.subscriber().to("$presence/#"));
    let member = |topic: &str, event: &str, node: &str, count| (topic.to_owned(), event.to_owned(), node.to_owned(), count);
    let (mut a, b) = (house.register("a"), house.register("b"));
    let mut ask = |frame_type, filter: &str, since: &str| {
        a.send(frame_type, 0, &format!(r#"{{"filter":"{filter}"{since}}}"#));
        assert_eq!(a.frame().frame_type, frame_type);
    };
    ask(9, "chat/hall", "");
    assert_eq!(hall.member(), member("chat/hall", "joined", "a", 1));
    // What it has already changes nothing, and whom a filter matches is no member.
    ask(9, "chat/hall", "");
    ask(9, "chat/#", "");
    // Nor does who begins anew at a position leave.
    ask(9, "chat/hall", r#","offset":0,"epoch":0"#);
    house.engine.join("b", "chat/hall").unwrap();
    assert_eq!(hall.member(), member("chat/hall", "joined", "b", 3));
    ask(9, "news", "");
    ask(10, "chat/hall", "");
    assert_eq!(hall.member(), member("chat/hall", "left", "a", 2));
    drop(b);
    assert_eq!(hall.member(), member("chat/hall", "left", "b", 1));
    let seen: Vec<_> = (0..5).map(|_| all.member()).collect();
    assert_eq!(seen.iter().filter(|(topic, ..)| topic == "news").cloned().collect::<Vec<_>>(), [member("news", "joined", "a", 1)]);
    assert_eq!(seen.iter().filter(|(topic, ..)| topic == "chat/hall").count(), 4);
    assert_eq!(house.engine.stats().counts.node_changes, 0, "of nodes nobody has asked");
    // Nothing of it is known any more where nobody asks.
    drop((hall, all));
    house.until("them to end", |stats| stats.bus_clients == 0);
    ask(9, "later", "");
    let mut again = house.subscriber().to("$presence/later");
    ask(10, "later", "");
    assert_eq!(again.member(), member("later", "left", "a", 0));
}

#[test]
fn who_comes_back_by_another_connection_and_is_in_the_topic_again_has_not_left_it() {
    let house = House::with(|config| {
        at_once(config);
        config.io_threads = 1;
    });
    let mut hall = house.subscriber().to("$presence/hall");
    let mut member = |event: &str, node: &str| {
        let (_, told, who, _) = hall.member();
        assert_eq!((&*told, &*who), (event, node));
    };
    // In one piece: the older connection ends behind it.
    let enter = |id: &str, filter: &str| {
        let (mut peer, mut bytes) = (house.connect(), Vec::new());
        v1::encode(6, 0, format!(r#"{{"node_id":"{id}"}}"#).as_bytes(), &mut bytes).unwrap();
        v1::encode(9, 0, format!(r#"{{"filter":"{filter}"}}"#).as_bytes(), &mut bytes).unwrap();
        peer.stream.write_all(&bytes).unwrap();
        peer
    };
    let _first = enter("a", "hall");
    member("joined", "a");
    let _second = enter("a", "hall");
    member("joined", "a");
    let _other = enter("b", "hall");
    member("joined", "b");
    // Whoever comes back to something else has, and so has who goes.
    let _third = enter("a", "elsewhere");
    member("left", "a");
    let fourth = enter("a", "hall");
    member("joined", "a");
    drop(fourth);
    member("left", "a");
}

#[test]
fn what_is_kept_of_it_is_there_for_who_comes_later() {
    let house = House::with(|config| {
        at_once(config);
        config.presence_topics = true;
        config.history = vec![HistoryRule { filter: "$nodes".into(), count: 10, ..HistoryRule::default() }];
    });
    let mut peer = house.register("a");
    house.until("it to be told", |stats| stats.counts.node_changes == 1);
    peer.send(9, 0, r#"{"filter":"$nodes","offset":0,"epoch":0}"#);
    assert_eq!(peer.frame().frame_type, 9);
    let kept = peer.frame();
    assert!(kept.frame_type == 12 && kept.text().contains("joined"), "{}", kept.text());
}

#[test]
fn more_at_once_than_a_process_takes_is_a_gap_and_then_it_goes_on() {
    let house = House::with(|config| {
        at_once(config);
        config.bus_queue_events = 2;
    });
    let mut subscriber = house.subscriber().to("$nodes");
    let peers: Vec<_> = (0..50).map(|number| house.register(&format!("n{number}"))).collect();
    house.until("all to be told", |stats| stats.counts.node_changes == 50);
    // Each is told, or counted as missing.
    let mut last = 0;
    while last < 50 {
        match subscriber.event() {
            FeedEvent::Message(message) => {
                let (sequence, ..) = read(std::str::from_utf8(&message.payload).unwrap());
                assert_eq!(sequence, last + 1);
                last = sequence;
            }
            FeedEvent::Missed { count, .. } => last += count.unwrap(),
        }
    }
    drop(peers);
}
