//! One client of a bus, as a PHP process has it: its engine, its callbacks, its nodes and subscriptions, and how far it has come in its life.
//!
//! Owns the state, and which callback is told of what. The PHP class is in [`class`], all clients of the process in [`fleet`].

use crate::classes::position;
use crate::config;
use crate::exception;
use crate::moments;
use crate::php::{self, Callable, Native, Outcome, json_decode, text, value};
use crate::subscriptions::Subscriptions;
use ext_php_rs::ffi::zend_object_handlers;
use ext_php_rs::types::{ZendHashTable, Zval};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{ClientEvent, Position, TopicMessage};
use heartbus_core::hub::client::ClientRefusal;
use heartbus_core::net::client::{Client as Engine, ClientStats};
use heartbus_core::wire::topic::Filter;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ptr;
use std::rc::Rc;
use std::sync::OnceLock;

pub(crate) mod class;
pub(crate) mod fleet;

/// What a script can subscribe to.
#[derive(Copy, Clone)]
enum EventKind {
    Connect,
    Register,
    Heartbeat,
    Data,
    Pong,
    ServerError,
    Error,
    Close,
    NodeLost,
    Subscribed,
    Message,
    Published,
    SubscribeRefused,
    PublishRefused,
}

/// The kinds by name, in the order of the enum.
const KINDS: [&str; 14] = [
    "connect",
    "register",
    "heartbeat",
    "data",
    "pong",
    "server_error",
    "error",
    "close",
    "node.lost",
    "subscribed",
    "message",
    "published",
    "subscribe.refused",
    "publish.refused",
];

pub(crate) struct Client {
    host: String,
    port: i64,
    config: Zval,
    callbacks: RefCell<[Option<Rc<Callable>>; KINDS.len()]>,
    /// Waits for a loop.
    is_waiting: Cell<bool>,
    /// The engine's client will not come back.
    is_finished: Cell<bool>,
    /// `close` was told, or `disconnect()` called, and no `connect` since.
    is_closed: Cell<bool>,
    /// `connect()` was called meanwhile: to do when it turns out that the engine's client does not come back.
    wants_again: Cell<bool>,
    has_settled_log: Cell<bool>,
    engine: RefCell<Option<Rc<Engine>>>,
    /// Of the engine's clients before this one: `connect()` after `disconnect()` makes another.
    before: RefCell<ClientStats>,
    /// How far the wall clock was ahead of the monotonic one when they were taken.
    ahead_before: Cell<f64>,
    /// Which nodes it carries besides its first, with their metadata, until they are removed or told as lost: before there is an
    /// engine's client, and for the next one.
    nodes: RefCell<BTreeMap<String, String>>,
    topics: RefCell<Subscriptions>,
}
impl Native for Client {
    fn handlers() -> &'static OnceLock<zend_object_handlers> {
        static HANDLERS: OnceLock<zend_object_handlers> = OnceLock::new();
        &HANDLERS
    }

    fn each_value(&self, visit: &mut dyn FnMut(&Zval)) {
        visit(&self.config);
        self.callbacks.borrow().iter().flatten().for_each(|callback| visit(callback.zval()));
        self.topics.borrow().each_value(visit);
    }
}
fn client_of(object: &Zval) -> Option<Rc<Client>> {
    let object = ptr::from_ref(object.object()?).cast_mut();
    // SAFETY: only objects of our class get here.
    unsafe { php::held::<Client>(object) }
}

impl Client {
    fn settings(&self) -> &ZendHashTable {
        self.config.array().expect("PHP checked that it is an array")
    }

    /// Before there is something to say: the client's settings of the log hold from its first word on. A wrong one is told by
    /// `connect()`.
    fn settle_log(&self) {
        if !self.has_settled_log.replace(true) {
            let _ = config::log(self.settings()).apply();
        }
    }

    /// Connected, connecting, or between two attempts.
    fn is_live(&self) -> bool {
        !self.is_finished.get() && self.engine.borrow().as_ref().is_some_and(|engine| engine.is_own_process())
    }

