//! What goes to all connections of an I/O thread: it is written to one after the other, in the order of their slots.
//!
//! Owns how far that has come, over several passes where there are many. What comes behind it in the mailbox waits for it, so that
//! each connection gets both in order. Who comes meanwhile is owed nothing: it may get it, or not.

use super::IoThread;
use crate::hub::budget::{self, Budget};
use crate::model::EventMask;
use crate::net::connection::Progress;
use crate::net::walk::FanOutWalk;
use std::hint::black_box;

/// A slot that nobody has, in the measure of budgets.
const VACANT: u64 = 5;
/// Of many connections few are in the processor's cache: so many are looked at one behind the other, and fetched side by side, before
/// something is done with each.
const FETCHED_TOGETHER: usize = 16;

impl IoThread {
    /// Goes on with what is under way, if there is something. False while it is not done.
    pub(super) fn walk(&mut self, budget: &mut Budget) -> bool {
        let Some(mut walk) = self.walk.take() else { return true };
        while walk.slot < self.connections.capacity() {
            if budget.is_used_up() || !self.serve(&mut walk, budget) {
                self.walk = Some(walk);
                return false;
            }
            walk.slot += 1;
        }
        true
    }

    /// Serves the connection that it has come to; false where there is more to do for it.
    fn serve(&mut self, walk: &mut FanOutWalk, budget: &mut Budget) -> bool {
        let slot = walk.slot;
        if slot % FETCHED_TOGETHER == 0 {
            self.fetch_ahead(slot);
        }
        let Some(id) = self.connections.get(slot).map(|connection| connection.link().connection_id()) else {
            budget.spend(VACANT);
            return true;
        };
        if walk.connection_id == 0 {
            walk.connection_id = id;
        }
        let delivered = loop {
            // Another one in the slot came after the one that was begun with.
            let Some(connection) = self.connections.get_mut(slot).filter(|found| found.link().connection_id() == walk.connection_id) else {
                break Progress::All;
            };
            budget.spend(budget::NODE);
            let counters = &self.state.counters;
            let delivered = connection.deliver(&walk.run, &mut walk.place, &self.shared.hub, counters, budget, &mut self.pool);
            if connection.waiting() > 0 {
                budget.spend(budget::WRITE);
                self.flush(slot);
            }
            if delivered != Progress::Full {
                break delivered;
            }
        };
        if std::mem::take(&mut walk.place.owes_word) && self.shared.hub.wants(EventMask::BUFFER) {
            self.tell_full(slot);
            self.watch(slot);
        }
        if delivered == Progress::Some {
            return false;
        }
        walk.connection_id = 0;
        walk.place = Default::default();
        true
    }

    fn fetch_ahead(&self, slot: usize) {
        let ahead = (slot..slot + FETCHED_TOGETHER).filter_map(|slot| self.connections.get(slot)?.phase.session());
        black_box(ahead.fold(0, |sum, session| {
            let node = session.first_node().map_or(0, |node| node.channel_id() as usize);
            sum ^ session.link().queued() ^ node
        }));
    }
}
