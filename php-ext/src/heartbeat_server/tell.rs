//! How what happened reaches a server's callbacks: one event after the other, each told once.
//!
//! How far that has come is [`Delivery`]'s. Where events come from is [`Inbox`]'s and [`Attachment`]'s, when they have their turn is
//! [`Runtime`]'s.
//!
//! [`Delivery`]: super::delivery::Delivery
//! [`Inbox`]: heartbus_core::inbox::Inbox
//! [`Attachment`]: heartbus_core::bus::Attachment

use super::Kind::*;
use super::delivery::{Mark, Pending};
use super::{Kind, Server, State};
use crate::backend::Registration;
use crate::classes::{heartbeat_monitor, peer};
use crate::php::{Callable, Outcome, list, text, value};
use crate::runtime::{Runtime, Source};
use ext_php_rs::types::Zval;
use heartbus_core::engine::LogLine;
use heartbus_core::event::{Departure, Event, Fill, TopicChange};
use std::collections::VecDeque;
use std::ptr;
use std::rc::Rc;
use std::time::Instant;

impl Source for Server {
    fn pending(&self) -> usize {
        self.delivery.borrow().pending() + usize::from(self.untold.borrow().is_some())
    }

    fn refill(&self, max: usize) -> Outcome {
        self.acknowledge();
        if let Some(inbox) = &*self.inbox.borrow() {
            let mut events = VecDeque::new();
            inbox.drain(&mut events, max);
            let events = events.into_iter().map(|event| event.map_node(|node| Registration::Here(node.into_node())));
            self.delivery.borrow_mut().push_own(events);
        } else if matches!(self.state.get(), State::Running | State::Stopping) {
            let mut events = VecDeque::new();
            // An engine that is gone shows in the phase.
            self.next_door(|next_door| next_door.attachment.borrow_mut().drain(&mut events, max));
            self.objects.release(self.last_batch());
            let mut delivery = self.delivery.borrow_mut();
            delivery.set_may_have_more(events.len() == max);
            if delivery.may_have_more() {
                Runtime::current().wake_loop();
            }
            for delivered in events {
                let mark = Mark {
                    sequence: delivered.told.sequence,
                    redelivered: delivered.told.redelivered,
                    batch: delivered.batch,
                    is_last: delivered.is_last,
                    ..Mark::default()
                };
                delivery.push_delivered(delivered.told.event.map_node(Registration::NextDoor), delivered.told.watched, mark);
            }
        }
        Ok(())
    }

    fn tell_next(&self, runtime: &Runtime) -> Outcome<bool> {
        if self.untold.borrow().is_some() {
            return self.tell_untold();
        }
        // The batch before must not be told again, whatever becomes of this one.
        self.acknowledge();
        let messages = if self.has(DataBatch) { self.delivery.borrow_mut().take_messages() } else { Vec::new() };
        if let [first, .., last] | [first @ last] = &messages[..] {
            return self.tell_from(first.mark, last.mark, || self.tell_messages(runtime, &messages));
        }
        let next = self.delivery.borrow_mut().take_next();
        let Some(pending) = next else { return Ok(false) };
        let mark = pending.mark;
        // Of publications there are copies alone.
        let is_for_channel = pending.watched && !matches!(pending.event, Event::Message { .. });
        self.tell_from(mark, mark, || if is_for_channel { self.tell_channel(runtime, &pending) } else { self.tell(runtime, pending) })
    }

    fn has_more(&self) -> bool {
        self.may_have_more() || self.objects.has_to_wake()
    }

    fn wake(&self) -> Outcome<usize> {
        self.objects.wake()
    }

    fn settle(&self, runtime: &Runtime) -> Outcome<bool> {
        self.shared().map_or(Ok(false), |server| server.settle_server(runtime))
    }

    fn wakes_at(&self) -> Option<Instant> {
        [self.timers.next_due(), self.retry_at.get()].into_iter().flatten().min()
    }

    fn timers(&self) -> usize {
        self.timers.len()
    }

    fn take_due(&self, now: Instant) -> Option<Rc<Callable>> {
        self.timers.take_due(now)
    }

