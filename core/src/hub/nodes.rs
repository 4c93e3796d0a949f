//! The nodes of one connection, in the order in which they registered.
//!
//! Owns the list and the connection's timers: one per node, or one that runs while there is none. Almost every connection
//! has one node, and pays for one only.

use super::wheel::TimerKey;
use super::{Node, NodeRef};
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Clone)]
pub(super) struct Registered {
    pub(super) node: Arc<Node>,
    /// The node's, kept at hand for those who search.
    reference: NodeRef,
    pub(super) timer: TimerKey,
}

pub(super) enum Nodes {
    /// With the timer that runs until somebody registers.
    None(Option<TimerKey>),
    One(Registered),
    /// Sorted by their numbers as they count up from the first one's: they are given out in sequence, so this is the order of
    /// registration too, unless the ids of the whole server went round once while the first one stayed.
    Many(Box<Many>),
}

pub(super) struct Many {
    list: VecDeque<Registered>,
    /// What ids of all of them take, and the metadata that they have sent.
    ids: usize,
    metadata: usize,
}

impl Many {
    fn add(&mut self, node: &Node) {
        let (id, metadata) = node.sent_bytes();
        self.ids += id;
        self.metadata += metadata;
    }

    fn subtract(&mut self, node: &Node) {
        let (id, metadata) = node.sent_bytes();
        self.ids -= id;
        self.metadata -= metadata;
    }
}

impl Default for Nodes {
    fn default() -> Self {
        Self::None(None)
    }
}

impl Registered {
    pub(super) fn new(node: Arc<Node>, timer: TimerKey) -> Self {
        Self { reference: node.reference(), node, timer }
    }

    pub(super) fn reference(&self) -> NodeRef {
        self.reference
    }
}

