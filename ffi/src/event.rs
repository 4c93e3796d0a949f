//! An event as C sees it, and the translation of the engine's events into it.

use crate::arguments::{out, slice};
use crate::status::{guard, heartbus_status};
use bumpalo::Bump;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{
    Asked, ClientEvent, ConnectedPeer, Departure, Event, EventKind, EventMask, FeedEvent, Fill, FleetEvent, HostMessage, Position,
    Question, TopicChange, TopicMessage,
};
use heartbus_core::hub::node::Held;
use std::ffi::{CStr, c_char, c_void};
use std::net::SocketAddr;
use std::ptr;

/// What happened. Numbers are assigned once; new ones may be added, so a switch wants a default that ignores them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum heartbus_event_type {
    /// A connection may speak: it was accepted, and a WebSocket has shaken hands. connection_id, ip, port; text is what it came in by:
    /// "tcp", "websocket", "firetower".
    HEARTBUS_EVENT_CONNECT = 1,
    /// A node came online. The fields of a node, ip, port; payload is its metadata, JSON text.
    HEARTBUS_EVENT_REGISTER = 2,
    /// A node's heartbeat was answered. The fields of a node.
    HEARTBUS_EVENT_HEARTBEAT = 3,
    /// A node sent data. The fields of a node, payload; channel_id is the one it came on.
    HEARTBUS_EVENT_DATA = 4,
    /// A node signed off. The fields of a node, ip, port. Each node that came leaves with exactly one of these four.
    HEARTBUS_EVENT_UNREGISTER = 5,
    /// A node was silent for longer than heartbeat_timeout. As above.
    HEARTBUS_EVENT_TIMEOUT = 6,
    /// A newer connection registered the node's id. As above.
    HEARTBUS_EVENT_REPLACED = 7,
    /// The node's connection ended, or heartbus_server_disconnect was called. As above.
    HEARTBUS_EVENT_DISCONNECTED = 8,
    /// A connection is gone: the last that is told of it, once for each CONNECT. connection_id, ip, port; code is a heartbus_close_reason,
    /// text says it in words; payload is the user that a WebSocket client of Firetower's has said it is, where it has.
    HEARTBUS_EVENT_CLOSE = 9,
    /// As much waits for a node's connection as may (outbox_bytes), or a message for it was refused. The fields of a node.
    HEARTBUS_EVENT_BUFFER_FULL = 10,
    /// Nothing waits any more, after HEARTBUS_EVENT_BUFFER_FULL. As above.
    HEARTBUS_EVENT_BUFFER_DRAIN = 11,
    /// A publication of a topic that heartbus_server_subscribe_topics or heartbus_bus_subscribe_topics has asked for. text is the topic, payload
    /// what was published; node_id the node that has published it, NULL when it was none; heartbus_event_position, where the topic has one.
    HEARTBUS_EVENT_MESSAGE = 12,
    /// Publications that heartbus_bus_subscribe_topics has asked for are missing here. count is how many, because this program was too slow; 0:
    /// nobody knows, because the connection was made anew, or something is not kept any more. text is the topic or filter that it is about, NULL when
    /// it may be any of this handle. A program that keeps a picture looks afresh now.
    HEARTBUS_EVENT_MISSED = 13,
    /// A node wants to register, and waits for heartbus_server_decide, for decision_timeout at most; without an answer it is refused. number
    /// is that of the question; node_id, connection_id, ip, port; payload is what the node says of itself, JSON text. It is not there yet,
    /// and where its id is online on another connection, that goes on until the answer is 1.
    HEARTBUS_EVENT_AUTHENTICATE = 14,
    /// Somebody wants to subscribe, and waits for heartbus_server_decide or heartbus_server_decide_topics, for decision_timeout at most;
    /// without an answer it is refused. number is that of the question; payload has the topics and filters, each with a line feed behind it;
    /// ip, port, connection_id; the fields of a node, where it is one. A WebSocket client of Firetower's is none: node_id is NULL, and text
    /// is the user that it has said it is, where it has.
    HEARTBUS_EVENT_SUBSCRIBE_BEFORE = 15,
    /// Somebody wants to publish, and waits for heartbus_server_decide or heartbus_server_decide_publication, as above. text is the topic,
    /// payload what is to be published; number, ip, port, connection_id; the fields of a node, where it is one.
    HEARTBUS_EVENT_PUBLISH_BEFORE = 16,
    /// Somebody has subscribed, or was put into a topic. text is the topic or filter; ip, port, connection_id; the fields of a node, where it
    /// is one. A WebSocket client of Firetower's, and a gateway, are none: node_id is NULL, and payload is the user that a client has said it
    /// is, where it has. count is above 1 where several of one subscriber and topic were merged: this is the last of them.
    HEARTBUS_EVENT_SUBSCRIBE = 17,
    /// Somebody has subscribed no longer. As above. A node that leaves is told by its leaving alone; of a connection that has none the topics
    /// that are left are told before its CLOSE.
    HEARTBUS_EVENT_UNSUBSCRIBE = 18,
    /// A client is connected, and its REGISTER is on its way. client_id, as in all events of clients.
    HEARTBUS_EVENT_CLIENT_CONNECT = 101,
    /// The server registered a node of the client. node_id, channel_id.
    HEARTBUS_EVENT_CLIENT_REGISTER = 102,
    /// The server answered a heartbeat.
    HEARTBUS_EVENT_CLIENT_HEARTBEAT = 103,
    /// The server sent data. payload, channel_id; node_id is the client's node that the channel belongs to, NULL when it is none's.
    HEARTBUS_EVENT_CLIENT_DATA = 104,
    /// The server answered heartbus_client_ping.
    HEARTBUS_EVENT_CLIENT_PONG = 105,
    /// The server sent ERROR. code (a heartbus_error_code, when it is a Heartbus server), text, of which the first 1,000 bytes are kept;
    /// payload is all it sent, unless that is longer than 64 KiB: then it is a JSON object with code and text.
    HEARTBUS_EVENT_CLIENT_SERVER_ERROR = 106,
    /// A socket failed. code is a heartbus_client_error, text says more; cause is a heartbus_error_cause, payload says it in words.
    HEARTBUS_EVENT_CLIENT_ERROR = 107,
    /// The connection is gone, or could not be made. code is a heartbus_close_reason, text says it in words; payload says more, where
    /// there is more: the server's words, or the system's. With auto_reconnect the client tries again by itself.
    HEARTBUS_EVENT_CLIENT_CLOSE = 108,
    /// The client's last event: it will not connect again. Its client_id means nothing from the next poll on.
    HEARTBUS_EVENT_CLIENT_FINISHED = 109,
    /// The server refused to register a node, or took it away: it timed out, was replaced by a newer connection, or was
    /// disconnected. Only of a client with heartbus_client_add_node. node_id; channel_id, 0 when it was not registered; code (a
    /// heartbus_error_code), text. The client goes on without it, and it may be added again. The first node returns with
    /// the next connection, unless it was replaced.
    HEARTBUS_EVENT_CLIENT_NODE_LOST = 110,
    /// The server answered a subscription, after each connect anew. text is the topic or filter; heartbus_event_position of the last
    /// publication before it, where there is one. code is 1 when all messages behind the last one that was told follow, once and in order,
    /// and 0 when something is missing in front of the next one. So it also comes without having been asked for, without a position, where
    /// the server or the way to it has lost something, and of a filter after each reconnect: filters have no position to go on from.
    HEARTBUS_EVENT_CLIENT_SUBSCRIBED = 111,
    /// A message of a topic, which a node of the client has subscribed to or was put into by the server. text is the topic, payload what was
    /// published, node_id and channel_id whose it is, as in HEARTBUS_EVENT_CLIENT_DATA; heartbus_event_position, where the topic has one.
    HEARTBUS_EVENT_CLIENT_MESSAGE = 112,
    /// The server answered a heartbus_client_publish with a number. number; count is for how many subscriptions it was queued, which may be
    /// 0; heartbus_event_position, where the topic has one.
    HEARTBUS_EVENT_CLIENT_PUBLISHED = 113,
    /// The server refused a subscription, which the client does not have any more. text is the topic or filter; code (a
    /// heartbus_error_code), payload says it in words.
    HEARTBUS_EVENT_CLIENT_SUBSCRIBE_REFUSED = 114,
    /// The server refused a publication. text is the topic; code (a heartbus_error_code), payload says it in words; number, 0 when it has
    /// none.
    HEARTBUS_EVENT_CLIENT_PUBLISH_REFUSED = 115,
    /// A log message. code is a heartbus_log_level, text the message, time when it was written; payload is what belongs to it, a
    /// JSON object; client_id whose it is, 0 when no client's.
    HEARTBUS_EVENT_LOG = 201,
}
use heartbus_event_type::*;

