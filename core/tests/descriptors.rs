//! Which numbers the descriptors of a real engine have: those that select() does not know, all but the host's.

mod support;

use heartbus_core::bus::{Attachment, Bus};
use heartbus_core::descriptor::{FLOOR, lift, lifted, lower, off_the_standard_streams, raise_limit};
use heartbus_core::engine::Engine;
use heartbus_core::event::{ClientEventMask, EventMask};
use heartbus_core::hub::dispatch::DispatchLimits;
use heartbus_core::inbox::Inbox;
use heartbus_core::log::LogQueue;
use heartbus_core::net::client::Clients;
use heartbus_core::settings::{BusConfig, ClientConfig, InboxLimits, ServerConfig};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use support::{Fixture, deadline};

/// The numbers are the process's: a test that looks at them wants nobody beside it.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(raise_limit().is_none_or(|limit| limit > 2 * FLOOR as usize), "these tests need room above {FLOOR}");
    turn
}

fn open() -> BTreeSet<RawFd> {
    let entries: Vec<RawFd> =
        fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    // The listing itself is one of them, and closed again.
    entries.into_iter().filter(|fd| fs::metadata(format!("/proc/self/fd/{fd}")).is_ok()).collect()
}

fn low() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

#[test]
fn everything_that_servers_and_clients_open_has_a_number_of_the_engine_s() {
    let _turn = alone();
    let socket = std::env::temp_dir().join(format!("heartbus-descriptors-{}.sock", std::process::id()));
    let before = open();
    let bus = Some(BusConfig { path: socket.clone(), group: None, name: "test".into() });
    let config = ServerConfig { host: "localhost".into(), port: 0, io_threads: 2, bus, ..ServerConfig::default() };
    let engine = Engine::start_for_workers(&config, DispatchLimits::default(), EventMask::ALL).unwrap();
    let inbox = Inbox::new(InboxLimits::default()).unwrap();
    inbox.subscribe(ClientEventMask::ALL);
    let clients = Clients::start(inbox.clone()).unwrap();
    let client = ClientConfig { host: "localhost".into(), port: engine.local_addr().port(), ..ClientConfig::default() };
    let connected: Vec<_> = (0..20).map(|_| clients.connect(client.clone()).unwrap()).collect();
    let _attached = Attachment::attach(&socket, Duration::from_secs(20)).unwrap();
    let mut asking = Bus::connect(&socket, Duration::from_secs(20)).unwrap();
    let _log = LogQueue::new(10).unwrap();
    let until = deadline();
    while asking.stats().unwrap().stats.nodes_online < connected.len() {
        assert!(Instant::now() < until, "not all clients came in");
        inbox.drain(&mut VecDeque::new(), 1000);
    }
    let opened: Vec<RawFd> = open().difference(&before).copied().collect();
    // Both ends of each client's connection at least.
    assert!(opened.len() > 2 * connected.len(), "{opened:?}");
    assert_eq!(opened.iter().filter(|fd| **fd < FLOOR).count(), 0, "{opened:?}");
    clients.stop();
    engine.stop();
}

#[test]
fn a_lifted_descriptor_is_the_same_at_another_number() {
    let _turn = alone();
    let fd = low();
    rustix::io::write(&fd, &[1; 8]).unwrap();
    let number = fd.as_raw_fd();
    assert!(number < FLOOR);
    let fd = lift(fd).unwrap();
    assert!(fd.as_raw_fd() >= FLOOR);
    assert!(!open().contains(&number), "the low one is free again");
    assert_eq!(rustix::io::read(&fd, &mut [0; 8]), Ok(8), "it is the one that was written to");
    let same = fd.as_raw_fd();
    assert_eq!(lift(fd).unwrap().as_raw_fd(), same, "one that is there already stays");
}

#[test]
fn what_keeps_its_numbers_to_itself_finds_none_of_the_host_s_free() {
    let _turn = alone();
    let before = open();
    let (one, other) = lifted(|| (low(), low()));
    assert!(one.as_raw_fd() >= FLOOR && other.as_raw_fd() >= FLOOR);
    assert!(low().as_raw_fd() < FLOOR, "and afterwards they are free again");
    drop((one, other));
    assert_eq!(open(), before);
}

#[test]
fn what_is_done_off_the_standard_streams_leaves_their_numbers_alone_and_takes_no_others() {
    let _turn = alone();
    let before = open();
    assert!(before.is_superset(&(0..3).collect()), "the test's own standard streams are open");
    let inside = off_the_standard_streams(open);
    assert_eq!(inside, before);
    assert_eq!(open(), before);
}

#[test]
fn a_host_gets_a_number_that_select_knows() {
    let _turn = alone();
    let fd = lift(low()).unwrap();
    assert!((3..FLOOR).contains(&lower(&fd).unwrap().as_raw_fd()));
}

#[test]
fn a_host_s_own_connections_stay_below_however_many_the_engine_has() {
    let _turn = alone();
    let server = Fixture::start(ServerConfig { io_threads: 1, ..ServerConfig::default() });
    let inbox = Inbox::new(InboxLimits::default()).unwrap();
    inbox.subscribe(ClientEventMask::ALL);
    let clients = Clients::start(inbox).unwrap();
    let client = ClientConfig { host: "127.0.0.1".into(), port: server.engine.local_addr().port(), ..ClientConfig::default() };
    let connected: Vec<_> = (0..FLOOR + 100).map(|_| clients.connect(client.clone()).unwrap()).collect();
    server.until("all are there", |stats| stats.nodes_online == connected.len());
    let own = TcpStream::connect(server.engine.local_addr()).unwrap();
    assert!(own.as_raw_fd() < FLOOR);
    clients.stop();
}
