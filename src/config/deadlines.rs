//! Checks a job's timeout against the pool's deadline.

use std::time::Duration;

use tidegate_core::text::short_duration as span;

use super::schema::{Key, Table};
use crate::{
    decide::{DeliveryDeadlines, margin},
    runners::keys::JobKeys,
};

/// A job that runs longer than the deadline loses its delivery while it still runs, and is run twice. So its timeout
/// must come first, with enough time left to end the job and to settle.
pub(super) fn refuse_outliving_jobs(
    table: &mut Table<'_, '_>,
    job: &JobKeys,
    ack_deadline: &Key<Duration>,
) {
    let JobKeys { timeout, grace } = job;
    if !(timeout.is_sound() && grace.is_sound() && ack_deadline.is_sound()) {
        return;
    }
    let margin = margin(ack_deadline.value);
    let room = ack_deadline.value.saturating_sub(margin);
    if timeout.value.saturating_add(grace.value) <= room {
        return;
    }
    let (_, name) = grace.path.rsplit_once('.').unwrap_or(("", &grace.path));
    let rest = format!(
        "ack_deadline must also cover {name} and {} to settle",
        span(margin)
    );
    let or_raise = "or raise ack_deadline and the broker's consumer timeout";
    // If neither key of the job is given, the mistake is in the deadline.
    if !timeout.is_given() && !grace.is_given() {
        let (timeout, grace) = (span(timeout.value), span(grace.value));
        let fix = format!(
            "write more than runner.timeout and runner.{name}, {timeout} and {grace}, or lower them"
        );
        return table.refuse(ack_deadline, fix);
    }
    let left = room.saturating_sub(grace.value);
    if timeout.is_given() && !left.is_zero() {
        let fix = format!("write at most {}, {or_raise}: {rest}", span(left));
        return table.refuse(timeout, fix);
    }
    let left = room.saturating_sub(timeout.value);
    match left.is_zero() || !grace.is_given() {
        true => table.refuse(timeout, format!("write less, {or_raise}: {rest}")),
        false => table.refuse(grace, format!("write at most {}, {or_raise}", span(left))),
    }
}

/// Prefetched deliveries age while they wait. A delivery with too little time left returns to the queue. No message is
/// lost, but this is most likely not intended.
pub(super) fn warn_of_long_waits(
    table: &mut Table<'_, '_>,
    job: &JobKeys,
    ack_deadline: &Key<Duration>,
    prefetch: &Key<u16>,
) {
    let is_sound = job.timeout.is_sound() && job.grace.is_sound() && ack_deadline.is_sound();
    if !is_sound || prefetch.value <= 1 || !prefetch.is_sound() {
        return;
    }
    let timeout = job.timeout.value;
    let deadlines = DeliveryDeadlines::new(ack_deadline.value, job.grace.value);
    if timeout > deadlines.stop || timeout.saturating_mul(prefetch.value.into()) <= deadlines.stop {
        return;
    }
    let most = (deadlines.stop.as_nanos() / timeout.as_nanos().max(1)).max(1);
    table.warn_of(
        prefetch,
        format!(
            "write at most {most}, or lower runner.timeout: after jobs that take their whole timeout of {}, the last \
            prefetched delivery is too close to ack_deadline and returns to the queue",
            span(timeout)
        ),
    );
}
