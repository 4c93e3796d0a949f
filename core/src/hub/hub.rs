//! The state that all threads share: who is registered, under which channel, within which limits; and what is sent to nodes.
//!
//! Owns the order of coming and going, and the checks before a payload goes out. Does not know sessions: what a frame means is theirs.

use super::attendance::Attendance;
use super::counters::{Counters, Counts, ReachClass, Reads};
use super::decisions::Decisions;
use super::directory::Directory;
use super::event::{Event, Host};
use super::fan_out::{FanOut, FanOuts, HubThread};
use super::feeds::Feeds;
use super::firetower::FireBack;
use super::frame::{Body, QueuedFrame};
use super::link::{Link, PushError};
use super::manager::ManagerLink;
use super::memory::{Memory, Part};
use super::node::Node;
use super::node_ref::NodeRef;
use super::now::Now;
use super::observers::{ObserveRefusal, Observer, ObserverLimits, Observers};
use super::rate::{AddressBuckets, SharedBucket};
use super::refusal::{Refusal, TooMuch};
use super::resume::Resume;
use super::topics::Topics;
use crate::model::{CloseReason, Departure, EventMask, HostMessage};
use crate::settings::{RateLimit, ServerConfig, micros};
use crate::wire::{Dialect, FrameType, NotUtf8};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

pub struct Hub {
    limits: ServerConfig,
    /// The limit of that name at first; the host may change it.
    heartbeat_timeout: AtomicU64,
    host: Arc<dyn Host>,
    observers: Arc<Observers>,
    nodes: Directory,
    node_count: AtomicUsize,
    next_channel: AtomicU32,
    next_connection: AtomicU64,
    address_buckets: AddressBuckets,
    pub(super) requests: SharedBucket,
    memory: Arc<Memory>,
    /// What the host itself counts, from its own threads: these are rare, so they may contend.
    data_out: AtomicU64,
    data_out_refused: AtomicU64,
    threads: OnceLock<Vec<HubThread>>,
    fan_outs: FanOuts,
    topics: Topics,
    firetower: FireBack,
    /// What this server is a gateway of, if it is one.
    manager: OnceLock<Arc<ManagerLink>>,
    /// The host's subscriptions to topics.
    listening: AtomicUsize,
    /// Those of other processes.
    feeds: Arc<Feeds>,
    attendance: Attendance,
    decisions: Decisions,
}

impl Hub {
    pub fn new(limits: ServerConfig, host: Arc<dyn Host>) -> Self {
        let requests = SharedBucket::new(limits.max_requests_per_second);
        let memory = Arc::new(Memory::new(limits.total_buffer_bytes));
        host.attach(&memory);
        let feed_limits = ObserverLimits { events: limits.bus_queue_events, bytes: limits.bus_queue_bytes };
        let feeds = Arc::new(Feeds::new(feed_limits, memory.clone()));
        let decisions = Decisions::new(limits.max_decisions);
        let topics = Topics::new(limits.max_topics, limits.max_filter_levels, limits.history.clone(), limits.history_bytes, memory.clone());
        Self {
            topics,
            heartbeat_timeout: AtomicU64::new(micros(limits.heartbeat_timeout)),
            observers: Arc::new(Observers::new(memory.clone())),
            attendance: Attendance::new(memory.clone()),
            memory,
            limits,
            host,
            nodes: Directory::default(),
            node_count: AtomicUsize::new(0),
            next_channel: AtomicU32::new(1),
            next_connection: AtomicU64::new(1),
            address_buckets: AddressBuckets::default(),
            requests,
            data_out: AtomicU64::new(0),
            data_out_refused: AtomicU64::new(0),
            threads: OnceLock::new(),
            fan_outs: FanOuts::default(),
            firetower: FireBack::default(),
            manager: OnceLock::new(),
            listening: AtomicUsize::new(0),
            feeds,
            decisions,
        }
    }

