//! Topics: on which threads somebody wants to hear them, in which order publications go out, and what is kept of them.
//!
//! Owns the topics of the server. A topic is there as long as somebody has subscribed to it or something of it is kept; then its name
//! is free again, and its next life has another epoch. Everything about a topic happens under the lock of its shard, under which its
//! publications are handed to the threads too: so their order is the same for all subscribers, and one who comes back is given what
//! is kept with nothing missing and nothing twice in between. Knows threads by number; who on them has subscribed is [`members`]'
//! business, what a publication looks like on a wire is the sessions'.

mod filters;
pub mod history;
mod interest;
mod kept;
pub mod members;
mod publication;
mod queries;
mod refusal;

pub use publication::{FireKind, FireOrder, FireOrigin, KeptPart, Origin, Position, Publication};
pub use refusal::TopicRefusal;

use super::Now;
use super::memory::{Memory, Part};
use crate::settings::HistoryRule;
use crate::wire::topic::{self, BadTopic, Filter};
use bytes::Bytes;
use filters::{FilterTree, LEVEL_BYTES, levels};
use history::{History, Ledger};
use interest::{Interest, MembersInterest};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

/// Topics lie in so many shards with a lock of their own.
const SHARD_BITS: u32 = 8;

/// What became of a publication.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub position: Option<Position>,
    /// For how many subscriptions it was handed to their threads.
    pub reach: usize,
}

/// The thread of the host's own subscriptions.
pub const HOST: usize = u16::MAX as usize;

/// That of processes that have subscribed over the bus socket. Numbers below are threads that there are.
pub const FEEDS: usize = HOST - 1;

/// What a subscription takes in memory, its places in all tables together.
pub const SUBSCRIPTION_BYTES: usize = 64;

/// What a topic or a filter takes beside its name, the server's part and that of one thread, and what each further thread adds.
const TOPIC_BYTES: usize = 320;

/// What a subscription begins with.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// For [`members::ThreadMembers::insert`].
    pub since: u64,
    /// The last publication before it; `None` for a filter, which has no position.
    pub position: Option<Position>,
    /// Whether everything behind the position that was asked for is kept; true where none was asked for.
    pub recovered: bool,
    /// Behind this offset something is kept that was asked for: [`Topics::read_kept`] has it.
    pub replay_behind: Option<u64>,
}

/// # Errors
/// Which rule is about topics that cannot be.
pub fn check_rules(rules: &[HistoryRule]) -> Result<(), (&str, BadTopic)> {
    rules.iter().try_for_each(|rule| Filter::parse(&rule.filter).map(drop).map_err(|bad| (&*rule.filter, bad)))
}

/// Takes publications to the threads.
pub trait PublicationSink {
    /// Whether these threads, each with its number of subscriptions, may have one more.
    fn has_room(&self, interest: &[(u16, u32)]) -> bool;

    /// In this order, to all subscribers of the thread.
    fn post(&self, thread: usize, publication: &Arc<Publication>);

    /// It was published under this number, whether or not anybody here wants it; in the order in which subscribers get it.
    fn was_published(&self, _sequence: u64, _topic: &str, _payload: &Bytes, _origin: &Origin) {}
}

/// Hears that there may be another number of subscriptions to a topic by its name, which is locked meanwhile; or to one of the server's own
/// or a filter that matches such, which is not.
pub trait InterestWatcher: Send + Sync {
    fn changed(&self, topic: &str);
}

struct Topic {
    epoch: u64,
    /// Of the last publication.
    offset: u64,
    interest: Interest,
    kept: Option<Box<History>>,
}

impl Topic {
    fn position(&self) -> Position {
        Position { offset: self.offset, epoch: self.epoch }
    }

    /// Nobody would miss it.
    fn is_idle(&self) -> bool {
        self.interest.is_empty() && self.kept.as_ref().is_none_or(|kept| kept.is_empty())
    }
}

type TopicShard = HashMap<Arc<str>, Topic>;

pub struct Topics {
    random: RandomState,
    shards: Box<[Mutex<TopicShard>]>,
    filters: RwLock<FilterTree<Interest>>,
    /// Filters in the tree, to be read without its lock: mostly there are none.
    filter_count: AtomicUsize,
    topic_count: AtomicUsize,
    subscription_count: AtomicUsize,
    /// Publications of all topics.
    published: AtomicU64,
    last_epoch: AtomicU64,
    next_tidied: AtomicUsize,
    max_topics: usize,
    max_filter_levels: usize,
    rules: Vec<HistoryRule>,
    ledger: Ledger,
    memory: Arc<Memory>,
    watcher: OnceLock<Arc<dyn InterestWatcher>>,
    /// Who publishes to the server's own topics, where somebody wants to hear them.
    publisher: OnceLock<Arc<dyn InterestWatcher>>,
    /// Subscriptions to who subscribes to topics: mostly there are none.
    members_wanted: MembersInterest,
}

