//! The JSON objects that control frames carry as their payload.
//!
//! Owns their keys, their checks and their exact spelling; knows neither frames nor what a registration leads to.

use super::json::{self, JsonValue};
use super::{code, php_cast, php_json, v1};
use std::fmt;
use std::io::Write;

pub use crate::settings::MAX_NODE_ID_LEN;
pub const MAX_METADATA_LEN: usize = 64 * 1024;

/// What a REGISTER asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// Without one the hub makes an id up.
    pub node_id: Option<String>,
    /// The JSON text of an object or a list; anything else counts as none.
    pub metadata: Option<Box<str>>,
    /// The newest dialect that the client offers to speak.
    pub protocol: u32,
}

impl Default for Register {
    fn default() -> Self {
        Self { node_id: None, metadata: None, protocol: 1 }
    }
}

/// Why a REGISTER is refused; the texts of `Display` go into the ERROR frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RegisterError {
    InvalidNodeId,
    MetadataTooLong,
}

impl RegisterError {
    /// The code of the ERROR frame that answers this.
    pub fn code(self) -> u16 {
        code::INVALID_REQUEST
    }
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidNodeId => "Invalid node id",
            Self::MetadataTooLong => "Metadata too long",
        })
    }
}

impl std::error::Error for RegisterError {}

/// Reads the payload of a REGISTER. A payload that is no object asks for nothing in particular.
pub fn parse_register(payload: &[u8]) -> Result<Register, RegisterError> {
    let Ok([node_id, metadata, protocol]) = json::members(payload, ["node_id", "metadata", "protocol"]) else {
        return Ok(Register::default());
    };
    let node_id = match node_id {
        JsonValue::Null => None,
        other => {
            let id = php_cast::to_string(other).ok_or(RegisterError::InvalidNodeId)?.into_text();
            if id.is_empty() || id.len() > MAX_NODE_ID_LEN {
                return Err(RegisterError::InvalidNodeId);
            }
            Some(id.into_owned())
        }
    };
    let metadata = match metadata {
        JsonValue::Nested(text) if text.len() > MAX_METADATA_LEN => return Err(RegisterError::MetadataTooLong),
        JsonValue::Nested(text) => Some(text.into()),
        _ => None,
    };
    let protocol = match protocol {
        JsonValue::Number(number) => number.parse().unwrap_or(1),
        _ => 1,
    };
    Ok(Register { node_id, metadata, protocol })
}

/// The newest dialect that there is.
pub const NEWEST_PROTOCOL: u32 = 2;

/// Appends the server's answer to a REGISTER: the PHP library's reply plus the channel id at top level, where its client
/// looks for it, and the agreed dialect, unless that is v1.
pub fn write_register_reply(out: &mut Vec<u8>, node_id: &str, channel_id: u32, unix_micros: u64, protocol: u32) {
    let time = time(unix_micros);
    out.extend_from_slice(b"{\"node_id\":");
    php_json::write_str(out, node_id);
    out.extend_from_slice(
        format!(
            ",\"metadata\":{{\"channel_id\":{channel_id},\"status\":\"ok\",\"server_time\":{time}}},\"timestamp\":{time},\"channel_id\":{channel_id}{}}}",
            Protocol(protocol)
        )
        .as_bytes(),
    );
}

/// The last member of a REGISTER or its reply: the dialect that is asked for or agreed on. v1 needs no words.
struct Protocol(u32);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 1 { write!(f, ",\"protocol\":{}", self.0) } else { Ok(()) }
    }
}

/// What a client learns from the answer to its REGISTER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterReply {
    pub node_id: String,
    /// 0 where the server names none.
    pub channel_id: u32,
    /// The dialect that the server agrees to.
    pub protocol: u32,
}

/// Reads the answer to a REGISTER, ours or the PHP library's, which names the channel only inside of `metadata`. A name that no
/// node may have is none.
pub fn parse_register_reply(payload: &[u8]) -> Option<RegisterReply> {
    let keys = ["node_id", "metadata", "channel_id", "protocol"];
    let [node_id, metadata, channel_id, protocol] = json::members(payload, keys).ok()?;
    let JsonValue::String(node_id) = node_id else { return None };
    let node_id = node_id.text();
    if node_id.len() > MAX_NODE_ID_LEN {
        return None;
    }
    let nested = match metadata {
        JsonValue::Nested(text) => json::members(text.as_bytes(), ["channel_id"]).map_or(JsonValue::Null, |[id]| id),
        _ => JsonValue::Null,
    };
    let number = |value| match value {
        JsonValue::Number(number) => number.parse().ok(),
        _ => None,
    };
    let channel_id = number(channel_id).or_else(|| number(nested)).unwrap_or(0);
    Some(RegisterReply { node_id: node_id.into_owned(), channel_id, protocol: number(protocol).unwrap_or(1) })
}

