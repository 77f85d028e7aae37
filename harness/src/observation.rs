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
    /// What was known of the target before anything ran, or learnt from the control.
    pub subject: Subject,
    /// All operations, in the order of their invocation.
    pub operations: Vec<Operation>,
    /// What readers saw that took no lock.
    pub readings: Readings,
    /// What stood on disk at moments when no operation was under way, in the order of time.
    pub states: Vec<State>,
    /// Who waited for whom when a client did not end within its time, or nobody could go on.
    pub standstill: Option<Standstill>,
    /// How it was disturbed, where that can be said in a few words.
    #[serde(default, rename = "disturbance")]
    pub injection: Option<String>,
    /// The visible calls of what was traced: one list for each time that clients ran under the tracer.
    #[serde(default)]
    pub traces: Vec<Trace>,
    /// The invariants that this execution is for, where picklock did what a store has to bear for those alone; empty
    /// where it is for all.
    #[serde(default)]
    pub only_for: BTreeSet<String>,
    /// When the power was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub power_losses: Vec<Nanos>,
    /// picklock emptied the data file.
    #[serde(default)]
    pub source_was_damaged: bool,
    /// What sessions believed, each just before it listed.
    #[serde(default)]
    pub memories: Vec<Memory>,
    /// Names of the files that baseline runs made: others like them have a random part.
    #[serde(default)]
    pub usual_names: BTreeSet<String>,
}

/// What a session believed, and what it listed right after, with no other request under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// When it was asked.
    pub at: Nanos,
    /// The records that it believed there were, without reading.
    pub believed: Vec<String>,
    /// The records that the file held.
    pub listed: Vec<String>,
}

/// What clients did that ran under the tracer together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// What was asked of each, from client 1 on. Where clients do several operations each, the calls name the operation
    /// by its place here, counted from 1, and not the client.
    pub requests: Vec<Request>,
    /// Whose operation each of these is, where clients do several each; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientId>,
    /// Their visible calls, in the order in which they ended.
    pub calls: Vec<Call>,
    /// Locks that outlived their takers.
    pub leaks: Vec<Leak>,
    /// Whether each came to an end of its own, undisturbed.
    pub is_whole: bool,
    /// Whether it came to a standstill: what never returned then waits for ever, and was not just killed before.
    #[serde(default)]
    pub is_stuck: bool,
    /// The ids of all its processes.
    #[serde(skip)]
    pub pids: BTreeSet<i32>,
}

impl Trace {
    /// The client that did what calls have as done by `place`.
    pub fn client(&self, place: u32) -> ClientId {
        let index = usize::try_from(place).ok().and_then(|place| place.checked_sub(1));
        index.and_then(|index| self.clients.get(index)).copied().unwrap_or(place)
    }

    /// The same for the operation, among those that were run together.
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

/// What the judges know of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Whether picklock can tell a whole data file from a broken one (all formats but opaque).
    pub transparent: bool,
    /// Whether the data file was there, and not empty, before the first operation.
    pub starts_with_data: bool,
    /// What was in the store before the first operation: it belongs to nobody and is left out of account.
    pub initial_records: BTreeSet<String>,
    /// How many files stood in the sandbox after each of the control's adds, none of them disturbed.
    #[serde(rename = "quiet_file_counts")]
    pub baseline_file_counts: Vec<usize>,
    /// How many files of each shape stood there then: names with each row of digits as `#` and record names as `{id}`.
    #[serde(default, rename = "quiet_shapes")]
    pub baseline_shapes: Vec<BTreeMap<String, usize>>,
    /// Whether the target itself gives `add` a path that holds the record's name.
    #[serde(default)]
    pub paths_hold_ids: bool,
    /// The names of files that operations beside `add` and `list` make undisturbed, each row of digits as `#`.
    #[serde(default)]
    pub made_by_others: BTreeSet<String>,
    /// The names of files that operations make, the same in every run: a kill may leave one of each, once.
    #[serde(default)]
    pub fixed_names: BTreeSet<String>,
    /// Derived files that differ from one undisturbed rebuild to another a second later.
    #[serde(default)]
    pub unrepeatable: BTreeSet<String>,
    /// The data file, by its path in the sandbox.
    #[serde(default)]
    pub data: String,
    /// Whether `list` succeeds before the first record.
    #[serde(default)]
    pub lists_when_empty: bool,
    /// Whether the target gives any exit status but 0 a meaning: refused or busy.
    #[serde(default)]
    pub maps_statuses: bool,
    /// How many records the store takes, where it has a limit.
    pub limit: Option<u32>,
    /// The same for a form of `add` of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarded_limit: Option<u32>,
    /// The time limit of one operation, in nanoseconds.
    pub timeout: Nanos,
}

