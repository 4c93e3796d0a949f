//! How far what goes to all connections of a thread has come, and what goes to those that have subscribed.
//!
//! Owns nothing but the place: who is served there is [`super::io`]'s business.

use super::connection::NodePlace;
use crate::hub::NodeRef;
use crate::hub::fan_out::FanOut;
use crate::hub::topic_fan_out::TopicFanOut;
use std::sync::Arc;

pub(super) struct FanOutWalk {
    /// What goes out together, with one write for each connection.
    pub(super) run: Vec<Arc<FanOut>>,
    pub(super) slot: usize,
    /// Whose nodes `place` is about; 0 where it has not begun with one.
    pub(super) connection_id: u64,
    pub(super) place: NodePlace,
}

impl FanOutWalk {
    pub(super) fn new(run: Vec<Arc<FanOut>>) -> Self {
        Self { run, slot: 0, connection_id: 0, place: NodePlace::default() }
    }
}

/// Publications one behind the other, and who gets them.
pub(super) struct TopicWalk {
    pub(super) run: Vec<Arc<TopicFanOut>>,
    /// In the order of the connections' slots, for each in that of the publications.
    pub(super) deliveries: Vec<TopicDelivery>,
    /// So many of these are done.
    pub(super) done: usize,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TopicDelivery {
    pub(super) slot: u32,
    /// Which of the run.
    pub(super) index: u32,
    pub(super) node: NodeRef,
}
