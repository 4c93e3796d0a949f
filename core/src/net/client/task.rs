//! The task of one client: dials, reads and writes, and does what its machine says.
//!
//! Owns the socket and the timers of a connection. What a panic in here would leave behind is a client that is dead and tells
//! nobody: so it is caught, told as the end of the connection, and the client goes on with the next.

use super::{ClientShared, dial};
use crate::hub::Now;
use crate::hub::client::{ClientMachine, ClientPhase, SocketEnd};
use crate::model::ErrorCause;
use crate::net::survive;
use socket2::SockRef;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const READ_BUFFER: usize = 64 * 1024;

/// How long a disconnected client waits for the server to close its side, so that nothing said last is lost to a reset.
const LINGER: Duration = Duration::from_millis(250);

thread_local! {
    /// All clients of a thread read into it, one after the other.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER].into());
}

impl ClientShared {
    /// The whole life of a client.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let Err(why) = survive(self.live()).await else { return };
            tracing::error!(client_id = self.id, "The task of a client panicked: {why}");
            if catch_unwind(AssertUnwindSafe(|| self.with(|machine, now| machine.handle_failure(why, now)))).is_err() {
                return self.give_up();
            }
        }
    }

    async fn live(self: &Arc<Self>) {
        loop {
            let (phase, wait) = self.with(|machine, now| (machine.phase(), wait_until(machine.deadline(), now)));
            match phase {
                ClientPhase::Dial => {
                    // Boxed, because most of a client's life is spent without it.
                    if let Some(stream) = Box::pin(self.dial()).await {
                        let end = self.serve(stream).await;
                        self.with(|machine, now| machine.handle_closed(end, now));
                    }
                }
                // Without a socket, for `serve` has returned.
                ClientPhase::Open | ClientPhase::Flush | ClientPhase::HangUp => {
                    self.with(|machine, now| machine.handle_closed(SocketEnd::Closed, now));
                }
                ClientPhase::Wait => tokio::select! {
                    () = sleep(wait) => self.with(ClientMachine::handle_timeout),
                    () = self.wake.notified() => {}
                },
                ClientPhase::Finished => return,
            }
        }
    }

    /// Tries to connect, unless the host wants the client to disconnect meanwhile.
    async fn dial(self: &Arc<Self>) -> Option<TcpStream> {
        let (host, port) = {
            let machine = self.machine();
            (machine.settings().host.clone(), machine.settings().port)
        };
        let mut connecting = pin!(dial::connect(&self.fleet.resolver, &host, port, self.connect_timeout));
        loop {
            tokio::select! {
                result = &mut connecting => return match result {
                    Ok(stream) => {
                        self.with(ClientMachine::handle_connected);
                        Some(stream)
                    }
                    Err(error) => {
                        self.with(|machine, now| machine.handle_connect_failed(cause(&error), error.to_string(), now));
                        None
                    }
                },
                () = self.wake.notified() => {
                    if self.machine().phase() != ClientPhase::Dial {
                        return None;
                    }
                }
            }
        }
    }

    /// Serves a connection until it is over, whoever ends it.
    async fn serve(self: &Arc<Self>, mut stream: TcpStream) -> SocketEnd {
        let (mut reader, writer) = stream.split();
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut armed = None;
        let mut end = SocketEnd::Closed;
        loop {
            let (phase, deadline, wait, is_reading, is_writing) = self.with(|machine, now| {
                write(writer.as_ref(), machine, now);
                let wait = wait_until(machine.deadline(), now);
                (machine.phase(), machine.deadline(), wait, machine.is_reading(), !machine.outbox().is_empty())
            });
            match phase {
                ClientPhase::Open => {}
                ClientPhase::Flush if is_writing => {}
                ClientPhase::Flush => {
                    linger(&mut reader).await;
                    break;
                }
                _ => break,
            }
            if armed != deadline {
                armed = deadline;
                timer.as_mut().reset(Instant::now() + wait);
            }
            tokio::select! {
                over = poll_fn(|cx| self.poll_read_whole(cx, &mut reader)), if is_reading => {
                    if let Some(over) = over {
                        end = over;
                        break;
                    }
                }
                // What comes of it shows in the next write.
                _ = writer.writable(), if is_writing => {}
                () = self.wake.notified() => {}
                () = &mut timer => {
                    // The timer runs once per value, even if the machine does not move its deadline.
                    armed = None;
                    if self.machine().awaits_reply() && let (_, Some(over)) = self.read_at_once(reader.as_ref()) {
                        end = over;
                        break;
                    }
                    self.with(ClientMachine::handle_timeout);
                }
            }
        }
        // Not only dropped: a process that was forked off this one may hold a copy of the descriptor.
        let _ = SockRef::from(&stream).shutdown(Shutdown::Both);
        end
    }

    /// Reads once and says how the connection ended, if that was its end.
    fn poll_read(self: &Arc<Self>, cx: &mut Context<'_>, reader: &mut ReadHalf<'_>) -> Poll<Option<SocketEnd>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            let result = ready!(Pin::new(reader).poll_read(cx, &mut read));
            Poll::Ready(self.take(result.map(|()| read.filled())))
        })
    }

    /// As `poll_read`, and once more: at the mark of urgent data, which may stand between two frames as well, the kernel cuts a read
    /// off, and tells nobody that there is more. What comes after the second read is told again.
    fn poll_read_whole(self: &Arc<Self>, cx: &mut Context<'_>, reader: &mut ReadHalf<'_>) -> Poll<Option<SocketEnd>> {
        let over = ready!(self.poll_read(cx, reader));
        if over.is_some() || !self.machine().is_reading() {
            return Poll::Ready(over);
        }
        loop {
            let (len, over) = self.read_at_once(reader.as_ref());
            if over.is_some() || len < READ_BUFFER || !self.machine().is_reading() {
                return Poll::Ready(over);
            }
        }
    }

    /// As `poll_read`, and how much that was, but asks the socket itself: after the process was stopped for a while, timers run before the
    /// runtime has looked at the sockets, and a reply that is there already must be seen before the server is given up.
    fn read_at_once(self: &Arc<Self>, stream: &TcpStream) -> (usize, Option<SocketEnd>) {
        BUFFER.with_borrow_mut(|buffer| match rustix::io::read(stream, &mut **buffer) {
            Ok(len) => (len, self.take(Ok(&buffer[..len]))),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => (0, None),
            Err(error) => (0, self.take(Err(error.into()))),
        })
    }

    fn take(self: &Arc<Self>, read: io::Result<&[u8]>) -> Option<SocketEnd> {
        match read {
            Ok([]) => Some(SocketEnd::Closed),
            Ok(bytes) => {
                self.with(|machine, _| machine.handle_bytes(bytes));
                None
            }
            Err(error) => Some(SocketEnd::Lost(error.to_string())),
        }
    }
}

