//! What goes to all nodes at once: who gets it, in which order, and what becomes of others meanwhile.

mod support;

use heartbus_core::error::ErrorKind;
use heartbus_core::event::{Event, EventMask, Fill};
use heartbus_core::settings::{InboxLimits, ServerConfig};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use support::{Fixture, Peer, deadline, frame};

fn quiet(config: ServerConfig) -> Fixture {
    Fixture::start_with(config, InboxLimits::default(), EventMask::NONE)
}

/// A connection with so many nodes, and their channels.
fn gateway(server: &Fixture, name: &str, nodes: usize, protocol: u32) -> (Peer, Vec<i64>) {
    let mut peer = server.connect();
    let registers: Vec<u8> =
        (0..nodes).flat_map(|n| frame(6, 0, &format!(r#"{{"node_id":"{name}-{n}","protocol":{protocol}}}"#))).collect();
    peer.raw(&registers);
    let channels = (0..nodes).map(|n| {
        assert_eq!(peer.frame().frame_type, 6);
        server.engine.node(&format!("{name}-{n}")).unwrap().channel_id().into()
    });
    let channels = channels.collect();
    if protocol == 2 {
        peer.send_v2(17, 0, b"");
        peer.send_v2(4, 0, b"");
        assert_eq!(peer.frame().frame_type, 5);
    }
    (peer, channels)
}

/// The texts that come until all channels have had the last one, by channel.
fn read_until(peer: &mut Peer, channels: &[i64], last: &str) -> Vec<Vec<String>> {
    let mut got = vec![Vec::new(); channels.len()];
    let mut left = channels.len();
    while left > 0 {
        let frame = peer.frame();
        if frame.frame_type == 5 {
            continue;
        }
        let at = channels.iter().position(|channel| *channel == frame.channel_id).expect("one of its channels");
        let text = frame.text();
        left -= usize::from(text == last);
        got[at].push(text);
    }
    got
}

#[test]
fn more_connections_than_a_pass_serves_get_each_broadcast_once_and_what_is_sent_behind_it_behind_it() {
    const PEERS: usize = 1500;
    let server = quiet(ServerConfig { io_threads: 1, ..ServerConfig::default() });
    let mut peers: Vec<Peer> = (0..PEERS).map(|n| server.register(&format!("n{n}"))).collect();
    // From the end on: what is sent to one of these must not go before what its connection did not get yet.
    for round in ["one", "two", "three"] {
        assert_eq!(server.engine.broadcast(round.as_bytes()).unwrap(), PEERS);
        (0..PEERS).rev().for_each(|n| server.engine.send_to(&format!("n{n}"), format!("behind {round}").as_bytes(), 0).unwrap());
    }
    for peer in &mut peers {
        let got: Vec<String> = (0..6).map(|_| peer.frame().text()).collect();
        assert_eq!(got, ["one", "behind one", "two", "behind two", "three", "behind three"]);
    }
    server.until("all to be counted", |stats| stats.counts.data_out == 6 * PEERS as u64 && stats.counts.data_out_refused == 0);
}

#[test]
fn each_node_of_a_gateway_gets_it_on_its_own_channel_and_a_bystander_is_answered_meanwhile() {
    const NODES: usize = 20_000;
    const ROUNDS: usize = 5;
    let config = ServerConfig { io_threads: 1, max_nodes_per_connection: NODES, outbox_bytes: 64 << 20, ..ServerConfig::default() };
    let server = quiet(config);
    let (mut gateway, channels) = gateway(&server, "g", NODES, 1);
    let mut bystander = server.register("bystander");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let mut answered = 0;
            while !is_over.load(Ordering::Relaxed) {
                bystander.send(4, 0, "");
                while bystander.frame().frame_type != 5 {}
                answered += 1;
            }
            answered
        });
        for round in 0..ROUNDS {
            assert_eq!(server.engine.broadcast(format!("round {round}").as_bytes()).unwrap(), NODES + 1);
        }
        let mut got = vec![0; NODES];
        for _ in 0..NODES * ROUNDS {
            let frame = gateway.frame();
            // Channels of one connection that registered in a row are in a row.
            let at = (frame.channel_id - channels[0]) as usize;
            assert_eq!(frame.text(), format!("round {}", got[at]));
            got[at] += 1;
        }
        assert!(got.iter().all(|count| *count == ROUNDS));
        is_over.store(true, Ordering::Relaxed);
        assert!(pings.join().unwrap() > 0);
    });
}

