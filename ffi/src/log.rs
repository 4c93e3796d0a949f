//! The engine's log messages for C: a queue that is polled like events. The log is the process's, not a server's.

use crate::event::{heartbus_event, heartbus_event_type, keep};
use crate::handle::{self, Object};
use crate::process::PerProcess;
use crate::queue::{Queue, Source};
use crate::raw::{invalid, out, out_slice};
use crate::status::{guard, heartbus_status};
use bumpalo::Bump;
use heartbus_core::log::{LogQueue, Record, records};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::UNIX_EPOCH;
use tracing::level_filters::LevelFilter;
use tracing::span::{self, Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};

/// Messages that may wait for the program; beyond, the oldest are dropped, which the next record says.
const MAX_WAITING: usize = 1000;

/// The open log of the process.
pub struct heartbus_log {
    _opaque: [u8; 0],
}

/// How important a log message is; the `code` of HEARTBUS_EVENT_LOG.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum heartbus_log_level {
    HEARTBUS_LOG_DEBUG = 1,
    HEARTBUS_LOG_INFO = 2,
    HEARTBUS_LOG_WARNING = 3,
    HEARTBUS_LOG_ERROR = 4,
}
use heartbus_log_level::*;

struct Log {
    queue: Queue<LogQueue>,
    filter: LevelFilter,
}

impl Object for Log {
    type Opaque = heartbus_log;
    const NAME: &'static str = "log";
}

impl Source for LogQueue {
    type Item = Record;

    fn as_fd(&self) -> BorrowedFd<'_> {
        LogQueue::as_fd(self)
    }

    fn drain(&self, into: &mut VecDeque<Record>, max: usize) -> usize {
        let before = into.len();
        into.extend(std::iter::from_fn(|| self.pop()).take(max));
        into.len() - before
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
}

/// The log of this process, while it is open.
static OPEN: PerProcess<Mutex<Option<Arc<Log>>>> = PerProcess::new();

fn lock(open: &Mutex<Option<Arc<Log>>>) -> MutexGuard<'_, Option<Arc<Log>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_log() -> Option<Arc<Log>> {
    lock(&OPEN.existing()?.value).clone()
}

/// What the library's threads tell while they run, to whoever opened the log.
struct ToOpenLog;

impl Subscriber for ToOpenLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        open_log().is_some_and(|log| *metadata.level() <= log.filter)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(open_log().map_or(LevelFilter::OFF, |log| log.filter))
    }

    fn event(&self, event: &Event<'_>) {
        if let Some(log) = open_log() {
            records(event).into_iter().for_each(|record| log.queue.source().push(record));
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

/// Opens the log of all servers and clients of this process, for messages of `level` (a heartbus_log_level) and above. Without
/// an open log messages go nowhere; the library never writes to stdout, stderr or a file. Up to 1,000 messages wait for poll;
/// beyond, the oldest are dropped, and a record says how many. Close it with heartbus_log_free.
///
/// HEARTBUS_INVALID_ARGUMENT when it is open already, or for a number that is no level.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_log_start(level: i32, log: *mut *mut heartbus_log) -> heartbus_status {
    guard(|| {
        // SAFETY: the place for the result, as the first page asks.
        let target = unsafe { out("log", log) }?;
        let filter = match level {
            1 => LevelFilter::DEBUG,
            2 => LevelFilter::INFO,
            3 => LevelFilter::WARN,
            4 => LevelFilter::ERROR,
            _ => return Err(invalid(format!("{level} is no heartbus_log_level"))),
        };
        let mut open = lock(&OPEN.current().value);
        if open.is_some() {
            return Err(invalid("The log of this process is open already"));
        }
        let log = Arc::new(Log { queue: Queue::new(LogQueue::new(MAX_WAITING)?), filter });
        *open = Some(log.clone());
        drop(open);
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            // Fails only when there is one already, which in a C program nobody can have brought.
            let _ = tracing::subscriber::set_global_default(ToOpenLog);
        });
        tracing::callsite::rebuild_interest_cache();
        target.write(handle::open(log));
        Ok(())
    })
}

/// Closes the log; messages that wait are dropped. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_log_free(log: *mut heartbus_log) -> heartbus_status {
    guard(|| {
        if !log.is_null() {
            let log = handle::close::<Log>(log)?;
            lock(&OPEN.current().value).take();
            tracing::callsite::rebuild_interest_cache();
            // A thread may be polling it.
            log.queue.end();
        }
        Ok(())
    })
}

/// A descriptor that is readable while messages wait, as heartbus_server_fd.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_log_fd(log: *const heartbus_log, fd: *mut c_int) -> heartbus_status {
    guard(|| {
        let log = handle::get::<Log>(log)?;
        // SAFETY: the place for the result, as the first page asks.
        unsafe { out("fd", fd) }?.write(log.queue.fd());
        Ok(())
    })
}

/// Takes log messages, as heartbus_server_poll takes events: each is a HEARTBUS_EVENT_LOG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbus_log_poll(
    log: *mut heartbus_log,
    events: *mut heartbus_event,
    capacity: usize,
    timeout_ms: i32,
    count: *mut usize,
) -> heartbus_status {
    guard(|| {
        let log = handle::get::<Log>(log)?;
        // SAFETY: the caller's array and the place for the number, as the first page asks.
        let (events, count) = unsafe { (out_slice("events", events, capacity)?, out("count", count)?) };
        count.write(log.queue.poll(events, timeout_ms, |_| ())?);
        Ok(())
    })
}
