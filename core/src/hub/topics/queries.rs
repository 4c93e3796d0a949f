//! What can be asked of the topics: which there are, how many want each of them, and who.
//!
//! Changes nothing.

use super::filters::most_levels;
use super::interest::Interest;
use super::{HOST, SHARD_BITS, Subscribed, Topic, Topics, lock};
use crate::wire::topic::{self, Filter};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Topics {
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
        exact + self.filtered(name)
    }

    /// How many have subscribed to this very topic by its name.
    pub fn named_subscribers(&self, name: &str) -> usize {
        self.shard(name).get(name).map_or(0, |topic| topic.interest.sum())
    }

    /// At most so many levels of filters are looked at for a publication.
    #[inline]
    pub fn levels_looked_at(&self, name: &str) -> u64 {
        most_levels(name, self.max_filter_levels, self.filter_count())
    }

    fn filtered(&self, name: &str) -> usize {
        let mut filtered = 0;
        if self.filter_count() > 0 {
            self.read_filters().matching(name, &mut |interest| filtered += interest.sum());
        }
        filtered
    }

    /// Whether the host is among them.
    pub fn is_heard_by_host(&self, name: &str) -> bool {
        let hears = |interest: &Interest| interest.threads().iter().any(|(thread, _)| usize::from(*thread) == HOST);
        let mut is_heard = self.shard(name).get(name).is_some_and(|topic| hears(&topic.interest));
        if !is_heard && self.filter_count() > 0 {
            self.read_filters().matching(name, &mut |interest| is_heard |= hears(interest));
        }
        is_heard
    }

    /// Whether somebody would get what is published to a topic, or something of it would be kept.
    pub fn is_wanted(&self, name: &str) -> bool {
        self.subscribers(name) > 0 || self.is_ruled(name)
    }

    pub(super) fn is_ruled(&self, name: &str) -> bool {
        self.rules.iter().any(|rule| topic::matches(&rule.filter, name))
    }

    /// Whether somebody wants to hear who subscribes to whatever topic.
    #[inline]
    pub fn are_members_wanted(&self) -> bool {
        self.members_wanted.is_there()
    }

    /// Topics below `$presence` that together reach everybody who listens there, but for who does so through a `+`.
    pub fn members_topics(&self) -> Vec<String> {
        self.members_wanted.topics()
    }

    /// What a subscription that is there would begin with now.
    pub fn position_of(&self, filter: Filter<'_>) -> Subscribed {
        let position = match filter {
            Filter::Exact(name) => self.shard(name).get(name).map(Topic::position),
            Filter::Wild(_) => None,
        };
        Subscribed { since: self.published.load(Ordering::SeqCst), position, recovered: true, replay_behind: None }
    }

    /// A page of the topics: up to `limit` of them behind `after`, each with its subscribers, and what `after` is for the next page. The
    /// order is stable and means nothing: however topics come and go, one that is there all the time is in exactly one page.
    pub fn page(&self, after: Option<u64>, limit: usize) -> (Vec<(Arc<str>, usize)>, Option<u64>) {
        let limit = limit.max(1);
        let mut found = Vec::new();
        let mut next = after.map_or(Some(0), |after| after.checked_add(1));
        while let Some(from) = next.filter(|_| found.len() < limit) {
            let index = (from >> (u64::BITS - SHARD_BITS)) as usize;
            let shard = lock(&self.shards[index]);
            let mut names: Vec<(u64, &Arc<str>)> =
                shard.keys().map(|name| (self.random.hash_one(&**name), name)).filter(|(hash, _)| *hash >= from).collect();
            names.sort_unstable();
            let room = limit - found.len();
            let is_whole = names.len() <= room;
            for (hash, name) in names.into_iter().take(room) {
                let exact = shard.get(name).map_or(0, |topic| topic.interest.sum());
                found.push((hash, name.clone(), exact + self.filtered(name)));
            }
            next = if is_whole {
                (index as u64 + 1).checked_shl(u64::BITS - SHARD_BITS).filter(|_| index + 1 < self.shards.len())
            } else {
                found.last().and_then(|(hash, ..)| hash.checked_add(1))
            };
        }
        let after = next.map(|next| next - 1);
        (found.into_iter().map(|(_, name, count)| (name, count)).collect(), after)
    }
}
