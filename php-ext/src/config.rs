//! Reads configuration arrays by the engine's table of settings, and says what is wrong in the texts of the PHP library and our own.
//!
//! Owns what PHP's values can mean. Keys and their bounds are rows of the table; unknown ones are accepted, and told.

use crate::classes::config_validator::is_host;
use crate::exception;
use crate::ini;
use crate::log;
use crate::php::{self, Outcome, Thrown, json_encode, numeric, type_name, weak_double, weak_long, weak_string};
use crate::ranges::{LONGEST, SHORTEST, measured};
use ext_php_rs::types::{ZendHashTable, Zval};
use heartbus_core::engine::Engine;
use heartbus_core::error::Error;
use heartbus_core::settings::{
    self, ClientConfig, HistoryRule, HostSettings, InboxLimits, Listed, LogLevel, LogSettings, LogTarget, LoopSettings, MOST, PhpReading,
    RateLimit, Row, ServerConfig, ServerSwitches, Setting, SettingValue, Settings, ValueKind, check_name,
};
use heartbus_core::text::{nearest, printable};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

pub(crate) use heartbus_core::settings::{BusSocket, CHANNEL_QUEUE_SIZE as DEFAULT_QUEUE_SIZE, EventLoop as Loop};

static SERVER_KEYS: LazyLock<Vec<&str>> = LazyLock::new(|| names(&settings::of_server()));
static CLIENT_KEYS: LazyLock<Vec<&str>> = LazyLock::new(|| names(&settings::of_client()));

fn names(listed: &[Listed]) -> Vec<&'static str> {
    listed.iter().flat_map(|row| row.setting.php_names()).collect()
}

/// Of a server that has no name of its own: Workerman shows it, and the bus socket is called after it.
pub(crate) const DEFAULT_NAME: &str = "HeartbeatServer";

/// Lines about unknown keys, of one process.
const MOST_TOLD: usize = 100;

thread_local! {
    static TOLD: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// What a server is told.
pub(crate) struct ServerOptions {
    pub worker_count: i64,
    pub check_interval: f64,
    /// As it was said: those who write PHP_INT_MAX want no limit.
    pub max_connections: i64,
    pub protocol: Zval,
    pub event_loop: Loop,
    pub engine: ServerConfig,
    pub bus: BusSocket,
    /// The group whose processes may use the bus socket as well.
    pub bus_group: Option<String>,
    pub inbox: InboxLimits,
    pub host: HostSettings,
    pub log: log::Settings,
    /// What [`tell_unknown`] is to say when the log is where it shall be.
    pub unknown: Vec<String>,
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

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Text(error.message)
    }
}

impl From<Thrown> for Fault {
    fn from(_: Thrown) -> Self {
        Self::Thrown
    }
}

/// Checks the arguments of a server's constructor; throws as the original does.
pub(crate) fn server(host: &str, port: i64, config: &ZendHashTable) -> Outcome<ServerOptions> {
    read_server(host, port, &Keys { table: config, known: &SERVER_KEYS }).map_err(|fault| match fault {
        Fault::Thrown => Thrown,
        Fault::Text(text) => {
            // The second becomes the previous of the first.
            exception::invalid_argument(&text);
            exception::runtime_exception(&format!("Configuration validation failed: {text}"))
        }
    })
}

