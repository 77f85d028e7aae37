//! Keeps a conversation's context in memory and in a journal, which never differ.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk};
use crate::error::Error;
use crate::journal::{Journal, Place};

/// A conversation in a journal, and this process's copy of it in memory.
///
/// Every change goes to the file under its lock, after reading what other processes wrote; and memory is built only
/// from the contents of the file. So no change is ever in memory but not in the file, whatever fails, and an operation
/// that is cancelled half-way is in both or in neither.
///
/// These operations wait for the disk. [`AsyncContext`] (feature `tokio`) is for callers that must not.
#[derive(Debug)]
pub struct Context {
    journal: Journal<Line>,
    /// Position up to which the file was read; a change holds it from before the lock until after the write.
    read_to: Mutex<Place>,
    believed: Mutex<State>,
    /// Whether memory is updated from the file after each change.
    is_believing: bool,
}

/// One line of a context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "line", deny_unknown_fields)]
pub enum Line {
    /// A prompt that the conversation begins with; a clear keeps it.
    System {
        /// Text of the prompt.
        text: String,
    },
    /// A message of the conversation.
    Message {
        /// Role of the sender.
        role: String,
        /// Text of the message.
        text: String,
    },
    /// Current size of the context in tokens.
    Usage {
        /// Number of tokens.
        tokens: u64,
    },
    /// A position to which the context can be reverted.
    Checkpoint {
        /// Its number, from 0.
        number: u64,
    },
}

/// State of a context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The prompts, messages and checkpoints, in order.
    pub history: Vec<Line>,
    /// Number of tokens reported last.
    pub tokens: u64,
    /// Number of the next checkpoint.
    pub next_checkpoint: u64,
}

/// Reason why nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No checkpoint has this number.
    NoCheckpoint(u64),
    /// The next checkpoint number does not fit.
    TooMany,
    /// The caller cancelled the operation before anything was written.
    Cancelled,
}

