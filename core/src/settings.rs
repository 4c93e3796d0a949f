//! Every setting of servers and clients, each in one row: its key, what kind of value it takes within which bounds, its default, its
//! unit, and a line of text for people.
//!
//! The rows make the structs that the engine is started with, their defaults and their checks. The bindings read their keys by them, PHP's
//! information page lists them, and tests hold the tables of the documentation against them. Knows no socket and no language: what
//! PHP or C have differently is a column.

mod row;

use crate::error::{Error, ErrorKind};
use ipnet::IpNet;
use std::path::PathBuf;
use std::time::Duration;

pub use row::{Binding, Listed, MOST, PhpReading, Row, RuleMembers, Setting, SettingValue, Settings, ValueKind, YEAR};
use row::{Field, choices, settings, wrong};
pub(crate) use row::{check_timeout, check_whole};

/// What the engine itself can be told, and the hosts around it: all keys of a server.
pub fn of_server() -> Vec<Listed> {
    [
        ServerConfig::listed(),
        RateLimit::listed(),
        ServerSwitches::listed(),
        InboxLimits::listed(),
        HostSettings::listed(),
        LoopSettings::listed(),
        LogSettings::listed(),
    ]
    .concat()
}

/// All keys of a client.
pub fn of_client() -> Vec<Listed> {
    [ClientConfig::listed(), LoopSettings::listed(), LogSettings::listed()].concat()
}

/// The keys of a group of clients.
pub fn of_clients() -> Vec<Listed> {
    InboxLimits::listed()
}

/// Where other processes of the machine reach a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BusSocket {
    /// Where the binding has it unless it is told otherwise.
    #[default]
    Default,
    At(PathBuf),
    /// In the usual place of the server of this name.
    Named(String),
    None,
}

impl Field for BusSocket {
    fn of(value: SettingValue) -> Option<Self> {
        Some(match value {
            SettingValue::None => Self::Default,
            SettingValue::Flag(false) => Self::None,
            SettingValue::Text(path) if path.starts_with('/') => Self::At(path.into()),
            SettingValue::Text(name) => Self::Named(name),
            _ => return None,
        })
    }

    fn value(&self) -> SettingValue {
        match self {
            Self::Default => SettingValue::None,
            Self::At(path) => SettingValue::Text(path.to_string_lossy().into_owned()),
            Self::Named(name) => SettingValue::Text(name.clone()),
            Self::None => SettingValue::Flag(false),
        }
    }
}

/// Where a protocol beside the bus comes in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProtocolDoor {
    #[default]
    None,
    /// Where the bus is spoken too: the first bytes tell them apart.
    MainPort,
    /// `host:port`.
    At(String),
}

impl ProtocolDoor {
    /// Host and port, where it is a door of its own.
    pub(crate) fn address(&self) -> Option<(&str, u16)> {
        if let Self::At(address) = self { row::host_and_port(address) } else { None }
    }
}

impl Field for ProtocolDoor {
    fn of(value: SettingValue) -> Option<Self> {
        Some(match value {
            SettingValue::None | SettingValue::Flag(false) => Self::None,
            SettingValue::Flag(true) => Self::MainPort,
            SettingValue::Text(address) => Self::At(address),
            _ => return None,
        })
    }

    fn value(&self) -> SettingValue {
        match self {
            Self::None => SettingValue::None,
            Self::MainPort => SettingValue::Flag(true),
            Self::At(address) => SettingValue::Text(address.clone()),
        }
    }
}

impl Field for Vec<HistoryRule> {
    fn of(value: SettingValue) -> Option<Self> {
        let SettingValue::Rules(rules) = value else { return None };
        let rule = |(filter, members): (String, RuleMembers)| {
            let mut rule = HistoryRule { filter, ..HistoryRule::default() };
            for (name, value) in members {
                HistoryRule::row(name)?.put(&mut rule, value).ok()?;
            }
            Some(rule)
        };
        rules.into_iter().map(rule).collect()
    }

