//! Clients of a bus: any number of them, all on the thread of the engine's tasks.
//!
//! Owns which clients there are. What a client says and when it reconnects is decided by the pure
//! [`ClientMachine`]; each client is one small task ([`task`]) that feeds it and does what it says.
//!
//! A client's machine sits behind a mutex that its task and the host share, so that `send` answers at once. Whoever
//! changes something from outside wakes the task, and the task alone tells events: their order is the machine's.

pub(super) mod dial;
mod kept;
mod task;
mod topics;

use super::resolve::Resolver;
use super::runtime::{Runtime, RuntimeTask, as_of};
use super::{Clock, survive, wait_at_most};
use crate::descriptor;
use crate::error::{Error, ErrorKind};
use crate::event::{ClientEvent, ClientEventKind, ClientEventMask, FleetEvent, Resume};
use crate::hub::Now;
use crate::hub::client::{ClientLog, ClientMachine, ClientRefusal, SocketEnd};
use crate::inbox::Inbox;
use crate::settings::{ClientConfig, check_node_id};
use crate::wire::control::{self, MAX_METADATA_LEN, Register, RegisterError};
use kept::{KeptByAll, KeptByOne};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, yield_now};

pub use crate::hub::client::ClientStats;

/// How long `stop` waits for all clients. A client takes at most one second to flush, then it lingers.
const STOP_TIME: Duration = Duration::from_millis(1300);

/// Any number of clients, telling one inbox.
pub struct Clients {
    fleet: Arc<Fleet>,
    runtime: Runtime,
    running: Mutex<Option<RuntimeTask>>,
}

/// A handle of one client. Dropping it disconnects politely.
pub struct Client {
    shared: Arc<ClientShared>,
}

/// What the clients of one inbox share.
struct Fleet {
    inbox: Arc<Inbox<FleetEvent>>,
    clock: Clock,
    /// The process that they belong to.
    process: u32,
    /// Whose they are in the log.
    origin: u64,
    random: RandomState,
    resolver: Resolver,
    client_log: Arc<ClientLog>,
    members: Mutex<Members>,
    kept: KeptByAll,
    /// The host asked to stop, or a client has left since.
    changed: Notify,
}

#[derive(Default)]
struct Members {
    clients: HashMap<u64, Member>,
    is_stopping: bool,
}

struct Member {
    shared: Arc<ClientShared>,
    task: AbortHandle,
}

/// What a client's task, its handle and the inbox share.
struct ClientShared {
    id: u64,
    fleet: Arc<Fleet>,
    connect_timeout: Duration,
    machine: Mutex<ClientMachine>,
    kept: KeptByOne,
    /// Somebody else than the task used the machine.
    wake: Notify,
}

impl Clients {
    /// Starts the thread. Events that `inbox` subscribed to arrive there.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the system has no descriptor or thread left: those that look host names up are all started here.
    pub fn start(inbox: Arc<Inbox<FleetEvent>>) -> Result<Self, Error> {
        // Each client needs a descriptor, and the usual soft limit of 1,024 is meant for programs that call select().
        descriptor::raise_limit();
        let runtime = Runtime::share()?;
        let fleet = Arc::new(Fleet {
            inbox,
            clock: Clock::start(),
            process: crate::process::id(),
            origin: crate::log::origin(),
            random: RandomState::new(),
            resolver: Resolver::start()?,
            client_log: Arc::default(),
            members: Mutex::default(),
            kept: KeptByAll::default(),
            changed: Notify::new(),
        });
        let served = fleet.clone();
        let running = runtime.run("the clients", move || async move {
            if let Err(why) = survive(served.wait_for_the_end()).await {
                tracing::error!("The end of the clients could not be waited for: {why}");
            }
            served.end_the_rest().await;
            served.client_log.tell_counts();
        });
        let running = running.inspect_err(|_| fleet.resolver.stop())?;
        Ok(Self { fleet, runtime, running: Mutex::new(Some(running)) })
    }

