//! Who watches beside an attack: the bystander, the healthy nodes, and what the server says of itself.

use super::arena::{PATIENCE, read_frame};
use crate::protocol::Dialect;
use crate::{Error, Result, proc};
use heartbus_core::bus::Bus;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

const HEALTHY_INTERVAL: Duration = Duration::from_millis(500);
const BYSTANDER_INTERVAL: Duration = Duration::from_millis(50);

/// What goes on beside the attack, until it is over.
pub(super) struct Beside<T> {
    thread: JoinHandle<Result<T>>,
    over: Arc<AtomicBool>,
}

impl<T: Send + 'static> Beside<T> {
    pub(super) fn start(run: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        Self { thread: thread::spawn(move || run(&seen)), over }
    }

    pub(super) fn end(self) -> Result<T> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::new("a thread beside the attack panicked"))?
    }
}

/// Beats, and waits for each answer: the longest wait, and the most that an I/O thread of `server` did meanwhile; `None` when it was cut
/// off.
pub(super) fn stand_by(mut stream: TcpStream, server: Option<u32>, over: &AtomicBool) -> Result<Option<(Duration, Duration)>> {
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
pub(super) fn echo() -> Result<TcpStream> {
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
pub(super) fn beat(mut streams: Vec<TcpStream>, over: &AtomicBool) -> Result<usize> {
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
pub(super) fn is_open(stream: &mut TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// The most memory that the process had, and the most that it said it keeps for strangers.
pub(super) fn sample(pid: u32, mut bus: Bus, over: &AtomicBool) -> Result<(u64, u64)> {
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
