//! One connection as every thread sees it: who it is, when it last gave a sign of life, and how to reach it.
//!
//! Owns the bound on what waits for its socket. Does not know the socket, nor where what is sent to it waits: the thread that
//! owns it takes [`Command`]s.

use super::counters::{ReachClass, Reads};
use super::frame::QueuedFrame;
use super::memory::Memory;
use super::node_ref::NodeRef;
use super::resume::Resume;
use crate::model::{CloseReason, Decision};
use crate::wire::{Dialect, Framing};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// What other threads want of a connection.
#[derive(Debug)]
pub struct Command {
    /// Where the owning thread keeps the connection,
    pub slot: u32,
    /// and whether the slot still holds the one that is meant.
    pub connection_id: u64,
    pub kind: CommandKind,
}

#[derive(Debug, PartialEq, Eq)]
pub enum CommandKind {
    Write(QueuedFrame),
    Evict(Eviction),
    /// The connection is to end; what was to be written before is written first where the peer still reads.
    End(CloseReason),
    /// The host has room again: go on reading.
    Resume,
    /// A push was refused: the host is told of it, and once there is room again.
    TellFull,
    /// A node was subscribed to a topic,
    Join(Box<Membership>),
    /// or is to be so no longer.
    Part(Box<Membership>),
    /// An older connection of a node has ended a subscription.
    TellParted(Box<Parted>),
    /// The host has decided.
    Decide(Box<Answered>),
}

/// What an older connection of a node had subscribed to. The node has left the topic unless its new connection is there.
#[derive(Debug, PartialEq, Eq)]
pub struct Parted {
    pub node: NodeRef,
    pub id: Arc<str>,
    pub topic: Arc<str>,
}

/// What the host says to a question.
#[derive(Debug, PartialEq, Eq)]
pub struct Answered {
    pub number: u32,
    pub decision: Decision,
}

/// A subscription of a node that another thread makes or ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Membership {
    pub node: NodeRef,
    pub filter: Arc<str>,
    /// The last publication that it does not get.
    pub since: u64,
}

/// Takes commands to the thread that owns a connection, in the order in which they were posted.
pub trait CommandSink: Send + Sync {
    fn post(&self, command: Command);

    /// Whether a connection that something waits for already may have one more frame.
    fn has_room(&self) -> bool {
        true
    }

    /// Where what the connections' peers make us keep is counted.
    fn memory(&self) -> &Memory {
        Memory::nobodys()
    }

    /// The number of the thread.
    fn thread(&self) -> usize {
        0
    }
}

/// What was posted and not tried yet says nothing about the peer: so many times of what its socket may refuse can wait in all.
pub const BURST: usize = 16;

/// There is one per connection, so every byte counts.
pub struct Link {
    connection_id: u64,
    sink: Arc<dyn CommandSink>,
    /// Last heartbeat for all nodes of the connection, in monotonic microseconds; 0 before the first.
    last_seen: AtomicU64,
    heartbeats: AtomicU64,
    /// Bytes that wait for the socket: in commands, and with the owning thread.
    queued: AtomicUsize,
    slot: u32,
    port: u16,
    ip: IpAddr,
    /// Some of the constants below, added up.
    flags: AtomicU8,
}

/// The peer asked for v2 and was promised it.
const AGREED: u8 = 1;
/// The peer has spoken v2.
const V2: u8 = 2;
/// The connection is ending: nothing is taken any more.
const ENDING: u8 = 4;
/// The socket has refused as much as may wait for it.
const FULL: u8 = 8;
/// [`CommandKind::TellFull`] is on its way.
const TELLING: u8 = 16;
/// Each frame is a message of WebSocket's,
const WEBSOCKET: u8 = 32;
/// and in it spelled as JSON.
const JSON: u8 = 64;
/// or no frames of the bus at all, but Firetower's JSON; with [`JSON`], which that is not said of, the frames of its back side.
const FIRETOWER: u8 = 128;
const FIRE_HEADER: u8 = FIRETOWER | JSON;

