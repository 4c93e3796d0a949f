//! WebSocket, as RFC 6455 has it, from the server's side: frames, and the messages that they make up.
//!
//! Owns the framing, what a peer may send when, and how long things may be. The handshake is [`handshake`]'s, compression
//! [`deflate`]'s. Knows no socket and no clock, and not what a message means.
//!
//! Whoever reads hands over the bytes of whole frames, as [`front`] measures them, and keeps those of a frame that is not whole yet.

pub mod deflate;
pub mod handshake;

use bytes::BufMut;
use deflate::InflateError;
use std::borrow::Cow;

/// The longest header: that of a frame whose length takes eight bytes, with its mask.
pub const MAX_HEADER: usize = 14;
/// Of a control frame.
pub const MAX_CONTROL_LEN: usize = 125;
/// The longest reason beside a code.
pub const MAX_REASON_LEN: usize = MAX_CONTROL_LEN - 2;

/// Why a connection ends, by the numbers of RFC 6455 and its registry.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    pub const NORMAL: Self = Self(1000);
    pub const GOING_AWAY: Self = Self(1001);
    pub const PROTOCOL_ERROR: Self = Self(1002);
    pub const UNSUPPORTED: Self = Self(1003);
    pub const INVALID_TEXT: Self = Self(1007);
    pub const POLICY: Self = Self(1008);
    pub const TOO_LONG: Self = Self(1009);
    pub const INTERNAL: Self = Self(1011);
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// Whether a peer may send it. 1004 to 1006 and 1015 are for use within programs, others mean nothing.
    pub fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// The peer did what it must not: the connection ends with this code, and the text says why.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub code: CloseCode,
    pub why: &'static str,
}

const fn violation(code: CloseCode, why: &'static str) -> Violation {
    Violation { code, why }
}

/// What a frame is. Others than these are refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Nobody is told that there are too many who sends so many bytes in each.
pub const FAIR_FRAGMENT: usize = 64;

/// What a peer may send at most.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a frame, and of a message from all its frames, as it is after inflating.
    pub max_message: usize,
    /// Frames that one message may be cut into, and one more for each [`FAIR_FRAGMENT`] bytes of it.
    pub max_fragments: u32,
}

/// The header of a frame from a client.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub opcode: Opcode,
    pub is_final: bool,
    /// With permessage-deflate: the message that begins here is compressed.
    pub is_compressed: bool,
    mask: [u8; 4],
    len: usize,
    header_len: usize,
}

impl Header {
    /// Of the whole frame.
    #[allow(clippy::len_without_is_empty, reason = "no frame is empty")]
    pub fn len(&self) -> usize {
        self.header_len + self.len
    }
}

/// What the bytes at the front of a stream are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum WebSocketFront {
    /// A frame of so many bytes, of which not all are there; 0 while the header is not there either.
    Incomplete(usize),
    Whole(Header),
    Broken(Violation),
}

/// Looks at the header of the first frame. What it must not be is refused as soon as it shows.
pub fn front(input: &[u8], may_be_compressed: bool, limits: &Limits) -> WebSocketFront {
    match header(input, may_be_compressed, limits) {
        Ok(Some(header)) if header.len() <= input.len() => WebSocketFront::Whole(header),
        Ok(Some(header)) => WebSocketFront::Incomplete(header.len()),
        Ok(None) => WebSocketFront::Incomplete(0),
        Err(violation) => WebSocketFront::Broken(violation),
    }
}

fn header(input: &[u8], may_be_compressed: bool, limits: &Limits) -> Result<Option<Header>, Violation> {
    const fn wrong(why: &'static str) -> Violation {
        violation(CloseCode::PROTOCOL_ERROR, why)
    }
    let Some(&first) = input.first() else { return Ok(None) };
    let Some(opcode) = Opcode::of(first & 0x0f) else { return Err(wrong("a reserved opcode")) };
    let is_final = first & 0x80 != 0;
    let is_compressed = first & 0x40 != 0;
    if first & 0x30 != 0 || is_compressed && !may_be_compressed {
        return Err(wrong("a reserved bit"));
    }
    if is_compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(wrong("a compression bit where no message begins"));
    }
    if opcode.is_control() && !is_final {
        return Err(wrong("a control frame in fragments"));
    }
    let Some(&second) = input.get(1) else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(wrong("a frame that is not masked"));
    }
    let rest = &input[2..];
    let (len, len_bytes) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8),
            None => return Ok(None),
        },
        len => (u64::from(len), 0),
    };
    if opcode.is_control() && len_bytes > 0 {
        return Err(wrong("a control frame of more than 125 bytes"));
    }
    if len >> 63 != 0 || len_bytes == 2 && len < 126 || len_bytes == 8 && len <= u64::from(u16::MAX) {
        return Err(wrong("a length that is not as short as it can be"));
    }
    if len > limits.max_message as u64 && !opcode.is_control() {
        return Err(violation(CloseCode::TOO_LONG, "a frame that is longer than a message may be"));
    }
    let Some(mask) = rest[len_bytes..].first_chunk::<4>() else { return Ok(None) };
    Ok(Some(Header { opcode, is_final, is_compressed, mask: *mask, len: len as usize, header_len: 2 + len_bytes + 4 }))
}

