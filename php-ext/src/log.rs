//! What becomes of the engine's log messages: one line each, in the format of the PHP library's logger, to stderr or a file; or
//! handed to that logger itself, which is PHP's and gets them on PHP's thread.
//!
//! Owns the settings and what waits for the logger, which is behind a lock, of which a forked child keeps away. Where lines go is
//! [`target`]'s.

mod target;
mod zone;

use crate::shim;
use heartbus_core::engine::{LineLevel, LogLine};
use heartbus_core::error::Error;
use heartbus_core::log::{LogQueue, Record, records};
use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};
use tracing::level_filters::LevelFilter;
use tracing::span::{self, Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};

pub(crate) use target::{after_fork, begin_process, end_request, reopen};

/// By the numbers of `LineLevel`.
const FILTERS: [LevelFilter; 5] = [LevelFilter::DEBUG, LevelFilter::INFO, LevelFilter::WARN, LevelFilter::ERROR, LevelFilter::OFF];
/// No configuration has named a level.
const UNSET: u8 = u8::MAX;

static LEVEL: AtomicU8 = AtomicU8::new(UNSET);
static TOUCHED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// PHP's logger has a message in its hands.
    static IS_HANDING_OVER: Cell<bool> = const { Cell::new(false) };
}

/// What a configuration says about the log. The log is the process's: the last server or client that starts decides.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub level: Option<u8>,
    pub file: Option<String>,
    pub to_logger: Option<bool>,
}

impl Settings {
    pub(crate) fn apply(&self) -> Result<(), Error> {
        if let Some(level) = self.level {
            LEVEL.store(level, Ordering::Relaxed);
        }
        match &self.file {
            Some(file) => target::choose(file)?,
            None => target::settle(),
        }
        TOUCHED.store(true, Ordering::Relaxed);
        if let Some(to_logger) = self.to_logger {
            match (to_logger, Sink::current()) {
                (true, None) => SINK.store(Sink::open()?, Ordering::Release),
                (false, Some(_)) => stop_waiting(),
                _ => {}
            }
        }
        install();
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }
}

/// No configuration decided about the log yet.
pub(crate) fn is_untouched() -> bool {
    !TOUCHED.load(Ordering::Relaxed)
}

/// What the application has changed since: its time zone, and what it has as stderr. To be called now and then on PHP's thread.
pub(crate) fn follow_application() {
    if TOUCHED.load(Ordering::Relaxed) {
        zone::follow();
        target::settle();
    }
}

/// Makes the messages of this process arrive somewhere.
fn install() {
    zone::follow();
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Fails only when there is one already.
        let _ = tracing::subscriber::set_global_default(Log);
    });
}

fn write_line(record: &Record) {
    let Record { time, level, message, context, .. } = record;
    let name = match *level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    };
    let stamp = format!("[{}]", zone::written(*time));
    let mut line = format!("{stamp} [{name}] {message}");
    if !context.is_empty() {
        line.push_str(" {");
        line.push_str(context);
        line.push('}');
    }
    line.push('\n');
    target::write(&line, &stamp);
}

/// Messages that may wait for PHP; beyond, the oldest are dropped and counted.
const MAX_WAITING: usize = 1000;

/// Where messages wait for PHP's thread. Never freed: another thread may be using it.
struct Sink {
    /// The process that may use it.
    generation: u32,
    queue: LogQueue,
}

static SINK: AtomicPtr<Sink> = AtomicPtr::new(ptr::null_mut());

fn generation() -> u32 {
    // SAFETY: reads a number.
    unsafe { shim::heartbus_generation() }
}

impl Sink {
    fn open() -> Result<*mut Self, Error> {
        Ok(Box::into_raw(Box::new(Self { generation: generation(), queue: LogQueue::new(MAX_WAITING)? })))
    }

    fn current() -> Option<&'static Self> {
        // SAFETY: null, or a sink that is never freed.
        unsafe { SINK.load(Ordering::Acquire).as_ref() }.filter(|sink| sink.generation == generation())
    }
}

/// Readable while messages wait for PHP's logger; none where they go elsewhere.
pub(crate) fn waiting_fd() -> Option<BorrowedFd<'static>> {
    Sink::current().map(|sink| sink.queue.as_fd())
}

/// Messages that wait for PHP's logger.
pub(crate) fn waiting() -> usize {
    Sink::current().map_or(0, |sink| sink.queue.len())
}

/// Hands the next message to PHP's logger, if there is one. What PHP's thread has to say meanwhile is written as a line: a logger that
/// sends its lines through the client or the server would otherwise be told of its own troubles without end.
pub(crate) fn hand_over<E>(to_logger: impl FnOnce(LogLine) -> Result<(), E>) -> Result<(), E> {
    let Some(record) = Sink::current().and_then(|sink| sink.queue.pop()) else { return Ok(()) };
    IS_HANDING_OVER.set(true);
    let done = to_logger(line_of(record));
    IS_HANDING_OVER.set(false);
    done
}

fn line_of(record: Record) -> LogLine {
    let level = match record.level {
        Level::ERROR => LineLevel::Error,
        Level::WARN => LineLevel::Warning,
        Level::INFO => LineLevel::Info,
        _ => LineLevel::Debug,
    };
    LogLine { level, message: record.message, context: record.context }
}

/// A logger that suspended its Fiber, or ended the script, is not waited for.
pub(crate) fn forget_handing_over() {
    IS_HANDING_OVER.set(false);
}

/// PHP's logger is gone, or wanted no more: what waits for it is written as if it had never been.
pub(crate) fn stop_waiting() {
    if let Some(sink) = Sink::current() {
        SINK.store(ptr::null_mut(), Ordering::Release);
        tracing::callsite::rebuild_interest_cache();
        while let Some(record) = sink.queue.pop() {
            write_line(&record);
        }
    }
}

struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= filter()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(filter())
    }

    fn event(&self, event: &Event<'_>) {
        for record in records(event) {
            match Sink::current().filter(|_| !IS_HANDING_OVER.get()) {
                Some(sink) => sink.queue.push(record),
                None => write_line(&record),
            }
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

fn filter() -> LevelFilter {
    match LEVEL.load(Ordering::Relaxed) {
        // What `Utils\Logger` writes unless it is told otherwise; on stderr that is too much.
        UNSET if Sink::current().is_some() => LevelFilter::INFO,
        UNSET => LevelFilter::WARN,
        level => FILTERS[usize::from(level)],
    }
}
