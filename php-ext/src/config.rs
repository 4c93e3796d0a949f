//! Reads configuration arrays: the keys, their checks and the texts that say what is wrong.
//!
//! The original's keys are checked in its order with its texts. Keys of our own follow. Unknown keys are accepted, and told.

use crate::classes::config_validator::is_host;
use crate::exception;
use crate::ini;
use crate::log;
use crate::php::{self, Outcome, Thrown, json_encode, numeric, type_name, weak_double, weak_long, weak_string};
use crate::ranges::{LONGEST, SHORTEST, measured};
use ext_php_rs::types::{ZendHashTable, Zval};

use heartbus_core::bus;
use heartbus_core::config::{ClientConfig, InboxLimits, MOST, RateLimit, RateLimitBy, ServerConfig, SlowConsumer};
use heartbus_core::text::{nearest, printable};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Which event loop runs the callbacks.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Loop {
    /// The one that runs already; else Workerman where it is installed, else our own.
    Auto,
    Native,
    Workerman,
    Revolt,
    React,
    /// None: the application calls `poll()`.
    Manual,
}

const LOOPS: [(&str, Loop); 6] = [
    ("auto", Loop::Auto),
    ("native", Loop::Native),
    ("workerman", Loop::Workerman),
    ("revolt", Loop::Revolt),
    ("react", Loop::React),
    ("manual", Loop::Manual),
];

/// Where the log goes: true for the `Logger` of the PHP library.
const TARGETS: [(&str, bool); 2] = [("stderr", false), ("logger", true)];

/// For people to read.
pub fn loop_names() -> String {
    LOOPS.map(|(name, _)| name).join(", ")
}

/// Of a server that has no name of its own: Workerman shows it, and the bus socket is called after it.
pub const DEFAULT_NAME: &str = "HeartbeatServer";

/// Messages that a channel's queues hold.
pub const DEFAULT_QUEUE_SIZE: i64 = 1000;

/// More processes than this help nobody.
const MAX_WORKERS: i64 = 256;

/// What a graceful stop grants to those who stay: as long as service managers wait, more or less.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What a server's configuration array may have, and below a client's. Whoever reads a key writes it here: else it is told as unknown.
const SERVER_KEYS: &[&str] = &[
    "worker_count",
    "heartbeat_timeout",
    "heartbeat_check_interval",
    "max_connections",
    "protocol",
    "enable_rate_limit",
    "rate_limit_capacity",
    "rate_limit_refill_rate",
    "channel_max_queue_size",
    "register_timeout",
    "max_connections_per_ip",
    "max_nodes_per_connection",
    "max_metadata_bytes_per_connection",
    "max_nodes",
    "max_frame_bytes",
    "outbox_bytes",
    "slow_consumer",
    "slow_consumer_timeout",
    "total_buffer_bytes",
    "max_requests_per_second",
    "whitelist",
    "blacklist",
    "stats_interval",
    "rate_limit_by",
    "inbox_events",
    "inbox_bytes",
    "inbox_policy",
    "php_workers",
    "name",
    "bus",
    "bus_group",
    "user",
    "group",
    "stop_timeout",
    "loop",
    "log",
    "log_level",
    "log_file",
];

const CLIENT_KEYS: &[&str] = &[
    "heartbeat_interval",
    "auto_reconnect",
    "reconnect_interval",
    "max_reconnect_attempts",
    "node_id",
    "metadata",
    "connect_timeout",
    "outbox_bytes",
    "protocol",
    "max_nodes",
    "heartbeat_all",
    "loop",
    "log",
    "log_level",
    "log_file",
];

/// Lines about unknown keys, of one process.
const MOST_TOLD: usize = 100;

