//! The client's rules, in virtual time: every rule with what it does and what it leaves alone.

use heartbus_core::event::{ClientEvent, CloseReason, ErrorCause};
use heartbus_core::hub::Now;
use heartbus_core::hub::client::{ClientMachine, ClientPhase, ClientRefusal, SocketEnd, backoff};
use heartbus_core::settings::ClientConfig;
use heartbus_core::wire::{Decoded, FrameType, MAX_BODY_LEN, control, v1, v2};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

const SECOND: u64 = 1_000_000;
const INTERVAL: u64 = 10 * SECOND;
const UNIX: u64 = 1_700_000_000_250_000;

fn settings() -> ClientConfig {
    ClientConfig {
        host: "127.0.0.1".into(),
        port: 9501,
        node_id: Some("n1".into()),
        metadata: "[]".into(),
        heartbeat_interval: Duration::from_micros(INTERVAL),
        auto_reconnect: true,
        reconnect_interval: Duration::from_secs(5),
        max_reconnect_attempts: 0,
        outbox_bytes: 1 << 20,
        protocol: 1,
        max_nodes: 10_000,
        ..ClientConfig::default()
    }
}

/// As above, wanting v2.
fn modern() -> ClientConfig {
    ClientConfig { protocol: 2, ..settings() }
}

/// A machine, its clock, and a socket that takes everything.
struct Rig {
    machine: ClientMachine,
    now: Now,
}

impl Rig {
    fn new(settings: ClientConfig) -> Self {
        Self::seeded(settings, 1)
    }

    fn seeded(settings: ClientConfig, seed: u64) -> Self {
        let now = Now { mono: SECOND, unix: UNIX };
        Self { machine: ClientMachine::new(5, settings, Arc::default(), seed, now), now }
    }

    fn connected(settings: ClientConfig) -> Self {
        let mut rig = Self::new(settings);
        rig.machine.handle_connected(rig.now);
        rig.events();
        rig.written();
        rig
    }

    fn registered(settings: ClientConfig) -> Self {
        let mut rig = Self::connected(settings);
        rig.receive(6, 0, &register_reply("n1", 7));
        assert!(matches!(rig.events()[..], [ClientEvent::Register { .. }]));
        rig
    }

    fn pass(&mut self, micros: u64) {
        self.now = Now { mono: self.now.mono + micros, unix: self.now.unix + micros };
    }

    /// Lets time pass up to the deadline, and the machine notice.
    fn pass_to_deadline(&mut self) {
        self.pass(self.machine.deadline().expect("a deadline") - self.now.mono);
        self.machine.handle_timeout(self.now);
    }

    fn receive(&mut self, frame_type: u8, channel_id: i64, payload: &str) {
        self.machine.handle_bytes(&frame(frame_type, channel_id, payload));
    }

    fn events(&mut self) -> Vec<ClientEvent> {
        std::iter::from_fn(|| self.machine.poll_event(self.now)).collect()
    }

    /// Writes everything, as type, channel and payload.
    fn written(&mut self) -> Vec<(u8, i64, String)> {
        self.machine.fill_outbox(self.now);
        let bytes = self.machine.outbox().to_vec();
        self.machine.handle_written(bytes.len(), self.now);
        frames(&bytes)
    }

    /// The socket is closed, and the time of the reconnect has come.
    fn close_and_wait(&mut self) -> Vec<ClientEvent> {
        self.machine.handle_closed(SocketEnd::Closed, self.now);
        let events = self.events();
        assert_eq!(self.machine.phase(), ClientPhase::Wait);
        self.pass_to_deadline();
        assert_eq!(self.machine.phase(), ClientPhase::Dial);
        events
    }
}

fn closed(reason: CloseReason) -> ClientEvent {
    ClientEvent::Close { reason, detail: String::new() }
}

fn closed_saying(reason: CloseReason, detail: &str) -> ClientEvent {
    ClientEvent::Close { reason, detail: detail.to_owned() }
}

fn frame(frame_type: u8, channel_id: i64, payload: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    v1::encode(frame_type, channel_id, payload.as_bytes(), &mut bytes).unwrap();
    bytes
}

fn frames(mut bytes: &[u8]) -> Vec<(u8, i64, String)> {
    let mut frames = Vec::new();
    while let Decoded::Frame { frame, len } = v1::decode(bytes, MAX_BODY_LEN) {
        let payload = String::from_utf8(frame.payload.bytes().into_owned()).unwrap();
        frames.push((frame.frame_type.0, frame.channel_id, payload));
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty(), "half a frame is left");
    frames
}

fn register_reply(node_id: &str, channel_id: u32) -> String {
    agreement(node_id, channel_id, 1)
}

fn agreement(node_id: &str, channel_id: u32, protocol: u32) -> String {
    let mut out = Vec::new();
    control::write_register_reply(&mut out, node_id, channel_id, UNIX, protocol);
    String::from_utf8(out).unwrap()
}

