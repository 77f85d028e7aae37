//! Removes what a check in a test leaves if the test process is ended early, as by Ctrl-C during `cargo test`.
//!
//! The program has its keeper for that, which takes over signals and children; a library may take neither. So a shell is
//! started that waits for the end of its input, which comes when this process ends in whatever way, and then removes the
//! folders that it was told of. It is in a process group of its own, which no key of a terminal ends.

use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::check::Watcher;

/// What the shell does. A store that is about to die may still put something there while it is removed: then it is removed
/// once more.
const SCRIPT: &str = r#"
trap "" HUP INT QUIT TERM
set --
while IFS= read -r folder; do set -- "$@" "$folder"; done
rm -rf -- "$@" 2>/dev/null || { sleep 1; rm -rf -- "$@"; }
"#;

/// The shell.
pub(super) struct CleanupGuard {
    child: Child,
    ears: Mutex<Option<ChildStdin>>,
}

impl CleanupGuard {
    /// # Errors
    /// Where there is no shell.
    pub(super) fn new() -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let ears = Mutex::new(child.stdin.take());
        Ok(Self { child, ears })
    }
}

impl Watcher for CleanupGuard {
    fn made(&self, folder: &Path) {
        let line = [folder.as_os_str().as_bytes(), b"\n"].concat();
        // A name with a line feed in it would be taken for two.
        if folder.as_os_str().as_bytes().contains(&b'\n') {
            return;
        }
        if let Some(ears) = self.ears.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // An heir that is gone removes nothing; this process does.
            let _told = ears.write_all(&line);
        }
    }
}

impl Drop for CleanupGuard {
    /// What it was told of is gone by now, so that nothing is left for it to do.
    fn drop(&mut self) {
        drop(self.ears.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ended = self.child.wait();
    }
}
