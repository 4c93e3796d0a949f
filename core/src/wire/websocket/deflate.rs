//! permessage-deflate (RFC 7692) without context takeover: each message is compressed by itself, so nothing is kept between them.
//!
//! Owns one inflater and one deflater with their buffers, which a thread uses for all its connections. An inflater says how much it has done at
//! each end of a block, and can go on later: a few bytes may have many blocks in them, of which each takes its time, also an empty one.

use flate2::{Compress, Compression, FlushCompress};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use std::fmt;

/// What a compressed message is cut short by: the end of a block that is empty.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Last blocks in the middle of a message.
const MAX_ENDS: usize = 64;

/// Buffers longer than this give their memory back.
const MAX_KEPT: usize = 64 * 1024;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum InflateError {
    TooLong,
    Broken,
}

/// There is another message behind a block that says that it is the last one, and what a block refers to is in the same buffer.
const FLAGS: u32 = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;

/// Made when the first message is inflated.
#[derive(Default)]
pub struct Inflater {
    state: Option<Box<DecompressorOxide>>,
    /// The message as far as it is inflated, and room behind it.
    buffer: Vec<u8>,
    written: usize,
    /// So much of it and of what is behind it was read.
    read: usize,
    /// Blocks that said that they are the last one.
    ends: usize,
}

