//! The floor: what a server costs that does nothing but wait, read, and write.
//!
//! A bare epoll loop. It parses nothing; it reads the length of each frame to know where the next begins, and answers each
//! with the same bytes. Instead it may answer one frame to everybody, or to everybody else, with a plain loop of writes.

use crate::protocol::Dialect;
use heartbus_core::wire::FrameType;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::net::{SocketFlags, accept_with, sockopt};
use rustix::{io, net};
use slab::Slab;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;

const LISTENER: u64 = u64::MAX;
/// One read brings at most as many frames as fit into the buffer.
const BUFFER: usize = 64 * 1024;

/// What each frame is answered with.
#[derive(Copy, Clone, Debug)]
pub enum Reply {
    Heartbeat,
    Register,
    /// 64 bytes of data: to every connection where data came, to whoever sent it else.
    Broadcast,
    /// The same, but not to whoever sent it.
    Publish,
}

struct FloorConnection {
    socket: OwnedFd,
    /// Bytes of the frame in progress that are still to come, once its header is complete.
    skip: u32,
    header: [u8; 12],
    have: u8,
}

/// On `threads` threads, each with a listener and connections of its own, as the engine's I/O threads.
pub fn serve(port: u16, dialect: Dialect, reply: Reply, threads: usize) -> std::io::Result<()> {
    let others: Vec<_> = (1..threads).map(|_| thread::spawn(move || serve_one(port, dialect, reply))).collect();
    let result = serve_one(port, dialect, reply);
    others.into_iter().try_for_each(|other| other.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked"))))?;
    result
}

fn serve_one(port: u16, dialect: Dialect, reply: Reply) -> std::io::Result<()> {
    let answer = match reply {
        Reply::Heartbeat => dialect.frame(FrameType::HEARTBEAT_RES, 0, br#"{"timestamp":1700000000.123456}"#),
        Reply::Register => dialect.frame(
            FrameType::REGISTER,
            0,
            br#"{"node_id":"node-00000000","metadata":{"channel_id":12345,"status":"ok","server_time":1700000000.123456},"timestamp":1700000000.123456,"channel_id":12345}"#,
        ),
        Reply::Broadcast | Reply::Publish => dialect.data(&[b'x'; 64]),
    };
    let answers = answer.repeat(BUFFER / dialect.header().0 + 1);
    let listener = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    sockopt::set_socket_reuseport(&listener, true)?;
    net::bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    net::listen(&listener, 4096)?;
    io::ioctl_fionbio(&listener, true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut connections: Slab<FloorConnection> = Slab::new();
    let mut events = Vec::with_capacity(1024);
    let mut buffer = vec![0; BUFFER];
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let token = event.data.u64();
            if token == LISTENER {
                while let Ok(socket) = accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    sockopt::set_tcp_nodelay(&socket, true)?;
                    let entry = connections.vacant_entry();
                    epoll::add(&epoll, &socket, epoll::EventData::new_u64(entry.key() as u64), epoll::EventFlags::IN)?;
                    entry.insert(FloorConnection { socket, skip: 0, header: [0; 12], have: 0 });
                }
                continue;
            }
            let slot = token as usize;
            let Some(connection) = connections.get_mut(slot) else { continue };
            match io::read(&connection.socket, &mut buffer) {
                Err(io::Errno::AGAIN | io::Errno::INTR) => {}
                Ok(0) | Err(_) => drop(connections.remove(slot)),
                Ok(count) => {
                    let frames = connection.frames(&buffer[..count], dialect);
                    if frames == 0 {
                        continue;
                    }
                    if matches!(reply, Reply::Broadcast | Reply::Publish) && connection.header[2] == FrameType::DATA.0 {
                        let left_out = matches!(reply, Reply::Publish).then_some(slot);
                        for _ in 0..frames {
                            // A peer that is gone, or full, is not our concern.
                            for (_, other) in connections.iter().filter(|(other, _)| Some(*other) != left_out) {
                                let _ = io::write(&other.socket, &answer);
                            }
                        }
                    } else {
                        let _ = io::write(&connection.socket, &answers[..frames * answer.len()]);
                    }
                }
            }
        }
    }
}

impl FloorConnection {
    /// How many frames began in these bytes, with their headers whole.
    fn frames(&mut self, mut bytes: &[u8], dialect: Dialect) -> usize {
        let (size, at) = dialect.header();
        let mut frames = 0;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = bytes.len().min(self.skip as usize);
                self.skip -= skipped as u32;
                bytes = &bytes[skipped..];
                continue;
            }
            let have = usize::from(self.have);
            let taken = bytes.len().min(size - have);
            self.header[have..have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken as u8;
            bytes = &bytes[taken..];
            if usize::from(self.have) == size {
                let [a, b, c, d] = [at, at + 1, at + 2, at + 3].map(|index| self.header[index]);
                self.skip = u32::from_be_bytes([a, b, c, d]);
                self.have = 0;
                frames += 1;
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_wherever_reads_split_them() {
        let stream = [Dialect::V1.heartbeat(0), Dialect::V1.data(b"hello"), Dialect::V1.heartbeat(0)].concat();
        let (socket, _) = net::socketpair(net::AddressFamily::UNIX, net::SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a pair");
        let mut connection = FloorConnection { socket, skip: 0, header: [0; 12], have: 0 };
        for split in 1..stream.len() {
            let frames: usize = stream.chunks(split).map(|chunk| connection.frames(chunk, Dialect::V1)).sum();
            assert_eq!((frames, connection.skip, connection.have), (3, 0, 0), "in pieces of {split}");
        }
    }
}
