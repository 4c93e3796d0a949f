//! `PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient`: one client of a bus, as PHP sees it, and the fleet of all
//! clients of this process.

use crate::arguments;
use crate::callbacks;
use crate::clock::microtime;
use crate::config::{self, Loop};
use crate::declare::Declare;
use crate::exception;
use crate::moments;
use crate::php::{self, Call, Callable, Native, Outcome, bytes, json_decode, map, object, text, value};
use crate::polling::{get_event_stream, poll};
use crate::runtime::{Runtime, Source, is_same};
use crate::workerman::Workerman;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_object_handlers, zend_string};
use ext_php_rs::types::{ZendHashTable, Zval};
use heartbus_core::descriptor::raise_limit;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{ClientEvent, ClientEventMask, FleetEvent};
use heartbus_core::inbox::Inbox;
use heartbus_core::net::client::{Client as Engine, ClientStats, Clients};
use heartbus_core::settings::InboxLimits;
use heartbus_core::text::{nearest, printable};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, OnceLock};

/// Name of the worker that Workerman shows.
const WORKER: &str = "HeartbeatClient";

/// What a script can subscribe to.
#[derive(Copy, Clone)]
enum EventKind {
    Connect,
    Register,
    Heartbeat,
    Data,
    Pong,
    ServerError,
    Error,
    Close,
    NodeLost,
}

/// The kinds by name, in the order of the enum.
const KINDS: [&str; 9] = ["connect", "register", "heartbeat", "data", "pong", "server_error", "error", "close", "node.lost"];

pub(crate) struct Client {
    host: String,
    port: i64,
    config: Zval,
    callbacks: RefCell<[Option<Rc<Callable>>; KINDS.len()]>,
    /// Waits for a loop.
    is_waiting: Cell<bool>,
    /// The engine's client will not come back.
    is_finished: Cell<bool>,
    /// `close` was told, or `disconnect()` called, and no `connect` since.
    is_closed: Cell<bool>,
    /// `connect()` was called meanwhile: to do when it turns out that the engine's client does not come back.
    wants_again: Cell<bool>,
    has_settled_log: Cell<bool>,
    engine: RefCell<Option<Rc<Engine>>>,
    /// Of the engine's clients before this one: `connect()` after `disconnect()` makes another.
    before: RefCell<ClientStats>,
    /// How far the wall clock was ahead of the monotonic one when they were taken.
    ahead_before: Cell<f64>,
    /// Which nodes it carries besides its first, with their metadata, until they are removed or told as lost: before there is an
    /// engine's client, and for the next one.
    nodes: RefCell<BTreeMap<String, String>>,
}

pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(r"PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient")
        .declare("__construct(string $host = '127.0.0.1', int $port = 9501, array $config = [])", construct)
        .declare("connect(): void", connect)
        .declare("disconnect(): void", disconnect)
        .declare("send(string $data, int $channelId = 0): bool", send)
        .declare("ping(): bool", ping)
        .declare("addNode(string $nodeId, array $metadata = []): bool", add_node)
        .declare("removeNode(string $nodeId): bool", remove_node)
        .declare("sendFrom(string $nodeId, string $data): bool", send_from)
        .declare("heartbeat(string $nodeId): bool", heartbeat)
        .declare("on(string $event, callable $callback): void", on)
        .declare("isConnected(): bool", is_connected)
        .declare("getNodeId(): ?string", get_node_id)
        .declare("getChannelId(): ?int", get_channel_id)
        .declare("getStats(): array", get_stats)
        .declare("static run(): void", run)
        .declare("static poll(float $timeout = 0.0): int", poll)
        .declare("static getEventStream()", get_event_stream)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            php::hold::<Client>(class);
        })
        .register()
}

impl Native for Client {
    fn handlers() -> &'static OnceLock<zend_object_handlers> {
        static HANDLERS: OnceLock<zend_object_handlers> = OnceLock::new();
        &HANDLERS
    }

    fn each_value(&self, visit: &mut dyn FnMut(&Zval)) {
        visit(&self.config);
        self.callbacks.borrow().iter().flatten().for_each(|callback| visit(callback.zval()));
    }
}

// ---- methods ----

