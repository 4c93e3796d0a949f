//! Counters: what happened, how often, and how many nodes can be reached. One set per thread, so that counting costs no contention;
//! sums are made on demand.

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

/// Upper bounds of the buckets of a [`Durations`], in microseconds; one more bucket has what is longer.
pub const BOUNDS: [u64; 15] =
    [100, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000];

/// Durations of one thread, counted by how long they were.
#[derive(Default, Debug)]
pub struct Durations {
    buckets: [Counter; BOUNDS.len() + 1],
    micros: Counter,
}

impl Durations {
    /// `n` things that took `micros` each.
    pub fn observe(&self, micros: u64, n: u64) {
        self.buckets[BOUNDS.partition_point(|bound| *bound < micros)].add(n);
        self.micros.add(micros * n);
    }

    pub fn add_to(&self, sum: &mut Distribution) {
        for (sum, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        sum.micros += self.micros.get();
    }
}

/// How long things took, over all threads: how many ended up in each bucket, smaller buckets not included.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub struct Distribution {
    pub buckets: [u64; BOUNDS.len() + 1],
    pub micros: u64,
}

impl Distribution {
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        self.micros += other.micros;
    }
}

/// How long the engine took.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub struct Timings {
    /// For a message: the time of the pass that handled it, shared by all messages of that pass.
    pub messages: Distribution,
    /// For a heartbeat, from the moment its thread turned to it until the reply was written: the time of the whole pass.
    pub heartbeats: Distribution,
}

/// What the peer of a connection reads.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Reads {
    V1,
    /// v2 was agreed on, and not spoken yet.
    Agreed,
    V2,
}

/// Where the nodes of a connection are counted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ReachClass {
    pub reads: Reads,
    /// As much waits for the connection as may.
    pub is_full: bool,
}

/// How many nodes a thread can reach, by what becomes of a payload for them.
#[derive(Default, Debug)]
pub struct Reach([Counter; 6]);

impl Reach {
    pub fn enter(&self, class: ReachClass, nodes: usize) {
        self.of(class).add(nodes as u64);
    }

    pub fn leave(&self, class: ReachClass, nodes: usize) {
        self.of(class).add((nodes as u64).wrapping_neg());
    }

    /// No connection is left.
    pub fn clear(&self) {
        self.0.iter().for_each(|counter| counter.add(counter.get().wrapping_neg()));
    }

    pub fn count(&self, class: ReachClass) -> usize {
        self.of(class).get() as usize
    }

    fn of(&self, ReachClass { reads, is_full }: ReachClass) -> &Counter {
        &self.0[2 * reads as usize + usize::from(is_full)]
    }
}

impl Counters {
    /// Subscriptions that were asked for, and have not come about.
    pub fn refuse_subscribes(&self, count: usize) {
        self.subscribes.add(count as u64);
        self.subscribes_refused.add(count as u64);
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters of one thread. The names are those of [`Counts`].
        #[derive(Default, Debug)]
        pub struct Counters {
            $(pub $name: Counter,)+
            pub message_durations: Durations,
            pub heartbeat_durations: Durations,
            pub reach: Reach,
        }

        /// Sums over all threads, since the engine started.
        #[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
        pub struct Counts { $($(#[doc = $doc])+ pub $name: u64,)+ }

        impl Counters {
            pub fn add_to(&self, sum: &mut Counts) {
                $(sum.$name += self.$name.get();)+
            }
        }

        impl Counts {
            pub fn add(&mut self, other: &Counts) {
                $(self.$name += other.$name;)+
            }

            /// Names and values, in the order of the fields.
            pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }

            /// Shows every number under its name; `see` may change it.
            pub fn visit(&mut self, see: &mut impl FnMut(&'static str, &mut u64)) {
                $(see(stringify!($name), &mut self.$name);)+
            }
        }
    };
}

counters! {
    /// Connections accepted, refused ones included.
    connections_total,
    /// Connections refused with ERROR 503: the server is full or stopping, or the address has all it may have.
    connections_rejected,
    /// Connections refused because of their address: deny list, allow list.
    connections_denied,
    /// Connections that ended, without those refused at the door: total - rejected - denied - closed are open.
    connections_closed,
    /// Connections closed because nobody registered in time.
    register_timeouts,
    /// Connections closed because they took nothing of what waited for them, or held most of it when all together held too much.
    slow_consumers,
    /// WebSockets: handshakes that were answered with 101.
    websockets,
    /// Handshakes of WebSocket's that were refused, with an answer of HTTP's.
    websockets_refused,
    /// WebSockets closed because their peer broke a rule of the protocol.
    websocket_violations,
    /// WebSockets closed because their peer did not answer a ping.
    websocket_ping_timeouts,
    /// Connections of Firetower's closed because what they sent is no frame of theirs, or has a length that cannot be.
    firetower_violations,
    /// Frames of Firetower's that were answered with an error.
    firetower_refused,
    /// Frames of Firetower's that this server had sent itself.
    firetower_loops,
    /// Subscriptions and connections of clients that an offline command of Firetower's ended.
    firetower_orders,
    /// Times that this server connected to the manager that it is a gateway of.
    manager_connects,
    /// Publications and commands that this manager did not get: too many waited, or their topic cannot stand in a frame.
    manager_dropped,
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
    /// REGISTER frames refused because ids and metadata would take too much memory, part of the registers refused.
    metadata_refused,
    /// Questions that the host was asked: whether something may happen.
    decisions,
    /// Of these, those that it refused,
    decisions_refused,
    /// and those that were refused because it had not decided in time.
    decisions_timed_out,
    /// Questions that were refused because too many were open: the host was not asked.
    decisions_unasked,
    /// Answers of the host that came too late, or to nothing that it was asked.
    decisions_ignored,
    /// UNREGISTER frames.
    unregisters,
    /// Frames of a type the server does not know or that only servers send; no reply.
    unknown_types,
    /// HEARTBEAT_RES frames, part of the unknown types.
    heartbeat_replies_in,
    /// PONG frames, part of the unknown types.
    pongs_in,
    /// ERROR frames, part of the unknown types.
    errors_in,
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
    /// Events that an observer had no room for.
    observer_events_dropped,
    /// SUBSCRIBE frames.
    subscribes,
    /// SUBSCRIBE frames refused: filter, position or limits.
    subscribes_refused,
    /// UNSUBSCRIBE frames.
    unsubscribes,
    /// PUBLISH frames.
    publishes,
    /// Publications of nodes and of the host, whether anybody heard them or not.
    published,
    /// Publications of nodes and of the host that were refused: topic, length, or too many that wait.
    publish_refused,
    /// MESSAGE frames accepted for subscribers.
    topic_messages_out,
    /// MESSAGE frames for subscribers whose outbox was full.
    topic_messages_refused,
    /// Publications written to processes that have subscribed over the bus socket.
    bus_messages_out,
    /// Publications for such processes that had no room for them.
    bus_messages_dropped,
    /// Comings and goings of nodes that were told in `$nodes`.
    node_changes,
    /// Those that were not: there were too many at once, which is told there as a gap.
    node_changes_dropped,
}
