//! Describes the machine and the file system of a measurement.

use std::io;
use std::path::Path;
use std::thread;

use super::{Place, flush};

/// Magic numbers of file systems, from statfs(2).
const FILE_SYSTEMS: &[(i64, &str)] = &[
    (0x0102_1994, "tmpfs"),
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x794c_7630, "overlay"),
    (0x6573_5546, "fuse"),
    (0x6969, "nfs"),
    (0x2fc1_2fc1, "zfs"),
];

/// Describes the environment of a folder; a flush there takes some time.
///
/// # Errors
/// If nothing can be written there.
pub fn place(folder: &Path) -> io::Result<Place> {
    // Load over the last minute: that of a short moment is meaningless.
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load = load.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0.0);
    Ok(Place {
        file_system: file_system(folder)?,
        processors: thread::available_parallelism().map_or(1, usize::from),
        load,
        flush_ns: flush::flush(folder)?,
    })
}

fn file_system(folder: &Path) -> io::Result<String> {
    let magic = rustix::fs::statfs(folder)?.f_type as i64;
    let known = FILE_SYSTEMS.iter().find(|(number, _)| *number == magic);
    Ok(known.map_or_else(|| format!("a file system of type {magic:#x}"), |(_, name)| (*name).to_owned()))
}
