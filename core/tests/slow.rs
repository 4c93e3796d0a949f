//! Peers that read late, little or nothing at all: what waits for them, what they are told, and when they have to go.

mod support;

use heartbus_core::error::ErrorKind;
use heartbus_core::event::{CloseReason, Event, EventMask, Fill};
use heartbus_core::settings::{InboxLimits, ServerConfig, SlowConsumer};
use heartbus_core::wire::Dialect;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use support::*;

/// Returns when the sockets were tried with all that was pushed before: until then it is a burst, which may find room yet. A thread
/// answers this question behind its mail; the first answer may have been on its way already.
fn let_the_thread_try(server: &Fixture) {
    for _ in 0..2 {
        server.engine.connections(1);
    }
}

/// A node whose side of the connection takes little before it reads.
fn narrow(server: &Fixture, id: &str, protocol: u32) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(&server.engine.local_addr().into()).unwrap();
    let mut peer = Peer::over(socket.into());
    peer.send(6, 0, &format!(r#"{{"node_id":"{id}","protocol":{protocol}}}"#));
    assert_eq!(peer.frame().frame_type, 6);
    peer
}

#[test]
fn a_full_outbox_refuses_pushes_and_who_takes_nothing_of_it_for_too_long_is_closed() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let config = ServerConfig { outbox_bytes: 64 * 1024, slow_consumer_timeout: TIMEOUT, ..ServerConfig::default() };
    let server = Fixture::start(config);
    let _idle = server.register("idle");
    let mut slow = server.register("slow");
    let began = Instant::now();
    // Its own requests: PONGs drained up until the server stops reading.
    slow.ping_until_paused(&server);
    // Pushes are refused, one and the next, and nothing else happens before the time is up.
    let mut refusals = 0;
    while refusals < 2 {
        match server.engine.send_to("slow", &[b'x'; 10_000], 0) {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::Limit => refusals += 1,
            Err(error) => {
                assert!(began.elapsed() >= TIMEOUT, "{error}");
                break;
            }
        }
    }
    server.until("the slow consumer to be closed", |stats| stats.connections_active == 1 && stats.buffered_bytes == 0);
    assert!(began.elapsed() >= TIMEOUT);
    assert_eq!(server.engine.stats().counts.slow_consumers, 1);
    assert!(server.engine.node("idle").is_some());
    let closed = server.event_where(|event| matches!(event, Event::Close { .. }));
    assert!(matches!(closed, Event::Close { reason: CloseReason::SlowConsumer, .. }));
}

#[test]
fn with_the_policy_to_drop_a_slow_reader_stays_and_goes_on_when_it_reads() {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let drop = SlowConsumer::Drop;
    let config = ServerConfig { outbox_bytes: 64 * 1024, slow_consumer: drop, slow_consumer_timeout: TIMEOUT, ..ServerConfig::default() };
    let server = Fixture::start(config);
    let mut slow = server.register("slow");
    let mut sent = 0;
    // Refused until long after the others would have been closed.
    let mut full_since = None;
    while full_since.is_none_or(|since: Instant| since.elapsed() < 5 * TIMEOUT) {
        match server.engine.send_to("slow", &[b'x'; 10_000], 0) {
            Ok(()) => sent += 1,
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Limit);
                full_since.get_or_insert_with(Instant::now);
            }
        }
    }
    assert!(server.engine.stats().counts.data_out_refused >= 1);
    for _ in 0..sent {
        assert_eq!(slow.frame().text().len(), 10_000);
    }
    server.until("the outbox to be empty", |stats| stats.buffered_bytes == 0);
    server.engine.send_to("slow", b"again", 0).unwrap();
    assert_eq!(slow.frame().text(), "again");
}

