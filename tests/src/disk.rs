//! What a guest would read from a disk that is served over NBD: with the client of these sources, so that it needs no tool.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use swarmdisk_host::nbd::NbdClient;
use tokio::runtime::{Builder, Runtime};

/// What is read at a time when a whole disk is.
const PART_BYTES: u64 = 1 << 20;
/// Parts in flight.
const PARTS: usize = 8;

/// A disk, open to be read.
pub struct NbdDisk {
    runtime: Runtime,
    client: Arc<NbdClient>,
}

impl NbdDisk {
    /// Connects.
    ///
    /// # Panics
    /// When there is no such server.
    #[track_caller]
    pub fn open(uri: &str) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let client = runtime.block_on(NbdClient::connect(&uri.parse().unwrap()));
        let client = client.unwrap_or_else(|error| panic!("{uri}: {error}"));
        Self { runtime, client: client.into() }
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.client.export().image_bytes
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.client.export().read_only
    }

    /// Reads once.
    ///
    /// # Errors
    /// What the server, or the client, says is wrong.
    pub fn read(&self, offset: u64, bytes: u32) -> Result<Vec<u8>, String> {
        let segments = self.runtime.block_on(self.client.read_at(offset, bytes)).map_err(|error| error.to_string())?;
        Ok(segments.concat())
    }

    /// Reads all of it and compares: the number of bytes that are equal, before the first that is not.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn equal_bytes(&self, image: &Path) -> Result<u64, String> {
        let mut image = File::open(image).map_err(|error| error.to_string())?;
        let (mut parts, mut asked, mut compared) = (VecDeque::new(), 0, 0);
        while compared < self.bytes() {
            while parts.len() < PARTS && asked < self.bytes() {
                let (client, offset) = (self.client.clone(), asked);
                let bytes = PART_BYTES.min(self.bytes() - offset) as u32;
                parts.push_back(self.runtime.spawn(async move { client.read_at(offset, bytes).await }));
                asked += u64::from(bytes);
            }
            let Some(part) = parts.pop_front() else { break };
            let done = self.runtime.block_on(part).expect("reading does not panic");
            let found = done.map_err(|error| error.to_string())?.concat();
            let mut expected = vec![0; found.len()];
            image.read_exact(&mut expected).map_err(|error| error.to_string())?;
            if found != expected {
                let same = found.iter().zip(&expected).take_while(|(one, other)| one == other).count();
                return Ok(compared + same as u64);
            }
            compared += found.len() as u64;
        }
        Ok(compared)
    }

    /// # Panics
    /// When any byte is not the image's, or cannot be read.
    #[track_caller]
    pub fn assert_equal(&self, image: &Path) {
        let bytes = std::fs::metadata(image).unwrap().len();
        assert_eq!(self.bytes(), bytes, "the size");
        assert_eq!(self.equal_bytes(image), Ok(bytes), "the first bytes that are equal");
    }
}
