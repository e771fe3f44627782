//! `tidegate simulate` and `tune`: the built program on small traces. No broker.

use std::{fs, path::Path, process::Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::daemon::{end_of, tidegate};

const POOLS: &str = r#"
[pools.quick.policy]
jobs_per_worker = 2
max = 8

[pools.quick.runner]
command = ["/no/such/program"]

[pools.slow.policy]
jobs_per_worker = 20
max = 8

[pools.slow.runner]
command = ["/no/such/program"]
"#;

fn files() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("pools.toml"), POOLS).unwrap();
    let trace = "time,arrivals\n0,120\n60,0\n300,200\n360,30\n600,0\n";
    fs::write(dir.path().join("tide.csv"), trace).unwrap();
    fs::write(dir.path().join("times.csv"), "seconds\n0.5\n1500ms\n4\n").unwrap();
    dir
}

fn run(dir: &Path, command: &str) -> Output {
    tidegate(dir)
        .args(command.split_whitespace())
        .output()
        .unwrap()
}

fn json(dir: &Path, command: &str) -> Value {
    let output = run(dir, command);
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{err}");
    serde_json::from_slice(&output.stdout).unwrap()
}

const SIMULATE: &str = "simulate --trace tide.csv --service exp:2s --format json";

#[test]
fn compares_pools_and_neighbours_on_the_same_jobs() {
    let dir = files();
    let command = format!(
        "{SIMULATE} --failures 1% --against fixed:4,keda:5,horizon,knative:2,judoscale:30s pools.toml#quick pools.toml#slow"
    );
    let found = json(dir.path(), &command);
    let runs = found["runs"].as_array().unwrap();
    let names: Vec<&str> = runs
        .iter()
        .map(|run| run["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "pools.toml#quick",
            "pools.toml#slow",
            "fixed:4",
            "keda:5",
            "horizon",
            "knative:2",
            "judoscale:30s"
        ]
    );
    for run in runs {
        assert_eq!(run["jobs"], 350, "{run}");
        for key in [
            "over_target",
            "worker_seconds",
            "busy_seconds",
            "starts",
            "stops",
            "peak",
        ] {
            assert!(run[key].is_number(), "{key} of {run}");
        }
        for key in ["mean", "p50", "p95", "p99", "max"] {
            assert!(run["wait_s"][key].is_number(), "{key} of {run}");
        }
        // The neighbours have the first pool's ceiling.
        assert!(run["peak"].as_u64().unwrap() <= 8, "{run}");
    }
    let wait = |run: usize| runs[run]["wait_s"]["mean"].as_f64().unwrap();
    assert!(
        wait(0) < wait(1),
        "fewer jobs for each worker, shorter waits"
    );
}

#[test]
fn the_same_seed_prints_the_same_bytes() {
    let dir = files();
    let command = format!("{SIMULATE} --seed 7 --against horizon pools.toml#quick");
    let first = run(dir.path(), &command);
    assert!(first.status.success() && !first.stdout.is_empty());
    assert_eq!(first.stdout, run(dir.path(), &command).stdout);
    let other = run(dir.path(), &command.replace("--seed 7", "--seed 8"));
    assert_ne!(first.stdout, other.stdout);
}

#[test]
fn writes_a_picture_and_the_decisions() {
    let dir = files();
    let command = "simulate --trace tide.csv --service times.csv --plot tide.svg --decisions why.jsonl pools.toml#quick";
    let output = run(dir.path(), command);
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("WORKER-S") && shown.contains("pools.toml#quick"),
        "{shown}"
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "wrote the plot to tide.svg\n");
    let picture = fs::read_to_string(dir.path().join("tide.svg")).unwrap();
    assert!(picture.contains("<svg") && picture.contains("Wait in seconds"));
    let lines = fs::read_to_string(dir.path().join("why.jsonl")).unwrap();
    let decisions: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(decisions.len() > 10, "{}", decisions.len());
    let grew = decisions
        .iter()
        .find(|line| line["decision"]["plan"]["spawn"] != 0)
        .unwrap();
    assert_eq!(grew["run"], "pools.toml#quick");
    assert!(grew["decision"]["terms"][0]["why"].is_string(), "{grew}");
}

#[test]
fn the_supervisor_s_workers_are_a_ceiling_and_the_output_says_so() {
    let dir = files();
    let limited = format!("supervisor.max_workers = 3\n{POOLS}");
    fs::write(dir.path().join("limited.toml"), limited).unwrap();
    let command = format!("{SIMULATE} pools.toml#quick limited.toml#quick");
    let found = json(dir.path(), &command);
    let of = |run: usize, key: &str| found["runs"][run][key].clone();
    assert_eq!((of(0, "peak"), of(1, "peak")), (8.into(), 3.into()));
    assert_eq!(
        (of(0, "max_workers"), of(1, "max_workers")),
        (Value::Null, 3.into())
    );
    let output = run(dir.path(), &command.replace("--format json", ""));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("limited.toml#quick: at most 3 workers, all of [supervisor] max_workers"),
        "{shown}"
    );
}

