//! `PfinalClub\AsyncioHeartbeat\Node\Node`: what is known of a node, as a PHP value. A plain value: the engine has its own
//! record, of which an event hands PHP a copy. Metadata that is set of such a copy goes to the engine.

use crate::arguments;
use crate::bindings;
use crate::clock::microtime;
use crate::config;
use crate::declare::Declare;
use crate::exception;
use crate::moments;
use crate::php::{self, Call, Outcome, Thrown, map, string, text, value};
use crate::properties::{Property, Type};
use crate::ranges;
use crate::shim;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object, zend_string};
use ext_php_rs::types::{ZendEmptyArray, ZendStr, Zval};
use heartbus_core::hub::NodeInfo;
use std::io::Write;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

const LAST_HEARTBEAT_TIME: Property = Property::new(0, "lastHeartbeatTime");
const HEARTBEAT_COUNT: Property = Property::new(1, "heartbeatCount");
const STATUS: Property = Property::new(2, "status");
const METADATA: Property = Property::new(3, "metadata");
const CREATED_AT: Property = Property::new(4, "createdAt");
const TOTAL_MESSAGES: Property = Property::new(5, "totalMessages");
const LAST_MESSAGE_TIME: Property = Property::new(6, "lastMessageTime");
const ID: Property = Property::new(7, "id");
const IP: Property = Property::new(8, "ip");
const PORT: Property = Property::new(9, "port");
const CONNECTION_ID: Property = Property::new(10, "connectionId");
const BYTES_WAITING: Property = Property::new(11, "bytesWaiting");

const TIMES: [Property; 3] = [LAST_HEARTBEAT_TIME, CREATED_AT, LAST_MESSAGE_TIME];

const ONLINE: &str = "online";
const OFFLINE: &str = "offline";

pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(r"PfinalClub\AsyncioHeartbeat\Node\Node")
        .declare("__construct(string $id, string $ip, int $port, int $connectionId)", construct)
        .declare("updateHeartbeat(): void", update_heartbeat)
        .declare("updateMessage(): void", update_message)
        .declare("isTimeout(float $timeoutSeconds): bool", is_timeout)
        .declare("getSecondsSinceLastHeartbeat(): float", get_seconds_since_last_heartbeat)
        .declare("getLifetime(): float", get_lifetime)
        .declare("markOffline(): void", mark_offline)
        .declare("markOnline(): void", mark_online)
        .declare("setMetadata(string $key, mixed $value): void", set_metadata)
        .declare("getMetadata(string $key, mixed $default = null): mixed", get_metadata)
        .declare("isOnline(): bool", is_online)
        .declare("toArray(): array", to_array)
        .declare("getSummary(): string", get_summary)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            LAST_HEARTBEAT_TIME.declare(class, Type::Float, false, None);
            HEARTBEAT_COUNT.declare(class, Type::Int, false, Some(value(0i64)));
            STATUS.declare(class, Type::String, false, Some(text(ONLINE)));
            METADATA.declare(class, Type::Array, false, Some(value(ZendEmptyArray)));
            CREATED_AT.declare(class, Type::Float, false, None);
            TOTAL_MESSAGES.declare(class, Type::Int, false, Some(value(0i64)));
            LAST_MESSAGE_TIME.declare(class, Type::Float, false, None);
            ID.declare(class, Type::String, true, None);
            IP.declare(class, Type::String, true, None);
            PORT.declare(class, Type::Int, true, None);
            CONNECTION_ID.declare(class, Type::Int, true, None);
            BYTES_WAITING.declare(class, Type::Int, false, Some(value(0i64)));
            moments::keep(class);
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

pub(crate) fn class() -> *mut zend_class_entry {
    CLASS.load(Ordering::Relaxed)
}

/// Whether no subclass can have methods of its own.
pub(crate) fn is_plain(node: *mut zend_object) -> bool {
    // SAFETY: callers pass live objects.
    ptr::eq(unsafe { (*node).ce }, class())
}

/// The id, and the connection.
pub(crate) fn identity(node: *mut zend_object) -> Outcome<(Zval, i64)> {
    Ok((ID.read(node)?, CONNECTION_ID.int(node)?))
}

pub(crate) fn online(node: *mut zend_object) -> Outcome<bool> {
    Ok(string_bytes(&STATUS.read(node)?) == ONLINE.as_bytes())
}

/// Heartbeats and messages.
pub(crate) fn counts(node: *mut zend_object) -> Outcome<(i64, i64)> {
    Ok((HEARTBEAT_COUNT.int(node)?, TOTAL_MESSAGES.int(node)?))
}

