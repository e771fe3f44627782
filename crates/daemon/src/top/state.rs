//! The content of the screen, and the meaning of the keys. Synchronous, so that tests can send keys.

use std::collections::{HashMap, VecDeque};

use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::source::{Detail, Steer};
use tidegate::api::v1;

/// Snapshots that a sparkline has: two minutes.
pub(super) const TREND: usize = 120;

/// Digits of a number of workers that can be typed.
const DIGITS: usize = 6;

/// An event of the screen.
#[derive(Debug)]
pub(super) enum ScreenEvent {
    /// A second has passed.
    Tick,
    /// A key, or another size.
    Key(event::Event),
    /// A snapshot.
    Pools(Vec<v1::Pool>),
    /// The detail of a pool.
    Detail(String, Detail),
    /// The supervisor did not answer.
    Failed(String),
    /// The result of an order.
    Said(String),
    /// The supervisor refused to be steered.
    Refused(String),
}

/// A request to the supervisor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Pools,
    Detail(String),
    Steer(String, Steer),
}

/// The next step.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Next {
    Draw,
    Ask(Vec<Ask>),
    Quit,
}

/// The part of the screen that gets the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ScreenMode {
    /// The list of pools.
    List,
    /// One pool.
    Detail,
    /// The list of keys, over the former view.
    Help,
    /// A number of workers is typed.
    Scale(String),
    /// Whether a pool is really to be drained.
    Drain,
}

/// A line for the person, and whether it is bad news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScreenMessage {
    pub(super) text: String,
    pub(super) is_error: bool,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct ScreenState {
    pub(super) color: bool,
    pub(super) pools: Vec<v1::Pool>,
    /// Demand of each pool, the newest last.
    pub(super) trends: HashMap<String, VecDeque<u64>>,
    selected: Option<String>,
    pub(super) mode: ScreenMode,
    /// The view after a prompt or the help.
    below: ScreenMode,
    pub(super) detail: Option<(String, Detail)>,
    pub(super) message: Option<ScreenMessage>,
    /// Why the numbers are out of date, if they are.
    pub(super) cut_off: Option<String>,
    /// Whether there was a snapshot yet.
    pub(super) has_pools: bool,
    is_asking: bool,
}

impl ScreenState {
    pub(super) fn new(color: bool) -> Self {
        Self {
            color,
            pools: Vec::new(),
            trends: HashMap::new(),
            selected: None,
            mode: ScreenMode::List,
            below: ScreenMode::List,
            detail: None,
            message: None,
            cut_off: None,
            has_pools: false,
            is_asking: false,
        }
    }

    /// The place of the selected pool in the list.
    pub(super) fn place(&self) -> Option<usize> {
        let selected = self.selected.as_deref()?;
        self.pools.iter().position(|pool| name(pool) == selected)
    }

    /// The selected pool.
    pub(super) fn pool(&self) -> Option<&v1::Pool> {
        self.place().map(|place| &self.pools[place])
    }

    /// Whether one pool fills the screen: a prompt or the help over it counts.
    pub(super) fn shows_detail(&self) -> bool {
        match self.mode {
            ScreenMode::List => false,
            ScreenMode::Detail => true,
            ScreenMode::Help | ScreenMode::Scale(_) | ScreenMode::Drain => {
                self.below == ScreenMode::Detail
            }
        }
    }

    /// Processes an event, and returns the next action.
    pub(super) fn take(&mut self, event: ScreenEvent) -> Next {
        match event {
            ScreenEvent::Tick => self.ask_anew(),
            ScreenEvent::Pools(pools) => {
                self.take_pools(pools);
                Next::Draw
            }
            ScreenEvent::Detail(pool, detail) => {
                self.detail = Some((pool, detail));
                Next::Draw
            }
            ScreenEvent::Failed(why) => {
                self.is_asking = false;
                self.cut_off = Some(why);
                Next::Draw
            }
            ScreenEvent::Said(text) => self.say(text, false),
            ScreenEvent::Refused(text) => self.say(text, true),
            ScreenEvent::Key(event::Event::Key(key)) if key.kind != KeyEventKind::Release => {
                self.key(key)
            }
            ScreenEvent::Key(_) => Next::Draw,
        }
    }

