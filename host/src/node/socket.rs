//! Sockets up to the point where frames begin: connecting, accepting, the preface, options.
//!
//! *Invariants*: whoever dialled speaks first, so a listener tells a stranger nothing. *Units*: bytes.
//! *Bounds*: [`CONNECT_TIMEOUT`] to connect, [`GREETING_TIMEOUT`] until the preface (and, for a listener, the first frame)
//! is there; what is read ahead is at most [`READ_BYTES`].

use super::link::{READ_BYTES, Rates};
use bytes::{Buf, BytesMut};
#[cfg(target_os = "linux")]
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use swarmdisk_core::ids::Address;
use swarmdisk_core::wire::{LinkKind, PREFACE_BYTES, Preface, check_preface, preface};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Duration, timeout};

/// How long a connection may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the other side may take for its preface.
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes given to the kernel and not on the wire above which it takes no more: what it has, no demand can overtake.
#[cfg(target_os = "linux")]
const NOTSENT_BYTES: u32 = 16 * 1024;
/// Receive buffer of a socket whose rate is limited, in bytes: it must not hide the limit from the sender.
const RECEIVE_BYTES_LIMITED: u32 = 64 * 1024;
const BACKLOG: u32 = 1024;
/// How much of what a stranger said is shown.
const SPOKE_BYTES: usize = 24;

/// A connection behind the preface.
#[derive(Debug)]
pub(crate) struct Socket {
    pub stream: TcpStream,
    /// The other end.
    pub address: SocketAddr,
    /// What has been read already.
    pub received: BytesMut,
}

/// Why there is no link. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// No connection.
    #[error("cannot reach {address}: {source}; check the address and that a node listens there")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The other side takes too long.
    #[error("{address} did not answer within {} s; check that a node listens there", .after.as_secs())]
    Silent {
        /// Who.
        address: SocketAddr,
        /// How long it was waited for.
        after: Duration,
    },
    /// The other side closed the connection, or it broke, before the first frame.
    #[error("{address} broke the connection off before its greeting: {source}")]
    Broken {
        /// Who.
        address: SocketAddr,
        /// How.
        source: io::Error,
    },
    /// The other side speaks another protocol.
    #[error("{address} does not speak the swarm's protocol but {spoke}; check the port")]
    Foreign {
        /// Who.
        address: SocketAddr,
        /// What it seems to speak.
        spoke: String,
    },
    /// The other side wants an encrypted link.
    #[error(
        "{address} wants encrypted links, which this version does not speak; reach it through a node that serves plain ones"
    )]
    Encrypted {
        /// Who.
        address: SocketAddr,
    },
}

/// Connects and exchanges prefaces.
///
/// # Errors
/// See [`LinkError`].
pub(crate) async fn dial(address: SocketAddr, rates: &Rates) -> Result<Socket, LinkError> {
    let failed = |source| LinkError::Connect { address, source };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    prepare(&socket, rates);
    let connected = timeout(CONNECT_TIMEOUT, socket.connect(address)).await;
    let stream = connected.map_err(|_| LinkError::Silent { address, after: CONNECT_TIMEOUT })?.map_err(failed)?;
    tune(&stream);
    greet(stream, address, true).await
}

/// A listening socket.
///
/// # Errors
/// Those of `bind` and `listen`.
pub(crate) fn listen(address: SocketAddr, rates: &Rates) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    prepare(&socket, rates);
    // On Unix a restarted node takes its port back at once; on Windows the option means that two may share it.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Exchanges prefaces on a connection that has come in.
///
/// # Errors
/// See [`LinkError`].
pub(crate) async fn accept(stream: TcpStream, address: SocketAddr) -> Result<Socket, LinkError> {
    tune(&stream);
    greet(stream, address, false).await
}

/// Takes a connection over from another thread's runtime: from now on this one hears when it is ready.
///
/// # Errors
/// Those of the system; the connection is closed then.
pub(crate) fn adopt(socket: Socket) -> io::Result<Socket> {
    let Socket { stream, address, received } = socket;
    Ok(Socket { stream: TcpStream::from_std(stream.into_std()?)?, address, received })
}

/// Before connecting or listening, since the window's scale is agreed upon then.
fn prepare(socket: &TcpSocket, rates: &Rates) {
    if rates.down.is_some() {
        // Without it the limit holds all the same, only later.
        let _ = socket.set_recv_buffer_size(RECEIVE_BYTES_LIMITED);
    }
}

