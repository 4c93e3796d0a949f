//! Who asks: a [`Bus`] sends requests, and sorts what comes back to those who wait for it.
//!
//! Owns the numbers of the requests and the answers that nobody has taken yet. A connection that is dead is made again.

use super::stream::{EngineStream, Unsent, broken, closed, error_of, wait_for};
use super::{BusStats, ConnectionInfo, NodeInfo, Reply, Request, Welcome};
use crate::error::{Error, ErrorKind};
use crate::process;
use crate::service::Service;
use crate::wire::bus::{self as wire, RequestFrame, Response, Role};
use rustix::event::PollFlags;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests of one connection that were begun and whose answers were not taken.
const MAX_BEGUN: usize = 4096;

/// A connection to an engine that answers requests. It is made again by itself when the engine was restarted.
pub struct Bus {
    path: PathBuf,
    timeout: Duration,
    process: u32,
    stream: Option<EngineStream>,
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
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, Error> {
        let stream = EngineStream::open(path, Role::Client, Instant::now() + timeout)?;
        Ok(Self { path: path.to_owned(), timeout, process: process::id(), stream: Some(stream), next_number: 1, begun: HashMap::new() })
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
        self.stream.as_ref().map(|stream| stream.socket.as_fd())
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
        if self.stream.is_none() {
            self.stream = Some(EngineStream::open(&self.path, Role::Client, deadline)?);
        }
        if let Err(error) = self.stream.as_mut().map_or(Ok(()), |stream| stream.await_welcome(deadline)) {
            self.fail(&error);
            return Err(error);
        }
        self.sort_or_fail()?;
        self.stream.as_ref().and_then(|stream| stream.welcome.as_ref()).ok_or_else(closed)
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
        wire::write_message(&mut frame, &RequestFrame { id: number, request: request.clone() });
        let had_stream = self.stream.is_some();
        match self.write(&frame, deadline) {
            Ok(()) => {}
            Err(failed) if had_stream && failed.written == 0 && failed.is_dead => {
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
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let received = stream.fill();
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
            let Some(stream) = &self.stream else { return Err(closed()) };
            if !wait_for(stream.socket.as_fd(), PollFlags::IN, deadline)? {
                self.forget(number);
                let text = format!("The engine did not answer within {} ms", timeout.as_millis());
                return Err(Error::new(ErrorKind::Timeout, text));
            }
            // What it could not take in has become the answer.
            let _ = self.receive();
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Those of [`Bus::begin`] and [`Bus::wait`], and what the engine answered.
    pub fn ask(&mut self, request: &Request<'_>) -> Result<Reply, Error> {
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
        self.ask(&Request::Connections { max })?.connections()
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
        if self.stream.is_none() {
            let opened = EngineStream::open(&self.path, Role::Client, deadline);
            self.stream = Some(opened.map_err(|error| Unsent { written: 0, is_dead: false, error })?);
        }
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let cap = stream.welcome.as_ref().map_or(wire::FRAME_CAP, |welcome| welcome.frame_cap);
        if frame.len() - wire::LENGTH_LEN > cap as usize {
            let error = Error::new(ErrorKind::Limit, format!("A request may have up to {cap} bytes"));
            return Err(Unsent { written: 0, is_dead: false, error });
        }
        stream.send(frame, deadline)
    }

    /// To be called wherever something was taken in: the descriptor does not tell a second time.
    fn sort_or_fail(&mut self) -> Result<(), Error> {
        self.sort_answers().inspect_err(|error| self.fail(error))
    }

    fn sort_answers(&mut self) -> Result<(), Error> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if !stream.has_welcome()? {
            return Ok(());
        }
        while let Some(body) = stream.frame()? {
            let answer: Response = wire::decode(&body).map_err(broken)?;
            // Nobody waits for the others any more.
            if let Some(waiting) = self.begun.get_mut(&answer.id) {
                *waiting = Some(answer.result.map_err(error_of));
            }
        }
        Ok(())
    }

    /// The connection is over: whatever it still owed will not come.
    fn fail(&mut self, error: &Error) {
        self.stream = None;
        for waiting in self.begun.values_mut().filter(|waiting| waiting.is_none()) {
            *waiting = Some(Err(error.clone()));
        }
    }
}

/// Those who share a connection take turns.
impl Service for Mutex<Bus> {
    fn ask(&self, request: &Request<'_>) -> Result<Reply, Error> {
        self.lock().unwrap_or_else(PoisonError::into_inner).ask(request)
    }
}
