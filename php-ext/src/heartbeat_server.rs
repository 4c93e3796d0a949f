//! `PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer`: the engine as PHP sees it.

use crate::arguments;
use crate::backend::Backend;
use crate::classes::invoke;
use crate::config::{self, Loop};
use crate::declare::Declare;
use crate::exception;
use crate::host::{Host, Source, Watcher};
use crate::live::Views;
use crate::php::{self, Call, Callable, Native, Outcome, Thrown, bytes, map, object, text, value};
use crate::shim;
use crate::statistics;
use crate::timers::Timers;
use crate::workerman::{ServerClosures, WorkerClosures, Workerman};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object, zend_object_handlers, zend_string};
use ext_php_rs::types::{ZendHashTable, Zval};
use heartbus_core::bus;
use heartbus_core::config::{BusConfig, ServerConfig};
use heartbus_core::engine::Engine;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::EventMask;
use heartbus_core::hub::dispatch::DispatchLimits;
use heartbus_core::inbox::Inbox;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::path::PathBuf;
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

mod socket;
mod telling;
mod worker;

use telling::Pending;

const NAME: &str = r"PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer";

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

/// Name of the worker that Workerman shows.
pub const WORKER: &str = "HeartbeatServer";

/// How long a stop goes on telling what had happened before it.
const TELLING_TIME: Duration = Duration::from_secs(2);

/// A worker waits for its engine to tell the clients as well, which takes up to 1.5 s. It stays under the 5 s after which
/// Workerman kills.
const WORKER_TELLING_TIME: Duration = Duration::from_millis(3800);

/// A worker that is told to stop sees within this time that its engine stops too; else it goes alone.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a script can subscribe to.
#[derive(Copy, Clone, PartialEq)]
enum Kind {
    Connect,
    Register,
    Heartbeat,
    Data,
    DataBatch,
    Unregister,
    Timeout,
    Replaced,
    Disconnected,
    Close,
    Start,
    Stop,
}
use Kind::*;

/// The kinds by name, in the order of the enum, and what the inbox must be asked for.
const KINDS: [(&str, Kind, EventMask); 12] = [
    ("connect", Connect, EventMask::CONNECT),
    ("register", Register, EventMask::REGISTER),
    ("heartbeat", Heartbeat, EventMask::HEARTBEAT),
    ("data", Data, EventMask::DATA),
    ("data.batch", DataBatch, EventMask::DATA),
    ("unregister", Unregister, EventMask::LEFT),
    ("timeout", Timeout, EventMask::LEFT),
    ("replaced", Replaced, EventMask::LEFT),
    ("disconnected", Disconnected, EventMask::LEFT),
    ("close", Close, EventMask::CLOSE),
    ("start", Start, EventMask::NONE),
    ("stop", Stop, EventMask::NONE),
];

#[derive(Copy, Clone, Debug, PartialEq)]
enum State {
    Idle,
    Running,
    /// A worker whose engine is not there: it is not there yet, or starts anew.
    Away,
    /// The engine stops, or this worker leaves it; what was said last is still to be told.
    Stopping,
}

/// What a process has of a server.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Role {
    /// The engine and its callbacks.
    Whole,
    /// The engine; its callbacks run in workers.
    Engine,
    /// Callbacks of the engine next door.
    Worker,
}