/// The state of the sandbox at a moment when no operation was under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// When it was looked at.
    pub at: Nanos,
    /// The data file.
    pub data: FileState,
    /// The records in the data file, where the target says how to find them and the file is whole.
    pub records: Option<Vec<String>>,
    /// The further files that must stay valid, by their path in the sandbox.
    pub also: BTreeMap<String, FileState>,
    /// Every file in the sandbox, by its path in it, sorted.
    pub files: Vec<String>,
    /// What tells the content of the data file from another, where the target has derived files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The same of each derived file that is there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub derived: BTreeMap<String, String>,
}

/// What a file is to a reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileState {
    /// There is none.
    Missing,
    /// It has no bytes.
    Empty,
    /// It does not parse, for this reason.
    Broken(String),
    /// It parses, or its format is not known.
    Whole,
}

/// What the readers without a lock saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readings {
    /// How often the data file was read.
    pub taken: u64,
    /// How many of these saw a broken file, an empty one, or none where one had to be.
    pub torn: u64,
    /// The first few of those: when, and what was seen.
    pub examples: Vec<(Nanos, String)>,
}

/// Who waited for which lock, looked at twice, when a client had not ended within its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standstill {
    /// The client that was past its limit.
    pub client: ClientId,
    /// Whether both looks showed the same.
    pub steady: bool,
    /// Every client that was under way.
    pub clients: Vec<Waiting>,
}

/// What one client was doing at a standstill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The client.
    pub client: ClientId,
    /// The locks that its processes wait for. Empty where it was not seen to wait for one.
    pub wants: Vec<WantedLock>,
    /// Whether all of its processes and threads were seen to wait for a lock or for a child that does.
    pub wholly: bool,
}

/// A lock that somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedLock {
    /// The locked file: its path in the sandbox where it has one.
    pub file: String,
    /// Who has it.
    pub holders: Vec<Holder>,
}

/// Who holds a lock that somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// A process of a client under way.
    Client(ClientId),
    /// A process that has ended and left the lock to a description that lives on.
    Ended,
    /// A living process that belongs to no client under way.
    Other,
}

/// The records of the store at one moment when nothing was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// When.
    pub at: Nanos,
    /// Where they were read: `"list"` or `"the data file"`.
    pub source: &'static str,
    /// The records' names, as they came.
    pub records: &'a [String],
}

impl Observation {
    /// What the store was seen to hold whenever nothing was under way, in the order of time.
    pub fn views(&self) -> Vec<View<'_>> {
        // What a list says that a fault has struck tells of the list, and not of the store.
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

    /// Each `list` that failed though nothing else was under way, a record was acknowledged and the store had had its
    /// chance to mend itself.
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

    /// The first `list` that failed though nothing else was under way, a record was acknowledged and the store had had
    /// its chance to mend itself: what is in the store then, nobody knows.
    pub fn unreadable(&self) -> Option<&Operation> {
        self.unreadables().next()
    }

    /// The doubt that an unreadable store leaves, where it is one.
    pub fn doubt_of_unreadable(&self) -> Option<String> {
        let list = self.unreadable()?;
        let said = if list.stderr.is_empty() { String::new() } else { format!(": {}", list.stderr) };
        Some(format!("with nothing else under way, list failed after records were acknowledged{said}"))
    }

    /// The `list` that shows a loss: it failed with a status of its own after `since`, no `list` failed before that, and
    /// none that ran alone succeeded later. The control has shown that `list` works. A `list` that was busy, refused or
    /// did not end leaves a doubt only, because it says nothing about the data.
    pub fn failing_for_good(&self, since: Nanos) -> Option<&Operation> {
        let worked = |list: &Operation| {
            let is_later = |next: &&Operation| next.request == Request::List && next.invoked > list.invoked;
            let mut later = self.operations.iter().filter(is_later);
            later.any(|next| next.outcome == Outcome::Acknowledged && !self.overlapped(next))
        };
        self.unreadable().filter(|first| first.invoked >= since)?;
        self.unreadables().find(|list| list.own_failure().is_some() && !worked(list))
    }

