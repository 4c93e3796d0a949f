//! What strangers do within their limits, each kind for a few seconds.

use super::arena::{Arena, PATIENCE, read_away, register};
use super::beside::{Beside, is_open};
use crate::protocol::Dialect;
use crate::{Error, Result};
use heartbus_core::wire::FrameType;
use rustix::process::Signal;
use serde_json::json;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// As long as the process is stopped, where that is the attack.
pub(super) const STOP: Duration = Duration::from_secs(3);
/// How long one attack goes on where it does not end by itself.
const LENGTH: Duration = Duration::from_secs(4);

/// What a server that has had enough does to the attacker is its right.
pub(super) fn offer(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

/// Calls `step` until it says no, or time is up.
pub(super) fn for_a_while(mut step: impl FnMut(usize) -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < LENGTH && step(count)? {
        count += 1;
    }
    Ok(())
}

pub(super) fn frames(arena: &Arena) -> Result<()> {
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

pub(super) fn heartbeats(arena: &Arena) -> Result<()> {
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

pub(super) fn crumbs(arena: &Arena) -> Result<()> {
    let frame = Dialect::V2.data(&vec![b'x'; 4 << 20]);
    let mut streams = (0..100).map(|_| arena.connect()).collect::<Result<Vec<_>>>()?;
    let mut crumbs = frame.chunks(11);
    for_a_while(|_| {
        let Some(crumb) = crumbs.next() else { return Ok(false) };
        streams.retain_mut(|stream| offer(stream, crumb));
        Ok(true)
    })
}

pub(super) fn capacity(arena: &Arena) -> Result<()> {
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

pub(super) fn broadcasts(arena: &Arena) -> Result<()> {
    let _deaf = arena.registered("deaf", &json!([]))?;
    let mut bus = arena.bus()?;
    for_a_while(|count| {
        bus.broadcast(b"x").map_err(|error| Error::new(error.to_string()))?;
        Ok(count < 50_000)
    })
}

pub(super) fn held(arena: &Arena) -> Result<()> {
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

pub(super) fn metadata(arena: &Arena) -> Result<()> {
    let mut stream = arena.connect()?;
    read_away(&stream)?;
    let long = json!(["m".repeat(60_000)]);
    for_a_while(|count| Ok(count < 10_000 && offer(&mut stream, &register(&format!("fat-{count}"), &long))))
}

pub(super) fn registrations(arena: &Arena) -> Result<()> {
    let mut stream = arena.connect()?;
    read_away(&stream)?;
    let mut come_and_go = register("restless", &json!(["m".repeat(60_000)]));
    come_and_go.extend_from_slice(&Dialect::V2.frame(FrameType::UNREGISTER, 0, b""));
    for_a_while(|count| Ok(count < 5_000 && offer(&mut stream, &come_and_go)))
}

pub(super) fn deaf(arena: &Arena) -> Result<()> {
    let mut streams = (0..50).map(|peer| arena.registered(&format!("deaf-{peer}"), &json!([]))).collect::<Result<Vec<_>>>()?;
    streams.iter().try_for_each(|stream| stream.set_nonblocking(true))?;
    let questions = Dialect::V2.heartbeat(0).repeat(1000);
    for_a_while(|_| {
        streams.iter_mut().for_each(|stream| _ = stream.write(&questions));
        Ok(true)
    })
}

pub(super) fn doors(arena: &Arena) -> Result<()> {
    for_a_while(|count| {
        let mut stream = arena.connect()?;
        offer(&mut stream, &register(&format!("passer-{count}"), &json!([])));
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(count < 5_000)
    })
}

pub(super) fn garbage(arena: &Arena) -> Result<()> {
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

pub(super) const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: heartbus.v2\r\n\r\n";

pub(super) fn websockets(arena: &Arena) -> Result<()> {
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

pub(super) fn stopped(arena: &Arena) -> Result<()> {
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
