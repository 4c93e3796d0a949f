//! The v1 dialect, as the PHP library speaks it: `AB12`, type, length, then `{"channel_id":N,"payload":"..."}`.
//!
//! Owns the frame and its envelope; what stands inside a payload is the business of `control`.

use super::json;
use super::php_cast::PhpString;
use super::{Decoded, Dialect, Frame, FrameError, FrameType, Front, NotUtf8, Payload, Whole, php_cast, php_json};
use bytes::BufMut;

pub const MAGIC: u16 = 0xab12;

/// Bytes in front of a frame's body.
pub const HEADER_LEN: usize = Dialect::V1.header_len();

const BEFORE: &[u8] = b"{\"channel_id\":";
const AFTER: &[u8] = b",\"payload\":";

/// The first frame in `input`. A body over `max_body` is refused as soon as the header says so.
pub fn decode(input: &[u8], max_body: u32) -> Decoded<'_> {
    front(input, max_body).decode_with(decode_whole)
}

#[inline(always)]
pub(super) fn front(input: &[u8], max_body: u32) -> Front<'_> {
    let Some((magic, _, body_len)) = header(input) else { return Front::Incomplete };
    if magic != MAGIC {
        return Front::Broken { error: FrameError::BadMagic(magic) };
    }
    if body_len > max_body {
        return Front::Broken { error: FrameError::TooLong(body_len) };
    }
    match input.get(..HEADER_LEN + body_len as usize) {
        None => Front::Incomplete,
        Some(bytes) => Front::Whole(Whole { dialect: Dialect::V1, bytes }),
    }
}

#[inline(always)]
pub(super) fn decode_whole(frame: &[u8]) -> Decoded<'_> {
    let len = frame.len();
    let Some((&[_, _, frame_type, ..], body)) = frame.split_first_chunk::<HEADER_LEN>() else { return Decoded::Incomplete };
    match envelope(body) {
        None => Decoded::Invalid { error: FrameError::BadPayload, len },
        Some((channel_id, payload)) => Decoded::Frame { frame: Frame { frame_type: FrameType(frame_type), channel_id, payload }, len },
    }
}

/// The length of the first frame in `input`, header included, as its header has it, without any upper bound.
pub fn package_len(input: &[u8]) -> PackageLen {
    match header(input) {
        None => PackageLen::Unknown,
        Some((MAGIC, _, body_len)) => PackageLen::Total(HEADER_LEN as u64 + u64::from(body_len)),
        Some(_) => PackageLen::Invalid,
    }
}

/// What [`package_len`] found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PackageLen {
    /// Less than a header: PHP's 0.
    Unknown,
    /// Not a frame: PHP's -1.
    Invalid,
    Total(u64),
}

fn header(input: &[u8]) -> Option<(u16, u8, u32)> {
    let &[m0, m1, frame_type, l0, l1, l2, l3] = input.first_chunk::<HEADER_LEN>()?;
    Some((u16::from_be_bytes([m0, m1]), frame_type, u32::from_be_bytes([l0, l1, l2, l3])))
}

fn envelope(body: &[u8]) -> Option<(i64, Payload<'_>)> {
    if let Some((channel_id, payload)) = usual_envelope(body) {
        return Some((channel_id, PhpString::Text(payload).into()));
    }
    let [channel_id, payload] = json::members(body, ["channel_id", "payload"]).ok()?;
    Some((php_cast::to_int(channel_id)?, php_cast::to_string(payload)?.into()))
}

/// The envelope as encoders write it, read without looking for keys; `None` is no verdict.
fn usual_envelope(body: &[u8]) -> Option<(i64, json::Text<'_>)> {
    let rest = body.strip_prefix(BEFORE)?;
    let (mut channel_id, mut digits) = (0_i64, 0);
    while let Some(digit @ 0..=9) = rest.get(digits).map(|byte| byte.wrapping_sub(b'0')) {
        channel_id = channel_id.wrapping_mul(10).wrapping_add(digit.into());
        digits += 1;
    }
    // No leading zeros, no overflow: whatever is odd goes the long way.
    if !matches!(digits, 1..=18) || rest[0] == b'0' && digits > 1 {
        return None;
    }
    let rest = &rest[digits..];
    let payload = rest.strip_prefix(AFTER)?.strip_suffix(b"}")?;
    let payload = json::only_timestamp(payload).or_else(|| json::only_string(payload))?;
    Some((channel_id, payload))
}

