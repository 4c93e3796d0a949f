//! What is sent and received, for hosts and from servers that are slow or mean harm.

use crate::rig::*;

// ---- sending ----

#[test]
fn data_goes_to_the_own_channel_unless_another_is_named() {
    let mut rig = Rig::registered(settings());
    for channel_id in [0, -1, i64::MIN, 9, 70_000] {
        rig.machine.send("é".as_bytes(), channel_id, rig.now).unwrap();
    }
    rig.machine.ping(rig.now).unwrap();
    let written = rig.written();
    let expected = [7, 7, 7, 9, 70_000].map(|channel| (3, channel, "é".to_owned()));
    assert_eq!(written[..5], expected);
    assert_eq!(written[5], (4, 0, String::new()));
    assert_eq!(rig.machine.stats().messages_sent, 6, "REGISTER is not counted");
}

#[test]
fn nothing_is_sent_before_the_register_reply_or_without_a_connection() {
    let mut rig = Rig::new(settings());
    assert_eq!(
        (rig.machine.send(b"x", 1, rig.now), rig.machine.ping(rig.now)),
        (Err(ClientRefusal::NotConnected), Err(ClientRefusal::NotConnected))
    );
    rig.machine.handle_connected(rig.now);
    assert_eq!(rig.events(), [ClientEvent::Connect]);
    assert_eq!(
        (rig.machine.send(b"x", 0, rig.now), rig.machine.send(b"x", 5, rig.now)),
        (Err(ClientRefusal::NotConnected), Err(ClientRefusal::NotConnected))
    );
    assert_eq!(rig.machine.ping(rig.now), Ok(()), "a PING needs no channel");
    rig.receive(6, 0, &register_reply("n1", 7));
    rig.events();
    assert_eq!(rig.machine.send(b"x", 0, rig.now), Ok(()));
    rig.close_and_wait();
    assert_eq!(rig.machine.send(b"x", 0, rig.now), Err(ClientRefusal::NotConnected));
    rig.machine.handle_connected(rig.now);
    assert_eq!(
        rig.machine.send(b"x", 0, rig.now),
        Err(ClientRefusal::NotConnected),
        "the channel of the last connection is not this one's"
    );
    assert_eq!(rig.machine.stats().messages_sent, 2);
}

#[test]
fn what_v1_cannot_carry_is_refused_and_leaves_no_trace() {
    let mut rig = Rig::registered(settings());
    assert_eq!(rig.machine.send(b"\xff", 0, rig.now), Err(ClientRefusal::NotUtf8));
    assert_eq!(rig.machine.send(&vec![b'x'; 10_485_761], 0, rig.now), Err(ClientRefusal::TooLong));
    // Shorter than the cap, but not when it is escaped.
    assert_eq!(rig.machine.send(&vec![b'"'; 6_000_000], 0, rig.now), Err(ClientRefusal::TooLong));
    assert_eq!((rig.machine.outbox().len(), rig.events(), rig.machine.stats().messages_sent), (0, vec![], 0));
    let largest = 10_485_760 - br#"{"channel_id":7,"payload":""}"#.len();
    assert_eq!(rig.machine.send(&vec![b'x'; largest + 1], 0, rig.now), Err(ClientRefusal::TooLong));
    assert_eq!(rig.machine.send(&vec![b'x'; largest], 0, rig.now), Ok(()), "an empty outbox takes any frame");
}

#[test]
fn a_full_outbox_refuses_and_nothing_else_happens() {
    let mut rig = Rig::registered(ClientConfig { outbox_bytes: 1000, ..settings() });
    rig.machine.send(&[b'x'; 900], 0, rig.now).unwrap();
    let waiting = rig.machine.outbox().to_vec();
    for _ in 0..100 {
        assert_eq!(rig.machine.send(&[b'x'; 100], 0, rig.now), Err(ClientRefusal::OutboxFull));
        // Fits before it is escaped, and not after.
        assert_eq!(rig.machine.send("é".repeat(30).as_bytes(), 0, rig.now), Err(ClientRefusal::OutboxFull));
    }
    assert_eq!(rig.machine.outbox(), waiting);
    assert_eq!((rig.events(), rig.machine.stats().messages_sent), (vec![], 1));
    rig.machine.send(b"x", 0, rig.now).unwrap();
    rig.written();
    rig.machine.send(&[b'x'; 900], 0, rig.now).unwrap();
}