/// Where a node is in the list, or where it would be.
fn search(list: &VecDeque<Registered>, node: NodeRef) -> Result<usize, usize> {
    let (Some(first), Some(last)) = (list.front(), list.back()) else { return Err(0) };
    let after_first = |node: NodeRef| node.number().wrapping_sub(first.reference.number());
    let (wanted, span) = (after_first(node), after_first(last.reference));
    // Nodes that registered one behind the other have ids in a row, and those of many gateways at once ids that are spread evenly: most
    // are where that says, and of a long list that nobody looked at for a while only that place is fetched from memory.
    let guess = (u64::from(wanted) * (list.len() as u64 - 1)).checked_div(u64::from(span)).unwrap_or(0) as usize;
    if list.get(guess).is_some_and(|registered| registered.reference == node) {
        return Ok(guess);
    }
    list.binary_search_by_key(&wanted, |registered| after_first(registered.reference))
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::None(_) => 0,
            Self::One(_) => 1,
            Self::Many(many) => many.list.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None(_))
    }

    /// The node that registered first among those that are still here: channel 0 means it where one node is meant.
    pub(super) fn first(&self) -> Option<&Registered> {
        match self {
            Self::None(_) => None,
            Self::One(one) => Some(one),
            Self::Many(many) => many.list.front(),
        }
    }

    pub(super) fn get(&self, node: NodeRef) -> Option<&Registered> {
        match self {
            Self::None(_) => None,
            Self::One(one) => (one.reference == node).then_some(one),
            Self::Many(many) => search(&many.list, node).ok().map(|place| &many.list[place]),
        }
    }

    /// What their ids take in memory, and the metadata that they have sent.
    pub(super) fn sent_bytes(&self) -> (usize, usize) {
        match self {
            Self::None(_) => (0, 0),
            Self::One(one) => one.node.sent_bytes(),
            Self::Many(many) => (many.ids, many.metadata),
        }
    }

    /// The metadata of one of them is another now.
    pub(super) fn change_metadata(&mut self, before: usize, after: usize) {
        if let Self::Many(many) = self {
            many.metadata = many.metadata + after - before;
        }
    }

    /// The timer that runs while there is no node.
    pub(super) fn idle_timer(&mut self) -> Option<&mut Option<TimerKey>> {
        match self {
            Self::None(timer) => Some(timer),
            _ => None,
        }
    }

    /// Adds a node that is not here yet. The idle timer must have been taken.
    pub(super) fn insert(&mut self, registered: Registered) {
        match self {
            Self::None(_) => *self = Self::One(registered),
            Self::One(first) => {
                let mut many = Many { list: VecDeque::with_capacity(2), ids: 0, metadata: 0 };
                for registered in [first.clone(), registered] {
                    many.add(&registered.node);
                    many.list.push_back(registered);
                }
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => {
                // The end, but for numbers that went round.
                let place = search(&many.list, registered.reference).unwrap_or_else(|place| place);
                many.add(&registered.node);
                many.list.insert(place, registered);
            }
        }
    }

    pub(super) fn remove(&mut self, node: NodeRef) -> Option<Registered> {
        match self {
            Self::None(_) => None,
            Self::One(one) => {
                let one = (one.reference == node).then(|| one.clone())?;
                *self = Self::default();
                Some(one)
            }
            Self::Many(many) => {
                let removed = many.list.remove(search(&many.list, node).ok()?)?;
                many.subtract(&removed.node);
                let list = &mut many.list;
                if list.is_empty() {
                    *self = Self::default();
                } else if list.len() < list.capacity() / 4 {
                    list.shrink_to(list.len() * 2);
                }
                Some(removed)
            }
        }
    }

    /// Takes the node out that registered first.
    pub(super) fn pop_first(&mut self) -> Option<Registered> {
        let first = self.first()?.reference;
        self.remove(first)
    }

    /// Those that come behind the one of that channel, or would if it were here still; all where there is none.
    pub(super) fn iter_behind(&self, node: Option<NodeRef>) -> impl Iterator<Item = &Registered> {
        let skipped = match (self, node) {
            (_, None) | (Self::None(_), _) => 0,
            (Self::One(one), Some(node)) => usize::from(one.reference == node),
            (Self::Many(many), Some(node)) => search(&many.list, node).map_or_else(|place| place, |place| place + 1),
        };
        let (one, many) = match self {
            Self::None(_) => (None, None),
            Self::One(one) => (Some(one), None),
            Self::Many(many) => (None, Some(many.list.range(skipped..))),
        };
        one.into_iter().skip(skipped).chain(many.into_iter().flatten())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Registered> {
        let (one, many) = match self {
            Self::None(_) => (None, None),
            Self::One(one) => (Some(one), None),
            Self::Many(many) => (None, Some(many.list.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Now;
    use super::super::link::{Command, CommandSink, Link};
    use super::super::wheel::Wheel;
    use super::*;

    struct Nobody;

    impl CommandSink for Nobody {
        fn post(&self, _command: Command) {}
    }

    fn registered(channel_id: u32) -> Registered {
        let link = Arc::new(Link::new(1, ([127, 0, 0, 1], 1).into(), 0, Arc::new(Nobody)));
        let now = Now { mono: 1, unix: 1 };
        Registered::new(Arc::new(Node::new("n".into(), link, channel_id, None, now)), Wheel::new(0).insert(0, ()))
    }

    fn channels(nodes: &Nodes) -> Vec<u32> {
        nodes.iter().map(|registered| registered.reference.number()).collect()
    }

    #[test]
    fn nodes_stay_in_the_order_of_registration_also_when_channel_ids_go_round() {
        let mut nodes = Nodes::default();
        let ids = [u32::MAX - 2, u32::MAX - 1, u32::MAX, 1, 2, 7];
        for id in ids {
            nodes.insert(registered(id));
        }
        assert_eq!(channels(&nodes), ids);
        assert!(ids.iter().all(|id| nodes.get(NodeRef::of_main_channel(*id)).is_some_and(|found| found.reference.number() == *id)));
        assert!([0, 3, u32::MAX - 3].iter().all(|id| nodes.get(NodeRef::of_main_channel(*id)).is_none()));
        assert!(
            nodes.remove(NodeRef::of_main_channel(u32::MAX - 2)).is_some()
                && nodes.remove(NodeRef::of_main_channel(1)).is_some()
                && nodes.remove(NodeRef::of_main_channel(1)).is_none()
        );
        assert_eq!(channels(&nodes), [u32::MAX - 1, u32::MAX, 2, 7]);
        assert_eq!(nodes.first().unwrap().reference.number(), u32::MAX - 1);
        let rest: Vec<u32> = std::iter::from_fn(|| nodes.pop_first()).map(|registered| registered.reference.number()).collect();
        assert_eq!(rest, [u32::MAX - 1, u32::MAX, 2, 7]);
        assert!(nodes.is_empty());
    }

    #[test]
    fn a_node_that_stays_while_all_channel_ids_go_round_loses_nothing_but_the_order() {
        let mut nodes = Nodes::default();
        for id in [100, 5, 200, 99, 101] {
            nodes.insert(registered(id));
        }
        assert_eq!(channels(&nodes), [100, 101, 200, 5, 99]);
        for id in [100, 5, 200, 99, 101] {
            assert_eq!(nodes.get(NodeRef::of_main_channel(id)).unwrap().reference.number(), id);
            assert_eq!(nodes.remove(NodeRef::of_main_channel(id)).unwrap().reference.number(), id);
        }
        assert!(nodes.is_empty());
    }
}
