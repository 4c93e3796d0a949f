//! Attacks on a server that others use meanwhile: what strangers can do within their limits, each for a few seconds.
//!
//! Owns the attacks and the watch beside them: a bystander who beats every 50 ms and notes how long each answer takes, nodes that
//! beat as they should and must not be cut off, and the server's memory against what it says it keeps. What the machine itself makes
//! everybody wait is measured at the same moments, with a second bystander whose answers come from a thread that does nothing else.

use crate::protocol::Dialect;
use crate::server::free_port;
use crate::{Error, Result, proc};
use heartbus_core::bus::Bus;
use heartbus_core::wire::FrameType;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// One kind of attack. Names are unique.
pub struct Attack {
    pub name: &'static str,
    pub what: &'static str,
    /// What PHP subscribes to, as `bench/attack.php` has it.
    mode: &'static str,
    /// Bytes that the server may keep for everybody together.
    total_buffer_bytes: u64,
    /// For how long the attack holds everybody up by stopping the process.
    pub stops: Duration,
    run: fn(&Arena) -> Result<()>,
}

const MIB: u64 = 1 << 20;

pub const ATTACKS: [Attack; 13] = [
    Attack {
        name: "frames",
        what: "60 connections hold a frame of 10 MB each but for its last byte; then the last bytes come together",
        mode: "idle",
        total_buffer_bytes: 1024 * MIB,
        stops: Duration::ZERO,
        run: frames,
    },
    Attack {
        name: "heartbeats",
        what: "one connection with 10,000 nodes sends 256 KB of empty heartbeats, and PHP wants to hear of each",
        mode: "heartbeat",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: heartbeats,
    },
    Attack {
        name: "crumbs",
        what: "100 connections send long frames in pieces of 11 bytes",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: crumbs,
    },
    Attack {
        name: "capacity",
        what: "200 connections send a frame of 8 MB, and half of a short one",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: capacity,
    },
    Attack {
        name: "broadcasts",
        what: "a peer does not read, and there are 50,000 short broadcasts",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: broadcasts,
    },
    Attack {
        name: "held",
        what: "eight peers agree on v2 and never speak it, and are sent what v1 cannot carry",
        mode: "idle",
        total_buffer_bytes: 4 * MIB,
        stops: Duration::ZERO,
        run: held,
    },
    Attack {
        name: "metadata",
        what: "one connection registers 10,000 nodes with 60 KB of metadata each",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: metadata,
    },
    Attack {
        name: "registrations",
        what: "one id comes and goes 5,000 times with 60 KB of metadata while PHP is busy",
        mode: "busy",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: registrations,
    },
    Attack {
        name: "deaf",
        what: "50 connections ask as fast as they can and read no answer",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: deaf,
    },
    Attack {
        name: "doors",
        what: "5,000 connections come, say something, and are reset",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: doors,
    },
    Attack {
        name: "garbage",
        what: "20 connections send frames that mean nothing, come back, and do it again",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: garbage,
    },
    Attack {
        name: "websockets",
        what: "40 WebSockets send fragments of messages without end, ping without reading, break the rules, and come back",
        mode: "idle",
        total_buffer_bytes: 64 * MIB,
        stops: Duration::ZERO,
        run: websockets,
    },
    Attack {
        name: "stopped",
        what: "the busy server is stopped for longer than the nodes' timeout, and continued",
        mode: "heartbeat",
        total_buffer_bytes: 64 * MIB,
        stops: STOP,
        run: stopped,
    },
];

/// How long a node may be silent. The healthy ones beat four times in it.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// As long as the process is stopped, where that is the attack.
const STOP: Duration = Duration::from_secs(3);
const HEALTHY_INTERVAL: Duration = Duration::from_millis(500);
const HEALTHY: usize = 50;
const BYSTANDER_INTERVAL: Duration = Duration::from_millis(50);
/// How long one attack goes on where it does not end by itself.
const LENGTH: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(20);

