//! From a host name to a connected socket. Knows nothing of clients and frames.

use crate::descriptor::lift;
use crate::net::resolve::Resolver;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

/// Connects to the first address of `host` that answers, within `limit` in total, which begins when the look-up of a name
/// does. `host` is an IPv4 or IPv6 address, with or without brackets, or a name.
pub(in crate::net) async fn connect(resolver: &Resolver, host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let (addresses, since) = match bare.parse::<IpAddr>() {
        Ok(address) => ([SocketAddr::new(address, port)].into(), Instant::now()),
        Err(_) => resolver.resolve(bare, limit).await?,
    };
    let deadline = since + limit;
    let mut failure = timed_out();
    for (index, mut address) in addresses.iter().copied().enumerate() {
        address.set_port(port);
        // An address that swallows packets must leave time for the others.
        let left = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - index) as u32;
        match timeout(left, connect_to(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = timed_out(),
        }
    }
    Err(failure)
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    let stream = TcpSocket::from_std_stream(lift(socket)?.into()).connect(address).await?;
    // Where nobody listens on a port of the ephemeral range, the system may pick the very same port for our side, and
    // the socket is connected to itself.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_keepalive(true)?;
    // Urgent data is data like any other; the kernel would take a byte out of the stream.
    socket.set_out_of_band_inline(true)?;
    Ok(stream)
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}
