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
mod commands;
mod ending;
mod failure;
mod fan_out;
mod reading;
mod tick;
mod topics;
mod writing;

use super::Clock;
use super::buffers::BufferPool;
use super::connection::Connection;
use super::door::{Door, Spoken, door_of};
use super::mailbox::{Drained, Mailbox};
use super::shared::ServerShared;
use super::walk::{FanOutWalk, TopicWalk};
use crate::descriptor::lift;
use crate::hub::thread_state::ThreadState;
use crate::hub::trim::Trim;
use crate::hub::wheel::TICK;
use crate::hub::{Budget, Look};
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
/// Connections that are read one behind the other before they are answered one behind the other: the code of the kernel's
/// receiving side, and of the session, is still in the processor's cache for the next one, and so is that of its sending side.
const ANSWERED_TOGETHER: usize = 32;
const READ_BUFFER: usize = 64 * 1024;

/// How often a thread has the hub forget what idle addresses left behind, in microseconds.
const TIDY_TIME_US: u64 = 10_000_000;

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
    shared: Arc<ServerShared>,
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
    /// What goes to all connections and has not come to the last of them.
    walk: Option<FanOutWalk>,
    /// The same of what goes to subscribers.
    topic_walk: Option<TopicWalk>,
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
        shared: Arc<ServerShared>,
        registry: Registry,
        mailbox: Arc<Mailbox>,
        listeners: Vec<(TcpListener, Spoken)>,
    ) -> io::Result<Self> {
        let doors = (0..).zip(listeners).map(|(index, (listener, spoken))| Door::open(index, listener, spoken, &registry));
        let doors = doors.collect::<io::Result<_>>()?;
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
            walk: None,
            topic_walk: None,
            pool: BufferPool::default(),
            unanswered: Vec::with_capacity(ANSWERED_TOGETHER),
            buffer: vec![0; READ_BUFFER].into(),
            stopping_since: None,
            is_stopping: false,
            next_tidy: now.mono + TIDY_TIME_US,
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
            self.has_commands |= !self.mailbox.may_sleep();
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
        self.mailbox.stay_awake();
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
        // Also what its own connections have posted in this pass.
        if std::mem::take(&mut self.has_commands) || self.mailbox.has_items() {
            self.follow_commands();
        }
        if self.somebody_knocks() {
            self.accept();
        }
        self.relieve_memory();
        Ok(())
    }
}
