//! What happened to every message of a run, and the checks at the end of the run.

use std::{
    fmt::Write as _,
    sync::{Mutex, MutexGuard},
};

use tidegate::queue::Message;
use tokio::time::Instant;

use super::plan::{Act, Ending, Plan, PlannedEvent, key_of};

/// How a run of a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Own(Act),
    /// Its handler was dropped.
    Interrupted,
}

#[derive(Debug)]
struct Run {
    attempt: u32,
    end: Option<End>,
}

#[derive(Debug)]
struct State {
    /// By job.
    runs: Vec<Vec<Run>>,
    /// The most jobs of one key that ran at the same time.
    most_of_a_key: usize,
    events: String,
}

/// Everything that happened. Written by jobs and by the run.
#[derive(Debug)]
pub(crate) struct Ledger {
    epoch: Instant,
    state: Mutex<State>,
}

/// A run that has not ended. If it is dropped without an end, it was interrupted.
pub(crate) struct Running<'l> {
    ledger: &'l Ledger,
    job: usize,
    run: usize,
    end: End,
}

impl Running<'_> {
    pub(crate) fn end(mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.ledger.state().runs[self.job][self.run].end = Some(self.end);
        self.ledger
            .note(&format!("job {} ends: {:?}", self.job, self.end));
    }
}

impl Ledger {
    pub(crate) fn new(jobs: usize) -> Self {
        Self {
            epoch: Instant::now(),
            state: Mutex::new(State {
                runs: (0..jobs).map(|_| Vec::new()).collect(),
                most_of_a_key: 0,
                events: String::new(),
            }),
        }
    }

