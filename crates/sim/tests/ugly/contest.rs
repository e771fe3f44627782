//! The contest on one trace: `target_wait` with its defaults, against neighbours.

use std::{fmt, time::Duration};

use tidegate_core::{
    decide::{DrainAfter, Policy, Rules, Scaling, Schedule, TargetWait},
    settings::RetrySettings,
    trace::Trace,
};
use tidegate_sim::{Contender, PoolModel, Report, ServiceTimes, Workload, simulate};

/// The waiting time that 95 of 100 jobs should not pass.
pub(crate) const TARGET: Duration = Duration::from_secs(30);

/// The service times of the goal, with a mean of 2 s: exponential, and lognormal with a heavy tail.
pub(crate) const SERVICES: [&str; 2] = ["exp:2s", "lognormal:2s,8s"];

/// The neighbours that the table of docs/policies.md is about, beside each fixed pool.
const FIELD: [&str; 14] = [
    "keda:1",
    "keda:2",
    "keda:5",
    "keda:10",
    "keda:15",
    "keda:20",
    "knative:1",
    "knative:2",
    "knative:5",
    "knative:10",
    "judoscale:10s",
    "judoscale:15s",
    "judoscale:30s",
    "horizon",
];

/// What of the goal was not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    /// The 95th percentile of the waits is above the target.
    pub(crate) target: bool,
    /// A neighbour that holds the target costs no more.
    pub(crate) cost: bool,
    /// Horizon starts and stops no more workers.
    pub(crate) churn: bool,
}

/// One workload with the ceiling of all contenders.
pub(crate) struct Contest {
    workload: Workload,
    max: u32,
}

/// The result: `target_wait`, the cheapest neighbour that holds the target, and Horizon.
pub(crate) struct Outcome {
    pub(crate) ours: Report,
    pub(crate) cheapest: Option<Report>,
    pub(crate) horizon: Report,
}

impl Contest {
    /// With this ceiling, or with one that is well above the busiest span.
    pub(crate) fn new(text: &str, service: &str, seed: u64, max: Option<u32>) -> Self {
        let trace = Trace::parse(text).expect("a trace");
        let service = ServiceTimes::named(service).expect("named").expect("valid");
        let max = max.unwrap_or_else(|| enough(&trace));
        let workload = Workload {
            seed,
            start_up: Duration::from_millis(100),
            ..Workload::new(trace, service)
        };
        Self { workload, max }
    }

    /// Against each neighbour of the field, and the smallest fixed pool that holds the target.
    pub(crate) fn against_all(&self) -> Outcome {
        let horizon = self.neighbour("horizon");
        let mut cheapest: Option<Report> = None;
        let mut consider = |report: Report| {
            let best = cheapest.as_ref();
            let is_cheaper = best.is_none_or(|best| report.worker_seconds < best.worker_seconds);
            if holds(&report) && is_cheaper {
                cheapest = Some(report);
            }
        };
        let (mut low, mut high) = (0, self.max);
        while low + 1 < high {
            let middle = (low + high) / 2;
            match holds(&self.neighbour(&format!("fixed:{middle}"))) {
                true => high = middle,
                false => low = middle,
            }
        }
        consider(self.neighbour(&format!("fixed:{high}")));
        for name in FIELD {
            consider(self.neighbour(name));
        }
        Outcome {
            ours: self.target_wait(None),
            cheapest,
            horizon,
        }
    }

    /// Against Horizon and this neighbour, if it holds the target.
    pub(crate) fn against(&self, name: &str) -> Outcome {
        Outcome {
            ours: self.target_wait(None),
            cheapest: Some(self.neighbour(name)).filter(holds),
            horizon: self.neighbour("horizon"),
        }
    }

    fn run(&self, contender: &Contender) -> Report {
        simulate(&self.workload, contender, &mut |_, _, _| {}).report
    }

    /// A pool with `kind = "target_wait"` and its defaults, except for this time until it drains.
    pub(crate) fn target_wait(&self, drain_after: Option<DrainAfter>) -> Report {
        let rules = Rules {
            policy: Policy::target_wait(TARGET).max(self.max),
            own: None,
            scaling: Scaling::default(),
            drain_after: drain_after.unwrap_or_else(|| TargetWait::new(TARGET).drain_after()),
            keep_warm: 0,
            preempt: false,
            schedule: Schedule::default(),
        };
        let pool = PoolModel::new("target_wait", rules);
        self.run(&Contender::Pool(Box::new(pool)))
    }

    pub(crate) fn neighbour(&self, name: &str) -> Report {
        self.run(&Contender::Neighbour {
            model: name.parse().expect("a neighbour"),
            max: self.max,
            retry: RetrySettings::default(),
        })
    }
}

impl Outcome {
    pub(crate) fn missed(&self) -> Missed {
        let cheapest = self.cheapest.as_ref();
        Missed {
            target: !holds(&self.ours),
            cost: cheapest.is_some_and(|best| best.worker_seconds <= self.ours.worker_seconds),
            churn: self.ours.churn() >= self.horizon.churn(),
        }
    }

    /// A row of the tables in docs/policies.md. What is not reached is bold.
    pub(crate) fn row(&self, trace: &str) -> String {
        let missed = self.missed();
        let bold = |text: String, is_missed| match is_missed {
            true => format!("**{text}**"),
            false => text,
        };
        let seconds = |seconds: f64| thousands(seconds.round() as u64);
        let cheapest = self.cheapest.as_ref().map_or_else(
            || "none".to_owned(),
            |best| format!("{}: {}", best.name, seconds(best.worker_seconds)),
        );
        format!(
            "| {trace} | {} | {} | {cheapest} | {} | {} |",
            bold(format!("{:.1} s", self.ours.wait_s.p95), missed.target),
            bold(seconds(self.ours.worker_seconds), missed.cost),
            bold(thousands(self.ours.churn()), missed.churn),
            thousands(self.horizon.churn()),
        )
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            cost,
            churn,
        } = self;
        for (is_missed, word) in [(target, " LATE"), (cost, " COST"), (churn, " CHURN")] {
            if *is_missed {
                f.write_str(word)?;
            }
        }
        Ok(())
    }
}

fn holds(report: &Report) -> bool {
    report.left == 0 && report.wait_s.p95 <= TARGET.as_secs_f64()
}

/// A ceiling with room above the busiest span.
fn enough(trace: &Trace) -> u32 {
    let rates = trace.spans().iter().map(|span| {
        let seconds = span.length.as_secs_f64().max(30.0);
        span.arrivals / seconds * 2.0
    });
    (rates.fold(0.0, f64::max) * 1.6 + 10.0).ceil() as u32
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
