//! The first frame of a stream in which each may be in another dialect, and a frame in whichever is wanted.

use super::error::NotUtf8;
use super::frame::{Decoded, Dialect, Front, Whole};
use super::frame_type::FrameType;
use super::{v1, v2};

impl<'a> Whole<'a> {
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

#[cfg(test)]
mod tests {
    use super::super::error::FrameError;
    use super::super::frame::MAX_BODY_LEN;
    use super::*;

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
