//! `tidegate top`: the pools of a running supervisor, live, in the terminal.
//!
//! Keys, snapshots and answers become one [`ScreenEvent`]. [`ScreenState::take`] is synchronous and says what to ask the
//! supervisor for; [`screen`] draws a state. Only this file waits: for the terminal and for the supervisor.

mod screen;
mod source;
mod state;
mod terminal;

use std::time::Duration;

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{self, MissedTickBehavior},
};

pub(crate) use self::source::{Detail, ScreenSource, Steer};
use self::{
    state::{Ask, Next, ScreenEvent, ScreenState},
    terminal::Terminal,
};

/// Time between two snapshots.
const STEP: Duration = Duration::from_secs(1);

/// Keys that may wait: more than anyone types in a second.
const KEYS: usize = 64;

/// Shows the pools until the person at the terminal has seen enough.
///
/// # Errors
/// The terminal cannot be used: standard output is not a terminal, or it fails.
pub(crate) async fn run(source: impl ScreenSource, color: bool) -> std::io::Result<()> {
    let mut terminal = Terminal::open()?;
    let (keys, mut typed) = mpsc::channel(KEYS);
    terminal::read_keys(keys);
    let mut state = ScreenState::new(color);
    let mut asked: JoinSet<ScreenEvent> = JoinSet::new();
    let mut ticks = time::interval(STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        terminal.draw(|frame| screen::draw(frame, &state))?;
        let event = tokio::select! {
            biased;
            key = typed.recv() => match key {
                Some(key) => ScreenEvent::Key(key),
                // The terminal is closed.
                None => return Ok(()),
            },
            Some(answer) = asked.join_next() => match answer {
                Ok(answer) => answer,
                Err(panic) => ScreenEvent::Failed(panic.to_string()),
            },
            _ = ticks.tick() => ScreenEvent::Tick,
        };
        match state.take(event) {
            Next::Draw => {}
            Next::Quit => return Ok(()),
            Next::Ask(asks) => {
                for ask in asks {
                    asked.spawn(answer(source.clone(), ask));
                }
            }
        }
    }
}

async fn answer(source: impl ScreenSource, ask: Ask) -> ScreenEvent {
    match ask {
        Ask::Pools => match source.pools().await {
            Ok(pools) => ScreenEvent::Pools(pools),
            Err(error) => ScreenEvent::Failed(error),
        },
        Ask::Detail(pool) => match source.detail(&pool).await {
            Ok(detail) => ScreenEvent::Detail(pool, detail),
            Err(error) => ScreenEvent::Detail(
                pool,
                Detail {
                    decision: error,
                    jobs: Vec::new(),
                },
            ),
        },
        Ask::Steer(pool, steer) => match source.steer(&pool, steer).await {
            Ok(said) => ScreenEvent::Said(said),
            Err(error) => ScreenEvent::Refused(error),
        },
    }
}