fn v2_frame(frame_type: u8, channel_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    v2::encode(FrameType(frame_type), channel_id, payload, &mut bytes);
    bytes
}

/// For the first node.
fn data(payload: &str, channel_id: i64) -> ClientEvent {
    data_for(Some("n1"), payload, channel_id)
}

fn data_for(node_id: Option<&str>, payload: &str, channel_id: i64) -> ClientEvent {
    ClientEvent::Data { payload: payload.to_owned().into(), channel_id, node_id: node_id.map(Into::into) }
}

fn server_error(message: &str, code: i64) -> String {
    String::from_utf8(control::error_payload(message, code)).unwrap()
}

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

// ---- any order ----

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Dialled(bool),
    Receive(u8, String),
    Noise(Vec<u8>),
    Written(usize),
    WriteFailed,
    Closed,
    Send(usize),
    Ping,
    Resume,
    Disconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let payload = prop_oneof![
        Just(register_reply("n1", 7)),
        Just(server_error("no", 500)),
        Just(server_error("Replaced by a newer connection", 409)),
        "[a-z]{0,20}"
    ];
    prop_oneof![
        4 => (0..30 * SECOND).prop_map(Step::Pass),
        4 => any::<bool>().prop_map(Step::Dialled),
        6 => (0u8..10, payload).prop_map(|(kind, payload)| Step::Receive(kind, payload)),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Step::Noise),
        4 => (0usize..3000).prop_map(Step::Written),
        1 => Just(Step::WriteFailed),
        1 => Just(Step::Closed),
        4 => (0usize..3000).prop_map(Step::Send),
        1 => Just(Step::Ping),
        2 => Just(Step::Resume),
        1 => Just(Step::Disconnect),
    ]
}

proptest! {
    /// A shell that does what it is told, a host that is sometimes full, and everything else in any order.
    #[test]
    fn every_connection_opens_and_closes_once_and_nothing_follows_the_end(
        steps in prop::collection::vec((step(), any::<bool>()), 0..200), seed: u64,
    ) {
        const OUTBOX: usize = 4000;
        let mut rig = Rig::seeded(ClientConfig { max_reconnect_attempts: 3, outbox_bytes: OUTBOX, ..settings() }, seed);
        let (mut is_open, mut is_finished) = (false, false);
        for (step, host_has_room) in steps {
            match step {
                Step::Pass(micros) => rig.pass(micros),
                Step::Dialled(true) => rig.machine.handle_connected(rig.now),
                Step::Dialled(false) => rig.machine.handle_connect_failed(ErrorCause::Refused, "in words".into(), rig.now),
                Step::Receive(kind, payload) if rig.machine.is_reading() => rig.receive(kind, 7, &payload),
                Step::Noise(bytes) if rig.machine.is_reading() => rig.machine.handle_bytes(&bytes),
                Step::Receive(..) | Step::Noise(_) => {}
                Step::Written(len) => rig.machine.handle_written(len.min(rig.machine.outbox().len()), rig.now),
                Step::WriteFailed => rig.machine.handle_write_failed(ErrorCause::Lost, "in words".into(), rig.now),
                Step::Closed if rig.machine.is_reading() => rig.machine.handle_closed(SocketEnd::Closed, rig.now),
                Step::Closed => {}
                Step::Send(len) => {
                    let sent = rig.machine.send(&vec![b'x'; len], 0, rig.now);
                    prop_assert!(sent.is_err() || rig.machine.is_connected());
                }
                Step::Ping => drop(rig.machine.ping(rig.now)),
                Step::Resume => rig.machine.resume(rig.now),
                Step::Disconnect => rig.machine.disconnect(rig.now),
            }
            rig.machine.handle_timeout(rig.now);
            if rig.machine.phase() == ClientPhase::HangUp {
                rig.machine.handle_closed(SocketEnd::Closed, rig.now);
            }
            while let Some(event) = rig.machine.poll_event(rig.now) {
                prop_assert!(!is_finished, "{event:?} after the end");
                match event {
                    ClientEvent::Connect => {
                        prop_assert!(!is_open);
                        is_open = true;
                    }
                    ClientEvent::Close { .. } => is_open = false,
                    ClientEvent::Finished => {
                        prop_assert!(!is_open);
                        is_finished = true;
                    }
                    ClientEvent::Error { code, .. } => prop_assert_eq!(code == 1, !is_open),
                    ClientEvent::Data { .. } if !host_has_room => {
                        rig.machine.stall(event);
                        prop_assert!(!rig.machine.is_reading());
                    }
                    _ => prop_assert!(is_open, "{event:?} without a connection"),
                }
            }
            prop_assert_eq!(is_finished, rig.machine.phase() == ClientPhase::Finished);
            prop_assert!(rig.machine.deadline().is_none_or(|deadline| deadline > rig.now.mono), "a deadline passed unnoticed");
            prop_assert!(rig.machine.outbox().len() <= OUTBOX + 500, "{} bytes wait", rig.machine.outbox().len());
            if matches!(rig.machine.phase(), ClientPhase::Dial | ClientPhase::Wait | ClientPhase::Finished) {
                prop_assert!(!rig.machine.is_connected() && rig.machine.outbox().is_empty());
            }
        }
    }
}

