//! Topics: on which threads somebody wants to hear them, in which order publications go out, and what is kept of them.
//!
//! Owns the topics of the server. A topic is there as long as somebody has subscribed to it or something of it is kept; then its name
//! is free again, and its next life has another epoch. Everything about a topic happens under the lock of its shard, under which its
//! publications are handed to the threads too: so their order is the same for all subscribers, and one who comes back is given what
//! is kept with nothing missing and nothing twice in between. Knows threads by number; who on them has subscribed is [`members`]'
//! business, what a publication looks like on a wire is the sessions'.

mod filters;
pub mod history;
pub mod members;
mod publication;

pub use publication::{Position, Publication};

use super::Now;
use crate::wire::topic::{self, BadTopic, Filter};
use bytes::Bytes;
use filters::FilterTree;
use history::{History, HistoryRule, Ledger, Place};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Topics lie in so many shards with a lock of their own.
const SHARD_BITS: u32 = 8;

/// What became of a publication.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub position: Option<Position>,
    /// For how many subscriptions it was handed to their threads.
    pub reach: usize,
}

/// What a subscription begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// For [`members::ThreadMembers::insert`].
    pub since: u64,
    /// The last publication before it; `None` for a filter, which has no position.
    pub position: Option<Position>,
    /// Whether everything behind the position that was asked for is in `replay`; true where none was asked for.
    pub recovered: bool,
    /// What was asked for again, in order.
    pub replay: Vec<Arc<Publication>>,
}

/// Why nothing happened.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TopicRefusal {
    Bad(BadTopic),
    /// The server has as many topics and filters as it may.
    TooManyTopics,
    /// A thread whose subscribers would get it has no room for it.
    ServerFull,
    /// A filter has no position to go on from.
    FilterHasNoPosition,
}

impl From<BadTopic> for TopicRefusal {
    fn from(bad: BadTopic) -> Self {
        Self::Bad(bad)
    }
}

/// Takes publications to the threads.
pub trait PublicationSink {
    fn has_room(&self, thread: usize) -> bool;

    /// In this order, to all subscribers of the thread.
    fn post(&self, thread: usize, publication: &Arc<Publication>);
}

/// How many subscriptions there are on each thread that has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Interest(Vec<(u16, u32)>);

impl Interest {
    fn add(&mut self, thread: usize, count: u32) {
        match self.0.binary_search_by_key(&(thread as u16), |(thread, _)| *thread) {
            Ok(place) => self.0[place].1 += count,
            Err(place) => self.0.insert(place, (thread as u16, count)),
        }
    }