pub struct Server {
    host: String,
    port: i64,
    config: config::Server,
    callbacks: RefCell<[Option<Rc<Callable>>; KINDS.len()]>,
    pub timers: Timers,
    state: Cell<State>,
    /// While it stops: when callbacks have had their time, and what is not told yet is dropped.
    tell_until: Cell<Option<Instant>>,
    role: Cell<Role>,
    /// The last one that was started, or attached to; it keeps its numbers after its end.
    engine: RefCell<Option<Rc<Backend>>>,
    /// Of an engine in this process.
    inbox: RefCell<Option<Arc<Inbox>>>,
    pending: RefCell<VecDeque<Pending>>,
    /// Of the event whose callback runs: its number, and whether it may have been told before.
    told: Cell<Option<(u64, bool)>>,
    /// Events taken out of the inbox so far.
    sequence: Cell<u64>,
    /// A worker took out as many events as it wanted at once.
    may_have_more: Cell<bool>,
    /// A worker's batch, and how many of its events were begun; none when it was acknowledged.
    seen: Cell<Option<(u64, u32)>>,
    /// The batch and the place of the event whose callback runs, of several inside each other the outermost.
    telling: Cell<Option<(u64, u32)>>,
    /// The batch and the place of the event that came last.
    last_place: Cell<(u64, u32)>,
    /// A worker's batch that was told and not acknowledged yet.
    finished_batch: Cell<Option<u64>>,
    /// Events that a worker got put together with others.
    coalesced: Cell<u64>,
    /// When a worker that was told to stop leaves an engine that goes on.
    leave_at: Cell<Option<Instant>>,
    /// When a worker looks for its engine again.
    retry_at: Cell<Option<Instant>>,
    /// The bus socket, once it is chosen: before Workerman forks, so that all its processes agree.
    bus_path: RefCell<Option<PathBuf>>,
    /// Workerman's workers were made by `start()`, for this server alone.
    owns_worker: Cell<bool>,
    /// What PHP holds of its nodes and channels.
    pub views: Views,
    /// Itself.
    me: OnceCell<Weak<Server>>,
}

pub fn register() -> Result<()> {
    ClassBuilder::new(NAME)
        .declare("__construct(string $host = '0.0.0.0', int $port = 9501, array $config = [])", construct)
        .declare("start(): void", start)
        .declare("stop(): void", stop)
        .declare("on(string $event, callable $callback): void", on)
        .declare("every(float $seconds, callable $callback): int", every)
        .declare("cancel(int $timerId): bool", cancel)
        .declare("sendTo(string $nodeId, string $data, int $channelId = 0): bool", send_to)
        .declare("broadcast(string $data): int", broadcast)
        .declare("disconnect(string $nodeId): bool", disconnect)
        .declare("poll(float $timeout = 0.0): int", poll)
        .declare("getEventStream()", get_event_stream)
        .declare("getStats(): array", get_stats)
        .declare(r"getNodeManager(): PfinalClub\AsyncioHeartbeat\Node\NodeManager", get_node_manager)
        .declare(r"getChannelScheduler(): PfinalClub\AsyncioHeartbeat\Channel\ChannelScheduler", get_channel_scheduler)
        .declare(r"onMessage(Workerman\Connection\TcpConnection $connection, string $data): void", on_message)
        .declare("event(): array", event)
        .declare("private checkStart(): void", check_start)
        .declare("private startWhole(): void", start_whole)
        .declare("private startEngine(): void", start_engine)
        .declare("private startWorker(): void", start_worker)
        .declare("private stopHere(bool $leaves = false): void", stop_here)
        .declare("private isBusy(): bool", is_busy)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            php::hold::<Server>(class);
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

impl Native for Server {
    fn handlers() -> &'static OnceLock<zend_object_handlers> {
        static HANDLERS: OnceLock<zend_object_handlers> = OnceLock::new();
        &HANDLERS
    }

    fn each_value(&self, visit: &mut dyn FnMut(&Zval)) {
        self.callbacks.borrow().iter().flatten().for_each(|callback| visit(callback.zval()));
        self.timers.each_value(visit);
        self.views.each_value(visit);
    }
}

// ---- methods ----

