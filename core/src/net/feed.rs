//! Topics for a process that is no server and no client of one: it subscribes over the bus socket. A task on the thread of the engine's tasks.
//!
//! Owns the connection, and when it is made again. What waits for the host is bounded by its inbox: while that is full nothing is read, and
//! what the engine has no room for then is dropped there, counted, and told as a gap. What is asked of the engine, and what of its messages is
//! told, is decided in [`following`](crate::hub::following).

use super::bus::remote::{broken, closed, error_of};
use super::bus::socket;
use super::runtime::{Runtime, RuntimeTask};
use super::survive;
use crate::error::{Error, ErrorKind, reason};
use crate::event::Resume;
use crate::hub::client::backoff;
use crate::hub::coalesce::Queued;
use crate::hub::following::{FeedHeard, FollowRefusal, FollowStanding, Following, Said};
use crate::hub::topics::TopicRefusal;
use crate::inbox::Inbox;
use crate::model::{FeedEvent, Position};
use crate::process;
use crate::settings::InboxLimits;
use crate::wire::bus::{self as wire, FeedMessage, Role};
use crate::wire::topic::Filter;
use bytes::{Buf, BytesMut};
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How long an engine may take to let a process in.
const WELCOME_TIME: Duration = Duration::from_secs(5);

/// Base of the time before the connection is made again, in microseconds: an engine that was started anew is found soon.
const RECONNECT_TIME_US: u64 = 100_000;

/// After so many attempts that time grows no more: about three seconds.
const MOST_ATTEMPTS: u32 = 6;

/// How long a subscription rests that an engine has refused which was started anew.
const REFUSED_TIME: Duration = Duration::from_secs(1);

/// How long it is waited for an engine that takes nobody at this moment.
const STARTING_TIME: Duration = Duration::from_millis(5);

const READ_BYTES: usize = 64 << 10;

/// From which minor version of the bus on an engine gives what is kept of a topic.
const POSITIONS_MINOR: u8 = 3;

/// What a process has subscribed to. Its events are in the inbox; it ends when it is dropped.
pub struct Feed {
    shared: Arc<FeedShared>,
    runtime: Runtime,
    running: Mutex<Option<RuntimeTask>>,
    /// Threads that subscribe take turns.
    turns: Mutex<()>,
}

struct FeedShared {
    path: PathBuf,
    inbox: Arc<Inbox<FeedEvent>>,
    process: u32,
    state: Mutex<FeedState>,
    /// The host wants something, or has room again.
    woken: Notify,
}

#[derive(Default)]
struct FeedState {
    following: Following<Answer>,
    is_stopping: bool,
}

/// One who has given up waiting has taken the other end away.
type Answer = SyncSender<Result<(), Error>>;

impl Feed {
    /// What a process's inbox has room for. What is more waits in the socket, and then in the engine.
    pub const INBOX: InboxLimits = InboxLimits { events: 4096, bytes: 4 << 20 };

    /// Starts the task; it connects with the first subscription. Events arrive in `inbox`.
    ///
    /// # Errors
    /// `Io` when the system has no descriptor or thread left.
    pub fn start(path: &Path, inbox: Arc<Inbox<FeedEvent>>) -> Result<Self, Error> {
        let runtime = Runtime::share()?;
        let shared =
            Arc::new(FeedShared { path: path.to_owned(), inbox, process: process::id(), state: Mutex::default(), woken: Notify::new() });
        let served = shared.clone();
        let running = runtime.run("topics of another process", move || async move {
            while let Err(why) = survive(served.clone().run()).await {
                tracing::error!("The subscriptions of this process failed in something, and go on: {why}");
                sleep(REFUSED_TIME).await;
            }
        })?;
        Ok(Self { shared, runtime, running: Mutex::new(Some(running)), turns: Mutex::default() })
    }

