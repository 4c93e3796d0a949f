//! The host side of the engine in one PHP process: which servers and clients run here, how their events reach their
//! callbacks, and the extension's own loop.
//!
//! There is one host per PHP request and process. Callbacks run from here only, on PHP's thread, with no lock and no
//! borrow held; events that were taken out of an inbox wait in their source until their turn, so that an exception, a
//! suspended fiber or a nested loop loses none.

use crate::backend::Backend;
use crate::bell::Bell;
use crate::classes::start_fiber;
use crate::config::Loop;
use crate::exception;
use crate::glue::Glue;
use crate::guest::Guest;
use crate::heartbeat_client::Fleet;
use crate::heartbeat_server::{Server, log as server_log};
use crate::php::{Outcome, pending_exception};
use crate::shim;
use crate::signals::Signals;
use crate::workerman::Workerman;
use ext_php_rs::types::Zval;
use heartbus_core::error::{Error, ErrorKind};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Events of one source that are told before the next source, timers and signals have their turn.
const BATCH: usize = 1024;

/// Nor do they get more time than this, and one callback: slow ones must not keep signals and timers waiting.
const BATCH_TIME: Duration = Duration::from_millis(5);

thread_local! {
    static HOST: RefCell<Option<Rc<Host>>> = const { RefCell::new(None) };
}

/// Something that events come from: a server, or all clients together. Those that were taken out wait in it for their
/// callbacks.
pub trait Source {
    fn pending(&self) -> usize;

    /// Takes out up to `max` more, when none is left.
    fn refill(&self, max: usize) -> Outcome;

    /// Tells the next. True when a callback ran.
    fn tell_next(&self, host: &Host) -> Outcome<bool>;
}

/// A loop of others.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Watcher {
    Nobody,
    Workerman,
    Revolt,
    React,
}

pub struct Host {
    /// Tells a forked child from its parent.
    generation: u32,
    bell: OnceCell<Bell>,
    /// Servers that run, or have events left to tell, each with its PHP object.
    servers: RefCell<Vec<(Rc<Server>, Zval)>>,
    fleet: RefCell<Option<Rc<Fleet>>>,
    /// Clients that were told to connect before there was a loop.
    waiting: RefCell<VecDeque<Zval>>,
    /// A `HeartbeatClient` worker is registered for them.
    has_client_worker: Cell<bool>,
    /// The parent's in a forked child: what Workerman's workers were told before the fork holds in them.
    pub workerman: Rc<Workerman>,
    pub pages: Glue,
    revolt: Guest,
    react: Guest,
    /// Whose loop watches the bell.
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
    /// Called once each, by our own loop: the times and numbers, and the closures.
    alarms: RefCell<BTreeMap<(Instant, i64), Zval>>,
    /// The times of the numbers.
    alarm_times: RefCell<HashMap<i64, Instant>>,
    last_alarm: Cell<i64>,
    /// The descriptor of the log that the bell watches.
    watched_log: Cell<RawFd>,
    /// In a forked child: the parent's host, of which nothing may be used here.
    inherited: RefCell<Option<Rc<Host>>>,
}

impl Host {
    pub fn current() -> Rc<Host> {
        // SAFETY: reads a number.
        let generation = unsafe { shim::heartbus_generation() };
        HOST.with_borrow_mut(|current| match current {
            Some(host) if host.generation == generation => host.clone(),
            other => {
                let host = Rc::new(Host::new(generation, other.take()));
                other.insert(host).clone()
            }
        })
    }

    fn new(generation: u32, inherited: Option<Rc<Host>>) -> Host {
        let waiting = inherited.as_ref().map(|parent| parent.waiting.take()).unwrap_or_default();
        let has_client_worker = inherited.as_ref().is_some_and(|parent| parent.has_client_worker.get());
        if let Some(parent) = &inherited {
            // The parent's loop does not turn here.
            parent.signals.take();
        }
        Host {
            generation,
            bell: OnceCell::new(),
            servers: RefCell::default(),
            fleet: RefCell::default(),
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
            alarm_times: RefCell::default(),
            last_alarm: Cell::new(0),
            watched_log: Cell::new(-1),
            inherited: RefCell::new(inherited),
        }
    }