/// What a server tells: a sum of these. Events that nobody asked for cost nothing.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(dead_code, reason = "C needs a name for 0")]
pub(crate) enum heartbus_events {
    HEARTBUS_ON_NOTHING = 0,
    HEARTBUS_ON_CONNECT = 1,
    HEARTBUS_ON_REGISTER = 2,
    HEARTBUS_ON_HEARTBEAT = 4,
    HEARTBUS_ON_DATA = 8,
    /// UNREGISTER, TIMEOUT, REPLACED and DISCONNECTED.
    HEARTBUS_ON_LEFT = 16,
    HEARTBUS_ON_CLOSE = 32,
    /// BUFFER_FULL and BUFFER_DRAIN.
    HEARTBUS_ON_BUFFER = 64,
    /// MESSAGE, of the topics that heartbus_server_subscribe_topics has asked for.
    HEARTBUS_ON_MESSAGE = 128,
    /// AUTHENTICATE: whoever asks for it decides which nodes may register, by heartbus_server_decide.
    HEARTBUS_ON_AUTHENTICATE = 256,
    /// SUBSCRIBE_BEFORE: whoever asks for it decides who may subscribe to what.
    HEARTBUS_ON_SUBSCRIBE_BEFORE = 512,
    /// PUBLISH_BEFORE: whoever asks for it decides what is published by nodes and by WebSocket clients of Firetower's.
    HEARTBUS_ON_PUBLISH_BEFORE = 1024,
    HEARTBUS_ON_SUBSCRIBE = 2048,
    HEARTBUS_ON_UNSUBSCRIBE = 4096,
}
/// The engine's set of events for a sum from C; None when it holds something unknown.
pub(crate) fn mask(events: u32) -> Option<EventMask> {
    let mut unknown = events;
    let mut mask = EventMask::NONE;
    for kind in EventKind::ALL {
        // C's bits are in the order of the kinds' numbers.
        let bit = 1 << (kind.number() - 1);
        if events & bit != 0 {
            unknown &= !bit;
            mask |= EventMask::of(kind);
        }
    }
    (unknown == 0).then_some(mask)
}

