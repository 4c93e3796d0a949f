//! Many connections to one server, on one epoll: the load.
//!
//! Owns the sockets and what waits on them. Connections come from several loopback addresses, because one address has
//! fewer ports than a benchmark needs. Every wait has an end.

use crate::protocol::{Answer, Sent};
use crate::server::Target;
use crate::{Error, Result};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fd::OwnedFd;
use rustix::io;
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Loopback addresses that connections come from, in turn.
const SOURCES: usize = 200;
/// How long an answer may take before a benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections whose greeting is not answered yet.
const GREETINGS_AT_ONCE: usize = 100;

pub struct Fleet {
    target: Target,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    /// Who was heard in this turn, and how many answers came.
    heard: Vec<(usize, usize)>,
    opened: usize,
    /// Answers that are still to come, on all connections.
    waiting: usize,
    /// Connections that the server closed.
    pub lost: usize,
}

struct Connection {
    /// `None` once it is closed, by either side.
    socket: Option<Socket>,
    /// The start of an answer whose rest has not come yet.
    rest: Vec<u8>,
    waiting: usize,
    sent_at: Instant,
}

/// What a measurement saw.
#[derive(Clone, Debug)]
pub struct Load {
    pub operations: u64,
    pub seconds: f64,
    /// Nanoseconds that the server's processes spent on a core.
    pub cpu: u64,
    /// Microseconds from sending a batch to its last answer.
    pub latency: Histogram<u64>,
}

impl Load {
    /// Microseconds of the server's time for one operation.
    pub fn cpu_each(&self) -> f64 {
        self.cpu as f64 / 1e3 / self.operations.max(1) as f64
    }

    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    /// Part of one core.
    pub fn core_share(&self) -> f64 {
        self.cpu as f64 / 1e9 / self.seconds
    }
}

/// When a measurement begins to count, and for how long.
#[derive(Copy, Clone, Debug)]
pub struct Window {
    pub warm_up: Duration,
    pub length: Duration,
}

impl Fleet {
    pub fn new(target: Target) -> Result<Self> {
        Self::named_from(target, 0)
    }

    /// Its nodes have names from this number on.
    pub fn named_from(target: Target, first: usize) -> Result<Self> {
        Ok(Self {
            target,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            events: Vec::with_capacity(1024),
            buffer: vec![0; 256 * 1024],
            heard: Vec::new(),
            opened: first,
            waiting: 0,
            lost: 0,
        })
    }

    /// `count` connections, each of which was greeted and has answered.
    pub fn connected(target: Target, count: usize) -> Result<Self> {
        let mut fleet = Self::new(target)?;
        fleet.connect(count, |_, _| {})?;
        Ok(fleet)
    }

    /// Opens more connections; `each` gets the answers to the greetings.
    pub fn connect(&mut self, count: usize, mut each: impl FnMut(usize, &[u8])) -> Result<()> {
        let (first, mut answered) = (self.connections.len(), 0);
        let mut deadline = Instant::now() + PATIENCE;
        while answered < count {
            while self.connections.len() < first + count && self.connections.len() - first - answered < GREETINGS_AT_ONCE {
                self.open()?;
            }
            let heard: usize = self.turn(Duration::from_millis(100), &mut each)?.iter().map(|(_, answers)| answers).sum();
            if heard > 0 {
                answered += heard;
                deadline = Instant::now() + PATIENCE;
            } else if Instant::now() > deadline {
                return Err(Error::new(format!("{}: {answered} of {count} connections were answered", self.target.protocol.name())));
            }
            self.all_there()?;
        }
        Ok(())
    }

    /// How many connections were opened, closed ones among them.
    pub fn size(&self) -> usize {
        self.connections.len()
    }

