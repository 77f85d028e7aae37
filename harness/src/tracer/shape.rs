//! Lists the system calls that can be visible, with the meaning of their arguments.

use crate::call::Class;

/// One call.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) number: i64,
    pub(super) name: &'static str,
    pub(super) class: Class,
    pub(super) form: Form,
}

/// Positions, counted from 0, of the arguments that say what a call works on. `None` for a folder is the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Opens a path; positions of folder, path and flags.
    Open { folder: Option<usize>, path: usize, flags: Flags },
    /// Works on one path.
    Path { folder: Option<usize>, path: usize },
    /// Works on two paths.
    Paths { folders: [Option<usize>; 2], paths: [usize; 2] },
    /// Works on all existing files, including those of the sandbox.
    Everything,
    /// Works on the file of a descriptor.
    File,
    /// Reads or writes `count` bytes through a descriptor.
    Bytes { count: usize },
    /// Writes bytes from memory.
    Buffer { address: usize, count: usize },
    /// Reads or writes through a list of buffers.
    Vector { list: usize, count: usize },
    /// Copies `count` bytes, or fewer, from one descriptor to another.
    Copy { from: usize, to: usize, count: usize },
    /// Works on an extended attribute, or on the list of them: position of its name and, if it is set, of its value and
    /// the value's length.
    Attribute { of: Of, name: Option<usize>, value: Option<Value> },
    /// Gives a socket a name, which is a file name for a Unix socket: positions of the address and its length.
    Bind { address: usize, length: usize },
    /// `ioctl` calls that let files share content: the filter stops no others.
    Ioctl,
    /// Makes memory writable, which may be a map of a file: noted, not reported.
    Protect,
    /// Maps a file into memory.
    Map,
    /// `flock`.
    Flock,
    /// `fcntl`.
    Fcntl,
    /// Closes one descriptor.
    Close,
    /// Closes descriptors from one to another.
    CloseRange,
    /// Ends the process: reported when it has ended, not as a call.
    Exit,
    /// Sets where the C library keeps the thread's id: noted for copies, not reported.
    TidAddress,
    /// Sets a timer, which can end a wait: noted, not reported.
    Timer { value: TimerValue },
    /// Makes a second descriptor; position of the requested number.
    Duplicate { to: Option<usize> },
}

/// Owner of the extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The file of the path in argument 0.
    Path,
    /// The file of the descriptor in argument 0.
    Descriptor,
    /// The file of the path in argument 1, from the folder in argument 0; the file of that descriptor if the path is
    /// empty.
    At,
}

/// Position of the value of an extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// At this address, with this length.
    Plain { address: usize, length: usize },
    /// The same in a structure that this argument points to.
    Behind(usize),
}

/// Position of the flags of an open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    /// In this argument.
    Argument(usize),
    /// At the beginning of a structure that this argument points to.
    Behind(usize),
    /// `creat` has none: it always creates and truncates.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "newer architectures have no creat"))]
    Creat,
}

/// Position of the time at which a timer goes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerValue {
    /// This argument is the number of seconds.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "newer architectures have no alarm"))]
    Seconds(usize),
    /// In a structure that this argument points to: an interval, and the time.
    Behind(usize),
}

/// The numbers of all calls. Those that the `libc` crate does not know yet are the same on all architectures.
#[expect(non_upper_case_globals, reason = "they are called as that crate calls the others")]
mod numbers {
    pub(super) use libc::*;

    pub(super) const SYS_fchmodat2: i64 = 452;
    pub(super) const SYS_setxattrat: i64 = 463;
    pub(super) const SYS_getxattrat: i64 = 464;
    pub(super) const SYS_listxattrat: i64 = 465;
    pub(super) const SYS_removexattrat: i64 = 466;
}

