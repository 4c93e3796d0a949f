//! The bus: how a process reaches the engine of another process of this machine.
//!
//! Owns both callers' sides: [`Bus`] (asks) and [`Attachment`] (a worker: gets the events).
//! There is no thread in here and nothing that waits longer than it was told to: the caller watches the descriptor. Does
//! not know what a request does, which is [`crate::engine`]'s, nor how it is served and where its file is, which is [`crate::net::bus`]'s.

use crate::error::{Error, ErrorKind, reason};
use crate::event::EventMask;
use crate::hub::batch::BatchReader;
use crate::hub::dispatch::{Told, WorkerId};
use crate::net::bus::{places, socket};
use crate::process;
use crate::text::printable;
use crate::wire::bus::{self as wire, Answer, Ask, Broken, Fault, News, Role, Word};
use bytes::{Buf, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::config::check_name;
pub use crate::engine::{BusStats, ConnectionInfo, NodeInfo};
pub use crate::net::bus::places::{default_paths, path_to_bind};
pub use crate::wire::bus::{LogLevel, LogLine, Reply, Request, Welcome};

/// Room made for a read: more after a read that filled it, less after one that did not.
const READ_BYTES: std::ops::RangeInclusive<usize> = 4 << 10..=256 << 10;

/// Requests of one connection that were begun and whose answers were not taken.
const MAX_BEGUN: usize = 4096;

/// Messages of the engine's log that wait to be taken.
const MAX_LOG_LINES: usize = 1000;

/// How often a connection is tried again while the engine's queue of new ones is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// How long a socket may take from its file to where it can be connected to. One that takes longer was left behind.
const MAKING_TIME: Duration = Duration::from_millis(200);

/// A connection to an engine that answers requests. It is made again by itself when the engine was restarted.
pub struct Bus {
    path: PathBuf,
    timeout: Duration,
    process: u32,
    line: Option<Line>,
    next_number: u32,
    /// Requests whose answers were not taken yet.
    begun: HashMap<u32, Option<Result<Reply, Error>>>,
}

impl Bus {
    /// Connects. The engine's welcome is not waited for: that it refuses us, because of its version for example, is told by
    /// the first answer, or by [`Bus::welcome`], unless it is known already. `timeout` holds for this, and for every request that has none of its own.
    ///
    /// # Errors
    /// `Io`: no engine there, or no right to use it. `Timeout`.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Bus, Error> {
        let line = Line::open(path, Role::Client, Instant::now() + timeout)?;
        Ok(Bus { path: path.to_owned(), timeout, process: process::id(), line: Some(line), next_number: 1, begun: HashMap::new() })
    }

    /// Connects to the server of that name, at the first of its [`default_paths`] where one answers. Where none does, the only one
    /// that answers in a folder which a service manager made, or for root in another user's, will do.
    ///
    /// # Errors
    /// As [`Bus::connect`], and `Io` when several answer there; `Config` for a name that no server can have.
    pub fn find(name: &str, timeout: Duration) -> Result<Bus, Error> {
        check_name(name)?;
        let paths = default_paths(name);
        for path in &paths {
            match Bus::connect(path, timeout) {
                Ok(bus) => return Ok(bus),
                // One that we may not use, or that hangs, is the one that was meant.
                Err(error) if is_taken(path) => return Err(error),
                Err(_) => {}
            }
        }
        match &places::elsewhere(name)[..] {
            [only] => Bus::connect(only, timeout),
            [] => {
                let others = places::others(name);
                let known = if others.is_empty() { String::new() } else { format!(" (others: {})", listed(&others, ", ")) };
                Err(Error::new(ErrorKind::Io, format!("No Heartbus server at {}{known}", listed(&paths, " or "))))
            }
            several => {
                let text =
                    format!("Several servers are named {name}, and none of them is ours: connect to one of {}", listed(several, ", "));
                Err(Error::new(ErrorKind::Io, text))
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// For requests from now on that have no timeout of their own.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Readable when [`Bus::receive`] has something to do. `None` while there is no connection: the next request makes one,
    /// with a descriptor of its own.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_ref().map(|line| line.stream.as_fd())
    }

    /// The connection belongs to this process, not to one that was forked off it.
    pub fn is_own_process(&self) -> bool {
        self.process == process::id()
    }

    /// What the engine said of itself.
    ///
    /// # Errors
    /// `Protocol`: it speaks another version. `Io`, `Limit`: it does not take us. `Timeout`, `Closed`, `WrongProcess`.
    pub fn welcome(&mut self) -> Result<&Welcome, Error> {
        self.check_process()?;
        let deadline = Instant::now() + self.timeout;
        if self.line.is_none() {
            self.line = Some(Line::open(&self.path, Role::Client, deadline)?);
        }
        if let Err(error) = self.line.as_mut().map_or(Ok(()), |line| line.await_welcome(deadline)) {
            self.fail(&error);
            return Err(error);
        }
        self.sort_or_fail()?;
        self.line.as_ref().and_then(|line| line.welcome.as_ref()).ok_or_else(closed)
    }

    /// Sends a request and returns its number, without waiting for the answer. A connection that turns out to be dead is
    /// made again once, unless the engine may have got something of the request.
    ///
    /// # Errors
    /// `Timeout`: the engine does not read. `Limit`: too many requests wait, or this one is too long. `Io` and those of
    /// [`Bus::welcome`].
    pub fn begin(&mut self, request: &Request<'_>) -> Result<u32, Error> {
        self.check_process()?;
        if self.begun.len() >= MAX_BEGUN {
            return Err(Error::new(ErrorKind::Limit, format!("{MAX_BEGUN} requests wait for their answers to be taken")));
        }
        if matches!(request, Request::SendMany { nodes, .. } if nodes.len() > wire::MAX_NODES) {
            return Err(Error::new(ErrorKind::Limit, format!("A message can go to {} nodes at once", wire::MAX_NODES)));
        }
        let deadline = Instant::now() + self.timeout;
        let number = self.free_number();
        let mut frame = Vec::with_capacity(64);
        wire::write_message(&mut frame, &Ask { id: number, request: request.clone() });
        let had_line = self.line.is_some();
        match self.write(&frame, deadline) {
            Ok(()) => {}
            Err(failed) if had_line && failed.written == 0 && failed.is_dead => {
                self.fail(&failed.error);
                if let Err(failed) = self.write(&frame, deadline) {
                    self.fail(&failed.error);
                    return Err(failed.error);
                }
            }
            Err(failed) => {
                // Half a frame, or a whole one that nobody reads: the connection is of no use any more.
                if failed.is_dead || failed.written > 0 {
                    self.fail(&failed.error);
                }
                return Err(failed.error);
            }
        }
        self.begun.insert(number, None);
        // Sending may have taken in answers. If the connection broke by that, this request has failed like the others.
        let _ = self.sort_or_fail();
        Ok(number)
    }

    /// Takes in what has arrived. Never blocks.
    ///
    /// # Errors
    /// The connection ended or broke. The requests that were begun have failed with the same error; the next one makes a new
    /// connection.
    pub fn receive(&mut self) -> Result<(), Error> {
        self.check_process()?;
        let Some(line) = &mut self.line else { return Ok(()) };
        let received = line.fill();
        // What came before the end still counts.
        self.sort_or_fail()?;
        received.inspect_err(|error| self.fail(error))
    }

    /// The answer to a request, once. `None`: it has not come yet.
    pub fn take(&mut self, number: u32) -> Option<Result<Reply, Error>> {
        match self.begun.get(&number) {
            Some(None) => None,
            Some(Some(_)) => self.begun.remove(&number).flatten(),
            None => Some(Err(Error::new(ErrorKind::InvalidArgument, format!("No request has the number {number}")))),
        }
    }

    /// Nobody waits for this answer any more.
    pub fn forget(&mut self, number: u32) {
        self.begun.remove(&number);
    }

    /// Waits for the answer to a request.
    ///
    /// # Errors
    /// `Timeout`: the request may still be carried out, its answer is dropped. What the engine answered, and those of
    /// [`Bus::receive`].
    pub fn wait(&mut self, number: u32, timeout: Duration) -> Result<Reply, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(answer) = self.take(number) {
                return answer;
            }
            let Some(line) = &self.line else { return Err(closed()) };
            if !wait_for(line.stream.as_fd(), PollFlags::IN, deadline)? {
                self.forget(number);
                let text = format!("The engine did not answer within {} ms", timeout.as_millis());
                return Err(Error::new(ErrorKind::Timeout, text));
            }
            // What it could not take in has become the answer.
            let _ = self.receive();
        }
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Reply, Error> {
        let number = self.begin(request)?;
        self.wait(number, self.timeout)
    }

    /// As [`crate::engine::Engine::send_to`].
    ///
    /// # Errors
    /// As there, and those of [`Bus::begin`] and [`Bus::wait`]; so for all that follow.
    pub fn send_to(&mut self, node: &str, data: &[u8], channel: u32) -> Result<(), Error> {
        self.ask(&Request::SendTo { node, channel, data })?.done()
    }

    /// Sends to several nodes on their main channels; returns for how many it was queued.
    ///
    /// # Errors
    /// Where it concerns the data itself; nothing was sent then.
    pub fn send_many(&mut self, nodes: &[&str], data: &[u8]) -> Result<usize, Error> {
        self.ask(&Request::SendMany { nodes: nodes.to_vec(), data })?.count()
    }

    /// As [`crate::engine::Engine::broadcast`].
    ///
    /// # Errors
    /// As there.
    pub fn broadcast(&mut self, data: &[u8]) -> Result<usize, Error> {
        self.ask(&Request::Broadcast { data })?.count()
    }

    /// As [`crate::engine::Engine::disconnect`].
    ///
    /// # Errors
    /// As there.
    pub fn disconnect(&mut self, node: &str) -> Result<(), Error> {
        self.ask(&Request::Disconnect { node })?.done()
    }

    /// As [`crate::engine::Engine::keep_alive`].
    ///
    /// # Errors
    /// As there.
    pub fn keep_alive(&mut self, node: &str) -> Result<(), Error> {
        self.ask(&Request::KeepAlive { node })?.done()
    }

    /// As [`crate::engine::Engine::set_metadata`].
    ///
    /// # Errors
    /// As there.
    pub fn set_metadata(&mut self, node: &str, channel: u32, members: &str) -> Result<(), Error> {
        self.ask(&Request::SetMetadata { node, channel, members })?.done()
    }

    /// # Errors
    /// Those of [`Bus::begin`] and [`Bus::wait`]; an unknown node is none.
    pub fn node(&mut self, id: &str) -> Result<Option<NodeInfo>, Error> {
        self.ask(&Request::Node { id })?.node()
    }

    /// # Errors
    /// As [`Bus::node`].
    pub fn node_of_channel(&mut self, channel: u32) -> Result<Option<NodeInfo>, Error> {
        self.ask(&Request::NodeOfChannel { channel })?.node()
    }

    /// # Errors
    /// As [`Bus::node`].
    pub fn node_of_connection(&mut self, connection: u64) -> Result<Option<NodeInfo>, Error> {
        self.ask(&Request::NodeOfConnection { connection })?.node()
    }

    /// Up to `limit` nodes behind `after`, and what `after` is for the next page. A page may be shorter than `limit`, even
    /// empty, with more to come: only `None` says that it is the last. In a pattern `*` stands for any text, `?` for one
    /// character.
    ///
    /// # Errors
    /// As [`Bus::node`].
    pub fn page(
        &mut self,
        after: Option<u64>,
        limit: u32,
        id_pattern: Option<&str>,
        ip: Option<IpAddr>,
    ) -> Result<(Vec<NodeInfo>, Option<u64>), Error> {
        self.ask(&Request::Page { after, limit, id_pattern, ip })?.page()
    }

    /// As [`Bus::page`], of nodes whose metadata has all members of a JSON object of up to 16 scalars. Numbers are equal by their
    /// values; null stands for a member that is null or not there.
    ///
    /// # Errors
    /// As [`Bus::node`]; `InvalidArgument` when `metadata` is no such object.
    pub fn find_nodes(
        &mut self,
        after: Option<u64>,
        limit: u32,
        id_pattern: Option<&str>,
        ip: Option<IpAddr>,
        metadata: &str,
    ) -> Result<(Vec<NodeInfo>, Option<u64>), Error> {
        self.ask(&Request::Find { after, limit, id_pattern, ip, metadata })?.page()
    }

    /// # Errors
    /// Those of [`Bus::begin`] and [`Bus::wait`].
    pub fn stats(&mut self) -> Result<BusStats, Error> {
        self.ask(&Request::Stats)?.stats()
    }

    /// # Errors
    /// As [`Bus::stats`].
    pub fn heartbeat_timeout(&mut self) -> Result<Duration, Error> {
        self.ask(&Request::HeartbeatTimeout)?.duration()
    }

    /// As [`crate::engine::Engine::set_heartbeat_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn set_heartbeat_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        self.ask(&Request::SetHeartbeatTimeout { micros: u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX) })?.done()
    }

    /// As [`crate::engine::Engine::connections`], fewer where the answer would grow long.
    ///
    /// # Errors
    /// As [`Bus::stats`].
    pub fn connections(&mut self, max: u32) -> Result<Vec<ConnectionInfo>, Error> {
        match self.ask(&Request::Connections { max })? {
            Reply::Connections(connections) => Ok(connections),
            _ => Err(wrong_reply()),
        }
    }

    /// As [`crate::engine::Engine::close_door`].
    ///
    /// # Errors
    /// As [`Bus::stats`].
    pub fn close_door(&mut self) -> Result<(), Error> {
        self.ask(&Request::CloseDoor)?.done()
    }

    fn check_process(&self) -> Result<(), Error> {
        if self.is_own_process() { Ok(()) } else { Err(Error::wrong_process()) }
    }

    fn free_number(&mut self) -> u32 {
        loop {
            let number = self.next_number;
            self.next_number = self.next_number.wrapping_add(1);
            if !self.begun.contains_key(&number) {
                return number;
            }
        }
    }

    fn write(&mut self, frame: &[u8], deadline: Instant) -> Result<(), Unsent> {
        if self.line.is_none() {
            let opened = Line::open(&self.path, Role::Client, deadline);
            self.line = Some(opened.map_err(|error| Unsent { written: 0, is_dead: false, error })?);
        }
        let Some(line) = &mut self.line else { return Ok(()) };
        let cap = line.welcome.as_ref().map_or(wire::FRAME_CAP, |welcome| welcome.frame_cap);
        if frame.len() - wire::LENGTH_LEN > cap as usize {
            let error = Error::new(ErrorKind::Limit, format!("A request may have up to {cap} bytes"));
            return Err(Unsent { written: 0, is_dead: false, error });
        }
        line.send(frame, deadline)
    }

    /// To be called wherever something was taken in: the descriptor does not tell a second time.
    fn sort_or_fail(&mut self) -> Result<(), Error> {
        self.sort_answers().inspect_err(|error| self.fail(error))
    }

    fn sort_answers(&mut self) -> Result<(), Error> {
        let Some(line) = &mut self.line else { return Ok(()) };
        if !line.has_welcome()? {
            return Ok(());
        }
        while let Some(body) = line.frame()? {
            let answer: Answer = wire::decode(&body).map_err(broken)?;
            // Nobody waits for the others any more.
            if let Some(waiting) = self.begun.get_mut(&answer.id) {
                *waiting = Some(answer.result.map_err(error_of));
            }
        }
        Ok(())
    }

    /// The connection is over: whatever it still owed will not come.
    fn fail(&mut self, error: &Error) {
        self.line = None;
        for waiting in self.begun.values_mut().filter(|waiting| waiting.is_none()) {
            *waiting = Some(Err(error.clone()));
        }
    }
}

