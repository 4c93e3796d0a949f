//! Workers that listen to topics: each gets copies of what is published there.

use super::queue::WaitingEvent;
use super::worker::Worker;
use super::{Delivery, Dispatch, WorkerId};
use crate::hub::event::Event;

impl Dispatch {
    /// Copies what is published to the topics of a filter to a worker, beside all others that ask for it. False where it has that filter
    /// already, or is not there.
    pub fn listen(&mut self, worker: WorkerId, filter: &str) -> bool {
        self.workers.get_mut(&worker).is_some_and(|worker| worker.topics.insert(filter))
    }

    /// False where it has no such filter.
    pub fn end_listening(&mut self, worker: WorkerId, filter: &str) -> bool {
        self.workers.get_mut(&worker).is_some_and(|worker| worker.topics.remove(filter))
    }

    /// Ends them all, and says which these were.
    pub fn take_filters(&mut self, worker: WorkerId) -> Vec<Box<str>> {
        self.workers.get_mut(&worker).map_or_else(Vec::new, |worker| worker.topics.take())
    }

    /// Takes a publication, for every worker that listens to its topic. One that has no room does not get it, which is counted.
    pub fn push_message(&mut self, event: Event) {
        let Event::Message { message } = &event else { return };
        let hears = |worker: &Worker| !worker.is_leaving && worker.topics.matches(&message.topic);
        let listeners: Vec<WorkerId> = self.workers.iter().filter(|(_, worker)| hears(worker)).map(|(id, _)| *id).collect();
        self.sequence += 1;
        let told = Delivery { sequence: self.sequence, redelivered: false, watched: false, event };
        for listener in listeners {
            self.queue_data(Some(listener), WaitingEvent::copy(&told));
        }
    }
}
