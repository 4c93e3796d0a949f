//! The nodes of one connection, in the order in which they registered.
//!
//! Owns the table and the nodes' timers. Almost every connection has one node, and pays for one only.

use super::Node;
use super::wheel::Key;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(super) struct Registered {
    pub(super) node: Arc<Node>,
    pub(super) timer: Key,
}

#[derive(Default)]
pub(super) enum Nodes {
    #[default]
    None,
    One(Registered),
    Many(Box<Table>),
}

#[derive(Default)]
pub(super) struct Table {
    in_order: BTreeMap<u64, Registered>,
    by_channel: HashMap<u32, u64>,
    next: u64,
}

impl Table {
    fn insert(&mut self, registered: Registered) {
        self.by_channel.insert(registered.node.channel_id(), self.next);
        self.in_order.insert(self.next, registered);
        self.next += 1;
    }
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        match self {
            Nodes::None => 0,
            Nodes::One(_) => 1,
            Nodes::Many(table) => table.in_order.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node that registered first among those that are still here: channel 0 means it where one node is meant.
    pub(super) fn first(&self) -> Option<&Registered> {
        match self {
            Nodes::None => None,
            Nodes::One(one) => Some(one),
            Nodes::Many(table) => table.in_order.first_key_value().map(|(_, registered)| registered),
        }
    }

    pub(super) fn get(&self, channel_id: u32) -> Option<&Registered> {
        match self {
            Nodes::None => None,
            Nodes::One(one) => (one.node.channel_id() == channel_id).then_some(one),
            Nodes::Many(table) => table.by_channel.get(&channel_id).map(|order| &table.in_order[order]),
        }
    }

    pub(super) fn set_timer(&mut self, channel_id: u32, timer: Key) {
        let registered = match self {
            Nodes::None => None,
            Nodes::One(one) => Some(one),
            Nodes::Many(table) => table.by_channel.get(&channel_id).and_then(|order| table.in_order.get_mut(order)),
        };
        if let Some(registered) = registered {
            registered.timer = timer;
        }
    }

    pub(super) fn insert(&mut self, registered: Registered) {
        *self = match std::mem::take(self) {
            Nodes::None => Nodes::One(registered),
            Nodes::One(first) => {
                let mut table = Box::<Table>::default();
                table.insert(first);
                table.insert(registered);
                Nodes::Many(table)
            }
            Nodes::Many(mut table) => {
                table.insert(registered);
                Nodes::Many(table)
            }
        };
    }

    pub(super) fn remove(&mut self, channel_id: u32) -> Option<Registered> {
        self.get(channel_id)?;
        match std::mem::take(self) {
            Nodes::None => None,
            Nodes::One(one) => Some(one),
            Nodes::Many(mut table) => {
                let removed = table.by_channel.remove(&channel_id).and_then(|order| table.in_order.remove(&order));
                if !table.in_order.is_empty() {
                    *self = Nodes::Many(table);
                }
                removed
            }
        }
    }

    /// All nodes in order, leaving none.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Registered> + use<> {
        let (one, many) = match std::mem::take(self) {
            Nodes::None => (None, None),
            Nodes::One(one) => (Some(one), None),
            Nodes::Many(table) => (None, Some(table.in_order.into_values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Registered> {
        let (one, many) = match self {
            Nodes::None => (None, None),
            Nodes::One(one) => (Some(one), None),
            Nodes::Many(table) => (None, Some(table.in_order.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}
