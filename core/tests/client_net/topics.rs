//! Topics of clients against the real server: over connections that are cut, and a server that is slow or forgets.

use crate::rig::*;
use heartbus_core::event::{Position, TopicMessage};
use heartbus_core::settings::{HistoryRule, RateLimit};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

fn keeping(count: usize) -> ServerConfig {
    let rule = HistoryRule { filter: "kept/#".into(), count, bytes: 64 << 20, ttl: Duration::from_secs(3600) };
    ServerConfig { history: vec![rule], total_buffer_bytes: 4 << 30, ..ServerConfig::default() }
}

fn quiet(config: ServerConfig) -> Fixture {
    Fixture::start_with(config, InboxLimits::default(), EventMask::NONE)
}

/// Stands between a client and its server, and cuts each connection after so many bytes from the server.
struct Proxy {
    port: u16,
    cuts: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Cuts nothing once it has cut `most` times.
    fn start(server: SocketAddr, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stops) = (cuts.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(7);
            for client in listener.incoming() {
                if stops.load(Ordering::Relaxed) {
                    return;
                }
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let up = std::thread::spawn(move || {
                    let _ = std::io::copy(&mut up_from, &mut up_to);
                    let _ = up_to.shutdown(Shutdown::Both);
                });
                let is_last = counted.load(Ordering::Relaxed) >= most;
                let len = if is_last { u64::MAX } else { random.u64(200..250_000) };
                // What was cut off is left unread with the server, and never comes.
                let _ = std::io::copy(&mut server.try_clone().unwrap().take(len), &mut client.try_clone().unwrap());
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
                up.join().unwrap();
                counted.fetch_add(usize::from(!is_last), Ordering::Relaxed);
            }
        });
        Self { port, cuts, is_over, thread: Some(thread) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Rig {
    fn message(&self, client: &Client) -> TopicMessage {
        match self.event_where(client, |event| matches!(event, ClientEvent::Message(_))) {
            ClientEvent::Message(message) => *message,
            _ => unreachable!(),
        }
    }

    fn subscribed(&self, client: &Client, filter: &str) -> (Option<Position>, bool) {
        let of_filter = |event: &ClientEvent| matches!(event, ClientEvent::Subscribed { filter: found, .. } if **found == *filter);
        match self.event_where(client, of_filter) {
            ClientEvent::Subscribed { position, recovered, .. } => (position, recovered),
            _ => unreachable!(),
        }
    }
}

#[test]
fn clients_of_both_protocols_subscribe_publish_and_learn_what_became_of_it() {
    let server = quiet(keeping(10));
    let rig = Rig::new();
    let port = server.engine.local_addr().port();
    let clients =
        [1, 2].map(|protocol| rig.connect(ClientConfig { port, protocol, node_id: Some(format!("n{protocol}")), ..rig.config() }));
    for client in &clients {
        client.subscribe("kept/a", Some(Position::default())).unwrap();
        client.subscribe("+", None).unwrap();
        assert!(matches!(rig.subscribed(client, "kept/a"), (Some(Position { offset: 0, .. }), true)));
        assert_eq!(rig.subscribed(client, "+"), (None, true));
    }
    let [old, new] = &clients;
    old.publish("kept/a", "é \"1\"".as_bytes(), Some(7)).unwrap();
    let ClientEvent::Published { number: 7, position: Some(position), reach: 2 } =
        rig.event_where(old, |event| matches!(event, ClientEvent::Published { .. }))
    else {
        panic!("no answer")
    };
    // Whoever asks for all there is gets what is kept.
    new.subscribe("kept/a", Some(Position::default())).unwrap();
    rig.events.borrow_mut().clear();
    assert_eq!(new.publish("a/#", b"x", None).unwrap_err().kind, ErrorKind::InvalidArgument);
    assert_eq!(new.subscribe("a/#", Some(position)).unwrap_err().kind, ErrorKind::InvalidArgument);
    assert_eq!(new.unsubscribe("never").unwrap_err().kind, ErrorKind::NotFound);
    new.publish("plain", b"\xff\0", None).unwrap();
    let plain = rig.event_where(new, |event| matches!(event, ClientEvent::Message(message) if &*message.topic == "plain"));
    let ClientEvent::Message(plain) = plain else { unreachable!() };
    assert_eq!((&plain.payload[..], plain.position, plain.node_id.as_deref()), (&b"\xff\0"[..], None, Some("n2")));
    new.publish("$own", b"x", Some(8)).unwrap();
    let refused = rig.event_where(new, |event| matches!(event, ClientEvent::PublishRefused { .. }));
    assert!(matches!(refused, ClientEvent::PublishRefused { number: Some(8), code: 403, .. }));
    new.subscribe("$nodes", None).unwrap();
    let refused = rig.event_where(new, |event| matches!(event, ClientEvent::SubscribeRefused { .. }));
    assert!(matches!(refused, ClientEvent::SubscribeRefused { filter, code: 403, .. } if &*filter == "$nodes"));
    assert_eq!((new.position("kept/a"), old.position("kept/a"), old.position("+")), (Some(position), Some(position), None));
    for client in &clients {
        client.unsubscribe("kept/a").unwrap();
        client.unsubscribe("+").unwrap();
    }
    server.until("nobody to be left", |stats| stats.subscriptions_active == 0);
}

#[test]
fn over_connections_that_are_cut_under_load_nothing_is_missed_and_nothing_comes_twice() {
    const MESSAGES: u64 = 30_000;
    const CUTS: usize = 12;
    for protocol in [1, 2] {
        let server = quiet(ServerConfig { outbox_bytes: 4 << 20, io_threads: 2, ..keeping(1 << 20) });
        let proxy = Proxy::start(server.engine.local_addr(), CUTS);
        let rig = Rig::new();
        let client = rig.connect(ClientConfig { port: proxy.port, protocol, node_id: Some("n".into()), ..rig.config() });
        for topic in ["kept/a", "kept/b"] {
            client.subscribe(topic, Some(Position::default())).unwrap();
        }
        let heard = std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=MESSAGES {
                    // As long as there are connections to be cut.
                    if n % 100 == 0 && proxy.cuts.load(Ordering::Relaxed) < CUTS {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    for topic in ["kept/a", "kept/b"] {
                        server.engine.publish(topic, format!("{topic} {n} {}", "x".repeat(n as usize % 100)).as_bytes(), &[]).unwrap();
                    }
                }
            });
            let mut next: HashMap<String, u64> = HashMap::new();
            let mut gaps = 0;
            while next.values().sum::<u64>() < 2 * MESSAGES {
                match rig.event(&client) {
                    ClientEvent::Message(message) => {
                        let heard = next.entry(message.topic.to_string()).or_default();
                        *heard += 1;
                        let position = message.position.unwrap();
                        assert_eq!(position.offset, *heard, "{}: once and in order", message.topic);
                        assert!(message.payload.starts_with(format!("{} {heard} ", message.topic).as_bytes()));
                    }
                    ClientEvent::Subscribed { recovered, .. } => gaps += usize::from(!recovered),
                    _ => {}
                }
            }
            assert_eq!(gaps, 0, "all of it is kept");
            next
        });
        assert_eq!(heard, [("kept/a".into(), MESSAGES), ("kept/b".into(), MESSAGES)].into());
        assert_eq!(proxy.cuts.load(Ordering::Relaxed), CUTS, "of as many connections each was cut");
        assert_eq!(server.engine.publish("kept/a", b"last", &[]).unwrap().reach, 1);
        assert_eq!(rig.message(&client).position.unwrap().offset, MESSAGES + 1, "and nothing behind it");
        rig.clients.stop();
    }
}

