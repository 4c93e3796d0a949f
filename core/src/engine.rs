//! The engine: a running server, as every binding sees it.
//!
//! Owns nothing but the running threads; decides nothing. Its methods may be called from any thread of the process
//! that started it.

mod answers;
mod topics;

use crate::descriptor;
use crate::error::{Error, ErrorKind};
use crate::event::{Decision, EventMask};
use crate::hub::dispatch::{DispatchLimits, DispatchStats, WorkerId};
use crate::hub::observers::{MAX_OBSERVERS, ObserveRefusal};
use crate::hub::topics::check_rules;
use crate::hub::{Host, Hub, Refusal, Timings};
use crate::inbox::Inbox;
use crate::net::bus::BusServer;
use crate::net::bus::dispatcher::Dispatcher;
use crate::net::bus::socket::{self, BoundSocket};
use crate::net::listen;
use crate::net::manager::ManagerTask;
use crate::net::presence::PresenceTask;
use crate::net::server::Server;
use crate::process;
use crate::settings::{MOST, ProtocolDoor, ServerConfig, check_timeout, check_whole};
use crate::wire::bus::{FRAME_CAP, Welcome};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

pub use crate::hub::topics::{Position, Published};
pub use crate::hub::{Node, NodeInfo, Now, Observed, Observer, ObserverLimits};
pub use crate::model::ConnectionInfo;
pub use crate::stats::{BusStats, Stats};
pub use crate::wire::bus::{LineLevel, LogLine};

/// Room in a frame of the bus socket around the longest message.
const FRAME_SPARE: u32 = 1 << 20;

pub struct Engine {
    running: Arc<RunningEngine>,
    /// The bus has one of its own, to answer with: dropping that stops nothing.
    is_the_hosts: bool,
}

struct RunningEngine {
    server: Server,
    events: Events,
    /// Set once, at the start, if ever.
    bus: OnceLock<BusServer>,
    /// The same of the manager that the server is a gateway of.
    manager: OnceLock<ManagerTask>,
    presence: Arc<PresenceTask>,
    /// The process whose threads these are.
    process: u32,
    /// In Unix microseconds.
    started: Now,
    /// What the host has subscribed to.
    filters: Mutex<HashSet<Box<str>>>,
}

/// Where the events go.
#[derive(Clone)]
enum Events {
    Inbox(Arc<Inbox>),
    Workers(Arc<Dispatcher>),
}

impl Engine {
    /// Checks what the system has no say in.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a setting is wrong.
    pub fn validate(config: &ServerConfig) -> Result<(), Error> {
        config.validate()?;
        let wrong = |(filter, bad)| Error::new(ErrorKind::Config, format!("history: {filter:?} is no filter. {bad}"));
        check_rules(&config.history).map_err(wrong)
    }

    /// Binds the port and starts the I/O threads. Events that `inbox` subscribed to arrive there. With
    /// [`ServerConfig::bus`], other processes may ask from now on; workers are refused.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a setting is wrong; [`ErrorKind::Io`] when the address or the bus socket cannot be
    /// listened on or the system has no descriptor or thread left. Nothing is left running then.
    pub fn start(config: &ServerConfig, inbox: Arc<Inbox>) -> Result<Self, Error> {
        Self::start_with(config, Events::Inbox(inbox))
    }

    /// As [`Engine::start`], but the events go to workers: processes that attach through the bus socket, which `config` must
    /// have. `until_first_join` is what is kept for them before the first of them says what it wants.
    ///
    /// A worker's data that finds no room is refused and counted; reading does not stop for it.
    ///
    /// # Errors
    /// As [`Engine::start`]; `Config` without a bus socket, or for a limit of 0.
    pub fn start_for_workers(config: &ServerConfig, limits: DispatchLimits, until_first_join: EventMask) -> Result<Self, Error> {
        if config.bus.is_none() {
            return Err(Error::new(ErrorKind::Config, "Workers need a bus socket to attach to"));
        }
        let DispatchLimits { events, bytes, drop_oldest: _, batch_events, batch_bytes, batches_in_flight } = limits;
        for (name, value) in [
            ("inbox_events", events),
            ("inbox_bytes", bytes),
            ("batch_events", batch_events),
            ("batch_bytes", batch_bytes),
            ("batches_in_flight", batches_in_flight),
        ] {
            check_whole(name, value as u64, 1, MOST)?;
        }
        Self::start_with(config, Events::Workers(Arc::new(Dispatcher::new(limits, until_first_join))))
    }

