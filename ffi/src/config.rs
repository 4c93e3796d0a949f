//! Configuration as JSON text: what JSON can say, and what a value must be. The keys are the rows of the engine's table of settings.

use heartbus_core::bus::path_to_bind;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::settings::{
    self, BusConfig, BusSocket, ClientConfig, HistoryRule, InboxLimits, Listed, MOST, RateLimit, RuleMembers, ServerConfig, ServerSwitches,
    Setting, SettingValue, Settings, ValueKind, YEAR,
};
use heartbus_core::text::{nearest, printable};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub(crate) fn server(json: &[u8]) -> Result<(ServerConfig, InboxLimits), Error> {
    let keys = Keys::read(json, &settings::of_server())?;
    let mut config: ServerConfig = keys.settings()?.0;
    let (limit, is_limit_set): (RateLimit, _) = keys.settings()?;
    let switches: ServerSwitches = keys.settings()?.0;
    let inbox = keys.settings()?.0;
    config.rate_limit = switches.rate_limit(limit, is_limit_set);
    config.bus = bus_of(switches.bus, switches.bus_group)?;
    Ok((config, inbox))
}

pub(crate) fn clients(json: &[u8]) -> Result<InboxLimits, Error> {
    Ok(Keys::read(json, &settings::of_clients())?.settings()?.0)
}

pub(crate) fn client(json: &[u8]) -> Result<ClientConfig, Error> {
    Ok(Keys::read(json, &settings::of_client())?.settings()?.0)
}

/// Off unless its key is set.
fn bus_of(socket: BusSocket, group: Option<String>) -> Result<Option<BusConfig>, Error> {
    Ok(match socket {
        BusSocket::Named(name) => Some(BusConfig { path: path_to_bind(&name)?, group, name }),
        BusSocket::At(path) => {
            let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            Some(BusConfig { path, group, name })
        }
        BusSocket::Default | BusSocket::None if group.is_some() => {
            return Err(wrong("bus_group: there is no bus socket without the key `bus`"));
        }
        BusSocket::Default | BusSocket::None => None,
    })
}

// ---- keys ----

/// What was given of the known keys, as it was written: the name of the row, the name that was used, the value.
struct Keys<'a>(Vec<(&'static str, String, &'a str)>);

impl<'a> Keys<'a> {
    /// No text at all means no key at all, and null means that a key is not there.
    fn read(json: &'a [u8], known: &[Listed]) -> Result<Self, Error> {
        let known: Vec<&Setting> = known.iter().map(|row| &row.setting).filter(|setting| !setting.c.name.is_empty()).collect();
        let mut given: Vec<(&str, String, &str)> = Vec::new();
        for (name, value) in pairs(json)? {
            // Where the PHP library has another name for it, that will do as well.
            let Some(setting) = known.iter().find(|setting| setting.c.name == name || setting.php.name == name) else {
                return Err(unknown(&name, &known));
            };
            let key = setting.c.name;
            if given.iter().any(|(other, ..)| *other == key) {
                return Err(wrong(&format!("the key `{key}` stands there twice")));
            }
            given.push((key, name, value.get()));
        }
        given.retain(|(.., value)| *value != "null");
        Ok(Keys(given))
    }

    /// The settings that these keys leave of the defaults, and whether there is one among them.
    fn settings<T: Settings>(&self) -> Result<(T, bool), Error> {
        let (mut settings, mut is_any_set) = (T::default(), false);
        for row in T::ROWS {
            if let Some((_, name, json)) = self.0.iter().find(|(key, ..)| *key == row.setting.c.name) {
                let value = match row.setting.kind {
                    ValueKind::History => history(name, json)?,
                    kind => read(kind, json).map_err(|wants| refused(name, &wants, json))?,
                };
                row.put(&mut settings, value)?;
                is_any_set = true;
            }
        }
        Ok((settings, is_any_set))
    }
}

