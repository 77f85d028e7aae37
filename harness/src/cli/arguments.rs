//! The command line: what can be asked, and the words that `--help` has for it.

use std::path::PathBuf;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::builder::Styles;
use clap::{Args, Parser, Subcommand, ValueEnum};
use picklock::bench::requirement::Requirement;
use picklock::shard::Shard;
use picklock::target::flags::Flags;
use picklock::volume::Kind;

/// How `error:` looks.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();

const STYLES: Styles = Styles::styled()
    .header(Style::new().bold())
    .usage(Style::new().bold())
    .literal(AnsiColor::Cyan.on_default())
    .error(ERROR)
    .valid(AnsiColor::Green.on_default())
    .invalid(AnsiColor::Yellow.on_default());

/// Judges programs that share a file under a lock: does concurrent use, or kill -9, lose or corrupt data?
///
/// Point it at any program, in any language, that can add a record and list records. It runs many clients at once,
/// kills some in the middle of their work, reads the file beside them, and judges what is left.
#[derive(Debug, Parser)]
#[command(
    version,
    styles = STYLES,
    after_help = "Start with `picklock check --demo`, which judges the embedded reference store, then\n    \
                  picklock check --data db.json --add './store add {data} {id}' --list './store list {data}'"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) request: Request,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Request {
    /// Judge a store
    Check(Box<CheckArguments>),
    /// Measure locks, or how many updates a store makes in a second
    Bench(Box<BenchArguments>),
    /// Show one operation's visible system calls, lock by lock, with every crash point numbered
    Trace(Box<TraceArguments>),
    /// Run a case again, call by call, and tell whether it ends the same way
    Replay(Box<ReplayArguments>),
    /// Judge a recorded history: does some order of its operations explain every answer?
    ///
    /// A history is linearizable where each operation can be given one moment between its invocation and its return so
    /// that all answers are those of a program that does one operation after another. What never returned may have taken
    /// effect at any moment after its invocation, or never.
    Judge(JudgeArguments),
    /// Name what there is: invariants, scenarios, faults, diagnoses, adapters
    List(ListArguments),
    /// Explain an invariant, a scenario, a fault or a diagnosis
    Explain(ExplainArguments),
    /// Write a commented adapter for a store, and prove it with the control
    Init(Box<InitArguments>),
    /// Put the reports of all shards of one run together
    Merge(MergeArguments),
    /// Print what makes a shell complete picklock's arguments
    Completions(CompletionsArguments),
    /// Print the manual page, or write one for each command into a folder
    Man(ManArguments),
}

// An empty style inside `{n}`, since clap would make a line feed of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a target: the nearest picklock.toml, here or in a parent folder. The control runs first: a store
that does not work undisturbed is not judged.

Placeholders in commands:
  {data}      the data file, absolute           {dir}       the fresh sandbox directory, absolute
  {id}        the record's name                 {\u{1b}[mn}         the record's number
  {client}    the client's number, from 1       {store}     the embedded reference store
  {critical}  a read-modify-write helper of picklock's own, crash-atomic, without a lock: put yours around it
  {{ and }}   a brace

Examples:
  picklock check --demo
  picklock check -- ./store
  picklock check --data db.json --add './store add {data} {id}' --list './store list {data}'
  picklock check --add 'flock {dir}/l {critical} add {data} {id}' --list '{critical} list {data}'
  picklock check --adapter sqlite3

