//! How a server ends: its clients are told, then its callbacks, each within a time.

use super::Kind::Stop;
use super::{Role, Server, State};
use crate::arguments;
use crate::backend::Backend;
use crate::php::{Call, Outcome};
use crate::runtime::{Runtime, Source, Watcher};
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
pub(super) fn stop_here(call: &mut Call<'_>) -> Outcome {
    let mut leaves = false;
    arguments!(call, c"|b", leaves)?;
    let server = call.held::<Server>()?;
    let runtime = Runtime::current();
    server.begin_stop(&runtime);
    if leaves {
        server.leave_at.set(Some(Instant::now()));
    }
    server.finish_stop(&runtime)
}

/// Whether a worker of Workerman's that stops gracefully has something to wait for: its engine has connections.
pub(super) fn is_busy(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    call.result.set_bool(server.state.get() == State::Running);
    Ok(())
}

pub(super) fn stop(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    server.check_process()?;
    let runtime = Runtime::current();
    if server.is_elsewhere() {
        // Whichever worker of the script this is: all of them have one master.
        if server.prepared_in.get().is_some() && runtime.workerman.is_running()? {
            return runtime.workerman.stop_all();
        }
        return if server.backend_if_started()?.is_some() { Err(server.is_not_for("stop()")) } else { Ok(()) };
    }
    if server.state.get() != State::Running {
        return Ok(());
    }
    if server.prepared_in.get().is_some() && runtime.watcher() == Watcher::Workerman {
        return runtime.workerman.stop_all();
    }
    server.begin_stop(&runtime);
    if runtime.is_looping() || runtime.is_pumping() {
        // Inside a callback: the loop tells the rest when the callback has returned.
        return Ok(());
    }
    server.finish_stop(&runtime)
}

// ---- behaviour ----

impl Server {
    /// Stops the engine: within 1.5 s every client was told. What is left to tell is in the inbox then. A worker goes when
    /// its engine has told it everything.
    pub(super) fn begin_stop_of_server(&self, runtime: &Runtime) {
        match (self.role.get(), self.state.get()) {
            (Role::Worker, State::Away) => {
                self.retry_at.set(None);
                self.state.set(State::Idle);
                drop(runtime.remove_server(self));
                self.timers.rest();
            }
            (Role::Engine, State::Running) => {
                self.stop_engine();
                self.state.set(State::Idle);
                self.retry_at.set(None);
                drop(runtime.remove_server(self));
            }
            (role, State::Running) => {
                let now = Instant::now();
                self.stop_engine();
                self.state.set(State::Stopping);
                self.leave_at.set(Some(now + PATIENCE));
                self.tell_until.set(Some(now + if role == Role::Worker { WORKER_TELLING_TIME } else { TELLING_TIME }));
                runtime.wake_loop();
            }
            _ => {}
        }
    }

    /// Drops what could not be told in time, and says so.
    fn give_up_telling(&self) {
        let mut dropped = self.delivery.borrow_mut().drop_pending();
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

    pub(crate) fn finish_stop(&self, runtime: &Runtime) -> Outcome {
        if self.role.get() == Role::Engine {
            self.give_up_log()?;
        }
        while self.state.get() == State::Stopping {
            runtime.pump()?;
            if self.role.get() == Role::Worker && self.state.get() == State::Stopping && self.pending() == 0 {
                runtime.sleep(Some(Instant::now() + Duration::from_millis(5)))?;
            }
        }
        runtime.leave_loop_when_idle()
    }

    /// What remains to be done when events were told.
    pub(super) fn settle_server(self: &Rc<Self>, runtime: &Runtime) -> Outcome<bool> {
        let engine = self.engine.borrow().clone();
        let Some(engine) = engine else { return if self.role.get() == Role::Worker { self.settle_worker(runtime) } else { Ok(false) } };
        if self.role.get() == Role::Whole
            && self.state.get() == State::Stopping
            && self.tell_until.get().is_some_and(|until| until <= Instant::now())
        {
            self.give_up_telling();
        }
        if self.is_quiet() && self.objects.are_channels_open() && self.objects.sweep(self.coalesced(), &engine) {
            self.objects.wake()?;
        }
        match self.role.get() {
            Role::Engine => self.settle_log(runtime).map(|()| false),
            Role::Worker => self.settle_worker(runtime),
            Role::Whole if self.state.get() == State::Stopping && self.is_quiet() => {
                if self.objects.close_departed(&engine) {
                    self.objects.wake()?;
                }
                self.come_to_rest(runtime)
            }
            _ => Ok(false),
        }
    }

    /// The last step of stopping, once everything is told.
    pub(super) fn come_to_rest(&self, runtime: &Runtime) -> Outcome<bool> {
        self.state.set(State::Idle);
        if let Some(inbox) = &*self.inbox.borrow() {
            runtime.unwatch(inbox.as_fd());
        }
        // The object may be held by nobody else.
        let object = runtime.remove_server(self);
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
    pub(super) fn shut_down_server(&self) {
        self.give_back();
        self.callbacks.take();
        self.timers.clear();
        self.objects.clear();
        self.stop_engine();
        self.state.set(State::Idle);
    }
}
