//! What things cost in memory: allocations of the steady state, bytes of a connection that idles.
//!
//! Counted, not timed, so the figures are the same on every machine.

use allocation_counter::measure;
use heartbus_core::event::Resume;
use heartbus_core::hub::link::{Command, CommandSink};
use heartbus_core::hub::session::Context;
use heartbus_core::hub::thread_state::ThreadState;
use heartbus_core::hub::{Event, EventMask, Host, Hub, Link, Now, Session};
use heartbus_core::inbox::Inbox;
use heartbus_core::settings::{InboxLimits, ServerConfig};
use heartbus_core::wire::{self, Dialect, FrameType, v1};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

struct Nobody;

impl Host for Nobody {
    fn wants(&self, _kinds: EventMask) -> bool {
        false
    }

    fn push_data(&self, _event: Event, _bytes: usize, _producer: Arc<dyn Resume>) -> Result<(), Event> {
        Ok(())
    }

    fn push_state(&self, _event: Event) {}

    fn is_crowded(&self, _producer: Option<Arc<dyn Resume>>) -> bool {
        false
    }
}

impl CommandSink for Nobody {
    fn post(&self, _command: Command) {}
}

struct Thread {
    hub: Hub,
    state: ThreadState,
    now: u64,
}

fn now(micros: u64) -> Now {
    Now { mono: micros, unix: 1_700_000_000_000_000 + micros }
}

impl Thread {
    fn new() -> Self {
        Self::with_host(Arc::new(Nobody))
    }

    fn with_host(host: Arc<dyn Host>) -> Self {
        let limits = ServerConfig {
            heartbeat_timeout: Duration::from_micros(30_000_000),
            register_timeout: Duration::from_micros(30_000_000),
            max_nodes_per_connection: 10_000,
            max_nodes: 1_000_000,
            max_frame_bytes: 1 << 20,
            ..ServerConfig::default()
        };
        Self {
            hub: Hub::new(limits, host),
            state: ThreadState::new(0, Arc::default(), fastrand::Rng::with_seed(1), now(1_000_000)),
            now: 1_000_000,
        }
    }

    fn context(&mut self) -> Context<'_> {
        self.state.now = now(self.now);
        self.state.context(&self.hub)
    }

    fn open(&mut self, slot: u32) -> Session {
        let link = Arc::new(Link::new(u64::from(slot) + 1, ([127, 0, 0, 1], 1).into(), slot, Arc::new(Nobody)));
        Session::open(link, &mut self.context())
    }

    fn receive(&mut self, session: &mut Session, bytes: &[u8]) {
        let (consumed, _) = session.receive(&mut self.context(), bytes);
        assert_eq!(consumed, bytes.len());
        assert!(!self.state.replies.is_empty());
        self.state.replies.clear();
    }
}

fn frame(frame_type: u8, payload: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    v1::encode(frame_type, 0, payload.as_bytes(), &mut bytes).unwrap();
    bytes
}

