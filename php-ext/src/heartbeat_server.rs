//! `PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer`: the engine as PHP sees it.

use crate::arguments;
use crate::config::{self, Loop};
use crate::declare::Declare;
use crate::exception;
use crate::host::{Host, Source, Watcher};
use crate::live::Views;
use crate::php::{self, Call, Callable, Native, Outcome, bytes, map, object, text, value};
use crate::shim;
use crate::timers::Timers;
use crate::workerman::{ServerClosures, Workerman};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object, zend_object_handlers, zend_string};
use ext_php_rs::types::{ZendHashTable, Zval};
use heartbus_core::engine::{Engine, Stats};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{Departure, Event, EventMask};
use heartbus_core::hub::{Counts, Node};
use heartbus_core::inbox::Inbox;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const NAME: &str = r"PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer";

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

/// Name of the worker that Workerman shows.
const WORKER: &str = "HeartbeatServer";

/// How long a stop goes on telling what had happened before it. With the 1.5 s for the clients it stays under the 4 s after
/// which Workerman kills.
const TELLING_TIME: Duration = Duration::from_secs(2);

/// What a script can subscribe to.
#[derive(Copy, Clone, PartialEq)]
enum Kind {
    Connect,
    Register,
    Heartbeat,
    Data,
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
const KINDS: [(&str, Kind, EventMask); 11] = [
    ("connect", Connect, EventMask::CONNECT),
    ("register", Register, EventMask::REGISTER),
    ("heartbeat", Heartbeat, EventMask::HEARTBEAT),
    ("data", Data, EventMask::DATA),
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
    /// The engine is stopped; what it said last is still to be told.
    Stopping,
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
    /// The last one that was started; it keeps its numbers after its end.
    engine: RefCell<Option<Rc<Engine>>>,
    pending: RefCell<VecDeque<Event>>,
    /// Workerman's worker was made by `start()`, for this server alone.
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
        .declare("private checkStart(): void", check_start)
        .declare("private onWorkerStart(): void", on_worker_start)
        .declare("private onWorkerStop(): void", on_worker_stop)
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
        engine: RefCell::default(),
        pending: RefCell::default(),
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
    // SAFETY: asks PHP for its name of itself.
    if !unsafe { shim::heartbus_is_cli() } {
        let sapi = unsafe { CStr::from_ptr(shim::heartbus_sapi()) }.to_string_lossy();
        return Err(exception::fail(ErrorKind::Config, format!("HeartbeatServer::start() needs the PHP CLI; this is {sapi}")));
    }
    server.check_process()?;
    let host = Host::current();
    if host.is_looping() || server.config.event_loop == Loop::Manual {
        return server.launch(&host, this);
    }
    let event_loop = server.config.event_loop;
    if event_loop != Loop::Native && host.join_running_loop(event_loop)? {
        return server.launch(&host, this);
    }
    if matches!(event_loop, Loop::Revolt | Loop::React) {
        host.join_loop_to_come(event_loop)?;
        return server.launch(&host, this);
    }
    if event_loop != Loop::Native && Workerman::exists(true)? {
        server.owns_worker.set(true);
        // SAFETY: the class is registered.
        let class = unsafe { &*CLASS.load(Ordering::Relaxed) };
        let method = |name| php::method_closure(class, this, name);
        let closures = ServerClosures { check: method("checkstart"), start: method("onworkerstart"), stop: method("onworkerstop") };
        host.workerman.add_server(WORKER, &server.address(), closures)?;
        return host.workerman.run_all(method("checkstart"));
    }
    if event_loop == Loop::Workerman {
        return Err(exception::fail(ErrorKind::Config, r"'loop' => 'workerman' needs Workerman: there is no class Workerman\Worker"));
    }
    host.run(|| server.launch(&host, this), &|| server.state.get() == State::Idle)
}

/// Throws when the server could not start now. It runs in Workerman's master: nothing may be left behind there.
fn check_start(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    let check = || server.config.log.apply().and_then(|()| Engine::check(&server.config.engine));
    check().map_err(|error| exception::raise(&error))
}

/// In the worker that `start()` made.
fn on_worker_start(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let (server, this) = (call.held::<Server>()?, call.this());
    let host = Host::current();
    host.be_watched_by(Watcher::Workerman)?;
    server.launch(&host, this)
}

fn on_worker_stop(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    let host = Host::current();
    server.begin_stop(&host);
    server.finish_stop(&host)
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
    let _replaced = server.callbacks.borrow_mut()[place].replace(callback);
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
    *call.result = server.stats();
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
            self.config.log.apply()?;
            host.watch_log()?;
            let inbox = Inbox::new(self.config.inbox)?;
            inbox.subscribe(self.subscriptions());
            host.add_server(self.clone(), object(this), &inbox)?;
            let mut config = self.config.engine.clone();
            if let Some(timeout) = self.views.heartbeat_timeout() {
                config.heartbeat_timeout = config::seconds(timeout);
            }
            match Engine::start(&config, inbox) {
                Ok(engine) => *self.engine.borrow_mut() = Some(Rc::new(engine)),
                Err(error) => {
                    host.remove_server(self);
                    return Err(error);
                }
            }
            Ok(())
        };
        begin().map_err(|error| exception::raise(&error))?;
        self.state.set(State::Running);
        self.run_timers(host);
        self.call(Start, [object(this)]).map(drop)
    }

    /// Stops the engine: within 1.5 s every client was told. What is left to tell is in the inbox then.
    pub fn begin_stop(&self, host: &Host) {
        if self.state.get() == State::Running {
            self.stop_engine();
            self.state.set(State::Stopping);
            self.tell_until.set(Some(Instant::now() + TELLING_TIME));
            host.ring();
        }
    }

    /// Somebody is in a hurry: what is not told yet is dropped.
    pub fn stop_telling(&self) {
        self.tell_until.set(Some(Instant::now()));
    }

    /// Drops what could not be told in time, and says so.
    fn give_up_telling(&self) {
        let mut dropped = self.pending.take().len();
        if let Some(inbox) = self.inbox() {
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
        }
        host.leave_loop_when_idle()
    }

    /// The last step of stopping, once everything is told.
    pub fn settle(&self, host: &Host) -> Outcome<bool> {
        if self.state.get() == State::Stopping && self.tell_until.get().is_some_and(|until| until <= Instant::now()) {
            self.give_up_telling();
        }
        let is_quiet = || self.pending.borrow().is_empty() && self.inbox().is_none_or(|inbox| inbox.stats().queued_events == 0);
        if is_quiet() && self.views.are_channels_open() {
            let coalesced = self.inbox().map_or(0, |inbox| inbox.stats().coalesced);
            if self.views.sweep(coalesced) {
                self.views.wake()?;
            }
        }
        if self.state.get() != State::Stopping || !is_quiet() {
            return Ok(false);
        }
        if self.views.close_departed() {
            self.views.wake()?;
        }
        self.state.set(State::Idle);
        // The object may be held by nobody else.
        let object = host.remove_server(self);
        self.timers.rest();
        match object {
            Some(object) => self.call(Stop, [object]),
            None => Ok(false),
        }
    }

    fn stop_engine(&self) {
        let engine = self.engine.borrow().clone();
        if let Some(engine) = engine {
            engine.stop();
        }
    }

    /// The request ends: nothing calls into PHP any more.
    pub fn shut_down(&self) {
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
    pub fn engine(&self) -> Option<Rc<Engine>> {
        self.engine.borrow().clone()
    }

    fn subscriptions(&self) -> EventMask {
        let callbacks = self.callbacks.borrow();
        let wanted = KINDS.iter().zip(&*callbacks).filter(|(_, callback)| callback.is_some());
        let wanted = wanted.fold(EventMask::NONE, |mask, ((.., kind), _)| mask | *kind);
        if self.views.are_channels_open() { wanted | EventMask::DATA | EventMask::LEFT } else { wanted }
    }

    /// After what PHP wants to know has changed.
    pub fn resubscribe(&self) {
        if let Some(inbox) = self.inbox() {
            inbox.subscribe(self.subscriptions());
        }
    }

    pub fn weak(&self) -> &Weak<Server> {
        self.me.get().expect("the constructor sets it")
    }

    pub fn channel_queue_size(&self) -> i64 {
        self.config.channel_queue_size
    }

    /// True when there is a callback, which has run then.
    fn call<const N: usize>(&self, kind: Kind, arguments: [Zval; N]) -> Outcome<bool> {
        let callback = self.callbacks.borrow()[kind as usize].clone();
        match callback {
            Some(callback) => callback.call(arguments).map(|_| true),
            None => Ok(false),
        }
    }

    fn has(&self, kind: Kind) -> bool {
        self.callbacks.borrow()[kind as usize].is_some()
    }

    fn call_for_node<const N: usize>(&self, kind: Kind, about: &Arc<Node>, more: impl FnOnce(Zval) -> [Zval; N]) -> Outcome<bool> {
        let engine = self.engine.borrow().clone();
        match engine {
            // Making the object costs more than looking whether anybody wants it.
            Some(engine) if self.has(kind) => self.call(kind, more(self.views.node(self.weak(), &engine, about)?)),
            _ => Ok(false),
        }
    }

    /// If the callback throws or suspends its fiber, the next turn of the loop wakes them.
    fn ring_for_waiters(&self, host: &Host, are_waiting: bool) {
        if are_waiting {
            host.ring();
        }
    }

    /// Asks the engine for something. None, and a word in the log, when it cannot be done.
    pub fn ask<T>(&self, question: impl FnOnce(&Engine) -> std::result::Result<T, Error>) -> Outcome<Option<T>> {
        let engine = self.engine.borrow().clone();
        let Some(engine) = engine else { return Ok(None) };
        match question(&engine) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.kind == ErrorKind::WrongProcess => Err(exception::raise(&error)),
            Err(error) => {
                if matches!(error.kind, ErrorKind::Limit | ErrorKind::InvalidArgument) {
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

    fn stats(&self) -> Zval {
        let engine = self.engine.borrow().as_ref().map(|engine| engine.stats());
        let number = |read: fn(&Stats) -> usize| engine.as_ref().map_or(0, |stats| read(stats) as i64);
        let counts = engine.map_or_else(Counts::default, |stats| stats.counts);
        let count = |number: u64| value(number as i64);
        let nodes = number(|stats| stats.nodes_online);
        let connections = number(|stats| stats.connections_active);
        // While it runs: what the descriptor limit allows.
        let max_connections = engine.as_ref().map_or(self.config.max_connections, |stats| stats.max_connections as i64);
        let left = counts.nodes_unregistered + counts.nodes_timed_out + counts.nodes_replaced + counts.nodes_disconnected;
        let refused = counts.connections_rejected + counts.connections_denied;

        let mut details: Vec<(&str, Zval)> = counts.list().map(|(name, number)| (name, count(number))).collect();
        details.extend([
            ("nodes_online", value(nodes)),
            ("channels_active", value(number(|stats| stats.channels_active))),
            ("connections_active", value(connections)),
            ("max_connections", value(number(|stats| stats.max_connections))),
            ("io_threads", value(number(|stats| stats.io_threads))),
            ("buffered_bytes", value(number(|stats| stats.buffered_bytes))),
            ("inbox_events", value(number(|stats| stats.inbox.queued_events))),
            ("inbox_bytes", value(number(|stats| stats.inbox.queued_bytes))),
            ("inbox_pauses", count(engine.map_or(0, |stats| stats.inbox.pauses))),
            ("channel_dropped", count(self.views.dropped())),
            ("inbox_coalesced", count(engine.map_or(0, |stats| stats.inbox.coalesced))),
        ]);

        map([
            (
                "server",
                map([
                    ("host", text(&self.host)),
                    ("port", value(self.port)),
                    ("workers", value(self.config.worker_count)),
                    ("protocol", self.config.protocol.shallow_clone()),
                ]),
            ),
            (
                "nodes",
                map([
                    ("total", value(nodes)),
                    ("online", value(nodes)),
                    ("offline", value(0i64)),
                    ("total_heartbeats", count(counts.heartbeats)),
                    ("total_messages", count(counts.data_in)),
                    ("total_registered", count(counts.nodes_registered)),
                    ("total_unregistered", count(left)),
                    ("total_timeout", count(counts.nodes_timed_out)),
                ]),
            ),
            (
                "channels",
                map([
                    ("active_channels", value(number(|stats| stats.channels_active))),
                    ("active_nodes", value(nodes)),
                    ("total_send_queue", value(0i64)),
                    ("total_recv_queue", value(self.views.queued())),
                    ("total_send_count", count(counts.data_out)),
                    ("total_recv_count", count(counts.data_in)),
                ]),
            ),
            (
                "connections",
                map([
                    ("active_connections", value(connections)),
                    ("max_connections", value(max_connections)),
                    ("total_connections", count(counts.connections_total.saturating_sub(refused))),
                    ("total_closed", count(counts.connections_closed)),
                    ("usage_percent", value(connections as f64 / max_connections as f64 * 100.0)),
                ]),
            ),
            (
                "router",
                map([
                    ("total_routed", count(counts.data_in)),
                    ("total_failed", count(counts.data_ignored)),
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
            ("engine", php::map_of(details)),
        ])
    }
}

impl Source for Server {
    fn inbox(&self) -> Option<Arc<Inbox>> {
        self.engine.borrow().as_ref().and_then(|engine| engine.inbox().cloned())
    }

    fn pending(&self) -> &RefCell<VecDeque<Event>> {
        &self.pending
    }

    fn tell(&self, host: &Host, event: Event) -> Outcome<bool> {
        match event {
            Event::Connect { connection_id, peer } => {
                let ip = text(peer.ip().to_canonical().to_string());
                self.call(Connect, [ip, value(i64::from(peer.port())), value(connection_id as i64)])
            }
            Event::Register { node, .. } => self.call_for_node(Register, &node, |node| [node]),
            Event::Heartbeat { node, .. } => self.call_for_node(Heartbeat, &node, |node| [node]),
            Event::Data { node, channel_id, payload } => {
                // Into the queue first, without running anything: whatever the callback does, the order stays.
                let is_waited_for = self.views.receive(&node, channel_id, &payload);
                self.ring_for_waiters(host, is_waited_for);
                let called = self.call_for_node(Data, &node, |node| [node, text(payload), value(i64::from(channel_id))])?;
                Ok(self.views.wake()? > 0 || called)
            }
            Event::Left { node, how, .. } => {
                let kind = match how {
                    Departure::Unregistered => Unregister,
                    Departure::TimedOut => Timeout,
                    Departure::Replaced => Replaced,
                    Departure::Disconnected => Disconnected,
                };
                let is_waited_for = self.views.node_left(&node);
                self.ring_for_waiters(host, is_waited_for);
                let called = self.call_for_node(kind, &node, |node| [node])?;
                Ok(self.views.wake()? > 0 || called)
            }
            Event::Close { connection_id, reason } => self.call(Close, [value(connection_id as i64), text(reason.as_str())]),
            Event::Client { .. } => Ok(false),
        }
    }
}
