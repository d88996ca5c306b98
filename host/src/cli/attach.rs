//! `swarmdisk attach`, and the session that it shares with `run`: an image attached, from its reference to its report.

use super::args::{Attach, AttachOptions, OverlayPlace, PrefetchName};
use super::export::{Export, ExportWish};
use super::output::say;
use super::{Failure, profile, signals};
use crate::attached::AttachedDisk;
use crate::device::{Exports, SessionDisk};
use crate::disk::Disk;
use crate::log;
use crate::node::{
    Bootstrap, BootstrapOptions, Listener, Node, NodeHandle, NodeOptions, Rates, Serving, SwarmDisk, bootstrap,
};
use crate::observed::Observed;
use crate::overlay::{Overlay, OverlayFile, Survival};
use crate::reference::Reference;
use crate::report::{AttachReport, FetchedBytes};
use crate::status::{Status, StatusServer};
use crate::store::Store;
use bytes::Bytes;
use etcetera::{BaseStrategy, choose_base_strategy};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarmdisk_common::file::{check_writable, write_json};
use swarmdisk_core::format::profile::ProfileView;

/// How long the swarm is asked for an image before the command gives up.
const BOOTSTRAP_TIME: Duration = Duration::from_secs(30);
/// How long it is asked for a profile when the image is in the cache already.
const BOOTSTRAP_TIME_CACHED: Duration = Duration::from_secs(3);
/// When a person begins to wonder.
const NOTICE_AFTER: Duration = Duration::from_secs(3);

pub(super) async fn run(args: Attach, exports: Exports, began: Instant) -> Result<ExitCode, Failure> {
    let end = signals::asked_to_end();
    keep(&args, exports, began, end).await.map(|()| ExitCode::SUCCESS)
}

/// Attaches, says so, and detaches when it is time to end.
pub(super) async fn keep<T>(
    args: &Attach,
    exports: Exports,
    began: Instant,
    end: impl Future<Output = T>,
) -> Result<(), Failure> {
    let wish = ExportWish::new(args.nbd.as_deref(), &args.iscsi, &args.device, exports)?.mounted(args.mount)?;
    tokio::pin!(end);
    let mut session = tokio::select! {
        session = Session::start(&args.target, wish, &args.options, began) => session?,
        _ = &mut end => return Err(Failure::new("interrupted before the disk was ready")),
    };
    say(format_args!("ready {}", session.uri()))?;
    log::info(format_args!("{} is attached as {}", args.target, session.uri()));
    if args.mount {
        let mounted = tokio::select! {
            mounted = session.export.mount() => mounted,
            _ = &mut end => Err(Failure::new("interrupted before the disk was mounted")),
        };
        match mounted {
            Ok(name) => say(format_args!("mounted as {name}"))?,
            Err(failure) => {
                session.end().await?;
                return Err(failure);
            }
        }
    }
    let ended = tokio::select! {
        _ = &mut end => Ok(()),
        failure = session.export.ended() => Err(failure),
    };
    session.end().await?;
    ended
}

/// An image attached.
pub(super) struct Session {
    node: NodeHandle,
    disk: Arc<SessionDisk>,
    export: Export,
    report: Option<PathBuf>,
    began: Instant,
    _serving: Serving,
    _status: StatusServer,
}

impl Session {
    /// Attaches: when it returns, the first read can be served.
    pub(super) async fn start(
        target: &str,
        wish: ExportWish,
        options: &AttachOptions,
        began: Instant,
    ) -> Result<Self, Failure> {
        options.report.as_deref().map(check_writable).transpose()?;
        let rates = Rates::new(options.limit_up, options.limit_down);
        let listener = Listener::bind(options.listen, options.open, &rates)?;
        let found = find_image(target, options, &rates).await?;
        check_cache_size(target, options, &found.store)?;
        // Before anything is fetched or told to others.
        let overlay_file = open_overlay(options, &found.store, wish.survival()).await?;
        let mut node_options = NodeOptions::new(Arc::new(found.store));
        node_options.advertise = Some(advertised(listener.address(), options.advertise.as_deref()).await?);
        node_options.profile = found.profile;
        node_options.prefetch = options.prefetch.into();
        node_options.teach = !options.no_teach;
        node_options.cache_bytes = options.cache_size;
        node_options.fill = options.fill;
        node_options.locality = options.locality.unwrap_or_default();
        node_options.rates = rates;
        node_options.contacts = found.contacts;
        node_options.bootstrap_bytes = found.received_bytes;
        node_options.record_engine = options.record_engine.clone();
        let node = Node::start(node_options).await?;
        let serving = listener.serve(vec![node.clone()]);
        let swarm_disk = SwarmDisk::new(node.clone(), options.io_timeout);
        let swarm_disk = if found.is_alone { swarm_disk.alone() } else { swarm_disk };
        let disk = match (&options.overlay, overlay_file) {
            (_, Some(file)) => AttachedDisk::Writable(Overlay::in_file(swarm_disk, file)?),
            (Some(OverlayPlace::Memory(bytes)), _) => AttachedDisk::Writable(Overlay::in_memory(swarm_disk, *bytes)?),
            _ => AttachedDisk::Image(swarm_disk),
        };
        let disk = Arc::new(Observed::new(disk));
        let mut export = wish.export(disk.clone(), target, options.overlay.as_ref(), options.open).await?;
        let source = Source { node: node.clone(), disk: disk.clone(), uri: export.uri().to_owned(), began };
        let status = StatusServer::start(options.status, options.open, Arc::new(source)).await?;
        // Last of all, so that an old trace is not lost to an attempt that came to nothing.
        options.record.as_deref().map(|path| disk.record_to(path)).transpose()?;
        if let Some(overlay) = disk.inner().overlay() {
            overlay.await_next();
        }
        export.open();
        let report = options.report.clone();
        Ok(Self { node, disk, export, report, began, _serving: serving, _status: status })
    }

