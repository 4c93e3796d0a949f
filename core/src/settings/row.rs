//! What a row of the table of settings is: the kind of value that it takes and the check of its bounds, what the bindings have of it, and its
//! place in a struct. The rows themselves are [`super`]'s.

use crate::error::{Error, ErrorKind};
use ipnet::IpNet;
use std::time::Duration;

/// What a setting takes.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum ValueKind {
    Whole {
        least: u64,
        most: u64,
    },
    Number {
        least: f64,
        most: f64,
    },
    /// Seconds from 1 ms to [`YEAR`], fractions allowed.
    Seconds,
    /// The same, or 0 for none.
    SecondsOrNone,
    Flag,
    Text,
    /// A user or a group of the system, by name or number.
    Account,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Addresses and networks.
    Networks,
    /// The name of a server.
    Name,
    /// Where the bus socket is.
    Socket,
    /// `host:port`; or true: with the main port; or false.
    Door,
    /// Texts.
    Texts,
    /// Filters of topics, and what is kept of those that each matches.
    History,
    /// JSON text.
    Json,
    /// Nobody looks at it.
    Any,
}

/// A value on its way from a binding into a struct, or out of one.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingValue {
    None,
    Whole(u64),
    Number(f64),
    Time(Duration),
    Flag(bool),
    Text(String),
    /// JSON text.
    Json(String),
    Networks(Vec<IpNet>),
    Texts(Vec<String>),
    /// Names, and the members that each has, by the names of their rows.
    Rules(Vec<(String, RuleMembers)>),
}

/// Settings inside of a setting.
pub type RuleMembers = Vec<(&'static str, SettingValue)>;

impl SettingValue {
    /// As JSON.
    pub fn json(&self) -> String {
        match self {
            Self::None => "null".to_owned(),
            Self::Whole(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Time(time) => time.as_secs_f64().to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::Json(json) => json.clone(),
            Self::Texts(texts) => format!("{texts:?}"),
            Self::Rules(rules) => object(rules.iter().map(|(name, members)| {
                let members = members.iter().map(|(name, value)| (*name, value.json()));
                (&**name, object(members))
            })),
            Self::Networks(networks) => format!("{:?}", networks.iter().map(ToString::to_string).collect::<Vec<_>>()),
        }
    }

    /// As PHP code; empty for none.
    pub fn php(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Number(number) => format!("{number:?}"),
            Self::Text(text) => format!("'{text}'"),
            Self::Rules(rules) if rules.is_empty() => "[]".to_owned(),
            other => other.json(),
        }
    }
}

fn object<'a>(members: impl Iterator<Item = (&'a str, String)>) -> String {
    format!("{{{}}}", members.map(|(name, json)| format!("{name:?}:{json}")).collect::<Vec<_>>().join(","))
}

/// What a binding has of a setting.
#[derive(Copy, Clone, Debug)]
pub struct Binding {
    /// The key; empty where the binding has none.
    pub name: &'static str,
    /// What people are told of the default where that is no plain value.
    pub default: &'static str,
    /// What is to be said beyond the text.
    pub note: &'static str,
}

/// Keys of the PHP library, which has its own ways of reading them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PhpReading {
    /// A key of ours.
    Plain,
    /// As [`PhpReading::Plain`], but that null is a value like others.
    WithNull,
    /// Null is refused; and so is a number in another form.
    Required,
    /// As the library checks sizes.
    Positive,
    /// What is over the most is refused in the library's words.
    NotExceeding,
    /// The library hands it to a constructor unchecked, and PHP refuses it there by its type.
    Argument { class: &'static str, number: u32, parameter: &'static str, kind: &'static str },
}

/// A row without its place.
#[derive(Copy, Clone, Debug)]
pub struct Setting {
    pub kind: ValueKind,
    /// May be empty.
    pub unit: &'static str,
    /// For people, in Markdown.
    pub text: &'static str,
    pub php: Binding,
    pub php_reading: PhpReading,
    pub c: Binding,
}

impl Setting {
    pub(super) const fn new(name: &'static str, kind: ValueKind, text: &'static str) -> Self {
        let binding = Binding { name, default: "", note: "" };
        let unit = if matches!(kind, ValueKind::Seconds | ValueKind::SecondsOrNone) { "seconds" } else { "" };
        Self { kind, unit, text, php: binding, php_reading: PhpReading::Plain, c: binding }
    }

    pub(super) const fn named(mut self, name: &'static str) -> Self {
        (self.php.name, self.c.name) = (name, name);
        self
    }

    pub(super) const fn php_name(mut self, name: &'static str) -> Self {
        self.php.name = name;
        self
    }

    pub(super) const fn only_c(self) -> Self {
        self.php_name("")
    }

    pub(super) const fn only_php(mut self) -> Self {
        self.c.name = "";
        self
    }

