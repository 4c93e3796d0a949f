//! An I/O thread: one `mio::Poll`, the connections in a slab, one loop that waits for the next event or the next tick.
//!
//! Owns sockets, their readiness and the thread's timing wheel. What bytes mean is the session's business, and whether
//! the server has room for one more connection is [`super::server`]'s.
//!
//! A heartbeat that comes alone costs the thread three system calls: wait, read, write. That is why it waits on its poll
//! itself, and not in a tokio runtime that watches the poll's descriptor; and why it waits without a timeout, which the system
//! would have to set up each time: ticks come from a timer of the system that runs by itself (docs/PERFORMANCE.md has the figures).
//!
//! Connections that are ready together are read together and then answered together, up to 32 of them.
//!
//! A pass gives each connection that has something to say one turn, of bounded work ([`crate::hub::budget`]). Whoever is not done by
//! then goes on the `ready` list, which gets what time the pass has left; and whose next frame is a long one waits on a list
//! of its own, for the end of a pass, when everybody else has had a turn. So nobody waits for longer than a pass takes.
//!
//! mio is edge-triggered. Two rules follow. A read ends at the first short read, unless an event said that the peer
//! closed: then it ends at zero, because data and FIN in one event come with one edge; or that urgent data came, at whose mark
//! the kernel cuts a read off: then it ends when nothing is left. And whoever stops earlier than that goes on one of the lists.

mod accept;
mod failure;
mod tick;

use super::Clock;
use super::connection::{BufferPool, Connection, Leaving, Phase};
use super::door::{Door, door_of};
use super::mailbox::{Drained, Mailbox};
use super::relief::{self, Holder, Holdings};
use super::server::{ConnectionInfo, Shared};
use crate::descriptor::lift;

use crate::hub::link::{Command, CommandKind};
use crate::hub::thread_state::ThreadState;
use crate::hub::trim::Trim;
use crate::hub::wheel::TICK;
use crate::hub::{Budget, Look, Next, Timer, TimerKind};
use crate::model::{CloseReason, EventMask, Fill};
use mio::event::Event;
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// Events taken per pass; commands, ticks and connections that are not done with are looked after in between.
const EVENTS_PER_PASS: usize = 1024;
/// For how long a pass goes on with connections that have had their turn, and as long again with long frames, in microseconds. One
/// of each has its turn however long the pass has been.
const GOING_ON_TIME: u64 = 5_000;
/// Connections that are read one behind the other before they are answered one behind the other: the code of the kernel's
/// receiving side, and of the session, is still in the processor's cache for the next one, and so is that of its sending side.
const ANSWERED_TOGETHER: usize = 32;
/// Commands followed per pass: a broadcast to all connections does not hold up the reading.
const COMMANDS_PER_PASS: usize = 512;
const LETTERS_BUDGET: u64 = 5_000_000;
const READ_BUFFER: usize = 64 * 1024;

/// How long a connection that is ending waits for its peer, in microseconds.
const ENDING_TIME: u64 = 1_000_000;
/// How long a stopping thread writes what was sent before, and how long it waits for its connections in total, in microseconds.
/// It stays under the 1.5 s that a stop may take.
const LAST_COMMANDS_TIME: u64 = 250_000;
const STOPPING_TIME: u64 = 1_100_000;
/// A server that stops asks its clients to come back spread over this many milliseconds for each of them, within bounds: the
/// one that takes its place then registers a thousand per second at most.
const RETURN_TIME: u64 = 1;
const MIN_RETURN_WINDOW: u64 = 1_000;
const MAX_RETURN_WINDOW: u64 = 60_000;
/// How often a thread has the hub forget what idle addresses left behind, in microseconds.
const TIDY_TIME: u64 = 10_000_000;

/// What a thread waits with. Made apart from it, because its descriptors keep their numbers to themselves.
pub(super) struct Polling {
    pub(super) poll: Poll,
    pub(super) registry: Registry,
    pub(super) waker: Waker,
}

impl Polling {
    pub(super) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKER)?;
        Ok(Self { poll, registry, waker })
    }
}

