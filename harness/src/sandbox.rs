//! The sandbox: a fresh folder for each execution, laid out anew from the old state, looked at, and removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::observation::{FileState, State};
use crate::op::{Nanos, stable_hash};
use crate::persist::{Entry, Tree};
use crate::target::{DataFile, Format, Target, UsageError, Values};

/// The memory file system that every Linux has, and its magic number for `statfs(2)`.
const SHARED_MEMORY: (&str, i64) = ("/dev/shm", 0x0102_1994);
/// How much must fit into the file system before anything starts.
const PROBE_BYTES: usize = 64 << 10;

/// The folders of one run: the sandbox itself, and what must not stand in it.
///
/// ```text
/// picklock-XXXXXX/sandbox   {dir}: what is judged; its path stays, its content is laid anew for each execution
/// picklock-XXXXXX/old       what `init` left
/// picklock-XXXXXX/first     the same, and the store's first record
/// picklock-XXXXXX/tmp       TMPDIR of the store
/// picklock-XXXXXX/bin       {store} and {critical}
/// ```
#[derive(Debug)]
pub struct Sandbox {
    root: Root,
    data: PathBuf,
}

/// A folder that is removed when nobody has it any more.
#[derive(Debug)]
struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        // Whoever wants to know whether that worked calls `Sandbox::remove`.
        let _removed = remove_all(&self.0);
    }
}

impl Sandbox {
    /// Makes the folders in `base`, or in memory where none is given. `multi_call` is the program that is the
    /// embedded store under the name `picklock-store` and the helper under the name `picklock-critical`. `made` is told
    /// of the folder that holds them all just before it is made, so that there is no moment at which nobody knows of it.
    ///
    /// # Errors
    /// Where the folders cannot be made, or nothing fits in there.
    pub fn create(
        base: Option<&Path>,
        data: &DataFile,
        multi_call: Option<&Path>,
        made: &dyn Fn(&Path),
    ) -> io::Result<Self> {
        let base = base.map_or_else(default_base, Path::to_owned);
        let make = |path: &Path| {
            // Nobody may be told to remove what is another's.
            if path.exists() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            made(path);
            fs::DirBuilder::new().mode(0o700).create(path)
        };
        let unique =
            tempfile::Builder::new().prefix("picklock-").make_in(std::path::absolute(base)?, make)?;
        let root = Root(unique.into_temp_path().keep().map_err(|kept| kept.error)?);
        let sandbox = Self { data: data.path.clone(), root };
        for folder in [sandbox.dir(), sandbox.tmp(), sandbox.bin()] {
            fs::create_dir(folder)?;
        }
        let probe = sandbox.tmp().join("probe");
        fs::write(&probe, vec![1; PROBE_BYTES])?;
        fs::File::open(&probe)?.sync_all()?;
        fs::remove_file(&probe)?;
        if let Some(program) = multi_call {
            for link in [sandbox.store(), sandbox.critical()] {
                std::os::unix::fs::symlink(program, link)?;
            }
        }
        sandbox.lay()?;
        Ok(sandbox)
    }

    /// The same for the folder that `--dir` names, or the default.
    ///
    /// # Errors
    /// Where the folder cannot hold a sandbox.
    pub fn in_dir(
        dir: Option<&Path>,
        data: &DataFile,
        multi_call: Option<&Path>,
        made: &dyn Fn(&Path),
    ) -> Result<Self, UsageError> {
        Self::create(dir, data, multi_call, made).map_err(|why| {
            let place =
                dir.map_or_else(|| "the default folder for sandboxes".to_owned(), |dir| format!("{dir:?}"));
            UsageError::new("--dir", format!("{place} cannot hold a sandbox: {why}"))
                .help("name a folder that exists, is writable and has a megabyte free")
        })
    }

    /// Finds out whether the folder can hold one, so that it is told before the report of the last run is written over.
    ///
    /// # Errors
    /// As [`Self::in_dir`]; or where the one that was made cannot be removed.
    pub fn try_dir(dir: Option<&Path>, data: &DataFile, made: &dyn Fn(&Path)) -> Result<(), UsageError> {
        let removed = Self::in_dir(dir, data, None, made)?.remove();
        removed.map_err(|why| UsageError::new("--dir", why.to_string()))
    }

