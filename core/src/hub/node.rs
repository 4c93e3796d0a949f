//! One registration of a node: who it is, when it was last heard, what it sent.
//!
//! Owns the record that all threads share. Liveness and counters are atomics with one writer, the thread of the node's
//! connection; whether the node is still there is behind the gate, which also orders the node's events. Knows what its texts take in
//! memory, and how many events keep it there after it left.

use super::link::Link;
use super::memory::{Memory, Part};
use super::node_ref::NodeRef;
use super::now::Now;
pub use crate::model::NodeInfo;
use crate::model::{Departure, NO_METADATA};
use crate::wire::metadata::{self, Merged, NotMetadata};
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A registration. The same id registered again on another connection is another `Node`.
pub struct Node {
    id: Arc<str>,
    link: Arc<Link>,
    channel_id: u32,
    /// How many events that wait have it, what the host was told of its outbox, how it left, and the weight of its texts: see
    /// [`NodeState`].
    state: AtomicU32,
    created: u64,
    last_seen: AtomicU64,
    /// Its own, less those for the whole connection that came before it. What is added to this are all of the connection's.
    heartbeats: AtomicU64,
    messages: AtomicU64,
    last_message: AtomicU64,
    gate: Mutex<Metadata>,
}

/// What changes together, in one number: events, from the lowest bit on; whether the host was told that the outbox is full, and not
/// yet that it is empty again; how the node left, 0 while it is online; weight.
#[derive(Copy, Clone)]
struct NodeState(u32);

impl NodeState {
    const TOLD_FULL: u32 = 1 << 15;
    const LEFT: u32 = 16;
    const WEIGHT: u32 = 19;
    /// Where events are not counted any more: the node counts as held until it is dropped. So far from where the number ends that
    /// all threads together do not get there.
    const MANY: u32 = 0x7f00;

    fn events(self) -> u32 {
        self.0 & 0x7fff
    }

    fn left(self) -> u32 {
        self.0 >> Self::LEFT & 7
    }

    fn weight(self) -> u32 {
        self.0 >> Self::WEIGHT
    }

    /// What id and metadata take in memory.
    fn bytes(self) -> usize {
        self.weight() as usize * UNIT
    }
}

/// Weights are numbers of these: what an allocator rounds up to.
const UNIT: usize = 16;

/// Of the texts with their counts of references; metadata has a box as well. 65,791 bytes of text weigh 4,117.
fn weight(id: &str, metadata: Option<&str>) -> u32 {
    let units = |len: usize| (len + UNIT).div_ceil(UNIT);
    (units(id.len()) + metadata.map_or(0, |text| units(text.len()) + 2)) as u32
}

/// What its metadata takes in memory.
pub(super) fn metadata_bytes(metadata: Option<&str>) -> usize {
    bytes_of("", metadata) - bytes_of("", None)
}

/// What id and metadata of a node take in memory.
pub(super) fn bytes_of(id: &str, metadata: Option<&str>) -> usize {
    weight(id, metadata) as usize * UNIT
}

/// Nothing where there is none, which costs a node nothing then.
type Metadata = Option<Box<Kept>>;

struct Kept {
    /// All of it, as JSON text.
    text: Arc<str>,
    /// None, mostly.
    own: Option<Box<Own>>,
}

/// What the host has set.
struct Own {
    keys: Vec<Box<str>>,
    /// What the rest takes in memory.
    sent: usize,
}

impl Kept {
    fn new(text: Arc<str>) -> Box<Self> {
        Box::new(Self { text, own: None })
    }

    fn merged(Merged { text, own: keys }: Merged, sent: usize) -> Box<Self> {
        Box::new(Self { text: text.into(), own: (!keys.is_empty()).then(|| Box::new(Own { keys, sent })) })
    }

    /// What there is, with members that the host sets.
    fn with(kept: Option<&Self>, members: &str) -> Result<Merged, NotMetadata> {
        let (text, own) = kept.map_or(("[]", &[][..]), |kept| (&*kept.text, kept.own()));
        metadata::set(text, own, members)
    }

    fn own(&self) -> &[Box<str>] {
        self.own.as_ref().map_or(&[], |own| &own.keys)
    }

