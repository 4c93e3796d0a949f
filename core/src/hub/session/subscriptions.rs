//! What the nodes of one connection have subscribed to, or the connection itself: how that begins, is made up for and ends.
//!
//! Owns the connection's list, and how far it is with what was kept for it. Knows no protocol: how a message looks, and how a refusal is
//! answered, is the session's business.

use super::context::Context;
use crate::hub::budget;
use crate::hub::event::Event;
use crate::hub::link::Link;
use crate::hub::node::Held;
use crate::hub::topics::members::{FilterId, NOT_YET, Subscriber, ThreadMembers};
use crate::hub::topics::{CONNECTION_PART, Publication, SUBSCRIPTION_BYTES, Subscribed, TopicRefusal, subscription_bytes};
use crate::hub::{Node, NodeRef};
use crate::model::{ConnectedPeer, EventMask, Position, TopicChange};
use crate::wire::topic::{self, Filter};
use std::collections::VecDeque;
use std::sync::Arc;

/// Of what is kept so many bytes are read at a time: the topic's lock is held meanwhile.
const READ_BYTES: usize = 16 * 1024;

/// Who subscribes: a node, or a connection that has none.
#[derive(Copy, Clone)]
pub struct TopicSubscriber<'a> {
    pub link: &'a Link,
    pub node: Option<&'a Arc<Node>>,
    /// Whose connection a client of Firetower's has said it is.
    pub user: Option<&'a Arc<str>>,
}

impl<'a> TopicSubscriber<'a> {
    pub fn node(link: &'a Link, node: &'a Arc<Node>) -> Self {
        Self { link, node: Some(node), user: None }
    }

    pub fn connection(link: &'a Link, user: Option<&'a Arc<str>>) -> Self {
        Self { link, node: None, user }
    }

    pub fn subscriber(self) -> Subscriber {
        Subscriber { slot: self.link.slot(), node: self.node.map_or(NodeRef::NONE, |node| node.reference()) }
    }

    /// It has subscribed, or no longer: for whom that is of interest.
    pub fn note(self, cx: &Context<'_>, filter: &Arc<str>, has_subscribed: bool) {
        match self.node {
            Some(node) if has_subscribed => cx.hub.note_member(filter, node.id(), true),
            Some(node) => cx.hub.note_parted(filter, node.id(), node.reference()),
            None => {}
        }
        let kind = if has_subscribed { EventMask::SUBSCRIBE } else { EventMask::UNSUBSCRIBE };
        if cx.hub.wants(kind) {
            self.tell(cx, kind, filter, has_subscribed);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell(self, cx: &Context<'_>, kind: EventMask, filter: &Arc<str>, has_subscribed: bool) {
        let change = || {
            let who = ConnectedPeer { address: self.link.peer(), user: self.user.cloned() };
            Arc::new(TopicChange { connection_id: self.link.connection_id(), who, topic: filter.clone(), has_subscribed })
        };
        // The last that is told of a node is that it left.
        let gate = self.node.map(|node| node.gate());
        if gate.as_ref().is_some_and(|gate| !gate.is_open()) {
            return;
        }
        cx.hub.tell(kind, || Event::Topic { change: change(), node: self.node.map(Held::from), count: 1 });
    }
}

/// A session has one in a box once somebody has subscribed.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// In order. A subscription is a number here: its name stands once for the whole thread.
    list: Vec<(NodeRef, FilterId)>,
    /// What they take in memory, as if no other connection had subscribed to the same.
    bytes: usize,
    /// Those that are not live yet, one behind the other.
    replaying: VecDeque<Replay>,
}

#[derive(Debug)]
struct Replay {
    node: NodeRef,
    id: FilterId,
    behind: u64,
}

impl Subscriptions {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Something that was kept is still to be written: [`Subscriptions::replay`] is to be called before anything else is read.
    pub fn is_replaying(&self) -> bool {
        !self.replaying.is_empty()
    }