fn construct(call: &mut Call) -> Outcome {
    let (mut host, mut port, mut config) = (ptr::null_mut::<zend_string>(), 9501i64, ptr::null_mut::<Zval>());
    arguments!(call, c"|Sla", host, port, config)?;
    let host = if host.is_null() { "0.0.0.0".into() } else { String::from_utf8_lossy(bytes(host)) };
    let none = ZendHashTable::new();
    // SAFETY: an argument of this call, or null when it was left out.
    let config = unsafe { config.as_ref() }.and_then(Zval::array).unwrap_or(&none);
    let server = Server {
        config: config::server(&host, port, config)?,
        host: host.into_owned(),
        port,
        callbacks: RefCell::default(),
        timers: Timers::default(),
        state: Cell::new(State::Idle),
        tell_until: Cell::new(None),
        role: Cell::new(Role::Whole),
        engine: RefCell::default(),
        inbox: RefCell::default(),
        pending: RefCell::default(),
        told: Cell::new(None),
        sequence: Cell::new(0),
        may_have_more: Cell::new(false),
        seen: Cell::new(None),
        telling: Cell::new(None),
        last_place: Cell::new((0, 0)),
        finished_batch: Cell::new(None),
        coalesced: Cell::new(0),
        leave_at: Cell::new(None),
        retry_at: Cell::new(None),
        bus_path: RefCell::default(),
        owns_worker: Cell::new(false),
        views: Views::default(),
        me: OnceCell::new(),
    };
    let server = Rc::new(server);
    let _ = server.me.set(Rc::downgrade(&server));
    // SAFETY: an object of our class.
    unsafe { php::set_held(call.this(), server) };
    Ok(())
}

fn start(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let (server, this) = (call.held::<Server>()?, call.this());
    check_cli("HeartbeatServer::start()")?;
    server.check_process()?;
    let host = Host::current();
    let event_loop = server.config.event_loop;
    if host.is_looping() || event_loop == Loop::Manual || event_loop != Loop::Native && host.join_running_loop(event_loop)? {
        return server.launch(&host, this);
    }
    if matches!(event_loop, Loop::Revolt | Loop::React) {
        host.join_loop_to_come(event_loop)?;
        return server.launch(&host, this);
    }
    if event_loop != Loop::Native && Workerman::exists(true)? {
        return server.start_workerman(&host, this);
    }
    if event_loop == Loop::Workerman {
        return Err(exception::fail(ErrorKind::Config, r"'loop' => 'workerman' needs Workerman: there is no class Workerman\Worker"));
    }
    host.run(|| server.launch(&host, this), &|| server.state.get() == State::Idle)
}

/// A server of this class that nobody has callbacks for, until a signal stops it.
pub fn run_alone(arguments: [Zval; 3]) -> Outcome {
    check_cli(r"Heartbus\Host::run()")?;
    let mut server = Zval::new();
    // SAFETY: the class is registered and can be instantiated.
    unsafe { shim::object_init_ex(&raw mut server, CLASS.load(Ordering::Relaxed)) };
    invoke(&server, c"__construct", arguments)?;
    let this = server.object().map_or(ptr::null_mut(), |object| ptr::from_ref(object).cast_mut());
    // SAFETY: an object of our class, and constructed.
    let Some(server) = (unsafe { php::held::<Server>(this) }) else { return Err(Thrown) };
    let host = Host::current();
    host.check_not_inside(r"Heartbus\Host::run()")?;
    host.run(|| server.launch(&host, this), &|| server.state.get() == State::Idle)
}

fn check_cli(call: &str) -> Outcome {
    // SAFETY: asks PHP for its name of itself.
    if unsafe { shim::heartbus_is_cli() } {
        return Ok(());
    }
    // SAFETY: a text that lives as long as PHP.
    let sapi = unsafe { CStr::from_ptr(shim::heartbus_sapi()) }.to_string_lossy();
    Err(exception::fail(ErrorKind::Config, format!("{call} needs the PHP CLI; this is {sapi}")))
}

/// Throws when the server could not start now. It runs in Workerman's master: nothing may be left behind there, but the
/// choice of the bus socket, which all its processes share.
fn check_start(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    let check = || {
        server.config.log.apply()?;
        server.choose_bus_path(server.php_workers() > 0)?;
        Engine::check(&server.config.engine)
    };
    check().map_err(|error| exception::raise(&error))
}

/// In the one worker of Workerman's that has everything.
fn start_whole(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let (server, this) = (call.held::<Server>()?, call.this());
    let host = Host::current();
    host.be_watched_by(Watcher::Workerman)?;
    server.launch(&host, this)
}