/// One event. Which fields it fills is said at its type; all others are 0 or NULL.
///
/// "The fields of a node" are node_id, connection_id and channel_id, its main channel.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub(crate) struct heartbus_event {
    pub r#type: heartbus_event_type,
    pub code: i32,
    /// The server's number for the connection, never used again.
    pub connection_id: u64,
    pub client_id: u64,
    pub channel_id: i64,
    /// How many events of this type (and of leaving and coming back, for a node) this one stands for: 1, or more when the
    /// program was too slow to take them all. Of HEARTBUS_EVENT_CLIENT_PUBLISHED, for how many subscriptions; of HEARTBUS_EVENT_MISSED, how
    /// many publications are missing, 0 when nobody knows.
    pub count: u32,
    pub port: u16,
    pub reserved16: u16,
    pub node_id: *const c_char,
    pub node_id_len: usize,
    /// Bytes, not NUL-terminated.
    pub payload: *const c_char,
    pub payload_len: usize,
    pub ip: *const c_char,
    pub ip_len: usize,
    pub text: *const c_char,
    pub text_len: usize,
    /// Of a log message: when it was written, in seconds since 1970. 0 for other types.
    pub time: f64,
    /// Of HEARTBUS_EVENT_CLIENT_ERROR: a heartbus_error_cause.
    pub cause: i32,
    /// Of a publication: the number that heartbus_client_publish was given. Of HEARTBUS_EVENT_AUTHENTICATE,
    /// HEARTBUS_EVENT_SUBSCRIBE_BEFORE and HEARTBUS_EVENT_PUBLISH_BEFORE: that of the question.
    pub number: u32,
    /// The pointer that the program attached to what the event is about, or NULL: to the node of a server's event; to the node that
    /// a client's event names, when the client was given it by heartbus_client_add_node, else to the client; to the handle that a log
    /// message is about. UNREGISTER, TIMEOUT, REPLACED, DISCONNECTED, CLIENT_NODE_LOST and CLIENT_FINISHED give it back: it is in no
    /// later event.
    pub user_data: *mut c_void,
}

