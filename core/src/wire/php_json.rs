//! Writes strings and numbers byte for byte as PHP's `json_encode` does with its default flags.
//!
//! Knows no frames and reads nothing; what PHP reads is in `json` and `php_cast`.

use super::error::NotUtf8;
use super::scan;
use std::fmt::Write;

/// Appends `"text"`, escaped; nothing if `text` is not UTF-8.
pub fn write_bytes(out: &mut Vec<u8>, text: &[u8]) -> Result<(), NotUtf8> {
    let (plain, rest) = text.split_at(find_odd(text));
    // What is plain is ASCII, and that is all there is of most texts.
    let rest = if rest.is_empty() { "" } else { std::str::from_utf8(rest).map_err(|_| NotUtf8)? };
    write(out, plain, rest);
    Ok(())
}

/// Appends `"text"`, escaped.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    let (plain, rest) = text.split_at(find_odd(text.as_bytes()));
    write(out, plain.as_bytes(), rest);
}

/// Where something is to be escaped.
#[inline(always)]
fn find_odd(text: &[u8]) -> usize {
    scan::find(text, |word| {
        scan::control(word) | scan::non_ascii(word) | scan::equal(word, b'"') | scan::equal(word, b'\\') | scan::equal(word, b'/')
    })
}

/// Appends `"` `plain` `rest` `"`, with nothing in `plain` to escape.
fn write<'a>(out: &mut Vec<u8>, mut plain: &'a [u8], mut rest: &'a str) {
    out.reserve(plain.len() + rest.len() + 2);
    out.push(b'"');
    loop {
        out.extend_from_slice(plain);
        let mut chars = rest.chars();
        let Some(c) = chars.next() else { break };
        escape(out, c);
        let behind = chars.as_str();
        let next = find_odd(behind.as_bytes());
        (plain, rest) = (&behind.as_bytes()[..next], &behind[next..]);
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
    let mut shortest = format!("{number:e}");
    // Of two shortest spellings equally near PHP takes the even one, as formatting with that many digits does.
    let digits = shortest.bytes().take_while(|&b| b != b'e').filter(u8::is_ascii_digit).count();
    let even = format!("{number:.*e}", digits - 1);
    if even.parse() == Ok(number) {
        shortest = even;
    }
    write_decimal(out, &shortest, 17, 'e');
}

/// Appends seconds with their microseconds, as PHP writes what `microtime(true)` returned at that moment.
pub fn write_micros(out: &mut String, unix_micros: u64) {
    if unix_micros < 100 {
        // PHP writes these with an exponent.
        return write_f64(out, unix_micros as f64 / 1e6);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float(number: f64) -> String {
        let mut out = String::new();
        write_f64(&mut out, number);
        out
    }

    fn micros(unix_micros: u64) -> String {
        let mut out = String::new();
        write_micros(&mut out, unix_micros);
        out
    }

    fn escaped(text: &str) -> String {
        let mut out = Vec::new();
        write_str(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    /// One character after the other, as the rules are written down.
    fn naive(text: &str) -> String {
        let one = |c: char| match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '/' => "\\/".to_owned(),
            '\x08' => "\\b".to_owned(),
            '\x0c' => "\\f".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            ' '..='\x7f' => c.to_string(),
            _ => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        };
        format!("\"{}\"", text.chars().map(one).collect::<String>())
    }

    #[test]
    fn floats_are_spelled_as_php_spells_them() {
        let spelled = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.0001, "0.0001"),
            (0.00012345, "0.00012345"),
            (0.00001, "1.0e-5"),
            (1.5e-7, "1.5e-7"),
            (1e15, "1000000000000000"),
            (1e16, "10000000000000000"),
            (1e17, "1.0e+17"),
            (123456789012345678.0, "1.2345678901234568e+17"),
            (1795188820.083675, "1795188820.083675"),
            // Two shortest spellings are equally near: the even one.
            (649_907_235_280_677.0 + 0.25, "649907235280677.2"),
            (5e-324, "5.0e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "0"),
            (f64::NAN, "0"),
        ];
        for (number, text) in spelled {
            assert_eq!(float(number), text);
        }
    }

    #[test]
    fn microseconds_lose_their_trailing_zeros() {
        let spelled = [
            (1_700_000_000_250_000, "1700000000.25"),
            (1_700_000_000_000_000, "1700000000"),
            (1_795_188_820_083_675, "1795188820.083675"),
            (1_700_000_010_000_001, "1700000010.000001"),
            (100, "0.0001"),
            (99, "9.9e-5"),
            (1, "1.0e-6"),
            (0, "0"),
        ];
        for (unix_micros, text) in spelled {
            assert_eq!(micros(unix_micros), text);
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_write_nothing() {
        let mut out = b"before".to_vec();
        for bad in [&b"\xff"[..], b"a\x80", b"\xc0\x80", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe4\xb8"] {
            assert_eq!(write_bytes(&mut out, bad), Err(NotUtf8));
        }
        assert_eq!(out, b"before");
        assert_eq!(write_bytes(&mut out, "é".as_bytes()), Ok(()));
        assert_eq!(out, b"before\"\\u00e9\"");
    }

    proptest! {
        #[test]
        fn escaping_agrees_with_the_naive_model(text in any::<String>(), plain in "[ -~]{0,40}") {
            for text in [&text, &format!("{plain}{text}{plain}")] {
                prop_assert_eq!(escaped(text), naive(text));
            }
        }

        #[test]
        fn a_float_reads_back_as_itself(number in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO) {
            prop_assert_eq!(float(number).parse::<f64>().unwrap().to_bits(), number.to_bits());
        }

        #[test]
        fn a_moment_is_spelled_as_the_float_that_php_would_have(unix_micros in 0..8_000_000_000_000_000_u64) {
            let as_float = (unix_micros / 1_000_000) as f64 + (unix_micros % 1_000_000) as f64 / 1e6;
            prop_assert_eq!(micros(unix_micros), float(as_float));
        }
    }
}