fn refused(name: &str, wants: &str, json: &str) -> Error {
    wrong(&format!("{name} must be {wants}, not {}", shown(json)))
}

/// Filters and their rules, in their order.
fn history(name: &str, json: &str) -> Result<SettingValue, Error> {
    let members_of = |name: &str, json| {
        let wants = r#"an object of filters and what is kept of their topics, such as {"chat/#":{"count":100}}"#;
        serde_json::from_str::<Pairs<'_>>(json).map(|pairs| pairs.0).map_err(|_| refused(name, wants, json))
    };
    let mut rules: Vec<(String, RuleMembers)> = Vec::new();
    for (filter, rule) in members_of(name, json)? {
        let mut members = RuleMembers::new();
        for (member, value) in members_of(name, rule.get())? {
            let place = format!("{name} of {:?}", shown(&filter));
            let Some(row) = HistoryRule::row(&member) else {
                let names: Vec<_> = HistoryRule::ROWS.iter().map(|row| row.setting.c.name).collect();
                return Err(wrong(&format!("{place}: unknown key `{}` (there are: {})", shown(&member), names.join(", "))));
            };
            if members.iter().any(|(known, _)| *known == member) {
                return Err(wrong(&format!("{place}: the key `{member}` stands there twice")));
            }
            let value = match value.get() {
                "null" => continue,
                json => read(row.setting.kind, json).map_err(|wants| refused(&format!("{place}: {member}"), &wants, json))?,
            };
            members.push((row.setting.c.name, value));
        }
        if rules.iter().any(|(known, _)| *known == filter) {
            return Err(wrong(&format!("{name}: the filter {:?} stands there twice", shown(&filter))));
        }
        rules.push((filter, members));
    }
    Ok(SettingValue::Rules(rules))
}

fn unknown(name: &str, known: &[&Setting]) -> Error {
    let mut names: Vec<&str> = known.iter().map(|setting| setting.c.name).collect();
    names.extend(known.iter().filter(|setting| setting.php.name != setting.c.name).map(|setting| setting.php.name));
    names.retain(|name| !name.is_empty());
    let name_shown = shown(name);
    match nearest(name, names.iter().copied()) {
        Some(meant) => wrong(&format!("unknown key `{name_shown}`; did you mean `{meant}`?")),
        None => wrong(&format!("unknown key `{name_shown}` (there are: {})", names.join(", "))),
    }
}

/// The members of an object, in their order, as they were written.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
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

/// What is given in a refusal: whoever wrote it recognises its beginning.
fn shown(text: &str) -> String {
    const MOST_SHOWN: usize = 60;
    let text = printable(text);
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}

// ---- values ----

