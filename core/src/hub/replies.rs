//! The frames a server answers with, written one behind the other into one buffer per thread.
//!
//! Owns the buffer and the ready-made heartbeat reply. Knows the wire, but not who is answered or when it is sent.

use super::Now;
use crate::model::CloseReason;
use crate::wire::firetower::{self, FireFrame, NO_TOPIC, SYSTEM};
use crate::wire::websocket::handshake::RequestError;
use crate::wire::{Dialect, FrameType, Framing, code, control, framing, v1, v2};

/// How long a ready-made reply keeps its timestamp, in microseconds.
const FRESH_US: u64 = 1_000;

#[derive(Default)]
pub struct Replies {
    bytes: Vec<u8>,
    dialect: Dialect,
    ready: [Ready; 2],
    /// What is being wrapped.
    unwrapped: Vec<u8>,
}

/// HEARTBEAT_RES for channel 0, in one dialect.
#[derive(Default)]
struct Ready {
    frame: Vec<u8>,
    /// Where in a v1 frame that begins which is the same for every channel.
    tail: usize,
    made_at: u64,
}

impl Replies {
    /// What follows is for somebody who speaks this.
    pub fn speak(&mut self, dialect: Dialect) {
        self.dialect = dialect;
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How much there is, for [`Replies::wrap`].
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Makes a message of each frame that was added behind `begin`.
    pub fn wrap(&mut self, begin: usize, framing: Framing) {
        if framing != Framing::Stream && self.bytes.len() > begin {
            self.unwrapped.extend_from_slice(&self.bytes[begin..]);
            self.bytes.truncate(begin);
            framing::wrap(framing, &self.unwrapped, &mut self.bytes);
            self.unwrapped.clear();
            self.unwrapped.shrink_to(64 * 1024);
        }
    }

    /// Where something else than frames is written.
    pub(super) fn raw(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets the replies; the buffer stays for the next ones unless a burst made it large.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(1 << 20);
    }

    pub fn heartbeat(&mut self, channel_id: u32, now: Now) {
        let ready = &mut self.ready[self.dialect as usize];
        if ready.frame.is_empty() || now.unix.abs_diff(ready.made_at) >= FRESH_US {
            ready.make(self.dialect, now.unix);
        }
        match self.dialect {
            Dialect::V1 if channel_id != 0 => {
                let tail = &ready.frame[ready.tail..];
                v1::encode_head(FrameType::HEARTBEAT_RES.0, channel_id.into(), tail.len(), &mut self.bytes);
                self.bytes.extend_from_slice(tail);
            }
            Dialect::V1 => self.bytes.extend_from_slice(&ready.frame),
            Dialect::V2 => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(&ready.frame);
                v2::set_channel(&mut self.bytes[start..], channel_id);
            }
        }
    }

    /// The answer to a REGISTER. `protocol` is the dialect that was agreed on.
    pub fn registered(&mut self, node_id: &str, channel_id: u32, protocol: u32, now: Now) {
        let mut payload = Vec::with_capacity(160);
        control::write_register_reply(&mut payload, node_id, channel_id, now.unix, protocol);
        self.frame(FrameType::REGISTER, 0, &payload);
    }

    pub fn pong(&mut self) {
        self.frame(FrameType::PONG, 0, b"");
    }

    /// An ERROR. The channel id is 0 unless it is about one of several nodes of the connection.
    pub fn error(&mut self, code: u16, text: &str, channel_id: u32) {
        self.frame(FrameType::ERROR, channel_id, &control::error_payload(text, code.into()));
    }

    /// A topic's answer or message, of which the payload is made in place.
    pub fn of_topic(&mut self, frame_type: FrameType, channel_id: u32, payload: &[u8]) {
        self.frame(frame_type, channel_id, payload);
    }

    pub fn server_full(&mut self) {
        self.error(code::UNAVAILABLE, code::SERVER_FULL_TEXT, 0);
    }

    /// There is no room for one more who wants a WebSocket.
    pub fn refuse_websocket(&mut self, reason: CloseReason) {
        let error = if reason == CloseReason::ServerStopped { RequestError::STOPPING } else { RequestError::FULL };
        self.bytes.extend_from_slice(error.answer().as_bytes());
    }

    /// The same for one of Firetower's.
    pub fn refuse_gateway(&mut self, reason: CloseReason) {
        let why = if reason == CloseReason::ServerStopped { code::SHUTTING_DOWN_TEXT } else { code::SERVER_FULL_TEXT };
        let frame = FireFrame { kind: firetower::ERROR, message_id: "", source: SYSTEM, topic: NO_TOPIC, content: why.as_bytes() };
        let written = frame.write(&mut self.bytes);
        debug_assert!(written.is_ok(), "its fields are constants");
    }

    /// The farewell of a server that stops: in v2 with the time within which to come back.
    pub fn shutting_down(&mut self, window_ms: u32) {
        match self.dialect {
            Dialect::V1 => self.error(code::UNAVAILABLE, code::SHUTTING_DOWN_TEXT, 0),
            Dialect::V2 => {
                let payload = control::goaway_payload(code::SHUTTING_DOWN_TEXT, code::UNAVAILABLE.into(), Some(window_ms));
                self.frame(FrameType::GOAWAY, 0, &payload);
            }
        }
    }

    /// Why the connection ends, where the peer would learn nothing else of it. The PHP library's server says nothing then, so
    /// neither is it said in v1.
    pub fn farewell(&mut self, reason: CloseReason) {
        if let (Dialect::V2, Some((code, text))) = (self.dialect, reason.farewell()) {
            self.frame(FrameType::GOAWAY, 0, &control::goaway_payload(text, code.into(), None));
        }
    }

    fn frame(&mut self, frame_type: FrameType, channel_id: u32, payload: &[u8]) {
        append(&mut self.bytes, self.dialect, frame_type, channel_id, payload);
    }
}

impl Ready {
    fn make(&mut self, dialect: Dialect, unix: u64) {
        self.frame.clear();
        v1::encode_head(FrameType::HEARTBEAT_RES.0, 0, 0, &mut self.frame);
        self.tail = self.frame.len();
        self.frame.clear();
        append(&mut self.frame, dialect, FrameType::HEARTBEAT_RES, 0, &control::heartbeat_payload(unix));
        self.made_at = unix;
    }
}

fn append(out: &mut Vec<u8>, dialect: Dialect, frame_type: FrameType, channel_id: u32, payload: &[u8]) {
    let written = crate::wire::encode(dialect, frame_type, channel_id, payload, out);
    debug_assert!(written.is_ok(), "replies are JSON, and JSON is UTF-8");
}
