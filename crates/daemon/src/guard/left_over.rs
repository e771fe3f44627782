//! What jobs leave behind: reaped when it is dead, and ended when its job is over.
//!
//! A thread of its own, so that it is done whatever the runtime is busy with.

use std::{collections::BTreeSet, io, thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{end::reap, table};
use tidegate::host::children::{self, Family, Run};

/// Time between two looks at what was inherited.
const TICK: Duration = Duration::from_millis(200);

/// Before looking once more: for what we ended to die, or for a process that is just being started.
const PAUSE: Duration = Duration::from_millis(1);

/// Rounds in one tick. Each goes one generation down in what was left behind, and waits out a few starts.
const ROUNDS: u32 = 32;

/// Collects left-overs from now on. To be called before anything is started.
///
/// # Errors
/// There can be no more threads.
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

/// `killed` are those that have not died of it yet.
fn round_after_round(killed: &mut BTreeSet<Pid>) {
    let mut ended = 0;
    for _ in 0..ROUNDS {
        match round(killed) {
            Round::Nothing => break,
            Round::Ended(processes) => ended += processes,
            Round::NotNow => {}
        }
        thread::sleep(PAUSE);
    }
    if ended > 0 {
        tracing::warn!(processes = ended, "ended what jobs had left running");
    }
}

enum Round {
    /// There is nothing to do.
    Nothing,
    /// So many were killed for the first time. Whoever they have started comes to us as they die.
    Ended(usize),
    /// A process is being started, and cannot be told yet from one that was inherited.
    NotNow,
}

fn round(killed: &mut BTreeSet<Pid>) -> Round {
    let Family { inherited, running } = match children::family(table::own_children) {
        Ok(Some(family)) => family,
        Ok(None) => return Round::NotNow,
        // Without a process table there is nothing that we could do.
        Err(_) => return Round::Nothing,
    };
    let alive = inherited.into_iter().filter(|pid| !reap(*pid));
    let alive: Vec<_> = alive.collect();
    killed.retain(|pid| alive.contains(pid));
    if alive.is_empty() {
        return Round::Nothing;
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
        // Inherited and not reaped, which nobody else here would do, so its id is certainly its own.
        if is_left_over(table::run_of(pid), stat.started, &running)
            && kill(pid, Signal::SIGKILL).is_ok()
        {
            left_over = true;
            ended += usize::from(killed.insert(pid));
        }
    }
    match left_over {
        true => Round::Ended(ended),
        false => Round::Nothing,
    }
}

/// Whether an inherited process is of no run that goes on. `named` is the run that it says it is of, and `running`
/// has the time that each was started.
///
/// Who cleared or overwrote its environment does not say; it is spared as long as any run goes on that is old
/// enough to have started it.
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
    fn spares_what_may_be_of_a_job_that_still_runs() {
        let run = Run::new;
        let running = [(run(1), 100), (run(2), 200)];
        let table = [
            ("of a run that goes on", Some(run(2)), 300, false),
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
