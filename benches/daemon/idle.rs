//! The cost of pools without work, compared with a bare lapin loop that reads as many queues.

use std::time::{Duration, Instant};

use nix::time::ClockId;
use tokio::time;

use super::{broker::Queues, daemon::Daemon};

const POOLS: usize = 200;
const WINDOW: Duration = Duration::from_secs(60);
/// The default `poll_interval`.
const POLL: Duration = Duration::from_millis(500);

pub(crate) async fn measure(url: &str) {
    let queues = Queues::new(url, POOLS).await;
    let daemon = Daemon::start(url, &queues).await;
    // The start has its own cost.
    time::sleep(Duration::from_secs(5)).await;
    let ours = daemon.load(WINDOW).await;
    daemon.end().await;
    let bare = bare(&queues).await;
    let each = |percent: f64| percent * 1e4 / POOLS as f64 * POLL.as_secs_f64();
    println!(
        "idle, {POOLS} pools: {ours:.2} % of a core (bound 2), {:.0} \u{b5}s for each poll of a pool",
        each(ours)
    );
    println!(
        "idle, bare reads: {bare:.2} % of a core, {:.0} \u{b5}s a read",
        each(bare)
    );
    queues.delete().await;
}

/// Processor time of a bare loop that reads each queue once a `poll_interval`, in percent of one core.
async fn bare(queues: &Queues) -> f64 {
    let clock = ClockId::CLOCK_PROCESS_CPUTIME_ID;
    let read = || Duration::from(clock.now().expect("a processor clock"));
    let (begun, before) = (Instant::now(), read());
    // Pools read at times of their own, so the reads are spread.
    let mut ticks = time::interval(POLL / u32::try_from(POOLS).expect("few pools"));
    let names = queues.names().iter().cycle();
    for name in names {
        ticks.tick().await;
        queues.look(name).await;
        if begun.elapsed() > WINDOW / 2 {
            break;
        }
    }
    100.0 * (read() - before).as_secs_f64() / begun.elapsed().as_secs_f64()
}
