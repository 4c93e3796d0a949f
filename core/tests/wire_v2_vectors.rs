//! Runs the golden vectors of `tests/vectors/v2.txt` through the v2 codec, whole, split and glued.

use heartbus_core::engine::Position;
use heartbus_core::wire::topic_frames::{self, Message as TopicMessage, Publish, PublishReply, Subscribe, SubscribeReply, Unsubscribe};
use heartbus_core::wire::{Decoded, Dialect, FrameError, FrameType, MAX_BODY_LEN, code, control, v2};

/// Type, channel, payload.
type Message = (u8, i64, Vec<u8>);

#[derive(Clone, Debug, PartialEq)]
enum Expected {
    Both(Message),
    Decode(Message),
    Incomplete,
    Refused(FrameError),
    Broken(FrameError),
}

struct Vector {
    bytes: Vec<u8>,
    meaning: &'static str,
    expected: Expected,
}

fn vectors() -> impl Iterator<Item = Vector> {
    let text = include_str!("../../tests/vectors/v2.txt");
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let fields: Vec<&str> = line.split(" | ").collect();
        let [bytes, meaning, result] = fields[..] else { panic!("not three columns: {line}") };
        let words: Vec<&str> = result.split(' ').collect();
        let message = || (words[1].parse().unwrap(), words[2].parse().unwrap(), unhex(words[3]));
        let expected = match words[0] {
            "both" => Expected::Both(message()),
            "decode" => Expected::Decode(message()),
            "incomplete" => Expected::Incomplete,
            "flags" => Expected::Refused(FrameError::BadFlags(u8::from_str_radix(words[1], 16).unwrap())),
            "magic" => Expected::Broken(FrameError::BadMagic(u16::from_str_radix(words[1], 16).unwrap())),
            "too-long" => Expected::Broken(FrameError::TooLong(words[1].parse().unwrap())),
            other => panic!("unknown result {other}: {line}"),
        };
        Vector { bytes: unhex(bytes), meaning, expected }
    })
}

