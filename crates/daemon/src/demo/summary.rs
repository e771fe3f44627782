//! The result of a demo, and whether it succeeded.

use std::time::Duration;

use tidegate::{
    run::JobTotals,
    text::{counted, form_for},
};

/// The end of a demo, in numbers.
#[derive(Debug, Clone)]
pub(super) struct Summary {
    /// Jobs that the broker has confirmed.
    pub(super) published: usize,
    /// Published jobs whose ids are in the job file.
    pub(super) ran: usize,
    /// Ids in the job file. There are more than jobs if a job ran twice.
    pub(super) runs: usize,
    /// The pool's own counts.
    pub(super) jobs: JobTotals,
    /// How often the pool drained to zero.
    pub(super) drains: u32,
    pub(super) peak_workers: u32,
    pub(super) peak_ready: u64,
    /// Time from the first publish to the start of the first job.
    pub(super) first_start: Option<Duration>,
    /// Time from the end of the last job until no worker is left.
    pub(super) last_drain: Option<Duration>,
    pub(super) took: Duration,
}

/// One drain after the first burst, and one after the second.
const DRAINS: u32 = 2;

impl Summary {
    /// The problem with this result, if there is one.
    pub(super) fn problem(&self) -> Option<String> {
        let lost = self.published.saturating_sub(self.ran);
        let problem = [
            (lost > 0, format!("{} lost", jobs_were(lost))),
            (
                self.jobs.dead > 0,
                format!("{} dead-lettered", jobs_were(self.jobs.dead)),
            ),
            (
                self.drains < DRAINS,
                format!(
                    "the pool drained {} of {}",
                    self.drains,
                    counted(DRAINS, "time")
                ),
            ),
            (self.published == 0, "no job was published".to_owned()),
        ];
        let problem: Vec<_> = problem
            .into_iter()
            .filter_map(|(is_so, what)| is_so.then_some(what))
            .collect();
        (!problem.is_empty()).then(|| problem.join(", "))
    }

    /// The label and the value of each line.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let lost = self.published.saturating_sub(self.ran);
        let twice = self.runs.saturating_sub(self.ran);
        let time = |time: Option<Duration>| match time {
            Some(time) if time < Duration::from_secs(1) => format!("{} ms", time.as_millis()),
            Some(time) => format!("{:.1} s", time.as_secs_f64()),
            None => "never".to_owned(),
        };
        vec![
            ("published", counted(self.published, "job")),
            (
                "ran",
                match twice {
                    0 => format!("{}, each once", counted(self.ran, "job")),
                    twice => format!(
                        "{}, and {}",
                        counted(self.ran, "job"),
                        counted(twice, "repeat")
                    ),
                },
            ),
            ("lost", lost.to_string()),
            ("retried", self.jobs.retried.to_string()),
            (
                "peak",
                format!(
                    "{}, {} ready",
                    counted(self.peak_workers, "worker"),
                    self.peak_ready
                ),
            ),
            (
                "first start",
                format!("{} after the first publish", time(self.first_start)),
            ),
            (
                "to zero",
                format!(
                    "{} after the last job, {}",
                    time(self.last_drain),
                    counted(self.drains, "time")
                ),
            ),
            ("took", time(Some(self.took))),
        ]
    }
}

fn jobs_were(count: impl TryInto<u64> + Copy) -> String {
    let were = form_for(count, "was", "were");
    format!("{} {were}", counted(count, "job"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Summary {
        Summary {
            published: 10,
            ran: 10,
            runs: 10,
            jobs: JobTotals {
                done: 10,
                ..JobTotals::default()
            },
            drains: 2,
            peak_workers: 3,
            peak_ready: 9,
            first_start: Some(Duration::from_millis(40)),
            last_drain: Some(Duration::from_millis(1_200)),
            took: Duration::from_secs(15),
        }
    }

    #[test]
    fn succeeds_if_every_job_ran_and_the_pool_drained() {
        assert_eq!(good().problem(), None);
        // Delivery is at least once.
        let twice = Summary { runs: 11, ..good() };
        assert_eq!(twice.problem(), None);
        assert!(twice.lines()[1].1.contains("1 repeat"));
    }

    #[test]
    fn fails_if_a_job_is_missing_or_dead_or_the_pool_does_not_drain() {
        let dead = JobTotals {
            dead: 1,
            ..JobTotals::default()
        };
        // A job that ran twice does not replace one that did not run.
        let cases = [
            (
                Summary {
                    ran: 9,
                    runs: 10,
                    ..good()
                },
                "1 job was lost",
            ),
            (
                Summary {
                    jobs: dead,
                    ..good()
                },
                "1 job was dead-lettered",
            ),
            (
                Summary {
                    drains: 1,
                    ..good()
                },
                "the pool drained 1 of 2 times",
            ),
            (
                Summary {
                    published: 0,
                    ran: 0,
                    runs: 0,
                    ..good()
                },
                "no job was published",
            ),
        ];
        for (summary, problem) in cases {
            assert_eq!(summary.problem().as_deref(), Some(problem));
        }
    }
}
