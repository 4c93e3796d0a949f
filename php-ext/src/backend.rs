//! What a `HeartbeatServer` stands on: the engine in this process, or the one next door that this process is a worker of.
//!
//! Both answer the same questions. Next door an answer is one round trip over the bus socket, and a node is known by a
//! copy of its record.

use heartbus_core::bus::{Attachment, Bus, Phase};
use heartbus_core::engine::{Engine, Stats};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::hub::{Node, NodeInfo, Timings};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a worker waits for an answer of the engine's.
pub const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Nodes that are asked for at a time where somebody wants all of them.
const PAGE: u32 = 1000;

/// A registration of a node, as this process knows it.
#[derive(Clone, Debug)]
pub enum Registration {
    Here(Arc<Node>),
    NextDoor(Arc<NodeInfo>),
}

/// No two registrations of a server have the same.
pub type RegistrationKey = (u64, u32);

impl Registration {
    pub fn id(&self) -> &Arc<str> {
        match self {
            Registration::Here(node) => node.id(),
            Registration::NextDoor(info) => &info.id,
        }
    }

    pub fn connection_id(&self) -> u64 {
        match self {
            Registration::Here(node) => node.connection_id(),
            Registration::NextDoor(info) => info.connection_id,
        }
    }

    pub fn channel_id(&self) -> u32 {
        match self {
            Registration::Here(node) => node.channel_id(),
            Registration::NextDoor(info) => info.channel_id,
        }
    }

    pub fn key(&self) -> RegistrationKey {
        (self.connection_id(), self.channel_id())
    }
}

/// Nodes, and where the next page begins; none behind the last.
type Page = (Vec<Registration>, Option<u64>);

pub enum Backend {
    Here(Box<Engine>),
    NextDoor(Box<NextDoor>),
}

/// The two connections of a worker.
pub struct NextDoor {
    pub attachment: RefCell<Attachment>,
    bus: RefCell<Bus>,
    /// What `start` subscribed to is known.
    pub is_ready: Cell<bool>,
    /// Answered last: what is left to say once the engine is gone.
    last: Cell<Stats>,
}

impl NextDoor {
    pub fn attach(path: &Path) -> Result<NextDoor, Error> {
        let attachment = RefCell::new(Attachment::attach(path, ANSWER_TIME)?);
        let bus = RefCell::new(Bus::connect(path, ANSWER_TIME)?);
        Ok(NextDoor { attachment, bus, is_ready: Cell::new(false), last: Cell::default() })
    }

    pub fn phase(&self) -> Phase {
        self.attachment.borrow().phase()
    }

    fn stats(&self) -> Result<Stats, Error> {
        match self.bus.borrow_mut().stats() {
            Ok(answer) => self.last.set(answer.stats),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(self.last.get())
    }

    fn page(&self, after: Option<u64>, size: u32) -> Result<Page, Error> {
        let (page, next) = self.bus.borrow_mut().page(after, size, None, None)?;
        Ok((page.into_iter().map(|info| Registration::NextDoor(Arc::new(info))).collect(), next))
    }

    fn all_nodes(&self) -> Result<Vec<Registration>, Error> {
        let (mut nodes, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = self.page(after, PAGE)?;
            nodes.extend(page);
            if next.is_none() {
                return Ok(nodes);
            }
            after = next;
        }
    }
}

/// There is no engine to ask, or it ends.
fn is_gone(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Closed | ErrorKind::Io)
}

/// No engine has no such thing.
fn or_default<T: Default>(answer: Result<T, Error>) -> Result<T, Error> {
    match answer {
        Err(error) if is_gone(&error) => Ok(T::default()),
        answer => answer,
    }
}

fn next_door(info: Option<NodeInfo>) -> Option<Registration> {
    info.map(|info| Registration::NextDoor(Arc::new(info)))
}

impl Backend {
    pub fn is_own_process(&self) -> bool {
        match self {
            Backend::Here(engine) => engine.is_own_process(),
            Backend::NextDoor(worker) => worker.attachment.borrow().is_own_process(),
        }
    }

    pub fn is_stopped(&self) -> bool {
        match self {
            Backend::Here(engine) => engine.is_stopped(),
            Backend::NextDoor(worker) => matches!(worker.phase(), Phase::Finished | Phase::Lost),
        }
    }

