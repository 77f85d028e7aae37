//! The seccomp filter: which system calls stop, which are refused, and that all others cost next to nothing.

use crate::tracer::{clock, shape, spawn};

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets of the call number and the architecture in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;

/// Returns the offset of the lower half of an argument in it, counted from 0.
const fn argument_at(index: u32) -> u32 {
    16 + index * 8
}

/// `FICLONE` and `FICLONERANGE` of ioctl_ficlone(2).
pub(super) const FICLONE: u32 = 0x4004_9409;
pub(super) const FICLONERANGE: u32 = 0x4020_940d;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Data of a stop at another architecture's call.
pub(super) const FOREIGN: u32 = 1;

/// io_uring works in the kernel without visible calls, so its calls fail with ENOSYS, as if the kernel had none. The
/// same applies to the older asynchronous calls.
const REFUSED: [i64; 4] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_io_setup];

/// Builds the filter program; in a scheduled process the calls related to time stop too.
pub(super) fn program(is_scheduled: bool) -> Vec<libc::sock_filter> {
    let mut program = vec![
        statement(LOAD_WORD, ARCH_AT),
        // Another architecture's numbers mean other calls: they stop only to be reported.
        jump(ARCH, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_TRACE | FOREIGN),
        statement(LOAD_WORD, NUMBER_AT),
    ];
    for number in REFUSED {
        program.push(jump(number_of(number), 0, 1));
        program.push(statement(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()));
    }
    let timed: &[i64] = if is_scheduled { clock::CALLS } else { &[] };
    for number in shape::ALL
        .iter()
        .map(|shape| shape.number)
        .chain(timed.iter().copied())
        .chain([libc::SYS_getpid])
        .chain(spawn::CALLS.iter().copied())
    {
        // Most uses of these two calls are unrelated to files, and some programs make thousands.
        let test: &[libc::sock_filter] = match number {
            libc::SYS_mprotect => &[
                statement(LOAD_WORD, argument_at(2)),
                libc::sock_filter { code: JUMP_IF_SET, jt: 0, jf: 1, k: libc::PROT_WRITE.unsigned_abs() },
            ],
            libc::SYS_ioctl => {
                &[statement(LOAD_WORD, argument_at(1)), jump(FICLONE, 1, 0), jump(FICLONERANGE, 0, 1)]
            }
            _ => &[],
        };
        if !test.is_empty() {
            program.push(jump(number_of(number), 0, u8::try_from(test.len() + 2).unwrap_or(u8::MAX)));
            program.extend(test);
            program.push(statement(RETURN, libc::SECCOMP_RET_TRACE));
            program.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
            continue;
        }
        program.push(jump(number_of(number), 0, 1));
        program.push(statement(RETURN, libc::SECCOMP_RET_TRACE));
    }
    program.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    program
}

fn number_of(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

fn jump(k: u32, if_equal: u8, if_not: u8) -> libc::sock_filter {
    libc::sock_filter { code: JUMP_IF_EQUAL, jt: if_equal, jf: if_not, k }
}
