//! Compares what a replay reads with an image and with what it has written, on a thread beside it.
//!
//! *Invariants*: checks come in the order of their groups; within one nothing that was written overlaps anything else, so
//! that their order there does not matter. *Bounds*: [`QUEUE`] checks wait; what was written takes an entry a write at most
//! twice.

use super::ReplayError;
use super::written::Written;
use crate::file::read_exact_at;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use tokio::task::spawn_blocking;

/// Requests that wait to be looked at.
const QUEUE: usize = 256;

/// An answered request.
pub(super) enum Check {
    /// These bytes were at `offset`.
    Read {
        /// First byte.
        offset: u64,
        /// What was read.
        segments: Vec<Bytes>,
    },
    /// The contents of this number were written.
    Written {
        /// Which request, so that each has contents of its own.
        number: u64,
        /// First byte.
        offset: u64,
        /// Length.
        bytes: u32,
    },
}

/// The thread that compares.
pub(super) struct Verifier {
    /// Where checks go.
    pub(super) queue: SyncSender<Check>,
    thread: thread::JoinHandle<io::Result<u64>>,
    path: PathBuf,
}

impl Verifier {
    pub(super) fn start(path: &Path) -> Result<Self, ReplayError> {
        let fail = |source| ReplayError::Verify { path: path.to_owned(), source };
        let image = File::open(path).map_err(fail)?;
        let (queue, checks) = sync_channel::<Check>(QUEUE);
        let compare = move || {
            let (mut written, mut mismatches) = (Written::default(), 0);
            for check in checks {
                match check {
                    Check::Written { number, offset, bytes } => written.add(number, offset, bytes),
                    Check::Read { offset, segments } => {
                        mismatches += u64::from(!is_same(&image, &written, offset, &segments)?);
                    }
                }
            }
            Ok(mismatches)
        };
        let thread = thread::Builder::new().name("verify".into()).spawn(compare).map_err(ReplayError::Broken)?;
        Ok(Self { queue, thread, path: path.to_owned() })
    }

    pub(super) async fn finish(self) -> Result<u64, ReplayError> {
        let Self { queue, thread, path } = self;
        drop(queue);
        let joined = spawn_blocking(move || thread.join()).await.map_err(|error| ReplayError::Broken(error.into()))?;
        let compared = joined.unwrap_or_else(|_| Err(io::Error::other("the comparison panicked")));
        compared.map_err(|source| ReplayError::Verify { path, source })
    }
}

fn is_same(image: &File, written: &Written, mut offset: u64, segments: &[Bytes]) -> io::Result<bool> {
    let (mut expected, mut same) = (Vec::new(), true);
    for segment in segments {
        expected.resize(segment.len(), 0);
        read_exact_at(image, &mut expected, offset)?;
        written.lay_over(&mut expected, offset);
        same &= segment == &expected;
        offset += segment.len() as u64;
    }
    Ok(same)
}
