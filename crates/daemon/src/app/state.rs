//! Decides what the daemon does next. Synchronous: takes an event and returns a decision. The caller carries it out.

use tidegate::run::{DrainError, DrainReport, StopReport};

use super::signals::Signal;

/// An event that the daemon must react to.
#[derive(Debug)]
pub(super) enum DaemonEvent {
    /// The process received a signal.
    Signal(Signal),
    /// A successor asks to take over.
    Takeover,
    /// A reload has ended: the configuration was applied or refused.
    Reloaded,
    /// The drain has ended.
    Drained(Result<DrainReport, DrainError>),
    /// The stop has ended.
    Stopped(StopReport),
}

/// The phase of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DaemonPhase {
    Running,
    /// A successor has taken over. The running jobs have no deadline but their own.
    Finishing,
    Draining,
    Stopping,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a decision has no effect until it is carried out"]
pub(super) enum DaemonDecision {
    /// Nothing.
    Nothing,
    /// Give everything that a successor needs away, and finish the running jobs.
    HandOver,
    /// Drain every pool within its grace.
    Drain,
    /// Stop every job and give it back.
    StopNow,
    /// Read the configuration again.
    Reload,
    /// Log the state.
    Dump,
    /// End the process.
    End(Ending),
}

/// How the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every job was finished.
    Clean,
    /// Jobs were stopped and given back.
    GivenBack(u64),
}

/// The state of the daemon, as far as its decisions need it.
#[derive(Debug)]
pub(super) struct DaemonState {
    phase: DaemonPhase,
    interrupts: u32,
    is_reloading: bool,
    /// A HUP arrived during a reload. That reload may have read the file before the HUP.
    wants_reload: bool,
}

impl DaemonState {
    pub(super) fn new() -> Self {
        Self {
            phase: DaemonPhase::Running,
            interrupts: 0,
            is_reloading: false,
            wants_reload: false,
        }
    }

    pub(super) fn handle(&mut self, event: &DaemonEvent) -> DaemonDecision {
        match event {
            DaemonEvent::Signal(signal) => self.signal(*signal),
            DaemonEvent::Takeover => match self.phase {
                DaemonPhase::Running => {
                    self.phase = DaemonPhase::Finishing;
                    DaemonDecision::HandOver
                }
                DaemonPhase::Finishing | DaemonPhase::Draining | DaemonPhase::Stopping => {
                    DaemonDecision::Nothing
                }
            },
            DaemonEvent::Reloaded => {
                self.is_reloading = false;
                match std::mem::take(&mut self.wants_reload) {
                    true => self.reload(),
                    false => DaemonDecision::Nothing,
                }
            }
            // A stop ends the drain that it replaces. Only the result of the stop counts then.
            DaemonEvent::Drained(_) if self.phase == DaemonPhase::Stopping => {
                DaemonDecision::Nothing
            }
            DaemonEvent::Drained(Ok(_)) => ended(0),
            DaemonEvent::Drained(Err(error)) => ended(error.given_back()),
            DaemonEvent::Stopped(report) => ended(report.given_back),
        }
    }

    /// The successor disconnected before it got the answer.
    pub(super) fn not_handed_over(&mut self) {
        if self.phase == DaemonPhase::Finishing {
            self.phase = DaemonPhase::Running;
        }
    }

    fn signal(&mut self, signal: Signal) -> DaemonDecision {
        match signal {
            Signal::Terminate => self.drain(),
            Signal::Interrupt => {
                self.interrupts += 1;
                match self.interrupts {
                    // Also after a TERM: a single INT does not ask to stop jobs.
                    1 => self.drain(),
                    _ => self.stop(),
                }
            }
            Signal::Quit => self.stop(),
            Signal::Hangup => self.reload(),
            Signal::Dump => DaemonDecision::Dump,
        }
    }

    fn drain(&mut self) -> DaemonDecision {
        match self.phase {
            DaemonPhase::Running | DaemonPhase::Finishing => {
                self.phase = DaemonPhase::Draining;
                DaemonDecision::Drain
            }
            DaemonPhase::Draining | DaemonPhase::Stopping => DaemonDecision::Nothing,
        }
    }

    fn stop(&mut self) -> DaemonDecision {
        match self.phase {
            DaemonPhase::Running | DaemonPhase::Finishing | DaemonPhase::Draining => {
                self.phase = DaemonPhase::Stopping;
                DaemonDecision::StopNow
            }
            DaemonPhase::Stopping => DaemonDecision::Nothing,
        }
    }

