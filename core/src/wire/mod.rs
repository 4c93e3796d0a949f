//! Bytes to frames and back, for every dialect of the bus.
//!
//! Owns the frame types, the JSON inside control frames and the codecs. Pure: knows no socket, no clock, no session and
//! no hub; it is given bytes and gives bytes.

pub mod bus;
pub mod code;
pub mod control;
mod json;
pub mod metadata;
mod php_cast;
pub mod php_json;
mod scan;
pub mod topic;
pub mod v1;
pub mod v2;

use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;

/// Bytes in front of a v1 frame's body: magic, type, length.
pub const HEADER_LEN: usize = 7;

/// The default cap on a frame's body.
pub const MAX_BODY_LEN: u32 = 10_485_760;

/// How frames are spelled. A stream may mix dialects frame by frame: each frame's magic number tells.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The PHP library's: JSON in JSON. Carries text only.
    #[default]
    V1,
    /// Payloads as they are.
    V2,
}

impl Dialect {
    /// Bytes in front of what a frame's length counts.
    pub fn header_len(self) -> usize {
        match self {
            Self::V1 => HEADER_LEN,
            Self::V2 => v2::HEADER_LEN,
        }
    }
}

/// What the header at the front of a byte stream says.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Front<'a> {
    /// Not a whole frame yet: keep the bytes, read more.
    Incomplete,
    /// A frame is there to its last byte, and was not looked into.
    Whole(Whole<'a>),
    /// The stream is lost: nothing after this point can be read.
    Broken { error: FrameError },
}

/// All bytes of one frame.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Whole<'a> {
    dialect: Dialect,
    bytes: &'a [u8],
}

impl<'a> Whole<'a> {
    pub fn dialect(self) -> Dialect {
        self.dialect
    }

    /// Header included.
    #[allow(clippy::len_without_is_empty, reason = "no frame is empty")]
    #[inline]
    pub fn len(self) -> usize {
        self.bytes.len()
    }

    /// Looks into it: the work of this grows with its length.
    #[inline]
    pub fn decode(self) -> Decoded<'a> {
        match self.dialect {
            Dialect::V1 => v1::decode_whole(self.bytes),
            Dialect::V2 => v2::decode_whole(self.bytes),
        }
    }
}

/// The first frame in `input`, by its header alone, and the dialect it is in. What is in neither counts as v1. A body over
/// `max_body` is refused as soon as the header says so.
#[inline]
pub fn front(input: &[u8], max_body: u32) -> (Dialect, Front<'_>) {
    if input.first_chunk() == Some(&v2::MAGIC.to_be_bytes()) {
        (Dialect::V2, v2::front(input, max_body))
    } else {
        (Dialect::V1, v1::front(input, max_body))
    }
}

/// The first frame in `input`, and the dialect it is in.
#[inline]
pub fn decode(input: &[u8], max_body: u32) -> (Dialect, Decoded<'_>) {
    if input.first_chunk() == Some(&v2::MAGIC.to_be_bytes()) {
        (Dialect::V2, v2::decode(input, max_body))
    } else {
        (Dialect::V1, v1::decode(input, max_body))
    }
}

/// The length of the frame that `input` begins with, as its header has it; `None` while that is not there, or is none.
pub fn frame_len(input: &[u8]) -> Option<usize> {
    if let Some(len) = v2::frame_len(input) {
        return Some(len);
    }
    match v1::package_len(input) {
        v1::PackageLen::Total(len) => usize::try_from(len).ok(),
        _ => None,
    }
}

/// The type of the frame that `input` begins with: it stands in the same place in both dialects.
pub fn frame_type(input: &[u8]) -> Option<FrameType> {
    input.get(2).map(|byte| FrameType(*byte))
}

impl<'a> Front<'a> {
    #[inline(always)]
    fn decode(self) -> Decoded<'a> {
        match self {
            Front::Incomplete => Decoded::Incomplete,
            Front::Whole(whole) => whole.decode(),
            Front::Broken { error } => Decoded::Broken { error },
        }
    }
}

/// Appends a frame.
///
/// # Errors
/// [`NotUtf8`] in v1 only; nothing was appended then.
pub fn encode(dialect: Dialect, frame_type: FrameType, channel_id: u32, payload: &[u8], out: &mut Vec<u8>) -> Result<(), NotUtf8> {
    match dialect {
        Dialect::V1 => v1::encode(frame_type.0, channel_id.into(), payload, out),
        Dialect::V2 => {
            v2::encode(frame_type, channel_id, payload, out);
            Ok(())
        }
    }
}

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
    /// Reserved, as all that follow: a v1 peer of the PHP library does not know them.
    pub const SUBSCRIBE: Self = Self(0x09);
    pub const UNSUBSCRIBE: Self = Self(0x0a);
    pub const PUBLISH: Self = Self(0x0b);
    /// A topic's delivery.
    pub const MESSAGE: Self = Self(0x0c);
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

/// One frame, borrowed from the bytes it was decoded from.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Frame<'a> {
    pub frame_type: FrameType,
    pub channel_id: i64,
    pub payload: Payload<'a>,
}

/// A payload that is already checked but not yet unescaped: most heartbeats are answered without looking at theirs, and
/// then cost no allocation.
#[derive(Copy, Clone)]
pub struct Payload<'a>(Repr<'a>);

