//! One execution to come, as data: what is asked, in which order, and what is disturbed; a case holds one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultId};
use crate::op::{ClientId, Request};
use crate::persist::profile;
use crate::scenario::damage::Damage;

/// Plan of one execution, in a sandbox where the store holds its first record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Acts, in order.
    pub acts: Vec<Act>,
}

/// One part of an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Inspects the files.
    Look,
    /// Damages a derived file or the data file, then inspects the files.
    Damage {
        /// Its path in the sandbox.
        file: String,
        /// Kind of damage.
        damage: Damage,
    },
    /// Runs one operation without injection, then inspects the files.
    Operate(Request),
    /// The same, by a client other than the first.
    OperateAs {
        /// The client.
        client: ClientId,
        /// Its request.
        request: Request,
    },
    /// Runs `recover`, if the store has it and something was killed just before; then inspects the files.
    Recover,
    /// Runs `list`, if the store has it; then inspects the files.
    List,
    /// Runs operations under the tracer; the first is client 1.
    Trace {
        /// Request of each client.
        requests: Vec<Request>,
        /// The injection, if any; cases of version 0.1 have it under this key.
        #[serde(rename = "disturbance")]
        injection: Option<Injection>,
    },
    /// Runs clients under the tracer, on a schedule.
    Interleave(Interleaving),
    /// Runs the following acts on the store as `init` left it, with no record in it.
    Anew,
    /// Runs one operation under the tracer, without injection, until the power is lost.
    PowerLoss {
        /// The request.
        request: Request,
        /// The power loss.
        loss: Loss,
    },
    /// Runs a session under the tracer.
    Session {
        /// Its steps, in order.
        steps: Vec<Step>,
    },
}

/// Clients whose visible calls run in a given order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interleaving {
    /// Requests of each client, in order.
    pub clients: Vec<Vec<Request>>,
    /// Number of times that each client may continue after a sleep without a change to what it looked at.
    #[serde(default, skip_serializing_if = "is_none_at_all")]
    pub wakes: u32,
    /// The client that is killed, and the call before which it is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<KillAt>,
    /// Client that takes each step, in order. A step is an invocation, a visible call, a sleep, or the exit.
    pub schedule: Vec<ClientId>,
    /// Whether the times of invocations and returns are irrelevant; if so, an invocation is not a step.
    #[serde(default, rename = "is_timeless", skip_serializing_if = "std::ops::Not::not")]
    pub ignores_real_time: bool,
}

/// A client that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillAt {
    /// The client.
    pub client: ClientId,
    /// Before this visible call of its first operation, counted from 1.
    pub before: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it like that")]
fn is_none_at_all(count: &u32) -> bool {
    *count == 0
}

/// Displays the requests and the schedule: which client ran, and for how many steps.
impl fmt::Display for Interleaving {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_client = |requests: &Vec<Request>| {
            requests.iter().map(ToString::to_string).collect::<Vec<_>>().join(", then ")
        };
        let clients: Vec<String> = self.clients.iter().map(of_client).collect();
        write!(out, "{}", clients.join(" beside "))?;
        if let Some(KillAt { client, before }) = self.kill {
            write!(out, ", client {client} killed before its call {before}")?;
        }
        let turns: Vec<String> = self
            .schedule
            .chunk_by(|one, next| one == next)
            .filter_map(|turn| Some(format!("c{}×{}", turn.first()?, turn.len())))
            .collect();
        write!(out, ", scheduled {}", turns.join(" "))
    }
}

/// A power loss: when it happens, and which of the operation's changes it discards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Number of visible calls that have returned when it happens.
    pub after: u32,
    /// Whether the operation has ended by then, and was acknowledged if it succeeded.
    pub is_after_end: bool,
    /// Numbers of the lost changes in the operation's log.
    pub lost: Vec<u32>,
    /// The profiles that allow it.
    pub profiles: Vec<String>,
    /// Description of what is missing, and of the missing sync.
    pub told: String,
    /// Whether the operation succeeded, if it had ended by then.
    #[serde(default = "succeeded")]
    pub is_acknowledged: bool,
}

