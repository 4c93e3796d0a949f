//! What strangers can make a server keep, over real sockets: what it is counted as, and who has to go for it.

mod support;

use heartbus_core::config::{InboxLimits, ServerConfig};
use heartbus_core::engine::Stats;
use heartbus_core::event::EventMask;
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
    for n in 0..8 {
        for _ in 0..9 {
            let _ = server.engine.send_to(&format!("n{n}"), &[0xff; 100_000], 0);
        }
    }
    server.until("enough of them to be gone", |stats| stats.counts.slow_consumers >= 1 && stats.buffered_bytes <= 4 * MIB);
    split.iter_mut().for_each(|peer| finish(peer, &ping[10..]));
    let Stats { counts, nodes_online, connections_active, .. } = server.engine.stats();
    assert_eq!((counts.slow_consumers + nodes_online as u64, connections_active), (8, 20 + nodes_online));
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
