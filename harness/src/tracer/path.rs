//! What a path in a call names: absolute, with links followed as the thread that makes the call would follow them, and
//! within the folders that are watched or not.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use nix::unistd::Pid;

use crate::call::TEMPORARY;
use crate::tracer::descriptor;

/// Maximum number of links on the way to one file, after which the kernel gives up (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// `PROC_SUPER_MAGIC` of statfs(2).
const PROC: i64 = 0x9fa0;

/// The folders in which actions are visible.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    pub(super) sandbox: PathBuf,
    pub(super) temporary: PathBuf,
}

impl Roots {
    /// Whether a path is one of the folders, or lies in one.
    pub(super) fn contain(&self, path: &Path) -> bool {
        path.starts_with(&self.sandbox) || path.starts_with(&self.temporary)
    }

    /// Whether a path is one of the folders.
    fn are(&self, path: &Path) -> bool {
        path == self.sandbox || path == self.temporary
    }

    /// Returns the path that is displayed as `shown`.
    pub(super) fn real(&self, shown: &str) -> PathBuf {
        match Path::new(shown).strip_prefix(TEMPORARY) {
            Ok(inner) => self.temporary.join(inner),
            Err(_) => self.sandbox.join(shown),
        }
    }
}

/// How the text of a path is interpreted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meant {
    /// Descriptor of the folder at which a relative path begins, instead of the current one.
    pub(super) folder: Option<i32>,
    /// Whether that folder is the root of the path (`RESOLVE_IN_ROOT`).
    pub(super) is_root: bool,
    /// Whether a link in the last part is followed.
    pub(super) follows: bool,
}

/// Folders outside the watched ones that are known not to be links, so that most paths of an interpreter need no
/// lookup. Once a name out there is moved or removed, none are kept: it might have been one of them.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    folders: BTreeSet<PathBuf>,
    is_changed: bool,
}

impl Elsewhere {
    /// Notes that a name outside was moved or removed.
    pub(super) fn change(&mut self) {
        self.folders.clear();
        self.is_changed = true;
    }

    fn note(&mut self, folder: &Path, roots: &Roots) {
        if !self.is_changed && !roots.contain(folder) && !folder.starts_with("/proc") {
            self.folders.insert(folder.to_owned());
        }
    }
}

/// Resolves the path `text` in `thread`. If its last part is a link in a watched folder, the link keeps its name, even
/// if the call follows it: that name is what stores share. If a link in a watched folder leads out, its target is named
/// by the path through that link, because it is reached through the folder.
pub(super) fn resolve(
    thread: Pid,
    text: Vec<u8>,
    meant: Meant,
    roots: &Roots,
    elsewhere: &mut Elsewhere,
) -> PathBuf {
    // With a trailing slash, a link is always followed.
    let follows = meant.follows || text.ends_with(b"/") || text.ends_with(b"/.");
    let path = PathBuf::from(OsString::from_vec(text));
    let folder = || {
        let link = match meant.folder {
            Some(descriptor) if descriptor != libc::AT_FDCWD => format!("/proc/{thread}/fd/{descriptor}"),
            _ => format!("/proc/{thread}/cwd"),
        };
        std::fs::read_link(link).unwrap_or_default()
    };
    let root = match meant.is_root {
        true => folder(),
        false => root_of(thread),
    };
    let from = if path.is_absolute() { root.clone() } else { folder() };
    Walk { thread, root, roots, keeps: true }.walk(from, &path, follows, elsewhere)
}

/// Returns the final target of a path, in `thread`.
pub(super) fn followed(thread: Pid, path: &Path, roots: &Roots) -> PathBuf {
    let root = root_of(thread);
    // The path itself is as we see it.
    let from = path.parent().unwrap_or(path).to_owned();
    let last = path.file_name().map(Path::new).unwrap_or(Path::new(""));
    Walk { thread, root, roots, keeps: false }.walk(from, last, true, &mut Elsewhere::default())
}

fn root_of(thread: Pid) -> PathBuf {
    std::fs::read_link(format!("/proc/{thread}/root")).unwrap_or_else(|_| "/".into())
}

/// A walk along a path as one thread sees it; all paths in it are as we see them.
struct Walk<'a> {
    thread: Pid,
    /// Root of the thread's absolute paths (chroot(2)).
    root: PathBuf,
    roots: &'a Roots,
    /// Whether links in a watched folder keep their names: those in the last part and those that lead out.
    keeps: bool,
}

/// A part of a path that is still to be walked.
enum Part {
    /// The thread's root.
    Root,
    /// Our root: a link of `/proc` leads to a path as we see it.
    OurRoot,
    Parent,
    Name(OsString),
}

