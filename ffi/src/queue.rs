//! The events of one handle: waiting for them, taking a batch, and keeping the memory it points to until the next.

use crate::event::{heartbus_event, translate};
use crate::raw::invalid;
use bumpalo::Bump;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::Event;
use heartbus_core::inbox::Inbox;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

/// Where events come from.
pub(crate) trait Source {
    type Item;
    /// Readable while items wait. An eventfd.
    fn as_fd(&self) -> BorrowedFd<'_>;
    /// Moves up to `max` items to the back of `into` and returns their number. Never blocks.
    fn drain(&self, into: &mut VecDeque<Self::Item>, max: usize) -> usize;
    /// The item for C. It points into the item and into `texts`.
    fn translate(item: &Self::Item, texts: &Bump) -> heartbus_event;
}

impl Source for Arc<Inbox> {
    type Item = Event;

    fn as_fd(&self) -> BorrowedFd<'_> {
        Inbox::as_fd(self)
    }

    fn drain(&self, into: &mut VecDeque<Event>, max: usize) -> usize {
        Inbox::drain(self, into, max)
    }

    fn translate(item: &Event, texts: &Bump) -> heartbus_event {
        translate(item, texts)
    }
}

pub(crate) struct Queue<S: Source> {
    source: S,
    batch: Mutex<Batch<S::Item>>,
    /// Nothing more will be pushed.
    ended: AtomicBool,
}

/// What the events of the last poll point to.
struct Batch<I> {
    items: VecDeque<I>,
    texts: Bump,
}

impl<S: Source> Queue<S> {
    pub(crate) fn new(source: S) -> Queue<S> {
        let batch = Mutex::new(Batch { items: VecDeque::new(), texts: Bump::new() });
        Queue { source, batch, ended: AtomicBool::new(false) }
    }

    pub(crate) fn source(&self) -> &S {
        &self.source
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.source.as_fd().as_raw_fd()
    }

    /// Fills `events` from the front and returns how many. 0 after `timeout_ms`, or when a signal arrived. `forget` sees
    /// the events of the batch before, whose memory goes now.
    ///
    /// # Errors
    /// `Closed` when the queue has ended and is empty; `InvalidArgument` while another thread polls.
    pub(crate) fn poll(
        &self,
        events: &mut [MaybeUninit<heartbus_event>],
        timeout_ms: i32,
        forget: impl Fn(&S::Item),
    ) -> Result<usize, Error> {
        if events.is_empty() {
            return Err(invalid("capacity is 0"));
        }
        let mut batch = match self.batch.try_lock() {
            Ok(batch) => batch,
            Err(TryLockError::Poisoned(batch)) => batch.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(invalid("Another thread is polling this handle")),
        };
        let batch = &mut *batch;
        batch.items.iter().for_each(forget);
        batch.items.clear();
        batch.texts.reset();
        let deadline = u64::try_from(timeout_ms).ok().map(|ms| Instant::now() + Duration::from_millis(ms));
        loop {
            // Before draining: what was pushed before the end is then found by this drain.
            let ended = self.has_ended();
            let count = self.source.drain(&mut batch.items, events.len());
            // Draining may have cleared the sign of the end.
            if self.has_ended() {
                self.make_readable();
            }
            if count > 0 {
                for (target, item) in events.iter_mut().zip(&batch.items) {
                    target.write(S::translate(item, &batch.texts));
                }
                return Ok(count);
            }
            if ended {
                return Err(Error::new(ErrorKind::Closed, "Stopped, and every event was taken"));
            }
            if !self.wait(deadline)? {
                return Ok(0);
            }
        }
    }

    /// Nothing more will be pushed: whoever waits learns it, and the descriptor stays readable, like a socket's at its end.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.make_readable();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn make_readable(&self) {
        // The counter of an eventfd; it cannot overflow by ones, and is readable already if it could.
        #[allow(clippy::host_endian_bytes, reason = "the kernel reads its own number, nothing travels")]
        let _ = rustix::io::write(self.source.as_fd(), &1u64.to_ne_bytes());
    }

    /// False when there is nothing to look for: the time is over, or a signal arrived.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool, Error> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        let timeout = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let fd = self.source.as_fd();
        match rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) => Ok(true),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(Error::new(ErrorKind::Io, format!("Cannot wait for events: {error}"))),
        }
    }
}
