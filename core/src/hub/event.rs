//! What the bus tells its host, and the seam through which it does.
//!
//! Owns the event types. Does not know queues, descriptors or languages: a [`Host`] takes the events.

use super::Node;
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// `N` is what says which node it is: the node itself inside the engine, a copy of what is known about it elsewhere.
#[derive(Clone, Debug)]
pub enum Event<N = Arc<Node>> {
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
            Event::Close { .. } => EventMask::CLOSE,
            Event::Client { .. } => EventMask::CLIENT,
        }
    }

    /// What it counts for against a bound in bytes.
    pub fn payload_len(&self) -> usize {
        match self {
            Event::Data { payload, .. } | Event::Client { event: ClientEvent::Data { payload, .. }, .. } => payload.len(),
            _ => 0,
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
            Event::Close { connection_id, reason } => Event::Close { connection_id, reason },
            Event::Client { client_id, event } => Event::Client { client_id, event },
        }
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

/// Why a connection ended.
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
}

impl CloseReason {
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
    Data {
        payload: Bytes,
        channel_id: i64,
    },
    Pong,
    /// The server sent ERROR. `raw` is its text as it came; `code` and `message` are what could be read of it.
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
    },
    /// The connection is gone (also after a connection that failed).
    Close,
    /// The client will not come back and tells nothing more.
    Finished,
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
    pub const ALL: EventMask = EventMask((1 << 7) - 1);

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
