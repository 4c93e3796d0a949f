//! How far what goes to all connections of a thread has come.
//!
//! Owns nothing but the place: who is served there is [`super::io`]'s business.

use super::connection::NodePlace;
use crate::hub::fan_out::FanOut;
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
