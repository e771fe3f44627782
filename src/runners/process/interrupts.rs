//! The interrupts of a job: the orders of the supervisor, and the timer.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep};

use super::{CourseEvent, FOREVER};
use crate::runner::JobControl;

/// The interrupts of one job.
pub(in crate::runners) struct Interrupts<'c> {
    control: &'c JobControl,
    timer: Pin<Box<Sleep>>,
    /// Each order is reported once.
    has_told_stop: bool,
    has_told_kill: bool,
}

impl<'c> Interrupts<'c> {
    /// The first timer is the job's timeout.
    pub(in crate::runners) fn new(control: &'c JobControl, timeout: Duration) -> Self {
        Self {
            control,
            timer: Box::pin(sleep(timeout.min(FOREVER))),
            has_told_stop: false,
            has_told_kill: false,
        }
    }

    /// The next interrupt. A kill comes before a stop, and an order before the timer.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub(in crate::runners) async fn next(&mut self) -> CourseEvent {
        tokio::select! {
            biased;
            () = self.control.kill.cancelled(), if !self.has_told_kill => {
                self.has_told_kill = true;
                CourseEvent::KillAsked
            }
            () = self.control.stop.cancelled(), if !self.has_told_stop => {
                self.has_told_stop = true;
                CourseEvent::StopAsked
            }
            () = &mut self.timer => CourseEvent::TimeUp,
        }
    }

    /// Sets the timer again.
    pub(in crate::runners) fn set_timer(&mut self, after: Duration) {
        let at = Instant::now() + after.min(FOREVER);
        self.timer.as_mut().reset(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_order_is_reported_once_and_before_an_expired_timer() {
        let control = JobControl::default();
        let mut interrupts = Interrupts::new(&control, Duration::from_secs(1));
        assert_eq!(interrupts.next().await, CourseEvent::TimeUp);
        control.stop.cancel();
        control.kill.cancel();
        assert_eq!(interrupts.next().await, CourseEvent::KillAsked);
        assert_eq!(interrupts.next().await, CourseEvent::StopAsked);
        let begin = Instant::now();
        interrupts.set_timer(Duration::from_secs(3));
        assert_eq!(interrupts.next().await, CourseEvent::TimeUp);
        assert_eq!(begin.elapsed(), Duration::from_secs(3));
    }
}
