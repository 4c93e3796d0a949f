//! PHP objects that show the engine: which object stands for which registration of a node, which for its channel, and
//! which managers belong to which server.
//!
//! The objects are ordinary ones of `Node`, `Channel`, `NodeManager` and `ChannelScheduler`; PHP holds them, and here they
//! are known only while they live. So the same node is the same object, and an object that nobody holds costs nothing. A
//! clone is an ordinary object that shows nothing.

use crate::backend::{Backend, Registration, RegistrationKey};
use crate::bus::Bus;
use crate::classes::{channel, channel_scheduler, heartbeat_monitor, node_manager};
use crate::exception;
use crate::heartbeat_server::Server;
use crate::moments;
use crate::node;
use crate::numbers::{self, LONGEST, SHORTEST};
use crate::php::{self, Outcome, Thrown, map, text, value};
use ext_php_rs::ffi::{std_object_handlers, zend_object, zend_object_handlers, zend_object_std_dtor};
use ext_php_rs::types::{ZendEmptyArray, Zval};
use ext_php_rs::zend::run_handler;
use heartbus_core::config::YEAR;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::hub::NodeInfo;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::AssertUnwindSafe;
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, OnceLock};

/// What an object stands for.
#[derive(Clone)]
enum Subject {
    /// All nodes, or all channels.
    All,
    Node(Registration),
    Channel(Registration),
}

/// What an object belongs to.
enum Bond {
    Server {
        server: Weak<Server>,
        subject: Subject,
    },
    /// A node that was looked up over a bus: this registration of it.
    Bus {
        bus: Rc<Bus>,
        id: Arc<str>,
        channel_id: u32,
    },
}

impl Bond {
    fn server(&self) -> Option<Rc<Server>> {
        match self {
            Bond::Server { server, .. } => server.upgrade(),
            Bond::Bus { .. } => None,
        }
    }
}

/// Keys are addresses and numbers of ours: two look-ups for every event are noticed with the standard library's hasher,
/// which is made for keys that strangers choose.
type NumberMap<K, T> = HashMap<K, T, BuildHasherDefault<NumberHasher>>;

#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing; the rotation brings the good bits to where the table looks first.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

thread_local! {
    /// By the address of the object.
    static BONDS: RefCell<NumberMap<usize, Bond>> = RefCell::default();
}

/// An object's own, except that we hear of its end. They also tell such an object from an ordinary one. The first are those of
/// objects with moments.
fn handlers() -> &'static [zend_object_handlers; 2] {
    static HANDLERS: OnceLock<[zend_object_handlers; 2]> = OnceLock::new();
    // SAFETY: PHP's standard handlers are a constant.
    HANDLERS.get_or_init(|| {
        [*moments::handlers(), unsafe { std_object_handlers }].map(|own| zend_object_handlers { free_obj: Some(free), ..own })
    })
}

fn bind(object: &Zval, server: &Weak<Server>, subject: Subject) -> Outcome<*mut zend_object> {
    tie(object, Bond::Server { server: server.clone(), subject })
}

fn tie(object: &Zval, bond: Bond) -> Outcome<*mut zend_object> {
    let object = object.object().map(|object| ptr::from_ref(object).cast_mut()).ok_or(Thrown)?;
    let [aging, standard] = handlers();
    // SAFETY: a new object, with the handlers that its class gives it.
    unsafe { (*object).handlers = if ptr::eq((*object).handlers, moments::handlers()) { aging } else { standard } };
    BONDS.with_borrow_mut(|bonds| bonds.insert(object as usize, bond));
    Ok(object)
}

/// A node that was looked up over a bus: what is set of it goes there.
pub fn node_of_bus(bus: &Rc<Bus>, info: &NodeInfo) -> Outcome<Zval> {
    let node = node::create(info)?;
    tie(&node, Bond::Bus { bus: bus.clone(), id: info.id.clone(), channel_id: info.channel_id })?;
    Ok(node)
}

