//! What a session keeps of what was read while it waits for the host: data that found no room, a question and what it is about, and the
//! frames behind that.
//!
//! Owns that each is counted as long as it is kept. When it has its turn is [`super::waiting`]'s business.

use crate::hub::NodeRef;
use crate::hub::event::Event;
use crate::hub::memory::{Memory, Part};
use crate::hub::wheel::TimerKey;
use crate::model::{NO_METADATA, Position};
use crate::wire::Dialect;
use bytes::Bytes;
use std::sync::Arc;

/// Bytes of frames that wait behind a question. What does not fit is not read.
const MAX_KEPT: usize = 64 * 1024;

/// Bytes that are counted until it is dropped.
struct KeptBytes {
    memory: Arc<Memory>,
    bytes: usize,
}

impl KeptBytes {
    fn new(memory: &Arc<Memory>, bytes: usize) -> Self {
        memory.add(Part::Input, bytes);
        Self { memory: memory.clone(), bytes }
    }

    fn change(&mut self, bytes: usize) {
        self.memory.change(Part::Input, self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for KeptBytes {
    fn drop(&mut self) {
        self.change(0);
    }
}

/// A data event that waits for room.
pub(super) struct Refused {
    pub(super) event: Event,
    counted: KeptBytes,
}

impl Refused {
    pub(super) fn new(event: Event, bytes: usize, memory: &Arc<Memory>) -> Self {
        Self { event, counted: KeptBytes::new(memory, bytes) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.counted.bytes
    }
}

/// What a REGISTER asks for.
pub(in crate::hub::session) struct Registration {
    pub(super) id: Arc<str>,
    pub(super) metadata: Option<Arc<str>>,
    pub(super) protocol: u32,
}

impl Registration {
    /// Its JSON text.
    pub(super) fn metadata(&self) -> Arc<str> {
        self.metadata.as_ref().unwrap_or(&NO_METADATA).clone()
    }
}

/// What a SUBSCRIBE asks for.
pub(in crate::hub::session) struct Subscription {
    pub(super) node: NodeRef,
    /// On which it came, and is answered.
    pub(super) channel_id: u32,
    pub(super) filter: String,
    pub(super) since: Option<Position>,
}

/// What a PUBLISH asks for, or a client of Firetower's.
pub(in crate::hub::session) struct PendingPublication {
    /// None: it is a client of Firetower's.
    pub(in crate::hub::session) of_node: Option<PublisherNode>,
    pub(in crate::hub::session) topic: Arc<str>,
    pub(in crate::hub::session) payload: Bytes,
}

/// Which node publishes, and how it is answered.
pub(in crate::hub::session) struct PublisherNode {
    pub(super) node: NodeRef,
    pub(super) channel_id: u32,
    pub(super) id: Option<u32>,
}

/// What is done, or refused, once the host has decided.
pub(in crate::hub::session) enum Pending {
    Registration(Registration),
    Subscription(Subscription),
    Publication(PendingPublication),
    /// The topics that a client of Firetower's asks for.
    OfFiretower(Vec<String>),
}

/// What became of a question.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(in crate::hub::session) enum Asking {
    Asked,
    /// The host has no room for it. The frame comes again.
    NoRoom,
    /// As many are open as may.
    TooMany,
}

/// What the host has not decided yet.
pub(super) struct OpenQuestion {
    pub(super) number: u32,
    pub(super) timer: TimerKey,
    /// In which it is answered.
    pub(super) dialect: Dialect,
    pub(super) pending: Pending,
    counted: KeptBytes,
}

impl OpenQuestion {
    /// `bytes`: of the texts of what is pending.
    pub(super) fn new(number: u32, timer: TimerKey, dialect: Dialect, pending: Pending, bytes: usize, memory: &Arc<Memory>) -> Self {
        Self { number, timer, dialect, pending, counted: KeptBytes::new(memory, size_of::<Self>() + bytes) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.counted.bytes
    }
}

/// Whole frames that came behind a question, in their order.
pub(super) struct KeptFrames {
    bytes: Vec<u8>,
    done: usize,
    counted: KeptBytes,
}

impl KeptFrames {
    pub(super) fn new(memory: &Arc<Memory>) -> Self {
        Self { bytes: Vec::new(), done: 0, counted: KeptBytes::new(memory, 0) }
    }

    /// False where there is no room for it.
    pub(super) fn push(&mut self, frame: &[u8]) -> bool {
        if self.rest().len() + frame.len() > MAX_KEPT {
            return false;
        }
        self.bytes.drain(..self.done);
        self.done = 0;
        self.bytes.extend_from_slice(frame);
        self.counted.change(self.bytes.capacity());
        true
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.done..]
    }

    pub(super) fn advance(&mut self, len: usize) {
        self.done += len;
    }

    pub(super) fn bytes(&self) -> usize {
        self.counted.bytes
    }
}