impl heartbus_event {
    pub(crate) fn new(r#type: heartbus_event_type) -> Self {
        Self {
            r#type,
            code: 0,
            connection_id: 0,
            client_id: 0,
            channel_id: 0,
            count: 1,
            port: 0,
            reserved16: 0,
            node_id: ptr::null(),
            node_id_len: 0,
            payload: ptr::null(),
            payload_len: 0,
            ip: ptr::null(),
            ip_len: 0,
            text: ptr::null(),
            text_len: 0,
            time: 0.0,
            cause: 0,
            number: 0,
            user_data: ptr::null_mut(),
        }
    }
}

/// Where a publication stands among those of its topic. Offsets count from 1 within one epoch; another epoch is another life of the topic,
/// in which offsets mean something else.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct heartbus_position {
    pub offset: u64,
    pub epoch: u64,
}

impl From<Position> for heartbus_position {
    fn from(Position { offset, epoch }: Position) -> Self {
        Self { offset, epoch }
    }
}

impl From<heartbus_position> for Position {
    fn from(heartbus_position { offset, epoch }: heartbus_position) -> Self {
        Self { offset, epoch }
    }
}

/// The position that an event of a topic tells of. The event must be one that was polled last.
///
/// HEARTBUS_NOT_FOUND when it has none.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_event_position(event: *const heartbus_event, position: *mut heartbus_position) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's event and the place for the result, as the first page asks.
        let (event, target) = unsafe { (slice("event", event, 1)?, out("position", position)?) };
        let place =
            event.first().filter(|event| is_of_topic(event.r#type)).map_or(ptr::null(), |event| event.ip.cast::<heartbus_position>());
        if place.is_null() {
            return Err(Error::new(ErrorKind::NotFound, "The event has no position"));
        }
        // SAFETY: `keep_position` put it there, and it stays as the event does.
        target.write(unsafe { ptr::read_unaligned(place) });
        Ok(())
    })
}

fn is_of_topic(r#type: heartbus_event_type) -> bool {
    matches!(
        r#type,
        HEARTBUS_EVENT_MESSAGE | HEARTBUS_EVENT_CLIENT_SUBSCRIBED | HEARTBUS_EVENT_CLIENT_MESSAGE | HEARTBUS_EVENT_CLIENT_PUBLISHED
    )
}

/// In place of an address, which no event of a topic has: the size of an event is a promise.
fn keep_position(texts: &Bump, position: Option<Position>) -> *const c_char {
    position.map_or(ptr::null(), |position| ptr::from_ref(texts.alloc(heartbus_position::from(position))).cast())
}

/// Copies a text to where it stays until the arena is reset, with a NUL behind it.
pub(crate) fn keep(texts: &Bump, text: &str) -> (*const c_char, usize) {
    let kept = texts.alloc_slice_fill_copy(text.len() + 1, 0u8);
    kept[..text.len()].copy_from_slice(text.as_bytes());
    (kept.as_ptr().cast(), text.len())
}

