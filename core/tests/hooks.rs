//! What the host is told of connections and of who subscribes, without sockets or clocks: to whom it asks, once, and in order.

#[path = "support/bus.rs"]
mod bus;

use bus::*;
use heartbus_core::event::{CloseReason, ConnectedPeer, Event, EventMask, TopicChange};
use heartbus_core::hub::link::CommandKind;
use heartbus_core::hub::topics::FireOrder;
use heartbus_core::hub::{Next, Node, Now, Session};
use heartbus_core::inbox::Inbox;
use heartbus_core::settings::{InboxLimits, ProtocolDoor};
use heartbus_core::wire::firetower::{self, FireFrame};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const SUBSCRIBE: u8 = 9;
const UNSUBSCRIBE: u8 = 10;
const TOPICS: EventMask = EventMask(EventMask::SUBSCRIBE.0 | EventMask::UNSUBSCRIBE.0);
const CONNECTIONS: EventMask = EventMask(EventMask::CONNECT.0 | EventMask::CLOSE.0);

fn hearing(kinds: EventMask) -> Bus {
    let bus = Bus::with_limits(false, |limits| {
        limits.websocket = ProtocolDoor::MainPort;
        limits.firetower = ProtocolDoor::MainPort;
    });
    bus.host.hooks.store(kinds.0, Ordering::Relaxed);
    bus
}

fn told(bus: &Bus) -> Vec<String> {
    std::mem::take(&mut *bus.host.told.lock().unwrap())
}

