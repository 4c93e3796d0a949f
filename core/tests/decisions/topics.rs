//! Who may subscribe to what, and what may be published.

use super::bus::*;
use super::rig::*;
use heartbus_core::event::{Asked, CloseReason, Decision, EventMask, Question};
use heartbus_core::hub::memory::Part;
use heartbus_core::hub::wheel::TICK;
use heartbus_core::hub::{Next, Refusal, Session};
use heartbus_core::settings::{HistoryRule, RateLimit, RateLimitBy};
use heartbus_core::wire::topic::Filter;
use std::sync::atomic::{AtomicBool, Ordering};

const SUBSCRIBE: u8 = 9;
const PUBLISH: u8 = 11;
const ERROR: u8 = 8;

fn asking_for(kinds: EventMask) -> Bus {
    let rule = HistoryRule { filter: "kept/#".into(), ..HistoryRule::default() };
    let bus = asking_with(|limits| limits.history = vec![rule]);
    bus.host.decides.store(kinds.0, Ordering::Relaxed);
    bus
}

fn filters(question: &Question) -> (Vec<&str>, Option<&str>) {
    match &question.asked {
        Asked::Subscription { filters, user } => (filters.iter().map(|filter| &**filter).collect(), user.as_deref()),
        other => panic!("{other:?}"),
    }
}

fn publication(question: &Question) -> (&str, &[u8], Option<&str>) {
    match &question.asked {
        Asked::Publication { topic, payload, user } => (topic, payload, user.as_deref()),
        other => panic!("{other:?}"),
    }
}

