//! One descriptor that is readable while anything waits for PHP: the inboxes, events already taken out of them, and
//! timers that are due.
//!
//! Other loops watch it; the extension's own loop sleeps on it.

use heartbus_core::descriptor::{lift, lower, raise_limit};
use heartbus_core::error::{Error, ErrorKind};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Instant;

pub(crate) struct Wakeup {
    watched: OwnedFd,
    /// Readable from [`Wakeup::set`] to [`Wakeup::clear`].
    event: OwnedFd,
    is_set: Cell<bool>,
    /// Readable once a timer is due.
    alarm: OwnedFd,
    wakes_at: Cell<Option<Instant>>,
}

impl Wakeup {
    pub(crate) fn new() -> Result<Self, Error> {
        // It may come before the engine whose events it tells of, whose descriptors will be many.
        raise_limit();
        let lifted = |opened: rustix::io::Result<OwnedFd>| opened.map_err(io::Error::from).and_then(lift).map_err(no_descriptor);
        let watched = lifted(epoll::create(CreateFlags::CLOEXEC))?;
        let event = lifted(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))?;
        let alarm = lifted(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK))?;
        let wakeup = Self { watched, event, is_set: Cell::new(false), alarm, wakes_at: Cell::new(None) };
        wakeup.watch(wakeup.event.as_fd())?;
        wakeup.watch(wakeup.alarm.as_fd())?;
        Ok(wakeup)
    }

    /// Readable from `at` on, until the next call.
    pub(crate) fn wake_at(&self, at: Option<Instant>) {
        if self.wakes_at.replace(at) == at {
            return;
        }
        let left = at.map(|at| at.saturating_duration_since(Instant::now()));
        let mut value = Timespec { tv_sec: 0, tv_nsec: 0 };
        if let Some(left) = left {
            value.tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            // 0 would switch it off.
            value.tv_nsec = left.subsec_nanos().max(1).into();
        }
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // Cannot fail: the descriptor is a timer and the time is valid.
        let _ = timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &once);
    }

    pub(crate) fn watch(&self, fd: BorrowedFd<'_>) -> Result<(), Error> {
        epoll::add(&self.watched, fd, EventData::new_u64(0), EventFlags::IN).map_err(|error| no_descriptor(error.into()))
    }

    pub(crate) fn unwatch(&self, fd: BorrowedFd<'_>) {
        // Fails only if it was not watched.
        let _ = epoll::delete(&self.watched, fd);
    }

    /// Readable until [`Wakeup::clear`].
    pub(crate) fn set(&self) {
        if !self.is_set.replace(true) {
            // Any number but 0 will do.
            let _ = rustix::io::write(&self.event, &[1; 8]);
        }
    }

    pub(crate) fn clear(&self) {
        if self.is_set.replace(false) {
            let _ = rustix::io::read(&self.event, &mut [0; 8]);
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.watched.as_raw_fd()
    }

    /// Another descriptor of the same, for a PHP stream to own: one that select() knows.
    pub(crate) fn duplicate(&self) -> Result<RawFd, Error> {
        lower(&self.watched).map(IntoRawFd::into_raw_fd).map_err(no_descriptor)
    }
}

fn no_descriptor(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("Cannot wait for events: {error}"))
}