thread_local! {
    static TOLD: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// What a server is told.
pub struct Server {
    pub worker_count: i64,
    pub check_interval: f64,
    pub max_connections: i64,
    pub protocol: Zval,
    pub channel_queue_size: i64,
    pub event_loop: Loop,
    /// Processes for the callbacks, under Workerman; 0 keeps them beside the engine.
    pub php_workers: Option<i64>,
    /// Of Workerman's workers and of the bus socket.
    pub name: Option<String>,
    pub bus: BusSocket,
    /// The group whose processes may use the bus socket as well.
    pub bus_group: Option<String>,
    /// The user and the group of its processes, under Workerman.
    pub user: Option<String>,
    pub group: Option<String>,
    /// How long a graceful stop waits for connections; none: without end.
    pub stop_timeout: Option<Duration>,
    /// What a worker's full queue does with its oldest data; else it refuses the newest.
    pub drops_oldest: bool,
    pub engine: ServerConfig,
    pub inbox: InboxLimits,
    pub log: log::Settings,
    /// What [`tell_unknown`] is to say when the log is where it shall be.
    pub unknown: Vec<String>,
}

/// Where other processes of the machine reach the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusSocket {
    Default,
    At(PathBuf),
    None,
}

/// A wrong value: the text that says so, or an exception that is already thrown.
enum Fault {
    Text(String),
    Thrown,
}

type Checked<T = ()> = Result<T, Fault>;

fn fault<T>(text: impl Into<String>) -> Checked<T> {
    Err(Fault::Text(text.into()))
}

impl From<Thrown> for Fault {
    fn from(_: Thrown) -> Fault {
        Fault::Thrown
    }
}

/// Checks the arguments of a server's constructor; throws as the original does.
pub fn server(host: &str, port: i64, config: &ZendHashTable) -> Outcome<Server> {
    read_server(host, port, &Keys { table: config, known: SERVER_KEYS }).map_err(|fault| match fault {
        Fault::Thrown => Thrown,
        Fault::Text(text) => {
            // The second becomes the previous of the first.
            exception::invalid_argument(&text);
            exception::runtime_exception(&format!("Configuration validation failed: {text}"))
        }
    })
}

