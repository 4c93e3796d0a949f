//! A server for C.

use crate::event::{heartbus_event, keep, mask};
use crate::handle::{self, Object};
use crate::queue::Queue;
use crate::raw::{bytes, invalid, out, out_slice, text};
use crate::status::{guard, heartbus_status};
use bumpalo::Bump;
use heartbus_core::engine::Engine;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::inbox::Inbox;
use std::cell::RefCell;
use std::ffi::{c_char, c_int};
use std::sync::{Arc, Mutex, PoisonError};

/// A running server.
pub struct heartbus_server {
    _opaque: [u8; 0],
}

struct Server {
    engine: Engine,
    queue: Queue,
    /// Held while stopping, so that a second caller returns only when the server has stopped.
    stopping: Mutex<()>,
}

impl Object for Server {
    type Opaque = heartbus_server;
    const NAME: &'static str = "server";
}

impl Server {
    fn stop(&self) {
        let _stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        self.engine.stop();
        self.queue.end();
    }
}

/// A node as it is at this moment. Times are seconds since 1970.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct heartbus_node {
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
    /// 0.
    pub reserved: [u64; 4],
}

thread_local! {
    /// What the last heartbus_node of this thread points to.
    static NODE_TEXTS: RefCell<Bump> = RefCell::default();
}

/// Starts a server. `config` is JSON text (see the first page); NULL with length 0 means all defaults. `events` is a sum of
/// heartbus_events: what the server tells. Free the server with heartbus_server_free.
///
/// HEARTBUS_CONFIG when a setting is wrong, HEARTBUS_IO when the address cannot be listened on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_start(
    config: *const c_char,
    config_len: usize,
    events: u32,
    server: *mut *mut heartbus_server,
) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's text and the place for the result, as the first page asks.
        let (config, server) = unsafe { (bytes("config", config, config_len)?, out("server", server)?) };
        let mask = mask(events).ok_or_else(|| invalid("events holds a bit that is no event"))?;
        let (config, limits) = crate::config::server(config)?;
        let inbox = Inbox::new(limits)?;
        inbox.subscribe(mask);
        let engine = Engine::start(&config, inbox.clone())?;
        server.write(handle::open(Arc::new(Server { engine, queue: Queue::new(inbox), stopping: Mutex::default() })));
        Ok(())
    })
}

/// Tells every client that the server is shutting down, writes what waits, closes all connections and ends the threads,
/// within 1.5 s. Poll until HEARTBUS_CLOSED to learn what happened until then. Calling it again is harmless.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_stop(server: *mut heartbus_server) -> heartbus_status {
    guard(|| {
        handle::get::<Server>(server)?.stop();
        Ok(())
    })
}

/// Stops the server if it still runs, and ends its handle and everything that events point to. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_free(server: *mut heartbus_server) -> heartbus_status {
    guard(|| {
        if !server.is_null() {
            handle::close::<Server>(server)?.stop();
        }
        Ok(())
    })
}

/// The port that the server listens on: the real one, where the configuration said 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_port(server: *const heartbus_server, port: *mut u16) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the place for the result, as the first page asks.
        unsafe { out("port", port) }?.write(object.engine.local_addr().port());
        Ok(())
    })
}

/// A descriptor that is readable while events wait, and for good once the server has stopped. For poll, epoll, select or
/// any event loop: wait until it is readable, then call heartbus_server_poll. Never read from it, write to it or close it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_fd(server: *const heartbus_server, fd: *mut c_int) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the place for the result, as the first page asks.
        unsafe { out("fd", fd) }?.write(object.queue.fd());
        Ok(())
    })
}

/// Replaces what the server tells: `events` is a sum of heartbus_events. What waits already is still told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_subscribe(server: *mut heartbus_server, events: u32) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        object.queue.inbox().subscribe(mask(events).ok_or_else(|| invalid("events holds a bit that is no event"))?);
        Ok(())
    })
}