#[test]
fn who_takes_a_little_now_and_then_is_slow_and_stays() {
    let mut timeout = Duration::from_millis(300);
    loop {
        let server = Fixture::start(ServerConfig { slow_consumer_timeout: timeout, ..ServerConfig::default() });
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.connect(&server.engine.local_addr().into()).unwrap();
        let mut slow = Peer::over(socket.into());
        slow.send(6, 0, r#"{"node_id":"slow"}"#);
        slow.frame();
        while server.engine.send_to("slow", &[b'x'; 10_000], 0).is_ok() {}
        let began = Instant::now();
        let (mut last, mut longest) = (began, Duration::ZERO);
        // What it takes is far less than what has to be free before the system says that there is room.
        while began.elapsed() < 5 * timeout && server.engine.node("slow").is_some() {
            assert!(slow.stream.read(&mut [0; 8 * 1024]).unwrap() > 0);
            longest = longest.max(last.elapsed());
            last = Instant::now();
            std::thread::sleep(timeout / 10);
        }
        if server.engine.node("slow").is_some() {
            let waiting: usize = server.engine.connections(1).iter().map(|found| found.bytes_waiting_out).sum();
            assert!(waiting > 0, "all was taken");
            return;
        }
        assert!(longest > timeout / 2, "closed, although it took something each {longest:?}");
        // This thread was held up.
        timeout *= 2;
        assert!(timeout < Duration::from_secs(10), "this thread is held up all the time");
    }
}

#[test]
fn a_burst_closes_nobody_and_all_that_was_not_refused_arrives() {
    let server = Fixture::start(ServerConfig::default());
    let mut peers: Vec<_> = (0..20).map(|n| server.register(&format!("n{n}"))).collect();
    let readers: Vec<_> = peers
        .iter_mut()
        .map(|peer| {
            let mut peer = peer.take();
            std::thread::spawn(move || (0..).take_while(|_| peer.frame().text() != "the end").count())
        })
        .collect();
    let payload = "x".repeat(65_536);
    for _ in 0..32 {
        server.engine.broadcast(payload.as_bytes()).unwrap();
    }
    let is_done = |counts: &heartbus_core::hub::Counts| counts.data_out + counts.data_out_refused == 32 * 20;
    server.until("all to be delivered or refused", |stats| is_done(&stats.counts));
    server.until("the outboxes to have room", |_| server.engine.connections(20).iter().all(|found| found.bytes_waiting_out == 0));
    assert_eq!(server.engine.broadcast(b"the end").unwrap(), 20);
    let received: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    let counts = server.engine.stats().counts;
    assert_eq!((received + counts.data_out_refused as usize, counts.slow_consumers), (32 * 20, 0));
}

#[test]
fn a_refused_push_to_one_node_of_a_gateway_takes_no_other_along() {
    let server = Fixture::start(ServerConfig { outbox_bytes: 64 * 1024, ..ServerConfig::default() });
    let mut gateway = server.connect();
    for n in 0..50 {
        gateway.send(6, 0, &format!(r#"{{"node_id":"n{n}"}}"#));
        gateway.frame();
    }
    let mut sent = 0;
    while server.engine.send_to("n0", &[b'x'; 10_000], 0).is_ok() {
        sent += 1;
    }
    for _ in 0..sent {
        gateway.frame();
    }
    server.until("room in the outbox", |_| server.engine.send_to("n49", b"last", 0).is_ok());
    assert_eq!(gateway.frame().text(), "last");
    assert_eq!((server.engine.stats().nodes_online, server.engine.stats().counts.slow_consumers), (50, 0));
}

#[test]
fn who_was_refused_is_told_that_the_outbox_is_full_and_that_it_is_empty_again_each_node_once() {
    let config = ServerConfig { outbox_bytes: 64 * 1024, ..ServerConfig::default() };
    let server = Fixture::start_with(config, InboxLimits::default(), EventMask::BUFFER);
    let mut gateway = server.register("n0");
    gateway.send(6, 0, r#"{"node_id":"n1"}"#);
    gateway.frame();
    for _ in 0..2 {
        let mut sent = 0;
        let told = || match server.event() {
            Event::Buffer { node, fill, .. } => (node.id().to_string(), fill),
            event => panic!("{event:?}"),
        };
        let waiting = || server.engine.node("n1").unwrap().info(server.engine.now()).bytes_waiting;
        while server.engine.send_to("n0", &[b'x'; 10_000], 0).is_ok() {
            sent += 1;
            let_the_thread_try(&server);
        }
        assert_eq!([told(), told()], [("n0".to_owned(), Fill::Full), ("n1".to_owned(), Fill::Full)]);
        assert!(waiting() >= 64 * 1024, "{}", waiting());
        // Refused again, which is no news.
        assert!(server.engine.send_to("n1", b"x", 0).is_err());
        for _ in 0..sent {
            gateway.frame();
        }
        assert_eq!([told(), told()], [("n0".to_owned(), Fill::Drained), ("n1".to_owned(), Fill::Drained)]);
        assert_eq!(server.engine.node("n1").unwrap().info(server.engine.now()).bytes_waiting, 0);
    }
}

#[test]
fn messages_as_long_as_the_outbox_are_echoed_one_behind_the_other() {
    let server = Fixture::start(ServerConfig::default());
    let mut peer = server.register("echo");
    let payload = "x".repeat(1 << 20);
    for _ in 0..20 {
        peer.send(3, 0, &payload);
        let event = server.event_where(|event| matches!(event, Event::Data { .. }));
        let Event::Data { node, payload, .. } = event else { unreachable!() };
        server.engine.send_to(node.id(), &payload, 0).unwrap();
        assert_eq!(peer.frame().payload.len(), 1 << 20);
    }
    assert_eq!(server.engine.stats().counts.connections_total, 1);
}

#[test]
fn a_peer_that_never_reads_is_given_up_after_the_timeouts_registered_or_not() {
    let pings = frame(4, 0, "").repeat(1000);
    let mut timeout = Duration::from_millis(500);
    loop {
        let config =
            ServerConfig { register_timeout: timeout, heartbeat_timeout: timeout, outbox_bytes: 64 * 1024, ..ServerConfig::default() };
        let server = Fixture::start(config.clone());
        let mut peers = [server.connect(), server.connect()];
        peers[1].send(6, 0, r#"{"node_id":"deaf"}"#);
        peers.iter().for_each(|peer| peer.stream.set_nonblocking(true).unwrap());
        let (mut sent, deadline) = ([0; 2], deadline());
        let mut both_paused = false;
        while !both_paused && server.engine.stats().counts.connections_closed == 0 {
            for (peer, sent) in peers.iter_mut().zip(&mut sent) {
                *sent = (*sent + peer.stream.write(&pings[*sent..]).unwrap_or(0)) % pings.len();
            }
            // Of two pauses both could be of the same peer: some time after the first its side's buffers grow.
            let connections = server.engine.connections(2);
            both_paused = connections.iter().filter(|found| found.bytes_waiting_out > config.outbox_bytes).count() == 2;
            assert!(Instant::now() < deadline, "reading never paused");
        }
        server.until("both to be given up", |stats| stats.connections_active == 0 && stats.nodes_online == 0 && stats.buffered_bytes == 0);
        if both_paused {
            return;
        }
        // The stranger's time was up before all this was written.
        timeout *= 2;
        assert!(timeout < Duration::from_secs(20), "reading never paused");
    }
}

#[test]
fn broadcasts_beyond_the_memory_bound_do_not_close_nodes_that_read() {
    let config = ServerConfig { total_buffer_bytes: 1 << 20, ..ServerConfig::default() };
    let server = Fixture::start_with(config, InboxLimits::default(), EventMask::NONE);
    let mut peers: Vec<_> = (0..300).map(|n| server.register(&format!("n{n}"))).collect();
    let payload = "x".repeat(10_000);
    let mut reached = 0;
    for _ in 0..3 {
        reached += server.engine.broadcast(payload.as_bytes()).unwrap();
    }
    assert_eq!(reached, 900);
    for peer in &mut peers {
        for _ in 0..3 {
            assert_eq!(peer.frame().text().len(), 10_000);
        }
    }
    assert_eq!((server.engine.stats().counts.slow_consumers, server.engine.stats().nodes_online), (0, 300));
}

#[test]
fn who_is_closed_as_slow_reads_the_frame_that_was_begun_then_why_and_then_the_end() {
    for dialect in [Dialect::V1, Dialect::V2] {
        let deadline = deadline();
        loop {
            let config = ServerConfig { slow_consumer_timeout: Duration::from_millis(300), ..ServerConfig::default() };
            let server = Fixture::start_with(config, InboxLimits::default(), EventMask::NONE);
            let mut slow = narrow(&server, "slow", if dialect == Dialect::V2 { 2 } else { 1 });
            if dialect == Dialect::V2 {
                slow.send_v2(17, 0, b"");
                slow.send_v2(1, 0, b"");
                assert_eq!(slow.frame().frame_type, 2);
            }
            let mut sent = 0;
            while server.engine.send_to("slow", &[b'x'; 100_000], 0).is_ok() {
                sent += 1;
                let_the_thread_try(&server);
            }
            server.until("it to be closed", |stats| stats.counts.slow_consumers == 1);
            let closed = Instant::now();
            assert_eq!((server.engine.stats().nodes_online, server.engine.node("slow").is_none()), (0, true));
            let mut read = Vec::new();
            let result = slow.stream.read_to_end(&mut read);
            // Whoever takes longer than a second for the rest is not waited for.
            if closed.elapsed() > Duration::from_millis(900) {
                assert!(Instant::now() < deadline, "this thread is held up all the time");
                continue;
            }
            result.expect("the end, in order");
            let mut rest = &read[..];
            let mut frames = Vec::new();
            while let (spoken, heartbus_core::wire::Decoded::Frame { frame, len }) = heartbus_core::wire::decode(rest, u32::MAX) {
                frames.push((spoken, frame.frame_type.0, frame.payload.bytes().len()));
                rest = &rest[len..];
            }
            assert!(rest.is_empty(), "{} bytes of a frame that is not whole", rest.len());
            if dialect == Dialect::V2 {
                assert!(read.ends_with(&v2_frame(18, 0, br#"{"message":"Slow consumer","code":408}"#)));
                assert_eq!(frames.pop().map(|(spoken, kind, _)| (spoken, kind)), Some((Dialect::V2, 18)));
            }
            assert!(frames.iter().all(|frame| *frame == (dialect, 3, 100_000)), "{frames:?}");
            assert!(!frames.is_empty() && frames.len() < sent, "what was not begun was not sent: {} of {sent}", frames.len());
            server.until("nothing to be kept", |stats| (stats.buffered_bytes, stats.connections_active) == (0, 0));
            break;
        }
    }
}

#[test]
fn answers_to_heartbeats_do_not_wait_for_the_data_that_waits() {
    let server = Fixture::start_with(ServerConfig::default(), InboxLimits::default(), EventMask::NONE);
    let mut slow = narrow(&server, "slow", 1);
    let mut sent = 0;
    while server.engine.node("slow").unwrap().info(server.engine.now()).bytes_waiting < 700_000 {
        server.engine.send_to("slow", &[b'x'; 10_000], 0).unwrap();
        sent += 1;
        let_the_thread_try(&server);
    }
    slow.send(1, 0, "");
    slow.send(4, 0, "");
    server.until("both to be answered", |stats| stats.counts.messages_in == 3);
    let kinds: Vec<u8> = (0..sent + 2).map(|_| slow.frame().frame_type).collect();
    let place = |kind| kinds.iter().position(|found| *found == kind).unwrap();
    // What waits is behind what the system has already. The PONG has its place there.
    assert_eq!(place(5), sent + 1);
    assert!(place(2) + 65 <= sent, "{} of {sent}", place(2));
}

#[test]
fn who_agreed_on_v2_and_does_not_speak_it_in_time_while_frames_are_held_for_that_is_slow() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    for policy in [SlowConsumer::Close, SlowConsumer::Drop] {
        let config = ServerConfig { slow_consumer_timeout: TIMEOUT, slow_consumer: policy, ..ServerConfig::default() };
        let server = Fixture::start_with(config, InboxLimits::default(), EventMask::NONE);
        let mut silent = narrow(&server, "silent", 2);
        // Nobody whom nothing is held for has to speak it.
        let mut other = narrow(&server, "other", 2);
        let began = Instant::now();
        server.engine.send_to("silent", &[0xff], 0).unwrap();
        // It reads, and is answered: what it takes says nothing of what is held.
        while server.engine.node("silent").is_some() && began.elapsed() < 4 * TIMEOUT {
            silent.send(1, 0, "");
            if silent.stream.read(&mut [0; 1000]).unwrap_or(0) == 0 {
                break;
            }
            std::thread::sleep(TIMEOUT / 20);
        }
        assert!(began.elapsed() >= TIMEOUT);
        if policy == SlowConsumer::Close {
            server.until("the silent one to be gone", |stats| stats.counts.slow_consumers == 1 && stats.nodes_online == 1);
        } else {
            assert_eq!(server.engine.stats().counts.slow_consumers, 0);
            silent.send_v2(17, 0, b"");
            while silent.frame().payload != [0xff] {}
        }
        server.engine.send_to("other", &[0xff], 0).unwrap();
        other.send_v2(17, 0, b"");
        assert_eq!(other.frame().payload, [0xff]);
        std::thread::sleep(2 * TIMEOUT);
        assert!(server.engine.node("other").is_some());
    }
}
