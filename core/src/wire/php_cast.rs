//! What PHP makes of a JSON value that is passed where a `string` or an `int` is declared (weak mode).
//!
//! Owns the conversions and nothing of where they are used. `None` stands for PHP's `TypeError`.

use super::json::{JsonValue, Text};
use std::borrow::Cow;

#[derive(Copy, Clone)]
pub(super) enum PhpString<'a> {
    Plain(&'a str),
    Text(Text<'a>),
    Float(f64),
}

impl<'a> PhpString<'a> {
    pub(super) fn into_bytes(self) -> Cow<'a, [u8]> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text.as_bytes()),
            Self::Text(text) => text.bytes(),
            Self::Float(number) => Cow::Owned(float_to_string(number).into_bytes()),
        }
    }

    pub(super) fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text),
            Self::Text(text) => text.text(),
            Self::Float(number) => Cow::Owned(float_to_string(number)),
        }
    }
}

/// A value where a `string` is declared. `null` is the caller's business.
pub(super) fn to_string(value: JsonValue<'_>) -> Option<PhpString<'_>> {
    match value {
        JsonValue::String(text) => Some(PhpString::Text(text)),
        JsonValue::Bool(true) => Some(PhpString::Plain("1")),
        JsonValue::Bool(false) | JsonValue::Null => Some(PhpString::Plain("")),
        JsonValue::Number("-0") => Some(PhpString::Plain("0")),
        // JSON has one spelling for every other integer, PHP's own.
        JsonValue::Number(number) => Some(match number.parse::<i64>() {
            Ok(_) => PhpString::Plain(number),
            Err(_) => PhpString::Float(parse_float(number)),
        }),
        JsonValue::Nested(_) => None,
    }
}

/// A value where an `int` is declared. `null` is the caller's business.
pub(super) fn to_int(value: JsonValue<'_>) -> Option<i64> {
    match value {
        JsonValue::Null => Some(0),
        JsonValue::Bool(b) => Some(i64::from(b)),
        JsonValue::Number(number) => number.parse().ok().or_else(|| float_to_int(parse_float(number))),
        JsonValue::String(text) => numeric_string_to_int(&text.text()),
        JsonValue::Nested(_) => None,
    }
}

fn numeric_string_to_int(text: &str) -> Option<i64> {
    let space = |c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    let number = text.trim_matches(space);
    // What Rust parses and PHP does not are words: inf, nan. What PHP parses and Rust does not, there is nothing.
    if !number.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
        return None;
    }
    number.parse().ok().or_else(|| float_to_int(number.parse().ok()?))
}

/// Truncates; outside of the range of 64 bits there is no answer.
fn float_to_int(number: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (-LIMIT..LIMIT).contains(&number).then_some(number as i64)
}

fn parse_float(json_number: &str) -> f64 {
    json_number.parse().expect("a JSON number is a Rust number")
}

/// `(string)$float` with PHP's default `precision` of 14. (PHP leaves the last zeros on whole numbers of 15 digits that end
/// in `05`: 6.9697794153200E+14. That slip is not copied.)
pub(super) fn float_to_string(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "INF" } else { "-INF" }.to_owned();
    }
    let mut out = String::new();
    super::php_json::write_decimal(&mut out, &format!("{number:.13e}"), 14, 'E');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::members;

    fn string(json: &str) -> Option<String> {
        let text = format!("{{\"k\":{json}}}");
        let [value] = members(text.as_bytes(), ["k"]).unwrap();
        to_string(value).map(|string| string.into_text().into_owned())
    }

    fn int(json: &str) -> Option<i64> {
        let text = format!("{{\"k\":{json}}}");
        let [value] = members(text.as_bytes(), ["k"]).unwrap();
        to_int(value)
    }

    #[test]
    fn scalars_become_strings_as_in_php() {
        let cast = [
            ("12", "12"),
            ("-12", "-12"),
            ("-0", "0"),
            ("-0.0", "-0"),
            ("1.5", "1.5"),
            ("1.0", "1"),
            ("1e3", "1000"),
            ("0.1234567890123456789", "0.12345678901235"),
            ("123456789012345.0", "1.2345678901234E+14"),
            ("1e14", "1.0E+14"),
            ("99999999999999.0", "99999999999999"),
            ("1e-4", "0.0001"),
            ("1e-5", "1.0E-5"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9.2233720368548E+18"),
            ("1e999", "INF"),
            ("-1e999", "-INF"),
            ("true", "1"),
            ("false", ""),
            ("null", ""),
            (r#""a\u0062""#, "ab"),
        ];
        for (json, text) in cast {
            assert_eq!(string(json).as_deref(), Some(text), "{json}");
        }
        assert_eq!(string("[]"), None);
        assert_eq!(string("{}"), None);
    }

    #[test]
    fn scalars_become_integers_as_in_php() {
        let cast = [
            ("12", 12),
            ("-0", 0),
            ("3.7", 3),
            ("-3.7", -3),
            ("1e3", 1000),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("-9223372036854775809", i64::MIN),
            ("true", 1),
            ("false", 0),
            ("null", 0),
            (r#""12""#, 12),
            (r#"" \t\n\r\u000b\f12 \f""#, 12),
            (r#""+5""#, 5),
            (r#""-5""#, -5),
            (r#""1.0""#, 1),
            (r#""1.""#, 1),
            (r#"".5""#, 0),
            (r#""1e3""#, 1000),
            (r#""007""#, 7),
            (r#""-9223372036854775809""#, i64::MIN),
        ];
        for (json, number) in cast {
            assert_eq!(int(json), Some(number), "{json}");
        }
        let refused = [
            r#""abc""#,
            r#""12abc""#,
            r#""""#,
            r#"" ""#,
            r#""-""#,
            r#"".""#,
            r#""1e""#,
            r#""0x1A""#,
            r#""inf""#,
            r#""NaN""#,
            r#""1 2""#,
            r#""12\u0000""#,
            r#""12\u00a0""#,
            r#""9223372036854775808""#,
            "9223372036854775808",
            "1e30",
            "-9300000000000000000",
            "1e999",
            "[]",
            "{}",
        ];
        for json in refused {
            assert_eq!(int(json), None, "{json}");
        }
    }
}
