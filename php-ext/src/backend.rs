//! What a `HeartbeatServer` stands on: the engine in this process, the one next door that this process is a worker of, or one
//! that it only asks.
//!
//! All answer the same questions. Over the bus socket an answer is one round trip, and a node is known by a copy of its
//! record.

use heartbus_core::bus::{Attachment, AttachmentPhase, Bus};
use heartbus_core::engine::{Engine, Stats};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::hub::{Node, NodeInfo, Timings};
use heartbus_core::service::{Reply, Request, Service};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a worker waits for an answer of the engine's.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Nodes that are asked for at a time where somebody wants all of them.
const PAGE: u32 = 1000;

/// A registration of a node, as this process knows it.
#[derive(Clone, Debug)]
pub(crate) enum Registration {
    Here(Arc<Node>),
    NextDoor(Arc<NodeInfo>),
}

/// No two registrations of a server have the same.
pub(crate) type RegistrationKey = (u64, u32);

impl Registration {
    pub(crate) fn id(&self) -> &Arc<str> {
        match self {
            Self::Here(node) => node.id(),
            Self::NextDoor(info) => &info.id,
        }
    }

    pub(crate) fn connection_id(&self) -> u64 {
        match self {
            Self::Here(node) => node.connection_id(),
            Self::NextDoor(info) => info.connection_id,
        }
    }

    pub(crate) fn channel_id(&self) -> u32 {
        match self {
            Self::Here(node) => node.channel_id(),
            Self::NextDoor(info) => info.channel_id,
        }
    }

    pub(crate) fn key(&self) -> RegistrationKey {
        (self.connection_id(), self.channel_id())
    }
}

/// Nodes, and where the next page begins; none behind the last.
type Page = (Vec<Registration>, Option<u64>);

pub(crate) enum Backend {
    Here(Box<Engine>),
    NextDoor(Box<NextDoor>),
    /// Asked by a process that is none of the server's.
    Elsewhere(Box<Line>),
}

/// The two connections of a worker.
pub(crate) struct NextDoor {
    pub attachment: RefCell<Attachment>,
    line: Line,
    /// What `start` subscribed to is known.
    pub is_ready: Cell<bool>,
}

impl NextDoor {
    pub(crate) fn attach(path: &Path) -> Result<Self, Error> {
        let attachment = RefCell::new(Attachment::attach(path, ANSWER_TIME)?);
        let line = Line { bus: RefCell::new(Bus::connect(path, ANSWER_TIME)?), last: Cell::default(), is_worker: true };
        Ok(Self { attachment, line, is_ready: Cell::new(false) })
    }

    pub(crate) fn phase(&self) -> AttachmentPhase {
        self.attachment.borrow().phase()
    }
}

/// A connection that questions go over.
pub(crate) struct Line {
    bus: RefCell<Bus>,
    /// Answered last: what is left to say once the engine is gone.
    last: Cell<Stats>,
    /// A worker's engine that is gone has nothing any more, and comes back; to others that would be a wrong answer.
    is_worker: bool,
}

impl Line {
    pub(crate) fn of_asker(bus: Bus) -> Self {
        Self { bus: RefCell::new(bus), last: Cell::default(), is_worker: false }
    }

    fn ask(&self, request: &Request<'_>) -> Result<Reply, Error> {
        self.bus.borrow_mut().ask(request).map_err(|error| match is_gone(&error) && !self.is_worker {
            true => Error::new(ErrorKind::WrongProcess, format!("The server runs in other processes, and cannot be asked: {error}")),
            false => error,
        })
    }

