//! Registering, staying alive, coming back and leaving.

use crate::rig::*;

// ---- registering ----

#[test]
fn a_connected_client_registers_and_then_tells() {
    let mut rig = Rig::new(ClientConfig { metadata: r#"{"v":"1.0"}"#.into(), ..settings() });
    assert_eq!((rig.machine.phase(), rig.machine.is_connected()), (ClientPhase::Dial, false));
    rig.machine.handle_connected(rig.now);
    assert_eq!((rig.machine.phase(), rig.machine.is_connected()), (ClientPhase::Open, true));
    // The golden vector of the reference.
    let golden = "ab12060000006a7b226368616e6e656c5f6964223a302c227061796c6f6164223a227b5c226e6f64655f69645c223a5c226e315c222c5c226d657461646174615c223a7b5c22765c223a5c22312e305c227d2c5c2274696d657374616d705c223a313730303030303030302e32357d227d";
    let hex: String = rig.machine.outbox().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden);
    assert_eq!(rig.events(), [ClientEvent::Connect]);
    assert_eq!((rig.machine.node_id(), rig.machine.channel_id()), (None, None));
    rig.receive(6, 0, &register_reply("n1", 7));
    assert_eq!(rig.events(), [ClientEvent::Register { node_id: "n1".into(), channel_id: 7 }]);
    assert_eq!((rig.machine.node_id().map(|id| &**id), rig.machine.channel_id()), (Some("n1"), Some(7)));
}

#[test]
fn the_channel_of_an_old_server_is_found_inside_of_metadata() {
    let mut rig = Rig::connected(settings());
    rig.receive(6, 0, r#"{"node_id":"n1","metadata":{"channel_id":3,"status":"ok","server_time":1.5},"timestamp":1.5}"#);
    assert_eq!(rig.events(), [ClientEvent::Register { node_id: "n1".into(), channel_id: 3 }]);
}

#[test]
fn a_register_reply_that_is_none_registers_nobody() {
    let mut rig = Rig::connected(settings());
    for payload in ["", "nonsense", "[]", r#"{"node_id":[]}"#] {
        rig.receive(6, 0, payload);
    }
    assert_eq!(rig.events(), []);
    assert_eq!(rig.machine.send(b"x", 0, rig.now), Err(ClientRefusal::NotConnected));
    assert_eq!((rig.machine.phase(), rig.machine.stats().messages_received), (ClientPhase::Open, 4));
}

#[test]
fn a_made_up_node_id_has_the_form_of_the_reference_and_is_kept() {
    let mut rig = Rig::new(ClientConfig { node_id: None, ..settings() });
    let mut registered_as = Vec::new();
    for _ in 0..3 {
        rig.machine.handle_connected(rig.now);
        let (kind, _, payload) = rig.written().remove(0);
        assert_eq!(kind, 6);
        registered_as.push(control::parse_register(payload.as_bytes()).unwrap().node_id.unwrap());
        rig.close_and_wait();
    }
    let parts: Vec<_> = registered_as[0].split('_').collect();
    // PHP: sprintf('%08x%05x', 1700000000, 250000).
    assert_eq!(parts[..2], ["client", "6553f1003d090"]);
    assert_eq!(parts[2].len(), 8);
    assert!(parts[2].chars().all(|digit| digit.is_ascii_hexdigit() && !digit.is_ascii_uppercase()), "{parts:?}");
    assert!(registered_as.iter().all(|id| *id == registered_as[0]), "{registered_as:?}");
    let mut other = Rig::seeded(ClientConfig { node_id: None, ..settings() }, 2);
    other.machine.handle_connected(other.now);
    assert!(!other.written()[0].2.contains(&registered_as[0]), "another seed is another client");
}

// ---- heartbeats and life ----

#[test]
fn heartbeats_go_out_each_interval_and_the_first_one_interval_after_connect() {
    let mut rig = Rig::registered(settings());
    rig.pass(INTERVAL - 1);
    rig.machine.handle_timeout(rig.now);
    assert_eq!(rig.written(), []);
    for beat in 1..=3 {
        rig.pass_to_deadline();
        let micros = UNIX + beat * INTERVAL;
        assert_eq!(rig.written(), [(1, 0, format!(r#"{{"timestamp":{}.25}}"#, micros / SECOND))]);
        rig.receive(2, 0, r#"{"timestamp":1}"#);
        assert_eq!(rig.events(), [ClientEvent::Heartbeat { count: 1 }]);
        assert_eq!(rig.machine.stats().messages_sent, beat);
    }
}

#[test]
fn a_server_that_answers_nothing_is_given_up_within_two_intervals() {
    for registered in [true, false] {
        let mut rig = if registered { Rig::registered(settings()) } else { Rig::connected(settings()) };
        let last_life = rig.now.mono;
        rig.pass_to_deadline();
        assert_eq!((rig.machine.phase(), rig.written().len(), rig.machine.awaits_reply()), (ClientPhase::Open, 1, true));
        rig.pass_to_deadline();
        assert_eq!(rig.machine.phase(), ClientPhase::HangUp);
        assert_eq!(rig.now.mono - last_life, 2 * INTERVAL);
        assert_eq!((rig.written(), rig.machine.is_connected()), (vec![], false));
        assert_eq!(rig.close_and_wait(), [closed_saying(CloseReason::HeartbeatTimeout, "no heartbeat reply")]);
    }
}

#[test]
fn whatever_arrives_is_life() {
    for bytes in [frame(5, 0, ""), frame(3, 7, "x"), frame(77, 0, ""), frame(8, 0, "x"), b"\xab\x12\x03".to_vec()] {
        let mut rig = Rig::registered(settings());
        rig.pass_to_deadline();
        rig.machine.handle_bytes(&bytes);
        rig.events();
        rig.pass_to_deadline();
        assert_eq!((rig.machine.phase(), rig.written().len()), (ClientPhase::Open, 2));
        rig.pass_to_deadline();
        assert_eq!(rig.machine.phase(), ClientPhase::HangUp, "but only once");
    }
}

#[test]
fn a_reply_that_waited_in_the_socket_while_the_process_was_stopped_counts() {
    let mut rig = Rig::registered(settings());
    rig.pass_to_deadline();
    rig.pass(100 * INTERVAL);
    assert!(rig.machine.awaits_reply(), "so the shell looks at the socket first");
    rig.receive(2, 0, "");
    rig.machine.handle_timeout(rig.now);
    assert_eq!((rig.machine.phase(), rig.written().len()), (ClientPhase::Open, 2));
}

#[test]
fn a_process_that_was_stopped_before_its_heartbeat_does_not_blame_the_server() {
    let mut rig = Rig::registered(settings());
    rig.pass(100 * INTERVAL);
    rig.machine.handle_timeout(rig.now);
    assert_eq!((rig.machine.phase(), rig.written().len()), (ClientPhase::Open, 1), "one beat, not a hundred");
    assert_eq!(rig.machine.deadline(), Some(rig.now.mono + INTERVAL));
}

#[test]
fn a_server_that_slowly_takes_what_waits_is_slow_and_not_gone() {
    let mut rig = Rig::registered(settings());
    rig.machine.send(&[b'x'; 100_000], 0, rig.now).unwrap();
    rig.machine.handle_written(1000, rig.now);
    rig.pass_to_deadline();
    rig.pass(INTERVAL / 2);
    rig.machine.handle_written(1000, rig.now);
    rig.pass_to_deadline();
    assert_eq!(rig.machine.phase(), ClientPhase::Open, "it took something half an interval ago");
    rig.pass_to_deadline();
    assert_eq!(rig.machine.phase(), ClientPhase::HangUp, "and nothing since");
}

#[test]
fn a_socket_that_takes_new_data_at_once_is_no_proof_of_life() {
    let mut rig = Rig::registered(settings());
    rig.pass_to_deadline();
    rig.written();
    rig.pass(INTERVAL / 2);
    rig.machine.send(b"x", 0, rig.now).unwrap();
    rig.written();
    rig.pass_to_deadline();
    assert_eq!(rig.machine.phase(), ClientPhase::HangUp);
}

// ---- reconnecting ----

#[test]
fn a_lost_connection_is_told_and_comes_back_with_the_same_id() {
    let mut rig = Rig::registered(settings());
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!((rig.events(), rig.machine.phase()), (vec![closed(CloseReason::PeerClosed)], ClientPhase::Wait));
    assert_eq!(rig.machine.stats().reconnect_attempts, 1);
    let early = rig.machine.deadline().unwrap() - 1;
    rig.machine.handle_timeout(Now { mono: early, ..rig.now });
    assert_eq!(rig.machine.phase(), ClientPhase::Wait);
    rig.pass_to_deadline();
    rig.machine.handle_connected(rig.now);
    assert_eq!(rig.events(), [ClientEvent::Connect]);
    assert!(rig.written()[0].2.starts_with(r#"{"node_id":"n1","#));
    assert_eq!(rig.machine.stats().reconnect_attempts, 1, "connected is not yet registered");
    rig.receive(6, 0, &register_reply("n1", 8));
    rig.events();
    assert_eq!(rig.machine.stats().reconnect_attempts, 0);
}

#[test]
fn a_failed_connect_is_an_error_then_a_close_then_another_attempt() {
    for (host, shown) in [("localhost", "localhost"), ("::1", "[::1]"), ("[::1]", "[::1]")] {
        let mut rig = Rig::new(ClientConfig { host: host.into(), ..settings() });
        rig.pass(1_234_560);
        rig.machine.handle_connect_failed(ErrorCause::Refused, "in words".into(), rig.now);
        let message = format!("connect {shown}:9501 fail after 1.2346 seconds");
        assert_eq!(
            rig.events(),
            [ClientEvent::Error { code: 1, message, cause: ErrorCause::Refused }, closed_saying(CloseReason::ConnectFailed, "in words")]
        );
        assert_eq!(rig.machine.phase(), ClientPhase::Wait);
        rig.pass_to_deadline();
        rig.pass(300);
        rig.machine.handle_connect_failed(ErrorCause::Refused, "in words".into(), rig.now);
        let message = format!("connect {shown}:9501 fail after 0.0003 seconds");
        assert_eq!(
            rig.events()[0],
            ClientEvent::Error { code: 1, message, cause: ErrorCause::Refused },
            "the time is that of this attempt"
        );
    }
}

#[test]
fn times_are_shown_as_php_shows_them() {
    for (micros, shown) in
        [(0, "0"), (49, "0"), (50, "0.0001"), (5_000_000, "5"), (5_000_049, "5"), (5_100_000, "5.1"), (99_990_000, "99.99")]
    {
        let mut rig = Rig::new(settings());
        rig.pass(micros);
        rig.machine.handle_connect_failed(ErrorCause::Refused, "in words".into(), rig.now);
        let ClientEvent::Error { message, .. } = rig.events().remove(0) else { panic!("no error first") };
        assert_eq!(message, format!("connect 127.0.0.1:9501 fail after {shown} seconds"));
    }
}

#[test]
fn attempts_are_limited_and_counted_anew_after_each_registration() {
    let mut rig = Rig::registered(ClientConfig { max_reconnect_attempts: 2, ..settings() });
    rig.close_and_wait();
    rig.machine.handle_connect_failed(ErrorCause::Refused, "in words".into(), rig.now);
    rig.pass_to_deadline();
    rig.machine.handle_connected(rig.now);
    rig.receive(6, 0, &register_reply("n1", 8));
    rig.events();
    rig.close_and_wait();
    rig.machine.handle_connected(rig.now);
    rig.close_and_wait();
    rig.machine.handle_connect_failed(ErrorCause::Refused, "in words".into(), rig.now);
    let events = rig.events();
    assert!(matches!(events[..], [ClientEvent::Error { .. }, ClientEvent::Close { .. }, ClientEvent::Finished]), "{events:?}");
    assert_eq!((rig.machine.phase(), rig.machine.deadline()), (ClientPhase::Finished, None));
}

#[test]
fn without_auto_reconnect_the_first_close_is_the_end() {
    let mut rig = Rig::registered(ClientConfig { auto_reconnect: false, ..settings() });
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(rig.events(), [closed(CloseReason::PeerClosed), ClientEvent::Finished]);
    assert_eq!(rig.machine.phase(), ClientPhase::Finished);
}

#[test]
fn a_replaced_client_does_not_come_back_and_every_other_error_changes_nothing() {
    let mut rig = Rig::registered(settings());
    for code in [0, 400, 401, 403, 408, 429, 500, 503, -409] {
        rig.receive(8, 0, &server_error("no", code));
        let raw = server_error("no", code).into();
        assert_eq!(rig.events(), [ClientEvent::ServerError { raw, code, message: "no".into() }]);
        assert_eq!(rig.machine.phase(), ClientPhase::Open);
    }
    let text = server_error("Replaced by a newer connection", 409);
    let mut bytes = frame(8, 0, &text);
    bytes.extend(frame(3, 7, "not for this one any more"));
    rig.machine.handle_bytes(&bytes);
    assert_eq!(rig.events(), [ClientEvent::ServerError { raw: text.into(), code: 409, message: "Replaced by a newer connection".into() }]);
    assert_eq!(rig.machine.phase(), ClientPhase::HangUp);
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(
        (rig.events(), rig.machine.phase()),
        (vec![closed_saying(CloseReason::Replaced, "Replaced by a newer connection"), ClientEvent::Finished], ClientPhase::Finished)
    );
}

#[test]
fn an_error_whose_payload_is_not_json_is_told_as_it_is() {
    let mut rig = Rig::registered(settings());
    for payload in ["", "plain words", "[1,", "12", r#"{"message":[],"code":{}}"#] {
        rig.receive(8, 0, payload);
        assert_eq!(rig.events(), [ClientEvent::ServerError { raw: payload.to_owned().into(), code: 0, message: String::new() }]);
    }
    assert_eq!(rig.machine.phase(), ClientPhase::Open);
}

proptest! {
    #[test]
    fn the_wait_before_a_reconnect_keeps_its_bounds(base in 1u64..10_000 * SECOND, attempt in 1u32..5000, seed: u64) {
        let wait = backoff(base, attempt, &mut fastrand::Rng::with_seed(seed));
        let window = u128::from(base) * (1u128 << (attempt - 1).min(60));
        prop_assert!(wait >= SECOND / 10);
        prop_assert!(u128::from(wait) <= window.max(u128::from(SECOND / 10)).min(u128::from(60 * SECOND)));
    }
}

#[test]
fn the_wait_is_spread_over_the_whole_window_which_doubles() {
    let mut random = fastrand::Rng::with_seed(7);
    for (attempt, window) in [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (100, 60), (u32::MAX, 60)] {
        let waits: Vec<_> = (0..2000).map(|_| backoff(5 * SECOND, attempt, &mut random)).collect();
        let in_quarter = |quarter: u64| {
            let from = window * SECOND * quarter / 4;
            waits.iter().filter(|wait| (from..from + window * SECOND / 4).contains(wait)).count()
        };
        for quarter in 0..4 {
            assert!((400..600).contains(&in_quarter(quarter)), "attempt {attempt}, quarter {quarter}: {}", in_quarter(quarter));
        }
    }
}

// ---- leaving ----

#[test]
fn a_disconnect_says_goodbye_and_does_not_come_back() {
    let mut rig = Rig::registered(settings());
    rig.machine.send(b"last words", 0, rig.now).unwrap();
    rig.machine.disconnect(rig.now);
    assert_eq!((rig.machine.phase(), rig.machine.is_connected()), (ClientPhase::Flush, false));
    assert_eq!(rig.machine.send(b"x", 0, rig.now), Err(ClientRefusal::NotConnected));
    rig.receive(3, 7, "too late");
    assert_eq!(rig.events(), []);
    assert_eq!(rig.written(), [(3, 7, "last words".into()), (7, 0, String::new())]);
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(
        (rig.events(), rig.machine.phase()),
        (vec![closed(CloseReason::Disconnected), ClientEvent::Finished], ClientPhase::Finished)
    );
    rig.machine.disconnect(rig.now);
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(rig.events(), [], "nothing follows the end");
    assert_eq!(rig.machine.node_id().map(|id| &**id), Some("n1"), "the ids are kept");
}

#[test]
fn a_server_that_does_not_take_the_goodbye_is_not_waited_for() {
    let mut rig = Rig::registered(settings());
    rig.machine.disconnect(rig.now);
    rig.machine.handle_written(0, rig.now);
    assert_eq!(rig.machine.deadline(), Some(rig.now.mono + SECOND));
    rig.pass_to_deadline();
    assert_eq!(rig.machine.phase(), ClientPhase::HangUp);
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(rig.machine.phase(), ClientPhase::Finished);
}

#[test]
fn a_disconnect_ends_dialling_and_waiting() {
    let mut rig = Rig::new(settings());
    rig.machine.disconnect(rig.now);
    assert_eq!(
        (rig.events(), rig.machine.phase()),
        (vec![closed(CloseReason::Disconnected), ClientEvent::Finished], ClientPhase::Finished)
    );
    rig.machine.handle_connected(rig.now);
    assert_eq!((rig.events(), rig.machine.outbox().len()), (vec![], 0), "a connection that comes too late is nobody's");
    let mut rig = Rig::registered(settings());
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    rig.events();
    rig.machine.disconnect(rig.now);
    assert_eq!((rig.events(), rig.machine.phase()), (vec![ClientEvent::Finished], ClientPhase::Finished));
}

#[test]
fn a_disconnect_while_the_connection_is_given_up_prevents_the_reconnect() {
    let mut rig = Rig::registered(settings());
    rig.pass_to_deadline();
    rig.pass_to_deadline();
    assert_eq!(rig.machine.phase(), ClientPhase::HangUp);
    rig.machine.disconnect(rig.now);
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(
        (rig.events(), rig.machine.phase()),
        (vec![closed_saying(CloseReason::HeartbeatTimeout, "no heartbeat reply"), ClientEvent::Finished], ClientPhase::Finished)
    );
}

// ---- why it ended ----

#[test]
fn the_last_words_of_a_server_are_the_reason_for_which_it_ended() {
    let kicked = "Disconnected by the server";
    let cases = [
        (400, "Invalid node id", CloseReason::Refused),
        (401, "who are you", CloseReason::Refused),
        (403, "Too many nodes on this server", CloseReason::Refused),
        (403, kicked, CloseReason::Kicked),
        (408, "Node timed out", CloseReason::HeartbeatTimeout),
        (408, "Slow consumer", CloseReason::SlowConsumer),
        (409, "Replaced by a newer connection", CloseReason::Replaced),
        (413, "Frame too long: 9 bytes", CloseReason::FrameTooLong),
        (500, "Failed to process message: Invalid message magic: 0x4745", CloseReason::BrokenStream),
        (503, "Server is full or connection limit reached", CloseReason::ServerFull),
        (503, "Server is shutting down", CloseReason::ServerStopped),
    ];
    for (code, message, reason) in cases {
        for frame_type in [8, 18] {
            for end in [SocketEnd::Closed, SocketEnd::Lost("reset".into())] {
                let mut rig = Rig::registered(settings());
                rig.receive(frame_type, 0, &server_error(message, code));
                rig.events();
                rig.machine.handle_closed(end, rig.now);
                assert_eq!(rig.events()[0], closed_saying(reason, message), "{code} {message}");
            }
        }
    }
}

#[test]
fn what_was_not_said_last_is_no_reason() {
    for words in [server_error("Rate limit exceeded", 429), server_error("what", 499), "no JSON".to_owned()] {
        let mut rig = Rig::registered(settings());
        rig.receive(8, 0, &words);
        rig.events();
        rig.machine.handle_closed(SocketEnd::Closed, rig.now);
        assert_eq!(rig.events()[0], closed(CloseReason::PeerClosed), "{words}");
    }
    let mut rig = Rig::registered(settings());
    rig.receive(8, 0, &server_error("Disconnected by the server", 403));
    rig.receive(2, 0, "");
    rig.events();
    rig.machine.handle_closed(SocketEnd::Lost("Connection reset by peer".into()), rig.now);
    assert_eq!(rig.events()[0], closed_saying(CloseReason::IoError, "Connection reset by peer"), "it went on after that");
}

#[test]
fn every_end_of_a_connection_has_a_reason() {
    let mut rig = Rig::registered(settings());
    rig.machine.handle_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    rig.events();
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(rig.events()[0], closed_saying(CloseReason::BrokenStream, "Invalid message magic: 0x4854"));
    // A reset that writing learns of: reading finds nothing but the end then.
    let mut rig = Rig::registered(settings());
    rig.machine.handle_write_failed(ErrorCause::Lost, "Connection reset by peer".into(), rig.now);
    rig.machine.handle_closed(SocketEnd::Closed, rig.now);
    assert_eq!(rig.events()[1], closed_saying(CloseReason::IoError, "Connection reset by peer"));
    // Its own host's wish comes before everything.
    let mut rig = Rig::registered(settings());
    rig.receive(8, 0, &server_error("Server is shutting down", 503));
    rig.events();
    rig.machine.disconnect(rig.now);
    rig.machine.handle_closed(SocketEnd::Lost("reset".into()), rig.now);
    assert_eq!(rig.events()[0], closed(CloseReason::Disconnected));
}

#[test]
fn a_fault_of_ours_is_told_and_the_client_comes_back() {
    let mut rig = Rig::registered(settings());
    rig.machine.handle_failure("index out of bounds".into(), rig.now);
    assert_eq!(rig.events(), [closed_saying(CloseReason::Failed, "index out of bounds")]);
    assert_eq!(rig.machine.phase(), ClientPhase::Wait);
    // One that comes again at once is not one to be met again at once.
    rig.pass_to_deadline();
    rig.machine.handle_failure("dialling".into(), rig.now);
    rig.events();
    rig.machine.handle_failure("waiting".into(), rig.now);
    assert_eq!((rig.events(), rig.machine.deadline()), (vec![], Some(rig.now.mono + 60 * SECOND)));
    let mut leaving = Rig::registered(settings());
    leaving.machine.disconnect(leaving.now);
    leaving.machine.handle_failure("why".into(), leaving.now);
    assert_eq!(leaving.events(), [closed_saying(CloseReason::Failed, "why"), ClientEvent::Finished]);
    leaving.machine.handle_failure("why".into(), leaving.now);
    assert_eq!(leaving.events(), []);
}