fn construct(call: &mut Call<'_>) -> Outcome {
    let (mut host, mut port, mut config) = (ptr::null_mut::<zend_string>(), 9501i64, ptr::null_mut::<Zval>());
    arguments!(call, c"|Sla", host, port, config)?;
    let host = if host.is_null() { "127.0.0.1".into() } else { String::from_utf8_lossy(bytes(host)) };
    // SAFETY: an argument of this call, or null when it was left out.
    let config = unsafe { config.as_ref() }.map_or_else(Zval::new_array, |config| config.dereference().shallow_clone());
    let client = Client {
        host: host.into_owned(),
        port,
        config,
        callbacks: RefCell::default(),
        is_waiting: Cell::new(false),
        is_finished: Cell::new(false),
        is_closed: Cell::new(false),
        wants_again: Cell::new(false),
        has_settled_log: Cell::new(false),
        engine: RefCell::default(),
        before: RefCell::default(),
        ahead_before: Cell::default(),
        nodes: RefCell::default(),
    };
    // SAFETY: an object of our class.
    unsafe { php::set_held(call.this(), Rc::new(client)) };
    Ok(())
}

fn connect(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let client = call.held::<Client>()?;
    let this = object(call.this());
    if client.is_waiting.get() || client.is_live() {
        client.wants_again.set(client.is_closed.get());
        return Ok(());
    }
    let runtime = Runtime::current();
    let event_loop = config::client(client.settings())?.event_loop;
    if runtime.is_looping() || matches!(event_loop, Loop::Native | Loop::Manual) {
        return start(&runtime, &this);
    }
    if runtime.join_running_loop(event_loop)? {
        return start(&runtime, &this);
    }
    if matches!(event_loop, Loop::Revolt | Loop::React) || !Workerman::exists(true)? {
        if event_loop == Loop::Workerman {
            return Err(exception::fail(ErrorKind::Config, r"'loop' => 'workerman' needs Workerman: there is no class Workerman\Worker"));
        }
        runtime.join_loop_to_come(event_loop)?;
        return start(&runtime, &this);
    }
    // Workerman is there and does not run yet: `Worker::runAll()` may follow, or `run()`.
    client.is_waiting.set(true);
    runtime.wait(this, start);
    if runtime.wants_client_worker() {
        runtime.workerman.add_worker(WORKER, callbacks::worker_start())?;
    }
    Ok(())
}

fn disconnect(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let client = call.held::<Client>()?;
    if client.is_waiting.replace(false) {
        Runtime::current().stop_waiting(&object(call.this()));
        return Ok(());
    }
    let engine = client.engine.borrow().clone();
    match engine {
        Some(engine) if !engine.is_own_process() => Err(exception::raise(&Error::wrong_process())),
        Some(engine) => {
            client.is_closed.set(true);
            client.wants_again.set(false);
            engine.disconnect();
            Ok(())
        }
        None => Ok(()),
    }
}

fn send(call: &mut Call<'_>) -> Outcome {
    let (mut data, mut channel_id) = (ptr::null_mut::<zend_string>(), 0i64);
    arguments!(call, c"S|l", data, channel_id)?;
    let sent = call.held::<Client>()?.command("send", |engine| engine.send(bytes(data), channel_id))?;
    call.result.set_bool(sent);
    Ok(())
}

fn ping(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let sent = call.held::<Client>()?.command("ping", Engine::ping)?;
    call.result.set_bool(sent);
    Ok(())
}

fn add_node(call: &mut Call<'_>) -> Outcome {
    let (mut node_id, mut metadata) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"S|a", node_id, metadata)?;
    let client = call.held::<Client>()?;
    let node_id = id_of(node_id)?;
    // SAFETY: an argument of this call, or null when it was left out.
    let metadata = unsafe { metadata.as_ref() }.map_or_else(|| Ok("[]".to_owned()), |array| config::metadata(array.dereference()))?;
    let added = client.add_node(node_id, metadata)?;
    call.result.set_bool(added);
    Ok(())
}

fn remove_node(call: &mut Call<'_>) -> Outcome {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let removed = call.held::<Client>()?.remove_node(id_of(node_id)?)?;
    call.result.set_bool(removed);
    Ok(())
}

fn send_from(call: &mut Call<'_>) -> Outcome {
    let (mut node_id, mut data) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<zend_string>());
    arguments!(call, c"SS", node_id, data)?;
    let node_id = id_of(node_id)?;
    let sent = call.held::<Client>()?.command("send", |engine| engine.send_from(node_id, bytes(data)))?;
    call.result.set_bool(sent);
    Ok(())
}

fn heartbeat(call: &mut Call<'_>) -> Outcome {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let node_id = id_of(node_id)?;
    let sent = call.held::<Client>()?.command("heartbeat", |engine| engine.heartbeat(node_id))?;
    call.result.set_bool(sent);
    Ok(())
}

/// A node id among the arguments of a call.
fn id_of<'a>(argument: *const zend_string) -> Outcome<&'a str> {
    std::str::from_utf8(bytes(argument)).map_err(|_| exception::invalid_argument("node_id must be valid UTF-8"))
}

