//! What to do when an event happens to a running job. Pure: events in, steps out; no clock, no process.

use std::time::Duration;

use nix::sys::signal::Signal;

/// How long left-over processes of a job may hold its output open after it has exited.
pub(in crate::runners) const LINGER: Duration = Duration::from_secs(1);

/// How long to wait for a process to die of a KILL. A process that sleeps in the kernel, or that now belongs to another
/// user, may never die, and must not hold its worker for ever.
pub(in crate::runners) const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runners) enum Event {
    /// The job's own process has exited. It is not reaped yet.
    Exited,
    /// Both output pipes are at their end.
    OutputEnded,
    /// The supervisor wants the job to end with grace.
    StopAsked,
    /// The supervisor wants the job to end now.
    KillAsked,
    /// The timer that the last step set (at first, the job's timeout) has run out.
    TimeUp,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(in crate::runners) enum Step {
    /// Nothing.
    Wait,
    /// Send this signal to the group, and set the timer.
    Signal(Signal, Duration),
    /// Set the timer.
    SetTimer(Duration),
    /// It is over: kill what is left of the group, close the pipes and reap.
    Finish,
}

/// Why we ended a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runners) enum Cause {
    /// Its timeout.
    Timeout,
    /// The supervisor stopped it.
    Stop,
}

/// A job's course from its start to its end.
///
/// ```text
///            stop, timeout               grace over              patience over
/// Running ------ TERM ------> Asked -------- KILL ------> Killed -------------> finish
///    |  \_______ kill: KILL ____|________________________/  |
///    |                          |                           |
///    +--------- exit -----------+---------------------------+
///                               v
///                            Exited ---- output ended, or a second later ----> finish
/// ```
#[derive(Debug)]
pub(in crate::runners) struct Course {
    stage: Stage,
    cause: Option<Cause>,
    output_open: bool,
    kill_grace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Asked,
    Killed,
    Exited,
}

impl Course {
    pub(in crate::runners) fn new(kill_grace: Duration) -> Self {
        Self {
            stage: Stage::Running,
            cause: None,
            output_open: true,
            kill_grace,
        }
    }

    /// Why we ended the job. The first cause counts, and no cause after its exit.
    pub(in crate::runners) fn cause(&self) -> Option<Cause> {
        self.cause
    }

    pub(in crate::runners) fn has_exited(&self) -> bool {
        self.stage == Stage::Exited
    }

    pub(in crate::runners) fn output_is_open(&self) -> bool {
        self.output_open
    }

    pub(in crate::runners) fn handle(&mut self, event: Event) -> Step {
        match (self.stage, event) {
            (Stage::Exited, Event::OutputEnded | Event::TimeUp | Event::KillAsked) => {
                self.output_open = false;
                Step::Finish
            }
            (Stage::Exited, Event::Exited | Event::StopAsked) => Step::Wait,
            (_, Event::Exited) => {
                self.stage = Stage::Exited;
                if self.output_open {
                    Step::SetTimer(LINGER)
                } else {
                    Step::Finish
                }
            }
            (_, Event::OutputEnded) => {
                self.output_open = false;
                Step::Wait
            }
            (Stage::Running, Event::TimeUp) => self.ask(Cause::Timeout),
            (Stage::Running, Event::StopAsked) => self.ask(Cause::Stop),
            (Stage::Asked, Event::StopAsked) => Step::Wait,
            (Stage::Asked, Event::TimeUp) | (Stage::Running | Stage::Asked, Event::KillAsked) => {
                self.cause.get_or_insert(Cause::Stop);
                self.stage = Stage::Killed;
                Step::Signal(Signal::SIGKILL, KILL_PATIENCE)
            }
            (Stage::Killed, Event::TimeUp) => Step::Finish,
            (Stage::Killed, Event::StopAsked | Event::KillAsked) => Step::Wait,
        }
    }

    fn ask(&mut self, cause: Cause) -> Step {
        self.cause = Some(cause);
        self.stage = Stage::Asked;
        Step::Signal(Signal::SIGTERM, self.kill_grace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(7);
    const TERM: Step = Step::Signal(Signal::SIGTERM, GRACE);
    const KILL: Step = Step::Signal(Signal::SIGKILL, KILL_PATIENCE);
    const LINGERS: Step = Step::SetTimer(LINGER);

    /// The steps that these events lead to, and the cause at the end.
    fn walk(events: &[Event]) -> (Vec<Step>, Option<Cause>) {
        let mut course = Course::new(GRACE);
        let steps = events.iter().map(|event| course.handle(*event)).collect();
        (steps, course.cause())
    }

    #[test]
    fn takes_each_job_from_its_start_to_its_end() {
        use Event::*;
        use Step::{Finish, Wait};
        let table: &[(&[Event], &[Step], Option<Cause>)] = &[
            (&[Exited, OutputEnded], &[LINGERS, Finish], None),
            (&[OutputEnded, Exited], &[Wait, Finish], None),
            // A grandchild that holds a pipe gets the second, and no more.
            (&[Exited, TimeUp], &[LINGERS, Finish], None),
            (
                &[TimeUp, Exited, OutputEnded],
                &[TERM, LINGERS, Finish],
                Some(Cause::Timeout),
            ),
            (
                &[TimeUp, TimeUp, OutputEnded, Exited],
                &[TERM, KILL, Wait, Finish],
                Some(Cause::Timeout),
            ),
            (
                &[StopAsked, OutputEnded, Exited],
                &[TERM, Wait, Finish],
                Some(Cause::Stop),
            ),
            (
                &[StopAsked, TimeUp, Exited, OutputEnded],
                &[TERM, KILL, LINGERS, Finish],
                Some(Cause::Stop),
            ),
            (
                &[KillAsked, OutputEnded, Exited],
                &[KILL, Wait, Finish],
                Some(Cause::Stop),
            ),
            (
                &[StopAsked, KillAsked, OutputEnded, Exited],
                &[TERM, KILL, Wait, Finish],
                Some(Cause::Stop),
            ),
            // The first cause is the one that counts.
            (
                &[TimeUp, StopAsked, KillAsked],
                &[TERM, Wait, KILL],
                Some(Cause::Timeout),
            ),
            // What ended by itself was not stopped by us.
            (&[Exited, StopAsked, TimeUp], &[LINGERS, Wait, Finish], None),
            (&[Exited, KillAsked], &[LINGERS, Finish], None),
            // One that does not even die of a KILL is let go.
            (&[KillAsked, TimeUp], &[KILL, Finish], Some(Cause::Stop)),
        ];
        for (events, steps, cause) in table {
            assert_eq!(walk(events), (steps.to_vec(), *cause), "{events:?}");
        }
    }
}
