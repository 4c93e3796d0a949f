//! The frames a server answers with, written one behind the other into one buffer per thread.
//!
//! Owns the buffer and the ready-made heartbeat reply. Knows the wire, but not who is answered or when it is sent.

use super::Now;
use crate::wire::{FrameType, code, control, v1};

/// How long a ready-made reply keeps its timestamp, in microseconds.
const FRESH: u64 = 1_000;

#[derive(Default)]
pub struct Replies {
    bytes: Vec<u8>,
    /// HEARTBEAT_RES for channel 0 as it was made at `ready_at`.
    ready: Vec<u8>,
    ready_at: u64,
}

impl Replies {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
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
        if channel_id != 0 {
            return self.frame(FrameType::HEARTBEAT_RES, channel_id, &control::heartbeat_payload(now.unix));
        }
        if self.ready.is_empty() || now.unix.abs_diff(self.ready_at) >= FRESH {
            self.ready.clear();
            append(&mut self.ready, FrameType::HEARTBEAT_RES, 0, &control::heartbeat_payload(now.unix));
            self.ready_at = now.unix;
        }
        self.bytes.extend_from_slice(&self.ready);
    }

    pub fn registered(&mut self, node_id: &str, channel_id: u32, now: Now) {
        let mut payload = Vec::with_capacity(160);
        control::write_register_reply(&mut payload, node_id, channel_id, now.unix);
        self.frame(FrameType::REGISTER, 0, &payload);
    }

    pub fn pong(&mut self) {
        self.frame(FrameType::PONG, 0, b"");
    }

    /// An ERROR. The channel id is 0 unless it is about one of several nodes of the connection.
    pub fn error(&mut self, code: u16, text: &str, channel_id: u32) {
        self.frame(FrameType::ERROR, channel_id, &control::error_payload(text, code.into()));
    }

    pub fn server_full(&mut self) {
        self.error(code::UNAVAILABLE, code::SERVER_FULL_TEXT, 0);
    }

    pub fn shutting_down(&mut self) {
        self.error(code::UNAVAILABLE, code::SHUTTING_DOWN_TEXT, 0);
    }

    fn frame(&mut self, frame_type: FrameType, channel_id: u32, payload: &[u8]) {
        append(&mut self.bytes, frame_type, channel_id, payload);
    }
}

fn append(out: &mut Vec<u8>, frame_type: FrameType, channel_id: u32, payload: &[u8]) {
    let written = v1::encode(frame_type.0, channel_id.into(), payload, out);
    debug_assert!(written.is_ok(), "replies are JSON, and JSON is UTF-8");
}