Exit status:
  0 every claimed invariant holds    1 one is violated          2 usage
  3 something could not be judged    4 the store does not work undisturbed
  70 picklock itself failed          130 interrupted (the report so far is written)")]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,

    /// Run only these scenarios, or judge only these invariants
    #[arg(long, value_name = "ID", value_delimiter = ',', help_heading = "What to try")]
    pub(crate) only: Vec<String>,
    /// Leave these scenarios or invariants out
    #[arg(long, value_name = "ID", value_delimiter = ',', help_heading = "What to try")]
    pub(crate) skip: Vec<String>,
    /// Clients at a time [default: 8 in stress, 3 where they are scheduled]
    #[arg(long, value_name = "N", help_heading = "What to try")]
    pub(crate) clients: Option<u32>,
    /// Operations of each client [default: 100 in stress, one or two where they are scheduled]
    #[arg(long, value_name = "N", help_heading = "What to try")]
    pub(crate) ops: Option<u32>,
    /// Every schedule with at most so many preemptions, and no others [default: all schedules that differ]
    #[arg(long, value_name = "N", help_heading = "What to try")]
    pub(crate) preemptions: Option<u32>,
    /// Seed of all chance: the same seed makes the same plan
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "What to try")]
    pub(crate) seed: u64,
    /// A ceiling for the whole run, such as 30s or 5m
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration, help_heading = "What to try")]
    pub(crate) budget: Duration,
    /// No budget: run until nothing is left to try
    #[arg(long, conflicts_with = "budget", help_heading = "What to try")]
    pub(crate) exhaustive: bool,
    /// Test on the file system of this folder [default: a memory file system]
    #[arg(long, value_name = "PATH", help_heading = "What to try")]
    pub(crate) dir: Option<PathBuf>,
    /// Try what a power loss may leave on real file systems too: ext4, xfs, btrfs (takes root and their mkfs)
    #[arg(long, value_name = "FS[,FS]", value_delimiter = ',', help_heading = "What to try")]
    pub(crate) confirm: Vec<Kind>,
    /// Exit 0 if what is inconclusive is so for want of time alone; the last line says so
    #[arg(long, help_heading = "What counts")]
    pub(crate) allow_partial: bool,
    /// Divide the run over so many threads
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        hide_default_value = true,
        help_heading = "What to try"
    )]
    pub(crate) jobs: u32,
    /// Run only part I of N, on this machine; `picklock merge` puts the reports of all together
    #[arg(long, value_name = "I/N", help_heading = "What to try")]
    pub(crate) shard: Option<Shard>,
    /// Start every operation anew, instead of copying processes that are stopped at their first visible call
    #[arg(long, help_heading = "What to try")]
    pub(crate) no_copies: bool,
    /// End at the first violation
    #[arg(long, help_heading = "What to try")]
    pub(crate) fail_fast: bool,

    /// Let this invariant count for the exit status
    #[arg(long, value_name = "ID", help_heading = "What counts")]
    pub(crate) claim: Vec<String>,
    /// Judge this invariant, but do not let it count
    #[arg(long, value_name = "ID", help_heading = "What counts")]
    pub(crate) disclaim: Vec<String>,

    /// Violations that are known: they do not fail the run, new ones do
    #[arg(long, value_name = "FILE", help_heading = "What counts")]
    pub(crate) baseline: Option<PathBuf>,
    /// Write the file of --baseline anew, with what this run found
    #[arg(long, requires = "baseline", help_heading = "What counts")]
    pub(crate) update_baseline: bool,

    #[command(flatten)]
    pub(crate) report: ReportArguments,
    /// Write the report to this file as a web page too, with every finding to step through
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) html: Option<PathBuf>,
    /// Folder for what is saved of findings
    #[arg(long, value_name = "DIR", default_value = "picklock-cases", help_heading = "Report")]
    pub(crate) cases: PathBuf,
    /// Leave a copy of the sandbox of each finding in the folder for cases
    #[arg(long, help_heading = "Report")]
    pub(crate) keep: bool,
}

/// What a report looks like, and where it goes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Report")]
pub(crate) struct ReportArguments {
    /// Format of the report
    #[arg(long, value_enum, default_value_t = ReportFormat::Human)]
    pub(crate) format: ReportFormat,
    /// Write the report to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Colours
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Only what broke, and the verdict
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Everything
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What no flag says is asked for on a terminal. The adapter is written once the control has passed with it.

Examples:
  picklock init -- ./store
  picklock init --data db.json --add './store add {data} {id}' --list './store list {data}'

Exit status: 0 written and proven, 2 usage, 4 the store does not work undisturbed")]
pub(crate) struct InitArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "picklock.toml")]
    pub(crate) output: PathBuf,
    /// Write over a file that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Write it though the control fails
    #[arg(long)]
    pub(crate) unproven: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each shard is run by itself, on a machine of its own or one after another, with the same target, seed and