    /// Starts a client. It connects in the background; its events carry the id of the handle.
    ///
    /// # Errors
    /// `Config` when a setting is wrong, `Closed` after `stop`, `WrongProcess`.
    pub fn connect(&self, config: ClientConfig) -> Result<Client, Error> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        if !self.fleet.is_own_process() {
            return Err(Error::wrong_process());
        }
        config.validate()?;
        validate_metadata(&config.metadata, ErrorKind::Config)?;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let now = self.fleet.clock.now();
        let (client_log, seed) = (self.fleet.client_log.clone(), self.fleet.seed(id, now));
        let shared = Arc::new(ClientShared {
            id,
            fleet: self.fleet.clone(),
            connect_timeout: config.connect_timeout,
            machine: Mutex::new(ClientMachine::new(id, config, client_log, seed, now)),
            kept: KeptByOne::default(),
            wake: Notify::new(),
        });
        // Spawning under the lock: `stop` finds a client that is there whole, or refuses it.
        let mut members = self.fleet.members();
        if members.is_stopping {
            return Err(Error::new(ErrorKind::Closed, "The clients are stopped"));
        }
        let task = self.runtime.handle().spawn(as_of(self.fleet.origin, shared.clone().run())).abort_handle();
        members.clients.insert(id, Member { shared: shared.clone(), task });
        Ok(Client { shared })
    }

    /// Clients that are not finished.
    pub fn count(&self) -> usize {
        if self.fleet.is_own_process() { self.fleet.members().clients.len() } else { 0 }
    }

    /// What they keep of what their servers send, and of what waits to be sent, all together: [`ClientConfig::total_buffer_bytes`].
    pub fn bytes_kept(&self) -> usize {
        if self.fleet.is_own_process() { self.fleet.kept.sum() } else { 0 }
    }

    /// Disconnects all clients politely, within 1.5 s. What there is to tell of it is in the inbox
    /// afterwards. Calling it again is harmless.
    pub fn stop(&self) {
        if !self.fleet.is_own_process() {
            return;
        }
        // Held until the end, so that a second caller returns no earlier than the first.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = running.take() else { return };
        let clients: Vec<_> = {
            let mut members = self.fleet.members();
            members.is_stopping = true;
            members.clients.values().map(|member| member.shared.clone()).collect()
        };
        for client in clients {
            client.disconnect();
        }
        self.fleet.changed.notify_one();
        running.wait();
        self.fleet.resolver.stop();
        crate::log::tell_left_out(true);
    }

    /// The clients belong to this process, not to one that was forked off it.
    pub fn is_own_process(&self) -> bool {
        self.fleet.is_own_process()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        if self.fleet.is_own_process() {
            self.stop();
        } else {
            // The thread does not exist here, and there is nothing to release of it.
            std::mem::forget(self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take());
            std::mem::forget(self.runtime.clone());
            std::mem::forget(self.fleet.clone());
        }
    }
}

impl Client {
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// Sends data; a channel id of 0 or less means the client's own channel. Returns when it is queued.
    ///
    /// # Errors
    /// `Closed` when not connected and registered, `Limit` when the outbox is full or the message longer than a frame may
    /// be, `InvalidArgument` when it is not UTF-8 and the server speaks v1 only, `NotFound` for a channel id over 32 bits in
    /// v2, `WrongProcess`.
    pub fn send(&self, payload: &[u8], channel_id: i64) -> Result<(), Error> {
        self.command(|machine, now| machine.send(payload, channel_id, now))
    }

    /// Sends data of one of the client's nodes, on the channel that it has at this moment: unlike a channel id, which is
    /// another one after a reconnect, its id never means another node.
    ///
    /// # Errors
    /// `NotFound` when the client has no such node, `Closed` when it is not registered at this moment; else as [`Client::send`].
    pub fn send_from(&self, node_id: &str, payload: &[u8]) -> Result<(), Error> {
        self.command(|machine, now| machine.send_from(node_id, payload, now))
    }

    /// Sends a heartbeat of one of the client's nodes: with [`ClientConfig::heartbeat_all`] off, they live by these alone, but
    /// for the first.
    ///
    /// # Errors
    /// As [`Client::send_from`].
    pub fn heartbeat(&self, node_id: &str) -> Result<(), Error> {
        self.command(|machine, now| machine.heartbeat(node_id, now))
    }

    /// Has the client carry one more node over its connection, and over each that follows. `metadata` is JSON text, `[]` for
    /// none. `Register` tells its channel; `NodeLost` that the server refused it or took it away, and then it may be added
    /// again.
    ///
    /// # Errors
    /// `InvalidArgument` when the id or the metadata is wrong, or the client has such a node already; `Limit` when it has
    /// [`ClientConfig::max_nodes`]; `Closed` when it will not connect again; `WrongProcess`.
    pub fn add_node(&self, node_id: &str, metadata: &str) -> Result<(), Error> {
        Self::check_node(node_id, metadata)?;
        self.command(|machine, _| machine.add_node(node_id, metadata))
    }

