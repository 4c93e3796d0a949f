//! What the bus tells its host, and the seam through which it does.
//!
//! Owns the event types. Does not know queues, descriptors or languages: a [`Host`] takes the events.

use super::memory::Memory;
use super::node::Held;
use crate::wire::code;
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// `N` is what says which node it is: the node itself inside the engine, a copy of what is known about it elsewhere.
#[derive(Clone, Debug)]
pub enum Event<N = Held> {
    /// A connection was accepted; nobody registered on it yet.
    Connect { connection_id: u64, peer: SocketAddr },
    /// A node came online. Registering an id again on its own connection updates its metadata and is not told again.
    /// `count` is above 1 when the host was so slow that earlier events of the same node id were put together with it.
    Register { node: N, count: u32 },
    /// A heartbeat was answered. `count` is above 1 when the host was so slow that several were put together.
    Heartbeat { node: N, count: u32 },
    /// A node sent data. `channel_id` is the channel it arrived on, never 0.
    Data { node: N, channel_id: u32, payload: Bytes },
    /// A node left: exactly one of these follows each [`Event::Register`]. `count` is above 1 when the host was so slow
    /// that earlier events of the same node id were put together with this one.
    Left { node: N, how: Departure, count: u32 },
    /// As much waits for the connection of a node as may, or nothing any more. Each of its nodes is told [`Fill::Full`] when that
    /// happens, or when a push was refused, and then [`Fill::Drained`] once all has gone out. `count` is above 1 when several
    /// were put together for a slow host.
    Buffer { node: N, fill: Fill, count: u32 },
    /// A connection is gone.
    Close { connection_id: u64, reason: CloseReason },
    /// Something happened to a client of this process.
    Client { client_id: u64, event: ClientEvent },
}

impl<N> Event<N> {
    pub fn kind(&self) -> EventMask {
        match self {
            Event::Connect { .. } => EventMask::CONNECT,
            Event::Register { .. } => EventMask::REGISTER,
            Event::Heartbeat { .. } => EventMask::HEARTBEAT,
            Event::Data { .. } => EventMask::DATA,
            Event::Left { .. } => EventMask::LEFT,
            Event::Buffer { .. } => EventMask::BUFFER,
            Event::Close { .. } => EventMask::CLOSE,
            Event::Client { .. } => EventMask::CLIENT,
        }
    }

    /// What it counts for against a bound in bytes.
    pub fn payload_len(&self) -> usize {
        match self {
            Event::Data { payload, .. } => payload.len(),
            Event::Client { event, .. } => event.payload_len(),
            _ => 0,
        }
    }

    /// The node that it is about.
    pub fn node(&self) -> Option<&N> {
        match self {
            Event::Register { node, .. }
            | Event::Heartbeat { node, .. }
            | Event::Data { node, .. }
            | Event::Left { node, .. }
            | Event::Buffer { node, .. } => Some(node),
            Event::Connect { .. } | Event::Close { .. } | Event::Client { .. } => None,
        }
    }

    /// The same event about a node known otherwise.
    pub fn map_node<M>(self, map: impl FnOnce(N) -> M) -> Event<M> {
        match self {
            Event::Connect { connection_id, peer } => Event::Connect { connection_id, peer },
            Event::Register { node, count } => Event::Register { node: map(node), count },
            Event::Heartbeat { node, count } => Event::Heartbeat { node: map(node), count },
            Event::Data { node, channel_id, payload } => Event::Data { node: map(node), channel_id, payload },
            Event::Left { node, how, count } => Event::Left { node: map(node), how, count },
            Event::Buffer { node, fill, count } => Event::Buffer { node: map(node), fill, count },
            Event::Close { connection_id, reason } => Event::Close { connection_id, reason },
            Event::Client { client_id, event } => Event::Client { client_id, event },
        }
    }
}

impl Event {
    /// It says nothing any more: its node has left since, which is told by another.
    pub(crate) fn is_outdated(&self) -> bool {
        matches!(self, Event::Buffer { node, .. } if !node.is_online())
    }

