//! How connections of an I/O thread end, one by one, when too much is kept, and all of them when the server stops.
//!
//! Owns how long each may take for it. Why they end is said by whoever ends them.

use super::IoThread;
use super::reading::Left;
use crate::hub::{Budget, Next, Timer, TimerKind};
use crate::model::CloseReason;
use crate::net::connection::{Leaving, Phase};
use crate::net::mailbox::DrainedItem;
use crate::net::relief::{self, Holder, Holdings};
use std::sync::Arc;

/// How long a connection that is ending waits for its peer, in microseconds.
pub(super) const ENDING_TIME_US: u64 = 1_000_000;
/// How long a stopping thread writes what was sent before, and how long it waits for its connections in total, in microseconds.
/// It stays under the 1.5 s that a stop may take.
pub(super) const LAST_COMMANDS_TIME_US: u64 = 250_000;
pub(super) const STOPPING_TIME_US: u64 = 1_100_000;
/// A server that stops asks its clients to come back spread over this many milliseconds for each of them, within bounds: the
/// one that takes its place then registers a thousand per second at most.
const RETURN_TIME_MS: u64 = 1;
const MIN_RETURN_WINDOW_MS: u64 = 1_000;
const MAX_RETURN_WINDOW_MS: u64 = 60_000;

impl IoThread {
    /// Ends a connection: its nodes leave now, its socket as soon as the peer has what was written to it.
    pub(super) fn end(&mut self, slot: usize, reason: CloseReason) {
        self.answer();
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let may_still_read = reason == CloseReason::PeerClosed && connection.has_backlog();
        match &connection.phase {
            Phase::Open(_) => {}
            Phase::Leaving(_) => return,
            // It closed its side only, and may still read: the last write or the timer ends it.
            Phase::Ending { .. } if may_still_read => return,
            // The peer has closed its side, or the socket is broken: nothing to wait for.
            Phase::Ending { .. } => return self.drop_connection(slot),
        }
        if reason == CloseReason::SlowConsumer {
            self.state.counters.slow_consumers.up();
        }
        let truncated = connection.partial_len() as u64;
        if truncated > 0 && matches!(reason, CloseReason::PeerClosed | CloseReason::IoError) {
            self.state.connection_log.incomplete(self.state.now);
        }
        self.state.counters.truncated_bytes.add(truncated);
        let link = connection.link().clone();
        link.close();
        connection.host_full = false;
        connection.peer_slow = false;
        if reason == CloseReason::SlowConsumer {
            self.say_farewell_only(slot, reason);
        }
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let ending = Phase::Ending { link, timer: None };
        if let Phase::Open(session) = std::mem::replace(&mut connection.phase, ending) {
            connection.phase = Phase::Leaving(Box::new(Leaving { session, why: reason }));
            self.state.budget = Budget::share(1);
            self.leave(slot);
        }
    }

    /// Whatever waits for a peer that does not read is dropped, but for the rest of a frame that it has begun to read; it is told why
    /// behind that.
    pub(super) fn say_farewell_only(&mut self, slot: usize, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.drop_waiting(&self.shared.hub, &mut self.state.wheel);
        self.state.replies.speak(connection.link().dialect());
        let begin = self.state.replies.len();
        self.state.replies.farewell(reason);
        self.state.replies.wrap(begin, connection.link().framing());
        // A socket that is broken is found to be so when the rest is written.
        if let Ok(written) = connection.write(&self.shared.hub, &self.state.replies.bytes()[begin..]) {
            self.state.counters.bytes_out.add(written);
        }
        self.state.replies.clear();
    }

    /// Lets nodes of a connection that is over leave, as many as the turn allows. The last one out shuts the door.
    pub(super) fn leave(&mut self, slot: usize) -> Left {
        let Some(connection) = self.connections.get_mut(slot) else { return Left::Nothing };
        let Phase::Leaving(leaving) = &mut connection.phase else { return Left::Nothing };
        let reason = leaving.why;
        if leaving.session.close(&mut self.state.context(&self.shared.hub), reason) == Next::Again {
            self.list(slot, false);
            return Left::More;
        }
        let begin = self.state.replies.len();
        leaving.session.write_close(&mut self.state.replies, reason);
        if self.state.replies.len() > begin {
            self.note_replies(slot);
            self.answer();
        }
        let Some(connection) = self.connections.get_mut(slot) else { return Left::Nothing };
        connection.phase = Phase::Ending { link: connection.link().clone(), timer: None };
        if let Ok(written) = connection.flush(&self.shared.hub, &mut self.pool, &mut self.state.wheel) {
            self.state.counters.bytes_out.add(written);
        }
        let is_over = match reason {
            CloseReason::IoError => true,
            // A WebSocket may be closed before its peer closes the connection.
            CloseReason::PeerClosed => connection.hangup && !connection.has_backlog(),
            _ => false,
        };
        if is_over {
            self.drop_connection(slot);
            return Left::Nothing;
        }
        let key = self.state.wheel.insert(self.state.now.mono + ENDING_TIME_US, Timer::new(slot as u32, TimerKind::Ending));
        if let Phase::Ending { timer, .. } = &mut connection.phase {
            *timer = Some(key);
        }
        if !connection.has_backlog() {
            connection.shut_down_writing();
        }
        // What the peer sent already has had its event: it is read, and thrown away, in the next pass.
        self.list(slot, false);
        Left::More
    }

