//! SUBSCRIBE, UNSUBSCRIBE and PUBLISH of a connection's nodes, and how a publication looks for them.
//!
//! Owns the answers. A subscription is a node's, and ends with its registration.

use super::kept::{Asking, Pending, PendingPublication, PublisherNode, Subscription};
use super::{BusSession, own};
use crate::hub::budget;
use crate::hub::frame::QueuedFrame;
use crate::hub::link::Link;
use crate::hub::nodes::Registered;
use crate::hub::session::context::{Context, Next};
use crate::hub::session::subscriptions::{Replayed, Subscriptions, TopicSubscriber};
use crate::hub::topic_fan_out::{TopicFanOut, payload};
use crate::hub::topics::members::ThreadMembers;
use crate::hub::topics::{Origin, Published, TopicRefusal};
use crate::hub::{Node, NodeRef};
use crate::model::{Asked, Decision, EventMask, Position};
use crate::wire::topic::{Filter, MAX_LEN, check_name};
use crate::wire::topic_frames::{self, Publish, PublishReply, Subscribe, SubscribeReply, Unsubscribe};
use crate::wire::{Dialect, Frame, FrameType, Framing, code};
use bytes::Bytes;
use std::sync::Arc;

impl BusSession {
    #[inline(never)]
    pub(super) fn subscribe(&mut self, cx: &mut Context<'_>, frame: &Frame<'_>) -> Next {
        if cx.hub.asks(EventMask::SUBSCRIBE) && self.is_host_crowded(cx) {
            return Next::Wait;
        }
        let dialect = cx.replies.dialect();
        let bytes = frame.payload.bytes();
        let Ok(Subscribe { filter, since }) = Subscribe::decode(dialect, &bytes) else {
            cx.counters.subscribes.up();
            cx.counters.subscribes_refused.up();
            return unreadable(cx, frame);
        };
        let member = self.subscriber(frame.channel_id);
        if cx.hub.asks(EventMask::SUBSCRIBE_BEFORE)
            && Filter::parse(&filter).is_ok()
            && let Some(node) = member.and_then(|member| self.nodes.get(member)).map(|registered| registered.node.clone())
        {
            let asked = Asked::Subscription { filters: vec![(&*filter).into()], user: None };
            let subscription = Subscription { node: node.reference(), channel_id: channel(frame), filter: filter.into_owned(), since };
            let refused = subscription.filter.clone();
            match self.ask(cx, Pending::Subscription(subscription), asked, Some(&node)) {
                Asking::NoRoom => return Next::Wait,
                Asking::Asked => {
                    cx.counters.subscribes.up();
                    return Next::Wait;
                }
                Asking::TooMany => {
                    cx.counters.subscribes.up();
                    cx.counters.subscribes_refused.up();
                    refuse(cx, channel(frame), TopicRefusal::TooManyDecisions, &refused, None);
                    return Next::Continue;
                }
            }
        }
        cx.counters.subscribes.up();
        self.subscribe_to(cx, member, channel(frame), &filter, since);
        self.replay_what_is_kept(cx)
    }

    /// The host is told who subscribes, and has no room for that.
    #[cold]
    #[inline(never)]
    fn is_host_crowded(&self, cx: &Context<'_>) -> bool {
        let is_crowded = cx.hub.is_crowded(EventMask::SUBSCRIBE, Some(self.link.clone()));
        if is_crowded {
            cx.counters.reads_paused_by_host.up();
        }
        is_crowded
    }

    /// Of several topics and filters those that are not the one that was asked for are the host's own, and are not answered: as if it had
    /// put the node into them.
    pub(super) fn settle_subscription(&mut self, cx: &mut Context<'_>, subscription: &Subscription, decision: Option<Decision>) -> Next {
        let Subscription { node, channel_id, filter, since } = subscription;
        let allowed = match decision {
            Some(Decision::Allow) => vec![filter.clone()],
            Some(Decision::AllowTopics(filters)) => filters,
            _ => Vec::new(),
        };
        if !allowed.contains(filter) {
            cx.counters.subscribes_refused.up();
            refuse(cx, *channel_id, TopicRefusal::Refused, filter, None);
        }
        for allowed in &allowed {
            if allowed == filter {
                self.subscribe_to(cx, Some(*node), *channel_id, filter, *since);
            } else if let Some(registered) = self.nodes.get(*node) {
                let member = TopicSubscriber::node(&self.link, &registered.node);
                if self.rare.get_or_insert_default().subscriptions.subscribe(cx, member, allowed, None).is_err() {
                    cx.counters.subscribes_refused.up();
                }
            }
        }
        self.replay_what_is_kept(cx)
    }

