//! Counters: what happened, how often. One set per thread, so that counting costs no contention; sums are made on demand.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writing thread; any thread may read it.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub fn up(&self) {
        self.add(1);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters of one thread. The names are those of [`Counts`].
        #[derive(Default, Debug)]
        pub struct Counters { $(pub $name: Counter,)+ }

        /// Sums over all threads, since the engine started.
        #[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
        pub struct Counts { $($(#[doc = $doc])+ pub $name: u64,)+ }

        impl Counters {
            pub fn add_to(&self, sum: &mut Counts) {
                $(sum.$name += self.$name.get();)+
            }
        }

        impl Counts {
            /// Names and values, in the order of the fields.
            pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Connections accepted, refused ones included.
    connections_total,
    /// Connections refused with ERROR 503 because the server was full.
    connections_rejected,
    /// Connections refused because of their address: deny list, allow list, connections per address.
    connections_denied,
    /// Connections that ended.
    connections_closed,
    /// Connections closed because nobody registered in time.
    register_timeouts,
    /// Connections closed because they read too slowly.
    slow_consumers,
    /// Times that accepting paused because the process or system had no descriptor left.
    accept_pauses,
    /// Bytes read from sockets.
    bytes_in,
    /// Bytes written to sockets.
    bytes_out,
    /// Whole frames received, refused ones included.
    messages_in,
    /// HEARTBEAT_REQ frames received.
    heartbeat_requests,
    /// HEARTBEAT_REQ frames answered.
    heartbeats,
    /// HEARTBEAT_REQ of a connection without nodes, or for a channel that is not the connection's; no reply.
    heartbeats_ignored,
    /// DATA frames from registered nodes.
    data_in,
    /// DATA frames dropped: nobody registered, or a channel that is not the connection's.
    data_ignored,
    /// DATA frames accepted for nodes on behalf of the host.
    data_out,
    /// DATA of the host that found its node's outbox full.
    data_out_refused,
    /// PING frames, answered with PONG.
    pings,
    /// REGISTER frames.
    registers,
    /// REGISTER frames refused: node id, metadata or limits.
    registers_refused,
    /// UNREGISTER frames.
    unregisters,
    /// Frames of a type the server does not know or that only servers send; no reply.
    unknown_types,
    /// Frames whose body is not what it should be; ERROR 500, the stream goes on.
    invalid_payloads,
    /// Streams that did not start a frame with its magic number; ERROR 500, closed.
    invalid_magic,
    /// Frames over the length limit; ERROR 413, closed.
    frames_too_long,
    /// Frames skipped with ERROR 429.
    rate_limited,
    /// Bytes of incomplete frames that were lost when their connection ended.
    truncated_bytes,
    /// Nodes that came.
    nodes_registered,
    /// Nodes that left with UNREGISTER.
    nodes_unregistered,
    /// Nodes that timed out.
    nodes_timed_out,
    /// Nodes replaced by a newer connection.
    nodes_replaced,
    /// Nodes whose connection ended, or which the host disconnected.
    nodes_disconnected,
    /// Times a connection stopped reading because the host had no room for events.
    reads_paused_by_host,
    /// Times a connection stopped reading because its peer does not read the replies.
    reads_paused_by_peer,
}
