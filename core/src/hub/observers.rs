//! Observers: takers of events beside the one host, for whom nothing ever waits.
//!
//! Owns who they are, and what each asks for. An event is put into each queue that asks for its kind while the node's gate is held, so
//! each observer sees the order that the host sees. At the bound of a queue ([`super::gap_queue`]) events are dropped and counted, and a
//! gap stands where they were missing: its observer looks afresh at what it keeps a picture of. Does not know who observes, nor what wakes
//! him.

use super::event::Event;
pub use super::gap_queue::ObserverLimits;
use super::gap_queue::{GapQueue, QueueEntry};
use super::memory::Memory;
use super::node::{Held, Node};
use crate::model::{EventMask, ServerEvent};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll, Waker};

/// Each event is looked at once for each of them.
pub const MAX_OBSERVERS: usize = 64;

#[derive(Clone, Debug)]
pub enum Observed {
    Event(ServerEvent<Arc<Node>>),
    /// So many events were dropped here: what was known from events may be wrong. [`Node::info`] of the nodes that there are, asked for
    /// after this, and the events behind it, make it right again.
    Gap {
        dropped: u64,
    },
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ObserveRefusal {
    /// There are [`MAX_OBSERVERS`].
    TooMany,
    /// Nothing happens any more.
    Ended,
}

/// One who observes. Sees nothing more once it is dropped, and nothing is kept for it then.
pub struct Observer {
    queue: Arc<ObserverQueue>,
    all: Arc<Observers>,
}

/// Those of one server.
pub(super) struct Observers {
    /// What any of them asks for, so that where nobody observes one look tells.
    kinds: AtomicU32,
    list: RwLock<ObserverList>,
    memory: Arc<Memory>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct ObserverList {
    queues: Vec<Arc<ObserverQueue>>,
    has_ended: bool,
}

struct ObserverQueue {
    kinds: EventMask,
    queue: GapQueue<ServerEvent<Arc<Node>>>,
}

impl Observers {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self { kinds: AtomicU32::new(0), list: RwLock::default(), memory, dropped: AtomicU64::new(0) }
    }

    /// Whether anybody asks for any of these.
    #[inline]
    pub(super) fn wants(&self, kinds: EventMask) -> bool {
        self.kinds.load(Ordering::Relaxed) & kinds.0 != 0
    }

    /// Events that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn add(self: &Arc<Self>, kinds: EventMask, limits: ObserverLimits) -> Result<Observer, ObserveRefusal> {
        let queue = Arc::new(ObserverQueue { kinds, queue: GapQueue::new(limits) });
        let mut list = self.write();
        if list.has_ended {
            return Err(ObserveRefusal::Ended);
        }
        if list.queues.len() >= MAX_OBSERVERS {
            return Err(ObserveRefusal::TooMany);
        }
        list.queues.push(queue.clone());
        self.count_kinds(&list);
        Ok(Observer { queue, all: self.clone() })
    }

    fn remove(&self, queue: &Arc<ObserverQueue>) {
        let mut list = self.write();
        list.queues.retain(|other| !Arc::ptr_eq(other, queue));
        self.count_kinds(&list);
        drop(list);
        queue.queue.forget(&self.memory);
    }

    /// Puts a copy of an event into the queues of those who ask for its kind. To be called where the order of events is decided.
    #[cold]
    pub(super) fn push(&self, event: &Event) {
        let kind = EventMask::of(event.kind());
        let list = self.read();
        let asking = list.queues.iter().filter(|queue| queue.kinds.contains(kind));
        let wakers: Vec<Waker> = asking.filter_map(|queue| queue.push(event, &self.memory, &self.dropped)).collect();
        // Whoever is woken may be dropped by that, which wants the list.
        drop(list);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nothing happens any more: each observer reads what waits, and then that it was all.
    pub(super) fn end(&self) {
        let mut list = self.write();
        list.has_ended = true;
        let queues = std::mem::take(&mut list.queues);
        self.count_kinds(&list);
        drop(list);
        queues.iter().filter_map(|queue| queue.queue.end()).for_each(Waker::wake);
    }

    /// In one order with the states of nodes: whoever leaves after this is told of, or is seen as gone by whoever looks.
    fn count_kinds(&self, list: &ObserverList) {
        let all = list.queues.iter().fold(EventMask::NONE, |all, queue| all | queue.kinds);
        self.kinds.store(all.0, Ordering::SeqCst);
    }

    fn read(&self) -> RwLockReadGuard<'_, ObserverList> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, ObserverList> {
        self.list.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ObserverQueue {
    /// Says whom to wake.
    fn push(&self, event: &Event, memory: &Memory, dropped: &AtomicU64) -> Option<Waker> {
        let bytes = event.payload_len() + event.node().map_or(0, |node| node.bytes());
        // Not as the host's events have it: those would keep others out while they wait.
        self.queue.push(bytes, memory, dropped, || event.clone().map_node(Held::into_node))
    }
}

impl Observer {
    /// Moves up to `max` of what waits to the back of `into`, and returns how many these are. Never waits.
    pub fn take(&mut self, into: &mut Vec<Observed>, max: usize) -> usize {
        self.queue.queue.take(&self.all.memory, max, |entry| {
            into.push(match entry {
                QueueEntry::Item(event) => Observed::Event(event),
                QueueEntry::Gap { dropped } => Observed::Gap { dropped },
            });
        })
    }

    /// As [`Observer::take`], but waits until there is something; false once nothing more will come.
    pub async fn next(&mut self, into: &mut Vec<Observed>, max: usize) -> bool {
        poll_fn(|cx| self.poll_next(cx, into, max)).await
    }

    pub fn poll_next(&mut self, cx: &mut Context<'_>, into: &mut Vec<Observed>, max: usize) -> Poll<bool> {
        loop {
            if self.take(into, max.max(1)) > 0 {
                return Poll::Ready(true);
            }
            match self.queue.queue.poll_ready(cx) {
                // It came in between.
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.all.remove(&self.queue);
    }
}