    fn start_with(config: &ServerConfig, events: Events) -> Result<Self, Error> {
        Self::validate(config)?;
        descriptor::raise_limit();
        // Callers wait in its queue until the bus thread runs.
        let socket = config.bus.as_ref().map(BoundSocket::bind).transpose()?;
        let host: Arc<dyn Host> = match &events {
            Events::Inbox(inbox) => inbox.clone(),
            Events::Workers(dispatcher) => dispatcher.clone(),
        };
        let server = Server::start(config, host)?;
        let started = server.shared.clock.now();
        let running = RunningEngine {
            presence: PresenceTask::new(&server.shared),
            server,
            events,
            manager: OnceLock::new(),
            bus: OnceLock::new(),
            process: process::id(),
            started,
            filters: Mutex::default(),
        };
        let engine = Self { running: Arc::new(running), is_the_hosts: true };
        if let (Some(config), Some(socket)) = (&config.bus, socket) {
            let dispatcher = match &engine.running.events {
                Events::Inbox(_) => None,
                Events::Workers(dispatcher) => Some(dispatcher.clone()),
            };
            let (service, seen) = (Arc::new(engine.view()), engine.view());
            let name = config.name.clone();
            let introduce = Box::new(move |worker| seen.welcome(&name, worker));
            let shared = &engine.running.server.shared;
            let (clock, memory) = (shared.clock, shared.hub.memory().clone());
            let bus = BusServer::start(socket, service, introduce, dispatcher, Box::new(engine.view()), clock, memory)?;
            engine.running.bus.get_or_init(|| bus);
        }
        if let Some(manager) = ManagerTask::start(config, engine.running.server.shared.clone())? {
            engine.running.manager.get_or_init(|| manager);
        }
        Ok(engine)
    }

