//! All clients of this process: one thread and one inbox, and who is told of which event.

use super::{Client, client_of, position_or_null};
use crate::config;
use crate::exception;
use crate::moments;
use crate::php::{Outcome, text};
use crate::runtime::{Runtime, Source, is_same};
use ext_php_rs::types::Zval;
use heartbus_core::descriptor::raise_limit;
use heartbus_core::error::Error;
use heartbus_core::event::{ClientEvent, ClientEventMask, FleetEvent, TopicMessage};
use heartbus_core::inbox::Inbox;
use heartbus_core::net::client::Clients;
use heartbus_core::settings::InboxLimits;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// Starts a client's connection on the thread of all clients.
pub(super) fn start(runtime: &Runtime, object: &Zval) -> Outcome {
    let Some(client) = client_of(object) else { return Ok(()) };
    client.is_waiting.set(false);
    let stats = client.stats();
    let node_id = stats.node_id.as_ref().map(ToString::to_string);
    let settings = config::client(client.settings())?;
    let config = config::client_engine(&client.host, client.port, client.settings(), node_id)?;
    raise_limit();
    client.has_settled_log.set(true);
    settings.log.apply().and_then(|()| runtime.watch_log()).map_err(|error| exception::raise(&error))?;
    config::tell_unknown(&settings.unknown);
    let fleet = fleet(runtime)?;
    let engine = fleet.clients.connect(config).map_err(|error| exception::raise(&error))?;
    for (node_id, metadata) in client.nodes.borrow().iter() {
        if let Err(error) = engine.add_node(node_id, metadata) {
            tracing::warn!(node_id, "Cannot add node: {error}");
        }
    }
    let before = client.engine.borrow().clone();
    for (filter, since) in client.topics.borrow().all() {
        let came_to = before.as_ref().and_then(|before| before.position(&filter));
        if let Err(error) = engine.subscribe(&filter, came_to.or(since)) {
            tracing::warn!(topic = filter, "Cannot subscribe: {error}");
        }
    }
    fleet.members.borrow_mut().insert(engine.id(), object.shallow_clone());
    *client.before.borrow_mut() = stats;
    client.ahead_before.set(moments::ahead());
    *client.engine.borrow_mut() = Some(Rc::new(engine));
    client.is_finished.set(false);
    client.is_closed.set(false);
    Ok(())
}
/// A message of which some subscriptions were told, the last of them this one.
struct Rest {
    client_id: u64,
    message: Box<TopicMessage>,
    behind: String,
}

/// All clients of this process: one thread and one inbox.
struct Fleet {
    clients: Clients,
    inbox: Arc<Inbox<FleetEvent>>,
    pending: RefCell<VecDeque<FleetEvent>>,
    /// Comes before what is pending.
    rest: RefCell<Option<Rest>>,
    /// The PHP objects of the clients that are not finished, by the id of the engine's client. They live until then,
    /// as in the original: a script need not keep a client that has callbacks.
    members: RefCell<HashMap<u64, Zval>>,
}

impl Fleet {
    fn start() -> Result<Self, Error> {
        let inbox = Inbox::new(InboxLimits::default())?;
        inbox.subscribe(ClientEventMask::ALL);
        let clients = Clients::start(inbox.clone())?;
        Ok(Self { clients, inbox, pending: RefCell::default(), rest: RefCell::default(), members: RefCell::default() })
    }

    /// A client and its object, to be held while its callback runs, whatever that does.
    fn client(&self, client_id: u64) -> Option<(Zval, Rc<Client>)> {
        let object = self.members.borrow().get(&client_id).map(Zval::shallow_clone)?;
        let client = client_of(&object)?;
        Some((object, client))
    }

    /// Tells one of the subscriptions that a message matches. Others wait for their turn: a callback may throw or suspend.
    fn tell_message(&self, client_id: u64, message: Box<TopicMessage>, behind: Option<&str>) -> Outcome<bool> {
        let Some((_object, client)) = self.client(client_id) else { return Ok(false) };
        let Some((filter, callback, has_more)) = client.callback_for(&message, behind) else {
            return if behind.is_none() { client.tell(ClientEvent::Message(message)) } else { Ok(false) };
        };
        let position = position_or_null(message.position)?;
        let arguments = [text(&*message.topic), text(&message.payload), position];
        if has_more {
            *self.rest.borrow_mut() = Some(Rest { client_id, message, behind: filter });
        }
        callback.call(arguments).map(|_| true)
    }

    fn connected(&self) -> usize {
        self.members.borrow().values().filter_map(client_of).filter(|client| client.stats().connected).count()
    }

    /// A client of the engine's will not come back.
    fn finish(&self, runtime: &Runtime, client_id: u64) -> Outcome {
        // Dropped at the end, with no borrow held: it may be the last of its object.
        let object = self.members.borrow_mut().remove(&client_id);
        let Some((object, client)) = object.and_then(|object| client_of(&object).map(|client| (object, client))) else { return Ok(()) };
        if client.engine.borrow().as_ref().is_none_or(|engine| engine.id() != client_id) {
            return Ok(());
        }
        client.is_finished.set(true);
        if client.wants_again.replace(false) { start(runtime, &object) } else { Ok(()) }
    }
}

thread_local! {
    /// The runtime has it, and ends it.
    static FLEET: RefCell<Weak<Fleet>> = const { RefCell::new(Weak::new()) };
}

/// The fleet of this process, if there is one: a forked child has another than its parent.
fn started_fleet(runtime: &Runtime) -> Option<Rc<Fleet>> {
    let clients = runtime.clients()?;
    FLEET.with_borrow(Weak::upgrade).filter(|fleet| is_same(&**fleet, &*clients))
}

/// Started by the first client that needs it.
fn fleet(runtime: &Runtime) -> Outcome<Rc<Fleet>> {
    if let Some(fleet) = started_fleet(runtime) {
        return Ok(fleet);
    }
    let start = || {
        let fleet = Rc::new(Fleet::start()?);
        runtime.watch(fleet.inbox.as_fd())?;
        Ok(fleet)
    };
    let fleet = start().map_err(|error| exception::raise(&error))?;
    FLEET.set(Rc::downgrade(&fleet));
    runtime.set_clients(fleet.clone());
    Ok(fleet)
}

/// Clients of this process that are connected.
pub(crate) fn connected(runtime: &Runtime) -> usize {
    started_fleet(runtime).map_or(0, |fleet| fleet.connected())
}

impl Source for Fleet {
    fn pending(&self) -> usize {
        self.pending.borrow().len() + usize::from(self.rest.borrow().is_some())
    }

    fn refill(&self, max: usize) -> Outcome {
        self.inbox.drain(&mut self.pending.borrow_mut(), max);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.members.borrow().is_empty()
    }

    /// Every client says goodbye; nothing is told any more.
    fn shut_down(&self) {
        self.clients.stop();
        drop(self.members.take());
    }

    fn tell_next(&self, runtime: &Runtime) -> Outcome<bool> {
        let rest = self.rest.borrow_mut().take();
        if let Some(Rest { client_id, message, behind }) = rest {
            return self.tell_message(client_id, message, Some(&behind));
        }
        let event = self.pending.borrow_mut().pop_front();
        let Some(FleetEvent { client_id, event }) = event else { return Ok(false) };
        if event == ClientEvent::Finished {
            return self.finish(runtime, client_id).map(|()| false);
        }
        match event {
            ClientEvent::Message(message) => self.tell_message(client_id, message, None),
            event => self.client(client_id).map_or(Ok(false), |(_object, client)| client.tell(event)),
        }
    }
}