#[test]
fn what_is_written_in_parts_arrives_whole() {
    let mut rig = Rig::registered(settings());
    let mut sent = Vec::new();
    let mut random = fastrand::Rng::with_seed(3);
    let mut expected = Vec::new();
    for round in 0..2000 {
        let payload = "x".repeat(random.usize(0..2000));
        expected.push((3, 7, payload.clone()));
        rig.machine.send(payload.as_bytes(), 0, rig.now).unwrap();
        let waiting = rig.machine.outbox();
        let part = if round == 1999 { waiting.len() } else { random.usize(0..=waiting.len().min(1800)) };
        sent.extend_from_slice(&waiting[..part]);
        rig.machine.handle_written(part, rig.now);
    }
    assert_eq!(frames(&sent), expected);
}

#[test]
fn a_failed_write_is_told_and_what_the_server_had_said_is_still_read() {
    let mut rig = Rig::registered(settings());
    rig.machine.send(b"x", 0, rig.now).unwrap();
    rig.machine.handle_write_failed(ErrorCause::Lost, "in words".into(), rig.now);
    assert_eq!((rig.machine.outbox().len(), rig.machine.phase()), (0, ClientPhase::Open));
    assert_eq!(rig.events(), [ClientEvent::Error { code: 2, message: "client closed".into(), cause: ErrorCause::Lost }]);
    assert_eq!(
        (rig.machine.send(b"x", 0, rig.now), rig.machine.ping(rig.now)),
        (Err(ClientRefusal::NotConnected), Err(ClientRefusal::NotConnected))
    );
    rig.pass_to_deadline();
    assert_eq!(rig.machine.outbox().len(), 0);
    rig.receive(8, 0, &server_error("Replaced by a newer connection", 409));
    assert_eq!(rig.events().len(), 1);
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(rig.events(), [closed_saying(CloseReason::Replaced, "Replaced by a newer connection"), ClientEvent::Finished]);
}

#[test]
fn a_goodbye_that_cannot_be_written_ends_the_connection() {
    let mut rig = Rig::registered(settings());
    rig.machine.disconnect(rig.now);
    rig.machine.handle_write_failed(ErrorCause::Lost, "in words".into(), rig.now);
    assert_eq!((rig.machine.phase(), rig.events()), (ClientPhase::HangUp, vec![]));
}

// ---- receiving ----

#[test]
fn a_stream_split_at_every_byte_tells_the_same() {
    let mut stream = frame(6, 0, &register_reply("n1", 7));
    for (kind, payload) in [(3, "a/b \"q\" é中😀"), (2, "{}"), (99, "unknown"), (5, ""), (3, ""), (8, "no json"), (3, "end")] {
        stream.extend(frame(kind, 7, payload));
    }
    let run = |chunks: &mut dyn Iterator<Item = &[u8]>| {
        let mut rig = Rig::connected(settings());
        let mut events = Vec::new();
        for chunk in chunks {
            rig.machine.handle_bytes(chunk);
            events.extend(rig.events());
        }
        assert_eq!(rig.machine.stats().messages_received, 8);
        events
    };
    let whole = run(&mut std::iter::once(&stream[..]));
    assert_eq!(whole.len(), 7);
    assert_eq!(whole[1], data("a/b \"q\" é中😀", 7));
    assert_eq!(run(&mut stream.chunks(1)), whole);
    for cut in 0..=stream.len() {
        assert_eq!(run(&mut [&stream[..cut], &stream[cut..]].into_iter()), whole, "cut at {cut}");
    }
}

