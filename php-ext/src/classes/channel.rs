//! `PfinalClub\AsyncioHeartbeat\Channel\Channel`: two bounded queues in memory, and those who wait for the receive queue.
//!
//! The queues are arrays in private properties, so that a channel clones and serializes as the original's do.

use super::future;
use super::state::{self, Field, Table, items};
use super::waiting::{self, Suspension, Timer};
use crate::arguments;
use crate::bindings::{Sent, shown_channel};
use crate::clock::microtime;
use crate::config::DEFAULT_QUEUE_SIZE;
use crate::declare::Declare;
use crate::exception;
use crate::moments;
use crate::php::{self, Call, Outcome, Thrown, invoke, map, string, value};
use crate::properties::{Property, Type};
use crate::ranges::{self, LONGEST};
use crate::shim;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object, zend_string};
use ext_php_rs::types::{ZendEmptyArray, Zval};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

pub(crate) const NAME: &str = r"PfinalClub\AsyncioHeartbeat\Channel\Channel";

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

const SEND_QUEUE: Field = Field::new(0, c"sendQueue");
const RECV_QUEUE: Field = Field::new(1, c"recvQueue");
const WAITING: Field = Field::new(2, c"waitingFutures");
const CLOSED: Field = Field::new(3, c"closed");
const SEND_COUNT: Field = Field::new(4, c"sendCount");
const RECV_COUNT: Field = Field::new(5, c"recvCount");
const CREATED_AT: Field = Field::new(6, c"createdAt");
const ID: Property = Property::new(7, "id");
const NODE_ID: Property = Property::new(8, "nodeId");
const MAX_QUEUE_SIZE: Field = Field::new(9, c"maxQueueSize");

pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(NAME)
        .declare("__construct(int $id, string $nodeId, int $maxQueueSize = 1000)", construct)
        .declare("send(string $data): bool", send)
        .declare("trySend(string $data, bool $dropOldest = false): bool", try_send)
        .declare("recv(float $timeout = 0.0): mixed", recv)
        .declare(r"recvAsync(): PfinalClub\Asyncio\Future", recv_async)
        .declare("putRecv(string $data): bool", put_recv)
        .declare("tryPutRecv(string $data, bool $dropOldest = false): bool", try_put_recv)
        .declare("getSendQueue(): array", get_send_queue)
        .declare("getSendQueueSize(): int", get_send_queue_size)
        .declare("getRecvQueueSize(): int", get_recv_queue_size)
        .declare("close(): void", close)
        .declare("isClosed(): bool", is_closed)
        .declare("getStats(): array", get_stats)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            SEND_QUEUE.declare(class, "array", Some(value(ZendEmptyArray)));
            RECV_QUEUE.declare(class, "array", Some(value(ZendEmptyArray)));
            WAITING.declare(class, "array", Some(value(ZendEmptyArray)));
            CLOSED.declare(class, "bool", Some(value(false)));
            SEND_COUNT.declare(class, "int", Some(value(0i64)));
            RECV_COUNT.declare(class, "int", Some(value(0i64)));
            CREATED_AT.declare(class, "float", None);
            ID.declare(class, Type::Int, true, None);
            NODE_ID.declare(class, Type::String, true, None);
            MAX_QUEUE_SIZE.declare(class, "int", None);
            moments::keep(class);
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

/// The object of a value, when it is a channel.
pub(crate) fn of(value: &Zval) -> Option<*mut zend_object> {
    state::instance(value, CLASS.load(Ordering::Relaxed))
}

pub(crate) fn create(id: i64, node_id: Zval, max_queue_size: i64) -> Outcome<Zval> {
    let mut channel = Zval::new();
    // SAFETY: the class is registered and can be instantiated.
    unsafe { shim::object_init_ex(&raw mut channel, CLASS.load(Ordering::Relaxed)) };
    let object = channel.object_mut().map(ptr::from_mut).ok_or(Thrown)?;
    fill(object, id, node_id, max_queue_size);
    Ok(channel)
}

fn fill(channel: *mut zend_object, id: i64, node_id: Zval, max_queue_size: i64) {
    ID.fill(channel, value(id));
    NODE_ID.fill(channel, node_id);
    MAX_QUEUE_SIZE.set(channel, value(max_queue_size));
    set_created_at(channel, microtime());
}

pub(crate) fn id(channel: *mut zend_object) -> Outcome<i64> {
    ID.int(channel)
}

