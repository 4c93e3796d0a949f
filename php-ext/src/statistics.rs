//! The engine's numbers as the arrays of `getStats()`, in the shape that the PHP library gives them.

use crate::php::{map, map_of, value};
use ext_php_rs::types::Zval;
use heartbus_core::engine::Stats;

fn count(number: u64) -> Zval {
    value(number as i64)
}

fn size(number: usize) -> Zval {
    value(number as i64)
}

pub(crate) fn nodes(stats: &Stats) -> Zval {
    let counts = &stats.counts;
    map([
        ("total", size(stats.nodes_online)),
        ("online", size(stats.nodes_online)),
        ("offline", value(0i64)),
        ("total_heartbeats", count(counts.heartbeats)),
        ("total_messages", count(counts.data_in)),
        ("total_registered", count(counts.nodes_registered)),
        ("total_unregistered", count(left(stats))),
        ("total_timeout", count(counts.nodes_timed_out)),
    ])
}

/// Nodes that left, in whatever way.
pub(crate) fn left(stats: &Stats) -> u64 {
    let counts = &stats.counts;
    counts.nodes_unregistered + counts.nodes_timed_out + counts.nodes_replaced + counts.nodes_disconnected
}

/// `queued` is what waits in the channels that PHP holds.
pub(crate) fn channels(stats: &Stats, queued: i64) -> Zval {
    map([
        ("active_channels", size(stats.channels_active)),
        ("active_nodes", size(stats.nodes_online)),
        // The engine writes at once: what a slow node keeps waiting is in its outbox, counted in bytes.
        ("total_send_queue", value(0i64)),
        ("total_recv_queue", value(queued)),
        ("total_send_count", count(stats.counts.data_out)),
        ("total_recv_count", count(stats.counts.data_in)),
    ])
}

pub(crate) fn connections(stats: &Stats, max_connections: i64) -> Zval {
    let counts = &stats.counts;
    let refused = counts.connections_rejected + counts.connections_denied;
    map([
        ("active_connections", size(stats.connections_active)),
        ("max_connections", value(max_connections)),
        ("total_connections", count(counts.connections_total.saturating_sub(refused))),
        ("total_closed", count(counts.connections_closed)),
        ("usage_percent", value(stats.connections_active as f64 / max_connections as f64 * 100.0)),
    ])
}

/// Everything that the engine counts, under the names that the C interface and the bus socket have. `dropped` are messages for
/// which PHP's channels had no room.
pub(crate) fn engine(stats: &Stats, dropped: u64) -> Zval {
    let mut numbers: Vec<_> = stats.list().into_iter().map(|(name, number)| (name, count(number))).collect();
    numbers.push(("channel_dropped", count(dropped)));
    map_of(numbers)
}