    /// How often each record of a view is in it, without those that were there from the start.
    pub fn counts<'a>(&self, view: View<'a>) -> BTreeMap<&'a str, usize> {
        let mut counts = BTreeMap::new();
        for record in view.records.iter().filter(|record| !self.subject.initial_records.contains(*record)) {
            *counts.entry(record.as_str()).or_default() += 1;
        }
        counts
    }

    /// The records acknowledged by `moment`, with the time of the acknowledgement.
    pub fn acknowledged_by(&self, moment: Nanos) -> impl Iterator<Item = (&str, Nanos)> {
        self.operations
            .iter()
            .filter(move |add| add.outcome == Outcome::Acknowledged && add.returned <= moment)
            .filter_map(|add| Some((add.added()?, add.returned)))
    }

    /// The records that were acknowledged by the time of `view` and are not in it.
    pub fn missing_from<'a>(&'a self, view: View<'a>) -> Vec<&'a str> {
        let counts = self.counts(view);
        let acknowledged = self.acknowledged_by(view.at).map(|(record, _)| record);
        acknowledged.filter(|record| !counts.contains_key(record)).collect()
    }

    /// The files of a state that are of no shape that undisturbed runs leave; none if those leave ever new shapes.
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

    /// The `add` of this record.
    pub fn add_of(&self, record: &str) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.added() == Some(record))
    }

    /// Whether a refusal of this `add` may be for the store's limit: that many records may be in.
    pub fn may_be_full(&self, add: &Operation) -> bool {
        let possibly_in = self.operations.iter().filter(|other| {
            other.added().is_some()
                && other.invoked < add.returned
                && !other.changed_nothing()
                && *other != add
        });
        add.added().is_some() && self.subject.limit.is_some_and(|limit| possibly_in.count() >= limit as usize)
    }

    /// Operations that the plan killed.
    pub fn killed(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(|operation| operation.outcome == Outcome::Killed)
    }

    /// Whether any two adds were under way at one moment.
    pub fn adds_overlapped(&self) -> bool {
        // In the order of invocation two neighbours overlap where any two do.
        let mut latest = 0;
        self.operations.iter().filter(|operation| operation.added().is_some()).any(|add| {
            let overlaps = add.invoked < latest;
            latest = latest.max(add.returned);
            overlaps
        })
    }

    /// Whether all operations came one after another, so that what went wrong after a kill came of that kill. One that
    /// was held, and killed there, did nothing any more while another ran beside it.
    pub fn is_sequential(&self) -> bool {
        self.operations.windows(2).all(|pair| pair[0].last_step() <= pair[1].invoked)
    }

    /// Whether the store had the chance to mend itself: since the last kill, fault or power loss before `moment`, an `add` or a
    /// `recover` began and went its own way to the end. Without any there is nothing to mend.
    pub fn settled_at(&self, moment: Nanos) -> bool {
        let before = || self.operations.iter().filter(move |operation| operation.returned <= moment);
        let is_struck = |operation: &&Operation| operation.was_killed() || operation.was_failed();
        let killed = before().filter(is_struck).map(|struck| struck.returned);
        let lost = self.power_losses.iter().copied().filter(|loss| *loss <= moment);
        let Some(last_kill) = killed.chain(lost).max() else { return true };
        before().any(|next| {
            let had_its_way = match next.outcome {
                Outcome::Acknowledged | Outcome::Refused | Outcome::Failed(_) => true,
                // With nobody else there it is the store's own doing that it finds itself busy.
                Outcome::Busy => self.is_sequential(),
                _ => false,
            };
            next.invoked >= last_kill
                && had_its_way
                && matches!(next.request, Request::Add { .. } | Request::Recover)
        })
    }

    /// Whether an operation ran past its limit while it asked again and again for a lock that picklock made fail from then
    /// on, and got none: it may do so up to a time limit of its own, and waits for nobody.
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

    /// Whether the client that did not end in time was seen to wait for a lock, and for nothing else.
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
    /// Whether further adds leave files of the same shapes, so that a file of any other shape is a leftover.
    pub fn knows_shapes(&self) -> bool {
        let Some((last, before @ [_, ..])) = self.baseline_shapes.split_last() else { return false };
        last.keys().all(|shape| before.iter().any(|shapes| shapes.contains_key(shape)))
    }

    /// Whether a file of this shape stood in the sandbox undisturbed.
    pub fn has_shape(&self, shape: &str) -> bool {
        self.baseline_shapes.iter().any(|shapes| shapes.contains_key(shape))
    }
}

/// The shape of a file's name: record names as `{id}`, each other row of digits as `#`.
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

/// The name of a file with each row of digits as `#`.
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

/// Up to five of these names, and how many there are beyond.
pub fn name_some<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0..=5 => shown,
        more => format!("{shown} and {} more", more - 5),
    }
}