pub(super) struct IoThread {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    clock: Clock,
    registry: Registry,
    doors: Vec<Door>,
    /// No descriptor was left: accepting pauses until the next tick.
    accept_paused: bool,
    has_commands: bool,
    tick_due: bool,
    timer: OwnedFd,
    connections: Slab<Connection>,
    ending_refused: usize,
    /// Connections to go on with although no event will come for them,
    ready: VecDeque<usize>,
    /// and those of them whose next frame is a long one.
    long: VecDeque<usize>,
    /// Taken out of the mailbox, not yet opened.
    commands: Drained,
    pool: BufferPool,
    /// Connections that were read and not answered yet, and where the replies to each end in the thread's buffer.
    unanswered: Vec<(usize, usize)>,
    buffer: Box<[u8]>,
    state: ThreadState,
    /// When this thread heard that the server stops.
    stopping_since: Option<u64>,
    /// It has said goodbye.
    is_stopping: bool,
    next_tidy: u64,
    /// When this thread logs the server's numbers; on one thread only.
    next_stats: Option<u64>,
    /// Whether the allocator should give memory back; on one thread only.
    trim: Option<Trim>,
    giving_back: Option<JoinHandle<()>>,
    /// The round of [`Relief`](relief::Relief) that this thread has answered.
    answered: u64,
    /// How long this thread did not look at its sockets, because the process was stopped or had no processor, in microseconds.
    asleep: u64,
    last_tick: u64,
    /// Connections whose sockets this part of a tick has looked at, and what was found.
    looked_at: HashMap<usize, Look>,
    done: bool,
}

/// Where a connection's turn left off.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Left {
    /// All that its socket had was read and handled, or it is not read any more.
    Nothing,
    /// There is more.
    More,
}

/// A timer of the system that is ready at each tick of a wheel that is made now. It is read each time: only then it goes on.
fn start_ticking(registry: &Registry) -> io::Result<OwnedFd> {
    let timer = lift(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?)?;
    registry.register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
    let tick = Timespec { tv_sec: 0, tv_nsec: TICK as i64 * 1_000 };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: tick, it_value: tick })?;
    Ok(timer)
}

impl IoThread {
    pub(super) fn new(
        worker_id: usize,
        shared: Arc<Shared>,
        registry: Registry,
        mailbox: Arc<Mailbox>,
        listeners: Vec<TcpListener>,
    ) -> io::Result<Self> {
        let doors = (0..).zip(listeners).map(|(index, listener)| Door::open(index, listener, &registry)).collect::<io::Result<_>>()?;
        let clock = shared.clock;
        let now = clock.now();
        let timer = start_ticking(&registry)?;
        let counters = shared.counters[worker_id].clone();
        let first_stats = now.mono + shared.stats_interval;
        Ok(Self {
            state: ThreadState::new(worker_id, counters, fastrand::Rng::new(), now),
            shared,
            mailbox,
            clock,
            registry,
            doors,
            accept_paused: false,
            has_commands: false,
            tick_due: false,
            timer,
            connections: Slab::new(),
            ending_refused: 0,
            ready: VecDeque::new(),
            long: VecDeque::new(),
            commands: Drained::default(),
            pool: BufferPool::default(),
            unanswered: Vec::with_capacity(ANSWERED_TOGETHER),
            buffer: vec![0; READ_BUFFER].into(),
            stopping_since: None,
            is_stopping: false,
            next_tidy: now.mono + TIDY_TIME,
            next_stats: (worker_id == 0).then_some(first_stats),
            trim: (worker_id == 0).then(Trim::default),
            giving_back: None,
            answered: 0,
            asleep: 0,
            looked_at: HashMap::new(),
            last_tick: now.mono,
            done: false,
        })
    }

    /// Reads the monotonic clock alone.
    fn look_at_clock(&mut self) {
        self.state.go_on_to(self.clock.mono());
    }