fn on(call: &mut Call<'_>) -> Outcome {
    let (mut event, mut callback) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"Sz", event, callback)?;
    let client = call.held::<Client>()?;
    let callback = Rc::new(Callable::new(callback, 2)?);
    if let Some(place) = KINDS.iter().position(|name| name.as_bytes() == bytes(event)) {
        let _replaced = client.callbacks.borrow_mut()[place].replace(callback);
        return Ok(());
    }
    // As in the original, an unknown name is accepted, and never fires.
    let given = String::from_utf8_lossy(bytes(event));
    let meant = nearest(&given, KINDS).map(|meant| format!("; did you mean '{meant}'?"));
    client.settle_log();
    config::tell_unknown(&[format!(
        "A client has no event '{}': its callback is never called{}",
        printable(&given),
        meant.unwrap_or_default()
    )]);
    Ok(())
}

fn is_connected(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let client = call.held::<Client>()?;
    call.result.set_bool(client.stats().connected);
    Ok(())
}

fn get_node_id(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let client = call.held::<Client>()?;
    *call.result = client.stats().node_id.map_or_else(Zval::null, |id| text(&*id));
    Ok(())
}

fn get_channel_id(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let client = call.held::<Client>()?;
    *call.result = client.stats().channel_id.map_or_else(Zval::null, |id| value(i64::from(id)));
    Ok(())
}

fn get_stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let stats = call.held::<Client>()?.stats();
    let channels = i64::from(stats.connected && stats.channel_id.is_some());
    *call.result = map([
        ("connected", value(stats.connected)),
        ("node_id", stats.node_id.map_or_else(Zval::null, |id| text(&*id))),
        ("channel_id", stats.channel_id.map_or_else(Zval::null, |id| value(i64::from(id)))),
        ("messages_sent", value(stats.messages_sent as i64)),
        ("messages_received", value(stats.messages_received as i64)),
        ("reconnect_attempts", value(i64::from(stats.reconnect_attempts))),
        ("uptime", stats.connected_at.map_or_else(|| value(0i64), |at| value((microtime() - at).max(0.0)))),
        ("channels", value(channels)),
        ("nodes", value(stats.nodes as i64)),
        ("reads_paused", value(stats.reads_paused as i64)),
        ("frames_refused", value(stats.frames_refused as i64)),
        ("bytes_waiting", value(stats.bytes_waiting as i64)),
        ("bytes_kept", value(stats.bytes_kept as i64)),
    ]);
    Ok(())
}

fn run(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let runtime = Runtime::current();
    runtime.check_not_inside("HeartbeatClient::run()")?;
    runtime.run(|| Ok(()), &|| !runtime.has_clients())
}

// ---- behaviour ----

/// Starts a client's connection on the thread of all clients.
fn start(runtime: &Runtime, object: &Zval) -> Outcome {
    let Some(client) = client_of(object) else { return Ok(()) };
    client.is_waiting.set(false);
    let stats = client.stats();
    let node_id = stats.node_id.as_ref().map(ToString::to_string);
    let settings = config::client(client.settings())?;
    let config = config::client_engine(&client.host, client.port, client.settings(), node_id)?;
    raise_limit();
    client.has_settled_log.set(true);
    settings.log.apply().and_then(|()| runtime.watch_log()).map_err(|error| exception::raise(&error))?;
    config::tell_unknown(&settings.unknown);
    let fleet = fleet(runtime)?;
    let engine = fleet.clients.connect(config).map_err(|error| exception::raise(&error))?;
    for (node_id, metadata) in client.nodes.borrow().iter() {
        if let Err(error) = engine.add_node(node_id, metadata) {
            tracing::warn!(node_id, "Cannot add node: {error}");
        }
    }
    fleet.members.borrow_mut().insert(engine.id(), object.shallow_clone());
    *client.before.borrow_mut() = stats;
    client.ahead_before.set(moments::ahead());
    *client.engine.borrow_mut() = Some(Rc::new(engine));
    client.is_finished.set(false);
    client.is_closed.set(false);
    Ok(())
}

fn client_of(object: &Zval) -> Option<Rc<Client>> {
    let object = ptr::from_ref(object.object()?).cast_mut();
    // SAFETY: only objects of our class get here.
    unsafe { php::held::<Client>(object) }
}

impl Client {
    fn settings(&self) -> &ZendHashTable {
        self.config.array().expect("PHP checked that it is an array")
    }

    /// Before there is something to say: the client's settings of the log hold from its first word on. A wrong one is told by
    /// `connect()`.
    fn settle_log(&self) {
        if !self.has_settled_log.replace(true) {
            let _ = config::log(self.settings()).apply();
        }
    }