/// The value, or what it must be: the refusal goes on behind "must be".
fn read(kind: ValueKind, json: &str) -> Result<SettingValue, String> {
    match kind {
        ValueKind::Whole { least, most } => {
            let fits = whole(json).filter(|number| (least..=most).contains(number));
            fits.map(SettingValue::Whole).ok_or_else(|| format!("a whole number from {least} to {most}"))
        }
        ValueKind::Number { least, most } => {
            let fits = any_number(json).filter(|number| (least..=most).contains(number));
            fits.map(SettingValue::Number).ok_or_else(|| format!("a number from {least} to {most}"))
        }
        ValueKind::SecondsOrNone if any_number(json) == Some(0.0) => Ok(SettingValue::None),
        ValueKind::Seconds | ValueKind::SecondsOrNone => {
            let most = YEAR.as_secs();
            let fits = any_number(json).filter(|number| (0.001..=most as f64).contains(number));
            fits.map(|number| SettingValue::Time(Duration::from_secs_f64(number))).ok_or_else(|| {
                format!("a number of seconds from 0.001 to {most}{}", if kind == ValueKind::SecondsOrNone { ", or 0" } else { "" })
            })
        }
        ValueKind::Flag => serde_json::from_str(json).map(SettingValue::Flag).map_err(|_| "true or false".to_owned()),
        ValueKind::Text | ValueKind::Name | ValueKind::Socket => text(json).map(SettingValue::Text).ok_or_else(|| "a string".to_owned()),
        ValueKind::Account => {
            let account = text(json).or_else(|| u32::try_from(whole(json)?).ok().map(|number| number.to_string()));
            account.map(SettingValue::Text).ok_or_else(|| "a string, or a whole number from 0 to 4294967295".to_owned())
        }
        ValueKind::Choice(words) => {
            let word = text(json).filter(|given| words.contains(&given.as_str()));
            word.map(SettingValue::Text).ok_or_else(|| words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "))
        }
        ValueKind::Networks => networks(json)
            .map(SettingValue::Networks)
            .ok_or_else(|| "a list of networks such as \"10.0.0.0/8\" and of addresses".to_owned()),
        ValueKind::Door => match serde_json::from_str(json) {
            Ok(is_on) => Ok(SettingValue::Flag(is_on)),
            Err(_) => text(json).map(SettingValue::Text).ok_or_else(|| "host:port, true or false".to_owned()),
        },
        ValueKind::Texts => serde_json::from_str(json).map(SettingValue::Texts).map_err(|_| "a list of strings".to_owned()),
        // Read by [`history`], which says of each rule what is wrong with it.
        ValueKind::History => Err("an object".to_owned()),
        // As it was written: the server gets the same text.
        ValueKind::Json => Ok(SettingValue::Json(json.to_owned())),
        ValueKind::Any => Ok(SettingValue::None),
    }
}

fn text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// A number that JSON can carry: no infinity, and none of so many digits that it becomes one.
fn any_number(json: &str) -> Option<f64> {
    serde_json::from_str::<f64>(json).ok().filter(|number| number.is_finite())
}

/// However it is written: 9777, 9777.0 and 9.777e3 are the same.
fn whole(json: &str) -> Option<u64> {
    json.parse().ok().or_else(|| {
        let number = any_number(json)?;
        // Larger ones are out of every range.
        (number.fract() == 0.0 && (0.0..=MOST as f64).contains(&number)).then_some(number as u64)
    })
}

/// A network is written as `10.0.0.0/8`, or as a plain address.
fn networks<N: std::str::FromStr + From<IpAddr>>(json: &str) -> Option<Vec<N>> {
    let texts: Vec<String> = serde_json::from_str(json).ok()?;
    texts.iter().map(|text| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(N::from))).collect()
}

