//! How a function of the ABI ends: a status, and a text for the thread that called it. No panic passes here.

use heartbus_core::error::{Error, ErrorKind};
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a call ended. Numbers are assigned once and never used again for something else; new ones may be added.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum heartbus_status {
    HEARTBUS_OK = 0,
    /// A setting is wrong: not JSON, an unknown key, a value out of range.
    HEARTBUS_CONFIG = 1,
    /// The operating system refused something: an address in use, no descriptor left.
    HEARTBUS_IO = 2,
    /// The other side broke the protocol.
    HEARTBUS_PROTOCOL = 3,
    /// Stopped, or not connected.
    HEARTBUS_CLOSED = 4,
    /// Something did not happen in time. (A poll without events is HEARTBUS_OK with a count of 0.)
    HEARTBUS_TIMEOUT = 5,
    /// A limit was reached: an outbox is full, a message is longer than a frame may be.
    HEARTBUS_LIMIT = 6,
    /// No such node, channel or client.
    HEARTBUS_NOT_FOUND = 7,
    /// A fault of the library.
    HEARTBUS_INTERNAL = 8,
    /// An argument that can never be right: NULL, a handle that was freed, text that is not UTF-8.
    HEARTBUS_INVALID_ARGUMENT = 9,
    /// The handle was made before a fork, and this is the child.
    HEARTBUS_WRONG_PROCESS = 10,
}
use heartbus_status::*;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Says in English why the last call of this thread that failed did so; "" when none has. A call that succeeds leaves it
/// as it is. Valid until the next call of this thread that fails.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn heartbus_last_error() -> *const c_char {
    // A thread that is ending has lost its text already.
    LAST_ERROR.try_with(|text| text.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The name of a status without its prefix: "OK", "NOT_FOUND"; "UNKNOWN" for a number that this library does not know.
/// Lives as long as the program.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn heartbus_status_name(status: i32) -> *const c_char {
    const NAMES: [&CStr; 11] = [
        c"OK",
        c"CONFIG",
        c"IO",
        c"PROTOCOL",
        c"CLOSED",
        c"TIMEOUT",
        c"LIMIT",
        c"NOT_FOUND",
        c"INTERNAL",
        c"INVALID_ARGUMENT",
        c"WRONG_PROCESS",
    ];
    usize::try_from(status).ok().and_then(|index| NAMES.get(index)).unwrap_or(&c"UNKNOWN").as_ptr()
}

/// Runs the body of a function of the ABI.
///
/// The body may leave things half done when it panics; what it shares with others is behind locks that are taken over
/// from a thread that panicked, so asserting unwind safety costs nobody anything.
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Error>) -> heartbus_status {
    let error = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return HEARTBUS_OK,
        Ok(Err(error)) => error,
        Err(panic) => Error::new(ErrorKind::Internal, format!("A fault in Heartbus: {}", text_of(panic))),
    };
    let text: Vec<u8> = error.message.bytes().filter(|byte| *byte != 0).collect();
    let text = CString::new(text).unwrap_or_default();
    // See heartbus_last_error.
    let _ = LAST_ERROR.try_with(|last| last.replace(text));
    status_of(error.kind)
}

fn text_of(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => match panic.downcast::<&'static str>() {
            Ok(text) => (*text).to_owned(),
            Err(panic) => {
                // Nobody knows what it is, so its drop might panic again.
                std::mem::forget(panic);
                "no text".to_owned()
            }
        },
    }
}

fn status_of(kind: ErrorKind) -> heartbus_status {
    match kind {
        ErrorKind::Config => HEARTBUS_CONFIG,
        ErrorKind::Io => HEARTBUS_IO,
        ErrorKind::Protocol => HEARTBUS_PROTOCOL,
        ErrorKind::Closed => HEARTBUS_CLOSED,
        ErrorKind::Timeout => HEARTBUS_TIMEOUT,
        ErrorKind::Limit => HEARTBUS_LIMIT,
        ErrorKind::NotFound => HEARTBUS_NOT_FOUND,
        ErrorKind::Internal => HEARTBUS_INTERNAL,
        ErrorKind::InvalidArgument => HEARTBUS_INVALID_ARGUMENT,
        ErrorKind::WrongProcess => HEARTBUS_WRONG_PROCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_error() -> String {
        // SAFETY: the pointer is valid until this thread's next failing call, and it is read before that.
        unsafe { CStr::from_ptr(heartbus_last_error()) }.to_str().unwrap().to_owned()
    }

    fn name(status: i32) -> String {
        // SAFETY: names live as long as the program.
        unsafe { CStr::from_ptr(heartbus_status_name(status)) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn every_kind_of_error_has_the_same_number_in_c() {
        let kinds = [
            ErrorKind::Config,
            ErrorKind::Io,
            ErrorKind::Protocol,
            ErrorKind::Closed,
            ErrorKind::Timeout,
            ErrorKind::Limit,
            ErrorKind::NotFound,
            ErrorKind::Internal,
            ErrorKind::InvalidArgument,
            ErrorKind::WrongProcess,
        ];
        for kind in kinds {
            let status = status_of(kind);
            assert_eq!(status as i32, kind as i32);
            assert_eq!(format!("HEARTBUS_{}", name(kind as i32)), format!("{status:?}"));
        }
        assert_eq!((name(0), name(-1), name(11)), ("OK".into(), "UNKNOWN".into(), "UNKNOWN".into()));
    }

    #[test]
    fn a_panic_becomes_a_status_with_its_text() {
        assert_eq!(guard(|| panic!("number {}", 7)), HEARTBUS_INTERNAL);
        assert_eq!(last_error(), "A fault in Heartbus: number 7");
        assert_eq!(guard(|| panic!("plain")), HEARTBUS_INTERNAL);
        assert_eq!(last_error(), "A fault in Heartbus: plain");
        assert_eq!(guard(|| std::panic::panic_any(7)), HEARTBUS_INTERNAL);
        assert_eq!(last_error(), "A fault in Heartbus: no text");
    }

    #[test]
    fn the_last_error_stays_over_a_success_and_belongs_to_its_thread() {
        assert_eq!(guard(|| Err(Error::new(ErrorKind::Limit, "too\0 much"))), HEARTBUS_LIMIT);
        assert_eq!(guard(|| Ok(())), HEARTBUS_OK);
        assert_eq!(last_error(), "too much");
        std::thread::spawn(|| assert_eq!(last_error(), "")).join().unwrap();
    }
}
