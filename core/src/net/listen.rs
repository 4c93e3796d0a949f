//! Listening sockets: names to addresses, one socket per I/O thread on one port, clear refusals.

use crate::descriptor::{lift, off_the_standard_streams};
use crate::error::{Error, ErrorKind, reason};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// Binds `count` sockets to one port; the kernel spreads new connections over them.
pub(super) fn bind(host: &str, port: u16, count: usize) -> Result<Vec<std::net::TcpListener>, Error> {
    let address = probe(host, port)?;
    (0..count).map(|_| listen(lift(open(address, true)?)?)).collect::<io::Result<_>>().map_err(|error| refuse(host, port, &error))
}

/// The address that the name stands for and that can be listened on now.
pub(crate) fn probe(host: &str, port: u16) -> Result<SocketAddr, Error> {
    let mut refusal = io::Error::new(io::ErrorKind::NotFound, "host name has no address");
    for address in resolve(host, port).map_err(|error| refuse(host, port, &error))? {
        // Without SO_REUSEPORT: with it, a port that another server already listens on would be shared in silence.
        match open(address, false).and_then(|probe| probe.local_addr()) {
            Ok(bound) => return Ok(bound.as_socket().unwrap_or(address)),
            Err(error) => refusal = error,
        }
    }
    Err(refuse(host, port, &refusal))
}

fn refuse(host: &str, port: u16, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("Cannot listen on {}: {}", shown(host, port), reason(error)))
}

/// Accepts IPv6 addresses with and without brackets.
fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(vec![SocketAddr::new(ip, port)]),
        Err(_) => off_the_standard_streams(|| Ok((bare, port).to_socket_addrs()?.collect())),
    }
}

fn open(address: SocketAddr, share_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a server that has just ended must not keep the port from its successor.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    socket.bind(&SockAddr::from(address))?;
    if !share_port {
        // A port can be bound while another socket listens on it; only listening tells.
        socket.listen(1)?;
    }
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<std::net::TcpListener> {
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it: small frames leave at once, and no connection needs a system call of its own.
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

fn shown(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
