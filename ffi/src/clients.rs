//! Clients for C: a group with one thread and one descriptor, in which each client is a number.

use crate::arguments::{bytes, out, text};
use crate::attached::UserData;
use crate::event::{heartbus_event, keep, of_client};
use crate::handle::{self, Object, Place, Polled};
use crate::process::make_room;
use crate::queue::{Queue, Teller};
use crate::status::{guard, heartbus_status};
use crate::texts::with_texts;
use bumpalo::Bump;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{ClientEvent, ClientEventMask, FleetEvent};
use heartbus_core::inbox::Inbox;
use heartbus_core::net::client;
use std::collections::{HashMap, VecDeque};
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A group of clients, driven by one thread and polled together. One client or tens of thousands.
pub(crate) struct heartbus_clients {
    _opaque: [u8; 0],
}

pub(crate) struct Group {
    clients: client::Clients,
    queue: Arc<Queue<Arc<Inbox<FleetEvent>>>>,
    /// Those whose end the program has not seen yet.
    members: Mutex<HashMap<u64, Member>>,
    /// Nothing is asked of the clients any more.
    stopped: AtomicBool,
}

struct Member {
    client: Arc<client::Client>,
    user_data: UserData,
    /// None until the client was given a node: then its events may be about others than its first.
    of_nodes: Option<Box<AddedNodes>>,
}

/// Told apart by where their ids lie: a node that is added again is another one.
type AddedNodes = HashMap<usize, (Arc<str>, UserData)>;

fn place_of(id: &Arc<str>) -> usize {
    Arc::as_ptr(id).addr()
}

impl Member {
    /// What an event of this client carries.
    fn user_data_of(&mut self, event: &ClientEvent) -> UserData {
        let node_id = match event {
            ClientEvent::Register { node_id, .. } | ClientEvent::NodeLost { node_id, .. } => Some(node_id),
            ClientEvent::Data { node_id, .. } => node_id.as_ref(),
            ClientEvent::Message(message) => message.node_id.as_ref(),
            _ => None,
        };
        let Some(node_id) = node_id else { return self.user_data };
        let Some(of_nodes) = &mut self.of_nodes else { return self.user_data };
        let attached = match event {
            ClientEvent::NodeLost { .. } => of_nodes.remove(&place_of(node_id)),
            _ => of_nodes.get(&place_of(node_id)).cloned(),
        };
        match attached {
            Some((_, user_data)) => user_data,
            // Not asked where it makes no difference: the client answers under a lock.
            None if !self.user_data.is_none() && self.is_first(node_id) => self.user_data,
            None => UserData::NONE,
        }
    }

    /// Under the id that it asks for, or that the server has given it.
    fn is_first(&self, node_id: &str) -> bool {
        let is_it = |id: Option<Arc<str>>| id.is_some_and(|id| *id == *node_id);
        is_it(self.client.first_node()) || is_it(self.client.node_id())
    }

    /// Where the pointer of one of its nodes is kept; of the client itself, and so of its first node, without an id.
    ///
    /// # Errors
    /// `NotFound` when the client has no such node.
    fn find(&self, node_id: &str) -> Result<Option<Arc<str>>, Error> {
        if node_id.is_empty() || self.is_first(node_id) {
            return Ok(None);
        }
        let no_such_node = || Error::new(ErrorKind::NotFound, "The client has no such node");
        self.client.added_node(node_id).map(Some).ok_or_else(no_such_node)
    }
}

impl Object for Group {
    type Opaque = heartbus_clients;
    const NAME: &'static str = "clients";

    fn polled(&self) -> Option<Arc<dyn Polled>> {
        Some(self.queue.clone())
    }
}

impl Teller<FleetEvent> for Group {
    fn tell(&self, items: &VecDeque<FleetEvent>, texts: &Bump, events: &mut [MaybeUninit<heartbus_event>]) {
        let mut members = self.members();
        for (target, item) in events.iter_mut().zip(items) {
            let user_data = members.get_mut(&item.client_id).map(|member| member.user_data_of(&item.event));
            target.write(heartbus_event { user_data: user_data.unwrap_or(UserData::NONE).0, ..of_client(item, texts) });
        }
    }

    fn forget(&self, item: &FleetEvent) {
        if item.event == ClientEvent::Finished {
            self.members().remove(&item.client_id);
        }
    }
}

impl Group {
    fn members(&self) -> MutexGuard<'_, HashMap<u64, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// `Closed` once the group is stopped, whoever is asked for; `NotFound`.
    fn member<R>(&self, client_id: u64, ask: impl FnOnce(&mut Member) -> Result<R, Error>) -> Result<R, Error> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "The clients are stopped"));
        }
        let no_such_client = || Error::new(ErrorKind::NotFound, format!("There is no client {client_id}"));
        ask(self.members().get_mut(&client_id).ok_or_else(no_such_client)?)
    }

    pub(crate) fn client(&self, client_id: u64) -> Result<Arc<client::Client>, Error> {
        self.member(client_id, |member| Ok(member.client.clone()))
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // A second caller returns no earlier than the first.
        self.clients.stop();
        self.queue.end();
    }
}