#[test]
fn a_heartbeat_allocates_nothing_while_the_ready_made_reply_is_fresh_and_little_when_it_is_made() {
    let mut thread = Thread::new();
    let mut session = thread.open(0);
    thread.receive(&mut session, &frame(6, r#"{"node_id":"n"}"#));
    let channel = session.first_node().unwrap().channel_id();
    let timestamp = r#"{"timestamp":1700000000.25}"#;
    for (dialect, channel_id) in [(Dialect::V1, 0), (Dialect::V1, channel), (Dialect::V2, 0), (Dialect::V2, channel)] {
        let mut beat = Vec::new();
        wire::encode(dialect, FrameType::HEARTBEAT_REQ, channel_id, timestamp.as_bytes(), &mut beat).unwrap();
        // As they come in one read.
        let beats = beat.repeat(16);
        thread.receive(&mut session, &beats);
        let fresh = measure(|| {
            for _ in 0..1000 {
                thread.receive(&mut session, &beats);
            }
        });
        assert_eq!(fresh.count_total, 0, "{dialect:?} {channel_id}: {fresh:?}");
        let stale = measure(|| {
            for _ in 0..1000 {
                thread.now += 1_000;
                thread.receive(&mut session, &beat);
            }
        });
        assert!(stale.count_total <= 3 * 1000, "{dialect:?} {channel_id}: {stale:?}");
        assert_eq!(stale.count_current, 0, "{dialect:?} {channel_id}: {stale:?}");
    }
}

#[test]
fn what_could_be_logged_allocates_nothing_while_nobody_logs() {
    let mut thread = Thread::new();
    let mut session = thread.open(0);
    let frames = [frame(99, ""), frame(1, r#"{"timestamp":1700000000.25}"#)].concat();
    let cost = measure(|| {
        for _ in 0..1000 {
            assert_eq!(session.receive(&mut thread.context(), &frames).0, frames.len());
        }
    });
    assert_eq!(
        (cost.count_total, thread.state.counters.unknown_types.get(), thread.state.counters.heartbeats_ignored.get()),
        (0, 1000, 1000)
    );
}

#[test]
fn a_push_allocates_its_frame_and_nothing_else() {
    let mut thread = Thread::new();
    let mut session = thread.open(0);
    thread.receive(&mut session, &frame(6, r#"{"node_id":"n","protocol":2}"#));
    for dialect in [Dialect::V1, Dialect::V2] {
        let mut ping = Vec::new();
        wire::encode(dialect, FrameType::PING, 0, b"", &mut ping).unwrap();
        thread.receive(&mut session, &ping);
        thread.hub.send_to("n", b"the first one", 0).unwrap();
        let cost = measure(|| {
            for _ in 0..1000 {
                thread.hub.send_to("n", b"a \"payload\"", 0).unwrap();
            }
        });
        assert_eq!(cost.count_total, 1000, "{dialect:?}: {cost:?}");
    }
}

#[test]
fn a_message_to_the_host_allocates_its_body_and_nothing_else() {
    let inbox = Inbox::new(InboxLimits::default()).unwrap();
    inbox.subscribe(EventMask::DATA);
    let mut thread = Thread::with_host(inbox.clone());
    let mut session = thread.open(0);
    thread.receive(&mut session, &frame(6, r#"{"node_id":"n","protocol":2}"#));
    for (dialect, payload) in
        [(Dialect::V1, "plain"), (Dialect::V1, r#"{"quoted":"and / \u00e9 escaped"}"#), (Dialect::V1, "é"), (Dialect::V2, r#"{"raw":1}"#)]
    {
        let mut data = Vec::new();
        wire::encode(dialect, FrameType::DATA, 0, payload.as_bytes(), &mut data).unwrap();
        let mut drained = VecDeque::new();
        let mut messages = || {
            for _ in 0..100 {
                assert_eq!(session.receive(&mut thread.context(), &data).0, data.len());
            }
            assert_eq!(inbox.drain(&mut drained, 1000), 100);
            let Some(Event::Data { payload: told, .. }) = drained.back() else { panic!("{drained:?}") };
            assert_eq!(*told, payload.as_bytes());
            drained.clear();
        };
        messages();
        let cost = measure(messages);
        assert_eq!((cost.count_total, cost.count_current), (100, 0), "{dialect:?} {payload}: {cost:?}");
    }
}

#[test]
fn an_idle_registered_connection_is_small() {
    const CONNECTIONS: u32 = 10_000;
    let mut thread = Thread::new();
    let mut sessions = Vec::with_capacity(CONNECTIONS as usize);
    let cost = measure(|| {
        for slot in 0..CONNECTIONS {
            let mut session = thread.open(slot);
            thread.receive(&mut session, &frame(6, &format!(r#"{{"node_id":"node-{slot:06}"}}"#)));
            sessions.push(session);
        }
    });
    let bytes = cost.bytes_current / i64::from(CONNECTIONS) + size_of::<Session>() as i64;
    println!("{bytes} bytes per registered connection, of which {} in the session", size_of::<Session>());
    assert!(bytes <= 345, "{bytes} bytes per connection");
}

/// With what the transport has for each connection, 43 bytes, it is less than 600.
#[test]
fn an_idle_websocket_has_no_buffer_and_is_small() {
    const CONNECTIONS: u32 = 10_000;
    let mut thread = Thread::new();
    let mut sessions = Vec::with_capacity(CONNECTIONS as usize);
    let request =
        b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: heartbus.v2\r\n\r\n";
    let cost = measure(|| {
        for slot in 0..CONNECTIONS {
            let link = Arc::new(Link::new(u64::from(slot) + 1, ([127, 0, 0, 1], 1).into(), slot, Arc::new(Nobody)));
            let mut session = Session::open_websocket(link, &mut thread.context());
            thread.receive(&mut session, request);
            let mut register = Vec::new();
            let payload = format!(r#"{{"node_id":"node-{slot:06}"}}"#);
            wire::encode(Dialect::V2, FrameType::REGISTER, 0, payload.as_bytes(), &mut register).unwrap();
            // A mask of zeros, in two fragments with a ping in between.
            let (front, rest) = register.split_at(5);
            let head = |first: u8, len: usize| [first, 0x80 | len as u8, 0, 0, 0, 0];
            let fragments = [&head(0x02, front.len())[..], front, &head(0x89, 0), &head(0x80, rest.len()), rest].concat();
            thread.receive(&mut session, &fragments);
            sessions.push(session);
        }
    });
    assert_eq!((thread.hub.node_count(), sessions.iter().map(Session::kept_bytes).sum::<usize>()), (CONNECTIONS as usize, 0));
    let bytes = cost.bytes_current / i64::from(CONNECTIONS) + size_of::<Session>() as i64;
    println!("{bytes} bytes per idle WebSocket");
    assert!(bytes <= 550, "{bytes} bytes per WebSocket");
}

#[test]
fn a_node_among_many_on_one_connection_is_smaller() {
    const CONNECTIONS: u32 = 1_000;
    const NODES: u32 = 1_000;
    let mut thread = Thread::new();
    let mut sessions = Vec::with_capacity(CONNECTIONS as usize);
    let cost = measure(|| {
        for slot in 0..CONNECTIONS {
            let mut session = thread.open(slot);
            for node in 0..NODES {
                thread.receive(&mut session, &frame(6, &format!(r#"{{"node_id":"node-{slot:04}-{node:04}","metadata":[]}}"#)));
            }
            sessions.push(session);
        }
    });
    assert_eq!(thread.hub.node_count(), 1_000_000);
    let bytes = cost.bytes_current / i64::from(CONNECTIONS * NODES);
    println!("{bytes} bytes per node, of a million on {CONNECTIONS} connections");
    assert!(bytes <= 220, "{bytes} bytes per node");
}

#[test]
fn a_subscription_costs_at_most_64_bytes() {
    const SESSIONS: u32 = 100;
    const TOPICS: usize = 100;
    let mut thread = Thread::new();
    let mut sessions: Vec<Session> = (0..SESSIONS)
        .map(|slot| {
            let mut session = thread.open(slot);
            thread.receive(&mut session, &frame(6, &format!(r#"{{"node_id":"n{slot}"}}"#)));
            session
        })
        .collect();
    // The topics are there, and what is measured is what each subscriber more costs.
    let subscribes: Vec<Vec<u8>> = (0..TOPICS).map(|n| frame(9, &format!(r#"{{"filter":"topic/number/{n}"}}"#))).collect();
    let (first, others) = sessions.split_first_mut().unwrap();
    subscribes.iter().for_each(|subscribe| thread.receive(first, subscribe));
    let cost = measure(|| {
        for session in others.iter_mut() {
            subscribes.iter().for_each(|subscribe| thread.receive(session, subscribe));
        }
    });
    let each = cost.bytes_current as f64 / (others.len() * TOPICS) as f64;
    assert!((16.0..=64.0).contains(&each), "{each} bytes");
    assert_eq!(thread.hub.topics().subscription_count(), SESSIONS as usize * TOPICS);
}
