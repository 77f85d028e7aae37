//! Makes a sandbox: a fresh folder for each execution, laid out from a base state and removed afterwards.

mod attributes;
mod folder;
mod look;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::persist::Tree;
use crate::target::{DataFile, UsageError, Values};

pub use folder::tree_of;
use folder::{copy_tree, lay_tree, remove_all};

pub use look::read;

/// The memory file system that every Linux has, and its magic number for `statfs(2)`.
const SHARED_MEMORY: (&str, i64) = ("/dev/shm", 0x0102_1994);
/// Number of bytes that must fit into the file system before anything starts.
const PROBE_BYTES: usize = 64 << 10;

/// The folders of one run: the sandbox itself, and others that must be outside it.
///
/// ```text
/// picklock-XXXXXX/sandbox   {dir}: the judged state; its path is fixed, its content is laid out for each execution
/// picklock-XXXXXX/tmp       TMPDIR of the store: watched, laid out and inspected like {dir}
/// picklock-XXXXXX/old       state of both after `init`
/// picklock-XXXXXX/first     the same with the store's first record
/// picklock-XXXXXX/bin       {store} and {critical}
/// ```
#[derive(Debug)]
pub struct Sandbox {
    root: Root,
    data: PathBuf,
}

/// A folder that is removed when it is dropped.
#[derive(Debug)]
struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        // To get the result of the removal, call `Sandbox::remove`.
        let _removed = remove_all(&self.0);
    }
}

impl Sandbox {
    /// Makes the folders in `base`, or in memory if none is given. `multi_call` is the program that is the embedded
    /// store under the name `picklock-store` and the helper under the name `picklock-critical`. `made` gets the path of
    /// the folder that holds them all just before it is made, so that the caller always knows of it.
    ///
    /// # Errors
    /// If the folders cannot be made, or the file system is full.
    pub fn create(
        base: Option<&Path>,
        data: &DataFile,
        multi_call: Option<&Path>,
        made: &dyn Fn(&Path),
    ) -> io::Result<Self> {
        let base = base.map_or_else(default_base, Path::to_owned);
        let make = |path: &Path| {
            // An existing folder belongs to another owner and must not be reported for removal.
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
    /// If the folder cannot hold a sandbox.
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

    /// Checks that the folder can hold a sandbox, and that `within` finds there what it needs, so that an error is
    /// reported before the report of the last run is overwritten.
    ///
    /// # Errors
    /// As [`Self::in_dir`], or as reported by `within`; or if the new sandbox cannot be removed.
    pub fn try_dir(
        dir: Option<&Path>,
        data: &DataFile,
        made: &dyn Fn(&Path),
        within: impl FnOnce(&Self) -> Result<(), UsageError>,
    ) -> Result<(), UsageError> {
        let sandbox = Self::in_dir(dir, data, None, made)?;
        within(&sandbox)?;
        sandbox.remove().map_err(|why| UsageError::new("--dir", why.to_string()))
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

    /// The store's TMPDIR: watched like `{dir}`.
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

    /// Returns the values of the placeholders that are the same in every operation.
    pub fn values(&self) -> Values {
        Values {
            dir: self.dir(),
            data: self.data(),
            store: self.store(),
            critical: self.critical(),
            ..Values::default()
        }
    }

    /// Saves the current content of the sandbox as the old state of every later execution.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn keep_as_old(&self) -> io::Result<()> {
        self.keep(&self.old())
    }

    /// Saves the current content of the sandbox as the state with the first record.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn keep_as_first(&self) -> io::Result<()> {
        self.keep(&self.first())
    }

    fn keep(&self, kept: &Path) -> io::Result<()> {
        remove_all(kept)?;
        fs::create_dir(kept)?;
        // A store may have removed its TMPDIR, which is made again for the next execution.
        let is_meant = |root: &Path| root == self.dir() || root.exists();
        let meant = self.roots_in(kept).into_iter().filter(|(root, _)| is_meant(root));
        meant.into_iter().try_for_each(|(root, copy)| copy_tree(&root, &copy))
    }

    /// Returns the two watched folders, each with the path of its copy.
    fn roots_in(&self, kept: &Path) -> [(PathBuf, PathBuf); 2] {
        [(self.dir(), kept.join("sandbox")), (self.tmp(), kept.join("tmp"))]
    }

    /// Lays out the state with the first record.
    ///
    /// # Errors
    /// If an entry cannot be removed or copied.
    pub fn lay_first(&self) -> io::Result<()> {
        self.lay_from(&self.first())
    }

    /// Whether an old state was saved, so that `init` need not run again.
    pub fn has_old(&self) -> bool {
        self.old().exists()
    }

    /// Lays out the old state: replaces the content of the sandbox with the state after `init`.
    ///
    /// # Errors
    /// If an entry cannot be removed or copied.
    pub fn lay(&self) -> io::Result<()> {
        self.lay_from(&self.old())
    }

    fn lay_from(&self, kept: &Path) -> io::Result<()> {
        for (root, copy) in self.roots_in(kept) {
            remove_all(&root)?;
            if copy.exists() {
                copy_tree(&copy, &root)?;
            }
        }
        self.make_roots()
    }

    /// Makes the folder of the data file, so that a store without an `init` gets a path that it can create. Programs
    /// whose `init` makes that folder itself fail if it exists.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make_parent(&self) -> io::Result<()> {
        self.data().parent().map_or(Ok(()), fs::create_dir_all)
    }

