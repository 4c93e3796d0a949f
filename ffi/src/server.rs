//! A server for C.

use crate::arguments::{bytes, invalid, out, text};
use crate::attached::OfNodes;
use crate::event::{heartbus_event, mask, of_server};
use crate::handle::{self, Object, Place, Polled};
use crate::process::make_room;
use crate::queue::{Queue, Teller};
use crate::status::{guard, heartbus_status};
use bumpalo::Bump;
use heartbus_core::engine::Engine;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{Event, EventMask};
use heartbus_core::inbox::Inbox;
use std::collections::VecDeque;
use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A running server.
pub(crate) struct heartbus_server {
    _opaque: [u8; 0],
}

pub(crate) struct Server {
    pub(crate) engine: Engine,
    queue: Arc<Queue<Arc<Inbox>>>,
    pub(crate) of_nodes: OfNodes,
    /// Held while stopping, so that a second caller returns only when the server has stopped.
    stopping: Mutex<()>,
}

impl Object for Server {
    type Opaque = heartbus_server;
    const NAME: &'static str = "server";

    fn polled(&self) -> Option<Arc<dyn Polled>> {
        Some(self.queue.clone())
    }
}

impl Teller<Event> for Server {
    fn tell(&self, items: &VecDeque<Event>, texts: &Bump, events: &mut [MaybeUninit<heartbus_event>]) {
        let mut attached = self.of_nodes.lock();
        for (target, item) in events.iter_mut().zip(items) {
            target.write(heartbus_event { user_data: attached.of(item).0, ..of_server(item, texts) });
        }
    }
}

impl Server {
    /// # Errors
    /// `Closed` once it is stopped: what is asked of it then has no answer any more.
    pub(crate) fn running(&self) -> Result<&Engine, Error> {
        if self.engine.is_stopped() {
            return Err(Error::new(ErrorKind::Closed, "The server is stopped"));
        }
        Ok(&self.engine)
    }

    /// # Errors
    /// `InvalidArgument` when it does not: then nobody would learn when a node is gone, and what was attached to it is free.
    pub(crate) fn check_tells_departures(&self) -> Result<(), Error> {
        if self.queue.source().wants(EventMask::LEFT) {
            return Ok(());
        }
        Err(invalid("user_data of nodes is given back by the events of HEARTBUS_ON_LEFT, which this server does not tell"))
    }

    fn subscribe(&self, kinds: EventMask) {
        let mut attached = self.of_nodes.lock();
        if !self.queue.source().wants(EventMask::LEFT) {
            attached.forget_departed();
        }
        self.queue.source().subscribe(kinds);
    }

    fn stop(&self) {
        let _stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        self.engine.stop();
        self.queue.end();
    }
}

pub(crate) fn no_such_node() -> Error {
    Error::new(ErrorKind::NotFound, "No such node is online")
}

pub(crate) fn no_such_channel() -> Error {
    Error::new(ErrorKind::NotFound, "The channel is not one of the node's")
}

/// What no duration holds is out of range, too.
pub(crate) fn timeout_of(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Starts a server. `config` is JSON text (see the first page); NULL with length 0 means all defaults. `events` is a sum of
/// heartbus_events: what the server tells. Free the server with heartbus_server_free.
///
/// HEARTBUS_CONFIG when a setting is wrong, HEARTBUS_IO when the address cannot be listened on, HEARTBUS_INVALID_ARGUMENT when
/// `events` holds a bit that is no event.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_start(
    config: *const c_char,
    config_len: usize,
    events: u32,
    server: *mut *mut heartbus_server,
) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's text and the place for the result, as the first page asks.
        let (config, server) = unsafe { (bytes("config", config, config_len)?, out("server", server)?) };
        let mask = mask(events).ok_or_else(|| invalid("events holds a bit that is no event"))?;
        let (config, limits) = crate::config::server(config)?;
        make_room();
        let place = Place::new();
        let _within = place.within();
        let inbox = Inbox::new(limits)?;
        inbox.subscribe(mask);
        let queue = Queue::new(inbox.clone())?;
        let engine = Engine::start(&config, inbox)?;
        server.write(place.open(Arc::new(Server { engine, queue, of_nodes: OfNodes::default(), stopping: Mutex::default() })));
        Ok(())
    })
}

/// Says whether a server could start with this configuration now. Starts no thread and leaves nothing behind, so a process that
/// will fork may ask.
///
/// As heartbus_server_start.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_check(config: *const c_char, config_len: usize) -> heartbus_status {
    guard(|| {
        // SAFETY: the caller's text, as the first page asks.
        let (config, limits) = crate::config::server(unsafe { bytes("config", config, config_len) }?)?;
        Inbox::<Event>::new(limits)?;
        Engine::check(&config)
    })
}

