//! What PHP makes of a JSON value that is passed where a `string` or an `int` is declared (weak mode).
//!
//! Owns the conversions and nothing of where they are used. `None` stands for PHP's `TypeError`.

use super::json::{Text, Value};
use std::borrow::Cow;

#[derive(Copy, Clone)]
pub(super) enum PhpString<'a> {
    Plain(&'a str),
    Text(Text<'a>),
    Float(f64),
}

impl<'a> PhpString<'a> {
    pub(super) fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text),
            Self::Text(text) => text.text(),
            Self::Float(number) => Cow::Owned(float_to_string(number)),
        }
    }
}

/// A value where a `string` is declared. `null` is the caller's business.
pub(super) fn to_string(value: Value<'_>) -> Option<PhpString<'_>> {
    match value {
        Value::String(text) => Some(PhpString::Text(text)),
        Value::Bool(true) => Some(PhpString::Plain("1")),
        Value::Bool(false) | Value::Null => Some(PhpString::Plain("")),
        Value::Number("-0") => Some(PhpString::Plain("0")),
        // JSON has one spelling for every other integer, PHP's own.
        Value::Number(number) => Some(match number.parse::<i64>() {
            Ok(_) => PhpString::Plain(number),
            Err(_) => PhpString::Float(parse_float(number)),
        }),
        Value::Nested(_) => None,
    }
}

/// A value where an `int` is declared. `null` is the caller's business.
pub(super) fn to_int(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Null => Some(0),
        Value::Bool(b) => Some(i64::from(b)),
        Value::Number(number) => number.parse().ok().or_else(|| float_to_int(parse_float(number))),
        Value::String(text) => numeric_string_to_int(&text.text()),
        Value::Nested(_) => None,
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

/// `(string)$float` with PHP's default `precision` of 14.
pub(super) fn float_to_string(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "INF" } else { "-INF" }.to_owned();
    }
    let mut out = String::new();
    super::php_json::write_decimal(&mut out, &format!("{number:.13e}"), 14, 'E');
    out
}
