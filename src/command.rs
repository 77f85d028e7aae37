//! The store as a program: `add DATA ID` and `list DATA`, with the exit codes of the plain convention.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Document, Error};

const USAGE: &str = "\
usage: picklock-store add DATA ID [--wait SECONDS]
       picklock-store list DATA

add    put the record ID into the JSON document DATA, durably; a record that is there already is refused
list   print the records in DATA, one a line
--wait give up after SECONDS without the lock (default: wait as long as it takes)

exit: 0 done, 1 failed, 2 usage, 3 refused and nothing changed, 75 lock not to be had and nothing changed";

/// What DATA holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Records {
    records: Vec<String>,
}

/// How a command ended; the discriminant is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum End {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Refused = 3,
    Busy = 75,
}

/// Runs the command that `arguments` (without the program's name) ask for and returns the exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let (end, message) = match arguments.as_slice() {
        [verb, data, id] if *verb == "add" => add(Path::new(data), id, None),
        [verb, data, id, flag, wait] if *verb == "add" && *flag == "--wait" => match seconds(wait) {
            Some(limit) => add(Path::new(data), id, Some(limit)),
            None => (End::Usage, format!("--wait takes a number of seconds, not {wait:?}\n{USAGE}")),
        },
        [verb, data] if *verb == "list" => list(Path::new(data)),
        [verb] if *verb == "--help" => match writeln!(io::stdout(), "{USAGE}") {
            Ok(()) => (End::Done, String::new()),
            Err(refused) => (End::Failed, refused.to_string()),
        },
        _ => (End::Usage, USAGE.to_owned()),
    };
    if !message.is_empty() {
        // Nobody is left to tell where standard error is closed.
        let _written = writeln!(io::stderr(), "picklock-store: {message}");
    }
    end as u8
}

fn seconds(text: &OsStr) -> Option<Duration> {
    text.to_str()?.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

fn add(data: &Path, id: &OsStr, wait: Option<Duration>) -> (End, String) {
    let Some(id) = id.to_str().filter(|id| !id.is_empty() && !id.contains(['\n', '\r'])) else {
        return (End::Usage, format!("a record's name is one line of UTF-8, not {id:?}"));
    };
    let insert = |all: &mut Records| {
        if all.records.iter().any(|record| record == id) {
            return Err(format!("record {id:?} is in {data:?} already; nothing was changed"));
        }
        all.records.push(id.to_owned());
        Ok(())
    };
    let added = Document::open(data).and_then(|document| match wait {
        None => document.update_unless(insert),
        Some(limit) => document.update_within(limit, insert),
    });
    match added {
        Ok(Ok(())) => (End::Done, String::new()),
        Ok(Err(refused)) => (End::Refused, refused),
        Err(error) => failed(&error),
    }
}

fn list(data: &Path) -> (End, String) {
    let read = Document::open(data).and_then(|document: Document<Records>| document.read());
    let all = match read {
        Ok(all) => all,
        Err(error) => return failed(&error),
    };
    let mut lines = all.records.join("\n");
    if !lines.is_empty() {
        lines.push('\n');
    }
    match io::stdout().write_all(lines.as_bytes()) {
        Ok(()) => (End::Done, String::new()),
        Err(refused) => (End::Failed, format!("cannot print the records: {refused}")),
    }
}

fn failed(error: &Error) -> (End, String) {
    (if error.is_busy() { End::Busy } else { End::Failed }, error.to_string())
}