unsafe extern "C" fn free(object: *mut zend_object) {
    run_handler(AssertUnwindSafe(|| {
        let bond = BONDS.try_with(|bonds| bonds.borrow_mut().remove(&(object as usize))).ok().flatten();
        if let Some(Bond::Server { server, subject }) = bond
            && let Some(server) = server.upgrade()
        {
            server.views.forget(object, &subject, &server);
        }
    }));
    // SAFETY: PHP frees an object once.
    unsafe { zend_object_std_dtor(object) };
}

fn bond<T>(object: *mut zend_object, read: impl FnOnce(&Bond) -> Option<T>) -> Option<T> {
    // SAFETY: callers pass live objects.
    if !handlers().iter().any(|ours| ptr::eq(unsafe { (*object).handlers }, ours)) {
        return None;
    }
    BONDS.with_borrow(|bonds| bonds.get(&(object as usize)).and_then(read))
}

/// The engine behind a manager or a scheduler; none for one that stands alone, or whose server has not started yet.
pub fn of(object: *mut zend_object) -> Outcome<Option<Live>> {
    let Some(server) = bond(object, Bond::server) else { return Ok(None) };
    server.check_process()?;
    Ok(server.backend_if_started()?.map(|engine| Live { server, engine }))
}

/// The engine's channel that a `Channel` shows; none for one that stands alone.
pub fn of_channel(object: *mut zend_object) -> Outcome<Option<View>> {
    let found = bond(object, |bond| match bond {
        Bond::Server { server, subject: Subject::Channel(node) } => Some(View { server: server.clone(), node: node.clone() }),
        _ => None,
    });
    if let Some(server) = found.as_ref().and_then(|view| view.server.upgrade()) {
        server.check_process()?;
    }
    Ok(found)
}

/// The server of a manager, started or not.
fn server_of(manager: &Zval) -> Option<Rc<Server>> {
    bond(manager.object().map(|object| ptr::from_ref(object).cast_mut())?, Bond::server)
}

/// What is set of a node that an object shows is kept by its engine, for everybody to see.
pub enum Shown {
    OfServer(Rc<Server>, Registration),
    OfBus(Rc<Bus>, Arc<str>, u32),
}

/// The node that an object shows; none for a plain value.
pub fn node_shown(object: *mut zend_object) -> Option<Shown> {
    bond(object, |bond| match bond {
        Bond::Server { server, subject: Subject::Node(node) } => Some(Shown::OfServer(server.upgrade()?, node.clone())),
        Bond::Bus { bus, id, channel_id } => Some(Shown::OfBus(bus.clone(), id.clone(), *channel_id)),
        Bond::Server { .. } => None,
    })
}

impl Shown {
    /// Sets members of the node's metadata. A node that has left has nobody to show it to any more.
    pub fn set_metadata(&self, object: *mut zend_object, members: &str) -> Outcome {
        let set = match self {
            Shown::OfServer(server, node) => {
                let Some(engine) = server.backend()? else { return Ok(()) };
                let set = engine.set_metadata(node.id(), node.channel_id(), members);
                if set.is_ok() && matches!(&*engine, Backend::NextDoor(_)) {
                    server.views.hold(object, node, server.last_batch());
                }
                set
            }
            Shown::OfBus(bus, id, channel_id) => bus.set_metadata(id, *channel_id, members)?,
        };
        match set {
            Err(error) if !matches!(error.kind, ErrorKind::NotFound | ErrorKind::Closed | ErrorKind::Io) => Err(exception::raise(&error)),
            _ => Ok(()),
        }
    }
}

/// From now on a monitor is told which nodes of its manager's server time out.
pub fn watch_timeouts(manager: &Zval, monitor: *mut zend_object) -> Outcome {
    let Some(server) = server_of(manager) else { return Ok(()) };
    server.check_is_told("HeartbeatMonitor::start()")?;
    let mut monitors = server.views.monitors.borrow_mut();
    if !monitors.iter().any(|known| is_object(known, monitor)) {
        monitors.push(php::object(monitor));
    }
    drop(monitors);
    server.resubscribe();
    Ok(())
}

pub fn unwatch_timeouts(manager: &Zval, monitor: *mut zend_object) {
    let Some(server) = server_of(manager) else { return };
    let forgotten = {
        let mut monitors = server.views.monitors.borrow_mut();
        let place = monitors.iter().position(|known| is_object(known, monitor));
        place.map(|place| monitors.remove(place))
    };
    server.resubscribe();
    drop(forgotten);
}

