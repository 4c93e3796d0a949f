//! Producers of events that wait until the host has room again.

use std::sync::Arc;

/// A producer of data events that was told to wait, and is told when there is room again.
pub trait Resume: Send + Sync {
    fn resume(&self);
}

/// Producers that wait for room. At most one entry per producer, for a paused one does not produce; those that are gone
/// meanwhile do not pile up.
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
