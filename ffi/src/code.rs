//! The numbers that events carry in `code`.

use heartbus_core::event::{CloseReason, ErrorCause};

/// The `code` of HEARTBUS_EVENT_CLOSE and HEARTBUS_EVENT_CLIENT_CLOSE: why the connection ended. Of a client's it is what its server
/// told, where that told something. More may be added; `text` says the same in words.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum heartbus_close_reason {
    /// The peer closed it.
    HEARTBUS_CLOSE_PEER_CLOSED = 1,
    /// The connection was lost: it was reset, for one.
    HEARTBUS_CLOSE_IO_ERROR = 2,
    /// What came was not the protocol.
    HEARTBUS_CLOSE_BROKEN_STREAM = 3,
    /// A frame announced more than max_frame_bytes.
    HEARTBUS_CLOSE_FRAME_TOO_LONG = 4,
    /// No node registered within register_timeout.
    HEARTBUS_CLOSE_REGISTER_TIMEOUT = 5,
    /// Its last node timed out; of a client also: the server did not answer its heartbeats.
    HEARTBUS_CLOSE_HEARTBEAT_TIMEOUT = 6,
    /// Its last node was replaced by a newer connection.
    HEARTBUS_CLOSE_REPLACED = 7,
    /// heartbus_server_disconnect took its last node.
    HEARTBUS_CLOSE_KICKED = 8,
    /// It took nothing of what waited for it for slow_consumer_timeout.
    HEARTBUS_CLOSE_SLOW_CONSUMER = 9,
    /// The server was full.
    HEARTBUS_CLOSE_SERVER_FULL = 10,
    /// Its address is denied, or not among those allowed.
    HEARTBUS_CLOSE_NOT_ALLOWED = 11,
    /// The server was stopped.
    HEARTBUS_CLOSE_SERVER_STOPPED = 12,
    /// Of a client: it could not be made. HEARTBUS_EVENT_CLIENT_ERROR has told why.
    HEARTBUS_CLOSE_CONNECT_FAILED = 13,
    /// Of a client: the server refused to register its only node.
    HEARTBUS_CLOSE_REFUSED = 14,
    /// Of a client: the program disconnected it.
    HEARTBUS_CLOSE_DISCONNECTED = 15,
    /// Of a client: a fault of this library. It connects again.
    HEARTBUS_CLOSE_FAILED = 16,
}

/// The `code` of HEARTBUS_EVENT_CLIENT_SERVER_ERROR, when a Heartbus server speaks. Other servers may send others.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(dead_code, reason = "names for C, which gets the numbers as they come")]
pub enum heartbus_error_code {
    HEARTBUS_ERROR_INVALID_REQUEST = 400,
    HEARTBUS_ERROR_NOT_AUTHENTICATED = 401,
    HEARTBUS_ERROR_NOT_ALLOWED = 403,
    HEARTBUS_ERROR_NOT_FOUND = 404,
    /// The node was silent for too long. Connects again.
    HEARTBUS_ERROR_NODE_TIMED_OUT = 408,
    /// A newer connection registered the same node id. This client does not connect again.
    HEARTBUS_ERROR_REPLACED = 409,
    HEARTBUS_ERROR_FRAME_TOO_LONG = 413,
    HEARTBUS_ERROR_RATE_LIMITED = 429,
    HEARTBUS_ERROR_FAILED = 500,
    /// The server is full or shutting down.
    HEARTBUS_ERROR_UNAVAILABLE = 503,
}

/// The `code` of HEARTBUS_EVENT_CLIENT_ERROR.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(dead_code, reason = "names for C, which gets the numbers as they come")]
pub enum heartbus_client_error {
    HEARTBUS_CLIENT_CONNECT_FAILED = 1,
    HEARTBUS_CLIENT_SEND_FAILED = 2,
}

/// The `cause` of HEARTBUS_EVENT_CLIENT_ERROR: why the socket failed. More may be added; `payload` says the same in words.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum heartbus_error_cause {
    /// Nobody listens there.
    HEARTBUS_CAUSE_REFUSED = 1,
    /// The name of the host has no address, as far as the system can tell.
    HEARTBUS_CAUSE_NO_SUCH_HOST = 2,
    HEARTBUS_CAUSE_TIMED_OUT = 3,
    /// There is no way to the address.
    HEARTBUS_CAUSE_UNREACHABLE = 4,
    /// The connection broke.
    HEARTBUS_CAUSE_LOST = 5,
    /// The system has no descriptor, port or memory left.
    HEARTBUS_CAUSE_EXHAUSTED = 6,
    HEARTBUS_CAUSE_OTHER = 7,
}