fn is_object(value: &Zval, object: *mut zend_object) -> bool {
    value.object().is_some_and(|held| ptr::eq(held, object))
}

/// What becomes of data for a node.
pub enum Sent {
    Yes,
    /// Not now, or not this: the log knows why.
    Refused,
    /// The node left.
    Gone,
}

/// One channel of the engine.
pub struct View {
    server: Weak<Server>,
    node: Registration,
}

impl View {
    pub fn is_open(&self) -> bool {
        // Next door the engine says so when it is asked for something, and tells who left.
        !matches!(&self.node, Registration::Here(node) if !node.is_online())
    }

    pub fn send(&self, data: &[u8]) -> Outcome<Sent> {
        let Some(server) = self.server.upgrade().filter(|_| self.is_open()) else { return Ok(Sent::Gone) };
        let mut is_gone = false;
        let sent = server.ask(|engine| {
            let sent = engine.send_to(self.node.id(), data, self.node.channel_id());
            is_gone = sent.as_ref().is_err_and(|error| matches!(error.kind, ErrorKind::NotFound | ErrorKind::Closed));
            sent
        })?;
        Ok(match sent {
            Some(()) => Sent::Yes,
            None if is_gone => Sent::Gone,
            None => Sent::Refused,
        })
    }

    /// Whoever receives from a channel wants what comes between two calls as well: the server holds it from now on.
    pub fn keep(&self, channel: *mut zend_object) -> Outcome {
        let Some(server) = self.server.upgrade().filter(|_| self.is_open() && !channel::closed(channel)) else { return Ok(()) };
        server.check_is_told("Channel::recv()")?;
        if let Some(entry) = server.views.channels.borrow_mut().get_mut(&self.node.channel_id()).filter(|entry| entry.object == channel) {
            entry.kept.get_or_insert_with(|| php::object(channel));
        }
        Ok(())
    }

    /// The channel is closed on this side.
    pub fn let_go(&self, channel: *mut zend_object) {
        let Some(server) = self.server.upgrade() else { return };
        let kept = {
            let mut channels = server.views.channels.borrow_mut();
            channels.get_mut(&self.node.channel_id()).filter(|entry| entry.object == channel).and_then(|entry| entry.kept.take())
        };
        drop(kept);
    }
}

struct NodeEntry {
    object: *mut zend_object,
    /// What the object's metadata was made of.
    metadata: Arc<str>,
    /// A worker has changed it: the events up to this batch may have been described before.
    ahead_until: u64,
}

/// Batches on their way to a worker that were described before it changed something.
const BATCHES_AHEAD: u64 = 4;

/// Nodes that a worker holds because it has changed them.
const MAX_CHANGED: usize = 4096;

struct ChannelEntry {
    object: *mut zend_object,
    node: Registration,
    /// The number of the last message, which comes again when this worker becomes the one that serves the node.
    seen: Cell<u64>,
    kept: Option<Zval>,
}

/// The objects of one server.
#[derive(Default)]
pub struct Views {
    nodes: RefCell<NumberMap<RegistrationKey, NodeEntry>>,
    /// By the id of the channel. Closed ones stay while PHP holds them.
    channels: RefCell<HashMap<u32, ChannelEntry>>,
    /// Nodes that know better than the events on their way, and until which batch.
    changed: RefCell<VecDeque<(u64, Zval)>>,
    /// Channels whose waiters have to be told something.
    to_wake: RefCell<VecDeque<Zval>>,
    /// `NodeManager` and `ChannelScheduler`, once somebody asked for them.
    manager: RefCell<Zval>,
    scheduler: RefCell<Zval>,
    /// The running `HeartbeatMonitor`s of the manager.
    monitors: RefCell<Vec<Zval>>,
    /// Messages that full queues dropped.
    dropped: Cell<u64>,
    /// The number of coalesced events up to which no departure was missed.
    swept: Cell<u64>,
}