#[derive(Copy, Clone)]
enum Repr<'a> {
    Bytes(&'a [u8]),
    Cast(php_cast::PhpString<'a>),
}

impl<'a> Payload<'a> {
    /// The payload itself; borrowed from the frame unless something had to be unescaped.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        match self.0 {
            Repr::Bytes(bytes) => Cow::Borrowed(bytes),
            Repr::Cast(string) => string.into_bytes(),
        }
    }

    /// The payload to be kept: one allocation.
    pub fn to_bytes(&self) -> Bytes {
        match self.0 {
            Repr::Cast(php_cast::PhpString::Text(text)) => text.exactly().into(),
            _ => Bytes::copy_from_slice(&self.bytes()),
        }
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Repr::Bytes(bytes))
    }
}

impl PartialEq for Payload<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.bytes()))
    }
}

/// What the front of a byte stream holds.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Decoded<'a> {
    /// Not a whole frame yet: keep the bytes, read more.
    Incomplete,
    /// A frame in the first `len` bytes.
    Frame { frame: Frame<'a>, len: usize },
    /// A frame that is refused, while the stream stays in step: skip `len` bytes.
    Invalid { error: FrameError, len: usize },
    /// The stream is lost: nothing after this point can be read.
    Broken { error: FrameError },
}

/// Why bytes are not a frame. The texts of `Display` are the PHP library's where it has one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    BadMagic(u16),
    TooLong(u32),
    BadPayload,
    /// A flag of v2 that means nothing yet.
    BadFlags(u8),
}

impl FrameError {
    /// The code of the ERROR frame that answers this.
    pub fn code(self) -> u16 {
        match self {
            Self::TooLong(_) => code::FRAME_TOO_LONG,
            Self::BadMagic(_) | Self::BadPayload | Self::BadFlags(_) => code::FAILED,
        }
    }

    /// The message of the ERROR frame that answers this.
    pub fn answer(self) -> String {
        match self {
            Self::TooLong(_) => self.to_string(),
            Self::BadMagic(_) | Self::BadPayload | Self::BadFlags(_) => format!("{}{self}", code::FAILED_PREFIX),
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic(magic) => write!(f, "Invalid message magic: {magic:#x}"),
            Self::TooLong(len) => write!(f, "Frame too long: {len} bytes"),
            Self::BadPayload => f.write_str("Invalid message payload"),
            Self::BadFlags(flags) => write!(f, "Invalid message flags: {flags:#x}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// A payload that v1 cannot carry, because JSON text is UTF-8.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct NotUtf8;

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payload is not valid UTF-8")
    }
}

impl std::error::Error for NotUtf8 {}

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

    #[test]
    fn errors_carry_the_texts_and_codes_of_the_reference() {
        assert_eq!(FrameError::BadMagic(0x4745).to_string(), "Invalid message magic: 0x4745");
        assert_eq!(FrameError::BadMagic(0x000a).to_string(), "Invalid message magic: 0xa");
        assert_eq!(FrameError::BadMagic(0).to_string(), "Invalid message magic: 0x0");
        assert_eq!(FrameError::BadPayload.answer(), "Failed to process message: Invalid message payload");
        assert_eq!(FrameError::BadPayload.code(), 500);
        assert_eq!(FrameError::TooLong(10_485_761).answer(), "Frame too long: 10485761 bytes");
        assert_eq!(FrameError::TooLong(10_485_761).code(), 413);
        assert_eq!(FrameError::BadFlags(0x81).answer(), "Failed to process message: Invalid message flags: 0x81");
        assert_eq!(FrameError::BadFlags(1).code(), 500);
    }

    #[test]
    fn each_frame_of_a_stream_tells_its_own_dialect() {
        let mut stream = Vec::new();
        for dialect in [Dialect::V1, Dialect::V2, Dialect::V2, Dialect::V1] {
            encode(dialect, FrameType::PING, 7, b"", &mut stream).unwrap();
        }
        let (mut rest, mut dialects) = (&stream[..], Vec::new());
        while let (dialect, Decoded::Frame { frame, len }) = decode(rest, MAX_BODY_LEN) {
            assert_eq!((frame_len(rest), frame_len(&rest[..dialect.header_len()]), frame_len(&rest[..6])), (Some(len), Some(len), None));
            assert_eq!((frame.frame_type, frame.channel_id), (FrameType::PING, 7));
            dialects.push(dialect);
            rest = &rest[len..];
        }
        assert_eq!(dialects, [Dialect::V1, Dialect::V2, Dialect::V2, Dialect::V1]);
        assert_eq!((decode(b"", MAX_BODY_LEN).1, frame_len(b""), frame_len(b"GET / HTTP/1.1\r\n")), (Decoded::Incomplete, None, None));
        assert_eq!(decode(b"\xab", MAX_BODY_LEN).1, Decoded::Incomplete);
        assert_eq!(decode(b"\xab\x14\0\0\0\0\0", MAX_BODY_LEN).1, Decoded::Broken { error: FrameError::BadMagic(0xab14) });
        assert_eq!(encode(Dialect::V1, FrameType::DATA, 0, b"\xff", &mut stream), Err(NotUtf8));
    }
}
