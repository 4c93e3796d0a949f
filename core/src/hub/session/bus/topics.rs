//! SUBSCRIBE, UNSUBSCRIBE and PUBLISH of a connection's nodes, and how a publication looks for them.
//!
//! Owns the answers. A subscription is a node's, and ends with its registration.

use super::{BusSession, own};
use crate::hub::NodeRef;
use crate::hub::frame::QueuedFrame;
use crate::hub::link::Link;
use crate::hub::nodes::Registered;
use crate::hub::session::context::{Context, Next};
use crate::hub::session::subscriptions::{Replayed, Subscriptions};
use crate::hub::topic_fan_out::{TopicFanOut, payload};
use crate::hub::topics::members::{Subscriber, ThreadMembers};
use crate::hub::topics::{Origin, TopicRefusal};
use crate::wire::topic::MAX_LEN;
use crate::wire::topic_frames::{self, Publish, PublishReply, Subscribe, SubscribeReply, Unsubscribe};
use crate::wire::{Dialect, Frame, FrameType, Framing, code};
use bytes::Bytes;

impl BusSession {
    #[inline(never)]
    pub(super) fn subscribe(&mut self, cx: &mut Context<'_>, frame: &Frame<'_>) -> Next {
        cx.counters.subscribes.up();
        let dialect = cx.replies.dialect();
        let bytes = frame.payload.bytes();
        let Ok(Subscribe { filter, since }) = Subscribe::decode(dialect, &bytes) else {
            cx.counters.subscribes_refused.up();
            return unreadable(cx, frame);
        };
        let result = match self.subscriber(frame.channel_id) {
            Some(member) => {
                let who = self.nodes.get(member.node).map(|registered| registered.node.id());
                self.rare.get_or_insert_default().subscriptions.subscribe(cx, member, who, &filter, since)
            }
            None => Err(TopicRefusal::NoSuchNode),
        };
        match result {
            Ok(subscribed) => {
                let mut answer = Vec::new();
                SubscribeReply { filter, position: subscribed.position, recovered: subscribed.recovered }.encode(dialect, &mut answer);
                cx.replies.of_topic(FrameType::SUBSCRIBE, channel(frame), &answer);
            }
            Err(refusal) => {
                cx.counters.subscribes_refused.up();
                refuse(cx, frame, refusal, &filter, None);
                self.drop_unused();
            }
        }
        if self.link.is_news(dialect) {
            // What is kept follows at once, and may be what only v2 carries.
            self.change_link(cx.counters, Link::heard_v2);
        }
        self.replay(cx)
    }

    #[inline(never)]
    pub(super) fn unsubscribe(&mut self, cx: &mut Context<'_>, frame: &Frame<'_>) -> Next {
        cx.counters.unsubscribes.up();
        let dialect = cx.replies.dialect();
        let bytes = frame.payload.bytes();
        let Ok(Unsubscribe { filter }) = Unsubscribe::decode(dialect, &bytes) else { return unreadable(cx, frame) };
        let Some(member) = self.subscriber(frame.channel_id) else {
            refuse(cx, frame, TopicRefusal::NoSuchNode, &filter, None);
            return Next::Continue;
        };
        if let Some(rare) = &mut self.rare {
            let who = self.nodes.get(member.node).map(|registered| registered.node.id());
            rare.subscriptions.unsubscribe(cx, member, who, &filter);
        }
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
        cx.counters.publishes.up();
        let publisher = self.subscriber(frame.channel_id).and_then(|subscriber| self.nodes.get(subscriber.node));
        let result = match publisher.map(|registered| Origin::Node(registered.node.id().clone())) {
            Some(origin) => cx.hub.publish_from(origin, &topic, Bytes::copy_from_slice(&data), &[], cx.counters, cx.now),
            None => Err(TopicRefusal::NoSuchNode),
        };
        match (result, id) {
            (Ok(published), Some(id)) => {
                let mut answer = Vec::new();
                PublishReply { id, position: published.position, reach: published.reach as u64 }.encode(dialect, &mut answer);
                cx.replies.of_topic(FrameType::PUBLISH, channel(frame), &answer);
            }
            (Ok(_), None) => {}
            (Err(refusal), id) => refuse(cx, frame, refusal, &topic, id),
        }
        Next::Continue
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
        let member = Subscriber { slot: self.link.slot(), node };
        self.rare.get_or_insert_default().subscriptions.join(cx, member, Some(registered.node.id()), filter, since);
        true
    }

    /// Another thread takes a node out of a topic.
    pub(in crate::hub::session) fn part(&mut self, cx: &mut Context<'_>, node: NodeRef, filter: &str) {
        let member = Subscriber { slot: self.link.slot(), node };
        if let Some(rare) = &mut self.rare {
            let who = self.nodes.get(node).map(|registered| registered.node.id());
            rare.subscriptions.unsubscribe(cx, member, who, filter);
        }
        self.drop_unused();
    }

    /// Whether a node is still in a topic that an older connection of its left.
    pub(in crate::hub::session) fn is_in(&self, members: &ThreadMembers, node: NodeRef, topic: &str) -> bool {
        self.nodes.get(node).is_some() && self.subscriptions().is_some_and(|subscriptions| subscriptions.has(members, node, topic))
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
    fn subscriber(&self, channel_id: i64) -> Option<Subscriber> {
        let node = if channel_id == 0 { self.nodes.first()? } else { self.nodes.get(own(channel_id)?)? };
        Some(Subscriber { slot: self.link.slot(), node: node.reference() })
    }
}

fn channel(frame: &Frame<'_>) -> u32 {
    u32::try_from(frame.channel_id).unwrap_or(0)
}

fn refuse(cx: &mut Context<'_>, frame: &Frame<'_>, refusal: TopicRefusal, topic: &str, id: Option<u32>) {
    let topic = if topic.len() <= MAX_LEN { topic } else { "" };
    answer_error(cx, frame, &refusal.to_string(), refusal.code(), topic, id);
}

#[cold]
fn unreadable(cx: &mut Context<'_>, frame: &Frame<'_>) -> Next {
    cx.counters.invalid_payloads.up();
    answer_error(cx, frame, &topic_frames::BadTopicFrame.to_string(), code::INVALID_REQUEST, "", None);
    Next::Continue
}

/// That it is about a topic is seen by its having one, if an empty one.
#[cold]
fn answer_error(cx: &mut Context<'_>, frame: &Frame<'_>, text: &str, code: u16, topic: &str, id: Option<u32>) {
    let payload = topic_frames::error_payload(text, code, Some(topic), id);
    cx.replies.of_topic(FrameType::ERROR, channel(frame), &payload);
}
