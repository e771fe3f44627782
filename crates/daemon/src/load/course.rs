//! The course of a load: one task that sends the messages that are due, receives confirms and replies, and decides when
//! the load ends.
//!
//! Sending never waits for a confirm until as many as the window are in flight. Then it waits, and messages that become
//! due meanwhile are late: its latency counts from when it was due.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::time::{self, Instant, Interval, MissedTickBehavior};

use super::{
    ledger::{Entered, Ledger},
    pace::Pace,
    plan::LoadPlan,
    publisher::{Ids, Outlet, Publishing, body, message},
    report::{LoadReport, Verified},
    samples::{LoadSample, Samples},
    stop::Stop,
    tally::{LoadCounts, RecentRate},
    watch::Watch,
};
use tidegate::{
    adapters::amqp::bulk::{BulkAnswers, PublishOutcome},
    queue::{HeaderValue, Message, QueueError, QueueErrorKind},
};

/// The number of messages that are sent between two checks for confirms.
const BATCH: usize = 256;

/// How often the screen is drawn and a sample may be taken.
const TICK: Duration = Duration::from_millis(100);

/// How long the pool is observed after the end, for the plot: until it has drained.
const DRAINS_WITHIN: Duration = Duration::from_secs(60);

/// Header of an answer: how the job ended.
const OUTCOME: &str = "x-tidegate-outcome";

/// A running load.
pub(super) struct LoadRun<'a> {
    plan: &'a LoadPlan,
    outlet: &'a Outlet,
    /// The source of answers, with verification.
    answers: Option<BulkAnswers>,
    watch: Option<&'a Watch>,
    stop: Stop,
    ids: Ids,
    pace: Pace,
    begun: Instant,
    in_flight: FuturesUnordered<Tracked>,
    tally: LoadCounts,
    ledger: Option<Ledger>,
    samples: Samples,
    tick: Interval,
    /// The time of the last confirm or answer, or of the first message that was sent after a silence.
    heard: Instant,
    /// Why it ended early.
    ended: Option<Early>,
}

/// Why a load ends early.
#[derive(Debug)]
pub(super) enum Early {
    /// The connection or its channel is lost.
    Broken(QueueError),
    /// Nothing has been confirmed for too long.
    Silent {
        /// Whether the broker blocks publishers.
        is_blocked: bool,
    },
    /// It was told to end.
    Stopped,
}

/// A message in flight.
struct Tracked {
    number: u64,
    due: Duration,
    flight: Publishing,
}

impl Future for Tracked {
    type Output = (u64, Duration, PublishOutcome);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (number, due) = (self.number, self.due);
        let outcome = self.flight.poll_unpin(context);
        outcome.map(|outcome| (number, due, outcome))
    }
}

/// The numbers for the screen.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoadNumbers {
    pub(super) elapsed: Duration,
    pub(super) published: u64,
    pub(super) confirmed: u64,
    pub(super) in_flight: usize,
    /// Of about the last second.
    pub(super) rate: f64,
    /// Answered and still open, with verification.
    pub(super) answered: Option<u64>,
    pub(super) is_blocked: bool,
}

/// The event that woke the course.
enum Woken {
    Stop,
    Tick,
    Answer(Option<Box<Message>>),
    Outcome((u64, Duration, PublishOutcome)),
    Due,
}

impl<'a> LoadRun<'a> {
    pub(super) fn new(
        plan: &'a LoadPlan,
        outlet: &'a Outlet,
        answers: Option<BulkAnswers>,
        watch: Option<&'a Watch>,
        stop: Stop,
    ) -> Self {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        Self {
            ledger: answers.is_some().then(Ledger::default),
            plan,
            outlet,
            answers,
            watch,
            stop,
            ids: Ids::new(),
            pace: Pace::new(plan),
            begun: now,
            in_flight: FuturesUnordered::new(),
            tally: LoadCounts::new(),
            samples: Samples::new(),
            tick,
            heard: now,
            ended: None,
        }
    }