/// Appends a frame; nothing if the payload is not UTF-8.
pub fn encode(frame_type: u8, channel_id: i64, payload: &[u8], out: &mut Vec<u8>) -> Result<(), NotUtf8> {
    let start = out.len();
    encode_head(frame_type, channel_id, 0, out);
    if let Err(error) = php_json::write_bytes(out, payload) {
        out.truncate(start);
        return Err(error);
    }
    out.push(b'}');
    let body_len = out.len() - start - HEADER_LEN;
    out[start + 3..start + HEADER_LEN].copy_from_slice(&(body_len as u32).to_be_bytes());
    Ok(())
}

/// Appends everything of a frame that is the same for all receivers of a payload: what follows [`encode_head`].
pub fn encode_tail(payload: &[u8], out: &mut Vec<u8>) -> Result<(), NotUtf8> {
    php_json::write_bytes(out, payload)?;
    out.push(b'}');
    Ok(())
}

/// How long the front of a frame is.
pub fn head_len(channel_id: u32) -> usize {
    HEADER_LEN + BEFORE.len() + channel_id.checked_ilog10().unwrap_or(0) as usize + 1 + AFTER.len()
}

/// The front of a frame whose tail, of `tail_len` bytes, was made by [`encode_tail`].
pub fn encode_head(frame_type: u8, channel_id: i64, tail_len: usize, out: &mut impl BufMut) {
    let mut digits = [0; 20];
    let digits = decimal(channel_id, &mut digits);
    let body_len = BEFORE.len() + digits.len() + AFTER.len() + tail_len;
    out.put_u16(MAGIC);
    out.put_u8(frame_type);
    out.put_u32(body_len as u32);
    out.put_slice(BEFORE);
    out.put_slice(digits);
    out.put_slice(AFTER);
}

