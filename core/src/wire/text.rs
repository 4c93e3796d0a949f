//! `heartbus.json`: the bus for browsers, one JSON object for each message of a WebSocket.
//!
//! Owns how the objects of both directions are spelled. What they mean is what the frame means that each stands for, and the members
//! of control frames are those of the bus protocol.

use super::websocket::{self, Opcode};
use super::{Decoded, FrameType, dialects, php_json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BufMut;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

const DATA_BEFORE: &[u8] = b"{\"type\":\"data\",\"channel_id\":";
const DATA_AFTER: &[u8] = b",\"data\":";

/// In front of the other members of a MESSAGE.
const MESSAGE_BEFORE: &[u8] = b"{\"type\":\"message\",\"channel_id\":";
const MESSAGE_AFTER: &[u8] = b",";

/// What a frame is called.
const NAMES: &[(FrameType, &str)] = &[
    (FrameType::REGISTER, "register"),
    (FrameType::UNREGISTER, "unregister"),
    (FrameType::HEARTBEAT_REQ, "heartbeat"),
    (FrameType::HEARTBEAT_RES, "heartbeat"),
    (FrameType::DATA, "data"),
    (FrameType::PING, "ping"),
    (FrameType::PONG, "pong"),
    (FrameType::ERROR, "error"),
    (FrameType::SUBSCRIBE, "subscribe"),
    (FrameType::UNSUBSCRIBE, "unsubscribe"),
    (FrameType::PUBLISH, "publish"),
    (FrameType::MESSAGE, "message"),
];

/// What only servers say.
const ANSWERS: &[FrameType] = &[FrameType::HEARTBEAT_RES, FrameType::PONG, FrameType::ERROR, FrameType::MESSAGE];

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextMessage<'a> {
    pub frame_type: FrameType,
    /// 0 unless it is named.
    pub channel_id: i64,
    /// Of the frame that it stands for.
    pub payload: Cow<'a, [u8]>,
}

/// Why a message is none; the answer has it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct NotAMessage(pub &'static str);

#[derive(Deserialize)]
struct TextMembers<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    channel_id: u32,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
}

/// Reads what a client sent.
///
/// # Errors
/// [`NotAMessage`].
pub fn parse(text: &str) -> Result<TextMessage<'_>, NotAMessage> {
    let wrong = NotAMessage("A message is a JSON object with a type, and with a channel_id that is a whole number, if it has one");
    let members: TextMembers<'_> = serde_json::from_str(text).map_err(|_| wrong)?;
    let named = NAMES.iter().find(|(frame_type, name)| *name == members.kind && !ANSWERS.contains(frame_type));
    let Some((frame_type, _)) = named else { return Err(NotAMessage("Nothing is known of this type")) };
    let payload = match *frame_type {
        // What the frame's own object has stands beside the type.
        FrameType::REGISTER | FrameType::SUBSCRIBE | FrameType::UNSUBSCRIBE | FrameType::PUBLISH => Cow::Borrowed(text.as_bytes()),
        FrameType::DATA => payload(&members)?,
        _ => Cow::Borrowed(&b""[..]),
    };
    Ok(TextMessage { frame_type: *frame_type, channel_id: members.channel_id.into(), payload })
}

/// A string is its text, anything else the JSON that it is; other bytes come in base64.
fn payload<'a>(members: &TextMembers<'a>) -> Result<Cow<'a, [u8]>, NotAMessage> {
    match (members.data.map(RawValue::get), &members.base64) {
        (Some(text), None) if text.starts_with('"') => match serde_json::from_str::<Cow<'a, str>>(text) {
            Ok(Cow::Borrowed(text)) => Ok(Cow::Borrowed(text.as_bytes())),
            Ok(Cow::Owned(text)) => Ok(Cow::Owned(text.into_bytes())),
            Err(_) => Err(NotAMessage("data is no text")),
        },
        (Some(json), None) => Ok(Cow::Borrowed(json.as_bytes())),
        (None, Some(text)) => STANDARD.decode(&**text).map(Cow::Owned).map_err(|_| NotAMessage("base64 is none")),
        _ => Err(NotAMessage("A message of type data has either data or base64")),
    }
}

