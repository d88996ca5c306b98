//! Other images of the same cache, as far as they hold payloads of this one: two versions of an image share most of them.
//!
//! *Purpose*: from a payload's hash to its bytes, wherever in the directory these lie. The hash covers exactly the payload,
//! so that neither the other image's chunk size nor its codec matters.
//! *Invariants*: nothing is handed out but what fits the hash asked for; other images are only read, without a lock: what
//! their own node takes away meanwhile is a miss.
//! *Units*: bytes of payload. *Bounds*: [`CHUNKS_MAX`] chunks of [`IMAGES_MAX`] images, those used last before the others, 12
//! bytes a chunk; [`PAGES_MAX`] leaf pages. Nothing is read before something is looked for.

use super::LeafPage;
use super::directory::image_of;
use super::held::read_log;
use super::open::read_head;
use super::payload::Place;
use crate::file::read_exact_at;
use bytes::Bytes;
use lru::LruCache;
use std::cmp::Reverse;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};
use swarmdisk_core::bitmap::Bits;
use swarmdisk_core::format::held::HEADER_BYTES;
use swarmdisk_core::format::leaf::LeafEntry;
use swarmdisk_core::format::manifest::ManifestView;
use swarmdisk_core::geometry::{ChunkIndex, Geometry, LeafIndex};
use swarmdisk_core::ids::Digest;

/// Chunks that are remembered: 64 GiB of them by default, in 12 MiB.
pub const CHUNKS_MAX: usize = 1 << 20;
/// Images that are looked at.
pub const IMAGES_MAX: usize = 64;
/// Leaf pages of other images in memory, about 12 KiB each.
const PAGES_MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// How long what was found is gone by, before it is seen whether others hold more.
const FRESH: Duration = Duration::from_secs(30);

/// What other images hold.
pub(crate) struct Others {
    dir: PathBuf,
    own: Digest,
    found: RwLock<Found>,
    pages: Mutex<LruCache<(Digest, LeafIndex), Arc<LeafPage>>>,
}

#[derive(Default)]
struct Found {
    /// When the directory was looked at, and what there was.
    looked: Option<(Instant, Vec<Cached>)>,
    images: Vec<Image>,
    /// Sorted.
    chunks: Vec<Known>,
}

/// A cache in the directory that holds something: where, how long its log is, and when that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cached {
    image: Digest,
    path: PathBuf,
    log_bytes: u64,
    written: Option<SystemTime>,
}

/// A chunk that some image holds.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    /// The beginning of its payload's hash.
    hash: u32,
    chunk: u32,
    /// Index into the images.
    image: u16,
}

struct Image {
    id: Digest,
    file: File,
    manifest: Vec<u8>,
    geometry: Geometry,
}

impl Others {
    /// Those beside the image `own` in `dir`. Looks at nothing yet.
    pub(crate) fn new(dir: &Path, own: Digest) -> Self {
        let pages = Mutex::new(LruCache::new(PAGES_MAX));
        Self { dir: dir.to_owned(), own, found: RwLock::default(), pages }
    }

    /// Whether there are other images that hold something.
    pub(crate) fn any(&self) -> bool {
        !self.list().is_empty()
    }

    /// The runs of chunks of this page, of an image of this `geometry`, that other images hold, in order, as (first, count);
    /// chunks that `skip` picks are passed over.
    pub(crate) fn matches(
        &self,
        page: &LeafPage,
        geometry: Geometry,
        skip: impl Fn(ChunkIndex) -> bool,
    ) -> Vec<(ChunkIndex, u32)> {
        self.refresh();
        let mut runs: Vec<(ChunkIndex, u32)> = Vec::new();
        for (chunk, entry) in page.entries(geometry) {
            let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
            if entry.is_zero() || skip(chunk) || self.locate(&found, entry).next().is_none() {
                continue;
            }
            match runs.last_mut() {
                Some((first, count)) if first.get() + *count == chunk.get() => *count += 1,
                _ => runs.push((chunk, 1)),
            }
        }
        runs
    }

    /// The payload that this entry describes, verified; nothing if no other image has it.
    pub(crate) fn payload(&self, entry: &LeafEntry) -> Option<Bytes> {
        self.refresh();
        let wanted = Place::from(entry);
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        self.locate(&found, entry).find_map(|(image, place)| {
            let mut payload = vec![0; place.bytes as usize];
            read_exact_at(&found.images[image].file, &mut payload, place.offset).ok()?;
            wanted.fits(&payload).then(|| payload.into())
        })
    }

