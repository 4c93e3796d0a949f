//! A connection of Firetower's back side: a gateway's, or that of a program which publishes.
//!
//! Owns which topics the gateway takes part in, and how often each: once for each client of its that has subscribed. What a frame looks
//! like is [`crate::wire::firetower`]'s, how it reaches subscribers the hub's. A gateway says nothing for as long as it likes, as
//! Firetower's do; that it is there is found by heartbeats, which its socket has to take.

pub(super) mod client;

use super::bus::BusSession;
use super::context::{Context, Look, Next};
use super::subscriptions::TopicSubscriber;
use crate::hub::budget;
use crate::hub::firetower::SERVER_PREFIX;
use crate::hub::link::Link;
use crate::hub::memory::Part;
use crate::hub::topics::members::{FilterId, Subscriber};
use crate::hub::topics::{SUBSCRIPTION_BYTES, TopicRefusal, subscription_bytes};
use crate::hub::wheel::TimerKey;
use crate::hub::{NodeRef, Timer, TimerKind};
use crate::model::{CloseReason, ConnectedBy, EventMask};
use crate::wire::firetower::{self, FireError, FireFrame, FireFront, NO_TOPIC, SYSTEM};
use crate::wire::topic::{self, Filter};
use crate::wire::{Framing, code};
use indexmap::IndexMap;
use std::sync::Arc;

/// Between two heartbeats, in microseconds.
const HEARTBEAT_TIME_US: u64 = 10_000_000;

const NAME_IS_TAKEN: &str = "a gateway of that name is here, from another address";

/// What is answered repeats no longer fields.
const MAX_REPEATED: usize = topic::MAX_LEN;

pub struct GatewaySession {
    bus: BusSession,
    /// How many of its clients have subscribed to what.
    topics: IndexMap<FilterId, u32>,
    /// What they take in memory, as if nobody else had subscribed to them.
    bytes: usize,
    /// All of these together.
    announced: usize,
    /// Who it is, where it has said so.
    name: Option<Arc<str>>,
    /// A list of topics whose turn has not come.
    work: Option<Box<AnnouncedList>>,
    heartbeat: Option<TimerKey>,
    /// What is counted of what is kept.
    counted: usize,
}

/// Topics that a gateway takes part in from now on, or one client less.
struct AnnouncedList {
    subscribes: bool,
    message_id: Box<str>,
    topics: Box<str>,
    /// So many bytes of them are done with.
    done: usize,
}

impl GatewaySession {
    /// Of a connection that came in where nothing else is spoken: a gateway says nothing until somebody subscribes.
    pub(super) fn new(mut bus: BusSession, cx: &mut Context<'_>) -> Self {
        bus.needs_nobody(cx);
        Self::begun(bus, cx)
    }

    /// Of one that has begun like a frame of a gateway's: within the time for a registration that has to be a whole one.
    pub(super) fn begun(mut bus: BusSession, cx: &mut Context<'_>) -> Self {
        bus.begin(cx, ConnectedBy::Firetower);
        bus.link().set_framing(Framing::FireHeader);
        let timer = Timer::new(bus.link().slot(), TimerKind::Ping);
        let heartbeat = Some(cx.wheel.insert(cx.now.mono + HEARTBEAT_TIME_US, timer));
        Self { bus, topics: IndexMap::new(), bytes: 0, announced: 0, name: None, work: None, heartbeat, counted: 0 }
    }

    pub(super) fn bus(&self) -> &BusSession {
        &self.bus
    }

    pub(super) fn bus_mut(&mut self) -> &mut BusSession {
        &mut self.bus
    }

    fn link(&self) -> &Arc<Link> {
        self.bus.link()
    }

    /// Something is to be done although nothing was read.
    pub(super) fn has_work(&self) -> bool {
        self.work.is_some()
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.counted
    }