    /// Subscribes a node of this connection, or the connection itself. Whoever has subscribed to that already begins anew where it
    /// says `since`, and otherwise stays as it was.
    ///
    /// # Errors
    /// [`TopicRefusal`], and nothing has changed.
    pub fn subscribe(
        &mut self,
        cx: &mut Context<'_>,
        member: TopicSubscriber<'_>,
        filter: &str,
        since: Option<Position>,
    ) -> Result<Subscribed, TopicRefusal> {
        let subscriber = member.subscriber();
        cx.budget.spend(budget::SUBSCRIPTION);
        let filter = Filter::parse(filter)?;
        // Who is there is nobody's business unless the host says so.
        let is_open = || cx.hub.limits().presence_topics && topic::is_of_presence(filter.text());
        if topic::is_of_server(filter.text()) && !is_open() {
            return Err(TopicRefusal::OfServer);
        }
        let found = cx.seldom.members.find(filter);
        let known = found.filter(|id| self.list.binary_search(&(subscriber.node, *id)).is_ok());
        if known.is_some() && since.is_none() {
            return Ok(cx.hub.topics().position_of(filter));
        }
        let bytes = bytes_of(cx, subscriber.slot, found, filter);
        let has_room =
            || self.list.len() < cx.hub.limits().max_subscriptions && cx.hub.topics().has_share(self.bytes + bytes, CONNECTION_PART);
        if known.is_none() && !has_room() {
            return Err(TopicRefusal::TooManySubscriptions);
        }
        let subscribed = cx.hub.topics().subscribe(cx.seldom.thread, filter, since, cx.now)?;
        // Who begins anew at a position neither leaves nor joins.
        let is_new = known.is_none();
        if let Some(id) = known {
            // Not before: a topic that nobody wants and of which nothing is kept is another one in its next life.
            self.remove(cx, subscriber, id);
        }
        let bytes = if known.is_some() { bytes_of(cx, subscriber.slot, cx.seldom.members.find(filter), filter) } else { bytes };
        let since = if subscribed.replay_behind.is_some() { NOT_YET } else { subscribed.since };
        if let Some(id) = cx.seldom.members.insert(filter, subscriber, since) {
            self.add(subscriber.node, id, bytes);
            if is_new {
                note(cx, member, id);
            }
            if let Some(behind) = subscribed.replay_behind {
                self.replaying.push_back(Replay { node: subscriber.node, id, behind });
            }
        }
        Ok(subscribed)
    }

    fn add(&mut self, node: NodeRef, id: FilterId, bytes: usize) {
        self.bytes += bytes;
        if self.list.len() == self.list.capacity() {
            self.list.reserve_exact(self.list.len() / 4 + 1);
        }
        let place = self.list.binary_search(&(node, id)).unwrap_or_else(|place| place);
        self.list.insert(place, (node, id));
    }

    /// Enters a subscription that another thread has made with the hub; one of which there was one already is undone there.
    pub fn join(&mut self, cx: &mut Context<'_>, member: TopicSubscriber<'_>, filter: &str, since: u64) {
        cx.budget.spend(budget::SUBSCRIPTION);
        let (filter, subscriber) = (Filter::known(filter), member.subscriber());
        let bytes = bytes_of(cx, subscriber.slot, cx.seldom.members.find(filter), filter);
        match cx.seldom.members.insert(filter, subscriber, since) {
            Some(id) => {
                self.add(subscriber.node, id, bytes);
                note(cx, member, id);
            }
            None => cx.hub.topics().unsubscribe(cx.seldom.thread, filter, cx.now),
        }
    }

    /// False when it had not subscribed to that.
    pub fn unsubscribe(&mut self, cx: &mut Context<'_>, member: TopicSubscriber<'_>, filter: &str) -> bool {
        cx.budget.spend(budget::SUBSCRIPTION);
        let found = Filter::parse(filter).ok().and_then(|filter| cx.seldom.members.find(filter));
        let Some(filter) = found.and_then(|id| self.remove(cx, member.subscriber(), id)) else { return false };
        member.note(cx, &filter, false);
        true
    }

    /// What it was; `None`: it had not subscribed to that.
    fn remove(&mut self, cx: &mut Context<'_>, subscriber: Subscriber, id: FilterId) -> Option<Arc<str>> {
        let place = self.list.binary_search(&(subscriber.node, id)).ok()?;
        self.list.remove(place);
        if self.list.capacity() > 4 * (self.list.len() + 1) {
            self.list.shrink_to(2 * self.list.len());
        }
        self.forget(cx, subscriber, id)
    }