/// Default for cases that were saved before failures were distinguished.
fn succeeded() -> bool {
    true
}

/// Requests of a session that are sent together, or an operation of another client concurrent with it. The next step
/// begins when all requests are answered, or that operation has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Session that receives the requests, from 1.
    #[serde(default = "first_session", skip_serializing_if = "is_first_session")]
    pub session: u32,
    /// Requests, one per element.
    pub lines: Vec<String>,
    /// One-shot operation that runs instead, while the sessions are idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_shot: Option<Request>,
    /// Where the session is stopped meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

fn first_session() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it like that")]
fn is_first_session(session: &u32) -> bool {
    *session == 1
}

/// Returns the number of sessions in these steps, and the one-shot operations concurrent with them, in starting order.
pub fn clients_of(steps: &[Step]) -> (u32, Vec<&Request>) {
    let sessions = steps.iter().map(|step| step.session).max().unwrap_or(1);
    let one_shots = steps.iter().flat_map(|step| {
        let held = step.held.as_ref().and_then(|held| held.one_shot.as_ref());
        step.one_shot.as_ref().into_iter().chain(held)
    });
    (sessions, one_shots.collect())
}

/// A session that is stopped before it has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Visible call before which it is stopped, counted from 1 since the requests were sent.
    pub point: u32,
    /// That call, as the baseline run made it.
    pub call: String,
    /// Requests that are sent one after another while it is stopped, each once the session has come to rest.
    pub meanwhile: Vec<String>,
    /// One-shot operation that runs while it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_shot: Option<Request>,
    /// Description of what happens to the request.
    pub what: String,
}

/// Injection at one visible call of client 1's operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// Visible call before which it happens, counted from 1; if the operation makes fewer, it happens before the exit.
    pub point: u32,
    /// Kind of injection.
    pub what: InjectionKind,
    /// That call, as the baseline run made it; the failing start, if it is one.
    pub call: String,
    /// Whether a kill alone can leave this state; otherwise it represents a file system that accepts no more data.
    pub is_of_a_kill: bool,
    /// Whether only a manual page permits it and no local file system does it; a violation is then only a remark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_of_the_contract: bool,
}

impl Injection {
    /// Returns the injected fault, if any.
    pub fn fault(&self) -> Option<&'static Fault> {
        match self.what {
            InjectionKind::Fail { fault, .. }
            | InjectionKind::FailBeside { fault, .. }
            | InjectionKind::FailInside { fault }
            | InjectionKind::FailSpawn { fault, .. } => Some(fault.0),
            _ => None,
        }
    }
}

/// Suffix for a cut that no kill can make.
const NO_KILL: &str = " (no kill cuts there: it stands for a full disk, a quota or a size limit)";

/// Suffix for a fault that no local file system causes.
const BY_CONTRACT: &str = " (permitted by the manual page; local file systems never return it)";

/// Injection at a visible call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InjectionKind {
    /// Every process of the operation is killed.
    Kill,
    /// The process about to make the call is killed; the others continue.
    KillProcess,
    /// The call writes this many bytes, and then every process is killed.
    Tear(u64),
    /// The call writes this many bytes, and the operation continues.
    Shorten(u64),
    /// The call fails; if the failure persists, so do all similar calls from then on.
    Fail {
        /// How it fails.
        fault: FaultId,
        /// Whether the failure persists.
        stays: bool,
    },
    /// A lock call fails, for as long as it may. Before a later call the operation is held, client 2 runs as far as it
    /// can, and then both continue.
    FailBeside {
        /// How the lock fails.
        fault: FaultId,
        /// That later call, at which the baseline run first changed the data; counted from 1.
        held: u32,
    },
    /// The call is held; client 2 runs as far as it can; then the call fails, and both continue.
    FailInside {
        /// How it fails.
        fault: FaultId,
    },
    /// The process with this number is killed, the call is held, client 2 runs as far as it can, and both continue.
    KillOther {
        /// Number of the process in the trace.
        process: u32,
    },
    /// The start of a process, a thread or a program fails.
    FailSpawn {
        /// How it fails.
        fault: FaultId,
        /// Index among all such starts of the operation, from 1.
        nth: u32,
    },
    /// The call is held; client 2 runs as far as it can; then both continue.
    Hold,
    /// The call is held; client 2 runs as far as it can; then client 1 is killed, and client 2 continues.
    KillBesideWaiter,
    /// The call is held; client 2 runs as far as it can, and is killed there; then client 1 continues.
    KillWaiter,
}

