//! The arguments of the command line, with their help texts. The modules of the commands do the work.

pub(super) mod dead;
pub(super) mod init;
pub(super) mod load;
pub(super) mod publish;
pub(super) mod record;
pub(super) mod simulate;
mod socket;
pub(super) mod status;
pub(super) mod steer;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::Styles};
use clap_complete::Shell;

pub(super) use self::socket::SocketArgs;
use self::{
    dead::DeadArgs,
    init::InitArgs,
    load::LoadArgs,
    publish::PublishArgs,
    record::RecordArgs,
    simulate::{SimulateArgs, TuneArgs},
    status::StatusArgs,
    steer::{
        DrainArgs, FlushArgs, JobsArgs, PauseArgs, PolicyArgs, ReloadArgs, ResumeArgs, ScaleArgs,
    },
};
use tidegate::config::LogFormat;

const STYLES: Styles = Styles::styled()
    .header(anstyle::Style::new().bold())
    .usage(anstyle::Style::new().bold())
    .literal(anstyle::AnsiColor::Cyan.on_default())
    .placeholder(anstyle::Style::new().dimmed());

/// A worker pool that grows and shrinks with a RabbitMQ queue.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    styles = STYLES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  tidegate demo                           see a pool grow and shrink
  tidegate init --queue thumbnails -- python3 thumb.py
                                          write a first configuration
  tidegate check --broker                 is the configuration valid, and the broker ready for it?
  tidegate run --config tidegate.toml     run the pools of a configuration
  tidegate status                         the pools of a running supervisor
  tidegate explain thumbnails             why the pool has the size it has
  tidegate pause thumbnails --for 30m     stop taking messages; resumes by itself
  tidegate jobs thumbnails                what runs now
  tidegate dead list thumbnails           its dead letters; `dead retry` puts them back
  tidegate load --queue thumbnails --count 1000 --verify
                                          send it messages, and check that all are processed

Exit codes:
  0 ok  1 unexpected  2 usage  69 broker or supervisor unavailable
  75 drain deadline passed: jobs were given back, or still run  78 bad configuration"
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,

    /// Configuration file [default: $TIDEGATE_CONFIG, ./tidegate.toml, /etc/tidegate/tidegate.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// How data is printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub(super) format: Format,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the supervisor, in the foreground
    ///
    /// Signals: TERM or a first INT (Ctrl-C) drains every pool within its shutdown_grace; a second INT, or QUIT,
    /// stops at once and gives running jobs back. HUP reads the configuration again. USR1 logs the state.
    #[command(after_help = "\
Examples:
  tidegate run
  tidegate run --config /etc/tidegate/tidegate.toml --log-format json
  TIDEGATE_BROKER__URL=amqp://me:secret@rabbit/%2f tidegate run
  tidegate run --takeover                 replace a running one, which finishes its jobs
  TIDEGATE_LOG=debug tidegate run         a line for every job")]
    Run(RunArgs),

    /// Read the configuration and print all of its problems
    ///
    /// Each problem comes with file, line, key, what was found and what to write instead. With --broker the
    /// broker is asked too: whether it can be reached and whether each queue is there. It changes nothing on the
    /// broker, and lists what it could not check.
    #[command(after_help = "\
Examples:
  tidegate check
  tidegate check --broker --format json
  TIDEGATE_POOLS__THUMBNAILS__POLICY__MAX=5 tidegate check")]
    Check(CheckArgs),

    /// Show a pool that grows, works and drains
    ///
    /// Declares a queue of its own on the broker of AMQP_URL. Without AMQP_URL the queue is in memory. Sends a burst of
    /// jobs, and after a pause a larger burst, and shows how depth, workers and runners change. Ends by itself in under
    /// a minute. It fails if a job did not run, a job was lost, or the pool did not drain to zero.
    #[command(after_help = "\
Examples:
  tidegate demo
  AMQP_URL=amqp://guest:guest@localhost:5672/%2f tidegate demo")]
    Demo,

    /// Write a first configuration, for a queue and a command
    ///
    /// Writes ./tidegate.toml, or the file of --config. An existing file is not changed.
    #[command(after_help = "\
Examples:
  tidegate init --queue thumbnails -- python3 thumb.py
  tidegate init -c img.toml --queue img.resize --pool resize -- /usr/local/bin/resize --width 320")]
    Init(InitArgs),

    /// Publish a message, from a file or standard input
    ///
    /// The message is persistent and confirmed: after exit code 0 it is in a queue. A missing queue is an
    /// error, with exit code 1.
    #[command(after_help = "\