    /// The end of the request: everything stops, politely; no callback runs any more.
    pub fn shut_down() {
        crate::bus::end_request();
        heartbus_core::log::tell_left_out(true);
        // SAFETY: PHP's thread.
        unsafe { shim::heartbus_end_own_time_limit() };
        Host::end();
        crate::log::end_request();
    }

    fn end() {
        let Some(host) = HOST.with_borrow_mut(Option::take) else { return };
        host.signals.take();
        // Said explicitly and not left to drop: a fatal error may have jumped over frames that share these. Clients go
        // first, so that those of our own servers can say goodbye.
        if let Some(fleet) = host.fleet.take() {
            fleet.shut_down();
        }
        for (server, _) in host.servers.take() {
            server.shut_down();
        }
        crate::log::stop_waiting();
        host.waiting.take();
        host.alarms.take();
        host.inherited.take();
    }

    /// Throws in a child that a callback forked: what goes on here is the parent's business.
    fn check_process(&self) -> Outcome {
        // SAFETY: reads a number.
        let is_own = self.generation == unsafe { shim::heartbus_generation() };
        if is_own { Ok(()) } else { Err(exception::raise(&Error::wrong_process())) }
    }

    pub fn bell(&self) -> Result<&Bell, Error> {
        if let Some(bell) = self.bell.get() {
            return Ok(bell);
        }
        let bell = Bell::new()?;
        Ok(self.bell.get_or_init(|| bell))
    }

