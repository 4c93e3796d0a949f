//! Many nodes over one connection.

use crate::rig::*;

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