    /// Runs the whole load. `show` is called several times per second.
    ///
    /// # Errors
    /// A message cannot be encoded.
    pub(super) async fn run(
        &mut self,
        mut show: impl FnMut(LoadNumbers),
    ) -> Result<(), QueueError> {
        self.begun = Instant::now();
        self.heard = self.begun;
        let mut rates = RecentRate::default();
        loop {
            let is_sending = self.send_due()?;
            if !is_sending && self.in_flight.is_empty() && !self.awaits_answers() {
                break;
            }
            match self.woken(is_sending).await {
                Woken::Stop => {
                    // After the second interrupt, nothing is waited for.
                    if self.ended.is_some() {
                        break;
                    }
                    self.ended = Some(Early::Stopped);
                }
                Woken::Tick => {
                    let elapsed = self.begun.elapsed();
                    self.sample(elapsed);
                    show(self.seen(rates.note(elapsed, self.tally.confirmed)));
                    if self.has_timed_out(is_sending) {
                        break;
                    }
                }
                Woken::Answer(Some(answer)) => self.note_answers(&answer),
                Woken::Answer(None) => {
                    self.answers = None;
                    self.note_break(lost());
                }
                Woken::Outcome(outcome) => {
                    self.record_outcome(outcome);
                    // All outcomes that are known already, before the next message is sent.
                    while let Some(Some(outcome)) = self.in_flight.next().now_or_never() {
                        self.record_outcome(outcome);
                    }
                }
                Woken::Due => {}
            }
        }
        self.give_up_in_flight();
        self.watch_drain(show).await;
        Ok(())
    }

    /// Sends the messages that are due and fit the window. Returns whether more will be sent later.
    fn send_due(&mut self) -> Result<bool, QueueError> {
        if self.ended.is_some() {
            return Ok(false);
        }
        for _ in 0..BATCH {
            let elapsed = self.begun.elapsed();
            let Some(due) = self
                .pace
                .due(elapsed, self.tally.published, self.plan.until)
            else {
                return Ok(false);
            };
            if due > elapsed || self.in_flight.len() >= self.plan.window {
                break;
            }
            self.send(due)?;
            self.pace.advance();
        }
        Ok(true)
    }

    fn send(&mut self, due: Duration) -> Result<(), QueueError> {
        let number = self.tally.published;
        let id = self.ids.id(number);
        let body = body(&id, self.plan.size);
        let mut message = message(&self.plan.queue, id, body);
        if self.ledger.is_some() {
            let correlation = correlation(number, due);
            message.properties.correlation_id = Some(correlation);
            message.properties.reply_to = Some(BulkAnswers::ADDRESS.to_owned());
        }
        let flight = self.outlet.send(message)?;
        if self.in_flight.is_empty() {
            self.heard = Instant::now();
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.send();
        }
        self.tally.published += 1;
        self.tally.recent.sent += 1;
        self.in_flight.push(Tracked {
            number,
            due,
            flight,
        });
        Ok(())
    }

    async fn woken(&mut self, is_sending: bool) -> Woken {
        let has_room = self.in_flight.len() < self.plan.window;
        let next = match is_sending && has_room {
            true => self.pace.next().map(|due| self.begun + due),
            false => None,
        };
        tokio::select! {
            biased;
            () = self.stop.asked() => Woken::Stop,
            _ = self.tick.tick() => Woken::Tick,
            answer = next_answer(&mut self.answers) => Woken::Answer(answer.map(Box::new)),
            Some(outcome) = self.in_flight.next(), if !self.in_flight.is_empty() => Woken::Outcome(outcome),
            () = time::sleep_until(next.unwrap_or(self.begun)), if next.is_some() => Woken::Due,
        }
    }

    /// Whether an answer may still come.
    fn awaits_answers(&self) -> bool {
        let open = self.ledger.as_ref().map_or(0, Ledger::open);
        open > 0 && self.answers.is_some()
    }

    fn record_outcome(&mut self, (number, due, outcome): (u64, Duration, PublishOutcome)) {
        let elapsed = self.begun.elapsed();
        let tally = &mut self.tally;
        match outcome {
            PublishOutcome::Confirmed => {
                self.heard = Instant::now();
                tally.confirmed += 1;
                tally.last_confirm = elapsed;
                let took = elapsed.saturating_sub(due);
                tally.confirm.record(took);
                tally.recent.confirm.record(took);
            }
            PublishOutcome::Returned { message_id } => {
                self.heard = Instant::now();
                tally.returned += 1;
                // The returned message. It may differ from the message of this confirm.
                let number = message_id.and_then(|id| self.ids.number(&id));
                if let (Some(ledger), Some(number)) = (&mut self.ledger, number) {
                    ledger.void(number);
                }
            }
            PublishOutcome::Refused => {
                self.heard = Instant::now();
                tally.refused += 1;
                if let Some(ledger) = &mut self.ledger {
                    ledger.void(number);
                }
            }
            PublishOutcome::Unknown(error) => {
                tally.refused += 1;
                tally.unconfirmed += 1;
                if let Some(ledger) = &mut self.ledger {
                    ledger.void(number);
                }
                self.note_break(error);
            }
        }
    }

