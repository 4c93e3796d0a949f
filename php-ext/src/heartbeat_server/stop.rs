//! How a server ends: its clients are told, then its callbacks, each within a time.

use super::Kind::Stop;
use super::{Role, Server, State};
use crate::arguments;
use crate::backend::Backend;
use crate::host::{Host, Source, Watcher};
use crate::php::{Call, Outcome};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a stop goes on telling what had happened before it.
const TELLING_TIME: Duration = Duration::from_secs(2);

/// A worker waits for its engine to tell the clients as well, which takes up to 1.5 s. It stays under the 5 s after which
/// Workerman kills.
const WORKER_TELLING_TIME: Duration = Duration::from_millis(3800);

/// A worker that is told to stop sees within this time that its engine stops too; else it goes alone.
const PATIENCE: Duration = Duration::from_millis(500);

// ---- methods ----

/// The end of a worker of Workerman's. One that `leaves` is replaced: its engine goes on.
pub fn stop_here(call: &mut Call) -> Outcome {
    let mut leaves = false;
    arguments!(call, c"|b", leaves)?;
    let server = call.held::<Server>()?;
    let host = Host::current();
    server.begin_stop(&host);
    if leaves {
        server.leave_at.set(Some(Instant::now()));
    }
    server.finish_stop(&host)
}

/// Whether a worker of Workerman's that stops gracefully has something to wait for: its engine has connections.
pub fn is_busy(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    call.result.set_bool(server.state.get() == State::Running);
    Ok(())
}

pub fn stop(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    server.check_process()?;
    let host = Host::current();
    if server.is_elsewhere() {
        // Whichever worker of the script this is: all of them have one master.
        if server.prepared_in.get().is_some() && host.workerman.is_running()? {
            return host.workerman.stop_all();
        }
        return if server.backend_if_started()?.is_some() { Err(server.is_not_for("stop()")) } else { Ok(()) };
    }
    if server.state.get() != State::Running {
        return Ok(());
    }
    if server.prepared_in.get().is_some() && host.watcher() == Watcher::Workerman {
        return host.workerman.stop_all();
    }
    server.begin_stop(&host);
    if host.is_looping() || host.is_pumping() {
        // Inside a callback: the loop tells the rest when the callback has returned.
        return Ok(());
    }
    server.finish_stop(&host)
}

// ---- behaviour ----

impl Server {
    /// Stops the engine: within 1.5 s every client was told. What is left to tell is in the inbox then. A worker goes when
    /// its engine has told it everything.
    pub fn begin_stop(&self, host: &Host) {
        match (self.role.get(), self.state.get()) {
            (Role::Worker, State::Away) => {
                self.retry_at.set(None);
                self.state.set(State::Idle);
                drop(host.remove_server(self));
                self.timers.rest();
            }
            (Role::Engine, State::Running) => {
                self.stop_engine();
                self.state.set(State::Idle);
                self.retry_at.set(None);
                drop(host.remove_server(self));
            }
            (role, State::Running) => {
                let now = Instant::now();
                self.stop_engine();
                self.state.set(State::Stopping);
                self.leave_at.set(Some(now + PATIENCE));
                self.tell_until.set(Some(now + if role == Role::Worker { WORKER_TELLING_TIME } else { TELLING_TIME }));
                host.ring();
            }
            _ => {}
        }
    }

    /// Somebody is in a hurry: what is not told yet is dropped.
    pub fn stop_telling(&self) {
        self.tell_until.set(Some(Instant::now()));
    }

    /// Drops what could not be told in time, and says so.
    fn give_up_telling(&self) {
        let mut dropped = self.pending.take().len();
        if let Some(inbox) = &*self.inbox.borrow() {
            let mut rest = VecDeque::new();
            while inbox.drain(&mut rest, 1024) > 0 {
                dropped += rest.len();
                rest.clear();
            }
        }
        if dropped > 0 {
            tracing::warn!(events = dropped, "The callbacks took too long for the stop: not all events were told");
        }
    }

    pub fn finish_stop(&self, host: &Host) -> Outcome {
        if self.role.get() == Role::Engine {
            self.give_up_log()?;
        }
        while self.state.get() == State::Stopping {
            host.pump()?;
            if self.role.get() == Role::Worker && self.state.get() == State::Stopping && self.pending() == 0 {
                host.sleep(Some(Instant::now() + Duration::from_millis(5)))?;
            }
        }
        host.leave_loop_when_idle()
    }

    /// What remains to be done when events were told.
    pub fn settle(self: &Rc<Self>, host: &Host) -> Outcome<bool> {
        let engine = self.engine.borrow().clone();
        let Some(engine) = engine else { return if self.role.get() == Role::Worker { self.settle_worker(host) } else { Ok(false) } };
        if self.role.get() == Role::Whole
            && self.state.get() == State::Stopping
            && self.tell_until.get().is_some_and(|until| until <= Instant::now())
        {
            self.give_up_telling();
        }
        if self.is_quiet() && self.views.are_channels_open() && self.views.sweep(self.coalesced(), &engine) {
            self.views.wake()?;
        }
        match self.role.get() {
            Role::Engine => self.settle_log(host).map(|()| false),
            Role::Worker => self.settle_worker(host),
            Role::Whole if self.state.get() == State::Stopping && self.is_quiet() => {
                if self.views.close_departed(&engine) {
                    self.views.wake()?;
                }
                self.come_to_rest(host)
            }
            _ => Ok(false),
        }
    }

    /// The last step of stopping, once everything is told.
    pub(super) fn come_to_rest(&self, host: &Host) -> Outcome<bool> {
        self.state.set(State::Idle);
        if let Some(inbox) = &*self.inbox.borrow() {
            host.unwatch(inbox.as_fd());
        }
        // The object may be held by nobody else.
        let object = host.remove_server(self);
        self.timers.rest();
        match object {
            Some(object) => self.call(Stop, [object]),
            None => Ok(false),
        }
    }

    /// Everything that happened so far was told.
    pub(super) fn is_quiet(&self) -> bool {
        self.pending() == 0 && !self.may_have_more() && self.inbox.borrow().as_ref().is_none_or(|inbox| inbox.stats().queued_events == 0)
    }

    fn stop_engine(&self) {
        let engine = self.engine.borrow().clone();
        if let Some(Backend::Here(engine)) = engine.as_deref() {
            engine.stop();
        }
    }

    /// The request ends: nothing calls into PHP any more.
    pub fn shut_down(&self) {
        self.give_back();
        self.callbacks.take();
        self.timers.clear();
        self.views.clear();
        self.stop_engine();
        self.state.set(State::Idle);
    }
}
