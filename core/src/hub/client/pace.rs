//! How fast a client asks its server for what it has many of: nodes to register, topics to subscribe to.
//!
//! Owns how many requests may be without an answer, and the pause after the server said that there were too many: it skips what is
//! beyond its rate limit, so whatever has no answer by the end of the pause is to be asked again. Does not know what is asked.

use crate::hub::Now;

/// Requests that may be without an answer. As many as there are may wait for their turn.
const MAX_WINDOW: usize = 256;

/// How long nothing is asked after the server said that there were too many requests.
const RETRY_TIME_US: u64 = 1_000_000;

pub(super) struct Pace {
    window: usize,
    limit: PeerLimit,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum PeerLimit {
    Unknown,
    /// A request was perhaps among what the server skipped. The time is looked at next.
    Met,
    Until(u64),
}

impl Default for Pace {
    fn default() -> Self {
        Self { window: MAX_WINDOW, limit: PeerLimit::Unknown }
    }
}

impl Pace {
    pub(super) fn may_ask(&self, unanswered: usize) -> bool {
        self.limit == PeerLimit::Unknown && unanswered < self.window
    }

    pub(super) fn answered(&mut self) {
        self.window = MAX_WINDOW.min(self.window + 1);
    }

    /// The server skipped something that was too much for it.
    pub(super) fn rate_limited(&mut self) {
        self.window = 1.max(self.window / 2);
        self.limit = PeerLimit::Met;
    }

    /// True at the end of a pause.
    pub(super) fn tick(&mut self, now: Now) -> bool {
        match self.limit {
            PeerLimit::Met => self.limit = PeerLimit::Until(now.mono + RETRY_TIME_US),
            PeerLimit::Until(time) if now.mono >= time => {
                self.limit = PeerLimit::Unknown;
                return true;
            }
            _ => {}
        }
        false
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        match self.limit {
            PeerLimit::Until(time) => Some(time),
            _ => None,
        }
    }
}
