//! Wraps the ioctls of loop devices and the one that shuts a file system down.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// `LOOP_CTL_GET_FREE` and `LOOP_CONFIGURE` of `linux/loop.h`.
const GET_FREE: u32 = 0x4C82;
const CONFIGURE: u32 = 0x4C0A;
/// `LO_FLAGS_AUTOCLEAR`: the device detaches itself when it is no longer used.
const AUTOCLEAR: u32 = 4;
/// Size of `struct loop_config`, and offsets of the descriptor and the flags in it.
const CONFIG_SIZE: usize = 304;
const CONFIG_DESCRIPTOR: usize = 0;
const CONFIG_FLAGS: usize = 60;
/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`, and the argument that keeps even the log from being written.
const SHUT_DOWN: u32 = 0x8004_587d;
const WITHOUT_LOG: u32 = 2;
/// Maximum number of attempts: another process may be quicker.
const TRIES: u32 = 200;

/// An open loop device; it disappears when this is closed and nothing is mounted from it.
pub(super) struct Device {
    pub(super) path: PathBuf,
    /// Device number of the files on it.
    pub(super) number: u64,
    _open: File,
}

/// Attaches a file to a free loop device.
pub(super) fn attach(image: &File) -> io::Result<Device> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let mut config = [0_u8; CONFIG_SIZE];
    config[CONFIG_DESCRIPTOR..][..4].copy_from_slice(&image.as_raw_fd().to_ne_bytes());
    config[CONFIG_FLAGS..][..4].copy_from_slice(&AUTOCLEAR.to_ne_bytes());
    let mut last = io::Error::from_raw_os_error(libc::EBUSY);
    for _ in 0..TRIES {
        #[expect(unsafe_code, reason = "nobody has a safe name for it")]
        // SAFETY: the request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as libc::Ioctl) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let open = match File::options().read(true).write(true).open(&path) {
            Ok(open) => open,
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
            Err(other) => return Err(other),
        };
        #[expect(unsafe_code, reason = "nobody has a safe name for it")]
        // SAFETY: the request reads a `struct loop_config`, and the buffer holds one in full size.
        let configured = unsafe { libc::ioctl(open.as_raw_fd(), CONFIGURE as libc::Ioctl, config.as_ptr()) };
        if configured == 0 {
            return Ok(Device { path, number: open.metadata()?.rdev(), _open: open });
        }
        last = io::Error::last_os_error();
        if last.raw_os_error() != Some(libc::EBUSY) {
            break;
        }
    }
    Err(last)
}

/// Shuts a mounted file system down as a power loss does: nothing is written any more.
pub(super) fn shut_down(root: BorrowedFd<'_>) -> io::Result<()> {
    let flags = WITHOUT_LOG;
    #[expect(unsafe_code, reason = "nobody has a safe name for it")]
    // SAFETY: the request reads a number of 32 bits, which lives until it returns.
    let done = unsafe { libc::ioctl(root.as_raw_fd(), SHUT_DOWN as libc::Ioctl, &raw const flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
