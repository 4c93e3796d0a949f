//! The timers of a server: `every()` and `cancel()`.
//!
//! They run while the server runs: by the extension's own loop, or each as a timer of Workerman's.

use crate::php::Callable;
use ext_php_rs::types::Zval;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Timers {
    last_id: Cell<i64>,
    timers: RefCell<BTreeMap<i64, Timer>>,
    /// Those that run by our own loop, the next one first.
    due: RefCell<BTreeSet<(Instant, i64)>>,
}

struct Timer {
    interval: Duration,
    callback: Rc<Callable>,
    clock: Clock,
}

/// What makes a timer fire.
#[derive(Clone)]
enum Clock {
    None,
    Own(Instant),
    /// Workerman's timer of this id.
    Workerman(i64),
}

impl Timers {
    pub fn add(&self, interval: Duration, callback: Rc<Callable>) -> i64 {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        self.timers.borrow_mut().insert(id, Timer { interval, callback, clock: Clock::None });
        id
    }

    /// Returns the id of Workerman's timer, where it has one, and whether there was such a timer.
    pub fn cancel(&self, id: i64) -> (Option<i64>, bool) {
        let Some(timer) = self.timers.borrow_mut().remove(&id) else { return (None, false) };
        (self.unwind(id, &timer.clock), true)
        // The callback is dropped here, with no borrow held: that may run PHP code.
    }

    /// Lets a timer fire by the extension's own loop, beginning one interval from now.
    pub fn run(&self, id: i64, now: Instant) {
        if let Some(timer) = self.timers.borrow_mut().get_mut(&id) {
            let at = now + timer.interval;
            timer.clock = Clock::Own(at);
            self.due.borrow_mut().insert((at, id));
        }
    }

    pub fn runs_by_workerman(&self, id: i64, workerman_id: i64) {
        if let Some(timer) = self.timers.borrow_mut().get_mut(&id) {
            timer.clock = Clock::Workerman(workerman_id);
        }
    }

    /// Ids, seconds and callables of the timers that nothing makes fire yet.
    pub fn idle(&self) -> Vec<(i64, f64, Zval)> {
        let timers = self.timers.borrow();
        let idle = timers.iter().filter(|(_, timer)| matches!(timer.clock, Clock::None));
        idle.map(|(id, timer)| (*id, timer.interval.as_secs_f64(), timer.callback.zval().shallow_clone())).collect()
    }

    /// Stops all timers, without cancelling them. Returns the ids of Workerman's.
    pub fn rest(&self) -> Vec<i64> {
        let mut timers = self.timers.borrow_mut();
        let clocks: Vec<_> = timers.iter_mut().map(|(id, timer)| (*id, std::mem::replace(&mut timer.clock, Clock::None))).collect();
        drop(timers);
        clocks.into_iter().filter_map(|(id, clock)| self.unwind(id, &clock)).collect()
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.due.borrow().first().map(|(at, _)| *at)
    }

    /// The callback of a timer that is due, with its next time set. A late timer does not catch up.
    pub fn take_due(&self, now: Instant) -> Option<Rc<Callable>> {
        let (at, id) = *self.due.borrow().first().filter(|(at, _)| *at <= now)?;
        self.due.borrow_mut().pop_first();
        let mut timers = self.timers.borrow_mut();
        let timer = timers.get_mut(&id)?;
        let mut next = at + timer.interval;
        if next <= now {
            next = now + timer.interval;
        }
        timer.clock = Clock::Own(next);
        self.due.borrow_mut().insert((next, id));
        Some(timer.callback.clone())
    }

    pub fn each_value(&self, visit: &mut dyn FnMut(&Zval)) {
        self.timers.borrow().values().for_each(|timer| visit(timer.callback.zval()));
    }

    /// Drops every timer. Nothing calls into PHP for it afterwards.
    pub fn clear(&self) {
        self.due.take();
        drop(self.timers.take());
    }

    fn unwind(&self, id: i64, clock: &Clock) -> Option<i64> {
        match clock {
            Clock::None => None,
            Clock::Own(at) => {
                self.due.borrow_mut().remove(&(*at, id));
                None
            }
            Clock::Workerman(id) => Some(*id),
        }
    }
}
