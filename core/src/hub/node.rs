//! One registration of a node: who it is, when it was last heard, what it sent.
//!
//! Owns the record that all threads share. Liveness and counters are atomics with one writer, the thread of the node's
//! connection; whether the node is still there is behind the gate, which also orders the node's events.

use super::Now;
use super::event::{Departure, Event, Fill, Host};
use super::link::Link;
pub use crate::wire::bus::NodeInfo;
use crate::wire::metadata::{self, Merged, NotMetadata};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// The metadata of all nodes that sent none.
static NO_METADATA: LazyLock<Arc<str>> = LazyLock::new(|| "[]".into());

/// A registration. The same id registered again on another connection is another `Node`.
pub struct Node {
    id: Arc<str>,
    link: Arc<Link>,
    channel_id: u32,
    /// How it left, as a number; 0 while it is online. Written under the gate.
    left: AtomicU8,
    /// The host was told that the outbox is full, and not yet that it is empty again. Written by the connection's thread.
    is_told_full: AtomicBool,
    created: u64,
    last_seen: AtomicU64,
    /// Its own, less those for the whole connection that came before it. What is added to this are all of the connection's.
    heartbeats: AtomicU64,
    messages: AtomicU64,
    last_message: AtomicU64,
    gate: Mutex<Metadata>,
}

/// Nothing where there is none, which costs a node nothing then.
type Metadata = Option<Box<Kept>>;

struct Kept {
    /// All of it, as JSON text.
    text: Arc<str>,
    /// The keys of what the host has set; none, mostly.
    #[expect(clippy::box_collection, reason = "with metadata that nobody has added to, a node is to cost no more than before")]
    own: Option<Box<Vec<Box<str>>>>,
}

impl Kept {
    fn new(text: Arc<str>) -> Box<Kept> {
        Box::new(Kept { text, own: None })
    }

    fn merged(Merged { text, own }: Merged) -> Box<Kept> {
        Box::new(Kept { text: text.into(), own: (!own.is_empty()).then(|| Box::new(own)) })
    }

    fn own(&self) -> &[Box<str>] {
        self.own.as_deref().map_or(&[], Vec::as_slice)
    }
}

/// The metadata would be longer than it may be.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Events of the node are told while this is held, so they reach the host in order.
pub(super) struct Gate<'a> {
    node: &'a Node,
    metadata: MutexGuard<'a, Metadata>,
}

impl Node {
    pub(super) fn new(id: Arc<str>, link: Arc<Link>, channel_id: u32, metadata: Option<Arc<str>>, now: Now) -> Node {
        Node {
            id,
            channel_id,
            left: AtomicU8::new(0),
            is_told_full: AtomicBool::new(false),
            created: now.mono,
            last_seen: AtomicU64::new(now.mono),
            heartbeats: AtomicU64::new(link.heartbeats().wrapping_neg()),
            link,
            messages: AtomicU64::new(0),
            last_message: AtomicU64::new(0),
            gate: Mutex::new(metadata.map(Kept::new)),
        }
    }

    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub fn peer(&self) -> SocketAddr {
        self.link.peer()
    }

    pub fn connection_id(&self) -> u64 {
        self.link.connection_id()
    }

    /// The node's main channel, unique in the server.
    pub fn channel_id(&self) -> u32 {
        self.channel_id
    }

    /// In monotonic microseconds.
    pub fn registered_at(&self) -> u64 {
        self.created
    }

