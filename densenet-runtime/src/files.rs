//! Files that are written completely or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// The suffix of a file's name while it is being written.
const PARTIAL: &str = ".partial";

/// Replaces a file's contents by these bytes, completely or not at all.
///
/// The bytes are first written to a file beside it with a fixed name. If the process is killed,
/// that file stays, and the next process overwrites it.
///
/// # Errors
/// If the bytes cannot be written, or another process is writing the same file. The old file is
/// then unchanged.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // In the same folder, since a rename does not cross file systems.
    let mut partial = OsString::from(path);
    partial.push(PARTIAL);
    let partial = PathBuf::from(partial);
    let mut file = open(&partial)?;
    let moved = fill(&mut file, bytes).and_then(|()| fs::rename(&partial, path));
    if let Err(error) = moved {
        // Nobody needs it, and it takes up space on a full disk.
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    sync_folder(path);
    Ok(())
}

fn fill(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(bytes)?;
    // Flushed to disk before the rename, or a crash could leave an empty file under the final name.
    file.sync_all()
}

/// Opens the partial file for this process alone.
fn open(partial: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(partial)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    ErrorKind::ResourceBusy,
                    "another process is writing it now",
                ));
            }
            // The file system has no locks; continue without one.
            Err(TryLockError::Error(_)) => return Ok(file),
        }
        // Another process may have moved it to its final name before we got the lock.
        if is_at(&file, partial)? {
            return Ok(file);
        }
    }
}

/// Whether this path still names the open file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Here an open file cannot be renamed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Flushes the new name to disk. The file is whole under either name, so a failure does no harm.
fn sync_folder(path: &Path) {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_process_left_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        fs::write(folder.path().join("a.safetensors.partial"), [7; 1000]).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.safetensors"]);
    }

    #[test]
    fn a_file_that_cannot_take_its_place_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("full")).unwrap();
        replace(&path, b"new").unwrap_err();
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn two_at_once_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let write = |value: u8| {
            let mut written = 0;
            for _ in 0..200 {
                match replace(&path, &[value; 100_000]) {
                    Ok(()) => written += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}"),
                }
                let found = fs::read(&path).unwrap_or_else(|_| vec![value; 100_000]);
                assert_eq!(found.len(), 100_000);
                assert!(found.iter().all(|&byte| byte == found[0]));
            }
            written
        };
        let write = &write;
        let written = std::thread::scope(|scope| {
            let threads = [1, 2].map(|value| scope.spawn(move || write(value)));
            threads.map(|thread| thread.join().unwrap())
        });
        assert!(written.iter().sum::<i32>() > 0);
        assert_eq!(names(folder.path()), ["a"]);
    }
}
