//! The exceptions of the extension, and the one place where an error of the engine becomes one.

use crate::shim;
use ext_php_rs::builders::ClassBuilder;
use ext_php_rs::error::Result;
use ext_php_rs::ffi::{zend_class_entry, zend_throw_exception};
use ext_php_rs::flags::ClassFlags;
use ext_php_rs::zend::{ClassEntry, ExecutorGlobals, ce};
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::text::printable;
use std::ffi::CString;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A PHP exception (or an `exit()`) is pending: return to PHP as soon as possible.
#[derive(Debug)]
pub(crate) struct Thrown;

pub(crate) type Outcome<T = ()> = std::result::Result<T, Thrown>;

/// `Err` when an exception is pending.
pub(crate) fn pending_exception() -> Outcome {
    if ExecutorGlobals::has_exception() { Err(Thrown) } else { Ok(()) }
}

const NAMESPACE: &str = r"Heartbus\Exception";

/// The exception classes by [`ErrorKind`]; the number of a kind is its place here.
const CLASSES: [&str; 11] = [
    "HeartbusException",
    "ConfigException",
    "IoException",
    "ProtocolException",
    "ClosedException",
    "TimeoutException",
    "LimitException",
    "NotFoundException",
    "InternalException",
    "", // InvalidArgument: PHP's own class
    "WrongProcessException",
];

static ENTRIES: [AtomicPtr<zend_class_entry>; 11] = [const { AtomicPtr::new(ptr::null_mut()) }; 11];

pub(crate) fn register() -> Result<()> {
    ClassBuilder::new(format!(r"{NAMESPACE}\{}", CLASSES[0]))
        .flags(ClassFlags::Interface)
        .implements((ce::throwable, r"\Throwable"))
        .registration(|class, arguments| {
            std::mem::forget(arguments);
            ENTRIES[0].store(class, Ordering::Relaxed);
        })
        .register()?;
    for name in CLASSES.into_iter().skip(1).filter(|name| !name.is_empty()) {
        ClassBuilder::new(format!(r"{NAMESPACE}\{name}"))
            .extends((|| entry_of(runtime()), r"\RuntimeException"))
            .implements((|| entry_of(ENTRIES[0].load(Ordering::Relaxed)), "HeartbusException"))
            .registration(|class, arguments| {
                std::mem::forget(arguments);
                let name = class.name().unwrap_or_default();
                let place = CLASSES.iter().position(|class| !class.is_empty() && name.ends_with(&format!(r"\{class}")));
                if let Some(place) = place {
                    ENTRIES[place].store(class, Ordering::Relaxed);
                }
            })
            .register()?;
    }
    Ok(())
}

/// Throws the exception of an engine's error: its kind decides the class and is the code.
pub(crate) fn raise(error: &Error) -> Thrown {
    let kind = error.kind as i32;
    let class = match error.kind {
        // SAFETY: a pointer that PHP fills in at its start.
        ErrorKind::InvalidArgument => unsafe { shim::heartbus_spl_invalid_argument_exception() },
        _ => ENTRIES[kind as usize].load(Ordering::Relaxed),
    };
    throw(class, &error.message, i64::from(kind))
}

/// An exception of a kind, with a text of the extension's own.
pub(crate) fn fail(kind: ErrorKind, message: impl Into<String>) -> Thrown {
    raise(&Error::new(kind, message))
}

/// `\RuntimeException`, as the PHP library throws it.
pub(crate) fn runtime_exception(message: &str) -> Thrown {
    throw(runtime(), message, 0)
}

pub(crate) fn logic_exception(message: &str) -> Thrown {
    // SAFETY: a pointer that PHP fills in at its start.
    throw(unsafe { shim::heartbus_spl_logic_exception() }, message, 0)
}

pub(crate) fn invalid_argument(message: &str) -> Thrown {
    // SAFETY: a pointer that PHP fills in at its start.
    throw(unsafe { shim::heartbus_spl_invalid_argument_exception() }, message, 0)
}

pub(crate) fn type_error(message: &str) -> Thrown {
    throw(ptr::from_ref(ce::type_error()).cast_mut(), message, 0)
}

pub(crate) fn error(message: &str) -> Thrown {
    throw(ptr::from_ref(ce::error()).cast_mut(), message, 0)
}

/// Throws; an exception that is already pending becomes the previous one of the new.
fn throw(class: *mut zend_class_entry, message: &str, code: i64) -> Thrown {
    // PHP prints it where nobody catches it, and some of it may come from outside.
    let message = CString::new(&*printable(message)).unwrap_or_default();
    // SAFETY: the class is registered, and PHP copies the message.
    unsafe { zend_throw_exception(class, message.as_ptr(), code) };
    Thrown
}

fn runtime() -> *mut zend_class_entry {
    // SAFETY: a pointer that PHP fills in at its start.
    unsafe { shim::heartbus_spl_runtime_exception() }
}

fn entry_of(class: *mut zend_class_entry) -> &'static ClassEntry {
    // SAFETY: class entries of internal classes live as long as the process.
    unsafe { &*class }
}
