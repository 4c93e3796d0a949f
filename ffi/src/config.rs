//! Configuration as JSON text: the keys of the PHP library, and those of the engine that it does not have.
//!
//! Owns names and units. What values are allowed is the engine's business, except what JSON itself cannot say.

use heartbus_core::bus::path_to_bind;
use heartbus_core::config::{BusConfig, ClientConfig, InboxLimits, RateLimit, RateLimitBy, ServerConfig, SlowConsumer};
use heartbus_core::error::{Error, ErrorKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// All keys of a server. Absent and null mean the engine's default.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerKeys {
    host: Option<String>,
    port: Option<u16>,
    worker_count: Option<usize>,
    heartbeat_timeout: Option<Seconds>,
    register_timeout: Option<Seconds>,
    max_connections: Option<usize>,
    max_connections_per_ip: Option<usize>,
    max_nodes: Option<usize>,
    max_nodes_per_connection: Option<usize>,
    max_frame_bytes: Option<u32>,
    outbox_bytes: Option<usize>,
    total_buffer_bytes: Option<usize>,
    slow_consumer: Option<SlowConsumerKey>,
    slow_consumer_timeout: Option<Seconds>,
    enable_rate_limit: Option<bool>,
    rate_limit_capacity: Option<u32>,
    rate_limit_refill_rate: Option<f64>,
    rate_limit_by: Option<RateLimitByKey>,
    max_requests_per_second: Option<u64>,
    /// The names of the PHP library for these two.
    #[serde(alias = "whitelist")]
    allow: Option<Vec<String>>,
    #[serde(alias = "blacklist")]
    deny: Option<Vec<String>>,
    stats_interval: Option<Seconds>,
    /// The absolute path of the bus socket, or a name, whose socket then stands in the usual place.
    bus: Option<String>,
    bus_group: Option<String>,
    inbox_events: Option<usize>,
    inbox_bytes: Option<usize>,
}

/// All keys of a group of clients.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientsKeys {
    inbox_events: Option<usize>,
    inbox_bytes: Option<usize>,
}

/// All keys of a client.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientKeys {
    host: Option<String>,
    port: Option<u16>,
    heartbeat_interval: Option<Seconds>,
    auto_reconnect: Option<bool>,
    reconnect_interval: Option<Seconds>,
    max_reconnect_attempts: Option<u32>,
    node_id: Option<String>,
    /// As it was written: the server gets the same text.
    metadata: Option<Box<RawValue>>,
    connect_timeout: Option<Seconds>,
    outbox_bytes: Option<usize>,
    protocol: Option<u32>,
    max_nodes: Option<usize>,
    heartbeat_all: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum SlowConsumerKey {
    Close,
    Drop,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RateLimitByKey {
    Connection,
    Ip,
}

#[derive(Deserialize)]
#[serde(try_from = "f64")]
struct Seconds(Duration);

impl TryFrom<f64> for Seconds {
    type Error = &'static str;

    fn try_from(seconds: f64) -> Result<Seconds, &'static str> {
        Duration::try_from_secs_f64(seconds).map(Seconds).map_err(|_| "not a time in seconds")
    }
}

pub(crate) fn server(json: &[u8]) -> Result<(ServerConfig, InboxLimits), Error> {
    let keys: ServerKeys = read(json)?;
    let default = ServerConfig::default();
    let rate_limit = rate_limit(&keys);
    let config = ServerConfig {
        host: keys.host.unwrap_or(default.host),
        port: keys.port.unwrap_or(default.port),
        io_threads: keys.worker_count.unwrap_or(default.io_threads),
        heartbeat_timeout: keys.heartbeat_timeout.map_or(default.heartbeat_timeout, |time| time.0),
        register_timeout: keys.register_timeout.map_or(default.register_timeout, |time| time.0),
        max_connections: keys.max_connections.unwrap_or(default.max_connections),
        max_connections_per_ip: keys.max_connections_per_ip.unwrap_or(default.max_connections_per_ip),
        max_nodes: keys.max_nodes.unwrap_or(default.max_nodes),
        max_nodes_per_connection: keys.max_nodes_per_connection.unwrap_or(default.max_nodes_per_connection),
        max_frame_bytes: keys.max_frame_bytes.unwrap_or(default.max_frame_bytes),
        outbox_bytes: keys.outbox_bytes.unwrap_or(default.outbox_bytes),
        total_buffer_bytes: keys.total_buffer_bytes.unwrap_or(default.total_buffer_bytes),
        slow_consumer: match keys.slow_consumer {
            None => default.slow_consumer,
            Some(SlowConsumerKey::Close) => SlowConsumer::Close,
            Some(SlowConsumerKey::Drop) => SlowConsumer::Drop,
        },
        slow_consumer_timeout: keys.slow_consumer_timeout.map_or(default.slow_consumer_timeout, |time| time.0),
        rate_limit,
        max_requests_per_second: keys.max_requests_per_second.unwrap_or(default.max_requests_per_second),
        allow: networks("allow", keys.allow)?,
        deny: networks("deny", keys.deny)?,
        bus: bus(keys.bus, keys.bus_group)?,
        stats_interval: keys.stats_interval.map_or(default.stats_interval, |time| time.0),
    };
    Ok((config, inbox_limits(keys.inbox_events, keys.inbox_bytes)))
}

