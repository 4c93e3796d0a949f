//! Sockets, threads and clocks: the thin shell around the hub. tokio and mio live here and nowhere below.

pub(crate) mod bus;
pub mod client;
mod connection;
mod io;
pub(crate) mod listen;
mod mailbox;
pub mod server;
mod stats;

use crate::error::{Error, ErrorKind};
use crate::hub::Now;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The two clocks, read together.
#[derive(Copy, Clone, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.mono(), unix: unix.as_micros() as u64 }
    }

    /// The monotonic one alone.
    pub fn mono(&self) -> u64 {
        // One second ahead, so that no moment of this clock is 0, which means "never" in the hub.
        self.origin.elapsed().as_micros() as u64 + 1_000_000
    }
}

/// Starts an engine thread that takes no signal: in PHP, and in most hosts, handlers must run on the host's own thread.
///
/// # Errors
/// [`ErrorKind::Io`] when the system has no thread left.
pub fn spawn_thread(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    // A thread inherits the mask of its creator, so blocking first leaves no moment at which a signal could land in it.
    let previous = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let thread = std::thread::Builder::new().name(name).spawn(body);
    if let Ok(previous) = previous {
        // Restoring a mask that was just in force cannot fail.
        let _ = previous.thread_set_mask();
    }
    thread.map_err(|error| Error::new(ErrorKind::Io, format!("Cannot start a thread: {error}")))
}

/// Raises the descriptor limit as far as the system lets us, and returns where it stands.
fn raise_descriptor_limit() -> Option<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::debug!(%error, "Cannot raise the descriptor limit");
            soft
        }
    };
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}
