//! Files that are whole or not there: reports and the like are written beside their place and then renamed.

use serde::Serialize;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A report could not be written; a file that was there before is as it was.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the report to {}: {source}; choose another --report", path.display())]
pub struct ReportError {
    path: PathBuf,
    source: io::Error,
}

/// Writes a report as JSON: beside its place first, then renamed.
///
/// # Errors
/// [`ReportError`] if the folder is missing, full or not writable.
pub fn write_json(report: &impl Serialize, path: &Path) -> Result<(), ReportError> {
    write_whole(path, |out| {
        serde_json::to_writer_pretty(&mut *out, report)?;
        out.write_all(b"\n")
    })
    .map_err(|source| ReportError { path: path.to_owned(), source })
}

/// Says early that a report which is only written at the end cannot be.
///
/// # Errors
/// [`ReportError`] if the folder is missing, or the path that of a folder.
pub fn check_writable(path: &Path) -> Result<(), ReportError> {
    let checked = match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(found) => Ok(found),
        Err(_) => fs::metadata(folder_of(path)),
    };
    checked.map(drop).map_err(|source| ReportError { path: path.to_owned(), source })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The error without the name of a temporary file, which says nothing to anybody.
pub fn without_path(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path \"") {
        Some((what, _)) => io::Error::new(error.kind(), what),
        None => error,
    }
}

/// Writes a file beside its place first, then renames it. A device or a pipe stays what it is, and is written to; so does a
/// link, whose target is replaced.
///
/// # Errors
/// Those of the disk; a file that was there before is as it was.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let place = fs::canonicalize(path);
    let path = place.as_deref().unwrap_or(path);
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let mut out = fs::OpenOptions::new().write(true).open(path)?;
        fill(&mut out)?;
        return out.flush();
    }
    let mut builder = tempfile::Builder::new();
    // Others may read a report, as with any file that the user makes: the umask decides.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".swarmdisk-").tempfile_in(real_folder_of(path)?).map_err(without_path)?;
    let mut buffered = io::BufWriter::new(file.as_file_mut());
    fill(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.as_file().sync_all()?;
    persist(file, path)
}

/// The folder that a file is in, so named that a temporary file in it may have a path of any length.
///
/// # Errors
/// If the current folder is not there.
pub fn real_folder_of(path: &Path) -> io::Result<PathBuf> {
    #[cfg(not(windows))]
    return Ok(folder_of(path).to_owned());
    #[cfg(windows)]
    verbatim(folder_of(path))
}

/// The path in the form that may be longer than 260 characters: `\\?\C:\…`, `\\?\UNC\SERVER\SHARE\…`.
#[cfg(windows)]
fn verbatim(path: &Path) -> io::Result<PathBuf> {
    use std::path::{Component, Prefix};
    let path = std::path::absolute(path)?;
    let Some(Component::Prefix(prefix)) = path.components().next() else { return Ok(path) };
    let root = match prefix.kind() {
        Prefix::Disk(disk) => PathBuf::from(format!(r"\\?\{}:\", char::from(disk))),
        Prefix::UNC(server, share) => Path::new(r"\\?\UNC").join(server).join(share),
        _ => return Ok(path),
    };
    Ok(path
        .components()
        .skip_while(|part| !matches!(part, Component::Normal(_)))
        .fold(root, |path, part| path.join(part)))
}

/// Gives a temporary file its name, in the place of a file that is there.
///
/// # Errors
/// Those of the disk: the temporary file is gone then, and a file that was there before is as it was.
pub fn persist(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    #[cfg(not(windows))]
    file.persist(path)?;
    // There a file that somebody has open, as a seed does, is replaced by the library's own way alone.
    #[cfg(windows)]
    {
        let (_, from) = file.keep()?;
        fs::rename(&from, path).inspect_err(|_| {
            let _ = fs::remove_file(&from);
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        for reads in [1, 2] {
            check_writable(&path).unwrap();
            write_json(&[reads], &path).unwrap();
            assert_eq!(serde_json::from_slice::<[u32; 1]>(&fs::read(&path).unwrap()).unwrap(), [reads]);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let missing = folder.path().join("missing/report.json");
        for error in [write_json(&1, &missing), check_writable(&missing), check_writable(folder.path())] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("choose another --report") && !error.contains('\n'), "{error}");
        }
    }

    #[cfg(windows)]
    #[test]
    fn windows_paths_have_a_form_of_any_length() {
        for (path, long) in [
            (r"C:\a\b", r"\\?\C:\a\b"),
            (r"C:\", r"\\?\C:\"),
            (r"C:/a/../b", r"\\?\C:\b"),
            (r"\\server\share\a", r"\\?\UNC\server\share\a"),
            (r"\\?\C:\a", r"\\?\C:\a"),
        ] {
            assert_eq!(verbatim(Path::new(path)).unwrap(), Path::new(long), "{path}");
        }
    }

    #[test]
    fn what_fails_midway_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "before").unwrap();
        let failed = write_whole(&path, |out| out.write_all(b"half").and(Err(ErrorKind::StorageFull.into())));
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
}
