//! What happens to clients, as lines of the log: the messages of the PHP library with its levels and fields, and whose they are.
//!
//! Owns the texts, and how many lines of a kind the clients of one thread may write per second: a server can cause most of them
//! as often as it likes, and a host the others. Shared by those clients; has no clock.

use super::refusal::ClientRefusal;
use crate::hub::Now;
use crate::hub::connection_log::{COMPLAINTS, LIVES};
use crate::hub::quota::{self, LineQuotas};
use crate::model::{CloseReason, ErrorCause};
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use tracing::{Level, debug, enabled, error, info, warn};

/// Where its lines come from.
pub(crate) const MODULE: &str = module_path!();

/// Kinds of lines that have a quota of their own.
#[derive(Copy, Clone)]
enum ClientLine {
    Connected,
    Registering,
    RegisteringMore,
    Registered,
    Closed,
    Scheduled,
    GaveUp,
    NoReply,
    Failed,
    NodeLost,
    ServerError,
    Invalid,
    Unreadable,
    NotSent,
    NoPing,
}

const COUNT: usize = 15;

/// In the order of the enum.
static KINDS: [quota::LineKind; COUNT] = [
    ("Connected to server", Level::INFO, LIVES),
    ("Sending registration", Level::INFO, LIVES),
    ("Sending registration", Level::DEBUG, LIVES),
    ("Registration successful", Level::INFO, LIVES),
    ("Connection closed", Level::INFO, LIVES),
    ("Scheduling reconnect", Level::INFO, LIVES),
    ("Max reconnect attempts reached", Level::ERROR, LIVES),
    ("No heartbeat reply, closing the connection", Level::WARN, LIVES),
    ("Connection error", Level::ERROR, LIVES),
    ("Lost a node", Level::WARN, LIVES),
    ("Server error", Level::ERROR, COMPLAINTS),
    ("Invalid message format", Level::WARN, COMPLAINTS),
    ("Failed to handle message", Level::ERROR, COMPLAINTS),
    ("Failed to send data", Level::ERROR, COMPLAINTS),
    ("Failed to send ping", Level::ERROR, COMPLAINTS),
];

/// The log of the clients of one thread.
pub struct ClientLog {
    quotas: Mutex<LineQuotas<COUNT>>,
}

impl Default for ClientLog {
    fn default() -> Self {
        Self { quotas: Mutex::new(LineQuotas::new(&KINDS)) }
    }
}

impl ClientLog {
    pub(super) fn connected(&self, client_id: u64, host: &str, port: u16, now: Now) {
        if enabled!(Level::INFO) && self.may(ClientLine::Connected, now) {
            info!(client_id, host, port, "Connected to server");
        }
    }

    pub(super) fn registering(&self, client_id: u64, node_id: &str, now: Now) {
        if enabled!(Level::INFO) && self.may(ClientLine::Registering, now) {
            info!(client_id, node_id, "Sending registration");
        }
    }

    /// Of a client with many: one line for each would be too much for everyday.
    pub(super) fn registering_more(&self, client_id: u64, node_id: &str, now: Now) {
        if enabled!(Level::DEBUG) && self.may(ClientLine::RegisteringMore, now) {
            debug!(client_id, node_id, "Sending registration");
        }
    }

    pub(super) fn registered(&self, client_id: u64, node_id: &str, channel_id: u32, now: Now) {
        if enabled!(Level::INFO) && self.may(ClientLine::Registered, now) {
            info!(client_id, node_id, channel_id, "Registration successful");
        }
    }

    pub(super) fn closed(&self, client_id: u64, reason: CloseReason, detail: &str, now: Now) {
        if enabled!(Level::INFO) && self.may(ClientLine::Closed, now) {
            match detail {
                "" => info!(client_id, %reason, "Connection closed"),
                _ => info!(client_id, %reason, detail, "Connection closed"),
            }
        }
    }

    /// `wait` in microseconds.
    pub(super) fn scheduled(&self, client_id: u64, attempt: u32, wait: u64, now: Now) {
        if enabled!(Level::INFO) && self.may(ClientLine::Scheduled, now) {
            info!(client_id, attempt, interval = wait as f64 / 1e6, "Scheduling reconnect");
        }
    }

    pub(super) fn gave_up(&self, client_id: u64, now: Now) {
        if enabled!(Level::ERROR) && self.may(ClientLine::GaveUp, now) {
            error!(client_id, "Max reconnect attempts reached");
        }
    }

    pub(super) fn no_reply(&self, client_id: u64, host: &str, port: u16, now: Now) {
        if enabled!(Level::WARN) && self.may(ClientLine::NoReply, now) {
            warn!(client_id, host, port, "No heartbeat reply, closing the connection");
        }
    }

    pub(super) fn failed(&self, client_id: u64, code: i32, message: &str, cause: ErrorCause, now: Now) {
        if enabled!(Level::ERROR) && self.may(ClientLine::Failed, now) {
            error!(client_id, code, %cause, "Connection error: {message}");
        }
    }

    pub(super) fn node_lost(&self, client_id: u64, node_id: &str, message: &str, code: i64, now: Now) {
        if enabled!(Level::WARN) && self.may(ClientLine::NodeLost, now) {
            warn!(client_id, node_id, message, code, "Lost a node");
        }
    }

    pub(super) fn server_error(&self, client_id: u64, message: &str, code: i64, now: Now) {
        if enabled!(Level::ERROR) && self.may(ClientLine::ServerError, now) {
            error!(client_id, message, code, "Server error");
        }
    }

    /// The answer to a REGISTER that is none.
    pub(super) fn invalid(&self, client_id: u64, now: Now) {
        if enabled!(Level::WARN) && self.may(ClientLine::Invalid, now) {
            warn!(client_id, "Invalid message format");
        }
    }

    pub(super) fn unreadable(&self, client_id: u64, why: &dyn Display, now: Now) {
        if enabled!(Level::ERROR) && self.may(ClientLine::Unreadable, now) {
            error!(client_id, "Failed to handle message: {why}");
        }
    }

    pub(super) fn not_sent(&self, client_id: u64, why: ClientRefusal, now: Now) {
        if enabled!(Level::ERROR) && self.may(ClientLine::NotSent, now) {
            match why {
                ClientRefusal::NotConnected => error!(client_id, "Cannot send: Not connected to server"),
                why => error!(client_id, "Failed to send data: {why}"),
            }
        }
    }

    pub(super) fn no_ping(&self, client_id: u64, why: ClientRefusal, now: Now) {
        if enabled!(Level::ERROR) && self.may(ClientLine::NoPing, now) {
            match why {
                ClientRefusal::NotConnected => error!(client_id, "Cannot ping: Not connected to server"),
                why => error!(client_id, "Failed to send ping: {why}"),
            }
        }
    }

    /// Tells what was left out, at most once per second; to be called more often than that.
    pub fn tell_left_out(&self, now: Now) {
        self.quotas().tell_left_out(now);
    }

    /// Tells what was left out and not told yet; to be called at the end.
    pub fn tell_counts(&self) {
        self.quotas().tell_counts();
    }

    fn may(&self, kind: ClientLine, now: Now) -> bool {
        self.quotas().may(kind as usize, now)
    }

    fn quotas(&self) -> std::sync::MutexGuard<'_, LineQuotas<COUNT>> {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
