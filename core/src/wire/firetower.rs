//! Firetower's frames between gateways and their manager, and the JSON of its WebSocket clients.
//!
//! Owns both formats. A frame is `FireHeader`, a length, a line of four fields with single spaces in between, and content as it is. Fields
//! are not escaped in it, so what would shift them is refused both ways. Knows no socket and no topic.

pub mod client;

use bytes::BufMut;
use std::fmt;

pub const MAGIC: &[u8; 10] = b"FireHeader";
/// Magic and length.
pub const HEADER_LEN: usize = 14;

/// What a frame asks for. Others than these are handed on as they are.
pub const PUBLISH: &str = "publish";
pub const HEARTBEAT: &str = "heartbeat";
/// The first connection of a user in each bucket leaves the topic: the content is the user.
pub const OFFLINE_TOPIC_BY_USER: &str = "offline_topic_by_userid";
/// Everybody leaves the topic.
pub const OFFLINE_TOPIC: &str = "offline_topic";
/// Connections of a user are closed.
pub const OFFLINE_USER: &str = "offline_user";

/// A gateway takes part in topics, named as its clients name them: with commas in between. Firetower's own has another way for that.
pub const SUBSCRIBE: &str = "subscribe";
pub const UNSUBSCRIBE: &str = "unSubscribe";
/// What answers these, with the number of subscribers that the topic has then.
pub const ON_SUBSCRIBE: &str = "onSubscribe";
pub const ON_UNSUBSCRIBE: &str = "onUnsubscribe";
/// Why something was not done. Gateways pass over types that they do not know.
pub const ERROR: &str = "error";

/// The topic of what is about none.
pub const NO_TOPIC: &str = "*";

/// Where a frame comes from: a client, the program around a server, the server itself.
pub const USER: &str = "user";
pub const PLATFORM: &str = "platform";
pub const SYSTEM: &str = "system";

/// What a manager sends every ten seconds.
pub const HEARTBEAT_FRAME: FireFrame<'static> =
    FireFrame { kind: HEARTBEAT, message_id: "0", source: SYSTEM, topic: NO_TOPIC, content: b"heartbeat" };

/// One frame, borrowed from its bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FireFrame<'a> {
    pub kind: &'a str,
    /// May be empty, as may the source.
    pub message_id: &'a str,
    pub source: &'a str,
    pub topic: &'a str,
    pub content: &'a [u8],
}

/// What is wrong with a frame, in the words of Firetower where it has some.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FireError {
    NoType,
    NoTopic,
    /// A field with a space or a line end in it, or a line of more than four.
    Field,
    NotUtf8,
    /// The line does not end.
    NoLine,
    /// Its length is no positive number of 32 bits.
    TooLong,
}

impl fmt::Display for FireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoType => "type is empty",
            Self::NoTopic => "topic is empty",
            Self::Field => "a field has a space or a line end in it",
            Self::NotUtf8 => "a field is not UTF-8",
            Self::NoLine => "the line of fields does not end",
            Self::TooLong => "the frame is too long",
        })
    }
}

impl std::error::Error for FireError {}

/// What the bytes at the front of a stream are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FireFront<'a> {
    /// Not a whole frame yet: keep the bytes, read more.
    Incomplete,
    /// A frame in the first `len` bytes.
    Frame { frame: FireFrame<'a>, len: usize },
    /// A frame that is refused, while the stream stays in step: skip `len` bytes.
    Invalid { error: FireError, len: usize },
    /// No frame begins here, or one whose length is negative or above the limit: nothing after this can be read.
    Broken { why: &'static str },
}

/// Whether a stream that begins like this may be one of such frames.
pub fn is_firetower(front: &[u8]) -> bool {
    MAGIC.starts_with(&front[..front.len().min(MAGIC.len())])
}

/// The length of the frame that `input` begins with, as its header has it; `None` while that is not there, or is none.
pub fn frame_len(input: &[u8]) -> Option<usize> {
    let header = input.first_chunk::<HEADER_LEN>().filter(|header| header.starts_with(MAGIC))?;
    let [.., a, b, c, d] = *header;
    let body_len = u32::try_from(i32::from_be_bytes([a, b, c, d])).ok()?;
    Some(HEADER_LEN + body_len as usize)
}

/// The first frame in `input`, of which the line and the content may have `max_len` bytes.
pub fn front(input: &[u8], max_len: u32) -> FireFront<'_> {
    let begun = &input[..input.len().min(MAGIC.len())];
    if !MAGIC.starts_with(begun) {
        return FireFront::Broken { why: "not a FireHeader frame" };
    }
    let Some(header) = input.first_chunk::<HEADER_LEN>() else { return FireFront::Incomplete };
    let [.., a, b, c, d] = *header;
    let body_len = match u32::try_from(i32::from_be_bytes([a, b, c, d])) {
        Ok(len) if len <= max_len => len as usize,
        Ok(_) => return FireFront::Broken { why: "a FireHeader frame that is too long" },
        Err(_) => return FireFront::Broken { why: "a FireHeader frame of negative length" },
    };
    let len = HEADER_LEN + body_len;
    match input.get(HEADER_LEN..len) {
        None => FireFront::Incomplete,
        Some(body) => match fields(body) {
            Ok(frame) => FireFront::Frame { frame, len },
            Err(error) => FireFront::Invalid { error, len },
        },
    }
}

