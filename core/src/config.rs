//! Settings of servers and clients: defaults, units and limits in one place.
//!
//! Every limit of the engine has its field here. Knows no socket and no language; the bindings translate their own keys.

use crate::error::{Error, ErrorKind};
use ipnet::IpNet;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::hub::rate::{RateLimit, RateLimitBy};

/// What happens to a connection whose peer takes nothing of what waits for it. A push to a full outbox is refused either way.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SlowConsumer {
    /// It is closed when [`ServerConfig::slow_consumer_timeout`] is over. The default.
    Close,
    /// It stays.
    Drop,
}

/// Bounds of the queue between the engine and its host.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct InboxLimits {
    /// Events that may wait. At the bound data stops being read and state events are put together per node.
    pub events: usize,
    /// Payload bytes that may wait.
    pub bytes: usize,
}

impl Default for InboxLimits {
    fn default() -> InboxLimits {
        InboxLimits { events: 65_536, bytes: 64 << 20 }
    }
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

#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Address to listen on: an IPv4 or IPv6 address, with or without brackets, or a host name.
    pub host: String,
    /// 0 takes a free port of the system's choice.
    pub port: u16,
    /// I/O threads; 0 means one per core. Never more than there are cores.
    pub io_threads: usize,
    /// A node is down when it was silent for longer than this. At least 1 ms.
    pub heartbeat_timeout: Duration,
    /// A connection on which no node is registered is closed after this time.
    pub register_timeout: Duration,
    /// Connections in total; one more gets ERROR 503. Lowered at start to what the descriptor limit allows.
    pub max_connections: usize,
    /// Connections per address; 0 means no limit of its own.
    pub max_connections_per_ip: usize,
    /// Nodes on one connection; one more gets ERROR 403.
    pub max_nodes_per_connection: usize,
    /// Nodes in total; one more gets ERROR 403.
    pub max_nodes: usize,
    /// Bytes of metadata of all nodes on one connection; more gets ERROR 403.
    pub max_metadata_bytes_per_connection: usize,
    /// Longest frame body in bytes; a longer one gets ERROR 413 before anything of it is kept.
    pub max_frame_bytes: u32,
    /// Bytes that may wait to be written to one connection because its socket takes no more: beyond, pushes are refused. A single
    /// longer message still goes to an empty outbox.
    pub outbox_bytes: usize,
    pub slow_consumer: SlowConsumer,
    /// How long the socket of a connection that something waits for may take nothing at all.
    pub slow_consumer_timeout: Duration,
    /// Bytes that may wait in all connections together, for writing or as incomplete frames. At the bound the
    /// connection that holds the most is closed first.
    pub total_buffer_bytes: usize,
    /// Off unless set: the original's default silences everybody behind one address.
    pub rate_limit: Option<RateLimit>,
    /// Frames per second of all connections together, heartbeats included; one more gets ERROR 429. 0 means no limit.
    pub max_requests_per_second: u64,
    /// When not empty, only these networks may connect.
    pub allow: Vec<IpNet>,
    /// These networks may not connect, whatever `allow` says.
    pub deny: Vec<IpNet>,
    /// Off unless set.
    pub bus: Option<BusConfig>,
    /// How often the numbers of the server are logged.
    pub stats_interval: Duration,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            host: "0.0.0.0".into(),
            port: 9501,
            io_threads: 0,
            heartbeat_timeout: Duration::from_secs(30),
            register_timeout: Duration::from_secs(30),
            max_connections: 1_000_000,
            max_connections_per_ip: 0,
            max_nodes_per_connection: 10_000,
            max_nodes: 10_000_000,
            max_metadata_bytes_per_connection: 16 << 20,
            max_frame_bytes: crate::wire::MAX_BODY_LEN,
            outbox_bytes: 1 << 20,
            slow_consumer: SlowConsumer::Close,
            slow_consumer_timeout: Duration::from_secs(10),
            total_buffer_bytes: 1 << 30,
            rate_limit: None,
            max_requests_per_second: 0,
            allow: Vec::new(),
            deny: Vec::new(),
            bus: None,
            stats_interval: Duration::from_secs(60),
        }
    }
}

