//! Batches as bytes: what a worker gets over the bus socket, laid out by hand because there are many of them.
//!
//! Owns this layout, both ways; all integers are big-endian. The description of a node is that of answers ([`crate::wire::bus`]). Does not
//! know which worker gets what, nor sockets.
//!
//! One batch is one frame, or several when it is long. A node is described where a frame mentions it first, and named by
//! its place in that order from then on, so a frame is read from the front to the back and costs each node once.

use super::dispatch::{Batch, Delivery};
use super::event::Event;
use super::{Node, NodeInfo, Now};
use crate::model::{
    Asked, CloseReason, ConnectedBy, ConnectedPeer, Departure, EventKind, Fill, HostMessage, Position, Question, TopicChange,
};
use crate::wire::bus::{DecodeError, ServerMessage, Version, append, take, write_frame};
use bytes::{Buf, Bytes};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// A frame that has become this long ends, and the batch goes on in the next.
const FRAME_BYTES: usize = 512 << 10;

/// What is in the first byte of an event beside the number of its kind.
const KIND: u8 = 0x3f;
const WATCHED: u8 = 0x40;
const REDELIVERED: u8 = 0x80;

/// What the first byte of a message says is there.
const HAS_POSITION: u8 = 1;
const HAS_PUBLISHER: u8 = 2;

/// Above the family of an address: the number of the door that a connection came in by.
const DOOR: u32 = 4;
const FAMILY: u8 = 0x0f;

/// What a reason has where the peer follows, since minor version 3.
const HAS_PEER: u8 = 0x80;
const SAYS_WHO: u8 = 3;

/// Who it was is not said.
const NOBODY: ConnectedPeer = ConnectedPeer { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), user: None };

/// Writes batches; its memory is used again for the next one. By default for the oldest readers.
#[derive(Default)]
pub struct BatchWriter {
    /// Of connections that come and go, to readers that know of that.
    says_who: bool,
    /// The nodes of the frame in progress, by where they are in memory: the batch holds them there.
    places: HashMap<*const Node, u32>,
}

impl BatchWriter {
    /// For a reader of a version.
    pub fn new(version: Version) -> Self {
        Self { says_who: version.minor >= SAYS_WHO, ..Self::default() }
    }

    /// Appends the frames of a batch. Nodes are described as they are now.
    pub fn write(&mut self, out: &mut Vec<u8>, batch: &Batch, now: Now) {
        let mut events = batch.events.iter();
        while !events.as_slice().is_empty() {
            self.places.clear();
            write_frame(out, |out| {
                let start = out.len();
                out.push(ServerMessage::Part.code());
                out.extend_from_slice(&batch.number.to_be_bytes());
                out.extend_from_slice(&[0; 4]);
                let before = events.len();
                while out.len() - start < FRAME_BYTES
                    && let Some(told) = events.next()
                {
                    self.event(out, told, now);
                }
                let count = (before - events.len()) as u32;
                out[start + 9..start + 13].copy_from_slice(&count.to_be_bytes());
                if events.as_slice().is_empty() {
                    out[start] = ServerMessage::Batch.code();
                }
            });
        }
    }

