//! A frame as it was read, borrowed from its bytes, and the dialects in which one may be spelled.
//!
//! Owns what all dialects have in common. How one is read and written is theirs.

use super::error::FrameError;
use super::frame_type::FrameType;
use super::php_cast::PhpString;
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;

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
    pub const fn header_len(self) -> usize {
        match self {
            // Magic, type, length.
            Self::V1 => 7,
            // Magic, type, flags, length, channel id.
            Self::V2 => 12,
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

impl<'a> Front<'a> {
    /// Looks into the frame with this, if there is a whole one.
    #[inline(always)]
    pub(super) fn decode_with(self, decode_whole: impl FnOnce(&'a [u8]) -> Decoded<'a>) -> Decoded<'a> {
        match self {
            Front::Incomplete => Decoded::Incomplete,
            Front::Whole(whole) => decode_whole(whole.bytes),
            Front::Broken { error } => Decoded::Broken { error },
        }
    }
}

/// All bytes of one frame.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Whole<'a> {
    pub(super) dialect: Dialect,
    pub(super) bytes: &'a [u8],
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
    Cast(PhpString<'a>),
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
            Repr::Cast(PhpString::Text(text)) => text.exactly().into(),
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

/// What an envelope of v1 has for a payload.
impl<'a> From<PhpString<'a>> for Payload<'a> {
    #[inline(always)]
    fn from(string: PhpString<'a>) -> Self {
        Self(Repr::Cast(string))
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
