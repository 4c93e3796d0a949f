//! The engine's log messages where its callbacks run in other processes: PHP's loggers are set there, in the `start` event, so
//! there the messages go.
//!
//! What else becomes of a message is [`crate::log`]'s.

use super::{Role, Server, State};
use crate::backend::Backend;
use crate::classes::logger::log_line;
use crate::php::Outcome;
use crate::runtime::Runtime;
use heartbus_core::engine::{Engine, LogLine};
use std::time::{Duration, Instant};

/// How long messages wait for a worker: at the start, and while workers are replaced. Then this process logs them itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often is looked whether there is a worker by now.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

const MAX_WAITING: usize = 1000;

impl Server {
    /// Takes a message that is for a worker's logger; gives back one that this process has to log itself.
    pub(super) fn take_log_for_worker(&self, line: LogLine, runtime: &Runtime) -> Option<LogLine> {
        if self.role.get() != Role::Engine || self.state.get() != State::Running {
            return Some(line);
        }
        let waiting = &self.waiting_log;
        let line = match self.with_engine(|engine| if waiting.lines.borrow().is_empty() { engine.send_log(line) } else { Err(line) }) {
            Some(Err(line)) => line,
            _ => {
                waiting.is_in_vain.set(false);
                return None;
            }
        };
        if waiting.is_in_vain.get() || waiting.lines.borrow().len() >= MAX_WAITING {
            return Some(line);
        }
        waiting.lines.borrow_mut().push_back(line);
        waiting.since.set(waiting.since.get().or_else(|| Some(Instant::now())));
        self.look_again(runtime);
        None
    }

    fn look_again(&self, runtime: &Runtime) {
        self.retry_at.set(Some(Instant::now() + LOOK_INTERVAL));
        runtime.set_alarm();
    }

    fn with_engine<T>(&self, ask: impl FnOnce(&Engine) -> T) -> Option<T> {
        let engine = self.engine.borrow().clone();
        match engine.as_deref() {
            Some(Backend::Here(engine)) => Some(ask(engine)),
            _ => None,
        }
    }

    /// Sends what waits, as soon as a worker takes it; logs it here when none comes in time.
    pub(super) fn settle_log(&self, runtime: &Runtime) -> Outcome {
        if self.retry_at.get().is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        self.retry_at.set(None);
        let waiting = &self.waiting_log;
        loop {
            let Some(line) = waiting.lines.borrow_mut().pop_front() else { break };
            if let Some(Err(line)) = self.with_engine(|engine| engine.send_log(line)) {
                waiting.lines.borrow_mut().push_front(line);
                break;
            }
        }
        if waiting.lines.borrow().is_empty() {
            waiting.since.set(None);
            return Ok(());
        }
        if waiting.since.get().is_some_and(|since| since.elapsed() < PATIENCE) {
            self.look_again(runtime);
            return Ok(());
        }
        waiting.is_in_vain.set(true);
        self.give_up_log()
    }

    /// This process logs what no worker has got.
    pub(super) fn give_up_log(&self) -> Outcome {
        self.waiting_log.since.set(None);
        let mut lines = self.with_engine(Engine::take_back_log).unwrap_or_default();
        lines.extend(self.waiting_log.lines.take());
        lines.iter().try_for_each(log_line)
    }

    /// A worker's share of the engine's messages.
    pub(super) fn tell_log(&self) -> Outcome {
        while let Some(line) = self.next_door(|next_door| next_door.attachment.borrow_mut().log_line()).flatten() {
            log_line(&line)?;
        }
        Ok(())
    }
}
