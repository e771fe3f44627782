//! Processes that jobs leave behind. They are reaped when they die, and killed when their job is over.
//!
//! Runs in a thread of its own, so that a busy runtime cannot delay it.

use std::{collections::BTreeSet, io, thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    end::{has_no_child, reap},
    table,
};
use tidegate::host::children::{self, ChildrenSnapshot, Run};

/// Time between two checks of the inherited processes.
const TICK: Duration = Duration::from_millis(200);

/// Pause before the next check: a killed process must die, or a process is just being started.
const PAUSE: Duration = Duration::from_millis(1);

/// Rounds in one tick. Each round reaches one more generation of the processes that were left behind, or waits for a
/// start.
const ROUNDS: u32 = 32;

/// Starts the thread that collects left-over processes. Call it before anything is started.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn collect() -> io::Result<()> {
    children::keep_account();
    let collect = || {
        let mut killed = BTreeSet::new();
        loop {
            thread::sleep(TICK);
            round_after_round(&mut killed);
        }
    };
    thread::Builder::new()
        .name("tide-left-over".to_owned())
        .spawn(collect)
        .map(drop)
}

/// `killed` holds the killed processes that are not dead yet.
fn round_after_round(killed: &mut BTreeSet<Pid>) {
    let mut ended = 0;
    for _ in 0..ROUNDS {
        match round(killed) {
            RoundOutcome::Nothing => break,
            RoundOutcome::Ended(processes) => ended += processes,
            RoundOutcome::NotNow => {}
        }
        thread::sleep(PAUSE);
    }
    if ended > 0 {
        tracing::warn!(
            processes = ended,
            "ended processes that jobs had left behind"
        );
    }
}

enum RoundOutcome {
    /// There is nothing to do.
    Nothing,
    /// This number of processes was killed for the first time. Their children are inherited when they die.
    Ended(usize),
    /// A process is being started, and cannot be told apart from an inherited one yet.
    NotNow,
}

fn round(killed: &mut BTreeSet<Pid>) -> RoundOutcome {
    // One system call, instead of reading a file for each of our threads. Idle pools have no processes.
    if has_no_child() {
        killed.clear();
        return RoundOutcome::Nothing;
    }
    let ChildrenSnapshot { inherited, running } = match children::family(table::own_children) {
        Ok(Some(family)) => family,
        Ok(None) => return RoundOutcome::NotNow,
        // Nothing can be done without a process table.
        Err(_) => return RoundOutcome::Nothing,
    };
    let alive = inherited.into_iter().filter(|pid| !reap(*pid));
    let alive: Vec<_> = alive.collect();
    killed.retain(|pid| alive.contains(pid));
    if alive.is_empty() {
        return RoundOutcome::Nothing;
    }
    let running: Vec<_> = running
        .into_iter()
        .map(|(run, leader)| (run, table::stat(leader).map_or(0, |stat| stat.started)))
        .collect();
    let (mut left_over, mut ended) = (false, 0);
    for pid in alive {
        let Some(stat) = table::stat(pid) else {
            continue;
        };
        // It is inherited and not reaped, and no other code here reaps it, so the id is still its own.
        if is_left_over(table::run_of(pid), stat.started, &running)
            && kill(pid, Signal::SIGKILL).is_ok()
        {
            left_over = true;
            ended += usize::from(killed.insert(pid));
        }
    }
    match left_over {
        true => RoundOutcome::Ended(ended),
        false => RoundOutcome::Nothing,
    }
}

/// Whether an inherited process belongs to no running job. `named` is the run in its environment, and `running` has
/// the start time of each run.
///
/// A process that cleared or overwrote its environment names no run. It is spared while any run is old enough to have
/// started it.
fn is_left_over(named: Option<Run>, started: u64, running: &[(Run, u64)]) -> bool {
    let mut running = running.iter();
    match named {
        Some(named) => running.all(|(run, _)| *run != named),
        None => running.all(|(_, since)| *since > started),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spares_processes_that_may_belong_to_a_running_job() {
        let run = Run::new;
        let running = [(run(1), 100), (run(2), 200)];
        let table = [
            ("of a run that continues", Some(run(2)), 300, false),
            ("of a run that is over", Some(run(3)), 300, true),
            (
                "of a run that is over, and younger than others",
                Some(run(3)),
                50,
                true,
            ),
            ("silent, and younger than a run", None, 150, false),
            ("silent, and of the same tick as a run", None, 100, false),
            ("silent, and older than all", None, 99, true),
        ];
        for (name, named, started, expected) in table {
            assert_eq!(is_left_over(named, started, &running), expected, "{name}");
        }
        assert!(is_left_over(None, 300, &[]), "nothing runs any more");
    }
}
