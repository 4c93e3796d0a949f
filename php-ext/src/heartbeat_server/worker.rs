//! A server whose engine is next door: this process runs its callbacks, as one worker of maybe several.
//!
//! Attaches, looks for an engine that is gone, and leaves politely. Which worker gets which event is the engine's business.

use super::Kind::{Start, Stop};
use super::elsewhere::another_server;
use super::{Server, State};
use crate::backend::{Backend, NextDoor};
use crate::exception;
use crate::host::Host;
use crate::php::Outcome;
use heartbus_core::bus::{Attachment, Phase};
use heartbus_core::error::{Error, ErrorKind};
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often a worker looks for an engine that is not there.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How long an engine may be on its way before somebody is told that a worker misses it, and how often it is said again.
const PATIENCE: Duration = Duration::from_secs(2);
const SILENT_TIME: Duration = Duration::from_secs(30);

/// A worker's time without its engine: since when, and when it was last told.
#[derive(Default)]
pub(super) struct Absence {
    began: Cell<Option<Instant>>,
    told: Cell<Option<Instant>>,
}

impl Absence {
    fn goes_on(&self, path: &Path, error: &Error) {
        let now = Instant::now();
        let began = self.began.get().unwrap_or(now);
        self.began.set(Some(began));
        let is_due = self.told.get().map_or(now >= began + PATIENCE, |told| now >= told + SILENT_TIME);
        if is_due {
            self.told.set(Some(now));
            let seconds = (now - began).as_secs();
            tracing::error!(socket = %path.display(), %error, seconds, "A PHP worker cannot reach its engine: it is told nothing");
        }
    }

    fn is_over(&self, path: &Path) {
        self.began.set(None);
        if self.told.take().is_some() {
            tracing::warn!(socket = %path.display(), "A PHP worker has its engine again");
        }
    }
}

impl Server {
    /// Attaches to the engine, or tries again later.
    pub(super) fn look_for_engine(self: &Rc<Self>, host: &Host) -> Outcome {
        let path = self.bus_path.borrow().clone().unwrap_or_default();
        let attached = NextDoor::attach(&path).and_then(|next_door| {
            let port = next_door.attachment.borrow().welcome().listen.port();
            if i64::from(port) == self.port { Ok(next_door) } else { Err(another_server(&path, port)) }
        });
        let next_door = match attached {
            Ok(next_door) => next_door,
            Err(error) if matches!(error.kind, ErrorKind::Io | ErrorKind::Closed | ErrorKind::Timeout) => {
                self.absence.goes_on(&path, &error);
                self.retry_at.set(Some(Instant::now() + RETRY_INTERVAL));
                host.set_alarm();
                return Ok(());
            }
            Err(error) => return Err(exception::raise(&error)),
        };
        self.absence.is_over(&path);
        self.retry_at.set(None);
        self.finished_batch.set(None);
        self.seen.set(None);
        self.last_place.set((0, 0));
        self.may_have_more.set(false);
        host.watch(next_door.attachment.borrow().as_fd()).map_err(|error| exception::raise(&error))?;
        let backend = Rc::new(Backend::NextDoor(Box::new(next_door)));
        self.engine.replace(Some(backend.clone()));
        self.state.set(State::Running);
        self.run_timers(host);
        let me = host.object_of(self).unwrap_or_default();
        let told = self.call(Start, [me]);
        // What `start` subscribed to is known now: events may come.
        if let Backend::NextDoor(next_door) = &*backend {
            next_door.is_ready.set(true);
        }
        self.say(|attachment| attachment.ready(self.subscriptions()));
        self.views.open_channels().into_iter().for_each(|channel_id| self.watch(channel_id));
        if self.config.log.to_logger == Some(true) {
            self.say(Attachment::take_log);
        }
        told.map(drop)
    }

    pub(super) fn next_door<T>(&self, read: impl FnOnce(&NextDoor) -> T) -> Option<T> {
        let engine = self.engine.borrow().clone();
        match engine.as_deref() {
            Some(Backend::NextDoor(next_door)) => Some(read(next_door)),
            _ => None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.next_door(NextDoor::phase).unwrap_or(Phase::Lost)
    }

    /// Says something to the engine next door. That it is gone shows when its events are read.
    pub(super) fn say(&self, what: impl FnOnce(&mut Attachment) -> std::result::Result<(), Error>) {
        let said = self.next_door(|next_door| if next_door.is_ready.get() { what(&mut next_door.attachment.borrow_mut()) } else { Ok(()) });
        if let Some(Err(error)) = said {
            tracing::debug!(%error, "The engine does not hear");
        }
    }

    /// Lets this worker have what comes on a channel, whichever worker the node belongs to.
    pub fn watch(&self, channel_id: u32) {
        self.say(|attachment| attachment.watch(channel_id));
    }

    pub fn unwatch(&self, channel_id: u32) {
        self.say(|attachment| attachment.unwatch(channel_id));
    }

    /// The engine next door has nothing more to tell.
    pub(super) fn detach(&self, host: &Host) -> Outcome {
        self.finished_batch.set(None);
        self.seen.set(None);
        self.next_door(|next_door| host.unwatch(next_door.attachment.borrow().as_fd()));
        self.views.release(u64::MAX);
        if self.views.close_all() {
            self.views.wake()?;
        }
        Ok(())
    }

    /// A step of a worker's. True when a callback ran.
    pub(super) fn settle_worker(self: &Rc<Self>, host: &Host) -> Outcome<bool> {
        self.tell_log()?;
        if self.state.get() == State::Away {
            if self.retry_at.get().is_some_and(|at| at <= Instant::now()) {
                self.look_for_engine(host)?;
                return Ok(self.state.get() == State::Running);
            }
            return Ok(false);
        }
        if self.state.get() == State::Stopping
            && self.phase() == Phase::Running
            && self.leave_at.get().is_some_and(|at| at <= Instant::now())
        {
            self.leave_at.set(None);
            self.say(Attachment::leave);
        }
        let is_over = matches!(self.phase(), Phase::Finished | Phase::Lost);
        let is_late = self.state.get() == State::Stopping && self.tell_until.get().is_some_and(|until| until <= Instant::now());
        if is_late && !is_over {
            // What was not acknowledged goes to another worker.
            self.pending.take();
        } else if !is_over || !self.pending.borrow().is_empty() || self.may_have_more() {
            return Ok(false);
        }
        self.detach(host)?;
        if self.state.get() == State::Stopping {
            return self.come_to_rest(host);
        }
        self.state.set(State::Away);
        self.timers.rest();
        self.retry_at.set(Some(Instant::now() + RETRY_INTERVAL));
        host.set_alarm();
        let me = host.object_of(self).unwrap_or_default();
        self.call(Stop, [me])
    }

    /// The process ends in the middle of a batch, by `exit()` or a fatal error: what no callback has seen goes to another
    /// worker unmarked. The event whose callback did that was told.
    pub(super) fn give_back(&self) {
        let Some((batch, seen)) = self.seen.take() else { return };
        let done = match self.telling.get() {
            None => seen,
            Some((same, place)) if same == batch => place,
            Some(_) => 0,
        };
        self.say(|attachment| attachment.acknowledge_part(batch, done, seen - done));
    }

    /// When there is something to do for a worker, whether or not anything comes.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.retry_at.get()
    }
}
