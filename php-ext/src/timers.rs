//! The timers of a server: `every()` and `cancel()`.
//!
//! They run while the server runs, by whichever loop drives this process: it is woken when one is due.

use crate::php::Callable;
use ext_php_rs::types::Zval;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

#[derive(Default)]
pub(crate) struct Timers {
    last_id: Cell<i64>,
    timers: RefCell<BTreeMap<i64, ServerTimer>>,
    /// Those that run, the next one first.
    due: RefCell<BTreeSet<(Instant, i64)>>,
    /// Those that do not.
    resting: RefCell<BTreeSet<i64>>,
}

struct ServerTimer {
    interval: Duration,
    callback: Rc<Callable>,
    /// When it fires next; none while the server does not run.
    at: Option<Instant>,
}

impl Timers {
    pub(crate) fn add(&self, interval: Duration, callback: Rc<Callable>) -> i64 {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        self.timers.borrow_mut().insert(id, ServerTimer { interval, callback, at: None });
        self.resting.borrow_mut().insert(id);
        id
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.timers.borrow().is_empty()
    }

    /// Whether there was such a timer.
    pub(crate) fn cancel(&self, id: i64) -> bool {
        let timer = self.timers.borrow_mut().remove(&id);
        match timer.as_ref().map(|timer| timer.at) {
            Some(Some(at)) => drop(self.due.borrow_mut().remove(&(at, id))),
            Some(None) => drop(self.resting.borrow_mut().remove(&id)),
            None => {}
        }
        timer.is_some()
        // The callback is dropped here, with no borrow held: that may run PHP code.
    }

    /// Lets those that do not run yet run, beginning one interval from now.
    pub(crate) fn run(&self, now: Instant) {
        let (mut timers, mut due) = (self.timers.borrow_mut(), self.due.borrow_mut());
        for id in self.resting.take() {
            if let Some(timer) = timers.get_mut(&id) {
                let at = now + timer.interval;
                timer.at = Some(at);
                due.insert((at, id));
            }
        }
    }

    /// Lets one that does not run yet run, beginning one interval from now.
    pub(crate) fn run_one(&self, id: i64, now: Instant) {
        if let Some(timer) = self.timers.borrow_mut().get_mut(&id).filter(|timer| timer.at.is_none()) {
            let at = now + timer.interval;
            timer.at = Some(at);
            self.due.borrow_mut().insert((at, id));
        }
    }

    /// Stops all timers, without cancelling them.
    pub(crate) fn rest(&self) {
        self.due.take();
        let mut timers = self.timers.borrow_mut();
        timers.values_mut().for_each(|timer| timer.at = None);
        self.resting.replace(timers.keys().copied().collect());
    }

    pub(crate) fn len(&self) -> usize {
        self.timers.borrow().len()
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.borrow().first().map(|(at, _)| *at)
    }

    /// The callback of a timer that is due, with its next time set. A late timer does not catch up.
    pub(crate) fn take_due(&self, now: Instant) -> Option<Rc<Callable>> {
        let (at, id) = *self.due.borrow().first().filter(|(at, _)| *at <= now)?;
        self.due.borrow_mut().pop_first();
        let mut timers = self.timers.borrow_mut();
        let timer = timers.get_mut(&id)?;
        let mut next = at + timer.interval;
        if next <= now {
            next = now + timer.interval;
        }
        timer.at = Some(next);
        self.due.borrow_mut().insert((next, id));
        Some(timer.callback.clone())
    }

    pub(crate) fn each_value(&self, visit: &mut dyn FnMut(&Zval)) {
        self.timers.borrow().values().for_each(|timer| visit(timer.callback.zval()));
    }

    /// Drops every timer. Nothing calls into PHP for it afterwards.
    pub(crate) fn clear(&self) {
        self.due.take();
        self.resting.take();
        drop(self.timers.take());
    }
}
