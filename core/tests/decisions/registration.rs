//! Who may register.

use super::bus::*;
use super::rig::*;
use heartbus_core::event::{CloseReason, Decision, EventMask};
use heartbus_core::hub::memory::Part;
use heartbus_core::hub::wheel::TICK;
use heartbus_core::hub::{Next, Refusal, Session};
use heartbus_core::settings::{RateLimit, RateLimitBy};
use heartbus_core::wire::Framing;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const NOT_AUTHENTICATED: &str = r#"{"message":"Not authenticated","code":401}"#;

#[test]
fn a_node_is_there_once_the_host_has_agreed_and_not_before() {
    let mut bus = asking();
    let slot = bus.open();
    assert_eq!(bus.send(slot, 6, 0, r#"{"node_id":"n","metadata":{"token":"x"}}"#), []);
    let asked = question(&bus);
    assert_eq!(who(&asked), ("n", r#"{"token":"x"}"#));
    assert_eq!((asked.connection_id, asked.peer), (1, ([127, 0, 0, 1], 1).into()));
    assert!(bus.online().is_empty() && bus.hub.memory().of(Part::Input) > 0);
    let answers = decide(&mut bus, &asked, Decision::Allow);
    assert_eq!((answers.len(), answers[0].0), (1, 6));
    assert!(bus.online().contains("n") && is_clean(&bus));
    let counters = &bus.thread.counters;
    assert_eq!((counters.registers.get(), counters.decisions.get(), counters.nodes_registered.get()), (1, 1, 1));
    assert_eq!(bus.thread.wheel.len(), 1, "the node's timer, and no other");
}

#[test]
fn a_refusal_is_told_with_401_and_ends_a_connection_that_has_no_node() {
    let mut bus = asking();
    let slot = bus.open();
    bus.register(slot, "n");
    let asked = question(&bus);
    assert_eq!(decide(&mut bus, &asked, Decision::Refuse), [(8, 0, NOT_AUTHENTICATED.to_owned())]);
    assert!(!bus.sessions.contains_key(&slot) && bus.online().is_empty() && is_clean(&bus));
    let counters = &bus.thread.counters;
    assert_eq!((counters.decisions_refused.get(), counters.registers_refused.get(), counters.decisions_timed_out.get()), (1, 1, 0));
    assert!(bus.thread.wheel.is_empty());
}

#[test]
fn a_refusal_leaves_the_other_nodes_of_the_connection_alone() {
    let mut bus = asking();
    let slot = bus.open();
    bus.register(slot, "a");
    let asked = question(&bus);
    decide(&mut bus, &asked, Decision::Allow);
    bus.register(slot, "b");
    let asked = question(&bus);
    assert_eq!(decide(&mut bus, &asked, Decision::Refuse), [(8, 0, NOT_AUTHENTICATED.to_owned())]);
    assert_eq!(bus.online().into_iter().collect::<Vec<_>>(), ["a"]);
    assert_eq!(bus.send(slot, 1, 0, "{}")[0].0, 2, "it goes on");
}

#[test]
fn what_is_not_decided_in_time_is_refused_and_an_answer_behind_that_is_ignored_and_counted() {
    let mut bus = asking();
    let slot = bus.open();
    bus.register(slot, "n");
    let asked = question(&bus);
    let begun = bus.now;
    while bus.now < begun + DECISION_TIMEOUT {
        assert_eq!(bus.tick_and_listen(), [], "at {}", bus.now - begun);
    }
    assert_eq!(bus.tick_and_listen(), [(8, 0, r#"{"message":"Not authenticated in time","code":401}"#.to_owned())]);
    assert!(!bus.sessions.contains_key(&slot) && is_clean(&bus));
    assert_eq!(bus.thread.counters.decisions_timed_out.get(), 1);
    assert_eq!(bus.thread.counters.decisions_refused.get(), 0);
    assert_eq!(bus.hub.decide(asked.number, Decision::Allow), Err(Refusal::NoSuchQuestion));
    assert_eq!(bus.follow_decisions(), []);
    assert!(bus.online().is_empty() && bus.hub.decisions().ignored() == 1);
}

#[test]
fn an_answer_that_is_on_its_way_when_the_time_is_up_counts() {
    let mut bus = asking();
    let slot = bus.open();
    bus.register(slot, "n");
    let asked = question(&bus);
    bus.hub.decide(asked.number, Decision::Allow).unwrap();
    // Its thread was too busy to look.
    bus.now += DECISION_TIMEOUT + 10 * TICK;
    let posted = std::mem::take(&mut *bus.drained.0.lock().unwrap());
    assert_eq!(bus.tick_and_listen(), []);
    *bus.drained.0.lock().unwrap() = posted;
    assert_eq!(bus.follow_decisions()[0].0, 6);
    assert!(bus.online().contains("n") && is_clean(&bus));
    assert_eq!(bus.hub.decide(asked.number, Decision::Refuse), Err(Refusal::NoSuchQuestion), "twice");
}

#[test]
fn an_answer_after_the_connection_is_gone_does_nothing() {
    let mut bus = asking();
    let slot = bus.open();
    bus.register(slot, "n");
    let asked = question(&bus);
    bus.hub.decide(asked.number, Decision::Allow).unwrap();
    let posted = std::mem::take(&mut *bus.drained.0.lock().unwrap());
    bus.close(slot, CloseReason::PeerClosed);
    assert!(is_clean(&bus) && bus.thread.wheel.is_empty());
    *bus.drained.0.lock().unwrap() = posted;
    assert_eq!(bus.follow_decisions(), []);
    assert!(bus.online().is_empty());

    let slot = bus.open();
    bus.register(slot, "n");
    let asked = question(&bus);
    bus.close(slot, CloseReason::PeerClosed);
    assert_eq!(bus.hub.decide(asked.number, Decision::Allow), Err(Refusal::NoSuchQuestion), "nobody waits for it");
    assert!(is_clean(&bus) && bus.thread.wheel.is_empty());
}

#[test]
fn an_online_id_is_taken_over_only_after_the_host_has_agreed() {
    let mut bus = asking();
    let (owner, stranger) = (bus.open(), bus.open());
    bus.register(owner, "n");
    let asked = question(&bus);
    decide(&mut bus, &asked, Decision::Allow);
    let channel = bus.channel("n");

    bus.register(stranger, "n");
    let asked = question(&bus);
    assert_eq!(bus.send(owner, 1, 0, "{}")[0].0, 2, "the node that is there goes on while the host thinks");
    decide(&mut bus, &asked, Decision::Refuse);
    assert!(!bus.sessions.contains_key(&stranger), "and stays where the stranger is refused");
    assert_eq!((bus.channel("n"), bus.thread.counters.nodes_replaced.get()), (channel, 0));

    let moved = bus.open();
    bus.register(moved, "n");
    let asked = question(&bus);
    assert_eq!(decide(&mut bus, &asked, Decision::Allow)[0].0, 6);
    assert_ne!(bus.channel("n"), channel);
    assert_eq!(bus.thread.counters.nodes_replaced.get(), 1);
    assert_eq!(bus.host.events.lock().unwrap()["n"], ["register", "replaced", "register"]);
}

#[test]
fn frames_behind_a_question_keep_their_order() {
    let mut bus = asking();
    bus.host.room.set(AtomicBool::new(true)).unwrap();
    let slot = bus.open();
    let pipelined = [register_frame("a"), frame(3, 0, "first"), frame(4, 0, ""), register_frame("b"), frame(3, 0, "second")].concat();
    let (consumed, next, answers) = feed(&mut bus, slot, &pipelined);
    assert_eq!((consumed, next, answers.len()), (pipelined.len(), Next::Continue, 0));
    assert_eq!(bus.thread.counters.messages_in.get(), 1, "the others had no turn yet");
    let asked = question(&bus);
    let answers = decide(&mut bus, &asked, Decision::Allow);
    assert_eq!(answers.iter().map(|answer| answer.0).collect::<Vec<_>>(), [6, 5], "up to the next question");
    let asked = question(&bus);
    assert_eq!(who(&asked).0, "b");
    assert_eq!(*bus.host.data.lock().unwrap(), [b"first"]);
    assert_eq!(feed(&mut bus, slot, &frame(3, 0, "third")).2, []);
    let answers = decide(&mut bus, &asked, Decision::Refuse);
    assert_eq!(answers.iter().map(|answer| answer.0).collect::<Vec<_>>(), [8]);
    assert_eq!(*bus.host.data.lock().unwrap(), [&b"first"[..], b"second", b"third"]);
    assert!(is_clean(&bus) && bus.thread.counters.messages_in.get() == 6);
}

#[test]
fn frames_behind_a_refusal_that_ends_the_connection_are_forgotten() {
    let mut bus = asking();
    let slot = bus.open();
    feed(&mut bus, slot, &[register_frame("a"), register_frame("b")].concat());
    let asked = question(&bus);
    assert_eq!(decide(&mut bus, &asked, Decision::Refuse).len(), 1);
    assert!(questions(&bus).is_empty() && is_clean(&bus) && bus.sessions.is_empty());
}

#[test]
fn heartbeats_of_nodes_that_are_there_are_answered_meanwhile_and_once() {
    let mut bus = asking_with(|limits| limits.decision_timeout = Duration::from_secs(3600));
    let slot = bus.open();
    bus.register(slot, "a");
    let asked = question(&bus);
    decide(&mut bus, &asked, Decision::Allow);
    let channel = bus.channel("a");
    let beats = [frame(1, 0, "{}"), frame(4, 0, ""), frame(1, channel, "{}"), frame(1, 77, "{}")].concat();
    let (_, next, answers) = feed(&mut bus, slot, &[register_frame("b"), beats].concat());
    assert_eq!(next, Next::Continue);
    assert_eq!(answers.iter().map(|answer| (answer.0, answer.1)).collect::<Vec<_>>(), [(2, 0), (2, channel)]);
    let asked = question(&bus);
    // Much longer than a node may be silent.
    for _ in 0..3 * TIMEOUT / TICK {
        assert_eq!(feed(&mut bus, slot, &frame(1, 0, "{}")).2.len(), 1);
        bus.tick();
    }
    assert!(bus.online().contains("a"));
    let beaten = bus.thread.counters.heartbeats.get();
    let answers = decide(&mut bus, &asked, Decision::Allow);
    assert_eq!(answers.iter().map(|answer| answer.0).collect::<Vec<_>>(), [6, 5], "the PING had its turn, the heartbeats theirs before");
    assert_eq!(bus.thread.counters.heartbeats.get(), beaten);
    assert_eq!(bus.thread.counters.heartbeats_ignored.get(), 1, "that of nobody's channel");
}

#[test]
fn a_heartbeat_behind_the_first_registration_waits_for_it() {
    let mut bus = asking();
    let slot = bus.open();
    assert_eq!(feed(&mut bus, slot, &[register_frame("a"), frame(1, 0, "{}")].concat()).2, []);
    let asked = question(&bus);
    let answers = decide(&mut bus, &asked, Decision::Allow);
    assert_eq!(answers.iter().map(|answer| answer.0).collect::<Vec<_>>(), [6, 2]);
}

#[test]
fn what_does_not_fit_behind_a_question_is_not_read_until_it_is_answered() {
    let mut bus = asking();
    bus.host.room.set(AtomicBool::new(true)).unwrap();
    let slot = bus.open();
    let (long, short) = ("x".repeat(40_000), "y".repeat(10_000));
    let first = [register_frame("a"), frame(3, 0, &long)].concat();
    assert_eq!(feed(&mut bus, slot, &first), (first.len(), Next::Continue, vec![]));
    let rest = [frame(3, 0, &short), frame(3, 0, &long), frame(3, 0, "z")].concat();
    let (taken, next, _) = feed(&mut bus, slot, &rest);
    assert_eq!((taken, next), (frame(3, 0, &short).len(), Next::Wait));
    assert!(bus.hub.memory().of(Part::Input) < 200_000);
    let before = bus.hub.memory().of(Part::Input);
    assert_eq!(feed(&mut bus, slot, &rest[taken..]).0, 0, "another look changes nothing");
    assert_eq!(bus.hub.memory().of(Part::Input), before);
    let asked = question(&bus);
    decide(&mut bus, &asked, Decision::Allow);
    assert_eq!(feed(&mut bus, slot, &rest[taken..]), (rest.len() - taken, Next::Continue, vec![]));
    let lens: Vec<usize> = bus.host.data.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!((lens, is_clean(&bus)), (vec![40_000, 10_000, 40_000, 1], true));
}

#[test]
fn a_broken_stream_behind_a_question_is_lost_in_its_turn() {
    let mut bus = asking();
    let slot = bus.open();
    let (taken, next, answers) = feed(&mut bus, slot, &[&register_frame("a")[..], b"GET / HTTP/1.1"].concat());
    assert_eq!((taken, next, answers.len()), (register_frame("a").len(), Next::Wait, 0));
    let asked = question(&bus);
    assert_eq!(decide(&mut bus, &asked, Decision::Allow)[0].0, 6);
    let (_, next, answers) = feed(&mut bus, slot, b"GET / HTTP/1.1");
    assert_eq!((next, answers[0].0), (Next::Close(CloseReason::BrokenStream), 8));
}

#[test]
fn one_question_more_than_may_be_open_is_refused_and_counted_and_the_host_not_asked() {
    let mut bus = asking_with(|limits| limits.max_decisions = 2);
    let slots = [bus.open(), bus.open(), bus.open()];
    for slot in &slots[..2] {
        bus.register(*slot, &format!("n{slot}"));
    }
    let refused = (8, 0, r#"{"message":"Too many decisions are open on this server","code":403}"#.to_owned());
    assert_eq!(bus.register(slots[2], "n2"), [refused]);
    assert!(bus.sessions.contains_key(&slots[2]), "it may try again");
    assert_eq!((bus.thread.counters.decisions_unasked.get(), bus.thread.counters.registers_refused.get()), (1, 1));
    let asked = questions(&bus);
    assert_eq!(asked.len(), 2);
    decide(&mut bus, &asked[0], Decision::Allow);
    bus.register(slots[2], "n2");
    assert_eq!(who(&question(&bus)).0, "n2");
}

#[test]
fn a_host_without_room_is_asked_once_it_has() {
    let mut bus = asking();
    bus.host.room.set(AtomicBool::new(false)).unwrap();
    let slot = bus.open();
    assert_eq!(feed(&mut bus, slot, &register_frame("a")), (0, Next::Wait, vec![]));
    assert!(is_clean(&bus) && questions(&bus).is_empty());
    assert_eq!((bus.host.paused.lock().unwrap().len(), bus.thread.counters.reads_paused_by_host.get()), (1, 1));
    bus.host.room.get().unwrap().store(true, Ordering::Relaxed);
    assert_eq!(feed(&mut bus, slot, &register_frame("a")).1, Next::Continue);
    let asked = question(&bus);
    decide(&mut bus, &asked, Decision::Allow);
    assert!(bus.online().contains("a") && bus.thread.counters.registers.get() == 1);
}

#[test]
fn metadata_of_the_hosts_is_the_nodes_from_the_first_moment_on_and_wins() {
    let mut bus = asking();
    let slot = bus.open();
    let ask = |bus: &mut Bus, metadata: &str| {
        bus.send(slot, 6, 0, &format!(r#"{{"node_id":"n","metadata":{metadata}}}"#));
        question(bus)
    };
    let asked = ask(&mut bus, r#"{"room":1,"user":"mallory"}"#);
    let wrong = [("[]", Refusal::NotMetadata), ("{}", Refusal::NotMetadata), ("1", Refusal::NotMetadata), ("", Refusal::NotMetadata)];
    for (members, refusal) in wrong {
        let decision = Decision::AllowWithMetadata(members.to_owned());
        assert_eq!(bus.hub.decide(asked.number, decision), Err(refusal), "{members}");
    }
    let too_long = format!(r#"{{"a":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(bus.hub.decide(asked.number, Decision::AllowWithMetadata(too_long)), Err(Refusal::MetadataTooLong));
    assert_eq!((bus.hub.decisions().count(), bus.hub.decisions().ignored()), (1, 0), "it is still open");
    decide(&mut bus, &asked, Decision::AllowWithMetadata(r#"{"user":"alice"}"#.into()));
    let node = bus.hub.node("n").unwrap();
    assert_eq!(&*node.metadata(), r#"{"room":1,"user":"alice"}"#);
    assert_eq!(bus.hub.memory().of(Part::Nodes), node.bytes());

    // Again on the same connection: the host is asked again.
    let asked = ask(&mut bus, r#"{"user":"mallory"}"#);
    assert_eq!(&*node.metadata(), r#"{"room":1,"user":"alice"}"#, "and nothing changes before it has agreed");
    decide(&mut bus, &asked, Decision::AllowWithMetadata(r#"{"user":"alice"}"#.into()));
    assert_eq!(&*node.metadata(), r#"{"user":"alice"}"#);
    let asked = ask(&mut bus, r#"{"user":"mallory"}"#);
    decide(&mut bus, &asked, Decision::Refuse);
    assert_eq!(&*node.metadata(), r#"{"user":"alice"}"#, "nor where it has refused");
    assert!(node.is_online() && bus.hub.memory().of(Part::Nodes) == node.bytes());

    let sent = format!(r#"{{"a":"{}"}}"#, "x".repeat(65_000));
    let asked = ask(&mut bus, &sent);
    let members = format!(r#"{{"b":"{}"}}"#, "x".repeat(1_000));
    let answers = decide(&mut bus, &asked, Decision::AllowWithMetadata(members.clone()));
    assert_eq!(answers, [(8, 0, r#"{"message":"Metadata too long","code":400}"#.to_owned())], "together they are too long");
    assert_eq!((&*node.metadata(), bus.hub.memory().of(Part::Nodes)), (r#"{"user":"alice"}"#, node.bytes()));
    let other = bus.open();
    bus.send(other, 6, 0, &format!(r#"{{"node_id":"m","metadata":{sent}}}"#));
    let asked = question(&bus);
    assert_eq!(decide(&mut bus, &asked, Decision::AllowWithMetadata(members))[0].0, 8);
    assert_eq!((bus.hub.node_count(), bus.hub.channel_count(), bus.hub.memory().of(Part::Nodes)), (1, 1, node.bytes()));
}

#[test]
fn whoever_waits_for_the_host_is_not_closed_for_having_no_node() {
    let mut bus = asking_with(|limits| limits.decision_timeout = Duration::from_micros(3 * REGISTER_TIMEOUT));
    let slot = bus.open();
    bus.register(slot, "n");
    let asked = question(&bus);
    for _ in 0..2 * REGISTER_TIMEOUT / TICK {
        bus.tick();
    }
    assert_eq!(bus.thread.counters.register_timeouts.get(), 0);
    assert_eq!(decide(&mut bus, &asked, Decision::Allow)[0].0, 6);
    assert_eq!(bus.thread.wheel.len(), 1);
}

#[test]
fn heartbeats_behind_a_question_are_counted_against_the_rate_limit_once() {
    let own = RateLimit { capacity: 4, refill_per_second: 0.0, by: RateLimitBy::Connection };
    let mut bus = asking_with(|limits| limits.rate_limit = Some(own));
    let slot = bus.open();
    bus.register(slot, "a");
    let asked = question(&bus);
    decide(&mut bus, &asked, Decision::Allow);
    let (_, _, answers) = feed(&mut bus, slot, &[register_frame("b"), frame(1, 0, "{}"), frame(1, 0, "{}"), frame(1, 0, "{}")].concat());
    assert_eq!(answers.iter().map(|answer| answer.0).collect::<Vec<_>>(), [2, 2, 8]);
    assert_eq!(bus.thread.counters.rate_limited.get(), 1);
    let asked = question(&bus);
    assert_eq!(decide(&mut bus, &asked, Decision::Allow)[0].0, 6, "what is decided was paid for when it was read");
}

#[test]
fn who_asks_for_no_decisions_is_asked_for_none() {
    let mut bus = Bus::new(false);
    let slot = bus.open();
    assert_eq!(bus.register(slot, "n")[0].0, 6);
    assert!(questions(&bus).is_empty() && bus.thread.counters.decisions.get() == 0);
    assert!(!EventMask::ALL.contains(EventMask::AUTHENTICATE), "who wants to hear everything decides nothing by that");
}

#[test]
fn messages_of_a_websocket_behind_a_question_keep_their_order_and_heartbeats_are_answered() {
    let mut bus = asking();
    bus.host.room.set(AtomicBool::new(true)).unwrap();
    let slot = bus.open_as(Session::open_websocket);
    let say = |bus: &mut Bus, texts: &[&str]| {
        let bytes: Vec<u8> = texts.iter().flat_map(|text| message(1, text.as_bytes())).collect();
        let (consumed, next) = bus.with(slot, |session, cx| session.receive(cx, &bytes)).unwrap();
        assert_eq!((consumed, next), (bytes.len(), Next::Continue));
        heard(bus)
    };
    bus.with(slot, |session, cx| session.receive(cx, HANDSHAKE.as_bytes()));
    assert!(heard(&mut bus).contains(" 101 "));
    assert_eq!(bus.sessions[&slot].link().framing(), Framing::Json);
    assert_eq!(
        say(&mut bus, &[r#"{"type":"register","node_id":"a"}"#, r#"{"type":"data","data":"early"}"#, r#"{"type":"data","base64":"/w=="}"#]),
        ""
    );
    let asked = question(&bus);
    bus.hub.decide(asked.number, Decision::Allow).unwrap();
    let go_on = |bus: &mut Bus| {
        let posted = std::mem::take(&mut *bus.drained.0.lock().unwrap());
        for command in posted {
            let heartbus_core::hub::link::CommandKind::Decide(answered) = command.kind else { continue };
            let next = bus.with(slot, |session, cx| session.decide(cx, *answered)).flatten().unwrap();
            bus.follow(slot, next);
        }
        bus.with(slot, |session, cx| session.receive(cx, &[]));
        heard(bus)
    };
    assert!(go_on(&mut bus).contains("register"));
    assert_eq!(*bus.host.data.lock().unwrap(), [&b"early"[..], b"\xff"]);
    assert_eq!(say(&mut bus, &[r#"{"type":"register","node_id":"b"}"#]), "");
    let asked = question(&bus);
    let answer = say(&mut bus, &[r#"{"type":"ping"}"#, r#"{"type":"heartbeat"}"#]);
    assert!(answer.contains("heartbeat") && !answer.contains("pong"), "{answer}");
    bus.hub.decide(asked.number, Decision::Refuse).unwrap();
    let answer = go_on(&mut bus);
    assert!(answer.find("401").unwrap() < answer.find("pong").unwrap(), "{answer}");
    assert!(is_clean(&bus));
}
