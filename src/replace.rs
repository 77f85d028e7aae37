//! Replaces a file's content so that it is the old or the new one at any moment, after a kill or a power loss too.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{self, Disk, How, Opened, Status, write_all};
use crate::error::{Error, ErrorKind};
use crate::lock::Guard;

/// Maximum number of links in a chain before it is taken for a loop; the kernel's own limit.
const LINKS_MAX: u32 = 40;

/// Replaces the content of `path` with `content`, durably: it is on disk when this returns.
///
/// The new content goes to a temporary file in the same folder, which is synced and renamed over `path`; then the
/// folder is synced. Mode and owner of an existing file are kept, and a symbolic link stays one: the file that it
/// points to is replaced. The temporary file has one fixed name (`.NAME.tmp`), so that a killed writer leaves at most
/// one, which the next writer removes; `guard` proves that no two writers use it at once.
///
/// # Errors
/// [`ErrorKind::WrongLock`] if `guard` is not that of `NAME.lock` beside this file; [`ErrorKind::NotAFile`] if `path`
/// names something other than a regular file; [`ErrorKind::Io`] with the call that failed. After any error except a
/// failed sync of the folder, which comes after the rename, the old content is still there.
pub fn replace(guard: &Guard<'_>, path: &Path, content: &[u8]) -> Result<(), Error> {
    let path = resolve(path)?;
    let expected = lock_path(&path);
    if !guard.holds(&expected) {
        return Err(Error::new("replace", &path, ErrorKind::WrongLock(expected)));
    }
    replace_resolved(&*disk::real(), &path, content).map(drop)
}

/// [`replace`] for a path that is known to be no link and whose lock is known to be held. Returns the new file.
pub(crate) fn replace_resolved(
    disk: &dyn Disk,
    path: &Path,
    content: &[u8],
) -> Result<Arc<dyn Opened>, Error> {
    let file = put_in_place(disk, path, content)?;
    let folder = folder_of(path);
    disk.sync_folder(folder).map_err(Error::io("sync the folder", folder))?;
    Ok(file)
}

/// The same, without waiting until the disk has the new name.
pub(crate) fn put_in_place(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<Arc<dyn Opened>, Error> {
    let old = disk.status(path).map_err(Error::io("examine", path))?;
    if old.is_some_and(|old| !old.is_file) {
        return Err(Error::new("replace", path, ErrorKind::NotAFile));
    }
    let temporary = beside(path, ".", ".tmp");
    let written = write_temporary(disk, &temporary, old.as_ref(), content).and_then(|file| {
        disk.rename(&temporary, path).map(|()| file).map_err(Error::io("rename over", path))
    });
    if written.is_err() {
        // Best effort: the next writer removes it too, and the first error is the one to report.
        let _removed = disk.remove(&temporary);
    }
    written
}

fn write_temporary(
    disk: &dyn Disk,
    temporary: &Path,
    old: Option<&Status>,
    content: &[u8],
) -> Result<Arc<dyn Opened>, Error> {
    // If a mode must be kept, the file is private until it is set.
    let how = How::New(old.map(|_| 0o600));
    let file = match disk.open(temporary, how) {
        Err(leftover) if leftover.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(temporary).map_err(Error::io("remove the leftover", temporary))?;
            disk.open(temporary, how)
        }
        opened => opened,
    }
    .map_err(Error::io("create", temporary))?;
    write_all(content, |bytes| file.write(bytes)).map_err(Error::io("write", temporary))?;
    if let Some(old) = old {
        let new = file.status().map_err(Error::io("examine", temporary))?;
        if new.owner != old.owner {
            file.set_owner(old.owner).map_err(Error::io("keep the owner in", temporary))?;
        }
        // After the owner, because changing that clears the set-id bits.
        if new.mode != old.mode || new.owner != old.owner {
            file.set_mode(old.mode).map_err(Error::io("keep the mode in", temporary))?;
        }
    }
    file.sync().map_err(Error::io("sync", temporary))?;
    Ok(file)
}

