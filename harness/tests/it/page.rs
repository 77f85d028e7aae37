//! Tests the HTML page in a browser.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::programs::python_script;
use crate::{expect_status, interruptible, picklock, stderr, stdout};

/// A store that rewrites in place; the page must not treat the name of its lock file or its messages as markup.
const HOSTILE: &str = "import fcntl, json, os, sys\n\
    verb, path = sys.argv[1:3]\n\
    def load():\n\
    \x20 try:\n\
    \x20   return json.load(open(path)) if os.path.exists(path) else []\n\
    \x20 except ValueError:\n\
    \x20   sys.exit('</script><script>document.title=\"owned\"</script><!-- \\u2028 <img src=x onerror=document.title=\"owned\">')\n\
    if verb == 'list':\n  print('\\n'.join(load()))\n  sys.exit()\n\
    lock = open(path + '.<img src=x onerror=document.title=\"owned\">.lock', 'a')\n\
    fcntl.flock(lock, fcntl.LOCK_EX)\n\
    records = load() + [sys.argv[3]]\n\
    with open(path, 'w') as new: json.dump(records, new)\n";

/// Records errors from the first script on.
const BEFORE: &str = "<script>\n\
    const errors = [];\n\
    addEventListener('error', (event) => errors.push(String(event.message)));\n\
    addEventListener('securitypolicyviolation', (event) => errors.push(event.violatedDirective));\n\
    </script>";

/// Presses keys as a reader does, and records the results.
const AFTER: &str = r##"<script>
const press = (key) => (document.activeElement ?? document.body)
  .dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const now = () => [...document.querySelectorAll("[aria-current]")].map((row) => row.id).join();
const panel = () => [...document.querySelectorAll(".panel:not([hidden])")].map((one) => one.textContent).join();
const search = document.getElementById("search");
const seen = { first: now() };
press("j"); press("j"); seen.down = now(); seen.panel = panel();
press("k"); seen.up = now();
press("ArrowDown"); seen.arrow = now();
press("n"); seen.next = now(); seen.open = document.getElementById("c2").open;
press("p"); seen.before = now();
press("/"); seen.searches = document.activeElement === search;
search.value = "TAKES exclusive"; search.dispatchEvent(new Event("input"));
seen.matches = document.querySelectorAll("#c1 .match").length;
press("Enter"); press("k"); seen.typed = document.activeElement === search; seen.found = now();
press("Escape"); seen.cleared = search.value === "" && document.querySelectorAll(".match").length === 0;
press("?"); seen.help = document.getElementById("help").open;
document.getElementById("help").close();
seen.images = document.images.length;
seen.errors = errors;
document.body.append(Object.assign(document.createElement("output"), { id: "seen", textContent: JSON.stringify(seen) }));
</script>"##;

/// Creates the page of a run on the hostile store.
fn made(folder: &Path) -> PathBuf {
    python_script(folder, "store", HOSTILE);
    let arguments = ["check", "--only", "crash", "--budget", "10s", "--html", "page.html", "--", "./store"];
    expect_status(&picklock(folder, &arguments).output().unwrap(), 1);
    folder.join("page.html")
}

