//! What a frame of the bus stands in on its way: nothing, or a message of WebSocket's; or what is sent instead of it.
//!
//! Owns where one ends and the next one begins in a stream of either, which their first bytes tell apart, and the head in front of a
//! body that several frames share. What WebSocket asks of frames is [`super::websocket`]'s.

use super::websocket::{self, Opcode};
use super::{Dialect, FrameType, dialects, firetower, text, v1, v2};
use bytes::BufMut;

/// What stands around each frame.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Nothing: they follow one another.
    #[default]
    Stream,
    /// A binary message of WebSocket's.
    WebSocket,
    /// A text message, in which the frame is spelled as JSON ([`super::text`]). Its body is that of v1.
    Json,
    /// A text message that is a publication's payload and nothing else: Firetower's clients get no other frames.
    Firetower,
    /// No frame of the bus at all, but one of Firetower's back side: the body is all of it.
    FireHeader,
}

/// The longest head there is: WebSocket's header, and v1's or JSON's in front of a body.
pub const MAX_HEAD: usize = 64;

/// How long the head of a frame is.
pub fn head_len(framing: Framing, dialect: Dialect, frame_type: FrameType, channel_id: u32, body_len: usize) -> usize {
    let inner = inner_head_len(framing, dialect, frame_type, channel_id);
    match framing {
        Framing::Stream | Framing::FireHeader => inner,
        Framing::WebSocket | Framing::Json | Framing::Firetower => websocket::header_len(inner + body_len) + inner,
    }
}

fn inner_head_len(framing: Framing, dialect: Dialect, frame_type: FrameType, channel_id: u32) -> usize {
    match (framing, dialect) {
        (Framing::Firetower | Framing::FireHeader, _) => 0,
        (Framing::Json, _) => text::head_len(frame_type, channel_id),
        (_, Dialect::V1) => v1::head_len(channel_id),
        (_, Dialect::V2) => v2::HEADER_LEN,
    }
}

/// Writes it.
pub fn write_head(framing: Framing, dialect: Dialect, frame_type: FrameType, channel_id: u32, body_len: usize, out: &mut impl BufMut) {
    if !matches!(framing, Framing::Stream | Framing::FireHeader) {
        let opcode = if framing == Framing::WebSocket { Opcode::Binary } else { Opcode::Text };
        websocket::write_header(opcode, false, inner_head_len(framing, dialect, frame_type, channel_id) + body_len, out);
    }
    match (framing, dialect) {
        (Framing::Firetower | Framing::FireHeader, _) => {}
        (Framing::Json, _) => text::write_head(frame_type, channel_id, out),
        (_, Dialect::V1) => v1::encode_head(frame_type.0, channel_id.into(), body_len, out),
        (_, Dialect::V2) => v2::encode_head(frame_type, channel_id, body_len, out),
    }
}

/// The length of what `input` begins with, whichever framing that is in, as its header has it; `None` while that is not there, or is none.
pub fn framed_len(input: &[u8]) -> Option<usize> {
    match input.first() {
        Some(first) if *first == firetower::MAGIC[0] => firetower::frame_len(input),
        _ if is_of_bus(input) => dialects::frame_len(input),
        _ => websocket::frame_len(input),
    }
}

/// Whether a frame that a server sends shows that it is alive: an answer to a heartbeat, or to a ping of WebSocket's.
pub fn is_sign_of_life(frame: &[u8]) -> bool {
    if is_of_bus(frame) {
        return dialects::frame_type(frame) == Some(FrameType::HEARTBEAT_RES);
    }
    let Some((opcode, payload)) = websocket::server_frame(frame) else { return false };
    match opcode {
        Opcode::Pong => true,
        Opcode::Binary => dialects::frame_type(payload) == Some(FrameType::HEARTBEAT_RES),
        Opcode::Text => text::is_heartbeat(payload),
        _ => false,
    }
}

/// No frame of WebSocket's begins like this, nor one of Firetower's: it would be of an opcode that is reserved.
fn is_of_bus(input: &[u8]) -> bool {
    input.first() == Some(&v1::MAGIC.to_be_bytes()[0])
}