impl Views {
    pub fn each_value(&self, visit: &mut dyn FnMut(&Zval)) {
        visit(&self.manager.borrow());
        visit(&self.scheduler.borrow());
        self.monitors.borrow().iter().for_each(&mut *visit);
        self.channels.borrow().values().filter_map(|entry| entry.kept.as_ref()).for_each(&mut *visit);
        self.changed.borrow().iter().for_each(|(_, node)| visit(node));
        self.to_wake.borrow().iter().for_each(visit);
    }

    pub fn manager(&self, server: &Weak<Server>, heartbeat_timeout: f64) -> Outcome<Zval> {
        if !self.manager.borrow().is_object() {
            let manager = node_manager::create(heartbeat_timeout)?;
            bind(&manager, server, Subject::All)?;
            self.manager.replace(manager);
        }
        Ok(self.manager.borrow().shallow_clone())
    }

    pub fn scheduler(&self, server: &Weak<Server>) -> Outcome<Zval> {
        if !self.scheduler.borrow().is_object() {
            let scheduler = channel_scheduler::create()?;
            bind(&scheduler, server, Subject::All)?;
            self.scheduler.replace(scheduler);
        }
        Ok(self.scheduler.borrow().shallow_clone())
    }

    /// The timeout that somebody gave the manager, maybe before the start.
    pub fn heartbeat_timeout(&self) -> Option<f64> {
        self.manager.borrow().object().map(|manager| node_manager::heartbeat_timeout(ptr::from_ref(manager).cast_mut()))
    }

    /// The object of a registration, as the engine knows it at this moment, or as an event of that batch shows it.
    pub fn node(&self, server: &Weak<Server>, engine: &Backend, about: &Registration, batch: Option<u64>) -> Outcome<Zval> {
        let info = engine.info(about);
        let key = about.key();
        let known = self.nodes.borrow_mut().get_mut(&key).map(|entry| {
            let is_old = batch.is_some_and(|batch| batch <= entry.ahead_until);
            let is_same = is_old || Arc::ptr_eq(&entry.metadata, &info.metadata) || entry.metadata == info.metadata;
            if !is_old {
                entry.metadata.clone_from(&info.metadata);
            }
            (php::object(entry.object), entry.object, is_same)
        });
        if let Some((node, object, is_same)) = known {
            node::refresh(object, &info, !is_same);
            return Ok(node);
        }
        let node = node::create(&info)?;
        let object = bind(&node, server, Subject::Node(about.clone()))?;
        self.nodes.borrow_mut().insert(key, NodeEntry { object, metadata: info.metadata.clone(), ahead_until: 0 });
        Ok(node)
    }

    /// A worker has changed what the engine keeps of a node: events that are on their way show it as it was before.
    fn hold(&self, object: *mut zend_object, node: &Registration, last_batch: u64) {
        let until = last_batch + BATCHES_AHEAD;
        let is_known =
            self.nodes.borrow_mut().get_mut(&node.key()).filter(|entry| entry.object == object).map(|entry| entry.ahead_until = until);
        let mut changed = self.changed.borrow_mut();
        let is_held =
            changed.back().is_some_and(|(batch, held)| *batch == until && held.object().is_some_and(|held| ptr::eq(held, object)));
        if is_known.is_some() && !is_held {
            changed.push_back((until, php::object(object)));
        }
        let forgotten = if changed.len() > MAX_CHANGED { changed.pop_front() } else { None };
        drop(changed);
        drop(forgotten);
    }

    /// Lets go of nodes of which all events up to this batch were told.
    pub fn release(&self, batch: u64) {
        loop {
            let mut changed = self.changed.borrow_mut();
            let is_told = changed.front().is_some_and(|(until, _)| *until < batch);
            let node = if is_told { changed.pop_front() } else { None };
            drop(changed);
            // Dropped with no borrow held.
            if node.is_none() {
                return;
            }
        }
    }

    /// The objects of many registrations, each brought up to date once.
    pub fn nodes(&self, server: &Weak<Server>, engine: &Backend, about: Vec<&Registration>, batch: u64) -> Outcome<Vec<Zval>> {
        let mut known = NumberMap::<RegistrationKey, usize>::default();
        let mut objects: Vec<Zval> = Vec::with_capacity(about.len());
        let mut before = None;
        for (place, node) in about.into_iter().enumerate() {
            let key = node.key();
            // What one node sent comes in a row, mostly.
            let same = if before == Some(key) { Some(place - 1) } else { known.get(&key).copied() };
            let object = match same {
                Some(place) => objects[place].shallow_clone(),
                None => self.node(server, engine, node, Some(batch))?,
            };
            if same.is_none() {
                known.insert(key, place);
            }
            objects.push(object);
            before = Some(key);
        }
        Ok(objects)
    }

