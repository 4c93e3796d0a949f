//! One thread's worth of sessions without sockets, with a clock that the test turns.

#![allow(dead_code, reason = "each test binary uses its part")]

use heartbus_core::event::{CloseReason, Question, Resume};
use heartbus_core::hub::link::{Command, CommandKind, CommandSink};
use heartbus_core::hub::session::Context;
use heartbus_core::hub::thread_state::ThreadState;
use heartbus_core::hub::wheel::TICK;
use heartbus_core::hub::{Departure, Event, EventMask, Host, Hub, Link, Look, Next, Now, Session, TimerKind};
use heartbus_core::settings::ServerConfig;
use heartbus_core::wire::{Decoded, v1};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

pub(crate) const TIMEOUT: u64 = 3_000_000;
pub(crate) const REGISTER_TIMEOUT: u64 = 2_000_000;

/// Keeps who came and who left, per node id. Who hears that a node left does not find it any more.
#[derive(Default)]
pub(crate) struct Recorder {
    pub events: Mutex<BTreeMap<String, Vec<&'static str>>>,
    silent: bool,
    hub: OnceLock<Weak<Hub>>,
    /// Whether there is room for data: nobody asks for it, while this is not set.
    pub room: OnceLock<AtomicBool>,
    /// Asks for heartbeats, and keeps whose they were.
    pub hears_heartbeats: AtomicBool,
    pub heartbeats: Mutex<Vec<String>>,
    /// Payloads of data that there was room for.
    pub data: Mutex<Vec<Vec<u8>>>,
    /// Producers of data that wait for room.
    pub paused: Mutex<Vec<Arc<dyn Resume>>>,
    /// What it wants to decide, and what it was asked.
    pub decides: AtomicU32,
    pub questions: Mutex<Vec<Arc<Question>>>,
    /// Which events of connections and topics it wants, and what it heard of them, in words.
    pub hooks: AtomicU32,
    pub told: Mutex<Vec<String>>,
    pub is_crowded: AtomicBool,
}

impl Host for Recorder {
    fn wants(&self, kinds: EventMask) -> bool {
        !self.silent && (EventMask::REGISTER | EventMask::LEFT).contains(kinds)
            || EventMask::DECISIONS.contains(kinds) && kinds.0 & self.decides.load(Ordering::Relaxed) != 0
            || kinds == EventMask::DATA && self.room.get().is_some()
            || kinds.0 & self.hooks.load(Ordering::Relaxed) != 0
            || kinds == EventMask::HEARTBEAT && self.hears_heartbeats.load(Ordering::Relaxed)
    }

    fn push_data(&self, event: Event, _bytes: usize, producer: Arc<dyn Resume>) -> Result<(), Event> {
        let has_room = self.room.get().map(|room| room.load(Ordering::Relaxed));
        match event {
            Event::Question { ref question, .. } if has_room != Some(false) => {
                self.questions.lock().unwrap().push(question.clone());
                return Ok(());
            }
            Event::Data { ref payload, .. } if has_room == Some(true) => {
                self.data.lock().unwrap().push(payload.to_vec());
                return Ok(());
            }
            _ => {}
        }
        self.paused.lock().unwrap().push(producer);
        Err(event)
    }

    fn push_state(&self, event: Event) {
        let (node, word) = match event {
            Event::Register { node, .. } => (node, "register"),
            Event::Left { node, how, .. } => {
                // The id of one that is replaced is about to be the next one's.
                if let Some(hub) = self.hub.get().and_then(Weak::upgrade).filter(|_| how != Departure::Replaced) {
                    assert!(hub.node(node.id()).is_none() && hub.node_of_channel(node.channel_id()).is_none());
                    assert!(hub.node_of_connection(node.connection_id()).is_none_or(|other| other.id() != node.id()));
                    assert_eq!(hub.page(None, 100).0.len(), hub.node_count().min(100));
                }
                (node, word(how))
            }
            Event::Heartbeat { node, .. } => return self.heartbeats.lock().unwrap().push(node.id().to_string()),
            event => return self.told.lock().unwrap().push(in_words(&event)),
        };
        self.events.lock().unwrap().entry(node.id().to_string()).or_default().push(word);
    }

    fn is_crowded(&self, producer: Option<Arc<dyn Resume>>) -> bool {
        let is_crowded = self.is_crowded.load(Ordering::Relaxed);
        self.paused.lock().unwrap().extend(producer.filter(|_| is_crowded));
        is_crowded
    }
}

