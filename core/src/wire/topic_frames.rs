//! What stands in the frames of topics: SUBSCRIBE, UNSUBSCRIBE, PUBLISH and their answers, MESSAGE.
//!
//! Owns their payloads in both dialects: in v1 a JSON object, in v2 a short head and the rest as it is. A payload that cannot be read is
//! refused; whether a topic has a name that it may have is [`super::topic`]'s. Knows neither frames nor what is done with them.

use super::json::{self, JsonValue};
use super::{Dialect, NotUtf8, php_cast, php_json};
use crate::model::Position;
use bytes::{Buf, BufMut};
use std::borrow::Cow;
use std::fmt;

/// The payload is not what it should be.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct BadTopicFrame;

impl fmt::Display for BadTopicFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invalid topic frame")
    }
}

impl std::error::Error for BadTopicFrame {}

/// What the first byte of a payload in v2 says, where there is one: bits, of which those that are not named are 0.
const HAS_POSITION: u8 = 1;
const RECOVERED: u8 = 2;
const HAS_ID: u8 = 1;

/// The longest head of a MESSAGE in v2: position, length of the topic, topic.
pub const MAX_MESSAGE_HEAD: usize = 17 + super::topic::MAX_LEN;

/// A SUBSCRIBE of a client: one filter, and behind which position to go on, where it has been there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    pub filter: Cow<'a, str>,
    pub since: Option<Position>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeReply<'a> {
    pub filter: Cow<'a, str>,
    /// Of the last publication before the subscription; `None` for a filter that matches many topics.
    pub position: Option<Position>,
    /// What was asked for comes whole; true where nothing was asked for.
    pub recovered: bool,
}

/// An UNSUBSCRIBE, and the answer to it, which is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    pub filter: Cow<'a, str>,
}

/// A PUBLISH of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub topic: Cow<'a, str>,
    /// An answer is wanted, with this number.
    pub id: Option<u32>,
    pub data: Cow<'a, [u8]>,
}

/// The answer to it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PublishReply {
    pub id: u32,
    /// `None`: nobody has subscribed to the topic by its name and nothing of it is kept, so it has no positions.
    pub position: Option<Position>,
    /// For how many subscriptions it was queued.
    pub reach: u64,
}

/// A MESSAGE: a publication for a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub topic: Cow<'a, str>,
    pub position: Option<Position>,
    pub data: Cow<'a, [u8]>,
}

impl<'a> Subscribe<'a> {
    /// # Errors
    /// [`BadTopicFrame`]
    pub fn decode(dialect: Dialect, payload: &'a [u8]) -> Result<Self, BadTopicFrame> {
        if dialect == Dialect::V2 {
            let mut rest = payload;
            let flags = flags(&mut rest, HAS_POSITION)?;
            let since = position_v2(&mut rest, flags & HAS_POSITION != 0)?;
            return Ok(Self { filter: text_v2(rest)?, since });
        }
        let [filter, offset, epoch] = members(payload, ["filter", "offset", "epoch"])?;
        Ok(Self { filter: text(filter)?, since: position(offset, epoch)? })
    }

    pub fn encode(&self, dialect: Dialect, out: &mut Vec<u8>) {
        match dialect {
            Dialect::V1 => {
                put_text(out, b"{\"filter\":", &self.filter);
                put_position(out, self.since);
                out.push(b'}');
            }
            Dialect::V2 => {
                out.put_u8(if self.since.is_some() { HAS_POSITION } else { 0 });
                put_position_v2(out, self.since);
                out.put_slice(self.filter.as_bytes());
            }
        }
    }
}

impl<'a> SubscribeReply<'a> {
    /// # Errors
    /// [`BadTopicFrame`]
    pub fn decode(dialect: Dialect, payload: &'a [u8]) -> Result<Self, BadTopicFrame> {
        if dialect == Dialect::V2 {
            let mut rest = payload;
            let flags = flags(&mut rest, HAS_POSITION | RECOVERED)?;
            let position = position_v2(&mut rest, flags & HAS_POSITION != 0)?;
            return Ok(Self { filter: text_v2(rest)?, position, recovered: flags & RECOVERED != 0 });
        }
        let [filter, offset, epoch, recovered] = members(payload, ["filter", "offset", "epoch", "recovered"])?;
        let JsonValue::Bool(recovered) = recovered else { return Err(BadTopicFrame) };
        Ok(Self { filter: text(filter)?, position: position(offset, epoch)?, recovered })
    }