fn read_server(host: &str, port: i64, keys: &Keys) -> Checked<Server> {
    let worker_count = keys.required("worker_count", "int", 4.0, |value| value.long().map(|number| number as f64))?;
    let timeout = keys.required("heartbeat_timeout", "numeric", 30.0, numeric)?;
    let given_interval = keys.get("heartbeat_check_interval").is_some();
    let check_interval = keys.required("heartbeat_check_interval", "numeric", timeout / 3.0, numeric)?;
    if worker_count < 1.0 {
        return fault("worker_count must be >= 1");
    }
    if worker_count > 128.0 {
        return fault("worker_count should not exceed 128");
    }
    if timeout < 1.0 || timeout.is_nan() {
        return fault("heartbeat_timeout must be >= 1 second");
    }
    if timeout > LONGEST {
        return fault(format!("heartbeat_timeout must be <= {LONGEST} seconds"));
    }
    if given_interval {
        if check_interval < 1.0 || check_interval.is_nan() {
            return fault("heartbeat_check_interval must be >= 1 second");
        }
        if check_interval >= timeout {
            return fault("heartbeat_check_interval should be less than heartbeat_timeout");
        }
    }
    let max_connections = keys.positive("max_connections")?.unwrap_or(1_000_000);
    let channel_queue_size = keys.positive("channel_max_queue_size")?;

    let defaults = ServerConfig::default();
    let limits = InboxLimits::default();
    let size = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
    let at_least = |key: &str, least: i64| keys.integer(key, least).map(|number| number.map(size));
    let engine = ServerConfig {
        host: host.into(),
        port: u16::try_from(port).unwrap_or_default(),
        io_threads: worker_count as usize,
        heartbeat_timeout: measured(timeout),
        register_timeout: keys.seconds("register_timeout")?.unwrap_or(defaults.register_timeout),
        // Those who write PHP_INT_MAX want no limit.
        max_connections: size(max_connections).min(MOST as usize),
        max_connections_per_ip: at_least("max_connections_per_ip", 0)?.unwrap_or(defaults.max_connections_per_ip),
        max_nodes_per_connection: at_least("max_nodes_per_connection", 1)?.unwrap_or(defaults.max_nodes_per_connection),
        max_metadata_bytes_per_connection: at_least("max_metadata_bytes_per_connection", 1)?
            .unwrap_or(defaults.max_metadata_bytes_per_connection),
        max_nodes: at_least("max_nodes", 1)?.unwrap_or(defaults.max_nodes),
        max_frame_bytes: keys.integer32("max_frame_bytes", 1)?.unwrap_or(defaults.max_frame_bytes),
        outbox_bytes: at_least("outbox_bytes", 1)?.unwrap_or(defaults.outbox_bytes),
        slow_consumer: keys
            .choice("slow_consumer", &[("close", SlowConsumer::Close), ("drop", SlowConsumer::Drop)])?
            .unwrap_or(defaults.slow_consumer),
        slow_consumer_timeout: keys.seconds("slow_consumer_timeout")?.unwrap_or(defaults.slow_consumer_timeout),
        total_buffer_bytes: at_least("total_buffer_bytes", 1)?.unwrap_or(defaults.total_buffer_bytes),
        rate_limit: None,
        max_requests_per_second: keys.integer("max_requests_per_second", 0)?.map_or(0, |number| number as u64),
        allow: keys.list("whitelist", "an IP address or network", network)?,
        deny: keys.list("blacklist", "an IP address or network", network)?,
        bus: None,
        stats_interval: keys.seconds("stats_interval")?.unwrap_or(defaults.stats_interval),
    };
    let by = keys.choice("rate_limit_by", &[("connection", RateLimitBy::Connection), ("ip", RateLimitBy::Ip)])?;
    let inbox = InboxLimits {
        events: at_least("inbox_events", 1)?.unwrap_or(limits.events),
        bytes: at_least("inbox_bytes", 1)?.unwrap_or(limits.bytes),
    };
    let event_loop = keys.event_loop()?;
    let php_workers = keys.integer("php_workers", 0)?;
    if php_workers.is_some_and(|workers| workers > MAX_WORKERS) {
        return fault(format!("php_workers should not exceed {MAX_WORKERS}"));
    }
    let name = keys.text("name")?;
    if let Some(name) = name.as_ref().filter(|name| bus::check_name(name).is_err()) {
        return fault(format!("name must have 1 to 64 letters, digits, dots, dashes or underscores: {name}"));
    }
    let bus = keys.bus()?;
    let bus_group = keys.text("bus_group")?;
    let (user, group) = (keys.text("user")?, keys.text("group")?);
    let stop_timeout = keys.stop_timeout()?;
    let drops_oldest = keys.choice("inbox_policy", &[("reject", false), ("drop_oldest", true)])?.unwrap_or_default();
    let log = keys.log()?;

    if !is_host(host.as_bytes()) {
        return fault(format!("Invalid host: {host}"));
    }
    if !(1..=65535).contains(&port) {
        return fault(format!("Invalid port: {port}"));
    }
    // From here on the original's own classes complain, about types.
    if keys.get("max_connections").is_some_and(|value| value.dereference().is_null()) {
        return Err(type_fault(r"Server\ConnectionPool", 1, "maxConnections", "int", &Zval::null()));
    }
    let rate_limit = keys.rate_limit(by)?;
    Ok(Server {
        worker_count: worker_count as i64,
        check_interval,
        max_connections,
        channel_queue_size: channel_queue_size.unwrap_or(DEFAULT_QUEUE_SIZE),
        protocol: keys.value("protocol").map_or_else(|| php::text("tcp"), Zval::shallow_clone),
        event_loop,
        php_workers,
        name,
        bus,
        bus_group,
        user: user.filter(|name| !name.is_empty()),
        group: group.filter(|name| !name.is_empty()),
        stop_timeout,
        drops_oldest,
        engine: ServerConfig { rate_limit, ..engine },
        inbox,
        log,
        unknown: keys.unknown(CLIENT_KEYS, "a client"),
    })
}