selection; together they run what one run without --shard does:
  picklock check --shard 1/4 --format json --output 1.json …
  picklock merge 1.json 2.json 3.json 4.json

Exit status: that of check for the whole run; 3 where the report of a shard is missing")]
pub(crate) struct MergeArguments {
    /// The JSON reports of all shards
    #[arg(value_name = "REPORT", required = true)]
    pub(crate) reports: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) report: ReportArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  picklock completions bash > /etc/bash_completion.d/picklock
  picklock completions zsh > \"${fpath[1]}/_picklock\"
  picklock completions fish > ~/.config/fish/completions/picklock.fish")]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  picklock man | man -l -
  picklock man --output /usr/local/share/man/man1")]
pub(crate) struct ManArguments {
    /// Write picklock.1 and a page for each command into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Target")]
pub(crate) struct TargetArguments {
    /// A program of the plain convention: PROGRAM add DATA ID, PROGRAM list DATA; refused 3, busy 75
    #[arg(last = true, value_name = "PROGRAM", conflicts_with = "adapter")]
    program: Vec<String>,
    /// The data file, within the sandbox [default: store.json]
    #[arg(long, value_name = "FILE", conflicts_with = "adapter")]
    data: Option<String>,
    /// The command that adds a record; split as a shell splits words, no shell runs
    #[arg(long, value_name = "CMD", conflicts_with = "adapter")]
    add: Option<String>,
    /// The command that prints the records
    #[arg(long, value_name = "CMD", conflicts_with = "adapter")]
    list: Option<String>,
    /// The command that prepares an empty store, run once
    #[arg(long, value_name = "CMD", conflicts_with = "adapter")]
    init: Option<String>,
    /// Where record names stand in the data file: $.path[*], keys:$.path, regex:PATTERN, lines
    #[arg(long, value_name = "EXPR", conflicts_with = "adapter", allow_hyphen_values = true)]
    records: Option<String>,
    /// The same for what list prints [default: lines]
    #[arg(long, value_name = "EXPR", conflicts_with = "adapter", allow_hyphen_values = true)]
    listed: Option<String>,
    /// json, jsonl, text or opaque [default: by the data file's extension]
    #[arg(long, value_name = "FORMAT", conflicts_with = "adapter")]
    data_format: Option<String>,
    /// An adapter file, or the name of a built-in adapter
    #[arg(long, value_name = "FILE|NAME")]
    adapter: Option<String>,
    /// The embedded reference store
    #[arg(long, conflicts_with_all = ["program", "data", "add", "list", "init", "records", "listed", "data_format", "adapter"])]
    demo: bool,
    /// Exit statuses that mean: the lock was busy, and nothing was changed; beside those of the adapter
    #[arg(long, value_name = "N", value_delimiter = ',')]
    busy: Vec<i32>,
    /// Exit statuses that mean: a definite no, and nothing was changed; beside those of the adapter
    #[arg(long, value_name = "N", value_delimiter = ',')]
    refused: Vec<i32>,
}

/// The form in which a target was named.
pub(crate) enum Named {
    /// Not at all.
    Nothing,
    /// The embedded reference store.
    Demo,
    Adapter(String),
    Plain(Vec<String>, Flags),
    Commands(Flags),
}

impl TargetArguments {
    /// Whether anything names a target.
    pub(crate) fn is_named(&self) -> bool {
        !self.program.is_empty() || self.add.is_some() || self.adapter.is_some() || self.demo
    }

    /// What else exit statuses mean: busy, and refused.
    pub(crate) fn exits(&self) -> (Vec<i32>, Vec<i32>) {
        (self.busy.clone(), self.refused.clone())
    }