    /// The object of a node's channel; null for a node that left.
    fn channel(&self, live: &Live, node: &Registration) -> Outcome<Zval> {
        if let Some(object) = self.channel_of(node) {
            return Ok(php::object(object));
        }
        let info = live.engine.info(node);
        let channel = channel::create(i64::from(info.channel_id), text(&*info.id), live.server.channel_queue_size())?;
        let object = bind(&channel, live.server.weak(), Subject::Channel(node.clone()))?;
        channel::set_created_at(object, info.created_at);
        let entry = ChannelEntry { object, node: node.clone(), seen: Cell::new(0), kept: None };
        self.channels.borrow_mut().insert(info.channel_id, entry);
        live.server.resubscribe();
        live.server.watch(info.channel_id);
        // One that leaves from here on is told of.
        let is_online = answered(live.engine.is_online(node))?;
        Ok(if is_online { channel } else { Zval::null() })
    }

    /// What PHP holds of a node's channel.
    fn channel_of(&self, node: &Registration) -> Option<*mut zend_object> {
        self.channels.borrow().get(&node.channel_id()).filter(|entry| entry.node.key() == node.key()).map(|entry| entry.object)
    }

    pub fn open_channels(&self) -> Vec<u32> {
        self.channels.borrow().keys().copied().collect()
    }

    pub fn are_channels_open(&self) -> bool {
        !self.channels.borrow().is_empty()
    }

    pub fn are_monitors_running(&self) -> bool {
        !self.monitors.borrow().is_empty()
    }

    /// A node timed out. True when a monitor was told.
    pub fn tell_monitors(&self, node: &Zval) -> Outcome<bool> {
        let monitors: Vec<Zval> = self.monitors.borrow().iter().map(Zval::shallow_clone).collect();
        for monitor in monitors.iter().filter_map(Zval::object) {
            heartbeat_monitor::tell(ptr::from_ref(monitor).cast_mut(), node)?;
        }
        Ok(!monitors.is_empty())
    }

    fn forget(&self, object: *mut zend_object, subject: &Subject, server: &Server) {
        match subject {
            Subject::All => {}
            Subject::Node(node) => {
                self.nodes.borrow_mut().remove(&node.key());
            }
            Subject::Channel(node) => {
                let mut channels = self.channels.borrow_mut();
                // A later channel may have the id by now.
                if channels.get(&node.channel_id()).is_some_and(|entry| entry.object == object) {
                    channels.remove(&node.channel_id());
                }
                let are_none_left = channels.is_empty();
                drop(channels);
                server.unwatch(node.channel_id());
                if are_none_left {
                    server.resubscribe();
                }
            }
        }
    }

    // ---- what happens on the wire ----

    /// Puts a message into its channel's queue, once. `sequence` is its event's number. True when somebody waits for it: see
    /// [`Views::wake`].
    pub fn receive(&self, node: &Registration, channel_id: u32, payload: &[u8], sequence: u64) -> bool {
        let object = self.channel_of(node).filter(|_| channel_id == node.channel_id());
        let Some(object) = object.filter(|object| !channel::closed(*object)) else { return false };
        if self.channels.borrow().get(&channel_id).is_some_and(|entry| entry.seen.replace(sequence.max(entry.seen.get())) >= sequence) {
            return false;
        }
        if channel::accept(object, text(payload)) {
            self.dropped.set(self.dropped.get() + 1);
        }
        self.notice(object)
    }

    /// A node left: its channel takes nothing more. What it has is still there to be received.
    pub fn node_left(&self, node: &Registration) -> bool {
        self.channel_of(node).is_some_and(|object| self.close(node.channel_id(), object))
    }

    fn close(&self, channel_id: u32, object: *mut zend_object) -> bool {
        let channel = php::object(object);
        channel::end(object);
        let is_waited_for = self.notice(object);
        let kept = self.channels.borrow_mut().remove(&channel_id).and_then(|entry| entry.kept);
        drop((kept, channel));
        is_waited_for
    }