/// What stands in front of the channel, and behind it, in a frame that several receivers share: DATA, whose tail is that of v1, and MESSAGE,
/// whose tail is the rest of its object.
fn around_channel(frame_type: FrameType) -> (&'static [u8], &'static [u8]) {
    if frame_type == FrameType::MESSAGE { (MESSAGE_BEFORE, MESSAGE_AFTER) } else { (DATA_BEFORE, DATA_AFTER) }
}

/// How long the front of such a frame is.
pub(super) fn head_len(frame_type: FrameType, channel_id: u32) -> usize {
    let (before, after) = around_channel(frame_type);
    before.len() + channel_id.checked_ilog10().unwrap_or(0) as usize + 1 + after.len()
}

pub(super) fn write_head(frame_type: FrameType, channel_id: u32, out: &mut impl BufMut) {
    let (before, after) = around_channel(frame_type);
    out.put_slice(before);
    let mut digits = [0; 10];
    let (mut rest, mut start) = (channel_id, digits.len());
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[start..]);
    out.put_slice(after);
}

/// Whether a text that a server sends is the answer to a heartbeat.
pub(super) fn is_heartbeat(text: &[u8]) -> bool {
    text.starts_with(b"{\"type\":\"heartbeat\"")
}

/// Appends a frame of the server's as a message: its name, its channel unless that is 0, and what its payload has.
pub(super) fn write_frame(frame: &[u8], out: &mut Vec<u8>) {
    let (_, Decoded::Frame { frame, .. }) = dialects::decode(frame, u32::MAX) else { return };
    let name = NAMES.iter().find(|(frame_type, _)| *frame_type == frame.frame_type).map_or("unknown", |(_, name)| name);
    let mut text = format!("{{\"type\":\"{name}\"").into_bytes();
    if frame.channel_id != 0 {
        text.extend_from_slice(format!(",\"channel_id\":{}", frame.channel_id).as_bytes());
    }
    if let [b'{', members @ .., b'}'] = &*frame.payload.bytes()
        && !members.is_empty()
    {
        text.push(b',');
        text.extend_from_slice(members);
    }
    text.push(b'}');
    write(&text, out);
}

/// Appends an error that is about a message, as that of a frame is.
pub fn write_error(code: u16, message: &str, out: &mut Vec<u8>) {
    let mut text = format!("{{\"type\":\"error\",\"code\":{code},\"message\":").into_bytes();
    php_json::write_str(&mut text, message);
    text.push(b'}');
    write(&text, out);
}

