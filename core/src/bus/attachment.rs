//! A worker's side of the bus socket: gets the events, and acknowledges them in batches.
//!
//! Owns what has arrived and was not drained. Which events a worker gets is decided by the engine.

use super::stream::{EngineStream, broken};
use super::{LogLine, NodeInfo, Welcome};
use crate::error::Error;
use crate::event::EventMask;
use crate::hub::batch::BatchReader;
use crate::hub::dispatch::{Delivery, WorkerId};
use crate::process;
use crate::wire::bus::{self as wire, Role, ServerMessage, WorkerMessage};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages of the engine's log that wait to be taken.
const MAX_LOG_LINES: usize = 1000;

/// What a worker was told.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub told: Delivery<Arc<NodeInfo>>,
    pub batch: u64,
    /// The last event of its batch: [`Attachment::acknowledge`] the batch when it is done.
    pub is_last: bool,
}

/// Where a worker's connection stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AttachmentPhase {
    Running,
    /// The server is stopping: events still come, then [`AttachmentPhase::Finished`].
    Stopping,
    /// Everything was told: the server stopped, or this worker left.
    Finished,
    /// The engine is gone.
    Lost,
}

/// A worker's connection: the events come here.
pub struct Attachment {
    stream: EngineStream,
    timeout: Duration,
    phase: AttachmentPhase,
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
    pub fn attach(path: &Path, timeout: Duration) -> Result<Self, Error> {
        let deadline = Instant::now() + timeout;
        let mut stream = EngineStream::open(path, Role::Worker, deadline)?;
        stream.await_welcome(deadline)?;
        Ok(Self { stream, timeout, phase: AttachmentPhase::Running, batch: BatchReader::default(), log: VecDeque::new() })
    }

    /// Readable when [`Attachment::drain`] has something to do, unless the last one stopped at its `max`.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.socket.as_fd()
    }

    /// What the engine said of itself when we attached.
    pub fn welcome(&self) -> &Welcome {
        self.stream.welcome.as_ref().expect("whoever is attached was welcomed")
    }

    pub fn worker(&self) -> WorkerId {
        self.welcome().worker
    }

    pub fn is_own_process(&self) -> bool {
        self.stream.process == process::id()
    }

    /// Events may come from now on.
    ///
    /// # Errors
    /// `Closed`: the engine is gone. `Timeout`: it does not read. `WrongProcess`. So for all that follow.
    pub fn ready(&mut self, mask: EventMask) -> Result<(), Error> {
        self.say(WorkerMessage::Ready { mask: mask.0 })
    }

    /// Other events than before. Holds for what happens from now on, more or less.
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    pub fn subscribe(&mut self, mask: EventMask) -> Result<(), Error> {
        self.say(WorkerMessage::Subscribe { mask: mask.0 })
    }

    /// No more batches. Those that are on their way still come; when they are acknowledged, [`AttachmentPhase::Finished`] follows.
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    pub fn leave(&mut self) -> Result<(), Error> {
        self.say(WorkerMessage::Leave)
    }

    /// Copies of the data that arrives on a channel, whichever worker gets the events of its node.
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    pub fn watch(&mut self, channel: u32) -> Result<(), Error> {
        self.say(WorkerMessage::Watch { channel })
    }

    /// # Errors
    /// As [`Attachment::ready`].
    pub fn unwatch(&mut self, channel: u32) -> Result<(), Error> {
        self.say(WorkerMessage::Unwatch { channel })
    }

    /// What is published to the topics that a filter matches, as [`Event::Message`], beside all other workers that ask for it. Where the
    /// queue of this worker is full a publication is lost to it alone, and what waits for a worker that is gone is lost. The engine says
    /// in its log what it refuses.
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    ///
    /// [`Event::Message`]: crate::event::Event::Message
    pub fn subscribe_topics(&mut self, filter: &str) -> Result<(), Error> {
        self.say(WorkerMessage::SubscribeTopics { filter: filter.into() })
    }

    /// # Errors
    /// As [`Attachment::ready`].
    pub fn unsubscribe_topics(&mut self, filter: &str) -> Result<(), Error> {
        self.say(WorkerMessage::UnsubscribeTopics { filter: filter.into() })
    }

    /// The engine's log messages, too: they come with the events, see [`Attachment::log_line`].
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    pub fn take_log(&mut self) -> Result<(), Error> {
        self.say(WorkerMessage::TakeLog)
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
        self.say(WorkerMessage::Acknowledge { batch })
    }

    /// This process ends in the middle of a batch: its first `done` events are done, the next `begun` may be, the others go to
    /// another worker as if this one had never had them.
    ///
    /// # Errors
    /// As [`Attachment::ready`].
    pub fn acknowledge_part(&mut self, batch: u64, done: u32, begun: u32) -> Result<(), Error> {
        self.say(WorkerMessage::AcknowledgePart { batch, done, begun })
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
        if drained.is_err() && self.phase != AttachmentPhase::Finished {
            self.phase = AttachmentPhase::Lost;
        }
        drained
    }

    pub fn phase(&self) -> AttachmentPhase {
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
            if let Some(body) = self.stream.frame()? {
                match body.first().and_then(|code| ServerMessage::from_code(*code)) {
                    Some(ServerMessage::Part | ServerMessage::Batch) => self.batch.open(body.freeze()).map_err(broken)?,
                    Some(ServerMessage::Stopping) => self.phase = AttachmentPhase::Stopping,
                    Some(ServerMessage::Finished) => self.phase = AttachmentPhase::Finished,
                    Some(ServerMessage::Log) => {
                        self.log.push_back(wire::decode(&body[1..]).map_err(broken)?);
                        // Whoever drains and never takes them is not to drown in them.
                        if self.log.len() > MAX_LOG_LINES {
                            self.log.pop_front();
                        }
                    }
                    // From an engine that is newer than we are.
                    None => {}
                }
                continue;
            }
            match end {
                // The events first, then the bad news: the next call has it again.
                Some(_) if count > 0 => return Ok(count),
                Some(error) => return Err(error),
                None => {}
            }
            match self.stream.fill_once() {
                Ok(true) => {}
                Ok(false) => return Ok(count),
                Err(error) => end = Some(error),
            }
        }
    }

    fn say(&mut self, word: WorkerMessage) -> Result<(), Error> {
        if !self.is_own_process() {
            return Err(Error::wrong_process());
        }
        let mut frame = Vec::with_capacity(16);
        wire::write_message(&mut frame, &word);
        let deadline = Instant::now() + self.timeout;
        self.stream.send(&frame, deadline).map_err(|failed| {
            // The connection is only lost when everything was read that came over it: `drain` says so.
            failed.error
        })
    }
}