    /// Opens one more connection and greets the server.
    fn open(&mut self) -> Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let number = self.opened;
        self.opened += 1;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8), 0)).into())?;
        socket.connect(&self.target.address.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let index = self.connections.len();
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        self.connections.push(Connection { socket: Some(socket), rest: Vec::new(), waiting: 0, sent_at: Instant::now() });
        let greeting = self.target.protocol.greeting(&format!("node-{number:08}"));
        self.send(index, &greeting, 1)
    }

    /// One more answer will come on every connection.
    pub fn expect_of_all(&mut self) {
        (0..self.connections.len()).for_each(|index| self.expect(index));
    }

    fn expect(&mut self, index: usize) {
        self.connections[index].waiting += 1;
        self.waiting += 1;
    }

    /// Sends what `answers` answers are expected to.
    pub fn send(&mut self, index: usize, bytes: &[u8], answers: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        connection.waiting += answers;
        self.waiting += answers;
        connection.sent_at = Instant::now();
        let Some(socket) = &connection.socket else { return Ok(()) };
        let mut sent = 0;
        while sent < bytes.len() {
            match io::write(socket, &bytes[sent..]) {
                Ok(count) => sent += count,
                Err(io::Errno::INTR) => {}
                Err(io::Errno::AGAIN) => {
                    let mut wait = [PollFd::new(socket, PollFlags::OUT)];
                    if poll(&mut wait, Some(&Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 }))? == 0 {
                        return Err(Error::new("the server takes nothing any more"));
                    }
                }
                // The server closed it; the next turn will see that.
                Err(io::Errno::PIPE | io::Errno::CONNRESET) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what is there, waiting for it at most `wait`. Returns who was heard and how many answers came.
    pub fn turn(&mut self, wait: Duration, mut each: impl FnMut(usize, &[u8])) -> Result<&[(usize, usize)]> {
        self.heard.clear();
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait)) {
            Ok(_) | Err(io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in self.events.drain(..) {
            let index = event.data.u64() as usize;
            let connection = &mut self.connections[index];
            let Some(socket) = &connection.socket else { continue };
            let count = match io::read(socket, &mut self.buffer) {
                Err(io::Errno::AGAIN | io::Errno::INTR) => continue,
                Ok(0) | Err(_) => {
                    connection.socket = None;
                    self.lost += 1;
                    continue;
                }
                Ok(count) => count,
            };
            let (mut answers, mut questions) = (0, 0);
            let protocol = self.target.protocol;
            let mut take = |bytes: &[u8]| {
                protocol.answers(bytes, |answer| match answer {
                    Answer::Frame(frame) => {
                        answers += 1;
                        each(index, frame);
                    }
                    Answer::Question => questions += 1,
                })
            };
            let bytes = &self.buffer[..count];
            if connection.rest.is_empty() {
                let taken = take(bytes);
                connection.rest.extend_from_slice(&bytes[taken..]);
            } else {
                connection.rest.extend_from_slice(bytes);
                let taken = take(&connection.rest);
                connection.rest.drain(..taken);
            }
            let awaited = answers.min(connection.waiting);
            connection.waiting -= awaited;
            self.waiting -= awaited;
            if questions > 0 {
                let _ = io::write(socket, b"PONG\r\n");
            }
            if answers > 0 {
                self.heard.push((index, answers));
            }
        }
        Ok(&self.heard)
    }

    /// An error when the server closed a connection.
    pub fn all_there(&self) -> Result<()> {
        if self.lost == 0 { Ok(()) } else { Err(Error::new(format!("{} closed {} connections", self.target.protocol.name(), self.lost))) }
    }

    /// Waits until everything that was sent is answered.
    pub fn drain(&mut self) -> Result<()> {
        self.drain_with(|_, _| {})
    }

    /// As [`Fleet::drain`]; `each` gets the answers.
    pub fn drain_with(&mut self, mut each: impl FnMut(usize, &[u8])) -> Result<()> {
        let mut deadline = Instant::now() + PATIENCE;
        while self.waiting > 0 {
            if !self.turn(Duration::from_millis(10), &mut each)?.is_empty() {
                deadline = Instant::now() + PATIENCE;
            }
            self.all_there()?;
            if Instant::now() > deadline {
                return Err(Error::new(format!("{} does not answer", self.target.protocol.name())));
            }
        }
        Ok(())
    }

    /// Every connection has `depth` of `frame` under way, and sends as many again when they are answered.
    pub fn closed_loop(&mut self, frame: &[u8], depth: usize, window: Window) -> Result<Load> {
        self.batches(&frame.repeat(depth), depth, depth as u64, window)
    }

    /// Every connection sends `batch` and, after `answers` answers, again. A batch counts as `operations`.
    pub fn batches(&mut self, batch: &[u8], answers: usize, operations: u64, window: Window) -> Result<Load> {
        self.batches_of(0..self.size(), batch, answers, operations, window)
    }

    /// As [`Fleet::batches`], of some connections.
    pub fn batches_of(&mut self, who: Range<usize>, batch: &[u8], answers: usize, operations: u64, window: Window) -> Result<Load> {
        for index in who {
            self.send(index, batch, answers)?;
        }
        let mut measured = Meter::new(self.target, window);
        let mut done = Vec::new();
        while let Some(counts) = measured.turn() {
            let turn = self.turn(Duration::from_millis(50), |_, _| {})?;
            done.extend(turn.iter().map(|(index, _)| *index));
            for index in done.drain(..) {
                let connection = &self.connections[index];
                if connection.waiting > 0 {
                    continue;
                }
                if counts {
                    measured.operations += operations;
                    measured.latency.saturating_record(connection.sent_at.elapsed().as_micros() as u64);
                }
                self.send(index, batch, answers)?;
            }
            self.all_there()?;
        }
        let load = measured.finish();
        self.drain()?;
        if load.operations == 0 {
            return Err(Error::new(format!("{} answered nothing", self.target.protocol.name())));
        }
        Ok(load)
    }

    /// The first connection sends a frame that the server passes on to all, again and again.
    pub fn broadcasts(&mut self, frame: &[u8], window: Window) -> Result<Load> {
        let mut measured = Meter::new(self.target, window);
        while let Some(counts) = measured.turn() {
            let began = Instant::now();
            self.expect_of_all();
            self.send(0, frame, 0)?;
            self.drain()?;
            if counts {
                measured.operations += self.size() as u64;
                measured.latency.saturating_record(began.elapsed().as_micros() as u64);
            }
        }
        Ok(measured.finish())
    }

    /// One connection sends what the server passes on to others, one answer to each, again and again.
    pub fn publications(&mut self, publisher: usize, receivers: Range<usize>, (bytes, answers): &Sent, window: Window) -> Result<Load> {
        let mut measured = Meter::new(self.target, window);
        while let Some(counts) = measured.turn() {
            let began = Instant::now();
            receivers.clone().for_each(|index| self.expect(index));
            self.send(publisher, bytes, *answers)?;
            self.drain()?;
            if counts {
                measured.operations += receivers.len() as u64;
                measured.latency.saturating_record(began.elapsed().as_micros() as u64);
            }
        }
        Ok(measured.finish())
    }

    /// Each of the first connections publishes what comes to its own `receivers` among those behind them, and again when all have it. A
    /// publication counts as an operation.
    pub fn many_publications(&mut self, publications: &[Sent], receivers: usize, window: Window) -> Result<Load> {
        let publishers = publications.len();
        let mut missing = vec![receivers; publishers];
        let mut began = vec![Instant::now(); publishers];
        let mut done: Vec<usize> = (0..publishers).collect();
        let mut measured = Meter::new(self.target, window);
        while let Some(counts) = measured.turn() {
            for publisher in done.drain(..) {
                let (bytes, answers) = &publications[publisher];
                began[publisher] = Instant::now();
                self.send(publisher, bytes, *answers)?;
            }
            for (index, answers) in self.turn(Duration::from_millis(50), |_, _| {})? {
                let Some(publisher) = index.checked_sub(publishers).map(|receiver| receiver / receivers) else { continue };
                missing[publisher] = missing[publisher].saturating_sub(*answers);
                if missing[publisher] == 0 {
                    missing[publisher] = receivers;
                    done.push(publisher);
                    if counts {
                        measured.operations += 1;
                        measured.latency.saturating_record(began[publisher].elapsed().as_micros() as u64);
                    }
                }
            }
            self.all_there()?;
        }
        let load = measured.finish();
        if load.operations == 0 {
            return Err(Error::new(format!("{} passed nothing on", self.target.protocol.name())));
        }
        Ok(load)
    }

    /// Each of these connections sends something, some at a time, until all is answered.
    pub fn send_each(&mut self, indexes: Range<usize>, mut each: impl FnMut(usize) -> Sent) -> Result<()> {
        for (count, index) in (1..).zip(indexes) {
            let (bytes, answers) = each(index);
            self.send(index, &bytes, answers)?;
            if count % GREETINGS_AT_ONCE == 0 {
                self.drain()?;
            }
        }
        self.drain()
    }

    /// Sends at a rate, whatever the answers do: every `every`, the next of `batches` to its connection.
    pub fn open_loop(
        &mut self,
        every: Duration,
        operations: u64,
        window: Window,
        mut batch: impl FnMut(u64, &mut Vec<u8>) -> (usize, usize),
    ) -> Result<Load> {
        let mut measured = Meter::new(self.target, window);
        let started = Instant::now();
        let (mut sent, mut bytes) = (0u64, Vec::new());
        while let Some(counts) = measured.turn() {
            let due = (started.elapsed().as_nanos() / every.as_nanos()) as u64;
            while sent < due {
                bytes.clear();
                let (index, answers) = batch(sent, &mut bytes);
                self.send(index, &bytes, answers)?;
                sent += 1;
                if counts {
                    measured.operations += operations;
                }
            }
            let next = every.saturating_mul(sent as u32 + 1).saturating_sub(started.elapsed());
            for (index, _) in self.turn(next.min(Duration::from_millis(50)), |_, _| {})?.to_vec() {
                let connection = &self.connections[index];
                if counts && connection.waiting == 0 {
                    measured.latency.saturating_record(connection.sent_at.elapsed().as_micros() as u64);
                }
            }
            self.all_there()?;
        }
        let load = measured.finish();
        self.drain()?;
        Ok(load)
    }

    /// Connects, is answered, and closes, with `at_once` under way.
    pub fn churn(&mut self, at_once: usize, window: Window) -> Result<Load> {
        let mut measured = Meter::new(self.target, window);
        let mut waiting = VecDeque::new();
        while let Some(counts) = measured.turn() {
            while waiting.len() < at_once {
                // Slots are not used twice: an event of a connection that was closed must not meet the next one.
                waiting.push_back(self.size());
                self.open()?;
            }
            self.turn(Duration::from_millis(50), |_, _| {})?;
            self.all_there()?;
            let connections = &mut self.connections;
            waiting.retain(|index| {
                let connection = &mut connections[*index];
                if connection.waiting > 0 {
                    return true;
                }
                connection.socket = None;
                if counts {
                    measured.operations += 1;
                    measured.latency.saturating_record(connection.sent_at.elapsed().as_micros() as u64);
                }
                false
            });
        }
        Ok(measured.finish())
    }

    /// Reads for a while, or until every connection was closed by the server.
    pub fn listen(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while self.lost < self.size() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.turn(left.min(Duration::from_millis(50)), |_, _| {})?;
        }
        Ok(())
    }
}

