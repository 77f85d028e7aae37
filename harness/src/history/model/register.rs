//! A register: one value that can be read, written, and exchanged where it is the expected one.

use std::collections::HashSet;

use super::{Model, Pending, Value};

/// Content of a register; `None` before the first write.
pub type Content = Option<Value>;

/// A call of a register.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Reads the content; `None` if unanswered.
    Read(Option<Content>),
    /// Writes this value.
    Write(Content),
    /// Writes `new` if the content is `old`.
    Cas {
        /// Expected content.
        old: Content,
        /// New content.
        new: Content,
        /// Whether it was written, if known.
        done: Option<bool>,
    },
}

/// The model of a register.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

impl Model for Register {
    type State = Content;
    type Call = Call;
    type Key = ();

    fn key(&self, _: &Call) {}

    fn initial(&self) -> Content {
        None
    }

    fn step(&self, state: &Content, call: &Call) -> Option<Content> {
        match call {
            Call::Read(None) => Some(state.clone()),
            Call::Read(Some(found)) => (found == state).then(|| state.clone()),
            Call::Write(value) => Some(value.clone()),
            Call::Cas { old, new, done } => {
                let is_there = old == state;
                let fits = done.is_none_or(|done| done == is_there);
                fits.then(|| if is_there { new.clone() } else { state.clone() })
            }
        }
    }

    fn only_reads(&self, call: &Call) -> bool {
        matches!(call, Call::Read(_))
    }

    /// A write hides the earlier content, so it is first in a row or not in it. After it, or without one, only
    /// compare-and-swap calls follow, each expecting the current content.
    fn helpers(
        &self,
        state: &Content,
        goal: &Call,
        pending: &[Pending<'_, Call>],
        last: Option<&Call>,
    ) -> Vec<usize> {
        let mut useful = HashSet::new();
        let is_useful: Box<dyn Fn(&Content) -> bool> = match goal {
            Call::Read(Some(wanted)) | Call::Cas { old: wanted, done: Some(true), .. } => {
                useful.insert(wanted);
                // All contents from which compare-and-swap calls lead to the wanted one.
                loop {
                    let known = useful.len();
                    for one in pending {
                        if let Call::Cas { old, new, .. } = one.call
                            && useful.contains(new)
                        {
                            useful.insert(old);
                        }
                    }
                    if useful.len() == known {
                        break;
                    }
                }
                Box::new(|content| useful.contains(content))
            }
            // Any other content helps.
            Call::Cas { old, done: Some(false), .. } => Box::new(move |content| content != old),
            Call::Read(None) | Call::Write(_) | Call::Cas { done: None, .. } => return Vec::new(),
        };
        let helps = |call: &Call| match call {
            Call::Read(_) => false,
            Call::Write(value) => last.is_none() && is_useful(value),
            Call::Cas { old, new, .. } => old == state && is_useful(new),
        };
        pending.iter().enumerate().filter(|(_, one)| helps(one.call)).map(|(index, _)| index).collect()
    }

    fn describe(&self, call: &Call) -> String {
        match call {
            Call::Read(None) => "read".into(),
            Call::Read(Some(found)) => format!("read → {}", shown(found)),
            Call::Write(value) => format!("write {}", shown(value)),
            Call::Cas { old, new, done } => {
                let answer = match done {
                    Some(true) => " → ok",
                    Some(false) => " → refused",
                    None => "",
                };
                format!("cas {} {}{answer}", shown(old), shown(new))
            }
        }
    }

    fn describe_state(&self, state: &Content) -> String {
        shown(state).to_owned()
    }
}

/// Returns the text of a content: `null` for none.
pub(super) fn shown(content: &Content) -> &str {
    content.as_deref().unwrap_or("null")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Content {
        Some(text.into())
    }

    #[test]
    fn a_read_tells_what_was_written_and_an_exchange_what_it_found() {
        let written = Register.step(&None, &Call::Write(value("1"))).unwrap();
        assert_eq!(Register.step(&written, &Call::Read(Some(value("1")))), Some(value("1")));
        assert_eq!(Register.step(&written, &Call::Read(Some(None))), None);
        let cas = |old, done| Call::Cas { old: value(old), new: value("2"), done };
        assert_eq!(Register.step(&written, &cas("1", Some(true))), Some(value("2")));
        assert_eq!(Register.step(&written, &cas("1", Some(false))), None);
        assert_eq!(Register.step(&written, &cas("3", Some(false))), Some(value("1")));
        assert_eq!(Register.step(&written, &cas("3", Some(true))), None);
        assert_eq!(Register.step(&written, &cas("3", None)), Some(value("1")));
    }

    #[test]
    fn only_what_leads_to_the_goal_helps() {
        let calls = [
            Call::Write(value("1")),
            Call::Write(value("2")),
            Call::Cas { old: value("2"), new: value("3"), done: None },
            Call::Cas { old: None, new: value("1"), done: None },
        ];
        let pending: Vec<Pending<'_, Call>> = calls.iter().map(|call| Pending { call, left: 1 }).collect();
        let helpers = |state: &Content, wanted: &str, last| {
            Register.helpers(state, &Call::Read(Some(value(wanted))), &pending, last)
        };
        assert_eq!(helpers(&None, "1", None), [0, 3]);
        assert_eq!(helpers(&None, "3", None), [1]);
        assert_eq!(helpers(&value("2"), "3", Some(&calls[1])), [2]);
        assert!(helpers(&None, "4", None).is_empty());
    }
}
