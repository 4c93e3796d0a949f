//! Which brackets of a block close which, and what is inside of an object.
//!
//! Owns the stack, of one bit for each level. Four bytes are looked at in one step, with tables of what may be in them, and no step depends
//! on a guess: the order of brackets is a stranger's.

/// How many arrays and objects may be open at once: a power of two less one, so that one bit tells.
pub(super) const MAX_NESTING: usize = 511;

/// How many bytes there are in a step.
const STEP: u32 = 4;

/// Where more brackets than these are left, it takes less to look for pairs once more than to look at each.
const MANY: u32 = 8;

/// The brackets of a block, as bits: those that open, those that close, and those of either that are curly.
#[derive(Copy, Clone)]
pub(super) struct Brackets {
    pub(super) open: u64,
    pub(super) close: u64,
    pub(super) curly: u64,
}

/// Which brackets are open: for each one bit, set where it is curly.
pub(super) struct Stack {
    /// That of level `n` is bit `LEVELS - n`, so that the top of the stack is at the low end of what [`Stack::top`] returns.
    bits: [u64; 11],
    depth: usize,
}

/// What was found in a block.
pub(super) struct Walked {
    /// The bytes whose innermost bracket, without one that they are themselves, is curly.
    pub(super) in_object: u64,
    /// The bytes in front of which as many brackets are open as in front of the block; `None` where that was not found on the way.
    pub(super) level: Option<u64>,
    /// Where the top level was closed.
    pub(super) end: Option<u32>,
}

/// What one step found, or several.
#[derive(Copy, Clone)]
struct Walk {
    depth: usize,
    /// The types of what is open, the innermost at the lowest bit.
    open: u64,
    /// The bytes whose innermost bracket, also one that they are themselves, is curly.
    in_object: u64,
}

/// What is between two brackets, the opening one included, with no other in between but other such pairs.
#[derive(Copy, Clone)]
struct Pairs {
    inside: u64,
    /// And is curly.
    in_object: u64,
}

impl Pairs {
    /// These and those that they are in.
    #[inline(always)]
    fn within(self, outer: Self) -> Self {
        Self { inside: self.inside | outer.inside, in_object: self.in_object | outer.in_object & !self.inside }
    }
}

impl Brackets {
    /// All others, and the innermost pairs; `None` where the two of one do not belong together.
    #[inline(always)]
    fn without_innermost(self) -> Option<(Self, Pairs)> {
        let Self { open, close, curly } = self;
        if open == 0 || close == 0 {
            return Some((self, Pairs { inside: 0, in_object: 0 }));
        }
        let others = !(open | close);
        // From the byte behind each of `from` on to the next bracket: a carry runs through all that is none.
        let next = |from: u64, through: u64| (from << 1).wrapping_add(through) & !through;
        let closing = next(open, others) & close;
        let curly_closing = next(open & curly, others) & close;
        if curly_closing != closing & curly {
            return None;
        }
        let back = |from: u64| next(from.reverse_bits(), others.reverse_bits()).reverse_bits();
        let opening = back(closing) & open;
        let pairs = Pairs { inside: closing.wrapping_sub(opening), in_object: curly_closing.wrapping_sub(opening & curly) };
        Some((Self { open: open & !opening, close: close & !closing, curly }, pairs))
    }
}

impl Stack {
    const LEVELS: usize = 9 * 64;

    /// With one bracket open.
    pub(super) fn new(is_curly: bool) -> Self {
        let mut stack = Self { bits: [0; 11], depth: 1 };
        stack.keep(u64::from(is_curly), 1);
        stack
    }