    pub(crate) fn begin(&self, job: usize, attempt: u32) -> Running<'_> {
        self.note(&format!("job {job} begins, attempt {attempt}"));
        let mut state = self.state();
        state.runs[job].push(Run { attempt, end: None });
        if let Some(key) = key_of(job) {
            let of_key = (0..state.runs.len()).filter(|other| key_of(*other) == Some(key));
            let runs = of_key.flat_map(|other| &state.runs[other]);
            let running = runs.filter(|run| run.end.is_none()).count();
            state.most_of_a_key = running.max(state.most_of_a_key);
        }
        Running {
            ledger: self,
            job,
            run: state.runs[job].len() - 1,
            end: End::Interrupted,
        }
    }

    pub(crate) fn note(&self, what: &str) {
        let at = self.epoch.elapsed();
        writeln!(self.state().events, "{:>9.3} {what}", at.as_secs_f64()).unwrap();
    }

    pub(crate) fn events(&self) -> String {
        self.state().events.clone()
    }

    /// Checks the end of a run: `dead` is what is in the dead-letter queue.
    pub(crate) fn check(&self, plan: &Plan, dead: &[Message]) -> Result<(), String> {
        let mut letters = vec![0; plan.jobs.len()];
        for message in dead {
            letters[number(message)?] += 1;
        }
        let state = self.state();
        let mut wrong = String::new();
        for (job, runs) in state.runs.iter().enumerate() {
            if let Err(why) = check_job(plan, job, runs, letters[job]) {
                writeln!(wrong, "job {job} {why}: {runs:?}, {} dead", letters[job]).unwrap();
            }
        }
        let per_key = plan.settings.key.as_ref().map(|key| key.per_key as usize);
        let most = state.most_of_a_key;
        if per_key.is_some_and(|per_key| most > per_key) && !may_overlap(plan) {
            writeln!(wrong, "{most} jobs of one key ran at the same time").unwrap();
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn number(message: &Message) -> Result<usize, String> {
    let body = std::str::from_utf8(&message.body).map_err(|error| error.to_string())?;
    body.parse().map_err(|_| format!("a message says {body:?}"))
}

fn check_job(plan: &Plan, job: usize, runs: &[Run], dead: u32) -> Result<(), String> {
    let is_done = runs.iter().any(|run| run.end == Some(End::Own(Act::Done)));
    if !is_done && dead == 0 {
        return Err("is lost".to_owned());
    }
    if runs.iter().any(|run| run.end.is_none()) {
        return Err("is still running".to_owned());
    }
    if !plan.events.iter().any(|(_, what)| loses_answers(what)) && dead > 1 {
        return Err("is dead more than once".to_owned());
    }
    let is_interrupted = runs.iter().any(|run| run.end == Some(End::Interrupted));
    if is_interrupted && !may_interrupt(plan) {
        return Err("is interrupted".to_owned());
    }
    if !may_repeat(plan) {
        let attempts: Vec<_> = runs.iter().map(|run| run.attempt).collect();
        let expected = expected(plan, job);
        if attempts != (1..=expected.attempts).collect::<Vec<_>>() {
            return Err(format!("does not have {} attempts", expected.attempts));
        }
        if is_done == expected.is_dead || dead != u32::from(expected.is_dead) {
            return Err("has another end than planned".to_owned());
        }
    }
    Ok(())
}

/// The end of a job that nothing disturbs.
struct Expected {
    attempts: u32,
    is_dead: bool,
}

fn expected(plan: &Plan, job: usize) -> Expected {
    let acts = &plan.jobs[job].acts;
    let most = plan.settings.retry.max_attempts;
    for attempt in 1..=most {
        let (_, act) = acts[(attempt as usize - 1).min(acts.len() - 1)];
        if matches!(act, Act::Done | Act::Reject) {
            return Expected {
                attempts: attempt,
                is_dead: act == Act::Reject,
            };
        }
    }
    Expected {
        attempts: most,
        is_dead: true,
    }
}

/// Whether there may be two copies of a message.
fn loses_answers(what: &PlannedEvent) -> bool {
    matches!(
        what,
        PlannedEvent::LoseAnswers(_)
            | PlannedEvent::Disconnect(_)
            | PlannedEvent::HoldConfirms(_)
            | PlannedEvent::RefuseCopies(..)
            | PlannedEvent::Restart(_)
    )
}

/// Whether jobs of one key may run at the same time, beyond what the pool allows.
fn may_overlap(plan: &Plan) -> bool {
    plan.events.iter().any(|(_, what)| match what {
        // The configuration may be without keys.
        PlannedEvent::Reconfigure(_)
        // A message that must be copied before it runs, and cannot be, runs without a key.
        | PlannedEvent::RefuseCopies(..)
        | PlannedEvent::RefuseNewQueues(_)
        // The next supervisor does not wait for the end of this one's jobs.
        | PlannedEvent::Restart(Ending::Drop) => true,
        _ => false,
    })
}

/// Whether a job may be stopped before its end.
fn may_interrupt(plan: &Plan) -> bool {
    let may = |what: &PlannedEvent| match what {
        PlannedEvent::Flush { busy } => *busy,
        PlannedEvent::StopJobs
        | PlannedEvent::Restart(Ending::StopNow | Ending::Drop | Ending::Drain(_)) => true,
        PlannedEvent::Reconfigure(settings) => settings.preempt || has_short_deadline(settings),
        _ => false,
    };
    plan.settings.preempt
        || has_short_deadline(&plan.settings)
        || hangs(plan)
        || plan.events.iter().any(|(_, what)| may(what))
}

/// Whether a job may run more often than its attempts, or a new configuration changes the number of attempts.
fn may_repeat(plan: &Plan) -> bool {
    let may = |what: &PlannedEvent| match what {
        PlannedEvent::Disconnect(_)
        | PlannedEvent::HoldConfirms(_)
        | PlannedEvent::RefuseCopies(..)
        | PlannedEvent::RefuseNewQueues(_)
        | PlannedEvent::LoseAnswers(_)
        | PlannedEvent::OtherConsumer(_)
        | PlannedEvent::StopJobs
        | PlannedEvent::Reconfigure(_)
        | PlannedEvent::Restart(_) => true,
        PlannedEvent::Flush { busy } => *busy,
        _ => false,
    };
    plan.settings.preempt
        || has_short_deadline(&plan.settings)
        || plan.events.iter().any(|(_, what)| may(what))
}

fn has_short_deadline(settings: &tidegate::config::PoolSettings) -> bool {
    settings.ack_deadline.as_secs() < 60
}

/// A handler that hangs is dropped at its timeout.
fn hangs(plan: &Plan) -> bool {
    plan.jobs
        .iter()
        .any(|job| job.acts.iter().any(|(_, act)| *act == Act::Hang))
}
