//! A running server, and raw peers that speak v1 or v2 to it byte by byte.

#![allow(dead_code, reason = "each test binary uses its part")]

use heartbus_core::engine::{Engine, Stats};
use heartbus_core::error::Error;
use heartbus_core::event::{Event, EventMask};
use heartbus_core::inbox::Inbox;
use heartbus_core::settings::{InboxLimits, ServerConfig};
use heartbus_core::wire::{self, Decoded, Dialect, FrameType, v1, v2};
use socket2::{Domain, Socket, Type};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waiting for something that has to happen fails after this time; nothing waits that long when all is well.
pub(crate) fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(crate) struct Fixture {
    pub engine: Engine,
    pub inbox: Arc<Inbox>,
    events: RefCell<VecDeque<Event>>,
}

impl Fixture {
    /// Starts on a free port of 127.0.0.1, unless the configuration names another host.
    pub(crate) fn start(config: ServerConfig) -> Self {
        Self::start_with(config, InboxLimits::default(), EventMask::ALL)
    }

    pub(crate) fn start_with(mut config: ServerConfig, limits: InboxLimits, subscribed: EventMask) -> Self {
        config.port = 0;
        if config.host == ServerConfig::default().host {
            config.host = "127.0.0.1".into();
        }
        let inbox = Inbox::new(limits).unwrap();
        inbox.subscribe(subscribed);
        Self { engine: Engine::start(&config, inbox.clone()).unwrap(), inbox, events: RefCell::default() }
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

    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Stats) -> bool) {
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

    pub(crate) fn event(&self) -> Event {
        let deadline = deadline();
        loop {
            if let Some(event) = self.events.borrow_mut().pop_front() {
                return event;
            }
            self.inbox.drain(&mut self.events.borrow_mut(), 64);
            assert!(Instant::now() < deadline, "waited in vain for an event");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn event_where(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.event();
            if wanted(&event) {
                return event;
            }
        }
    }
}

/// Keeps a port for the servers of this test until it is dropped: the system would give it to whoever asks for any port.
/// It does not listen, so that whoever does can have it beside this, and nobody is answered when nobody does.
pub(crate) fn hold_port(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// Why a server with this configuration does not start.
pub(crate) fn start_error(config: ServerConfig) -> Error {
    match Engine::start(&config, Inbox::new(InboxLimits::default()).unwrap()) {
        Ok(_) => panic!("the server started"),
        Err(error) => error,
    }
}

pub(crate) fn frame(frame_type: u8, channel_id: i64, payload: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    v1::encode(frame_type, channel_id, payload.as_bytes(), &mut bytes).unwrap();
    bytes
}

pub(crate) fn v2_frame(frame_type: u8, channel_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    v2::encode(FrameType(frame_type), channel_id, payload, &mut bytes);
    bytes
}

#[derive(Debug)]
pub(crate) struct Received {
    pub dialect: Dialect,
    pub frame_type: u8,
    pub channel_id: i64,
    pub payload: Vec<u8>,
}

impl Received {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.payload.clone()).unwrap()
    }
}

pub(crate) struct Peer {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl Peer {
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    pub(crate) fn send(&mut self, frame_type: u8, channel_id: i64, payload: &str) {
        self.raw(&frame(frame_type, channel_id, payload));
    }

    pub(crate) fn send_v2(&mut self, frame_type: u8, channel_id: u32, payload: &[u8]) {
        self.raw(&v2_frame(frame_type, channel_id, payload));
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends pings and reads no answer, until the server has stopped reading. Returns what is left to be sent of the last one.
    pub(crate) fn ping_until_paused(&mut self, server: &Fixture) -> Vec<u8> {
        let ping = frame(4, 0, "");
        let pings = ping.repeat(1000);
        let (mut sent, deadline) = (0, deadline());
        self.stream.set_nonblocking(true).unwrap();
        while server.engine.stats().counts.reads_paused_by_peer == 0 {
            sent = (sent + self.stream.write(&pings[sent..]).unwrap_or(0)) % pings.len();
            assert!(Instant::now() < deadline, "reading never paused");
        }
        if sent % ping.len() == 0 { Vec::new() } else { ping[sent % ping.len()..].to_vec() }
    }

    /// Moves the peer out, to be used on another thread.
    pub(crate) fn take(&mut self) -> Self {
        Self { stream: self.stream.try_clone().unwrap(), received: std::mem::take(&mut self.received) }
    }

    pub(crate) fn frame(&mut self) -> Received {
        loop {
            if let (dialect, Decoded::Frame { frame, len }) = wire::decode(&self.received, u32::MAX) {
                let payload = frame.payload.bytes().into_owned();
                let got = Received { dialect, frame_type: frame.frame_type.0, channel_id: frame.channel_id, payload };
                self.received.drain(..len);
                return got;
            }
            let mut buffer = [0; 65_536];
            let count = self.stream.read(&mut buffer).expect("a frame in time");
            assert!(count > 0, "the server closed the connection instead of answering");
            self.received.extend(&buffer[..count]);
        }
    }

    /// The server closes in order, after everything that was read already.
    pub(crate) fn expect_end(&mut self) {
        assert!(self.received.is_empty(), "bytes are left: {:?}", self.received);
        assert_eq!(self.stream.read(&mut [0; 1024]).expect("the end in time"), 0);
    }

    pub(crate) fn skip_until_end(&mut self) {
        while self.stream.read(&mut [0; 65_536]).expect("the end in time") > 0 {}
    }
}
