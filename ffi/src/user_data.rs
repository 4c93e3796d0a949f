//! Pointers of the program's: what it attaches to a handle, to a node of a server, and to a client or one of its nodes, and finds in
//! their events. The library keeps them and never follows them.

use crate::arguments::{out, text};
use crate::attached::UserData;
use crate::handle;
use crate::server::{Server, heartbus_server, no_such_channel, no_such_node};
use crate::status::{guard, heartbus_status};
use heartbus_core::engine::Node;
use heartbus_core::error::Error;
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// Attaches a pointer of the program's to a server, a group of clients, a log or a connection to the bus socket; NULL takes it away.
/// The library never follows it. Log messages about the handle carry it (see heartbus_event). It works until the handle is freed,
/// and nothing is told of it then.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_set_user_data(handle: *mut c_void, user_data: *mut c_void) -> heartbus_status {
    guard(|| handle::set_user_data(handle, user_data))
}

/// What heartbus_set_user_data has attached to this handle; NULL when nothing is.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_user_data(handle: *const c_void, user_data: *mut *mut c_void) -> heartbus_status {
    guard(|| {
        let found = handle::user_data(handle)?;
        // SAFETY: the place for the result, as the first page asks.
        unsafe { out("user_data", user_data) }?.write(found);
        Ok(())
    })
}

/// Makes a poll return: the one of another thread that waits at this moment, or else the next one, which then does not wait. It has
/// the events that are there, mostly none: then `count` is 0. Until then the descriptor is readable. Several of them before a poll are
/// like one. `handle` is a server, a group of clients, a log or a connection to the bus socket.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_wake(handle: *mut c_void) -> heartbus_status {
    guard(|| handle::wake(handle))
}

/// Attaches a pointer of the program's to a node, which its events and lookups carry from now on as user_data; NULL takes it away. It
/// belongs to this registration of the node: `channel_id` is the one that its events told, or 0 for whoever has the id at this moment.
/// The event of its departure (or, where that was merged with a newer event of the same id, that one) is the last that carries
/// it, and gives it back.
///
/// HEARTBUS_NOT_FOUND when no such node is online or the channel is not its own, also when its departure waits to be polled: the
/// pointer is still the program's then. HEARTBUS_INVALID_ARGUMENT when the server does not tell HEARTBUS_ON_LEFT.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_set_node_user_data(
    server: *mut heartbus_server,
    node_id: *const c_char,
    node_id_len: usize,
    channel_id: i64,
    user_data: *mut c_void,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the caller's text, as the first page asks.
        let node = find(&object, unsafe { text("node_id", node_id, node_id_len) }?, channel_id)?;
        object.check_tells_departures()?;
        if object.of_nodes.lock().set(&node, UserData(user_data)) { Ok(()) } else { Err(no_such_node()) }
    })
}

/// What heartbus_server_set_node_user_data has attached to this node; NULL when nothing is.
///
/// HEARTBUS_NOT_FOUND as there.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_node_user_data(
    server: *const heartbus_server,
    node_id: *const c_char,
    node_id_len: usize,
    channel_id: i64,
    user_data: *mut *mut c_void,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the caller's text and the place for the result, as the first page asks.
        let (node_id, target) = unsafe { (text("node_id", node_id, node_id_len)?, out("user_data", user_data)?) };
        let node = find(&object, node_id, channel_id)?;
        target.write(object.of_nodes.lock().get(&node).0);
        Ok(())
    })
}

fn find(server: &Server, node_id: &str, channel_id: i64) -> Result<Arc<Node>, Error> {
    let node = server.running()?.node(node_id).ok_or_else(no_such_node)?;
    if channel_id != 0 && channel_id != i64::from(node.channel_id()) {
        return Err(no_such_channel());
    }
    Ok(node)
}
