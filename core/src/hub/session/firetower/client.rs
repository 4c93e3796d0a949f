//! A WebSocket client of Firetower's: what its JSON asks for, and what it is sent.
//!
//! Owns its subscriptions, which are the connection's, and what is still to be done of them. Nothing is answered: neither is an error told
//! nor that something was done (`wire::firetower::client` reads the JSON).

use crate::hub::NodeRef;
use crate::hub::budget;
use crate::hub::firetower::USER_PREFIX;
use crate::hub::link::Link;
use crate::hub::session::bus::BusSession;
use crate::hub::session::context::{Context, Next};
use crate::hub::session::subscriptions::{Subscriptions, TopicSubscriber};
use crate::hub::topics::FireOrder;
use crate::hub::topics::members::FilterId;
use crate::model::{CloseReason, EventMask};
use crate::wire::firetower::client::{ClientMessage, HEARTBEAT, parse, subscriber_count};
use crate::wire::topic::{self, Filter};
use crate::wire::websocket::{self, Opcode};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// What it takes to find a user's connections, beside the name and rounded up.
const USER_BYTES: usize = 192;

/// What a client asks for, and the host is to decide.
pub(in crate::hub::session) enum FiretowerWish {
    Subscribe(WishedTopics),
    Publish(String, Bytes),
}

pub(in crate::hub::session) struct WishedTopics {
    pub(in crate::hub::session) names: Vec<String>,
    /// How many were paid for beside the message itself,
    pub(in crate::hub::session) paid: usize,
    /// are no topics,
    pub(in crate::hub::session) bad: usize,
    /// and were more than may be.
    pub(in crate::hub::session) left_out: usize,
}

#[derive(Default)]
pub(in crate::hub::session) struct FiretowerClient {
    subscriptions: Subscriptions,
    /// Topics to subscribe to, or no longer, whose turn has not come.
    work: VecDeque<(bool, String)>,
    /// It is over, and what is left is told of each topic.
    is_ending: bool,
    /// Who sits there, where the client has said so, and how the thread finds that out.
    user: Option<(Arc<str>, FilterId)>,
}

impl FiretowerClient {
    /// Whose connection it is. Firetower's offline commands are about users.
    pub(in crate::hub::session) fn belongs_to(&mut self, cx: &mut Context<'_>, link: &Link, user: &str) {
        let topic = format!("{USER_PREFIX}{user}");
        let connection = TopicSubscriber::connection(link, None).subscriber();
        if let Some(id) = cx.seldom.members.insert(Filter::Exact(&topic), connection, 0) {
            self.user = Some((user.into(), id));
        }
    }

    /// Does what nobody here has asked for, as Firetower's gateways do: of these two who is taken out of a topic is told `{}`.
    pub(in crate::hub::session) fn obey(&mut self, cx: &mut Context<'_>, link: &Link, order: FireOrder, name: &str, user: &[u8]) -> Next {
        let is_meant = self.user.as_ref().is_some_and(|(own, _)| own.as_bytes() == user);
        match order {
            FireOrder::OfflineTopic => {
                let user = self.user.as_ref().map(|(user, _)| user);
                if self.subscriptions.unsubscribe(cx, TopicSubscriber::connection(link, user), name) {
                    cx.counters.firetower_orders.up();
                }
            }
            FireOrder::OfflineTopicByUser if is_meant => {
                if self.change(cx, link, false, name) {
                    cx.counters.firetower_orders.up();
                    write_text("{}", cx.replies.raw());
                }
            }
            FireOrder::OfflineUser if is_meant => {
                cx.counters.firetower_orders.up();
                return Next::Close(CloseReason::Kicked);
            }
            FireOrder::OfflineTopicByUser | FireOrder::OfflineUser => {}
        }
        Next::Continue
    }

    /// Something is to be done although nothing was read.
    pub(in crate::hub::session) fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    pub(in crate::hub::session) fn kept_bytes(&self) -> usize {
        let user = self.user.as_ref().map_or(0, |(user, _)| 2 * user.len() + USER_BYTES);
        user + self.work.iter().map(|(_, name)| size_of::<(bool, String)>() + name.capacity()).sum::<usize>()
    }

