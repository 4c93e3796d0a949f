//! On which threads somebody wants to hear a topic or a filter, and how many subscriptions that are; and what is wanted below `$presence`.

use crate::wire::topic::Filter;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many subscriptions there are on each thread that has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest(Vec<(u16, u32)>);

impl Interest {
    pub(super) fn threads(&self) -> &[(u16, u32)] {
        &self.0
    }

    /// True when the thread had none.
    pub(super) fn add(&mut self, thread: usize, count: u32) -> bool {
        match self.0.binary_search_by_key(&(thread as u16), |(thread, _)| *thread) {
            Ok(place) => {
                self.0[place].1 += count;
                false
            }
            Err(place) => {
                self.0.insert(place, (thread as u16, count));
                true
            }
        }
    }

    /// True when the thread has none any more.
    pub(super) fn remove(&mut self, thread: usize) -> bool {
        let Ok(place) = self.0.binary_search_by_key(&(thread as u16), |(thread, _)| *thread) else { return false };
        self.0[place].1 -= 1;
        let is_last = self.0[place].1 == 0;
        if is_last {
            self.0.remove(place);
        }
        is_last
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn sum(&self) -> usize {
        self.0.iter().map(|(_, count)| *count as usize).sum()
    }
}

/// What somebody has subscribed to below `$presence`.
#[derive(Debug)]
pub(super) struct MembersInterest {
    /// Whoever listens, something of it is kept.
    is_kept: bool,
    is_there: AtomicBool,
    /// How often, by topic or filter.
    filters: Mutex<BTreeMap<Box<str>, usize>>,
}

impl MembersInterest {
    pub(super) fn new(is_kept: bool) -> Self {
        Self { is_kept, is_there: AtomicBool::new(is_kept), filters: Mutex::default() }
    }

    #[inline]
    pub(super) fn is_there(&self) -> bool {
        self.is_there.load(Ordering::SeqCst)
    }

    pub(super) fn add(&self, filter: &str) {
        let mut filters = self.lock();
        match filters.get_mut(filter) {
            Some(count) => *count += 1,
            None => drop(filters.insert(filter.into(), 1)),
        }
        self.is_there.store(true, Ordering::SeqCst);
    }

    pub(super) fn remove(&self, filter: &str) {
        let mut filters = self.lock();
        let Some(count) = filters.get_mut(filter) else { return };
        *count -= 1;
        if *count == 0 {
            filters.remove(filter);
        }
        self.is_there.store(self.is_kept || !filters.is_empty(), Ordering::SeqCst);
    }

    /// A filter that ends with `#` hears what is published to what stands before it.
    pub(super) fn topics(&self) -> Vec<String> {
        let filters = self.lock();
        let topics = filters.keys().map(|filter| filter.strip_suffix("/#").unwrap_or(filter));
        topics.filter(|topic| matches!(Filter::parse(topic), Ok(Filter::Exact(_)))).map(str::to_owned).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, usize>> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_below_presence_is_reached_but_through_a_plus_and_is_counted() {
        let wanted = MembersInterest::new(false);
        assert!(!wanted.is_there());
        for filter in ["$presence/a", "$presence/#", "$presence/a", "$presence/+", "$presence/b/#", "$presence/+/#"] {
            wanted.add(filter);
        }
        assert_eq!((wanted.is_there(), wanted.topics()), (true, ["$presence", "$presence/a", "$presence/b"].map(String::from).to_vec()));
        for filter in ["$presence/a", "$presence/#", "$presence/+", "$presence/b/#", "$presence/+/#"] {
            wanted.remove(filter);
        }
        assert_eq!((wanted.is_there(), wanted.topics()), (true, vec!["$presence/a".to_owned()]), "it was subscribed to twice");
        wanted.remove("$presence/a");
        wanted.remove("$presence/never");
        assert!(!wanted.is_there() && wanted.topics().is_empty());
        assert!(MembersInterest::new(true).is_there(), "something of it is kept, whoever listens");
    }
}