    /// The run's own folder, which holds all the others.
    pub fn root(&self) -> &Path {
        &self.root.0
    }

    /// `{dir}`.
    pub fn dir(&self) -> PathBuf {
        self.root.0.join("sandbox")
    }

    /// `{data}`.
    pub fn data(&self) -> PathBuf {
        self.dir().join(&self.data)
    }

    /// The store's TMPDIR.
    pub fn tmp(&self) -> PathBuf {
        self.root.0.join("tmp")
    }

    fn bin(&self) -> PathBuf {
        self.root.0.join("bin")
    }

    fn store(&self) -> PathBuf {
        self.bin().join("picklock-store")
    }

    fn critical(&self) -> PathBuf {
        self.bin().join("picklock-critical")
    }

    fn old(&self) -> PathBuf {
        self.root.0.join("old")
    }

    fn first(&self) -> PathBuf {
        self.root.0.join("first")
    }

    /// What the placeholders stand for that are the same in every operation.
    pub fn values(&self) -> Values {
        Values {
            dir: self.dir(),
            data: self.data(),
            store: self.store(),
            critical: self.critical(),
            ..Values::default()
        }
    }

    /// Takes what stands in the sandbox now for the old state of every execution to come.
    ///
    /// # Errors
    /// Where it cannot be copied.
    pub fn keep_as_old(&self) -> io::Result<()> {
        remove_all(&self.old())?;
        copy_tree(&self.dir(), &self.old())
    }

    /// Takes what stands in the sandbox now for the state with the first record in it.
    ///
    /// # Errors
    /// Where it cannot be copied.
    pub fn keep_as_first(&self) -> io::Result<()> {
        remove_all(&self.first())?;
        copy_tree(&self.dir(), &self.first())
    }

    /// Lays the state with the first record out.
    ///
    /// # Errors
    /// Where something cannot be removed or copied.
    pub fn lay_first(&self) -> io::Result<()> {
        self.lay_from(&self.first())
    }

    /// Whether an old state was kept, so that `init` need not run again.
    pub fn has_old(&self) -> bool {
        self.old().exists()
    }

    /// Lays the old state out: whatever is in the sandbox goes, and what `init` left comes back.
    ///
    /// # Errors
    /// Where something cannot be removed or copied.
    pub fn lay(&self) -> io::Result<()> {
        self.lay_from(&self.old())
    }

    fn lay_from(&self, kept: &Path) -> io::Result<()> {
        for folder in [self.dir(), self.tmp()] {
            remove_all(&folder)?;
        }
        fs::DirBuilder::new().mode(0o700).create(self.tmp())?;
        if kept.exists() {
            copy_tree(kept, &self.dir())?;
        } else {
            fs::create_dir(self.dir())?;
        }
        // A data file in a folder of its own: the store is given a path that it can create.
        if let Some(parent) = self.data().parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(())
    }

    /// What stands in the sandbox now, as a tree.
    ///
    /// # Errors
    /// Where it cannot be read, or holds what is neither file, folder nor link.
    pub fn tree(&self) -> io::Result<Tree> {
        tree_of(&self.dir())
    }

