//! The numbers that the engine's descriptors have: 1,024 and above.
//!
//! Owns the choice of a number, and the limit. Does not know what a descriptor is for.
//!
//! The numbers below are the host's: select() knows no others, and ReactPHP, Revolt and Workerman 4 call it. Of these, 0 to 2 are the
//! standard streams even where the host has closed them: whoever still writes to one must not reach a stranger's connection.

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The first number of the engine's: that of `FD_SETSIZE`.
pub const FLOOR: RawFd = 1024;

/// The first number that is no standard stream's.
const STANDARD: RawFd = 3;

/// Raises the descriptor limit as far as the system lets us, and returns where it stands.
pub fn raise_limit() -> Option<usize> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
            Ok(()) => limit.current = limit.maximum,
            Err(error) => tracing::debug!(%error, "Cannot raise the descriptor limit"),
        }
    }
    // Without a number there is no limit.
    limit.current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Descriptors kept free for the host: its files, its database connections, refused connections that are ending.
const SPARE: usize = 128;

/// How many descriptors a server may have for whom, so that none takes what the others need.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Connections over TCP,
    pub connections: usize,
    /// and callers of the bus socket.
    pub callers: usize,
}

impl Shares {
    /// The callers get an eighth of what `limit` allows, and no more than `most_callers`.
    pub fn of(limit: usize, most_callers: usize) -> Self {
        let shared = limit.saturating_sub(SPARE);
        let callers = (shared / 8).max(1).min(most_callers);
        Self { connections: (shared - callers.min(shared)).max(1), callers }
    }
}

/// Gives a descriptor a number of the engine's. Where none is left it keeps its own, which the log says once; where the limit allows
/// none, it keeps its own.
///
/// # Errors
/// It has the number of a standard stream, and there is no other.
pub fn lift<T: From<OwnedFd>>(made: T) -> io::Result<T>
where
    OwnedFd: From<T>,
{
    let low = OwnedFd::from(made);
    if low.as_raw_fd() >= FLOOR {
        return Ok(low.into());
    }
    match fcntl_dupfd_cloexec(&low, FLOOR) {
        Ok(high) => Ok(high.into()),
        Err(errno) => {
            tell_once(errno);
            if low.as_raw_fd() < STANDARD { Ok(fcntl_dupfd_cloexec(&low, STANDARD)?.into()) } else { Ok(low.into()) }
        }
    }
}

/// Another descriptor of the same, for a host that may call select() on it: the lowest number that is no standard stream's.
///
/// # Errors
/// No descriptor is left.
pub fn lower(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, STANDARD)?)
}

/// Makes something that keeps the numbers of its descriptors to itself, so that they cannot be changed afterwards: meanwhile all
/// numbers below the engine's are taken. That is a matter of a millisecond, and no fork falls into it where the host says when it
/// forks ([`begin_fork`]). Another thread that opens something at that moment gets a number of the engine's.
pub fn lifted<T>(make: impl FnOnce() -> T) -> T {
    lifted_in(&Turn::take(), make)
}

/// As [`lifted`], for who has the turn already.
pub(crate) fn lifted_in<T>(_turn: &Turn, make: impl FnOnce() -> T) -> T {
    let _taken = take_below(FLOOR);
    make()
}

/// Does something that opens descriptors of its own for a while, as the system's resolver does: not at the standard streams' numbers.
pub fn off_the_standard_streams<T>(work: impl FnOnce() -> T) -> T {
    let _taken = take_below(STANDARD);
    work()
}

/// Takes all free numbers below `floor`, or the standard streams' alone where the limit allows no more.
fn take_below(floor: RawFd) -> Vec<OwnedFd> {
    let allowed = getrlimit(Resource::Nofile).current.is_none_or(|limit| limit > FLOOR as u64);
    let floor = if allowed { floor } else { STANDARD };
    let mut taken = Vec::new();
    let Ok(plug) = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else { return taken };
    let mut next = Ok(plug);
    while let Ok(fd) = next {
        if fd.as_raw_fd() >= floor {
            return taken;
        }
        next = fcntl_dupfd_cloexec(&fd, 0);
        taken.push(fd);
    }
    // No number is left at all: others need those that are of no use here.
    taken.retain(|fd| fd.as_raw_fd() < STANDARD);
    taken
}

fn tell_once(errno: Errno) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    // Below a limit that allows no higher numbers nobody has one that select() does not know.
    if errno != Errno::INVAL && !TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            error = %io::Error::from(errno),
            "No descriptor number above {FLOOR} is left: the engine takes those below, which select() in the application needs"
        );
    }
}

/// Somebody holds all the low numbers, or forks.
static TURN: AtomicBool = AtomicBool::new(false);

/// Nobody forks while it is there, where the host says when it does.
pub(crate) struct Turn(());

impl Turn {
    pub(crate) fn take() -> Self {
        begin_fork();
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        end_fork();
    }
}

/// For a host whose threads may fork while another starts an engine: to be called before each fork. Waits for a millisecond at most.
pub fn begin_fork() {
    while TURN.swap(true, Ordering::Acquire) {
        thread::yield_now();
    }
}

/// To be called after each fork, in the parent and in the child.
pub fn end_fork() {
    TURN.store(false, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_and_connections_share_the_limit_and_leave_the_host_its_own() {
        assert_eq!(Shares::of(1 << 20, 4352), Shares { connections: (1 << 20) - 128 - 4352, callers: 4352 });
        assert_eq!(Shares::of(1024, 4352), Shares { connections: 784, callers: 112 });
        assert_eq!(Shares::of(1024, 0), Shares { connections: 896, callers: 0 });
        // Below what a server needs there is one of each: who wants in is told so.
        assert_eq!(Shares::of(100, 4352), Shares { connections: 1, callers: 1 });
        for limit in 137..10_000 {
            let Shares { connections, callers } = Shares::of(limit, 4352);
            assert_eq!(connections + callers + SPARE, limit);
        }
    }
}
