//! Where the engine's log messages go: one line each, in the format of the PHP library's logger, to stderr or a file; or to
//! that logger itself, which is PHP's and gets them on PHP's thread.
//!
//! Lines are written with one system call and without a lock: a process forked off in the middle of one cannot hang. What
//! waits for the logger is behind a lock, of which a forked child keeps away.

use crate::shim;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::wire::php_json;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags, open};
use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const STDERR: i32 = 2;

/// Names of `log_level`, in ascending order. A place in this list is a level.
pub const LEVELS: [&str; 5] = ["debug", "info", "warning", "error", "off"];
const FILTERS: [LevelFilter; 5] = [LevelFilter::DEBUG, LevelFilter::INFO, LevelFilter::WARN, LevelFilter::ERROR, LevelFilter::OFF];
const WARNING: u8 = 2;

static LEVEL: AtomicU8 = AtomicU8::new(WARNING);
static TARGET: AtomicI32 = AtomicI32::new(STDERR);
static TOUCHED: AtomicBool = AtomicBool::new(false);

/// What a configuration says about the log. The log is the process's: the last server or client that starts decides.
#[derive(Clone, Default)]
pub struct Settings {
    pub level: Option<u8>,
    pub file: Option<String>,
    pub to_logger: Option<bool>,
}

impl Settings {
    pub fn apply(&self) -> Result<(), Error> {
        if let Some(level) = self.level {
            LEVEL.store(level, Ordering::Relaxed);
        }
        if let Some(file) = &self.file {
            let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
            let opened = open(file.as_str(), flags, Mode::from_raw_mode(0o644));
            let opened = opened.map_err(|error| Error::new(ErrorKind::Config, format!("Cannot open log_file {file}: {error}")))?;
            // The old descriptor stays open: another thread may be writing to it.
            TARGET.store(opened.into_raw_fd(), Ordering::Relaxed);
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
pub fn is_untouched() -> bool {
    !TOUCHED.load(Ordering::Relaxed)
}

/// Makes the messages of this process arrive somewhere.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Fails only when there is one already.
        let _ = tracing::subscriber::set_global_default(Log);
    });
}

fn write_line(level: Level, message: &str, context: &str) {
    let name = match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    };
    let now = chrono::Local::now().format("%Y-%m-%d %H:%M:%S");
    let mut text = format!("[{now}] [{name}] {message}");
    if !context.is_empty() {
        text.push_str(" {");
        text.push_str(context);
        text.push('}');
    }
    text.push('\n');
    // SAFETY: descriptors of the log are never closed; that of stderr is the process's own.
    let target = unsafe { BorrowedFd::borrow_raw(TARGET.load(Ordering::Relaxed)) };
    // A log that cannot be written has nobody to tell.
    let _ = rustix::io::write(target, text.as_bytes());
}

/// Messages that may wait for PHP; beyond, the oldest are dropped and counted.
const MAX_WAITING: usize = 1000;

/// A message on its way to PHP's logger. The context is the inside of a JSON object.
pub struct Entry {
    pub level: Level,
    pub message: String,
    pub context: String,
}

/// Where messages wait for PHP's thread. Never freed: another thread may be using it.
struct Sink {
    /// The process that may use it.
    generation: u32,
    waiting: Mutex<Waiting>,
    /// Readable while messages wait.
    fd: OwnedFd,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    dropped: u64,
}

static SINK: AtomicPtr<Sink> = AtomicPtr::new(ptr::null_mut());

fn generation() -> u32 {
    // SAFETY: reads a number.
    unsafe { shim::heartbus_generation() }
}

impl Sink {
    fn open() -> Result<*mut Sink, Error> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::new(ErrorKind::Io, format!("Cannot wait for log messages: {error}")))?;
        Ok(Box::into_raw(Box::new(Sink { generation: generation(), waiting: Mutex::default(), fd })))
    }

    fn current() -> Option<&'static Sink> {
        // SAFETY: null, or a sink that is never freed.
        unsafe { SINK.load(Ordering::Acquire).as_ref() }.filter(|sink| sink.generation == generation())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, entry: Entry) {
        let mut waiting = self.lock();
        if waiting.entries.len() >= MAX_WAITING {
            waiting.entries.pop_front();
            waiting.dropped += 1;
        }
        waiting.entries.push_back(entry);
        if waiting.entries.len() == 1 {
            // Any number but 0 will do.
            let _ = rustix::io::write(&self.fd, &[1; 8]);
        }
    }

    fn pop(&self) -> Option<Entry> {
        let mut waiting = self.lock();
        let dropped = std::mem::take(&mut waiting.dropped);
        if dropped > 0 {
            let message = format!("{dropped} log messages were dropped: the logger is too slow for them");
            return Some(Entry { level: Level::WARN, message, context: String::new() });
        }
        let entry = waiting.entries.pop_front();
        if waiting.entries.is_empty() {
            // Fails when it was not readable.
            let _ = rustix::io::read(&self.fd, &mut [0; 8]);
        }
        entry
    }
}

/// Readable while messages wait for PHP's logger; none where they go elsewhere.
pub fn waiting_fd() -> Option<BorrowedFd<'static>> {
    Sink::current().map(|sink| sink.fd.as_fd())
}

/// The next message for PHP's logger.
pub fn next_waiting() -> Option<Entry> {
    Sink::current()?.pop()
}

/// PHP's logger is gone, or wanted no more: what waits for it is written as if it had never been.
pub fn stop_waiting() {
    if let Some(sink) = Sink::current() {
        SINK.store(ptr::null_mut(), Ordering::Release);
        while let Some(Entry { level, message, context }) = sink.pop() {
            write_line(level, &message, &context);
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
        let mut line = Line::default();
        event.record(&mut line);
        if let Some(sink) = Sink::current() {
            sink.push(Entry { level: *event.metadata().level(), message: line.message, context: line.context });
            return;
        }
        line.write(*event.metadata().level());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn filter() -> LevelFilter {
    FILTERS[usize::from(LEVEL.load(Ordering::Relaxed))]
}

/// The message, and the other fields as the members of a JSON object.
#[derive(Default)]
struct Line {
    message: String,
    context: String,
}

impl Line {
    fn write(&self, level: Level) {
        write_line(level, &self.message, &self.context);
    }

    fn key(&mut self, field: &Field) {
        if !self.context.is_empty() {
            self.context.push(',');
        }
        self.json(field.name());
        self.context.push(':');
    }

    fn json(&mut self, text: &str) {
        let mut quoted = Vec::new();
        php_json::write_str(&mut quoted, text);
        self.context.push_str(&String::from_utf8_lossy(&quoted));
    }

    fn number(&mut self, field: &Field, number: impl ToString) {
        self.key(field);
        self.context.push_str(&number.to_string());
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.record_str(field, &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // A field may be called `message` too; the line's own message comes formatted, through `record_debug`.
        self.key(field);
        self.json(value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }
}
