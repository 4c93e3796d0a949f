//! What the I/O threads of one server share, and how they are started and stopped.
//!
//! Owns the limits that hold across threads: connections in total and per address, allow and deny lists.

use super::bus::MOST_CALLERS;
use super::io::{IoThread, Polling};
use super::mailbox::{Listing, Mailbox};
use super::relief::Relief;
use super::stats::{self, Connections};
use super::{Clock, listen, spawn_thread};
use crate::descriptor::{self, Shares};
use crate::error::{Error, ErrorKind};
use crate::hub::{Counters, Counts, Host, Hub, Now, Timings};
use crate::model::CloseReason;
use crate::settings::{ServerConfig, SlowConsumer, micros};
pub use crate::wire::bus::ConnectionInfo;
use dashmap::DashMap;
use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) struct Shared {
    pub(crate) hub: Hub,
    pub(crate) clock: Clock,
    pub(super) relief: Relief,
    /// In microseconds; `None`: who takes nothing stays.
    pub(super) slow_consumer_timeout: Option<u64>,
    pub(crate) max_connections: usize,
    max_connections_per_ip: usize,
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    connections: AtomicUsize,
    /// Of each I/O thread.
    pub(super) counters: Vec<Arc<Counters>>,
    /// What the host does on its own threads is counted here, under the lock because these may be several.
    host_counters: Mutex<Counters>,
    /// In microseconds.
    pub(super) stats_interval: u64,
    /// Used only where there is a limit per address. Holds addresses with open connections.
    per_ip: DashMap<IpAddr, usize>,
    /// No connection is accepted any more; those that are open go on.
    closed: AtomicBool,
    stopping: AtomicBool,
    /// When a pause of accepting was last logged.
    warned: AtomicU64,
}

impl Shared {
    pub(crate) fn connection_count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Makes room for a connection, which [`Shared::leave`] gives back, or says why there is none.
    pub(super) fn admit(&self, address: IpAddr) -> Result<(), CloseReason> {
        let listed = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        if listed(&self.deny) || !self.allow.is_empty() && !listed(&self.allow) {
            return Err(CloseReason::NotAllowed);
        }
        if self.is_stopping() {
            return Err(CloseReason::ServerStopped);
        }
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.max_connections {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(CloseReason::ServerFull);
        }
        if self.max_connections_per_ip != 0 {
            let mut count = self.per_ip.entry(address).or_insert(0);
            if *count >= self.max_connections_per_ip {
                drop(count);
                self.connections.fetch_sub(1, Ordering::Relaxed);
                return Err(CloseReason::ServerFull);
            }
            *count += 1;
        }
        Ok(())
    }

    pub(super) fn leave(&self, address: IpAddr) {
        if self.max_connections_per_ip != 0 {
            self.per_ip.remove_if_mut(&address, |_, count| {
                *count -= 1;
                *count == 0
            });
        }
        // Last: who sees that a connection is gone may make the next one.
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for counters in &self.counters {
            counters.add_to(&mut sum);
        }
        self.host_counters().add_to(&mut sum);
        self.hub.add_counts_to(&mut sum);
        sum
    }

    fn host_counters(&self) -> MutexGuard<'_, Counters> {
        self.host_counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn log_stats(&self) {
        if tracing::enabled!(tracing::Level::INFO) {
            let connections = Connections { active: self.connection_count(), max: self.max_connections };
            stats::log(&self.counts(), &self.hub, connections);
        }
    }

