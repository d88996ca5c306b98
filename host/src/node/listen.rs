//! Strangers that come: told apart, greeted, and handed to the node whose image they ask for.
//!
//! *Purpose*: one port serves any number of images, by the image named in `Hello`.
//! *Invariants*: a connection reaches a node only with a well-formed `Hello` for its image; one that does not gets at most
//! a farewell. Without `--open` only this machine can connect.
//! *Bounds*: [`GREETINGS_MAX`] connections that have not said what they want, each for at most [`GREETING_TIMEOUT`];
//! after that those of the node.

use super::NodeError;
use super::handle::NodeHandle;
use super::link::{READ_BYTES, Rates};
use super::socket::{GREETING_TIMEOUT, LinkError, Socket, accept, listen};
use crate::digest::to_hex;
use crate::log;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use swarmdisk_core::ids::Digest;
use swarmdisk_core::wire::{Decoded, Farewell, Frame, HEAD_BYTES_MAX, decode, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Duration, sleep, timeout};

const GREETINGS_MAX: usize = 256;
/// After an error that is not one connection's: too many open files, for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TURN_AWAY_MAX: Duration = Duration::from_secs(1);

/// A port on which nodes are reached; nobody is let in before [`serve`](Self::serve), and none after it is dropped.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    socket: TcpListener,
}

/// Lets others in until it is dropped.
#[derive(Debug)]
pub struct Serving {
    task: AbortHandle,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// Takes a port; 0: any. `rates` are those of the nodes to be served.
    ///
    /// # Errors
    /// [`NodeError::Exposed`] if others than this machine could connect and `is_open` is not set, [`NodeError::Listen`].
    pub fn bind(address: SocketAddr, is_open: bool, rates: &Rates) -> Result<Self, NodeError> {
        check_exposure(address, is_open)?;
        let failed = |source| NodeError::Listen { address, source };
        let socket = listen(address, rates).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { address, socket })
    }

    /// Where it listens, with the port that it was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets others in, to these nodes.
    pub fn serve(self, nodes: Vec<NodeHandle>) -> Serving {
        let routes: HashMap<Digest, NodeHandle> = nodes.into_iter().map(|node| (node.image(), node)).collect();
        Serving { task: tokio::spawn(accept_all(self.socket, Arc::new(routes))).abort_handle() }
    }
}

/// Whether a port may listen there: on this machine alone, or `is_open`.
///
/// # Errors
/// [`NodeError::Exposed`].
pub fn check_exposure(address: SocketAddr, is_open: bool) -> Result<(), NodeError> {
    if is_open || address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(NodeError::Exposed { address }) }
}

async fn accept_all(socket: TcpListener, routes: Arc<HashMap<Digest, NodeHandle>>) {
    let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
    loop {
        // More than that wait in the kernel's queue.
        let Ok(permit) = greetings.clone().acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, address)) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    receive(stream, address, &routes).await;
                    drop(permit);
                });
            }
            Err(error) => {
                log::warn(format_args!("cannot accept a connection: {error}"));
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn receive(stream: TcpStream, address: SocketAddr, routes: &HashMap<Digest, NodeHandle>) {
    let greeted = timeout(GREETING_TIMEOUT, async {
        let mut socket = accept(stream, address).await?;
        let image = read_image(&mut socket).await?;
        Ok((socket, image))
    });
    match greeted.await.unwrap_or(Err(LinkError::Silent { address, after: GREETING_TIMEOUT })) {
        Ok((socket, image)) => match routes.get(&image) {
            Some(node) => node.arrive(socket).await,
            None => {
                log::info(format_args!("{address} asks for image {}, which is not served here", to_hex(&image)));
                turn_away(socket, Farewell::UnknownImage).await;
            }
        },
        Err(error @ (LinkError::Foreign { .. } | LinkError::Encrypted { .. })) => {
            log::warn(format_args!("connection closed: {error}"));
        }
        Err(error) => log::debug(format_args!("connection closed: {error}")),
    }
}

/// Reads until the first frame is there; it stays in the buffer. It must be `Hello`.
async fn read_image(socket: &mut Socket) -> Result<Digest, LinkError> {
    let address = socket.address;
    loop {
        match decode(&socket.received) {
            Ok(Decoded::Frame { frame: Frame::Hello(hello), .. }) => return Ok(hello.image),
            Ok(Decoded::Frame { .. }) => {
                return Err(LinkError::Foreign { address, spoke: "a frame before its greeting".to_owned() });
            }
            Ok(Decoded::NeedMore { .. }) => {}
            Err(error) => return Err(LinkError::Foreign { address, spoke: format!("something else ({error})") }),
        }
        // `decode` never asks for more than a head.
        let most = READ_BYTES.max(HEAD_BYTES_MAX) as u64;
        let count = (&mut socket.stream).take(most).read_buf(&mut socket.received).await;
        match count {
            Ok(0) => {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                return Err(LinkError::Broken { address, source });
            }
            Ok(_) => {}
            Err(source) => return Err(LinkError::Broken { address, source }),
        }
    }
}

/// Says why there will be no link, and closes the connection.
pub(crate) async fn turn_away(mut socket: Socket, farewell: Farewell) {
    let mut head = [0; HEAD_BYTES_MAX];
    let Ok(bytes) = encode(&Frame::Bye(farewell), &mut head) else { return };
    let farewell = async {
        socket.stream.write_all(&head[..bytes]).await?;
        socket.stream.shutdown().await?;
        // Closed with unread bytes, the connection would be reset and the farewell lost.
        let mut rest = [0; 1024];
        while socket.stream.read(&mut rest).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // Whether they hear it is their affair.
    let _ = timeout(TURN_AWAY_MAX, farewell).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_unless_open() {
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(check_exposure(address.parse().unwrap(), false).is_ok());
        }
        for address in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "[2001:db8::1]:1"] {
            let error = check_exposure(address.parse().unwrap(), false).unwrap_err().to_string();
            assert!(error.contains("--open") && !error.contains('\n'), "{error}");
            assert!(check_exposure(address.parse().unwrap(), true).is_ok());
        }
    }
}