    /// Lets this process have what is published from now on to the topics that a filter matches, over this connection and each that follows: a
    /// topic goes on behind its last message then, as far as it is kept. With `since` a topic begins behind that position, with offset and
    /// epoch 0 with all that is kept. What is missing is told in its place ([`FeedEvent::Missed`]). Returns when the engine has said that it
    /// does. One that is there already begins anew at `since`, and otherwise stays.
    ///
    /// # Errors
    /// `InvalidArgument`: it is no filter, or has wildcards and `since`. `Limit`: the engine has too many topics, or this process too many
    /// subscriptions. `Io`: no engine there, or no right to use it. `Protocol`: it is older, or speaks another version. `Timeout`, `Closed`,
    /// `WrongProcess`. Nothing has changed then, but that after a `Timeout` one that was there may still begin anew.
    pub fn subscribe(&self, filter: &str, since: Option<Position>, patience: Duration) -> Result<(), Error> {
        self.check_process()?;
        let filter = Filter::parse(filter).map_err(|bad| Error::new(ErrorKind::InvalidArgument, bad.to_string()))?;
        let _turn = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, answered) = sync_channel(1);
        let number = {
            let mut state = self.shared.state();
            if state.is_stopping {
                return Err(Error::new(ErrorKind::Closed, "The subscriptions are ended"));
            }
            if since.is_none() && state.following.contains(filter.text()) {
                return Ok(());
            }
            state.following.subscribe(filter, since, answer).map_err(refused)?
        };
        self.shared.woken.notify_one();
        let error = match answered.recv_timeout(patience) {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Disconnected) => Error::new(ErrorKind::Closed, "The subscriptions are ended"),
            Err(RecvTimeoutError::Timeout) => {
                let text = format!("The engine did not answer within {} ms", patience.as_millis());
                Error::new(ErrorKind::Timeout, text)
            }
        };
        self.shared.state().following.give_up(filter.text(), number);
        self.shared.woken.notify_one();
        Err(error)
    }

    /// Nothing more comes of it, but for what waits in the inbox or is on its way; false when there is no such subscription.
    ///
    /// # Errors
    /// `WrongProcess`.
    pub fn unsubscribe(&self, filter: &str) -> Result<bool, Error> {
        self.check_process()?;
        let was_there = self.shared.state().following.unsubscribe(filter);
        self.shared.woken.notify_one();
        Ok(was_there)
    }

    /// Ends all of it. Calling it again is harmless.
    pub fn stop(&self) {
        if !self.is_own_process() {
            return;
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = running.take() else { return };
        self.shared.state().is_stopping = true;
        self.shared.woken.notify_one();
        running.wait();
    }

    /// It belongs to this process, not to one that was forked off it.
    pub fn is_own_process(&self) -> bool {
        self.shared.process == process::id()
    }

    fn check_process(&self) -> Result<(), Error> {
        if self.is_own_process() { Ok(()) } else { Err(Error::wrong_process()) }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if self.is_own_process() {
            self.stop();
        } else {
            // The thread does not exist here, and there is nothing to release of it.
            std::mem::forget(self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take());
            std::mem::forget(self.runtime.clone());
            std::mem::forget(self.shared.clone());
        }
    }
}

impl Resume for FeedShared {
    fn resume(&self) {
        self.woken.notify_one();
    }
}

impl FeedShared {
    fn state(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until it is stopped.
    async fn run(self: Arc<Self>) {
        let mut random = fastrand::Rng::new();
        let mut attempt = 0;
        loop {
            // What the last connection brought.
            self.tell_all();
            let (is_stopping, is_idle) = {
                let state = self.state();
                (state.is_stopping, state.following.is_empty())
            };
            if is_stopping {
                return;
            }
            if is_idle {
                self.woken.notified().await;
                continue;
            }
            let connected = tokio::select! {
                connected = timeout(WELCOME_TIME, FeedConnection::open(&self.path)) => connected,
                () = self.stopped() => return,
            };
            let connected =
                connected.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "The engine did not answer the hello in time")));
            let was_connected = connected.is_ok();
            let error = match connected {
                Ok(connection) => match self.serve(connection, &mut attempt).await {
                    Ok(()) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            // Who waits is told when that is known: whether there is another engine.
            let was_lost = was_connected && error.kind == ErrorKind::Closed;
            self.is_over((!was_lost).then_some(&error));
            attempt = (attempt + 1).min(MOST_ATTEMPTS);
            tokio::select! {
                () = sleep(Duration::from_micros(backoff(RECONNECT_TIME_US, attempt, &mut random))) => {}
                // Somebody wants to subscribe now.
                () = self.woken.notified() => {}
            }
        }
    }

    async fn stopped(&self) {
        while !self.state().is_stopping {
            self.woken.notified().await;
        }
    }

    /// There is no connection. Whoever waits for an answer gets this one; where there is none, the next connection's.
    fn is_over(&self, error: Option<&Error>) {
        let waited = self.state().following.stop(error.is_some());
        for (waits, error) in waited.into_iter().zip(error.into_iter().cycle()) {
            let _ = waits.try_send(Err(error.clone()));
        }
    }

    /// Returns when it is stopped.
    ///
    /// # Errors
    /// Why the connection is over.
    async fn serve(self: &Arc<Self>, mut connection: FeedConnection, attempt: &mut u32) -> Result<(), Error> {
        self.state().following.start(connection.has_positions);
        loop {
            {
                let mut state = self.state();
                if state.is_stopping {
                    return Ok(());
                }
                // While an engine reads nothing it waits where it is bounded.
                if connection.output.is_empty() {
                    say_all(&mut state.following, &mut connection.output);
                }
            }
            let mut has_room = self.tell_all();
            while has_room && let Some(frame) = connection.frame()? {
                self.hear(&frame)?;
                has_room = self.tell_all();
                *attempt = 0;
            }
            let has_refused = self.state().following.stands(FollowStanding::Refused);
            tokio::select! {
                turned = connection.turn(has_room) => turned?,
                () = self.woken.notified() => {}
                () = sleep(REFUSED_TIME), if has_refused => self.state().following.ask_again(),
            }
        }
    }