/// A copy of the engine's record, at this moment.
pub(crate) fn create(info: &NodeInfo) -> Outcome<Zval> {
    let mut node = Zval::new();
    // SAFETY: the class is registered and can be instantiated.
    unsafe { shim::object_init_ex(&raw mut node, CLASS.load(Ordering::Relaxed)) };
    let object = node.object_mut().map(ptr::from_mut).ok_or(Thrown)?;
    refresh(object, info, true);
    ID.fill(object, text(&*info.id));
    IP.fill(object, ip(info));
    PORT.fill(object, value(i64::from(info.peer.port())));
    CONNECTION_ID.fill(object, value(info.connection_id as i64));
    Ok(node)
}

/// Brings a copy of the engine's record up to date.
pub(crate) fn refresh(object: *mut zend_object, info: &NodeInfo, with_metadata: bool) {
    // The engine tells its moments by the wall clock as it is now: when that was set, they are others.
    let ahead = moments::ahead();
    if !CREATED_AT.peek(object).is_some_and(|shown| (shown - info.created_at).abs() < 0.1) {
        show(object, CREATED_AT, info.created_at, ahead);
    }
    show(object, LAST_HEARTBEAT_TIME, info.last_heartbeat, ahead);
    HEARTBEAT_COUNT.fill(object, value(info.heartbeat_count as i64));
    if !STATUS.holds(object, status(info)) {
        STATUS.fill(object, text(status(info)));
    }
    TOTAL_MESSAGES.fill(object, value(info.total_messages as i64));
    BYTES_WAITING.fill(object, value(info.bytes_waiting as i64));
    LAST_MESSAGE_TIME.fill(object, value(if info.last_message > 0.0 { info.last_message } else { info.created_at }));
    show(object, LAST_MESSAGE_TIME, if info.last_message > 0.0 { info.last_message } else { info.created_at }, ahead);
    if with_metadata {
        METADATA.fill(object, metadata(&info.metadata));
    }
}

/// Sets one of the three times.
fn show(node: *mut zend_object, time: Property, moment: f64, ahead: f64) {
    moments::note(node, place(time), moment, ahead);
    time.fill(node, value(moment));
}

/// Sets one of the three times to now, as PHP code would write it.
fn touch(node: *mut zend_object, time: Property) -> Outcome {
    let now = microtime();
    moments::note(node, place(time), now, moments::ahead());
    time.write(node, value(now))
}

fn place(time: Property) -> usize {
    TIMES.iter().position(|other| other.is_same(time)).unwrap_or_default()
}

/// `toArray()` of the engine's record, without an object.
pub(crate) fn describe(info: &NodeInfo) -> Zval {
    let now = microtime();
    map([
        ("id", text(&*info.id)),
        ("ip", ip(info)),
        ("port", value(i64::from(info.peer.port()))),
        ("connection_id", value(info.connection_id as i64)),
        ("status", text(status(info))),
        ("last_heartbeat", value(info.last_heartbeat)),
        ("seconds_since_heartbeat", value(now - info.last_heartbeat)),
        ("heartbeat_count", value(info.heartbeat_count as i64)),
        ("total_messages", value(info.total_messages as i64)),
        ("created_at", value(info.created_at)),
        ("lifetime", value(now - info.created_at)),
        ("metadata", metadata(&info.metadata)),
    ])
}

fn ip(info: &NodeInfo) -> Zval {
    // As long as addresses get. This is done for nearly every event: a `String` would grow several times.
    let mut buffer = [0; 45];
    let mut rest = &mut buffer[..];
    let _ = write!(rest, "{}", info.peer.ip().to_canonical());
    let left = rest.len();
    text(&buffer[..buffer.len() - left])
}

fn status(info: &NodeInfo) -> &'static str {
    if info.online { ONLINE } else { OFFLINE }
}

/// Metadata as PHP has it: an array.
pub(crate) fn metadata(json: &str) -> Zval {
    match json {
        "[]" | "{}" => value(ZendEmptyArray),
        json => Some(php::json_decode(json.as_bytes())).filter(Zval::is_array).unwrap_or_else(|| value(ZendEmptyArray)),
    }
}

fn construct(call: &mut Call<'_>) -> Outcome {
    let (mut id, mut ip) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<zend_string>());
    let (mut port, mut connection_id) = (0i64, 0i64);
    arguments!(call, c"SSll", id, ip, port, connection_id)?;
    let this = call.this();
    if ID.is_initialized(this) {
        return Err(exception::error(r"Cannot modify readonly property PfinalClub\AsyncioHeartbeat\Node\Node::$id"));
    }
    ID.fill(this, string(id));
    IP.fill(this, string(ip));
    PORT.fill(this, value(port));
    CONNECTION_ID.fill(this, value(connection_id));
    for time in TIMES {
        show(this, time, microtime(), moments::ahead());
    }
    Ok(())
}

fn update_heartbeat(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    touch(this, LAST_HEARTBEAT_TIME)?;
    HEARTBEAT_COUNT.write(this, value(HEARTBEAT_COUNT.int(this)? + 1))?;
    STATUS.write(this, text(ONLINE))
}

