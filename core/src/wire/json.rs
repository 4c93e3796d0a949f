//! Reads the members of a JSON object as strictly and as leniently as PHP's `json_decode` does.
//!
//! Checks the whole text but builds no tree: values are borrowed, strings stay escaped until somebody wants their bytes.
//! Knows nothing of frames.

use super::scan;
use indexmap::IndexMap;
use std::borrow::Cow;

/// How many arrays and objects may be open at once. PHP's default depth of 512 counts the scalar inside as well.
const MAX_NESTING: u32 = 511;

/// A value as it stands in the text.
#[derive(Copy, Clone, Debug)]
pub(super) enum Value<'a> {
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
        if self.escaped { Cow::Owned(unescape(self.raw, self.raw.len())) } else { Cow::Borrowed(self.raw) }
    }

    /// In memory of its own size: `Bytes` keep that as it is, and take another allocation for anything larger.
    pub(super) fn exactly(self) -> Vec<u8> {
        if !self.escaped {
            return self.raw.to_vec();
        }
        let mut len = 0;
        unescaped(self.raw, |part| len += part.len());
        unescape(self.raw, len)
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

/// Most texts have no other characters than those of ASCII, which shows faster.
fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}

/// The text is not JSON, or not an array or object.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct NotAnObject;

/// The top-level members named `keys`, the last of several wins, `Null` where there is none. An array has no members.
pub(super) fn members<'a, const N: usize>(text: &'a [u8], keys: [&str; N]) -> Result<[Value<'a>; N], NotAnObject> {
    if !is_utf8(text) {
        return Err(NotAnObject);
    }
    let mut reader = Reader { text, at: 0 };
    let mut found = [Value::Null; N];
    reader.skip_space();
    match reader.peek() {
        Some(b'{') => reader.object(1, |key, value| {
            if let Some(i) = keys.iter().position(|wanted| key.is(wanted)) {
                found[i] = value;
            }
        }),
        Some(b'[') => reader.array(1),
        _ => None,
    }
    .ok_or(NotAnObject)?;
    reader.skip_space();
    if reader.at == text.len() { Ok(found) } else { Err(NotAnObject) }
}

/// All members of an object with their values as they stand in the text, the last of several of one key in the place of the first;
/// those of an array have their places as keys.
pub(super) fn entries(text: &str) -> Result<IndexMap<Cow<'_, str>, &str>, NotAnObject> {
    let mut reader = Reader { text: text.as_bytes(), at: 0 };
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
pub(super) fn only_value(text: &str) -> Option<Value<'_>> {
    let mut reader = Reader { text: text.as_bytes(), at: 0 };
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

/// The inside of a text that is one string and nothing else.
pub(super) fn only_string(text: &[u8]) -> Option<Text<'_>> {
    if !is_utf8(text) {
        return None;
    }
    let mut reader = Reader { text, at: 0 };
    reader.string().filter(|_| reader.at == text.len())
}

struct Reader<'a> {
    /// UTF-8.
    text: &'a [u8],
    at: usize,
}

// Every method reads one thing at `at` and steps behind it; `None` means that the text is not JSON.
impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    fn text_from(&self, start: usize) -> Option<&'a str> {
        std::str::from_utf8(&self.text[start..self.at]).ok()
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

    fn value(&mut self, depth: u32) -> Option<Value<'a>> {
        let start = self.at;
        match self.peek()? {
            b'"' => self.string().map(Value::String),
            b'{' => {
                self.object(depth + 1, |_, _| ())?;
                self.text_from(start).map(Value::Nested)
            }
            b'[' => {
                self.array(depth + 1)?;
                self.text_from(start).map(Value::Nested)
            }
            b'n' => self.literal("null", Value::Null),
            b't' => self.literal("true", Value::Bool(true)),
            b'f' => self.literal("false", Value::Bool(false)),
            _ => self.number().map(Value::Number),
        }
    }

    fn object(&mut self, depth: u32, mut member: impl FnMut(Text<'a>, Value<'a>)) -> Option<()> {
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
        Some((key, self.text_from(start)?))
    }

    fn literal(&mut self, word: &str, value: Value<'a>) -> Option<Value<'a>> {
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
        self.text_from(start)
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
            self.at += scan::find(self.rest(), |word| scan::equal(word, b'"') | scan::equal(word, b'\\') | scan::control(word));
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    self.at += escape(self.rest())?.1;
                    escaped = true;
                }
                _ => return None,
            }
        }
        let text = Text { raw: &self.text[start..self.at], escaped };
        self.at += 1;
        Some(text)
    }
}

/// The character that the escape at the front stands for, and the escape's length.
fn escape(text: &[u8]) -> Option<(char, usize)> {
    let short = match text.get(1)? {
        b'u' => return unicode_escape(text),
        b'b' => '\x08',
        b'f' => '\x0c',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        &b @ (b'"' | b'\\' | b'/') => char::from(b),
        _ => return None,
    };
    Some((short, 2))
}

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

fn code_unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
}

fn unescape(raw: &[u8], capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    unescaped(raw, |part| out.extend_from_slice(part));
    out
}

fn unescaped(mut raw: &[u8], mut part: impl FnMut(&[u8])) {
    loop {
        let (plain, rest) = raw.split_at(scan::find(raw, |word| scan::equal(word, b'\\')));
        part(plain);
        let Some((c, len)) = escape(rest) else { return };
        part(c.encode_utf8(&mut [0; 4]).as_bytes());
        raw = &rest[len..];
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
            Ok([Value::String(text)]) => text.text().into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn members_are_found_at_top_level_only_and_the_last_one_wins() {
        let text = br#" { "a" : [ { "b" : 1 } ] , "b" : 2 , "\u0062" : {"b":3} } "#;
        let [a, b, c] = members(text, ["a", "b", "c"]).unwrap();
        assert!(matches!(a, Value::Nested(r#"[ { "b" : 1 } ]"#)));
        assert!(matches!(b, Value::Nested(r#"{"b":3}"#)));
        assert!(matches!(c, Value::Null));
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
        let Ok([Value::String(text)]) = members(r#"{"k":"plain é"}"#.as_bytes(), ["k"]) else { panic!() };
        assert!(matches!(text.text(), Cow::Borrowed("plain é")));
    }

    #[test]
    fn nesting_ends_where_phps_does() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(accepts(&nested(511)));
        assert!(!accepts(&nested(512)));
        assert!(!accepts(&"[".repeat(1_000_000)));
        assert!(accepts(&format!("[{}]", [nested(510), nested(510)].join(","))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = members(&text, ["k"]);
        }
    }
}
