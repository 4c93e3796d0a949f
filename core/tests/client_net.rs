//! Clients over real sockets, against a server that the test plays itself, and against the real one.

mod support;

use heartbus_core::error::ErrorKind;
use heartbus_core::event::{ClientEvent, ClientEventMask, CloseReason, ErrorCause, Event, EventMask, FleetEvent};
use heartbus_core::inbox::Inbox;
use heartbus_core::net::client::{Client, Clients};
use heartbus_core::settings::{ClientConfig, InboxLimits, ServerConfig};
use heartbus_core::wire::control;
use socket2::SockRef;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{ErrorKind as Io, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Fixture, Peer, deadline, frame, hold_port};

/// Long enough that a reply is never late, however busy the machine is: a client hangs up one interval after a beat that
/// nothing followed.
const BEAT: Duration = Duration::from_secs(2);

/// A thread of clients, the port of the server that the test plays, and what the clients told.
struct Rig {
    clients: Clients,
    inbox: Arc<Inbox<FleetEvent>>,
    listener: TcpListener,
    events: RefCell<VecDeque<(u64, ClientEvent)>>,
}

impl Rig {
    fn new() -> Self {
        Self::with(InboxLimits::default(), "127.0.0.1:0")
    }

    fn with(limits: InboxLimits, listen: &str) -> Self {
        Self::over(TcpListener::bind(listen).unwrap(), limits)
    }

    fn over(listener: TcpListener, limits: InboxLimits) -> Self {
        let inbox = Inbox::new(limits).unwrap();
        inbox.subscribe(ClientEventMask::ALL);
        Self { clients: Clients::start(inbox.clone()).unwrap(), inbox, listener, events: RefCell::default() }
    }

    /// Heartbeats that do not disturb, quick reconnects.
    fn config(&self) -> ClientConfig {
        ClientConfig {
            port: self.listener.local_addr().unwrap().port(),
            heartbeat_interval: Duration::from_secs(3600),
            reconnect_interval: Duration::from_millis(1),
            ..ClientConfig::default()
        }
    }

    fn connect(&self, config: ClientConfig) -> Client {
        self.clients.connect(config).unwrap()
    }

