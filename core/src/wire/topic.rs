//! Names of topics and filters that match them.
//!
//! Owns what a name may look like, and the rule by which a filter matches: MQTT's, level by level, where levels are what stands
//! between slashes. Knows neither who subscribes nor what is published.

use std::fmt;

/// In bytes.
pub const MAX_LEN: usize = 255;

/// Why a text is no name of a topic, or no filter.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum BadTopic {
    Empty,
    TooLong,
    ControlCharacter,
    /// A name with a level that would be a wildcard in a filter.
    Wildcard,
    /// `#` stands for the rest, so nothing follows it.
    Misplaced,
}

impl fmt::Display for BadTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "A topic has at least one byte",
            Self::TooLong => "A topic has at most 255 bytes",
            Self::ControlCharacter => "A topic has no control characters",
            Self::Wildcard => "A topic to publish to has no level that is + or #",
            Self::Misplaced => "In a filter # stands for the rest, so it is the last level",
        })
    }
}

impl std::error::Error for BadTopic {}

/// What may be subscribed to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Filter<'a> {
    /// This topic.
    Exact(&'a str),
    /// All topics that match.
    Wild(&'a str),
}

impl<'a> Filter<'a> {
    /// A level that is `+` stands for any one level, a last level that is `#` for any number of levels, none included.
    ///
    /// # Errors
    /// [`BadTopic`]: it is no filter.
    pub fn parse(text: &'a str) -> Result<Self, BadTopic> {
        check_text(text)?;
        if text.split('/').rev().skip(1).any(|level| level == "#") {
            return Err(BadTopic::Misplaced);
        }
        Ok(Self::known(text))
    }

    /// What was parsed before.
    pub fn known(text: &'a str) -> Self {
        if has_wildcard(text) { Self::Wild(text) } else { Self::Exact(text) }
    }

    pub fn text(self) -> &'a str {
        match self {
            Self::Exact(text) | Self::Wild(text) => text,
        }
    }
}

/// # Errors
/// [`BadTopic`]: nothing can be published under this name.
pub fn check_name(text: &str) -> Result<(), BadTopic> {
    check_text(text)?;
    if has_wildcard(text) { Err(BadTopic::Wildcard) } else { Ok(()) }
}

/// The names that belong to the server begin with this; a filter that begins with a wildcard does not match them.
pub fn is_of_server(name: &str) -> bool {
    name.starts_with('$')
}

/// Where the server tells which nodes come and go.
pub const NODES: &str = "$nodes";

/// Below it the server tells which nodes subscribe to a topic, and which do no longer.
pub const MEMBERS: &str = "$presence";

/// Where it tells that of this topic; none where that would be no name: it is too long.
pub fn of_members(name: &str) -> Option<String> {
    Some(format!("{MEMBERS}/{name}")).filter(|name| name.len() <= MAX_LEN)
}

/// Whether a filter is about who subscribes to topics.
pub fn is_of_members(filter: &str) -> bool {
    is_below(filter, MEMBERS)
}

/// Whether a name or a filter is about who is there.
pub fn is_of_presence(filter: &str) -> bool {
    is_below(filter, NODES) || is_of_members(filter)
}

fn is_below(filter: &str, top: &str) -> bool {
    filter.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a filter, exact or not, matches a name.
pub fn matches(filter: &str, name: &str) -> bool {
    let mut levels = name.split('/');
    let mut filters = filter.split('/');
    if is_of_server(name) && filters.clone().next().is_some_and(|first| first == "+" || first == "#") {
        return false;
    }
    loop {
        match (filters.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(filter), Some(level)) if filter == level => {}
            _ => return false,
        }
    }
}

fn has_wildcard(text: &str) -> bool {
    text.split('/').any(|level| level == "+" || level == "#")
}

fn check_text(text: &str) -> Result<(), BadTopic> {
    if text.is_empty() {
        Err(BadTopic::Empty)
    } else if text.len() > MAX_LEN {
        Err(BadTopic::TooLong)
    } else if text.chars().any(char::is_control) {
        Err(BadTopic::ControlCharacter)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_255_bytes_without_control_characters_and_no_level_that_is_a_wildcard() {
        for name in ["a", "/", "/chat/world", "chat//x", "中文/主题", "#general", "c++", "a/b#", "$nodes", &"x".repeat(255)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
            assert_eq!(Filter::parse(name), Ok(Filter::Exact(name)));
            assert!(matches(name, name), "{name}");
        }
        for (name, why) in [
            ("", BadTopic::Empty),
            (&"x".repeat(256), BadTopic::TooLong),
            ("a\nb", BadTopic::ControlCharacter),
            ("a\0", BadTopic::ControlCharacter),
            ("a\u{85}b", BadTopic::ControlCharacter),
            ("+", BadTopic::Wildcard),
            ("a/+/b", BadTopic::Wildcard),
            ("a/#", BadTopic::Wildcard),
        ] {
            assert_eq!(check_name(name), Err(why), "{name}");
        }
    }

    #[test]
    fn the_topic_of_nodes_is_one_of_the_server_s() {
        for (filter, is_of_presence_too) in
            [("$nodes", true), ("$nodes/#", true), ("$nodes/+", true), ("$nodesx", false), ("$user/x", false)]
        {
            assert!(is_of_server(filter) && is_of_presence(filter) == is_of_presence_too, "{filter}");
        }
        assert!(
            is_of_presence("$presence/a/b") && is_of_members("$presence/#") && !is_of_members("$nodes") && !is_of_presence("$presences/a")
        );
        assert_eq!((of_members("a/b").as_deref(), of_members(&"x".repeat(246))), (Some("$presence/a/b"), None));
        assert!(!is_of_presence("nodes") && !is_of_presence("+") && !is_of_presence("#"));
        assert!(matches("$nodes/#", NODES) && !matches("#", NODES) && !matches("+", NODES));
    }

    #[test]
    fn in_a_filter_the_rest_stands_last() {
        for text in ["+", "#", "a/+", "+/b", "a/#", "a/+/c/#"] {
            assert_eq!(Filter::parse(text), Ok(Filter::Wild(text)));
        }
        for text in ["#/a", "a/#/b", "#/#"] {
            assert_eq!(Filter::parse(text), Err(BadTopic::Misplaced), "{text}");
        }
        assert_eq!(Filter::parse("a/\t"), Err(BadTopic::ControlCharacter));
    }

    #[test]
    fn a_filter_matches_level_by_level_as_in_mqtt() {
        for (filter, yes, no) in [
            ("a/+", &["a/b", "a/"][..], &["a", "a/b/c", "b/a"][..]),
            ("+/b", &["a/b", "/b"], &["b", "a/b/c"]),
            ("a/#", &["a", "a/", "a/b", "a/b/c"], &["ab", "b/a"]),
            ("#", &["a", "/", "a/b"], &["$nodes", "$sys/x"]),
            ("+/x", &["a/x"], &["$sys/x"]),
            ("$sys/+", &["$sys/x"], &["$sys", "sys/x"]),
            ("a/+/c", &["a/b/c", "a//c"], &["a/b/b/c", "a/c"]),
            ("a", &["a"], &["a/", "A", ""]),
        ] {
            for name in yes {
                assert!(matches(filter, name), "{filter} {name}");
            }
            for name in no {
                assert!(!matches(filter, name), "{filter} {name}");
            }
        }
    }
}
