//! `Heartbus\Bus`: any PHP process of the machine asks a running server. One connection per socket and process, which
//! outlives the requests of a PHP-FPM worker.
//!
//! In a fiber that a loop runs, a call suspends until its answer comes. Elsewhere it blocks, for one round trip to a process
//! of the same machine, and never longer than its timeout.

use crate::arguments;
use crate::asking::Asking;
use crate::bindings::{self, Directory};
use crate::bus_topics;
use crate::calls::DeclareCalls;
use crate::classes::future;
use crate::classes::position;
use crate::classes::waiting::{Suspension, Timer};
use crate::config::{self, Loop};
use crate::declare::Declare;
use crate::exception;
use crate::ini;
use crate::node;
use crate::php::{self, Call, Callable, Native, Outcome, Thrown, bytes, map, text, value};
use crate::polling::{get_event_stream, poll};
use crate::ranges;
use crate::runtime::{Runtime, Source};
use crate::shim;
use crate::statistics;
use crate::topics::{self, MAX_PAGE};
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object_handlers, zend_string};
use ext_php_rs::types::{ZendHashTable, Zval};
use heartbus_core::bus::{self, Reply, Request};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::metrics;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::ptr;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

const NAME: &str = r"Heartbus\Bus";

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

/// Connections that a process keeps. A process that uses more sockets than this connects anew.
const MAX_LINES: usize = 16;

/// Nodes of a page, unless the caller says otherwise.
const PAGE: i64 = 100;

thread_local! {
    /// By what was asked for: a path, or the name of a server.
    static LINES: RefCell<HashMap<String, Rc<LogRecord>>> = RefCell::default();
}

/// A connection to one server.
struct LogRecord {
    bus: RefCell<bus::Bus>,
    /// Fibers that wait for an answer: its number, and the future that resumes them.
    waiting: RefCell<HashMap<u32, Zval>>,
    /// Answers for fibers that are about to go on.
    answers: RefCell<HashMap<u32, Answer>>,
}

type Answer = std::result::Result<Reply, Error>;

pub(crate) struct Bus {
    line: Rc<LogRecord>,
    timeout: Duration,
}

impl Native for Bus {
    fn handlers() -> &'static OnceLock<zend_object_handlers> {
        static HANDLERS: OnceLock<zend_object_handlers> = OnceLock::new();
        &HANDLERS
    }

    fn each_value(&self, _: &mut dyn FnMut(&Zval)) {}
}

pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(NAME)
        .flags(ext_php_rs::flags::ClassFlags::Final)
        .declare(r"static connect(?string $socket = null, float $timeout = 1.0): Heartbus\Bus", connect)
        .declare("private __construct()", construct)
        .declare_calls::<Bus>()
        .declare("sendToMany(array $nodeIds, string $data): int", send_to_many)
        .declare(r"node(string $nodeId): ?PfinalClub\AsyncioHeartbeat\Node\Node", find_node)
        .declare("nodes(array $filter = [], ?int $page = null, int $limit = 100): array", nodes)
        .declare("isOnline(string $nodeId): bool", is_online)
        .declare("setMetadata(string $nodeId, array $metadata): bool", set_metadata)
        .declare("stats(): array", stats)
        .declare("metrics(): string", metrics_text)
        .declare("getSocket(): string", get_socket)
        .declare(r"subscribe(string $filter, callable $callback, ?Heartbus\Position $since = null, ?callable $gap = null): void", subscribe)
        .declare("unsubscribe(string $filter): bool", unsubscribe)
        .declare("static run(): void", run)
        .declare("static poll(float $timeout = 0.0): int", poll)
        .declare("static getEventStream()", get_event_stream)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            php::hold::<Bus>(class);
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

// ---- methods ----

fn construct(_: &mut Call<'_>) -> Outcome {
    Err(exception::error(r"Heartbus\Bus::connect() makes objects of this class"))
}

fn connect(call: &mut Call<'_>) -> Outcome {
    let (mut socket, mut timeout) = (ptr::null_mut::<zend_string>(), 1f64);
    arguments!(call, c"|S!d", socket, timeout)?;
    let timeout = ranges::seconds("The timeout", timeout, 0.001..=3600.0)?;
    let given = (!socket.is_null()).then(|| String::from_utf8_lossy(bytes(socket)).into_owned());
    let line = line(given.or_else(|| ini::setting("socket")), timeout).map_err(|error| exception::raise(&error))?;
    let mut object = Zval::new();
    // SAFETY: the class is registered; its objects hold nothing until the next line.
    unsafe { shim::object_init_ex(&raw mut object, CLASS.load(Ordering::Relaxed)) };
    let Some(bus) = object.object().map(|object| ptr::from_ref(object).cast_mut()) else { return Err(Thrown) };
    // SAFETY: an object of our class.
    unsafe { php::set_held(bus, Rc::new(Bus { line, timeout })) };
    *call.result = object;
    Ok(())
}