    /// The settings that the server was started with.
    pub fn limits(&self) -> &ServerConfig {
        &self.limits
    }

    /// Whether frames are counted against anything.
    pub(super) fn limits_frames(&self) -> bool {
        self.limits.rate_limit.is_some() || self.limits.max_requests_per_second != 0
    }

    /// In microseconds.
    pub fn heartbeat_timeout(&self) -> u64 {
        self.heartbeat_timeout.load(Ordering::Relaxed)
    }

    /// Holds for nodes that register from now on, and for the others from their next check on, which the old one decides.
    pub fn set_heartbeat_timeout(&self, micros: u64) {
        self.heartbeat_timeout.store(micros, Ordering::Relaxed);
    }

    /// Whether whoever would cause such events has to wait, because the host wants them and has no room. Observers hold up nobody.
    pub fn is_crowded(&self, kinds: EventMask, producer: Option<Arc<dyn Resume>>) -> bool {
        self.host.wants(kinds) && self.host.is_crowded(producer)
    }

    /// Who watches what happens beside the host, from now on; whoever looks at the nodes afterwards misses nothing of these kinds.
    ///
    /// # Errors
    /// [`ObserveRefusal`].
    pub fn observe(&self, kinds: EventMask, limits: ObserverLimits) -> Result<Observer, ObserveRefusal> {
        self.observers.add(kinds, limits)
    }

    /// Nothing happens any more, which observers hear behind what waits for them.
    pub fn end_observers(&self) {
        self.observers.end();
    }

    /// Whether the host or an observer is to be told of any of these.
    #[inline]
    pub fn wants(&self, kinds: EventMask) -> bool {
        self.host.wants(kinds) || self.observers.wants(kinds)
    }

    /// Tells the host and the observers who want to know; the event is made only where somebody does. About a node: with its gate held.
    pub(super) fn tell(&self, kind: EventMask, event: impl FnOnce() -> Event) {
        match (self.host.wants(kind), self.observers.wants(kind)) {
            (true, false) => self.host.push_state(event()),
            (true, true) => {
                let event = event();
                self.observers.push(&event);
                self.host.push_state(event);
            }
            (false, true) => self.observers.push(&event()),
            (false, false) => {}
        }
    }

    /// The same of data. The host's lack of room holds up its observers as well, who see once what the host takes once.
    ///
    /// # Errors
    /// The event itself, as [`Host::push_data`].
    pub(super) fn tell_data(&self, event: Event, bytes: usize, producer: Arc<dyn Resume>) -> Result<(), Event> {
        match (self.host.wants(EventMask::DATA), self.observers.wants(EventMask::DATA)) {
            (true, false) => return self.host.push_data(event, bytes, producer),
            (true, true) => {
                self.host.push_data(event.clone(), bytes, producer)?;
                self.observers.push(&event);
            }
            (false, true) => self.observers.push(&event),
            (false, false) => {}
        }
        Ok(())
    }

    /// A publication for the host, where it is told any. Observers hear of what nodes do, not of what they say to each other.
    pub(super) fn push_message(&self, message: impl FnOnce() -> HostMessage) {
        if self.host.wants(EventMask::MESSAGE) {
            self.host.push_message(Event::Message { message: Arc::new(message()) });
        }
    }

    /// As [`Host::has_room_for_message`].
    pub(super) fn host_has_room(&self, bytes: usize, producer: Option<Arc<dyn Resume>>) -> bool {
        !self.host.wants(EventMask::MESSAGE) || self.host.has_room_for_message(bytes, producer)
    }

    /// Who subscribes to topics, where somebody wants to hear it.
    pub fn attendance(&self) -> &Attendance {
        &self.attendance
    }

    pub(super) fn feeds(&self) -> &Arc<Feeds> {
        &self.feeds
    }

    pub(super) fn host(&self) -> &dyn Host {
        &*self.host
    }

