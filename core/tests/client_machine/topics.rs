//! Topics: what is asked, what is told, and what comes back by itself.

use crate::rig::*;
use heartbus_core::event::{Position, TopicMessage};
use heartbus_core::wire::topic::BadTopic;
use heartbus_core::wire::topic_frames::{Message, PublishReply, SubscribeReply, error_payload};
use heartbus_core::wire::{self, Dialect};

const SUBSCRIBE: u8 = 9;
const UNSUBSCRIBE: u8 = 10;
const PUBLISH: u8 = 11;

fn at(offset: u64) -> Position {
    Position { offset, epoch: 5 }
}

/// What the server writes, in the dialect that the client has.
impl Rig {
    fn answer(&mut self, filter: &str, position: Option<Position>, recovered: bool) {
        let mut payload = Vec::new();
        SubscribeReply { filter: filter.into(), position, recovered }.encode(Dialect::V1, &mut payload);
        self.receive(SUBSCRIBE, 7, std::str::from_utf8(&payload).unwrap());
    }

    fn message(&mut self, topic: &str, position: Option<Position>, data: &str) {
        let mut payload = Vec::new();
        Message { topic: topic.into(), position, data: data.as_bytes().into() }.encode(Dialect::V1, &mut payload).unwrap();
        self.receive(12, 7, std::str::from_utf8(&payload).unwrap());
    }

    fn refuse(&mut self, topic: &str, code: u16, number: Option<u32>) {
        let payload = error_payload("why", code, Some(topic), number);
        self.receive(8, 7, std::str::from_utf8(&payload).unwrap());
    }

    /// Comes back after a connection that was lost.
    fn reconnect(&mut self) -> Vec<(u8, i64, String)> {
        self.close_and_wait();
        self.machine.handle_connected(self.now);
        self.events();
        assert_eq!(self.written().len(), 1, "nothing is asked before the node is registered");
        self.receive(6, 0, &register_reply("n1", 8));
        assert_eq!(self.events(), [register("n1", 8)]);
        self.written()
    }
}

fn subscribed(filter: &str, position: Option<Position>, recovered: bool) -> ClientEvent {
    ClientEvent::Subscribed { filter: filter.into(), position, recovered }
}

fn message(topic: &str, position: Option<Position>, data: &str) -> ClientEvent {
    message_for("n1", 7, topic, position, data)
}

fn message_for(node: &str, channel_id: i64, topic: &str, position: Option<Position>, data: &str) -> ClientEvent {
    let (payload, node_id) = (data.to_owned().into(), Some(node.into()));
    ClientEvent::Message(Box::new(TopicMessage { topic: topic.into(), position, payload, channel_id, node_id }))
}

fn refused(filter: &str, code: i64) -> ClientEvent {
    ClientEvent::SubscribeRefused { filter: filter.into(), code, message: "why".into() }
}

