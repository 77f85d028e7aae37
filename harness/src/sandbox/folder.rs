//! Copies, removes, reads and lays out whole folders.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::call::{Special, TEMPORARY, is_temporary};
use crate::persist::{Entry, Tree};
use crate::sandbox::attributes;

/// Lists every file below `folder` that is no folder, by its relative path.
pub(super) fn list_files(folder: &Path, prefix: &Path, files: &mut BTreeSet<PathBuf>) {
    // An entry that a running process removes during the read counts as missing.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = prefix.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list_files(&entry.path(), &path, files),
            Ok(_) => {
                files.insert(path);
            }
            Err(_) => {}
        }
    }
}

/// Returns the content of the sandbox and TMPDIR as a tree.
///
/// # Errors
/// If it cannot be read, or holds a device.
pub fn tree_of(sandbox: &Path, temporary: &Path) -> io::Result<Tree> {
    let (mut tree, mut linked) = (Tree::default(), BTreeMap::new());
    read_tree(sandbox, "", &mut tree, &mut linked)?;
    if tree.names().any(|name| is_temporary(&name)) {
        return Err(io::Error::other(format!("a file is called {TEMPORARY}, as if it were the folder")));
    }
    match read_tree(temporary, TEMPORARY, &mut tree, &mut linked) {
        Err(gone) if gone.kind() == io::ErrorKind::NotFound && !temporary.exists() => Ok(tree),
        read => read.map(|()| tree),
    }
}

/// Reads a folder into a tree; `prefix` is its path in the tree.
fn read_tree(
    folder: &Path,
    prefix: &str,
    tree: &mut Tree,
    linked: &mut BTreeMap<u64, u32>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| io::Error::other("a file name is no UTF-8"))?;
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        let metadata = entry.metadata()?;
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            tree.put_folder(&path, mode);
            read_tree(&entry.path(), &path, tree, linked)?;
        } else if metadata.is_symlink() {
            tree.put_link(&path, &fs::read_link(entry.path())?.to_string_lossy());
        } else if metadata.is_file() {
            match linked.get(&metadata.ino()) {
                Some(number) => tree.put_name(&path, *number),
                None => {
                    let number = tree.put_file(&path, fs::read(entry.path())?, mode);
                    linked.insert(metadata.ino(), number);
                }
            }
        } else if let Some(special) = special_of(&metadata) {
            tree.put_special(&path, special, mode);
        } else {
            return Err(io::Error::other(format!("{path:?} is a device")));
        }
        if metadata.is_file() || metadata.is_dir() {
            tree.put_attributes(&path, attributes::of(&entry.path())?);
        }
    }
    Ok(())
}

/// Returns the kind of a FIFO or a socket, otherwise `None`.
fn special_of(metadata: &fs::Metadata) -> Option<Special> {
    let kind = metadata.file_type();
    match (kind.is_fifo(), kind.is_socket()) {
        (true, _) => Some(Special::Fifo),
        (_, true) => Some(Special::Socket),
        _ => None,
    }
}

/// Makes a FIFO, or a socket without a listener: the remains of a process's socket.
fn make_special(path: &Path, special: Special, mode: u32) -> io::Result<()> {
    let kind = match special {
        Special::Fifo => rustix::fs::FileType::Fifo,
        Special::Socket => rustix::fs::FileType::Socket,
    };
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, rustix::fs::Mode::from_raw_mode(mode), 0)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Creates the content of a tree in two empty folders.
///
/// # Errors
/// If an entry cannot be made.
pub(super) fn lay_tree(tree: &Tree, sandbox: &Path, temporary: &Path) -> io::Result<()> {
    let mut made: BTreeMap<u32, PathBuf> = BTreeMap::new();
    let mut folders = Vec::new();
    for (name, entry) in tree.entries() {
        let path = match name.strip_prefix(TEMPORARY).and_then(|inner| inner.strip_prefix('/')) {
            Some(inner) => temporary.join(inner),
            None => sandbox.join(name),
        };
        match entry {
            Entry::File { number, content, mode, attributes } => match made.get(&number) {
                Some(first) => fs::hard_link(first, &path)?,
                None => {
                    fs::write(&path, content)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
                    attributes::set(&path, attributes)?;
                    made.insert(number, path);
                }
            },
            Entry::Folder { mode, attributes } => {
                fs::DirBuilder::new().mode(mode | 0o700).create(&path)?;
                folders.push((path, attributes));
            }
            Entry::Link(to) => std::os::unix::fs::symlink(to, &path)?,
            Entry::Special(special, mode) => make_special(&path, special, mode)?,
        }
    }
    // Some attributes of a folder, such as a default access list, are inherited by its new entries.
    folders.into_iter().try_for_each(|(path, given)| attributes::set(&path, given))
}

