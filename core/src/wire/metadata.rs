//! What is said about a node: the JSON text of an object, or of a list, that the node sends and its host may add to.
//!
//! Owns how members are set, kept and compared. Values stay as they stand in the text. Knows no nodes.

use super::json::{self, JsonValue};
use super::php_json;
use std::borrow::Cow;

pub use super::control::MAX_METADATA_LEN;

/// The text is no JSON object, or no metadata that anybody could have.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct NotMetadata;

/// What a node has, and which members of that are its host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    pub text: String,
    pub own: Vec<Box<str>>,
}

/// The keys of an object of members to be set.
///
/// # Errors
/// It is no object, or an empty one.
pub fn keys(members: &str) -> Result<Vec<Box<str>>, NotMetadata> {
    let is_object = members.trim_start().starts_with('{');
    let found = json::entries(members).map_err(|_| NotMetadata)?;
    if !is_object || found.is_empty() {
        return Err(NotMetadata);
    }
    Ok(found.into_keys().map(Into::into).collect())
}

/// The host sets members: `text` with those of `members` in the place of its own, or behind them.
///
/// # Errors
/// `members` is no object with members.
pub fn set(text: &str, own: &[Box<str>], members: &str) -> Result<Merged, NotMetadata> {
    let keys = keys(members)?;
    let mut all = json::entries(text).unwrap_or_default();
    all.extend(json::entries(members).map_err(|_| NotMetadata)?);
    let mut own = own.to_vec();
    own.extend(keys.into_iter().filter(|key| !own.contains(key)).collect::<Vec<_>>());
    Ok(Merged { text: write(all.iter().map(|(key, value)| (&**key, *value))), own })
}

/// The node sends its metadata anew: what its host has set stays, but where the node says something itself.
pub fn renew(sent: &str, before: &str, own: &[Box<str>]) -> Merged {
    let mut all = json::entries(sent).unwrap_or_default();
    let old = json::entries(before).unwrap_or_default();
    let kept: Vec<_> = own.iter().filter(|key| !all.contains_key(&***key)).filter_map(|key| Some((key, *old.get(&**key)?))).collect();
    if kept.is_empty() {
        return Merged { text: sent.to_owned(), own: Vec::new() };
    }
    all.extend(kept.iter().map(|(key, value)| (Cow::Borrowed(&***key), *value)));
    let text = write(all.iter().map(|(key, value)| (&**key, *value)));
    Merged { text, own: kept.into_iter().map(|(key, _)| key.clone()).collect() }
}

fn write<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = vec![b'{'];
    for (key, value) in members {
        if out.len() > 1 {
            out.push(b',');
        }
        php_json::write_str(&mut out, key);
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
    String::from_utf8(out).expect("made of texts")
}

/// A value that a member may be compared with.
#[derive(Clone, Debug, PartialEq)]
enum Scalar {
    Null,
    Bool(bool),
    Whole(i128),
    Number(f64),
    Text(String),
}

impl Scalar {
    fn of(value: &str) -> Option<Self> {
        match json::only_value(value)? {
            JsonValue::Null => Some(Self::Null),
            JsonValue::Bool(flag) => Some(Self::Bool(flag)),
            JsonValue::Number(number) => {
                Some(number.parse().map_or_else(|_| Self::Number(number.parse().unwrap_or(f64::NAN)), Scalar::Whole))
            }
            JsonValue::String(text) => Some(Self::Text(text.text().into_owned())),
            JsonValue::Nested(_) => None,
        }
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Whole(whole), Self::Number(number)) | (Self::Number(number), Self::Whole(whole)) => *whole as f64 == *number,
            (one, other) => one == other,
        }
    }
}

/// Members that metadata must have to be wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted(Vec<(String, Scalar)>);

/// Members of one search.
pub const MAX_WANTED: usize = 16;

impl Wanted {
    /// An object of scalars. Null wants a member that is null, or not there.
    ///
    /// # Errors
    /// It is none, or has more members than [`MAX_WANTED`].
    pub fn parse(members: &str) -> Result<Self, NotMetadata> {
        keys(members)?;
        let members = json::entries(members).map_err(|_| NotMetadata)?;
        if members.len() > MAX_WANTED {
            return Err(NotMetadata);
        }
        let scalars = members.into_iter().map(|(key, value)| Some((key.into_owned(), Scalar::of(value)?)));
        scalars.collect::<Option<_>>().map(Wanted).ok_or(NotMetadata)
    }

