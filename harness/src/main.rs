//! Starts the `picklock` program, or, under other names, the embedded store and the unlocked helper.

mod cli;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use picklock::bench::locks::LOCKER;

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    // `{store}` and `{critical}` are links to this program. They are started thousands of times, so the name is checked
    // before anything else.
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("picklock-store") => ExitCode::from(picklock_store::command::run(arguments)),
        Some("picklock-critical") => ExitCode::from(cli::critical::run(&arguments)),
        Some(LOCKER) => ExitCode::from(cli::locker::run(&arguments)),
        _ => cli::run(&name, &arguments),
    }
}