/// The connection that this process has, or a new one.
fn line(socket: Option<String>, timeout: Duration) -> std::result::Result<Rc<LogRecord>, Error> {
    let wanted = socket.unwrap_or_else(|| config::DEFAULT_NAME.into());
    let is_path = wanted.starts_with('/');
    if !is_path {
        bus::check_name(&wanted)?;
    }
    let known = LINES.with_borrow_mut(|lines| {
        lines.retain(|_, line| line.bus.try_borrow().is_err() || line.bus.borrow().is_own_process());
        lines.get(&wanted).cloned()
    });
    // A server of that name which is gone may be found elsewhere by now.
    if let Some(line) = known.filter(|line| is_path || line.stands()) {
        return Ok(line);
    }
    let found = if is_path { bus::Bus::connect(Path::new(&wanted), timeout) } else { bus::Bus::find(&wanted, timeout) }?;
    LINES.with_borrow_mut(|lines| {
        // A server has one connection, whatever it is called; one that ended is made again by itself.
        let same = lines.values().find(|line| line.bus.try_borrow().is_ok_and(|bus| bus.path() == found.path())).cloned();
        let line = same
            .unwrap_or_else(|| Rc::new(LogRecord { bus: RefCell::new(found), waiting: RefCell::default(), answers: RefCell::default() }));
        if lines.len() >= MAX_LINES {
            lines.clear();
        }
        lines.insert(wanted, line.clone());
        Ok(line)
    })
}

fn send_to_many(call: &mut Call<'_>) -> Outcome {
    let (mut node_ids, mut data) = (ptr::null_mut::<Zval>(), ptr::null_mut::<zend_string>());
    arguments!(call, c"aS", node_ids, data)?;
    let bus = call.held::<Bus>()?;
    let ids = topics::node_ids(node_ids, || format!("{NAME}::sendToMany(): Argument #1 ($nodeIds)"))?;
    let sent = answered(bus.ask(&Request::SendMany { nodes: topics::texts(&ids), data: bytes(data) })?.and_then(Reply::count))?;
    call.result.set_long(sent as i64);
    Ok(())
}

fn node_of(call: &mut Call<'_>) -> Outcome<Option<bus::NodeInfo>> {
    let mut node_id = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", node_id)?;
    let bus = call.held::<Bus>()?;
    match std::str::from_utf8(bytes(node_id)) {
        Ok(id) => answered(bus.ask(&Request::Node { id })?.and_then(Reply::node)),
        Err(_) => Ok(None),
    }
}

fn find_node(call: &mut Call<'_>) -> Outcome {
    *call.result = match node_of(call)? {
        Some(info) => node_object(&call.held::<Bus>()?, &info)?,
        None => Zval::null(),
    };
    Ok(())
}

fn set_metadata(call: &mut Call<'_>) -> Outcome {
    let (mut node_id, mut metadata) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"Sa", node_id, metadata)?;
    let bus = call.held::<Bus>()?;
    // SAFETY: an argument of this call.
    let members = unsafe { metadata.as_ref() }.and_then(Zval::array).map_or_else(|| Ok("{}".into()), members_of)?;
    let set = match std::str::from_utf8(bytes(node_id)) {
        Ok(node) => match bus.set_members(node, 0, &members)? {
            Err(error) if error.kind == ErrorKind::NotFound => false,
            set => answered(set.map(|()| true))?,
        },
        Err(_) => false,
    };
    call.result.set_bool(set);
    Ok(())
}

/// What is set of it goes over this bus.
fn node_object(bus: &Rc<Bus>, info: &bus::NodeInfo) -> Outcome<Zval> {
    let object = node::create(info)?;
    bindings::bind_found(&object, bus.clone(), info.id.clone(), info.channel_id)?;
    Ok(object)
}

impl Directory for Bus {
    fn set_metadata(&self, node_id: &str, channel_id: u32, members: &str) -> Outcome<std::result::Result<(), Error>> {
        self.set_members(node_id, channel_id, members)
    }
}

fn members_of(array: &ZendHashTable) -> Outcome<String> {
    config::members(php::entries(array).map(|(key, member)| (key, member.dereference())))
}

fn is_online(call: &mut Call<'_>) -> Outcome {
    let is_online = node_of(call)?.is_some();
    call.result.set_bool(is_online);
    Ok(())
}

