//! `PfinalClub\AsyncioHeartbeat\Node\HeartbeatMonitor`: lets a `NodeManager` check its nodes now and then, by a timer of
//! whichever event loop runs. The nodes of a server are checked by the engine, which tells the monitors of its manager.

use super::node_manager;
use super::state::{self, Field, catch_exception, items, log_throwable};
use super::waiting::{Timer, call_in_fiber};
use crate::arguments;
use crate::declare::Declare;
use crate::php::{self, Call, Callable, Outcome, invoke, map, value};
use crate::ranges::{self, LONGEST, SHORTEST};
use crate::running_server;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object};
use ext_php_rs::types::{ZendEmptyArray, Zval};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

const RUNNING: Field = Field::new(0, c"running");
/// The timer of the next check; null when there is none.
const TASK: Field = Field::new(1, c"task");
const TIMEOUT_CALLBACKS: Field = Field::new(2, c"timeoutCallbacks");
const CHECK_COUNT: Field = Field::new(3, c"checkCount");
const NODE_MANAGER: Field = Field::new(4, c"nodeManager");
const CHECK_INTERVAL: Field = Field::new(5, c"checkInterval");

pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(r"PfinalClub\AsyncioHeartbeat\Node\HeartbeatMonitor")
        .declare(r"__construct(PfinalClub\AsyncioHeartbeat\Node\NodeManager $nodeManager, float $checkInterval = 10.0)", construct)
        .declare("start(): void", start)
        .declare("stop(): void", stop)
        .declare("onTimeout(callable $callback): void", on_timeout)
        .declare("clearTimeoutCallbacks(): void", clear_timeout_callbacks)
        .declare("setCheckInterval(float $interval): void", set_check_interval)
        .declare("getCheckInterval(): float", get_check_interval)
        .declare("isRunning(): bool", is_running)
        .declare("getStats(): array", get_stats)
        .declare("private check(): void", check)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            RUNNING.declare(class, "bool", Some(value(false)));
            TASK.declare(class, "mixed", Some(Zval::null()));
            TIMEOUT_CALLBACKS.declare(class, "array", Some(value(ZendEmptyArray)));
            CHECK_COUNT.declare(class, "int", Some(value(0i64)));
            NODE_MANAGER.declare(class, node_manager::NAME, None);
            CHECK_INTERVAL.declare(class, "float", None);
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

fn construct(call: &mut Call<'_>) -> Outcome {
    let (mut manager, class, mut interval) = (ptr::null_mut::<Zval>(), node_manager::class(), 10f64);
    call.parse(c"O|d", [(&raw mut manager).cast(), class.cast(), (&raw mut interval).cast()])?;
    ranges::seconds("HeartbeatMonitor: checkInterval", interval, SHORTEST..=LONGEST)?;
    let this = call.this();
    // SAFETY: an argument of this call.
    NODE_MANAGER.set(this, unsafe { (*manager).dereference() }.shallow_clone());
    CHECK_INTERVAL.set(this, value(interval));
    Ok(())
}

/// Where no event loop runs yet there is no timer: starting again under one makes it.
fn start(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let manager = NODE_MANAGER.object(this)?;
    if RUNNING.is_true(this) && !TASK.get(this).is_null() {
        return Ok(());
    }
    RUNNING.set(this, value(true));
    running_server::watch_timeouts(&manager, this)?;
    schedule(this)
}

fn schedule(monitor: *mut zend_object) -> Outcome {
    // SAFETY: class entries of internal classes live as long as the process.
    let check = php::method_closure(unsafe { &*CLASS.load(Ordering::Relaxed) }, monitor, "check");
    let timer = Timer::start(CHECK_INTERVAL.float(monitor), check)?;
    TASK.set(monitor, timer.map_or_else(Zval::null, Timer::save));
    Ok(())
}

fn stop(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    RUNNING.set(this, value(false));
    running_server::unwatch_timeouts(&NODE_MANAGER.get(this), this);
    let timer = TASK.get(this);
    TASK.set(this, Zval::null());
    Timer::cancel_saved(&timer)
}

fn check(call: &mut Call<'_>) -> Outcome {
    let this = call.this();
    if !RUNNING.is_true(this) {
        return Ok(());
    }
    // First of all: whatever a callback does, the next check comes.
    schedule(this)?;
    CHECK_COUNT.add(this, 1);
    log_throwable(check_nodes(this), c"Error in HeartbeatMonitor").map(drop)
}

fn check_nodes(monitor: *mut zend_object) -> Outcome {
    let manager = NODE_MANAGER.object(monitor)?;
    let timed_out = invoke(&manager, c"checktimeout", [])?;
    for id in items(&timed_out) {
        let node = invoke(&manager, c"getnode", [state::to_string(id)?])?;
        if node.is_object() {
            tell(monitor, &node)?;
        }
    }
    Ok(())
}

/// Calls back for a node that timed out.
pub(crate) fn tell(monitor: *mut zend_object, node: &Zval) -> Outcome {
    for callback in TIMEOUT_CALLBACKS.table(monitor).values() {
        // An \Exception is the callback's own affair; an \Error is told to PHP's error log.
        let called = catch_exception(call_in_fiber(&callback, node.shallow_clone()));
        log_throwable(called, c"Error in a timeout callback")?;
    }
    Ok(())
}

fn on_timeout(call: &mut Call<'_>) -> Outcome {
    let mut callback = ptr::null_mut::<Zval>();
    arguments!(call, c"z", callback)?;
    let callback = Callable::new(callback, 1)?.zval().shallow_clone();
    TIMEOUT_CALLBACKS.table(call.this()).push(callback);
    Ok(())
}

fn clear_timeout_callbacks(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    TIMEOUT_CALLBACKS.set(call.this(), value(ZendEmptyArray));
    Ok(())
}

fn set_check_interval(call: &mut Call<'_>) -> Outcome {
    let mut interval = 0f64;
    arguments!(call, c"d", interval)?;
    ranges::seconds("setCheckInterval(): interval", interval, SHORTEST..=LONGEST)?;
    CHECK_INTERVAL.set(call.this(), value(interval));
    Ok(())
}

fn get_check_interval(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    CHECK_INTERVAL.require(this)?;
    let interval = CHECK_INTERVAL.float(this);
    call.result.set_double(interval);
    Ok(())
}

fn is_running(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let running = RUNNING.is_true(call.this());
    call.result.set_bool(running);
    Ok(())
}

fn get_stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    CHECK_INTERVAL.require(this)?;
    *call.result = map([
        ("running", value(RUNNING.is_true(this))),
        ("check_interval", value(CHECK_INTERVAL.float(this))),
        ("check_count", value(CHECK_COUNT.int(this))),
        ("timeout_callbacks", value(TIMEOUT_CALLBACKS.table(this).len())),
    ]);
    Ok(())
}
