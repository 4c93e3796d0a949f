//! What the servers of this process counted, under the names of the PHP library's metrics. Read from the engine when
//! somebody looks: no message pays for it.

use crate::host::Host;
use heartbus_core::hub::{Counts, Distribution};

pub enum Number {
    Counter(u64),
    Gauge(f64),
    /// Counts for each bucket alone, and the sum in seconds.
    Histogram(Distribution),
}

pub struct Measure {
    pub name: &'static str,
    pub label: Option<(&'static str, &'static str)>,
    pub number: Number,
}

/// All servers that run in this process, added up; nothing where none runs.
pub fn of_this_process() -> Vec<Measure> {
    let mut counts = Counts::default();
    let (mut messages, mut heartbeats) = (Distribution::default(), Distribution::default());
    let (mut nodes, mut channels, mut connections, mut queued, mut dropped) = (0, 0, 0, 0, 0);
    let engines = Host::current().running();
    if engines.is_empty() {
        return Vec::new();
    }
    for (server, engine) in engines {
        // An engine next door that does not answer has nothing to add.
        let (Ok(stats), Ok(timings)) = (engine.stats(), engine.timings()) else { continue };
        counts.add(&stats.counts);
        messages.add(&timings.messages);
        heartbeats.add(&timings.heartbeats);
        nodes += stats.nodes_online;
        channels += stats.channels_active;
        connections += stats.connections_active;
        queued += server.views.queued();
        dropped += server.views.dropped();
    }
    let counter = |name, number| Measure { name, label: None, number: Number::Counter(number) };
    let gauge = |name, number: f64| Measure { name, label: None, number: Number::Gauge(number) };
    let of_type = |kind, number| Measure { name: "heartbeat_messages_total", label: Some(("type", kind)), number: Number::Counter(number) };
    let histogram = |name, number| Measure { name, label: None, number: Number::Histogram(number) };
    let accepted = counts.connections_total.saturating_sub(counts.connections_rejected + counts.connections_denied);
    vec![
        counter("heartbeat_connections_total", accepted),
        counter("heartbeat_connection_rejected_total", counts.connections_rejected),
        counter("heartbeat_rate_limited_total", counts.rate_limited),
        of_type("HEARTBEAT_REQ", counts.heartbeat_requests),
        of_type("DATA", counts.data_in + counts.data_ignored),
        of_type("PING", counts.pings),
        of_type("REGISTER", counts.registers),
        of_type("UNREGISTER", counts.unregisters),
        of_type("UNKNOWN", counts.unknown_types),
        counter("heartbeat_errors_total", counts.invalid_payloads + counts.invalid_magic),
        counter("heartbeat_nodes_registered_total", counts.nodes_registered),
        counter("heartbeat_nodes_unregistered_total", counts.nodes_unregistered),
        counter("heartbeat_nodes_timeout_total", counts.nodes_timed_out),
        counter("heartbeat_received_total", counts.heartbeats),
        counter("heartbeat_data_messages_total", counts.data_in),
        // Each node brings its channel.
        counter("heartbeat_channels_total", counts.nodes_registered),
        counter("heartbeat_channel_dropped_total", dropped),
        gauge("heartbeat_connections_active", connections as f64),
        gauge("heartbeat_nodes_online", nodes as f64),
        gauge("heartbeat_nodes_total", nodes as f64),
        // The engine keeps no nodes that are offline.
        gauge("heartbeat_nodes_offline", 0.0),
        gauge("heartbeat_channels_active", channels as f64),
        gauge("heartbeat_channel_queue_size", queued as f64),
        histogram("heartbeat_message_duration_seconds", messages),
        histogram("heartbeat_latency_seconds", heartbeats),
    ]
}