impl Context {
    /// Opens the context in the file `path`, and reads its current state.
    ///
    /// # Errors
    /// As for [`Journal::open`] and [`Journal::read`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_on(disk::real(), path.as_ref())
    }

    /// Opens the context in the file `path`, but reads nothing: memory stays empty except for [`Context::read`], and a
    /// change reads what it needs, under the lock. For a program that does one operation and ends.
    ///
    /// # Errors
    /// As for [`Journal::open`].
    pub fn unread(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::unread_on(disk::real(), path.as_ref())
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, Error> {
        let context = Self { is_believing: true, ..Self::unread_on(disk, path)? };
        context.read()?;
        Ok(context)
    }

    fn unread_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, Error> {
        let journal = Journal::open_on(disk, path)?;
        Ok(Self {
            journal,
            read_to: Mutex::new(Place::default()),
            believed: Mutex::new(State::default()),
            is_believing: false,
        })
    }

    /// Returns the state in memory. Reads nothing, and does not block.
    pub fn memory(&self) -> State {
        self.believed().clone()
    }

    /// Reads the file, updates memory from it, and returns the state.
    ///
    /// # Errors
    /// As for [`Journal::read`].
    pub fn read(&self) -> Result<State, Error> {
        self.journal.refuse_nested()?;
        self.catch_up(&mut self.read_to())?;
        Ok(self.memory())
    }

    /// Appends a prompt or a message.
    ///
    /// # Errors
    /// As for [`Journal::append`].
    pub fn append(&self, line: Line) -> Result<(), Error> {
        self.append_if(line, || true).map(drop)
    }

    /// Like [`Context::append`], if `is_wanted` returns true once the lock is held; then it can no longer be cancelled.
    ///
    /// # Errors
    /// As for [`Journal::append`].
    pub fn append_if(
        &self,
        line: Line,
        is_wanted: impl FnOnce() -> bool,
    ) -> Result<Result<(), Refusal>, Error> {
        let added = self.add(|_| if is_wanted() { Ok(line) } else { Err(Refusal::Cancelled) })?;
        Ok(added.map(drop))
    }

    /// Records how many tokens the context takes.
    ///
    /// # Errors
    /// As for [`Journal::append`].
    pub fn usage(&self, tokens: u64) -> Result<(), Error> {
        self.append(Line::Usage { tokens })
    }

    /// Adds a checkpoint to revert to; returns its number.
    ///
    /// # Errors
    /// As for [`Journal::append`].
    pub fn checkpoint(&self) -> Result<Result<u64, Refusal>, Error> {
        // The number is assigned under the lock, after reading what others wrote: no two checkpoints share one.
        let added = self.add(|state| {
            let number = state.next_checkpoint;
            number.checked_add(1).ok_or(Refusal::TooMany)?;
            Ok(Line::Checkpoint { number })
        })?;
        Ok(added.map(|line| match line {
            Line::Checkpoint { number } => number,
            _ => unreachable!("it is what was added"),
        }))
    }

    /// Reverts to a checkpoint: removes it and everything after it.
    ///
    /// # Errors
    /// As for [`Journal::rewrite`].
    pub fn revert_to(&self, checkpoint: u64) -> Result<Result<(), Refusal>, Error> {
        self.rewrite(|mut lines| {
            let is_it = |line: &Line| *line == Line::Checkpoint { number: checkpoint };
            let at = lines.iter().position(is_it).ok_or(Refusal::NoCheckpoint(checkpoint))?;
            lines.truncate(at);
            Ok(lines)
        })
    }

    /// Starts over, keeping only the prompts.
    ///
    /// # Errors
    /// As for [`Journal::rewrite`].
    pub fn clear(&self) -> Result<(), Error> {
        let cleared = self.rewrite(|mut lines| {
            lines.retain(|line| matches!(line, Line::System { .. }));
            Ok(lines)
        })?;
        debug_assert_eq!(cleared, Ok(()));
        Ok(())
    }

    /// Rotates the journal; see [`Journal::rotate`].
    ///
    /// # Errors
    /// As for [`Journal::rotate`].
    pub fn rotate(&self) -> Result<bool, Error> {
        self.journal.refuse_nested()?;
        let mut read_to = self.read_to();
        let rotated = self.journal.rotate();
        self.follow(&mut read_to)?;
        rotated
    }

    fn add(
        &self,
        decide: impl FnOnce(&State) -> Result<Line, Refusal>,
    ) -> Result<Result<Line, Refusal>, Error> {
        self.journal.refuse_nested()?;
        let mut read_to = self.read_to();
        let mut caught_up = Ok(());
        let added = self.journal.append_after(|_| {
            caught_up = self.catch_up(&mut read_to);
            // A read error is reported below.
            if caught_up.is_err() { Err(Refusal::Cancelled) } else { decide(&self.memory()) }
        });
        // After an error too: only the file shows whether the line was written.
        let believes = self.follow(&mut read_to);
        let added = added?;
        caught_up?;
        believes.map(|()| added)
    }

    fn rewrite(
        &self,
        keep: impl FnOnce(Vec<Line>) -> Result<Vec<Line>, Refusal>,
    ) -> Result<Result<(), Refusal>, Error> {
        self.journal.refuse_nested()?;
        let mut read_to = self.read_to();
        let rewritten = self.journal.rewrite(keep);
        let believes = self.follow(&mut read_to);
        let rewritten = rewritten?;
        believes.map(|()| rewritten)
    }

    /// Updates memory after a change: reads what the file has, or drops what was only needed for the change.
    fn follow(&self, read_to: &mut Place) -> Result<(), Error> {
        if self.is_believing {
            return self.catch_up(read_to);
        }
        *read_to = Place::default();
        *self.believed() = State::default();
        Ok(())
    }

    /// Reads what the file has and memory does not.
    fn catch_up(&self, read_to: &mut Place) -> Result<(), Error> {
        let since = self.journal.since(read_to)?;
        let mut believed = self.believed();
        if since.is_anew {
            *believed = State::default();
        }
        for line in since.records {
            believed.take_in(line);
        }
        Ok(())
    }

    fn read_to(&self) -> MutexGuard<'_, Place> {
        self.read_to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn believed(&self) -> MutexGuard<'_, State> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_in(&mut self, line: Line) {
        match line {
            Line::Usage { tokens } => {
                self.tokens = tokens;
                return;
            }
            Line::Checkpoint { number } => self.next_checkpoint = number.saturating_add(1),
            Line::System { .. } | Line::Message { .. } => {}
        }
        self.history.push(line);
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCheckpoint(number) => write!(out, "there is no checkpoint {number}"),
            Self::TooMany => out.write_str("there are as many checkpoints as can be numbered"),
            Self::Cancelled => out.write_str("it was given up before anything was written"),
        }
    }
}

#[cfg(feature = "tokio")]
pub use with_tokio::AsyncContext;

#[cfg(feature = "tokio")]
mod with_tokio {
    use super::*;

    /// A [`Context`] for callers that must not wait for the disk.
    ///
    /// An operation that waits for others is cancelled by dropping its future, and never happens. One that has its turn
    /// runs to its end in a blocking thread, even if its future is dropped: it is then in memory and in the file, or in
    /// neither, before the next one has its turn.
    #[derive(Clone, Debug)]
    pub struct AsyncContext {
        context: Arc<Context>,
        /// Held by the running operation; the others wait in order of arrival.
        turn: Arc<tokio::sync::Mutex<()>>,
    }

