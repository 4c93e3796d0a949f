//! The bus socket for C: asks the engine of another process of this machine, whichever language started it.
//!
//! Every call waits for its answer. What it returns is as the server's function of the same name returns it.

use crate::handle::{self, Object, Place};
use crate::lookup::with_texts;
use crate::nodes::{heartbus_connection, heartbus_node};
use crate::numbers::{heartbus_stat, write_metrics, write_stats};
use crate::raw::{bytes, inout, invalid, out, out_if_wanted, out_slice, slice, text};
use crate::server::{no_such_channel, no_such_node, timeout_of};
use crate::status::{guard, heartbus_status};
use heartbus_core::bus::{Bus, NodeInfo};
use heartbus_core::error::Error;
use std::ffi::c_char;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a server of PHP is called unless it says otherwise.
const DEFAULT_NAME: &str = "HeartbeatServer";

/// A connection to the bus socket of a server in another process.
pub struct heartbus_bus {
    _opaque: [u8; 0],
}

/// A text of the caller, where there are several.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct heartbus_text {
    pub text: *const c_char,
    pub len: usize,
}

/// Calls of several threads take turns.
type Line = Mutex<Bus>;

impl Object for Line {
    type Opaque = heartbus_bus;
    const NAME: &'static str = "bus";
}

fn ask<R>(bus: *const heartbus_bus, question: impl FnOnce(&mut Bus) -> Result<R, Error>) -> Result<R, Error> {
    let line = handle::get::<Line>(bus)?;
    let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
    question(&mut line)
}

/// Connects to the bus socket of a server on this machine. `socket` is its absolute path, or the name of the server, which is
/// then looked for in the usual places; NULL with length 0 means "HeartbeatServer", as a server of PHP is called. Every call
/// waits for its answer for up to `timeout` seconds, 0.001 to 3600; calls of several threads take turns. When the server was
/// started anew, the next call connects again. Free it with heartbus_bus_free.
///
/// HEARTBUS_IO when nobody answers there or this user may not ask, HEARTBUS_PROTOCOL when it speaks another version; from every
/// function below, too. HEARTBUS_TIMEOUT: the request may still be carried out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_connect(
    socket: *const c_char,
    socket_len: usize,
    timeout: f64,
    bus: *mut *mut heartbus_bus,
) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's text and the place for the result, as the first page asks.
        let (socket, target) = unsafe { (text("socket", socket, socket_len)?, out("bus", bus)?) };
        let timeout = Duration::try_from_secs_f64(timeout).ok().filter(|timeout| (0.001..=3600.0).contains(&timeout.as_secs_f64()));
        let timeout = timeout.ok_or_else(|| invalid("timeout must be a number of seconds from 0.001 to 3600"))?;
        let place = Place::new();
        let _within = place.within();
        let mut bus = match socket {
            "" => Bus::find(DEFAULT_NAME, timeout)?,
            path if path.starts_with('/') => Bus::connect(Path::new(path), timeout)?,
            name => Bus::find(name, timeout)?,
        };
        bus.welcome()?;
        target.write(place.open(Arc::new(Mutex::new(bus))));
        Ok(())
    })
}

/// Closes the connection. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_free(bus: *mut heartbus_bus) -> heartbus_status {
    guard(|| if bus.is_null() { Ok(()) } else { handle::close::<Line>(bus).map(drop) })
}

/// Sends data to a node, as heartbus_server_send.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_send(
    bus: *mut heartbus_bus,
    node_id: *const c_char,
    node_id_len: usize,
    payload: *const c_char,
    payload_len: usize,
    channel_id: i64,
) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's texts, as the first page asks.
        let (node_id, payload) = unsafe { (text("node_id", node_id, node_id_len)?, bytes("payload", payload, payload_len)?) };
        let channel_id = u32::try_from(channel_id).map_err(|_| no_such_channel())?;
        ask(bus, |bus| bus.send_to(node_id, payload, channel_id))
    })
}

/// Sends data to several nodes on their main channels, and says for how many of them it was queued in `count`, which may be
/// NULL. Who is not online, or has no room, is not counted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_send_many(
    bus: *mut heartbus_bus,
    node_ids: *const heartbus_text,
    node_count: usize,
    payload: *const c_char,
    payload_len: usize,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's array of texts, its bytes and the place for the number, as the first page asks.
        let (ids, payload, count) = unsafe {
            let ids = slice("node_ids", node_ids, node_count)?.iter().map(|id| text("node_ids", id.text, id.len));
            (ids.collect::<Result<Vec<_>, _>>()?, bytes("payload", payload, payload_len)?, out_if_wanted("count", count)?)
        };
        let queued = ask(bus, |bus| bus.send_many(&ids, payload))?;
        if let Some(count) = count {
            count.write(queued);
        }
        Ok(())
    })
}

