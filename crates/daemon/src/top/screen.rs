//! Draws a state. It needs at least 80 columns and 24 lines. Columns that do not fit are omitted from the right.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span, Text},
    widgets::{Block, Clear, Paragraph, Row, Sparkline, Table, TableState, Wrap},
};
use tidegate::{escape::Escaped, run::PoolState, text::counted};

use super::{
    source::Detail,
    state::{ScreenMode, ScreenState, TREND, name},
};
use tidegate::api::v1;

const KEYS: [(&str, &str); 11] = [
    ("up, down, k, j", "select a pool"),
    ("PgUp, PgDn, g, G", "further"),
    ("Enter", "one pool in detail"),
    ("Esc", "back to the list"),
    ("p", "pause: take no more messages"),
    ("r", "resume"),
    ("d", "drain: pause, and let every worker leave"),
    ("s", "pin to a number of workers"),
    ("a", "auto: follow the policy again"),
    ("?", "these keys"),
    ("q, Ctrl-C", "quit"),
];

const HINT: &str = " ? keys  Enter detail  p pause  r resume  d drain  s scale  a auto  q quit";

/// Widest sparkline in the list.
const SPARK: u16 = 20;
/// The narrowest useful width.
const MIN_SPARK: u16 = 6;

/// Eight heights of a column.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) fn draw(frame: &mut Frame<'_>, state: &ScreenState) {
    let [head, body, message, hint] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, state);
    match (state.shows_detail(), state.pool()) {
        (true, Some(pool)) => draw_detail(frame, body, state, pool),
        _ => draw_list(frame, body, state),
    }
    draw_message(frame, message, state);
    frame.render_widget(Paragraph::new(HINT).add_modifier(Modifier::DIM), hint);
    if state.mode == ScreenMode::Help {
        draw_help(frame);
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, state: &ScreenState) {
    let total = |number: fn(&v1::Pool) -> u64| state.pools.iter().map(number).sum::<u64>();
    let title = Span::from(" tidegate ").bold();
    let line = match &state.cut_off {
        Some(why) => Line::from(vec![
            title,
            Span::styled(format!("cut off: {}", Escaped(why)), tone(state, Tone::Bad)),
        ]),
        None if !state.has_pools => Line::from(vec![title, "asking".into()]),
        None => Line::from(vec![
            title,
            format!(
                "{}  {} demand  {}  {} busy",
                counted(state.pools.len(), "pool"),
                total(|pool| pool.status.demand),
                counted(total(|pool| pool.status.workers.live.into()), "worker"),
                total(|pool| pool.status.runners.busy.into()),
            )
            .into(),
        ]),
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, state: &ScreenState) {
    if state.has_pools && state.pools.is_empty() {
        frame.render_widget(Paragraph::new(" no pools are configured"), area);
        return;
    }
    let names = state.pools.iter().map(|pool| shown(pool).chars().count());
    let widest = names.max().unwrap_or(0).clamp(4, 28);
    let mut columns = vec![u16::try_from(widest).unwrap_or(28), 12, 7, 7, 6, 5, 5];
    // Columns that do not fit are omitted completely: first the totals, then the trend.
    let room = |columns: &[u16]| {
        let gaps = u16::try_from(columns.len()).unwrap_or(0);
        area.width
            .saturating_sub(columns.iter().sum::<u16>() + gaps)
    };
    let fits = |columns: &[u16]| {
        let gaps = u16::try_from(columns.len()).unwrap_or(0);
        columns.iter().sum::<u16>() + gaps <= area.width + 1
    };
    while columns.len() > 1 && !fits(&columns) {
        columns.pop();
    }
    let is_whole = columns.len() == 7;
    let trend = room(&columns).min(SPARK);
    if is_whole && trend >= MIN_SPARK {
        columns.push(trend);
        let totals = [9, 7, 6];
        if room(&columns) >= totals.iter().sum::<u16>() + 2 {
            columns.extend(totals);
        }
    }
    let head = [
        "POOL", "STATE", "READY", "DEMAND", "EXPECT", "LIVE", "BUSY", "TREND", "DONE", "RETRY",
        "DEAD",
    ];
    let numbers = 2..=6;
    let head = head
        .iter()
        .take(columns.len())
        .enumerate()
        .map(|(column, word)| {
            let is_number = numbers.contains(&column) || column > 7;
            cell(word, is_number)
        });
    let rows = state.pools.iter().map(|pool| row(state, pool, trend));
    let selected = Style::new().add_modifier(Modifier::REVERSED);
    let table = Table::new(rows, columns.into_iter().map(Constraint::Length))
        .header(Row::new(head).add_modifier(Modifier::BOLD))
        .row_highlight_style(selected)
        .column_spacing(1);
    let mut places = TableState::new().with_selected(state.place());
    frame.render_stateful_widget(table, area, &mut places);
}

fn cell(text: &str, is_number: bool) -> Text<'_> {
    let alignment = match is_number {
        true => Alignment::Right,
        false => Alignment::Left,
    };
    Text::from(text).alignment(alignment)
}

