//! Whole folders: copied, removed, read into a tree, laid out from one, and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::persist::{Entry, Tree};

/// Every file below `folder` that is no folder itself, by its path from there.
pub(super) fn list_files(folder: &Path, prefix: &Path, files: &mut BTreeSet<PathBuf>) {
    // What vanishes while it is looked at, because something lives on in there, is as good as gone.
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

/// What stands in a folder, as a tree.
///
/// # Errors
/// Where it cannot be read, or holds what is neither file, folder nor link.
pub fn tree_of(folder: &Path) -> io::Result<Tree> {
    let mut tree = Tree::default();
    read_tree(folder, "", &mut tree, &mut BTreeMap::new())?;
    Ok(tree)
}

/// Reads a folder into a tree; `prefix` is its path in there.
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
        } else {
            return Err(io::Error::other(format!("{path:?} is no file, folder or link")));
        }
    }
    Ok(())
}

/// Makes what is in a tree in a folder that is empty.
///
/// # Errors
/// Where something cannot be made.
pub(super) fn lay_tree(tree: &Tree, folder: &Path) -> io::Result<()> {
    let mut made: BTreeMap<u32, PathBuf> = BTreeMap::new();
    for (name, entry) in tree.entries() {
        let path = folder.join(name);
        match entry {
            Entry::File(number, content, mode) => match made.get(&number) {
                Some(first) => fs::hard_link(first, &path)?,
                None => {
                    fs::write(&path, content)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
                    made.insert(number, path);
                }
            },
            Entry::Folder(mode) => fs::DirBuilder::new().mode(mode | 0o700).create(&path)?,
            Entry::Link(to) => std::os::unix::fs::symlink(to, &path)?,
        }
    }
    Ok(())
}

/// Removes `folder` and all in it. Somebody may still be writing in there, so an entry that appears meanwhile is
/// removed in another round.
pub(super) fn remove_all(folder: &Path) -> io::Result<()> {
    const ROUNDS: u64 = 50;
    for round in 0.. {
        match fs::remove_dir_all(folder) {
            Ok(()) => return Ok(()),
            Err(gone) if gone.kind() == io::ErrorKind::NotFound && !folder.exists() => return Ok(()),
            Err(refused) if round == ROUNDS => return Err(refused),
            // A folder that its owner may not write in, such as a cache of modules, may be made writable by its owner.
            Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => make_writable(folder),
            Err(_) => thread::sleep(Duration::from_millis(round)),
        }
    }
    Ok(())
}

/// Lets the owner into every folder of a tree, as far as that is allowed.
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
        } else if kind.is_fifo() || kind.is_socket() {
            // Meeting points of living processes: there is nothing in them to copy.
        }
    }
    let metadata = fs::metadata(from)?;
    keep_owner(&metadata, to)?;
    fs::set_permissions(to, metadata.permissions())
}

fn keep_owner(old: &fs::Metadata, path: &Path) -> io::Result<()> {
    let new = fs::metadata(path)?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        std::os::unix::fs::chown(path, Some(old.uid()), Some(old.gid()))?;
        fs::set_permissions(path, old.permissions())?;
    }
    Ok(())
}