    /// Connected, connecting, or between two attempts.
    fn is_live(&self) -> bool {
        !self.is_finished.get() && self.engine.borrow().as_ref().is_some_and(|engine| engine.is_own_process())
    }

    fn stats(&self) -> ClientStats {
        let before = self.before.borrow();
        let stats = self.engine.borrow().as_ref().map(|engine| engine.stats()).unwrap_or_default();
        ClientStats {
            node_id: stats.node_id.or_else(|| before.node_id.clone()),
            channel_id: stats.channel_id.or(before.channel_id),
            messages_sent: stats.messages_sent + before.messages_sent,
            messages_received: stats.messages_received + before.messages_received,
            reads_paused: stats.reads_paused + before.reads_paused,
            frames_refused: stats.frames_refused + before.frames_refused,
            connected_at: stats.connected_at.or_else(|| Some(before.connected_at? - self.ahead_before.get() + moments::ahead())),
            ..stats
        }
    }

    fn command(&self, verb: &str, command: impl FnOnce(&Engine) -> std::result::Result<(), Error>) -> Outcome<bool> {
        let engine = self.engine.borrow().clone();
        let Some(engine) = engine else {
            self.settle_log();
            tracing::error!("Cannot {verb}: Not connected to server");
            return Ok(false);
        };
        match command(&engine) {
            Ok(()) => Ok(true),
            Err(error) if error.kind == ErrorKind::WrongProcess => Err(exception::raise(&error)),
            // The engine has said why in the log.
            Err(_) => Ok(false),
        }
    }

    /// False when there is such a node already, or no room for it.
    fn add_node(&self, node_id: &str, metadata: String) -> Outcome<bool> {
        Engine::check_node(node_id, &metadata).map_err(|error| exception::raise(&error))?;
        let engine = self.engine.borrow().clone();
        if engine.as_ref().is_some_and(|engine| !engine.is_own_process()) {
            return Err(exception::raise(&Error::wrong_process()));
        }
        // If the engine has lost it already, the script will hear of that, and may add it then.
        if self.nodes.borrow().contains_key(node_id) {
            return Ok(false);
        }
        let added = engine.map_or(Err(ErrorKind::Closed), |engine| engine.add_node(node_id, &metadata).map_err(|error| error.kind));
        match added {
            Ok(()) => {}
            // It waits for the next `connect()`.
            Err(ErrorKind::Closed) if self.nodes.borrow().len() + 1 < config::client_nodes(self.settings())? => {}
            Err(ErrorKind::Closed | ErrorKind::Limit) => {
                self.settle_log();
                tracing::error!("Cannot add node: The client has as many nodes as it may");
                return Ok(false);
            }
            // The client's first is one of that id.
            Err(_) => return Ok(false),
        }
        self.nodes.borrow_mut().insert(node_id.to_owned(), metadata);
        Ok(true)
    }

    /// False when there is no such node, or it is the client's first.
    fn remove_node(&self, node_id: &str) -> Outcome<bool> {
        let engine = self.engine.borrow().clone();
        let removed = match engine.map(|engine| engine.remove_node(node_id)) {
            Some(Err(error)) if error.kind == ErrorKind::WrongProcess => return Err(exception::raise(&error)),
            removed => matches!(removed, Some(Ok(()))),
        };
        Ok(self.nodes.borrow_mut().remove(node_id).is_some() || removed)
    }

    fn call<const N: usize>(&self, kind: EventKind, arguments: impl FnOnce() -> [Zval; N]) -> Outcome<bool> {
        let callback = self.callbacks.borrow()[kind as usize].clone();
        match callback {
            Some(callback) => callback.call(arguments()).map(|_| true),
            None => Ok(false),
        }
    }

    fn tell(&self, event: ClientEvent) -> Outcome<bool> {
        match &event {
            ClientEvent::Connect => {
                self.is_closed.set(false);
                self.wants_again.set(false);
            }
            ClientEvent::Close { .. } => self.is_closed.set(true),
            ClientEvent::NodeLost { node_id, .. } => drop(self.nodes.borrow_mut().remove(&**node_id)),
            _ => {}
        }
        match event {
            ClientEvent::Connect => self.call(EventKind::Connect, || []),
            ClientEvent::Register { node_id, channel_id } => {
                self.call(EventKind::Register, || [text(&*node_id), value(i64::from(channel_id))])
            }
            ClientEvent::Heartbeat { .. } => self.call(EventKind::Heartbeat, || []),
            ClientEvent::Data { payload, channel_id, node_id: _ } => self.call(EventKind::Data, || [text(payload), value(channel_id)]),
            ClientEvent::Pong => self.call(EventKind::Pong, || []),
            ClientEvent::ServerError { raw, .. } => self.call(EventKind::ServerError, || {
                let decoded = json_decode(&raw);
                [if decoded.is_array() { decoded } else { Zval::null() }]
            }),
            ClientEvent::Error { code, message, cause } => {
                self.call(EventKind::Error, || [value(i64::from(code)), text(message), text(cause.as_str())])
            }
            ClientEvent::Close { reason, detail } => self.call(EventKind::Close, || [text(reason.as_str()), text(detail)]),
            ClientEvent::NodeLost { node_id, channel_id, code, message } => {
                self.call(EventKind::NodeLost, || [text(&*node_id), value(i64::from(channel_id)), value(code), text(message)])
            }
            ClientEvent::Finished => Ok(false),
        }
    }
}

