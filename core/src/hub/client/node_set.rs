//! The nodes of a client that carries more than one: which there are, which wait to be registered, which are.
//!
//! The client's first node is one of them here. Knows no frame and no socket; the machine sends and receives.
//!
//! A server answers the REGISTERs of a connection in their order, each with a reply or an ERROR. So a refusal, which names no
//! node, is the answer to the oldest REGISTER without one; and a reply shows that the REGISTERs before it were skipped, as a
//! server does beyond its rate limit: they are sent again. A refusal right behind a skipped one may so be taken for the
//! neighbour's; both are told of in the end, for the neighbour's REGISTER is sent again.

use super::pace::Pace;
use crate::hub::Now;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// So many names of nodes that are gone may wait beside those of others.
const MAX_GONE: usize = 256;

pub(super) struct Others {
    nodes: BTreeMap<Arc<str>, Other>,
    /// The registered ones, where the server names their channels.
    channels: BTreeMap<u32, Arc<str>>,
    /// In the order of their turns; also some that are gone meanwhile, told by their state or by being another `Arc`.
    waiting: VecDeque<Arc<str>>,
    /// Whose REGISTER has no answer yet, the oldest first; also nodes that were removed meanwhile.
    sent: VecDeque<Arc<str>>,
    pace: Pace,
}

