//! Where lines of the log go: the application's stderr, a file, or nowhere.
//!
//! Owns one descriptor, and the knowledge of what it leads to. The descriptor has the same number from the first line on: another
//! place is put under it, in one step, so that threads may be writing meanwhile, and none is ever left over. Number 2 itself is
//! written to by nobody: a script may close STDERR at any time, and what it opens next gets that number.
//!
//! Only PHP's thread looks for the place, because it has to ask PHP. No lock is held while a line is written: a process that is
//! forked off in the middle of one cannot hang.

use crate::shim;
use ext_php_rs::types::Zval;
use heartbus_core::descriptor::lift;
use heartbus_core::error::{Error, ErrorKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, Stat, fcntl_getfl, fstat, open, stat};
use rustix::time::{ClockId, clock_gettime};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU64, Ordering};

const STDOUT: RawFd = 1;
const STDERR: RawFd = 2;

/// The descriptor; -1 before the first line.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
/// Null: PHP's thread has to look.
static PLACE: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());
/// A file is being put under the descriptor.
static TURN: AtomicBool = AtomicBool::new(false);
/// Lines that found no room, or nobody to look for their place.
static LOST: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Each file that was ever written to: places are never freed, because another thread may be looking at one.
    static FILES: RefCell<Vec<&'static Place>> = const { RefCell::new(Vec::new()) };
    /// The file that a configuration has named.
    static CHOSEN: Cell<Option<&'static Place>> = const { Cell::new(None) };
    /// What number 2 was when PHP started.
    static FIRST_STDERR: Cell<Option<FileIdentity>> = const { Cell::new(None) };
    static IS_PHP: Cell<bool> = const { Cell::new(false) };
    /// PHP answers: its tables are there.
    static IN_REQUEST: Cell<bool> = const { Cell::new(true) };
}

/// Device and number of a file.
type FileIdentity = (u64, u64);

static AT_STDERR: Place = Place::Stderr;
static NOWHERE: Place = Place::Nowhere;

enum Place {
    Nowhere,
    Stderr,
    File(File),
}

struct File {
    path: PathBuf,
    /// The second in which it was last looked whether the path still leads to it.
    checked: AtomicI64,
}

fn identity(found: &Stat) -> FileIdentity {
    (found.st_dev, found.st_ino)
}

fn identity_of(fd: impl AsFd) -> Option<FileIdentity> {
    fstat(fd).ok().map(|found| identity(&found))
}

/// What the process has under one of its standard numbers.
fn standard(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: it is only looked at or duplicated, and both say so when there is none.
    unsafe { BorrowedFd::borrow_raw(number) }
}

fn descriptor() -> Option<BorrowedFd<'static>> {
    let number = DESCRIPTOR.load(Ordering::Acquire);
    // SAFETY: closed in forked children alone, before anything else runs there.
    (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// As the process starts, on the thread that runs PHP, before anything of the application's runs.
pub(crate) fn begin_process() {
    IS_PHP.set(true);
    // What can only be read has the number by chance: PHP has opened it, where there was no stderr.
    let writable = fcntl_getfl(standard(STDERR)).is_ok_and(|flags| flags & OFlags::ACCMODE != OFlags::RDONLY);
    FIRST_STDERR.set(identity_of(standard(STDERR)).filter(|_| writable));
}

/// The end of the request: PHP cannot be asked any more.
pub(crate) fn end_request() {
    IN_REQUEST.set(false);
}

/// Lines go to this file from now on.
///
/// # Errors
/// It cannot be opened; then nothing has changed.
pub(super) fn choose(path: &str) -> Result<(), Error> {
    IN_REQUEST.set(true);
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let place = file(path);
    if !is_at(place) || !place.is_current() {
        let refuse = |error: io::Error| Error::new(ErrorKind::Config, format!("Cannot open log_file {}: {error}", place.path().display()));
        let opened = open_file(place.path()).map_err(refuse)?;
        put(place, opened).map_err(refuse)?;
    }
    CHOSEN.set(Some(place));
    Ok(())
}

/// Looks for the place, on PHP's thread, where nobody has looked yet or the application has changed what was there.
pub(super) fn settle() {
    IN_REQUEST.set(true);
    if place().is_none() {
        look();
    }
}

/// Opens anew whatever there is to open. True when lines go somewhere now.
pub(crate) fn reopen() -> bool {
    match CHOSEN.get() {
        Some(place) => match open_file(place.path()) {
            Ok(opened) => put(place, opened).is_ok(),
            Err(error) => {
                tracing::warn!(log_file = %place.path().display(), %error, "Cannot open the log file anew: the old one is written on");
                false
            }
        },
        None => {
            PLACE.store(ptr::null_mut(), Ordering::Release);
            look();
            !matches!(place(), None | Some(Place::Nowhere))
        }
    }
}

/// In a child that was just forked, where it may do what a signal handler may. The parent's stderr is let go: whoever waits for
/// its end (a pipe to the shell that started a daemon) must not wait for ours.
pub(crate) fn after_fork() {
    TURN.store(false, Ordering::Relaxed);
    let place = PLACE.load(Ordering::Acquire);
    // SAFETY: null, or a place that is never freed.
    if matches!(unsafe { place.as_ref() }, Some(Place::Stderr)) {
        let number = DESCRIPTOR.swap(-1, Ordering::Relaxed);
        PLACE.store(ptr::null_mut(), Ordering::Relaxed);
        if number >= 0 {
            // SAFETY: a descriptor of ours, and no other thread is here to use it.
            unsafe { libc::close(number) };
        }
    }
}

fn place() -> Option<&'static Place> {
    // SAFETY: null, or a place that is never freed.
    unsafe { PLACE.load(Ordering::Acquire).as_ref() }
}