    /// Where the disk is.
    pub(super) fn uri(&self) -> &str {
        self.export.uri()
    }

    /// Detaches, and writes what is to be written.
    pub(super) async fn end(self) -> Result<(), Failure> {
        let report = make_report(&self.node, &self.disk, self.began).await;
        self.export.end().await;
        let flushed = self.disk.flush().await;
        self.node.shutdown().await;
        let trace = self.disk.finish();
        if let Some(path) = &self.report {
            let report = report.ok_or_else(|| Failure::new("the node ended by itself: there is nothing to report"))?;
            write_json(&report, path)?;
        }
        flushed?;
        self.disk.inner().overlay().map_or(Ok(()), Overlay::retire)?;
        Ok(trace?)
    }
}

/// Refuses a bound that is too small to work, or for what is no cache.
fn check_cache_size(target: &str, options: &AttachOptions, store: &Store) -> Result<(), Failure> {
    let Some(bytes) = options.cache_size else { return Ok(()) };
    if !target.contains("://") {
        return Err(Failure::usage("--cache-size is for what is fetched; a complete FILE.swarm is no cache"));
    }
    let least = store.least_cache_bytes();
    if bytes < least {
        let least = least.div_ceil(1 << 10);
        return Err(Failure::usage(format!(
            "--cache-size is too small for this image: it takes {least}K at the least"
        )));
    }
    Ok(())
}

/// The overlay's file, if it is to be one.
async fn open_overlay(
    options: &AttachOptions,
    store: &Store,
    survival: Survival,
) -> Result<Option<OverlayFile>, Failure> {
    let path = match options.overlay.clone() {
        Some(OverlayPlace::File(path)) => path,
        Some(OverlayPlace::Memory(_)) if survival == Survival::Recovered => {
            return Err(Failure::usage("an overlay in memory is gone with its node: there is nothing to recover"));
        }
        _ => return Ok(None),
    };
    let (image, image_bytes) = (store.image(), store.geometry().image_bytes());
    Ok(Some(blocking(move || OverlayFile::open_or_create(&path, image, image_bytes, survival)).await??))
}

/// What is known of the image before there is a node.
struct Found {
    store: Store,
    profile: Option<Bytes>,
    contacts: Vec<(SocketAddr, bool)>,
    received_bytes: u64,
    /// A complete file, and nobody to ask.
    is_alone: bool,
}

async fn find_image(target: &str, options: &AttachOptions, rates: &Rates) -> Result<Found, Failure> {
    let own_profile = options.profile.as_deref().map(profile::read).transpose()?.map(Bytes::from);
    let wants_profile = matches!(options.prefetch, PrefetchName::Profile | PrefetchName::Auto) && own_profile.is_none();
    let is_reference = target.contains("://");
    if !is_reference {
        let store = blocking({
            let path = PathBuf::from(target);
            move || Store::open_complete(&path)
        })
        .await??;
        let contacts = resolve(&options.peer, false).await;
        return Ok(Found { store, profile: own_profile, is_alone: contacts.is_empty(), contacts, received_bytes: 0 });
    }
    let reference: Reference = target.parse()?;
    let dir = cache_dir(options)?;
    let image = reference.image;
    let cached = blocking({
        let dir = dir.clone();
        move || Store::find_cached_manifest(&dir, image)
    })
    .await??;
    let mut contacts = resolve(&reference.hosts, true).await;
    contacts.extend(resolve(&options.peer, false).await);
    let request = BootstrapOptions {
        image,
        hosts: reference.hosts.iter().chain(&options.peer).cloned().collect(),
        rates: rates.clone(),
        patience: if cached.is_some() { BOOTSTRAP_TIME_CACHED } else { BOOTSTRAP_TIME }.min(options.io_timeout),
        wants_profile,
    };
    let sent =
        if cached.is_some() && !wants_profile { None } else { Some(patiently(bootstrap(request), &reference).await) };
    let (manifest, sent) = match (cached, sent) {
        (Some(manifest), None) => (manifest, None),
        (Some(manifest), Some(Ok(sent))) => (manifest, Some(sent)),
        (Some(manifest), Some(Err(error))) => {
            log::warn(format_args!("{error}; going on with what the cache holds"));
            (manifest, None)
        }
        (None, Some(Ok(sent))) => (sent.manifest.clone(), Some(sent)),
        (None, Some(Err(error))) => return Err(error.into()),
        (None, None) => return Err(Failure::new("the image's manifest is neither in the cache nor asked for")),
    };
    let store = blocking(move || Store::open_cache(&dir, image, &manifest)).await??;
    let (offered, received_bytes) = match sent {
        Some(Bootstrap { profile, received_bytes, .. }) => {
            (profile.and_then(|profile| usable(profile, &store)), received_bytes)
        }
        None => (None, 0),
    };
    Ok(Found { store, profile: own_profile.or(offered), contacts, received_bytes, is_alone: false })
}

