//! Who on one I/O thread has subscribed to what.
//!
//! Owns the thread's subscribers by topic and by filter. Knows them as a connection's slot and a node on it, and does not know
//! what a message is but its topic and its number. What was subscribed to has a number here, by which connections keep it: so that is
//! short.

use super::filters::FilterTree;
use crate::hub::NodeRef;
use crate::wire::topic::Filter;
use slab::Slab;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

/// A subscriber: where its connection is, and which of the nodes there it is; [`NodeRef::NONE`] is the connection itself. In the order of
/// these, connections that are next to each other in memory are served one behind the other.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber {
    pub slot: u32,
    pub node: NodeRef,
}

/// The number of a topic or filter that somebody on this thread has subscribed to; used again once nobody has.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(u32);

/// Whoever gets nothing yet because it is still given what was kept for it.
pub const NOT_YET: u64 = u64::MAX;

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
    topics: HashMap<Arc<str>, FilterId>,
    filters: FilterTree<Option<FilterId>>,
    subscribed: Slab<SubscribedFilter>,
    /// Who has gone from something since somebody made a list of receivers.
    gone: Option<HashSet<Subscriber>>,
}

/// Something that is subscribed to.
#[derive(Debug)]
struct SubscribedFilter {
    filter: Arc<str>,
    is_wild: bool,
    subscribers: Subscribers,
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
                    if few.len() == few.capacity() {
                        // Twice as much as is needed would be more than the rest of a subscription.
                        few.reserve_exact(few.len() / 4 + 1);
                    }
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

    fn since(&self, member: Subscriber) -> Option<u64> {
        match self {
            Self::Few(few) => few.binary_search_by_key(&member, |(member, _)| *member).ok().map(|place| few[place].1),
            Self::Many(many) => many.get(&member).copied(),
        }
    }

    fn get_mut(&mut self, member: Subscriber) -> Option<&mut u64> {
        match self {
            Self::Few(few) => few.binary_search_by_key(&member, |(member, _)| *member).ok().map(|place| &mut few[place].1),
            Self::Many(many) => many.get_mut(&member),
        }
    }

    fn has_slot(&self, slot: u32) -> bool {
        let first = match self {
            Self::Few(few) => few.get(few.partition_point(|(member, _)| member.slot < slot)).map(|(member, _)| *member),
            Self::Many(many) => many.range(Subscriber { slot, node: NodeRef::NONE }..).next().map(|(member, _)| *member),
        };
        first.is_some_and(|first| first.slot == slot)
    }

