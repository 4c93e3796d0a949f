//! A server as one PHP process has it: its engine, here or next door, its callbacks, and how far it has come in its life.
//!
//! Owns the state; what is done with it stands below, one file per matter. The PHP class is in [`class`].

use crate::asking::Asking;
use crate::backend::{Backend, Registration};
use crate::config;
use crate::exception;
use crate::objects::Objects;
use crate::php::{Callable, Native, Outcome};
use crate::runtime::{Runtime, is_same};
use crate::subscriptions::Subscriptions;
use crate::timers::Timers;
use absence::Absence;
use delivery::Delivery;
use ext_php_rs::ffi::{zend_class_entry, zend_object_handlers};
use ext_php_rs::types::Zval;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{EventMask, HostMessage};
use heartbus_core::inbox::Inbox;
use heartbus_core::service::{Reply, Request};
use std::cell::{Cell, OnceCell, RefCell};
use std::path::PathBuf;
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::atomic::AtomicPtr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use waiting_log::WaitingLog;

mod absence;
pub(crate) mod class;
mod deciding;
mod delivery;
mod listening;
mod log;
mod other_process;
mod owner;
mod socket;
pub(crate) mod start;
mod stop;
mod tell;
mod waiting_log;
mod worker;

const NAME: &str = r"PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer";

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

/// Servers that run in this process, or have events left to tell, in the order in which they were started.
pub(crate) fn running() -> Vec<Rc<Server>> {
    let known: Vec<Rc<Server>> = SERVERS.with_borrow(|servers| servers.iter().filter_map(Weak::upgrade).collect());
    let sources = Runtime::current().servers();
    sources.iter().filter_map(|source| known.iter().find(|server| is_same(&**source, &***server)).cloned()).collect()
}

/// Servers whose engines run, here or next door.
pub(crate) fn running_engines() -> Vec<(Rc<Server>, Rc<Backend>)> {
    let servers = running().into_iter();
    servers.filter_map(|server| server.engine().filter(|engine| !engine.is_stopped()).map(|engine| (server, engine))).collect()
}

thread_local! {
    /// Every server that the process knows.
    static SERVERS: RefCell<Vec<Weak<Server>>> = const { RefCell::new(Vec::new()) };
}

/// What a script can subscribe to.
#[derive(Copy, Clone, PartialEq)]
enum Kind {
    Connect,
    Register,
    Heartbeat,
    Data,
    DataBatch,
    Unregister,
    Timeout,
    Replaced,
    Disconnected,
    Close,
    BufferFull,
    BufferDrain,
    Message,
    Authenticate,
    SubscribeBefore,
    PublishBefore,
    Subscribe,
    Unsubscribe,
    Offline,
    Start,
    Stop,
}
use Kind::*;

/// The kinds by name, in the order of the enum, and what the inbox must be asked for.
const KINDS: [(&str, Kind, EventMask); 21] = [
    ("connect", Connect, EventMask::CONNECT),
    ("register", Register, EventMask::REGISTER),
    ("heartbeat", Heartbeat, EventMask::HEARTBEAT),
    ("data", Data, EventMask::DATA),
    ("data.batch", DataBatch, EventMask::DATA),
    ("unregister", Unregister, EventMask::LEFT),
    ("timeout", Timeout, EventMask::LEFT),
    ("replaced", Replaced, EventMask::LEFT),
    ("disconnected", Disconnected, EventMask::LEFT),
    ("close", Close, EventMask::CLOSE),
    ("buffer.full", BufferFull, EventMask::BUFFER),
    ("buffer.drain", BufferDrain, EventMask::BUFFER),
    ("message", Message, EventMask::MESSAGE),
    ("authenticate", Authenticate, EventMask::AUTHENTICATE),
    ("subscribe.before", SubscribeBefore, EventMask::SUBSCRIBE_BEFORE),
    ("publish.before", PublishBefore, EventMask::PUBLISH_BEFORE),
    ("subscribe", Subscribe, EventMask::SUBSCRIBE),
    ("unsubscribe", Unsubscribe, EventMask::UNSUBSCRIBE),
    ("offline", Offline, EventMask::CLOSE),
    ("start", Start, EventMask::NONE),
    ("stop", Stop, EventMask::NONE),
];

impl Kind {
    fn name(self) -> &'static str {
        KINDS[self as usize].0
    }
}

#[derive(Copy, Clone, Debug, PartialEq)]
enum State {
    Idle,
    Running,
    /// A worker whose engine is not there: it is not there yet, or starts anew.
    Away,
    /// The engine stops, or this worker leaves it; what was said last is still to be told.
    Stopping,
}

/// What a process has of a server.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum Role {
    /// The engine and its callbacks.
    Whole,
    /// The engine; its callbacks run in workers.
    Engine,
    /// Callbacks of the engine next door.
    Worker,
}

