//! Who on one I/O thread has subscribed to what.
//!
//! Owns the thread's subscribers by topic and by filter. Knows them as a connection's slot and a node on it, and does not know
//! what a message is but its topic and its number.

use super::filters::FilterTree;
use crate::hub::NodeRef;
use crate::wire::topic::Filter;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A subscriber: where its connection is, and which of the nodes there it is. In the order of these, connections that are next to
/// each other in memory are served one behind the other.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscriber {
    pub slot: u32,
    pub node: NodeRef,
}

/// The subscribers of one topic or filter. Each has the number of the last publication before it came.
#[derive(Debug)]
enum Subscribers {
    /// In order. Few of them take little memory so.
    Few(Vec<(Subscriber, u64)>),
    Many(BTreeMap<Subscriber, u64>),
}

/// More than this are kept in a tree, where coming and going costs the same however many there are.
const FEW: usize = 64;

/// The subscribers of a thread.
#[derive(Debug, Default)]
pub struct ThreadMembers {
    topics: HashMap<Arc<str>, Subscribers>,
    filters: FilterTree<Subscribers>,
}

impl Default for Subscribers {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Subscribers {
    /// True when it is new.
    fn insert(&mut self, member: Subscriber, since: u64) -> bool {
        match self {
            Self::Few(few) => match few.binary_search_by_key(&member, |(member, _)| *member) {
                Ok(_) => false,
                Err(_) if few.len() >= FEW => {
                    let mut many: BTreeMap<_, _> = few.drain(..).collect();
                    many.insert(member, since);
                    *self = Self::Many(many);
                    true
                }
                Err(place) => {
                    few.insert(place, (member, since));
                    true
                }
            },
            Self::Many(many) => match many.entry(member) {
                std::collections::btree_map::Entry::Occupied(_) => false,
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(since);
                    true
                }
            },
        }
    }