fn nodes(call: &mut Call<'_>) -> Outcome {
    let (mut filter, mut page, mut limit) = (ptr::null_mut::<Zval>(), ptr::null_mut::<Zval>(), PAGE);
    arguments!(call, c"|azl", filter, page, limit)?;
    let bus = call.held::<Bus>()?;
    // SAFETY: an argument of this call, or null when it was left out.
    let filter = unsafe { filter.as_ref() }.and_then(Zval::array).map_or_else(|| Ok(Filter::default()), read_filter)?;
    // SAFETY: as above.
    let after = match unsafe { page.as_ref() }.map(Zval::dereference).filter(|page| !page.is_null()) {
        None => None,
        Some(page) => match php::weak_long(page)? {
            // All 64 bits are in use: PHP shows some of them as negative numbers.
            Some(page) => Some(page as u64),
            None => {
                let kind = php::type_name(page, false);
                return Err(exception::type_error(&format!(
                    "Heartbus\\Bus::nodes(): Argument #2 ($page) must be of type ?int, {kind} given"
                )));
            }
        },
    };
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(exception::invalid_argument(&format!("A page has 1 to {MAX_PAGE} nodes, not {limit}")));
    }
    let Filter { pattern, ip, metadata } = &filter;
    let (id_pattern, ip, limit) = (pattern.as_deref(), *ip, limit as u32);
    let request = match metadata {
        None => Request::Page { after, limit, id_pattern, ip },
        Some(metadata) => Request::Find { after, limit, id_pattern, ip, metadata },
    };
    let (found, next) = answered(bus.ask(&request)?.and_then(Reply::page))?;
    let nodes = found.iter().map(|info| node_object(&bus, info)).collect::<Outcome<Vec<Zval>>>()?;
    *call.result = map([("nodes", value(nodes)), ("next", next.map_or_else(Zval::null, |next| value(next as i64)))]);
    Ok(())
}

/// Which nodes a page is to have.
#[derive(Default)]
struct Filter {
    /// With `*` and `?`.
    pattern: Option<String>,
    ip: Option<IpAddr>,
    /// Members that the metadata must have, as the text of a JSON object.
    metadata: Option<String>,
}

fn read_filter(given: &ZendHashTable) -> Outcome<Filter> {
    let mut filter = Filter::default();
    for (key, given) in php::entries(given) {
        let (key, given) = (php::key_name(&key), given.dereference());
        let text = given.zend_str().map(|text| std::str::from_utf8(text.as_bytes()));
        match (key.as_str(), text) {
            ("id" | "ip", Some(Err(_))) => return Err(exception::invalid_argument(&format!("The filter '{key}' must be valid UTF-8"))),
            ("id", Some(Ok(text))) => filter.pattern = Some(text.to_owned()),
            ("ip", Some(Ok(text))) => match text.parse() {
                Ok(address) => filter.ip = Some(address),
                Err(_) => return Err(exception::invalid_argument(&format!("The filter 'ip' is no IP address: {text}"))),
            },
            ("id" | "ip", None) => return Err(exception::invalid_argument(&format!("The filter '{key}' must be a string"))),
            ("metadata", _) => match given.array() {
                // No member is wanted: every node has that.
                Some(members) if members.is_empty() => {}
                Some(members) => filter.metadata = Some(members_of(members)?),
                None => return Err(exception::invalid_argument("The filter 'metadata' must be an array")),
            },
            _ => return Err(exception::invalid_argument(&format!("Unknown filter: {key} (there are: id, ip, metadata)"))),
        }
    }
    Ok(filter)
}

fn stats(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let bus = call.held::<Bus>()?;
    let numbers = answered(bus.ask(&Request::Stats)?.and_then(Reply::stats))?;
    let welcome = answered(bus.line.bus.borrow_mut().welcome().cloned())?;
    let about = map([
        ("name", text(&welcome.name)),
        ("host", text(welcome.listen.ip().to_string())),
        ("port", value(i64::from(welcome.listen.port()))),
        ("pid", value(i64::from(welcome.pid))),
        ("version", text(&welcome.package)),
        ("socket", text(bus.line.bus.borrow().path().to_string_lossy().as_bytes())),
    ]);
    let stats = &numbers.stats;
    *call.result = map([
        ("server", about),
        ("nodes", statistics::nodes(stats)),
        ("channels", statistics::channels(stats, 0)),
        ("connections", statistics::connections(stats, stats.max_connections as i64)),
        ("engine", statistics::engine(stats, 0)),
    ]);
    Ok(())
}