fn read_server(host: &str, port: i64, keys: &Keys<'_>) -> Checked<ServerOptions> {
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
    let (engine, _): (ServerConfig, _) = keys.settings()?;
    let (switches, _): (ServerSwitches, _) = keys.settings()?;
    let (inbox, _) = keys.settings()?;
    let (host_settings, _): (HostSettings, _) = keys.settings()?;
    let event_loop = keys.event_loop()?;
    let log = keys.log()?;
    if !is_host(host.as_bytes()) {
        return fault(format!("Invalid host: {host}"));
    }
    if !(1..=65535).contains(&port) {
        return fault(format!("Invalid port: {port}"));
    }
    // From here on the original's own classes complain, about types.
    let max_connections = keys.get("max_connections").map(Zval::dereference);
    if max_connections.is_some_and(Zval::is_null) {
        return Err(type_fault(r"Server\ConnectionPool", 1, "maxConnections", "int", &Zval::null()));
    }
    let (limit, is_limit_set): (RateLimit, _) = keys.settings()?;
    let engine = ServerConfig {
        host: host.into(),
        port: u16::try_from(port).unwrap_or_default(),
        io_threads: worker_count as usize,
        heartbeat_timeout: measured(timeout),
        rate_limit: switches.rate_limit(limit, is_limit_set),
        ..engine
    };
    // The system is asked by start(): what it has no say in is refused here.
    Engine::validate(&engine)?;
    if switches.bus != BusSocket::None {
        engine.check_bus_message()?;
    }
    Ok(ServerOptions {
        worker_count: worker_count as i64,
        check_interval,
        max_connections: max_connections.and_then(Zval::long).unwrap_or(engine.max_connections as i64),
        protocol: keys.value("protocol").map_or_else(|| php::text("tcp"), Zval::shallow_clone),
        event_loop,
        engine,
        bus: switches.bus,
        bus_group: switches.bus_group.and_then(named),
        inbox,
        host: host_settings,
        log,
        unknown: keys.unknown(&CLIENT_KEYS, "a client"),
    })
}

/// What a client is told, of which the engine knows nothing.
pub(crate) struct ClientOptions {
    pub event_loop: Loop,
    pub log: log::Settings,
    /// As [`ServerOptions::unknown`].
    pub unknown: Vec<String>,
}

/// The part of a client's configuration that decides where it runs.
pub(crate) fn client(config: &ZendHashTable) -> Outcome<ClientOptions> {
    let keys = Keys { table: config, known: &CLIENT_KEYS };
    let read = || Ok(ClientOptions { event_loop: keys.event_loop()?, log: keys.log()?, unknown: keys.unknown(&SERVER_KEYS, "a server") });
    read().map_err(thrown)
}

/// The part that says where its messages go; what is wrong in it is left out.
pub(crate) fn log(config: &ZendHashTable) -> log::Settings {
    Keys { table: config, known: &CLIENT_KEYS }.log().unwrap_or_default()
}

/// Where no configuration has said anything about the log, php.ini does.
pub(crate) fn settle_log() {
    if log::is_untouched() {
        let _ = log(&ZendHashTable::new()).apply();
    }
}

/// What the engine is told of a client. May run PHP code: metadata may hold objects that encode themselves.
pub(crate) fn client_engine(host: &str, port: i64, config: &ZendHashTable, node_id: Option<String>) -> Outcome<ClientConfig> {
    let keys = Keys { table: config, known: &CLIENT_KEYS };
    let read = || {
        let port = u16::try_from(port).or_else(|_| fault(format!("Invalid port: {port}")))?;
        let (config, _): (ClientConfig, _) = keys.settings()?;
        Ok(ClientConfig { host: host.into(), port, node_id: config.node_id.or(node_id), ..config })
    };
    read().map_err(thrown)
}

/// How many nodes a client may carry, its first one included.
pub(crate) fn client_nodes(config: &ZendHashTable) -> Outcome<usize> {
    let keys = Keys { table: config, known: &CLIENT_KEYS };
    let read = keys.settings_of(|row: &Row<ClientConfig>| row.setting.php.name == "max_nodes");
    read.map(|(config, _)| config.max_nodes).map_err(thrown)
}

/// How many topics and filters a client may have subscribed to.
pub(crate) fn client_subscriptions(config: &ZendHashTable) -> Outcome<usize> {
    let keys = Keys { table: config, known: &CLIENT_KEYS };
    let read = keys.settings_of(|row: &Row<ClientConfig>| row.setting.php.name == "max_subscriptions");
    read.map(|(config, _)| config.max_subscriptions).map_err(thrown)
}

/// Says which keys have no effect, in the log: old code goes on, and a slip of the pen is seen. A thousand clients of one
/// configuration say it once.
pub(crate) fn tell_unknown(lines: &[String]) {
    for line in lines {
        if TOLD.with_borrow_mut(|told| told.len() < MOST_TOLD && told.insert(line.clone())) {
            tracing::warn!("{line}");
        }
    }
}

/// A node's metadata as JSON text. May run PHP code: it may hold objects that encode themselves.
pub(crate) fn metadata(array: &Zval) -> Outcome<String> {
    encode_metadata(array).map_err(thrown)
}

