//! Checks JSON 64 bytes at a time: what a byte is, and whether it may stand where it does, is decided for all of a block at once,
//! with one bit for each byte.
//!
//! Owns the grammar for long texts; [`super`] owns what is made of them, and reads short ones by itself. Only brackets are looked at one run at
//! a time, and only where they do not close at once: they need a stack, of one bit each. The work for a byte is the same whatever the text.

use wide::{CmpEq, CmpGt, CmpLt, i8x16};

/// How many bytes there are in a block.
const BLOCK: usize = 64;

/// How many arrays and objects may be open at once: a power of two less one, so that one bit tells.
const MAX_NESTING: usize = 511;

/// From here on a block could open too many.
const DEEP: usize = MAX_NESTING - BLOCK;

#[derive(Copy, Clone)]
struct Block([i8x16; 4]);

impl Block {
    #[inline(always)]
    fn new(bytes: &[u8; BLOCK]) -> Self {
        let lane = |n: usize| i8x16::from(std::array::from_fn::<i8, 16, _>(|i| bytes[16 * n + i] as i8));
        Self([lane(0), lane(1), lane(2), lane(3)])
    }

    /// One bit for each byte, the first byte's the lowest.
    #[inline(always)]
    fn mask(self, look: impl Fn(i8x16) -> i8x16) -> u64 {
        let [a, b, c, d] = self.0.map(|lane| u64::from(look(lane).move_mask() as u16));
        a | b << 16 | c << 32 | d << 48
    }

    #[inline(always)]
    fn equal(self, byte: u8) -> u64 {
        self.mask(|lane| equal(lane, byte))
    }
}

#[inline(always)]
fn equal(lane: i8x16, byte: u8) -> i8x16 {
    lane.cmp_eq(i8x16::splat(byte as i8))
}

/// Letters in lower case; `[` and `]` become `{` and `}`.
#[inline(always)]
fn lower(lane: i8x16) -> i8x16 {
    lane | i8x16::splat(0x20)
}

