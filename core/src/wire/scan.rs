//! Finds bytes eight at a time.
//!
//! What a caller looks for is built of the small functions here: each answers with the top bit of bytes of a word. The lowest one
//! that it sets is the first byte that it means; of those behind that it may set more than it should, which nobody looks at.

const ONES: u64 = u64::from_be_bytes([0x01; 8]);
const TOPS: u64 = u64::from_be_bytes([0x80; 8]);

/// Bytes below `limit`, which is 0x80 at most. What a subtraction borrows, it borrows from bytes behind one that is meant.
#[inline(always)]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(limit)) & !word & TOPS
}

#[inline(always)]
pub(super) fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

#[inline(always)]
pub(super) fn control(word: u64) -> u64 {
    below(word, 0x20)
}

#[inline(always)]
pub(super) fn non_ascii(word: u64) -> u64 {
    word & TOPS
}

/// Index of the first byte of the word that `look` answers to, or 8.
#[inline(always)]
pub(super) fn first(word: &[u8; 8], look: impl Fn(u64) -> u64) -> usize {
    // The first byte the lowest.
    look(u64::from_be_bytes(*word).swap_bytes()).trailing_zeros() as usize / 8
}

/// Index of the first byte that `look` answers to, or the length. It must not answer to spaces.
#[inline(always)]
pub(super) fn find(bytes: &[u8], look: impl Fn(u64) -> u64) -> usize {
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let found = first(word, &look);
        if found < 8 {
            return at + found;
        }
        at += 8;
    }
    if at == bytes.len() {
        return at;
    }
    if let Some(last) = bytes.last_chunk::<8>() {
        // With bytes before it again, in which nothing was found.
        return bytes.len() - 8 + first(last, look);
    }
    let mut padded = [b' '; 8];
    for (to, from) in padded.iter_mut().zip(bytes) {
        *to = *from;
    }
    bytes.len().min(first(&padded, look))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_scan_finds_the_first_of_what_it_looks_for(bytes in prop::collection::vec(prop::sample::select(b"a\x1f\x00\"!#/\\]\x7f\x80\xff z".to_vec()), 0..40)) {
            let first = |wanted: fn(u8) -> bool| bytes.iter().position(|&b| wanted(b)).unwrap_or(bytes.len());
            prop_assert_eq!(find(&bytes, control), first(|b| b < 0x20));
            prop_assert_eq!(find(&bytes, non_ascii), first(|b| b >= 0x80));
            prop_assert_eq!(find(&bytes, |word| equal(word, b'"')), first(|b| b == b'"'));
            prop_assert_eq!(find(&bytes, |word| equal(word, 0xff)), first(|b| b == 0xff));
        }
    }
}
