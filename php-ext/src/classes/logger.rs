//! `PfinalClub\AsyncioHeartbeat\Utils\Logger`: lines to the output, to a file and to a buffer, or messages to a logger of
//! the application's own.

use super::state::{self, Field, bytes, items};
use crate::arguments;
use crate::declare::Declare;
use crate::exception;
use crate::php::{self, Call, Outcome, Thrown, invoke, text, value};
use crate::shim;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_object, zend_string};
use ext_php_rs::flags::ConstantFlags;
use ext_php_rs::types::{ZendEmptyArray, Zval};
use heartbus_core::engine::{LineLevel, LogLine};
use heartbus_core::text::printable;
use std::cell::RefCell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

const NAME: &str = r"PfinalClub\AsyncioHeartbeat\Utils\Logger";

static CLASS: AtomicPtr<zend_class_entry> = AtomicPtr::new(ptr::null_mut());

const LEVEL: Field = Field::new(0, c"level");
const ENABLED: Field = Field::new(1, c"enabled");
const LOG_FILE: Field = Field::new(2, c"logFile");
const BUFFER: Field = Field::new(3, c"buffer");
const BUFFER_SIZE: Field = Field::new(4, c"bufferSize");
/// Lines of the buffer that no file has got.
const UNWRITTEN: Field = Field::new(5, c"unwritten");
const LOGGER: Field = Field::new(6, c"logger");

