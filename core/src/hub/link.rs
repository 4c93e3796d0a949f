//! One connection as every thread sees it: who it is, when it last gave a sign of life, and what waits for it.
//!
//! Owns the bounded outbox and the requests to the connection (evict a node, end, read again). Does not know the
//! socket: the thread that owns the socket is called with a [`Doorbell`] and takes what waits.

use super::event::{CloseReason, Resume};
use crate::wire::Dialect;
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Calls the thread that owns a connection. Called at most once per connection until that thread has looked, which
/// bounds every mailbox by the number of connections.
pub trait Doorbell: Send + Sync {
    fn ring(&self, slot: u32, connection_id: u64);
}

pub struct Link {
    connection_id: u64,
    peer: SocketAddr,
    /// Where the owning thread keeps the connection.
    slot: u32,
    doorbell: Arc<dyn Doorbell>,
    /// Last heartbeat for all nodes of the connection, in monotonic microseconds; 0 before the first.
    last_seen: AtomicU64,
    heartbeats: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Bytes that wait for the socket: in the outbox below, and those the owning thread has taken but not written.
    queued: AtomicUsize,
    rung: AtomicBool,
    /// A v2 frame came: from now on v2 may be sent.
    speaks_v2: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// What other threads want of a connection.
#[derive(Default)]
pub struct Waiting {
    /// Frames to write, or parts of frames in order.
    pub outbox: VecDeque<Bytes>,
    pub evictions: Vec<Eviction>,
    /// The connection is to end; the outbox is written first where the peer still reads.
    pub end: Option<CloseReason>,
    /// The host has room again: go on reading.
    pub resume: bool,
    /// The connection is over; nothing is taken any more.
    closed: bool,
}

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
    pub fn new(connection_id: u64, peer: SocketAddr, slot: u32, doorbell: Arc<dyn Doorbell>) -> Link {
        Link {
            connection_id,
            peer,
            slot,
            doorbell,
            last_seen: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            rung: AtomicBool::new(false),
            speaks_v2: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    pub fn connection_id(&self) -> u64 {
        self.connection_id
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The dialect for what nobody asked for: v2 once the peer has shown that it speaks it.
    pub fn dialect(&self) -> Dialect {
        if self.speaks_v2.load(Ordering::Relaxed) { Dialect::V2 } else { Dialect::V1 }
    }

    /// The peer has sent a frame in this dialect.
    pub(super) fn heard(&self, dialect: Dialect) {
        if dialect == Dialect::V2 {
            self.speaks_v2.store(true, Ordering::Relaxed);
        }
    }

    pub fn last_seen(&self) -> u64 {
        self.last_seen.load(Ordering::Relaxed)
    }

    pub fn heartbeats(&self) -> u64 {
        self.heartbeats.load(Ordering::Relaxed)
    }

    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// Counts what the owning thread read; it is the only writer, as of the next.
    pub fn count_in(&self, bytes: u64) {
        self.bytes_in.store(self.bytes_in() + bytes, Ordering::Relaxed);
    }

    pub fn count_out(&self, bytes: u64) {
        self.bytes_out.store(self.bytes_out() + bytes, Ordering::Relaxed);
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

    /// Queues one frame, given in parts, behind what waits already. A frame that is larger than `limit` still goes into an
    /// empty outbox: the frame limit bounds it.
    ///
    /// # Errors
    /// [`PushError::Full`] with `end` given also asks for the end of the connection, for that reason.
    pub fn push(
        &self,
        parts: impl IntoIterator<Item = Bytes>,
        len: usize,
        limit: usize,
        end: Option<CloseReason>,
    ) -> Result<(), PushError> {
        let mut waiting = self.lock();
        if waiting.closed || waiting.end.is_some() {
            return Err(PushError::Closed);
        }
        let queued = self.queued.load(Ordering::Relaxed);
        if queued != 0 && queued + len > limit {
            waiting.end = end;
            drop(waiting);
            if end.is_some() {
                self.ring();
            }
            return Err(PushError::Full);
        }
        self.queued.fetch_add(len, Ordering::Relaxed);
        waiting.outbox.extend(parts);
        drop(waiting);
        self.ring();
        Ok(())
    }

    pub fn evict(&self, channel_id: u32, why: CloseReason) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        waiting.evictions.push(Eviction { channel_id, why });
        drop(waiting);
        self.ring();
    }

    /// Takes what waits; the owning thread calls this after the bell rang.
    pub fn take(&self) -> Waiting {
        // Before the lock: whoever adds something after we have taken it must ring again.
        self.rung.store(false, Ordering::Release);
        let mut waiting = self.lock();
        let closed = waiting.closed;
        let taken = std::mem::take(&mut *waiting);
        waiting.closed = closed;
        taken
    }

    /// From now on nothing is taken; returns the bytes that were queued and will never be written.
    pub fn close(&self) -> usize {
        let mut waiting = self.lock();
        *waiting = Waiting { closed: true, ..Waiting::default() };
        self.queued.swap(0, Ordering::Relaxed)
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.doorbell.ring(self.slot, self.connection_id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resume for Link {
    fn resume(&self) {
        self.lock().resume = true;
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Rings(AtomicUsize);

    impl Doorbell for Rings {
        fn ring(&self, _slot: u32, _connection_id: u64) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn link() -> (Link, Arc<Rings>) {
        let rings = Arc::new(Rings::default());
        (Link::new(1, ([127, 0, 0, 1], 1).into(), 0, rings.clone()), rings)
    }

    fn push(link: &Link, len: usize, end: Option<CloseReason>) -> Result<(), PushError> {
        link.push([Bytes::from(vec![0; len])], len, 100, end)
    }

    #[test]
    fn the_bell_rings_once_until_somebody_looks() {
        let (link, rings) = link();
        push(&link, 10, None).unwrap();
        push(&link, 10, None).unwrap();
        assert_eq!(rings.0.load(Ordering::Relaxed), 1);
        assert_eq!(link.take().outbox.len(), 2);
        push(&link, 10, None).unwrap();
        assert_eq!(rings.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_full_outbox_refuses_and_stays_as_it_was() {
        let (link, _) = link();
        push(&link, 60, None).unwrap();
        assert_eq!(push(&link, 41, None), Err(PushError::Full));
        push(&link, 40, None).unwrap();
        assert_eq!((link.queued(), link.take().end), (100, None));
    }

    #[test]
    fn bytes_that_were_taken_but_not_written_still_count() {
        let (link, _) = link();
        push(&link, 80, None).unwrap();
        link.take();
        assert_eq!(push(&link, 40, None), Err(PushError::Full));
        link.remove_queued(80);
        push(&link, 40, None).unwrap();
    }

    #[test]
    fn one_frame_above_the_limit_goes_into_an_empty_outbox_only() {
        let (link, _) = link();
        push(&link, 500, None).unwrap();
        assert_eq!(push(&link, 1, None), Err(PushError::Full));
    }

    #[test]
    fn the_slow_consumer_policy_asks_for_the_end_once_and_refuses_what_follows() {
        let (link, _) = link();
        push(&link, 100, Some(CloseReason::SlowConsumer)).unwrap();
        assert_eq!(push(&link, 1, Some(CloseReason::SlowConsumer)), Err(PushError::Full));
        assert_eq!(push(&link, 1, Some(CloseReason::SlowConsumer)), Err(PushError::Closed));
        assert_eq!(link.take().end, Some(CloseReason::SlowConsumer));
    }

    #[test]
    fn a_closed_connection_takes_nothing_and_tells_what_was_lost() {
        let (link, _) = link();
        push(&link, 30, None).unwrap();
        assert_eq!(link.close(), 30);
        assert_eq!(push(&link, 1, None), Err(PushError::Closed));
        link.evict(1, CloseReason::Kicked);
        assert!(link.take().evictions.is_empty());
    }
}