/// What a worker was told.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub told: Told<Arc<NodeInfo>>,
    pub batch: u64,
    /// The last event of its batch: [`Attachment::acknowledge`] the batch when it is done.
    pub is_last: bool,
}

/// Where a worker's connection stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Running,
    /// The server is stopping: events still come, then [`Phase::Finished`].
    Stopping,
    /// Everything was told: the server stopped, or this worker left.
    Finished,
    /// The engine is gone.
    Lost,
}

/// A worker's connection: the events come here.
pub struct Attachment {
    line: Line,
    timeout: Duration,
    phase: Phase,
    batch: BatchReader,
    /// Messages of the engine's log that were not taken yet.
    log: VecDeque<LogLine>,
}

impl Attachment {
    /// Connects and waits for the engine's welcome. Events come after [`Attachment::ready`].
    ///
    /// # Errors
    /// `Io`: no engine there, or no right to be its worker. `Protocol`: it speaks another version. `Closed`: it runs its
    /// callbacks itself, or is stopping. `Timeout`.
    pub fn attach(path: &Path, timeout: Duration) -> Result<Attachment, Error> {
        let deadline = Instant::now() + timeout;
        let mut line = Line::open(path, Role::Worker, deadline)?;
        line.await_welcome(deadline)?;
        Ok(Attachment { line, timeout, phase: Phase::Running, batch: BatchReader::default(), log: VecDeque::new() })
    }

