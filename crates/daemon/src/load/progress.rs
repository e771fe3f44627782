//! The progress bar on a terminal's standard error. Without a terminal nothing is shown.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{course::LoadNumbers, report::thousands, shape::Until};

/// The bar.
#[derive(Debug)]
pub(super) struct LoadProgress {
    bar: ProgressBar,
    until: Until,
}

impl LoadProgress {
    /// A bar for a load with this end.
    pub(super) fn new(until: Until) -> Self {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let has_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // The escape codes are written here, because the styles of a template check standard output for colours.
        let bar = match has_colour {
            true => "\u{1b}[36m{bar:24}\u{1b}[0m {msg}",
            false => "{bar:24} {msg}",
        };
        let (length, template) = match until {
            Until::Count(count) => (Some(count), bar),
            Until::Time(time) => (Some(ms(time)), bar),
            Until::End => (None, "{msg}"),
        };
        let bar = match length {
            Some(length) => ProgressBar::with_draw_target(Some(length), target),
            None => ProgressBar::with_draw_target(None, target),
        };
        let style = ProgressStyle::with_template(template).expect("the template is a constant");
        bar.set_style(style.progress_chars("=> "));
        Self { bar, until }
    }

    pub(super) fn show(&self, seen: LoadNumbers) {
        match self.until {
            Until::Count(_) => self.bar.set_position(seen.confirmed),
            Until::Time(time) => self.bar.set_position(ms(seen.elapsed.min(time))),
            Until::End => {}
        }
        self.bar.set_message(line(seen));
    }

    /// Removes the bar, so that the report is printed in its place.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn line(seen: LoadNumbers) -> String {
    let mut line = format!(
        "{:.0}s  {} confirmed, {}/s, {} in flight",
        seen.elapsed.as_secs_f64(),
        thousands(seen.confirmed),
        thousands(seen.rate.round() as u64),
        thousands(seen.in_flight as u64)
    );
    if let Some(answered) = seen.answered {
        let open = seen.published.saturating_sub(answered);
        line.push_str(&format!(
            ", {} answered, {} open",
            thousands(answered),
            thousands(open)
        ));
    }
    if seen.is_blocked {
        line.push_str(", the broker blocks publishers");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_the_progress() {
        let seen = LoadNumbers {
            elapsed: Duration::from_millis(2_600),
            published: 1500,
            confirmed: 1200,
            in_flight: 300,
            rate: 612.4,
            answered: None,
            is_blocked: false,
        };
        assert_eq!(line(seen), "3s  1,200 confirmed, 612/s, 300 in flight");
        let verified = LoadNumbers {
            answered: Some(1000),
            is_blocked: true,
            ..seen
        };
        assert_eq!(
            line(verified),
            "3s  1,200 confirmed, 612/s, 300 in flight, 1,000 answered, 500 open, the broker blocks publishers"
        );
    }
}
