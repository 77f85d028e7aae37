//! Accesses the registers of a stopped thread that hold a call's number, arguments and result.
//!
//! Their positions are a table for each architecture, over the words of the register set that the kernel returns: so
//! both tables are tested wherever the tests run.

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// The registers, as the kernel returns them.
pub(super) type Registers = libc::user_regs_struct;

/// Not a call number: the kernel skips the call.
const NO_CALL: i32 = -1;
/// Number of eight-byte words in a register set.
const WORDS: usize = size_of::<Registers>() / size_of::<u64>();

/// Word indices in a register set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    arguments: [usize; 6],
    result: usize,
    stack_pointer: usize,
    program_counter: usize,
    /// The number of a call, for the instruction that makes it.
    number: usize,
    /// The number of the call about to be made; `None` if it is in a register set of its own.
    number_at_entry: Option<usize>,
    /// The length of the instruction that makes a call.
    instruction: u64,
}

/// `struct user_regs_struct` of `arch/x86/include/asm/user_64.h`, and the calling convention of syscall(2).
#[cfg(any(test, target_arch = "x86_64"))]
const X86_64: Layout = Layout {
    arguments: [14, 13, 12, 7, 9, 8],
    result: 10,
    stack_pointer: 19,
    program_counter: 16,
    number: 10,
    number_at_entry: Some(15),
    instruction: 2,
};

/// `struct user_pt_regs` of `arch/arm64/include/uapi/asm/ptrace.h`, and the calling convention of syscall(2).
#[cfg(any(test, target_arch = "aarch64"))]
const AARCH64: Layout = Layout {
    arguments: [0, 1, 2, 3, 4, 5],
    result: 0,
    stack_pointer: 31,
    program_counter: 32,
    number: 8,
    number_at_entry: None,
    instruction: 4,
};

#[cfg(target_arch = "x86_64")]
const HERE: Layout = X86_64;
#[cfg(target_arch = "aarch64")]
const HERE: Layout = AARCH64;

impl Layout {
    fn arguments(&self, words: &[u64]) -> [u64; 6] {
        self.arguments.map(|place| words[place])
    }

    fn set_arguments(&self, words: &mut [u64], arguments: [u64; 6]) {
        self.arguments.into_iter().zip(arguments).for_each(|(place, value)| words[place] = value);
    }

    /// Executes the last instruction again, with this call.
    fn make_again(&self, words: &mut [u64], number: u64, arguments: [u64; 6]) {
        words[self.program_counter] -= self.instruction;
        self.set_arguments(words, arguments);
        words[self.number] = number;
    }

    fn refuse(&self, words: &mut [u64], errno: i32) {
        if let Some(place) = self.number_at_entry {
            words[place] = i64::from(NO_CALL).cast_unsigned();
        }
        words[self.result] = i64::from(-errno).cast_unsigned();
    }
}

fn words(registers: &Registers) -> [u64; WORDS] {
    #[expect(unsafe_code, reason = "the set is looked at as words, whatever the architecture calls them")]
    // SAFETY: it is a C structure of eight-byte words and nothing else, on every architecture that has a table.
    unsafe {
        std::mem::transmute(*registers)
    }
}

fn from_words(words: [u64; WORDS]) -> Registers {
    #[expect(unsafe_code, reason = "the set is looked at as words, whatever the architecture calls them")]
    // SAFETY: as in `words`; every word is a value of its register.
    unsafe {
        std::mem::transmute(words)
    }
}

pub(super) fn read(thread: Pid) -> Result<Registers, Errno> {
    ptrace::getregs(thread)
}

pub(super) fn write(thread: Pid, registers: Registers) -> Result<(), Errno> {
    ptrace::setregs(thread, registers)
}

fn change(thread: Pid, change: impl FnOnce(&mut [u64])) -> Result<(), Errno> {
    let mut set = words(&read(thread)?);
    change(&mut set);
    write(thread, from_words(set))
}

/// Sets an argument of the call about to be made, counted from 0; returns its previous value.
pub(super) fn set_argument(thread: Pid, index: usize, value: u64) -> Result<u64, Errno> {
    let place = *HERE.arguments.get(index).ok_or(Errno::EINVAL)?;
    let mut before = 0;
    change(thread, |words| before = std::mem::replace(&mut words[place], value))?;
    Ok(before)
}

/// Makes the call about to be made do nothing and return this error.
pub(super) fn refuse(thread: Pid, errno: i32) -> Result<(), Errno> {
    #[cfg(target_arch = "aarch64")]
    set_number(thread, NO_CALL)?;
    change(thread, |words| HERE.refuse(words, errno))
}

/// After a call has returned: replaces its result by this error.
pub(super) fn set_failure(thread: Pid, errno: i32) -> Result<(), Errno> {
    set_result(thread, i64::from(-errno))
}

