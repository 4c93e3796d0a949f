//! Runs the golden vectors of `tests/vectors/v1.txt` through the v1 codec, whole, split and glued.

use heartbus_core::engine::Position;
use heartbus_core::wire::topic_frames::{self, Message as TopicMessage, Publish, PublishReply, Subscribe, SubscribeReply, Unsubscribe};
use heartbus_core::wire::{Decoded, Dialect, FrameError, FrameType, MAX_BODY_LEN, NotUtf8, control, v1};

/// What a row expects; the format is described on top of the file.
#[derive(Clone, Debug, PartialEq)]
enum Expected {
    Both(Message),
    Decode(Message),
    Incomplete,
    Invalid,
    Broken(FrameError),
    Encode(Message),
}

#[derive(Clone, Debug, PartialEq)]
struct Message {
    frame_type: u8,
    channel_id: i64,
    payload: Vec<u8>,
}

struct Vector {
    bytes: Vec<u8>,
    meaning: &'static str,
    expected: Expected,
}

const OUR_REPLY: &str = "Register reply with the channel id at top level, id node-1, channel 1, both times 1700000000.5 (ours)";

fn vectors() -> impl Iterator<Item = Vector> {
    let text = include_str!("../../tests/vectors/v1.txt");
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(vector)
}

fn vector(line: &'static str) -> Vector {
    let fields = line.split(" | ").collect::<Vec<_>>();
    let [bytes, meaning, result] = fields[..] else { panic!("not three columns: {line}") };
    let words = result.split(' ').collect::<Vec<_>>();
    let message = || Message { frame_type: words[1].parse().unwrap(), channel_id: words[2].parse().unwrap(), payload: unhex(words[3]) };
    let expected = match words[0] {
        "both" => Expected::Both(message()),
        "decode" => Expected::Decode(message()),
        "incomplete" => Expected::Incomplete,
        "invalid" => Expected::Invalid,
        "magic" => Expected::Broken(FrameError::BadMagic(u16::from_str_radix(words[1], 16).unwrap())),
        "too-long" => Expected::Broken(FrameError::TooLong(words[1].parse().unwrap())),
        "encode" => Expected::Encode(message()),
        other => panic!("unknown result {other}: {line}"),
    };
    Vector { bytes: unhex(bytes), meaning, expected }
}

