//! `[[pools.NAME.schedule]]`: bounds that change by the clock.

use std::time::Duration;

use jiff::tz::TimeZone;
use tidegate_core::text::{parse_duration, short_duration};
use toml::de::{DeTable, DeValue};

use super::{
    schema::{Item, Key, KeyKind, Table, ValuePosition, WholeNumber, quoted},
    settings::MAX_WORKERS,
};
use crate::decide::{Cron, CronParseError, Policy, Schedule, ScheduleEntry, ScheduledBounds};

/// Longest time that an entry stays open: a leap year.
const MAX_LASTS: Duration = Duration::from_secs(366 * 24 * 3600);

const EXAMPLE: &str = "write [[pools.NAME.schedule]] with cron = \"0 8 * * 1-5\", for = \"10h\" and a bound, such as max = 80";

/// Reads a pool's schedule.
pub(super) fn schedule(pool: &mut Table<'_, '_>, policy: &Key<Policy>) -> Schedule {
    let key = pool.optional(
        "schedule",
        "Bounds that change by the clock, as [[pools.NAME.schedule]]. An entry opens at the times of `cron` (minute, \
         hour, day of the month, month, day of the week) in `time_zone` (UTC when absent), stays open for `for`, and \
         sets `min_active`, `max` or `keep_warm` while it is open. If several entries are open, the later one wins for \
         each bound. A bound that is set by hand wins over the schedule. A job that runs when an entry closes is not \
         stopped.",
        Entries,
        "[{ cron = \"0 8 * * 1-5\", time_zone = \"Europe/Vienna\", for = \"10h\", max = 80 }]",
    );
    let entries = key.value.clone().unwrap_or_default();
    if key.is_sound() && policy.is_sound() {
        for entry in &entries {
            let max = entry.bounds.max.unwrap_or(policy.value.max);
            let floors = [
                ("min_active", entry.bounds.min_active),
                ("keep_warm", entry.bounds.keep_warm),
            ];
            for (name, floor) in floors {
                if floor.is_some_and(|floor| floor > max) {
                    let cron = &entry.cron;
                    let fix =
                        format!("write {name} of at most max, which is {max}, in the entry {cron}");
                    pool.refuse(&key, fix);
                }
            }
        }
    }
    Schedule::new(entries)
}

/// An array of entries.
#[derive(Debug)]
struct Entries;

impl KeyKind for Entries {
    type Value = Vec<ScheduleEntry>;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        "an array of tables with cron, time_zone, for, min_active, max and keep_warm".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Vec<ScheduleEntry>> {
        let DeValue::Array(items) = item.get_ref() else {
            spot.wrong(item, EXAMPLE);
            return None;
        };
        let mut entries = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => entries.extend(entry(item, table, spot)),
                _ => spot.wrong(item, EXAMPLE),
            }
        }
        Some(entries)
    }

    fn toml(&self, entries: &Vec<ScheduleEntry>) -> String {
        let entries: Vec<_> = entries.iter().map(entry_as_toml).collect();
        format!("[{}]", entries.join(", "))
    }
}

fn entry(
    item: &Item<'_>,
    table: &DeTable<'_>,
    spot: &mut ValuePosition<'_>,
) -> Option<ScheduleEntry> {
    let (mut cron, mut zone, mut lasts) = (None, TimeZone::UTC, None);
    let mut bounds = ScheduledBounds::default();
    let mut is_good = true;
    let mut wrong = |item: &Item<'_>, fix: String| {
        is_good = false;
        spot.wrong(item, fix);
    };
    let workers = WholeNumber(0..=MAX_WORKERS);
    for (name, value) in table {
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("cron", DeValue::String(text)) => match text.parse::<Cron>() {
                Ok(parsed) => cron = Some(parsed),
                Err(CronParseError::NeverOpens { .. }) => wrong(
                    value,
                    "write a day that some year has: this entry never opens".to_owned(),
                ),
                Err(error) => wrong(
                    value,
                    format!(
                        "write five fields, such as \"0 8 * * 1-5\": {}",
                        cause(&error)
                    ),
                ),
            },
            ("time_zone", DeValue::String(text)) => match TimeZone::get(text) {
                Ok(known) => zone = known,
                Err(_) => wrong(
                    value,
                    "write the name of a time zone, such as \"Europe/Vienna\" or \"UTC\""
                        .to_owned(),
                ),
            },
            ("for", DeValue::String(text)) => match parse_duration(text) {
                Some(time) if !time.is_zero() && time <= MAX_LASTS => lasts = Some(time),
                _ => wrong(
                    value,
                    "write a duration from \"1s\" to \"366days\"".to_owned(),
                ),
            },
            ("max", _) => match WholeNumber(1..=MAX_WORKERS).within(value) {
                Some(max) => bounds.max = Some(max),
                None => wrong(
                    value,
                    format!("write {}", WholeNumber(1..=MAX_WORKERS).wants()),
                ),
            },
            (bound @ ("min_active" | "keep_warm"), _) => match workers.within(value) {
                Some(floor) if bound == "min_active" => bounds.min_active = Some(floor),
                Some(floor) => bounds.keep_warm = Some(floor),
                None => wrong(value, format!("write {}", workers.wants())),
            },
            ("cron" | "time_zone" | "for", _) => wrong(value, "write a text in quotes".to_owned()),
            (other, _) => wrong(
                value,
                format!(
                    "remove {other}: an entry has cron, time_zone, for, min_active, max and keep_warm"
                ),
            ),
        }
    }
    if !is_good {
        return None;
    }
    let (Some(cron), Some(lasts)) = (cron, lasts) else {
        spot.wrong(item, "write its cron and its for");
        return None;
    };
    if bounds.is_empty() {
        spot.wrong(
            item,
            "write a bound that it changes: min_active, max or keep_warm",
        );
        return None;
    }
    Some(ScheduleEntry {
        cron,
        zone,
        lasts,
        bounds,
    })
}

fn cause(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

fn entry_as_toml(entry: &ScheduleEntry) -> String {
    let mut keys = vec![format!("cron = {}", quoted(&entry.cron.to_string()))];
    if let Some(zone) = entry.zone.iana_name() {
        keys.push(format!("time_zone = {}", quoted(zone)));
    }
    keys.push(format!("for = {}", quoted(&short_duration(entry.lasts))));
    let bounds = [
        ("min_active", entry.bounds.min_active),
        ("max", entry.bounds.max),
        ("keep_warm", entry.bounds.keep_warm),
    ];
    let bounds = bounds
        .into_iter()
        .filter_map(|(name, bound)| Some(format!("{name} = {}", bound?)));
    keys.extend(bounds);
    format!("{{ {} }}", keys.join(", "))
}