    /// The server stopped, or told us less than happened: closes the channels of all nodes that are gone.
    pub fn close_departed(&self, engine: &Backend) -> bool {
        let channels: Vec<_> = self.channels.borrow().iter().map(|(id, entry)| (*id, entry.object, entry.node.clone())).collect();
        // Whoever cannot be asked about is gone.
        let gone = channels.into_iter().filter(|(.., node)| !engine.is_online(node).unwrap_or_default());
        gone.fold(false, |any, (id, object, _)| self.close(id, object) || any)
    }

    /// The server is gone, and all its nodes.
    pub fn close_all(&self) -> bool {
        let all: Vec<_> = self.channels.borrow().iter().map(|(id, entry)| (*id, entry.object)).collect();
        all.into_iter().fold(false, |any, (id, object)| self.close(id, object) || any)
    }

    /// Departures may be put together with later arrivals of the same id while PHP is slow. To be called when everything
    /// was told, with the number of events that were put together so far.
    pub fn sweep(&self, coalesced: u64, engine: &Backend) -> bool {
        self.swept.replace(coalesced) != coalesced && self.close_departed(engine)
    }

    fn notice(&self, object: *mut zend_object) -> bool {
        let is_waited_for = channel::has_waiters(object);
        if is_waited_for {
            self.to_wake.borrow_mut().push_back(php::object(object));
        }
        is_waited_for
    }

    pub fn has_to_wake(&self) -> bool {
        !self.to_wake.borrow().is_empty()
    }

    /// Gives those who wait what their channels have. Runs PHP code.
    pub fn wake(&self) -> Outcome<usize> {
        let mut woken = 0;
        loop {
            let channel = self.to_wake.borrow_mut().pop_front();
            let Some(object) = channel.as_ref().and_then(Zval::object) else { return Ok(woken) };
            channel::serve_waiters(ptr::from_ref(object).cast_mut())?;
            woken += 1;
        }
    }

    pub fn clear(&self) {
        let kept: Vec<_> = self.channels.borrow_mut().values_mut().filter_map(|entry| entry.kept.take()).collect();
        drop((kept, self.changed.take(), self.to_wake.take(), self.monitors.take()));
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Messages that wait in all channels together.
    pub fn queued(&self) -> i64 {
        self.channels.borrow().values().map(|entry| channel::totals(entry.object)[1]).sum()
    }
}

/// A server that has started, for its manager and its scheduler.
pub struct Live {
    pub server: Rc<Server>,
    pub engine: Rc<Backend>,
}

/// The answer, or the exception that says why there is none.
fn answered<T>(answer: Result<T, Error>) -> Outcome<T> {
    answer.map_err(|error| exception::raise(&error))
}

impl Live {
    fn find(&self, id: &[u8]) -> Outcome<Option<Registration>> {
        std::str::from_utf8(id).map_or(Ok(None), |id| answered(self.engine.node(id)))
    }

    fn find_by_connection(&self, connection_id: i64) -> Outcome<Option<Registration>> {
        u64::try_from(connection_id).map_or(Ok(None), |id| answered(self.engine.node_of_connection(id)))
    }

    fn object(&self, node: &Registration) -> Outcome<Zval> {
        self.server.views.node(self.server.weak(), &self.engine, node, None)
    }

    // ---- nodes ----

    pub fn has_node(&self, id: &[u8]) -> Outcome<bool> {
        Ok(self.find(id)?.is_some())
    }

    pub fn node(&self, id: &[u8]) -> Outcome<Zval> {
        self.find(id)?.map_or_else(|| Ok(Zval::null()), |node| self.object(&node))
    }

    pub fn node_by_connection(&self, connection_id: i64) -> Outcome<Zval> {
        self.find_by_connection(connection_id)?.map_or_else(|| Ok(Zval::null()), |node| self.object(&node))
    }

    /// Nodes register over their connections; one that is registered already may be registered again.
    pub fn register(&self, id: &[u8], connection_id: i64) -> Outcome {
        match self.find(id)? {
            Some(node) if node.connection_id() == connection_id as u64 => Ok(()),
            _ => Err(exception::logic_exception(
                "The nodes of a running HeartbeatServer register over their connections: NodeManager::register() cannot be called",
            )),
        }
    }

