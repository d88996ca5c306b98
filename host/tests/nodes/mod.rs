//! Nodes on loopback, for tests.
#![allow(dead_code)]

use bytes::Bytes;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use swarmdisk_core::engine::Fill;
use swarmdisk_core::ids::{Digest, GuestId};
use swarmdisk_core::wire::{Decoded, Frame, PREFACE_BYTES, decode};
use swarmdisk_host::disk::Disk;
use swarmdisk_host::node::{
    BootstrapOptions, Listener, Node, NodeHandle, NodeOptions, Rates, Serving, SwarmDisk, bootstrap,
};
use swarmdisk_host::store::Store;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const GUEST: GuestId = GuestId(0);
pub const LOCAL: &str = "127.0.0.1:0";

pub struct Running {
    pub handle: NodeHandle,
    pub address: SocketAddr,
    pub serving: Serving,
}

impl Running {
    /// Ends it, and lets nobody in any more.
    pub async fn end(self) {
        drop(self.serving);
        self.handle.shutdown().await;
    }

    pub fn disk(&self) -> SwarmDisk {
        SwarmDisk::new(self.handle.clone(), Duration::from_secs(20))
    }
}

pub async fn start(options: NodeOptions) -> Running {
    let listener = Listener::bind(LOCAL.parse().unwrap(), false, &options.rates).unwrap();
    let address = listener.address();
    let handle = Node::start(NodeOptions { advertise: Some(address), ..options }).await.unwrap();
    Running { serving: listener.serve(vec![handle.clone()]), handle, address }
}

pub fn seed_options(file: &Path) -> NodeOptions {
    NodeOptions::seed(Arc::new(Store::open_complete(file).unwrap()))
}

pub async fn seed(file: &Path) -> Running {
    start(seed_options(file)).await
}

pub fn asking(image: Digest, hosts: Vec<String>) -> BootstrapOptions {
    BootstrapOptions { image, hosts, rates: Rates::default(), patience: Duration::from_secs(10), wants_profile: true }
}

/// Options of a node with an empty cache in `dir`, which has asked the contacts for the manifest.
pub async fn node_options(dir: &TempDir, image: Digest, contacts: &[(SocketAddr, bool)]) -> NodeOptions {
    let hosts = contacts.iter().map(|(address, _)| address.to_string()).collect();
    let found = bootstrap(asking(image, hosts)).await.unwrap();
    let store = Arc::new(Store::open_cache(dir.path(), image, &found.manifest).unwrap());
    NodeOptions {
        contacts: contacts.to_vec(),
        profile: found.profile.map(Bytes::from),
        bootstrap_bytes: found.received_bytes,
        ..NodeOptions::new(store)
    }
}

/// A node with an empty cache; whether each contact is a seed.
pub async fn node(dir: &TempDir, image: Digest, contacts: &[(SocketAddr, bool)], fill: Fill) -> Running {
    start(NodeOptions { fill, ..node_options(dir, image, contacts).await }).await
}

/// Reads `from..to` in pieces of `step` bytes.
pub async fn read_range(disk: &SwarmDisk, from: u64, to: u64, step: u32) -> Vec<u8> {
    let mut all = Vec::new();
    while from + (all.len() as u64) < to {
        let at = from + all.len() as u64;
        let step = u64::from(step).min(to - at) as u32;
        all.extend(disk.read(GUEST, at, step).await.unwrap().concat());
    }
    all
}

pub async fn read_all(disk: &SwarmDisk, step: u32) -> Vec<u8> {
    read_range(disk, 0, disk.image_bytes(), step).await
}

/// Stands before a node and flips a bit in every piece that it sends.
pub async fn liar(target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(target).await else { return };
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let _ = lie(from_server, to_client).await;
            });
        }
    });
    address
}

async fn lie(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin) -> std::io::Result<()> {
    let mut buffer = vec![0; PREFACE_BYTES];
    from.read_exact(&mut buffer).await?;
    to.write_all(&buffer).await?;
    buffer.clear();
    loop {
        let (head_bytes, body_bytes, is_piece) = match decode(&buffer).unwrap() {
            Decoded::NeedMore { bytes } => {
                let had = buffer.len();
                buffer.resize(bytes, 0);
                from.read_exact(&mut buffer[had..]).await?;
                continue;
            }
            Decoded::Frame { frame, consumed, body_bytes } => {
                (consumed, body_bytes as usize, matches!(frame, Frame::Data(_)))
            }
        };
        assert_eq!(head_bytes, buffer.len());
        let mut body = vec![0; body_bytes];
        from.read_exact(&mut body).await?;
        if let (true, Some(byte)) = (is_piece, body.last_mut()) {
            *byte ^= 4;
        }
        to.write_all(&buffer).await?;
        to.write_all(&body).await?;
        buffer.clear();
    }
}