    /// Makes whatever loop there is look again soon.
    pub fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }

    /// The stream that other loops watch.
    pub fn stream(&self) -> Outcome<Zval> {
        let mut stream = self.stream.borrow_mut();
        // SAFETY: looks at a value.
        if !unsafe { shim::heartbus_stream_is_open(&raw mut *stream) } {
            let fd = self.bell().and_then(Bell::duplicate).map_err(|error| exception::raise(&error))?;
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

    pub fn add_server(&self, server: Rc<Server>, object: Zval) {
        self.servers.borrow_mut().push((server, object));
    }

    /// Gives the server's object back: dropping it may run PHP code.
    pub fn remove_server(&self, server: &Server) -> Option<Zval> {
        let mut servers = self.servers.borrow_mut();
        let place = servers.iter().position(|(running, _)| std::ptr::eq(&raw const **running, server))?;
        Some(servers.remove(place).1)
    }

    /// The PHP object of a server that runs.
    pub fn object_of(&self, server: &Server) -> Option<Zval> {
        let servers = self.servers.borrow();
        servers.iter().find(|(running, _)| std::ptr::eq(&raw const **running, server)).map(|(_, object)| object.shallow_clone())
    }

    pub fn running_servers(&self) -> Vec<Rc<Server>> {
        self.servers.borrow().iter().map(|(server, _)| server.clone()).collect()
    }

    /// Servers whose engines run, here or next door.
    pub fn running(&self) -> Vec<(Rc<Server>, Rc<Backend>)> {
        let servers = self.running_servers().into_iter();
        servers.filter_map(|server| server.engine().filter(|engine| !engine.is_stopped()).map(|engine| (server, engine))).collect()
    }

    pub fn watch(&self, fd: BorrowedFd) -> Result<(), Error> {
        self.bell()?.watch(fd)
    }

    pub fn unwatch(&self, fd: BorrowedFd) {
        if let Some(bell) = self.bell.get() {
            bell.unwatch(fd);
        }
    }

    /// The thread of all clients; started by the first that needs it.
    pub fn fleet(&self) -> Outcome<Rc<Fleet>> {
        if let Some(fleet) = &*self.fleet.borrow() {
            return Ok(fleet.clone());
        }
        let start = || {
            let fleet = Rc::new(Fleet::start()?);
            self.watch(fleet.inbox.as_fd())?;
            Ok(fleet)
        };
        let fleet = start().map_err(|error| exception::raise(&error))?;
        Ok(self.fleet.borrow_mut().insert(fleet).clone())
    }

    pub fn has_clients(&self) -> bool {
        !self.waiting.borrow().is_empty() || self.fleet.borrow().as_ref().is_some_and(|fleet| !fleet.is_empty())
    }

    /// Clients that are connected.
    pub fn open_clients(&self) -> usize {
        self.fleet.borrow().as_ref().map_or(0, |fleet| fleet.connected())
    }

    /// Timers of running servers.
    pub fn timers(&self) -> usize {
        self.servers.borrow().iter().map(|(server, _)| server.timers.len()).sum()
    }

    /// A client that connects as soon as there is a loop: in its own worker of Workerman's, or in `run()` and `poll()`.
    pub fn wait(&self, client: Zval) {
        self.waiting.borrow_mut().push_back(client);
    }

    pub fn stop_waiting(&self, client: &Zval) {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.iter().position(|waiting| waiting.is_identical(client));
        let removed = place.and_then(|place| waiting.remove(place));
        drop(waiting);
        drop(removed);
    }

    /// True once: for whoever registers the worker of the waiting clients.
    pub fn wants_client_worker(&self) -> bool {
        !self.has_client_worker.replace(true)
    }

    /// Connects the clients that waited for a loop. They are many, maybe; the first that cannot be started is told.
    pub fn connect_waiting(&self) -> Outcome {
        loop {
            let client = self.waiting.borrow_mut().pop_front();
            let Some(client) = client else { return Ok(()) };
            crate::heartbeat_client::start(self, &client)?;
        }
    }

    /// Somebody drives us by hand: no worker of Workerman's will connect the clients that wait.
    pub fn adopt_waiting(&self) -> Outcome {
        if self.waiting.borrow().is_empty() || self.workerman.is_running()? {
            return Ok(());
        }
        self.connect_waiting()
    }

    // ---- loops of others ----

    /// Lets the loop of others that runs in this process tell us when there is something to do. False when none runs, or
    /// when the setting asks for something else.
    pub fn join_running_loop(&self, wanted: Loop) -> Outcome<bool> {
        let allows = |only| wanted == Loop::Auto || wanted == only;
        let watcher = if allows(Loop::Workerman) && self.workerman.is_running()? {
            Watcher::Workerman
        } else if allows(Loop::Revolt) && self.revolt.is_running()? {
            Watcher::Revolt
        } else if allows(Loop::React) && self.react.is_running()? {
            Watcher::React
        } else {
            return Ok(false);
        };
        self.be_watched_by(watcher).map(|()| true)
    }

    /// As [`Host::join_running_loop`] for one that the application can be expected to run later: the one it asks for, or
    /// one that it uses already.
    pub fn join_loop_to_come(&self, wanted: Loop) -> Outcome<bool> {
        let watcher = match wanted {
            Loop::Revolt if self.revolt.exists(true)? => Watcher::Revolt,
            Loop::React if self.react.exists(true)? => Watcher::React,
            Loop::Auto if self.revolt.is_used()? => Watcher::Revolt,
            Loop::Auto if self.react.is_used()? => Watcher::React,
            Loop::Revolt => return Err(self.revolt.is_missing("revolt")),
            Loop::React => return Err(self.react.is_missing("react")),
            _ => return Ok(false),
        };
        self.be_watched_by(watcher).map(|()| true)
    }

    pub fn be_watched_by(&self, watcher: Watcher) -> Outcome {
        if self.watcher.get() == watcher {
            return Ok(());
        }
        self.leave_loop()?;
        let stream = self.stream()?;
        match watcher {
            Watcher::Nobody => {}
            Watcher::Workerman => self.workerman.watch(stream, crate::standalone::host_closures())?,
            Watcher::Revolt => self.revolt.watch(stream, crate::standalone::pump_closure())?,
            Watcher::React => self.react.watch(stream, crate::standalone::pump_closure())?,
        }
        self.watcher.set(watcher);
        Ok(())
    }

    /// Revolt and ReactPHP run while they watch anything; a worker of Workerman's runs anyway.
    fn leave_loop(&self) -> Outcome {
        match self.watcher.get() {
            Watcher::Nobody | Watcher::Workerman => return Ok(()),
            Watcher::Revolt => self.revolt.unwatch()?,
            Watcher::React => self.react.unwatch()?,
        }
        self.watcher.set(Watcher::Nobody);
        Ok(())
    }

    pub fn leave_loop_when_idle(&self) -> Outcome {
        let is_idle = self.servers.borrow().is_empty() && !self.has_clients() && !crate::bus::is_waited_for();
        if is_idle { self.leave_loop() } else { Ok(()) }
    }

    pub fn watcher(&self) -> Watcher {
        self.watcher.get()
    }

    /// Throws when the loop that would be blocked is the one that tells our events.
    pub fn check_not_inside(&self, call: &str) -> Outcome {
        let inside = match self.watcher.get() {
            Watcher::Nobody => self.workerman.is_running()?.then_some("Workerman"),
            Watcher::Workerman => Some("Workerman"),
            Watcher::Revolt => self.revolt.is_running()?.then_some(self.revolt.name),
            Watcher::React => self.react.is_running()?.then_some(self.react.name),
        };
        match inside {
            Some(name) => Err(exception::logic_exception(&format!("{call}: the loop of {name} runs already, and the clients with it"))),
            None => Ok(()),
        }
    }

    pub fn is_looping(&self) -> bool {
        self.loops.get() > 0
    }

    pub fn is_pumping(&self) -> bool {
        self.pumps.get() > 0
    }

    // ---- telling ----

    /// Tells what waits, one batch per source. Returns the number of callbacks that ran.
    pub fn pump(&self) -> Outcome<usize> {
        self.pumps.set(self.pumps.get() + 1);
        let told = self.tell_all();
        self.pumps.set(self.pumps.get() - 1);
        told
    }

    fn tell_all(&self) -> Outcome<usize> {
        let visits = self.visits.get();
        crate::log::follow_application();
        // SAFETY: PHP's thread.
        unsafe { shim::heartbus_own_time_limit() };
        self.hand_over_log()?;
        if visits != self.visits.get() {
            return Ok(0);
        }
        let mut ran = 0;
        let mut is_quiet = true;
        for server in self.running_servers() {
            ran += server.views.wake()?;
            if visits != self.visits.get() {
                return Ok(ran);
            }
            ran += self.tell_batch(&*server)?;
            if visits != self.visits.get() {
                return Ok(ran);
            }
            ran += usize::from(server.settle(self)?);
            if visits != self.visits.get() {
                return Ok(ran);
            }
            is_quiet &= server.pending() == 0 && !server.may_have_more() && !server.views.has_to_wake();
        }
        let fleet = self.fleet.borrow().clone();
        if let Some(fleet) = fleet {
            ran += self.tell_batch(&*fleet)?;
            if visits != self.visits.get() {
                return Ok(ran);
            }
            is_quiet &= fleet.pending() == 0;
        }
        ran += crate::bus::wake()?;
        if visits != self.visits.get() {
            return Ok(ran);
        }
        if let (true, Some(bell)) = (is_quiet, self.bell.get()) {
            bell.silence();
        }
        Ok(ran)
    }

    /// After the log's settings were applied: messages for PHP's logger wake the loop.
    pub fn watch_log(&self) -> Result<(), Error> {
        let Some(fd) = crate::log::waiting_fd() else { return Ok(()) };
        if self.watched_log.replace(fd.as_raw_fd()) != fd.as_raw_fd() {
            self.bell()?.watch(fd)?;
        }
        Ok(())
    }

    /// What waits for PHP's logger by now, as much as a turn has time for: what it causes itself has the next turn. It may be one
    /// of the user's own, and throw or suspend.
    fn hand_over_log(&self) -> Outcome {
        crate::log::forget_handing_over();
        let waiting = crate::log::waiting().min(BATCH);
        if waiting == 0 {
            return Ok(());
        }
        let (visits, until) = (self.visits.get(), Instant::now() + BATCH_TIME);
        for _ in 0..waiting {
            crate::log::hand_over(|entry| {
                let servers = self.running_servers();
                // Where workers run the callbacks, their logger is meant.
                let left = servers.iter().try_fold(server_log::line_of(entry), |line, server| server.take_log(line, self));
                left.map_or(Ok(()), |line| server_log::tell(&line))
            })?;
            self.check_process()?;
            if visits != self.visits.get() || Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }

    fn tell_batch(&self, source: &dyn Source) -> Outcome<usize> {
        let visits = self.visits.get();
        let until = Instant::now() + BATCH_TIME;
        let mut ran = 0;
        if source.pending() == 0 {
            source.refill(BATCH)?;
        }
        for _ in 0..BATCH {
            match source.pending() {
                0 => break,
                1 => {}
                // If the callback throws or suspends its fiber, the next turn of the loop goes on with the rest.
                _ => self.ring(),
            }
            ran += usize::from(source.tell_next(self)?);
            self.check_process()?;
            if visits != self.visits.get() || Instant::now() >= until {
                break;
            }
        }
        Ok(ran)
    }

    /// Makes the bell ring when the next timer is due.
    pub fn set_alarm(&self) {
        let timers = self.running_servers().into_iter().flat_map(|server| [server.timers.next_due(), server.wakes_at()]).flatten();
        let alarm = self.alarms.borrow().first_key_value().map(|((at, _), _)| *at);
        let next = timers.chain(alarm).min();
        if let Some(bell) = self.bell.get() {
            bell.wake_at(next);
        }
    }

    /// Fires the timers that are due.
    fn tick(&self) -> Outcome<usize> {
        let visits = self.visits.get();
        let now = Instant::now();
        let mut fired = 0;
        for server in self.running_servers() {
            while let Some(callback) = server.timers.take_due(now) {
                callback.call([])?;
                self.check_process()?;
                fired += 1;
                if visits != self.visits.get() {
                    return Ok(fired);
                }
            }
        }
        for server in self.running_servers() {
            fired += usize::from(server.settle(self)?);
            if visits != self.visits.get() {
                return Ok(fired);
            }
        }
        while let Some(alarm) = self.take_alarm(now) {
            crate::php::call(&alarm, [])?;
            self.check_process()?;
            fired += 1;
            if visits != self.visits.get() {
                return Ok(fired);
            }
        }
        self.set_alarm();
        Ok(fired)
    }

    /// A loop of others found the bell readable. `turn` runs in a fiber, so that a callback that suspends itself keeps
    /// nobody waiting: the next visit goes on with what is left. Whoever resumes such a callback waits for its end and for
    /// nothing else, which is why telling stops there: the number of visits has changed.
    pub fn be_visited(&self, turn: &Zval) -> Outcome {
        self.visits.set(self.visits.get() + 1);
        let done = start_fiber(turn, []);
        self.visits.set(self.visits.get() + 1);
        done
    }

    /// What a visit does.
    pub fn turn_once(&self) -> Outcome {
        let visits = self.visits.get();
        self.pump()?;
        if visits == self.visits.get() {
            self.tick()?;
        }
        if visits == self.visits.get() { self.leave_loop_when_idle() } else { Ok(()) }
    }

    /// Calls a closure once, when our own loop turns that long from now.
    pub fn alarm(&self, after: Duration, closure: Zval) -> i64 {
        let number = self.last_alarm.get() + 1;
        self.last_alarm.set(number);
        let at = Instant::now() + after;
        self.alarms.borrow_mut().insert((at, number), closure);
        self.alarm_times.borrow_mut().insert(number, at);
        self.set_alarm();
        number
    }

    pub fn cancel_alarm(&self, number: i64) {
        let at = self.alarm_times.borrow_mut().remove(&number);
        let closure = at.and_then(|at| self.alarms.borrow_mut().remove(&(at, number)));
        drop(closure);
    }

    fn take_alarm(&self, now: Instant) -> Option<Zval> {
        let mut alarms = self.alarms.borrow_mut();
        let first = alarms.first_entry().filter(|entry| entry.key().0 <= now)?;
        self.alarm_times.borrow_mut().remove(&first.key().1);
        Some(first.remove())
    }

    // ---- the extension's own loop ----

    /// Runs everything of this process until `is_done`, an exception, or a stop signal. `begin` goes first: a signal that
    /// comes while it tells the world that something runs is obeyed as any other.
    pub fn run(&self, begin: impl FnOnce() -> Outcome, is_done: &dyn Fn() -> bool) -> Outcome {
        if self.loops.get() == 0 {
            // Ours runs instead; ReactPHP's would start again at the end of the script.
            self.leave_loop()?;
            Signals::came();
            *self.signals.borrow_mut() = Some(Signals::take());
        }
        self.loops.set(self.loops.get() + 1);
        let done = begin().and_then(|()| self.turn(is_done));
        self.loops.set(self.loops.get() - 1);
        if self.loops.get() == 0 {
            self.signals.take();
            self.is_interrupted.set(false);
        }
        done
    }

    fn turn(&self, is_done: &dyn Fn() -> bool) -> Outcome {
        self.adopt_waiting()?;
        loop {
            self.hear_signals()?;
            let ran = self.pump()? + self.tick()?;
            if self.obey_signals() {
                continue;
            }
            if is_done() || self.is_interrupted_and_stopped() {
                return Ok(());
            }
            if ran == 0 {
                self.sleep(None)?;
            }
            self.check_process()?;
        }
    }

    /// Runs the application's own handlers of signals that came: there is no other loop here that would.
    fn hear_signals(&self) -> Outcome {
        if self.is_looping() {
            // SAFETY: no borrow is held: handlers of the user's run here.
            unsafe { shim::heartbus_dispatch_signals() };
            pending_exception()?;
        }
        Ok(())
    }

    /// True when a stop signal came; every server begins to stop then.
    fn obey_signals(&self) -> bool {
        if self.loops.get() == 0 || !Signals::came() {
            return false;
        }
        let is_impatient = self.is_interrupted.replace(true);
        for server in self.running_servers() {
            server.begin_stop(self);
            if is_impatient {
                server.stop_telling();
            }
        }
        true
    }

    fn is_interrupted_and_stopped(&self) -> bool {
        self.is_interrupted.get() && self.servers.borrow().is_empty()
    }

    /// For whoever blocks: goes on telling until `is_done`, the deadline, or the end of a loop that was told to stop.
    pub fn drive(&self, deadline: Option<Instant>, is_done: &mut dyn FnMut() -> bool) -> Outcome {
        self.adopt_waiting()?;
        while !is_done() {
            self.hear_signals()?;
            let ran = self.pump()? + self.tick()?;
            if self.obey_signals() {
                continue;
            }
            if is_done() || self.is_interrupted_and_stopped() || deadline.is_some_and(|at| at <= Instant::now()) {
                return Ok(());
            }
            if ran == 0 {
                self.sleep(deadline)?;
            }
            self.check_process()?;
        }
        Ok(())
    }

    /// One turn for loops of others: tells what waits; with nothing to tell, waits for it for up to `timeout`.
    pub fn poll(&self, timeout: Duration) -> Outcome<usize> {
        self.adopt_waiting()?;
        let deadline = Instant::now() + timeout;
        loop {
            let ran = self.pump()? + self.tick()?;
            if ran > 0 || Instant::now() >= deadline || !self.sleep(Some(deadline))? {
                return Ok(ran);
            }
        }
    }

    /// Sleeps until something may have to be done. False when a signal ended it.
    pub fn sleep(&self, deadline: Option<Instant>) -> Outcome<bool> {
        let nanoseconds = deadline.map_or(-1, |at| {
            let left = at.saturating_duration_since(Instant::now()).as_nanos();
            i64::try_from(left).unwrap_or(i64::MAX)
        });
        let fd = self.bell.get().map_or(-1, Bell::fd);
        // SAFETY: the descriptor is open, or there is none. No borrow is held: handlers of the user's may run.
        let woken = unsafe { shim::heartbus_wait(fd, nanoseconds, self.is_looping()) };
        if woken < 0 {
            // SAFETY: no borrow is held: handlers of the user's run here.
            unsafe { shim::heartbus_run_interrupts() };
            pending_exception()?;
        }
        Ok(woken >= 0)
    }
}