    fn accept(&self) -> Peer {
        self.listener.set_nonblocking(true).unwrap();
        let until = deadline();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Peer::over(stream);
                }
                Err(error) => assert_eq!(error.kind(), Io::WouldBlock),
            }
            assert!(Instant::now() < until, "no client connected");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Accepts a client and registers it on channel 7; returns its id as well.
    fn accept_registered(&self) -> (Peer, String) {
        let mut peer = self.accept();
        let register = peer.frame();
        assert_eq!(register.frame_type, 6);
        let id = control::parse_register(register.text().as_bytes()).unwrap().node_id.unwrap();
        let mut reply = Vec::new();
        control::write_register_reply(&mut reply, &id, 7, 0, 1);
        peer.send(6, 0, std::str::from_utf8(&reply).unwrap());
        (peer, id)
    }

    /// A client that is connected and registered, with everything told of that taken.
    fn registered(&self, config: ClientConfig) -> (Client, Peer) {
        let client = self.connect(config);
        let (peer, _) = self.accept_registered();
        assert_eq!(self.event(&client), ClientEvent::Connect);
        assert!(matches!(self.event(&client), ClientEvent::Register { .. }));
        (client, peer)
    }

    fn any_event(&self) -> (u64, ClientEvent) {
        let until = deadline();
        loop {
            if let Some(event) = self.events.borrow_mut().pop_front() {
                return event;
            }
            let mut drained = VecDeque::new();
            self.inbox.drain(&mut drained, 64);
            self.events.borrow_mut().extend(drained.into_iter().map(|told| (told.client_id, told.event)));
            assert!(Instant::now() < until, "waited in vain for an event");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn event(&self, client: &Client) -> ClientEvent {
        let (id, event) = self.any_event();
        assert_eq!(id, client.id());
        event
    }

    fn expect(&self, client: &Client, events: &[ClientEvent]) {
        for event in events {
            assert_eq!(self.event(client), *event);
        }
    }

    /// A server that closes with something unread resets the connection.
    fn expect_close(&self, client: &Client) {
        let event = self.event(client);
        assert!(matches!(event, ClientEvent::Close { reason: CloseReason::PeerClosed | CloseReason::IoError, .. }), "{event:?}");
    }

    fn expect_nobody(&self) {
        self.listener.set_nonblocking(true).unwrap();
        assert_eq!(self.listener.accept().unwrap_err().kind(), Io::WouldBlock);
    }
}

fn closed(reason: CloseReason) -> ClientEvent {
    ClientEvent::Close { reason, detail: String::new() }
}

fn closed_saying(reason: CloseReason, detail: &str) -> ClientEvent {
    ClientEvent::Close { reason, detail: detail.to_owned() }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let until = deadline();
    while !condition() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn server_error(message: &str, code: i64) -> String {
    String::from_utf8(control::error_payload(message, code)).unwrap()
}

// ---- the ordinary life ----

#[test]
fn a_client_registers_and_then_beats() {
    let rig = Rig::new();
    let client = rig.connect(ClientConfig {
        node_id: Some("n1".into()),
        metadata: r#"{"v":"1.0"}"#.into(),
        heartbeat_interval: BEAT,
        ..rig.config()
    });
    let mut peer = rig.accept();
    let register = peer.frame();
    assert_eq!((register.frame_type, register.channel_id), (6, 0));
    assert!(register.text().starts_with(r#"{"node_id":"n1","metadata":{"v":"1.0"},"timestamp":"#), "{}", register.text());
    rig.expect(&client, &[ClientEvent::Connect]);
    assert!(client.is_connected());
    assert_eq!((client.node_id(), client.channel_id()), (None, None));
    assert_eq!(client.send(b"too early", 0).unwrap_err().kind, ErrorKind::Closed);
    peer.send(6, 0, r#"{"node_id":"n1","metadata":{"channel_id":7,"status":"ok","server_time":1},"timestamp":1}"#);
    rig.expect(&client, &[ClientEvent::Register { node_id: "n1".into(), channel_id: 7 }]);
    assert_eq!((client.node_id().as_deref(), client.channel_id()), (Some("n1"), Some(7)));
    for _ in 0..2 {
        let beat = peer.frame();
        assert_eq!(beat.frame_type, 1);
        assert!(beat.text().starts_with(r#"{"timestamp":"#));
        peer.send(2, 0, r#"{"timestamp":1}"#);
        rig.expect(&client, &[ClientEvent::Heartbeat { count: 1 }]);
    }
    let stats = client.stats();
    assert!(stats.connected && stats.messages_sent >= 2 && stats.messages_received == 3, "{stats:?}");
}

#[test]
fn data_pings_and_errors_cross_in_both_directions() {
    let rig = Rig::new();
    let (client, mut peer) = rig.registered(rig.config());
    client.send("é/up".as_bytes(), 0).unwrap();
    client.send(b"elsewhere", 9).unwrap();
    client.ping().unwrap();
    let got = [peer.frame(), peer.frame(), peer.frame()].map(|frame| (frame.frame_type, frame.channel_id, frame.text()));
    assert_eq!(got, [(3, 7, "é/up".into()), (3, 9, "elsewhere".into()), (4, 0, String::new())]);
    assert_eq!(client.send(b"\xff", 0).unwrap_err().kind, ErrorKind::InvalidArgument);
    assert_eq!(client.send(&vec![b'x'; 10_485_761], 0).unwrap_err().kind, ErrorKind::Limit);
    let mut glued = frame(5, 0, "");
    glued.extend(frame(3, 7, "down"));
    glued.extend(frame(8, 0, "no json"));
    peer.raw(&glued[..30]);
    peer.raw(&glued[30..]);
    rig.expect(
        &client,
        &[
            ClientEvent::Pong,
            ClientEvent::Data { payload: "down".into(), channel_id: 7, node_id: client.node_id() },
            ClientEvent::ServerError { raw: "no json".into(), code: 0, message: String::new() },
        ],
    );
    assert_eq!((client.stats().messages_sent, client.stats().messages_received), (3, 4));
}

#[test]
fn a_large_message_arrives_whole_in_both_directions() {
    let rig = Rig::new();
    let (client, mut peer) = rig.registered(rig.config());
    let text = "0123456789".repeat(1_000_000);
    client.send(text.as_bytes(), 0).unwrap();
    assert_eq!(peer.frame().text(), text);
    let down = frame(3, 7, &text);
    let mut writing = peer.take();
    let writer = std::thread::spawn(move || writing.raw(&down));
    let ClientEvent::Data { payload, .. } = rig.event(&client) else { panic!("no data") };
    assert!(payload == text.as_bytes());
    writer.join().unwrap();
}

#[test]
fn ipv6_addresses_and_host_names_are_dialled() {
    let rig = match TcpListener::bind("[::1]:0") {
        Ok(_) => Rig::with(InboxLimits::default(), "[::1]:0"),
        Err(error) => return eprintln!("not tested, no IPv6 here: {error}"),
    };
    for host in ["::1", "[::1]"] {
        let (client, _peer) = rig.registered(ClientConfig { host: host.into(), ..rig.config() });
        drop(client);
        assert_eq!([rig.any_event().1, rig.any_event().1], [closed(CloseReason::Disconnected), ClientEvent::Finished]);
    }
    let rig = Rig::new();
    rig.registered(ClientConfig { host: "localhost".into(), ..rig.config() });
}

// ---- reconnecting ----

#[test]
fn a_client_that_made_up_its_id_keeps_it_over_reconnects() {
    let rig = Rig::new();
    let client = rig.connect(rig.config());
    let mut ids = HashSet::new();
    for _ in 0..3 {
        let (peer, id) = rig.accept_registered();
        rig.expect(&client, &[ClientEvent::Connect, ClientEvent::Register { node_id: id.as_str().into(), channel_id: 7 }]);
        assert!(id.starts_with("client_"), "{id}");
        ids.insert(id);
        drop(peer);
        rig.expect(&client, &[closed(CloseReason::PeerClosed)]);
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    let other = rig.connect(rig.config());
    let seen = [rig.accept_registered().1, rig.accept_registered().1];
    assert!(seen.iter().any(|id| !ids.contains(id)), "another client is another node: {seen:?}");
    drop(other);
}

#[test]
fn a_refused_connection_is_an_error_and_a_close_until_the_server_is_there() {
    // The port is this test's, and nobody listens yet.
    let port = hold_port((Ipv4Addr::LOCALHOST, 0).into());
    let rig = Rig::over(port.into(), InboxLimits::default());
    let address = rig.listener.local_addr().unwrap();
    let client = rig.connect(rig.config());
    for _ in 0..2 {
        let ClientEvent::Error { code: 1, message, cause } = rig.event(&client) else { panic!("no error") };
        let rest = message.strip_prefix(&format!("connect {address} fail after ")).unwrap_or_else(|| panic!("{message}"));
        let seconds: f64 = rest.strip_suffix(" seconds").and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{message}"));
        assert!((0.0..20.0).contains(&seconds), "{message}");
        assert_eq!(cause, ErrorCause::Refused);
        let ClientEvent::Close { reason: CloseReason::ConnectFailed, detail } = rig.event(&client) else { panic!("no close") };
        assert!(detail.contains("refused"), "{detail}");
    }
    assert!(client.stats().reconnect_attempts >= 2 && !client.is_connected());
    SockRef::from(&rig.listener).listen(8).unwrap();
    rig.accept_registered();
    until("the registration", || client.node_id().is_some());
}

#[test]
fn a_name_that_cannot_be_resolved_is_an_error_and_a_close() {
    let rig = Rig::new();
    let host = "no-such-host.invalid".to_owned();
    let client = rig.connect(ClientConfig { host, auto_reconnect: false, ..rig.config() });
    let ClientEvent::Error { code: 1, message, cause } = rig.event(&client) else { panic!("no error") };
    assert!(message.starts_with("connect no-such-host.invalid:"), "{message}");
    assert_eq!(cause, ErrorCause::NoSuchHost);
    assert!(matches!(rig.event(&client), ClientEvent::Close { reason: CloseReason::ConnectFailed, .. }));
    rig.expect(&client, &[ClientEvent::Finished]);
    assert_eq!(rig.clients.count(), 0);
}

#[test]
fn a_client_gives_up_after_the_attempts_it_has() {
    let rig = Rig::new();
    let client = rig.connect(ClientConfig { max_reconnect_attempts: 2, ..rig.config() });
    for _ in 0..3 {
        drop(rig.accept());
        rig.expect(&client, &[ClientEvent::Connect]);
        rig.expect_close(&client);
    }
    rig.expect(&client, &[ClientEvent::Finished]);
    rig.expect_nobody();
    assert_eq!(client.send(b"x", 0).unwrap_err().kind, ErrorKind::Closed);
}

#[test]
fn a_server_that_accepts_and_then_says_nothing_is_left_and_tried_again() {
    let rig = Rig::new();
    let client = rig.connect(ClientConfig { heartbeat_interval: BEAT, ..rig.config() });
    let (mut peer, id) = rig.accept_registered();
    rig.expect(&client, &[ClientEvent::Connect, ClientEvent::Register { node_id: id.as_str().into(), channel_id: 7 }]);
    assert_eq!(peer.frame().frame_type, 1);
    peer.expect_end();
    rig.expect(&client, &[closed_saying(CloseReason::HeartbeatTimeout, "no heartbeat reply")]);
    assert_eq!(rig.accept_registered().1, id);
}

#[test]
fn a_stream_that_is_no_stream_of_frames_is_left() {
    let rig = Rig::new();
    let (client, mut peer) = rig.registered(rig.config());
    peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    peer.skip_until_end();
    let ClientEvent::Close { reason: CloseReason::BrokenStream, detail } = rig.event(&client) else { panic!("no close") };
    assert_eq!(detail, "Invalid message magic: 0x4854");
    rig.accept();
}

#[test]
fn a_replaced_client_does_not_come_back() {
    let rig = Rig::new();
    let (client, mut peer) = rig.registered(rig.config());
    let text = server_error("Replaced by a newer connection", 409);
    peer.send(8, 0, &text);
    peer.expect_end();
    let message = "Replaced by a newer connection".to_owned();
    rig.expect(
        &client,
        &[
            ClientEvent::ServerError { raw: text.into(), code: 409, message },
            closed_saying(CloseReason::Replaced, "Replaced by a newer connection"),
            ClientEvent::Finished,
        ],
    );
    assert_eq!(rig.clients.count(), 0);
    rig.expect_nobody();
}

#[test]
fn a_reset_connection_still_tells_what_the_server_said_before() {
    let rig = Rig::new();
    let (client, mut peer) = rig.registered(rig.config());
    // Unread bytes make the close a reset, and the client writes into it.
    client.send(b"never read", 0).unwrap();
    until("the bytes to arrive", || peer.stream.peek(&mut [0; 8]).unwrap() > 0);
    peer.send(8, 0, &server_error("Replaced by a newer connection", 409));
    drop(peer);
    loop {
        match rig.event(&client) {
            ClientEvent::Finished => break,
            ClientEvent::ServerError { code: 409, .. } | ClientEvent::Close { .. } | ClientEvent::Error { code: 2, .. } => {}
            other => panic!("{other:?}"),
        }
    }
    rig.expect_nobody();
}

// ---- leaving ----

#[test]
fn a_disconnect_writes_everything_says_goodbye_and_stays_away() {
    let rig = Rig::new();
    let (client, mut peer) = rig.registered(rig.config());
    let text = "x".repeat(900_000);
    client.send(text.as_bytes(), 0).unwrap();
    client.disconnect();
    assert!(!client.is_connected());
    assert_eq!(client.send(b"x", 0).unwrap_err().kind, ErrorKind::Closed);
    assert_eq!(peer.frame().text(), text);
    assert_eq!(peer.frame().frame_type, 7);
    peer.expect_end();
    peer.stream.shutdown(Shutdown::Both).unwrap();
    rig.expect(&client, &[closed(CloseReason::Disconnected), ClientEvent::Finished]);
    rig.expect_nobody();
    client.disconnect();
}

#[test]
fn dropping_a_client_is_a_polite_disconnect() {
    let rig = Rig::new();
    let (client, mut peer) = rig.registered(rig.config());
    client.ping().unwrap();
    drop(client);
    assert_eq!([peer.frame().frame_type, peer.frame().frame_type], [4, 7]);
    peer.expect_end();
    drop(peer);
    assert_eq!([rig.any_event().1, rig.any_event().1], [closed(CloseReason::Disconnected), ClientEvent::Finished]);
    assert_eq!(rig.clients.count(), 0);
    rig.expect_nobody();
}

#[test]
fn a_goodbye_ends_even_if_the_server_never_closes_its_side() {
    let rig = Rig::new();
    let (client, mut peer) = rig.registered(rig.config());
    client.disconnect();
    assert_eq!(peer.frame().frame_type, 7);
    rig.expect(&client, &[closed(CloseReason::Disconnected), ClientEvent::Finished]);
}

#[test]
fn a_client_can_be_disconnected_while_it_dials_or_waits() {
    let rig = Rig::new();
    // Nobody answers at this address of the documentation range; where the system says so at once, the client waits.
    let config = ClientConfig { host: "192.0.2.1".into(), reconnect_interval: Duration::from_secs(60), ..rig.config() };
    let client = rig.connect(config);
    client.disconnect();
    until("the end", || rig.any_event().1 == ClientEvent::Finished);
    assert_eq!(rig.clients.count(), 0);
    let client = rig.connect(ClientConfig { reconnect_interval: Duration::from_secs(60), ..rig.config() });
    drop(rig.accept());
    rig.expect(&client, &[ClientEvent::Connect]);
    rig.expect_close(&client);
    client.disconnect();
    // It may have come back before: it waits up to a minute, and perhaps no time at all.
    until("the end", || rig.any_event().1 == ClientEvent::Finished);
    assert_eq!(rig.clients.count(), 0);
}

#[test]
fn stop_says_goodbye_for_everybody_and_tells_the_end_of_everybody() {
    let rig = Rig::new();
    let (reading, mut peer) = rig.registered(rig.config());
    let (blocked, full_peer) = rig.registered(ClientConfig { outbox_bytes: 64 << 20, ..rig.config() });
    // This server reads nothing: the goodbye cannot be written.
    let message = vec![b'x'; 8 << 20];
    for _ in 0..4 {
        blocked.send(&message, 0).unwrap();
    }
    let waiting = rig.connect(ClientConfig { reconnect_interval: Duration::from_secs(60), ..rig.config() });
    drop(rig.accept());
    rig.expect(&waiting, &[ClientEvent::Connect]);
    rig.expect_close(&waiting);
    assert_eq!(rig.clients.count(), 3);
    let reader = std::thread::spawn(move || {
        let last = peer.frame().frame_type;
        peer.expect_end();
        last
    });
    rig.clients.stop();
    assert_eq!(reader.join().unwrap(), 7);
    let mut told: Vec<_> = std::iter::from_fn(|| {
        let mut one = VecDeque::new();
        (rig.inbox.drain(&mut one, 1) == 1).then(|| one.remove(0).unwrap())
    })
    .map(|told: FleetEvent| (told.client_id, told.event))
    .collect();
    told.sort_by_key(|(id, _)| *id);
    let of_waiting = told.split_off(told.partition_point(|(id, _)| *id != waiting.id()));
    let ends = |client: &Client| [(client.id(), closed(CloseReason::Disconnected)), (client.id(), ClientEvent::Finished)];
    assert_eq!(told, [ends(&reading), ends(&blocked)].concat());
    // It may have come back before: it waits up to a minute, and perhaps no time at all.
    assert_eq!(of_waiting.last().map(|(_, event)| event), Some(&ClientEvent::Finished), "{of_waiting:?}");
    assert_eq!(rig.clients.count(), 0);
    rig.clients.stop();
    assert_eq!(rig.clients.connect(rig.config()).err().unwrap().kind, ErrorKind::Closed);
    assert_eq!(reading.ping().unwrap_err().kind, ErrorKind::Closed);
    drop(full_peer);
}

#[test]
fn dropping_the_clients_stops_them_and_the_handles_stay_harmless() {
    let rig = Rig::new();
    let (client, mut peer) = rig.registered(rig.config());
    drop(rig.clients);
    assert_eq!(peer.frame().frame_type, 7);
    assert_eq!(client.send(b"x", 0).unwrap_err().kind, ErrorKind::Closed);
    client.disconnect();
    assert!(!client.is_connected());
}

// ---- bounds ----

#[test]
fn a_server_that_does_not_read_fills_the_outbox_and_no_more() {
    let rig = Rig::new();
    let (client, mut peer) = rig.registered(ClientConfig { outbox_bytes: 100_000, ..rig.config() });
    let message = vec![b'x'; 10_000];
    let mut accepted = 0;
    let error = loop {
        match client.send(&message, 0) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 10_000, "100 MB were accepted");
    };
    assert_eq!(error.kind, ErrorKind::Limit);
    assert!(client.is_connected());
    for _ in 0..accepted {
        assert_eq!(peer.frame().frame_type, 3);
    }
    client.send(b"there is room again", 0).unwrap();
    assert_eq!(peer.frame().text(), "there is room again");
    peer.send(5, 0, "");
    rig.expect(&client, &[ClientEvent::Pong]);
}

#[test]
fn a_full_inbox_stops_the_reading_but_not_the_life_of_a_client() {
    let rig = Rig::with(InboxLimits { events: 8, bytes: 1 << 20 }, "127.0.0.1:0");
    let (client, mut peer) = rig.registered(ClientConfig { heartbeat_interval: BEAT, ..rig.config() });
    let mut beats = peer.take();
    // Written until the sockets are full: then the client has stopped reading.
    let one = frame(3, 7, &"x".repeat(1000));
    peer.stream.set_nonblocking(true).unwrap();
    let mut written = 0;
    let mut still_full = 0;
    let until = deadline();
    while still_full < 20 || rig.inbox.stats().pauses == 0 {
        assert!(Instant::now() < until, "it never stopped reading");
        match peer.stream.write(&one[written % one.len()..]) {
            Ok(len) => (written, still_full) = (written + len, 0),
            Err(error) if error.kind() == Io::WouldBlock => {
                still_full += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(written < 1 << 30, "a gigabyte was taken from a host that takes nothing");
    }
    // No reply is read, and no beat is answered, yet the connection lives for several intervals.
    peer.stream.set_nonblocking(false).unwrap();
    for _ in 0..3 {
        assert_eq!(beats.frame().frame_type, 1);
    }
    assert!(client.is_connected());
    let rest = (one.len() - written % one.len()) % one.len();
    let mut writing = peer.take();
    let tail = one[one.len() - rest..].to_vec();
    let writer = std::thread::spawn(move || writing.raw(&tail));
    for n in 0..written.div_ceil(one.len()) {
        match rig.event(&client) {
            ClientEvent::Data { payload, channel_id: 7, .. } => assert_eq!(payload.len(), 1000),
            other => panic!("{other:?} instead of message {n}"),
        }
    }
    writer.join().unwrap();
}

#[test]
fn nothing_is_queued_for_a_host_that_subscribed_to_nothing() {
    let rig = Rig::new();
    rig.inbox.subscribe(ClientEventMask::NONE);
    let client = rig.connect(rig.config());
    let (mut peer, _) = rig.accept_registered();
    for _ in 0..10 {
        peer.send(3, 7, "x");
    }
    until("the data", || client.stats().messages_received == 11);
    assert_eq!(rig.inbox.stats().queued_events, 0);
}

#[test]
fn wrong_settings_are_refused_with_the_name_of_the_setting() {
    let rig = Rig::new();
    let too_long = format!("[\"{}\"]", "x".repeat(70_000));
    let wrong = [
        ("host", ClientConfig { host: String::new(), ..rig.config() }),
        ("port", ClientConfig { port: 0, ..rig.config() }),
        ("heartbeat_interval", ClientConfig { heartbeat_interval: Duration::ZERO, ..rig.config() }),
        ("reconnect_interval", ClientConfig { reconnect_interval: Duration::ZERO, ..rig.config() }),
        ("outbox_bytes", ClientConfig { outbox_bytes: 0, ..rig.config() }),
        ("max_nodes", ClientConfig { max_nodes: 0, ..rig.config() }),
        ("node_id", ClientConfig { node_id: Some(String::new()), ..rig.config() }),
        ("metadata", ClientConfig { metadata: too_long, ..rig.config() }),
    ];
    let no_json = ["", "12", "null", "{", r#"{"a":1"#, r#"{"a":1},"node_id":"other""#, r#"{}, "x":{}"#, "{}}"];
    let no_json = no_json.map(|text| ("metadata", ClientConfig { metadata: text.into(), ..rig.config() }));
    for (name, config) in wrong.into_iter().chain(no_json) {
        let error = rig.clients.connect(config.clone()).err().unwrap_or_else(|| panic!("{config:?} was taken"));
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(error.message.starts_with(name), "{error}");
    }
    assert_eq!(rig.clients.count(), 0);
    rig.expect_nobody();
    for metadata in ["[]", "{}", " {\"a\": [1, {}]}\n"] {
        rig.registered(ClientConfig { metadata: metadata.into(), ..rig.config() });
        assert_eq!([rig.any_event().1, rig.any_event().1], [closed(CloseReason::Disconnected), ClientEvent::Finished]);
    }
}

#[test]
fn the_thread_of_the_clients_takes_no_signal_and_ours_is_left_alone() {
    let blocked = |task: &str| {
        let status = std::fs::read_to_string(format!("{task}/status")).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap_or("0").trim().to_owned();
        u64::from_str_radix(&mask, 16).unwrap()
    };
    let before = blocked("/proc/thread-self");
    let rig = Rig::new();
    assert_eq!(blocked("/proc/thread-self"), before);
    // A name that must be looked up brings the resolver's threads as well.
    rig.registered(ClientConfig { host: "localhost".into(), ..rig.config() });
    let ours: Vec<_> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| task.unwrap().path().to_string_lossy().into_owned())
        .filter(|task| std::fs::read_to_string(format!("{task}/comm")).unwrap_or_default().starts_with("heartbus-"))
        .collect();
    assert!(!ours.is_empty());
    for task in ours {
        // INT, TERM, QUIT, HUP, USR1, USR2, CHLD, ALRM; KILL and STOP cannot be blocked.
        for signal in [2, 15, 3, 1, 10, 12, 17, 14] {
            // A thread of another test that is just ending has no status any more.
            let mask = blocked(&task);
            assert!(mask == 0 && !std::path::Path::new(&task).exists() || mask & 1 << (signal - 1) != 0, "{task}: {mask:x}");
        }
    }
}

// ---- many, and the real server ----

#[test]
fn many_clients_share_one_thread() {
    let server = Fixture::start_with(ServerConfig::default(), InboxLimits::default(), EventMask::NONE);
    let rig = Rig::new();
    let port = server.engine.local_addr().port();
    let config = ClientConfig { port, heartbeat_interval: BEAT, ..rig.config() };
    let clients: Vec<_> = (0..200).map(|_| rig.connect(config.clone())).collect();
    server.until("all to register", |stats| stats.nodes_online == 200);
    server.until("all to beat", |stats| stats.counts.heartbeats >= 200);
    until("all to hear of it", || clients.iter().all(|client| client.node_id().is_some()));
    let ids: HashSet<_> = clients.iter().filter_map(Client::node_id).collect();
    assert_eq!(ids.len(), 200);
    assert_eq!(rig.clients.count(), 200);
    rig.clients.stop();
    server.until("all to leave", |stats| stats.nodes_online == 0 && stats.connections_active == 0);
    assert_eq!(server.engine.stats().counts.unregisters, 200, "every goodbye arrived");
}

#[test]
fn client_and_server_of_this_engine_understand_each_other() {
    let server = Fixture::start(ServerConfig::default());
    let rig = Rig::new();
    let port = server.engine.local_addr().port();
    let config = ClientConfig { port, node_id: Some("both".into()), ..rig.config() };
    let client = rig.connect(config.clone());
    rig.expect(&client, &[ClientEvent::Connect]);
    let ClientEvent::Register { node_id, channel_id } = rig.event(&client) else { panic!("not registered") };
    assert_eq!((&*node_id, channel_id), ("both", server.engine.node("both").unwrap().channel_id()));
    client.send("hin é".as_bytes(), 0).unwrap();
    let Event::Data { payload, channel_id: arrived, .. } = server.event_where(|event| matches!(event, Event::Data { .. })) else {
        unreachable!()
    };
    assert_eq!((&payload[..], arrived), ("hin é".as_bytes(), channel_id));
    server.engine.send_to("both", b"her", 0).unwrap();
    rig.expect(&client, &[ClientEvent::Data { payload: "her".into(), channel_id: i64::from(channel_id), node_id: Some("both".into()) }]);
    // The newest connection wins, and the older one does not fight for its id.
    let newer = rig.connect(config);
    let finished = loop {
        if let (id, ClientEvent::Finished) = rig.any_event() {
            break id;
        }
    };
    assert_eq!(finished, client.id());
    assert!(newer.is_connected() && !client.is_connected());
    assert!(server.engine.node("both").is_some_and(|node| node.is_online()));
    newer.disconnect();
    server.until("the goodbye", |stats| stats.nodes_online == 0);
}

#[test]
fn clients_of_a_server_that_stopped_find_the_next_one() {
    let server = Fixture::start_with(ServerConfig::default(), InboxLimits::default(), EventMask::NONE);
    let address = server.engine.local_addr();
    let _held = hold_port(address);
    let rig = Rig::new();
    let client = rig.connect(ClientConfig { port: address.port(), ..rig.config() });
    until("the registration", || client.node_id().is_some());
    let id = client.node_id();
    drop(server);
    until("the loss", || !client.is_connected());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, address.port())).unwrap();
    let (stream, _): (TcpStream, _) = listener.accept().unwrap();
    let register = Peer::over(stream).frame().text();
    assert_eq!(control::parse_register(register.as_bytes()).unwrap().node_id.as_deref(), id.as_deref());
}

/// The event behind all others of a connection's life, and what the server had said before it.
fn end_of(rig: &Rig, client: &Client) -> (CloseReason, String) {
    match rig.event_where(client, |event| matches!(event, ClientEvent::Close { .. })) {
        ClientEvent::Close { reason, detail } => (reason, detail),
        _ => unreachable!(),
    }
}

#[test]
fn a_client_learns_from_its_server_why_its_connection_ended() {
    let config = ServerConfig { max_nodes: 1, register_timeout: Duration::from_millis(300), ..ServerConfig::default() };
    let server = Fixture::start(config);
    let rig = Rig::new();
    let port = server.engine.local_addr().port();
    let config = |id: &str| ClientConfig { port, node_id: Some(id.into()), auto_reconnect: false, ..rig.config() };
    // What came in v2 shows that the server has heard that it is spoken.
    let registered = |id: &str| {
        let client = rig.connect(config(id));
        rig.event_where(&client, |event| matches!(event, ClientEvent::Register { .. }));
        client.ping().unwrap();
        rig.event_where(&client, |event| *event == ClientEvent::Pong);
        client
    };
    let client = registered("a");
    server.engine.disconnect("a").unwrap();
    let error = rig.event_where(&client, |event| matches!(event, ClientEvent::ServerError { .. }));
    assert!(matches!(&error, ClientEvent::ServerError { code: 403, message, .. } if message == "Disconnected by the server"), "{error:?}");
    assert_eq!(end_of(&rig, &client), (CloseReason::Kicked, "Disconnected by the server".into()));

    let first = registered("a");
    let second = rig.connect(config("b"));
    assert_eq!(end_of(&rig, &second), (CloseReason::Refused, "Too many nodes on this server".into()));
    let newer = rig.connect(config("a"));
    assert_eq!(end_of(&rig, &first), (CloseReason::Replaced, "Replaced by a newer connection".into()));
    until("the registration of the newer one", || newer.channel_id().is_some());
    server.engine.set_heartbeat_timeout(Duration::from_secs(3)).unwrap();
    newer.disconnect();
    assert_eq!(end_of(&rig, &newer), (CloseReason::Disconnected, String::new()));
    let silent = registered("a");
    assert_eq!(end_of(&rig, &silent), (CloseReason::HeartbeatTimeout, "Node timed out".into()));
    server.engine.set_heartbeat_timeout(Duration::from_secs(30)).unwrap();
    let last = registered("a");
    server.engine.stop();
    assert_eq!(end_of(&rig, &last), (CloseReason::ServerStopped, "Server is shutting down".into()));
}

#[test]
fn a_client_that_finds_no_place_is_told_so() {
    let server = Fixture::start(ServerConfig { max_connections: 1, ..ServerConfig::default() });
    let rig = Rig::new();
    let port = server.engine.local_addr().port();
    let _first = server.register("first");
    let client = rig.connect(ClientConfig { port, auto_reconnect: false, ..rig.config() });
    // Its REGISTER may reach the server too late to be read, and reset the connection.
    let (reason, _) = end_of(&rig, &client);
    assert_eq!(reason, CloseReason::ServerFull);
}

#[test]
fn a_reset_is_told_as_one() {
    let rig = Rig::new();
    let (client, peer) = rig.registered(rig.config());
    SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    let (reason, detail) = end_of(&rig, &client);
    assert_eq!(reason, CloseReason::IoError);
    assert!(detail.contains("reset"), "{detail}");
}

// ---- many nodes over one connection ----

impl Rig {
    /// Waits until the client told of as many registrations, and returns which channel each node has.
    fn registrations(&self, client: &Client, count: usize) -> HashMap<String, u32> {
        let mut channels = HashMap::new();
        while channels.len() < count {
            if let ClientEvent::Register { node_id, channel_id } = self.event(client) {
                channels.insert(node_id.to_string(), channel_id);
            }
        }
        channels
    }

    fn event_where(&self, client: &Client, wanted: impl Fn(&ClientEvent) -> bool) -> ClientEvent {
        loop {
            let (id, event) = self.any_event();
            if id == client.id() && wanted(&event) {
                return event;
            }
        }
    }
}

#[test]
fn a_thousand_nodes_live_over_one_connection_and_return_after_a_restart() {
    let server = Fixture::start_with(ServerConfig::default(), InboxLimits::default(), EventMask::DATA);
    let address = server.engine.local_addr();
    let _held = hold_port(address);
    let rig = Rig::new();
    let client = rig.connect(ClientConfig { port: address.port(), node_id: Some("gateway".into()), ..rig.config() });
    let ids: Vec<_> = (1..1_000).map(|n| format!("device-{n}")).collect();
    for id in &ids {
        client.add_node(id, r#"{"kind":"lamp"}"#).unwrap();
    }
    let channels = rig.registrations(&client, 1_000);
    assert_eq!(channels.values().collect::<HashSet<_>>().len(), 1_000, "each has its own");
    let stats = server.engine.stats();
    assert_eq!((stats.nodes_online, stats.connections_active, client.stats().nodes), (1_000, 1, 1_000));
    assert_eq!(&*server.engine.node("device-7").unwrap().metadata(), r#"{"kind":"lamp"}"#);

    // Each gets its own, and says its own.
    for (id, channel_id) in &channels {
        assert_eq!(server.engine.node(id).unwrap().channel_id(), *channel_id);
        server.engine.send_to(id, id.as_bytes(), 0).unwrap();
    }
    for _ in 0..1_000 {
        let ClientEvent::Data { payload, channel_id, node_id } = rig.event(&client) else { panic!("no data") };
        assert_eq!((i64::from(channels[std::str::from_utf8(&payload).unwrap()]), node_id.unwrap().as_bytes()), (channel_id, &payload[..]));
    }
    for id in &ids {
        client.send_from(id, id.as_bytes()).unwrap();
    }
    for _ in &ids {
        let Event::Data { node, payload, .. } = server.event() else { unreachable!() };
        assert_eq!(node.id().as_bytes(), &payload[..]);
    }

    // One goes, one is taken by another client, one is disconnected: the others stay.
    client.remove_node("device-1").unwrap();
    assert_eq!(client.remove_node("device-1").unwrap_err().kind, ErrorKind::NotFound);
    server.until("the goodbye", |stats| stats.nodes_online == 999);
    let other = rig.connect(ClientConfig { port: address.port(), node_id: Some("device-2".into()), ..rig.config() });
    let lost = rig.event_where(&client, |event| matches!(event, ClientEvent::NodeLost { .. }));
    let message = "Replaced by a newer connection".to_owned();
    assert_eq!(lost, ClientEvent::NodeLost { node_id: "device-2".into(), channel_id: channels["device-2"], code: 409, message });
    server.engine.disconnect("device-3").unwrap();
    let lost = rig.event_where(&client, |event| matches!(event, ClientEvent::NodeLost { .. }));
    let message = "Disconnected by the server".to_owned();
    assert_eq!(lost, ClientEvent::NodeLost { node_id: "device-3".into(), channel_id: channels["device-3"], code: 403, message });
    until("the other client", || other.node_id().is_some());
    assert!(client.is_connected() && client.stats().nodes == 997, "{:?}", client.stats());
    other.disconnect();

    // The server starts anew: all that are left come back by themselves.
    drop(server);
    rig.event_where(&client, |event| matches!(event, ClientEvent::Close { .. }));
    let inbox = Inbox::new(InboxLimits::default()).unwrap();
    let config = ServerConfig { host: "127.0.0.1".into(), port: address.port(), ..ServerConfig::default() };
    let again = heartbus_core::engine::Engine::start(&config, inbox).unwrap();
    let mut returned = HashMap::new();
    while returned.len() < 997 {
        if let (id, ClientEvent::Register { node_id, channel_id }) = rig.any_event() {
            assert_eq!(id, client.id());
            returned.insert(node_id.to_string(), channel_id);
        }
    }
    for (id, channel_id) in &returned {
        assert_eq!(again.node(id).unwrap().channel_id(), *channel_id);
    }
    assert!(["device-1", "device-2", "device-3"].iter().all(|id| !returned.contains_key(*id)));
    client.disconnect();
    until("the goodbye of all", || again.stats().nodes_online == 0);
    assert_eq!(again.stats().counts.unregisters, 1);
}

#[test]
fn a_gateway_says_itself_which_of_its_devices_are_alive() {
    let config = ServerConfig { heartbeat_timeout: Duration::from_secs(5), ..ServerConfig::default() };
    let server = Fixture::start_with(config, InboxLimits::default(), EventMask::NONE);
    let rig = Rig::new();
    let port = server.engine.local_addr().port();
    let config = ClientConfig { port, node_id: Some("gateway".into()), heartbeat_interval: BEAT, ..rig.config() };
    let client = rig.connect(ClientConfig { heartbeat_all: false, ..config.clone() });
    let all = rig.connect(ClientConfig { node_id: Some("caring".into()), ..config });
    client.add_node("alive", "[]").unwrap();
    client.add_node("silent", "[]").unwrap();
    all.add_node("cared for", "[]").unwrap();
    let until = deadline();
    let lost = loop {
        // Until the silent one is gone; refused while it is not registered yet.
        let _ = client.heartbeat("alive");
        match rig.any_event() {
            (_, ClientEvent::NodeLost { node_id, code, .. }) if &*node_id == "silent" => break code,
            (_, ClientEvent::NodeLost { node_id, .. }) => panic!("{node_id} was lost"),
            _ => assert!(Instant::now() < until, "nobody was lost"),
        }
    };
    assert_eq!(lost, 408);
    assert!(["gateway", "alive", "caring", "cared for"].iter().all(|id| server.engine.node(id).is_some_and(|node| node.is_online())));
    assert_eq!(client.heartbeat("silent").unwrap_err().kind, ErrorKind::NotFound);
    client.add_node("silent", "[]").unwrap();
    rig.event_where(&client, |event| matches!(event, ClientEvent::Register { node_id, .. } if &**node_id == "silent"));
}

#[test]
fn a_client_takes_no_more_nodes_than_it_may() {
    // Nobody answers, so that it loses none of them meanwhile.
    let rig = Rig::new();
    let client = rig.connect(ClientConfig { max_nodes: 3, ..rig.config() });
    client.add_node("a", "[]").unwrap();
    client.add_node("b", "[]").unwrap();
    let error = client.add_node("c", "[]").unwrap_err();
    assert_eq!((error.kind, &*error.message), (ErrorKind::Limit, "The client has as many nodes as it may"));
}

#[test]
fn nodes_that_the_server_refuses_are_told_and_the_others_are_served() {
    let config = ServerConfig { max_nodes_per_connection: 3, ..ServerConfig::default() };
    let server = Fixture::start_with(config, InboxLimits::default(), EventMask::NONE);
    let rig = Rig::new();
    let port = server.engine.local_addr().port();
    let client = rig.connect(ClientConfig { port, node_id: Some("gateway".into()), ..rig.config() });
    for id in ["a", "b", "c", "d"] {
        client.add_node(id, "[]").unwrap();
    }
    let (mut registered, mut refused) = (Vec::new(), Vec::new());
    while registered.len() + refused.len() < 5 {
        match rig.event(&client) {
            ClientEvent::Register { node_id, .. } => registered.push(node_id.to_string()),
            ClientEvent::NodeLost { node_id, channel_id: 0, code: 403, message } if message == "Too many nodes on this connection" => {
                refused.push(node_id.to_string());
            }
            ClientEvent::Connect => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((registered.join(" "), refused.join(" ")), ("gateway a b".to_owned(), "c d".to_owned()));
    client.remove_node("a").unwrap();
    client.add_node("c", "[]").unwrap();
    rig.expect(&client, &[ClientEvent::Register { node_id: "c".into(), channel_id: server_channel(&server, "c") }]);
    for (id, metadata) in [("", "[]"), (&*"x".repeat(256), "[]"), ("ok", "12"), ("ok", "{"), ("a\0", ""), ("b", "[]"), ("gateway", "[]")] {
        assert_eq!(client.add_node(id, metadata).unwrap_err().kind, ErrorKind::InvalidArgument, "{id} {metadata}");
    }
    assert_eq!(client.remove_node("gateway").unwrap_err().kind, ErrorKind::InvalidArgument);
    assert_eq!(client.send_from("d", b"x").unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(client.send(b"x", 77).unwrap_err().kind, ErrorKind::NotFound);
    client.disconnect();
    assert_eq!(client.add_node("late", "[]").unwrap_err().kind, ErrorKind::Closed);
}

fn server_channel(server: &Fixture, id: &str) -> u32 {
    let found = RefCell::new(0);
    until("the node", || {
        let node = server.engine.node(id);
        *found.borrow_mut() = node.as_ref().map_or(0, |node| node.channel_id());
        node.is_some()
    });
    found.into_inner()
}

#[test]
fn a_rate_limit_of_the_server_only_slows_the_registering_down() {
    use heartbus_core::settings::{RateLimit, RateLimitBy};
    let rate_limit = Some(RateLimit { capacity: 20, refill_per_second: 40.0, by: RateLimitBy::Connection });
    let server = Fixture::start_with(ServerConfig { rate_limit, ..ServerConfig::default() }, InboxLimits::default(), EventMask::NONE);
    let rig = Rig::new();
    let client = rig.connect(ClientConfig { port: server.engine.local_addr().port(), ..rig.config() });
    for n in 1..100 {
        client.add_node(&format!("device-{n}"), "[]").unwrap();
    }
    assert_eq!(rig.registrations(&client, 100).len(), 100);
    assert!(server.engine.stats().counts.rate_limited > 0, "the limit was met");
    assert_eq!((server.engine.stats().nodes_online, client.stats().nodes), (100, 100));
}