    fn replay_what_is_kept(&mut self, cx: &mut Context<'_>) -> Next {
        if self.link.is_news(cx.replies.dialect()) {
            // What is kept follows at once, and may be what only v2 carries.
            self.change_link(cx.counters, Link::heard_v2);
        }
        self.replay(cx)
    }

    /// Subscribes a node, which may have left meanwhile, and answers.
    fn subscribe_to(&mut self, cx: &mut Context<'_>, node: Option<NodeRef>, channel_id: u32, filter: &str, since: Option<Position>) {
        let result = match node.and_then(|node| self.nodes.get(node)) {
            Some(registered) => {
                let member = TopicSubscriber::node(&self.link, &registered.node);
                self.rare.get_or_insert_default().subscriptions.subscribe(cx, member, filter, since)
            }
            None => Err(TopicRefusal::NoSuchNode),
        };
        match result {
            Ok(subscribed) => {
                let mut answer = Vec::new();
                SubscribeReply { filter: filter.into(), position: subscribed.position, recovered: subscribed.recovered }
                    .encode(cx.replies.dialect(), &mut answer);
                cx.replies.of_topic(FrameType::SUBSCRIBE, channel_id, &answer);
            }
            Err(refusal) => {
                cx.counters.subscribes_refused.up();
                refuse(cx, channel_id, refusal, filter, None);
                self.drop_unused();
            }
        }
    }

    #[inline(never)]
    pub(super) fn unsubscribe(&mut self, cx: &mut Context<'_>, frame: &Frame<'_>) -> Next {
        cx.counters.unsubscribes.up();
        let dialect = cx.replies.dialect();
        let bytes = frame.payload.bytes();
        let Ok(Unsubscribe { filter }) = Unsubscribe::decode(dialect, &bytes) else { return unreadable(cx, frame) };
        let Some(node) = self.subscriber(frame.channel_id) else {
            refuse(cx, channel(frame), TopicRefusal::NoSuchNode, &filter, None);
            return Next::Continue;
        };
        self.end_subscription(cx, node, &filter);
        self.drop_unused();
        let mut answer = Vec::new();
        Unsubscribe { filter }.encode(dialect, &mut answer);
        cx.replies.of_topic(FrameType::UNSUBSCRIBE, channel(frame), &answer);
        Next::Continue
    }

    #[inline(never)]
    pub(super) fn publish(&mut self, cx: &mut Context<'_>, frame: &Frame<'_>) -> Next {
        let dialect = cx.replies.dialect();
        let bytes = frame.payload.bytes();
        let Ok(Publish { topic, id, data }) = Publish::decode(dialect, &bytes) else {
            cx.counters.publishes.up();
            return unreadable(cx, frame);
        };
        if cx.hub.is_host_full(&topic, data.len(), || self.link.clone()) {
            cx.counters.reads_paused_by_host.up();
            return Next::Wait;
        }
        let publisher = self.subscriber(frame.channel_id).and_then(|node| self.nodes.get(node));
        if cx.hub.asks(EventMask::PUBLISH_BEFORE)
            && check_name(&topic).is_ok()
            && let Some(Registered { node, .. }) = publisher
        {
            let node = node.clone();
            let publisher = PublisherNode { node: node.reference(), channel_id: channel(frame), id };
            return self.ask_before_publishing(cx, &node, publisher, &topic, &data);
        }
        cx.counters.publishes.up();
        let result = match publisher {
            Some(Registered { node, .. }) => publish_for(cx, node, &topic, Bytes::copy_from_slice(&data)),
            None => Err(TopicRefusal::NoSuchNode),
        };
        answer_publication(cx, channel(frame), result, &topic, id);
        Next::Continue
    }