    /// What the texts of its node take in memory.
    pub(crate) fn node_bytes(&self) -> usize {
        self.node().map_or(0, |node| node.bytes())
    }
}

/// How a node left. A node that leaves does so in exactly one of these ways.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It said so with UNREGISTER.
    Unregistered,
    /// No heartbeat for longer than the heartbeat timeout.
    TimedOut,
    /// A newer connection registered its id.
    Replaced,
    /// Its connection ended, or the host disconnected it.
    Disconnected,
}

impl Departure {
    pub const ALL: [Departure; 4] = [Departure::Unregistered, Departure::TimedOut, Departure::Replaced, Departure::Disconnected];
}

/// What waits for the connection of a node.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fill {
    /// As much as may: pushes are refused.
    Full,
    /// Nothing any more.
    Drained,
}

impl Fill {
    pub const ALL: [Fill; 2] = [Fill::Full, Fill::Drained];
}

/// Why a connection ended, as its server tells it, or as its client does.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    PeerClosed,
    IoError,
    BrokenStream,
    FrameTooLong,
    RegisterTimeout,
    HeartbeatTimeout,
    Replaced,
    Kicked,
    SlowConsumer,
    ServerFull,
    NotAllowed,
    ServerStopped,
    /// It could not be made. This and the following are a client's.
    ConnectFailed,
    /// The server refused to register its only node.
    Refused,
    /// The client's own host wanted it.
    Disconnected,
    /// Something in this engine failed that should not.
    Failed,
}

impl CloseReason {
    /// In the order of their numbers, which begin with 1 where they travel.
    pub const ALL: [CloseReason; 16] = [
        CloseReason::PeerClosed,
        CloseReason::IoError,
        CloseReason::BrokenStream,
        CloseReason::FrameTooLong,
        CloseReason::RegisterTimeout,
        CloseReason::HeartbeatTimeout,
        CloseReason::Replaced,
        CloseReason::Kicked,
        CloseReason::SlowConsumer,
        CloseReason::ServerFull,
        CloseReason::NotAllowed,
        CloseReason::ServerStopped,
        CloseReason::ConnectFailed,
        CloseReason::Refused,
        CloseReason::Disconnected,
        CloseReason::Failed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::PeerClosed => "peer closed",
            CloseReason::IoError => "connection lost",
            CloseReason::BrokenStream => "broken stream",
            CloseReason::FrameTooLong => "frame too long",
            CloseReason::RegisterTimeout => "register timeout",
            CloseReason::HeartbeatTimeout => "heartbeat timeout",
            CloseReason::Replaced => "replaced by a newer connection",
            CloseReason::Kicked => "disconnected by the server",
            CloseReason::SlowConsumer => "slow consumer",
            CloseReason::ServerFull => "server full",
            CloseReason::NotAllowed => "address not allowed",
            CloseReason::ServerStopped => "server stopped",
            CloseReason::ConnectFailed => "connect failed",
            CloseReason::Refused => "refused by the server",
            CloseReason::Disconnected => "disconnected",
            CloseReason::Failed => "internal error",
        }
    }

    /// The last words of a server to somebody who speaks v2 and would otherwise learn nothing.
    pub(crate) fn farewell(self) -> Option<(u16, &'static str)> {
        match self {
            CloseReason::Kicked => Some((code::NOT_ALLOWED, code::KICKED_TEXT)),
            CloseReason::HeartbeatTimeout => Some((code::NODE_TIMED_OUT, code::TIMED_OUT_TEXT)),
            CloseReason::SlowConsumer => Some((code::NODE_TIMED_OUT, code::SLOW_TEXT)),
            _ => None,
        }
    }

    /// What it means when these were a server's last words.
    pub(crate) fn of_last_words(error_code: i64, message: &str) -> Option<CloseReason> {
        Some(match (u16::try_from(error_code).ok()?, message) {
            (code::NOT_ALLOWED, code::KICKED_TEXT) => CloseReason::Kicked,
            (code::INVALID_REQUEST | code::NOT_AUTHENTICATED | code::NOT_ALLOWED, _) => CloseReason::Refused,
            (code::NODE_TIMED_OUT, code::SLOW_TEXT) => CloseReason::SlowConsumer,
            (code::NODE_TIMED_OUT, _) => CloseReason::HeartbeatTimeout,
            (code::REPLACED, _) => CloseReason::Replaced,
            (code::FRAME_TOO_LONG, _) => CloseReason::FrameTooLong,
            (code::FAILED, _) => CloseReason::BrokenStream,
            (code::UNAVAILABLE, code::SHUTTING_DOWN_TEXT) => CloseReason::ServerStopped,
            (code::UNAVAILABLE, _) => CloseReason::ServerFull,
            _ => return None,
        })
    }
}

