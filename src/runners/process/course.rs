//! What to do when an event happens to a running job. Pure: it receives events and returns actions. It has no clock and
//! no process.

use std::time::Duration;

use nix::sys::signal::Signal;

/// How long left-over processes of a job may hold its output open after it has exited.
pub(in crate::runners) const LINGER: Duration = Duration::from_secs(1);

/// How long to wait for a process to end after a KILL. A process that sleeps in the kernel, or that now belongs to
/// another user, may never end. It must not hold its worker for ever.
pub(in crate::runners) const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runners) enum CourseEvent {
    /// The job's own process has exited. It is not reaped yet.
    Exited,
    /// Both output pipes are at their end.
    OutputEnded,
    /// The supervisor ends the job with grace.
    StopAsked,
    /// The supervisor ends the job at once.
    KillAsked,
    /// The timer of the last action has run out. The first timer is the job's timeout.
    TimeUp,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(in crate::runners) enum CourseAction {
    /// Nothing.
    Wait,
    /// Send this signal to the group, and set the timer.
    Signal(Signal, Duration),
    /// Set the timer.
    SetTimer(Duration),
    /// The job is over: kill the rest of the group, close the pipes and reap.
    Finish,
}

/// Why we ended a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runners) enum EndCause {
    /// Its timeout.
    Timeout,
    /// The supervisor stopped it.
    Stop,
}

/// A job's course from its start to its end.
///
/// ```text
///            stop, timeout               grace over              KILL_TIMEOUT over
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
    cause: Option<EndCause>,
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

    /// Why we ended the job. Only the first cause counts. A cause after the job's exit does not count.
    pub(in crate::runners) fn cause(&self) -> Option<EndCause> {
        self.cause
    }

    pub(in crate::runners) fn has_exited(&self) -> bool {
        self.stage == Stage::Exited
    }

    pub(in crate::runners) fn output_is_open(&self) -> bool {
        self.output_open
    }

    pub(in crate::runners) fn handle(&mut self, event: CourseEvent) -> CourseAction {
        match (self.stage, event) {
            (
                Stage::Exited,
                CourseEvent::OutputEnded | CourseEvent::TimeUp | CourseEvent::KillAsked,
            ) => {
                self.output_open = false;
                CourseAction::Finish
            }
            (Stage::Exited, CourseEvent::Exited | CourseEvent::StopAsked) => CourseAction::Wait,
            (_, CourseEvent::Exited) => {
                self.stage = Stage::Exited;
                if self.output_open {
                    CourseAction::SetTimer(LINGER)
                } else {
                    CourseAction::Finish
                }
            }
            (_, CourseEvent::OutputEnded) => {
                self.output_open = false;
                CourseAction::Wait
            }
            (Stage::Running, CourseEvent::TimeUp) => self.ask(EndCause::Timeout),
            (Stage::Running, CourseEvent::StopAsked) => self.ask(EndCause::Stop),
            (Stage::Asked, CourseEvent::StopAsked) => CourseAction::Wait,
            (Stage::Asked, CourseEvent::TimeUp)
            | (Stage::Running | Stage::Asked, CourseEvent::KillAsked) => {
                self.cause.get_or_insert(EndCause::Stop);
                self.stage = Stage::Killed;
                CourseAction::Signal(Signal::SIGKILL, KILL_TIMEOUT)
            }
            (Stage::Killed, CourseEvent::TimeUp) => CourseAction::Finish,
            (Stage::Killed, CourseEvent::StopAsked | CourseEvent::KillAsked) => CourseAction::Wait,
        }
    }

    fn ask(&mut self, cause: EndCause) -> CourseAction {
        self.cause = Some(cause);
        self.stage = Stage::Asked;
        CourseAction::Signal(Signal::SIGTERM, self.kill_grace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(7);
    const TERM: CourseAction = CourseAction::Signal(Signal::SIGTERM, GRACE);
    const KILL: CourseAction = CourseAction::Signal(Signal::SIGKILL, KILL_TIMEOUT);
    const LINGERS: CourseAction = CourseAction::SetTimer(LINGER);

    /// The steps that these events lead to, and the cause at the end.
    fn walk(events: &[CourseEvent]) -> (Vec<CourseAction>, Option<EndCause>) {
        let mut course = Course::new(GRACE);
        let steps = events.iter().map(|event| course.handle(*event)).collect();
        (steps, course.cause())
    }

    #[test]
    fn takes_each_job_from_its_start_to_its_end() {
        use CourseAction::{Finish, Wait};
        use CourseEvent::*;
        let table: &[(&[CourseEvent], &[CourseAction], Option<EndCause>)] = &[
            (&[Exited, OutputEnded], &[LINGERS, Finish], None),
            (&[OutputEnded, Exited], &[Wait, Finish], None),
            // A grandchild that holds a pipe gets `LINGER`, and no more time.
            (&[Exited, TimeUp], &[LINGERS, Finish], None),
            (
                &[TimeUp, Exited, OutputEnded],
                &[TERM, LINGERS, Finish],
                Some(EndCause::Timeout),
            ),
            (
                &[TimeUp, TimeUp, OutputEnded, Exited],
                &[TERM, KILL, Wait, Finish],
                Some(EndCause::Timeout),
            ),
            (
                &[StopAsked, OutputEnded, Exited],
                &[TERM, Wait, Finish],
                Some(EndCause::Stop),
            ),
            (
                &[StopAsked, TimeUp, Exited, OutputEnded],
                &[TERM, KILL, LINGERS, Finish],
                Some(EndCause::Stop),
            ),
            (
                &[KillAsked, OutputEnded, Exited],
                &[KILL, Wait, Finish],
                Some(EndCause::Stop),
            ),
            (
                &[StopAsked, KillAsked, OutputEnded, Exited],
                &[TERM, KILL, Wait, Finish],
                Some(EndCause::Stop),
            ),
            // The first cause is the one that counts.
            (
                &[TimeUp, StopAsked, KillAsked],
                &[TERM, Wait, KILL],
                Some(EndCause::Timeout),
            ),
            // A job that ended by itself was not stopped by us.
            (&[Exited, StopAsked, TimeUp], &[LINGERS, Wait, Finish], None),
            (&[Exited, KillAsked], &[LINGERS, Finish], None),
            // A process that does not end even after a KILL is abandoned.
            (&[KillAsked, TimeUp], &[KILL, Finish], Some(EndCause::Stop)),
        ];
        for (events, steps, cause) in table {
            assert_eq!(walk(events), (steps.to_vec(), *cause), "{events:?}");
        }
    }
}