    pub(super) const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    pub(super) const fn reading(mut self, reading: PhpReading) -> Self {
        self.php_reading = reading;
        self
    }

    pub(super) const fn php_default(mut self, default: &'static str) -> Self {
        self.php.default = default;
        self
    }

    pub(super) const fn php_note(mut self, note: &'static str) -> Self {
        self.php.note = note;
        self
    }

    pub(super) const fn c_note(mut self, note: &'static str) -> Self {
        self.c.note = note;
        self
    }

    /// Its keys in PHP: its own, and the engine's where that is another one. None where PHP has no such setting.
    pub fn php_names(&self) -> Vec<&'static str> {
        let mut names = vec![self.php.name, self.c.name];
        names.retain(|name| !self.php.name.is_empty() && !name.is_empty());
        names.dedup();
        names
    }

    /// # Errors
    /// [`ErrorKind::Config`] with a text that names the setting and what it wants.
    fn check(&self, value: &SettingValue) -> Result<(), Error> {
        let name = if self.c.name.is_empty() { self.php.name } else { self.c.name };
        match (self.kind, value) {
            (ValueKind::Whole { least, most }, SettingValue::Whole(number)) => check_whole(name, *number, least, most),
            (ValueKind::Number { least, most }, SettingValue::Number(number)) if !(least..=most).contains(number) => {
                Err(wrong(format!("{name} must be a number from {least} to {most}")))
            }
            (ValueKind::Seconds, SettingValue::Time(time)) => check_timeout(name, *time),
            (ValueKind::Door, SettingValue::Text(address)) => check_address(name, address),
            _ => Ok(()),
        }
    }
}

/// A setting, and its place in a struct.
pub struct Row<T> {
    pub setting: Setting,
    pub(super) put: fn(&mut T, SettingValue) -> bool,
    pub(super) get: fn(&T) -> SettingValue,
}

impl<T> Row<T> {
    /// Puts a value of the setting's kind, within its bounds, into its place.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] for a value of another kind.
    pub fn put(&self, settings: &mut T, value: SettingValue) -> Result<(), Error> {
        let shown = format!("{}{}: not of its kind", self.setting.php.name, self.setting.c.name);
        if (self.put)(settings, value) { Ok(()) } else { Err(Error::new(ErrorKind::Internal, shown)) }
    }

    pub fn get(&self, settings: &T) -> SettingValue {
        match ((self.get)(settings), self.setting.kind) {
            (SettingValue::Text(text), ValueKind::Json) => SettingValue::Json(text),
            (value, _) => value,
        }
    }
}

/// A setting and what it is unless it is set.
#[derive(Clone, Debug)]
pub struct Listed {
    pub setting: Setting,
    pub default: SettingValue,
}

impl Listed {
    /// What people are told of the default in PHP, in Markdown.
    pub fn php_default(&self) -> String {
        match &self.default {
            _ if !self.setting.php.default.is_empty() => self.setting.php.default.to_owned(),
            SettingValue::None => "none".to_owned(),
            SettingValue::Text(_) | SettingValue::Json(_) | SettingValue::Networks(_) | SettingValue::Texts(_) | SettingValue::Rules(_) => {
                format!("`{}`", self.default.php())
            }
            plain => plain.php(),
        }
    }
}

/// A struct that is made of rows.
pub trait Settings: Default + 'static {
    const ROWS: &'static [Row<Self>];

    /// # Errors
    /// [`ErrorKind::Config`] with a text that names the setting and what it wants.
    fn check_bounds(&self) -> Result<(), Error> {
        Self::ROWS.iter().try_for_each(|row| row.setting.check(&row.get(self)))
    }

    fn listed() -> Vec<Listed> {
        let defaults = Self::default();
        Self::ROWS.iter().map(|row| Listed { setting: row.setting, default: row.get(&defaults) }).collect()
    }
}

// ---- what a row is made of ----

/// The type of a setting.
pub(super) trait Field: Sized {
    /// None for a value of another kind.
    fn of(value: SettingValue) -> Option<Self>;
    fn value(&self) -> SettingValue;
}

macro_rules! fields {
    ($($type:ty: $variant:ident, $from:expr, $into:expr;)*) => {$(
        impl Field for $type {
            fn of(value: SettingValue) -> Option<$type> {
                let SettingValue::$variant(value) = value else { return None };
                Some($from(value))
            }

            fn value(&self) -> SettingValue {
                SettingValue::$variant($into(self))
            }
        }
    )*};
}