/// The event for C. It points into `event` (payloads are not copied) and into `texts`.
pub(crate) fn of_server(event: &Event, texts: &Bump) -> heartbus_event {
    match event {
        Event::Connect { connection_id, peer, door } => {
            let (text, text_len) = keep(texts, door.as_str());
            let event = heartbus_event { connection_id: *connection_id, text, text_len, ..heartbus_event::new(HEARTBUS_EVENT_CONNECT) };
            with_peer(event, *peer, texts)
        }
        Event::Register { node, count } => {
            let (payload, payload_len) = keep(texts, &node.metadata());
            let event = heartbus_event { payload, payload_len, ..of_node(HEARTBUS_EVENT_REGISTER, node, *count, texts) };
            with_peer(event, node.peer(), texts)
        }
        Event::Heartbeat { node, count } => of_node(HEARTBUS_EVENT_HEARTBEAT, node, *count, texts),
        Event::Data { node, channel_id, payload } => heartbus_event {
            channel_id: (*channel_id).into(),
            payload: payload.as_ptr().cast(),
            payload_len: payload.len(),
            ..of_node(HEARTBUS_EVENT_DATA, node, 1, texts)
        },
        Event::Left { node, how, count } => {
            let r#type = match how {
                Departure::Unregistered => HEARTBUS_EVENT_UNREGISTER,
                Departure::TimedOut => HEARTBUS_EVENT_TIMEOUT,
                Departure::Replaced => HEARTBUS_EVENT_REPLACED,
                Departure::Disconnected => HEARTBUS_EVENT_DISCONNECTED,
            };
            with_peer(of_node(r#type, node, *count, texts), node.peer(), texts)
        }
        Event::Buffer { node, fill, count } => {
            let r#type = match fill {
                Fill::Full => HEARTBUS_EVENT_BUFFER_FULL,
                Fill::Drained => HEARTBUS_EVENT_BUFFER_DRAIN,
            };
            of_node(r#type, node, *count, texts)
        }
        Event::Message { message } => of_host_message(message, texts),
        Event::Question { question, node } => of_question(question, node.as_ref(), texts),
        Event::Topic { change, node, count } => of_topic_change(change, node.as_ref(), *count, texts),
        Event::Close { connection_id, reason, who } => {
            let (text, text_len) = keep(texts, reason.as_str());
            let code = reason.number().into();
            let event = heartbus_event { connection_id: *connection_id, code, text, text_len, ..heartbus_event::new(HEARTBUS_EVENT_CLOSE) };
            with_who(event, who, texts)
        }
    }
}

fn of_host_message(message: &HostMessage, texts: &Bump) -> heartbus_event {
    let HostMessage { topic, payload, position, from } = message;
    of_publication(HEARTBUS_EVENT_MESSAGE, from.as_deref(), topic, *position, payload, texts)
}

fn of_publication(
    kind: heartbus_event_type,
    of: Option<&str>,
    topic: &str,
    position: Option<Position>,
    payload: &[u8],
    texts: &Bump,
) -> heartbus_event {
    let (node_id, node_id_len) = of.map_or((ptr::null(), 0), |id| keep(texts, id));
    let (text, text_len) = keep(texts, topic);
    heartbus_event {
        node_id,
        node_id_len,
        text,
        text_len,
        ip: keep_position(texts, position),
        payload: payload.as_ptr().cast(),
        payload_len: payload.len(),
        ..heartbus_event::new(kind)
    }
}

/// The same of what a process is told of topics over the bus socket.
pub(crate) fn of_feed(event: &FeedEvent, texts: &Bump) -> heartbus_event {
    match event {
        FeedEvent::Message(message) => of_host_message(message, texts),
        FeedEvent::Missed { count, filter } => {
            let count = count.map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX));
            let (text, text_len) = filter.as_ref().map_or((ptr::null(), 0), |filter| keep(texts, filter));
            heartbus_event { count, text, text_len, ..heartbus_event::new(HEARTBUS_EVENT_MISSED) }
        }
    }
}

fn of_question(question: &Question, node: Option<&Held>, texts: &Bump) -> heartbus_event {
    let event = match &question.asked {
        Asked::Registration { node_id, metadata } => {
            let ((node_id, node_id_len), (payload, payload_len)) = (keep(texts, node_id), keep(texts, metadata));
            heartbus_event { node_id, node_id_len, payload, payload_len, ..heartbus_event::new(HEARTBUS_EVENT_AUTHENTICATE) }
        }
        Asked::Subscription { filters, user } => {
            let of_node = |node: &Held| of_node(HEARTBUS_EVENT_SUBSCRIBE_BEFORE, node, 1, texts);
            let event = node.map_or_else(|| heartbus_event::new(HEARTBUS_EVENT_SUBSCRIBE_BEFORE), of_node);
            let lines: String = filters.iter().flat_map(|filter| [&**filter, "\n"]).collect();
            let (payload, payload_len) = keep(texts, &lines);
            let (text, text_len) = user.as_ref().map_or((ptr::null(), 0), |user| keep(texts, user));
            heartbus_event { payload, payload_len, text, text_len, ..event }
        }
        Asked::Publication { topic, payload, .. } => {
            let of_node = |node: &Held| of_node(HEARTBUS_EVENT_PUBLISH_BEFORE, node, 1, texts);
            let event = node.map_or_else(|| heartbus_event::new(HEARTBUS_EVENT_PUBLISH_BEFORE), of_node);
            let (text, text_len) = keep(texts, topic);
            heartbus_event { payload: payload.as_ptr().cast(), payload_len: payload.len(), text, text_len, ..event }
        }
    };
    with_peer(heartbus_event { number: question.number, connection_id: question.connection_id, ..event }, question.peer, texts)
}