pub(crate) struct Server {
    host: String,
    port: i64,
    config: config::ServerOptions,
    callbacks: RefCell<[Option<Rc<Callable>>; KINDS.len()]>,
    subscriptions: RefCell<Subscriptions>,
    /// A message of which some of its callbacks were told.
    untold: RefCell<Option<UntoldMessage>>,
    pub timers: Timers,
    state: Cell<State>,
    /// While it stops: when callbacks have had their time, and what is not told yet is dropped.
    tell_until: Cell<Option<Instant>>,
    role: Cell<Role>,
    /// The last one that was started, or attached to; it keeps its numbers after its end.
    engine: RefCell<Option<Rc<Backend>>>,
    /// Of an engine in this process.
    inbox: RefCell<Option<Arc<Inbox>>>,
    /// The events on their way to its callbacks.
    delivery: RefCell<Delivery<Registration>>,
    /// When a worker that was told to stop leaves an engine that goes on.
    leave_at: Cell<Option<Instant>>,
    /// When a worker looks for its engine again.
    retry_at: Cell<Option<Instant>>,
    /// The bus socket, once it is chosen: before Workerman forks, so that all its processes agree.
    bus_path: RefCell<Option<PathBuf>>,
    /// The process that made it, the one that made Workerman's workers for it, and the last one that had a part of it, as the
    /// generations of `heartbus_generation`.
    made_in: u32,
    prepared_in: Cell<Option<u32>>,
    serves_in: Cell<Option<u32>>,
    /// Processes that Workerman runs for the callbacks.
    php_workers: Cell<i64>,
    /// Which of them this process is.
    worker_id: Cell<i64>,
    /// Where its engine is asked from processes that have no part of it.
    remote: RefCell<Option<Rc<Backend>>>,
    /// A worker without its engine.
    absence: Absence,
    waiting_log: WaitingLog,
    /// What PHP holds of its nodes and channels.
    pub objects: Objects,
    /// Itself.
    me: OnceCell<Weak<Self>>,
}

impl Native for Server {
    fn handlers() -> &'static OnceLock<zend_object_handlers> {
        static HANDLERS: OnceLock<zend_object_handlers> = OnceLock::new();
        &HANDLERS
    }

    fn each_value(&self, visit: &mut dyn FnMut(&Zval)) {
        self.callbacks.borrow().iter().flatten().for_each(|callback| visit(callback.zval()));
        self.subscriptions.borrow().each_value(visit);
        self.timers.each_value(visit);
        self.objects.each_value(visit);
    }
}

/// A message of which some subscriptions were told, the last of them this one.
struct UntoldMessage {
    message: Arc<HostMessage>,
    behind: Option<String>,
}

impl Server {
    fn has_code(&self) -> bool {
        self.callbacks.borrow().iter().any(Option::is_some) || !self.timers.is_empty() || !self.subscriptions.borrow().is_empty()
    }

    fn may_have_more(&self) -> bool {
        self.delivery.borrow().may_have_more()
    }

    /// Events that were merged with others.
    fn coalesced(&self) -> u64 {
        self.inbox.borrow().as_ref().map_or_else(|| self.delivery.borrow().coalesced(), |inbox| inbox.stats().coalesced)
    }

    fn run_timers(&self, runtime: &Runtime) {
        self.timers.run(Instant::now());
        runtime.set_alarm();
    }

    /// Where it listens, as Workerman's tables write it.
    fn address(&self) -> String {
        let host = if self.host.contains(':') && !self.host.starts_with('[') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("tcp://{host}:{}", self.port)
    }

    pub(crate) fn stop_timeout(&self) -> Option<Duration> {
        self.config.host.stop_timeout
    }

    /// The last engine of this server.
    pub(crate) fn engine(&self) -> Option<Rc<Backend>> {
        self.engine.borrow().clone()
    }

    fn subscriptions(&self) -> EventMask {
        let callbacks = self.callbacks.borrow();
        let wanted = KINDS.iter().zip(&*callbacks).filter(|(_, callback)| callback.is_some());
        let wanted = wanted.fold(EventMask::NONE, |mask, ((.., kind), _)| mask | *kind);
        let wanted = if self.subscriptions.borrow().is_empty() { wanted } else { wanted | EventMask::MESSAGE };
        let wanted = if self.objects.are_monitors_running() { wanted | EventMask::LEFT } else { wanted };
        if self.objects.are_channels_open() { wanted | EventMask::DATA | EventMask::LEFT } else { wanted }
    }

    /// After what PHP wants to know has changed.
    pub(crate) fn resubscribe(&self) {
        if let Some(inbox) = &*self.inbox.borrow() {
            inbox.subscribe(self.subscriptions());
        }
        self.say(|attachment| attachment.subscribe(self.subscriptions()));
    }

    /// None while its object is freed.
    fn shared(&self) -> Option<Rc<Self>> {
        self.me.get().and_then(Weak::upgrade)
    }

    /// Asks the engine for something. None, and a word in the log, when it cannot be done.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Backend) -> Result<T, Error>) -> Outcome<Option<T>> {
        let Some(engine) = self.backend()? else { return Ok(None) };
        match question(&engine) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if matches!(error.kind, ErrorKind::WrongProcess | ErrorKind::Timeout) => Err(exception::raise(&error)),
            Err(error) => {
                if matches!(error.kind, ErrorKind::Limit | ErrorKind::InvalidArgument | ErrorKind::Io) {
                    tracing::error!("Failed to send data: {error}");
                }
                Ok(None)
            }
        }
    }

    pub(crate) fn check_process(&self) -> Outcome {
        let is_foreign = self.engine.borrow().as_ref().is_some_and(|engine| !engine.is_own_process());
        if is_foreign { Err(exception::raise(&Error::wrong_process())) } else { Ok(()) }
    }

    /// In a child that was forked off a running server nothing is ever told, and no timer runs.
    fn check_runs_here(&self) -> Outcome {
        if self.state.get() == State::Running { self.check_process() } else { Ok(()) }
    }
}

impl Asking for Server {
    const NAME: &'static str = NAME;
    const MAY_BE_AWAY: bool = true;

    fn answer(&self, request: &Request<'_>) -> Outcome<Result<Reply, Error>> {
        let Some(engine) = self.backend()? else { return Ok(Err(Error::new(ErrorKind::Closed, "The server does not run"))) };
        Ok(engine.ask(request))
    }

    fn try_to(&self, request: &Request<'_>) -> Outcome<Option<Reply>> {
        self.ask(|engine| engine.ask(request))
    }

    fn count(&self, request: &Request<'_>) -> Outcome<usize> {
        Ok(self.ask(|engine| engine.ask(request)?.count())?.unwrap_or_default())
    }
}