    /// Readable when [`Attachment::drain`] has something to do, unless the last one stopped at its `max`.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.stream.as_fd()
    }

    /// What the engine said of itself when we attached.
    pub fn welcome(&self) -> &Welcome {
        self.line.welcome.as_ref().expect("whoever is attached was welcomed")
    }

    pub fn worker(&self) -> WorkerId {
        self.welcome().worker
    }

    pub fn is_own_process(&self) -> bool {
        self.line.process == process::id()
    }

    /// Events may come from now on.
    ///
    /// # Errors
    /// `Closed`: the engine is gone. `Timeout`: it does not read. `WrongProcess`. So for all that follow.
    pub fn ready(&mut self, mask: EventMask) -> Result<(), Error> {
        self.say(Word::Ready { mask: mask.0 })
    }

    /// Other events than before. Holds for what happens from now on, more or less.
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    pub fn subscribe(&mut self, mask: EventMask) -> Result<(), Error> {
        self.say(Word::Subscribe { mask: mask.0 })
    }

    /// No more batches. Those that are on their way still come; when they are acknowledged, [`Phase::Finished`] follows.
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    pub fn leave(&mut self) -> Result<(), Error> {
        self.say(Word::Leave)
    }

    /// Copies of the data that arrives on a channel, whichever worker gets the events of its node.
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    pub fn watch(&mut self, channel: u32) -> Result<(), Error> {
        self.say(Word::Watch { channel })
    }

    /// # Errors
    /// As [`Attachment::ready`].
    pub fn unwatch(&mut self, channel: u32) -> Result<(), Error> {
        self.say(Word::Unwatch { channel })
    }

    /// The engine's log messages, too: they come with the events, see [`Attachment::log_line`].
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    pub fn take_log(&mut self) -> Result<(), Error> {
        self.say(Word::TakeLog)
    }

    /// The next message of the engine's log that [`Attachment::drain`] has found.
    pub fn log_line(&mut self) -> Option<LogLine> {
        self.log.pop_front()
    }

    /// The events of this batch are done. Batches are acknowledged in their order, each once.
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    pub fn acknowledge(&mut self, batch: u64) -> Result<(), Error> {
        self.say(Word::Acknowledge { batch })
    }

    /// This process ends in the middle of a batch: its first `done` events are done, the next `begun` may be, the others go to
    /// another worker as if this one had never had them.
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    pub fn acknowledge_part(&mut self, batch: u64, done: u32, begun: u32) -> Result<(), Error> {
        self.say(Word::AcknowledgePart { batch, done, begun })
    }

    /// Moves up to `max` events to the back of `into` and returns their number. Never blocks. Fewer than `max` means that
    /// there are no more just now.
    ///
    /// # Errors
    /// `Closed`: the engine is gone, and everything it sent was told. `Protocol`: what it sent makes no sense.
    pub fn drain(&mut self, into: &mut VecDeque<Delivered>, max: usize) -> Result<usize, Error> {
        if !self.is_own_process() {
            return Err(Error::wrong_process());
        }
        let drained = self.drain_all(into, max);
        if drained.is_err() && self.phase != Phase::Finished {
            self.phase = Phase::Lost;
        }
        drained
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    fn drain_all(&mut self, into: &mut VecDeque<Delivered>, max: usize) -> Result<usize, Error> {
        let before = into.len();
        let mut end = None;
        loop {
            while into.len() - before < max
                && let Some(told) = self.batch.next().map_err(broken)?
            {
                into.push_back(Delivered { told, batch: self.batch.number(), is_last: self.batch.is_done() });
            }
            let count = into.len() - before;
            if count >= max {
                return Ok(count);
            }
            if let Some(body) = self.line.frame()? {
                match body.first().and_then(|code| News::from_code(*code)) {
                    Some(News::Part | News::Batch) => self.batch.open(body.freeze()).map_err(broken)?,
                    Some(News::Stopping) => self.phase = Phase::Stopping,
                    Some(News::Finished) => self.phase = Phase::Finished,
                    Some(News::Log) => {
                        self.log.push_back(wire::decode(&body[1..]).map_err(broken)?);
                        // Whoever drains and never takes them is not to drown in them.
                        if self.log.len() > MAX_LOG_LINES {
                            self.log.pop_front();
                        }
                    }
                    None => return Err(broken(Broken("unknown news"))),
                }
                continue;
            }
            match end {
                // The events first, then the bad news: the next call has it again.
                Some(_) if count > 0 => return Ok(count),
                Some(error) => return Err(error),
                None => {}
            }
            match self.line.fill_once() {
                Ok(true) => {}
                Ok(false) => return Ok(count),
                Err(error) => end = Some(error),
            }
        }
    }

    fn say(&mut self, word: Word) -> Result<(), Error> {
        if !self.is_own_process() {
            return Err(Error::wrong_process());
        }
        let mut frame = Vec::with_capacity(16);
        wire::write_message(&mut frame, &word);
        let deadline = Instant::now() + self.timeout;
        self.line.send(&frame, deadline).map_err(|failed| {
            // The connection is only lost when everything was read that came over it: `drain` says so.
            failed.error
        })
    }
}

