//! What carries the bytes of a connection between its peer and its session.
//!
//! Owns the socket, and how bytes go through it. Knows nothing of frames, nor when there is something to read or write. What
//! changes bytes on their way, as encryption does, is another kind of transport; whoever reads and writes does not notice.

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::SockRef;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

pub(super) enum Transport {
    /// TCP, and nothing between it and the session.
    Plain(TcpStream),
}

impl Transport {
    /// Has the poll tell, under `token`, when there is something to read, or room to write.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Plain(socket) => registry.register(socket, token, Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY),
        }
    }

    /// Reads what has come, as much as there is room for; nothing is the end.
    pub(super) fn recv(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Plain(socket) => net::recv(socket, buffer, RecvFlags::empty()).map(|(count, _)| count),
        }
    }

    /// Writes as much as there is room for, and says how much that was.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Plain(socket) => net::send(socket, bytes, SendFlags::NOSIGNAL),
        }
    }

    /// As [`Transport::send`], of several pieces in a row.
    pub(super) fn send_pieces(&self, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
        match self {
            Self::Plain(socket) => net::sendmsg(socket, pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL),
        }
    }

    /// What is sent and that nobody has acknowledged within so many microseconds breaks the connection: for peers that are silent for as
    /// long as they like, so that nothing else says that they are gone.
    pub(super) fn notice_loss_within(&self, micros: u64) {
        match self {
            // Where the system cannot, it takes as long as it takes.
            Self::Plain(socket) => drop(SockRef::from(socket).set_tcp_user_timeout(Some(Duration::from_micros(micros)))),
        }
    }

    /// Ends a direction, for every process that holds the socket. The peer may be gone already, and that is fine.
    pub(super) fn shut_down(&self, how: Shutdown) {
        match self {
            Self::Plain(socket) => drop(socket.shutdown(how)),
        }
    }
}

impl From<TcpStream> for Transport {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }
}
