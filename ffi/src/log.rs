//! The engine's log messages for C: queues that are polled like events. There may be several, each with a level of its own, of all
//! handles of the process or of one.

use crate::arguments::{invalid, out};
use crate::code::name_in;
use crate::event::{heartbus_event, heartbus_event_type, keep};
use crate::handle::{self, Object, Place, Polled};
use crate::process::PerProcess;
use crate::queue::{Queue, Source, Teller};
use crate::status::{guard, heartbus_status};
use bumpalo::Bump;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::log::{self, LogQueue, Record, records};
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::UNIX_EPOCH;
use tracing::level_filters::LevelFilter;
use tracing::span::{self, Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};

/// Messages that may wait for the program; beyond, the oldest are dropped, which the next record says.
const MAX_WAITING: usize = 1000;

/// Open logs of a process: each message is looked at for each of them.
const MAX_OPEN: usize = 64;

/// An open log.
pub(crate) struct heartbus_log {
    _opaque: [u8; 0],
}

/// How important a log message is; the `code` of HEARTBUS_EVENT_LOG.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum heartbus_log_level {
    HEARTBUS_LOG_DEBUG = 1,
    HEARTBUS_LOG_INFO = 2,
    HEARTBUS_LOG_WARNING = 3,
    HEARTBUS_LOG_ERROR = 4,
}
use heartbus_log_level::*;

/// The name of a heartbus_log_level, as heartbus_reason_name: "warning".
#[unsafe(no_mangle)]
pub(crate) extern "C" fn heartbus_log_level_name(level: i32) -> *const c_char {
    const NAMES: &[(i32, &CStr)] = &[
        (HEARTBUS_LOG_DEBUG as i32, c"debug"),
        (HEARTBUS_LOG_INFO as i32, c"info"),
        (HEARTBUS_LOG_WARNING as i32, c"warning"),
        (HEARTBUS_LOG_ERROR as i32, c"error"),
    ];
    name_in(NAMES, level)
}

struct Log {
    queue: Arc<Queue<LogQueue>>,
    filter: LevelFilter,
    /// Messages of this origin, or of all.
    of: Option<u64>,
}

impl Object for Log {
    type Opaque = heartbus_log;
    const NAME: &'static str = "log";

    fn polled(&self) -> Option<Arc<dyn Polled>> {
        Some(self.queue.clone())
    }
}

impl Log {
    /// Without an origin it concerns the whole process, as how many messages were left out does.
    fn wants(&self, level: Level, origin: u64) -> bool {
        level <= self.filter && self.of.is_none_or(|of| of == origin || origin == 0)
    }
}

impl Teller<Record> for Log {
    fn tell(&self, items: &VecDeque<Record>, texts: &Bump, events: &mut [MaybeUninit<heartbus_event>]) {
        for (target, record) in events.iter_mut().zip(items) {
            target.write(heartbus_event { user_data: handle::user_data_of(record.origin), ..translate(record, texts) });
        }
    }
}

impl Source for LogQueue {
    type Item = Record;

    fn as_fd(&self) -> BorrowedFd<'_> {
        Self::as_fd(self)
    }

    fn drain(&self, into: &mut VecDeque<Record>, max: usize) -> usize {
        let before = into.len();
        into.extend(std::iter::from_fn(|| self.pop()).take(max));
        into.len() - before
    }

    fn wake(&self) {
        Self::wake(self);
    }
}

fn translate(record: &Record, texts: &Bump) -> heartbus_event {
    let level = match record.level {
        Level::ERROR => HEARTBUS_LOG_ERROR,
        Level::WARN => HEARTBUS_LOG_WARNING,
        Level::INFO => HEARTBUS_LOG_INFO,
        _ => HEARTBUS_LOG_DEBUG,
    };
    let (text, text_len) = keep(texts, &record.message);
    let (payload, payload_len) = keep(texts, &format!("{{{}}}", record.context));
    heartbus_event {
        code: level as i32,
        text,
        text_len,
        payload,
        payload_len,
        client_id: record.client_id,
        time: record.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        ..heartbus_event::new(heartbus_event_type::HEARTBUS_EVENT_LOG)
    }
}

/// The logs of this process that are open.
static OPEN: PerProcess<Mutex<Arc<[Arc<Log>]>>> = PerProcess::new();

fn lock(open: &Mutex<Arc<[Arc<Log>]>>) -> MutexGuard<'_, Arc<[Arc<Log>]>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_logs() -> Arc<[Arc<Log>]> {
    OPEN.existing().map(|own| lock(&own.value).clone()).unwrap_or_default()
}

/// What the library's threads tell while they run, to whoever opened a log.
struct ToOpenLogs;