fn unhex(digits: &str) -> Vec<u8> {
    let digits = digits.trim_matches('-');
    assert_eq!(digits.len() % 2, 0, "{digits}");
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

fn payload(meaning: &str) -> Vec<u8> {
    match vectors().find(|vector| vector.meaning == meaning).expect(meaning).expected {
        Expected::Both((_, _, payload)) => payload,
        other => panic!("{other:?}"),
    }
}

/// What stands at the front, and how many bytes it takes.
fn step(input: &[u8]) -> (Option<Result<Message, FrameError>>, usize) {
    match v2::decode(input, MAX_BODY_LEN) {
        Decoded::Incomplete => (None, 0),
        Decoded::Invalid { error, len } => (Some(Err(error)), len),
        Decoded::Broken { error } => (Some(Err(error)), 0),
        Decoded::Frame { frame, len } => (Some(Ok((frame.frame_type.0, frame.channel_id, frame.payload.bytes().into_owned()))), len),
    }
}

#[test]
fn every_vector_decodes_and_encodes_as_it_says() {
    for Vector { bytes, meaning, expected } in vectors() {
        let whole = 12 + bytes.get(4..8).map_or(0, |len| u32::from_be_bytes(len.try_into().unwrap()) as usize);
        let outcome = match expected.clone() {
            Expected::Both(message) | Expected::Decode(message) => (Some(Ok(message)), whole),
            Expected::Refused(error) => (Some(Err(error)), whole),
            Expected::Broken(error) => (Some(Err(error)), 0),
            Expected::Incomplete => (None, 0),
        };
        assert_eq!(step(&bytes), outcome, "{meaning}");
        if let Expected::Both((frame_type, channel_id, payload)) | Expected::Decode((frame_type, channel_id, payload)) = &expected {
            let mut encoded = Vec::new();
            v2::encode(FrameType(*frame_type), u32::try_from(*channel_id).unwrap(), payload, &mut encoded);
            assert_eq!(encoded, bytes[..whole], "{meaning}");
            assert_eq!(whole == bytes.len(), matches!(expected, Expected::Both(_)), "{meaning}");
        }
    }
}

#[test]
fn every_prefix_of_a_frame_is_incomplete_and_what_follows_a_frame_changes_nothing() {
    for Vector { bytes, meaning, .. } in vectors() {
        let (outcome, len) = step(&bytes);
        for cut in 0..len {
            assert_eq!(step(&bytes[..cut]), (None, 0), "{meaning} cut at {cut}");
        }
        if len > 0 {
            for more in [&b"\xff"[..], b"\xab\x13", &[0; 12]] {
                assert_eq!(step(&[&bytes[..len], more].concat()), (outcome.clone(), len), "{meaning}");
            }
        }
    }
}

#[test]
fn control_payloads_are_the_golden_ones() {
    assert_eq!(control::heartbeat_payload(1_700_000_000_250_000), payload("HEARTBEAT_REQ, ts 1700000000.25"));
    assert_eq!(control::heartbeat_payload(1_700_000_000_500_000), payload("HEARTBEAT_RES, ts 1700000000.5"));
    let register = control::register_payload("n1", "[]", 1_700_000_000_500_000, 2);
    assert_eq!(register, payload("REGISTER of one more node, id n1, no metadata, ts 1700000000.5, asking for protocol 2"));
    let mut reply = Vec::new();
    control::write_register_reply(&mut reply, "node-1", 1, 1_700_000_000_500_000, 2);
    let golden = payload("Register reply, id node-1, channel 1, both times 1700000000.5, agreeing to protocol 2");
    assert_eq!(reply, golden);
    let read = control::parse_register_reply(&golden).unwrap();
    assert_eq!((&*read.node_id, read.channel_id, read.protocol), ("node-1", 1, 2));
    assert_eq!(control::error_payload(&FrameError::BadFlags(1).answer(), 500), payload("ERROR 500 invalid flags"));
    let goaway = payload("GOAWAY, come back within 1500 ms");
    assert_eq!(control::goaway_payload(code::SHUTTING_DOWN_TEXT, 503, Some(1500)), goaway);
    assert_eq!(control::parse_window(&goaway), Some(1500));
    let kicked = payload("GOAWAY, disconnected");
    assert_eq!((control::goaway_payload(code::KICKED_TEXT, 403, None), control::parse_window(&kicked)), (kicked, None));
}

#[test]
fn topic_payloads_are_the_golden_ones() {
    const EPOCH: u64 = 1_700_000_000_500_000;
    let position = Some(Position { offset: 5, epoch: EPOCH });
    let mut rows: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut row = |meaning, encode: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        encode(&mut out);
        rows.push((meaning, out));
    };
    let subscribe = |filter: &'static str, since| Subscribe { filter: filter.into(), since };
    row("SUBSCRIBE chat/+", &|out| subscribe("chat/+", None).encode(Dialect::V2, out));
    row("SUBSCRIBE chat/a of one node, behind offset 5 of epoch 1700000000500000", &|out| {
        subscribe("chat/a", position).encode(Dialect::V2, out);
    });
    let answer = |filter: &'static str, position, recovered| SubscribeReply { filter: filter.into(), position, recovered };
    row("SUBSCRIBE answer, chat/a, offset 5, recovered", &|out| answer("chat/a", position, true).encode(Dialect::V2, out));
    row("SUBSCRIBE answer, chat/+, not recovered", &|out| answer("chat/+", None, false).encode(Dialect::V2, out));
    row("UNSUBSCRIBE chat/a, and its answer", &|out| Unsubscribe { filter: "chat/a".into() }.encode(Dialect::V2, out));
    let publish = |id| Publish { topic: "chat/a".into(), id, data: b"hi".into() };
    row("PUBLISH hi to chat/a", &|out| publish(None).encode(Dialect::V2, out).unwrap());
    row("PUBLISH hi to chat/a of one node, answer 3 wanted", &|out| publish(Some(3)).encode(Dialect::V2, out).unwrap());
    row("PUBLISH answer 3, offset 5, for 2", &|out| PublishReply { id: 3, position, reach: 2 }.encode(Dialect::V2, out));
    row("PUBLISH answer 3, no position, for 0", &|out| PublishReply { id: 3, position: None, reach: 0 }.encode(Dialect::V2, out));
    let message = |position| TopicMessage { topic: "chat/a".into(), position, data: b"hi".into() };
    row("MESSAGE hi of chat/a, offset 5", &|out| message(position).encode(Dialect::V2, out).unwrap());
    row("MESSAGE hi of chat/a, no position", &|out| message(None).encode(Dialect::V2, out).unwrap());
    let error = |text, code, id| topic_frames::error_payload(text, code, Some("chat/a"), id);
    row("ERROR 403 about chat/a", &|out| *out = error("Too many topics on this server", 403, None));
    row("ERROR 429 about PUBLISH 3 to chat/a", &|out| *out = error("Too many messages wait for subscribers", 429, Some(3)));
    for (meaning, encoded) in rows {
        assert_eq!(String::from_utf8_lossy(&encoded), String::from_utf8_lossy(&payload(meaning)), "{meaning}");
    }
}
