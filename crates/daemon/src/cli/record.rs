//! `tidegate record POOL`: writes the arrivals of a running pool as a trace for `simulate`, `tune` and `load`.
//!
//! A supervisor that stops answering is not the end: it may only be restarted. What arrives meanwhile is counted when it
//! answers again, as far as the queue still shows it.

use std::{
    fs::File,
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
use crate::output::{self, CommandFailure, Exit};
use tidegate::api::v1::Explanation;

/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn record(cli: &Cli, args: &RecordArgs) -> Result<Exit, CommandFailure> {
    let supervisor = supervisor::find(cli, &args.socket)?;
    let name = utf8_percent_encode(&args.pool, NON_ALPHANUMERIC);
    let path = format!("/api/v1/pools/{name}/explain");
    let read = || async {
        let answer: Explanation = client::get(&supervisor, &path, "record the pool").await?;
        Ok::<_, client::ClientError>(arrived(&answer))
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
            Ok(total) => {
                let line = recording.line(from, total);
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

/// Messages that the pool has seen arrive. `None` while it has watched too shortly.
fn arrived(answer: &Explanation) -> Option<u64> {
    let inputs = &answer.decision.as_ref()?.inputs;
    Some(inputs.measured.arrivals?.total)
}

/// Turns totals into counts.
#[derive(Debug)]
struct ArrivalRecording {
    /// The last total that is known.
    total: u64,
    messages: u64,
}

impl ArrivalRecording {
    /// Begins at this total. Nothing has arrived for a pool that has not measured yet.
    fn new(total: Option<u64>) -> Self {
        Self {
            total: total.unwrap_or(0),
            messages: 0,
        }
    }

    /// The line for the arrivals since the last one, which began at `from`.
    fn line(&mut self, from: Timestamp, total: Option<u64>) -> String {
        let arrivals = match total {
            // A supervisor that restarted, or a queue that was created again, counts from zero.
            Some(total) if total < self.total => total,
            Some(total) => total - self.total,
            None => 0,
        };
        self.total = total.unwrap_or(self.total);
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
    let file = File::create(path).with_context(|| format!("create {}", path.display()));
    let file = file.map_err(|error| CommandFailure::new(Exit::Unexpected, error))?;
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
    fn a_recording_is_a_trace_of_what_arrived_between_two_readings() {
        let mut recording = ArrivalRecording::new(None);
        let mut text = String::from(HEAD);
        // Not measured yet, then 5 and 7 more, then a restart that counts from zero, then nothing.
        let totals = [None, Some(5), Some(12), Some(3), Some(3), None];
        for (second, total) in (0..).zip(totals) {
            text.push_str(&recording.line(at(second), total));
        }
        text.push_str(&line(at(6), 0));
        assert_eq!(recording.messages, 15);
        assert!(
            text.contains("2027-01-15T08:00:01Z,5\n2027-01-15T08:00:02Z,7\n"),
            "{text}"
        );
        let trace = Trace::parse(&text).expect("a trace");
        let arrivals: f64 = trace.spans().iter().map(|span| span.arrivals).sum();
        assert_eq!(arrivals, 15.0);
    }
}
