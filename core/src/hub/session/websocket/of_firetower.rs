//! What a WebSocket without one of the bus's subprotocols says: Firetower's messages, each in its turn, and what of them waits for the host.
//!
//! Owns what was paid for, and what is counted, of a message that is done at once, waits for a decision or comes again. What it does to
//! topics is [`FiretowerClient`]'s.
//!
//! [`FiretowerClient`]: crate::hub::session::firetower::client::FiretowerClient

use super::{WebSocketSession, WebSocketStage};
use crate::hub::budget;
use crate::hub::session::bus::{Asking, Pending, PendingPublication};
use crate::hub::session::context::{Context, Next};
use crate::hub::session::firetower::client::{FiretowerWish, WishedTopics};
use crate::hub::topics::FireOrder;
use crate::model::{Asked, CloseReason};
use bytes::Bytes;
use std::sync::Arc;

impl WebSocketSession {
    /// Goes on with what was begun, with what the host has decided, then with what came meanwhile.
    pub(super) fn go_on_with_firetower(&mut self, cx: &mut Context<'_>) -> Next {
        if let (Some(client), Some(names)) = (&mut self.firetower, self.bus.take_decided()) {
            client.subscribe(names);
        }
        loop {
            if let Some(client) = &mut self.firetower
                && client.go_on(cx, self.bus.link()) == Next::Again
            {
                return Next::Again;
            }
            let Some(message) = self.bus.kept_message() else { return Next::Continue };
            if cx.budget.is_used_up() {
                return Next::Again;
            }
            match self.of_firetower(cx, &message) {
                Next::Wait => return Next::Wait,
                next => {
                    self.bus.forget_kept_message(message.len());
                    if next != Next::Continue {
                        return next;
                    }
                }
            }
        }
    }

    /// [`Next::Wait`]: the host has no room for a question, and the message comes again.
    pub(super) fn of_firetower(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Next {
        if bytes.trim_ascii() == b"null" {
            // As the original does, which fails by that.
            self.stage = WebSocketStage::Closed;
            return Next::Close(CloseReason::BrokenStream);
        }
        if !self.bus.may_say(cx) {
            return Next::Continue;
        }
        cx.budget.spend(budget::BYTE * bytes.len() as u64);
        let Some(client) = &mut self.firetower else { return Next::Continue };
        let wish = match client.receive(cx, &mut self.bus, bytes) {
            Ok(Next::Wait) => {
                self.bus.unsay(cx);
                return Next::Wait;
            }
            Ok(next) => return next,
            Err(wish) => wish,
        };
        let user = client.user().cloned();
        match wish {
            FiretowerWish::Subscribe(wish) => self.ask_before_subscribing(cx, wish, user),
            FiretowerWish::Publish(topic, payload) => self.ask_before_publishing(cx, topic.into(), payload, user),
        }
    }

    /// Nothing is answered here. A message that comes again gets back all that was paid for it, and is counted then.
    fn ask_before_subscribing(&mut self, cx: &mut Context<'_>, wish: WishedTopics, user: Option<Arc<str>>) -> Next {
        let WishedTopics { names, paid, mut bad, left_out } = wish;
        if !names.is_empty() {
            let filters: Vec<Arc<str>> = names.iter().map(|name| (&**name).into()).collect();
            let count = filters.len();
            match self.bus.ask(cx, Pending::OfFiretower(names), Asked::Subscription { filters, user }, None) {
                Asking::Asked => {}
                Asking::TooMany => bad += count,
                Asking::NoRoom => {
                    self.bus.unsay(cx);
                    (0..paid).for_each(|_| self.bus.pay_back(cx));
                    return Next::Wait;
                }
            }
        }
        cx.counters.refuse_subscribes(bad);
        cx.counters.subscribes_refused.add(left_out as u64);
        Next::Continue
    }

    fn ask_before_publishing(&mut self, cx: &mut Context<'_>, topic: Arc<str>, payload: Bytes, user: Option<Arc<str>>) -> Next {
        let pending = PendingPublication { of_node: None, topic: topic.clone(), payload: payload.clone() };
        match self.bus.ask(cx, Pending::Publication(pending), Asked::Publication { topic, payload, user }, None) {
            Asking::Asked => {}
            Asking::TooMany => cx.counters.publish_refused.up(),
            Asking::NoRoom => {
                self.bus.unsay(cx);
                return Next::Wait;
            }
        }
        cx.counters.publishes.up();
        Next::Continue
    }

    /// `None`: this is no client of Firetower's.
    pub(in crate::hub::session) fn obey(&mut self, cx: &mut Context<'_>, order: FireOrder, topic: &str, user: &[u8]) -> Option<Next> {
        let client = self.firetower.as_mut()?;
        Some(client.obey(cx, self.bus.link(), order, topic, user))
    }
}