    pub(super) fn receive(&mut self, cx: &mut Context<'_>, input: &[u8]) -> (usize, Next) {
        let mut consumed = 0;
        let mut next = self.go_on(cx);
        while next == Next::Continue {
            let (len, front) = match firetower::front(&input[consumed..], cx.hub.limits().max_frame_bytes) {
                FireFront::Incomplete => break,
                FireFront::Broken { why } => {
                    consumed = input.len();
                    next = self.break_off(cx, why);
                    break;
                }
                FireFront::Frame { frame, len } => (len, Ok(frame)),
                FireFront::Invalid { error, len } => (len, Err(error)),
            };
            if cx.budget.is_used_up() {
                next = Next::Again;
                break;
            }
            if !cx.budget.admits(len) {
                next = Next::Later;
                break;
            }
            cx.budget.spend(budget::FRAME + budget::BYTE * len as u64);
            self.bus.needs_nobody(cx);
            next = self.frame(cx, front);
            if next == Next::Wait {
                // It comes again.
                self.bus.unsay(cx);
                break;
            }
            consumed += len;
        }
        self.count();
        (consumed, next)
    }

    fn frame(&mut self, cx: &mut Context<'_>, front: Result<FireFrame<'_>, FireError>) -> Next {
        if !self.bus.may_say(cx) {
            let announces = front.as_ref().is_ok_and(|frame| matches!(frame.kind, firetower::SUBSCRIBE | firetower::UNSUBSCRIBE));
            refuse(cx, front.ok(), code::RATE_LIMITED_TEXT);
            // What it takes part in is not what it believes from here on: it has to begin anew.
            return if announces { Next::Close(CloseReason::NotAllowed) } else { Next::Continue };
        }
        let frame = match front {
            Ok(frame) => frame,
            Err(error) => {
                cx.counters.invalid_payloads.up();
                cx.connection_log.failed(&error, self.link(), cx.now);
                refuse(cx, None, &error.to_string());
                return Next::Continue;
            }
        };
        match frame.kind {
            firetower::HEARTBEAT => {}
            firetower::SUBSCRIBE => return self.announce(cx, frame, true),
            firetower::UNSUBSCRIBE => return self.announce(cx, frame, false),
            firetower::ERROR | firetower::ON_SUBSCRIBE | firetower::ON_UNSUBSCRIBE => cx.counters.unknown_types.up(),
            _ => return self.publish(cx, frame),
        }
        Next::Continue
    }

    /// Others than publications are for gateways as well, whatever they are.
    fn publish(&self, cx: &mut Context<'_>, frame: FireFrame<'_>) -> Next {
        if frame.has_long_head() {
            cx.counters.publishes.up();
            cx.counters.publish_refused.up();
            refuse(cx, None, "a type, a message id and a source have at most 255 bytes each");
            return Next::Continue;
        }
        if frame.kind == firetower::PUBLISH && cx.hub.is_host_full(frame.topic, frame.content.len(), || self.link().clone()) {
            cx.counters.reads_paused_by_host.up();
            return Next::Wait;
        }
        cx.counters.publishes.up();
        cx.budget.spend(budget::LEVEL * cx.hub.topics().levels_looked_at(frame.topic));
        match cx.hub.publish_frame(&frame, false, cx.counters, cx.now) {
            Ok(Some(_)) => {}
            Ok(None) => cx.counters.firetower_loops.up(),
            Err(refusal) => refuse(cx, Some(frame), &refusal.to_string()),
        }
        Next::Continue
    }

    fn announce(&mut self, cx: &mut Context<'_>, frame: FireFrame<'_>, subscribes: bool) -> Next {
        if subscribes && cx.hub.is_crowded(EventMask::SUBSCRIBE, Some(self.link().clone())) {
            cx.counters.reads_paused_by_host.up();
            return Next::Wait;
        }
        if let Err(why) = self.introduce(cx, frame.source) {
            refuse(cx, Some(frame), why);
            // Who has a right to the name comes back when the other one is gone, and announces everything again.
            return if why == NAME_IS_TAKEN { Next::Close(CloseReason::NotAllowed) } else { Next::Continue };
        }
        let message_id = repeated(frame.message_id).into();
        self.work = Some(Box::new(AnnouncedList { subscribes, message_id, topics: frame.topic.into(), done: 0 }));
        self.go_on(cx)
    }

