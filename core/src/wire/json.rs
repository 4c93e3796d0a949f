//! Reads the members of a JSON object as strictly and as leniently as PHP's `json_decode` does.
//!
//! Checks the whole text but builds no tree: values are borrowed, strings stay escaped until somebody wants their bytes.
//! Short texts are read byte by byte, long ones in [`blocks`], where every byte costs the same whatever it is. Knows nothing of frames.

mod blocks;
mod brackets;
mod escapes;
mod vectors;

use super::scan;
use escapes::{escape, unescape, unescape_into};
use indexmap::IndexMap;
use std::borrow::Cow;
use vectors::LONG;

/// How many arrays and objects may be open at once. PHP's default depth of 512 counts the scalar inside as well.
const MAX_NESTING: u32 = 511;

/// How many bytes more an escape has than the letter, digit or `_` that it stands for. Keys that are looked for have nothing else in them.
const UNIT: usize = 5;

/// A value as it stands in the text.
#[derive(Copy, Clone, Debug)]
pub(super) enum JsonValue<'a> {
    Null,
    Bool(bool),
    /// The number's own characters.
    Number(&'a str),
    String(Text<'a>),
    /// The whole array or object.
    Nested(&'a str),
}

/// The inside of a JSON string, already checked.
#[derive(Copy, Clone, Debug)]
pub(super) struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Text<'a> {
    /// It is UTF-8.
    pub(super) fn bytes(self) -> Cow<'a, [u8]> {
        if self.escaped { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }

    /// In memory of its own size: `Bytes` keep that as it is, and take another allocation for anything larger.
    pub(super) fn exactly(self) -> Vec<u8> {
        if !self.escaped {
            return self.raw.to_vec();
        }
        if self.raw.len() < LONG {
            let mut bytes = [0; LONG + 8];
            let len = unescape_into(self.raw, &mut bytes);
            return bytes[..len].to_vec();
        }
        let mut bytes = unescape(self.raw);
        bytes.shrink_to_fit();
        bytes
    }

    pub(super) fn text(self) -> Cow<'a, str> {
        match self.bytes() {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    fn is(self, plain: &str) -> bool {
        if self.escaped { *self.bytes() == *plain.as_bytes() } else { *self.raw == *plain.as_bytes() }
    }
}

fn utf8(text: &[u8]) -> Option<&str> {
    if text.len() < LONG { std::str::from_utf8(text).ok() } else { simdutf8::basic::from_utf8(text).ok() }
}

/// The text is not JSON, or not an array or object.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct NotAnObject;

/// The top-level members named `keys`, the last of several wins, `Null` where there is none. An array has no members.
pub(super) fn members<'a, const N: usize>(text: &'a [u8], keys: [&str; N]) -> Result<[JsonValue<'a>; N], NotAnObject> {
    let text = utf8(text).ok_or(NotAnObject)?;
    if text.len() < LONG { read_members(text, keys) } else { check_members(text, keys) }.ok_or(NotAnObject)
}

fn read_members<'a, const N: usize>(text: &'a str, keys: [&str; N]) -> Option<[JsonValue<'a>; N]> {
    let mut reader = Reader { text, at: 0 };
    let mut found = [JsonValue::Null; N];
    reader.skip_space();
    match reader.peek() {
        Some(b'{') => reader.object(1, |key, value| {
            if let Some(i) = keys.iter().position(|wanted| key.is(wanted)) {
                found[i] = value;
            }
        }),
        Some(b'[') => reader.array(1),
        _ => None,
    }?;
    reader.skip_space();
    (reader.at == text.len()).then_some(found)
}

