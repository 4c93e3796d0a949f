//! The bus socket: how processes of one machine talk to the engine next door. Hellos, frames, requests and answers.
//!
//! Owns the layout of everything but the hellos (`greeting`) and the events of a worker, which is the hub's (`hub::batch`). Does not know sockets,
//! users or what a request does. `docs/PROTOCOL.md` describes the bytes for other languages, and
//! `tests/vectors/bus.txt` pins them.
//!
//! Messages only grow: variants and fields are appended, and keep their numbers and places. What one side appended, the other skips
//! ([`decode`]) or answers with an error ([`unknown_variant`]), so that processes and their engine need not be replaced in one
//! moment. Any other change is a new [`MAJOR`].
//!
//! A caller opens with a [`Hello`], the engine with a greeting; both are laid out by hand and stay as they are in every
//! version, so that two versions can refuse each other in words. Behind them come frames: a length, and so many bytes.

mod codec;
mod feed;
mod greeting;
mod versions;

pub use crate::model::{ConnectionInfo, NodeInfo};
pub use codec::{DecodeError, append, decode, take, unknown_variant};
use codec::{as_bytes, encode};
pub use feed::{FeedMessage, SubscriberMessage};
pub use greeting::{
    Greeting, Hello, RemoteError, Role, VERSION, Version, Welcome, greeting_version, parse_greeting, parse_hello, write_hello,
    write_refusal, write_welcome,
};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
pub use versions::{APPENDED, MAJOR, MINOR};

/// Bytes of the length in front of each frame.
pub const LENGTH_LEN: usize = 4;

/// Longest frame, unless the engine was told to take longer messages: then its welcome says so.
pub const FRAME_CAP: u32 = 16 << 20;

/// Longest answer to a listing; a page ends earlier instead.
pub const PAGE_BYTES: usize = 1 << 20;

/// What a client may ask. Texts and data are borrowed, from the caller or from the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// `channel` 0 means the node's main channel. Answered with [`Reply::Done`] once it is queued.
    SendTo {
        node: &'a str,
        channel: u32,
        #[serde(serialize_with = "as_bytes")]
        data: &'a [u8],
    },
    /// [`Reply::Count`]: for how many of the nodes it was queued.
    SendMany {
        #[serde(borrow, deserialize_with = "few_texts")]
        nodes: Vec<&'a str>,
        #[serde(serialize_with = "as_bytes")]
        data: &'a [u8],
    },
    /// [`Reply::Count`]
    Broadcast {
        #[serde(serialize_with = "as_bytes")]
        data: &'a [u8],
    },
    /// [`Reply::Done`]
    Disconnect {
        node: &'a str,
    },
    /// [`Reply::Done`]
    KeepAlive {
        node: &'a str,
    },
    /// [`Reply::Node`], as of the next two.
    Node {
        id: &'a str,
    },
    NodeOfChannel {
        channel: u32,
    },
    NodeOfConnection {
        connection: u64,
    },
    /// [`Reply::Page`]: up to `limit` nodes behind `after`, fewer where they are long or hard to find. In a pattern `*`
    /// stands for any text and `?` for one character.
    Page {
        after: Option<u64>,
        limit: u32,
        id_pattern: Option<&'a str>,
        ip: Option<IpAddr>,
    },
    /// [`Reply::Stats`]
    Stats,
    /// [`Reply::Micros`]
    HeartbeatTimeout,
    /// [`Reply::Done`]
    SetHeartbeatTimeout {
        micros: u64,
    },
    /// [`Reply::Connections`]: up to `max`, fewer where the answer grows long.
    Connections {
        max: u32,
    },
    /// [`Reply::Done`]
    CloseDoor,
    /// [`Reply::Done`]: sets members of a node's metadata, by a JSON object. `channel` names one registration, 0 whichever there is.
    SetMetadata {
        node: &'a str,
        channel: u32,
        members: &'a str,
    },
    /// [`Reply::Page`], as [`Request::Page`], of nodes whose metadata has all members of this JSON object.
    Find {
        after: Option<u64>,
        limit: u32,
        id_pattern: Option<&'a str>,
        ip: Option<IpAddr>,
        metadata: &'a str,
    },
    /// [`Reply::Publication`]: to all who have subscribed to a topic, less some nodes.
    Publish {
        topic: &'a str,
        #[serde(serialize_with = "as_bytes")]
        data: &'a [u8],
        #[serde(borrow, deserialize_with = "few_texts")]
        except: Vec<&'a str>,
    },
    /// [`Reply::Count`]: as [`Request::Broadcast`], less some nodes.
    BroadcastExcept {
        #[serde(serialize_with = "as_bytes")]
        data: &'a [u8],
        #[serde(borrow, deserialize_with = "few_texts")]
        except: Vec<&'a str>,
    },
    /// [`Reply::Count`]: how many have subscribed to a topic.
    Subscribers {
        topic: &'a str,
    },
    /// [`Reply::Topics`]: up to `limit` topics behind `after`.
    Topics {
        after: Option<u64>,
        limit: u32,
    },
    /// [`Reply::Done`]: puts a node into a topic.
    Join {
        node: &'a str,
        topic: &'a str,
    },
    /// [`Reply::Done`]: ends a subscription of a node, to a topic or a filter, whoever has made it.
    Leave {
        node: &'a str,
        filter: &'a str,
    },
    /// [`Reply::Names`]: up to `limit` ids of nodes that are in a topic, behind `after`.
    Members {
        topic: &'a str,
        after: Option<u64>,
        limit: u32,
    },
    /// [`Reply::Names`]: topics and filters that a node has subscribed to or was put into.
    TopicsOf {
        node: &'a str,
    },
    /// [`Reply::Done`]: the answer to what the server has asked, by the number of the question.
    Decide {
        question: u32,
        #[serde(borrow)]
        decision: DecisionRecord<'a>,
    },
}

