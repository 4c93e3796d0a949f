//! The bus protocol, in both of its dialects: what each frame of a connection means.
//!
//! Owns which nodes are registered here, what they say and when they are silent. How a connection begins is `opening`'s, how nodes come and
//! go by frames `registration`'s, what they hear and say of topics `topics`'; who is silent is judged in `timers`, what waits for the host is
//! `waiting`'s.

mod kept;
mod opening;
mod registration;
mod timers;
mod topics;
mod waiting;

pub(super) use self::kept::{Asking, Pending, PendingPublication};

use self::kept::{KeptFrames, OpenQuestion, Refused};
use super::context::{Context, Next};
use super::subscriptions::Subscriptions;
use crate::hub::budget;
use crate::hub::event::Event;
use crate::hub::link::{Eviction, Link};
use crate::hub::nodes::{Nodes, Registered};
use crate::hub::rate::Bucket;
use crate::hub::wheel::TimerKey;
use crate::hub::{Counters, Node, NodeRef, Timer, TimerKind};
use crate::model::{CloseReason, ConnectedPeer, Departure, EventMask, Fill};
use crate::settings::micros;
use crate::wire::{self, Decoded, Dialect, Frame, FrameError, FrameType, Front, code};
use std::sync::Arc;

pub struct BusSession {
    link: Arc<Link>,
    nodes: Nodes,
    rare: Option<Box<Rare>>,
}

/// What few sessions have, and few of those for long.
#[derive(Default)]
struct Rare {
    bucket: Option<Bucket>,
    /// Data that the host had no room for, read already.
    refused: Option<Refused>,
    /// What the host is to decide,
    question: Option<OpenQuestion>,
    /// what came behind that,
    kept: Option<KeptFrames>,
    /// and what it has decided on for a client of Firetower's, whose turn has not come.
    decided: Option<Vec<String>>,
    /// Nobody was told of the connection yet: what is spoken has not shown, or its handshake has not come.
    is_untold: bool,
    /// The channel of the last node that was told of the heartbeat for all nodes that the input begins with.
    told: Option<NodeRef>,
    /// What its nodes have subscribed to.
    subscriptions: Subscriptions,
}