fn of_topic_change(change: &TopicChange, node: Option<&Held>, count: u32, texts: &Bump) -> heartbus_event {
    let kind = if change.has_subscribed { HEARTBUS_EVENT_SUBSCRIBE } else { HEARTBUS_EVENT_UNSUBSCRIBE };
    let event = node.map_or_else(|| heartbus_event { count, ..heartbus_event::new(kind) }, |node| of_node(kind, node, count, texts));
    let (text, text_len) = keep(texts, &change.topic);
    with_who(heartbus_event { connection_id: change.connection_id, text, text_len, ..event }, &change.who, texts)
}

fn with_who(event: heartbus_event, who: &ConnectedPeer, texts: &Bump) -> heartbus_event {
    let (payload, payload_len) = who.user.as_ref().map_or((ptr::null(), 0), |user| keep(texts, user));
    with_peer(heartbus_event { payload, payload_len, ..event }, who.address, texts)
}

fn of_node(r#type: heartbus_event_type, node: &heartbus_core::engine::Node, count: u32, texts: &Bump) -> heartbus_event {
    let (node_id, node_id_len) = keep(texts, node.id());
    heartbus_event {
        connection_id: node.connection_id(),
        channel_id: node.channel_id().into(),
        count,
        node_id,
        node_id_len,
        ..heartbus_event::new(r#type)
    }
}

fn with_peer(event: heartbus_event, peer: SocketAddr, texts: &Bump) -> heartbus_event {
    let (ip, ip_len) = keep(texts, &peer.ip().to_string());
    heartbus_event { ip, ip_len, port: peer.port(), ..event }
}

pub(crate) fn of_client(FleetEvent { client_id, event }: &FleetEvent, texts: &Bump) -> heartbus_event {
    let new = |r#type| heartbus_event { client_id: *client_id, ..heartbus_event::new(r#type) };
    match event {
        ClientEvent::Connect => new(HEARTBUS_EVENT_CLIENT_CONNECT),
        ClientEvent::Register { node_id, channel_id } => {
            let (node_id, node_id_len) = keep(texts, node_id);
            heartbus_event { node_id, node_id_len, channel_id: (*channel_id).into(), ..new(HEARTBUS_EVENT_CLIENT_REGISTER) }
        }
        ClientEvent::Heartbeat { count } => heartbus_event { count: *count, ..new(HEARTBUS_EVENT_CLIENT_HEARTBEAT) },
        ClientEvent::Data { payload, channel_id, node_id } => {
            let (node_id, node_id_len) = node_id.as_ref().map_or((ptr::null(), 0), |id| keep(texts, id));
            heartbus_event {
                node_id,
                node_id_len,
                channel_id: *channel_id,
                payload: payload.as_ptr().cast(),
                payload_len: payload.len(),
                ..new(HEARTBUS_EVENT_CLIENT_DATA)
            }
        }
        ClientEvent::Pong => new(HEARTBUS_EVENT_CLIENT_PONG),
        ClientEvent::ServerError { raw, code, message } => {
            let (text, text_len) = keep(texts, message);
            heartbus_event {
                // A code that no int holds is nothing a Heartbus server sends; the payload shows it.
                code: i32::try_from(*code).unwrap_or(0),
                text,
                text_len,
                payload: raw.as_ptr().cast(),
                payload_len: raw.len(),
                ..new(HEARTBUS_EVENT_CLIENT_SERVER_ERROR)
            }
        }
        ClientEvent::NodeLost { node_id, channel_id, code, message } => {
            let (node_id, node_id_len) = keep(texts, node_id);
            let (text, text_len) = keep(texts, message);
            heartbus_event {
                node_id,
                node_id_len,
                channel_id: (*channel_id).into(),
                code: i32::try_from(*code).unwrap_or(0),
                text,
                text_len,
                ..new(HEARTBUS_EVENT_CLIENT_NODE_LOST)
            }
        }
        ClientEvent::Error { code, message, cause } => {
            let (text, text_len) = keep(texts, message);
            let (payload, payload_len) = keep(texts, cause.as_str());
            let cause = cause.number().into();
            heartbus_event { code: *code, text, text_len, payload, payload_len, cause, ..new(HEARTBUS_EVENT_CLIENT_ERROR) }
        }
        ClientEvent::Close { reason, detail } => {
            let (text, text_len) = keep(texts, reason.as_str());
            let (payload, payload_len) = if detail.is_empty() { (ptr::null(), 0) } else { keep(texts, detail) };
            let code = reason.number().into();
            heartbus_event { code, text, text_len, payload, payload_len, ..new(HEARTBUS_EVENT_CLIENT_CLOSE) }
        }
        ClientEvent::Subscribed { filter, position, recovered } => {
            let (text, text_len) = keep(texts, filter);
            let ip = keep_position(texts, *position);
            heartbus_event { text, text_len, ip, code: i32::from(*recovered), ..new(HEARTBUS_EVENT_CLIENT_SUBSCRIBED) }
        }
        ClientEvent::Message(message) => {
            let TopicMessage { topic, position, payload, channel_id, node_id } = &**message;
            let event = of_publication(HEARTBUS_EVENT_CLIENT_MESSAGE, node_id.as_deref(), topic, *position, payload, texts);
            heartbus_event { client_id: *client_id, channel_id: *channel_id, ..event }
        }
        ClientEvent::Published { number, position, reach } => {
            let (ip, count) = (keep_position(texts, *position), u32::try_from(*reach).unwrap_or(u32::MAX));
            heartbus_event { number: *number, count, ip, ..new(HEARTBUS_EVENT_CLIENT_PUBLISHED) }
        }
        ClientEvent::SubscribeRefused { filter, code, message } => {
            let (text, text_len) = keep(texts, filter);
            let (payload, payload_len) = keep(texts, message);
            let code = i32::try_from(*code).unwrap_or(0);
            heartbus_event { text, text_len, payload, payload_len, code, ..new(HEARTBUS_EVENT_CLIENT_SUBSCRIBE_REFUSED) }
        }
        ClientEvent::PublishRefused { topic, number, code, message } => {
            let (text, text_len) = keep(texts, topic);
            let (payload, payload_len) = keep(texts, message);
            let (code, number) = (i32::try_from(*code).unwrap_or(0), number.unwrap_or(0));
            heartbus_event { text, text_len, payload, payload_len, code, number, ..new(HEARTBUS_EVENT_CLIENT_PUBLISH_REFUSED) }
        }
        ClientEvent::Finished => new(HEARTBUS_EVENT_CLIENT_FINISHED),
    }
}

/// The name of an event's type without its prefix, in lower case: "register", "client_data"; "unknown" for a number that
/// this library does not know. Lives as long as the program.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn heartbus_event_name(r#type: i32) -> *const c_char {
    const SERVER: [&CStr; 18] = [
        c"connect",
        c"register",
        c"heartbeat",
        c"data",
        c"unregister",
        c"timeout",
        c"replaced",
        c"disconnected",
        c"close",
        c"buffer_full",
        c"buffer_drain",
        c"message",
        c"missed",
        c"authenticate",
        c"subscribe_before",
        c"publish_before",
        c"subscribe",
        c"unsubscribe",
    ];
    const CLIENT: [&CStr; 15] = [
        c"client_connect",
        c"client_register",
        c"client_heartbeat",
        c"client_data",
        c"client_pong",
        c"client_server_error",
        c"client_error",
        c"client_close",
        c"client_finished",
        c"client_node_lost",
        c"client_subscribed",
        c"client_message",
        c"client_published",
        c"client_subscribe_refused",
        c"client_publish_refused",
    ];
    let name = match r#type {
        1..=18 => SERVER[r#type as usize - 1],
        101..=125 => CLIENT[r#type as usize - 101],
        201 => c"log",
        _ => c"unknown",
    };
    name.as_ptr()
}
