//! Notes in a file, one a line: `notes add FILE NOTE` and `notes list FILE`, for any number of processes at once.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["add", file, note] => add(Path::new(file), note),
        ["list", file] => list(Path::new(file)),
        _ => Err(io::Error::other("usage: notes add FILE NOTE | notes list FILE")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("notes: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Taken by writers, on a file of its own that nobody ever removes or replaces. It ends with the descriptor.
fn lock(file: &Path) -> io::Result<File> {
    let lock =
        OpenOptions::new().write(true).create(true).truncate(false).open(file.with_extension("lock"))?;
    lock.lock()?;
    Ok(lock)
}

fn add(file: &Path, note: &str) -> io::Result<()> {
    let _lock = lock(file)?;
    // Only under the lock: what is read before it may be another's half.
    let mut notes = OpenOptions::new().read(true).append(true).create(true).open(file)?;
    let mut text = Vec::new();
    notes.read_to_end(&mut text)?;
    // Whoever was killed while it wrote has left half a line, which never was acknowledged.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < text.len() {
        notes.set_len(whole as u64)?;
    }
    notes.write_all(format!("{note}\n").as_bytes())?;
    notes.sync_data()?;
    // The name of a new file is in its folder, which is flushed by itself.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn list(file: &Path) -> io::Result<()> {
    let text = match std::fs::read_to_string(file) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    io::stdout().write_all(whole.as_bytes())
}
