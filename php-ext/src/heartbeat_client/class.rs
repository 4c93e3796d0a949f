//! `PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient`, the PHP class: its methods, and how their arguments are read.

use super::fleet::start;
use super::{Client, KINDS};
use crate::arguments;
use crate::callbacks;
use crate::classes::position;
use crate::clock::microtime;
use crate::config::{self, Loop};
use crate::declare::Declare;
use crate::exception;
use crate::php::{self, Call, Callable, Outcome, bytes, map, object, text, value};
use crate::polling::{get_event_stream, poll};
use crate::runtime::Runtime;
use crate::workerman::Workerman;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::zend_string;
use ext_php_rs::types::Zval;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::net::client::Client as Engine;
use heartbus_core::text::{nearest, printable};
use heartbus_core::wire::topic;
use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::Rc;

/// Name of the worker that Workerman shows.
const WORKER: &str = "HeartbeatClient";
pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(r"PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient")
        .declare("__construct(string $host = '127.0.0.1', int $port = 9501, array $config = [])", construct)
        .declare("connect(): void", connect)
        .declare("disconnect(): void", disconnect)
        .declare("send(string $data, int $channelId = 0): bool", send)
        .declare("ping(): bool", ping)
        .declare("addNode(string $nodeId, array $metadata = []): bool", add_node)
        .declare("removeNode(string $nodeId): bool", remove_node)
        .declare("sendFrom(string $nodeId, string $data): bool", send_from)
        .declare("heartbeat(string $nodeId): bool", heartbeat)
        .declare(r"subscribe(string $topic, callable $callback, ?Heartbus\Position $since = null): bool", subscribe)
        .declare("unsubscribe(string $topic): bool", unsubscribe)
        .declare("publish(string $topic, string $data, int $number = 0): bool", publish)
        .declare("on(string $event, callable $callback): void", on)
        .declare("isConnected(): bool", is_connected)
        .declare("getNodeId(): ?string", get_node_id)
        .declare("getChannelId(): ?int", get_channel_id)
        .declare("getStats(): array", get_stats)
        .declare("static run(): void", run)
        .declare("static poll(float $timeout = 0.0): int", poll)
        .declare("static getEventStream()", get_event_stream)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            php::hold::<Client>(class);
        })
        .register()
}
fn construct(call: &mut Call<'_>) -> Outcome {
    let (mut host, mut port, mut config) = (ptr::null_mut::<zend_string>(), 9501i64, ptr::null_mut::<Zval>());
    arguments!(call, c"|Sla", host, port, config)?;
    let host = if host.is_null() { "127.0.0.1".into() } else { String::from_utf8_lossy(bytes(host)) };
    // SAFETY: an argument of this call, or null when it was left out.
    let config = unsafe { config.as_ref() }.map_or_else(Zval::new_array, |config| config.dereference().shallow_clone());
    let client = Client {
        host: host.into_owned(),
        port,
        config,
        callbacks: RefCell::default(),
        is_waiting: Cell::new(false),
        is_finished: Cell::new(false),
        is_closed: Cell::new(false),
        wants_again: Cell::new(false),
        has_settled_log: Cell::new(false),
        engine: RefCell::default(),
        before: RefCell::default(),
        ahead_before: Cell::default(),
        nodes: RefCell::default(),
        topics: RefCell::default(),
    };
    // SAFETY: an object of our class.
    unsafe { php::set_held(call.this(), Rc::new(client)) };
    Ok(())
}

