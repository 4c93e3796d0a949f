//! Which nodes come and go, as the topic `$nodes` tells it; and which of them subscribe to a topic and no longer, as it is told below
//! `$presence`.
//!
//! Owns what is pending and when it is told: changes of one node within the window are told as one, of how it stands in the end. Knows
//! nodes by their ids, and members of topics by both; is told the time. Does not know who observes for it, nor who publishes what it says.

use super::attendance::TopicMember;
use super::now::Now;
use crate::model::Departure;
use serde::Serialize;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

/// Nodes that may be pending together. More are a gap: whoever wants to know looks afresh.
pub const MAX_PENDING: usize = 65_536;

/// Comings and goings of nodes, or of members, debounced, in order.
pub struct Presence<K = Arc<str>> {
    /// In microseconds.
    window: u64,
    most: usize,
    pending: HashMap<K, PendingChange>,
    /// Each that is pending once, in the order in which their windows end.
    due: VecDeque<(u64, K)>,
    /// What is to be told before these: without a window no change stands for another.
    ready: VecDeque<(WhatChanged<K>, u64)>,
    /// Of what was told last.
    sequence: u64,
    /// Changes that nobody is told of, since the last gap that was told.
    missed: u64,
}

struct PendingChange {
    was_online: bool,
    /// A newer connection has taken its id, and has it.
    is_replaced: bool,
    /// How it left last; `None`: it is online.
    left: Option<Departure>,
    changes: u64,
    /// When that was, in Unix microseconds.
    at: u64,
}

/// What is told of a node, or of several: that something was missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeChange<K = Arc<str>> {
    /// 1, 2, 3... as long as the server runs, gaps among them.
    pub sequence: u64,
    pub what: WhatChanged<K>,
    /// Unix microseconds.
    pub at: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhatChanged<K = Arc<str>> {
    /// It is online, and was not, or not all the time.
    Joined { node: K, changes: u64 },
    /// It is not online, and was, if only in between.
    Left { node: K, how: Departure, changes: u64 },
    /// It is online as before, on a newer connection that has taken its id.
    Replaced { node: K, changes: u64 },
    /// So many changes were not told here.
    Missed { count: u64 },
}

impl<K: Clone + Eq + Hash> Presence<K> {
    /// `window` in microseconds: 0 tells each change by itself. `most` may be pending.
    pub fn new(window: u64, most: usize) -> Self {
        Self { window, most: most.max(1), pending: HashMap::new(), due: VecDeque::new(), ready: VecDeque::new(), sequence: 0, missed: 0 }
    }