struct Other {
    /// JSON text; None for `[]`, and for the first node, whose metadata is in the settings.
    metadata: Option<Box<str>>,
    state: MemberState,
    /// The channel of the node of the same id that was removed before the server had answered: not 0 while the server has that
    /// one, which this one takes over.
    inherits: u32,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum MemberState {
    /// Until the next connection.
    Away,
    Waiting,
    Sent,
    Registered(u32),
}

/// What the answer to a REGISTER means.
pub(super) enum RegisterOutcome {
    Registered(Arc<str>),
    /// The node was removed, or removed and added again, since.
    Outdated,
    /// The node was removed since, if it was ever asked for, and is to sign off.
    Unwanted {
        was_asked: bool,
    },
}

impl Others {
    /// Of a client whose first node is registered on this channel, or `is_asked` for.
    pub(super) fn new(first: &Arc<str>, channel_id: Option<u32>, is_connected: bool, is_asked: bool) -> Self {
        let mut others = Self {
            nodes: BTreeMap::new(),
            channels: BTreeMap::new(),
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            pace: Pace::default(),
        };
        let state = match channel_id {
            Some(channel_id) => MemberState::Registered(channel_id),
            None if is_asked => MemberState::Sent,
            None if is_connected => MemberState::Waiting,
            None => MemberState::Away,
        };
        others.nodes.insert(first.clone(), Other { metadata: None, state, inherits: 0 });
        match state {
            MemberState::Registered(channel_id) if channel_id != 0 => drop(others.channels.insert(channel_id, first.clone())),
            MemberState::Sent => others.sent.push_back(first.clone()),
            MemberState::Waiting => others.waiting.push_back(first.clone()),
            _ => {}
        }
        others
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn registered(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn has_channel(&self, channel_id: i64) -> bool {
        u32::try_from(channel_id).is_ok_and(|id| self.channels.contains_key(&id))
    }

    pub(super) fn id_of(&self, node_id: &str) -> Option<Arc<str>> {
        self.nodes.get_key_value(node_id).map(|(id, _)| id.clone())
    }

    /// `Some(None)`: there is such a node, but it is not registered at this moment.
    pub(super) fn channel_of(&self, node_id: &str) -> Option<Option<u32>> {
        self.nodes.get(node_id).map(|node| match node.state {
            MemberState::Registered(channel_id) => Some(channel_id),
            _ => None,
        })
    }

    /// False when there is one of this id, unless it is the first one, which was lost and would return with the next connection.
    pub(super) fn add(&mut self, node_id: &str, metadata: Option<Box<str>>, first: &Arc<str>, is_connected: bool) -> bool {
        let state = if is_connected { MemberState::Waiting } else { MemberState::Away };
        if self.nodes.get(node_id).is_some_and(|node| !is_connected || node.state != MemberState::Away) {
            return false;
        }
        let (id, metadata) = match *node_id == **first {
            // What it says now counts, and no longer the settings.
            true => (first.clone(), metadata.or_else(|| Some("[]".into()))),
            false => (Arc::from(node_id), metadata),
        };
        self.nodes.insert(id.clone(), Other { metadata, state, inherits: 0 });
        if is_connected {
            self.wait(id);
        }
        true
    }

    /// Says on which channel the node has to sign off: None when it is not registered, and `Err` when there is none.
    pub(super) fn remove(&mut self, node_id: &str) -> Result<Option<u32>, ()> {
        let node = self.nodes.remove(node_id).ok_or(())?;
        let channel_id = match node.state {
            MemberState::Registered(channel_id) => channel_id,
            _ => node.inherits,
        };
        self.channels.remove(&channel_id);
        Ok(Some(channel_id).filter(|id| *id != 0))
    }

    /// A new connection stands: nobody is registered on it. The first node's turn comes first.
    pub(super) fn start_over(&mut self, first: &Arc<str>) {
        self.channels.clear();
        self.waiting.clear();
        self.sent.clear();
        self.pace = Pace::default();
        self.waiting.extend(self.nodes.get_key_value(first).map(|(id, _)| id.clone()));
        self.waiting.extend(self.nodes.keys().filter(|id| *id != first).cloned());
        for node in self.nodes.values_mut() {
            (node.state, node.inherits) = (MemberState::Waiting, 0);
        }
    }

    /// The node to be registered now, with its metadata where it has its own. Only one at a time before `is_agreed`, when the
    /// dialect is not known yet.
    pub(super) fn next(&mut self, is_agreed: bool) -> Option<(Arc<str>, Option<&str>)> {
        if !self.pace.may_ask(self.sent.len()) || !(is_agreed || self.sent.is_empty()) {
            return None;
        }
        while let Some(id) = self.waiting.pop_front() {
            if self.is_in(&id, MemberState::Waiting) {
                self.sent.push_back(id.clone());
                let node = self.nodes.get_mut(&*id)?;
                node.state = MemberState::Sent;
                return Some((id, node.metadata.as_deref()));
            }
        }
        // An emptied queue would keep its memory.
        self.waiting = VecDeque::new();
        None
    }

    /// The server registered a node.
    pub(super) fn registered_on(&mut self, node_id: &str, channel_id: u32) -> RegisterOutcome {
        self.pace.answered();
        let place = self.sent.iter().position(|id| **id == *node_id);
        if let Some(place) = place {
            let skipped: Vec<_> = self.sent.drain(..place).collect();
            skipped.into_iter().for_each(|id| self.wait_again(id));
        }
        let asked = place.and_then(|_| self.sent.pop_front());
        let Some((id, node)) = self.nodes.get_key_value(node_id) else {
            return RegisterOutcome::Unwanted { was_asked: asked.is_some() };
        };
        let id = id.clone();
        let is_newest = match (asked, node.state) {
            (Some(asked), _) => Arc::ptr_eq(&asked, &id),
            // The answer to a REGISTER that was thought to be skipped has come after all.
            (None, MemberState::Registered(known)) => known != channel_id,
            (None, _) => false,
        };
        if is_newest {
            return self.set_registered(id, channel_id);
        }
        match self.nodes.get_mut(&*id) {
            Some(node) if !matches!(node.state, MemberState::Registered(_)) => node.inherits = channel_id,
            _ => {}
        }
        RegisterOutcome::Outdated
    }

    /// The server registered the node of the oldest REGISTER, under a name of its own.
    pub(super) fn registered_as(&mut self, first: &Arc<str>, channel_id: u32) -> Option<RegisterOutcome> {
        let is_asked = self.sent.front().is_some_and(|id| Arc::ptr_eq(id, first)) && self.is_in(first, MemberState::Sent);
        is_asked.then(|| {
            self.sent.pop_front();
            self.set_registered(first.clone(), channel_id)
        })
    }

    /// The server refused the oldest REGISTER. `Some(None)`: that of a node that was removed since.
    pub(super) fn refused(&mut self) -> Option<Option<Arc<str>>> {
        let id = self.sent.pop_front()?;
        Some(self.is_in(&id, MemberState::Sent).then_some(id))
    }

    /// The server skipped something that was too much for it.
    pub(super) fn rate_limited(&mut self) {
        if !self.sent.is_empty() {
            self.pace.rate_limited();
        }
    }

    /// Goes on after a pause: what has no answer by then was skipped.
    pub(super) fn tick(&mut self, now: Now) {
        if self.pace.tick(now) {
            let skipped = std::mem::take(&mut self.sent);
            skipped.into_iter().for_each(|id| self.wait_again(id));
        }
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        self.pace.deadline()
    }

    /// The node of a channel that the server took away.
    pub(super) fn node_of(&self, channel_id: i64) -> Option<Arc<str>> {
        self.channels.get(&u32::try_from(channel_id).ok()?).cloned()
    }

    pub(super) fn all_registered(&self) -> Vec<(u32, Arc<str>)> {
        self.channels.iter().map(|(channel_id, id)| (*channel_id, id.clone())).collect()
    }

    /// The server has taken a node away, or refused it; if it is to come back, then with the next connection. Says on which
    /// channel there is something left of it that has to sign off.
    pub(super) fn lose(&mut self, id: &Arc<str>, comes_back: bool) -> Option<u32> {
        let node = self.nodes.get_mut(&**id)?;
        if let MemberState::Registered(channel_id) = node.state {
            self.channels.remove(&channel_id);
        }
        node.state = MemberState::Away;
        let left = std::mem::take(&mut node.inherits);
        if !comes_back {
            self.nodes.remove(&**id);
        }
        Some(left).filter(|id| *id != 0)
    }

    fn is_in(&self, id: &Arc<str>, state: MemberState) -> bool {
        self.nodes.get_key_value(&**id).is_some_and(|(known, node)| Arc::ptr_eq(known, id) && node.state == state)
    }

    fn set_registered(&mut self, id: Arc<str>, channel_id: u32) -> RegisterOutcome {
        if let Some(node) = self.nodes.get_mut(&*id) {
            if let MemberState::Registered(older) = node.state {
                self.channels.remove(&older);
            }
            (node.state, node.inherits) = (MemberState::Registered(channel_id), 0);
        }
        if channel_id != 0 {
            self.channels.insert(channel_id, id.clone());
        }
        RegisterOutcome::Registered(id)
    }

    fn wait(&mut self, id: Arc<str>) {
        // Nodes that are added and removed in turn must not make it grow without end.
        if self.waiting.len() > 2 * self.nodes.len() + MAX_GONE {
            let mut waiting = std::mem::take(&mut self.waiting);
            waiting.retain(|id| self.is_in(id, MemberState::Waiting));
            self.waiting = waiting;
        }
        self.waiting.push_back(id);
    }

    fn wait_again(&mut self, id: Arc<str>) {
        if self.is_in(&id, MemberState::Sent) {
            if let Some(node) = self.nodes.get_mut(&*id) {
                node.state = MemberState::Waiting;
            }
            self.wait(id);
        }
    }
}