    #[cold]
    fn ask_before_publishing(
        &mut self,
        cx: &mut Context<'_>,
        node: &Arc<Node>,
        publisher: PublisherNode,
        topic: &str,
        data: &[u8],
    ) -> Next {
        let (topic, payload): (Arc<str>, _) = (topic.into(), Bytes::copy_from_slice(data));
        let asked = Asked::Publication { topic: topic.clone(), payload: payload.clone(), user: None };
        let (channel_id, id) = (publisher.channel_id, publisher.id);
        let pending = PendingPublication { of_node: Some(publisher), topic: topic.clone(), payload };
        match self.ask(cx, Pending::Publication(pending), asked, Some(node)) {
            Asking::NoRoom => return Next::Wait,
            Asking::Asked => {
                cx.counters.publishes.up();
                return Next::Wait;
            }
            Asking::TooMany => {}
        }
        cx.counters.publishes.up();
        cx.counters.publish_refused.up();
        refuse(cx, channel_id, TopicRefusal::TooManyDecisions, &topic, id);
        Next::Continue
    }

    /// Who is answered is answered under the topic that it has named.
    pub(super) fn settle_publication(&mut self, cx: &mut Context<'_>, publication: PendingPublication, decision: Option<Decision>) {
        let PendingPublication { of_node, topic: asked_for, payload } = publication;
        let (topic, payload) = match decision {
            Some(Decision::Allow) => (asked_for.clone(), payload),
            Some(Decision::AllowPublication { topic, payload }) => (topic.into(), payload),
            _ => {
                cx.counters.publish_refused.up();
                if let Some(PublisherNode { channel_id, id, .. }) = of_node {
                    refuse(cx, channel_id, TopicRefusal::Refused, &asked_for, id);
                }
                return;
            }
        };
        let Some(PublisherNode { node, channel_id, id }) = of_node else {
            // Who is not heard is not told so.
            cx.budget.spend(budget::LEVEL * cx.hub.topics().levels_looked_at(&topic));
            let _ = cx.hub.publish(&topic, payload, &[], cx.counters, cx.now);
            return;
        };
        // It may have left meanwhile.
        let result = match self.nodes.get(node) {
            Some(Registered { node, .. }) => publish_for(cx, node, &topic, payload),
            None => Err(TopicRefusal::NoSuchNode),
        };
        answer_publication(cx, channel_id, result, &asked_for, id);
    }

    /// Goes on with what was kept for its nodes.
    pub(super) fn replay(&mut self, cx: &mut Context<'_>) -> Next {
        let Self { link, nodes, rare, .. } = self;
        let Some(rare) = rare.as_mut().filter(|rare| rare.subscriptions.is_replaying()) else { return Next::Continue };
        // What nobody asked for at this moment is in the dialect that is pushed.
        let dialect = link.dialect();
        cx.replies.speak(dialect);
        let is_done = rare.subscriptions.replay(cx, link.slot(), |cx, node, replayed| {
            let Some(Registered { node, .. }) = nodes.get(node) else { return };
            match replayed {
                Replayed::Publication(publication) => {
                    if let Ok(payload) = payload(dialect, publication) {
                        cx.replies.of_topic(FrameType::MESSAGE, node.channel_id(), &payload);
                        cx.counters.topic_messages_out.up();
                    }
                }
                Replayed::Gap(filter) => {
                    let mut answer = Vec::new();
                    SubscribeReply { filter: filter.into(), position: None, recovered: false }.encode(dialect, &mut answer);
                    cx.replies.of_topic(FrameType::SUBSCRIBE, node.channel_id(), &answer);
                }
            }
        });
        if is_done { Next::Continue } else { Next::Again }
    }

