//! Mounts a small real file system from an image and cuts its power.
//!
//! An image is an unnamed file in memory, copied from a template that `mkfs` made once. It is mounted through a loop
//! device that detaches itself, in a mount namespace of one thread and its children: whatever happens to the process,
//! the kernel removes mount, device and image with it. ext4 and xfs are cut by the ioctl that their own crash tests use
//! (`EXT4_IOC_SHUTDOWN`, no flush of the log); btrfs has none, and is cut by a copy of the mounted image. Everything
//! handed to the device by then is kept, and nothing else: no write is torn or lost in a disk's own cache.

mod ioctl;

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread;

use nix::sched::CloneFlags;
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// A file system on which findings can be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// ext4, with its defaults.
    Ext4,
    /// xfs, with its defaults.
    Xfs,
    /// btrfs, with its defaults.
    Btrfs,
}

/// Why such a file system is not available.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The program that makes the file system is missing.
    #[error("{program} is missing: install {package}")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// The Debian package that contains it.
        package: &'static str,
    },
    /// The system refused something.
    #[error("cannot {what}: {why}")]
    System {
        /// The attempted action.
        what: &'static str,
        /// The system's error.
        why: io::Error,
    },
}

impl VolumeError {
    fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |why| Self::System { what, why: why.into() }
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// Returns its name, as in `mount` and the profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Returns the program that makes it, the package that contains it, its arguments, and the image size in bytes.
    ///
    /// From these sizes on, each behaves like a large one: ext4 gives up delayed allocation if little is free, xfs
    /// supports no less than 300 MiB, and btrfs flushes by itself if space is short.
    fn recipe(self) -> (&'static str, &'static str, &'static [&'static str], u64) {
        const EXT4: &[&str] = &[
            "-q",
            "-F",
            "-b",
            "4096",
            "-N",
            "1024",
            "-E",
            "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
        ];
        match self {
            Self::Ext4 => ("mkfs.ext4", "e2fsprogs", EXT4, 512 << 20),
            Self::Xfs => ("mkfs.xfs", "xfsprogs", &["-q", "-f", "-K"], 300 << 20),
            Self::Btrfs => ("mkfs.btrfs", "btrfs-progs", &["-q", "-f", "-K"], 128 << 20),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("there is no {name:?} to confirm on: ext4, xfs or btrfs"))
    }
}

/// Runs `work` in a thread with its own mount namespace, which its children share: mounts made there end with it.
///
/// # Errors
/// Fails if this process may not create such a namespace.
///
/// # Panics
/// Panics if `work` does.
pub fn in_a_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, VolumeError> {
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNS)
                .map_err(VolumeError::system("have mounts of its own, which takes root"))?;
            let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
            rustix::mount::mount_change("/", private)
                .map_err(VolumeError::system("keep mounts to itself"))?;
            Ok(work())
        });
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A file system as made by `mkfs`.
#[derive(Debug)]
pub struct Template {
    kind: Kind,
    image: File,
}

