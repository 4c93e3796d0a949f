//! A server whose engine is next door: this process runs its callbacks, as one worker of maybe several.
//!
//! Attaches, looks for an engine that is gone, and leaves politely. Which worker gets which event is the engine's business.

use super::Kind::{Start, Stop};
use super::delivery::Part;
use super::other_process::another_server;
use super::{Server, State};
use crate::backend::{Backend, NextDoor};
use crate::exception;
use crate::php::Outcome;
use crate::runtime::Runtime;
use heartbus_core::bus::{Attachment, AttachmentPhase};
use heartbus_core::error::{Error, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often a worker looks for an engine that is not there.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

impl Server {
    /// Attaches to the engine, or tries again later.
    pub(super) fn look_for_engine(self: &Rc<Self>, runtime: &Runtime) -> Outcome {
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
                runtime.set_alarm();
                return Ok(());
            }
            Err(error) => return Err(exception::raise(&error)),
        };
        self.absence.is_over(&path);
        self.retry_at.set(None);
        self.delivery.borrow_mut().begin_attachment();
        runtime.watch(next_door.attachment.borrow().as_fd()).map_err(|error| exception::raise(&error))?;
        let backend = Rc::new(Backend::NextDoor(Box::new(next_door)));
        self.engine.replace(Some(backend.clone()));
        self.state.set(State::Running);
        self.run_timers(runtime);
        let me = runtime.object_of(&**self).unwrap_or_default();
        let told = self.call(Start, [me]);
        // What `start` subscribed to is known now: events may come.
        if let Backend::NextDoor(next_door) = &*backend {
            next_door.is_ready.set(true);
        }
        self.say(|attachment| attachment.ready(self.subscriptions()));
        self.hear_all()?;
        self.objects.open_channels().into_iter().for_each(|channel_id| self.watch(channel_id));
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

    pub(super) fn phase(&self) -> AttachmentPhase {
        self.next_door(NextDoor::phase).unwrap_or(AttachmentPhase::Lost)
    }

    /// Says something to the engine next door. That it is gone shows when its events are read.
    pub(super) fn say(&self, what: impl FnOnce(&mut Attachment) -> Result<(), Error>) {
        let said = self.next_door(|next_door| if next_door.is_ready.get() { what(&mut next_door.attachment.borrow_mut()) } else { Ok(()) });
        if let Some(Err(error)) = said {
            tracing::debug!(%error, "The engine does not hear");
        }
    }

    /// Lets this worker have what comes on a channel, whichever worker the node belongs to.
    pub(crate) fn watch(&self, channel_id: u32) {
        self.say(|attachment| attachment.watch(channel_id));
    }

    pub(crate) fn unwatch(&self, channel_id: u32) {
        self.say(|attachment| attachment.unwatch(channel_id));
    }

    /// The engine next door has nothing more to tell.
    pub(super) fn detach(&self, runtime: &Runtime) -> Outcome {
        self.delivery.borrow_mut().end_attachment();
        self.next_door(|next_door| runtime.unwatch(next_door.attachment.borrow().as_fd()));
        self.objects.release(u64::MAX);
        if self.objects.close_all() {
            self.objects.wake()?;
        }
        Ok(())
    }

    /// A step of a worker's. True when a callback ran.
    pub(super) fn settle_worker(self: &Rc<Self>, runtime: &Runtime) -> Outcome<bool> {
        self.tell_log()?;
        if self.state.get() == State::Away {
            if self.retry_at.get().is_some_and(|at| at <= Instant::now()) {
                self.look_for_engine(runtime)?;
                return Ok(self.state.get() == State::Running);
            }
            return Ok(false);
        }
        if self.state.get() == State::Stopping
            && self.phase() == AttachmentPhase::Running
            && self.leave_at.get().is_some_and(|at| at <= Instant::now())
        {
            self.leave_at.set(None);
            self.say(Attachment::leave);
        }
        let is_over = matches!(self.phase(), AttachmentPhase::Finished | AttachmentPhase::Lost);
        let is_late = self.state.get() == State::Stopping && self.tell_until.get().is_some_and(|until| until <= Instant::now());
        if is_late && !is_over {
            // What was not acknowledged goes to another worker.
            self.delivery.borrow_mut().drop_pending();
        } else if !is_over || self.delivery.borrow().pending() > 0 || self.may_have_more() {
            return Ok(false);
        }
        self.detach(runtime)?;
        if self.state.get() == State::Stopping {
            return self.come_to_rest(runtime);
        }
        self.state.set(State::Away);
        self.timers.rest();
        self.retry_at.set(Some(Instant::now() + RETRY_INTERVAL));
        runtime.set_alarm();
        let me = runtime.object_of(&**self).unwrap_or_default();
        self.call(Stop, [me])
    }

    /// The process ends in the middle of a batch, by `exit()` or a fatal error: what no callback has seen goes to another
    /// worker unmarked. The event whose callback did that was told.
    pub(super) fn give_back(&self) {
        let part = self.delivery.borrow_mut().give_back();
        if let Some(Part { batch, told, unseen }) = part {
            self.say(|attachment| attachment.acknowledge_part(batch, told, unseen));
        }
    }
}