    fn value(&self) -> SettingValue {
        let members = |rule: &HistoryRule| HistoryRule::ROWS.iter().map(|row| (row.setting.php.name, row.get(rule))).collect();
        SettingValue::Rules(self.iter().map(|rule| (rule.filter.clone(), members(rule))).collect())
    }
}

impl HistoryRule {
    /// The row of a member.
    pub fn row(name: &str) -> Option<&'static Row<Self>> {
        Self::ROWS.iter().find(|row| row.setting.php.name == name)
    }
}

/// Where a manager of Firetower's takes subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ManagerDoor {
    /// By gRPC at the port behind that of its frames.
    #[default]
    NextPort,
    /// By gRPC at `host:port`.
    At(String),
    /// As frames among the others.
    Frames,
}

impl Field for ManagerDoor {
    fn of(value: SettingValue) -> Option<Self> {
        Some(match value {
            SettingValue::None | SettingValue::Flag(true) => Self::NextPort,
            SettingValue::Flag(false) => Self::Frames,
            SettingValue::Text(address) => Self::At(address),
            _ => return None,
        })
    }

    fn value(&self) -> SettingValue {
        match self {
            Self::NextPort => SettingValue::Flag(true),
            Self::Frames => SettingValue::Flag(false),
            Self::At(address) => SettingValue::Text(address.clone()),
        }
    }
}

choices! {
    /// What happens to a connection whose peer takes nothing of what waits for it. A push to a full outbox is refused either way.
    pub enum SlowConsumer {
        /// It is closed when [`ServerConfig::slow_consumer_timeout`] is over. The default.
        Close = "close",
        /// It stays.
        Drop = "drop",
    }

    pub enum RateLimitBy {
        /// Each connection has its own bucket.
        Connection = "connection",
        /// All connections of an address share one; behind one NAT they share the limit too.
        Ip = "ip",
    }

    /// What the full queue of a worker does with a message.
    pub enum InboxPolicy {
        Reject = "reject",
        DropOldest = "drop_oldest",
    }

    /// Which event loop runs the callbacks.
    pub enum EventLoop {
        /// The one that runs already; else Workerman where it is installed, else our own.
        Auto = "auto",
        Native = "native",
        Workerman = "workerman",
        Revolt = "revolt",
        React = "react",
        /// None: the application polls.
        Manual = "manual",
    }

    pub enum LogTarget {
        Stderr = "stderr",
        /// That of the PHP library.
        Logger = "logger",
    }

    /// From which level on messages are written, in ascending order.
    pub enum LogLevel {
        Debug = "debug",
        Info = "info",
        Warning = "warning",
        Error = "error",
        Off = "off",
    }
}

const fn whole(least: u64) -> ValueKind {
    ValueKind::Whole { least, most: MOST }
}

const fn up_to(least: u64, most: u32) -> ValueKind {
    ValueKind::Whole { least, most: most as u64 }
}

/// A key of the PHP library's rate limiter.
const fn of_limiter(number: u32, parameter: &'static str, kind: &'static str) -> PhpReading {
    PhpReading::Argument { class: r"Utils\RateLimiter", number, parameter, kind }
}

