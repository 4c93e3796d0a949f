//! The server's numbers as one line of the log, now and then: the `Server stats` of the PHP library.
//!
//! Owns the line and how memory is measured. When it is written is the business of the I/O threads.

use crate::hub::{Counts, Hub};

pub(super) struct Connections {
    pub(super) active: usize,
    pub(super) max: usize,
}

/// A name before a dot is that of a group: subscribers that know groups nest them.
pub(super) fn log(counts: &Counts, hub: &Hub, connections: Connections) {
    let nodes = hub.node_count();
    let left = counts.nodes_unregistered + counts.nodes_timed_out + counts.nodes_replaced + counts.nodes_disconnected;
    let accepted = counts.connections_total.saturating_sub(counts.connections_rejected + counts.connections_denied);
    let memory = ResidentMemory::now();
    tracing::info!(
        nodes.total = nodes,
        nodes.online = nodes,
        nodes.offline = 0,
        nodes.total_registered = counts.nodes_registered,
        nodes.total_unregistered = left,
        nodes.total_timeout = counts.nodes_timed_out,
        nodes.total_heartbeats = counts.heartbeats,
        nodes.total_messages = counts.data_in,
        channels.active_channels = hub.channel_count(),
        channels.active_nodes = nodes,
        channels.total_send_count = counts.data_out,
        channels.total_recv_count = counts.data_in,
        connections.active_connections = connections.active,
        connections.max_connections = connections.max,
        connections.total_connections = accepted,
        connections.total_closed = counts.connections_closed,
        connections.usage_percent = connections.active as f64 / connections.max as f64 * 100.0,
        memory.current = memory.current,
        memory.peak = memory.peak,
        memory.current_formatted = formatted(memory.current),
        memory.peak_formatted = formatted(memory.peak),
        "Server stats"
    );
}

/// Bytes of the whole process, its host included; 0 where the system does not tell.
struct ResidentMemory {
    current: u64,
    peak: u64,
}

impl ResidentMemory {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB")?.trim().parse::<u64>().ok());
        Self { current: kilobytes("VmRSS:").unwrap_or(0) * 1024, peak: kilobytes("VmHWM:").unwrap_or(0) * 1024 }
    }
}

/// As `hb_format_bytes()` writes it.
fn formatted(bytes: u64) -> String {
    let mut number = bytes as f64;
    let mut units = ["B", "KB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while number > 1024.0
        && let Some(next) = units.next()
    {
        number /= 1024.0;
        unit = next;
    }
    format!("{} {unit}", (number * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_the_php_library_writes_them() {
        let written = [0, 1024, 1025, 1536, 9 << 20, 3 << 50].map(formatted);
        assert_eq!(written, ["0 B", "1024 B", "1 KB", "1.5 KB", "9 MB", "3072 TB"]);
    }

    #[test]
    fn the_memory_of_this_process_is_measured() {
        let memory = ResidentMemory::now();
        assert!(memory.current > 100_000 && memory.peak >= memory.current, "{} {}", memory.current, memory.peak);
    }
}