    fn stats(&self) -> Result<Stats, Error> {
        match self.ask(&Request::Stats).and_then(Reply::stats) {
            Ok(answer) => self.last.set(answer.stats),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(self.last.get())
    }

    fn find(&self, request: &Request<'_>) -> Result<Option<Registration>, Error> {
        or_default(self.ask(request).and_then(Reply::node).map(|info| info.map(|info| Registration::NextDoor(Arc::new(info)))))
    }

    fn page(&self, after: Option<u64>, size: u32) -> Result<Page, Error> {
        let (page, next) = self.ask(&Request::Page { after, limit: size, id_pattern: None, ip: None })?.page()?;
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

/// Where questions go.
enum Way<'a> {
    Engine(&'a Engine),
    Line(&'a Line),
}

/// There is no engine to ask, or it ends.
pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Closed | ErrorKind::Io)
}

/// Where there is no engine to ask, there is none of what was asked for.
fn or_default<T: Default>(answer: Result<T, Error>) -> Result<T, Error> {
    match answer {
        Err(error) if is_gone(&error) => Ok(T::default()),
        answer => answer,
    }
}

impl Backend {
    fn way(&self) -> Way<'_> {
        match self {
            Self::Here(engine) => Way::Engine(engine),
            Self::NextDoor(next_door) => Way::Line(&next_door.line),
            Self::Elsewhere(line) => Way::Line(line),
        }
    }

    pub(crate) fn is_own_process(&self) -> bool {
        match self {
            Self::Here(engine) => engine.is_own_process(),
            Self::NextDoor(worker) => worker.attachment.borrow().is_own_process(),
            Self::Elsewhere(line) => line.bus.borrow().is_own_process(),
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        match self {
            Self::Here(engine) => engine.is_stopped(),
            Self::NextDoor(worker) => matches!(worker.phase(), AttachmentPhase::Finished | AttachmentPhase::Lost),
            Self::Elsewhere(_) => false,
        }
    }

    pub(crate) fn ask(&self, request: &Request<'_>) -> Result<Reply, Error> {
        match self.way() {
            Way::Engine(engine) => engine.ask(request),
            Way::Line(line) => line.ask(request),
        }
    }

    pub(crate) fn node(&self, node_id: &str) -> Result<Option<Registration>, Error> {
        match self.way() {
            Way::Engine(engine) => Ok(engine.node(node_id).map(Registration::Here)),
            Way::Line(line) => line.find(&Request::Node { id: node_id }),
        }
    }

    pub(crate) fn node_of_channel(&self, channel_id: u32) -> Result<Option<Registration>, Error> {
        match self.way() {
            Way::Engine(engine) => Ok(engine.node_of_channel(channel_id).map(Registration::Here)),
            Way::Line(line) => line.find(&Request::NodeOfChannel { channel: channel_id }),
        }
    }

    pub(crate) fn node_of_connection(&self, connection_id: u64) -> Result<Option<Registration>, Error> {
        match self.way() {
            Way::Engine(engine) => Ok(engine.node_of_connection(connection_id).map(Registration::Here)),
            Way::Line(line) => line.find(&Request::NodeOfConnection { connection: connection_id }),
        }
    }

    pub(crate) fn nodes(&self) -> Result<Vec<Registration>, Error> {
        match self.way() {
            Way::Engine(engine) => Ok(engine.nodes(usize::MAX).into_iter().map(Registration::Here).collect()),
            Way::Line(line) => or_default(line.all_nodes()),
        }
    }

    pub(crate) fn page(&self, after: Option<u64>, size: u32) -> Result<Page, Error> {
        match self.way() {
            Way::Engine(engine) => {
                let (page, next) = engine.page(after, size as usize);
                Ok((page.into_iter().map(Registration::Here).collect(), next))
            }
            Way::Line(line) => or_default(line.page(after, size)),
        }
    }

    /// What is known of a registration: at this moment where the engine is here, else when it was told.
    pub(crate) fn info<'a>(&self, about: &'a Registration) -> Cow<'a, NodeInfo> {
        match (self.way(), about) {
            (Way::Engine(engine), Registration::Here(node)) => Cow::Owned(node.info(engine.now())),
            (_, Registration::NextDoor(info)) => Cow::Borrowed(&**info),
            (Way::Line(_), Registration::Here(_)) => unreachable!("a worker knows no node but by its copies"),
        }
    }

    pub(crate) fn is_online(&self, about: &Registration) -> Result<bool, Error> {
        match about {
            Registration::Here(node) => Ok(node.is_online()),
            Registration::NextDoor(info) => Ok(self.node(&info.id)?.is_some_and(|node| node.key() == about.key())),
        }
    }

    pub(crate) fn stats(&self) -> Result<Stats, Error> {
        match self.way() {
            Way::Engine(engine) => Ok(engine.stats()),
            Way::Line(line) => line.stats(),
        }
    }

    pub(crate) fn timings(&self) -> Result<Timings, Error> {
        match self.way() {
            Way::Engine(engine) => Ok(engine.timings()),
            Way::Line(line) => or_default(line.ask(&Request::Stats).and_then(Reply::stats).map(|answer| answer.timings)),
        }
    }
}
