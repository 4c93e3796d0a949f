//! One accepted connection: its transport, its session, and the bytes that are kept only while they must be.
//!
//! Owns reading into frames and writing out. Does not know other connections or when it is called: [`super::io`] does.

use super::outbox::{Outbox, SMALL, USUAL_QUEUE};
use super::transport::Transport;
use crate::hub::frame::QueuedFrame;
use crate::hub::memory::{Memory, Part};
use crate::hub::session::Context;
use crate::hub::wheel::TimerKey;
use crate::hub::{Hub, Link, Next, Session, Timer, TimerKind, Wheel};
use crate::model::CloseReason;
use crate::wire::{self, Dialect};
use rustix::io::Errno;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;

pub(super) struct Connection {
    transport: Transport,
    pub(super) phase: Phase,
    /// What is kept only while it must be.
    buffers: Option<Box<Buffers>>,
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
    /// Urgent data came, as an event said; reading ends when nothing is left.
    pub(super) urgent: bool,
    /// On one of the thread's lists of connections to go on with.
    pub(super) listed: bool,
    /// The nodes were told that the outbox is full, and are to be told when it is empty.
    pub(super) told_full: bool,
    /// Counted against the limits on connections (those refused at the door are not).
    pub(super) counted: bool,
}

/// Bytes that are kept. A connection that idles has none.
#[derive(Default)]
struct Buffers {
    /// The start of a frame whose rest has not come yet, or frames that the host had no room for, or whose turn has not come.
    partial: Vec<u8>,
    /// So many bytes in front of that are done with.
    done: usize,
    /// What is kept may be whole frames, whose turn has not come.
    is_unfinished: bool,
    outbox: Outbox,
    /// When the peer last took something that had waited, in monotonic microseconds.
    took_at: u64,
    /// Runs while something waits, where a peer that takes nothing has to go;
    timer: Option<TimerKey>,
    /// since when nothing was taken, in microseconds in which this thread was awake,
    stuck_since: Option<u64>,
    /// and since when frames are held for v2.
    held_since: Option<u64>,
    /// What is counted of both.
    counted_in: usize,
    counted_out: usize,
}

impl Buffers {
    fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.outbox.is_empty()
    }

    /// Counts what is kept now.
    fn count(&mut self, memory: &Memory) {
        let (input, output) = if self.is_empty() { (0, 0) } else { (self.partial.capacity(), self.outbox.memory()) };
        memory.change(Part::Input, std::mem::replace(&mut self.counted_in, input), input);
        memory.change(Part::Output, std::mem::replace(&mut self.counted_out, output), output);
    }

    /// Keeps more behind what is kept. Of a frame whose length is known no more is allocated than it has, of others what they are.
    fn keep(&mut self, input: &[u8]) {
        let partial = &mut self.partial;
        partial.drain(..std::mem::take(&mut self.done));
        let needed = partial.len() + input.len();
        if needed > partial.capacity() {
            let doubled = (2 * partial.capacity()).min(wire::frame_len(partial).unwrap_or(0));
            partial.reserve_exact(needed.max(doubled) - partial.len());
        }
        partial.extend_from_slice(input);
    }

    /// Forgets the first bytes of what is kept, and gives back what the rest does not need. Each byte is moved about once by that,
    /// however many pieces the others go in.
    fn forget(&mut self, consumed: usize) {
        self.done += consumed;
        let left = self.partial.len() - self.done;
        if self.done > 0 && left < self.partial.capacity() / 2 {
            self.partial = self.partial[self.done..].to_vec();
            self.done = 0;
        }
    }
}

/// What the connections of a thread lend each other: emptied [`Buffers`]s with the memory of their queues, so that in the steady
/// state a push to an idle connection allocates nothing, and a place where small pieces are joined.
pub(super) struct BufferPool {
    #[expect(clippy::vec_box, reason = "connections keep boxes")]
    buffers: Vec<Box<Buffers>>,
    small: [u8; SMALL],
}

impl Default for BufferPool {
    fn default() -> Self {
        Self { buffers: Vec::new(), small: [0; SMALL] }
    }
}

/// More of them than passes have commands are of no use.
const MAX_POOLED: usize = 1024;

impl BufferPool {
    fn take(&mut self) -> Box<Buffers> {
        self.buffers.pop().unwrap_or_default()
    }

