//! Reads configuration arrays: the keys, their checks and the texts that say what is wrong.
//!
//! The original's keys are checked in its order with its texts. Keys of our own follow. Unknown keys are accepted.

use crate::classes::channel::DEFAULT_QUEUE_SIZE;
use crate::classes::is_host;
use crate::exception;
use crate::info;
use crate::log;
use crate::php::{self, Outcome, Thrown, json_encode, numeric, type_name, weak_double, weak_long, weak_string};
use ext_php_rs::types::{ZendHashTable, Zval};

use heartbus_core::bus;
use heartbus_core::config::{ClientConfig, InboxLimits, RateLimit, RateLimitBy, ServerConfig, SlowConsumer};
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

/// More processes than this help nobody.
const MAX_WORKERS: i64 = 256;

/// What a graceful stop grants to those who stay: as long as service managers wait, more or less.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer times than this are all the same.
const YEAR: f64 = 365.0 * 24.0 * 3600.0;

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
    read_server(host, port, &Keys(config)).map_err(|fault| match fault {
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
    let given_interval = keys.0.get("heartbeat_check_interval").is_some();
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
    if given_interval {
        if check_interval < 1.0 || check_interval.is_nan() {
            return fault("heartbeat_check_interval must be >= 1 second");
        }
        if check_interval >= timeout {
            return fault("heartbeat_check_interval should be less than heartbeat_timeout");
        }
    }
    let max_connections = match keys.integer("max_connections", 1) {
        Ok(number) => number.unwrap_or(1_000_000),
        Err(_) => return fault("max_connections must be a positive integer"),
    };
    let Ok(channel_queue_size) = keys.integer("channel_max_queue_size", 1) else {
        return fault("channel_max_queue_size must be a positive integer");
    };

    let defaults = ServerConfig::default();
    let limits = InboxLimits::default();
    let size = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
    let at_least = |key: &str, least: i64| keys.integer(key, least).map(|number| number.map(size));
    let engine = ServerConfig {
        host: host.into(),
        port: u16::try_from(port).unwrap_or_default(),
        io_threads: worker_count as usize,
        heartbeat_timeout: seconds(timeout),
        register_timeout: keys.seconds("register_timeout")?.unwrap_or(defaults.register_timeout),
        max_connections: size(max_connections),
        max_connections_per_ip: at_least("max_connections_per_ip", 0)?.unwrap_or(defaults.max_connections_per_ip),
        max_nodes_per_connection: at_least("max_nodes_per_connection", 1)?.unwrap_or(defaults.max_nodes_per_connection),
        max_nodes: at_least("max_nodes", 1)?.unwrap_or(defaults.max_nodes),
        max_frame_bytes: keys.integer("max_frame_bytes", 1)?.map_or(defaults.max_frame_bytes, |n| u32::try_from(n).unwrap_or(u32::MAX)),
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
    if keys.0.get("max_connections").is_some_and(|value| value.dereference().is_null()) {
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
    })
}

/// What a client is told, of which the engine knows nothing.
pub struct Client {
    pub event_loop: Loop,
    pub log: log::Settings,
}

/// The part of a client's configuration that decides where it runs.
pub fn client(config: &ZendHashTable) -> Outcome<Client> {
    let keys = Keys(config);
    let read = || Ok(Client { event_loop: keys.event_loop()?, log: keys.log()? });
    read().map_err(thrown)
}

/// The part that says where its messages go; what is wrong in it is left out.
pub fn log(config: &ZendHashTable) -> log::Settings {
    Keys(config).log().unwrap_or_default()
}

/// Where no configuration has said anything about the log, php.ini does.
pub fn settle_log() {
    if log::is_untouched() {
        let _ = log(&ZendHashTable::new()).apply();
    }
}

/// What the engine is told of a client. May run PHP code: metadata may hold objects that encode themselves.
pub fn client_engine(host: &str, port: i64, config: &ZendHashTable, node_id: Option<String>) -> Outcome<ClientConfig> {
    let keys = Keys(config);
    let read = || {
        let defaults = ClientConfig::default();
        let attempts = keys.integer("max_reconnect_attempts", 0)?.unwrap_or_default();
        let outbox_bytes = keys.integer("outbox_bytes", 1)?.map_or(defaults.outbox_bytes, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let protocol = keys.integer("protocol", 1)?.map_or(defaults.protocol, |n| u32::try_from(n).unwrap_or(u32::MAX));
        Ok(ClientConfig {
            host: host.into(),
            port: u16::try_from(port).or_else(|_| fault(format!("Invalid port: {port}")))?,
            heartbeat_interval: keys.seconds("heartbeat_interval")?.unwrap_or(defaults.heartbeat_interval),
            auto_reconnect: keys.0.get("auto_reconnect").is_none_or(Zval::coerce_to_bool),
            reconnect_interval: keys.seconds("reconnect_interval")?.unwrap_or(defaults.reconnect_interval),
            max_reconnect_attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            node_id: keys.text("node_id")?.or(node_id),
            metadata: keys.metadata()?,
            connect_timeout: keys.seconds("connect_timeout")?.unwrap_or(defaults.connect_timeout),
            outbox_bytes,
            protocol,
            max_nodes: keys.nodes_of_client()?,
            heartbeat_all: keys.value("heartbeat_all").is_none_or(Zval::coerce_to_bool),
        })
    };
    read().map_err(thrown)
}

/// How many nodes a client may carry, its first one included.
pub fn client_nodes(config: &ZendHashTable) -> Outcome<usize> {
    Keys(config).nodes_of_client().map_err(thrown)
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

/// A configuration array.
struct Keys<'a>(&'a ZendHashTable);

impl<'a> Keys<'a> {
    /// The value of a key; none when it is missing or null.
    fn value(&self, key: &str) -> Option<&'a Zval> {
        self.0.get(key).map(Zval::dereference).filter(|value| !value.is_null())
    }

    /// One of the original's required keys, which have a default and only miss when they are null.
    fn required(&self, key: &str, kind: &str, default: f64, read: impl Fn(&Zval) -> Option<f64>) -> Checked<f64> {
        let Some(value) = self.0.get(key).map(Zval::dereference) else { return Ok(default) };
        if value.is_null() {
            return fault(format!("Missing required config key: {key}"));
        }
        match read(value) {
            Some(number) => Ok(number),
            None => fault(format!("Config key '{key}' must be of type {kind}, {} given", type_name(value, true))),
        }
    }

    fn integer(&self, key: &str, least: i64) -> Checked<Option<i64>> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match value.long().filter(|number| *number >= least) {
                Some(number) => Ok(Some(number)),
                None => fault(format!("{key} must be an integer >= {least}")),
            },
        }
    }

    fn seconds(&self, key: &str) -> Checked<Option<Duration>> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match numeric(value).filter(|number| *number > 0.0) {
                Some(number) => Ok(Some(seconds(number))),
                None => fault(format!("{key} must be a number of seconds greater than 0")),
            },
        }
    }

    fn stop_timeout(&self) -> Checked<Option<Duration>> {
        let Some(value) = self.value("stop_timeout") else { return Ok(Some(STOP_TIMEOUT)) };
        match numeric(value).filter(|number| *number >= 0.0) {
            Some(number) => Ok((number > 0.0).then(|| seconds(number))),
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
            Some(value) if value.is_false() => Ok(BusSocket::None),
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
            let of_ini = || info::log_level().map(|text| pick("heartbus.log_level", Some(&text), &levels)).transpose();
            settings.level = settings.level.map_or_else(of_ini, |level| Ok(Some(level)))?;
            settings.file = settings.file.or_else(|| info::setting("log_file"));
        }
        Ok(settings)
    }

    /// Off unless one of its keys is set: the original's default silences everybody behind one NAT.
    fn rate_limit(&self, by: Option<RateLimitBy>) -> Checked<Option<RateLimit>> {
        let enabled = self.0.get("enable_rate_limit").map(Zval::coerce_to_bool);
        let (capacity, rate) = (self.0.get("rate_limit_capacity"), self.0.get("rate_limit_refill_rate"));
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
        let capacity = u32::try_from(limit).unwrap_or(u32::MAX);
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

fn ini_choice<T: Copy>(key: &str, choices: &[(&str, T)]) -> Checked<Option<T>> {
    info::setting(key).map(|text| pick(&format!("heartbus.{key}"), Some(&text), choices)).transpose()
}

fn pick<T: Copy>(key: &str, text: Option<&str>, choices: &[(&str, T)]) -> Checked<T> {
    match choices.iter().find(|(name, _)| text == Some(name)) {
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

pub fn seconds(number: f64) -> Duration {
    Duration::from_secs_f64(number.clamp(0.001, YEAR))
}

fn network<T: std::str::FromStr + From<IpAddr>>(text: &str) -> Option<T> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(T::from))
}