pub(crate) fn in_words(event: &Event) -> String {
    match event {
        Event::Connect { connection_id, peer, door } => format!("connect {connection_id} {} {door}", peer.ip()),
        Event::Close { connection_id, reason, who } => {
            format!("close {connection_id} {} {}: {reason}", who.address.ip(), who.user.as_deref().unwrap_or("-"))
        }
        Event::Topic { change, node, count } => {
            let who = node.as_ref().map_or_else(|| change.who.user.as_deref().unwrap_or("-"), |node| node.id());
            let verb = if change.has_subscribed { "subscribe" } else { "unsubscribe" };
            format!("{verb} {} {who} {} x{count}", change.connection_id, change.topic)
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn word(how: Departure) -> &'static str {
    match how {
        Departure::Unregistered => "unregister",
        Departure::TimedOut => "timeout",
        Departure::Replaced => "replaced",
        Departure::Disconnected => "disconnected",
    }
}

/// Keeps the commands.
#[derive(Default)]
pub(crate) struct Commands(pub Mutex<Vec<Command>>);

impl CommandSink for Commands {
    fn post(&self, command: Command) {
        self.0.lock().unwrap().push(command);
    }
}

/// One thread's worth of sessions, with a clock that the test turns.
pub(crate) struct Bus {
    pub hub: Arc<Hub>,
    pub host: Arc<Recorder>,
    pub thread: ThreadState,
    pub now: u64,
    pub drained: Arc<Commands>,
    pub sessions: HashMap<u32, Session>,
    pub next_slot: u32,
    pub touched: u64,
}

impl Bus {
    pub(crate) fn new(silent: bool) -> Self {
        Self::with_limits(silent, |_| {})
    }

    pub(crate) fn with_limits(silent: bool, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let host = Arc::new(Recorder { silent, ..Recorder::default() });
        let mut limits = ServerConfig {
            heartbeat_timeout: Duration::from_micros(TIMEOUT),
            register_timeout: Duration::from_micros(REGISTER_TIMEOUT),
            max_nodes_per_connection: 10_000,
            max_nodes: 2_000_000,
            max_frame_bytes: 1 << 20,
            ..ServerConfig::default()
        };
        change(&mut limits);
        let hub = Arc::new(Hub::new(limits, host.clone()));
        host.hub.set(Arc::downgrade(&hub)).unwrap();
        // A multiple of the tick, so that the wheel's ticks are the model's.
        let now = 10 * TICK;
        Self {
            hub,
            host,
            thread: ThreadState::new(0, Arc::default(), fastrand::Rng::with_seed(1), Now { mono: now, unix: now }),
            now,
            drained: Arc::default(),
            sessions: HashMap::new(),
            next_slot: 0,
            touched: 0,
        }
    }

    pub(crate) fn with<T>(&mut self, slot: u32, work: impl FnOnce(&mut Session, &mut Context<'_>) -> T) -> Option<T> {
        let session = self.sessions.get_mut(&slot)?;
        self.thread.now = Now { mono: self.now, unix: self.now };
        let mut cx = self.thread.context(&self.hub);
        Some(work(session, &mut cx))
    }

    pub(crate) fn open(&mut self) -> u32 {
        self.open_as(Session::open)
    }

    pub(crate) fn open_as(&mut self, begin: impl FnOnce(Arc<Link>, &mut Context<'_>) -> Session) -> u32 {
        let slot = self.next_slot;
        self.next_slot += 1;
        let link = Arc::new(Link::new(u64::from(slot) + 1, ([127, 0, 0, 1], 1).into(), slot, self.drained.clone()));
        self.thread.now = Now { mono: self.now, unix: self.now };
        let mut cx = self.thread.context(&self.hub);
        let session = begin(link, &mut cx);
        self.sessions.insert(slot, session);
        slot
    }

    /// Feeds one frame, does what the session says, and returns the frames it answered with.
    pub(crate) fn send(&mut self, slot: u32, frame_type: u8, channel_id: i64, payload: &str) -> Vec<(u8, i64, String)> {
        let mut bytes = Vec::new();
        v1::encode(frame_type, channel_id, payload.as_bytes(), &mut bytes).unwrap();
        if let Some((consumed, next)) = self.with(slot, |session, cx| session.receive(cx, &bytes)) {
            assert_eq!(consumed, bytes.len());
            self.follow(slot, next);
        }
        let answers = self.answers();
        self.follow_commands();
        answers
    }

    pub(crate) fn answers(&mut self) -> Vec<(u8, i64, String)> {
        let mut answers = Vec::new();
        let mut rest = self.thread.replies.bytes();
        while let Decoded::Frame { frame, len } = v1::decode(rest, u32::MAX) {
            answers.push((frame.frame_type.0, frame.channel_id, String::from_utf8(frame.payload.bytes().into_owned()).unwrap()));
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
        self.thread.replies.clear();
        answers
    }

    pub(crate) fn register(&mut self, slot: u32, id: &str) -> Vec<(u8, i64, String)> {
        self.send(slot, 6, 0, &format!(r#"{{"node_id":"{id}"}}"#))
    }

    pub(crate) fn channel(&self, id: &str) -> i64 {
        self.hub.node(id).map_or(-1, |node| node.channel_id().into())
    }

    pub(crate) fn follow(&mut self, slot: u32, next: Next) {
        if let Next::Close(reason) = next {
            self.close(slot, reason);
        }
    }

    pub(crate) fn close(&mut self, slot: u32, reason: CloseReason) {
        self.with(slot, |session, cx| session.close(cx, reason));
        if let Some(session) = self.sessions.remove(&slot) {
            session.link().close();
        }
    }

    pub(crate) fn follow_commands(&mut self) {
        let commands = std::mem::take(&mut *self.drained.0.lock().unwrap());
        for Command { slot, kind, .. } in commands {
            if let CommandKind::Evict(eviction) = kind
                && let Some(next) = self.with(slot, |session, cx| session.evict(cx, eviction))
            {
                self.follow(slot, next);
            }
        }
        self.thread.replies.clear();
    }

    /// Does what a session is told that has what it waited for, and goes on as the shell does. Returns the frames it answered with.
    pub(crate) fn follow_decisions(&mut self) -> Vec<(u8, i64, String)> {
        let commands = std::mem::take(&mut *self.drained.0.lock().unwrap());
        for Command { slot, connection_id, kind } in commands {
            let CommandKind::Decide(answered) = kind else { continue };
            let is_meant = self.sessions.get(&slot).is_some_and(|session| session.link().connection_id() == connection_id);
            let decided = if is_meant { self.with(slot, |session, cx| session.decide(cx, *answered)).flatten() } else { None };
            self.go_on_after(slot, decided);
        }
        self.answers()
    }

    fn go_on_after(&mut self, slot: u32, decided: Option<Next>) {
        let Some(next) = decided else { return };
        self.follow(slot, next);
        if let Some((_, next)) = self.with(slot, |session, cx| session.receive(cx, &[])) {
            self.follow(slot, next);
        }
    }

    /// Turns the clock to the next tick and lets it fire.
    pub(crate) fn tick(&mut self) {
        self.turn_clock();
        self.thread.replies.clear();
        self.follow_commands();
    }

    /// The same, with the frames that sessions have sent by that.
    pub(crate) fn tick_and_listen(&mut self) -> Vec<(u8, i64, String)> {
        self.turn_clock();
        let answers = self.answers();
        self.follow_commands();
        answers
    }

    fn turn_clock(&mut self) {
        self.now = (self.now / TICK + 1) * TICK;
        while let Some((key, timer)) = self.thread.wheel.pop(self.now) {
            self.touched += 1;
            if timer.kind() == TimerKind::Decision {
                let decided = self.with(timer.slot(), |session, cx| session.decision_timer(cx, key)).flatten();
                self.go_on_after(timer.slot(), decided);
                continue;
            }
            let next = self.with(timer.slot(), |session, cx| match timer.kind() {
                TimerKind::Node(node) => session.node_timer(cx, key, node, Look::Empty),
                _ => session.register_timer(cx, key, Look::Empty),
            });
            self.follow(timer.slot(), next.expect("timers go with their session"));
        }
    }

    pub(crate) fn online(&self) -> BTreeSet<String> {
        self.hub.some_nodes(usize::MAX).iter().map(|node| node.id().to_string()).collect()
    }
}

pub(crate) fn frame(frame_type: u8, channel_id: i64, payload: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    v1::encode(frame_type, channel_id, payload.as_bytes(), &mut bytes).unwrap();
    bytes
}