/// A node has to leave its connection because of something that happened elsewhere.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    pub node: NodeRef,
    pub why: CloseReason,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The outbox has no room for it.
    Full,
    /// The outbox would have, but the server has not: it keeps as much for all connections together as it may.
    ServerFull,
    /// The connection is ending.
    Closed,
}

impl Link {
    pub fn new(connection_id: u64, peer: SocketAddr, slot: u32, sink: Arc<dyn CommandSink>) -> Self {
        Self {
            connection_id,
            sink,
            last_seen: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            slot,
            port: peer.port(),
            ip: peer.ip(),
            flags: AtomicU8::new(0),
        }
    }

    pub fn connection_id(&self) -> u64 {
        self.connection_id
    }

    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The dialect for what nobody asked for: v2 once the peer has shown that it speaks it.
    pub fn dialect(&self) -> Dialect {
        if self.has(V2) { Dialect::V2 } else { Dialect::V1 }
    }

    /// Whether the peer will speak v2 at any moment, if it does not yet: a frame in v2 may be pushed, and waits for that.
    pub fn will_speak_v2(&self) -> bool {
        self.has(AGREED | V2)
    }

    /// The peer has asked for v2, and is told that it may speak it.
    pub(super) fn agree_on_v2(&self) {
        self.flags.fetch_or(AGREED, Ordering::AcqRel);
    }

    /// Whether a frame in this dialect says something new.
    pub(super) fn is_news(&self, dialect: Dialect) -> bool {
        dialect == Dialect::V2 && !self.has(V2)
    }

    /// The peer has sent a frame in v2.
    pub(super) fn heard_v2(&self) {
        self.flags.fetch_or(V2, Ordering::AcqRel);
    }

    /// What stands around each frame.
    pub fn framing(&self) -> Framing {
        match self.flags.load(Ordering::Acquire) & (WEBSOCKET | JSON | FIRETOWER) {
            0 => Framing::Stream,
            WEBSOCKET => Framing::WebSocket,
            FIRETOWER => Framing::Firetower,
            FIRE_HEADER => Framing::FireHeader,
            _ => Framing::Json,
        }
    }

    /// From now on frames stand in messages of WebSocket's. Those of binary messages are in v2, which both sides have agreed on by that.
    pub(super) fn set_framing(&self, framing: Framing) {
        let flags = match framing {
            Framing::Stream => 0,
            Framing::WebSocket => WEBSOCKET | V2,
            Framing::Json => WEBSOCKET | JSON,
            Framing::Firetower => FIRETOWER,
            Framing::FireHeader => FIRE_HEADER,
        };
        self.flags.fetch_or(flags, Ordering::AcqRel);
    }

    /// Where its thread counts the connection's nodes.
    pub fn class(&self) -> ReachClass {
        let flags = self.flags.load(Ordering::Acquire);
        let reads = match flags & (AGREED | V2) {
            0 => Reads::V1,
            AGREED => Reads::Agreed,
            _ => Reads::V2,
        };
        ReachClass { reads, is_full: flags & FULL != 0 }
    }

    pub fn last_seen(&self) -> u64 {
        self.last_seen.load(Ordering::Relaxed)
    }

