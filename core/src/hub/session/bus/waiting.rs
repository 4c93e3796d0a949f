//! What waits for the host: data that it had no room for, and a frame that it is to decide on, with what came behind that.
//!
//! Owns the deadline, and that everything but heartbeats keeps its order. What becomes of an answer is said by whoever asked.

use super::kept::{Asking, KeptFrames, OpenQuestion, Pending, Refused};
use super::{BusSession, Rare, own};
use crate::hub::budget;
use crate::hub::event::Event;
use crate::hub::link::{Answered, Link};
use crate::hub::node::Held;
use crate::hub::session::context::{Context, Next};
use crate::hub::wheel::TimerKey;
use crate::hub::{Node, Timer, TimerKind};
use crate::model::{Asked, Decision, Question};
use crate::settings::micros;
use crate::wire::{self, Decoded, Dialect, Frame, FrameType, Framing, Front, v2};
use std::collections::HashSet;
use std::sync::Arc;

impl BusSession {
    pub(in crate::hub::session) fn refused_len(&self) -> Option<usize> {
        self.rare.as_ref()?.refused.as_ref().map(Refused::bytes)
    }

    /// What it keeps of what was read, in memory.
    pub(in crate::hub::session) fn kept_bytes(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| {
            let refused = rare.refused.as_ref().map_or(0, Refused::bytes);
            let question = rare.question.as_ref().map_or(0, OpenQuestion::bytes);
            refused + question + rare.kept.as_ref().map_or(0, KeptFrames::bytes)
        })
    }

    /// Something is to be done although nothing was read.
    pub(in crate::hub::session) fn has_work(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.question.is_none() && (rare.kept.is_some() || rare.decided.is_some()))
            || self.is_replaying()
    }

    /// The host has not decided what the last frame asked for: what comes behind it waits.
    pub(in crate::hub::session) fn is_deciding(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.question.is_some())
    }

    /// What was read before comes before what is read now.
    #[inline(never)]
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) -> Next {
        let mut next = self.offer_again(cx);
        if next == Next::Continue && self.is_replaying() {
            next = self.replay(cx);
        }
        let has_kept = self.rare.as_ref().is_some_and(|rare| rare.kept.is_some());
        if next == Next::Continue && has_kept { self.go_on_with_kept(cx) } else { next }
    }

    /// Goes on with what came behind a question that is answered.
    #[cold]
    #[inline(never)]
    fn go_on_with_kept(&mut self, cx: &mut Context<'_>) -> Next {
        if self.link.framing() == Framing::Firetower {
            // These are messages, and their session's business.
            return Next::Continue;
        }
        let Some(mut kept) = self.rare.as_mut().filter(|rare| rare.question.is_none()).and_then(|rare| rare.kept.take()) else {
            return Next::Continue;
        };
        // Each of them was measured when it came.
        let is_json = self.link.framing() == Framing::Json;
        let (done, next) = if is_json { self.take_kept(cx, kept.rest()) } else { self.frames(cx, kept.rest(), u32::MAX) };
        kept.advance(done);
        if !kept.rest().is_empty() {
            self.rare.get_or_insert_default().kept = Some(kept);
        }
        self.drop_unused();
        // The next question waits for its answer, which is nobody's fault.
        if next == Next::Wait && self.is_deciding() { Next::Continue } else { next }
    }

    /// As [`BusSession::frames`], of what was spelled otherwise.
    fn take_kept(&mut self, cx: &mut Context<'_>, input: &[u8]) -> (usize, Next) {
        let mut done = 0;
        while let Decoded::Frame { frame, len } = v2::decode(&input[done..], u32::MAX) {
            let (is_done, next) = self.take(cx, frame, len);
            done += if is_done { len } else { 0 };
            if !is_done || next != Next::Continue || self.is_deciding() {
                return (done, next);
            }
        }
        (done, Next::Continue)
    }

    /// The host has no room for it. It is kept as it is: the frame is not read again.
    #[cold]
    pub(super) fn keep_refused(&mut self, cx: &Context<'_>, event: Event, bytes: usize) -> Next {
        cx.counters.reads_paused_by_host.up();
        self.rare.get_or_insert_default().refused = Some(Refused::new(event, bytes, cx.hub.memory()));
        Next::Wait
    }

    /// Offers the host what it had no room for, if there is something.
    fn offer_again(&mut self, cx: &mut Context<'_>) -> Next {
        let Some(rare) = &mut self.rare else { return Next::Continue };
        let Some(refused) = rare.refused.take() else { return Next::Continue };
        let (event, bytes) = (refused.event.clone(), refused.bytes());
        drop(refused);
        cx.budget.spend(budget::EVENT);
        let Some(node) = event.node().map(|node| Arc::clone(node)) else { return Next::Continue };
        let gate = node.gate();
        // What a node said that has left meanwhile is not told: its last event was.
        if gate.is_open()
            && let Err(event) = cx.hub.tell_data(event, bytes, self.link.clone())
        {
            drop(gate);
            return self.keep_refused(cx, event, bytes);
        }
        drop(gate);
        cx.counters.data_in.up();
        node.message(cx.now);
        self.drop_unused();
        Next::Continue
    }

    /// Asks the host before something happens. What is pending waits for its answer, and so does whatever comes behind the frame.
    #[cold]
    pub(in crate::hub::session) fn ask(
        &mut self,
        cx: &mut Context<'_>,
        pending: Pending,
        asked: Asked,
        node: Option<&Arc<Node>>,
    ) -> Asking {
        let kind = asked.kind();
        let Some(number) = cx.hub.decisions().open(&self.link, kind) else {
            cx.counters.decisions_unasked.up();
            return Asking::TooMany;
        };
        let question = Question { number, connection_id: self.link.connection_id(), peer: self.link.peer(), asked };
        let bytes = question.payload_len();
        cx.budget.spend(budget::EVENT);
        let question = Event::Question { question: Arc::new(question), node: node.map(Held::from) };
        if cx.hub.ask(question, self.link.clone()).is_err() {
            cx.hub.decisions().close(number);
            cx.counters.reads_paused_by_host.up();
            return Asking::NoRoom;
        }
        cx.counters.decisions.up();
        let deadline = cx.now.mono + micros(cx.hub.limits().decision_timeout);
        let timer = cx.wheel.insert(deadline, Timer::new(self.link.slot(), TimerKind::Decision));
        let question = OpenQuestion::new(number, timer, cx.replies.dialect(), pending, bytes, cx.hub.memory());
        self.rare.get_or_insert_default().question = Some(question);
        Asking::Asked
    }

    /// The host has decided. `None`: not what this connection waits for.
    pub(in crate::hub::session) fn decide(&mut self, cx: &mut Context<'_>, Answered { number, decision }: Answered) -> Option<Next> {
        let question = self.take_question(|question| question.number == number)?;
        Some(self.settle(cx, question, Some(decision)))
    }

    /// The time for a decision is up. `None`: it is on its way, or was not waited for.
    pub(in crate::hub::session) fn decision_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey) -> Option<Next> {
        let question = self.take_question(|question| question.timer == timer && cx.wheel.has_fired(timer))?;
        if !cx.hub.decisions().close(question.number) {
            cx.wheel.rearm(timer, cx.now.mono + micros(cx.hub.limits().decision_timeout));
            self.rare.get_or_insert_default().question = Some(question);
            return None;
        }
        Some(self.settle(cx, question, None))
    }

    fn take_question(&mut self, is_it: impl FnOnce(&OpenQuestion) -> bool) -> Option<OpenQuestion> {
        let question = &mut self.rare.as_mut()?.question;
        if question.as_ref().is_some_and(is_it) { question.take() } else { None }
    }

    /// What has no answer is refused.
    fn settle(&mut self, cx: &mut Context<'_>, question: OpenQuestion, decision: Option<Decision>) -> Next {
        let OpenQuestion { timer, dialect, pending, .. } = question;
        cx.wheel.remove(timer);
        cx.replies.speak(dialect);
        match &decision {
            None => cx.counters.decisions_timed_out.up(),
            Some(Decision::Refuse) => cx.counters.decisions_refused.up(),
            Some(_) => {}
        }
        let next = match pending {
            Pending::Registration(registration) => self.settle_registration(cx, registration, decision),
            Pending::Subscription(subscription) => self.settle_subscription(cx, &subscription, decision),
            Pending::Publication(publication) => {
                self.settle_publication(cx, publication, decision);
                Next::Continue
            }
            Pending::OfFiretower(names) => {
                self.rare.get_or_insert_default().decided = match decision {
                    Some(Decision::Allow) => Some(names),
                    Some(Decision::AllowTopics(allowed)) => {
                        let kept: HashSet<&String> = allowed.iter().collect();
                        cx.counters.refuse_subscribes(names.iter().filter(|name| !kept.contains(name)).count());
                        Some(allowed)
                    }
                    _ => {
                        cx.counters.refuse_subscribes(names.len());
                        None
                    }
                };
                Next::Continue
            }
        };
        self.drop_unused();
        next
    }

    /// What a client of Firetower's may subscribe to.
    pub(in crate::hub::session) fn take_decided(&mut self) -> Option<Vec<String>> {
        let decided = self.rare.as_mut()?.decided.take();
        self.drop_unused();
        decided
    }

    /// Keeps a message of Firetower's behind a question; false when there is no room.
    pub(in crate::hub::session) fn keep_message(&mut self, cx: &Context<'_>, message: &[u8]) -> bool {
        let mut bytes = Vec::with_capacity(v2::HEADER_LEN + message.len());
        v2::encode(FrameType::DATA, 0, message, &mut bytes);
        self.keep(cx, &bytes)
    }

    /// The first message that was kept, once the question before it is answered.
    pub(in crate::hub::session) fn kept_message(&self) -> Option<Vec<u8>> {
        let rare = self.rare.as_ref().filter(|rare| rare.question.is_none())?;
        match v2::decode(rare.kept.as_ref()?.rest(), u32::MAX) {
            Decoded::Frame { frame, .. } => Some(frame.payload.bytes().into_owned()),
            _ => None,
        }
    }

    /// The first message that was kept is done with.
    pub(in crate::hub::session) fn forget_kept_message(&mut self, len: usize) {
        if let Some(rare) = &mut self.rare
            && let Some(kept) = &mut rare.kept
        {
            kept.advance(v2::HEADER_LEN + len);
            if kept.rest().is_empty() {
                rare.kept = None;
            }
        }
        self.drop_unused();
    }

    /// The connection is over: nobody waits for a decision any more.
    pub(super) fn forget_question(&mut self, cx: &mut Context<'_>) {
        if let Some(question) = self.take_question(|_| true) {
            cx.hub.decisions().close(question.number);
            cx.wheel.remove(question.timer);
        }
        if let Some(rare) = &mut self.rare {
            (rare.kept, rare.decided) = (None, None);
        }
    }

    /// Keeps what comes behind a question, but for heartbeats of nodes that are here: these are answered at once.
    #[cold]
    pub(super) fn keep_behind(&mut self, cx: &mut Context<'_>, input: &[u8]) -> (usize, Next) {
        let mut consumed = 0;
        loop {
            let (dialect, front) = wire::front(&input[consumed..], cx.hub.limits().max_frame_bytes);
            let whole = match front {
                Front::Incomplete => return (consumed, Next::Continue),
                // That is found out in its turn, and nothing more is read until then.
                Front::Broken { .. } => return (consumed, Next::Wait),
                Front::Whole(whole) => whole,
            };
            if cx.budget.is_used_up() {
                return (consumed, Next::Again);
            }
            let bytes = &input[consumed..consumed + whole.len()];
            cx.budget.spend(budget::FRAME + budget::BYTE * bytes.len() as u64);
            let heartbeat = if wire::frame_type(bytes) == Some(FrameType::HEARTBEAT_REQ) { whole.decode() } else { Decoded::Incomplete };
            let next = match heartbeat {
                Decoded::Frame { frame, .. } if self.has_node_of(frame.channel_id) => {
                    cx.replies.speak(dialect);
                    self.heartbeat_between(cx, frame.channel_id, dialect)
                }
                _ if self.keep(cx, bytes) => Next::Continue,
                _ => Next::Wait,
            };
            if next != Next::Continue {
                return (consumed, next);
            }
            consumed += bytes.len();
        }
    }

    /// The same of a frame that is spelled otherwise: whether it is done with, and how it goes on.
    #[cold]
    pub(super) fn keep_frame(&mut self, cx: &mut Context<'_>, frame: &Frame<'_>) -> (bool, Next) {
        if frame.frame_type == FrameType::HEARTBEAT_REQ && self.has_node_of(frame.channel_id) {
            let next = self.heartbeat_between(cx, frame.channel_id, Dialect::V1);
            return (next == Next::Continue, next);
        }
        let mut bytes = Vec::new();
        // Which can carry whatever a text can name.
        v2::encode(frame.frame_type, u32::try_from(frame.channel_id).unwrap_or(0), &frame.payload.bytes(), &mut bytes);
        if self.keep(cx, &bytes) { (true, Next::Continue) } else { (false, Next::Wait) }
    }

    /// False when there is no room.
    fn keep(&mut self, cx: &Context<'_>, frame: &[u8]) -> bool {
        let kept = &mut self.rare.get_or_insert_default().kept;
        kept.get_or_insert_with(|| KeptFrames::new(cx.hub.memory())).push(frame)
    }

    /// Whether a heartbeat on this channel is one of a node that is here. Others have their turn.
    fn has_node_of(&self, channel_id: i64) -> bool {
        channel_id == 0 && !self.nodes.is_empty() || own(channel_id).is_some_and(|node| self.nodes.get(node).is_some())
    }

    fn heartbeat_between(&mut self, cx: &mut Context<'_>, channel_id: i64, dialect: Dialect) -> Next {
        let next = if self.may_send(cx) { self.heartbeat(cx, channel_id) } else { self.limit_rate(cx) };
        if next != Next::Continue {
            // It comes again, and pays then.
            self.put_back(cx);
            return next;
        }
        cx.counters.messages_in.up();
        if self.link.is_news(dialect) {
            self.change_link(cx.counters, Link::heard_v2);
        }
        Next::Continue
    }

    /// Few sessions need what is rare for long.
    pub(super) fn drop_unused(&mut self) {
        let is_used = |rare: &Rare| {
            let waits = rare.refused.is_some() || rare.question.is_some() || rare.kept.is_some() || rare.decided.is_some();
            waits || rare.is_untold || rare.bucket.is_some() || rare.told.is_some() || !rare.subscriptions.is_empty()
        };
        if self.rare.as_ref().is_some_and(|rare| !is_used(rare)) {
            self.rare = None;
        }
    }
}
