//! 64 bytes at a time, with what the processor has for it: one bit for each byte says what holds for it.
//!
//! Owns the two ways of doing that, one for any processor and one for those that have more, and which is taken. Knows nothing of JSON.

use std::ops::{BitAnd, BitOr};
use wide::{CmpEq, CmpGt, CmpLt, i8x16};

/// How many bytes there are in a block.
pub(super) const BLOCK: usize = 64;

/// From this length on, blocks are faster than bytes.
pub(super) const LONG: usize = 384;

/// The bytes of a block. What is asked of them is answered with all bits of a byte or with none. No closures: those are not made for the
/// processor.
pub(super) trait Block: Copy + BitAnd<Output = Self> + BitOr<Output = Self> {
    fn equal(self, byte: u8) -> Self;
    fn any_of(self, set: &Set) -> Self;
    /// ASCII above it.
    fn above(self, byte: u8) -> Self;
    /// ASCII below it, and all that is not ASCII.
    fn below(self, byte: u8) -> Self;
    /// Letters in lower case; `[` and `]` become `{` and `}`.
    fn lower(self) -> Self;
    /// The highest bit of each byte, that of the first byte the lowest.
    fn bits(self) -> u64;

    /// Bytes of ASCII from `first` to `last`.
    #[inline(always)]
    fn between(self, first: u8, last: u8) -> Self {
        self.above(first - 1) & self.below(last + 1)
    }
}

pub(super) trait Processor: Copy {
    type Block: Block;

    fn load(self, bytes: &[u8; BLOCK]) -> Self::Block;

    /// The bytes of `bytes` whose bits are set, one behind the other, and whatever behind them; see [`PLACES`].
    fn compress(self, bytes: [u8; 8], bits: u8) -> [u8; 8];
}

/// What is done with blocks. Everything that it calls for each of them must be inlined: only then it is made for the processor.
pub(super) trait Task {
    type Output;

    fn run<P: Processor>(self, processor: P) -> Self::Output;
}

/// Does it in the best way that this processor has.
pub(super) fn run<T: Task>(task: T) -> T::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(avx2::Run { simd, task });
    }
    task.run(AnyProcessor)
}

/// Bytes of ASCII, of which no two have the same low half.
pub(super) struct Set {
    bytes: [u8; 8],
    /// By the low half; where there is none, one that has another.
    by_half: [u8; 16],
}

impl Set {
    pub(super) const fn of(wanted: &[u8]) -> Self {
        let (mut bytes, mut by_half) = ([wanted[0]; 8], [0; 16]);
        by_half[0] = 1;
        let mut i = 0;
        while i < wanted.len() {
            bytes[i] = wanted[i];
            by_half[(wanted[i] & 15) as usize] = wanted[i];
            i += 1;
        }
        Self { bytes, by_half }
    }
}

/// For each choice of 8 bytes, where those that are chosen come from.
static PLACES: [[u8; 8]; 256] = {
    let mut places = [[0; 8]; 256];
    let mut choice = 0;
    while choice < 256 {
        let (mut from, mut to) = (0, 0);
        while from < 8 {
            if choice >> from & 1 == 1 {
                places[choice][to] = from;
                to += 1;
            }
            from += 1;
        }
        choice += 1;
    }
    places
};

/// What every processor can do, or is made to.
#[derive(Copy, Clone)]
pub(super) struct AnyProcessor;

impl Processor for AnyProcessor {
    type Block = Quarters;

    #[inline(always)]
    fn load(self, bytes: &[u8; BLOCK]) -> Quarters {
        Quarters(std::array::from_fn(|n| i8x16::from(std::array::from_fn::<i8, 16, _>(|i| bytes[16 * n + i] as i8))))
    }

    #[inline(always)]
    fn compress(self, bytes: [u8; 8], bits: u8) -> [u8; 8] {
        PLACES[usize::from(bits)].map(|place| bytes[usize::from(place & 7)])
    }
}

#[derive(Copy, Clone)]
pub(super) struct Quarters([i8x16; 4]);

impl BitAnd for Quarters {
    type Output = Self;

    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n] & other.0[n]))
    }
}

impl BitOr for Quarters {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n] | other.0[n]))
    }
}

impl Block for Quarters {
    #[inline(always)]
    fn equal(self, byte: u8) -> Self {
        Self(self.0.map(|lane| lane.cmp_eq(i8x16::splat(byte as i8))))
    }

    #[inline(always)]
    fn any_of(self, set: &Set) -> Self {
        set.bytes.iter().fold(Self([i8x16::splat(0); 4]), |any, byte| any | self.equal(*byte))
    }

    #[inline(always)]
    fn above(self, byte: u8) -> Self {
        Self(self.0.map(|lane| lane.cmp_gt(i8x16::splat(byte as i8))))
    }