    fn note_break(&mut self, error: QueueError) {
        if !matches!(self.ended, Some(Early::Broken(_))) {
            self.ended = Some(Early::Broken(error));
        }
    }

    fn note_answers(&mut self, answer: &Message) {
        self.note_answer(answer);
        while let Some(Some(answer)) = next_answer(&mut self.answers).now_or_never() {
            self.note_answer(&answer);
        }
    }

    fn note_answer(&mut self, answer: &Message) {
        let correlation = answer.properties.correlation_id.as_deref();
        let Some((number, due)) = correlation.and_then(correlated) else {
            return;
        };
        let outcome = answer.headers.get(OUTCOME);
        let is_failure =
            matches!(outcome, Some(HeaderValue::Text(text)) if text.as_ref() == b"failed");
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        match ledger.answer(number, is_failure) {
            Entered::First => {
                self.heard = Instant::now();
                let took = self.begun.elapsed().saturating_sub(due);
                self.tally.done.record(took);
                self.tally.recent.done.record(took);
            }
            Entered::Again => self.heard = Instant::now(),
            Entered::Stray => {}
        }
    }

    /// Whether no confirm or answer has come for too long, although one is awaited.
    fn has_timed_out(&mut self, is_sending: bool) -> bool {
        let waits = !self.in_flight.is_empty();
        let waits_for_answers = !is_sending && !waits && self.awaits_answers();
        if !(waits || waits_for_answers) || self.heard.elapsed() < self.plan.patience {
            return false;
        }
        // Messages without an answer are lost, and are in the report.
        if waits && self.ended.is_none() {
            self.ended = Some(Early::Silent {
                is_blocked: self.is_blocked(),
            });
        }
        true
    }

    fn is_blocked(&self) -> bool {
        match self.outlet {
            Outlet::Broker(publisher) => publisher.is_blocked(),
            Outlet::Memory(_) => false,
        }
    }

    /// Messages in flight at the end are not confirmed, and are no longer waited for.
    fn give_up_in_flight(&mut self) {
        let left = std::mem::take(&mut self.in_flight);
        for tracked in left {
            self.tally.refused += 1;
            self.tally.unconfirmed += 1;
            if let Some(ledger) = &mut self.ledger {
                ledger.void(tracked.number);
            }
        }
    }

    /// Continues to sample until the pool has drained, so that the plot shows the whole load.
    async fn watch_drain(&mut self, mut show: impl FnMut(LoadNumbers)) {
        let Some(watch) = self.watch else {
            return;
        };
        let until = Instant::now() + DRAINS_WITHIN;
        // Without answers it is unknown whether the pool has begun.
        while self.ended.is_none() && Instant::now() < until && watch.seen().is_working() {
            tokio::select! {
                () = self.stop.asked() => break,
                _ = self.tick.tick() => {
                    self.sample(self.begun.elapsed());
                    show(self.seen(0.0));
                }
            }
        }
        self.sample_now(self.begun.elapsed());
    }

    fn sample(&mut self, elapsed: Duration) {
        if elapsed.saturating_sub(self.tally.recent.since) >= self.samples.every() {
            self.sample_now(elapsed);
        }
    }

    fn sample_now(&mut self, elapsed: Duration) {
        let Some(watch) = self.watch else {
            return;
        };
        let seen = watch.seen();
        let recent = &mut self.tally.recent;
        self.samples.push(LoadSample {
            at: elapsed.as_secs_f64(),
            sent: std::mem::take(&mut recent.sent),
            length: elapsed.saturating_sub(recent.since).as_secs_f64(),
            ready: seen.ready,
            workers: seen.workers,
            confirm_ms: recent.confirm.ms_at(0.95),
            done_ms: recent.done.ms_at(0.95),
        });
        recent.since = elapsed;
        recent.confirm.clear();
        recent.done.clear();
    }

    fn seen(&self, rate: f64) -> LoadNumbers {
        LoadNumbers {
            elapsed: self.begun.elapsed(),
            published: self.tally.published,
            confirmed: self.tally.confirmed,
            in_flight: self.in_flight.len(),
            rate,
            answered: self.ledger.as_ref().map(Ledger::answered),
            is_blocked: self.is_blocked(),
        }
    }