/// In the worker of Workerman's that has the engine.
fn start_engine(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let (server, this) = (call.held::<Server>()?, call.this());
    let host = Host::current();
    host.be_watched_by(Watcher::Workerman)?;
    server.launch_engine(&host, this)
}

/// In a worker of Workerman's that runs callbacks.
fn start_worker(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let (server, this) = (call.held::<Server>()?, call.this());
    let host = Host::current();
    host.be_watched_by(Watcher::Workerman)?;
    server.role.set(Role::Worker);
    server.state.set(State::Away);
    host.add_server(server.clone(), object(this));
    server.look_for_engine(&host)
}

/// The end of a worker of Workerman's. One that `leaves` is replaced: its engine goes on.
fn stop_here(call: &mut Call) -> Outcome {
    let mut leaves = false;
    arguments!(call, c"|b", leaves)?;
    let server = call.held::<Server>()?;
    let host = Host::current();
    server.begin_stop(&host);
    if leaves {
        server.leave_at.set(Some(Instant::now()));
    }
    server.finish_stop(&host)
}

/// Whether a worker of Workerman's that stops gracefully has something to wait for: its engine has connections.
fn is_busy(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    call.result.set_bool(server.state.get() == State::Running);
    Ok(())
}

fn stop(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    server.check_process()?;
    if server.state.get() != State::Running {
        return Ok(());
    }
    let host = Host::current();
    if server.owns_worker.get() && host.watcher() == Watcher::Workerman {
        return host.workerman.stop_all();
    }
    server.begin_stop(&host);
    if host.is_looping() || host.is_pumping() {
        // Inside a callback: the loop tells the rest when the callback has returned.
        return Ok(());
    }
    server.finish_stop(&host)
}

fn on(call: &mut Call) -> Outcome {
    let (mut event, mut callback) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"Sz", event, callback)?;
    let server = call.held::<Server>()?;
    let callback = Rc::new(Callable::new(callback, 2)?);
    let Some(place) = KINDS.iter().position(|(name, ..)| name.as_bytes() == bytes(event)) else {
        let known = KINDS.map(|(name, ..)| name).join(", ");
        return Err(exception::invalid_argument(&format!("Unknown event: {} (there are: {known})", String::from_utf8_lossy(bytes(event)))));
    };
    let _replaced = {
        let mut callbacks = server.callbacks.borrow_mut();
        // Two ways to be told the same: each message is told once.
        let other = match KINDS[place].1 {
            Data => callbacks[DataBatch as usize].take(),
            DataBatch => callbacks[Data as usize].take(),
            _ => None,
        };
        (callbacks[place].replace(callback), other)
    };
    server.resubscribe();
    Ok(())
}

fn every(call: &mut Call) -> Outcome {
    let (mut seconds, mut callback) = (0f64, ptr::null_mut::<Zval>());
    arguments!(call, c"dz", seconds, callback)?;
    let server = call.held::<Server>()?;
    let callback = Rc::new(Callable::new(callback, 2)?);
    // A tick of one microsecond at least: a timer that is always due would starve everything else.
    if !(1e-6..=1e9).contains(&seconds) {
        return Err(exception::invalid_argument(&format!("every() needs a number of seconds greater than 0, {seconds} given")));
    }
    let id = server.timers.add(Duration::from_secs_f64(seconds), callback);
    if server.state.get() == State::Running {
        server.run_timers(&Host::current());
    }
    call.result.set_long(id);
    Ok(())
}

fn cancel(call: &mut Call) -> Outcome {
    let mut id = 0i64;
    arguments!(call, c"l", id)?;
    let server = call.held::<Server>()?;
    call.result.set_bool(server.timers.cancel(id));
    Ok(())
}