impl ServerConfig {
    /// # Errors
    /// [`ErrorKind::Config`] with a text that names the field and what it wants.
    pub fn validate(&self) -> Result<(), Error> {
        for (name, value) in [
            ("max_connections", self.max_connections),
            ("max_nodes_per_connection", self.max_nodes_per_connection),
            ("max_nodes", self.max_nodes),
            ("max_metadata_bytes_per_connection", self.max_metadata_bytes_per_connection),
            ("max_frame_bytes", self.max_frame_bytes as usize),
            ("outbox_bytes", self.outbox_bytes),
            ("total_buffer_bytes", self.total_buffer_bytes),
        ] {
            check_count(name, value)?;
        }
        let times = [
            ("heartbeat_timeout", self.heartbeat_timeout),
            ("register_timeout", self.register_timeout),
            ("slow_consumer_timeout", self.slow_consumer_timeout),
            ("stats_interval", self.stats_interval),
        ];
        for (name, value) in times {
            check_timeout(name, value)?;
        }
        if let Some(limit) = &self.rate_limit {
            check_count("rate_limit_capacity", limit.capacity as usize)?;
            if !(0.0..=MOST as f64).contains(&limit.refill_per_second) {
                return Err(Error::new(ErrorKind::Config, format!("rate_limit_refill_rate must be a number from 0 to {MOST}")));
            }
        }
        if let Some(bus) = &self.bus {
            check_name(&bus.name)?;
            if self.max_frame_bytes > MAX_BUS_MESSAGE {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("max_frame_bytes must be at most {MAX_BUS_MESSAGE} where there is a bus"),
                ));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// An IPv4 or IPv6 address, with or without brackets, or a host name.
    pub host: String,
    pub port: u16,
    /// Time between heartbeats; the first goes out one interval after the connection stands. At least 1 ms.
    pub heartbeat_interval: Duration,
    pub auto_reconnect: bool,
    /// Base of the back-off: attempt n waits a random time up to base * 2^(n-1), never under 100 ms nor over 60 s.
    pub reconnect_interval: Duration,
    /// 0 means no limit. Counted anew after each successful registration.
    pub max_reconnect_attempts: u32,
    /// Kept over reconnects. None: one is made up, once.
    pub node_id: Option<String>,
    /// JSON text of the metadata that REGISTER carries.
    pub metadata: String,
    pub connect_timeout: Duration,
    /// Bytes that may wait to be written; `send` refuses more.
    pub outbox_bytes: usize,
    /// The newest dialect to speak, where the server can: 2, which carries any bytes, or 1 to stay with the old one.
    pub protocol: u32,
    /// Nodes that it may carry over its connection, its first one included.
    pub max_nodes: usize,
    /// Whether the heartbeats keep all its nodes alive, the default, or the first one alone: then the host sends those of
    /// the others.
    pub heartbeat_all: bool,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            host: "127.0.0.1".into(),
            port: 9501,
            heartbeat_interval: Duration::from_secs(10),
            auto_reconnect: true,
            reconnect_interval: Duration::from_secs(5),
            max_reconnect_attempts: 0,
            node_id: None,
            metadata: "[]".into(),
            connect_timeout: Duration::from_secs(5),
            outbox_bytes: 1 << 20,
            protocol: crate::wire::control::NEWEST_PROTOCOL,
            max_nodes: 10_000,
            heartbeat_all: true,
        }
    }
}

impl ClientConfig {
    /// # Errors
    /// [`ErrorKind::Config`] with a text that names the field and what it wants.
    pub fn validate(&self) -> Result<(), Error> {
        if self.host.is_empty() {
            return Err(Error::new(ErrorKind::Config, "host must not be empty"));
        }
        if self.port == 0 {
            return Err(Error::new(ErrorKind::Config, "port must be between 1 and 65535"));
        }
        let times = [
            ("heartbeat_interval", self.heartbeat_interval),
            ("reconnect_interval", self.reconnect_interval),
            ("connect_timeout", self.connect_timeout),
        ];
        for (name, value) in times {
            check_timeout(name, value)?;
        }
        check_count("outbox_bytes", self.outbox_bytes)?;
        check_count("max_nodes", self.max_nodes)?;
        if !(1..=crate::wire::control::NEWEST_PROTOCOL).contains(&self.protocol) {
            return Err(Error::new(ErrorKind::Config, "protocol must be 1 or 2"));
        }
        self.node_id.as_deref().map_or(Ok(()), |id| check_node_id(id, ErrorKind::Config))
    }
}

pub(crate) fn check_node_id(id: &str, kind: ErrorKind) -> Result<(), Error> {
    if (1..=crate::wire::control::MAX_NODE_ID_LEN).contains(&id.len()) {
        return Ok(());
    }
    Err(Error::new(kind, "node_id must have 1 to 255 bytes"))
}

/// Longest message where there is a bus: it travels in one frame, whose length is a u32.
const MAX_BUS_MESSAGE: u32 = 1 << 30;

/// # Errors
/// [`ErrorKind::Config`]: the name of a server is a file name of 1 to 64 letters, digits, dots, dashes and underscores.
pub fn check_name(name: &str) -> Result<(), Error> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, "The name of a server must have 1 to 64 letters, digits, dots, dashes or underscores"))
}

/// The largest number that a setting may be: JSON and floats carry whole numbers exactly up to here, and arithmetic with it
/// stays far from overflow. As a limit it is as good as none.
pub const MOST: u64 = 1 << 53;

pub(crate) fn check_count(name: &str, value: usize) -> Result<(), Error> {
    match value as u64 {
        0 => Err(Error::new(ErrorKind::Config, format!("{name} must be at least 1"))),
        1..=MOST => Ok(()),
        _ => Err(Error::new(ErrorKind::Config, format!("{name} must be at most {MOST}"))),
    }
}

/// Longest time that makes sense anywhere; keeps all arithmetic with deadlines far from overflow.
pub const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

pub(crate) fn check_timeout(name: &str, value: Duration) -> Result<(), Error> {
    if (Duration::from_millis(1)..=YEAR).contains(&value) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, format!("{name} must be between 1 ms and one year")))
}
