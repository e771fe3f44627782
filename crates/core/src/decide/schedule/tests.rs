//! Tests of schedules: when entries are open, also when the clocks change.

use super::*;
use crate::decide::Policy;

fn entry(cron: &str, zone: &str, hours: u64, bounds: ScheduledBounds) -> ScheduleEntry {
    ScheduleEntry {
        cron: cron.parse().unwrap(),
        zone: TimeZone::get(zone).unwrap(),
        lasts: Duration::from_secs(hours * 3600),
        bounds,
    }
}

fn max(max: u32) -> ScheduledBounds {
    ScheduledBounds {
        max: Some(max),
        ..ScheduledBounds::default()
    }
}

fn floor(min_active: u32) -> ScheduledBounds {
    ScheduledBounds {
        min_active: Some(min_active),
        ..ScheduledBounds::default()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn an_entry_is_open_from_its_time_for_its_duration() {
    let schedule = Schedule::new(vec![entry("0 9 * * 1-5", "Europe/Vienna", 8, max(50))]);
    // (time, open). 2026-11-26 is a Thursday, one hour ahead of UTC.
    for (time, open) in [
        ("2026-11-26T07:59:59Z", false),
        ("2026-11-26T08:00:00Z", true),
        ("2026-11-26T15:59:59Z", true),
        ("2026-11-26T16:00:00Z", false),
        ("2026-11-28T10:00:00Z", false),
    ] {
        let state = schedule.at(at(time));
        assert_eq!(state.bounds.max, open.then_some(50), "{time}");
    }
}

#[test]
fn the_state_says_what_is_open_and_what_comes_next() {
    let schedule = Schedule::new(vec![
        entry("0 9 * * *", "Europe/Vienna", 8, max(50)),
        entry("0 22 * * *", "UTC", 6, floor(2)),
    ]);
    let state = schedule.at(at("2026-11-26T10:00:00Z"));
    assert_eq!(state.open.len(), 1);
    assert_eq!(
        state.open[0].shown_until(),
        "2026-11-26T16:00:00Z (17:00:00 CET)"
    );
    let next = state.next.expect("one comes next");
    assert_eq!(
        (next.cron.as_str(), next.shown_from().as_str()),
        ("0 22 * * *", "2026-11-26T22:00:00Z")
    );
    let state = schedule.at(at("2026-11-26T23:00:00Z"));
    assert_eq!(state.open[0].shown_until(), "2026-11-27T04:00:00Z");
    let sydney = Schedule::new(vec![entry("0 9 * * *", "Australia/Sydney", 1, max(50))]);
    let next = sydney.at(at("2026-11-26T12:00:00Z")).next.unwrap();
    assert_eq!(
        next.shown_from(),
        "2026-11-26T22:00:00Z (2026-11-27 09:00:00 AEDT)"
    );
}

#[test]
fn the_later_of_overlapping_entries_wins_for_each_bound() {
    let both = ScheduledBounds {
        min_active: Some(5),
        max: Some(20),
        keep_warm: None,
    };
    let schedule = Schedule::new(vec![
        entry("0 0 * * *", "UTC", 24, both),
        entry("0 12 * * *", "UTC", 1, max(80)),
    ]);
    let wanted = |max| ScheduledBounds {
        max: Some(max),
        ..both
    };
    assert_eq!(schedule.at(at("2026-11-26T11:00:00Z")).bounds, wanted(20));
    assert_eq!(schedule.at(at("2026-11-26T12:30:00Z")).bounds, wanted(80));
}

#[test]
fn a_time_that_the_clocks_skip_opens_at_the_first_time_that_exists() {
    // In Vienna, 2026-03-29 has no time between 02:00 and 03:00.
    let schedule = Schedule::new(vec![entry("30 2 * * *", "Europe/Vienna", 1, max(9))]);
    for (time, open) in [
        ("2026-03-29T00:59:59Z", false),
        ("2026-03-29T01:00:00Z", true),
        ("2026-03-29T01:59:59Z", true),
        ("2026-03-29T02:00:00Z", false),
    ] {
        assert_eq!(!schedule.at(at(time)).open.is_empty(), open, "{time}");
    }
}

#[test]
fn a_time_that_exists_twice_opens_once() {
    // In Vienna, 2026-10-25 has two hours from 02:00 to 03:00: at 00:00 UTC and at 01:00 UTC.
    let schedule = Schedule::new(vec![entry("30 2 * * *", "Europe/Vienna", 1, max(9))]);
    for (time, open) in [
        ("2026-10-25T00:29:59Z", false),
        ("2026-10-25T00:30:00Z", true),
        ("2026-10-25T01:29:59Z", true),
        ("2026-10-25T01:30:00Z", false),
        ("2026-10-25T02:00:00Z", false),
    ] {
        assert_eq!(!schedule.at(at(time)).open.is_empty(), open, "{time}");
    }
}

#[test]
fn a_window_over_a_change_of_the_clocks_keeps_its_length() {
    let schedule = Schedule::new(vec![entry("0 22 * * *", "Europe/Vienna", 8, max(9))]);
    // Opens at 22:00 CET, which is 21:00 UTC, and closes 8 hours later, at 07:00 CEST.
    let state = schedule.at(at("2026-03-29T00:00:00Z"));
    assert_eq!(state.open[0].until, at("2026-03-29T05:00:00Z"));
    assert_eq!(state.open[0].until_local.as_deref(), Some("07:00:00 CEST"));
    // The other way: from 22:00 CEST, which is 20:00 UTC, until 05:00 CET.
    let state = schedule.at(at("2026-10-25T00:30:00Z"));
    assert_eq!(state.open[0].until, at("2026-10-25T04:00:00Z"));
    assert_eq!(state.open[0].until_local.as_deref(), Some("05:00:00 CET"));
}

#[test]
fn the_cache_agrees_with_the_schedule_at_every_minute_forwards_and_backwards() {
    let schedule = Schedule::new(vec![
        entry("*/7 1-3 * * *", "Europe/Vienna", 1, max(9)),
        entry("30 2 * * *", "America/New_York", 3, floor(4)),
    ]);
    let mut cache = ScheduleCache::default();
    let start = at("2026-10-24T12:00:00Z");
    let times = (0..48 * 60).map(|minute| start + SignedDuration::from_mins(minute));
    let times: Vec<Timestamp> = times.collect();
    for time in times.iter().chain(times.iter().rev().step_by(97)) {
        let wanted = schedule.at(*time);
        let cached = cache.at(&schedule, *time);
        assert_eq!(
            (cached.bounds, &cached.open),
            (wanted.bounds, &wanted.open),
            "{time}"
        );
    }
}

#[test]
fn a_bound_that_was_set_by_hand_stays() {
    let configured = Policy::backlog(10).min_active(1).max(50);
    let night = ScheduledBounds {
        min_active: Some(3),
        max: Some(10),
        keep_warm: None,
    };
    let policy = configured.scheduled(&night, None);
    assert_eq!((policy.min_active, policy.max), (3, 10));
    let by_hand = Policy::backlog(2).min_active(1).max(80);
    let policy = configured.scheduled(&night, Some(&by_hand));
    assert_eq!((policy.min_active, policy.max), (3, 80));
    // A floor never lifts the ceiling.
    let policy = configured.scheduled(&floor(60), None);
    assert_eq!((policy.min_active, policy.max), (50, 50));
}

#[test]
fn a_cron_expression_that_never_opens_is_refused() {
    for text in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
        let error = text.parse::<Cron>().expect_err(text);
        assert!(
            matches!(error, CronParseError::NeverOpens { .. }),
            "{error}"
        );
    }
    for text in ["0 0 29 2 *", "0 0 31 2,3 *", "0 0 30 2 MON"] {
        assert!(text.parse::<Cron>().is_ok(), "{text}");
    }
}

#[test]
fn a_cron_expression_without_five_valid_fields_is_refused_unless_it_is_a_nickname() {
    for text in [
        "",
        "* * *",
        "* * * * * *",
        "0 9 * * 1-5 Europe/Vienna",
        "61 * * * *",
        "hello",
    ] {
        let error = text.parse::<Cron>().expect_err(text);
        assert!(error.to_string().contains("five fields"), "{error}");
    }
    for text in [
        "0 9 * * 1-5",
        "*/5 * * * *",
        "0 0 L * *",
        "@daily",
        "0 9 * * MON-FRI",
    ] {
        assert!(text.parse::<Cron>().is_ok(), "{text}");
    }
}
