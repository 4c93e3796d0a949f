//! What happens on the bus, as lines of the log: the messages of the PHP library with its levels and fields.
//!
//! Owns the texts, and how many lines of a kind one thread may write per second. What is left out is counted, and the
//! counts are told. Has no clock, and does not know where lines go. A level that is off costs a look at
//! one number; a heartbeat that is answered does not come here at all.

use super::link::Link;
use super::quota::{self, LineQuotas};
use super::{Node, Now};
use crate::model::{CloseReason, Departure};
use crate::wire::code;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use tracing::{Level, enabled, error, info, warn};

/// Where its lines come from.
pub(super) const MODULE: &str = module_path!();

/// One line per event of a life, where somebody wants to read them all: far more than a quiet second has.
pub(super) const LIVES: u32 = 1000;
/// One line per frame or connection that is refused: enough to see what is going on.
pub(super) const COMPLAINTS: u32 = 10;

/// Kinds of lines that have a quota of their own.
#[derive(Copy, Clone)]
enum ConnectionLine {
    Connected,
    Registered,
    Left,
    TimedOut,
    Denied,
    NotAdmitted,
    RateLimited,
    Incomplete,
    Unknown,
    Unregistered,
    Failed,
    CallerRefused,
    CallerHungUpOn,
    ClosedForMemory,
}

const COUNT: usize = 14;

/// In the order of the enum.
static KINDS: [quota::LineKind; COUNT] = [
    ("Connection established", Level::INFO, LIVES),
    ("Node registered", Level::INFO, LIVES),
    ("Node disconnected", Level::INFO, LIVES),
    ("Node timeout", Level::WARN, LIVES),
    ("Failed to add connection", Level::INFO, COMPLAINTS),
    ("Failed to add connection", Level::ERROR, COMPLAINTS),
    (code::RATE_LIMITED_TEXT, Level::WARN, COMPLAINTS),
    ("Invalid message format", Level::WARN, COMPLAINTS),
    ("Unknown message type", Level::WARN, COMPLAINTS),
    ("Heartbeat from unregistered connection", Level::WARN, COMPLAINTS),
    ("Failed to handle message", Level::ERROR, COMPLAINTS),
    ("A caller of the bus was refused", Level::INFO, COMPLAINTS),
    ("A caller of the bus was hung up on", Level::WARN, COMPLAINTS),
    ("Connection closed to free memory", Level::WARN, COMPLAINTS),
];

/// The log of one thread.
pub struct ConnectionLog {
    worker_id: usize,
    quotas: LineQuotas<COUNT>,
}

impl ConnectionLog {
    pub fn new(worker_id: usize) -> Self {
        Self { worker_id, quotas: LineQuotas::new(&KINDS) }
    }

    pub fn worker_started(&self, pid: u32) {
        info!(worker_id = self.worker_id, pid, "Worker started");
    }

    pub fn worker_stopping(&self) {
        info!(worker_id = self.worker_id, "Worker stopping");
    }

    pub fn connection_established(&mut self, connection_id: u64, peer: SocketAddr, now: Now) {
        if enabled!(Level::INFO) && self.may(ConnectionLine::Connected, now) {
            info!(connection_id, ip = %peer.ip(), port = peer.port(), "Connection established");
        }
    }

    /// Refused at the door. That somebody on a list of ours may not come in is what we wanted, and no error.
    pub fn connection_refused(&mut self, peer: SocketAddr, why: CloseReason, now: Now) {
        let (ip, port) = (peer.ip(), peer.port());
        let (text, error_code) = match why {
            CloseReason::NotAllowed => {
                if enabled!(Level::INFO) && self.may(ConnectionLine::Denied, now) {
                    info!(%ip, port, error_code = code::NOT_ALLOWED, "Failed to add connection: {why}");
                }
                return;
            }
            CloseReason::ServerFull => (code::SERVER_FULL_TEXT, code::UNAVAILABLE),
            CloseReason::ServerStopped => (code::SHUTTING_DOWN_TEXT, code::UNAVAILABLE),
            _ => (why.as_str(), code::FAILED),
        };
        if enabled!(Level::ERROR) && self.may(ConnectionLine::NotAdmitted, now) {
            error!(%ip, port, error_code, "Failed to add connection: {text}");
        }
    }