impl Subscriber for ToOpenLogs {
    // Asked once per kind of message, whoever it will be about.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        open_logs().iter().any(|log| *metadata.level() <= log.filter)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(open_logs().iter().map(|log| log.filter).max().unwrap_or(LevelFilter::OFF))
    }

    fn event(&self, event: &Event<'_>) {
        let (level, origin) = (*event.metadata().level(), log::origin());
        let logs = open_logs();
        // Asked first: what nobody wants counts for nothing.
        if !logs.iter().any(|log| log.wants(level, origin)) {
            return;
        }
        for record in records(event) {
            let wanting = logs.iter().filter(|log| log.wants(record.level, record.origin));
            wanting.for_each(|log| log.queue.source().push(record.clone()));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// # Errors
/// `InvalidArgument` for a number that is no level, `Limit` when as many are open as may be, `Io` when no descriptor is left.
fn open(level: i32, of: Option<u64>) -> Result<*mut heartbus_log, Error> {
    let filter = match level {
        1 => LevelFilter::DEBUG,
        2 => LevelFilter::INFO,
        3 => LevelFilter::WARN,
        4 => LevelFilter::ERROR,
        _ => return Err(invalid(format!("{level} is no heartbus_log_level"))),
    };
    let log = Arc::new(Log { queue: Queue::new(LogQueue::new(MAX_WAITING)?)?, filter, of });
    let mut open = lock(&OPEN.current().value);
    if open.len() == MAX_OPEN {
        return Err(Error::new(ErrorKind::Limit, format!("{MAX_OPEN} logs of this process are open already")));
    }
    *open = open.iter().cloned().chain([log.clone()]).collect();
    drop(open);
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Fails only when there is one already, which in a C program nobody can have brought.
        let _ = tracing::subscriber::set_global_default(ToOpenLogs);
    });
    tracing::callsite::rebuild_interest_cache();
    Ok(Place::new().open(log))
}

/// Opens a log of all servers and clients of this process, for messages of `level` (a heartbus_log_level) and above. There may be
/// several: each gets every message that it is for, whoever polls the others. Without an open log messages go nowhere; the library
/// never writes to stdout, stderr or a file. Up to 1,000 messages wait for poll; beyond, the oldest are dropped, and a record says how
/// many. Close it with heartbus_log_free.
///
/// HEARTBUS_INVALID_ARGUMENT for a number that is no level, HEARTBUS_LIMIT when 64 are open.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_log_start(level: i32, log: *mut *mut heartbus_log) -> heartbus_status {
    guard(|| {
        // SAFETY: the place for the result, as the first page asks.
        let target = unsafe { out("log", log) }?;
        target.write(open(level, None)?);
        Ok(())
    })
}

/// As heartbus_log_start, of one handle alone: a server, a group of clients or a connection to the bus socket, with what its threads
/// and the calls with it have to say, from now on. It stays open when that handle is freed, and has nothing more then.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_log_start_for(handle: *const c_void, level: i32, log: *mut *mut heartbus_log) -> heartbus_status {
    guard(|| {
        // SAFETY: the place for the result, as the first page asks.
        let target = unsafe { out("log", log) }?;
        target.write(open(level, Some(handle::origin(handle)?))?);
        Ok(())
    })
}

/// Closes a log, as heartbus_server_free a server; messages that wait are dropped. NULL is fine.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_log_free(log: *mut heartbus_log) -> heartbus_status {
    guard(|| {
        if !log.is_null() {
            let log = handle::close::<Log>(log)?;
            let mut open = lock(&OPEN.current().value);
            *open = open.iter().filter(|other| !Arc::ptr_eq(other, &log)).cloned().collect();
            drop(open);
            tracing::callsite::rebuild_interest_cache();
        }
        Ok(())
    })
}

/// A descriptor that is readable while messages wait, as heartbus_server_fd.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_log_fd(log: *const heartbus_log, fd: *mut c_int) -> heartbus_status {
    guard(|| {
        let log = handle::get::<Log>(log)?;
        // SAFETY: the place for the result, as the first page asks.
        unsafe { out("fd", fd) }?.write(log.queue.fd());
        Ok(())
    })
}

/// Takes log messages, as heartbus_server_poll takes events: each is a HEARTBUS_EVENT_LOG.
///
/// HEARTBUS_CLOSED when another thread has closed it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn heartbus_log_poll(
    log: *mut heartbus_log,
    events: *mut heartbus_event,
    capacity: usize,
    timeout_ms: i32,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        let log = handle::get_to_poll::<Log>(log)?;
        // SAFETY: the caller's array and the place for the number, as the first page asks.
        unsafe { log.queue.poll_into(&**log, events, capacity, timeout_ms, count) }
    })
}
