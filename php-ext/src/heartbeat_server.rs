//! `PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer`: the engine as PHP sees it.

use crate::arguments;
use crate::backend::Backend;
use crate::config;
use crate::declare::Declare;
use crate::exception;
use crate::host::Host;
use crate::live::Views;
use crate::numbers::{self, LONGEST};
use crate::php::{self, Call, Callable, Native, Outcome, bytes, map, text, value};
use crate::statistics;
use crate::timers::Timers;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object_handlers, zend_string};
use ext_php_rs::types::{ZendHashTable, Zval};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::EventMask;
use heartbus_core::inbox::Inbox;
use heartbus_core::text::nearest;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

mod elsewhere;
pub mod log;
mod socket;
mod start;
mod stop;
mod telling;
mod user;
mod worker;

pub use start::run_alone;
pub use user::Identity;

use telling::Pending;

const NAME: &str = r"PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer";

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

thread_local! {
    /// Every server that the process knows.
    static SERVERS: RefCell<Vec<Weak<Server>>> = const { RefCell::new(Vec::new()) };
}

/// Name of the worker that Workerman shows.
pub const WORKER: &str = "HeartbeatServer";

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
    BufferFull,
    BufferDrain,
    Start,
    Stop,
}
use Kind::*;

/// The kinds by name, in the order of the enum, and what the inbox must be asked for.
const KINDS: [(&str, Kind, EventMask); 14] = [
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
    ("buffer.full", BufferFull, EventMask::BUFFER),
    ("buffer.drain", BufferDrain, EventMask::BUFFER),
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
    /// The process that made it, the one that made Workerman's workers for it, and the last one that had a part of it, as the
    /// generations of `heartbus_generation`.
    made_in: u32,
    prepared_in: Cell<Option<u32>>,
    serves_in: Cell<Option<u32>>,
    /// Processes that Workerman runs for the callbacks.
    php_workers: Cell<i64>,
    /// Which of them this process is.
    worker_id: Cell<i64>,
    /// Where its engine is asked from processes that have no part of it.
    remote: RefCell<Option<Rc<Backend>>>,
    /// A worker without its engine.
    absence: worker::Absence,
    log_waiting: log::Waiting,
    /// What PHP holds of its nodes and channels.
    pub views: Views,
    /// Itself.
    me: OnceCell<Weak<Server>>,
}

pub fn register() -> Result<()> {
    ClassBuilder::new(NAME)
        .declare("__construct(string $host = '0.0.0.0', int $port = 9501, array $config = [])", construct)
        .declare("start(): void", start::start)
        .declare("prepare(): void", start::prepare)
        .declare("stop(): void", stop::stop)
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
        .declare("workerId(): int", worker_id)
        .declare("private checkStart(string $user = '', string $group = ''): bool", start::check_start)
        .declare("private startEngine(): void", start::start_engine)
        .declare("private startWorker(int $number): void", start::start_worker)
        .declare("private stopHere(bool $leaves = false): void", stop::stop_here)
        .declare("private isBusy(): bool", stop::is_busy)
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
        made_in: elsewhere::generation(),
        prepared_in: Cell::new(None),
        serves_in: Cell::new(None),
        php_workers: Cell::new(0),
        worker_id: Cell::new(0),
        remote: RefCell::default(),
        absence: worker::Absence::default(),
        log_waiting: log::Waiting::default(),
        views: Views::default(),
        me: OnceCell::new(),
    };
    let server = Rc::new(server);
    let _ = server.me.set(Rc::downgrade(&server));
    SERVERS.with_borrow_mut(|servers| {
        servers.retain(|other| other.strong_count() > 0);
        servers.push(Rc::downgrade(&server));
    });
    // SAFETY: an object of our class.
    unsafe { php::set_held(call.this(), server) };
    Ok(())
}

fn on(call: &mut Call) -> Outcome {
    let (mut event, mut callback) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"Sz", event, callback)?;
    let server = call.held::<Server>()?;
    let callback = Rc::new(Callable::new(callback, 2)?);
    server.check_not_elsewhere("on()")?;
    let Some(place) = KINDS.iter().position(|(name, ..)| name.as_bytes() == bytes(event)) else {
        let (given, names) = (String::from_utf8_lossy(bytes(event)), KINDS.map(|(name, ..)| name));
        let meant = nearest(&given, names).map(|meant| format!("did you mean '{meant}'? "));
        let text = format!("Unknown event: {given} ({}there are: {})", meant.unwrap_or_default(), names.join(", "));
        return Err(exception::invalid_argument(&text));
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
    server.make_workers_for_callbacks(call.this())
}

fn every(call: &mut Call) -> Outcome {
    let (mut seconds, mut callback) = (0f64, ptr::null_mut::<Zval>());
    arguments!(call, c"dz", seconds, callback)?;
    let server = call.held::<Server>()?;
    let callback = Rc::new(Callable::new(callback, 2)?);
    // A tick of one microsecond at least: a timer that is always due would starve everything else.
    let id = server.timers.add(numbers::seconds("every(): seconds", seconds, 1e-6..=LONGEST)?, callback);
    call.result.set_long(id);
    if server.state.get() == State::Running {
        server.run_timers(&Host::current());
    } else if server.needs_timer_here() && !server.run_timer_here(id, call.this())? {
        server.timers.cancel(id);
        return Err(server.is_not_for("every()"));
    }
    server.make_workers_for_callbacks(call.this())
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
    let timeout = numbers::seconds("poll(): timeout", timeout, 0.0..=LONGEST)?;
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

/// Which of the PHP workers this process is: from 0 on, and the same for whoever replaces it.
fn worker_id(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    server.check_process()?;
    server.check_is_told("workerId()")?;
    call.result.set_long(server.worker_id.get());
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
    fn has_code(&self) -> bool {
        self.callbacks.borrow().iter().any(Option::is_some) || !self.timers.is_empty()
    }

    pub fn may_have_more(&self) -> bool {
        self.may_have_more.get()
    }

    fn coalesced(&self) -> u64 {
        self.inbox.borrow().as_ref().map_or(self.coalesced.get(), |inbox| inbox.stats().coalesced)
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

    pub fn stop_timeout(&self) -> Option<Duration> {
        self.config.stop_timeout
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
        let Some(engine) = self.backend()? else { return Ok(None) };
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
        let engine = self.backend_if_started()?.map(|engine| engine.stats()).transpose().map_err(|error| exception::raise(&error))?;
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