    /// Makes the two watched folders, if they are missing.
    fn make_roots(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).create(self.dir())?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.tmp())
    }

    /// Returns the content of the sandbox and TMPDIR as a tree.
    ///
    /// # Errors
    /// If it cannot be read, or holds an entry that is neither file, folder nor link.
    pub fn tree(&self) -> io::Result<Tree> {
        tree_of(&self.dir(), &self.tmp())
    }

    /// Lays out a tree and removes the previous content of the sandbox.
    ///
    /// # Errors
    /// If an entry cannot be removed or made.
    pub fn lay_tree(&self, tree: &Tree) -> io::Result<()> {
        for folder in [self.dir(), self.tmp()] {
            remove_all(&folder)?;
        }
        self.make_roots()?;
        lay_tree(tree, &self.dir(), &self.tmp())
    }

    /// Replaces the content of a file, if it exists, with the result of `change`; `None` removes the file.
    ///
    /// # Errors
    /// If a system call fails.
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

    /// Saves a copy of the current content of the sandbox for inspection.
    ///
    /// # Errors
    /// If it cannot be made.
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
    /// If an entry cannot be removed; the message names the folder.
    pub fn remove(self) -> io::Result<()> {
        let root = &self.root.0;
        remove_all(root).map_err(|why| io::Error::new(why.kind(), format!("cannot remove {root:?}: {why}")))
    }
}

/// Returns a memory file system if there is one, otherwise the folder for temporary files.
fn default_base() -> PathBuf {
    let memory = Path::new(SHARED_MEMORY.0);
    let is_memory = rustix::fs::statfs(memory).is_ok_and(|info| info.f_type == SHARED_MEMORY.1);
    if is_memory && rustix::fs::access(memory, rustix::fs::Access::WRITE_OK).is_ok() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;
    use crate::target::{Extract, Target};

    pub(super) fn target(path: &str) -> Target {
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
        assert!(!sandbox.dir().join("a").exists(), "an init that makes it would fail");
        sandbox.make_parent().unwrap();
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

    /// TMPDIR was emptied before each execution, and was missing from all trees: a store that stages there, or leaves a
    /// lock there, was judged by impossible states.
    #[test]
    fn tmpdir_is_laid_out_like_the_sandbox() {
        let target = target("db.json");
        let sandbox = Sandbox::create(None, &target.data, None, &|_| ()).unwrap();
        fs::create_dir(sandbox.tmp().join("sub")).unwrap();
        fs::write(sandbox.tmp().join("sub/new"), "abc").unwrap();
        fs::hard_link(sandbox.tmp().join("sub/new"), sandbox.data()).unwrap();
        sandbox.keep_as_first().unwrap();
        let (tree, files) = (sandbox.tree().unwrap(), sandbox.look(&target, 0).files);
        assert_eq!(tree.names().collect::<Vec<_>>(), ["db.json", "$TMPDIR/sub", "$TMPDIR/sub/new"]);
        assert_eq!(files, ["$TMPDIR/sub/new", "db.json"]);
        assert_eq!(sandbox.largest_file(), 3);
        sandbox.lay().unwrap();
        assert_eq!(sandbox.tree().unwrap().names().count(), 0);
        sandbox.lay_tree(&tree).unwrap();
        assert_eq!(sandbox.tree().unwrap(), tree);
        assert_eq!(fs::metadata(sandbox.data()).unwrap().nlink(), 2);
        fs::remove_dir_all(sandbox.tmp()).unwrap();
        assert_eq!(sandbox.tree().unwrap().names().collect::<Vec<_>>(), ["db.json"]);
        sandbox.lay_first().unwrap();
        assert_eq!(fs::read(sandbox.tmp().join("sub/new")).unwrap(), b"abc");
        // A file of that name would be mistaken for the folder.
        fs::write(sandbox.dir().join("$TMPDIR"), "").unwrap();
        assert!(sandbox.tree().is_err());
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