// ---- the second dialect ----

impl Rig {
    /// A client that agreed on v2 with its server.
    fn agreed() -> Self {
        let mut rig = Self::connected(modern());
        rig.receive(6, 0, &agreement("n1", 7, 2));
        assert!(matches!(rig.events()[..], [ClientEvent::Register { .. }]));
        assert_eq!(rig.written_raw(), v2_frame(17, 0, b""), "the server learns at once that v2 is spoken");
        rig
    }

    fn written_raw(&mut self) -> Vec<u8> {
        let bytes = self.machine.outbox().to_vec();
        self.machine.handle_written(bytes.len(), self.now);
        bytes
    }
}

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

// ---- many nodes ----

fn reply(rig: &mut Rig, node_id: &str, channel_id: u32) {
    rig.receive(6, 0, &register_reply(node_id, channel_id));
}

fn register(node_id: &str, channel_id: u32) -> ClientEvent {
    ClientEvent::Register { node_id: node_id.into(), channel_id }
}

fn lost(node_id: &str, channel_id: u32, code: i64) -> ClientEvent {
    ClientEvent::NodeLost { node_id: node_id.into(), channel_id, code, message: "why".into() }
}

/// Whom the REGISTERs among what is written name.
fn registers(rig: &mut Rig) -> Vec<String> {
    let registers = rig.written().into_iter().filter(|(frame_type, ..)| *frame_type == 6);
    registers.map(|(_, _, payload)| named(&payload)).collect()
}

fn named(payload: &str) -> String {
    control::parse_register(payload.as_bytes()).unwrap().node_id.unwrap()
}

/// n1 on channel 7 and others on 8, 9 and so on.
fn gateway(settings: ClientConfig, others: &[&str]) -> Rig {
    let mut rig = Rig::registered(settings);
    for (id, channel_id) in others.iter().zip(8..) {
        rig.machine.add_node(id, "[]").unwrap();
        assert_eq!(registers(&mut rig), [*id]);
        reply(&mut rig, id, channel_id);
        assert_eq!(rig.events(), [register(id, channel_id)]);
    }
    rig
}

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
    for id in ["n2", "n3", "n4"] {
        rig.machine.add_node(id, "[]").unwrap();
    }
    assert_eq!(registers(&mut rig), ["n2", "n3", "n4"]);
    rig.receive(8, 0, &server_error("why", 403));
    reply(&mut rig, "n3", 8);
    rig.receive(8, 0, &server_error("why", 400));
    assert_eq!(rig.events(), [lost("n2", 0, 403), register("n3", 8), lost("n4", 0, 400)]);
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

/// What may happen to a gateway, in any order.
#[derive(Clone, Debug)]
enum Happening {
    Add(u8),
    Remove(u8),
    /// The server handles so many frames, in order, and refuses or skips REGISTERs where it says so.
    Serve(Vec<Verdict>),
    /// Another client takes a node, or the server disconnects one.
    Take(u8, i64),
    Break,
    Pass,
}

#[derive(Clone, Copy, Debug)]
enum Verdict {
    Accept,
    Refuse,
    Skip,
}

fn happening() -> impl Strategy<Value = Happening> {
    let verdict = prop_oneof![6 => Just(Verdict::Accept), 1 => Just(Verdict::Refuse), 1 => Just(Verdict::Skip)];
    prop_oneof![
        6 => (2..8u8).prop_map(Happening::Add),
        3 => (2..8u8).prop_map(Happening::Remove),
        6 => prop::collection::vec(verdict, 1..6).prop_map(Happening::Serve),
        2 => ((1..8u8), prop_oneof![Just(403), Just(408), Just(409)]).prop_map(|(id, code)| Happening::Take(id, code)),
        1 => Just(Happening::Break),
        1 => Just(Happening::Pass),
    ]
}

/// A server that does what ours does with a connection's nodes.
#[derive(Default)]
struct Model {
    inbound: VecDeque<(u8, i64, String)>,
    nodes: BTreeMap<String, u32>,
    last_channel: u32,
}