fn connect(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let client = call.held::<Client>()?;
    let this = object(call.this());
    if client.is_waiting.get() || client.is_live() {
        client.wants_again.set(client.is_closed.get());
        return Ok(());
    }
    let runtime = Runtime::current();
    let event_loop = config::client(client.settings())?.event_loop;
    if runtime.is_looping() || matches!(event_loop, Loop::Native | Loop::Manual) {
        return start(&runtime, &this);
    }
    if runtime.join_running_loop(event_loop)? {
        return start(&runtime, &this);
    }
    if matches!(event_loop, Loop::Revolt | Loop::React) || !Workerman::exists(true)? {
        if event_loop == Loop::Workerman {
            return Err(exception::fail(ErrorKind::Config, r"'loop' => 'workerman' needs Workerman: there is no class Workerman\Worker"));
        }
        runtime.join_loop_to_come(event_loop)?;
        return start(&runtime, &this);
    }
    // Workerman is there and does not run yet: `Worker::runAll()` may follow, or `run()`.
    client.is_waiting.set(true);
    runtime.wait(this, start);
    if runtime.wants_client_worker() {
        runtime.workerman.add_worker(WORKER, callbacks::worker_start())?;
    }
    Ok(())
}

fn disconnect(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let client = call.held::<Client>()?;
    if client.is_waiting.replace(false) {
        Runtime::current().stop_waiting(&object(call.this()));
        return Ok(());
    }
    let engine = client.engine.borrow().clone();
    match engine {
        Some(engine) if !engine.is_own_process() => Err(exception::raise(&Error::wrong_process())),
        Some(engine) => {
            client.is_closed.set(true);
            client.wants_again.set(false);
            engine.disconnect();
            Ok(())
        }
        None => Ok(()),
    }
}

fn send(call: &mut Call<'_>) -> Outcome {
    let (mut data, mut channel_id) = (ptr::null_mut::<zend_string>(), 0i64);
    arguments!(call, c"S|l", data, channel_id)?;
    let sent = call.held::<Client>()?.command("send", |engine| engine.send(bytes(data), channel_id))?;
    call.result.set_bool(sent);
    Ok(())
}

fn ping(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let sent = call.held::<Client>()?.command("ping", Engine::ping)?;
    call.result.set_bool(sent);
    Ok(())
}

fn add_node(call: &mut Call<'_>) -> Outcome {
    let (mut node_id, mut metadata) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"S|a", node_id, metadata)?;
    let client = call.held::<Client>()?;
    let node_id = id_of(node_id)?;
    // SAFETY: an argument of this call, or null when it was left out.
    let metadata = unsafe { metadata.as_ref() }.map_or_else(|| Ok("[]".to_owned()), |array| config::metadata(array.dereference()))?;
    let added = client.add_node(node_id, metadata)?;
    call.result.set_bool(added);
    Ok(())
}

fn remove_node(call: &mut Call<'_>) -> Outcome {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let removed = call.held::<Client>()?.remove_node(id_of(node_id)?)?;
    call.result.set_bool(removed);
    Ok(())
}

fn send_from(call: &mut Call<'_>) -> Outcome {
    let (mut node_id, mut data) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<zend_string>());
    arguments!(call, c"SS", node_id, data)?;
    let node_id = id_of(node_id)?;
    let sent = call.held::<Client>()?.command("send", |engine| engine.send_from(node_id, bytes(data)))?;
    call.result.set_bool(sent);
    Ok(())
}

fn heartbeat(call: &mut Call<'_>) -> Outcome {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let node_id = id_of(node_id)?;
    let sent = call.held::<Client>()?.command("heartbeat", |engine| engine.heartbeat(node_id))?;
    call.result.set_bool(sent);
    Ok(())
}

fn subscribe(call: &mut Call<'_>) -> Outcome {
    let (mut filter, mut callback, mut since) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>(), ptr::null_mut::<Zval>());
    arguments!(call, c"Sz|z", filter, callback, since)?;
    let client = call.held::<Client>()?;
    let callback = Rc::new(Callable::new(callback, 2)?);
    // SAFETY: an argument of this call, or null when it was left out.
    let since = position::since(r"PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient::subscribe", unsafe { since.as_ref() })?;
    let subscribed = client.subscribe(topic_of(filter)?, callback, since)?;
    call.result.set_bool(subscribed);
    Ok(())
}

fn unsubscribe(call: &mut Call<'_>) -> Outcome {
    let mut filter = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", filter)?;
    let unsubscribed = call.held::<Client>()?.unsubscribe(topic_of(filter)?)?;
    call.result.set_bool(unsubscribed);
    Ok(())
}

