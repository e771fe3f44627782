//! The alert rules, tried by Prometheus' own tool.

use std::process::Command;

use crate::needs::Need;

trials! {
    plain(Need::Program("promtool")): [
        each_alert_fires_for_its_own_condition_and_for_no_other,
        prometheus_accepts_its_configuration,
    ],
}

fn promtool(args: &[&str]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/prometheus");
    let output = Command::new("promtool")
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn each_alert_fires_for_its_own_condition_and_for_no_other() {
    promtool(&["test", "rules", "alerts_test.yml"]);
}

fn prometheus_accepts_its_configuration() {
    promtool(&["check", "config", "prometheus.yml"]);
}