fn is_at(wanted: &'static Place) -> bool {
    place().is_some_and(|place| ptr::eq(place, wanted))
}

/// Writes one line, if it can be done at once. `stamp` begins a line of our own.
pub(super) fn write(line: &str, stamp: &str) {
    let here = match place() {
        Some(Place::Stderr) if identity_of(standard(STDERR)) != descriptor().and_then(identity_of) => {
            // The application has closed its stderr, or opened another: what we have of it is let go as well.
            PLACE.store(ptr::null_mut(), Ordering::Release);
            put_nothing();
            look_if_possible()
        }
        Some(Place::Nowhere) | None => look_if_possible(),
        known => known,
    };
    match here {
        Some(Place::Nowhere) => return,
        Some(place @ Place::File(file)) => file.check(place),
        Some(Place::Stderr) => {}
        None => {
            LOST.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
    let Some(target) = descriptor() else { return };
    // Nobody waits for whoever should read this: the engine's threads write here.
    let mut wants = [PollFd::new(&target, PollFlags::OUT)];
    if !poll(&mut wants, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let lost = LOST.swap(0, Ordering::Relaxed);
    // A log that cannot be written has nobody to tell.
    let _ = if lost > 0 {
        let text = format!("{stamp} [WARNING] {lost} log messages were lost: nobody read them\n{line}");
        rustix::io::write(target, text.as_bytes())
    } else {
        rustix::io::write(target, line.as_bytes())
    };
}

fn look_if_possible() -> Option<&'static Place> {
    if IS_PHP.get() {
        look();
    }
    place()
}

/// Finds out where lines go. On PHP's thread.
fn look() {
    if !IN_REQUEST.get() {
        return;
    }
    let found = CHOSEN.get().into_iter().chain(files_of_workerman());
    for place in found {
        if open_file(place.path()).and_then(|opened| put(place, opened)).is_ok() {
            return;
        }
    }
    if has_stderr() {
        let duplicate = rustix::io::fcntl_dupfd_cloexec(standard(STDERR), STDERR + 1).map_err(io::Error::from).and_then(lift);
        if duplicate.and_then(|duplicate| put(&AT_STDERR, duplicate)).is_ok() {
            return;
        }
    }
    // What is open stays open: it is not written to.
    PLACE.store(ptr::from_ref(&NOWHERE).cast_mut(), Ordering::Release);
}

/// Whether what has number 2 is the application's stderr, and not what it happened to open after it had closed that.
fn has_stderr() -> bool {
    let Some(second) = identity_of(standard(STDERR)) else { return false };
    // SAFETY: asks PHP, on its thread, while a request runs.
    match unsafe { shim::heartbus_has_stderr() } {
        // The script has put it there.
        2 => true,
        // PHP has the constant also where the process began without one: then number 2 is whatever was opened since.
        0 | 1 if FIRST_STDERR.get().is_none() => false,
        1 => true,
        // Both standard numbers lead to the same file: a daemon that has opened its log twice.
        0 => fstat(standard(STDOUT)).is_ok_and(|first| identity(&first) == second && !is_socket(&first)),
        // SAFETY: asks PHP for its name of itself.
        _ if unsafe { shim::heartbus_is_cli() } => FIRST_STDERR.get() == Some(second),
        // Nothing that a script can close: it is the process manager's.
        _ => true,
    }
}

fn is_socket(found: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(found.st_mode).is_socket()
}

/// Where a daemon of Workerman's writes what others print: to its standard output's file, and else to its log. Version 5 closes
/// stderr and puts nothing in its place.
fn files_of_workerman() -> Vec<&'static Place> {
    let setting = |name: &str| {
        const WORKER: &str = r"Workerman\Worker";
        let mut value = Zval::new();
        // SAFETY: PHP's thread; C copies the value.
        unsafe {
            shim::heartbus_static_property(WORKER.as_ptr().cast(), WORKER.len(), name.as_ptr().cast(), name.len(), &raw mut value);
        }
        value
    };
    if !setting("daemonize").is_true() {
        return Vec::new();
    }
    let names = ["stdoutFile", "logFile"].map(|name| setting(name).str().unwrap_or_default().to_owned());
    let is_file = |name: &String| !name.is_empty() && !name.contains("://") && name != "/dev/null";
    names.into_iter().filter(is_file).filter_map(|name| std::path::absolute(name).ok()).map(file).collect()
}

/// The place of a file: always the same one.
fn file(path: PathBuf) -> &'static Place {
    FILES.with_borrow_mut(|files| {
        if let Some(known) = files.iter().find(|place| place.path() == path) {
            return *known;
        }
        let place: &'static Place = Box::leak(Box::new(Place::File(File { path, checked: AtomicI64::new(0) })));
        files.push(place);
        place
    })
}