    /// A gateway that names itself takes the place of what is left of it from before it came back from the same address.
    fn introduce(&mut self, cx: &Context<'_>, name: &str) -> Result<(), &'static str> {
        if matches!(name, "" | firetower::USER | firetower::PLATFORM | SYSTEM) {
            return Ok(());
        }
        if name.starts_with(SERVER_PREFIX) && cx.hub.is_gateway() {
            // What each of them has subscribed to would be announced by the other, around and around.
            return Err("a server that is a gateway itself is no manager of another");
        }
        match &self.name {
            None if name.len() > MAX_REPEATED => return Err("a gateway's name has at most 255 bytes"),
            None => {
                let name: Arc<str> = name.into();
                if !cx.hub.firetower().enter(&name, self.link()) {
                    return Err(NAME_IS_TAKEN);
                }
                self.name = Some(name);
            }
            Some(own) if **own != *name => return Err("a connection is that of one gateway"),
            Some(_) => {}
        }
        Ok(())
    }

    /// Goes on with what was announced, as much as the turn allows: one topic at least.
    fn go_on(&mut self, cx: &mut Context<'_>) -> Next {
        let Some(mut work) = self.work.take() else { return Next::Continue };
        loop {
            let rest = &work.topics[work.done..];
            let name = rest.split(',').next().unwrap_or_default();
            let result = if work.subscribes { self.join(cx, name) } else { self.part(cx, name) };
            answer(cx, &work, name, result);
            if name.len() == rest.len() {
                return Next::Continue;
            }
            work.done += name.len() + 1;
            if cx.budget.is_used_up() {
                self.work = Some(work);
                return Next::Again;
            }
        }
    }

    fn member(&self) -> Subscriber {
        Subscriber { slot: self.link().slot(), node: NodeRef::NONE }
    }

    /// One client more has subscribed.
    fn join(&mut self, cx: &mut Context<'_>, name: &str) -> Result<(), TopicRefusal> {
        cx.budget.spend(budget::SUBSCRIPTION);
        cx.counters.subscribes.up();
        let joined = self.try_join(cx, name);
        if joined.is_err() {
            cx.counters.subscribes_refused.up();
        }
        joined
    }

    fn try_join(&mut self, cx: &mut Context<'_>, name: &str) -> Result<(), TopicRefusal> {
        // A filter is none here: topics match as they are written.
        topic::check_name(name)?;
        if topic::is_of_server(name) {
            return Err(TopicRefusal::OfServer);
        }
        let (filter, member) = (Filter::Exact(name), self.member());
        let known = cx.seldom.members.find(filter).filter(|id| self.topics.contains_key(id));
        let bytes = if known.is_some() { SUBSCRIPTION_BYTES } else { subscription_bytes(Filter::Exact(name)) };
        if self.announced >= cx.hub.limits().firetower_max_subscriptions || !cx.hub.topics().has_share(bytes, 1) {
            return Err(TopicRefusal::TooManySubscriptions);
        }
        let subscribed = cx.hub.topics().subscribe(cx.seldom.thread, filter, None, cx.now)?;
        if let Some(id) = known.or_else(|| cx.seldom.members.insert(filter, member, subscribed.since)) {
            *self.topics.entry(id).or_default() += 1;
            self.announced += 1;
            self.bytes += bytes;
            if known.is_none()
                && let Some(filter) = cx.seldom.members.filter(id)
            {
                TopicSubscriber::connection(self.link(), None).note(cx, filter, true);
            }
        }
        Ok(())
    }

    /// One client less has subscribed. What nobody had subscribed to is passed over.
    fn part(&mut self, cx: &mut Context<'_>, name: &str) -> Result<(), TopicRefusal> {
        cx.budget.spend(budget::SUBSCRIPTION);
        cx.counters.unsubscribes.up();
        topic::check_name(name)?;
        let filter = Filter::Exact(name);
        let Some(id) = cx.seldom.members.find(filter) else { return Ok(()) };
        let Some(count) = self.topics.get_mut(&id) else { return Ok(()) };
        *count -= 1;
        self.bytes -= if *count == 0 { subscription_bytes(Filter::Exact(name)) } else { SUBSCRIPTION_BYTES };
        if *count == 0 {
            self.topics.swap_remove(&id);
            if let Some(filter) = cx.seldom.members.remove(id, self.member()) {
                TopicSubscriber::connection(self.link(), None).note(cx, &filter, false);
            }
        }
        self.announced -= 1;
        cx.hub.topics().unsubscribe(cx.seldom.thread, filter, cx.now);
        Ok(())
    }

    /// Nothing behind this can be read.
    #[cold]
    fn break_off(&self, cx: &mut Context<'_>, why: &'static str) -> Next {
        cx.counters.firetower_violations.up();
        cx.connection_log.failed(&why, self.link(), cx.now);
        refuse(cx, None, why);
        Next::Close(CloseReason::BrokenStream)
    }

    /// The time is over within which one that has begun like a frame had to be a whole one.
    pub(super) fn register_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey, look: Look) -> Next {
        let next = self.bus.register_timer(cx, timer, look);
        if matches!(next, Next::Close(_)) {
            refuse(cx, None, "no frame came in time");
        }
        next
    }