fn row<'a>(state: &ScreenState, pool: &'a v1::Pool, trend: u16) -> Row<'a> {
    let status = &pool.status;
    let number = |number: u64| Text::from(number.to_string()).alignment(Alignment::Right);
    let expected = match status.pinned {
        Some(_) => format!("{}*", status.expected),
        None => status.expected.to_string(),
    };
    Row::new(vec![
        Text::from(shown(pool)),
        Text::styled(status.state.as_str(), tone(state, of(status.state))),
        number(status.depth.ready),
        number(status.demand),
        Text::from(expected).alignment(Alignment::Right),
        number(status.workers.live.into()),
        number(status.runners.busy.into()),
        Text::styled(spark(state, pool, trend), tone(state, Tone::Plot)),
        number(status.jobs.done),
        number(status.jobs.retried),
        number(status.jobs.dead),
    ])
}

/// The newest part of a trend as text, lowest at 0 and highest at its own maximum.
fn spark(state: &ScreenState, pool: &v1::Pool, width: u16) -> String {
    let Some(trend) = state.trends.get(name(pool)) else {
        return String::new();
    };
    let seen = trend.len().saturating_sub(usize::from(width));
    let newest = trend.iter().skip(seen);
    let top = newest.clone().max().copied().unwrap_or(0);
    let bar = |value: &u64| match (value, top) {
        (_, 0) | (0, _) => ' ',
        (value, top) => {
            BARS[usize::try_from((value * 8).div_ceil(top) - 1)
                .unwrap_or(7)
                .min(7)]
        }
    };
    newest.map(bar).collect()
}

fn draw_detail(frame: &mut Frame<'_>, area: Rect, state: &ScreenState, pool: &v1::Pool) {
    let status = &pool.status;
    let mut facts = vec![Line::from(vec![
        Span::from(format!(" {} ", shown(pool))).bold(),
        Span::styled(status.state.as_str(), tone(state, of(status.state))),
        Span::from(match status.pinned {
            Some(workers) => format!("  pinned to {workers}"),
            None => String::new(),
        }),
    ])];
    if let Some(cause) = &status.cause {
        let cause = format!(" {}", Escaped(cause));
        facts.push(Line::styled(cause, tone(state, Tone::Bad)));
    }
    facts.push(Line::from(format!(
        " ready {}  delayed {}  dead letters {}  demand {}  expected {}  live {}",
        status.depth.ready,
        status.delayed,
        status.dead_waiting,
        status.demand,
        status.expected,
        status.workers.live,
    )));
    facts.push(Line::from(format!(
        " runners {} idle, {} busy  jobs {} done, {} retried, {} dead, {} lost",
        status.runners.idle,
        status.runners.busy,
        status.jobs.done,
        status.jobs.retried,
        status.jobs.dead,
        status.jobs.lost,
    )));
    let [top, trend, below] = Layout::vertical([
        Constraint::Length(u16::try_from(facts.len()).unwrap_or(4)),
        Constraint::Length(6),
        Constraint::Min(4),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(facts), top);
    draw_trend(frame, trend, state, pool);
    let detail = match &state.detail {
        Some((of, detail)) if of == name(pool) => detail.clone(),
        _ => Detail::default(),
    };
    let [decision, jobs] =
        Layout::horizontal([Constraint::Percentage(60), Constraint::Percentage(40)]).areas(below);
    frame.render_widget(
        Paragraph::new(detail.decision).block(Block::bordered().title("why this size")),
        decision,
    );
    let lines = match detail.jobs.is_empty() {
        // Narrow enough for a terminal of 80 columns.
        true if status.consumes => {
            "its programs consume by\nthemselves: jobs are not seen".to_owned()
        }
        true => "no job runs".to_owned(),
        false => detail.jobs.join("\n"),
    };
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title("running now")),
        jobs,
    );
}

fn draw_trend(frame: &mut Frame<'_>, area: Rect, state: &ScreenState, pool: &v1::Pool) {
    let block = Block::bordered().title("demand, two minutes");
    let width = usize::from(area.width.saturating_sub(2)).min(TREND);
    let trend = state.trends.get(name(pool)).into_iter().flatten().copied();
    let all: Vec<u64> = trend.collect();
    let newest = &all[all.len().saturating_sub(width)..];
    let sparkline = Sparkline::default()
        .block(block)
        .data(newest)
        .style(tone(state, Tone::Plot));
    frame.render_widget(sparkline, area);
}

