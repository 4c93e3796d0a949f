//! The seam through which the bus tells its host what happens.
//!
//! Owns the trait, and who waits for room. What is told is [`crate::model`]'s. Does not know queues, descriptors or languages: a
//! [`Host`] takes the events.

use super::memory::Memory;
use super::node::Held;
use crate::model::{EventMask, ServerEvent};
use std::sync::Arc;

/// An event as it is within the engine: about the node itself, elsewhere about a copy of what is known of it.
pub type Event<N = Held> = ServerEvent<N>;

/// A producer of data events that was told to wait, and is told when there is room again.
pub trait Resume: Send + Sync {
    fn resume(&self);
}

/// Producers that wait for room. At most one entry per producer, for a paused one does not produce; those that are gone
/// meanwhile do not drained up.
#[derive(Default)]
pub(crate) struct Paused(Vec<Arc<dyn Resume>>);

impl Paused {
    pub(crate) fn push(&mut self, producer: Arc<dyn Resume>) {
        if self.0.len() == self.0.capacity() {
            // Nobody else has it any more: its connection is closed.
            self.0.retain(|producer| Arc::strong_count(producer) > 1);
            // Doubled, so that looking through them all costs little per producer.
            self.0.reserve(self.0.len() + 1);
        }
        self.0.push(producer);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// To be resumed outside of any lock: they may push at once.
    #[must_use]
    pub(crate) fn take(&mut self) -> Vec<Arc<dyn Resume>> {
        std::mem::take(&mut self.0)
    }
}

/// Takes the events of the bus. All methods may be called from every thread and return at once.
pub trait Host: Send + Sync {
    /// Told once, at the start, where the server counts what it keeps: what waits here is a part of it.
    fn attach(&self, _memory: &Arc<Memory>) {}

    fn wants(&self, kinds: EventMask) -> bool;

    /// Takes a data event, or hands it back when there is no room: the producer must then stop reading and try the same
    /// event again after `resume`.
    ///
    /// # Errors
    /// The event itself, when there is no room for it.
    fn push_data(&self, event: Event, bytes: usize, producer: Arc<dyn Resume>) -> Result<(), Event>;

    /// Takes a state event. Never refuses: at the bound, events of one node are merged.
    fn push_state(&self, event: Event);

    /// True when state events of new nodes have no room either: whoever would bring a new node or connection waits, and
    /// `producer` is resumed later.
    fn is_crowded(&self, producer: Option<Arc<dyn Resume>>) -> bool;
}
