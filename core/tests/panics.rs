//! What a panic in the engine's own threads comes to. It is planted in the host's log, which is called from all of them.

mod support;

use heartbus_core::bus::Bus;
use heartbus_core::event::{ClientEvent, ClientEventMask, CloseReason, Event};
use heartbus_core::inbox::Inbox;
use heartbus_core::net::client::Clients;
use heartbus_core::settings::{BusConfig, ClientConfig, InboxLimits, ServerConfig};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Fixture, deadline};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

/// How many lines of a client about the node "boom" still panic.
static FUSES: AtomicUsize = AtomicUsize::new(0);

/// The same for lines of a server about the node "boom on the server".
static SERVER_FUSES: AtomicUsize = AtomicUsize::new(0);

/// The same for lines about callers of a bus that are hung up on.
static BUS_FUSES: AtomicUsize = AtomicUsize::new(0);

struct Mine;

#[derive(Default)]
struct Reader {
    message: String,
    node_id: String,
}

impl Visit for Reader {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "node_id" => self.node_id = format!("{value:?}"),
            _ => {}
        }
    }
}

impl Subscriber for Mine {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut reader = Reader::default();
        event.record(&mut reader);
        let fuses = match &*reader.message {
            "Registration successful" => &FUSES,
            "Node registered" => &SERVER_FUSES,
            text if text.starts_with("A caller of the bus was hung up on") => {
                if BUS_FUSES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    panic!("the log panicked");
                }
                return;
            }
            _ => return,
        };
        let planted = if reader.message == "Node registered" { "boom on the server" } else { "boom" };
        let is_planted = reader.node_id.trim_matches('"') == planted;
        if is_planted && fuses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            panic!("the log panicked");
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| tracing::subscriber::set_global_default(Mine).unwrap());
}

#[test]
fn a_client_whose_task_panics_tells_its_end_and_comes_back_and_its_neighbours_hear_nothing() {
    install();
    let server = Fixture::start(ServerConfig::default());
    let inbox = Inbox::new(InboxLimits::default()).unwrap();
    inbox.subscribe(ClientEventMask::ALL);
    let clients = Clients::start(inbox.clone()).unwrap();
    let config = |id: &str| ClientConfig {
        port: server.engine.local_addr().port(),
        node_id: Some(id.into()),
        reconnect_interval: Duration::from_millis(1),
        ..ClientConfig::default()
    };
    let mut told: Vec<(u64, ClientEvent)> = Vec::new();
    type Told = (u64, ClientEvent);
    let until = |told: &mut Vec<Told>, wanted: &dyn Fn(&[Told]) -> bool| {
        let until = deadline();
        while !wanted(told) {
            let mut drained = VecDeque::new();
            inbox.drain(&mut drained, 64);
            told.extend(drained.into_iter().map(|told| (told.client_id, told.event)));
            assert!(Instant::now() < until, "waited in vain; told so far: {told:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let neighbour = clients.connect(config("neighbour")).unwrap();
    let is_registered = |id: u64, times: usize| {
        move |told: &[(u64, ClientEvent)]| {
            told.iter().filter(|(told, event)| *told == id && matches!(event, ClientEvent::Register { .. })).count() >= times
        }
    };
    until(&mut told, &is_registered(neighbour.id(), 1));
    FUSES.store(2, Ordering::Relaxed);
    let client = clients.connect(config("boom")).unwrap();
    until(&mut told, &is_registered(client.id(), 1));
    assert_eq!(FUSES.load(Ordering::Relaxed), 0);
    let of_client: Vec<_> = told.iter().filter(|(id, _)| *id == client.id()).map(|(_, event)| event.clone()).collect();
    let closed = ClientEvent::Close { reason: CloseReason::Failed, detail: "the log panicked".to_owned() };
    let (connect, register) = (ClientEvent::Connect, of_client.last().unwrap().clone());
    assert_eq!(of_client, [connect.clone(), closed.clone(), connect.clone(), closed, connect, register]);
    client.send(b"alive", 0).unwrap();
    assert!(neighbour.is_connected());
    clients.stop();
    let ends = |id: u64| move |told: &[(u64, ClientEvent)]| told.contains(&(id, ClientEvent::Finished));
    until(&mut told, &ends(client.id()));
    until(&mut told, &ends(neighbour.id()));
    let closes = told.iter().filter(|(id, event)| *id == neighbour.id() && matches!(event, ClientEvent::Close { .. })).count();
    assert_eq!(closes, 1, "its own goodbye");
}

#[test]
fn an_io_thread_that_panics_tells_the_end_of_its_connections_and_serves_those_who_come_back() {
    install();
    let server = Fixture::start(ServerConfig { io_threads: 1, ..ServerConfig::default() });
    let mut neighbour = server.register("neighbour");
    SERVER_FUSES.store(1, Ordering::Relaxed);
    let mut peer = server.connect();
    peer.send(6, 0, r#"{"node_id":"boom on the server"}"#);
    let closed = || match server.event_where(|event| matches!(event, Event::Close { .. })) {
        Event::Close { reason, .. } => reason,
        _ => unreachable!(),
    };
    assert_eq!([closed(), closed()], [CloseReason::Failed, CloseReason::Failed]);
    for peer in [&mut neighbour, &mut peer] {
        peer.expect_end();
    }
    server.until("both to be gone", |stats| stats.nodes_online == 0 && stats.connections_active == 0);
    for id in ["neighbour", "boom on the server"] {
        assert!(server.engine.node(id).is_none(), "{id}");
        let mut again = server.register(id);
        again.send(4, 0, "");
        assert_eq!(again.frame().frame_type, 5);
        drop(again);
    }
    server.until("they leave as usual", |stats| stats.nodes_online == 0);
    server.engine.stop();
}

#[test]
fn a_caller_of_the_bus_whose_session_panics_is_hung_up_on_alone() {
    install();
    let folder = std::env::temp_dir().join(format!("heartbus-panics-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("bus.sock");
    let bus = BusConfig { path: path.clone(), group: None, name: "panics".into() };
    let server = Fixture::start(ServerConfig { bus: Some(bus), ..ServerConfig::default() });
    let mut neighbour = Bus::connect(&path, Duration::from_secs(20)).unwrap();
    BUS_FUSES.store(1, Ordering::Relaxed);
    let mut stranger = UnixStream::connect(&path).unwrap();
    stranger.write_all(b"this is no hello of a caller").unwrap();
    let mut rest = Vec::new();
    // It ends, or is reset.
    let _ = stranger.read_to_end(&mut rest);
    let until = deadline();
    while BUS_FUSES.load(Ordering::Relaxed) > 0 {
        assert!(Instant::now() < until, "nothing panicked");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(neighbour.stats().unwrap().stats.nodes_online, 0);
    assert!(Bus::connect(&path, Duration::from_secs(20)).unwrap().stats().is_ok());
    drop(neighbour);
    server.until("all callers to be gone", |stats| stats.bus_clients == 0);
    server.engine.stop();
    let _ = std::fs::remove_dir_all(folder);
}