/// The engine's, as text for Prometheus. What PHP code counts is in each PHP process's own.
fn metrics_text(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let bus = call.held::<Bus>()?;
    let numbers = answered(bus.ask(&Request::Stats)?.and_then(Reply::stats))?;
    *call.result = text(metrics::export(&numbers.stats, &numbers.timings));
    Ok(())
}

fn get_socket(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let bus = call.held::<Bus>()?;
    *call.result = text(bus.line.bus.borrow().path().to_string_lossy().as_bytes());
    Ok(())
}

fn subscribe(call: &mut Call<'_>) -> Outcome {
    let (mut filter, mut callback) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    let (mut since, mut gap) = (ptr::null_mut::<Zval>(), ptr::null_mut::<Zval>());
    arguments!(call, c"Sz|zz", filter, callback, since, gap)?;
    let bus = call.held::<Bus>()?;
    let callback = Rc::new(Callable::new(callback, 2)?);
    // SAFETY: an argument of this call, or null when it was left out.
    let since = position::since(r"Heartbus\Bus::subscribe", unsafe { since.as_ref() })?;
    // SAFETY: an argument of this call, or null when it was left out.
    let is_given = unsafe { gap.as_ref() }.is_some_and(|gap| !gap.dereference().is_null());
    let gap = if is_given { Some(Rc::new(Callable::new(gap, 4)?)) } else { None };
    let path = bus.line.bus.borrow().path().to_owned();
    bus_topics::subscribe(&path, bus.timeout, topics::topic_name(filter)?, callback, since, gap)
}

fn unsubscribe(call: &mut Call<'_>) -> Outcome {
    let mut filter = ptr::null_mut::<zend_string>();
    arguments!(call, c"S", filter)?;
    let bus = call.held::<Bus>()?;
    let path = bus.line.bus.borrow().path().to_owned();
    let was_there = bus_topics::unsubscribe(&path, std::str::from_utf8(bytes(filter)).unwrap_or_default())?;
    call.result.set_bool(was_there);
    Ok(())
}

/// Returns when nothing is subscribed to any more, or a signal came.
fn run(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let runtime = Runtime::current();
    runtime.check_not_inside("Bus::run()")?;
    runtime.run(|| Ok(()), &|| !runtime.has_feeds() && !runtime.has_clients())
}

fn answered<T>(answer: std::result::Result<T, Error>) -> Outcome<T> {
    answer.map_err(|error| exception::raise(&error))
}

// ---- behaviour ----

impl Asking for Bus {
    const NAME: &'static str = NAME;
    const MAY_BE_AWAY: bool = false;

    fn answer(&self, request: &Request<'_>) -> Outcome<Answer> {
        self.ask(request)
    }

    /// Refused is what is not there, or has no room. Anything else that went wrong is thrown.
    fn try_to(&self, request: &Request<'_>) -> Outcome<Option<Reply>> {
        match self.ask(request)? {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Limit) => Ok(None),
            Err(error) => Err(exception::raise(&error)),
        }
    }

    fn count(&self, request: &Request<'_>) -> Outcome<usize> {
        answered(self.ask(request)?.and_then(Reply::count))
    }
}

impl Bus {
    /// Sets members of a node's metadata: of this registration, or of whichever there is.
    fn set_members(&self, node: &str, channel: u32, members: &str) -> Outcome<std::result::Result<(), Error>> {
        Ok(self.ask(&Request::SetMetadata { node, channel, members })?.and_then(Reply::done))
    }

    fn ask(&self, request: &Request<'_>) -> Outcome<Answer> {
        let number = {
            let mut bus = self.line.bus.borrow_mut();
            bus.set_timeout(self.timeout);
            match bus.begin(request) {
                Ok(number) => number,
                Err(error) => {
                    self.line.let_others_look();
                    return Ok(Err(error));
                }
            }
        };
        match Suspension::in_fiber()? {
            Some(suspension) => self.line.suspend_until(number, &suspension, self.timeout),
            None => {
                let answer = self.line.bus.borrow_mut().wait(number, self.timeout);
                self.line.let_others_look();
                Ok(answer)
            }
        }
    }
}

impl LogRecord {
    /// Whether the connection is still there, as far as one can see.
    fn stands(&self) -> bool {
        let Ok(mut bus) = self.bus.try_borrow_mut() else { return true };
        // Its end has arrived, maybe; what else has is for those who wait.
        let _ = bus.receive();
        let stands = bus.as_fd().is_some();
        drop(bus);
        self.let_others_look();
        stands
    }