pub(crate) fn clients(json: &[u8]) -> Result<InboxLimits, Error> {
    let keys: ClientsKeys = read(json)?;
    Ok(inbox_limits(keys.inbox_events, keys.inbox_bytes))
}

pub(crate) fn client(json: &[u8]) -> Result<ClientConfig, Error> {
    let keys: ClientKeys = read(json)?;
    let default = ClientConfig::default();
    Ok(ClientConfig {
        host: keys.host.unwrap_or(default.host),
        port: keys.port.unwrap_or(default.port),
        heartbeat_interval: keys.heartbeat_interval.map_or(default.heartbeat_interval, |time| time.0),
        auto_reconnect: keys.auto_reconnect.unwrap_or(default.auto_reconnect),
        reconnect_interval: keys.reconnect_interval.map_or(default.reconnect_interval, |time| time.0),
        max_reconnect_attempts: keys.max_reconnect_attempts.unwrap_or(default.max_reconnect_attempts),
        node_id: keys.node_id.or(default.node_id),
        metadata: keys.metadata.map_or(default.metadata, |json| json.get().to_owned()),
        connect_timeout: keys.connect_timeout.map_or(default.connect_timeout, |time| time.0),
        outbox_bytes: keys.outbox_bytes.unwrap_or(default.outbox_bytes),
        protocol: keys.protocol.unwrap_or(default.protocol),
        max_nodes: keys.max_nodes.unwrap_or(default.max_nodes),
        heartbeat_all: keys.heartbeat_all.unwrap_or(default.heartbeat_all),
    })
}

/// On as soon as one of its keys is set, unless it is switched off; what is not set is as in the PHP library.
fn rate_limit(keys: &ServerKeys) -> Option<RateLimit> {
    let is_set = keys.rate_limit_capacity.is_some() || keys.rate_limit_refill_rate.is_some() || keys.rate_limit_by.is_some();
    keys.enable_rate_limit.unwrap_or(is_set).then(|| RateLimit {
        capacity: keys.rate_limit_capacity.unwrap_or(100),
        refill_per_second: keys.rate_limit_refill_rate.unwrap_or(10.0),
        by: match keys.rate_limit_by {
            None | Some(RateLimitByKey::Connection) => RateLimitBy::Connection,
            Some(RateLimitByKey::Ip) => RateLimitBy::Ip,
        },
    })
}

/// Off unless its key is set.
fn bus(socket: Option<String>, group: Option<String>) -> Result<Option<BusConfig>, Error> {
    let Some(socket) = socket else {
        return if group.is_none() { Ok(None) } else { Err(wrong("bus_group: there is no bus socket without the key `bus`".into())) };
    };
    if !socket.starts_with('/') {
        return Ok(Some(BusConfig { path: path_to_bind(&socket)?, group, name: socket }));
    }
    let path = PathBuf::from(socket);
    let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(Some(BusConfig { path, group, name }))
}

/// A network is written as `10.0.0.0/8`, or as a plain address.
fn networks<N: FromStr + From<std::net::IpAddr>>(key: &str, texts: Option<Vec<String>>) -> Result<Vec<N>, Error> {
    let network = |text: String| match (text.parse(), text.parse::<std::net::IpAddr>()) {
        (Ok(network), _) => Ok(network),
        (_, Ok(address)) => Ok(address.into()),
        _ => Err(wrong(format!("{key}: `{text}` is no network such as 10.0.0.0/8, and no address"))),
    };
    texts.unwrap_or_default().into_iter().map(network).collect()
}

fn inbox_limits(events: Option<usize>, bytes: Option<usize>) -> InboxLimits {
    let default = InboxLimits::default();
    InboxLimits { events: events.unwrap_or(default.events), bytes: bytes.unwrap_or(default.bytes) }
}

/// No text at all means no key at all.
fn read<K: Default + DeserializeOwned>(json: &[u8]) -> Result<K, Error> {
    if json.is_empty() {
        return Ok(K::default());
    }
    // Serde would take a list as well, with the values in the order of our fields.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong("not a JSON object such as {\"port\":9501}".to_owned()));
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let keys = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        // "." is the whole, "?" is nowhere, and the name of an unknown key is part of the text already.
        if path == "." || path == "?" || error.inner().to_string().starts_with("unknown field") {
            wrong(error.inner().to_string())
        } else {
            wrong(format!("{path}: {}", error.inner()))
        }
    })?;
    reader.end().map_err(|error| wrong(error.to_string()))?;
    Ok(keys)
}