    fn reload(&mut self) -> DaemonDecision {
        match self.phase {
            DaemonPhase::Running if self.is_reloading => {
                self.wants_reload = true;
                DaemonDecision::Nothing
            }
            DaemonPhase::Running => {
                self.is_reloading = true;
                DaemonDecision::Reload
            }
            // While pools are ending, they get no new settings, and no new pools are started.
            DaemonPhase::Finishing | DaemonPhase::Draining | DaemonPhase::Stopping => {
                DaemonDecision::Nothing
            }
        }
    }
}

fn ended(given_back: u64) -> DaemonDecision {
    DaemonDecision::End(match given_back {
        0 => Ending::Clean,
        jobs => Ending::GivenBack(jobs),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: DaemonEvent = DaemonEvent::Signal(Signal::Terminate);
    const INT: DaemonEvent = DaemonEvent::Signal(Signal::Interrupt);
    const QUIT: DaemonEvent = DaemonEvent::Signal(Signal::Quit);
    const HUP: DaemonEvent = DaemonEvent::Signal(Signal::Hangup);
    const USR1: DaemonEvent = DaemonEvent::Signal(Signal::Dump);

    fn drained(given_back: u64) -> DaemonEvent {
        DaemonEvent::Drained(match given_back {
            0 => Ok(DrainReport::default()),
            given_back => Err(DrainError::DeadlinePassed { given_back }),
        })
    }

    fn stopped(given_back: u64) -> DaemonEvent {
        DaemonEvent::Stopped(StopReport { given_back })
    }

    #[test]
    fn each_event_gets_the_answer_for_the_stage_of_the_daemon() {
        use DaemonDecision::{Drain, Dump, End, HandOver, Nothing, Reload, StopNow};
        use DaemonEvent::Takeover;
        type Case = (&'static str, Vec<(DaemonEvent, DaemonDecision)>);
        let cases: Vec<Case> = vec![
            (
                "drains at the first TERM, and ends when that is done",
                vec![
                    (TERM, Drain),
                    (TERM, Nothing),
                    (drained(0), End(Ending::Clean)),
                ],
            ),
            (
                "says how many jobs a deadline gave back",
                vec![(TERM, Drain), (drained(3), End(Ending::GivenBack(3)))],
            ),
            (
                "stops at the second INT, and waits for that",
                vec![
                    (INT, Drain),
                    (INT, StopNow),
                    (INT, Nothing),
                    (drained(2), Nothing),
                    (stopped(2), End(Ending::GivenBack(2))),
                ],
            ),
            (
                "does not take an INT after a TERM for a second one",
                vec![(TERM, Drain), (INT, Nothing), (INT, StopNow)],
            ),
            (
                "stops at once at QUIT",
                vec![
                    (QUIT, StopNow),
                    (TERM, Nothing),
                    (stopped(0), End(Ending::Clean)),
                ],
            ),
            (
                "stops a drain at QUIT",
                vec![(TERM, Drain), (QUIT, StopNow)],
            ),
            (
                "reads the configuration once more if a HUP came meanwhile",
                vec![
                    (HUP, Reload),
                    (HUP, Nothing),
                    (HUP, Nothing),
                    (DaemonEvent::Reloaded, Reload),
                    (DaemonEvent::Reloaded, Nothing),
                    (HUP, Reload),
                ],
            ),
            (
                "does not read the configuration while it ends",
                vec![
                    (HUP, Reload),
                    (HUP, Nothing),
                    (TERM, Drain),
                    (DaemonEvent::Reloaded, Nothing),
                    (HUP, Nothing),
                ],
            ),
            (
                "hands over once, and ends after its last job",
                vec![
                    (Takeover, HandOver),
                    (Takeover, Nothing),
                    (HUP, Nothing),
                    (drained(0), End(Ending::Clean)),
                ],
            ),
            (
                "hands nothing over while it ends",
                vec![(TERM, Drain), (Takeover, Nothing)],
            ),
            (
                "still follows the signals after it has handed over",
                vec![
                    (Takeover, HandOver),
                    (TERM, Drain),
                    (QUIT, StopNow),
                    (stopped(1), End(Ending::GivenBack(1))),
                ],
            ),
            (
                "shows its state at any time",
                vec![
                    (USR1, Dump),
                    (TERM, Drain),
                    (USR1, Dump),
                    (QUIT, StopNow),
                    (USR1, Dump),
                ],
            ),
        ];
        for (name, steps) in cases {
            let mut state = DaemonState::new();
            for (step, (event, decision)) in steps.into_iter().enumerate() {
                let decided = state.handle(&event);
                assert_eq!(decided, decision, "{name}: step {step}, {event:?}");
            }
        }
    }
}
