//! What runs in one PHP process: its servers and its clients, the loop that watches them, and the events on their way to callbacks.
//!
//! There is one runtime per PHP request and process. Callbacks run from here only, on PHP's thread, with no lock and no
//! borrow held; events that were taken out of an inbox wait in their source until their turn, so that an exception, a
//! suspended fiber or a nested loop loses none. Knows no server and no client: they are sources.

mod foreign_loops;
mod own_loop;
mod turn;

use crate::alarms::Alarms;
use crate::exception;
use crate::glue::Glue;
use crate::guest::Guest;
use crate::php::{Callable, Outcome};
use crate::shim;
use crate::signals::Signals;
use crate::wakeup::Wakeup;
use crate::workerman::Workerman;
use ext_php_rs::types::Zval;
use heartbus_core::engine::LogLine;
use heartbus_core::error::{Error, ErrorKind};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::iter;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Instant;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Runtime>>> = const { RefCell::new(None) };
}

/// Something that events come from: a server, all clients together, topics of a bus socket, those who wait for answers. What was taken out
/// waits in it for its callbacks.
pub(crate) trait Source {
    /// Events that were taken out.
    fn pending(&self) -> usize {
        0
    }

    /// Takes out up to `max` more, when none is left.
    fn refill(&self, _max: usize) -> Outcome {
        Ok(())
    }

    /// Tells the next. True when a callback ran.
    fn tell_next(&self, _runtime: &Runtime) -> Outcome<bool> {
        Ok(false)
    }

    /// There is something to do besides what is pending.
    fn has_more(&self) -> bool {
        false
    }

    /// Nothing comes from it any more, unless somebody asks for it.
    fn is_idle(&self) -> bool {
        false
    }

    /// Lets those go on who wait for something that has come. Returns how many.
    fn wake(&self) -> Outcome<usize> {
        Ok(0)
    }

    /// What remains to be done when events were told. True when a callback ran.
    fn settle(&self, _runtime: &Runtime) -> Outcome<bool> {
        Ok(false)
    }

    /// When there is something to do, whether or not anything comes.
    fn wakes_at(&self) -> Option<Instant> {
        None
    }

    /// Timers that run or will run.
    fn timers(&self) -> usize {
        0
    }

    /// The callback of a timer that is due.
    fn take_due(&self, _now: Instant) -> Option<Rc<Callable>> {
        None
    }

    /// Takes a message of the log that others are to have; gives back one that is for this process.
    fn take_log(&self, line: LogLine, _runtime: &Runtime) -> Option<LogLine> {
        Some(line)
    }

    /// A stop signal came.
    fn begin_stop(&self, _runtime: &Runtime) {}

    /// Another one came: what is not told yet is dropped.
    fn stop_telling(&self) {}

    /// The request ends: nothing calls into PHP any more.
    fn shut_down(&self);
}

/// Those who wait for answers from other processes: they outlive requests.
static ANSWERS: OnceLock<&'static (dyn Source + Sync)> = OnceLock::new();

/// As the module starts.
pub(crate) fn serve_answers(answers: &'static (dyn Source + Sync)) {
    // The module starts once.
    let _ = ANSWERS.set(answers);
}

/// What starts a client that waited for a loop.
pub(crate) type Start = fn(&Runtime, &Zval) -> Outcome;

/// A loop of others.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Watcher {
    Nobody,
    Workerman,
    Revolt,
    React,
}

pub(crate) struct Runtime {
    /// Tells a forked child from its parent.
    generation: u32,
    wakeup: OnceCell<Wakeup>,
    /// Servers that run, or have events left to tell, each with its PHP object.
    servers: RefCell<Vec<(Rc<dyn Source>, Zval)>>,
    /// All clients together, once there was one.
    clients: RefCell<Option<Rc<dyn Source>>>,
    /// What was subscribed to over bus sockets, each of these by itself.
    feeds: RefCell<Vec<Rc<dyn Source>>>,
    /// Clients that were told to connect before there was a loop.
    waiting: RefCell<VecDeque<(Zval, Start)>>,
    /// A `HeartbeatClient` worker is registered for them.
    has_client_worker: Cell<bool>,
    /// The parent's in a forked child: what Workerman's workers were told before the fork holds in them.
    pub workerman: Rc<Workerman>,
    pub pages: Glue,
    revolt: Guest,
    react: Guest,
    /// Whose loop watches the wakeup.
    watcher: Cell<Watcher>,
    /// Begins and ends of its visits.
    visits: Cell<u64>,
    stream: RefCell<Zval>,
    /// Own loops on the stack.
    loops: Cell<u32>,
    signals: RefCell<Option<Signals>>,
    /// A stop signal came, and the outermost loop has not returned yet.
    is_interrupted: Cell<bool>,
    /// Calls of `pump` on the stack.
    pumps: Cell<u32>,
    /// Closures that our own loop calls once each.
    alarms: RefCell<Alarms<Zval>>,
    /// The descriptor of the log that is watched.
    watched_log: Cell<RawFd>,
    /// In a forked child: the parent's runtime, of which nothing may be used here.
    inherited: RefCell<Option<Rc<Self>>>,
}

