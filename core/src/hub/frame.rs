//! A frame on its way to a connection: a head of its own, and a body that it may share with frames to others.
//!
//! Owns how bodies are kept and counted. The head is made when the frame is written: until then it takes no memory.

use super::memory::{Memory, Part};
use crate::wire::{Dialect, FrameType, Framing, HEADER_LEN, NotUtf8, framing, v1};
use bytes::BufMut;
use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use triomphe::ThinArc;

thread_local! {
    /// Where the body of a v1 frame is made: how long it gets is known afterwards, and what is kept is allocated once, to fit.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Longer bodies give their memory back.
const MAX_SCRATCH: usize = 64 * 1024;

pub use framing::MAX_HEAD;

/// What one body takes in memory beside its bytes.
const BODY_BYTES: usize = size_of::<(usize, Counted, usize)>();

/// What is behind the head of a frame, as a dialect spells it: one piece of memory for all frames that share it, counted once and
/// until the last of them is gone.
#[derive(Clone)]
pub struct Body(ThinArc<Counted, u8>);

struct Counted {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.memory.remove(Part::Output, self.bytes);
    }
}

impl Body {
    /// # Errors
    /// [`NotUtf8`] in v1 only.
    pub fn encode(dialect: Dialect, payload: &[u8], memory: &Arc<Memory>) -> Result<Self, NotUtf8> {
        if dialect == Dialect::V2 {
            return Ok(Self::keep(payload, memory));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            v1::encode_tail(payload, scratch)?;
            let body = Self::keep(scratch, memory);
            scratch.clear();
            scratch.shrink_to(MAX_SCRATCH);
            Ok(body)
        })
    }

    fn keep(bytes: &[u8], memory: &Arc<Memory>) -> Self {
        let counted = Counted { memory: memory.clone(), bytes: BODY_BYTES + bytes.len() };
        memory.add(Part::Output, counted.bytes);
        Self(ThinArc::from_header_and_slice(counted, bytes))
    }

    /// The memory that is free when this is dropped: none while others share it.
    fn alone(&self) -> usize {
        if ThinArc::strong_count(&self.0) == 1 { self.0.header.header.bytes } else { 0 }
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.slice
    }
}

#[derive(Clone)]
pub struct QueuedFrame {
    body: Body,
    channel_id: u32,
    frame_type: FrameType,
    dialect: Dialect,
    framing: Framing,
}

impl QueuedFrame {
    pub fn new(dialect: Dialect, frame_type: FrameType, channel_id: u32, body: Body) -> Self {
        Self { body, channel_id, frame_type, dialect, framing: Framing::Stream }
    }

    /// The same for a connection whose frames stand in something.
    pub fn within(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Of all of it, as it is written.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.head_len() + self.body.len()
    }

    /// What its header says behind it: the limit on frames holds for this.
    pub(super) fn counted_len(&self) -> usize {
        match self.dialect {
            Dialect::V1 => v1::head_len(self.channel_id) - HEADER_LEN + self.body.len(),
            Dialect::V2 => self.body.len(),
        }
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    #[inline]
    pub fn head_len(&self) -> usize {
        framing::head_len(self.framing, self.dialect, self.frame_type, self.channel_id, self.body.len())
    }

    pub fn write_head(&self, out: &mut impl BufMut) {
        framing::write_head(self.framing, self.dialect, self.frame_type, self.channel_id, self.body.len(), out);
    }

    /// The memory that is free when this is dropped.
    pub fn alone(&self) -> usize {
        self.body.alone()
    }
}

impl PartialEq for QueuedFrame {
    fn eq(&self, other: &Self) -> bool {
        let spelled = |frame: &Self| (frame.framing, frame.dialect, frame.frame_type, frame.channel_id);
        spelled(self) == spelled(other) && *self.body == *other.body
    }
}

impl Eq for QueuedFrame {}

impl fmt::Debug for QueuedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} channel {}, {} bytes", self.dialect, self.frame_type, self.channel_id, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, MAX_BODY_LEN};

    fn frame(dialect: Dialect, channel_id: u32, payload: &[u8], memory: &Arc<Memory>) -> QueuedFrame {
        QueuedFrame::new(dialect, FrameType::DATA, channel_id, Body::encode(dialect, payload, memory).unwrap())
    }

    #[test]
    fn a_frame_is_small() {
        assert!(size_of::<QueuedFrame>() <= 16, "{} bytes", size_of::<QueuedFrame>());
    }

    #[test]
    fn head_and_body_make_the_frame_that_is_encoded_in_one_piece() {
        let memory = Arc::new(Memory::new(1));
        for (dialect, channel_id) in [(Dialect::V1, 0), (Dialect::V1, 9), (Dialect::V1, 10), (Dialect::V1, u32::MAX), (Dialect::V2, 7)] {
            let frame = frame(dialect, channel_id, "a \"b\" é".as_bytes(), &memory);
            let (mut whole, mut parts) = (Vec::new(), Vec::new());
            wire::encode(dialect, FrameType::DATA, channel_id, "a \"b\" é".as_bytes(), &mut whole).unwrap();
            frame.write_head(&mut parts);
            assert_eq!((parts.len(), frame.len()), (frame.head_len(), whole.len()));
            assert!(parts.len() <= MAX_HEAD);
            parts.extend_from_slice(frame.body());
            assert_eq!(parts, whole);
            let (_, wire::Decoded::Frame { len, .. }) = wire::decode(&whole, frame.counted_len() as u32) else { panic!() };
            assert_eq!(len, whole.len());
            assert!(frame.counted_len() as u32 <= MAX_BODY_LEN);
        }
    }

    #[test]
    fn a_body_is_counted_once_until_the_last_frame_with_it_is_gone_and_is_nobodys_alone_meanwhile() {
        let memory = Arc::new(Memory::new(1));
        let first = frame(Dialect::V2, 1, &[0; 1000], &memory);
        let counted = memory.of(Part::Output);
        assert_eq!((counted, first.alone()), (BODY_BYTES + 1000, BODY_BYTES + 1000));
        let others: Vec<QueuedFrame> = (2..100).map(|id| QueuedFrame::new(Dialect::V2, FrameType::DATA, id, first.body.clone())).collect();
        assert_eq!((memory.of(Part::Output), first.alone()), (counted, 0));
        drop(others);
        assert_eq!((memory.of(Part::Output), first.alone()), (counted, counted));
        drop(first);
        assert_eq!(memory.of(Part::Output), 0);
    }

    #[test]
    fn what_v1_cannot_carry_is_not_kept() {
        let memory = Arc::new(Memory::new(1));
        assert!(Body::encode(Dialect::V1, b"a\xff", &memory).is_err());
        assert_eq!(memory.total(), 0);
    }
}
