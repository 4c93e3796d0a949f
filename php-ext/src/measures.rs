//! What the servers of this process counted, as metrics. What PHP's channels hold is added to what the engine counts.

use crate::heartbeat_server::running_engines;
use heartbus_core::engine::Stats;
use heartbus_core::hub::Timings;
use heartbus_core::metrics::{Measure, measures};

pub(crate) use heartbus_core::metrics::Number;

/// How long the oldest server of this process has run, its engine here or next door.
pub(crate) fn uptime() -> Option<f64> {
    let engines = running_engines();
    engines.iter().filter_map(|(_, engine)| engine.stats().ok()).map(|stats| stats.uptime_seconds as f64).reduce(f64::max)
}

/// All servers that run in this process, added up; nothing where none runs.
pub(crate) fn of_this_process() -> Vec<Measure> {
    let engines = running_engines();
    if engines.is_empty() {
        return Vec::new();
    }
    let (mut sum, mut timings) = (Stats::default(), Timings::default());
    let (mut queued, mut dropped) = (0, 0);
    for (server, engine) in engines {
        // An engine next door that does not answer has nothing to add.
        let (Ok(stats), Ok(more)) = (engine.stats(), engine.timings()) else { continue };
        sum.counts.add(&stats.counts);
        sum.nodes_online += stats.nodes_online;
        sum.channels_active += stats.channels_active;
        sum.connections_active += stats.connections_active;
        timings.messages.add(&more.messages);
        timings.heartbeats.add(&more.heartbeats);
        queued += server.objects.queued();
        dropped += server.objects.dropped();
    }
    let ours = |name, number| Measure { name, label: None, number };
    let mut all = measures(&sum, &timings);
    all.push(ours("heartbeat_channel_dropped_total", Number::Counter(dropped)));
    all.push(ours("heartbeat_channel_queue_size", Number::Gauge(queued as f64)));
    all
}
