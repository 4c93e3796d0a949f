//! One connection to the bus socket: who it is, its frames, and the answers to a client.
//!
//! Owns the bytes that wait, both ways, and their bounds: a frame is whole within ten seconds, an answer is taken within
//! thirty, and while one is being written nothing more is read. They are counted as long as the memory that they take; a
//! caller that idles has none. Does not know what a request does.

use super::remote::remote_error;
use super::shared::{BusShared, GOODBYE_TIME, HELLO_TIME, Stage};
use crate::descriptor::lift;
use crate::error::{Error, ErrorKind};
use crate::hub::memory::Part;
use crate::log;
use crate::service::Service;
use crate::wire::bus::{self as wire, DecodeError, Hello, LENGTH_LEN, Request, RequestFrame, Response, Role, VERSION, Version};
use bytes::{Buf, BytesMut};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use socket2::SockRef;
use std::fmt;
use std::future::pending;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{Instant, timeout, timeout_at};

/// How long a frame may take from its first byte to its last.
const FRAME_TIME: Duration = Duration::from_secs(10);

/// How long a caller may take to read an answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Answers are written when so much has come together, or when no request is left.
const ANSWER_BYTES: usize = 64 << 10;

/// Room that is made for a read, at least.
const READ_BYTES: usize = 4 << 10;

/// A longer request is carried out on a thread of its own.
const SHORT_REQUEST: usize = 64 << 10;

/// More nodes than these at once, likewise.
const FEW_NODES: usize = 64;
/// Nodes on a page that is answered at once: it takes a quarter of a millisecond at most, and another thread would first have to get a
/// core.
const SHORT_PAGE: usize = 100;

/// What all incomplete frames, long requests and answers that are not read may hold together, or less where the server may hold
/// less for this. A caller that does not fit in any more has to come back.
const BUFFER_BYTES: usize = 256 << 20;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The caller hung up.
    Gone,
    Invalid(DecodeError),
    Late(&'static str),
    Lost(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it hung up"),
            Self::Invalid(error) => write!(f, "{error}"),
            Self::Late(what) => f.write_str(what),
            Self::Lost(error) => write!(f, "{error}"),
        }
    }
}

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        Self::Invalid(error)
    }
}

/// Readable when it has ended.
pub(super) type Process = AsyncFd<OwnedFd>;

pub(super) struct BusConnection {
    pub(super) shared: Rc<BusShared>,
    stream: UnixStream,
    uid: Option<u32>,
    pid: Option<i32>,
    input: BytesMut,
    /// Of `input`, frames were taken: what is left shares their memory.
    is_split: bool,
    /// What waits for it is bounded elsewhere.
    pub(super) has_own_bounds: bool,
    /// What both sides speak, as far as they have said it.
    pub(super) version: Version,
    /// What this caller holds, as it is counted.
    counted: usize,
    /// When the frame that `input` begins with began.
    begun: Option<Instant>,
    pub(super) output: Vec<u8>,
    /// Bytes of `output` that are written already.
    written: usize,
}

impl BusConnection {
    pub(super) fn new(stream: UnixStream, shared: Rc<BusShared>) -> Self {
        let credentials = stream.peer_cred().ok();
        Self {
            shared,
            stream,
            uid: credentials.map(|credentials| credentials.uid()),
            pid: credentials.and_then(|credentials| credentials.pid()),
            input: BytesMut::new(),
            is_split: false,
            has_own_bounds: false,
            version: VERSION,
            counted: 0,
            begun: None,
            output: Vec::new(),
            written: 0,
        }
    }

    /// Comes when the process that connected is gone, where the system can tell: the connection lives on in processes that it forked.
    pub(super) fn death(&self) -> impl Future<Output = ()> + use<> {
        let process = self.process();
        async move {
            match process {
                Some(process) => drop(process.readable().await),
                None => pending().await,
            }
        }
    }