fn draw_message(frame: &mut Frame<'_>, area: Rect, state: &ScreenState) {
    let selected = state.pool().map_or_else(String::new, shown);
    let line = match &state.mode {
        ScreenMode::Scale(typed) => {
            let prompt = format!(" workers of {selected}: {typed}_  (Enter pins, Esc cancels)");
            Line::from(prompt).bold()
        }
        ScreenMode::Drain => Line::from(format!(" drain {selected}? y or n")).bold(),
        ScreenMode::List | ScreenMode::Detail | ScreenMode::Help => match &state.message {
            Some(message) => {
                let tone = match message.is_error {
                    true => tone(state, Tone::Bad),
                    false => tone(state, Tone::Good),
                };
                Line::styled(format!(" {}", Escaped(&message.text)), tone)
            }
            None => Line::default(),
        },
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_help(frame: &mut Frame<'_>) {
    let lines = KEYS.map(|(key, meaning)| {
        Line::from(vec![
            Span::from(format!(" {key:<18}")).bold(),
            meaning.into(),
        ])
    });
    let [area] = Layout::horizontal([Constraint::Length(64)])
        .flex(ratatui::layout::Flex::Center)
        .areas(frame.area());
    let height = u16::try_from(KEYS.len()).unwrap_or(0) + 2;
    let [area] = Layout::vertical([Constraint::Length(height)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    frame.render_widget(Clear, area);
    let text = Paragraph::new(lines.to_vec()).wrap(Wrap { trim: false });
    frame.render_widget(text.block(Block::bordered().title("keys")), area);
}

fn shown(pool: &v1::Pool) -> String {
    Escaped(name(pool)).to_string()
}

#[derive(Debug, Clone, Copy)]
enum Tone {
    Good,
    Calm,
    Warn,
    Bad,
    Plot,
}

fn of(state: PoolState) -> Tone {
    match state {
        PoolState::Active => Tone::Good,
        PoolState::Idle => Tone::Calm,
        PoolState::Paused | PoolState::Draining | PoolState::Waiting => Tone::Warn,
        PoolState::Faulted | PoolState::Blocked | PoolState::Stuck | PoolState::Disconnected => {
            Tone::Bad
        }
    }
}

/// Without colours what matters is bold.
fn tone(state: &ScreenState, tone: Tone) -> Style {
    let style = Style::new();
    match (state.color, tone) {
        (false, Tone::Bad | Tone::Warn) => style.add_modifier(Modifier::BOLD),
        (false, Tone::Good | Tone::Calm | Tone::Plot) | (true, Tone::Calm) => style,
        (true, Tone::Good) => style.fg(Color::Green),
        (true, Tone::Warn) => style.fg(Color::Yellow),
        (true, Tone::Bad) => style.fg(Color::Red).add_modifier(Modifier::BOLD),
        (true, Tone::Plot) => style.fg(Color::Cyan),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::top::{
        Detail,
        state::{
            ScreenEvent,
            tests::{pool, with_pools},
        },
    };

    fn screen(state: &ScreenState, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        terminal
    }

    fn text(state: &ScreenState, width: u16, height: u16) -> String {
        screen(state, width, height).backend().to_string()
    }

    #[test]
    fn the_list_fits_80_columns_and_24_lines() {
        let mut state = with_pools(&["thumbnails", "invoices"]);
        for demand in [0, 40, 80, 160, 120] {
            let pools = vec![pool("thumbnails", demand), pool("invoices", 0)];
            let _ = state.take(ScreenEvent::Pools(pools));
        }
        insta::assert_snapshot!(text(&state, 80, 24));
    }

    #[test]
    fn a_wide_screen_has_more_columns() {
        insta::assert_snapshot!(text(&with_pools(&["thumbnails"]), 130, 10));
    }

    #[test]
    fn a_pool_in_detail_says_why_and_what_runs() {
        use ratatui::crossterm::event::{Event as Typed, KeyCode, KeyEvent};
        let mut state = with_pools(&["thumbnails"]);
        let _ = state.take(ScreenEvent::Key(Typed::Key(KeyEvent::from(KeyCode::Enter))));
        let detail = Detail {
            decision: "expected 13 (by policy)".to_owned(),
            jobs: vec!["order-17  w3  4.2s".to_owned()],
        };
        let _ = state.take(ScreenEvent::Detail("thumbnails".to_owned(), detail));
        insta::assert_snapshot!(text(&state, 80, 24));
    }

    #[test]
    fn no_size_is_too_small() {
        let mut state = with_pools(&["thumbnails"]);
        for (width, height) in [(1, 1), (10, 3), (80, 2), (3, 40)] {
            let _ = text(&state, width, height);
        }
        state.mode = ScreenMode::Help;
        let _ = text(&state, 20, 5);
    }

    #[test]
    fn there_is_no_colour_if_none_is_wanted() {
        let mut state = with_pools(&["thumbnails"]);
        let coloured = |state: &ScreenState| {
            let terminal = screen(state, 80, 24);
            let cells = terminal.backend().buffer().content().to_vec();
            cells
                .iter()
                .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(coloured(&state));
        state.color = false;
        assert!(!coloured(&state));
    }

    #[test]
    fn foreign_text_moves_no_cursor() {
        let mut state = with_pools(&["a"]);
        let _ = state.take(ScreenEvent::Refused("\u{1b}[2Jgone".to_owned()));
        assert!(text(&state, 80, 24).contains("\\u{1b}[2Jgone"));
    }
}