/// What a client is told, of which the engine knows nothing.
pub struct Client {
    pub event_loop: Loop,
    pub log: log::Settings,
    /// As [`Server::unknown`].
    pub unknown: Vec<String>,
}

/// The part of a client's configuration that decides where it runs.
pub fn client(config: &ZendHashTable) -> Outcome<Client> {
    let keys = Keys { table: config, known: CLIENT_KEYS };
    let read = || Ok(Client { event_loop: keys.event_loop()?, log: keys.log()?, unknown: keys.unknown(SERVER_KEYS, "a server") });
    read().map_err(thrown)
}

/// The part that says where its messages go; what is wrong in it is left out.
pub fn log(config: &ZendHashTable) -> log::Settings {
    Keys { table: config, known: CLIENT_KEYS }.log().unwrap_or_default()
}

/// Where no configuration has said anything about the log, php.ini does.
pub fn settle_log() {
    if log::is_untouched() {
        let _ = log(&ZendHashTable::new()).apply();
    }
}

/// What the engine is told of a client. May run PHP code: metadata may hold objects that encode themselves.
pub fn client_engine(host: &str, port: i64, config: &ZendHashTable, node_id: Option<String>) -> Outcome<ClientConfig> {
    let keys = Keys { table: config, known: CLIENT_KEYS };
    let read = || {
        let defaults = ClientConfig::default();
        let outbox_bytes = keys.integer("outbox_bytes", 1)?.map_or(defaults.outbox_bytes, |n| usize::try_from(n).unwrap_or(usize::MAX));
        Ok(ClientConfig {
            host: host.into(),
            port: u16::try_from(port).or_else(|_| fault(format!("Invalid port: {port}")))?,
            heartbeat_interval: keys.seconds("heartbeat_interval")?.unwrap_or(defaults.heartbeat_interval),
            auto_reconnect: keys.get("auto_reconnect").is_none_or(is_on),
            reconnect_interval: keys.seconds("reconnect_interval")?.unwrap_or(defaults.reconnect_interval),
            max_reconnect_attempts: keys.integer32("max_reconnect_attempts", 0)?.unwrap_or_default(),
            node_id: keys.text("node_id")?.or(node_id),
            metadata: keys.metadata()?,
            connect_timeout: keys.seconds("connect_timeout")?.unwrap_or(defaults.connect_timeout),
            outbox_bytes,
            protocol: keys.integer32("protocol", 1)?.unwrap_or(defaults.protocol),
            max_nodes: keys.nodes_of_client()?,
            heartbeat_all: keys.value("heartbeat_all").is_none_or(is_on),
        })
    };
    read().map_err(thrown)
}

/// How many nodes a client may carry, its first one included.
pub fn client_nodes(config: &ZendHashTable) -> Outcome<usize> {
    Keys { table: config, known: CLIENT_KEYS }.nodes_of_client().map_err(thrown)
}

/// Says which keys have no effect, in the log: old code goes on, and a slip of the pen is seen. A thousand clients of one
/// configuration say it once.
pub fn tell_unknown(lines: &[String]) {
    for line in lines {
        if TOLD.with_borrow_mut(|told| told.len() < MOST_TOLD && told.insert(line.clone())) {
            tracing::warn!("{line}");
        }
    }
}

/// A node's metadata as JSON text. May run PHP code: it may hold objects that encode themselves.
pub fn metadata(array: &Zval) -> Outcome<String> {
    encode_metadata(array).map_err(thrown)
}

