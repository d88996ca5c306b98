//! Reads of what is held, on their way to the predictor.
//!
//! *Purpose*: warm reads do not wake the engine's task one by one; their news is gathered for [`BATCH`].
//! *Bounds*: [`TOUCHES_MAX`] a batch; more are not told, since the predictor needs the gist, not each read.

use super::handle::NodeHandle;
use super::message::Request;
use std::sync::{Arc, Mutex, PoisonError};
use swarmdisk_core::geometry::ChunkIndex;
use swarmdisk_core::ids::GuestId;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Duration, sleep};

const BATCH: Duration = Duration::from_millis(5);
const TOUCHES_MAX: usize = 4096;

/// Gathers touches and passes them on; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Touches {
    shared: Arc<Shared>,
    teller: AbortHandle,
}

#[derive(Debug, Default)]
struct Shared {
    batch: Mutex<Vec<(GuestId, ChunkIndex)>>,
    begun: Notify,
}

impl Touches {
    /// For this node, on the current tokio runtime.
    pub fn new(node: NodeHandle) -> Self {
        let shared = Arc::new(Shared::default());
        let teller = tokio::spawn(tell(shared.clone(), node)).abort_handle();
        Self { shared, teller }
    }

    /// A guest has read a chunk that was held.
    pub fn add(&self, guest: GuestId, chunk: ChunkIndex) {
        self.add_all(guest, [chunk]);
    }

    /// The same of several.
    pub fn add_all(&self, guest: GuestId, chunks: impl IntoIterator<Item = ChunkIndex>) {
        let mut batch = self.shared.batch.lock().unwrap_or_else(PoisonError::into_inner);
        if batch.is_empty() {
            self.shared.begun.notify_one();
        }
        for chunk in chunks {
            // A guest reads a chunk in many small reads.
            if batch.last() != Some(&(guest, chunk)) && batch.len() < TOUCHES_MAX {
                batch.push((guest, chunk));
            }
        }
    }
}

impl Drop for Touches {
    fn drop(&mut self) {
        self.teller.abort();
    }
}

async fn tell(shared: Arc<Shared>, node: NodeHandle) {
    loop {
        shared.begun.notified().await;
        sleep(BATCH).await;
        let batch = std::mem::take(&mut *shared.batch.lock().unwrap_or_else(PoisonError::into_inner));
        node.request(Request::Touched(batch));
    }
}
