//! Holds the envelope's JSON reader against serde_json, where the rules of both agree: all but nesting, overflowing
//! exponents and PHP's casts, which the golden vectors cover.

use heartbus_core::wire::{Decoded, Frame, FrameError, MAX_BODY_LEN, v1};
use proptest::prelude::*;
use serde_json::Value;

fn decode<T>(body: &str, look: impl FnOnce(Frame<'_>) -> T) -> Option<T> {
    let frame = [b"\xab\x12\x03", &(body.len() as u32).to_be_bytes()[..], body.as_bytes()].concat();
    match v1::decode(&frame, MAX_BODY_LEN) {
        Decoded::Frame { frame, .. } => Some(look(frame)),
        Decoded::Invalid { error: FrameError::BadPayload, .. } => None,
        other => panic!("{other:?}"),
    }
}

/// The same must be said of it behind so many spaces that it is a long text, at every place in the blocks that those are read in.
fn accepts(body: &str) -> bool {
    let is_accepted = decode(body, |_| ()).is_some();
    for spaces in [400, 400 + body.len() % 64] {
        assert_eq!(decode(&format!("{}{body}", " ".repeat(spaces)), |_| ()).is_some(), is_accepted, "{body} behind {spaces} spaces");
    }
    is_accepted
}

fn serde_accepts(body: &str) -> bool {
    serde_json::from_str::<Value>(body).is_ok_and(|value| value.is_object() || value.is_array())
}

fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", " ", "\n", "\"k\":", "\"", "\"a\"", "\\", "\\n", "\\u0041", "\\ud83d", "\\ude00", "\0", "0", "1",
        "-", ".", "e-", "E-3", "null", "true", "false", "nul", "é", "/", "\u{feff}", "\u{b}",
    ])
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(".{0,4}", inner, 0..5).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn pieces_of_json_are_accepted_exactly_where_serde_json_accepts_them(pieces in prop::collection::vec(piece(), 0..12)) {
        let body = pieces.concat();
        prop_assert_eq!(accepts(&body), serde_accepts(&body), "{}", body);
    }

    #[test]
    fn changed_json_is_accepted_exactly_where_serde_json_accepts_it(value in json(), at: prop::sample::Index, new in piece()) {
        let body = value.to_string();
        prop_assert_eq!(accepts(&body), serde_accepts(&body), "{}", body);
        let at = at.index(body.chars().count() + 1);
        for removed in 0..2 {
            let changed = body.chars().take(at).chain(new.chars()).chain(body.chars().skip(at + removed)).collect::<String>();
            prop_assert_eq!(accepts(&changed), serde_accepts(&changed), "{}", changed);
        }
    }

    #[test]
    fn a_payload_that_serde_json_writes_reads_back(payload: String, channel_id: i64, more in json()) {
        let body = serde_json::json!({ "channel_id": channel_id, "more": more, "payload": payload }).to_string();
        prop_assert_eq!(decode(&body, |frame| (frame.channel_id, frame.payload.bytes().into_owned())), Some((channel_id, payload.into_bytes())));
    }

    #[test]
    fn a_frame_of_ours_carries_what_serde_json_reads(payload: String, channel_id: i64) {
        let mut frame = Vec::new();
        v1::encode(3, channel_id, payload.as_bytes(), &mut frame).unwrap();
        let body = serde_json::from_slice::<Value>(&frame[7..]).unwrap();
        prop_assert_eq!(body, serde_json::json!({ "channel_id": channel_id, "payload": payload }));
    }
}