settings! {
    #[derive(Clone, Debug)]
    pub struct ServerConfig {
        /// where to listen: an IPv4 or IPv6 address, with or without brackets, or a host name
        pub host: String = "0.0.0.0".into(), ValueKind::Text, only_c();
        /// 0 takes a free one
        pub port: u16 = 9501, up_to(0, 65_535), only_c();
        /// seconds of silence after which a node is down
        pub heartbeat_timeout: Duration = Duration::from_secs(30), ValueKind::Seconds, reading(PhpReading::Required), php_note("1 or more");
        /// I/O threads, never more than the machine has cores
        pub io_threads: usize = 0, whole(0), named("worker_count"), reading(PhpReading::Required), php_default("4"), php_note("1 to 128"),
            c_note("0 is one per core");
        /// seconds until a connection on which nobody registers is closed
        pub register_timeout: Duration = Duration::from_secs(30), ValueKind::Seconds;
        /// connections in total; one more is told 503; lowered at start to what the descriptor limit allows, with a WARNING in the log
        pub max_connections: usize = 1_000_000, whole(1), reading(PhpReading::Positive);
        /// connections per address; 0 is no limit of its own
        pub max_connections_per_ip: usize = 0, whole(0);
        /// nodes in total; one more is told 403
        pub max_nodes: usize = 10_000_000, whole(1);
        /// nodes on one connection; one more is told 403
        pub max_nodes_per_connection: usize = 10_000, whole(1);
        /// bytes of metadata of all nodes on one connection; more is told 403
        pub max_metadata_bytes_per_connection: usize = 16 << 20, whole(1), unit("bytes");
        /// longest frame body in bytes; a longer one is told 413 before anything of it is kept; at most 1073741824 where there is a bus
        /// socket
        pub max_frame_bytes: u32 = 10_485_760, up_to(1, u32::MAX), unit("bytes");
        /// bytes that may wait for one connection because it takes no more; beyond, messages for its nodes are refused, but that a single
        /// longer one still goes where nothing waits
        pub outbox_bytes: usize = 1 << 20, whole(1), unit("bytes");
        /// what happens to a connection that takes nothing of what waits for it: `close`, or `drop`: it stays, and misses what is
        /// refused
        pub slow_consumer: SlowConsumer = SlowConsumer::Close, ValueKind::Choice(SlowConsumer::WORDS);
        /// seconds without a byte taken until then
        pub slow_consumer_timeout: Duration = Duration::from_secs(10), ValueKind::Seconds;
        /// bytes that the server may keep for others, all together: what waits in connections, metadata, events
        pub total_buffer_bytes: usize = 1 << 30, whole(1), unit("bytes");
        /// subscriptions of one connection to topics, all its nodes together; one more is told 403
        pub max_subscriptions: usize = 1_000, whole(1);
        /// topics and filters that somebody has subscribed to or of which something is kept; one more is told 403
        pub max_topics: usize = 1_000_000, whole(1);
        /// levels of a filter with `+` or `#` in it, those between its slashes; one more is told 403: with each level, what is looked at for a
        /// publication may double
        pub max_filter_levels: usize = 8, up_to(1, 128);
        /// bytes of publications that are kept of all topics together; at the bound the oldest go; never more than a
        /// thirty-second of `total_buffer_bytes`
        pub history_bytes: usize = 32 << 20, whole(0), unit("bytes");
        /// what is kept of topics, by filters; the first one that matches a topic counts for it: up to `count` publications (100), `bytes` of them
        /// (1048576, with some for each) and `ttl` seconds (3600); unless set, nothing is kept
        pub history: Vec<HistoryRule> = Vec::new(), ValueKind::History,
            php_note("`['chat/#' => ['count' => 100, 'bytes' => 1 << 20, 'ttl' => 3600]]`"),
            c_note(r#"`{"chat/#":{"count":100,"bytes":1048576,"ttl":3600}}`"#);
        /// seconds within which a node that comes and goes is told once in `$nodes` and `$presence/...`, as it stands then; 0: each time
        pub presence_debounce: Option<Duration> = Some(Duration::from_secs(1)), ValueKind::SecondsOrNone;
        /// whether nodes and WebSocket clients may subscribe to `$nodes` and `$presence/...`, and so see who is there; processes of yours may always
        pub presence_topics: bool = false, ValueKind::Flag;
        /// publications that may wait for a process that has subscribed over the bus socket; further ones are dropped, and it is told how many
        pub bus_queue_events: usize = 8_192, whole(1);
        /// bytes of them
        pub bus_queue_bytes: usize = 4 << 20, whole(1), unit("bytes");
        /// addresses and networks such as `10.0.0.0/8` that may connect; none listed: all
        pub allow: Vec<IpNet> = Vec::new(), ValueKind::Networks, php_name("whitelist"), c_note("in PHP, and here too: `whitelist`");
        /// those that may not, whatever the other list says
        pub deny: Vec<IpNet> = Vec::new(), ValueKind::Networks, php_name("blacklist"), c_note("in PHP, and here too: `blacklist`");
        /// seconds within which the host is to decide what it asks to decide (`on('authenticate')`); what it has not decided by then is refused
        pub decision_timeout: Duration = Duration::from_secs(5), ValueKind::Seconds;
        /// decisions that may be open, over all connections; one more is told 403
        pub max_decisions: usize = 10_000, whole(1);
        /// where WebSockets come in: `host:port`, or `true`: at the main port too
        pub websocket: ProtocolDoor = ProtocolDoor::None, ValueKind::Door;
        /// origins of pages whose WebSockets are let in, such as `https://example.com`; others are told 403, who names none is no browser;
        /// none listed: all
        pub websocket_origins: Vec<String> = Vec::new(), ValueKind::Texts;
        /// the path of WebSockets, such as `/ws`; others are told 404; unless set, any path is
        pub websocket_path: Option<String> = None, ValueKind::Text, php_default("any");
        /// whether WebSocket clients that speak Firetower's JSON may publish, and a topic is told how many subscribers it has when one of them
        /// comes or goes, as Firetower's example gateway does
        pub firetower_conventions: bool = true, ValueKind::Flag;
        /// where Firetower's gateways and publishers come in, as at its manager's TCP port: `host:port`, or `true`: at the main port too
        pub firetower: ProtocolDoor = ProtocolDoor::None, ValueKind::Door;
        /// subscriptions of one of Firetower's gateways, those of all its clients together; one more is refused
        pub firetower_max_subscriptions: usize = 100_000, whole(1);
        /// an old manager of Firetower's that this server is a gateway of, `host:port`: what is published goes there and comes from there
        pub firetower_manager: Option<String> = None, ValueKind::Text;
        /// where that manager takes subscriptions (gRPC): `host:port`, or `true`: the next port of the same host; `false`: as frames over
        /// the TCP connection, for another server of this kind
        pub firetower_manager_grpc: ManagerDoor = ManagerDoor::NextPort, ValueKind::Door;
        /// whether messages of WebSockets may come compressed (permessage-deflate)
        pub websocket_compression: bool = false, ValueKind::Flag;
        /// frames per second of all connections together, heartbeats included; one more is told 429; 0 is no limit
        pub max_requests_per_second: u64 = 0, whole(0);
        /// seconds between two lines `Server stats` in the log, at level `info`
        pub stats_interval: Duration = Duration::from_secs(60), ValueKind::Seconds;
        besides {
            /// Off unless set: the PHP library's default silences everybody behind one address.
            pub rate_limit: Option<RateLimit> = None;
            /// Off unless set.
            pub bus: Option<BusConfig> = None;
        }
    }

    /// What is to be kept of each topic that a filter matches.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct HistoryRule {
        /// publications; 0: none
        pub count: usize = 100, whole(0);
        /// bytes of their payloads, and some for each
        pub bytes: usize = 1 << 20, whole(0), unit("bytes");
        /// seconds
        pub ttl: Duration = Duration::from_secs(3600), ValueKind::Seconds;
        besides {
            pub filter: String = String::new();
        }
    }

    /// A token bucket: what it holds, and how fast it fills again.
    #[derive(Copy, Clone, Debug, PartialEq)]
    pub struct RateLimit {
        /// frames that may come at once
        pub capacity: u32 = 100, up_to(1, u32::MAX), named("rate_limit_capacity"), reading(of_limiter(1, "capacity", "int"));
        /// frames per second in the long run; what is over it is told 429
        pub refill_per_second: f64 = 10.0, ValueKind::Number { least: 0.0, most: MOST as f64 }, named("rate_limit_refill_rate"),
            reading(of_limiter(2, "refillRate", "float"));
        /// each `connection` has its own bucket, or those of an address share one: `ip`
        pub by: RateLimitBy = RateLimitBy::Connection, ValueKind::Choice(RateLimitBy::WORDS), named("rate_limit_by");
    }

    /// What is the engine's in the end, combined with other settings.
    #[derive(Clone, Debug)]
    pub struct ServerSwitches {
        /// whether frames are limited as the three settings above say; on as soon as one of them is set
        pub enable_rate_limit: Option<bool> = None, ValueKind::Flag, reading(PhpReading::WithNull), php_default("off");
        /// the bus socket
        pub bus: BusSocket = BusSocket::Default, ValueKind::Socket, php_default("in `/run/heartbus/`"),
            php_note("its path, or `false` for none; [where else](#one-engine-many-php-processes)"),
            c_note("an absolute path, or a name, whose socket then stands in the usual place; none unless it is set");
        /// a group, by name or number, whose users may use the bus socket as well; workers must be of the server's own user, always
        pub bus_group: Option<String> = None, ValueKind::Account;
    }

    /// Bounds of the queue between the engine and its host.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub struct InboxLimits {
        /// events that may wait for the host, or for each of its workers; at the bound, senders of data are made to wait, and events of
        /// one node are merged
        pub events: usize = 65_536, whole(1), named("inbox_events");
        /// payload bytes that may wait there
        pub bytes: usize = 64 << 20, whole(1), named("inbox_bytes"), unit("bytes");
    }

    /// What a host does around the engine, with processes of its own.
    #[derive(Clone, Debug)]
    pub struct HostSettings {
        /// what a PHP worker's full queue does with a message: `reject` it, or `drop_oldest`
        pub inbox_policy: InboxPolicy = InboxPolicy::Reject, ValueKind::Choice(InboxPolicy::WORDS), only_php();
        /// processes that run the callbacks under Workerman; 0: the engine's own; 0 to 256
        pub php_workers: Option<i64> = None, up_to(0, 256), only_php(), reading(PhpReading::NotExceeding), php_default("1");
        /// of Workerman's workers and of the bus socket: 1 to 64 letters, digits, dots, dashes, underscores
        pub name: Option<String> = None, ValueKind::Name, only_php(), php_default("`'HeartbeatServer'`");
        /// whom Workerman's processes of the server run as, by name or number; only root may choose
        pub user: Option<String> = None, ValueKind::Account, only_php(), php_default("that of the process");
        /// their group, the same way
        pub group: Option<String> = None, ValueKind::Account, only_php(), php_default("that of the process");
        /// seconds that `stop -g` and `reload -g` wait for connections; 0: without end
        pub stop_timeout: Option<Duration> = Some(Duration::from_secs(30)), ValueKind::SecondsOrNone, only_php();
        /// messages that a channel of `getChannelScheduler()` keeps for `recv()`; then the oldest goes
        pub channel_max_queue_size: i64 = CHANNEL_QUEUE_SIZE, whole(1), only_php(), reading(PhpReading::Positive);
        /// seconds, checked as before; no effect on detection, which takes a tenth of a second
        pub heartbeat_check_interval: Option<f64> = None, ValueKind::Number { least: 1.0, most: 1e9 }, only_php(), reading(PhpReading::Required),
            php_default("a third of the timeout");
        /// shown by `getStats()`; no effect
        pub protocol: () = (), ValueKind::Any, only_php(), php_default("`'tcp'`");
    }

    #[derive(Clone, Debug)]
    pub struct LoopSettings {
        /// `auto`, `native`, `workerman`, `revolt`, `react`, `manual` (you call `poll()`)
        pub event_loop: Option<EventLoop> = None, ValueKind::Choice(EventLoop::WORDS), named("loop"), only_php(), php_default("`'auto'`");
    }

    /// What holds for the whole process: the last server or client that starts decides.
    #[derive(Clone, Debug)]
    pub struct LogSettings {
        /// `stderr`, or `logger`: the engine's messages go to `Utils\Logger`, and to the PSR-3 logger it was given; with PHP workers to that
        /// of one of them, which may be set in the `start` event
        pub log: Option<LogTarget> = None, ValueKind::Choice(LogTarget::WORDS), only_php(), php_default("`'stderr'`");
        /// `debug`, `info`, `warning`, `error`, `off`
        pub log_level: Option<LogLevel> = None, ValueKind::Choice(LogLevel::WORDS), only_php(),
            php_default("`'warning'` (`'info'` with `'logger'`)");
        /// where messages go instead of stderr
        pub log_file: Option<String> = None, ValueKind::Text, only_php();
    }

    #[derive(Clone, Debug)]
    pub struct ClientConfig {
        /// the server: an IPv4 or IPv6 address, with or without brackets, or a host name
        pub host: String = "127.0.0.1".into(), ValueKind::Text, only_c();
        /// 1 to 65535
        pub port: u16 = 9501, up_to(1, 65_535), only_c();
        /// kept over reconnects; 1 to 255 bytes
        pub node_id: Option<String> = None, ValueKind::Text, php_default("made up once"), c_note("one is made up, once, unless it is set");
        /// sent with the registration
        pub metadata: String = "[]".into(), ValueKind::Json, php_default("`[]`"), c_note("any object or list, as it is written");
        /// seconds between heartbeats; a missing answer is noticed within two intervals
        pub heartbeat_interval: Duration = Duration::from_secs(10), ValueKind::Seconds;
        /// never after a disconnect of its own, and not after another client took the id over (409)
        pub auto_reconnect: bool = true, ValueKind::Flag, reading(PhpReading::WithNull);
        /// seconds: base of the exponential back-off with full jitter, never under 100 ms nor over 60 s
        pub reconnect_interval: Duration = Duration::from_secs(5), ValueKind::Seconds;
        /// counted anew after each successful registration; 0 is no limit
        pub max_reconnect_attempts: u32 = 0, up_to(0, u32::MAX);
        /// seconds; those of a host name's look-up count from its beginning
        pub connect_timeout: Duration = Duration::from_secs(5), ValueKind::Seconds;
        /// bytes that may wait to be sent; more is refused
        pub outbox_bytes: usize = 1 << 20, whole(1), unit("bytes");
        /// bytes that the clients of the process, in C those of their group, may keep together of what servers send and of what waits to be sent;
        /// while it is more, the client that keeps most is disconnected, and connects again
        pub total_buffer_bytes: usize = 1 << 30, whole(1), unit("bytes");
        /// newest dialect to speak where the server can: 2, which carries any bytes; 1 stays with the old wire
        pub protocol: u32 = 2, up_to(1, 2);
        /// nodes that it may carry, its first one included; more are refused
        pub max_nodes: usize = 10_000, whole(1);
        /// topics and filters that it may have subscribed to; more are refused
        pub max_subscriptions: usize = 1_000, whole(1);
        /// whether its heartbeats keep all its nodes alive, or its first one alone; then the host sends those of the others
        pub heartbeat_all: bool = true, ValueKind::Flag;
    }
}