    fn take_log(&self, line: LogLine, runtime: &Runtime) -> Option<LogLine> {
        self.take_log_for_worker(line, runtime)
    }

    fn begin_stop(&self, runtime: &Runtime) {
        self.begin_stop_of_server(runtime);
    }

    fn stop_telling(&self) {
        self.tell_until.set(Some(Instant::now()));
    }

    fn shut_down(&self) {
        self.shut_down_server();
    }
}

impl Server {
    /// True when there is a callback, which has run then.
    pub(super) fn call<const N: usize>(&self, kind: Kind, arguments: [Zval; N]) -> Outcome<bool> {
        let callback = self.callbacks.borrow()[kind as usize].clone();
        match callback {
            Some(callback) => callback.call(arguments).map(|_| true),
            None => Ok(false),
        }
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.callbacks.borrow()[kind as usize].is_some()
    }

    fn call_for_node<const N: usize>(
        &self,
        kind: Kind,
        about: &Registration,
        mark: Mark,
        more: impl FnOnce(Zval) -> [Zval; N],
    ) -> Outcome<bool> {
        let engine = self.engine.borrow().clone();
        match engine {
            // Making the object costs more than looking whether anybody wants it.
            Some(engine) if self.has(kind) => self.call(kind, more(self.objects.node(&engine, about, Some(mark.batch))?)),
            _ => Ok(false),
        }
    }

    fn call_for_subscriber(&self, kind: Kind, change: &TopicChange, node: Option<&Registration>, mark: Mark) -> Outcome<bool> {
        let topic = text(&*change.topic);
        match node {
            Some(node) => self.call_for_node(kind, node, mark, |node| [node, topic]),
            None if self.has(kind) => {
                self.call(kind, [peer::peer(change.connection_id, change.who.address, change.who.user.as_deref())?, topic])
            }
            None => Ok(false),
        }
    }

    /// A node timed out. True when a monitor was told.
    fn tell_monitors(&self, about: &Registration, mark: Mark) -> Outcome<bool> {
        let monitors = self.objects.monitors();
        let Some(engine) = self.engine().filter(|_| !monitors.is_empty()) else { return Ok(false) };
        let node = self.objects.node(&engine, about, Some(mark.batch))?;
        for monitor in monitors.iter().filter_map(Zval::object) {
            heartbeat_monitor::tell(ptr::from_ref(monitor).cast_mut(), &node)?;
        }
        Ok(true)
    }

    /// If the callback throws or suspends its fiber, the next turn of the loop wakes them.
    fn wake_for_waiters(&self, runtime: &Runtime, are_waiting: bool) {
        if are_waiting {
            runtime.wake_loop();
        }
    }

    /// Tells events that follow each other, and remembers how far that has come.
    fn tell_from(&self, first: Mark, last: Mark, tell: impl FnOnce() -> Outcome<bool>) -> Outcome<bool> {
        let begun = self.delivery.borrow_mut().begin(first, last);
        let told = tell();
        self.delivery.borrow_mut().end(begun);
        if told.is_ok() {
            self.acknowledge();
        }
        told
    }

    /// Says that every event of a batch was told.
    fn acknowledge(&self) {
        let finished = self.delivery.borrow_mut().take_finished();
        if let Some(batch) = finished {
            self.say(|attachment| attachment.acknowledge(batch));
        }
    }

    /// The last batch of which an event has come.
    pub(super) fn last_batch(&self) -> u64 {
        self.delivery.borrow().last_batch()
    }

    /// Lets a channel have what its node sent, or know that it left.
    fn tell_channel(&self, runtime: &Runtime, pending: &Pending<Registration>) -> Outcome<bool> {
        let is_waited_for = match &pending.event {
            Event::Data { node, channel_id, payload } => self.objects.receive(node, *channel_id, payload, pending.mark.sequence),
            Event::Left { node, .. } => self.objects.node_left(node),
            _ => false,
        };
        self.wake_for_waiters(runtime, is_waited_for);
        Ok(self.objects.wake()? > 0)
    }

