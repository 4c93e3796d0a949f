//! What the bus socket costs: events per second to one worker, and the round trip of a request, with and without connecting.
//!
//! `cargo run --release -p heartbus-bench --bin bus`. Knows the public face only.

use heartbus_core::bus::{Attachment, Bus};
use heartbus_core::engine::Engine;
use heartbus_core::event::EventMask;
use heartbus_core::hub::dispatch::DispatchLimits;
use heartbus_core::settings::{BusConfig, ServerConfig};
use heartbus_core::wire::v1;
use std::collections::VecDeque;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(5);
const ROUND_TRIPS: usize = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("heartbus-bench-{}.sock", std::process::id()));
    for (nodes, payload) in [(1, 32), (1000, 32), (1000, 512)] {
        events(&path, nodes, payload, 2_000_000)?;
    }
    round_trips(&path)?;
    memory(&path)
}

fn start(path: &Path, events: usize) -> Result<Engine, Box<dyn Error>> {
    let bus = BusConfig { path: path.to_owned(), group: None, name: "bench".into() };
    let config = ServerConfig {
        host: "127.0.0.1".into(),
        port: 0,
        io_threads: 1,
        bus: Some(bus),
        // All events of a cell wait at once; what events may take is a part of it.
        total_buffer_bytes: 32 << 30,
        ..ServerConfig::default()
    };
    let limits = DispatchLimits { events, bytes: 1 << 40, ..DispatchLimits::default() };
    Ok(Engine::start_for_workers(&config, limits, EventMask::DATA)?)
}

fn encode(frame_type: u8, channel: i64, payload: &str, out: &mut Vec<u8>) {
    v1::encode(frame_type, channel, payload.as_bytes(), out).expect("text");
}

/// All events wait already, so that only their way to the worker is measured.
fn events(path: &Path, nodes: usize, payload: usize, count: usize) -> Result<(), Box<dyn Error>> {
    let engine = start(path, count)?;
    let mut stream = TcpStream::connect(engine.local_addr())?;
    let mut reader = stream.try_clone()?;
    spawn(move || while reader.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {});
    let mut bytes = Vec::new();
    for node in 0..nodes {
        encode(6, 0, &format!(r#"{{"node_id":"sensor-{node}"}}"#), &mut bytes);
    }
    stream.write_all(&bytes)?;
    while engine.stats().nodes_online < nodes {
        sleep(Duration::from_millis(1));
    }
    let channels: Vec<i64> = engine.nodes(nodes).iter().map(|node| node.channel_id().into()).collect();
    let text = "x".repeat(payload);
    bytes.clear();
    for index in 0..count {
        encode(3, channels[index % nodes], &text, &mut bytes);
        if bytes.len() > 1 << 20 {
            stream.write_all(&bytes)?;
            bytes.clear();
        }
    }
    stream.write_all(&bytes)?;
    while engine.stats().counts.data_in < count as u64 {
        sleep(Duration::from_millis(1));
    }

    let mut worker = Attachment::attach(path, PATIENCE)?;
    let began = Instant::now();
    worker.ready(EventMask::DATA)?;
    let mut queue = VecDeque::new();
    let mut told = 0;
    while told < count {
        if worker.drain(&mut queue, 1024)? == 0 {
            sleep(Duration::from_micros(20));
        }
        told += queue.len();
        for delivered in queue.drain(..) {
            if delivered.is_last {
                worker.acknowledge(delivered.batch)?;
            }
        }
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!("{nodes:5} nodes, {payload:4} bytes: {rate:9.0} events/s to one worker");
    drop(worker);
    engine.stop();
    Ok(())
}

fn round_trips(path: &Path) -> Result<(), Box<dyn Error>> {
    let engine = start(path, 1000)?;
    let mut stream = TcpStream::connect(engine.local_addr())?;
    let mut bytes = Vec::new();
    encode(6, 0, r#"{"node_id":"n"}"#, &mut bytes);
    stream.write_all(&bytes)?;
    spawn(move || while stream.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {});
    while engine.stats().nodes_online < 1 {
        sleep(Duration::from_millis(1));
    }
    let mut bus = Bus::connect(path, PATIENCE)?;
    report("sendTo", || bus.send_to("n", b"hello", 0))?;
    report("connect + sendTo", || Bus::connect(path, PATIENCE)?.send_to("n", b"hello", 0))?;
    Ok(())
}

/// What a worker costs that is attached and has told all its events, on both sides together.
fn memory(path: &Path) -> Result<(), Box<dyn Error>> {
    const WORKERS: usize = 500;
    let engine = start(path, 1000)?;
    let before = resident()?;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let mut worker = Attachment::attach(path, PATIENCE)?;
        worker.ready(EventMask::DATA)?;
        workers.push(worker);
    }
    while engine.stats().dispatch.workers < WORKERS {
        sleep(Duration::from_millis(1));
    }
    println!("an idle worker   : {} bytes resident, both ends", (resident()?.saturating_sub(before)) / WORKERS);
    Ok(())
}

fn resident() -> Result<usize, Box<dyn Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = statm.split(' ').nth(1).ok_or("no resident pages")?.parse()?;
    Ok(pages * rustix::param::page_size())
}

fn report(what: &str, mut round: impl FnMut() -> Result<(), heartbus_core::error::Error>) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        round()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!("{what:17}: p50 {:?}, p99 {:?}", times[ROUND_TRIPS / 2], times[ROUND_TRIPS * 99 / 100]);
    Ok(())
}
