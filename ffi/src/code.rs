//! The numbers that events carry in `code`.

use std::ffi::{CStr, c_char};

/// The `code` of HEARTBUS_EVENT_CLOSE and HEARTBUS_EVENT_CLIENT_CLOSE: why the connection ended. Of a client's it is what its server
/// told, where that told something. More may be added; `text` says the same in words.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum heartbus_close_reason {
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
    /// heartbus_server_decide has refused its only node, or was not called in time.
    HEARTBUS_CLOSE_NOT_AUTHENTICATED = 17,
}

/// The `code` of HEARTBUS_EVENT_CLIENT_SERVER_ERROR, when a Heartbus server speaks. Other servers may send others.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(dead_code, reason = "names for C, which gets the numbers as they come")]
pub(crate) enum heartbus_error_code {
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
pub(crate) enum heartbus_client_error {
    HEARTBUS_CLIENT_CONNECT_FAILED = 1,
    HEARTBUS_CLIENT_SEND_FAILED = 2,
}

/// The `cause` of HEARTBUS_EVENT_CLIENT_ERROR: why the socket failed. More may be added; `payload` says the same in words.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum heartbus_error_cause {
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

/// The name of a number; "unknown" for one that has none.
pub(crate) fn name_in(names: &[(i32, &'static CStr)], number: i32) -> *const c_char {
    names.iter().find(|(of, _)| *of == number).map_or(c"unknown", |(_, name)| *name).as_ptr()
}

/// The name of a heartbus_close_reason without its prefix, in lower case: "peer_closed", "slow_consumer"; "unknown" for a number that
/// this library does not know. Lives as long as the program. Names never change, unlike the words in `text`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn heartbus_reason_name(reason: i32) -> *const c_char {
    use heartbus_close_reason::*;
    const NAMES: &[(i32, &CStr)] = &[
        (HEARTBUS_CLOSE_PEER_CLOSED as i32, c"peer_closed"),
        (HEARTBUS_CLOSE_IO_ERROR as i32, c"io_error"),
        (HEARTBUS_CLOSE_BROKEN_STREAM as i32, c"broken_stream"),
        (HEARTBUS_CLOSE_FRAME_TOO_LONG as i32, c"frame_too_long"),
        (HEARTBUS_CLOSE_REGISTER_TIMEOUT as i32, c"register_timeout"),
        (HEARTBUS_CLOSE_HEARTBEAT_TIMEOUT as i32, c"heartbeat_timeout"),
        (HEARTBUS_CLOSE_REPLACED as i32, c"replaced"),
        (HEARTBUS_CLOSE_KICKED as i32, c"kicked"),
        (HEARTBUS_CLOSE_SLOW_CONSUMER as i32, c"slow_consumer"),
        (HEARTBUS_CLOSE_SERVER_FULL as i32, c"server_full"),
        (HEARTBUS_CLOSE_NOT_ALLOWED as i32, c"not_allowed"),
        (HEARTBUS_CLOSE_SERVER_STOPPED as i32, c"server_stopped"),
        (HEARTBUS_CLOSE_CONNECT_FAILED as i32, c"connect_failed"),
        (HEARTBUS_CLOSE_REFUSED as i32, c"refused"),
        (HEARTBUS_CLOSE_DISCONNECTED as i32, c"disconnected"),
        (HEARTBUS_CLOSE_FAILED as i32, c"failed"),
        (HEARTBUS_CLOSE_NOT_AUTHENTICATED as i32, c"not_authenticated"),
    ];
    name_in(NAMES, reason)
}

/// The name of a heartbus_error_code, as heartbus_reason_name: "node_timed_out", "rate_limited".
#[unsafe(no_mangle)]
pub(crate) extern "C" fn heartbus_error_name(code: i32) -> *const c_char {
    use heartbus_error_code::*;
    const NAMES: &[(i32, &CStr)] = &[
        (HEARTBUS_ERROR_INVALID_REQUEST as i32, c"invalid_request"),
        (HEARTBUS_ERROR_NOT_AUTHENTICATED as i32, c"not_authenticated"),
        (HEARTBUS_ERROR_NOT_ALLOWED as i32, c"not_allowed"),
        (HEARTBUS_ERROR_NOT_FOUND as i32, c"not_found"),
        (HEARTBUS_ERROR_NODE_TIMED_OUT as i32, c"node_timed_out"),
        (HEARTBUS_ERROR_REPLACED as i32, c"replaced"),
        (HEARTBUS_ERROR_FRAME_TOO_LONG as i32, c"frame_too_long"),
        (HEARTBUS_ERROR_RATE_LIMITED as i32, c"rate_limited"),
        (HEARTBUS_ERROR_FAILED as i32, c"failed"),
        (HEARTBUS_ERROR_UNAVAILABLE as i32, c"unavailable"),
    ];
    name_in(NAMES, code)
}

/// The name of a heartbus_client_error, as heartbus_reason_name: "connect_failed".
#[unsafe(no_mangle)]
pub(crate) extern "C" fn heartbus_client_error_name(code: i32) -> *const c_char {
    use heartbus_client_error::*;
    const NAMES: &[(i32, &CStr)] =
        &[(HEARTBUS_CLIENT_CONNECT_FAILED as i32, c"connect_failed"), (HEARTBUS_CLIENT_SEND_FAILED as i32, c"send_failed")];
    name_in(NAMES, code)
}

/// The name of a heartbus_error_cause, as heartbus_reason_name: "refused", "no_such_host".
#[unsafe(no_mangle)]
pub(crate) extern "C" fn heartbus_cause_name(cause: i32) -> *const c_char {
    use heartbus_error_cause::*;
    const NAMES: &[(i32, &CStr)] = &[
        (HEARTBUS_CAUSE_REFUSED as i32, c"refused"),
        (HEARTBUS_CAUSE_NO_SUCH_HOST as i32, c"no_such_host"),
        (HEARTBUS_CAUSE_TIMED_OUT as i32, c"timed_out"),
        (HEARTBUS_CAUSE_UNREACHABLE as i32, c"unreachable"),
        (HEARTBUS_CAUSE_LOST as i32, c"lost"),
        (HEARTBUS_CAUSE_EXHAUSTED as i32, c"exhausted"),
        (HEARTBUS_CAUSE_OTHER as i32, c"other"),
    ];
    name_in(NAMES, cause)
}

#[cfg(test)]
mod tests {
    use super::heartbus_error_code::*;
    use super::*;
    use crate::event::heartbus_event_name;
    use crate::log::heartbus_log_level_name;
    use crate::status::heartbus_status_name;
    use heartbus_core::event::{ClientEventKind, CloseReason, ErrorCause, EventKind};
    use heartbus_core::wire::code;
    use std::fmt::Debug;
    use std::fs;

    /// Reads the list of all numbers, so that one which is added later is noticed.
    #[test]
    fn every_number_has_its_own_name() {
        type Name = extern "C" fn(i32) -> *const c_char;
        let tables: [(&str, &str, Name); 7] = [
            ("heartbus_status", "HEARTBUS_", heartbus_status_name),
            ("heartbus_event_type", "HEARTBUS_EVENT_", heartbus_event_name),
            ("heartbus_close_reason", "HEARTBUS_CLOSE_", heartbus_reason_name),
            ("heartbus_error_code", "HEARTBUS_ERROR_", heartbus_error_name),
            ("heartbus_client_error", "HEARTBUS_CLIENT_", heartbus_client_error_name),
            ("heartbus_error_cause", "HEARTBUS_CAUSE_", heartbus_cause_name),
            ("heartbus_log_level", "HEARTBUS_LOG_", heartbus_log_level_name),
        ];
        let list = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/abi.txt")).unwrap();
        for (table, prefix, name) in tables {
            // SAFETY: names are NUL-terminated and live as long as the program.
            let name = |number| unsafe { CStr::from_ptr(name(number)) }.to_str().unwrap();
            let mut numbers = 0;
            for line in list.lines().filter_map(|line| line.strip_prefix(&format!("enum {table}: {prefix}"))) {
                let (member, number) = line.split_once(" = ").unwrap();
                assert_eq!(name(number.parse().unwrap()).to_lowercase(), member.to_lowercase());
                numbers += 1;
            }
            assert!(numbers > 1, "{table}");
            assert_eq!(name(-1).to_lowercase(), "unknown");
        }
    }

    /// The members of an enum of C, without the prefix and with their numbers.
    fn members(table: &str, prefix: &str) -> Vec<(String, i32)> {
        let list = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/abi.txt")).unwrap();
        let start = format!("enum {table}: {prefix}");
        let members = list.lines().filter_map(|line| line.strip_prefix(&start)?.split_once(" = "));
        let mut members: Vec<_> = members.map(|(name, number)| (name.replace('_', ""), number.parse().unwrap())).collect();
        members.sort_by_key(|(_, number)| *number);
        members
    }

    /// What the engine has under each number that a byte holds, named as in C.
    fn known<T: Debug>(from_number: impl Fn(u8) -> Option<T>) -> Vec<(String, i32)> {
        let known = (0..=u8::MAX).filter_map(|number| Some((from_number(number)?, number)));
        known.map(|(known, number)| (format!("{known:?}").to_uppercase(), number.into())).collect()
    }

    #[test]
    fn what_the_engine_numbers_has_the_same_numbers_and_names_in_c() {
        assert_eq!(known(CloseReason::from_number), members("heartbus_close_reason", "HEARTBUS_CLOSE_"));
        assert_eq!(known(ErrorCause::from_number), members("heartbus_error_cause", "HEARTBUS_CAUSE_"));
        let bits = known(EventKind::from_number).into_iter().map(|(name, number)| (name, 1 << (number - 1)));
        let in_c = members("heartbus_events", "HEARTBUS_ON_").into_iter().filter(|(name, _)| name != "NOTHING");
        assert_eq!(bits.collect::<Vec<_>>(), in_c.collect::<Vec<_>>());
        let of_clients = known(ClientEventKind::from_number).into_iter().map(|(name, number)| (name, 100 + number));
        assert_eq!(of_clients.collect::<Vec<_>>(), members("heartbus_event_type", "HEARTBUS_EVENT_CLIENT_"));
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