fn unhex(digits: &str) -> Vec<u8> {
    if digits == "-" {
        return Vec::new();
    }
    assert_eq!(digits.len() % 2, 0);
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// The payload of the row with this meaning.
fn payload(meaning: &str) -> Vec<u8> {
    match vectors().find(|vector| vector.meaning == meaning).unwrap().expected {
        Expected::Both(message) => message.payload,
        other => panic!("{other:?}"),
    }
}

/// What stands at the front, and how many bytes it takes.
fn step(input: &[u8]) -> (Option<Result<Message, FrameError>>, usize) {
    match v1::decode(input, MAX_BODY_LEN) {
        Decoded::Incomplete => (None, 0),
        Decoded::Invalid { error, len } => (Some(Err(error)), len),
        Decoded::Broken { error } => (Some(Err(error)), 0),
        Decoded::Frame { frame, len } => {
            let (FrameType(frame_type), payload) = (frame.frame_type, frame.payload.bytes().into_owned());
            (Some(Ok(Message { frame_type, channel_id: frame.channel_id, payload })), len)
        }
    }
}

fn encode(message: &Message) -> Result<Vec<u8>, NotUtf8> {
    let mut bytes = Vec::new();
    v1::encode(message.frame_type, message.channel_id, &message.payload, &mut bytes)?;
    Ok(bytes)
}

#[test]
fn every_vector_decodes_as_it_says() {
    for Vector { bytes, meaning, expected } in vectors() {
        let whole = 7 + bytes.get(3..7).map_or(0, |len| u32::from_be_bytes(len.try_into().unwrap()) as usize);
        let expected = match expected {
            Expected::Both(message) | Expected::Decode(message) => (Some(Ok(message)), whole),
            Expected::Invalid | Expected::Encode(_) => (Some(Err(FrameError::BadPayload)), whole),
            Expected::Broken(error) => (Some(Err(error)), 0),
            Expected::Incomplete => (None, 0),
        };
        assert_eq!(step(&bytes), expected, "{meaning}");
    }
}

#[test]
fn every_vector_encodes_as_it_says() {
    for Vector { bytes, meaning, expected } in vectors() {
        match expected {
            Expected::Both(message) => assert_eq!(encode(&message).unwrap(), bytes, "{meaning}"),
            Expected::Decode(message) => {
                let own = encode(&message).unwrap();
                assert_ne!(own, bytes, "{meaning}");
                assert_eq!(step(&own), (Some(Ok(message)), own.len()), "{meaning}");
            }
            Expected::Encode(message) => assert_eq!(encode(&message), Err(NotUtf8), "{meaning}"),
            Expected::Incomplete | Expected::Invalid | Expected::Broken(_) => (),
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
            for more in [&b"\xff"[..], b"\xab\x12", &[0; 7]] {
                assert_eq!(step(&[&bytes[..len], more].concat()), (outcome.clone(), len), "{meaning}");
            }
        }
    }
}

#[test]
fn a_stream_of_all_vectors_decodes_the_same_in_pieces_of_any_size() {
    let frames = vectors().map(|vector| vector.bytes).filter(|bytes| step(bytes).1 == bytes.len() && !bytes.is_empty()).collect::<Vec<_>>();
    let expected = frames.iter().map(|bytes| step(bytes).0.unwrap()).collect::<Vec<_>>();
    assert!(expected.iter().any(Result::is_ok) && expected.iter().any(Result::is_err));
    let stream = frames.concat();
    for size in [1, 2, 3, 5, 7, 8, 13, 64, 1000, stream.len()] {
        let (mut kept, mut got) = (Vec::new(), Vec::new());
        for piece in stream.chunks(size) {
            kept.extend_from_slice(piece);
            while let (Some(outcome), len) = step(&kept) {
                got.push(outcome);
                kept.drain(..len);
            }
        }
        assert!(kept.is_empty());
        assert_eq!(got, expected, "pieces of {size}");
    }
}

#[test]
fn control_payloads_are_the_golden_ones() {
    assert_eq!(control::heartbeat_payload(1_700_000_000_250_000), payload("HEARTBEAT_REQ, ts 1700000000.25"));
    assert_eq!(control::heartbeat_payload(1_700_000_000_500_000), payload("HEARTBEAT_RES, ts 1700000000.5"));
    let register = control::register_payload("n1", r#"{"v":"1.0"}"#, 1_700_000_000_250_000, 1);
    assert_eq!(register, payload(r#"REGISTER id n1, metadata {v:"1.0"}, ts 1700000000.25"#));
    let register = control::register_payload("n1", "[]", 1_700_000_000_500_000, 1);
    assert_eq!(register, payload("REGISTER id n1, no metadata, ts 1700000000.5"));
    let register = control::register_payload("n1", "[]", 1_700_000_000_500_000, 2);
    assert_eq!(register, payload("REGISTER asking for protocol 2 (ours)"));
    assert_eq!(control::error_payload("Rate limit exceeded", 429), payload("ERROR 429"));
    assert_eq!(control::error_payload("Server is full or connection limit reached", 503), payload("ERROR 503"));
    assert_eq!(control::error_payload(&FrameError::BadPayload.answer(), 500), payload("ERROR 500 invalid payload"));
    assert_eq!(control::error_payload(&FrameError::BadMagic(0x4745).answer(), 500), payload("ERROR 500 wrong magic"));
    let mut reply = Vec::new();
    control::write_register_reply(&mut reply, "node-1", 1, 1_700_000_000_500_000, 1);
    assert_eq!(reply, payload(OUR_REPLY));
}

#[test]
fn a_client_reads_the_channel_from_our_reply_and_from_the_php_librarys() {
    for meaning in [OUR_REPLY, "Register reply, id node-1, channel 1, both times 1700000000.5"] {
        let reply = control::parse_register_reply(&payload(meaning)).unwrap();
        assert_eq!((&*reply.node_id, reply.channel_id), ("node-1", 1));
        assert_eq!(reply.protocol, 1);
    }
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
    row("SUBSCRIBE chat/+", &|out| subscribe("chat/+", None).encode(Dialect::V1, out));
    row("SUBSCRIBE chat/a of one node, behind offset 5 of epoch 1700000000500000", &|out| {
        subscribe("chat/a", position).encode(Dialect::V1, out);
    });
    let answer = |filter: &'static str, position, recovered| SubscribeReply { filter: filter.into(), position, recovered };
    row("SUBSCRIBE answer, chat/a, offset 5, recovered", &|out| answer("chat/a", position, true).encode(Dialect::V1, out));
    row("SUBSCRIBE answer, chat/+, not recovered", &|out| answer("chat/+", None, false).encode(Dialect::V1, out));
    row("UNSUBSCRIBE chat/a, and its answer", &|out| Unsubscribe { filter: "chat/a".into() }.encode(Dialect::V1, out));
    let publish = |id| Publish { topic: "chat/a".into(), id, data: b"hi".into() };
    row("PUBLISH hi to chat/a", &|out| publish(None).encode(Dialect::V1, out).unwrap());
    row("PUBLISH hi to chat/a of one node, answer 3 wanted", &|out| publish(Some(3)).encode(Dialect::V1, out).unwrap());
    row("PUBLISH answer 3, offset 5, for 2", &|out| PublishReply { id: 3, position, reach: 2 }.encode(Dialect::V1, out));
    row("PUBLISH answer 3, no position, for 0", &|out| PublishReply { id: 3, position: None, reach: 0 }.encode(Dialect::V1, out));
    let message = |position| TopicMessage { topic: "chat/a".into(), position, data: b"hi".into() };
    row("MESSAGE hi of chat/a, offset 5", &|out| message(position).encode(Dialect::V1, out).unwrap());
    row("MESSAGE hi of chat/a, no position", &|out| message(None).encode(Dialect::V1, out).unwrap());
    let error = |text, code, id| topic_frames::error_payload(text, code, Some("chat/a"), id);
    row("ERROR 403 about chat/a", &|out| *out = error("Too many topics on this server", 403, None));
    row("ERROR 429 about PUBLISH 3 to chat/a", &|out| *out = error("Too many messages wait for subscribers", 429, Some(3)));
    for (meaning, encoded) in rows {
        assert_eq!(String::from_utf8_lossy(&encoded), String::from_utf8_lossy(&payload(&format!("{meaning}, ours"))), "{meaning}");
    }
}