fn check_members<'a, const N: usize>(text: &'a str, keys: [&str; N]) -> Option<[JsonValue<'a>; N]> {
    let start = text.bytes().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))?;
    let text = &text[start..];
    let shortest = keys.iter().map(|key| key.len()).min().unwrap_or(0);
    let which = |inside: &[u8]| {
        let plain = keys.iter().position(|wanted| *inside == *wanted.as_bytes());
        if plain.is_some() || inside.len() < shortest + UNIT {
            return plain;
        }
        let key = Text { raw: inside, escaped: has_backslash(inside) };
        keys.iter().position(|wanted| key.escaped && key.is(wanted))
    };
    let found = blocks::check(text.as_bytes(), shortest, which);
    // Where tests look, both ways find the same.
    #[cfg(test)]
    assert_eq!(blocks::check_plainly(text.as_bytes(), shortest, which), found, "{text}");
    let found = found?;
    Some(found.map(|place| place.map_or(JsonValue::Null, |(start, end)| checked(text[start..end].trim_ascii()))))
}

fn has_backslash(text: &[u8]) -> bool {
    scan::find(text, |word| scan::equal(word, b'\\')) < text.len()
}

/// A value that is known to be one.
fn checked(text: &str) -> JsonValue<'_> {
    match text.as_bytes() {
        [b'"', raw @ .., b'"'] => JsonValue::String(Text { raw, escaped: has_backslash(raw) }),
        [b'[' | b'{', ..] => JsonValue::Nested(text),
        [b'n', ..] => JsonValue::Null,
        [b't', ..] => JsonValue::Bool(true),
        [b'f', ..] => JsonValue::Bool(false),
        _ => JsonValue::Number(text),
    }
}

/// All members of an object with their values as they stand in the text, the last of several of one key in the place of the first;
/// those of an array have their places as keys.
pub(super) fn entries(text: &str) -> Result<IndexMap<Cow<'_, str>, &str>, NotAnObject> {
    let mut reader = Reader { text, at: 0 };
    let mut found = IndexMap::new();
    reader.skip_space();
    let end = match reader.peek() {
        Some(b'{') => b'}',
        Some(b'[') => b']',
        _ => return Err(NotAnObject),
    };
    reader.at += 1;
    reader.skip_space();
    if !reader.take(end) {
        loop {
            let (key, value) = reader.entry((end == b']').then(|| found.len())).ok_or(NotAnObject)?;
            found.insert(key, value);
            reader.skip_space();
            if reader.take(end) {
                break;
            }
            if !reader.take(b',') {
                return Err(NotAnObject);
            }
            reader.skip_space();
        }
    }
    reader.skip_space();
    if reader.at == text.len() { Ok(found) } else { Err(NotAnObject) }
}

/// A text that is one value and nothing else.
pub(super) fn only_value(text: &str) -> Option<JsonValue<'_>> {
    let mut reader = Reader { text, at: 0 };
    reader.skip_space();
    let value = reader.value(0)?;
    reader.skip_space();
    (reader.at == text.len()).then_some(value)
}

/// The inside of a string that holds `{"timestamp":1700000000.25}` as encoders write it; `None` is no verdict. Most frames of all are
/// heartbeats, and this is a third of the work.
pub(super) fn only_timestamp(text: &[u8]) -> Option<Text<'_>> {
    let raw = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let number = raw.strip_prefix(b"{\\\"timestamp\\\":")?.strip_suffix(b"}")?;
    // Without a way out in between, several are looked at together.
    let is_plain = number.iter().fold(true, |is_plain, byte| is_plain & matches!(byte, b'0'..=b'9' | b'.'));
    is_plain.then_some(Text { raw, escaped: true })
}

/// The inside of a text that is one string and nothing else; `None` is no verdict.
pub(super) fn only_string(text: &[u8]) -> Option<Text<'_>> {
    let raw = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut at = 0;
    let mut escaped = false;
    loop {
        at += find_special(&raw[at..]);
        match raw.get(at) {
            None => break,
            // One escape in a long text is the first of many.
            Some(b'\\') if raw.len() < LONG => at += escape(&raw[at..])?.1,
            _ => return None,
        }
        escaped = true;
    }
    (raw.is_ascii() || utf8(raw).is_some()).then_some(Text { raw, escaped })
}