#[test]
fn a_node_whose_outbox_is_full_is_not_counted_and_the_host_is_told_while_others_get_everything() {
    // Room for more than one: what the reader has read already may be counted as waiting for a moment longer.
    let server = Fixture::start(ServerConfig { outbox_bytes: 256 * 1024, ..ServerConfig::default() });
    let _slow = server.register("slow");
    let mut reader = server.register("reader");
    let payload = "x".repeat(60_000);
    let deadline = deadline();
    let mut rounds = 0;
    let reached = loop {
        let reached = server.engine.broadcast(payload.as_bytes()).unwrap();
        rounds += 1;
        assert_eq!(reader.frame().text().len(), payload.len());
        if reached != 2 {
            break reached;
        }
        assert!(Instant::now() < deadline, "its outbox never filled");
    };
    assert_eq!(reached, 1);
    server.event_where(|event| matches!(event, Event::Buffer { node, fill: Fill::Full, .. } if &**node.id() == "slow"));
    server.until("the refusal to be counted", |stats| {
        stats.counts.data_out_refused > 0 && stats.counts.data_out + stats.counts.data_out_refused == 2 * rounds
    });
    assert_eq!(server.engine.stats().counts.slow_consumers, 0);
}

#[test]
fn whom_a_payload_cannot_reach_is_said_by_dialect_and_who_left_is_not_counted() {
    let server = quiet(ServerConfig::default());
    assert_eq!(server.engine.broadcast(b"\xff").unwrap(), 0, "nobody is there");
    let (mut old, _) = gateway(&server, "old", 3, 1);
    assert_eq!(server.engine.broadcast(b"\xff").unwrap_err().kind, ErrorKind::InvalidArgument);
    let (_new, _) = gateway(&server, "new", 2, 2);
    assert_eq!((server.engine.broadcast(b"\xff").unwrap(), server.engine.broadcast(b"text").unwrap()), (2, 5));
    server.engine.disconnect("new-0").unwrap();
    assert_eq!(server.engine.broadcast(b"text").unwrap(), 4, "at once");
    old.send(7, 0, "");
    server.until("the others to leave", |stats| stats.nodes_online == 1);
    assert_eq!((server.engine.broadcast(b"\xff").unwrap(), server.engine.broadcast(b"text").unwrap()), (1, 1));
}

#[test]
fn whoever_is_disconnected_behind_a_broadcast_has_got_it() {
    const PEERS: usize = 500;
    let server = quiet(ServerConfig { io_threads: 2, ..ServerConfig::default() });
    let mut peers: Vec<Peer> = (0..PEERS).map(|n| server.register(&format!("n{n}"))).collect();
    let (mut gateway, channels) = gateway(&server, "g", 100, 1);
    assert_eq!(server.engine.broadcast(b"last words").unwrap(), PEERS + channels.len());
    // From the end on, so that most are disconnected before it is their turn.
    (0..channels.len()).rev().for_each(|n| server.engine.disconnect(&format!("g-{n}")).unwrap());
    (0..PEERS).rev().for_each(|n| server.engine.disconnect(&format!("n{n}")).unwrap());
    for (n, peer) in peers.iter_mut().enumerate() {
        assert_eq!(peer.frame().text(), "last words", "n{n}");
    }
    let got = read_until(&mut gateway, &channels, "last words");
    assert!(got.iter().all(|texts| texts[0] == "last words"));
}

#[test]
fn a_stop_in_the_middle_of_many_broadcasts_ends_cleanly() {
    let server = quiet(ServerConfig { io_threads: 1, max_nodes_per_connection: 50_000, ..ServerConfig::default() });
    let (mut peer, _) = gateway(&server, "g", 50_000, 1);
    let reader = std::thread::spawn(move || peer.skip_until_end());
    let mut queued = 0;
    while queued < 1_000_000 {
        match server.engine.broadcast(b"on and on") {
            Ok(0) => break,
            reached => queued += reached.unwrap(),
        }
    }
    server.engine.stop();
    reader.join().unwrap();
    let stats = server.engine.stats();
    assert_eq!((stats.nodes_online, stats.connections_active, stats.memory.output), (0, 0, 0));
}

