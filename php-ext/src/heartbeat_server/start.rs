//! How a server starts: in this process, or in processes that Workerman runs for it, alone or beside others.

use super::Kind::Start;
use super::other_process::generation;
use super::{CLASS, Role, Server, State};
use crate::arguments;
use crate::backend::Backend;
use crate::classes::node_manager;
use crate::config::{self, Loop};
use crate::exception;
use crate::identity::Identity;
use crate::php::{self, Call, Outcome, Thrown, bytes, invoke, object};
use crate::ranges::{self, LONGEST, SHORTEST};
use crate::runtime::{Runtime, Watcher};
use crate::shim;
use crate::workerman::{ServerClosures, WorkerClosures, Workerman};
use ext_php_rs::ffi::{zend_object, zend_string};
use ext_php_rs::types::Zval;
use heartbus_core::bus;
use heartbus_core::descriptor::raise_limit;
use heartbus_core::engine::Engine;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::EventMask;
use heartbus_core::hub::dispatch::DispatchLimits;
use heartbus_core::inbox::Inbox;
use heartbus_core::settings::{BusConfig, InboxPolicy, ServerConfig, YEAR};
use std::ffi::CStr;
use std::path::PathBuf;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

// ---- methods ----

pub(crate) fn start(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let (server, this) = (call.held::<Server>()?, call.this());
    check_cli("HeartbeatServer::start()")?;
    server.check_process()?;
    server.check_not_elsewhere("start()")?;
    let runtime = Runtime::current();
    let event_loop = server.config.event_loop;
    if runtime.is_looping() || event_loop == Loop::Manual || event_loop != Loop::Native && runtime.join_running_loop(event_loop)? {
        return server.launch(&runtime, this);
    }
    if matches!(event_loop, Loop::Revolt | Loop::React) {
        runtime.join_loop_to_come(event_loop)?;
        return server.launch(&runtime, this);
    }
    if event_loop != Loop::Native && Workerman::exists(true)? {
        server.check_alone(&runtime)?;
        server.make_workers(&runtime, this)?;
        return runtime.workerman.run_all(server.method(this, "checkstart"));
    }
    if event_loop == Loop::Workerman {
        return Err(needs_workerman("'loop' => 'workerman'"));
    }
    runtime.run(|| server.launch(&runtime, this), &|| server.state.get() == State::Idle)
}

/// Makes the workers that `Worker::runAll()` will start, with those of others.
pub(crate) fn prepare(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let (server, this) = (call.held::<Server>()?, call.this());
    check_cli("HeartbeatServer::prepare()")?;
    server.check_process()?;
    server.check_not_elsewhere("prepare()")?;
    let runtime = Runtime::current();
    if server.state.get() != State::Idle || runtime.is_looping() || runtime.workerman.is_running()? {
        return Err(exception::logic_exception(
            "HeartbeatServer::prepare() makes workers for Worker::runAll(), which runs already: inside of a worker, start() is enough",
        ));
    }
    if !matches!(server.config.event_loop, Loop::Auto | Loop::Workerman) {
        return Err(exception::logic_exception("HeartbeatServer::prepare() makes workers of Workerman: 'loop' asks for another loop"));
    }
    if !Workerman::exists(true)? {
        return Err(needs_workerman("HeartbeatServer::prepare()"));
    }
    server.make_workers(&runtime, this)
}

fn needs_workerman(what: &str) -> Thrown {
    exception::fail(ErrorKind::Config, format!(r"{what} needs Workerman: there is no class Workerman\Worker"))
}

/// A server of this class that nobody has callbacks for, until a signal stops it.
pub(crate) fn run_alone(arguments: [Zval; 3]) -> Outcome {
    check_cli(r"Heartbus\Host::run()")?;
    let mut server = Zval::new();
    // SAFETY: the class is registered and can be instantiated.
    unsafe { shim::object_init_ex(&raw mut server, CLASS.load(Ordering::Relaxed)) };
    invoke(&server, c"__construct", arguments)?;
    let this = server.object().map_or(ptr::null_mut(), |object| ptr::from_ref(object).cast_mut());
    // SAFETY: an object of our class, and constructed.
    let Some(server) = (unsafe { php::held::<Server>(this) }) else { return Err(Thrown) };
    let runtime = Runtime::current();
    runtime.check_not_inside(r"Heartbus\Host::run()")?;
    runtime.run(|| server.launch(&runtime, this), &|| server.state.get() == State::Idle)
}

fn check_cli(call: &str) -> Outcome {
    // SAFETY: asks PHP for its name of itself.
    if unsafe { shim::heartbus_is_cli() } {
        return Ok(());
    }
    // SAFETY: a text that lives as long as PHP.
    let sapi = unsafe { CStr::from_ptr(shim::heartbus_sapi()) }.to_string_lossy();
    Err(exception::fail(ErrorKind::Config, format!("{call} needs the PHP CLI; this is {sapi}")))
}

