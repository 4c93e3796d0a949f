//! Listening sockets: names to addresses, one socket per I/O thread on one port, which no other server shares, clear
//! refusals.

use crate::descriptor::{lift, off_the_standard_streams};
use crate::error::{Error, ErrorKind, reason};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// Binds `count` sockets to one port; the kernel spreads new connections over them. Of servers that ask for a port at the same
/// time, in whichever processes and of whichever users, exactly one gets it.
pub(super) fn bind(host: &str, port: u16, count: usize) -> Result<Vec<std::net::TcpListener>, Error> {
    at_first_address(host, port, |address| share(address, count))
}

/// Whether the port could be listened on now. Does not listen itself: whoever starts in this moment would be refused by that.
pub(crate) fn probe(host: &str, port: u16) -> Result<(), Error> {
    at_first_address(host, port, |address| open(address).map(drop))
}

/// Does it with the first of the name's addresses where that is possible.
fn at_first_address<T>(host: &str, port: u16, attempt: impl Fn(SocketAddr) -> io::Result<T>) -> Result<T, Error> {
    let mut refusal = io::Error::new(io::ErrorKind::NotFound, "host name has no address");
    for address in resolve(host, port).map_err(|error| refuse(host, port, &error))? {
        match attempt(address) {
            Ok(done) => return Ok(done),
            Err(error) => refusal = error,
        }
    }
    Err(refuse(host, port, &refusal))
}

/// The first socket takes the port for itself alone: where two were bound, the kernel lets one of them listen. Then it lets
/// others share the port, if they ask for that as they are bound. Ours do, and no server that is only starting does.
fn share(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let first = open(address)?;
    first.listen(BACKLOG)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    first.set_reuse_port(true)?;
    let mut listeners = vec![first];
    for _ in 1..count {
        let socket = prepare(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SockAddr::from(address))?;
        socket.listen(BACKLOG)?;
        listeners.push(socket);
    }
    Ok(listeners.into_iter().map(Into::into).collect())
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

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = prepare(address)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn prepare(address: SocketAddr) -> io::Result<Socket> {
    let socket = lift(Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?)?;
    // Connections of a server that has just ended must not keep the port from its successor.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit these, and no connection needs a system call of its own: small frames leave at once, and urgent
    // data is data like any other, where the kernel would take a byte out of the stream.
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    Ok(socket)
}

fn shown(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn every_socket_of_a_port_gets_its_share_of_the_connections_the_first_one_too() {
        let listeners = bind("127.0.0.1", 0, 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        let _peers: Vec<_> = (0..300).map(|_| TcpStream::connect(address).unwrap()).collect();
        let shares: Vec<_> = listeners.iter().map(|listener| std::iter::from_fn(|| listener.accept().ok()).count()).collect();
        // By chance no share is as small as this in a thousand years.
        assert!(shares.iter().all(|share| *share > 30) && shares.iter().sum::<usize>() == 300, "{shares:?}");
    }
}
