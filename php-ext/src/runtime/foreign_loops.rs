//! Loops of others: which one watches us, and how it is asked to and left.

use super::{ANSWERS, Runtime, Watcher};
use crate::callbacks;
use crate::config::Loop;
use crate::exception;
use crate::php::Outcome;

impl Runtime {
    /// Lets the loop of others that runs in this process tell us when there is something to do. False when none runs, or
    /// when the setting asks for something else.
    pub(crate) fn join_running_loop(&self, wanted: Loop) -> Outcome<bool> {
        let allows = |only| wanted == Loop::Auto || wanted == only;
        let watcher = if allows(Loop::Workerman) && self.workerman.is_running()? {
            Watcher::Workerman
        } else if allows(Loop::Revolt) && self.revolt.is_running()? {
            Watcher::Revolt
        } else if allows(Loop::React) && self.react.is_running()? {
            Watcher::React
        } else {
            return Ok(false);
        };
        self.be_watched_by(watcher).map(|()| true)
    }

    /// As [`Runtime::join_running_loop`] for one that the application can be expected to run later: the one it asks for, or
    /// one that it uses already.
    pub(crate) fn join_loop_to_come(&self, wanted: Loop) -> Outcome<bool> {
        let watcher = match wanted {
            Loop::Revolt if self.revolt.exists(true)? => Watcher::Revolt,
            Loop::React if self.react.exists(true)? => Watcher::React,
            Loop::Auto if self.revolt.is_used()? => Watcher::Revolt,
            Loop::Auto if self.react.is_used()? => Watcher::React,
            Loop::Revolt => return Err(self.revolt.is_missing("revolt")),
            Loop::React => return Err(self.react.is_missing("react")),
            _ => return Ok(false),
        };
        self.be_watched_by(watcher).map(|()| true)
    }

    pub(crate) fn be_watched_by(&self, watcher: Watcher) -> Outcome {
        if self.watcher.get() == watcher {
            return Ok(());
        }
        self.leave_loop()?;
        let stream = self.stream()?;
        match watcher {
            Watcher::Nobody => {}
            Watcher::Workerman => self.workerman.watch(stream, callbacks::of_commands())?,
            Watcher::Revolt => self.revolt.watch(stream, callbacks::on_readable())?,
            Watcher::React => self.react.watch(stream, callbacks::on_readable())?,
        }
        self.watcher.set(watcher);
        Ok(())
    }

    /// Revolt and ReactPHP run while they watch anything; a worker of Workerman's runs anyway.
    pub(super) fn leave_loop(&self) -> Outcome {
        match self.watcher.get() {
            Watcher::Nobody | Watcher::Workerman => return Ok(()),
            Watcher::Revolt => self.revolt.unwatch()?,
            Watcher::React => self.react.unwatch()?,
        }
        self.watcher.set(Watcher::Nobody);
        Ok(())
    }

    pub(crate) fn leave_loop_when_idle(&self) -> Outcome {
        let is_watched = !self.servers.borrow().is_empty() || self.has_clients() || self.has_feeds();
        let is_idle = !is_watched && ANSWERS.get().is_none_or(|answers| answers.is_idle());
        if is_idle { self.leave_loop() } else { Ok(()) }
    }

    pub(crate) fn watcher(&self) -> Watcher {
        self.watcher.get()
    }

    /// Throws when the loop that would be blocked is the one that tells our events.
    pub(crate) fn check_not_inside(&self, call: &str) -> Outcome {
        let inside = match self.watcher.get() {
            Watcher::Nobody => self.workerman.is_running()?.then_some("Workerman"),
            Watcher::Workerman => Some("Workerman"),
            Watcher::Revolt => self.revolt.is_running()?.then_some(self.revolt.name),
            Watcher::React => self.react.is_running()?.then_some(self.react.name),
        };
        match inside {
            Some(name) => Err(exception::logic_exception(&format!("{call}: the loop of {name} runs already, and the clients with it"))),
            None => Ok(()),
        }
    }
}