    /// What of it the node has sent takes in memory.
    fn sent_bytes(&self) -> usize {
        self.own.as_ref().map_or_else(|| metadata_bytes(Some(&self.text)), |own| own.sent)
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
    pub(super) fn new(id: Arc<str>, link: Arc<Link>, channel_id: u32, metadata: Option<Arc<str>>, now: Now) -> Self {
        Self {
            state: AtomicU32::new(weight(&id, metadata.as_deref()) << NodeState::WEIGHT),
            id,
            channel_id,
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

    pub fn reference(&self) -> NodeRef {
        NodeRef::of_main_channel(self.channel_id)
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
        self.state().left() == 0
    }

    /// How the node left, or `None` while it is online.
    pub fn departure(&self) -> Option<Departure> {
        let left = self.state().left();
        Departure::from_number(left as u8)
    }

    /// What its id and metadata take in memory.
    pub fn bytes(&self) -> usize {
        self.state().bytes()
    }

    /// What id and metadata take in memory that it has sent itself.
    pub(super) fn sent_bytes(&self) -> (usize, usize) {
        (bytes_of(&self.id, None), self.gate().sent_bytes())
    }

    fn state(&self) -> NodeState {
        NodeState(self.state.load(Ordering::Acquire))
    }

    /// One event more has it.
    fn hold(&self) {
        if self.state().events() < NodeState::MANY {
            let before = NodeState(self.state.fetch_add(1, Ordering::AcqRel));
            if before.events() == 0 && before.left() != 0 {
                self.link.memory().add(Part::Departed, before.bytes());
            }
        }
    }

    fn release(&self) {
        if self.state().events() < NodeState::MANY {
            let before = NodeState(self.state.fetch_sub(1, Ordering::AcqRel));
            if before.events() == 1 && before.left() != 0 {
                self.link.memory().remove(Part::Departed, before.bytes());
            }
        }
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

    /// The host was told that its outbox is full, and not yet that it is empty again.
    pub fn is_told_full(&self) -> bool {
        self.state().0 & NodeState::TOLD_FULL != 0
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

impl Drop for Node {
    fn drop(&mut self) {
        let state = NodeState(*self.state.get_mut());
        if state.events() >= NodeState::MANY && state.left() != 0 {
            self.link.memory().remove(Part::Departed, state.bytes());
        }
    }
}

/// A node in an event that waits for the host. When the node has left, it counts among what such events keep in memory until the
/// last of them is gone.
pub struct Held(Arc<Node>);

impl Held {
    /// The node for whoever keeps it on its own account.
    pub fn into_node(self) -> Arc<Node> {
        self.0.clone()
    }
}

impl From<Arc<Node>> for Held {
    fn from(node: Arc<Node>) -> Self {
        node.hold();
        Self(node)
    }
}

impl From<&Arc<Node>> for Held {
    fn from(node: &Arc<Node>) -> Self {
        node.clone().into()
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Self::from(&self.0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Deref for Held {
    type Target = Arc<Node>;

    fn deref(&self) -> &Arc<Node> {
        &self.0
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Gate<'_> {
    /// The node has not left.
    pub(super) fn is_open(&self) -> bool {
        self.node.state().left() == 0
    }

    /// What the host is told of the outbox from now on.
    pub(super) fn set_told_full(&self, is_full: bool) {
        if is_full {
            self.node.state.fetch_or(NodeState::TOLD_FULL, Ordering::AcqRel);
        } else {
            self.node.state.fetch_and(!NodeState::TOLD_FULL, Ordering::AcqRel);
        }
    }

    /// The node leaves, unless it did already. From then on it counts only where events have it.
    pub(super) fn close(&self, how: Departure, memory: &Memory) -> bool {
        let was_open = self.is_open();
        if was_open {
            let before = NodeState(self.node.state.fetch_or(u32::from(how.number()) << NodeState::LEFT, Ordering::AcqRel));
            memory.remove(Part::Nodes, before.bytes());
            if before.events() > 0 {
                memory.add(Part::Departed, before.bytes());
            }
        }
        was_open
    }

    fn metadata(&self) -> Arc<str> {
        self.metadata.as_ref().map_or(&*NO_METADATA, |kept| &kept.text).clone()
    }

    /// What the node has sent of it takes in memory.
    pub(super) fn sent_bytes(&self) -> usize {
        self.metadata.as_ref().map_or(0, |kept| kept.sent_bytes())
    }

    /// The node, which is open, has sent its metadata anew, of which its host sets some `members`.
    pub(super) fn renew_metadata(&mut self, sent: Option<Arc<str>>, members: Option<&str>, memory: &Memory) -> Result<(), TooLong> {
        let bytes = metadata_bytes(sent.as_deref());
        let kept = match self.metadata.as_deref() {
            Some(kept) if !kept.own().is_empty() => {
                Some(Kept::merged(metadata::renew(sent.as_deref().unwrap_or("[]"), &kept.text, kept.own()), bytes))
            }
            _ => sent.map(Kept::new),
        };
        let set = members.and_then(|members| Kept::with(kept.as_deref(), members).ok());
        self.keep(set.map(|merged| Kept::merged(merged, bytes)).or(kept), memory)
    }

    /// The host sets members of the metadata of a node that is open, of which the node hears nothing.
    pub(super) fn set_metadata(&mut self, members: &str, memory: &Memory) -> Result<Result<(), TooLong>, NotMetadata> {
        let merged = Kept::with(self.metadata.as_deref(), members)?;
        Ok(self.keep(Some(Kept::merged(merged, self.sent_bytes())), memory))
    }

    fn keep(&mut self, kept: Metadata, memory: &Memory) -> Result<(), TooLong> {
        if kept.as_ref().is_some_and(|kept| kept.text.len() > metadata::MAX_METADATA_LEN) {
            return Err(TooLong);
        }
        let text = kept.as_ref().map(|kept| &*kept.text);
        let (before, after) = (self.node.state().weight(), weight(&self.node.id, text));
        // Added up, what is beside it stays as it is.
        self.node.state.fetch_add(after.wrapping_sub(before) << NodeState::WEIGHT, Ordering::AcqRel);
        memory.change(Part::Nodes, before as usize * UNIT, after as usize * UNIT);
        *self.metadata = kept;
        Ok(())
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node[{} {} channel {}]", self.id, self.peer(), self.channel_id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::{Command, CommandSink};
    use super::*;

    struct Server(Memory);

    impl CommandSink for Server {
        fn post(&self, _command: Command) {}

        fn memory(&self) -> &Memory {
            &self.0
        }
    }

    fn online(metadata: Option<&str>) -> (Arc<Node>, Arc<Server>) {
        let server = Arc::new(Server(Memory::new(1)));
        let link = Arc::new(Link::new(1, ([127, 0, 0, 1], 1).into(), 0, server.clone()));
        let node = Arc::new(Node::new("n".into(), link, 7, metadata.map(Arc::from), Now { mono: 1, unix: 1 }));
        server.0.add(Part::Nodes, node.bytes());
        (node, server)
    }

    fn counted(server: &Server) -> (usize, usize) {
        (server.0.of(Part::Nodes), server.0.of(Part::Departed))
    }

    #[test]
    fn texts_weigh_what_they_take_up_to_the_longest_that_there_are() {
        assert_eq!(weight("n", None) as usize * UNIT, 32);
        let longest = weight(&"n".repeat(255), Some(&"m".repeat(65_536)));
        assert!(longest as usize * UNIT >= 255 + 65_536 && longest < 1 << (32 - NodeState::WEIGHT), "{longest}");
    }

    #[test]
    fn a_node_that_left_counts_as_long_as_an_event_has_it_and_no_longer() {
        let (node, server) = online(Some(&"m".repeat(1000)));
        let bytes = node.bytes();
        assert_eq!(counted(&server), (bytes, 0));
        let held = Held::from(&node);
        let another = held.clone();
        assert_eq!(counted(&server), (bytes, 0), "it counts once, while it is online");
        drop(another);
        assert!(node.gate().close(Departure::Unregistered, &server.0) && !node.is_online());
        assert_eq!(counted(&server), (0, bytes));
        let last = held.clone();
        drop(held);
        assert_eq!(counted(&server), (0, bytes));
        // The host may keep it for itself.
        assert!(Arc::ptr_eq(&last.into_node(), &node));
        assert_eq!(counted(&server), (0, 0));
        drop(Held::from(&node));
        assert_eq!((counted(&server), node.departure()), ((0, 0), Some(Departure::Unregistered)));
    }

    #[test]
    fn a_node_that_no_event_has_counts_no_more_when_it_leaves() {
        let (node, server) = online(None);
        assert!(node.gate().close(Departure::TimedOut, &server.0));
        assert!(!node.gate().close(Departure::Replaced, &server.0), "a node leaves once");
        assert_eq!((counted(&server), node.departure()), ((0, 0), Some(Departure::TimedOut)));
    }

    #[test]
    fn other_metadata_weighs_otherwise_and_changes_nothing_else() {
        let (node, server) = online(Some(&"m".repeat(1000)));
        let held = Held::from(&node);
        for len in [60_000, 10, 0] {
            node.gate().renew_metadata((len > 0).then(|| "m".repeat(len).into()), None, &server.0).unwrap();
            assert!((len..len + 100).contains(&node.bytes()) && node.is_online());
            assert_eq!(counted(&server), (node.bytes(), 0));
        }
        node.gate().close(Departure::Unregistered, &server.0);
        assert_eq!(counted(&server), (0, node.bytes()));
        drop(held);
        assert_eq!(counted(&server), (0, 0));
    }

    #[test]
    fn what_the_host_sets_counts_and_is_not_what_the_node_has_sent() {
        let (node, server) = online(Some(r#"{"a":1}"#));
        let (_, sent) = node.sent_bytes();
        let members = format!(r#"{{"b":"{}"}}"#, "x".repeat(1000));
        node.gate().set_metadata(&members, &server.0).unwrap().unwrap();
        assert!(node.bytes() > 1000 && node.sent_bytes().1 == sent && counted(&server) == (node.bytes(), 0));
        node.gate().renew_metadata(Some(format!(r#"{{"c":"{}"}}"#, "y".repeat(500)).into()), None, &server.0).unwrap();
        let (_, sent) = node.sent_bytes();
        assert!((500..600).contains(&sent) && node.bytes() > 1500, "{sent} {}", node.bytes());
        node.gate().close(Departure::Unregistered, &server.0);
        assert_eq!(counted(&server), (0, 0));
    }

    #[test]
    fn more_events_than_can_be_counted_hold_a_node_until_it_is_dropped() {
        let (node, server) = online(None);
        let held: Vec<Held> = (0..70_000).map(|_| Held::from(&node)).collect();
        node.gate().close(Departure::Unregistered, &server.0);
        assert_eq!((counted(&server), node.departure()), ((0, node.bytes()), Some(Departure::Unregistered)));
        drop(held);
        assert_eq!(counted(&server), (0, node.bytes()));
        drop(node);
        assert_eq!(counted(&server), (0, 0));
    }
}
