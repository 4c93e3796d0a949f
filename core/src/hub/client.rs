//! One client of a bus: what it says to the server, when it gives a connection up, and when it comes back.
//!
//! Pure: bytes, commands, the time and a seed come in; bytes, events and a [`ClientPhase`] come out. Knows no socket, no clock
//! and no queue of the host.

mod backoff;
mod client_log;
mod ending;
mod node_set;
mod outbox;
mod pace;
mod reading;
mod refusal;
mod topic_set;
mod topics;
mod verbs;

pub use self::client_log::ClientLog;
pub(crate) use self::client_log::MODULE as LOG_MODULE;
pub use self::refusal::ClientRefusal;

pub use self::backoff::backoff;
use self::node_set::Others;
use self::outbox::ClientOutbox;
use self::topic_set::TopicSet;
use super::Now;
use crate::model::{ClientEvent, CloseReason, ErrorCause};
use crate::settings::{ClientConfig, micros};
use crate::wire::{Dialect, FrameType, control};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// The codes of [`ClientEvent::Error`], which are Workerman's.
pub const CONNECT_FAILED: i32 = 1;
pub const SEND_FAILED: i32 = 2;

const SECOND: u64 = 1_000_000;

/// What the shell does next.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ClientPhase {
    /// Connect, then call `handle_connected` or `handle_connect_failed`.
    Dial,
    /// Write what waits, read while `is_reading`, and keep the deadline.
    Open,
    /// Write what waits or reach the deadline, close the socket, then call `handle_closed`.
    Flush,
    /// Close the socket at once, then call `handle_closed`.
    HangUp,
    /// Do nothing until the deadline.
    Wait,
    /// Nothing will happen any more.
    Finished,
}

/// How a socket ended, as far as it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketEnd {
    /// The server closed its side.
    Closed,
    /// It broke; in the system's words.
    Lost(String),
}

/// The life of one client.
///
/// The order of calls: one `handle_*` or verb, then `poll_event` until it returns `None`, then `fill_outbox`, then act as
/// [`ClientPhase`], `outbox` and `deadline` say. When the host has no room for an event, hand it back with `stall` and go on after `resume`.
pub struct ClientMachine {
    id: u64,
    settings: ClientConfig,
    client_log: Arc<ClientLog>,
    node_id: Arc<str>,
    random: fastrand::Rng,
    state: ClientState,
    /// This client was told to go, or was replaced: it does not come back.
    leaving: bool,
    attempts: u32,
    /// The server is going away and asked to come back within this time.
    window: Option<u64>,
    /// How often it did so in a row, without a connection in between that lived for a while.
    goaways: u32,
    registration: Option<RegisteredNode>,
    /// All nodes of a client that was given more than its first.
    others: Option<Box<Others>>,
    /// Of a client whose host has subscribed or published.
    topics: Option<Box<TopicSet>>,
    /// When it connected last.
    connected: Option<Now>,
    messages_sent: u64,
    messages_received: u64,
    reads_paused: u64,
    frames_refused: u64,
    /// What was read and is not yet decoded. Empty, and without memory, unless a frame is incomplete or the host is slow.
    input: BytesMut,
    outbox: ClientOutbox,
    events: VecDeque<ClientEvent>,
    /// The event that the host had no room for: until `resume` nothing is read or told.
    stalled: Option<ClientEvent>,
    paused: bool,
}

#[derive(Debug)]
enum ClientState {
    Dialing { since: u64 },
    Open(OpenConnection),
    Flushing { until: u64 },
    HangingUp { reason: CloseReason, detail: String },
    Waiting { until: u64 },
    Finished,
}

