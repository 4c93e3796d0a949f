//! Checks JSON 64 bytes at a time: what a byte is, and whether it may stand where it does, is decided for all of a block at once,
//! with one bit for each byte.
//!
//! Owns the grammar for long texts; [`super`] owns what is made of them, and reads short ones by itself. The work for a byte is the same
//! whatever the text.

use super::brackets::{Brackets, Stack};
use super::vectors::{self, BLOCK, Block, Processor, Set, Task};

const SPACES: Set = Set::of(b" \t\n\r");

/// What stands behind a backslash, but for `"`, `r` and `u`.
const ESCAPES: Set = Set::of(b"\\/bfnt");

/// The bits behind those of `mask`; `carry` has the one of the block before, and then that for the next.
#[inline(always)]
fn follow(mask: u64, carry: &mut u64) -> u64 {
    let after = mask << 1 | *carry;
    *carry = mask >> 63;
    after
}

/// Where the bits of `from` come out, when they run on through `through`.
#[inline(always)]
fn run(from: u64, through: u64, carry: &mut u64) -> u64 {
    let (sum, first) = from.overflowing_add(through);
    let (sum, second) = sum.overflowing_add(*carry);
    *carry = u64::from(first | second);
    sum & !through
}

/// What comes behind each of `mask`, spaces in between or not.
#[inline(always)]
fn next(mask: u64, space: u64, carry: &mut u64) -> u64 {
    let found = run(mask << 1, space, carry);
    *carry |= mask >> 63;
    found
}

/// Bits `by` places further; `before` is the mask of the block before.
#[inline(always)]
fn shift(mask: u64, before: u64, by: u32) -> u64 {
    mask << by | before >> (64 - by)
}

/// Escapes of a string.
#[derive(Default)]
struct Escapes {
    /// The first byte of the next block is escaped.
    is_open: u64,
    /// Of the block before: the `u` of each escape of a code unit, and the third letter behind `\u` of those that begin a pair.
    unit: u64,
    high: u64,
    /// Hexadecimal digits that are still due at the start of the block, and so on.
    digit_d: u64,
}

impl Escapes {
    /// Which bytes are escaped.
    #[inline(always)]
    fn look(&mut self, block: impl Block, backslash: u64, bad: &mut u64) -> u64 {
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        if backslash | self.is_open | self.unit | self.high == 0 {
            return 0;
        }
        // A run of backslashes escapes every second byte, which a subtraction finds for all runs together.
        let opening = backslash & !self.is_open;
        let carried = (opening << 1 | ODD).wrapping_sub(opening) ^ ODD;
        let escaped = carried ^ (backslash | self.is_open);
        self.is_open = (carried & backslash) >> 63;
        let unit = escaped & block.equal(b'u').bits();
        let short = (block.any_of(&ESCAPES) | block.equal(b'"') | block.equal(b'r')).bits();
        *bad |= escaped & !(short | unit);
        if unit | self.unit | self.high != 0 {
            self.units(block, unit, bad);
        }
        escaped
    }

    /// A pair was begun in the block that ends the text, and there was no room in it to see that nothing follows.
    #[inline(always)]
    fn is_half_a_pair(&self) -> bool {
        self.high >> (64 - 6) != 0
    }

    /// `unit` has the `u` of each escaped code unit: four digits follow, and what begins a pair is followed by what ends one.
    #[inline(always)]
    fn units(&mut self, block: impl Block, unit: u64, bad: &mut u64) {
        let hex = (block.between(b'0', b'9') | block.lower().between(b'a', b'f')).bits();
        let [first, second, third, fourth] = [1, 2, 3, 4].map(|by| shift(unit, self.unit, by));
        *bad |= (first | second | third | fourth) & !hex;
        let d = block.lower().equal(b'd').bits();
        // The letter behind a `d` in first place; it may be in the block before.
        let after_d = (first & d) << 1 | self.digit_d;
        self.digit_d = (first & d) >> 63;
        let surrogate = after_d & (block.lower().between(b'a', b'f') | block.between(b'8', b'9')).bits();
        let low = surrogate & block.lower().between(b'c', b'f').bits();
        let high = surrogate & !low;
        // `\ud83d\ude00`: from letter to letter there are six.
        *bad |= low ^ shift(high, self.high, 6);
        self.high = high;
        self.unit = unit;
    }
}

/// Numbers, and the words `true`, `false` and `null`.
#[derive(Default)]
struct Scalars {
    any: u64,
    digit: u64,
    dot: u64,
    exponent: u64,
    sign: u64,
    minus: u64,
    zero: u64,
    fraction: u64,
    power: u64,
    /// Of the block before: where `true`, `false` and `null` began.
    words: [u64; 3],
}

