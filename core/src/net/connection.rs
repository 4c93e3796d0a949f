//! One accepted connection: its socket, its session, and the bytes that are kept only while they must be.
//!
//! Owns reading into frames and writing out. Does not know other connections or when it is called: [`super::io`] does.

use crate::hub::link::Waiting;
use crate::hub::session::Context;
use crate::hub::wheel::Key;
use crate::hub::{Hub, Link, Next, Session};
use bytes::{Buf, Bytes};
use mio::net::TcpStream;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

/// Pieces handed to one `writev`. More would not make a call cheaper that is already dominated by copying.
const PIECES: usize = 64;

pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) link: Arc<Link>,
    pub(super) phase: Phase,
    /// The start of a frame whose rest has not come yet, or frames that the host had no room for. Empty and without
    /// memory otherwise.
    partial: Vec<u8>,
    /// What the socket did not take yet. Empty and without memory while the peer reads.
    backlog: VecDeque<Bytes>,
    /// The host has no room: reading stopped until it says otherwise.
    pub(super) host_full: bool,
    /// The peer does not read what it asked for: reading stopped until it has taken half.
    pub(super) peer_slow: bool,
    /// When the peer last took something that had waited, in monotonic microseconds.
    pub(super) took_at: u64,
    /// The socket took less than it was given; it says when it can take more.
    pub(super) write_blocked: bool,
    /// The peer closed its side, as an event said; reading ends at zero, not at the first short read.
    pub(super) hangup: bool,
    /// On the thread's list of connections to go on with.
    pub(super) listed: bool,
    /// Counted against the limits on connections (those refused at the door are not).
    pub(super) counted: bool,
}

pub(super) enum Phase {
    Open(Session),
    /// The last frames are being written; then the peer is given until the timer to close its side, because closing
    /// with unread bytes in the socket would take the last frames away from it.
    Ending(Option<Key>),
}

impl Connection {
    pub(super) fn new(socket: TcpStream, link: Arc<Link>, phase: Phase, counted: bool) -> Connection {
        Connection {
            socket,
            link,
            phase,
            partial: Vec::new(),
            backlog: VecDeque::new(),
            host_full: false,
            peer_slow: false,
            took_at: 0,
            write_blocked: false,
            hangup: false,
            listed: false,
            counted,
        }
    }

    pub(super) fn is_reading_stopped(&self) -> bool {
        self.host_full || self.peer_slow
    }

    /// Whether the silence here is of our own making. A peer that does not read what it asked for is excused only as long
    /// as it takes some of it within `timeout`; after a late tick, who has more to read than was read is excused as well.
    pub(super) fn is_excused(&self, now: u64, timeout: u64, is_late: bool) -> bool {
        self.host_full || self.peer_slow && now <= self.took_at + timeout || is_late && self.listed
    }

    /// Bytes of memory that wait here.
    pub(super) fn held(&self) -> usize {
        self.link.queued() + self.partial.len()
    }

    pub(super) fn partial_len(&self) -> usize {
        self.partial.len()
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Hands bytes to the session, behind those that were kept, and keeps what is not a whole frame yet. With empty
    /// `input` the session gets another look at what was kept.
    pub(super) fn feed(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Next {
        let Phase::Open(session) = &mut self.phase else {
            return Next::Continue;
        };
        let before = self.partial.len();
        let next = if self.partial.is_empty() {
            let (consumed, next) = session.receive(cx, input);
            self.partial.extend_from_slice(&input[consumed..]);
            next
        } else {
            self.partial.extend_from_slice(input);
            let (consumed, next) = session.receive(cx, &self.partial);
            if consumed == self.partial.len() {
                self.partial = Vec::new();
            } else {
                self.partial.drain(..consumed);
            }
            next
        };
        let after = self.partial.len();
        if after >= before {
            cx.hub.add_buffered(after - before);
        } else {
            cx.hub.remove_buffered(before - after);
        }
        self.host_full = next == Next::Wait;
        next
    }

    /// Takes over what other threads queued.
    pub(super) fn take_outbox(&mut self, waiting: &mut Waiting) {
        if self.backlog.is_empty() {
            std::mem::swap(&mut self.backlog, &mut waiting.outbox);
        } else {
            self.backlog.append(&mut waiting.outbox);
        }
    }

    /// Writes replies, keeping what the socket does not take, behind what waits already.
    pub(super) fn write(&mut self, hub: &Hub, replies: &[u8]) -> io::Result<u64> {
        let mut written = 0;
        if self.backlog.is_empty() && !self.write_blocked {
            written = self.write_some(replies)?;
        }
        if written < replies.len() {
            let rest = Bytes::copy_from_slice(&replies[written..]);
            self.link.add_queued(rest.len());
            hub.add_buffered(rest.len());
            self.backlog.push_back(rest);
        }
        Ok(written as u64)
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.socket.write(bytes) {
                Ok(written) => {
                    self.write_blocked = written < bytes.len();
                    self.link.count_out(written as u64);
                    return Ok(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.write_blocked = true;
                    return Ok(0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what waits, as much as the socket takes.
    pub(super) fn flush(&mut self, hub: &Hub) -> io::Result<u64> {
        let mut total = 0;
        while !self.backlog.is_empty() && !self.write_blocked {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let count = self.backlog.iter().zip(&mut pieces).map(|(bytes, piece)| *piece = IoSlice::new(bytes)).count();
            match self.socket.write_vectored(&pieces[..count]) {
                Ok(written) => {
                    let offered: usize = pieces[..count].iter().map(|piece| piece.len()).sum();
                    self.write_blocked = written < offered;
                    self.forget_written(written);
                    self.link.count_out(written as u64);
                    self.link.remove_queued(written);
                    hub.remove_buffered(written);
                    total += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.write_blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.backlog.is_empty() {
            self.backlog = VecDeque::new();
        }
        Ok(total)
    }

    fn forget_written(&mut self, mut written: usize) {
        while let Some(first) = self.backlog.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.backlog.pop_front();
        }
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Tells the peer that nothing more will come. It may be gone already, and that is fine.
    pub(super) fn shut_down_writing(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends both directions, for every process that holds the socket.
    pub(super) fn shut_down(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Gives up what is still kept; to be called once, before the connection is dropped.
    pub(super) fn release(&mut self, hub: &Hub) {
        hub.remove_buffered(self.link.close() + std::mem::take(&mut self.partial).len());
    }
}