    /// What the host is asked and has not decided yet.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    pub(super) fn listening(&self) -> &AtomicUsize {
        &self.listening
    }

    /// Nodes online, without walking anything.
    pub fn node_count(&self) -> usize {
        self.node_count.load(Ordering::Relaxed)
    }

    pub fn channel_count(&self) -> usize {
        self.nodes.channel_count()
    }

    pub fn node(&self, id: &str) -> Option<Arc<Node>> {
        self.nodes.get(id)
    }

    /// Up to `max` nodes, in no particular order.
    pub fn some_nodes(&self, max: usize) -> Vec<Arc<Node>> {
        let mut some = Vec::new();
        self.nodes.each(|node| {
            if some.len() >= max {
                return ControlFlow::Break(());
            }
            some.push(node.clone());
            ControlFlow::Continue(())
        });
        some
    }

    /// A page of the list of nodes: up to `limit` of them behind `after`, and what `after` is for the next page, `None` when
    /// there is none. The order is stable but has no meaning. However the list changes between two pages, a node id that was
    /// online all the time from the first page to the last is in exactly one of them. At a million nodes a page of 100 costs
    /// about as much as looking at a thousand.
    pub fn page(&self, after: Option<u64>, limit: usize) -> (Vec<Arc<Node>>, Option<u64>) {
        self.nodes.page(after, limit)
    }

    /// What `after` is for the page that begins behind this node.
    pub fn place_of(&self, node: &Node) -> u64 {
        self.nodes.place_of(node)
    }

    pub fn node_of_channel(&self, channel_id: u32) -> Option<Arc<Node>> {
        self.nodes.of_channel(channel_id)
    }

    /// The node of a connection, of several the one that registered last. Looks at every node.
    pub fn node_of_connection(&self, connection_id: u64) -> Option<Arc<Node>> {
        // No connection has had such an id yet.
        if connection_id == 0 || connection_id >= self.next_connection.load(Ordering::Relaxed) {
            return None;
        }
        let mut newest: Option<Arc<Node>> = None;
        self.nodes.each(|node| {
            if node.connection_id() == connection_id && newest.as_ref().is_none_or(|other| other.registered_at() <= node.registered_at()) {
                newest = Some(node.clone());
            }
            ControlFlow::Continue(())
        });
        newest
    }

    /// The host says that a node is alive. No heartbeat is counted.
    pub fn keep_alive(&self, id: &str, now: Now) -> Result<(), Refusal> {
        self.node(id).ok_or(Refusal::NoSuchNode)?.seen(now);
        Ok(())
    }

    /// Sets members of a node's metadata, of which the node hears nothing; they stay as long as it is registered, unless it sends
    /// its own of that name. `channel_id` names one registration of the id, 0 whichever there is.
    ///
    /// # Errors
    /// [`Refusal::NoSuchNode`], [`Refusal::NotMetadata`], [`Refusal::MetadataTooLong`].
    pub fn set_metadata(&self, id: &str, channel_id: u32, members: &str) -> Result<(), Refusal> {
        let node = self.node(id).filter(|node| channel_id == 0 || channel_id == node.channel_id()).ok_or(Refusal::NoSuchNode)?;
        let mut gate = node.gate();
        if !gate.is_open() {
            return Err(Refusal::NoSuchNode);
        }
        gate.set_metadata(members, &self.memory).map_err(|_| Refusal::NotMetadata)?.map_err(|_| Refusal::MetadataTooLong)
    }

    pub fn next_connection_id(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    /// Who wants to hear what, and what is kept of it.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// What it knows of Firetower's back side.
    pub fn firetower(&self) -> &FireBack {
        &self.firetower
    }

    /// From now on its manager hears what is published and subscribed to here. There is one in a server's life.
    pub fn set_manager(&self, manager: Arc<ManagerLink>) {
        if self.manager.set(manager.clone()).is_ok() {
            self.topics.watch(manager);
        }
    }

    /// Whether it is a gateway of a manager of Firetower's.
    pub(super) fn is_gateway(&self) -> bool {
        self.manager.get().is_some()
    }

    pub(super) fn manager(&self) -> Option<&ManagerLink> {
        self.manager.get().map(|manager| &**manager)
    }

    pub(super) fn fan_outs(&self) -> &FanOuts {
        &self.fan_outs
    }

    /// None before they are there.
    pub(super) fn threads(&self) -> &[HubThread] {
        self.threads.get().map_or(&[][..], |threads| threads)
    }

    /// What strangers make the server keep.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Lets a test reach the wrap-around of channel ids without registering four billion nodes.
    #[doc(hidden)]
    pub fn set_next_channel_for_test(&self, id: u32) {
        self.next_channel.store(id, Ordering::Relaxed);
    }

    /// Adds what is counted here rather than by a thread.
    pub fn add_counts_to(&self, sum: &mut Counts) {
        sum.data_out += self.data_out.load(Ordering::Relaxed);
        sum.data_out_refused += self.data_out_refused.load(Ordering::Relaxed);
        sum.observer_events_dropped += self.observers.dropped();
        sum.bus_messages_dropped += self.feeds.dropped();
        sum.decisions_ignored += self.decisions.ignored();
        sum.manager_dropped += self.manager().map_or(0, ManagerLink::dropped);
    }

    /// Sends DATA to a node, on its main channel when `channel_id` is 0.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    pub fn send_to(&self, id: &str, payload: &[u8], channel_id: u32) -> Result<(), Refusal> {
        let node = self.node(id).ok_or(Refusal::NoSuchNode)?;
        let has_it = || self.node_of_channel(channel_id).is_some_and(|other| Arc::ptr_eq(&other, &node));
        let channel_id = match channel_id {
            0 => node.channel_id(),
            _ if channel_id == node.channel_id() || has_it() => channel_id,
            _ => return Err(Refusal::NoSuchChannel),
        };
        self.check_len(payload)?;
        let framing = node.link().framing();
        let encode = |dialect| {
            Body::encode(dialect, payload, &self.memory)
                .map(|body| QueuedFrame::new(dialect, FrameType::DATA, channel_id, body).within(framing))
        };
        let frame = match encode(node.link().dialect()) {
            Err(NotUtf8) if node.link().will_speak_v2() => encode(Dialect::V2)?,
            encoded => encoded?,
        };
        if frame.counted_len() > self.limits.max_frame_bytes as usize {
            return Err(Refusal::TooLong);
        }
        self.push(&node, frame)
    }

    /// Says which threads have connections. Until then nobody hears a broadcast.
    pub fn set_threads(&self, threads: Vec<HubThread>) {
        // There is one set of them in a server's life.
        let _ = self.threads.set(threads);
    }

    /// Sends DATA to every node, and returns for how many that was queued: for all who are online, less those whose dialect cannot
    /// carry it and those whose outbox is full. The payload is encoded once per dialect and shared. That is counted, from numbers that
    /// the threads keep: who comes, goes, or is found to be full while it is under way may be counted otherwise than it fares.
    ///
    /// 0 where so much waits to go out to all that no more is taken.
    ///
    /// # Errors
    /// [`Refusal::TooLong`]; [`Refusal::NotUtf8`] when no node's dialect can carry it. Nothing was sent then.
    pub fn broadcast(&self, payload: &[u8]) -> Result<usize, Refusal> {
        self.broadcast_except(payload, &[])
    }

    /// The same to all nodes but those of these ids.
    ///
    /// # Errors
    /// As [`Hub::broadcast`].
    pub fn broadcast_except(&self, payload: &[u8], except: &[&str]) -> Result<usize, Refusal> {
        self.check_len(payload)?;
        let except = self.references(except);
        let (threads, online) = (self.threads(), self.node_count());
        if threads.is_empty() || online == 0 {
            return Ok(0);
        }
        let count = |reads, is_full| threads.iter().map(|thread| thread.counters.reach.count(ReachClass { reads, is_full })).sum::<usize>();
        let of_v2 = count(Reads::V2, false) + count(Reads::V2, true);
        let fan_out = FanOut::new(payload, online > of_v2, of_v2 > 0, self.limits.max_frame_bytes as usize, &self.memory);
        let reached = match fan_out.v1_refusal() {
            None => online.saturating_sub([Reads::V1, Reads::Agreed, Reads::V2].map(|reads| count(reads, true)).iter().sum()),
            Some(refusal) => {
                let agreed = if refusal == Refusal::NotUtf8 { count(Reads::Agreed, false) } else { 0 };
                match agreed + count(Reads::V2, false) {
                    0 => return Err(refusal),
                    reached => reached.min(online),
                }
            }
        };
        let reached = reached.saturating_sub(except.len());
        if self.fan_outs.post(fan_out.except(except), payload.len(), online, self.limits.outbox_bytes, threads) {
            return Ok(reached);
        }
        self.data_out_refused.fetch_add(reached as u64, Ordering::Relaxed);
        Ok(0)
    }

    /// The nodes of these ids that are online, in order, each once.
    pub(super) fn references(&self, ids: &[&str]) -> Box<[NodeRef]> {
        let mut references: Vec<NodeRef> = ids.iter().filter_map(|id| self.node(id)).map(|node| node.reference()).collect();
        references.sort_unstable();
        references.dedup();
        references.into()
    }

    /// Takes a node off the bus; its connection ends unless it has other nodes.
    ///
    /// # Errors
    /// [`Refusal::NoSuchNode`].
    pub fn disconnect(&self, id: &str, counters: &Counters) -> Result<(), Refusal> {
        let node = self.node(id).ok_or(Refusal::NoSuchNode)?;
        if !self.leave(&node, Departure::Disconnected, counters) {
            return Err(Refusal::NoSuchNode);
        }
        node.link().evict(node.reference(), CloseReason::Kicked);
        Ok(())
    }

    /// Forgets what idle addresses left behind. Cheap; to be called now and then.
    pub fn tidy(&self, now: Now) {
        if let Some(limit) = &self.limits.rate_limit {
            self.address_buckets.forget_full(limit, now.mono);
        }
        self.topics.tidy(now);
    }

    fn check_len(&self, payload: &[u8]) -> Result<(), Refusal> {
        if payload.len() > self.limits.max_frame_bytes as usize { Err(Refusal::TooLong) } else { Ok(()) }
    }

    fn push(&self, node: &Arc<Node>, frame: QueuedFrame) -> Result<(), Refusal> {
        let Err(error) = node.link().push(frame, self.limits.outbox_bytes) else {
            self.data_out.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        match error {
            PushError::Full | PushError::ServerFull => {
                self.data_out_refused.fetch_add(1, Ordering::Relaxed);
                // Where it was told already, it is told as well when there is room again.
                if self.wants(EventMask::BUFFER) && !node.is_told_full() {
                    node.link().tell_full();
                }
                Err(if error == PushError::Full { Refusal::OutboxFull } else { Refusal::ServerFull })
            }
            PushError::Closed => Err(Refusal::NoSuchNode),
        }
    }

    pub(super) fn take_address_token(&self, address: IpAddr, limit: &RateLimit, now: Now) -> bool {
        self.address_buckets.take(address, limit, now.mono)
    }

    pub(super) fn put_back_address_token(&self, address: IpAddr) {
        self.address_buckets.put_back(address);
    }

    /// Brings a node online under a fresh channel id, with the members of metadata that its host sets. A node of the same id on another connection is replaced: the newest
    /// connection wins.
    ///
    /// # Errors
    /// The server holds as many nodes as it may, or as much for them; what the host says of it is too long.
    pub(super) fn register(
        &self,
        id: Arc<str>,
        link: &Arc<Link>,
        metadata: Option<Arc<str>>,
        set: Option<&str>,
        counters: &Counters,
        now: Now,
    ) -> Result<Arc<Node>, TooMuch> {
        let node = self.with_channel(|channel_id| Arc::new(Node::new(id.clone(), link.clone(), channel_id, metadata.clone(), now)));
        // It is counted with that once it is there.
        if set.is_some_and(|members| !matches!(node.gate().set_metadata(members, Memory::nobodys()), Ok(Ok(())))) {
            self.nodes.release_channel(node.channel_id(), &node);
            return Err(TooMuch::Metadata);
        }
        // The entry stays locked while both events are told: of two connections that fight for an id, each sees the
        // other's node either not at all or completely, and the host sees one order.
        let mut replaced = None;
        let mut refusal = None;
        let admitted = self.nodes.insert(&node, |older| {
            if !self.has_room_for(node.bytes(), older.map_or(0, |older| older.bytes())) {
                refusal = Some(TooMuch::Bytes);
                return false;
            }
            let count = self.node_count.fetch_add(1, Ordering::Relaxed);
            match older {
                // One comes as one goes: a full server must not keep a node from moving to its new connection.
                Some(older) => replaced = self.tell_departure(older, Departure::Replaced, counters).then(|| older.clone()),
                None if count >= self.limits.max_nodes => {
                    self.node_count.fetch_sub(1, Ordering::Relaxed);
                    refusal = Some(TooMuch::Nodes);
                    return false;
                }
                None => {}
            }
            self.memory.add(Part::Nodes, node.bytes());
            self.tell(EventMask::REGISTER, || Event::Register { node: (&node).into(), count: 1 });
            true
        });
        if let (false, Some(refusal)) = (admitted, refusal) {
            self.nodes.release_channel(node.channel_id(), &node);
            return Err(refusal);
        }
        counters.nodes_registered.up();
        if let Some(older) = replaced {
            self.nodes.release_channel(older.channel_id(), &older);
            older.link().evict(older.reference(), CloseReason::Replaced);
        }
        Ok(node)
    }

    /// Whether the server may keep this much for nodes, instead of `before`.
    pub(super) fn has_room_for(&self, bytes: usize, before: usize) -> bool {
        bytes <= before || self.memory.of(Part::Nodes) + bytes - before <= self.memory.share(Part::Nodes)
    }

    /// Takes a node off the bus unless it left already. A newer node of the same id is not touched.
    pub(super) fn leave(&self, node: &Arc<Node>, how: Departure, counters: &Counters) -> bool {
        if !self.tell_departure(node, how, counters) {
            return false;
        }
        self.nodes.remove(node);
        self.nodes.release_channel(node.channel_id(), node);
        true
    }

    /// Closes the gate behind a node and tells of it, once.
    fn tell_departure(&self, node: &Arc<Node>, how: Departure, counters: &Counters) -> bool {
        let gate = node.gate();
        if !gate.close(how, &self.memory) {
            return false;
        }
        // Counted before it is told: who hears of it finds it in the statistics.
        self.node_count.fetch_sub(1, Ordering::Relaxed);
        match how {
            Departure::Unregistered => counters.nodes_unregistered.up(),
            Departure::TimedOut => counters.nodes_timed_out.up(),
            Departure::Replaced => counters.nodes_replaced.up(),
            Departure::Disconnected => counters.nodes_disconnected.up(),
        }
        self.tell(EventMask::LEFT, || Event::Left { node: node.into(), how, count: 1 });
        drop(gate);
        true
    }

    /// Calls `make` with a channel id that nobody uses, and enters the node under it. Ids only increase, wrap around after
    /// u32, and skip 0 and those in use.
    fn with_channel(&self, make: impl Fn(u32) -> Arc<Node>) -> Arc<Node> {
        loop {
            let id = self.next_channel.fetch_add(1, Ordering::Relaxed);
            if (1..=NodeRef::MAX).contains(&id)
                && let Some(node) = self.nodes.claim_channel(id, || make(id))
            {
                return node;
            }
        }
    }
}