/// The payload of a REGISTER. `metadata_json` is JSON text already: an object, or `[]` when there is none. `protocol` is the
/// newest dialect that the client wants to speak; with 1 the payload is the PHP library's.
pub fn register_payload(node_id: &str, metadata_json: &str, unix_micros: u64, protocol: u32) -> Vec<u8> {
    let mut out = b"{\"node_id\":".to_vec();
    php_json::write_str(&mut out, node_id);
    out.extend_from_slice(format!(",\"metadata\":{metadata_json},\"timestamp\":{}{}}}", time(unix_micros), Protocol(protocol)).as_bytes());
    out
}

/// The payload of an ERROR.
pub fn error_payload(message: &str, code: i64) -> Vec<u8> {
    // What stands around the text and a code fit behind it; a text with much to escape grows once more.
    let mut out = Vec::with_capacity(message.len() + 48);
    out.extend_from_slice(b"{\"message\":");
    php_json::write_str(&mut out, message);
    out.extend_from_slice(b",\"code\":");
    out.extend_from_slice(v1::decimal(code, &mut [0; 20]));
    out.push(b'}');
    out
}

/// The payload of a GOAWAY: an ERROR's, and within how many milliseconds to come back, at a moment chosen at random, where the
/// server has an opinion about that.
pub fn goaway_payload(message: &str, code: i64, window_ms: Option<u32>) -> Vec<u8> {
    let mut out = error_payload(message, code);
    if let Some(window_ms) = window_ms {
        out.pop();
        let _ = write!(out, ",\"window_ms\":{window_ms}}}");
    }
    out
}

/// Reads the time that a GOAWAY names, in milliseconds.
pub fn parse_window(payload: &[u8]) -> Option<u32> {
    match json::members(payload, ["window_ms"]).ok()? {
        [JsonValue::Number(number)] => number.parse().ok(),
        _ => None,
    }
}

/// What an ERROR says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPayload {
    pub message: String,
    pub code: i64,
}

/// Reads the payload of an ERROR; a missing message is empty, a missing code 0.
pub fn parse_error(payload: &[u8]) -> Option<ErrorPayload> {
    let [message, code] = json::members(payload, ["message", "code"]).ok()?;
    Some(ErrorPayload { message: php_cast::to_string(message)?.into_text().into_owned(), code: php_cast::to_int(code)? })
}

/// The payload of a HEARTBEAT_REQ or HEARTBEAT_RES.
pub fn heartbeat_payload(unix_micros: u64) -> Vec<u8> {
    format!("{{\"timestamp\":{}}}", time(unix_micros)).into_bytes()
}

