//! Where the engine's log messages go: one line each, in the format of the PHP library's logger, to stderr or a file.
//!
//! Lines are written with one system call and without a lock: a process forked off in the middle of one cannot hang.

use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::wire::php_json;
use rustix::fs::{Mode, OFlags, open};
use std::fmt::{Debug, Write};
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
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
        let name = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            _ => "DEBUG",
        };
        let now = chrono::Local::now().format("%Y-%m-%d %H:%M:%S");
        let mut text = format!("[{now}] [{name}] {}", line.message);
        if !line.context.is_empty() {
            text.push_str(" {");
            text.push_str(&line.context);
            text.push('}');
        }
        text.push('\n');
        // SAFETY: descriptors of the log are never closed; that of stderr is the process's own.
        let target = unsafe { BorrowedFd::borrow_raw(TARGET.load(Ordering::Relaxed)) };
        // A log that cannot be written has nobody to tell.
        let _ = rustix::io::write(target, text.as_bytes());
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
