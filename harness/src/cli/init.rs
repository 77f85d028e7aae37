//! Runs `picklock init`: writes a commented adapter for a store and checks it with the control.

use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use picklock::check::{CheckError, Options, check};
use picklock::report::exit;
use picklock::runner::Stop;
use picklock::target::flags::Flags;
use picklock::target::{Target, UsageError, adapter};

use crate::cli::arguments::{ERROR, InitArguments, Named};
use crate::cli::progress::Made;

/// Runs the command. Reports to `made` each folder that the supervisor must remove if this process is killed.
pub(crate) fn run(
    arguments: InitArguments,
    stop: &Stop,
    made: &(dyn Fn(&Path) + Sync),
) -> anyhow::Result<u8> {
    let path = arguments.output;
    if path.exists() && !arguments.force {
        return Err(UsageError::new("--output", format!("{path:?} is there already"))
            .help("name another file, or write over it with --force")
            .into());
    }
    let named = arguments.target.named();
    let is_plain = matches!(named, Named::Plain(..));
    let flags = match named {
        Named::Adapter(_) => {
            return Err(UsageError::new("--adapter", "names a file that is written already")
                .help("say how the store is called: -- ./store, or --add and --list")
                .into());
        }
        Named::Plain(program, flags) => plain(&program, flags),
        Named::Commands(flags) => flags,
        Named::Demo => {
            return Err(UsageError::new("--demo", "names the embedded store, which needs no adapter")
                .help("say how your store is called: -- ./store, or --add and --list")
                .into());
        }
        Named::Nothing => Flags::default(),
    };
    let folder = env::current_dir()?;
    // Reports an invalid flag by its name, not by a line of a generated file that the user has not seen.
    let target = flags.clone().into_target(&folder)?;
    let text = commented(&flags, &target, is_plain);
    let written_to = path.display().to_string();
    let target = adapter::parse(&text, &written_to, &folder)?;
    let mut options = Options { multi_call: Some(env::current_exe()?), ..Options::default() };
    options.selection.scenarios.clear();
    let report = match check(&target, &options, stop, &Made(made)) {
        Err(CheckError::Usage(error)) => return Err(error.into()),
        report => report?,
    };
    if report.interrupted {
        return Ok(exit::INTERRUPTED);
    }
    let reason = report.control.reason.unwrap_or_default();
    if !report.control.passed && !arguments.unproven {
        writeln!(
            anstream::stderr(),
            "{ERROR}error:{ERROR:#} the control failed: {reason}\n  nothing was written; mend the command, or write the \
             adapter all the same with --unproven"
        )?;
        return Ok(exit::CONTROL_FAILED);
    }
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|why| UsageError::new("--output", format!("{path:?} cannot be written: {why}")))?;
    let proven = if report.control.passed { ", and the control passed" } else { "; the control failed" };
    let adapter =
        if path == Path::new("picklock.toml") { String::new() } else { format!(" --adapter {written_to}") };
    writeln!(anstream::stdout(), "wrote {written_to}{proven}\n  next: picklock check{adapter}")?;
    Ok(if report.control.passed { exit::HOLDS } else { exit::CONTROL_FAILED })
}

/// Builds the commands of the plain convention.
fn plain(program: &[String], flags: Flags) -> Flags {
    let program = shell_words::join(program.iter().map(|word| word.replace('{', "{{").replace('}', "}}")));
    Flags {
        add: Some(format!("{program} add {{data}} {{id}}")),
        list: Some(format!("{program} list {{data}}")),
        ..flags
    }
}

