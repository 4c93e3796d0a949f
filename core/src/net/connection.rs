//! One accepted connection: its transport, its session, and the bytes that are kept only while they must be.
//!
//! Owns reading into frames and writing out. Does not know other connections or when it is called: [`super::io`] does.

use super::buffers::{BufferPool, Buffers};
use super::outbox::Outbox;
use super::transport::Transport;
use crate::hub::budget::{self, Budget};
use crate::hub::fan_out::FanOut;
use crate::hub::frame::QueuedFrame;
use crate::hub::link::PushError;
use crate::hub::session::Context;
use crate::hub::topic_fan_out::TopicFanOut;
use crate::hub::wheel::TimerKey;
use crate::hub::{Counters, Hub, Link, Next, NodeRef, Session, Timer, TimerKind, Wheel};
use crate::model::CloseReason;
use crate::wire::Dialect;
use rustix::io::Errno;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;

pub(super) struct Connection {
    transport: Transport,
    pub(super) phase: Phase,
    /// What is kept only while it must be.
    buffers: Option<Box<Buffers>>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// The host has no room: reading stopped until it says otherwise.
    pub(super) host_full: bool,
    /// The peer does not read what it asked for: reading stopped until it has taken half.
    pub(super) peer_slow: bool,
    /// The socket took less than it was given; it says when it can take more.
    pub(super) write_blocked: bool,
    /// The peer closed its side, as an event said; reading ends at zero, not at the first short read.
    pub(super) hangup: bool,
    /// Urgent data came, as an event said; reading ends when nothing is left.
    pub(super) urgent: bool,
    /// On one of the thread's lists of connections to go on with.
    pub(super) listed: bool,
    /// The nodes were told that the outbox is full, and are to be told when it is empty.
    pub(super) told_full: bool,
    /// Counted against the limits on connections (those refused at the door are not).
    pub(super) counted: bool,
}

pub(super) enum Phase {
    Open(Session),
    /// It is over, and its nodes leave, some in each turn.
    Leaving(Box<Leaving>),
    /// The last frames are being written; then the peer is given until the timer to close its side, because closing
    /// with unread bytes in the socket would take the last frames away from it.
    Ending {
        link: Arc<Link>,
        timer: Option<TimerKey>,
    },
}

pub(super) struct Leaving {
    pub(super) session: Session,
    pub(super) why: CloseReason,
}

/// Where among the nodes of a connection a fan-out to all of them is.
#[derive(Default)]
pub(super) struct NodePlace {
    /// Which of several that go out together,
    fan_out: usize,
    /// and the last node that had it.
    behind: Option<NodeRef>,
    /// The socket was offered all that waits, and there is no room yet.
    is_tried: bool,
    /// A node was refused something that the host was not told is full.
    pub(super) owes_word: bool,
}

/// How far that came.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    All,
    /// The turn is used up.
    Some,
    /// There is no room, before the socket was tried.
    Full,
}

impl Phase {
    pub(super) fn session(&self) -> Option<&Session> {
        match self {
            Self::Open(session) => Some(session),
            Self::Leaving(leaving) => Some(&leaving.session),
            Self::Ending { .. } => None,
        }
    }

    fn link(&self) -> &Arc<Link> {
        match self {
            Self::Open(session) => session.link(),
            Self::Leaving(leaving) => leaving.session.link(),
            Self::Ending { link, .. } => link,
        }
    }
}

impl Connection {
    pub(super) fn new(transport: Transport, phase: Phase, counted: bool) -> Self {
        Self {
            transport,
            phase,
            buffers: None,
            bytes_in: 0,
            bytes_out: 0,
            host_full: false,
            peer_slow: false,
            write_blocked: false,
            hangup: false,
            urgent: false,
            listed: false,
            told_full: false,
            counted,
        }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        self.phase.link()
    }

    pub(super) fn is_reading_stopped(&self) -> bool {
        self.host_full || self.peer_slow
    }

    /// A peer that does not read what it asked for has taken some of it within `timeout`.
    pub(super) fn takes_replies(&self, now: u64, timeout: u64) -> bool {
        self.buffers.as_ref().is_some_and(|rest| now <= rest.took_at + timeout)
    }