    fn say(&mut self, text: String, is_error: bool) -> Next {
        self.message = Some(ScreenMessage { text, is_error });
        // At once, so that the change is seen.
        self.is_asking = false;
        self.ask_anew()
    }

    /// One question at a time: a supervisor that is slow is not asked more.
    fn ask_anew(&mut self) -> Next {
        if self.is_asking {
            return Next::Draw;
        }
        self.is_asking = true;
        let mut asks = vec![Ask::Pools];
        asks.extend(self.ask_detail());
        Next::Ask(asks)
    }

    fn ask_detail(&self) -> Option<Ask> {
        let selected = self.selected.clone()?;
        self.shows_detail().then_some(Ask::Detail(selected))
    }

    fn take_pools(&mut self, pools: Vec<v1::Pool>) {
        self.is_asking = false;
        self.cut_off = None;
        self.has_pools = true;
        let kept: Vec<&str> = pools.iter().map(name).collect();
        self.trends.retain(|pool, _| kept.contains(&pool.as_str()));
        for pool in &pools {
            let trend = self.trends.entry(name(pool).to_owned()).or_default();
            if trend.len() == TREND {
                trend.pop_front();
            }
            trend.push_back(pool.status.demand);
        }
        let place = self.place();
        self.pools = pools;
        if self.place().is_none() {
            // The pool was removed, or none was selected: the pool in its position.
            let place = place.unwrap_or(0).min(self.pools.len().saturating_sub(1));
            self.selected = self.pools.get(place).map(|pool| name(pool).to_owned());
        }
    }

    fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Next::Quit;
        }
        match self.mode.clone() {
            ScreenMode::Scale(typed) => self.key_of_scale(key.code, typed),
            ScreenMode::Drain => {
                self.mode = self.below.clone();
                match key.code {
                    KeyCode::Char('y' | 'Y') => self.steer(Steer::Drain),
                    _ => Next::Draw,
                }
            }
            ScreenMode::Help => {
                self.mode = self.below.clone();
                Next::Draw
            }
            ScreenMode::List | ScreenMode::Detail => self.key_of_view(key.code),
        }
    }

    fn key_of_view(&mut self, key: KeyCode) -> Next {
        match key {
            KeyCode::Char('q') => Next::Quit,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left
                if self.mode == ScreenMode::Detail =>
            {
                self.mode = ScreenMode::List;
                Next::Draw
            }
            KeyCode::Enter | KeyCode::Right if self.mode == ScreenMode::List => {
                self.mode = ScreenMode::Detail;
                self.detail = None;
                self.ask_detail()
                    .map_or(Next::Draw, |ask| Next::Ask(vec![ask]))
            }
            KeyCode::Up | KeyCode::Char('k') => self.go(|place, _| place.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.go(|place, last| (place + 1).min(last)),
            KeyCode::PageUp => self.go(|place, _| place.saturating_sub(10)),
            KeyCode::PageDown => self.go(|place, last| (place + 10).min(last)),
            KeyCode::Home | KeyCode::Char('g') => self.go(|_, _| 0),
            KeyCode::End | KeyCode::Char('G') => self.go(|_, last| last),
            KeyCode::Char('p') => self.steer(Steer::Pause),
            KeyCode::Char('r') => self.steer(Steer::Resume),
            KeyCode::Char('a') => self.steer(Steer::Scale(None)),
            KeyCode::Char('s') => self.open(ScreenMode::Scale(String::new())),
            KeyCode::Char('d') => self.open(ScreenMode::Drain),
            KeyCode::Char('?' | 'h') => self.open(ScreenMode::Help),
            _ => Next::Draw,
        }
    }

    fn key_of_scale(&mut self, key: KeyCode, mut typed: String) -> Next {
        match key {
            KeyCode::Char(digit) if digit.is_ascii_digit() && typed.len() < DIGITS => {
                typed.push(digit);
                self.mode = ScreenMode::Scale(typed);
            }
            KeyCode::Backspace => {
                typed.pop();
                self.mode = ScreenMode::Scale(typed);
            }
            KeyCode::Enter => {
                self.mode = self.below.clone();
                if let Ok(workers) = typed.parse() {
                    return self.steer(Steer::Scale(Some(workers)));
                }
            }
            KeyCode::Esc => self.mode = self.below.clone(),
            _ => {}
        }
        Next::Draw
    }

    /// Opens a prompt or the help. A prompt is about a pool, so there must be one.
    fn open(&mut self, mode: ScreenMode) -> Next {
        if mode == ScreenMode::Help || self.selected.is_some() {
            self.below = std::mem::replace(&mut self.mode, mode);
            self.message = None;
        }
        Next::Draw
    }

    fn go(&mut self, to: impl FnOnce(usize, usize) -> usize) -> Next {
        let Some(last) = self.pools.len().checked_sub(1) else {
            return Next::Draw;
        };
        let place = to(self.place().unwrap_or(0), last);
        let selected = name(&self.pools[place]).to_owned();
        if self.selected.as_ref() != Some(&selected) {
            self.selected = Some(selected);
            self.detail = None;
            self.message = None;
        }
        self.ask_detail()
            .map_or(Next::Draw, |ask| Next::Ask(vec![ask]))
    }

    fn steer(&mut self, steer: Steer) -> Next {
        match self.selected.clone() {
            Some(pool) => Next::Ask(vec![Ask::Steer(pool, steer)]),
            None => Next::Draw,
        }
    }
}