    /// It is time for a heartbeat.
    pub(super) fn heartbeat_timer(&mut self, cx: &mut Context<'_>, timer: TimerKey) -> Next {
        if self.heartbeat == Some(timer) && cx.wheel.has_fired(timer) {
            write(cx, &firetower::HEARTBEAT_FRAME);
            cx.wheel.rearm(timer, cx.now.mono + HEARTBEAT_TIME_US);
        }
        Next::Continue
    }

    pub(super) fn close(&mut self, cx: &mut Context<'_>, reason: CloseReason) -> Next {
        if let Some(timer) = self.heartbeat.take() {
            cx.wheel.remove(timer);
        }
        self.work = None;
        self.count();
        if let Some(name) = self.name.take() {
            cx.hub.firetower().leave(&name, self.link());
        }
        let member = self.member();
        while let Some((id, count)) = self.topics.pop() {
            let Some(name) = cx.seldom.members.filter(id).cloned() else { continue };
            let mut left = count;
            while left > 0 && !cx.budget.is_used_up() {
                cx.budget.spend(budget::SUBSCRIPTION);
                cx.hub.topics().unsubscribe(cx.seldom.thread, Filter::Exact(&name), cx.now);
                left -= 1;
            }
            if left > 0 {
                self.topics.insert(id, left);
                return Next::Again;
            }
            cx.seldom.members.remove(id, member);
            TopicSubscriber::connection(self.link(), None).note(cx, &name, false);
        }
        self.bus.close(cx, reason)
    }

    /// Counts what is kept now.
    fn count(&mut self) {
        let kept = self.work.as_ref().map_or(0, |work| size_of::<AnnouncedList>() + work.topics.len() + work.message_id.len());
        self.link().memory().change(Part::Input, self.counted, kept);
        self.counted = kept;
    }
}

impl Drop for GatewaySession {
    fn drop(&mut self) {
        self.link().memory().remove(Part::Input, self.counted);
    }
}

fn answer(cx: &mut Context<'_>, work: &AnnouncedList, name: &str, result: Result<(), TopicRefusal>) {
    let kind = if work.subscribes { firetower::ON_SUBSCRIBE } else { firetower::ON_UNSUBSCRIBE };
    let topic = if name.is_empty() || name.len() > MAX_REPEATED { NO_TOPIC } else { name };
    let frame = |kind, content| FireFrame { kind, message_id: &work.message_id, source: SYSTEM, topic, content };
    match result {
        Ok(()) => {
            let count = cx.hub.topics().subscribers(name).to_string();
            write(cx, &frame(kind, count.as_bytes()));
        }
        Err(refusal) => {
            cx.counters.firetower_refused.up();
            write(cx, &frame(firetower::ERROR, refusal.to_string().as_bytes()));
        }
    }
}

/// Says why nothing came of a frame.
fn refuse(cx: &mut Context<'_>, frame: Option<FireFrame<'_>>, why: &str) {
    cx.counters.firetower_refused.up();
    let message_id = frame.map_or("", |frame| repeated(frame.message_id));
    let topic = frame.map(|frame| frame.topic).filter(|topic| topic.len() <= MAX_REPEATED).unwrap_or(NO_TOPIC);
    write(cx, &FireFrame { kind: firetower::ERROR, message_id, source: SYSTEM, topic, content: why.as_bytes() });
}

fn repeated(field: &str) -> &str {
    if field.len() <= MAX_REPEATED { field } else { "" }
}

fn write(cx: &mut Context<'_>, frame: &FireFrame<'_>) {
    let written = frame.write(cx.replies.raw());
    debug_assert!(written.is_ok(), "its fields were read from a frame");
}