/// Tells every client that the server is shutting down, writes what waits, closes all connections and ends the threads,
/// within 1.5 s. Poll until HEARTBUS_CLOSED to learn what happened until then. Calling it again is harmless.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_stop(server: *mut heartbus_server) -> heartbus_status {
    guard(|| {
        handle::get::<Server>(server)?.stop();
        Ok(())
    })
}

/// Stops the server if it still runs, and ends its handle; events that were not taken are dropped. A poll of another thread ends with
/// HEARTBUS_CLOSED at once. What events of this thread's last poll point to is gone; those of another thread's live on until that
/// thread polls again or ends. To lose no event: heartbus_server_stop, join the thread that polls until HEARTBUS_CLOSED, free. The
/// descriptor of heartbus_server_fd is closed, and its number soon another's: watch it no longer. NULL is fine.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_free(server: *mut heartbus_server) -> heartbus_status {
    guard(|| {
        if !server.is_null() {
            handle::close::<Server>(server)?.stop();
        }
        Ok(())
    })
}

/// The port that the server listens on: the real one, where the configuration said 0.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_port(server: *const heartbus_server, port: *mut u16) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the place for the result, as the first page asks.
        unsafe { out("port", port) }?.write(object.engine.local_addr().port());
        Ok(())
    })
}

/// A descriptor that is readable while events wait, and for good once the server has stopped. For poll, epoll, select or
/// any event loop: wait until it is readable, then call heartbus_server_poll. Never read from it, write to it or close it. Where
/// it is watched edge-triggered (EPOLLET), poll until `count` is 0: it does not become readable again while events wait.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_fd(server: *const heartbus_server, fd: *mut c_int) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the place for the result, as the first page asks.
        unsafe { out("fd", fd) }?.write(object.queue.fd());
        Ok(())
    })
}

/// Replaces what the server tells: `events` is a sum of heartbus_events. What waits already is still told.
///
/// HEARTBUS_INVALID_ARGUMENT when `events` holds a bit that is no event.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_subscribe(server: *mut heartbus_server, events: u32) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        let mask = mask(events).ok_or_else(|| invalid("events holds a bit that is no event"))?;
        object.running()?;
        object.subscribe(mask);
        Ok(())
    })
}

/// Lets the server tell what is published from now on to the topics that a filter matches, as HEARTBUS_EVENT_MESSAGE: each publication once,
/// however many filters match it, in the order of its topic. A server must tell HEARTBUS_ON_MESSAGE for it. While the program takes no
/// events, nodes that publish there are not read, and other publications to these topics are refused at twice the bound of its inbox. A
/// filter that is there already stays.
///
/// HEARTBUS_INVALID_ARGUMENT when it is no filter, HEARTBUS_LIMIT when there are too many topics.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_subscribe_topics(
    server: *mut heartbus_server,
    filter: *const c_char,
    filter_len: usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the caller's text, as the first page asks.
        object.running()?.subscribe(unsafe { text("filter", filter, filter_len) }?)
    })
}

/// Ends what heartbus_server_subscribe_topics has begun. What waits already is still told.
///
/// HEARTBUS_NOT_FOUND when there is no such filter.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_unsubscribe_topics(
    server: *mut heartbus_server,
    filter: *const c_char,
    filter_len: usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get::<Server>(server)?;
        // SAFETY: the caller's text, as the first page asks.
        let was_there = object.running()?.unsubscribe(unsafe { text("filter", filter, filter_len) }?)?;
        if was_there { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, "There is no such subscription")) }
    })
}

/// Takes up to `capacity` events into the caller's array and says how many in `count`. Waits for the first one for
/// `timeout_ms` milliseconds: 0 does not wait, -1 (or less) waits without end. `count` is 0 when the time is over, or when a
/// signal arrived while waiting, or after heartbus_wake. What the events point to is valid until the next poll of this server, or
/// until this thread frees it.
///
/// HEARTBUS_CLOSED when the server has stopped and every event was taken, or when another thread has freed it,
/// HEARTBUS_INVALID_ARGUMENT when `capacity` is 0 or another thread is polling.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_server_poll(
    server: *mut heartbus_server,
    events: *mut heartbus_event,
    capacity: usize,
    timeout_ms: i32,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        let object = handle::get_to_poll::<Server>(server)?;
        // SAFETY: the caller's array and the place for the number, as the first page asks.
        unsafe { object.queue.poll_into(&**object, events, capacity, timeout_ms, count) }
    })
}