    pub(super) fn drop_connection(&mut self, slot: usize) {
        let mut connection = self.connections.remove(slot);
        match &mut connection.phase {
            Phase::Ending { timer: Some(timer), .. } => drop(self.state.wheel.remove(*timer)),
            Phase::Leaving(leaving) => {
                // The server stops, and nobody comes back to it.
                self.state.budget = Budget::unlimited();
                leaving.session.close(&mut self.state.context(&self.shared.hub), leaving.why);
            }
            _ => {}
        }
        connection.release(&self.shared.hub, &mut self.state.wheel);
        if !connection.hangup {
            // Not only dropped: a process that was forked off this one may hold a copy of the descriptor.
            connection.shut_down();
        }
        if connection.counted {
            self.shared.leave(connection.link().peer().ip());
            self.state.counters.connections_closed.up();
        } else {
            self.ending_refused -= 1;
        }
    }

    /// When more is kept than may be, those that hold most go first, on whatever thread they are.
    pub(super) fn relieve_memory(&mut self) {
        let (relief, memory) = (&self.shared.relief, self.shared.hub.memory());
        let excess = memory.excess();
        let mut chosen = Vec::new();
        if excess > 0 && self.answered == relief.number() {
            chosen = relief.begin(self.state.now.mono, memory);
        }
        let number = relief.number();
        if self.answered != number {
            self.answered = number;
            chosen.extend(relief.answer(number, self.holdings(), memory));
        }
        for Holder { bytes, who: link } in chosen {
            self.state.connection_log.closed_for_memory(&link, bytes, self.state.now);
            let slot = link.slot() as usize;
            if self.connections.get(slot).is_some_and(|found| Arc::ptr_eq(found.link(), &link)) {
                self.end(slot, CloseReason::SlowConsumer);
            } else {
                link.end(CloseReason::SlowConsumer);
            }
        }
    }

    pub(super) fn holdings(&self) -> Holdings {
        let all: Vec<Holder<usize>> =
            self.connections.iter().map(|(slot, connection)| Holder { bytes: connection.alone(), who: slot }).collect();
        let bytes = all.iter().map(|holder| holder.bytes).sum();
        let most = relief::choose(all, relief::to_free(bytes, self.shared.hub.memory()));
        let link = |slot: usize| self.connections[slot].link().clone();
        Holdings { bytes, most: most.into_iter().map(|Holder { bytes, who }| Holder { bytes, who: link(who) }).collect() }
    }

    pub(super) fn begin_stopping(&mut self) {
        self.is_stopping = true;
        self.state.connection_log.worker_stopping();
        // Those who knocked already are told as well.
        self.close_doors();
        let open: Vec<usize> =
            self.connections.iter().filter(|(_, found)| matches!(found.phase, Phase::Open(_))).map(|(slot, _)| slot).collect();
        let window_ms = (self.shared.connection_count() as u64 * RETURN_TIME_MS).clamp(MIN_RETURN_WINDOW_MS, MAX_RETURN_WINDOW_MS) as u32;
        for slot in open {
            if let Some(session) = self.connections[slot].phase.session() {
                session.say_that_we_stop(&mut self.state.replies, window_ms);
            }
            self.respond(slot, Next::Close(CloseReason::ServerStopped));
        }
        if self.connections.is_empty() {
            self.finish();
        }
    }

    pub(super) fn finish(&mut self) {
        let slots: Vec<usize> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.drop_connection(slot);
        }
        // Nobody is left to write to: what waits is only counted off.
        self.walk = None;
        loop {
            while let Some(next) = self.commands.pop(self.shared.hub.memory()) {
                if let DrainedItem::Command(command) = next {
                    self.follow_command(command);
                }
            }
            self.mailbox.drain_into(&mut self.commands);
            if self.commands.is_empty() {
                break;
            }
        }
        self.state.connection_log.tell_counts();
        if let Some(giving_back) = self.giving_back.take() {
            // The host may unload this code when it has stopped.
            let _ = giving_back.join();
        }
        self.done = true;
    }
}
