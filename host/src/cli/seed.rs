//! `swarmdisk seed`.

use super::args::Seed;
use super::attach::blocking;
use super::{Failure, profile, signals};
use crate::log;
use crate::node::{Listener, Node, NodeHandle, NodeOptions, Rates};
use crate::reference::Reference;
use crate::status::{ImageStatus, Status, StatusServer, StatusSource};
use crate::store::Store;
use bytes::Bytes;
use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use swarmdisk_core::format::profile::ProfileView;

pub(super) async fn run(args: Seed) -> Result<ExitCode, Failure> {
    let end = signals::asked_to_end();
    tokio::pin!(end);
    let rates = Rates::new(args.limit_up, None);
    let listener = Listener::bind(args.listen, args.open, &rates)?;
    let mut profiles = read_profiles(&args)?;
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
        options.advertise = Some(super::attach::advertised(listener.address(), args.advertise.as_deref()).await?);
        options.rates = rates.clone();
        nodes.push(Node::start(options).await?);
    }
    if let Some((.., path)) = profiles.first() {
        return Err(Failure::new(format!(
            "{path} is a profile of another image than those to be served; leave it out"
        )));
    }
    let address = listener.address();
    let source = Source { nodes: nodes.clone(), address, began: Instant::now() };
    let status = StatusServer::start(args.status, args.open, Arc::new(source)).await?;
    let serving = listener.serve(nodes.clone());
    for (node, file) in nodes.iter().zip(&args.files) {
        print_reference(node, file, address, &args)?;
    }
    end.await;
    drop((serving, status));
    for node in &nodes {
        node.shutdown().await;
    }
    Ok(ExitCode::SUCCESS)
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

fn print_reference(node: &NodeHandle, file: &Path, address: SocketAddr, args: &Seed) -> Result<(), Failure> {
    let host = match &args.advertise {
        Some(host) => format!("{host}:{}", address.port()),
        None => address.to_string(),
    };
    if args.advertise.is_none() && address.ip().is_unspecified() {
        log::warn(format_args!(
            "{address} is no address to connect to: put this machine's name into the reference, or pass --advertise HOST"
        ));
    }
    let reference = Reference { hosts: vec![host], image: node.image() }.to_string();
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json!({ "reference": reference, "file": file.display().to_string() }))?;
    } else {
        writeln!(out, "{reference}")?;
    }
    Ok(out.flush()?)
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