    /// The peer has taken something that had waited, or is asked to from now on.
    pub(super) fn set_took_at(&mut self, now: u64) {
        if let Some(rest) = &mut self.buffers {
            rest.took_at = now;
        }
    }

    /// The memory that is free when this connection is gone.
    pub(super) fn alone(&self) -> usize {
        let session = if let Phase::Open(session) = &self.phase { session.node_bytes() + session.kept_bytes() } else { 0 };
        session + self.buffers.as_ref().map_or(0, |rest| rest.counted_in + rest.outbox.alone())
    }

    /// Bytes that the peer could take, if it read.
    pub(super) fn unread(&self) -> usize {
        self.buffers.as_ref().map_or(0, |rest| rest.outbox.len())
    }

    /// These, and those that wait for it to speak v2.
    pub(super) fn waiting(&self) -> usize {
        self.buffers.as_ref().map_or(0, |rest| rest.outbox.len() + rest.outbox.held_len())
    }

    /// Something waits for the socket, which is given until the timer to take some of it, or for the peer to speak v2, which is given as
    /// long. `awake` is the time by which they are judged.
    pub(super) fn watch(&mut self, wheel: &mut Wheel<Timer>, deadline: u64, awake: u64) {
        let slot = self.link().slot();
        let Some(rest) = &mut self.buffers else { return };
        if rest.outbox.held_len() == 0 {
            rest.held_since = None;
        } else {
            rest.held_since.get_or_insert(awake);
        }
        if rest.outbox.has_backlog() {
            rest.stuck_since.get_or_insert(awake);
        }
        if rest.timer.is_none() && !rest.outbox.is_empty() {
            rest.timer = Some(wheel.insert(deadline, Timer::new(slot, TimerKind::Outbox)));
        }
    }

    pub(super) fn set_moved(&mut self, awake: u64) {
        if let Some(Buffers { stuck_since: Some(since), .. }) = self.buffers.as_deref_mut() {
            *since = awake;
        }
    }

    /// Since when the socket has taken nothing of what waits for it, or the peer has not spoken the v2 that frames are held for, whichever
    /// is longer ago; if this is the timer for that.
    pub(super) fn stuck_since(&self, timer: TimerKey) -> Option<u64> {
        let rest = self.buffers.as_ref().filter(|rest| rest.timer == Some(timer))?;
        rest.stuck_since.into_iter().chain(rest.held_since).min()
    }

