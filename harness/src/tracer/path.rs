//! What a path in a call names: absolute, without `.` and `..`, and within the sandbox or not.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use nix::unistd::Pid;

/// The path that `text` names in `thread`, seen from its current folder or from the one behind a descriptor.
pub(super) fn resolve(thread: Pid, folder: Option<i32>, text: Vec<u8>) -> PathBuf {
    let path = PathBuf::from(OsString::from_vec(text));
    if path.is_absolute() {
        return normalize(&path);
    }
    let link = match folder {
        Some(descriptor) if descriptor != libc::AT_FDCWD => format!("/proc/{thread}/fd/{descriptor}"),
        _ => format!("/proc/{thread}/cwd"),
    };
    let base = std::fs::read_link(link).unwrap_or_default();
    normalize(&base.join(path))
}

/// The path of a descriptor's file.
pub(super) fn of_descriptor(thread: Pid, descriptor: i32) -> PathBuf {
    std::fs::read_link(format!("/proc/{thread}/fd/{descriptor}")).unwrap_or_default()
}

/// As a person calls it: from the sandbox where it is in there.
pub(super) fn shown(path: &Path, sandbox: &Path) -> String {
    match path.strip_prefix(sandbox) {
        Ok(inner) if inner.as_os_str().is_empty() => ".".to_owned(),
        Ok(inner) => inner.display().to_string(),
        Err(_) => path.display().to_string(),
    }
}

/// Without `.` and `..`. Links to folders within the path are not followed.
fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
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
    use super::*;

    #[test]
    fn paths_are_made_absolute_and_plain() {
        let own = nix::unistd::getpid();
        assert_eq!(resolve(own, None, b"/a/./b/../c".to_vec()), Path::new("/a/c"));
        let here = std::env::current_dir().unwrap();
        assert_eq!(resolve(own, Some(libc::AT_FDCWD), b"x/y".to_vec()), here.join("x/y"));
        assert_eq!(shown(Path::new("/s/a b"), Path::new("/s")), "a b");
        assert_eq!(shown(Path::new("/s"), Path::new("/s")), ".");
        assert_eq!(shown(Path::new("/elsewhere"), Path::new("/s")), "/elsewhere");
    }
}
