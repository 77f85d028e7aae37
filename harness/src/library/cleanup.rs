//! Removes what a check in a test leaves if the test process is ended early, as by Ctrl-C during `cargo test`.
//!
//! The program has its supervisor for that, which takes over signals and children; a library must not take over either.
//! So a shell is started that waits for the end of its input, which comes when this process ends in any way, and then
//! removes the directories it was sent. It has its own process group, so no key of a terminal ends it.

use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::check::Watcher;

/// Script of the shell. A dying store may still create files during the removal: then it is repeated once.
const SCRIPT: &str = r#"
trap "" HUP INT QUIT TERM
set --
while IFS= read -r folder; do set -- "$@" "$folder"; done
rm -rf -- "$@" 2>/dev/null || { sleep 1; rm -rf -- "$@"; }
"#;

/// The shell that removes the directories.
pub(super) struct CleanupGuard {
    child: Child,
    ears: Mutex<Option<ChildStdin>>,
}

impl CleanupGuard {
    /// # Errors
    /// If there is no shell.
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
        // A name with a line feed would be read as two names.
        if folder.as_os_str().as_bytes().contains(&b'\n') {
            return;
        }
        if let Some(ears) = self.ears.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // A shell that has ended removes nothing; this process does.
            let _told = ears.write_all(&line);
        }
    }
}

impl Drop for CleanupGuard {
    /// Closes the input of the shell. The directories are removed by now, so it has nothing left to do.
    fn drop(&mut self) {
        drop(self.ears.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ended = self.child.wait();
    }
}