impl Walk<'_> {
    fn walk(&self, from: PathBuf, path: &Path, follows: bool, elsewhere: &mut Elsewhere) -> PathBuf {
        let mut here = from;
        let mut left = parts(path);
        let mut links = 0;
        let mut way_out = None;
        while let Some(part) = left.pop() {
            let name = match part {
                Part::Root => {
                    here.clone_from(&self.root);
                    continue;
                }
                Part::OurRoot => {
                    here = "/".into();
                    continue;
                }
                Part::Parent => {
                    if here != self.root {
                        here.pop();
                    }
                    continue;
                }
                Part::Name(name) => name,
            };
            here.push(&name);
            let is_last = left.is_empty();
            if is_last && (!follows || self.keeps && self.roots.contain(&here)) {
                break;
            }
            if elsewhere.folders.contains(&here) || self.roots.are(&here) {
                continue;
            }
            match std::fs::read_link(&here) {
                Ok(target) if links < LINKS_MAX => {
                    links += 1;
                    if self.keeps && self.roots.contain(&here) {
                        way_out = Some(with(&here, &left));
                    }
                    here.pop();
                    left.extend(self.target(&here, &name, &target));
                }
                // It exists and is not a link.
                Err(why) if why.raw_os_error() == Some(libc::EINVAL) && !is_last => {
                    elsewhere.note(&here, self.roots);
                }
                _ => {}
            }
        }
        way_out.filter(|_| !self.roots.contain(&here)).unwrap_or(here)
    }

    /// Returns the parts of a link's target, the last first.
    fn target(&self, folder: &Path, name: &OsStr, target: &Path) -> Vec<Part> {
        if let Some(own) = self.own_process(name, target) {
            return parts(&own);
        }
        let is_seen_by_us = target.is_absolute() && self.root != Path::new("/") && is_proc(folder);
        let mut parts = parts(target);
        if let (true, Some(first)) = (is_seen_by_us, parts.last_mut()) {
            *first = Part::OurRoot;
        }
        parts
    }

    /// `/proc/self` and `/proc/thread-self` name their reader: that was us, and must be the thread.
    fn own_process(&self, name: &OsStr, target: &Path) -> Option<PathBuf> {
        let own = nix::unistd::getpid().to_string();
        if !target.starts_with(&own) {
            return None;
        }
        let process = || descriptor::family(self.thread).map(|(process, _)| process);
        match name.to_str()? {
            "self" => Some(process()?.to_string().into()),
            "thread-self" => Some(format!("{}/task/{}", process()?, self.thread).into()),
            _ => None,
        }
    }
}