/// Members of metadata, by their keys, as the text of a JSON object. May run PHP code, as above.
pub(crate) fn members<'a>(entries: impl IntoIterator<Item = (Zval, &'a Zval)>) -> Outcome<String> {
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
    /// What the array leaves of the defaults, and whether it has one of these keys.
    fn settings<T: Settings>(&self) -> Checked<(T, bool)> {
        self.settings_of(|_| true)
    }

    fn settings_of<T: Settings>(&self, is_wanted: impl Fn(&Row<T>) -> bool) -> Checked<(T, bool)> {
        let (mut settings, mut is_any_set) = (T::default(), false);
        for row in T::ROWS.iter().filter(|row| is_wanted(row)) {
            let setting = &row.setting;
            let (key, given) = match setting.php_reading {
                // They are the original's, whose checks of these depend on each other.
                PhpReading::Required => (setting.php.name, None),
                PhpReading::WithNull | PhpReading::Argument { .. } => (setting.php.name, self.get(setting.php.name).map(Zval::dereference)),
                _ => self.given(setting)?,
            };
            if let Some(given) = given {
                let value = read(setting, key, given)?;
                row.put(&mut settings, value)?;
                is_any_set = true;
            }
        }
        Ok((settings, is_any_set))
    }

    /// As it is given; none when it is missing.
    fn get(&self, key: &str) -> Option<&'a Zval> {
        self.table.get(key)
    }

    /// The value of a key; none when it is missing or null.
    fn value(&self, key: &str) -> Option<&'a Zval> {
        self.get(key).map(Zval::dereference).filter(|value| !value.is_null())
    }

    /// The value of a setting, and under which of its names it stands.
    fn given(&self, setting: &Setting) -> Checked<(&'static str, Option<&'a Zval>)> {
        let names = setting.php_names();
        let given: Vec<_> = names.iter().filter_map(|name| self.value(name).map(|value| (*name, Some(value)))).collect();
        match given[..] {
            [] => Ok((setting.php.name, None)),
            [one] => Ok(one),
            _ => fault(format!("{} are the same key: one is enough", names.join(" and "))),
        }
    }

    /// Which keys have no effect, as lines for the log.
    fn unknown(&self, of_others: &[&str], others: &str) -> Vec<String> {
        let keys = php::entries(self.table).map(|(key, _)| php::key_name(&key));
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

    fn event_loop(&self) -> Checked<Loop> {
        let (LoopSettings { event_loop }, _) = self.settings()?;
        // Only where it counts: what php.ini says wrongly is no matter where the configuration has a word of its own.
        match event_loop {
            Some(event_loop) => Ok(event_loop),
            None => Ok(ini_choice("loop", Loop::WORDS, Loop::named)?.unwrap_or(Loop::Auto)),
        }
    }

    fn log(&self) -> Checked<log::Settings> {
        let (LogSettings { log, log_level, log_file }, _) = self.settings()?;
        let (mut target, mut level, mut file) = (log, log_level, log_file.and_then(named));
        // php.ini says where the log begins; then it stays where the last configuration put it.
        if log::is_untouched() {
            if target.is_none() {
                target = ini_choice("log", LogTarget::WORDS, LogTarget::named)?;
            }
            // A log that is off has no level, wherever it would go.
            let text = ini::log_level().or_else(|| ini::is_empty("log").then(|| "off".to_owned()));
            let of_ini = || text.map(|text| pick("heartbus.log_level", Some(&text), LogLevel::WORDS)).transpose();
            if level.is_none() {
                level = of_ini()?.and_then(LogLevel::named);
            }
            file = file.or_else(|| ini::setting("log_file"));
        }
        Ok(log::Settings { level: level.map(|level| level as u8), file, to_logger: target.map(|target| target == LogTarget::Logger) })
    }
}

// ---- values ----

