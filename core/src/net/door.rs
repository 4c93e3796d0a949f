//! A door of an I/O thread: an address at which connections come in.
//!
//! Owns the listening socket, and the token of its events. Who is let in is not its business.

use super::transport::Transport;
use crate::descriptor::lift;
use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use socket2::SockRef;
use std::io;
use std::net::{Shutdown, SocketAddr};

/// Doors that a thread may have.
const MAX_DOORS: usize = 64;
/// The tokens above are the thread's own, those far below are its connections'.
const FIRST: usize = usize::MAX - 16;

/// What is spoken by those who come in at a door.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// The bus protocol; and other protocols, where the main port has them too.
    Bus,
    WebSocket,
    /// What Firetower's gateways speak with their manager.
    Firetower,
}

pub(super) struct Door {
    listener: TcpListener,
    pub(super) spoken: Spoken,
    /// Somebody may be there.
    pub(super) is_ready: bool,
}

impl Door {
    /// # Errors
    /// A thread has so many already; the system has no memory left.
    pub(super) fn open(index: usize, mut listener: TcpListener, spoken: Spoken, registry: &Registry) -> io::Result<Self> {
        if index >= MAX_DOORS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a server listens on at most {MAX_DOORS} addresses")));
        }
        registry.register(&mut listener, Token(FIRST - index), Interest::READABLE)?;
        Ok(Self { listener, spoken, is_ready: false })
    }

    /// Lets one connection in that waits.
    pub(super) fn accept(&self) -> io::Result<(Transport, SocketAddr)> {
        let (socket, peer) = self.listener.accept()?;
        Ok((Transport::Plain(lift(socket)?), peer))
    }

    pub(super) fn close(self) {
        // Not only dropped: in a process that was forked off this one it would go on listening, and nobody would answer.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

/// Which door an event is about; `None`: it is about a connection.
pub(super) fn door_of(token: Token) -> Option<usize> {
    FIRST.checked_sub(token.0).filter(|index| *index < MAX_DOORS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::net::TcpStream;
    use std::time::Duration;

    fn listener() -> TcpListener {
        TcpListener::bind(([127, 0, 0, 1], 0).into()).unwrap()
    }

    #[test]
    fn whoever_knocks_is_known_by_the_door() {
        let mut poll = Poll::new().unwrap();
        let listeners = [listener(), listener(), listener()];
        let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let doors: Vec<Door> = listeners
            .into_iter()
            .enumerate()
            .map(|(index, listener)| Door::open(index, listener, Spoken::Bus, poll.registry()).unwrap())
            .collect();
        let visitor = TcpStream::connect(addresses[1]).unwrap();
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        let knocked: Vec<_> = events.iter().map(|event| door_of(event.token())).collect();
        assert_eq!(knocked, [Some(1)]);
        assert_eq!(doors[1].accept().unwrap().1, visitor.local_addr().unwrap());
        assert_eq!(doors[0].accept().err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn a_connection_is_no_door_and_there_are_not_more_doors_than_tokens() {
        assert_eq!([0, 1, 1 << 40, FIRST - MAX_DOORS].map(|token| door_of(Token(token))), [None; 4]);
        assert_eq!([FIRST, FIRST - MAX_DOORS + 1].map(|token| door_of(Token(token))), [Some(0), Some(MAX_DOORS - 1)]);
        assert_eq!([FIRST + 1, usize::MAX].map(|token| door_of(Token(token))), [None; 2]);
        let poll = Poll::new().unwrap();
        assert!(Door::open(MAX_DOORS, listener(), Spoken::Bus, poll.registry()).is_err());
    }
}