    pub(super) fn partial_len(&self) -> usize {
        self.buffers.as_ref().map_or(0, |rest| rest.partial.len() - rest.done) + self.refused_len().unwrap_or(0)
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.transport.recv(buffer) {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Hands bytes to the session, behind those that were kept, and keeps what is not a whole frame yet. With empty
    /// `input` the session gets another look at what was kept.
    pub(super) fn feed(&mut self, cx: &mut Context<'_>, input: &mut [u8]) -> Next {
        let Phase::Open(session) = &mut self.phase else {
            // It is over. Nothing that it sends is looked at any more, nor what was kept of it.
            self.forget_input(cx.hub);
            return Next::Continue;
        };
        let next = match &mut self.buffers {
            Some(rest) if !rest.partial.is_empty() => {
                if !input.is_empty() {
                    rest.keep(input);
                }
                let (consumed, next) = session.receive_in_place(cx, &mut rest.partial[rest.done..]);
                rest.forget(consumed);
                next
            }
            rest => {
                let (consumed, next) = session.receive_in_place(cx, input);
                if consumed < input.len() {
                    rest.get_or_insert_default().keep(&input[consumed..]);
                }
                next
            }
        };
        self.host_full = next == Next::Wait;
        if let Some(rest) = &mut self.buffers {
            rest.is_unfinished = matches!(next, Next::Again | Next::Later | Next::Http | Next::Firetower);
            rest.count(cx.hub.memory());
            if rest.is_empty() {
                self.buffers = None;
            }
        }
        next
    }

    /// What was kept is for another session.
    pub(super) fn become_other(&mut self, cx: &mut Context<'_>, next: Next) {
        if let Phase::Open(session) = &mut self.phase {
            session.become_other(cx, next);
        }
        if next == Next::Firetower {
            self.transport.notice_loss_within(cx.hub.heartbeat_timeout());
        }
    }

    fn forget_input(&mut self, hub: &Hub) {
        if let Some(rest) = &mut self.buffers {
            rest.partial = Vec::new();
            rest.done = 0;
            rest.is_unfinished = false;
            rest.count(hub.memory());
        }
    }

    /// Keeps nothing but the rest of the frame that was begun, without which the peer could not read what comes behind it.
    pub(super) fn drop_waiting(&mut self, hub: &Hub, wheel: &mut Wheel<Timer>) {
        self.forget_input(hub);
        if let Some(rest) = &mut self.buffers {
            if let Some(timer) = rest.timer.take() {
                wheel.remove(timer);
            }
            let dropped = rest.outbox.drop_waiting();
            rest.count(hub.memory());
            if rest.is_empty() {
                self.buffers = None;
            }
            self.link().remove_queued(dropped);
        }
    }

    /// Whole frames may be kept, to go on with before anything is read.
    pub(super) fn is_unfinished(&self) -> bool {
        self.buffers.as_ref().is_some_and(|rest| rest.is_unfinished)
            || !self.host_full && self.refused_len().is_some()
            || self.is_replaying()
    }

    /// What was kept of topics is still to be written.
    pub(super) fn is_replaying(&self) -> bool {
        matches!(&self.phase, Phase::Open(session) if session.is_replaying())
    }

    /// What its session keeps for a host that had no room.
    fn refused_len(&self) -> Option<usize> {
        if let Phase::Open(session) = &self.phase { session.refused_len() } else { None }
    }

    /// The host has room again: what was kept for it comes before anything is read.
    pub(super) fn resume(&mut self) {
        self.host_full = false;
        if let Some(rest) = &mut self.buffers {
            rest.is_unfinished = true;
        }
    }

    /// Queues what another thread wants written; `flush` writes it.
    pub(super) fn enqueue(&mut self, frame: QueuedFrame, pool: &mut BufferPool) {
        let speaks_v2 = self.phase.link().dialect() == Dialect::V2;
        let rest = self.buffers.get_or_insert_with(|| pool.take());
        rest.outbox.push(frame, speaks_v2, self.write_blocked);
    }

    /// Queues what goes to all nodes of this connection, from where that was left off; `flush` writes it.
    pub(super) fn deliver(
        &mut self,
        run: &[Arc<FanOut>],
        place: &mut NodePlace,
        hub: &Hub,
        counters: &Counters,
        budget: &mut Budget,
        pool: &mut BufferPool,
    ) -> Progress {
        let Phase::Open(session) = &self.phase else { return Progress::All };
        let (link, limit) = (session.link(), hub.limits().outbox_bytes);
        while let Some(fan_out) = run.get(place.fan_out) {
            for node in session.nodes_behind(place.behind) {
                if budget.is_used_up() {
                    return Progress::Some;
                }
                budget.spend(budget::DELIVERY);
                // Also where it was disconnected since: its end was posted behind this, or this would not find it here.
                if let Some(frame) = fan_out.frame(node) {
                    match link.reserve(frame.len(), limit) {
                        Ok(()) => {
                            let speaks_v2 = link.dialect() == Dialect::V2;
                            let buffers = self.buffers.get_or_insert_with(|| pool.take());
                            buffers.outbox.push(frame, speaks_v2, self.write_blocked);
                            place.is_tried = false;
                            counters.data_out.up();
                        }
                        Err(PushError::Closed) => return Progress::All,
                        Err(PushError::Full | PushError::ServerFull) if !place.is_tried => {
                            place.is_tried = true;
                            return Progress::Full;
                        }
                        Err(PushError::Full | PushError::ServerFull) => {
                            counters.data_out_refused.up();
                            place.owes_word |= !node.is_told_full();
                        }
                    }
                }
                place.behind = Some(node.reference());
            }
            place.behind = None;
            place.fan_out += 1;
        }
        Progress::All
    }

    /// Queues a publication for one of its nodes, or for itself; `flush` writes it.
    pub(super) fn deliver_message(
        &mut self,
        fan_out: &TopicFanOut,
        node: NodeRef,
        limit: usize,
        pool: &mut BufferPool,
    ) -> Result<bool, PushError> {
        let Phase::Open(session) = &self.phase else { return Ok(false) };
        let Some(frame) = session.message(fan_out, node) else { return Ok(false) };
        let link = session.link();
        match link.reserve(frame.len(), limit) {
            Ok(()) => {
                let speaks_v2 = link.dialect() == Dialect::V2;
                let buffers = self.buffers.get_or_insert_with(|| pool.take());
                buffers.outbox.push(frame, speaks_v2, self.write_blocked);
                Ok(true)
            }
            Err(PushError::Closed) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether frames were held back for a peer that has spoken v2 now. They are queued then.
    pub(super) fn release_held(&mut self) -> bool {
        match &mut self.buffers {
            Some(rest) if rest.outbox.held_len() > 0 && self.phase.link().dialect() == Dialect::V2 => rest.outbox.release_held(),
            _ => false,
        }
    }

    /// Writes whole replies, keeping what the socket does not take.
    pub(super) fn write(&mut self, hub: &Hub, replies: &[u8]) -> io::Result<u64> {
        let mut written = 0;
        let may_write = !self.has_backlog() && !self.write_blocked;
        if may_write {
            written = self.write_some(replies)?;
        }
        if written < replies.len() {
            self.link().add_queued(replies.len() - written);
            let rest = self.buffers.get_or_insert_default();
            if may_write {
                rest.outbox.push_rest(replies, written);
            } else {
                rest.outbox.push_replies(replies);
            }
            rest.count(hub.memory());
        }
        Ok(written as u64)
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.transport.send(bytes) {
                Ok(written) => {
                    self.write_blocked = written < bytes.len();
                    self.bytes_out += written as u64;
                    return Ok(written);
                }
                Err(Errno::AGAIN) => {
                    self.write_blocked = true;
                    return Ok(0);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes what waits, as much as the socket takes.
    pub(super) fn flush(&mut self, hub: &Hub, pool: &mut BufferPool, wheel: &mut Wheel<Timer>) -> io::Result<u64> {
        let mut total = 0;
        let Some(rest) = &mut self.buffers else { return Ok(0) };
        while rest.outbox.has_backlog() && !self.write_blocked {
            let (offered, result) = rest.outbox.send(&self.transport, &mut pool.small);
            match result {
                Ok(written) => {
                    self.write_blocked = written < offered;
                    rest.outbox.advance(written);
                    self.bytes_out += written as u64;
                    self.phase.link().remove_queued(written);
                    total += written as u64;
                }
                Err(Errno::AGAIN) => self.write_blocked = true,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !rest.outbox.has_backlog() {
            rest.stuck_since = None;
        }
        if rest.outbox.is_empty()
            && let Some(timer) = rest.timer.take()
        {
            wheel.remove(timer);
        }
        // What waited for nobody but this thread was never counted.
        rest.count(hub.memory());
        if rest.is_empty()
            && let Some(rest) = self.buffers.take()
        {
            pool.put_back(rest);
        }
        Ok(total)
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.buffers.as_ref().is_some_and(|rest| rest.outbox.has_backlog())
    }

    /// Tells the peer that nothing more will come.
    pub(super) fn shut_down_writing(&self) {
        self.transport.shut_down(Shutdown::Write);
    }

    /// Ends both directions.
    pub(super) fn shut_down(&self) {
        self.transport.shut_down(Shutdown::Both);
    }

    /// Gives up what is still kept; to be called once, before the connection is dropped.
    pub(super) fn release(&mut self, hub: &Hub, wheel: &mut Wheel<Timer>) {
        self.link().close();
        if let Some(mut rest) = self.buffers.take() {
            if let Some(timer) = rest.timer {
                wheel.remove(timer);
            }
            rest.partial = Vec::new();
            rest.outbox = Outbox::default();
            rest.count(hub.memory());
        }
    }
}

#[cfg(test)]
mod tests;
