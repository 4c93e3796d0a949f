//! One accepted connection: its socket, its session, and the bytes that are kept only while they must be.
//!
//! Owns reading into frames and writing out. Does not know other connections or when it is called: [`super::io`] does.

use crate::hub::session::Context;
use crate::hub::wheel::Key;
use crate::hub::{Hub, Link, Next, Session};
use crate::wire::{Dialect, v2};
use bytes::{Buf, Bytes};
use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;

/// Pieces handed to one `sendmsg`. More would not make a call cheaper that is already dominated by copying.
const PIECES: usize = 64;
/// What is no longer than this altogether is put together first: copying it twice is less than what `sendmsg` takes to look
/// at each piece, and the frames of a fan-out are a small head and a shared tail.
const SMALL: usize = 1024;

pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) phase: Phase,
    /// What is kept only while it must be.
    rest: Option<Box<Rest>>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// The host has no room: reading stopped until it says otherwise.
    pub(super) host_full: bool,
    /// The peer does not read what it asked for: reading stopped until it has taken half.
    pub(super) peer_slow: bool,
    /// The socket took less than it was given; it says when it can take more.
    pub(super) write_blocked: bool,
    /// The peer closed its side, as an event said; reading ends at zero, not at the first short read.
    pub(super) hangup: bool,
    /// On the thread's list of connections to go on with.
    pub(super) listed: bool,
    /// Counted against the limits on connections (those refused at the door are not).
    pub(super) counted: bool,
}

/// Bytes that are kept. A connection that idles has none.
#[derive(Default)]
struct Rest {
    /// The start of a frame whose rest has not come yet, or frames that the host had no room for.
    partial: Vec<u8>,
    /// What the socket did not take yet.
    backlog: VecDeque<Bytes>,
    /// From the first frame on that has to be in v2, until the peer speaks it.
    held: VecDeque<Bytes>,
    /// When the peer last took something that had waited, in monotonic microseconds.
    took_at: u64,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.backlog.is_empty() && self.held.is_empty()
    }
}

/// What the connections of a thread lend each other: emptied [`Rest`]s with the memory of their queues, so that in the steady
/// state a push to an idle connection allocates nothing, and a place where small pieces are put together.
pub(super) struct Spare {
    #[expect(clippy::vec_box, reason = "connections keep boxes")]
    rests: Vec<Box<Rest>>,
    small: [u8; SMALL],
}

impl Default for Spare {
    fn default() -> Spare {
        Spare { rests: Vec::new(), small: [0; SMALL] }
    }
}

/// More of them than passes have letters are of no use.
const MAX_SPARE: usize = 1024;
/// A queue that grew longer is not worth keeping.
const MAX_SPARE_QUEUE: usize = 64;

impl Spare {
    fn take(&mut self) -> Box<Rest> {
        self.rests.pop().unwrap_or_default()
    }

    /// One write of what waits, from its beginning: how many bytes were offered, and what the socket took of them.
    fn send(&mut self, socket: &TcpStream, backlog: &VecDeque<Bytes>) -> (usize, rustix::io::Result<usize>) {
        if backlog.len() == 1
            && let Some(only) = backlog.front()
        {
            return (only.len(), net::send(socket, only, SendFlags::NOSIGNAL));
        }
        let mut len = 0;
        for piece in backlog {
            let Some(room) = self.small.get_mut(len..len + piece.len()) else {
                let mut pieces = [IoSlice::new(&[]); PIECES];
                let count = backlog.iter().zip(&mut pieces).map(|(bytes, piece)| *piece = IoSlice::new(bytes)).count();
                let offered = pieces[..count].iter().map(|piece| piece.len()).sum();
                return (offered, net::sendmsg(socket, &pieces[..count], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL));
            };
            room.copy_from_slice(piece);
            len += piece.len();
        }
        (len, net::send(socket, &self.small[..len], SendFlags::NOSIGNAL))
    }

    /// Takes back what is empty.
    fn put_back(&mut self, mut rest: Box<Rest>) {
        if self.rests.len() < MAX_SPARE && rest.backlog.capacity() <= MAX_SPARE_QUEUE {
            rest.partial = Vec::new();
            rest.held = VecDeque::new();
            self.rests.push(rest);
        }
    }
}

pub(super) enum Phase {
    Open(Session),
    /// The last frames are being written; then the peer is given until the timer to close its side, because closing
    /// with unread bytes in the socket would take the last frames away from it.
    Ending {
        link: Arc<Link>,
        timer: Option<Key>,
    },
}

impl Phase {
    fn link(&self) -> &Arc<Link> {
        match self {
            Phase::Open(session) => session.link(),
            Phase::Ending { link, .. } => link,
        }
    }
}

impl Connection {
    pub(super) fn new(socket: TcpStream, phase: Phase, counted: bool) -> Connection {
        Connection {
            socket,
            phase,
            rest: None,
            bytes_in: 0,
            bytes_out: 0,
            host_full: false,
            peer_slow: false,
            write_blocked: false,
            hangup: false,
            listed: false,
            counted,
        }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        self.phase.link()
    }

