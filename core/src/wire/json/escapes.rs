//! What the escapes of a string stand for.
//!
//! Owns their table, and how long texts are rid of them: each block keeps the bytes that count, whatever they are mixed with.

use super::vectors::{self, BLOCK, Block, LONG, Processor, Set, Task};
use crate::wire::scan;

/// The character that the escape at the front stands for, and the escape's length.
pub(super) fn escape(text: &[u8]) -> Option<(char, usize)> {
    match SHORT[usize::from(*text.get(1)?)] {
        0 if text[1] == b'u' => unicode_escape(text),
        0 => None,
        short => Some((char::from(short), 2)),
    }
}

/// What a byte stands for behind a backslash; 0 where it may not be there alone.
static SHORT: [u8; 256] = {
    let mut short = [0; 256];
    let pairs = *b"\"\"\\\\//b\x08f\x0cn\nr\rt\t";
    let mut i = 0;
    while i < pairs.len() {
        short[pairs[i] as usize] = pairs[i + 1];
        i += 2;
    }
    short
};

#[inline(always)]
fn unicode_escape(text: &[u8]) -> Option<(char, usize)> {
    let first = code_unit(text)?;
    if let Some(c) = char::from_u32(first) {
        return Some((c, 6));
    }
    let second = code_unit(&text[6..])?;
    if first >= 0xdc00 || !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).map(|c| (c, 12))
}

/// What a hexadecimal digit stands for; 16 for all other bytes.
static DIGITS: [u8; 256] = {
    let mut digits = [16; 256];
    let mut i = 0;
    while i < 16 {
        let digit = b"0123456789abcdef"[i];
        digits[digit as usize] = i as u8;
        digits[digit.to_ascii_uppercase() as usize] = i as u8;
        i += 1;
    }
    digits
};

#[inline(always)]
fn code_unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.first_chunk::<4>()?.map(|digit| DIGITS[usize::from(digit)]);
    let [a, b, c, d] = digits.map(u32::from);
    ((a | b | c | d) < 16).then_some(a << 12 | b << 8 | c << 4 | d)
}

pub(super) fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut out = vec![0; raw.len() + 8];
    let len = unescape_into(raw, &mut out);
    out.truncate(len);
    out
}

/// Returns how many bytes it made. There must be room for 8 more than `raw` has: no escape is shorter than what it stands for, and words
/// are copied whole, whatever part of them counts.
pub(super) fn unescape_into(raw: &[u8], out: &mut [u8]) -> usize {
    let (mut from, mut to) = if raw.len() < LONG { (0, 0) } else { vectors::run(Unescape { raw, out: &mut *out }) };
    while let Some(word) = raw[from..].first_chunk::<8>() {
        out[to..to + 8].copy_from_slice(word);
        let plain = scan::first(word, |word| scan::equal(word, b'\\'));
        (from, to) = (from + plain, to + plain);
        if plain < 8 {
            let Some(taken) = unescape_one(&raw[from..], out, &mut to) else { break };
            from += taken;
        }
    }
    while let Some(&byte) = raw.get(from) {
        if byte == b'\\' {
            let Some(taken) = unescape_one(&raw[from..], out, &mut to) else { break };
            from += taken;
        } else {
            out[to] = byte;
            (from, to) = (from + 1, to + 1);
        }
    }
    to
}

/// Writes what the escape at the front stands for, and returns the escape's length.
#[inline]
fn unescape_one(text: &[u8], out: &mut [u8], to: &mut usize) -> Option<usize> {
    let short = SHORT[usize::from(*text.get(1)?)];
    if short != 0 {
        out[*to] = short;
        *to += 1;
        return Some(2);
    }
    let (c, taken) = escape(text)?;
    *to += c.encode_utf8(&mut out[*to..]).len();
    Some(taken)
}

/// Behind a backslash they stand for another byte, and so does `r`.
const LETTERS: Set = Set::of(b"bfnt");

/// Returns how much it has read, and how much it made of that: all but the last few bytes.
struct Unescape<'a> {
    raw: &'a [u8],
    out: &'a mut [u8],
}