/// A client as it is at this moment.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub(crate) struct heartbus_client {
    pub client_id: u64,
    /// 0 until the server registered it for the first time; kept afterwards.
    pub channel_id: i64,
    /// Heartbeats, data and pings.
    pub messages_sent: u64,
    pub messages_received: u64,
    /// When it connected last, in seconds since 1970; 0 before the first time.
    pub connected_at: f64,
    /// NULL until the server registered it for the first time; kept afterwards.
    pub node_id: *const c_char,
    pub node_id_len: usize,
    /// Since it was registered last.
    pub reconnect_attempts: u32,
    pub connected: bool,
    pub reserved8: [u8; 3],
    /// How many of its nodes are registered at this moment.
    pub nodes: u64,
    /// How often reading stopped because the program took no events.
    pub reads_paused: u32,
    /// Frames of the server that were no use: not to be understood, a reply to what was never asked, or a text of which only the
    /// beginning was kept.
    pub frames_refused: u32,
    /// Bytes that wait to be written.
    pub bytes_waiting: u64,
    /// What heartbus_client_set_user_data attached to it; NULL when that is nothing.
    pub user_data: *mut c_void,
}

/// Starts a group without clients. `config` is JSON text (see the first page); NULL with length 0 means all defaults. Free
/// the group with heartbus_clients_free.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_clients_start(
    config: *const c_char,
    config_len: usize,
    clients: *mut *mut heartbus_clients,
) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's text and the place for the result, as the first page asks.
        let (config, target) = unsafe { (bytes("config", config, config_len)?, out("clients", clients)?) };
        let limits = crate::config::clients(config)?;
        make_room();
        let place = Place::new();
        let _within = place.within();
        let inbox = Inbox::new(limits)?;
        inbox.subscribe(ClientEventMask::ALL);
        let queue = Queue::new(inbox.clone())?;
        let clients = client::Clients::start(inbox)?;
        let (members, stopped) = (Mutex::default(), AtomicBool::new(false));
        target.write(place.open(Arc::new(Group { clients, queue, members, stopped })));
        Ok(())
    })
}

/// Disconnects all clients politely and ends their thread, within 1.5 s. Poll until HEARTBUS_CLOSED to learn what happened
/// until then. Calling it again is harmless.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_clients_stop(clients: *mut heartbus_clients) -> heartbus_status {
    guard(|| {
        handle::get::<Group>(clients)?.stop();
        Ok(())
    })
}

/// Stops the clients if they still run, and ends their handle, as heartbus_server_free. NULL is fine.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_clients_free(clients: *mut heartbus_clients) -> heartbus_status {
    guard(|| {
        if !clients.is_null() {
            handle::close::<Group>(clients)?.stop();
        }
        Ok(())
    })
}

/// A descriptor for all clients of the group, as heartbus_server_fd.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_clients_fd(clients: *const heartbus_clients, fd: *mut c_int) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the place for the result, as the first page asks.
        unsafe { out("fd", fd) }?.write(group.queue.fd());
        Ok(())
    })
}

/// Takes events of all clients of the group, as heartbus_server_poll.
///
/// HEARTBUS_CLOSED when the clients were stopped and every event was taken, or when another thread has freed them.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_clients_poll(
    clients: *mut heartbus_clients,
    events: *mut heartbus_event,
    capacity: usize,
    timeout_ms: i32,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        let group = handle::get_to_poll::<Group>(clients)?;
        // SAFETY: the caller's array and the place for the number, as the first page asks.
        unsafe { group.queue.poll_into(&**group, events, capacity, timeout_ms, count) }
    })
}

/// How many clients of the group are not finished.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_clients_count(clients: *const heartbus_clients, count: *mut usize) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the place for the result, as the first page asks.
        unsafe { out("count", count) }?.write(group.clients.count());
        Ok(())
    })
}

/// What the clients of the group keep together of what their servers send, and of what waits to be sent, in bytes of memory:
/// `total_buffer_bytes` of a client bounds it. What waits in the group's queue of events is not in it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_clients_bytes_kept(clients: *const heartbus_clients, bytes: *mut usize) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the place for the result, as the first page asks.
        unsafe { out("bytes", bytes) }?.write(group.clients.bytes_kept());
        Ok(())
    })
}