    /// A message, whether text or binary. [`Next::Wait`]: the host has no room for it, and it comes again.
    ///
    /// # Errors
    /// What it wants, where the host is to be asked before: nothing has happened then.
    pub(in crate::hub::session) fn receive(
        &mut self,
        cx: &mut Context<'_>,
        bus: &mut BusSession,
        message: &[u8],
    ) -> Result<Next, FiretowerWish> {
        let (subscribes, list) = match parse(message) {
            Ok(ClientMessage::Subscribe(_)) if cx.hub.is_crowded(EventMask::SUBSCRIBE, Some(bus.link().clone())) => {
                cx.counters.reads_paused_by_host.up();
                return Ok(Next::Wait);
            }
            Ok(ClientMessage::Subscribe(list)) => (true, list),
            Ok(ClientMessage::Unsubscribe(list)) => (false, list),
            Ok(ClientMessage::Other { topic, data, .. }) => {
                if let Some(data) = data.filter(|_| cx.hub.limits().firetower_conventions) {
                    if cx.hub.is_host_full(&topic, data.get().len(), || bus.link().clone()) {
                        cx.counters.reads_paused_by_host.up();
                        return Ok(Next::Wait);
                    }
                    if cx.hub.asks(EventMask::PUBLISH_BEFORE) && topic::check_name(&topic).is_ok() {
                        return Err(FiretowerWish::Publish(topic, Bytes::copy_from_slice(data.get().as_bytes())));
                    }
                    cx.counters.publishes.up();
                    // Who is not heard is not told so.
                    cx.budget.spend(budget::LEVEL * cx.hub.topics().levels_looked_at(&topic));
                    let _ = cx.hub.publish(&topic, Bytes::copy_from_slice(data.get().as_bytes()), &[], cx.counters, cx.now);
                }
                return Ok(Next::Continue);
            }
            Err(_) => {
                cx.counters.invalid_payloads.up();
                return Ok(Next::Continue);
            }
        };
        // More could not be held anyway.
        let most = cx.hub.limits().max_subscriptions;
        let mut names = list.split(',').enumerate().peekable();
        let mut taken = Vec::new();
        // To subscribe to each is as much work as a message of its own; the first was paid for with the message. Who wants less is let go.
        while let Some((_, name)) = names.next_if(|(number, _)| *number < most && (!subscribes || *number == 0 || bus.may_send_more(cx))) {
            taken.push(name.to_owned());
        }
        let left_out = names.count();
        if subscribes && cx.hub.asks(EventMask::SUBSCRIBE_BEFORE) {
            let (paid, all) = (taken.len().saturating_sub(1), taken.len());
            taken.retain(|name| topic::check_name(name).is_ok());
            return Err(FiretowerWish::Subscribe(WishedTopics { bad: all - taken.len(), names: taken, paid, left_out }));
        }
        cx.counters.subscribes_refused.add(left_out as u64);
        self.work.extend(taken.into_iter().map(|name| (subscribes, name)));
        Ok(self.go_on(cx, bus.link()))
    }

    /// The host has decided: these are to be subscribed to.
    pub(in crate::hub::session) fn subscribe(&mut self, names: Vec<String>) {
        self.work.extend(names.into_iter().map(|name| (true, name)));
    }

    /// Whose connection it is.
    pub(in crate::hub::session) fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref().map(|(user, _)| user)
    }

    /// Subscribes to what was asked for, as much as the turn allows: one topic at least.
    pub(in crate::hub::session) fn go_on(&mut self, cx: &mut Context<'_>, link: &Link) -> Next {
        while let Some((subscribes, name)) = self.work.pop_front() {
            self.change(cx, link, subscribes, &name);
            if cx.budget.is_used_up() && self.has_work() {
                return Next::Again;
            }
        }
        self.work = VecDeque::new();
        Next::Continue
    }

    /// True when there is one more now, or one less.
    fn change(&mut self, cx: &mut Context<'_>, link: &Link, subscribes: bool, name: &str) -> bool {
        let member = TopicSubscriber::connection(link, self.user.as_ref().map(|(user, _)| user));
        let before = self.subscriptions.len();
        if subscribes {
            cx.counters.subscribes.up();
            // A filter is none here: topics match as they are written.
            let is_name = topic::check_name(name).is_ok();
            if !is_name || self.subscriptions.subscribe(cx, member, name, None).is_err() {
                cx.counters.subscribes_refused.up();
            }
        } else {
            cx.counters.unsubscribes.up();
            self.subscriptions.unsubscribe(cx, member, name);
        }
        let has_changed = self.subscriptions.len() != before;
        if has_changed && cx.hub.limits().firetower_conventions {
            let text = subscriber_count(subscribes, cx.hub.topics().subscribers(name));
            cx.budget.spend(budget::LEVEL * cx.hub.topics().levels_looked_at(name));
            let _ = cx.hub.publish(name, text.into(), &[], cx.counters, cx.now);
        }
        has_changed
    }

    /// The connection is over, and its subscriptions end, as many as the turn allows.
    pub(in crate::hub::session) fn end(&mut self, cx: &mut Context<'_>, link: &Link) -> Next {
        if !self.is_ending {
            self.is_ending = true;
            if let Some((_, id)) = &self.user {
                cx.seldom.members.remove(*id, TopicSubscriber::connection(link, None).subscriber());
            }
            self.work = self.subscriptions.of_node(&cx.seldom.members, NodeRef::NONE).into_iter().map(|name| (false, name)).collect();
        }
        self.go_on(cx, link)
    }
}

/// Appends the text that says that the server is there.
pub(in crate::hub::session) fn write_heartbeat(out: &mut Vec<u8>) {
    write_text(HEARTBEAT, out);
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    websocket::write_header(Opcode::Text, false, text.len(), out);
    out.extend_from_slice(text.as_bytes());
}
