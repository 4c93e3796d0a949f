//! Sockets, threads and clocks: the thin shell around the hub. tokio and mio live here and nowhere below.

mod buffers;
pub(crate) mod bus;
pub mod client;
mod connection;
mod door;
pub mod feed;
mod io;
pub(crate) mod listen;
mod mailbox;
pub(crate) mod manager;
mod outbox;
pub(crate) mod presence;
mod relief;
mod resolve;
mod runtime;
pub mod server;
mod shared;
mod stats;
mod transport;
mod walk;

use crate::error::{Error, ErrorKind};
use crate::hub::Now;
use crate::log;
use nix::sys::signal::{SigSet, SigmaskHow};
use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

/// The two clocks, read together.
#[derive(Copy, Clone, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { origin: Instant::now() }
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
    let origin = log::origin();
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let _within = log::within(origin);
        body();
    });
    if let Ok(previous) = previous {
        // Restoring a mask that was just in force cannot fail.
        let _ = previous.thread_set_mask();
    }
    thread.map_err(|error| Error::new(ErrorKind::Io, format!("Cannot start a thread: {error}")))
}

/// What a panic said.
fn in_words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}

/// Lets something run to its end, or until it panics: then, what the panic said.
async fn survive<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = pin!(work);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(progress) => progress.map(Ok),
        Err(panic) => Poll::Ready(Err(in_words(&*panic))),
    })
    .await
}

/// Waits for so long at most, and says whether it was long enough. Counts slices, not the time: after the process was stopped
/// for a while the others on this thread get their turn before the time is over.
async fn wait_at_most(time: Duration, condition: impl Future<Output = ()>) -> bool {
    const SLICE: Duration = Duration::from_millis(50);
    let mut condition = pin!(condition);
    for _ in 0..time.as_millis().div_ceil(SLICE.as_millis()) {
        if timeout(SLICE, condition.as_mut()).await.is_ok() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use tokio::sync::Notify;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    #[test]
    fn a_thread_has_the_origin_of_who_started_it() {
        let within = log::within(7);
        let thread = spawn_thread("inherits".to_owned(), || assert_eq!(log::origin(), 7)).unwrap();
        drop(within);
        thread.join().unwrap();
    }

    #[test]
    fn time_for_which_the_process_was_stopped_is_nobodys_patience() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (done, time) = (std::rc::Rc::new(Notify::new()), Duration::from_secs(1));
            let other = done.clone();
            spawn_local(async move {
                thread::sleep(2 * time);
                yield_now().await;
                other.notify_one();
            });
            assert!(wait_at_most(time, done.notified()).await);
            assert!(!wait_at_most(Duration::from_millis(1), done.notified()).await, "nobody notifies any more");
        });
    }
}
