//! `swarmdisk seed`.

use super::args::Seed;
use super::attach::blocking;
use super::output::say;
use super::{Failure, profile, signals};
use crate::log;
use crate::node::{Listener, Node, NodeHandle, NodeOptions, Rates, Serving};
use crate::reference::Reference;
use crate::status::{ImageStatus, Status, StatusServer, StatusSource};
use crate::store::Store;
use bytes::Bytes;
use serde_json::json;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use swarmdisk_core::format::profile::ProfileView;

pub(super) async fn run(args: Seed) -> Result<ExitCode, Failure> {
    let end = signals::asked_to_end();
    keep(&args, end).await.map(|()| ExitCode::SUCCESS)
}

/// Serves until it is time to end.
pub(super) async fn keep<T>(args: &Seed, end: impl Future<Output = T>) -> Result<(), Failure> {
    tokio::pin!(end);
    let seeding = tokio::select! {
        seeding = Seeding::start(args) => seeding?,
        _ = &mut end => return Err(Failure::new("interrupted before anything was served")),
    };
    end.await;
    seeding.end().await;
    Ok(())
}

/// Images being served.
struct Seeding {
    nodes: Vec<NodeHandle>,
    serving: Serving,
    status: StatusServer,
}

impl Seeding {
    /// Serves, and prints the references.
    async fn start(args: &Seed) -> Result<Self, Failure> {
        let rates = Rates::new(args.limit_up, None);
        let listener = Listener::bind(args.listen, args.open, &rates)?;
        let address = listener.address();
        let advertise = super::attach::advertised(address, args.advertise.as_deref()).await?;
        let mut profiles = read_profiles(args)?;
        let mut nodes: Vec<NodeHandle> = Vec::new();
        for path in &args.files {
            let path = path.clone();
            let store = blocking(move || Store::open_complete(&path)).await??;
            if nodes.iter().any(|node| node.image() == store.image()) {
                continue;
            }
            let mut options = NodeOptions::seed(Arc::new(store));
            let own = profiles.iter().position(|(image, ..)| *image == options.store.image());
            options.profile = own.map(|index| profiles.swap_remove(index).1);
            options.teach = args.learn;
            options.locality = args.locality.unwrap_or_default();
            options.advertise = Some(advertise);
            options.rates = rates.clone();
            nodes.push(Node::start(options).await?);
        }
        if let Some((.., path)) = profiles.first() {
            return Err(Failure::new(format!(
                "{path} is a profile of another image than those to be served, or a second one; leave it out"
            )));
        }
        let source = Source { nodes: nodes.clone(), address, began: Instant::now() };
        let status = StatusServer::start(args.status, args.open, Arc::new(source)).await?;
        let serving = listener.serve(nodes.clone());
        print_references(&nodes, address, args)?;
        Ok(Self { nodes, serving, status })
    }

    async fn end(self) {
        drop((self.serving, self.status));
        for node in &self.nodes {
            node.shutdown().await;
        }
    }
}

/// The profiles to offer: of which image, its bytes, its name for messages.
fn read_profiles(args: &Seed) -> Result<Vec<(swarmdisk_core::ids::Digest, Bytes, String)>, Failure> {
    let mut profiles = Vec::new();
    for path in &args.profile {
        let name = path.display().to_string();
        let bytes = profile::read(path)?;
        let image = ProfileView::peek_image(&bytes)
            .ok_or_else(|| Failure::new(format!("{name} is no profile; make one with `swarmdisk profile build`")))?;
        profiles.push((image, Bytes::from(bytes), name));
    }
    Ok(profiles)
}

/// One for each image.
fn print_references(nodes: &[NodeHandle], address: SocketAddr, args: &Seed) -> Result<(), Failure> {
    let host = match &args.advertise {
        Some(host) if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{}", address.port()),
        Some(host) => format!("{host}:{}", address.port()),
        None => address.to_string(),
    };
    if args.advertise.is_none() && address.ip().is_unspecified() {
        log::warn(format_args!(
            "{address} is no address to connect to: put this machine's name into the reference, or pass --advertise HOST"
        ));
    }
    for node in nodes {
        let reference = Reference { hosts: vec![host.clone()], image: node.image() }.to_string();
        let file = node.store().path().display().to_string();
        log::info(format_args!("{file} is served as {reference}"));
        match args.json {
            true => say(json!({ "reference": reference, "file": file }))?,
            false => say(reference)?,
        }
    }
    Ok(())
}

/// What a status shows of a seed.
struct Source {
    nodes: Vec<NodeHandle>,
    address: SocketAddr,
    began: Instant,
}

impl StatusSource for Source {
    async fn status(&self) -> Option<Status> {
        let mut images = Vec::new();
        for node in &self.nodes {
            images.push(ImageStatus::of(node).await?);
        }
        Some(Status::seed(self.address, images, self.began.elapsed()))
    }
}
