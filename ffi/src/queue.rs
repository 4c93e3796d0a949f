//! The events of one handle: waiting for them, taking a batch, and keeping the memory it points to until the next.

use crate::arguments::{invalid, out, out_slice};
use crate::event::heartbus_event;
use crate::handle::{self, Owner, Polled, Remains};
use bumpalo::Bump;
use heartbus_core::descriptor::lower;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::hub::coalesce::Queued;
use heartbus_core::inbox::Inbox;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Where events come from.
pub(crate) trait Source: Send + Sync + 'static {
    type Item: Send + 'static;
    /// Readable while items wait. An eventfd.
    fn as_fd(&self) -> BorrowedFd<'_>;
    /// Moves up to `max` items to the back of `into` and returns their number. Never blocks.
    fn drain(&self, into: &mut VecDeque<Self::Item>, max: usize) -> usize;
    /// Makes the descriptor readable until the next drain, whether items wait or not.
    fn wake(&self);
}

/// Who tells the items of a source to C.
pub(crate) trait Teller<I> {
    /// Writes each item to the same place of `events`, which has as many. Events point into the items and into `texts`.
    fn tell(&self, items: &VecDeque<I>, texts: &Bump, events: &mut [MaybeUninit<heartbus_event>]);
    /// The program has seen this one, and its memory goes now.
    fn forget(&self, _item: &I) {}
}

impl<E: Queued + Send + 'static> Source for Arc<Inbox<E>>
where
    E::Key: Send,
{
    type Item = E;

    fn as_fd(&self) -> BorrowedFd<'_> {
        Inbox::as_fd(self)
    }

    fn drain(&self, into: &mut VecDeque<E>, max: usize) -> usize {
        Inbox::drain(self, into, max)
    }

    fn wake(&self) {
        Inbox::wake(self);
    }
}

pub(crate) struct Queue<S: Source> {
    source: S,
    /// The source's, for the program: it may call select() on it.
    fd: OwnedFd,
    /// May outlive the queue: see [`handle::close`].
    batch: Arc<Mutex<Batch<S::Item>>>,
    /// Nothing more will be pushed.
    ended: AtomicBool,
    /// Nothing more is returned.
    discarded: AtomicBool,
    /// The next poll returns at once.
    woken: AtomicBool,
}

/// What the events of the last poll point to.
struct Batch<I> {
    items: VecDeque<I>,
    texts: Bump,
    /// The thread that polled them.
    of: Owner,
}

impl<I> Batch<I> {
    fn new() -> Self {
        Self { items: VecDeque::new(), texts: Bump::new(), of: Owner::default() }
    }
}

impl<I: Send> Remains for Mutex<Batch<I>> {
    fn release(&self, thread: u64) {
        let mut batch = lock(self);
        if batch.of.is_or_is_gone(thread) {
            // Not only emptied: nothing will be taken into its memory again.
            *batch = Batch::new();
        }
    }

    fn is_held(&self) -> bool {
        !lock(self).items.is_empty()
    }
}

impl<S: Source> Queue<S> {
    /// # Errors
    /// `Io` when no descriptor is left.
    pub(crate) fn new(source: S) -> Result<Arc<Self>, Error> {
        let fd = lower(source.as_fd()).map_err(cannot_wait)?;
        let flag = AtomicBool::default;
        Ok(Arc::new(Self { source, fd, batch: Arc::new(Mutex::new(Batch::new())), ended: flag(), discarded: flag(), woken: flag() }))
    }

    pub(crate) fn source(&self) -> &S {
        &self.source
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// What each poll of the ABI does with what its caller gave it.
    ///
    /// # Safety
    /// `events` is an array of `capacity` events, or NULL, and `count` the place for a number, or NULL, as the first page asks.
    pub(crate) unsafe fn poll_into(
        &self,
        teller: &impl Teller<S::Item>,
        events: *mut heartbus_event,
        capacity: usize,
        timeout_ms: i32,
        count: *mut usize,
    ) -> Result<(), Error> {
        // SAFETY: as above.
        let (events, count) = unsafe { (out_slice("events", events, capacity)?, out("count", count)?) };
        count.write(self.poll(teller, events, timeout_ms)?);
        Ok(())
    }

    /// Fills `events` from the front and returns how many. 0 after `timeout_ms`, or when a signal arrived, or after a wake.
    ///
    /// # Errors
    /// `Closed` when the queue has ended and is empty, or its handle is freed; `InvalidArgument` while another thread polls.
    pub(crate) fn poll(
        &self,
        teller: &impl Teller<S::Item>,
        events: &mut [MaybeUninit<heartbus_event>],
        timeout_ms: i32,
    ) -> Result<usize, Error> {
        if events.is_empty() {
            return Err(invalid("capacity is 0"));
        }
        let mut batch = self.begin()?;
        let batch = &mut *batch;
        batch.items.iter().for_each(|item| teller.forget(item));
        batch.items.clear();
        batch.texts.reset();
        batch.of = Owner::me();
        let deadline = u64::try_from(timeout_ms).ok().map(|ms| Instant::now() + Duration::from_millis(ms));
        loop {
            // Before draining: what was pushed before the end is then found by this drain.
            let ended = self.has_ended();
            let count = self.source.drain(&mut batch.items, events.len());
            // Draining may have cleared the sign of the end.
            if self.has_ended() {
                self.make_readable();
            }
            // Whoever frees the handle waits for the batch after that: it finds there what this poll returns.
            if self.discarded.load(Ordering::Acquire) {
                *batch = Batch::new();
                return Err(handle::closed());
            }
            let woken = self.woken.swap(false, Ordering::AcqRel);
            if count > 0 {
                teller.tell(&batch.items, &batch.texts, &mut events[..count]);
                return Ok(count);
            }
            if ended {
                return Err(Error::new(ErrorKind::Closed, "Stopped, and every event was taken"));
            }
            if woken || !self.wait(deadline)? {
                return Ok(0);
            }
        }
    }

    fn begin(&self) -> Result<MutexGuard<'_, Batch<S::Item>>, Error> {
        match self.batch.try_lock() {
            Ok(batch) => Ok(batch),
            Err(TryLockError::Poisoned(batch)) => Ok(batch.into_inner()),
            // Held by who frees the handle, or by a poll that is about to end for that.
            Err(TryLockError::WouldBlock) if self.discarded.load(Ordering::Acquire) => Ok(lock(&self.batch)),
            Err(TryLockError::WouldBlock) => Err(invalid("Another thread is polling this handle")),
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
            Err(error) => Err(cannot_wait(error.into())),
        }
    }
}

fn cannot_wait(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("Cannot wait for events: {error}"))
}

impl<S: Source> Polled for Queue<S> {
    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.source.wake();
    }

    fn discard(&self) {
        self.discarded.store(true, Ordering::Release);
        self.end();
    }

    fn remains(&self) -> Arc<dyn Remains> {
        self.batch.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