Examples:
  echo cat.png | tidegate publish thumbnails
  tidegate publish thumbnails job.json --content-type application/json --header tenant=acme
  tidegate publish thumbnails job.json --count 100")]
    Publish(PublishArgs),

    /// Send a load of messages, and measure how they are handled
    ///
    /// Sends persistent messages with publisher confirms, on a schedule. A latency is measured from the time at which
    /// its message was due, even if a slow broker delays the message. With --verify each message asks the pool for an
    /// answer. Exit code 1: a message was returned, refused (or not confirmed) or lost. Ctrl-C ends it early, with the
    /// report.
    ///
    /// Shapes, of a mean rate R: steady; burst (4 R for a quarter of each wave, then nothing); sine (0 to 2 R); step
    /// (0.4, 0.8, 1.2 and 1.6 R); or a trace, a CSV file with the head line `time,arrivals` or `time`.
    #[command(after_help = "\
Examples:
  tidegate load --queue thumbnails --count 100000
  tidegate load --queue thumbnails --duration 60s --rate 50 --shape sine --verify --plot tide.svg
  tidegate load --queue thumbnails --shape monday.csv --rate 20 --verify --format json | jq .done_ms")]
    Load(LoadArgs),

    /// Try policies on recorded or generated traffic, in virtual time
    ///
    /// Runs the code that decides in the supervisor on a trace, and compares pools with each other and with models of other
    /// autoscalers. All runs have the same arrivals and the same service times. A wait ends when its job first
    /// runs. Worker-seconds are the cost. No broker is needed.
    #[command(after_help = "\
Examples:
  tidegate simulate --trace monday.csv --service exp:2s tidegate.toml
  tidegate simulate --trace monday.csv --service lognormal:2s,4s --against keda:10,horizon --plot monday.svg tidegate.toml
  tidegate simulate --trace monday.csv --service times.csv --format json old.toml#thumbnails new.toml#thumbnails")]
    Simulate(SimulateArgs),

    /// Find the cheapest policy setting that meets a target for waiting times
    ///
    /// Tries keys of the pool's own policy (`jobs_per_worker`, `utilisation` or `workers`, then `down_window` and `max`) on
    /// the first part of a trace: the target is met if 95 of 100 jobs wait no longer. The best setting is checked on the
    /// rest of the trace, and printed as TOML. `max` is never raised.
    #[command(after_help = "\
Examples:
  tidegate tune --trace monday.csv --service exp:2s tidegate.toml
  tidegate tune --trace monday.csv --service times.csv --target 10s --format json tidegate.toml#thumbnails | jq -r .toml")]
    Tune(TuneArgs),

    /// Show the pools of a running supervisor
    ///
    /// `~` after READY: the reading is out of date. `*` after EXPECTED: an operator has pinned the number.
    #[command(after_help = "\
Examples:
  tidegate status
  tidegate status --watch
  tidegate status --format json | jq '.[] | {name, state, ready: .depth.ready}'")]
    Status(StatusArgs),

    /// Watch the pools of a running supervisor, live
    ///
    /// A row for each pool, one pool in detail with its decision and its jobs, and keys to pause, resume, drain and scale.
    /// Press `?` for the keys.
    #[command(after_help = "\
Examples:
  tidegate top
  NO_COLOR=1 tidegate top")]
    Top(SocketArgs),

    /// Record the arrivals of a running pool as a trace
    ///
    /// A line for each second, with the messages that arrived in it. `simulate`, `tune` and `load` read the file.
    #[command(after_help = "\
Examples:
  tidegate record thumbnails --duration 24h --output day.csv
  tidegate simulate --trace day.csv --service exp:2s tidegate.toml")]
    Record(RecordArgs),

    /// Explain why a pool has the size it has
    ///
    /// Shows what was read and counted, each term of the calculation, the limits that applied, and the resulting plan.
    #[command(after_help = "\
Examples:
  tidegate explain thumbnails
  tidegate explain thumbnails --format json | jq .decision.terms")]
    Explain(ExplainArgs),

    /// Stop taking messages. Running jobs continue, messages stay in the queue
    ///
    /// Stays in force after a reload or a restart, until `resume` or until the time of --for has passed.
    #[command(after_help = "\
Examples:
  tidegate pause thumbnails
  tidegate pause thumbnails --for 30m
  tidegate pause --all
  tidegate pause thumbnails --shrinking   continue, but stop no worker")]
    Pause(PauseArgs),

    /// Take messages again, after a pause or a drain
    #[command(after_help = "\