    fn stats(&self) -> ClientStats {
        let before = self.before.borrow();
        let stats = self.engine.borrow().as_ref().map(|engine| engine.stats()).unwrap_or_default();
        ClientStats {
            node_id: stats.node_id.or_else(|| before.node_id.clone()),
            channel_id: stats.channel_id.or(before.channel_id),
            messages_sent: stats.messages_sent + before.messages_sent,
            messages_received: stats.messages_received + before.messages_received,
            reads_paused: stats.reads_paused + before.reads_paused,
            frames_refused: stats.frames_refused + before.frames_refused,
            connected_at: stats.connected_at.or_else(|| Some(before.connected_at? - self.ahead_before.get() + moments::ahead())),
            ..stats
        }
    }

    fn command(&self, verb: &str, command: impl FnOnce(&Engine) -> Result<(), Error>) -> Outcome<bool> {
        let engine = self.engine.borrow().clone();
        let Some(engine) = engine else {
            self.settle_log();
            tracing::error!("Cannot {verb}: Not connected to server");
            return Ok(false);
        };
        match command(&engine) {
            Ok(()) => Ok(true),
            Err(error) if error.kind == ErrorKind::WrongProcess => Err(exception::raise(&error)),
            // The engine has said why in the log.
            Err(_) => Ok(false),
        }
    }

    /// False when there is such a node already, or no room for it.
    fn add_node(&self, node_id: &str, metadata: String) -> Outcome<bool> {
        Engine::check_node(node_id, &metadata).map_err(|error| exception::raise(&error))?;
        let engine = self.engine.borrow().clone();
        if engine.as_ref().is_some_and(|engine| !engine.is_own_process()) {
            return Err(exception::raise(&Error::wrong_process()));
        }
        // If the engine has lost it already, the script will hear of that, and may add it then.
        if self.nodes.borrow().contains_key(node_id) {
            return Ok(false);
        }
        let added = engine.map_or(Err(ErrorKind::Closed), |engine| engine.add_node(node_id, &metadata).map_err(|error| error.kind));
        match added {
            Ok(()) => {}
            // It waits for the next `connect()`.
            Err(ErrorKind::Closed) if self.nodes.borrow().len() + 1 < config::client_nodes(self.settings())? => {}
            Err(ErrorKind::Closed | ErrorKind::Limit) => {
                self.settle_log();
                tracing::error!("Cannot add node: The client has as many nodes as it may");
                return Ok(false);
            }
            // The client's first is one of that id.
            Err(_) => return Ok(false),
        }
        self.nodes.borrow_mut().insert(node_id.to_owned(), metadata);
        Ok(true)
    }

    /// False when there is no such node, or it is the client's first.
    fn remove_node(&self, node_id: &str) -> Outcome<bool> {
        let engine = self.engine.borrow().clone();
        let removed = match engine.map(|engine| engine.remove_node(node_id)) {
            Some(Err(error)) if error.kind == ErrorKind::WrongProcess => return Err(exception::raise(&error)),
            removed => matches!(removed, Some(Ok(()))),
        };
        Ok(self.nodes.borrow_mut().remove(node_id).is_some() || removed)
    }

    /// False when it has subscribed to as much as it may.
    fn subscribe(&self, filter: &str, callback: Rc<Callable>, since: Option<Position>) -> Outcome<bool> {
        let filter = Filter::parse(filter).map_err(|bad| exception::invalid_argument(&bad.to_string()))?;
        if let (Filter::Wild(_), Some(_)) = (filter, since) {
            return Err(exception::invalid_argument(&ClientRefusal::FilterHasNoPosition.to_string()));
        }
        let engine = self.engine.borrow().clone();
        let subscribed = match engine.map(|engine| engine.subscribe(filter.text(), since)) {
            Some(Err(error)) if error.kind == ErrorKind::WrongProcess => return Err(exception::raise(&error)),
            Some(Err(error)) if error.kind == ErrorKind::Limit => false,
            Some(Ok(())) => true,
            // It waits for the next `connect()`.
            _ => {
                let topics = self.topics.borrow();
                topics.contains(filter.text()) || topics.len() < config::client_subscriptions(self.settings())?
            }
        };
        if !subscribed {
            self.settle_log();
            tracing::error!("Cannot subscribe: {}", ClientRefusal::TooManySubscriptions);
            return Ok(false);
        }
        let _replaced = self.topics.borrow_mut().insert(filter, Some(callback), since);
        Ok(true)
    }