    fn forget(&mut self, cx: &mut Context<'_>, subscriber: Subscriber, id: FilterId) -> Option<Arc<str>> {
        self.replaying.retain(|replay| (replay.node, replay.id) != (subscriber.node, id));
        let filter = cx.seldom.members.remove(id, subscriber)?;
        let known = Filter::known(&filter);
        self.bytes -= bytes_of(cx, subscriber.slot, Some(id), known);
        cx.hub.topics().unsubscribe(cx.seldom.thread, known, cx.now);
        Some(filter)
    }

    pub fn has(&self, members: &ThreadMembers, node: NodeRef, filter: &str) -> bool {
        members.find(Filter::known(filter)).is_some_and(|id| self.list.binary_search(&(node, id)).is_ok())
    }

    /// A node leaves, and its subscriptions with it: the host is told of that alone.
    pub fn leave(&mut self, cx: &mut Context<'_>, slot: u32, node: &Node) {
        let (who, node) = (node.id(), node.reference());
        let begin = self.list.partition_point(|(found, _)| *found < node);
        let end = self.list.partition_point(|(found, _)| *found <= node);
        let left: Vec<_> = self.list.drain(begin..end).collect();
        cx.budget.spend(budget::SUBSCRIPTION * left.len() as u64);
        for (node, id) in left {
            if let Some(filter) = self.forget(cx, Subscriber { slot, node }, id) {
                cx.hub.note_parted(&filter, who, node);
            }
        }
    }

    /// What a node has subscribed to, as text.
    pub fn of_node(&self, members: &ThreadMembers, node: NodeRef) -> Vec<String> {
        let begin = self.list.partition_point(|(found, _)| *found < node);
        let own = self.list[begin..].iter().take_while(|(found, _)| *found == node);
        own.filter_map(|(_, id)| members.filter(*id)).map(ToString::to_string).collect()
    }

    /// Goes on with what was kept, as far as the turn allows: `write` gets each publication, and an answer to the subscription instead where
    /// something is missing before the next one. False while it is not done.
    pub fn replay(&mut self, cx: &mut Context<'_>, slot: u32, mut write: impl FnMut(&mut Context<'_>, NodeRef, Replayed<'_>)) -> bool {
        while let Some(replay) = self.replaying.front_mut() {
            let Some(filter) = cx.seldom.members.filter(replay.id).cloned() else {
                self.replaying.pop_front();
                continue;
            };
            if cx.budget.is_used_up() {
                return false;
            }
            let read = cx.hub.topics().read_kept(&filter, replay.behind, READ_BYTES);
            if read.has_gap {
                write(cx, replay.node, Replayed::Gap(&filter));
            }
            for publication in &read.publications {
                cx.budget.spend(budget::DELIVERY + budget::BYTE * publication.payload.len() as u64);
                write(cx, replay.node, Replayed::Publication(publication));
                replay.behind = publication.position.map_or(replay.behind, |position| position.offset);
            }
            if let Some(since) = read.since {
                let member = Subscriber { slot, node: replay.node };
                cx.seldom.members.go_live(replay.id, member, since);
                self.replaying.pop_front();
            }
        }
        true
    }
}

fn note(cx: &Context<'_>, member: TopicSubscriber<'_>, id: FilterId) {
    if let Some(filter) = cx.seldom.members.filter(id) {
        member.note(cx, filter, true);
    }
}

/// What one subscription more of a connection takes: where the connection has subscribed to the same already, its place alone.
fn bytes_of(cx: &Context<'_>, slot: u32, found: Option<FilterId>, filter: Filter<'_>) -> usize {
    if found.is_some_and(|id| cx.seldom.members.has_connection(id, slot)) { SUBSCRIPTION_BYTES } else { subscription_bytes(filter) }
}

/// What a subscriber is told of what was kept for it.
pub enum Replayed<'a> {
    Publication(&'a Publication),
    /// What came before the next publication of this topic is not kept any more.
    Gap(&'a str),
}