fn send_to(call: &mut Call) -> Outcome {
    let (mut node_id, mut data, mut channel_id) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<zend_string>(), 0i64);
    arguments!(call, c"SS|l", node_id, data, channel_id)?;
    let server = call.held::<Server>()?;
    let sent = server.ask(|engine| {
        let node_id = node_name(node_id)?;
        let channel_id = u32::try_from(channel_id).map_err(|_| Error::new(ErrorKind::NotFound, "No such channel"))?;
        engine.send_to(node_id, bytes(data), channel_id)
    })?;
    call.result.set_bool(sent.is_some());
    Ok(())
}

fn broadcast(call: &mut Call) -> Outcome {
    let mut data = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", data)?;
    let server = call.held::<Server>()?;
    let sent = server.ask(|engine| engine.broadcast(bytes(data)))?;
    call.result.set_long(sent.unwrap_or_default() as i64);
    Ok(())
}

fn disconnect(call: &mut Call) -> Outcome {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let server = call.held::<Server>()?;
    let done = server.ask(|engine| engine.disconnect(node_name(node_id)?))?;
    call.result.set_bool(done.is_some());
    Ok(())
}

fn node_name<'a>(node_id: *const zend_string) -> std::result::Result<&'a str, Error> {
    std::str::from_utf8(bytes(node_id)).map_err(|_| Error::new(ErrorKind::NotFound, "No such node is online"))
}

pub fn poll(call: &mut Call) -> Outcome {
    let mut timeout = 0f64;
    arguments!(call, c"|d", timeout)?;
    let timeout = Duration::try_from_secs_f64(timeout.min(1e9)).unwrap_or_default();
    call.result.set_long(Host::current().poll(timeout)? as i64);
    Ok(())
}

pub fn get_event_stream(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let host = Host::current();
    host.adopt_waiting()?;
    *call.result = host.stream()?;
    Ok(())
}

fn on_message(_: &mut Call) -> Outcome {
    Err(exception::logic_exception(
        "A native HeartbeatServer reads its connections itself: onMessage() cannot be called; subscribe with on('data', ...)",
    ))
}

fn get_stats(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    server.check_process()?;
    *call.result = server.stats()?;
    Ok(())
}

/// Of the event whose callback runs; empty outside.
fn event(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    *call.result = match server.told.get() {
        Some((sequence, redelivered)) => map([("sequence", value(sequence as i64)), ("redelivered", value(redelivered))]),
        None => Zval::new_array(),
    };
    Ok(())
}

/// Before the start it is one that stands alone; from then on it shows the engine's nodes.
fn get_node_manager(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    server.check_process()?;
    *call.result = server.views.manager(server.weak(), server.config.engine.heartbeat_timeout.as_secs_f64())?;
    Ok(())
}

/// As [`get_node_manager`].
fn get_channel_scheduler(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    server.check_process()?;
    *call.result = server.views.scheduler(server.weak())?;
    Ok(())
}

// ---- behaviour ----

impl Server {
    /// Starts the engine, unless it runs already: `start()` after an exception goes on where the loop left off.
    fn launch(self: &Rc<Self>, host: &Host, this: *mut zend_object) -> Outcome {
        if self.state.get() != State::Idle {
            return Ok(());
        }
        let begin = || {
            if self.config.php_workers.is_some_and(|workers| workers > 1) {
                return Err(Error::new(ErrorKind::Config, "'php_workers' => 2 or more needs Workerman, which runs the workers"));
            }
            self.config.log.apply()?;
            host.watch_log()?;
            let inbox = Inbox::new(self.config.inbox)?;
            inbox.subscribe(self.subscriptions());
            host.watch(inbox.as_fd())?;
            let started = self.open_engine(|config| Engine::start(config, inbox.clone()));
            if started.is_err() {
                host.unwatch(inbox.as_fd());
            }
            self.engine.replace(Some(Rc::new(Backend::Here(Box::new(started?)))));
            self.inbox.replace(Some(inbox));
            Ok(())
        };
        begin().map_err(|error| exception::raise(&error))?;
        self.role.set(Role::Whole);
        host.add_server(self.clone(), object(this));
        self.state.set(State::Running);
        self.run_timers(host);
        self.call(Start, [object(this)]).map(drop)
    }

