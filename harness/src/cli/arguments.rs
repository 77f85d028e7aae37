//! Defines the command line and the texts of `--help`.

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
    /// Show the visible system calls of one operation, with its locks and numbered crash points
    Trace(Box<TraceArguments>),
    /// Replay a saved case call by call and report whether it ends the same way
    Replay(Box<ReplayArguments>),
    /// Check whether a recorded history is linearizable
    ///
    /// A history is linearizable if each operation can be assigned one moment between its invocation and its return such
    /// that all answers are those of a sequential execution. An operation that never returned may take effect at any
    /// moment after its invocation, or never.
    Judge(JudgeArguments),
    /// List invariants, scenarios, faults, diagnoses or built-in adapters
    List(ListArguments),
    /// Explain an invariant, a scenario, a fault or a diagnosis
    Explain(ExplainArguments),
    /// Write a commented adapter for a store and check it with the control
    Init(Box<InitArguments>),
    /// Merge shard reports
    Merge(MergeArguments),
    /// Generate shell completions
    Completions(CompletionsArguments),
    /// Print the manual page, or write one for each command into a folder
    Man(ManArguments),
}

// An empty style inside `{n}`, because clap would turn it into a line feed.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a target: the nearest picklock.toml, here or in a parent folder. The control runs first: a store
that does not work without injections is not judged.

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
  3 something could not be judged    4 the store does not work without injections
  70 picklock itself failed          130 interrupted (the report so far is written)")]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,

    /// Run only these scenarios, or judge only these invariants
    #[arg(long, value_name = "ID", value_delimiter = ',', help_heading = "What to try")]
    pub(crate) only: Vec<String>,
    /// Skip these scenarios or invariants
    #[arg(long, value_name = "ID", value_delimiter = ',', help_heading = "What to try")]
    pub(crate) skip: Vec<String>,
    /// Clients at a time [default: 8 in stress, 3 where they are scheduled]
    #[arg(long, value_name = "N", help_heading = "What to try")]
    pub(crate) clients: Option<u32>,
    /// Operations of each client [default: 100 in stress, one or two where they are scheduled]
    #[arg(long, value_name = "N", help_heading = "What to try")]
    pub(crate) ops: Option<u32>,
    /// Run exactly the schedules with at most N preemptions [default: all inequivalent schedules]
    #[arg(long, value_name = "N", help_heading = "What to try")]
    pub(crate) preemptions: Option<u32>,
    /// Random seed: the same seed makes the same plan
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "What to try")]
    pub(crate) seed: u64,
    /// Time limit of the whole run, such as 30s or 5m
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration, help_heading = "What to try")]
    pub(crate) budget: Duration,
    /// Run every experiment, without a time limit
    #[arg(long, conflicts_with = "budget", help_heading = "What to try")]
    pub(crate) exhaustive: bool,
    /// Run on the file system of this directory [default: a memory file system]
    #[arg(long, value_name = "PATH", help_heading = "What to try")]
    pub(crate) dir: Option<PathBuf>,
    /// Confirm power-loss findings on real file systems: ext4, xfs, btrfs (needs root and their mkfs)
    #[arg(long, value_name = "FS[,FS]", value_delimiter = ',', help_heading = "What to try")]
    pub(crate) confirm: Vec<Kind>,
    /// Exit 0 if verdicts are inconclusive only because time ran out; the last line says so
    #[arg(long, help_heading = "What counts")]
    pub(crate) allow_partial: bool,
    /// Divide the run over N threads
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        hide_default_value = true,
        help_heading = "What to try"
    )]
    pub(crate) jobs: u32,
    /// Run only part I of N; `picklock merge` merges the reports of all parts
    #[arg(long, value_name = "I/N", help_heading = "What to try")]
    pub(crate) shard: Option<Shard>,
    /// Start every operation from scratch instead of copying processes stopped at their first visible call
    #[arg(long, help_heading = "What to try")]
    pub(crate) no_copies: bool,
    /// Stop at the first violation
    #[arg(long, help_heading = "What to try")]
    pub(crate) fail_fast: bool,

    /// Let this invariant decide the exit status
    #[arg(long, value_name = "ID", help_heading = "What counts")]
    pub(crate) claim: Vec<String>,
    /// Judge this invariant, but ignore it for the exit status
    #[arg(long, value_name = "ID", help_heading = "What counts")]
    pub(crate) disclaim: Vec<String>,

    /// Known violations, which do not fail the run; new ones do
    #[arg(long, value_name = "FILE", help_heading = "What counts")]
    pub(crate) baseline: Option<PathBuf>,
    /// Rewrite the --baseline file with the findings of this run
    #[arg(long, requires = "baseline", help_heading = "What counts")]
    pub(crate) update_baseline: bool,

    #[command(flatten)]
    pub(crate) report: ReportArguments,
    /// Also write the report as a web page with a step-by-step view of each finding
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) html: Option<PathBuf>,
    /// Directory for saved cases
    #[arg(long, value_name = "DIR", default_value = "picklock-cases", help_heading = "Report")]
    pub(crate) cases: PathBuf,
    /// Keep a copy of the sandbox of each finding beside its case
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
    /// When to use colours
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Print only violations and the verdict
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print all details
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal, init asks for what no flag gives. It writes the adapter after the control has passed with it.

Examples:
  picklock init -- ./store
  picklock init --data db.json --add './store add {data} {id}' --list './store list {data}'

Exit status: 0 written and checked, 2 usage, 4 the store does not work without injections")]
pub(crate) struct InitArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "picklock.toml")]
    pub(crate) output: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    pub(crate) force: bool,
    /// Write it even if the control fails
    #[arg(long)]
    pub(crate) unproven: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Run each shard with the same target, seed and selection, on its own machine or one after another. Together the