    /// Whether a client could be given such a node, as far as the two tell: for hosts that take nodes before they connect.
    ///
    /// # Errors
    /// `InvalidArgument` when the id or the metadata is wrong.
    pub fn check_node(node_id: &str, metadata: &str) -> Result<(), Error> {
        check_node_id(node_id, ErrorKind::InvalidArgument)?;
        validate_metadata(metadata, ErrorKind::InvalidArgument)
    }

    /// Signs an added node off. Nothing more is told of it, but for what waits in the inbox.
    ///
    /// # Errors
    /// `NotFound` when the client has no such node, `InvalidArgument` for its first, which stays as long as the client;
    /// `WrongProcess`.
    pub fn remove_node(&self, node_id: &str) -> Result<(), Error> {
        self.command(|machine, _| machine.remove_node(node_id))
    }

    /// Sends a PING.
    ///
    /// # Errors
    /// As [`Client::send`]; but it is enough to be connected.
    pub fn ping(&self) -> Result<(), Error> {
        self.command(ClientMachine::ping)
    }

    /// Says goodbye to the server and does not come back: `Close`, where there was a connection, and `Finished` follow.
    pub fn disconnect(&self) {
        if self.is_own_process() {
            self.shared.disconnect();
        }
    }

    /// The id that its first node asks for, as the events of that node carry it: the same `Arc` each time, unless the server gave it
    /// another name. `None` in another process.
    pub fn first_node(&self) -> Option<Arc<str>> {
        if self.is_own_process() { Some(self.shared.machine().first_node().clone()) } else { None }
    }

    /// The id of an added node, as its events carry it: the same `Arc` until the node is removed or lost, and another one when it is
    /// added again. `None` when there is none.
    pub fn added_node(&self, node_id: &str) -> Option<Arc<str>> {
        if self.is_own_process() { self.shared.machine().added_node(node_id) } else { None }
    }

    pub fn is_connected(&self) -> bool {
        self.is_own_process() && self.shared.machine().is_connected()
    }

    /// `None` until the first register reply.
    pub fn node_id(&self) -> Option<Arc<str>> {
        self.stats().node_id
    }

    /// `None` until the first register reply.
    pub fn channel_id(&self) -> Option<u32> {
        self.stats().channel_id
    }

    /// All zero in another process than the client's own. The moment of the last connect is told by the wall clock as it is now: how
    /// long ago it is does not depend on whether that was set meanwhile.
    pub fn stats(&self) -> ClientStats {
        if !self.is_own_process() {
            return ClientStats::default();
        }
        let stats = self.shared.machine().stats();
        let now = self.shared.fleet.clock.now();
        ClientStats { connected_at: stats.connected_mono.map(|mono| now.unix_seconds_of(mono)), ..stats }
    }

    /// The client belongs to this process, not to one that was forked off it.
    pub fn is_own_process(&self) -> bool {
        self.shared.fleet.is_own_process()
    }

    fn command(&self, command: impl FnOnce(&mut ClientMachine, Now) -> Result<(), ClientRefusal>) -> Result<(), Error> {
        if !self.is_own_process() {
            return Err(Error::wrong_process());
        }
        let result = command(&mut self.shared.machine(), self.shared.fleet.clock.now());
        // Also after a refusal: there may be an event to tell.
        self.shared.wake.notify_one();
        result.map_err(refused)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.disconnect();
    }
}

impl Fleet {
    fn is_own_process(&self) -> bool {
        self.process == crate::process::id()
    }

    /// Different for each client of each process, forked ones included.
    fn seed(&self, id: u64, now: Now) -> u64 {
        self.random.hash_one((self.process, now.unix, id))
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, id: u64) {
        let mut members = self.members();
        members.clients.remove(&id);
        if members.is_stopping {
            self.changed.notify_one();
        }
    }

    /// Returns when the host asked to stop and all clients have said goodbye, or had the time to.
    async fn wait_for_the_end(&self) {
        while !self.members().is_stopping {
            self.changed.notified().await;
        }
        let all_left = async {
            while !self.members().clients.is_empty() {
                self.changed.notified().await;
            }
        };
        if !wait_at_most(STOP_TIME, all_left).await {
            tracing::warn!("Some clients could not say goodbye in time");
        }
    }

