//! What strangers can make a server keep, over real sockets: what it is counted as, and who has to go for it.

mod support;

use heartbus_core::engine::Stats;
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{Event, EventMask};
use heartbus_core::settings::{InboxLimits, ServerConfig};
use socket2::{Domain, Socket, Type};
use std::net::TcpStream;
use support::*;

const MIB: usize = 1 << 20;

fn start(config: ServerConfig) -> Fixture {
    Fixture::start_with(config, InboxLimits::default(), EventMask::NONE)
}

/// A peer whose side takes little before it reads.
fn narrow(server: &Fixture, id: &str, protocol: u32) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.engine.local_addr().into()).unwrap();
    let mut peer = Peer::over(TcpStream::from(socket));
    peer.send(6, 0, &format!(r#"{{"node_id":"{id}","protocol":{protocol}}}"#));
    assert_eq!(peer.frame().frame_type, 6);
    peer
}

/// The first bytes of a frame whose last byte is missing.
fn all_but_the_last_byte(len: usize) -> Vec<u8> {
    let mut bytes = v2_frame(3, 0, &vec![b'x'; len]);
    bytes.pop();
    bytes
}

/// The peer, in the middle of a frame, is alive: it sends the rest, and a ping is answered.
fn finish(peer: &mut Peer, rest: &[u8]) {
    peer.raw(rest);
    peer.send(4, 0, "");
    assert_eq!(peer.frame().frame_type, 5);
}

#[test]
fn a_payload_for_many_who_do_not_read_it_is_counted_once_and_closes_nobody() {
    const RECEIVERS: usize = 20;
    let payload = vec![b'x'; 8 * MIB];
    let config = ServerConfig { outbox_bytes: 16 * MIB, total_buffer_bytes: 24 * MIB, ..ServerConfig::default() };
    let server = start(config);
    let stalled: Vec<Peer> = (0..RECEIVERS).map(|n| narrow(&server, &format!("n{n}"), 1)).collect();
    let mut split = server.connect();
    let ping = frame(4, 0, "");
    split.raw(&ping[..10]);
    server.until("the first part to arrive", |stats| stats.buffered_bytes > 0);
    assert_eq!(server.engine.broadcast(&payload).unwrap(), RECEIVERS);
    let waiting = || server.engine.connections(100).iter().filter(|found| found.bytes_waiting_out > 0).count();
    let deadline = deadline();
    while waiting() < RECEIVERS || server.engine.stats().counts.bytes_out < RECEIVERS as u64 * 1000 {
        assert!(std::time::Instant::now() < deadline, "everybody was to wait for its rest");
    }
    let Stats { counts, buffered_bytes, .. } = server.engine.stats();
    assert!((8 * MIB..9 * MIB).contains(&buffered_bytes), "{buffered_bytes}");
    assert_eq!(counts.slow_consumers, 0);
    finish(&mut split, &ping[10..]);
    drop(stalled);
    server.until("nothing to be kept", |stats| stats.buffered_bytes == 0);
}

#[test]
fn those_who_never_speak_the_v2_that_they_agreed_on_go_before_those_who_split_a_frame() {
    let config = ServerConfig { total_buffer_bytes: 4 * MIB, ..ServerConfig::default() };
    let server = start(config);
    let mut silent: Vec<Peer> = (0..8).map(|n| narrow(&server, &format!("n{n}"), 2)).collect();
    let mut split: Vec<Peer> = (0..20).map(|_| server.connect()).collect();
    let ping = frame(4, 0, "");
    split.iter_mut().for_each(|peer| peer.raw(&ping[..10]));
    server.until("the first parts to arrive", |stats| stats.buffered_bytes >= 20 * 10);
    // While the server keeps too much, until somebody is gone for it, it refuses pushes to all, and says that it is not their outbox.
    let push = |id: &str| loop {
        match server.engine.send_to(id, &[0xff; 100_000], 0) {
            Err(error) if error.kind == ErrorKind::Limit => assert!(error.to_string().contains("total_buffer_bytes"), "{error}"),
            result => break result.is_ok(),
        }
        std::thread::yield_now();
    };
    for n in 0..8 {
        let _ = (0..9).all(|_| push(&format!("n{n}")));
    }
    // Eight times 900,000 bytes were taken: three times that are too much.
    server.until("enough of them to be gone", |stats| stats.counts.slow_consumers >= 3 && stats.buffered_bytes <= 4 * MIB);
    split.iter_mut().for_each(|peer| finish(peer, &ping[10..]));
    server.until("all others to be there", |stats| {
        let online = stats.nodes_online;
        (stats.counts.slow_consumers + online as u64, stats.connections_active) == (8, 20 + online)
    });
    // Whoever speaks it in the end gets what was held.
    let last = silent.iter_mut().zip(0..).find(|(_, n)| server.engine.node(&format!("n{n}")).is_some());
    let (last, _) = last.expect("not all of them had to go");
    last.send_v2(17, 0, b"");
    assert_eq!(last.frame().payload, [0xff; 100_000]);
}

#[test]
fn a_peer_is_read_again_when_it_took_what_it_could_whatever_is_held_until_it_speaks_v2() {
    let server = start(ServerConfig { outbox_bytes: 64 * 1024, ..ServerConfig::default() });
    let mut peer = narrow(&server, "n", 2);
    server.engine.send_to("n", &[0xff; 60_000], 0).unwrap();
    let left = peer.ping_until_paused(&server);
    peer.stream.set_nonblocking(false).unwrap();
    // It reads all that it asked for, and is heard again then: among others, that it speaks v2.
    let mut reader = peer.take();
    let reading = std::thread::spawn(move || {
        loop {
            let got = reader.frame();
            if got.frame_type == 3 {
                return got.payload;
            }
            assert_eq!(got.frame_type, 5);
        }
    });
    peer.raw(&left);
    peer.send_v2(17, 0, b"");
    assert_eq!(reading.join().unwrap(), [0xff; 60_000]);
}

#[test]
fn the_connection_that_holds_most_goes_whichever_thread_it_is_on_and_nobody_else() {
    let server = start(ServerConfig { total_buffer_bytes: 8 * MIB, ..ServerConfig::default() });
    for round in 0..6 {
        let before = server.engine.stats();
        let mut small: Vec<Peer> = (0..24).map(|_| server.connect()).collect();
        let mut large = server.connect();
        large.raw(&all_but_the_last_byte(4 * MIB));
        server.until("the large one to arrive", |stats| stats.buffered_bytes >= 4 * MIB);
        for peer in &mut small {
            peer.raw(&all_but_the_last_byte(200_000));
        }
        server.until("one of them to be gone", |stats| stats.counts.slow_consumers > before.counts.slow_consumers);
        large.skip_until_end();
        small.iter_mut().for_each(|peer| finish(peer, b"x"));
        assert_eq!(server.engine.stats().counts.slow_consumers, round + 1);
        drop(small);
        server.until("nothing to be kept", |stats| stats.buffered_bytes == 0 && stats.connections_active == 0);
    }
}

#[test]
fn a_long_frame_that_was_read_leaves_no_memory_with_its_connection() {
    let server = start(ServerConfig { total_buffer_bytes: 8 * MIB, ..ServerConfig::default() });
    let mut peers: Vec<Peer> = (0..20).map(|_| server.connect()).collect();
    for (peer, done) in peers.iter_mut().zip(1..) {
        let mut bytes = all_but_the_last_byte(4 * MIB);
        bytes.extend(b"x\xab");
        peer.raw(&bytes);
        server.until("the frame to be read", |stats| stats.counts.messages_in == done && stats.buffered_bytes == done as usize);
    }
    assert_eq!(server.engine.stats().counts.slow_consumers, 0);
}

fn register(peer: &mut Peer, id: &str, metadata: usize) -> String {
    peer.send_v2(6, 0, format!(r#"{{"node_id":"{id}","metadata":["{}"]}}"#, "a".repeat(metadata)).as_bytes());
    let got = peer.frame();
    if got.frame_type == 6 { "registered".to_owned() } else { got.text() }
}

#[test]
fn metadata_above_the_bound_of_a_connection_is_refused_there_and_nowhere_else() {
    let server = start(ServerConfig { max_metadata_bytes_per_connection: 100_000, ..ServerConfig::default() });
    let (mut one, mut other) = (server.connect(), server.connect());
    assert_eq!(register(&mut one, "a", 50_000), "registered");
    let refusal = r#"{"message":"Too much metadata on this connection","code":403}"#;
    assert_eq!(register(&mut one, "b", 50_000), refusal);
    // In place of its own it is not too much; together with what another node has, it is.
    assert_eq!(register(&mut one, "a", 60_000), "registered");
    assert_eq!(register(&mut one, "b", 40_500), refusal);
    assert_eq!(register(&mut one, "b", 39_000), "registered");
    assert_eq!(register(&mut one, "b", 41_000), refusal);
    assert_eq!(register(&mut other, "c", 60_000), "registered");
    let Stats { counts, nodes_online, .. } = server.engine.stats();
    assert_eq!((counts.metadata_refused, nodes_online), (3, 3));
    // What a node had is free when it has left.
    one.send_v2(7, server.engine.node("a").unwrap().channel_id(), b"");
    assert_eq!(register(&mut one, "d", 50_000), "registered");
}

#[test]
fn ids_and_metadata_of_all_nodes_together_have_a_bound_and_those_who_are_there_stay() {
    const SHARE: usize = 3 * MIB / 8;
    let server = start(ServerConfig { total_buffer_bytes: MIB, ..ServerConfig::default() });
    let mut peers: Vec<Peer> = (0..10).map(|_| server.connect()).collect();
    let answers: Vec<String> = peers.iter_mut().zip(0..).map(|(peer, n)| register(peer, &format!("n{n}"), 60_000)).collect();
    let fit = SHARE / 60_000;
    assert!(answers[..fit].iter().all(|answer| answer == "registered"), "{answers:?}");
    assert!(answers[fit..].iter().all(|answer| answer == r#"{"message":"Too much metadata on this server","code":403}"#), "{answers:?}");
    let Stats { counts, nodes_online, memory, .. } = server.engine.stats();
    assert_eq!((counts.metadata_refused, nodes_online, counts.slow_consumers), (10 - fit as u64, fit, 0));
    assert!((fit * 60_000..=SHARE).contains(&memory.nodes), "{}", memory.nodes);
    drop(peers.remove(0));
    server.until("one to leave", |stats| stats.nodes_online == fit - 1);
    assert_eq!(register(&mut peers[8], "late", 60_000), "registered");
    drop(peers);
    server.until("nothing to be kept", |stats| stats.memory.nodes == 0);
}

#[test]
fn a_node_that_comes_and_goes_while_the_host_sleeps_holds_a_bounded_memory_and_no_event_is_lost() {
    const TIMES: u32 = 300;
    let config = ServerConfig { total_buffer_bytes: 8 * MIB, ..ServerConfig::default() };
    let server = Fixture::start_with(config, InboxLimits::default(), EventMask::REGISTER | EventMask::LEFT);
    let mut peer = server.connect();
    let mut writer = peer.take();
    let round =
        [v2_frame(6, 0, format!(r#"{{"node_id":"n","metadata":["{}"]}}"#, "a".repeat(60_000)).as_bytes()), v2_frame(7, 0, b"")].concat();
    let writing = std::thread::spawn(move || (0..TIMES).for_each(|_| writer.raw(&round)));
    // Far more than the bound: 18 MB.
    let is_done = || server.engine.stats().counts.messages_in == 2 * u64::from(TIMES);
    let (mut most, mut reads) = (0, 0);
    let mut told = 0;
    let deadline = deadline();
    while told < 2 * TIMES {
        most = most.max(server.engine.stats().memory.total);
        // The host looks when nothing more would come, and else only now and then.
        reads += 1;
        if is_done() || server.engine.stats().inbox.pauses > 0 && reads % 50 == 0 {
            match server.event() {
                Event::Register { count, .. } | Event::Left { count, .. } => told += count,
                other => panic!("{other:?}"),
            }
        }
        assert!(std::time::Instant::now() < deadline, "{told} told, {:#?}", server.engine.stats());
    }
    writing.join().unwrap();
    assert_eq!(told, 2 * TIMES);
    assert!(most < 2 * MIB, "{most}: a sixteenth of the bound, and what was read at once");
    for _ in 0..TIMES {
        assert_eq!(peer.frame().frame_type, 6);
    }
    server.until("nothing to be kept", |stats| stats.memory.total == 0);
}