/// Why a client's socket failed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ErrorCause {
    /// Nobody listens there.
    Refused,
    /// The name of the host has no address, as far as the system can tell.
    NoSuchHost,
    TimedOut,
    /// There is no way to the address.
    Unreachable,
    /// The connection broke.
    Lost,
    /// The system has no descriptor, port or memory left.
    Exhausted,
    Other,
}

impl ErrorCause {
    /// In the order of their numbers, which begin with 1 where they travel.
    pub const ALL: [ErrorCause; 7] = [
        ErrorCause::Refused,
        ErrorCause::NoSuchHost,
        ErrorCause::TimedOut,
        ErrorCause::Unreachable,
        ErrorCause::Lost,
        ErrorCause::Exhausted,
        ErrorCause::Other,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCause::Refused => "connection refused",
            ErrorCause::NoSuchHost => "no such host",
            ErrorCause::TimedOut => "timed out",
            ErrorCause::Unreachable => "unreachable",
            ErrorCause::Lost => "connection lost",
            ErrorCause::Exhausted => "out of resources",
            ErrorCause::Other => "other",
        }
    }
}

/// What happens to a client of this process, in the order in which it happens.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// Connected, and REGISTER is on its way.
    Connect,
    /// The server's register reply, for one of the client's nodes.
    Register {
        node_id: Arc<str>,
        channel_id: u32,
    },
    /// The server answered a heartbeat. `count` is above 1 when several were put together for a slow host.
    Heartbeat {
        count: u32,
    },
    /// `node_id` is the client's node that the channel belongs to; `None` when it is none's.
    Data {
        payload: Bytes,
        channel_id: i64,
        node_id: Option<Arc<str>>,
    },
    Pong,
    /// The server sent ERROR. `raw` is its text as it came, unless it is longer than 64 KiB: then only `code` and `message` are
    /// in it, which are what could be read of it. Of a message 1,000 bytes are kept.
    ServerError {
        raw: Bytes,
        code: i64,
        message: String,
    },
    /// The server refused to register a node, or took it away: it timed out (408), was replaced by a newer connection (409),
    /// or was disconnected (403). Only of a client that was given more nodes than its first. The client goes on without
    /// it, and it may be added again; the first node comes back with the next connection, unless it was replaced.
    NodeLost {
        node_id: Arc<str>,
        /// 0 when it was not registered.
        channel_id: u32,
        code: i64,
        message: String,
    },
    /// A socket error: code 1, the connection failed; code 2, sending failed.
    Error {
        code: i32,
        message: String,
        cause: ErrorCause,
    },
    /// The connection is gone (also after a connection that failed). `detail` says more than the reason, where there is more:
    /// the server's words, or the system's.
    Close {
        reason: CloseReason,
        detail: String,
    },
    /// The client will not come back and tells nothing more.
    Finished,
}