#[derive(Debug)]
struct OpenConnection {
    /// When it was made.
    since: u64,
    /// The server has answered a REGISTER with a reply.
    registered: bool,
    /// It has refused the REGISTER of a client that has one node, or perhaps has not looked at it.
    was_refused: bool,
    /// What this client writes. It reads both dialects.
    dialect: Dialect,
    next_heartbeat: u64,
    /// When the first heartbeat was sent that nothing has followed from the server.
    unanswered_since: Option<u64>,
    /// The socket takes no more for now.
    is_blocked: bool,
    /// Writing failed. What the server had sent before is still to be read: it may be the reason.
    is_mute: bool,
    /// Why writing failed, in the system's words.
    lost: Option<String>,
    /// What the last frame means if it stays the last.
    last_words: Option<(CloseReason, String)>,
}

/// The server's answer to a REGISTER, the last one that came.
#[derive(Debug)]
struct RegisteredNode {
    node_id: Arc<str>,
    channel_id: u32,
}

/// A copy of a client's numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientStats {
    pub connected: bool,
    /// `None` until the first register reply; kept afterwards.
    pub node_id: Option<Arc<str>>,
    pub channel_id: Option<u32>,
    /// How many of its nodes are registered at this moment.
    pub nodes: usize,
    /// Topics and filters that its host has subscribed to.
    pub subscriptions: usize,
    /// Heartbeats, data, publications and pings; not what registers and subscribes.
    pub messages_sent: u64,
    pub messages_received: u64,
    /// How often reading stopped because the host had no room for what was read.
    pub reads_paused: u64,
    /// Frames of the server that were no use: not to be understood, a reply to what was never asked, or a text of which only the
    /// beginning was kept.
    pub frames_refused: u64,
    /// Since the last registration.
    pub reconnect_attempts: u32,
    /// Unix seconds of the last connect; kept afterwards.
    pub connected_at: Option<f64>,
    /// The same moment on the monotonic clock.
    pub connected_mono: Option<u64>,
    /// Bytes that wait to be written.
    pub bytes_waiting: u64,
    /// What it keeps of what its server sends, of what waits to be written, and of what its host has subscribed to: the memory that it takes.
    pub bytes_kept: u64,
}