/// Bytes of ASCII from `first` to `last`.
#[inline(always)]
fn between(lane: i8x16, first: u8, last: u8) -> i8x16 {
    lane.cmp_gt(i8x16::splat(first as i8 - 1)) & lane.cmp_lt(i8x16::splat(last as i8 + 1))
}

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
    fn look(&mut self, block: Block, backslash: u64, bad: &mut u64) -> u64 {
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        if backslash | self.is_open | self.unit | self.high == 0 {
            return 0;
        }
        // A run of backslashes escapes every second byte, which a subtraction finds for all runs together.
        let opening = backslash & !self.is_open;
        let carried = (opening << 1 | ODD).wrapping_sub(opening) ^ ODD;
        let escaped = carried ^ (backslash | self.is_open);
        self.is_open = (carried & backslash) >> 63;
        let unit = escaped & block.equal(b'u');
        let short = block.mask(|lane| {
            (equal(lane, b'"') | equal(lane, b'\\') | equal(lane, b'/') | equal(lane, b'b'))
                | (equal(lane, b'f') | equal(lane, b'n') | equal(lane, b'r') | equal(lane, b't'))
        });
        *bad |= escaped & !(short | unit);
        if unit | self.unit | self.high != 0 {
            self.units(block, unit, bad);
        }
        escaped
    }

    /// `unit` has the `u` of each escaped code unit: four digits follow, and what begins a pair is followed by what ends one.
    #[inline(always)]
    fn units(&mut self, block: Block, unit: u64, bad: &mut u64) {
        let hex = block.mask(|lane| between(lane, b'0', b'9') | between(lower(lane), b'a', b'f'));
        let [first, second, third, fourth] = [1, 2, 3, 4].map(|by| shift(unit, self.unit, by));
        *bad |= (first | second | third | fourth) & !hex;
        let d = block.mask(|lane| equal(lower(lane), b'd'));
        // The letter behind a `d` in first place; it may be in the block before.
        let after_d = (first & d) << 1 | self.digit_d;
        self.digit_d = (first & d) >> 63;
        let surrogate = after_d & block.mask(|lane| between(lower(lane), b'a', b'f') | between(lane, b'8', b'9'));
        let low = surrogate & block.mask(|lane| between(lower(lane), b'c', b'f'));
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
    fn look(&mut self, block: Block, scalar: u64, starts: u64, bad: &mut u64) {
        if scalar | self.any == 0 {
            return;
        }
        let digit = block.mask(|lane| between(lane, b'0', b'9')) & scalar;
        let rest = scalar & !digit;
        let (mut dot, mut exponent, mut sign, mut minus) = (0, 0, 0, 0);
        if rest != 0 {
            dot = block.equal(b'.') & rest;
            minus = block.equal(b'-') & rest;
            sign = minus | block.equal(b'+') & rest;
            exponent = block.mask(|lane| equal(lower(lane), b'e')) & rest;
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
        let after_zero = follow(block.equal(b'0') & digit & (starts | after_minus), &mut self.zero);
        *bad |= (dot | exponent) & !after_digit | after_dot & !digit | after_exponent & !(digit | sign);
        *bad |= sign & !(after_exponent | minus & starts) | after_sign & !digit | after_zero & digit;
        // One fraction, and one power.
        *bad |= run(after_dot & digit, digit, &mut self.fraction) & dot;
        *bad |= run((after_exponent | after_sign & !after_minus) & digit, digit, &mut self.power) & (dot | exponent);
        self.any = scalar >> 63;
    }

    /// Each letter that there is must be one that some word wants there. Returns each `e` of a word.
    #[inline(always)]
    fn words(&mut self, block: Block, scalar: u64, starts: u64, letter: u64, bad: &mut u64) -> u64 {
        let [r, u, a, l, s] = [b'r', b'u', b'a', b'l', b's'].map(|byte| block.equal(byte) & letter);
        let [t, f, n] = [b't', b'f', b'n'].map(|byte| block.equal(byte) & letter);
        *bad |= letter & !(r | u | a | l | s | t | f | n) | (t | f | n) & !starts;
        let at = |by: u32| [shift(t, self.words[0], by), shift(f, self.words[1], by), shift(n, self.words[2], by)];
        let ([t1, f1, n1], [t2, f2, n2], [t3, f3, n3], [_, f4, _]) = (at(1), at(2), at(3), at(4));
        let e = t3 | f4;
        *bad |= (r ^ t1) | (u ^ (t2 | n1)) | (a ^ f1) | (l ^ (f2 | n2 | n3)) | (s ^ f3);
        *bad |= e & !block.equal(b'e');
        let [[t4, _, n4], [_, f5, _]] = [at(4), at(5)];
        *bad |= (t4 | f5 | n4) & scalar;
        self.words = [t, f, n];
        e
    }
}

/// Which brackets are open: for each one bit, set where it is curly.
struct Stack {
    /// That of level `n` is bit `LEVELS - n`, so that the top of the stack is at the low end of what [`Stack::top`] returns.
    bits: [u64; 11],
}

impl Stack {
    const LEVELS: usize = 9 * 64;

    /// The types of level `depth` and of the 63 below it, from the lowest bit up.
    #[inline(always)]
    fn top(&self, depth: usize) -> u64 {
        let (word, bit) = Self::place(depth);
        self.bits[word] >> bit | self.bits[word + 1] << 1 << (63 - bit)
    }

    /// Keeps the types of level `depth` and of so many in all below it.
    #[inline(always)]
    fn keep(&mut self, depth: usize, types: u64, count: u32) {
        if count == 0 {
            return;
        }
        let mask = u64::MAX >> (64 - count);
        let (word, bit) = Self::place(depth);
        self.bits[word] = self.bits[word] & !(mask << bit) | (types & mask) << bit;
        let (mask, types) = (mask >> 1 >> (63 - bit), (types & mask) >> 1 >> (63 - bit));
        self.bits[word + 1] = self.bits[word + 1] & !mask | types;
    }

    #[inline(always)]
    fn place(depth: usize) -> (usize, usize) {
        let at = Self::LEVELS - depth;
        ((at / 64).min(9), at % 64)
    }
}

/// Where a walk over the brackets of a block has come to.
#[derive(Copy, Clone)]
struct Walk {
    depth: usize,
    /// The types of what is open, the innermost at the lowest bit.
    open: u64,
    bad: u64,
    /// Has every bit that a depth had, where too many may be open.
    deepest: usize,
    /// Depth 1 was come to.
    surfaced: bool,
    /// Bytes whose innermost bracket is not of the type of the one at the start of the block.
    changed: u64,
    /// Bytes at depth 1, unless the block starts there: then those that are not.
    crossed: u64,
    /// The same for the deepest level that there may be.
    filled: u64,
    /// Where the top level was closed.
    end: Option<u32>,
}

impl Walk {
    /// Goes from one run of brackets to the next: where none closes at once, all of a run open or all close.
    #[inline(always)]
    fn go<const CONTEXT: bool, const TOP: bool, const FULL: bool>(&mut self, mut brackets: u64, open: u64, curly: u64) {
        let curly_backwards = curly.reverse_bits();
        while brackets != 0 {
            let bit = brackets & brackets.wrapping_neg();
            let first = brackets.trailing_zeros();
            // The carry comes out behind the run.
            let sum = brackets.wrapping_add(bit);
            brackets &= sum;
            let behind = (sum & sum.wrapping_neg()).wrapping_neg();
            let end = sum.trailing_zeros();
            let len = end - first;
            let mask = u64::MAX >> (64 - len);
            // In masks, for which one comes next is as good as random: a branch would be guessed wrongly.
            let opens = 0u64.wrapping_sub(u64::from(open & bit != 0));
            let before = self.open;
            let pushed = before << (len - 1) << 1 | curly_backwards >> (64 - end) & mask;
            let popped = before >> (len - 1) >> 1;
            let mismatched = (before ^ curly >> first) & mask;
            self.open = pushed & opens | popped & !opens;
            if CONTEXT {
                self.changed ^= ((before ^ self.open) & 1).wrapping_neg() & behind;
            }
            let depth = self.depth.wrapping_add(((u64::from(len) ^ !opens).wrapping_sub(!opens)) as usize);
            if TOP {
                self.crossed ^= u64::from((depth == 1) != (self.depth == 1)).wrapping_neg() & behind;
            }
            if FULL {
                self.deepest |= depth;
                self.filled ^= u64::from((depth == MAX_NESTING) != (self.depth == MAX_NESTING)).wrapping_neg() & behind;
            }
            if depth as isize <= 0 {
                self.end = Some(first + self.depth as u32 - 1);
                // For more closing ones there is nothing to compare with.
                self.bad |= mismatched & u64::MAX >> (64 - self.depth);
                self.depth = 0;
                return;
            }
            self.bad |= mismatched & !opens;
            self.surfaced |= depth == 1;
            self.depth = depth;
        }
    }
}

/// Where the wanted members of a top-level object have their values, spaces around them included: the last one of each.
pub(super) type Found<const N: usize> = [Option<(usize, usize)>; N];

/// Checks a text whose first byte is the `[` or `{` that all others stand in. `which` says which of the wanted members the inside of a
/// key names, none of which has fewer bytes than `shortest`. `None` where the text is not JSON.
pub(super) fn check<const N: usize>(text: &[u8], shortest: usize, which: impl Fn(&[u8]) -> Option<usize>) -> Option<Found<N>> {
    match text.first()? {
        b'[' => check_within::<false, N>(text, shortest, which),
        b'{' => check_within::<true, N>(text, shortest, which),
        _ => None,
    }
}

#[inline(always)]
fn check_within<const OBJECT: bool, const N: usize>(
    text: &[u8],
    shortest: usize,
    which: impl Fn(&[u8]) -> Option<usize>,
) -> Option<Found<N>> {
    let mut stack = Stack { bits: [0; 11] };
    stack.keep(1, u64::from(OBJECT), 1);
    let mut depth = 1;
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
        let block = Block::new(bytes);
        let mut bad = 0;

        // What is inside of strings.
        let backslash = block.equal(b'\\');
        let escaped = escapes.look(block, backslash, &mut bad);
        let quote = block.equal(b'"') & !escaped;
        let mut string = quote;
        for by in [1, 2, 4, 8, 16, 32] {
            string ^= string << by;
        }
        // From each opening quote up to before the closing one.
        string ^= in_string;
        in_string = 0u64.wrapping_sub(string >> 63);
        let control = block.mask(|lane| lane.cmp_lt(i8x16::splat(0x20)) & !lane.cmp_lt(i8x16::splat(0)));
        bad |= control & string | backslash & !string;
        let inside = string | quote;

        // What is outside.
        let space = block.mask(|lane| equal(lane, b' ') | equal(lane, b'\n') | equal(lane, b'\r') | equal(lane, b'\t')) & !inside;
        let open = block.mask(|lane| equal(lower(lane), b'{')) & !inside;
        let close = block.mask(|lane| equal(lower(lane), b'}')) & !inside;
        let curly = block.mask(|lane| equal(lane, b'{') | equal(lane, b'}'));
        let comma = block.equal(b',') & !inside;
        let colon = block.equal(b':') & !inside;
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
        // What must stand in an object, and what in an array.
        let of_object = behind_later & colon;
        let of_array = behind_later & !colon | after_comma & (starts | open);

        // Most brackets close at once, and stay out of the stack.
        let pairs = open & close >> 1;
        bad |= (curly ^ curly >> 1) & pairs;
        let brackets = (open | close) & !(pairs | pairs << 1);
        if bad != 0 {
            return None;
        }
        let mut walk =
            Walk { depth, open: stack.top(depth), bad: 0, deepest: 0, surfaced: false, changed: 0, crossed: 0, filled: 0, end: None };
        let in_object_before = 0u64.wrapping_sub(walk.open & 1);
        let was_top = 0u64.wrapping_sub(u64::from(depth == 1));
        if depth >= DEEP {
            walk.go::<true, false, true>(brackets, open, curly);
            let was_full = 0u64.wrapping_sub(u64::from(depth == MAX_NESTING));
            if pairs & (was_full ^ walk.filled) != 0 {
                return None;
            }
        } else if brackets != 0 {
            let before = walk;
            if OBJECT && depth == 1 {
                walk.go::<true, true, false>(brackets, open, curly);
            } else if of_object | of_array != 0 {
                walk.go::<true, false, false>(brackets, open, curly);
            } else {
                walk.go::<false, false, false>(brackets, open, curly);
            }
            if OBJECT && depth != 1 && walk.surfaced {
                // Where that was matters then.
                walk = before;
                walk.go::<true, true, false>(brackets, open, curly);
            }
        }
        if walk.bad != 0 || walk.deepest > MAX_NESTING {
            return None;
        }
        if brackets != 0 && walk.end.is_none() {
            stack.keep(walk.depth, walk.open, (brackets & open).count_ones());
        }
        let in_object = in_object_before ^ walk.changed;
        if of_array & in_object | of_object & !in_object != 0 {
            return None;
        }
        depth = walk.depth;
        if OBJECT {
            let top = was_top ^ walk.crossed;
            // The last bracket of all ends the last member.
            let ends = comma & top | walk.end.map_or(0, |end| 1 << end);
            let long = keys.long(string & !quote, shortest) & quote & !string;
            let named = next(long, space, &mut keys.named) & colon & top;
            if keys.pending.is_some() | (named != 0) {
                keys.look(text, at, text_starts, named, ends, &which);
            }
            if text_starts != 0 {
                keys.string_at = at + 63 - text_starts.leading_zeros() as usize;
            }
        }
        if let Some(end) = walk.end {
            let rest = &text[at + end as usize + 1..];
            return rest.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).then_some(keys.found);
        }
        at += BLOCK;
    }
    // What was opened was not closed.
    None
}