impl Template {
    /// Makes one, through a temporary file in this folder.
    ///
    /// # Errors
    /// Fails if the program is missing or fails.
    pub fn make(kind: Kind, folder: &Path) -> Result<Self, VolumeError> {
        let (program, package, arguments, size) = kind.recipe();
        let file = tempfile::NamedTempFile::new_in(folder)
            .map_err(VolumeError::system("make a file for an image"))?;
        file.as_file().set_len(size).map_err(VolumeError::system("make a file for an image"))?;
        let mut command = Command::new(find(program).ok_or(VolumeError::NoProgram { program, package })?);
        command.args(arguments).arg(file.path()).stdin(Stdio::null());
        let output = command.output().map_err(VolumeError::system("run mkfs"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(VolumeError::System { what: "make a file system", why: io::Error::other(said) });
        }
        let made = File::open(file.path()).map_err(VolumeError::system("open an image"))?;
        let image = copy(&made).map_err(VolumeError::system("copy an image"))?;
        Ok(Self { kind, image })
    }

    /// Mounts a copy of it.
    ///
    /// # Errors
    /// Fails if the system refuses it.
    pub fn mount(&self, at: &Path) -> Result<Mounted, VolumeError> {
        let image = copy(&self.image).map_err(VolumeError::system("copy an image"))?;
        Mounted::new(self.kind, image, at)
    }
}

/// A file system mounted for this thread and its children.
#[derive(Debug)]
pub struct Mounted {
    kind: Kind,
    image: Option<File>,
    /// The number of its loop device.
    device: u64,
    at: PathBuf,
}

/// The image left by a power cut.
#[derive(Debug)]
pub struct Left {
    kind: Kind,
    image: File,
}

impl Mounted {
    fn new(kind: Kind, image: File, at: &Path) -> Result<Self, VolumeError> {
        let device = ioctl::attach(&image).map_err(VolumeError::system("attach a loop device"))?;
        // Two copies of one xfs may be mounted at a time.
        let options = if kind == Kind::Xfs { c"nouuid" } else { c"" };
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        rustix::mount::mount(&device.path, at, kind.name(), flags, options)
            .map_err(VolumeError::system("mount an image, which takes root"))?;
        // From here on only the mount holds the device.
        Ok(Self { kind, image: Some(image), device: device.number, at: at.to_owned() })
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// Fails if the data cannot be written.
    pub fn sync(&self) -> Result<(), VolumeError> {
        let root = File::open(&self.at).map_err(VolumeError::system("open a mounted image"))?;
        rustix::fs::syncfs(&root).map_err(VolumeError::system("sync a mounted image"))
    }

    /// Cuts its power, and unmounts it. No file on it may be open.
    ///
    /// # Errors
    /// Fails if the system refuses it.
    pub fn cut(mut self) -> Result<Left, VolumeError> {
        let Some(image) = self.image.take() else {
            return Err(VolumeError::System { what: "cut the power", why: io::ErrorKind::NotFound.into() });
        };
        let left = match self.kind {
            Kind::Ext4 | Kind::Xfs => {
                self.shut_down().map_err(VolumeError::system("shut a mounted image down"))?;
                image
            }
            Kind::Btrfs => copy(&image).map_err(VolumeError::system("copy a mounted image"))?,
        };
        self.unmount()?;
        Ok(Left { kind: self.kind, image: left })
    }

    fn shut_down(&self) -> io::Result<()> {
        let root = File::open(&self.at)?;
        // On the wrong file system this would take the machine down.
        if root.metadata()?.dev() != self.device {
            return Err(io::Error::other("it is not mounted there"));
        }
        ioctl::shut_down(root.as_fd())
    }

    fn unmount(&self) -> Result<(), VolumeError> {
        rustix::mount::unmount(&self.at, UnmountFlags::empty())
            .map_err(VolumeError::system("unmount an image"))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // After a cut it is unmounted already; a mount that cannot be removed ends with the thread's namespace.
        if self.image.is_some() {
            let _unmounted = self.unmount();
        }
    }
}

impl Left {
    /// Mounts the remaining image; the file system repairs it as after a power loss.
    ///
    /// # Errors
    /// Fails if the system refuses it.
    pub fn mount(self, at: &Path) -> Result<Mounted, VolumeError> {
        Mounted::new(self.kind, self.image, at)
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Folders of administrators' programs, which are not on users' paths.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// Copies a file into memory, except its holes.
fn copy(from: &File) -> io::Result<File> {
    const CHUNK: u64 = 1 << 20;
    let copy = File::from(rustix::fs::memfd_create("picklock-image", MemfdFlags::CLOEXEC)?);
    copy.set_len(from.metadata()?.len())?;
    let mut end = 0;
    let mut chunk = Vec::new();
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(end)) {
            Ok(start) => start,
            // Only a hole is left.
            Err(Errno::NXIO) => return Ok(copy),
            Err(other) => return Err(other.into()),
        };
        end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        let mut at = start;
        while at < end {
            chunk.resize(usize::try_from(CHUNK.min(end - at)).unwrap_or(0), 0);
            from.read_exact_at(&mut chunk, at)?;
            // Zeros written by `mkfs` become a hole in the copy.
            if chunk.iter().any(|byte| *byte != 0) {
                copy.write_all_at(&chunk, at)?;
            }
            at += chunk.len() as u64;
        }
    }
}
