//! Where a server stands, in numbers, and how these travel over the bus.
//!
//! Owns the list of their names. Does not know where the numbers come from.

use crate::error::Error;
use crate::hub::counters::Distribution;
use crate::hub::dispatch::DispatchStats;
use crate::hub::{Counts, MemoryStats, Timings};
use crate::inbox::InboxStats;
use crate::service::Reply;
use crate::wire::bus::{DurationsRecord, StatsRecord};

/// Where the server stands, in numbers that cost nothing to read.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Everything that is counted since the start.
    pub counts: Counts,
    /// Whole seconds since the start.
    pub uptime_seconds: u64,
    pub nodes_online: usize,
    pub channels_active: usize,
    pub connections_active: usize,
    /// Topics that somebody has subscribed to by name, or of which something is kept; filters that somebody has subscribed to.
    pub topics_active: usize,
    pub subscriptions_active: usize,
    /// What is kept of all topics takes in memory.
    pub history_bytes: usize,
    /// The limit in force: the configured one, or what the descriptor limit allows.
    pub max_connections: usize,
    pub io_threads: usize,
    /// Bytes that wait in all connections together: input and output of `memory`.
    pub buffered_bytes: usize,
    /// What strangers make the server keep.
    pub memory: MemoryStats,
    /// All zero where workers run the callbacks.
    pub inbox: InboxStats,
    /// All zero where no worker may attach.
    pub dispatch: DispatchStats,
    /// Open connections to the bus socket, those of workers included.
    pub bus_clients: usize,
}

/// What the engine of another process says of itself.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct BusStats {
    pub stats: Stats,
    pub timings: Timings,
}

impl Stats {
    /// Every number with its name, counters first. A name is never given to another number.
    pub fn list(mut self) -> Vec<(&'static str, u64)> {
        let mut numbers = Vec::new();
        self.visit(&mut |name, number| numbers.push((name, *number)));
        numbers
    }

    /// Shows every number under its name; `see` may change it.
    fn visit(&mut self, see: &mut impl FnMut(&'static str, &mut u64)) {
        self.counts.visit(see);
        let Self { inbox, dispatch, .. } = self;
        for (name, number) in [("inbox_pauses", &mut inbox.pauses), ("inbox_coalesced", &mut inbox.coalesced)] {
            see(name, number);
        }
        let counters = [
            ("dispatch_refused", &mut dispatch.refused),
            ("dispatch_dropped", &mut dispatch.dropped),
            ("dispatch_coalesced", &mut dispatch.coalesced),
            ("dispatch_redelivered", &mut dispatch.redelivered),
            ("dispatch_abandoned", &mut dispatch.abandoned),
            ("dispatch_moved_lanes", &mut dispatch.moved_lanes),
        ];
        for (name, number) in counters {
            see(name, number);
        }
        see("uptime_seconds", &mut self.uptime_seconds);
        let sizes = [
            ("nodes_online", &mut self.nodes_online),
            ("channels_active", &mut self.channels_active),
            ("connections_active", &mut self.connections_active),
            ("max_connections", &mut self.max_connections),
            ("io_threads", &mut self.io_threads),
            ("buffered_bytes", &mut self.buffered_bytes),
            ("inbox_queued_events", &mut self.inbox.queued_events),
            ("inbox_queued_bytes", &mut self.inbox.queued_bytes),
            ("dispatch_workers", &mut self.dispatch.workers),
            ("dispatch_queued_events", &mut self.dispatch.queued_events),
            ("dispatch_queued_bytes", &mut self.dispatch.queued_bytes),
            ("dispatch_in_flight_events", &mut self.dispatch.in_flight_events),
            ("bus_clients", &mut self.bus_clients),
            ("memory_bytes", &mut self.memory.total),
            ("memory_input_bytes", &mut self.memory.input),
            ("memory_output_bytes", &mut self.memory.output),
            ("memory_node_bytes", &mut self.memory.nodes),
            ("memory_event_bytes", &mut self.memory.events),
            ("memory_departed_bytes", &mut self.memory.departed),
            ("memory_bus_bytes", &mut self.memory.bus),
            ("memory_observer_bytes", &mut self.memory.observers),
            ("memory_topic_bytes", &mut self.memory.topics),
            ("topics_active", &mut self.topics_active),
            ("subscriptions_active", &mut self.subscriptions_active),
            ("history_bytes", &mut self.history_bytes),
        ];
        for (name, size) in sizes {
            let mut number = *size as u64;
            see(name, &mut number);
            *size = number as usize;
        }
    }
}

impl BusStats {
    pub fn to_record(self) -> StatsRecord {
        let numbers = self.stats.list().into_iter().map(|(name, number)| (name.into(), number)).collect();
        let durations = |sum: &Distribution| DurationsRecord { buckets: sum.buckets.to_vec(), micros: sum.micros };
        StatsRecord { numbers, messages: durations(&self.timings.messages), heartbeats: durations(&self.timings.heartbeats) }
    }
}

impl Reply {
    /// # Errors
    /// As [`Reply::record`].
    pub fn stats(self) -> Result<BusStats, Error> {
        self.record().map(|record| BusStats::from(&record))
    }
}

/// Names that are not known here are left out, and what is missing is 0: the other side may count more, or less.
impl From<&StatsRecord> for BusStats {
    fn from(record: &StatsRecord) -> Self {
        let mut found = Self::default();
        found.stats.visit(&mut |name, number| {
            let sent = record.numbers.iter().find(|(sent, _)| *sent == name);
            *number = sent.map_or(0, |(_, number)| *number);
        });
        for (sum, sent) in [(&mut found.timings.messages, &record.messages), (&mut found.timings.heartbeats, &record.heartbeats)] {
            sum.buckets.iter_mut().zip(&sent.buckets).for_each(|(bucket, sent)| *bucket = *sent);
            sum.micros = sent.micros;
        }
        found
    }
}
