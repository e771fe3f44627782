//! `tidegate top`: the pools of a running supervisor, live, in the terminal.
//!
//! Keys, snapshots and answers become one [`Event`]. [`State::take`] is synchronous and says what to ask the supervisor
//! for; [`screen`] draws a state. Only this file waits: for the terminal and for the supervisor.

mod screen;
mod state;
mod terminal;

use std::{future::Future, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{self, MissedTickBehavior},
};

use self::{
    state::{Ask, Event, Next, State},
    terminal::Terminal,
};
use tidegate::api::v1;

/// Time between two snapshots.
const STEP: Duration = Duration::from_secs(1);

/// Keys that may wait: more than anyone types in a second.
const KEYS: usize = 64;

/// The details of one pool in addition to its numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Detail {
    /// The decision, as `explain` prints it.
    pub(crate) decision: String,
    /// Running jobs, a line each.
    pub(crate) jobs: Vec<String>,
}

/// The supervisor, as this screen needs it. An error is one line for people.
pub(crate) trait Source: Clone + Send + Sync + 'static {
    /// Every pool.
    fn pools(&self) -> impl Future<Output = Result<Vec<v1::Pool>, String>> + Send;
    /// One pool in detail.
    fn detail(&self, pool: &str) -> impl Future<Output = Result<Detail, String>> + Send;
    /// Steers a pool, and says what came of it.
    fn steer(
        &self,
        pool: &str,
        steer: Steer,
    ) -> impl Future<Output = Result<String, String>> + Send;
}

/// What an operator can do to a pool from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steer {
    /// Stop intake.
    Pause,
    /// Open intake.
    Resume,
    /// Stop intake, and let every worker leave.
    Drain,
    /// Pin to a number of workers; `None` removes the pin.
    Scale(Option<u32>),
}

/// Shows the pools until the person at the terminal has seen enough.
///
/// # Errors
/// The terminal cannot be used: standard output is none, or it fails.
pub(crate) async fn run(source: impl Source, color: bool) -> std::io::Result<()> {
    let mut terminal = Terminal::open()?;
    let (keys, mut typed) = mpsc::channel(KEYS);
    terminal::read_keys(keys);
    let mut state = State::new(color);
    let mut asked: JoinSet<Event> = JoinSet::new();
    let mut ticks = time::interval(STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        terminal.draw(|frame| screen::draw(frame, &state))?;
        let event = tokio::select! {
            biased;
            key = typed.recv() => match key {
                Some(key) => Event::Key(key),
                // The terminal is closed.
                None => return Ok(()),
            },
            Some(answer) = asked.join_next() => match answer {
                Ok(answer) => answer,
                Err(panic) => Event::Failed(panic.to_string()),
            },
            _ = ticks.tick() => Event::Tick,
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

async fn answer(source: impl Source, ask: Ask) -> Event {
    match ask {
        Ask::Pools => match source.pools().await {
            Ok(pools) => Event::Pools(pools),
            Err(error) => Event::Failed(error),
        },
        Ask::Detail(pool) => match source.detail(&pool).await {
            Ok(detail) => Event::Detail(pool, detail),
            Err(error) => Event::Detail(
                pool,
                Detail {
                    decision: error,
                    jobs: Vec::new(),
                },
            ),
        },
        Ask::Steer(pool, steer) => match source.steer(&pool, steer).await {
            Ok(said) => Event::Said(said),
            Err(error) => Event::Refused(error),
        },
    }
}
