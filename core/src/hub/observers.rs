//! Observers: takers of events beside the one host, for whom nothing ever waits.
//!
//! Owns their queues and bounds. An event is put into each queue that asks for its kind while the node's gate is held, so each observer
//! sees the order that the host sees. At the bound of a queue events are dropped and counted, and a gap stands where they were
//! missing: its observer looks afresh at what it keeps a picture of. Does not know who observes, nor what wakes him.

use super::event::Event;
use super::memory::{Memory, Part};
use super::node::{Held, Node};
use crate::model::{EventMask, ServerEvent};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll, Waker};

/// Each event is looked at once for each of them.
pub const MAX_OBSERVERS: usize = 64;

/// Room for so many is kept when a queue is empty.
const USUAL_EVENTS: usize = 256;

/// What may wait for one observer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ObserverLimits {
    pub events: usize,
    /// Of payloads, of ids and metadata, and of the events themselves.
    pub bytes: usize,
}

impl Default for ObserverLimits {
    fn default() -> Self {
        Self { events: 8192, bytes: 4 << 20 }
    }
}

#[derive(Clone, Debug)]
pub enum Observed {
    Event(ServerEvent<Arc<Node>>),
    /// So many events were dropped here: what was known from events may be wrong. [`Node::info`] of the nodes that there are, asked for
    /// after this, and the events behind it, make it right again.
    Gap {
        dropped: u64,
    },
}

/// What an event takes beside its texts and its payload.
const EVENT_BYTES: usize = size_of::<Waiting>();

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
    limits: ObserverLimits,
    state: Mutex<ObserverState>,
}

#[derive(Default)]
struct ObserverState {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Nothing is taken until half of it was read, so that gaps are few.
    is_full: bool,
    has_ended: bool,
    waker: Option<Waker>,
}

struct Waiting {
    observed: Observed,
    /// As it was counted: metadata may be others when it is read.
    bytes: usize,
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
        let queue = Arc::new(ObserverQueue { kinds, limits, state: Mutex::default() });
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
        // Nobody puts anything in any more.
        let mut state = queue.lock();
        self.memory.remove(Part::Observers, std::mem::take(&mut state.bytes));
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
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
        for queue in queues {
            let mut state = queue.lock();
            state.has_ended = true;
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
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
        let mut state = self.lock();
        let bytes = EVENT_BYTES + event.payload_len() + event.node().map_or(0, |node| node.bytes());
        let has_room = !state.is_full
            && state.waiting.len() < self.limits.events
            && (state.bytes == 0 || state.bytes + bytes <= self.limits.bytes)
            && memory.of(Part::Observers) + bytes <= memory.share(Part::Observers);
        if has_room {
            // Not as the host's events have it: those would keep others out while they wait.
            let event = event.clone().map_node(Held::into_node);
            state.put(Observed::Event(event), bytes, memory);
        } else {
            state.is_full = true;
            dropped.fetch_add(1, Ordering::Relaxed);
            match state.waiting.back_mut() {
                Some(Waiting { observed: Observed::Gap { dropped }, .. }) => *dropped += 1,
                _ => state.put(Observed::Gap { dropped: 1 }, EVENT_BYTES, memory),
            }
        }
        state.waker.take()
    }

    fn lock(&self) -> MutexGuard<'_, ObserverState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ObserverState {
    fn put(&mut self, observed: Observed, bytes: usize, memory: &Memory) {
        self.bytes += bytes;
        memory.add(Part::Observers, bytes);
        self.waiting.push_back(Waiting { observed, bytes });
    }

    fn take(&mut self, limits: ObserverLimits, memory: &Memory, into: &mut Vec<Observed>, max: usize) -> usize {
        let taken = max.min(self.waiting.len());
        let mut bytes = 0;
        into.extend(self.waiting.drain(..taken).map(|waiting| {
            bytes += waiting.bytes;
            waiting.observed
        }));
        self.bytes -= bytes;
        memory.remove(Part::Observers, bytes);
        self.is_full &= self.waiting.len() > limits.events / 2 || self.bytes > limits.bytes / 2;
        if self.waiting.is_empty() {
            self.waiting.shrink_to(USUAL_EVENTS);
        }
        taken
    }
}

impl Observer {
    /// Moves up to `max` of what waits to the back of `into`, and returns how many these are. Never waits.
    pub fn take(&mut self, into: &mut Vec<Observed>, max: usize) -> usize {
        self.queue.lock().take(self.queue.limits, &self.all.memory, into, max)
    }

    /// As [`Observer::take`], but waits until there is something; false once nothing more will come.
    pub async fn next(&mut self, into: &mut Vec<Observed>, max: usize) -> bool {
        poll_fn(|cx| self.poll_next(cx, into, max)).await
    }

    pub fn poll_next(&mut self, cx: &mut Context<'_>, into: &mut Vec<Observed>, max: usize) -> Poll<bool> {
        let mut state = self.queue.lock();
        if state.take(self.queue.limits, &self.all.memory, into, max) > 0 {
            return Poll::Ready(true);
        }
        if state.has_ended {
            return Poll::Ready(false);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.all.remove(&self.queue);
    }
}