    /// Starts the engine for workers next door.
    fn launch_engine(self: &Rc<Self>, host: &Host, this: *mut zend_object) -> Outcome {
        // What the workers subscribe to when they start is not known before. What happens until then waits for them.
        let expected = if self.has(Start) { EventMask::ALL } else { self.subscriptions() };
        let defaults = DispatchLimits::default();
        let limits = DispatchLimits {
            events: self.config.inbox.events,
            bytes: self.config.inbox.bytes,
            drop_oldest: self.config.drops_oldest,
            ..defaults
        };
        let begin = || {
            self.config.log.apply()?;
            host.watch_log()?;
            let engine = self.open_engine(|config| Engine::start_for_workers(config, limits, expected))?;
            self.engine.replace(Some(Rc::new(Backend::Here(Box::new(engine)))));
            Ok(())
        };
        begin().map_err(|error| exception::raise(&error))?;
        self.role.set(Role::Engine);
        host.add_server(self.clone(), object(this));
        self.state.set(State::Running);
        Ok(())
    }

    fn open_engine<T>(&self, start: impl Fn(&ServerConfig) -> std::result::Result<T, Error>) -> std::result::Result<T, Error> {
        let mut config = self.config.engine.clone();
        if let Some(timeout) = self.views.heartbeat_timeout() {
            config.heartbeat_timeout = config::seconds(timeout);
        }
        loop {
            config.bus =
                self.choose_bus_path(false)?.map(|path| BusConfig { path, group: self.config.bus_group.clone(), name: self.name().into() });
            let started = start(&config);
            // Another server that was as quick as this one may have the socket by now.
            let is_lost = config.bus.as_ref().is_some_and(|bus| self.may_choose_bus_path() && bus::is_taken(&bus.path));
            if started.is_ok() || !is_lost || self.bus_path.take().is_none() {
                return started;
            }
        }
    }

    /// The name of Workerman's workers, and of the bus socket.
    fn name(&self) -> &str {
        self.config.name.as_deref().unwrap_or(WORKER)
    }

    /// Lets Workerman run the engine, and the workers for the callbacks.
    fn start_workerman(self: &Rc<Self>, host: &Host, this: *mut zend_object) -> Outcome {
        self.owns_worker.set(true);
        // SAFETY: the class is registered.
        let class = unsafe { &*CLASS.load(Ordering::Relaxed) };
        let method = |name| php::method_closure(class, this, name);
        let workers = self.php_workers();
        let start = method(if workers == 0 { "startwhole" } else { "startengine" });
        // Nothing that a reload could replace runs beside the engine.
        let is_reloadable = workers == 0 && self.has_code();
        let closures = ServerClosures { check: method("checkstart"), start, stop: method("stophere") };
        host.workerman.add_server(self.name(), &self.address(), is_reloadable, closures)?;
        if workers > 0 {
            let closures = WorkerClosures { start: method("startworker"), stop: method("stophere"), is_busy: method("isbusy") };
            host.workerman.add_workers(&format!("{}-php", self.name()), workers, closures)?;
        }
        host.workerman.run_all(method("checkstart"))
    }

    fn has_code(&self) -> bool {
        self.callbacks.borrow().iter().any(Option::is_some) || !self.timers.is_empty()
    }

    /// Processes that Workerman runs for the callbacks; 0 where these run beside the engine, or there are none.
    fn php_workers(&self) -> i64 {
        if self.has_code() { self.config.php_workers.unwrap_or(1) } else { 0 }
    }

    // ---- the end ----

