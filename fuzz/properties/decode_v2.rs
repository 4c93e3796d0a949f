//! What must hold for any bytes given to a decoder that takes both dialects. Shared by the fuzz target and by the test that
//! replays its corpus.

use crate::work::bounded;
use heartbus_core::wire::topic_frames::{self, Message, Publish, PublishReply, Subscribe, SubscribeReply, Unsubscribe};
use heartbus_core::wire::{self, Decoded, Dialect, FrameError, FrameType, MAX_BODY_LEN, control, v2};

#[derive(Debug, PartialEq)]
enum Outcome {
    Frame { dialect: Dialect, frame_type: FrameType, channel_id: i64, payload: Vec<u8> },
    Invalid(FrameError),
    Broken(FrameError),
}

/// What is taken out of a text is at most as long as the text, in a block that had room for more.
const MEMORY_EACH: u64 = 8;

/// Panics if a property is violated.
pub(crate) fn check(input: &[u8]) {
    let mut whole = Vec::new();
    drain(input, &mut whole);

    let (mut streamed, mut kept, mut rest) = (Vec::new(), Vec::new(), input);
    while let Some(&first) = rest.first() {
        let (chunk, later) = rest.split_at(rest.len().min(1 + usize::from(first % 32)));
        kept.extend_from_slice(chunk);
        let used = drain(&kept, &mut streamed);
        kept.drain(..used);
        if matches!(streamed.last(), Some(Outcome::Broken(_))) {
            break;
        }
        rest = later;
    }
    assert_eq!(streamed, whole, "split input decodes to something else");

    check_work(input);

    // Any bytes are a payload.
    let mut encoded = Vec::new();
    v2::encode(FrameType::DATA, 7, input, &mut encoded);
    match v2::decode(&encoded, u32::MAX) {
        Decoded::Frame { frame, len } => assert_eq!((&*frame.payload.bytes(), len), (input, v2::HEADER_LEN + input.len())),
        other => panic!("{other:?}"),
    }
    control::parse_window(input);
    check_topics(input);
    for outcome in &whole {
        if let Outcome::Frame { payload, .. } = outcome {
            check_topics(payload);
        }
    }
}

/// What is read of a topic's frame is written as it was read, in the dialect that carries any bytes; and what v1 has is read again.
fn check_topics(input: &[u8]) {
    for dialect in [Dialect::V1, Dialect::V2] {
        let mut out = Vec::new();
        if let Ok(subscribe) = Subscribe::decode(dialect, input) {
            subscribe.encode(dialect, &mut out);
            assert_eq!(Subscribe::decode(dialect, &out), Ok(subscribe));
            assert!(dialect == Dialect::V1 || out == input);
        }
        out.clear();
        if let Ok(reply) = SubscribeReply::decode(dialect, input) {
            reply.encode(dialect, &mut out);
            assert_eq!(SubscribeReply::decode(dialect, &out), Ok(reply));
            assert!(dialect == Dialect::V1 || out == input);
        }
        out.clear();
        if let Ok(publish) = Publish::decode(dialect, input)
            && publish.encode(dialect, &mut out).is_ok()
        {
            assert_eq!(Publish::decode(dialect, &out), Ok(publish));
            assert!(dialect == Dialect::V1 || out == input);
        }
        out.clear();
        if let Ok(message) = Message::decode(dialect, input)
            && message.encode(dialect, &mut out).is_ok()
        {
            assert_eq!(Message::decode(dialect, &out), Ok(message));
            assert!(dialect == Dialect::V1 || out == input);
        }
        let _ = (Unsubscribe::decode(dialect, input), PublishReply::decode(dialect, input));
    }
    topic_frames::parse_error_subject(input);
}

/// A frame takes what its own bytes are worth, and none that is not there yet takes anything.
fn check_work(mut rest: &[u8]) {
    loop {
        let decode = || match wire::decode(rest, MAX_BODY_LEN).1 {
            Decoded::Frame { frame, len } => (len, frame.payload.to_bytes().len()),
            Decoded::Invalid { len, .. } => (len, 0),
            Decoded::Incomplete | Decoded::Broken { .. } => (0, 0),
        };
        let (len, _) = bounded("wire::decode", MEMORY_EACH, decode, |(len, _)| *len);
        if len == 0 {
            break;
        }
        rest = &rest[len..];
    }
}

/// Decodes what is complete, returns how many bytes that was.
fn drain(input: &[u8], outcomes: &mut Vec<Outcome>) -> usize {
    let mut used = 0;
    loop {
        let rest = &input[used..];
        let (dialect, decoded) = wire::decode(rest, MAX_BODY_LEN);
        match decoded {
            Decoded::Incomplete => return used,
            Decoded::Broken { error } => {
                outcomes.push(Outcome::Broken(error));
                return used;
            }
            Decoded::Invalid { error, len } => {
                assert!((dialect.header_len()..=rest.len()).contains(&len), "consumed {len} of {}", rest.len());
                assert_eq!(matches!(error, FrameError::BadFlags(_)), dialect == Dialect::V2);
                outcomes.push(Outcome::Invalid(error));
                used += len;
            }
            Decoded::Frame { frame, len } => {
                assert!((dialect.header_len()..=rest.len()).contains(&len), "consumed {len} of {}", rest.len());
                let payload = frame.payload.bytes().into_owned();
                if dialect == Dialect::V2 {
                    let mut encoded = Vec::new();
                    let channel_id = u32::try_from(frame.channel_id).expect("32 bits on the wire");
                    v2::encode(frame.frame_type, channel_id, &payload, &mut encoded);
                    assert_eq!(encoded, rest[..len]);
                }
                outcomes.push(Outcome::Frame { dialect, frame_type: frame.frame_type, channel_id: frame.channel_id, payload });
                used += len;
            }
        }
    }
}
