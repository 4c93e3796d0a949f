//! All nodes that are online, by id and by channel. Between the event of its leaving and its removal a node is in the tables
//! still, but is shown to nobody.
//!
//! Owns the tables that every thread uses. A node may have many channels. The keys of ids and main channels stand in the nodes themselves,
//! so such an entry is one pointer; a table by itself holds what channels a node has beside. Each table is cut into shards with a
//! lock of their own. The nodes have an order, that of the hashes of their ids, in which they can be
//! walked page by page while others come and go. Does not know what coming and going means.

use super::Node;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A page looks through whole shards, so there are enough of them for a million nodes.
const SHARD_BITS: u32 = 10;

type Shard = HashTable<Arc<Node>>;

#[derive(Default)]
pub(super) struct Directory {
    random: RandomState,
    by_id: Table,
    by_channel: Table,
    /// Channels beside the main ones.
    further: RwLock<HashMap<u32, Arc<Node>>>,
    /// All of them, and how many of them are further ones: while there is none, nobody looks.
    channels: AtomicUsize,
    further_channels: AtomicUsize,
}

struct Table(Box<[RwLock<Shard>]>);

impl Directory {
    pub(super) fn get(&self, id: &str) -> Option<Arc<Node>> {
        let hash = self.random.hash_one(id);
        self.by_id.read(hash).find(hash, |node| **node.id() == *id).filter(|node| node.is_online()).cloned()
    }

    pub(super) fn of_channel(&self, channel_id: u32) -> Option<Arc<Node>> {
        let hash = hash_of_channel(channel_id);
        let main = self.by_channel.read(hash).find(hash, |node| node.channel_id() == channel_id).cloned();
        main.or_else(|| self.of_further_channel(channel_id)).filter(|node| node.is_online())
    }

    fn of_further_channel(&self, channel_id: u32) -> Option<Arc<Node>> {
        if self.further_channels.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.further.read().unwrap_or_else(PoisonError::into_inner).get(&channel_id).cloned()
    }

    pub(super) fn channel_count(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    /// Enters a node, in the place of the one that has its id, if `admit` agrees, which is given that one. Until it has
    /// returned nobody sees the one or the other.
    pub(super) fn insert(&self, node: &Arc<Node>, admit: impl FnOnce(Option<&Arc<Node>>) -> bool) -> bool {
        let hash = self.hash(node);
        let mut shard = self.by_id.write(hash);
        match shard.entry(hash, |other| other.id() == node.id(), |other| self.hash(other)) {
            Entry::Occupied(mut entry) => {
                let admitted = admit(Some(entry.get()));
                if admitted {
                    *entry.get_mut() = node.clone();
                }
                admitted
            }
            Entry::Vacant(entry) => {
                let admitted = admit(None);
                if admitted {
                    entry.insert(node.clone());
                }
                admitted
            }
        }
    }

    /// Removes this very node; another one with its id stays.
    pub(super) fn remove(&self, node: &Arc<Node>) {
        let hash = self.hash(node);
        if let Ok(entry) = self.by_id.write(hash).find_entry(hash, |other| Arc::ptr_eq(other, node)) {
            entry.remove();
        }
    }

    /// Enters a node under this channel id, unless the id is taken: its main one, or one beside it.
    pub(super) fn claim_channel(&self, channel_id: u32, node: impl FnOnce() -> Arc<Node>) -> Option<Arc<Node>> {
        let hash = hash_of_channel(channel_id);
        // Locked until the node is in one table or the other: of two that want an id one gets it.
        let mut shard = self.by_channel.write(hash);
        let same = |node: &Arc<Node>| node.channel_id() == channel_id;
        let Entry::Vacant(entry) = shard.entry(hash, same, |node| hash_of_channel(node.channel_id())) else {
            return None;
        };
        if self.of_further_channel(channel_id).is_some() {
            return None;
        }
        let node = node();
        if node.channel_id() == channel_id {
            entry.insert(node.clone());
        } else {
            self.further.write().unwrap_or_else(PoisonError::into_inner).insert(channel_id, node.clone());
            self.further_channels.fetch_add(1, Ordering::AcqRel);
        }
        self.channels.fetch_add(1, Ordering::Relaxed);
        Some(node)
    }

    /// Gives a channel id back. Another node's stays.
    pub(super) fn release_channel(&self, channel_id: u32, node: &Arc<Node>) {
        if channel_id == node.channel_id() {
            let hash = hash_of_channel(channel_id);
            let mut shard = self.by_channel.write(hash);
            let Ok(entry) = shard.find_entry(hash, |other| Arc::ptr_eq(other, node)) else { return };
            entry.remove();
        } else {
            let mut further = self.further.write().unwrap_or_else(PoisonError::into_inner);
            if further.get(&channel_id).is_none_or(|other| !Arc::ptr_eq(other, node)) {
                return;
            }
            further.remove(&channel_id);
            self.further_channels.fetch_sub(1, Ordering::AcqRel);
        }
        self.channels.fetch_sub(1, Ordering::Relaxed);
    }

    /// Shows the nodes one by one, in no particular order, until `visit` has seen enough. It must not come back here.
    pub(super) fn each(&self, mut visit: impl FnMut(&Arc<Node>) -> ControlFlow<()>) {
        for shard in 0..self.by_id.0.len() {
            let nodes = self.by_id.read_at(shard);
            // `visit` may lock.
            fetch_ahead(&nodes, |node| node.link().queued());
            if nodes.iter().filter(|node| node.is_online()).try_for_each(&mut visit).is_break() {
                return;
            }
        }
    }

    /// The next nodes in the order of the directory behind `after`, and where the page after them goes on. See
    /// [`super::Hub::page`].
    pub(super) fn page(&self, after: Option<u64>, limit: usize) -> (Vec<Arc<Node>>, Option<u64>) {
        let limit = limit.max(1);
        let mut nodes = Vec::new();
        let Some(from) = after.map_or(Some(0), |after| after.checked_add(1)) else {
            return (nodes, None);
        };
        for index in shard_of(from)..self.by_id.0.len() {
            let shard = self.by_id.read_at(index);
            fetch_ahead(&shard, |node| node.id().as_bytes().first().copied().unwrap_or_default().into());
            let online = shard.iter().filter(|node| node.is_online());
            let ahead = online.map(|node| (place(self.hash(node)), node)).filter(|(place, _)| *place >= from);
            let mut ahead: Vec<(u64, &Arc<Node>)> = ahead.collect();
            let room = limit - nodes.len();
            let mut end = None;
            if ahead.len() >= room {
                let (_, &mut (last, _), _) = ahead.select_nth_unstable_by_key(room - 1, |(place, _)| *place);
                // Of nodes in the same place, which is as good as impossible, all come on this page or none.
                ahead.retain(|(place, _)| *place <= last);
                end = Some(last);
            }
            ahead.sort_unstable_by_key(|(place, _)| *place);
            nodes.extend(ahead.into_iter().map(|(_, node)| node.clone()));
            if end.is_some() {
                return (nodes, end);
            }
        }
        (nodes, None)
    }

    /// What `after` is for the page behind this node.
    pub(super) fn place_of(&self, node: &Node) -> u64 {
        place(self.hash(node))
    }

    fn hash(&self, node: &Node) -> u64 {
        self.random.hash_one(&**node.id())
    }
}

impl Table {
    fn read(&self, hash: u64) -> RwLockReadGuard<'_, Shard> {
        self.read_at(shard_of(place(hash)))
    }

