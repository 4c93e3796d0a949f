//! How what happened reaches a server's callbacks: one event after the other, each told once.
//!
//! Owns the events on their way, and what a worker acknowledges of them. Where they come from is [`Inbox`]'s and
//! [`Attachment`]'s, when they have their turn is [`Host`]'s.
//!
//! [`Inbox`]: heartbus_core::inbox::Inbox
//! [`Attachment`]: heartbus_core::bus::Attachment

use super::Kind::*;
use super::{Kind, Server, State};
use crate::backend::Registration;
use crate::host::{Host, Source};
use crate::php::{Outcome, list, text, value};
use ext_php_rs::types::Zval;
use heartbus_core::event::{Departure, Event, Fill};
use std::collections::VecDeque;

/// What one call of a `data.batch` callback gets: as many messages as wait, up to these bounds. A single longer message
/// still makes a call of its own.
const MESSAGES: usize = 1024;
const MESSAGE_BYTES: usize = 1 << 20;

/// An event on its way to its callback.
pub(super) struct Pending {
    event: Event<Registration>,
    /// Only for a channel that PHP holds: the callbacks for it run in another worker.
    watched: bool,
    mark: Mark,
}

/// Where an event stands among the others.
#[derive(Copy, Clone)]
struct Mark {
    sequence: u64,
    redelivered: bool,
    /// A worker's batch, and its place there.
    batch: u64,
    place: u32,
    is_last: bool,
}

impl Source for Server {
    fn pending(&self) -> usize {
        self.pending.borrow().len()
    }

    fn refill(&self, max: usize) -> Outcome {
        self.acknowledge();
        let mut pending = self.pending.borrow_mut();
        if let Some(inbox) = &*self.inbox.borrow() {
            let mut events = VecDeque::new();
            inbox.drain(&mut events, max);
            let first = self.sequence.get() + 1;
            self.sequence.set(self.sequence.get() + events.len() as u64);
            pending.extend(events.into_iter().zip(first..).map(|(event, sequence)| Pending {
                event: event.map_node(|node| Registration::Here(node.into_node())),
                watched: false,
                mark: Mark { sequence, redelivered: false, batch: 0, place: 0, is_last: false },
            }));
        } else if matches!(self.state.get(), State::Running | State::Stopping) {
            let mut events = VecDeque::new();
            // An engine that is gone shows in the phase.
            self.next_door(|next_door| next_door.attachment.borrow_mut().drain(&mut events, max));
            self.views.release(self.last_batch());
            // What has been read already does not make the descriptor readable.
            self.may_have_more.set(events.len() == max);
            if self.may_have_more.get() {
                Host::current().ring();
            }
            pending.extend(events.into_iter().map(|delivered| Pending {
                watched: delivered.told.watched,
                mark: Mark {
                    sequence: delivered.told.sequence,
                    redelivered: delivered.told.redelivered,
                    batch: delivered.batch,
                    place: self.place_in(delivered.batch),
                    is_last: delivered.is_last,
                },
                event: delivered.told.event.map_node(Registration::NextDoor),
            }));
        }
        Ok(())
    }

    fn tell_next(&self, host: &Host) -> Outcome<bool> {
        // The batch before must not be told again, whatever becomes of this one.
        self.acknowledge();
        let together = if self.has(DataBatch) { take_messages(&mut self.pending.borrow_mut()) } else { Vec::new() };
        if let [first, .., last] | [first @ last] = &together[..] {
            return self.tell_from(first.mark, last.mark, || self.tell_messages(host, &together));
        }
        let next = self.pending.borrow_mut().pop_front();
        let Some(pending) = next else { return Ok(false) };
        let mark = pending.mark;
        self.tell_from(mark, mark, || if pending.watched { self.tell_channel(host, &pending) } else { self.tell(host, pending) })
    }
}