/// Asks on the terminal for settings that no flag gives, and returns them as further arguments. The supervised process
/// has no terminal.
pub(crate) fn asked(arguments: &InitArguments) -> anyhow::Result<Vec<OsString>> {
    if arguments.target.is_named() {
        return Ok(Vec::new());
    }
    if !io::stdin().is_terminal() {
        return Err(UsageError::new(
            "--add",
            "is missing, and init cannot ask for it because standard input is not a terminal",
        )
        .help("picklock init --add './store add {data} {id}' --list './store list {data}', or -- ./store")
        .into());
    }
    let mut further = Vec::new();
    let mut ask = |flag: &str, question: &str, usual: &str| -> io::Result<()> {
        let shown = if usual.is_empty() { String::new() } else { format!(" [{usual}]") };
        write!(io::stderr(), "{question}{shown}: ")?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        let answer = answer.trim();
        let answer = if answer.is_empty() { usual } else { answer };
        // An empty answer or `-` omits the flag.
        if !matches!(answer, "" | "-") {
            further.extend([flag.into(), answer.into()]);
        }
        Ok(())
    };
    writeln!(
        io::stderr(),
        "In commands, {{data}} is the data file and {{id}} the name of a record; - leaves one out."
    )?;
    ask("--data", "The data file's name", "store.json")?;
    ask("--add", "The command that adds a record", "./store add {data} {id}")?;
    ask("--list", "The command that prints the records, one a line", "./store list {data}")?;
    ask("--init", "The command that makes an empty store, if there is one", "")?;
    Ok(further)
}

/// Formats the adapter, with optional settings as comments. A store of the plain convention gets its exit statuses.
fn commented(flags: &Flags, target: &Target, is_plain: bool) -> String {
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let words = |command: Option<&picklock::target::Command>| {
        let words = command.map(picklock::target::Command::source).unwrap_or_default();
        format!("[{}]", words.iter().map(|word| text(word)).collect::<Vec<_>>().join(", "))
    };
    let ops = &target.ops;
    let or_example =
        |key: &str, command: Option<&picklock::target::Command>, example: &str, says: &str| match command {
            Some(_) => format!("{key} = {}", words(command)),
            None => format!("# {key} = {example}   # {says}"),
        };
    let or_none = |key: &str, value: &Option<String>, example: &str, says: &str| match value {
        Some(value) => format!("{key} = {}", text(value)),
        None => format!("# {key} = {example}   # {says}"),
    };
    format!(
        "\
# How picklock drives this store: `picklock check` in this folder judges it. Written by `picklock init`.
# Placeholders: {{data}} the data file, {{dir}} its folder, {{id}} a record's name, {{n}} its number, {{client}} the client's.
name = {name}
# cwd = \"{{dir}}\"                  # where commands run; else the folder of this file

[data]
path = {path}   # within {{dir}}, a folder that is made anew for each execution
{format}
{records}
{listed}
# also = [\"state/*.json\"]         # further files that must stay whole

[ops]
{init}
add = {add}   # exit 0 means: the record is in, whatever happens next
{list}
# recover = [\"./store\", \"repair\", \"{{data}}\"]   # after a kill; without it the store must recover by itself

# [ops.other]                     # what else it can do, which must neither hang nor harm
# compact = [\"./store\", \"compact\", \"{{data}}\"]

{off}[exit]
{off}refused = [3]                   # a definite no: nothing was changed
{off}busy = [75]                     # the lock was not to be had: nothing was changed

# [guard]                         # so many records are taken, and no more
# limit = 3
# add = [\"./store\", \"add-capped\", \"{{data}}\", \"{{id}}\"]   # the form of add that has the limit, where not every one has

# [derived]                       # files that are made from the data
# files = [\"summary.json\"]
# rebuild = [\"./store\", \"rebuild\", \"{{data}}\"]

# [session]                       # a process that serves many requests: the README has the protocol
# command = [\"./store\", \"session\", \"{{data}}\"]
# removes = [\"compact\"]           # which of [ops.other] remove records

# [claims]                        # what the store does not promise does not count
# power_loss = false

# [limits]                        # of one operation
# timeout = \"10s\"
# output = \"1MiB\"
# file = \"256MiB\"
# processes = 64

# [env]
# KEY = \"value\"
",
        off = if is_plain { "" } else { "# " },
        name = text(&target.name),
        path = text(&target.data.path.display().to_string()),
        format = or_none("format", &flags.data_format, "\"json\"", "json, jsonl, text or opaque; else by the extension"),
        records = or_none("records", &flags.records, "\"$[*]\"", "where record names stand in the data file"),
        listed = or_none("listed", &flags.listed, "\"lines\"", "the same for what list prints"),
        init = or_example("init", ops.init.as_ref(), "[\"./store\", \"init\", \"{data}\"]", "makes an empty store, run once"),
        add = words(Some(&ops.add)),
        list = or_example("list", ops.list.as_ref(), "[\"./store\", \"list\", \"{data}\"]", "prints the records, one a line"),
    )
}
