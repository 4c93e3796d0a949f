//! `Heartbus\Host`: a server without PHP code. The engine runs, other processes use it through `Heartbus\Bus`.
//!
//! It is also the class whose private methods other loops call. They are in the stack traces of servers' callbacks and of
//! clients' alike, so they belong to neither of these.

use crate::arguments;
use crate::callbacks;
use crate::commands;
use crate::declare::Declare;
use crate::exception;
use crate::heartbeat_server::start::run_alone;
use crate::php::{Call, Outcome, text, value};
use crate::runtime::{Runtime, Watcher};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::flags::ClassFlags;
use ext_php_rs::types::Zval;
use std::ptr;

pub(crate) fn register() -> Result<()> {
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
            callbacks::are_methods_of(class);
        })
        .register()
}

fn construct(_: &mut Call<'_>) -> Outcome {
    Err(exception::error(r"Heartbus\Host has static methods only"))
}

/// Returns when a signal has stopped the server.
fn run(call: &mut Call<'_>) -> Outcome {
    let mut config = ptr::null_mut::<Zval>();
    arguments!(call, c"|a", config)?;
    // SAFETY: an argument of this call, or null when it was left out.
    let given = unsafe { config.as_ref() }.map_or_else(Zval::new_array, |config| config.dereference().shallow_clone());
    let entry = |key: &str| given.array().and_then(|config| config.get(key)).map(|value| value.dereference().shallow_clone());
    let host = entry("host").unwrap_or_else(|| text("0.0.0.0"));
    let port = entry("port").unwrap_or_else(|| value(9501i64));
    let mut rest = given.shallow_clone();
    // They are arguments there.
    if let Some(rest) = rest.array_mut() {
        rest.remove("host");
        rest.remove("port");
    }
    run_alone([host, port, rest])
}

// ---- what other loops call ----

/// In the worker of the clients that were told to connect before there was a loop.
fn on_worker_start(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let runtime = Runtime::current();
    runtime.be_watched_by(Watcher::Workerman)?;
    runtime.connect_waiting()
}

/// Called by another loop when there is something to tell, with whatever arguments it has.
fn on_readable(_: &mut Call<'_>) -> Outcome {
    Runtime::current().be_visited(&callbacks::turn())
}

/// In the fiber of a visit.
fn turn(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    Runtime::current().turn_once()
}