pub(crate) fn error_cause(cause: ErrorCause) -> heartbus_error_cause {
    use heartbus_error_cause::*;
    match cause {
        ErrorCause::Refused => HEARTBUS_CAUSE_REFUSED,
        ErrorCause::NoSuchHost => HEARTBUS_CAUSE_NO_SUCH_HOST,
        ErrorCause::TimedOut => HEARTBUS_CAUSE_TIMED_OUT,
        ErrorCause::Unreachable => HEARTBUS_CAUSE_UNREACHABLE,
        ErrorCause::Lost => HEARTBUS_CAUSE_LOST,
        ErrorCause::Exhausted => HEARTBUS_CAUSE_EXHAUSTED,
        ErrorCause::Other => HEARTBUS_CAUSE_OTHER,
    }
}

pub(crate) fn close_reason(reason: CloseReason) -> heartbus_close_reason {
    use heartbus_close_reason::*;
    match reason {
        CloseReason::PeerClosed => HEARTBUS_CLOSE_PEER_CLOSED,
        CloseReason::IoError => HEARTBUS_CLOSE_IO_ERROR,
        CloseReason::BrokenStream => HEARTBUS_CLOSE_BROKEN_STREAM,
        CloseReason::FrameTooLong => HEARTBUS_CLOSE_FRAME_TOO_LONG,
        CloseReason::RegisterTimeout => HEARTBUS_CLOSE_REGISTER_TIMEOUT,
        CloseReason::HeartbeatTimeout => HEARTBUS_CLOSE_HEARTBEAT_TIMEOUT,
        CloseReason::Replaced => HEARTBUS_CLOSE_REPLACED,
        CloseReason::Kicked => HEARTBUS_CLOSE_KICKED,
        CloseReason::SlowConsumer => HEARTBUS_CLOSE_SLOW_CONSUMER,
        CloseReason::ServerFull => HEARTBUS_CLOSE_SERVER_FULL,
        CloseReason::NotAllowed => HEARTBUS_CLOSE_NOT_ALLOWED,
        CloseReason::ServerStopped => HEARTBUS_CLOSE_SERVER_STOPPED,
        CloseReason::ConnectFailed => HEARTBUS_CLOSE_CONNECT_FAILED,
        CloseReason::Refused => HEARTBUS_CLOSE_REFUSED,
        CloseReason::Disconnected => HEARTBUS_CLOSE_DISCONNECTED,
        CloseReason::Failed => HEARTBUS_CLOSE_FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::heartbus_error_code::*;
    use super::{close_reason, error_cause};
    use heartbus_core::event::{CloseReason, ErrorCause};
    use heartbus_core::wire::code;

    #[test]
    fn reasons_and_causes_have_the_numbers_of_their_order() {
        for (place, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(close_reason(reason) as usize, place + 1, "{reason}");
        }
        for (place, cause) in ErrorCause::ALL.into_iter().enumerate() {
            assert_eq!(error_cause(cause) as usize, place + 1, "{cause}");
        }
    }

    #[test]
    fn the_codes_of_error_frames_are_those_of_the_wire() {
        let pairs = [
            (HEARTBUS_ERROR_INVALID_REQUEST, code::INVALID_REQUEST),
            (HEARTBUS_ERROR_NOT_AUTHENTICATED, code::NOT_AUTHENTICATED),
            (HEARTBUS_ERROR_NOT_ALLOWED, code::NOT_ALLOWED),
            (HEARTBUS_ERROR_NOT_FOUND, code::NOT_FOUND),
            (HEARTBUS_ERROR_NODE_TIMED_OUT, code::NODE_TIMED_OUT),
            (HEARTBUS_ERROR_REPLACED, code::REPLACED),
            (HEARTBUS_ERROR_FRAME_TOO_LONG, code::FRAME_TOO_LONG),
            (HEARTBUS_ERROR_RATE_LIMITED, code::RATE_LIMITED),
            (HEARTBUS_ERROR_FAILED, code::FAILED),
            (HEARTBUS_ERROR_UNAVAILABLE, code::UNAVAILABLE),
        ];
        for (in_c, on_the_wire) in pairs {
            assert_eq!(in_c as i32, i32::from(on_the_wire));
        }
    }
}
