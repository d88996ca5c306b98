//! The file that an engine is recorded to.
//!
//! *Invariants*: recording never holds up the engine's task, and a disk that is full ends the recording, not the node.
//! *Bounds*: those of a file written in the background.

use crate::background::BackgroundFile;
use crate::log;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use swarmdisk_common::recording::Sink;

/// The recording cannot be written to its place, or not wholly.
#[derive(Debug, thiserror::Error)]
#[error("cannot record the engine to {}: {source}; make room or choose another --record-engine", path.display())]
pub struct EngineRecordError {
    path: PathBuf,
    source: io::Error,
}

/// Writes a recording. Clones write the same one.
#[derive(Debug, Clone)]
pub(super) struct EngineRecorder {
    path: Arc<Path>,
    file: Arc<BackgroundFile>,
}

impl EngineRecorder {
    /// To a new file.
    pub(super) fn create(path: &Path) -> Result<Self, EngineRecordError> {
        match BackgroundFile::create(path) {
            Ok(file) => Ok(Self { path: path.into(), file: Arc::new(file) }),
            Err(source) => Err(EngineRecordError { path: path.to_owned(), source }),
        }
    }

    /// Where an engine's records go. When the recording ends early, a line says so, once.
    pub(super) fn sink(&self) -> Sink {
        let recorder = self.clone();
        Box::new(move |record| {
            let goes_on = recorder.file.append(|bytes| bytes.extend_from_slice(record));
            if let Some(source) = (!goes_on).then(|| recorder.file.take_failure()).flatten() {
                recorder.complain(source);
            }
            goes_on
        })
    }

    /// Writes what is left. Blocks for as long as the disk takes.
    pub(super) fn finish(&self) {
        if let Err(source) = self.file.finish() {
            self.complain(source);
        }
    }

    fn complain(&self, source: io::Error) {
        log::warn(format_args!("{}", EngineRecordError { path: self.path.to_path_buf(), source }));
    }
}