    /// False when it has not subscribed to that.
    fn unsubscribe(&self, filter: &str) -> Outcome<bool> {
        let engine = self.engine.borrow().clone();
        if let Some(Err(error)) = engine.map(|engine| engine.unsubscribe(filter))
            && error.kind == ErrorKind::WrongProcess
        {
            return Err(exception::raise(&error));
        }
        let removed = self.topics.borrow_mut().remove(filter);
        Ok(removed.is_some())
    }

    /// Whom a message is for, behind whom it was told already, and whether there are more.
    fn callback_for(&self, message: &TopicMessage, behind: Option<&str>) -> Option<(String, Rc<Callable>, bool)> {
        // Its added nodes have subscribed to nothing: the server has put them into topics.
        if message.node_id.as_ref().is_some_and(|node_id| self.nodes.borrow().contains_key(&**node_id)) {
            return None;
        }
        let topics = self.topics.borrow();
        let (filter, callback) = topics.next(&message.topic, behind)?;
        let has_more = topics.next(&message.topic, Some(&filter)).is_some();
        Some((filter, callback, has_more))
    }

    fn call<const N: usize>(&self, kind: EventKind, arguments: impl FnOnce() -> [Zval; N]) -> Outcome<bool> {
        let callback = self.callbacks.borrow()[kind as usize].clone();
        match callback {
            Some(callback) => callback.call(arguments()).map(|_| true),
            None => Ok(false),
        }
    }

    fn tell(&self, event: ClientEvent) -> Outcome<bool> {
        match &event {
            ClientEvent::Connect => {
                self.is_closed.set(false);
                self.wants_again.set(false);
            }
            ClientEvent::Close { .. } => self.is_closed.set(true),
            ClientEvent::NodeLost { node_id, .. } => drop(self.nodes.borrow_mut().remove(&**node_id)),
            // Also where the script has subscribed again before it hears of this.
            ClientEvent::SubscribeRefused { filter, .. } => drop(self.unsubscribe(filter)?),
            _ => {}
        }
        match event {
            ClientEvent::Connect => self.call(EventKind::Connect, || []),
            ClientEvent::Register { node_id, channel_id } => {
                self.call(EventKind::Register, || [text(&*node_id), value(i64::from(channel_id))])
            }
            ClientEvent::Heartbeat { .. } => self.call(EventKind::Heartbeat, || []),
            ClientEvent::Data { payload, channel_id, node_id: _ } => self.call(EventKind::Data, || [text(payload), value(channel_id)]),
            ClientEvent::Pong => self.call(EventKind::Pong, || []),
            ClientEvent::ServerError { raw, .. } => self.call(EventKind::ServerError, || {
                let decoded = json_decode(&raw);
                [if decoded.is_array() { decoded } else { Zval::null() }]
            }),
            ClientEvent::Error { code, message, cause } => {
                self.call(EventKind::Error, || [value(i64::from(code)), text(message), text(cause.as_str())])
            }
            ClientEvent::Close { reason, detail } => self.call(EventKind::Close, || [text(reason.as_str()), text(detail)]),
            ClientEvent::NodeLost { node_id, channel_id, code, message } => {
                self.call(EventKind::NodeLost, || [text(&*node_id), value(i64::from(channel_id)), value(code), text(message)])
            }
            ClientEvent::Subscribed { filter, position, recovered } => {
                let position = position_or_null(position)?;
                self.call(EventKind::Subscribed, || [text(&*filter), position, value(recovered)])
            }
            ClientEvent::Message(message) => {
                let position = position_or_null(message.position)?;
                let node_id = message.node_id.as_ref().map_or_else(Zval::null, |node_id| text(&**node_id));
                self.call(EventKind::Message, || [text(&*message.topic), text(&message.payload), position, node_id])
            }
            ClientEvent::Published { number, position, reach } => {
                let position = position_or_null(position)?;
                self.call(EventKind::Published, || [value(i64::from(number)), position, value(reach as i64)])
            }
            ClientEvent::SubscribeRefused { filter, code, message } => {
                self.call(EventKind::SubscribeRefused, || [text(&*filter), value(code), text(message)])
            }
            ClientEvent::PublishRefused { topic, number, code, message } => {
                self.call(EventKind::PublishRefused, || [text(topic), value(code), text(message), value(i64::from(number.unwrap_or(0)))])
            }
            ClientEvent::Finished => Ok(false),
        }
    }
}

fn position_or_null(given: Option<Position>) -> Outcome<Zval> {
    given.map_or_else(|| Ok(Zval::null()), position::position)
}