/// What one attack did to everybody else.
pub struct Outcome {
    /// The longest that the bystander waited for an answer; none when it was cut off.
    pub longest_wait: Option<Duration>,
    /// The most that an I/O thread of the server did while the bystander waited, in time on a core.
    pub most_work: Duration,
    /// The longest that the one waited who asked nothing of the server.
    pub control: Duration,
    /// Healthy nodes, and the bystander, that were cut off.
    pub cut_off: usize,
    /// Resident memory over that before the attack, at its highest, and two seconds after it.
    pub grown: u64,
    pub left: u64,
    /// The most that the server said it keeps for strangers.
    pub accounted: u64,
    pub took: Duration,
}

impl Attack {
    pub fn run(&self) -> Result<Outcome> {
        let arena = Arena::open(self)?;
        let nobody = json!([]);
        let bystander = arena.registered("bystander", &nobody)?;
        let healthy = (0..HEALTHY).map(|node| arena.registered(&format!("healthy-{node}"), &nobody)).collect::<Result<Vec<_>>>()?;
        let pid = arena.server.id();
        let bystander = Beside::start(move |over| stand_by(bystander, Some(pid), over));
        let healthy = Beside::start(move |over| beat(healthy, over));
        let echoed = echo()?;
        let control = Beside::start(move |over| stand_by(echoed, None, over));
        sleep(Duration::from_millis(500));
        let bus = arena.bus()?;
        let before = proc::memory(pid);
        let sampler = Beside::start(move |over| sample(pid, bus, over));
        let began = Instant::now();
        (self.run)(&arena)?;
        let took = began.elapsed();
        sleep(Duration::from_secs(2));
        let left = proc::memory(pid).saturating_sub(before);
        let (peak, accounted) = sampler.end()?;
        let (longest_wait, most_work) = bystander.end()?.unzip();
        let (control, _) = control.end()?.ok_or_else(|| Error::new("the echo ended"))?;
        let cut_off = healthy.end()? + usize::from(longest_wait.is_none());
        Ok(Outcome {
            longest_wait,
            most_work: most_work.unwrap_or_default(),
            control,
            cut_off,
            grown: peak.saturating_sub(before),
            left,
            accounted,
            took,
        })
    }

    /// What memory may grow by: what may be kept, what the allocator adds to it, and the tables of those who came.
    pub fn allowance(&self) -> u64 {
        self.total_buffer_bytes * 3 / 2 + 48 * MIB
    }
}

