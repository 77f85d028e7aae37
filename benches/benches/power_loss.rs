//! Measures power-loss states derived and laid out per second, and power cuts per second on real file systems.
//!
//! Run it with `ci/speed`. The states are those of the reference store's document on a memory file system; the cuts are
//! whole cycles: mount of an image, the store's first record, an operation, the cut, the recovering mount, and the
//! store's look at what is left.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use picklock::observation::Subject;
use picklock::persist::{Log, PowerLoss, power_losses, profile};
use picklock::runner::{Confirming, ExecEnv, Stop, Variation, confirm, control, trace};
use picklock::sandbox::Sandbox;
use picklock::scenario::crash::add;
use picklock::scenario::power_loss::{From, loss, script};
use picklock::target::Target;
use picklock::volume::{Kind, Template, in_a_namespace};

const TURNS: usize = 5;
/// Duration of one side of a turn.
const TURN: Duration = Duration::from_millis(1000);

fn main() {
    let target = Target::embedded(Path::new("/"));
    let program = built_binary();
    let sandbox = Sandbox::create(None, &target.data, Some(&program), &|_| ()).expect("a sandbox");
    let stop = Stop::new().expect("a descriptor");
    let stage = ExecEnv::new(&target, &sandbox, &stop, &|| ());
    let control = control(&stage).expect("a control");
    assert_eq!(control.failure, None);
    stage.first().expect("the first record");
    let before = sandbox.tree().expect("a tree");
    let traced = trace(&stage, &add(2)).expect("a trace");
    let log = Log::record(&before, &traced.calls).expect("a log");
    let (losses, _) = power_losses(&log, profile::ALL);
    println!("| what | figure | aim | ratio |\n| --- | --- | --- | --- |");
    let derived = median(|| {
        black_box(power_losses(&log, profile::ALL));
    }) * losses.len() as f64;
    row(&format!("states of a power loss, derived ({} of one operation)", losses.len()), derived, 5000.0);
    let mut next = losses.iter().cycle();
    let laid_out = median(|| {
        let state = next.next().expect("a state");
        sandbox.lay_tree(&state.tree).expect("a sandbox");
        black_box(sandbox.look(&target, 0));
    });
    row("states of a power loss, laid out and judged without the store", laid_out, 1000.0);
    drop(stage);
    let last = losses.last().expect("a state");
    for kind in Kind::ALL {
        match cuts(kind, &target, &program, &control.subject, &log, &traced.calls, last, &stop) {
            Ok(rate) => row(&format!("power cuts, {}", kind.name()), rate, 5.0),
            Err(why) => println!("| power cuts, {} | not run: {why} | 5/s | |", kind.name()),
        }
    }
}

fn row(what: &str, rate: f64, aim: f64) {
    println!("| {what} | {rate:.0}/s | {aim:.0}/s | {:.1}× |", rate / aim);
}

/// Measures how often `what` can be done per second: the median over the turns.
fn median(mut what: impl FnMut()) -> f64 {
    let mut rates: Vec<f64> = (0..TURNS)
        .map(|_| {
            let began = Instant::now();
            let mut done = 0.0;
            while began.elapsed() < TURN {
                what();
                done += 1.0;
            }
            done / began.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[TURNS / 2]
}

#[expect(clippy::too_many_arguments, reason = "it is all that a cut takes")]
fn cuts(
    kind: Kind,
    target: &Target,
    program: &Path,
    subject: &Subject,
    log: &Log,
    calls: &[picklock::call::Call],
    last: &PowerLoss,
    stop: &Stop,
) -> Result<f64, String> {
    let place = tempfile::tempdir().expect("a folder");
    let template = Template::make(kind, std::env::temp_dir().as_path()).map_err(|why| why.to_string())?;
    let request = add(2);
    let script = script(From::First, &[(&request, loss(log, calls, last, true))]);
    let confirming = Confirming {
        target,
        multi_call: Some(program),
        subject,
        script: &script,
        stop,
        end: None,
        at: place.path(),
    };
    in_a_namespace(|| {
        let variation = Variation { carries: false, after: None };
        confirm(&confirming, &template, variation).map_err(|why| why.to_string())?;
        Ok(median(|| {
            black_box(confirm(&confirming, &template, variation).expect("a cut"));
        }))
    })
    .map_err(|why| why.to_string())?
}

fn built_binary() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("target"),
        PathBuf::from,
    );
    let path = target.join("release/picklock");
    assert!(path.exists(), "{path:?} is not built: cargo build --release");
    path
}
