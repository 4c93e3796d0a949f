//! Texts for people: what strangers wrote, made harmless, and the known name that an unknown one was meant to be.

use std::borrow::Cow;
use std::fmt::Write;

/// The text as it is, but for what does something to a terminal or to the shape of a log instead of being seen: control
/// characters, ends of lines, and what turns the direction of writing. These are written as JSON would escape them.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unseen) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            // Writing to a string cannot fail. All of them are in the first 65,536 characters.
            unseen if is_unseen(unseen) => write!(shown, "\\u{:04x}", u32::from(unseen)).unwrap_or_default(),
            seen => shown.push(seen),
        }
    }
    Cow::Owned(shown)
}

fn is_unseen(character: char) -> bool {
    // The ends of lines and paragraphs, marks and overrides of the direction.
    character.is_control() || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Longer ones are no misspelt names.
const MAX_NAME: usize = 64;

/// The known name that somebody may have meant: at most one letter in three is wrong, missing, too many or in the wrong place.
/// Case and punctuation do not matter.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = |text: &str| text.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    if name.len() > MAX_NAME {
        return None;
    }
    let name = letters(name);
    let distances = known.into_iter().map(|known| (strsim::damerau_levenshtein(&name, &letters(known)), known));
    let (distance, known) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (name.len().min(known.len()) / 3).max(1)).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_do_something_to_a_terminal_or_a_log_is_shown_instead() {
        assert_eq!(printable("a\r\n[ERROR] b\tc"), r"a\r\n[ERROR] b\tc");
        assert_eq!(printable("\u{1b}[2J\u{7f}\u{9b}31m\0"), r"\u001b[2J\u007f\u009b31m\u0000");
        assert_eq!(printable("a\u{202e}b\u{2066}c\u{2028}d"), r"a\u202eb\u2066c\u2028d");
    }

    #[test]
    fn what_can_be_seen_stays_as_it_is_and_is_not_copied() {
        for text in ["", "node-1", "设备 é \\n \"q\" 🦀", "a b\u{a0}c"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn a_misspelt_name_has_a_nearest_one_and_another_word_has_none() {
        let known = ["heartbeat_timeout", "host", "port", "data.batch", "max_connections"];
        for (name, meant) in [
            ("heartbeat_timout", "heartbeat_timeout"),
            ("prot", "port"),
            ("maxConnections", "max_connections"),
            ("MAX-CONNECTION", "max_connections"),
            ("data_batch", "data.batch"),
        ] {
            assert_eq!(nearest(name, known), Some(meant), "{name}");
        }
        for name in ["", "colour", "timeout", "x", &"port".repeat(1000)] {
            assert_eq!(nearest(name, known), None, "{name}");
        }
        assert_eq!(nearest("port", []), None);
    }
}
