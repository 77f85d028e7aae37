//! Reads and writes the extended attributes that belong to a store.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, llistxattr_query, lremovexattr, lsetxattr};
use rustix::io::Errno;

use crate::persist::Attributes;

/// Labels that the system assigns to each file by its own rules.
const OF_THE_SYSTEM: &[&str] = &["security.selinux", "security.ima", "security.evm", "security.apparmor"];
/// As above, for all names with this prefix.
const SMACK: &str = "security.SMACK64";
/// Prefix of access control lists.
const ACCESS_LIST: &str = "system.posix_acl_";
/// Maximum length of a list and of a value on Linux (xattr(7)).
const LENGTH_MAX: usize = 65_536;

/// Whether an attribute belongs to the state of a store.
fn is_kept(name: &str) -> bool {
    let is_of_a_store =
        ["user.", "trusted.", "security.", ACCESS_LIST].iter().any(|prefix| name.starts_with(prefix));
    is_of_a_store && !OF_THE_SYSTEM.contains(&name) && !name.starts_with(SMACK)
}

/// Returns the attributes of a file or folder.
pub(super) fn of(path: &Path) -> io::Result<Attributes> {
    let mut found = Attributes::new();
    for name in names(path)? {
        let mut value = vec![0; LENGTH_MAX];
        match lgetxattr(path, name.as_str(), &mut value) {
            Ok(length) => {
                value.truncate(length);
                found.insert(name, value);
            }
            // It was removed meanwhile, or may not be read.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::NOENT) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(found)
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    // Most files have none, which is checked first.
    let length = match llistxattr_query(path) {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::NOSYS) => 0,
        Err(other) => return Err(other.into()),
    };
    if length == 0 {
        return Ok(Vec::new());
    }
    let mut list = vec![0u8; LENGTH_MAX];
    let length = llistxattr(path, &mut list)?;
    let names = list[..length].split(|byte| *byte == 0).map(|name| OsStr::from_bytes(name).to_string_lossy());
    Ok(names.filter(|name| is_kept(name)).map(Cow::into_owned).collect())
}

/// Sets these attributes of a file or folder, and removes others. Those that only the system may set are unchanged.
pub(super) fn set(path: &Path, wanted: &Attributes) -> io::Result<()> {
    for name in names(path)?.iter().filter(|name| !wanted.contains_key(*name)) {
        settled(name, lremovexattr(path, name.as_str()))?;
    }
    wanted.iter().try_for_each(|(name, value)| {
        settled(name, lsetxattr(path, name.as_str(), value, XattrFlags::empty()))
    })
}

fn settled(name: &str, done: Result<(), Errno>) -> io::Result<()> {
    match done {
        Err(Errno::NODATA) => Ok(()),
        Err(Errno::PERM | Errno::NOTSUP) if !name.starts_with("user.") => Ok(()),
        done => Ok(done?),
    }
}
