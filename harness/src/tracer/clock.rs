//! Emulates the clock of scheduled processes: a sleep takes no time, and their clock is advanced by its length.
//!
//! A program reads the time without a system call, through code that the kernel maps into it (vdso(7)). That code is
//! hidden from the program at its start, so that it makes the call; then the call can be answered.

use std::time::Duration;

use nix::unistd::Pid;

use crate::tracer::stopped::Entry;
use crate::tracer::{memory, registers};

/// Calls that stop in a scheduled process in addition to those that can be visible.
pub(super) const CALLS: &[i64] = &[
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    libc::SYS_pselect6,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
];

const NANOS: u64 = 1_000_000_000;
/// Maximum length of a sleep that ends, in seconds: about thirty years, so that clocks do not overflow.
const LONGEST: u64 = 1 << 30;

/// Relation of a call to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timed {
    /// It sleeps for this long, and waits for nothing else.
    Sleep(Duration),
    /// It asks for the time.
    Ask(Asked),
    /// Anything else.
    Other,
}

/// Where the answer is written, and in which unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    address: u64,
    /// Parts of a second that the second word counts.
    parts: u64,
    /// Whether the result is the answer too, in seconds.
    is_result: bool,
}

/// Decodes the relation of a call to time; nothing if it is none of [`CALLS`].
pub(super) fn of(thread: Pid, entry: &Entry, ahead: Duration) -> Option<Timed> {
    let number =
        i64::try_from(entry.number).ok().filter(|number| !entry.is_foreign && CALLS.contains(number))?;
    let argument = |index: usize| entry.arguments[index];
    let span = |address: u64, parts: u64| {
        let (seconds, rest) =
            (memory::word(thread, address)?, memory::word(thread, address.checked_add(8)?)?);
        // An invalid time is for the kernel to refuse, and an infinite one is no sleep.
        let is_span = seconds <= LONGEST && rest < parts;
        is_span.then(|| Duration::from_secs(seconds) + Duration::from_nanos(rest * (NANOS / parts)))
    };
    let asked = |address, parts, is_result| Timed::Ask(Asked { address, parts, is_result });
    let sleeps = |span: Option<Duration>| span.map_or(Timed::Other, Timed::Sleep);
    Some(match number {
        libc::SYS_nanosleep => sleeps(span(argument(0), NANOS)),
        libc::SYS_clock_nanosleep => {
            let until = span(argument(2), NANOS);
            match argument(1) as i32 & libc::TIMER_ABSTIME {
                0 => sleeps(until),
                _ => sleeps(until.and_then(|until| {
                    let clock = i32::try_from(argument(0)).ok()?;
                    let now = now(clock)?.checked_add(ahead)?;
                    // If that time has passed, it does not sleep.
                    Some(until.saturating_sub(now))
                })),
            }
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select if argument(0) == 0 && argument(4) != 0 => sleeps(span(argument(4), 1_000_000)),
        libc::SYS_pselect6 if argument(0) == 0 && argument(4) != 0 => sleeps(span(argument(4), NANOS)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll if argument(1) == 0 && argument(2) as i32 >= 0 => {
            Timed::Sleep(Duration::from_millis(argument(2) & 0x7fff_ffff))
        }
        libc::SYS_ppoll if argument(1) == 0 && argument(2) != 0 => sleeps(span(argument(2), NANOS)),
        libc::SYS_clock_gettime => match argument(0) as i32 {
            libc::CLOCK_REALTIME
            | libc::CLOCK_MONOTONIC
            | libc::CLOCK_MONOTONIC_RAW
            | libc::CLOCK_REALTIME_COARSE
            | libc::CLOCK_MONOTONIC_COARSE
            | libc::CLOCK_BOOTTIME => asked(argument(1), NANOS, false),
            _ => Timed::Other,
        },
        libc::SYS_gettimeofday if argument(0) != 0 => asked(argument(0), 1_000_000, false),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_time => asked(argument(0), 0, true),
        _ => Timed::Other,
    })
}

/// Returns the current time of this system.
fn now(clock: i32) -> Option<Duration> {
    let clock = match clock {
        libc::CLOCK_REALTIME => rustix::time::ClockId::Realtime,
        libc::CLOCK_MONOTONIC => rustix::time::ClockId::Monotonic,
        libc::CLOCK_BOOTTIME => rustix::time::ClockId::Boottime,
        _ => return None,
    };
    let now = rustix::time::clock_gettime(clock);
    Some(Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?))
}

impl Asked {
    /// Advances the time that a thread has just received.
    pub(super) fn answer(self, thread: Pid, result: i64, ahead: Duration) -> Option<()> {
        let Self { address, parts, is_result } = self;
        if is_result {
            let later = result.checked_add(i64::try_from(ahead.as_secs()).ok()?)?;
            if address != 0 {
                memory::set_word(thread, address, later.cast_unsigned()).ok()?;
            }
            return registers::set_result(thread, later).ok();
        }
        let (seconds, rest) =
            (memory::word(thread, address)?, memory::word(thread, address.checked_add(8)?)?);
        let told = Duration::new(seconds, u32::try_from(rest.saturating_mul(NANOS / parts)).ok()?);
        let later = told.checked_add(ahead)?;
        memory::set_word(thread, address, later.as_secs()).ok()?;
        memory::set_word(thread, address + 8, u64::from(later.subsec_nanos()) / (NANOS / parts)).ok()
    }
}

/// Hides the address of the kernel's clock code from a program that has been loaded and has not run yet.
pub(super) fn hide_fast_clock(thread: Pid) {
    /// From `auxvec.h`: the address of that code, and an entry to be ignored.
    const AT_SYSINFO_EHDR: u64 = 33;
    const AT_IGNORE: u64 = 1;
    /// Arguments and environment are lists of words, each terminated by a zero; pairs of words follow.
    const LISTS: usize = 1 << 20;
    let Ok(stack) = registers::read(thread).map(|registers| registers::stack_pointer(&registers)) else {
        return;
    };
    let bytes = memory::bytes(thread, stack, LISTS);
    let words: Vec<u64> =
        bytes.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes)).collect();
    let Some(arguments) = words.first().and_then(|count| usize::try_from(*count).ok()) else { return };
    // The number of arguments, the arguments, and a zero.
    let environment = arguments.saturating_add(2);
    let Some(end) = words.iter().skip(environment).position(|word| *word == 0) else { return };
    let pairs = environment + end + 1;
    let found =
        words.get(pairs..).unwrap_or_default().chunks_exact(2).position(|pair| pair[0] == AT_SYSINFO_EHDR);
    if let Some(found) = found {
        let address = stack + 8 * (pairs + 2 * found) as u64;
        // If it cannot be hidden, the program sees the real clock.
        let _hidden = memory::set_word(thread, address, AT_IGNORE);
    }
}
