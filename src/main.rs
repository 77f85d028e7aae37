//! Starts the reference store's program: see [`picklock_store::command`].

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(picklock_store::command::run(env::args_os().skip(1)))
}