    /// The result.
    pub(super) fn report(&mut self) -> LoadReport {
        let tally = &self.tally;
        let seconds = tally.last_confirm.as_secs_f64();
        let rate = match seconds > 0.0 {
            true => tally.confirmed as f64 / seconds,
            false => 0.0,
        };
        let verified = self.ledger.as_ref().map(|ledger| Verified {
            answered: ledger.answered(),
            lost: ledger.open(),
            repeated: ledger.repeated(),
            done_ms: tally.done.percentiles(),
            failed: ledger.failed(),
        });
        LoadReport {
            published: tally.published,
            confirmed: tally.confirmed,
            returned: tally.returned,
            refused: tally.refused,
            seconds: to_thousandths(seconds),
            rate: to_thousandths(rate),
            confirm_ms: tally.confirm.percentiles(),
            verified,
            unconfirmed: tally.unconfirmed,
            unsent: self.pace.unsent(self.begun.elapsed(), self.ended.is_some()),
        }
    }

    pub(super) fn samples(&self) -> &[LoadSample] {
        self.samples.all()
    }

    /// Why it ended early, if it did.
    pub(super) fn ended(self) -> Option<Early> {
        self.ended
    }
}

/// Rounds to three decimal places: more digits are not meaningful.
fn to_thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Waits for ever if no answers are expected.
async fn next_answer(answers: &mut Option<BulkAnswers>) -> Option<Message> {
    match answers {
        Some(answers) => answers.next().await,
        None => std::future::pending().await,
    }
}

fn lost() -> QueueError {
    QueueError::new(QueueErrorKind::Disconnected, "receive more answers")
}

/// The correlation id of a message: its number, and its due time in microseconds. The answer repeats it, so the load
/// stores only whether a message was answered.
fn correlation(number: u64, due: Duration) -> String {
    format!("{number}.{}", due.as_micros())
}

fn correlated(id: &str) -> Option<(u64, Duration)> {
    let (number, due) = id.split_once('.')?;
    Some((
        number.parse().ok()?,
        Duration::from_micros(due.parse().ok()?),
    ))
}

#[cfg(test)]
mod tests {
    use tidegate::{adapters::memory::MemoryBroker, config::BrokerUrl, queue::QueueKind};

    use super::*;
    use crate::load::shape::{LoadShape, Until};

    /// Fifty messages, ten a second, of which at most two are in flight. The broker confirms at once, except for two
    /// seconds.
    #[tokio::test(start_paused = true)]
    async fn while_confirms_stall_latency_counts_from_when_each_message_was_due() {
        let broker = MemoryBroker::new();
        broker.declare_queue("work", QueueKind::Classic);
        let plan = LoadPlan {
            broker: BrokerUrl::new("amqp://localhost").into(),
            queue: "work".into(),
            until: Until::Count(50),
            rate: Some(10.0),
            shape: LoadShape::Steady,
            period: None,
            size: 16,
            window: 2,
            patience: Duration::from_secs(30),
            verify: false,
            plot: None,
            plot_title: None,
        };
        let outlet = Outlet::Memory(broker.clone());
        let mut load = LoadRun::new(&plan, &outlet, None, None, Stop::listen().unwrap());
        let stall = async {
            time::sleep(Duration::from_millis(1050)).await;
            broker.set_confirms_held(true);
            time::sleep(Duration::from_secs(2)).await;
            broker.set_confirms_held(false);
        };
        let (ran, ()) = tokio::join!(load.run(|_| {}), stall);
        ran.unwrap();

        let report = load.report();
        assert_eq!((report.published, report.confirmed), (50, 50));
        // Twenty messages became due in the stall, and only two of them were sent in it.
        // They were due a tenth of a second after each other, so they waited 50 ms, 150 ms, and so on until 1.95 s.
        let waited = |share: f64| load.tally.confirm.ms_at(share).unwrap();
        for (share, at_least, at_most) in [
            (0.60, 0.0, 10.0),
            (0.62, 40.0, 60.0),
            (0.80, 940.0, 960.0),
            (0.95, 1740.0, 1760.0),
            (1.00, 1940.0, 1960.0),
        ] {
            let ms = waited(share);
            assert!((at_least..=at_most).contains(&ms), "{share}: {ms}");
        }
        // The schedule does not move: the last one is due after 4.9 s and is not late.
        assert_eq!(report.seconds.round(), 5.0, "{report:?}");
    }

    #[test]
    fn a_correlation_id_has_the_number_and_the_due_time_of_the_message() {
        let due = Duration::from_micros(1_234_567);
        assert_eq!(correlated(&correlation(17, due)), Some((17, due)));
        for other in ["", "17", "a.b", "17.", "-1.5"] {
            assert_eq!(correlated(other), None, "{other}");
        }
    }
}
