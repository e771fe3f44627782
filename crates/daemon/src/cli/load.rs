//! `tidegate load`: what can be typed after it, and what is printed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use serde::Deserialize;

use super::{
    args::{Cli, Format, SocketArgs},
    client,
    output::{self, Exit, Failure},
};
use crate::load::{self, AskWorkers, Plan, Shape, Until};
use tidegate::{
    config::{self, BrokerSettings, BrokerUrl, TlsSettings},
    trace::Trace,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct LoadArgs {
    /// The queue, through the default exchange
    #[arg(long, value_name = "QUEUE")]
    queue: String,

    /// Send so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Send for so long, such as 90s or 10m; what is late may take 5 s more
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "count")]
    duration: Option<Duration>,

    /// Messages a second, on average [default: as many as the broker confirms; a trace's own]
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,

    /// How they are spread: steady, burst, sine, step, or a trace (a CSV file)
    #[arg(long, value_name = "SHAPE", default_value = "steady", value_parser = shape)]
    shape: Shape,

    /// How long one wave of the shape is [default: half the load; of step all of it]
    #[arg(long, value_name = "TIME", value_parser = time)]
    period: Option<Duration>,

    /// Bytes of each message's body
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = size)]
    size: usize,

    /// Ask for an answer to each message, and keep account of them; the pool needs `reply = true`
    #[arg(long)]
    verify: bool,

    /// Draw depth, workers and latency over time
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    /// What is written over it [default: what is sent]
    #[arg(long, value_name = "TEXT", requires = "plot")]
    plot_title: Option<String>,

    /// Longest silence while a confirm or, after the last message, an answer is awaited
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    patience: Duration,

    /// Most messages that wait for their confirm
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = window)]
    in_flight: usize,

    #[command(flatten)]
    broker: BrokerArgs,

    #[command(flatten)]
    socket: SocketArgs,
}

/// Which broker to send to.
#[derive(Debug, Args)]
pub(super) struct BrokerArgs {
    /// The broker [default: $AMQP_URL, else the configuration's, else one on this machine]
    #[arg(long, value_name = "URL", value_parser = broker_url)]
    url: Option<String>,
}

pub(super) async fn load(cli: &Cli, args: &LoadArgs) -> Result<Exit, Failure> {
    let plan = Plan {
        broker: args.broker.settings(cli)?,
        queue: args.queue.as_str().into(),
        until: until(args)?,
        rate: args.rate,
        shape: args.shape.clone(),
        period: args.period,
        size: args.size,
        window: args.in_flight,
        patience: args.patience,
        verify: args.verify,
        plot: args.plot.clone(),
        plot_title: args.plot_title.clone(),
    };
    let workers = match args.plot {
        Some(_) => Some(workers(cli, args)?),
        None => None,
    };
    load::run(plan, workers, |printed| {
        if let Some(warning) = printed.warning() {
            output::warn(&warning);
        }
        match cli.format {
            Format::Human => output::write(printed.human().as_bytes()),
            Format::Json => output::json(printed.json()),
        }
    })
    .await
}

/// # Errors
/// The end is not said, or the rate of a shape that has none of its own.
fn until(args: &LoadArgs) -> Result<Until, Failure> {
    let is_trace = matches!(args.shape, Shape::Trace(_));
    if args.rate.is_none() && !is_trace && args.shape != Shape::Steady {
        return Err(usage("spread a load over time without its rate")
            .hint("add --rate R: messages a second, on average"));
    }
    match (args.count, args.duration) {
        (Some(count), _) => Ok(Until::Count(count)),
        (None, Some(time)) => Ok(Until::Time(time)),
        (None, None) if is_trace => Ok(Until::End),
        (None, None) => {
            Err(usage("send a load without an end").hint("add --count N, or --duration 60s"))
        }
    }
}

fn usage(what: &'static str) -> Failure {
    Failure::new(Exit::Usage, anyhow::anyhow!(what))
}

impl BrokerArgs {
    /// The broker that is named, else the one of the environment, else the configuration's. A configuration that is named
    /// is meant, whatever the environment has.
    pub(super) fn settings(&self, cli: &Cli) -> Result<BrokerSettings, Failure> {
        let bare = |url: &str| BrokerSettings {
            url: BrokerUrl::new(url),
            tls: TlsSettings::default(),
        };
        if let Some(url) = &self.url {
            return Ok(bare(url));
        }
        let variable = std::env::var("AMQP_URL").ok().filter(|url| !url.is_empty());
        if cli.config.is_none()
            && let Some(url) = variable
        {
            return Ok(bare(&url));
        }
        if cli.config.is_none() && config::find(None).is_err() {
            return Ok(bare("amqp://guest:guest@localhost:5672/%2f"));
        }
        let (_, loaded) = super::load(cli)?;
        Ok(loaded.settings.broker)
    }
}

/// Asks the supervisor for the workers of the pools on the queue.
fn workers(cli: &Cli, args: &LoadArgs) -> Result<AskWorkers, Failure> {
    #[derive(Deserialize)]
    struct Pool {
        queue: String,
        workers: Workers,
    }
    #[derive(Deserialize)]
    struct Workers {
        live: u32,
        draining: u32,
    }
    let socket = Arc::new(client::socket(cli, &args.socket)?);
    let queue: Arc<str> = args.queue.as_str().into();
    Ok(Box::new(move || {
        let (socket, queue) = (socket.clone(), queue.clone());
        Box::pin(async move {
            let pools: Vec<Pool> = client::get(&socket, "/api/v1/pools", "read the pools")
                .await
                .ok()?;
            let ours = pools.iter().filter(|pool| *pool.queue == *queue);
            let counts = ours.map(|pool| pool.workers.live + pool.workers.draining);
            counts.reduce(|one, other| one + other)
        })
    }))
}

/// Nothing of the text is said again, for it may hold a password.
fn broker_url(text: &str) -> Result<String, String> {
    let is_amqp = url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "amqp" | "amqps"));
    match is_amqp {
        true => Ok(text.to_owned()),
        false => Err("write amqp://USER:PASSWORD@HOST:5672/VHOST, or amqps://".to_owned()),
    }
}

fn shape(text: &str) -> Result<Shape, String> {
    Ok(match text {
        "steady" => Shape::Steady,
        "burst" => Shape::Burst,
        "sine" => Shape::Sine,
        "step" => Shape::Step,
        file => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                format!("write steady, burst, sine, step, or the file of a trace: {error}")
            })?;
            Shape::Trace(Trace::parse(&text).map_err(|error| format!("failed to {error}"))?)
        }
    })
}

/// A load is a process of its own and takes a few weeks at most.
fn time(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(366 * 86_400);
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() && time <= longest => Ok(time),
        Ok(_) => Err("write a time above 0, and of a year at most".to_owned()),
        Err(_) => Err("write a time such as 500ms, 90s or 10m".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1e-6..=1e7).contains(&rate) => Ok(rate),
        _ => Err("write how many messages a second, such as 100 or 0.5".to_owned()),
    }
}

fn size(text: &str) -> Result<usize, String> {
    /// The largest message that any broker takes.
    const LARGEST: usize = 128 << 20;
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
        .filter(|bytes| *bytes <= LARGEST)
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
    fn a_shape_that_is_no_name_is_a_file() {
        assert_eq!(shape("sine"), Ok(Shape::Sine));
        let error = shape("sinus").unwrap_err();
        assert!(error.contains("steady, burst, sine, step"), "{error}");
    }
}
