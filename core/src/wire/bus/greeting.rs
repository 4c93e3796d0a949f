//! The first words on the bus socket, and the versions that are agreed on with them.
//!
//! Owns their layout, which stays as it is in every version, so that two versions can refuse each other in words.

use super::codec::{DecodeError, decode, encode};
use super::versions::{MAJOR, MINOR};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

pub const VERSION: Version = Version { major: MAJOR, minor: MINOR };

/// A version as it stands in hellos: 16 bits, the minor number above the major one, where the first releases had a zero.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub major: u8,
    pub minor: u8,
}

impl Version {
    /// The version that these two speak with each other; `None`: they do not understand each other.
    #[must_use]
    pub fn common(self, other: Self) -> Option<Self> {
        (self.major == other.major).then(|| Self { major: self.major, minor: self.minor.min(other.minor) })
    }

    fn to_bytes(self) -> [u8; 2] {
        [self.minor, self.major]
    }

    fn from_bytes([minor, major]: [u8; 2]) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

const MAGIC: [u8; 4] = *b"HBUS";
const HELLO_LEN: usize = 4 + 2 + 1 + 4 + 1;
const GREETING_LEN: usize = 4 + 2 + 1 + 4;
const MAX_GREETING: usize = 64 << 10;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks, and is answered.
    Client,
    /// Gets events, and acknowledges them.
    Worker,
    /// Gets what is published to the topics that it has subscribed to.
    Subscriber,
}

/// What a caller says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub version: Version,
    /// `None`: a role that this version does not know.
    pub role: Option<Role>,
    pub pid: u32,
    /// The version of the caller's package, to be shown to people.
    pub package: String,
}

/// What the engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The server's name, as configured.
    pub name: String,
    /// The version of the engine's package.
    pub package: String,
    pub pid: u32,
    /// When the engine started, in Unix microseconds. With `pid` it tells one engine from the next.
    pub started_at: u64,
    /// Where the server listens.
    pub listen: SocketAddr,
    /// Workers may attach: callbacks do not run in the engine's process.
    pub takes_workers: bool,
    /// The number of this worker; 0 for a client.
    pub worker: u64,
    /// Longest frame either side may send.
    pub frame_cap: u32,
    /// Longest message for a node, in bytes.
    pub max_frame_bytes: u32,
    pub max_connections: u64,
    pub io_threads: u32,
    /// In microseconds.
    pub heartbeat_timeout: u64,
}

/// Why a request failed: an error kind by its number, and its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteError {
    pub kind: i32,
    pub message: String,
}

/// The engine's first words: its welcome, or why it refuses.
pub type Greeting = Result<Welcome, RemoteError>;

pub fn write_hello(out: &mut Vec<u8>, version: Version, role: Role, pid: u32, package: &str) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&version.to_bytes());
    out.push(match role {
        Role::Client => 0,
        Role::Worker => 1,
        Role::Subscriber => 2,
    });
    out.extend_from_slice(&pid.to_be_bytes());
    let package = &package.as_bytes()[..package.len().min(usize::from(u8::MAX))];
    out.push(package.len() as u8);
    out.extend_from_slice(package);
}

/// A hello and its length; `None` while it is incomplete.
///
/// # Errors
/// The caller speaks something else. Said as early as it can be known.
pub fn parse_hello(input: &[u8]) -> Result<Option<(Hello, usize)>, DecodeError> {
    check_magic(input)?;
    let Some(head) = input.get(..HELLO_LEN) else { return Ok(None) };
    let len = HELLO_LEN + usize::from(head[11]);
    let Some(package) = input.get(HELLO_LEN..len) else { return Ok(None) };
    let role = match head[6] {
        0 => Some(Role::Client),
        1 => Some(Role::Worker),
        2 => Some(Role::Subscriber),
        _ => None,
    };
    let hello = Hello {
        version: Version::from_bytes([head[4], head[5]]),
        role,
        pid: u32::from_be_bytes([head[7], head[8], head[9], head[10]]),
        package: String::from_utf8_lossy(package).into_owned(),
    };
    Ok(Some((hello, len)))
}

/// `version`: the one that both speak.
pub fn write_welcome(out: &mut Vec<u8>, version: Version, welcome: &Welcome) {
    write_greeting(out, version, 0, &encode(welcome));
}

/// Says why the caller is not let in. Readable in every version.
pub fn write_refusal(out: &mut Vec<u8>, refusal: &RemoteError) {
    write_greeting(out, VERSION, u8::try_from(refusal.kind).unwrap_or(u8::MAX), refusal.message.as_bytes());
}

fn write_greeting(out: &mut Vec<u8>, version: Version, status: u8, body: &[u8]) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&version.to_bytes());
    out.push(status);
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
}

/// The engine's greeting and its length: its welcome, or why it refused. `None` while it is incomplete.
///
/// # Errors
/// The other side is no engine, or one that welcomed us in another version.
pub fn parse_greeting(input: &[u8]) -> Result<Option<(Greeting, usize)>, DecodeError> {
    check_magic(input)?;
    let Some(head) = input.get(..GREETING_LEN) else { return Ok(None) };
    let body_len = u32::from_be_bytes([head[7], head[8], head[9], head[10]]) as usize;
    if body_len > MAX_GREETING {
        return Err(DecodeError("the greeting is too long"));
    }
    let len = GREETING_LEN + body_len;
    let Some(body) = input.get(GREETING_LEN..len) else { return Ok(None) };
    let greeting = match head[6] {
        0 if Version::from_bytes([head[4], head[5]]).common(VERSION).is_some() => Ok(decode(body)?),
        0 => return Err(DecodeError("the engine speaks another version")),
        kind => Err(RemoteError { kind: kind.into(), message: String::from_utf8_lossy(body).into_owned() }),
    };
    Ok(Some((greeting, len)))
}

/// The version that both sides speak behind the greeting that `input` begins with.
pub fn greeting_version(input: &[u8]) -> Option<Version> {
    let [minor, major] = input.get(MAGIC.len()..MAGIC.len() + 2)?.try_into().ok()?;
    Version::from_bytes([minor, major]).common(VERSION)
}

fn check_magic(input: &[u8]) -> Result<(), DecodeError> {
    let seen = input.len().min(MAGIC.len());
    if input[..seen] == MAGIC[..seen] { Ok(()) } else { Err(DecodeError("no Heartbus speaks there")) }
}