/// Adds a client to the group, and says in `client_id` how events and the functions below call it. `config` is JSON text
/// (see the first page). It connects in the background: events tell how that went.
///
/// HEARTBUS_CONFIG when a setting is wrong, HEARTBUS_CLOSED when the group is stopped.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_connect(
    clients: *mut heartbus_clients,
    config: *const c_char,
    config_len: usize,
    client_id: *mut u64,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's text and the place for the result, as the first page asks.
        let (config, client_id) = unsafe { (bytes("config", config, config_len)?, out("client_id", client_id)?) };
        let config = crate::config::client(config)?;
        // Locked first: another thread may poll the client's end before it is among the members, and would not find it.
        let mut members = group.members();
        let client = group.clients.connect(config)?;
        client_id.write(client.id());
        members.insert(client.id(), Member { client: Arc::new(client), user_data: UserData::NONE, of_nodes: None });
        Ok(())
    })
}

/// Sends data to the server, on the channel of the client's first node when `channel_id` is 0 or less. Returns when it is
/// queued; what is refused changes nothing, and no event tells of it.
///
/// HEARTBUS_CLOSED when it is not connected and registered, HEARTBUS_LIMIT when its outbox is full or the payload longer
/// than a frame may be, HEARTBUS_INVALID_ARGUMENT when the payload is not UTF-8 and the server speaks the protocol's
/// version 1 only, which cannot carry it, HEARTBUS_NOT_FOUND for a channel id over 32 bits in version 2, or when the client
/// has more nodes and none of them that channel.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_send(
    clients: *mut heartbus_clients,
    client_id: u64,
    payload: *const c_char,
    payload_len: usize,
    channel_id: i64,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's bytes, as the first page asks.
        let payload = unsafe { bytes("payload", payload, payload_len) }?;
        group.client(client_id)?.send(payload, channel_id)
    })
}

/// Has a client carry one more node over its connection, and over each that follows: a gateway with its devices. `metadata` is
/// JSON text, an object or a list; NULL with length 0 means none. HEARTBUS_EVENT_CLIENT_REGISTER tells when the server
/// has registered it, after each connect anew; HEARTBUS_EVENT_CLIENT_NODE_LOST when it refused or took it away.
///
/// HEARTBUS_INVALID_ARGUMENT when the id or the metadata is wrong, or the client has a node of this id already;
/// HEARTBUS_LIMIT when it has max_nodes of them; HEARTBUS_CLOSED when it will not connect again.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_add_node(
    clients: *mut heartbus_clients,
    client_id: u64,
    node_id: *const c_char,
    node_id_len: usize,
    metadata: *const c_char,
    metadata_len: usize,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's texts, as the first page asks.
        let (node_id, metadata) = unsafe { (text("node_id", node_id, node_id_len)?, text("metadata", metadata, metadata_len)?) };
        group.member(client_id, |member| {
            // Before its events come.
            member.of_nodes.get_or_insert_default();
            member.client.add_node(node_id, if metadata.is_empty() { "[]" } else { metadata })
        })
    })
}

/// Signs an added node off. Nothing more is told of it, but for what waits to be polled; no event carries what was attached to it.
///
/// HEARTBUS_NOT_FOUND when the client has no such node; HEARTBUS_INVALID_ARGUMENT for its first one, which stays as long as
/// the client.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_remove_node(
    clients: *mut heartbus_clients,
    client_id: u64,
    node_id: *const c_char,
    node_id_len: usize,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's text, as the first page asks.
        let node_id = unsafe { text("node_id", node_id, node_id_len) }?;
        group.member(client_id, |member| {
            let id = member.client.added_node(node_id);
            member.client.remove_node(node_id)?;
            if let (Some(id), Some(of_nodes)) = (id, &mut member.of_nodes) {
                of_nodes.remove(&place_of(&id));
            }
            Ok(())
        })
    })
}

/// Sends data of one of the client's nodes, on the channel that it has at this moment. Channel ids are others after a
/// reconnect, and may then be another node's; its node id never is.
///
/// HEARTBUS_NOT_FOUND when the client has no such node; HEARTBUS_CLOSED when it is not registered at this moment; else as
/// heartbus_client_send.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_send_from(
    clients: *mut heartbus_clients,
    client_id: u64,
    node_id: *const c_char,
    node_id_len: usize,
    payload: *const c_char,
    payload_len: usize,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's text and bytes, as the first page asks.
        let (node_id, payload) = unsafe { (text("node_id", node_id, node_id_len)?, bytes("payload", payload, payload_len)?) };
        group.client(client_id)?.send_from(node_id, payload)
    })
}

