//! Measures the time of a flush to the disk, the baseline for every update rate.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::figures::Latencies;

/// Number of bytes written each time.
const BYTES: usize = 4096;
/// Maximum number of writes.
const TIMES: u32 = 100;
/// Approximate duration.
const TIME: Duration = Duration::from_millis(300);

/// Returns the median time of a write of 4 KiB and its `fdatasync` in `folder`, in nanoseconds.
///
/// # Errors
/// If nothing can be written there.
pub fn flush(folder: &Path) -> io::Result<u64> {
    let path = folder.join("flush-probe");
    let file = File::create(&path)?;
    let mut took = Latencies::default();
    let began = Instant::now();
    for time in 0..TIMES {
        let before = Instant::now();
        file.write_all_at(&[1; BYTES], u64::from(time) * BYTES as u64)?;
        file.sync_data()?;
        took.add(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX), 1);
        if began.elapsed() > TIME {
            break;
        }
    }
    std::fs::remove_file(&path)?;
    Ok(took.median().unwrap_or(0))
}
