//! Finds bytes eight at a time.
//!
//! What a caller looks for is put together from the small functions here: each answers with the top bit of every byte of
//! a word that it means.

const ONES: u64 = u64::from_be_bytes([0x01; 8]);
const TOPS: u64 = u64::from_be_bytes([0x80; 8]);

fn zero(word: u64) -> u64 {
    // No byte carries into the next: 0x7f + 0x7f fits.
    !(((word & !TOPS) + !TOPS) | word) & TOPS
}

pub(super) fn equal(word: u64, byte: u8) -> u64 {
    zero(word ^ (ONES * u64::from(byte)))
}

pub(super) fn control(word: u64) -> u64 {
    zero(word & (ONES * 0xe0))
}

pub(super) fn non_ascii(word: u64) -> u64 {
    word & TOPS
}

/// Index of the first byte of the word that `look` answers to, or 8.
#[inline]
pub(super) fn first(word: &[u8; 8], look: impl Fn(u64) -> u64) -> usize {
    look(u64::from_be_bytes(*word)).leading_zeros() as usize / 8
}

/// Index of the first byte that `look` answers to, or the length. It must not answer to spaces.
#[inline(always)]
pub(super) fn find(bytes: &[u8], look: impl Fn(u64) -> u64) -> usize {
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    for (i, word) in words.enumerate() {
        let found = look(u64::from_be_bytes(word.try_into().expect("eight bytes")));
        if found != 0 {
            return 8 * i + found.leading_zeros() as usize / 8;
        }
    }
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    let found = look(u64::from_be_bytes(last));
    bytes.len() - rest.len() + rest.len().min(found.leading_zeros() as usize / 8)
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
