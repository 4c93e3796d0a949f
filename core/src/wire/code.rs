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

pub const REPLACED_TEXT: &str = "Replaced by a newer connection";
pub const RATE_LIMITED_TEXT: &str = "Rate limit exceeded";
pub const SERVER_FULL_TEXT: &str = "Server is full or connection limit reached";
pub const SHUTTING_DOWN_TEXT: &str = "Server is shutting down";
pub const KICKED_TEXT: &str = "Disconnected by the server";
pub const TIMED_OUT_TEXT: &str = "Node timed out";
pub const SLOW_TEXT: &str = "Slow consumer";
pub const TOO_LONG_TEXT: &str = "The message is longer than a frame may be";

/// What precedes the reason in the message of a 500.
pub const FAILED_PREFIX: &str = "Failed to process message: ";