#[test]
fn broadcasts_in_a_loop_are_refused_before_they_keep_too_much_and_nobody_is_closed() {
    const NODES: usize = 50_000;
    let server = quiet(ServerConfig { io_threads: 1, max_nodes_per_connection: NODES, ..ServerConfig::default() });
    let (_peer, _) = gateway(&server, "g", NODES, 1);
    let mut refused = 0;
    // Twenty such take a while, and no more than twenty-one may wait.
    for _ in 0..1000 {
        refused += u32::from(server.engine.broadcast(b"again").unwrap() == 0);
    }
    assert!(refused > 0);
    server.until("all to be done with", |stats| {
        stats.counts.data_out + stats.counts.data_out_refused >= u64::from(1000 - refused) * NODES as u64
    });
    assert_eq!((server.engine.stats().nodes_online, server.engine.stats().counts.slow_consumers), (NODES, 0));
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Broadcasts and sends of several threads, while others come, register more nodes, move, and leave.
#[test]
fn whoever_stays_gets_each_message_of_each_thread_once_and_in_its_order_whatever_others_do() {
    const SENDERS: usize = 3;
    const MESSAGES: usize = 150;
    for seed in 1..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let config = ServerConfig { io_threads: 2, outbox_bytes: 16 << 20, max_nodes_per_connection: 1000, ..ServerConfig::default() };
        let server = quiet(config);
        let stay: Vec<_> = (0..20).map(|n| gateway(&server, &format!("s{n}"), random.usize(1..8), random.u32(1..3))).collect();
        let names: Vec<(String, usize)> = stay.iter().enumerate().map(|(n, (_, channels))| (format!("s{n}"), channels.len())).collect();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Also where something here fails: nobody waits for those who never stop.
            let _over = SetAtEnd(&is_over);
            let (server, is_over, names) = (&server.engine, &is_over, &names);
            let address = server.local_addr();
            for churn in 0..2 {
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(100 * seed + churn);
                    while !is_over.load(Ordering::Relaxed) {
                        let mut peer = Peer::over(std::net::TcpStream::connect(address).unwrap());
                        for _ in 0..random.usize(1..5) {
                            // The other one has these ids as well: they move.
                            peer.send(6, 0, &format!(r#"{{"node_id":"moves-{}"}}"#, random.usize(0..4)));
                            peer.send(7, random.i64(0..2), "");
                        }
                    }
                });
            }
            let senders: Vec<_> = (0..SENDERS)
                .map(|sender| {
                    let mut random = fastrand::Rng::with_seed(200 * seed + sender as u64);
                    scope.spawn(move || {
                        // What was sent to each node by this thread, in order.
                        let mut sent: Vec<Vec<Vec<String>>> = names.iter().map(|(_, nodes)| vec![Vec::new(); *nodes]).collect();
                        for number in 0..MESSAGES {
                            let text = format!("{sender} {number}");
                            if random.bool() {
                                let reached = server.broadcast(text.as_bytes()).unwrap();
                                assert!(reached > 0);
                                sent.iter_mut().flatten().for_each(|texts| texts.push(text.clone()));
                            } else {
                                let at = random.usize(0..names.len());
                                let node = random.usize(0..names[at].1);
                                server.send_to(&format!("{}-{node}", names[at].0), text.as_bytes(), 0).unwrap();
                                sent[at][node].push(text);
                            }
                        }
                        sent
                    })
                })
                .collect();
            let sent: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
            server.broadcast(b"the end").unwrap();
            for (at, (mut peer, channels)) in stay.into_iter().enumerate() {
                for (node, got) in read_until(&mut peer, &channels, "the end").into_iter().enumerate() {
                    for (sender, sent) in sent.iter().enumerate() {
                        let prefix = format!("{sender} ");
                        let of_sender: Vec<&String> = got.iter().filter(|text| text.starts_with(&prefix)).collect();
                        assert_eq!(of_sender, sent[at][node].iter().collect::<Vec<_>>(), "seed {seed}, {at}-{node}, thread {sender}");
                    }
                }
            }
        });
    }
}