    /// Stops the engine: within 1.5 s every client was told. What is left to tell is in the inbox then. A worker goes when
    /// its engine has told it everything.
    pub fn begin_stop(&self, host: &Host) {
        match (self.role.get(), self.state.get()) {
            (Role::Worker, State::Away) => {
                self.retry_at.set(None);
                self.state.set(State::Idle);
                drop(host.remove_server(self));
                self.timers.rest();
            }
            (Role::Engine, State::Running) => {
                self.stop_engine();
                self.state.set(State::Idle);
                drop(host.remove_server(self));
            }
            (role, State::Running) => {
                let now = Instant::now();
                self.stop_engine();
                self.state.set(State::Stopping);
                self.leave_at.set(Some(now + PATIENCE));
                self.tell_until.set(Some(now + if role == Role::Worker { WORKER_TELLING_TIME } else { TELLING_TIME }));
                host.ring();
            }
            _ => {}
        }
    }

    /// Somebody is in a hurry: what is not told yet is dropped.
    pub fn stop_telling(&self) {
        self.tell_until.set(Some(Instant::now()));
    }

    /// Drops what could not be told in time, and says so.
    fn give_up_telling(&self) {
        let mut dropped = self.pending.take().len();
        if let Some(inbox) = &*self.inbox.borrow() {
            let mut rest = VecDeque::new();
            while inbox.drain(&mut rest, 1024) > 0 {
                dropped += rest.len();
                rest.clear();
            }
        }
        if dropped > 0 {
            tracing::warn!(events = dropped, "The callbacks took too long for the stop: not all events were told");
        }
    }

    pub fn finish_stop(&self, host: &Host) -> Outcome {
        while self.state.get() == State::Stopping {
            host.pump()?;
            if self.role.get() == Role::Worker && self.state.get() == State::Stopping && self.pending() == 0 {
                host.sleep(Some(Instant::now() + Duration::from_millis(5)))?;
            }
        }
        host.leave_loop_when_idle()
    }

    /// What remains to be done when events were told.
    pub fn settle(self: &Rc<Self>, host: &Host) -> Outcome<bool> {
        let engine = self.engine.borrow().clone();
        let Some(engine) = engine else { return if self.role.get() == Role::Worker { self.settle_worker(host) } else { Ok(false) } };
        if self.role.get() == Role::Whole
            && self.state.get() == State::Stopping
            && self.tell_until.get().is_some_and(|until| until <= Instant::now())
        {
            self.give_up_telling();
        }
        if self.is_quiet() && self.views.are_channels_open() && self.views.sweep(self.coalesced(), &engine) {
            self.views.wake()?;
        }
        match self.role.get() {
            Role::Worker => self.settle_worker(host),
            Role::Whole if self.state.get() == State::Stopping && self.is_quiet() => {
                if self.views.close_departed(&engine) {
                    self.views.wake()?;
                }
                self.come_to_rest(host)
            }
            _ => Ok(false),
        }
    }

    /// The last step of stopping, once everything is told.
    fn come_to_rest(&self, host: &Host) -> Outcome<bool> {
        self.state.set(State::Idle);
        if let Some(inbox) = &*self.inbox.borrow() {
            host.unwatch(inbox.as_fd());
        }
        // The object may be held by nobody else.
        let object = host.remove_server(self);
        self.timers.rest();
        match object {
            Some(object) => self.call(Stop, [object]),
            None => Ok(false),
        }
    }

    /// Everything that happened so far was told.
    fn is_quiet(&self) -> bool {
        self.pending() == 0 && !self.may_have_more() && self.inbox.borrow().as_ref().is_none_or(|inbox| inbox.stats().queued_events == 0)
    }

    pub fn may_have_more(&self) -> bool {
        self.may_have_more.get()
    }

    fn coalesced(&self) -> u64 {
        self.inbox.borrow().as_ref().map_or(self.coalesced.get(), |inbox| inbox.stats().coalesced)
    }

    fn stop_engine(&self) {
        let engine = self.engine.borrow().clone();
        if let Some(Backend::Here(engine)) = engine.as_deref() {
            engine.stop();
        }
    }

    /// The request ends: nothing calls into PHP any more.
    pub fn shut_down(&self) {
        self.give_back();
        self.callbacks.take();
        self.timers.clear();
        self.views.clear();
        self.stop_engine();
        self.state.set(State::Idle);
    }