#[derive(Copy, Clone)]
pub(crate) enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl Level {
    /// As PSR-3 calls them; others are info.
    pub(crate) fn named(name: &[u8]) -> Self {
        match name {
            b"debug" => Self::Debug,
            b"warning" => Self::Warning,
            b"error" => Self::Error,
            _ => Self::Info,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

pub(crate) fn register() -> Result<()> {
    let mut class = ClassBuilder::new(NAME);
    for (level, number) in ["DEBUG", "INFO", "WARNING", "ERROR"].into_iter().zip(0i64..) {
        class = class.constant(format!("LEVEL_{level}"), number, &[], ConstantFlags::Public)?;
    }
    class
        .declare("private __construct()", construct)
        .declare("static getInstance(): self", get_instance)
        .declare("setLevel(int $level): void", set_level)
        .declare("enable(): void", enable)
        .declare("disable(): void", disable)
        .declare("setLogFile(?string $file): void", set_log_file)
        .declare("setBufferSize(int $size): void", set_buffer_size)
        .declare("debug(string $message, array $context = []): void", debug)
        .declare("info(string $message, array $context = []): void", info)
        .declare("warning(string $message, array $context = []): void", warning)
        .declare("error(string $message, array $context = []): void", error)
        .declare("getBuffer(): array", get_buffer)
        .declare("clearBuffer(): void", clear_buffer)
        .declare("flush(): void", flush)
        .declare("setLogger(?object $logger): void", set_logger)
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            state::declare_singleton(class, NAME);
            LEVEL.declare(class, "int", Some(value(1i64)));
            ENABLED.declare(class, "bool", Some(value(true)));
            LOG_FILE.declare(class, "?string", Some(Zval::null()));
            BUFFER.declare(class, "array", Some(value(ZendEmptyArray)));
            BUFFER_SIZE.declare(class, "int", Some(value(100i64)));
            UNWRITTEN.declare(class, "array", Some(value(ZendEmptyArray)));
            LOGGER.declare(class, "?object", Some(Zval::null()));
            CLASS.store(class, Ordering::Relaxed);
        })
        .register()
}

pub(crate) fn instance() -> Outcome<Zval> {
    let class = CLASS.load(Ordering::Relaxed);
    state::singleton(class, || {
        let mut logger = Zval::new();
        // SAFETY: the class is registered and can be instantiated.
        unsafe { shim::object_init_ex(&raw mut logger, class) };
        if logger.is_object() { Ok(logger) } else { Err(Thrown) }
    })
}

/// `hb_log()`
pub(crate) fn log_globally(level: Level, message: Zval, context: Zval) -> Outcome {
    let logger = instance()?;
    let object = logger.object().map(|object| ptr::from_ref(object).cast_mut()).ok_or(Thrown)?;
    log(object, level, message, context)
}

/// Gives a message to PHP's logger of this process. It may be one of the user's own, and throw.
pub(crate) fn log_line(line: &LogLine) -> Outcome {
    let level = match line.level {
        LineLevel::Error => Level::Error,
        LineLevel::Warning => Level::Warning,
        LineLevel::Info => Level::Info,
        LineLevel::Debug => Level::Debug,
    };
    let context = php::json_decode(format!("{{{}}}", line.context).as_bytes());
    log_globally(level, text(&line.message), if context.is_array() { context } else { Zval::new_array() })
}

thread_local! {
    /// The fibers, 0 for none, in which a logger of the user's is at work.
    static TELLING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// What a logger says here while it is told something goes where lines go without it: told itself, it would say so again, until the stack ends.
struct Telling(usize);

impl Telling {
    fn begin() -> Option<Self> {
        let fiber = state::current_fiber().and_then(|fiber| fiber.object().map(|object| ptr::from_ref(object).addr())).unwrap_or_default();
        TELLING.with_borrow_mut(|telling| {
            let is_new = !telling.contains(&fiber);
            is_new.then(|| telling.push(fiber))
        })?;
        Some(Self(fiber))
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        TELLING.with_borrow_mut(|telling| telling.retain(|fiber| *fiber != self.0));
    }
}

/// A fatal error leaves a logger without returning.
pub(crate) fn end_request() {
    TELLING.with_borrow_mut(Vec::clear);
}

fn log(logger: *mut zend_object, level: Level, message: Zval, context: Zval) -> Outcome {
    if !ENABLED.is_true(logger) || (level as i64) < LEVEL.int(logger) {
        return Ok(());
    }
    let mut line = b"[".to_vec();
    line.extend_from_slice(bytes(&state::date("Y-m-d H:i:s")));
    line.extend_from_slice(format!("] [{}] ", level.name().to_uppercase()).as_bytes());
    // One message is one line, whoever wrote a part of it. What is no UTF-8 may be a text in another encoding, and stays.
    for chunk in bytes(&message).utf8_chunks() {
        line.extend_from_slice(printable(chunk.valid()).as_bytes());
        line.extend_from_slice(chunk.invalid());
    }
    if items(&context).next().is_some() {
        let encoded = match php::json_encode(&context)? {
            Some(encoded) => encoded,
            None => state::json_lossy(&context, false)?,
        };
        line.push(b' ');
        line.extend_from_slice(bytes(&encoded));
    }
    let entry = text(&line);
    BUFFER.table(logger).push(entry.shallow_clone());
    line.push(b'\n');

    // From here on PHP code may run: output handlers, loggers, stream wrappers.
    let own_logger = LOGGER.get(logger);
    match own_logger.is_object().then(Telling::begin).flatten() {
        Some(_telling) => drop(invoke(&own_logger, c"log", [text(level.name()), message, context])?),
        None => {
            state::print(&line);
            php::pending_exception()?;
        }
    }
    let written = write_to_file(logger, text(&line))?;
    if !written {
        UNWRITTEN.table(logger).push(entry);
    }
    for lines in [BUFFER, UNWRITTEN] {
        keep_newest(logger, lines);
    }
    Ok(())
}

/// False when there is no file. One that cannot be written is PHP's own warning.
fn write_to_file(logger: *mut zend_object, lines: Zval) -> Outcome<bool> {
    const FILE_APPEND: i64 = 8;
    const LOCK_EX: i64 = 2;
    let file = LOG_FILE.get(logger);
    // As PHP: an empty name and "0" are no names.
    if matches!(bytes(&file), b"" | b"0") {
        return Ok(false);
    }
    // Only files can be locked, and what has a scheme may be anything.
    let is_plain = !bytes(&file).windows(3).any(|bytes| bytes == b"://");
    let flags = if is_plain { FILE_APPEND | LOCK_EX } else { FILE_APPEND };
    let written = state::call("file_put_contents", [file, lines, value(flags)])?;
    Ok(!written.is_bool())
}

/// A buffer that has reached its size loses its older half.
fn keep_newest(logger: *mut zend_object, lines: Field) {
    let (table, size) = (lines.table(logger), BUFFER_SIZE.int(logger).max(0));
    if table.len() < size {
        return;
    }
    while table.len() > size - size / 2 {
        table.shift();
    }
    let kept = table.take();
    lines.set(logger, kept);
}

fn construct(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")
}

fn get_instance(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    *call.result = instance()?;
    Ok(())
}

fn set_level(call: &mut Call<'_>) -> Outcome {
    let mut level = 0i64;
    arguments!(call, c"l", level)?;
    LEVEL.set(call.this(), value(level));
    Ok(())
}

fn enable(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    ENABLED.set(call.this(), value(true));
    Ok(())
}

fn disable(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    ENABLED.set(call.this(), value(false));
    Ok(())
}

fn set_log_file(call: &mut Call<'_>) -> Outcome {
    let mut file = ptr::null_mut::<zend_string>();
    arguments!(call, c"S!", file)?;
    LOG_FILE.set(call.this(), if file.is_null() { Zval::null() } else { php::string(file) });
    Ok(())
}

fn set_buffer_size(call: &mut Call<'_>) -> Outcome {
    let mut size = 0i64;
    arguments!(call, c"l", size)?;
    BUFFER_SIZE.set(call.this(), value(size));
    Ok(())
}

fn debug(call: &mut Call<'_>) -> Outcome {
    log_call(call, Level::Debug)
}

fn info(call: &mut Call<'_>) -> Outcome {
    log_call(call, Level::Info)
}

fn warning(call: &mut Call<'_>) -> Outcome {
    log_call(call, Level::Warning)
}

fn error(call: &mut Call<'_>) -> Outcome {
    log_call(call, Level::Error)
}

fn log_call(call: &mut Call<'_>, level: Level) -> Outcome {
    let (mut message, mut context) = (ptr::null_mut::<zend_string>(), ptr::null_mut::<Zval>());
    arguments!(call, c"S|a", message, context)?;
    // SAFETY: an argument of this call, or null when it was left out.
    let context = unsafe { context.as_ref() }.map_or_else(|| value(ZendEmptyArray), |context| context.dereference().shallow_clone());
    log(call.this(), level, php::string(message), context)
}

fn get_buffer(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    *call.result = BUFFER.table(call.this()).snapshot();
    Ok(())
}

fn clear_buffer(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    for lines in [BUFFER, UNWRITTEN] {
        lines.set(this, value(ZendEmptyArray));
    }
    Ok(())
}

/// Writes what came before there was a file: the other lines are in it already.
fn flush(call: &mut Call<'_>) -> Outcome {
    arguments!(call, c"")?;
    let this = call.this();
    let unwritten = UNWRITTEN.table(this).snapshot();
    let mut lines = Vec::new();
    for line in items(&unwritten) {
        lines.extend_from_slice(bytes(line));
        lines.push(b'\n');
    }
    let has_file = !matches!(bytes(&LOG_FILE.get(this)), b"" | b"0");
    if has_file && (lines.is_empty() || write_to_file(this, text(lines))?) {
        clear_buffer(call)?;
    }
    Ok(())
}

/// An object with the method `log($level, $message, $context)` of PSR-3 gets the messages in place of the output.
fn set_logger(call: &mut Call<'_>) -> Outcome {
    let mut logger = ptr::null_mut::<Zval>();
    arguments!(call, c"o!", logger)?;
    // SAFETY: an argument of this call, or null.
    let logger = unsafe { logger.as_ref() }.map_or_else(Zval::null, |logger| logger.dereference().shallow_clone());
    let object = logger.object().map(|object| ptr::from_ref(object).cast_mut());
    if object.is_some_and(|object| !state::has_method(object, "log")) {
        return Err(exception::type_error(&format!(
            "{NAME}::setLogger(): Argument #1 ($logger) must have a method log(), {} given",
            php::type_name(&logger, false)
        )));
    }
    LOGGER.set(call.this(), logger);
    Ok(())
}