    #[inline(always)]
    fn below(self, byte: u8) -> Self {
        Self(self.0.map(|lane| lane.cmp_lt(i8x16::splat(byte as i8))))
    }

    #[inline(always)]
    fn lower(self) -> Self {
        Self(self.0.map(|lane| lane | i8x16::splat(0x20)))
    }

    #[inline(always)]
    fn bits(self) -> u64 {
        let [a, b, c, d] = self.0.map(|lane| u64::from(lane.move_mask() as u16));
        a | b << 16 | c << 32 | d << 48
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use crate::wire::json::vectors::{BLOCK, Block, PLACES, Processor, Set, Task};
    use pulp::x86::V3;
    use pulp::{NullaryFnOnce, cast};
    use std::arch::x86_64::{__m128i, __m256i};
    use std::ops::{BitAnd, BitOr};

    pub(super) struct Run<T> {
        pub(super) simd: V3,
        pub(super) task: T,
    }

    impl<T: Task> NullaryFnOnce for Run<T> {
        type Output = T::Output;

        #[inline(always)]
        fn call(self) -> T::Output {
            self.task.run(self.simd)
        }
    }

    impl Processor for V3 {
        type Block = Halves;

        #[inline(always)]
        fn load(self, bytes: &[u8; BLOCK]) -> Halves {
            let [low, high] = cast::<_, [__m256i; 2]>(*bytes);
            Halves { simd: self, low, high }
        }

        #[inline(always)]
        fn compress(self, bytes: [u8; 8], bits: u8) -> [u8; 8] {
            let bytes = cast::<_, __m128i>([bytes, [0; 8]]);
            let places = cast::<_, __m128i>([PLACES[usize::from(bits)], [0; 8]]);
            let [chosen, _] = cast::<__m128i, [[u8; 8]; 2]>(self.ssse3._mm_shuffle_epi8(bytes, places));
            chosen
        }
    }

    #[derive(Copy, Clone)]
    pub(in super::super) struct Halves {
        simd: V3,
        low: __m256i,
        high: __m256i,
    }

    impl BitAnd for Halves {
        type Output = Self;

        #[inline(always)]
        fn bitand(self, other: Self) -> Self {
            let avx2 = self.simd.avx2;
            Self { low: avx2._mm256_and_si256(self.low, other.low), high: avx2._mm256_and_si256(self.high, other.high), ..self }
        }
    }

    impl BitOr for Halves {
        type Output = Self;

        #[inline(always)]
        fn bitor(self, other: Self) -> Self {
            let avx2 = self.simd.avx2;
            Self { low: avx2._mm256_or_si256(self.low, other.low), high: avx2._mm256_or_si256(self.high, other.high), ..self }
        }
    }

    impl Block for Halves {
        #[inline(always)]
        fn equal(self, byte: u8) -> Self {
            let (avx2, byte) = (self.simd.avx2, self.simd.avx._mm256_set1_epi8(byte as i8));
            Self { low: avx2._mm256_cmpeq_epi8(self.low, byte), high: avx2._mm256_cmpeq_epi8(self.high, byte), ..self }
        }

        #[inline(always)]
        fn any_of(self, set: &Set) -> Self {
            let (avx2, by_half) = (self.simd.avx2, cast::<_, __m256i>([set.by_half; 2]));
            Self {
                low: avx2._mm256_cmpeq_epi8(self.low, avx2._mm256_shuffle_epi8(by_half, self.low)),
                high: avx2._mm256_cmpeq_epi8(self.high, avx2._mm256_shuffle_epi8(by_half, self.high)),
                ..self
            }
        }

        #[inline(always)]
        fn above(self, byte: u8) -> Self {
            let (avx2, byte) = (self.simd.avx2, self.simd.avx._mm256_set1_epi8(byte as i8));
            Self { low: avx2._mm256_cmpgt_epi8(self.low, byte), high: avx2._mm256_cmpgt_epi8(self.high, byte), ..self }
        }

        #[inline(always)]
        fn below(self, byte: u8) -> Self {
            let (avx2, byte) = (self.simd.avx2, self.simd.avx._mm256_set1_epi8(byte as i8));
            Self { low: avx2._mm256_cmpgt_epi8(byte, self.low), high: avx2._mm256_cmpgt_epi8(byte, self.high), ..self }
        }

        #[inline(always)]
        fn lower(self) -> Self {
            let (avx2, bit) = (self.simd.avx2, self.simd.avx._mm256_set1_epi8(0x20));
            Self { low: avx2._mm256_or_si256(self.low, bit), high: avx2._mm256_or_si256(self.high, bit), ..self }
        }

        #[inline(always)]
        fn bits(self) -> u64 {
            let avx2 = self.simd.avx2;
            let (low, high) = (avx2._mm256_movemask_epi8(self.low), avx2._mm256_movemask_epi8(self.high));
            u64::from(low as u32) | u64::from(high as u32) << 32
        }
    }
}