/// Takes up to `capacity` events into the caller's array and says how many in `count`. Waits for the first one for
/// `timeout_ms` milliseconds: 0 does not wait, -1 waits without end. `count` is 0 when the time is over, or when a signal
/// arrived while waiting. What the events point to is valid until the next poll of this server, or until it is freed.
///
/// HEARTBUS_CLOSED when the server has stopped and every event was taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_poll(
    server: *mut heartbus_server,
    events: *mut heartbus_event,
    capacity: usize,
    timeout_ms: i32,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the caller's array and the place for the number, as the first page asks.
        let (events, count) = unsafe { (out_slice("events", events, capacity)?, out("count", count)?) };
        count.write(object.queue.poll(events, timeout_ms, |_| ())?);
        Ok(())
    })
}

/// Sends data to a node, on its main channel when `channel_id` is 0. Returns when it is queued.
///
/// HEARTBUS_NOT_FOUND when no such node is online or the channel is not its own, HEARTBUS_LIMIT when its outbox is full or
/// the payload longer than a frame may be, HEARTBUS_INVALID_ARGUMENT when the payload is not UTF-8 and the node speaks the
/// protocol's version 1, which cannot carry it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_send(
    server: *mut heartbus_server,
    node_id: *const c_char,
    node_id_len: usize,
    payload: *const c_char,
    payload_len: usize,
    channel_id: i64,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the caller's texts, as the first page asks.
        let (node_id, payload) = unsafe { (text("node_id", node_id, node_id_len)?, bytes("payload", payload, payload_len)?) };
        let channel_id = u32::try_from(channel_id).map_err(|_| Error::new(ErrorKind::NotFound, "The channel is not one of the node's"))?;
        object.engine.send_to(node_id, payload, channel_id)
    })
}

/// Sends data to every node that is online, and says for how many it was queued in `count`, which may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_broadcast(
    server: *mut heartbus_server,
    payload: *const c_char,
    payload_len: usize,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the caller's bytes, as the first page asks.
        let payload = unsafe { bytes("payload", payload, payload_len) }?;
        // SAFETY: the place for the result, as the first page asks. Looked at first: nothing is sent on an error.
        let target = if count.is_null() { None } else { Some(unsafe { out("count", count) }?) };
        let queued = object.engine.broadcast(payload)?;
        if let Some(target) = target {
            target.write(queued);
        }
        Ok(())
    })
}

/// Takes a node off the bus. Its connection is closed, unless it has other nodes.
///
/// HEARTBUS_NOT_FOUND when no such node is online.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_disconnect(
    server: *mut heartbus_server,
    node_id: *const c_char,
    node_id_len: usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the caller's text, as the first page asks.
        object.engine.disconnect(unsafe { text("node_id", node_id, node_id_len) }?)
    })
}

/// Looks a node up. What `node` points to is valid until this thread's next call of this function.
///
/// HEARTBUS_NOT_FOUND when no such node is online.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_server_node(
    server: *const heartbus_server,
    node_id: *const c_char,
    node_id_len: usize,
    node: *mut heartbus_node,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the caller's text and the place for the result, as the first page asks.
        let (node_id, node) = unsafe { (text("node_id", node_id, node_id_len)?, out("node", node)?) };
        if object.engine.is_stopped() {
            return Err(Error::new(ErrorKind::Closed, "The server is stopped"));
        }
        let found = object.engine.node(node_id).ok_or_else(|| Error::new(ErrorKind::NotFound, "No such node is online"))?;
        let info = found.info(object.engine.now());
        NODE_TEXTS.with_borrow_mut(|texts| {
            texts.reset();
            let (node_id, node_id_len) = keep(texts, &info.id);
            let (ip, ip_len) = keep(texts, &info.peer.ip().to_string());
            let (metadata, metadata_len) = keep(texts, &info.metadata);
            node.write(heartbus_node {
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
                reserved: [0; 4],
            });
        });
        Ok(())
    })
}
