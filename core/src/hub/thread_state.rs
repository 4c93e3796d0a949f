//! What the sessions of one thread work with, and lend each other: its counters, wheel, reply buffer, log,
//! subscribers.
//!
//! Owns these, and no clock: whoever runs the thread says what time it is.

use super::budget::Budget;
use super::connection_log::ConnectionLog;
use super::replies::Replies;
use super::session::{Context, Seldom};
use super::topics::members::ThreadMembers;
use super::wheel::Wheel;
use super::{Counters, Hub, Now, Timer};
use crate::wire::websocket::deflate::Inflater;
use std::sync::Arc;

pub struct ThreadState {
    pub counters: Arc<Counters>,
    pub wheel: Wheel<Timer>,
    pub replies: Replies,
    pub connection_log: ConnectionLog,
    pub now: Now,
    /// Of the turn that is under way. Without a bound until the first one has its own.
    pub budget: Budget,
    pub seldom: Seldom,
}

impl ThreadState {
    /// `number`: by which the log and the topics know the thread.
    pub fn new(number: usize, counters: Arc<Counters>, random: fastrand::Rng, now: Now) -> Self {
        Self {
            counters,
            wheel: Wheel::new(now.mono),
            replies: Replies::default(),
            connection_log: ConnectionLog::new(number),
            now,
            budget: Budget::unlimited(),
            seldom: Seldom { thread: number, members: ThreadMembers::default(), inflater: Inflater::default(), random },
        }
    }

    pub fn number(&self) -> usize {
        self.seldom.thread
    }

    /// Lends it all to a session of `hub`, for one call.
    pub fn context<'a>(&'a mut self, hub: &'a Hub) -> Context<'a> {
        Context {
            hub,
            counters: &self.counters,
            wheel: &mut self.wheel,
            replies: &mut self.replies,
            connection_log: &mut self.connection_log,
            now: self.now,
            budget: &mut self.budget,
            seldom: &mut self.seldom,
        }
    }

    /// The monotonic clock has gone on to `mono`; the other one is as far ahead of it as it was.
    pub fn go_on_to(&mut self, mono: u64) {
        self.now.unix += mono - self.now.mono;
        self.now.mono = mono;
    }
}
