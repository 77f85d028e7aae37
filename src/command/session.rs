//! Runs a session: overlapping, cancellable requests of one process, one JSON object a line, answered in any order.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::command::form::{Added, Believing, Forms, Other, open};
use crate::error::Error;

/// One line of the input.
#[derive(Debug, Deserialize)]
struct Request {
    seq: u64,
    op: String,
    handle: Option<String>,
    record: Option<String>,
    target: Option<u64>,
}

/// One line of the output.
#[derive(Debug, Serialize)]
struct Answer {
    seq: u64,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Answer {
    fn ok(seq: u64) -> Self {
        Self { seq, ok: true, records: None, error: None, message: None }
    }

    fn records(seq: u64, records: Vec<String>) -> Self {
        Self { records: Some(records), ..Self::ok(seq) }
    }

    fn not(seq: u64, error: &'static str, message: String) -> Self {
        Self { seq, ok: false, records: None, error: Some(error), message: Some(message) }
    }

    fn failed(seq: u64, error: &Error) -> Self {
        Self::not(seq, if error.is_busy() { "busy" } else { "failed" }, error.to_string())
    }
}

/// Cancellation state of a request.
#[derive(Default)]
struct Cancellation {
    is_asked: AtomicBool,
    /// Further action that cancels the request while it waits.
    action: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Cancellation {
    fn ask(&self) {
        self.is_asked.store(true, Ordering::SeqCst);
        let action = self.action.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(action) = action {
            action();
        }
    }

    fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }

    /// Calls `action` on cancellation; at once, if already cancelled.
    #[cfg(feature = "tokio")]
    fn then(&self, action: impl FnOnce() + Send + 'static) {
        *self.action.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(action));
        if self.is_asked() {
            self.ask();
        }
    }
}

/// An open handle.
enum Handle {
    Blocking(Believing),
    #[cfg(feature = "tokio")]
    Async(asynchronous::Handle),
}

impl Handle {
    fn open(form: Forms, data: &Path) -> Result<Self, Error> {
        #[cfg(feature = "tokio")]
        if form == Forms::Context {
            return asynchronous::Handle::open(data).map(Self::Async);
        }
        Ok(Self::Blocking(Believing::new(open(form, data, "1", None)?)?))
    }

    fn answer(&self, request: &Request, cancellation: &Cancellation) -> Answer {
        let seq = request.seq;
        match (request.op.as_str(), &request.record) {
            ("add", Some(record)) => match self.add(record, cancellation) {
                Ok(Added::Yes) => Answer::ok(seq),
                Ok(Added::Refused(why)) => Answer::not(seq, "refused", why),
                Ok(Added::Cancelled) => Answer::not(seq, "cancelled", "it was given up".to_owned()),
                Err(failed) => Answer::failed(seq, &failed),
            },
            ("list", _) => match self.list() {
                Ok(records) => Answer::records(seq, records),
                Err(failed) => Answer::failed(seq, &failed),
            },
            ("memory", _) => Answer::records(seq, self.memory()),
            (other, _) => match self.other(other) {
                Ok(Other::Done) => Answer::ok(seq),
                Ok(Other::Refused(why)) => Answer::not(seq, "refused", why),
                Ok(Other::Unknown) => {
                    Answer::not(seq, "failed", format!("there is no operation {other:?} here"))
                }
                Err(failed) => Answer::failed(seq, &failed),
            },
        }
    }

    fn add(&self, record: &str, cancellation: &Cancellation) -> Result<Added, Error> {
        match self {
            Self::Blocking(believing) => {
                let added = believing.form.add(record, &|| !cancellation.is_asked());
                // Refresh memory from the file, whatever the result was.
                believing.look()?;
                added
            }
            #[cfg(feature = "tokio")]
            Self::Async(handle) => handle.add(record, cancellation),
        }
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        match self {
            Self::Blocking(believing) => believing.look(),
            #[cfg(feature = "tokio")]
            Self::Async(handle) => handle.list(),
        }
    }

    fn memory(&self) -> Vec<String> {
        match self {
            Self::Blocking(believing) => believing.memory(),
            #[cfg(feature = "tokio")]
            Self::Async(handle) => handle.memory(),
        }
    }

    fn other(&self, verb: &str) -> Result<Other, Error> {
        match self {
            Self::Blocking(believing) => {
                let done = believing.form.other(verb);
                believing.look()?;
                done
            }
            #[cfg(feature = "tokio")]
            Self::Async(handle) => handle.other(verb),
        }
    }
}