impl Topics {
    /// At most `max_topics` topics and filters, and a filter has at most `max_filter_levels`; what is kept of a topic is decided by the first rule that matches its name, and takes
    /// `history_bytes` at most for all topics together.
    pub fn new(max_topics: usize, max_filter_levels: usize, rules: Vec<HistoryRule>, history_bytes: usize, memory: Arc<Memory>) -> Self {
        let are_members_kept = rules.iter().any(|rule| topic::is_of_members(&rule.filter));
        Self {
            random: RandomState::new(),
            shards: (0..1 << SHARD_BITS).map(|_| Mutex::default()).collect(),
            filters: RwLock::default(),
            filter_count: AtomicUsize::new(0),
            topic_count: AtomicUsize::new(0),
            subscription_count: AtomicUsize::new(0),
            published: AtomicU64::new(0),
            last_epoch: AtomicU64::new(0),
            next_tidied: AtomicUsize::new(0),
            max_topics,
            max_filter_levels,
            rules,
            ledger: Ledger::new(history_bytes.min(memory.share(Part::Topics) / 2), memory.clone()),
            memory,
            watcher: OnceLock::new(),
            publisher: OnceLock::new(),
            members_wanted: MembersInterest::new(are_members_kept),
        }
    }

    /// Who hears of subscriptions from now on. There is one at most.
    pub(super) fn watch(&self, watcher: Arc<dyn InterestWatcher>) {
        let _ = self.watcher.set(watcher);
    }

    /// Who hears of subscriptions to topics of the server's own from now on. There is one at most.
    pub fn set_publisher(&self, publisher: Arc<dyn InterestWatcher>) {
        let _ = self.publisher.set(publisher);
    }

    fn tell_publisher(&self, filter: &str) {
        if topic::is_of_server(filter)
            && let Some(publisher) = self.publisher.get()
        {
            publisher.changed(filter);
        }
    }

    fn has_changed(&self, name: &str) {
        if let Some(watcher) = self.watcher.get() {
            watcher.changed(name);
        }
    }