impl ClientEvent {
    /// The server can cause it as often as it likes, and there is something in it that takes memory: it waits for room as data
    /// do, and the server with it.
    pub(crate) fn waits_for_room(&self) -> bool {
        matches!(
            self,
            ClientEvent::Register { .. } | ClientEvent::Data { .. } | ClientEvent::ServerError { .. } | ClientEvent::NodeLost { .. }
        )
    }

    fn payload_len(&self) -> usize {
        match self {
            ClientEvent::Register { node_id, .. } => node_id.len(),
            ClientEvent::Data { payload, .. } => payload.len(),
            ClientEvent::ServerError { raw, message, .. } => raw.len() + message.len(),
            ClientEvent::NodeLost { node_id, message, .. } => node_id.len() + message.len(),
            ClientEvent::Error { message, .. } => message.len(),
            ClientEvent::Close { detail, .. } => detail.len(),
            ClientEvent::Connect | ClientEvent::Heartbeat { .. } | ClientEvent::Pong | ClientEvent::Finished => 0,
        }
    }
}

/// A set of event kinds: what a host subscribes to. Only subscribed events are queued.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct EventMask(pub u32);

impl EventMask {
    pub const NONE: EventMask = EventMask(0);
    pub const CONNECT: EventMask = EventMask(1);
    pub const REGISTER: EventMask = EventMask(1 << 1);
    pub const HEARTBEAT: EventMask = EventMask(1 << 2);
    pub const DATA: EventMask = EventMask(1 << 3);
    pub const LEFT: EventMask = EventMask(1 << 4);
    pub const CLOSE: EventMask = EventMask(1 << 5);
    pub const CLIENT: EventMask = EventMask(1 << 6);
    pub const BUFFER: EventMask = EventMask(1 << 7);
    pub const ALL: EventMask = EventMask((1 << 8) - 1);

    pub fn contains(self, other: EventMask) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for EventMask {
    type Output = EventMask;
    fn bitor(self, other: EventMask) -> EventMask {
        EventMask(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for EventMask {
    fn bitor_assign(&mut self, other: EventMask) {
        self.0 |= other.0;
    }
}

/// A producer of data events that was told to wait, and is told when there is room again.
pub trait Resume: Send + Sync {
    fn resume(&self);
}

/// Producers that wait for room. At most one entry per producer, for a paused one does not produce; those that are gone
/// meanwhile do not pile up.
#[derive(Default)]
pub(crate) struct Paused(Vec<Arc<dyn Resume>>);

impl Paused {
    pub(crate) fn push(&mut self, producer: Arc<dyn Resume>) {
        if self.0.len() == self.0.capacity() {
            // Nobody else has it any more: its connection is closed.
            self.0.retain(|producer| Arc::strong_count(producer) > 1);
            // Doubled, so that looking through them all costs little per producer.
            self.0.reserve(self.0.len() + 1);
        }
        self.0.push(producer);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// To be resumed outside of any lock: they may push at once.
    #[must_use]
    pub(crate) fn take(&mut self) -> Vec<Arc<dyn Resume>> {
        std::mem::take(&mut self.0)
    }
}

/// Takes the events of the bus. All methods may be called from every thread and return at once.
pub trait Host: Send + Sync {
    /// Told once, at the start, where the server counts what it keeps: what waits here is a part of it.
    fn attach(&self, _memory: &Arc<Memory>) {}

    fn wants(&self, kinds: EventMask) -> bool;

    /// Takes a data event, or hands it back when there is no room: the producer must then stop reading and try the same
    /// event again after `resume`.
    ///
    /// # Errors
    /// The event itself, when there is no room for it.
    fn push_data(&self, event: Event, bytes: usize, producer: Arc<dyn Resume>) -> Result<(), Event>;

    /// Takes a state event. Never refuses: at the bound, events of one node are put together.
    fn push_state(&self, event: Event);

    /// True when state events of new nodes have no room either: whoever would bring a new node or connection waits, and
    /// `producer` is resumed later.
    fn is_crowded(&self, producer: Option<Arc<dyn Resume>>) -> bool;
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ErrorCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