/// What is decided. Variants are appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecisionRecord<'a> {
    Refuse,
    Allow,
    /// A registration, with members of the node's metadata: a JSON object.
    AllowWithMetadata(&'a str),
    /// A subscription, to these topics and filters.
    AllowTopics(#[serde(borrow, deserialize_with = "few_texts")] Vec<&'a str>),
    /// A publication, of this instead of what was to be published.
    AllowPublication {
        topic: &'a str,
        #[serde(serialize_with = "as_bytes")]
        data: &'a [u8],
    },
}

impl Request<'_> {
    /// Only the server's own user and root may ask it: it changes how the server runs, or whom it lets in.
    pub fn is_for_owner(&self) -> bool {
        matches!(self, Request::SetHeartbeatTimeout { .. } | Request::CloseDoor | Request::Decide { .. })
    }
}

/// Nodes of one request. A frame of nothing but short ids would grow manifold when it is read.
pub const MAX_NODES: usize = 1 << 20;

fn few_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'de str>, D::Error> {
    struct Few;

    impl<'de> Visitor<'de> for Few {
        type Value = Vec<&'de str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "up to {MAX_NODES} texts")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = seq.next_element()? {
                if texts.len() == MAX_NODES {
                    return Err(A::Error::invalid_length(MAX_NODES + 1, &self));
                }
                texts.push(text);
            }
            Ok(texts)
        }
    }

    deserializer.deserialize_seq(Few)
}

/// A frame of a client: a request and the number that its answer will carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFrame<'a> {
    pub id: u32,
    #[serde(borrow)]
    pub request: Request<'a>,
}

/// A frame for a client. Answers come in the order of the requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    pub id: u32,
    pub result: Result<Reply, RemoteError>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Count(u64),
    Node(Option<NodeInfo>),
    /// `next` is what `after` is for the next page; none: this was the last one.
    Page {
        nodes: Vec<NodeInfo>,
        next: Option<u64>,
    },
    Stats(StatsRecord),
    Micros(u64),
    Connections(Vec<ConnectionInfo>),
    Publication(PublicationRecord),
    /// `next` as in [`Reply::Page`], here and below.
    Topics {
        topics: Vec<TopicRecord>,
        next: Option<u64>,
    },
    Names {
        names: Vec<String>,
        next: Option<u64>,
    },
}

/// What became of a publication.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationRecord {
    /// Offset and epoch; none where the topic has no positions.
    pub position: Option<(u64, u64)>,
    /// For how many subscriptions it was queued.
    pub reach: u64,
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRecord {
    pub name: String,
    pub subscribers: u64,
}

/// Numbers by name, so that a counter more or less changes no layout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsRecord {
    pub numbers: Vec<(Cow<'static, str>, u64)>,
    pub messages: DurationsRecord,
    pub heartbeats: DurationsRecord,
}

