//! Dry runs on recordings: where the recording comes from, and what a run may cost.
//!
//! A simulation needs a whole core. So one runs at a time, for at most [`LONGEST`], on a thread of its own with a low
//! priority: jobs and pools go first. It ends when nobody waits for it any more.

use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tidegate::{api::v1::TrialOnRecording, run::chain};
use tokio::sync::{Semaphore, oneshot};
use tracing::debug;

use super::trial::{NoTrial, Trial};
use crate::recordings::{last_day, measured_before};

/// Longest time that a simulation may take.
const LONGEST: Duration = Duration::from_secs(30);

/// The dry runs of this daemon. Clones share the limit.
#[derive(Debug, Clone)]
pub struct Trials {
    state_dir: PathBuf,
    one: Arc<Semaphore>,
}

impl Trials {
    /// Dry runs on the recordings in this directory.
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            one: Arc::new(Semaphore::new(1)),
        }
    }

    /// Runs a trial on the pool's last day. The error says in a sentence why nothing was simulated.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the simulation ends soon after this future is dropped.
    pub(crate) async fn run(&self, trial: Trial) -> Result<TrialOnRecording, String> {
        let Ok(permit) = self.one.clone().try_acquire_owned() else {
            return Err("another dry run is simulated at this moment: try again".to_owned());
        };
        let (answer, result) = oneshot::channel();
        let state_dir = self.state_dir.clone();
        let simulate = move || {
            let mut answer = answer;
            yield_to_others();
            let result = simulate(&state_dir, trial, &mut answer);
            // Before the answer, so that who has it may ask again.
            drop(permit);
            // The caller may have left.
            let _ = answer.send(result);
        };
        let started = thread::Builder::new()
            .name("dry-run".to_owned())
            .spawn(simulate);
        if let Err(error) = started {
            return Err(format!("no thread could be started: {}", chain(&error)));
        }
        result
            .await
            .unwrap_or_else(|_| Err("the simulation failed".to_owned()))
    }
}

fn simulate(
    state_dir: &std::path::Path,
    mut trial: Trial,
    answer: &mut oneshot::Sender<Result<TrialOnRecording, String>>,
) -> Result<TrialOnRecording, String> {
    let pool = trial.settings.name.clone();
    let pool = &pool;
    trial.timings_before = measured_before(state_dir, pool);
    let day = last_day(state_dir, pool, Timestamp::now()).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let mut goes_on = || !answer.is_closed() && begun.elapsed() < LONGEST;
    let tried = trial.run(day, &mut goes_on);
    debug!(pool = %pool, took_ms = begun.elapsed().as_millis() as u64, "simulated a policy");
    match tried {
        Ok(Some(tried)) => Ok(tried),
        Ok(None) => Err(NoTrial::Overdue(LONGEST).to_string()),
        Err(refused) => Err(refused.to_string()),
    }
}

/// Gives this thread a low priority, as Linux has them for threads. Not the lowest: on a host whose jobs take every core it
/// would never end.
fn yield_to_others() {
    let lowered = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
    if let Err(error) = lowered {
        debug!(error = %error, "a dry run has the priority of the daemon");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tidegate::{
        config::PoolSettings,
        decide::{Policy, Timings},
    };

    use super::{super::trial::JobAssumptions, *};

    /// A recording with so many messages each 10 s of the last hour.
    fn state_dir(arrivals: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("recordings")).unwrap();
        let begin = Timestamp::now().as_second() - 3600;
        let rows: String = (0..360)
            .map(|line| Timestamp::from_second(begin + 10 * line).unwrap())
            .map(|at| format!("{at},{arrivals}\n"))
            .collect();
        let text = format!("time,arrivals\n{rows}");
        fs::write(folder.path().join("recordings/jobs.csv"), text).unwrap();
        folder
    }

    fn trial() -> Trial {
        let mut settings = PoolSettings::new("jobs");
        settings.policy = Policy::backlog(10).max(20);
        Trial {
            settings: settings.into(),
            before: None,
            after: None,
            timings: Timings::default(),
            timings_before: None,
            max_workers: None,
            given: JobAssumptions::default(),
        }
    }

    #[tokio::test]
    async fn one_is_simulated_at_a_time_and_the_next_may_follow() {
        let folder = state_dir(3);
        let trials = Trials::new(folder.path().to_owned());
        let shared = trials.clone();
        let (one, other) = tokio::join!(trials.run(trial()), shared.run(trial()));
        let tried = one.unwrap();
        assert_eq!(tried.jobs, 1080);
        assert_eq!(tried.before, tried.after, "the same policy");
        assert!(other.unwrap_err().contains("another dry run"));
        trials.run(trial()).await.unwrap();
    }

    #[tokio::test]
    async fn a_simulation_ends_when_nobody_waits_for_it() {
        let folder = state_dir(10_000);
        let trials = Trials::new(folder.path().to_owned());
        let waiting = tokio::time::timeout(Duration::from_millis(100), trials.run(trial()));
        assert!(waiting.await.is_err(), "it is simulated in no time");
        // It has the permit until its thread ends.
        let ended = trials.one.acquire();
        let ended = tokio::time::timeout(Duration::from_secs(10), ended);
        assert!(ended.await.is_ok());
    }

    #[tokio::test]
    async fn a_pool_without_a_recording_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let trials = Trials::new(folder.path().to_owned());
        let why = trials.run(trial()).await.unwrap_err();
        assert!(why.contains("nothing is recorded"), "{why}");
    }
}