/// Creates a folder and its missing parents, and ensures that the disk has their names.
pub(crate) fn create_folder(folder: &Path) -> Result<(), Error> {
    match fs::create_dir(folder) {
        Err(there) if there.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound && folder_of(folder) != folder => {
            create_folder(folder_of(folder))?;
            return create_folder(folder);
        }
        created => created.map_err(Error::io("create the folder", folder))?,
    }
    let parent = folder_of(folder);
    disk::real().sync_folder(parent).map_err(Error::io("sync the folder", parent))
}

/// Returns the file that `path` names after following every symbolic link at its end; it need not exist.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let mut resolved = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&resolved) {
            Ok(target) => resolved = folder_of(&resolved).join(target),
            // Not a link, or not there yet.
            Err(end) if matches!(end.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
                return if resolved.file_name().is_some() {
                    Ok(resolved)
                } else {
                    Err(Error::new("open", path, ErrorKind::NotAFile))
                };
            }
            Err(other) => return Err(Error::io("follow", &resolved)(other)),
        }
    }
    Err(Error::io("follow", path)(io::Error::from_raw_os_error(libc::ELOOP)))
}

/// Returns the lock file of the data file `path`: `NAME.lock` beside it.
pub(crate) fn lock_path(path: &Path) -> PathBuf {
    beside(path, "", ".lock")
}

pub(crate) fn beside(path: &Path, before: &str, after: &str) -> PathBuf {
    let mut name = OsString::from(before);
    name.push(path.file_name().unwrap_or_default());
    name.push(after);
    path.with_file_name(name)
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::FileLock;

    fn replaced(path: &Path, content: &str) -> Result<(), Error> {
        let lock = FileLock::new(lock_path(&resolve(path)?));
        let guard = lock.lock()?;
        replace(&guard, path, content.as_bytes())
    }

    #[test]
    fn the_new_content_is_there_and_nothing_is_left_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a name with\nnewline");
        replaced(&path, "one").unwrap();
        replaced(&path, "two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the data and its lock");
    }

    #[test]
    fn mode_and_owner_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        // Only root can set another owner; for other users this shows only that nothing fails.
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
        }
        let before = fs::metadata(&path).unwrap();
        replaced(&path, "two").unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_ne!(before.ino(), after.ino());
        assert_eq!((before.mode(), before.uid(), before.gid()), (after.mode(), after.uid(), after.gid()));
    }

    #[test]
    fn a_symbolic_link_stays_one_even_where_it_dangles() {
        let folder = tempfile::tempdir().unwrap();
        let (link, second, target) =
            (folder.path().join("l"), folder.path().join("m"), folder.path().join("t"));
        std::os::unix::fs::symlink("m", &link).unwrap();
        std::os::unix::fs::symlink(&target, &second).unwrap();
        for content in ["dangling", "pointing"] {
            replaced(&link, content).unwrap();
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(fs::read_to_string(&target).unwrap(), content);
        }
    }

    #[test]
    fn a_loop_of_links_a_folder_and_a_path_without_a_name_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("l");
        std::os::unix::fs::symlink("l", &link).unwrap();
        assert!(matches!(replaced(&link, "x").unwrap_err().kind(), ErrorKind::Io(_)));
        let inner = folder.path().join("d");
        fs::create_dir(&inner).unwrap();
        assert!(matches!(replaced(&inner, "x").unwrap_err().kind(), ErrorKind::NotAFile));
        assert!(matches!(replaced(Path::new("/"), "x").unwrap_err().kind(), ErrorKind::NotAFile));
    }

    #[test]
    fn the_guard_of_another_lock_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let lock = FileLock::new(folder.path().join("unrelated.lock"));
        let refused = replace(&lock.lock().unwrap(), &path, b"x").unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::WrongLock(_)), "{refused}");
        assert!(!path.exists());
    }

    #[test]
    fn a_leftover_of_a_killed_writer_is_taken_away_and_a_planted_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("a"), folder.path().join("victim"));
        fs::write(beside(&path, ".", ".tmp"), "half a docum").unwrap();
        replaced(&path, "one").unwrap();
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, beside(&path, ".", ".tmp")).unwrap();
        replaced(&path, "two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(fs::symlink_metadata(beside(&path, ".", ".tmp")).is_err());
    }
}
