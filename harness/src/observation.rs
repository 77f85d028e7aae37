//! Defines an observation: everything that one execution showed, which is all that an invariant sees.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::call::{Call, Class, Errno, Leak, LockChange, is_temporary};
use crate::fault::{self, What};
use crate::op::{ClientId, Limit, Nanos, Operation, Outcome, Request};

/// One execution of one scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The scenario's id.
    pub scenario: String,
    /// The execution's number within the scenario, from 1.
    pub execution: u32,
    /// Properties of the target, known before anything ran or learnt from the control.
    pub subject: Subject,
    /// All operations, in the order of their invocation.
    pub operations: Vec<Operation>,
    /// Readings of readers without a lock.
    pub readings: Readings,
    /// States of the sandbox at moments when no operation was running, in order of time.
    pub states: Vec<State>,
    /// Which client waited for which when a client did not end within its time limit, or none could continue.
    pub standstill: Option<Standstill>,
    /// The injection, if it can be described in a few words.
    #[serde(default, rename = "disturbance")]
    pub injection: Option<String>,
    /// The visible calls of traced clients: one list for each time that clients ran under the tracer.
    #[serde(default)]
    pub traces: Vec<Trace>,
    /// The invariants that this execution is for, if picklock did something that a store must withstand for these only;
    /// empty if it is for all.
    #[serde(default)]
    pub only_for: BTreeSet<String>,
    /// Times of the power losses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub power_losses: Vec<Nanos>,
    /// Whether picklock truncated the data file.
    #[serde(default)]
    pub source_was_damaged: bool,
    /// Records that sessions held in memory, each time just before a `list`.
    #[serde(default)]
    pub memories: Vec<Memory>,
    /// Names of the files that baseline runs made: a similar name has a random part.
    #[serde(default)]
    pub usual_names: BTreeSet<String>,
}

/// Records that a session held in memory and those that it listed right after, while no other request ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Time of the request.
    pub at: Nanos,
    /// The records in its memory, reported without reading the file.
    pub believed: Vec<String>,
    /// The records that the file held.
    pub listed: Vec<String>,
}

/// A run of clients together under the tracer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The request of each client, from client 1 on. If clients run several operations each, the calls give the index
    /// of the operation here, counted from 1, instead of the client.
    pub requests: Vec<Request>,
    /// The client of each of these operations, if clients run several each; otherwise empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientId>,
    /// Their visible calls, in the order in which they ended.
    pub calls: Vec<Call>,
    /// Locks that outlived their takers.
    pub leaks: Vec<Leak>,
    /// Whether each client ended by itself, without injections.
    pub is_whole: bool,
    /// Whether it deadlocked: a call that never returned waits forever, and was not just killed before its return.
    #[serde(default)]
    pub is_stuck: bool,
    /// The ids of all its processes.
    #[serde(skip)]
    pub pids: BTreeSet<i32>,
}

impl Trace {
    /// Returns the client whose calls have the index `place`.
    pub fn client(&self, place: u32) -> ClientId {
        let index = usize::try_from(place).ok().and_then(|place| place.checked_sub(1));
        index.and_then(|index| self.clients.get(index)).copied().unwrap_or(place)
    }

    /// Returns the operation for the index `place`, among those that were run together.
    pub fn operation<'a>(&self, place: u32, operations: &'a [Operation]) -> Option<&'a Operation> {
        let client = self.client(place);
        let request = usize::try_from(place).ok().and_then(|place| self.requests.get(place.checked_sub(1)?));
        let of_client = || operations.iter().filter(|operation| operation.client == client);
        of_client().find(|operation| Some(&operation.request) == request).or_else(|| {
            match self.clients.is_empty() {
                true => of_client().next(),
                false => None,
            }
        })
    }
}