#[test]
fn an_invalid_input_is_refused_and_the_error_names_it_or_shows_the_valid_form() {
    let dir = files();
    for (command, code, words) in [
        (
            "simulate --trace tide.csv --service exp:2s pools.toml",
            2,
            "quick, slow",
        ),
        (
            "simulate --trace tide.csv --service exp:2s pools.toml#other",
            2,
            "quick, slow",
        ),
        (
            "simulate --trace tide.csv --service exp:soon pools.toml#quick",
            2,
            "lognormal:2s,4s",
        ),
        (
            "simulate --trace tide.csv --service none.csv pools.toml#quick",
            2,
            "none.csv",
        ),
        (
            "simulate --trace pools.toml --service exp:2s pools.toml#quick",
            2,
            "time,arrivals",
        ),
        (
            "simulate --trace tide.csv --service exp:2s --against celery pools.toml#quick",
            2,
            "keda:JOBS",
        ),
        (
            "simulate --trace tide.csv --service exp:2s none.toml",
            78,
            "none.toml",
        ),
    ] {
        let output = run(dir.path(), command);
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{command}: {err}");
        assert!(err.contains(words), "{command}: {err}");
    }
}

#[test]
fn the_example_of_the_docs_prints_what_the_docs_show() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = fs::read_to_string(root.join("docs/policies.md")).unwrap();
    let block = docs
        .split_once("```console\n$ tidegate simulate")
        .unwrap()
        .1;
    let block = block.split_once("```").unwrap().0.replace("\\\n", "");
    let (command, shown) = block.split_once('\n').unwrap();
    let dir = TempDir::new().unwrap();
    let plot = dir.path().join("day.svg");
    let output = tidegate(&root)
        .arg("simulate")
        .args(
            command
                .replace("day.svg", plot.to_str().unwrap())
                .split_whitespace(),
        )
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{err}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), shown);
    assert!(plot.exists());
}

#[test]
fn an_input_that_is_not_a_file_is_refused_at_once() {
    let dir = files();
    let traffic = [
        "--trace INPUT --service exp:2s",
        "--trace tide.csv --service INPUT",
    ];
    for (traffic, input) in traffic
        .iter()
        .flat_map(|traffic| ["/dev/zero", "/"].map(|input| (traffic, input)))
    {
        for command in ["simulate", "tune"] {
            let line = format!("{command} {traffic} pools.toml#quick").replace("INPUT", input);
            let (code, said) = end_of(tidegate(dir.path()).args(line.split_whitespace()));
            assert_eq!(code, Some(2), "{line}: {said}");
            let named = said.contains("regular file") && said.contains(input);
            assert!(named, "{line}: {said}");
        }
    }
}

#[test]
fn tunes_a_pool_and_prints_toml_that_a_pool_takes() {
    let dir = files();
    let rows: String = (0..20)
        .map(|n| format!("{},{}\n", n * 60, 40 + 20 * (n % 2)))
        .collect();
    fs::write(
        dir.path().join("even.csv"),
        format!("time,arrivals\n{rows}"),
    )
    .unwrap();
    let found = json(
        dir.path(),
        "tune --trace even.csv --service fixed:2s --format json pools.toml#quick",
    );
    assert_eq!(found["holds"], true, "{found}");
    assert!(found["margin_s"].as_f64().unwrap() > 0.0);
    let cost = |setting: &str| {
        found[setting]["checked_on"]["worker_seconds"]
            .as_f64()
            .unwrap()
    };
    assert!(cost("best") <= cost("present"), "{found}");
    let toml = found["toml"].as_str().unwrap();
    assert!(toml.contains("jobs_per_worker"), "{toml}");
    let tuned = toml
        .replace("[policy]", "[pools.tuned.policy]")
        .replace("[scaling]", "[pools.tuned.scaling]");
    let runner = "[pools.tuned.runner]\ncommand = [\"/no/such/program\"]\n";
    fs::write(dir.path().join("tuned.toml"), format!("{tuned}\n{runner}")).unwrap();
    let again = json(
        dir.path(),
        "simulate --trace even.csv --service fixed:2s --format json tuned.toml",
    );
    assert_eq!(
        again["runs"][0]["jobs"],
        found["best"]["chosen_on"]["jobs"].as_u64().unwrap()
            + found["best"]["checked_on"]["jobs"].as_u64().unwrap()
    );
}