/// A connection, its greeting and what has arrived over it.
struct Line {
    stream: UnixStream,
    input: BytesMut,
    /// Room to make for the next read.
    room: usize,
    welcome: Option<Welcome>,
    process: u32,
}

impl Drop for Line {
    fn drop(&mut self) {
        // A process that was forked off this one may hold a copy of the descriptor: the engine is to see the end of ours. In
        // that process, it is not ours to end.
        if self.process == process::id() {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

/// What became of bytes that could not be sent.
struct Unsent {
    written: usize,
    /// The connection is over; otherwise the engine only did not read in time.
    is_dead: bool,
    error: Error,
}

impl Line {
    fn open(path: &Path, role: Role, deadline: Instant) -> Result<Line, Error> {
        let stream = connect(path, deadline)?;
        let mut line = Line { stream, input: BytesMut::new(), room: *READ_BYTES.start(), welcome: None, process: process::id() };
        let mut hello = Vec::with_capacity(32);
        wire::write_hello(&mut hello, wire::VERSION, role, std::process::id(), env!("CARGO_PKG_VERSION"));
        line.send(&hello, deadline).map_err(|failed| failed.error)?;
        Ok(line)
    }

    /// Sends all of it. What arrives meanwhile is taken in, for an engine that writes reads no further.
    fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Unsent> {
        let mut written = 0;
        while written < bytes.len() {
            match send(&self.stream, &bytes[written..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let unsent = |error| Unsent { written, is_dead: false, error };
                    if !wait_for(self.stream.as_fd(), PollFlags::IN | PollFlags::OUT, deadline).map_err(unsent)? {
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
    fn fill(&mut self) -> Result<(), Error> {
        while self.fill_once()? {}
        Ok(())
    }

    /// Takes in some of what has arrived; false when there was nothing.
    fn fill_once(&mut self) -> Result<bool, Error> {
        let before = self.input.len();
        self.input.resize(before + self.room, 0);
        let received = loop {
            match recv(&self.stream, &mut self.input[before..], RecvFlags::DONTWAIT) {
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
    fn has_welcome(&mut self) -> Result<bool, Error> {
        if self.welcome.is_none()
            && let Some((greeting, len)) = wire::parse_greeting(&self.input).map_err(broken)?
        {
            self.input.advance(len);
            self.welcome = Some(greeting.map_err(error_of)?);
        }
        Ok(self.welcome.is_some())
    }

    fn await_welcome(&mut self, deadline: Instant) -> Result<(), Error> {
        while !self.has_welcome()? {
            if !wait_for(self.stream.as_fd(), PollFlags::IN, deadline)? {
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
    fn frame(&mut self) -> Result<Option<BytesMut>, Error> {
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

impl Reply {
    /// # Errors
    /// `Protocol`: it is the answer to something else. So for all of these.
    pub fn done(self) -> Result<(), Error> {
        if self == Reply::Done { Ok(()) } else { Err(wrong_reply()) }
    }

    /// # Errors
    /// As [`Reply::done`].
    pub fn count(self) -> Result<usize, Error> {
        if let Reply::Count(count) = self { Ok(count as usize) } else { Err(wrong_reply()) }
    }

    /// # Errors
    /// As [`Reply::done`].
    pub fn node(self) -> Result<Option<NodeInfo>, Error> {
        if let Reply::Node(node) = self { Ok(node) } else { Err(wrong_reply()) }
    }

    /// # Errors
    /// As [`Reply::done`].
    pub fn page(self) -> Result<(Vec<NodeInfo>, Option<u64>), Error> {
        if let Reply::Page { nodes, next } = self { Ok((nodes, next)) } else { Err(wrong_reply()) }
    }

    /// # Errors
    /// As [`Reply::done`].
    pub fn stats(self) -> Result<BusStats, Error> {
        if let Reply::Stats(record) = self { Ok(BusStats::from(&record)) } else { Err(wrong_reply()) }
    }

    /// # Errors
    /// As [`Reply::done`].
    pub fn duration(self) -> Result<Duration, Error> {
        if let Reply::Micros(micros) = self { Ok(Duration::from_micros(micros)) } else { Err(wrong_reply()) }
    }
}

/// Whether somebody listens on this socket file.
pub fn is_taken(path: &Path) -> bool {
    socket::is_taken(path)
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

fn listed(paths: &[PathBuf], between: &str) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(between)
}

/// Waits until the descriptor is as wanted, or hung up; false when the time is over.
fn wait_for(fd: BorrowedFd<'_>, wanted: PollFlags, deadline: Instant) -> Result<bool, Error> {
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

fn error_of(fault: Fault) -> Error {
    let kind = ErrorKind::from_code(fault.kind).unwrap_or(ErrorKind::Internal);
    // Programs print it, and whoever listens on a socket may have written it.
    Error { kind, message: printable(&fault.message).into_owned() }
}

fn broken(broken: Broken) -> Error {
    Error::new(ErrorKind::Protocol, format!("The bus socket makes no sense: {broken}"))
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "The engine closed the connection")
}

fn lost(errno: Errno) -> Error {
    match errno {
        Errno::PIPE | Errno::CONNRESET => closed(),
        errno => Error::new(ErrorKind::Io, format!("The bus socket failed: {}", reason(&errno.into()))),
    }
}

fn wrong_reply() -> Error {
    Error::new(ErrorKind::Protocol, "The engine answered something else")
}