/// Properties of the target that invariants use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Whether picklock can distinguish a whole data file from a broken one (all formats but opaque).
    pub transparent: bool,
    /// Whether the data file was there, and not empty, before the first operation.
    pub starts_with_data: bool,
    /// Records in the store before the first operation: they belong to no client and are ignored.
    pub initial_records: BTreeSet<String>,
    /// Number of files in the sandbox after each of the control's adds, all without injections.
    #[serde(rename = "quiet_file_counts")]
    pub baseline_file_counts: Vec<usize>,
    /// Number of files of each shape there: names with each row of digits as `#` and record names as `{id}`.
    #[serde(default, rename = "quiet_shapes")]
    pub baseline_shapes: Vec<BTreeMap<String, usize>>,
    /// Whether the target itself gives `add` a path that contains the record's name.
    #[serde(default)]
    pub paths_hold_ids: bool,
    /// Names of files that operations other than `add` and `list` make without injections, each row of digits as `#`.
    #[serde(default)]
    pub made_by_others: BTreeSet<String>,
    /// Names of files that operations make, the same in every run: a kill may leave one of each, once.
    #[serde(default)]
    pub fixed_names: BTreeSet<String>,
    /// Derived files that differ between two rebuilds without injections, a second apart.
    #[serde(default)]
    pub unrepeatable: BTreeSet<String>,
    /// Path of the data file in the sandbox.
    #[serde(default)]
    pub data: String,
    /// Whether `list` succeeds before the first record.
    #[serde(default)]
    pub lists_when_empty: bool,
    /// Whether the target gives any exit status other than 0 a meaning: refused or busy.
    #[serde(default)]
    pub maps_statuses: bool,
    /// Maximum number of records in the store, if it has a limit.
    pub limit: Option<u32>,
    /// The same for a separate form of `add`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarded_limit: Option<u32>,
    /// The time limit of one operation, in nanoseconds.
    pub timeout: Nanos,
}

/// The state of the sandbox at a moment when no operation was running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Time of the look.
    pub at: Nanos,
    /// The data file.
    pub data: FileState,
    /// The records in the data file, if the target says how to find them and the file is whole.
    pub records: Option<Vec<String>>,
    /// The other files that must stay valid, by their path in the sandbox.
    pub also: BTreeMap<String, FileState>,
    /// Every file in the sandbox, by its path in it, sorted.
    pub files: Vec<String>,
    /// Digest of the data file's content, if the target has derived files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Digest of each derived file that is there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub derived: BTreeMap<String, String>,
}

/// How a file looks to a reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileState {
    /// It does not exist.
    Missing,
    /// It has no bytes.
    Empty,
    /// It does not parse, for this reason.
    Broken(String),
    /// It parses, or its format is not known.
    Whole,
}

/// Readings of readers without a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readings {
    /// Number of reads of the data file.
    pub taken: u64,
    /// Number of reads that found it broken, empty, or missing although it had to be there.
    pub torn: u64,
    /// The first few of those: time, and what was seen.
    pub examples: Vec<(Nanos, String)>,
}

/// Which client waited for which lock, looked at twice, when a client had not ended within its time limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standstill {
    /// The client that was past its limit.
    pub client: ClientId,
    /// Whether both looks showed the same.
    pub steady: bool,
    /// Every running client.
    pub clients: Vec<Waiting>,
}

/// What one client was doing at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The client.
    pub client: ClientId,
    /// The locks that its processes wait for. Empty if it was not seen to wait for one.
    pub wants: Vec<WantedLock>,
    /// Whether all of its processes and threads were seen to wait for a lock or for a child that does.
    pub wholly: bool,
}

/// A lock that a client waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedLock {
    /// The locked file: its path in the sandbox if it has one.
    pub file: String,
    /// Its holders.
    pub holders: Vec<Holder>,
}

/// Holder of a lock that a client waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// A process of a running client.
    Client(ClientId),
    /// A process that has ended and left the lock to an open file description that still exists.
    Ended,
    /// A living process that belongs to no running client.
    Other,
}

/// The records of the store at one moment when no operation was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// Time of the view.
    pub at: Nanos,
    /// Source of the records: `"list"` or `"the data file"`.
    pub source: &'static str,
    /// Names of the records, in the order in which they were read.
    pub records: &'a [String],
}

