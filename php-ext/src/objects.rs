//! The PHP objects that show the nodes and channels of one server, each once: the same node is the same object, and an object that
//! nobody holds costs nothing. Owns what came for a channel and is not received yet, as far as that is in its object.

use crate::backend::{Backend, Registration, RegistrationKey};
use crate::bindings::{self, NumberMap, Owner, Subject};
use crate::classes::channel;
use crate::node;
use crate::php::{self, Outcome, text};
use ext_php_rs::ffi::zend_object;
use ext_php_rs::types::Zval;
use heartbus_core::hub::NodeInfo;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::ptr;
use std::rc::Weak;
use std::sync::Arc;

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

#[derive(Default)]
pub(crate) struct Objects {
    /// The server.
    owner: OnceCell<Weak<dyn Owner>>,
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

impl Objects {
    /// To be said once, before anything is shown.
    pub(crate) fn be_owned_by(&self, owner: Weak<dyn Owner>) {
        let _ = self.owner.set(owner);
    }

    fn bind(&self, object: &Zval, subject: Subject) -> Outcome<*mut zend_object> {
        let owner = self.owner.get().expect("the server's constructor sets it");
        bindings::bind(object, owner, subject)
    }

    pub(crate) fn each_value(&self, visit: &mut dyn FnMut(&Zval)) {
        visit(&self.manager.borrow());
        visit(&self.scheduler.borrow());
        self.monitors.borrow().iter().for_each(&mut *visit);
        self.channels.borrow().values().filter_map(|entry| entry.kept.as_ref()).for_each(&mut *visit);
        self.changed.borrow().iter().for_each(|(_, node)| visit(node));
        self.to_wake.borrow().iter().for_each(visit);
    }

    /// The server's manager; made when somebody asks for it.
    pub(crate) fn manager(&self, make: impl FnOnce() -> Outcome<Zval>) -> Outcome<Zval> {
        get_or_make(&self.manager, make)
    }

    /// As [`Objects::manager`].
    pub(crate) fn scheduler(&self, make: impl FnOnce() -> Outcome<Zval>) -> Outcome<Zval> {
        get_or_make(&self.scheduler, make)
    }

    /// The manager, if there is one already.
    pub(crate) fn made_manager(&self) -> Option<*mut zend_object> {
        self.manager.borrow().object().map(|manager| ptr::from_ref(manager).cast_mut())
    }

    /// The object of a registration, as the engine knows it at this moment, or as an event of that batch shows it.
    pub(crate) fn node(&self, engine: &Backend, about: &Registration, batch: Option<u64>) -> Outcome<Zval> {
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
        let object = self.bind(&node, Subject::Node(about.clone()))?;
        self.nodes.borrow_mut().insert(key, NodeEntry { object, metadata: info.metadata.clone(), ahead_until: 0 });
        Ok(node)
    }