    /// Takes the node off the bus, and its connection with it unless that has other nodes.
    pub fn unregister(&self, id: &[u8]) -> Outcome<Zval> {
        let Some(node) = self.find(id)? else { return Ok(Zval::null()) };
        // It may leave by itself at this moment.
        let _ = self.engine.disconnect(node.id());
        self.object(&node)
    }

    pub fn unregister_by_connection(&self, connection_id: i64) -> Outcome<Zval> {
        match self.find_by_connection(connection_id)? {
            Some(node) => self.unregister(node.id().as_bytes()),
            None => Ok(Zval::null()),
        }
    }

    pub fn keep_alive(&self, id: &[u8]) -> Outcome<bool> {
        Ok(std::str::from_utf8(id).is_ok_and(|id| self.engine.keep_alive(id).is_ok()))
    }

    /// Every node by its id. The engine knows only nodes that are online.
    pub fn nodes(&self) -> Outcome<Zval> {
        let mut all = value(ZendEmptyArray);
        for node in answered(self.engine.nodes())? {
            node_manager::add(&mut all, node.id().as_bytes(), self.object(&node)?);
        }
        Ok(all)
    }

    /// Nodes by their ids, and where the next page begins; null behind the last.
    pub fn page(&self, after: Option<i64>, size: u32) -> Outcome<[Zval; 2]> {
        let (found, next) = answered(self.engine.page(after.map(|after| after as u64), size))?;
        let mut nodes = value(ZendEmptyArray);
        for node in &found {
            node_manager::add(&mut nodes, node.id().as_bytes(), self.object(node)?);
        }
        Ok([nodes, next.map_or_else(Zval::null, |next| value(next as i64))])
    }

    pub fn node_count(&self) -> Outcome<i64> {
        Ok(answered(self.engine.stats())?.nodes_online as i64)
    }

    pub fn node_stats(&self, with_nodes: bool) -> Outcome<Zval> {
        let stats = answered(self.engine.stats())?;
        let (counts, online) = (stats.counts, stats.nodes_online as i64);
        let number = |number: u64| value(number as i64);
        let left = crate::statistics::left(&stats);
        let mut entries = vec![("total", value(online)), ("online", value(online)), ("offline", value(0i64))];
        if !with_nodes {
            entries.extend([("total_heartbeats", number(counts.heartbeats)), ("total_messages", number(counts.data_in))]);
        }
        entries.extend([
            ("total_registered", number(counts.nodes_registered)),
            ("total_unregistered", number(left)),
            ("total_timeout", number(counts.nodes_timed_out)),
        ]);
        if with_nodes {
            let nodes = answered(self.engine.nodes())?;
            let nodes: Vec<Zval> = nodes.iter().map(|node| node::describe(&self.engine.info(node))).collect();
            entries.push(("nodes", value(nodes)));
        }
        Ok(php::map_of(entries))
    }

    pub fn set_heartbeat_timeout(&self, seconds: f64) -> Outcome {
        let timeout = numbers::seconds("setHeartbeatTimeout(): timeout", seconds, SHORTEST..=LONGEST)?.min(YEAR);
        match self.engine.set_heartbeat_timeout(timeout) {
            // A stopped server has nobody to time out.
            Err(error) if error.kind != ErrorKind::Closed => Err(exception::raise(&error)),
            _ => Ok(()),
        }
    }

    // ---- channels ----

    pub fn channel(&self, id: i64) -> Outcome<Zval> {
        let node = u32::try_from(id).map_or(Ok(None), |id| answered(self.engine.node_of_channel(id)))?;
        node.map_or_else(|| Ok(Zval::null()), |node| self.server.views.channel(self, &node))
    }

