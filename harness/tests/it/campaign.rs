//! Tests the CI files that run picklock on many machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stderr;

/// They bundle the schemas of workflows and of Kubernetes.
const LIBRARIES: [&str; 2] = ["check-jsonschema==0.39.0", "kubernetes-validate==1.37.0"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns a folder with the libraries.
fn library() -> PathBuf {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("campaign-schemas");
    if !library.join("done").is_file() {
        let installed = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--target"])
            .arg(&library)
            .args(LIBRARIES)
            .output()
            .unwrap();
        assert!(installed.status.success(), "{}", stderr(&installed));
        fs::write(library.join("done"), "").unwrap();
    }
    library
}

/// Returns why a file is not valid, or `None` if it is.
fn wrong(arguments: &[&str], file: &Path) -> Option<String> {
    let output = Command::new("python3")
        .env("PYTHONPATH", library())
        .arg("-m")
        .args(arguments)
        .arg(file)
        .output()
        .unwrap();
    let told = || format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    (!output.status.success()).then(told)
}

#[test]
fn the_workflow_and_the_job_are_valid_and_broken_ones_are_not() {
    let workflow = ["check_jsonschema", "--builtin-schema", "vendor.github-workflows"];
    let job = ["kubernetes_validate", "--strict"];
    let folder = tempfile::tempdir().unwrap();
    for (arguments, name, from, to) in [
        (&workflow[..], "ci/matrix.yml", "runs-on:", "runs-in:"),
        (&job[..], "ci/indexed-job.yaml", "completions: 16", "completions: many"),
    ] {
        let file = root().join(name);
        assert_eq!(wrong(arguments, &file), None, "{name}");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from));
        let broken = folder.path().join("broken.yaml");
        fs::write(&broken, text.replace(from, to)).unwrap();
        assert!(wrong(arguments, &broken).is_some(), "a broken {name} passes");
    }
}

/// `picklock` accepts their commands, and they run as many shards as they declare.
#[test]
fn the_commands_in_them_are_taken_by_the_program() {
    let workflow = fs::read_to_string(root().join("ci/matrix.yml")).unwrap();
    let job = fs::read_to_string(root().join("ci/indexed-job.yaml")).unwrap();
    assert!(workflow.contains("SHARDS: 4") && workflow.contains("index: [1, 2, 3, 4]"));
    assert_eq!(job.matches("16").count(), 2, "completions, and the N of I/N");
    let help = crate::picklock(Path::new("/"), &["check", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flags = regex::Regex::new(r"--[a-z]+").unwrap();
    let all = workflow
        .split("picklock check")
        .chain(job.split("picklock check"))
        .filter(|text| text.contains("--shard"));
    for flag in all.flat_map(|text| {
        flags.find_iter(text.split("||").next().unwrap()).map(|flag| flag.as_str().to_owned())
    }) {
        assert!(help.contains(&flag), "{flag}");
    }
}