fn subscribe(bus: &mut Bus, slot: u32, channel: i64, filter: &str) -> Vec<(u8, i64, String)> {
    bus.send(slot, SUBSCRIBE, channel, &format!(r#"{{"filter":"{filter}"}}"#))
}

fn publish(bus: &mut Bus, slot: u32, topic: &str, id: u32) -> Vec<(u8, i64, String)> {
    bus.send(slot, PUBLISH, 0, &format!(r#"{{"topic":"{topic}","data":"x","id":{id}}}"#))
}

fn subscribers(bus: &Bus, topic: &str) -> usize {
    bus.hub.topics().subscribers(topic)
}

/// How many were published to a topic of which something is kept.
fn offset(bus: &Bus, topic: &str) -> u64 {
    bus.hub.topics().position_of(Filter::Exact(topic)).position.map_or(0, |position| position.offset)
}

fn refused(topic: &str, id: &str) -> String {
    format!(r#"{{"message":"Refused by the server","code":403,"topic":"{topic}"{id}}}"#)
}

fn kinds(answers: &[(u8, i64, String)]) -> Vec<u8> {
    answers.iter().map(|answer| answer.0).collect()
}

#[test]
fn a_subscription_begins_once_the_host_has_agreed() {
    let mut bus = asking_for(EventMask::SUBSCRIBE_BEFORE);
    let slot = bus.open();
    assert_eq!(kinds(&bus.register(slot, "n")), [6], "nobody asks about that");
    assert_eq!(subscribe(&mut bus, slot, 0, "a/+"), []);
    let asked = question(&bus);
    assert_eq!((filters(&asked), subscribers(&bus, "a/b")), ((vec!["a/+"], None), 0));
    assert_eq!(feed(&mut bus, slot, &frame(1, 0, "{}")).2.len(), 1, "it is alive meanwhile");
    let answers = decide(&mut bus, &asked, Decision::Allow);
    assert_eq!(kinds(&answers), [SUBSCRIBE]);
    assert_eq!((subscribers(&bus, "a/b"), is_clean(&bus)), (1, true));
    let counters = &bus.thread.counters;
    assert_eq!((counters.subscribes.get(), counters.subscribes_refused.get()), (1, 0));
}

#[test]
fn a_subscription_that_is_refused_or_not_decided_on_is_answered_and_the_connection_goes_on() {
    let mut bus = asking_for(EventMask::SUBSCRIBE_BEFORE);
    let slot = bus.open();
    bus.register(slot, "n");
    subscribe(&mut bus, slot, 0, "a");
    let asked = question(&bus);
    assert_eq!(decide(&mut bus, &asked, Decision::Refuse), [(ERROR, 0, refused("a", ""))]);
    subscribe(&mut bus, slot, 0, "b");
    let asked = question(&bus);
    let mut answers = Vec::new();
    for _ in 0..=DECISION_TIMEOUT / TICK {
        answers.extend(bus.tick_and_listen());
    }
    assert_eq!(answers, [(ERROR, 0, refused("b", ""))]);
    assert_eq!(bus.hub.decide(asked.number, Decision::Allow), Err(Refusal::NoSuchQuestion));
    assert_eq!((subscribers(&bus, "a"), subscribers(&bus, "b"), is_clean(&bus)), (0, 0, true));
    assert!(bus.online().contains("n"));
    let counters = &bus.thread.counters;
    assert_eq!((counters.subscribes_refused.get(), counters.decisions_refused.get(), counters.decisions_timed_out.get()), (2, 1, 1));
}

#[test]
fn the_host_may_give_other_topics_of_which_the_one_that_was_asked_for_alone_is_answered() {
    let mut bus = asking_for(EventMask::SUBSCRIBE_BEFORE);
    let slot = bus.open();
    bus.register(slot, "n");
    subscribe(&mut bus, slot, 0, "a");
    let asked = question(&bus);
    assert_eq!(bus.hub.decide(asked.number, Decision::AllowTopics(vec!["a/#/b".into()])), Err(Refusal::NotFilters));
    assert_eq!(bus.hub.decide(asked.number, Decision::AllowWithMetadata(r#"{"a":1}"#.into())), Err(Refusal::OtherQuestion));
    assert_eq!(kinds(&decide(&mut bus, &asked, Decision::AllowTopics(vec!["own/n".into(), "a".into()]))), [SUBSCRIBE]);
    assert_eq!((subscribers(&bus, "a"), subscribers(&bus, "own/n")), (1, 1));
    subscribe(&mut bus, slot, 0, "secret");
    let asked = question(&bus);
    assert_eq!(decide(&mut bus, &asked, Decision::AllowTopics(vec!["public".into()])), [(ERROR, 0, refused("secret", ""))]);
    assert_eq!((subscribers(&bus, "secret"), subscribers(&bus, "public")), (0, 1));
}

#[test]
fn a_filter_that_is_none_is_refused_and_the_host_not_asked() {
    let mut bus = asking_for(EventMask::SUBSCRIBE_BEFORE);
    let slot = bus.open();
    bus.register(slot, "n");
    assert_eq!(kinds(&subscribe(&mut bus, slot, 0, "a/#/b")), [ERROR]);
    assert_eq!(kinds(&subscribe(&mut bus, slot, 77, "a")), [ERROR], "nor for a node that is not there");
    bus.host.decides.store(EventMask::PUBLISH_BEFORE.0, Ordering::Relaxed);
    for topic in ["a/#", "", &"t".repeat(256)] {
        assert_eq!(kinds(&publish(&mut bus, slot, topic, 1)), [ERROR], "nor for what is no topic");
    }
    assert!(questions(&bus).is_empty() && bus.thread.counters.decisions.get() == 0);
}

#[test]
fn a_node_that_has_left_meanwhile_subscribes_to_nothing_and_publishes_nothing() {
    let mut bus = asking_for(EventMask::SUBSCRIBE_BEFORE | EventMask::PUBLISH_BEFORE);
    let slot = bus.open();
    bus.register(slot, "stays");
    bus.register(slot, "goes");
    let channel = bus.channel("goes");
    subscribe(&mut bus, slot, channel, "a");
    let asked = question(&bus);
    bus.hub.disconnect("goes", &bus.thread.counters).unwrap();
    bus.follow_commands();
    let answers = decide(&mut bus, &asked, Decision::AllowTopics(vec!["a".into(), "b".into()]));
    assert_eq!(answers, [(ERROR, channel, r#"{"message":"No such node on this connection","code":404,"topic":"a"}"#.to_owned())]);
    assert_eq!((subscribers(&bus, "a"), subscribers(&bus, "b")), (0, 0));
    bus.register(slot, "again");
    let channel = bus.channel("again");
    bus.send(slot, PUBLISH, channel, r#"{"topic":"kept/a","data":"x","id":3}"#);
    let asked = question(&bus);
    bus.hub.disconnect("again", &bus.thread.counters).unwrap();
    bus.follow_commands();
    assert_eq!(kinds(&decide(&mut bus, &asked, Decision::Allow)), [ERROR]);
    assert_eq!((offset(&bus, "kept/a"), is_clean(&bus)), (0, true));
}

#[test]
fn a_publication_goes_out_once_the_host_has_agreed_as_it_was_or_as_the_host_wants_it() {
    let mut bus = asking_for(EventMask::PUBLISH_BEFORE);
    let slot = bus.open();
    bus.register(slot, "n");
    assert_eq!(publish(&mut bus, slot, "kept/a", 7), []);
    let asked = question(&bus);
    assert_eq!((publication(&asked), offset(&bus, "kept/a")), (("kept/a", &b"x"[..], None), 0));
    let answers = decide(&mut bus, &asked, Decision::Allow);
    assert!(kinds(&answers) == [PUBLISH] && answers[0].2.contains(r#""id":7"#), "{answers:?}");
    assert_eq!(offset(&bus, "kept/a"), 1);

    publish(&mut bus, slot, "kept/a", 8);
    let asked = question(&bus);
    let other = |topic: &str, len: usize| Decision::AllowPublication { topic: topic.into(), payload: vec![b'y'; len].into() };
    assert_eq!(bus.hub.decide(asked.number, other("a/#", 1)), Err(Refusal::NotTopic));
    assert_eq!(bus.hub.decide(asked.number, other("$nodes", 1)), Err(Refusal::NotTopic));
    assert_eq!(bus.hub.decide(asked.number, other("kept/b", 2 << 20)), Err(Refusal::TooLong));
    assert_eq!(bus.hub.decide(asked.number, Decision::AllowTopics(vec!["a".into()])), Err(Refusal::OtherQuestion));
    let answers = decide(&mut bus, &asked, other("kept/b", 1));
    assert!(kinds(&answers) == [PUBLISH] && answers[0].2.contains(r#""id":8"#), "{answers:?}");
    assert_eq!((offset(&bus, "kept/a"), offset(&bus, "kept/b")), (1, 1));

    publish(&mut bus, slot, "kept/a", 9);
    let asked = question(&bus);
    assert_eq!(decide(&mut bus, &asked, Decision::Refuse), [(ERROR, 0, refused(r"kept\/a", r#","id":9"#))]);
    assert_eq!((offset(&bus, "kept/a"), is_clean(&bus)), (1, true));
    let counters = &bus.thread.counters;
    assert_eq!((counters.publishes.get(), counters.published.get(), counters.publish_refused.get()), (3, 2, 1));
}

#[test]
fn publications_of_a_node_keep_their_order_while_the_host_decides() {
    let mut bus = asking_for(EventMask::PUBLISH_BEFORE);
    let slot = bus.open();
    bus.register(slot, "n");
    let frames: Vec<u8> = (1..=5).flat_map(|id| frame(PUBLISH, 0, &format!(r#"{{"topic":"kept/a","data":"{id}","id":{id}}}"#))).collect();
    assert_eq!(feed(&mut bus, slot, &frames).0, frames.len());
    for id in 1..=5 {
        let asked = question(&bus);
        assert_eq!(publication(&asked).1, id.to_string().as_bytes());
        let answers = decide(&mut bus, &asked, Decision::Allow);
        assert!(answers.len() == 1 && answers[0].2.contains(&format!(r#""id":{id}"#)), "{answers:?}");
    }
    assert_eq!((offset(&bus, "kept/a"), is_clean(&bus)), (5, true));
}

#[test]
fn more_decisions_than_may_be_open_are_refused_each_in_its_own_words() {
    let mut bus = asking_with(|limits| limits.max_decisions = 1);
    bus.host.decides.store((EventMask::SUBSCRIBE_BEFORE | EventMask::PUBLISH_BEFORE).0, Ordering::Relaxed);
    let [first, other] = [bus.open(), bus.open()];
    bus.register(first, "first");
    bus.register(other, "other");
    subscribe(&mut bus, first, 0, "x");
    let too_many = |topic: &str, id: &str| {
        (ERROR, 0, format!(r#"{{"message":"Too many decisions are open on this server","code":403,"topic":"{topic}"{id}}}"#))
    };
    assert_eq!(subscribe(&mut bus, other, 0, "a"), [too_many("a", "")]);
    assert_eq!(publish(&mut bus, other, "a", 4), [too_many("a", r#","id":4"#)]);
    let counters = &bus.thread.counters;
    assert_eq!((counters.decisions_unasked.get(), counters.subscribes_refused.get(), counters.publish_refused.get()), (2, 1, 1));
    assert_eq!(questions(&bus).len(), 1);
}

#[test]
fn a_client_of_firetowers_subscribes_and_publishes_what_the_host_allows_in_order() {
    let mut bus = asking_for(EventMask::SUBSCRIBE_BEFORE | EventMask::PUBLISH_BEFORE);
    let slot = open_for_firetower(&mut bus);
    let all = [
        ask("subscribe", "a,b,+", r#""""#),
        ask("publish", "kept/x", "1"),
        ask("unSubscribe", "a", r#""""#),
        ask("publish", "kept/x", "2"),
    ]
    .concat();
    let taken = bus.with(slot, |session, cx| session.receive(cx, &all)).unwrap();
    assert_eq!(taken, (all.len(), Next::Continue));
    let asked = question(&bus);
    assert_eq!(filters(&asked), (vec!["a", "b"], Some("u")), "what is no topic is not asked about");
    assert!(bus.hub.memory().of(Part::Input) > 0);
    decide_for_websocket(&mut bus, slot, &asked, Decision::AllowTopics(vec!["a".into(), "own/u".into()]));
    assert_eq!([subscribers(&bus, "a"), subscribers(&bus, "b"), subscribers(&bus, "own/u")], [1, 0, 1]);
    let counters = &bus.thread.counters;
    assert_eq!(
        (counters.subscribes.get(), counters.subscribes_refused.get()),
        (4, 2),
        "two as the host wants, not b, and not what is none"
    );
    let asked = question(&bus);
    assert_eq!(publication(&asked), ("kept/x", &b"1"[..], Some("u")));
    decide_for_websocket(&mut bus, slot, &asked, Decision::AllowPublication { topic: "kept/y".into(), payload: "3".into() });
    assert_eq!((offset(&bus, "kept/x"), offset(&bus, "kept/y"), subscribers(&bus, "a")), (0, 1, 0), "it goes on behind that");
    let asked = question(&bus);
    assert_eq!(publication(&asked).1, b"2");
    decide_for_websocket(&mut bus, slot, &asked, Decision::Refuse);
    assert_eq!((offset(&bus, "kept/x"), bus.thread.counters.publishes.get(), bus.thread.counters.publish_refused.get()), (0, 2, 1));
    assert_eq!(bus.hub.decisions().count(), 0);
    bus.close(slot, CloseReason::PeerClosed);
    assert!(subscribers(&bus, "own/u") == 0 && is_clean(&bus));
}

#[test]
fn a_list_of_firetowers_that_is_refused_or_not_asked_about_is_counted_name_by_name() {
    let mut bus = asking_with(|limits| limits.max_decisions = 1);
    bus.host.decides.store(EventMask::SUBSCRIBE_BEFORE.0, Ordering::Relaxed);
    let slots = [open_for_firetower(&mut bus), open_for_firetower(&mut bus)];
    for slot in slots {
        bus.with(slot, |session, cx| session.receive(cx, &ask("subscribe", "a,b,+", r#""""#)));
    }
    let asked = question(&bus);
    let counted = |bus: &Bus| (bus.thread.counters.subscribes.get(), bus.thread.counters.subscribes_refused.get());
    assert_eq!(counted(&bus), (4, 4), "one was asked about, but for what is no topic, and of the other nothing");
    assert_eq!(bus.thread.counters.decisions_unasked.get(), 1);
    decide_for_websocket(&mut bus, slots[0], &asked, Decision::Refuse);
    assert_eq!((counted(&bus), subscribers(&bus, "a"), is_clean(&bus)), ((6, 6), 0, true));
    bus.with(slots[1], |session, cx| session.receive(cx, &ask("subscribe", "+", r#""""#)));
    assert_eq!((counted(&bus), questions(&bus).len()), ((7, 7), 0), "there is nothing to ask about");
}

#[test]
fn a_list_that_the_host_has_no_room_to_be_asked_about_is_paid_for_and_counted_once() {
    let own = RateLimit { capacity: 3, refill_per_second: 0.0, by: RateLimitBy::Connection };
    let mut bus = asking_with(|limits| (limits.rate_limit, limits.max_subscriptions) = (Some(own), 3));
    bus.host.decides.store(EventMask::SUBSCRIBE_BEFORE.0, Ordering::Relaxed);
    bus.host.room.set(AtomicBool::new(false)).unwrap();
    let slot = open_for_firetower(&mut bus);
    let list = ask("subscribe", "a,+,b,c", r#""""#);
    let taken = bus.with(slot, |session, cx| session.receive(cx, &list)).unwrap();
    assert_eq!(taken.1, Next::Wait);
    for _ in 0..3 {
        assert_eq!(bus.with(slot, |session, cx| session.receive(cx, &[])).unwrap().1, Next::Wait);
    }
    let counters = &bus.thread.counters;
    assert_eq!((counters.messages_in.get(), counters.subscribes_refused.get(), counters.rate_limited.get()), (0, 0, 0));
    bus.host.room.get().unwrap().store(true, Ordering::Relaxed);
    assert_eq!(bus.with(slot, |session, cx| session.receive(cx, &[])).unwrap().1, Next::Continue);
    let asked = question(&bus);
    assert_eq!(filters(&asked).0, ["a", "b"]);
    decide_for_websocket(&mut bus, slot, &asked, Decision::Allow);
    let counters = &bus.thread.counters;
    assert_eq!((counters.messages_in.get(), counters.subscribes.get(), counters.subscribes_refused.get()), (1, 3, 2));
    bus.with(slot, |session, cx| session.receive(cx, &ask("subscribe", "d", r#""""#)));
    assert_eq!((questions(&bus).len(), bus.thread.counters.rate_limited.get()), (0, 1), "all three were paid for");
}

fn open_for_firetower(bus: &mut Bus) -> u32 {
    let slot = bus.open_as(Session::open_websocket);
    let handshake = HANDSHAKE.replace("GET /", "GET /?user_id=u").replace("Sec-WebSocket-Protocol: heartbus.json\r\n", "");
    bus.with(slot, |session, cx| session.receive(cx, handshake.as_bytes()));
    assert!(heard(bus).contains(" 101 "));
    slot
}

fn ask(kind: &str, topic: &str, data: &str) -> Vec<u8> {
    message(1, format!(r#"{{"type":"{kind}","topic":"{topic}","data":{data}}}"#).as_bytes())
}

fn decide_for_websocket(bus: &mut Bus, slot: u32, asked: &Question, decision: Decision) {
    bus.hub.decide(asked.number, decision).unwrap();
    let posted = std::mem::take(&mut *bus.drained.0.lock().unwrap());
    for command in posted {
        if let heartbus_core::hub::link::CommandKind::Decide(answered) = command.kind {
            bus.with(slot, |session, cx| session.decide(cx, *answered)).flatten().unwrap();
        }
    }
    while bus.sessions[&slot].is_replaying() {
        bus.with(slot, |session, cx| session.receive(cx, &[]));
    }
    heard(bus);
}