// Those beyond the range of a small type have been refused by the bounds of their row, or mean "no limit".
fields! {
    u16: Whole, |number| u16::try_from(number).unwrap_or(u16::MAX), |number: &u16| u64::from(*number);
    u32: Whole, |number| u32::try_from(number).unwrap_or(u32::MAX), |number: &u32| u64::from(*number);
    u64: Whole, |number| number, |number: &u64| *number;
    i64: Whole, |number| i64::try_from(number).unwrap_or(i64::MAX), |number: &i64| u64::try_from(*number).unwrap_or_default();
    usize: Whole, |number| usize::try_from(number).unwrap_or(usize::MAX), |number: &usize| *number as u64;
    f64: Number, |number| number, |number: &f64| *number;
    Duration: Time, |time| time, |time: &Duration| *time;
    bool: Flag, |flag| flag, |flag: &bool| *flag;
    Vec<String>: Texts, |texts| texts, |texts: &Vec<String>| texts.clone();
    Vec<IpNet>: Networks, |networks| networks, |networks: &Vec<IpNet>| networks.clone();
}

impl Field for String {
    fn of(value: SettingValue) -> Option<Self> {
        if let SettingValue::Text(text) | SettingValue::Json(text) = value { Some(text) } else { None }
    }

    fn value(&self) -> SettingValue {
        SettingValue::Text(self.clone())
    }
}

impl<T: Field> Field for Option<T> {
    fn of(value: SettingValue) -> Option<Self> {
        if value == SettingValue::None { Some(None) } else { T::of(value).map(Some) }
    }

    fn value(&self) -> SettingValue {
        self.as_ref().map_or(SettingValue::None, Field::value)
    }
}

impl Field for () {
    fn of(_: SettingValue) -> Option<()> {
        Some(())
    }

    fn value(&self) -> SettingValue {
        SettingValue::None
    }
}

/// Settings that are one of a few words.
macro_rules! choices {
    ($($(#[$meta:meta])* pub enum $name:ident { $($(#[$of_variant:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of_variant])* $variant,)* }

        impl $name {
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// Whatever its case.
            pub fn named(word: &str) -> Option<$name> {
                $(if word.eq_ignore_ascii_case($word) {
                    return Some($name::$variant);
                })*
                None
            }

            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl Field for $name {
            fn of(value: SettingValue) -> Option<$name> {
                if let SettingValue::Text(word) = value { $name::named(&word) } else { None }
            }

            fn value(&self) -> SettingValue {
                SettingValue::Text(self.word().to_owned())
            }
        }
    )*};
}

/// Makes structs of rows. A row is the field's text, its type and default, its kind, and its other columns.
macro_rules! settings {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[doc = $text:literal])+
                pub $field:ident: $type:ty = $default:expr, $kind:expr $(, $column:ident($($value:expr),*))*;
            )*
            $(besides {
                $($(#[$of_other:meta])* pub $other:ident: $other_type:ty = $other_default:expr;)*
            })?
        }
    )*) => {$(
        $(#[$meta])*
        pub struct $name {
            $($(#[doc = $text])+ pub $field: $type,)*
            $($($(#[$of_other])* pub $other: $other_type,)*)?
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* $($($other: $other_default,)*)? }
            }
        }

        impl Settings for $name {
            const ROWS: &'static [Row<$name>] = &[$(Row {
                setting: Setting::new(stringify!($field), $kind, concat!($($text),+).trim_ascii())$(.$column($($value),*))*,
                put: |settings, value| Field::of(value).map(|value| settings.$field = value).is_some(),
                get: |settings| settings.$field.value(),
            }),*];
        }
    )*};
}

pub(super) use {choices, settings};

// ---- checks ----

pub(super) fn wrong(text: String) -> Error {
    Error::new(ErrorKind::Config, text)
}

/// The largest number that a setting may be: JSON and floats carry whole numbers exactly up to here, and arithmetic with it
/// stays far from overflow. As a limit it is as good as none.
pub const MOST: u64 = 1 << 53;

/// Longest time that makes sense anywhere; keeps all arithmetic with deadlines far from overflow.
pub const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

pub(crate) fn check_whole(name: &str, number: u64, least: u64, most: u64) -> Result<(), Error> {
    match number {
        _ if (least..=most).contains(&number) => Ok(()),
        _ if most == least + 1 => Err(wrong(format!("{name} must be {least} or {most}"))),
        _ if most < u32::MAX.into() => Err(wrong(format!("{name} must be between {least} and {most}"))),
        _ if number < least => Err(wrong(format!("{name} must be at least {least}"))),
        _ => Err(wrong(format!("{name} must be at most {most}"))),
    }
}

/// The host and the port of an address as settings have it.
pub(super) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let is_host = !host.is_empty() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'));
    Some((host, port.parse().ok()?)).filter(|_| is_host)
}

fn check_address(name: &str, address: &str) -> Result<(), Error> {
    host_and_port(address).map(|_| ()).ok_or_else(|| wrong(format!("{name} must be host:port, true or false")))
}

pub(crate) fn check_timeout(name: &str, value: Duration) -> Result<(), Error> {
    if (Duration::from_millis(1)..=YEAR).contains(&value) {
        return Ok(());
    }
    Err(wrong(format!("{name} must be between 1 ms and one year")))
}