    fn suspend_until(&self, number: u32, suspension: &Suspension, timeout: Duration) -> Outcome<Answer> {
        let runtime = Runtime::current();
        if !runtime.is_looping() {
            runtime.join_running_loop(Loop::Auto)?;
        }
        let waiter = future::create()?;
        let future = waiter.object().map(|object| ptr::from_ref(object).cast_mut()).ok_or(Thrown)?;
        let timer = Timer::start(timeout.as_secs_f64(), future::expiry(future))?;
        future::resumes(future, suspension);
        self.waiting.borrow_mut().insert(number, waiter.shallow_clone());
        self.be_heard(&runtime);
        self.let_others_look();
        let mut suspended = Ok(());
        while suspended.is_ok() && !future::done(future) {
            // Others may resume a fiber as well.
            suspended = suspension.suspend();
        }
        let still_waiting = self.waiting.borrow_mut().remove(&number);
        drop(still_waiting);
        if self.waiting.borrow().is_empty() {
            self.rest(&runtime);
            // While an exception is on its way no PHP may run: the loop's next visit sees that nobody waits.
            if suspended.is_ok() { runtime.leave_loop_when_idle()? } else { runtime.wake_loop() }
        }
        if let Err(Thrown) = suspended {
            // Thrown into, or destroyed. A timer that is left fires for nothing.
            future::abandon(future);
            self.answers.borrow_mut().remove(&number);
            self.bus.borrow_mut().forget(number);
            return Err(Thrown);
        }
        if let Some(timer) = timer {
            timer.cancel()?;
        }
        let answer = self.answers.borrow_mut().remove(&number);
        Ok(answer.unwrap_or_else(|| {
            self.bus.borrow_mut().forget(number);
            let within = timeout.as_millis();
            Err(Error::new(ErrorKind::Timeout, format!("The engine did not answer within {within} ms")))
        }))
    }

    /// What was done on this connection may have taken in answers, or ended it: for these the descriptor does not tell again.
    fn let_others_look(&self) {
        if !self.waiting.borrow().is_empty() {
            Runtime::current().wake_loop();
        }
    }

    /// Lets the loop hear when an answer comes. The connection may be another than before.
    fn be_heard(&self, runtime: &Runtime) {
        if let Some(fd) = self.bus.borrow().as_fd() {
            runtime.unwatch(fd);
            if let Err(error) = runtime.watch(fd) {
                config::settle_log();
                tracing::warn!(%error, "Answers are seen late");
            }
        }
    }

    fn rest(&self, runtime: &Runtime) {
        if let Some(fd) = self.bus.borrow().as_fd() {
            runtime.unwatch(fd);
        }
    }

    /// Resumes those whose answers have come, or cannot come any more.
    fn wake(&self) -> Outcome<usize> {
        let numbers: Vec<u32> = {
            let Ok(mut bus) = self.bus.try_borrow_mut() else { return Ok(0) };
            // What went wrong is in the answers.
            let _ = bus.receive();
            let mut answers = self.answers.borrow_mut();
            let waiting = self.waiting.borrow();
            let answered = waiting.keys().filter_map(|number| bus.take(*number).map(|answer| (*number, answer)));
            answered
                .map(|(number, answer)| {
                    answers.insert(number, answer);
                    number
                })
                .collect()
        };
        for number in &numbers {
            let waiter = self.waiting.borrow_mut().remove(number);
            if let Some(future) = waiter.as_ref().and_then(Zval::object) {
                future::complete(ptr::from_ref(future).cast_mut(), Zval::null())?;
            }
        }
        Ok(numbers.len())
    }
}

/// Those who wait for answers, as the loop of this process serves them.
pub(crate) struct Answers;

impl Source for Answers {
    fn wake(&self) -> Outcome<usize> {
        let lines: Vec<_> = LINES.with_borrow(|lines| lines.values().filter(|line| !line.waiting.borrow().is_empty()).cloned().collect());
        let mut woken = 0;
        for line in lines {
            woken += line.wake()?;
        }
        Ok(woken)
    }

    fn is_idle(&self) -> bool {
        LINES.with_borrow(|lines| lines.values().all(|line| line.waiting.borrow().is_empty()))
    }

    fn shut_down(&self) {
        end_request();
    }
}

/// The end of a request: nobody waits any more. The connections stay, for the next one.
fn end_request() {
    let waiting: Vec<_> = LINES.with_borrow(|lines| {
        lines
            .values()
            .map(|line| {
                let waiting = line.waiting.take();
                line.answers.take();
                if let Ok(mut bus) = line.bus.try_borrow_mut() {
                    waiting.keys().for_each(|number| bus.forget(*number));
                }
                waiting
            })
            .collect()
    });
    drop(waiting);
}
