//! Finds a program and reports early what is wrong with it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::target::{Command, UsageError};

/// Returns the path of a program with a slash, relative to `folder`; one without is left to the PATH.
pub(super) fn locate(program: &Path, folder: &Path) -> PathBuf {
    if has_slash(program.as_os_str()) { folder.join(program) } else { program.to_owned() }
}

/// Checks that the program of `command` exists and is executable; one with a placeholder is known only later.
pub(super) fn check(command: &Command, folder: &Path) -> Result<(), UsageError> {
    let Some(program) = command.words.first().and_then(|word| word.literal()) else { return Ok(()) };
    let error = |message: String| UsageError::new("", message);
    if !has_slash(program) {
        let path = env::var_os("PATH").unwrap_or_default();
        if env::split_paths(&path).any(|folder| is_runnable(&folder.join(program))) {
            return Ok(());
        }
        let beside = folder.join(program);
        let problem = error(format!("the program {program:?} is not on the PATH"));
        return Err(if beside.is_file() {
            problem.help(format!("a file of this name is in {folder:?}: write ./{}", program.display()))
        } else {
            problem.help("install it, or give its path")
        });
    }
    let path = folder.join(program);
    match fs::metadata(&path) {
        Err(refused) => Err(error(format!("the program {path:?} cannot be found: {refused}"))
            .help("a program with a slash is looked for from the folder where picklock was started, or from the adapter's")),
        Ok(metadata) if metadata.is_dir() => Err(error(format!("the program {path:?} is a folder"))),
        Ok(_) if !is_runnable(&path) => Err(error(format!("the program {path:?} has no permission to be run"))
            .help(format!("chmod +x {}", shell_words::quote(&path.display().to_string())))),
        Ok(_) => Ok(()),
    }
}

fn has_slash(program: &OsStr) -> bool {
    program.as_encoded_bytes().contains(&b'/')
}

fn is_runnable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