fn open_file(path: &Path) -> io::Result<OwnedFd> {
    // NONBLOCK: a pipe that nobody reads is refused, and keeps no thread waiting.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    lift(open(path, flags, Mode::from_raw_mode(0o644))?)
}

/// Lets the descriptor lead to something else. The first time it gets its number.
fn put(place: &'static Place, opened: OwnedFd) -> io::Result<()> {
    while TURN.swap(true, Ordering::Acquire) {
        // An engine thread opens a file.
        std::thread::yield_now();
    }
    let done = put_now(opened);
    if done.is_ok() {
        PLACE.store(ptr::from_ref(place).cast_mut(), Ordering::Release);
    }
    TURN.store(false, Ordering::Release);
    done
}

fn put_now(opened: OwnedFd) -> io::Result<()> {
    let number = DESCRIPTOR.load(Ordering::Acquire);
    if number < 0 {
        DESCRIPTOR.store(opened.into_raw_fd(), Ordering::Release);
        return Ok(());
    }
    // SAFETY: two descriptors of ours; the second leads to the same as the first from now on.
    if unsafe { libc::dup3(opened.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn put_nothing() {
    // Without /dev/null it stays what it is, and is not written to.
    if let Ok(nothing) = open_file(Path::new("/dev/null")) {
        let _ = put_now(nothing);
    }
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::File(file) => &file.path,
            _ => Path::new(""),
        }
    }

    /// The descriptor leads to what the path leads to.
    fn is_current(&self) -> bool {
        stat(self.path()).ok().map(|found| identity(&found)).is_some_and(|there| descriptor().and_then(identity_of) == Some(there))
    }
}

impl File {
    /// Once a second at most: whether somebody has moved or removed the file. It is opened anew then; where that cannot be done,
    /// the old one is written on.
    fn check(&self, place: &'static Place) {
        let second = clock_gettime(ClockId::MonotonicCoarse).tv_sec;
        if self.checked.swap(second, Ordering::Relaxed) == second || place.is_current() {
            return;
        }
        let Ok(opened) = open_file(&self.path) else { return };
        if !TURN.swap(true, Ordering::Acquire) {
            // PHP's thread may have chosen another place meanwhile.
            if is_at(place) {
                let _ = put_now(opened);
            }
            TURN.store(false, Ordering::Release);
        }
    }
}
