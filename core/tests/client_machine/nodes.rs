//! Many nodes over one connection.

use crate::rig::*;

#[test]
fn an_added_node_registers_over_the_same_connection_and_sends_on_its_own_channel() {
    let mut rig = Rig::registered(settings());
    rig.machine.add_node("n2", r#" {"kind":"lamp"} "#).unwrap();
    let payload = format!(r#"{{"node_id":"n2","metadata":{{"kind":"lamp"}},"timestamp":{}.25}}"#, UNIX / SECOND);
    assert_eq!(rig.written(), [(6, 0, payload)]);
    assert_eq!(rig.machine.send_from("n2", b"early", rig.now), Err(ClientRefusal::NotConnected));
    reply(&mut rig, "n2", 8);
    assert_eq!(rig.events(), [register("n2", 8)]);
    assert_eq!((rig.machine.node_id().map(|id| &**id), rig.machine.channel_id(), rig.machine.stats().nodes), (Some("n1"), Some(7), 2));
    rig.machine.send(b"a", 8, rig.now).unwrap();
    rig.machine.send_from("n2", b"b", rig.now).unwrap();
    rig.machine.send(b"c", 0, rig.now).unwrap();
    rig.machine.send_from("n1", b"d", rig.now).unwrap();
    assert_eq!(rig.written(), [(8, "a"), (8, "b"), (7, "c"), (7, "d")].map(|(channel_id, text)| (3, channel_id, text.to_owned())));
    rig.receive(3, 8, "for n2");
    rig.receive(3, 7, "for n1");
    rig.receive(3, 9, "for nobody");
    assert_eq!(rig.events(), [data_for(Some("n2"), "for n2", 8), data("for n1", 7), data_for(None, "for nobody", 9)]);
    assert_eq!(rig.machine.send(b"x", 9, rig.now), Err(ClientRefusal::NoSuchChannel));
    assert_eq!(rig.machine.send_from("n3", b"x", rig.now), Err(ClientRefusal::NoSuchNode));
}

#[test]
fn data_is_for_the_only_node_on_whichever_channel_and_for_none_before_it_is_registered() {
    let mut rig = Rig::connected(settings());
    rig.receive(3, 7, "early");
    reply(&mut rig, "n1", 7);
    rig.receive(3, 7, "own");
    rig.receive(3, 0, "all");
    assert_eq!(rig.events(), [data_for(None, "early", 7), register("n1", 7), data("own", 7), data("all", 0)]);
}

#[test]
fn an_added_node_has_one_id_in_memory_until_it_is_removed_or_lost() {
    let mut rig = gateway(settings(), &["n2"]);
    let id = rig.machine.added_node("n2").unwrap();
    let is_it = |other: &Arc<str>| Arc::ptr_eq(&id, other);
    rig.receive(3, 8, "x");
    let told = rig.events();
    assert!(matches!(&told[..], [ClientEvent::Data { node_id: Some(told), .. }] if is_it(told)), "{told:?}");
    rig.close_and_wait();
    rig.machine.handle_connected(rig.now);
    assert_eq!(registers(&mut rig), ["n1"]);
    reply(&mut rig, "n1", 9);
    rig.events();
    assert_eq!(registers(&mut rig), ["n2"]);
    reply(&mut rig, "n2", 10);
    assert!(rig.events().iter().any(|event| matches!(event, ClientEvent::Register { node_id, .. } if is_it(node_id))));
    assert!(is_it(&rig.machine.added_node("n2").unwrap()));
    rig.receive(8, 10, &server_error("gone", 403));
    let told = rig.events();
    assert!(matches!(&told[..], [ClientEvent::NodeLost { node_id, .. }] if is_it(node_id)), "{told:?}");
    assert_eq!(rig.machine.added_node("n2"), None);
    rig.machine.add_node("n2", "[]").unwrap();
    assert!(!is_it(&rig.machine.added_node("n2").unwrap()));
    assert_eq!(rig.machine.added_node("n1"), None, "the first one was not added");
    assert_eq!(**rig.machine.first_node(), *"n1");
}

#[test]
fn a_client_with_one_node_may_name_it_and_no_other() {
    let mut rig = Rig::registered(settings());
    rig.machine.send_from("n1", b"a", rig.now).unwrap();
    rig.machine.heartbeat("n1", rig.now).unwrap();
    assert_eq!(rig.written().iter().map(|(kind, channel_id, _)| (*kind, *channel_id)).collect::<Vec<_>>(), [(3, 7), (1, 7)]);
    assert_eq!(rig.machine.send_from("n2", b"a", rig.now), Err(ClientRefusal::NoSuchNode));
    assert_eq!(rig.machine.remove_node("n1"), Err(ClientRefusal::FirstNode));
    assert_eq!(rig.machine.remove_node("n2"), Err(ClientRefusal::NoSuchNode));
    assert_eq!(rig.machine.add_node("n1", "[]"), Err(ClientRefusal::NodeExists));
    assert_eq!((rig.written(), rig.events()), (vec![], vec![]));
}

#[test]
fn nodes_that_are_added_before_the_connection_wait_for_the_first_reply() {
    let mut rig = Rig::new(settings());
    rig.machine.add_node("n3", "[]").unwrap();
    rig.machine.add_node("n2", "[]").unwrap();
    assert_eq!(rig.machine.add_node("n2", "[]"), Err(ClientRefusal::NodeExists));
    rig.machine.handle_connected(rig.now);
    assert_eq!(registers(&mut rig), ["n1"]);
    assert_eq!(registers(&mut rig), [""; 0]);
    reply(&mut rig, "n1", 7);
    assert_eq!(rig.events(), [ClientEvent::Connect, register("n1", 7)]);
    assert_eq!(registers(&mut rig), ["n2", "n3"]);
}

#[test]
fn all_nodes_return_with_the_next_connection_on_new_channels() {
    let mut rig = gateway(settings(), &["n2", "n3"]);
    assert_eq!(rig.close_and_wait(), [closed(CloseReason::PeerClosed)]);
    assert_eq!((rig.machine.send_from("n2", b"x", rig.now), rig.machine.stats().nodes), (Err(ClientRefusal::NotConnected), 0));
    rig.machine.handle_connected(rig.now);
    assert_eq!(registers(&mut rig), ["n1"]);
    reply(&mut rig, "n1", 9);
    assert_eq!(rig.events(), [ClientEvent::Connect, register("n1", 9)]);
    assert_eq!(registers(&mut rig), ["n2", "n3"]);
    assert_eq!(rig.machine.send(b"x", 8, rig.now), Err(ClientRefusal::NoSuchChannel), "the channel of the older connection");
    reply(&mut rig, "n2", 10);
    reply(&mut rig, "n3", 11);
    assert_eq!(rig.events(), [register("n2", 10), register("n3", 11)]);
    rig.machine.send_from("n2", b"x", rig.now).unwrap();
    assert_eq!(rig.written(), [(3, 10, "x".to_owned())]);
}

#[test]
fn after_the_agreement_the_others_register_in_v2() {
    let mut rig = Rig::new(modern());
    rig.machine.add_node("n2", "[]").unwrap();
    rig.machine.handle_connected(rig.now);
    assert_eq!(rig.written()[0].0, 6);
    rig.receive(6, 0, &agreement("n1", 7, 2));
    rig.events();
    rig.machine.fill_outbox(rig.now);
    let bytes = rig.machine.outbox().to_vec();
    let mut kinds = Vec::new();
    let mut rest = &bytes[..];
    while let Decoded::Frame { frame, len } = v2::decode(rest, MAX_BODY_LEN) {
        kinds.push(frame.frame_type.0);
        rest = &rest[len..];
    }
    assert_eq!((kinds, rest.is_empty()), (vec![FrameType::ACK.0, 6], true));
    rig.machine.handle_written(bytes.len(), rig.now);
    rig.machine.handle_bytes(&v2_frame(6, 0, agreement("n2", 8, 2).as_bytes()));
    assert_eq!(rig.events(), [register("n2", 8)]);
    rig.machine.send_from("n2", b"\xff", rig.now).unwrap();
    assert_eq!(rig.machine.outbox(), v2_frame(3, 8, b"\xff"));
}

#[test]
fn a_refusal_is_of_the_oldest_node_without_an_answer_and_of_it_alone() {
    let mut rig = Rig::registered(settings());
    for id in ["n2", "n3", "n4", "n5"] {
        rig.machine.add_node(id, "[]").unwrap();
    }
    assert_eq!(registers(&mut rig), ["n2", "n3", "n4", "n5"]);
    rig.receive(8, 0, &server_error("why", 403));
    reply(&mut rig, "n3", 8);
    rig.receive(8, 0, &server_error("why", 400));
    rig.receive(8, 0, &server_error("why", 401));
    assert_eq!(rig.events(), [lost("n2", 0, 403), register("n3", 8), lost("n4", 0, 400), lost("n5", 0, 401)]);
    assert_eq!((rig.machine.phase(), rig.machine.stats().nodes), (ClientPhase::Open, 2));
    rig.receive(8, 0, &server_error("why", 403));
    assert!(matches!(rig.events()[..], [ClientEvent::ServerError { code: 403, .. }]), "nobody had asked for anything");
    rig.machine.add_node("n2", "[]").unwrap();
    assert_eq!(registers(&mut rig), ["n2"], "it may be tried again");
    rig.close_and_wait();
    rig.machine.handle_connected(rig.now);
    registers(&mut rig);
    reply(&mut rig, "n1", 7);
    rig.events();
    assert_eq!(registers(&mut rig), ["n2", "n3"], "but not by itself");
}

#[test]
fn a_first_node_that_was_refused_before_there_were_others_is_asked_for_again() {
    let mut rig = Rig::connected(settings());
    rig.receive(8, 0, &server_error("why", 403));
    assert!(matches!(rig.events()[..], [ClientEvent::ServerError { code: 403, .. }]), "as ever, with one node");
    rig.machine.add_node("n2", "[]").unwrap();
    assert_eq!(registers(&mut rig), ["n1"]);
    rig.receive(8, 0, &server_error("why", 403));
    assert_eq!(rig.events(), [lost("n1", 0, 403)]);
    assert_eq!(registers(&mut rig), ["n2"]);
    reply(&mut rig, "n2", 8);
    assert_eq!(rig.events(), [register("n2", 8)]);
    assert_eq!((rig.machine.node_id().is_none(), rig.machine.send(b"x", 0, rig.now)), (true, Err(ClientRefusal::NotConnected)));
    // While the answer is on its way, nothing is asked twice.
    let mut rig = Rig::connected(settings());
    rig.machine.add_node("n2", "[]").unwrap();
    assert_eq!(registers(&mut rig), [""; 0]);
    reply(&mut rig, "n1", 7);
    assert_eq!(rig.events(), [register("n1", 7)]);
    assert_eq!(registers(&mut rig), ["n2"]);
}

#[test]
fn a_node_that_is_taken_away_is_told_and_the_others_stay() {
    for code in [403, 408, 409] {
        let mut rig = gateway(settings(), &["n2", "n3"]);
        rig.receive(8, 8, &server_error("why", code));
        assert_eq!(rig.events(), [lost("n2", 8, code)]);
        assert_eq!((rig.machine.phase(), rig.machine.stats().nodes), (ClientPhase::Open, 2));
        assert_eq!(rig.machine.send_from("n2", b"x", rig.now), Err(ClientRefusal::NoSuchNode));
        rig.machine.send_from("n3", b"x", rig.now).unwrap();
        rig.receive(8, 8, &server_error("why", code));
        assert_eq!(rig.events(), [], "nobody has that channel");
        // The first one: with channel 0 nobody is meant now. It returns later, unless it was replaced.
        rig.receive(8, 7, &server_error("why", code));
        assert_eq!(rig.events(), [lost("n1", 7, code)]);
        assert_eq!(rig.machine.send(b"x", 0, rig.now), Err(ClientRefusal::NotConnected));
        rig.close_and_wait();
        rig.machine.handle_connected(rig.now);
        assert_eq!(registers(&mut rig), [if code == 409 { "n3" } else { "n1" }]);
    }
}

#[test]
fn a_first_node_that_was_lost_may_be_added_again() {
    for code in [403, 409] {
        let mut rig = gateway(settings(), &["n2"]);
        rig.receive(8, 7, &server_error("why", code));
        rig.events();
        rig.machine.add_node("n1", "[1]").unwrap();
        let (_, _, payload) = rig.written().remove(0);
        assert!(payload.starts_with(r#"{"node_id":"n1","metadata":[1],"#), "{payload}");
        reply(&mut rig, "n1", 9);
        assert_eq!(rig.events(), [register("n1", 9)]);
        rig.machine.send(b"x", 0, rig.now).unwrap();
        assert_eq!(rig.written(), [(3, 9, "x".to_owned())]);
        assert_eq!((rig.machine.channel_id(), rig.machine.remove_node("n1")), (Some(9), Err(ClientRefusal::FirstNode)));
    }
}

#[test]
fn a_client_whose_last_registered_node_is_replaced_returns_for_those_that_were_not() {
    let mut rig = Rig::registered(settings());
    rig.machine.add_node("n2", "[]").unwrap();
    registers(&mut rig);
    rig.receive(8, 0, &server_error("why", 409));
    let events = rig.events();
    assert!(matches!(&events[..], [first, ClientEvent::ServerError { code: 409, .. }] if *first == lost("n1", 7, 409)), "{events:?}");
    assert_eq!(rig.machine.phase(), ClientPhase::HangUp);
    rig.close_and_wait();
    rig.machine.handle_connected(rig.now);
    assert_eq!(registers(&mut rig), ["n2"]);
    reply(&mut rig, "n2", 8);
    assert_eq!(rig.events(), [ClientEvent::Connect, register("n2", 8)]);
    rig.receive(8, 0, &server_error("why", 409));
    assert!(matches!(&rig.events()[..], [first, ClientEvent::ServerError { .. }] if *first == lost("n2", 8, 409)));
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(rig.events(), [closed_saying(CloseReason::Replaced, "why"), ClientEvent::Finished]);
    assert_eq!(rig.machine.add_node("n3", "[]"), Err(ClientRefusal::NotConnected));
}

#[test]
fn a_client_that_lost_every_node_does_not_come_back() {
    let mut rig = gateway(settings(), &["n2"]);
    rig.receive(8, 7, &server_error("why", 409));
    rig.machine.remove_node("n2").unwrap();
    rig.events();
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(rig.events(), [closed(CloseReason::PeerClosed), ClientEvent::Finished]);
}

#[test]
fn a_removed_node_signs_off_and_stays_away() {
    let mut rig = gateway(settings(), &["n2", "n3"]);
    rig.machine.remove_node("n2").unwrap();
    assert_eq!(rig.written(), [(7, 8, String::new())]);
    assert_eq!(rig.machine.remove_node("n2"), Err(ClientRefusal::NoSuchNode));
    assert_eq!((rig.machine.stats().nodes, rig.machine.remove_node("n1")), (2, Err(ClientRefusal::FirstNode)));
    rig.close_and_wait();
    rig.machine.remove_node("n3").unwrap();
    rig.machine.handle_connected(rig.now);
    registers(&mut rig);
    reply(&mut rig, "n1", 7);
    assert_eq!(registers(&mut rig), [""; 0]);
}

#[test]
fn a_node_that_is_removed_before_its_answer_signs_off_when_that_comes() {
    let mut rig = Rig::registered(settings());
    for id in ["n2", "n3", "n4"] {
        rig.machine.add_node(id, "[]").unwrap();
    }
    rig.written();
    for id in ["n2", "n3", "n4"] {
        rig.machine.remove_node(id).unwrap();
    }
    rig.machine.add_node("n4", r#"{"again":1}"#).unwrap();
    assert_eq!(registers(&mut rig), ["n4"]);
    rig.machine.add_node("n5", "[]").unwrap();
    rig.machine.remove_node("n5").unwrap();
    assert_eq!(rig.written(), [], "it had not been asked for");
    reply(&mut rig, "n2", 8);
    rig.receive(8, 0, &server_error("why", 403));
    reply(&mut rig, "n4", 9);
    assert_eq!(rig.events(), [], "n2 came and goes, n3 was refused, n4 will be answered once more");
    assert_eq!(rig.written(), [(7, 8, String::new())]);
    reply(&mut rig, "n4", 9);
    assert_eq!(rig.events(), [register("n4", 9)]);
}

#[test]
fn a_client_has_no_more_nodes_than_it_may() {
    let mut rig = Rig::registered(ClientConfig { max_nodes: 2, ..settings() });
    rig.machine.add_node("n2", "[]").unwrap();
    assert_eq!(rig.machine.add_node("n3", "[]"), Err(ClientRefusal::TooManyNodes));
    assert_eq!(rig.machine.add_node("n2", "[]"), Err(ClientRefusal::NodeExists));
    rig.machine.remove_node("n2").unwrap();
    rig.machine.add_node("n3", "[]").unwrap();
    rig.machine.disconnect(rig.now);
    assert_eq!(rig.machine.add_node("n4", "[]"), Err(ClientRefusal::NotConnected));
    assert_eq!(rig.written().pop(), Some((7, 0, String::new())), "one goodbye for all");
}

#[test]
fn ten_thousand_nodes_register_a_few_at_a_time() {
    let mut rig = Rig::registered(ClientConfig { outbox_bytes: 100_000, ..settings() });
    let metadata = format!("[\"{}\"]", "x".repeat(1000));
    for n in 2..=10_000 {
        rig.machine.add_node(&format!("d{n}"), &metadata).unwrap();
    }
    let (mut unanswered, mut answered) = (VecDeque::new(), 0);
    while answered < 9_999 {
        rig.machine.fill_outbox(rig.now);
        assert!(rig.machine.outbox().len() < 60_000, "half the outbox is for data");
        unanswered.extend(registers(&mut rig));
        assert!(unanswered.len() <= 256, "{}", unanswered.len());
        let id = unanswered.pop_front().expect("it goes on");
        answered += 1;
        reply(&mut rig, &id, 7 + answered);
        assert_eq!(rig.events(), [register(&id, 7 + answered)]);
    }
    assert_eq!((rig.machine.stats().nodes, registers(&mut rig).len()), (10_000, 0));
}

#[test]
fn registers_that_the_servers_rate_limit_skipped_are_sent_again() {
    let mut rig = Rig::registered(settings());
    for id in ["n2", "n3", "n4", "n5"] {
        rig.machine.add_node(id, "[]").unwrap();
    }
    registers(&mut rig);
    rig.receive(8, 0, &server_error("Rate limit exceeded", 429));
    reply(&mut rig, "n3", 8);
    let events = rig.events();
    assert!(matches!(&events[..], [ClientEvent::ServerError { code: 429, .. }, second] if *second == register("n3", 8)), "{events:?}");
    rig.machine.add_node("n6", "[]").unwrap();
    assert_eq!(registers(&mut rig), [""; 0], "not at once");
    rig.pass_to_deadline();
    assert_eq!(registers(&mut rig), ["n2", "n6", "n4", "n5"]);
    // This answer was only late, and to the older one.
    reply(&mut rig, "n4", 9);
    assert_eq!(rig.events(), [register("n4", 9)]);
    assert_eq!(registers(&mut rig), ["n2", "n6"], "the server answers in order, so these were skipped");
    rig.receive(8, 0, &server_error("Rate limit exceeded", 429));
    reply(&mut rig, "n5", 10);
    rig.events();
    assert_eq!(registers(&mut rig), [""; 0]);
    rig.pass_to_deadline();
    assert_eq!(registers(&mut rig), ["n2", "n6"]);
    assert_eq!(rig.machine.deadline(), Some(SECOND + INTERVAL), "nothing more to be tried again");
}

#[test]
fn a_rate_limit_that_is_met_without_registering_delays_nothing() {
    let mut rig = gateway(settings(), &["n2"]);
    rig.receive(8, 0, &server_error("Rate limit exceeded", 429));
    assert!(matches!(rig.events()[..], [ClientEvent::ServerError { .. }]));
    rig.machine.add_node("n3", "[]").unwrap();
    assert_eq!(registers(&mut rig), ["n3"]);
}

#[test]
fn heartbeats_are_for_all_nodes_or_for_the_first_alone() {
    let beats = |rig: &mut Rig| {
        rig.pass_to_deadline();
        let written = rig.written();
        rig.receive(2, 0, "");
        rig.events();
        written.into_iter().map(|(kind, channel_id, _)| (kind, channel_id)).collect::<Vec<_>>()
    };
    let mut rig = gateway(settings(), &["n2"]);
    assert_eq!(beats(&mut rig), [(1, 0)]);
    let mut rig = gateway(ClientConfig { heartbeat_all: false, ..settings() }, &["n2"]);
    assert_eq!(beats(&mut rig), [(1, 7)]);
    rig.machine.heartbeat("n2", rig.now).unwrap();
    let (kind, channel_id, payload) = rig.written().remove(0);
    assert_eq!((kind, channel_id), (1, 8));
    assert!(payload.starts_with(r#"{"timestamp":"#), "{payload}");
    assert_eq!(rig.machine.heartbeat("n3", rig.now), Err(ClientRefusal::NoSuchNode));
    // Channel 0 would keep the others alive.
    rig.receive(8, 7, &server_error("why", 403));
    assert_eq!(rig.events(), [lost("n1", 7, 403)]);
    assert_eq!(beats(&mut rig), [(4, 0)]);
}