impl Task for Unescape<'_> {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<P: Processor>(self, processor: P) -> (usize, usize) {
        let Self { raw, out } = self;
        let (mut from, mut to) = (0, 0);
        while let Some(bytes) = raw[from..].first_chunk::<BLOCK>() {
            let block = processor.load(bytes);
            let backslash = block.equal(b'\\').bits();
            if backslash == 0 {
                out[to..to + BLOCK].copy_from_slice(bytes);
                (from, to) = (from + BLOCK, to + BLOCK);
                continue;
            }
            let escaped = escaped(backslash);
            let starts = backslash & !escaped;
            // An escape that is not all here is read with the next block.
            let mut end = BLOCK - (starts >> 63) as usize;
            let mut keep = !starts;
            let mut bytes = *bytes;
            let mut letters = escaped & (block.any_of(&LETTERS) | block.equal(b'r')).bits();
            while letters != 0 {
                let letter = &mut bytes[letters.trailing_zeros() as usize];
                *letter = SHORT[usize::from(*letter)];
                letters &= letters - 1;
            }
            let mut units = escaped & block.equal(b'u').bits();
            while units != 0 {
                let start = units.trailing_zeros() as usize - 1;
                let Some((c, taken)) = unicode_escape(&raw[from + start..]) else { return (from, to) };
                if start + taken > BLOCK {
                    end = start;
                    break;
                }
                let len = c.encode_utf8(&mut bytes[start..]).len();
                let first = |count: usize| (1u64 << count) - 1;
                keep = keep & !(first(taken) << start) | first(len) << start;
                units &= !(first(taken) << start);
            }
            keep &= u64::MAX >> (BLOCK - end);
            for n in 0..BLOCK / 8 {
                let word = *bytes[8 * n..].first_chunk().expect("a block has eight");
                let bits = (keep >> (8 * n)) as u8;
                out[to..to + 8].copy_from_slice(&processor.compress(word, bits));
                to += bits.count_ones() as usize;
            }
            from += end;
        }
        (from, to)
    }
}

/// Which bytes follow a backslash that is not escaped itself: a run of backslashes escapes every second byte, which a subtraction finds for
/// all runs together.
#[inline(always)]
pub(super) fn escaped(backslash: u64) -> u64 {
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    (backslash << 1 | ODD).wrapping_sub(backslash) ^ ODD ^ backslash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Escape by escape.
    fn naive(raw: &[u8]) -> Vec<u8> {
        let (mut made, mut rest) = (Vec::new(), raw);
        while let Some(&byte) = rest.first() {
            let taken = match byte {
                b'\\' => {
                    let (c, taken) = escape(rest).unwrap();
                    made.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    taken
                }
                _ => {
                    made.push(byte);
                    1
                }
            };
            rest = &rest[taken..];
        }
        made
    }

    struct Compressed([u8; 8], u8);

    impl Task for Compressed {
        type Output = [u8; 8];

        fn run<P: Processor>(self, processor: P) -> [u8; 8] {
            processor.compress(self.0, self.1)
        }
    }

    #[test]
    fn long_texts_lose_their_escapes_as_short_ones_do_wherever_a_block_ends() {
        let parts = [
            "a",
            "bc",
            "é",
            "\\\\",
            "\\\"",
            "\\n",
            "\\r",
            "\\/",
            "\\b",
            "\\u0041",
            "\\u00e9",
            "\\u20AC",
            "\\ud83d\\ude00",
            "u",
            "0123456789 plain text 0123456789",
        ];
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..4_000 {
            let few = &parts[random.usize(..parts.len())..];
            let mut raw = String::new();
            while raw.len() < LONG + round % 200 {
                raw.push_str(random.choice(few).unwrap());
            }
            let raw = raw.as_bytes();
            let expected = naive(raw);
            assert!(unescape(raw) == expected, "{}", String::from_utf8_lossy(raw));
            let mut out = vec![0; raw.len() + 8];
            let (from, to) = Unescape { raw, out: &mut out }.run(vectors::AnyProcessor);
            assert!(out[..to] == expected[..to] && naive(&raw[..from]) == out[..to] && raw.len() - from < BLOCK + 12);
        }
    }

    #[test]
    fn what_is_chosen_of_eight_bytes_stands_at_the_front() {
        for bits in 0..=u8::MAX {
            let chosen: Vec<u8> = (1..=8).filter(|n| bits >> (n - 1) & 1 == 1).collect();
            for made in [
                vectors::run(Compressed([1, 2, 3, 4, 5, 6, 7, 8], bits)),
                Compressed([1, 2, 3, 4, 5, 6, 7, 8], bits).run(vectors::AnyProcessor),
            ] {
                assert_eq!(made[..chosen.len()], chosen);
            }
        }
    }
}