/// What a frame says, once it completes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    Text(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
    /// A message that is to be inflated: [`inflated`] says what it is then.
    Compressed {
        is_text: bool,
        payload: Cow<'a, [u8]>,
    },
    /// A message that was not to be kept, see [`Incoming::skip`].
    Skipped,
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// To be answered with a close of the same code, and nothing more comes. Without a code: the peer gave none.
    Close(Option<CloseCode>, &'a str),
}

/// The message that a peer is sending. Nothing is kept between messages.
#[derive(Debug, Default)]
pub struct Incoming {
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {
    is_text: bool,
    is_compressed: bool,
    is_skipped: bool,
    fragments: u32,
    bytes: Vec<u8>,
    /// So much of a text is valid.
    valid: usize,
}

impl Incoming {
    /// What the fragments so far take in memory.
    pub fn bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.bytes.capacity())
    }

    /// Nothing is kept of the message that is under way: at its end it is [`Received::Skipped`].
    pub fn skip(&mut self) {
        if let Some(partial) = &mut self.partial {
            (partial.is_skipped, partial.bytes) = (true, Vec::new());
        }
    }

    /// Takes a whole frame, whose bytes are unmasked where they are. `None`: the message goes on, or has no frame left to tell.
    ///
    /// # Errors
    /// The peer broke a rule; the connection is to be closed with the code of it.
    pub fn frame<'a>(&mut self, header: &Header, frame: &'a mut [u8], limits: &Limits) -> Result<Option<Received<'a>>, Violation> {
        let payload = &mut frame[header.header_len..header.len()];
        unmask(payload, header.mask);
        let payload = &*payload;
        match header.opcode {
            Opcode::Ping => return Ok(Some(Received::Ping(payload))),
            Opcode::Pong => return Ok(Some(Received::Pong(payload))),
            Opcode::Close => return close(payload).map(Some),
            Opcode::Continuation if self.partial.is_none() => {
                return Err(violation(CloseCode::PROTOCOL_ERROR, "a continuation of nothing"));
            }
            Opcode::Text | Opcode::Binary if self.partial.is_some() => {
                return Err(violation(CloseCode::PROTOCOL_ERROR, "a message within another"));
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {}
        }
        let is_text = header.opcode == Opcode::Text;
        if header.is_final && self.partial.is_none() {
            // Nearly always: a message in one frame is not copied.
            return whole(is_text, header.is_compressed, Cow::Borrowed(payload)).map(Some);
        }
        let partial = self.partial.get_or_insert_with(|| {
            Box::new(Partial { is_text, is_compressed: header.is_compressed, is_skipped: false, fragments: 0, bytes: Vec::new(), valid: 0 })
        });
        partial.fragments += 1;
        let fair = u32::try_from((partial.bytes.len() + payload.len()) / FAIR_FRAGMENT).unwrap_or(u32::MAX);
        if partial.fragments > limits.max_fragments.saturating_add(fair) {
            return Err(violation(CloseCode::POLICY, "a message in too many fragments"));
        }
        if partial.is_skipped {
            if header.is_final {
                self.partial = None;
            }
            return Ok(header.is_final.then_some(Received::Skipped));
        }
        if partial.bytes.len() + payload.len() > limits.max_message {
            return Err(violation(CloseCode::TOO_LONG, "a message that is longer than it may be"));
        }
        // With room for a quarter more: twice as much could be more at once than all may keep together.
        let (len, capacity) = (partial.bytes.len(), partial.bytes.capacity());
        if len + payload.len() > capacity {
            let room = (len + payload.len() + len / 4).min(limits.max_message);
            partial.bytes.reserve_exact(room - len);
        }
        partial.bytes.extend_from_slice(payload);
        if partial.is_text && !partial.is_compressed {
            // As soon as it shows, and each byte once.
            partial.valid += valid_prefix(&partial.bytes[partial.valid..])?;
        }
        if !header.is_final {
            return Ok(None);
        }
        let partial = *self.partial.take().expect("it was there a moment ago");
        whole(partial.is_text, partial.is_compressed, Cow::Owned(partial.bytes)).map(Some)
    }
}