/// Appends frames of the bus, whole ones in a row, each as a message of its own.
pub fn wrap(framing: Framing, mut frames: &[u8], out: &mut Vec<u8>) {
    while let Some(len) = dialects::frame_len(frames).filter(|len| *len <= frames.len()) {
        let (frame, rest) = frames.split_at(len);
        match framing {
            Framing::Stream => out.extend_from_slice(frame),
            Framing::WebSocket => {
                websocket::write_header(Opcode::Binary, false, frame.len(), out);
                out.extend_from_slice(frame);
            }
            Framing::Json => text::write_frame(frame, out),
            Framing::Firetower | Framing::FireHeader => {}
        }
        frames = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::super::websocket::CloseCode;
    use super::*;

    fn reply(frame_type: FrameType, dialect: Dialect, framing: Framing, payload: &[u8]) -> Vec<u8> {
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        dialects::encode(dialect, frame_type, 3, payload, &mut frame).unwrap();
        wrap(framing, &frame, &mut out);
        out
    }

    #[test]
    fn frames_of_every_framing_are_told_apart_and_measured_to_their_last_byte() {
        let mut close = Vec::new();
        websocket::write_close(Some(CloseCode::NORMAL), "why", &mut close);
        let long = vec![b'x'; 70_000];
        for frame in [
            reply(FrameType::DATA, Dialect::V1, Framing::Stream, b"\"text\""),
            reply(FrameType::DATA, Dialect::V2, Framing::Stream, &long),
            reply(FrameType::DATA, Dialect::V2, Framing::WebSocket, b"text"),
            reply(FrameType::DATA, Dialect::V2, Framing::WebSocket, &long),
            reply(FrameType::PONG, Dialect::V1, Framing::Json, b""),
            close,
        ] {
            assert_eq!(framed_len(&frame), Some(frame.len()), "{:?}", &frame[..4]);
            assert_eq!(framed_len(&frame[..1]), None);
        }
        assert_eq!((framed_len(b""), framed_len(b"HTTP/1.1 400 Bad Request\r\n")), (None, None));
    }

    #[test]
    fn answers_to_heartbeats_are_signs_of_life_in_every_framing_and_nothing_else_is() {
        for (dialect, framing) in [
            (Dialect::V1, Framing::Stream),
            (Dialect::V2, Framing::Stream),
            (Dialect::V2, Framing::WebSocket),
            (Dialect::V1, Framing::Json),
        ] {
            assert!(is_sign_of_life(&reply(FrameType::HEARTBEAT_RES, dialect, framing, b"{\"timestamp\":1}")), "{framing:?}");
            assert!(!is_sign_of_life(&reply(FrameType::REGISTER, dialect, framing, b"{\"timestamp\":1}")), "{framing:?}");
            assert!(!is_sign_of_life(&reply(FrameType::DATA, dialect, framing, br#"{"type":"heartbeat"}"#)), "{framing:?}");
        }
        let mut pong = Vec::new();
        websocket::write_header(Opcode::Pong, false, 0, &mut pong);
        assert!(is_sign_of_life(&pong) && !is_sign_of_life(b"HTTP") && !is_sign_of_life(b""));
    }

    #[test]
    fn a_head_is_as_long_as_it_says_and_makes_a_whole_frame_with_its_body() {
        for body_len in [2, 100, 125, 126, 1000, 65_535, 70_000] {
            for channel_id in [0, 7, u32::MAX] {
                for (framing, dialect) in [
                    (Framing::Stream, Dialect::V2),
                    (Framing::WebSocket, Dialect::V2),
                    (Framing::Stream, Dialect::V1),
                    (Framing::Json, Dialect::V1),
                ] {
                    let mut frame = Vec::new();
                    write_head(framing, dialect, FrameType::DATA, channel_id, body_len, &mut frame);
                    assert_eq!(frame.len(), head_len(framing, dialect, FrameType::DATA, channel_id, body_len));
                    assert!(frame.len() <= MAX_HEAD);
                    assert_eq!(framed_len(&frame), Some(frame.len() + body_len), "{framing:?} {dialect:?}");
                }
            }
        }
    }
}