impl BusSession {
    /// The same connection's, for another session around it. What is left behind is empty.
    pub(super) fn take_over(&mut self) -> Self {
        Self { link: self.link.clone(), nodes: std::mem::take(&mut self.nodes), rare: self.rare.take() }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node_bytes(&self) -> usize {
        let (ids, metadata) = self.nodes.sent_bytes();
        ids + metadata
    }

    pub(super) fn first_node(&self) -> Option<&Arc<Node>> {
        self.nodes.first().map(|registered| &registered.node)
    }

    pub(super) fn node(&self, node: NodeRef) -> Option<&Arc<Node>> {
        self.nodes.get(node).map(|registered| &registered.node)
    }

    pub(super) fn receive(&mut self, cx: &mut Context<'_>, input: &[u8]) -> (usize, Next) {
        if let Some(rare) = &self.rare {
            if rare.is_untold && !self.shows_what_it_is(cx, input) {
                return self.frames(cx, input, cx.hub.limits().max_frame_bytes);
            }
            let next = self.go_on(cx);
            if next != Next::Continue {
                return (0, next);
            }
            if self.is_deciding() {
                return self.keep_behind(cx, input);
            }
        }
        let (consumed, next) = self.frames(cx, input, cx.hub.limits().max_frame_bytes);
        if next != Next::Continue && self.is_deciding() {
            let (kept, next) = self.keep_behind(cx, &input[consumed..]);
            return (consumed + kept, next);
        }
        (consumed, next)
    }

    /// [`Next::Wait`] where the host is to decide as well: that frame is done with.
    #[inline(always)]
    fn frames(&mut self, cx: &mut Context<'_>, input: &[u8], max_frame_bytes: u32) -> (usize, Next) {
        let mut consumed = 0;
        loop {
            let (dialect, front) = wire::front(&input[consumed..], max_frame_bytes);
            let whole = match front {
                Front::Incomplete => return (consumed, Next::Continue),
                Front::Broken { error } => {
                    let (done, next) = self.no_frame(cx, &input[consumed..], error);
                    return (consumed + done, next);
                }
                Front::Whole(whole) => whole,
            };
            let len = whole.len();
            if cx.budget.is_used_up() {
                return (consumed, Next::Again);
            }
            if !cx.budget.admits(len) {
                return (consumed, Next::Later);
            }
            cx.budget.spend(budget::FRAME + budget::BYTE * len as u64);
            // A request is answered in its own dialect.
            cx.replies.speak(dialect);
            // Who may not send does not have it looked into either.
            let next = if self.may_send(cx) {
                match whole.decode() {
                    Decoded::Frame { frame, .. } => self.frame(cx, frame),
                    Decoded::Invalid { error, .. } | Decoded::Broken { error } => self.skip(cx, error),
                    Decoded::Incomplete => Next::Continue,
                }
            } else {
                self.limit_rate(cx)
            };
            if next != Next::Continue && self.comes_again(cx, next) {
                return (consumed, next);
            }
            if self.link.is_news(dialect) {
                self.change_link(cx.counters, Link::heard_v2);
            }
            cx.counters.messages_in.up();
            consumed += len;
            if next != Next::Continue {
                return (consumed, next);
            }
        }
    }

    /// A frame that is spelled otherwise, of so many bytes: whether it is done with, and what [`BusSession::receive`] says of one.
    #[cold]
    pub(super) fn take(&mut self, cx: &mut Context<'_>, frame: Frame<'_>, len: usize) -> (bool, Next) {
        if cx.budget.is_used_up() {
            return (false, Next::Again);
        }
        if !cx.budget.admits(len) {
            return (false, Next::Later);
        }
        cx.budget.spend(budget::FRAME + budget::BYTE * len as u64);
        cx.replies.speak(Dialect::V1);
        if self.is_deciding() {
            return self.keep_frame(cx, &frame);
        }
        let next = if self.may_send(cx) { self.frame(cx, frame) } else { self.limit_rate(cx) };
        if next != Next::Continue && self.comes_again(cx, next) {
            return (false, next);
        }
        cx.counters.messages_in.up();
        (true, if self.is_deciding() { Next::Continue } else { next })
    }

    /// Nobody has to register here.
    pub(super) fn needs_nobody(&mut self, cx: &mut Context<'_>) {
        if let Some(timer) = self.nodes.idle_timer().and_then(Option::take) {
            cx.wheel.remove(timer);
        }
    }

    /// A message that is no frame: whether it may be looked into.
    pub(super) fn may_say(&mut self, cx: &mut Context<'_>) -> bool {
        cx.counters.messages_in.up();
        let may_say = self.may_send(cx);
        if !may_say {
            cx.counters.rate_limited.up();
        }
        may_say
    }

    /// Something that is not a message by itself, but work all the same: whether it may be done.
    pub(super) fn may_send_more(&mut self, cx: &mut Context<'_>) -> bool {
        let may_send = self.may_send(cx);
        if !may_send {
            cx.counters.rate_limited.up();
        }
        may_send
    }

    /// What was paid for comes again, and pays then.
    pub(super) fn pay_back(&mut self, cx: &Context<'_>) {
        self.put_back(cx);
    }

    /// A message of which more has come than may.
    pub(super) fn skip_over_limit(&mut self, cx: &mut Context<'_>) -> Next {
        cx.replies.speak(self.link.dialect());
        cx.counters.messages_in.up();
        self.limit_rate(cx)
    }

    /// The message comes again, and counts then.
    pub(super) fn unsay(&mut self, cx: &mut Context<'_>) {
        cx.counters.messages_in.add(1u64.wrapping_neg());
        self.put_back(cx);
    }

    /// A text in which such a frame should have been.
    pub(super) fn skip_text(&mut self, cx: &mut Context<'_>, why: &'static str) -> Next {
        cx.replies.speak(Dialect::V1);
        cx.counters.messages_in.up();
        if !self.may_send(cx) {
            return self.limit_rate(cx);
        }
        cx.counters.invalid_payloads.up();
        cx.connection_log.failed(&why, &self.link, cx.now);
        cx.replies.error(code::INVALID_REQUEST, why, 0);
        Next::Continue
    }

    /// Goes on with what was read before.
    pub(super) fn resume(&mut self, cx: &mut Context<'_>) -> Next {
        if self.rare.is_some() { self.go_on(cx) } else { Next::Continue }
    }

    /// Whether the same frame comes again, and pays then.
    #[cold]
    fn comes_again(&mut self, cx: &Context<'_>, next: Next) -> bool {
        let waits = self.refused_len().is_some() || self.is_deciding() || self.is_replaying();
        let again = matches!(next, Next::Wait | Next::Again) && !waits;
        if again {
            self.put_back(cx);
        }
        again
    }

    /// The stream is lost.
    #[cold]
    fn lose(&self, cx: &mut Context<'_>, error: FrameError) -> Next {
        cx.replies.speak(self.link.dialect());
        cx.connection_log.failed(&error, &self.link, cx.now);
        cx.replies.error(error.code(), &error.answer(), 0);
        if let FrameError::TooLong(_) = error {
            cx.counters.frames_too_long.up();
            Next::Close(CloseReason::FrameTooLong)
        } else {
            cx.counters.invalid_magic.up();
            Next::Close(CloseReason::BrokenStream)
        }
    }

    /// A frame is not what it should be, and the stream goes on.
    #[cold]
    fn skip(&self, cx: &mut Context<'_>, error: FrameError) -> Next {
        cx.counters.invalid_payloads.up();
        cx.connection_log.failed(&error, &self.link, cx.now);
        cx.replies.error(error.code(), &error.answer(), 0);
        Next::Continue
    }

    #[cold]
    fn limit_rate(&self, cx: &mut Context<'_>) -> Next {
        cx.counters.rate_limited.up();
        cx.connection_log.rate_limited(self.link.peer().ip(), cx.now);
        cx.replies.error(code::RATE_LIMITED, code::RATE_LIMITED_TEXT, 0);
        Next::Continue
    }

    pub(super) fn evict(&mut self, cx: &mut Context<'_>, eviction: Eviction) -> Next {
        let Some(Registered { node, timer, .. }) = self.forget(cx, eviction.node) else {
            return Next::Continue;
        };
        cx.wheel.remove(timer);
        cx.connection_log.node_left(&node, cx.now);
        let channel_id = if self.nodes.is_empty() { 0 } else { node.channel_id() };
        cx.replies.speak(self.link.dialect());
        match eviction.why {
            CloseReason::Replaced => cx.replies.error(code::REPLACED, code::REPLACED_TEXT, channel_id),
            _ if channel_id != 0 => cx.replies.error(code::NOT_ALLOWED, code::KICKED_TEXT, channel_id),
            why => cx.replies.farewell(why),
        }
        self.after_leaving(eviction.why)
    }

    pub(super) fn tell_fill(&self, cx: &mut Context<'_>, fill: Fill) {
        self.nodes.iter().for_each(|registered| tell_fill(cx, &registered.node, fill));
        cx.budget.spend(budget::EVENT * self.nodes.len() as u64);
    }

    pub(super) fn close(&mut self, cx: &mut Context<'_>, reason: CloseReason) -> Next {
        self.close_of(cx, reason, None)
    }

    /// `user`: whose connection a client of Firetower's has said it is.
    pub(super) fn close_of(&mut self, cx: &mut Context<'_>, reason: CloseReason, user: Option<&Arc<str>>) -> Next {
        self.forget_question(cx);
        if !self.let_leave(cx, Departure::Disconnected) {
            return Next::Again;
        }
        if let Some(timer) = self.nodes.idle_timer().and_then(Option::take) {
            cx.wheel.remove(timer);
        }
        if self.rare.as_ref().is_none_or(|rare| !rare.is_untold) {
            cx.hub.tell(EventMask::CLOSE, || {
                let who = ConnectedPeer { address: self.link.peer(), user: user.cloned() };
                Event::Close { connection_id: self.link.connection_id(), reason, who: Arc::new(who) }
            });
        }
        Next::Continue
    }

    /// Lets the nodes leave in order, as many as the turn allows: one at least. True when none is left.
    fn let_leave(&mut self, cx: &mut Context<'_>, how: Departure) -> bool {
        while let Some(Registered { node, timer, .. }) = self.nodes.pop_first() {
            cx.counters.reach.leave(self.link.class(), 1);
            self.end_subscriptions(cx, &node);
            leave(cx, &node, timer, how);
            cx.budget.spend(budget::DEPARTURE);
            if cx.budget.is_used_up() {
                break;
            }
        }
        self.nodes.is_empty()
    }

    pub(super) fn nodes_behind(&self, node: Option<NodeRef>) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter_behind(node).map(|registered| &registered.node)
    }