macro_rules! shapes {
    ($($(#[$attribute:meta])* $call:ident $class:ident $form:expr;)*) => {
        /// All calls that can be visible.
        pub(super) const ALL: &[Shape] = &[$(
            $(#[$attribute])*
            Shape { number: numbers::$call, name: name(stringify!($call)), class: Class::$class, form: $form },
        )*];
    };
}

/// Returns the name of a call: `SYS_open` is called `open`.
const fn name(constant: &'static str) -> &'static str {
    constant.split_at(4).1
}

const fn path(path: usize) -> Form {
    Form::Path { folder: None, path }
}

const fn path_at(folder: usize, path: usize) -> Form {
    Form::Path { folder: Some(folder), path }
}

#[cfg(target_arch = "x86_64")]
const fn paths(first: usize, second: usize) -> Form {
    Form::Paths { folders: [None, None], paths: [first, second] }
}

const fn attribute(of: Of, name: Option<usize>, value: Option<Value>) -> Form {
    Form::Attribute { of, name, value }
}

/// Position of the value in `setxattr` and its variants.
const SET: Value = Value::Plain { address: 2, length: 3 };

const PATHS_AT: Form = Form::Paths { folders: [Some(0), Some(2)], paths: [1, 3] };

// The calls without `at` are those of x86-64 alone.
shapes! {
    #[cfg(target_arch = "x86_64")] SYS_open Open Form::Open { folder: None, path: 0, flags: Flags::Argument(1) };
    #[cfg(target_arch = "x86_64")] SYS_creat Open Form::Open { folder: None, path: 0, flags: Flags::Creat };
    SYS_openat Open Form::Open { folder: Some(0), path: 1, flags: Flags::Argument(2) };
    SYS_openat2 Open Form::Open { folder: Some(0), path: 1, flags: Flags::Behind(2) };

    SYS_close Close Form::Close;
    SYS_close_range Close Form::CloseRange;
    SYS_dup Open Form::Duplicate { to: None };
    #[cfg(target_arch = "x86_64")] SYS_dup2 Open Form::Duplicate { to: Some(1) };
    SYS_dup3 Open Form::Duplicate { to: Some(1) };

    SYS_read Read Form::Bytes { count: 2 };
    SYS_pread64 Read Form::Bytes { count: 2 };
    SYS_readv Read Form::Vector { list: 1, count: 2 };
    SYS_preadv Read Form::Vector { list: 1, count: 2 };
    SYS_preadv2 Read Form::Vector { list: 1, count: 2 };
    SYS_getdents64 Read Form::File;
    #[cfg(target_arch = "x86_64")] SYS_getdents Read Form::File;

    SYS_write Write Form::Buffer { address: 1, count: 2 };
    SYS_pwrite64 Write Form::Buffer { address: 1, count: 2 };
    SYS_writev Write Form::Vector { list: 1, count: 2 };
    SYS_pwritev Write Form::Vector { list: 1, count: 2 };
    SYS_pwritev2 Write Form::Vector { list: 1, count: 2 };
    SYS_ftruncate Write Form::Bytes { count: 1 };
    SYS_truncate Write path(0);
    SYS_fallocate Write Form::Bytes { count: 3 };
    SYS_sendfile Write Form::Copy { from: 1, to: 0, count: 3 };
    SYS_copy_file_range Write Form::Copy { from: 0, to: 2, count: 4 };
    SYS_splice Write Form::Copy { from: 0, to: 2, count: 4 };
    SYS_mmap Read Form::Map;
    SYS_mprotect Write Form::Protect;
    SYS_ioctl Write Form::Ioctl;

    #[cfg(target_arch = "x86_64")] SYS_rename Name paths(0, 1);
    SYS_renameat Name PATHS_AT;
    SYS_renameat2 Name PATHS_AT;
    #[cfg(target_arch = "x86_64")] SYS_link Name paths(0, 1);
    SYS_linkat Name PATHS_AT;
    #[cfg(target_arch = "x86_64")] SYS_symlink Name path(1);
    SYS_symlinkat Name path_at(1, 2);
    #[cfg(target_arch = "x86_64")] SYS_unlink Name path(0);
    SYS_unlinkat Name path_at(0, 1);
    #[cfg(target_arch = "x86_64")] SYS_mkdir Name path(0);
    SYS_mkdirat Name path_at(0, 1);
    #[cfg(target_arch = "x86_64")] SYS_rmdir Name path(0);
    #[cfg(target_arch = "x86_64")] SYS_mknod Name path(0);
    SYS_mknodat Name path_at(0, 1);
    SYS_bind Name Form::Bind { address: 1, length: 2 };

    #[cfg(target_arch = "x86_64")] SYS_chmod Attribute path(0);
    SYS_fchmod Attribute Form::File;
    SYS_fchmodat Attribute path_at(0, 1);
    #[cfg(target_arch = "x86_64")] SYS_chown Attribute path(0);
    #[cfg(target_arch = "x86_64")] SYS_lchown Attribute path(0);
    SYS_fchown Attribute Form::File;
    SYS_fchownat Attribute path_at(0, 1);
    SYS_utimensat Attribute path_at(0, 1);
    #[cfg(target_arch = "x86_64")] SYS_utime Attribute path(0);
    #[cfg(target_arch = "x86_64")] SYS_utimes Attribute path(0);
    #[cfg(target_arch = "x86_64")] SYS_futimesat Attribute path_at(0, 1);
    SYS_fchmodat2 Attribute path_at(0, 1);
    SYS_setxattr Attribute attribute(Of::Path, Some(1), Some(SET));
    SYS_lsetxattr Attribute attribute(Of::Path, Some(1), Some(SET));
    SYS_fsetxattr Attribute attribute(Of::Descriptor, Some(1), Some(SET));
    SYS_setxattrat Attribute attribute(Of::At, Some(3), Some(Value::Behind(4)));
    SYS_removexattr Attribute attribute(Of::Path, Some(1), None);
    SYS_lremovexattr Attribute attribute(Of::Path, Some(1), None);
    SYS_fremovexattr Attribute attribute(Of::Descriptor, Some(1), None);
    SYS_removexattrat Attribute attribute(Of::At, Some(3), None);
    SYS_getxattr Inspect attribute(Of::Path, Some(1), None);
    SYS_lgetxattr Inspect attribute(Of::Path, Some(1), None);
    SYS_fgetxattr Inspect attribute(Of::Descriptor, Some(1), None);
    SYS_getxattrat Inspect attribute(Of::At, Some(3), None);
    SYS_listxattr Inspect attribute(Of::Path, None, None);
    SYS_llistxattr Inspect attribute(Of::Path, None, None);
    SYS_flistxattr Inspect attribute(Of::Descriptor, None, None);
    SYS_listxattrat Inspect attribute(Of::At, None, None);

    SYS_sync Sync Form::Everything;
    SYS_fsync Sync Form::File;
    SYS_fdatasync Sync Form::File;
    SYS_syncfs Sync Form::File;
    SYS_sync_file_range Sync Form::File;

    #[cfg(target_arch = "x86_64")] SYS_stat Inspect path(0);
    #[cfg(target_arch = "x86_64")] SYS_lstat Inspect path(0);
    SYS_fstat Inspect Form::File;
    SYS_newfstatat Inspect path_at(0, 1);
    SYS_statx Inspect path_at(0, 1);
    #[cfg(target_arch = "x86_64")] SYS_access Inspect path(0);
    SYS_faccessat Inspect path_at(0, 1);
    SYS_faccessat2 Inspect path_at(0, 1);
    #[cfg(target_arch = "x86_64")] SYS_readlink Inspect path(0);
    SYS_readlinkat Inspect path_at(0, 1);
    SYS_lseek Inspect Form::File;

    SYS_exit_group Process Form::Exit;
    #[cfg(target_arch = "x86_64")] SYS_alarm Process Form::Timer { value: TimerValue::Seconds(0) };
    SYS_set_tid_address Process Form::TidAddress;
    SYS_setitimer Process Form::Timer { value: TimerValue::Behind(1) };
    SYS_timer_settime Process Form::Timer { value: TimerValue::Behind(2) };

    SYS_flock Lock Form::Flock;
    SYS_fcntl Lock Form::Fcntl;
}

/// Returns the row of this call.
pub(super) fn find(number: u64) -> Option<&'static Shape> {
    ALL.iter().find(|shape| u64::try_from(shape.number).is_ok_and(|known| known == number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_one_row_and_the_name_of_its_manual_page() {
        for (index, shape) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other.number != shape.number), "{}", shape.name);
            assert!(!shape.name.starts_with("SYS_"));
        }
        assert_eq!(find(u64::try_from(libc::SYS_flock).unwrap()).unwrap().name, "flock");
        assert!(find(u64::try_from(libc::SYS_getpid).unwrap()).is_none());
    }
}
