//! What frames there are: one number for each type, in every dialect.

use std::fmt;

/// What a frame is. Any byte may arrive; the named ones are the types that have a meaning.
///
/// A number is assigned here once, for every dialect, and never reused after a type is retired.
#[derive(Copy, Clone, PartialEq, Eq, Hash)]
pub struct FrameType(pub u8);

impl FrameType {
    pub const HEARTBEAT_REQ: Self = Self(0x01);
    pub const HEARTBEAT_RES: Self = Self(0x02);
    pub const DATA: Self = Self(0x03);
    pub const PING: Self = Self(0x04);
    pub const PONG: Self = Self(0x05);
    pub const REGISTER: Self = Self(0x06);
    pub const UNREGISTER: Self = Self(0x07);
    pub const ERROR: Self = Self(0x08);
    /// This one and all that follow are ours: a v1 peer of the PHP library does not know them, and gets none that it did not ask for.
    pub const SUBSCRIBE: Self = Self(0x09);
    pub const UNSUBSCRIBE: Self = Self(0x0a);
    pub const PUBLISH: Self = Self(0x0b);
    /// A topic's delivery.
    pub const MESSAGE: Self = Self(0x0c);
    /// Reserved, as the next three.
    pub const REQUEST: Self = Self(0x0d);
    pub const RESPONSE: Self = Self(0x0e);
    pub const OPEN_CHANNEL: Self = Self(0x0f);
    pub const CLOSE_CHANNEL: Self = Self(0x10);
    /// From a client, on channel 0: nothing but a sign that it speaks v2.
    pub const ACK: Self = Self(0x11);
    /// The server is going away: come back later, or elsewhere.
    pub const GOAWAY: Self = Self(0x12);

    /// The v1 name; `UNKNOWN` for everything else, as the PHP library calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HEARTBEAT_REQ => "HEARTBEAT_REQ",
            Self::HEARTBEAT_RES => "HEARTBEAT_RES",
            Self::DATA => "DATA",
            Self::PING => "PING",
            Self::PONG => "PONG",
            Self::REGISTER => "REGISTER",
            Self::UNREGISTER => "UNREGISTER",
            Self::ERROR => "ERROR",
            _ => "UNKNOWN",
        }
    }

    /// Whether v1 defines this type.
    pub fn is_known(self) -> bool {
        (Self::HEARTBEAT_REQ.0..=Self::ERROR.0).contains(&self.0)
    }
}

impl fmt::Debug for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:#04x})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_eight_types_of_v1_are_known_and_named() {
        let names = (1..=8).map(|code| FrameType(code).name()).collect::<Vec<_>>();
        assert_eq!(names, ["HEARTBEAT_REQ", "HEARTBEAT_RES", "DATA", "PING", "PONG", "REGISTER", "UNREGISTER", "ERROR"]);
        for code in 0..=255 {
            assert_eq!(FrameType(code).is_known(), (1..=8).contains(&code), "{code}");
            assert_eq!(FrameType(code).name() == "UNKNOWN", !(1..=8).contains(&code), "{code}");
        }
    }
}