    fn remove(&mut self, thread: usize) {
        if let Ok(place) = self.0.binary_search_by_key(&(thread as u16), |(thread, _)| *thread) {
            self.0[place].1 -= 1;
            if self.0[place].1 == 0 {
                self.0.remove(place);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sum(&self) -> usize {
        self.0.iter().map(|(_, count)| *count as usize).sum()
    }
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
    max_topics: usize,
    rules: Vec<HistoryRule>,
    ledger: Ledger,
}

impl Topics {
    /// At most `max_topics` topics and filters; what is kept of a topic is decided by the first rule that matches its name, and takes
    /// `history_bytes` at most for all topics together.
    pub fn new(max_topics: usize, rules: Vec<HistoryRule>, history_bytes: usize) -> Self {
        Self {
            random: RandomState::new(),
            shards: (0..1 << SHARD_BITS).map(|_| Mutex::default()).collect(),
            filters: RwLock::default(),
            filter_count: AtomicUsize::new(0),
            topic_count: AtomicUsize::new(0),
            subscription_count: AtomicUsize::new(0),
            published: AtomicU64::new(0),
            last_epoch: AtomicU64::new(0),
            max_topics,
            rules,
            ledger: Ledger::new(history_bytes),
        }
    }

    pub fn topic_count(&self) -> usize {
        self.topic_count.load(Ordering::Relaxed)
    }

    pub fn filter_count(&self) -> usize {
        self.filter_count.load(Ordering::Relaxed)
    }

    pub fn subscription_count(&self) -> usize {
        self.subscription_count.load(Ordering::Relaxed)
    }

    /// What is kept of all topics takes in memory.
    pub fn history_bytes(&self) -> usize {
        self.ledger.bytes()
    }

    /// How many have subscribed to this very topic, and through filters that match it.
    pub fn subscribers(&self, name: &str) -> usize {
        let exact = self.shard(name).get(name).map_or(0, |topic| topic.interest.sum());
        let mut filtered = 0;
        if self.filter_count() > 0 {
            self.read_filters().matching(name, &mut |interest| filtered += interest.sum());
        }
        exact + filtered
    }

    /// One subscription more on a thread, which enters it among its members then, before it follows any other command. `since` asks for
    /// what was published behind that position.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nothing has changed.
    pub fn subscribe(&self, thread: usize, filter: Filter<'_>, since: Option<Position>, now: Now) -> Result<Subscribed, TopicRefusal> {
        let subscribed = match filter {
            Filter::Exact(name) => self.subscribe_topic(thread, name, since, now)?,
            Filter::Wild(_) if since.is_some() => return Err(TopicRefusal::FilterHasNoPosition),
            Filter::Wild(filter) => self.subscribe_filter(thread, filter)?,
        };
        self.subscription_count.fetch_add(1, Ordering::Relaxed);
        Ok(subscribed)
    }

    fn subscribe_topic(&self, thread: usize, name: &str, since: Option<Position>, now: Now) -> Result<Subscribed, TopicRefusal> {
        let mut shard = self.shard(name);
        let (name, topic) = self.topic(&mut shard, name, now)?;
        topic.interest.add(thread, 1);
        if let Some(kept) = &mut topic.kept {
            kept.expire(now, &self.ledger);
        }
        // Whoever publishes to this topic takes its number under the same lock, so all that have one so far are in the past.
        let since_number = self.published.load(Ordering::Relaxed);
        let mut replay = Vec::new();
        let recovered = match since {
            None => true,
            // It asks for all there is.
            Some(Position { offset: 0, epoch: 0 }) => {
                replay = replayed(&name, topic, 0, since_number);
                topic.kept.as_ref().map_or(topic.offset, |kept| kept.before()) == 0
            }
            Some(position) if position.epoch != topic.epoch || position.offset > topic.offset => {
                replay = replayed(&name, topic, 0, since_number);
                false
            }
            Some(position) => {
                replay = replayed(&name, topic, position.offset, since_number);
                replay.len() as u64 == topic.offset - position.offset
            }
        };
        Ok(Subscribed { since: since_number, position: Some(topic.position()), recovered, replay })
    }

    fn subscribe_filter(&self, thread: usize, filter: &str) -> Result<Subscribed, TopicRefusal> {
        let mut filters = self.filters.write().unwrap_or_else(PoisonError::into_inner);
        if filters.get(filter).is_none() {
            self.count_topic(filters.len())?;
        }
        filters.entry(filter).add(thread, 1);
        self.filter_count.store(filters.len(), Ordering::SeqCst);
        let since = self.published.load(Ordering::SeqCst);
        Ok(Subscribed { since, position: None, recovered: true, replay: Vec::new() })
    }

    /// One subscription less on a thread, which had it.
    pub fn unsubscribe(&self, thread: usize, filter: Filter<'_>, now: Now) {
        match filter {
            Filter::Exact(name) => {
                let mut shard = self.shard(name);
                let Some(topic) = shard.get_mut(name) else { return };
                topic.interest.remove(thread);
                if let Some(kept) = &mut topic.kept {
                    kept.expire(now, &self.ledger);
                }
                self.forget_if_idle(&mut shard, name);
            }
            Filter::Wild(filter) => {
                let mut filters = self.filters.write().unwrap_or_else(PoisonError::into_inner);
                let Some(interest) = filters.get_mut(filter) else { return };
                interest.remove(thread);
                if interest.is_empty() {
                    filters.remove(filter);
                }
                self.filter_count.store(filters.len(), Ordering::SeqCst);
            }
        }
        self.subscription_count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Hands a payload to every thread that has subscribers, and keeps it where a rule says so.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nobody gets it.
    pub fn publish(&self, name: &str, payload: Bytes, now: Now, sink: &dyn PublicationSink) -> Result<Published, TopicRefusal> {
        topic::check_name(name)?;
        let mut shard = self.shard(name);
        let is_there = shard.contains_key(name);
        let is_kept = is_there || self.rules.iter().any(|rule| topic::matches(&rule.filter, name));
        let topic = if is_kept { Some(self.topic(&mut shard, name, now)?) } else { None };
        let mut interest = topic.as_ref().map_or_else(Interest::default, |(_, topic)| topic.interest.clone());
        if self.filter_count.load(Ordering::SeqCst) > 0 {
            self.read_filters()
                .matching(name, &mut |found| found.0.iter().for_each(|(thread, count)| interest.add(usize::from(*thread), *count)));
        }
        if !interest.0.iter().all(|(thread, _)| sink.has_room(usize::from(*thread))) {
            self.forget_if_idle(&mut shard, name);
            return Err(TopicRefusal::ServerFull);
        }
        let sequence = self.published.fetch_add(1, Ordering::SeqCst) + 1;
        let (name, position) = match topic {
            None if interest.is_empty() => return Ok(Published { position: None, reach: 0 }),
            None => (name.into(), None),
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
        let publication = Arc::new(Publication { topic: name, position, sequence, payload });
        interest.0.iter().for_each(|(thread, _)| sink.post(usize::from(*thread), &publication));
        drop(shard);
        self.make_room();
        Ok(Published { position, reach })
    }

    /// Forgets what is kept for longer than it is to be. Looks at every topic of which something is kept; to be called now and then.
    pub fn tidy(&self, now: Now) {
        if self.rules.is_empty() {
            return;
        }
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.retain(|_, topic| {
                let Some(kept) = &mut topic.kept else { return true };
                kept.expire(now, &self.ledger);
                let is_idle = topic.is_idle();
                if is_idle {
                    self.topic_count.fetch_sub(1, Ordering::Relaxed);
                }
                !is_idle
            });
        }
    }

    /// While all histories together have more than they may, the oldest publications go, whose ever they are.
    fn make_room(&self) {
        while let Some(Place { topic: name, position }) = self.ledger.pop_oldest() {
            let mut shard = self.shard(&name);
            if let Some(topic) = shard.get_mut(&*name).filter(|topic| topic.epoch == position.epoch)
                && let Some(kept) = &mut topic.kept
            {
                kept.drop_until(position.offset, &self.ledger);
            }
            self.forget_if_idle(&mut shard, &name);
        }
        self.ledger.clean(|Place { topic: name, position }| {
            let shard = self.shard(name);
            let topic = shard.get(&**name).filter(|topic| topic.epoch == position.epoch);
            topic.and_then(|topic| topic.kept.as_ref()).is_some_and(|kept| kept.before() < position.offset)
        });
    }

    /// The topic of a name, which begins to live if it does not.
    fn topic<'a>(&self, shard: &'a mut TopicShard, name: &str, now: Now) -> Result<(Arc<str>, &'a mut Topic), TopicRefusal> {
        if !shard.contains_key(name) {
            self.count_topic(self.filter_count())?;
            self.topic_count.fetch_add(1, Ordering::Relaxed);
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

    fn count_topic(&self, filters: usize) -> Result<(), TopicRefusal> {
        if self.topic_count() + filters < self.max_topics { Ok(()) } else { Err(TopicRefusal::TooManyTopics) }
    }

    fn forget_if_idle(&self, shard: &mut TopicShard, name: &str) {
        if shard.get(name).is_some_and(Topic::is_idle) {
            shard.remove(name);
            self.topic_count.fetch_sub(1, Ordering::Relaxed);
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

/// What is kept behind an offset. Its number lets everybody have it who is given it.
fn replayed(name: &Arc<str>, topic: &Topic, after: u64, sequence: u64) -> Vec<Arc<Publication>> {
    let kept = topic.kept.iter().flat_map(|kept| kept.after(after));
    let publication = |(offset, payload): (u64, &Bytes)| {
        let position = Some(Position { offset, epoch: topic.epoch });
        Arc::new(Publication { topic: name.clone(), position, sequence, payload: payload.clone() })
    };
    kept.map(publication).collect()
}

#[cfg(test)]
mod tests;