impl Runtime {
    pub(crate) fn current() -> Rc<Self> {
        // SAFETY: reads a number.
        let generation = unsafe { shim::heartbus_generation() };
        CURRENT.with_borrow_mut(|current| match current {
            Some(runtime) if runtime.generation == generation => runtime.clone(),
            other => {
                let runtime = Rc::new(Self::new(generation, other.take()));
                other.insert(runtime).clone()
            }
        })
    }

    fn new(generation: u32, inherited: Option<Rc<Self>>) -> Self {
        let waiting = inherited.as_ref().map(|parent| parent.waiting.take()).unwrap_or_default();
        let has_client_worker = inherited.as_ref().is_some_and(|parent| parent.has_client_worker.get());
        if let Some(parent) = &inherited {
            // The parent's loop does not turn here.
            parent.signals.take();
        }
        Self {
            generation,
            wakeup: OnceCell::new(),
            servers: RefCell::default(),
            clients: RefCell::default(),
            feeds: RefCell::default(),
            waiting: RefCell::new(waiting),
            has_client_worker: Cell::new(has_client_worker),
            workerman: inherited.as_ref().map_or_else(|| Rc::new(Workerman::new()), |parent| parent.workerman.clone()),
            pages: Glue::new(include_str!("classes/pages.php"), c"heartbus/classes/pages.php"),
            revolt: Guest::revolt(),
            react: Guest::react(),
            watcher: Cell::new(Watcher::Nobody),
            visits: Cell::new(0),
            stream: RefCell::new(Zval::new()),
            loops: Cell::new(0),
            signals: RefCell::default(),
            is_interrupted: Cell::new(false),
            pumps: Cell::new(0),
            alarms: RefCell::default(),
            watched_log: Cell::new(-1),
            inherited: RefCell::new(inherited),
        }
    }

    /// The end of the request: everything stops, politely; no callback runs any more.
    pub(crate) fn shut_down() {
        heartbus_core::log::tell_left_out(true);
        // SAFETY: PHP's thread.
        unsafe { shim::heartbus_end_own_time_limit() };
        let Some(runtime) = CURRENT.with_borrow_mut(Option::take) else { return };
        runtime.signals.take();
        // Said explicitly and not left to drop: a fatal error may have jumped over frames that share these. Clients go
        // first, so that those of our own servers can say goodbye.
        if let Some(clients) = runtime.clients.take() {
            clients.shut_down();
        }
        for (server, _) in runtime.servers.take() {
            server.shut_down();
        }
        for feed in runtime.feeds.take() {
            feed.shut_down();
        }
        crate::log::stop_waiting();
        runtime.waiting.take();
        runtime.alarms.take();
        runtime.inherited.take();
    }

    /// Throws in a child that a callback forked: what goes on here is the parent's business.
    fn check_process(&self) -> Outcome {
        // SAFETY: reads a number.
        let is_own = self.generation == unsafe { shim::heartbus_generation() };
        if is_own { Ok(()) } else { Err(exception::raise(&Error::wrong_process())) }
    }

    pub(crate) fn wakeup(&self) -> Result<&Wakeup, Error> {
        if let Some(wakeup) = self.wakeup.get() {
            return Ok(wakeup);
        }
        let wakeup = Wakeup::new()?;
        Ok(self.wakeup.get_or_init(|| wakeup))
    }

    /// Makes whatever loop there is look again soon.
    pub(crate) fn wake_loop(&self) {
        if let Some(wakeup) = self.wakeup.get() {
            wakeup.set();
        }
    }

    /// The stream that other loops watch.
    pub(crate) fn stream(&self) -> Outcome<Zval> {
        let mut stream = self.stream.borrow_mut();
        // SAFETY: looks at a value.
        if !unsafe { shim::heartbus_stream_is_open(&raw mut *stream) } {
            let fd = self.wakeup().and_then(Wakeup::duplicate).map_err(|error| exception::raise(&error))?;
            let mut opened = Zval::new();
            // SAFETY: the stream owns the descriptor from here on.
            if !unsafe { shim::heartbus_stream(fd, &raw mut opened) } {
                return Err(exception::fail(ErrorKind::Io, "Cannot open a stream for events"));
            }
            *stream = opened;
        }
        Ok(stream.shallow_clone())
    }