    pub fn is_online(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// How the node left, or `None` while it is online.
    pub fn departure(&self) -> Option<Departure> {
        Departure::ALL.into_iter().find(|how| *how as u8 + 1 == self.left.load(Ordering::Acquire))
    }

    /// JSON text of the metadata, `[]` when there is none: what the node sent, and what the host has set.
    pub fn metadata(&self) -> Arc<str> {
        self.gate().metadata()
    }

    /// When the node last gave a sign of life, in monotonic microseconds: its own or one for the whole connection.
    pub fn last_seen(&self) -> u64 {
        self.last_seen.load(Ordering::Relaxed).max(self.link.last_seen())
    }

    pub fn info(&self, now: Now) -> NodeInfo {
        let (online, metadata) = {
            let gate = self.gate();
            (gate.is_open(), gate.metadata())
        };
        let last_message = self.last_message.load(Ordering::Relaxed);
        NodeInfo {
            id: self.id.clone(),
            peer: self.peer(),
            connection_id: self.connection_id(),
            channel_id: self.channel_id,
            online,
            last_heartbeat: now.unix_seconds_of(self.last_seen()),
            heartbeat_count: self.heartbeats.load(Ordering::Relaxed).wrapping_add(self.link.heartbeats()),
            total_messages: self.messages.load(Ordering::Relaxed),
            last_message: if last_message == 0 { 0.0 } else { now.unix_seconds_of(last_message) },
            created_at: now.unix_seconds_of(self.created),
            bytes_waiting: self.link.queued() as u64,
            metadata,
        }
    }

    pub(super) fn is_told_full(&self) -> bool {
        self.is_told_full.load(Ordering::Acquire)
    }

    pub(super) fn gate(&self) -> Gate<'_> {
        Gate { node: self, metadata: self.gate.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// A sign of life of this node alone.
    pub(super) fn beat(&self, now: Now) {
        self.last_seen.store(now.mono, Ordering::Relaxed);
        // One writer, so a load and a store do what a locked increment would, cheaper.
        self.heartbeats.store(self.heartbeats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// REGISTER again: alive, but not a heartbeat.
    pub(super) fn seen(&self, now: Now) {
        self.last_seen.store(now.mono, Ordering::Relaxed);
    }

    pub(super) fn message(&self, now: Now) {
        self.messages.store(self.messages.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.last_message.store(now.mono, Ordering::Relaxed);
    }
}

/// Tells the host what waits for a node's connection, unless that is what it was told last.
pub(super) fn tell_fill(node: &Arc<Node>, fill: Fill, host: &dyn Host) {
    let is_full = fill == Fill::Full;
    if node.is_told_full() == is_full {
        return;
    }
    let gate = node.gate();
    if gate.is_open() {
        node.is_told_full.store(is_full, Ordering::Release);
        host.push_state(Event::Buffer { node: node.clone(), fill, count: 1 });
    }
}

impl Gate<'_> {
    /// The node has not left.
    pub(super) fn is_open(&self) -> bool {
        self.node.left.load(Ordering::Relaxed) == 0
    }

    /// The node leaves, unless it did already.
    pub(super) fn close(&self, how: Departure) -> bool {
        let was_open = self.is_open();
        if was_open {
            self.node.left.store(how as u8 + 1, Ordering::Release);
        }
        was_open
    }

    fn metadata(&self) -> Arc<str> {
        self.metadata.as_ref().map_or(&*NO_METADATA, |kept| &kept.text).clone()
    }

    /// The node has sent its metadata anew.
    pub(super) fn renew_metadata(&mut self, sent: Option<Arc<str>>) -> Result<(), TooLong> {
        let kept = match self.metadata.as_deref() {
            Some(kept) if !kept.own().is_empty() => {
                Some(Kept::merged(metadata::renew(sent.as_deref().unwrap_or("[]"), &kept.text, kept.own())))
            }
            _ => sent.map(Kept::new),
        };
        self.keep(kept)
    }

    /// The host sets members, of which the node hears nothing.
    pub(super) fn set_metadata(&mut self, members: &str) -> Result<Result<(), TooLong>, NotMetadata> {
        let (text, own) = self.metadata.as_deref().map_or(("[]", &[][..]), |kept| (&*kept.text, kept.own()));
        let merged = metadata::set(text, own, members)?;
        Ok(self.keep(Some(Kept::merged(merged))))
    }

    fn keep(&mut self, kept: Metadata) -> Result<(), TooLong> {
        if kept.as_ref().is_some_and(|kept| kept.text.len() > metadata::MAX_METADATA_LEN) {
            return Err(TooLong);
        }
        *self.metadata = kept;
        Ok(())
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node[{} {} channel {}]", self.id, self.peer(), self.channel_id)
    }
}