    pub fn heartbeats(&self) -> u64 {
        self.heartbeats.load(Ordering::Relaxed)
    }

    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Adjusts what is queued when the owning thread keeps bytes of its own, or wrote or dropped some.
    pub fn add_queued(&self, bytes: usize) {
        self.queued.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn remove_queued(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A heartbeat for all nodes of the connection: one store, whatever their number.
    pub(super) fn beat(&self, mono: u64) {
        self.last_seen.store(mono, Ordering::Relaxed);
        // One writer, so a load and a store do what a locked increment would, cheaper.
        self.heartbeats.store(self.heartbeats.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Queues one frame behind what waits already. It is refused where the socket has refused `limit` bytes that still wait for it;
    /// what its thread has not tried yet is nobody's fault, and has a bound of its own, [`BURST`] times as high. A frame that is
    /// larger still goes into an empty outbox: the frame limit bounds it.
    ///
    /// # Errors
    /// [`PushError`]; nothing has changed then.
    pub fn push(&self, frame: QueuedFrame, limit: usize) -> Result<(), PushError> {
        self.reserve(frame.len(), limit)?;
        self.post(CommandKind::Write(frame));
        Ok(())
    }

    /// Counts a frame as waiting that the owning thread queues itself, on the terms of [`Link::push`].
    ///
    /// # Errors
    /// [`PushError`]; nothing has changed then.
    pub fn reserve(&self, len: usize, limit: usize) -> Result<(), PushError> {
        let flags = self.flags.load(Ordering::Acquire);
        if flags & ENDING != 0 {
            return Err(PushError::Closed);
        }
        if flags & FULL != 0 {
            return Err(PushError::Full);
        }
        let fits = |queued: usize| queued + len <= limit.saturating_mul(BURST);
        let take = |queued: usize| (queued == 0 || fits(queued) && self.sink.has_room()).then_some(queued + len);
        match self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(queued) => Err(if fits(queued) { PushError::ServerFull } else { PushError::Full }),
        }
    }

    /// The owning thread says whether the socket has refused as much as may wait for it.
    pub fn set_full(&self, is_full: bool) {
        if is_full {
            self.flags.fetch_or(FULL, Ordering::AcqRel);
        } else if self.has(FULL) {
            self.flags.fetch_and(!FULL, Ordering::AcqRel);
        }
    }

    /// The host wants to know when there is room again after a push that was refused.
    pub(super) fn tell_full(&self) {
        if self.flags.fetch_or(TELLING, Ordering::AcqRel) & TELLING == 0 {
            self.post(CommandKind::TellFull);
        }
    }

    /// The command about it has come.
    pub fn tells_full(&self) {
        self.flags.fetch_and(!TELLING, Ordering::AcqRel);
    }

    pub fn evict(&self, node: NodeRef, why: CloseReason) {
        self.post(CommandKind::Evict(Eviction { node, why }));
    }

    /// The connection has to end.
    pub fn end(&self, why: CloseReason) {
        self.close();
        self.post(CommandKind::End(why));
    }

    /// It is over, or will be in a moment.
    pub fn is_ending(&self) -> bool {
        self.has(ENDING)
    }

    /// From now on no push is taken. Returns whether that is new.
    pub fn close(&self) -> bool {
        self.flags.fetch_or(ENDING, Ordering::AcqRel) & ENDING == 0
    }

    /// Whether one of these flags is set.
    fn has(&self, flags: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flags != 0
    }

    /// A node of the connection was subscribed to a topic.
    pub(super) fn tell_parted(&self, parted: Parted) {
        self.post(CommandKind::TellParted(Box::new(parted)));
    }

    pub(super) fn join(&self, membership: Membership) {
        self.post(CommandKind::Join(Box::new(membership)));
    }

    /// A node of the connection is to be subscribed to a topic no longer.
    pub(super) fn part(&self, membership: Membership) {
        self.post(CommandKind::Part(Box::new(membership)));
    }

    /// The host has answered a question of the connection.
    pub(super) fn decide(&self, number: u32, decision: Decision) {
        self.post(CommandKind::Decide(Box::new(Answered { number, decision })));
    }

    /// The number of the thread that owns the connection.
    pub fn thread(&self) -> usize {
        self.sink.thread()
    }

    pub fn memory(&self) -> &Memory {
        self.sink.memory()
    }

    fn post(&self, kind: CommandKind) {
        self.sink.post(Command { slot: self.slot, connection_id: self.connection_id, kind });
    }
}

impl Resume for Link {
    fn resume(&self) {
        self.post(CommandKind::Resume);
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Body;
    use super::*;
    use crate::wire::{FrameType, v2};
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    #[derive(Default)]
    struct Commands(Mutex<Vec<Command>>, AtomicBool);

    impl Commands {
        fn take(&self) -> Vec<CommandKind> {
            self.0.lock().unwrap().drain(..).map(|command| command.kind).collect()
        }
    }

    impl CommandSink for Commands {
        fn post(&self, command: Command) {
            assert_eq!((command.slot, command.connection_id), (5, 1));
            self.0.lock().unwrap().push(command);
        }

        fn has_room(&self) -> bool {
            !self.1.load(Ordering::Relaxed)
        }
    }

    fn link() -> (Link, Arc<Commands>) {
        let commands = Arc::new(Commands::default());
        (Link::new(1, ([127, 0, 0, 1], 1).into(), 5, commands.clone()), commands)
    }

    const LIMIT: usize = 1000;

    fn frame(len: usize) -> QueuedFrame {
        let body = Body::encode(Dialect::V2, &vec![0; len - v2::HEADER_LEN], &Arc::new(Memory::new(1))).unwrap();
        QueuedFrame::new(Dialect::V2, FrameType::DATA, 1, body)
    }

    fn push(link: &Link, len: usize) -> Result<(), PushError> {
        link.push(frame(len), LIMIT)
    }

    #[test]
    fn a_link_is_small() {
        assert!(size_of::<Link>() <= 72, "{} bytes", size_of::<Link>());
    }

    #[test]
    fn a_full_outbox_refuses_and_stays_as_it_was() {
        let (link, commands) = link();
        push(&link, 600).unwrap();
        link.set_full(true);
        assert_eq!(push(&link, 12), Err(PushError::Full));
        assert_eq!((link.queued(), commands.take().len()), (600, 1));
        link.set_full(false);
        push(&link, 12).unwrap();
        assert_eq!((link.queued(), commands.take().len()), (612, 1));
    }

    #[test]
    fn a_burst_that_the_socket_was_not_tried_with_has_a_higher_bound_of_its_own() {
        let (link, commands) = link();
        for _ in 0..BURST {
            push(&link, LIMIT).unwrap();
        }
        assert_eq!(push(&link, 12), Err(PushError::Full));
        assert_eq!((link.queued(), commands.take().len()), (BURST * LIMIT, BURST));
        // Taken, but not written.
        assert_eq!(push(&link, 12), Err(PushError::Full));
        link.remove_queued(12);
        push(&link, 12).unwrap();
    }

    #[test]
    fn one_frame_above_every_limit_goes_into_an_empty_outbox_only() {
        let (link, _) = link();
        push(&link, 2 * BURST * LIMIT).unwrap();
        assert_eq!(push(&link, 12), Err(PushError::Full));
    }

    #[test]
    fn a_mailbox_without_room_takes_one_frame_for_each_connection_that_nothing_waits_for() {
        let (link, commands) = link();
        commands.1.store(true, Ordering::Relaxed);
        push(&link, 12).unwrap();
        assert_eq!(push(&link, 12), Err(PushError::ServerFull));
        assert_eq!(push(&link, BURST * LIMIT), Err(PushError::Full));
        link.remove_queued(12);
        push(&link, 12).unwrap();
        assert_eq!(commands.take().len(), 2);
    }

    #[test]
    fn a_closed_connection_takes_no_push() {
        let (link, commands) = link();
        push(&link, 30).unwrap();
        assert!(link.close() && !link.close());
        assert_eq!(push(&link, 12), Err(PushError::Closed));
        assert_eq!((link.queued(), commands.take().len()), (30, 1));
    }

    #[test]
    fn letters_come_in_the_order_of_posting() {
        let (link, commands) = link();
        push(&link, 12).unwrap();
        let node = NodeRef::of_main_channel(7);
        link.evict(node, CloseReason::Kicked);
        link.resume();
        let eviction = Eviction { node, why: CloseReason::Kicked };
        assert_eq!(commands.take(), [CommandKind::Write(frame(12)), CommandKind::Evict(eviction), CommandKind::Resume]);
    }
}