/// The digits of a number, at the end of `digits`: the widest is `i64::MIN`.
pub(super) fn decimal(number: i64, digits: &mut [u8; 20]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        start -= 1;
        digits[start] = b'-';
    }
    &digits[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MAX_BODY_LEN;
    use proptest::prelude::*;
    use std::borrow::Cow;

    const HEARTBEAT: &[u8] = b"\xab\x12\x01\0\0\0\x3a{\"channel_id\":0,\"payload\":\"{\\\"timestamp\\\":1700000000.25}\"}";

    fn decoded(input: &[u8]) -> (Frame<'_>, usize) {
        match decode(input, MAX_BODY_LEN) {
            Decoded::Frame { frame, len } => (frame, len),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_frame_decodes_to_what_was_encoded_and_its_payload_is_borrowed_where_nothing_is_escaped() {
        let mut bytes = Vec::new();
        encode(3, 456, b"Hello World", &mut bytes).unwrap();
        assert_eq!(bytes, b"\xab\x12\x03\0\0\0\x2a{\"channel_id\":456,\"payload\":\"Hello World\"}");
        let (frame, len) = decoded(&bytes);
        assert_eq!((frame.frame_type, frame.channel_id, len), (FrameType::DATA, 456, bytes.len()));
        assert!(matches!(frame.payload.bytes(), Cow::Borrowed(b"Hello World")));
        assert_eq!(&*decoded(HEARTBEAT).0.payload.bytes(), b"{\"timestamp\":1700000000.25}");
    }

    #[test]
    fn a_payload_that_is_not_utf8_writes_nothing() {
        let mut bytes = b"before".to_vec();
        assert_eq!(encode(3, 0, b"a\xff", &mut bytes), Err(NotUtf8));
        assert_eq!(encode_tail(b"a\xff", &mut bytes), Err(NotUtf8));
        assert_eq!(bytes, b"before");
    }

    #[test]
    fn a_head_and_a_shared_tail_make_the_same_frame() {
        for channel_id in [0, 7, -1, i64::MIN, i64::MAX] {
            let (mut whole, mut parts) = (Vec::new(), Vec::new());
            encode(3, channel_id, "a/b é".as_bytes(), &mut whole).unwrap();
            let mut tail = Vec::new();
            encode_tail("a/b é".as_bytes(), &mut tail).unwrap();
            encode_head(3, channel_id, tail.len(), &mut parts);
            assert!(u32::try_from(channel_id).is_err() || parts.len() == head_len(channel_id as u32));
            parts.extend_from_slice(&tail);
            assert_eq!(whole, parts);
            assert_eq!(decoded(&whole).0.channel_id, channel_id);
        }
    }

    #[test]
    fn the_cap_is_checked_on_the_header_alone() {
        let header = |body_len: u32| [&b"\xab\x12\x03"[..], &body_len.to_be_bytes()].concat();
        assert_eq!(decode(&header(MAX_BODY_LEN), MAX_BODY_LEN), Decoded::Incomplete);
        for too_long in [MAX_BODY_LEN + 1, u32::MAX] {
            assert_eq!(decode(&header(too_long), MAX_BODY_LEN), Decoded::Broken { error: FrameError::TooLong(too_long) });
            assert_eq!(decode(&header(too_long)[..6], MAX_BODY_LEN), Decoded::Incomplete);
        }
        assert_eq!(package_len(&header(u32::MAX)), PackageLen::Total(7 + 0xffff_ffff));
        assert_eq!(package_len(&header(0)), PackageLen::Total(7));
        assert_eq!(package_len(b"GET / HT"), PackageLen::Invalid);
        assert_eq!(package_len(b"GET / "), PackageLen::Unknown);
    }

    #[test]
    fn an_envelope_in_any_spelling_decodes_the_same() {
        for (body, channel_id, payload) in [
            (r#"{"channel_id":10,"payload":"a\/b"}"#, 10, "a/b"),
            (r#"{"channel_id":10, "payload":"a\/b"}"#, 10, "a/b"),
            (r#"{"payload":"a\/b","channel_id":10}"#, 10, "a/b"),
            (r#"{"channel_id":-10,"payload":"a\/b"}"#, -10, "a/b"),
            (r#"{"channel_id":10,"payload":"a","payload":"b"}"#, 10, "b"),
            (r#"{"channel_id":999999999999999999,"payload":""}"#, 999_999_999_999_999_999, ""),
            (r#"{"channel_id":9223372036854775807,"payload":""}"#, i64::MAX, ""),
            (r#"{"channel_id":0,"payload":"{\"timestamp\":1.5}"}"#, 0, r#"{"timestamp":1.5}"#),
            (r#"{"channel_id":0,"payload":"{\"timestamp\":}"}"#, 0, r#"{"timestamp":}"#),
            (r#"{"channel_id":0,"payload":"{\"timestamp\":1\n}"}"#, 0, "{\"timestamp\":1\n}"),
        ] {
            let (got_channel, got_payload) = envelope(body.as_bytes()).unwrap();
            assert_eq!((got_channel, &*got_payload.bytes()), (channel_id, payload.as_bytes()), "{body}");
        }
        for refused in [
            r#"{"channel_id":010,"payload":""}"#,
            r#"{"channel_id":,"payload":""}"#,
            r#"{"channel_id":1,"payload":"}"#,
            r#"{"channel_id":1,"payload":""}}"#,
            r#"{"channel_id":1,"payload":"{\"timestamp\":1"}"}"#,
            r#"{"channel_id":1,"payload":"{\"timestamp\":1.5}}"#,
            r#"{"channel_id":1,"payload":"{\"timestamp":1.5}"}"#,
        ] {
            assert!(envelope(refused.as_bytes()).is_none(), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn any_utf8_payload_on_any_channel_makes_the_round_trip(frame_type: u8, channel_id: i64, payload: String) {
            let mut bytes = Vec::new();
            encode(frame_type, channel_id, payload.as_bytes(), &mut bytes).unwrap();
            let expected = Frame { frame_type: FrameType(frame_type), channel_id, payload: payload.as_bytes().into() };
            prop_assert_eq!(decode(&bytes, MAX_BODY_LEN), Decoded::Frame { frame: expected, len: bytes.len() });
        }

        #[test]
        fn the_usual_spelling_and_any_other_mean_the_same(channel_id: i64, payload: String) {
            let mut usual = Vec::new();
            encode(0, channel_id, payload.as_bytes(), &mut usual).unwrap();
            let body = &usual[HEADER_LEN..];
            let other = [b" ", body].concat();
            prop_assert_eq!(envelope(body), envelope(&other));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100), with_magic: bool) {
            if with_magic && bytes.len() >= HEADER_LEN {
                let body_len = (bytes.len() - HEADER_LEN) as u8;
                bytes[..HEADER_LEN].copy_from_slice(&[0xab, 0x12, 3, 0, 0, 0, body_len]);
            }
            let _ = decode(&bytes, MAX_BODY_LEN);
        }
    }
}