    /// The images that have this payload by their leaf pages, and where. One is looked at after the other: an image may have
    /// the same payload very often.
    fn locate<'a>(&'a self, found: &'a Found, entry: &'a LeafEntry) -> impl Iterator<Item = (usize, Place)> + 'a {
        let hash = beginning(&entry.digest);
        let first = found.chunks.partition_point(|known| known.hash < hash);
        let alike = found.chunks[first..].iter().take_while(move |known| known.hash == hash);
        let place = move |known: &Known| {
            let image = found.images.get(usize::from(known.image))?;
            let chunk = image.geometry.chunk(known.chunk)?;
            let page = self.page(image, image.geometry.leaf_of(chunk))?;
            let other = page.entry(chunk).filter(|other| other.digest == entry.digest && other.bytes == entry.bytes)?;
            Some((usize::from(known.image), Place::from(other)))
        };
        alike.filter_map(place)
    }

    fn page(&self, image: &Image, leaf: LeafIndex) -> Option<Arc<LeafPage>> {
        let key = (image.id, leaf);
        if let Some(page) = self.pages.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Some(page.clone());
        }
        let page = Arc::new(image.read_page(leaf)?);
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).put(key, page.clone());
        Some(page)
    }

    /// Looks at the directory if that was not done lately, and at the images if something has changed.
    fn refresh(&self) {
        let is_fresh = |found: &Found| found.looked.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH);
        if is_fresh(&self.found.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        if is_fresh(&found) {
            return;
        }
        let there = self.list();
        if found.looked.as_ref().is_none_or(|(_, before)| *before != there) {
            (found.images, found.chunks) = read_images(&there);
        }
        found.looked = Some((Instant::now(), there));
    }

    /// The other caches that hold something, those written last first.
    fn list(&self) -> Vec<Cached> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut there: Vec<Cached> = entries.filter_map(|entry| cached(&entry.path())).collect();
        there.retain(|cached| cached.image != self.own && cached.log_bytes > HEADER_BYTES as u64);
        there.sort_by_key(|cached| Reverse((cached.written, cached.image)));
        there.truncate(IMAGES_MAX);
        there
    }
}

/// The cache whose file this is, if it is one and has a log.
fn cached(path: &Path) -> Option<Cached> {
    let image = image_of(path)?;
    let log = fs::metadata(path.with_extension("held")).ok()?;
    Some(Cached { image, path: path.to_owned(), log_bytes: log.len(), written: log.modified().ok() })
}

/// Opens these caches and takes down what they hold. What cannot be read is left out: it would only have saved a fetch.
fn read_images(there: &[Cached]) -> (Vec<Image>, Vec<Known>) {
    let (mut images, mut chunks) = (Vec::new(), Vec::new());
    for cached in there {
        let Some((image, held)) = Image::open(cached) else { continue };
        image.take_down(&held, images.len() as u16, &mut chunks);
        images.push(image);
        if chunks.len() >= CHUNKS_MAX {
            break;
        }
    }
    chunks.shrink_to_fit();
    chunks.sort_unstable();
    (images, chunks)
}

impl Image {
    /// The image, and a bitmap of what its cache holds.
    fn open(cached: &Cached) -> Option<(Self, Vec<u64>)> {
        let file = File::open(&cached.path).ok()?;
        let (superblock, manifest) = read_head(&file, &cached.path).ok()?;
        let geometry = ManifestView::parse(&manifest).ok()?.geometry();
        let log = read_log(&cached.path.with_extension("held"), superblock.image, geometry).ok()?;
        Some((Self { id: superblock.image, file, manifest, geometry }, log.words))
    }

    /// Adds the chunks that are held, as far as there is room.
    fn take_down(&self, held: &[u64], number: u16, chunks: &mut Vec<Known>) {
        let held = Bits::new(held, self.geometry.piece_count());
        for leaf in (0..self.geometry.leaf_count()).filter_map(|index| self.geometry.leaf(index)) {
            let end = leaf.first_chunk() + self.geometry.leaf_chunk_count(leaf);
            if held.next(leaf.first_chunk(), true).is_none_or(|first| first >= end) {
                continue;
            }
            let Some(page) = self.read_page(leaf) else { continue };
            for (chunk, entry) in
                page.entries(self.geometry).filter(|(chunk, entry)| held.get(chunk.get()) && !entry.is_zero())
            {
                if chunks.len() == CHUNKS_MAX {
                    return;
                }
                chunks.push(Known { hash: beginning(&entry.digest), chunk: chunk.get(), image: number });
            }
        }
    }

    /// The leaf page, verified; nothing if it is not there.
    fn read_page(&self, leaf: LeafIndex) -> Option<LeafPage> {
        let view = ManifestView::parse(&self.manifest).ok()?;
        let layout = view.layout();
        let place =
            Place { offset: layout.leaf_offset(leaf), bytes: layout.leaf_bytes(leaf), digest: view.leaf_digest(leaf) };
        let mut bytes = vec![0; place.bytes as usize];
        read_exact_at(&self.file, &mut bytes, place.offset).ok()?;
        LeafPage::parse(&bytes, &layout, leaf).ok().filter(|_| place.fits(&bytes))
    }
}

fn beginning(digest: &Digest) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|at| digest.0[at]))
}
