//! Topics for a process that is no server and no client of one: it subscribes over the bus socket. A task on the thread of the engine's tasks.
//!
//! Owns the connection, what was subscribed to over it, and when it is made again. What waits for the host is bounded by its inbox: while
//! that is full nothing is read, and what the engine has no room for then is dropped there, counted, and told as a gap. Who gets what is the
//! engine's business.

use super::bus::remote::{broken, closed, error_of};
use super::bus::socket;
use super::runtime::{Runtime, RuntimeTask};
use super::survive;
use crate::error::{Error, ErrorKind, reason};
use crate::event::Resume;
use crate::hub::client::backoff;
use crate::hub::coalesce::Queued;
use crate::inbox::Inbox;
use crate::model::{FeedEvent, HostMessage, Position};
use crate::process;
use crate::settings::InboxLimits;
use crate::wire::bus::{self as wire, FeedMessage, Role, SubscriberMessage};
use crate::wire::topic::Filter;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
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
const RECONNECT_TIME: u64 = 100_000;

/// After so many attempts that time grows no more: about three seconds.
const MOST_ATTEMPTS: u32 = 6;

/// How long a subscription rests that an engine has refused which was started anew.
const REFUSED_TIME: Duration = Duration::from_secs(1);

/// How long it is waited for an engine that takes nobody at this moment.
const STARTING_TIME: Duration = Duration::from_millis(5);

const READ_BYTES: usize = 64 << 10;

/// What waits to be said to the engine. More than anybody can subscribe to.
const MAX_SAID: usize = 65_536;

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
    filters: BTreeMap<String, FeedSubscription>,
    /// To be said over this connection.
    said: VecDeque<SubscriberMessage>,
    is_stopping: bool,
}

struct FeedSubscription {
    stands: FeedStanding,
    /// It comes back with each connection.
    was_live: bool,
    /// Who waits for the first answer.
    waits: Option<SyncSender<Result<(), Error>>>,
}

