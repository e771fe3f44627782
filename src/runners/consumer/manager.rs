//! The manager of `consumer` runners: it starts processes, and gives each a number.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;

use super::{
    ConsumerSettings,
    run::{RunningProgram, until_end},
};
use crate::{
    host::cgroup,
    runner::{
        CleanupReport, CreateRunner, Job, JobControl, JobEnd, ProgramControl, ProgramEnd,
        RunReport, Runner, RunnerManager, StartError,
    },
    runners::process::{Environment, ExecSettings, Launch, ProcessReuse},
};

/// The placeholder for the number of a process in an argument.
const NUMBER: &str = "{process}";
/// The placeholder for the [`StartId`] of its manager.
const START: &str = "{start}";

/// Starts programs that consume the queue themselves. The documentation of [`consumer`](crate::runners::consumer) describes
/// what a process receives and how it ends.
pub struct ConsumerManager {
    settings: Arc<ConsumerSettings>,
    environment: Environment,
    numbers: Arc<ProcessNumbers>,
    start: StartId,
}

impl ConsumerManager {
    /// A manager for this command. Reads the supervisor's own environment once, here.
    pub fn new(settings: ConsumerSettings) -> Self {
        Self {
            environment: Environment::new(&settings.process),
            settings: Arc::new(settings),
            numbers: Arc::default(),
            start: StartId::new(),
        }
    }
}

impl fmt::Debug for ConsumerManager {
    // The environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerManager")
            .field("command", &self.settings.process.command)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl RunnerManager for ConsumerManager {
    fn kind(&self) -> &'static str {
        "consumer"
    }

    fn consumes(&self) -> bool {
        true
    }

    async fn cleanup(&self) -> CleanupReport {
        cgroup::sweep();
        CleanupReport::default()
    }

    async fn create(&self, request: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        let number = self.numbers.take();
        let process = named(&self.settings.process, number.0, &self.start);
        let launch = Launch::new(&process, &self.environment, ProcessReuse::Yes)?;
        let variables = [
            ("TIDEGATE_POOL", request.pool.as_str().into()),
            ("TIDEGATE_PROCESS", number.0.to_string().into()),
            ("TIDEGATE_START", self.start.0.as_str().into()),
        ];
        let spawned = launch.spawn(variables).await;
        let (process, pipes) = spawned.map_err(|error| launch.error(error))?;
        Ok(Box::new(ConsumerRunner {
            id: process.id(),
            program: Some(RunningProgram::new(process, pipes, request.pool, number.0)),
            settings: self.settings.clone(),
            _number: number,
        }))
    }
}

/// The settings with the number and the id in the arguments.
fn named(settings: &ExecSettings, number: u32, start: &StartId) -> ExecSettings {
    let mut settings = settings.clone();
    for argument in settings.command.iter_mut().skip(1) {
        if argument.contains(NUMBER) {
            *argument = argument.replace(NUMBER, &number.to_string());
        }
        if argument.contains(START) {
            *argument = argument.replace(START, &start.0);
        }
    }
    settings
}

/// A short id of a manager, for the names of its programs. Each manager numbers its programs from 1. Programs of an earlier
/// manager may still finish what they hold: after a change of the runner, or in another daemon after a takeover. With the
/// id, no two programs have the same name.
#[derive(Debug)]
struct StartId(String);

impl StartId {
    /// The time in milliseconds, or the next number if there is one of this time already. Digits and small letters.
    fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let mut rest = next(last.unwrap_or_default()).unwrap_or(now);
        let mut digits = Vec::new();
        while rest > 0 {
            // Always a digit: the remainder is below the radix.
            let digit = u32::try_from(rest % 36).unwrap_or_default();
            digits.extend(char::from_digit(digit, 36));
            rest /= 36;
        }
        Self(digits.into_iter().rev().collect())
    }
}

/// A process that is up.
struct ConsumerRunner {
    id: i32,
    /// `None` after the wait for its end has begun.
    program: Option<RunningProgram>,
    settings: Arc<ConsumerSettings>,
    _number: ProcessNumber,
}

#[async_trait]
impl Runner for ConsumerRunner {
    async fn consume(&mut self, control: ProgramControl) -> ProgramEnd {
        match self.program.take() {
            Some(program) => until_end(program, &self.settings, &control).await,
            None => ProgramEnd::new("its end was waited for already"),
        }
    }

    fn program_id(&self) -> Option<i32> {
        Some(self.id)
    }

    async fn run(&mut self, _: &Job, _: JobControl) -> RunReport {
        RunReport {
            end: JobEnd::NotStarted(StartError {
                what: String::from("a program that consumes the queue itself takes no jobs"),
                source: None,
            }),
            reusable: false,
        }
    }

    /// The drop has killed the remaining processes.
    async fn stop(self: Box<Self>) {}
}

/// The numbers that processes of a pool have now.
#[derive(Debug, Default)]
struct ProcessNumbers(Mutex<BTreeSet<u32>>);

impl ProcessNumbers {
    /// The smallest free number.
    fn take(self: &Arc<Self>) -> ProcessNumber {
        let mut taken = self.lock();
        let free = (1..=u32::MAX).find(|number| !taken.contains(number));
        let number = free.expect("there are fewer processes than numbers");
        taken.insert(number);
        drop(taken);
        ProcessNumber(number, Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of one process. **On drop** it is free again.
#[derive(Debug)]
struct ProcessNumber(u32, Arc<ProcessNumbers>);

impl Drop for ProcessNumber {
    fn drop(&mut self) {
        self.1.lock().remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_gets_the_smallest_free_number() {
        let numbers = Arc::new(ProcessNumbers::default());
        let (one, two) = (numbers.take(), numbers.take());
        assert_eq!((one.0, two.0), (1, 2));
        drop(one);
        let again = numbers.take();
        assert_eq!((again.0, numbers.take().0), (1, 3));
    }

    #[test]
    fn the_number_and_the_start_take_the_places_of_their_placeholders_in_arguments() {
        let settings =
            ExecSettings::new(["run-{process}", "-n", "w{process}-{start}@%h", "{process}"]);
        let command = named(&settings, 7, &StartId("k3".to_owned())).command;
        assert_eq!(command, ["run-{process}", "-n", "w7-k3@%h", "7"]);
    }

    #[test]
    fn each_manager_has_a_start_of_its_own_so_that_its_numbers_may_begin_again() {
        let starts: BTreeSet<String> = (0..100).map(|_| StartId::new().0).collect();
        assert_eq!(starts.len(), 100);
        for start in starts {
            // It may be part of a host name or of a file's name.
            assert!(start.len() <= 9, "{start}");
            let is_plain = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase();
            assert!(start.chars().all(is_plain), "{start}");
        }
    }
}