    pub fn matches(&self, text: &str) -> bool {
        let Ok(members) = json::entries(text) else { return false };
        self.0.iter().all(|(key, wanted)| match members.get(key.as_str()) {
            None => *wanted == Scalar::Null,
            Some(value) => Scalar::of(value).is_some_and(|value| value.equals(wanted)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own(keys: &[&str]) -> Vec<Box<str>> {
        keys.iter().map(|key| (*key).into()).collect()
    }

    #[test]
    fn members_are_set_in_their_places_or_behind_the_others() {
        let merged = set(r#"{"a":1,"b":[1, 2.0],"a":3}"#, &[], r#"{"b":null,"c":"x"}"#).unwrap();
        assert_eq!(merged, Merged { text: r#"{"a":3,"b":null,"c":"x"}"#.into(), own: own(&["b", "c"]) });
        let merged = set(&merged.text, &merged.own, r#"{"c":{"d":1}}"#).unwrap();
        assert_eq!(merged, Merged { text: r#"{"a":3,"b":null,"c":{"d":1}}"#.into(), own: own(&["b", "c"]) });
        assert_eq!(set("[]", &[], r#"{"a":1}"#).unwrap().text, r#"{"a":1}"#);
        // As PHP has it: a list is an array with the keys 0, 1 and so on.
        assert_eq!(set(r#"["x","y"]"#, &[], r#"{"1":"z","k":0}"#).unwrap().text, r#"{"0":"x","1":"z","k":0}"#);
        assert_eq!(set("{}", &[], r#"{"\u00e9\/":"\u00e9"}"#).unwrap().text, r#"{"\u00e9\/":"\u00e9"}"#);
        for no_members in ["", "{}", "[]", "[1]", "1", "null", r#"{"a":}"#, r#"{"a":1"#, r#"{"a":1} x"#] {
            assert_eq!(set("{}", &[], no_members), Err(NotMetadata), "{no_members}");
        }
    }

    #[test]
    fn what_a_node_says_itself_wins_and_the_rest_of_its_host_s_stays() {
        let merged = renew(r#"{"v":2}"#, r#"{"v":9,"w":1,"room":"a"}"#, &own(&["v", "room"]));
        assert_eq!(merged, Merged { text: r#"{"v":2,"room":"a"}"#.into(), own: own(&["room"]) });
        // From now on it is the node's.
        let merged = renew("[]", &merged.text, &merged.own);
        assert_eq!(merged, Merged { text: r#"{"room":"a"}"#.into(), own: own(&["room"]) });
        let merged = renew(r#"{ "room" : "b" }"#, &merged.text, &merged.own);
        assert_eq!(merged, Merged { text: r#"{ "room" : "b" }"#.into(), own: own(&[]) });
    }

    #[test]
    fn members_are_compared_by_what_they_mean() {
        let text = r#"{"room":"caf\u00e9","n":1,"f":1.5,"big":9007199254740993,"yes":true,"no":null,"list":[1]}"#;
        let matches = |wanted: &str| Wanted::parse(wanted).unwrap().matches(text);
        for wanted in [
            r#"{"room":"café"}"#,
            r#"{"n":1.0}"#,
            r#"{"n":1e0,"f":15e-1}"#,
            r#"{"big":9007199254740993}"#,
            r#"{"yes":true}"#,
            r#"{"no":null}"#,
            r#"{"none":null}"#,
        ] {
            assert!(matches(wanted), "{wanted}");
        }
        for other in [
            r#"{"room":"cafe"}"#,
            r#"{"n":"1"}"#,
            r#"{"n":2}"#,
            r#"{"big":9007199254740992}"#,
            r#"{"yes":1}"#,
            r#"{"no":false}"#,
            r#"{"list":1}"#,
            r#"{"none":0}"#,
            r#"{"n":1,"f":2}"#,
        ] {
            assert!(!matches(other), "{other}");
        }
        assert!(!Wanted::parse(r#"{"0":"x"}"#).unwrap().matches("[]"));
        assert!(Wanted::parse(r#"{"0":"x"}"#).unwrap().matches(r#"["x"]"#));
        let many: String = (0..=MAX_WANTED).map(|n| format!(r#""{n}":1,"#)).collect();
        for wrong in ["{}", "[]", "1", r#"{"a":[]}"#, r#"{"a":{}}"#, &format!("{{{}}}", many.trim_end_matches(','))] {
            assert_eq!(Wanted::parse(wrong), Err(NotMetadata), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_texts_are_set_and_renewed_without_panic_and_stay_json(one in ".{0,60}", other in ".{0,60}", key in ".{0,8}", value in -1000i64..1000) {
            let _ = set(&one, &[], &other);
            let _ = renew(&one, &other, &own(&[&key]));
            let _ = Wanted::parse(&one).map(|wanted| wanted.matches(&other));
            let members = write([(key.as_str(), value.to_string().as_str())].into_iter());
            let merged = set("[]", &[], &members).unwrap();
            prop_assert_eq!(&merged.text, &members);
            prop_assert_eq!(keys(&merged.text), Ok(own(&[&key])));
            prop_assert!(Wanted::parse(&members).unwrap().matches(&merged.text));
            prop_assert_eq!(renew("{}", &merged.text, &merged.own).text, merged.text);
        }
    }
}
