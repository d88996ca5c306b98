//! The profile of an image in a store, from recorded runs.

use crate::store::{Store, StoreError};
use swarmdisk_common::profile::{MergeError, Merged, merge};
use swarmdisk_common::trace::Trace;
use swarmdisk_core::format::profile::{self, ProfileError};

/// Why no profile was made. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The image cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The traces make none.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The format cannot hold it.
    #[error("the profile cannot be written ({0:?})")]
    Format(ProfileError),
}

/// Merges `traces` (each with a name for errors) into a profile of the image in `store`; gives its bytes and what it says.
///
/// # Errors
/// See [`BuildError`].
pub fn build(store: &Store, traces: &[(String, Trace)]) -> Result<(Vec<u8>, Merged), BuildError> {
    let is_zero = |chunk| Ok::<_, BuildError>(store.chunk_is_zero(chunk)? == Some(true));
    let merged = merge(store.geometry(), traces, is_zero)?;
    let mut bytes = vec![0; profile::encoded_bytes_max(merged.groups.len(), merged.entries.len())];
    let length = profile::encode(store.image(), &merged.groups, &merged.entries, &mut bytes);
    bytes.truncate(length.map_err(BuildError::Format)?);
    Ok((bytes, merged))
}