fn tune(stream: &TcpStream) {
    // Both only improve latency: a kernel that refuses them will do.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(NOTSENT_BYTES);
}

async fn greet(mut stream: TcpStream, address: SocketAddr, dialled: bool) -> Result<Socket, LinkError> {
    let greeted = timeout(GREETING_TIMEOUT, async {
        let own = preface(LinkKind::Plain);
        let broken = |source| LinkError::Broken { address, source };
        if dialled {
            stream.write_all(&own).await.map_err(broken)?;
        }
        let received = read_preface(&mut stream, address).await?;
        if !dialled {
            stream.write_all(&own).await.map_err(broken)?;
        }
        Ok(received)
    });
    let received = greeted.await.map_err(|_| LinkError::Silent { address, after: GREETING_TIMEOUT })??;
    Ok(Socket { stream, address, received })
}

async fn read_preface(stream: &mut TcpStream, address: SocketAddr) -> Result<BytesMut, LinkError> {
    let broken = |source| LinkError::Broken { address, source };
    let mut received = BytesMut::with_capacity(READ_BYTES);
    loop {
        let count = (&mut *stream).take(READ_BYTES as u64).read_buf(&mut received).await.map_err(broken)?;
        if count == 0 {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        match check_preface(&received) {
            Ok(Preface::NeedMore) => {}
            Ok(Preface::Link(LinkKind::Plain)) => break,
            Ok(Preface::Link(LinkKind::Encrypted)) => return Err(LinkError::Encrypted { address }),
            Err(_) => return Err(LinkError::Foreign { address, spoke: what_is(&received) }),
        }
    }
    received.advance(PREFACE_BYTES);
    Ok(received)
}

/// What a stranger's first bytes look like.
fn what_is(bytes: &[u8]) -> String {
    let known: [(&[u8], &str); 9] = [
        (b"GET ", "HTTP"),
        (b"HEAD ", "HTTP"),
        (b"POST ", "HTTP"),
        (b"HTTP/", "HTTP"),
        (b"PRI ", "HTTP/2"),
        (b"SSH-", "SSH"),
        (b"\x16\x03", "TLS"),
        (b"NBDMAGIC", "NBD"),
        (b"swarmdk", "an unknown kind of swarm link"),
    ];
    match known.iter().find(|(start, _)| bytes.starts_with(start)) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("\"{}\"", bytes[..bytes.len().min(SPOKE_BYTES)].escape_ascii()),
    }
}

/// The core's form of an address.
pub(crate) fn to_address(address: SocketAddr) -> Address {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    Address { ip: ip.octets(), port: address.port() }
}

/// The host's form of an address.
pub(crate) fn to_socket_addr(address: Address) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(address.ip).to_canonical(), address.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_both_ways() {
        for text in ["127.0.0.1:80", "[::1]:7", "[2001:db8::1]:65535", "10.1.2.3:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(to_socket_addr(to_address(address)), address);
        }
    }

    #[test]
    fn strangers_are_named() {
        assert_eq!(what_is(b"GET / HTTP/1.1\r\n"), "HTTP");
        assert_eq!(what_is(b"\x00\xff"), "\"\\x00\\xff\"");
    }

    #[tokio::test]
    async fn a_dialler_and_a_listener_greet_each_other() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), &Rates::default()).unwrap();
        let address = listener.local_addr().unwrap();
        let dialler = tokio::spawn(async move { dial(address, &Rates::default()).await });
        let (stream, from) = listener.accept().await.unwrap();
        let accepted = accept(stream, from).await.unwrap();
        let dialled = dialler.await.unwrap().unwrap();
        assert!(accepted.received.is_empty() && dialled.received.is_empty());
    }

    #[tokio::test]
    async fn a_stranger_is_told_apart_and_told_nothing() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), &Rates::default()).unwrap();
        let mut stranger = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let (stream, from) = listener.accept().await.unwrap();
        let error = accept(stream, from).await.unwrap_err();
        assert!(matches!(&error, LinkError::Foreign { spoke, .. } if spoke == "HTTP"), "{error}");
        let mut answer = Vec::new();
        // The rest of the request was not read, so the connection may be reset.
        let _ = stranger.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
    }
}