fn write(text: &[u8], out: &mut Vec<u8>) {
    websocket::write_header(Opcode::Text, false, text.len(), out);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<(u8, i64, String), &'static str> {
        let text = parse(text).map_err(|error| error.0)?;
        Ok((text.frame_type.0, text.channel_id, String::from_utf8_lossy(&text.payload).into_owned()))
    }

    fn written(frame_type: FrameType, channel_id: u32, payload: &str) -> String {
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        dialects::encode(super::super::Dialect::V1, frame_type, channel_id, payload.as_bytes(), &mut frame).unwrap();
        write_frame(&frame, &mut out);
        let (opcode, text) = websocket::server_frame(&out).unwrap();
        assert_eq!(opcode, Opcode::Text);
        String::from_utf8(text.to_vec()).unwrap()
    }

    #[test]
    fn every_message_of_a_client_stands_for_a_frame() {
        let register = r#"{"type":"register","node_id":"n","metadata":{"a":1}}"#;
        assert_eq!(said(register), Ok((FrameType::REGISTER.0, 0, register.into())));
        assert_eq!(said(r#"{"type":"heartbeat"}"#), Ok((FrameType::HEARTBEAT_REQ.0, 0, String::new())));
        assert_eq!(said(r#"{"channel_id":7,"type":"unregister"}"#), Ok((FrameType::UNREGISTER.0, 7, String::new())));
        assert_eq!(said(r#"{"type":"ping","more":[1]}"#), Ok((FrameType::PING.0, 0, String::new())));
        for (data, payload) in [
            (r#""data":"text""#, "text"),
            (r#""data":"a \"b\" \u00e9\n""#, "a \"b\" é\n"),
            (r#""data":{"a" : [1, 2]}"#, r#"{"a" : [1, 2]}"#),
            (r#""data":1.50"#, "1.50"),
            (r#""data":"""#, ""),
            (r#""base64":"aGk=""#, "hi"),
        ] {
            assert_eq!(said(&format!(r#"{{"type":"data","channel_id":3,{data}}}"#)), Ok((FrameType::DATA.0, 3, payload.into())), "{data}");
        }
    }

    #[test]
    fn of_topics_the_members_are_those_of_the_frames_and_the_head_of_a_message_and_the_rest_of_its_object_are_one() {
        for (text, frame_type) in [
            (r#"{"type":"subscribe","filter":"a/+"}"#, FrameType::SUBSCRIBE),
            (r#"{"type":"unsubscribe","filter":"a/+"}"#, FrameType::UNSUBSCRIBE),
            (r#"{"type":"publish","topic":"a","data":{"b":1}}"#, FrameType::PUBLISH),
        ] {
            assert_eq!(said(text), Ok((frame_type.0, 0, text.into())));
        }
        assert!(said(r#"{"type":"message","topic":"a"}"#).is_err());
        for channel_id in [0, 10, u32::MAX] {
            let mut text = Vec::new();
            write_head(FrameType::MESSAGE, channel_id, &mut text);
            assert_eq!(text.len(), head_len(FrameType::MESSAGE, channel_id));
            text.extend_from_slice(br#""topic":"a","data":"x"}"#);
            let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(read, serde_json::json!({"type": "message", "channel_id": channel_id, "topic": "a", "data": "x"}));
        }
        assert_eq!(
            written(FrameType::MESSAGE, 7, r#"{"topic":"a","data":"x"}"#),
            r#"{"type":"message","channel_id":7,"topic":"a","data":"x"}"#
        );
    }

    #[test]
    fn what_is_no_message_is_refused_with_what_it_lacks() {
        for (text, why) in [
            ("heartbeat", "A message is"),
            ("[]", "A message is"),
            ("{}", "A message is"),
            (r#"{"type":1}"#, "A message is"),
            (r#"{"type":"ping","channel_id":-1}"#, "A message is"),
            (r#"{"type":"ping","channel_id":"1"}"#, "A message is"),
            (r#"{"type":"pong"}"#, "Nothing is known"),
            (r#"{"type":"error"}"#, "Nothing is known"),
            (r#"{"type":"Ping"}"#, "Nothing is known"),
            (r#"{"type":"data"}"#, "A message of type data"),
            (r#"{"type":"data","data":1,"base64":"aGk="}"#, "A message of type data"),
            (r#"{"type":"data","base64":"?"}"#, "base64"),
            (r#"{"type":"data","data":"\ud800"}"#, "data is no text"),
        ] {
            assert!(said(text).is_err_and(|error| error.starts_with(why)), "{text}: {:?}", said(text));
        }
    }

    #[test]
    fn what_a_server_says_is_an_object_with_what_the_frame_has() {
        assert_eq!(written(FrameType::PONG, 0, ""), r#"{"type":"pong"}"#);
        assert_eq!(
            written(FrameType::ERROR, 7, r#"{"message":"no","code":403}"#),
            r#"{"type":"error","channel_id":7,"message":"no","code":403}"#
        );
        assert_eq!(written(FrameType::HEARTBEAT_RES, 0, r#"{"timestamp":1.5}"#), r#"{"type":"heartbeat","timestamp":1.5}"#);
        let mut out = Vec::new();
        write_error(400, "say \"type\"", &mut out);
        assert_eq!(&out[2..], br#"{"type":"error","code":400,"message":"say \"type\""}"#);
    }

    #[test]
    fn the_head_of_data_and_the_tail_of_v1_are_one_object() {
        for channel_id in [0, 9, 10, u32::MAX] {
            let mut text = Vec::new();
            write_head(FrameType::DATA, channel_id, &mut text);
            assert_eq!(text.len(), head_len(FrameType::DATA, channel_id));
            super::super::v1::encode_tail("é \"x\"".as_bytes(), &mut text).unwrap();
            let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(read, serde_json::json!({"type": "data", "channel_id": channel_id, "data": "é \"x\""}));
        }
    }
}
