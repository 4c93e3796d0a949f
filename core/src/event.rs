//! The events that bindings receive, under the name they use. Their home is the hub, which knows what they mean.

pub use crate::hub::event::{ClientEvent, CloseReason, Departure, ErrorCause, Event, EventMask, Fill, Resume};
