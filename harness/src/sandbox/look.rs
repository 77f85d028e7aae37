//! Reads the state of a sandbox without a lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::call::TEMPORARY;
use crate::observation::{FileState, State};
use crate::op::{Nanos, stable_hash};
use crate::sandbox::Sandbox;
use crate::sandbox::folder::list_files;
use crate::target::{DataFile, Format, Target};

impl Sandbox {
    /// Returns the current state of the sandbox. A data file whose records cannot be read is broken.
    pub fn look(&self, target: &Target, at: Nanos) -> State {
        let data = &target.data;
        let (content, state) = read(&self.data(), data.format);
        let (state, records) = target.examine(content.as_deref(), state);
        let files = self.files();
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

    /// Lists every file in the sandbox and in TMPDIR, by its reported path.
    fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        list_files(&self.dir(), Path::new(""), &mut files);
        list_files(&self.tmp(), Path::new(TEMPORARY), &mut files);
        files
    }

    /// Returns the location of a file with this reported path.
    fn place(&self, file: &Path) -> PathBuf {
        file.strip_prefix(TEMPORARY).map_or_else(|_| self.dir().join(file), |inner| self.tmp().join(inner))
    }

    fn derived(&self, target: &Target) -> BTreeMap<String, String> {
        let files = target.derived.iter().flat_map(|derived| &derived.files);
        files.filter_map(|file| Some((file.clone(), digest(&self.dir().join(file))?))).collect()
    }

    fn also(&self, data: &DataFile, files: &BTreeSet<PathBuf>) -> BTreeMap<String, FileState> {
        // A star matches within one folder, as in a shell.
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let patterns: Vec<glob::Pattern> =
            data.also.iter().filter_map(|text| glob::Pattern::new(text).ok()).collect();
        files
            .iter()
            // The adapter gives files of the store by their path in the sandbox.
            .filter(|file| !file.starts_with(TEMPORARY))
            .filter(|file| patterns.iter().any(|pattern| pattern.matches_path_with(file, options)))
            .map(|file| {
                let (_, state) = read(&self.dir().join(file), Format::by_extension(file));
                (file.display().to_string(), state)
            })
            .collect()
    }

    /// Lists the sandbox itself, TMPDIR, and every folder in them.
    pub fn folders(&self) -> Vec<PathBuf> {
        let mut found = vec![self.dir(), self.tmp()];
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

    /// Returns the size of the largest file in the sandbox and in TMPDIR, in bytes.
    pub fn largest_file(&self) -> u64 {
        let files = self.files();
        let sizes = files.iter().filter_map(|file| Some(fs::symlink_metadata(self.place(file)).ok()?.len()));
        sizes.max().unwrap_or(0)
    }
}

/// Returns a digest of a file's content; `None` if it cannot be read.
fn digest(path: &Path) -> Option<String> {
    fs::read(path).ok().map(|content| format!("{:016x} of {}", stable_hash(&content), content.len()))
}

/// Reads a file as a reader without a lock does. Returns no content if it is no file or cannot be read.
pub fn read(path: &Path, format: Format) -> (Option<Vec<u8>>, FileState) {
    if format == Format::Opaque {
        // It may be a folder: its content is known only to the store.
        let is_there = fs::symlink_metadata(path).is_ok();
        return (None, if is_there { FileState::Whole } else { FileState::Missing });
    }
    // Avoids waiting for the other end of a FIFO.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::tests::target;

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
}