/// The members of a top-level object that are wanted.
struct Keys<const N: usize> {
    /// Where the last string began.
    string_at: usize,
    /// Bytes of the block before that are inside of strings.
    inner: u64,
    /// The next byte but spaces follows a string that is long enough.
    named: u64,
    /// The one whose value has not ended yet.
    pending: Option<usize>,
    found: Found<N>,
}

impl<const N: usize> Default for Keys<N> {
    fn default() -> Self {
        Self { string_at: 0, inner: 0, named: 0, pending: None, found: [None; N] }
    }
}

impl<const N: usize> Keys<N> {
    /// The bytes with `shortest` bytes of a string before them, or some less.
    #[inline(always)]
    fn long(&mut self, inner: u64, shortest: usize) -> u64 {
        let before = std::mem::replace(&mut self.inner, inner);
        if shortest < 4 {
            return u64::MAX;
        }
        let four = [2, 3, 4].iter().fold(shift(inner, before, 1), |all, by| all & shift(inner, before, *by));
        if shortest < 7 { four } else { [5, 6, 7].iter().fold(four, |all, by| all & shift(inner, before, *by)) }
    }

    /// `named` has the colons behind keys that may be wanted, `ends` what ends a value at top level.
    fn look(&mut self, text: &[u8], at: usize, text_starts: u64, mut named: u64, ends: u64, which: &impl Fn(&[u8]) -> Option<usize>) {
        self.end(at, ends);
        while named != 0 {
            let bit = named & named.wrapping_neg();
            named ^= bit;
            let colon = at + bit.trailing_zeros() as usize;
            let before = text_starts & (bit - 1);
            let start = if before == 0 { self.string_at } else { at + 63 - before.leading_zeros() as usize };
            let key = text[start + 1..colon].trim_ascii_end();
            if let Some(wanted) = key.split_last().and_then(|(_, inside)| which(inside)) {
                self.found[wanted] = Some((colon + 1, colon + 1));
                self.pending = Some(wanted);
                self.end(at, ends & !(bit | (bit - 1)));
            }
        }
    }

    fn end(&mut self, at: usize, ends: u64) {
        if ends != 0
            && let Some(found) = self.pending.take().and_then(|pending| self.found[pending].as_mut())
        {
            found.1 = at + ends.trailing_zeros() as usize;
        }
    }
}
