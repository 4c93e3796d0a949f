//! Whose turn it is to say something, and how much of it.
//!
//! Owns the lists of connections that are not done with. What they are told is written in [`super::writing`].

use super::IoThread;
use crate::hub::{Budget, Next};
use crate::model::CloseReason;
use crate::net::connection::Phase;
use mio::event::Event;
use std::io;

/// For how long a pass goes on with connections that have had their turn, and as long again with long frames, in microseconds. One
/// of each has its turn however long the pass has been.
const GOING_ON_TIME_US: u64 = 5_000;

/// Where a connection's turn left off.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// All that its socket had was read and handled, or it is not read any more.
    Nothing,
    /// There is more.
    More,
}

impl IoThread {
    pub(super) fn on_event(&mut self, slot: usize, event: &Event, share: &Budget) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        connection.hangup |= event.is_read_closed() || event.is_error();
        connection.urgent |= event.is_priority();
        if event.is_writable() && connection.write_blocked {
            connection.write_blocked = false;
            self.flush(slot);
        }
        // Who is on a list has its turn when that comes.
        let is_listed = self.connections.get(slot).is_none_or(|connection| connection.listed);
        if !is_listed && (event.is_readable() || event.is_read_closed() || event.is_priority() || event.is_error()) {
            self.turn(slot, share.clone());
        }
    }

    /// Gives those their turn who were not done in an earlier pass: each one at most, and as many as there is time for.
    pub(super) fn go_on(&mut self) {
        if self.ready.is_empty() && self.long.is_empty() {
            return;
        }
        self.look_at_clock();
        let begun = self.state.now.mono;
        for _ in 0..self.ready.len() {
            let Some(slot) = self.ready.pop_front() else { break };
            self.turn_of_listed(slot, Budget::share(1));
            if self.state.now.mono > begun + GOING_ON_TIME_US {
                break;
            }
        }
        let begun = self.state.now.mono;
        for _ in 0..self.long.len() {
            let Some(slot) = self.long.pop_front() else { break };
            self.turn_of_listed(slot, Budget::long());
            self.look_at_clock();
            if self.state.now.mono > begun + GOING_ON_TIME_US {
                break;
            }
        }
    }

    pub(super) fn turn_of_listed(&mut self, slot: usize, budget: Budget) {
        // It may be gone, and another one in its slot.
        if let Some(connection) = self.connections.get_mut(slot).filter(|connection| connection.listed) {
            connection.listed = false;
            self.turn(slot, budget);
        }
    }

    /// Lets a connection say as much as its budget allows: what was kept of it first, then what its socket has.
    pub(super) fn turn(&mut self, slot: usize, budget: Budget) -> Left {
        self.state.budget = budget;
        loop {
            let Some(connection) = self.connections.get_mut(slot) else {
                return Left::Nothing;
            };
            if matches!(connection.phase, Phase::Leaving(_)) {
                return self.leave(slot);
            }
            if connection.is_reading_stopped() {
                return Left::Nothing;
            }
            let mut is_drained = false;
            let next = if connection.is_unfinished() {
                self.state.go_on_to(self.clock.mono());
                connection.feed(&mut self.state.context(&self.shared.hub), &mut [])
            } else {
                match connection.read(&mut self.buffer) {
                    Ok(0) => {
                        connection.hangup = true;
                        self.end(slot, CloseReason::PeerClosed);
                        return Left::Nothing;
                    }
                    Ok(count) => {
                        // After the read: whatever came until now counts as heard now, and nothing that comes later does.
                        self.state.go_on_to(self.clock.mono());
                        self.state.budget.spend_read(count);
                        self.state.counters.bytes_in.add(count as u64);
                        connection.bytes_in += count as u64;
                        is_drained = count < self.buffer.len() && !connection.hangup && !connection.urgent;
                        connection.feed(&mut self.state.context(&self.shared.hub), &mut self.buffer[..count])
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        connection.urgent = false;
                        return Left::Nothing;
                    }
                    Err(_) => {
                        self.end(slot, CloseReason::IoError);
                        return Left::Nothing;
                    }
                }
            };
            self.note_replies(slot);
            if !is_drained || next != Next::Continue || self.has_enough_to_answer() {
                self.answer();
            }
            match next {
                Next::Continue if is_drained => return Left::Nothing,
                Next::Continue if !self.state.budget.is_used_up() => {}
                Next::Http | Next::Firetower => {
                    if let Some(connection) = self.connections.get_mut(slot) {
                        connection.become_other(&mut self.state.context(&self.shared.hub), next);
                    }
                    self.list(slot, false);
                    return Left::More;
                }
                Next::Continue | Next::Again | Next::Later | Next::Look => {
                    self.list(slot, next == Next::Later);
                    return Left::More;
                }
                Next::Wait => return Left::Nothing,
                Next::Close(reason) => {
                    self.end(slot, reason);
                    return Left::Nothing;
                }
            }
        }
    }

    /// Goes on with a connection in the next pass, or when a long frame has its turn.
    pub(super) fn list(&mut self, slot: usize, is_long: bool) {
        if let Some(connection) = self.connections.get_mut(slot)
            && !connection.listed
        {
            connection.listed = true;
            let list = if is_long { &mut self.long } else { &mut self.ready };
            list.push_back(slot);
        }
    }
}