    /// The same target once more on a command line, with a blank in front; nothing where none was named.
    pub(crate) fn again(&self) -> String {
        let flags = [
            ("--data", &self.data),
            ("--add", &self.add),
            ("--list", &self.list),
            ("--init", &self.init),
            ("--records", &self.records),
            ("--listed", &self.listed),
            ("--data-format", &self.data_format),
            ("--adapter", &self.adapter),
        ];
        let mut words: Vec<String> = flags
            .iter()
            .filter_map(|(flag, value)| Some([(*flag).to_owned(), value.as_ref()?.clone()]))
            .flatten()
            .collect();
        words.extend(self.demo.then(|| "--demo".to_owned()));
        for (flag, statuses) in [("--busy", &self.busy), ("--refused", &self.refused)] {
            words.extend(statuses.iter().flat_map(|status| [flag.to_owned(), status.to_string()]));
        }
        if !self.program.is_empty() {
            words.push("--".to_owned());
            words.extend(self.program.iter().cloned());
        }
        if words.is_empty() { String::new() } else { format!(" {}", shell_words::join(words)) }
    }

    pub(crate) fn named(self) -> Named {
        let Self { program, data, add, list, init, records, listed, data_format, adapter, demo, .. } = self;
        let flags = Flags { data, add, list, init, records, listed, data_format };
        match adapter {
            _ if demo => Named::Demo,
            Some(adapter) => Named::Adapter(adapter),
            None if !program.is_empty() => Named::Plain(program, flags),
            None if !flags.is_empty() => Named::Commands(flags),
            None => Named::Nothing,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without a target: lock primitives, taken by processes in turn. With one: how many updates the store makes in a
second, by clients and as it grows, one-shot and in a session. Every rate stands beside fairness and the
longest wait: who polls for a lock looks fast because one client has it to itself.

Examples:
  picklock bench
  picklock bench --locks flock,o-excl --clients 8 --hold 0s --html locks.html
  picklock bench --adapter sqlite3 --dir . --require 'p99<50ms' --require 'jain>0.8'
  picklock bench --add './store add {data} {id}' --compare './other add {data} {id}'

Exit status:
  0 measured    1 something required is not so, or two were inside at once, or an update was lost
  2 usage    4 the store does not work undisturbed    130 interrupted (what was measured is written)")]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    /// A second store, run alternately with the first: a program of the plain convention, an adapter file, or a command
    /// that adds
    #[arg(long, value_name = "CMD", help_heading = "What to measure")]
    pub(crate) compare: Option<String>,
    /// These lock primitives alone: flock, posix, ofd, std, fs4, fd-lock, o-excl, mkdir, store
    #[arg(long, value_name = "ID", value_delimiter = ',', help_heading = "What to measure")]
    pub(crate) locks: Vec<String>,
    /// Clients at once, one number after another
    #[arg(
        long,
        value_name = "N[,N]",
        value_delimiter = ',',
        default_value = "1,2,4,8",
        help_heading = "What to measure"
    )]
    pub(crate) clients: Vec<u32>,
    /// For how long a lock is held, one after another [default: 0s,1ms]
    #[arg(long, value_name = "DURATION", value_delimiter = ',', value_parser = humantime::parse_duration, help_heading = "What to measure")]
    pub(crate) hold: Option<Vec<Duration>>,
    /// How often each figure is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "What to measure")]
    pub(crate) runs: u32,
    /// For how long each time
    #[arg(long, value_name = "DURATION", default_value = "250ms", value_parser = duration, help_heading = "What to measure")]
    pub(crate) time: Duration,
    /// Measure on the file system of this folder [default: a memory file system]
    #[arg(long, value_name = "PATH", help_heading = "What to measure")]
    pub(crate) dir: Option<PathBuf>,
    /// Fail where a figure is not so: 'p99<50ms', 'jain>0.8', 'rate>1000'; of p50, p99, p999, max, rate, jain
    #[arg(long, value_name = "EXPR", help_heading = "What counts")]
    pub(crate) require: Vec<Requirement>,
    /// Format of the figures
    #[arg(long, value_enum, default_value_t = Format::Human, help_heading = "Report")]
    pub(crate) format: Format,
    /// Write the figures to this file instead of standard output
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) output: Option<PathBuf>,
    /// Write them as a web page too, with plots
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) html: Option<PathBuf>,
    /// Colours
    #[arg(long, value_enum, default_value_t = Color::Auto, help_heading = "Report")]
    pub(crate) color: Color,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  picklock trace -- ./store
  picklock trace list --adapter sqlite3