#[test]
fn what_is_subscribed_to_is_asked_for_once_the_node_is_registered_and_told_when_it_is_answered() {
    let mut rig = Rig::new(settings());
    rig.machine.subscribe("a/b", Some(at(3))).unwrap();
    rig.machine.handle_connected(rig.now);
    rig.events();
    assert_eq!(rig.written().len(), 1, "the REGISTER");
    rig.receive(6, 0, &register_reply("n1", 7));
    rig.events();
    rig.machine.subscribe("a/+", None).unwrap();
    rig.machine.subscribe("a/+", None).unwrap();
    let asked = [r#"{"filter":"a\/b","offset":3,"epoch":5}"#, r#"{"filter":"a\/+"}"#].map(|payload| (SUBSCRIBE, 7, payload.to_owned()));
    assert_eq!(rig.written(), asked);
    assert_eq!(rig.written(), []);
    rig.answer("a/b", Some(at(9)), true);
    rig.answer("a/+", None, true);
    assert_eq!(rig.events(), [subscribed("a/b", Some(at(9)), true), subscribed("a/+", None, true)]);
    rig.message("a/b", Some(at(4)), "kept");
    rig.message("a/c", None, "through the filter");
    assert_eq!(rig.events(), [message("a/b", Some(at(4)), "kept"), message("a/c", None, "through the filter")]);
    assert_eq!((rig.machine.position("a/b"), rig.machine.position("a/+"), rig.machine.stats().subscriptions), (Some(at(4)), None, 2));
    rig.machine.unsubscribe("a/b").unwrap();
    assert_eq!(rig.machine.unsubscribe("a/b"), Err(ClientRefusal::NoSuchSubscription));
    assert_eq!(rig.written(), [(UNSUBSCRIBE, 7, r#"{"filter":"a\/b"}"#.to_owned())]);
    rig.receive(UNSUBSCRIBE, 7, r#"{"filter":"a/b"}"#);
    assert_eq!(rig.events(), []);
    assert_eq!((rig.machine.stats().messages_sent, rig.machine.stats().frames_refused), (0, 0));
}

#[test]
fn who_has_agreed_on_v2_asks_and_publishes_in_v2_and_hears_both() {
    let mut rig = Rig::agreed();
    rig.machine.subscribe("t", Some(at(1))).unwrap();
    rig.machine.publish("t", b"\xff", Some(9), rig.now).unwrap();
    rig.machine.fill_outbox(rig.now);
    let mut asked = v2_frame(PUBLISH, 7, b"\x01\0\0\0\x09\x01t\xff");
    asked.extend(v2_frame(SUBSCRIBE, 7, b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x05t"));
    assert_eq!(rig.written_raw(), asked);
    let mut payload = Vec::new();
    PublishReply { id: 9, position: Some(at(2)), reach: 3 }.encode(Dialect::V2, &mut payload);
    rig.machine.handle_bytes(&v2_frame(PUBLISH, 7, &payload));
    rig.answer("t", Some(at(2)), true);
    payload.clear();
    Message { topic: "t".into(), position: Some(at(2)), data: b"\xff"[..].into() }.encode(Dialect::V2, &mut payload).unwrap();
    rig.machine.handle_bytes(&v2_frame(12, 7, &payload));
    let events = rig.events();
    assert_eq!(events[..2], [ClientEvent::Published { number: 9, position: Some(at(2)), reach: 3 }, subscribed("t", Some(at(2)), true)]);
    assert!(matches!(&events[2], ClientEvent::Message(told) if *told.payload == *b"\xff"));
}

#[test]
fn after_a_reconnect_topics_go_on_where_they_were_and_filters_begin_anew_which_is_told() {
    let mut rig = Rig::registered(settings());
    for filter in ["+", "t", "quiet"] {
        rig.machine.subscribe(filter, None).unwrap();
    }
    rig.machine.subscribe("gone", None).unwrap();
    rig.written();
    rig.answer("+", None, true);
    for topic in ["t", "quiet", "gone"] {
        rig.answer(topic, Some(at(3)), true);
    }
    rig.message("t", Some(at(4)), "told");
    assert_eq!(rig.events().len(), 5);
    rig.machine.unsubscribe("gone").unwrap();
    let asked = [
        r#"{"filter":"quiet","offset":3,"epoch":5}"#,
        r#"{"filter":"t","offset":4,"epoch":5}"#,
        // Behind the topics: what they go on with would come behind what filters bring.
        r#"{"filter":"+"}"#,
    ];
    assert_eq!(rig.reconnect(), asked.map(|payload| (SUBSCRIBE, 8, payload.to_owned())));
    assert_eq!(rig.machine.stats().subscriptions, 3);
    rig.answer("quiet", Some(at(3)), true);
    rig.answer("+", None, true);
    assert_eq!(rig.events(), [subscribed("quiet", Some(at(3)), true), subscribed("+", None, false)], "what came meanwhile is missing");
}

/// The answers of a server after a reconnect, and what is told then of a topic of which 4 was told last.
#[test]
fn what_was_told_is_not_told_again_and_what_is_missing_is_told_as_missing() {
    let later = |offset| Position { offset, epoch: 6 };
    let back = || {
        let mut rig = Rig::registered(settings());
        rig.machine.subscribe("t", None).unwrap();
        rig.written();
        rig.answer("t", Some(at(3)), true);
        rig.message("t", Some(at(4)), "4");
        rig.message("t", Some(at(4)), "again");
        assert_eq!(rig.events(), [subscribed("t", Some(at(3)), true), message("t", Some(at(4)), "4")]);
        rig.reconnect();
        rig
    };
    let heard = |rig: &mut Rig, position: Position| {
        let Position { offset, epoch } = position;
        rig.receive(12, 8, &format!(r#"{{"topic":"t","offset":{offset},"epoch":{epoch},"data":"x"}}"#));
        rig.events()
    };
    let told = |position| message_for("n1", 8, "t", Some(position), "x");
    let mut rig = back();
    assert_eq!(heard(&mut rig, at(5)), [], "it comes again with what was kept");
    rig.answer("t", Some(at(6)), true);
    assert_eq!(rig.events(), [subscribed("t", Some(at(6)), true)]);
    assert_eq!([heard(&mut rig, at(4)), heard(&mut rig, at(5)), heard(&mut rig, at(6))], [vec![], vec![told(at(5))], vec![told(at(6))]]);
    assert_eq!(heard(&mut rig, at(8)), [subscribed("t", None, false), told(at(8))], "the server had no room for it");
    assert_eq!(heard(&mut rig, at(9)), [told(at(9))]);
    // The server does not keep that much.
    let mut rig = back();
    rig.answer("t", Some(at(9)), false);
    assert_eq!(rig.events(), [subscribed("t", Some(at(9)), false)]);
    assert_eq!([heard(&mut rig, at(3)), heard(&mut rig, at(8)), heard(&mut rig, at(9))], [vec![], vec![told(at(8))], vec![told(at(9))]]);
    // It has lost something while it went on with what it keeps.
    rig.answer("t", None, false);
    assert_eq!(rig.events(), [subscribed("t", None, false)]);
    assert_eq!([heard(&mut rig, at(12)), heard(&mut rig, at(13))], [vec![told(at(12))], vec![told(at(13))]]);
    // It has begun a new life of the topic: all of it is new.
    let mut rig = back();
    rig.answer("t", Some(later(2)), false);
    assert_eq!(rig.events(), [subscribed("t", Some(later(2)), false)]);
    assert_eq!([heard(&mut rig, later(1)), heard(&mut rig, later(2))], [vec![told(later(1))], vec![told(later(2))]]);
    // A server that says otherwise cannot be right.
    let mut rig = back();
    rig.answer("t", Some(later(2)), true);
    assert_eq!(rig.events(), [subscribed("t", Some(later(2)), false)]);
    assert_eq!(heard(&mut rig, later(1)), [told(later(1))]);
}

#[test]
fn a_message_that_the_host_had_no_room_for_comes_again_after_a_reconnect() {
    let mut rig = Rig::registered(settings());
    rig.machine.subscribe("t", None).unwrap();
    rig.written();
    rig.answer("t", Some(at(3)), true);
    rig.events();
    rig.message("t", Some(at(4)), "told");
    rig.message("t", Some(at(6)), "behind a gap");
    assert_eq!(rig.machine.poll_event(rig.now), Some(message("t", Some(at(4)), "told")));
    let gap = rig.machine.poll_event(rig.now).unwrap();
    assert_eq!(gap, subscribed("t", None, false));
    rig.machine.stall(gap);
    let asked = rig.reconnect();
    assert_eq!(asked, [(SUBSCRIBE, 8, r#"{"filter":"t","offset":5,"epoch":5}"#.to_owned())]);
    rig.answer("t", Some(at(6)), true);
    assert_eq!(rig.events(), [subscribed("t", Some(at(6)), false)], "the gap was not told yet");
}

#[test]
fn a_host_may_go_back_to_a_position_and_whatever_was_under_way_meanwhile_is_not_told() {
    let mut rig = Rig::registered(settings());
    rig.machine.subscribe("t", None).unwrap();
    rig.written();
    rig.answer("t", Some(at(3)), true);
    rig.events();
    rig.machine.subscribe("t", Some(at(1))).unwrap();
    rig.message("t", Some(at(4)), "under way");
    assert_eq!((rig.events(), rig.written().len()), (vec![], 1));
    // It changes its mind before the answer.
    rig.machine.subscribe("t", Some(Position::default())).unwrap();
    rig.answer("t", Some(at(4)), true);
    assert_eq!(rig.events(), []);
    assert_eq!(rig.written(), [(SUBSCRIBE, 7, r#"{"filter":"t","offset":0,"epoch":0}"#.to_owned())]);
    rig.answer("t", Some(at(4)), true);
    for offset in 1..=4 {
        rig.message("t", Some(at(offset)), "x");
    }
    assert_eq!(rig.events().len(), 5);
}

#[test]
fn what_is_under_way_when_a_topic_begins_that_is_heard_already_is_told_once_and_in_order() {
    for filter in [Some("+"), None] {
        let mut rig = Rig::registered(settings());
        if let Some(filter) = filter {
            rig.machine.subscribe(filter, None).unwrap();
            rig.written();
            rig.answer(filter, None, true);
            rig.events();
        }
        rig.machine.subscribe("t", None).unwrap();
        rig.written();
        // The server has put the node into the topic, or it hears it through the filter.
        rig.message("t", Some(at(3)), "3");
        rig.answer("t", Some(at(6)), true);
        [4, 5, 5, 6, 4, 7, 6].into_iter().for_each(|offset| rig.message("t", Some(at(offset)), &offset.to_string()));
        let told = |offset: u64| message("t", Some(at(offset)), &offset.to_string());
        assert_eq!(rig.events(), [told(3), subscribed("t", Some(at(6)), true), told(4), told(5), told(6), told(7)]);
        assert_eq!(rig.machine.position("t"), Some(at(7)));
        // From then on it goes on behind a position, and what is under way comes again.
        rig.reconnect();
        rig.receive(9, 8, r#"{"filter":"t","offset":9,"epoch":5,"recovered":true}"#);
        let heard = |rig: &mut Rig, offset| {
            rig.receive(12, 8, &format!(r#"{{"topic":"t","offset":{offset},"epoch":5,"data":"x"}}"#));
            rig.events().len()
        };
        rig.events();
        assert_eq!([6, 7, 8, 9].map(|offset| heard(&mut rig, offset)), [0, 0, 1, 1]);
    }
}

#[test]
fn what_was_under_way_and_found_no_room_is_asked_for_again() {
    let mut rig = Rig::registered(settings());
    rig.machine.subscribe("t", None).unwrap();
    rig.written();
    rig.answer("t", Some(at(6)), true);
    rig.events();
    [3, 4].into_iter().for_each(|offset| rig.message("t", Some(at(offset)), "x"));
    assert_eq!(rig.machine.poll_event(rig.now), Some(message("t", Some(at(3)), "x")));
    let event = rig.machine.poll_event(rig.now).unwrap();
    rig.machine.stall(event);
    assert_eq!(rig.reconnect(), [(SUBSCRIBE, 8, r#"{"filter":"t","offset":3,"epoch":5}"#.to_owned())]);
}

#[test]
fn what_cannot_be_is_refused_at_once() {
    let mut rig = Rig::registered(ClientConfig { max_subscriptions: 2, ..settings() });
    for (filter, since, refusal) in [
        ("", None, ClientRefusal::BadTopic(BadTopic::Empty)),
        ("a/#/b", None, ClientRefusal::BadTopic(BadTopic::Misplaced)),
        ("a/+", Some(at(1)), ClientRefusal::FilterHasNoPosition),
    ] {
        assert_eq!(rig.machine.subscribe(filter, since), Err(refusal));
    }
    for filter in ["a", "b"] {
        rig.machine.subscribe(filter, None).unwrap();
    }
    assert_eq!(rig.machine.subscribe("c", None), Err(ClientRefusal::TooManySubscriptions));
    rig.machine.subscribe("a", Some(at(1))).unwrap();
    rig.machine.unsubscribe("b").unwrap();
    rig.machine.subscribe("c", None).unwrap();
    assert_eq!(rig.machine.publish("a/+", b"x", None, rig.now), Err(ClientRefusal::BadTopic(BadTopic::Wildcard)));
    assert_eq!(rig.machine.publish("a", b"\xff", None, rig.now), Err(ClientRefusal::NotUtf8));
    assert_eq!(rig.machine.publish("a", &vec![b'x'; 10_485_760], None, rig.now), Err(ClientRefusal::TooLong));
    assert_eq!((rig.machine.stats().messages_sent, rig.events()), (0, vec![]));
    rig.machine.disconnect(rig.now);
    assert_eq!(rig.machine.subscribe("d", None), Err(ClientRefusal::NotConnected));
    assert_eq!(rig.machine.publish("a", b"x", None, rig.now), Err(ClientRefusal::NotConnected));
    let mut rig = Rig::connected(settings());
    assert_eq!(rig.machine.publish("a", b"x", None, rig.now), Err(ClientRefusal::NotConnected), "nobody is registered yet");
}

#[test]
fn a_refusal_is_told_with_its_topic_and_number_and_what_was_refused_is_not_asked_for_again() {
    let mut rig = Rig::registered(settings());
    rig.machine.subscribe("no", None).unwrap();
    rig.machine.publish("full", b"x", Some(3), rig.now).unwrap();
    rig.machine.publish("no", b"too long", None, rig.now).unwrap();
    rig.written();
    // About the publication, although the subscription has no answer yet.
    let too_long = error_payload("The message is longer than a frame may be", 400, Some("no"), None);
    rig.receive(8, 7, std::str::from_utf8(&too_long).unwrap());
    rig.refuse("no", 403, None);
    rig.refuse("full", 429, Some(3));
    let events = rig.events();
    assert!(matches!(&events[0], ClientEvent::PublishRefused { topic, number: None, code: 400, .. } if *topic == "no"));
    let full = ClientEvent::PublishRefused { topic: "full".into(), number: Some(3), code: 429, message: "why".into() };
    assert_eq!(events[1..], [refused("no", 403), full]);
    assert_eq!(rig.machine.unsubscribe("no"), Err(ClientRefusal::NoSuchSubscription));
    assert_eq!(rig.reconnect(), []);
    // It was not the reason why the connection ended.
    rig.refuse("full", 403, Some(4));
    rig.events();
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(rig.events(), [closed(CloseReason::PeerClosed)]);
}

#[test]
fn a_refusal_about_a_topic_takes_no_node_away() {
    let mut rig = gateway(settings(), &["n2"]);
    for channel_id in [0, 7, 8] {
        rig.machine.subscribe("t", None).unwrap();
        rig.written();
        let payload = error_payload("why", 403, Some("t"), None);
        rig.receive(8, channel_id, std::str::from_utf8(&payload).unwrap());
        assert_eq!(rig.events(), [refused("t", 403)]);
    }
    assert_eq!(rig.machine.stats().nodes, 2);
    // A server's refusal of something else is what it was.
    rig.receive(8, 8, &server_error("why", 403));
    assert_eq!(rig.events(), [lost("n2", 8, 403)]);
}

#[test]
fn when_its_node_is_lost_subscriptions_wait_for_it_to_come_back() {
    let mut rig = gateway(settings(), &["n2"]);
    rig.machine.subscribe("t", None).unwrap();
    rig.written();
    rig.answer("t", Some(at(3)), true);
    rig.receive(8, 7, &server_error("why", 408));
    assert_eq!(rig.events(), [subscribed("t", Some(at(3)), true), lost("n1", 7, 408)]);
    rig.machine.subscribe("u", None).unwrap();
    assert_eq!(rig.written(), []);
    rig.machine.add_node("n1", "[]").unwrap();
    assert_eq!(registers(&mut rig), ["n1"]);
    reply(&mut rig, "n1", 9);
    rig.events();
    let asked = [r#"{"filter":"t","offset":3,"epoch":5}"#, r#"{"filter":"u"}"#];
    assert_eq!(rig.written(), asked.map(|payload| (SUBSCRIBE, 9, payload.to_owned())));
}

#[test]
fn what_was_on_its_way_when_its_node_was_lost_ends_no_subscription() {
    let mut rig = gateway(settings(), &["n2"]);
    rig.machine.subscribe("t", None).unwrap();
    rig.written();
    rig.answer("t", Some(at(3)), true);
    rig.receive(8, 7, &server_error("why", 408));
    rig.events();
    // To a PUBLISH, or a SUBSCRIBE, on a channel that is not there any more.
    rig.receive(8, 7, r#"{"message":"No such node on this connection","code":404,"topic":"t"}"#);
    assert_eq!(rig.events(), []);
    rig.machine.add_node("n1", "[]").unwrap();
    registers(&mut rig);
    reply(&mut rig, "n1", 9);
    rig.events();
    assert_eq!(rig.written(), [(SUBSCRIBE, 9, r#"{"filter":"t","offset":3,"epoch":5}"#.to_owned())]);
}

#[test]
fn a_node_that_the_server_put_into_a_topic_hears_it_without_having_asked() {
    let mut rig = gateway(settings(), &["n2"]);
    let heard = |rig: &mut Rig, channel_id, offset| {
        rig.receive(12, channel_id, &format!(r#"{{"topic":"t","offset":{offset},"epoch":5,"data":"x"}}"#));
        rig.events()
    };
    assert_eq!(heard(&mut rig, 7, 4), [message("t", Some(at(4)), "x")]);
    assert_eq!(heard(&mut rig, 8, 4), [message_for("n2", 8, "t", Some(at(4)), "x")]);
    // What the other one hears moves nothing of the client's own.
    rig.machine.subscribe("t", None).unwrap();
    rig.written();
    rig.answer("t", Some(at(4)), true);
    rig.events();
    assert_eq!(heard(&mut rig, 8, 5), [message_for("n2", 8, "t", Some(at(5)), "x")]);
    assert_eq!(heard(&mut rig, 7, 5), [message("t", Some(at(5)), "x")]);
}

#[test]
fn what_a_server_skips_beyond_its_rate_limit_is_asked_again_after_a_pause() {
    let mut rig = Rig::registered(settings());
    for n in 0..300 {
        rig.machine.subscribe(&format!("t{n:03}"), None).unwrap();
    }
    assert_eq!(rig.written().len(), 256, "so many may be without an answer");
    rig.answer("t000", Some(at(0)), true);
    rig.answer("t002", Some(at(0)), true);
    rig.receive(8, 0, &server_error("Rate limit exceeded", 429));
    assert_eq!(rig.events().len(), 3);
    assert_eq!(rig.written(), [], "there is a pause");
    assert_eq!(rig.machine.deadline(), Some(rig.now.mono + SECOND));
    rig.pass_to_deadline();
    let mut again = rig.written();
    assert_eq!(again.len(), 128, "half as many at a time");
    for round in 0..2 {
        for (_, _, payload) in std::mem::take(&mut again) {
            let filter = payload.trim_start_matches(r#"{"filter":""#).trim_end_matches(r#""}"#).to_owned();
            rig.answer(&filter, Some(at(0)), true);
        }
        rig.events();
        again = rig.written();
        assert_eq!(again.len(), [170, 0][round]);
    }
    assert_eq!(rig.reconnect().len(), 256);
}

#[test]
fn subscriptions_fill_half_the_outbox_at_a_time_and_wait_for_the_rest() {
    let mut rig = Rig::registered(ClientConfig { outbox_bytes: 4000, ..settings() });
    for n in 0..200 {
        rig.machine.subscribe(&format!("{n:0>100}"), None).unwrap();
    }
    rig.machine.fill_outbox(rig.now);
    assert!((2000..2200).contains(&rig.machine.outbox().len()), "{}", rig.machine.outbox().len());
    rig.machine.send(&[b'x'; 1500], 0, rig.now).unwrap();
    let mut asked = 0;
    loop {
        let written = rig.written();
        if written.is_empty() {
            break;
        }
        asked += written.iter().filter(|(frame_type, ..)| *frame_type == SUBSCRIBE).count();
    }
    assert_eq!(asked, 200);
}

#[test]
fn what_servers_say_of_topics_that_nobody_asked_for_is_bounded() {
    let mut rig = Rig::registered(ClientConfig { outbox_bytes: 64 << 10, ..modern() });
    for name in [&*"x".repeat(256), ""] {
        rig.message(name, None, "x");
        rig.answer(name, Some(at(1)), true);
    }
    for payload in ["", "{}", r#"{"topic":1}"#] {
        (9..=12).for_each(|frame_type| rig.receive(frame_type, 7, payload));
    }
    assert_eq!((rig.events(), rig.machine.stats().frames_refused), (vec![], 16));
    rig.machine.subscribe("t", None).unwrap();
    rig.written();
    for n in 0..20_000 {
        rig.answer(&format!("stranger {n}"), Some(at(1)), true);
    }
    assert_eq!(rig.events(), []);
    let waiting = rig.machine.outbox().len();
    assert!((30 << 10..33 << 10).contains(&waiting), "{waiting} bytes wait");
    assert!(rig.machine.stats().frames_refused > 15_000);
    // And names that come and go in turn.
    let mut rig = Rig::registered(settings());
    for n in 0..20_000 {
        let name = if n % 2 == 0 { "same" } else { &format!("t{n}") };
        rig.machine.subscribe(name, None).unwrap();
        rig.machine.unsubscribe(name).unwrap();
    }
    rig.machine.subscribe("last", None).unwrap();
    assert!((100..300).contains(&rig.machine.stats().bytes_kept) && rig.machine.kept() == 0, "{}", rig.machine.stats().bytes_kept);
    assert_eq!(rig.written(), [(SUBSCRIBE, 7, r#"{"filter":"last"}"#.to_owned())]);
}

#[test]
fn a_stream_of_topics_split_at_every_byte_tells_the_same() {
    for dialect in [Dialect::V1, Dialect::V2] {
        let mut stream = Vec::new();
        let mut put = |frame_type: FrameType, payload: &[u8]| wire::encode(dialect, frame_type, 7, payload, &mut stream).unwrap();
        let mut payload = Vec::new();
        SubscribeReply { filter: "t".into(), position: Some(at(3)), recovered: true }.encode(dialect, &mut payload);
        put(FrameType::SUBSCRIBE, &payload);
        for offset in [4, 4, 6] {
            payload.clear();
            Message { topic: "t".into(), position: Some(at(offset)), data: "é \"q\"".as_bytes().into() }
                .encode(dialect, &mut payload)
                .unwrap();
            put(FrameType::MESSAGE, &payload);
        }
        let run = |cut: usize| {
            let mut rig = Rig::registered(settings());
            rig.machine.subscribe("t", None).unwrap();
            rig.written();
            rig.machine.handle_bytes(&stream[..cut]);
            let mut events = rig.events();
            rig.machine.handle_bytes(&stream[cut..]);
            events.extend(rig.events());
            events
        };
        let whole = run(stream.len());
        assert_eq!(whole.len(), 4);
        (0..stream.len()).for_each(|cut| assert_eq!(run(cut), whole, "cut at {cut}"));
    }
}