#[test]
fn what_is_not_kept_is_missed_and_told_as_missing() {
    const CUTS: usize = 5;
    let server = quiet(ServerConfig { outbox_bytes: 4 << 20, ..keeping(0) });
    let proxy = Proxy::start(server.engine.local_addr(), CUTS);
    let rig = Rig::new();
    let client = rig.connect(ClientConfig { port: proxy.port, node_id: Some("n".into()), ..rig.config() });
    client.subscribe("plain", None).unwrap();
    assert!(rig.subscribed(&client, "plain").1);
    // Somebody who is always there, or the topic would begin a new life each time.
    let witness = rig.connect(ClientConfig { port: server.engine.local_addr().port(), ..rig.config() });
    witness.subscribe("plain", None).unwrap();
    rig.subscribed(&witness, "plain");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                server.engine.publish("plain", &[b'x'; 1000], &[]).unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let (mut last, mut missed, mut is_gap, mut told) = (None, 0, false, 0);
        let mut seen = BTreeSet::new();
        loop {
            let (id, event) = rig.any_event();
            match event {
                _ if id != client.id() => {}
                ClientEvent::Subscribed { recovered: false, .. } => is_gap = true,
                ClientEvent::Message(message) => {
                    let offset = message.position.unwrap().offset;
                    assert!(seen.insert(offset), "{offset} came twice");
                    let next = last.map_or(offset, |last| last + 1);
                    assert!(if is_gap { offset >= next } else { offset == next }, "{offset} behind {last:?}, gap told: {is_gap}");
                    missed += offset - next;
                    (last, is_gap, told) = (Some(offset), false, told + 1);
                    if proxy.cuts.load(Ordering::Relaxed) == CUTS && client.stats().reconnect_attempts == 0 && seen.len() > 1000 {
                        break;
                    }
                }
                _ => {}
            }
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(missed > 0 && told > 1000, "{missed} missed, {told} told");
    });
}

#[test]
fn a_server_that_lets_few_requests_pass_gets_them_all_in_the_end_and_refuses_what_is_too_much() {
    let config = ServerConfig { max_subscriptions: 200, ..ServerConfig::default() };
    let limit = RateLimit { capacity: 100, refill_per_second: 100.0, ..RateLimit::default() };
    let server = quiet(ServerConfig { rate_limit: Some(limit), ..config });
    let rig = Rig::new();
    let client = rig.connect(ClientConfig { port: server.engine.local_addr().port(), ..rig.config() });
    for n in 0..250 {
        client.subscribe(&format!("t{n}"), None).unwrap();
    }
    let (mut subscribed, mut refused) = (BTreeSet::new(), BTreeSet::new());
    while subscribed.len() + refused.len() < 250 {
        match rig.event(&client) {
            ClientEvent::Subscribed { filter, .. } => assert!(subscribed.insert(filter)),
            ClientEvent::SubscribeRefused { filter, code: 403, .. } => assert!(refused.insert(filter)),
            _ => {}
        }
    }
    assert_eq!((subscribed.len(), refused.len(), client.stats().subscriptions), (200, 50, 200));
    server.until("all of them", |stats| stats.subscriptions_active == 200);
    assert!(server.engine.stats().counts.rate_limited > 0);
}