/// Throws when the server could not start now as the user of these names; else says whether a reload replaces its process.
/// It runs in Workerman's master: nothing may be left behind there, but the choice of the bus socket, which all its processes
/// share.
pub(crate) fn check_start(call: &mut Call<'_>) -> Outcome {
    let (mut user, mut group) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<zend_string>());
    arguments!(call, c"|SS", user, group)?;
    let server = call.held::<Server>()?;
    let name = |name: *mut zend_string| if name.is_null() { String::new() } else { String::from_utf8_lossy(bytes(name)).into_owned() };
    let check = || {
        Identity::named(&name(user), &name(group))?.act_as(|| {
            server.config.log.apply()?;
            config::tell_unknown(&server.config.unknown);
            // The address first: who is up already has both, and one reason is enough.
            Engine::check(&server.config.engine)?;
            let bus = server.choose_bus_path(server.runs_workers())?.map(|path| server.bus_config(path));
            Engine::check(&ServerConfig { bus, ..server.config.engine.clone() })
        })
    };
    check().map_err(|error| exception::raise(&error))?;
    // Nothing that a reload could replace runs beside the engine.
    call.result.set_bool(!server.runs_workers() && server.has_code());
    Ok(())
}

/// In the one worker of Workerman's that has the engine, and everything where there are no others.
pub(crate) fn start_engine(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let (server, this) = (call.held::<Server>()?, call.this());
    let runtime = Runtime::current();
    runtime.be_watched_by(Watcher::Workerman)?;
    if server.runs_workers() { server.launch_engine(&runtime, this) } else { server.launch(&runtime, this) }
}

/// In a worker of Workerman's that runs callbacks. `number`: which one of them, the same for whoever replaces it.
pub(crate) fn start_worker(call: &mut Call<'_>) -> Outcome {
    let mut number = 0i64;
    arguments!(call, c"l", number)?;
    let (server, this) = (call.held::<Server>()?, call.this());
    let runtime = Runtime::current();
    runtime.be_watched_by(Watcher::Workerman)?;
    server.worker_id.set(number);
    server.serve_here(Role::Worker);
    server.state.set(State::Away);
    runtime.add_server(server.clone(), object(this));
    server.look_for_engine(&runtime)
}

// ---- behaviour ----

impl Server {
    /// Starts the engine, unless it runs already: `start()` after an exception goes on where the loop left off.
    fn launch(self: &Rc<Self>, runtime: &Runtime, this: *mut zend_object) -> Outcome {
        if self.state.get() != State::Idle {
            return Ok(());
        }
        let begin = || {
            if self.config.host.php_workers.is_some_and(|workers| workers > 1) {
                return Err(Error::new(ErrorKind::Config, "'php_workers' => 2 or more needs Workerman, which runs the workers"));
            }
            self.identity()?.check_is_ours()?;
            raise_limit();
            self.config.log.apply()?;
            config::tell_unknown(&self.config.unknown);
            runtime.watch_log()?;
            let inbox = Inbox::new(self.config.inbox)?;
            inbox.subscribe(self.subscriptions());
            runtime.watch(inbox.as_fd())?;
            let started = self.open_engine(true, |config| Engine::start(config, inbox.clone()));
            if started.is_err() {
                runtime.unwatch(inbox.as_fd());
            }
            self.engine.replace(Some(Rc::new(Backend::Here(Box::new(started?)))));
            self.inbox.replace(Some(inbox));
            Ok(())
        };
        begin().map_err(|error| exception::raise(&error))?;
        self.serve_here(Role::Whole);
        runtime.add_server(self.clone(), object(this));
        self.state.set(State::Running);
        self.run_timers(runtime);
        self.hear_all()?;
        self.call(Start, [object(this)]).map(drop)
    }

    /// Starts the engine for workers next door.
    fn launch_engine(self: &Rc<Self>, runtime: &Runtime, this: *mut zend_object) -> Outcome {
        // What the workers subscribe to when they start is not known before. What happens until then waits for them.
        let expected = if self.has(Start) { EventMask::ALL | self.subscriptions() } else { self.subscriptions() };
        let defaults = DispatchLimits::default();
        let limits = DispatchLimits {
            events: self.config.inbox.events,
            bytes: self.config.inbox.bytes,
            drop_oldest: self.config.host.inbox_policy == InboxPolicy::DropOldest,
            ..defaults
        };
        let begin = || {
            raise_limit();
            self.config.log.apply()?;
            config::tell_unknown(&self.config.unknown);
            runtime.watch_log()?;
            // Where the workers will look was said before they were forked.
            let engine = self.open_engine(false, |config| Engine::start_for_workers(config, limits, expected))?;
            self.engine.replace(Some(Rc::new(Backend::Here(Box::new(engine)))));
            Ok(())
        };
        begin().map_err(|error| exception::raise(&error))?;
        self.serve_here(Role::Engine);
        runtime.add_server(self.clone(), object(this));
        self.state.set(State::Running);
        Ok(())
    }