    /// Lays a tree out: whatever is in the sandbox goes.
    ///
    /// # Errors
    /// Where something cannot be removed or made.
    pub fn lay_tree(&self, tree: &Tree) -> io::Result<()> {
        for folder in [self.dir(), self.tmp()] {
            remove_all(&folder)?;
        }
        fs::DirBuilder::new().mode(0o700).create(self.tmp())?;
        fs::create_dir(self.dir())?;
        let mut made: BTreeMap<u32, PathBuf> = BTreeMap::new();
        for (name, entry) in tree.entries() {
            let path = self.dir().join(name);
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

    /// What stands in the sandbox now. A data file whose records cannot be read is broken.
    pub fn look(&self, target: &Target, at: Nanos) -> State {
        let data = &target.data;
        let (content, state) = read(&self.data(), data.format);
        let (state, records) = target.examine(content.as_deref(), state);
        let mut files = BTreeSet::new();
        list_files(&self.dir(), Path::new(""), &mut files);
        State {
            at,
            data: state,
            records,
            also: self.also(data, &files),
            files: files.into_iter().map(|file| file.display().to_string()).collect(),
            source: target.derived.as_ref().and_then(|_| digest(&self.data())),
            derived: self.derived(target),
        }
    }

    fn derived(&self, target: &Target) -> BTreeMap<String, String> {
        let files = target.derived.iter().flat_map(|derived| &derived.files);
        files.filter_map(|file| Some((file.clone(), digest(&self.dir().join(file))?))).collect()
    }

    /// Puts into a file, where it is there, what `change` makes of its content; nothing removes it.
    ///
    /// # Errors
    /// Where the system refuses it.
    pub fn change(&self, file: &str, change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> io::Result<()> {
        let path = self.dir().join(file);
        if !path.is_file() {
            return Ok(());
        }
        let content = match fs::read(&path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
            content => content?,
        };
        match change(&content) {
            Some(left) => fs::write(path, left),
            None => fs::remove_file(path),
        }
    }

    fn also(&self, data: &DataFile, files: &BTreeSet<PathBuf>) -> BTreeMap<String, FileState> {
        // A star stays within one folder, as in a shell.
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let patterns: Vec<glob::Pattern> =
            data.also.iter().filter_map(|text| glob::Pattern::new(text).ok()).collect();
        files
            .iter()
            .filter(|file| patterns.iter().any(|pattern| pattern.matches_path_with(file, options)))
            .map(|file| {
                let (_, state) = read(&self.dir().join(file), Format::by_extension(file));
                (file.display().to_string(), state)
            })
            .collect()
    }

    /// The sandbox itself and every folder in it.
    pub fn folders(&self) -> Vec<PathBuf> {
        let mut found = vec![self.dir()];
        let mut index = 0;
        while let Some(folder) = found.get(index).cloned() {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            found.extend(
                entries
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
            index += 1;
        }
        found
    }

    /// The size of the largest file in the sandbox, in bytes.
    pub fn largest_file(&self) -> u64 {
        let mut files = BTreeSet::new();
        list_files(&self.dir(), Path::new(""), &mut files);
        let sizes =
            files.iter().filter_map(|file| Some(fs::symlink_metadata(self.dir().join(file)).ok()?.len()));
        sizes.max().unwrap_or(0)
    }

    /// Leaves a copy of what stands in the sandbox now, for a person to look at.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn copy_to(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        remove_all(path)?;
        copy_tree(&self.dir(), path)
    }

    /// Removes all the folders.
    ///
    /// # Errors
    /// Where something cannot be removed; the message names the folder.
    pub fn remove(self) -> io::Result<()> {
        let root = &self.root.0;
        remove_all(root).map_err(|why| io::Error::new(why.kind(), format!("cannot remove {root:?}: {why}")))
    }
}

/// A memory file system where there is one, else where temporary files go.
fn default_base() -> PathBuf {
    let memory = Path::new(SHARED_MEMORY.0);
    let is_memory = rustix::fs::statfs(memory).is_ok_and(|info| info.f_type == SHARED_MEMORY.1);
    if is_memory && rustix::fs::access(memory, rustix::fs::Access::WRITE_OK).is_ok() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// What tells the content of a file from another; nothing where there is none.
fn digest(path: &Path) -> Option<String> {
    fs::read(path).ok().map(|content| format!("{:016x} of {}", stable_hash(&content), content.len()))
}

/// Reads a file as a reader without a lock does. No content where it is no file or cannot be read.
pub fn read(path: &Path, format: Format) -> (Option<Vec<u8>>, FileState) {
    if format == Format::Opaque {
        // It may as well be a folder: only the store knows.
        let is_there = fs::symlink_metadata(path).is_ok();
        return (None, if is_there { FileState::Whole } else { FileState::Missing });
    }
    // Not to wait for the other end, should somebody have put a pipe there.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    let content = opened.and_then(|mut file| {
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut content = Vec::new();
        io::Read::read_to_end(&mut file, &mut content).map(|_| content)
    });
    match content {
        Ok(content) => {
            let state = format.examine(&content);
            (Some(content), state)
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => (None, FileState::Missing),
        Err(other) => (None, FileState::Broken(other.to_string())),
    }
}

/// Every file below `folder` that is no folder itself, by its path from there.
fn list_files(folder: &Path, prefix: &Path, files: &mut BTreeSet<PathBuf>) {
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

/// Removes `folder` and all in it. Somebody may still be writing in there, so an entry that appears meanwhile is
/// removed in another round.
fn remove_all(folder: &Path) -> io::Result<()> {
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
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Extract;

    fn target(path: &str) -> Target {
        let mut target = Target::embedded(Path::new("/"));
        target.data.path = path.into();
        target.data.records = Some(Extract::json_path("$[*]").unwrap());
        target.data.also = vec!["state/*.json".into()];
        target
    }

    #[test]
    fn the_old_state_comes_back_with_names_modes_and_links() {
        let target = target("a/db.json");
        let sandbox = Sandbox::create(None, &target.data, None, &|_| ()).unwrap();
        fs::write(sandbox.data(), "[\"r1\"]").unwrap();
        fs::set_permissions(sandbox.data(), fs::Permissions::from_mode(0o604)).unwrap();
        fs::hard_link(sandbox.data(), sandbox.dir().join("hard")).unwrap();
        std::os::unix::fs::symlink("a/db.json", sandbox.dir().join("soft")).unwrap();
        sandbox.keep_as_old().unwrap();
        fs::write(sandbox.dir().join("stray"), "x").unwrap();
        fs::remove_file(sandbox.data()).unwrap();
        sandbox.lay().unwrap();
        assert_eq!(fs::read(sandbox.data()).unwrap(), b"[\"r1\"]");
        let metadata = fs::metadata(sandbox.data()).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.nlink()), (0o604, 2));
        assert_eq!(sandbox.look(&target, 0).files, ["a/db.json", "hard", "soft"]);
        assert!(fs::symlink_metadata(sandbox.dir().join("soft")).unwrap().is_symlink());
    }

    #[test]
    fn a_look_tells_the_state_of_every_file_and_the_records() {
        let target = target("db.json");
        let sandbox = Sandbox::create(None, &target.data, None, &|_| ()).unwrap();
        assert_eq!(sandbox.look(&target, 1).data, FileState::Missing);
        fs::write(sandbox.data(), "[\"r1\"]").unwrap();
        fs::create_dir_all(sandbox.dir().join("state/deeper")).unwrap();
        fs::write(sandbox.dir().join("state/x.json"), "{").unwrap();
        fs::write(sandbox.dir().join("state/deeper/y.json"), "{").unwrap();
        let state = sandbox.look(&target, 2);
        assert_eq!((state.data, state.records), (FileState::Whole, Some(vec!["r1".to_owned()])));
        assert_eq!(state.also.keys().collect::<Vec<_>>(), ["state/x.json"]);
        assert!(matches!(state.also["state/x.json"], FileState::Broken(_)));
    }

    #[test]
    fn nothing_is_left_after_removal_even_where_the_store_removed_its_own_folder() {
        let sandbox = Sandbox::create(None, &target("db.json").data, None, &|_| ()).unwrap();
        let root = sandbox.root().to_owned();
        fs::remove_dir_all(sandbox.dir()).unwrap();
        assert_eq!(sandbox.look(&target("db.json"), 0).files, [""; 0]);
        sandbox.lay().unwrap();
        sandbox.remove().unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_base_that_is_not_there_or_not_a_folder_is_an_error() {
        for base in ["/nonexistent", "/proc/version"] {
            assert!(Sandbox::create(Some(Path::new(base)), &target("db.json").data, None, &|_| ()).is_err());
        }
    }
}
