//! The files of `deploy/` for Prometheus and Grafana use only metrics that the code declares, and the image is built
//! from every crate.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every word of a text that looks like the name of a metric of tidegate.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_word(c))
        .filter(|word| word.starts_with("tidegate_"))
        .map(str::to_owned)
        .collect()
}

/// The names of the metrics that the code declares. Each is a constant with a string literal.
fn declared() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in [
        "src/run/metrics.rs",
        "crates/daemon/src/reloads.rs",
        "crates/daemon/src/telemetry/prometheus/mod.rs",
    ] {
        let text = read(source);
        let constants = text
            .lines()
            .filter(|line| line.trim_start().contains("const "));
        constants.for_each(|line| names.extend(metrics(line)));
    }
    assert!(names.contains("tidegate_workers"), "{names:?}");
    names
}

/// The metrics in a text that the code does not declare. A histogram is exported as several series.
fn unknown(text: &str) -> Vec<String> {
    let declared = declared();
    let base = |name: &String| -> String {
        let series = ["_bucket", "_sum", "_count"];
        let base = series.iter().find_map(|suffix| name.strip_suffix(suffix));
        base.filter(|base| declared.contains(*base))
            .unwrap_or(name)
            .to_owned()
    };
    let used = metrics(text);
    assert!(!used.is_empty(), "no metric is named in:\n{text}");
    used.into_iter()
        .filter(|name| !declared.contains(&base(name)))
        .collect()
}

#[test]
fn every_alert_uses_only_existing_metrics() {
    for file in ["alerts.yml", "alerts_test.yml"] {
        let text = read(&format!("deploy/prometheus/{file}"));
        assert_eq!(unknown(&text), Vec::<String>::new(), "{file}");
    }
}

/// The image builds the dependencies first, from the manifests alone. A missing manifest makes the build fail.
#[test]
fn the_image_is_built_with_the_manifest_of_every_crate() {
    let image = read("Dockerfile");
    let manifest = read("Cargo.toml");
    let members = manifest
        .lines()
        .find(|line| line.starts_with("members = ["));
    let crates: Vec<_> = members.unwrap().split('"').skip(1).step_by(2).collect();
    assert!(crates.len() > 1, "{crates:?}");
    for name in crates {
        let copy = format!("COPY {name}/Cargo.toml {name}/\n");
        assert!(image.contains(&copy), "{copy}");
    }
}

/// Nothing but `src` is there at that time. Cargo looks for the file of a target only if its manifest does not name it.
#[test]
fn the_manifests_name_the_files_of_all_targets_that_the_image_does_not_have() {
    for name in ["", "crates/core/", "crates/sim/", "crates/daemon/"] {
        let manifest: toml::Table = read(&format!("{name}Cargo.toml")).parse().unwrap();
        for kind in ["bench", "test", "example"] {
            let targets = manifest.get(kind).and_then(toml::Value::as_array);
            for target in targets.into_iter().flatten() {
                assert!(target.get("path").is_some(), "{name}Cargo.toml: {target}");
            }
        }
    }
}

#[test]
fn the_dashboard_uses_only_existing_metrics() {
    let text = read("deploy/grafana/dashboards/tidegate.json");
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let expr = target["expr"].as_str().unwrap();
            assert_eq!(unknown(expr), Vec::<String>::new(), "{title}: {expr}");
        }
        // The data source that is provisioned.
        assert_eq!(panel["datasource"]["uid"], "prometheus", "{title}");
    }
    let provisioned = read("deploy/grafana/provisioning/datasources/prometheus.yml");
    assert!(provisioned.contains("uid: prometheus\n"), "{provisioned}");
}
