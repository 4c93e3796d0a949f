//! The engine's log messages on their way to a worker that takes them: PHP's loggers live in workers.
//!
//! Owns a bounded queue that any thread may push to, and who takes from it. Which messages there are is their sender's business.

use crate::hub::dispatch::WorkerId;
use crate::wire::bus::{LineLevel, LogLine};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Messages that may wait; beyond, the oldest are dropped and counted.
const MAX_WAITING: usize = 1000;

#[derive(Default)]
pub(crate) struct LogPost {
    state: Mutex<LogState>,
    pub(super) arrived: Notify,
}

#[derive(Default)]
struct LogState {
    lines: VecDeque<LogLine>,
    lost: usize,
    /// Those who take messages: the one that came first gets them.
    takers: BTreeSet<WorkerId>,
}

impl LogPost {
    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the message back when no worker takes any.
    pub(crate) fn send(&self, line: LogLine) -> Result<(), LogLine> {
        let mut state = self.state();
        if state.takers.is_empty() {
            return Err(line);
        }
        if state.lines.len() >= MAX_WAITING {
            state.lines.pop_front();
            state.lost += 1;
        }
        state.lines.push_back(line);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// What no worker has got.
    pub(crate) fn take_back(&self) -> Vec<LogLine> {
        let mut state = self.state();
        let lost = state.report_lost();
        lost.into_iter().chain(state.lines.drain(..)).collect()
    }

    pub(super) fn add_taker(&self, worker: WorkerId) {
        self.state().takers.insert(worker);
        self.arrived.notify_one();
    }

    pub(super) fn remove_taker(&self, worker: WorkerId) {
        if self.state().takers.remove(&worker) {
            self.arrived.notify_one();
        }
    }

    /// Whom to wake when something has arrived.
    pub(super) fn taker(&self) -> Option<WorkerId> {
        self.state().takers.first().copied()
    }

    /// The next message for this worker.
    pub(super) fn next(&self, worker: WorkerId) -> Option<LogLine> {
        let mut state = self.state();
        if state.takers.first() != Some(&worker) {
            return None;
        }
        state.report_lost().or_else(|| state.lines.pop_front())
    }
}

impl LogState {
    fn report_lost(&mut self) -> Option<LogLine> {
        let lost = std::mem::take(&mut self.lost);
        let message = format!("{lost} log messages were dropped: no PHP worker took them in time");
        (lost > 0).then(|| LogLine { level: LineLevel::Warning, message, context: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> LogLine {
        LogLine { level: LineLevel::Info, message: number.to_string(), context: String::new() }
    }

    #[test]
    fn messages_go_to_the_worker_that_came_first_and_when_it_left_to_the_next() {
        let post = LogPost::default();
        assert_eq!(post.send(line(0)), Err(line(0)), "nobody takes any");
        post.add_taker(7);
        post.add_taker(5);
        for number in 1..4 {
            post.send(line(number)).unwrap();
        }
        assert_eq!((post.taker(), post.next(7), post.next(5)), (Some(5), None, Some(line(1))));
        post.remove_taker(5);
        assert_eq!((post.taker(), post.next(5), post.next(7)), (Some(7), None, Some(line(2))));
        post.remove_taker(7);
        assert_eq!((post.next(7), post.take_back()), (None, vec![line(3)]));
        assert_eq!(post.send(line(4)), Err(line(4)));
    }

    #[test]
    fn of_too_many_the_oldest_are_dropped_and_counted_once() {
        let post = LogPost::default();
        post.add_taker(1);
        for number in 0..MAX_WAITING + 3 {
            post.send(line(number)).unwrap();
        }
        assert!(post.next(1).unwrap().message.starts_with("3 log messages were dropped"));
        assert_eq!(post.next(1), Some(line(3)));
        assert_eq!(post.take_back().len(), MAX_WAITING - 1);
    }
}
