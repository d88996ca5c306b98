//! Limited links on loopback, for servers that know no limits themselves: a proxy between a client and a server.
//!
//! *Purpose*: what the swarm's nodes do to themselves with `--limit-up` and `--limit-down` is done to the others from
//! outside, by the same [`Pacer`]. *Invariants*: what a server sends waits for its uplink, which all its clients share,
//! then for the client's downlink; requests go the other way round. *Bounds*: a slice of the rate a direction in memory.

use crate::node::Pacer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// A machine's connection to the network.
#[derive(Debug)]
pub(super) struct Link {
    up: Pacer,
    down: Pacer,
    sent_bytes: AtomicU64,
}

impl Link {
    /// As fast up as down.
    pub fn new(bytes_per_sec: u64) -> Arc<Self> {
        let pacer = || Pacer::new(bytes_per_sec);
        Arc::new(Self { up: pacer(), down: pacer(), sent_bytes: AtomicU64::new(0) })
    }

    /// What has gone up.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Relaxed)
    }

    async fn carry(&self, to: &Self, bytes: usize) {
        self.up.take(bytes).await;
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
        to.down.take(bytes).await;
    }
}

/// The way from one client to a server; it closes when this is dropped.
#[derive(Debug)]
pub(super) struct Route {
    address: SocketAddr,
    task: AbortHandle,
}

impl Route {
    /// Opens the way to `server`, over both their links.
    pub async fn open(server: SocketAddr, server_link: Arc<Link>, client_link: Arc<Link>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            // Dropped with the task, it ends the connections.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connect(client, server, server_link.clone(), client_link.clone()));
            }
        });
        Ok(Self { address, task: task.abort_handle() })
    }

    /// Where the client finds the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(client: TcpStream, server: SocketAddr, server_link: Arc<Link>, client_link: Arc<Link>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    // Either side may close first; the other learns of it when its half is dropped.
    let _ = tokio::join!(
        pump(client_read, server_write, &client_link, &server_link),
        pump(server_read, client_write, &server_link, &client_link)
    );
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    sender: &Link,
    receiver: &Link,
) -> io::Result<()> {
    let mut slice = vec![0; sender.up.slice_bytes()];
    loop {
        let bytes = from.read(&mut slice).await?;
        if bytes == 0 {
            return to.shutdown().await;
        }
        sender.carry(receiver, bytes).await;
        to.write_all(&slice[..bytes]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn clients_share_the_servers_uplink() {
        const BYTES: usize = 100_000;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move { client.write_all(&[7; BYTES]).await });
            }
        });
        let server = Link::new(1_000_000);
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..2 {
            let route = Route::open(address, server.clone(), Link::new(1_000_000)).await.unwrap();
            clients.spawn(async move {
                let mut got = Vec::new();
                TcpStream::connect(route.address()).await.unwrap().read_to_end(&mut got).await.unwrap();
                assert_eq!(got, [7; BYTES]);
            });
        }
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
        // 200 kB at 1 MB/s; less the burst and the last slices.
        assert!(began.elapsed() > Duration::from_millis(180), "{:?}", began.elapsed());
        assert_eq!(server.sent_bytes(), 2 * BYTES as u64);
    }
}