    // ---- servers and clients ----

    pub(crate) fn add_server(&self, server: Rc<dyn Source>, object: Zval) {
        self.servers.borrow_mut().push((server, object));
    }

    /// Gives the server's object back: dropping it may run PHP code.
    pub(crate) fn remove_server(&self, server: &dyn Source) -> Option<Zval> {
        let mut servers = self.servers.borrow_mut();
        let place = servers.iter().position(|(running, _)| is_same(&**running, server))?;
        Some(servers.remove(place).1)
    }

    /// The PHP object of a server that runs.
    pub(crate) fn object_of(&self, server: &dyn Source) -> Option<Zval> {
        let servers = self.servers.borrow();
        servers.iter().find(|(running, _)| is_same(&**running, server)).map(|(_, object)| object.shallow_clone())
    }

    /// In the order in which they were started.
    pub(crate) fn servers(&self) -> Vec<Rc<dyn Source>> {
        self.servers.borrow().iter().map(|(server, _)| server.clone()).collect()
    }

    /// All clients together, where there are or were any.
    pub(crate) fn clients(&self) -> Option<Rc<dyn Source>> {
        self.clients.borrow().clone()
    }

    pub(crate) fn set_clients(&self, clients: Rc<dyn Source>) {
        self.clients.replace(Some(clients));
    }

    pub(crate) fn add_feed(&self, feed: Rc<dyn Source>) {
        self.feeds.borrow_mut().push(feed);
    }

    pub(crate) fn feeds(&self) -> Vec<Rc<dyn Source>> {
        self.feeds.borrow().clone()
    }

    /// Something was subscribed to over a bus socket.
    pub(crate) fn has_feeds(&self) -> bool {
        self.feeds.borrow().iter().any(|feed| !feed.is_idle())
    }

    /// The servers, then the clients, then topics: those as well that a callback of a server's has just made.
    fn sources(&self) -> impl Iterator<Item = Rc<dyn Source>> + '_ {
        let clients = iter::once_with(|| self.clients()).flatten();
        self.servers().into_iter().chain(clients).chain(iter::once_with(|| self.feeds()).flatten())
    }

    pub(crate) fn watch(&self, fd: BorrowedFd<'_>) -> Result<(), Error> {
        self.wakeup()?.watch(fd)
    }

    pub(crate) fn unwatch(&self, fd: BorrowedFd<'_>) {
        if let Some(wakeup) = self.wakeup.get() {
            wakeup.unwatch(fd);
        }
    }

    pub(crate) fn has_clients(&self) -> bool {
        !self.waiting.borrow().is_empty() || self.clients.borrow().as_ref().is_some_and(|clients| !clients.is_idle())
    }

    /// A client that connects as soon as there is a loop: in its own worker of Workerman's, or in `run()` and `poll()`.
    pub(crate) fn wait(&self, client: Zval, start: Start) {
        self.waiting.borrow_mut().push_back((client, start));
    }

    pub(crate) fn stop_waiting(&self, client: &Zval) {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.iter().position(|(waiting, _)| waiting.is_identical(client));
        let removed = place.and_then(|place| waiting.remove(place));
        drop(waiting);
        drop(removed);
    }

    /// True once: for whoever registers the worker of the waiting clients.
    pub(crate) fn wants_client_worker(&self) -> bool {
        !self.has_client_worker.replace(true)
    }

    /// Connects the clients that waited for a loop. They are many, maybe; the first that cannot be started is told.
    pub(crate) fn connect_waiting(&self) -> Outcome {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            let Some((client, start)) = next else { return Ok(()) };
            start(self, &client)?;
        }
    }

    /// Somebody drives us by hand: no worker of Workerman's will connect the clients that wait.
    pub(crate) fn adopt_waiting(&self) -> Outcome {
        if self.waiting.borrow().is_empty() || self.workerman.is_running()? {
            return Ok(());
        }
        self.connect_waiting()
    }

    pub(crate) fn is_looping(&self) -> bool {
        self.loops.get() > 0
    }

    pub(crate) fn is_pumping(&self) -> bool {
        self.pumps.get() > 0
    }
}

/// Whether the two are one: a source's address is its own.
pub(crate) fn is_same(one: &dyn Source, other: &dyn Source) -> bool {
    ptr::addr_eq(one, other)
}