fn time(unix_micros: u64) -> String {
    let mut text = String::new();
    php_json::write_micros(&mut text, unix_micros);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node_id(json: &str) -> Result<Option<String>, RegisterError> {
        parse_register(format!("{{\"node_id\":{json}}}").as_bytes()).map(|register| register.node_id)
    }

    #[test]
    fn a_register_payload_says_who_with_what_and_in_which_dialect() {
        let register = parse_register(br#"{"node_id":"n1","metadata":{"v":"1.0","protocol":9},"timestamp":1.5,"protocol":2}"#).unwrap();
        let metadata = Some(r#"{"v":"1.0","protocol":9}"#.into());
        assert_eq!(register, Register { node_id: Some("n1".into()), metadata, protocol: 2 });
    }

    #[test]
    fn a_payload_that_is_no_object_or_names_no_node_leaves_the_id_to_the_hub() {
        for payload in [
            &b""[..],
            b"12",
            b"null",
            b"\"node_id\"",
            b"{broken",
            b"{\"node_id\":\"\xff\"}",
            b"[]",
            b"[\"n1\"]",
            b"{}",
            b"{\"node_id\":null}",
        ] {
            assert_eq!(parse_register(payload), Ok(Register::default()));
        }
        assert_eq!(Register::default().protocol, 1);
    }

    #[test]
    fn a_scalar_node_id_becomes_a_string_and_anything_else_is_refused() {
        for (json, id) in [("12", "12"), ("1.5", "1.5"), ("true", "1"), ("0", "0"), (r#""\u00e9/""#, "é/")] {
            assert_eq!(node_id(json), Ok(Some(id.into())), "{json}");
        }
        for json in ["[]", r#"["n1"]"#, "{}", r#""""#, "false"] {
            assert_eq!(node_id(json), Err(RegisterError::InvalidNodeId), "{json}");
        }
    }

    #[test]
    fn a_node_id_has_at_most_255_bytes_after_unescaping() {
        let json = |len| format!("\"{}\"", "\\u0061".repeat(len));
        assert_eq!(node_id(&json(255)), Ok(Some("a".repeat(255))));
        assert_eq!(node_id(&json(256)), Err(RegisterError::InvalidNodeId));
        assert_eq!(node_id(&format!("\"{}\"", "é".repeat(128))), Err(RegisterError::InvalidNodeId));
        assert_eq!(node_id(&json(65536)), Err(RegisterError::InvalidNodeId));
        assert_eq!(RegisterError::InvalidNodeId.to_string(), "Invalid node id");
        assert_eq!(RegisterError::InvalidNodeId.code(), 400);
    }

    #[test]
    fn metadata_is_an_object_or_a_list_of_at_most_64_kib_and_otherwise_none() {
        let metadata = |json: &str| parse_register(format!("{{\"metadata\":{json}}}").as_bytes()).map(|register| register.metadata);
        for json in ["[]", "{}", r#"["a",{"b":1}]"#, r#"{ "a" : 1 }"#] {
            assert_eq!(metadata(json), Ok(Some(json.into())));
        }
        for json in ["null", "1", "true", r#""text""#] {
            assert_eq!(metadata(json), Ok(None));
        }
        let list = |len: usize| format!("[\"{}\"]", "a".repeat(len - 4));
        assert!(metadata(&list(64 * 1024)).unwrap().is_some());
        assert_eq!(metadata(&list(64 * 1024 + 1)), Err(RegisterError::MetadataTooLong));
        assert_eq!(RegisterError::MetadataTooLong.to_string(), "Metadata too long");
        assert_eq!(RegisterError::MetadataTooLong.code(), 400);
    }

    #[test]
    fn a_protocol_that_is_not_a_small_number_counts_as_not_asked_for() {
        for (json, protocol) in
            [("2", 2), ("3", 3), ("1", 1), ("-1", 1), ("2.0", 1), ("99999999999", 1), ("\"2\"", 1), ("null", 1), ("[2]", 1)]
        {
            assert_eq!(parse_register(format!("{{\"protocol\":{json}}}").as_bytes()).unwrap().protocol, protocol, "{json}");
        }
    }

    #[test]
    fn a_register_reply_names_the_channel_at_top_level_or_in_its_metadata_or_not_at_all() {
        let channel = |json: &str| parse_register_reply(json.as_bytes()).map(|reply| reply.channel_id);
        assert_eq!(channel(r#"{"node_id":"n","channel_id":5}"#), Some(5));
        assert_eq!(channel(r#"{"node_id":"n","metadata":{"channel_id":6}}"#), Some(6));
        assert_eq!(channel(r#"{"node_id":"n","metadata":{"channel_id":6},"channel_id":5}"#), Some(5));
        assert_eq!(channel(r#"{"node_id":"n","metadata":[]}"#), Some(0));
        assert_eq!(channel(r#"{"node_id":"n","metadata":{"channel_id":-1},"channel_id":"x"}"#), Some(0));
        assert_eq!(channel(&format!(r#"{{"node_id":"{}","channel_id":5}}"#, "n".repeat(255))), Some(5));
        assert_eq!(channel(&format!(r#"{{"node_id":"{}","channel_id":5}}"#, "n".repeat(256))), None, "no node has such a name");
        for refused in ["", "1", "{broken", "{}", r#"{"node_id":null}"#, r#"{"node_id":1}"#, r#"{"node_id":[]}"#] {
            assert_eq!(channel(refused), None, "{refused}");
        }
    }

    #[test]
    fn an_error_payload_reads_back_and_what_is_missing_is_empty() {
        let payload = error_payload("Replaced by a newer \"connection\" é", 409);
        assert_eq!(payload, br#"{"message":"Replaced by a newer \"connection\" \u00e9","code":409}"#);
        let parsed = parse_error(&payload).unwrap();
        assert_eq!((&*parsed.message, parsed.code), ("Replaced by a newer \"connection\" é", 409));
        assert_eq!(parse_error(b"{}"), Some(ErrorPayload { message: String::new(), code: 0 }));
        for refused in [&b""[..], b"text", b"{\"message\":[]}", b"{\"code\":\"x\"}"] {
            assert_eq!(parse_error(refused), None);
        }
    }

    #[test]
    fn a_goaway_reads_as_an_error_and_names_its_window() {
        let payload = goaway_payload("Server is shutting down", 503, Some(1500));
        assert_eq!(payload, br#"{"message":"Server is shutting down","code":503,"window_ms":1500}"#);
        assert_eq!(parse_error(&payload), Some(ErrorPayload { message: "Server is shutting down".into(), code: 503 }));
        assert_eq!(parse_window(&payload), Some(1500));
        assert_eq!(goaway_payload("no", 403, None), error_payload("no", 403));
        for none in [&b""[..], b"{}", b"[]", br#"{"window_ms":"5"}"#, br#"{"window_ms":-1}"#, br#"{"window_ms":1.5}"#] {
            assert_eq!(parse_window(none), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(id in "\\PC{1,60}", channel_id: u32, unix_micros in 0..4_000_000_000_000_000_u64) {
            let mut reply = Vec::new();
            for protocol in [1, 2] {
                reply.clear();
                write_register_reply(&mut reply, &id, channel_id, unix_micros, protocol);
                prop_assert_eq!(parse_register_reply(&reply), Some(RegisterReply { node_id: id.clone(), channel_id, protocol }));
                let register = parse_register(&register_payload(&id, r#"{"a":[1]}"#, unix_micros, protocol)).unwrap();
                prop_assert_eq!(register, Register { node_id: Some(id.clone()), metadata: Some(r#"{"a":[1]}"#.into()), protocol });
            }
        }
    }
}