/// Members of metadata, by their keys, as the text of a JSON object. May run PHP code, as above.
pub fn members<'a>(entries: impl IntoIterator<Item = (Zval, &'a Zval)>) -> Outcome<String> {
    let mut text = String::from("{");
    for (key, value) in entries {
        let key = encode_metadata(&key).map_err(thrown)?;
        // A number is the key of an array, and a text in JSON.
        let key = if key.starts_with('"') { key } else { format!("\"{key}\"") };
        let value = encode_metadata(value).map_err(thrown)?;
        let comma = if text.len() > 1 { "," } else { "" };
        text.push_str(&format!("{comma}{key}:{value}"));
    }
    text.push('}');
    Ok(text)
}

fn encode_metadata(array: &Zval) -> Checked<String> {
    match json_encode(array)?.and_then(|json| json.string()) {
        Some(json) => Ok(json),
        None => fault("metadata cannot be encoded as JSON"),
    }
}

fn thrown(fault: Fault) -> Thrown {
    match fault {
        Fault::Thrown => Thrown,
        Fault::Text(text) => exception::invalid_argument(&text),
    }
}

/// A configuration array, and which keys it may have.
struct Keys<'a> {
    table: &'a ZendHashTable,
    known: &'static [&'static str],
}

impl<'a> Keys<'a> {
    /// As it is given; none when it is missing.
    fn get(&self, key: &str) -> Option<&'a Zval> {
        debug_assert!(self.known.contains(&key), "{key} is not in its table");
        self.table.get(key)
    }

    /// The value of a key; none when it is missing or null.
    fn value(&self, key: &str) -> Option<&'a Zval> {
        self.get(key).map(Zval::dereference).filter(|value| !value.is_null())
    }

    /// Which keys have no effect, as lines for the log.
    fn unknown(&self, of_others: &[&str], others: &str) -> Vec<String> {
        let keys = self.table.iter().map(|(key, _)| key.to_string());
        let unknown = keys.filter(|key| !self.known.contains(&key.as_str()));
        let told = unknown.map(|key| {
            let shown = printable(&key);
            if of_others.contains(&key.as_str()) {
                return format!("The configuration key '{shown}' is {others}'s and has no effect here");
            }
            let meant = nearest(&key, self.known.iter().copied()).map(|meant| format!("; did you mean '{meant}'?"));
            format!("The configuration key '{shown}' is unknown and has no effect{}", meant.unwrap_or_default())
        });
        told.take(MOST_TOLD).collect()
    }

    /// One of the original's required keys, which have a default and only miss when they are null.
    fn required(&self, key: &str, kind: &str, default: f64, read: impl Fn(&Zval) -> Option<f64>) -> Checked<f64> {
        let Some(value) = self.get(key).map(Zval::dereference) else { return Ok(default) };
        if value.is_null() {
            return fault(format!("Missing required config key: {key}"));
        }
        match read(value) {
            Some(number) => Ok(number),
            None => fault(format!("Config key '{key}' must be of type {kind}, {} given", type_name(value, true))),
        }
    }

    /// One of the original's, with its text.
    fn positive(&self, key: &str) -> Checked<Option<i64>> {
        match self.value(key).map(|value| value.long().filter(|number| *number >= 1)) {
            Some(None) => fault(format!("{key} must be a positive integer")),
            number => Ok(number.flatten()),
        }
    }

    fn integer(&self, key: &str, least: i64) -> Checked<Option<i64>> {
        self.integer_up_to(key, least, MOST as i64)
    }

    fn integer32(&self, key: &str, least: i64) -> Checked<Option<u32>> {
        let number = self.integer_up_to(key, least, u32::MAX.into())?;
        Ok(number.and_then(|number| u32::try_from(number).ok()))
    }

    /// `1e6` is a float in PHP: one without a fraction is an integer here.
    fn integer_up_to(&self, key: &str, least: i64, most: i64) -> Checked<Option<i64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let whole = |number: f64| (number.fract() == 0.0).then_some(number as i64);
        match value.long().or_else(|| value.double().and_then(whole)) {
            Some(number) if number > most => fault(format!("{key} must be an integer <= {most}")),
            Some(number) if number >= least => Ok(Some(number)),
            _ => fault(format!("{key} must be an integer >= {least}")),
        }
    }

    fn seconds(&self, key: &str) -> Checked<Option<Duration>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match numeric(value).filter(|number| *number > 0.0) {
            None => fault(format!("{key} must be a number of seconds greater than 0")),
            Some(number) if !(SHORTEST..=LONGEST).contains(&number) => {
                fault(format!("{key} must be a number of seconds from {SHORTEST} to {LONGEST}"))
            }
            Some(number) => Ok(Some(measured(number))),
        }
    }

    fn stop_timeout(&self) -> Checked<Option<Duration>> {
        let Some(value) = self.value("stop_timeout") else { return Ok(Some(STOP_TIMEOUT)) };
        if numeric(value) == Some(0.0) {
            return Ok(None);
        }
        match numeric(value).filter(|number| (SHORTEST..=LONGEST).contains(number)) {
            Some(number) => Ok(Some(measured(number))),
            None => fault("stop_timeout must be a number of seconds, or 0 for no limit"),
        }
    }

    fn text(&self, key: &str) -> Checked<Option<String>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let Some(string) = weak_string(value)? else {
            return fault(format!("{key} must be of type string, {} given", type_name(value, false)));
        };
        match string.string() {
            Some(text) => Ok(Some(text)),
            None => fault(format!("{key} must be valid UTF-8")),
        }
    }

    fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Checked<Option<T>> {
        self.value(key).map(|value| pick(key, value.str(), choices)).transpose()
    }

    fn event_loop(&self) -> Checked<Loop> {
        let given = self.choice("loop", &LOOPS)?.map_or_else(|| ini_choice("loop", &LOOPS), |choice| Ok(Some(choice)))?;
        Ok(given.unwrap_or(Loop::Auto))
    }

    fn bus(&self) -> Checked<BusSocket> {
        match self.value("bus") {
            None => Ok(BusSocket::Default),
            Some(value) if as_bool(value) == Some(false) => Ok(BusSocket::None),
            Some(value) => match value.str().filter(|path| path.starts_with('/')) {
                Some(path) => Ok(BusSocket::At(path.into())),
                None => fault("bus must be the absolute path of a socket, or false"),
            },
        }
    }

    fn list<T>(&self, key: &str, what: &str, read: impl Fn(&str) -> Option<T>) -> Checked<Vec<T>> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let Some(array) = value.array() else { return fault(format!("{key} must be an array")) };
        let entries = array.values().map(|entry| match entry.dereference().str().and_then(&read) {
            Some(entry) => Ok(entry),
            None => fault(format!("{key}: {} is not {what}", entry.dereference().coerce_to_string().unwrap_or_else(|| "an entry".into()))),
        });
        entries.collect()
    }

    fn log(&self) -> Checked<log::Settings> {
        let levels: Vec<_> = log::LEVELS.into_iter().zip(0u8..).collect();
        let mut settings = log::Settings {
            level: self.choice("log_level", &levels)?,
            file: self.text("log_file")?,
            to_logger: self.choice("log", &TARGETS)?,
        };
        // php.ini says where the log begins; then it stays where the last configuration put it.
        if log::is_untouched() {
            settings.to_logger = settings.to_logger.map_or_else(|| ini_choice("log", &TARGETS), |target| Ok(Some(target)))?;
            // A log that is off has no level, wherever it would go.
            let text = ini::log_level().or_else(|| ini::is_empty("log").then(|| "off".to_owned()));
            let of_ini = || text.map(|text| pick("heartbus.log_level", Some(&text), &levels)).transpose();
            settings.level = settings.level.map_or_else(of_ini, |level| Ok(Some(level)))?;
            settings.file = settings.file.or_else(|| ini::setting("log_file"));
        }
        Ok(settings)
    }

    /// Off unless one of its keys is set: the original's default silences everybody behind one NAT.
    fn rate_limit(&self, by: Option<RateLimitBy>) -> Checked<Option<RateLimit>> {
        let enabled = self.get("enable_rate_limit").map(is_on);
        let (capacity, rate) = (self.get("rate_limit_capacity"), self.get("rate_limit_refill_rate"));
        let is_set = enabled.is_some() || capacity.is_some() || rate.is_some() || by.is_some();
        if !is_set || enabled == Some(false) {
            return Ok(None);
        }
        let limit = match capacity {
            None => 100,
            Some(value) => weak_long(value)?.ok_or_else(|| type_fault(r"Utils\RateLimiter", 1, "capacity", "int", value))?,
        };
        let refill = match rate {
            None => 10.0,
            Some(value) => weak_double(value)?.ok_or_else(|| type_fault(r"Utils\RateLimiter", 2, "refillRate", "float", value))?,
        };
        if limit < 1 {
            return fault("rate_limit_capacity must be an integer >= 1");
        }
        if !refill.is_finite() || refill < 0.0 {
            return fault("rate_limit_refill_rate must be a number >= 0");
        }
        if refill > MOST as f64 {
            return fault(format!("rate_limit_refill_rate must be a number <= {MOST}"));
        }
        let Ok(capacity) = u32::try_from(limit) else { return fault(format!("rate_limit_capacity must be an integer <= {}", u32::MAX)) };
        Ok(Some(RateLimit { capacity, refill_per_second: refill, by: by.unwrap_or(RateLimitBy::Connection) }))
    }

    fn metadata(&self) -> Checked<String> {
        let Some(value) = self.value("metadata") else { return Ok("[]".into()) };
        if !value.is_array() {
            return fault(format!("metadata must be of type array, {} given", type_name(value, false)));
        }
        encode_metadata(value)
    }

    fn nodes_of_client(&self) -> Checked<usize> {
        let default = ClientConfig::default().max_nodes;
        Ok(self.integer("max_nodes", 1)?.map_or(default, |number| usize::try_from(number).unwrap_or(usize::MAX)))
    }
}