/// The messages that wait in front and can be told at once. They are of one worker's batch: what is acknowledged is whole.
/// One that may have been told before comes alone, so that the callback can learn its number, and what kills worker after
/// worker takes none of its neighbours along.
fn take_messages(pending: &mut VecDeque<Pending>) -> Vec<Pending> {
    let Some(batch) = pending.front().map(|first| first.mark.batch) else { return Vec::new() };
    let (mut count, mut bytes) = (0, 0);
    for Pending { event, watched, mark } in pending.iter().take(MESSAGES) {
        let Event::Data { payload, .. } = event else { break };
        bytes += payload.len();
        if *watched || mark.batch != batch || count > 0 && (mark.redelivered || bytes > MESSAGE_BYTES) {
            break;
        }
        count += 1;
        if mark.redelivered {
            break;
        }
    }
    pending.drain(..count).collect()
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
            Some(engine) if self.has(kind) => self.call(kind, more(self.views.node(self.weak(), &engine, about, Some(mark.batch))?)),
            _ => Ok(false),
        }
    }

    fn tell_monitors(&self, about: &Registration, mark: Mark) -> Outcome<bool> {
        match self.engine().filter(|_| self.views.are_monitors_running()) {
            Some(engine) => self.views.tell_monitors(&self.views.node(self.weak(), &engine, about, Some(mark.batch))?),
            None => Ok(false),
        }
    }

    /// If the callback throws or suspends its fiber, the next turn of the loop wakes them.
    fn ring_for_waiters(&self, host: &Host, are_waiting: bool) {
        if are_waiting {
            host.ring();
        }
    }

    /// Tells events that follow each other, and remembers how far that has come.
    fn tell_from(&self, first: Mark, last: Mark, tell: impl FnOnce() -> Outcome<bool>) -> Outcome<bool> {
        self.finished_batch.set(last.is_last.then_some(last.batch));
        let outermost = self.telling.get().or(Some((first.batch, first.place)));
        let is_nested = self.telling.replace(outermost).is_some();
        self.seen.set(Some((last.batch, last.place + 1)));
        let before = self.told.replace(Some((first.sequence, first.redelivered)));
        let told = tell();
        self.told.set(before);
        if !is_nested {
            self.telling.set(None);
        }
        if told.is_ok() {
            self.acknowledge();
        }
        told
    }

    /// Says that every event of a batch was told.
    fn acknowledge(&self) {
        if let Some(batch) = self.finished_batch.take() {
            self.seen.set(None);
            self.say(|attachment| attachment.acknowledge(batch));
        }
    }

    /// The last one of which an event has come.
    pub fn last_batch(&self) -> u64 {
        self.last_place.get().0
    }

    /// The place of the next event of a batch.
    fn place_in(&self, batch: u64) -> u32 {
        let place = match self.last_place.get() {
            (last, place) if last == batch => place + 1,
            _ => 0,
        };
        self.last_place.set((batch, place));
        place
    }

    /// Lets a channel have what its node sent, or know that it left.
    fn tell_channel(&self, host: &Host, pending: &Pending) -> Outcome<bool> {
        let is_waited_for = match &pending.event {
            Event::Data { node, channel_id, payload } => self.views.receive(node, *channel_id, payload, pending.mark.sequence),
            Event::Left { node, .. } => self.views.node_left(node),
            _ => false,
        };
        self.ring_for_waiters(host, is_waited_for);
        Ok(self.views.wake()? > 0)
    }

    fn tell(&self, host: &Host, Pending { event, mark, .. }: Pending) -> Outcome<bool> {
        if let Event::Register { count, .. } | Event::Left { count, .. } = &event {
            self.coalesced.set(self.coalesced.get() + u64::from(count.saturating_sub(1)));
        }
        match event {
            Event::Connect { connection_id, peer } => {
                let ip = text(peer.ip().to_canonical().to_string());
                self.call(Connect, [ip, value(i64::from(peer.port())), value(connection_id as i64)])
            }
            Event::Register { node, .. } => self.call_for_node(Register, &node, mark, |node| [node]),
            Event::Heartbeat { node, .. } => self.call_for_node(Heartbeat, &node, mark, |node| [node]),
            Event::Data { ref node, channel_id, ref payload } => {
                // Into the queue first, without running anything: whatever the callback does, the order stays.
                let is_waited_for = self.views.receive(node, channel_id, payload, mark.sequence);
                self.ring_for_waiters(host, is_waited_for);
                let called = self.call_for_node(Data, node, mark, |node| [node, text(payload), value(i64::from(channel_id))])?;
                Ok(self.views.wake()? > 0 || called)
            }
            Event::Left { node, how, .. } => {
                let kind = match how {
                    Departure::Unregistered => Unregister,
                    Departure::TimedOut => Timeout,
                    Departure::Replaced => Replaced,
                    Departure::Disconnected => Disconnected,
                };
                let is_waited_for = self.views.node_left(&node);
                self.ring_for_waiters(host, is_waited_for);
                // First those that never throw: whatever the server's own callback does, they are told.
                let monitored = how == Departure::TimedOut && self.tell_monitors(&node, mark)?;
                let called = self.call_for_node(kind, &node, mark, |node| [node])?;
                Ok(self.views.wake()? > 0 || called || monitored)
            }
            Event::Buffer { node, fill, .. } => {
                let kind = if fill == Fill::Full { BufferFull } else { BufferDrain };
                self.call_for_node(kind, &node, mark, |node| [node])
            }
            Event::Close { connection_id, reason } => self.call(Close, [value(connection_id as i64), text(reason.as_str())]),
            Event::Client { .. } => Ok(false),
        }
    }

    /// Tells messages by one call, whose arguments are those of many calls as lists.
    fn tell_messages(&self, host: &Host, messages: &[Pending]) -> Outcome<bool> {
        let (callback, engine) = (self.callbacks.borrow()[DataBatch as usize].clone(), self.engine());
        let (Some(callback), Some(engine)) = (callback, engine) else { return Ok(false) };
        let mut nodes = Vec::with_capacity(messages.len());
        let mut payloads = Vec::with_capacity(messages.len());
        let mut channels = Vec::with_capacity(messages.len());
        for Pending { event, mark, .. } in messages {
            let Event::Data { node, channel_id, payload } = event else { continue };
            // Into the queues first, as above.
            let is_waited_for = self.views.receive(node, *channel_id, payload, mark.sequence);
            self.ring_for_waiters(host, is_waited_for);
            nodes.push(node);
            payloads.push(text(payload));
            channels.push(value(i64::from(*channel_id)));
        }
        let batch = messages.first().map_or(0, |first| first.mark.batch);
        let nodes = self.views.nodes(self.weak(), &engine, nodes, batch)?;
        callback.call([nodes, payloads, channels].map(list))?;
        self.views.wake()?;
        Ok(true)
    }
}
