//! A dry run of a policy, for people: what it would do now, a table over the recording, and the picture.

use std::{fmt::Write as _, path::Path, time::Duration};

use super::{
    args::steer::DryRunArgs,
    table::{Cell, DIM, Layout, cell},
};
use crate::{
    chart,
    lab::{self, course::RunCourse, table},
    output::{self, CommandFailure, Exit},
};
use tidegate::{
    api::v1::{PolicyChange, TrialDecision, TrialNow, TrialOnRecording, TrialRun},
    escape::Escaped,
    text::{noun_for, short_duration, time},
};

/// The daemon simulates for up to 30 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(45);

/// The query of a change: empty if it is to be made.
pub(super) fn query(args: &DryRunArgs) -> String {
    if !args.dry_run {
        return String::new();
    }
    let mut query = url::form_urlencoded::Serializer::for_suffix("?".to_owned(), 1);
    query.append_pair("dry_run", "true");
    for (key, value) in [("service", &args.service), ("target", &args.target)] {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    query.finish()
}

/// What a dry run found. Empty for a change that was made.
pub(super) fn text(change: &PolicyChange) -> String {
    let mut text = String::new();
    if let Some(now) = &change.now {
        now_of(&mut text, now);
    }
    match (&change.recording, &change.no_recording) {
        (Some(tried), _) => on_recording(&mut text, tried),
        (None, Some(why)) => {
            let _ = writeln!(text, "\nnothing is simulated: {}", Escaped(why));
        }
        (None, None) => {}
    }
    text
}

fn now_of(text: &mut String, now: &TrialNow) {
    let _ = writeln!(text, "\nnow: {}", workers(now.workers));
    for (word, decision) in [("old", &now.before), ("new", &now.after)] {
        let TrialDecision {
            expected,
            terms,
            plan,
        } = decision;
        let why: Vec<&str> = terms.iter().map(|term| term.why.as_str()).collect();
        let (expected, why) = (workers(*expected), why.join("; "));
        // The reason of some policies begins with their number.
        let why = why.strip_prefix(&format!("{expected}: ")).unwrap_or(&why);
        let _ = writeln!(text, "  {word} expects {expected}: {}", Escaped(why));
        let _ = writeln!(text, "  {DIM}    plan: {}{DIM:#}", Escaped(plan));
    }
}

fn workers(workers: u32) -> String {
    let noun = noun_for(workers, "worker");
    format!("{} {noun}", table::thousands(u64::from(workers)))
}

fn on_recording(text: &mut String, tried: &TrialOnRecording) {
    let _ = writeln!(text, "\n{}\n", Escaped(&title(tried)));
    let rows: Vec<Vec<Cell>> = rows(tried)
        .into_iter()
        .map(|row| row.into_iter().map(cell).collect())
        .collect();
    let layout = Layout::new(&["", "OLD", "NEW"], |column| column == 0, &rows);
    layout.head(text);
    for row in &rows {
        layout.line(text, row);
    }
    text.push('\n');
    for line in &tried.assumed.text {
        let _ = writeln!(text, "{DIM}{}{DIM:#}", Escaped(line));
    }
}

fn title(tried: &TrialOnRecording) -> String {
    format!(
        "on the recording: {} messages in {} from {}",
        table::thousands(tried.jobs),
        table::seconds(tried.seconds),
        time(tried.from)
    )
}

fn rows(tried: &TrialOnRecording) -> Vec<[String; 3]> {
    let both = |name: &str, of: &dyn Fn(&TrialRun) -> String| {
        [name.to_owned(), of(&tried.before), of(&tried.after)]
    };
    let share = |part: f64, of: f64| table::percent(part / of.max(f64::MIN_POSITIVE));
    let mut rows = vec![
        both("jobs", &|run| table::thousands(run.jobs)),
        both("wait p50", &|run| table::seconds(run.wait_s.p50)),
        both("wait p95", &|run| table::seconds(run.wait_s.p95)),
        both("wait max", &|run| table::seconds(run.wait_s.max)),
    ];
    if let Some(target) = tried.assumed.target_s {
        let target = Duration::try_from_secs_f64(target).unwrap_or_default();
        let name = format!("over {}", short_duration(target));
        rows.push(both(&name, &|run| match run.over_target {
            Some(0) | None => "0".to_owned(),
            Some(over) => share(over as f64, run.jobs as f64),
        }));
    }
    rows.extend([
        both("worker-seconds", &|run| {
            table::thousands(run.worker_seconds.round() as u64)
        }),
        both("busy", &|run| share(run.busy_seconds, run.worker_seconds)),
        both("starts", &|run| table::thousands(run.starts)),
        both("stops", &|run| table::thousands(run.stops)),
        both("peak", &|run| table::thousands(run.peak)),
    ]);
    // Said only where it happens.
    type NumberOfRun = fn(&TrialRun) -> u64;
    let rare: [(&str, NumberOfRun); 4] = [
        ("retried", |run| run.retried),
        ("dead", |run| run.dead),
        ("interrupted", |run| run.interrupted),
        ("never done", |run| run.left),
    ];
    for (name, count) in rare {
        if count(&tried.before) + count(&tried.after) > 0 {
            rows.push(both(name, &|run| table::thousands(count(run))));
        }
    }
    rows
}

/// Draws both policies on the recording.
pub(super) fn plot(file: &Path, change: &PolicyChange) -> Result<(), CommandFailure> {
    let Some(tried) = &change.recording else {
        output::tell(
            format!("{} is not drawn: nothing was simulated\n", file.display()).as_bytes(),
        );
        return Ok(());
    };
    let course = |name: &str, run: &TrialRun| RunCourse {
        name: name.to_owned(),
        curve: run.curve.clone(),
    };
    let courses = [course("old", &tried.before), course("new", &tried.after)];
    let title = format!("{} {}", change.policy.name, title(tried));
    let picture = lab::chart::chart(&title, &courses, tried.assumed.target_s);
    chart::draw(file, &picture).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("draw {}", file.display()));
        CommandFailure::new(Exit::Unexpected, error)
    })?;
    output::tell_of_plot(file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change() -> PolicyChange {
        let run = |p95: f64, over: u64, peak: u64| {
            json!({
                "jobs": 21766, "wait_s": {"mean": 1.0, "p50": 0.8, "p95": p95, "p99": 20.0, "max": 61.5},
                "over_target": over, "worker_seconds": 63398.4, "busy_seconds": 43700.0, "starts": 3667,
                "stops": 3667, "peak": peak, "dead": 0, "left": 0, "retried": 12, "interrupted": 0,
                "seconds": 86400.0,
                "curve": {"at": [1.0, 2.0], "arrivals": [5.0, 0.0], "ready": [5, 0], "workers": [1, 2],
                          "wait": [0.5, null]}
            })
        };
        let decision = |expected: u32| {
            json!({"expected": expected, "plan": "start 3 workers", "terms": [
                {"name": "policy", "workers": 63, "why": "126 jobs of demand, one worker for each 2"},
                {"name": "max", "workers": expected, "why": "max is 50"}
            ]})
        };
        let outlook = json!({"policy": "p", "demand": 126, "workers": 13, "why": "w"});
        serde_json::from_value(json!({
            "applied": false, "changes": [], "before": outlook, "after": outlook, "warnings": [],
            "now": {"workers": 1, "before": decision(13), "after": decision(50)},
            "recording": {
                "from": "2026-11-26T00:21:00Z", "seconds": 86400.0, "jobs": 21766,
                "assumed": {"service": "exp:1s", "service_samples": 0, "start_up_s": 0.1, "start_up_samples": 0,
                            "failures": 0.0, "attempts": 0, "target_s": 30.0, "text": ["Jobs take a second."]},
                "before": run(7.7, 0, 15), "after": run(0.25, 42, 50)
            },
            "policy": {
                "name": "thumbnails", "text": "t", "keys": [], "toml": "",
                "policy": {"kind": "backlog", "jobs_per_worker": 2, "min_active": 1, "max": 50},
                "scaling": {"up_step": 100, "down_window": "10s", "down_step": 100}
            }
        }))
        .unwrap()
    }

    #[test]
    fn a_dry_run_shows_old_beside_new() {
        let text = anstream::adapter::strip_str(&text(&change())).to_string();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn without_a_recording_the_reason_is_said_and_nothing_is_drawn() {
        let mut change = change();
        change.recording = None;
        change.no_recording = Some("nothing is recorded of this pool yet".to_owned());
        let text = anstream::adapter::strip_str(&text(&change)).to_string();
        assert!(text.contains("old expects 13 workers"), "{text}");
        assert!(
            text.ends_with("nothing is simulated: nothing is recorded of this pool yet\n"),
            "{text}"
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lab.svg");
        plot(&file, &change).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn both_policies_are_drawn_into_one_picture() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lab.svg");
        plot(&file, &change()).unwrap();
        let picture = std::fs::read_to_string(file).unwrap();
        for text in ["thumbnails", "old", "new", "target", "Workers"] {
            assert!(picture.contains(text), "{text}");
        }
    }

    #[test]
    fn a_change_that_is_made_has_no_query() {
        let mut args = DryRunArgs::default();
        assert_eq!(query(&args), "");
        args.dry_run = true;
        args.service = Some("lognormal:2s,4s".to_owned());
        assert_eq!(query(&args), "?dry_run=true&service=lognormal%3A2s%2C4s");
    }
}