fn update_message(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    touch(this, LAST_MESSAGE_TIME)?;
    TOTAL_MESSAGES.write(this, value(TOTAL_MESSAGES.int(this)? + 1))
}

fn is_timeout(call: &mut Call<'_>) -> Outcome {
    let mut timeout = 0f64;
    arguments!(call, c"d", timeout)?;
    ranges::finite("isTimeout(): timeoutSeconds", timeout)?;
    let silent = since(call.this(), LAST_HEARTBEAT_TIME)?;
    call.result.set_bool(silent > timeout);
    Ok(())
}

fn get_seconds_since_last_heartbeat(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let silent = since(call.this(), LAST_HEARTBEAT_TIME)?;
    call.result.set_double(silent);
    Ok(())
}

fn get_lifetime(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let age = since(call.this(), CREATED_AT)?;
    call.result.set_double(age);
    Ok(())
}

fn mark_offline(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    STATUS.write(call.this(), text(OFFLINE))
}

fn mark_online(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    STATUS.write(call.this(), text(ONLINE))
}

fn set_metadata(call: &mut Call<'_>) -> Outcome {
    let (mut key, mut value) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"Sz", key, value)?;
    let this = call.this();
    if !METADATA.is_initialized(this) {
        METADATA.write(this, php::value(ZendEmptyArray))?;
    }
    let mut kept;
    if let Some(shown) = bindings::shown_node(this) {
        // SAFETY: an argument of this call.
        let given = unsafe { value.as_ref() }.map(Zval::dereference).ok_or(Thrown)?;
        let members = config::members([(string(key), given)])?;
        shown.set_metadata(this, &members)?;
        if given.is_object() || given.is_array() {
            // As everybody else will see it.
            kept = php::json_decode(members.as_bytes())
                .array()
                .and_then(|set| php::values(set).next())
                .map_or_else(Zval::null, Zval::shallow_clone);
            value = &raw mut kept;
        }
    }
    // SAFETY: the slot holds an array, because it is typed; C separates it before it changes it, and copies the value.
    unsafe { shim::heartbus_array_set(METADATA.slot(this), key, value) };
    Ok(())
}

fn get_metadata(call: &mut Call<'_>) -> Outcome {
    let (mut key, mut default) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"S|z", key, default)?;
    let metadata = METADATA.read(call.this())?;
    // As `??`: a null counts as missing.
    // SAFETY: the array and the key live through the call.
    let found = unsafe { shim::heartbus_array_get(&raw const metadata, key).as_ref() };
    *call.result = match found.map(Zval::dereference).filter(|value| !value.is_null()) {
        Some(value) => value.shallow_clone(),
        // SAFETY: an argument of this call, or null when it was left out.
        None => unsafe { default.as_ref() }.map_or_else(Zval::null, |value| value.dereference().shallow_clone()),
    };
    Ok(())
}

fn is_online(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let online = online(call.this())?;
    call.result.set_bool(online);
    Ok(())
}

fn to_array(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    *call.result = map([
        ("id", ID.read(this)?),
        ("ip", IP.read(this)?),
        ("port", PORT.read(this)?),
        ("connection_id", CONNECTION_ID.read(this)?),
        ("status", STATUS.read(this)?),
        ("last_heartbeat", LAST_HEARTBEAT_TIME.read(this)?),
        ("seconds_since_heartbeat", value(since(this, LAST_HEARTBEAT_TIME)?)),
        ("heartbeat_count", HEARTBEAT_COUNT.read(this)?),
        ("total_messages", TOTAL_MESSAGES.read(this)?),
        ("created_at", CREATED_AT.read(this)?),
        ("lifetime", value(since(this, CREATED_AT)?)),
        ("metadata", METADATA.read(this)?),
    ]);
    Ok(())
}

fn get_summary(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let mut summary = b"Node[".to_vec();
    summary.extend_from_slice(string_bytes(&ID.read(this)?));
    summary.extend_from_slice(b"] ");
    summary.extend_from_slice(string_bytes(&IP.read(this)?));
    summary.extend_from_slice(format!(":{} - ", PORT.int(this)?).as_bytes());
    summary.extend_from_slice(string_bytes(&STATUS.read(this)?));
    let (heartbeats, lifetime) = (HEARTBEAT_COUNT.int(this)?, since(this, CREATED_AT)?);
    summary.extend_from_slice(format!(" (heartbeats: {heartbeats}, lifetime: {lifetime:.1}s)").as_bytes());
    *call.result = text(summary);
    Ok(())
}

fn since(node: *mut zend_object, time: Property) -> Outcome<f64> {
    let shown = time.float(node)?;
    Ok(moments::since(node, place(time), shown))
}

fn string_bytes(value: &Zval) -> &[u8] {
    value.zend_str().map_or(&[], ZendStr::as_bytes)
}