    /// Takes back what is empty.
    fn put_back(&mut self, mut rest: Box<Buffers>) {
        if self.buffers.len() < MAX_POOLED && rest.outbox.queue_capacity() <= USUAL_QUEUE {
            rest.partial = Vec::new();
            rest.done = 0;
            rest.is_unfinished = false;
            rest.held_since = None;
            self.buffers.push(rest);
        }
    }
}

pub(super) enum Phase {
    Open(Session),
    /// It is over, and its nodes leave, some in each turn.
    Leaving(Box<Leaving>),
    /// The last frames are being written; then the peer is given until the timer to close its side, because closing
    /// with unread bytes in the socket would take the last frames away from it.
    Ending {
        link: Arc<Link>,
        timer: Option<TimerKey>,
    },
}

pub(super) struct Leaving {
    pub(super) session: Session,
    pub(super) why: CloseReason,
}

impl Phase {
    fn link(&self) -> &Arc<Link> {
        match self {
            Self::Open(session) => session.link(),
            Self::Leaving(leaving) => leaving.session.link(),
            Self::Ending { link, .. } => link,
        }
    }
}

impl Connection {
    pub(super) fn new(transport: Transport, phase: Phase, counted: bool) -> Self {
        Self {
            transport,
            phase,
            buffers: None,
            bytes_in: 0,
            bytes_out: 0,
            host_full: false,
            peer_slow: false,
            write_blocked: false,
            hangup: false,
            urgent: false,
            listed: false,
            told_full: false,
            counted,
        }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        self.phase.link()
    }

    pub(super) fn is_reading_stopped(&self) -> bool {
        self.host_full || self.peer_slow
    }

    /// A peer that does not read what it asked for has taken some of it within `timeout`.
    pub(super) fn takes_replies(&self, now: u64, timeout: u64) -> bool {
        self.buffers.as_ref().is_some_and(|rest| now <= rest.took_at + timeout)
    }

    /// The peer has taken something that had waited, or is asked to from now on.
    pub(super) fn set_took_at(&mut self, now: u64) {
        if let Some(rest) = &mut self.buffers {
            rest.took_at = now;
        }
    }

    /// The memory that is free when this connection is gone.
    pub(super) fn alone(&self) -> usize {
        let nodes = if let Phase::Open(session) = &self.phase { session.node_bytes() } else { 0 };
        nodes + self.refused_len().unwrap_or(0) + self.buffers.as_ref().map_or(0, |rest| rest.counted_in + rest.outbox.alone())
    }

    /// Bytes that the peer could take, if it read.
    pub(super) fn unread(&self) -> usize {
        self.buffers.as_ref().map_or(0, |rest| rest.outbox.len())
    }

    /// These, and those that wait for it to speak v2.
    pub(super) fn waiting(&self) -> usize {
        self.buffers.as_ref().map_or(0, |rest| rest.outbox.len() + rest.outbox.held_len())
    }

    /// Something waits for the socket, which is given until the timer to take some of it, or for the peer to speak v2, which is given as
    /// long. `awake` is the time by which they are judged.
    pub(super) fn watch(&mut self, wheel: &mut Wheel<Timer>, deadline: u64, awake: u64) {
        let slot = self.link().slot();
        let Some(rest) = &mut self.buffers else { return };
        if rest.outbox.held_len() == 0 {
            rest.held_since = None;
        } else {
            rest.held_since.get_or_insert(awake);
        }
        if rest.outbox.has_backlog() {
            rest.stuck_since.get_or_insert(awake);
        }
        if rest.timer.is_none() && !rest.outbox.is_empty() {
            rest.timer = Some(wheel.insert(deadline, Timer::new(slot, TimerKind::Outbox)));
        }
    }

    pub(super) fn set_moved(&mut self, awake: u64) {
        if let Some(Buffers { stuck_since: Some(since), .. }) = self.buffers.as_deref_mut() {
            *since = awake;
        }
    }

    /// Since when the socket has taken nothing of what waits for it, or the peer has not spoken the v2 that frames are held for, whichever
    /// is longer ago; if this is the timer for that.
    pub(super) fn stuck_since(&self, timer: TimerKey) -> Option<u64> {
        let rest = self.buffers.as_ref().filter(|rest| rest.timer == Some(timer))?;
        rest.stuck_since.into_iter().chain(rest.held_since).min()
    }

