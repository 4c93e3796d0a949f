//! What a server says before it closes a connection, and what a client understands by it.

use crate::model::CloseReason;
use crate::wire::code;

impl CloseReason {
    /// The last words of a server to somebody who speaks v2 and would otherwise learn nothing.
    pub(crate) fn farewell(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Kicked => Some((code::NOT_ALLOWED, code::KICKED_TEXT)),
            Self::HeartbeatTimeout => Some((code::NODE_TIMED_OUT, code::TIMED_OUT_TEXT)),
            Self::SlowConsumer => Some((code::NODE_TIMED_OUT, code::SLOW_TEXT)),
            _ => None,
        }
    }

    /// What it means when these were a server's last words.
    pub(crate) fn of_last_words(error_code: i64, message: &str) -> Option<Self> {
        Some(match (u16::try_from(error_code).ok()?, message) {
            (code::NOT_ALLOWED, code::KICKED_TEXT) => Self::Kicked,
            (code::INVALID_REQUEST | code::NOT_AUTHENTICATED | code::NOT_ALLOWED, _) => Self::Refused,
            (code::NODE_TIMED_OUT, code::SLOW_TEXT) => Self::SlowConsumer,
            (code::NODE_TIMED_OUT, _) => Self::HeartbeatTimeout,
            (code::REPLACED, _) => Self::Replaced,
            (code::FRAME_TOO_LONG, _) => Self::FrameTooLong,
            (code::FAILED, _) => Self::BrokenStream,
            (code::UNAVAILABLE, code::SHUTTING_DOWN_TEXT) => Self::ServerStopped,
            (code::UNAVAILABLE, _) => Self::ServerFull,
            _ => return None,
        })
    }
}