/// Switches come from files and environments too, as texts: `'off'` is off there, although PHP takes it for true.
fn is_on(value: &Zval) -> bool {
    as_bool(value).unwrap_or_else(|| value.coerce_to_bool())
}

/// What PHP's filter for booleans understands; none for anything else.
fn as_bool(value: &Zval) -> Option<bool> {
    let value = value.dereference();
    if let Some(number) = value.long() {
        return [false, true].get(usize::try_from(number).ok()?).copied();
    }
    let Some(text) = value.str() else { return value.bool() };
    let is_any_of = |words: &[&str]| words.iter().any(|word| text.trim_ascii().eq_ignore_ascii_case(word));
    match text {
        _ if is_any_of(&["1", "true", "on", "yes"]) => Some(true),
        _ if is_any_of(&["0", "false", "off", "no", ""]) => Some(false),
        _ => None,
    }
}

fn ini_choice<T: Copy>(key: &str, choices: &[(&str, T)]) -> Checked<Option<T>> {
    ini::setting(key).map(|text| pick(&format!("heartbus.{key}"), Some(&text), choices)).transpose()
}

fn pick<T: Copy>(key: &str, text: Option<&str>, choices: &[(&str, T)]) -> Checked<T> {
    match choices.iter().find(|(name, _)| text.is_some_and(|text| text.eq_ignore_ascii_case(name))) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("'{name}'")).collect();
            fault(format!("{key} must be one of {}", names.join(", ")))
        }
    }
}

/// The error that PHP raises when one of the original's constructors gets the value.
fn type_fault(class: &str, number: u32, parameter: &str, kind: &str, value: &Zval) -> Fault {
    exception::type_error(&format!(
        r"PfinalClub\AsyncioHeartbeat\{class}::__construct(): Argument #{number} (${parameter}) must be of type {kind}, {} given",
        type_name(value.dereference(), false)
    ));
    Fault::Thrown
}

fn network<T: std::str::FromStr + From<IpAddr>>(text: &str) -> Option<T> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(T::from))
}