    #[inline(always)]
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Goes over the brackets of a block; `None` where one does not close what is open, or too many are. Where `CONTEXT` is not set, nobody asks
    /// what is inside of an object.
    #[inline(always)]
    pub(super) fn walk<const CONTEXT: bool>(&mut self, brackets: Brackets) -> Option<Walked> {
        let Brackets { open, close, curly } = brackets;
        let types = self.top();
        let before = (types & 1).wrapping_neg();
        if open | close == 0 {
            return Some(Walked { in_object: before, level: Some(u64::MAX), end: None });
        }
        let mut level = None;
        let start = Walk { depth: self.depth, open: types, in_object: before };
        let (walk, end) = if self.depth + open.count_ones() as usize > MAX_NESTING {
            start.one_by_one::<CONTEXT>(brackets)?
        } else {
            // Most brackets have none in between, and stay out of the stack.
            let (mut rest, mut pairs) = brackets.without_innermost()?;
            if (rest.open | rest.close).count_ones() > MANY && (rest.open | rest.close) & curly != 0 {
                let (outermost, outer) = rest.without_innermost()?;
                (rest, pairs) = (outermost, pairs.within(outer));
            }
            if rest.open | rest.close == 0 {
                level = Some(!(pairs.inside | close));
            }
            let (walk, end) =
                if let Some(walk) = start.in_arrays(rest) { (walk, None) } else { start.over_rest::<CONTEXT>(rest, brackets)? };
            (Walk { in_object: walk.in_object & !pairs.inside | pairs.in_object, ..walk }, end)
        };
        self.depth = walk.depth;
        if end.is_none() {
            self.keep(walk.open, open.count_ones());
        }
        Some(Walked { in_object: walk.in_object << 1 | types & 1, level, end })
    }

    /// The types of the deepest level and of the 63 below it, from the lowest bit up.
    #[inline(always)]
    fn top(&self) -> u64 {
        let (word, bit) = self.place();
        self.bits[word] >> bit | self.bits[word + 1] << 1 << (63 - bit)
    }

    /// Keeps the types of the deepest level and of so many in all below it.
    #[inline(always)]
    fn keep(&mut self, types: u64, count: u32) {
        if count == 0 {
            return;
        }
        let mask = u64::MAX >> (64 - count);
        let (word, bit) = self.place();
        self.bits[word] = self.bits[word] & !(mask << bit) | (types & mask) << bit;
        let (mask, types) = (mask >> 1 >> (63 - bit), (types & mask) >> 1 >> (63 - bit));
        self.bits[word + 1] = self.bits[word + 1] & !mask | types;
    }

    #[inline(always)]
    fn place(&self) -> (usize, usize) {
        let at = Self::LEVELS - self.depth;
        ((at / 64).min(9), at % 64)
    }
}

impl Walk {
    /// Where all that opens and closes is arrays, they close whatever is open: only how many there are counts. `None` where it is not so.
    #[inline(always)]
    fn in_arrays(self, Brackets { open, close, curly }: Brackets) -> Option<Self> {
        if (open | close) & curly != 0 {
            return None;
        }
        let (opens, closes) = (open.count_ones(), close.count_ones());
        let closed = if self.depth > closes as usize { closes } else { most_closed(open, close) };
        let reached = u64::MAX >> (63 - closed.min(63));
        if self.depth <= closed as usize || self.open & reached != 0 {
            return None;
        }
        let depth = (self.depth + opens as usize).checked_sub(closes as usize)?;
        let still_open = self.open.checked_shr(closed).unwrap_or(0);
        let open_again = opens.wrapping_sub(closes.wrapping_sub(closed));
        Some(Self { depth, open: still_open.checked_shl(open_again).unwrap_or(0), in_object: 0 })
    }

    /// Over what is left of a block, the way that takes less. `all`: the whole block.
    #[inline(always)]
    fn over_rest<const CONTEXT: bool>(self, rest: Brackets, all: Brackets) -> Option<(Self, Option<u32>)> {
        let left = rest.open | rest.close;
        let near = left & (left << 1 | left << 2 | left << 3);
        if near.count_ones() * 2 < left.count_ones() || left == 0 {
            return self.one_by_one::<CONTEXT>(rest);
        }
        match self.in_steps::<CONTEXT>(rest)? {
            walk if walk.depth as isize > 0 => Some((walk, None)),
            _ => self.one_by_one::<CONTEXT>(all),
        }
    }

