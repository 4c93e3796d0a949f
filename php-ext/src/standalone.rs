//! `Heartbus\Host`: a server without PHP code. The engine runs, other processes use it through `Heartbus\Bus`.
//!
//! It is also the class whose private methods other loops call. They are in the stack traces of servers' callbacks and of
//! clients' alike, so they belong to neither of these.

use crate::arguments;
use crate::commands;
use crate::declare::Declare;
use crate::exception;
use crate::heartbeat_server;
use crate::host::{Host, Watcher};
use crate::php::{self, Call, Outcome, value};
use crate::workerman::HostClosures;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::zend_class_entry;
use ext_php_rs::flags::ClassFlags;
use ext_php_rs::types::Zval;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

pub fn register() -> Result<()> {
    ClassBuilder::new(r"Heartbus\Host")
        .flags(ClassFlags::Final)
        .declare("static run(array $config = []): void", run)
        .declare("private __construct()", construct)
        .declare("private static onWorkerStart(): void", on_worker_start)
        .declare("private static onReadable(): void", on_readable)
        .declare("private static turn(): void", turn)
        .declare("private static own(): array", commands::own)
        .declare("private static statistics(): array", commands::statistics)
        .declare("private static connections(): array", commands::connections)
        .declare("private static closeDoors(): void", commands::close_doors)
        .declare("private static patience(): ?float", commands::patience)
        .declare("private static waits(int $own, bool $isOver): void", commands::waits)
        .declare("private static stopServers(): void", commands::stop_servers)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

fn construct(_: &mut Call) -> Outcome {
    Err(exception::error(r"Heartbus\Host has static methods only"))
}

/// Returns when a signal has stopped the server.
fn run(call: &mut Call) -> Outcome {
    let mut config = ptr::null_mut::<Zval>();
    arguments!(call, c"|a", config)?;
    // SAFETY: an argument of this call, or null when it was left out.
    let given = unsafe { config.as_ref() }.map_or_else(Zval::new_array, |config| config.dereference().shallow_clone());
    let entry = |key: &str| given.array().and_then(|config| config.get(key)).map(|value| value.dereference().shallow_clone());
    let host = entry("host").unwrap_or_else(|| php::text("0.0.0.0"));
    let port = entry("port").unwrap_or_else(|| value(9501i64));
    let mut rest = given.shallow_clone();
    // They are arguments there.
    if let Some(rest) = rest.array_mut() {
        rest.remove("host");
        rest.remove("port");
    }
    heartbeat_server::run_alone([host, port, rest])
}

// ---- what other loops call ----

/// In the worker of the clients that were told to connect before there was a loop.
fn on_worker_start(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    let host = Host::current();
    host.be_watched_by(Watcher::Workerman)?;
    host.connect_waiting()
}

/// Called by another loop when the bell is readable, with whatever arguments it has.
fn on_readable(_: &mut Call) -> Outcome {
    Host::current().be_visited(&static_method("turn"))
}

/// In the fiber of a visit.
fn turn(call: &mut Call) -> Outcome {
    arguments!(call, c"")?;
    Host::current().turn_once()
}

/// What Workerman calls in the worker of the clients.
pub fn worker_start_closure() -> Zval {
    static_method("onworkerstart")
}

/// What another loop calls when the bell is readable.
pub fn pump_closure() -> Zval {
    static_method("onreadable")
}

/// What Workerman's commands call.
pub fn host_closures() -> HostClosures {
    HostClosures {
        ready: pump_closure(),
        own: static_method("own"),
        statistics: static_method("statistics"),
        connections: static_method("connections"),
        close_doors: static_method("closedoors"),
        patience: static_method("patience"),
        waits: static_method("waits"),
        stop: static_method("stopservers"),
    }
}

fn static_method(name: &str) -> Zval {
    // SAFETY: the class is registered.
    php::method_closure(unsafe { &*CLASS.load(Ordering::Relaxed) }, ptr::null_mut(), name)
}