/// Splits a path into its parts, the last first.
fn parts(path: &Path) -> Vec<Part> {
    let parts = path.components().rev().filter_map(|component| match component {
        Component::RootDir => Some(Part::Root),
        Component::ParentDir => Some(Part::Parent),
        Component::Normal(name) => Some(Part::Name(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    });
    parts.collect()
}

/// Appends the remaining parts, which are stored last first, to a path.
fn with(path: &Path, left: &[Part]) -> PathBuf {
    let mut path = path.to_owned();
    for part in left.iter().rev() {
        match part {
            Part::Parent => {
                path.pop();
            }
            Part::Name(name) => path.push(name),
            Part::Root | Part::OurRoot => {}
        }
    }
    path
}

fn is_proc(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|system| system.f_type == PROC)
}

/// Returns the path of a descriptor's file.
pub(super) fn of_descriptor(thread: Pid, descriptor: i32) -> PathBuf {
    std::fs::read_link(format!("/proc/{thread}/fd/{descriptor}")).unwrap_or_default()
}

/// Formats a path for display: relative to the sandbox if it is in there, with `$TMPDIR` if it is in TMPDIR.
pub(super) fn shown(path: &Path, roots: &Roots) -> String {
    if let Ok(inner) = path.strip_prefix(&roots.sandbox) {
        return if inner.as_os_str().is_empty() { ".".to_owned() } else { inner.display().to_string() };
    }
    match path.strip_prefix(&roots.temporary) {
        Ok(inner) if inner.as_os_str().is_empty() => TEMPORARY.to_owned(),
        Ok(inner) => format!("{TEMPORARY}/{}", inner.display()),
        Err(_) => path.display().to_string(),
    }
}

/// Removes `.` and `..` for display: paths that are not watched are shown as in the call.
pub(super) fn told(thread: Pid, folder: Option<i32>, text: Vec<u8>) -> PathBuf {
    let path = PathBuf::from(OsString::from_vec(text));
    let base = match folder {
        _ if path.is_absolute() => PathBuf::new(),
        Some(descriptor) if descriptor != libc::AT_FDCWD => of_descriptor(thread, descriptor),
        _ => std::fs::read_link(format!("/proc/{thread}/cwd")).unwrap_or_default(),
    };
    let mut normal = PathBuf::new();
    for component in base.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn roots(folder: &Path) -> Roots {
        Roots { sandbox: folder.join("sandbox"), temporary: folder.join("tmp") }
    }

    /// Resolves a text in this thread.
    fn named(text: &str, follows: bool, roots: &Roots) -> PathBuf {
        let meant = Meant { follows, ..Meant::default() };
        resolve(nix::unistd::gettid(), text.as_bytes().to_vec(), meant, roots, &mut Elsewhere::default())
    }

    #[test]
    fn paths_are_made_absolute_and_plain() {
        let roots = roots(Path::new("/s"));
        assert_eq!(named("/nowhere/./b/../c", true, &roots), Path::new("/nowhere/c"));
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(named("x/y", true, &roots), here.join("x/y"));
        assert_eq!(shown(Path::new("/s/sandbox/a b"), &roots), "a b");
        assert_eq!(shown(Path::new("/s/sandbox"), &roots), ".");
        assert_eq!(shown(Path::new("/s/tmp"), &roots), "$TMPDIR");
        assert_eq!(shown(Path::new("/s/tmp/a/b"), &roots), "$TMPDIR/a/b");
        assert_eq!(shown(Path::new("/elsewhere"), &roots), "/elsewhere");
        for name in ["a/b", ".", "$TMPDIR", "$TMPDIR/a"] {
            assert_eq!(shown(&roots.real(name), &roots), name);
        }
    }

    /// A store that reached its file through `/proc/self/cwd`, a descriptor, or a link outside did all of its work
    /// unseen, and every invariant held.
    #[test]
    fn links_are_followed_as_the_thread_sees_them() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let roots = roots(&folder);
        fs::create_dir_all(roots.sandbox.join("real")).unwrap();
        symlink(&roots.sandbox, folder.join("alias")).unwrap();
        symlink("alias/db", folder.join("db-alias")).unwrap();
        symlink("db", roots.sandbox.join("link")).unwrap();
        symlink("real", roots.sandbox.join("sub")).unwrap();
        symlink("/usr", roots.sandbox.join("out")).unwrap();
        let open = fs::File::open(&roots.sandbox).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let db = roots.sandbox.join("db");
        // Links in folders on the way are followed by every call, a link in the last part only by some calls.
        for way in ["/proc/self", "/proc/thread-self", &format!("/proc/{}", std::process::id())] {
            assert_eq!(named(&format!("{way}/fd/{}/db", open.as_raw_fd()), false, &roots), db);
        }
        assert_eq!(named(&format!("/dev/fd/{}/db", open.as_raw_fd()), false, &roots), db);
        assert_eq!(named(&text(&folder.join("alias/db")), false, &roots), db);
        assert_eq!(named(&text(&roots.sandbox.join("sub/x")), false, &roots), roots.sandbox.join("real/x"));
        assert_eq!(named(&text(&folder.join("db-alias")), true, &roots), db);
        assert_eq!(named(&text(&folder.join("db-alias")), false, &roots), folder.join("db-alias"));
        // Files reached through the sandbox are seen as before.
        let out = roots.sandbox.join("out/lib/x");
        assert_eq!(named(&text(&out), false, &roots), out);
        // A link in the sandbox keeps its name; a trailing slash refers to its target.
        let link = roots.sandbox.join("link");
        assert_eq!(named(&text(&link), true, &roots), link);
        assert_eq!(followed(nix::unistd::gettid(), &link, &roots), db);
        assert_eq!(named(&format!("{}/", text(&folder.join("alias"))), false, &roots), roots.sandbox);
    }

    /// Cached knowledge of a folder outside must not outlive the folder.
    #[test]
    fn a_folder_that_becomes_a_link_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let roots = roots(&folder);
        fs::create_dir_all(&roots.sandbox).unwrap();
        fs::create_dir(folder.join("side")).unwrap();
        let text = folder.join("side/db").to_str().unwrap().as_bytes().to_vec();
        let mut known = Elsewhere::default();
        let named = |known: &mut Elsewhere| {
            resolve(nix::unistd::gettid(), text.clone(), Meant::default(), &roots, known)
        };
        assert_eq!(named(&mut known), folder.join("side/db"));
        fs::remove_dir(folder.join("side")).unwrap();
        symlink(&roots.sandbox, folder.join("side")).unwrap();
        known.change();
        assert_eq!(named(&mut known), roots.sandbox.join("db"));
        assert!(known.folders.is_empty());
    }

    #[test]
    fn a_circle_of_links_ends() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        symlink("b", folder.join("a")).unwrap();
        symlink("a", folder.join("b")).unwrap();
        let roots = roots(&folder);
        let end = named(folder.join("a/x").to_str().unwrap(), true, &roots);
        assert!(end.starts_with(&folder), "{end:?}");
    }
}
