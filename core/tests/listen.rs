//! Listening: whose a port is when several servers want it at once, and what the sockets hand on to their connections.

mod support;

use heartbus_core::engine::Engine;
use heartbus_core::error::ErrorKind;
use heartbus_core::event::{ClientEvent, ClientEventMask, FleetEvent};
use heartbus_core::inbox::Inbox;
use heartbus_core::net::client::Clients;
use heartbus_core::settings::{ClientConfig, InboxLimits, ServerConfig};
use rustix::net::{SendFlags, send};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::*;

/// Starts a server at each of these addresses in the same moment: those that run, and why the others do not.
fn start_together(hosts: &[&str], port: u16) -> (Vec<Engine>, Vec<String>) {
    let together = Barrier::new(hosts.len());
    let start = |host: &str| {
        let config = ServerConfig { host: host.to_owned(), port, ..ServerConfig::default() };
        let inbox = Inbox::new(InboxLimits::default()).unwrap();
        together.wait();
        Engine::start(&config, inbox)
    };
    let (mut running, mut refused) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = hosts.iter().map(|host| scope.spawn(|| start(host))).collect();
        for thread in threads {
            match thread.join().unwrap() {
                Ok(engine) => running.push(engine),
                Err(error) => refused.push(error.message),
            }
        }
    });
    (running, refused)
}

#[test]
fn of_servers_that_start_together_on_one_port_exactly_one_runs() {
    let held = hold_port("127.0.0.1:0".parse().unwrap());
    let port = held.local_addr().unwrap().as_socket().unwrap().port();
    for round in 0..100 {
        let (running, refused) = start_together(&["127.0.0.1"; 4], port);
        assert_eq!((running.len(), refused.len()), (1, 3), "round {round}: {refused:?}");
        assert!(refused.iter().all(|error| *error == format!("Cannot listen on 127.0.0.1:{port}: Address already in use")), "{refused:?}");
    }
}

#[test]
fn a_wildcard_of_either_family_and_an_address_of_its_own_are_one_port_too() {
    let held = hold_port("[::]:0".parse().unwrap());
    let port = held.local_addr().unwrap().as_socket().unwrap().port();
    for round in 0..100 {
        let (running, refused) = start_together(&["::", "0.0.0.0", "::", "0.0.0.0", "127.0.0.1"], port);
        let addresses: Vec<_> = running.iter().map(Engine::local_addr).collect();
        assert_eq!(running.len(), 1, "round {round}: {addresses:?} run, {refused:?}");
    }
}

#[test]
fn a_server_that_runs_shares_its_port_with_no_other_that_starts_later_and_asking_harms_nobody() {
    let server = Fixture::start(ServerConfig { io_threads: 2, ..ServerConfig::default() });
    let port = server.engine.local_addr().port();
    let config = |host: &str| ServerConfig { host: host.into(), port, ..ServerConfig::default() };
    for host in ["127.0.0.1", "0.0.0.0", "::"] {
        assert_eq!(start_error(config(host)).kind, ErrorKind::Io, "{host}");
        assert_eq!(Engine::check(&config(host)).unwrap_err().kind, ErrorKind::Io, "{host}");
    }
    server.engine.stop();
    drop(server);
    // Somebody who asks all the time keeps nobody from starting.
    let held = hold_port(SocketAddr::from(([127, 0, 0, 1], 0)));
    let port = held.local_addr().unwrap().as_socket().unwrap().port();
    let config = ServerConfig { host: "127.0.0.1".into(), port, ..ServerConfig::default() };
    let done = AtomicBool::new(false);
    let refusals: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = Engine::check(&config);
            }
        });
        let start = || Engine::start(&config, Inbox::new(InboxLimits::default()).unwrap());
        let refusals = (0..100).filter_map(|_| start().err()).collect();
        done.store(true, Ordering::Relaxed);
        refusals
    });
    assert!(refusals.is_empty(), "{refusals:?}");
}

/// The last byte is marked as urgent, which takes it out of the stream unless the receiver wants it there.
fn send_urgently(stream: &TcpStream, bytes: &[u8]) {
    assert_eq!(send(stream, bytes, SendFlags::OOB).unwrap(), bytes.len());
}

#[test]
fn urgent_data_from_a_node_is_data_like_any_other() {
    let server = Fixture::start(ServerConfig::default());
    let mut peer = server.connect();
    send_urgently(&peer.stream, &frame(6, 0, r#"{"node_id":"n"}"#));
    assert_eq!(peer.frame().frame_type, 6);
    send_urgently(&peer.stream, &frame(4, 0, "")[..3]);
    peer.raw(&frame(4, 0, "")[3..]);
    assert_eq!(peer.frame().frame_type, 5);
}

#[test]
fn urgent_data_from_a_server_is_data_like_any_other() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let inbox = Inbox::new(InboxLimits::default()).unwrap();
    inbox.subscribe(ClientEventMask::ALL);
    let clients = Clients::start(inbox.clone()).unwrap();
    let config = ClientConfig { port: listener.local_addr().unwrap().port(), node_id: Some("n".into()), ..ClientConfig::default() };
    let _client = clients.connect(config).unwrap();
    let mut peer = Peer::over(listener.accept().unwrap().0);
    assert_eq!(peer.frame().frame_type, 6);
    send_urgently(&peer.stream, &frame(6, 0, r#"{"node_id":"n","metadata":{"channel_id":7},"channel_id":7}"#));
    let (mut events, until) = (VecDeque::new(), deadline());
    let mut wait_for = |wanted: &dyn Fn(&ClientEvent) -> bool| {
        while !events.iter().any(|told: &FleetEvent| wanted(&told.event)) {
            assert!(Instant::now() < until, "{events:?}");
            inbox.drain(&mut events, 64);
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait_for(&|event| matches!(event, ClientEvent::Register { channel_id: 7, .. }));
    // The mark stands between two frames: nothing says that the first is not all.
    for n in 0..50 {
        let second = frame(3, 7, &format!("second {n}"));
        send_urgently(&peer.stream, &[&frame(3, 7, "first"), &second[..1]].concat());
        peer.raw(&second[1..]);
        wait_for(&|event| matches!(event, ClientEvent::Data { payload, .. } if **payload == *format!("second {n}").as_bytes()));
    }
}
