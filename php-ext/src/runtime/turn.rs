//! One turn: tells what waits, hands the log over, fires the timers that are due.

use super::{ANSWERS, Runtime, Source};
use crate::classes::logger;
use crate::log;
use crate::php::{self, Outcome, start_fiber};
use crate::shim;
use ext_php_rs::types::Zval;
use heartbus_core::error::Error;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Events of one source that are told before the next source, timers and signals have their turn.
const BATCH: usize = 1024;

/// Nor do they get more time than this, and one callback: slow ones must not keep signals and timers waiting.
const BATCH_TIME: Duration = Duration::from_millis(5);

impl Runtime {
    /// Tells what waits, one batch per source. Returns the number of callbacks that ran.
    pub(crate) fn pump(&self) -> Outcome<usize> {
        self.pumps.set(self.pumps.get() + 1);
        let told = self.tell_all();
        self.pumps.set(self.pumps.get() - 1);
        told
    }

    fn tell_all(&self) -> Outcome<usize> {
        let visits = self.visits.get();
        log::follow_application();
        // SAFETY: PHP's thread.
        unsafe { shim::heartbus_own_time_limit() };
        self.hand_over_log()?;
        if visits != self.visits.get() {
            return Ok(0);
        }
        let mut ran = 0;
        let mut is_quiet = true;
        for source in self.sources() {
            ran += source.wake()?;
            if visits != self.visits.get() {
                return Ok(ran);
            }
            ran += self.tell_batch(&*source)?;
            if visits != self.visits.get() {
                return Ok(ran);
            }
            ran += usize::from(source.settle(self)?);
            if visits != self.visits.get() {
                return Ok(ran);
            }
            is_quiet &= source.pending() == 0 && !source.has_more();
        }
        if let Some(answers) = ANSWERS.get() {
            ran += answers.wake()?;
            if visits != self.visits.get() {
                return Ok(ran);
            }
        }
        if let (true, Some(wakeup)) = (is_quiet, self.wakeup.get()) {
            wakeup.clear();
        }
        Ok(ran)
    }

    /// After the log's settings were applied: messages for PHP's logger wake the loop.
    pub(crate) fn watch_log(&self) -> Result<(), Error> {
        let Some(fd) = log::waiting_fd() else { return Ok(()) };
        if self.watched_log.replace(fd.as_raw_fd()) != fd.as_raw_fd() {
            self.wakeup()?.watch(fd)?;
        }
        Ok(())
    }

    /// What waits for PHP's logger by now, as much as a turn has time for: what it causes itself has the next turn. It may be one
    /// of the user's own, and throw or suspend.
    pub(super) fn hand_over_log(&self) -> Outcome {
        log::forget_handing_over();
        let waiting = log::waiting().min(BATCH);
        if waiting == 0 {
            return Ok(());
        }
        let (visits, until) = (self.visits.get(), Instant::now() + BATCH_TIME);
        for _ in 0..waiting {
            log::hand_over(|line| {
                // Where workers run the callbacks, their logger is meant.
                let left = self.sources().try_fold(line, |line, source| source.take_log(line, self));
                left.map_or(Ok(()), |line| logger::log_line(&line))
            })?;
            self.check_process()?;
            if visits != self.visits.get() || Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }

    fn tell_batch(&self, source: &dyn Source) -> Outcome<usize> {
        let visits = self.visits.get();
        let until = Instant::now() + BATCH_TIME;
        let mut ran = 0;
        if source.pending() == 0 {
            source.refill(BATCH)?;
        }
        for _ in 0..BATCH {
            match source.pending() {
                0 => break,
                1 => {}
                // If the callback throws or suspends its fiber, the next turn of the loop goes on with the rest.
                _ => self.wake_loop(),
            }
            ran += usize::from(source.tell_next(self)?);
            self.check_process()?;
            if visits != self.visits.get() || Instant::now() >= until {
                break;
            }
        }
        Ok(ran)
    }

    /// Wakes the loop when the next timer is due.
    pub(crate) fn set_alarm(&self) {
        let sources = self.sources().filter_map(|source| source.wakes_at());
        let next = sources.chain(self.alarms.borrow().next()).min();
        if let Some(wakeup) = self.wakeup.get() {
            wakeup.wake_at(next);
        }
    }

    /// Fires the timers that are due.
    pub(super) fn tick(&self) -> Outcome<usize> {
        let visits = self.visits.get();
        let now = Instant::now();
        let mut fired = 0;
        for source in self.sources() {
            while let Some(callback) = source.take_due(now) {
                callback.call([])?;
                self.check_process()?;
                fired += 1;
                if visits != self.visits.get() {
                    return Ok(fired);
                }
            }
        }
        for source in self.sources() {
            fired += usize::from(source.settle(self)?);
            if visits != self.visits.get() {
                return Ok(fired);
            }
        }
        while let Some(alarm) = self.take_alarm(now) {
            php::call(&alarm, [])?;
            self.check_process()?;
            fired += 1;
            if visits != self.visits.get() {
                return Ok(fired);
            }
        }
        self.set_alarm();
        Ok(fired)
    }

    /// A loop of others found out that there is something to tell. `turn` runs in a fiber, so that a callback that suspends itself keeps
    /// nobody waiting: the next visit goes on with what is left. Whoever resumes such a callback waits for its end and for
    /// nothing else, which is why telling stops there: the number of visits has changed.
    pub(crate) fn be_visited(&self, turn: &Zval) -> Outcome {
        self.visits.set(self.visits.get() + 1);
        let done = start_fiber(turn, []);
        self.visits.set(self.visits.get() + 1);
        done
    }

    /// What a visit does.
    pub(crate) fn turn_once(&self) -> Outcome {
        let visits = self.visits.get();
        self.pump()?;
        if visits == self.visits.get() {
            self.tick()?;
        }
        if visits == self.visits.get() { self.leave_loop_when_idle() } else { Ok(()) }
    }

    /// Calls a closure once, when our own loop turns that long from now.
    pub(crate) fn alarm(&self, after: Duration, closure: Zval) -> i64 {
        let number = self.alarms.borrow_mut().add(Instant::now() + after, closure);
        self.set_alarm();
        number
    }

    pub(crate) fn cancel_alarm(&self, number: i64) {
        let closure = self.alarms.borrow_mut().cancel(number);
        // Dropped with no borrow held: it may run PHP code.
        drop(closure);
    }

    fn take_alarm(&self, now: Instant) -> Option<Zval> {
        self.alarms.borrow_mut().take_due(now)
    }
}
