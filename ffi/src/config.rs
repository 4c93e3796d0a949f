//! Configuration as JSON text: the keys of the PHP library, and those of the engine that it does not have.
//!
//! Owns names, units, and what JSON can say: each key is a row of a table, from which texts are read, refusals are worded and
//! the table of docs/C-API.md is checked. What values are allowed beyond that is the engine's business.

use heartbus_core::bus::path_to_bind;
use heartbus_core::config::{BusConfig, ClientConfig, InboxLimits, MOST, RateLimit, RateLimitBy, ServerConfig, SlowConsumer, YEAR};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::text::{nearest, printable};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// One key: where its value goes, and what it is unless it is set, as JSON.
struct Key<C: 'static> {
    name: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "docs/C-API.md and the engine's defaults are held against it"))]
    default: &'static str,
    set: fn(&mut C, &str) -> Result<(), String>,
}

const fn key<C>(name: &'static str, default: &'static str, set: fn(&mut C, &str) -> Result<(), String>) -> Key<C> {
    Key { name, default, set }
}

#[derive(Default)]
struct Server {
    config: ServerConfig,
    inbox: InboxLimits,
    enable_rate_limit: Option<bool>,
    /// Set as soon as one of its keys is.
    rate_limit: Option<RateLimit>,
    bus: Option<String>,
    bus_group: Option<String>,
}

/// All keys of a server.
const SERVER: &[Key<Server>] = &[
    key("host", r#""0.0.0.0""#, |server, json| into(&mut server.config.host, text(json))),
    key("port", "9501", |server, json| into(&mut server.config.port, whole(json, 0, u16::MAX.into()))),
    key("worker_count", "0", |server, json| into(&mut server.config.io_threads, whole(json, 0, MOST))),
    key("heartbeat_timeout", "30", |server, json| into(&mut server.config.heartbeat_timeout, seconds(json))),
    key("register_timeout", "30", |server, json| into(&mut server.config.register_timeout, seconds(json))),
    key("max_connections", "1000000", |server, json| into(&mut server.config.max_connections, whole(json, 1, MOST))),
    key("max_connections_per_ip", "0", |server, json| into(&mut server.config.max_connections_per_ip, whole(json, 0, MOST))),
    key("max_nodes", "10000000", |server, json| into(&mut server.config.max_nodes, whole(json, 1, MOST))),
    key("max_nodes_per_connection", "10000", |server, json| into(&mut server.config.max_nodes_per_connection, whole(json, 1, MOST))),
    key("max_metadata_bytes_per_connection", "16777216", |server, json| {
        into(&mut server.config.max_metadata_bytes_per_connection, whole(json, 1, MOST))
    }),
    key("max_frame_bytes", "10485760", |server, json| into(&mut server.config.max_frame_bytes, whole(json, 1, u32::MAX.into()))),
    key("outbox_bytes", "1048576", |server, json| into(&mut server.config.outbox_bytes, whole(json, 1, MOST))),
    key("slow_consumer", r#""close""#, |server, json| {
        into(&mut server.config.slow_consumer, choice(json, &[("close", SlowConsumer::Close), ("drop", SlowConsumer::Drop)]))
    }),
    key("slow_consumer_timeout", "10", |server, json| into(&mut server.config.slow_consumer_timeout, seconds(json))),
    key("total_buffer_bytes", "1073741824", |server, json| into(&mut server.config.total_buffer_bytes, whole(json, 1, MOST))),
    key("allow", "[]", |server, json| into(&mut server.config.allow, networks(json))),
    key("deny", "[]", |server, json| into(&mut server.config.deny, networks(json))),
    key("enable_rate_limit", "null", |server, json| into(&mut server.enable_rate_limit, flag(json).map(Some))),
    key("rate_limit_capacity", "100", |server, json| into(&mut server.limit().capacity, whole(json, 1, u32::MAX.into()))),
    key("rate_limit_refill_rate", "10", |server, json| into(&mut server.limit().refill_per_second, number(json, 0.0, MOST as f64))),
    key("rate_limit_by", r#""connection""#, |server, json| {
        into(&mut server.limit().by, choice(json, &[("connection", RateLimitBy::Connection), ("ip", RateLimitBy::Ip)]))
    }),
    key("max_requests_per_second", "0", |server, json| into(&mut server.config.max_requests_per_second, whole(json, 0, MOST))),
    key("stats_interval", "60", |server, json| into(&mut server.config.stats_interval, seconds(json))),
    // The absolute path of the bus socket, or a name, whose socket then stands in the usual place.
    key("bus", "null", |server, json| into(&mut server.bus, text(json).map(Some))),
    key("bus_group", "null", |server, json| into(&mut server.bus_group, text(json).map(Some))),
    key("inbox_events", "65536", |server, json| into(&mut server.inbox.events, whole(json, 1, MOST))),
    key("inbox_bytes", "67108864", |server, json| into(&mut server.inbox.bytes, whole(json, 1, MOST))),
];