/// Removes `folder` and its content. A process may still write in it, so an entry that appears meanwhile is removed in
/// another round.
pub(super) fn remove_all(folder: &Path) -> io::Result<()> {
    const ROUNDS: u64 = 50;
    for round in 0.. {
        match fs::remove_dir_all(folder) {
            Ok(()) => return Ok(()),
            Err(gone) if gone.kind() == io::ErrorKind::NotFound && !folder.exists() => return Ok(()),
            Err(refused) if round == ROUNDS => return Err(refused),
            // A read-only folder, such as a cache of modules, can be made writable by its owner.
            Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => make_writable(folder),
            Err(_) => thread::sleep(Duration::from_millis(round)),
        }
    }
    Ok(())
}

/// Makes every folder of a tree accessible to its owner, as far as that is allowed.
fn make_writable(folder: &Path) {
    let _changed = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

/// Copies a tree with its names, modes, owners and links; hard links within it stay hard links.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    copy_folder(from, to, &mut BTreeMap::new())
}

fn copy_folder(from: &Path, to: &Path, linked: &mut BTreeMap<u64, PathBuf>) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        let metadata = entry.metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            copy_folder(&source, &copy, linked)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &copy)?;
        } else if kind.is_file() {
            if metadata.nlink() > 1 {
                if let Some(first) = linked.get(&metadata.ino()) {
                    fs::hard_link(first, &copy)?;
                    continue;
                }
                linked.insert(metadata.ino(), copy.clone());
            }
            fs::copy(&source, &copy)?;
            keep_owner(&metadata, &copy)?;
            attributes::set(&copy, &attributes::of(&source)?)?;
        } else if let Some(special) = special_of(&metadata) {
            make_special(&copy, special, metadata.permissions().mode() & 0o7777)?;
        }
    }
    let metadata = fs::metadata(from)?;
    keep_owner(&metadata, to)?;
    fs::set_permissions(to, metadata.permissions())?;
    attributes::set(to, &attributes::of(from)?)
}

fn keep_owner(old: &fs::Metadata, path: &Path) -> io::Result<()> {
    let new = fs::metadata(path)?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        std::os::unix::fs::chown(path, Some(old.uid()), Some(old.gid()))?;
        fs::set_permissions(path, old.permissions())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that kept its size in an attribute of its file got a file without it, and one with a FIFO got no FIFO.
    #[test]
    fn attributes_and_special_files_are_laid_out() {
        // In the folder of the sandboxes, if that file system has attributes at all.
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("from/d")).unwrap();
        fs::write(path("from/d/file"), "x").unwrap();
        for (name, value) in [("from/d/file", "1"), ("from/d", "2")] {
            let given = BTreeMap::from([("user.n".to_owned(), value.into())]);
            attributes::set(&path(name), &given).unwrap();
        }
        make_special(&path("from/pipe"), Special::Fifo, 0o640).unwrap();
        make_special(&path("from/sock"), Special::Socket, 0o600).unwrap();
        let tree = tree_of(&path("from"), &path("none")).unwrap();
        assert_eq!(tree.names().collect::<Vec<_>>(), ["d", "d/file", "pipe", "sock"]);
        assert_eq!(tree.attributes("d/file").unwrap()["user.n"], b"1");
        copy_tree(&path("from"), &path("copy")).unwrap();
        fs::create_dir(path("laid")).unwrap();
        lay_tree(&tree, &path("laid"), &path("none")).unwrap();
        for other in ["copy", "laid"] {
            assert_eq!(tree_of(&path(other), &path("none")).unwrap(), tree, "{other}");
        }
        attributes::set(&path("laid/d/file"), &BTreeMap::new()).unwrap();
        assert_ne!(tree_of(&path("laid"), &path("none")).unwrap(), tree);
    }
}