    /// From now on this process has a part of the server.
    fn serve_here(&self, role: Role) {
        self.role.set(role);
        self.serves_in.set(Some(generation()));
    }

    /// `may_move`: to another bus socket, when a server that was as quick as this one has taken the one that was chosen.
    fn open_engine<T>(&self, may_move: bool, start: impl Fn(&ServerConfig) -> Result<T, Error>) -> Result<T, Error> {
        let mut config = self.config.engine.clone();
        if let Some(timeout) = self.objects.made_manager().map(node_manager::heartbeat_timeout) {
            config.heartbeat_timeout = ranges::timeout("setHeartbeatTimeout(): timeout", timeout, SHORTEST..=LONGEST)?.min(YEAR);
        }
        loop {
            config.bus = self.choose_bus_path(!may_move)?.map(|path| self.bus_config(path));
            let started = start(&config);
            let is_lost = may_move && config.bus.as_ref().is_some_and(|bus| self.may_choose_bus_path() && bus::is_taken(&bus.path));
            if started.is_ok() {
                self.warn_of_namesakes();
            }
            if started.is_ok() || !is_lost || self.bus_path.take().is_none() {
                return started;
            }
        }
    }

    fn bus_config(&self, path: PathBuf) -> BusConfig {
        BusConfig { path, group: self.config.bus_group.clone(), name: self.name().into() }
    }

    fn identity(&self) -> Result<Identity, Error> {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        Identity::named(&name(&self.config.host.user), &name(&self.config.host.group))
    }

    fn method(&self, this: *mut zend_object, name: &str) -> Zval {
        // SAFETY: the class is registered.
        php::method_closure(unsafe { &*CLASS.load(Ordering::Relaxed) }, this, name)
    }

    /// Makes Workerman's workers: for the engine, and for the callbacks. Once.
    fn make_workers(self: &Rc<Self>, runtime: &Runtime, this: *mut zend_object) -> Outcome {
        if self.prepared_in.get().is_some() {
            return Ok(());
        }
        let identity = self.identity().map_err(|error| exception::raise(&error))?;
        self.prepared_in.set(Some(generation()));
        let php_workers = self.wanted_workers();
        self.php_workers.set(php_workers);
        let method = |name| self.method(this, name);
        let closures = ServerClosures { check: method("checkstart"), start: method("startengine"), stop: method("stophere") };
        runtime.workerman.add_server(self.name(), &self.address(), &identity, closures)?;
        if php_workers > 0 { self.add_workers(runtime, this, php_workers, &identity) } else { Ok(()) }
    }

    /// Callbacks may be set after the workers were made: these then get theirs.
    pub(super) fn make_workers_for_callbacks(self: &Rc<Self>, this: *mut zend_object) -> Outcome {
        let wanted = self.wanted_workers();
        if self.prepared_in.get() != Some(generation()) || self.runs_workers() || wanted == 0 {
            return Ok(());
        }
        self.php_workers.set(wanted);
        let identity = self.identity().map_err(|error| exception::raise(&error))?;
        self.add_workers(&Runtime::current(), this, wanted, &identity)
    }

    fn add_workers(&self, runtime: &Runtime, this: *mut zend_object, count: i64, identity: &Identity) -> Outcome {
        let method = |name| self.method(this, name);
        let closures = WorkerClosures { start: method("startworker"), stop: method("stophere"), is_busy: method("isbusy") };
        runtime.workerman.add_workers(&format!("{}-php", self.name()), count, identity, closures)
    }

    /// Processes for the callbacks; 0 where these are to run beside the engine, or there are none.
    fn wanted_workers(&self) -> i64 {
        if self.has_code() { self.config.host.php_workers.unwrap_or(1) } else { 0 }
    }

    /// Workerman runs processes for the callbacks; else these run beside the engine, or there are none.
    fn runs_workers(&self) -> bool {
        self.php_workers.get() > 0
    }

    /// Throws when other servers of this script were made and wait to be started: `start()` runs Workerman and does not return,
    /// so they never would be. Other commands than those that start do not concern them.
    fn check_alone(&self, runtime: &Runtime) -> Outcome {
        if self.prepared_in.get().is_some() || !runtime.workerman.is_starting()? {
            return Ok(());
        }
        let forgotten = self.siblings().into_iter().find(|other| other.prepared_in.get().is_none() && other.state.get() == State::Idle);
        let Some(other) = forgotten else { return Ok(()) };
        Err(exception::logic_exception(&format!(
            "HeartbeatServer::start() runs Workerman and does not return: the server at {} would never be started. Call prepare() of \
             each server, then Workerman\\Worker::runAll()",
            other.address()
        )))
    }

    /// The name of Workerman's workers, and of the bus socket.
    pub(super) fn name(&self) -> &str {
        self.config.host.name.as_deref().unwrap_or(config::DEFAULT_NAME)
    }
}
