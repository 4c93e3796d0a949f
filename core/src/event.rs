//! The events that bindings receive, under the name they use. What they are is [`crate::model`]'s, what they mean the hub's.

pub use crate::hub::{Event, Resume};
pub use crate::model::{
    Asked, ClientEvent, ClientEventKind, ClientEventMask, CloseReason, ConnectedBy, ConnectedPeer, Decision, Departure, ErrorCause,
    EventKind, EventMask, FeedEvent, Fill, FleetEvent, HostMessage, Position, Question, ServerEvent, TopicChange, TopicMessage,
};