    /// A worker has changed what the engine keeps of a node: events that are on their way show it as it was before.
    pub(crate) fn hold(&self, object: *mut zend_object, node: &Registration, last_batch: u64) {
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
    pub(crate) fn release(&self, batch: u64) {
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
    pub(crate) fn nodes(&self, engine: &Backend, about: Vec<&Registration>, batch: u64) -> Outcome<Vec<Zval>> {
        let mut known = NumberMap::<RegistrationKey, usize>::default();
        let mut objects: Vec<Zval> = Vec::with_capacity(about.len());
        let mut before = None;
        for (place, node) in about.into_iter().enumerate() {
            let key = node.key();
            // What one node sent comes in a row, mostly.
            let same = if before == Some(key) { Some(place - 1) } else { known.get(&key).copied() };
            let object = match same {
                Some(place) => objects[place].shallow_clone(),
                None => self.node(engine, node, Some(batch))?,
            };
            if same.is_none() {
                known.insert(key, place);
            }
            objects.push(object);
            before = Some(key);
        }
        Ok(objects)
    }

    /// A channel that nobody has asked for before.
    pub(crate) fn new_channel(&self, node: &Registration, info: &NodeInfo, max_queue_size: i64) -> Outcome<Zval> {
        let channel = channel::create(i64::from(info.channel_id), text(&*info.id), max_queue_size)?;
        let object = self.bind(&channel, Subject::Channel(node.clone()))?;
        channel::set_created_at(object, info.created_at);
        let entry = ChannelEntry { object, node: node.clone(), seen: Cell::new(0), kept: None };
        self.channels.borrow_mut().insert(info.channel_id, entry);
        Ok(channel)
    }

    /// What PHP holds of a node's channel.
    pub(crate) fn channel_of(&self, node: &Registration) -> Option<*mut zend_object> {
        self.channels.borrow().get(&node.channel_id()).filter(|entry| entry.node.key() == node.key()).map(|entry| entry.object)
    }

    pub(crate) fn open_channels(&self) -> Vec<u32> {
        self.channels.borrow().keys().copied().collect()
    }

    pub(crate) fn are_channels_open(&self) -> bool {
        !self.channels.borrow().is_empty()
    }

    pub(crate) fn are_monitors_running(&self) -> bool {
        !self.monitors.borrow().is_empty()
    }

    pub(crate) fn monitors(&self) -> Vec<Zval> {
        self.monitors.borrow().iter().map(Zval::shallow_clone).collect()
    }

    pub(crate) fn add_monitor(&self, monitor: *mut zend_object) {
        let mut monitors = self.monitors.borrow_mut();
        if !monitors.iter().any(|known| is_object(known, monitor)) {
            monitors.push(php::object(monitor));
        }
    }

    /// Gives it back: dropping it may run PHP code.
    pub(crate) fn remove_monitor(&self, monitor: *mut zend_object) -> Option<Zval> {
        let mut monitors = self.monitors.borrow_mut();
        let place = monitors.iter().position(|known| is_object(known, monitor))?;
        Some(monitors.remove(place))
    }

    pub(crate) fn forget_node(&self, node: &Registration) {
        self.nodes.borrow_mut().remove(&node.key());
    }

    /// True when it was the last channel.
    pub(crate) fn forget_channel(&self, object: *mut zend_object, node: &Registration) -> bool {
        let mut channels = self.channels.borrow_mut();
        // A later channel may have the id by now.
        if channels.get(&node.channel_id()).is_some_and(|entry| entry.object == object) {
            channels.remove(&node.channel_id());
        }
        channels.is_empty()
    }

    /// Holds a channel that is open, also while PHP does not.
    pub(crate) fn keep(&self, node: &Registration, channel: *mut zend_object) {
        if let Some(entry) = self.channels.borrow_mut().get_mut(&node.channel_id()).filter(|entry| entry.object == channel) {
            entry.kept.get_or_insert_with(|| php::object(channel));
        }
    }

    /// Gives it back: dropping it may run PHP code.
    pub(crate) fn let_go(&self, node: &Registration, channel: *mut zend_object) -> Option<Zval> {
        let mut channels = self.channels.borrow_mut();
        channels.get_mut(&node.channel_id()).filter(|entry| entry.object == channel).and_then(|entry| entry.kept.take())
    }

    /// Forgets a channel and gives its object back.
    pub(crate) fn take_channel(&self, id: u32) -> Option<Zval> {
        // What is kept of it is dropped with no borrow held, and behind the object.
        let entry = self.channels.borrow_mut().remove(&id)?;
        Some(php::object(entry.object))
    }

    /// Forgets closed channels that PHP still holds. Returns how many.
    pub(crate) fn forget_closed(&self) -> usize {
        let mut channels = self.channels.borrow_mut();
        let before = channels.len();
        channels.retain(|_, entry| !channel::closed(entry.object));
        before - channels.len()
    }

    // ---- what happens on the wire ----

    /// Puts a message into its channel's queue, once. `sequence` is its event's number. True when somebody waits for it: see
    /// [`Objects::wake`].
    pub(crate) fn receive(&self, node: &Registration, channel_id: u32, payload: &[u8], sequence: u64) -> bool {
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
    pub(crate) fn node_left(&self, node: &Registration) -> bool {
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
    pub(crate) fn close_departed(&self, engine: &Backend) -> bool {
        let channels: Vec<_> = self.channels.borrow().iter().map(|(id, entry)| (*id, entry.object, entry.node.clone())).collect();
        // Whoever cannot be asked about is gone.
        let gone = channels.into_iter().filter(|(.., node)| !engine.is_online(node).unwrap_or_default());
        gone.fold(false, |any, (id, object, _)| self.close(id, object) || any)
    }

    /// The server is gone, and all its nodes.
    pub(crate) fn close_all(&self) -> bool {
        let all: Vec<_> = self.channels.borrow().iter().map(|(id, entry)| (*id, entry.object)).collect();
        all.into_iter().fold(false, |any, (id, object)| self.close(id, object) || any)
    }

    /// Departures may be merged with later arrivals of the same id while PHP is slow. To be called when everything
    /// was told, with the number of events that were merged so far.
    pub(crate) fn sweep(&self, coalesced: u64, engine: &Backend) -> bool {
        self.swept.replace(coalesced) != coalesced && self.close_departed(engine)
    }

    fn notice(&self, object: *mut zend_object) -> bool {
        let is_waited_for = channel::has_waiters(object);
        if is_waited_for {
            self.to_wake.borrow_mut().push_back(php::object(object));
        }
        is_waited_for
    }

    pub(crate) fn has_to_wake(&self) -> bool {
        !self.to_wake.borrow().is_empty()
    }

    /// Gives those who wait what their channels have. Runs PHP code.
    pub(crate) fn wake(&self) -> Outcome<usize> {
        let mut woken = 0;
        loop {
            let channel = self.to_wake.borrow_mut().pop_front();
            let Some(object) = channel.as_ref().and_then(Zval::object) else { return Ok(woken) };
            channel::serve_waiters(ptr::from_ref(object).cast_mut())?;
            woken += 1;
        }
    }

    pub(crate) fn clear(&self) {
        let kept: Vec<_> = self.channels.borrow_mut().values_mut().filter_map(|entry| entry.kept.take()).collect();
        drop((kept, self.changed.take(), self.to_wake.take(), self.monitors.take()));
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Messages that wait in all channels together.
    pub(crate) fn queued(&self) -> i64 {
        self.channels.borrow().values().map(|entry| channel::totals(entry.object)[1]).sum()
    }
}

fn get_or_make(kept: &RefCell<Zval>, make: impl FnOnce() -> Outcome<Zval>) -> Outcome<Zval> {
    if !kept.borrow().is_object() {
        let made = make()?;
        kept.replace(made);
    }
    Ok(kept.borrow().shallow_clone())
}

fn is_object(value: &Zval, object: *mut zend_object) -> bool {
    value.object().is_some_and(|held| ptr::eq(held, object))
}
