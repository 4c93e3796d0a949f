use super::*;
use crate::hub::frame::Body;
use crate::hub::link::{Command, CommandSink};
use crate::hub::thread_state::ThreadState;
use crate::hub::{Budget, Now};
use crate::inbox::Inbox;
use crate::settings::{InboxLimits, ServerConfig};
use crate::wire::{self, FrameType, v2};
use allocation_counter::measure;
use mio::net::TcpStream;
use std::io::Read;

struct Nobody;

impl CommandSink for Nobody {
    fn post(&self, _command: Command) {}
}

fn pair() -> (Connection, std::net::TcpStream, Hub) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, address) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let link = Arc::new(Link::new(1, address, 0, Arc::new(Nobody)));
    let hub = Hub::new(ServerConfig::default(), Inbox::new(InboxLimits::default()).unwrap());
    (Connection::new(TcpStream::from_std(socket).into(), Phase::Ending { link, timer: None }, true), peer, hub)
}

#[test]
fn a_connection_is_small() {
    // mio keeps another eight bytes per socket in debug builds.
    let debug = if cfg!(debug_assertions) { 8 } else { 0 };
    let bytes = size_of::<Option<Connection>>();
    assert!(bytes <= 80 + debug, "{bytes} bytes");
}

#[test]
fn writing_to_an_idle_connection_allocates_nothing_and_leaves_nothing_behind() {
    let (mut connection, mut peer, hub) = pair();
    let (mut pool, mut wheel) = (BufferPool::default(), Wheel::new(1));
    let frame = frame(&hub, Dialect::V1, b"some bytes");
    let len = frame.len();
    let before = hub.memory().total();
    let mut push = |connection: &mut Connection| {
        connection.link().add_queued(len);
        connection.enqueue(frame.clone(), &mut pool);
        assert_eq!(connection.flush(&hub, &mut pool, &mut wheel).unwrap(), len as u64);
        assert!(connection.buffers.is_none() && !connection.has_backlog());
    };
    push(&mut connection);
    let cost = measure(|| (0..1000).for_each(|_| push(&mut connection)));
    assert_eq!(cost.count_total, 0, "{cost:?}");
    assert_eq!((connection.bytes_out, connection.link().queued(), hub.memory().total()), (1001 * len as u64, 0, before));
    let mut got = vec![0; 2 * len];
    peer.read_exact(&mut got).unwrap();
    let mut expected = Vec::new();
    wire::encode(Dialect::V1, FrameType::DATA, 7, b"some bytes", &mut expected).unwrap();
    assert_eq!(got, expected.repeat(2));
}

/// Memory that is counted for connections, and for this one alone.
fn kept(connection: &Connection, hub: &Hub) -> (usize, usize) {
    (hub.memory().total(), connection.alone())
}

fn frame(hub: &Hub, dialect: Dialect, payload: &[u8]) -> QueuedFrame {
    QueuedFrame::new(dialect, FrameType::DATA, 7, Body::encode(dialect, payload, hub.memory()).unwrap())
}

fn thread() -> ThreadState {
    ThreadState::new(0, Arc::default(), fastrand::Rng::with_seed(1), Now { mono: 1, unix: 1 })
}

fn open(connection: &mut Connection, thread: &mut ThreadState, hub: &Hub) {
    connection.phase = Phase::Open(Session::open(connection.link().clone(), &mut thread.context(hub)));
}

#[test]
fn half_a_frame_is_kept_until_the_other_half_comes_and_then_there_is_no_buffer_any_more() {
    let (mut connection, _peer, hub) = pair();
    let mut thread = thread();
    open(&mut connection, &mut thread, &hub);
    let mut ping = Vec::new();
    wire::encode(Dialect::V1, FrameType::PING, 0, b"", &mut ping).unwrap();
    let (half, other) = ping.split_at(5);
    for _ in 0..2 {
        assert_eq!(connection.feed(&mut thread.context(&hub), &mut half.to_vec()), Next::Continue);
        assert!(connection.buffers.is_some() && thread.replies.is_empty());
        assert_eq!(kept(&connection, &hub), (5, 5));
        assert_eq!(connection.feed(&mut thread.context(&hub), &mut other.to_vec()), Next::Continue);
        assert!(connection.buffers.is_none() && !thread.replies.is_empty());
        assert_eq!(kept(&connection, &hub), (0, 0));
        thread.replies.clear();
    }
}