impl Scalars {
    #[inline(always)]
    fn look(&mut self, block: impl Block, scalar: u64, starts: u64, bad: &mut u64) {
        if scalar | self.any == 0 {
            return;
        }
        let digit = block.between(b'0', b'9').bits() & scalar;
        let rest = scalar & !digit;
        let (mut dot, mut exponent, mut sign, mut minus) = (0, 0, 0, 0);
        if rest != 0 {
            dot = block.equal(b'.').bits() & rest;
            minus = block.equal(b'-').bits() & rest;
            sign = minus | block.equal(b'+').bits() & rest;
            exponent = block.lower().equal(b'e').bits() & rest;
        }
        let letter = rest & !(dot | sign | exponent);
        if letter | self.words[0] | self.words[1] | self.words[2] != 0 {
            exponent &= !self.words(block, scalar, starts, letter, bad);
        }
        let after_digit = follow(digit, &mut self.digit);
        let after_dot = follow(dot, &mut self.dot);
        let after_exponent = follow(exponent, &mut self.exponent);
        let after_sign = follow(sign, &mut self.sign);
        let after_minus = follow(minus & starts, &mut self.minus);
        let after_zero = follow(block.equal(b'0').bits() & digit & (starts | after_minus), &mut self.zero);
        *bad |= (dot | exponent) & !after_digit | after_dot & !digit | after_exponent & !(digit | sign);
        *bad |= sign & !(after_exponent | minus & starts) | after_sign & !digit | after_zero & digit;
        // One fraction, and one power.
        *bad |= run(after_dot & digit, digit, &mut self.fraction) & dot;
        *bad |= run((after_exponent | after_sign & !after_minus) & digit, digit, &mut self.power) & (dot | exponent);
        self.any = scalar >> 63;
    }

    /// Each letter that there is must be one that some word wants there. Returns each `e` of a word.
    #[inline(always)]
    fn words(&mut self, block: impl Block, scalar: u64, starts: u64, letter: u64, bad: &mut u64) -> u64 {
        let (r, u, a) = (block.equal(b'r').bits() & letter, block.equal(b'u').bits() & letter, block.equal(b'a').bits() & letter);
        let (l, s) = (block.equal(b'l').bits() & letter, block.equal(b's').bits() & letter);
        let (t, f, n) = (block.equal(b't').bits() & letter, block.equal(b'f').bits() & letter, block.equal(b'n').bits() & letter);
        *bad |= letter & !(r | u | a | l | s | t | f | n) | (t | f | n) & !starts;
        let at = |by: u32| [shift(t, self.words[0], by), shift(f, self.words[1], by), shift(n, self.words[2], by)];
        let ([t1, f1, n1], [t2, f2, n2], [t3, f3, n3], [_, f4, _]) = (at(1), at(2), at(3), at(4));
        let e = t3 | f4;
        *bad |= (r ^ t1) | (u ^ (t2 | n1)) | (a ^ f1) | (l ^ (f2 | n2 | n3)) | (s ^ f3);
        *bad |= e & !block.equal(b'e').bits();
        let [[t4, _, n4], [_, f5, _]] = [at(4), at(5)];
        *bad |= (t4 | f5 | n4) & scalar;
        self.words = [t, f, n];
        e
    }
}

/// Where the wanted members of a top-level object have their values, spaces around them included: the last one of each.
pub(super) type Found<const N: usize> = [Option<(usize, usize)>; N];

/// Checks a text whose first byte is the `[` or `{` that all others stand in. `which` says which of the wanted members the inside of a
/// key names, none of which has fewer bytes than `shortest`. `None` where the text is not JSON.
pub(super) fn check<const N: usize>(text: &[u8], shortest: usize, which: impl Fn(&[u8]) -> Option<usize>) -> Option<Found<N>> {
    match text.first()? {
        b'[' => vectors::run(Check::<false, N, _> { text, shortest, which }),
        b'{' => vectors::run(Check::<true, N, _> { text, shortest, which }),
        _ => None,
    }
}

/// The same, as a processor does it that has nothing special.
#[cfg(test)]
pub(super) fn check_plainly<const N: usize>(text: &[u8], shortest: usize, which: impl Fn(&[u8]) -> Option<usize>) -> Option<Found<N>> {
    match text.first()? {
        b'[' => Check::<false, N, _> { text, shortest, which }.run(vectors::AnyProcessor),
        b'{' => Check::<true, N, _> { text, shortest, which }.run(vectors::AnyProcessor),
        _ => None,
    }
}