    /// A node came online, or left: in the order in which that happened.
    pub fn note(&mut self, node: &K, left: Option<Departure>, now: Now) {
        while self.window == 0
            && let Some(ready) = self.take_due(now)
        {
            self.ready.push_back(ready);
        }
        if self.pending.len() + self.ready.len() >= self.most && !self.pending.contains_key(node) {
            return self.miss(1);
        }
        let pending = match self.pending.entry(node.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.due.push_back((now.mono.saturating_add(self.window), node.clone()));
                entry.insert(PendingChange { was_online: left.is_some(), is_replaced: false, left: None, changes: 0, at: 0 })
            }
        };
        match left {
            None => pending.is_replaced |= pending.left == Some(Departure::Replaced),
            // It is another life that begins after this.
            Some(Departure::Replaced) => {}
            Some(_) => pending.is_replaced = false,
        }
        pending.left = left;
        pending.changes += 1;
        pending.at = now.unix;
    }

    /// So many changes are not known: whatever is pending may be wrong.
    pub fn miss(&mut self, count: u64) {
        self.missed += count + self.pending.values().map(|pending| pending.changes).sum::<u64>() + self.ready.len() as u64;
        self.pending = HashMap::new();
        self.due = VecDeque::new();
        self.ready = VecDeque::new();
    }

    /// Nobody is told anything for now.
    pub fn rest(&mut self) {
        self.miss(0);
        self.missed = 0;
    }

    /// Changes that were missed and not told as such yet.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// What is to be told next by now.
    pub fn next(&mut self, now: Now) -> Option<NodeChange<K>> {
        if self.missed > 0 {
            let what = WhatChanged::Missed { count: std::mem::take(&mut self.missed) };
            return Some(self.told(what, now.unix));
        }
        let (what, at) = self.ready.pop_front().or_else(|| self.take_due(now))?;
        Some(self.told(what, at))
    }

    /// What becomes of the node whose window is over.
    fn take_due(&mut self, now: Now) -> Option<(WhatChanged<K>, u64)> {
        if self.due_at()? > now.mono {
            return None;
        }
        let (_, node) = self.due.pop_front()?;
        let PendingChange { was_online, is_replaced, left, changes, at } = self.pending.remove(&node)?;
        // Also where it is as before: somebody may have looked in between.
        let what = match left {
            Some(how) => WhatChanged::Left { node, how, changes },
            None if was_online && is_replaced => WhatChanged::Replaced { node, changes },
            None => WhatChanged::Joined { node, changes },
        };
        Some((what, at))
    }

    fn told(&mut self, what: WhatChanged<K>, at: u64) -> NodeChange<K> {
        self.sequence += 1;
        NodeChange { sequence: self.sequence, what, at }
    }

    /// When [`Presence::next`] has something, on the monotonic clock; `None`: not before something happens.
    pub fn wakes_at(&self) -> Option<u64> {
        if self.missed > 0 || !self.ready.is_empty() {
            return Some(0);
        }
        self.due_at()
    }

    fn due_at(&self) -> Option<u64> {
        let (due, node) = self.due.front()?;
        // Who has taken its id is noted in the same moment.
        let is_being_replaced = self.pending.get(node).is_some_and(|pending| pending.left == Some(Departure::Replaced));
        (!is_being_replaced).then_some(*due)
    }
}

/// As it stands in the topic.
#[derive(Serialize)]
struct NodeChangeJson<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    sequence: u64,
    time: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
}

impl NodeChange {
    /// The text of a JSON object.
    pub fn to_json(&self) -> String {
        let (event, node, reason, changes, missed) = match &self.what {
            WhatChanged::Joined { node, changes } => ("joined", Some(node), Some("registered"), Some(*changes), None),
            WhatChanged::Left { node, how, changes } => {
                let (event, reason) = match how {
                    Departure::Unregistered => ("left", "unregistered"),
                    Departure::Disconnected => ("left", "disconnected"),
                    Departure::TimedOut => ("timed_out", "timeout"),
                    Departure::Replaced => ("left", "replaced"),
                };
                (event, Some(node), Some(reason), Some(*changes), None)
            }
            WhatChanged::Replaced { node, changes } => ("replaced", Some(node), Some("replaced"), Some(*changes), None),
            WhatChanged::Missed { count } => ("gap", None, None, None, Some(*count)),
        };
        let json = NodeChangeJson {
            event,
            node: node.map(|node| &**node),
            reason,
            sequence: self.sequence,
            time: self.at as f64 / 1e6,
            changes,
            missed,
        };
        serde_json::to_string(&json).unwrap_or_default()
    }
}

/// As it stands below `$presence`.
#[derive(Serialize)]
struct MemberChangeJson<'a> {
    event: &'static str,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribers: Option<usize>,
    time: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<u64>,
}

impl NodeChange<TopicMember> {
    /// The text of a JSON object: `subscribers` says how many a topic has now. None of a gap, which is of no topic.
    pub fn to_json(&self, subscribers: impl FnOnce(&str) -> usize) -> Option<(&str, String)> {
        let (event, member, changes) = match &self.what {
            WhatChanged::Joined { node, changes } => ("joined", node, *changes),
            WhatChanged::Left { node, changes, .. } | WhatChanged::Replaced { node, changes } => ("left", node, *changes),
            WhatChanged::Missed { .. } => return None,
        };
        let topic = &*member.topic;
        let (node, subscribers) = (Some(&*member.node), Some(subscribers(topic)));
        let json = MemberChangeJson { event, topic, node, subscribers, time: self.at as f64 / 1e6, changes: Some(changes) };
        Some((topic, serde_json::to_string(&json).unwrap_or_default()))
    }
}

