//! Opening a store: a complete file, or a cache that may not be there yet, half there, or damaged.

use super::error::StoreError;
use super::held::{AtomicMap, OldLog, open_log, read_log};
use super::leaves::LeafCache;
use super::memory::{BUDGET_BYTES_DEFAULT, ChunkCache};
use super::others::Others;
use super::{Log, Store};
use crate::digest::{digest_of, to_hex};
use crate::file::{lock_patiently, lock_shared_patiently, make_sparse, read_exact_at, write_all_at};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, RwLock};
use swarmdisk_core::bitmap::{Bits, assign, assign_run};
use swarmdisk_core::format::manifest::ManifestView;
use swarmdisk_core::format::superblock::{SUPERBLOCK_BYTES, Superblock, SuperblockError};
use swarmdisk_core::geometry::LeafIndex;
use swarmdisk_core::ids::Digest;

impl Store {
    /// Opens a complete `.swarm` file, to read: a seed's, or one to attach. A cache that has become complete will do, and
    /// nobody takes anything out of it until the store is dropped.
    ///
    /// # Errors
    /// [`StoreError::InUse`]: it is a cache that a node has open.
    /// Those that say what is wrong with the file: [`StoreError::Superblock`], [`StoreError::Truncated`],
    /// [`StoreError::ManifestDamaged`], [`StoreError::Manifest`], [`StoreError::Incomplete`], or [`StoreError::Io`].
    pub fn open_complete(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        let (superblock, manifest) = read_head(&file, path)?;
        let layout = ManifestView::parse(&manifest)?.layout();
        let bytes = file.metadata().map_err(StoreError::io("read", path))?.len();
        if bytes != layout.file_bytes() {
            let expected_bytes = layout.file_bytes();
            return Err(StoreError::Truncated { path: path.to_owned(), bytes, expected_bytes });
        }
        let geometry = layout.geometry();
        let log_path = path.with_extension("held");
        if log_path.exists() {
            if !lock_shared_patiently(&file).map_err(StoreError::io("lock", path))? {
                return Err(StoreError::InUse { path: path.to_owned() });
            }
            let held_count =
                Bits::new(&read_log(&log_path, superblock.image, geometry)?.words, geometry.piece_count()).count();
            if held_count < geometry.piece_count() {
                let (path, piece_count) = (path.to_owned(), geometry.piece_count());
                return Err(StoreError::Incomplete { path, held_count, piece_count });
            }
        }
        Self::assemble(file, path.to_owned(), superblock.image, manifest, AtomicMap::full(geometry), None)
    }

    /// Opens the cache of `image` in `dir`, or makes one; `dir` too. The cache is this process's alone until the store
    /// is dropped.
    ///
    /// `manifest` is trusted once its hash has been compared with `image`. It wins over what the cache holds: a damaged
    /// superblock or manifest is written anew, and the pieces stay, since each is verified before its first use. A held
    /// log that is damaged in its header is begun anew: all is fetched again.
    ///
    /// # Errors
    /// [`StoreError::WrongManifest`], [`StoreError::Manifest`], [`StoreError::InUse`], [`StoreError::DiskFull`] or
    /// [`StoreError::Io`].
    pub fn open_cache(dir: &Path, image: Digest, manifest: &[u8]) -> Result<Self, StoreError> {
        if digest_of(manifest) != image {
            return Err(StoreError::WrongManifest(to_hex(&image)));
        }
        let view = ManifestView::parse(manifest)?;
        fs::create_dir_all(dir).map_err(StoreError::io("make", dir))?;
        let path = cache_path(dir, image);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(StoreError::io("open", &path))?;
        if !lock_patiently(&file).map_err(StoreError::io("lock", &path))? {
            return Err(StoreError::InUse { path });
        }
        write_head(&file, image, manifest, view.layout().file_bytes()).map_err(StoreError::io("write", &path))?;
        let log_path = path.with_extension("held");
        let mut old = read_log(&log_path, image, view.geometry())?;
        settle_leaves(&file, &view, &mut old);
        let log = open_log(&log_path, image, view.geometry(), &old)?;
        let held = AtomicMap::from_words(view.geometry(), &old.words);
        let mut store = Self::assemble(file, path, image, manifest.to_vec(), held, Some(log))?;
        store.others = Some(Others::new(dir, image));
        Ok(store)
    }