    /// False while the inbox has no room; then it is woken later.
    fn tell_all(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        while let Some(event) = state.following.event() {
            let bytes = event.payload_len();
            if let Err(event) = self.inbox.push_data(event, bytes, self.clone()) {
                state.following.put_back(event);
                return false;
            }
        }
        true
    }

    fn hear(&self, frame: &[u8]) -> Result<(), Error> {
        let message = match wire::decode(frame) {
            Ok(message) => message,
            // From an engine that is newer than we are.
            Err(_) if wire::unknown_variant::<FeedMessage<'_>>(frame).is_some() => return Ok(()),
            Err(error) => return Err(broken(error)),
        };
        match self.state().following.hear(message) {
            FeedHeard::Nothing => {}
            FeedHeard::Answer(waits, answer) => drop(waits.try_send(answer.map_err(error_of))),
            FeedHeard::NotTakenBack(filter, error) => {
                let error = error_of(error);
                tracing::warn!(filter = &*filter, %error, "The engine does not take a subscription back: it is asked again");
            }
        }
        Ok(())
    }
}

fn say_all(following: &mut Following<Answer>, output: &mut Vec<u8>) {
    while let Some(said) = following.next_said() {
        match said {
            Said::Message(message) => wire::write_message(output, &message),
            Said::TooOld(waits) => {
                let text = "The engine is older than positions over the bus socket: it only tells what is published from now on";
                let _ = waits.try_send(Err(Error::new(ErrorKind::Protocol, text)));
            }
        }
    }
}

fn refused(refusal: FollowRefusal) -> Error {
    match refusal {
        FollowRefusal::FilterHasNoPosition => Error::new(ErrorKind::InvalidArgument, TopicRefusal::FilterHasNoPosition.to_string()),
        FollowRefusal::TooMuchSaid => Error::new(ErrorKind::Limit, "Too much waits to be said to the engine"),
    }
}

/// A connection that was welcomed.
struct FeedConnection {
    stream: UnixStream,
    input: BytesMut,
    output: Vec<u8>,
    /// Bytes of `output` that are written already.
    written: usize,
    frame_cap: u32,
    /// The engine knows them.
    has_positions: bool,
}

impl FeedConnection {
    async fn open(path: &Path) -> Result<Self, Error> {
        let no_server = |error: io::Error| {
            let text = format!("No Heartbus server at {}: {}", path.display(), reason(&error));
            Error::new(ErrorKind::Io, text)
        };
        let stream = loop {
            match socket::connect(path) {
                Ok(stream) => break UnixStream::from_std(stream).map_err(no_server)?,
                // An engine that is just starting, or to which many come at once.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || socket::is_being_made(path) => sleep(STARTING_TIME).await,
                Err(error) => return Err(no_server(error)),
            }
        };
        let mut connection =
            Self { stream, input: BytesMut::new(), output: Vec::new(), written: 0, frame_cap: wire::FRAME_CAP, has_positions: false };
        wire::write_hello(&mut connection.output, wire::VERSION, Role::Subscriber, std::process::id(), env!("CARGO_PKG_VERSION"));
        loop {
            if let Some((greeting, len)) = wire::parse_greeting(&connection.input).map_err(broken)? {
                connection.has_positions =
                    wire::greeting_version(&connection.input).is_some_and(|version| version.minor >= POSITIONS_MINOR);
                connection.input.advance(len);
                connection.frame_cap = greeting.map_err(error_of)?.frame_cap;
                return Ok(connection);
            }
            connection.turn(true).await?;
        }
    }

    /// The next whole frame, without its length.
    fn frame(&mut self) -> Result<Option<BytesMut>, Error> {
        let Some(len) = wire::frame_len(&self.input, self.frame_cap).map_err(broken)? else { return Ok(None) };
        if self.input.len() < len {
            return Ok(None);
        }
        let mut frame = self.input.split_to(len);
        frame.advance(wire::LENGTH_LEN);
        Ok(Some(frame))
    }

    /// Waits until the socket takes something of what waits, or has something to read where that is wanted; does either.
    async fn turn(&mut self, reads: bool) -> Result<(), Error> {
        let interest = match (reads, self.written < self.output.len()) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return pending().await,
        };
        let ready = self.stream.ready(interest).await.map_err(lost)?;
        if ready.is_writable() && self.written < self.output.len() {
            self.written += self.stream.try_write(&self.output[self.written..]).map(Some).or_else(none_yet)?.unwrap_or(0);
            if self.written == self.output.len() {
                (self.output, self.written) = (Vec::new(), 0);
            }
        }
        if ready.is_readable() && reads {
            self.input.reserve(READ_BYTES);
            if self.stream.try_read_buf(&mut self.input).map(Some).or_else(none_yet)? == Some(0) {
                return Err(closed());
            }
        }
        Ok(())
    }
}

/// That there is nothing yet is no fault.
fn none_yet(error: io::Error) -> Result<Option<usize>, Error> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
        _ => Err(lost(error)),
    }
}

fn lost(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => closed(),
        _ => Error::new(ErrorKind::Io, format!("The bus socket failed: {}", reason(&error))),
    }
}