    fn process(&self) -> Option<Process> {
        let pid = Pid::from_raw(self.pid?)?;
        let process = lift(pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?).ok()?;
        // The replacement has the caller promise, outside what the compiler checks, that the descriptor stays open. It is
        // owned by what is made here.
        #[allow(deprecated)]
        AsyncFd::with_interest(process, Interest::READABLE).ok()
    }

    /// Of the server's own user, or root.
    pub(super) fn is_owner(&self) -> bool {
        self.uid.is_some_and(|uid| uid == self.shared.owner || uid == 0)
    }

    /// Hears who it is, and lets it in or refuses it.
    pub(super) async fn greet(&mut self, is_full: bool) -> Result<Option<Role>, End> {
        let refusal = if is_full {
            Some(Error::new(ErrorKind::Limit, "The bus has all the callers it may have"))
        } else if !self.is_owner() && !self.shared.allows_group {
            Some(Error::new(ErrorKind::Io, "The bus socket is open to the server's own user only (see bus_group)"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return self.refuse(refusal).await;
        }
        let Ok(hello) = timeout(HELLO_TIME, self.hello()).await else { return Err(End::Late("it did not say who it is")) };
        let hello = hello?;
        match self.check(&hello) {
            Err(refusal) => self.refuse(refusal).await,
            Ok(role) => {
                if role != Role::Worker {
                    wire::write_welcome(&mut self.output, self.version, &(self.shared.introduce)(0));
                }
                Ok(Some(role))
            }
        }
    }

    async fn hello(&mut self) -> Result<Hello, End> {
        loop {
            if let Some((hello, len)) = wire::parse_hello(&self.input)? {
                self.input.advance(len);
                return Ok(hello);
            }
            self.fill().await?;
        }
    }

    fn check(&mut self, hello: &Hello) -> Result<Role, Error> {
        let Some(version) = VERSION.common(hello.version) else {
            let text = format!(
                "The engine (Heartbus {}) speaks version {VERSION} of the bus protocol, this process (Heartbus {}) version {}: \
                 the first numbers must be the same",
                env!("CARGO_PKG_VERSION"),
                hello.package,
                hello.version
            );
            return Err(Error::new(ErrorKind::Protocol, text));
        };
        self.version = version;
        match hello.role {
            None => Err(Error::new(ErrorKind::Protocol, "The engine does not know this role")),
            Some(role @ (Role::Client | Role::Subscriber)) => Ok(role),
            Some(Role::Worker) if !self.is_owner() => Err(Error::new(ErrorKind::Io, "Workers must be of the same user as the server")),
            Some(Role::Worker) if self.shared.dispatcher.is_none() => {
                Err(Error::new(ErrorKind::Closed, "This server runs its callbacks itself"))
            }
            Some(Role::Worker) if *self.shared.stage.borrow() != Stage::Open => {
                Err(Error::new(ErrorKind::Closed, "The server is shutting down"))
            }
            Some(Role::Worker) => Ok(Role::Worker),
        }
    }

    async fn refuse(&mut self, refusal: Error) -> Result<Option<Role>, End> {
        self.shared.connection_log.borrow_mut().caller_refused(self, &refusal, self.shared.clock.now());
        wire::write_refusal(&mut self.output, &remote_error(refusal));
        self.say_goodbye().await;
        Ok(None)
    }

    /// Answers a client until it hangs up, or the server is gone.
    pub(super) async fn serve(&mut self) -> Result<(), End> {
        let mut stage = self.shared.stage.subscribe();
        loop {
            while let Some(frame) = self.frame()? {
                self.answer(frame).await?;
                if self.output.len() >= ANSWER_BYTES {
                    self.flush().await?;
                    yield_now().await;
                }
            }
            self.flush().await?;
            self.output = Vec::new();
            self.count(0)?;
            tokio::select! {
                biased;
                _ = stage.wait_for(|stage| *stage == Stage::Finished) => return Ok(()),
                filled = self.fill() => filled?,
            }
        }
    }

    async fn answer(&mut self, frame: BytesMut) -> Result<(), End> {
        // What was decoded is not kept while somebody waits for a thread.
        let (id, answered) = match wire::decode(&frame) {
            Ok(RequestFrame { id, request }) => (id, self.answer_at_once(&request, frame.len())),
            // From a caller that is newer than we are: he can do without.
            Err(error) => {
                let (id, number) = wire::unknown_request(&frame).ok_or(error)?;
                (id, Some(Err(unknown_request(number))))
            }
        };
        let result = match answered {
            Some(result) => result,
            None => {
                // Those before it need not wait for it.
                self.flush().await?;
                self.count(frame.len())?;
                let (service, origin) = (self.shared.service.clone(), log::origin());
                let answer = move || {
                    let _within = log::within(origin);
                    answer_frame(&*service, &frame)
                };
                spawn_blocking(answer)
                    .await
                    .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "The engine could not finish the request")))
            }
        };
        wire::write_message(&mut self.output, &Response { id, result: result.map_err(remote_error) });
        Ok(())
    }

    /// `None`: it takes long.
    fn answer_at_once(&self, request: &Request<'_>, bytes: usize) -> Option<Result<wire::Reply, Error>> {
        if request.is_for_owner() && !self.is_owner() {
            return Some(Err(Error::new(ErrorKind::Io, "Only the server's own user may change how it runs")));
        }
        (!takes_long(request, bytes)).then(|| self.shared.service.ask(request))
    }

    /// The next whole frame, without its length.
    pub(super) fn frame(&mut self) -> Result<Option<BytesMut>, End> {
        let len = wire::frame_len(&self.input, self.shared.frame_cap)?;
        let Some(len) = len.filter(|len| self.input.len() >= *len) else {
            if std::mem::take(&mut self.is_split) {
                // The memory of the frames goes with them.
                self.input = BytesMut::from(&self.input[..]);
            }
            if self.input.is_empty() {
                // An idle connection owns no memory.
                self.input = BytesMut::new();
                self.begun = None;
            } else {
                self.begun.get_or_insert_with(Instant::now);
            }
            self.count(0)?;
            return Ok(None);
        };
        self.begun = None;
        self.is_split = true;
        let mut frame = self.input.split_to(len);
        frame.advance(LENGTH_LEN);
        Ok(Some(frame))
    }

    /// Waits for bytes and takes them in.
    pub(super) async fn fill(&mut self) -> Result<(), End> {
        loop {
            let readable = self.stream.readable();
            match self.begun {
                None => readable.await,
                Some(begun) => timeout_at(begun + FRAME_TIME, readable).await.map_err(|_| End::Late("it sent half of a frame"))?,
            }
            .map_err(End::Lost)?;
            if self.try_fill()? {
                return Ok(());
            }
        }
    }

    /// Takes in what is there; false when nothing was.
    pub(super) fn try_fill(&mut self) -> Result<bool, End> {
        self.make_room();
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(End::Gone),
            Ok(_) => Ok(true),
            Err(error) => if_blocked(error),
        }
    }

    /// Makes room for a usual request, in one read. Of a frame that has begun no more than it is long, and no more at a time than
    /// came before.
    fn make_room(&mut self) {
        let len = self.input.len();
        // What is no frame is found out by whoever takes it.
        let whole = wire::frame_len(&self.input, self.shared.frame_cap).ok().flatten();
        let missing = whole.map_or(READ_BYTES, |whole| whole.saturating_sub(len).max(1));
        if self.input.capacity() - len < missing.min(READ_BYTES) {
            let mut input = BytesMut::with_capacity(len + missing.min(len.max(READ_BYTES)));
            input.extend_from_slice(&self.input);
            self.input = input;
            self.is_split = false;
        }
    }

    /// Writes what waits. Nothing is read meanwhile.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        let deadline = Instant::now() + ANSWER_TIME;
        while !self.try_flush()? {
            self.count(0)?;
            timeout_at(deadline, self.stream.writable()).await.map_err(|_| End::Late("it does not read"))?.map_err(End::Lost)?;
        }
        Ok(())
    }

    /// Writes what the socket takes; true when nothing is left.
    pub(super) fn try_flush(&mut self) -> Result<bool, End> {
        while self.written < self.output.len() {
            match self.stream.try_write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) => return if_blocked(error),
            }
        }
        self.written = 0;
        self.output.clear();
        // Room for a usual answer stays; what one long answer took is given back.
        self.output.shrink_to(ANSWER_BYTES);
        Ok(true)
    }

    /// Bytes that wait to be written.
    pub(super) fn backlog(&self) -> usize {
        self.output.len() - self.written
    }

    /// Writes what the socket takes, then waits until there is something to read, or more can be written. Takes in what is
    /// there to read.
    pub(super) async fn turn(&mut self) -> Result<(), End> {
        let interest = if self.try_flush()? { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = self.stream.ready(interest);
        let ready = match self.begun {
            None => ready.await,
            Some(begun) => timeout_at(begun + FRAME_TIME, ready).await.map_err(|_| End::Late("it sent half of a frame"))?,
        };
        if ready.map_err(End::Lost)?.is_readable() {
            self.try_fill()?;
        }
        Ok(())
    }

    /// Waits until the socket takes more of what waits. Nothing is read meanwhile.
    pub(super) async fn wait_to_write(&self) -> Result<(), End> {
        self.stream.writable().await.map_err(End::Lost)
    }

    /// Writes what waits, for a moment.
    pub(super) async fn say_goodbye(&mut self) {
        // Whoever does not read it has missed it.
        let _ = timeout(GOODBYE_TIME, self.flush()).await;
    }

    /// Counts what the caller holds, and `more`. What waits for a worker or a subscriber is not held against it: that has bounds of its own.
    fn count(&mut self, more: usize) -> Result<(), End> {
        let asked = self.input.capacity() + more;
        let held = asked + self.output.capacity();
        let memory = &self.shared.memory;
        memory.change(Part::Bus, std::mem::replace(&mut self.counted, held), held);
        let against = if self.has_own_bounds { asked } else { held };
        if against > SHORT_REQUEST && memory.of(Part::Bus) > BUFFER_BYTES.min(memory.share(Part::Bus)) {
            return Err(End::Late("what waits for all callers together is too much"));
        }
        Ok(())
    }
}

