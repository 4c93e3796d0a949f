//! The engine's numbers as metrics, under the names of the PHP library, and as the text that Prometheus reads.
//!
//! Pure: made of what [`Engine::stats`](crate::engine::Engine::stats) and [`Engine::timings`](crate::engine::Engine::timings)
//! said, when somebody looks. No message pays for it.

use crate::engine::Stats;
use crate::hub::counters::BOUNDS;
use crate::hub::{Distribution, Timings};
use std::fmt::Write;

#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Number {
    Counter(u64),
    Gauge(f64),
    /// Counts for each bucket alone, and the sum in seconds.
    Histogram(Distribution),
}

#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Measure {
    pub name: &'static str,
    pub label: Option<(&'static str, &'static str)>,
    pub number: Number,
}

/// Counters, gauges and histograms, in this order. Measures of one name stand together.
pub fn measures(stats: &Stats, timings: &Timings) -> Vec<Measure> {
    let counts = &stats.counts;
    let counter = |name, number| Measure { name, label: None, number: Number::Counter(number) };
    let gauge = |name, number: usize| Measure { name, label: None, number: Number::Gauge(number as f64) };
    let of_type = |kind, number| Measure { name: "heartbeat_messages_total", label: Some(("type", kind)), number: Number::Counter(number) };
    let memory =
        |part, bytes: usize| Measure { name: "heartbeat_memory_bytes", label: Some(("part", part)), number: Number::Gauge(bytes as f64) };
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
        of_type("HEARTBEAT_RES", counts.heartbeat_replies_in),
        of_type("PONG", counts.pongs_in),
        of_type("ERROR", counts.errors_in),
        of_type("UNKNOWN", counts.unknown_types.saturating_sub(counts.heartbeat_replies_in + counts.pongs_in + counts.errors_in)),
        counter("heartbeat_errors_total", counts.invalid_payloads + counts.invalid_magic),
        counter("heartbeat_nodes_registered_total", counts.nodes_registered),
        counter("heartbeat_nodes_unregistered_total", counts.nodes_unregistered),
        counter("heartbeat_nodes_timeout_total", counts.nodes_timed_out),
        counter("heartbeat_received_total", counts.heartbeats),
        counter("heartbeat_data_messages_total", counts.data_in),
        // Each node brings its channel.
        counter("heartbeat_channels_total", counts.nodes_registered),
        gauge("heartbeat_connections_active", stats.connections_active),
        gauge("heartbeat_nodes_online", stats.nodes_online),
        gauge("heartbeat_nodes_total", stats.nodes_online),
        // The engine keeps no nodes that are offline.
        gauge("heartbeat_nodes_offline", 0),
        gauge("heartbeat_channels_active", stats.channels_active),
        memory("input", stats.memory.input),
        memory("output", stats.memory.output),
        memory("nodes", stats.memory.nodes),
        memory("events", stats.memory.events),
        memory("departed", stats.memory.departed),
        memory("bus", stats.memory.bus),
        memory("observers", stats.memory.observers),
        memory("topics", stats.memory.topics),
        histogram("heartbeat_message_duration_seconds", timings.messages),
        histogram("heartbeat_latency_seconds", timings.heartbeats),
    ]
}

/// What a server says of itself: its uptime first, as in the PHP library, whose own `Metrics` count theirs from elsewhere.
pub fn export(stats: &Stats, timings: &Timings) -> String {
    let uptime = Measure { name: "heartbeat_uptime_seconds", label: None, number: Number::Gauge(stats.uptime_seconds as f64) };
    text(&[vec![uptime], measures(stats, timings)].concat())
}

/// The text format of Prometheus, version 0.0.4.
fn text(measures: &[Measure]) -> String {
    let mut text = String::new();
    let mut family = "";
    for Measure { name, label, number } in measures {
        let kind = match number {
            Number::Counter(_) => "counter",
            Number::Gauge(_) => "gauge",
            Number::Histogram(_) => "histogram",
        };
        if family != *name {
            family = name;
            let _ = writeln!(text, "# TYPE {name} {kind}");
        }
        let label = label.map_or_else(String::new, |(label, value)| format!("{{{label}=\"{value}\"}}"));
        let _ = match number {
            Number::Counter(count) => writeln!(text, "{name}{label} {count}"),
            Number::Gauge(value) => writeln!(text, "{name}{label} {value}"),
            Number::Histogram(distribution) => {
                let mut total = 0;
                for (count, bound) in distribution.buckets.iter().zip(BOUNDS) {
                    total += count;
                    let _ = writeln!(text, "{name}_bucket{{le=\"{}\"}} {total}", seconds(bound));
                }
                total += distribution.buckets[BOUNDS.len()];
                writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {total}\n{name}_sum {}\n{name}_count {total}", seconds(distribution.micros))
            }
        };
    }
    text
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Counts;

    #[test]
    fn the_text_has_a_type_for_each_family_and_a_line_for_each_number() {
        let mut timings = Timings::default();
        timings.messages.buckets[0] = 2;
        timings.messages.buckets[BOUNDS.len()] = 1;
        timings.messages.micros = 12_000_150;
        let counts = Counts { connections_total: 5, connections_denied: 2, pings: 7, ..Counts::default() };
        let text = export(&Stats { counts, uptime_seconds: 61, nodes_online: 3, ..Stats::default() }, &timings);
        assert!(text.starts_with("# TYPE heartbeat_uptime_seconds gauge\nheartbeat_uptime_seconds 61\n"), "{text}");
        for lines in [
            "# TYPE heartbeat_connections_total counter\nheartbeat_connections_total 3\n",
            "# TYPE heartbeat_messages_total counter\nheartbeat_messages_total{type=\"HEARTBEAT_REQ\"} 0\n",
            "heartbeat_messages_total{type=\"PING\"} 7\n",
            "# TYPE heartbeat_nodes_online gauge\nheartbeat_nodes_online 3\n",
            "# TYPE heartbeat_message_duration_seconds histogram\nheartbeat_message_duration_seconds_bucket{le=\"0.0001\"} 2\n",
            "heartbeat_message_duration_seconds_bucket{le=\"10\"} 2\nheartbeat_message_duration_seconds_bucket{le=\"+Inf\"} 3\n",
            "heartbeat_message_duration_seconds_sum 12.00015\nheartbeat_message_duration_seconds_count 3\n",
        ] {
            assert!(text.contains(lines), "{lines}is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE heartbeat_messages_total ").count(), 1);
        assert!(text.ends_with("heartbeat_latency_seconds_count 0\n"));
    }
}
