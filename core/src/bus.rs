//! The bus: how a process reaches the engine of another process of this machine.
//!
//! Both callers are here: [`Bus`] asks, an [`Attachment`] is a worker and gets the events. There is no thread in here and nothing
//! that waits longer than it was told to: the caller watches the descriptor. What a request does is [`crate::engine`]'s
//! business, how it is served and where its file is [`crate::net::bus`]'s.

mod attachment;
mod caller;
mod folders;
mod stream;

pub use self::attachment::{Attachment, AttachmentPhase, Delivered};
pub use self::caller::Bus;
pub use self::folders::is_taken;
pub use crate::engine::{BusStats, ConnectionInfo, NodeInfo};
pub use crate::net::bus::places::{default_paths, path_to_bind};
pub use crate::settings::check_name;
pub use crate::wire::bus::{LineLevel, LogLine, Reply, Request, Welcome};