fn fields(body: &[u8]) -> Result<FireFrame<'_>, FireError> {
    let end = body.iter().position(|byte| *byte == b'\n').ok_or(FireError::NoLine)?;
    let line = std::str::from_utf8(&body[..end]).map_err(|_| FireError::NotUtf8)?;
    let mut fields = line.split(' ');
    let mut field = || fields.next().unwrap_or_default();
    let frame = FireFrame { kind: field(), message_id: field(), source: field(), topic: field(), content: &body[end + 1..] };
    if fields.next().is_some() {
        return Err(FireError::Field);
    }
    frame.check()?;
    Ok(frame)
}

impl FireFrame<'_> {
    /// What stands in front of the topic is longer than anybody means it to be. It is kept with each message, and given to every receiver.
    pub fn has_long_head(&self) -> bool {
        [self.kind, self.message_id, self.source].iter().any(|field| field.len() > super::topic::MAX_LEN)
    }

    /// # Errors
    /// It could not be read again as it is.
    pub fn check(&self) -> Result<(), FireError> {
        let shifts = |field: &str| field.bytes().any(|byte| matches!(byte, b' ' | b'\n' | b'\r'));
        if self.kind.is_empty() {
            Err(FireError::NoType)
        } else if self.topic.is_empty() {
            Err(FireError::NoTopic)
        } else if [self.kind, self.message_id, self.source, self.topic].into_iter().any(shifts) {
            Err(FireError::Field)
        } else {
            Ok(())
        }
    }

    /// What its header says.
    fn body_len(&self) -> Result<i32, FireError> {
        let len = self.kind.len() + self.message_id.len() + self.source.len() + self.topic.len() + 4 + self.content.len();
        i32::try_from(len).map_err(|_| FireError::TooLong)
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// [`FireError`], and nothing was appended.
    pub fn write(&self, out: &mut impl BufMut) -> Result<(), FireError> {
        self.check()?;
        let body_len = self.body_len()?;
        out.put_slice(MAGIC);
        out.put_i32(body_len);
        for (field, behind) in [(self.kind, b' '), (self.message_id, b' '), (self.source, b' '), (self.topic, b'\n')] {
            out.put_slice(field.as_bytes());
            out.put_u8(behind);
        }
        out.put_slice(self.content);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: u32 = 1 << 20;

    fn unhex(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|index| u8::from_str_radix(&hex[index..index + 2], 16).unwrap()).collect()
    }

    #[test]
    fn golden_vectors_are_read_and_written_to_the_byte() {
        let text = include_str!("../../../tests/vectors/firetower.txt");
        let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut count = 0;
        for row in rows {
            let [hex, _, expected] = row.split(" | ").collect::<Vec<_>>()[..] else { panic!("not three columns: {row}") };
            let (bytes, (result, rest)) = (unhex(hex), expected.split_once(' ').unwrap_or((expected, "")));
            let found = front(&bytes, crate::wire::MAX_BODY_LEN);
            match result {
                "both" => {
                    let fields: Vec<&str> = rest.split(' ').map(|field| if field == "-" { "" } else { field }).collect();
                    let [kind, message_id, source, topic, content] = fields[..] else { panic!("{row}") };
                    let content = unhex(content);
                    let frame = FireFrame { kind, message_id, source, topic, content: &content };
                    assert_eq!(found, FireFront::Frame { frame, len: bytes.len() });
                    let mut written = Vec::new();
                    frame.write(&mut written).unwrap();
                    assert_eq!(written, bytes, "{row}");
                    assert_eq!(frame_len(&bytes[..HEADER_LEN]), Some(bytes.len()));
                    for cut in 0..bytes.len() {
                        assert_eq!(front(&bytes[..cut], MAX), FireFront::Incomplete, "{cut} {row}");
                    }
                }
                "refused" => match found {
                    FireFront::Invalid { error, len } => assert_eq!((error.to_string().as_str(), len), (rest, bytes.len())),
                    other => panic!("{row}: {other:?}"),
                },
                "incomplete" => assert_eq!(found, FireFront::Incomplete, "{row}"),
                "broken" => match found {
                    FireFront::Broken { why } => assert_eq!(why, rest),
                    other => panic!("{row}: {other:?}"),
                },
                other => panic!("unknown result {other}: {row}"),
            }
            count += 1;
        }
        assert!(count >= 25);
    }

    #[test]
    fn content_has_any_length_and_any_bytes() {
        for len in [0, 1, 4095, 4096, 4097, 1 << 19] {
            let content: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let frame = FireFrame { kind: PUBLISH, message_id: "", source: "", topic: "t", content: &content };
            let mut bytes = Vec::new();
            frame.write(&mut bytes).unwrap();
            bytes.extend(b"FireHea");
            assert_eq!(front(&bytes, MAX), FireFront::Frame { frame, len: bytes.len() - 7 });
        }
    }

    #[test]
    fn what_would_shift_the_fields_is_refused_both_ways() {
        let frame = FireFrame { kind: PUBLISH, message_id: "1", source: "user", topic: "t", content: b"x" };
        let written = |frame: FireFrame<'_>| {
            let mut out = Vec::new();
            let result = frame.write(&mut out);
            assert_eq!(result.is_ok(), !out.is_empty());
            result
        };
        for topic in ["victim DATA", "a\nb", "a\rb", " "] {
            assert_eq!(written(FireFrame { topic, ..frame }), Err(FireError::Field));
        }
        assert_eq!(written(FireFrame { message_id: "1 2", ..frame }), Err(FireError::Field));
        assert_eq!(written(FireFrame { topic: "", ..frame }), Err(FireError::NoTopic));
        assert_eq!(written(FireFrame { kind: "", ..frame }), Err(FireError::NoType));
        let read = |body: &[u8]| {
            let bytes = [MAGIC, &(body.len() as u32).to_be_bytes()[..], body].concat();
            match front(&bytes, MAX) {
                FireFront::Invalid { error, len } if len == bytes.len() => error,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(read(b"publish 1 user victim DATA\nx"), FireError::Field);
        assert_eq!(read(b"publish 1 user a\r\nx"), FireError::Field);
        assert_eq!(read(b"publish 1 user t"), FireError::NoLine);
        assert_eq!(read(b"publish 1 user \nx"), FireError::NoTopic);
        assert_eq!(read(b"publish t\nx"), FireError::NoTopic, "as it was before 2018");
        assert_eq!(read(b" 1 user t\nx"), FireError::NoType);
        assert_eq!(read(b"publish 1 user \xff\nx"), FireError::NotUtf8);
        assert_eq!(read(b""), FireError::NoLine);
    }

    #[test]
    fn a_stream_that_is_none_ends_at_its_first_wrong_byte_and_so_does_a_length_that_cannot_be() {
        for wrong in [&b"GET / HTTP/1.1"[..], b"x", b"FireHeadex", b"\xab\x12"] {
            assert!(matches!(front(wrong, MAX), FireFront::Broken { .. }));
        }
        let with_len = |len: i32| [MAGIC, &len.to_be_bytes()[..]].concat();
        assert_eq!(front(&with_len(-1), MAX), FireFront::Broken { why: "a FireHeader frame of negative length" });
        assert_eq!(front(&with_len(i32::MIN), MAX), FireFront::Broken { why: "a FireHeader frame of negative length" });
        assert_eq!(front(&with_len(MAX as i32 + 1), MAX), FireFront::Broken { why: "a FireHeader frame that is too long" });
        assert_eq!(front(&with_len(MAX as i32), MAX), FireFront::Incomplete);
    }

    proptest! {
        #[test]
        fn any_frame_is_read_as_it_was_written(
            kind in "[a-z_]{1,20}", message_id in "[0-9]{0,20}", source in "[a-z]{0,10}", topic in "[^ \n\r]{1,40}", content in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let frame = FireFrame { kind: &kind, message_id: &message_id, source: &source, topic: &topic, content: &content };
            let mut bytes = Vec::new();
            frame.write(&mut bytes).unwrap();
            prop_assert_eq!(front(&bytes, MAX), FireFront::Frame { frame, len: bytes.len() });
        }

        #[test]
        fn any_bytes_behind_the_magic_end_well(mut bytes in prop::collection::vec(any::<u8>(), 4..100)) {
            bytes[..3].fill(0);
            let bytes = [MAGIC, &bytes[..]].concat();
            match front(&bytes, MAX) {
                FireFront::Frame { len, .. } | FireFront::Invalid { len, .. } => prop_assert!(len <= bytes.len()),
                FireFront::Incomplete | FireFront::Broken { .. } => {}
            }
        }
    }
}
