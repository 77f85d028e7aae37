//! One execution to come, as data: what is asked, in which order, and what is disturbed; a case holds one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultId};
use crate::op::{ClientId, Request};
use crate::persist::profile;
use crate::scenario::damage::Damage;

/// What one execution does, in a sandbox where the store holds its first record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// One after another.
    pub acts: Vec<Act>,
}

/// One part of an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// A look at the files.
    Look,
    /// This is done to a derived file, or to the data file; then a look at the files.
    Damage {
        /// Its path in the sandbox.
        file: String,
        /// What is done.
        damage: Damage,
    },
    /// One operation, undisturbed; then a look at the files.
    Operate(Request),
    /// The same of another client than the first.
    OperateAs {
        /// The client.
        client: ClientId,
        /// What it is asked.
        request: Request,
    },
    /// `recover`, where the store has it and something was killed just before; then a look at the files.
    Recover,
    /// `list`, where the store has it; then a look at the files.
    List,
    /// Operations under the tracer, the first of them client 1.
    Trace {
        /// What each client is asked.
        requests: Vec<Request>,
        /// What is injected; cases of version 0.1 have it under this key.
        #[serde(rename = "disturbance")]
        injection: Option<Injection>,
    },
    /// Clients under the tracer, on a schedule.
    Interleave(Interleaving),
    /// What comes is asked of the store as `init` left it, with no record in it.
    Anew,
    /// One operation under the tracer, undisturbed, until the power is lost.
    PowerLoss {
        /// What is asked.
        request: Request,
        /// What is lost.
        loss: Loss,
    },
    /// A session under the tracer.
    Session {
        /// What it is asked, one step after another.
        steps: Vec<Step>,
    },
}

/// Clients whose visible calls come in a given order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interleaving {
    /// What each client is asked, one thing after another.
    pub clients: Vec<Vec<Request>>,
    /// How often each may go on sleeping though nothing was changed that it looked at.
    #[serde(default, skip_serializing_if = "is_none_at_all")]
    pub wakes: u32,
    /// Who is killed, and where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<KillAt>,
    /// Whose turn it is, one step after another: an invocation, a visible call, a sleep, or the exit.
    pub schedule: Vec<ClientId>,
    /// Whether nobody asks when operations were invoked and returned: then an invocation is no step.
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

/// What was done on which schedule: whose turn it was, and for how many steps.
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

/// A power loss: when it comes, and what of the operation's changes it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// It comes when so many visible calls have returned.
    pub after: u32,
    /// Whether the operation has ended by then, and was acknowledged if it succeeded.
    pub is_after_end: bool,
    /// The changes that are lost, by their numbers in the log of the operation.
    pub lost: Vec<u32>,
    /// The profiles that allow it.
    pub profiles: Vec<String>,
    /// What is missing, and which sync.
    pub told: String,
    /// Whether the operation succeeded, if it had ended by then.
    #[serde(default = "succeeded")]
    pub is_acknowledged: bool,
}

/// What cases say that were saved before a failure was told apart.
fn succeeded() -> bool {
    true
}

/// Requests of a session that are sent at once, or an operation of another client beside it. The next step begins when all
/// of these are answered, or that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The session that they are sent to, from 1.
    #[serde(default = "first_session", skip_serializing_if = "is_first_session")]
    pub session: u32,
    /// One request each.
    pub lines: Vec<String>,
    /// A one-shot operation that runs instead, while the sessions have nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_shot: Option<Request>,
    /// Where it is stopped meanwhile.
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

/// How many sessions these steps have, and the one-shot operations beside them, in the order of their start.
pub fn clients_of(steps: &[Step]) -> (u32, Vec<&Request>) {
    let sessions = steps.iter().map(|step| step.session).max().unwrap_or(1);
    let one_shots = steps.iter().flat_map(|step| {
        let held = step.held.as_ref().and_then(|held| held.one_shot.as_ref());
        step.one_shot.as_ref().into_iter().chain(held)
    });
    (sessions, one_shots.collect())
}

/// A session that is stopped on its way to an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Before this visible call since the requests were sent, counted from 1.
    pub point: u32,
    /// That call, as the baseline run made it.
    pub call: String,
    /// What is sent while it stands there, one after another, each when it has come to rest.
    pub meanwhile: Vec<String>,
    /// A one-shot operation that runs while it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_shot: Option<Request>,
    /// What becomes of the request by that, in words.
    pub what: String,
}

