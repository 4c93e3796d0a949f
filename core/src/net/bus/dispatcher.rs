//! The host of an engine whose callbacks run in workers: takes the events from the I/O threads and rings the bus thread.
//!
//! Owns the lock around [`Dispatch`], which decides everything, and those who wait for room in it.

use crate::event::{Event, EventMask, Resume};
use crate::hub::dispatch::{Dispatch, DispatchLimits, DispatchStats, WorkerId};
use crate::hub::memory::Part;
use crate::hub::resume::Paused;
use crate::hub::{Host, Memory};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

pub(crate) struct Dispatcher {
    wants: AtomicU32,
    state: Mutex<DispatcherState>,
    /// Notified when a worker has something to send that had nothing before.
    wakeup: Notify,
}

struct DispatcherState {
    /// Where what waits is counted for the whole server.
    memory: Arc<Memory>,
    dispatch: Dispatch,
    ready: Vec<WorkerId>,
    paused: Paused,
}

impl Dispatcher {
    pub(crate) fn new(limits: DispatchLimits, until_first_join: EventMask) -> Self {
        let dispatch = Dispatch::new(limits, until_first_join);
        Self {
            wants: AtomicU32::new(dispatch.wants().0),
            state: Mutex::new(DispatcherState {
                memory: Arc::new(Memory::new(usize::MAX)),
                dispatch,
                ready: Vec::new(),
                paused: Paused::default(),
            }),
            wakeup: Notify::new(),
        }
    }

    pub(crate) fn stats(&self) -> DispatchStats {
        self.lock().dispatch.stats()
    }

    /// Lends the dispatch for anything but pushing.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Dispatch) -> T) -> T {
        let mut state = self.lock();
        let result = work(&mut state.dispatch);
        self.wants.store(state.dispatch.wants().0, Ordering::Relaxed);
        let resumed = if state.paused.is_empty() || state.is_crowded() { Vec::new() } else { state.paused.take() };
        self.ring(state);
        // Outside the lock: a resumed producer may push at once.
        for producer in resumed {
            producer.resume();
        }
        result
    }

    /// Waits until workers have something to send, and says which.
    pub(super) async fn ready(&self) -> Vec<WorkerId> {
        self.wakeup.notified().await;
        std::mem::take(&mut self.lock().ready)
    }

    /// A worker is named once until it has looked, so this rings no more often than it has to.
    fn ring(&self, mut state: MutexGuard<'_, DispatcherState>) {
        state.memory.set(Part::Events, state.dispatch.bytes());
        let more = state.dispatch.take_ready();
        if more.is_empty() {
            return;
        }
        state.ready.extend(more);
        drop(state);
        self.wakeup.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, DispatcherState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DispatcherState {
    /// Whether nodes that have left take their share of memory, or a `part`th of it. Where nothing waits it is not for events.
    fn holds_much(&self, part: usize) -> bool {
        self.memory.of(Part::Departed) > self.memory.share(Part::Departed) / part && !self.dispatch.is_idle()
    }

    fn is_crowded(&self) -> bool {
        self.dispatch.is_crowded() || self.holds_much(1)
    }
}

impl Host for Dispatcher {
    fn attach(&self, memory: &Arc<Memory>) {
        let mut state = self.lock();
        state.dispatch.limit_bytes(memory.share(Part::Events));
        state.memory = memory.clone();
    }

    fn wants(&self, kinds: EventMask) -> bool {
        self.wants.load(Ordering::Relaxed) & kinds.0 != 0
    }

    /// Never hands it back: one worker that hangs must not stop the reading of nodes that others serve. What finds no room
    /// is counted.
    fn push_data(&self, event: Event, _bytes: usize, _producer: Arc<dyn Resume>) -> Result<(), Event> {
        let mut state = self.lock();
        if state.holds_much(1) {
            state.dispatch.refuse_data();
        } else {
            state.dispatch.push_data(event);
        }
        self.ring(state);
        Ok(())
    }

    fn push_message(&self, event: Event) {
        let mut state = self.lock();
        if state.holds_much(1) {
            state.dispatch.refuse_data();
        } else {
            state.dispatch.push_message(event);
        }
        self.ring(state);
    }

    fn push_state(&self, event: Event) {
        let mut state = self.lock();
        let is_heavy = state.holds_much(2);
        state.dispatch.set_heavy(is_heavy);
        state.dispatch.push_state(event);
        self.ring(state);
    }

    fn is_crowded(&self, producer: Option<Arc<dyn Resume>>) -> bool {
        let mut state = self.lock();
        let is_crowded = state.is_crowded();
        if is_crowded {
            if let Some(producer) = producer {
                state.paused.push(producer);
            }
        }
        is_crowded
    }
}