impl ClientMachine {
    /// A client that is about to dial. `seed` decides everything that is random.
    pub fn new(id: u64, settings: ClientConfig, client_log: Arc<ClientLog>, seed: u64, now: Now) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let node_id = match &settings.node_id {
            Some(id) => Arc::from(&**id),
            // As PHP's uniqid(): eight digits of seconds, five of microseconds.
            None => Arc::from(format!("client_{:08x}{:05x}_{:08x}", now.unix / SECOND, now.unix % SECOND, random.u32(..))),
        };
        Self {
            id,
            settings,
            client_log,
            node_id,
            random,
            state: ClientState::Dialing { since: now.mono },
            leaving: false,
            attempts: 0,
            window: None,
            goaways: 0,
            registration: None,
            others: None,
            topics: None,
            connected: None,
            messages_sent: 0,
            messages_received: 0,
            reads_paused: 0,
            frames_refused: 0,
            input: BytesMut::new(),
            outbox: ClientOutbox::default(),
            events: VecDeque::new(),
            stalled: None,
            paused: false,
        }
    }

    pub fn phase(&self) -> ClientPhase {
        match self.state {
            ClientState::Dialing { .. } => ClientPhase::Dial,
            ClientState::Open(_) => ClientPhase::Open,
            ClientState::Flushing { .. } => ClientPhase::Flush,
            ClientState::HangingUp { .. } => ClientPhase::HangUp,
            ClientState::Waiting { .. } => ClientPhase::Wait,
            ClientState::Finished => ClientPhase::Finished,
        }
    }

    /// When to call `handle_timeout`, on the monotonic clock.
    pub fn deadline(&self) -> Option<u64> {
        match &self.state {
            ClientState::Open(connection) => {
                let of_nodes = self.others.as_ref().and_then(|others| others.deadline());
                let of_topics = self.topics.as_ref().and_then(|topics| topics.deadline());
                Some(of_nodes.into_iter().chain(of_topics).fold(connection.next_heartbeat, u64::min))
            }
            ClientState::Flushing { until } | ClientState::Waiting { until } => Some(*until),
            ClientState::Dialing { .. } | ClientState::HangingUp { .. } | ClientState::Finished => None,
        }
    }

    pub fn settings(&self) -> &ClientConfig {
        &self.settings
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.state, ClientState::Open(_))
    }

    /// Whether the socket is to be read. False while the host has no room.
    pub fn is_reading(&self) -> bool {
        !self.paused
    }

    /// Whether silence may end the connection at the next deadline: then look for unread bytes before `handle_timeout`.
    pub fn awaits_reply(&self) -> bool {
        !self.paused && matches!(&self.state, ClientState::Open(connection) if connection.unanswered_since.is_some())
    }

    /// The id the server knows this client by.
    pub fn node_id(&self) -> Option<&Arc<str>> {
        self.registration.as_ref().map(|registration| &registration.node_id)
    }

    /// The id that its first node asks for, as the events of that node carry it.
    pub fn first_node(&self) -> &Arc<str> {
        &self.node_id
    }

    /// The id of an added node, as its events carry it: the same `Arc` until the node is removed or lost, and another one when it is added
    /// again.
    pub fn added_node(&self, node_id: &str) -> Option<Arc<str>> {
        self.others.as_ref()?.id_of(node_id).filter(|id| !Arc::ptr_eq(id, &self.node_id))
    }

    pub fn channel_id(&self) -> Option<u32> {
        self.registration.as_ref().map(|registration| registration.channel_id)
    }

    pub fn stats(&self) -> ClientStats {
        ClientStats {
            connected: self.is_connected(),
            node_id: self.node_id().cloned(),
            channel_id: self.channel_id(),
            nodes: match (&self.state, &self.others) {
                (ClientState::Open(_), Some(others)) => others.registered(),
                (ClientState::Open(connection), None) => connection.registered.into(),
                _ => 0,
            },
            subscriptions: self.topics.as_ref().map_or(0, |topics| topics.len()),
            messages_sent: self.messages_sent,
            messages_received: self.messages_received,
            reads_paused: self.reads_paused,
            frames_refused: self.frames_refused,
            reconnect_attempts: self.attempts,
            connected_at: self.connected.map(|at| at.unix_seconds_of(at.mono)),
            connected_mono: self.connected.map(|at| at.mono),
            bytes_waiting: self.outbox.len() as u64,
            bytes_kept: (self.kept() + self.topics.as_ref().map_or(0, |topics| topics.kept())) as u64,
        }
    }

    // ---- what arrived ----

    pub fn handle_connected(&mut self, now: Now) {
        if !matches!(self.state, ClientState::Dialing { .. }) {
            return;
        }
        self.client_log.connected(self.id, &self.settings.host, self.settings.port, now);
        self.connected = Some(now);
        self.state = ClientState::Open(OpenConnection {
            since: now.mono,
            registered: false,
            was_refused: false,
            dialect: Dialect::V1,
            next_heartbeat: now.mono + micros(self.settings.heartbeat_interval),
            unanswered_since: None,
            is_blocked: false,
            is_mute: false,
            lost: None,
            last_words: None,
        });
        match &mut self.others {
            Some(others) => others.start_over(&self.node_id),
            None => {
                let payload = control::register_payload(&self.node_id, &self.settings.metadata, now.unix, self.settings.protocol);
                self.outbox.push_control(Dialect::V1, FrameType::REGISTER, 0, &payload);
                self.client_log.registering(self.id, &self.node_id, now);
            }
        }
        self.events.push_back(ClientEvent::Connect);
    }

    /// `detail` is what the system says.
    pub fn handle_connect_failed(&mut self, cause: ErrorCause, detail: String, now: Now) {
        let ClientState::Dialing { since } = self.state else { return };
        let ClientConfig { host, port, .. } = &self.settings;
        let seconds = Seconds(now.mono - since);
        let message = if host.contains(':') && !host.starts_with('[') {
            format!("connect [{host}]:{port} fail after {seconds} seconds")
        } else {
            format!("connect {host}:{port} fail after {seconds} seconds")
        };
        self.tell_error(CONNECT_FAILED, message, cause, now);
        self.end_connection(CloseReason::ConnectFailed, detail, now);
    }

    /// Takes what was read. Any byte from the server is life.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        if let ClientState::Open(connection) = &mut self.state {
            connection.unanswered_since = None;
            self.input.extend_from_slice(bytes);
        }
    }

    /// Takes how much of the outbox was written; less than everything means that the socket takes no more for now.
    pub fn handle_written(&mut self, written: usize, now: Now) {
        self.outbox.consume(written);
        let ClientState::Open(connection) = &mut self.state else { return };
        // What had to wait has gone out, so the server's side took something meanwhile: it is slow, not gone. And the
        // heartbeat may have been in what waited.
        if connection.is_blocked && written > 0 && connection.unanswered_since.is_some() {
            connection.unanswered_since = Some(now.mono);
        }
        connection.is_blocked = !self.outbox.is_empty();
    }

    /// `detail` is what the system says.
    pub fn handle_write_failed(&mut self, cause: ErrorCause, detail: String, now: Now) {
        self.outbox = ClientOutbox::default();
        match &mut self.state {
            ClientState::Open(connection) => {
                connection.is_mute = true;
                connection.lost = Some(detail);
                self.tell_error(SEND_FAILED, "client closed".to_owned(), cause, now);
            }
            ClientState::Flushing { .. } => self.state = ClientState::HangingUp { reason: CloseReason::IoError, detail },
            _ => {}
        }
    }

    /// To be called at the deadline; earlier calls do nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.deadline().is_none_or(|deadline| now.mono < deadline) {
            return;
        }
        let interval = micros(self.settings.heartbeat_interval);
        let own = self.own_channel();
        match &mut self.state {
            // The time to go on with registering or subscribing: `fill_outbox` does.
            ClientState::Open(connection) if now.mono < connection.next_heartbeat => {}
            ClientState::Open(connection) => {
                let is_silent = connection.unanswered_since.is_some_and(|since| now.mono - since >= interval);
                // A server whose answers we do not read is not silent.
                if is_silent && !self.paused {
                    self.client_log.no_reply(self.id, &self.settings.host, self.settings.port, now);
                    self.hang_up(CloseReason::HeartbeatTimeout, "no heartbeat reply".to_owned());
                    return;
                }
                connection.next_heartbeat = now.mono + interval;
                connection.unanswered_since.get_or_insert(now.mono);
                // A beat more behind a full outbox would tell the server nothing new.
                if !connection.is_mute && self.outbox.len() <= self.settings.outbox_bytes {
                    // Channel 0 means all nodes.
                    match if self.settings.heartbeat_all { Some(0) } else { own } {
                        Some(channel_id) => {
                            let payload = control::heartbeat_payload(now.unix);
                            self.outbox.push_control(connection.dialect, FrameType::HEARTBEAT_REQ, channel_id, &payload);
                        }
                        // Something that is answered, so that a dead server is noticed.
                        None => self.outbox.push_control(connection.dialect, FrameType::PING, 0, b""),
                    }
                    self.messages_sent += 1;
                }
            }
            ClientState::Flushing { .. } => self.hang_up(CloseReason::Disconnected, String::new()),
            ClientState::Waiting { .. } => self.state = ClientState::Dialing { since: now.mono },
            ClientState::Dialing { .. } | ClientState::HangingUp { .. } | ClientState::Finished => {}
        }
    }

    // ---- what the host has no room for; what the application wants is in `verbs`, how connections end in `ending` ----

    /// As [`ClientStats::bytes_kept`], as far as it ends with the connection.
    pub fn kept(&self) -> usize {
        self.input.capacity() + self.outbox.kept() + self.stalled.as_ref().map_or(0, ClientEvent::payload_len)
    }

    /// The host had no room for this event, which `poll_event` returned last: it comes again after `resume`.
    pub fn stall(&mut self, event: ClientEvent) {
        self.stalled = Some(event);
        self.paused = true;
        self.reads_paused += 1;
    }

    /// The host has room again.
    pub fn resume(&mut self, now: Now) {
        self.paused = false;
        if let ClientState::Open(connection) = &mut self.state {
            // The silence was ours; what the server answered is only read from now on.
            if let Some(since) = &mut connection.unanswered_since {
                *since = now.mono;
            }
        }
    }

    // ---- what comes out ----

    /// The next thing to tell the host. Frames are decoded one by one, as the host has room for them.
    pub fn poll_event(&mut self, now: Now) -> Option<ClientEvent> {
        if self.paused {
            return None;
        }
        if let Some(event) = self.stalled.take().or_else(|| self.events.pop_front()) {
            return Some(event);
        }
        // An emptied queue would keep its memory.
        self.events = VecDeque::new();
        self.next_frame_event(now)
    }

    /// Puts the REGISTERs of nodes and the SUBSCRIBEs of topics that wait for their turn into the outbox, as far as they have room.
    pub fn fill_outbox(&mut self, now: Now) {
        self.ask_for_topics(now);
        self.ask_for_nodes(now);
    }

    fn ask_for_nodes(&mut self, now: Now) {
        let (Some(others), ClientState::Open(connection)) = (&mut self.others, &self.state) else { return };
        others.tick(now);
        // The other half is for data.
        while !connection.is_mute && self.outbox.len() <= self.settings.outbox_bytes / 2 {
            let Some((node_id, metadata)) = others.next(connection.registered) else { return };
            let metadata = metadata.unwrap_or(if Arc::ptr_eq(&node_id, &self.node_id) { &self.settings.metadata } else { "[]" });
            let payload = control::register_payload(&node_id, metadata, now.unix, self.settings.protocol);
            self.outbox.push_control(connection.dialect, FrameType::REGISTER, 0, &payload);
            self.client_log.registering_more(self.id, &node_id, now);
        }
    }

    /// What is to be written now.
    pub fn outbox(&self) -> &[u8] {
        self.outbox.bytes()
    }

    // ---- inside ----

    /// The first node's, while it is registered.
    fn own_channel(&self) -> Option<u32> {
        match &self.others {
            Some(others) => others.channel_of(&self.node_id).flatten(),
            None if matches!(self.state, ClientState::Open(OpenConnection { registered: true, .. })) => self.channel_id(),
            None => None,
        }
    }

    /// The id it asked for or, of a client with one node, the one that the server gave it.
    fn is_first(&self, node_id: &str) -> bool {
        *node_id == *self.node_id || (self.others.is_none() && self.node_id().is_some_and(|given| **given == *node_id))
    }

    fn sign_off(&mut self, channel_id: Option<u32>) {
        if let (ClientState::Open(OpenConnection { dialect, is_mute: false, .. }), Some(channel_id)) = (&self.state, channel_id) {
            self.outbox.push_control(*dialect, FrameType::UNREGISTER, channel_id, b"");
        }
    }

    fn queue(&mut self, frame_type: FrameType, channel_id: i64, payload: &[u8]) -> Result<(), ClientRefusal> {
        let dialect = match &self.state {
            ClientState::Open(connection) if !connection.is_mute => connection.dialect,
            _ => return Err(ClientRefusal::NotConnected),
        };
        self.outbox.push(dialect, frame_type, channel_id, payload, self.settings.outbox_bytes)?;
        self.messages_sent += 1;
        Ok(())
    }

    fn tell_error(&mut self, code: i32, message: String, cause: ErrorCause, now: Now) {
        self.client_log.failed(self.id, code, &message, cause, now);
        self.events.push_back(ClientEvent::Error { code, message, cause });
    }
}

/// Microseconds, shown as PHP shows `round(seconds, 4)`.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = (self.0 + 50) / 100;
        let (whole, fraction) = (units / 10_000, units % 10_000);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{fraction:04}").trim_end_matches('0'))
    }
}