Exit status:
  0 traced    2 usage    3 tracing is forbidden here    4 the store does not work undisturbed    130 interrupted")]
pub(crate) struct TraceArguments {
    /// The operation: add, list, init, recover, rebuild, or one of [ops.other]
    #[arg(value_name = "OP", default_value = "add")]
    pub(crate) op: String,
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    /// Trace on the file system of this folder [default: a memory file system]
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,
    /// Format of the trace
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A case names commands. They are run where they are those of the target at hand, which is named as for check; others
are shown, and run with --trust alone.

Exit status:
  1 reproduced, or flaky: it violates its invariant again    0 fixed: three clean runs in a row
  3 diverged: the store takes another way by now             2 it cannot be run here")]
pub(crate) struct ReplayArguments {
    /// The file that `check` saved
    #[arg(value_name = "CASE")]
    pub(crate) case: PathBuf,
    /// Run the commands that the case names, whatever they are
    #[arg(long)]
    pub(crate) trust: bool,
    /// Leave a copy of the sandbox beside the case
    #[arg(long)]
    pub(crate) keep: bool,
    /// Write the calls to this file as a trace in Chrome's format, such as ui.perfetto.dev shows
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Run on the file system of this folder [default: a memory file system]
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) target: TargetArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "\
One operation a line, as JSON; \"return\" is null where no answer ever came:
  {\"client\":1,\"op\":\"put\",\"key\":\"k\",\"value\":\"v\",\"invoke\":12,\"return\":19}
  {\"client\":2,\"op\":\"get\",\"key\":\"k\",\"result\":\"v\",\"invoke\":20,\"return\":25}

Operations, with their fields beside client, op, invoke and return:
  set          add: value, [result: \"ok\" or \"refused\"]           list: result: [...]
  guarded-set  add: value, result: \"ok\" or \"refused\"             list: result: [...]
  counter      add: value                                         read: result
  register     write: value   cas: old, new, result as of add     read: result
  kv           the same of each key: put, cas, get, and delete    (null is what is not there)

Or one event a line of a register, as Jepsen logs it:
  {:process 0, :type :invoke, :f :write, :value 3}
  INFO  jepsen.util - 0  :ok  :write  3

Examples:
  picklock judge history.jsonl
  picklock judge history.jsonl --model guarded-set --limit 100
  grep jepsen.util jepsen.log | picklock judge - --format json

Exit status:
  0 linearizable    1 not linearizable    2 usage    3 not decided within --steps, or nothing to judge")]
pub(crate) struct JudgeArguments {
    /// The file with the history; - is standard input
    #[arg(value_name = "HISTORY")]
    pub(crate) history: PathBuf,
    /// What its operations are of [default: what they tell]
    #[arg(long, value_enum)]
    pub(crate) model: Option<Model>,
    /// How many records a guarded-set takes
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// How many steps of the model a search may take
    #[arg(long, value_name = "N", default_value_t = 100_000_000)]
    pub(crate) steps: u64,
    /// Format of the verdict
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Model {
    Set,
    Counter,
    Register,
    Kv,
    GuardedSet,
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// What to name [default: all]
    pub(crate) what: Option<Listed>,
    /// Format of the list
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// The id of an invariant, a scenario, a fault, a diagnosis or a built-in adapter
    pub(crate) id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listed {
    Invariants,
    Scenarios,
    Faults,
    Diagnoses,
    Adapters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Human,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people
    Human,
    /// As harness/schema/report-1.json describes it
    Json,
    /// JUnit XML, one test case for each invariant
    Junit,
    /// Annotations of a GitHub workflow
    Github,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => {
            Err("must be longer than nothing; for no budget use --exhaustive".into())
        }
        Ok(duration) => Ok(duration),
        Err(why) => Err(format!("{why}; write it as 30s or 5m")),
    }
}
