//! The queue of a bus handle that subscribes to topics: there once the program uses it.
//!
//! Owns when it begins and ends. The functions are in `bus_topics.rs`.

use crate::event::{heartbus_event, of_feed};
use crate::handle::{self, Polled, Remains};
use crate::queue::{Queue, Teller};
use bumpalo::Bump;
use heartbus_core::error::Error;
use heartbus_core::event::FeedEvent;
use heartbus_core::inbox::Inbox;
use heartbus_core::net::feed::Feed;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a handle has subscribed to.
#[derive(Default)]
pub(crate) struct BusTopics(Mutex<State>);

#[derive(Default)]
struct State {
    begun: Option<Begun>,
    /// Before there was a queue: its first poll returns at once.
    is_woken: bool,
    /// The handle is freed: nothing is begun any more.
    is_over: bool,
}

#[derive(Clone)]
pub(crate) struct Begun {
    pub(crate) feed: Arc<Feed>,
    pub(crate) queue: Arc<Queue<Arc<Inbox<FeedEvent>>>>,
}

impl BusTopics {
    /// The queue, which begins with this.
    ///
    /// # Errors
    /// `Io` when the system has no descriptor or thread left, `Closed` once the handle is freed.
    pub(crate) fn begun(&self, path: &Path) -> Result<Begun, Error> {
        let mut state = self.lock();
        if state.is_over {
            return Err(handle::closed());
        }
        if let Some(begun) = &state.begun {
            return Ok(begun.clone());
        }
        let inbox = Inbox::new(Feed::INBOX)?;
        let begun = Begun { feed: Arc::new(Feed::start(path, inbox.clone())?), queue: Queue::new(inbox)? };
        if std::mem::take(&mut state.is_woken) {
            begun.queue.wake();
        }
        Ok(state.begun.insert(begun).clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Polled for BusTopics {
    fn wake(&self) {
        let mut state = self.lock();
        match &state.begun {
            Some(Begun { queue, .. }) => queue.wake(),
            None => state.is_woken = true,
        }
    }

    fn discard(&self) {
        let mut state = self.lock();
        state.is_over = true;
        let begun = state.begun.take();
        drop(state);
        if let Some(Begun { feed, queue }) = begun {
            queue.discard();
            feed.stop();
        }
    }

    fn remains(&self) -> Arc<dyn Remains> {
        match &self.lock().begun {
            Some(Begun { queue, .. }) => queue.remains(),
            None => Arc::new(NoRemains),
        }
    }
}

/// Of a handle that was never polled.
struct NoRemains;

impl Remains for NoRemains {
    fn release(&self, _thread: u64) {}

    fn is_held(&self) -> bool {
        false
    }
}

pub(crate) struct FeedTeller;

impl Teller<FeedEvent> for FeedTeller {
    fn tell(&self, items: &VecDeque<FeedEvent>, texts: &Bump, events: &mut [MaybeUninit<heartbus_event>]) {
        for (target, item) in events.iter_mut().zip(items) {
            target.write(of_feed(item, texts));
        }
    }
}