    pub fn encode(&self, dialect: Dialect, out: &mut Vec<u8>) {
        match dialect {
            Dialect::V1 => {
                put_text(out, b"{\"filter\":", &self.filter);
                put_position(out, self.position);
                out.put_slice(if self.recovered { b",\"recovered\":true}" } else { b",\"recovered\":false}" });
            }
            Dialect::V2 => {
                let position = if self.position.is_some() { HAS_POSITION } else { 0 };
                out.put_u8(position | if self.recovered { RECOVERED } else { 0 });
                put_position_v2(out, self.position);
                out.put_slice(self.filter.as_bytes());
            }
        }
    }
}

impl<'a> Unsubscribe<'a> {
    /// # Errors
    /// [`BadTopicFrame`]
    pub fn decode(dialect: Dialect, payload: &'a [u8]) -> Result<Self, BadTopicFrame> {
        if dialect == Dialect::V2 {
            return Ok(Self { filter: text_v2(payload)? });
        }
        let [filter] = members(payload, ["filter"])?;
        Ok(Self { filter: text(filter)? })
    }

    pub fn encode(&self, dialect: Dialect, out: &mut Vec<u8>) {
        match dialect {
            Dialect::V1 => {
                put_text(out, b"{\"filter\":", &self.filter);
                out.push(b'}');
            }
            Dialect::V2 => out.put_slice(self.filter.as_bytes()),
        }
    }
}

impl<'a> Publish<'a> {
    /// # Errors
    /// [`BadTopicFrame`]
    pub fn decode(dialect: Dialect, payload: &'a [u8]) -> Result<Self, BadTopicFrame> {
        if dialect == Dialect::V2 {
            let mut rest = payload;
            let flags = flags(&mut rest, HAS_ID)?;
            let id = if flags & HAS_ID != 0 { Some(rest.try_get_u32().map_err(|_| BadTopicFrame)?) } else { None };
            let topic = short_text_v2(&mut rest)?;
            return Ok(Self { topic, id, data: rest.into() });
        }
        let [topic, id, data] = members(payload, ["topic", "id", "data"])?;
        let id = match id {
            JsonValue::Null => None,
            JsonValue::Number(number) => Some(number.parse().map_err(|_| BadTopicFrame)?),
            _ => return Err(BadTopicFrame),
        };
        let data = match data {
            // An object or list is the JSON that it is.
            JsonValue::Nested(json) => json.as_bytes().into(),
            // Nothing is no text: whoever wanted to send something else is told.
            JsonValue::Null => return Err(BadTopicFrame),
            scalar => php_cast::to_string(scalar).ok_or(BadTopicFrame)?.into_bytes(),
        };
        Ok(Self { topic: text(topic)?, id, data })
    }

    /// # Errors
    /// [`NotUtf8`]: v1 cannot carry the data. Nothing was appended then.
    pub fn encode(&self, dialect: Dialect, out: &mut Vec<u8>) -> Result<(), NotUtf8> {
        let start = out.len();
        match dialect {
            Dialect::V1 => {
                put_text(out, b"{\"topic\":", &self.topic);
                if let Some(id) = self.id {
                    put_number(out, b",\"id\":", id.into());
                }
                put_data(out, start, &self.data)
            }
            Dialect::V2 => {
                out.put_u8(if self.id.is_some() { HAS_ID } else { 0 });
                if let Some(id) = self.id {
                    out.put_u32(id);
                }
                put_short_text_v2(out, &self.topic);
                out.put_slice(&self.data);
                Ok(())
            }
        }
    }
}

impl PublishReply {
    /// # Errors
    /// [`BadTopicFrame`]
    pub fn decode(dialect: Dialect, payload: &[u8]) -> Result<Self, BadTopicFrame> {
        if dialect == Dialect::V2 {
            let mut rest = payload;
            let flags = flags(&mut rest, HAS_POSITION)?;
            let position = position_v2(&mut rest, flags & HAS_POSITION != 0)?;
            let id = rest.try_get_u32().map_err(|_| BadTopicFrame)?;
            return Ok(Self { id, position, reach: rest.try_get_u64().map_err(|_| BadTopicFrame)? });
        }
        let [id, offset, epoch, reach] = members(payload, ["id", "offset", "epoch", "reach"])?;
        let id = number(id)?.try_into().map_err(|_| BadTopicFrame)?;
        Ok(Self { id, position: position(offset, epoch)?, reach: number(reach)? })
    }

