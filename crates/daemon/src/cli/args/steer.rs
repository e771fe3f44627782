//! The arguments of the commands that control a running supervisor.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::socket::SocketArgs;
use tidegate::{
    api::v1::{TimeSpan, Workers},
    run::StopThen,
    text::parse_duration,
};
use tidegate_sim::ServiceTimes;

/// Which pools are meant.
#[derive(Debug, Args)]
pub(in crate::cli) struct PoolsArgs {
    /// The pools
    #[arg(value_name = "POOL", required_unless_present = "all")]
    pub(in crate::cli) pools: Vec<String>,

    /// Every pool
    #[arg(long, conflicts_with = "pools")]
    pub(in crate::cli) all: bool,

    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PauseArgs {
    #[command(flatten)]
    pub(in crate::cli) pools: PoolsArgs,

    /// Resume automatically after this time: 90s, 30m, 2h
    #[arg(long = "for", value_name = "TIME")]
    pub(in crate::cli) span: Option<TimeSpan>,

    /// Pause only the shrinking: the pool works and may grow, but stops no worker
    #[arg(long)]
    pub(in crate::cli) shrinking: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ResumeArgs {
    #[command(flatten)]
    pub(in crate::cli) pools: PoolsArgs,

    /// Resume only the shrinking
    #[arg(long)]
    pub(in crate::cli) shrinking: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DrainArgs {
    #[command(flatten)]
    pub(in crate::cli) pools: PoolsArgs,

    /// Wait no longer than this: 30s, 5m
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) timeout: Option<TimeSpan>,

    /// When that time has passed, stop the jobs that still run and give their messages back
    #[arg(long, requires = "timeout")]
    pub(in crate::cli) give_back: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FlushArgs {
    #[command(flatten)]
    pub(in crate::cli) pools: PoolsArgs,

    /// Stop busy runners too. Their jobs are stopped and given back, and no attempt is spent
    #[arg(long)]
    pub(in crate::cli) busy: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ScaleArgs {
    /// The pool
    pub(in crate::cli) pool: String,

    /// A number of workers, or `auto` to let the policy decide
    #[arg(value_name = "N|auto")]
    pub(in crate::cli) workers: Workers,

    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReloadArgs {
    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyArgs {
    #[command(subcommand)]
    pub(in crate::cli) command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PolicyCommand {
    /// Show a pool's policy and scaling as TOML, and the source of each key
    #[command(after_help = "\
Examples:
  tidegate policy show thumbnails
  tidegate policy show thumbnails > policy.toml")]
    Show(PolicyShowArgs),

    /// Set keys of a pool's policy and scaling by hand
    ///
    /// Takes effect at the next reconcile. Stays in force after a restart, until the pool's policy in the configuration
    /// changes. The whole change is refused (exit code 78) if `tidegate check` would refuse the same keys in the file.
    #[command(after_help = "\
Examples:
  tidegate policy set thumbnails jobs_per_worker=2
  tidegate policy set thumbnails kind=fixed workers=5 --dry-run
  tidegate policy set thumbnails kind=target_wait target=30s --dry-run --plot lab.svg
  tidegate policy set thumbnails down_window=30s scaling.up_step=10
  tidegate policy set thumbnails --file policy.toml")]
    Set(PolicySetArgs),

    /// Remove every key that was set by hand
    #[command(after_help = "\
Examples:
  tidegate policy reset thumbnails
  tidegate policy reset thumbnails --dry-run")]
    Reset(PolicyResetArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyShowArgs {
    /// The pool
    pub(in crate::cli) pool: String,

    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicySetArgs {
    /// The pool
    pub(in crate::cli) pool: String,

    /// Keys with their values as TOML. Text needs no quotes. `scaling.` may be left out
    #[arg(value_name = "KEY=VALUE", required_unless_present = "file")]
    pub(in crate::cli) keys: Vec<String>,

    /// Replace all keys that were set by hand by those of this TOML file, with or without the tables `policy` and
    /// `scaling`. `-` is standard input
    #[arg(long, value_name = "F")]
    pub(in crate::cli) file: Option<PathBuf>,

    #[command(flatten)]
    pub(in crate::cli) trial: DryRunArgs,

    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}

/// A change that is only tried.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct DryRunArgs {
    /// Change nothing: show what the new policy would do now, and what it would have done on the pool's last day, beside
    /// the old one
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,

    /// Draw arrivals, depth, workers and waits of both policies into one picture
    #[arg(long, value_name = "FILE.svg", requires = "dry_run")]
    pub(in crate::cli) plot: Option<PathBuf>,

    /// How long jobs take: exp:2s, fixed:2s, lognormal:2s,4s (mean and standard deviation) [default: what the pool
    /// measured]
    #[arg(long, value_name = "S", requires = "dry_run", value_parser = service)]
    pub(in crate::cli) service: Option<String>,

    /// Longest acceptable wait [default: the target of a policy target_wait]
    #[arg(long, value_name = "TIME", requires = "dry_run", value_parser = target)]
    pub(in crate::cli) target: Option<String>,
}

/// Run times, as the supervisor reads them. It answers in the words of its API.
fn service(text: &str) -> Result<String, String> {
    match ServiceTimes::named(text) {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("write exp:2s, fixed:2s or lognormal:2s,4s".to_owned()),
    }
}

fn target(text: &str) -> Result<String, String> {
    match parse_duration(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("write a time such as 30s".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyResetArgs {
    /// The pool
    pub(in crate::cli) pool: String,

    #[command(flatten)]
    pub(in crate::cli) trial: DryRunArgs,

    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct JobsArgs {
    #[command(subcommand)]
    pub(in crate::cli) command: Option<JobsCommand>,

    /// The pool [default: every pool]
    pub(in crate::cli) pool: Option<String>,

    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum JobsCommand {
    /// Stop a running job, within the grace time of its runner
    ///
    /// Its message is settled as --then says. If the job ends by itself within the grace time, its own end decides.
    #[command(after_help = "\
Examples:
  tidegate jobs stop order-17
  tidegate jobs stop order-17 --pool thumbnails --then reject")]
    Stop(JobsStopArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct JobsStopArgs {
    /// The job's id as `jobs` shows it
    pub(in crate::cli) id: String,

    /// The pool that it runs in [default: every pool]
    #[arg(long)]
    pub(in crate::cli) pool: Option<String>,

    /// What happens to its message
    #[arg(long, value_enum, default_value_t = Then::Retry)]
    pub(in crate::cli) then: Then,

    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}

/// What happens to the message of a job that is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Then {
    /// It is retried later with backoff, as if the job had failed: an attempt is spent
    Retry,
    /// It is dead-lettered at once
    Reject,
    /// It goes back to the queue at once, and no attempt is spent
    Requeue,
}

impl From<Then> for StopThen {
    fn from(then: Then) -> Self {
        match then {
            Then::Retry => Self::Retry,
            Then::Reject => Self::Reject,
            Then::Requeue => Self::Requeue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dry_run_is_given_is_checked_before_it_is_sent() {
        assert_eq!(service("lognormal:2s,4s").unwrap(), "lognormal:2s,4s");
        assert_eq!(target("1m30s").unwrap(), "1m30s");
        for wrong in ["gamma:2s", "exp:soon", "2s", "times.csv", ""] {
            let why = service(wrong).unwrap_err();
            assert_eq!(why, "write exp:2s, fixed:2s or lognormal:2s,4s", "{wrong}");
        }
        assert_eq!(target("soon").unwrap_err(), "write a time such as 30s");
    }
}