    /// Where not too many are opened. The depth is not above 0 where the top level is closed, and then nothing else counts.
    #[inline(always)]
    fn in_steps<const CONTEXT: bool>(mut self, Brackets { open, close, curly }: Brackets) -> Option<Self> {
        let (mut mismatched, mut faults, mut mismatched_in_runs, mut lowest) = (0, 0, 0, self.depth as isize);
        let runs = sixteen(open) | sixteen(close);
        let mut left = open | close;
        while left != 0 {
            let at = left.trailing_zeros();
            if runs >> at & 1 != 0 {
                let opens = open >> at & 1 != 0;
                let len = (!(if opens { open } else { close } >> at)).trailing_zeros().min(64 - at);
                let mask = u64::MAX >> (64 - len);
                self.depth = self.depth.wrapping_add_signed(if opens { len as isize } else { -(len as isize) });
                lowest = lowest.min(self.depth as isize);
                if opens {
                    self.open = self.open << (len - 1) << 1 | curly.reverse_bits() >> (64 - at - len) & mask;
                } else {
                    mismatched_in_runs |= (self.open ^ curly >> at) & mask;
                    self.open = self.open >> (len - 1) >> 1;
                }
                if CONTEXT {
                    // What is between its brackets is nothing.
                    self.in_object = self.in_object & !(u64::MAX << at) | (self.open & 1).wrapping_neg() << (at + len - 1);
                }
                left &= !(mask << at);
                continue;
            }
            let four = |bits: u64| (bits >> at & 0xf) as usize;
            let shape = four(open) | four(close) << 4;
            let step = STEPS[shape | four(curly) << 8];
            mismatched |= (self.open ^ u64::from(step >> CLOSED)) & u64::from(step >> CLOSED_MASK);
            faults |= step;
            let before = self.open;
            self.open = self.open.wrapping_shr(step & 7).wrapping_shl(step >> 3 & 7) | u64::from(step >> OPENED & 0xf);
            if CONTEXT {
                let inside = u64::from(step >> INSIDE & 0xf) | u64::from(OUTER[shape | (before as usize & 0x1f) << 8]);
                let rest = (self.open & 1).wrapping_neg();
                self.in_object = self.in_object & !(u64::MAX << at) | (inside | rest << STEP) << at;
            }
            let closed = self.depth.wrapping_sub(step as usize & 7);
            lowest = lowest.min(closed as isize);
            self.depth = closed.wrapping_add(step as usize >> 3 & 7);
            left &= !(0xf << at);
        }
        if lowest <= 0 {
            return Some(Self { depth: 0, ..self });
        }
        (mismatched & 0xf == 0 && mismatched_in_runs == 0 && faults >> FAULT & 1 == 0).then_some(self)
    }

    /// With a look at everything.
    #[inline(always)]
    fn one_by_one<const CONTEXT: bool>(mut self, Brackets { open, close, curly }: Brackets) -> Option<(Self, Option<u32>)> {
        let (mut mismatched, mut deepest) = (0, 0);
        let mut left = open | close;
        while left != 0 {
            let at = left.trailing_zeros();
            left &= left - 1;
            // In masks, for which one comes next is as good as random: a branch would be guessed wrongly.
            let opens = open >> at & 1;
            let (opens_mask, is_curly) = (opens.wrapping_neg(), curly >> at & 1);
            mismatched |= (self.open ^ is_curly) & !opens_mask;
            self.open = (self.open << 1 | is_curly) & opens_mask | self.open >> 1 & !opens_mask;
            if CONTEXT {
                self.in_object = self.in_object & !(u64::MAX << at) | (self.open & 1).wrapping_neg() << at;
            }
            self.depth = self.depth.wrapping_add(2 * opens as usize).wrapping_sub(1);
            deepest |= self.depth;
            if self.depth == 0 {
                return (mismatched & 1 == 0 && deepest <= MAX_NESTING).then_some((self, Some(at)));
            }
        }
        (mismatched & 1 == 0 && deepest <= MAX_NESTING).then_some((self, None))
    }
}

