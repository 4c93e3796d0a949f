//! Plain values that every layer and every binding shares: the two families of events, their kinds, reasons and departures with the
//! numbers under which they travel, and records of nodes and connections.
//!
//! Owns these, and uses nothing of ours. What they mean, and when they happen, is the hub's. A number is assigned once: rows are
//! appended, and a retired number is never used again.

mod question;
mod record;

pub use self::question::{Asked, Decision, Question};
pub(crate) use self::record::NO_METADATA;
pub use self::record::{ConnectedPeer, ConnectionInfo, NodeInfo, TopicChange};
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Where a publication stands among those of its topic. Offsets count from 1 within one epoch; another epoch is another life of the
/// topic, in which offsets mean something else.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub offset: u64,
    pub epoch: u64,
}

/// An enum whose rows are `Variant = number` or `Variant = number "text"`. Numbers and texts come from the rows alone, so that no
/// variant is without.
macro_rules! numbered {
    (@texts $name:ident $($variant:ident)+) => {};
    (@texts $name:ident $($variant:ident $text:literal)+) => {
        impl $name {
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
    ($(#[doc = $about:literal])+ pub enum $name:ident {
        $($(#[doc = $doc:literal])* $variant:ident = $number:literal $($text:literal)?,)+
    }) => {
        $(#[doc = $about])+
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[doc = $doc])* $variant,)+ }

        impl $name {
            /// In the order of the rows.
            pub const ALL: [$name; [$($number),+].len()] = [$($name::$variant),+];

            /// The number under which it travels: never 0, which is a mistake or nothing.
            pub const fn number(self) -> u8 {
                match self { $($name::$variant => $number,)+ }
            }

            /// `None`: it came later than this release.
            pub const fn from_number(number: u8) -> Option<$name> {
                match number {
                    $($number => Some($name::$variant),)+
                    _ => None,
                }
            }
        }

        numbered!(@texts $name $($variant $($text)?)+);
    };
}

numbered! {
    /// What kind of [`ServerEvent`] it is.
    pub enum EventKind {
        Connect = 1,
        Register = 2,
        Heartbeat = 3,
        Data = 4,
        Left = 5,
        Close = 6,
        Buffer = 7,
        Message = 8,
        /// Whether a node may register.
        Authenticate = 9,
        /// Whether somebody may subscribe.
        SubscribeBefore = 10,
        /// Whether something may be published.
        PublishBefore = 11,
        /// Somebody has subscribed.
        Subscribe = 12,
        /// Somebody has subscribed no longer.
        Unsubscribe = 13,
    }
}

numbered! {
    /// What a connection came in by.
    pub enum ConnectedBy {
        Tcp = 1 "tcp",
        WebSocket = 2 "websocket",
        /// A gateway of Firetower's, or who publishes as one.
        Firetower = 3 "firetower",
    }
}

numbered! {
    /// What kind of [`ClientEvent`] it is.
    pub enum ClientEventKind {
        Connect = 1,
        Register = 2,
        Heartbeat = 3,
        Data = 4,
        Pong = 5,
        ServerError = 6,
        Error = 7,
        Close = 8,
        Finished = 9,
        NodeLost = 10,
        Subscribed = 11,
        Message = 12,
        Published = 13,
        SubscribeRefused = 14,
        PublishRefused = 15,
    }
}

numbered! {
    /// How a node left. A node that leaves does so in exactly one of these ways.
    pub enum Departure {
        /// It said so with UNREGISTER.
        Unregistered = 1,
        /// No heartbeat for longer than the heartbeat timeout.
        TimedOut = 2,
        /// A newer connection registered its id.
        Replaced = 3,
        /// Its connection ended, or the host disconnected it.
        Disconnected = 4,
    }
}

numbered! {
    /// What waits for the connection of a node.
    pub enum Fill {
        /// As much as may: pushes are refused.
        Full = 1,
        /// Nothing any more.
        Drained = 2,
    }
}

numbered! {
    /// Why a connection ended, as its server tells it, or as its client does.
    pub enum CloseReason {
        PeerClosed = 1 "peer closed",
        IoError = 2 "connection lost",
        BrokenStream = 3 "broken stream",
        FrameTooLong = 4 "frame too long",
        RegisterTimeout = 5 "register timeout",
        HeartbeatTimeout = 6 "heartbeat timeout",
        Replaced = 7 "replaced by a newer connection",
        Kicked = 8 "disconnected by the server",
        SlowConsumer = 9 "slow consumer",
        ServerFull = 10 "server full",
        NotAllowed = 11 "address not allowed",
        ServerStopped = 12 "server stopped",
        /// It could not be made. This and the following are a client's.
        ConnectFailed = 13 "connect failed",
        /// The server refused to register its only node.
        Refused = 14 "refused by the server",
        /// The client's own host wanted it.
        Disconnected = 15 "disconnected",
        /// Something in this engine failed that should not.
        Failed = 16 "internal error",
        /// The host has refused its only node, or has not decided in time.
        NotAuthenticated = 17 "not authenticated",
    }
}

numbered! {
    /// Why a client's socket failed.
    pub enum ErrorCause {
        /// Nobody listens there.
        Refused = 1 "connection refused",
        /// The name of the host has no address, as far as the system can tell.
        NoSuchHost = 2 "no such host",
        TimedOut = 3 "timed out",
        /// There is no way to the address.
        Unreachable = 4 "unreachable",
        /// The connection broke.
        Lost = 5 "connection lost",
        /// The system has no descriptor, port or memory left.
        Exhausted = 6 "out of resources",
        Other = 7 "other",
    }
}

/// A set of kinds, one bit each.
macro_rules! mask {
    ($name:ident, $kind:ident, $all:literal, $besides:expr) => {
        impl $name {
            pub const NONE: $name = $name(0);
            #[doc = $all]
            pub const ALL: $name = {
                let (mut all, mut at) = (0, 0);
                while at < $kind::ALL.len() {
                    all |= $name::of($kind::ALL[at]).0;
                    at += 1;
                }
                $name(all & !$besides)
            };
        }

        impl std::ops::BitOr for $name {
            type Output = $name;
            fn bitor(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }
        }

        impl std::ops::BitOrAssign for $name {
            fn bitor_assign(&mut self, other: $name) {
                self.0 |= other.0;
            }
        }
    };
}

/// A set of kinds of server events: what somebody subscribes to. Only what is subscribed to is queued.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct EventMask(pub u32);

mask!(EventMask, EventKind, "All that only tell: whoever asks for a decision is to be answered.", EventMask::DECISIONS.0);

impl EventMask {
    pub const CONNECT: Self = Self::of(EventKind::Connect);
    pub const REGISTER: Self = Self::of(EventKind::Register);
    pub const HEARTBEAT: Self = Self::of(EventKind::Heartbeat);
    pub const DATA: Self = Self::of(EventKind::Data);
    pub const LEFT: Self = Self::of(EventKind::Left);
    pub const CLOSE: Self = Self::of(EventKind::Close);
    pub const BUFFER: Self = Self::of(EventKind::Buffer);
    pub const MESSAGE: Self = Self::of(EventKind::Message);
    pub const AUTHENTICATE: Self = Self::of(EventKind::Authenticate);
    pub const SUBSCRIBE_BEFORE: Self = Self::of(EventKind::SubscribeBefore);
    pub const PUBLISH_BEFORE: Self = Self::of(EventKind::PublishBefore);
    pub const SUBSCRIBE: Self = Self::of(EventKind::Subscribe);
    pub const UNSUBSCRIBE: Self = Self::of(EventKind::Unsubscribe);
    /// What is asked before it happens, and waits for an answer.
    pub const DECISIONS: Self = Self(Self::AUTHENTICATE.0 | Self::SUBSCRIBE_BEFORE.0 | Self::PUBLISH_BEFORE.0);

    /// The bit that stands for a kind, on the bus socket as well. Bit 6 is retired: it stood for the events of clients.
    pub const fn of(kind: EventKind) -> Self {
        Self(match kind {
            EventKind::Connect => 1,
            EventKind::Register => 1 << 1,
            EventKind::Heartbeat => 1 << 2,
            EventKind::Data => 1 << 3,
            EventKind::Left => 1 << 4,
            EventKind::Close => 1 << 5,
            EventKind::Buffer => 1 << 7,
            EventKind::Message => 1 << 8,
            EventKind::Authenticate => 1 << 9,
            EventKind::SubscribeBefore => 1 << 10,
            EventKind::PublishBefore => 1 << 11,
            EventKind::Subscribe => 1 << 12,
            EventKind::Unsubscribe => 1 << 13,
        })
    }

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The same of the events of clients.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientEventMask(pub u32);

mask!(ClientEventMask, ClientEventKind, "All of them.", 0);

impl ClientEventMask {
    pub const fn of(kind: ClientEventKind) -> Self {
        Self(1 << (kind.number() - 1))
    }
}

/// What happens on a server. `N` is what says which node it is: the node itself inside the engine, a copy of what is known about it elsewhere.
/// Those with a payload come last, so that one look tells the others from them.
#[derive(Clone, Debug)]
pub enum ServerEvent<N> {
    /// A connection may speak; nobody registered on it yet. A WebSocket's has shaken hands.
    Connect { connection_id: u64, peer: SocketAddr, door: ConnectedBy },
    /// A node came online. Registering an id again on its own connection updates its metadata and is not told again.
    /// `count` is above 1 when the host was so slow that earlier events of the same node id were merged with it.
    Register { node: N, count: u32 },
    /// A heartbeat was answered. `count` is above 1 when the host was so slow that several were merged.
    Heartbeat { node: N, count: u32 },
    /// A node left: exactly one of these follows each [`ServerEvent::Register`]. `count` is above 1 when the host was so slow
    /// that earlier events of the same node id were merged with this one.
    Left { node: N, how: Departure, count: u32 },
    /// As much waits for the connection of a node as may, or nothing any more. Each of its nodes is told [`Fill::Full`] when that
    /// happens, or when a push was refused, and then [`Fill::Drained`] once all has gone out. `count` is above 1 when several
    /// were merged for a slow host.
    Buffer { node: N, fill: Fill, count: u32 },
    /// A connection is gone: what is told of it last, once for each [`ServerEvent::Connect`].
    Close { connection_id: u64, reason: CloseReason, who: Arc<ConnectedPeer> },
    /// Somebody has subscribed to a topic or filter, or no longer; `node` is who, where it is a node. A node that leaves has subscribed no
    /// longer by that, without being told of each. `count` is above 1 when several of one subscriber and topic were merged for a slow host.
    Topic { change: Arc<TopicChange>, node: Option<N>, count: u32 },
    /// A node sent data. `channel_id` is the channel it arrived on, never 0.
    Data { node: N, channel_id: u32, payload: Bytes },
    /// A publication of a topic that the host has subscribed to.
    Message { message: Arc<HostMessage> },
    /// The host is to decide, before it happens. Whoever asks waits for that, for `decision_timeout` at most. `node` is who wants it, where
    /// it is a node.
    Question { question: Arc<Question>, node: Option<N> },
}

impl Asked {
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Registration { .. } => EventKind::Authenticate,
            Self::Subscription { .. } => EventKind::SubscribeBefore,
            Self::Publication { .. } => EventKind::PublishBefore,
        }
    }
}

impl Question {
    #[cold]
    #[inline(never)]
    pub fn kind(&self) -> EventKind {
        self.asked.kind()
    }
}

impl TopicChange {
    #[cold]
    #[inline(never)]
    pub fn kind(&self) -> EventKind {
        if self.has_subscribed { EventKind::Subscribe } else { EventKind::Unsubscribe }
    }
}

/// A publication as the host gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMessage {
    pub topic: Arc<str>,
    pub payload: Bytes,
    /// `None` where the topic has none: nobody has subscribed to it by its name, and nothing of it is kept.
    pub position: Option<Position>,
    /// The id of the node that has published it; `None`: it was no node.
    pub from: Option<Arc<str>>,
}