    pub(in crate::hub::session) fn is_replaying(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.subscriptions.is_replaying())
    }

    /// Another thread has put a node into a topic; false when the node is not here any more.
    pub(in crate::hub::session) fn join(&mut self, cx: &mut Context<'_>, node: NodeRef, filter: &str, since: u64) -> bool {
        let Some(registered) = self.nodes.get(node) else { return false };
        let member = TopicSubscriber::node(&self.link, &registered.node);
        self.rare.get_or_insert_default().subscriptions.join(cx, member, filter, since);
        true
    }

    /// Another thread takes a node out of a topic.
    pub(in crate::hub::session) fn part(&mut self, cx: &mut Context<'_>, node: NodeRef, filter: &str) {
        self.end_subscription(cx, node, filter);
        self.drop_unused();
    }

    /// Whether a node is still in a topic that an older connection of its left.
    pub(in crate::hub::session) fn is_in(&self, members: &ThreadMembers, node: NodeRef, topic: &str) -> bool {
        self.nodes.get(node).is_some() && self.subscriptions().is_some_and(|subscriptions| subscriptions.has(members, node, topic))
    }

    fn end_subscription(&mut self, cx: &mut Context<'_>, node: NodeRef, filter: &str) {
        if let (Some(rare), Some(registered)) = (&mut self.rare, self.nodes.get(node)) {
            rare.subscriptions.unsubscribe(cx, TopicSubscriber::node(&self.link, &registered.node), filter);
        }
    }

    pub(in crate::hub::session) fn topics_of(&self, members: &ThreadMembers, node: NodeRef) -> Vec<String> {
        self.subscriptions().map_or_else(Vec::new, |subscriptions| subscriptions.of_node(members, node))
    }

    /// A publication for one of its nodes; `None`: the node is not here any more, or its dialect cannot carry it.
    pub(in crate::hub::session) fn message(&self, fan_out: &TopicFanOut, node: NodeRef) -> Option<QueuedFrame> {
        let Registered { node, .. } = self.nodes.get(node)?;
        let (dialect, framing) = (self.link.dialect(), self.link.framing());
        if framing == Framing::Json {
            return fan_out.json_frame(node.channel_id());
        }
        let frame = fan_out.frame(dialect, node.channel_id()).map(|frame| frame.within(framing));
        // Whoever has agreed on v2 and not spoken it gets what v1 cannot carry once it does.
        let is_held = || dialect == Dialect::V1 && self.link.will_speak_v2();
        frame.or_else(|| is_held().then(|| fan_out.frame(Dialect::V2, node.channel_id())).flatten())
    }

    pub(super) fn subscriptions(&self) -> Option<&Subscriptions> {
        self.rare.as_ref().map(|rare| &rare.subscriptions)
    }

    /// The node that a frame speaks for.
    fn subscriber(&self, channel_id: i64) -> Option<NodeRef> {
        let node = if channel_id == 0 { self.nodes.first()? } else { self.nodes.get(own(channel_id)?)? };
        Some(node.reference())
    }
}

fn channel(frame: &Frame<'_>) -> u32 {
    u32::try_from(frame.channel_id).unwrap_or(0)
}

fn publish_for(cx: &mut Context<'_>, node: &Node, topic: &str, payload: Bytes) -> Result<Published, TopicRefusal> {
    cx.budget.spend(budget::LEVEL * cx.hub.topics().levels_looked_at(topic));
    cx.hub.publish_from(Origin::Node(node.id().clone()), topic, payload, &[], cx.counters, cx.now)
}

fn answer_publication(cx: &mut Context<'_>, channel_id: u32, result: Result<Published, TopicRefusal>, topic: &str, id: Option<u32>) {
    match (result, id) {
        (Ok(published), Some(id)) => {
            let mut answer = Vec::new();
            let reply = PublishReply { id, position: published.position, reach: published.reach as u64 };
            reply.encode(cx.replies.dialect(), &mut answer);
            cx.replies.of_topic(FrameType::PUBLISH, channel_id, &answer);
        }
        (Ok(_), None) => {}
        (Err(refusal), id) => refuse(cx, channel_id, refusal, topic, id),
    }
}

fn refuse(cx: &mut Context<'_>, channel_id: u32, refusal: TopicRefusal, topic: &str, id: Option<u32>) {
    let topic = if topic.len() <= MAX_LEN { topic } else { "" };
    answer_error(cx, channel_id, &refusal.to_string(), refusal.code(), topic, id);
}

#[cold]
fn unreadable(cx: &mut Context<'_>, frame: &Frame<'_>) -> Next {
    cx.counters.invalid_payloads.up();
    answer_error(cx, channel(frame), &topic_frames::BadTopicFrame.to_string(), code::INVALID_REQUEST, "", None);
    Next::Continue
}

/// That it is about a topic is seen by its having one, if an empty one.
#[cold]
fn answer_error(cx: &mut Context<'_>, channel_id: u32, text: &str, code: u16, topic: &str, id: Option<u32>) {
    let payload = topic_frames::error_payload(text, code, Some(topic), id);
    cx.replies.of_topic(FrameType::ERROR, channel_id, &payload);
}