/// A manager of Firetower's: hosts and ports.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManagerAddresses<'a> {
    pub(crate) frames: (&'a str, u16),
    pub(crate) grpc: Option<(&'a str, u16)>,
}

/// The bus socket, through which other processes of the machine reach the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusConfig {
    /// The socket file. [`crate::bus::path_to_bind`] finds the usual place.
    pub path: PathBuf,
    /// Users of this group may ask as well, by its name or number. Workers must be of the server's own user, always.
    pub group: Option<String>,
    /// The server's name, as it is told to those who connect.
    pub name: String,
}

impl ServerSwitches {
    /// The limit is on as soon as one of its keys is set, unless it is switched off.
    pub fn rate_limit(&self, limit: RateLimit, is_any_set: bool) -> Option<RateLimit> {
        self.enable_rate_limit.unwrap_or(is_any_set).then_some(limit)
    }
}

impl ServerConfig {
    /// # Errors
    /// [`ErrorKind::Config`] with a text that names the field and what it wants.
    pub fn validate(&self) -> Result<(), Error> {
        self.check_bounds()?;
        for rule in &self.history {
            rule.check_bounds().map_err(|error| wrong(format!("history of {:?}: {}", rule.filter, error.message)))?;
        }
        if let Some(limit) = &self.rate_limit {
            limit.check_bounds()?;
        }
        let is_path = |path: &String| path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        if !self.websocket_path.as_ref().is_none_or(is_path) {
            return Err(wrong("websocket_path must begin with / and have no spaces, ? or #".into()));
        }
        if let Some(other) = self.websocket_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(wrong(format!("websocket_origins must be origins such as https://example.com, unlike {other:?}")));
        }
        self.manager().map_err(|()| wrong("firetower_manager must be host:port".into()))?;
        if let Some(bus) = &self.bus {
            check_name(&bus.name)?;
            self.check_bus_message()?;
        }
        Ok(())
    }

    /// Where the manager is that this server is a gateway of: its frames, and its gRPC unless subscriptions go as frames.
    pub(crate) fn manager(&self) -> Result<Option<ManagerAddresses<'_>>, ()> {
        let Some(address) = &self.firetower_manager else { return Ok(None) };
        let (host, port) = row::host_and_port(address).ok_or(())?;
        let grpc = match &self.firetower_manager_grpc {
            ManagerDoor::Frames => None,
            ManagerDoor::NextPort => Some((host, port.checked_add(1).ok_or(())?)),
            ManagerDoor::At(address) => Some(row::host_and_port(address).ok_or(())?),
        };
        Ok(Some(ManagerAddresses { frames: (host, port), grpc }))
    }

    /// For a host that knows that there will be a bus socket, and not yet where.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a frame may be longer than what the socket carries.
    pub fn check_bus_message(&self) -> Result<(), Error> {
        if self.max_frame_bytes <= MAX_BUS_MESSAGE {
            return Ok(());
        }
        Err(wrong(format!("max_frame_bytes must be at most {MAX_BUS_MESSAGE} where there is a bus")))
    }
}