    /// A node's channel comes with the node: there is one already.
    pub fn create_channel(&self, node_id: &[u8], max_queue_size: i64) -> Outcome<Zval> {
        let channel = match self.find(node_id)? {
            Some(node) => self.server.views.channel(self, &node)?,
            None => Zval::null(),
        };
        let Some(object) = channel.object() else {
            let node_id = String::from_utf8_lossy(node_id);
            return Err(exception::raise(&Error::new(ErrorKind::NotFound, format!("Node {node_id} is not connected: it has no channel"))));
        };
        channel::set_max_queue_size(ptr::from_ref(object).cast_mut(), max_queue_size);
        Ok(channel)
    }

    fn channels_of(&self, nodes: impl IntoIterator<Item = Registration>) -> Outcome<Zval> {
        let mut all = value(ZendEmptyArray);
        for node in nodes {
            let channel = self.server.views.channel(self, &node)?;
            if channel.is_object() {
                node_manager::add_index(&mut all, i64::from(node.channel_id()), channel);
            }
        }
        Ok(all)
    }

    pub fn node_channels(&self, node_id: &[u8]) -> Outcome<Zval> {
        self.channels_of(self.find(node_id)?)
    }

    pub fn channels(&self) -> Outcome<Zval> {
        self.channels_of(answered(self.engine.nodes())?)
    }

    pub fn channel_count(&self) -> Outcome<i64> {
        Ok(answered(self.engine.stats())?.channels_active as i64)
    }

    /// Closes what PHP has of a channel, and forgets it: whoever asks for the channel of a node that is still there gets
    /// another object.
    pub fn close_channel(&self, id: i64) -> Outcome {
        let entry = u32::try_from(id).ok().and_then(|id| self.server.views.channels.borrow_mut().remove(&id));
        let Some(entry) = entry else { return Ok(()) };
        let channel = php::object(entry.object);
        self.server.resubscribe();
        channel::shut(entry.object)?;
        drop(channel);
        Ok(())
    }

    pub fn close_node_channels(&self, node_id: &[u8]) -> Outcome {
        self.find(node_id)?.map_or(Ok(()), |node| self.close_channel(node.channel_id().into()))
    }

    /// Forgets closed channels that PHP still holds.
    pub fn cleanup(&self) -> i64 {
        let mut channels = self.server.views.channels.borrow_mut();
        let before = channels.len();
        channels.retain(|_, entry| !channel::closed(entry.object));
        let cleaned = before - channels.len();
        drop(channels);
        self.server.resubscribe();
        cleaned as i64
    }

    pub fn channel_stats(&self) -> Outcome<Zval> {
        let stats = answered(self.engine.stats())?;
        let counts = stats.counts;
        let left = crate::statistics::left(&stats);
        let (now, views) = (crate::clock::microtime(), &self.server.views);
        let mut channels = Vec::new();
        for node in answered(self.engine.nodes())? {
            channels.push(match views.channel_of(&node) {
                Some(object) => channel::stats(object)?,
                // Nobody has asked for it: no object is made to look at it.
                None => {
                    let info = self.engine.info(&node);
                    map([
                        ("id", value(i64::from(info.channel_id))),
                        ("node_id", text(&*info.id)),
                        ("closed", value(false)),
                        ("send_queue_size", value(0i64)),
                        ("recv_queue_size", value(0i64)),
                        ("waiting_futures", value(0i64)),
                        ("send_count", value(0i64)),
                        ("recv_count", value(0i64)),
                        ("created_at", value(info.created_at)),
                        ("lifetime", value(now - info.created_at)),
                    ])
                }
            });
        }
        Ok(map([
            ("active_channels", value(stats.channels_active as i64)),
            ("active_nodes", value(stats.nodes_online as i64)),
            ("total_created", value(counts.nodes_registered as i64)),
            ("total_closed", value(left as i64)),
            ("channels", value(channels)),
        ]))
    }

    pub fn channel_summary(&self) -> Outcome<Zval> {
        let stats = answered(self.engine.stats())?;
        Ok(map([
            ("active_channels", value(stats.channels_active as i64)),
            ("active_nodes", value(stats.nodes_online as i64)),
            // The engine writes at once: what a slow node keeps waiting is in its outbox, counted in bytes.
            ("total_send_queue", value(0i64)),
            ("total_recv_queue", value(self.server.views.queued())),
            ("total_send_count", value(stats.counts.data_out as i64)),
            ("total_recv_count", value(stats.counts.data_in as i64)),
        ]))
    }
}
