//! The bus socket for C: asks the engine of another process of this machine, whichever language started it.
//!
//! Every call waits for its answer. What has a twin among the server's functions is in `calls.rs`; here is the rest.

use crate::arguments::{bytes, inout, invalid, out, out_if_wanted, out_slice, slice, text};
use crate::bus_feed::BusTopics;
use crate::event::keep;
use crate::handle::{self, Object, Place, Polled};
use crate::nodes::heartbus_node;
use crate::status::{guard, heartbus_status};
use crate::texts::with_texts;
use bumpalo::Bump;
use heartbus_core::bus::Bus;
use heartbus_core::error::Error;
use heartbus_core::service::{Reply, Request, Service};
use std::ffi::c_char;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a server of PHP is called unless it says otherwise.
const DEFAULT_NAME: &str = "HeartbeatServer";

/// A connection to the bus socket of a server in another process.
pub(crate) struct heartbus_bus {
    _opaque: [u8; 0],
}

/// A text of the caller, where there are several.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub(crate) struct heartbus_text {
    pub text: *const c_char,
    pub len: usize,
}

impl heartbus_text {
    pub(crate) fn new(text: &str, texts: &Bump) -> Self {
        let (text, len) = keep(texts, text);
        Self { text, len }
    }
}

/// Several texts of the caller. NULL is fine when there are none.
///
/// # Safety
/// Where not NULL, `texts` points to so many of them, each as [`text`] asks.
pub(crate) unsafe fn several<'a>(name: &str, texts: *const heartbus_text, count: usize) -> Result<Vec<&'a str>, Error> {
    // SAFETY: the same promise.
    unsafe { slice(name, texts, count)?.iter().map(|each| text(name, each.text, each.len)).collect() }
}

pub(crate) struct SharedBus {
    /// Calls of several threads take turns.
    bus: Mutex<Bus>,
    pub(crate) topics: Arc<BusTopics>,
    pub(crate) path: PathBuf,
    pub(crate) timeout: Duration,
}

impl Object for SharedBus {
    type Opaque = heartbus_bus;
    const NAME: &'static str = "bus";

    fn polled(&self) -> Option<Arc<dyn Polled>> {
        Some(self.topics.clone())
    }
}

impl SharedBus {
    pub(crate) fn reply(&self, request: &Request<'_>) -> Result<Reply, Error> {
        self.bus.ask(request)
    }
}

/// Connects to the bus socket of a server on this machine. `socket` is its absolute path, or the name of the server, which is
/// then looked for in the usual places; NULL with length 0 means "HeartbeatServer", as a server of PHP is called. Every call
/// waits for its answer for up to `timeout` seconds, 0.001 to 3600; calls of several threads take turns. When the server was
/// started anew, the next call connects again. Free it with heartbus_bus_free.
///
/// HEARTBUS_IO when nobody answers there or this user may not ask, HEARTBUS_PROTOCOL when it speaks another version; from every
/// function below, too. HEARTBUS_TIMEOUT: the request may still be carried out.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_bus_connect(
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
        let path = bus.path().to_owned();
        target.write(place.open(Arc::new(SharedBus { bus: Mutex::new(bus), topics: Arc::default(), path, timeout })));
        Ok(())
    })
}

/// Closes the connection. NULL is fine.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_bus_free(bus: *mut heartbus_bus) -> heartbus_status {
    guard(|| if bus.is_null() { Ok(()) } else { handle::close::<SharedBus>(bus).map(drop) })
}

/// Sends data to several nodes on their main channels, and says for how many of them it was queued in `count`, which may be
/// NULL. Who is not online, or has no room, is not counted.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_bus_send_many(
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
            (several("node_ids", node_ids, node_count)?, bytes("payload", payload, payload_len)?, out_if_wanted("count", count)?)
        };
        let queued = handle::get::<SharedBus>(bus)?.reply(&Request::SendMany { nodes: ids, data: payload })?.count()?;
        if let Some(count) = count {
            count.write(queued);
        }
        Ok(())
    })
}

/// Lists the nodes that are online in pages, as heartbus_server_nodes. With a pattern or an address only those that match:
/// `*` in the pattern stands for any text, `?` for one character; NULL with length 0 matches all. A page may be short, even
/// empty, with more to come: only a cursor of 0 says that it was the last.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_bus_nodes(
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
pub(crate) unsafe extern "C" fn heartbus_bus_find_nodes(
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
    let request = match metadata {
        None => Request::Page { after, limit, id_pattern: pattern, ip },
        Some(metadata) => Request::Find { after, limit, id_pattern: pattern, ip, metadata },
    };
    let (page, next) = handle::get::<SharedBus>(bus)?.reply(&request)?.page()?;
    with_texts(|texts| {
        for (target, node) in nodes.iter_mut().zip(&page) {
            target.write(heartbus_node::new(node, texts));
        }
    });
    *cursor = next.unwrap_or(0);
    count.write(page.len().min(nodes.len()));
    Ok(())
}
