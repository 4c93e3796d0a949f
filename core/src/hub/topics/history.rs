//! What is kept of a topic, and how much of all topics together.
//!
//! Owns the bounds of one history (count, bytes, age) and the one over all of them. Does not know who asks for what is kept.

use super::publication::Position;
use crate::hub::Now;
use crate::hub::memory::{Memory, Part};
use crate::settings::{HistoryRule, micros};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a publication takes beside its payload: its places in the history and among all that are kept.
pub const ENTRY_BYTES: usize = size_of::<KeptEntry>() + size_of::<Place>();

struct KeptEntry {
    at: u64,
    payload: Bytes,
}

/// The history of one topic: the publications up to the last one, without a gap.
pub(super) struct History {
    max_count: usize,
    max_bytes: usize,
    ttl: u64,
    /// The last publication that is not kept any more.
    before: u64,
    entries: VecDeque<KeptEntry>,
    bytes: usize,
}

fn bytes_of(payload: &Bytes) -> usize {
    ENTRY_BYTES + payload.len()
}

impl History {
    pub(super) fn new(rule: &HistoryRule) -> Self {
        Self { max_count: rule.count, max_bytes: rule.bytes, ttl: micros(rule.ttl), before: 0, entries: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn before(&self) -> u64 {
        self.before
    }

    /// Keeps a publication, the next one of the topic. One that is larger than the history may be is not kept, nor what is before it.
    pub(super) fn push(&mut self, topic: &Arc<str>, position: Position, payload: Bytes, now: Now, ledger: &Ledger) {
        self.expire(now, ledger);
        let len = bytes_of(&payload);
        while !self.entries.is_empty() && (self.entries.len() >= self.max_count || self.bytes + len > self.max_bytes) {
            self.drop_first(ledger);
        }
        if self.max_count == 0 || len > self.max_bytes {
            self.before = position.offset;
            return;
        }
        self.entries.push_back(KeptEntry { at: now.mono, payload });
        self.bytes += len;
        ledger.add(Place { topic: topic.clone(), position }, len);
    }

    /// What is older than it may be goes.
    pub(super) fn expire(&mut self, now: Now, ledger: &Ledger) {
        while self.entries.front().is_some_and(|entry| entry.at.saturating_add(self.ttl) <= now.mono) {
            self.drop_first(ledger);
        }
    }

    /// This publication goes, and what is before it.
    pub(super) fn drop_until(&mut self, offset: u64, ledger: &Ledger) {
        while self.before < offset && !self.entries.is_empty() {
            self.drop_first(ledger);
        }
    }

    /// What is kept behind an offset, with its offsets.
    pub(super) fn after(&self, offset: u64) -> impl Iterator<Item = (u64, &Bytes)> {
        let skip = offset.saturating_sub(self.before);
        (self.before + 1..)
            .zip(&self.entries)
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
            .map(|(offset, entry)| (offset, &entry.payload))
    }

    fn drop_first(&mut self, ledger: &Ledger) {
        if let Some(entry) = self.entries.pop_front() {
            let len = bytes_of(&entry.payload);
            self.before += 1;
            self.bytes -= len;
            ledger.remove(len);
            if self.entries.is_empty() {
                self.entries = VecDeque::new();
            }
        }
    }
}

/// Where a publication is kept.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) topic: Arc<str>,
    pub(super) position: Position,
}

/// All that is kept, in the order in which it was published. What went since by its topic's own bounds is not in the sum, but in the
/// list for a while.
pub(super) struct Ledger {
    memory: Arc<Memory>,
    max_bytes: usize,
    bytes: AtomicUsize,
    /// Publications that are kept.
    count: AtomicUsize,
    order: Mutex<VecDeque<Place>>,
    is_cleaning: AtomicBool,
}

/// A list shorter than this is not worth cleaning.
const SHORT: usize = 1024;

impl Ledger {
    pub(super) fn new(max_bytes: usize, memory: Arc<Memory>) -> Self {
        Self {
            memory,
            max_bytes,
            bytes: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            order: Mutex::default(),
            is_cleaning: AtomicBool::new(false),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, place: Place, len: usize) {
        self.bytes.fetch_add(len, Ordering::Relaxed);
        self.memory.add(Part::Topics, len);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.lock().push_back(place);
    }

    fn remove(&self, len: usize) {
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        self.memory.remove(Part::Topics, len);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// What has to go because all histories together have too much, if it is there still. The caller drops it from its topic. `is_tight`: the
    /// topics themselves, which may be many with little in each, leave little for others.
    pub(super) fn pop_oldest(&self, is_tight: bool) -> Option<Place> {
        let most = if is_tight { self.max_bytes / 4 } else { self.max_bytes };
        if self.bytes() > most { self.lock().pop_front() } else { None }
    }

    /// Throws out what is gone already, once that is most of the list. `is_there` may lock what it likes.
    pub(super) fn clean(&self, mut is_there: impl FnMut(&Place) -> bool) {
        let mut order = self.lock();
        let is_due = order.len() > SHORT && order.len() / 2 > self.count.load(Ordering::Relaxed);
        if !is_due || self.is_cleaning.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut older = std::mem::take(&mut *order);
        drop(order);
        older.retain(&mut is_there);
        let mut order = self.lock();
        older.append(&mut order);
        *order = older;
        order.shrink_to(SHORT);
        self.is_cleaning.store(false, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Place>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.lock().len()
    }
}