    pub fn send_to(&self, node_id: &str, data: &[u8], channel_id: u32) -> Result<(), Error> {
        match self {
            Backend::Here(engine) => engine.send_to(node_id, data, channel_id),
            Backend::NextDoor(worker) => worker.bus.borrow_mut().send_to(node_id, data, channel_id),
        }
    }

    pub fn broadcast(&self, data: &[u8]) -> Result<usize, Error> {
        match self {
            Backend::Here(engine) => engine.broadcast(data),
            Backend::NextDoor(worker) => worker.bus.borrow_mut().broadcast(data),
        }
    }

    pub fn disconnect(&self, node_id: &str) -> Result<(), Error> {
        match self {
            Backend::Here(engine) => engine.disconnect(node_id),
            Backend::NextDoor(worker) => worker.bus.borrow_mut().disconnect(node_id),
        }
    }

    pub fn keep_alive(&self, node_id: &str) -> Result<(), Error> {
        match self {
            Backend::Here(engine) => engine.keep_alive(node_id),
            Backend::NextDoor(worker) => worker.bus.borrow_mut().keep_alive(node_id),
        }
    }

    pub fn set_heartbeat_timeout(&self, timeout: Duration) -> Result<(), Error> {
        match self {
            Backend::Here(engine) => engine.set_heartbeat_timeout(timeout),
            Backend::NextDoor(worker) => worker.bus.borrow_mut().set_heartbeat_timeout(timeout),
        }
    }

    pub fn node(&self, node_id: &str) -> Result<Option<Registration>, Error> {
        match self {
            Backend::Here(engine) => Ok(engine.node(node_id).map(Registration::Here)),
            Backend::NextDoor(worker) => or_default(worker.bus.borrow_mut().node(node_id).map(next_door)),
        }
    }

    pub fn node_of_channel(&self, channel_id: u32) -> Result<Option<Registration>, Error> {
        match self {
            Backend::Here(engine) => Ok(engine.node_of_channel(channel_id).map(Registration::Here)),
            Backend::NextDoor(worker) => or_default(worker.bus.borrow_mut().node_of_channel(channel_id).map(next_door)),
        }
    }

    pub fn node_of_connection(&self, connection_id: u64) -> Result<Option<Registration>, Error> {
        match self {
            Backend::Here(engine) => Ok(engine.node_of_connection(connection_id).map(Registration::Here)),
            Backend::NextDoor(worker) => or_default(worker.bus.borrow_mut().node_of_connection(connection_id).map(next_door)),
        }
    }

    pub fn nodes(&self) -> Result<Vec<Registration>, Error> {
        match self {
            Backend::Here(engine) => Ok(engine.nodes(usize::MAX).into_iter().map(Registration::Here).collect()),
            Backend::NextDoor(worker) => or_default(worker.all_nodes()),
        }
    }

    pub fn page(&self, after: Option<u64>, size: u32) -> Result<Page, Error> {
        match self {
            Backend::Here(engine) => {
                let (page, next) = engine.page(after, size as usize);
                Ok((page.into_iter().map(Registration::Here).collect(), next))
            }
            Backend::NextDoor(worker) => or_default(worker.page(after, size)),
        }
    }

    /// What is known of a registration: at this moment where the engine is here, else when it was told.
    pub fn info<'a>(&self, about: &'a Registration) -> Cow<'a, NodeInfo> {
        match (self, about) {
            (Backend::Here(engine), Registration::Here(node)) => Cow::Owned(node.info(engine.now())),
            (_, Registration::NextDoor(info)) => Cow::Borrowed(&**info),
            (Backend::NextDoor(_), Registration::Here(_)) => unreachable!("a worker knows no node but by its copies"),
        }
    }

    pub fn is_online(&self, about: &Registration) -> Result<bool, Error> {
        match about {
            Registration::Here(node) => Ok(node.is_online()),
            Registration::NextDoor(info) => Ok(self.node(&info.id)?.is_some_and(|node| node.key() == about.key())),
        }
    }

    pub fn stats(&self) -> Result<Stats, Error> {
        match self {
            Backend::Here(engine) => Ok(engine.stats()),
            Backend::NextDoor(worker) => worker.stats(),
        }
    }

    pub fn timings(&self) -> Result<Timings, Error> {
        match self {
            Backend::Here(engine) => Ok(engine.timings()),
            Backend::NextDoor(worker) => or_default(worker.bus.borrow_mut().stats().map(|answer| answer.timings)),
        }
    }
}
