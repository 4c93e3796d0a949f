//! `PfinalClub\AsyncioHeartbeat\Node\NodeManager`: nodes by their ids and by their connections.
//!
//! A connection leads to the node that it registered last, and only a node's own connection ends it: taking an id over
//! from another connection, or another id on one connection, leaves no entry that leads to the wrong node.

use super::state::{Field, Table, bytes, instance, items, to_string};
use crate::arguments;
use crate::declare::Declare;
use crate::exception;
use crate::node;
use crate::php::{self, Call, Outcome, Thrown, invoke, map, value};
use crate::ranges::{self, LONGEST};
use crate::running_server::{self, RunningServer};
use crate::runtime::Runtime;
use crate::shim;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object, zend_string};
use ext_php_rs::types::{ZendEmptyArray, Zval};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) const NAME: &str = r"PfinalClub\AsyncioHeartbeat\Node\NodeManager";

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

const NODES: Field = Field::new(0, c"nodes");
const CONNECTION_NODES: Field = Field::new(1, c"connectionNodes");
const TOTAL_REGISTERED: Field = Field::new(2, c"totalRegistered");
const TOTAL_UNREGISTERED: Field = Field::new(3, c"totalUnregistered");
const TOTAL_TIMEOUT: Field = Field::new(4, c"totalTimeout");
const HEARTBEAT_TIMEOUT: Field = Field::new(5, c"heartbeatTimeout");

/// Larger pages than this are cut: a walk is for lists that are too long to be there as a whole.
const PAGE: i64 = 10_000;

pub(crate) fn register_class() -> Result<()> {
    ClassBuilder::new(NAME)
        .declare("__construct(float $heartbeatTimeout = 30.0)", construct)
        .declare(r"register(PfinalClub\AsyncioHeartbeat\Node\Node $node): void", register)
        .declare(r"unregister(string $nodeId): ?PfinalClub\AsyncioHeartbeat\Node\Node", unregister)
        .declare(r"unregisterByConnection(int $connectionId): ?PfinalClub\AsyncioHeartbeat\Node\Node", unregister_by_connection)
        .declare(r"getNode(string $nodeId): ?PfinalClub\AsyncioHeartbeat\Node\Node", get_node)
        .declare(r"getNodeByConnection(int $connectionId): ?PfinalClub\AsyncioHeartbeat\Node\Node", get_node_by_connection)
        .declare("hasNode(string $nodeId): bool", has_node)
        .declare("updateHeartbeat(string $nodeId): bool", update_heartbeat)
        .declare("updateMessage(string $nodeId): bool", update_message)
        .declare("getAllNodes(): array", get_all_nodes)
        .declare("getOnlineNodes(): array", get_online_nodes)
        .declare("getOfflineNodes(): array", get_offline_nodes)
        .declare("checkTimeout(): array", check_timeout)
        .declare("cleanupOffline(): int", cleanup_offline)
        .declare("getNodeCount(): int", get_node_count)
        .declare("getOnlineNodeCount(): int", get_online_node_count)
        .declare("getOfflineNodeCount(): int", get_offline_node_count)
        .declare("getStats(): array", get_stats)
        .declare("getStatsSummary(): array", get_stats_summary)
        .declare("setHeartbeatTimeout(float $timeout): void", set_heartbeat_timeout)
        .declare("getHeartbeatTimeout(): float", get_heartbeat_timeout)
        .declare("iterateNodes(int $pageSize = 1000): Generator", iterate_nodes)
        .declare("private page(?int $after, int $size): array", page)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            NODES.declare(class, "array", Some(value(ZendEmptyArray)));
            CONNECTION_NODES.declare(class, "array", Some(value(ZendEmptyArray)));
            TOTAL_REGISTERED.declare(class, "int", Some(value(0i64)));
            TOTAL_UNREGISTERED.declare(class, "int", Some(value(0i64)));
            TOTAL_TIMEOUT.declare(class, "int", Some(value(0i64)));
            HEARTBEAT_TIMEOUT.declare(class, "float", None);
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

pub(crate) fn class() -> *mut zend_class_entry {
    CLASS.load(Ordering::Relaxed)
}

pub(crate) fn create(heartbeat_timeout: f64) -> Outcome<Zval> {
    let mut manager = Zval::new();
    // SAFETY: the class is registered and can be instantiated.
    unsafe { shim::object_init_ex(&raw mut manager, class()) };
    let object = manager.object_mut().map(ptr::from_mut).ok_or(Thrown)?;
    HEARTBEAT_TIMEOUT.set(object, value(heartbeat_timeout));
    Ok(manager)
}

pub(crate) fn heartbeat_timeout(manager: *mut zend_object) -> f64 {
    HEARTBEAT_TIMEOUT.float(manager)
}

fn construct(call: &mut Call<'_>) -> Outcome {
    let mut timeout = 30f64;
    arguments!(call, c"|d", timeout)?;
    ranges::seconds("NodeManager: heartbeatTimeout", timeout, 0.0..=LONGEST)?;
    HEARTBEAT_TIMEOUT.set(call.this(), value(timeout));
    Ok(())
}

fn register(call: &mut Call<'_>) -> Outcome {
    let (mut node, class) = (ptr::null_mut::<Zval>(), node::class());
    call.parse(c"O", [(&raw mut node).cast(), class.cast()])?;
    // SAFETY: an argument of this call.
    let node = unsafe { (*node).dereference() };
    let (id, connection_id) = identity(node)?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        return live.register(bytes(&id), connection_id);
    }
    if let Some(before) = NODES.table(this).get(bytes(&id)) {
        forget_connection(this, &before)?;
    }
    NODES.table(this).set(bytes(&id), node.shallow_clone());
    CONNECTION_NODES.table(this).set_index(connection_id, id);
    TOTAL_REGISTERED.add(this, 1);
    Ok(())
}

