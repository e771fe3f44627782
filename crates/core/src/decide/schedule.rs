//! Schedules: bounds of a policy that change by the clock.
//!
//! An entry opens at the times of a cron expression in a time zone, and stays open for a duration. While it is open, it
//! sets some of the pool's bounds. If several entries are open, the later one in the configuration wins, for
//! each bound separately. A bound that the operator set by hand wins over all of them.
//!
//! A changed bound is scaling like any other: a job that runs when its window ends is not stopped.
//!
//! When the clocks change, the cron expression follows Vixie cron: an opening at a fixed time that does not exist moves
//! to the first time that does, and an opening at a time that exists twice happens once.

use std::{cmp::Ordering, fmt, str::FromStr, time::Duration};

use croner::{
    errors::CronError,
    parser::{CronParser, Seconds, Year},
    time::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday},
};
use jiff::{
    SignedDuration, Timestamp, ZonedDateTime,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::time;

/// A cron expression with five fields: minute, hour, day of the month, month, day of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    parsed: croner::Cron,
}

/// A text is not a cron expression that a schedule can have.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CronParseError {
    /// The text has another form.
    #[error("{text:?} is not a cron expression with five fields")]
    Form {
        /// The text.
        text: String,
        /// The reason.
        source: CronError,
    },
    /// It has only days that do not exist, such as February 30.
    #[error("{text:?} never opens, because no year has such a day")]
    NeverOpens {
        /// The text.
        text: String,
    },
}

impl FromStr for Cron {
    type Err = CronParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let text = text.trim().to_owned();
        let parsed = match parser.parse(&text) {
            Ok(parsed) => parsed,
            Err(source) => return Err(CronParseError::Form { text, source }),
        };
        // A search without a result goes through thousands of years. It is made once, here: at a reconcile every
        // expression has a next opening, within 40 years.
        let start = CronTime(Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC));
        match parsed.find_next_occurrence(&start, true) {
            Ok(_) => Ok(Self { text, parsed }),
            Err(_) => Err(CronParseError::NeverOpens { text }),
        }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// One entry of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// When it opens.
    pub cron: Cron,
    /// The time zone of `cron`.
    pub zone: TimeZone,
    /// How long it stays open. Absolute time: an hour is an hour, also when the clocks change.
    pub lasts: Duration,
    /// The bounds that it changes.
    pub bounds: ScheduledBounds,
}

/// Bounds that a schedule sets. `None` leaves the pool's own bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledBounds {
    /// The minimum number of workers while there is work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_active: Option<u32>,
    /// The maximum number of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Workers kept on an empty queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_warm: Option<u32>,
}

/// The entries of a pool, in the order of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    entries: Vec<ScheduleEntry>,
}

/// The state of a schedule at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScheduleState {
    /// The bounds in force.
    pub bounds: ScheduledBounds,
    /// The open entries, in the order of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<OpenEntry>,
    /// The next opening.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextOpening>,
}

/// An entry that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenEntry {
    /// Its cron expression.
    pub cron: String,
    /// When it closes.
    pub until: Timestamp,
    /// The same in its own time zone: `17:00:00 CET`. Absent if that zone is UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_local: Option<String>,
    /// The bounds that it changes.
    #[serde(flatten)]
    pub bounds: ScheduledBounds,
}

/// The next entry that opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextOpening {
    /// Its cron expression.
    pub cron: String,
    /// When it opens.
    pub from: Timestamp,
    /// The same in its own time zone: `09:00:00 CET`. Absent if that zone is UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_local: Option<String>,
    /// The bounds that it changes.
    #[serde(flatten)]
    pub bounds: ScheduledBounds,
}

impl ScheduledBounds {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These bounds, overridden by those that `later` sets.
    #[must_use]
    fn then(self, later: Self) -> Self {
        Self {
            min_active: later.min_active.or(self.min_active),
            max: later.max.or(self.max),
            keep_warm: later.keep_warm.or(self.keep_warm),
        }
    }
}

impl fmt::Display for ScheduledBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = [
            ("min_active", self.min_active),
            ("max", self.max),
            ("keep_warm", self.keep_warm),
        ];
        let mut comma = "";
        for (name, bound) in bounds {
            if let Some(bound) = bound {
                write!(f, "{comma}{name} {bound}")?;
                comma = ", ";
            }
        }
        Ok(())
    }
}

