//! How far what goes to all connections of a thread has come, and what goes to those that have subscribed.
//!
//! Owns nothing but the place, and for whom a publication is: who is served there is [`super::io`]'s business.

use super::connection::NodePlace;
use crate::hub::NodeRef;
use crate::hub::budget::{self, Budget};
use crate::hub::fan_out::FanOut;
use crate::hub::topic_fan_out::TopicFanOut;
use crate::hub::topics::members::ThreadMembers;
use std::sync::Arc;

pub(super) struct FanOutWalk {
    /// What goes out together, with one write for each connection.
    pub(super) run: Vec<Arc<FanOut>>,
    pub(super) slot: usize,
    /// Whose nodes `place` is about; 0 where it has not begun with one.
    pub(super) connection_id: u64,
    pub(super) place: NodePlace,
}

impl FanOutWalk {
    pub(super) fn new(run: Vec<Arc<FanOut>>) -> Self {
        Self { run, slot: 0, connection_id: 0, place: NodePlace::default() }
    }
}

/// Publications one behind the other, and who gets them.
pub(super) struct TopicWalk {
    pub(super) run: Vec<Arc<TopicFanOut>>,
    /// Of so many of them it was found out who gets them.
    listed: usize,
    /// Who gets some of them, in the order of the connections' slots, for each in that of the publications.
    pub(super) deliveries: Vec<TopicDelivery>,
    /// So many of these are done.
    pub(super) done: usize,
}

impl TopicWalk {
    pub(super) fn new(run: Vec<Arc<TopicFanOut>>) -> Self {
        Self { run, listed: 0, deliveries: Vec::new(), done: 0 }
    }

    /// Finds out who gets the publications that come next, when all deliveries are done: of as many as the budget and the memory for it
    /// allow, one at least. False where all were looked at.
    pub(super) fn list(&mut self, members: &mut ThreadMembers, budget: &mut Budget) -> bool {
        let (begun, mut receivers) = (self.listed, Vec::new());
        self.deliveries.clear();
        self.done = 0;
        while let Some(fan_out) = self.run.get(self.listed) {
            if self.listed > begun && (budget.is_used_up() || self.deliveries.len() >= LISTED_TOGETHER) {
                break;
            }
            let (publication, index) = (fan_out.publication(), self.listed as u32);
            receivers.clear();
            members.receivers(&publication.topic, publication.sequence, &mut receivers);
            let looked_at = members.levels_looked_at(&publication.topic);
            budget.spend(budget::NODE + LISTED * receivers.len() as u64 + budget::LEVEL * looked_at);
            let kept = receivers.iter().filter(|found| !fan_out.leaves_out(found.node));
            self.deliveries.extend(kept.map(|found| TopicDelivery { slot: found.slot, index, node: found.node }));
            self.listed += 1;
        }
        if self.listed > begun + 1 {
            self.deliveries.sort_unstable();
        }
        members.begin_list();
        self.listed > begun
    }
}

/// A receiver that is found, in the measure of budgets.
const LISTED: u64 = 20;
/// Publications go out together up to about so many deliveries.
const LISTED_TOGETHER: usize = 64 * 1024;

#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TopicDelivery {
    pub(super) slot: u32,
    /// Which of the run.
    pub(super) index: u32,
    pub(super) node: NodeRef,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Memory;
    use crate::hub::topics::members::Subscriber;
    use crate::wire::topic::Filter;

    #[test]
    fn receivers_are_looked_for_as_far_as_the_budget_goes_and_no_publication_is_passed_over() {
        let memory = Arc::new(Memory::new(1 << 20));
        let mut members = ThreadMembers::default();
        (0..1000).for_each(|slot| {
            members.insert(Filter::Exact("t"), Subscriber { slot, node: NodeRef::NONE }, 0);
        });
        let run = (1..=50).map(|sequence| Arc::new(TopicFanOut::for_test("t", sequence, &memory))).collect();
        let mut walk = TopicWalk::new(run);
        let mut found = Vec::new();
        let mut parts = 0;
        while walk.list(&mut members, &mut Budget::of(5 * LISTED * 1000)) {
            assert!(walk.deliveries.len() <= 5000, "{}", walk.deliveries.len());
            assert!(walk.deliveries.is_sorted());
            found.extend(walk.deliveries.iter().map(|delivery| (delivery.index, delivery.slot)));
            parts += 1;
        }
        assert!(parts >= 10 && found.len() == 50_000);
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 50_000);
        // Where nothing is left one is looked at all the same.
        let mut walk = TopicWalk::new(vec![Arc::new(TopicFanOut::for_test("t", 51, &memory))]);
        assert!(walk.list(&mut members, &mut Budget::of(0)) && walk.deliveries.len() == 1000);
        assert!(!walk.list(&mut members, &mut Budget::of(0)) && walk.deliveries.is_empty());
    }
}