#[test]
fn a_frame_that_cannot_be_read_is_skipped_and_a_lost_stream_is_left() {
    let mut rig = Rig::registered(settings());
    let mut bytes = b"\xab\x12\x03\0\0\0\x02{]".to_vec();
    bytes.extend(frame(3, 7, "after"));
    rig.machine.handle_bytes(&bytes);
    assert_eq!((rig.events(), rig.machine.phase()), (vec![data("after", 7)], ClientPhase::Open));
    for lost in [&b"HTTP/1.1 400 Bad Request"[..], b"\xab\x12\x03\x00\xa0\x00\x01"] {
        let mut rig = Rig::registered(settings());
        let mut bytes = frame(3, 7, "before");
        bytes.extend(lost);
        bytes.extend(frame(3, 7, "never read"));
        rig.machine.handle_bytes(&bytes);
        assert_eq!((rig.events(), rig.machine.phase()), (vec![data("before", 7)], ClientPhase::HangUp));
        assert!(matches!(rig.close_and_wait()[..], [ClientEvent::Close { reason: CloseReason::BrokenStream, .. }]));
    }
}

#[test]
fn half_a_frame_of_the_last_connection_does_not_reach_into_the_next() {
    let mut rig = Rig::registered(settings());
    rig.machine.handle_bytes(&frame(3, 7, "cut off")[..20]);
    assert_eq!(rig.events(), []);
    rig.close_and_wait();
    rig.machine.handle_connected(rig.now);
    rig.receive(6, 0, &register_reply("n1", 8));
    assert_eq!(rig.events(), [ClientEvent::Connect, ClientEvent::Register { node_id: "n1".into(), channel_id: 8 }]);
}

// ---- a slow host ----

#[test]
fn a_slow_host_gets_everything_in_order_once_it_has_room() {
    let mut rig = Rig::registered(settings());
    let mut bytes = Vec::new();
    for n in 0..3 {
        bytes.extend(frame(3, 7, &n.to_string()));
    }
    bytes.extend(frame(2, 0, "{}"));
    rig.machine.handle_bytes(&bytes);
    let first = rig.machine.poll_event(rig.now).unwrap();
    rig.machine.stall(first);
    assert_eq!((rig.machine.poll_event(rig.now), rig.machine.is_reading()), (None, false));
    rig.machine.resume(rig.now);
    assert!(rig.machine.is_reading());
    assert_eq!(rig.events(), [data("0", 7), data("1", 7), data("2", 7), ClientEvent::Heartbeat { count: 1 }]);
}

#[test]
fn silence_of_our_own_making_is_not_the_servers_death() {
    let mut rig = Rig::registered(settings());
    rig.receive(3, 7, "too much");
    let event = rig.machine.poll_event(rig.now).unwrap();
    rig.machine.stall(event);
    for _ in 0..5 {
        rig.pass_to_deadline();
        assert_eq!((rig.machine.phase(), rig.written().len()), (ClientPhase::Open, 1), "we go on saying that we live");
        assert!(!rig.machine.awaits_reply());
    }
    rig.pass(INTERVAL / 2);
    rig.machine.resume(rig.now);
    rig.pass_to_deadline();
    assert_eq!(rig.machine.phase(), ClientPhase::Open, "it has had half an interval only");
    rig.pass_to_deadline();
    assert_eq!(rig.machine.phase(), ClientPhase::HangUp, "read again, and it still says nothing");
}

#[test]
fn a_disconnect_while_the_host_is_slow_drops_what_was_not_told() {
    let mut rig = Rig::registered(settings());
    rig.receive(3, 7, "never told");
    let event = rig.machine.poll_event(rig.now).unwrap();
    rig.machine.stall(event);
    rig.machine.disconnect(rig.now);
    rig.written();
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(rig.events(), [closed(CloseReason::Disconnected), ClientEvent::Finished]);
    rig.machine.resume(rig.now);
    assert_eq!(rig.events(), []);
}