struct Arena {
    server: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Arena {
    fn open(attack: &Attack) -> Result<Self> {
        let port = free_port()?;
        let folder = std::env::temp_dir().join(format!("heartbus-attack-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let settings = json!({
            "heartbeat_timeout": HEARTBEAT_TIMEOUT.as_secs(),
            "total_buffer_bytes": attack.total_buffer_bytes,
            // At the main port, where every other attack meets it as well.
            "websocket": true,
            "bus": folder.join("bus.sock"),
        });
        let extension = std::env::var("HEARTBUS_SO").unwrap_or_else(|_| "build/heartbus.so".into());
        let server = Command::new("php")
            .args(["-d", &format!("extension={}", std::fs::canonicalize(extension)?.display()), "-d", "memory_limit=-1"])
            .args(["bench/attack.php", "--port", &port.to_string(), "--mode", attack.mode, "--settings", &settings.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let arena = Self { server, address: (Ipv4Addr::LOCALHOST, port).into(), folder };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(arena.address).is_err() {
            if Instant::now() > deadline {
                return Err(Error::new("the server does not listen"));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(arena)
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        // A server that reads no more is an answer as well.
        stream.set_write_timeout(Some(Duration::from_millis(500)))?;
        Ok(stream)
    }

    /// A connection whose node is online, in v2.
    fn registered(&self, id: &str, metadata: &Value) -> Result<TcpStream> {
        let mut stream = self.connect()?;
        stream.write_all(&register(id, metadata))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        read_frame(&mut stream)?;
        Ok(stream)
    }

    fn bus(&self) -> Result<Bus> {
        Bus::connect(&self.folder.join("bus.sock"), PATIENCE).map_err(|error| Error::new(error.to_string()))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = proc::pid_of(&self.server).ok_or_else(|| Error::new("the server has no process"))?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What goes on beside the attack, until it is over.
struct Beside<T> {
    thread: JoinHandle<Result<T>>,
    over: Arc<AtomicBool>,
}

impl<T: Send + 'static> Beside<T> {
    fn start(run: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        Self { thread: thread::spawn(move || run(&seen)), over }
    }

    fn end(self) -> Result<T> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::new("a thread beside the attack panicked"))?
    }
}

/// Beats, and waits for each answer: the longest wait, and the most that an I/O thread of `server` did meanwhile; `None` when it was cut
/// off.
fn stand_by(mut stream: TcpStream, server: Option<u32>, over: &AtomicBool) -> Result<Option<(Duration, Duration)>> {
    let heartbeat = Dialect::V2.heartbeat(0);
    let worked = || server.map_or_else(Vec::new, |pid| proc::threads_cpu(pid, "heartbus-io"));
    if server.is_some() && worked().is_empty() {
        return Err(Error::new("the server has no I/O threads"));
    }
    let (mut longest, mut most_work) = (Duration::ZERO, 0);
    while !over.load(Ordering::Relaxed) {
        let before = worked();
        let asked = Instant::now();
        if stream.write_all(&heartbeat).is_err() || read_frame(&mut stream).is_err() {
            return Ok(None);
        }
        longest = longest.max(asked.elapsed());
        let work = worked().into_iter().zip(before).map(|(now, before)| now.saturating_sub(before));
        most_work = most_work.max(work.max().unwrap_or(0));
        sleep(BYSTANDER_INTERVAL.saturating_sub(asked.elapsed()));
    }
    Ok(Some((longest, Duration::from_nanos(most_work))))
}

/// A connection on which a thread of ours sends back what it gets.
fn echo() -> Result<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut answering, _) = listener.accept()?;
    for end in [&stream, &answering] {
        end.set_nodelay(true)?;
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    thread::spawn(move || std::io::copy(&mut answering.try_clone()?, &mut answering));
    Ok(stream)
}

/// Beats on every connection and reads what comes: how many were cut off.
fn beat(mut streams: Vec<TcpStream>, over: &AtomicBool) -> Result<usize> {
    let all = streams.len();
    streams.iter().try_for_each(|stream| stream.set_nonblocking(true))?;
    let heartbeat = Dialect::V2.heartbeat(0);
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        streams.retain_mut(|stream| stream.write_all(&heartbeat).is_ok() && is_open(stream));
        sleep(HEALTHY_INTERVAL.saturating_sub(began.elapsed()));
    }
    Ok(all - streams.len())
}

/// Reads away what is there.
fn is_open(stream: &mut TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// The most memory that the process had, and the most that it said it keeps for strangers.
fn sample(pid: u32, mut bus: Bus, over: &AtomicBool) -> Result<(u64, u64)> {
    let (mut memory, mut accounted) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        memory = memory.max(proc::memory(pid));
        if let Ok(stats) = bus.stats() {
            accounted = accounted.max(stats.stats.memory.total as u64);
        }
        sleep(Duration::from_millis(50));
    }
    Ok((memory, accounted))
}

/// Takes what the server sends, so that it never waits for us.
fn read_away(stream: &TcpStream) -> Result<()> {
    let mut stream = stream.try_clone()?;
    stream.set_read_timeout(None)?;
    thread::spawn(move || while stream.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {});
    Ok(())
}

fn read_frame(stream: &mut TcpStream) -> Result<()> {
    let mut header = [0; 12];
    stream.read_exact(&mut header)?;
    let len = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    std::io::copy(&mut stream.take(len.into()), &mut std::io::sink())?;
    Ok(())
}

fn register(id: &str, metadata: &Value) -> Vec<u8> {
    let payload = json!({ "node_id": id, "metadata": metadata, "protocol": 2 });
    Dialect::V2.frame(FrameType::REGISTER, 0, payload.to_string().as_bytes())
}

/// What a server that has had enough does to the attacker is its right.
fn offer(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

/// Calls `step` until it says no, or time is up.
fn for_a_while(mut step: impl FnMut(usize) -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < LENGTH && step(count)? {
        count += 1;
    }
    Ok(())
}

fn frames(arena: &Arena) -> Result<()> {
    let mut body = br#"{"channel_id":0,"x":["#.to_vec();
    let unit = ["[".repeat(500), "]".repeat(500), ",".into()].concat();
    while body.len() < 10_400_000 {
        body.extend_from_slice(unit.as_bytes());
    }
    body.extend_from_slice(br#"1],"payload":"y"}"#);
    let mut frame = vec![0xAB, 0x12, FrameType::DATA.0];
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    let (last, most) = frame.split_last().expect("a frame has bytes");
    let mut streams = Vec::new();
    for _ in 0..60 {
        let mut stream = arena.connect()?;
        stream.set_write_timeout(Some(PATIENCE))?;
        if offer(&mut stream, most) {
            streams.push(stream);
        }
    }
    for stream in &mut streams {
        offer(stream, &[*last]);
    }
    sleep(LENGTH);
    Ok(())
}

fn heartbeats(arena: &Arena) -> Result<()> {
    let mut stream = arena.registered("hub-0", &json!([]))?;
    read_away(&stream)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    for node in 1..10_000 {
        stream.write_all(&register(&format!("hub-{node}"), &json!([])))?;
    }
    let storm = Dialect::V2.frame(FrameType::HEARTBEAT_REQ, 0, b"").repeat(256 * 1024 / 12);
    offer(&mut stream, &storm);
    sleep(LENGTH);
    Ok(())
}

fn crumbs(arena: &Arena) -> Result<()> {
    let frame = Dialect::V2.data(&vec![b'x'; 4 << 20]);
    let mut streams = (0..100).map(|_| arena.connect()).collect::<Result<Vec<_>>>()?;
    let mut crumbs = frame.chunks(11);
    for_a_while(|_| {
        let Some(crumb) = crumbs.next() else { return Ok(false) };
        streams.retain_mut(|stream| offer(stream, crumb));
        Ok(true)
    })
}

fn capacity(arena: &Arena) -> Result<()> {
    let mut large = Dialect::V2.data(&vec![b'x'; 8 << 20]);
    large.extend_from_slice(&Dialect::V2.heartbeat(0)[..20]);
    let mut streams = Vec::new();
    for_a_while(|count| {
        let mut stream = arena.connect()?;
        if offer(&mut stream, &large) {
            streams.push(stream);
        }
        Ok(count < 200)
    })
}

fn broadcasts(arena: &Arena) -> Result<()> {
    let _deaf = arena.registered("deaf", &json!([]))?;
    let mut bus = arena.bus()?;
    for_a_while(|count| {
        bus.broadcast(b"x").map_err(|error| Error::new(error.to_string()))?;
        Ok(count < 50_000)
    })
}

fn held(arena: &Arena) -> Result<()> {
    let mut streams = Vec::new();
    for peer in 0..8 {
        let mut stream = arena.connect()?;
        // Asked for in v1: agreed on, and not spoken yet.
        stream.write_all(&Dialect::V1.frame(FrameType::REGISTER, 0, format!(r#"{{"node_id":"mute-{peer}","protocol":2}}"#).as_bytes()))?;
        streams.push(stream);
    }
    let mut bus = arena.bus()?;
    for_a_while(|count| {
        // Refused, or nobody there any more: both are answers.
        let _ = bus.send_to(&format!("mute-{}", count % 8), &[0xFF; 100_000], 0);
        Ok(count < 400)
    })
}

fn metadata(arena: &Arena) -> Result<()> {
    let mut stream = arena.connect()?;
    read_away(&stream)?;
    let long = json!(["m".repeat(60_000)]);
    for_a_while(|count| Ok(count < 10_000 && offer(&mut stream, &register(&format!("fat-{count}"), &long))))
}

fn registrations(arena: &Arena) -> Result<()> {
    let mut stream = arena.connect()?;
    read_away(&stream)?;
    let mut come_and_go = register("restless", &json!(["m".repeat(60_000)]));
    come_and_go.extend_from_slice(&Dialect::V2.frame(FrameType::UNREGISTER, 0, b""));
    for_a_while(|count| Ok(count < 5_000 && offer(&mut stream, &come_and_go)))
}

fn deaf(arena: &Arena) -> Result<()> {
    let mut streams = (0..50).map(|peer| arena.registered(&format!("deaf-{peer}"), &json!([]))).collect::<Result<Vec<_>>>()?;
    streams.iter().try_for_each(|stream| stream.set_nonblocking(true))?;
    let questions = Dialect::V2.heartbeat(0).repeat(1000);
    for_a_while(|_| {
        streams.iter_mut().for_each(|stream| _ = stream.write(&questions));
        Ok(true)
    })
}

fn doors(arena: &Arena) -> Result<()> {
    for_a_while(|count| {
        let mut stream = arena.connect()?;
        offer(&mut stream, &register(&format!("passer-{count}"), &json!([])));
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(count < 5_000)
    })
}

fn garbage(arena: &Arena) -> Result<()> {
    let mut streams: Vec<Option<TcpStream>> = (0..20).map(|_| None).collect();
    let mut random = fastrand::Rng::with_seed(1);
    for_a_while(|_| {
        for place in &mut streams {
            let stream = match place {
                Some(stream) => stream,
                None => place.insert(arena.connect()?),
            };
            let mut bytes = Dialect::V1.data(b"x").repeat(50);
            // Anything after the magic, which is right most of the time.
            for frame in bytes.chunks_mut(40) {
                let from = if random.u8(..) < 8 { 0 } else { 7.min(frame.len()) };
                frame[from..].iter_mut().for_each(|byte| *byte = random.u8(..));
            }
            if !offer(stream, &bytes) || stream.set_nonblocking(true).is_err() || !is_open(stream) {
                *place = None;
            } else {
                stream.set_nonblocking(false)?;
            }
        }
        Ok(true)
    })
}

const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: heartbus.v2\r\n\r\n";

fn websockets(arena: &Arena) -> Result<()> {
    // With a mask of zeros. The first fragment of a message, and one that goes on.
    let begin = [0x02, 0x80, 0, 0, 0, 0];
    let fragment = [&[0x00, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0; 65_536]].concat();
    let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(2_000);
    let wrong = [0x83, 0x80, 0, 0, 0, 0];
    let mut streams: Vec<Option<TcpStream>> = (0..40).map(|_| None).collect();
    for_a_while(|round| {
        for (number, place) in streams.iter_mut().enumerate() {
            let stream = match place {
                Some(stream) => stream,
                None => {
                    let mut stream = arena.connect()?;
                    offer(&mut stream, UPGRADE);
                    offer(&mut stream, &begin);
                    place.insert(stream)
                }
            };
            let is_sent = match number % 4 {
                0 | 1 => offer(stream, &fragment),
                2 => offer(stream, &pings),
                _ => offer(stream, if round % 8 == 7 { &wrong } else { &begin[..3] }),
            };
            // Those that ping do not read.
            let is_gone = number % 4 != 2 && (stream.set_nonblocking(true).is_err() || !is_open(stream));
            if !is_sent || is_gone {
                *place = None;
            } else {
                stream.set_nonblocking(false)?;
            }
        }
        Ok(true)
    })
}

fn stopped(arena: &Arena) -> Result<()> {
    let mut stream = arena.registered("busy", &json!([]))?;
    read_away(&stream)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let beats = Dialect::V2.heartbeat(0).repeat(1000);
    let busy = Beside::start(move |over| {
        while !over.load(Ordering::Relaxed) && offer(&mut stream, &beats) {}
        Ok(())
    });
    sleep(LENGTH / 4);
    arena.signal(Signal::STOP)?;
    sleep(STOP);
    arena.signal(Signal::CONT)?;
    sleep(LENGTH / 4);
    busy.end()
}