/// Answers requests until the input ends and every started request is finished.
pub(super) fn run(form: Forms, data: &Path) -> io::Result<()> {
    let mut handles: BTreeMap<String, Arc<Handle>> = BTreeMap::new();
    let mut cancellations: BTreeMap<u64, Arc<Cancellation>> = BTreeMap::new();
    thread::scope(|scope| {
        for line in io::stdin().lock().split(b'\n') {
            let line = line?;
            let request: Request = match serde_json::from_slice(&line) {
                Ok(request) => request,
                Err(place) => {
                    tell(&Answer::not(0, "failed", format!("no request: {place}")))?;
                    continue;
                }
            };
            let seq = request.seq;
            let name = request.handle.clone().unwrap_or_default();
            match request.op.as_str() {
                "open" => match Handle::open(form, data) {
                    Ok(handle) => {
                        handles.insert(name, Arc::new(handle));
                        tell(&Answer::ok(seq))?;
                    }
                    Err(failed) => tell(&Answer::failed(seq, &failed))?,
                },
                "close" => match handles.remove(&name) {
                    // Requests that still use it continue.
                    Some(_) => tell(&Answer::ok(seq))?,
                    None => tell(&Answer::not(seq, "failed", format!("no handle {name:?} is open")))?,
                },
                "cancel" => {
                    if let Some(cancellation) = request.target.and_then(|target| cancellations.get(&target)) {
                        cancellation.ask();
                    }
                    tell(&Answer::ok(seq))?;
                }
                _ => {
                    let Some(handle) = handles.get(&name).map(Arc::clone) else {
                        tell(&Answer::not(seq, "failed", format!("no handle {name:?} is open")))?;
                        continue;
                    };
                    let cancellation = Arc::new(Cancellation::default());
                    cancellations.insert(seq, Arc::clone(&cancellation));
                    scope.spawn(move || {
                        // If the output is closed, the answer cannot be delivered.
                        let _told = tell(&handle.answer(&request, &cancellation));
                    });
                }
            }
        }
        Ok(())
    })
}

fn tell(answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    // One call, so that answers do not interleave.
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

#[cfg(feature = "tokio")]
mod asynchronous {
    use std::path::Path;

    use tokio::runtime::{Builder, Runtime};

    use crate::command::form::{Added, Other, message, messages};
    use crate::command::session::Cancellation;
    use crate::context::AsyncContext;
    use crate::error::{Error, ErrorKind};

    /// A context for asynchronous callers: a cancelled request is a dropped future.
    pub(super) struct Handle(AsyncContext);

    fn runtime(path: &Path) -> Result<Runtime, Error> {
        Builder::new_current_thread()
            .build()
            .map_err(|why| Error::new("start a runtime for", path, ErrorKind::Io(why)))
    }

    impl Handle {
        pub(super) fn open(data: &Path) -> Result<Self, Error> {
            runtime(data)?.block_on(AsyncContext::open(data)).map(Self)
        }

        pub(super) fn add(&self, record: &str, cancellation: &Cancellation) -> Result<Added, Error> {
            let runtime = runtime(Path::new(record))?;
            let (context, line) = (self.0.clone(), message(record));
            let task = runtime.spawn(async move { context.append(line).await });
            let abort = task.abort_handle();
            cancellation.then(move || abort.abort());
            match runtime.block_on(task) {
                Ok(appended) => appended.map(|()| Added::Yes),
                Err(ended) if ended.is_cancelled() => {
                    // If it already has its turn, it continues without us: the next operation waits for it.
                    runtime.block_on(self.0.read())?;
                    Ok(Added::Cancelled)
                }
                Err(ended) => std::panic::resume_unwind(ended.into_panic()),
            }
        }

        pub(super) fn list(&self) -> Result<Vec<String>, Error> {
            let state = runtime(Path::new("."))?.block_on(self.0.read())?;
            Ok(messages(state.history))
        }

        pub(super) fn memory(&self) -> Vec<String> {
            messages(self.0.memory().history)
        }

        pub(super) fn other(&self, verb: &str) -> Result<Other, Error> {
            let runtime = runtime(Path::new("."))?;
            match verb {
                "checkpoint" => {
                    if let Err(refused) = runtime.block_on(self.0.checkpoint())? {
                        return Ok(Other::Refused(refused.to_string()));
                    }
                }
                "clear" => runtime.block_on(self.0.clear())?,
                "rotate" => runtime.block_on(self.0.rotate()).map(drop)?,
                _ => return Ok(Other::Unknown),
            }
            Ok(Other::Done)
        }
    }
}
