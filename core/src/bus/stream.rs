//! A connection to an engine as both callers need it: the hello, the greeting, and frames out of bytes.
//!
//! Owns the socket and what has arrived over it. Does not know what the frames say.

use super::Welcome;
use crate::error::{Error, ErrorKind, reason};
pub(super) use crate::net::bus::remote::{broken, closed, error_of};
use crate::net::bus::socket;
use crate::process;
use crate::wire::bus::{self as wire, Role};
use bytes::{Buf, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Room made for a read: more after a read that filled it, less after one that did not.
const READ_BYTES: std::ops::RangeInclusive<usize> = 4 << 10..=256 << 10;

/// How often a connection is tried again while the engine's queue of new ones is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// How long a socket may take from its file to where it can be connected to. One that takes longer was left behind.
const MAKING_TIME: Duration = Duration::from_millis(200);

/// A connection, its greeting and what has arrived over it.
pub(super) struct EngineStream {
    pub(super) socket: UnixStream,
    input: BytesMut,
    /// Room to make for the next read.
    room: usize,
    pub(super) welcome: Option<Welcome>,
    pub(super) process: u32,
}

impl Drop for EngineStream {
    fn drop(&mut self) {
        // A process that was forked off this one may hold a copy of the descriptor: the engine is to see the end of ours. In
        // that process, it is not ours to end.
        if self.process == process::id() {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }
}

/// What became of bytes that could not be sent.
pub(super) struct Unsent {
    pub(super) written: usize,
    /// The connection is over; otherwise the engine only did not read in time.
    pub(super) is_dead: bool,
    pub(super) error: Error,
}

impl EngineStream {
    pub(super) fn open(path: &Path, role: Role, deadline: Instant) -> Result<Self, Error> {
        let socket = connect(path, deadline)?;
        let mut stream = Self { socket, input: BytesMut::new(), room: *READ_BYTES.start(), welcome: None, process: process::id() };
        let mut hello = Vec::with_capacity(32);
        wire::write_hello(&mut hello, wire::VERSION, role, std::process::id(), env!("CARGO_PKG_VERSION"));
        stream.send(&hello, deadline).map_err(|failed| failed.error)?;
        Ok(stream)
    }

    /// Sends all of it. What arrives meanwhile is taken in, for an engine that writes reads no further.
    pub(super) fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Unsent> {
        let mut written = 0;
        while written < bytes.len() {
            match send(&self.socket, &bytes[written..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let unsent = |error| Unsent { written, is_dead: false, error };
                    if !wait_for(self.socket.as_fd(), PollFlags::IN | PollFlags::OUT, deadline).map_err(unsent)? {
                        return Err(unsent(Error::new(ErrorKind::Timeout, "The engine did not read in time")));
                    }
                    self.fill().map_err(|error| Unsent { written, is_dead: true, error })?;
                }
                Err(errno) => {
                    // Perhaps it said why before it hung up.
                    let _ = self.fill();
                    let error = self.has_welcome().err().unwrap_or_else(|| lost(errno));
                    // Asking again would bring the same refusal.
                    let is_dead = matches!(error.kind, ErrorKind::Closed);
                    return Err(Unsent { written, is_dead, error });
                }
            }
        }
        Ok(())
    }

    /// Takes in everything that has arrived.
    pub(super) fn fill(&mut self) -> Result<(), Error> {
        while self.fill_once()? {}
        Ok(())
    }

    /// Takes in some of what has arrived; false when there was nothing.
    pub(super) fn fill_once(&mut self) -> Result<bool, Error> {
        let before = self.input.len();
        self.input.resize(before + self.room, 0);
        let received = loop {
            match recv(&self.socket, &mut self.input[before..], RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                received => break received.map(|(count, _)| count),
            }
        };
        self.input.truncate(before + received.unwrap_or(0));
        let next = if received == Ok(self.room) { self.room * 2 } else { self.room / 2 };
        self.room = next.clamp(*READ_BYTES.start(), *READ_BYTES.end());
        match received {
            Ok(0) => Err(closed()),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(lost(errno)),
        }
    }

    /// Whether the engine has welcomed us yet.
    pub(super) fn has_welcome(&mut self) -> Result<bool, Error> {
        if self.welcome.is_none()
            && let Some((greeting, len)) = wire::parse_greeting(&self.input).map_err(broken)?
        {
            self.input.advance(len);
            self.welcome = Some(greeting.map_err(error_of)?);
        }
        Ok(self.welcome.is_some())
    }

    pub(super) fn await_welcome(&mut self, deadline: Instant) -> Result<(), Error> {
        while !self.has_welcome()? {
            if !wait_for(self.socket.as_fd(), PollFlags::IN, deadline)? {
                return Err(Error::new(ErrorKind::Timeout, "The engine did not answer the hello in time"));
            }
            // A refusal is followed by the end: it is read before the end is told.
            if let Err(error) = self.fill() {
                return if self.has_welcome()? { Ok(()) } else { Err(error) };
            }
        }
        Ok(())
    }

    /// The next whole frame, without its length.
    pub(super) fn frame(&mut self) -> Result<Option<BytesMut>, Error> {
        let cap = self.welcome.as_ref().map_or(wire::FRAME_CAP, |welcome| welcome.frame_cap);
        let Some(len) = wire::frame_len(&self.input, cap).map_err(broken)? else { return Ok(None) };
        if self.input.len() < len {
            // In one piece, not by doubling.
            self.input.reserve(len - self.input.len());
            return Ok(None);
        }
        let mut frame = self.input.split_to(len);
        frame.advance(wire::LENGTH_LEN);
        Ok(Some(frame))
    }
}

fn connect(path: &Path, deadline: Instant) -> Result<UnixStream, Error> {
    let made_by = deadline.min(Instant::now() + MAKING_TIME);
    loop {
        match socket::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::PermissionDenied)
                    && Instant::now() < made_by
                    && socket::is_being_made(path) =>
            {
                std::thread::sleep(FULL_QUEUE_PAUSE);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    let text = format!("The engine at {} accepted no connection in time", path.display());
                    return Err(Error::new(ErrorKind::Timeout, text));
                }
                std::thread::sleep(FULL_QUEUE_PAUSE);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let text = format!("No right to use the Heartbus server at {} (see bus_group)", path.display());
                return Err(Error::new(ErrorKind::Io, text));
            }
            Err(error) => {
                let text = format!("No Heartbus server at {}: {}", path.display(), reason(&error));
                return Err(Error::new(ErrorKind::Io, text));
            }
        }
    }
}

/// Waits until the descriptor is as wanted, or hung up; false when the time is over.
pub(super) fn wait_for(fd: BorrowedFd<'_>, wanted: PollFlags, deadline: Instant) -> Result<bool, Error> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(fd, wanted)], Some(&left)) {
            Ok(count) => return Ok(count > 0),
            // A signal: its handler has run, and we wait on.
            Err(Errno::INTR) => {}
            Err(errno) => return Err(lost(errno)),
        }
    }
}

pub(super) fn lost(errno: Errno) -> Error {
    match errno {
        Errno::PIPE | Errno::CONNRESET => closed(),
        errno => Error::new(ErrorKind::Io, format!("The bus socket failed: {}", reason(&errno.into()))),
    }
}
