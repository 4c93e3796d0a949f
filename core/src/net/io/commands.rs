//! What other threads want of the connections of this one.
//!
//! Owns how much of that a pass does.

use super::IoThread;
use super::ending::LAST_COMMANDS_TIME_US;
use crate::hub::link::{Command, CommandKind, Membership, Parted};
use crate::hub::{Budget, Next};
use crate::model::ConnectionInfo;
use crate::net::connection::{Connection, Phase};
use crate::net::mailbox::DrainedItem;
use crate::net::walk::{FanOutWalk, TopicWalk};
use crate::wire::topic::Filter;

/// Commands followed per pass: many of them do not hold up the reading.
const COMMANDS_PER_PASS: usize = 512;
const COMMANDS_BUDGET: u64 = 5_000_000;
/// The work of a pass on what goes to all connections.
const FAN_OUT_BUDGET: u64 = 5_000_000;

impl IoThread {
    pub(super) fn follow_commands(&mut self) {
        let is_fresh = self.commands.is_empty() && self.walk.is_none() && self.topic_walk.is_none();
        // Asked first: what was sent before the stop is among the commands then, and goes out before the farewell, if it is not too much.
        if self.shared.is_stopping() {
            self.stopping_since.get_or_insert(self.state.now.mono);
        }
        if is_fresh {
            self.mailbox.drain_into(&mut self.commands);
        }
        // Few commands cost any of it: those that the nodes of a connection are told about.
        self.state.budget = Budget::of(COMMANDS_BUDGET);
        let mut budget = Budget::of(FAN_OUT_BUDGET);
        for followed in 1..=COMMANDS_PER_PASS {
            if !self.walk(&mut budget) || !self.walk_topics(&mut budget) {
                break;
            }
            let command = match self.commands.pop(self.shared.hub.memory()) {
                Some(DrainedItem::Command(command)) => command,
                Some(DrainedItem::FanOuts(run)) => {
                    self.walk = Some(FanOutWalk::new(run));
                    continue;
                }
                Some(DrainedItem::Publications(run)) => {
                    self.topic_walk = Some(TopicWalk::new(run));
                    continue;
                }
                Some(DrainedItem::Question(question)) => {
                    self.answer_about_topics(question);
                    continue;
                }
                None => break,
            };
            let slot = command.slot;
            self.follow_command(command);
            // One write for all that came for a connection.
            let is_last = followed == COMMANDS_PER_PASS || self.state.budget.is_used_up();
            if self.commands.next_slot() != Some(slot) || is_last {
                self.flush(slot as usize);
            }
            if is_last {
                break;
            }
        }
        let is_read = is_fresh && self.commands.is_empty() && self.walk.is_none() && self.topic_walk.is_none();
        self.has_commands |= !is_read;
        if let Some(listing) = self.mailbox.take_listing() {
            // Whoever asked may have given up waiting; then nobody misses the answer.
            let _ = listing.answer.try_send(self.list_connections(listing.max));
        }
        if self.stopping_since.is_some_and(|since| is_read || self.state.now.mono > since + LAST_COMMANDS_TIME_US) && !self.is_stopping {
            self.begin_stopping();
        }
        if self.shared.is_closed() && !self.doors.is_empty() {
            self.close_doors();
        }
    }

    pub(super) fn list_connections(&self, max: usize) -> Vec<ConnectionInfo> {
        let open = self.connections.iter().filter_map(|(_, connection)| match &connection.phase {
            Phase::Open(session) => Some((connection, session)),
            Phase::Leaving(_) | Phase::Ending { .. } => None,
        });
        open.take(max)
            .map(|(connection, session)| ConnectionInfo {
                id: connection.link().connection_id(),
                peer: connection.link().peer(),
                nodes: session.node_count(),
                first_node: session.first_node().map(|node| node.id().clone()),
                bytes_in: connection.bytes_in,
                bytes_out: connection.bytes_out,
                bytes_waiting_in: connection.partial_len(),
                bytes_waiting_out: connection.link().queued(),
            })
            .collect()
    }

    pub(super) fn follow_command(&mut self, Command { slot, connection_id, kind }: Command) {
        let slot = slot as usize;
        let found = self.connections.get_mut(slot).filter(|found| found.link().connection_id() == connection_id);
        let kind = match (kind, found) {
            (CommandKind::Write(frame), Some(connection @ Connection { phase: Phase::Open(_), .. })) => {
                connection.enqueue(frame, &mut self.pool);
                return;
            }
            (CommandKind::Write(frame), found) => {
                if let Some(connection) = found {
                    connection.link().remove_queued(frame.len());
                }
                return;
            }
            (CommandKind::Join(membership), None) => return self.undo_join(&membership),
            (CommandKind::TellParted(parted), None) => return self.tell_parted(&parted),
            (_, None) => return,
            (kind, Some(_)) => kind,
        };
        // What was posted before it is written before it.
        self.flush(slot);
        let Some(connection) = self.connections.get_mut(slot).filter(|found| found.link().connection_id() == connection_id) else {
            return;
        };
        match (kind, &mut connection.phase) {
            (CommandKind::Evict(eviction), Phase::Open(session)) => {
                let next = session.evict(&mut self.state.context(&self.shared.hub), eviction);
                self.respond(slot, next);
            }
            (CommandKind::Join(membership), Phase::Open(session)) => {
                let mut cx = self.state.context(&self.shared.hub);
                if !session.join(&mut cx, membership.node, &membership.filter, membership.since) {
                    self.undo_join(&membership);
                }
            }
            (CommandKind::Join(membership), _) => self.undo_join(&membership),
            (CommandKind::Part(membership), Phase::Open(session)) => {
                session.part(&mut self.state.context(&self.shared.hub), membership.node, &membership.filter);
            }
            (CommandKind::TellParted(parted), phase) => {
                let members = &self.state.seldom.members;
                if !matches!(phase, Phase::Open(session) if session.is_in(members, parted.node, &parted.topic)) {
                    self.tell_parted(&parted);
                }
            }
            (CommandKind::Decide(answered), Phase::Open(session)) => {
                if let Some(next) = session.decide(&mut self.state.context(&self.shared.hub), *answered) {
                    self.decided(slot, next);
                }
            }
            (CommandKind::End(reason), _) => self.end(slot, reason),
            (CommandKind::TellFull, _) => {
                // First, so that a push that is refused from now on asks again.
                connection.link().tells_full();
                self.tell_full(slot);
                self.watch(slot);
            }
            (CommandKind::Resume, _) if connection.host_full => {
                connection.resume();
                self.list(slot, false);
            }
            _ => {}
        }
    }

    fn tell_parted(&self, parted: &Parted) {
        self.shared.hub.note_member(&parted.topic, &parted.id, false);
    }

    /// A connection has what it waited for, and goes on with what came meanwhile.
    pub(super) fn decided(&mut self, slot: usize, next: Next) {
        self.respond(slot, next);
        if let Some(connection @ Connection { phase: Phase::Open(_), .. }) = self.connections.get_mut(slot) {
            connection.resume();
            self.list(slot, false);
        }
    }

    /// Whom it was about has left meanwhile.
    fn undo_join(&self, membership: &Membership) {
        self.shared.hub.topics().unsubscribe(self.state.number(), Filter::known(&membership.filter), self.state.now);
    }
}
