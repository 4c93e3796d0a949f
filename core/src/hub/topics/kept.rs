//! What is kept of topics, as it is read again and as it goes.
//!
//! Owns how a history is given away in parts, and when what is too old or too much is let go of. What one history is, and what all of them
//! are together, is [`history`](super::history)'s.

use super::history::{self, Place};
use super::publication::{KeptPart, Origin, Position, Publication};
use super::{Topics, lock};
use crate::hub::Now;
use crate::hub::memory::Part;
use std::sync::atomic::Ordering;

/// Shards are tidied in so many parts, so that none takes long.
pub(super) const TIDY_PARTS: usize = 16;

impl Topics {
    /// What is kept of a topic behind an offset, as many bytes as are given or one publication. To be asked by who has subscribed: so the
    /// topic lives on.
    pub fn read_kept(&self, name: &str, behind: u64, most_bytes: usize) -> KeptPart {
        self.read_kept_and(name, behind, most_bytes, |_| {})
    }

    /// The same, for a thread that there is not: `go_live` is called where the order of the publications is decided, with
    /// [`KeptPart::since`], once there is no more.
    pub fn read_kept_and(&self, name: &str, behind: u64, most_bytes: usize, go_live: impl FnOnce(u64)) -> KeptPart {
        let mut shard = self.shard(name);
        let since = self.published.load(Ordering::Relaxed);
        let Some((name, topic)) =
            shard.get_key_value(name).map(|(name, _)| name.clone()).and_then(|name| Some((name.clone(), shard.get_mut(&name)?)))
        else {
            go_live(since);
            return KeptPart { since: Some(since), ..KeptPart::default() };
        };
        let mut read = KeptPart {
            has_gap: topic.kept.as_ref().is_none_or(|kept| behind < kept.before()) && behind < topic.offset,
            ..KeptPart::default()
        };
        let mut bytes = 0;
        for (offset, payload) in topic.kept.iter().flat_map(|kept| kept.after(behind)) {
            if bytes >= most_bytes {
                return read;
            }
            bytes += history::ENTRY_BYTES + payload.len();
            let position = Some(Position { offset, epoch: topic.epoch });
            let (topic, payload) = (name.clone(), payload.clone());
            read.publications.push(Publication { topic, position, sequence: since, payload, origin: Origin::default() });
        }
        read.since = Some(since);
        go_live(since);
        read
    }

    /// Forgets what is kept for longer than it is to be, of a part of all topics: of the next one when it is called again.
    pub fn tidy(&self, now: Now) {
        if self.rules.is_empty() {
            return;
        }
        let part = self.next_tidied.fetch_add(1, Ordering::Relaxed) % TIDY_PARTS;
        for shard in self.shards.iter().skip(part).step_by(TIDY_PARTS) {
            let mut shard = lock(shard);
            shard.retain(|name, topic| {
                let Some(kept) = &mut topic.kept else { return true };
                kept.expire(now, &self.ledger);
                let is_idle = topic.is_idle();
                if is_idle {
                    self.uncount_topic(name);
                }
                !is_idle
            });
        }
    }

    /// While all histories together have more than they may, the oldest publications go, whose ever they are.
    pub(super) fn make_room(&self) {
        let share = self.memory.share(Part::Topics);
        let is_tight = || self.memory.of(Part::Topics) > share - share / 4;
        while let Some(Place { topic: name, position }) = self.ledger.pop_oldest(is_tight()) {
            let mut shard = self.shard(&name);
            if let Some(topic) = shard.get_mut(&*name).filter(|topic| topic.epoch == position.epoch)
                && let Some(kept) = &mut topic.kept
            {
                kept.drop_until(position.offset, &self.ledger);
            }
            self.forget_if_idle(&mut shard, &name);
        }
        self.ledger.clean(|Place { topic: name, position }| {
            let shard = self.shard(name);
            let topic = shard.get(&**name).filter(|topic| topic.epoch == position.epoch);
            topic.and_then(|topic| topic.kept.as_ref()).is_some_and(|kept| kept.before() < position.offset)
        });
    }
}
