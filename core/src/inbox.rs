//! The inbox: a bounded queue from the engine's threads to the host's one thread, with one descriptor to wait on.
//!
//! Owns the queue, its bounds and the descriptor. Does not know where events come from or what the host does with them.
//!
//! At the bound, data and state part ways. A data event is handed back: its producer stops reading its socket and is
//! resumed when the queue is half empty, so that the pressure reaches the sender through TCP. A state event is never
//! refused: events of one node (or connection, or client) are merged, the newest stays and says how many it
//! stands for. While such an overflow exists every state event goes through it, which keeps the order per node.
//!
//! Events of nodes that have left keep these in memory, with their metadata. What that takes is bounded as payloads are: at half of
//! the bound state events are merged, at the bound new registrations and data wait.

use crate::descriptor::lift;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, EventMask, Resume};
use crate::hub::Host;
use crate::hub::Memory;
use crate::hub::coalesce::Queued;
use crate::hub::memory::Part;
use crate::hub::resume::Paused;
use crate::settings::{InboxLimits, Settings};
use indexmap::IndexMap;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one drain hands out at most, in bytes of payloads and nodes; one longer event still comes alone. The host has this beside what
/// waits.
const DRAIN_BYTES: usize = 1 << 20;

/// Room for so many is kept when the queue is empty.
const USUAL_EVENTS: usize = 4096;

pub struct Inbox<E: Queued = Event> {
    limits: InboxLimits,
    subscribed: AtomicU32,
    queue: Mutex<Queue<E>>,
    fd: OwnedFd,
}

struct Queue<E: Queued> {
    /// Where what waits is counted for the whole server; clients have none.
    memory: Option<Arc<Memory>>,
    events: VecDeque<E>,
    bytes: usize,
    overflow: IndexMap<E::Key, E>,
    paused: Paused,
    /// The descriptor is readable.
    armed: bool,
    pauses: u64,
    coalesced: u64,
}

#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct InboxStats {
    pub queued_events: usize,
    pub queued_bytes: usize,
    /// Times a producer had to wait for the host.
    pub pauses: u64,
    /// State events that were merged with a later one.
    pub coalesced: u64,
}

impl<E: Queued> Inbox<E> {
    /// # Errors
    /// [`ErrorKind::Config`] for a limit of 0 or beyond all measure, [`ErrorKind::Io`] when no descriptor is left.
    pub fn new(limits: InboxLimits) -> Result<Arc<Self>, Error> {
        limits.check_bounds()?;
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(io::Error::from)
            .and_then(lift)
            .map_err(|error| Error::new(ErrorKind::Io, format!("Cannot create the inbox: {error}")))?;
        let queue = Queue {
            memory: None,
            events: VecDeque::new(),
            bytes: 0,
            overflow: IndexMap::new(),
            paused: Paused::default(),
            armed: false,
            pauses: 0,
            coalesced: 0,
        };
        Ok(Arc::new(Self { limits, subscribed: AtomicU32::new(0), queue: Mutex::new(queue), fd }))
    }

    /// Readable while events wait. Never read from it: [`Inbox::drain`] does.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes the descriptor readable until the next drain, whether events wait or not.
    pub fn wake(&self) {
        let mut queue = self.lock();
        self.arm(&mut queue);
    }

    /// Replaces the set of events that are queued. The default is none.
    pub fn subscribe(&self, kinds: E::Mask) {
        self.subscribed.store(E::bits(kinds), Ordering::Relaxed);
    }

    /// Whether any of these is subscribed to.
    pub fn wants(&self, kinds: E::Mask) -> bool {
        self.subscribed.load(Ordering::Relaxed) & E::bits(kinds) != 0
    }

    /// Moves up to `max` events to the back of `into`, fewer where they are long, and returns their number. Never blocks.
    pub fn drain(&self, into: &mut VecDeque<E>, max: usize) -> usize {
        let mut resumed = Vec::new();
        let mut queue = self.lock();
        let before = into.len();
        let weighs = queue.weighs_nodes();
        let mut taken = 0;
        while into.len() - before < max && taken < DRAIN_BYTES {
            let Some(event) = queue.events.pop_front() else { break };
            let bytes = event.payload_len();
            queue.bytes -= bytes;
            taken += bytes + if weighs { event.node_bytes() } else { 0 };
            into.push_back(event);
        }
        if queue.events.is_empty() && !queue.overflow.is_empty() {
            let weight = |event: &E| if weighs { event.node_bytes() } else { 0 };
            let room = max - (into.len() - before);
            let fits = queue.overflow.values().take(room).take_while(|event| {
                let fits = taken < DRAIN_BYTES;
                taken += weight(event);
                fits
            });
            let fits = fits.count();
            // A departure may have taken the place of an earlier event of its node.
            let fresh = queue.overflow.drain(..fits).map(|(_, event)| event).filter(|event| !event.is_outdated());
            into.extend(fresh);
        }
        if queue.is_empty() {
            queue.events.shrink_to(USUAL_EVENTS);
            queue.overflow.shrink_to(USUAL_EVENTS);
        }
        queue.count();
        if queue.is_empty() && queue.armed {
            queue.armed = false;
            // Reading resets the counter; an error can only mean that it was 0 already.
            let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
        }
        let is_half_empty = queue.events.len() <= self.limits.events / 2 && queue.bytes <= self.bound(&queue, Part::Events) / 2;
        if is_half_empty && queue.overflow.is_empty() {
            resumed = queue.paused.take();
        }
        drop(queue);
        // Outside the lock: a resumed producer may push at once.
        for producer in resumed {
            producer.resume();
        }
        into.len() - before
    }

