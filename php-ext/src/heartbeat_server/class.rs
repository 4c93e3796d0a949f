//! `PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer`: the engine as PHP sees it.

use super::absence::Absence;
use super::other_process::generation;
use super::waiting_log::WaitingLog;
use super::{CLASS, KINDS, Kind, NAME, Role, SERVERS, Server, State};
use super::{listening, start, stop};
use crate::arguments;
use crate::bindings::Owner;
use crate::calls::DeclareCalls;
use crate::config;
use crate::declare::Declare;
use crate::exception;
use crate::objects::Objects;
use crate::php::{self, Call, Callable, Outcome, bytes, map, text, value};
use crate::polling::{get_event_stream, poll};
use crate::ranges::{self, LONGEST};
use crate::runtime::Runtime;
use crate::statistics;
use crate::timers::Timers;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::zend_string;
use ext_php_rs::types::{ZendHashTable, Zval};
use heartbus_core::text::nearest;
use std::cell::{Cell, OnceCell, RefCell};
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering;

pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(NAME)
        .declare("__construct(string $host = '0.0.0.0', int $port = 9501, array $config = [])", construct)
        .declare("start(): void", start::start)
        .declare("prepare(): void", start::prepare)
        .declare("stop(): void", stop::stop)
        .declare("on(string $event, callable $callback): void", on)
        .declare("every(float $seconds, callable $callback): int", every)
        .declare("cancel(int $timerId): bool", cancel)
        .declare_calls::<Server>()
        .declare("subscribe(string $filter, ?callable $callback = null): void", listening::subscribe)
        .declare("unsubscribe(string $filter): bool", listening::unsubscribe)
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

fn construct(call: &mut Call<'_>) -> Outcome {
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
        subscriptions: RefCell::default(),
        untold: RefCell::default(),
        timers: Timers::default(),
        state: Cell::new(State::Idle),
        tell_until: Cell::new(None),
        role: Cell::new(Role::Whole),
        engine: RefCell::default(),
        inbox: RefCell::default(),
        delivery: RefCell::default(),
        leave_at: Cell::new(None),
        retry_at: Cell::new(None),
        bus_path: RefCell::default(),
        made_in: generation(),
        prepared_in: Cell::new(None),
        serves_in: Cell::new(None),
        php_workers: Cell::new(0),
        worker_id: Cell::new(0),
        remote: RefCell::default(),
        absence: Absence::default(),
        waiting_log: WaitingLog::default(),
        objects: Objects::default(),
        me: OnceCell::new(),
    };
    let server = Rc::new(server);
    let _ = server.me.set(Rc::downgrade(&server));
    let owner: Weak<dyn Owner> = Rc::<Server>::downgrade(&server);
    server.objects.be_owned_by(owner);
    SERVERS.with_borrow_mut(|servers| {
        servers.retain(|other| other.strong_count() > 0);
        servers.push(Rc::downgrade(&server));
    });
    // SAFETY: an object of our class.
    unsafe { php::set_held(call.this(), server) };
    Ok(())
}

fn on(call: &mut Call<'_>) -> Outcome {
    let (mut event, mut callback) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"Sz", event, callback)?;
    let server = call.held::<Server>()?;
    let callback = Rc::new(Callable::new(callback, 2)?);
    server.check_not_elsewhere("on()")?;
    server.check_runs_here()?;
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
            Kind::Data => callbacks[Kind::DataBatch as usize].take(),
            Kind::DataBatch => callbacks[Kind::Data as usize].take(),
            _ => None,
        };
        (callbacks[place].replace(callback), other)
    };
    server.resubscribe();
    server.make_workers_for_callbacks(call.this())
}

fn every(call: &mut Call<'_>) -> Outcome {
    let (mut seconds, mut callback) = (0f64, ptr::null_mut::<Zval>());
    arguments!(call, c"dz", seconds, callback)?;
    let server = call.held::<Server>()?;
    let callback = Rc::new(Callable::new(callback, 2)?);
    server.check_runs_here()?;
    // A tick of one microsecond at least: a timer that is always due would starve everything else.
    let id = server.timers.add(ranges::seconds("every(): seconds", seconds, 1e-6..=LONGEST)?, callback);
    call.result.set_long(id);
    if server.state.get() == State::Running {
        server.run_timers(&Runtime::current());
    } else if server.needs_timer_here() && !server.run_timer_here(id, call.this())? {
        server.timers.cancel(id);
        return Err(server.is_not_for("every()"));
    }
    server.make_workers_for_callbacks(call.this())
}

fn cancel(call: &mut Call<'_>) -> Outcome {
    let mut id = 0i64;
    arguments!(call, c"l", id)?;
    let server = call.held::<Server>()?;
    call.result.set_bool(server.timers.cancel(id));
    Ok(())
}

fn on_message(_: &mut Call<'_>) -> Outcome {
    Err(exception::logic_exception(
        "A native HeartbeatServer reads its connections itself: onMessage() cannot be called; subscribe with on('data', ...)",
    ))
}

fn get_stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    server.check_process()?;
    *call.result = server.stats()?;
    Ok(())
}

/// Of the event whose callback runs; empty outside.
fn event(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    *call.result = match server.delivery.borrow().current() {
        Some((sequence, redelivered)) => map([("sequence", value(sequence as i64)), ("redelivered", value(redelivered))]),
        None => Zval::new_array(),
    };
    Ok(())
}

/// Which of the PHP workers this process is: from 0 on, and the same for whoever replaces it.
fn worker_id(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    server.check_process()?;
    server.check_is_told("workerId()")?;
    call.result.set_long(server.worker_id.get());
    Ok(())
}

/// Before the start it is one that stands alone; from then on it shows the engine's nodes.
fn get_node_manager(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    server.check_process()?;
    *call.result = server.manager()?;
    Ok(())
}

/// As [`get_node_manager`].
fn get_channel_scheduler(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let server = call.held::<Server>()?;
    server.check_process()?;
    *call.result = server.scheduler()?;
    Ok(())
}

impl Server {
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
            ("channels", statistics::channels(&stats, self.objects.queued())),
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
                    ("timeout_callbacks", value(i64::from(self.has(Kind::Timeout)))),
                ]),
            ),
            ("engine", statistics::engine(&stats, self.objects.dropped())),
        ]))
    }
}