    pub(super) fn set_full(&self, counters: &Counters, is_full: bool) {
        if self.link.class().is_full != is_full {
            self.change_link(counters, |link| link.set_full(is_full));
        }
    }

    /// Changes what decides where the thread counts the connection's nodes. They are counted twice in between rather than not at all.
    #[cold]
    fn change_link(&self, counters: &Counters, change: impl FnOnce(&Link)) {
        let before = self.link.class();
        change(&self.link);
        counters.reach.enter(self.link.class(), self.nodes.len());
        counters.reach.leave(before, self.nodes.len());
    }

    fn forget(&mut self, cx: &mut Context<'_>, node: NodeRef) -> Option<Registered> {
        let registered = self.nodes.remove(node)?;
        cx.counters.reach.leave(self.link.class(), 1);
        self.end_subscriptions(cx, &registered.node);
        Some(registered)
    }

    fn end_subscriptions(&mut self, cx: &mut Context<'_>, node: &Node) {
        if let Some(rare) = &mut self.rare {
            rare.subscriptions.leave(cx, self.link.slot(), node);
        }
    }

    #[inline]
    fn may_send(&mut self, cx: &Context<'_>) -> bool {
        !cx.hub.limits_frames() || self.pay(cx)
    }

    #[inline(never)]
    fn pay(&mut self, cx: &Context<'_>) -> bool {
        let is_own_free = match (&cx.hub.limits().rate_limit, self.rare.as_mut().and_then(|rare| rare.bucket.as_mut())) {
            (None, _) => true,
            (Some(limit), Some(bucket)) => bucket.take(limit, cx.now.mono),
            (Some(limit), None) => cx.hub.take_address_token(self.link.peer().ip(), limit, cx.now),
        };
        if is_own_free && !cx.hub.requests.take(cx.now.mono) {
            self.put_back_own(cx);
            return false;
        }
        is_own_free
    }

