//! Who is there: a server's nodes and connections, looked up and listed.

use crate::arguments::{inout, out, out_slice};
use crate::event::keep;
use crate::handle;
use crate::server::{Server, heartbus_server};
use crate::status::{guard, heartbus_status};
use crate::texts::with_texts;
use bumpalo::Bump;
use heartbus_core::engine::{ConnectionInfo, NodeInfo};
use std::ffi::{c_char, c_void};
use std::ptr;

/// A node as it is at this moment. Times are seconds since 1970.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub(crate) struct heartbus_node {
    pub connection_id: u64,
    /// Its main channel.
    pub channel_id: i64,
    pub heartbeat_count: u64,
    pub total_messages: u64,
    pub created_at: f64,
    pub last_heartbeat: f64,
    /// 0 before the first message.
    pub last_message: f64,
    pub node_id: *const c_char,
    pub node_id_len: usize,
    pub ip: *const c_char,
    pub ip_len: usize,
    /// JSON text, "[]" when it sent none.
    pub metadata: *const c_char,
    pub metadata_len: usize,
    pub port: u16,
    /// False when it left just now.
    pub online: bool,
    pub reserved8: [u8; 5],
    /// Bytes that wait to be written to its connection.
    pub bytes_waiting: u64,
    /// What heartbus_server_set_node_user_data attached; NULL when that is nothing, and over the bus socket.
    pub user_data: *mut c_void,
    /// 0.
    pub reserved: [u64; 2],
}

/// A connection as it is at this moment, registered or not.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub(crate) struct heartbus_connection {
    pub connection_id: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Bytes of a frame whose rest has not come, or that wait for poll.
    pub bytes_waiting_in: u64,
    pub bytes_waiting_out: u64,
    /// How many nodes it has.
    pub node_count: u64,
    /// The first of them; NULL when there is none.
    pub node_id: *const c_char,
    pub node_id_len: usize,
    pub ip: *const c_char,
    pub ip_len: usize,
    pub port: u16,
    pub reserved16: [u16; 3],
    /// 0.
    pub reserved: [u64; 4],
}

impl heartbus_node {
    pub(crate) fn new(info: &NodeInfo, texts: &Bump) -> Self {
        let (node_id, node_id_len) = keep(texts, &info.id);
        let (ip, ip_len) = keep(texts, &info.peer.ip().to_string());
        let (metadata, metadata_len) = keep(texts, &info.metadata);
        Self {
            connection_id: info.connection_id,
            channel_id: info.channel_id.into(),
            heartbeat_count: info.heartbeat_count,
            total_messages: info.total_messages,
            created_at: info.created_at,
            last_heartbeat: info.last_heartbeat,
            last_message: info.last_message,
            node_id,
            node_id_len,
            ip,
            ip_len,
            metadata,
            metadata_len,
            port: info.peer.port(),
            online: info.online,
            reserved8: [0; 5],
            bytes_waiting: info.bytes_waiting,
            user_data: ptr::null_mut(),
            reserved: [0; 2],
        }
    }
}

impl heartbus_connection {
    pub(crate) fn new(info: &ConnectionInfo, texts: &Bump) -> Self {
        let (node_id, node_id_len) = info.first_node.as_ref().map_or((ptr::null(), 0), |id| keep(texts, id));
        let (ip, ip_len) = keep(texts, &info.peer.ip().to_string());
        Self {
            connection_id: info.id,
            bytes_in: info.bytes_in,
            bytes_out: info.bytes_out,
            bytes_waiting_in: info.bytes_waiting_in as u64,
            bytes_waiting_out: info.bytes_waiting_out as u64,
            node_count: info.nodes as u64,
            node_id,
            node_id_len,
            ip,
            ip_len,
            port: info.peer.port(),
            reserved16: [0; 3],
            reserved: [0; 4],
        }
    }
}

/// Lists the nodes that are online, in pages of up to `capacity`; says in `count` how many this one has. `cursor` is 0 for the
/// first page, is moved on by each call, and is 0 again after the last:
///
///     uint64_t cursor = 0;
///     do {
///         heartbus_server_nodes(server, &cursor, nodes, 100, &count);
///         ...
///     } while (cursor);
///
/// A node that is online all the time is on exactly one page, whoever comes and goes meanwhile. The order means nothing. What
/// the nodes point to is valid until this thread's next lookup, which the next page is too.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_nodes(
    server: *const heartbus_server,
    cursor: *mut u64,
    nodes: *mut heartbus_node,
    capacity: usize,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the caller's number, its array and the place for the result, as the first page asks.
        let (cursor, nodes, count) = unsafe { (inout("cursor", cursor)?, out_slice("nodes", nodes, capacity)?, out("count", count)?) };
        let engine = object.running()?;
        if nodes.is_empty() {
            return Err(crate::arguments::invalid("capacity is 0"));
        }
        let (page, next) = engine.page((*cursor != 0).then_some(*cursor), nodes.len());
        let now = engine.now();
        let attached = object.of_nodes.lock();
        with_texts(|texts| {
            for (target, node) in nodes.iter_mut().zip(&page) {
                target.write(heartbus_node { user_data: attached.get(node).0, ..heartbus_node::new(&node.info(now), texts) });
            }
        });
        *cursor = next.unwrap_or(0);
        count.write(page.len().min(nodes.len()));
        Ok(())
    })
}
