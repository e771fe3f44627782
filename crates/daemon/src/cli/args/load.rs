//! The arguments of `tidegate load`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use tidegate::text::parse_duration;

use super::socket::SocketArgs;
use crate::{
    files::{self, LARGEST_TRACE, Links},
    load::LoadShape,
};
use tidegate::trace::Trace;

#[derive(Debug, Args)]
pub(in crate::cli) struct LoadArgs {
    /// The queue. Messages go through the default exchange
    #[arg(long, value_name = "QUEUE")]
    pub(in crate::cli) queue: String,

    /// How many messages to send
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) count: Option<u64>,

    /// How long to send, such as 90s or 10m. Late messages may take 5 s more
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "count")]
    pub(in crate::cli) duration: Option<Duration>,

    /// Messages per second, on average [default: as many as the broker confirms, or the rate of the trace]
    #[arg(long, value_name = "R", value_parser = rate)]
    pub(in crate::cli) rate: Option<f64>,

    /// How the rate changes over time: steady, burst, sine, step, or a trace (a CSV file)
    #[arg(long, value_name = "SHAPE", default_value = "steady", value_parser = shape)]
    pub(in crate::cli) shape: LoadShape,

    /// The length of one wave of the shape [default: half of the load, or all of it for step]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(in crate::cli) period: Option<Duration>,

    /// Bytes of each message's body
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = size)]
    pub(in crate::cli) size: usize,

    /// Ask for a reply to each message, and count lost and repeated ones. The pool needs `reply = true`
    #[arg(long)]
    pub(in crate::cli) verify: bool,

    /// Draw depth, workers and latency over time
    #[arg(long, value_name = "FILE.svg")]
    pub(in crate::cli) plot: Option<PathBuf>,

    /// The title of the plot [default: a description of the load]
    #[arg(long, value_name = "TEXT", requires = "plot")]
    pub(in crate::cli) plot_title: Option<String>,

    /// How long to wait for the next confirm and, after the last message, for the next reply
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub(in crate::cli) patience: Duration,

    /// The maximum number of messages that wait for their confirm
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = window)]
    pub(in crate::cli) in_flight: usize,

    #[command(flatten)]
    pub(in crate::cli) broker: BrokerArgs,

    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}

/// Which broker to send to.
#[derive(Debug, Args)]
pub(in crate::cli) struct BrokerArgs {
    /// The broker [default: from the configuration, or $AMQP_URL, or one on this machine]
    #[arg(long, value_name = "URL", value_parser = broker_url)]
    pub(in crate::cli) url: Option<String>,
}

/// The error does not repeat the text, because it may contain a password.
fn broker_url(text: &str) -> Result<String, String> {
    let is_amqp = url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "amqp" | "amqps"));
    match is_amqp {
        true => Ok(text.to_owned()),
        false => Err("write amqp://USER:PASSWORD@HOST:5672/VHOST, or amqps://".to_owned()),
    }
}

fn shape(text: &str) -> Result<LoadShape, String> {
    Ok(match text {
        "steady" => LoadShape::Steady,
        "burst" => LoadShape::Burst,
        "sine" => LoadShape::Sine,
        "step" => LoadShape::Step,
        file => {
            let text = files::read_text(Path::new(file), Links::Follow, LARGEST_TRACE).map_err(
                |error| format!("write steady, burst, sine, step, or the file of a trace: {error}"),
            )?;
            LoadShape::Trace(Trace::parse(&text).map_err(|error| error.to_string())?)
        }
    })
}

/// A load is a process of its own and takes a few weeks at most.
fn time(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(366 * 86_400);
    match parse_duration(text) {
        Some(time) if !time.is_zero() && time <= longest => Ok(time),
        Some(_) => Err("write a time above 0, and at most a year".to_owned()),
        None => Err("write a time such as 500ms, 90s or 10m".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1e-6..=1e7).contains(&rate) => Ok(rate),
        _ => Err("write a number of messages per second, such as 100 or 0.5".to_owned()),
    }
}

fn size(text: &str) -> Result<usize, String> {
    /// The largest message that any broker accepts.
    const MAX_BODY: usize = 128 << 20;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].trim() {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        _ => None,
    };
    let bytes = digits.trim().parse::<usize>().ok();
    let bytes = bytes
        .zip(factor)
        .and_then(|(n, factor)| n.checked_mul(factor));
    bytes
        .filter(|bytes| *bytes <= MAX_BODY)
        .ok_or_else(|| "write a number of bytes, or a size such as 4KiB; at most 128MiB".to_owned())
}

fn window(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(window @ 1..=1_000_000) => Ok(window),
        _ => Err("write a number from 1 to 1000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("4KiB", Some(4096)),
            ("1MiB", Some(1 << 20)),
            ("129MiB", None),
            ("4kb", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
    }

    #[test]
    fn rates_and_times_are_above_zero() {
        for bad in ["0", "-1", "NaN", "inf", "many"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert_eq!(rate("0.5"), Ok(0.5));
        for bad in ["0s", "soon", "10", "10000d"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_shape_that_is_not_a_known_name_is_a_file() {
        assert_eq!(shape("sine"), Ok(LoadShape::Sine));
        let error = shape("sinus").unwrap_err();
        assert!(error.contains("steady, burst, sine, step"), "{error}");
    }
}
