//! What the server logs: texts, levels and fields of the PHP library, and how many lines a peer can cause.

use heartbus_core::event::{CloseReason, Resume};
use heartbus_core::hub::link::{Command, CommandSink, Eviction};
use heartbus_core::hub::session::Context;
use heartbus_core::hub::thread_state::ThreadState;
use heartbus_core::hub::{Event, EventMask, Host, Hub, Link, Look, Next, NodeRef, Now, Session, Timer, TimerKind};
use heartbus_core::settings::{RateLimit, RateLimitBy, ServerConfig};
use heartbus_core::wire::v1;
use std::fmt::{Debug, Write};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Level, Metadata, Subscriber};

/// Keeps what is logged: `LEVEL message {field=value}`.
struct Log {
    level: Level,
    lines: Arc<Mutex<Vec<String>>>,
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => write!(self.fields, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for Log {
    /// Asked each time: an answer that is kept could be that of another test's log.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.lines.lock().unwrap().push(format!("{} {}{}", event.metadata().level(), line.message, line.fields));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What is logged at this level while the work is done.
fn logged(level: Level, work: impl FnOnce()) -> Vec<String> {
    // While there is only one, a thread that has none answers for all. So there are always two.
    static OTHERS: LazyLock<[Dispatch; 2]> =
        LazyLock::new(|| [Level::ERROR; 2].map(|level| Dispatch::new(Log { level, lines: Arc::default() })));
    LazyLock::force(&OTHERS);
    let lines = Arc::<Mutex<Vec<String>>>::default();
    tracing::subscriber::with_default(Log { level, lines: lines.clone() }, work);
    let mut kept = lines.lock().unwrap();
    std::mem::take(&mut kept)
}

struct Nobody;

impl Host for Nobody {
    fn wants(&self, _kinds: EventMask) -> bool {
        false
    }

    fn push_data(&self, event: Event, _bytes: usize, _producer: Arc<dyn Resume>) -> Result<(), Event> {
        Err(event)
    }

    fn push_state(&self, _event: Event) {}

    fn is_crowded(&self, _producer: Option<Arc<dyn Resume>>) -> bool {
        false
    }
}

impl CommandSink for Nobody {
    fn post(&self, _command: Command) {}
}

const SECOND: u64 = 1_000_000;
const TIMEOUT: u64 = 3 * SECOND;

struct Thread {
    hub: Hub,
    state: ThreadState,
    now: u64,
}

impl Thread {
    fn new(capacity: Option<u32>) -> Self {
        let limits = ServerConfig {
            heartbeat_timeout: Duration::from_micros(TIMEOUT),
            register_timeout: Duration::from_micros(100 * TIMEOUT),
            max_nodes_per_connection: 2,
            max_nodes: 1000,
            max_frame_bytes: 1000,
            outbox_bytes: 1000,
            rate_limit: capacity.map(|capacity| RateLimit { capacity, refill_per_second: 0.0, by: RateLimitBy::Connection }),
            ..ServerConfig::default()
        };
        Self {
            hub: Hub::new(limits, Arc::new(Nobody)),
            state: ThreadState::new(4, Arc::default(), fastrand::Rng::with_seed(1), now(SECOND)),
            now: SECOND,
        }
    }

    fn context(&mut self) -> Context<'_> {
        self.state.now = now(self.now);
        self.state.context(&self.hub)
    }

    fn open(&mut self, id: u64) -> Session {
        let link = Arc::new(Link::new(id, ([10, 0, 0, 1], 5000).into(), 0, Arc::new(Nobody)));
        Session::open(link, &mut self.context())
    }

    fn receive(&mut self, session: &mut Session, frame_type: u8, payload: &str) -> Next {
        self.raw(session, &frame(frame_type, payload))
    }

    fn raw(&mut self, session: &mut Session, bytes: &[u8]) -> Next {
        session.receive(&mut self.context(), bytes).1
    }

    fn register(&mut self, session: &mut Session, id: &str) {
        self.receive(session, 6, &format!(r#"{{"node_id":"{id}"}}"#));
    }
}

fn now(micros: u64) -> Now {
    Now { mono: micros, unix: 1_700_000_000_000_000 + micros }
}

fn frame(frame_type: u8, payload: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    v1::encode(frame_type, 0, payload.as_bytes(), &mut bytes).unwrap();
    bytes
}

#[test]
fn a_node_s_coming_and_each_way_of_going_is_one_line() {
    let lines = logged(Level::INFO, || {
        let mut thread = Thread::new(None);
        let (mut a, mut b) = (thread.open(1), thread.open(2));
        thread.register(&mut a, "x");
        thread.receive(&mut a, 1, "{}");
        thread.receive(&mut a, 7, "");
        thread.register(&mut a, "x");
        thread.register(&mut a, "x");
        let channel_id = thread.hub.node("x").unwrap().channel_id();
        thread.register(&mut b, "x");
        a.evict(&mut thread.context(), Eviction { node: NodeRef::of_main_channel(channel_id), why: CloseReason::Replaced });
        a.close(&mut thread.context(), CloseReason::Replaced);
        thread.register(&mut b, "y");
        let [x, y] = ["x", "y"].map(|id| thread.hub.node(id).unwrap());
        thread.now += TIMEOUT + SECOND / 2;
        let is_of_x = |timer: &Timer| timer.kind() == TimerKind::Node(x.reference());
        let (key, _) = std::iter::from_fn(|| thread.state.wheel.pop(thread.now)).find(|(_, timer)| is_of_x(timer)).unwrap();
        b.node_timer(&mut thread.context(), key, x.reference(), Look::Empty);
        thread.hub.disconnect("y", &thread.state.counters).unwrap();
        // The connection ends before it hears of the eviction.
        b.close(&mut thread.context(), CloseReason::PeerClosed);
        drop(y);
    });
    assert_eq!(
        lines,
        [
            r#"INFO Node registered node_id="x" connection_id=1 channel_id=1"#,
            r#"INFO Node unregistered node_id="x" connection_id=1"#,
            r#"INFO Node registered node_id="x" connection_id=1 channel_id=2"#,
            r#"INFO Node registered node_id="x" connection_id=2 channel_id=3"#,
            r#"INFO Node replaced node_id="x" connection_id=1"#,
            r#"INFO Node registered node_id="y" connection_id=2 channel_id=4"#,
            r#"WARN Node timeout node_id="x" last_heartbeat=3.5"#,
            r#"INFO Node disconnected node_id="y" connection_id=2"#,
        ]
    );
}

#[test]
fn what_is_refused_is_logged_with_its_reason() {
    let lines = logged(Level::WARN, || {
        let mut thread = Thread::new(Some(8));
        let mut session = thread.open(7);
        thread.receive(&mut session, 1, "{}");
        thread.receive(&mut session, 99, "");
        thread.receive(&mut session, 5, "");
        thread.raw(&mut session, b"\xAB\x12\x03\0\0\0\x02[1");
        thread.receive(&mut session, 6, r#"{"node_id":""}"#);
        thread.register(&mut session, "a");
        thread.register(&mut session, "b");
        thread.register(&mut session, "c");
        thread.receive(&mut session, 4, "");
        thread.raw(&mut session, b"GET / HTTP/1.1\r\n");
        let mut other = thread.open(8);
        thread.raw(&mut other, b"\xAB\x12\x03\0\0\x10\0");
    });
    let trace = r#"trace="connection 7 of 10.0.0.1:5000""#;
    assert_eq!(
        lines,
        [
            "WARN Heartbeat from unregistered connection connection_id=7".to_owned(),
            "WARN Unknown message type: 99".to_owned(),
            "WARN Unknown message type: 5".to_owned(),
            format!("ERROR Failed to handle message: Invalid message payload {trace}"),
            format!("ERROR Failed to handle message: Invalid node id {trace}"),
            format!("ERROR Failed to handle message: Too many nodes on this connection {trace}"),
            "WARN Rate limit exceeded ip=10.0.0.1".to_owned(),
            format!("ERROR Failed to handle message: Invalid message magic: 0x4745 {trace}"),
            r#"ERROR Failed to handle message: Frame too long: 4096 bytes trace="connection 8 of 10.0.0.1:5000""#.to_owned(),
        ]
    );
}

#[test]
fn a_heartbeat_that_is_answered_and_data_that_is_dropped_are_no_lines() {
    let lines = logged(Level::TRACE, || {
        let mut thread = Thread::new(None);
        let mut session = thread.open(1);
        thread.receive(&mut session, 3, "dropped");
        thread.receive(&mut session, 4, "");
        thread.register(&mut session, "a");
        for _ in 0..100 {
            thread.receive(&mut session, 1, "{}");
        }
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn a_flood_is_ten_lines_per_second_and_a_count() {
    let lines = logged(Level::INFO, || {
        let mut thread = Thread::new(None);
        let mut session = thread.open(1);
        for second in 0..3 {
            thread.now = (second + 1) * SECOND;
            for _ in 0..1000 {
                thread.receive(&mut session, 99, "");
                thread.receive(&mut session, 1, "{}");
            }
            for part in 0..10 {
                thread.state.connection_log.tell_left_out(now((second + 1) * SECOND + part * SECOND / 10));
            }
        }
        assert!(!thread.state.connection_log.tell_counts(), "all is told");
    });
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(lines.len(), 3 * 22, "{lines:#?}");
    assert_eq!((count("Unknown message type: 99"), count("Heartbeat from unregistered connection connection_id")), (30, 30));
    assert_eq!(count(r#"WARN Log messages left out of="Unknown message type" count=990"#), 3);
    assert_eq!(count(r#"WARN Log messages left out of="Heartbeat from unregistered connection" count=990"#), 3);
}

#[test]
fn nodes_that_come_and_go_in_a_loop_are_bounded_too_and_counted_at_the_end() {
    let lines = logged(Level::INFO, || {
        let mut thread = Thread::new(None);
        let mut session = thread.open(1);
        for _ in 0..1500 {
            thread.register(&mut session, "x");
            thread.receive(&mut session, 7, "");
        }
        assert!(thread.state.connection_log.tell_counts());
    });
    assert_eq!(lines.len(), 2002);
    assert_eq!(lines[2000..], ["Node registered", "Node disconnected"].map(|of| format!("INFO Log messages left out of={of:?} count=500")));
}

#[test]
fn what_is_not_logged_is_not_counted_as_left_out() {
    let lines = logged(Level::ERROR, || {
        let mut thread = Thread::new(None);
        let mut session = thread.open(1);
        for _ in 0..1000 {
            thread.receive(&mut session, 99, "");
        }
        assert!(!thread.state.connection_log.tell_counts());
    });
    assert_eq!(lines, [""; 0]);
}
