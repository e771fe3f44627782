//! `tidegate record POOL`: writes the arrivals of a running pool as a trace for `simulate`, `tune` and `load`.
//!
//! A supervisor that stops answering is not the end: it may only be restarted. Its successor counts from its own first
//! reading of the queue on. So messages that were waiting then are not counted twice, and those that arrived while no
//! supervisor ran are not counted.

use std::{
    io::{self, Write},
    path::Path,
    pin::pin,
    time::Duration,
};

use anyhow::Context as _;
use jiff::{Timestamp, Unit};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{self, Instant, MissedTickBehavior};

use super::{
    args::{Cli, record::RecordArgs},
    client, supervisor,
};
use crate::{
    files,
    output::{self, CommandFailure, Exit},
    recordings::Arrived,
};
use tidegate::api::v1::Explanation;

/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn record(cli: &Cli, args: &RecordArgs) -> Result<Exit, CommandFailure> {
    let supervisor = supervisor::find(cli, &args.socket)?;
    let name = utf8_percent_encode(&args.pool, NON_ALPHANUMERIC);
    let path = format!("/api/v1/pools/{name}/explain");
    let read = || async {
        let answer: Explanation = client::get(&supervisor, &path, "record the pool").await?;
        Ok::<_, client::ClientError>(answer.decision.as_ref().and_then(Arrived::of))
    };
    let mut stop = pin!(tokio::signal::ctrl_c());
    // Before the file is made: an unknown pool leaves no file behind.
    let mut recording = ArrivalRecording::new(read().await?);
    let mut file = open(&args.output)?;
    write(&args.output, &mut *file, HEAD)?;
    let end = Instant::now() + args.duration.0;
    let mut ticks = time::interval_at(Instant::now() + LINE_EVERY, LINE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut from = Timestamp::now();
    let mut warned = false;
    loop {
        let is_over = tokio::select! {
            biased;
            _ = &mut stop => true,
            () = time::sleep_until(end) => true,
            _ = ticks.tick() => false,
        };
        match read().await {
            Ok(arrived) => {
                let line = recording.line(from, arrived);
                write(&args.output, &mut *file, &line)?;
                from = Timestamp::now();
                warned = false;
            }
            Err(error) if !warned => {
                warned = true;
                output::warn(&format!("failed to {}", tidegate::run::chain(&error)));
            }
            Err(_) => {}
        }
        if is_over {
            break;
        }
    }
    // The last line of a trace says how long the one before it was.
    write(&args.output, &mut *file, &line(Timestamp::now(), 0))?;
    let (messages, file) = (recording.messages, args.output.display());
    output::tell(format!("wrote {messages} arrivals to {file}\n").as_bytes());
    Ok(Exit::Ok)
}

const HEAD: &str = "time,arrivals\n";

/// Turns totals into counts.
#[derive(Debug)]
struct ArrivalRecording {
    /// The last reading. `None` while the pool has not measured.
    last: Option<Arrived>,
    messages: u64,
}

impl ArrivalRecording {
    /// Begins at this reading. Nothing has arrived for a pool that has not measured yet.
    fn new(first: Option<Arrived>) -> Self {
        Self {
            last: first,
            messages: 0,
        }
    }

    /// The line for the arrivals since the last one, which began at `from`.
    fn line(&mut self, from: Timestamp, now: Option<Arrived>) -> String {
        let arrivals = match (self.last, now) {
            (_, None) => 0,
            (Some(last), Some(now)) => now.since(last),
            (None, Some(now)) => now.total,
        };
        self.last = now.or(self.last);
        self.messages += arrivals;
        line(from, arrivals)
    }
}

fn line(from: Timestamp, arrivals: u64) -> String {
    let from = from.round(Unit::Millisecond).unwrap_or(from);
    format!("{from},{arrivals}\n")
}

fn open(path: &Path) -> Result<Box<dyn Write>, CommandFailure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    let file = files::create(path).with_context(|| format!("create {}", path.display()));
    let file = file.map_err(|error| {
        CommandFailure::new(Exit::Unexpected, error).hint("`--output -` writes to standard output")
    })?;
    Ok(Box::new(file))
}

/// Writes a line at once, so that a recording that is killed keeps what it has.
fn write(path: &Path, file: &mut dyn Write, line: &str) -> Result<(), CommandFailure> {
    let written = file.write_all(line.as_bytes()).and_then(|()| file.flush());
    let written = written.with_context(|| format!("write {}", path.display()));
    written.map_err(|error| CommandFailure::new(Exit::Unexpected, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::trace::Trace;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_restart_is_noticed_if_the_successor_has_watched_for_longer_than_its_predecessor() {
        let begin = Instant::now();
        let read = |second: u64, total, watched: u64| Arrived {
            total,
            watched: Duration::from_secs(watched),
            at: begin + Duration::from_secs(second),
        };
        // Read again only after a minute, when the successor has counted more than its predecessor.
        let mut recording = ArrivalRecording::new(Some(read(0, 10, 20)));
        assert_eq!(
            recording.line(at(0), Some(read(60, 15, 50))),
            line(at(0), 15)
        );
        // No restart: the same pool was read again after a minute.
        assert_eq!(
            recording.line(at(60), Some(read(120, 18, 110))),
            line(at(60), 3)
        );
        // No restart: the broker was away for longer than the pool had watched.
        let mut recording = ArrivalRecording::new(Some(read(0, 10, 20)));
        assert_eq!(
            recording.line(at(0), Some(read(60, 10, 20))),
            line(at(0), 0)
        );
        assert_eq!(
            recording.line(at(60), Some(read(61, 11, 81))),
            line(at(60), 1)
        );
    }

    #[test]
    fn a_recording_is_a_trace_of_what_arrived_between_two_readings() {
        let begin = Instant::now();
        let mut recording = ArrivalRecording::new(None);
        let mut text = String::from(HEAD);
        // Not measured yet, then 5 and 7 more, then a restart that counts from zero, then one after which more messages
        // came than before it.
        let seen = [
            None,
            Some((5, 60)),
            Some((12, 61)),
            None,
            Some((3, 5)),
            Some((3, 6)),
            Some((4, 5)),
        ];
        for (second, seen) in (0_u32..).zip(seen) {
            let seen = seen.map(|(total, watched)| Arrived {
                total,
                watched: Duration::from_secs(watched),
                at: begin + second * LINE_EVERY,
            });
            text.push_str(&recording.line(at(second.into()), seen));
        }
        text.push_str(&line(at(7), 0));
        assert_eq!(recording.messages, 19);
        assert!(
            text.contains("2027-01-15T08:00:01Z,5\n2027-01-15T08:00:02Z,7\n"),
            "{text}"
        );
        let trace = Trace::parse(&text).expect("a trace");
        let arrivals: f64 = trace.spans().iter().map(|span| span.arrivals).sum();
        assert_eq!(arrivals, 19.0);
    }
}
