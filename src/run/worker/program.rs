//! The worker that is a program: a runner that consumes the queue itself, from its start to its end.
//!
//! The pool opens no consumer for it, and settles nothing. To be told to leave means its stop signal. After
//! that the program decides how long it takes, until a deadline of the pool or of its kind passes.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time;
use tracing::{debug, info, warn};

use crate::{
    decide::{ProgramStop, STEADY_AFTER},
    run::{
        fleet::{BorrowedRunner, CRASHED},
        panics::PanicSite,
        shared::PoolShared,
        worker_state::{WorkerState, WorkerStopReason},
    },
    runner::{ProgramControl, ProgramEnd},
};
use tidegate_core::text::chain;

/// Starts a program, and returns why it ended.
pub(super) async fn work(shared: &Arc<PoolShared>, state: &Arc<WorkerState>) -> WorkerStopReason {
    let started = tokio::select! {
        biased;
        () = state.leave.cancelled() => return state.leave_because(WorkerStopReason::ScaledDown),
        started = shared.fleet.borrow_runner() => started,
    };
    let mut runner = match started {
        Ok(runner) => runner,
        Err(error) => {
            let why = state.leave_because(WorkerStopReason::Faulted);
            let stop = ProgramStop {
                ran: Duration::ZERO,
                is_well: false,
                how: &chain(&error),
            };
            ended_by_itself(shared, stop);
            return why;
        }
    };
    state.program_started(shared.now(), runner.program_id());
    debug!(pool = %shared.name, worker.id = %state.id, pid = runner.program_id(), "program started");
    let end = until_end(shared, state, &mut runner).await;
    let was_told = [&state.leave, &state.stop, &shared.kill]
        .iter()
        .any(|token| token.is_cancelled());
    match was_told {
        true => told_to_end(shared, state, runner, &end),
        false => {
            let why = state.leave_because(WorkerStopReason::Ended);
            match end.is_well {
                true => {
                    info!(pool = %shared.name, how = end.how, "program ended by itself");
                    runner.stopped("finished");
                }
                false => {
                    warn!(pool = %shared.name, error = end.how, "program ended by itself");
                    runner.stopped(CRASHED);
                }
            }
            let stop = ProgramStop {
                // Zero would mean that it was not started.
                ran: end.ran.max(Duration::from_millis(1)),
                is_well: end.is_well,
                how: &end.how,
            };
            ended_by_itself(shared, stop);
            why
        }
    }
}

/// Waits for the end of the program. One that is up for a while ends a fault.
async fn until_end(
    shared: &PoolShared,
    state: &WorkerState,
    runner: &mut BorrowedRunner<'_>,
) -> ProgramEnd {
    let control = ProgramControl {
        leave: state.leave.clone(),
        stop: state.stop.clone(),
        kill: shared.kill.clone(),
    };
    let mut end = runner.consume(control);
    let mut steady = pin!(time::sleep(STEADY_AFTER));
    let mut is_steady = false;
    let end = loop {
        tokio::select! {
            biased;
            end = &mut end => break end,
            () = &mut steady, if !is_steady => {
                is_steady = true;
                shared.programs.worked();
                shared.gate.started();
            }
        }
    };
    end.unwrap_or_else(|panicked| {
        shared.fleet.panics().record(PanicSite::Run, &panicked);
        ProgramEnd::new(format!("the runner panicked: {panicked}"))
    })
}

fn told_to_end(
    shared: &PoolShared,
    state: &WorkerState,
    runner: BorrowedRunner<'_>,
    end: &ProgramEnd,
) -> WorkerStopReason {
    let why = state.leave_because(WorkerStopReason::ScaledDown);
    if end.was_killed {
        shared.stats.job_stopped();
        warn!(
            pool = %shared.name,
            reason = why.as_str(),
            "program killed: the time for its end has passed, and the broker delivers again what it held"
        );
    } else {
        debug!(pool = %shared.name, reason = why.as_str(), how = end.how, "program stopped");
    }
    runner.stopped(why.as_str());
    why
}

/// A program ended without being told to, or could not be started. Its worker counts as leaving already.
fn ended_by_itself(shared: &PoolShared, stop: ProgramStop<'_>) {
    let now = shared.now();
    let steady = shared.census(now).1.steady;
    if let Some(cause) = shared.programs.ended(now, stop, steady) {
        shared.gate.start_failed(now, cause);
    }
}