    pub fn encode(&self, dialect: Dialect, out: &mut Vec<u8>) {
        match dialect {
            Dialect::V1 => {
                put_number(out, b"{\"id\":", self.id.into());
                put_position(out, self.position);
                put_number(out, b",\"reach\":", self.reach);
                out.push(b'}');
            }
            Dialect::V2 => {
                out.put_u8(if self.position.is_some() { HAS_POSITION } else { 0 });
                put_position_v2(out, self.position);
                out.put_u32(self.id);
                out.put_u64(self.reach);
            }
        }
    }
}

impl<'a> Message<'a> {
    /// # Errors
    /// [`BadTopicFrame`]
    pub fn decode(dialect: Dialect, payload: &'a [u8]) -> Result<Self, BadTopicFrame> {
        if dialect == Dialect::V2 {
            let mut rest = payload;
            let flags = flags(&mut rest, HAS_POSITION)?;
            let position = position_v2(&mut rest, flags & HAS_POSITION != 0)?;
            let topic = short_text_v2(&mut rest)?;
            return Ok(Self { topic, position, data: rest.into() });
        }
        let [topic, offset, epoch, data] = members(payload, ["topic", "offset", "epoch", "data"])?;
        let JsonValue::String(data) = data else { return Err(BadTopicFrame) };
        Ok(Self { topic: text(topic)?, position: position(offset, epoch)?, data: data.bytes() })
    }

    /// # Errors
    /// [`NotUtf8`]: v1 cannot carry the data. Nothing was appended then.
    pub fn encode(&self, dialect: Dialect, out: &mut Vec<u8>) -> Result<(), NotUtf8> {
        let start = out.len();
        match dialect {
            Dialect::V1 => {
                put_text(out, b"{\"topic\":", &self.topic);
                put_position(out, self.position);
                put_data(out, start, &self.data)
            }
            Dialect::V2 => {
                out.reserve(MAX_MESSAGE_HEAD + self.data.len());
                out.put_u8(if self.position.is_some() { HAS_POSITION } else { 0 });
                put_position_v2(out, self.position);
                put_short_text_v2(out, &self.topic);
                out.put_slice(&self.data);
                Ok(())
            }
        }
    }
}

/// The payload of an ERROR about a topic: an ERROR's, and which topic or filter, and the number of the PUBLISH, where there are such.
pub fn error_payload(message: &str, code: u16, topic: Option<&str>, id: Option<u32>) -> Vec<u8> {
    let mut out = super::control::error_payload(message, code.into());
    out.pop();
    if let Some(topic) = topic {
        put_text(&mut out, b",\"topic\":", topic);
    }
    if let Some(id) = id {
        put_number(&mut out, b",\"id\":", id.into());
    }
    out.push(b'}');
    out
}

/// Which topic or filter an ERROR is about, and which PUBLISH.
pub fn parse_error_subject(payload: &[u8]) -> (Option<String>, Option<u32>) {
    let Ok([topic, id]) = json::members(payload, ["topic", "id"]) else { return (None, None) };
    let id = match id {
        JsonValue::Number(number) => number.parse().ok(),
        _ => None,
    };
    (text(topic).ok().filter(|topic| topic.len() <= super::topic::MAX_LEN).map(Cow::into_owned), id)
}

fn members<'a, const N: usize>(payload: &'a [u8], keys: [&str; N]) -> Result<[JsonValue<'a>; N], BadTopicFrame> {
    json::members(payload, keys).map_err(|_| BadTopicFrame)
}

