//! Files that appear at once or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// What a file is called while it is written: its name, and this.
const PARTIAL: &str = ".partial";

/// Puts bytes in a file's place: all of them, or none.
///
/// They are written beside it first, under a name that is always the same. A process that is
/// killed leaves that file behind, and the next one takes it over.
///
/// # Errors
/// When the bytes cannot be written, or another process is writing the same file. What was there
/// before is unchanged.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Beside the other, since a rename does not cross file systems.
    let mut partial = OsString::from(path);
    partial.push(PARTIAL);
    let partial = PathBuf::from(partial);
    let mut file = open(&partial)?;
    let moved = fill(&mut file, bytes).and_then(|()| fs::rename(&partial, path));
    if let Err(error) = moved {
        // It holds nothing that anybody wants, and room on a full disk.
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    sync_folder(path);
    Ok(())
}

fn fill(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(bytes)?;
    // On the disk before it takes the name, or a crash could leave an empty file there.
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
                    "another process is writing it at this moment",
                ));
            }
            // A file system without locks; nothing else is known to write here.
            Err(TryLockError::Error(_)) => return Ok(file),
        }
        // Another process may have moved it to its final name before this one had the lock.
        if is_at(&file, partial)? {
            return Ok(file);
        }
    }
}

/// Whether an open file still has this name.
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

/// A file that is open cannot be renamed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Has the new name on the disk, too. The file is whole under either name, so this may fail.
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