    pub(super) fn is_reading_stopped(&self) -> bool {
        self.host_full || self.peer_slow
    }

    /// Whether the silence here is of our own making. A peer that does not read what it asked for is excused only as long
    /// as it takes some of it within `timeout`; after a late tick, who has more to read than was read is excused as well.
    pub(super) fn is_excused(&self, now: u64, timeout: u64, is_late: bool) -> bool {
        let takes = || self.rest.as_ref().is_some_and(|rest| now <= rest.took_at + timeout);
        self.host_full || self.peer_slow && takes() || is_late && self.listed
    }

    /// The peer has taken something that had waited, or is asked to from now on.
    pub(super) fn set_took_at(&mut self, now: u64) {
        if let Some(rest) = &mut self.rest {
            rest.took_at = now;
        }
    }

    /// Bytes of memory that wait here.
    pub(super) fn held(&self) -> usize {
        self.link().queued() + self.partial_len()
    }

    pub(super) fn partial_len(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.partial.len())
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Hands bytes to the session, behind those that were kept, and keeps what is not a whole frame yet. With empty
    /// `input` the session gets another look at what was kept.
    pub(super) fn feed(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Next {
        let Phase::Open(session) = &mut self.phase else {
            return Next::Continue;
        };
        let before = self.rest.as_ref().map_or(0, |rest| rest.partial.len());
        let next = match &mut self.rest {
            Some(rest) if before > 0 => {
                rest.partial.extend_from_slice(input);
                let (consumed, next) = session.receive(cx, &rest.partial);
                if consumed == rest.partial.len() {
                    rest.partial = Vec::new();
                } else {
                    rest.partial.drain(..consumed);
                }
                next
            }
            rest => {
                let (consumed, next) = session.receive(cx, input);
                if consumed < input.len() {
                    rest.get_or_insert_default().partial.extend_from_slice(&input[consumed..]);
                }
                next
            }
        };
        self.host_full = next == Next::Wait;
        if let Some(rest) = &self.rest {
            let after = rest.partial.len();
            if after >= before {
                cx.hub.add_buffered(after - before);
            } else {
                cx.hub.remove_buffered(before - after);
            }
            if rest.is_empty() {
                self.rest = None;
            }
        }
        next
    }

    /// Queues what another thread wants written; `flush` writes it.
    pub(super) fn enqueue(&mut self, parts: [Bytes; 2], spare: &mut Spare) {
        let speaks_v2 = self.phase.link().dialect() == Dialect::V2;
        let rest = self.rest.get_or_insert_with(|| spare.take());
        let is_held = !rest.held.is_empty() || !speaks_v2 && parts[0].starts_with(&v2::MAGIC.to_be_bytes());
        let queue = if is_held { &mut rest.held } else { &mut rest.backlog };
        queue.extend(parts.into_iter().filter(|part| !part.is_empty()));
    }

    /// Whether frames were held back for a peer that has spoken v2 now. They are queued then.
    pub(super) fn release_held(&mut self) -> bool {
        match &mut self.rest {
            Some(rest) if !rest.held.is_empty() && self.phase.link().dialect() == Dialect::V2 => {
                rest.backlog.append(&mut rest.held);
                true
            }
            _ => false,
        }
    }

    /// Writes replies, keeping what the socket does not take, behind what waits already.
    pub(super) fn write(&mut self, hub: &Hub, replies: &[u8]) -> io::Result<u64> {
        let mut written = 0;
        if !self.has_backlog() && !self.write_blocked {
            written = self.write_some(replies)?;
        }
        if written < replies.len() {
            let left = Bytes::copy_from_slice(&replies[written..]);
            self.link().add_queued(left.len());
            hub.add_buffered(left.len());
            self.rest.get_or_insert_default().backlog.push_back(left);
        }
        Ok(written as u64)
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(written) => {
                    self.write_blocked = written < bytes.len();
                    self.bytes_out += written as u64;
                    return Ok(written);
                }
                Err(Errno::AGAIN) => {
                    self.write_blocked = true;
                    return Ok(0);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes what waits, as much as the socket takes.
    pub(super) fn flush(&mut self, hub: &Hub, spare: &mut Spare) -> io::Result<u64> {
        let mut total = 0;
        let Some(rest) = &mut self.rest else { return Ok(0) };
        while !rest.backlog.is_empty() && !self.write_blocked {
            let (offered, result) = spare.send(&self.socket, &rest.backlog);
            match result {
                Ok(written) => {
                    self.write_blocked = written < offered;
                    forget_written(&mut rest.backlog, written);
                    self.bytes_out += written as u64;
                    self.phase.link().remove_queued(written);
                    hub.remove_buffered(written);
                    total += written as u64;
                }
                Err(Errno::AGAIN) => self.write_blocked = true,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if rest.is_empty()
            && let Some(rest) = self.rest.take()
        {
            spare.put_back(rest);
        }
        Ok(total)
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| !rest.backlog.is_empty())
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
        self.link().close();
        if let Some(rest) = self.rest.take() {
            let waiting: usize = rest.backlog.iter().chain(&rest.held).map(Bytes::len).sum();
            hub.remove_buffered(waiting + rest.partial.len());
        }
    }
}

fn forget_written(backlog: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = backlog.front_mut() {
        if written < first.len() {
            first.advance(written);
            return;
        }
        written -= first.len();
        backlog.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InboxLimits;
    use crate::hub::Limits;
    use crate::hub::link::{Letter, Postbox};
    use crate::hub::replies::Replies;
    use crate::hub::{Counters, Journal, Now, Wheel};
    use crate::inbox::Inbox;
    use crate::wire::{self, FrameType};
    use allocation_counter::measure;
    use std::io::Read;

    struct Nobody;

    impl Postbox for Nobody {
        fn post(&self, _letter: Letter) {}
    }

    fn pair() -> (Connection, std::net::TcpStream, Hub) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let link = Arc::new(Link::new(1, address, 0, Arc::new(Nobody)));
        let limits = Limits {
            heartbeat_timeout: 1_000_000,
            register_timeout: 1_000_000,
            max_nodes_per_connection: 10,
            max_nodes: 10,
            max_frame_bytes: 1 << 20,
            outbox_bytes: 1 << 20,
            close_slow_consumers: true,
            rate_limit: None,
            max_requests_per_second: 0,
        };
        let hub = Hub::new(limits, Inbox::new(InboxLimits::default()).unwrap());
        (Connection::new(TcpStream::from_std(socket), Phase::Ending { link, timer: None }, true), peer, hub)
    }

    #[test]
    fn a_connection_is_small() {
        // mio keeps another eight bytes per socket in debug builds.
        let debug = if cfg!(debug_assertions) { 8 } else { 0 };
        let bytes = size_of::<Option<Connection>>();
        assert!(bytes <= 80 + debug, "{bytes} bytes");
    }

    #[test]
    fn writing_to_an_idle_connection_allocates_nothing_and_leaves_nothing_behind() {
        let (mut connection, mut peer, hub) = pair();
        let mut spare = Spare::default();
        let mut push = |connection: &mut Connection| {
            let parts = [Bytes::from_static(b"head"), Bytes::from_static(b" and tail")];
            connection.link().add_queued(13);
            hub.add_buffered(13);
            connection.enqueue(parts, &mut spare);
            assert_eq!(connection.flush(&hub, &mut spare).unwrap(), 13);
            assert!(connection.rest.is_none() && !connection.has_backlog());
        };
        push(&mut connection);
        let cost = measure(|| (0..1000).for_each(|_| push(&mut connection)));
        assert_eq!(cost.count_total, 0, "{cost:?}");
        assert_eq!((connection.bytes_out, connection.held(), hub.buffered()), (1001 * 13, 0, 0));
        let mut got = [0; 26];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"head and tailhead and tail");
    }

    #[test]
    fn half_a_frame_is_kept_until_the_other_half_comes_and_then_there_is_no_buffer_any_more() {
        let (mut connection, _peer, hub) = pair();
        let (mut wheel, mut replies, mut journal) = (Wheel::new(1), Replies::default(), Journal::new(0));
        let mut cx = Context {
            hub: &hub,
            counters: &Counters::default(),
            wheel: &mut wheel,
            replies: &mut replies,
            random: &mut fastrand::Rng::with_seed(1),
            journal: &mut journal,
            now: Now { mono: 1, unix: 1 },
        };
        connection.phase = Phase::Open(Session::open(connection.link().clone(), &mut cx));
        let mut ping = Vec::new();
        wire::encode(Dialect::V1, FrameType::PING, 0, b"", &mut ping).unwrap();
        let (half, other) = ping.split_at(5);
        for _ in 0..2 {
            assert_eq!(connection.feed(&mut cx, half), Next::Continue);
            assert!(connection.rest.is_some() && connection.held() == 5 && hub.buffered() == 5 && cx.replies.is_empty());
            assert_eq!(connection.feed(&mut cx, other), Next::Continue);
            assert!(connection.rest.is_none() && connection.held() == 0 && hub.buffered() == 0);
            assert!(!cx.replies.is_empty());
            cx.replies.clear();
        }
    }

    #[test]
    fn what_the_socket_does_not_take_is_kept_until_it_does_and_then_there_is_no_buffer_any_more() {
        const BYTES: usize = 16 << 20;
        let (mut connection, mut peer, hub) = pair();
        let mut spare = Spare::default();
        let taken = connection.write(&hub, &vec![b'x'; BYTES]).unwrap() as usize;
        assert!(taken < BYTES && connection.write_blocked && hub.buffered() == BYTES - taken);
        let reader = std::thread::spawn(move || peer.read_exact(&mut vec![0; BYTES]));
        while connection.has_backlog() {
            // As the event would say that it is writable.
            connection.write_blocked = false;
            connection.flush(&hub, &mut spare).unwrap();
        }
        reader.join().unwrap().unwrap();
        assert!(connection.rest.is_none() && connection.held() == 0 && hub.buffered() == 0);
    }
}
