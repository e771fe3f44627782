//! Ends of a warm process without an error.

use std::{collections::BTreeSet, time::Duration};

use tidegate::{
    runner::{JobControl, Retirement, RunnerManager},
    runners::{WarmSettings, warm::WarmManager},
};

use super::{create, each_job, job, run, script};
use crate::support::witness::{Witness, soon};

const DONE: &str = "answer '\"done\"'";

#[tokio::test]
async fn is_ended_by_the_end_of_its_input() {
    let mut witness = Witness::new();
    let settings = script(
        &witness,
        "echo \"$ready\"; while read -r line; do :; done; echo bye >&9",
    );
    let manager = WarmManager::new(settings.clone());
    soon(manager.delete(create(settings).await)).await;
    assert_eq!(witness.line().await, "bye");
    witness.gone().await;
}

#[tokio::test]
async fn is_killed_with_its_group_if_it_does_not_end() {
    let mut witness = Witness::new();
    let mut settings = script(
        &witness,
        "trap '' TERM HUP; sleep 1000 & echo \"$ready\"; while :; do wait; sleep 1000; done",
    );
    settings.process.kill_grace = Duration::from_millis(50);
    let manager = WarmManager::new(settings.clone());
    soon(manager.flush(vec![create(settings).await])).await;
    witness.gone().await;
}

#[tokio::test]
async fn leaves_nothing_running_when_it_is_dropped() {
    let mut witness = Witness::new();
    let settings = script(
        &witness,
        "trap '' TERM HUP; sleep 1000 & echo \"$ready\"; while :; do wait; sleep 1000; done",
    );
    drop(create(settings).await);
    witness.gone().await;
}

#[tokio::test]
async fn leaves_nothing_running_when_its_start_is_cancelled() {
    let mut witness = Witness::new();
    let settings = script(&witness, "echo started >&9; sleep 1000");
    let starting = tokio::spawn(create(settings));
    assert_eq!(witness.line().await, "started");
    starting.abort();
    witness.gone().await;
}

#[tokio::test]
async fn runs_every_job_on_the_one_process() {
    let mut witness = Witness::new();
    let mut runner = create(each_job(&witness, &format!("echo $$ >&9; {DONE}"))).await;
    run(&mut *runner, "").await;
    let first = witness.line().await;
    for _ in 0..10 {
        run(&mut *runner, "").await;
        assert_eq!(witness.line().await, first);
    }
    assert_eq!(runner.retires(), None);
}

async fn jobs_until(retirement: Retirement, limit: impl FnOnce(&mut WarmSettings)) -> u32 {
    let witness = Witness::new();
    let mut settings = each_job(&witness, DONE);
    limit(&mut settings);
    let mut runner = create(settings).await;
    for jobs in 0..20 {
        match runner.retires() {
            Some(why) => {
                assert_eq!(why, retirement);
                return jobs;
            }
            None => assert!(run(&mut *runner, "").await.reusable),
        }
    }
    panic!("it never retires");
}

#[tokio::test]
async fn retires_after_its_number_of_jobs() {
    let jobs = jobs_until(Retirement::MaxJobs, |warm| warm.max_jobs = Some(8)).await;
    assert!((6..=8).contains(&jobs), "{jobs}");
    let jobs = jobs_until(Retirement::MaxJobs, |warm| warm.max_jobs = Some(1)).await;
    assert_eq!(jobs, 1);
}

#[tokio::test]
async fn runners_that_start_together_do_not_all_retire_together() {
    let mut seen = BTreeSet::new();
    // Three numbers are possible, with equal probability.
    for _ in 0..30 {
        seen.insert(jobs_until(Retirement::MaxJobs, |warm| warm.max_jobs = Some(8)).await);
    }
    assert!(seen.len() > 1, "{seen:?}");
}

#[tokio::test]
async fn retires_when_it_uses_too_much_memory_after_a_job_or_asks_to() {
    let jobs = jobs_until(Retirement::MaxMemory, |warm| warm.max_memory = Some(4096)).await;
    assert_eq!(jobs, 1);
    let witness = Witness::new();
    let settings = each_job(&witness, "answer '\"done\",\"last\":true'");
    let mut runner = create(settings).await;
    assert!(run(&mut *runner, "").await.reusable);
    assert_eq!(runner.retires(), Some(Retirement::Asked));
}

#[tokio::test]
async fn retires_at_its_age_or_when_it_has_waited_for_too_long() {
    let moment = Some(Duration::from_nanos(1));
    assert_eq!(
        jobs_until(Retirement::MaxAge, |warm| warm.max_age = moment).await,
        0
    );
    assert_eq!(
        jobs_until(Retirement::IdleTimeout, |warm| warm.idle_timeout = moment).await,
        0
    );
    let witness = Witness::new();
    let mut settings = each_job(&witness, DONE);
    settings.max_age = Some(Duration::from_secs(3600));
    settings.idle_timeout = Some(Duration::from_secs(3600));
    assert_eq!(create(settings).await.retires(), None);
}

#[tokio::test]
async fn is_kept_after_a_job_that_was_stopped_before_it_began() {
    let witness = Witness::new();
    let mut runner = create(each_job(&witness, DONE)).await;
    let control = JobControl::default();
    control.stop.cancel();
    assert!(soon(runner.run(&job(""), control)).await.reusable);
    assert!(run(&mut *runner, "").await.reusable);
}