impl Drop for BusConnection {
    fn drop(&mut self) {
        // A process that was forked off this one may hold a copy of the descriptor.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Both);
        self.shared.memory.remove(Part::Bus, self.counted);
    }
}

impl fmt::Display for BusConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}, uid {}", self.pid.unwrap_or_default(), self.uid.map_or(-1, i64::from))
    }
}

fn if_blocked(error: io::Error) -> Result<bool, End> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(false),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Err(End::Gone),
        _ => Err(End::Lost(error)),
    }
}

/// Whether the events of workers would have to wait for it.
fn takes_long(request: &Request<'_>, bytes: usize) -> bool {
    match request {
        Request::SendMany { nodes, .. } if nodes.len() > FEW_NODES => true,
        Request::Page { limit, id_pattern: None, ip: None, .. } if *limit as usize <= SHORT_PAGE => bytes > SHORT_REQUEST,
        Request::Broadcast { .. }
        | Request::Page { .. }
        | Request::Find { .. }
        | Request::NodeOfConnection { .. }
        | Request::BroadcastExcept { .. }
        | Request::Topics { .. }
        | Request::Members { .. }
        | Request::TopicsOf { .. }
        | Request::Connections { .. } => true,
        Request::Publish { except, .. } if except.len() > FEW_NODES => true,
        _ => bytes > SHORT_REQUEST,
    }
}

fn answer_frame(service: &dyn Service, frame: &[u8]) -> Result<wire::Reply, Error> {
    match wire::decode::<RequestFrame<'_>>(frame) {
        Ok(RequestFrame { request, .. }) => service.ask(&request),
        Err(error) => Err(Error::new(ErrorKind::Protocol, error.to_string())),
    }
}

fn unknown_request(number: u32) -> Error {
    let package = env!("CARGO_PKG_VERSION");
    let text = format!("The engine (Heartbus {package}) does not know this request (number {number}): it is older than who asks");
    Error::new(ErrorKind::Protocol, text)
}