impl Model {
    fn serve(&mut self, rig: &mut Rig, verdict: Verdict) {
        let Some((kind, channel_id, payload)) = self.inbound.pop_front() else { return };
        match (kind, verdict) {
            // Only a REGISTER: a goodbye that is skipped leaves the node with the server.
            (6, Verdict::Skip) => rig.receive(8, 0, &server_error("Rate limit exceeded", 429)),
            // Whom it has already it does not refuse.
            (6, Verdict::Refuse) if !self.nodes.contains_key(&named(&payload)) => rig.receive(8, 0, &server_error("why", 403)),
            (6, _) => {
                let id = named(&payload);
                self.last_channel += 1;
                let channel_id = *self.nodes.entry(id.clone()).or_insert(self.last_channel);
                reply(rig, &id, channel_id);
            }
            (7, _) => self.nodes.retain(|_, channel| i64::from(*channel) != channel_id),
            (1, _) => rig.receive(2, 0, ""),
            other => panic!("{other:?}"),
        }
    }

    /// True when that was the last node: the connection ends.
    fn take(&mut self, rig: &mut Rig, id: &str, code: i64) -> bool {
        let Some(channel_id) = self.nodes.remove(id) else { return false };
        let is_last = self.nodes.is_empty();
        if !is_last || code == 409 {
            rig.receive(8, if is_last { 0 } else { channel_id.into() }, &server_error("why", code));
        }
        is_last
    }
}

proptest! {
    /// Whatever happens: in the end the server has the nodes that the events told of and the program did not remove.
    #[test]
    fn client_and_server_agree_on_the_nodes_in_the_end(story in prop::collection::vec(happening(), 1..60)) {
        let mut rig = Rig::new(settings());
        let mut model = Model::default();
        // As the program knows it from its calls and the events.
        let mut told = BTreeMap::<String, u32>::new();
        let mut wanted = BTreeSet::from(["n1".to_owned()]);
        let (mut replaced, mut has_others) = (false, false);
        let ending = std::iter::repeat_n([Happening::Serve(vec![Verdict::Accept; 20]), Happening::Pass], 20).flatten();
        for happening in story.into_iter().chain(ending) {
            let mut is_broken = false;
            match happening {
                Happening::Add(n) => {
                    let id = format!("n{n}");
                    let added = rig.machine.add_node(&id, "[]");
                    has_others = true;
                    if rig.machine.phase() != ClientPhase::Finished {
                        prop_assert_eq!(added.is_ok(), wanted.insert(id));
                    }
                }
                Happening::Remove(n) => {
                    let id = format!("n{n}");
                    prop_assert_eq!(rig.machine.remove_node(&id).is_ok(), wanted.remove(&id));
                    told.remove(&id);
                }
                Happening::Serve(verdicts) => verdicts.into_iter().for_each(|verdict| model.serve(&mut rig, verdict)),
                Happening::Take(n, code) => is_broken = model.take(&mut rig, &format!("n{n}"), code),
                Happening::Break => is_broken = true,
                Happening::Pass => {
                    if rig.machine.phase() == ClientPhase::Open {
                        rig.pass_to_deadline();
                    }
                }
            }
            for event in rig.events() {
                match event {
                    ClientEvent::Register { node_id, channel_id } => drop(told.insert(node_id.to_string(), channel_id)),
                    ClientEvent::NodeLost { node_id, code, .. } => {
                        told.remove(&*node_id);
                        replaced |= &*node_id == "n1" && code == 409;
                        if &*node_id != "n1" || code == 409 {
                            prop_assert!(wanted.remove(&*node_id), "{} was lost twice", node_id);
                        }
                    }
                    // With one node this says it all.
                    ClientEvent::ServerError { code: 409, .. } if !has_others => wanted.clear(),
                    _ => {}
                }
            }
            if is_broken || rig.machine.phase() == ClientPhase::HangUp {
                rig.machine.handle_closed(SocketEnd::Closed, rig.now);
                rig.events();
            }
            if !rig.machine.is_connected() {
                told.clear();
                model.nodes.clear();
                model.inbound.clear();
            }
            if rig.machine.phase() == ClientPhase::Wait {
                rig.pass_to_deadline();
            }
            if rig.machine.phase() == ClientPhase::Dial {
                rig.machine.handle_connected(rig.now);
                rig.events();
            }
            if rig.machine.is_connected() {
                let written = rig.written();
                model.inbound.extend(written);
                prop_assert!(model.inbound.iter().filter(|frame| frame.0 == 6).count() <= 256);
            }
        }
        prop_assert_eq!(&told, &model.nodes);
        prop_assert_eq!(told.len(), if rig.machine.is_connected() { rig.machine.stats().nodes } else { 0 });
        let missing: Vec<_> = wanted.iter().filter(|id| !told.contains_key(*id)).collect();
        // The first one returns with the next connection only.
        prop_assert!(missing.iter().all(|id| *id == "n1") || rig.machine.phase() == ClientPhase::Finished, "{:?}", missing);
        prop_assert!(missing.is_empty() || !replaced || rig.machine.phase() == ClientPhase::Finished);
    }
}