fn identity(node: &Zval) -> Outcome<(Zval, i64)> {
    match object(node) {
        Some(object) => node::identity(object),
        None => Err(exception::error("The manager holds something that is no node")),
    }
}

fn object(node: &Zval) -> Option<*mut zend_object> {
    instance(node, node::class())
}

/// Removes the way from a node's connection to the node, if it still leads there.
fn forget_connection(manager: *mut zend_object, node: &Zval) -> Outcome {
    let (id, connection_id) = identity(node)?;
    let connections = CONNECTION_NODES.table(manager);
    if connections.get_index(connection_id).is_some_and(|known| bytes(&known) == bytes(&id)) {
        connections.remove_index(connection_id);
    }
    Ok(())
}

fn unregister(call: &mut Call<'_>) -> Outcome {
    let mut id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", id)?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        *call.result = live.unregister(php::bytes(id))?;
        return Ok(());
    }
    if let Some(node) = NODES.table(this).get(php::bytes(id)) {
        forget_connection(this, &node)?;
        NODES.table(this).remove(php::bytes(id));
        TOTAL_UNREGISTERED.add(this, 1);
        *call.result = node;
    }
    Ok(())
}

fn unregister_by_connection(call: &mut Call<'_>) -> Outcome {
    let mut connection_id = 0i64;
    arguments!(call, c"l", connection_id)?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        *call.result = live.unregister_by_connection(connection_id)?;
        return Ok(());
    }
    if let Some(id) = CONNECTION_NODES.table(this).get_index(connection_id) {
        *call.result = invoke(&php::object(this), c"unregister", [id])?;
    }
    Ok(())
}

fn get_node(call: &mut Call<'_>) -> Outcome {
    let mut id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", id)?;
    let this = call.this();
    *call.result = match running_server::of(this)? {
        Some(live) => live.node(php::bytes(id))?,
        None => NODES.table(this).get(php::bytes(id)).unwrap_or_else(Zval::null),
    };
    Ok(())
}

fn get_node_by_connection(call: &mut Call<'_>) -> Outcome {
    let mut connection_id = 0i64;
    arguments!(call, c"l", connection_id)?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        *call.result = live.node_by_connection(connection_id)?;
        return Ok(());
    }
    let id = CONNECTION_NODES.table(this).get_index(connection_id);
    *call.result = id.and_then(|id| NODES.table(this).get(bytes(&id))).unwrap_or_else(Zval::null);
    Ok(())
}