fn publish(call: &mut Call<'_>) -> Outcome {
    let (mut topic, mut data, mut number) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<zend_string>(), 0i64);
    arguments!(call, c"SS|l", topic, data, number)?;
    let topic = topic_of(topic)?;
    topic::check_name(topic).map_err(|bad| exception::invalid_argument(&bad.to_string()))?;
    let Ok(number) = u32::try_from(number) else {
        return Err(exception::invalid_argument(&format!("The number of a publication is 0 to {}, not {number}", u32::MAX)));
    };
    let number = Some(number).filter(|number| *number != 0);
    let published = call.held::<Client>()?.command("publish", |engine| engine.publish(topic, bytes(data), number))?;
    call.result.set_bool(published);
    Ok(())
}

/// A topic or filter among the arguments of a call.
fn topic_of<'a>(argument: *const zend_string) -> Outcome<&'a str> {
    std::str::from_utf8(bytes(argument)).map_err(|_| exception::invalid_argument("A topic is valid UTF-8"))
}

/// A node id among the arguments of a call.
fn id_of<'a>(argument: *const zend_string) -> Outcome<&'a str> {
    std::str::from_utf8(bytes(argument)).map_err(|_| exception::invalid_argument("node_id must be valid UTF-8"))
}

fn on(call: &mut Call<'_>) -> Outcome {
    let (mut event, mut callback) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"Sz", event, callback)?;
    let client = call.held::<Client>()?;
    let callback = Rc::new(Callable::new(callback, 2)?);
    if let Some(place) = KINDS.iter().position(|name| name.as_bytes() == bytes(event)) {
        let _replaced = client.callbacks.borrow_mut()[place].replace(callback);
        return Ok(());
    }
    // As in the original, an unknown name is accepted, and never fires.
    let given = String::from_utf8_lossy(bytes(event));
    let meant = nearest(&given, KINDS).map(|meant| format!("; did you mean '{meant}'?"));
    client.settle_log();
    config::tell_unknown(&[format!(
        "A client has no event '{}': its callback is never called{}",
        printable(&given),
        meant.unwrap_or_default()
    )]);
    Ok(())
}

fn is_connected(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let client = call.held::<Client>()?;
    call.result.set_bool(client.stats().connected);
    Ok(())
}

fn get_node_id(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let client = call.held::<Client>()?;
    *call.result = client.stats().node_id.map_or_else(Zval::null, |id| text(&*id));
    Ok(())
}

fn get_channel_id(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let client = call.held::<Client>()?;
    *call.result = client.stats().channel_id.map_or_else(Zval::null, |id| value(i64::from(id)));
    Ok(())
}

fn get_stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let client = call.held::<Client>()?;
    let (stats, subscriptions) = (client.stats(), client.topics.borrow().len());
    let channels = i64::from(stats.connected && stats.channel_id.is_some());
    *call.result = map([
        ("connected", value(stats.connected)),
        ("node_id", stats.node_id.map_or_else(Zval::null, |id| text(&*id))),
        ("channel_id", stats.channel_id.map_or_else(Zval::null, |id| value(i64::from(id)))),
        ("messages_sent", value(stats.messages_sent as i64)),
        ("messages_received", value(stats.messages_received as i64)),
        ("reconnect_attempts", value(i64::from(stats.reconnect_attempts))),
        ("uptime", stats.connected_at.map_or_else(|| value(0i64), |at| value((microtime() - at).max(0.0)))),
        ("channels", value(channels)),
        ("nodes", value(stats.nodes as i64)),
        ("subscriptions", value(subscriptions as i64)),
        ("reads_paused", value(stats.reads_paused as i64)),
        ("frames_refused", value(stats.frames_refused as i64)),
        ("bytes_waiting", value(stats.bytes_waiting as i64)),
        ("bytes_kept", value(stats.bytes_kept as i64)),
    ]);
    Ok(())
}

fn run(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let runtime = Runtime::current();
    runtime.check_not_inside("HeartbeatClient::run()")?;
    runtime.run(|| Ok(()), &|| !runtime.has_clients())
}
