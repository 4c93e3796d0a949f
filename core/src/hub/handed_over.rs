//! The bound on what was handed to the threads for many connections and has not gone out to all of them.
//!
//! Owns the sums. What it is that waits is whoever takes a share's.

use super::link::BURST;
use super::memory::Memory;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Deliveries that may wait for their turn, all threads together: as many as one thread does in some seconds.
pub(super) const MAX_WAITING: usize = 1 << 20;

/// What one takes in memory beside its payload, rounded up.
pub(super) const FIXED_BYTES: usize = 256;

/// What waits, all of a server together.
#[derive(Default)]
pub(super) struct HandedOver(Arc<FanOutSums>);

#[derive(Default)]
struct FanOutSums {
    deliveries: AtomicUsize,
    bytes: AtomicUsize,
}

/// A share of the sums, until all threads are done.
pub(super) struct FanOutShare {
    sums: Arc<FanOutSums>,
    deliveries: usize,
    bytes: usize,
}

impl Drop for FanOutShare {
    fn drop(&mut self) {
        self.sums.deliveries.fetch_sub(self.deliveries, Ordering::Relaxed);
        self.sums.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl HandedOver {
    /// Room for something of `len` bytes for so many; `None` where too much waits. `outbox_bytes`: the bound of one connection.
    pub(super) fn share(&self, len: usize, deliveries: usize, outbox_bytes: usize, memory: &Memory) -> Option<FanOutShare> {
        let sums = &self.0;
        let bytes = len + FIXED_BYTES;
        // As much as may wait for one connection that nobody has tried to write to.
        let most_bytes = outbox_bytes.saturating_mul(BURST);
        let take = |sum: &AtomicUsize, more: usize, most: usize| {
            let fits = |before: usize| (before == 0 || before.saturating_add(more) <= most).then_some(before + more);
            sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
        };
        if memory.excess() > 0 && sums.bytes.load(Ordering::Relaxed) > 0 || !take(&sums.deliveries, deliveries, MAX_WAITING) {
            return None;
        }
        if !take(&sums.bytes, bytes, most_bytes) {
            sums.deliveries.fetch_sub(deliveries, Ordering::Relaxed);
            return None;
        }
        Some(FanOutShare { sums: sums.clone(), deliveries, bytes })
    }
}
