//! One connection as every thread sees it: who it is, when it last gave a sign of life, and how to reach it.
//!
//! Owns the bound on what waits for its socket. Does not know the socket, nor where what is sent to it waits: the thread that
//! owns it takes [`Letter`]s.

use super::event::{CloseReason, Resume};
use super::frame::Frame;
use super::memory::Memory;
use crate::wire::Dialect;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// What other threads want of a connection.
#[derive(Debug)]
pub struct Letter {
    /// Where the owning thread keeps the connection,
    pub slot: u32,
    /// and whether the slot still holds the one that is meant.
    pub connection_id: u64,
    pub wish: Wish,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    Write(Frame),
    Evict(Eviction),
    /// The connection is to end; what was to be written before is written first where the peer still reads.
    End(CloseReason),
    /// The host has room again: go on reading.
    Resume,
}

/// Takes letters to the thread that owns a connection, in the order in which they were posted.
pub trait Postbox: Send + Sync {
    fn post(&self, letter: Letter);

    /// Where what the connections' peers make us keep is counted.
    fn memory(&self) -> &Memory {
        Memory::nobodys()
    }
}

/// There is one per connection, so every byte counts.
pub struct Link {
    connection_id: u64,
    postbox: Arc<dyn Postbox>,
    /// Last heartbeat for all nodes of the connection, in monotonic microseconds; 0 before the first.
    last_seen: AtomicU64,
    heartbeats: AtomicU64,
    /// Bytes that wait for the socket: in letters, and with the owning thread.
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

/// A node has to leave its connection because of something that happened elsewhere.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    pub channel_id: u32,
    pub why: CloseReason,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The outbox has no room for it.
    Full,
    /// The connection is ending.
    Closed,
}

impl Link {
    pub fn new(connection_id: u64, peer: SocketAddr, slot: u32, postbox: Arc<dyn Postbox>) -> Link {
        Link {
            connection_id,
            postbox,
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

    /// The peer has sent a frame in this dialect.
    pub(super) fn heard(&self, dialect: Dialect) {
        if dialect == Dialect::V2 && !self.has(V2) {
            self.flags.fetch_or(V2, Ordering::AcqRel);
        }
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

    /// Queues one frame behind what waits already. A frame that is larger than `limit` still goes into an empty outbox: the frame
    /// limit bounds it.
    ///
    /// # Errors
    /// [`PushError::Full`] with `end` given also asks for the end of the connection, for that reason.
    pub fn push(&self, frame: Frame, limit: usize, end: Option<CloseReason>) -> Result<(), PushError> {
        if self.has(ENDING) {
            return Err(PushError::Closed);
        }
        let len = frame.len();
        let room = |queued: usize| (queued == 0 || queued + len <= limit).then_some(queued + len);
        if self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok() {
            self.post(Wish::Write(frame));
            return Ok(());
        }
        if let Some(reason) = end
            && self.close()
        {
            self.post(Wish::End(reason));
        }
        Err(PushError::Full)
    }

    pub fn evict(&self, channel_id: u32, why: CloseReason) {
        self.post(Wish::Evict(Eviction { channel_id, why }));
    }

    /// The connection has to end.
    pub fn end(&self, why: CloseReason) {
        self.close();
        self.post(Wish::End(why));
    }

    /// From now on no push is taken. Returns whether that is new.
    pub fn close(&self) -> bool {
        self.flags.fetch_or(ENDING, Ordering::AcqRel) & ENDING == 0
    }

    /// Whether one of these flags is set.
    fn has(&self, flags: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flags != 0
    }

    pub fn memory(&self) -> &Memory {
        self.postbox.memory()
    }

    fn post(&self, wish: Wish) {
        self.postbox.post(Letter { slot: self.slot, connection_id: self.connection_id, wish });
    }
}

impl Resume for Link {
    fn resume(&self) {
        self.post(Wish::Resume);
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Body;
    use super::*;
    use crate::wire::{FrameType, v2};
    use std::sync::Mutex;

    #[derive(Default)]
    struct Pile(Mutex<Vec<Letter>>);

    impl Pile {
        fn take(&self) -> Vec<Wish> {
            self.0.lock().unwrap().drain(..).map(|letter| letter.wish).collect()
        }
    }

    impl Postbox for Pile {
        fn post(&self, letter: Letter) {
            assert_eq!((letter.slot, letter.connection_id), (5, 1));
            self.0.lock().unwrap().push(letter);
        }
    }

    fn link() -> (Link, Arc<Pile>) {
        let pile = Arc::new(Pile::default());
        (Link::new(1, ([127, 0, 0, 1], 1).into(), 5, pile.clone()), pile)
    }

    const LIMIT: usize = 1000;

    fn frame(len: usize) -> Frame {
        let body = Body::encode(Dialect::V2, &vec![0; len - v2::HEADER_LEN], &Arc::new(Memory::new(1))).unwrap();
        Frame::new(Dialect::V2, FrameType::DATA, 1, body)
    }

    fn push(link: &Link, len: usize, end: Option<CloseReason>) -> Result<(), PushError> {
        link.push(frame(len), LIMIT, end)
    }

    #[test]
    fn a_link_is_small() {
        assert!(size_of::<Link>() <= 72, "{} bytes", size_of::<Link>());
    }

    #[test]
    fn a_full_outbox_refuses_and_stays_as_it_was() {
        let (link, pile) = link();
        push(&link, 600, None).unwrap();
        assert_eq!(push(&link, 401, None), Err(PushError::Full));
        push(&link, 400, None).unwrap();
        assert_eq!((link.queued(), pile.take().len()), (LIMIT, 2));
    }

    #[test]
    fn bytes_that_were_taken_but_not_written_still_count() {
        let (link, pile) = link();
        push(&link, 800, None).unwrap();
        pile.take();
        assert_eq!(push(&link, 400, None), Err(PushError::Full));
        link.remove_queued(800);
        push(&link, 400, None).unwrap();
    }

    #[test]
    fn one_frame_above_the_limit_goes_into_an_empty_outbox_only() {
        let (link, _) = link();
        push(&link, 5 * LIMIT, None).unwrap();
        assert_eq!(push(&link, 12, None), Err(PushError::Full));
    }

    #[test]
    fn the_slow_consumer_policy_asks_for_the_end_once_and_refuses_what_follows() {
        let (link, pile) = link();
        push(&link, LIMIT, Some(CloseReason::SlowConsumer)).unwrap();
        assert_eq!(push(&link, 12, Some(CloseReason::SlowConsumer)), Err(PushError::Full));
        assert_eq!(push(&link, 12, Some(CloseReason::SlowConsumer)), Err(PushError::Closed));
        assert!(matches!(pile.take()[..], [Wish::Write(_), Wish::End(CloseReason::SlowConsumer)]));
    }

    #[test]
    fn a_closed_connection_takes_no_push() {
        let (link, pile) = link();
        push(&link, 30, None).unwrap();
        assert!(link.close() && !link.close());
        assert_eq!(push(&link, 12, None), Err(PushError::Closed));
        assert_eq!((link.queued(), pile.take().len()), (30, 1));
    }

    #[test]
    fn letters_come_in_the_order_of_posting() {
        let (link, pile) = link();
        push(&link, 12, None).unwrap();
        link.evict(7, CloseReason::Kicked);
        link.resume();
        let eviction = Eviction { channel_id: 7, why: CloseReason::Kicked };
        assert_eq!(pile.take(), [Wish::Write(frame(12)), Wish::Evict(eviction), Wish::Resume]);
    }
}