#[test]
fn a_long_frame_takes_no_more_memory_than_it_is_long_and_gives_it_back_when_it_was_read() {
    let (mut connection, _peer, hub) = pair();
    let mut thread = thread();
    open(&mut connection, &mut thread, &hub);
    let mut stream = Vec::new();
    v2::encode(FrameType::DATA, 0, &vec![b'x'; 3_000_000], &mut stream);
    let len = stream.len();
    // The beginning of the next.
    stream.push(0xab);
    for read in stream.chunks(64 * 1024) {
        assert_eq!(connection.feed(&mut thread.context(&hub), &mut read.to_vec()), Next::Continue);
        let (total, alone) = kept(&connection, &hub);
        assert!(total == alone && alone <= len + 1, "{total} {alone}");
        let partial = &connection.buffers.as_ref().unwrap().partial;
        assert_eq!(total, partial.capacity());
        assert!(partial.capacity() <= 2 * partial.len() || partial.len() == 1, "{} {}", partial.capacity(), partial.len());
    }
    assert_eq!(kept(&connection, &hub), (1, 1));
    connection.release(&hub, &mut Wheel::new(1));
    assert_eq!(kept(&connection, &hub), (0, 0));
}

#[test]
fn what_a_header_promises_is_not_allocated_before_it_comes() {
    let (mut connection, _peer, hub) = pair();
    let mut thread = thread();
    open(&mut connection, &mut thread, &hub);
    let mut stream = Vec::new();
    v2::encode(FrameType::DATA, 0, &vec![b'x'; 3_000_000], &mut stream);
    for read in [&stream[..20], &stream[20..21], &stream[21..22]] {
        connection.feed(&mut thread.context(&hub), &mut read.to_vec());
    }
    assert!(kept(&connection, &hub).0 <= 2 * 22, "{:?}", kept(&connection, &hub));
}

#[test]
fn what_is_held_for_v2_counts_for_its_connection_and_says_nothing_of_its_reading() {
    let (mut connection, _peer, hub) = pair();
    let mut pool = BufferPool::default();
    let held = frame(&hub, Dialect::V2, &[0; 5000]);
    connection.link().add_queued(held.len());
    connection.enqueue(held, &mut pool);
    assert_eq!(connection.flush(&hub, &mut pool, &mut Wheel::new(1)).unwrap(), 0);
    let (total, alone) = kept(&connection, &hub);
    assert!(total == alone && alone > 5000 && !connection.has_backlog(), "{total} {alone}");
    assert_eq!((connection.link().queued(), connection.unread()), (5012, 0));
    connection.release(&hub, &mut Wheel::new(1));
    assert_eq!(kept(&connection, &hub), (0, 0));
}

#[test]
fn a_payload_for_many_who_do_not_read_is_counted_once_and_makes_nobody_of_them_guilty() {
    let (mut one, _peer, hub) = pair();
    let (mut other, _other, _) = pair();
    let mut pool = BufferPool::default();
    let shared = frame(&hub, Dialect::V1, &[b'x'; 100_000]);
    let len = shared.len();
    for connection in [&mut one, &mut other] {
        connection.write_blocked = true;
        connection.link().add_queued(shared.len());
        connection.enqueue(shared.clone(), &mut pool);
        connection.flush(&hub, &mut pool, &mut Wheel::new(1)).unwrap();
    }
    drop(shared);
    let total = hub.memory().total();
    assert!((100_000..101_000).contains(&total), "{total}");
    assert!(one.alone() < 500 && other.alone() < 500);
    assert_eq!((one.unread(), other.unread()), (len, len));
    one.release(&hub, &mut Wheel::new(1));
    assert!(other.alone() > 100_000 && hub.memory().total() > 100_000);
    other.release(&hub, &mut Wheel::new(1));
    assert_eq!(hub.memory().total(), 0);
}