    fn event(&mut self, out: &mut Vec<u8>, told: &Delivery, now: Now) {
        let flags = if told.watched { WATCHED } else { 0 } | if told.redelivered { REDELIVERED } else { 0 };
        let mut head = [0; 9];
        head[0] = told.event.kind().number() | flags;
        head[1..].copy_from_slice(&told.sequence.to_be_bytes());
        out.extend_from_slice(&head);
        match &told.event {
            Event::Connect { connection_id, peer, door } => {
                out.extend_from_slice(&connection_id.to_be_bytes());
                let begin = out.len();
                write_address(out, *peer);
                if self.says_who {
                    out[begin] |= door.number() << DOOR;
                }
            }
            Event::Register { node, count } => {
                self.node(out, node, now);
                out.extend_from_slice(&count.to_be_bytes());
            }
            Event::Heartbeat { node, count } => {
                self.node(out, node, now);
                out.extend_from_slice(&count.to_be_bytes());
            }
            Event::Data { node, channel_id, payload } => {
                self.node(out, node, now);
                out.extend_from_slice(&channel_id.to_be_bytes());
                write_long(out, payload);
            }
            Event::Left { node, how, count } => {
                self.node(out, node, now);
                out.push(how.number());
                out.extend_from_slice(&count.to_be_bytes());
            }
            Event::Buffer { node, fill, count } => {
                self.node(out, node, now);
                out.push(fill.number());
                out.extend_from_slice(&count.to_be_bytes());
            }
            Event::Close { connection_id, reason, who } => {
                out.extend_from_slice(&connection_id.to_be_bytes());
                out.push(reason.number() | if self.says_who { HAS_PEER } else { 0 });
                if self.says_who {
                    write_peer(out, who);
                }
            }
            Event::Message { message } => write_message(out, message),
            Event::Question { question, node } => {
                write_question(out, question);
                if !matches!(question.asked, Asked::Registration { .. }) {
                    out.push(u8::from(node.is_some()));
                }
                if let Some(node) = node {
                    self.node(out, node, now);
                }
            }
            Event::Topic { change, node, count } => {
                let TopicChange { connection_id, who, topic, .. } = &**change;
                out.extend_from_slice(&connection_id.to_be_bytes());
                write_peer(out, who);
                write_short(out, topic);
                out.extend_from_slice(&count.to_be_bytes());
                out.push(u8::from(node.is_some()));
                if let Some(node) = node {
                    self.node(out, node, now);
                }
            }
        }
    }

    fn node(&mut self, out: &mut Vec<u8>, node: &Arc<Node>, now: Now) {
        let next = self.places.len() as u32;
        let place = *self.places.entry(Arc::as_ptr(node)).or_insert(next);
        out.extend_from_slice(&place.to_be_bytes());
        if place == next {
            append(out, &node.info(now));
        }
    }
}

/// Reads the frames of batches. Payloads are not copied: they share the frame's memory.
#[derive(Default)]
pub struct BatchReader {
    rest: Bytes,
    number: u64,
    left: u32,
    is_last_frame: bool,
    nodes: Vec<Arc<NodeInfo>>,
}

impl BatchReader {
    /// Begins a frame, whose body this is. The one before must have been read to its end.
    ///
    /// # Errors
    /// It is no frame of a batch.
    pub fn open(&mut self, mut body: Bytes) -> Result<(), DecodeError> {
        if body.len() < 13 {
            return Err(CUT);
        }
        self.is_last_frame = match ServerMessage::from_code(body.get_u8()) {
            Some(ServerMessage::Part) => false,
            Some(ServerMessage::Batch) => true,
            _ => return Err(DecodeError("no batch")),
        };
        self.number = body.get_u64();
        self.left = body.get_u32();
        if self.left == 0 {
            // Nobody could acknowledge it after its last event.
            return Err(DecodeError("a batch without events"));
        }
        self.nodes.clear();
        self.rest = body;
        Ok(())
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// All events of the batch were read.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.is_last_frame
    }

