//! What a server says before it closes a connection, and what a client understands by it.

use crate::model::CloseReason;
use crate::wire::code;

impl CloseReason {
    /// The last words of a server to somebody who speaks v2 and would otherwise learn nothing.
    pub(crate) fn farewell(self) -> Option<(u16, &'static str)> {
        match self {
            CloseReason::Kicked => Some((code::NOT_ALLOWED, code::KICKED_TEXT)),
            CloseReason::HeartbeatTimeout => Some((code::NODE_TIMED_OUT, code::TIMED_OUT_TEXT)),
            CloseReason::SlowConsumer => Some((code::NODE_TIMED_OUT, code::SLOW_TEXT)),
            _ => None,
        }
    }

    /// What it means when these were a server's last words.
    pub(crate) fn of_last_words(error_code: i64, message: &str) -> Option<CloseReason> {
        Some(match (u16::try_from(error_code).ok()?, message) {
            (code::NOT_ALLOWED, code::KICKED_TEXT) => CloseReason::Kicked,
            (code::INVALID_REQUEST | code::NOT_AUTHENTICATED | code::NOT_ALLOWED, _) => CloseReason::Refused,
            (code::NODE_TIMED_OUT, code::SLOW_TEXT) => CloseReason::SlowConsumer,
            (code::NODE_TIMED_OUT, _) => CloseReason::HeartbeatTimeout,
            (code::REPLACED, _) => CloseReason::Replaced,
            (code::FRAME_TOO_LONG, _) => CloseReason::FrameTooLong,
            (code::FAILED, _) => CloseReason::BrokenStream,
            (code::UNAVAILABLE, code::SHUTTING_DOWN_TEXT) => CloseReason::ServerStopped,
            (code::UNAVAILABLE, _) => CloseReason::ServerFull,
            _ => return None,
        })
    }
}
