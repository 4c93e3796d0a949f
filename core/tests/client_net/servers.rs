//! Many clients, and servers of this engine.

use crate::rig::*;

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