/// Sends data to every node that is online, and says for how many it was queued in `count`, which may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_broadcast(
    bus: *mut heartbus_bus,
    payload: *const c_char,
    payload_len: usize,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's bytes and the place for the number, as the first page asks.
        let (payload, count) = unsafe { (bytes("payload", payload, payload_len)?, out_if_wanted("count", count)?) };
        let queued = ask(bus, |bus| bus.broadcast(payload))?;
        if let Some(count) = count {
            count.write(queued);
        }
        Ok(())
    })
}

/// Takes a node off the bus, as heartbus_server_disconnect.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_disconnect(bus: *mut heartbus_bus, node_id: *const c_char, node_id_len: usize) -> heartbus_status {
    // SAFETY: the caller's text, as the first page asks.
    guard(|| unsafe { text("node_id", node_id, node_id_len) }.and_then(|id| ask(bus, |bus| bus.disconnect(id))))
}

/// Says that a node is alive, as heartbus_server_keep_alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_keep_alive(bus: *mut heartbus_bus, node_id: *const c_char, node_id_len: usize) -> heartbus_status {
    // SAFETY: the caller's text, as the first page asks.
    guard(|| unsafe { text("node_id", node_id, node_id_len) }.and_then(|id| ask(bus, |bus| bus.keep_alive(id))))
}

/// Sets members of a node's metadata, as heartbus_server_set_metadata.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_set_metadata(
    bus: *mut heartbus_bus,
    node_id: *const c_char,
    node_id_len: usize,
    members: *const c_char,
    members_len: usize,
) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's texts, as the first page asks.
        let (node_id, members) = unsafe { (text("node_id", node_id, node_id_len)?, text("members", members, members_len)?) };
        ask(bus, |bus| bus.set_metadata(node_id, 0, members))
    })
}

/// # Safety
/// Where not NULL, `node` points to memory for a node.
unsafe fn find(
    bus: *const heartbus_bus,
    node: *mut heartbus_node,
    question: impl FnOnce(&mut Bus) -> Result<Option<NodeInfo>, Error>,
) -> Result<(), Error> {
    // SAFETY: the same promise.
    let target = unsafe { out("node", node) }?;
    let found = ask(bus, question)?.ok_or_else(no_such_node)?;
    with_texts(|texts| target.write(heartbus_node::new(&found, texts)));
    Ok(())
}

/// Looks a node up by its id, as heartbus_server_node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_node(
    bus: *mut heartbus_bus,
    node_id: *const c_char,
    node_id_len: usize,
    node: *mut heartbus_node,
) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's text and the place for the result, as the first page asks.
        unsafe {
            let node_id = text("node_id", node_id, node_id_len)?;
            find(bus, node, |bus| bus.node(node_id))
        }
    })
}

/// Looks up the node that a channel belongs to, as heartbus_server_node_of_channel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_node_of_channel(
    bus: *mut heartbus_bus,
    channel_id: i64,
    node: *mut heartbus_node,
) -> heartbus_status {
    guard(|| {
        let channel_id = u32::try_from(channel_id).map_err(|_| no_such_node())?;
        // SAFETY: the place for the result, as the first page asks.
        unsafe { find(bus, node, |bus| bus.node_of_channel(channel_id)) }
    })
}

/// Looks up the node of a connection, as heartbus_server_node_of_connection.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_node_of_connection(
    bus: *mut heartbus_bus,
    connection_id: u64,
    node: *mut heartbus_node,
) -> heartbus_status {
    // SAFETY: the place for the result, as the first page asks.
    guard(|| unsafe { find(bus, node, |bus| bus.node_of_connection(connection_id)) })
}

/// Lists the nodes that are online in pages, as heartbus_server_nodes. With a pattern or an address only those that match:
/// `*` in the pattern stands for any text, `?` for one character; NULL with length 0 matches all. A page may be short, even
/// empty, with more to come: only a cursor of 0 says that it was the last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_nodes(
    bus: *mut heartbus_bus,
    id_pattern: *const c_char,
    id_pattern_len: usize,
    ip: *const c_char,
    ip_len: usize,
    cursor: *mut u64,
    nodes: *mut heartbus_node,
    capacity: usize,
    count: *mut usize,
) -> heartbus_status {
    // SAFETY: as the caller promises us.
    guard(|| unsafe { list(bus, (id_pattern, id_pattern_len), (ip, ip_len), None, cursor, nodes, capacity, count) })
}

/// As heartbus_bus_nodes, of nodes whose metadata has all members of a JSON object of 1 to 16 scalars. Numbers are equal by their
/// values; null stands for a member that is null or not there.
///
/// HEARTBUS_INVALID_ARGUMENT when `metadata` is no such object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_find_nodes(
    bus: *mut heartbus_bus,
    id_pattern: *const c_char,
    id_pattern_len: usize,
    ip: *const c_char,
    ip_len: usize,
    metadata: *const c_char,
    metadata_len: usize,
    cursor: *mut u64,
    nodes: *mut heartbus_node,
    capacity: usize,
    count: *mut usize,
) -> heartbus_status {
    // SAFETY: as the caller promises us.
    guard(|| unsafe {
        let metadata = text("metadata", metadata, metadata_len)?;
        list(bus, (id_pattern, id_pattern_len), (ip, ip_len), Some(metadata), cursor, nodes, capacity, count)
    })
}