impl Schedule {
    /// A schedule of these entries.
    pub fn new(entries: Vec<ScheduleEntry>) -> Self {
        Self { entries }
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries.
    pub fn entries(&self) -> &[ScheduleEntry] {
        &self.entries
    }

    /// The state of the schedule at `wall`.
    pub fn at(&self, wall: Timestamp) -> ScheduleState {
        let mut state = ScheduleState::default();
        for entry in &self.entries {
            let now = CronTime(wall.to_zoned_datetime(entry.zone.clone()));
            if let Ok(CronTime(opened)) = entry.cron.parsed.find_previous_occurrence(&now, true)
                && let Some(until) = entry.closes(&opened)
                && wall < until.timestamp()
            {
                state.bounds = state.bounds.then(entry.bounds);
                state.open.push(OpenEntry {
                    cron: entry.cron.text.clone(),
                    until: until.timestamp(),
                    until_local: local(&until),
                    bounds: entry.bounds,
                });
            }
            if let Ok(CronTime(opens)) = entry.cron.parsed.find_next_occurrence(&now, false)
                && state
                    .next
                    .as_ref()
                    .is_none_or(|next| opens.timestamp() < next.from)
            {
                state.next = Some(NextOpening {
                    cron: entry.cron.text.clone(),
                    from: opens.timestamp(),
                    from_local: local(&opens),
                    bounds: entry.bounds,
                });
            }
        }
        state
    }
}

impl ScheduleEntry {
    fn closes(&self, opened: &ZonedDateTime) -> Option<ZonedDateTime> {
        let lasts = SignedDuration::try_from(self.lasts).ok()?;
        opened.checked_add(lasts).ok()
    }
}

impl ScheduleState {
    /// When the state changes next, if it does.
    fn changes(&self) -> Option<Timestamp> {
        let closes = self.open.iter().map(|entry| entry.until);
        closes.chain(self.next.as_ref().map(|next| next.from)).min()
    }

    /// The open entry that gives a bound.
    pub(super) fn entry_for(
        &self,
        bound: impl Fn(&ScheduledBounds) -> Option<u32>,
    ) -> Option<&OpenEntry> {
        self.open
            .iter()
            .rev()
            .find(|entry| bound(&entry.bounds).is_some())
    }
}

/// The state of a schedule, computed once for as long as it holds.
#[derive(Debug, Clone, Default)]
pub(super) struct ScheduleCache {
    /// From and until when the state holds.
    holds: Option<(Timestamp, Option<Timestamp>)>,
    state: ScheduleState,
}

impl ScheduleCache {
    /// The state at `wall`. Computed again if the last state does not apply at that time, or if the clock was set back.
    pub(super) fn at(&mut self, schedule: &Schedule, wall: Timestamp) -> &ScheduleState {
        let is_known = self
            .holds
            .is_some_and(|(from, until)| from <= wall && until.is_none_or(|until| wall < until));
        if !is_known {
            self.state = schedule.at(wall);
            self.holds = Some((wall, self.state.changes()));
        }
        &self.state
    }

    /// Forgets the state, because the schedule was replaced.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A time as its own zone has it, with the date if it is another day than in UTC. `None` in UTC itself.
fn local(time: &ZonedDateTime) -> Option<String> {
    if *time.time_zone() == TimeZone::UTC {
        return None;
    }
    let utc = time.timestamp().to_zoned_datetime(TimeZone::UTC);
    let format = match time.date() == utc.date() {
        true => "%H:%M:%S %Z",
        false => "%Y-%m-%d %H:%M:%S %Z",
    };
    Some(time.strftime(format).to_string())
}

impl OpenEntry {
    /// When it closes, for people.
    pub(super) fn shown_until(&self) -> String {
        shown(self.until, self.until_local.as_deref())
    }
}

impl NextOpening {
    /// When it opens, for people.
    pub(super) fn shown_from(&self) -> String {
        shown(self.from, self.from_local.as_deref())
    }
}

fn shown(at: Timestamp, local: Option<&str>) -> String {
    match local {
        Some(local) => format!("{} ({local})", time(at)),
        None => time(at),
    }
}

/// A time for croner, which has no support of its own for this version of jiff.
#[derive(Debug, Clone)]
struct CronTime(ZonedDateTime);

impl CronDateTime for CronTime {
    fn to_civil(&self) -> CivilDateTime {
        let part = |number: i8| u32::from(number.unsigned_abs());
        let time = self.0.datetime();
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(
                i32::from(time.year()),
                part(time.month()),
                part(time.day()),
            ),
            CivilTime::from_parts_unchecked(
                part(time.hour()),
                part(time.minute()),
                part(time.second()),
            ),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(u32::from(
            self.0.weekday().to_sunday_zero_offset().unsigned_abs(),
        ))
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let part = |number: u32| i8::try_from(number).map_err(|_| CronError::InvalidDate);
        let time = DateTime::new(
            i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?,
            part(civil.month())?,
            part(civil.day())?,
            part(civil.hour())?,
            part(civil.minute())?,
            part(civil.second())?,
            0,
        )
        .map_err(|_| CronError::InvalidDate)?;
        let ambiguous = self.0.time_zone().to_ambiguous_zoned_datetime(time);
        let invalid = |_| CronError::InvalidTime;
        Ok(match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => {
                Resolution::Single(Self(ambiguous.unambiguous().map_err(invalid)?))
            }
            AmbiguousOffset::Fold { .. } => Resolution::Ambiguous(
                Self(ambiguous.clone().earlier().map_err(invalid)?),
                Self(ambiguous.later().map_err(invalid)?),
            ),
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0
            .checked_add(SignedDuration::from_secs(seconds))
            .ok()
            .map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.timestamp().cmp(&other.0.timestamp())
    }
}

#[cfg(test)]
mod tests;
