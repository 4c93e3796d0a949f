//! The numbers that events carry in `code`.

use heartbus_core::event::CloseReason;

/// The `code` of HEARTBUS_EVENT_CLOSE: why the connection ended. More may be added; `text` says the same in words.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum heartbus_close_reason {
    /// The peer closed it.
    HEARTBUS_CLOSE_PEER_CLOSED = 1,
    /// The connection was lost.
    HEARTBUS_CLOSE_IO_ERROR = 2,
    /// What came was not the protocol.
    HEARTBUS_CLOSE_BROKEN_STREAM = 3,
    /// A frame announced more than max_frame_bytes.
    HEARTBUS_CLOSE_FRAME_TOO_LONG = 4,
    /// No node registered within register_timeout.
    HEARTBUS_CLOSE_REGISTER_TIMEOUT = 5,
    /// Its last node timed out.
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
    }
}

#[cfg(test)]
mod tests {
    use super::heartbus_error_code::*;
    use heartbus_core::wire::code;

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