#[test]
fn the_numbers_are_those_of_the_reference() {
    let mut rig = Rig::new(settings());
    assert_eq!(rig.machine.stats(), Default::default());
    rig.machine.handle_connected(rig.now);
    rig.pass(SECOND);
    rig.receive(6, 0, &register_reply("n1", 7));
    rig.receive(5, 0, "");
    rig.events();
    rig.machine.send(b"x", 0, rig.now).unwrap();
    rig.machine.ping(rig.now).unwrap();
    rig.pass_to_deadline();
    let stats = rig.machine.stats();
    assert_eq!((stats.connected, stats.node_id.as_deref(), stats.channel_id), (true, Some("n1"), Some(7)));
    assert_eq!((stats.messages_sent, stats.messages_received, stats.reconnect_attempts), (3, 2, 0));
    assert_eq!(stats.connected_at, Some(1_700_000_000.25));
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    let stats = rig.machine.stats();
    assert_eq!((stats.connected, stats.connected_at, stats.reconnect_attempts), (false, Some(1_700_000_000.25), 1));
}

// ---- what a server can make a client keep ----

#[test]
fn of_a_servers_texts_the_beginning_is_kept() {
    let long = "é".repeat(1_000_000);
    let mut rig = Rig::registered(modern());
    rig.machine.handle_bytes(&v2_frame(8, 0, server_error(&long, 499).as_bytes()));
    let kept = "é".repeat(500);
    let raw = control::error_payload(&kept, 499).into();
    assert_eq!(rig.events(), [ClientEvent::ServerError { raw, code: 499, message: kept.clone() }]);
    assert_eq!(rig.machine.stats().frames_refused, 1);
    // What a server may reasonably say is told as it came.
    let words = format!(r#"{{"message":"no","code":499,"more":"{}"}}"#, "x".repeat(60_000));
    rig.machine.handle_bytes(&v2_frame(8, 0, words.as_bytes()));
    assert_eq!(rig.events(), [ClientEvent::ServerError { raw: words.into(), code: 499, message: "no".into() }]);
    assert_eq!(rig.machine.stats().frames_refused, 1);
    let mut gateway = gateway(settings(), &["n2"]);
    gateway.receive(8, 8, &server_error(&long, 408));
    let events = gateway.events();
    assert!(matches!(&events[..], [ClientEvent::NodeLost { message, .. }] if *message == kept), "{events:?}");
}

#[test]
fn a_name_that_no_node_may_have_registers_nobody() {
    let mut rig = Rig::connected(settings());
    rig.receive(6, 0, &register_reply(&"n".repeat(256), 7));
    assert_eq!((rig.events(), rig.machine.stats().frames_refused), (vec![], 1));
    assert_eq!(rig.machine.send(b"x", 0, rig.now), Err(ClientRefusal::NotConnected));
    rig.receive(6, 0, &register_reply(&"n".repeat(255), 7));
    assert_eq!(rig.events(), [register(&"n".repeat(255), 7)]);
}

#[test]
fn replies_to_what_was_never_asked_do_not_fill_the_outbox() {
    let mut rig = gateway(ClientConfig { outbox_bytes: 64 << 10, ..modern() }, &["n2"]);
    for n in 0..20_000 {
        reply(&mut rig, &format!("stranger {n}"), 1000 + n);
    }
    assert_eq!(rig.events(), []);
    let waiting = rig.machine.outbox().len();
    assert!((30 << 10..33 << 10).contains(&waiting), "{waiting} bytes wait");
    assert!(rig.machine.stats().frames_refused > 15_000);
    // A node that was asked for and removed meanwhile signs off all the same.
    rig.written();
    rig.machine.add_node("n3", "[]").unwrap();
    registers(&mut rig);
    rig.machine.remove_node("n3").unwrap();
    rig.machine.send(&[b'x'; 60_000], 0, rig.now).unwrap();
    reply(&mut rig, "n3", 9);
    rig.events();
    assert_eq!(rig.written().last().map(|(frame_type, channel_id, _)| (*frame_type, *channel_id)), Some((7, 9)));
}

#[test]
fn reading_that_stopped_for_the_host_is_counted() {
    let mut rig = Rig::registered(settings());
    rig.receive(3, 7, "x");
    let event = rig.machine.poll_event(rig.now).unwrap();
    rig.machine.stall(event);
    assert_eq!((rig.machine.is_reading(), rig.machine.stats().reads_paused), (false, 1));
}