    fn run_timers(&self, host: &Host) {
        self.timers.run(Instant::now());
        host.set_alarm();
    }

    /// Where it listens, as Workerman's tables write it.
    fn address(&self) -> String {
        let host = if self.host.contains(':') && !self.host.starts_with('[') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("tcp://{host}:{}", self.port)
    }

    /// The last engine of this server.
    pub fn engine(&self) -> Option<Rc<Backend>> {
        self.engine.borrow().clone()
    }

    fn subscriptions(&self) -> EventMask {
        let callbacks = self.callbacks.borrow();
        let wanted = KINDS.iter().zip(&*callbacks).filter(|(_, callback)| callback.is_some());
        let wanted = wanted.fold(EventMask::NONE, |mask, ((.., kind), _)| mask | *kind);
        let wanted = if self.views.are_monitors_running() { wanted | EventMask::LEFT } else { wanted };
        if self.views.are_channels_open() { wanted | EventMask::DATA | EventMask::LEFT } else { wanted }
    }

    /// After what PHP wants to know has changed.
    pub fn resubscribe(&self) {
        if let Some(inbox) = &*self.inbox.borrow() {
            inbox.subscribe(self.subscriptions());
        }
        self.say(|attachment| attachment.subscribe(self.subscriptions()));
    }

    pub fn weak(&self) -> &Weak<Server> {
        self.me.get().expect("the constructor sets it")
    }

    pub fn channel_queue_size(&self) -> i64 {
        self.config.channel_queue_size
    }

    /// Asks the engine for something. None, and a word in the log, when it cannot be done.
    pub fn ask<T>(&self, question: impl FnOnce(&Backend) -> std::result::Result<T, Error>) -> Outcome<Option<T>> {
        let engine = self.engine.borrow().clone();
        let Some(engine) = engine else { return Ok(None) };
        match question(&engine) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if matches!(error.kind, ErrorKind::WrongProcess | ErrorKind::Timeout) => Err(exception::raise(&error)),
            Err(error) => {
                if matches!(error.kind, ErrorKind::Limit | ErrorKind::InvalidArgument | ErrorKind::Io) {
                    tracing::error!("Failed to send data: {error}");
                }
                Ok(None)
            }
        }
    }

    pub fn check_process(&self) -> Outcome {
        let is_foreign = self.engine.borrow().as_ref().is_some_and(|engine| !engine.is_own_process());
        if is_foreign { Err(exception::raise(&Error::wrong_process())) } else { Ok(()) }
    }

    fn stats(&self) -> Outcome<Zval> {
        let engine = self.engine.borrow().clone();
        let engine = engine.map(|engine| engine.stats()).transpose().map_err(|error| exception::raise(&error))?;
        let stats = engine.unwrap_or_default();
        // While it runs: what the descriptor limit allows.
        let max_connections = if engine.is_some() { stats.max_connections as i64 } else { self.config.max_connections };
        Ok(map([
            (
                "server",
                map([
                    ("host", text(&self.host)),
                    ("port", value(self.port)),
                    ("workers", value(self.config.worker_count)),
                    ("protocol", self.config.protocol.shallow_clone()),
                ]),
            ),
            ("nodes", statistics::nodes(&stats)),
            ("channels", statistics::channels(&stats, self.views.queued())),
            ("connections", statistics::connections(&stats, max_connections)),
            (
                "router",
                map([
                    ("total_routed", value(stats.counts.data_in as i64)),
                    ("total_failed", value(stats.counts.data_ignored as i64)),
                    ("handlers_count", value(0i64)),
                    ("routes_count", value(0i64)),
                ]),
            ),
            (
                "monitor",
                map([
                    ("running", value(self.state.get() == State::Running)),
                    ("check_interval", value(self.config.check_interval)),
                    ("check_count", value(0i64)),
                    ("timeout_callbacks", value(i64::from(self.has(Timeout)))),
                ]),
            ),
            ("engine", statistics::engine(&stats, self.views.dropped())),
        ]))
    }
}