/// Where a subscription stands with the engine, on this connection.
#[derive(Copy, Clone, PartialEq, Eq)]
enum FeedStanding {
    Asked,
    Live,
    /// By an engine that was started anew: it is asked again.
    Refused,
}

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

    /// Lets this process have what is published from now on to the topics that a filter matches, over this connection and each that follows.
    /// Returns when the engine has said that it does. One that is there already stays.
    ///
    /// # Errors
    /// `InvalidArgument`: it is no filter. `Limit`: the engine has too many topics, or this process too many subscriptions. `Io`: no engine
    /// there, or no right to use it. `Protocol`: it is older, or speaks another version. `Timeout`, `Closed`, `WrongProcess`. Nothing has
    /// changed then.
    pub fn subscribe(&self, filter: &str, patience: Duration) -> Result<(), Error> {
        self.check_process()?;
        Filter::parse(filter).map_err(|bad| Error::new(ErrorKind::InvalidArgument, bad.to_string()))?;
        let _turn = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, answered) = sync_channel(1);
        {
            let mut state = self.shared.state();
            if state.is_stopping {
                return Err(Error::new(ErrorKind::Closed, "The subscriptions are ended"));
            }
            if state.filters.contains_key(filter) {
                return Ok(());
            }
            if state.said.len() >= MAX_SAID {
                return Err(Error::new(ErrorKind::Limit, "Too much waits to be said to the engine"));
            }
            let subscription = FeedSubscription { stands: FeedStanding::Asked, was_live: false, waits: Some(answer) };
            state.filters.insert(filter.into(), subscription);
            state.said.push_back(SubscriberMessage::Subscribe { filter: filter.into() });
        }
        self.shared.woken.notify_one();
        let error = match answered.recv_timeout(patience) {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Disconnected) => Error::new(ErrorKind::Closed, "The subscriptions are ended"),
            Err(RecvTimeoutError::Timeout) => {
                let text = format!("The engine did not answer within {} ms", patience.as_millis());
                Error::new(ErrorKind::Timeout, text)
            }
        };
        self.unsubscribe(filter)?;
        Err(error)
    }

    /// Nothing more comes of it, but for what waits in the inbox or is on its way; false when there is no such subscription.
    ///
    /// # Errors
    /// `WrongProcess`.
    pub fn unsubscribe(&self, filter: &str) -> Result<bool, Error> {
        self.check_process()?;
        let mut state = self.shared.state();
        let was_there = state.filters.remove(filter).is_some();
        if was_there {
            state.said.push_back(SubscriberMessage::Unsubscribe { filter: filter.into() });
        }
        drop(state);
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
            let (is_stopping, is_idle) = {
                let state = self.state();
                (state.is_stopping, state.filters.is_empty())
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
                () = sleep(Duration::from_micros(backoff(RECONNECT_TIME, attempt, &mut random))) => {}
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
        let mut state = self.state();
        state.said.clear();
        state.filters.retain(|_, subscription| {
            subscription.stands = FeedStanding::Asked;
            let Some(error) = error else { return true };
            let Some(waits) = subscription.waits.take() else { return true };
            // One who has given up waiting has taken it back.
            let _ = waits.try_send(Err(error.clone()));
            false
        });
    }

    /// All that was subscribed to is said anew.
    fn begin(&self) {
        let mut state = self.state();
        state.said = state.filters.keys().map(|filter| SubscriberMessage::Subscribe { filter: filter.clone() }).collect();
    }

    /// Returns when it is stopped.
    ///
    /// # Errors
    /// Why the connection is over.
    async fn serve(self: &Arc<Self>, mut connection: FeedConnection, attempt: &mut u32) -> Result<(), Error> {
        self.begin();
        let (mut has_gap, mut untold) = (false, None);
        loop {
            {
                let mut state = self.state();
                if state.is_stopping {
                    return Ok(());
                }
                // While an engine reads nothing it waits where it is bounded.
                if connection.output.is_empty() {
                    state.said.drain(..).for_each(|said| wire::write_message(&mut connection.output, &said));
                }
            }
            if let Some(event) = untold.take() {
                untold = self.tell(event);
            }
            while untold.is_none()
                && let Some(frame) = connection.frame()?
            {
                untold = self.hear(&frame, &mut has_gap)?.and_then(|event| self.tell(event));
                *attempt = 0;
            }
            if has_gap && untold.is_none() && !self.stands(FeedStanding::Asked) {
                has_gap = false;
                untold = self.tell(FeedEvent::Missed { count: None });
            }
            tokio::select! {
                turned = connection.turn(untold.is_none()) => turned?,
                () = self.woken.notified() => {}
                () = sleep(REFUSED_TIME), if self.stands(FeedStanding::Refused) => self.ask_again(),
            }
        }
    }

    /// Gives an event back that the inbox has no room for; then it is woken later.
    fn tell(self: &Arc<Self>, event: FeedEvent) -> Option<FeedEvent> {
        let bytes = event.payload_len();
        self.inbox.push_data(event, bytes, self.clone()).err()
    }

    /// What is to be told of a frame. `has_gap`: nobody knows what was published until now.
    fn hear(&self, frame: &[u8], has_gap: &mut bool) -> Result<Option<FeedEvent>, Error> {
        let message = match wire::decode(frame) {
            Ok(message) => message,
            // From an engine that is newer than we are.
            Err(_) if wire::unknown_variant::<FeedMessage<'_>>(frame).is_some() => return Ok(None),
            Err(error) => return Err(broken(error)),
        };
        Ok(match message {
            FeedMessage::Message { topic, payload, position, from } => Some(FeedEvent::Message(Arc::new(HostMessage {
                topic: topic.into(),
                payload: Bytes::copy_from_slice(payload),
                position: position.map(|(offset, epoch)| Position { offset, epoch }),
                from: from.map(Arc::from),
            }))),
            FeedMessage::Gap { dropped } => Some(FeedEvent::Missed { count: Some(dropped) }),
            FeedMessage::Subscribed { filter } => {
                if let Some(subscription) = self.state().filters.get_mut(filter) {
                    *has_gap |= subscription.was_live;
                    (subscription.stands, subscription.was_live) = (FeedStanding::Live, true);
                    if let Some(waits) = subscription.waits.take() {
                        let _ = waits.try_send(Ok(()));
                    }
                }
                None
            }
            FeedMessage::Refused { filter, error } => {
                self.is_refused(filter, error_of(error));
                None
            }
        })
    }

    fn is_refused(&self, filter: &str, error: Error) {
        let mut state = self.state();
        let Some(subscription) = state.filters.get_mut(filter) else { return };
        match subscription.waits.take() {
            Some(waits) => {
                let _ = waits.try_send(Err(error));
                state.filters.remove(filter);
                // It may be the answer to one who has given up waiting, and the engine may take this one.
                state.said.push_back(SubscriberMessage::Unsubscribe { filter: filter.into() });
            }
            None => {
                subscription.stands = FeedStanding::Refused;
                tracing::warn!(filter, %error, "The engine does not take a subscription back: it is asked again");
            }
        }
    }

    /// Whether any subscription stands there.
    fn stands(&self, there: FeedStanding) -> bool {
        self.state().filters.values().any(|subscription| subscription.stands == there)
    }

    fn ask_again(&self) {
        let mut state = self.state();
        let FeedState { filters, said, .. } = &mut *state;
        for (filter, subscription) in filters.iter_mut().filter(|(_, subscription)| subscription.stands == FeedStanding::Refused) {
            subscription.stands = FeedStanding::Asked;
            said.push_back(SubscriberMessage::Subscribe { filter: filter.clone() });
        }
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
        let mut connection = Self { stream, input: BytesMut::new(), output: Vec::new(), written: 0, frame_cap: wire::FRAME_CAP };
        wire::write_hello(&mut connection.output, wire::VERSION, Role::Subscriber, std::process::id(), env!("CARGO_PKG_VERSION"));
        loop {
            if let Some((greeting, len)) = wire::parse_greeting(&connection.input).map_err(broken)? {
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
