//! Waiting for something without an event loop of our own: what can be suspended here, and timers of whichever loop runs.

use super::state::{self, call};
use crate::php::{self, Outcome, class_named, invoke, start_fiber, text, value};
use crate::runtime::Runtime;
use ext_php_rs::types::Zval;
use std::time::{Duration, Instant};

/// The loops, by a class that is loaded when the application uses them.
const REVOLT: &str = r"Revolt\EventLoop";
const REACT: &str = r"React\EventLoop\Loop";

fn is_loaded(class: &str) -> Outcome<bool> {
    Ok(class_named(class, false)?.is_some())
}

fn workerman_runs() -> Outcome<bool> {
    Runtime::current().workerman.is_running()
}

fn revolt_runs() -> Outcome<bool> {
    Ok(is_loaded(REVOLT)? && invoke(&call(r"Revolt\EventLoop::getDriver", [])?, c"isrunning", [])?.is_true())
}

/// A piece of running code that can wait while other code runs.
pub(crate) enum Suspension {
    Fiber(Zval),
    /// Revolt does not let fibers that it runs be suspended in another way.
    Revolt(Zval),
}

impl Suspension {
    /// None where waiting means that nothing else runs. With `timed` there must be a loop that has timers.
    pub(crate) fn here(timed: bool) -> Outcome<Option<Self>> {
        let fiber = state::current_fiber();
        if revolt_runs()? || (fiber.is_none() && is_loaded(REVOLT)? && !workerman_runs()?) {
            return Ok(Some(Self::Revolt(call(r"Revolt\EventLoop::getSuspension", [])?)));
        }
        match fiber {
            Some(fiber) if !timed || Timer::is_possible()? => Ok(Some(Self::Fiber(fiber))),
            _ => Ok(None),
        }
    }

    /// As [`Suspension::here`], for what is short enough to block outside of fibers.
    pub(crate) fn in_fiber() -> Outcome<Option<Self>> {
        if state::current_fiber().is_some() { Self::here(true) } else { Ok(None) }
    }

    /// Returns when somebody resumes it, for whatever reason.
    pub(crate) fn suspend(&self) -> Outcome {
        match self {
            Self::Fiber(_) => call("Fiber::suspend", []).map(drop),
            Self::Revolt(suspension) => invoke(suspension, c"suspend", []).map(drop),
        }
    }

    pub(crate) fn zval(&self) -> Zval {
        match self {
            Self::Fiber(object) | Self::Revolt(object) => object.shallow_clone(),
        }
    }

    /// Resumes what [`Suspension::zval`] stands for: at once, or when Revolt comes to it. Null is nobody.
    pub(crate) fn resume(suspension: &Zval) -> Outcome {
        let Some(object) = suspension.object() else { return Ok(()) };
        let is_fiber = state::has_method(std::ptr::from_ref(object).cast_mut(), "issuspended");
        if is_fiber && !invoke(suspension, c"issuspended", [])?.is_true() {
            return Ok(());
        }
        invoke(suspension, c"resume", []).map(drop)
    }
}

/// In place of what cancels a timer: one of the extension's own loop.
const OWN: &str = "";

/// A timer that fires once: what cancels it, and its id there.
pub(crate) struct Timer {
    cancel: &'static str,
    id: Zval,
}

impl Timer {
    fn is_possible() -> Outcome<bool> {
        Ok(Runtime::current().is_looping() || workerman_runs()? || is_loaded(REVOLT)? || is_loaded(REACT)?)
    }

    /// None when there is no loop.
    pub(crate) fn start(seconds: f64, callback: Zval) -> Outcome<Option<Self>> {
        let seconds = if seconds > 0.0 { seconds } else { 0.0 };
        let runtime = Runtime::current();
        let (cancel, id) = if runtime.is_looping() {
            (OWN, value(runtime.alarm(Duration::try_from_secs_f64(seconds.min(1e9)).unwrap_or_default(), callback)))
        } else if workerman_runs()? {
            // Workerman 4 takes 0 for a mistake.
            let arguments = [value(seconds.max(0.0001)), callback, Zval::new_array(), value(false)];
            (r"Workerman\Timer::del", call(r"Workerman\Timer::add", arguments)?)
        } else if is_loaded(REVOLT)? {
            (r"Revolt\EventLoop::cancel", call(r"Revolt\EventLoop::delay", [value(seconds), callback])?)
        } else if is_loaded(REACT)? {
            (r"React\EventLoop\Loop::cancelTimer", call(r"React\EventLoop\Loop::addTimer", [value(seconds), callback])?)
        } else {
            return Ok(None);
        };
        Ok(Some(Self { cancel, id }))
    }

    pub(crate) fn cancel(self) -> Outcome {
        cancel(self.cancel, &self.id)
    }

    /// As a value that a property can hold.
    pub(crate) fn save(self) -> Zval {
        value(vec![text(self.cancel), self.id])
    }

    pub(crate) fn cancel_saved(timer: &Zval) -> Outcome {
        let Some(timer) = timer.array() else { return Ok(()) };
        let (by, id) = (timer.get_index(0).and_then(Zval::str), timer.get_index(1));
        match (by, id) {
            (Some(by), Some(id)) => cancel(by, id),
            _ => Ok(()),
        }
    }
}

fn cancel(by: &str, id: &Zval) -> Outcome {
    if by == OWN {
        Runtime::current().cancel_alarm(id.long().unwrap_or_default());
        return Ok(());
    }
    call(by, [id.shallow_clone()]).map(drop)
}

/// Calls back in a fiber, so that the callback may suspend itself.
pub(crate) fn call_in_fiber(callback: &Zval, argument: Zval) -> Outcome {
    if state::current_fiber().is_some() {
        return php::call(callback, [argument]).map(drop);
    }
    start_fiber(callback, [argument])
}

/// Blocks until `ready` gives something or the time is up (none: never). The servers and clients of this process, and
/// signals, go on meanwhile.
pub(crate) fn block<T>(timeout: Option<Duration>, mut ready: impl FnMut() -> Option<T>) -> Outcome<Option<T>> {
    // A time that the clock cannot express is never up.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut found = None;
    Runtime::current().drive(deadline, &mut || {
        found = found.take().or_else(&mut ready);
        found.is_some()
    })?;
    Ok(found)
}
