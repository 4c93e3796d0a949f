//! A bounded queue for whose reader nothing waits.
//!
//! Owns the bound, and the gap: at the bound items are dropped and counted, and a gap stands where they were missing, so that whoever
//! reads learns of it in its place. Does not know what the items are.

use super::memory::{Memory, Part};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Room for so many is kept when a queue is empty.
const USUAL_ITEMS: usize = 256;

/// What may wait for one reader.
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

#[derive(Debug)]
pub(super) enum QueueEntry<T> {
    Item(T),
    /// So many were dropped here.
    Gap {
        dropped: u64,
    },
}

pub(super) struct GapQueue<T> {
    limits: ObserverLimits,
    state: Mutex<QueueState<T>>,
}

struct QueueState<T> {
    waiting: VecDeque<Waiting<T>>,
    bytes: usize,
    /// Nothing is taken until half of it was read, so that gaps are few.
    is_full: bool,
    has_ended: bool,
    waker: Option<Waker>,
}

struct Waiting<T> {
    entry: QueueEntry<T>,
    /// As it was counted: what it holds may be longer or shorter when it is read.
    bytes: usize,
}

impl<T> Default for QueueState<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, is_full: false, has_ended: false, waker: None }
    }
}

impl<T> GapQueue<T> {
    pub(super) fn new(limits: ObserverLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Takes an item that holds so many bytes, or drops it. Says whom to wake.
    pub(super) fn push(&self, bytes: usize, memory: &Memory, dropped: &AtomicU64, item: impl FnOnce() -> T) -> Option<Waker> {
        let mut state = self.lock();
        let own = size_of::<Waiting<T>>();
        let bytes = own + bytes;
        let left = memory.share(Part::Observers).saturating_sub(memory.of(Part::Observers));
        // Nobody has more than is left for the others: those who read nothing do not take it all.
        let is_within = state.bytes == 0 && bytes <= left || state.bytes + bytes <= self.limits.bytes.min(left);
        let has_room = !state.is_full && state.waiting.len() < self.limits.events && is_within;
        if has_room {
            state.put(QueueEntry::Item(item()), bytes, memory);
        } else {
            state.is_full = true;
            dropped.fetch_add(1, Ordering::Relaxed);
            match state.waiting.back_mut() {
                Some(Waiting { entry: QueueEntry::Gap { dropped }, .. }) => *dropped += 1,
                _ => state.put(QueueEntry::Gap { dropped: 1 }, own, memory),
            }
        }
        state.waker.take()
    }

    /// Shows up to `max` of what waits, in order, and returns how many these are. Never waits.
    pub(super) fn take(&self, memory: &Memory, max: usize, mut show: impl FnMut(QueueEntry<T>)) -> usize {
        let mut guard = self.lock();
        let state = &mut *guard;
        let taken = max.min(state.waiting.len());
        let mut bytes = 0;
        for waiting in state.waiting.drain(..taken) {
            bytes += waiting.bytes;
            show(waiting.entry);
        }
        state.bytes -= bytes;
        memory.remove(Part::Observers, bytes);
        state.is_full &= state.waiting.len() > self.limits.events / 2 || state.bytes > self.limits.bytes / 2;
        if state.waiting.is_empty() {
            state.waiting.shrink_to(USUAL_ITEMS);
        }
        taken
    }

    /// How many places are taken.
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// True when something waits, false once nothing more will come.
    pub(super) fn poll_ready(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        if !state.waiting.is_empty() {
            return Poll::Ready(true);
        }
        if state.has_ended {
            return Poll::Ready(false);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nothing more will come. Says whom to wake.
    pub(super) fn end(&self) -> Option<Waker> {
        let mut state = self.lock();
        state.has_ended = true;
        state.waker.take()
    }

    /// Nobody reads it any more, and nobody puts anything in.
    pub(super) fn forget(&self, memory: &Memory) {
        let mut state = self.lock();
        memory.remove(Part::Observers, std::mem::take(&mut state.bytes));
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> QueueState<T> {
    fn put(&mut self, entry: QueueEntry<T>, bytes: usize, memory: &Memory) {
        self.bytes += bytes;
        memory.add(Part::Observers, bytes);
        self.waiting.push_back(Waiting { entry, bytes });
    }
}