/// What a process is told of the topics that it has subscribed to over the bus socket of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedEvent {
    Message(Arc<HostMessage>),
    /// So many publications are missing here, because this process was too slow; `None`: nobody knows how many, because the connection was
    /// made anew, or is not kept any more. Whoever keeps a picture looks afresh now.
    Missed {
        count: Option<u64>,
        /// Of which topic or filter of this process; `None`: of any of them.
        filter: Option<Arc<str>>,
    },
}

impl<N> ServerEvent<N> {
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Connect { .. } => EventKind::Connect,
            Self::Register { .. } => EventKind::Register,
            Self::Heartbeat { .. } => EventKind::Heartbeat,
            Self::Data { .. } => EventKind::Data,
            Self::Left { .. } => EventKind::Left,
            Self::Buffer { .. } => EventKind::Buffer,
            Self::Close { .. } => EventKind::Close,
            Self::Message { .. } => EventKind::Message,
            Self::Question { question, .. } => question.kind(),
            Self::Topic { change, .. } => change.kind(),
        }
    }

    /// What it counts for against a bound in bytes.
    #[inline]
    pub fn payload_len(&self) -> usize {
        let has_payload = matches!(self, Self::Data { .. } | Self::Message { .. } | Self::Question { .. });
        if has_payload { self.len_of_payload() } else { 0 }
    }

    /// Apart, so that events without one do not pay for it.
    #[inline(never)]
    fn len_of_payload(&self) -> usize {
        match self {
            Self::Data { payload, .. } => payload.len(),
            Self::Message { message } => message.payload.len(),
            Self::Question { question, .. } => question.payload_len(),
            _ => 0,
        }
    }

    /// The node that it is about.
    pub fn node(&self) -> Option<&N> {
        match self {
            Self::Register { node, .. }
            | Self::Heartbeat { node, .. }
            | Self::Data { node, .. }
            | Self::Left { node, .. }
            | Self::Buffer { node, .. } => Some(node),
            Self::Question { node, .. } | Self::Topic { node, .. } => node.as_ref(),
            Self::Connect { .. } | Self::Close { .. } | Self::Message { .. } => None,
        }
    }

    /// The same event about a node known otherwise.
    pub fn map_node<M>(self, map: impl FnOnce(N) -> M) -> ServerEvent<M> {
        match self {
            Self::Connect { connection_id, peer, door } => ServerEvent::Connect { connection_id, peer, door },
            Self::Register { node, count } => ServerEvent::Register { node: map(node), count },
            Self::Heartbeat { node, count } => ServerEvent::Heartbeat { node: map(node), count },
            Self::Data { node, channel_id, payload } => ServerEvent::Data { node: map(node), channel_id, payload },
            Self::Left { node, how, count } => ServerEvent::Left { node: map(node), how, count },
            Self::Buffer { node, fill, count } => ServerEvent::Buffer { node: map(node), fill, count },
            Self::Close { connection_id, reason, who } => ServerEvent::Close { connection_id, reason, who },
            Self::Message { message } => ServerEvent::Message { message },
            Self::Question { question, node } => ServerEvent::Question { question, node: node.map(map) },
            Self::Topic { change, node, count } => ServerEvent::Topic { change, node: node.map(map), count },
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
    /// The server answered a heartbeat. `count` is above 1 when several were merged for a slow host.
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
    /// The server's answer to a subscription, after each connect anew. `position` is that of the last publication before it; `None` for a
    /// filter, which matches many topics and has none. Messages that were published behind the last one that was told follow, once and in
    /// order, unless `recovered` is false: then something is missing in front of the next message. So it is also told in the middle, without
    /// a position, where the server or the way to it has lost something; and of a filter after each reconnect.
    Subscribed {
        filter: Arc<str>,
        position: Option<Position>,
        recovered: bool,
    },
    /// A publication of a topic that a node of this client has subscribed to, or was put into by the server.
    Message(Box<TopicMessage>),
    /// The server's answer to a publication that has a number: for how many subscriptions it was queued, and its position, where the topic
    /// has positions.
    Published {
        number: u32,
        position: Option<Position>,
        reach: u64,
    },
    /// The server refused a subscription, which the client does not have any more.
    SubscribeRefused {
        filter: Arc<str>,
        code: i64,
        message: String,
    },
    /// The server refused a publication, with its number where it has one.
    PublishRefused {
        topic: String,
        number: Option<u32>,
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

/// A publication as a client's node gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicMessage {
    pub topic: Arc<str>,
    /// `None` where the topic has no positions: nobody has subscribed to it by its name, and nothing of it is kept.
    pub position: Option<Position>,
    pub payload: Bytes,
    pub channel_id: i64,
    /// The client's node that the channel belongs to; `None` when it is none's.
    pub node_id: Option<Arc<str>>,
}

impl ClientEvent {
    pub fn kind(&self) -> ClientEventKind {
        match self {
            Self::Connect => ClientEventKind::Connect,
            Self::Register { .. } => ClientEventKind::Register,
            Self::Heartbeat { .. } => ClientEventKind::Heartbeat,
            Self::Data { .. } => ClientEventKind::Data,
            Self::Pong => ClientEventKind::Pong,
            Self::ServerError { .. } => ClientEventKind::ServerError,
            Self::Error { .. } => ClientEventKind::Error,
            Self::Close { .. } => ClientEventKind::Close,
            Self::Finished => ClientEventKind::Finished,
            Self::NodeLost { .. } => ClientEventKind::NodeLost,
            Self::Subscribed { .. } => ClientEventKind::Subscribed,
            Self::Message(_) => ClientEventKind::Message,
            Self::Published { .. } => ClientEventKind::Published,
            Self::SubscribeRefused { .. } => ClientEventKind::SubscribeRefused,
            Self::PublishRefused { .. } => ClientEventKind::PublishRefused,
        }
    }

    /// The server can cause it as often as it likes, and there is something in it that takes memory: it waits for room as data
    /// do, and the server with it.
    pub(crate) fn waits_for_room(&self) -> bool {
        matches!(
            self,
            Self::Register { .. }
                | Self::Data { .. }
                | Self::ServerError { .. }
                | Self::NodeLost { .. }
                | Self::Subscribed { .. }
                | Self::Message(_)
                | Self::Published { .. }
                | Self::SubscribeRefused { .. }
                | Self::PublishRefused { .. }
        )
    }

    /// What it counts for against a bound in bytes.
    pub(crate) fn payload_len(&self) -> usize {
        match self {
            Self::Register { node_id, .. } => node_id.len(),
            Self::Data { payload, .. } => payload.len(),
            Self::ServerError { raw, message, .. } => raw.len() + message.len(),
            Self::NodeLost { node_id, message, .. } => node_id.len() + message.len(),
            Self::Subscribed { filter, .. } => filter.len(),
            Self::Message(message) => message.topic.len() + message.payload.len(),
            Self::SubscribeRefused { filter, message, .. } => filter.len() + message.len(),
            Self::PublishRefused { topic, message, .. } => topic.len() + message.len(),
            Self::Error { message, .. } => message.len(),
            Self::Close { detail, .. } => detail.len(),
            Self::Connect | Self::Heartbeat { .. } | Self::Pong | Self::Published { .. } | Self::Finished => 0,
        }
    }
}

/// What happened to one of the clients that share a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetEvent {
    pub client_id: u64,
    pub event: ClientEvent,
}

#[cfg(test)]
mod tests;
