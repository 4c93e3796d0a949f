//! The v2 dialect: `AB13`, type, flags, length, channel id, then the payload as it is.
//!
//! Owns the frame; what stands inside a control frame's payload is the business of `control`, as in v1.

use super::{Decoded, Dialect, Frame, FrameError, FrameType, Front, Payload, Whole};
use bytes::BufMut;

pub const MAGIC: u16 = 0xab13;

/// Bytes in front of a frame's payload.
pub const HEADER_LEN: usize = Dialect::V2.header_len();

/// Where a header has its channel id.
const CHANNEL: std::ops::Range<usize> = 8..12;

/// The first frame in `input`. A payload over `max_body` is refused as soon as the header says so.
pub fn decode(input: &[u8], max_body: u32) -> Decoded<'_> {
    front(input, max_body).decode_with(decode_whole)
}

#[inline(always)]
pub(super) fn front(input: &[u8], max_body: u32) -> Front<'_> {
    let Some(&[m0, m1, _, _, l0, l1, l2, l3, ..]) = input.first_chunk::<HEADER_LEN>() else { return Front::Incomplete };
    let magic = u16::from_be_bytes([m0, m1]);
    if magic != MAGIC {
        return Front::Broken { error: FrameError::BadMagic(magic) };
    }
    let body_len = u32::from_be_bytes([l0, l1, l2, l3]);
    if body_len > max_body {
        return Front::Broken { error: FrameError::TooLong(body_len) };
    }
    match input.get(..HEADER_LEN + body_len as usize) {
        None => Front::Incomplete,
        Some(bytes) => Front::Whole(Whole { dialect: Dialect::V2, bytes }),
    }
}

#[inline(always)]
pub(super) fn decode_whole(frame: &[u8]) -> Decoded<'_> {
    let len = frame.len();
    let Some((&[_, _, frame_type, flags, _, _, _, _, c0, c1, c2, c3], payload)) = frame.split_first_chunk::<HEADER_LEN>() else {
        return Decoded::Incomplete;
    };
    if flags != 0 {
        return Decoded::Invalid { error: FrameError::BadFlags(flags), len };
    }
    let channel_id = u32::from_be_bytes([c0, c1, c2, c3]).into();
    Decoded::Frame { frame: Frame { frame_type: FrameType(frame_type), channel_id, payload: Payload::from(payload) }, len }
}

/// The length of the frame that `input` begins with, without any upper bound; `None` while its header is not there, or is none.
pub(super) fn frame_len(input: &[u8]) -> Option<usize> {
    let &[m0, m1, _, _, l0, l1, l2, l3, ..] = input.first_chunk::<HEADER_LEN>()?;
    (u16::from_be_bytes([m0, m1]) == MAGIC).then(|| HEADER_LEN + u32::from_be_bytes([l0, l1, l2, l3]) as usize)
}

/// Appends a frame.
pub fn encode(frame_type: FrameType, channel_id: u32, payload: &[u8], out: &mut impl BufMut) {
    encode_head(frame_type, channel_id, payload.len(), out);
    out.put_slice(payload);
}

/// The front of a frame; its payload, of `len` bytes, follows as it is.
pub fn encode_head(frame_type: FrameType, channel_id: u32, len: usize, out: &mut impl BufMut) {
    out.put_u16(MAGIC);
    out.put_u8(frame_type.0);
    out.put_u8(0);
    out.put_u32(len as u32);
    out.put_u32(channel_id);
}

/// Puts another channel id into an encoded frame.
pub fn set_channel(frame: &mut [u8], channel_id: u32) {
    frame[CHANNEL].copy_from_slice(&channel_id.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MAX_BODY_LEN;
    use proptest::prelude::*;
    use std::borrow::Cow;

    #[test]
    fn a_frame_is_a_header_of_twelve_bytes_and_the_payload_as_it_is() {
        let mut bytes = Vec::new();
        encode(FrameType::DATA, 456, b"\xff\0{", &mut bytes);
        assert_eq!(bytes, b"\xab\x13\x03\0\0\0\0\x03\0\0\x01\xc8\xff\0{");
        let Decoded::Frame { frame, len } = decode(&bytes, MAX_BODY_LEN) else { panic!() };
        assert_eq!((frame.frame_type, frame.channel_id, len), (FrameType::DATA, 456, bytes.len()));
        assert!(matches!(frame.payload.bytes(), Cow::Borrowed(b"\xff\0{")));
        set_channel(&mut bytes, u32::MAX);
        assert!(matches!(decode(&bytes, MAX_BODY_LEN), Decoded::Frame { frame, .. } if frame.channel_id == i64::from(u32::MAX)));
    }

    #[test]
    fn the_cap_is_checked_on_the_header_alone() {
        let header = |len: u32| [&b"\xab\x13\x03\0"[..], &len.to_be_bytes(), &[0; 4]].concat();
        assert_eq!(decode(&header(MAX_BODY_LEN), MAX_BODY_LEN), Decoded::Incomplete);
        for too_long in [MAX_BODY_LEN + 1, u32::MAX] {
            assert_eq!(decode(&header(too_long), MAX_BODY_LEN), Decoded::Broken { error: FrameError::TooLong(too_long) });
            assert_eq!(decode(&header(too_long)[..11], MAX_BODY_LEN), Decoded::Incomplete);
        }
    }

    #[test]
    fn a_frame_with_a_flag_is_refused_as_a_whole_and_the_stream_stays_in_step() {
        for flags in [1, 0x80, 0xff] {
            let frame = [&b"\xab\x13\x03"[..], &[flags], b"\0\0\0\x02\0\0\0\0xy"].concat();
            assert_eq!(decode(&frame[..13], MAX_BODY_LEN), Decoded::Incomplete);
            assert_eq!(decode(&frame, MAX_BODY_LEN), Decoded::Invalid { error: FrameError::BadFlags(flags), len: 14 });
        }
    }

    proptest! {
        #[test]
        fn any_payload_on_any_channel_makes_the_round_trip(frame_type: u8, channel_id: u32, payload: Vec<u8>) {
            let mut bytes = Vec::new();
            encode(FrameType(frame_type), channel_id, &payload, &mut bytes);
            let expected = Frame { frame_type: FrameType(frame_type), channel_id: channel_id.into(), payload: payload.as_slice().into() };
            prop_assert_eq!(decode(&bytes, MAX_BODY_LEN), Decoded::Frame { frame: expected, len: bytes.len() });
        }
    }
}
