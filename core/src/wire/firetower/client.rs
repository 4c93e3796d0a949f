//! What a WebSocket client of Firetower's says: one JSON object per message, and what it is told.
//!
//! Owns the reading of it as the original does: keys in any case, unknown ones ignored, of one that comes twice the last counts.

use serde::Deserialize;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The text that the server sends now and then, which is no JSON.
pub const HEARTBEAT: &str = "heartbeat";

const SUBSCRIBE: &str = "subscribe";
const UNSUBSCRIBE: &str = "unSubscribe";

/// What a client wants. Texts are as they came.
#[derive(Clone, Debug)]
pub enum ClientMessage {
    /// Topics with commas between them, in this order; a name may be empty or come twice. They are not split here: there may be millions.
    Subscribe(String),
    Unsubscribe(String),
    /// Any other type, by convention `publish`. `data` is the JSON text of what is to be published, byte for byte, if there is any.
    Other {
        kind: String,
        topic: String,
        data: Option<Box<RawValue>>,
    },
}

impl PartialEq for ClientMessage {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Subscribe(topics), Self::Subscribe(others)) | (Self::Unsubscribe(topics), Self::Unsubscribe(others)) => topics == others,
            (Self::Other { kind, topic, data }, Self::Other { kind: other_kind, topic: other_topic, data: other_data }) => {
                let text = |data: &Option<Box<RawValue>>| data.as_ref().map(|data| data.get().to_owned());
                (kind, topic, text(data)) == (other_kind, other_topic, text(other_data))
            }
            _ => false,
        }
    }
}

/// Why a message is ignored.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// No JSON object, or a type or topic that is no string. A text `heartbeat` is such, and harmless.
    NotAMessage,
    NoTopic,
}

#[derive(Debug, Default)]
struct Json {
    kind: String,
    topic: String,
    data: Option<Box<RawValue>>,
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
                let mut json = Json::default();
                while let Some(key) = members.next_key::<String>()? {
                    // A null leaves what was there.
                    if key.eq_ignore_ascii_case("type") {
                        json.kind = members.next_value::<Option<String>>()?.unwrap_or(json.kind);
                    } else if key.eq_ignore_ascii_case("topic") {
                        json.topic = members.next_value::<Option<String>>()?.unwrap_or(json.topic);
                    } else if key.eq_ignore_ascii_case("data") {
                        json.data = Some(members.next_value()?);
                    } else {
                        members.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(json)
            }

            fn visit_unit<E: Error>(self) -> Result<Json, E> {
                Err(E::custom("null is no message"))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Reads what a client sent, as text or binary.
///
/// # Errors
/// [`Ignored`]: nothing happens, and the client hears nothing of it.
pub fn parse(message: &[u8]) -> Result<ClientMessage, Ignored> {
    let Json { kind, topic, data } = serde_json::from_slice(message).map_err(|_| Ignored::NotAMessage)?;
    if topic.is_empty() {
        return Err(Ignored::NoTopic);
    }
    Ok(match &*kind {
        SUBSCRIBE => ClientMessage::Subscribe(topic),
        UNSUBSCRIBE => ClientMessage::Unsubscribe(topic),
        _ => ClientMessage::Other { kind, topic, data },
    })
}

/// What the example gateway publishes to a topic after somebody has subscribed to it, or has not any more.
pub fn subscriber_count(has_subscribed: bool, count: usize) -> String {
    format!(r#"{{"type":"{}","data":{count}}}"#, if has_subscribed { "onSubscribe" } else { "onUnsubscribe" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(kind: &str, topic: &str, data: Option<&str>) -> ClientMessage {
        let data = data.map(|data| RawValue::from_string(data.to_owned()).unwrap());
        ClientMessage::Other { kind: kind.into(), topic: topic.into(), data }
    }

    #[test]
    fn lists_of_topics_are_kept_as_they_are() {
        let subscribe = |topic: &str| parse(format!(r#"{{"type":"subscribe","topic":{topic:?},"data":""}}"#).as_bytes());
        assert_eq!(subscribe("/chat/world"), Ok(ClientMessage::Subscribe("/chat/world".into())));
        assert_eq!(subscribe("a, b,,a"), Ok(ClientMessage::Subscribe("a, b,,a".into())));
        assert_eq!(parse(br#"{"type":"unSubscribe","topic":"a,b"}"#), Ok(ClientMessage::Unsubscribe("a,b".into())));
        assert_eq!(parse(br#"{"type":"unsubscribe","topic":"a,b"}"#), Ok(other("unsubscribe", "a,b", None)), "the S is large");
    }

    #[test]
    fn data_is_kept_byte_for_byte() {
        for data in [r#"{"from": "u1",  "data":"hi","type":"publish"}"#, r#""text""#, "12.50", "null", "[1, 2]", r#""é\u00e9""#] {
            let text = format!(r#"{{"type":"publish","topic":"/chat/world","data":{data}}}"#);
            assert_eq!(parse(text.as_bytes()), Ok(other("publish", "/chat/world", Some(data))));
        }
    }

    #[test]
    fn keys_are_taken_in_any_case_unknown_ones_ignored_and_of_two_the_last_counts() {
        assert_eq!(parse(br#"{"TYPE":"publish","Topic":"t","dAtA":1,"x":{"type":2}}"#), Ok(other("publish", "t", Some("1"))));
        assert_eq!(parse(br#"{"type":"a","type":"b","topic":"t","topic":null,"data":1,"data":2}"#), Ok(other("b", "t", Some("2"))));
        assert_eq!(parse(br#"{"topic":"t"}"#), Ok(other("", "t", None)));
    }

    #[test]
    fn what_is_no_message_is_ignored() {
        for text in [
            &b"heartbeat"[..],
            b"",
            b"null",
            b"[]",
            b"1",
            br#"{"type":1,"topic":"t"}"#,
            br#"{"type":"subscribe","topic":["t"]}"#,
            b"{\"topic\":\"t\"} x",
            b"\xff",
            br#"{"topic":"\ud800"}"#,
        ] {
            assert_eq!(parse(text), Err(Ignored::NotAMessage), "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(parse(br#"{"type":"subscribe"}"#), Err(Ignored::NoTopic));
        assert_eq!(parse(br#"{"type":"subscribe","topic":""}"#), Err(Ignored::NoTopic));
        let deep = format!(r#"{{"topic":"t","data":{}}}"#, "[".repeat(100_000));
        assert_eq!(parse(deep.as_bytes()), Err(Ignored::NotAMessage));
    }

    #[test]
    fn the_example_gateway_tells_a_topic_how_many_there_are() {
        assert_eq!(subscriber_count(true, 3), r#"{"type":"onSubscribe","data":3}"#);
        assert_eq!(subscriber_count(false, 0), r#"{"type":"onUnsubscribe","data":0}"#);
    }
}
