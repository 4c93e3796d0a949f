//! What the bus knows: nodes, channels, connections, limits and counters, shared by all threads.
//!
//! Pure: bytes, commands and `now` come in; replies, events and verdicts go out. It knows no socket and has no clock;
//! the shell around it does the reading, the writing and the waiting.

mod asking;
pub mod attendance;
pub mod batch;
pub mod budget;
pub mod client;
pub mod coalesce;
pub mod connection_log;
pub mod counters;
pub mod decisions;
mod directory;
pub mod dispatch;
pub mod event;
pub mod fan_out;
pub mod feeds;
pub mod firetower;
pub mod following;
pub mod frame;
mod gap_queue;
mod handed_over;
#[allow(clippy::module_inception, reason = "the file of `Hub`, of which the folder has its name")]
mod hub;
mod last_words;
pub mod link;
pub mod lookups;
pub mod manager;
pub mod memory;
pub mod node;
mod node_ref;
mod nodes;
mod now;
pub mod observers;
pub mod presence;
mod publishing;
mod quota;
pub mod rate;
mod refusal;
pub mod replies;
pub(crate) mod resume;
pub mod session;
pub mod thread_state;
pub mod timer;
pub mod topic_fan_out;
pub(crate) mod topic_progress;
pub mod topics;
pub mod trim;
pub mod wheel;

pub use budget::Budget;
pub use connection_log::ConnectionLog;
pub use counters::{Counters, Counts, Distribution, Timings};
pub use event::{Event, Host};
pub use hub::Hub;
pub use link::Link;
pub use memory::{Memory, MemoryStats};
pub use node::{Node, NodeInfo};
pub use node_ref::NodeRef;
pub use now::Now;
pub use observers::{Observed, Observer, ObserverLimits};
pub use refusal::Refusal;
pub use resume::Resume;
pub use session::{Look, Next, Session};
pub use timer::{Timer, TimerKind};
pub use wheel::Wheel;

pub use crate::model::{Departure, EventMask};

/// The modules whose lines of the log are counted by the hub itself.
pub(crate) const COUNTS_ITS_LINES: [&str; 3] = [connection_log::MODULE, client::LOG_MODULE, quota::MODULE];