/// All clients of this process: one thread and one inbox.
struct Fleet {
    clients: Clients,
    inbox: Arc<Inbox<FleetEvent>>,
    pending: RefCell<VecDeque<FleetEvent>>,
    /// The PHP objects of the clients that are not finished, by the id of the engine's client. They live until then,
    /// as in the original: a script need not keep a client that has callbacks.
    members: RefCell<HashMap<u64, Zval>>,
}

impl Fleet {
    fn start() -> std::result::Result<Self, Error> {
        let inbox = Inbox::new(InboxLimits::default())?;
        inbox.subscribe(ClientEventMask::ALL);
        let clients = Clients::start(inbox.clone())?;
        Ok(Self { clients, inbox, pending: RefCell::default(), members: RefCell::default() })
    }

    fn connected(&self) -> usize {
        self.members.borrow().values().filter_map(client_of).filter(|client| client.stats().connected).count()
    }

    /// A client of the engine's will not come back.
    fn finish(&self, runtime: &Runtime, client_id: u64) -> Outcome {
        // Dropped at the end, with no borrow held: it may be the last of its object.
        let object = self.members.borrow_mut().remove(&client_id);
        let Some((object, client)) = object.and_then(|object| client_of(&object).map(|client| (object, client))) else { return Ok(()) };
        if client.engine.borrow().as_ref().is_none_or(|engine| engine.id() != client_id) {
            return Ok(());
        }
        client.is_finished.set(true);
        if client.wants_again.replace(false) { start(runtime, &object) } else { Ok(()) }
    }
}

thread_local! {
    /// The runtime has it, and ends it.
    static FLEET: RefCell<Weak<Fleet>> = const { RefCell::new(Weak::new()) };
}

/// The fleet of this process, if there is one: a forked child has another than its parent.
fn started_fleet(runtime: &Runtime) -> Option<Rc<Fleet>> {
    let clients = runtime.clients()?;
    FLEET.with_borrow(Weak::upgrade).filter(|fleet| is_same(&**fleet, &*clients))
}

/// Started by the first client that needs it.
fn fleet(runtime: &Runtime) -> Outcome<Rc<Fleet>> {
    if let Some(fleet) = started_fleet(runtime) {
        return Ok(fleet);
    }
    let start = || {
        let fleet = Rc::new(Fleet::start()?);
        runtime.watch(fleet.inbox.as_fd())?;
        Ok(fleet)
    };
    let fleet = start().map_err(|error| exception::raise(&error))?;
    FLEET.set(Rc::downgrade(&fleet));
    runtime.set_clients(fleet.clone());
    Ok(fleet)
}

/// Clients of this process that are connected.
pub(crate) fn connected(runtime: &Runtime) -> usize {
    started_fleet(runtime).map_or(0, |fleet| fleet.connected())
}

impl Source for Fleet {
    fn pending(&self) -> usize {
        self.pending.borrow().len()
    }

    fn refill(&self, max: usize) -> Outcome {
        self.inbox.drain(&mut self.pending.borrow_mut(), max);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.members.borrow().is_empty()
    }

    /// Every client says goodbye; nothing is told any more.
    fn shut_down(&self) {
        self.clients.stop();
        drop(self.members.take());
    }

    fn tell_next(&self, runtime: &Runtime) -> Outcome<bool> {
        let event = self.pending.borrow_mut().pop_front();
        let Some(FleetEvent { client_id, event }) = event else { return Ok(false) };
        if event == ClientEvent::Finished {
            return self.finish(runtime, client_id).map(|()| false);
        }
        // Held while its callback runs, whatever that does.
        let object = self.members.borrow().get(&client_id).map(Zval::shallow_clone);
        object.and_then(|object| client_of(&object)).map_or(Ok(false), |client| client.tell(event))
    }
}