    pub fn stats(&self) -> InboxStats {
        let queue = self.lock();
        InboxStats {
            queued_events: queue.events.len() + queue.overflow.len(),
            queued_bytes: queue.bytes,
            pauses: queue.pauses,
            coalesced: queue.coalesced,
        }
    }

    /// As [`Host::push_data`].
    ///
    /// # Errors
    /// The event itself, when there is no room for it.
    pub fn push_data(&self, event: E, bytes: usize, producer: Arc<dyn Resume>) -> Result<(), E> {
        let mut queue = self.lock();
        if !self.has_room(&queue, bytes) {
            queue.pauses += 1;
            queue.paused.push(producer);
            return Err(event);
        }
        queue.bytes += bytes;
        queue.count();
        queue.events.push_back(event);
        self.arm(&mut queue);
        Ok(())
    }

    /// As [`Host::push_state`].
    pub fn push_state(&self, event: E) {
        let mut queue = self.lock();
        if queue.overflow.is_empty() && queue.events.len() < self.limits.events && !self.holds_much(&queue, 2) {
            // Texts that come with it; what is merged in the overflow has no more than one of each kind.
            queue.bytes += event.payload_len();
            queue.events.push_back(event);
        } else {
            let key = event.key();
            if !E::NEWER_GOES_LAST
                && let Some(waiting) = queue.overflow.get_mut(&key)
            {
                *waiting = E::merge(waiting, event);
                queue.coalesced += 1;
            } else {
                let event = match queue.overflow.shift_remove(&key) {
                    Some(waiting) => {
                        queue.coalesced += 1;
                        E::merge(&waiting, event)
                    }
                    None => event,
                };
                queue.overflow.insert(key, event);
            }
        }
        self.arm(&mut queue);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<E>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the descriptor readable, once per batch: only when the queue goes from empty to not empty.
    fn arm(&self, queue: &mut Queue<E>) {
        if !queue.armed {
            queue.armed = true;
            // The counter is far from its maximum, so the write cannot fail.
            #[allow(clippy::host_endian_bytes, reason = "the kernel reads its own number, nothing travels")]
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    fn has_room(&self, queue: &Queue<E>, bytes: usize) -> bool {
        // One event larger than the whole byte bound still passes when nothing else waits; it could never pass otherwise.
        queue.overflow.is_empty()
            && queue.events.len() < self.limits.events
            && (queue.bytes == 0 || queue.bytes + bytes <= self.bound(queue, Part::Events))
            && !self.holds_much(queue, 1)
    }

    /// In bytes, of payloads or of nodes that have left.
    fn bound(&self, queue: &Queue<E>, part: Part) -> usize {
        queue.memory.as_ref().map_or(self.limits.bytes, |memory| self.limits.bytes.min(memory.share(part)))
    }

    /// Whether nodes that have left take the bound, or a `part`th of it. Where nothing waits here it is the host that has them, and will
    /// not come to make room.
    fn holds_much(&self, queue: &Queue<E>, part: usize) -> bool {
        match &queue.memory {
            Some(memory) if !queue.is_empty() => memory.of(Part::Departed) > self.bound(queue, Part::Departed) / part,
            _ => false,
        }
    }
}

impl Host for Inbox {
    fn attach(&self, memory: &Arc<Memory>) {
        self.lock().memory = Some(memory.clone());
    }

    fn wants(&self, kinds: EventMask) -> bool {
        Self::wants(self, kinds)
    }

    fn push_data(&self, event: Event, bytes: usize, producer: Arc<dyn Resume>) -> Result<(), Event> {
        Self::push_data(self, event, bytes, producer)
    }

    fn push_state(&self, event: Event) {
        Self::push_state(self, event);
    }

    fn push_message(&self, event: Event) {
        let mut queue = self.lock();
        queue.bytes += event.payload_len();
        queue.count();
        queue.events.push_back(event);
        self.arm(&mut queue);
    }

    fn has_room_for_message(&self, bytes: usize, producer: Option<Arc<dyn Resume>>) -> bool {
        let mut queue = self.lock();
        let Some(producer) = producer else {
            let bound = self.bound(&queue, Part::Events);
            // What happened before comes before: nothing is put behind it for as long as it waits.
            return queue.overflow.is_empty()
                && queue.events.len() < 2 * self.limits.events
                && (queue.bytes == 0 || queue.bytes + bytes <= 2 * bound);
        };
        let has_room = self.has_room(&queue, bytes);
        if !has_room {
            queue.pauses += 1;
            queue.paused.push(producer);
        }
        has_room
    }

    fn is_crowded(&self, producer: Option<Arc<dyn Resume>>) -> bool {
        let mut queue = self.lock();
        let crowded = queue.overflow.len() >= self.limits.events || self.holds_much(&queue, 1);
        if crowded {
            queue.pauses += 1;
            if let Some(producer) = producer {
                queue.paused.push(producer);
            }
        }
        crowded
    }
}

impl<E: Queued> Queue<E> {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.overflow.is_empty()
    }

    /// Payloads that wait, for the whole server.
    fn count(&self) {
        if let Some(memory) = &self.memory {
            memory.set(Part::Events, self.bytes);
        }
    }

    /// Whether nodes take so much memory that it matters how many are handed out: looking at each costs, under the lock.
    fn weighs_nodes(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.of(Part::Nodes) + memory.of(Part::Departed) > memory.bound() / 64)
    }
}