#[derive(Default)]
pub struct Deflater {
    state: Option<Compress>,
    buffer: Vec<u8>,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("buffer", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Inflater {
    /// A message follows.
    pub fn begin(&mut self) {
        self.state.get_or_insert_default().init();
        self.buffer.truncate(MAX_KEPT);
        self.buffer.shrink_to(MAX_KEPT);
        (self.written, self.read, self.ends) = (0, 0, 0);
    }

    /// Goes on with a message, which is the same each time. `goes_on` is asked behind each block, or a part of a long one, of so many bytes
    /// before and after inflating. False where it said no; true once the message is whole.
    ///
    /// # Errors
    /// It would be longer than `max`, of which no more than that was kept; or it is no compressed message.
    pub fn go_on(&mut self, payload: &[u8], max: usize, mut goes_on: impl FnMut(usize) -> bool) -> Result<bool, InflateError> {
        let state = self.state.get_or_insert_default();
        loop {
            if self.written == self.buffer.len() {
                // One byte more than there may be shows that there is more.
                if self.written > max {
                    return Err(InflateError::TooLong);
                }
                let more = self.written.clamp(1024, 1 << 20).min(max + 1 - self.written);
                self.buffer.reserve_exact(more);
                self.buffer.resize(self.written + more, 0);
            }
            let input = if self.read < payload.len() { &payload[self.read..] } else { &TAIL[self.read - payload.len()..] };
            let (status, read, written) = decompress(state, input, &mut self.buffer, self.written, FLAGS);
            self.read += read;
            self.written += written;
            match status {
                TINFLStatus::BlockBoundary | TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => {}
                TINFLStatus::Done => {
                    // A block that says it is the last one (RFC 7692, 7.2.3.5): what follows begins anew. Nobody means to do that often.
                    self.ends += 1;
                    if self.ends > MAX_ENDS {
                        return Err(InflateError::Broken);
                    }
                    state.init();
                }
                _ => return Err(InflateError::Broken),
            }
            if self.read == payload.len() + TAIL.len() && status != TINFLStatus::HasMoreOutput {
                break;
            }
            if !goes_on(read + written) {
                return Ok(false);
            }
        }
        if self.written > max { Err(InflateError::TooLong) } else { Ok(true) }
    }

    /// The message as far as it is inflated.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.written]
    }

    /// What it takes in memory.
    pub fn memory(&self) -> usize {
        self.buffer.capacity() + self.state.as_ref().map_or(0, |_| size_of::<DecompressorOxide>())
    }

    /// What a message is when it is inflated, until the next one is.
    ///
    /// # Errors
    /// As [`Inflater::go_on`].
    pub fn inflate(&mut self, payload: &[u8], max: usize) -> Result<&[u8], InflateError> {
        self.begin();
        self.go_on(payload, max, |_| true)?;
        Ok(self.bytes())
    }
}

impl Deflater {
    /// A message as it is sent, until the next one is made; `None` where that would not be shorter.
    pub fn deflate(&mut self, payload: &[u8]) -> Option<&[u8]> {
        let state = self.state.get_or_insert_with(|| Compress::new(Compression::fast(), false));
        state.reset();
        self.buffer.clear();
        self.buffer.shrink_to(MAX_KEPT);
        self.buffer.reserve(payload.len() + TAIL.len());
        state.compress_vec(payload, &mut self.buffer, FlushCompress::Sync).ok()?;
        // What found no room in the buffer would be missing: it has no more than the payload and the tail.
        let is_whole = state.total_in() == payload.len() as u64 && self.buffer.len() < self.buffer.capacity();
        if !is_whole || !self.buffer.ends_with(&TAIL) {
            return None;
        }
        self.buffer.truncate(self.buffer.len() - TAIL.len());
        (self.buffer.len() < payload.len()).then_some(&self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    /// The example of RFC 7692, section 7.2.3.1.
    #[test]
    fn the_example_of_the_rfc_is_inflated() {
        assert_eq!(Inflater::default().inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], MAX).unwrap(), b"Hello");
        // With a block that says it is the last one (7.2.3.5), one that is not compressed (7.2.3.3), and in two blocks (7.2.3.6).
        assert_eq!(Inflater::default().inflate(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], MAX).unwrap(), b"Hello");
        let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(Inflater::default().inflate(&two, MAX).unwrap(), b"Hello");
        assert_eq!(
            Inflater::default().inflate(&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], MAX).unwrap(),
            b"Hello"
        );
        assert_eq!(Inflater::default().inflate(b"", MAX).unwrap(), b"");
    }

    #[test]
    fn a_bomb_ends_at_the_limit_and_takes_no_more_memory_than_that() {
        let mut deflater = Deflater::default();
        let bomb = deflater.deflate(&vec![0; 50 << 20]).unwrap();
        assert!(bomb.len() < 300_000);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(bomb, MAX).map(<[u8]>::len), Err(InflateError::TooLong));
        assert!(inflater.buffer.capacity() <= 2 * MAX + 1, "{}", inflater.buffer.capacity());
        assert_eq!(
            inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], MAX).unwrap(),
            b"Hello",
            "the next one is inflated all the same"
        );
        assert_eq!(inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 5).unwrap(), b"Hello");
        assert_eq!(inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 4), Err(InflateError::TooLong));
    }

    #[test]
    fn who_ends_again_and_again_is_refused_and_a_few_times_is_no_fault() {
        let ends = |count: usize| Inflater::default().inflate(&[0x03, 0x00].repeat(count), MAX).map(<[u8]>::len);
        assert_eq!(
            (ends(MAX_ENDS - 1), ends(MAX_ENDS + 1), ends(5_000_000)),
            (Ok(0), Err(InflateError::Broken), Err(InflateError::Broken))
        );
    }

    #[test]
    fn each_block_is_told_also_an_empty_one_and_who_is_stopped_goes_on_where_it_was() {
        // Empty blocks of ten bits, none of which is the last: four of them take five bytes.
        let empty = [0x02, 0x08, 0x20, 0x80, 0x00].repeat(1_000);
        let mut payload = empty.clone();
        payload.extend([0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        let mut inflater = Inflater::default();
        inflater.begin();
        let mut turns = 0;
        let mut told = 0;
        while !inflater
            .go_on(&payload, MAX, |_| {
                told += 1;
                told % 100 != 0
            })
            .unwrap()
        {
            turns += 1;
        }
        assert_eq!(inflater.bytes(), b"Hello");
        assert!((4_000..4_010).contains(&told) && turns >= 39, "{told} in {turns}");
        assert_eq!(inflater.inflate(&payload, MAX).unwrap(), b"Hello");
    }

    #[test]
    fn what_is_no_compressed_message_is_refused() {
        for broken in [&b"\xff"[..], b"\x07garbage", b"\xf2\x48\xcd", &[0x05, 0xe0, 0x81]] {
            let mut inflater = Inflater::default();
            let inflated = inflater.inflate(broken, MAX).map(<[u8]>::to_vec);
            assert!(inflated.is_err() || inflated.as_ref().is_ok_and(|bytes| bytes.len() < 8), "{inflated:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_deflated_is_inflated_to_the_same(payload in prop_oneof![prop::collection::vec(any::<u8>(), 0..2000), prop::collection::vec(0..3_u8, 0..200_000)]) {
            let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
            for _ in 0..2 {
                if let Some(deflated) = deflater.deflate(&payload) {
                    prop_assert!(deflated.len() < payload.len());
                    prop_assert_eq!(inflater.inflate(deflated, payload.len()).unwrap(), &payload[..]);
                    inflater.begin();
                    while !inflater.go_on(deflated, payload.len(), |_| false).unwrap() {}
                    prop_assert_eq!(inflater.bytes(), &payload[..]);
                    prop_assert_eq!(inflater.inflate(deflated, payload.len() - 1), Err(InflateError::TooLong));
                }
            }
        }

        #[test]
        fn garbage_ends(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Inflater::default().inflate(&payload, 10_000).map(<[u8]>::len);
        }
    }
}
