//! What a session works with, and what it tells the shell.

use crate::hub::budget::Budget;
use crate::hub::connection_log::ConnectionLog;
use crate::hub::replies::Replies;
use crate::hub::topics::members::ThreadMembers;
use crate::hub::{Counters, Hub, Now, Timer, Wheel};
use crate::model::CloseReason;
use crate::wire::websocket::deflate::Inflater;

/// What a session works with, lent to it by its thread for one call.
pub struct Context<'a> {
    pub hub: &'a Hub,
    pub counters: &'a Counters,
    pub wheel: &'a mut Wheel<Timer>,
    pub replies: &'a mut Replies,
    pub connection_log: &'a mut ConnectionLog,
    /// Frames count from when they were read: this is the time at which that was.
    pub now: Now,
    /// What is left of the connection's turn.
    pub budget: &'a mut Budget,
    pub seldom: &'a mut Seldom,
}

/// What few calls need. It is lent as one, for each thing that is lent costs every heartbeat.
pub struct Seldom {
    /// By which the topics know the thread.
    pub thread: usize,
    /// Who on this thread has subscribed to what.
    pub members: ThreadMembers,
    /// For messages of WebSocket's that are compressed.
    pub inflater: Inflater,
    pub random: fastrand::Rng,
}

/// How the shell goes on with a connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Continue,
    /// The host has no room: stop reading, keep what was not consumed, and come back with it after `resume`.
    Wait,
    /// The turn is used up: keep what was not consumed, and come back with it in a later one.
    Again,
    /// What is next is a long frame: keep it, and come back with it in the turn of a long frame ([`Budget::long`]).
    Later,
    /// Somebody is silent, as far as was read: look at the socket, then ask again with what was found there.
    Look,
    /// What begins here is a request of HTTP's: keep it, and come back with it to the session that this one becomes.
    Http,
    /// The same of a frame of Firetower's.
    Firetower,
    /// Write the replies, then end the connection.
    Close(CloseReason),
}

/// What a look at the socket of a silent peer found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nobody looked yet.
    NotYet,
    /// We do not read it: its silence is ours.
    Stopped,
    /// There is more than was read so far.
    Unread,
    /// Nothing that was not read.
    Empty,
}
