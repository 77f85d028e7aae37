//! Holds the built-in adapters for well-known programs.

use std::path::Path;

use crate::target::{Target, UsageError, adapter};

/// A built-in adapter: its name and the text of its file.
#[derive(Debug)]
pub struct Builtin {
    /// Value for `--adapter`.
    pub name: &'static str,
    /// Text of the adapter file.
    pub text: &'static str,
}

macro_rules! builtin {
    ($($name:literal),+ $(,)?) => {
        &[$(Builtin { name: $name, text: include_str!(concat!("../../adapters/", $name, ".toml")) }),+]
    };
}

/// All built-in adapters, sorted by name.
pub const ALL: &[Builtin] = builtin![
    "atomically",
    "augtool",
    "conf",
    "configstore",
    "crudini",
    "diskcache",
    "dotenv",
    "dotlockfile",
    "dpkg-divert",
    "dpkg-statoverride",
    "fasteners",
    "flock",
    "flock-jq",
    "gdbmtool",
    "git-commit",
    "git-config",
    "git-index",
    "git-notes",
    "htpasswd",
    "lockfile-create",
    "lowdb",
    "nedb",
    "npm-config",
    "oslo-concurrency",
    "portalocker",
    "procmail-lockfile",
    "proper-lockfile",
    "py-filelock",
    "py-lmdb",
    "py-lockfile",
    "py-mailbox",
    "py-shelve",
    "py-softfilelock",
    "rclone-config",
    "recutils",
    "sed-i",
    "sponge",
    "sqlite3",
    "sqlite3-no-timeout",
    "sqlite3-wal",
    "store-context",
    "store-document",
    "store-in-place",
    "store-journal",
    "store-ledger",
    "store-saved",
    "store-shards",
    "store-trades",
    "taskwarrior",
    "tdbtool",
    "timew",
    "tinydb",
    "todo-txt",
    "watson",
    "write-file-atomic",
    "yq-python",
    "zoxide",
];

impl Builtin {
    /// Returns its description: the first comment line of the file.
    pub fn statement(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ").trim_end_matches('.')
    }
}

/// Loads the built-in adapter with this name as a target.
///
/// # Errors
/// Fails if there is none, or its program is not installed.
pub fn load(name: &str, folder: &Path) -> Result<Target, UsageError> {
    let Some(builtin) = ALL.iter().find(|builtin| builtin.name == name) else {
        let meant = crate::catalogue::nearest(name, ALL.iter().map(|builtin| builtin.name));
        let hint = meant.map(|meant| format!("did you mean {meant:?}? ")).unwrap_or_default();
        return Err(UsageError::new(
            "--adapter",
            format!("there is no file and no built-in adapter {name:?}"),
        )
        .help(format!("{hint}`picklock list adapters` names the built-in ones")));
    };
    adapter::parse(builtin.text, &format!("built-in adapter {name}"), folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_adapter_parses_but_for_a_program_that_is_not_installed() {
        for builtin in ALL {
            assert!(!builtin.statement().is_empty());
            match load(builtin.name, Path::new("/")) {
                Ok(target) => assert_eq!(target.name, builtin.name),
                Err(error) => assert!(error.message.contains("is not on the PATH"), "{error}"),
            }
        }
        assert!(load("sqlite", Path::new("/")).unwrap_err().to_string().contains("did you mean \"sqlite3\""));
    }
}