pub(crate) fn node_id(channel: *mut zend_object) -> Outcome<Zval> {
    NODE_ID.read(channel)
}

pub(crate) fn closed(channel: *mut zend_object) -> bool {
    CLOSED.is_true(channel)
}

pub(crate) fn set_created_at(channel: *mut zend_object, created_at: f64) {
    moments::note(channel, 0, created_at, moments::ahead());
    CREATED_AT.set(channel, value(created_at));
}

pub(crate) fn set_max_queue_size(channel: *mut zend_object, max_queue_size: i64) {
    MAX_QUEUE_SIZE.set(channel, value(max_queue_size));
}

/// Takes what came over the wire, and calls nobody: see [`serve_waiters`]. True when the oldest item was dropped for it.
pub(crate) fn accept(channel: *mut zend_object, data: Zval) -> bool {
    let is_full = RECV_QUEUE.table(channel).len() >= MAX_QUEUE_SIZE.int(channel);
    queue(channel, RECV_QUEUE, data, true);
    is_full
}

/// Takes nothing more. What is there can still be received; [`serve_waiters`] tells those who wait.
pub(crate) fn end(channel: *mut zend_object) {
    CLOSED.set(channel, value(true));
}

pub(crate) fn has_waiters(channel: *mut zend_object) -> bool {
    !WAITING.table(channel).is_empty()
}

