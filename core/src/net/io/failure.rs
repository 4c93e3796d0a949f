//! What becomes of an I/O thread in which something fails that should not.
//!
//! Its connections end, for nobody knows in which state they are; that is told as any end is, and the thread goes on with
//! those who come back. A thread that was gone would leave nodes behind that are online for ever, and peers that nobody answers.

use super::IoThread;
use crate::hub::{Budget, Wheel};
use crate::model::CloseReason;
use crate::net::connection::Phase;
use crate::net::in_words;
use crate::wire::topic::Filter;
use mio::Poll;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A failure that comes again and again must not take a core.
const PAUSE: Duration = Duration::from_millis(100);

impl IoThread {
    pub(in crate::net) fn run(mut self, mut poll: Poll) {
        self.state.connection_log.worker_started(std::process::id());
        loop {
            let why = match catch_unwind(AssertUnwindSafe(|| self.work(&mut poll))) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => in_words(&*panic),
            };
            let connections = self.connections.len();
            let told = catch_unwind(|| tracing::error!(connections, "An I/O thread failed, and its connections end: {why}"));
            self.abandon();
            if self.done {
                return;
            }
            if told.is_ok() {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Ends all connections at once. Whatever fails in that leaves the others alone.
    fn abandon(&mut self) {
        self.state.now = self.clock.now();
        self.ready.clear();
        self.long.clear();
        self.looked_at.clear();
        self.unanswered.clear();
        self.walk = None;
        self.topic_walk = None;
        self.state.seldom.members.end_list();
        let slots: Vec<usize> = self.connections.iter().map(|(slot, _)| slot).collect();
        let mut gone = HashSet::new();
        for slot in slots {
            gone.extend(self.connections.get(slot).map(|connection| connection.link().connection_id()));
            let ended = catch_unwind(AssertUnwindSafe(|| {
                let Some(connection) = self.connections.get_mut(slot) else { return };
                if let Phase::Open(session) = &mut connection.phase {
                    self.state.budget = Budget::unlimited();
                    session.close(&mut self.state.context(&self.shared.hub), CloseReason::Failed);
                }
                self.drop_connection(slot);
            }));
            if ended.is_err() && self.connections.contains(slot) {
                drop(self.connections.remove(slot));
            }
        }
        self.state.replies.clear();
        for filter in self.state.seldom.members.take_all() {
            self.shared.hub.topics().unsubscribe(self.state.number(), Filter::known(&filter), self.state.now);
        }
        self.state.counters.reach.clear();
        self.state.wheel = Wheel::new(self.state.now.mono);
        // Nodes that their session did not know yet, or not any more.
        let hub = &self.shared.hub;
        for node in hub.some_nodes(usize::MAX).into_iter().filter(|node| gone.contains(&node.connection_id())) {
            // Whoever took its id over meanwhile stays.
            if hub.node(node.id()).is_some_and(|found| std::ptr::eq(&raw const *found, &raw const *node)) {
                let _ = catch_unwind(AssertUnwindSafe(|| hub.disconnect(node.id(), &self.state.counters)));
            }
        }
        // What came meanwhile has had its event.
        (self.has_commands, self.tick_due) = (true, true);
        self.doors.iter_mut().for_each(|door| door.is_ready = true);
        if self.stopping_since.is_some() {
            let _ = catch_unwind(AssertUnwindSafe(|| self.finish()));
            self.done = true;
        }
    }
}
