//! Reads and writes the memory of a stopped thread.

use std::io::{IoSlice, IoSliceMut};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

/// Maximum length of a path; the kernel refuses longer paths too.
const PATH_MAX: usize = 4096;
/// Bytes read in one step: a read past the end of a mapping fails as a whole, and mappings end on page boundaries.
const PAGE: usize = 4096;

/// Bytes of a string read in one step.
const TEXT_STEP: usize = 256;

/// Reads up to `length` bytes at `address`; fewer if the memory ends earlier.
pub(super) fn bytes(thread: Pid, address: u64, length: usize) -> Vec<u8> {
    let mut found = Vec::new();
    while found.len() < length {
        let Some(at) = usize::try_from(address).ok().and_then(|base| base.checked_add(found.len())) else {
            break;
        };
        let step = (PAGE - at % PAGE).min(length - found.len());
        let mut page = vec![0; step];
        let remote = [RemoteIoVec { base: at, len: step }];
        match process_vm_readv(thread, &mut [IoSliceMut::new(&mut page)], &remote) {
            Ok(read) if read > 0 => found.extend_from_slice(&page[..read]),
            _ => break,
        }
    }
    found
}

/// Reads the string at `address` up to its NUL.
pub(super) fn text(thread: Pid, address: u64) -> Vec<u8> {
    let mut found = Vec::new();
    while found.len() < PATH_MAX {
        let Some(at) = address.checked_add(found.len() as u64) else { break };
        // Most strings are short, and every call that may be visible has one.
        let step = (PAGE - usize::try_from(at).unwrap_or(0) % PAGE).min(TEXT_STEP);
        let page = bytes(thread, at, step);
        if let Some(end) = page.iter().position(|byte| *byte == 0) {
            found.extend_from_slice(&page[..end]);
            return found;
        }
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    found
}

/// Reads the number at `address`, in native byte order.
pub(super) fn word(thread: Pid, address: u64) -> Option<u64> {
    bytes(thread, address, 8).try_into().ok().map(u64::from_ne_bytes)
}

/// Reads up to `length` bytes from a list of `count` buffers at `address`: `struct iovec` is an address and a length.
pub(super) fn vector(thread: Pid, address: u64, count: u64, length: usize) -> Vec<u8> {
    let mut found = Vec::new();
    for index in 0..count.min(1024) {
        let entry = address + index * 16;
        let (Some(base), Some(size)) = (word(thread, entry), word(thread, entry + 8)) else { break };
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(length - found.len());
        found.extend(bytes(thread, base, size));
        if found.len() >= length {
            break;
        }
    }
    found
}

/// Returns the total size in bytes of a list of `count` buffers at `address`.
pub(super) fn vector_length(thread: Pid, address: u64, count: u64) -> u64 {
    let sizes = (0..count.min(1024)).map_while(|index| word(thread, address + index * 16 + 8));
    sizes.fold(0, u64::saturating_add)
}

/// Writes the number at `address`.
pub(super) fn set_word(thread: Pid, address: u64, value: u64) -> Result<(), Errno> {
    let base = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    let bytes = value.to_ne_bytes();
    let remote = [RemoteIoVec { base, len: bytes.len() }];
    process_vm_writev(thread, &[IoSlice::new(&bytes)], &remote).map(drop)
}
