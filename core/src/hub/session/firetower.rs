//! A WebSocket client of Firetower's: what its JSON asks for, and what it is sent.
//!
//! Owns its subscriptions, which are the connection's, and what is still to be done of them. Nothing is answered: neither is an error told
//! nor that something was done (`wire::firetower::client` reads the JSON).

use super::context::{Context, Next};
use super::subscriptions::Subscriptions;
use crate::hub::NodeRef;
use crate::hub::link::Link;
use crate::hub::topics::members::Subscriber;
use crate::wire::firetower::client::{ClientMessage, HEARTBEAT, parse, subscriber_count};
use crate::wire::topic;
use crate::wire::websocket::{self, Opcode};
use bytes::Bytes;
use std::collections::VecDeque;

#[derive(Default)]
pub(super) struct FiretowerClient {
    subscriptions: Subscriptions,
    /// Topics to subscribe to, or no longer, whose turn has not come.
    work: VecDeque<(bool, String)>,
    /// It is over, and what is left is told of each topic.
    is_ending: bool,
}

impl FiretowerClient {
    /// Something is to be done although nothing was read.
    pub(super) fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.work.iter().map(|(_, name)| size_of::<(bool, String)>() + name.capacity()).sum()
    }

    /// A message, whether text or binary.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>, link: &Link, message: &[u8]) -> Next {
        let (subscribes, mut names) = match parse(message) {
            Ok(ClientMessage::Subscribe(names)) => (true, names),
            Ok(ClientMessage::Unsubscribe(names)) => (false, names),
            Ok(ClientMessage::Other { topic, data, .. }) => {
                if let Some(data) = data.filter(|_| cx.hub.limits().firetower_conventions) {
                    cx.counters.publishes.up();
                    // Who is not heard is not told so.
                    let _ = cx.hub.publish(&topic, Bytes::copy_from_slice(data.get().as_bytes()), &[], cx.counters, cx.now);
                }
                return Next::Continue;
            }
            Err(_) => {
                cx.counters.invalid_payloads.up();
                return Next::Continue;
            }
        };
        // More could not be held anyway.
        let most = cx.hub.limits().max_subscriptions;
        cx.counters.subscribes_refused.add(names.len().saturating_sub(most) as u64);
        names.truncate(most);
        self.work.extend(names.into_iter().map(|name| (subscribes, name)));
        self.go_on(cx, link)
    }

    /// Subscribes to what was asked for, as much as the turn allows: one topic at least.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>, link: &Link) -> Next {
        while let Some((subscribes, name)) = self.work.pop_front() {
            self.change(cx, link, subscribes, &name);
            if cx.budget.is_used_up() && self.has_work() {
                return Next::Again;
            }
        }
        self.work = VecDeque::new();
        Next::Continue
    }

    fn change(&mut self, cx: &mut Context<'_>, link: &Link, subscribes: bool, name: &str) {
        let member = Subscriber { slot: link.slot(), node: NodeRef::NONE };
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
        if self.subscriptions.len() != before && cx.hub.limits().firetower_conventions {
            let text = subscriber_count(subscribes, cx.hub.topics().subscribers(name));
            let _ = cx.hub.publish(name, text.into(), &[], cx.counters, cx.now);
        }
    }

    /// The connection is over, and its subscriptions end, as many as the turn allows.
    pub(super) fn end(&mut self, cx: &mut Context<'_>, link: &Link) -> Next {
        if !self.is_ending {
            self.is_ending = true;
            self.work = self.subscriptions.of_node(&cx.seldom.members, NodeRef::NONE).into_iter().map(|name| (false, name)).collect();
        }
        self.go_on(cx, link)
    }
}

/// Appends the text that says that the server is there.
pub(super) fn write_heartbeat(out: &mut Vec<u8>) {
    websocket::write_header(Opcode::Text, false, HEARTBEAT.len(), out);
    out.extend_from_slice(HEARTBEAT.as_bytes());
}
