//! The JSON objects that control frames carry as their payload.
//!
//! Owns their keys, their checks and their exact spelling; knows neither frames nor what a registration leads to.

use super::json::{self, Value};
use super::{code, php_cast, php_json};
use std::fmt;

pub const MAX_NODE_ID_LEN: usize = 255;
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
        Value::Null => None,
        other => {
            let id = php_cast::to_string(other).ok_or(RegisterError::InvalidNodeId)?.into_text();
            if id.is_empty() || id.len() > MAX_NODE_ID_LEN {
                return Err(RegisterError::InvalidNodeId);
            }
            Some(id.into_owned())
        }
    };
    let metadata = match metadata {
        Value::Nested(text) if text.len() > MAX_METADATA_LEN => return Err(RegisterError::MetadataTooLong),
        Value::Nested(text) => Some(text.into()),
        _ => None,
    };
    let protocol = match protocol {
        Value::Number(number) => number.parse().unwrap_or(1),
        _ => 1,
    };
    Ok(Register { node_id, metadata, protocol })
}

/// Appends the server's answer to a REGISTER: the PHP library's reply plus the channel id at top level, where its client
/// looks for it.
pub fn write_register_reply(out: &mut Vec<u8>, node_id: &str, channel_id: u32, unix_micros: u64) {
    let time = time(unix_micros);
    out.extend_from_slice(b"{\"node_id\":");
    php_json::write_str(out, node_id);
    out.extend_from_slice(
        format!(
            ",\"metadata\":{{\"channel_id\":{channel_id},\"status\":\"ok\",\"server_time\":{time}}},\"timestamp\":{time},\"channel_id\":{channel_id}}}"
        )
        .as_bytes(),
    );
}

/// What a client learns from the answer to its REGISTER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterReply {
    pub node_id: String,
    /// 0 where the server names none.
    pub channel_id: u32,
}

/// Reads the answer to a REGISTER, ours or the PHP library's, which names the channel only inside of `metadata`.
pub fn parse_register_reply(payload: &[u8]) -> Option<RegisterReply> {
    let [node_id, metadata, channel_id] = json::members(payload, ["node_id", "metadata", "channel_id"]).ok()?;
    let Value::String(node_id) = node_id else { return None };
    let nested = match metadata {
        Value::Nested(text) => json::members(text.as_bytes(), ["channel_id"]).map_or(Value::Null, |[id]| id),
        _ => Value::Null,
    };
    let number = |value| match value {
        Value::Number(number) => number.parse().ok(),
        _ => None,
    };
    let channel_id = number(channel_id).or_else(|| number(nested)).unwrap_or(0);
    Some(RegisterReply { node_id: node_id.text().into_owned(), channel_id })
}

/// The payload of a REGISTER. `metadata_json` is JSON text already: an object, or `[]` when there is none.
pub fn register_payload(node_id: &str, metadata_json: &str, unix_micros: u64) -> Vec<u8> {
    let mut out = b"{\"node_id\":".to_vec();
    php_json::write_str(&mut out, node_id);
    out.extend_from_slice(format!(",\"metadata\":{metadata_json},\"timestamp\":{}}}", time(unix_micros)).as_bytes());
    out
}

/// The payload of an ERROR.
pub fn error_payload(message: &str, code: i64) -> Vec<u8> {
    let mut out = b"{\"message\":".to_vec();
    php_json::write_str(&mut out, message);
    out.extend_from_slice(format!(",\"code\":{code}}}").as_bytes());
    out
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
