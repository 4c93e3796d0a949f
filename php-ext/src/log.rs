//! Where the engine's log messages go: one line each, in the format of the PHP library's logger, to stderr or a file; or to
//! that logger itself, which is PHP's and gets them on PHP's thread.
//!
//! Lines are written with one system call and without a lock: a process forked off in the middle of one cannot hang. What
//! waits for the logger is behind a lock, of which a forked child keeps away.

use crate::shim;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::log::{LogQueue, Record, records};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU64, Ordering};
use tracing::level_filters::LevelFilter;
use tracing::span::{self, Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};

const STDERR: i32 = 2;

/// Names of `log_level`, in ascending order. A place in this list is a level.
pub const LEVELS: [&str; 5] = ["debug", "info", "warning", "error", "off"];
const FILTERS: [LevelFilter; 5] = [LevelFilter::DEBUG, LevelFilter::INFO, LevelFilter::WARN, LevelFilter::ERROR, LevelFilter::OFF];
/// No configuration has named a level.
const UNSET: u8 = u8::MAX;

static LEVEL: AtomicU8 = AtomicU8::new(UNSET);
static TARGET: AtomicI32 = AtomicI32::new(STDERR);
/// Messages that found the target full.
static LOST: AtomicU64 = AtomicU64::new(0);
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

fn write_line(record: &Record) {
    let Record { time, level, message, context, .. } = record;
    let name = match *level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    };
    let time = chrono::DateTime::<chrono::Local>::from(*time).format("%Y-%m-%d %H:%M:%S");
    let mut text = format!("[{time}] [{name}] {message}");
    if !context.is_empty() {
        text.push_str(" {");
        text.push_str(context);
        text.push('}');
    }
    text.push('\n');
    // SAFETY: descriptors of the log are never closed; that of stderr is the process's own.
    let target = unsafe { BorrowedFd::borrow_raw(TARGET.load(Ordering::Relaxed)) };
    // Nobody waits for whoever should read this: the engine's threads write here.
    let mut wants = [PollFd::new(&target, PollFlags::OUT)];
    if !poll(&mut wants, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        text = format!("[{time}] [WARNING] {lost} log messages were lost: nobody read them\n{text}");
    }
    // A log that cannot be written has nobody to tell.
    let _ = rustix::io::write(target, text.as_bytes());
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
    fn open() -> Result<*mut Sink, Error> {
        Ok(Box::into_raw(Box::new(Sink { generation: generation(), queue: LogQueue::new(MAX_WAITING)? })))
    }

    fn current() -> Option<&'static Sink> {
        // SAFETY: null, or a sink that is never freed.
        unsafe { SINK.load(Ordering::Acquire).as_ref() }.filter(|sink| sink.generation == generation())
    }
}

/// Readable while messages wait for PHP's logger; none where they go elsewhere.
pub fn waiting_fd() -> Option<BorrowedFd<'static>> {
    Sink::current().map(|sink| sink.queue.as_fd())
}

/// The next message for PHP's logger.
pub fn next_waiting() -> Option<Record> {
    Sink::current()?.queue.pop()
}

/// PHP's logger is gone, or wanted no more: what waits for it is written as if it had never been.
pub fn stop_waiting() {
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
            match Sink::current() {
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