fn text(value: JsonValue<'_>) -> Result<Cow<'_, str>, BadTopicFrame> {
    if let JsonValue::String(text) = value { Ok(text.text()) } else { Err(BadTopicFrame) }
}

fn number(value: JsonValue<'_>) -> Result<u64, BadTopicFrame> {
    if let JsonValue::Number(number) = value { number.parse().map_err(|_| BadTopicFrame) } else { Err(BadTopicFrame) }
}

fn position(offset: JsonValue<'_>, epoch: JsonValue<'_>) -> Result<Option<Position>, BadTopicFrame> {
    match (offset, epoch) {
        (JsonValue::Null, JsonValue::Null) => Ok(None),
        (offset, epoch) => Ok(Some(Position { offset: number(offset)?, epoch: number(epoch)? })),
    }
}

fn flags(rest: &mut &[u8], known: u8) -> Result<u8, BadTopicFrame> {
    rest.try_get_u8().ok().filter(|flags| flags & !known == 0).ok_or(BadTopicFrame)
}

fn position_v2(rest: &mut &[u8], is_there: bool) -> Result<Option<Position>, BadTopicFrame> {
    if !is_there {
        return Ok(None);
    }
    let mut next = || rest.try_get_u64().map_err(|_| BadTopicFrame);
    Ok(Some(Position { offset: next()?, epoch: next()? }))
}

fn text_v2(bytes: &[u8]) -> Result<Cow<'_, str>, BadTopicFrame> {
    std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| BadTopicFrame)
}

fn short_text_v2<'a>(rest: &mut &'a [u8]) -> Result<Cow<'a, str>, BadTopicFrame> {
    let len = rest.try_get_u8().map_err(|_| BadTopicFrame)?;
    let (text, behind) = rest.split_at_checked(len.into()).ok_or(BadTopicFrame)?;
    *rest = behind;
    text_v2(text)
}

fn put_text(out: &mut Vec<u8>, before: &[u8], text: &str) {
    out.put_slice(before);
    php_json::write_str(out, text);
}

fn put_number(out: &mut Vec<u8>, before: &[u8], number: u64) {
    out.put_slice(before);
    out.put_slice(number.to_string().as_bytes());
}

fn put_position(out: &mut Vec<u8>, position: Option<Position>) {
    if let Some(Position { offset, epoch }) = position {
        put_number(out, b",\"offset\":", offset);
        put_number(out, b",\"epoch\":", epoch);
    }
}

fn put_data(out: &mut Vec<u8>, start: usize, data: &[u8]) -> Result<(), NotUtf8> {
    out.put_slice(b",\"data\":");
    if let Err(error) = php_json::write_bytes(out, data) {
        out.truncate(start);
        return Err(error);
    }
    out.push(b'}');
    Ok(())
}

fn put_position_v2(out: &mut Vec<u8>, position: Option<Position>) {
    if let Some(Position { offset, epoch }) = position {
        out.put_u64(offset);
        out.put_u64(epoch);
    }
}