fn wrong(text: &str) -> Error {
    Error::new(ErrorKind::Config, format!("Configuration: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use heartbus_core::settings::{ManagerDoor, ProtocolDoor, RateLimitBy, SlowConsumer};
    use std::collections::{BTreeMap, BTreeSet};

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
            "max_frame_bytes":7,"outbox_bytes":8,"max_subscriptions":18,"max_topics":19,"max_filter_levels":26,"history_bytes":20,
            "presence_debounce":0,"presence_topics":true,"bus_queue_events":22,"bus_queue_bytes":23,"decision_timeout":24,"max_decisions":25,
            "history":{"chat/#":{"count":1,"bytes":2e3,"ttl":0.5},"+":{"ttl":null}},
            "total_buffer_bytes":9,"slow_consumer":"drop","slow_consumer_timeout":2.5,"enable_rate_limit":true,"rate_limit_capacity":10,
            "rate_limit_refill_rate":11,"rate_limit_by":"ip","max_requests_per_second":14,"allow":["10.0.0.0/8","::1"],"deny":["10.1.0.1"],
            "firetower_conventions":false,"firetower":true,"firetower_max_subscriptions":21,"firetower_manager":"m:1","firetower_manager_grpc":false,
            "websocket":"[::1]:0","websocket_origins":["http://a"],"websocket_path":"/ws","websocket_compression":true,
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
            max_subscriptions: 18,
            max_topics: 19,
            max_filter_levels: 26,
            history_bytes: 20,
            presence_debounce: None,
            presence_topics: true,
            bus_queue_events: 22,
            bus_queue_bytes: 23,
            decision_timeout: Duration::from_secs(24),
            max_decisions: 25,
            history: vec![
                HistoryRule { filter: "chat/#".into(), count: 1, bytes: 2000, ttl: Duration::from_millis(500) },
                HistoryRule { filter: "+".into(), ..HistoryRule::default() },
            ],
            slow_consumer: SlowConsumer::Drop,
            slow_consumer_timeout: Duration::from_millis(2500),
            rate_limit: Some(RateLimit { capacity: 10, refill_per_second: 11.0, by: RateLimitBy::Ip }),
            websocket: ProtocolDoor::At("[::1]:0".into()),
            websocket_origins: vec!["http://a".into()],
            websocket_path: Some("/ws".into()),
            websocket_compression: true,
            firetower_conventions: false,
            firetower: ProtocolDoor::MainPort,
            firetower_max_subscriptions: 21,
            firetower_manager: Some("m:1".into()),
            firetower_manager_grpc: ManagerDoor::Frames,
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
    fn websockets_come_in_at_an_address_or_at_the_main_port() {
        for (json, door) in [("true", ProtocolDoor::MainPort), ("false", ProtocolDoor::None), ("\"a:1\"", ProtocolDoor::At("a:1".into()))] {
            let (config, _) = server(format!(r#"{{"websocket":{json}}}"#).as_bytes()).unwrap();
            assert_eq!(config.websocket, door);
        }
        for (json, wants) in [("\"8080\"", "host:port, true or false"), ("8080", "host:port, true or false"), ("\"a:b\"", "host:port")] {
            let config = server(format!(r#"{{"websocket":{json}}}"#).as_bytes());
            let message = config.and_then(|(config, _)| config.validate()).expect_err("a refusal").message;
            assert!(message.contains("websocket must be") && message.contains(wants), "{message}");
        }
        assert!(refusal(r#"{"websocket_origins":"http://a"}"#).contains("websocket_origins must be a list of strings"));
    }

    #[test]
    fn a_group_is_given_by_name_or_by_number() {
        for (json, group) in [("\"users\"", "users"), ("\"33\"", "33"), ("33", "33"), ("0", "0"), ("1e3", "1000")] {
            let (config, _) = server(format!(r#"{{"bus":"/tmp/a/b.sock","bus_group":{json}}}"#).as_bytes()).unwrap();
            assert_eq!(config.bus.unwrap().group.as_deref(), Some(group), "{json}");
        }
        for json in ["true", "-1", "1.5", "4294967296", "[33]"] {
            let says = format!("Configuration: bus_group must be a string, or a whole number from 0 to 4294967295, not {json}");
            assert_eq!(refusal(&format!(r#"{{"bus":"/tmp/a/b.sock","bus_group":{json}}}"#)), says);
        }
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
            "node_id":"n","metadata":{"z":1.50, "a":[]},"connect_timeout":4,"outbox_bytes":5,"total_buffer_bytes":7,"protocol":1,"max_nodes":6,
            "max_subscriptions":8,"heartbeat_all":false}"#;
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
            total_buffer_bytes: 7,
            protocol: 1,
            max_nodes: 6,
            max_subscriptions: 8,
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
    fn all_keys() -> [(&'static str, Vec<(&'static str, String)>); 3] {
        let of = |rows: Vec<Listed>| -> Vec<(&str, String)> {
            rows.iter().filter(|row| !row.setting.c.name.is_empty()).map(|row| (row.setting.c.name, row.default.json())).collect()
        };
        [
            ("heartbus_server_start", of(settings::of_server())),
            ("heartbus_client_connect", of(settings::of_client())),
            ("heartbus_clients_start", of(settings::of_clients())),
        ]
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
        assert_eq!(limit, Some(RateLimit::default()));
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
                let listed: Vec<(&str, String)> = rows.iter().map(|row| (row[0], row[1].to_owned())).collect();
                assert_eq!(listed, keys, "{function}");
                assert!(rows.iter().all(|row| row.len() == 3 && !row[2].is_empty()), "each key has a meaning: {rows:?}");
            }
        }
    }

    #[test]
    fn the_pages_name_every_key_that_only_php_has() {
        let rows = [settings::of_server(), settings::of_client()].concat();
        let of_php: BTreeSet<&str> = rows.iter().filter(|row| row.setting.c.name.is_empty()).map(|row| row.setting.php.name).collect();
        assert!(of_php.contains("loop") && of_php.len() > 5, "{of_php:?}");
        for (page, before) in [
            (include_str!("../../docs/C-API.md"), "concern PHP alone are refused:"),
            (include_str!("../../docs/C-API.zh-CN.md"), "只与 PHP 有关的键会被拒绝："),
        ] {
            let list = page.split(before).nth(1).expect(before).split("\n- ").next().unwrap_or_default();
            assert_eq!(list.split('`').skip(1).step_by(2).collect::<BTreeSet<_>>(), of_php);
        }
        for key in of_php {
            assert!(refusal(&format!(r#"{{"{key}":1}}"#)).starts_with(&format!("Configuration: unknown key `{key}`")), "{key}");
        }
    }

    #[test]
    fn every_key_is_on_the_first_page_of_the_header() {
        let page = include_str!("../../include/heartbus.h").split("*/").next().unwrap_or_default();
        for (function, keys) in all_keys() {
            let section = page.split(&format!(", {function}:\n")).nth(1).expect(function).split("\n *\n").next().unwrap_or_default();
            for (name, _) in keys {
                assert!(format!("\n{section}").contains(&format!("\n *     {name} ")), "{function}: {name}");
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
            (
                r#"{"presence_debounce":-1}"#,
                "Configuration: presence_debounce must be a number of seconds from 0.001 to 31622400, or 0, not -1",
            ),
            (r#"{"bus_group":"users"}"#, "Configuration: bus_group: there is no bus socket without the key `bus`"),
            (r#"{"slow_consumer":"wait"}"#, r#"Configuration: slow_consumer must be "close" or "drop", not "wait""#),
            (
                r#"{"blacklist":["10.0.0.0/8","x"]}"#,
                r#"Configuration: blacklist must be a list of networks such as "10.0.0.0/8" and of addresses, not ["10.0.0.0/8","x"]"#,
            ),
            (
                r#"{"history":[]}"#,
                r#"Configuration: history must be an object of filters and what is kept of their topics, such as {"chat/#":{"count":100}}, not []"#,
            ),
            (
                r#"{"history":{"a":5}}"#,
                r#"Configuration: history must be an object of filters and what is kept of their topics, such as {"chat/#":{"count":100}}, not 5"#,
            ),
            (
                r#"{"history":{"a":{"count":-1}}}"#,
                r#"Configuration: history of "a": count must be a whole number from 0 to 9007199254740992, not -1"#,
            ),
            (
                r#"{"history":{"a":{"ttl":"1h"}}}"#,
                r#"Configuration: history of "a": ttl must be a number of seconds from 0.001 to 31622400, not "1h""#,
            ),
            (r#"{"history":{"a":{"cuont":1}}}"#, r#"Configuration: history of "a": unknown key `cuont` (there are: count, bytes, ttl)"#),
            (r#"{"history":{"a":{"ttl":1,"ttl":2}}}"#, r#"Configuration: history of "a": the key `ttl` stands there twice"#),
            (r#"{"history":{"a":{},"a":{}}}"#, r#"Configuration: history: the filter "a" stands there twice"#),
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