impl Script {
    /// Returns the first injection.
    pub fn injection(&self) -> Option<&Injection> {
        self.acts.iter().find_map(|act| match act {
            Act::Trace { injection, .. } => injection.as_ref(),
            _ => None,
        })
    }

    /// Returns the power losses.
    pub fn power_losses(&self) -> impl DoubleEndedIterator<Item = &Loss> {
        self.acts.iter().filter_map(|act| match act {
            Act::PowerLoss { loss, .. } => Some(loss),
            _ => None,
        })
    }

    /// Whether the standard or a manual page permits it, but no file system that picklock knows produces it.
    pub fn is_portability(&self) -> bool {
        self.power_losses().next_back().is_some_and(|loss| loss.profiles == [profile::PORTABILITY])
            || self.injection().is_some_and(|injection| injection.is_of_the_contract)
    }

    /// Records that only a manual page permits the injection.
    pub fn mark_as_of_the_contract(&mut self) {
        for act in &mut self.acts {
            if let Act::Trace { injection: Some(injection), .. } = act {
                injection.is_of_the_contract = true;
            }
        }
    }

    /// Sets the schedule of the interleaved clients, if any.
    pub fn schedule(&mut self, schedule: &[ClientId]) {
        for act in &mut self.acts {
            if let Act::Interleave(interleaving) = act {
                interleaving.schedule = schedule.to_vec();
            }
        }
    }

    /// Sets whether invocations and returns are steps of the interleaved clients.
    pub fn count_intervals(&mut self, count: bool) {
        for act in &mut self.acts {
            if let Act::Interleave(interleaving) = act {
                interleaving.ignores_real_time = !count;
            }
        }
    }

    /// Returns the interleaved clients, if any.
    pub fn interleaving(&self) -> Option<&Interleaving> {
        self.acts.iter().find_map(|act| match act {
            Act::Interleave(interleaving) => Some(interleaving),
            _ => None,
        })
    }

    /// Whether a session is stopped; from there on its threads are not scheduled.
    pub fn stops_a_session(&self) -> bool {
        self.acts.iter().any(|act| match act {
            Act::Session { steps } => steps.iter().any(|step| step.held.is_some()),
            _ => false,
        })
    }