    /// The number of something that is handed to threads without being published.
    pub(super) fn draw_number(&self) -> u64 {
        self.published.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// One subscription more on a thread, which enters it among its members then, before it follows any other command. `since` asks for
    /// what was published behind that position.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nothing has changed.
    pub fn subscribe(&self, thread: usize, filter: Filter<'_>, since: Option<Position>, now: Now) -> Result<Subscribed, TopicRefusal> {
        self.subscribe_and(thread, filter, since, now, |_| {})
    }

    /// The same, for a thread that there is not: `enter` is called where the order of the publications is decided, so that those who get
    /// them at once are neither too early nor too late.
    ///
    /// # Errors
    /// As [`Topics::subscribe`].
    pub fn subscribe_and(
        &self,
        thread: usize,
        filter: Filter<'_>,
        since: Option<Position>,
        now: Now,
        enter: impl FnOnce(&Subscribed),
    ) -> Result<Subscribed, TopicRefusal> {
        if self.memory.of(Part::Topics) + SUBSCRIPTION_BYTES > self.memory.share(Part::Topics) {
            return Err(TopicRefusal::TooManyTopics);
        }
        let subscribed = match filter {
            Filter::Exact(name) => self.subscribe_topic(thread, name, since, now, enter)?,
            Filter::Wild(_) if since.is_some() => return Err(TopicRefusal::FilterHasNoPosition),
            Filter::Wild(filter) if levels(filter) > self.max_filter_levels => return Err(TopicRefusal::TooManyLevels),
            Filter::Wild(filter) => self.subscribe_filter(thread, filter, enter)?,
        };
        self.subscription_count.fetch_add(1, Ordering::Relaxed);
        self.memory.add(Part::Topics, SUBSCRIPTION_BYTES);
        if topic::is_of_members(filter.text()) {
            self.members_wanted.add(filter.text());
        }
        self.tell_publisher(filter.text());
        Ok(subscribed)
    }

    fn subscribe_topic(
        &self,
        thread: usize,
        name: &str,
        since: Option<Position>,
        now: Now,
        enter: impl FnOnce(&Subscribed),
    ) -> Result<Subscribed, TopicRefusal> {
        let mut shard = self.shard(name);
        let (name, topic) = self.topic(&mut shard, name, now)?;
        if topic.interest.add(thread, 1) {
            self.memory.add(Part::Topics, thread_bytes(&name));
        }
        if let Some(kept) = &mut topic.kept {
            kept.expire(now, &self.ledger);
        }
        // Whoever publishes to this topic takes its number under the same lock, so all that have one so far are in the past.
        let since_number = self.published.load(Ordering::Relaxed);
        let before = topic.kept.as_ref().map_or(topic.offset, |kept| kept.before());
        let (recovered, behind) = match since {
            None => (true, topic.offset),
            // It asks for all there is.
            Some(Position { offset: 0, epoch: 0 }) => (before == 0, before),
            Some(position) if position.epoch != topic.epoch || position.offset > topic.offset => (false, before),
            Some(position) => (position.offset >= before, position.offset.max(before)),
        };
        let replay_behind = (behind < topic.offset).then_some(behind);
        let subscribed = Subscribed { since: since_number, position: Some(topic.position()), recovered, replay_behind };
        enter(&subscribed);
        self.has_changed(&name);
        Ok(subscribed)
    }

    /// Whether somebody may hold so many bytes of subscriptions: no more than this part of what is left for all. So who wants most is refused
    /// first, and there is always something left for who wants little.
    pub fn has_share(&self, bytes: usize, part: usize) -> bool {
        let left = self.memory.share(Part::Topics).saturating_sub(self.memory.of(Part::Topics));
        bytes <= left / part
    }

    fn subscribe_filter(&self, thread: usize, filter: &str, enter: impl FnOnce(&Subscribed)) -> Result<Subscribed, TopicRefusal> {
        let mut filters = self.filters.write().unwrap_or_else(PoisonError::into_inner);
        if filters.get(filter).is_none() {
            self.count_topic(filters.len(), topic_bytes(filter) + tree_bytes(filter))?;
            self.memory.add(Part::Topics, topic_bytes(filter) + tree_bytes(filter));
        }
        if filters.entry(filter).add(thread, 1) {
            self.memory.add(Part::Topics, thread_bytes(filter) + tree_bytes(filter));
        }
        self.filter_count.store(filters.len(), Ordering::SeqCst);
        let since = self.published.load(Ordering::SeqCst);
        let subscribed = Subscribed { since, position: None, recovered: true, replay_behind: None };
        enter(&subscribed);
        Ok(subscribed)
    }

    /// One subscription less on a thread, which had it.
    pub fn unsubscribe(&self, thread: usize, filter: Filter<'_>, now: Now) {
        let text = filter.text();
        match filter {
            Filter::Exact(name) => {
                let mut shard = self.shard(name);
                let Some(topic) = shard.get_mut(name) else { return };
                if topic.interest.remove(thread) {
                    self.memory.remove(Part::Topics, thread_bytes(name));
                }
                if let Some(kept) = &mut topic.kept {
                    kept.expire(now, &self.ledger);
                }
                self.forget_if_idle(&mut shard, name);
                self.has_changed(name);
            }
            Filter::Wild(filter) => {
                let mut filters = self.filters.write().unwrap_or_else(PoisonError::into_inner);
                let Some(interest) = filters.get_mut(filter) else { return };
                if interest.remove(thread) {
                    self.memory.remove(Part::Topics, thread_bytes(filter) + tree_bytes(filter));
                }
                if interest.is_empty() {
                    filters.remove(filter);
                    self.memory.remove(Part::Topics, topic_bytes(filter) + tree_bytes(filter));
                }
                self.filter_count.store(filters.len(), Ordering::SeqCst);
            }
        }
        self.subscription_count.fetch_sub(1, Ordering::Relaxed);
        self.memory.remove(Part::Topics, SUBSCRIPTION_BYTES);
        if topic::is_of_members(text) {
            self.members_wanted.remove(text);
        }
        self.tell_publisher(text);
    }

    /// Hands a payload to every thread that has subscribers, and keeps it where a rule says so.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nobody gets it.
    pub fn publish(&self, name: &str, payload: Bytes, now: Now, sink: &dyn PublicationSink) -> Result<Published, TopicRefusal> {
        self.publish_from(Origin::default(), name, payload, now, sink)
    }

    /// The same of what is not a client's. What is no publication goes to subscribers as well, in order with publications, but has no
    /// number among them and is not kept.
    ///
    /// # Errors
    /// As [`Topics::publish`].
    pub fn publish_from(
        &self,
        origin: Origin,
        name: &str,
        payload: Bytes,
        now: Now,
        sink: &dyn PublicationSink,
    ) -> Result<Published, TopicRefusal> {
        topic::check_name(name)?;
        let mut shard = self.shard(name);
        let is_there = shard.contains_key(name);
        let is_publication = origin.is_publication();
        let is_kept = is_there || is_publication && self.is_ruled(name);
        let topic = if is_kept { Some(self.topic(&mut shard, name, now)?) } else { None };
        let mut interest = topic.as_ref().map_or_else(Interest::default, |(_, topic)| topic.interest.clone());
        if self.filter_count.load(Ordering::SeqCst) > 0 {
            self.read_filters().matching(name, &mut |found| {
                found.threads().iter().for_each(|(thread, count)| {
                    interest.add(usize::from(*thread), *count);
                });
            });
        }
        if !interest.is_empty() && !sink.has_room(interest.threads()) {
            self.forget_if_idle(&mut shard, name);
            return Err(TopicRefusal::ServerFull);
        }
        let sequence = self.draw_number();
        sink.was_published(sequence, name, &payload, &origin);
        let (name, position) = match topic {
            None if interest.is_empty() => return Ok(Published { position: None, reach: 0 }),
            None => (name.into(), None),
            Some((name, topic)) if !is_publication => (name, Some(topic.position())),
            Some((name, topic)) => {
                topic.offset += 1;
                if let Some(kept) = &mut topic.kept {
                    let position = Position { offset: topic.offset, epoch: topic.epoch };
                    kept.push(&name, position, payload.clone(), now, &self.ledger);
                }
                (name, Some(topic.position()))
            }
        };
        let reach = interest.sum();
        let publication = Arc::new(Publication { topic: name, position, sequence, payload, origin });
        interest.threads().iter().for_each(|(thread, _)| sink.post(usize::from(*thread), &publication));
        drop(shard);
        self.make_room();
        Ok(Published { position, reach })
    }

    /// The topic of a name, which begins to live if it does not.
    fn topic<'a>(&self, shard: &'a mut TopicShard, name: &str, now: Now) -> Result<(Arc<str>, &'a mut Topic), TopicRefusal> {
        if !shard.contains_key(name) {
            self.count_topic(self.filter_count(), topic_bytes(name))?;
            self.topic_count.fetch_add(1, Ordering::Relaxed);
            self.memory.add(Part::Topics, topic_bytes(name));
        }
        let name: Arc<str> = shard.get_key_value(name).map_or_else(|| name.into(), |(name, _)| name.clone());
        let topic = match shard.entry(name.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let rule = self.rules.iter().find(|rule| topic::matches(&rule.filter, &name));
                let kept = rule.map(|rule| Box::new(History::new(rule)));
                entry.insert(Topic { epoch: self.next_epoch(now), offset: 0, interest: Interest::default(), kept })
            }
        };
        Ok((name, topic))
    }

    /// Whether there may be one more.
    fn count_topic(&self, filters: usize, bytes: usize) -> Result<(), TopicRefusal> {
        let has_room = self.memory.of(Part::Topics) + bytes <= self.memory.share(Part::Topics);
        if has_room && self.topic_count() + filters < self.max_topics { Ok(()) } else { Err(TopicRefusal::TooManyTopics) }
    }

    fn uncount_topic(&self, name: &str) {
        self.topic_count.fetch_sub(1, Ordering::Relaxed);
        self.memory.remove(Part::Topics, topic_bytes(name));
    }

    fn forget_if_idle(&self, shard: &mut TopicShard, name: &str) {
        if shard.get(name).is_some_and(Topic::is_idle) {
            shard.remove(name);
            self.uncount_topic(name);
        }
    }

    /// The time in microseconds, so that it is another one also after the server was started again; never one that was there.
    fn next_epoch(&self, now: Now) -> u64 {
        let later = |last: u64| Some(now.unix.max(last + 1));
        let last = self.last_epoch.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        now.unix.max(last.unwrap_or_default() + 1)
    }

    fn shard(&self, name: &str) -> MutexGuard<'_, TopicShard> {
        let hash = self.random.hash_one(name);
        lock(&self.shards[(hash >> (u64::BITS - SHARD_BITS)) as usize])
    }

    fn read_filters(&self) -> std::sync::RwLockReadGuard<'_, FilterTree<Interest>> {
        self.filters.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(shard: &Mutex<TopicShard>) -> MutexGuard<'_, TopicShard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection may hold this part of the memory for topics that is left: a sixteenth.
pub const CONNECTION_PART: usize = 16;

/// What a subscription takes if nobody else has subscribed to that.
pub fn subscription_bytes(filter: Filter<'_>) -> usize {
    let text = filter.text();
    let in_trees = if let Filter::Wild(filter) = filter { 2 * tree_bytes(filter) } else { 0 };
    SUBSCRIPTION_BYTES + topic_bytes(text) + thread_bytes(text) + in_trees
}

/// What a topic takes in memory that no thread knows.
fn topic_bytes(name: &str) -> usize {
    TOPIC_BYTES / 2 + name.len()
}

/// What each thread that knows it adds.
fn thread_bytes(name: &str) -> usize {
    TOPIC_BYTES / 2 + name.len()
}

/// What a filter takes beside that in a tree, the bus's and each thread's, if no other has one of its levels.
fn tree_bytes(filter: &str) -> usize {
    LEVEL_BYTES * levels(filter)
}

#[cfg(test)]
mod tests;