/// What `getenv()` says of a variable that is not set, or empty, names nothing.
fn named(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn read(setting: &Setting, key: &str, value: &Zval) -> Checked<SettingValue> {
    match (setting.kind, setting.php_reading) {
        (_, PhpReading::Argument { class, number, parameter, kind }) => {
            argument(setting, value)?.ok_or_else(|| type_fault(class, number, parameter, kind, value))
        }
        (ValueKind::Whole { .. }, PhpReading::Positive) => match value.long().filter(|number| *number >= 1) {
            Some(number) => Ok(SettingValue::Whole((number as u64).min(MOST))),
            None => fault(format!("{key} must be a positive integer")),
        },
        (ValueKind::Whole { least, most }, reading) => whole(key, value, least, most, reading == PhpReading::NotExceeding),
        (ValueKind::Number { .. } | ValueKind::Any, _) => Ok(SettingValue::None),
        (ValueKind::Seconds, _) => seconds(key, value).map(SettingValue::Time),
        (ValueKind::SecondsOrNone, _) => match numeric(value).filter(|number| *number == 0.0 || (SHORTEST..=LONGEST).contains(number)) {
            Some(0.0) => Ok(SettingValue::None),
            Some(number) => Ok(SettingValue::Time(measured(number))),
            None => fault(format!("{key} must be a number of seconds, or 0 for none")),
        },
        (ValueKind::Flag, _) => Ok(SettingValue::Flag(is_on(value))),
        (ValueKind::Text | ValueKind::Account, _) => text(key, value).map(SettingValue::Text),
        (ValueKind::Name, _) => match text(key, value)? {
            name if check_name(&name).is_ok() => Ok(SettingValue::Text(name)),
            name => fault(format!("{key} must have 1 to 64 letters, digits, dots, dashes or underscores: {name}")),
        },
        (ValueKind::Choice(words), _) => pick(key, value.str(), words).map(|word| SettingValue::Text(word.into())),
        (ValueKind::Networks, _) => networks(key, value),
        (ValueKind::Socket, _) if as_bool(value) == Some(false) => Ok(SettingValue::Flag(false)),
        (ValueKind::Socket, _) => match value.str().filter(|path| path.starts_with('/')) {
            Some(path) => Ok(SettingValue::Text(path.into())),
            None => fault(format!("{key} must be the absolute path of a socket, or false")),
        },
        (ValueKind::Door, _) => match (as_bool(value), value.str()) {
            (Some(is_on), _) => Ok(SettingValue::Flag(is_on)),
            (None, Some(address)) => Ok(SettingValue::Text(address.into())),
            _ => fault(format!("{key} must be host:port, true or false")),
        },
        (ValueKind::Texts, _) => texts(key, value),
        (ValueKind::History, _) => history(key, value),
        (ValueKind::Json, _) if value.is_array() => encode_metadata(value).map(SettingValue::Json),
        (ValueKind::Json, _) => fault(format!("{key} must be of type array, {} given", type_name(value, false))),
    }
}

/// What a constructor of the original's would take; none where PHP raises a `TypeError`.
fn argument(setting: &Setting, value: &Zval) -> Checked<Option<SettingValue>> {
    let key = setting.php.name;
    match setting.kind {
        ValueKind::Number { least, most } => match weak_double(value)? {
            Some(number) if !number.is_finite() || number < least => fault(format!("{key} must be a number >= {least}")),
            Some(number) if number > most => fault(format!("{key} must be a number <= {most}")),
            number => Ok(number.map(SettingValue::Number)),
        },
        ValueKind::Whole { least, most } => {
            let Some(number) = weak_long(value)? else { return Ok(None) };
            match u64::try_from(number) {
                Ok(number) if number > most => fault(format!("{key} must be an integer <= {most}")),
                Ok(number) if number >= least => Ok(Some(SettingValue::Whole(number))),
                _ => fault(format!("{key} must be an integer >= {least}")),
            }
        }
        _ => Ok(None),
    }
}

/// `1e6` is a float in PHP: one without a fraction is an integer here.
fn whole(key: &str, value: &Zval, least: u64, most: u64, in_words_of_original: bool) -> Checked<SettingValue> {
    let whole = |number: f64| (number.fract() == 0.0).then_some(number as i64);
    let number = value.long().or_else(|| value.double().and_then(whole)).and_then(|number| u64::try_from(number).ok());
    match number {
        Some(number) if number > most && in_words_of_original => fault(format!("{key} should not exceed {most}")),
        // Where a row allows less than its type holds, the engine says what it wants.
        Some(number) if number > most.max(u32::MAX.into()) => fault(format!("{key} must be an integer <= {}", most.max(u32::MAX.into()))),
        Some(number) if number >= least => Ok(SettingValue::Whole(number)),
        _ => fault(format!("{key} must be an integer >= {least}")),
    }
}

fn seconds(key: &str, value: &Zval) -> Checked<Duration> {
    match numeric(value).filter(|number| *number > 0.0) {
        None => fault(format!("{key} must be a number of seconds greater than 0")),
        Some(number) if !(SHORTEST..=LONGEST).contains(&number) => {
            fault(format!("{key} must be a number of seconds from {SHORTEST} to {LONGEST}"))
        }
        Some(number) => Ok(measured(number)),
    }
}

/// A text, or a whole number as PHP writes it. True is "1" to PHP, and a long number that became a float has lost its end: neither is meant.
fn text(key: &str, value: &Zval) -> Checked<String> {
    let is_none = value.is_true() || value.is_double();
    let Some(string) = weak_string(value)?.filter(|_| !is_none) else {
        return fault(format!("{key} must be of type string, {} given", type_name(value, false)));
    };
    match string.string() {
        Some(text) => Ok(text),
        None => fault(format!("{key} must be valid UTF-8")),
    }
}

fn networks(key: &str, value: &Zval) -> Checked<SettingValue> {
    let Some(array) = value.array() else { return fault(format!("{key} must be an array")) };
    let network = |entry: &Zval| {
        let given = entry.dereference();
        let network = given.str().and_then(|text| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(Into::into)));
        let shown = || given.coerce_to_string().unwrap_or_else(|| "an entry".into());
        network.ok_or_else(|| Fault::Text(format!("{key}: {} is not an IP address or network", shown())))
    };
    php::values(array).map(network).collect::<Checked<_>>().map(SettingValue::Networks)
}

