//! What must hold for any bytes given to the v1 decoder. Shared by the fuzz target and by the test that replays its corpus.

use crate::work::bounded;
use heartbus_core::wire::{Decoded, Frame, FrameError, FrameType, HEADER_LEN, MAX_BODY_LEN, control, v1};

#[derive(Debug, PartialEq)]
enum Outcome {
    Frame { frame_type: FrameType, channel_id: i64, payload: Vec<u8> },
    Invalid,
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
    check_control(input);
    check_long(input);
}

/// A frame takes what its own bytes are worth, and none that is not there yet takes anything.
fn check_work(input: &[u8]) {
    let mut rest = input;
    loop {
        let decode = || match v1::decode(rest, MAX_BODY_LEN) {
            Decoded::Frame { frame, len } => (len, Some(frame.payload.to_bytes())),
            Decoded::Invalid { len, .. } => (len, None),
            Decoded::Incomplete | Decoded::Broken { .. } => (0, None),
        };
        let (len, payload) = bounded("v1::decode", MEMORY_EACH, decode, |(len, _)| *len);
        if let Some(payload) = payload {
            check_work_of_control(&payload);
        }
        if len == 0 {
            break;
        }
        rest = &rest[len..];
    }
    check_work_of_control(input);
}

fn check_work_of_control(payload: &[u8]) {
    let all = |_: &_| payload.len();
    bounded("control::parse_register", MEMORY_EACH, || control::parse_register(payload).is_ok(), all);
    bounded("control::parse_register_reply", MEMORY_EACH, || control::parse_register_reply(payload).is_some(), all);
    bounded("control::parse_error", MEMORY_EACH, || control::parse_error(payload).is_some(), all);
    bounded("control::parse_window", MEMORY_EACH, || control::parse_window(payload).is_some(), all);
}

/// What a body means does not depend on how it is read, which is another way for long ones: behind spaces every body is long.
fn check_long(body: &[u8]) {
    let (short, long) = (in_a_frame(body, 0), in_a_frame(body, 400 + body.len() % 64));
    bounded("v1::decode of a long body", MEMORY_EACH, || matches!(v1::decode(&long, u32::MAX), Decoded::Frame { .. }), |_| long.len());
    match (v1::decode(&short, u32::MAX), v1::decode(&long, u32::MAX)) {
        (Decoded::Frame { frame: short, .. }, Decoded::Frame { frame: long, .. }) => assert_eq!(short, long),
        (short, long) => {
            assert!(matches!((&short, &long), (Decoded::Invalid { .. }, Decoded::Invalid { .. })), "{short:?}, and long {long:?}");
        }
    }
}

fn in_a_frame(body: &[u8], spaces: usize) -> Vec<u8> {
    let len = (body.len() + spaces) as u32;
    [&[0xab, 0x12, 0x03][..], &len.to_be_bytes(), &vec![b' '; spaces], body].concat()
}

/// Decodes what is complete, returns how many bytes that was.
fn drain(input: &[u8], outcomes: &mut Vec<Outcome>) -> usize {
    let mut used = 0;
    loop {
        let rest = &input[used..];
        match v1::decode(rest, MAX_BODY_LEN) {
            Decoded::Incomplete => return used,
            Decoded::Broken { error } => {
                outcomes.push(Outcome::Broken(error));
                return used;
            }
            Decoded::Invalid { error, len } => {
                assert_eq!(error, FrameError::BadPayload);
                assert!((HEADER_LEN..=rest.len()).contains(&len), "consumed {len} of {}", rest.len());
                outcomes.push(Outcome::Invalid);
                used += len;
            }
            Decoded::Frame { frame, len } => {
                assert!((HEADER_LEN..=rest.len()).contains(&len), "consumed {len} of {}", rest.len());
                check_round_trip(&frame);
                let payload = frame.payload.bytes().into_owned();
                check_control(&payload);
                outcomes.push(Outcome::Frame { frame_type: frame.frame_type, channel_id: frame.channel_id, payload });
                used += len;
            }
        }
    }
}

fn check_round_trip(frame: &Frame<'_>) {
    let payload = frame.payload.bytes();
    let mut encoded = Vec::new();
    v1::encode(frame.frame_type.0, frame.channel_id, &payload, &mut encoded).expect("a decoded payload is UTF-8");
    let (mut tail, mut parts) = (Vec::new(), Vec::new());
    v1::encode_tail(&payload, &mut tail).expect("a decoded payload is UTF-8");
    v1::encode_head(frame.frame_type.0, frame.channel_id, tail.len(), &mut parts);
    assert_eq!([&parts[..], &tail].concat(), encoded);
    assert!(encoded[HEADER_LEN..].is_ascii());
    assert_eq!(v1::decode(&encoded, u32::MAX), Decoded::Frame { frame: *frame, len: encoded.len() });
}

fn check_control(payload: &[u8]) {
    if let Ok(control::Register { node_id: Some(node_id), .. }) = control::parse_register(payload) {
        let mut reply = Vec::new();
        control::write_register_reply(&mut reply, &node_id, 7, 1_700_000_000_500_000, 2);
        assert_eq!(control::parse_register_reply(&reply), Some(control::RegisterReply { node_id, channel_id: 7, protocol: 2 }));
    }
    if let Some(error) = control::parse_error(payload) {
        assert_eq!(control::parse_error(&control::error_payload(&error.message, error.code)), Some(error));
    }
    control::parse_register_reply(payload);
}
