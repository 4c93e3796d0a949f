//! A caller of the bus socket, against engines that do what real ones do rarely.

use heartbus_core::bus::{Bus, Reply, Request, Welcome};
use heartbus_core::wire::bus::{self as wire, FRAME_CAP, RequestFrame, Response};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

fn welcome() -> Welcome {
    Welcome {
        name: "test".into(),
        package: "0".into(),
        pid: 1,
        started_at: 1,
        listen: "127.0.0.1:1".parse().unwrap(),
        takes_workers: false,
        worker: 0,
        frame_cap: FRAME_CAP,
        max_frame_bytes: 1,
        max_connections: 1,
        io_threads: 1,
        heartbeat_timeout: 1,
    }
}

/// Serves one caller.
fn engine(name: &str, serve: impl FnOnce(UnixStream) + Send + 'static) -> (PathBuf, JoinHandle<()>) {
    let path = std::env::temp_dir().join(format!("heartbus-{name}-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let thread = spawn(move || serve(listener.accept().unwrap().0));
    (path, thread)
}

/// Reads the hello and so many requests; returns their numbers.
fn read_requests(stream: &mut UnixStream, count: usize) -> Vec<u32> {
    let (mut input, mut ids) = (Vec::new(), Vec::new());
    let mut is_greeted = false;
    while ids.len() < count {
        let mut more = [0; 4096];
        let len = stream.read(&mut more).unwrap();
        assert!(len > 0, "the caller hung up");
        input.extend_from_slice(&more[..len]);
        if !is_greeted && let Some((_, len)) = wire::parse_hello(&input).unwrap() {
            is_greeted = true;
            input.drain(..len);
        }
        while is_greeted && let Some((body, len)) = wire::frame(&input, FRAME_CAP).unwrap() {
            ids.push(wire::decode::<RequestFrame<'_>>(body).unwrap().id);
            input.drain(..len);
        }
    }
    ids
}

#[test]
fn an_answer_that_came_with_the_welcome_is_found_behind_it() {
    let (path, engine) = engine("with-welcome", |mut stream| {
        let id = read_requests(&mut stream, 1)[0];
        let mut output = Vec::new();
        wire::write_welcome(&mut output, wire::VERSION, &welcome());
        wire::write_message(&mut output, &Response { id, result: Ok(Reply::Done) });
        stream.write_all(&output).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "nothing more is asked");
    });
    let mut bus = Bus::connect(&path, PATIENCE).unwrap();
    let number = bus.begin(&Request::KeepAlive { node: "a" }).unwrap();
    assert_eq!(bus.welcome().unwrap().name, "test");
    assert_eq!(bus.wait(number, PATIENCE), Ok(Reply::Done));
    drop(bus);
    engine.join().unwrap();
    std::fs::remove_file(path).unwrap();
}
