//! Engines, callers and workers to test with.

use crate::support::{Peer, deadline};
use heartbus_core::bus::{Attachment, AttachmentPhase, Bus, Delivered, NodeInfo};
use heartbus_core::engine::Engine;
use heartbus_core::error::{Error, ErrorKind};
use heartbus_core::event::{Event, EventMask, FeedEvent, HostMessage, Position};
use heartbus_core::hub::dispatch::DispatchLimits;
use heartbus_core::inbox::Inbox;
use heartbus_core::net::feed::Feed;
use heartbus_core::settings::{BusConfig, InboxLimits, ServerConfig};
use heartbus_core::wire::bus::{self as wire, RemoteError, RequestFrame, Response, Role, Version, WorkerMessage};
use socket2::SockRef;
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Long enough that only what is broken takes it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of the test, gone at its end.
pub(crate) struct Folder(pub PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("heartbus-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("server.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn config(path: &Path) -> ServerConfig {
    let bus = BusConfig { path: path.to_owned(), group: None, name: "test".into() };
    ServerConfig { host: "127.0.0.1".into(), port: 0, bus: Some(bus), ..ServerConfig::default() }
}

pub(crate) struct House {
    pub engine: Engine,
    pub path: PathBuf,
    pub _folder: Folder,
}

impl House {
    /// An engine whose callbacks run in its own process.
    pub(crate) fn in_process() -> Self {
        Self::start(|config| Engine::start(config, Inbox::new(InboxLimits::default()).unwrap()))
    }

    pub(crate) fn for_workers() -> Self {
        Self::with_limits(DispatchLimits::default(), EventMask::ALL)
    }

    pub(crate) fn with_limits(limits: DispatchLimits, until_first_join: EventMask) -> Self {
        Self::start(|config| Engine::start_for_workers(config, limits, until_first_join))
    }

    pub(crate) fn start(start: impl FnOnce(&ServerConfig) -> Result<Engine, Error>) -> Self {
        let folder = Folder::new();
        let path = folder.socket();
        Self { engine: start(&config(&path)).unwrap(), path, _folder: folder }
    }

    /// As [`House::in_process`], with other settings.
    pub(crate) fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::start(|config| {
            let mut config = config.clone();
            change(&mut config);
            Engine::start(&config, Inbox::new(InboxLimits::default()).unwrap())
        })
    }

    pub(crate) fn subscriber(&self) -> Subscriber {
        Subscriber::of(&self.path)
    }

    pub(crate) fn bus(&self) -> Bus {
        Bus::connect(&self.path, PATIENCE).unwrap()
    }

    pub(crate) fn attach(&self) -> Worker {
        Worker { attachment: Attachment::attach(&self.path, PATIENCE).unwrap(), queue: VecDeque::new(), heard_of_the_stop: false }
    }

    pub(crate) fn worker(&self) -> Worker {
        let before = self.engine.stats().dispatch.workers;
        let mut worker = self.attach();
        worker.attachment.ready(EventMask::ALL).unwrap();
        self.until("the worker to join", |stats| stats.dispatch.workers == before + 1);
        worker
    }

    pub(crate) fn connect(&self) -> Peer {
        Peer::over(TcpStream::connect(self.engine.local_addr()).unwrap())
    }

    pub(crate) fn register(&self, id: &str) -> Peer {
        let mut peer = self.connect();
        peer.send(6, 0, &format!(r#"{{"node_id":"{id}"}}"#));
        assert_eq!(peer.frame().frame_type, 6);
        peer
    }

    pub(crate) fn until(&self, what: &str, condition: impl Fn(&heartbus_core::engine::Stats) -> bool) {
        let deadline = deadline();
        loop {
            let stats = self.engine.stats();
            if condition(&stats) {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}: {stats:#?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A caller that writes its own bytes.
    pub(crate) fn raw(&self) -> Raw {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Raw { stream }
    }

    /// Nothing that others did has done any harm.
    pub(crate) fn assert_well(&self) {
        let mut bus = self.bus();
        assert_eq!(bus.node("nobody").unwrap(), None);
    }
}

pub(crate) struct Worker {
    pub attachment: Attachment,
    pub queue: VecDeque<Delivered>,
    pub heard_of_the_stop: bool,
}

impl Worker {
    /// The next event; acknowledges nothing.
    pub(crate) fn event(&mut self) -> Delivered {
        let deadline = deadline();
        while self.queue.is_empty() {
            self.attachment.drain(&mut self.queue, 64).unwrap();
            assert!(Instant::now() < deadline, "waited in vain for an event");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.queue.pop_front().unwrap()
    }

    /// The next event; acknowledges its batch if it is the last one.
    pub(crate) fn tell(&mut self) -> Delivered {
        let delivered = self.event();
        if delivered.is_last {
            self.attachment.acknowledge(delivered.batch).unwrap();
        }
        delivered
    }

    pub(crate) fn tell_until(&mut self, wanted: impl Fn(&Event<Arc<NodeInfo>>) -> bool) -> Delivered {
        loop {
            let delivered = self.tell();
            if wanted(&delivered.told.event) {
                return delivered;
            }
        }
    }

    /// Tells what comes until the connection stands there.
    pub(crate) fn tell_until_phase(&mut self, phase: AttachmentPhase) -> Vec<Delivered> {
        let deadline = deadline();
        let mut told = Vec::new();
        loop {
            if let Some(delivered) = self.queue.pop_front() {
                if delivered.is_last {
                    self.attachment.acknowledge(delivered.batch).unwrap();
                }
                told.push(delivered);
                continue;
            }
            let drained = self.attachment.drain(&mut self.queue, 64);
            self.heard_of_the_stop |= self.attachment.phase() == AttachmentPhase::Stopping;
            if self.queue.is_empty() && self.attachment.phase() == phase {
                return told;
            }
            drained.unwrap();
            assert!(Instant::now() < deadline, "waited in vain for {phase:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A process that subscribes to topics, played by this one.
pub(crate) struct Subscriber {
    pub feed: Feed,
    inbox: Arc<Inbox<FeedEvent>>,
    events: VecDeque<FeedEvent>,
}

impl Subscriber {
    pub(crate) fn of(path: &Path) -> Self {
        let inbox = Inbox::new(Feed::INBOX).unwrap();
        Self { feed: Feed::start(path, inbox.clone()).unwrap(), inbox, events: VecDeque::new() }
    }

    pub(crate) fn to(self, filter: &str) -> Self {
        self.feed.subscribe(filter, None, PATIENCE).unwrap();
        self
    }

    pub(crate) fn behind(self, topic: &str, since: Option<Position>) -> Self {
        self.feed.subscribe(topic, since, PATIENCE).unwrap();
        self
    }

    pub(crate) fn event(&mut self) -> FeedEvent {
        let deadline = deadline();
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.inbox.drain(&mut self.events, 64);
            assert!(Instant::now() < deadline, "waited in vain for an event");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn message(&mut self) -> Arc<HostMessage> {
        match self.event() {
            FeedEvent::Message(message) => message,
            missed => panic!("{missed:?}"),
        }
    }

    /// The next message: its topic and what was published.
    pub(crate) fn text(&mut self) -> (String, String) {
        let message = self.message();
        (message.topic.to_string(), String::from_utf8_lossy(&message.payload).into_owned())
    }
}

pub(crate) struct Raw {
    pub stream: UnixStream,
}

impl Raw {
    pub(crate) fn hello(&mut self, version: Version, role: Role) {
        let mut hello = Vec::new();
        wire::write_hello(&mut hello, version, role, 1, "0.0.0");
        self.write(&hello);
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn say(&mut self, word: WorkerMessage) {
        let mut frame = Vec::new();
        wire::write_message(&mut frame, &word);
        self.write(&frame);
    }

    pub(crate) fn greeting(&mut self) -> Result<wire::Welcome, RemoteError> {
        let mut received = Vec::new();
        loop {
            if let Some((greeting, _)) = wire::parse_greeting(&received).unwrap() {
                return greeting;
            }
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a greeting in time");
            received.push(byte[0]);
        }
    }

    pub(crate) fn answer(&mut self) -> Response {
        let mut length = [0; wire::LENGTH_LEN];
        self.stream.read_exact(&mut length).expect("an answer in time");
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body).expect("all of the answer");
        wire::decode(&body).unwrap()
    }

    /// The engine hangs up, whatever it still says before.
    pub(crate) fn expect_end(&mut self) {
        let mut buffer = [0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("the engine did not hang up: {error}"),
            }
        }
    }
}

pub(crate) fn frame(ask: &RequestFrame<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    wire::write_message(&mut frame, ask);
    frame
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind
}

pub(crate) fn data_of(delivered: &Delivered) -> Option<(String, String)> {
    match &delivered.told.event {
        Event::Data { node, payload, .. } => Some((node.id.to_string(), String::from_utf8_lossy(payload).into_owned())),
        _ => None,
    }
}

/// The socket of a server that died.
pub(crate) fn leave_behind(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    // Not only dropped: a child that another test is starting may hold a copy of it.
    SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
}

pub(crate) const NOBODY: u32 = 65_534;

/// Runs a test of `who_may` as nobody; `None` where we are not root and cannot.
pub(crate) fn ask_as_nobody(path: &Path) -> Option<HashMap<String, String>> {
    as_nobody("who_may::as_another_user", "HEARTBUS_TEST_SOCKET", path)
}

/// Runs a test that says what it sees, as nobody; `None` where we are not root and cannot.
pub(crate) fn as_nobody(test: &str, variable: &str, path: &Path) -> Option<HashMap<String, String>> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return None;
    }
    // Not by its path: nobody may not have the right to go there.
    let output = Command::new("/proc/self/exe")
        .args(["--exact", test, "--nocapture"])
        .env(variable, path)
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once("> "));
    Some(lines.map(|(what, answer)| (what.rsplit(' ').next().unwrap().to_owned(), answer.to_owned())).collect())
}

/// What an engine says to a client that it lets in.
pub(crate) fn welcome() -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::write_welcome(&mut bytes, wire::VERSION, &House::in_process().bus().welcome().unwrap().clone());
    bytes
}