    fn read_at(&self, index: usize) -> RwLockReadGuard<'_, Shard> {
        self.0[index].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Shard> {
        self.0[shard_of(place(hash))].write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Table {
    fn default() -> Self {
        Self((0..1 << SHARD_BITS).map(|_| RwLock::default()).collect())
    }
}

/// Of many nodes few are in the processor's cache. Looked at one behind the other, with nothing locked or hashed in between, they
/// are fetched side by side.
fn fetch_ahead(shard: &Shard, look: impl Fn(&Node) -> usize) {
    black_box(shard.iter().fold(0, |sum, node| sum ^ look(node)));
}

/// Where a hash stands in the order. Its seven highest bits go to the end: within a shard the table tells entries apart by
/// them, so they must differ there.
fn place(hash: u64) -> u64 {
    hash.rotate_left(7)
}

fn shard_of(place: u64) -> usize {
    (place >> (u64::BITS - SHARD_BITS)) as usize
}

/// Ids are given out in sequence, so spreading them is enough.
fn hash_of_channel(channel_id: u32) -> u64 {
    u64::from(channel_id).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::super::link::{Command, CommandSink, Link};
    use super::super::memory::Memory;
    use super::super::now::Now;
    use super::*;
    use crate::model::Departure;

    struct Nobody;

    impl CommandSink for Nobody {
        fn post(&self, _command: Command) {}
    }

    fn node(id: &str, channel_id: u32) -> Arc<Node> {
        let link = Arc::new(Link::new(1, ([127, 0, 0, 1], 1).into(), 0, Arc::new(Nobody)));
        Arc::new(Node::new(id.into(), link, channel_id, None, Now { mono: 1, unix: 1 }))
    }

    fn has(directory: &Directory, channel_id: u32) -> Option<String> {
        directory.of_channel(channel_id).map(|node| node.id().to_string())
    }

    #[test]
    fn a_node_has_as_many_channels_as_were_claimed_for_it_and_each_is_given_back_by_itself() {
        let directory = Directory::default();
        let (a, b) = (node("a", 1), node("b", 2));
        for (channel_id, node) in [(1, &a), (2, &b), (3, &a), (4, &a), (5, &b)] {
            assert!(directory.claim_channel(channel_id, || node.clone()).is_some_and(|claimed| Arc::ptr_eq(&claimed, node)));
        }
        let all = |directory: &Directory| (1..=6).map(|id| has(directory, id).unwrap_or_default()).collect::<Vec<_>>().join(" ");
        assert_eq!((all(&directory), directory.channel_count()), ("a b a a b ".to_owned(), 5));
        // Not those of others, and not twice.
        for channel_id in [2, 3, 5, 6, 3] {
            directory.release_channel(channel_id, &a);
        }
        assert_eq!((all(&directory), directory.channel_count()), ("a b  a b ".to_owned(), 4));
        directory.release_channel(1, &a);
        assert_eq!((has(&directory, 1), has(&directory, 4), directory.channel_count()), (None, Some("a".to_owned()), 3));
    }

    #[test]
    fn a_channel_id_is_one_nodes_whether_as_its_main_channel_or_beside_it() {
        let directory = Directory::default();
        let (a, b) = (node("a", 1), node("b", 2));
        assert!(directory.claim_channel(1, || a.clone()).is_some() && directory.claim_channel(2, || a.clone()).is_some());
        assert!(directory.claim_channel(1, || b.clone()).is_none(), "a main channel");
        assert!(directory.claim_channel(2, || panic!("made for nothing")).is_none(), "one beside it");
        assert_eq!((has(&directory, 2), directory.channel_count()), (Some("a".to_owned()), 2));
        a.gate().close(Departure::Unregistered, &Memory::new(1 << 20));
        assert_eq!((has(&directory, 1), has(&directory, 2)), (None, None), "who has left is shown to nobody");
    }
}