    /// The manifest of `image` as the cache in `dir` has it, so that it can be attached with no network.
    /// Nothing if there is no such cache, or its superblock or manifest is damaged or cut off: fetch the manifest then.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file cannot be read.
    pub fn find_cached_manifest(dir: &Path, image: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = cache_path(dir, image);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        match read_head(&file, &path) {
            Ok((superblock, manifest)) if superblock.image == image => Ok(Some(manifest)),
            Err(error @ StoreError::Io { .. }) => Err(error),
            // Cut off, damaged, or of another image: it is made good once the manifest has come.
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Opens the cache of `image` in `dir` by the manifest that it has itself.
    ///
    /// # Errors
    /// As [`open_cache`](Self::open_cache); [`StoreError::Superblock`] and [`StoreError::ManifestDamaged`] if the cache
    /// cannot be used without a manifest from elsewhere.
    pub(crate) fn reopen_cache(dir: &Path, image: Digest) -> Result<Self, StoreError> {
        let path = cache_path(dir, image);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let (_, manifest) = read_head(&file, &path)?;
        Self::open_cache(dir, image, &manifest)
    }

    /// Sets how many bytes of decompressed chunks are kept in memory; 24 MiB unless set.
    #[must_use]
    pub fn with_memory_bytes(mut self, bytes: usize) -> Self {
        self.memory = ChunkCache::new(bytes);
        self
    }

    fn assemble(
        file: File,
        path: PathBuf,
        image: Digest,
        manifest: Vec<u8>,
        held: AtomicMap,
        log: Option<Log>,
    ) -> Result<Self, StoreError> {
        let layout = ManifestView::parse(&manifest)?.layout();
        Ok(Self {
            file,
            path,
            image,
            layout,
            manifest,
            held,
            verified: AtomicMap::new(layout.geometry()),
            log: log.map(Mutex::new),
            eviction: RwLock::new(()),
            leaves: LeafCache::new(),
            memory: ChunkCache::new(BUDGET_BYTES_DEFAULT),
            others: None,
            taken_bytes: AtomicU64::new(0),
        })
    }
}

/// Where the cache of `image` lies.
pub(crate) fn cache_path(dir: &Path, image: Digest) -> PathBuf {
    dir.join(format!("{}.swarm", to_hex(&image)))
}

/// Reads superblock and manifest, and compares the latter's hash. The manifest is not parsed yet.
pub(super) fn read_head(file: &File, path: &Path) -> Result<(Superblock, Vec<u8>), StoreError> {
    let short = |source| StoreError::Superblock { path: path.to_owned(), source };
    let mut block = [0; SUPERBLOCK_BYTES];
    match read_exact_at(file, &mut block, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(short(SuperblockError::Short)),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    }
    let superblock = Superblock::parse(&block).map_err(short)?;
    let bytes = file.metadata().map_err(StoreError::io("read", path))?.len();
    // Also bounds what is allocated next.
    if bytes < superblock.manifest_offset + u64::from(superblock.manifest_bytes) {
        let expected_bytes = superblock.file_bytes;
        return Err(StoreError::Truncated { path: path.to_owned(), bytes, expected_bytes });
    }
    let mut manifest = vec![0; superblock.manifest_bytes as usize];
    read_exact_at(file, &mut manifest, superblock.manifest_offset).map_err(StoreError::io("read", path))?;
    if digest_of(&manifest) != superblock.image {
        return Err(StoreError::ManifestDamaged { path: path.to_owned(), offset: superblock.manifest_offset });
    }
    Ok((superblock, manifest))
}

/// Makes the file's beginning and length what they should be; writes only what differs.
pub(crate) fn write_head(file: &File, image: Digest, manifest: &[u8], file_bytes: u64) -> io::Result<()> {
    let manifest_offset = SUPERBLOCK_BYTES as u64;
    let superblock = Superblock { image, manifest_offset, manifest_bytes: manifest.len() as u32, file_bytes };
    let mut head = superblock.encode().to_vec();
    head.extend(manifest);
    if file.metadata()?.len() != file_bytes {
        make_sparse(file);
        file.set_len(file_bytes)?;
    }
    let mut found = vec![0; head.len()];
    read_exact_at(file, &mut found, 0)?;
    if found != head {
        write_all_at(file, &head, 0)?;
    }
    Ok(())
}

/// Restores the invariant that a chunk is held only if its leaf page is, where the page's record was damaged: the page
/// is taken from the file if it is good there, else its chunks are forgotten.
fn settle_leaves(file: &File, view: &ManifestView<'_>, old: &mut OldLog) {
    let geometry = view.geometry();
    for leaf in (0..geometry.leaf_count()).filter_map(|index| geometry.leaf(index)) {
        let (first, count) = (leaf.first_chunk(), geometry.leaf_chunk_count(leaf));
        let leaf_piece = geometry.leaf_piece(leaf).get();
        let held = Bits::new(&old.words, geometry.piece_count());
        if held.get(leaf_piece) || held.next(first, true).is_none_or(|next| next >= first + count) {
            continue;
        }
        if is_leaf_good(file, view, leaf) {
            assign(&mut old.words, leaf_piece, true);
        } else {
            assign_run(&mut old.words, first, count, false);
        }
    }
}

fn is_leaf_good(file: &File, view: &ManifestView<'_>, leaf: LeafIndex) -> bool {
    let mut page = vec![0; view.layout().leaf_bytes(leaf) as usize];
    read_exact_at(file, &mut page, view.leaf_offset(leaf)).is_ok() && digest_of(&page) == view.leaf_digest(leaf)
}