    pub fn rate_limited(&mut self, ip: IpAddr, now: Now) {
        if enabled!(Level::WARN) && self.may(ConnectionLine::RateLimited, now) {
            warn!(%ip, "{}", code::RATE_LIMITED_TEXT);
        }
    }

    /// A connection ended in the middle of a frame: what came of it will never be a message.
    pub fn incomplete(&mut self, now: Now) {
        if enabled!(Level::WARN) && self.may(ConnectionLine::Incomplete, now) {
            warn!("Invalid message format");
        }
    }

    pub fn unknown_type(&mut self, frame_type: u8, now: Now) {
        if enabled!(Level::WARN) && self.may(ConnectionLine::Unknown, now) {
            warn!("Unknown message type: {frame_type}");
        }
    }

    pub fn heartbeat_of_nobody(&mut self, connection_id: u64, now: Now) {
        if enabled!(Level::WARN) && self.may(ConnectionLine::Unregistered, now) {
            warn!(connection_id, "Heartbeat from unregistered connection");
        }
    }

    /// A frame was answered with an ERROR. Where it came from stands in for the trace of calls that PHP has.
    pub fn failed(&mut self, reason: &dyn Display, link: &Link, now: Now) {
        if enabled!(Level::ERROR) && self.may(ConnectionLine::Failed, now) {
            let trace = format!("connection {} of {}", link.connection_id(), link.peer());
            error!(trace, "Failed to handle message: {reason}");
        }
    }

    pub fn node_registered(&mut self, node: &Node, now: Now) {
        if enabled!(Level::INFO) && self.may(ConnectionLine::Registered, now) {
            let (node_id, connection_id, channel_id) = (&**node.id(), node.connection_id(), node.channel_id());
            info!(node_id, connection_id, channel_id, "Node registered");
        }
    }

    /// To be called once per registration, after the node has left.
    pub fn node_left(&mut self, node: &Node, now: Now) {
        let (node_id, connection_id) = (&**node.id(), node.connection_id());
        let how = match node.departure() {
            Some(Departure::TimedOut) => {
                if enabled!(Level::WARN) && self.may(ConnectionLine::TimedOut, now) {
                    let last_heartbeat = now.mono.saturating_sub(node.last_seen()) as f64 / 1e6;
                    warn!(node_id, last_heartbeat, "Node timeout");
                }
                return;
            }
            Some(Departure::Unregistered) => "unregistered",
            Some(Departure::Replaced) => "replaced",
            Some(Departure::Disconnected) | None => "disconnected",
        };
        if enabled!(Level::INFO) && self.may(ConnectionLine::Left, now) {
            info!(node_id, connection_id, "Node {how}");
        }
    }

    /// Another process of this machine may not use the bus socket, or not as it wanted to.
    pub fn caller_refused(&mut self, caller: &dyn Display, why: &dyn Display, now: Now) {
        if enabled!(Level::INFO) && self.may(ConnectionLine::CallerRefused, now) {
            info!(%caller, "A caller of the bus was refused: {why}");
        }
    }

    /// It broke the protocol, or a bound.
    pub fn caller_hung_up_on(&mut self, caller: &dyn Display, why: &dyn Display, now: Now) {
        if enabled!(Level::WARN) && self.may(ConnectionLine::CallerHungUpOn, now) {
            warn!(%caller, "A caller of the bus was hung up on: {why}");
        }
    }

    /// Everything that is kept was too much, and this connection held most of it.
    pub fn closed_for_memory(&mut self, link: &Link, bytes: usize, now: Now) {
        if enabled!(Level::WARN) && self.may(ConnectionLine::ClosedForMemory, now) {
            let (connection_id, ip, port) = (link.connection_id(), link.peer().ip(), link.peer().port());
            warn!(connection_id, %ip, port, bytes, "Connection closed to free memory");
        }
    }

    /// Tells what was left out, at most once per second; to be called more often than that.
    pub fn tell_left_out(&mut self, now: Now) {
        self.quotas.tell_left_out(now);
    }

    /// Tells what was left out and not told yet; to be called at the end. Returns whether there was something.
    pub fn tell_counts(&mut self) -> bool {
        self.quotas.tell_counts()
    }

    fn may(&mut self, kind: ConnectionLine, now: Now) -> bool {
        self.quotas.may(kind as usize, now)
    }
}
