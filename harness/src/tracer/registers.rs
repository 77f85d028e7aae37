//! The registers of a stopped thread, as far as a call's number, arguments and result stand in them.

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// The registers, as the kernel hands them out.
pub(super) type Registers = libc::user_regs_struct;

/// The number of no call: the kernel skips it.
const NO_CALL: i64 = -1;

pub(super) fn read(thread: Pid) -> Result<Registers, Errno> {
    ptrace::getregs(thread)
}

pub(super) fn write(thread: Pid, registers: Registers) -> Result<(), Errno> {
    ptrace::setregs(thread, registers)
}

/// Sets an argument of the call that is about to be made, counted from 0; what it was before.
pub(super) fn set_argument(thread: Pid, index: usize, value: u64) -> Result<u64, Errno> {
    let mut registers = read(thread)?;
    let place = argument(&mut registers, index).ok_or(Errno::EINVAL)?;
    let before = std::mem::replace(place, value);
    write(thread, registers)?;
    Ok(before)
}

#[cfg(target_arch = "x86_64")]
fn argument(registers: &mut Registers, index: usize) -> Option<&mut u64> {
    Some(match index {
        0 => &mut registers.rdi,
        1 => &mut registers.rsi,
        2 => &mut registers.rdx,
        3 => &mut registers.r10,
        4 => &mut registers.r8,
        5 => &mut registers.r9,
        _ => return None,
    })
}

#[cfg(target_arch = "aarch64")]
fn argument(registers: &mut Registers, index: usize) -> Option<&mut u64> {
    registers.regs.get_mut(..6)?.get_mut(index)
}

/// Lets the call that is about to be made do nothing and return this error.
#[cfg(target_arch = "x86_64")]
pub(super) fn refuse(thread: Pid, errno: i32) -> Result<(), Errno> {
    let mut registers = read(thread)?;
    registers.orig_rax = NO_CALL.cast_unsigned();
    registers.rax = i64::from(-errno).cast_unsigned();
    write(thread, registers)
}

/// Lets the call that is about to be made do nothing and return this error.
#[cfg(target_arch = "aarch64")]
pub(super) fn refuse(thread: Pid, errno: i32) -> Result<(), Errno> {
    set_number(thread, NO_CALL as i32)?;
    let mut registers = read(thread)?;
    registers.regs[0] = i64::from(-errno).cast_unsigned();
    write(thread, registers)
}

/// After a call has returned: it is told that it failed with this error.
#[cfg(target_arch = "x86_64")]
pub(super) fn set_failure(thread: Pid, errno: i32) -> Result<(), Errno> {
    let mut registers = read(thread)?;
    registers.rax = i64::from(-errno).cast_unsigned();
    write(thread, registers)
}

/// After a call has returned: it is told that it failed with this error.
#[cfg(target_arch = "aarch64")]
pub(super) fn set_failure(thread: Pid, errno: i32) -> Result<(), Errno> {
    let mut registers = read(thread)?;
    registers.regs[0] = i64::from(-errno).cast_unsigned();
    write(thread, registers)
}

/// Lets the call that is about to be made do nothing and return this.
pub(super) fn answer(thread: Pid, value: i32) -> Result<(), Errno> {
    refuse(thread, -value)
}

/// After a call has returned: it is told this result.
pub(super) fn set_result(thread: Pid, result: i64) -> Result<(), Errno> {
    let mut registers = read(thread)?;
    #[cfg(target_arch = "x86_64")]
    let place = &mut registers.rax;
    #[cfg(target_arch = "aarch64")]
    let place = &mut registers.regs[0];
    *place = result.cast_unsigned();
    write(thread, registers)
}

/// Where the stack ends.
pub(super) fn stack_pointer(registers: &Registers) -> u64 {
    #[cfg(target_arch = "x86_64")]
    return registers.rsp;
    #[cfg(target_arch = "aarch64")]
    return registers.sp;
}

/// The number of the call stands in a register set of its own.
#[cfg(target_arch = "aarch64")]
fn set_number(thread: Pid, number: i32) -> Result<(), Errno> {
    /// `NT_ARM_SYSTEM_CALL` of `elf.h`.
    const SYSTEM_CALL: libc::c_long = 0x404;
    let mut number = number;
    let mut vector = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: size_of::<i32>() };
    #[expect(unsafe_code, reason = "nix does not know this register set")]
    // SAFETY: the vector describes `number`, which outlives the call.
    let set = unsafe {
        libc::ptrace(
            libc::PTRACE_SETREGSET,
            thread.as_raw(),
            SYSTEM_CALL,
            (&raw mut vector).cast::<libc::c_void>(),
        )
    };
    Errno::result(set).map(drop)
}

/// After a call has returned: lets the thread make it once more, with the arguments of `entry`.
#[cfg(target_arch = "x86_64")]
pub(super) fn make_again(thread: Pid, number: u64, arguments: [u64; 6]) -> Result<(), Errno> {
    /// The length of the instruction `syscall`.
    const INSTRUCTION: u64 = 2;
    let mut registers = read(thread)?;
    registers.rip -= INSTRUCTION;
    registers.rax = number;
    set_all(&mut registers, arguments);
    write(thread, registers)
}

/// After a call has returned: lets the thread make it once more, with the arguments of `entry`.
#[cfg(target_arch = "aarch64")]
pub(super) fn make_again(thread: Pid, number: u64, arguments: [u64; 6]) -> Result<(), Errno> {
    /// The length of the instruction `svc`.
    const INSTRUCTION: u64 = 4;
    let mut registers = read(thread)?;
    registers.pc -= INSTRUCTION;
    registers.regs[8] = number;
    set_all(&mut registers, arguments);
    write(thread, registers)
}

/// The arguments of the call that is about to be made.
pub(super) fn arguments(registers: &Registers) -> [u64; 6] {
    let mut registers = *registers;
    std::array::from_fn(|index| argument(&mut registers, index).map_or(0, |place| *place))
}

fn set_all(registers: &mut Registers, arguments: [u64; 6]) {
    for (index, value) in arguments.into_iter().enumerate() {
        if let Some(place) = argument(registers, index) {
            *place = value;
        }
    }
}