/// The names of the PHP library for two of them.
const ALSO: [(&str, &str); 2] = [("whitelist", "allow"), ("blacklist", "deny")];

/// All keys of a client.
const CLIENT: &[Key<ClientConfig>] = &[
    key("host", r#""127.0.0.1""#, |client, json| into(&mut client.host, text(json))),
    key("port", "9501", |client, json| into(&mut client.port, whole(json, 1, u16::MAX.into()))),
    key("heartbeat_interval", "10", |client, json| into(&mut client.heartbeat_interval, seconds(json))),
    key("auto_reconnect", "true", |client, json| into(&mut client.auto_reconnect, flag(json))),
    key("reconnect_interval", "5", |client, json| into(&mut client.reconnect_interval, seconds(json))),
    key("max_reconnect_attempts", "0", |client, json| into(&mut client.max_reconnect_attempts, whole(json, 0, u32::MAX.into()))),
    key("node_id", "null", |client, json| into(&mut client.node_id, text(json).map(Some))),
    // As it was written: the server gets the same text.
    key("metadata", "[]", |client, json| into(&mut client.metadata, Ok(json.to_owned()))),
    key("connect_timeout", "5", |client, json| into(&mut client.connect_timeout, seconds(json))),
    key("outbox_bytes", "1048576", |client, json| into(&mut client.outbox_bytes, whole(json, 1, MOST))),
    key("protocol", "2", |client, json| into(&mut client.protocol, whole(json, 1, 2))),
    key("max_nodes", "10000", |client, json| into(&mut client.max_nodes, whole(json, 1, MOST))),
    key("heartbeat_all", "true", |client, json| into(&mut client.heartbeat_all, flag(json))),
];

/// All keys of a group of clients.
const CLIENTS: &[Key<InboxLimits>] = &[
    key("inbox_events", "65536", |inbox, json| into(&mut inbox.events, whole(json, 1, MOST))),
    key("inbox_bytes", "67108864", |inbox, json| into(&mut inbox.bytes, whole(json, 1, MOST))),
];

pub(crate) fn server(json: &[u8]) -> Result<(ServerConfig, InboxLimits), Error> {
    let Server { config, inbox, enable_rate_limit, rate_limit, bus, bus_group } = read(json, SERVER, &ALSO)?;
    // On as soon as one of its keys is set, unless it is switched off.
    let rate_limit = match enable_rate_limit {
        None => rate_limit,
        Some(is_on) => is_on.then(|| rate_limit.unwrap_or(RATE_LIMIT)),
    };
    Ok((ServerConfig { rate_limit, bus: bus_of(bus, bus_group)?, ..config }, inbox))
}

pub(crate) fn clients(json: &[u8]) -> Result<InboxLimits, Error> {
    read(json, CLIENTS, &[])
}

pub(crate) fn client(json: &[u8]) -> Result<ClientConfig, Error> {
    read(json, CLIENT, &[])
}

/// As in the PHP library.
const RATE_LIMIT: RateLimit = RateLimit { capacity: 100, refill_per_second: 10.0, by: RateLimitBy::Connection };

impl Server {
    fn limit(&mut self) -> &mut RateLimit {
        self.rate_limit.get_or_insert(RATE_LIMIT)
    }
}

/// Off unless its key is set.
fn bus_of(socket: Option<String>, group: Option<String>) -> Result<Option<BusConfig>, Error> {
    let Some(socket) = socket else {
        return if group.is_none() { Ok(None) } else { Err(wrong("bus_group: there is no bus socket without the key `bus`")) };
    };
    if !socket.starts_with('/') {
        return Ok(Some(BusConfig { path: path_to_bind(&socket)?, group, name: socket }));
    }
    let path = PathBuf::from(socket);
    let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(Some(BusConfig { path, group, name }))
}

// ---- reading ----

/// No text at all means no key at all, and null means that a key is not there.
fn read<C: Default>(json: &[u8], keys: &[Key<C>], also: &[(&str, &str)]) -> Result<C, Error> {
    let mut config = C::default();
    let mut seen = vec![false; keys.len()];
    for (name, value) in pairs(json)? {
        let known = also.iter().find(|(other, _)| *other == name).map_or(name.as_str(), |(_, known)| known);
        let Some(place) = keys.iter().position(|key| key.name == known) else {
            return Err(unknown(&name, keys.iter().map(|key| key.name).chain(also.iter().map(|(other, _)| *other))));
        };
        if std::mem::replace(&mut seen[place], true) {
            return Err(wrong(&format!("the key `{known}` stands there twice")));
        }
        if value.get() != "null" {
            (keys[place].set)(&mut config, value.get())
                .map_err(|wants| wrong(&format!("{name} must be {wants}, not {}", shown(value.get()))))?;
        }
    }
    Ok(config)
}

fn unknown<'a>(name: &str, keys: impl Iterator<Item = &'a str> + Clone) -> Error {
    let name_shown = shown(name);
    match nearest(name, keys.clone()) {
        Some(meant) => wrong(&format!("unknown key `{name_shown}`; did you mean `{meant}`?")),
        None => wrong(&format!("unknown key `{name_shown}` (there are: {})", keys.collect::<Vec<_>>().join(", "))),
    }
}