/// Takes the server's CPU time at the beginning and at the end of a window.
pub struct Meter {
    target: Target,
    window: Window,
    began: Instant,
    counting: Option<(Instant, u64)>,
    taken: Option<(f64, u64)>,
    pub operations: u64,
    pub latency: Histogram<u64>,
}

impl Meter {
    pub fn new(target: Target, window: Window) -> Self {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("these bounds are valid");
        Self { target, window, began: Instant::now(), counting: None, taken: None, operations: 0, latency }
    }

    /// Whether what happens now counts; `None` when the time is over.
    pub fn turn(&mut self) -> Option<bool> {
        match self.counting {
            None if self.began.elapsed() < self.window.warm_up => Some(false),
            None => {
                self.counting = Some((Instant::now(), self.target.cpu()));
                Some(true)
            }
            Some((since, cpu)) if since.elapsed() >= self.window.length => {
                // A thread of the server that ended meanwhile takes its time with it.
                self.taken = Some((since.elapsed().as_secs_f64(), self.target.cpu().saturating_sub(cpu)));
                None
            }
            Some(_) => Some(true),
        }
    }

    /// Ends the window before its time.
    pub fn stop(mut self) -> Load {
        self.window.length = Duration::ZERO;
        self.turn();
        self.finish()
    }

    pub fn finish(self) -> Load {
        let (seconds, cpu) = self.taken.unwrap_or((self.window.length.as_secs_f64(), 0));
        Load { operations: self.operations, seconds, cpu, latency: self.latency }
    }
}