/// # Safety
/// The pointers are as the first page asks.
#[expect(clippy::too_many_arguments, reason = "those of the functions above")]
unsafe fn list(
    bus: *const heartbus_bus,
    (id_pattern, id_pattern_len): (*const c_char, usize),
    (ip, ip_len): (*const c_char, usize),
    metadata: Option<&str>,
    cursor: *mut u64,
    nodes: *mut heartbus_node,
    capacity: usize,
    count: *mut usize,
) -> Result<(), Error> {
    // SAFETY: the caller's texts, its number, its array and the place for the result, as the first page asks.
    let (pattern, ip) = unsafe { (text("id_pattern", id_pattern, id_pattern_len)?, text("ip", ip, ip_len)?) };
    // SAFETY: as above.
    let (cursor, nodes, count) = unsafe { (inout("cursor", cursor)?, out_slice("nodes", nodes, capacity)?, out("count", count)?) };
    let ip = match ip {
        "" => None,
        ip => Some(ip.parse::<IpAddr>().map_err(|_| invalid(format!("`{ip}` is no address")))?),
    };
    let limit = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    if limit == 0 {
        return Err(invalid("capacity is 0"));
    }
    let (after, pattern) = ((*cursor != 0).then_some(*cursor), (!pattern.is_empty()).then_some(pattern));
    let (page, next) = ask(bus, |bus| match metadata {
        None => bus.page(after, limit, pattern, ip),
        Some(metadata) => bus.find_nodes(after, limit, pattern, ip, metadata),
    })?;
    with_texts(|texts| {
        for (target, node) in nodes.iter_mut().zip(&page) {
            target.write(heartbus_node::new(node, texts));
        }
    });
    *cursor = next.unwrap_or(0);
    count.write(page.len().min(nodes.len()));
    Ok(())
}

/// Lists open connections, as heartbus_server_connections; fewer where the answer would grow long.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_connections(
    bus: *mut heartbus_bus,
    connections: *mut heartbus_connection,
    capacity: usize,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's array and the place for the result, as the first page asks.
        let (connections, count) = unsafe { (out_slice("connections", connections, capacity)?, out("count", count)?) };
        let found = ask(bus, |bus| bus.connections(u32::try_from(connections.len()).unwrap_or(u32::MAX)))?;
        with_texts(|texts| {
            for (target, info) in connections.iter_mut().zip(&found) {
                target.write(heartbus_connection::new(info, texts));
            }
        });
        count.write(found.len().min(connections.len()));
        Ok(())
    })
}

/// The server's numbers, as heartbus_server_stats. One that the server does not know is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_stats(
    bus: *mut heartbus_bus,
    stats: *mut heartbus_stat,
    capacity: usize,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's array and the place for the number, as the first page asks.
        let (stats, count) = unsafe { (out_slice("stats", stats, capacity)?, out("count", count)?) };
        count.write(write_stats(ask(bus, Bus::stats)?.stats, stats));
        Ok(())
    })
}

/// The server's metrics, as heartbus_server_metrics.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_metrics(bus: *mut heartbus_bus, text: *mut *const c_char, text_len: *mut usize) -> heartbus_status {
    guard(|| {
        // SAFETY: the places for the results, as the first page asks.
        let (text, text_len) = unsafe { (out("text", text)?, out("text_len", text_len)?) };
        let numbers = ask(bus, Bus::stats)?;
        write_metrics(&numbers.stats, &numbers.timings, text, text_len);
        Ok(())
    })
}

/// The heartbeat timeout in force, in seconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_heartbeat_timeout(bus: *mut heartbus_bus, seconds: *mut f64) -> heartbus_status {
    guard(|| {
        // SAFETY: the place for the result, as the first page asks.
        let seconds = unsafe { out("seconds", seconds) }?;
        seconds.write(ask(bus, Bus::heartbeat_timeout)?.as_secs_f64());
        Ok(())
    })
}

/// Changes the heartbeat timeout, as heartbus_server_set_heartbeat_timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_set_heartbeat_timeout(bus: *mut heartbus_bus, seconds: f64) -> heartbus_status {
    guard(|| ask(bus, |bus| bus.set_heartbeat_timeout(timeout_of(seconds))))
}

/// Makes the server accept no more connections, as heartbus_server_close_door.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_bus_close_door(bus: *mut heartbus_bus) -> heartbus_status {
    guard(|| ask(bus, Bus::close_door))
}