fn has_node(call: &mut Call<'_>) -> Outcome {
    let mut id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", id)?;
    let this = call.this();
    let found = running_server::of(this)?
        .map_or_else(|| Ok(NODES.table(this).get(php::bytes(id)).is_some()), |live| live.has_node(php::bytes(id)))?;
    call.result.set_bool(found);
    Ok(())
}

/// A server's node is kept alive by it as by a sign of life of its own; only heartbeats of its own are counted.
fn update_heartbeat(call: &mut Call<'_>) -> Outcome {
    update(call, c"updateheartbeat", RunningServer::keep_alive)
}

/// A server counts a node's messages itself.
fn update_message(call: &mut Call<'_>) -> Outcome {
    update(call, c"updatemessage", RunningServer::has_node)
}

fn update(call: &mut Call<'_>, method: &'static std::ffi::CStr, on_server: fn(&RunningServer, &[u8]) -> Outcome<bool>) -> Outcome {
    let mut id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", id)?;
    if let Some(live) = running_server::of(call.this())? {
        call.result.set_bool(on_server(&live, php::bytes(id))?);
        return Ok(());
    }
    let node = NODES.table(call.this()).get(php::bytes(id));
    if let Some(node) = &node {
        invoke(node, method, [])?;
    }
    call.result.set_bool(node.is_some());
    Ok(())
}

fn get_all_nodes(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    *call.result = match running_server::of(this)? {
        Some(live) => live.nodes()?,
        None => NODES.table(this).snapshot(),
    };
    Ok(())
}

fn get_online_nodes(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    nodes_that_are(call, true)
}

fn get_offline_nodes(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    nodes_that_are(call, false)
}

fn nodes_that_are(call: &mut Call<'_>, online: bool) -> Outcome {
    if let Some(live) = running_server::of(call.this())? {
        *call.result = if online { live.nodes()? } else { value(ZendEmptyArray) };
        return Ok(());
    }
    let mut found = value(ZendEmptyArray);
    for (key, node) in NODES.table(call.this()).entries() {
        if is_online(&node)? == online {
            Table::of(&mut found).set(bytes(&to_string(&key)?), node);
        }
    }
    *call.result = found;
    Ok(())
}

/// As [`get_all_nodes`], a page at a time: for servers with very many nodes.
fn iterate_nodes(call: &mut Call<'_>) -> Outcome {
    let mut size = 1000i64;
    arguments!(call, c"|l", size)?;
    if size < 1 {
        return Err(exception::invalid_argument(&format!("iterateNodes() needs a page of at least one node, {size} given")));
    }
    // SAFETY: class entries of internal classes live as long as the process.
    let page = php::method_closure(unsafe { &*class() }, call.this(), "page");
    *call.result = Runtime::current().pages.call("walk", [page, value(size)])?;
    Ok(())
}

fn page(call: &mut Call<'_>) -> Outcome {
    let (mut after, mut is_first, mut size) = (0i64, false, 0i64);
    arguments!(call, c"l!l", after, is_first, size)?;
    let this = call.this();
    let page = match running_server::of(this)? {
        Some(live) => live.page((!is_first).then_some(after), size.min(PAGE) as u32)?,
        None => [NODES.table(this).snapshot(), Zval::null()],
    };
    *call.result = value(page.into_iter().collect::<Vec<_>>());
    Ok(())
}

/// As a subclass of `Node` may see it.
fn is_online(node: &Zval) -> Outcome<bool> {
    match object(node).filter(|node| node::is_plain(*node)) {
        Some(node) => node::online(node),
        None => Ok(invoke(node, c"isonline", [])?.is_true()),
    }
}

fn check_timeout(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let mut timed_out = value(ZendEmptyArray);
    HEARTBEAT_TIMEOUT.require(this)?;
    if running_server::of(this)?.is_some() {
        // The engine has done it already, and told whoever asked for `timeout`.
        *call.result = timed_out;
        return Ok(());
    }
    for (key, node) in NODES.table(this).entries() {
        // One that is offline already was told of, and is not told of again at every check.
        if !is_online(&node)? || !invoke(&node, c"istimeout", [value(HEARTBEAT_TIMEOUT.float(this))])?.is_true() {
            continue;
        }
        invoke(&node, c"markoffline", [])?;
        Table::of(&mut timed_out).push(key);
        TOTAL_TIMEOUT.add(this, 1);
    }
    *call.result = timed_out;
    Ok(())
}