    fn tell(&self, runtime: &Runtime, Pending { event, mark, .. }: Pending<Registration>) -> Outcome<bool> {
        if let Event::Register { count, .. } | Event::Left { count, .. } = &event {
            self.delivery.borrow_mut().count_merged(*count);
        }
        match event {
            Event::Connect { connection_id, peer, door } => {
                let ip = text(peer.ip().to_canonical().to_string());
                self.call(Connect, [ip, value(i64::from(peer.port())), value(connection_id as i64), text(door.as_str())])
            }
            Event::Register { node, .. } => self.call_for_node(Register, &node, mark, |node| [node]),
            Event::Heartbeat { node, .. } => self.call_for_node(Heartbeat, &node, mark, |node| [node]),
            Event::Data { ref node, channel_id, ref payload } => {
                // Into the queue first, without running anything: whatever the callback does, the order stays.
                let is_waited_for = self.objects.receive(node, channel_id, payload, mark.sequence);
                self.wake_for_waiters(runtime, is_waited_for);
                let called = self.call_for_node(Data, node, mark, |node| [node, text(payload), value(i64::from(channel_id))])?;
                Ok(self.objects.wake()? > 0 || called)
            }
            Event::Left { node, how, .. } => {
                let kind = match how {
                    Departure::Unregistered => Unregister,
                    Departure::TimedOut => Timeout,
                    Departure::Replaced => Replaced,
                    Departure::Disconnected => Disconnected,
                };
                let is_waited_for = self.objects.node_left(&node);
                self.wake_for_waiters(runtime, is_waited_for);
                // First those that never throw: whatever the server's own callback does, they are told.
                let monitored = how == Departure::TimedOut && self.tell_monitors(&node, mark)?;
                let called = self.call_for_node(kind, &node, mark, |node| [node])?;
                Ok(self.objects.wake()? > 0 || called || monitored)
            }
            Event::Buffer { node, fill, .. } => {
                let kind = if fill == Fill::Full { BufferFull } else { BufferDrain };
                self.call_for_node(kind, &node, mark, |node| [node])
            }
            Event::Message { message } => self.tell_message(message),
            Event::Question { question, node } => self.tell_question(&question, node.as_ref(), mark.batch),
            Event::Topic { change, node, .. } => {
                let kind = if change.has_subscribed { Subscribe } else { Unsubscribe };
                self.call_for_subscriber(kind, &change, node.as_ref(), mark)
            }
            Event::Close { connection_id, reason, who } => {
                let closed = self.call(Close, [value(connection_id as i64), text(reason.as_str())])?;
                if !self.has(Offline) {
                    return Ok(closed);
                }
                let peer = peer::peer(connection_id, who.address, who.user.as_deref())?;
                self.call(Offline, [peer, text(reason.as_str())])
            }
        }
    }

    /// Tells messages by one call, whose arguments are those of many calls as lists.
    fn tell_messages(&self, runtime: &Runtime, messages: &[Pending<Registration>]) -> Outcome<bool> {
        let (callback, engine) = (self.callbacks.borrow()[DataBatch as usize].clone(), self.engine());
        let (Some(callback), Some(engine)) = (callback, engine) else { return Ok(false) };
        let mut nodes = Vec::with_capacity(messages.len());
        let mut payloads = Vec::with_capacity(messages.len());
        let mut channels = Vec::with_capacity(messages.len());
        for Pending { event, mark, .. } in messages {
            let Event::Data { node, channel_id, payload } = event else { continue };
            // Into the queues first, as above.
            let is_waited_for = self.objects.receive(node, *channel_id, payload, mark.sequence);
            self.wake_for_waiters(runtime, is_waited_for);
            nodes.push(node);
            payloads.push(text(payload));
            channels.push(value(i64::from(*channel_id)));
        }
        let batch = messages.first().map_or(0, |first| first.mark.batch);
        let nodes = self.objects.nodes(&engine, nodes, batch)?;
        callback.call([nodes, payloads, channels].map(list))?;
        self.objects.wake()?;
        Ok(true)
    }
}