#[test]
fn the_time_of_a_peer_that_takes_nothing_is_measured_only_while_something_waits() {
    let (mut connection, mut peer, hub) = pair();
    let (mut pool, mut wheel) = (BufferPool::default(), Wheel::new(1));
    connection.watch(&mut wheel, 10, 1);
    assert!(wheel.is_empty(), "nothing waits");
    connection.write(&hub, &vec![b'x'; 16 << 20]).unwrap();
    connection.watch(&mut wheel, 10, 1);
    connection.watch(&mut wheel, 20, 2);
    assert_eq!(wheel.len(), 1);
    let (timer, _) = wheel.pop(u64::from(u32::MAX)).unwrap();
    assert_eq!(connection.stuck_since(timer), Some(1));
    connection.set_moved(7);
    assert_eq!(connection.stuck_since(timer), Some(7));
    let reader = std::thread::spawn(move || peer.read_exact(&mut vec![0; 16 << 20]));
    while connection.has_backlog() {
        connection.write_blocked = false;
        connection.flush(&hub, &mut pool, &mut wheel).unwrap();
    }
    reader.join().unwrap().unwrap();
    assert!(wheel.is_empty() && connection.stuck_since(timer).is_none());
}

#[test]
fn the_time_in_which_v2_is_to_be_spoken_goes_on_whatever_the_socket_takes_meanwhile() {
    let (mut connection, _peer, hub) = pair();
    let (mut pool, mut wheel) = (BufferPool::default(), Wheel::new(1));
    let held = frame(&hub, Dialect::V2, &[0; 500]);
    connection.link().add_queued(held.len());
    connection.enqueue(held, &mut pool);
    connection.watch(&mut wheel, 10, 3);
    connection.write(&hub, &vec![b'x'; 16 << 20]).unwrap();
    connection.watch(&mut wheel, 10, 5);
    connection.set_moved(7);
    connection.watch(&mut wheel, 10, 8);
    let (timer, _) = wheel.pop(u64::from(u32::MAX)).unwrap();
    assert!(wheel.pop(u64::from(u32::MAX)).is_none());
    assert_eq!(connection.stuck_since(timer), Some(3));
    // It speaks v2 now, and takes nothing.
    connection.buffers.as_mut().unwrap().outbox.release_held();
    connection.watch(&mut wheel, 10, 9);
    assert_eq!(connection.stuck_since(timer), Some(7));
    connection.release(&hub, &mut wheel);
    assert!(wheel.is_empty());
}

#[test]
fn nothing_is_gone_on_with_that_came_before_the_end() {
    let (mut connection, _peer, hub) = pair();
    let mut thread = thread();
    open(&mut connection, &mut thread, &hub);
    let mut beats = Vec::new();
    (0..10_000).for_each(|_| v2::encode(FrameType::PING, 0, b"", &mut beats));
    thread.budget = Budget::share(1);
    assert_eq!(connection.feed(&mut thread.context(&hub), &mut beats.to_vec()), Next::Again);
    assert!(connection.is_unfinished() && connection.partial_len() > 0);
    connection.phase = Phase::Ending { link: connection.link().clone(), timer: None };
    assert_eq!(connection.feed(&mut thread.context(&hub), &mut []), Next::Continue);
    assert!(!connection.is_unfinished());
    assert_eq!((connection.partial_len(), kept(&connection, &hub).0), (0, 0));
}

#[test]
fn what_the_socket_does_not_take_is_kept_until_it_does_and_then_there_is_no_buffer_any_more() {
    const BYTES: usize = 16 << 20;
    let (mut connection, mut peer, hub) = pair();
    let mut pool = BufferPool::default();
    let taken = connection.write(&hub, &vec![b'x'; BYTES]).unwrap() as usize;
    let (total, alone) = kept(&connection, &hub);
    assert!(taken < BYTES && connection.write_blocked && total == alone && alone >= BYTES - taken, "{total} {alone} {taken}");
    let reader = std::thread::spawn(move || peer.read_exact(&mut vec![0; BYTES]));
    while connection.has_backlog() {
        // As the event would say that it is writable.
        connection.write_blocked = false;
        connection.flush(&hub, &mut pool, &mut Wheel::new(1)).unwrap();
    }
    reader.join().unwrap().unwrap();
    assert!(connection.buffers.is_none());
    assert_eq!(kept(&connection, &hub), (0, 0));
}
