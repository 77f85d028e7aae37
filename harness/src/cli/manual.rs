//! Runs `picklock completions` and `picklock man`, both generated from the command line's definition.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::CommandFactory as _;
use picklock::report::exit;
use picklock::target::UsageError;

use crate::cli::arguments::{Arguments, CompletionsArguments, ManArguments};

/// Prints the completions of a shell.
pub(crate) fn completions(arguments: &CompletionsArguments) -> anyhow::Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "picklock", &mut text);
    io::stdout().write_all(&text)?;
    Ok(exit::HOLDS)
}

/// Prints the manual page, or writes one for each command.
pub(crate) fn man(arguments: &ManArguments) -> anyhow::Result<u8> {
    let command = Arguments::command();
    match &arguments.output {
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(command).render(&mut text)?;
            io::stdout().write_all(&text)?;
        }
        Some(folder) if !folder.is_dir() => {
            return Err(UsageError::new("--output", format!("{folder:?} is no folder")).into());
        }
        Some(folder) => {
            clap_mangen::generate_to(command, folder)
                .with_context(|| format!("cannot write manual pages into {folder:?}"))?;
        }
    }
    Ok(exit::HOLDS)
}