/// Writes everything that waits, or as much as the socket takes.
fn write(stream: &TcpStream, machine: &mut ClientMachine, now: Now) {
    loop {
        machine.fill_outbox(now);
        if machine.outbox().is_empty() {
            return;
        }
        match stream.try_write(machine.outbox()) {
            Ok(len) => machine.handle_written(len, now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return machine.handle_written(0, now),
            Err(error) => machine.handle_write_failed(cause(&error), error.to_string(), now),
        }
    }
}

/// Ends our side, and waits a moment for the server to end its own.
async fn linger(reader: &mut ReadHalf<'_>) {
    if SockRef::from(reader.as_ref()).shutdown(Shutdown::Write).is_err() {
        return;
    }
    let rest = poll_fn(|cx| {
        BUFFER.with_borrow_mut(|buffer| {
            loop {
                let mut read = ReadBuf::new(buffer);
                let result = ready!(Pin::new(&mut *reader).poll_read(cx, &mut read));
                if result.is_err() || read.filled().is_empty() {
                    return Poll::Ready(());
                }
            }
        })
    });
    // Its closing or our patience: both end it.
    let _ = timeout(LINGER, rest).await;
}

fn wait_until(deadline: Option<u64>, now: Now) -> Duration {
    // Without a deadline nobody waits.
    Duration::from_micros(deadline.unwrap_or(now.mono).saturating_sub(now.mono))
}

fn cause(error: &io::Error) -> ErrorCause {
    use rustix::io::Errno;
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorCause::Refused,
        io::ErrorKind::NotFound => ErrorCause::NoSuchHost,
        io::ErrorKind::TimedOut => ErrorCause::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => ErrorCause::Unreachable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => {
            ErrorCause::Lost
        }
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory => ErrorCause::Exhausted,
        _ => match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::AGAIN) => ErrorCause::Exhausted,
            _ => ErrorCause::Other,
        },
    }
}
