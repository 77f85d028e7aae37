//! Names flags and commands as the manual pages do.

/// Formats the flags of an `open`.
pub(super) fn open_flags(flags: i32) -> String {
    let access = match flags & libc::O_ACCMODE {
        libc::O_RDONLY => "O_RDONLY",
        libc::O_WRONLY => "O_WRONLY",
        _ => "O_RDWR",
    };
    let mut names = vec![access];
    for (flag, name) in [
        (libc::O_CREAT, "O_CREAT"),
        (libc::O_EXCL, "O_EXCL"),
        (libc::O_TRUNC, "O_TRUNC"),
        (libc::O_APPEND, "O_APPEND"),
        (libc::O_NOFOLLOW, "O_NOFOLLOW"),
        (libc::O_DIRECTORY, "O_DIRECTORY"),
        (libc::O_NONBLOCK, "O_NONBLOCK"),
        (libc::O_SYNC, "O_SYNC"),
        (libc::O_DSYNC, "O_DSYNC"),
        (libc::O_PATH, "O_PATH"),
        (libc::O_CLOEXEC, "O_CLOEXEC"),
    ] {
        // `O_SYNC` includes the bit of `O_DSYNC`.
        let is_part = name == "O_DSYNC" && flags & libc::O_SYNC == libc::O_SYNC;
        if flags & flag == flag && !is_part {
            names.push(name);
        }
    }
    names.join("|")
}

/// The known flags of `preadv2` and `pwritev2`.
const VECTOR_FLAGS: [(i32, &str); 7] = [
    (libc::RWF_HIPRI, "RWF_HIPRI"),
    (libc::RWF_DSYNC, "RWF_DSYNC"),
    (libc::RWF_SYNC, "RWF_SYNC"),
    (libc::RWF_NOWAIT, "RWF_NOWAIT"),
    (libc::RWF_APPEND, "RWF_APPEND"),
    (libc::RWF_NOAPPEND, "RWF_NOAPPEND"),
    (libc::RWF_DONTCACHE, "RWF_DONTCACHE"),
];

/// Formats the flags of a `preadv2` or `pwritev2`; flags without a known name as a number.
pub(super) fn vector_flags(flags: i32) -> String {
    let known = VECTOR_FLAGS.iter().filter(|(flag, _)| flags & flag != 0);
    let mut names: Vec<String> = known.map(|(_, name)| (*name).to_owned()).collect();
    let rest = unknown_vector_flags(flags);
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    names.join("|")
}

/// Returns the unknown flags of a `preadv2` or `pwritev2`.
pub(super) fn unknown_vector_flags(flags: i32) -> i32 {
    VECTOR_FLAGS.iter().fold(flags, |rest, (flag, _)| rest & !flag)
}

/// Formats the operation of a `flock`.
pub(super) fn flock_operation(operation: i32) -> String {
    let name = match operation & !libc::LOCK_NB {
        libc::LOCK_SH => "LOCK_SH",
        libc::LOCK_EX => "LOCK_EX",
        libc::LOCK_UN => "LOCK_UN",
        _ => "LOCK_?",
    };
    if operation & libc::LOCK_NB == 0 { name.to_owned() } else { format!("{name}|LOCK_NB") }
}

/// Formats the command of an `fcntl`.
pub(super) fn fcntl_command(command: i32) -> &'static str {
    match command {
        libc::F_DUPFD => "F_DUPFD",
        libc::F_DUPFD_CLOEXEC => "F_DUPFD_CLOEXEC",
        libc::F_SETLK => "F_SETLK",
        libc::F_SETLKW => "F_SETLKW",
        libc::F_OFD_SETLK => "F_OFD_SETLK",
        libc::F_OFD_SETLKW => "F_OFD_SETLKW",
        _ => "F_?",
    }
}

/// Formats the type of a record lock.
pub(super) fn lock_type(lock_type: i32) -> &'static str {
    match lock_type {
        libc::F_RDLCK => "F_RDLCK",
        libc::F_WRLCK => "F_WRLCK",
        _ => "F_UNLCK",
    }
}
