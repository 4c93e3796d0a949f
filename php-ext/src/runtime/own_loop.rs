//! The extension's own loop, and all that blocks until something has happened: both go on telling meanwhile, and hear signals.

use super::Runtime;
use crate::php::{Outcome, pending_exception};
use crate::shim;
use crate::signals::Signals;
use crate::wakeup::Wakeup;
use std::time::{Duration, Instant};

impl Runtime {
    /// Runs everything of this process until `is_done`, an exception, or a stop signal. `begin` goes first: a signal that
    /// comes while it tells the world that something runs is obeyed as any other.
    pub(crate) fn run(&self, begin: impl FnOnce() -> Outcome, is_done: &dyn Fn() -> bool) -> Outcome {
        if self.loops.get() == 0 {
            // Ours runs instead; ReactPHP's would start again at the end of the script.
            self.leave_loop()?;
            Signals::came();
            *self.signals.borrow_mut() = Some(Signals::take());
        }
        self.loops.set(self.loops.get() + 1);
        let done = begin().and_then(|()| self.turn(is_done));
        self.loops.set(self.loops.get() - 1);
        if self.loops.get() == 0 {
            self.signals.take();
            self.is_interrupted.set(false);
        }
        done
    }

    fn turn(&self, is_done: &dyn Fn() -> bool) -> Outcome {
        self.adopt_waiting()?;
        loop {
            self.hear_signals()?;
            let ran = self.pump()? + self.tick()?;
            if self.obey_signals() {
                continue;
            }
            if is_done() || self.is_interrupted_and_stopped() {
                // What was logged between the last look and the event that ended it.
                return self.hand_over_log();
            }
            if ran == 0 {
                self.sleep(None)?;
            }
            self.check_process()?;
        }
    }

    /// Runs the application's own handlers of signals that came: there is no other loop here that would.
    fn hear_signals(&self) -> Outcome {
        if self.is_looping() {
            // SAFETY: no borrow is held: handlers of the user's run here.
            unsafe { shim::heartbus_dispatch_signals() };
            pending_exception()?;
        }
        Ok(())
    }

    /// True when a stop signal came; every server begins to stop then.
    fn obey_signals(&self) -> bool {
        if self.loops.get() == 0 || !Signals::came() {
            return false;
        }
        let is_impatient = self.is_interrupted.replace(true);
        for server in self.servers() {
            server.begin_stop(self);
            if is_impatient {
                server.stop_telling();
            }
        }
        true
    }

    fn is_interrupted_and_stopped(&self) -> bool {
        self.is_interrupted.get() && self.servers.borrow().is_empty()
    }

    /// For whoever blocks: goes on telling until `is_done`, the deadline, or the end of a loop that was told to stop.
    pub(crate) fn drive(&self, deadline: Option<Instant>, is_done: &mut dyn FnMut() -> bool) -> Outcome {
        self.adopt_waiting()?;
        while !is_done() {
            self.hear_signals()?;
            let ran = self.pump()? + self.tick()?;
            if self.obey_signals() {
                continue;
            }
            if is_done() || self.is_interrupted_and_stopped() || deadline.is_some_and(|at| at <= Instant::now()) {
                return Ok(());
            }
            if ran == 0 {
                self.sleep(deadline)?;
            }
            self.check_process()?;
        }
        Ok(())
    }

    /// One turn for loops of others: tells what waits; with nothing to tell, waits for it for up to `timeout`.
    pub(crate) fn poll(&self, timeout: Duration) -> Outcome<usize> {
        self.adopt_waiting()?;
        let deadline = Instant::now() + timeout;
        loop {
            let ran = self.pump()? + self.tick()?;
            if ran > 0 || Instant::now() >= deadline || !self.sleep(Some(deadline))? {
                return Ok(ran);
            }
        }
    }

    /// Sleeps until something may have to be done. False when a signal ended it.
    pub(crate) fn sleep(&self, deadline: Option<Instant>) -> Outcome<bool> {
        let nanoseconds = deadline.map_or(-1, |at| {
            let left = at.saturating_duration_since(Instant::now()).as_nanos();
            i64::try_from(left).unwrap_or(i64::MAX)
        });
        let fd = self.wakeup.get().map_or(-1, Wakeup::fd);
        // SAFETY: the descriptor is open, or there is none. No borrow is held: handlers of the user's may run.
        let woken = unsafe { shim::heartbus_wait(fd, nanoseconds, self.is_looping()) };
        if woken < 0 {
            // SAFETY: no borrow is held: handlers of the user's run here.
            unsafe { shim::heartbus_run_interrupts() };
            pending_exception()?;
        }
        Ok(woken >= 0)
    }
}