    impl AsyncContext {
        /// See [`Context::open`].
        ///
        /// # Errors
        /// As there.
        ///
        /// # Panics
        /// Outside a tokio runtime, like all methods here.
        pub async fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
            let path = path.as_ref().to_owned();
            aside(move || Context::open(path))
                .await
                .map(|context| Self { context: Arc::new(context), turn: Arc::default() })
        }

        /// See [`Context::memory`].
        pub fn memory(&self) -> State {
            self.context.memory()
        }

        /// See [`Context::read`].
        ///
        /// # Errors
        /// As there.
        pub async fn read(&self) -> Result<State, Error> {
            self.with(Context::read).await
        }

        /// See [`Context::append`].
        ///
        /// # Errors
        /// As there.
        pub async fn append(&self, line: Line) -> Result<(), Error> {
            self.with(|context| context.append(line)).await
        }

        /// See [`Context::append_if`].
        ///
        /// # Errors
        /// As there.
        pub async fn append_if(
            &self,
            line: Line,
            is_wanted: impl FnOnce() -> bool + Send + 'static,
        ) -> Result<Result<(), Refusal>, Error> {
            self.with(|context| context.append_if(line, is_wanted)).await
        }

        /// See [`Context::usage`].
        ///
        /// # Errors
        /// As there.
        pub async fn usage(&self, tokens: u64) -> Result<(), Error> {
            self.with(move |context| context.usage(tokens)).await
        }

        /// See [`Context::checkpoint`].
        ///
        /// # Errors
        /// As there.
        pub async fn checkpoint(&self) -> Result<Result<u64, Refusal>, Error> {
            self.with(Context::checkpoint).await
        }

        /// See [`Context::revert_to`].
        ///
        /// # Errors
        /// As there.
        pub async fn revert_to(&self, checkpoint: u64) -> Result<Result<(), Refusal>, Error> {
            self.with(move |context| context.revert_to(checkpoint)).await
        }

        /// See [`Context::clear`].
        ///
        /// # Errors
        /// As there.
        pub async fn clear(&self) -> Result<(), Error> {
            self.with(Context::clear).await
        }

        /// See [`Context::rotate`].
        ///
        /// # Errors
        /// As there.
        pub async fn rotate(&self) -> Result<bool, Error> {
            self.with(Context::rotate).await
        }

        async fn with<R: Send + 'static>(&self, what: impl FnOnce(&Context) -> R + Send + 'static) -> R {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let context = Arc::clone(&self.context);
            aside(move || {
                let done = what(&context);
                drop(turn);
                done
            })
            .await
        }
    }

    async fn aside<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Line {
        Line::Message { role: "user".into(), text: text.into() }
    }

    fn in_a_folder() -> (tempfile::TempDir, Context, Context) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("context.jsonl");
        let (one, other) = (Context::open(&path).unwrap(), Context::open(&path).unwrap());
        (folder, one, other)
    }

    #[test]
    fn what_another_process_did_is_seen_before_anything_is_decided() {
        let (_folder, one, other) = in_a_folder();
        one.append(Line::System { text: "be kind".into() }).unwrap();
        assert_eq!(one.checkpoint().unwrap(), Ok(0));
        assert_eq!(other.checkpoint().unwrap(), Ok(1));
        other.append(message("hello")).unwrap();
        other.usage(12).unwrap();
        assert_eq!(one.checkpoint().unwrap(), Ok(2));
        assert_eq!(one.memory().tokens, 12);
        assert_eq!(one.revert_to(9).unwrap(), Err(Refusal::NoCheckpoint(9)));
        assert_eq!(one.revert_to(1).unwrap(), Ok(()));
        assert_eq!(one.memory().history.len(), 2);
        assert_eq!(other.memory().history.len(), 4, "it has not looked since");
        assert_eq!(other.read().unwrap(), one.memory());
        assert!(other.rotate().unwrap());
        assert_eq!(other.checkpoint().unwrap(), Ok(1));
        one.clear().unwrap();
        assert_eq!(one.memory(), other.read().unwrap());
        assert_eq!(
            one.memory(),
            State { history: vec![Line::System { text: "be kind".into() }], ..State::default() }
        );
    }

    #[test]
    fn what_is_given_up_in_time_is_in_neither() {
        let (_folder, one, _) = in_a_folder();
        one.append(message("a")).unwrap();
        assert_eq!(one.append_if(message("b"), || false).unwrap(), Err(Refusal::Cancelled));
        assert_eq!(one.memory(), one.read().unwrap());
        assert_eq!(one.memory().history.len(), 1);
    }
}