/// Where a string is not just what it says.
#[inline(always)]
fn find_special(text: &[u8]) -> usize {
    scan::find(text, |word| scan::equal(word, b'"') | scan::equal(word, b'\\') | scan::control(word))
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

// Every method reads one thing at `at` and steps behind it; `None` means that the text is not JSON.
impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn text_from(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn value(&mut self, depth: u32) -> Option<JsonValue<'a>> {
        let start = self.at;
        match self.peek()? {
            b'"' => self.string().map(JsonValue::String),
            b'{' => {
                self.object(depth + 1, |_, _| ())?;
                Some(JsonValue::Nested(self.text_from(start)))
            }
            b'[' => {
                self.array(depth + 1)?;
                Some(JsonValue::Nested(self.text_from(start)))
            }
            b'n' => self.literal("null", JsonValue::Null),
            b't' => self.literal("true", JsonValue::Bool(true)),
            b'f' => self.literal("false", JsonValue::Bool(false)),
            _ => self.number().map(JsonValue::Number),
        }
    }

    fn object(&mut self, depth: u32, mut member: impl FnMut(Text<'a>, JsonValue<'a>)) -> Option<()> {
        if depth > MAX_NESTING {
            return None;
        }
        self.at += 1;
        self.skip_space();
        if self.take(b'}') {
            return Some(());
        }
        loop {
            let key = self.string()?;
            self.skip_space();
            self.take(b':').then_some(())?;
            self.skip_space();
            member(key, self.value(depth)?);
            self.skip_space();
            if self.take(b'}') {
                return Some(());
            }
            self.take(b',').then_some(())?;
            self.skip_space();
        }
    }

    fn array(&mut self, depth: u32) -> Option<()> {
        if depth > MAX_NESTING {
            return None;
        }
        self.at += 1;
        self.skip_space();
        if self.take(b']') {
            return Some(());
        }
        loop {
            self.value(depth)?;
            self.skip_space();
            if self.take(b']') {
                return Some(());
            }
            self.take(b',').then_some(())?;
            self.skip_space();
        }
    }

    /// A member of an object, or the element of an array at `place`: the key, and the text of the value.
    fn entry(&mut self, place: Option<usize>) -> Option<(Cow<'a, str>, &'a str)> {
        let key = match place {
            Some(place) => place.to_string().into(),
            None => {
                let key = self.string()?.text();
                self.skip_space();
                self.take(b':').then_some(())?;
                self.skip_space();
                key
            }
        };
        let start = self.at;
        self.value(1)?;
        Some((key, self.text_from(start)))
    }

    fn literal(&mut self, word: &str, value: JsonValue<'a>) -> Option<JsonValue<'a>> {
        self.rest().starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
            value
        })
    }

    fn number(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Some(self.text_from(start))
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.rest().iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += count;
        (count > 0).then_some(())
    }

    fn string(&mut self) -> Option<Text<'a>> {
        self.take(b'"').then_some(())?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += find_special(self.rest());
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    self.at += escape(self.rest())?.1;
                    escaped = true;
                }
                _ => return None,
            }
        }
        let text = Text { raw: self.text_from(start).as_bytes(), escaped };
        self.at += 1;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(text: &str) -> bool {
        members(text.as_bytes(), [""]).is_ok()
    }

    fn string(text: &str) -> String {
        match members(text.as_bytes(), ["k"]) {
            Ok([JsonValue::String(text)]) => text.text().into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn members_are_found_at_top_level_only_and_the_last_one_wins() {
        let text = br#" { "a" : [ { "b" : 1 } ] , "b" : 2 , "\u0062" : {"b":3} } "#;
        let [a, b, c] = members(text, ["a", "b", "c"]).unwrap();
        assert!(matches!(a, JsonValue::Nested(r#"[ { "b" : 1 } ]"#)));
        assert!(matches!(b, JsonValue::Nested(r#"{"b":3}"#)));
        assert!(matches!(c, JsonValue::Null));
    }

    #[test]
    fn half_a_pair_is_refused_wherever_the_text_ends() {
        for spaces in 2 * LONG..2 * LONG + 200 {
            let text = |inside: &str| format!("[{}\"{inside}\"] ", " ".repeat(spaces));
            assert!(accepts(&text("\\ud83d\\ude00")) && accepts(&text("\\u00e9")), "{spaces}");
            for half in ["\\ud83d", "\\ude00", "\\ud83d\\n", "\\ud83d\\u0041", "\\u00e", "\\"] {
                assert!(!accepts(&text(half)), "{half} behind {spaces}");
            }
        }
    }

    #[test]
    fn only_objects_and_arrays_are_accepted() {
        assert!(accepts("{}") && accepts("[]") && accepts(r#"["k",1]"#));
        for scalar in ["", "1", "null", "true", r#""k""#] {
            assert!(!accepts(scalar), "{scalar}");
        }
    }

    #[test]
    fn strings_unescape_without_being_copied_when_nothing_is_escaped() {
        assert_eq!(string(r#"{"k":"\"\\\/\b\f\n\r\t\u0000\u00e9\uD83D\uDE00é"}"#), "\"\\/\x08\x0c\n\r\t\0é😀é");
        let Ok([JsonValue::String(text)]) = members(r#"{"k":"plain é"}"#.as_bytes(), ["k"]) else { panic!() };
        assert!(matches!(text.text(), Cow::Borrowed("plain é")));
    }

    #[test]
    fn nesting_ends_where_phps_does() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for (open, close) in [("[", "]"), ("{\"\":", "}"), ("[{\"\":[", "]}]"), ("[1,", "]"), ("[ ", " ]")] {
            let levels = open.matches(['[', '{']).count();
            for depth in [511, 512, 513, 540, 600] {
                let text = |inside: &str| {
                    let left = depth % levels;
                    let (open, close) = (open.repeat(depth / levels), close.repeat(depth / levels));
                    format!("{}{open}{inside}{close}{}", "[".repeat(left), "]".repeat(left))
                };
                assert_eq!(accepts(&text("1")), depth <= 511, "{depth} of {open}");
                assert_eq!(accepts(&text("[]")), depth <= 510, "{depth} of {open}");
            }
        }
        assert!(accepts(&nested(511)));
        assert!(!accepts(&nested(512)));
        assert!(!accepts(&"[".repeat(1_000_000)));
        assert!(accepts(&format!("[{}]", [nested(510), nested(510)].join(","))));
    }

    /// A text that is JSON, or nearly: most mistakes are only seen by who looks at more than one byte.
    fn random_text(random: &mut fastrand::Rng) -> String {
        let mut text = String::new();
        let size = 1 << random.u32(2..9);
        let is_dense = random.bool();
        push_value(random, &mut text, size, 0, is_dense);
        for _ in 0..random.usize(0..3) {
            let at = (0..=random.usize(0..=text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let end = (at + random.usize(0..3)..).find(|&end| end >= text.len() || text.is_char_boundary(end)).unwrap_or(at);
            text.replace_range(at..end.min(text.len()), if random.bool() { "" } else { random.choice(PIECES).unwrap() });
        }
        text
    }

    const PIECES: &[&str] = &[
        "{", "}", "[", "]", ",", ":", " ", "\n", "\"\"", "\"", "\\", "\\u", "\\ud83d", "\\ude00", "\0", "0", "1", "-", ".", "e", "E-", "+",
        "t", "true", "nul", "l", "false", "é", "/", "\u{b}", "\u{7f}", "[]", "{}", "[[", "]]", ",[", "],",
    ];
    const SCALARS: &[&str] =
        &["0", "-0", "1", "12", "-1.5", "0.25e7", "1E+10", "2e-3", "1234567890123456789012345678901234567890", "true", "false", "null"];
    const PARTS: &[&str] = &[
        "a",
        "bc",
        "wanted",
        "é",
        "😀",
        "\\\\",
        "\\\"",
        "\\n",
        "\\/",
        "\\u00e9",
        "\\uD83D\\ude00",
        "{",
        "]",
        ",",
        ":",
        "\u{7f}",
        "0123456789",
        "\\u0061",
    ];

    fn push_value(random: &mut fastrand::Rng, text: &mut String, size: u32, depth: u32, is_dense: bool) {
        let space = |random: &mut fastrand::Rng, text: &mut String| {
            if !is_dense && random.u8(..8) == 0 {
                (0..random.usize(1..80)).for_each(|_| text.push(random.choice([' ', '\n', '\t', '\r']).unwrap()));
            }
        };
        let string = |random: &mut fastrand::Rng, text: &mut String| {
            text.push('"');
            (0..random.usize(0..6)).for_each(|_| text.push_str(random.choice(PARTS).unwrap()));
            text.push('"');
        };
        space(random, text);
        match if depth == 0 { random.u32(..2) } else { random.u32(..5) } {
            kind @ (0 | 1) => {
                text.push(if kind == 0 { '[' } else { '{' });
                let count = if size == 0 { 0 } else { random.u32(0..8.min(size + 1)) };
                for n in 0..count {
                    if n > 0 {
                        text.push(',');
                    }
                    if kind == 1 {
                        space(random, text);
                        if random.bool() {
                            string(random, text);
                        } else {
                            text.push_str(random.choice(["\"wanted\"", "\"k\"", "\"\"", "\"w\\u0061nted\""]).unwrap());
                        }
                        space(random, text);
                        text.push(':');
                    }
                    push_value(random, text, size / count, depth + 1, is_dense);
                }
                space(random, text);
                text.push(if kind == 0 { ']' } else { '}' });
            }
            2 => string(random, text),
            _ => text.push_str(random.choice(SCALARS).unwrap()),
        }
        space(random, text);
    }

    fn found<const N: usize>(values: Option<[JsonValue<'_>; N]>) -> String {
        format!("{values:?}")
    }

    #[test]
    fn blocks_find_in_any_text_what_bytes_find() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut accepted = 0;
        for _ in 0..8_000 {
            let text = random_text(&mut random);
            let read = read_members(&text, ["wanted", "other"]);
            accepted += u32::from(read.is_some());
            assert_eq!(found(check_members(&text, ["wanted", "other"])), found(read), "{text}");
            assert_eq!(found(check_members(&text, ["k", "", "wanted"])), found(read_members(&text, ["k", "", "wanted"])), "{text}");
        }
        assert!((2_000..6_000).contains(&accepted), "{accepted}");
    }

    /// What is at the edge of a block, and how deep it is there, is not left to chance.
    #[test]
    fn blocks_find_what_bytes_find_wherever_they_begin_and_however_deep() {
        let mut random = fastrand::Rng::with_seed(2);
        let inside = r#""\ud83d\ude00\\\"",-12.5e+3,true,{"wanted":[{}],"é":false},null,[],{},[[1],{"":[]}]"#;
        for level in [0, 1, 62, 63, 64, 65, 300, 447, 448, 479, 480, 500, 507, 508, 509, 510, 511, 512] {
            for before in 0..70 {
                let (mut text, mut close) = (String::new(), String::new());
                for _ in 0..level {
                    let is_curly = random.bool();
                    text.push_str(if is_curly { "{\"\":" } else { "[" });
                    close.insert(0, if is_curly { '}' } else { ']' });
                }
                text = format!("[[{}{text}[{inside}]{close}]", " ".repeat(before)) + "]";
                assert_eq!(found(check_members(&text, ["x"])), found(read_members(&text, ["x"])), "{text}");
                for wrong in ["]", "}", "[", ""] {
                    let at = text.len() - random.usize(1..=close.len() + 2);
                    let mut text = text.clone();
                    text.replace_range(at..=at, wrong);
                    assert_eq!(found(check_members(&text, ["x"])), found(read_members(&text, ["x"])), "{text}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = members(&text, ["k"]);
        }
    }
}