fn texts(key: &str, value: &Zval) -> Checked<SettingValue> {
    let Some(array) = value.array() else { return fault(format!("{key} must be an array")) };
    let text = |entry: &Zval| match entry.dereference().str() {
        Some(text) => Ok(text.to_owned()),
        None => fault(format!("{key} must have strings alone")),
    };
    php::values(array).map(text).collect::<Checked<_>>().map(SettingValue::Texts)
}

/// Old code has no such key: what is wrong in it is a slip of the pen, and refused.
fn history(key: &str, value: &Zval) -> Checked<SettingValue> {
    let wants = "an array of filters and what is kept of their topics, such as ['chat/#' => ['count' => 100]]";
    let Some(rules) = value.array() else { return fault(format!("{key} must be {wants}")) };
    let rule = |(filter, rule): (Zval, &Zval)| {
        let filter = filter.string().or_else(|| filter.long().map(|number| number.to_string()));
        let Some(filter) = filter else { return fault(format!("{key}: a filter must be valid UTF-8")) };
        let Some(rule) = rule.dereference().array() else { return fault(format!("{key} must be {wants}")) };
        let members = php::entries(rule).map(|(name, value)| (php::key_name(&name), value.dereference()));
        let members = members.filter(|(_, value)| !value.is_null()).map(|(name, value)| match HistoryRule::row(&name) {
            Some(row) => Ok((row.setting.php.name, read(&row.setting, &format!("{key}['{filter}']['{name}']"), value)?)),
            None => {
                let names: Vec<_> = HistoryRule::ROWS.iter().map(|row| row.setting.php.name).collect();
                fault(format!("{key}['{filter}']['{name}'] has no meaning (there are: {})", names.join(", ")))
            }
        });
        let members = members.collect::<Checked<_>>()?;
        Ok((filter, members))
    };
    php::entries(rules).map(rule).collect::<Checked<_>>().map(SettingValue::Rules)
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

fn ini_choice<T>(key: &str, words: &[&'static str], named: fn(&str) -> Option<T>) -> Checked<Option<T>> {
    let word = ini::setting(key).map(|text| pick(&format!("heartbus.{key}"), Some(&text), words)).transpose()?;
    Ok(word.and_then(named))
}

/// The word that is meant, whatever its case.
fn pick(key: &str, text: Option<&str>, words: &[&'static str]) -> Checked<&'static str> {
    match words.iter().find(|word| text.is_some_and(|text| text.eq_ignore_ascii_case(word))) {
        Some(word) => Ok(word),
        None => fault(format!("{key} must be one of {}", words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", "))),
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
