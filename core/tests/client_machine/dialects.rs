//! The second dialect: who speaks it, and when.

use crate::rig::*;

#[test]
fn a_client_asks_for_v2_with_one_more_key_in_an_otherwise_unchanged_registration() {
    let mut rig = Rig::new(modern());
    rig.machine.handle_connected(rig.now);
    let expected = r#"{"node_id":"n1","metadata":[],"timestamp":1700000000.25,"protocol":2}"#;
    assert_eq!(rig.written(), [(6, 0, expected.to_owned())]);
}

#[test]
fn once_the_server_agrees_everything_is_written_in_v2_and_any_bytes_are_data() {
    let mut rig = Rig::agreed();
    rig.machine.send(b"\xff\0", 0, rig.now).unwrap();
    rig.machine.send(b"", 9, rig.now).unwrap();
    rig.machine.ping(rig.now).unwrap();
    let expected = [v2_frame(3, 7, b"\xff\0"), v2_frame(3, 9, b""), v2_frame(4, 0, b"")].concat();
    assert_eq!(rig.written_raw(), expected);
    rig.pass_to_deadline();
    assert_eq!(rig.written_raw(), v2_frame(1, 0, br#"{"timestamp":1700000010.25}"#));
    rig.machine.disconnect(rig.now);
    assert_eq!(rig.written_raw(), v2_frame(7, 0, b""));
}

#[test]
fn a_server_that_does_not_agree_is_spoken_to_in_v1_and_text_only() {
    for reply in [register_reply("n1", 7), r#"{"node_id":"n1","metadata":{"channel_id":7,"protocol":2}}"#.to_owned()] {
        let mut rig = Rig::connected(modern());
        rig.receive(6, 0, &reply);
        rig.events();
        assert_eq!(rig.written(), []);
        assert_eq!(rig.machine.send(b"\xff", 0, rig.now), Err(ClientRefusal::NotUtf8));
        rig.machine.send(b"x", 0, rig.now).unwrap();
        assert_eq!(rig.written(), [(3, 7, "x".to_owned())]);
    }
}

#[test]
fn a_client_that_did_not_ask_stays_with_v1_whatever_the_server_says() {
    let mut rig = Rig::connected(settings());
    rig.receive(6, 0, &agreement("n1", 7, 2));
    rig.events();
    assert_eq!(rig.written(), []);
    rig.machine.ping(rig.now).unwrap();
    assert_eq!(rig.written(), [(4, 0, String::new())]);
}

#[test]
fn both_dialects_are_read_frame_by_frame() {
    let mut rig = Rig::agreed();
    let stream = [frame(3, 7, "one"), v2_frame(3, 7, b"\xfe"), v2_frame(5, 0, b""), frame(2, 0, "{}"), v2_frame(2, 0, b"{}")].concat();
    for byte in stream {
        rig.machine.handle_bytes(&[byte]);
    }
    let binary = ClientEvent::Data { payload: b"\xfe"[..].into(), channel_id: 7, node_id: Some("n1".into()) };
    let beat = ClientEvent::Heartbeat { count: 1 };
    assert_eq!(rig.events(), [data("one", 7), binary, ClientEvent::Pong, beat.clone(), beat]);
    assert_eq!(rig.machine.stats().messages_received, 6);
}

#[test]
fn each_connection_agrees_anew_and_a_second_reply_changes_nothing() {
    let mut rig = Rig::agreed();
    rig.machine.handle_bytes(&v2_frame(6, 0, agreement("n1", 7, 2).as_bytes()));
    assert_eq!((rig.events().len(), rig.written_raw().len()), (1, 0));
    rig.close_and_wait();
    rig.machine.handle_connected(rig.now);
    assert_eq!(rig.written()[0].0, 6, "a new connection starts in v1");
    rig.receive(6, 0, &register_reply("n1", 8));
    rig.events();
    rig.machine.ping(rig.now).unwrap();
    assert_eq!(rig.written(), [(4, 0, String::new())]);
}

#[test]
fn v2_has_no_channel_ids_over_32_bits() {
    let mut rig = Rig::agreed();
    rig.machine.send(b"x", i64::from(u32::MAX), rig.now).unwrap();
    assert_eq!(rig.written_raw(), v2_frame(3, u32::MAX, b"x"));
    assert_eq!(rig.machine.send(b"x", i64::from(u32::MAX) + 1, rig.now), Err(ClientRefusal::NoSuchChannel));
    assert_eq!(rig.written_raw(), b"");
    let mut old = Rig::registered(settings());
    old.machine.send(b"x", 1 << 40, old.now).unwrap();
    assert_eq!(old.written(), [(3, 1 << 40, "x".to_owned())]);
}

#[test]
fn the_frame_limit_counts_the_payload_alone_in_v2() {
    let mut rig = Rig::agreed();
    rig.machine.send(&vec![0; MAX_BODY_LEN as usize], 0, rig.now).unwrap();
    assert_eq!(rig.written_raw().len(), 12 + MAX_BODY_LEN as usize);
    assert_eq!(rig.machine.send(&vec![0; MAX_BODY_LEN as usize + 1], 0, rig.now), Err(ClientRefusal::TooLong));
}

#[test]
fn a_goaway_reads_as_an_error_and_spreads_the_return_over_its_window() {
    let payload = control::goaway_payload("Server is shutting down", 503, Some(20_000));
    let mut waits = Vec::new();
    for seed in 0..200 {
        let mut rig = Rig::seeded(ClientConfig { reconnect_interval: Duration::from_secs(60), ..modern() }, seed);
        rig.machine.handle_connected(rig.now);
        rig.machine.handle_bytes(&v2_frame(18, 0, &payload));
        let raw = payload.clone().into();
        let error = ClientEvent::ServerError { raw, code: 503, message: "Server is shutting down".to_owned() };
        assert_eq!(rig.events(), [ClientEvent::Connect, error]);
        assert_eq!(rig.machine.phase(), ClientPhase::Open, "the server closes");
        rig.machine.handle_closed(SocketEnd::Closed, rig.now);
        waits.push(rig.machine.deadline().unwrap() - rig.now.mono);
    }
    assert!(waits.iter().all(|wait| (SECOND / 10..=20 * SECOND).contains(wait)));
    let late = waits.iter().filter(|wait| **wait > 10 * SECOND).count();
    assert!((60..140).contains(&late), "{late} of 200 in the second half");
}

#[test]
fn a_window_is_bounded_and_used_once() {
    let mut rig = Rig::agreed();
    rig.machine.handle_bytes(&v2_frame(18, 0, br#"{"message":"x","code":503,"window_ms":4000000000}"#));
    rig.events();
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert!(rig.machine.deadline().unwrap() - rig.now.mono <= 60 * SECOND);
    rig.events();
    rig.pass_to_deadline();
    rig.machine.handle_connect_failed(ErrorCause::Refused, "in words".into(), rig.now);
    assert!(rig.machine.deadline().unwrap() - rig.now.mono <= 10 * SECOND, "then the back-off decides");
    let mut other = Rig::agreed();
    other.machine.handle_bytes(&v2_frame(18, 0, b"not JSON"));
    assert!(matches!(&other.events()[..], [ClientEvent::ServerError { code: 0, .. }]));
    other.machine.handle_closed(SocketEnd::Closed, other.now);
    assert!(other.machine.deadline().unwrap() - other.now.mono <= 5 * SECOND, "without a window, too");
}

#[test]
fn a_server_that_goes_away_again_and_again_is_not_asked_at_its_pace() {
    for window in [0, 1] {
        let payload = format!(r#"{{"message":"x","code":503,"window_ms":{window}}}"#);
        let mut longest = [0; 6];
        for seed in 0..50 {
            let mut rig = Rig::seeded(modern(), seed);
            for longest in &mut longest {
                rig.machine.handle_connected(rig.now);
                rig.receive(6, 0, &agreement("n1", 7, 2));
                rig.machine.handle_bytes(&v2_frame(18, 0, payload.as_bytes()));
                rig.events();
                rig.machine.handle_closed(SocketEnd::Closed, rig.now);
                *longest = rig.machine.deadline().unwrap().saturating_sub(rig.now.mono).max(*longest);
                rig.pass_to_deadline();
            }
        }
        // The window decides once, if there is one. Then the back-off does: 5, 10, 20, 40, 60 s.
        assert!(if window == 0 { longest[0] > SECOND } else { longest[0] == SECOND / 10 }, "{longest:?}");
        assert!(longest[2] > 5 * SECOND && longest[4] > 30 * SECOND && longest[5] <= 60 * SECOND, "{longest:?}");
    }
}

#[test]
fn a_server_that_lived_for_a_while_may_say_again_when_to_come_back() {
    let mut rig = Rig::agreed();
    for _ in 0..20 {
        rig.pass(60 * SECOND);
        rig.machine.handle_bytes(&v2_frame(18, 0, br#"{"message":"x","code":503,"window_ms":200}"#));
        rig.events();
        rig.machine.handle_closed(SocketEnd::Closed, rig.now);
        assert!(rig.machine.deadline().unwrap() - rig.now.mono <= SECOND / 5);
        rig.pass_to_deadline();
        rig.machine.handle_connected(rig.now);
    }
}
