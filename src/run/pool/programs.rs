//! Programs that consume the queue themselves, as the pool sees them at a reconcile: what they hold, and how many may be
//! started.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    decide::{HeldBy, Intake, Phase, Probe, assumed_held},
    host::sockets,
    queue::Holdings,
    run::shared::{PoolShared, ProgramsHeld},
};

/// Time between two looks at what programs hold. A broker renews its statistics every five seconds, by default.
const LOOK: Duration = Duration::from_secs(2);
/// Longest time that a look may take. The reading of the queue waits for it.
const ANSWER: Duration = Duration::from_secs(3);

/// What was seen of the programs.
#[derive(Debug)]
pub(super) struct ProgramsView {
    holdings: Result<Holdings, String>,
    /// The local addresses of each program's connections, by the program's process id.
    sockets: BTreeMap<i32, Vec<SocketAddr>>,
}

/// Looks at what programs hold, if the broker can show it and the last look is old enough. Cancel-safe.
pub(super) async fn look(shared: &PoolShared) -> Option<ProgramsView> {
    let view = shared.programs.view.as_ref()?;
    let is_due = |asked| shared.now().since(asked) >= LOOK;
    if !shared.fleet.consumes() || !shared.programs.held().asked.is_none_or(is_due) {
        return None;
    }
    let queue = shared.settings().queue.clone();
    let holdings = match timeout(ANSWER, view.holdings(&queue)).await {
        Ok(Ok(holdings)) => Ok(holdings),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    };
    let programs: Vec<i32> = {
        let workers = shared.roster.workers();
        workers
            .values()
            .filter_map(|worker| worker.program_id())
            .collect()
    };
    let sockets = match holdings.is_ok() && !programs.is_empty() {
        true => spawn_blocking(move || sockets::of_groups(&programs)).await,
        false => Ok(BTreeMap::new()),
    };
    Some(ProgramsView {
        holdings,
        // Without the addresses, it is not known which program holds which messages.
        sockets: sockets.unwrap_or_default(),
    })
}

/// Takes in what a reading says about the messages that the programs hold.
pub(super) fn take_in(shared: &PoolShared, probe: &Probe, viewed: Option<ProgramsView>) {
    let before = shared.programs.held();
    let held = match viewed {
        Some(ProgramsView {
            holdings: Ok(holdings),
            sockets,
        }) => counted(shared, &holdings, &sockets, &before),
        Some(ProgramsView {
            holdings: Err(why), ..
        }) => ProgramsHeld {
            asked: Some(shared.now()),
            ..assumed(shared, probe, Some(why), &before)
        },
        None if matches!(before.by, HeldBy::Counted { .. }) => return,
        None => {
            let why = match &before.by {
                HeldBy::Assumed { why } => why.clone(),
                _ => None,
            };
            assumed(shared, probe, why, &before)
        }
    };
    shared.programs.set_held(held);
}

/// What programs hold if nobody counts it.
fn assumed(
    shared: &PoolShared,
    probe: &Probe,
    why: Option<String>,
    before: &ProgramsHeld,
) -> ProgramsHeld {
    let by = HeldBy::Assumed { why };
    let &Probe::Answered { ready, consumers } = probe else {
        // Nothing new is known, so the last number is used again.
        return ProgramsHeld {
            by,
            ..before.clone()
        };
    };
    let programs = shared.roster.census(shared.now()).1.programs;
    let held = assumed_held(ready, consumers, programs);
    spread(shared, held);
    ProgramsHeld {
        held: u64::from(held),
        holders: held,
        by,
        ..before.clone()
    }
}

/// Nobody knows which programs hold something: the oldest are taken to hold one each, because the newest go first.
fn spread(shared: &PoolShared, mut holders: u32) {
    for worker in shared.roster.workers().values() {
        let snapshot = worker.snapshot();
        let is_live = snapshot.up.is_some() && snapshot.phase != Phase::Draining;
        let holds = u32::from(is_live && holders > 0);
        holders -= holds;
        worker.set_program_holds(holds);
    }
}

/// What programs hold according to the management API. Messages of programs that were told to end are not demand.
fn counted(
    shared: &PoolShared,
    seen: &Holdings,
    sockets: &BTreeMap<i32, Vec<SocketAddr>>,
    before: &ProgramsHeld,
) -> ProgramsHeld {
    let now = shared.now();
    // The broker renews the numbers of channels and of queues at different times.
    let of_channels = seen
        .consumers
        .iter()
        .fold(0_u64, |sum, one| sum.saturating_add(one.unacknowledged));
    let all = seen.unacknowledged.max(of_channels);
    let (mut located, mut holders, mut leaving) = (all == 0, 0_u32, 0_u64);
    for worker in shared.roster.workers().values() {
        let own = worker.program_id().and_then(|id| sockets.get(&id));
        let own = own.map_or(&[][..], Vec::as_slice);
        let mut held = 0_u64;
        for consumer in &seen.consumers {
            if own.contains(&consumer.address) {
                located = true;
                held = held.saturating_add(consumer.unacknowledged);
            }
        }
        worker.set_program_holds(u32::try_from(held).unwrap_or(u32::MAX));
        match worker.snapshot().phase {
            Phase::Draining => leaving = leaving.saturating_add(held),
            _ => holders += u32::from(held > 0),
        }
    }
    let held = all.saturating_sub(leaving);
    if !located {
        let programs = shared.roster.census(now).1.programs;
        holders = u32::try_from(held).unwrap_or(u32::MAX).min(programs);
        spread(shared, holders);
    }
    let more = |now: Option<u64>, before: Option<u64>| match (now, before) {
        // A queue that was deleted and declared again counts from zero.
        (Some(now), Some(before)) => now.saturating_sub(before),
        _ => 0,
    };
    if more(seen.delivered, before.delivered) > 0 {
        shared.stats.delivery_taken(now);
    }
    ProgramsHeld {
        held,
        holders,
        by: HeldBy::Counted { located },
        asked: Some(now),
        delivered: seen.delivered.or(before.delivered),
        acknowledged: seen.acknowledged.or(before.acknowledged),
        gone: before
            .gone
            .saturating_add(more(seen.acknowledged, before.acknowledged)),
    }
}

/// How many of the planned programs may be started now. Fewer than planned after programs have ended by themselves.
pub(super) fn allowed_starts(shared: &PoolShared, planned: u32, intake: Intake) -> u32 {
    let now = shared.now();
    let held = shared.roster.census(now).1;
    let starting = shared.roster.workers().values().any(|worker| {
        let worker = worker.snapshot();
        worker.phase == Phase::Waiting && worker.up.is_none()
    });
    let young = starting || held.programs > held.steady;
    if planned == 0 && !young && intake == Intake::Open {
        // Either every program that the pool wants is running, or it wants none. So an earlier failure says nothing about
        // the next start.
        shared.programs.worked();
    }
    shared.programs.most(now, planned, young)
}
