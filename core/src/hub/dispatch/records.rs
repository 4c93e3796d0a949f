//! What a worker is given at once, and within which limits.

use crate::hub::event::Event;
use crate::hub::node::Held;

pub type WorkerId = u64;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct DispatchLimits {
    /// Data events that may wait for one worker, and as many state events before those of one node are merged.
    pub events: usize,
    /// Payload bytes that may wait for one worker.
    pub bytes: usize,
    /// At the bound the oldest data goes instead of the newest.
    pub drop_oldest: bool,
    pub batch_events: usize,
    /// Payload bytes of a batch. A single longer event still makes a batch of its own.
    pub batch_bytes: usize,
    /// Batches that a worker may have in hand before it has acknowledged the first of them.
    pub batches_in_flight: usize,
}

impl Default for DispatchLimits {
    fn default() -> Self {
        Self { events: 65_536, bytes: 64 << 20, drop_oldest: false, batch_events: 512, batch_bytes: 256 << 10, batches_in_flight: 4 }
    }
}

/// An event on its way to a worker.
#[derive(Clone, Debug)]
pub struct Delivery<N = Held> {
    /// 1, 2, 3... in the order of happening. Gaps are events that were refused, merged, or not subscribed.
    pub sequence: u64,
    /// A worker that is gone may have seen it.
    pub redelivered: bool,
    /// A copy for a worker that watches the channel; the callbacks run elsewhere. It has the number of its original, which
    /// may follow when the worker becomes the owner: of one channel, what has no higher number than before was seen.
    pub watched: bool,
    pub event: Event<N>,
}

/// What a worker gets at once, and acknowledges at once.
#[derive(Clone, Debug)]
pub struct Batch {
    /// 1, 2, 3... per worker.
    pub number: u64,
    pub events: Vec<Delivery>,
}

#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct DispatchStats {
    pub workers: usize,
    pub queued_events: usize,
    pub queued_bytes: usize,
    /// Events that were sent and not acknowledged yet.
    pub in_flight_events: usize,
    /// Data events for which there was no room.
    pub refused: u64,
    /// Data events that made room for newer ones.
    pub dropped: u64,
    /// State events that were merged with a later one.
    pub coalesced: u64,
    /// Events that a worker which is gone may have seen.
    pub redelivered: u64,
    /// Events that were not delivered once more: three workers were gone before they had acknowledged them.
    pub abandoned: u64,
    pub moved_lanes: u64,
}