/// Makes the call about to be made do nothing and return this value.
pub(super) fn answer(thread: Pid, value: i32) -> Result<(), Errno> {
    refuse(thread, -value)
}

/// After a call has returned: replaces its result.
pub(super) fn set_result(thread: Pid, result: i64) -> Result<(), Errno> {
    change(thread, |words| words[HERE.result] = result.cast_unsigned())
}

/// Returns the stack pointer.
pub(super) fn stack_pointer(registers: &Registers) -> u64 {
    words(registers)[HERE.stack_pointer]
}

/// Sets the number of the call, which is in a register set of its own.
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

/// After a call has returned: makes the thread make it once more, with this number and these arguments.
pub(super) fn make_again(thread: Pid, number: u64, arguments: [u64; 6]) -> Result<(), Errno> {
    change(thread, |words| HERE.make_again(words, number, arguments))
}

/// Returns the arguments of the call about to be made.
pub(super) fn arguments(registers: &Registers) -> [u64; 6] {
    HERE.arguments(&words(registers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Registers of `openat(AT_FDCWD, 0x7ffe_1000, O_RDWR|O_CREAT|O_CLOEXEC, 0o666)`, stopped on entry, as gdb shows
    /// them.
    const ON_X86_64: [u64; 27] = [
        0x15,
        0x14,
        0x13,
        0x12,
        0xb9,
        0xb8, // r15 r14 r13 r12 rbp rbx
        0x246,
        0o666,
        0x9,
        0x8, // r11 r10 r9 r8
        0xffff_ffff_ffff_ffda,
        0xcc,
        0x8_0042,
        0x7ffe_1000,
        0xffff_ff9c, // rax rcx rdx rsi rdi
        257,
        0x40_1002,
        0x33,
        0x246,
        0x7ffe_0f00,
        0x2b, // orig_rax rip cs eflags rsp ss
        0,
        0,
        0,
        0,
        0,
        0,
    ];

    /// The same call on aarch64: x0 to x30, sp, pc, pstate.
    fn on_aarch64() -> [u64; 34] {
        let mut set = [0; 34];
        set[..6].copy_from_slice(&[0xffff_ff9c, 0x7ffe_1000, 0x8_0042, 0o666, 0x8, 0x9]);
        (set[8], set[31], set[32], set[33]) = (56, 0x7ffe_0f00, 0x40_1004, 0x6000_0000);
        set
    }

    #[test]
    fn the_arguments_of_a_call_are_where_the_calling_convention_has_them() {
        let expected = [0xffff_ff9c, 0x7ffe_1000, 0x8_0042, 0o666];
        assert_eq!(X86_64.arguments(&ON_X86_64)[..4], expected);
        assert_eq!(X86_64.arguments(&ON_X86_64)[4..], [0x8, 0x9]);
        assert_eq!(AARCH64.arguments(&on_aarch64())[..4], expected);
        assert_eq!(ON_X86_64[X86_64.stack_pointer], on_aarch64()[AARCH64.stack_pointer]);
    }

    #[test]
    fn a_call_that_is_made_again_has_its_number_its_arguments_and_its_instruction_before_it() {
        let arguments = [1, 2, 3, 4, 5, 6];
        let (mut set, mut arm) = (ON_X86_64, on_aarch64());
        X86_64.make_again(&mut set, 257, arguments);
        AARCH64.make_again(&mut arm, 56, arguments);
        assert_eq!((X86_64.arguments(&set), AARCH64.arguments(&arm)), (arguments, arguments));
        assert_eq!((set[10], set[16], arm[8], arm[32]), (257, 0x40_1000, 56, 0x40_1000));
        // On aarch64 the first argument is in the register of the result.
        assert_eq!(arm[0], 1);
    }

    #[test]
    fn a_call_that_is_refused_is_none_and_returns_the_error() {
        let (mut set, mut arm) = (ON_X86_64, on_aarch64());
        X86_64.refuse(&mut set, libc::ENOSYS);
        AARCH64.refuse(&mut arm, libc::ENOSYS);
        let failed = (-i64::from(libc::ENOSYS)).cast_unsigned();
        assert_eq!((set[15].cast_signed(), set[10], arm[0]), (-1, failed, failed));
    }

    #[test]
    fn the_set_of_this_machine_is_as_long_as_its_table_says_and_survives_the_way_there_and_back() {
        let length = if HERE == X86_64 { ON_X86_64.len() } else { on_aarch64().len() };
        assert_eq!(WORDS, length);
        let set: [u64; WORDS] = std::array::from_fn(|place| place as u64);
        let registers = from_words(set);
        assert_eq!((words(&registers), arguments(&registers)), (set, HERE.arguments(&set)));
        assert_eq!(stack_pointer(&registers), HERE.stack_pointer as u64);
    }
}