    /// A full system would otherwise log ten times per second and thread.
    pub(super) fn may_warn_of_accept(&self, now: Now) -> bool {
        let last = self.warned.load(Ordering::Relaxed);
        now.mono.saturating_sub(last) > 10_000_000
            && self.warned.compare_exchange(last, now.mono, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// How long a listing waits for the threads: they look within a tick, unless they are very busy.
const LISTING_TIME: Duration = Duration::from_millis(500);

/// The running threads of a server.
pub(crate) struct Server {
    pub(crate) shared: Arc<Shared>,
    pub(crate) local_addr: SocketAddr,
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Server {
    pub(crate) fn start(config: &ServerConfig, host: Arc<dyn Host>) -> Result<Self, Error> {
        config.validate()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if config.io_threads == 0 { cores } else { config.io_threads.min(cores) };
        let listeners = listen::bind(&config.host, config.port, threads)?;
        let cannot_start = |error: io::Error| Error::new(ErrorKind::Io, format!("Cannot start the server: {error}"));
        let local_addr = listeners[0].local_addr().map_err(cannot_start)?;
        let hub = Hub::new(config.clone(), host);
        let polls = descriptor::lifted(|| (0..threads).map(|_| Polling::new()).collect::<io::Result<Vec<_>>>()).map_err(cannot_start)?;
        let apart = |Polling { poll, registry, waker }| ((poll, registry), Arc::new(Mailbox::new(waker, hub.memory().clone())));
        let (polls, mailboxes): (Vec<_>, Vec<_>) = polls.into_iter().map(apart).unzip();
        let shared = Arc::new(Shared {
            hub,
            relief: Relief::new(mailboxes.clone()),
            slow_consumer_timeout: (config.slow_consumer == SlowConsumer::Close).then_some(micros(config.slow_consumer_timeout)),
            clock: Clock::start(),
            max_connections: effective_max_connections(config.max_connections, config.bus.is_some()),
            max_connections_per_ip: config.max_connections_per_ip,
            allow: config.allow.clone(),
            deny: config.deny.clone(),
            connections: AtomicUsize::new(0),
            counters: (0..threads).map(|_| Arc::default()).collect(),
            host_counters: Mutex::default(),
            stats_interval: micros(config.stats_interval),
            per_ip: DashMap::new(),
            closed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            warned: AtomicU64::new(0),
        });
        tracing::info!(host = config.host, port = local_addr.port(), workers = threads, protocol = "tcp", "HeartbeatServer starting");
        let mut server = Self { shared, local_addr, mailboxes, threads: Mutex::default() };
        for (index, (listener, (poll, registry))) in listeners.into_iter().zip(polls).enumerate() {
            if let Err(error) = server.start_thread(index, listener, poll, registry, cannot_start) {
                server.stop();
                return Err(error);
            }
        }
        Ok(server)
    }

    fn start_thread(
        &mut self,
        index: usize,
        listener: std::net::TcpListener,
        poll: mio::Poll,
        registry: mio::Registry,
        cannot_start: impl Fn(io::Error) -> Error,
    ) -> Result<(), Error> {
        let listener = mio::net::TcpListener::from_std(listener);
        let io =
            IoThread::new(index, self.shared.clone(), registry, self.mailboxes[index].clone(), vec![listener]).map_err(&cannot_start)?;
        let thread = spawn_thread(format!("heartbus-io-{index}"), move || io.run(poll))?;
        self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    pub(crate) fn io_threads(&self) -> usize {
        self.mailboxes.len()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.counts()
    }

    pub(crate) fn timings(&self) -> Timings {
        let mut sum = Timings::default();
        for counters in &self.shared.counters {
            counters.message_durations.add_to(&mut sum.messages);
            counters.heartbeat_durations.add_to(&mut sum.heartbeats);
        }
        sum
    }

    /// Up to `max` open connections over all threads, in no particular order. A thread that does not answer in time is
    /// left out.
    pub(crate) fn connections(&self, max: usize) -> Vec<ConnectionInfo> {
        let (answer, answers) = sync_channel(self.mailboxes.len());
        for mailbox in &self.mailboxes {
            mailbox.ask(Listing { max, answer: answer.clone() });
        }
        drop(answer);
        let deadline = Instant::now() + LISTING_TIME;
        let mut found = Vec::new();
        while let Ok(more) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            found.extend(more);
        }
        found.truncate(max);
        found
    }

    /// Lends the counters for what is done on the host's threads.
    pub(crate) fn with_host_counters<T>(&self, work: impl FnOnce(&Counters) -> T) -> T {
        work(&self.shared.host_counters())
    }

    /// Listens no longer; open connections go on.
    pub(crate) fn close_door(&self) {
        self.shared.closed.store(true, Ordering::Release);
        for mailbox in &self.mailboxes {
            mailbox.wake();
        }
    }

    /// Tells every client, writes what waits, closes, and waits for the threads. The second call finds nothing to do.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        for mailbox in &self.mailboxes {
            mailbox.wake();
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("An I/O thread had panicked");
            }
        }
        crate::log::tell_left_out(true);
    }
}

/// How many connections fit under the descriptor limit, raised as far as the system lets us, beside the callers of the bus socket.
fn effective_max_connections(wanted: usize, has_bus: bool) -> usize {
    let Some(limit) = descriptor::raise_limit() else {
        return wanted;
    };
    let possible = Shares::of(limit, if has_bus { MOST_CALLERS } else { 0 }).connections;
    if possible < wanted {
        tracing::warn!(max_connections = possible, descriptors = limit, "max_connections lowered to what the descriptor limit allows");
    }
    wanted.min(possible)
}
