//! What is written to connections, and what follows from how much of it their sockets take.
//!
//! Owns the order: those that are read together are answered together. Who is told that somebody is slow is the session's business.

use super::{ANSWERED_TOGETHER, IoThread, READ_BUFFER};
use crate::hub::Next;
use crate::model::{CloseReason, EventMask, Fill};
use crate::net::connection::{Connection, Phase};

impl IoThread {
    pub(super) fn has_enough_to_answer(&self) -> bool {
        self.unanswered.len() >= ANSWERED_TOGETHER || self.state.replies.bytes().len() >= READ_BUFFER
    }

    /// Writes the replies to whoever was read since the last time.
    pub(super) fn answer(&mut self) {
        if self.unanswered.is_empty() {
            return;
        }
        let mut unanswered = std::mem::take(&mut self.unanswered);
        let mut broken = Vec::new();
        let mut begin = 0;
        for (slot, end) in unanswered.drain(..) {
            let replies = &self.state.replies.bytes()[begin..end];
            begin = end;
            let result = match self.connections.get_mut(slot) {
                Some(connection) if !replies.is_empty() => connection.write(&self.shared.hub, replies),
                _ => Ok(0),
            };
            match result {
                Ok(written) => {
                    self.state.counters.bytes_out.add(written);
                    self.settle(slot);
                }
                Err(_) => broken.push(slot),
            }
        }
        self.state.replies.clear();
        self.unanswered = unanswered;
        for slot in broken {
            self.end(slot, CloseReason::IoError);
        }
    }

    /// What was added to the thread's buffer since the last time is for this connection.
    pub(super) fn note_replies(&mut self, slot: usize) {
        let end = self.state.replies.bytes().len();
        match self.unanswered.last_mut() {
            Some((last, until)) if *last == slot => *until = end,
            _ => self.unanswered.push((slot, end)),
        }
    }

    /// Writes the replies that a session made, then does what it said.
    pub(super) fn respond(&mut self, slot: usize, next: Next) {
        self.note_replies(slot);
        self.answer();
        if let Next::Close(reason) = next {
            self.end(slot, reason);
        }
    }

    /// Looks what the replies to a connection changed for it.
    pub(super) fn settle(&mut self, slot: usize) {
        if self.connections.get_mut(slot).is_some_and(Connection::release_held) {
            self.flush(slot);
        }
        let Some(connection) = self.connections.get_mut(slot).filter(|connection| connection.has_backlog()) else { return };
        // A peer that does not read what it asked for is heard no more until it does.
        let limit = self.shared.hub.limits().outbox_bytes;
        // Who is given what was kept for it needs room for what is published meanwhile as well.
        let limit = if connection.is_replaying() { limit / 2 } else { limit };
        if !connection.peer_slow && connection.unread() > limit {
            connection.peer_slow = true;
            connection.set_took_at(self.state.now.mono);
            self.state.counters.reads_paused_by_peer.up();
        }
        self.watch(slot);
    }

    /// After what waits for a socket has become more or less.
    pub(super) fn watch(&mut self, slot: usize) {
        let awake = self.awake();
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let waiting = connection.waiting();
        let is_full = waiting >= self.shared.hub.limits().outbox_bytes;
        match connection.phase.session() {
            Some(session) => session.set_full(&self.state.counters, is_full),
            None => connection.link().set_full(is_full),
        }
        if is_full && !connection.told_full {
            self.tell_full(slot);
        } else if waiting == 0 && connection.told_full {
            self.tell_drained(slot);
        }
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if let (Some(timeout), Phase::Open(_)) = (self.shared.slow_consumer_timeout, &connection.phase) {
            connection.watch(&mut self.state.wheel, self.state.now.mono + timeout, awake);
        }
    }

    /// From now on the nodes of a connection are owed a word when nothing waits for it any more.
    pub(super) fn tell_full(&mut self, slot: usize) {
        if self.shared.hub.wants(EventMask::BUFFER)
            && let Some(connection @ Connection { phase: Phase::Open(_), .. }) = self.connections.get_mut(slot)
        {
            connection.told_full = true;
            if let Phase::Open(session) = &connection.phase {
                session.tell_fill(&mut self.state.context(&self.shared.hub), Fill::Full);
            }
        }
    }

    pub(super) fn tell_drained(&mut self, slot: usize) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.told_full = false;
            if let Phase::Open(session) = &connection.phase {
                session.tell_fill(&mut self.state.context(&self.shared.hub), Fill::Drained);
            }
        }
    }

    /// The time in microseconds, but for that which this thread slept through.
    pub(super) fn awake(&self) -> u64 {
        self.state.now.mono - self.asleep
    }

    pub(super) fn flush(&mut self, slot: usize) {
        let awake = self.awake();
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        match connection.flush(&self.shared.hub, &mut self.pool, &mut self.state.wheel) {
            Ok(0) => {}
            Ok(written) => {
                self.state.counters.bytes_out.add(written);
                connection.set_took_at(self.state.now.mono);
                connection.set_moved(awake);
            }
            Err(_) => return self.end(slot, CloseReason::IoError),
        }
        let resumes = connection.peer_slow && connection.unread() <= self.shared.hub.limits().outbox_bytes / 2;
        if resumes {
            connection.peer_slow = false;
        }
        if matches!(connection.phase, Phase::Ending { .. }) && !connection.has_backlog() {
            connection.shut_down_writing();
        }
        if resumes {
            self.list(slot, false);
        }
        self.watch(slot);
    }
}