    /// Whether a server could start with this configuration now. Starts no thread and leaves nothing behind, so a process
    /// that will fork may ask.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn check(config: &ServerConfig) -> Result<(), Error> {
        Self::validate(config)?;
        if let Some(bus) = &config.bus {
            socket::check(bus)?;
        }
        listen::probe(&config.host, config.port)?;
        let doors = [config.websocket.address(), config.firetower.address()];
        doors.into_iter().flatten().try_for_each(|(host, port)| listen::probe(host, port))
    }

    /// The address that is listened on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.server().local_addr
    }

    /// Where WebSockets come in; `None`: nowhere.
    pub fn websocket_addr(&self) -> Option<SocketAddr> {
        let server = self.server();
        server.websocket_addr.or_else(|| (server.shared.hub.limits().websocket == ProtocolDoor::MainPort).then_some(server.local_addr))
    }

    /// Where Firetower's gateways come in; `None`: nowhere.
    pub fn firetower_addr(&self) -> Option<SocketAddr> {
        let server = self.server();
        server.firetower_addr.or_else(|| (server.shared.hub.limits().firetower == ProtocolDoor::MainPort).then_some(server.local_addr))
    }

    /// Where the events arrive; `None` where workers run the callbacks.
    pub fn inbox(&self) -> Option<&Arc<Inbox>> {
        match &self.running.events {
            Events::Inbox(inbox) => Some(inbox),
            Events::Workers(_) => None,
        }
    }

    /// Sends data to a node, on its main channel when `channel_id` is 0. Returns when it is queued, which is no receipt: what waits
    /// is lost when the connection ends.
    ///
    /// # Errors
    /// `NotFound`: no such node, or the channel is not one of its own. `Limit`: longer than a frame may be, or the node's
    /// outbox is full. `InvalidArgument`: the dialect of
    /// the node cannot carry bytes that are not UTF-8. `Closed`, `WrongProcess`. Nothing has changed then.
    pub fn send_to(&self, node_id: &str, payload: &[u8], channel_id: u32) -> Result<(), Error> {
        self.hub()?.send_to(node_id, payload, channel_id).map_err(refused)
    }

    /// Sends data to every node; returns for how many it was queued: for all who are online, less those whose outbox is full and those
    /// whose dialect cannot carry it. It goes out behind this call; who comes, goes, or has no room any more at that moment may fare
    /// otherwise than it was counted. 0 where more broadcasts wait than may.
    ///
    /// # Errors
    /// As [`Engine::send_to`], where it concerns the payload itself; nothing was sent then.
    pub fn broadcast(&self, payload: &[u8]) -> Result<usize, Error> {
        self.hub()?.broadcast(payload).map_err(refused)
    }

    /// Takes a node off the bus. Its connection is closed, unless it has other nodes.
    ///
    /// # Errors
    /// `NotFound`, `Closed`, `WrongProcess`.
    pub fn disconnect(&self, node_id: &str) -> Result<(), Error> {
        let hub = self.hub()?;
        self.server().with_host_counters(|counters| hub.disconnect(node_id, counters)).map_err(refused)
    }

    pub fn node(&self, node_id: &str) -> Option<Arc<Node>> {
        if self.is_own_process() { self.server().shared.hub.node(node_id) } else { None }
    }

    pub fn node_of_channel(&self, channel_id: u32) -> Option<Arc<Node>> {
        if self.is_own_process() { self.server().shared.hub.node_of_channel(channel_id) } else { None }
    }

    /// The node of a connection, of several the one that registered last. Looks at every node.
    pub fn node_of_connection(&self, connection_id: u64) -> Option<Arc<Node>> {
        if self.is_own_process() { self.server().shared.hub.node_of_connection(connection_id) } else { None }
    }

    /// Says that a node is alive, as a sign of life of its own would. No heartbeat is counted.
    ///
    /// # Errors
    /// `NotFound`, `Closed`, `WrongProcess`.
    pub fn keep_alive(&self, node_id: &str) -> Result<(), Error> {
        self.hub()?.keep_alive(node_id, self.now()).map_err(refused)
    }

    /// Sets members of a node's metadata: `members` is the JSON text of an object. The node hears nothing of it; they stay as long
    /// as it is registered, unless it sends its own of the same name. `channel_id` names one registration of the node, 0
    /// whichever there is.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument`: no object with members; `Limit`: the node's metadata would be longer than 64 KiB. `Closed`,
    /// `WrongProcess`.
    pub fn set_metadata(&self, node_id: &str, channel_id: u32, members: &str) -> Result<(), Error> {
        self.hub()?.set_metadata(node_id, channel_id, members).map_err(refused)
    }

    /// Answers what [`Event::Question`] asks, by its number. What was asked then happens, or is refused; where nobody answers within
    /// `decision_timeout` it is refused.
    ///
    /// # Errors
    /// `NotFound`: it was answered already, or is not waited for any more; that is counted (`decisions_ignored`). `InvalidArgument`: the
    /// metadata is no object with members; `Limit`: it is longer than 64 KiB; the question stays open then. `Closed`, `WrongProcess`.
    ///
    /// [`Event::Question`]: crate::event::Event::Question
    pub fn decide(&self, question: u32, decision: Decision) -> Result<(), Error> {
        self.hub()?.decide(question, decision).map_err(refused)
    }

    /// Somebody who watches, from now on, beside the host: nothing ever waits for it. At its bounds events are dropped, and it is told so
    /// where they are missing. Whoever then looks at the nodes ([`Node::info`] says who is online) misses nothing. It ends with the engine.
    ///
    /// # Errors
    /// `Limit`: [`MAX_OBSERVERS`] watch. `Closed`, `WrongProcess`.
    pub fn observe(&self, kinds: EventMask, limits: ObserverLimits) -> Result<Observer, Error> {
        self.hub()?.observe(kinds, limits).map_err(|refusal| match refusal {
            ObserveRefusal::TooMany => Error::new(ErrorKind::Limit, format!("At most {MAX_OBSERVERS} observers may watch a server")),
            ObserveRefusal::Ended => stopped(),
        })
    }

    pub fn heartbeat_timeout(&self) -> Duration {
        Duration::from_micros(self.server().shared.hub.heartbeat_timeout())
    }

    /// Holds for nodes that register from now on, and for the others from their next check on, which the old one decides.
    ///
    /// # Errors
    /// `Config` for a timeout that [`ServerConfig`] does not allow either; `Closed`, `WrongProcess`.
    pub fn set_heartbeat_timeout(&self, timeout: Duration) -> Result<(), Error> {
        check_timeout("heartbeat_timeout", timeout)?;
        self.hub()?.set_heartbeat_timeout(timeout.as_micros() as u64);
        Ok(())
    }

    /// How long messages took, since the start.
    pub fn timings(&self) -> Timings {
        self.server().timings()
    }

    /// Up to `max` nodes that are online, in no particular order.
    pub fn nodes(&self, max: usize) -> Vec<Arc<Node>> {
        if self.is_own_process() { self.server().shared.hub.some_nodes(max) } else { Vec::new() }
    }

    /// A page of the list of nodes: up to `limit` of them behind `after`, and what `after` is for the next page, `None` when
    /// there is none. The order is stable but has no meaning. However the list changes between two pages, a node id that was
    /// online all the time from the first page to the last is in exactly one of them. Cheap, however many nodes there are.
    pub fn page(&self, after: Option<u64>, limit: usize) -> (Vec<Arc<Node>>, Option<u64>) {
        if self.is_own_process() { self.server().shared.hub.page(after, limit) } else { (Vec::new(), None) }
    }

    /// What `after` is for the page that begins behind this node.
    pub(crate) fn place_of(&self, node: &Node) -> u64 {
        self.server().shared.hub.place_of(node)
    }

    /// Up to `max` open connections, registered or not, in no particular order. The I/O threads are asked, which takes at
    /// most half a second. None once the engine is stopped, or in another process.
    pub fn connections(&self, max: usize) -> Vec<ConnectionInfo> {
        if self.hub().is_ok() { self.server().connections(max) } else { Vec::new() }
    }

    pub fn now(&self) -> Now {
        self.server().shared.clock.now()
    }

    /// In a process that was forked off the engine's: all zero.
    pub fn stats(&self) -> Stats {
        if !self.is_own_process() {
            return Stats::default();
        }
        let server = self.server();
        let shared = &server.shared;
        let memory = shared.hub.memory().stats();
        Stats {
            counts: server.counts(),
            uptime_seconds: (self.now().mono - self.running.started.mono) / 1_000_000,
            nodes_online: shared.hub.node_count(),
            channels_active: shared.hub.channel_count(),
            connections_active: shared.connection_count(),
            topics_active: shared.hub.topics().topic_count() + shared.hub.topics().filter_count(),
            subscriptions_active: shared.hub.topics().subscription_count(),
            history_bytes: shared.hub.topics().history_bytes(),
            max_connections: shared.max_connections,
            io_threads: server.io_threads(),
            buffered_bytes: memory.input + memory.output,
            memory,
            inbox: self.inbox().map(|inbox| inbox.stats()).unwrap_or_default(),
            dispatch: match &self.running.events {
                Events::Inbox(_) => DispatchStats::default(),
                Events::Workers(dispatcher) => dispatcher.stats(),
            },
            bus_clients: self.running.bus.get().map_or(0, BusServer::callers),
        }
    }

    /// Sends a message of this process's log to a worker that takes them, of several always the same one.
    ///
    /// # Errors
    /// The message itself, where no worker takes any.
    pub fn send_log(&self, line: LogLine) -> Result<(), LogLine> {
        match self.running.bus.get() {
            Some(bus) if self.is_own_process() => bus.log().send(line),
            _ => Err(line),
        }
    }

    /// The messages that were sent and that no worker has got.
    pub fn take_back_log(&self) -> Vec<LogLine> {
        self.running.bus.get().filter(|_| self.is_own_process()).map_or_else(Vec::new, |bus| bus.log().take_back())
    }

    /// Accepts no more connections: the port is free from now on. Open ones go on until they end or [`Engine::stop`] is
    /// called; [`Stats::connections_active`] says how many there are.
    pub fn close_door(&self) {
        if self.hub().is_ok() {
            self.server().close_door();
        }
    }

    /// Tells every client that the server is shutting down, writes what waits, closes all connections and ends the
    /// threads, within 1.5 s. What the nodes' leaving has to tell is in the inbox afterwards. Where workers run the
    /// callbacks they are given 2 s more to tell it. Calling it again is harmless.
    pub fn stop(&self) {
        if !self.is_own_process() {
            return;
        }
        if let Some(bus) = self.running.bus.get() {
            bus.begin_stopping();
        }
        self.server().stop();
        self.running.presence.stop();
        if let Some(manager) = self.running.manager.get() {
            manager.stop();
        }
        if let Some(bus) = self.running.bus.get() {
            bus.finish();
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.server().shared.is_stopping()
    }

    /// The engine belongs to this process, not to one that was forked off it.
    pub fn is_own_process(&self) -> bool {
        self.running.process == process::id()
    }

    /// Another face of the same engine, which stops nothing when it is dropped.
    fn view(&self) -> Self {
        Self { running: self.running.clone(), is_the_hosts: false }
    }

    /// What is said over the bus socket before anything is asked.
    fn welcome(&self, name: &str, worker: WorkerId) -> Welcome {
        let max_frame_bytes = self.server().shared.hub.limits().max_frame_bytes;
        let stats = self.stats();
        Welcome {
            name: name.to_owned(),
            package: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.running.started.unix,
            listen: self.local_addr(),
            takes_workers: matches!(self.running.events, Events::Workers(_)),
            worker,
            frame_cap: FRAME_CAP.max(max_frame_bytes + FRAME_SPARE),
            max_frame_bytes,
            max_connections: stats.max_connections as u64,
            io_threads: stats.io_threads as u32,
            heartbeat_timeout: self.heartbeat_timeout().as_micros() as u64,
        }
    }

    fn server(&self) -> &Server {
        &self.running.server
    }

    fn filters(&self) -> MutexGuard<'_, HashSet<Box<str>>> {
        self.running.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hub(&self) -> Result<&Hub, Error> {
        if !self.is_own_process() {
            return Err(Error::wrong_process());
        }
        if self.is_stopped() {
            return Err(stopped());
        }
        Ok(&self.server().shared.hub)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.is_own_process() {
            // The threads do not exist here, so nobody must wait for them or free what they use.
            std::mem::forget(self.running.clone());
        } else if self.is_the_hosts {
            self.stop();
        }
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Closed, "The server is stopped")
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::NoSuchNode => Error::new(ErrorKind::NotFound, "No such node is online"),
        Refusal::NoSuchChannel => Error::new(ErrorKind::NotFound, "The channel is not one of the node's"),
        Refusal::OutboxFull => Error::new(ErrorKind::Limit, "The node's outbox is full"),
        Refusal::ServerFull => Error::new(ErrorKind::Limit, "The server keeps as much for its connections as it may (total_buffer_bytes)"),
        Refusal::TooLong => Error::new(ErrorKind::Limit, "The message is longer than a frame may be"),
        Refusal::NotMetadata => Error::new(ErrorKind::InvalidArgument, "metadata must be a JSON object with members"),
        Refusal::MetadataTooLong => Error::new(
            ErrorKind::Limit,
            format!("The metadata of a node must have at most {} bytes", crate::wire::metadata::MAX_METADATA_LEN),
        ),
        Refusal::NoSuchQuestion => Error::new(ErrorKind::NotFound, "The question was answered, or is not waited for any more"),
        Refusal::OtherQuestion => Error::new(ErrorKind::InvalidArgument, "The question was about something else"),
        Refusal::NotTopic => Error::new(ErrorKind::InvalidArgument, "Nothing can be published under this name"),
        Refusal::NotFilters => Error::new(ErrorKind::InvalidArgument, "What is to be subscribed to must be topics or filters"),
        Refusal::NotUtf8 => Error::new(ErrorKind::InvalidArgument, "The v1 dialect cannot carry bytes that are not UTF-8"),
    }
}
