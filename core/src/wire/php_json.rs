//! Writes strings and numbers byte for byte as PHP's `json_encode` does with its default flags.
//!
//! Knows no frames and reads nothing; what PHP reads is in `json` and `php_cast`.

use super::NotUtf8;
use std::fmt::Write;

/// Index of the first byte that `wanted` names, or the length.
#[inline]
pub(super) fn find(bytes: &[u8], wanted: impl Fn(u8) -> bool + Copy) -> usize {
    // Without a branch per byte the compiler looks at a whole block at once.
    const BLOCK: usize = 32;
    let mut start = 0;
    for block in bytes.chunks_exact(BLOCK) {
        if block.iter().fold(false, |found, &b| found | wanted(b)) {
            break;
        }
        start += BLOCK;
    }
    bytes[start..].iter().position(|&b| wanted(b)).map_or(bytes.len(), |i| start + i)
}

/// Appends `"text"`, escaped; nothing if `text` is not UTF-8.
pub fn write_bytes(out: &mut Vec<u8>, text: &[u8]) -> Result<(), NotUtf8> {
    write_str(out, std::str::from_utf8(text).map_err(|_| NotUtf8)?);
    Ok(())
}

/// Appends `"text"`, escaped.
pub fn write_str(out: &mut Vec<u8>, mut text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    loop {
        let plain = find(text.as_bytes(), |b| !(0x20..0x80).contains(&b) || matches!(b, b'"' | b'\\' | b'/'));
        out.extend_from_slice(&text.as_bytes()[..plain]);
        let mut rest = text[plain..].chars();
        let Some(c) = rest.next() else { break };
        escape(out, c);
        text = rest.as_str();
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, c: char) {
    let short = match c {
        '"' | '\\' | '/' => c as u8,
        '\x08' => b'b',
        '\x0c' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let digit = |shift: u32| b"0123456789abcdef"[usize::from(*unit >> shift & 0xf)];
                out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends a finite float. Infinities and NaN, which JSON cannot carry and PHP refuses, become `0` as PHP's partial output has it.
pub fn write_f64(out: &mut String, number: f64) {
    let number = if number.is_finite() { number } else { 0.0 };
    write_decimal(out, &format!("{number:e}"), 17, 'e');
}

/// Appends seconds with their microseconds, as PHP writes what `microtime(true)` returned at that moment.
pub fn write_micros(out: &mut String, unix_micros: u64) {
    // A float's shortest digits are the decimal's own: until the year 2242 floats lie closer together than microseconds.
    let (seconds, micros) = (unix_micros / 1_000_000, unix_micros % 1_000_000);
    let _ = write!(out, "{seconds}.{micros:06}");
    let len = out.trim_end_matches('0').trim_end_matches('.').len();
    out.truncate(len);
}

/// Appends a number given as `d.ddde±n` the way PHP's `gcvt` sets the point: as an exponent when the number is below 1e-4
/// or has more than `max_digits` digits before the point.
pub(super) fn write_decimal(out: &mut String, scientific: &str, max_digits: i32, exponent_char: char) {
    let (mantissa, exponent) = scientific.split_once('e').expect("Rust's scientific notation has an exponent");
    let exponent = exponent.parse::<i32>().expect("and it is a number");
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |positive| ("-", positive));
    let (first, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    out.push_str(sign);
    if !(-4..max_digits).contains(&exponent) {
        let fraction = if fraction.is_empty() { "0" } else { fraction };
        let _ = write!(out, "{first}.{fraction}{exponent_char}{exponent:+}");
    } else if exponent < 0 {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        let _ = write!(out, "0.{zeros}{first}{fraction}");
    } else {
        let whole = exponent as usize;
        let point = whole.min(fraction.len());
        let _ = write!(out, "{first}{:0<whole$}", &fraction[..point]);
        if point < fraction.len() {
            let _ = write!(out, ".{}", &fraction[point..]);
        }
    }
}
