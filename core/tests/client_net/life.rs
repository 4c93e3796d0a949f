//! The ordinary life of a client, its reconnects and its end.

use crate::rig::*;

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