    fn remove(&mut self, member: Subscriber) -> bool {
        match self {
            Self::Few(few) => {
                let found = few.binary_search_by_key(&member, |(member, _)| *member);
                found.map(|place| few.remove(place)).is_ok()
            }
            Self::Many(many) => {
                let removed = many.remove(&member).is_some();
                // Not at once, or one who comes and goes at the limit would pay for all each time.
                if many.len() < FEW / 2 {
                    *self = Self::Few(std::mem::take(many).into_iter().collect());
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    /// Those who had come before this publication.
    fn of(&self, sequence: u64, visit: &mut impl FnMut(Subscriber)) {
        let came_before = |since: u64| since < sequence;
        match self {
            Self::Few(few) => few.iter().filter(|(_, since)| came_before(*since)).for_each(|(member, _)| visit(*member)),
            Self::Many(many) => many.iter().filter(|(_, since)| came_before(**since)).for_each(|(member, _)| visit(*member)),
        }
    }
}

impl ThreadMembers {
    /// `since`: the number of the last publication that it does not get. False when it had subscribed to that already, which stays
    /// as it was.
    pub fn insert(&mut self, filter: Filter<'_>, member: Subscriber, since: u64) -> bool {
        match filter {
            Filter::Exact(name) => match self.topics.get_mut(name) {
                Some(members) => members.insert(member, since),
                None => self.topics.entry(name.into()).or_default().insert(member, since),
            },
            Filter::Wild(filter) => self.filters.entry(filter).insert(member, since),
        }
    }

    pub fn contains(&self, filter: Filter<'_>, member: Subscriber) -> bool {
        let members = match filter {
            Filter::Exact(name) => self.topics.get(name),
            Filter::Wild(filter) => self.filters.get(filter),
        };
        members.is_some_and(|members| match members {
            Subscribers::Few(few) => few.binary_search_by_key(&member, |(member, _)| *member).is_ok(),
            Subscribers::Many(many) => many.contains_key(&member),
        })
    }

    /// False when it had not subscribed to that.
    pub fn remove(&mut self, filter: Filter<'_>, member: Subscriber) -> bool {
        match filter {
            Filter::Exact(name) => {
                let Some(members) = self.topics.get_mut(name) else { return false };
                let removed = members.remove(member);
                if members.is_empty() {
                    self.topics.remove(name);
                }
                removed
            }
            Filter::Wild(filter) => {
                let Some(members) = self.filters.get_mut(filter) else { return false };
                let removed = members.remove(member);
                if members.is_empty() {
                    self.filters.remove(filter);
                }
                removed
            }
        }
    }

    /// Adds the receivers of a publication, each once, in order.
    pub fn receivers(&self, name: &str, sequence: u64, into: &mut Vec<Subscriber>) {
        let start = into.len();
        if let Some(members) = self.topics.get(name) {
            members.of(sequence, &mut |member| into.push(member));
        }
        if self.filters.len() == 0 {
            return;
        }
        let exact = into.len();
        self.filters.matching(name, &mut |members| members.of(sequence, &mut |member| into.push(member)));
        if into.len() > exact {
            into[start..].sort_unstable();
            // Whoever has subscribed in more than one way gets it once all the same.
            let mut kept = start;
            for index in start..into.len() {
                if kept == start || into[kept - 1] != into[index] {
                    into[kept] = into[index];
                    kept += 1;
                }
            }
            into.truncate(kept);
        }
    }

    /// Topics and filters that somebody here has subscribed to.
    pub fn len(&self) -> usize {
        self.topics.len() + self.filters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(slot: u32) -> Subscriber {
        Subscriber { slot, node: NodeRef::of_main_channel(1) }
    }

    fn parsed(filter: &str) -> Filter<'_> {
        Filter::parse(filter).unwrap()
    }

    fn receivers(members: &ThreadMembers, name: &str, sequence: u64) -> Vec<u32> {
        let mut found = Vec::new();
        members.receivers(name, sequence, &mut found);
        found.into_iter().map(|member| member.slot).collect()
    }

    #[test]
    fn whoever_has_subscribed_in_several_ways_receives_once() {
        let mut members = ThreadMembers::default();
        for (filter, slot) in [("a/b", 2), ("a/+", 2), ("#", 2), ("a/b", 1), ("a/#", 3), ("x", 4)] {
            assert!(members.insert(parsed(filter), member(slot), 0));
        }
        assert!(!members.insert(parsed("a/b"), member(2), 9), "it has that already");
        assert_eq!(receivers(&members, "a/b", 1), [1, 2, 3]);
        assert_eq!(
            (receivers(&members, "a/c", 1), receivers(&members, "x", 1), receivers(&members, "y", 1)),
            (vec![2, 3], vec![2, 4], vec![2])
        );
        assert!(members.remove(parsed("a/b"), member(2)) && !members.remove(parsed("a/b"), member(2)));
        assert!(!members.remove(parsed("never"), member(1)) && !members.remove(parsed("never/#"), member(1)));
        assert_eq!(receivers(&members, "a/b", 1), [1, 2, 3], "through the other two");
        for (filter, slot) in [("a/+", 2), ("#", 2), ("a/b", 1), ("a/#", 3), ("x", 4)] {
            assert!(members.contains(parsed(filter), member(slot)) && members.remove(parsed(filter), member(slot)));
            assert!(!members.contains(parsed(filter), member(slot)));
        }
        assert!(members.is_empty() && receivers(&members, "a/b", 1).is_empty());
    }

    #[test]
    fn what_was_published_before_somebody_came_is_not_for_it() {
        let mut members = ThreadMembers::default();
        members.insert(parsed("a"), member(1), 5);
        members.insert(parsed("+"), member(2), 6);
        assert_eq!([5, 6, 7].map(|sequence| receivers(&members, "a", sequence)), [vec![], vec![1], vec![1, 2]]);
    }

    #[test]
    fn many_come_and_go_in_any_order_and_stand_in_that_of_their_slots() {
        let mut members = ThreadMembers::default();
        let slots = || (0..1000_u32).map(|n| n * 7919 % 1009);
        assert!(slots().all(|slot| members.insert(parsed("a"), member(slot), 0)));
        assert!(!slots().any(|slot| members.insert(parsed("a"), member(slot), 0)));
        let found = receivers(&members, "a", 1);
        assert!(found.len() == 1000 && found.is_sorted());
        for (left, slot) in (0..1000).rev().zip(slots()) {
            assert!(members.remove(parsed("a"), member(slot)));
            assert_eq!(receivers(&members, "a", 1).len(), left);
        }
        assert!(members.is_empty());
    }
}
