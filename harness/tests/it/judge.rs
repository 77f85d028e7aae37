//! Tests `picklock judge` on recorded histories.

use std::fs;
use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::{expect_status, picklock, stderr, stdout};

/// Two clients of a key-value store: the second put never returned, and a client saw it.
const GOOD: &str = r#"{"client":1,"op":"put","key":"k","value":"v","invoke":12,"return":19}
{"client":2,"op":"put","key":"k","value":"w","invoke":13,"return":null}
{"client":1,"op":"get","key":"k","result":"w","invoke":20,"return":25}
"#;

/// The write of 2 had returned before any client read, and 1 was read.
const STALE_READ: &str = "\
INFO  jepsen.util - 0\t:invoke\t:write\t1
INFO  jepsen.util - 0\t:ok\t:write\t1
INFO  jepsen.util - 1\t:invoke\t:write\t2
INFO  jepsen.util - 2\t:invoke\t:read\tnil
INFO  jepsen.util - 2\t:ok\t:read\t1
INFO  jepsen.util - 1\t:ok\t:write\t2
INFO  jepsen.util - 2\t:invoke\t:read\tnil
INFO  jepsen.util - 2\t:ok\t:read\t1
";

/// The same, except for an exchange that never returned and that a later read shows.
const EXCHANGED: &str = "\
{:process 0, :type :invoke, :f :write, :value 1, :index 0, :time 10}
{:process 0, :type :ok, :f :write, :value 1, :index 1, :time 20}
{:process 1, :type :invoke, :f :cas, :value [1 2], :index 2, :time 30}
{:process 2, :type :invoke, :f :read, :value nil, :index 3, :time 40}
{:process 2, :type :ok, :f :read, :value 1, :index 4, :time 50}
{:process 1, :type :info, :f :cas, :value [1 2], :error :timeout, :index 5, :time 60}
{:process 0, :type :invoke, :f :cas, :value [7 8], :index 6, :time 70}
{:process 0, :type :fail, :f :cas, :value [7 8], :index 7, :time 80}
{:process 2, :type :invoke, :f :read, :value nil, :index 8, :time 90}
{:process 2, :type :ok, :f :read, :value 2, :index 9, :time 100}
";

/// Runs `picklock judge` on this text.
fn judged(text: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("h"), text).unwrap();
    picklock(folder.path(), &["judge", "h"]).args(arguments).output().unwrap()
}

fn as_json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

#[test]
fn a_good_history_holds() {
    let output = judged(GOOD, &[]);
    expect_status(&output, 0);
    assert_eq!(stdout(&output), "holds: linearizable, 3 operations of a kv, 1 of them indeterminate\n");
    let output = judged(GOOD, &["--format", "json"]);
    let expected = json!({
        "schema": 1, "verdict": "holds", "model": "kv", "operations": 3, "indeterminate": 1, "reason": null
    });
    assert_eq!(as_json(&output), expected);
}

#[test]
fn a_violated_history_is_explained_by_the_answer_that_fits_nowhere() {
    let output = judged(&GOOD.replace("\"result\":\"w\"", "\"result\":\"x\""), &["--format", "json"]);
    expect_status(&output, 1);
    let judgement = as_json(&output);
    assert_eq!(judgement["verdict"], "violated");
    let reason = judgement["reason"].as_str().unwrap();
    for says in [
        "`get \"k\" → \"x\"` of client 1 (20..25, line 3) fits nowhere",
        "`put \"k\" \"w\"` of client 2 (13..?",
    ] {
        assert!(reason.contains(says), "{reason}");
    }
}

#[test]
fn logs_of_jepsen_are_judged_as_a_register() {
    let output = judged(EXCHANGED, &["--format", "json"]);
    expect_status(&output, 0);
    assert_eq!(
        (&as_json(&output)["model"], &as_json(&output)["operations"]),
        (&json!("register"), &json!(4))
    );
    let output = judged(STALE_READ, &[]);
    expect_status(&output, 1);
    assert!(
        stdout(&output).contains("`read → 1` of client 2 (7..8, line 7) fits nowhere"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_set_is_judged_by_its_limit_where_it_has_one() {
    let refused = r#"{"client":1,"op":"add","value":"a","result":"ok","invoke":1,"return":2}
{"client":2,"op":"add","value":"b","result":"refused","invoke":3,"return":4}
{"client":1,"op":"list","result":["a"],"invoke":5,"return":6}"#;
    expect_status(&judged(refused, &[]), 0);
    expect_status(&judged(refused, &["--limit", "1"]), 0);
    let output = judged(refused, &["--model", "guarded-set", "--limit", "2"]);
    expect_status(&output, 1);
    assert!(stdout(&output).contains("`add \"b\" → refused` of client 2"), "{}", stdout(&output));
    let output = judged(&refused.replace("[\"a\"]", "[]"), &["--model", "set"]);
    expect_status(&output, 1);
    assert!(stdout(&output).contains("does not tell of \"a\", which was in before"), "{}", stdout(&output));
}

#[test]
fn standard_input_is_a_history_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = picklock(folder.path(), &["judge", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(STALE_READ.as_bytes()).unwrap();
    expect_status(&child.wait_with_output().unwrap(), 1);
}

#[test]
fn what_has_judged_nothing_is_inconclusive() {
    let output = judged("\n", &["--format", "json"]);
    expect_status(&output, 3);
    assert_eq!(as_json(&output)["verdict"], "inconclusive");
    let output = judged(GOOD, &["--steps", "2"]);
    expect_status(&output, 3);
    assert!(stdout(&output).contains("within 2 steps"), "{}", stdout(&output));
}

#[test]
fn what_is_wrong_is_named_by_file_line_and_key() {
    let put = |change: fn(&str) -> String| change(GOOD);
    for (text, arguments, says) in [
        (put(|good| good.replace("\"get\"", "\"gte\"")), &[][..], "h:3: op: a kv has no operation \"gte\""),
        (put(|good| good.replace("\"get\"", "\"gte\"")), &[], "did you mean \"get\"?"),
        (put(|good| good.replace("\"return\":25", "\"retrun\":25")), &[], "h:3: retrun: is no field"),
        (put(|good| good.replace("\"invoke\":12,", "")), &[], "h:1: invoke: is missing"),
        (put(|good| good.replace("25", "15")), &[], "h:3: return: 15 is before its invocation at 20"),
        (put(|good| good.replace("20", "15")), &[], "h:3: invoke: client 1 asks at 15"),
        (put(|good| good.replace("{\"client\":2", "\"client\":2")), &[], "h:2: is no JSON"),
        (put(str::to_owned), &["--model", "set"], "h:1: op: a set has no operation \"put\""),
        (put(str::to_owned), &["--model", "guarded-set"], "--limit: is missing"),
        (put(str::to_owned), &["--model", "kv", "--limit", "3"], "--limit: only a guarded-set has a limit"),
        (STALE_READ.replace(":read", ":raed"), &[], "h:4: :f: a register has no operation :raed"),
        (
            STALE_READ.to_owned(),
            &["--model", "kv"],
            "--model: events of Jepsen are read for a register alone",
        ),
    ] {
        let output = judged(&text, arguments);
        expect_status(&output, 2);
        assert!(stderr(&output).contains(says), "{says:?} is not said in: {}", stderr(&output));
    }
    let folder = tempfile::tempdir().unwrap();
    let output = picklock(folder.path(), &["judge", "nowhere"]).output().unwrap();
    expect_status(&output, 2);
    assert!(stderr(&output).contains("HISTORY: \"nowhere\" cannot be read"), "{}", stderr(&output));
}