impl ClientConfig {
    /// # Errors
    /// [`ErrorKind::Config`] with a text that names the field and what it wants.
    pub fn validate(&self) -> Result<(), Error> {
        if self.host.is_empty() {
            return Err(wrong("host must not be empty".into()));
        }
        self.check_bounds()?;
        self.node_id.as_deref().map_or(Ok(()), |id| check_node_id(id, ErrorKind::Config))
    }
}

// ---- checks ----

/// What a browser says of a page: a scheme, a host, perhaps a port, and nothing behind it; of one from nowhere, `null`.
fn is_origin(text: &str) -> bool {
    let is_host = |host: &str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte));
    text == "null" || text.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && is_host(host))
}

pub(crate) fn check_node_id(id: &str, kind: ErrorKind) -> Result<(), Error> {
    if (1..=MAX_NODE_ID_LEN).contains(&id.len()) {
        return Ok(());
    }
    Err(Error::new(kind, "node_id must have 1 to 255 bytes"))
}

/// Messages that a channel keeps unless it is told otherwise.
pub const CHANNEL_QUEUE_SIZE: i64 = 1000;

/// Longest node id, in bytes.
pub const MAX_NODE_ID_LEN: usize = 255;

/// Longest message where there is a bus: it travels in one frame, whose length is a u32.
const MAX_BUS_MESSAGE: u32 = 1 << 30;

/// # Errors
/// [`ErrorKind::Config`]: the name of a server is a file name of 1 to 64 letters, digits, dots, dashes and underscores.
pub fn check_name(name: &str) -> Result<(), Error> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(wrong("The name of a server must have 1 to 64 letters, digits, dots, dashes or underscores".into()))
}

pub(crate) fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

#[cfg(test)]
mod tests;
