//! Messages of the engine's log that wait for a worker to take them.

use heartbus_core::engine::LogLine;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Instant;

#[derive(Default)]
pub(super) struct WaitingLog {
    pub(super) lines: RefCell<VecDeque<LogLine>>,
    pub(super) since: Cell<Option<Instant>>,
    /// No worker came in time: until one does, nothing waits.
    pub(super) is_in_vain: Cell<bool>,
}