/// What is done to the operation of client 1 at one of its visible calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// Before this visible call of it, counted from 1; where it makes fewer, before its exit.
    pub point: u32,
    /// What happens there.
    pub what: InjectionKind,
    /// That call, as the baseline run made it; the start that fails, if it is one.
    pub call: String,
    /// Whether a kill alone can leave what it leaves; else it stands for a file system that takes no more.
    pub is_of_a_kill: bool,
    /// Whether only a manual page allows it, and no local file system does it: then a violation is a remark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_of_the_contract: bool,
}

impl Injection {
    /// The fault that it is.
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

/// What stands behind a cut that no kill can make.
const NO_KILL: &str = " (no kill cuts there: it stands for a full disk, a quota or a size limit)";

/// What stands behind a fault that no local file system causes.
const BY_CONTRACT: &str = " (permitted by the manual page; local file systems never return it)";

/// What happens at a visible call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InjectionKind {
    /// Every process of the operation is killed.
    Kill,
    /// The process that was to make the call is killed; the others go on.
    KillProcess,
    /// The call writes so many bytes, and then every process is killed.
    Tear(u64),
    /// The call writes so many bytes, and the operation goes on.
    Shorten(u64),
    /// It fails, and where it stays that way, so do all like it from then on.
    Fail {
        /// How.
        fault: FaultId,
        /// Whether it stays that way.
        stays: bool,
    },
    /// A lock fails, for as long as it may; before a later call the operation is held, client 2 goes as far as it can, and
    /// then both go on.
    FailBeside {
        /// How the lock fails.
        fault: FaultId,
        /// That later call, where the baseline run changed the data first; counted from 1.
        held: u32,
    },
    /// It is held; client 2 goes as far as it can; then the call fails, and both go on.
    FailInside {
        /// How it fails.
        fault: FaultId,
    },
    /// The process of this number is killed, and the call is held; client 2 goes as far as it can; then both go on.
    KillOther {
        /// The process, by its number in the trace.
        process: u32,
    },
    /// The start of a process, a thread or a program fails.
    FailSpawn {
        /// How.
        fault: FaultId,
        /// Its place among all such starts of the operation, from 1.
        nth: u32,
    },
    /// It is held; client 2 goes as far as it can; then both go on.
    Hold,
    /// It is held; client 2 goes as far as it can; then client 1 is killed, and client 2 goes on.
    KillBesideWaiter,
    /// It is held; client 2 goes as far as it can, and is killed there; then client 1 goes on.
    KillWaiter,
}

impl Script {
    /// The first injection in it.
    pub fn injection(&self) -> Option<&Injection> {
        self.acts.iter().find_map(|act| match act {
            Act::Trace { injection, .. } => injection.as_ref(),
            _ => None,
        })
    }

    /// The power losses in it.
    pub fn power_losses(&self) -> impl DoubleEndedIterator<Item = &Loss> {
        self.acts.iter().filter_map(|act| match act {
            Act::PowerLoss { loss, .. } => Some(loss),
            _ => None,
        })
    }

    /// Whether no file system that picklock knows comes to it, but the standard or a manual page allows it.
    pub fn is_portability(&self) -> bool {
        self.power_losses().next_back().is_some_and(|loss| loss.profiles == [profile::PORTABILITY])
            || self.injection().is_some_and(|injection| injection.is_of_the_contract)
    }

    /// Takes note that only a manual page allows what is disturbed in it.
    pub fn mark_as_of_the_contract(&mut self) {
        for act in &mut self.acts {
            if let Act::Trace { injection: Some(injection), .. } = act {
                injection.is_of_the_contract = true;
            }
        }
    }

    /// Sets the schedule of the clients in it that have one.
    pub fn schedule(&mut self, schedule: &[ClientId]) {
        for act in &mut self.acts {
            if let Act::Interleave(interleaving) = act {
                interleaving.schedule = schedule.to_vec();
            }
        }
    }

    /// Whether invocations and returns are steps of the clients in it.
    pub fn count_intervals(&mut self, count: bool) {
        for act in &mut self.acts {
            if let Act::Interleave(interleaving) = act {
                interleaving.ignores_real_time = !count;
            }
        }
    }

    /// The clients on a schedule in it.
    pub fn interleaving(&self) -> Option<&Interleaving> {
        self.acts.iter().find_map(|act| match act {
            Act::Interleave(interleaving) => Some(interleaving),
            _ => None,
        })
    }

    /// Whether a session is stopped in it: from there on its threads run as they come.
    pub fn stops_a_session(&self) -> bool {
        self.acts.iter().any(|act| match act {
            Act::Session { steps } => steps.iter().any(|step| step.held.is_some()),
            _ => false,
        })
    }

    /// How it is told in a few words.
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

/// When the power is lost, on which file systems, and what is missing then.
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

/// What happened to the operation, after its name: `killed before call 3, rename(a, b)`.
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