struct Check<'a, const OBJECT: bool, const N: usize, W> {
    text: &'a [u8],
    shortest: usize,
    which: W,
}

impl<const OBJECT: bool, const N: usize, W: Fn(&[u8]) -> Option<usize>> Task for Check<'_, OBJECT, N, W> {
    type Output = Option<Found<N>>;

    #[inline(always)]
    fn run<P: Processor>(self, processor: P) -> Self::Output {
        let Self { text, shortest, which } = self;
        let mut stack = Stack::new(OBJECT);
        let (mut escapes, mut scalars) = (Escapes::default(), Scalars::default());
        let mut in_string = 0;
        let mut scalar_before = 0;
        // What the first byte behind the first bracket follows.
        let (mut value_due, mut opened, mut ended, mut comma_before) = (u64::from(!OBJECT), 1, 0, 0);
        let (mut first_key, mut later_key) = (0, 0);
        let mut keys = Keys::<N>::default();
        let mut padded = [b' '; BLOCK];
        let mut at = 1;
        while at < text.len() {
            let bytes = match text[at..].first_chunk::<BLOCK>() {
                Some(bytes) => bytes,
                None => {
                    padded[..text.len() - at].copy_from_slice(&text[at..]);
                    &padded
                }
            };
            let block = processor.load(bytes);
            let mut bad = 0;

            // What is inside of strings.
            let backslash = block.equal(b'\\').bits();
            let escaped = escapes.look(block, backslash, &mut bad);
            let quote = block.equal(b'"').bits() & !escaped;
            // From each opening quote up to before the closing one.
            let string = running_xor(quote) ^ in_string;
            in_string = 0u64.wrapping_sub(string >> 63);
            let control = block.below(0x20).bits() & !block.bits();
            bad |= control & string | backslash & !string;
            let inside = string | quote;

            // What is outside.
            let space = block.any_of(&SPACES).bits() & !inside;
            let open = block.lower().equal(b'{').bits() & !inside;
            let close = block.lower().equal(b'}').bits() & !inside;
            let curly = (block.equal(b'{') | block.equal(b'}')).bits();
            let comma = block.equal(b',').bits() & !inside;
            let colon = block.equal(b':').bits() & !inside;
            let scalar = !(inside | open | close | comma | colon | space);
            let after_scalar = follow(scalar, &mut scalar_before);
            let starts = scalar & !after_scalar;
            scalars.look(block, scalar, starts, &mut bad);

            // What may follow what.
            let text_starts = quote & string;
            let after_value_due = next(open & !curly | comma | colon, space, &mut value_due);
            let after_open = next(open, space, &mut opened);
            let after_value = {
                let ends = quote & !string | close;
                let found = run(ends << 1 | after_scalar & !scalar, space, &mut ended);
                ended |= ends >> 63;
                found
            };
            let after_comma = next(comma, space, &mut comma_before);
            let after_curly = after_open & !after_value_due;
            bad |= close & !(after_value | after_open) | comma & !after_value;
            bad |= (starts | open) & !after_value_due | text_starts & !(after_value_due | after_curly);
            // Behind the first string of an object comes a colon, and colons come nowhere but there and behind a string that follows a comma.
            let through = inside | space;
            let behind_first = run(after_curly & text_starts, through, &mut first_key);
            let behind_later = run(after_comma & text_starts, through, &mut later_key);
            bad |= behind_first & !colon | colon & !(behind_first | behind_later);
            if bad != 0 {
                return None;
            }
            // What must stand in an object, and what in an array.
            let of_object = behind_later & colon;
            let of_array = behind_later & !colon | after_comma & (starts | open);
            let depth = stack.depth();
            let brackets = Brackets { open, close, curly };
            let walked = if of_array | of_object == 0 { stack.walk::<false>(brackets)? } else { stack.walk::<true>(brackets)? };
            if of_array & walked.in_object | of_object & !walked.in_object != 0 {
                return None;
            }
            if OBJECT {
                // Mostly all brackets of a block are pairs: then one mask says what is on the top level.
                let top = walked.level.map_or(u64::MAX, |level| if depth == 1 { level } else { 0 });
                let names = colon & top & keys.behind_long(quote & !string, text_starts, space, shortest);
                if keys.pending.is_some() | (names != 0) {
                    let (ends, is_level) = ((comma | close) & top, walked.level.is_some());
                    let block = Structure { at, depth, open, close, ends, text_starts, is_level };
                    keys.look(text, &block, names, &which);
                }
                if text_starts != 0 {
                    keys.string_at = at + 63 - text_starts.leading_zeros() as usize;
                }
            }
            if let Some(end) = walked.end {
                if escapes.is_half_a_pair() {
                    return None;
                }
                let rest = &text[at + end as usize + 1..];
                return rest.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).then_some(keys.found);
            }
            at += BLOCK;
        }
        // What was opened was not closed.
        None
    }
}