/// The members of an object, in their order, as they were written.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Pairs<'a>, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Pairs)
    }
}

fn pairs(json: &[u8]) -> Result<Vec<(String, &RawValue)>, Error> {
    if json.is_empty() {
        return Ok(Vec::new());
    }
    let text = std::str::from_utf8(json).map_err(|_| wrong("not UTF-8"))?;
    if !text.trim_ascii_start().starts_with('{') {
        return Err(wrong(r#"not a JSON object such as {"port":9501}"#));
    }
    serde_json::from_str::<Pairs<'_>>(text).map(|pairs| pairs.0).map_err(|error| wrong(&error.to_string()))
}

fn into<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

/// What is given in a refusal: whoever wrote it recognises its beginning.
fn shown(text: &str) -> String {
    const MOST_SHOWN: usize = 60;
    let text = printable(text);
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}

// What a value must be, and the value that it is. The refusals go on behind "must be".

fn text(json: &str) -> Result<String, String> {
    serde_json::from_str(json).map_err(|_| "a string".to_owned())
}

fn flag(json: &str) -> Result<bool, String> {
    serde_json::from_str(json).map_err(|_| "true or false".to_owned())
}

fn choice<T: Copy>(json: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let given = text(json).ok();
    let found = choices.iter().find(|(name, _)| given.as_deref() == Some(name));
    found.map(|(_, choice)| *choice).ok_or_else(|| choices.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(" or "))
}

/// A number that JSON can carry: no infinity, and none of so many digits that it becomes one.
fn any_number(json: &str) -> Option<f64> {
    serde_json::from_str::<f64>(json).ok().filter(|number| number.is_finite())
}

fn number(json: &str, least: f64, most: f64) -> Result<f64, String> {
    any_number(json).filter(|number| (least..=most).contains(number)).ok_or_else(|| format!("a number from {least} to {most}"))
}

/// However it is written: 9777, 9777.0 and 9.777e3 are the same.
fn whole<N: TryFrom<u64>>(json: &str, least: u64, most: u64) -> Result<N, String> {
    let whole = json.parse().ok().or_else(|| {
        let number = any_number(json)?;
        // Larger ones are out of every range.
        (number.fract() == 0.0 && (0.0..=MOST as f64).contains(&number)).then_some(number as u64)
    });
    let fits = whole.filter(|number| (least..=most).contains(number)).and_then(|number| N::try_from(number).ok());
    fits.ok_or_else(|| format!("a whole number from {least} to {most}"))
}

fn seconds(json: &str) -> Result<Duration, String> {
    let most = YEAR.as_secs();
    number(json, 0.001, most as f64).map(Duration::from_secs_f64).map_err(|_| format!("a number of seconds from 0.001 to {most}"))
}

/// A network is written as `10.0.0.0/8`, or as a plain address.
fn networks<N: FromStr + From<std::net::IpAddr>>(json: &str) -> Result<Vec<N>, String> {
    const WANTS: &str = "a list of networks such as \"10.0.0.0/8\" and of addresses";
    let texts: Vec<String> = serde_json::from_str(json).map_err(|_| WANTS)?;
    let network = |text: &String| text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(N::from));
    texts.iter().map(network).collect::<Option<_>>().ok_or_else(|| WANTS.to_owned())
}

fn wrong(text: &str) -> Error {
    Error::new(ErrorKind::Config, format!("Configuration: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn refusal(json: &str) -> String {
        let error = server(json.as_bytes()).expect_err("a refusal");
        assert_eq!(error.kind, ErrorKind::Config);
        error.message
    }

    #[test]
    fn nothing_means_the_defaults_and_so_does_null() {
        for json in ["", "{}", " {}\n", r#"{"port":null,"allow":null}"#] {
            let (config, limits) = server(json.as_bytes()).unwrap();
            assert_eq!(format!("{config:?}"), format!("{:?}", ServerConfig::default()), "{json}");
            assert_eq!(limits, InboxLimits::default());
        }
    }

    #[test]
    fn every_key_arrives() {
        let json = r#"{"host":"::1","port":0,"worker_count":2,"heartbeat_timeout":1.5,"register_timeout":2,"max_connections":3,
            "max_connections_per_ip":4,"max_nodes":5,"max_nodes_per_connection":6,"max_metadata_bytes_per_connection":17,
            "max_frame_bytes":7,"outbox_bytes":8,
            "total_buffer_bytes":9,"slow_consumer":"drop","slow_consumer_timeout":2.5,"enable_rate_limit":true,"rate_limit_capacity":10,
            "rate_limit_refill_rate":11,"rate_limit_by":"ip","max_requests_per_second":14,"allow":["10.0.0.0/8","::1"],"deny":["10.1.0.1"],
            "stats_interval":15,"bus":"/tmp/a/b.sock","bus_group":"g","inbox_events":12,"inbox_bytes":13}"#;
        let (config, limits) = server(json.as_bytes()).unwrap();
        let expected = ServerConfig {
            host: "::1".into(),
            port: 0,
            io_threads: 2,
            heartbeat_timeout: Duration::from_millis(1500),
            register_timeout: Duration::from_secs(2),
            max_connections: 3,
            max_connections_per_ip: 4,
            max_nodes: 5,
            max_nodes_per_connection: 6,
            max_metadata_bytes_per_connection: 17,
            max_frame_bytes: 7,
            outbox_bytes: 8,
            total_buffer_bytes: 9,
            slow_consumer: SlowConsumer::Drop,
            slow_consumer_timeout: Duration::from_millis(2500),
            rate_limit: Some(RateLimit { capacity: 10, refill_per_second: 11.0, by: RateLimitBy::Ip }),
            max_requests_per_second: 14,
            allow: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            deny: vec!["10.1.0.1/32".parse().unwrap()],
            bus: Some(BusConfig { path: "/tmp/a/b.sock".into(), group: Some("g".into()), name: "b".into() }),
            stats_interval: Duration::from_secs(15),
        };
        assert_eq!(format!("{config:?}"), format!("{expected:?}"));
        assert_eq!(limits, InboxLimits { events: 12, bytes: 13 });
    }

    #[test]
    fn the_lists_of_addresses_have_the_names_of_the_php_library_too() {
        let (config, _) = server(br#"{"whitelist":["10.0.0.0/8"],"blacklist":["10.1.0.1"]}"#).unwrap();
        assert_eq!((config.allow, config.deny), (vec!["10.0.0.0/8".parse().unwrap()], vec!["10.1.0.1/32".parse().unwrap()]));
        assert_eq!(refusal(r#"{"deny":[],"blacklist":[]}"#), "Configuration: the key `deny` stands there twice");
    }

    #[test]
    fn every_key_of_a_client_arrives_and_its_metadata_as_it_was_written() {
        let json =
            br#"{"host":"h","port":1,"heartbeat_interval":0.5,"auto_reconnect":false,"reconnect_interval":2,"max_reconnect_attempts":3,
            "node_id":"n","metadata":{"z":1.50, "a":[]},"connect_timeout":4,"outbox_bytes":5,"protocol":1,"max_nodes":6,
            "heartbeat_all":false}"#;
        let expected = ClientConfig {
            host: "h".into(),
            port: 1,
            heartbeat_interval: Duration::from_millis(500),
            auto_reconnect: false,
            reconnect_interval: Duration::from_secs(2),
            max_reconnect_attempts: 3,
            node_id: Some("n".into()),
            metadata: r#"{"z":1.50, "a":[]}"#.into(),
            connect_timeout: Duration::from_secs(4),
            outbox_bytes: 5,
            protocol: 1,
            max_nodes: 6,
            heartbeat_all: false,
        };
        assert_eq!(format!("{:?}", client(json).unwrap()), format!("{expected:?}"));
        for json in ["", "{}", r#"{"node_id":null,"metadata":null}"#] {
            assert_eq!(format!("{:?}", client(json.as_bytes()).unwrap()), format!("{:?}", ClientConfig::default()));
        }
        let refused = client(br#"{"heartbeat_timeout":1}"#).expect_err("a server's key");
        assert!(refused.message.starts_with("Configuration: unknown key `heartbeat_timeout`"), "{refused}");
    }

    #[test]
    fn a_group_of_clients_has_the_limits_of_its_inbox() {
        assert_eq!(clients(br#"{"inbox_events":3}"#).unwrap(), InboxLimits { events: 3, ..InboxLimits::default() });
        assert!(clients(br#"{"port":1}"#).is_err());
    }

    /// Names and defaults of the three tables.
    fn all_keys() -> [(&'static str, Vec<(&'static str, &'static str)>); 3] {
        fn of<C>(keys: &[Key<C>]) -> Vec<(&'static str, &'static str)> {
            keys.iter().map(|key| (key.name, key.default)).collect()
        }
        [("heartbus_server_start", of(SERVER)), ("heartbus_client_connect", of(CLIENT)), ("heartbus_clients_start", of(CLIENTS))]
    }

    #[test]
    fn the_defaults_of_the_tables_are_those_of_the_engine() {
        for (function, keys) in all_keys() {
            for (name, default) in keys {
                let json = format!(r#"{{"{name}":{default}}}"#);
                let read = |json: &[u8]| match function {
                    "heartbus_server_start" => server(json).map(|(config, inbox)| (format!("{config:?}"), inbox)),
                    "heartbus_client_connect" => client(json).map(|config| (format!("{config:?}"), InboxLimits::default())),
                    _ => clients(json).map(|inbox| (String::new(), inbox)),
                };
                // Naming one of these switches the limit on; what it then is stands in the test of the limit.
                if !name.starts_with("rate_limit_") {
                    assert_eq!(read(json.as_bytes()).unwrap(), read(b"{}").unwrap(), "{function}: {json}");
                }
            }
        }
        let limit =
            server(br#"{"rate_limit_capacity":100,"rate_limit_refill_rate":10,"rate_limit_by":"connection"}"#).unwrap().0.rate_limit;
        assert_eq!(limit, Some(RATE_LIMIT));
    }

    #[test]
    fn the_page_and_its_translation_have_a_row_for_every_key_with_its_default() {
        for page in [include_str!("../../docs/C-API.md"), include_str!("../../docs/C-API.zh-CN.md")] {
            for (function, keys) in all_keys() {
                // The table is the first one behind its heading.
                let section = page.split(&format!("\n### `{function}`")).nth(1).unwrap_or_else(|| panic!("no section on {function}"));
                let table = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).skip(2);
                let rows: Vec<Vec<&str>> =
                    table.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect()).collect();
                let listed: Vec<(&str, &str)> = rows.iter().map(|row| (row[0], row[1])).collect();
                assert_eq!(listed, keys, "{function}");
                assert!(rows.iter().all(|row| row.len() == 3 && !row[2].is_empty()), "each key has a meaning: {rows:?}");
            }
        }
    }

    #[test]
    fn every_key_is_on_the_first_page_of_the_header() {
        let page = include_str!("../cbindgen.toml");
        for (function, keys) in all_keys() {
            for (name, _) in keys {
                assert!(page.contains(&format!(" {name} ")) || page.contains(&format!(" {name}, ")), "{function}: {name}");
            }
        }
    }

    #[test]
    fn the_rate_limit_is_off_until_one_of_its_keys_is_set() {
        let limit = |json: &str| server(json.as_bytes()).unwrap().0.rate_limit.map(|limit| (limit.capacity, limit.refill_per_second));
        assert_eq!(limit("{}"), None);
        assert_eq!(limit(r#"{"rate_limit_capacity":null}"#), None);
        assert_eq!(limit(r#"{"enable_rate_limit":true}"#), Some((100, 10.0)));
        assert_eq!(limit(r#"{"rate_limit_capacity":5}"#), Some((5, 10.0)));
        assert_eq!(limit(r#"{"rate_limit_by":"ip"}"#), Some((100, 10.0)));
        assert_eq!(limit(r#"{"enable_rate_limit":false,"rate_limit_capacity":5}"#), None);
    }

    #[test]
    fn a_whole_number_may_be_written_as_programs_write_it() {
        for json in ["9777", "9777.0", "9.777e3", "9777000E-3"] {
            assert_eq!(server(format!(r#"{{"port":{json}}}"#).as_bytes()).unwrap().0.port, 9777, "{json}");
        }
        assert_eq!(server(br#"{"max_connections":1e6,"worker_count":-0.0}"#).unwrap().0.max_connections, 1_000_000);
        assert_eq!(server(br#"{"inbox_bytes":9007199254740992}"#).unwrap().1.bytes, 1 << 53);
    }

    #[test]
    fn a_number_that_is_none_of_its_key_is_refused_with_the_name_of_the_key_wherever_it_stands() {
        let numbers =
            ["-1", "-0.5", "1e300", "-1e300", "1e400", "18446744073709551616", "9007199254740993.5", "\"1\"", "true", "[1]", "{}"];
        let (mut checked, mut refused) = (0, BTreeMap::<&str, u32>::new());
        for (function, keys) in all_keys() {
            for (name, default) in keys.into_iter().filter(|(_, default)| default.parse::<f64>().is_ok()) {
                for number in numbers {
                    let json = format!(r#"{{"{name}":{number}}}"#);
                    let error = match function {
                        "heartbus_server_start" => server(json.as_bytes()).map(drop),
                        "heartbus_client_connect" => client(json.as_bytes()).map(drop),
                        _ => clients(json.as_bytes()).map(drop),
                    }
                    .expect_err(&json);
                    assert!(error.message.starts_with(&format!("Configuration: {name} must be a ")), "{json}: {error}");
                    assert!(error.message.ends_with(&format!(", not {number}")), "{json}: {error}");
                    *refused.entry(name).or_default() += 1;
                }
                checked += 1;
                assert!(default.parse::<f64>().unwrap() >= 0.0);
            }
        }
        assert!(checked >= 20, "{refused:?}");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_name_of_the_key_and_without_rusts_words() {
        for (json, says) in [
            ("nonsense", r#"Configuration: not a JSON object such as {"port":9501}"#),
            (r#"["::1",9501]"#, r#"Configuration: not a JSON object such as {"port":9501}"#),
            (r#"{"port":1"#, "Configuration: EOF while parsing an object at line 1 column 9"),
            ("{} {}", "Configuration: trailing characters at line 1 column 4"),
            (r#"{"port":70000}"#, "Configuration: port must be a whole number from 0 to 65535, not 70000"),
            (r#"{"port":"9501"}"#, r#"Configuration: port must be a whole number from 0 to 65535, not "9501""#),
            (r#"{"port":1.5}"#, "Configuration: port must be a whole number from 0 to 65535, not 1.5"),
            (r#"{"port":1,"port":2}"#, "Configuration: the key `port` stands there twice"),
            (r#"{"host":1}"#, "Configuration: host must be a string, not 1"),
            (r#"{"enable_rate_limit":1}"#, "Configuration: enable_rate_limit must be true or false, not 1"),
            (r#"{"heartbeat_timeout":-1}"#, "Configuration: heartbeat_timeout must be a number of seconds from 0.001 to 31622400, not -1"),
            (r#"{"heartbeat_timeout":0}"#, "Configuration: heartbeat_timeout must be a number of seconds from 0.001 to 31622400, not 0"),
            (r#"{"bus_group":"users"}"#, "Configuration: bus_group: there is no bus socket without the key `bus`"),
            (r#"{"slow_consumer":"wait"}"#, r#"Configuration: slow_consumer must be "close" or "drop", not "wait""#),
            (
                r#"{"blacklist":["10.0.0.0/8","x"]}"#,
                r#"Configuration: blacklist must be a list of networks such as "10.0.0.0/8" and of addresses, not ["10.0.0.0/8","x"]"#,
            ),
            (r#"{"prot":1}"#, "Configuration: unknown key `prot`; did you mean `port`?"),
            (r#"{"heartbeat_timout":1}"#, "Configuration: unknown key `heartbeat_timout`; did you mean `heartbeat_timeout`?"),
            (r#"{"blocklist":[]}"#, "Configuration: unknown key `blocklist`; did you mean `blacklist`?"),
        ] {
            assert_eq!(refusal(json), says, "{json}");
        }
        let unknown = refusal(r#"{"\u001b[2J\n":1}"#);
        assert!(unknown.starts_with(r"Configuration: unknown key `\u001b[2J\n` (there are: host, port, "), "{unknown}");
        let long = refusal(&format!(r#"{{"port":"{}"}}"#, "9".repeat(1_000_000)));
        assert!(long.len() < 200, "{}", long.len());
        assert_eq!(server(b"{\"host\":\"\xff\"}").expect_err("a refusal").message, "Configuration: not UTF-8");
    }
}
