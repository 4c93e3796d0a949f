//! How fast the engine reads frames of the v1 dialect, by what is in them: what a stranger sends must not take longer because of its shape.
//!
//! Owns the shapes. Measures processor time, so that whatever else the machine does matters less.

use heartbus_core::wire::{Decoded, v1};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;

/// Of the longest frame that a server accepts.
const LEN: usize = 10_000_000;

pub struct Speed {
    pub name: &'static str,
    /// Decoding alone, in millions of bytes a second: what every frame costs.
    pub decoded: f64,
    /// The same and taking the payload, which is what a host that wants data costs; nothing where the payload is no text.
    pub taken: Option<f64>,
}

/// Measures every shape, and takes the best of `rounds`.
///
/// # Errors
/// A frame is not read as it should be.
pub fn measure(rounds: u32) -> Result<Vec<Speed>, String> {
    shapes().into_iter().map(|(name, body)| speed(name, &body(), rounds)).collect()
}

fn speed(name: &'static str, body: &str, rounds: u32) -> Result<Speed, String> {
    let mut frame = vec![0xab, 0x12, 0x03];
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(body.as_bytes());
    let is_text = body.starts_with(TEXT.0);
    let (mut decoded, mut taken) = (f64::MAX, f64::MAX);
    for _ in 0..rounds {
        let start = processor_time();
        let Decoded::Frame { frame, .. } = v1::decode(black_box(&frame), u32::MAX) else { return Err(format!("{name} is refused")) };
        decoded = decoded.min(processor_time() - start);
        black_box(frame.payload.to_bytes());
        taken = taken.min(processor_time() - start);
    }
    let speed = |seconds: f64| body.len() as f64 / seconds / 1e6;
    Ok(Speed { name, decoded: speed(decoded), taken: is_text.then(|| speed(taken)) })
}

fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What stands around a payload that is a text, and around any other value.
const TEXT: (&str, &str) = (r#"{"channel_id":0,"payload":""#, r#""}"#);
const VALUE: (&str, &str) = (r#"{"channel_id":0,"payload":"","x":["#, "0]}");
/// Around members of the envelope itself.
const MEMBERS: (&str, &str) = (r#"{"channel_id":0,"#, r#""payload":""}"#);

type Body = Box<dyn Fn() -> String>;

fn shapes() -> Vec<(&'static str, Body)> {
    fn again(around: (&'static str, &'static str), unit: impl Into<String>) -> Body {
        let unit = unit.into();
        Box::new(move || repeated(around, |_| unit.clone()))
    }
    fn mixed(around: (&'static str, &'static str), parts: &'static [&'static str]) -> Body {
        Box::new(move || repeated(around, |random| parts[random.usize(..parts.len())].to_owned()))
    }
    let deep = |open: &str, close: &str, levels: usize| format!("{}0{},", open.repeat(levels), close.repeat(levels));
    vec![
        ("nested arrays", again(VALUE, deep("[", "]", 500))),
        ("nested objects", again(VALUE, deep("{\"\":", "}", 500))),
        ("nested arrays and objects", again(VALUE, deep("[{\"\":", "}]", 250))),
        ("arrays of any depth", Box::new(move || repeated(VALUE, |random| deep("[", "]", random.usize(0..8))))),
        ("empty arrays", again(VALUE, "[],")),
        ("empty arrays and objects", again(VALUE, "[{}],{\"\":[]},")),
        ("short members", again(MEMBERS, "\"a\":0,")),
        ("long members", again(MEMBERS, "\"abcdefgh\":0,")),
        ("members with other values", mixed(MEMBERS, &["\"a\":0,", "\"bc\":\"d\",", "\"\":[1],", "\"payload\":{},", "\"e\":-1.5,"])),
        ("numbers", again(VALUE, "1,")),
        ("fractions", again(VALUE, "-1.5e+10,")),
        ("long numbers", again(VALUE, "12345678901234567890123456789,")),
        ("booleans", again(VALUE, "true,false,null,")),
        ("short strings", again(VALUE, "\"a\",")),
        ("empty strings", again(VALUE, "\"\",")),
        ("whitespace", again(VALUE, "1, \t\r\n ")),
        ("mixed", mixed(VALUE, &["1,", "-1.5,", "0.25e7,", "null,", "\"\",", "\"a\\n\",", "[],", "[1],", "{\"a\":1},", "true,", "{},"])),
        ("one long string", again(TEXT, "The quick brown fox")),
        ("quotes, escaped", again(TEXT, "\\\"")),
        ("some escapes", again(TEXT, "text\\n")),
        ("\\u escapes", again(TEXT, "\\u00e9")),
        ("\\u pairs", again(TEXT, "\\ud83d\\ude00")),
        ("JSON in a string", again(TEXT, "{\\\"id\\\":12,\\\"name\\\":\\\"a b\\\"},")),
        ("unicode", again(TEXT, "é€😀")),
        ("random escapes", mixed(TEXT, &["a", "bc", "\\n", "\\\"", "\\u00e9", "é", "\\\\"])),
    ]
}

fn repeated((before, after): (&str, &str), mut unit: impl FnMut(&mut fastrand::Rng) -> String) -> String {
    let mut random = fastrand::Rng::with_seed(1);
    let mut text = before.to_owned();
    while text.len() < LEN {
        text.push_str(&unit(&mut random));
    }
    text + after
}