    /// Cuts off the tasks of those that are left, and tells their end.
    async fn end_the_rest(&self) {
        let rest = {
            let mut members = self.members();
            // Nobody may connect any more, for nothing would come of it.
            members.is_stopping = true;
            std::mem::take(&mut members.clients)
        };
        rest.values().for_each(|member| member.task.abort());
        // Their sockets are closed when they had a turn.
        yield_now().await;
        for Member { shared: client, .. } in rest.into_values() {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                client.with(|machine, now| {
                    machine.disconnect(now);
                    machine.handle_closed(SocketEnd::Closed, now);
                });
            }));
            if ended.is_err() {
                client.give_up();
            }
        }
    }
}

impl Resume for ClientShared {
    fn resume(&self) {
        self.machine().resume(self.fleet.clock.now());
        self.wake.notify_one();
    }
}

impl ClientShared {
    fn machine(&self) -> MutexGuard<'_, ClientMachine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disconnect(&self) {
        self.machine().disconnect(self.fleet.clock.now());
        self.wake.notify_one();
    }

    /// Uses the machine and tells what comes of it.
    fn with<T>(self: &Arc<Self>, work: impl FnOnce(&mut ClientMachine, Now) -> T) -> T {
        let mut machine = self.machine();
        let now = self.fleet.clock.now();
        if self.kept.is_chosen() {
            machine.keeps_too_much();
        }
        let result = work(&mut machine, now);
        let inbox = &self.fleet.inbox;
        while let Some(event) = machine.poll_event(now) {
            if event == ClientEvent::Finished {
                // Before it is told: who hears of it counts the clients that are left.
                self.fleet.leave(self.id);
            }
            if !inbox.wants(ClientEventMask::of(event.kind())) {
                continue;
            }
            let waits_for_room = event.waits_for_room();
            let len = event.payload_len();
            let event = FleetEvent { client_id: self.id, event };
            if !waits_for_room {
                inbox.push_state(event);
                continue;
            }
            // The lock on the machine is held, so that a `resume` comes after the `stall`.
            if let Err(FleetEvent { event, .. }) = inbox.push_data(event, len, self.clone()) {
                machine.stall(event);
            }
        }
        self.count_kept(&machine);
        drop(machine);
        self.fleet.client_log.tell_left_out(now);
        result
    }

    /// Counts what the client keeps now, and has others or itself go if that is too much.
    fn count_kept(&self, machine: &ClientMachine) {
        let excess = self.fleet.kept.count(&self.kept, machine.kept(), machine.settings().total_buffer_bytes);
        if excess > 0 {
            let members = self.fleet.members();
            let clients = members.clients.values().map(|member| (&member.shared.kept, &member.shared));
            kept::relieve(clients, excess, |client| client.wake.notify_one());
        }
    }

    /// Tells the end of a client whose machine is of no use any more.
    fn give_up(&self) {
        self.fleet.leave(self.id);
        if self.fleet.inbox.wants(ClientEventMask::of(ClientEventKind::Finished)) {
            self.fleet.inbox.push_state(FleetEvent { client_id: self.id, event: ClientEvent::Finished });
        }
    }
}

impl Drop for ClientShared {
    fn drop(&mut self) {
        self.fleet.kept.forget(&self.kept);
    }
}

/// The text goes into REGISTER as it is: what comes out again must be the same, or a server could not read it.
fn validate_metadata(text: &str, kind: ErrorKind) -> Result<(), Error> {
    match control::parse_register(&control::register_payload("any", text, 0, 1)) {
        Ok(Register { node_id: Some(_), metadata: Some(read), .. }) if *read == *text.trim() => Ok(()),
        Err(RegisterError::MetadataTooLong) => Err(Error::new(kind, format!("metadata must have at most {MAX_METADATA_LEN} bytes"))),
        _ => Err(Error::new(kind, "metadata must be a JSON object or list")),
    }
}

fn refused(refusal: ClientRefusal) -> Error {
    let kind = match refusal {
        ClientRefusal::NotConnected => ErrorKind::Closed,
        ClientRefusal::OutboxFull | ClientRefusal::TooLong | ClientRefusal::TooManyNodes | ClientRefusal::TooManySubscriptions => {
            ErrorKind::Limit
        }
        ClientRefusal::NotUtf8
        | ClientRefusal::NodeExists
        | ClientRefusal::FirstNode
        | ClientRefusal::BadTopic(_)
        | ClientRefusal::FilterHasNoPosition => ErrorKind::InvalidArgument,
        ClientRefusal::NoSuchChannel | ClientRefusal::NoSuchNode | ClientRefusal::NoSuchSubscription => ErrorKind::NotFound,
    };
    Error::new(kind, refusal.to_string())
}