    /// The next event of the frame.
    ///
    /// # Errors
    /// The frame is not what it should be; nothing more can be read.
    #[allow(clippy::should_implement_trait, reason = "it can fail")]
    pub fn next(&mut self) -> Result<Option<Delivery<Arc<NodeInfo>>>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        let told = self.event()?;
        self.left -= 1;
        if self.left == 0 && !self.rest.is_empty() {
            return Err(DecodeError("bytes are left in a batch"));
        }
        Ok(Some(told))
    }

    fn event(&mut self) -> Result<Delivery<Arc<NodeInfo>>, DecodeError> {
        let head = self.u8()?;
        let sequence = self.u64()?;
        let kind = EventKind::from_number(head & KIND).ok_or(DecodeError("an unknown event"))?;
        let event = match kind {
            EventKind::Connect => {
                let connection_id = self.u64()?;
                let family = self.u8()?;
                // Who does not say came before there was another one.
                let door = if family >> DOOR == 0 { Some(ConnectedBy::Tcp) } else { ConnectedBy::from_number(family >> DOOR) };
                let door = door.ok_or(DecodeError("an unknown door"))?;
                Event::Connect { connection_id, peer: self.address_of(family & FAMILY)?, door }
            }
            EventKind::Register => Event::Register { node: self.node()?, count: self.u32()? },
            EventKind::Heartbeat => Event::Heartbeat { node: self.node()?, count: self.u32()? },
            EventKind::Data => Event::Data { node: self.node()?, channel_id: self.u32()?, payload: self.long()? },
            EventKind::Left => Event::Left { node: self.node()?, how: self.one_of(Departure::from_number)?, count: self.u32()? },
            EventKind::Close => {
                let (connection_id, reason) = (self.u64()?, self.u8()?);
                let who = if reason & HAS_PEER == 0 { NOBODY } else { self.peer()? };
                let reason = CloseReason::from_number(reason & !HAS_PEER).ok_or(DecodeError("an unknown reason"))?;
                Event::Close { connection_id, reason, who: Arc::new(who) }
            }
            EventKind::Message => Event::Message { message: Arc::new(self.message()?) },
            EventKind::Authenticate | EventKind::SubscribeBefore | EventKind::PublishBefore => {
                let question = Arc::new(self.question(kind)?);
                let has_node = kind != EventKind::Authenticate && self.u8()? != 0;
                Event::Question { question, node: if has_node { Some(self.node()?) } else { None } }
            }
            EventKind::Subscribe | EventKind::Unsubscribe => {
                let (connection_id, who, topic, count) = (self.u64()?, self.peer()?, self.short()?, self.u32()?);
                let node = if self.u8()? == 0 { None } else { Some(self.node()?) };
                let has_subscribed = kind == EventKind::Subscribe;
                Event::Topic { change: Arc::new(TopicChange { connection_id, who, topic, has_subscribed }), node, count }
            }
            EventKind::Buffer => Event::Buffer { node: self.node()?, fill: self.one_of(Fill::from_number)?, count: self.u32()? },
        };
        Ok(Delivery { sequence, redelivered: head & REDELIVERED != 0, watched: head & WATCHED != 0, event })
    }

    fn node(&mut self) -> Result<Arc<NodeInfo>, DecodeError> {
        let place = self.u32()? as usize;
        if let Some(node) = self.nodes.get(place) {
            return Ok(node.clone());
        }
        if place != self.nodes.len() {
            return Err(DecodeError("a node that was not described"));
        }
        let (node, behind) = take::<NodeInfo>(&self.rest)?;
        let len = self.rest.len() - behind.len();
        self.rest.advance(len);
        let node = Arc::new(node);
        self.nodes.push(node.clone());
        Ok(node)
    }

    fn message(&mut self) -> Result<HostMessage, DecodeError> {
        let flags = self.u8()?;
        let position = if flags & HAS_POSITION == 0 { None } else { Some(Position { offset: self.u64()?, epoch: self.u64()? }) };
        let topic = self.short()?;
        let from = if flags & HAS_PUBLISHER == 0 { None } else { Some(self.short()?) };
        Ok(HostMessage { topic, from, position, payload: self.long()? })
    }

    fn question(&mut self, kind: EventKind) -> Result<Question, DecodeError> {
        let (number, connection_id, peer) = (self.u32()?, self.u64()?, self.address()?);
        let asked = match kind {
            EventKind::Authenticate => Asked::Registration { node_id: self.short()?, metadata: self.text()? },
            EventKind::SubscribeBefore => {
                let count = self.u32()?;
                let filters = (0..count).map(|_| self.short()).collect::<Result<_, _>>()?;
                Asked::Subscription { filters, user: self.optional()? }
            }
            EventKind::PublishBefore => Asked::Publication { topic: self.short()?, payload: self.long()?, user: self.optional()? },
            _ => return Err(DecodeError("no question")),
        };
        Ok(Question { number, connection_id, peer, asked })
    }

    fn peer(&mut self) -> Result<ConnectedPeer, DecodeError> {
        Ok(ConnectedPeer { address: self.address()?, user: self.optional()? })
    }

    fn optional(&mut self) -> Result<Option<Arc<str>>, DecodeError> {
        Ok(if self.u8()? == 0 { None } else { Some(self.short()?) })
    }

    /// A text of 255 bytes at most.
    fn short(&mut self) -> Result<Arc<str>, DecodeError> {
        let len = usize::from(self.u8()?);
        self.take(len).and_then(|bytes| as_text(&bytes))
    }

    fn text(&mut self) -> Result<Arc<str>, DecodeError> {
        self.long().and_then(|bytes| as_text(&bytes))
    }

    fn long(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    fn address(&mut self) -> Result<SocketAddr, DecodeError> {
        let family = self.u8()?;
        self.address_of(family)
    }

    fn address_of(&mut self, family: u8) -> Result<SocketAddr, DecodeError> {
        let ip: IpAddr = match family {
            4 => self.u32()?.to_be_bytes().into(),
            6 => {
                let (high, low) = (self.u64()?, self.u64()?);
                ((u128::from(high) << 64) | u128::from(low)).to_be_bytes().into()
            }
            _ => return Err(DecodeError("an address of an unknown kind")),
        };
        if self.rest.len() < 2 {
            return Err(CUT);
        }
        Ok(SocketAddr::new(ip, self.rest.get_u16()))
    }

    fn one_of<T>(&mut self, from_number: impl FnOnce(u8) -> Option<T>) -> Result<T, DecodeError> {
        from_number(self.u8()?).ok_or(DecodeError("an unknown reason"))
    }

    fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if self.rest.len() < len { Err(CUT) } else { Ok(self.rest.split_to(len)) }
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        if self.rest.is_empty() { Err(CUT) } else { Ok(self.rest.get_u8()) }
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        if self.rest.len() < 4 { Err(CUT) } else { Ok(self.rest.get_u32()) }
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        if self.rest.len() < 8 { Err(CUT) } else { Ok(self.rest.get_u64()) }
    }
}