    /// Describes the script in a few words.
    pub fn told(&self) -> Option<String> {
        self.acts.iter().find_map(|act| match act {
            Act::Trace { requests, injection: Some(injection) } => {
                let request = requests.first().map(ToString::to_string).unwrap_or_default();
                Some(format!("{request} {injection}"))
            }
            Act::Trace { requests, injection: None } => {
                let all: Vec<String> = requests.iter().map(ToString::to_string).collect();
                Some(format!("{} undisturbed", all.join(" beside ")))
            }
            Act::PowerLoss { request, loss } => {
                let again: Vec<String> = self
                    .acts
                    .iter()
                    .skip_while(|other| *other != act)
                    .skip(1)
                    .filter_map(|act| match act {
                        Act::PowerLoss { request, loss } => {
                            Some(format!("; and again {}", Losing(request, loss)))
                        }
                        _ => None,
                    })
                    .collect();
                Some(format!("the power is lost {}{}", Losing(request, loss), again.concat()))
            }
            Act::Interleave(interleaving) => Some(interleaving.to_string()),
            Act::Damage { file, damage } if self.injection().is_none() => {
                Some(format!("{file} {damage} and rebuilt"))
            }
            Act::Session { steps } => {
                let held = steps.iter().find_map(|step| step.held.as_ref());
                let (sessions, one_shots) = clients_of(steps);
                let alone = match (sessions, one_shots.len()) {
                    (1, 0) => "a session with two handles on one path".to_owned(),
                    (1, _) => "a session with one-shot operations between its requests".to_owned(),
                    _ => format!("{sessions} sessions whose requests take turns"),
                };
                Some(held.map_or(alone, |held| {
                    format!("a session, {} before call {}, {}", held.what, held.point, held.call)
                }))
            }
            _ => None,
        })
    }
}

/// Displays when the power is lost, on which file systems, and what is missing then.
struct Losing<'a>(&'a Request, &'a Loss);

impl fmt::Display for Losing<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(request, loss) = self;
        match loss.is_after_end {
            true => write!(out, "after {request} was acknowledged")?,
            false => write!(out, "in {request} after call {}", loss.after)?,
        }
        write!(out, " ({}); {}", loss.profiles.join(", "), loss.told)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Removed => "removed",
            Self::Emptied => "emptied",
            Self::Cut => "cut in half",
            Self::Overwritten => "overwritten",
        })
    }
}

/// Displays the injection; follows the operation's name: `killed before call 3, rename(a, b)`.
impl fmt::Display for Injection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { point, call, .. } = self;
        match self.what {
            InjectionKind::Kill => write!(out, "killed before call {point}, {call}"),
            InjectionKind::KillProcess => {
                write!(out, "whose process was killed alone before call {point}, {call}")
            }
            InjectionKind::Tear(length) => {
                let stands_for = if self.is_of_a_kill { "" } else { NO_KILL };
                write!(out, "killed when call {point}, {call}, had written {length} bytes{stands_for}")
            }
            InjectionKind::Shorten(length) => {
                write!(out, "whose call {point}, {call}, wrote only {length} bytes{NO_KILL}")
            }
            InjectionKind::Fail { fault: FaultId(fault), stays } => {
                let how = if stays { "and all like it failed" } else { "failed" };
                let contract = if self.is_of_the_contract { BY_CONTRACT } else { "" };
                write!(out, "whose call {point}, {call}, {how} with {}{contract}", fault.id)
            }
            InjectionKind::FailInside { fault: FaultId(fault) } => {
                let contract = if self.is_of_the_contract { BY_CONTRACT } else { "" };
                write!(
                    out,
                    "held before call {point}, {call}, while another client came; then the call failed with {}{contract}",
                    fault.id
                )
            }
            InjectionKind::KillOther { process } => write!(
                out,
                "whose process {process} was killed alone when call {point}, {call}, of another process was due; that was \
                 held while another client came"
            ),
            InjectionKind::FailBeside { fault: FaultId(fault), held } => {
                let contract = if self.is_of_the_contract { BY_CONTRACT } else { "" };
                write!(
                    out,
                    "whose call {point}, {call}, failed with {}{contract}, held before call {held} while another client came",
                    fault.id
                )
            }
            InjectionKind::FailSpawn { fault: FaultId(fault), nth } => {
                write!(out, "whose start {nth}, {call}, failed with {}", fault.id)
            }
            InjectionKind::KillBesideWaiter => {
                write!(out, "killed before call {point}, {call}, while another client was there")
            }
            InjectionKind::Hold => write!(out, "held before call {point}, {call}, while another client came"),
            InjectionKind::KillWaiter => {
                write!(
                    out,
                    "held before call {point}, {call}, while another client came and was killed waiting"
                )
            }
        }
    }
}