shards run the same experiments as one run without --shard:
  picklock check --shard 1/4 --format json --output 1.json …
  picklock merge 1.json 2.json 3.json 4.json

Exit status: that of check for the whole run; 3 if the report of a shard is missing")]
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
    /// The command that adds a record; split into words like a shell does, but not run by a shell
    #[arg(long, value_name = "CMD", conflicts_with = "adapter")]
    add: Option<String>,
    /// The command that prints the records
    #[arg(long, value_name = "CMD", conflicts_with = "adapter")]
    list: Option<String>,
    /// The command that prepares an empty store, run once
    #[arg(long, value_name = "CMD", conflicts_with = "adapter")]
    init: Option<String>,
    /// Where to find record names in the data file: $.path[*], keys:$.path, regex:PATTERN, lines
    #[arg(long, value_name = "EXPR", conflicts_with = "adapter", allow_hyphen_values = true)]
    records: Option<String>,
    /// Where to find record names in the output of list [default: lines]
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
    /// Further exit statuses that mean: the lock was busy and nothing was changed
    #[arg(long, value_name = "N", value_delimiter = ',')]
    busy: Vec<i32>,
    /// Further exit statuses that mean: the operation was refused and nothing was changed
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
Without a target, bench measures lock primitives that processes take in turn. With a target, it measures updates
per second by number of clients and by size, one-shot and in a session. Each rate is shown with its fairness and
longest wait, because a polling lock looks fast while one client keeps it.

Examples:
  picklock bench
  picklock bench --locks flock,o-excl --clients 8 --hold 0s --html locks.html
  picklock bench --adapter sqlite3 --dir . --require 'p99<50ms' --require 'jain>0.8'
  picklock bench --add './store add {data} {id}' --compare './other add {data} {id}'

Exit status:
  0 measured    1 a requirement failed, mutual exclusion was broken, or an update was lost
  2 usage    4 the store does not work without injections    130 interrupted (results so far are written)")]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    /// A second store, run alternately with the first: a program of the plain convention, an adapter file, or a command
    /// that adds
    #[arg(long, value_name = "CMD", help_heading = "What to measure")]
    pub(crate) compare: Option<String>,
    /// Measure only these lock primitives: flock, posix, ofd, std, fs4, fd-lock, o-excl, mkdir, store
    #[arg(long, value_name = "ID", value_delimiter = ',', help_heading = "What to measure")]
    pub(crate) locks: Vec<String>,
    /// Numbers of concurrent clients to measure
    #[arg(
        long,
        value_name = "N[,N]",
        value_delimiter = ',',
        default_value = "1,2,4,8",
        help_heading = "What to measure"
    )]
    pub(crate) clients: Vec<u32>,
    /// Times for which a lock is held [default: 0s,1ms]
    #[arg(long, value_name = "DURATION", value_delimiter = ',', value_parser = humantime::parse_duration, help_heading = "What to measure")]
    pub(crate) hold: Option<Vec<Duration>>,
    /// Number of measurements of each figure; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "What to measure")]
    pub(crate) runs: u32,
    /// Duration of each measurement
    #[arg(long, value_name = "DURATION", default_value = "250ms", value_parser = duration, help_heading = "What to measure")]
    pub(crate) time: Duration,
    /// Measure on the file system of this directory [default: a memory file system]
    #[arg(long, value_name = "PATH", help_heading = "What to measure")]
    pub(crate) dir: Option<PathBuf>,
    /// Fail unless this holds: 'p99<50ms', 'jain>0.8', 'rate>1000'; of p50, p99, p999, max, rate, jain
    #[arg(long, value_name = "EXPR", help_heading = "What counts")]
    pub(crate) require: Vec<Requirement>,
    /// Format of the figures
    #[arg(long, value_enum, default_value_t = Format::Human, help_heading = "Report")]
    pub(crate) format: Format,
    /// Write the figures to this file instead of standard output
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) output: Option<PathBuf>,
    /// Also write the figures as a web page with plots
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub(crate) html: Option<PathBuf>,
    /// When to use colours
    #[arg(long, value_enum, default_value_t = Color::Auto, help_heading = "Report")]
    pub(crate) color: Color,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  picklock trace -- ./store
  picklock trace list --adapter sqlite3

Exit status:
  0 traced    2 usage    3 tracing is forbidden here    4 the store does not work without injections    130 interrupted")]
pub(crate) struct TraceArguments {
    /// The operation: add, list, init, recover, rebuild, or one of [ops.other]
    #[arg(value_name = "OP", default_value = "add")]
    pub(crate) op: String,
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    /// Trace on the file system of this directory [default: a memory file system]
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,
    /// Format of the trace
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A case contains commands. Replay runs them if they are those of the given target, which is named as for check.
Otherwise it prints them, and runs them only with --trust.

Exit status:
  1 reproduced, or flaky: it violates its invariant again    0 fixed: three clean runs in a row
  3 diverged: the store now behaves differently              2 it cannot be run here")]
pub(crate) struct ReplayArguments {
    /// The file that `check` saved
    #[arg(value_name = "CASE")]
    pub(crate) case: PathBuf,
    /// Run the commands of the case without comparing them with a target
    #[arg(long)]
    pub(crate) trust: bool,
    /// Leave a copy of the sandbox beside the case
    #[arg(long)]
    pub(crate) keep: bool,
    /// Write the calls to this file in Chrome's trace format, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Run on the file system of this directory [default: a memory file system]
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