    pub(super) fn partial_len(&self) -> usize {
        self.buffers.as_ref().map_or(0, |rest| rest.partial.len() - rest.done) + self.refused_len().unwrap_or(0)
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.transport.recv(buffer) {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Hands bytes to the session, behind those that were kept, and keeps what is not a whole frame yet. With empty
    /// `input` the session gets another look at what was kept.
    pub(super) fn feed(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Next {
        let Phase::Open(session) = &mut self.phase else {
            // It is over. Nothing that it sends is looked at any more, nor what was kept of it.
            self.forget_input(cx.hub);
            return Next::Continue;
        };
        let next = match &mut self.buffers {
            Some(rest) if !rest.partial.is_empty() => {
                if !input.is_empty() {
                    rest.keep(input);
                }
                let (consumed, next) = session.receive(cx, &rest.partial[rest.done..]);
                rest.forget(consumed);
                next
            }
            rest => {
                let (consumed, next) = session.receive(cx, input);
                if consumed < input.len() {
                    rest.get_or_insert_default().keep(&input[consumed..]);
                }
                next
            }
        };
        self.host_full = next == Next::Wait;
        if let Some(rest) = &mut self.buffers {
            rest.is_unfinished = matches!(next, Next::Again | Next::Later);
            rest.count(cx.hub.memory());
            if rest.is_empty() {
                self.buffers = None;
            }
        }
        next
    }

    fn forget_input(&mut self, hub: &Hub) {
        if let Some(rest) = &mut self.buffers {
            rest.partial = Vec::new();
            rest.done = 0;
            rest.is_unfinished = false;
            rest.count(hub.memory());
        }
    }

    /// Keeps nothing but the rest of the frame that was begun, without which the peer could not read what comes behind it.
    pub(super) fn drop_waiting(&mut self, hub: &Hub, wheel: &mut Wheel<Timer>) {
        self.forget_input(hub);
        if let Some(rest) = &mut self.buffers {
            if let Some(timer) = rest.timer.take() {
                wheel.remove(timer);
            }
            let dropped = rest.outbox.drop_waiting();
            rest.count(hub.memory());
            if rest.is_empty() {
                self.buffers = None;
            }
            self.link().remove_queued(dropped);
        }
    }

    /// Whole frames may be kept, to go on with before anything is read.
    pub(super) fn is_unfinished(&self) -> bool {
        self.buffers.as_ref().is_some_and(|rest| rest.is_unfinished) || !self.host_full && self.refused_len().is_some()
    }

    /// What its session keeps for a host that had no room.
    fn refused_len(&self) -> Option<usize> {
        if let Phase::Open(session) = &self.phase { session.refused_len() } else { None }
    }

    /// The host has room again: what was kept for it comes before anything is read.
    pub(super) fn resume(&mut self) {
        self.host_full = false;
        if let Some(rest) = &mut self.buffers {
            rest.is_unfinished = true;
        }
    }

    /// Queues what another thread wants written; `flush` writes it.
    pub(super) fn enqueue(&mut self, frame: QueuedFrame, pool: &mut BufferPool) {
        let speaks_v2 = self.phase.link().dialect() == Dialect::V2;
        let rest = self.buffers.get_or_insert_with(|| pool.take());
        rest.outbox.push(frame, speaks_v2, self.write_blocked);
    }

    /// Whether frames were held back for a peer that has spoken v2 now. They are queued then.
    pub(super) fn release_held(&mut self) -> bool {
        match &mut self.buffers {
            Some(rest) if rest.outbox.held_len() > 0 && self.phase.link().dialect() == Dialect::V2 => rest.outbox.release_held(),
            _ => false,
        }
    }

    /// Writes whole replies, keeping what the socket does not take.
    pub(super) fn write(&mut self, hub: &Hub, replies: &[u8]) -> io::Result<u64> {
        let mut written = 0;
        let may_write = !self.has_backlog() && !self.write_blocked;
        if may_write {
            written = self.write_some(replies)?;
        }
        if written < replies.len() {
            self.link().add_queued(replies.len() - written);
            let rest = self.buffers.get_or_insert_default();
            if may_write {
                rest.outbox.push_rest(replies, written);
            } else {
                rest.outbox.push_replies(replies);
            }
            rest.count(hub.memory());
        }
        Ok(written as u64)
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.transport.send(bytes) {
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
    pub(super) fn flush(&mut self, hub: &Hub, pool: &mut BufferPool, wheel: &mut Wheel<Timer>) -> io::Result<u64> {
        let mut total = 0;
        let Some(rest) = &mut self.buffers else { return Ok(0) };
        while rest.outbox.has_backlog() && !self.write_blocked {
            let (offered, result) = rest.outbox.send(&self.transport, &mut pool.small);
            match result {
                Ok(written) => {
                    self.write_blocked = written < offered;
                    rest.outbox.advance(written);
                    self.bytes_out += written as u64;
                    self.phase.link().remove_queued(written);
                    total += written as u64;
                }
                Err(Errno::AGAIN) => self.write_blocked = true,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !rest.outbox.has_backlog() {
            rest.stuck_since = None;
        }
        if rest.outbox.is_empty()
            && let Some(timer) = rest.timer.take()
        {
            wheel.remove(timer);
        }
        // What waited for nobody but this thread was never counted.
        rest.count(hub.memory());
        if rest.is_empty()
            && let Some(rest) = self.buffers.take()
        {
            pool.put_back(rest);
        }
        Ok(total)
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.buffers.as_ref().is_some_and(|rest| rest.outbox.has_backlog())
    }

    /// Tells the peer that nothing more will come.
    pub(super) fn shut_down_writing(&self) {
        self.transport.shut_down(Shutdown::Write);
    }

    /// Ends both directions.
    pub(super) fn shut_down(&self) {
        self.transport.shut_down(Shutdown::Both);
    }

    /// Gives up what is still kept; to be called once, before the connection is dropped.
    pub(super) fn release(&mut self, hub: &Hub, wheel: &mut Wheel<Timer>) {
        self.link().close();
        if let Some(mut rest) = self.buffers.take() {
            if let Some(timer) = rest.timer {
                wheel.remove(timer);
            }
            rest.partial = Vec::new();
            rest.outbox = Outbox::default();
            rest.count(hub.memory());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::frame::Body;
    use crate::hub::link::{Command, CommandSink};
    use crate::hub::thread_state::ThreadState;
    use crate::hub::{Budget, Now};
    use crate::inbox::Inbox;
    use crate::settings::{InboxLimits, ServerConfig};
    use crate::wire::{FrameType, v2};
    use allocation_counter::measure;
    use mio::net::TcpStream;
    use std::io::Read;

    struct Nobody;

    impl CommandSink for Nobody {
        fn post(&self, _letter: Command) {}
    }

    fn pair() -> (Connection, std::net::TcpStream, Hub) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let link = Arc::new(Link::new(1, address, 0, Arc::new(Nobody)));
        let hub = Hub::new(ServerConfig::default(), Inbox::new(InboxLimits::default()).unwrap());
        (Connection::new(TcpStream::from_std(socket).into(), Phase::Ending { link, timer: None }, true), peer, hub)
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
        let (mut pool, mut wheel) = (BufferPool::default(), Wheel::new(1));
        let frame = frame(&hub, Dialect::V1, b"some bytes");
        let len = frame.len();
        let before = hub.memory().total();
        let mut push = |connection: &mut Connection| {
            connection.link().add_queued(len);
            connection.enqueue(frame.clone(), &mut pool);
            assert_eq!(connection.flush(&hub, &mut pool, &mut wheel).unwrap(), len as u64);
            assert!(connection.buffers.is_none() && !connection.has_backlog());
        };
        push(&mut connection);
        let cost = measure(|| (0..1000).for_each(|_| push(&mut connection)));
        assert_eq!(cost.count_total, 0, "{cost:?}");
        assert_eq!((connection.bytes_out, connection.link().queued(), hub.memory().total()), (1001 * len as u64, 0, before));
        let mut got = vec![0; 2 * len];
        peer.read_exact(&mut got).unwrap();
        let mut expected = Vec::new();
        wire::encode(Dialect::V1, FrameType::DATA, 7, b"some bytes", &mut expected).unwrap();
        assert_eq!(got, expected.repeat(2));
    }

    /// Memory that is counted for connections, and for this one alone.
    fn kept(connection: &Connection, hub: &Hub) -> (usize, usize) {
        (hub.memory().total(), connection.alone())
    }

    fn frame(hub: &Hub, dialect: Dialect, payload: &[u8]) -> QueuedFrame {
        QueuedFrame::new(dialect, FrameType::DATA, 7, Body::encode(dialect, payload, hub.memory()).unwrap())
    }

    fn thread() -> ThreadState {
        ThreadState::new(0, Arc::default(), fastrand::Rng::with_seed(1), Now { mono: 1, unix: 1 })
    }

    fn open(connection: &mut Connection, thread: &mut ThreadState, hub: &Hub) {
        connection.phase = Phase::Open(Session::open(connection.link().clone(), &mut thread.context(hub)));
    }

    #[test]
    fn half_a_frame_is_kept_until_the_other_half_comes_and_then_there_is_no_buffer_any_more() {
        let (mut connection, _peer, hub) = pair();
        let mut thread = thread();
        open(&mut connection, &mut thread, &hub);
        let mut ping = Vec::new();
        wire::encode(Dialect::V1, FrameType::PING, 0, b"", &mut ping).unwrap();
        let (half, other) = ping.split_at(5);
        for _ in 0..2 {
            assert_eq!(connection.feed(&mut thread.context(&hub), half), Next::Continue);
            assert!(connection.buffers.is_some() && thread.replies.is_empty());
            assert_eq!(kept(&connection, &hub), (5, 5));
            assert_eq!(connection.feed(&mut thread.context(&hub), other), Next::Continue);
            assert!(connection.buffers.is_none() && !thread.replies.is_empty());
            assert_eq!(kept(&connection, &hub), (0, 0));
            thread.replies.clear();
        }
    }

    #[test]
    fn a_long_frame_takes_no_more_memory_than_it_is_long_and_gives_it_back_when_it_was_read() {
        let (mut connection, _peer, hub) = pair();
        let mut thread = thread();
        open(&mut connection, &mut thread, &hub);
        let mut stream = Vec::new();
        v2::encode(FrameType::DATA, 0, &vec![b'x'; 3_000_000], &mut stream);
        let len = stream.len();
        // The beginning of the next.
        stream.push(0xab);
        for read in stream.chunks(64 * 1024) {
            assert_eq!(connection.feed(&mut thread.context(&hub), read), Next::Continue);
            let (total, alone) = kept(&connection, &hub);
            assert!(total == alone && alone <= len + 1, "{total} {alone}");
            let partial = &connection.buffers.as_ref().unwrap().partial;
            assert_eq!(total, partial.capacity());
            assert!(partial.capacity() <= 2 * partial.len() || partial.len() == 1, "{} {}", partial.capacity(), partial.len());
        }
        assert_eq!(kept(&connection, &hub), (1, 1));
        connection.release(&hub, &mut Wheel::new(1));
        assert_eq!(kept(&connection, &hub), (0, 0));
    }

    #[test]
    fn what_a_header_promises_is_not_allocated_before_it_comes() {
        let (mut connection, _peer, hub) = pair();
        let mut thread = thread();
        open(&mut connection, &mut thread, &hub);
        let mut stream = Vec::new();
        v2::encode(FrameType::DATA, 0, &vec![b'x'; 3_000_000], &mut stream);
        for read in [&stream[..20], &stream[20..21], &stream[21..22]] {
            connection.feed(&mut thread.context(&hub), read);
        }
        assert!(kept(&connection, &hub).0 <= 2 * 22, "{:?}", kept(&connection, &hub));
    }

    #[test]
    fn what_is_held_for_v2_counts_for_its_connection_and_says_nothing_of_its_reading() {
        let (mut connection, _peer, hub) = pair();
        let mut pool = BufferPool::default();
        let held = frame(&hub, Dialect::V2, &[0; 5000]);
        connection.link().add_queued(held.len());
        connection.enqueue(held, &mut pool);
        assert_eq!(connection.flush(&hub, &mut pool, &mut Wheel::new(1)).unwrap(), 0);
        let (total, alone) = kept(&connection, &hub);
        assert!(total == alone && alone > 5000 && !connection.has_backlog(), "{total} {alone}");
        assert_eq!((connection.link().queued(), connection.unread()), (5012, 0));
        connection.release(&hub, &mut Wheel::new(1));
        assert_eq!(kept(&connection, &hub), (0, 0));
    }

    #[test]
    fn a_payload_for_many_who_do_not_read_is_counted_once_and_makes_nobody_of_them_guilty() {
        let (mut one, _peer, hub) = pair();
        let (mut other, _other, _) = pair();
        let mut pool = BufferPool::default();
        let shared = frame(&hub, Dialect::V1, &[b'x'; 100_000]);
        let len = shared.len();
        for connection in [&mut one, &mut other] {
            connection.write_blocked = true;
            connection.link().add_queued(shared.len());
            connection.enqueue(shared.clone(), &mut pool);
            connection.flush(&hub, &mut pool, &mut Wheel::new(1)).unwrap();
        }
        drop(shared);
        let total = hub.memory().total();
        assert!((100_000..101_000).contains(&total), "{total}");
        assert!(one.alone() < 500 && other.alone() < 500);
        assert_eq!((one.unread(), other.unread()), (len, len));
        one.release(&hub, &mut Wheel::new(1));
        assert!(other.alone() > 100_000 && hub.memory().total() > 100_000);
        other.release(&hub, &mut Wheel::new(1));
        assert_eq!(hub.memory().total(), 0);
    }

    #[test]
    fn the_time_of_a_peer_that_takes_nothing_is_measured_only_while_something_waits() {
        let (mut connection, mut peer, hub) = pair();
        let (mut pool, mut wheel) = (BufferPool::default(), Wheel::new(1));
        connection.watch(&mut wheel, 10, 1);
        assert!(wheel.is_empty(), "nothing waits");
        connection.write(&hub, &vec![b'x'; 16 << 20]).unwrap();
        connection.watch(&mut wheel, 10, 1);
        connection.watch(&mut wheel, 20, 2);
        assert_eq!(wheel.len(), 1);
        let (timer, _) = wheel.pop(u64::from(u32::MAX)).unwrap();
        assert_eq!(connection.stuck_since(timer), Some(1));
        connection.set_moved(7);
        assert_eq!(connection.stuck_since(timer), Some(7));
        let reader = std::thread::spawn(move || peer.read_exact(&mut vec![0; 16 << 20]));
        while connection.has_backlog() {
            connection.write_blocked = false;
            connection.flush(&hub, &mut pool, &mut wheel).unwrap();
        }
        reader.join().unwrap().unwrap();
        assert!(wheel.is_empty() && connection.stuck_since(timer).is_none());
    }

    #[test]
    fn the_time_in_which_v2_is_to_be_spoken_goes_on_whatever_the_socket_takes_meanwhile() {
        let (mut connection, _peer, hub) = pair();
        let (mut pool, mut wheel) = (BufferPool::default(), Wheel::new(1));
        let held = frame(&hub, Dialect::V2, &[0; 500]);
        connection.link().add_queued(held.len());
        connection.enqueue(held, &mut pool);
        connection.watch(&mut wheel, 10, 3);
        connection.write(&hub, &vec![b'x'; 16 << 20]).unwrap();
        connection.watch(&mut wheel, 10, 5);
        connection.set_moved(7);
        connection.watch(&mut wheel, 10, 8);
        let (timer, _) = wheel.pop(u64::from(u32::MAX)).unwrap();
        assert!(wheel.pop(u64::from(u32::MAX)).is_none());
        assert_eq!(connection.stuck_since(timer), Some(3));
        // It speaks v2 now, and takes nothing.
        connection.buffers.as_mut().unwrap().outbox.release_held();
        connection.watch(&mut wheel, 10, 9);
        assert_eq!(connection.stuck_since(timer), Some(7));
        connection.release(&hub, &mut wheel);
        assert!(wheel.is_empty());
    }

    #[test]
    fn nothing_is_gone_on_with_that_came_before_the_end() {
        let (mut connection, _peer, hub) = pair();
        let mut thread = thread();
        open(&mut connection, &mut thread, &hub);
        let mut beats = Vec::new();
        (0..10_000).for_each(|_| v2::encode(FrameType::PING, 0, b"", &mut beats));
        thread.budget = Budget::share(1);
        assert_eq!(connection.feed(&mut thread.context(&hub), &beats), Next::Again);
        assert!(connection.is_unfinished() && connection.partial_len() > 0);
        connection.phase = Phase::Ending { link: connection.link().clone(), timer: None };
        assert_eq!(connection.feed(&mut thread.context(&hub), &[]), Next::Continue);
        assert!(!connection.is_unfinished());
        assert_eq!((connection.partial_len(), kept(&connection, &hub).0), (0, 0));
    }

    #[test]
    fn what_the_socket_does_not_take_is_kept_until_it_does_and_then_there_is_no_buffer_any_more() {
        const BYTES: usize = 16 << 20;
        let (mut connection, mut peer, hub) = pair();
        let mut pool = BufferPool::default();
        let taken = connection.write(&hub, &vec![b'x'; BYTES]).unwrap() as usize;
        let (total, alone) = kept(&connection, &hub);
        assert!(taken < BYTES && connection.write_blocked && total == alone && alone >= BYTES - taken, "{total} {alone} {taken}");
        let reader = std::thread::spawn(move || peer.read_exact(&mut vec![0; BYTES]));
        while connection.has_backlog() {
            // As the event would say that it is writable.
            connection.write_blocked = false;
            connection.flush(&hub, &mut pool, &mut Wheel::new(1)).unwrap();
        }
        reader.join().unwrap().unwrap();
        assert!(connection.buffers.is_none());
        assert_eq!(kept(&connection, &hub), (0, 0));
    }
}