/// An offered profile, if it makes sense: to go without one is better than not to go.
fn usable(profile: Vec<u8>, store: &Store) -> Option<Bytes> {
    match ProfileView::parse(&profile, store.image(), store.geometry()) {
        Ok(_) => Some(profile.into()),
        Err(error) => {
            log::warn(format_args!("the profile that the swarm offers cannot be used ({error}); going on without it"));
            None
        }
    }
}

/// Says that nobody answers, where that takes long.
async fn patiently<T>(answer: impl Future<Output = T>, reference: &Reference) -> T {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => return answer,
        () = tokio::time::sleep(NOTICE_AFTER) => {
            log::warn(format_args!("no answer from {} yet; still trying", reference.hosts.join(", ")));
        }
    }
    answer.await
}

/// Where fetched chunks are kept.
fn cache_dir(options: &AttachOptions) -> Result<PathBuf, Failure> {
    let dir = match &options.cache {
        Some(dir) => dir.clone(),
        None => choose_base_strategy()
            .map_err(|_| Failure::new("there is no home directory for the cache; choose one with --cache DIR"))?
            .cache_dir()
            .join("swarmdisk"),
    };
    std::fs::create_dir_all(&dir)
        .map_err(|error| Failure::new(format!("cannot make the cache {}: {error}; choose another", dir.display())))?;
    Ok(dir)
}

/// Addresses of hosts; a name without one is reported, and is no reason to end while others may have the image.
async fn resolve(hosts: &[String], seed: bool) -> Vec<(SocketAddr, bool)> {
    let mut found = Vec::new();
    for host in hosts {
        match tokio::net::lookup_host(host).await {
            Ok(addresses) => found.extend(addresses.map(|address| (address, seed))),
            Err(error) => log::warn(format_args!("{host} has no address: {error}; check its spelling")),
        }
    }
    found
}

/// The address that others are told: the one listened on, or the host's with that port.
pub(super) async fn advertised(listen: SocketAddr, host: Option<&str>) -> Result<SocketAddr, Failure> {
    let Some(host) = host else { return Ok(listen) };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, listen.port()));
    }
    let unknown = || Failure::usage(format!("{host} has no address; check --advertise"));
    let mut addresses = tokio::net::lookup_host((host, listen.port())).await.map_err(|_| unknown())?;
    addresses.next().ok_or_else(unknown)
}

/// Runs what blocks on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::new("a thread ended unexpectedly"))
}

async fn make_report(node: &NodeHandle, disk: &SessionDisk, began: Instant) -> Option<AttachReport> {
    let snapshot = node.snapshot().await?;
    let seen = disk.observations();
    Some(AttachReport {
        image_bytes: node.store().geometry().image_bytes(),
        guest_reads: seen.reads,
        guest_read_bytes: seen.read_bytes,
        guest_writes: seen.writes,
        guest_write_bytes: seen.written_bytes,
        demand_misses: disk.inner().swarm().demand_misses(),
        stall_micros: disk.inner().swarm().stalls().total().as_micros() as u64,
        fetched_bytes: FetchedBytes { origin: snapshot.fetched_origin_bytes, peers: snapshot.fetched_peer_bytes },
        other_images_bytes: snapshot.other_images_bytes,
        evictions: snapshot.cache.map_or(0, |cache| cache.evictions),
        metadata_bytes: snapshot.metadata_bytes,
        uploaded_bytes: snapshot.stats.uploaded_bytes,
        prefetched_bytes: snapshot.stats.prefetched_bytes,
        prefetch_unused_bytes: snapshot.prefetch_unused_bytes,
        corrupt_pieces: snapshot.stats.corrupt_pieces,
        read_latency_micros: seen.latency,
        run_micros: began.elapsed().as_micros() as u64,
    })
}

/// What a status shows of an attached image.
struct Source {
    node: NodeHandle,
    disk: Arc<SessionDisk>,
    uri: String,
    began: Instant,
}

impl crate::status::StatusSource for Source {
    async fn status(&self) -> Option<Status> {
        let report = make_report(&self.node, &self.disk, self.began).await?;
        let image = crate::status::ImageStatus::of(&self.node).await?;
        Some(Status::attached(self.uri.clone(), image, report))
    }
}