fn cleanup_offline(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = php::object(call.this());
    let mut cleaned = 0;
    if running_server::of(call.this())?.is_some() {
        // The engine keeps no nodes that are offline.
        call.result.set_long(0);
        return Ok(());
    }
    for (key, node) in NODES.table(call.this()).entries() {
        if !is_online(&node)? {
            invoke(&this, c"unregister", [to_string(&key)?])?;
            cleaned += 1;
        }
    }
    call.result.set_long(cleaned);
    Ok(())
}

fn get_node_count(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let count = running_server::of(this)?.map_or_else(|| Ok(NODES.table(this).len()), |live| live.node_count())?;
    call.result.set_long(count);
    Ok(())
}

fn get_online_node_count(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    count_those(call, true)
}

fn get_offline_node_count(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    count_those(call, false)
}

fn count_those(call: &mut Call<'_>, online: bool) -> Outcome {
    if let Some(live) = running_server::of(call.this())? {
        call.result.set_long(if online { live.node_count()? } else { 0 });
        return Ok(());
    }
    let nodes = NODES.table(call.this()).snapshot();
    let mut count = 0;
    for node in items(&nodes) {
        count += i64::from(is_online(node)? == online);
    }
    call.result.set_long(count);
    Ok(())
}

fn get_stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        *call.result = live.node_stats(true)?;
        return Ok(());
    }
    let (online, offline) = both_counts(this)?;
    let nodes = NODES.table(this).snapshot();
    let described: Outcome<Vec<_>> = items(&nodes).map(|node| invoke(node, c"toarray", [])).collect();
    *call.result = map([
        ("total", value(NODES.table(this).len())),
        ("online", online),
        ("offline", offline),
        ("total_registered", value(TOTAL_REGISTERED.int(this))),
        ("total_unregistered", value(TOTAL_UNREGISTERED.int(this))),
        ("total_timeout", value(TOTAL_TIMEOUT.int(this))),
        ("nodes", value(described?)),
    ]);
    Ok(())
}

fn both_counts(manager: *mut zend_object) -> Outcome<(Zval, Zval)> {
    let this = php::object(manager);
    Ok((invoke(&this, c"getonlinenodecount", [])?, invoke(&this, c"getofflinenodecount", [])?))
}

fn get_stats_summary(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        *call.result = live.node_stats(false)?;
        return Ok(());
    }
    let (mut heartbeats, mut messages) = (0i64, 0i64);
    let nodes = NODES.table(this).snapshot();
    for node in items(&nodes).filter_map(object) {
        let counts = node::counts(node)?;
        heartbeats = heartbeats.saturating_add(counts.0);
        messages = messages.saturating_add(counts.1);
    }
    let (online, offline) = both_counts(this)?;
    *call.result = map([
        ("total", value(NODES.table(this).len())),
        ("online", online),
        ("offline", offline),
        ("total_heartbeats", value(heartbeats)),
        ("total_messages", value(messages)),
        ("total_registered", value(TOTAL_REGISTERED.int(this))),
        ("total_unregistered", value(TOTAL_UNREGISTERED.int(this))),
        ("total_timeout", value(TOTAL_TIMEOUT.int(this))),
    ]);
    Ok(())
}

fn set_heartbeat_timeout(call: &mut Call<'_>) -> Outcome {
    let mut timeout = 0f64;
    arguments!(call, c"d", timeout)?;
    ranges::seconds("setHeartbeatTimeout(): timeout", timeout, 0.0..=LONGEST)?;
    let this = call.this();
    if let Some(live) = running_server::of(this)? {
        live.set_heartbeat_timeout(timeout)?;
    }
    HEARTBEAT_TIMEOUT.set(this, value(timeout));
    Ok(())
}

fn get_heartbeat_timeout(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    HEARTBEAT_TIMEOUT.require(this)?;
    let timeout = HEARTBEAT_TIMEOUT.float(this);
    call.result.set_double(timeout);
    Ok(())
}