    /// Works until the server stops.
    fn work(&mut self, poll: &mut Poll) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_PASS);
        while !self.done {
            let wait = (self.tick_due || self.has_work()).then_some(Duration::ZERO);
            self.pass(poll, &mut events, wait)?;
            if self.tick_due {
                self.tick_due = !self.tick();
            }
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.long.is_empty() || self.has_commands || self.somebody_knocks()
    }

    /// Waits for something to do, for so long or until there is, and does it.
    fn pass(&mut self, poll: &mut Poll, events: &mut Events, wait: Option<Duration>) -> io::Result<()> {
        match poll.poll(events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.state.now = self.clock.now();
        let begun = self.state.now.mono;
        let (messages, heartbeats) = (self.state.counters.messages_in.get(), self.state.counters.heartbeats.get());
        let share = Budget::share(events.iter().count());
        for event in events.iter() {
            match event.token() {
                WAKER => self.has_commands = true,
                TIMER => self.tick_due = true,
                token => match door_of(token) {
                    Some(door) => self.doors[door].is_ready = true,
                    None => self.on_event(token.0, event, &share),
                },
            }
        }
        self.go_on();
        self.answer();
        if let Some(messages) = NonZeroU64::new(self.state.counters.messages_in.get() - messages) {
            // One look at the clock for everything that this pass read.
            let micros = self.clock.mono().saturating_sub(begun);
            self.state.counters.message_durations.observe(micros / messages, messages.get());
            self.state.counters.heartbeat_durations.observe(micros, self.state.counters.heartbeats.get() - heartbeats);
        }
        if std::mem::take(&mut self.has_commands) {
            self.follow_commands();
        }
        if self.somebody_knocks() {
            self.accept();
        }
        self.relieve_memory();
        Ok(())
    }

    fn on_event(&mut self, slot: usize, event: &Event, share: &Budget) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        connection.hangup |= event.is_read_closed() || event.is_error();
        connection.urgent |= event.is_priority();
        if event.is_writable() && connection.write_blocked {
            connection.write_blocked = false;
            self.flush(slot);
        }
        // Who is on a list has its turn when that comes.
        let is_listed = self.connections.get(slot).is_none_or(|connection| connection.listed);
        if !is_listed && (event.is_readable() || event.is_read_closed() || event.is_priority() || event.is_error()) {
            self.turn(slot, share.clone());
        }
    }

    /// Gives those their turn who were not done in an earlier pass: each one at most, and as many as there is time for.
    fn go_on(&mut self) {
        if self.ready.is_empty() && self.long.is_empty() {
            return;
        }
        self.look_at_clock();
        let begun = self.state.now.mono;
        for _ in 0..self.ready.len() {
            let Some(slot) = self.ready.pop_front() else { break };
            self.turn_of_listed(slot, Budget::share(1));
            if self.state.now.mono > begun + GOING_ON_TIME {
                break;
            }
        }
        let begun = self.state.now.mono;
        for _ in 0..self.long.len() {
            let Some(slot) = self.long.pop_front() else { break };
            self.turn_of_listed(slot, Budget::long());
            self.look_at_clock();
            if self.state.now.mono > begun + GOING_ON_TIME {
                break;
            }
        }
    }

    fn turn_of_listed(&mut self, slot: usize, budget: Budget) {
        // It may be gone, and another one in its slot.
        if let Some(connection) = self.connections.get_mut(slot).filter(|connection| connection.listed) {
            connection.listed = false;
            self.turn(slot, budget);
        }
    }

    /// Lets a connection say as much as its budget allows: what was kept of it first, then what its socket has.
    fn turn(&mut self, slot: usize, budget: Budget) -> Left {
        self.state.budget = budget;
        loop {
            let Some(connection) = self.connections.get_mut(slot) else {
                return Left::Nothing;
            };
            if matches!(connection.phase, Phase::Leaving(_)) {
                return self.leave(slot);
            }
            if connection.is_reading_stopped() {
                return Left::Nothing;
            }
            let mut is_drained = false;
            let next = if connection.is_unfinished() {
                self.state.go_on_to(self.clock.mono());
                connection.feed(&mut self.state.context(&self.shared.hub), &[])
            } else {
                match connection.read(&mut self.buffer) {
                    Ok(0) => {
                        self.end(slot, CloseReason::PeerClosed);
                        return Left::Nothing;
                    }
                    Ok(count) => {
                        // After the read: whatever came until now counts as heard now, and nothing that comes later does.
                        self.state.go_on_to(self.clock.mono());
                        self.state.budget.spend_read(count);
                        self.state.counters.bytes_in.add(count as u64);
                        connection.bytes_in += count as u64;
                        is_drained = count < self.buffer.len() && !connection.hangup && !connection.urgent;
                        connection.feed(&mut self.state.context(&self.shared.hub), &self.buffer[..count])
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        connection.urgent = false;
                        return Left::Nothing;
                    }
                    Err(_) => {
                        self.end(slot, CloseReason::IoError);
                        return Left::Nothing;
                    }
                }
            };
            self.note_replies(slot);
            if !is_drained || next != Next::Continue || self.has_enough_to_answer() {
                self.answer();
            }
            match next {
                Next::Continue if is_drained => return Left::Nothing,
                Next::Continue if !self.state.budget.is_used_up() => {}
                Next::Continue | Next::Again | Next::Later | Next::Look => {
                    self.list(slot, next == Next::Later);
                    return Left::More;
                }
                Next::Wait => return Left::Nothing,
                Next::Close(reason) => {
                    self.end(slot, reason);
                    return Left::Nothing;
                }
            }
        }
    }

    /// Goes on with a connection in the next pass, or when a long frame has its turn.
    fn list(&mut self, slot: usize, is_long: bool) {
        if let Some(connection) = self.connections.get_mut(slot)
            && !connection.listed
        {
            connection.listed = true;
            let list = if is_long { &mut self.long } else { &mut self.ready };
            list.push_back(slot);
        }
    }

    fn has_enough_to_answer(&self) -> bool {
        self.unanswered.len() >= ANSWERED_TOGETHER || self.state.replies.bytes().len() >= READ_BUFFER
    }

    /// Writes the replies to whoever was read since the last time.
    fn answer(&mut self) {
        if self.unanswered.is_empty() {
            return;
        }
        let mut unanswered = std::mem::take(&mut self.unanswered);
        let mut broken = Vec::new();
        let mut begin = 0;
        for (slot, end) in unanswered.drain(..) {
            let replies = &self.state.replies.bytes()[begin..end];
            begin = end;
            let result = match self.connections.get_mut(slot) {
                Some(connection) if !replies.is_empty() => connection.write(&self.shared.hub, replies),
                _ => Ok(0),
            };
            match result {
                Ok(written) => {
                    self.state.counters.bytes_out.add(written);
                    self.settle(slot);
                }
                Err(_) => broken.push(slot),
            }
        }
        self.state.replies.clear();
        self.unanswered = unanswered;
        for slot in broken {
            self.end(slot, CloseReason::IoError);
        }
    }

    /// What was added to the thread's buffer since the last time is for this connection.
    fn note_replies(&mut self, slot: usize) {
        let end = self.state.replies.bytes().len();
        match self.unanswered.last_mut() {
            Some((last, until)) if *last == slot => *until = end,
            _ => self.unanswered.push((slot, end)),
        }
    }

    /// Writes the replies that a session made, then does what it said.
    fn respond(&mut self, slot: usize, next: Next) {
        self.note_replies(slot);
        self.answer();
        if let Next::Close(reason) = next {
            self.end(slot, reason);
        }
    }

    /// Looks what the replies to a connection changed for it.
    fn settle(&mut self, slot: usize) {
        if self.connections.get_mut(slot).is_some_and(Connection::release_held) {
            self.flush(slot);
        }
        let Some(connection) = self.connections.get_mut(slot).filter(|connection| connection.has_backlog()) else { return };
        // A peer that does not read what it asked for is heard no more until it does.
        if !connection.peer_slow && connection.unread() > self.shared.hub.limits().outbox_bytes {
            connection.peer_slow = true;
            connection.set_took_at(self.state.now.mono);
            self.state.counters.reads_paused_by_peer.up();
        }
        self.watch(slot);
    }

    /// After what waits for a socket has become more or less.
    fn watch(&mut self, slot: usize) {
        let awake = self.awake();
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let waiting = connection.waiting();
        let is_full = waiting >= self.shared.hub.limits().outbox_bytes;
        connection.link().set_full(is_full);
        if is_full && !connection.told_full {
            self.tell_full(slot);
        } else if waiting == 0 && connection.told_full {
            self.tell_drained(slot);
        }
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if let (Some(timeout), Phase::Open(_)) = (self.shared.slow_consumer_timeout, &connection.phase) {
            connection.watch(&mut self.state.wheel, self.state.now.mono + timeout, awake);
        }
    }

    /// From now on the nodes of a connection are owed a word when nothing waits for it any more.
    fn tell_full(&mut self, slot: usize) {
        if self.shared.hub.host().wants(EventMask::BUFFER)
            && let Some(connection @ Connection { phase: Phase::Open(_), .. }) = self.connections.get_mut(slot)
        {
            connection.told_full = true;
            if let Phase::Open(session) = &connection.phase {
                session.tell_fill(&mut self.state.context(&self.shared.hub), Fill::Full);
            }
        }
    }

    fn tell_drained(&mut self, slot: usize) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.told_full = false;
            if let Phase::Open(session) = &connection.phase {
                session.tell_fill(&mut self.state.context(&self.shared.hub), Fill::Drained);
            }
        }
    }

    /// The time in microseconds, but for that which this thread slept through.
    fn awake(&self) -> u64 {
        self.state.now.mono - self.asleep
    }

    fn flush(&mut self, slot: usize) {
        let awake = self.awake();
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        match connection.flush(&self.shared.hub, &mut self.pool, &mut self.state.wheel) {
            Ok(0) => {}
            Ok(written) => {
                self.state.counters.bytes_out.add(written);
                connection.set_took_at(self.state.now.mono);
                connection.set_moved(awake);
            }
            Err(_) => return self.end(slot, CloseReason::IoError),
        }
        let resumes = connection.peer_slow && connection.unread() <= self.shared.hub.limits().outbox_bytes / 2;
        if resumes {
            connection.peer_slow = false;
        }
        if matches!(connection.phase, Phase::Ending { .. }) && !connection.has_backlog() {
            connection.shut_down_writing();
        }
        if resumes {
            self.list(slot, false);
        }
        self.watch(slot);
    }

    fn follow_commands(&mut self) {
        let is_fresh = self.commands.is_empty();
        // Asked first: what was sent before the stop is among the commands then, and goes out before the farewell, if it is not too much.
        if self.shared.is_stopping() {
            self.stopping_since.get_or_insert(self.state.now.mono);
        }
        if is_fresh {
            self.mailbox.drain_into(&mut self.commands);
        }
        // Few commands cost any of it: those that the nodes of a connection are told about.
        self.state.budget = Budget::of(LETTERS_BUDGET);
        for followed in 1..=COMMANDS_PER_PASS {
            let Some(command) = self.commands.pop(self.shared.hub.memory()) else { break };
            let slot = command.slot;
            self.follow_command(command);
            // One write for all that came for a connection.
            let is_last = followed == COMMANDS_PER_PASS || self.state.budget.is_used_up();
            if self.commands.next_slot() != Some(slot) || is_last {
                self.flush(slot as usize);
            }
            if is_last {
                break;
            }
        }
        let is_read = is_fresh && self.commands.is_empty();
        self.has_commands |= !is_read;
        if let Some(listing) = self.mailbox.take_listing() {
            // Whoever asked may have given up waiting; then nobody misses the answer.
            let _ = listing.answer.try_send(self.list_connections(listing.max));
        }
        if self.stopping_since.is_some_and(|since| is_read || self.state.now.mono > since + LAST_COMMANDS_TIME) && !self.is_stopping {
            self.begin_stopping();
        }
        if self.shared.is_closed() && !self.doors.is_empty() {
            self.close_doors();
        }
    }

    fn list_connections(&self, max: usize) -> Vec<ConnectionInfo> {
        let open = self.connections.iter().filter_map(|(_, connection)| match &connection.phase {
            Phase::Open(session) => Some((connection, session)),
            Phase::Leaving(_) | Phase::Ending { .. } => None,
        });
        open.take(max)
            .map(|(connection, session)| ConnectionInfo {
                id: connection.link().connection_id(),
                peer: connection.link().peer(),
                nodes: session.node_count(),
                first_node: session.first_node().map(|node| node.id().clone()),
                bytes_in: connection.bytes_in,
                bytes_out: connection.bytes_out,
                bytes_waiting_in: connection.partial_len(),
                bytes_waiting_out: connection.link().queued(),
            })
            .collect()
    }

    fn follow_command(&mut self, Command { slot, connection_id, kind }: Command) {
        let slot = slot as usize;
        let found = self.connections.get_mut(slot).filter(|found| found.link().connection_id() == connection_id);
        let kind = match (kind, found) {
            (CommandKind::Write(frame), Some(connection @ Connection { phase: Phase::Open(_), .. })) => {
                connection.enqueue(frame, &mut self.pool);
                return;
            }
            (CommandKind::Write(frame), found) => {
                if let Some(connection) = found {
                    connection.link().remove_queued(frame.len());
                }
                return;
            }
            (_, None) => return,
            (kind, Some(_)) => kind,
        };
        // What was posted before it is written before it.
        self.flush(slot);
        let Some(connection) = self.connections.get_mut(slot).filter(|found| found.link().connection_id() == connection_id) else {
            return;
        };
        match (kind, &mut connection.phase) {
            (CommandKind::Evict(eviction), Phase::Open(session)) => {
                let next = session.evict(&mut self.state.context(&self.shared.hub), eviction);
                self.respond(slot, next);
            }
            (CommandKind::End(reason), _) => self.end(slot, reason),
            (CommandKind::TellFull, _) => {
                // First, so that a push that is refused from now on asks again.
                connection.link().tells_full();
                self.tell_full(slot);
                self.watch(slot);
            }
            (CommandKind::Resume, _) if connection.host_full => {
                connection.resume();
                self.list(slot, false);
            }
            _ => {}
        }
    }

    /// Ends a connection: its nodes leave now, its socket as soon as the peer has what was written to it.
    fn end(&mut self, slot: usize, reason: CloseReason) {
        self.answer();
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        connection.hangup |= reason == CloseReason::PeerClosed;
        let may_still_read = reason == CloseReason::PeerClosed && connection.has_backlog();
        match &connection.phase {
            Phase::Open(_) => {}
            Phase::Leaving(_) => return,
            // It closed its side only, and may still read: the last write or the timer ends it.
            Phase::Ending { .. } if may_still_read => return,
            // The peer has closed its side, or the socket is broken: nothing to wait for.
            Phase::Ending { .. } => return self.drop_connection(slot),
        }
        if reason == CloseReason::SlowConsumer {
            self.state.counters.slow_consumers.up();
        }
        let truncated = connection.partial_len() as u64;
        if truncated > 0 && matches!(reason, CloseReason::PeerClosed | CloseReason::IoError) {
            self.state.connection_log.incomplete(self.state.now);
        }
        self.state.counters.truncated_bytes.add(truncated);
        let link = connection.link().clone();
        link.close();
        connection.host_full = false;
        connection.peer_slow = false;
        if reason == CloseReason::SlowConsumer {
            self.say_farewell_only(slot, reason);
        }
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let ending = Phase::Ending { link, timer: None };
        if let Phase::Open(session) = std::mem::replace(&mut connection.phase, ending) {
            connection.phase = Phase::Leaving(Box::new(Leaving { session, why: reason }));
            self.state.budget = Budget::share(1);
            self.leave(slot);
        }
    }

    /// Whatever waits for a peer that does not read is dropped, but for the rest of a frame that it has begun to read; it is told why
    /// behind that.
    fn say_farewell_only(&mut self, slot: usize, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.drop_waiting(&self.shared.hub, &mut self.state.wheel);
        self.state.replies.speak(connection.link().dialect());
        let begin = self.state.replies.bytes().len();
        self.state.replies.farewell(reason);
        // A socket that is broken is found to be so when the rest is written.
        if let Ok(written) = connection.write(&self.shared.hub, &self.state.replies.bytes()[begin..]) {
            self.state.counters.bytes_out.add(written);
        }
        self.state.replies.clear();
    }

    /// Lets nodes of a connection that is over leave, as many as the turn allows. The last one out shuts the door.
    fn leave(&mut self, slot: usize) -> Left {
        let Some(connection) = self.connections.get_mut(slot) else { return Left::Nothing };
        let Phase::Leaving(leaving) = &mut connection.phase else { return Left::Nothing };
        let reason = leaving.why;
        if leaving.session.close(&mut self.state.context(&self.shared.hub), reason) == Next::Again {
            self.list(slot, false);
            return Left::More;
        }
        connection.phase = Phase::Ending { link: connection.link().clone(), timer: None };
        if let Ok(written) = connection.flush(&self.shared.hub, &mut self.pool, &mut self.state.wheel) {
            self.state.counters.bytes_out.add(written);
        }
        let is_over = match reason {
            CloseReason::IoError => true,
            CloseReason::PeerClosed => !connection.has_backlog(),
            _ => false,
        };
        if is_over {
            self.drop_connection(slot);
            return Left::Nothing;
        }
        let key = self.state.wheel.insert(self.state.now.mono + ENDING_TIME, Timer::new(slot as u32, TimerKind::Ending));
        if let Phase::Ending { timer, .. } = &mut connection.phase {
            *timer = Some(key);
        }
        if !connection.has_backlog() {
            connection.shut_down_writing();
        }
        // What the peer sent already has had its event: it is read, and thrown away, in the next pass.
        self.list(slot, false);
        Left::More
    }

    fn drop_connection(&mut self, slot: usize) {
        let mut connection = self.connections.remove(slot);
        match &mut connection.phase {
            Phase::Ending { timer: Some(timer), .. } => drop(self.state.wheel.remove(*timer)),
            Phase::Leaving(leaving) => {
                // The server stops, and nobody comes back to it.
                self.state.budget = Budget::unlimited();
                leaving.session.close(&mut self.state.context(&self.shared.hub), leaving.why);
            }
            _ => {}
        }
        connection.release(&self.shared.hub, &mut self.state.wheel);
        if !connection.hangup {
            // Not only dropped: a process that was forked off this one may hold a copy of the descriptor.
            connection.shut_down();
        }
        if connection.counted {
            self.shared.leave(connection.link().peer().ip());
            self.state.counters.connections_closed.up();
        } else {
            self.ending_refused -= 1;
        }
    }

    /// When more is kept than may be, those that hold most go first, on whatever thread they are.
    fn relieve_memory(&mut self) {
        let (relief, memory) = (&self.shared.relief, self.shared.hub.memory());
        let excess = memory.excess();
        let mut chosen = Vec::new();
        if excess > 0 && self.answered == relief.number() {
            chosen = relief.begin(self.state.now.mono, memory);
        }
        let number = relief.number();
        if self.answered != number {
            self.answered = number;
            chosen.extend(relief.answer(number, self.holdings(), memory));
        }
        for Holder { bytes, who: link } in chosen {
            self.state.connection_log.closed_for_memory(&link, bytes, self.state.now);
            let slot = link.slot() as usize;
            if self.connections.get(slot).is_some_and(|found| Arc::ptr_eq(found.link(), &link)) {
                self.end(slot, CloseReason::SlowConsumer);
            } else {
                link.end(CloseReason::SlowConsumer);
            }
        }
    }

    fn holdings(&self) -> Holdings {
        let all: Vec<Holder<usize>> =
            self.connections.iter().map(|(slot, connection)| Holder { bytes: connection.alone(), who: slot }).collect();
        let bytes = all.iter().map(|holder| holder.bytes).sum();
        let most = relief::choose(all, relief::to_free(bytes, self.shared.hub.memory()));
        let link = |slot: usize| self.connections[slot].link().clone();
        Holdings { bytes, most: most.into_iter().map(|Holder { bytes, who }| Holder { bytes, who: link(who) }).collect() }
    }

    fn begin_stopping(&mut self) {
        self.is_stopping = true;
        self.state.connection_log.worker_stopping();
        // Those who knocked already are told as well.
        self.close_doors();
        let open: Vec<usize> =
            self.connections.iter().filter(|(_, found)| matches!(found.phase, Phase::Open(_))).map(|(slot, _)| slot).collect();
        let window = (self.shared.connection_count() as u64 * RETURN_TIME).clamp(MIN_RETURN_WINDOW, MAX_RETURN_WINDOW) as u32;
        for slot in open {
            self.state.replies.speak(self.connections[slot].link().dialect());
            self.state.replies.shutting_down(window);
            self.respond(slot, Next::Close(CloseReason::ServerStopped));
        }
        if self.connections.is_empty() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let slots: Vec<usize> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.drop_connection(slot);
        }
        // Nobody is left to write to: what waits is only counted off.
        loop {
            while let Some(command) = self.commands.pop(self.shared.hub.memory()) {
                self.follow_command(command);
            }
            self.mailbox.drain_into(&mut self.commands);
            if self.commands.is_empty() {
                break;
            }
        }
        self.state.connection_log.tell_counts();
        if let Some(giving_back) = self.giving_back.take() {
            // The host may unload this code when it has stopped.
            let _ = giving_back.join();
        }
        self.done = true;
    }
}
