//! The manager of `consumer` runners: it starts processes, and gives each a number.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// What the number of a process is in an argument.
const NUMBER: &str = "{process}";

/// Starts programs that consume the queue themselves. The documentation of [`consumer`](crate::runners::consumer) describes
/// what a process receives and how it ends.
pub struct ConsumerManager {
    settings: Arc<ConsumerSettings>,
    environment: Environment,
    numbers: Arc<ProcessNumbers>,
}

impl ConsumerManager {
    /// A manager for this command. Reads the supervisor's own environment once, here.
    pub fn new(settings: ConsumerSettings) -> Self {
        Self {
            environment: Environment::new(&settings.process),
            settings: Arc::new(settings),
            numbers: Arc::default(),
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
        let process = numbered(&self.settings.process, number.0);
        let launch = Launch::new(&process, &self.environment, ProcessReuse::Yes)?;
        let variables = [
            ("TIDEGATE_POOL", request.pool.as_str().into()),
            ("TIDEGATE_PROCESS", number.0.to_string().into()),
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

/// The settings with the number in the arguments.
fn numbered(settings: &ExecSettings, number: u32) -> ExecSettings {
    let mut settings = settings.clone();
    for argument in settings.command.iter_mut().skip(1) {
        if argument.contains(NUMBER) {
            *argument = argument.replace(NUMBER, &number.to_string());
        }
    }
    settings
}

/// A process that is up.
struct ConsumerRunner {
    id: i32,
    /// `None` once its end is waited for.
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

    /// Its drop has killed what is left.
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
    fn the_number_goes_into_arguments_and_not_into_the_name_of_the_program() {
        let settings = ExecSettings::new(["run-{process}", "-n", "w{process}@%h", "{process}"]);
        let command = numbered(&settings, 7).command;
        assert_eq!(command, ["run-{process}", "-n", "w7@%h", "7"]);
    }
}