/// Sends a heartbeat of one of the client's nodes. Needed where a gateway says which of its devices are alive: with
/// "heartbeat_all" false the client's own heartbeats are its first node's, and each other node lives by these alone.
///
/// As heartbus_client_send_from.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_heartbeat(
    clients: *mut heartbus_clients,
    client_id: u64,
    node_id: *const c_char,
    node_id_len: usize,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's text, as the first page asks.
        let node_id = unsafe { text("node_id", node_id, node_id_len) }?;
        group.client(client_id)?.heartbeat(node_id)
    })
}

/// Sends a PING, which the server answers with HEARTBUS_EVENT_CLIENT_PONG.
///
/// HEARTBUS_CLOSED when it is not connected.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_ping(clients: *mut heartbus_clients, client_id: u64) -> heartbus_status {
    guard(|| handle::get::<Group>(clients)?.client(client_id)?.ping())
}

/// Says goodbye to the server and does not connect again. HEARTBUS_EVENT_CLIENT_FINISHED follows.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_disconnect(clients: *mut heartbus_clients, client_id: u64) -> heartbus_status {
    guard(|| {
        handle::get::<Group>(clients)?.client(client_id)?.disconnect();
        Ok(())
    })
}

/// Looks a client up. What `client` points to is valid until this thread's next lookup.
///
/// HEARTBUS_NOT_FOUND when there is none with this number, or not any more.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_info(
    clients: *const heartbus_clients,
    client_id: u64,
    client: *mut heartbus_client,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the place for the result, as the first page asks.
        let target = unsafe { out("client", client) }?;
        let (stats, user_data) = group.member(client_id, |member| Ok((member.client.stats(), member.user_data)))?;
        with_texts(|texts| {
            let (node_id, node_id_len) = stats.node_id.map_or((ptr::null(), 0), |id| keep(texts, &id));
            target.write(heartbus_client {
                client_id,
                channel_id: stats.channel_id.unwrap_or(0).into(),
                messages_sent: stats.messages_sent,
                messages_received: stats.messages_received,
                connected_at: stats.connected_at.unwrap_or(0.0),
                node_id,
                node_id_len,
                reconnect_attempts: stats.reconnect_attempts,
                connected: stats.connected,
                reserved8: [0; 3],
                nodes: stats.nodes as u64,
                reads_paused: u32::try_from(stats.reads_paused).unwrap_or(u32::MAX),
                frames_refused: u32::try_from(stats.frames_refused).unwrap_or(u32::MAX),
                bytes_waiting: stats.bytes_waiting,
                user_data: user_data.0,
            });
        });
        Ok(())
    })
}

/// Attaches a pointer of the program's to a client (`node_id` NULL with length 0, or that of its first node) or to a node that it was
/// given by heartbus_client_add_node. Their events carry it from now on as user_data; NULL takes it away. It comes back with
/// HEARTBUS_EVENT_CLIENT_FINISHED, that of an added node with HEARTBUS_EVENT_CLIENT_NODE_LOST, or when heartbus_client_remove_node
/// returns. What added nodes still have when their client is finished is in no event.
///
/// HEARTBUS_NOT_FOUND when the client has no such node, also when HEARTBUS_EVENT_CLIENT_NODE_LOST waits to be polled: the pointer is
/// still the program's then.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_set_user_data(
    clients: *mut heartbus_clients,
    client_id: u64,
    node_id: *const c_char,
    node_id_len: usize,
    user_data: *mut c_void,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's text, as the first page asks.
        let node_id = unsafe { text("node_id", node_id, node_id_len) }?;
        group.member(client_id, |member| {
            let user_data = UserData(user_data);
            match member.find(node_id)? {
                None => member.user_data = user_data,
                Some(id) => {
                    let of_nodes = member.of_nodes.get_or_insert_default();
                    if user_data.is_none() {
                        of_nodes.remove(&place_of(&id));
                    } else {
                        of_nodes.insert(place_of(&id), (id, user_data));
                    }
                }
            }
            Ok(())
        })
    })
}

/// What heartbus_client_set_user_data has attached to this client or node; NULL when nothing is.
///
/// HEARTBUS_NOT_FOUND as there.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_client_user_data(
    clients: *const heartbus_clients,
    client_id: u64,
    node_id: *const c_char,
    node_id_len: usize,
    user_data: *mut *mut c_void,
) -> heartbus_status {
    guard(|| {
        let group = handle::get::<Group>(clients)?;
        // SAFETY: the caller's text and the place for the result, as the first page asks.
        let (node_id, target) = unsafe { (text("node_id", node_id, node_id_len)?, out("user_data", user_data)?) };
        let found = group.member(client_id, |member| {
            Ok(match member.find(node_id)? {
                None => member.user_data,
                Some(id) => {
                    member.of_nodes.as_ref().and_then(|of_nodes| of_nodes.get(&place_of(&id))).map_or(UserData::NONE, |found| found.1)
                }
            })
        })?;
        target.write(found.0);
        Ok(())
    })
}
