//! Implements `{critical}`: a read-modify-write of one file, durable and crash-atomic, deliberately without a lock.
//!
//! It turns a lock *tool* into a store: `flock {dir}/lock {critical} add {data} {id}`. It reads the records, adds one,
//! writes them to one fixed temporary name, syncs, renames, and syncs the folder. It omits exclusion, which is what is
//! judged. A file named `.json` holds an array of names; any other holds one name per line.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Runs `add DATA ID` or `list DATA` and returns the exit status.
pub(crate) fn run(arguments: &[OsString]) -> u8 {
    let words: Vec<&OsString> = arguments.iter().collect();
    let done = match words.as_slice() {
        [verb, data, id] if *verb == "add" => add(Path::new(data), &id.to_string_lossy()),
        [verb, data] if *verb == "list" => list(Path::new(data)),
        _ => Err(io::Error::other("usage: {critical} add DATA ID | {critical} list DATA")),
    };
    match done {
        Ok(()) => 0,
        Err(why) => {
            // If standard error is closed, the message cannot be delivered.
            let _written = writeln!(io::stderr(), "picklock-critical: {why}");
            1
        }
    }
}

fn add(data: &Path, id: &str) -> io::Result<()> {
    let mut records = read(data)?;
    records.push(id.to_owned());
    let content = if is_json(data) {
        serde_json::to_string(&records)? + "\n"
    } else {
        records.iter().map(|record| format!("{record}\n")).collect()
    };
    let mut temporary = data.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, data)?;
    let folder = data.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn list(data: &Path) -> io::Result<()> {
    let lines: String = read(data)?.iter().map(|record| format!("{record}\n")).collect();
    io::stdout().write_all(lines.as_bytes())
}

fn read(data: &Path) -> io::Result<Vec<String>> {
    let content = match fs::read_to_string(data) {
        Ok(content) => content,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(other) => return Err(other),
    };
    if is_json(data) {
        Ok(serde_json::from_str(&content)?)
    } else {
        Ok(content.lines().map(String::from).collect())
    }
}

fn is_json(data: &Path) -> bool {
    data.extension().is_some_and(|extension| extension == "json")
}