/// Gives those who wait what is in the queue, oldest to oldest, and null when nothing can come any more. Runs PHP code.
pub(crate) fn serve_waiters(channel: *mut zend_object) -> Outcome {
    while has_waiters(channel) && (closed(channel) || !RECV_QUEUE.table(channel).is_empty()) {
        let Some(waiter) = WAITING.table(channel).shift() else { break };
        if !is_done(&waiter)? {
            // The question whether it is done may have run PHP code that took the item.
            match take(channel) {
                Some(item) => resolve(&waiter, item)?,
                None if closed(channel) => resolve(&waiter, Zval::null())?,
                None => {
                    give_back(channel, waiter);
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Puts a waiter in front again.
fn give_back(channel: *mut zend_object, waiter: Zval) {
    let waiters = WAITING.table(channel);
    let others = waiters.take();
    waiters.push(waiter);
    for other in items(&others) {
        waiters.push(other.shallow_clone());
    }
}

/// Whether it takes anything: on a server's channel, whether its node is still there.
fn shut_down(channel: *mut zend_object) -> Outcome<bool> {
    Ok(closed(channel) || shown_channel(channel)?.is_some_and(|shown| !shown.is_open()))
}

/// Resolves every waiter with null: runs PHP code.
pub(crate) fn shut(channel: *mut zend_object) -> Outcome {
    CLOSED.set(channel, value(true));
    SEND_QUEUE.table(channel).take();
    RECV_QUEUE.table(channel).take();
    let waiters = WAITING.table(channel).take();
    for waiter in items(&waiters) {
        resolve(waiter, Zval::null())?;
    }
    Ok(())
}

pub(crate) fn stats(channel: *mut zend_object) -> Outcome<Zval> {
    let created_at = CREATED_AT.float(channel);
    Ok(map([
        ("id", ID.read(channel)?),
        ("node_id", NODE_ID.read(channel)?),
        ("closed", value(shut_down(channel)?)),
        ("send_queue_size", value(SEND_QUEUE.table(channel).len())),
        ("recv_queue_size", value(RECV_QUEUE.table(channel).len())),
        ("waiting_futures", value(WAITING.table(channel).len())),
        ("send_count", value(SEND_COUNT.int(channel))),
        ("recv_count", value(RECV_COUNT.int(channel))),
        ("created_at", value(created_at)),
        ("lifetime", value(moments::since(channel, 0, created_at))),
    ]))
}

/// What a scheduler adds up: both queues' sizes and both counts.
pub(crate) fn totals(channel: *mut zend_object) -> [i64; 4] {
    [SEND_QUEUE.table(channel).len(), RECV_QUEUE.table(channel).len(), SEND_COUNT.int(channel), RECV_COUNT.int(channel)]
}

fn construct(call: &mut Call<'_>) -> Outcome {
    let (mut id, mut node_id, mut max_queue_size) = (0i64, ptr::null_mut::<zend_string>(), DEFAULT_QUEUE_SIZE);
    arguments!(call, c"lS|l", id, node_id, max_queue_size)?;
    let this = call.this();
    if ID.is_initialized(this) {
        return Err(exception::error(&format!("Cannot modify readonly property {NAME}::$id")));
    }
    fill(this, id, string(node_id), max_queue_size);
    Ok(())
}

fn send(call: &mut Call<'_>) -> Outcome {
    let mut data = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", data)?;
    let this = call.this();
    MAX_QUEUE_SIZE.require(this)?;
    let sent = if closed(this) { Sent::Gone } else { put(this, data, false)? };
    if matches!(sent, Sent::Gone) {
        return Err(exception::runtime_exception(&format!("Channel {} is closed", ID.int(this)?)));
    }
    count_sent(call, matches!(sent, Sent::Yes))
}

fn try_send(call: &mut Call<'_>) -> Outcome {
    let (mut data, mut drop_oldest) = (ptr::null_mut::<zend_string>(), false);
    arguments!(call, c"S|b", data, drop_oldest)?;
    let this = call.this();
    MAX_QUEUE_SIZE.require(this)?;
    let sent = !closed(this) && matches!(put(this, data, drop_oldest)?, Sent::Yes);
    count_sent(call, sent)
}

/// On a server's channel to its node, where what is on its way cannot be taken back for something newer; else into the
/// queue.
fn put(channel: *mut zend_object, data: *mut zend_string, drop_oldest: bool) -> Outcome<Sent> {
    match shown_channel(channel)? {
        Some(shown) => shown.send(php::bytes(data)),
        None if queue(channel, SEND_QUEUE, string(data), drop_oldest) => Ok(Sent::Yes),
        None => Ok(Sent::Refused),
    }
}

fn count_sent(call: &mut Call<'_>, sent: bool) -> Outcome {
    if sent {
        SEND_COUNT.add(call.this(), 1);
    }
    call.result.set_bool(sent);
    Ok(())
}

/// False when the queue is full.
fn queue(channel: *mut zend_object, queue: Field, data: Zval, drop_oldest: bool) -> bool {
    let items: Table = queue.table(channel);
    if items.len() >= MAX_QUEUE_SIZE.int(channel) {
        if !drop_oldest {
            return false;
        }
        items.shift();
    }
    items.push(data);
    true
}

fn put_recv(call: &mut Call<'_>) -> Outcome {
    let mut data = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", data)?;
    let taken = deliver(call.this(), string(data), false)?;
    call.result.set_bool(taken);
    Ok(())
}

fn try_put_recv(call: &mut Call<'_>) -> Outcome {
    let (mut data, mut drop_oldest) = (ptr::null_mut::<zend_string>(), false);
    arguments!(call, c"S|b", data, drop_oldest)?;
    let taken = deliver(call.this(), string(data), drop_oldest)?;
    call.result.set_bool(taken);
    Ok(())
}

/// To the oldest who waits, else into the queue. Runs PHP code.
fn deliver(channel: *mut zend_object, data: Zval, drop_oldest: bool) -> Outcome<bool> {
    MAX_QUEUE_SIZE.require(channel)?;
    if closed(channel) {
        return Ok(false);
    }
    while let Some(waiter) = WAITING.table(channel).shift() {
        // One that got its result elsewhere (a timeout of the application's own) takes no message.
        if !is_done(&waiter)? {
            RECV_COUNT.add(channel, 1);
            resolve(&waiter, data)?;
            return Ok(true);
        }
    }
    let queued = queue(channel, RECV_QUEUE, data, drop_oldest);
    keep(channel)?;
    Ok(queued)
}

fn is_done(waiter: &Zval) -> Outcome<bool> {
    match state::instance(waiter, future::class()) {
        Some(future) => Ok(future::done(future)),
        None => Ok(invoke(waiter, c"isdone", [])?.is_true()),
    }
}

fn resolve(waiter: &Zval, result: Zval) -> Outcome {
    if !waiter.is_object() || is_done(waiter)? {
        return Ok(());
    }
    match state::instance(waiter, future::class()) {
        Some(future) => future::complete(future, result),
        None => invoke(waiter, c"setresult", [result]).map(drop),
    }
}

/// What a server's channel has, or will have, must not end with the caller's variable.
fn keep(channel: *mut zend_object) -> Outcome {
    if let Some(shown) = shown_channel(channel)? {
        shown.keep(channel)?;
    }
    Ok(())
}

/// The next item of the receive queue.
fn take(channel: *mut zend_object) -> Option<Zval> {
    let item = RECV_QUEUE.table(channel).shift()?;
    RECV_COUNT.add(channel, 1);
    Some(item)
}

fn recv(call: &mut Call<'_>) -> Outcome {
    let mut timeout = 0f64;
    arguments!(call, c"|d", timeout)?;
    let given = ranges::seconds("recv(): timeout", timeout, 0.0..=LONGEST)?;
    let this = call.this();
    MAX_QUEUE_SIZE.require(this)?;
    keep(this)?;
    if let Some(item) = take(this) {
        *call.result = item;
        return Ok(());
    }
    if closed(this) {
        return Ok(());
    }
    // 0 is for ever.
    let timeout = (timeout > 0.0).then_some(given);
    *call.result = match Suspension::here(timeout.is_some())? {
        Some(suspension) => wait(this, &suspension, timeout)?,
        None => waiting::block(timeout, || if closed(this) { Some(Zval::null()) } else { take(this) })?.unwrap_or_else(Zval::null),
    };
    Ok(())
}

/// Waits as one of the waiters, suspended.
fn wait(channel: *mut zend_object, suspension: &Suspension, timeout: Option<Duration>) -> Outcome<Zval> {
    let waiter = future::create()?;
    let future = waiter.object().map(|object| ptr::from_ref(object).cast_mut()).ok_or(Thrown)?;
    let timer = match timeout {
        Some(timeout) => Timer::start(timeout.as_secs_f64(), future::expiry(future))?,
        None => None,
    };
    future::resumes(future, suspension);
    WAITING.table(channel).push(waiter.shallow_clone());
    while !future::done(future) {
        // Others may resume a fiber as well.
        if let Err(Thrown) = suspension.suspend() {
            // Thrown into, or destroyed. A timer that is left fires for nothing.
            future::abandon(future);
            leave(channel, future);
            return Err(Thrown);
        }
    }
    leave(channel, future);
    if let Some(timer) = timer {
        timer.cancel()?;
    }
    Ok(future::result(future))
}

/// Removes a waiter that the timeout or an exception ended; one that got a message is gone already.
fn leave(channel: *mut zend_object, future: *mut zend_object) {
    let waiters = WAITING.table(channel);
    let is_this = |waiter: &Zval| waiter.object().is_some_and(|object| ptr::eq(object, future));
    if !waiters.values().iter().any(is_this) {
        return;
    }
    let all = waiters.take();
    for waiter in items(&all).filter(|waiter| !is_this(waiter)) {
        waiters.push(waiter.shallow_clone());
    }
}

fn recv_async(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    MAX_QUEUE_SIZE.require(this)?;
    keep(this)?;
    let future = new_future()?;
    match take(this) {
        Some(item) => resolve(&future, item)?,
        None if closed(this) => resolve(&future, Zval::null())?,
        None => WAITING.table(this).push(future.shallow_clone()),
    }
    *call.result = future;
    Ok(())
}

/// pfinal-asyncio's own future where it is installed: in 2.x a public class, in 3.x an internal one.
fn new_future() -> Outcome<Zval> {
    const CLASSES: [&str; 2] = [r"PfinalClub\Asyncio\Future", r"PfinalClub\Asyncio\Internal\Future"];
    // Its functions are loaded when the application starts, its classes when they are first used.
    let is_installed = state::function_exists(r"pfinalclub\asyncio\sleep");
    for name in CLASSES {
        if let Some(class) = php::class_named(name, is_installed)? {
            let mut future = Zval::new();
            // SAFETY: a class that PHP has just found; one that cannot be instantiated throws.
            unsafe { shim::object_init_ex(&raw mut future, class) };
            php::pending_exception()?;
            return Ok(future);
        }
    }
    future::create()
}

fn get_send_queue(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    *call.result = SEND_QUEUE.table(call.this()).take();
    Ok(())
}

fn get_send_queue_size(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let size = SEND_QUEUE.table(call.this()).len();
    call.result.set_long(size);
    Ok(())
}

fn get_recv_queue_size(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let size = RECV_QUEUE.table(call.this()).len();
    call.result.set_long(size);
    Ok(())
}

/// On a server's channel this ends the receiving and sending here: the node and its connection stay.
fn close(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let _alive = php::object(this);
    if let Some(shown) = shown_channel(this)? {
        shown.let_go(this);
    }
    shut(this)
}

fn is_closed(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let closed = shut_down(call.this())?;
    call.result.set_bool(closed);
    Ok(())
}

fn get_stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    *call.result = stats(call.this())?;
    Ok(())
}
