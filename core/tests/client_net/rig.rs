//! Clients over real sockets, and what their host is told.

pub(crate) use crate::support::{Fixture, Peer, deadline, frame, hold_port};
pub(crate) use heartbus_core::error::ErrorKind;
pub(crate) use heartbus_core::event::{ClientEvent, ClientEventMask, CloseReason, ErrorCause, Event, EventMask, FleetEvent};
pub(crate) use heartbus_core::inbox::Inbox;
pub(crate) use heartbus_core::net::client::{Client, Clients};
pub(crate) use heartbus_core::settings::{ClientConfig, InboxLimits, ServerConfig};
pub(crate) use heartbus_core::wire::control;
pub(crate) use socket2::SockRef;
pub(crate) use std::cell::RefCell;
pub(crate) use std::collections::{HashMap, HashSet, VecDeque};
pub(crate) use std::io::{ErrorKind as Io, Write};
pub(crate) use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
pub(crate) use std::sync::Arc;
pub(crate) use std::time::{Duration, Instant};

/// Long enough that a reply is never late, however busy the machine is: a client hangs up one interval after a beat that
/// nothing followed.
pub(crate) const BEAT: Duration = Duration::from_secs(2);

/// A thread of clients, the port of the server that the test plays, and what the clients told.
pub(crate) struct Rig {
    pub(crate) clients: Clients,
    pub(crate) inbox: Arc<Inbox<FleetEvent>>,
    pub(crate) listener: TcpListener,
    pub(crate) events: RefCell<VecDeque<(u64, ClientEvent)>>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(InboxLimits::default(), "127.0.0.1:0")
    }

    pub(crate) fn with(limits: InboxLimits, listen: &str) -> Self {
        Self::over(TcpListener::bind(listen).unwrap(), limits)
    }

    pub(crate) fn over(listener: TcpListener, limits: InboxLimits) -> Self {
        let inbox = Inbox::new(limits).unwrap();
        inbox.subscribe(ClientEventMask::ALL);
        Self { clients: Clients::start(inbox.clone()).unwrap(), inbox, listener, events: RefCell::default() }
    }

    /// Heartbeats that do not disturb, quick reconnects.
    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig {
            port: self.listener.local_addr().unwrap().port(),
            heartbeat_interval: Duration::from_secs(3600),
            reconnect_interval: Duration::from_millis(1),
            ..ClientConfig::default()
        }
    }

    pub(crate) fn connect(&self, config: ClientConfig) -> Client {
        self.clients.connect(config).unwrap()
    }

    pub(crate) fn accept(&self) -> Peer {
        self.listener.set_nonblocking(true).unwrap();
        let until = deadline();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Peer::over(stream);
                }
                Err(error) => assert_eq!(error.kind(), Io::WouldBlock),
            }
            assert!(Instant::now() < until, "no client connected");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Accepts a client and registers it on channel 7; returns its id as well.
    pub(crate) fn accept_registered(&self) -> (Peer, String) {
        let mut peer = self.accept();
        let register = peer.frame();
        assert_eq!(register.frame_type, 6);
        let id = control::parse_register(register.text().as_bytes()).unwrap().node_id.unwrap();
        let mut reply = Vec::new();
        control::write_register_reply(&mut reply, &id, 7, 0, 1);
        peer.send(6, 0, std::str::from_utf8(&reply).unwrap());
        (peer, id)
    }

    /// A client that is connected and registered, with everything told of that taken.
    pub(crate) fn registered(&self, config: ClientConfig) -> (Client, Peer) {
        let client = self.connect(config);
        let (peer, _) = self.accept_registered();
        assert_eq!(self.event(&client), ClientEvent::Connect);
        assert!(matches!(self.event(&client), ClientEvent::Register { .. }));
        (client, peer)
    }

    pub(crate) fn any_event(&self) -> (u64, ClientEvent) {
        let until = deadline();
        loop {
            if let Some(event) = self.events.borrow_mut().pop_front() {
                return event;
            }
            let mut drained = VecDeque::new();
            self.inbox.drain(&mut drained, 64);
            self.events.borrow_mut().extend(drained.into_iter().map(|told| (told.client_id, told.event)));
            assert!(Instant::now() < until, "waited in vain for an event");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn event(&self, client: &Client) -> ClientEvent {
        let (id, event) = self.any_event();
        assert_eq!(id, client.id());
        event
    }

    pub(crate) fn expect(&self, client: &Client, events: &[ClientEvent]) {
        for event in events {
            assert_eq!(self.event(client), *event);
        }
    }

    /// A server that closes with something unread resets the connection.
    pub(crate) fn expect_close(&self, client: &Client) {
        let event = self.event(client);
        assert!(matches!(event, ClientEvent::Close { reason: CloseReason::PeerClosed | CloseReason::IoError, .. }), "{event:?}");
    }

    pub(crate) fn expect_nobody(&self) {
        self.listener.set_nonblocking(true).unwrap();
        assert_eq!(self.listener.accept().unwrap_err().kind(), Io::WouldBlock);
    }
}

impl Rig {
    /// Waits until the client told of as many registrations, and returns which channel each node has.
    pub(crate) fn registrations(&self, client: &Client, count: usize) -> HashMap<String, u32> {
        let mut channels = HashMap::new();
        while channels.len() < count {
            if let ClientEvent::Register { node_id, channel_id } = self.event(client) {
                channels.insert(node_id.to_string(), channel_id);
            }
        }
        channels
    }

    pub(crate) fn event_where(&self, client: &Client, wanted: impl Fn(&ClientEvent) -> bool) -> ClientEvent {
        loop {
            let (id, event) = self.any_event();
            if id == client.id() && wanted(&event) {
                return event;
            }
        }
    }
}

pub(crate) fn closed(reason: CloseReason) -> ClientEvent {
    ClientEvent::Close { reason, detail: String::new() }
}

pub(crate) fn closed_saying(reason: CloseReason, detail: &str) -> ClientEvent {
    ClientEvent::Close { reason, detail: detail.to_owned() }
}

pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let until = deadline();
    while !condition() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn server_error(message: &str, code: i64) -> String {
    String::from_utf8(control::error_payload(message, code)).unwrap()
}