const INVALID_TEXT: Violation = violation(CloseCode::INVALID_TEXT, "a text that is not UTF-8");

fn message(is_text: bool, payload: Cow<'_, [u8]>) -> Result<Received<'_>, Violation> {
    if !is_text {
        return Ok(Received::Binary(payload));
    }
    let text = match payload {
        Cow::Borrowed(bytes) => simdutf8::basic::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| INVALID_TEXT)?,
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).map_err(|_| INVALID_TEXT)?),
    };
    Ok(Received::Text(text))
}

/// How much of the front of a text is valid, where a character may be cut at its end.
fn valid_prefix(bytes: &[u8]) -> Result<usize, Violation> {
    match simdutf8::compat::from_utf8(bytes) {
        Ok(text) => Ok(text.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(INVALID_TEXT),
    }
}

impl From<InflateError> for Violation {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::TooLong => violation(CloseCode::TOO_LONG, "a message that is longer than it may be once it is inflated"),
            InflateError::Broken => violation(CloseCode::INVALID_TEXT, "a message that cannot be inflated"),
        }
    }
}

/// What a compressed message is that was inflated.
///
/// # Errors
/// A text is not UTF-8.
pub fn inflated(is_text: bool, bytes: &[u8]) -> Result<Received<'_>, Violation> {
    message(is_text, Cow::Borrowed(bytes))
}

fn whole(is_text: bool, is_compressed: bool, payload: Cow<'_, [u8]>) -> Result<Received<'_>, Violation> {
    if is_compressed { Ok(Received::Compressed { is_text, payload }) } else { message(is_text, payload) }
}

fn close(payload: &[u8]) -> Result<Received<'_>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        if payload.is_empty() {
            return Ok(Received::Close(None, ""));
        }
        return Err(violation(CloseCode::PROTOCOL_ERROR, "half a close code"));
    };
    let code = CloseCode(u16::from_be_bytes(*code));
    if !code.may_be_sent() {
        return Err(violation(CloseCode::PROTOCOL_ERROR, "a close code that nobody may send"));
    }
    let reason = simdutf8::basic::from_utf8(reason).map_err(|_| INVALID_TEXT)?;
    Ok(Received::Close(Some(code), reason))
}

/// Eight bytes at a time, which the compiler makes more of.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let long = u64::from_be_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let chunk: &mut [u8; 8] = chunk.try_into().expect("eight bytes");
        *chunk = (u64::from_be_bytes(*chunk) ^ long).to_be_bytes();
    }
    chunks.into_remainder().iter_mut().zip(mask.into_iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// The length of the frame that `input` begins with, from either side, as its header has it; `None` while that is not there, or is none.
pub fn frame_len(input: &[u8]) -> Option<usize> {
    let [first, second, rest @ ..] = input else { return None };
    let opcode = Opcode::of(first & 0x0f)?;
    if first & 0x30 != 0 || opcode.is_control() && first & 0xf0 != 0x80 {
        return None;
    }
    let (len, len_bytes) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
        len => (u64::from(len), 0),
    };
    let mask_len = if second & 0x80 == 0 { 0 } else { 4 };
    usize::try_from(len).ok()?.checked_add(2 + len_bytes + mask_len)
}

/// What a whole frame from a server is, and what is in it.
pub(super) fn server_frame(frame: &[u8]) -> Option<(Opcode, &[u8])> {
    let opcode = Opcode::of(frame.first()? & 0x0f)?;
    let header_len = match frame.get(1)? & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    Some((opcode, frame.get(header_len..)?))
}

/// Of a frame from a server, which is not masked.
pub fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Writes the header of a frame that is a whole message, or a control frame.
pub fn write_header(opcode: Opcode, is_compressed: bool, payload_len: usize, out: &mut impl BufMut) {
    out.put_u8(0x80 | if is_compressed { 0x40 } else { 0 } | opcode.number());
    match payload_len {
        0..=125 => out.put_u8(payload_len as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(payload_len as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(payload_len as u64);
        }
    }
}

/// Writes a close. A reason that is too long is cut between two characters.
pub fn write_close(code: Option<CloseCode>, reason: &str, out: &mut impl BufMut) {
    let reason = cut(reason, MAX_REASON_LEN);
    let Some(code) = code else { return write_header(Opcode::Close, false, 0, out) };
    write_header(Opcode::Close, false, 2 + reason.len(), out);
    out.put_u16(code.0);
    out.put_slice(reason.as_bytes());
}

/// The front of a text, of so many bytes at most.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|index| text.is_char_boundary(*index));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests;