pub(super) fn name(pool: &v1::Pool) -> &str {
    pool.status.name.as_str()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::top) fn pool(name: &str, demand: u64) -> v1::Pool {
        let view = serde_json::json!({
            "name": name, "queue": name, "state": "active",
            "depth": {"ready": demand, "age_ms": 210, "stale": false},
            "delayed": 2, "dead_waiting": 1, "demand": demand + 6, "expected": 13,
            "workers": {"bare": 1, "live": 13, "draining": 0},
            "runners": {"idle": 6, "busy": 6},
            "jobs": {"done": 900, "retried": 3, "dead": 1, "requeued": 0, "lost": 0},
        });
        serde_json::from_value(view).unwrap()
    }

    pub(in crate::top) fn with_pools(names: &[&str]) -> ScreenState {
        let mut state = ScreenState::new(true);
        let pools = names.iter().map(|name| pool(name, 120)).collect();
        let _ = state.take(ScreenEvent::Pools(pools));
        state
    }

    fn press(state: &mut ScreenState, key: KeyCode) -> Next {
        state.take(ScreenEvent::Key(event::Event::Key(KeyEvent::from(key))))
    }

    fn type_text(state: &mut ScreenState, text: &str) -> Next {
        let mut next = Next::Draw;
        for letter in text.chars() {
            next = press(state, KeyCode::Char(letter));
        }
        next
    }

    #[test]
    fn asks_once_until_the_supervisor_answers() {
        let mut state = ScreenState::new(true);
        assert_eq!(state.take(ScreenEvent::Tick), Next::Ask(vec![Ask::Pools]));
        assert_eq!(state.take(ScreenEvent::Tick), Next::Draw);
        assert_eq!(
            state.take(ScreenEvent::Failed("gone".to_owned())),
            Next::Draw
        );
        assert_eq!(state.cut_off.as_deref(), Some("gone"));
        assert_eq!(state.take(ScreenEvent::Tick), Next::Ask(vec![Ask::Pools]));
        let _ = state.take(ScreenEvent::Pools(vec![pool("a", 1)]));
        assert_eq!(state.cut_off, None);
    }

    #[test]
    fn arrows_move_and_stop_at_the_ends() {
        let mut state = with_pools(&["a", "b", "c"]);
        assert_eq!(state.place(), Some(0));
        let _ = press(&mut state, KeyCode::Up);
        assert_eq!(state.place(), Some(0));
        let _ = press(&mut state, KeyCode::End);
        assert_eq!(state.place(), Some(2));
        let _ = press(&mut state, KeyCode::Down);
        assert_eq!(state.place(), Some(2));
    }

    #[test]
    fn when_the_selected_pool_is_removed_the_next_one_is_selected() {
        let mut state = with_pools(&["a", "b", "c"]);
        let _ = press(&mut state, KeyCode::Down);
        let _ = state.take(ScreenEvent::Pools(vec![pool("a", 1), pool("c", 1)]));
        assert_eq!(state.pool().map(name), Some("c"));
        let _ = state.take(ScreenEvent::Pools(Vec::new()));
        assert_eq!(state.pool().map(name), None);
        assert_eq!(press(&mut state, KeyCode::Char('p')), Next::Draw);
    }

    #[test]
    fn keys_steer_the_selected_pool() {
        let mut state = with_pools(&["a", "b"]);
        let _ = press(&mut state, KeyCode::Down);
        for (key, steer) in [
            ('p', Steer::Pause),
            ('r', Steer::Resume),
            ('a', Steer::Scale(None)),
        ] {
            let next = press(&mut state, KeyCode::Char(key));
            assert_eq!(next, Next::Ask(vec![Ask::Steer("b".to_owned(), steer)]));
        }
    }

    #[test]
    fn digits_typed_after_the_scale_key_set_the_number_of_workers() {
        let mut state = with_pools(&["a"]);
        let _ = type_text(&mut state, "s1x2");
        assert_eq!(state.mode, ScreenMode::Scale("12".to_owned()));
        let _ = press(&mut state, KeyCode::Backspace);
        let next = press(&mut state, KeyCode::Enter);
        let steer = Steer::Scale(Some(1));
        assert_eq!(next, Next::Ask(vec![Ask::Steer("a".to_owned(), steer)]));
        assert_eq!(state.mode, ScreenMode::List);
        let _ = type_text(&mut state, "s");
        assert_eq!(
            press(&mut state, KeyCode::Enter),
            Next::Draw,
            "nothing was typed"
        );
    }

    #[test]
    fn a_drain_asks_for_confirmation() {
        let mut state = with_pools(&["a"]);
        assert_eq!(type_text(&mut state, "dn"), Next::Draw);
        let drain = Next::Ask(vec![Ask::Steer("a".to_owned(), Steer::Drain)]);
        assert_eq!(type_text(&mut state, "dy"), drain);
    }

    #[test]
    fn a_prompt_goes_back_to_where_it_came_from() {
        let mut state = with_pools(&["a"]);
        let next = press(&mut state, KeyCode::Enter);
        assert_eq!(next, Next::Ask(vec![Ask::Detail("a".to_owned())]));
        let _ = type_text(&mut state, "?");
        assert!(state.shows_detail());
        let _ = press(&mut state, KeyCode::Esc);
        assert_eq!(state.mode, ScreenMode::Detail);
        let _ = press(&mut state, KeyCode::Esc);
        assert_eq!(state.mode, ScreenMode::List);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Next::Quit);
    }

    #[test]
    fn a_trend_is_bounded_and_forgotten_with_its_pool() {
        let mut state = with_pools(&["a"]);
        for demand in 0..TREND as u64 + 5 {
            let _ = state.take(ScreenEvent::Pools(vec![pool("a", demand)]));
        }
        assert_eq!(state.trends["a"].len(), TREND);
        let _ = state.take(ScreenEvent::Pools(vec![pool("b", 1)]));
        assert!(!state.trends.contains_key("a"));
    }
}