    #[inline(never)]
    fn put_back(&mut self, cx: &Context<'_>) {
        cx.hub.requests.put_back();
        self.put_back_own(cx);
    }

    fn put_back_own(&mut self, cx: &Context<'_>) {
        match (&cx.hub.limits().rate_limit, self.rare.as_mut().and_then(|rare| rare.bucket.as_mut())) {
            (None, _) => {}
            (Some(_), Some(bucket)) => bucket.put_back(),
            (Some(_), None) => cx.hub.put_back_address_token(self.link.peer().ip()),
        }
    }

    /// Most frames are heartbeats: what others need stays out of line, or it is made ready for each of these.
    #[inline(always)]
    fn frame(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Next {
        match frame.frame_type {
            FrameType::HEARTBEAT_REQ => self.heartbeat(cx, frame.channel_id),
            FrameType::DATA => self.data(cx, frame),
            FrameType::PING => {
                cx.counters.pings.up();
                cx.replies.pong();
                Next::Continue
            }
            FrameType::REGISTER => self.register(cx, &frame.payload.bytes()),
            FrameType::UNREGISTER => self.unregister(cx, frame.channel_id),
            FrameType::PUBLISH => self.publish(cx, &frame),
            FrameType::SUBSCRIBE => self.subscribe(cx, &frame),
            FrameType::UNSUBSCRIBE => self.unsubscribe(cx, &frame),
            // That it came in v2 is what it is sent for: the dialect was noted when it was decoded.
            FrameType::ACK if cx.replies.dialect() == Dialect::V2 => Next::Continue,
            _ => unknown_type(cx, frame.frame_type),
        }
    }

    #[inline(always)]
    fn heartbeat(&mut self, cx: &mut Context<'_>, channel_id: i64) -> Next {
        let channel_id = if channel_id == 0 && !self.nodes.is_empty() {
            self.link.beat(cx.now.mono);
            if cx.hub.wants(EventMask::HEARTBEAT) && !self.tell_heartbeats(cx) {
                // The same frame goes on with the others.
                return Next::Again;
            }
            0
        } else if let Some(Registered { node, .. }) = self.own(channel_id) {
            node.beat(cx.now);
            if cx.hub.wants(EventMask::HEARTBEAT) {
                tell_heartbeat(cx, node);
            }
            channel_id as u32
        } else {
            cx.counters.heartbeat_requests.up();
            cx.counters.heartbeats_ignored.up();
            if self.nodes.is_empty() {
                cx.connection_log.heartbeat_of_nobody(self.link.connection_id(), cx.now);
            }
            return Next::Continue;
        };
        cx.counters.heartbeat_requests.up();
        cx.counters.heartbeats.up();
        cx.replies.heartbeat(channel_id, cx.now);
        Next::Continue
    }

    /// Tells of a heartbeat for all nodes, as many as the turn allows: one at least. True when no node is left. One that leaves in between
    /// is not told of any more.
    #[inline(never)]
    fn tell_heartbeats(&mut self, cx: &mut Context<'_>) -> bool {
        let told = self.rare.as_mut().and_then(|rare| rare.told.take());
        let mut last = None;
        for registered in self.nodes.iter_behind(told) {
            if last.is_some() && cx.budget.is_used_up() {
                break;
            }
            tell_heartbeat(cx, &registered.node);
            cx.budget.spend(budget::EVENT);
            last = Some(registered.reference());
        }
        let is_done = last.is_none_or(|last| self.nodes.iter_behind(Some(last)).next().is_none());
        if !is_done {
            self.rare.get_or_insert_default().told = last;
        }
        is_done
    }

    fn data(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Next {
        let target = if frame.channel_id == 0 { self.nodes.first() } else { self.own(frame.channel_id) };
        let Some(Registered { node, .. }) = target else {
            cx.counters.data_ignored.up();
            return Next::Continue;
        };
        if cx.hub.wants(EventMask::DATA) {
            let gate = node.gate();
            // A node that was replaced a moment ago on another thread says no more: its last event was told.
            if gate.is_open() {
                let payload = frame.payload.to_bytes();
                let bytes = payload.len();
                let event = Event::Data { node: node.into(), channel_id: node.channel_id(), payload };
                if let Err(event) = cx.hub.tell_data(event, bytes, self.link.clone()) {
                    drop(gate);
                    return self.keep_refused(cx, event, bytes);
                }
            }
        }
        cx.counters.data_in.up();
        node.message(cx.now);
        Next::Continue
    }

    /// The node of one of our own channels: nobody writes into a stranger's.
    fn own(&self, channel_id: i64) -> Option<&Registered> {
        own(channel_id).and_then(|node| self.nodes.get(node))
    }

    fn after_leaving(&self, why: CloseReason) -> Next {
        if self.nodes.is_empty() { Next::Close(why) } else { Next::Continue }
    }

    /// Starts the time within which somebody has to register, unless it runs already.
    fn await_register(&mut self, cx: &mut Context<'_>) {
        if let Some(timer @ None) = self.nodes.idle_timer() {
            let deadline = cx.now.mono + micros(cx.hub.limits().register_timeout);
            *timer = Some(cx.wheel.insert(deadline, Timer::new(self.link.slot(), TimerKind::Register)));
        }
    }
}

/// The node whose channel a frame names.
fn own(channel_id: i64) -> Option<NodeRef> {
    u32::try_from(channel_id).ok().map(NodeRef::of_main_channel)
}

/// Unless it left elsewhere at this moment; then it is only forgotten here.
fn leave(cx: &mut Context<'_>, node: &Arc<Node>, timer: TimerKey, how: Departure) {
    cx.wheel.remove(timer);
    cx.hub.leave(node, how, cx.counters);
    cx.connection_log.node_left(node, cx.now);
}

#[cold]
fn unknown_type(cx: &mut Context<'_>, frame_type: FrameType) -> Next {
    cx.counters.unknown_types.up();
    match frame_type {
        FrameType::HEARTBEAT_RES => cx.counters.heartbeat_replies_in.up(),
        FrameType::PONG => cx.counters.pongs_in.up(),
        FrameType::ERROR => cx.counters.errors_in.up(),
        _ => {}
    }
    cx.connection_log.unknown_type(frame_type.0, cx.now);
    Next::Continue
}

#[inline(never)]
fn tell_heartbeat(cx: &Context<'_>, node: &Arc<Node>) {
    let gate = node.gate();
    if gate.is_open() {
        cx.hub.tell(EventMask::HEARTBEAT, || Event::Heartbeat { node: node.into(), count: 1 });
    }
}

/// Tells the host what waits for a node's connection, unless that is what it was told last.
fn tell_fill(cx: &Context<'_>, node: &Arc<Node>, fill: Fill) {
    let is_full = fill == Fill::Full;
    if node.is_told_full() == is_full {
        return;
    }
    let gate = node.gate();
    if gate.is_open() {
        gate.set_told_full(is_full);
        cx.hub.tell(EventMask::BUFFER, || Event::Buffer { node: node.into(), fill, count: 1 });
    }
}