fn wrong(text: String) -> Error {
    Error::new(ErrorKind::Config, format!("Configuration: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> String {
        let error = server(json.as_bytes()).expect_err("a refusal");
        assert_eq!(error.kind, ErrorKind::Config);
        error.message
    }

    #[test]
    fn nothing_means_the_defaults_and_so_does_null() {
        for json in ["", "{}", r#"{"port":null,"allow":null}"#] {
            let (config, limits) = server(json.as_bytes()).unwrap();
            assert_eq!(format!("{config:?}"), format!("{:?}", ServerConfig::default()), "{json}");
            assert_eq!(limits, InboxLimits::default());
        }
    }

    #[test]
    fn every_key_arrives() {
        let json = r#"{"host":"::1","port":0,"worker_count":2,"heartbeat_timeout":1.5,"register_timeout":2,"max_connections":3,
            "max_connections_per_ip":4,"max_nodes":5,"max_nodes_per_connection":6,"max_frame_bytes":7,"outbox_bytes":8,
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
        assert!(refusal(r#"{"deny":[],"blacklist":[]}"#).starts_with("Configuration: duplicate field `deny`"));
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
        assert!(refused.message.starts_with("Configuration: unknown field `heartbeat_timeout`, expected one of `host`, "), "{refused}");
    }

    #[test]
    fn every_key_is_on_the_first_page_of_the_header() {
        let page = include_str!("../cbindgen.toml");
        for refused in [server(b"{\"?\":1}").map(drop), clients(b"{\"?\":1}").map(drop), client(b"{\"?\":1}").map(drop)] {
            let refused = refused.expect_err("an unknown key").message;
            let keys: Vec<&str> = refused.split('`').skip(3).step_by(2).collect();
            assert!(keys.len() >= 2, "{refused}");
            for key in keys {
                assert!(page.contains(&format!(" {key} ")) || page.contains(&format!(" {key}, ")), "{key}");
            }
        }
    }

    #[test]
    fn a_group_of_clients_has_the_limits_of_its_inbox() {
        assert_eq!(clients(br#"{"inbox_events":3}"#).unwrap(), InboxLimits { events: 3, ..InboxLimits::default() });
        assert!(clients(br#"{"port":1}"#).is_err());
    }

    #[test]
    fn the_rate_limit_is_off_until_one_of_its_keys_is_set() {
        let limit = |json: &str| server(json.as_bytes()).unwrap().0.rate_limit.map(|limit| (limit.capacity, limit.refill_per_second));
        assert_eq!(limit("{}"), None);
        assert_eq!(limit(r#"{"enable_rate_limit":true}"#), Some((100, 10.0)));
        assert_eq!(limit(r#"{"rate_limit_capacity":5}"#), Some((5, 10.0)));
        assert_eq!(limit(r#"{"rate_limit_by":"ip"}"#), Some((100, 10.0)));
        assert_eq!(limit(r#"{"enable_rate_limit":false,"rate_limit_capacity":5}"#), None);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_name_of_the_key() {
        for (json, says) in [
            ("nonsense", r#"Configuration: not a JSON object such as {"port":9501}"#),
            (r#"["::1",9501]"#, r#"Configuration: not a JSON object such as {"port":9501}"#),
            (r#"{"port":1"#, "Configuration: EOF while parsing an object"),
            ("{} {}", "Configuration: trailing characters"),
            (r#"{"port":70000}"#, "Configuration: port: invalid value: integer `70000`, expected u16"),
            (r#"{"port":1,"port":2}"#, "Configuration: duplicate field `port`"),
            (r#"{"heartbeat_timeout":-1}"#, "Configuration: heartbeat_timeout: not a time in seconds"),
            (r#"{"bus_group":"users"}"#, "Configuration: bus_group: there is no bus socket without the key `bus`"),
            (r#"{"slow_consumer":"wait"}"#, "Configuration: slow_consumer: unknown variant `wait`, expected `close` or `drop`"),
            (r#"{"deny":["10.0.0.0/8","x"]}"#, "Configuration: deny: `x` is no network such as 10.0.0.0/8, and no address"),
        ] {
            let refusal = refusal(json);
            // Where it went wrong is said as well, in JSON's words.
            assert!(refusal.starts_with(says), "{json}: {refusal}");
        }
        let unknown = refusal(r#"{"prot":1}"#);
        assert!(unknown.starts_with("Configuration: unknown field `prot`, expected one of `host`, `port`, "), "{unknown}");
        let not_utf8 = server(b"{\"host\":\"\xff\"}").expect_err("a refusal");
        assert!(not_utf8.message.starts_with("Configuration: host: invalid unicode"), "{}", not_utf8.message);
    }
}