/// Returns the page after all its scripts have run, in a browser with these additional arguments.
fn rendered(folder: &Path, page: &Path, beside: &[&str]) -> String {
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    let output = Command::new(browser.expect("a browser: apt-get install chromium"))
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"])
        .args(beside)
        .arg(format!("--user-data-dir={}", folder.join("browser").display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn in_a_browser_nothing_of_the_store_runs_and_a_reader_steps_and_searches_with_the_keyboard() {
    let folder = tempfile::tempdir().unwrap();
    let page = made(folder.path());
    let dom = rendered(folder.path(), &page, &[]);
    assert!(dom.contains("<title>Violated: ./store – picklock</title>"), "{dom:.2000}");
    assert!(dom.contains("class=\"scripted\"") && dom.contains("aria-current=\"step\""));
    assert!(dom.contains("&lt;img src=x onerror=") && !dom.contains("<img"));
    let text = fs::read_to_string(page).unwrap();
    let copy = folder.path().join("copy.html");
    fs::write(&copy, text.replacen("<title>", &format!("{BEFORE}<title>"), 1) + AFTER).unwrap();
    let dom = rendered(folder.path(), &copy, &[]);
    let (_, rest) = dom.split_once("<output id=\"seen\">").expect("the script of the test did not end");
    let seen: Value = serde_json::from_str(rest.split_once("</output>").unwrap().0).unwrap();
    for (what, value) in [
        ("first", "c1-1"),
        ("down", "c1-3"),
        ("up", "c1-2"),
        ("arrow", "c1-3"),
        ("next", "c2-1"),
        ("before", "c1-3"),
    ] {
        assert_eq!(seen[what], value, "{what}: {seen:#}");
    }
    for what in ["open", "searches", "typed", "cleared", "help"] {
        assert_eq!(seen[what], true, "{what}: {seen:#}");
    }
    assert!(seen["panel"].as_str().unwrap().starts_with("Call 3 of"), "{seen:#}");
    assert_eq!((&seen["matches"], &seen["images"]), (&1.into(), &0.into()), "{seen:#}");
    assert_eq!(seen["errors"], serde_json::json!([]));
}

#[test]
fn a_page_that_cannot_be_written_is_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let output = picklock(folder.path(), &["check", "--demo", "--html", "none/page.html"]).output().unwrap();
    expect_status(&output, 2);
    assert!(stderr(&output).contains("--html") && stderr(&output).contains("cannot be written"));
}

#[test]
fn a_store_that_holds_gets_a_page_without_counterexamples() {
    let folder = tempfile::tempdir().unwrap();
    let output = picklock(
        folder.path(),
        &["check", "--demo", "--ops", "25", "--only", "stress", "--html", "page.html"],
    )
    .output();
    let page = fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(output.is_ok() && page.contains("no-lost-update") && !page.contains("id=\"counterexamples\""));
}

#[test]
fn a_run_that_is_interrupted_leaves_the_page_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let arguments =
        ["check", "--demo", "--exhaustive", "--ops", "100000", "--only", "stress", "--html", "page.html"];
    let run = interruptible(folder.path(), &arguments).stdout(Stdio::null()).spawn().unwrap();
    // The page is opened before anything runs.
    while !page.exists() {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    expect_status(&run.wait_with_output().unwrap(), 130);
    assert!(fs::read_to_string(page).unwrap().contains("interrupted, this is the report so far"));
}

/// It bundles axe-core 4.12.1, which is under the MPL 2.0; nothing else of it is used.
const AXE: &str = "axe-playwright-python==0.1.8";

/// Audits the page as it is, with all its counterexamples open, during a search, and with its help; one result per rule
/// and state.
const AUDIT: &str = r##"<script>
(async () => {
  const found = new Set();
  let passed = 0;
  const audit = async (state) => {
    // What is opened tells so later, and is drawn after that.
    await new Promise((done) => setTimeout(done, 100));
    const { violations, passes } = await axe.run();
    passed += passes.length;
    for (const { id, nodes } of violations) found.add(`${id} (${state}): ${nodes[0].target} ${nodes[0].failureSummary}`);
  };
  const search = document.getElementById("search");
  await audit("as it is");
  for (const example of document.querySelectorAll(".example")) example.open = true;
  if (search) {
    await audit("open");
    search.value = "write"; search.dispatchEvent(new Event("input"));
    await audit("searched");
    search.value = ""; search.dispatchEvent(new Event("input"));
  }
  const help = document.getElementById("help");
  if (help) {
    help.showModal();
    await audit("help");
  }
  return { passed, found: [...found], dark: matchMedia("(prefers-color-scheme: dark)").matches, width: innerWidth };
})().catch((error) => ({ error: String(error) })).then((told) => {
  document.body.append(Object.assign(document.createElement("output"), { id: "audit", textContent: JSON.stringify(told) }));
});
</script>"##;

/// Returns axe-core's script, as published in the package index.
fn axe() -> String {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe-playwright-python-0.1.8");
    let script = library.join("axe_playwright_python/axe.min.js");
    if !script.is_file() {
        let installed = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&library)
            .arg(AXE)
            .output()
            .unwrap();
        assert!(installed.status.success(), "{}", stderr(&installed));
    }
    fs::read_to_string(script).unwrap()
}

/// Returns what axe-core finds on a page, in a window of this size, in the light or dark scheme: each rule with its
/// first place.
fn audited(folder: &Path, page: &str, (width, height): (u32, u32), is_dark: bool) -> Vec<String> {
    let copy = folder.join("audit.html");
    fs::write(&copy, format!("{page}<script>{}</script>{AUDIT}", axe())).unwrap();
    let window = format!("--window-size={width},{height}");
    let paper = format!("--blink-settings=preferredColorScheme={}", u8::from(!is_dark));
    let dom = rendered(folder, &copy, &[&window, &paper]);
    let (_, rest) = dom.split_once("<output id=\"audit\">").expect("axe did not end");
    let told = rest.split_once("</output>").unwrap().0;
    let told =
        told.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
    let told: Value = serde_json::from_str(&told).unwrap();
    // The audit ran, and with the requested settings.
    assert!(told["passed"].as_u64().is_some_and(|passed| passed >= 15), "{told:#}");
    assert_eq!((&told["dark"], &told["width"]), (&is_dark.into(), &width.into()), "{told:#}");
    told["found"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

#[test]
fn axe_finds_no_barrier_on_a_page_and_finds_those_that_are_put_there() {
    // Low, so that the panel overflows; narrow, so that the story overflows: no window is narrower.
    const LOW: (u32, u32) = (1400, 420);
    const NARROW: (u32, u32) = (500, 800);
    let folder = tempfile::tempdir().unwrap();
    let page = fs::read_to_string(made(folder.path())).unwrap();
    for (window, is_dark) in [(LOW, true), (NARROW, false)] {
        let found = audited(folder.path(), &page, window, is_dark);
        assert!(found.is_empty(), "{window:?}, dark: {is_dark}: {found:#?}");
    }
    let holds = ["check", "--demo", "--ops", "25", "--only", "stress", "--html", "holds.html"];
    assert!(picklock(folder.path(), &holds).output().is_ok());
    let holds = fs::read_to_string(folder.path().join("holds.html")).unwrap();
    assert_eq!(audited(folder.path(), &holds, LOW, true), [""; 0]);
    // One barrier each: the rule that finds it, the text to remove, and its replacement.
    let barriers = [
        ("button-name", "<button>Close</button>", "<button></button>"),
        ("color-contrast", "--soft: #68645c", "--soft: #b8b4ac"),
        ("html-has-lang", "<html lang=\"en\">", "<html>"),
        ("label", "<label for=\"search\">", "<label>"),
        ("scrollable-region-focusable", " tabindex=\"0\"", ""),
    ];
    let broken = barriers.iter().fold(page, |page, (_, text, instead)| {
        assert!(page.contains(text), "{text}");
        page.replace(text, instead)
    });
    let found = audited(folder.path(), &broken, NARROW, false);
    let rules: BTreeSet<&str> = found.iter().filter_map(|one| Some(one.split_once(' ')?.0)).collect();
    assert_eq!(Vec::from_iter(rules), barriers.map(|(rule, ..)| rule), "{found:#?}");
}

/// A benchmark's page has plots and a table; the store's name is whatever its adapter gives.
#[test]
fn the_page_of_a_benchmark_has_no_barrier_and_nothing_of_a_name_runs() {
    const NAME: &str = "</title><img src=x onerror=alert(1)><script>document.title = 1</script>";
    let folder = tempfile::tempdir().unwrap();
    let adapter = format!(
        "name = '{NAME}'\n[ops]\nadd = [\"{{critical}}\", \"add\", \"{{data}}\", \"{{id}}\"]\n\
         list = [\"{{critical}}\", \"list\", \"{{data}}\"]\n"
    );
    fs::write(folder.path().join("a.toml"), adapter).unwrap();
    let short = [
        "bench",
        "--clients",
        "1",
        "--runs",
        "1",
        "--time",
        "60ms",
        "--html",
        "b.html",
        "--adapter",
        "a.toml",
    ];
    expect_status(&picklock(folder.path(), &short).output().unwrap(), 0);
    let page = fs::read_to_string(folder.path().join("b.html")).unwrap();
    assert!(
        page.matches("<svg role=\"img\"").count() == 3 && !page.contains("<img") && !page.contains("<script")
    );
    // The page has no script of its own and allows none, but the audit is one.
    let open = page.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';");
    assert_ne!(open, page);
    for (window, is_dark) in [((1400, 420), true), ((500, 800), false)] {
        let found = audited(folder.path(), &open, window, is_dark);
        assert!(found.is_empty(), "{window:?}: {found:#?}");
    }
    let broken = open.replace("<html lang=\"en\">", "<html>").replace(" tabindex=\"0\"", "");
    let found = audited(folder.path(), &broken, (500, 800), false);
    assert!(found.iter().any(|one| one.starts_with("html-has-lang")), "{found:#?}");
}