/// How many are closed at the most that were open before. No step depends on a guess here either.
#[inline(always)]
fn most_closed(open: u64, close: u64) -> u32 {
    let (mut depth, mut lowest) = (0i32, 0i32);
    for at in (0..u64::BITS).step_by(STEP as usize) {
        let four = |bits: u64| (bits >> at & 0xf) as usize;
        let [fall, change] = FALLS[four(open) | four(close) << 4];
        lowest = lowest.min(depth + i32::from(fall));
        depth += i32::from(change);
    }
    lowest.unsigned_abs()
}

/// How deep four bytes fall below where they began, and where they end, by which of them open and which close.
static FALLS: [[i8; 2]; 1 << 8] = {
    let mut falls = [[0; 2]; 1 << 8];
    let mut i = 0;
    while i < falls.len() {
        let mut at = 0;
        while at < STEP {
            falls[i][1] += (i >> at & 1) as i8 - (i >> 4 >> at & 1) as i8;
            if falls[i][1] < falls[i][0] {
                falls[i][0] = falls[i][1];
            }
            at += 1;
        }
        i += 1;
    }
    falls
};

/// The bits with which sixteen in a row begin.
#[inline(always)]
fn sixteen(bits: u64) -> u64 {
    let two = bits & bits >> 1;
    let four = two & two >> 2;
    let eight = four & four >> 4;
    eight & eight >> 8
}

// What stands in an entry of the steps: how many brackets it closes that were open before (3 bits), how many it leaves open (3), then their
// types and those of the closed ones, in the order of the stack, which of these count, the bytes inside of objects that it opened, and a fault.
const OPENED: u32 = 6;
const CLOSED: u32 = 10;
const CLOSED_MASK: u32 = 14;
const INSIDE: u32 = 18;
const FAULT: u32 = 22;

/// What four bytes do, by which of them open, which close and which are curly.
static STEPS: [u32; 1 << 12] = {
    let mut steps = [0; 1 << 12];
    let mut i = 0;
    while i < steps.len() {
        let (open, close, curly) = (i & 0xf, i >> 4 & 0xf, i >> 8);
        let (mut closes, mut closed, mut opens, mut opened, mut inside, mut fault) = (0, 0, 0, 0, 0, 0);
        let mut at = 0;
        while at < STEP {
            let is_curly = (curly >> at & 1) as u32;
            if open >> at & 1 == 1 {
                opens += 1;
                opened = opened << 1 | is_curly;
            } else if close >> at & 1 == 1 && opens > 0 {
                fault |= opened & 1 ^ is_curly;
                opens -= 1;
                opened >>= 1;
            } else if close >> at & 1 == 1 {
                closed |= is_curly << closes;
                closes += 1;
            }
            if opens > 0 {
                inside |= (opened & 1) << at;
            }
            at += 1;
        }
        let mask = (1u32 << closes) - 1;
        steps[i] = closes | opens << 3 | opened << OPENED | closed << CLOSED | mask << CLOSED_MASK | inside << INSIDE | fault << FAULT;
        i += 1;
    }
    steps
};

/// Which of four bytes are inside of an object that was open before, by which of them open and which close, and by the types of what was open.
static OUTER: [u8; 1 << 13] = {
    let mut outer = [0; 1 << 13];
    let mut i = 0;
    while i < outer.len() {
        let (open, close, types) = (i & 0xf, i >> 4 & 0xf, i >> 8);
        let (mut closes, mut opens) = (0, 0);
        let mut at = 0;
        while at < STEP {
            if open >> at & 1 == 1 {
                opens += 1;
            } else if close >> at & 1 == 1 && opens > 0 {
                opens -= 1;
            } else if close >> at & 1 == 1 {
                closes += 1;
            }
            if opens == 0 {
                outer[i] |= ((types >> closes & 1) << at) as u8;
            }
            at += 1;
        }
        i += 1;
    }
    outer
};
