//! The `heartbus` extension of PHP: the classes of the PHP library, with the engine behind them.
//!
//! Loading it starts no thread and opens no descriptor. `start()` and `connect()` do.

mod alarms;
mod asking;
mod backend;
mod bindings;
mod bus;
mod bus_topics;
mod callbacks;
mod calls;
mod classes;
mod clock;
mod commands;
mod config;
mod declare;
mod exception;
mod glue;
mod guest;
mod heartbeat_client;
mod heartbeat_protocol;
mod heartbeat_server;
mod host;
mod identity;
mod info;
mod ini;
mod log;
mod measures;
mod message;
mod moments;
mod node;
mod objects;
mod php;
mod polling;
mod properties;
mod ranges;
mod running_server;
mod runtime;
mod shim;
mod signals;
mod statistics;
mod subscriptions;
mod timers;
mod topics;
mod wakeup;
mod workerman;

use ext_php_rs::prelude::*;
use ext_php_rs::zend::run_handler;
use heartbus_core::process;
use runtime::{Runtime, Source};

#[php_module]
#[php(startup = start_module)]
pub fn get_module(module: ModuleBuilder<'_>) -> ModuleBuilder<'_> {
    classes::functions::add(module.name("heartbus"))
        .info_function(info::print)
        .request_shutdown_function(end_request)
        .shutdown_function(stop_module)
}

extern "C" fn in_forked_child() {
    process::keep_id();
    log::after_fork();
}

/// glibc keeps what was freed, for the next time.
fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes the allocator's own locks, and touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

extern "C" fn start_module(kind: i32, number: i32) -> i32 {
    process::keep_id();
    log::begin_process();
    process::give_back_memory_with(give_back);
    // The usual one writes to number 2, whatever that is by now.
    std::panic::set_hook(Box::new(|fault| tracing::error!("A fault in Heartbus: {fault}")));
    // SAFETY: a process-wide registration, and this runs once per process.
    unsafe { shim::heartbus_watch_forks(in_forked_child) };
    ini::register(kind, number);
    runtime::serve_answers(&bus::Answers);
    let registered = exception::register()
        .and_then(|()| message::register())
        .and_then(|()| heartbeat_protocol::register())
        .and_then(|()| node::register())
        .and_then(|()| heartbeat_server::class::register())
        .and_then(|()| heartbeat_client::class::register())
        .and_then(|()| bus::register())
        .and_then(|()| host::register())
        .and_then(|()| classes::register());
    match registered {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("heartbus: {error}");
            -1
        }
    }
}

unsafe extern "C" fn stop_module(kind: i32, number: i32) -> i32 {
    ini::unregister(kind, number);
    0
}

unsafe extern "C" fn end_request(_kind: i32, _number: i32) -> i32 {
    run_handler(|| {
        bus::Answers.shut_down();
        Runtime::shut_down();
        log::end_request();
        classes::logger::end_request();
    });
    0
}
