//! What an I/O thread does each tick: judge who is silent, and keep house.
//!
//! Owns the rule that nobody is silent before its own socket was looked at after its time was up. However late the tick
//! comes, because the process was stopped or a pass took long, what the peer sent meanwhile is read first, and counts.
//!
//! A tick is done in parts of bounded work, with passes in between: a million nodes may be silent at once.

use super::super::connection::{Connection, Phase};
use super::ending::STOPPING_TIME_US;
use super::reading::Left;
use super::{IoThread, TIDY_TIME_US};
use crate::hub::session::Look;
use crate::hub::wheel::{TICK, TimerKey};
use crate::hub::{Budget, Next, Now, TimerKind, budget};
use crate::model::CloseReason;
use crate::net::spawn_thread;
use crate::process;
use crate::settings::micros;
use std::thread::JoinHandle;

/// The work of one part of a tick.
const PART: u64 = 5_000_000;

impl IoThread {
    /// A part of a tick; false while there is more to be done.
    pub(super) fn tick(&mut self) -> bool {
        // How many ticks there were does not matter, nor does a read that finds none.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        if self.state.now.mono > self.last_tick + 3 * TICK {
            self.asleep += self.state.now.mono - self.last_tick - TICK;
        }
        // What was sent to a node goes out before its time is up. And a lost wake-up would show here at the latest.
        self.follow_commands();
        self.look_at_clock();
        let is_done = self.fire_timers();
        if self.accept_paused {
            self.accept_paused = false;
            self.accept();
        }
        if self.state.now.mono >= self.next_tidy {
            self.next_tidy = self.state.now.mono + TIDY_TIME_US;
            self.shared.hub.tidy(self.state.now);
        }
        if self.next_stats.is_some_and(|next| self.state.now.mono >= next) {
            self.next_stats = Some(self.state.now.mono + self.shared.stats_interval);
            self.shared.log_stats();
        }
        self.give_back_memory();
        self.state.connection_log.tell_left_out(self.state.now);
        crate::log::tell_left_out(false);
        let is_over = |since: u64| self.connections.is_empty() || self.state.now.mono > since + STOPPING_TIME_US;
        if self.is_stopping && self.stopping_since.is_some_and(is_over) {
            self.finish();
        }
        self.last_tick = self.state.now.mono;
        is_done
    }

    /// After a storm the allocator has memory that nobody needs. It takes its time to give that back, so it does not take this thread's.
    fn give_back_memory(&mut self) {
        let kept = self.shared.hub.memory().total();
        if self.trim.as_mut().is_some_and(|trim| trim.is_due(kept, self.state.now.mono))
            && self.giving_back.as_ref().is_none_or(JoinHandle::is_finished)
            && let Some(give_back) = process::give_back_memory()
        {
            self.giving_back = spawn_thread("heartbus-trim".to_owned(), give_back).ok();
        }
    }

    fn fire_timers(&mut self) -> bool {
        let mut part = Budget::of(PART);
        // By this time, which is before any of the looks, all are judged: one that takes long does not make the next one's peer older.
        let now = self.state.now;
        let is_done = loop {
            if part.is_used_up() {
                break false;
            }
            let Some((key, timer)) = self.state.wheel.pop(now.mono) else { break true };
            part.spend(budget::NODE);
            let slot = timer.slot() as usize;
            match timer.kind() {
                TimerKind::Outbox => {
                    self.state.now = now;
                    self.outbox_timer(slot, key);
                    continue;
                }
                TimerKind::Decision => {
                    self.state.now = now;
                    self.decision_timer(slot, key);
                    continue;
                }
                _ => {}
            }
            let mut next = self.judge(slot, key, timer.kind(), Look::NotYet, now);
            if next == Next::Look {
                part.spend(budget::DEPARTURE);
                let look = self.look(slot, timer.kind() == TimerKind::Register, &mut part);
                next = self.judge(slot, key, timer.kind(), look, now);
            }
            // Nodes of one connection that are found silent one behind the other cost one write together.
            if !self.state.replies.is_empty() {
                self.note_replies(slot);
                if self.has_enough_to_answer() {
                    self.answer();
                }
            }
            if let Next::Close(reason) = next {
                self.end(slot, reason);
            }
        };
        self.answer();
        self.looked_at.clear();
        is_done
    }

    /// Asks about a timer that fired. What the connection is told stays in the reply buffer.
    fn judge(&mut self, slot: usize, key: TimerKey, kind: TimerKind, look: Look, now: Now) -> Next {
        self.state.now = now;
        let Some(Connection { phase, .. }) = self.connections.get_mut(slot) else {
            return Next::Continue;
        };
        match (phase, kind) {
            (Phase::Open(session), TimerKind::Register) => {
                return session.register_timer(&mut self.state.context(&self.shared.hub), key, look);
            }
            (Phase::Open(session), TimerKind::Node(node)) => {
                return session.node_timer(&mut self.state.context(&self.shared.hub), key, node, look);
            }
            (Phase::Open(session), TimerKind::Ping) => {
                return session.ping_timer(&mut self.state.context(&self.shared.hub), key, look);
            }
            (Phase::Leaving(leaving), TimerKind::Node(node)) => {
                leaving.session.postpone(&mut self.state.context(&self.shared.hub), key, node);
            }
            // Not one that was set by what was read at last.
            (Phase::Ending { timer, .. }, TimerKind::Ending) if *timer == Some(key) && self.state.wheel.has_fired(key) => {
                self.drop_connection(slot);
            }
            _ => {}
        }
        Next::Continue
    }

    /// Reads the socket of a connection on which somebody seems to be silent, once for all nodes that this part of a tick asks
    /// about.
    fn look(&mut self, slot: usize, is_register: bool, part: &mut Budget) -> Look {
        let Some(connection) = self.connections.get_mut(slot) else { return Look::Empty };
        if let Some(look) = self.looked_at.get(&slot) {
            return *look;
        }
        if connection.peer_slow {
            // It may have made room that no event has told yet.
            connection.write_blocked = false;
            self.flush(slot);
        }
        let timeout = if is_register { micros(self.shared.hub.limits().register_timeout) } else { self.shared.hub.heartbeat_timeout() };
        let Some(connection) = self.connections.get_mut(slot) else { return Look::Empty };
        let look = if connection.host_full || connection.peer_slow && connection.takes_replies(self.state.now.mono, timeout) {
            Look::Stopped
        } else if connection.peer_slow {
            Look::Empty
        } else {
            part.spend(budget::READ);
            match self.turn(slot, Budget::share(1)) {
                Left::More => {
                    part.spend(budget::TURN);
                    Look::Unread
                }
                Left::Nothing => Look::Empty,
            }
        };
        if let Some(connection) = self.connections.get_mut(slot) {
            let look = if connection.host_full { Look::Stopped } else { look };
            self.looked_at.insert(slot, look);
            return look;
        }
        look
    }

    /// What the host has not decided is refused.
    fn decision_timer(&mut self, slot: usize, timer: TimerKey) {
        let Some(Connection { phase: Phase::Open(session), .. }) = self.connections.get_mut(slot) else { return };
        if let Some(next) = session.decision_timer(&mut self.state.context(&self.shared.hub), timer) {
            // What was answered before to others, in this part, is in front of it.
            self.decided(slot, next);
        }
    }

    /// Whoever takes nothing of what waits for it has to go. The socket is asked once more: it tells of a little room in it only
    /// where it has much.
    fn outbox_timer(&mut self, slot: usize, timer: TimerKey) {
        self.respond(slot, Next::Continue);
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.write_blocked = false;
        }
        self.flush(slot);
        let since = self.connections.get(slot).and_then(|connection| connection.stuck_since(timer));
        let (Some(since), Some(timeout)) = (since, self.shared.slow_consumer_timeout) else { return };
        match timeout.saturating_sub(self.awake().saturating_sub(since)) {
            0 => self.end(slot, CloseReason::SlowConsumer),
            left => self.state.wheel.rearm(timer, self.state.now.mono + left),
        }
    }
}
