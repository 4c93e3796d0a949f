//! The bytes that a connection keeps only while it must, and what the connections of a thread lend each other for that.
//!
//! Owns how they are kept and counted. Does not know what they mean, or when they go.

use super::outbox::{Outbox, SMALL, USUAL_QUEUE};
use crate::hub::memory::{Memory, Part};
use crate::hub::wheel::TimerKey;
use crate::wire;

/// Bytes that are kept. A connection that idles has none.
#[derive(Default)]
pub(super) struct Buffers {
    /// The start of a frame whose rest has not come yet, or frames that the host had no room for, or whose turn has not come.
    pub(super) partial: Vec<u8>,
    /// So many bytes in front of that are done with.
    pub(super) done: usize,
    /// What is kept may be whole frames, whose turn has not come.
    pub(super) is_unfinished: bool,
    pub(super) outbox: Outbox,
    /// When the peer last took something that had waited, in monotonic microseconds.
    pub(super) took_at: u64,
    /// Runs while something waits, where a peer that takes nothing has to go;
    pub(super) timer: Option<TimerKey>,
    /// since when nothing was taken, in microseconds in which this thread was awake,
    pub(super) stuck_since: Option<u64>,
    /// and since when frames are held for v2.
    pub(super) held_since: Option<u64>,
    /// What is counted of both.
    pub(super) counted_in: usize,
    pub(super) counted_out: usize,
}

impl Buffers {
    pub(super) fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.outbox.is_empty()
    }

    /// Counts what is kept now.
    pub(super) fn count(&mut self, memory: &Memory) {
        let (input, output) = if self.is_empty() { (0, 0) } else { (self.partial.capacity(), self.outbox.memory()) };
        memory.change(Part::Input, std::mem::replace(&mut self.counted_in, input), input);
        memory.change(Part::Output, std::mem::replace(&mut self.counted_out, output), output);
    }

    /// Keeps more behind what is kept. Of a frame whose length is known no more is allocated than it has, of others what they are.
    pub(super) fn keep(&mut self, input: &[u8]) {
        let partial = &mut self.partial;
        partial.drain(..std::mem::take(&mut self.done));
        let needed = partial.len() + input.len();
        if needed > partial.capacity() {
            let doubled = (2 * partial.capacity()).min(wire::framed_len(partial).unwrap_or(0));
            partial.reserve_exact(needed.max(doubled) - partial.len());
        }
        partial.extend_from_slice(input);
    }

    /// Forgets the first bytes of what is kept, and gives back what the rest does not need. Each byte is moved about once by that,
    /// however many pieces the others go in.
    pub(super) fn forget(&mut self, consumed: usize) {
        self.done += consumed;
        let left = self.partial.len() - self.done;
        if self.done > 0 && left < self.partial.capacity() / 2 {
            self.partial = self.partial[self.done..].to_vec();
            self.done = 0;
        }
    }
}

/// What the connections of a thread lend each other: emptied [`Buffers`]s with the memory of their queues, so that in the steady
/// state a push to an idle connection allocates nothing, and a place where small pieces are joined.
pub(super) struct BufferPool {
    #[expect(clippy::vec_box, reason = "connections keep boxes")]
    buffers: Vec<Box<Buffers>>,
    pub(super) small: [u8; SMALL],
}

impl Default for BufferPool {
    fn default() -> Self {
        Self { buffers: Vec::new(), small: [0; SMALL] }
    }
}

/// More of them than passes have commands are of no use.
const MAX_POOLED: usize = 1024;

impl BufferPool {
    pub(super) fn take(&mut self) -> Box<Buffers> {
        self.buffers.pop().unwrap_or_default()
    }

    /// Takes back what is empty.
    pub(super) fn put_back(&mut self, mut rest: Box<Buffers>) {
        if self.buffers.len() < MAX_POOLED && rest.outbox.queue_capacity() <= USUAL_QUEUE {
            rest.partial = Vec::new();
            rest.done = 0;
            rest.is_unfinished = false;
            rest.held_since = None;
            self.buffers.push(rest);
        }
    }
}