/// What a topic is told where comings and goings are missing, at this Unix time in microseconds.
pub fn gap_to_json(topic: &str, at: u64) -> String {
    let json = MemberChangeJson { event: "gap", topic, node: None, subscribers: None, time: at as f64 / 1e6, changes: None };
    serde_json::to_string(&json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const WINDOW: u64 = 1000;

    fn at(mono: u64) -> Now {
        Now { mono, unix: 1_700_000_000_000_000 + mono }
    }

    fn presence() -> Presence {
        Presence::new(WINDOW, MAX_PENDING)
    }

    fn id(node: &str) -> Arc<str> {
        node.into()
    }

    /// All that is told by then, without its time.
    fn told(presence: &mut Presence, now: u64) -> Vec<(u64, WhatChanged)> {
        std::iter::from_fn(|| presence.next(at(now))).map(|change| (change.sequence, change.what)).collect()
    }

    #[test]
    fn a_change_is_told_when_its_window_is_over_and_not_before() {
        let mut presence = presence();
        presence.note(&id("a"), None, at(10));
        presence.note(&id("b"), Some(Departure::TimedOut), at(20));
        assert_eq!((presence.wakes_at(), told(&mut presence, 1009)), (Some(1010), vec![]));
        assert_eq!(told(&mut presence, 1010), [(1, WhatChanged::Joined { node: id("a"), changes: 1 })]);
        assert_eq!(presence.wakes_at(), Some(1020));
        assert_eq!(told(&mut presence, 5000), [(2, WhatChanged::Left { node: id("b"), how: Departure::TimedOut, changes: 1 })]);
        assert_eq!(presence.wakes_at(), None);
    }

    #[test]
    fn a_node_that_flaps_within_its_window_is_told_once_as_it_stands_in_the_end() {
        let mut presence = presence();
        for (now, left) in [(1, Some(Departure::Disconnected)), (2, None), (3, Some(Departure::Unregistered)), (4, None)] {
            presence.note(&id("flaps"), left, at(now));
        }
        for (now, left) in [(5, None), (6, Some(Departure::Unregistered))] {
            presence.note(&id("looks in"), left, at(now));
        }
        // Whoever has looked at the nodes in the middle of that knows better now.
        let joined = WhatChanged::Joined { node: id("flaps"), changes: 4 };
        let left = WhatChanged::Left { node: id("looks in"), how: Departure::Unregistered, changes: 2 };
        assert_eq!((told(&mut presence, 10_000), presence.wakes_at()), (vec![(1, joined), (2, left)], None));
    }

    #[test]
    fn many_changes_within_a_window_are_one_of_the_last_kind_and_the_window_begins_with_the_first() {
        let mut presence = presence();
        for (now, left) in [(0, None), (500, Some(Departure::Disconnected)), (999, None)] {
            presence.note(&id("a"), left, at(now));
        }
        assert_eq!(told(&mut presence, 1000), [(1, WhatChanged::Joined { node: id("a"), changes: 3 })]);
        presence.note(&id("a"), Some(Departure::Unregistered), at(1001));
        assert_eq!(told(&mut presence, 2001), [(2, WhatChanged::Left { node: id("a"), how: Departure::Unregistered, changes: 1 })]);
    }

    #[test]
    fn without_a_window_each_change_is_told_by_itself() {
        let mut presence = Presence::new(0, MAX_PENDING);
        presence.note(&id("a"), None, at(1));
        assert_eq!(told(&mut presence, 1), [(1, WhatChanged::Joined { node: id("a"), changes: 1 })]);
        presence.note(&id("a"), Some(Departure::Disconnected), at(2));
        assert_eq!(told(&mut presence, 2), [(2, WhatChanged::Left { node: id("a"), how: Departure::Disconnected, changes: 1 })]);
        // Also where several were noted before anything was told.
        for left in [None, Some(Departure::Replaced), None, Some(Departure::TimedOut)] {
            presence.note(&id("b"), left, at(3));
        }
        let expected = [
            (3, WhatChanged::Joined { node: id("b"), changes: 1 }),
            (4, WhatChanged::Replaced { node: id("b"), changes: 2 }),
            (5, WhatChanged::Left { node: id("b"), how: Departure::TimedOut, changes: 1 }),
        ];
        assert_eq!((presence.wakes_at(), told(&mut presence, 3)), (Some(0), expected.to_vec()));
    }

    #[test]
    fn whose_id_a_newer_connection_has_taken_is_replaced_and_still_online() {
        for window in [0, WINDOW] {
            let mut presence = Presence::new(window, MAX_PENDING);
            presence.note(&id("a"), Some(Departure::Replaced), at(1));
            // Half of it is nothing to tell, however long that takes.
            assert_eq!((told(&mut presence, 9000), presence.wakes_at()), (vec![], None));
            presence.note(&id("a"), None, at(9000));
            assert_eq!(told(&mut presence, 9000), [(1, WhatChanged::Replaced { node: id("a"), changes: 2 })]);
            presence.note(&id("a"), Some(Departure::Replaced), at(9001));
            presence.note(&id("a"), None, at(9001));
            presence.note(&id("a"), Some(Departure::Unregistered), at(9001));
            let changes = if window == 0 { 1 } else { 3 };
            let left = WhatChanged::Left { node: id("a"), how: Departure::Unregistered, changes };
            assert_eq!(told(&mut presence, 20_000).pop().map(|(_, what)| what), Some(left));
        }
        // Of one that nobody knew yet it is a coming.
        let mut presence = presence();
        for left in [None, Some(Departure::Replaced), None] {
            presence.note(&id("new"), left, at(1));
        }
        assert_eq!(told(&mut presence, 2000), [(1, WhatChanged::Joined { node: id("new"), changes: 3 })]);
        // Nor is one that left and came back by itself replaced.
        for left in [Some(Departure::Replaced), None, Some(Departure::Disconnected), None] {
            presence.note(&id("new"), left, at(3000));
        }
        assert_eq!(told(&mut presence, 9000), [(2, WhatChanged::Joined { node: id("new"), changes: 4 })]);
    }

    #[test]
    fn what_was_missed_is_told_at_once_as_a_gap_and_nothing_that_was_pending_before_it() {
        let mut presence = presence();
        presence.note(&id("a"), None, at(1));
        presence.note(&id("a"), Some(Departure::Disconnected), at(2));
        presence.miss(5);
        assert_eq!((presence.wakes_at(), presence.missed()), (Some(0), 7));
        presence.note(&id("b"), None, at(3));
        assert_eq!(told(&mut presence, 3), [(1, WhatChanged::Missed { count: 7 })]);
        assert_eq!(told(&mut presence, 5000), [(2, WhatChanged::Joined { node: id("b"), changes: 1 })]);
    }

    #[test]
    fn more_nodes_than_may_be_pending_are_a_gap() {
        let mut presence = Presence::new(WINDOW, 3);
        for node in ["a", "b", "c"] {
            presence.note(&id(node), None, at(1));
        }
        presence.note(&id("a"), Some(Departure::TimedOut), at(2));
        assert_eq!(presence.missed(), 0, "one of those that are pending");
        presence.note(&id("d"), None, at(2));
        assert_eq!(told(&mut presence, 5000), [(1, WhatChanged::Missed { count: 5 })]);
    }

    #[test]
    fn the_json_says_what_happened_to_whom_and_why() {
        let json = |what: WhatChanged| NodeChange { sequence: 7, what, at: 1_700_000_000_250_000 }.to_json();
        let left = |how| json(WhatChanged::Left { node: id("n\"1"), how, changes: 2 });
        assert_eq!(
            json(WhatChanged::Joined { node: id("n1"), changes: 1 }),
            r#"{"event":"joined","node":"n1","reason":"registered","sequence":7,"time":1700000000.25,"changes":1}"#
        );
        assert_eq!(
            left(Departure::TimedOut),
            r#"{"event":"timed_out","node":"n\"1","reason":"timeout","sequence":7,"time":1700000000.25,"changes":2}"#
        );
        assert!(left(Departure::Unregistered).starts_with(r#"{"event":"left","node":"n\"1","reason":"unregistered","#));
        assert!(left(Departure::Disconnected).starts_with(r#"{"event":"left","node":"n\"1","reason":"disconnected","#));
        assert!(
            json(WhatChanged::Replaced { node: id("n"), changes: 2 }).starts_with(r#"{"event":"replaced","node":"n","reason":"replaced","#)
        );
        assert_eq!(json(WhatChanged::Missed { count: 12 }), r#"{"event":"gap","sequence":7,"time":1700000000.25,"missed":12}"#);
    }

    #[test]
    fn members_are_told_by_their_topic_with_its_subscribers_and_a_gap_to_each_topic() {
        let mut presence = Presence::new(WINDOW, 2);
        let member = |topic: &str, node: &str| TopicMember { topic: topic.into(), node: node.into() };
        presence.note(&member("a", "n"), None, at(250_000));
        presence.note(&member("b", "n"), None, at(250_000));
        presence.note(&member("b", "n"), Some(Departure::Unregistered), at(250_001));
        let change = presence.next(at(300_000)).unwrap();
        let json = r#"{"event":"joined","topic":"a","node":"n","subscribers":3,"time":1700000000.25,"changes":1}"#;
        assert_eq!(change.to_json(|topic| if topic == "a" { 3 } else { 0 }), Some(("a", json.to_owned())));
        let Some(WhatChanged::Left { node, changes: 2, .. }) = presence.next(at(300_000)).map(|change| change.what) else { panic!() };
        assert_eq!(node, member("b", "n"));
        presence.note(&member("a", "n"), Some(Departure::Unregistered), at(300_000));
        presence.miss(1);
        let gap = presence.next(at(300_000)).unwrap();
        assert_eq!((gap.to_json(|_| 0), gap_to_json("a", gap.at)), (None, r#"{"event":"gap","topic":"a","time":1700000000.3}"#.to_owned()));
    }

    proptest! {
        /// Whoever follows what is told, and looks afresh at a gap, knows who is online once nothing is pending.
        #[test]
        fn whoever_follows_knows_who_is_online(
            window in prop::sample::select(vec![0, 5, 50]),
            steps in prop::collection::vec((0..6usize, 0..10u64, 0..5u8), 0..200),
        ) {
            let mut presence = Presence::new(window, 4);
            let (mut truth, mut followed) = (BTreeMap::<Arc<str>, bool>::new(), BTreeMap::<Arc<str>, bool>::new());
            // Of these a gap was told last: whoever looked then may have seen them in the middle of what is told next.
            let mut looked_at = BTreeSet::<Arc<str>>::new();
            let (mut now, mut last) = (1, 0);
            let mut follow = |presence: &mut Presence, truth: &BTreeMap<Arc<str>, bool>, now: u64| {
                while let Some(NodeChange { sequence, what, .. }) = presence.next(at(now)) {
                    assert_eq!(sequence, last + 1);
                    last = sequence;
                    match what {
                        WhatChanged::Joined { node, .. } => {
                            looked_at.remove(&node);
                            followed.insert(node, true);
                        }
                        WhatChanged::Left { node, .. } => {
                            looked_at.remove(&node);
                            followed.insert(node, false);
                        }
                        WhatChanged::Replaced { node, .. } => {
                            let was_online = followed.insert(node.clone(), true) == Some(true);
                            assert!(looked_at.remove(&node) || was_online, "{node} was not there");
                        }
                        // The truth of this moment: what is pending behind it is told again.
                        WhatChanged::Missed { .. } => {
                            followed = truth.clone();
                            looked_at = truth.keys().cloned().collect();
                        }
                    }
                }
                followed.clone()
            };
            for (node, later, what) in steps {
                now += later;
                let node = id(&format!("n{node}"));
                let is_online = truth.get(&node).copied().unwrap_or(false);
                match (is_online, what) {
                    (false, _) => presence.note(&node, None, at(now)),
                    (true, 0) => {
                        presence.note(&node, Some(Departure::Replaced), at(now));
                        presence.note(&node, None, at(now));
                    }
                    (true, _) => presence.note(&node, Some(Departure::Disconnected), at(now)),
                }
                truth.insert(node, !is_online || what == 0);
                follow(&mut presence, &truth, now);
            }
            let followed = follow(&mut presence, &truth, now + window);
            for (node, is_online) in &truth {
                prop_assert_eq!(followed.get(node).copied().unwrap_or(false), *is_online, "{}", node);
            }
        }
    }
}