fn topic(bus: &mut Bus, slot: u32, frame_type: u8, channel: i64, filter: &str) {
    bus.send(slot, frame_type, channel, &format!(r#"{{"filter":"{filter}"}}"#));
}

/// Hands bytes to a session, as often as it has work, and lets it become what they are.
fn feed(bus: &mut Bus, slot: u32, bytes: &[u8]) -> Next {
    let (mut consumed, mut next) = bus.with(slot, |session, cx| session.receive(cx, bytes)).unwrap();
    while matches!(next, Next::Http | Next::Firetower | Next::Again) {
        bus.with(slot, |session, cx| session.become_other(cx, next));
        let (more, then) = bus.with(slot, |session, cx| session.receive(cx, &bytes[consumed..])).unwrap();
        (consumed, next) = (consumed + more, then);
    }
    bus.thread.replies.clear();
    bus.follow(slot, next);
    next
}

const HANDSHAKE: &str = "GET /?user_id=u HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A client of Firetower's, whose user is `u`.
fn client(bus: &mut Bus) -> u32 {
    let slot = bus.open_as(Session::open_websocket);
    feed(bus, slot, HANDSHAKE.as_bytes());
    slot
}

/// As a browser sends it: masked with zeros.
fn say(bus: &mut Bus, slot: u32, kind: &str, topics: &str) -> Next {
    let text = format!(r#"{{"type":"{kind}","topic":"{topics}","data":""}}"#);
    let mut bytes = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    bytes.extend_from_slice(text.as_bytes());
    feed(bus, slot, &bytes)
}

fn announce(bus: &mut Bus, slot: u32, kind: &str, topics: &str) -> Next {
    let mut bytes = Vec::new();
    FireFrame { kind, message_id: "1", source: "gateway", topic: topics, content: b"" }.write(&mut bytes).unwrap();
    feed(bus, slot, &bytes)
}

#[test]
fn whoever_asks_hears_of_each_subscription_once_and_whoever_does_not_of_none() {
    for (kinds, expected) in [
        (TOPICS, vec!["subscribe 1 n a/+ x1", "subscribe 1 n b x1", "unsubscribe 1 n b x1"]),
        (EventMask::UNSUBSCRIBE, vec!["unsubscribe 1 n b x1"]),
        (EventMask::NONE, vec![]),
    ] {
        let mut bus = hearing(kinds);
        let slot = bus.open();
        bus.register(slot, "n");
        topic(&mut bus, slot, SUBSCRIBE, 0, "a/+");
        topic(&mut bus, slot, SUBSCRIBE, 0, "b");
        // Again, what is refused, what is not there, and from where it was: nobody comes or goes by that.
        topic(&mut bus, slot, SUBSCRIBE, 0, "b");
        topic(&mut bus, slot, SUBSCRIBE, 0, "a/#/b");
        topic(&mut bus, slot, UNSUBSCRIBE, 0, "c");
        bus.send(slot, SUBSCRIBE, 0, r#"{"filter":"b","offset":1,"epoch":1}"#);
        topic(&mut bus, slot, UNSUBSCRIBE, 0, "b");
        assert_eq!(told(&bus), expected);
    }
}

#[test]
fn a_node_that_the_host_puts_into_a_topic_and_takes_out_again_is_told_of_too() {
    let mut bus = hearing(TOPICS);
    let slot = bus.open();
    bus.register(slot, "n");
    let now = Now { mono: bus.now, unix: bus.now };
    bus.hub.join("n", "a", now).unwrap();
    follow_memberships(&mut bus);
    bus.hub.join("n", "a", now).unwrap();
    follow_memberships(&mut bus);
    bus.hub.part("n", "a").unwrap();
    follow_memberships(&mut bus);
    assert_eq!(told(&bus), ["subscribe 1 n a x1", "unsubscribe 1 n a x1"]);
}

fn follow_memberships(bus: &mut Bus) {
    let posted = std::mem::take(&mut *bus.drained.0.lock().unwrap());
    for command in posted {
        bus.with(command.slot, |session, cx| match command.kind {
            CommandKind::Join(membership) => {
                session.join(cx, membership.node, &membership.filter, membership.since);
            }
            CommandKind::Part(membership) => session.part(cx, membership.node, &membership.filter),
            other => panic!("{other:?}"),
        });
    }
}

#[test]
fn the_last_that_is_told_of_a_node_is_that_it_left() {
    let mut bus = hearing(TOPICS);
    let slot = bus.open();
    bus.register(slot, "a");
    bus.register(slot, "b");
    let channel = bus.channel("b");
    topic(&mut bus, slot, SUBSCRIBE, 0, "x");
    topic(&mut bus, slot, SUBSCRIBE, channel, "x");
    bus.send(slot, 7, channel, "{}");
    bus.close(slot, CloseReason::PeerClosed);
    assert_eq!(told(&bus), ["subscribe 1 a x x1", "subscribe 1 b x x1"]);
    assert_eq!(bus.hub.topics().subscribers("x"), 0);
}

#[test]
fn a_client_of_firetowers_is_told_of_topic_by_topic_and_of_what_is_left_before_it_is_gone() {
    let mut bus = hearing(TOPICS | CONNECTIONS);
    let slot = client(&mut bus);
    assert_eq!(told(&bus), ["connect 1 127.0.0.1 websocket"]);
    say(&mut bus, slot, "subscribe", "a,b,a,+");
    say(&mut bus, slot, "unSubscribe", "a,c");
    assert_eq!(told(&bus), ["subscribe 1 u a x1", "subscribe 1 u b x1", "unsubscribe 1 u a x1"]);
    say(&mut bus, slot, "subscribe", "a,d");
    told(&bus);
    for (order, name) in [(FireOrder::OfflineTopic, "a"), (FireOrder::OfflineTopicByUser, "d")] {
        bus.with(slot, |session, cx| session.obey(cx, order, name, b"u"));
    }
    assert_eq!(told(&bus), ["unsubscribe 1 u a x1", "unsubscribe 1 u d x1"]);
    let next = bus.with(slot, |session, cx| session.obey(cx, FireOrder::OfflineUser, "b", b"u")).flatten().unwrap();
    bus.follow(slot, next);
    assert_eq!(told(&bus), ["unsubscribe 1 u b x1", "close 1 127.0.0.1 u: disconnected by the server"]);
}

#[test]
fn a_gateway_is_told_of_with_its_first_client_in_a_topic_and_its_last() {
    let mut bus = hearing(TOPICS | CONNECTIONS);
    let slot = bus.open_as(Session::open_gateway);
    announce(&mut bus, slot, firetower::SUBSCRIBE, "a,b,a");
    announce(&mut bus, slot, firetower::UNSUBSCRIBE, "a");
    assert_eq!(told(&bus), ["connect 1 127.0.0.1 firetower", "subscribe 1 - a x1", "subscribe 1 - b x1"]);
    announce(&mut bus, slot, firetower::UNSUBSCRIBE, "a,c");
    assert_eq!(told(&bus), ["unsubscribe 1 - a x1"]);
    bus.close(slot, CloseReason::PeerClosed);
    assert_eq!(told(&bus), ["unsubscribe 1 - b x1", "close 1 127.0.0.1 -: peer closed"]);
}

#[test]
fn a_connection_is_told_of_once_it_may_speak_and_its_end_if_it_was() {
    let mut bus = hearing(CONNECTIONS);
    let slot = bus.open_as(Session::open_websocket);
    feed(&mut bus, slot, b"GET / HT");
    assert!(told(&bus).is_empty());
    bus.close(slot, CloseReason::PeerClosed);
    let refused = bus.open_as(Session::open_websocket);
    feed(&mut bus, refused, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(told(&bus).is_empty() && !bus.sessions.contains_key(&refused), "it never could speak");
    // At the main port it shows by what is said first.
    let silent = bus.open();
    bus.close(silent, CloseReason::PeerClosed);
    assert!(told(&bus).is_empty());
    let [node, browser, gateway, broken] = [(); 4].map(|()| bus.open());
    let register = frame(6, 0, r#"{"node_id":"n"}"#);
    feed(&mut bus, node, &register[..7]);
    assert!(told(&bus).is_empty());
    feed(&mut bus, node, &register);
    feed(&mut bus, node, &frame(1, 0, "{}"));
    feed(&mut bus, browser, HANDSHAKE.as_bytes());
    announce(&mut bus, gateway, firetower::HEARTBEAT, "*");
    feed(&mut bus, broken, b"nothing of all this");
    let doors = ["connect 4 127.0.0.1 tcp", "connect 5 127.0.0.1 websocket", "connect 6 127.0.0.1 firetower", "connect 7 127.0.0.1 tcp"];
    assert_eq!(told(&bus), [&doors[..], &["close 7 127.0.0.1 -: broken stream"]].concat());
    for slot in [node, browser, gateway] {
        bus.close(slot, CloseReason::PeerClosed);
    }
    assert_eq!(told(&bus), ["close 4 127.0.0.1 -: peer closed", "close 5 127.0.0.1 u: peer closed", "close 6 127.0.0.1 -: peer closed"]);
    // Where nothing else comes in, it may speak at once.
    let mut bus = Bus::new(false);
    bus.host.hooks.store(CONNECTIONS.0, Ordering::Relaxed);
    bus.open();
    assert_eq!(told(&bus), ["connect 1 127.0.0.1 tcp"]);
}

#[test]
fn who_would_subscribe_waits_for_a_host_without_room_for_that() {
    let mut bus = hearing(TOPICS);
    let [node, browser] = [bus.open(), client(&mut bus)];
    let gateway = bus.open_as(Session::open_gateway);
    bus.register(node, "n");
    bus.host.is_crowded.store(true, Ordering::Relaxed);
    assert_eq!(bus.with(node, |session, cx| session.receive(cx, &frame(SUBSCRIBE, 0, r#"{"filter":"a"}"#))).unwrap(), (0, Next::Wait));
    assert_eq!(say(&mut bus, browser, "subscribe", "a"), Next::Wait);
    assert_eq!(announce(&mut bus, gateway, firetower::SUBSCRIBE, "a"), Next::Wait);
    assert_eq!((bus.host.paused.lock().unwrap().len(), bus.thread.counters.reads_paused_by_host.get()), (3, 3));
    assert_eq!((bus.thread.counters.subscribes.get(), bus.thread.counters.messages_in.get()), (0, 1));
    assert_eq!(bus.hub.topics().subscribers("a"), 0);
    bus.host.is_crowded.store(false, Ordering::Relaxed);
    topic(&mut bus, node, SUBSCRIBE, 0, "a");
    feed(&mut bus, browser, b"");
    announce(&mut bus, gateway, firetower::SUBSCRIBE, "a");
    assert_eq!(told(&bus), ["subscribe 1 n a x1", "subscribe 2 u a x1", "subscribe 3 - a x1"]);
    // Whoever wants to hear of nothing holds nobody up.
    let mut bus = hearing(EventMask::NONE);
    bus.host.is_crowded.store(true, Ordering::Relaxed);
    let node = bus.open();
    bus.register(node, "n");
    topic(&mut bus, node, SUBSCRIBE, 0, "a");
    assert_eq!(bus.hub.topics().subscribers("a"), 1);
}

#[test]
fn a_slow_host_hears_the_last_of_a_subscriber_and_topic_and_nothing_of_a_node_that_has_left() {
    let mut bus = hearing(EventMask::NONE);
    let slot = bus.open();
    bus.register(slot, "n");
    let node = bus.hub.node("n").unwrap();
    let inbox = Inbox::<Event>::new(InboxLimits { events: 1, bytes: 1 << 20 }).unwrap();
    let tell = |of: Option<&Arc<Node>>, connection_id, topic: &str, has_subscribed| {
        let who = ConnectedPeer { address: ([127, 0, 0, 1], 1).into(), user: None };
        let change = Arc::new(TopicChange { connection_id, who, topic: topic.into(), has_subscribed });
        inbox.push_state(Event::Topic { change, node: of.map(Into::into), count: 1 });
    };
    let drained = || {
        let mut events = VecDeque::new();
        inbox.drain(&mut events, 100);
        events.iter().map(in_words).collect::<Vec<_>>()
    };
    tell(None, 1, "first", true);
    tell(None, 1, "a", true);
    tell(Some(&node), 1, "a", true);
    tell(None, 2, "a", true);
    tell(None, 1, "a", false);
    tell(None, 1, "b", true);
    let expected = ["subscribe 1 - first x1", "unsubscribe 1 - a x2", "subscribe 1 n a x1", "subscribe 2 - a x1", "subscribe 1 - b x1"];
    assert_eq!(drained(), expected);
    tell(None, 1, "first", true);
    tell(Some(&node), 1, "a", true);
    bus.close(slot, CloseReason::PeerClosed);
    assert_eq!(drained(), ["subscribe 1 - first x1"], "its leaving was told in another's place");
}
