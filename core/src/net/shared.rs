//! What the I/O threads of one server share.
//!
//! Owns the limits that hold across threads: connections in total and per address, allow and deny lists. Does not know the threads.

use super::Clock;
use super::bus::MOST_CALLERS;
use super::relief::Relief;
use super::stats::{self, Connections};
use crate::descriptor::{self, Shares};
use crate::hub::{Counters, Counts, Hub, Now};
use crate::model::CloseReason;
use crate::settings::{ServerConfig, SlowConsumer, micros};
use dashmap::DashMap;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) struct ServerShared {
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
    pub(super) closed: AtomicBool,
    pub(super) stopping: AtomicBool,
    /// When a pause of accepting was last logged.
    warned: AtomicU64,
}

impl ServerShared {
    pub(super) fn new(config: &ServerConfig, hub: Hub, relief: Relief, threads: usize) -> Self {
        Self {
            hub,
            relief,
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
        }
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Makes room for a connection, which [`ServerShared::leave`] gives back, or says why there is none.
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

    pub(super) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for counters in &self.counters {
            counters.add_to(&mut sum);
        }
        self.host_counters().add_to(&mut sum);
        self.hub.add_counts_to(&mut sum);
        sum
    }

    pub(super) fn host_counters(&self) -> MutexGuard<'_, Counters> {
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
