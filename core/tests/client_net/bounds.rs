//! What a client keeps, takes and refuses.

use crate::rig::*;

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

#[test]
fn clients_that_keep_too_much_together_lose_the_one_that_keeps_most_and_it_comes_back() {
    let rig = Rig::new();
    let config = || ClientConfig { total_buffer_bytes: 3 << 20, ..rig.config() };
    // Frames that never get whole.
    let begin = |peer: &mut Peer, len: usize| {
        let whole = frame(3, 7, &"x".repeat(4 << 20));
        peer.raw(&whole[..len]);
    };
    let until = |what: &str, condition: &dyn Fn() -> bool| {
        let until = deadline();
        while !condition() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let (bystander, mut server) = rig.registered(config());
    let (small, mut small_server) = rig.registered(config());
    begin(&mut small_server, 300_000);
    until("the first part was not kept", &|| small.stats().bytes_kept >= 300_000);
    let (large, mut large_server) = rig.registered(config());
    begin(&mut large_server, 1_200_000);
    until("the second part was not kept", &|| large.stats().bytes_kept >= 1_200_000);
    assert_eq!(rig.clients.bytes_kept() as u64, small.stats().bytes_kept + large.stats().bytes_kept);
    assert!(large.is_connected(), "both together are within the bound");

    // It grows, and another one goes: whoever keeps most.
    let (other, mut other_server) = rig.registered(config());
    begin(&mut other_server, 900_000);
    let closed = rig.event(&large);
    assert!(matches!(&closed, ClientEvent::Close { reason: CloseReason::SlowConsumer, detail } if !detail.is_empty()), "{closed:?}");
    let (_peer, _) = rig.accept_registered();
    rig.expect(&large, &[ClientEvent::Connect]);
    until("what it kept is gone", &|| rig.clients.bytes_kept() < 3 << 20 && large.stats().bytes_kept < 100_000);
    for (client, peer) in [(&bystander, &mut server), (&small, &mut small_server), (&other, &mut other_server)] {
        assert!(client.is_connected());
        client.send(b"still here", 0).unwrap();
        assert_eq!(peer.frame().text(), "still here");
    }
    drop((bystander, small, large, other));
    until("nobody is left", &|| rig.clients.count() == 0 && rig.clients.bytes_kept() == 0);
}