    fn behind(&self, member: Option<Subscriber>, limit: usize) -> Vec<Subscriber> {
        let is_behind = |found: &Subscriber| member.is_none_or(|member| *found > member);
        match self {
            Self::Few(few) => few.iter().map(|(found, _)| *found).filter(is_behind).take(limit).collect(),
            Self::Many(many) => match member {
                Some(member) => many.range((Bound::Excluded(member), Bound::Unbounded)).map(|(found, _)| *found).take(limit).collect(),
                None => many.keys().copied().take(limit).collect(),
            },
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
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
    /// `since`: the number of the last publication that it does not get. `None` when it had subscribed to that already, which stays
    /// as it was.
    pub fn insert(&mut self, filter: Filter<'_>, member: Subscriber, since: u64) -> Option<FilterId> {
        let since = match filter {
            // From now on this decides what it gets of the topic, also of what is on its way to it through a filter.
            Filter::Exact(name) if since != NOT_YET && self.filters.len() > 0 => since.min(self.since_of_filters(name, member)),
            _ => since,
        };
        let id = match self.find(filter) {
            Some(id) => id,
            None => {
                let (text, is_wild): (Arc<str>, bool) = (filter.text().into(), matches!(filter, Filter::Wild(_)));
                let id =
                    FilterId(
                        self.subscribed.insert(SubscribedFilter { filter: text.clone(), is_wild, subscribers: Subscribers::default() })
                            as u32,
                    );
                if is_wild {
                    *self.filters.entry(&text) = Some(id);
                } else {
                    self.topics.insert(text, id);
                }
                id
            }
        };
        self.subscribed[id.0 as usize].subscribers.insert(member, since).then_some(id)
    }

    pub fn find(&self, filter: Filter<'_>) -> Option<FilterId> {
        match filter {
            Filter::Exact(name) => self.topics.get(name).copied(),
            Filter::Wild(filter) => self.filters.get(filter).copied().flatten(),
        }
    }

    /// What a number means, as text.
    pub fn filter(&self, id: FilterId) -> Option<&Arc<str>> {
        self.subscribed.get(id.0 as usize).map(|subscribed| &subscribed.filter)
    }

    pub fn contains(&self, id: FilterId, member: Subscriber) -> bool {
        self.since(id, member).is_some()
    }

    /// From now on it gets what has a higher number.
    pub fn go_live(&mut self, id: FilterId, member: Subscriber, since: u64) {
        if let Some(subscribed) = self.subscribed.get_mut(id.0 as usize)
            && let Some(place) = subscribed.subscribers.get_mut(member)
        {
            *place = since;
        }
    }

    /// Whether a connection has subscribed to something, itself or one of its nodes.
    pub fn has_connection(&self, id: FilterId, slot: u32) -> bool {
        self.subscribed.get(id.0 as usize).is_some_and(|subscribed| subscribed.subscribers.has_slot(slot))
    }

    /// What it had subscribed to; `None` when it had not.
    pub fn remove(&mut self, id: FilterId, member: Subscriber) -> Option<Arc<str>> {
        let subscribed = self.subscribed.get_mut(id.0 as usize)?;
        if !subscribed.subscribers.remove(member) {
            return None;
        }
        if let Some(gone) = &mut self.gone {
            gone.insert(member);
        }
        if !subscribed.subscribers.is_empty() {
            return Some(subscribed.filter.clone());
        }
        let SubscribedFilter { filter, is_wild, .. } = self.subscribed.remove(id.0 as usize);
        if is_wild {
            self.filters.remove(&filter);
        } else {
            self.topics.remove(&*filter);
        }
        if self.subscribed.is_empty() {
            // Nobody needs the memory of many that were.
            *self = Self { gone: self.gone.take(), ..Self::default() };
        }
        Some(filter)
    }

    /// To find the receivers of a publication, at most so many levels of filters are looked at.
    pub fn levels_looked_at(&self, name: &str) -> u64 {
        self.filters.levels_looked_at(name)
    }

    /// Adds the receivers of a publication, each once, in order.
    pub fn receivers(&self, name: &str, sequence: u64, into: &mut Vec<Subscriber>) {
        let start = into.len();
        if let Some(id) = self.topics.get(name) {
            self.subscribed[id.0 as usize].subscribers.of(sequence, &mut |member| into.push(member));
        }
        if self.filters.len() == 0 {
            return;
        }
        let exact = into.len();
        let mut add = |id: &Option<FilterId>| {
            let found = id.and_then(|id| self.subscribed.get(id.0 as usize));
            found.into_iter().for_each(|found| found.subscribers.of(sequence, &mut |member| into.push(member)));
        };
        self.filters.matching(name, &mut add);
        if into.len() > exact {
            if let Some(id) = self.topics.get(name) {
                self.leave_out_late(*id, sequence, exact, into);
            }
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

    /// Whoever has subscribed to the topic itself gets of it what that brings, and nothing besides through a filter: what was kept for it would
    /// come twice otherwise, and what is new before it.
    fn leave_out_late(&self, id: FilterId, sequence: u64, from: usize, receivers: &mut Vec<Subscriber>) {
        let mut kept = from;
        for index in from..receivers.len() {
            let member = receivers[index];
            if self.since(id, member).is_none_or(|since| since < sequence) {
                receivers[kept] = member;
                kept += 1;
            }
        }
        receivers.truncate(kept);
    }

    /// Since when a member gets a topic through filters.
    fn since_of_filters(&self, name: &str, member: Subscriber) -> u64 {
        let mut since = NOT_YET;
        self.filters.matching(name, &mut |id| since = since.min(id.and_then(|id| self.since(id, member)).unwrap_or(NOT_YET)));
        since
    }

    /// From now on it is kept in mind who goes, for the list of receivers that somebody has.
    pub fn begin_list(&mut self) {
        self.gone = Some(HashSet::new());
    }

    /// The list is done with.
    pub fn end_list(&mut self) {
        self.gone = None;
    }

    /// Whether somebody on the list still is a receiver.
    pub fn still_receives(&self, member: Subscriber, name: &str, sequence: u64) -> bool {
        if self.gone.as_ref().is_none_or(|gone| !gone.contains(&member)) {
            return true;
        }
        let is_of = |id: &FilterId| self.since(*id, member).is_some_and(|since| since < sequence);
        if let Some(since) = self.topics.get(name).and_then(|id| self.since(*id, member)) {
            return since < sequence;
        }
        let mut receives = false;
        self.filters.matching(name, &mut |id| receives |= id.as_ref().is_some_and(is_of));
        receives
    }

    /// Those who have subscribed to a topic by its very name, behind one of them: as many as are wanted, in order.
    pub fn page(&self, name: &str, behind: Option<Subscriber>, limit: usize) -> Vec<Subscriber> {
        let Some(id) = self.topics.get(name) else { return Vec::new() };
        self.subscribed[id.0 as usize].subscribers.behind(behind, limit)
    }

    /// Forgets everybody: what each had subscribed to, once for each.
    pub fn take_all(&mut self) -> Vec<Arc<str>> {
        let all = std::mem::take(self).subscribed;
        all.into_iter().flat_map(|(_, subscribed)| std::iter::repeat_n(subscribed.filter, subscribed.subscribers.len())).collect()
    }

    /// Topics and filters that somebody here has subscribed to.
    pub fn len(&self) -> usize {
        self.subscribed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.subscribed.is_empty()
    }

    fn since(&self, id: FilterId, member: Subscriber) -> Option<u64> {
        self.subscribed.get(id.0 as usize)?.subscribers.since(member)
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

    fn remove(members: &mut ThreadMembers, filter: &str, member: Subscriber) -> bool {
        members.find(parsed(filter)).is_some_and(|id| members.remove(id, member).is_some_and(|removed| *removed == *filter))
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
            assert!(members.insert(parsed(filter), member(slot), 0).is_some());
        }
        assert!(members.insert(parsed("a/b"), member(2), 9).is_none(), "it has that already");
        assert_eq!(receivers(&members, "a/b", 1), [1, 2, 3]);
        assert_eq!(
            (receivers(&members, "a/c", 1), receivers(&members, "x", 1), receivers(&members, "y", 1)),
            (vec![2, 3], vec![2, 4], vec![2])
        );
        assert!(remove(&mut members, "a/b", member(2)) && !remove(&mut members, "a/b", member(2)));
        assert!(!remove(&mut members, "never", member(1)) && !remove(&mut members, "never/#", member(1)));
        assert_eq!(receivers(&members, "a/b", 1), [1, 2, 3], "through the other two");
        for (filter, slot) in [("a/+", 2), ("#", 2), ("a/b", 1), ("a/#", 3), ("x", 4)] {
            assert!(members.contains(members.find(parsed(filter)).unwrap(), member(slot)) && remove(&mut members, filter, member(slot)));
            assert!(members.find(parsed(filter)).is_none_or(|id| !members.contains(id, member(slot))));
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
    fn who_has_gone_from_a_list_of_receivers_gets_nothing_unless_it_has_another_way() {
        let mut members = ThreadMembers::default();
        for (filter, slot) in [("a", 1), ("a", 2), ("a", 3), ("+", 3)] {
            members.insert(parsed(filter), member(slot), 0);
        }
        members.begin_list();
        assert!([1, 2, 3].iter().all(|slot| members.still_receives(member(*slot), "a", 1)));
        assert!(remove(&mut members, "a", member(2)) && remove(&mut members, "a", member(3)));
        assert_eq!([1, 2, 3].map(|slot| members.still_receives(member(slot), "a", 1)), [true, false, true]);
        members.insert(parsed("a"), member(2), 1);
        assert_eq!([1, 2].map(|sequence| members.still_receives(member(2), "a", sequence)), [false, true]);
        members.end_list();
        assert!(members.still_receives(member(9), "a", 1), "nobody has a list");
    }

    #[test]
    fn who_is_given_what_was_kept_gets_nothing_until_it_goes_live() {
        let mut members = ThreadMembers::default();
        let id = members.insert(parsed("a"), member(1), NOT_YET).unwrap();
        assert!(receivers(&members, "a", 5).is_empty());
        members.go_live(id, member(1), 5);
        assert_eq!([5, 6].map(|sequence| receivers(&members, "a", sequence)), [vec![], vec![1]]);
        members.go_live(id, member(2), 5);
        assert_eq!(receivers(&members, "a", 6), [1], "nobody comes in that way");
    }

    #[test]
    fn what_is_kept_for_a_subscriber_of_a_topic_is_overtaken_through_no_filter() {
        let mut members = ThreadMembers::default();
        members.insert(parsed("#"), member(1), 0);
        members.insert(parsed("a/+"), member(1), 0);
        members.insert(parsed("a/+"), member(2), 0);
        let id = members.insert(parsed("a/b"), member(1), NOT_YET).unwrap();
        assert_eq!((receivers(&members, "a/b", 5), receivers(&members, "a/c", 5)), (vec![2], vec![1, 2]));
        members.begin_list();
        members.gone.as_mut().unwrap().insert(member(1));
        assert!(!members.still_receives(member(1), "a/b", 5) && members.still_receives(member(1), "a/c", 5));
        members.go_live(id, member(1), 5);
        assert_eq!([5, 6].map(|sequence| receivers(&members, "a/b", sequence)), [vec![2], vec![1, 2]], "5 it was given");
        assert!(!members.still_receives(member(1), "a/b", 5) && members.still_receives(member(1), "a/b", 6));
    }

    #[test]
    fn what_is_on_its_way_through_a_filter_comes_also_when_the_topic_itself_is_subscribed_to() {
        let mut members = ThreadMembers::default();
        members.insert(parsed("a/+"), member(1), 3);
        members.insert(parsed("a/b"), member(1), 7);
        members.insert(parsed("a/b"), member(2), 7);
        assert_eq!([3, 4, 7, 8].map(|sequence| receivers(&members, "a/b", sequence)), [vec![], vec![1], vec![1], vec![1, 2]]);
    }

    #[test]
    fn pages_show_all_subscribers_of_a_topic_by_its_name_in_order() {
        for count in [0, 1, 10, 500] {
            let mut members = ThreadMembers::default();
            assert!((0..count).all(|slot| members.insert(parsed("a"), member(slot), 0).is_some()));
            members.insert(parsed("#"), member(9999), 0);
            let (mut found, mut behind) = (Vec::new(), None);
            loop {
                let page = members.page("a", behind, 7);
                let Some(last) = page.last() else { break };
                behind = Some(*last);
                found.extend(page.iter().map(|member| member.slot));
            }
            assert!(found.iter().copied().eq(0..count));
        }
    }

    #[test]
    fn many_come_and_go_in_any_order_and_stand_in_that_of_their_slots() {
        let mut members = ThreadMembers::default();
        let slots = || (0..1000_u32).map(|n| n * 7919 % 1009);
        assert!(slots().all(|slot| members.insert(parsed("a"), member(slot), 0).is_some()));
        assert!(slots().all(|slot| members.insert(parsed("a"), member(slot), 0).is_none()));
        let found = receivers(&members, "a", 1);
        assert!(found.len() == 1000 && found.is_sorted());
        for (left, slot) in (0..1000).rev().zip(slots()) {
            assert!(remove(&mut members, "a", member(slot)));
            assert_eq!(receivers(&members, "a", 1).len(), left);
        }
        assert!(members.is_empty());
    }
}
