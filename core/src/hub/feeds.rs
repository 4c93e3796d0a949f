//! What is published, for other processes that have subscribed over the bus socket.
//!
//! Owns who of them has subscribed to what, and what waits for each. They are the subscribers of a thread that there is not
//! ([`FEEDS`](super::topics::FEEDS)): a publication comes here under its topic's lock, so each gets a topic's publications in the order of
//! all, once whatever its filters. Nothing waits for them: at the bound publications are dropped and counted, and told as a gap. Does not
//! know sockets, nor what wakes whom.

use super::gap_queue::{GapQueue, ObserverLimits, QueueEntry};
use super::memory::Memory;
use super::node_ref::NodeRef;
use super::topics::members::{Subscriber, ThreadMembers};
use super::topics::{Position, Publication};
use crate::wire::topic::Filter;
use slab::Slab;
use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Those of one server.
pub(super) struct Feeds {
    table: Mutex<FeedTable>,
    limits: ObserverLimits,
    memory: Arc<Memory>,
    dropped: AtomicU64,
}

type FeedQueue = GapQueue<Arc<Publication>>;

#[derive(Default)]
struct FeedTable {
    members: ThreadMembers,
    queues: Slab<Arc<FeedQueue>>,
    /// Of the last publication: its memory is used again.
    receivers: Vec<Subscriber>,
}

/// What a process gets. Nothing is kept for it once it is dropped; who has made it ends its subscriptions before.
pub struct TopicFeed {
    slot: usize,
    queue: Arc<FeedQueue>,
    feeds: Arc<Feeds>,
    pub(super) filters: HashSet<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fed {
    Publication(Arc<Publication>),
    /// So many publications were dropped here.
    Gap {
        dropped: u64,
    },
}

/// A subscription that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The last publication before it; `None` for a filter, which has no position.
    pub position: Option<Position>,
    /// Whether everything behind the position that was asked for is kept.
    pub recovered: bool,
    /// Behind this offset something is kept that was asked for, which is to be read before it is live.
    pub replay_behind: Option<u64>,
    /// So much of what waits for the process is older.
    pub waiting: usize,
}

impl Feeds {
    pub(super) fn new(limits: ObserverLimits, memory: Arc<Memory>) -> Self {
        Self { table: Mutex::default(), limits, memory, dropped: AtomicU64::new(0) }
    }

    /// Publications that found no room, for each that they were for.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn open(self: &Arc<Self>) -> TopicFeed {
        let queue = Arc::new(GapQueue::new(self.limits));
        let slot = self.lock().queues.insert(queue.clone());
        TopicFeed { slot, queue, feeds: self.clone(), filters: HashSet::new() }
    }

    /// To be called where the order of the topic's publications is decided.
    pub(super) fn push(&self, publication: &Arc<Publication>) {
        let mut table = self.lock();
        let FeedTable { members, queues, receivers } = &mut *table;
        receivers.clear();
        members.receivers(&publication.topic, publication.sequence, receivers);
        let bytes = publication.topic.len() + publication.payload.len();
        let queues = receivers.iter().filter_map(|receiver| queues.get(receiver.slot as usize));
        let push = |queue: &Arc<FeedQueue>| queue.push(bytes, &self.memory, &self.dropped, || publication.clone());
        let wakers: Vec<Waker> = queues.filter_map(push).collect();
        drop(table);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, FeedTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FeedTable {
    fn go_live(&mut self, filter: Filter<'_>, subscriber: Subscriber, since: u64) {
        if let Some(id) = self.members.find(filter) {
            self.members.go_live(id, subscriber, since);
        }
    }
}

impl TopicFeed {
    fn subscriber(&self) -> Subscriber {
        Subscriber { slot: self.slot as u32, node: NodeRef::NONE }
    }

    /// Enters a subscription, or has one begin anew: it gets what has a higher number than `since`. To be called where the order of the
    /// topic's publications is decided, when the topics have made it. Says how much of what waits is older.
    pub(super) fn enter(&mut self, filter: Filter<'_>, since: u64) -> usize {
        let subscriber = self.subscriber();
        let mut table = self.feeds.lock();
        if table.members.insert(filter, subscriber, since).is_none() {
            table.go_live(filter, subscriber, since);
        }
        let waiting = self.queue.len();
        drop(table);
        self.filters.insert(filter.text().into());
        waiting
    }

    /// A subscription that got nothing yet gets what has a higher number than `since`. To be called as [`TopicFeed::enter`].
    pub(super) fn go_live(&self, filter: Filter<'_>, since: u64) {
        self.feeds.lock().go_live(filter, self.subscriber(), since);
    }

    /// False when there is no such subscription.
    pub(super) fn remove(&mut self, filter: Filter<'_>) -> bool {
        let was_there = self.filters.remove(filter.text());
        if was_there {
            let mut table = self.feeds.lock();
            if let Some(id) = table.members.find(filter) {
                table.members.remove(id, self.subscriber());
            }
        }
        was_there
    }

    /// Moves up to `max` of what waits to the back of `into`, and returns how many these are. Never waits.
    pub fn take(&mut self, into: &mut Vec<Fed>, max: usize) -> usize {
        self.queue.take(&self.feeds.memory, max, |entry| {
            into.push(match entry {
                QueueEntry::Item(publication) => Fed::Publication(publication),
                QueueEntry::Gap { dropped } => Fed::Gap { dropped },
            });
        })
    }

    /// Waits until [`TopicFeed::take`] finds something.
    pub async fn ready(&mut self) {
        poll_fn(|cx| self.queue.poll_ready(cx)).await;
    }
}

impl Drop for TopicFeed {
    fn drop(&mut self) {
        let mut table = self.feeds.lock();
        let subscriber = self.subscriber();
        for filter in &self.filters {
            if let Some(id) = table.members.find(Filter::known(filter)) {
                table.members.remove(id, subscriber);
            }
        }
        table.queues.remove(self.slot);
        drop(table);
        self.queue.forget(&self.feeds.memory);
    }
}