/// How many things took how long; the bounds are the hub's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurationsRecord {
    pub buckets: Vec<u64>,
    pub micros: u64,
}

/// A frame of a worker. None is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerMessage {
    /// From now on events may come: the bits of an event mask.
    Ready {
        mask: u32,
    },
    /// Other events than before.
    Subscribe {
        mask: u32,
    },
    /// All events of the oldest batch that was not acknowledged yet are done.
    Acknowledge {
        batch: u64,
    },
    /// No more batches, please; [`ServerMessage::Finished`] follows when those on their way are acknowledged.
    Leave,
    /// Copies of the data that arrives on a channel, whichever worker gets the events of its node.
    Watch {
        channel: u32,
    },
    Unwatch {
        channel: u32,
    },
    /// The last word of a worker that ends in the middle of its oldest batch: `done` events are done, the `begun` behind
    /// them may be, the rest were not looked at.
    AcknowledgePart {
        batch: u64,
        done: u32,
        begun: u32,
    },
    /// The engine's log messages, please: one of the workers that say so gets each of them.
    TakeLog,
    /// Copies of what is published to the topics that a filter matches, in the order of the topic.
    SubscribeTopics {
        filter: String,
    },
    UnsubscribeTopics {
        filter: String,
    },
}

/// A message of the engine's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub level: LineLevel,
    pub message: String,
    /// The inside of a JSON object; often empty.
    pub context: String,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineLevel {
    Error,
    Warning,
    Info,
    Debug,
}

/// What a frame for a worker is: its first byte.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    /// Events of a batch that goes on in the next frame.
    Part,
    /// The last events of a batch.
    Batch,
    /// The server is stopping: more events come, then [`ServerMessage::Finished`].
    Stopping,
    /// Nothing more comes.
    Finished,
    /// A message of the engine's log.
    Log,
}

impl ServerMessage {
    const ALL: [Self; 5] = [Self::Part, Self::Batch, Self::Stopping, Self::Finished, Self::Log];

    pub fn code(self) -> u8 {
        match self {
            Self::Part => 0,
            Self::Batch => 1,
            Self::Stopping => 2,
            Self::Finished => 3,
            Self::Log => 4,
        }
    }

    /// `None`: it came later, and is skipped.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|message| message.code() == code)
    }
}

/// The length of the frame that `input` begins with, its own four bytes included; `None` while even that is incomplete.
///
/// # Errors
/// It is longer than `cap`, known before anything of it is kept.
pub fn frame_len(input: &[u8], cap: u32) -> Result<Option<usize>, DecodeError> {
    let Some(&length) = input.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
    let length = u32::from_be_bytes(length);
    if length > cap {
        return Err(DecodeError("a frame is longer than it may be"));
    }
    Ok(Some(LENGTH_LEN + length as usize))
}

/// The first whole frame in `input`, without its length, and how many bytes it takes.
///
/// # Errors
/// As [`frame_len`].
pub fn frame(input: &[u8], cap: u32) -> Result<Option<(&[u8], usize)>, DecodeError> {
    let Some(len) = frame_len(input, cap)? else { return Ok(None) };
    Ok(input.get(LENGTH_LEN..len).map(|body| (body, len)))
}

/// Appends a frame whose body `write` appends.
pub fn write_frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_LEN]);
    write(out);
    let length = (out.len() - start - LENGTH_LEN) as u32;
    out[start..start + LENGTH_LEN].copy_from_slice(&length.to_be_bytes());
}

/// Appends a frame that holds one message.
pub fn write_message(out: &mut Vec<u8>, message: &impl Serialize) {
    write_frame(out, |out| append(out, message));
}

/// Appends a frame that holds nothing but what it is.
pub fn write_server_message(out: &mut Vec<u8>, news: ServerMessage) {
    write_frame(out, |out| out.push(news.code()));
}

/// Appends a frame with a message of the engine's log.
pub fn write_log(out: &mut Vec<u8>, line: &LogLine) {
    write_frame(out, |out| {
        out.push(ServerMessage::Log.code());
        out.extend_from_slice(&encode(line));
    });
}

/// The number of the request that this release does not know, and the request's own, if that is what the frame is.
pub fn unknown_request(frame: &[u8]) -> Option<(u32, u32)> {
    let (id, rest) = postcard::take_from_bytes::<u32>(frame).ok()?;
    unknown_variant::<Request<'_>>(rest).map(|kind| (id, kind))
}