fn as_text(bytes: &[u8]) -> Result<Arc<str>, DecodeError> {
    std::str::from_utf8(bytes).map(Arc::from).map_err(|_| DecodeError("a text that is not UTF-8"))
}

const CUT: DecodeError = DecodeError("a batch ends too early");

/// Topics and node ids have 255 bytes at most.
fn write_message(out: &mut Vec<u8>, HostMessage { topic, payload, position, from }: &HostMessage) {
    let flag = |is_there, flag| if is_there { flag } else { 0 };
    out.push(flag(position.is_some(), HAS_POSITION) | flag(from.is_some(), HAS_PUBLISHER));
    if let Some(Position { offset, epoch }) = position {
        out.extend_from_slice(&offset.to_be_bytes());
        out.extend_from_slice(&epoch.to_be_bytes());
    }
    [Some(topic), from.as_ref()].into_iter().flatten().for_each(|text| write_short(out, text));
    write_long(out, payload);
}

fn write_question(out: &mut Vec<u8>, Question { number, connection_id, peer, asked }: &Question) {
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&connection_id.to_be_bytes());
    write_address(out, *peer);
    match asked {
        Asked::Registration { node_id, metadata } => {
            write_short(out, node_id);
            write_long(out, metadata.as_bytes());
        }
        Asked::Subscription { filters, user } => {
            out.extend_from_slice(&(filters.len() as u32).to_be_bytes());
            filters.iter().for_each(|filter| write_short(out, filter));
            write_optional(out, user.as_deref());
        }
        Asked::Publication { topic, payload, user } => {
            write_short(out, topic);
            write_long(out, payload);
            write_optional(out, user.as_deref());
        }
    }
}

fn write_peer(out: &mut Vec<u8>, ConnectedPeer { address, user }: &ConnectedPeer) {
    write_address(out, *address);
    write_optional(out, user.as_deref());
}

fn write_optional(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    text.iter().for_each(|text| write_short(out, text));
}

fn write_short(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn write_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn write_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

#[cfg(test)]
mod tests;
