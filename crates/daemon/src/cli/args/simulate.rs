//! The arguments of `tidegate simulate` and `tidegate tune`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use tidegate_sim::Neighbour;

#[derive(Debug, Args)]
pub(in crate::cli) struct SimulateArgs {
    #[command(flatten)]
    pub(in crate::cli) traffic: TrafficArgs,

    /// Compare with these too: fixed:WORKERS, keda:JOBS, horizon, knative:JOBS, judoscale:TIME. They use the first
    /// configuration's `max`
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(in crate::cli) against: Vec<Neighbour>,

    /// Draw arrivals, depth, workers and waits of all runs into one picture
    #[arg(long, value_name = "FILE.svg")]
    pub(in crate::cli) plot: Option<PathBuf>,

    /// Write each decision that changed something, one JSON object a line: its `run`, and `decision` as in `explain`
    #[arg(long, value_name = "FILE.jsonl")]
    pub(in crate::cli) decisions: Option<PathBuf>,

    /// Configurations with one pool each, or FILE#POOL [default: the configuration of --config]
    #[arg(value_name = "CONFIG")]
    pub(in crate::cli) sources: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TuneArgs {
    #[command(flatten)]
    pub(in crate::cli) traffic: TrafficArgs,

    /// The part of the trace on which settings are chosen. They are checked on the rest
    #[arg(long, value_name = "SHARE", default_value = "70%", value_parser = share)]
    pub(in crate::cli) first: f64,

    /// A configuration with one pool, or FILE#POOL [default: the configuration of --config]
    #[arg(value_name = "CONFIG")]
    pub(in crate::cli) source: Option<String>,
}

/// The traffic of a run.
#[derive(Debug, Args)]
pub(in crate::cli) struct TrafficArgs {
    /// When jobs arrive: CSV with the head line `time,arrivals` or `time`
    #[arg(long, value_name = "FILE.csv")]
    pub(in crate::cli) trace: PathBuf,

    /// How long jobs take: exp:2s (exponential), fixed:2s, lognormal:2s,4s (mean and standard deviation), or a file of
    /// measured times, one a line, in seconds or as 250ms
    #[arg(long, value_name = "S")]
    pub(in crate::cli) service: String,

    /// How long a runner takes to start. If each job has its own process, include its start in --service
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time)]
    pub(in crate::cli) start_up: Duration,

    /// Share of the attempts that fail, such as 1%. They are retried with the pool's settings
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = share)]
    pub(in crate::cli) failures: f64,

    /// Longest acceptable wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub(in crate::cli) target: Duration,

    /// Seed of the random numbers: the same seed gives the same output
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(in crate::cli) seed: u64,
}

fn time(text: &str) -> Result<Duration, String> {
    tidegate::text::parse_duration(text)
        .ok_or_else(|| "write a time such as 100ms or 30s".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse().map(|percent: f64| percent / 100.0),
        None => text.parse(),
    };
    match share {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write a share from 0% to 100%, such as 1% or 0.01".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent_or_fractions() {
        for (text, found) in [
            ("1%", Some(0.01)),
            ("0.25", Some(0.25)),
            ("100%", Some(1.0)),
        ] {
            assert_eq!(share(text).ok(), found, "{text}");
        }
        for wrong in ["101%", "2", "-1%", "NaN", "few"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