Examples:
  tidegate resume thumbnails
  tidegate resume --all
  tidegate resume thumbnails --shrinking  the pool may shrink again")]
    Resume(ResumeArgs),

    /// Stop taking messages, and wait until the pool is empty
    ///
    /// Shows the progress. The pool stays empty until `resume`, also after a restart. If --timeout passes first, the
    /// exit code is 75, and running jobs continue. With --give-back they are stopped and their messages are given back.
    #[command(after_help = "\
Examples:
  tidegate drain thumbnails
  tidegate drain --all --timeout 5m
  tidegate drain thumbnails --timeout 1m --give-back")]
    Drain(DrainArgs),

    /// Stop idle runners now; the pool starts new ones as it needs them
    #[command(after_help = "\
Examples:
  tidegate flush thumbnails
  tidegate flush thumbnails --busy        running jobs too: they are given back")]
    Flush(FlushArgs),

    /// Pin a pool to a number of workers, or let its policy decide again
    ///
    /// The pool's `max` still applies. Stays in force after a reload or a restart, until `scale POOL auto`.
    #[command(after_help = "\
Examples:
  tidegate scale thumbnails 20
  tidegate scale thumbnails auto")]
    Scale(ScaleArgs),

    /// Show or change the policy of a pool
    #[command(after_help = "\
Examples:
  tidegate policy show thumbnails
  tidegate policy set thumbnails jobs_per_worker=2 max=100 --dry-run
  tidegate policy set thumbnails jobs_per_worker=2 max=100
  tidegate policy reset thumbnails        as the configuration says")]
    Policy(PolicyArgs),

    /// Show the jobs that run now, or stop one of them
    #[command(after_help = "\
Examples:
  tidegate jobs
  tidegate jobs thumbnails
  tidegate jobs stop order-17
  tidegate jobs stop order-17 --then requeue")]
    Jobs(JobsArgs),

    /// Make the supervisor read its configuration again
    ///
    /// Like the signal HUP, and prints the result. An invalid configuration is refused as a whole (exit code 78), and
    /// the old one stays.
    #[command(after_help = "\
Examples:
  tidegate check && tidegate reload")]
    Reload(ReloadArgs),

    /// Show, retry or delete the dead letters of a pool
    ///
    /// Connects to the broker of the configuration. The supervisor does not have to run.
    #[command(after_help = "\
Examples:
  tidegate dead list thumbnails
  tidegate dead retry thumbnails          all of them, with all attempts available again
  tidegate dead purge thumbnails --reason rejected")]
    Dead(DeadArgs),

    /// Print shell completions
    #[command(after_help = "\
Examples:
  tidegate completions bash > ~/.local/share/bash-completion/completions/tidegate
  tidegate completions zsh > ~/.zfunc/_tidegate
  tidegate completions fish > ~/.config/fish/completions/tidegate.fish")]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },

    /// Write the reference pages of the repository
    #[command(hide = true)]
    Docs {
        /// The directory to write to. It is created if it is missing
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },

    /// Write the manual pages
    ///
    /// For packages: a page for each command, and one for the configuration file.
    #[command(hide = true)]
    Man {
        /// The directory to write to. It is created if it is missing
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Format of log lines. Overrides [log] format
    #[arg(long, value_enum)]
    pub(super) log_format: Option<Format>,

    /// Run without the guard. The guard ends every job if the supervisor is killed
    #[arg(long)]
    pub(super) no_guard: bool,

    /// Take over from the running supervisor. That one finishes its jobs and takes no more messages
    ///
    /// Both must run as the same user, with the same state_dir. No job is stopped. If no supervisor runs, or it does
    /// not answer, the exit code is 69 and nothing is changed.
    #[arg(long)]
    pub(super) takeover: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Check the broker too
    #[arg(long)]
    pub(super) broker: bool,

    /// Print every key with its default instead, as a configuration file
    #[arg(long, conflicts_with = "broker")]
    pub(super) reference: bool,

    /// Print the JSON schema of the file instead, for an editor
    #[arg(long, conflicts_with_all = ["broker", "reference"])]
    pub(super) schema: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The pool
    pub(super) pool: String,

    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    // For people. Not doc comments: clap would spread the values over the help.
    Human,
    // For programs.
    Json,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Human => Self::Human,
            Format::Json => Self::Json,
        }
    }
}