/// Each bit says whether the number of bits up to it, its own included, is odd.
#[inline(always)]
fn running_xor(mut bits: u64) -> u64 {
    for by in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << by;
    }
    bits
}

/// What a block has outside of strings.
struct Structure {
    at: usize,
    /// Of its first byte.
    depth: usize,
    open: u64,
    close: u64,
    /// What may end a value.
    ends: u64,
    text_starts: u64,
    /// What may end a value, or is behind a key, is on the top level.
    is_level: bool,
}

impl Structure {
    #[inline(always)]
    fn is_on_top(&self, bit: u64) -> bool {
        self.is_level || self.depth_at(bit) == 1
    }

    /// How many brackets are open in front of the byte with this bit.
    #[inline(always)]
    fn depth_at(&self, bit: u64) -> usize {
        let before = |bits: u64| (bits & (bit - 1)).count_ones() as usize;
        self.depth + before(self.open) - before(self.close)
    }
}

/// The members of a top-level object that are wanted.
struct Keys<const N: usize> {
    /// Where the last string began.
    string_at: usize,
    /// The opening quotes of the block before.
    started: u64,
    /// The next byte but spaces follows a string that is long enough.
    named: u64,
    /// The one whose value has not ended yet.
    pending: Option<usize>,
    found: Found<N>,
}

impl<const N: usize> Default for Keys<N> {
    fn default() -> Self {
        Self { string_at: 0, started: 0, named: 0, pending: None, found: [None; N] }
    }
}

impl<const N: usize> Keys<N> {
    /// What comes behind strings of at least `shortest` bytes, and behind some that are shorter.
    #[inline(always)]
    fn behind_long(&mut self, text_ends: u64, text_starts: u64, space: u64, shortest: usize) -> u64 {
        let before = std::mem::replace(&mut self.started, text_starts);
        // An opening quote so near in front.
        let one = shift(text_starts, before, 1);
        let two = one | shift(text_starts, before, 2);
        let four = two | two << 2 | shift(text_starts, before, 3) | shift(text_starts, before, 4);
        let seven = four | four << 3 | before >> 57;
        let near = if shortest < 2 {
            0
        } else if shortest < 4 {
            two
        } else if shortest < 7 {
            four
        } else {
            seven
        };
        next(text_ends & !near, space, &mut self.named)
    }

    /// `names` has the colons behind keys that may be wanted.
    #[inline(always)]
    fn look(&mut self, text: &[u8], block: &Structure, mut names: u64, which: &impl Fn(&[u8]) -> Option<usize>) {
        let mut from = self.end(block, 0);
        while names != 0 {
            let bit = names & names.wrapping_neg();
            names ^= bit;
            let at = bit.trailing_zeros();
            if at < from {
                continue;
            }
            let colon = block.at + at as usize;
            let before = block.text_starts & (bit - 1);
            let start = if before == 0 { self.string_at } else { block.at + 63 - before.leading_zeros() as usize };
            let key = text[start + 1..colon].trim_ascii_end();
            if let Some(wanted) = key.split_last().and_then(|(_, inside)| which(inside))
                && block.is_on_top(bit)
            {
                self.found[wanted] = Some((colon + 1, colon + 1));
                self.pending = Some(wanted);
                from = self.end(block, at);
            }
        }
    }

    /// Ends the value that is not ended, where it ends in this block, behind `from`: at the first comma or closing bracket of the top level.
    #[inline(always)]
    fn end(&mut self, block: &Structure, from: u32) -> u32 {
        let Some(pending) = self.pending else { return 0 };
        let closes = block.close.count_ones() as usize;
        let mut ends = block.ends & u64::MAX << from;
        while ends != 0 && block.depth - block.depth.min(closes) <= 1 {
            let bit = ends & ends.wrapping_neg();
            ends ^= bit;
            if block.is_on_top(bit) {
                let at = bit.trailing_zeros();
                if let Some(found) = &mut self.found[pending] {
                    found.1 = block.at + at as usize;
                }
                self.pending = None;
                return at;
            }
        }
        64
    }
}