/// A name of a topic has at most 255 bytes, so its length fits; what is longer is cut, and is no name.
fn put_short_text_v2(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u8::MAX))];
    out.put_u8(bytes.len() as u8);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Dialect; 2] = [Dialect::V1, Dialect::V2];

    fn position() -> impl Strategy<Value = Option<Position>> {
        prop::option::of((any::<u64>(), any::<u64>()).prop_map(|(offset, epoch)| Position { offset, epoch }))
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_in_both_dialects(
            filter in "\\PC{0,60}", position in position(), recovered: bool, id: Option<u32>, reach: u64, data in "\\PC{0,60}",
        ) {
            for dialect in BOTH {
                let mut out = Vec::new();
                let subscribe = Subscribe { filter: (&*filter).into(), since: position };
                subscribe.encode(dialect, &mut out);
                prop_assert_eq!(Subscribe::decode(dialect, &out), Ok(subscribe));
                out.clear();
                let reply = SubscribeReply { filter: (&*filter).into(), position, recovered };
                reply.encode(dialect, &mut out);
                prop_assert_eq!(SubscribeReply::decode(dialect, &out), Ok(reply));
                out.clear();
                let unsubscribe = Unsubscribe { filter: (&*filter).into() };
                unsubscribe.encode(dialect, &mut out);
                prop_assert_eq!(Unsubscribe::decode(dialect, &out), Ok(unsubscribe));
                out.clear();
                let publish = Publish { topic: (&*filter).into(), id, data: data.as_bytes().into() };
                publish.encode(dialect, &mut out).unwrap();
                prop_assert_eq!(Publish::decode(dialect, &out), Ok(publish));
                out.clear();
                let reply = PublishReply { id: id.unwrap_or(7), position, reach };
                reply.encode(dialect, &mut out);
                prop_assert_eq!(PublishReply::decode(dialect, &out), Ok(reply));
                out.clear();
                let message = Message { topic: (&*filter).into(), position, data: data.as_bytes().into() };
                message.encode(dialect, &mut out).unwrap();
                prop_assert_eq!(Message::decode(dialect, &out), Ok(message));
            }
            let error = error_payload(&data, 403, Some(&filter), id);
            prop_assert_eq!(super::super::control::parse_error(&error).unwrap().message, data);
            prop_assert_eq!(parse_error_subject(&error), (Some(filter), id));
        }

        #[test]
        fn data_may_be_any_bytes_in_v2_and_in_v1_text(data in prop::collection::vec(any::<u8>(), 0..40)) {
            for dialect in BOTH {
                let fits = dialect == Dialect::V2 || std::str::from_utf8(&data).is_ok();
                let (mut publish, mut message) = (b"before".to_vec(), Vec::new());
                let sent = Publish { topic: "a".into(), id: None, data: (&*data).into() };
                prop_assert_eq!(sent.encode(dialect, &mut publish).is_ok(), fits);
                let told = Message { topic: "a".into(), position: None, data: (&*data).into() };
                prop_assert_eq!(told.encode(dialect, &mut message).is_ok(), fits);
                if fits {
                    prop_assert_eq!(Publish::decode(dialect, &publish[6..]), Ok(sent));
                    prop_assert_eq!(Message::decode(dialect, &message), Ok(told));
                } else {
                    prop_assert_eq!((&publish[..], &message[..]), (&b"before"[..], &b""[..]));
                }
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_has_an_unknown_flag_or_a_wrong_type_is_refused() {
        for bytes in [&b""[..], b"\x02a", b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0", b"\0\xff"] {
            assert_eq!(Subscribe::decode(Dialect::V2, bytes), Err(BadTopicFrame), "{bytes:?}");
        }
        for bytes in [&b""[..], b"\0", b"\0\x02a", b"\x01\0\0\0", b"\x02\x01a", b"\0\x01\xff"] {
            assert_eq!(Publish::decode(Dialect::V2, bytes), Err(BadTopicFrame), "{bytes:?}");
        }
        for json in [
            "",
            "1",
            "[]",
            "{}",
            r#"{"filter":1}"#,
            r#"{"filter":null}"#,
            r#"{"filter":"a","offset":1}"#,
            r#"{"filter":"a","epoch":1}"#,
            r#"{"filter":"a","offset":-1,"epoch":1}"#,
            r#"{"filter":"a","offset":1.0,"epoch":1}"#,
            r#"{"filter":"a","offset":"1","epoch":1}"#,
        ] {
            assert_eq!(Subscribe::decode(Dialect::V1, json.as_bytes()), Err(BadTopicFrame), "{json}");
        }
        for json in [r#"{"data":"x"}"#, r#"{"topic":"a","data":"","id":-1}"#, r#"{"topic":"a","data":"","id":"1"}"#] {
            assert_eq!(Publish::decode(Dialect::V1, json.as_bytes()), Err(BadTopicFrame), "{json}");
        }
        for nothing in [r#"{"topic":"a"}"#, r#"{"topic":"a","data":null}"#, r#"{"topic":"a","base64":"aGk="}"#] {
            assert_eq!(Publish::decode(Dialect::V1, nothing.as_bytes()), Err(BadTopicFrame));
        }
        let publish = Publish::decode(Dialect::V1, br#"{"topic":"a","data":12}"#).unwrap();
        assert_eq!((&*publish.data, publish.id), (&b"12"[..], None));
        assert_eq!(&*Publish::decode(Dialect::V1, br#"{"topic":"a","data":{"b": [1]}}"#).unwrap().data, b"{\"b\": [1]}");
        assert_eq!(Publish::decode(Dialect::V1, br#"{"topic":"a","data":""}"#).unwrap().data.len(), 0);
        assert_eq!(parse_error_subject(br#"{"message":"no","code":429}"#), (None, None));
        assert_eq!(parse_error_subject(format!(r#"{{"topic":"{}"}}"#, "x".repeat(256)).as_bytes()), (None, None));
    }
}