impl Observation {
    /// Returns what the store held whenever no operation was running, in order of time.
    pub fn views(&self) -> Vec<View<'_>> {
        // The answer of a list with an injected fault is evidence about the list, not about the store.
        let is_telling = |list: &&Operation| list.fault.is_none() && !self.overlapped(list);
        let listed = self.operations.iter().filter(is_telling).filter_map(|list| {
            Some(View { at: list.invoked, source: "list", records: list.records.as_deref()? })
        });
        let read = self.states.iter().filter_map(|state| {
            Some(View { at: state.at, source: "the data file", records: state.records.as_deref()? })
        });
        let mut views: Vec<View<'_>> = listed.chain(read).collect();
        views.sort_by_key(|view| view.at);
        views
    }

    /// Returns each `list` that failed although no other operation ran, a record was acknowledged and the store had had
    /// the chance to recover.
    fn unreadables(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(|list| {
            list.request == Request::List
                && list.fault.is_none()
                && list.tells_nothing()
                && self.acknowledged_by(list.invoked).next().is_some()
                && self.settled_at(list.invoked)
                && !self.overlapped(list)
        })
    }

    /// Returns the first `list` that failed although no other operation ran, a record was acknowledged and the store
    /// had had the chance to recover: the content of the store is unknown then.
    pub fn unreadable(&self) -> Option<&Operation> {
        self.unreadables().next()
    }

    /// Describes the doubt that an unreadable store leaves, if it is unreadable.
    pub fn doubt_of_unreadable(&self) -> Option<String> {
        let list = self.unreadable()?;
        let said = if list.stderr.is_empty() { String::new() } else { format!(": {}", list.stderr) };
        Some(format!("with nothing else under way, list failed after records were acknowledged{said}"))
    }

    /// Returns the `list` that shows a loss: it failed with its own status after `since`, no `list` failed before
    /// `since`, and none that ran alone succeeded later. The control has shown that `list` works. A `list` that was
    /// busy, refused or did not end leaves only a doubt, because it shows nothing about the data.
    pub fn failing_for_good(&self, since: Nanos) -> Option<&Operation> {
        let worked = |list: &Operation| {
            let is_later = |next: &&Operation| next.request == Request::List && next.invoked > list.invoked;
            let mut later = self.operations.iter().filter(is_later);
            later.any(|next| next.outcome == Outcome::Acknowledged && !self.overlapped(next))
        };
        self.unreadable().filter(|first| first.invoked >= since)?;
        self.unreadables().find(|list| list.own_failure().is_some() && !worked(list))
    }

    /// Returns how often each record is in a view, without those that were there from the start.
    pub fn counts<'a>(&self, view: View<'a>) -> BTreeMap<&'a str, usize> {
        let mut counts = BTreeMap::new();
        for record in view.records.iter().filter(|record| !self.subject.initial_records.contains(*record)) {
            *counts.entry(record.as_str()).or_default() += 1;
        }
        counts
    }

    /// Returns the records acknowledged by `moment`, with the time of the acknowledgement.
    pub fn acknowledged_by(&self, moment: Nanos) -> impl Iterator<Item = (&str, Nanos)> {
        self.operations
            .iter()
            .filter(move |add| add.outcome == Outcome::Acknowledged && add.returned <= moment)
            .filter_map(|add| Some((add.added()?, add.returned)))
    }

    /// Returns the records that were acknowledged by the time of `view` and are not in it.
    pub fn missing_from<'a>(&'a self, view: View<'a>) -> Vec<&'a str> {
        let counts = self.counts(view);
        let acknowledged = self.acknowledged_by(view.at).map(|(record, _)| record);
        acknowledged.filter(|record| !counts.contains_key(record)).collect()
    }

    /// Returns the files of a state with a shape that baseline runs never leave; none if those always leave new shapes.
    pub fn foreign_files<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a String> {
        let subject = &self.subject;
        let files = state.files.iter().filter(|_| subject.knows_shapes());
        files.filter(|file| {
            let shape = file_shape(file, self.operations.iter().filter_map(Operation::added));
            !is_temporary(file)
                && !subject.has_shape(&shape)
                && !subject.made_by_others.contains(&name_shape(file))
                && !subject.fixed_names.contains(*file)
        })
    }

    /// Returns the `add` of this record.
    pub fn add_of(&self, record: &str) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.added() == Some(record))
    }

    /// Returns whether a refusal of this `add` may be due to the store's limit: that many records may be in.
    pub fn may_be_full(&self, add: &Operation) -> bool {
        let possibly_in = self.operations.iter().filter(|other| {
            other.added().is_some()
                && other.invoked < add.returned
                && !other.changed_nothing()
                && *other != add
        });
        add.added().is_some() && self.subject.limit.is_some_and(|limit| possibly_in.count() >= limit as usize)
    }

    /// Returns the operations that the plan killed.
    pub fn killed(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(|operation| operation.outcome == Outcome::Killed)
    }

    /// Returns whether any two adds overlapped.
    pub fn adds_overlapped(&self) -> bool {
        // In the order of invocation some neighbours overlap if any two do.
        let mut latest = 0;
        self.operations.iter().filter(|operation| operation.added().is_some()).any(|add| {
            let overlaps = add.invoked < latest;
            latest = latest.max(add.returned);
            overlaps
        })
    }

    /// Returns whether all operations ran one after another, so that a failure after a kill is due to that kill. An
    /// operation that was held and then killed did nothing more while another one ran.
    pub fn is_sequential(&self) -> bool {
        self.operations.windows(2).all(|pair| pair[0].last_step() <= pair[1].invoked)
    }

    /// Returns whether the store had the chance to recover: since the last kill, fault or power loss before `moment`,
    /// an `add` or a `recover` began and ended by itself. Without any of these there is nothing to recover from.
    pub fn settled_at(&self, moment: Nanos) -> bool {
        let before = || self.operations.iter().filter(move |operation| operation.returned <= moment);
        let is_struck = |operation: &&Operation| operation.was_killed() || operation.was_failed();
        let killed = before().filter(is_struck).map(|struck| struck.returned);
        let lost = self.power_losses.iter().copied().filter(|loss| *loss <= moment);
        let Some(last_kill) = killed.chain(lost).max() else { return true };
        before().any(|next| {
            let had_its_way = match next.outcome {
                Outcome::Acknowledged | Outcome::Refused | Outcome::Failed(_) => true,
                // If no other client runs, a store that reports busy is itself the cause.
                Outcome::Busy => self.is_sequential(),
                _ => false,
            };
            next.invoked >= last_kill
                && had_its_way
                && matches!(next.request, Request::Add { .. } | Request::Recover)
        })
    }

    /// Returns whether an operation ran past its limit while it requested again and again a lock that picklock made
    /// fail, and got none: it may do so up to its own time limit, and waits for no client.
    pub fn asked_in_vain(&self, operation: &Operation) -> bool {
        let fault = operation.fault.as_deref().and_then(fault::find).filter(|fault| fault.is_of_lock());
        let Some(What::Errno(errno)) = fault.map(|fault| fault.what) else { return false };
        let is_refused = |call: &&Call| call.class == Class::Lock && call.result == Some(Err(Errno(errno)));
        let is_in_vain = |trace: &Trace| {
            let own = || trace.calls.iter().filter(|call| trace.client(call.client) == operation.client);
            let is_taken =
                |call: &Call| call.locks.iter().any(|change| matches!(change, LockChange::Taken(..)));
            let since_refused = own().skip_while(|call| !is_refused(call));
            own().filter(is_refused).count() > 1 && !since_refused.into_iter().any(is_taken)
        };
        operation.outcome == Outcome::Unfinished(Limit::Timeout) && self.traces.iter().any(is_in_vain)
    }

    /// Returns whether the client that did not end in time was seen to wait for a lock, and for nothing else.
    pub fn waits_for_locks(&self) -> bool {
        self.standstill.as_ref().is_some_and(|standstill| {
            let late = standstill.clients.iter().find(|waiting| waiting.client == standstill.client);
            standstill.steady && late.is_some_and(|waiting| waiting.wholly && !waiting.wants.is_empty())
        })
    }

    fn overlapped(&self, one: &Operation) -> bool {
        self.operations.iter().any(|other| !std::ptr::eq(one, other) && one.overlaps(other))
    }
}

