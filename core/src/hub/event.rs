//! The seam through which the bus tells its host what happens.
//!
//! Owns the trait. What is told is [`crate::model`]'s. Does not know queues, descriptors or languages: a
//! [`Host`] takes the events.

use super::memory::Memory;
use super::node::Held;
use super::resume::Resume;
use crate::model::{EventMask, ServerEvent};
use std::sync::Arc;

/// An event as it is within the engine: about the node itself, elsewhere about a copy of what is known of it.
pub type Event<N = Held> = ServerEvent<N>;

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

    /// Takes a publication of a topic that the host has subscribed to. Never refuses: who publishes has asked whether there is room.
    fn push_message(&self, _event: Event) {}

    /// Whether a publication of so many bytes finds room: up to the bound for data, and to twice that where nobody waits. False:
    /// `producer` is resumed later.
    fn has_room_for_message(&self, _bytes: usize, _producer: Option<Arc<dyn Resume>>) -> bool {
        true
    }

    /// Takes a state event. Never refuses: at the bound, events of one node are merged.
    fn push_state(&self, event: Event);

    /// True when state events of new nodes have no room either: whoever would bring a new node or connection waits, and
    /// `producer` is resumed later.
    fn is_crowded(&self, producer: Option<Arc<dyn Resume>>) -> bool;
}
