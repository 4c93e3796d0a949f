//! The codes and fixed texts of ERROR frames. Owns no behaviour: who sends which is the business of hub and net.

pub const INVALID_REQUEST: u16 = 400;
pub const NOT_AUTHENTICATED: u16 = 401;
pub const NOT_ALLOWED: u16 = 403;
pub const NOT_FOUND: u16 = 404;
pub const NODE_TIMED_OUT: u16 = 408;
pub const REPLACED: u16 = 409;
pub const FRAME_TOO_LONG: u16 = 413;
pub const RATE_LIMITED: u16 = 429;
pub const FAILED: u16 = 500;
pub const UNAVAILABLE: u16 = 503;

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $code:ident $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*

        /// Every fixed text of an ERROR, or its fixed beginning, with its code.
        pub const TEXTS: &[(u16, &str)] = &[$(($code, $name)),*];
    };
}

texts! {
    TOO_MANY_NODES_ON_CONNECTION = NOT_ALLOWED "Too many nodes on this connection";
    TOO_MANY_NODES_ON_SERVER = NOT_ALLOWED "Too many nodes on this server";
    TOO_MUCH_METADATA_ON_CONNECTION = NOT_ALLOWED "Too much metadata on this connection";
    TOO_MUCH_METADATA_ON_SERVER = NOT_ALLOWED "Too much metadata on this server";
    TOO_MANY_DECISIONS = NOT_ALLOWED "Too many decisions are open on this server";
    NOT_AUTHENTICATED_TEXT = NOT_AUTHENTICATED "Not authenticated";
    /// That says nothing about the node: it may try again.
    NOT_DECIDED_TEXT = NOT_AUTHENTICATED "Not authenticated in time";
    TOO_LONG_TEXT = INVALID_REQUEST "The message is longer than a frame may be";
    KICKED_TEXT = NOT_ALLOWED "Disconnected by the server";
    TIMED_OUT_TEXT = NODE_TIMED_OUT "Node timed out";
    SLOW_TEXT = NODE_TIMED_OUT "Slow consumer";
    REPLACED_TEXT = REPLACED "Replaced by a newer connection";
    RATE_LIMITED_TEXT = RATE_LIMITED "Rate limit exceeded";
    /// What precedes the reason.
    FAILED_PREFIX = FAILED "Failed to process message: ";
    SERVER_FULL_TEXT = UNAVAILABLE "Server is full or connection limit reached";
    SHUTTING_DOWN_TEXT = UNAVAILABLE "Server is shutting down";
}