impl Subject {
    /// Returns whether further adds leave files of the same shapes, so that a file of any other shape is a leftover.
    pub fn knows_shapes(&self) -> bool {
        let Some((last, before @ [_, ..])) = self.baseline_shapes.split_last() else { return false };
        last.keys().all(|shape| before.iter().any(|shapes| shapes.contains_key(shape)))
    }

    /// Returns whether a file of this shape was in the sandbox without injections.
    pub fn has_shape(&self, shape: &str) -> bool {
        self.baseline_shapes.iter().any(|shapes| shapes.contains_key(shape))
    }
}

/// Returns the shape of a file's name: record names as `{id}`, each other row of digits as `#`.
pub(crate) fn file_shape<'a>(name: &str, records: impl IntoIterator<Item = &'a str>) -> String {
    let held = records.into_iter().find(|record| name.contains(*record));
    match held {
        Some(record) => {
            let parts: Vec<String> = name.split(record).map(name_shape).collect();
            parts.join("{id}")
        }
        None => name_shape(name),
    }
}

/// Returns the name of a file with each row of digits as `#`.
pub(crate) fn name_shape(name: &str) -> String {
    let mut shape = String::new();
    for c in name.chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if c != '#' || !shape.ends_with('#') {
            shape.push(c);
        }
    }
    shape
}

/// Lists up to five of these names, and the number of the others.
pub fn name_some<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0..=5 => shown,
        more => format!("{shown} and {} more", more - 5),
    }
}
