//! What goes to the subscribers of an I/O thread, and what is asked about them.
//!
//! Owns how far that has come, over several passes where there are many. Publications one behind the other go out together, with one write
//! for each connection. Who goes meanwhile gets nothing any more; who comes was not meant.

use super::IoThread;
use crate::hub::budget::{self, Budget};
use crate::hub::topic_fan_out::TopicFanOut;
use crate::hub::topics::members::Subscriber;
use crate::hub::topics::{FireKind, FireOrder, Publication};
use crate::model::EventMask;
use crate::net::connection::{Connection, Phase};
use crate::net::mailbox::{MembersPage, TopicQuestion};
use crate::net::walk::{TopicDelivery, TopicWalk};
use std::hint::black_box;

/// So many connections are looked at one behind the other, and fetched into the cache side by side, before something is done with each.
const FETCHED_TOGETHER: usize = 16;

impl IoThread {
    /// Goes on with what is under way, if there is something. False while it is not done.
    pub(super) fn walk_topics(&mut self, budget: &mut Budget) -> bool {
        let Some(mut walk) = self.topic_walk.take() else { return true };
        loop {
            if budget.is_used_up() {
                self.topic_walk = Some(walk);
                return false;
            }
            if walk.done < walk.deliveries.len() {
                self.serve_subscriber(&mut walk, budget);
            } else if !walk.list(&mut self.state.seldom.members, budget) {
                self.state.seldom.members.end_list();
                return true;
            }
        }
    }

    /// Serves the connection that it has come to, as far as the budget goes.
    fn serve_subscriber(&mut self, walk: &mut TopicWalk, budget: &mut Budget) {
        let slot = walk.deliveries[walk.done].slot as usize;
        let mut is_refused = false;
        while let Some(delivery) = walk.deliveries.get(walk.done).filter(|next| next.slot as usize == slot) {
            if budget.is_used_up() {
                break;
            }
            if walk.done % FETCHED_TOGETHER == 0 {
                self.fetch_subscribers(&walk.deliveries[walk.done..]);
            }
            budget.spend(budget::DELIVERY);
            let fan_out = &walk.run[delivery.index as usize];
            is_refused |= !self.deliver(slot, fan_out, delivery);
            walk.done += 1;
        }
        if self.connections.get(slot).is_some_and(|connection| connection.waiting() > 0) {
            budget.spend(budget::WRITE);
            self.flush(slot);
        }
        let is_untold = self.connections.get(slot).is_some_and(|connection| !connection.told_full);
        if is_refused && is_untold && self.shared.hub.wants(EventMask::BUFFER) {
            self.tell_full(slot);
            self.watch(slot);
        }
    }

    /// False where it is refused because its connection has no room, also after its socket was tried.
    fn deliver(&mut self, slot: usize, fan_out: &TopicFanOut, delivery: &TopicDelivery) -> bool {
        let publication = fan_out.publication();
        let member = Subscriber { slot: delivery.slot, node: delivery.node };
        if !self.state.seldom.members.still_receives(member, &publication.topic, publication.sequence) {
            return true;
        }
        if let FireKind::Order(order) = publication.origin.kind()
            && self.obey(slot, *order, publication)
        {
            return true;
        }
        let limit = self.shared.hub.limits().outbox_bytes;
        for is_tried in [false, true] {
            let Some(connection) = self.connections.get_mut(slot) else { return true };
            match connection.deliver_message(fan_out, delivery.node, limit, &mut self.pool) {
                Ok(is_queued) => {
                    self.state.counters.topic_messages_out.add(is_queued.into());
                    return true;
                }
                Err(_) if !is_tried => self.flush(slot),
                Err(_) => self.state.counters.topic_messages_refused.up(),
            }
        }
        false
    }

    /// False where the subscriber does not follow orders itself.
    fn obey(&mut self, slot: usize, order: FireOrder, publication: &Publication) -> bool {
        let Some(Connection { phase: Phase::Open(session), .. }) = self.connections.get_mut(slot) else { return true };
        let Some(next) = session.obey(&mut self.state.context(&self.shared.hub), order, &publication.topic, &publication.payload) else {
            return false;
        };
        self.respond(slot, next);
        true
    }

    fn fetch_subscribers(&self, ahead: &[TopicDelivery]) {
        let ahead = ahead.iter().take(FETCHED_TOGETHER).filter_map(|next| self.connections.get(next.slot as usize)?.phase.session());
        black_box(ahead.fold(0, |sum, session| sum ^ session.link().queued()));
    }

    pub(super) fn answer_about_topics(&mut self, question: TopicQuestion) {
        // Whoever asked may have given up waiting; then nobody misses the answer.
        match question {
            TopicQuestion::Members { topic, behind, limit, answer } => {
                let page = self.state.seldom.members.page(&topic, behind, limit);
                let next = page.last().copied().filter(|_| page.len() >= limit);
                let id =
                    |member: Subscriber| Some(self.connections.get(member.slot as usize)?.phase.session()?.node(member.node)?.id().clone());
                let _ = answer.try_send(MembersPage { nodes: page.into_iter().filter_map(id).collect(), next });
            }
            TopicQuestion::TopicsOf { slot, connection_id, node, answer } => {
                let found = self.connections.get(slot as usize).filter(|found| found.link().connection_id() == connection_id);
                let session = found.and_then(|connection| connection.phase.session());
                let topics = session.map_or_else(Vec::new, |session| session.topics_of(&self.state.seldom.members, node));
                let _ = answer.try_send(topics);
            }
        }
    }
}
