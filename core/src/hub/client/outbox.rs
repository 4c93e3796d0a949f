//! The frames that wait for a client's socket, one behind the other.
//!
//! Owns their bytes and the bound on them. Knows the dialects, and not what a frame is for.

use super::refusal::ClientRefusal;
use crate::wire::{self, Dialect, FrameType, MAX_BODY_LEN};

/// A written front below this size is not worth moving the rest for.
const COMPACT_FROM: usize = 64 * 1024;

/// Frames that wait to be written. Holds memory only while something waits.
#[derive(Default)]
pub(super) struct ClientOutbox {
    bytes: Vec<u8>,
    /// So much of the front is written already.
    written: usize,
}

impl ClientOutbox {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// The memory that they take.
    pub(super) fn kept(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A frame that is larger than the limit alone still goes into an empty outbox.
    pub(super) fn push(
        &mut self,
        dialect: Dialect,
        frame_type: FrameType,
        channel_id: i64,
        payload: &[u8],
        limit: usize,
    ) -> Result<(), ClientRefusal> {
        if payload.len() > MAX_BODY_LEN as usize {
            return Err(ClientRefusal::TooLong);
        }
        let waiting = self.len();
        let is_over = |frame: usize| waiting > 0 && waiting + frame > limit;
        if is_over(payload.len()) {
            return Err(ClientRefusal::OutboxFull);
        }
        let start = self.bytes.len();
        match (dialect, u32::try_from(channel_id)) {
            // v1 carries any number.
            (Dialect::V1, _) => wire::v1::encode(frame_type.0, channel_id, payload, &mut self.bytes).map_err(|_| ClientRefusal::NotUtf8)?,
            (Dialect::V2, Ok(channel_id)) => wire::v2::encode(frame_type, channel_id, payload, &mut self.bytes),
            (Dialect::V2, Err(_)) => return Err(ClientRefusal::NoSuchChannel),
        }
        let frame = self.bytes.len() - start;
        let refusal = match frame {
            _ if frame > dialect.header_len() + MAX_BODY_LEN as usize => ClientRefusal::TooLong,
            _ if is_over(frame) => ClientRefusal::OutboxFull,
            _ => return Ok(()),
        };
        self.bytes.truncate(start);
        self.bytes.shrink_to(COMPACT_FROM.max(2 * start));
        Err(refusal)
    }

    /// The few frames that keep the connection in order are not bounded: each is sent at most once per state, node or interval.
    pub(super) fn push_control(&mut self, dialect: Dialect, frame_type: FrameType, channel_id: u32, payload: &[u8]) {
        // Our own payloads are UTF-8: only that can fail.
        let encoded = wire::encode(dialect, frame_type, channel_id, payload, &mut self.bytes);
        debug_assert!(encoded.is_ok());
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.written += len;
        if self.is_empty() {
            *self = Self::default();
        } else if self.written >= COMPACT_FROM && self.written >= self.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}
