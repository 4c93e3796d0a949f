//! Which nodes subscribe to which topics, and no longer, for who tells that.
//!
//! Owns what waits for it: a bounded queue for which no I/O thread waits. Only what somebody wants to hear comes here.

use super::gap_queue::{GapQueue, ObserverLimits, QueueEntry};
use super::memory::Memory;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A node that has subscribed to a topic by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicMember {
    pub topic: Arc<str>,
    pub node: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attended {
    Changed { member: TopicMember, has_joined: bool },
    Gap { dropped: u64 },
}

pub struct Attendance {
    queue: GapQueue<(TopicMember, bool)>,
    memory: Arc<Memory>,
    dropped: AtomicU64,
}

impl Attendance {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        let limits = ObserverLimits { events: 65_536, bytes: 16 << 20 };
        Self { queue: GapQueue::new(limits), memory, dropped: AtomicU64::new(0) }
    }

    pub(super) fn note(&self, topic: &str, node: &Arc<str>, has_joined: bool) {
        let member = || (TopicMember { topic: topic.into(), node: node.clone() }, has_joined);
        let waker = self.queue.push(topic.len() + node.len(), &self.memory, &self.dropped, member);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves up to `max` of what waits to the back of `into`, and returns how many these are. Never waits.
    pub fn take(&self, into: &mut Vec<Attended>, max: usize) -> usize {
        self.queue.take(&self.memory, max, |entry| {
            into.push(match entry {
                QueueEntry::Item((member, has_joined)) => Attended::Changed { member, has_joined },
                QueueEntry::Gap { dropped } => Attended::Gap { dropped },
            });
        })
    }

    /// Waits until [`Attendance::take`] finds something. One waits at a time.
    pub async fn ready(&self) {
        poll_fn(|cx| self.queue.poll_ready(cx)).await;
    }
}
